#include "faults.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include "memory.h"

namespace gaudi::runtime {
namespace detail {
std::atomic<uint32_t> armed_sites{0};
}
namespace {

std::mutex g_mutex;
std::vector<ArmedFault> g_armed;
std::vector<std::string> g_fired;
std::atomic<int64_t> g_generation{0};
void (*g_pause)(const std::function<void()>&) = [](const std::function<void()>& wait) { wait(); };

void update_mask() {
  uint32_t mask = 0;
  for (const auto& fault : g_armed) mask |= 1U << static_cast<unsigned>(fault.site);
  detail::armed_sites.store(mask);
}

// Until `seconds` are over (negative: for ever) or the faults are disarmed.
void wait(double seconds, int64_t generation) {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  while (g_generation.load() == generation) {
    if (seconds >= 0 && std::chrono::duration<double>(clock::now() - start).count() >= seconds) {
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

void set_pause(void (*pause)(const std::function<void()>&)) { g_pause = pause; }

void arm_fault(ArmedFault fault) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_armed.push_back(std::move(fault));
  update_mask();
}

void disarm_faults() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_armed.clear();
  g_fired.clear();
  ++g_generation;
  update_mask();
}

std::vector<std::string> armed_faults() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  std::vector<std::string> texts;
  for (const auto& fault : g_armed) texts.push_back(fault.text);
  return texts;
}

std::vector<std::string> fired_faults() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_fired;
}

Fault detail::strike(Site site, int card) {
  std::optional<ArmedFault> due;
  int64_t generation = 0;
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    generation = g_generation.load();
    for (size_t i = 0; i < g_armed.size();) {
      auto& fault = g_armed[i];
      const bool here = fault.site == site && (fault.card < 0 || fault.card == card);
      if (here && ++fault.visits >= fault.step && !due) {
        due = fault;
        g_fired.push_back(fault.text);
        g_armed.erase(g_armed.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
    update_mask();
  }
  if (!due) return Fault::kNone;
  const std::string injected = " (injected fault " + due->text + ")";
  switch (due->kind) {
    case Fault::kDeviceError:
      throw std::runtime_error("hpu:" + std::to_string(card) +
                               " has failed, synStatus 26 [Generic failure]" + injected);
    case Fault::kOutOfMemory:
      throw OutOfMemory("HPU out of memory on hpu:" + std::to_string(card) + injected);
    case Fault::kHang:
    case Fault::kSlow:
      g_pause([&] { wait(due->seconds, generation); });
      return Fault::kNone;
    case Fault::kRankDeath:
      kill(getpid(), SIGKILL);
      return Fault::kNone;
    default:
      return due->kind;
  }
}

}  // namespace gaudi::runtime
