// Which operators does the card lack?
#pragma once

#include <string>
#include <string_view>

namespace gaudi {

// Empty if the operator may run; else the reason it cannot. `has_host_kernel` says whether a CPU
// kernel exists at all.
std::string refusal_reason(std::string_view name_space, std::string_view name,
                           bool has_host_kernel);

}  // namespace gaudi
