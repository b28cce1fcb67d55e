// What has the device done so far that costs time on a card? Process-wide. No torch in this file.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gaudi::runtime {

struct Counters {
  std::atomic<int64_t> eager_launches{0};   // operators run one by one
  std::atomic<int64_t> graph_launches{0};   // replays of captured graphs
  std::atomic<int64_t> region_launches{0};  // compiled regions, see launch_region_enter
  std::atomic<int64_t> lazy_launches{0};    // graphs that the lazy mode gathered
  std::atomic<int64_t> captured_ops{0};     // operators recorded into graphs
  std::atomic<int64_t> fused_ops{0};        // operators inside compiled regions and gathered graphs
  std::atomic<int64_t> h2d_copies{0}, h2d_bytes{0};
  std::atomic<int64_t> d2h_copies{0}, d2h_bytes{0};
  std::atomic<int64_t> d2d_copies{0}, d2d_bytes{0};
  std::atomic<int64_t> host_syncs{0};
};

Counters& counters();

// The host waits for a value or for the device; `what` names the operator or call.
void note_host_sync(const char* what);

inline void bump(std::atomic<int64_t>& counter, int64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

struct Compilation {
  std::string kind;    // "graph_capture", "hpu_backend", ...
  std::string detail;  // shape signature or other text for a person
  int64_t microseconds = 0;
};

struct CompilationTotal {
  int64_t count = 0;
  int64_t microseconds = 0;
};

void note_compilation(std::string kind, std::string detail, int64_t microseconds);
std::map<std::string, CompilationTotal> compilation_totals();
// The most recent compilations, oldest first; at most `limit`, and never more than are kept (4096).
std::vector<Compilation> recent_compilations(size_t limit);

// A compiled region is one launch, whatever operators it consists of. Nests; per thread.
void launch_region_enter();
void launch_region_exit();
bool in_launch_region();

// Compile-only mode: graphs are compiled, and nothing is launched.
void set_compile_only(bool on);
bool compile_only();

}  // namespace gaudi::runtime
