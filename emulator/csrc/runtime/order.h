// Is every use of memory ordered after the uses it depends on? A detector of missing
// synchronisation that does not depend on timing. No torch in this file.
//
// Each stream counts its launches and has a clock: of every stream, the last launch that is certainly
// finished when its next one starts (a vector clock). Waiting for an event or a stream takes over the
// other's clock; what the host has waited for holds for everything launched later. Memory remembers
// who used it; a use is an error if an earlier one of another stream, one of the two a write, is not
// covered by the user's clock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "queue.h"

namespace gaudi::runtime {

enum class OrderCheck { kOff, kLog, kRaise };

class MissingSynchronisation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Set once, before the first work. kLog writes each pair of operators once to stderr.
void configure_order_check(OrderCheck check);

namespace detail {
extern std::atomic<bool> checking;
}
inline bool checking_order() { return detail::checking.load(std::memory_order_relaxed); }
// Times a missing synchronisation was found.
int64_t order_problems();

// By number of the stream: its last launch that is known to be finished.
using Clock = std::vector<int64_t>;

struct Use {
  int stream;
  int64_t launch;
  const std::string* what;
  uintptr_t begin, end;  // bytes
  bool write;
};

// Who used a piece of memory; lives as long as that memory.
struct Uses {
  int home = -1;  // the stream that may have the memory again as soon as it is freed
  std::vector<Use> list;
  std::vector<int> recorded;  // streams named by record_stream
};

// One piece of work submitted to a stream; alive while its uses are noted, which may throw
// MissingSynchronisation.
class Launch {
 public:
  Launch(int card, StreamId stream, const std::string& what);
  void reads(Uses& uses, uintptr_t begin, uintptr_t end) { note(uses, begin, end, false); }
  void writes(Uses& uses, uintptr_t begin, uintptr_t end) { note(uses, begin, end, true); }
  // The host must not change these bytes before it has waited for this launch; `keep` holds them.
  void watch(const void* data, size_t bytes, std::shared_ptr<void> keep) const;

 private:
  void note(Uses& uses, uintptr_t begin, uintptr_t end, bool write);

  int stream_;
  int64_t launch_;
  const std::string* what_;
};

int stream_number(int card, StreamId stream);

// The clock an event takes with it.
Clock clock_of(int card, StreamId stream);
void stream_has_waited(int card, StreamId stream, const Clock& clock);
void host_has_waited(const Clock& clock);
void host_has_waited_for_stream(int card, StreamId stream);
void host_has_waited_for_card(int card);

// Whether the host has waited for all uses noted so far.
bool host_has_waited_for(const Uses& uses);

void record_stream_use(Uses& uses, int card, StreamId stream);
// Memory is being freed: another stream must not be using it still. What is found is raised by the
// next launch or wait, because freeing cannot fail.
void check_freed(const Uses& uses) noexcept;

}  // namespace gaudi::runtime
