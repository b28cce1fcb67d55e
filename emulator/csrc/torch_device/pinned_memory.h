// Which host memory is pinned, that is, may be copied to a card without waiting?
#pragma once

#include <c10/core/Allocator.h>

namespace gaudi {

c10::Allocator* pinned_allocator();
bool is_pinned(const void* data);

}  // namespace gaudi
