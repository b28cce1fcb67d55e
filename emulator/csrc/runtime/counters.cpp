#include "counters.h"

#include <deque>
#include <mutex>
#include <stdexcept>

#include "observer.h"

namespace gaudi::runtime {
namespace {

constexpr size_t kKeptCompilations = 4096;

std::mutex g_mutex;
std::deque<Compilation> g_recent;
std::map<std::string, CompilationTotal> g_totals;
thread_local int t_region_depth = 0;
std::atomic<bool> g_compile_only{false};

}  // namespace

Counters& counters() {
  static Counters instance;
  return instance;
}

void note_host_sync(const char* what) {
  bump(counters().host_syncs);
  if (auto* watching = observer()) watching->host_waited(what);
}

void note_compilation(std::string kind, std::string detail, int64_t microseconds) {
  if (auto* watching = observer()) watching->compiled(kind, detail, microseconds);
  const std::lock_guard<std::mutex> lock(g_mutex);
  auto& total = g_totals[kind];
  total.count += 1;
  total.microseconds += microseconds;
  g_recent.push_back({std::move(kind), std::move(detail), microseconds});
  if (g_recent.size() > kKeptCompilations) g_recent.pop_front();
}

std::map<std::string, CompilationTotal> compilation_totals() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_totals;
}

std::vector<Compilation> recent_compilations(size_t limit) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  const size_t n = std::min(limit, g_recent.size());
  return {g_recent.end() - static_cast<std::ptrdiff_t>(n), g_recent.end()};
}

void launch_region_enter() {
  if (t_region_depth++ == 0 && !compile_only()) bump(counters().region_launches);
}

void launch_region_exit() {
  if (t_region_depth == 0) throw std::logic_error("launch region left without having been entered");
  if (--t_region_depth > 0 || compile_only()) return;
  if (auto* watching = observer()) watching->region_ended();
}

bool in_launch_region() { return t_region_depth > 0; }

void set_compile_only(bool on) { g_compile_only.store(on); }

bool compile_only() { return g_compile_only.load(std::memory_order_relaxed); }

}  // namespace gaudi::runtime
