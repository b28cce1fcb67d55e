// What does an index outside of its tensor do? PyTorch's kernels for the host raise. The card's
// vector engines neither check nor raise: a read gives 0, a write is dropped (docs.habana.ai, "TPC
// Programming Model": coordinates outside of a tensor give a padding value, writes are culled).
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <functional>

namespace gaudi {

namespace detail {
extern std::atomic<bool> card_indices;
}  // namespace detail

inline bool card_indices() { return detail::card_indices.load(std::memory_order_relaxed); }
inline void set_card_indices(bool on) { detail::card_indices.store(on); }

// With indices as on the card: if the operator takes indices and one of them lies outside, call
// `kernel` on arguments of which that is not true, and give its results the card's values. False if
// there is nothing to do; the stack is then as it was.
bool run_with_card_indices(const c10::OperatorHandle& op, torch::jit::Stack* stack,
                           const std::function<void()>& kernel);

}  // namespace gaudi
