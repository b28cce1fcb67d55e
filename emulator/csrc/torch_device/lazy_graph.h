// Which operators has the lazy mode gathered for the next launch?
//
// In the lazy mode a card runs nothing before it must. It gathers operators; at a cut it compiles what
// it has gathered, unless it knows it, and launches it. Here the operators have run already: what is
// gathered is the account of them. A card has one such graph for all threads of the process.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <functional>
#include <string>

#include "../runtime/counters.h"

namespace gaudi {

namespace detail {
inline std::atomic<bool> g_lazy{false};
void cut_all();
bool written(const at::Tensor& host);
}  // namespace detail

// Makes sure that a gathered graph has a recipe; may throw.
using ObtainRecipe = std::function<void(const std::string& text, int64_t operators)>;

// Gather from now on, and launch when `max_operators` have been gathered.
void gather_operators(ObtainRecipe obtain, int64_t max_operators);
// Launch what is gathered, and gather no more.
void gather_nothing();

inline bool lazy_mode() { return detail::g_lazy.load(std::memory_order_relaxed); }

// Whether an operator that this thread runs now, outside of a capture, is gathered.
inline bool operators_are_gathered() {
  return lazy_mode() && !runtime::in_launch_region() && !runtime::compile_only();
}

// An operator has run: arguments and results as in DeviceObserver::operator_ran.
void gather(const c10::OperatorHandle& op, int card, c10::ArrayRef<c10::IValue> arguments,
            c10::ArrayRef<c10::IValue> results);

// Launch what is gathered, each card's in one launch. Throws what the compilation throws.
inline void cut_lazy_graphs() {
  if (lazy_mode()) detail::cut_all();
}

// The host is about to write `host`: a cut if a gathered operator comes first.
inline void cut_if_written(const at::Tensor& host) {
  if (lazy_mode() && detail::written(host)) detail::cut_all();
}

}  // namespace gaudi
