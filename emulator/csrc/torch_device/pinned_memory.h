// Which host memory is pinned, that is, may be copied to a card without waiting?
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include "../runtime/order.h"

namespace gaudi {

c10::Allocator* pinned_allocator();
bool is_pinned(const void* data);

// How the cards use the bytes of a pinned storage; null for other storages.
runtime::Uses* pinned_uses(const c10::StorageImpl& host);

}  // namespace gaudi
