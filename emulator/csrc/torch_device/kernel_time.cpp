#include <torch_headers.h>

#include "kernel_time.h"

#include <mutex>
#include <unordered_map>

namespace gaudi {
namespace {

std::mutex g_mutex;
std::unordered_map<const c10::FunctionSchema*, KernelTime> g_times;

}  // namespace

std::atomic<bool> g_times_kernels{false};

void time_kernels(bool on) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (on) g_times.clear();
  g_times_kernels.store(on, std::memory_order_relaxed);
}

void add_kernel_time(const c10::OperatorHandle& op, int64_t nanoseconds) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  auto& time = g_times[&op.schema()];
  time.calls += 1;
  time.nanoseconds += nanoseconds;
}

std::map<std::string, KernelTime> kernel_times() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  std::map<std::string, KernelTime> named;
  for (const auto& [schema, time] : g_times) {
    auto& sum = named[toString(schema->operator_name())];
    sum.calls += time.calls;
    sum.nanoseconds += time.nanoseconds;
  }
  return named;
}

}  // namespace gaudi
