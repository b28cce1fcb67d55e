// Who wants to know what the device does, at the moment it does it? Usually nobody, which costs the
// load of one pointer at each event. No torch in this file.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace gaudi::runtime {

class Observer {
 public:
  virtual ~Observer() = default;
  // A copy between host and card has been made; `started_ns` on the host's monotonic clock.
  virtual void copied(int card, bool to_card, int64_t bytes, int64_t started_ns) = 0;
  virtual void host_waited(const char* what) = 0;
  virtual void region_ended() = 0;
  virtual void compiled(const std::string& kind, const std::string& detail, int64_t us) = 0;
};

namespace detail {
inline std::atomic<Observer*> g_observer{nullptr};
}

// The one observer of the process, or nullptr. It lives as long as the process.
inline Observer* observer() { return detail::g_observer.load(std::memory_order_relaxed); }
inline void set_observer(Observer* observer) { detail::g_observer.store(observer); }

}  // namespace gaudi::runtime
