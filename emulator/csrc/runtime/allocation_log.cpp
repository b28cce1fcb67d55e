#include "allocation_log.h"

#include <map>
#include <mutex>

namespace gaudi::runtime {
namespace {

std::mutex g_mutex;
std::atomic<int> g_logs{0};
int64_t g_serial = 0;
std::map<int64_t, LoggedAllocation> g_alive;
std::string (*g_where)() = [] { return std::string("unknown"); };

}  // namespace

void log_begin() { ++g_logs; }

void log_end() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (--g_logs == 0) g_alive.clear();
}

void set_caller(std::string (*where)()) { g_where = where; }

int64_t log_allocation(int card, int64_t bytes) {
  if (g_logs.load(std::memory_order_relaxed) == 0) return 0;
  auto where = g_where();
  const std::lock_guard<std::mutex> lock(g_mutex);
  const int64_t serial = ++g_serial;
  g_alive.emplace(serial, LoggedAllocation{serial, card, bytes, std::move(where)});
  return serial;
}

void log_free(int64_t serial) noexcept {
  if (serial == 0) return;
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_alive.erase(serial);
}

int64_t last_serial() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_serial;
}

std::vector<LoggedAllocation> logged_allocations(int64_t after_serial) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  std::vector<LoggedAllocation> found;
  for (auto it = g_alive.upper_bound(after_serial); it != g_alive.end(); ++it) {
    found.push_back(it->second);
  }
  return found;
}

}  // namespace gaudi::runtime
