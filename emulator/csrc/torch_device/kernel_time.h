// How long do the operators' kernels take, by operator? Off unless somebody asks: two clock reads a
// call otherwise.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <chrono>
#include <map>
#include <string>

namespace gaudi {

struct KernelTime {
  int64_t calls = 0;
  int64_t nanoseconds = 0;
};

// Start anew, or stop. Process-wide.
void time_kernels(bool on);
std::map<std::string, KernelTime> kernel_times();

extern std::atomic<bool> g_times_kernels;
void add_kernel_time(const c10::OperatorHandle& op, int64_t nanoseconds);

// Times one call of a kernel, from construction to destruction.
class KernelTimer {
 public:
  explicit KernelTimer(const c10::OperatorHandle& op)
      : op_(g_times_kernels.load(std::memory_order_relaxed) ? &op : nullptr) {
    if (op_ != nullptr) start_ = std::chrono::steady_clock::now();
  }
  ~KernelTimer() {
    if (op_ == nullptr) return;
    const auto spent = std::chrono::steady_clock::now() - start_;
    add_kernel_time(*op_, std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count());
  }
  KernelTimer(const KernelTimer&) = delete;
  KernelTimer& operator=(const KernelTimer&) = delete;

 private:
  const c10::OperatorHandle* op_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace gaudi
