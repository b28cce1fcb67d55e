// How wide are the card's integers? Without PT_ENABLE_INT64_SUPPORT a tensor of int64 holds 32 bits.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <atomic>

namespace gaudi {

namespace detail {
extern std::atomic<bool> native_int64;
void keep_32_bits(const at::Tensor& host);
}  // namespace detail

inline bool native_int64() { return detail::native_int64.load(std::memory_order_relaxed); }
inline void set_native_int64(bool on) { detail::native_int64.store(on); }

// After a write to device memory, given its host alias: the value that the card would hold.
inline void keep_card_integers(const at::Tensor& host) {
  if (!native_int64()) [[unlikely]] detail::keep_32_bits(host);
}

// The int64 tensors that an operator writes in place; before it runs.
std::vector<at::Tensor> written_int64(const c10::FunctionSchema& schema,
                                      const torch::jit::Stack& stack);
// Its fresh results; after it has run.
void keep_32_bits_of_results(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);

}  // namespace gaudi
