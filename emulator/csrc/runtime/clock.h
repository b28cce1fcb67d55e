// What time is it on the device? Today the host's monotonic clock; a predicted clock can replace it.
#pragma once

#include <chrono>
#include <cstdint>

namespace gaudi::runtime {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace gaudi::runtime
