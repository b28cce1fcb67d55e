// Which faults are armed, and when do they strike? A site asks with one relaxed load. No torch here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace gaudi::runtime {

enum class Site : uint8_t { kLaunch, kGraphReplay, kCompile, kCopy, kAllocate, kCollective,
                            kRecipeRead, kCount };

// kNan, kWrong and kCorrupt are carried out by the site; the others by `fault_point` itself.
enum class Fault : uint8_t { kNone, kDeviceError, kOutOfMemory, kHang, kSlow, kNan, kWrong,
                             kRankDeath, kCorrupt };

struct ArmedFault {
  Site site;
  int64_t step;    // the step-th visit of the site from arming on, from 1
  Fault kind;
  double seconds;  // of kSlow and kHang; a negative number: until disarmed
  int card;        // visits of this card only; -1: of any
  std::string text;
  int64_t visits = 0;
};

void arm_fault(ArmedFault fault);
void disarm_faults();  // also ends what hangs
std::vector<std::string> armed_faults();
std::vector<std::string> fired_faults();  // in the order in which they struck

// How waiting is done; Python's bindings give the interpreter's lock back meanwhile.
void set_pause(void (*pause)(const std::function<void()>&));

namespace detail {
extern std::atomic<uint32_t> armed_sites;
Fault strike(Site site, int card);
}  // namespace detail

// Throws std::runtime_error for a device error and OutOfMemory for exhausted memory, waits, ends the
// process, or returns what the site must do itself; kNone as a rule.
inline Fault fault_point(Site site, int card) {
  if (detail::armed_sites.load(std::memory_order_relaxed) == 0) [[likely]] return Fault::kNone;
  return detail::strike(site, card);
}

}  // namespace gaudi::runtime
