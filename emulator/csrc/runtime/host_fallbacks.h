// Which operators run on the host although their tensors are on a card, and how often? No torch here.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gaudi::runtime {

namespace detail {
extern std::atomic<bool> any_on_host;
bool named_for_host(const std::string& operator_name);
}  // namespace detail

// Names as "aten::add.Tensor", without the overload, without the namespace, or without both.
void place_on_host(const std::vector<std::string>& operators);

inline bool is_placed_on_host(const std::string& operator_name) {
  return detail::any_on_host.load(std::memory_order_relaxed) && detail::named_for_host(operator_name);
}

void note_host_fallback(const std::string& operator_name);
std::map<std::string, int64_t> host_fallbacks();  // operator -> how often

}  // namespace gaudi::runtime
