// How does an operator run on the card? Every operator without a kernel of its own comes here.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace gaudi {

// Run `op` on its hpu arguments: on host aliases over the same bytes, results adopted without a copy.
void run_on_card(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// The host waits for a value: counted, and refused while capturing or in compile-only mode.
void host_read(const char* what);

// While set, every host read raises with this reason (empty: allowed). Process-wide.
void forbid_host_reads(const std::string& reason);

// The fallback itself, for operators that must be given it by name.
void boxed_fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Give PyTorch's structured operators this fallback instead of their decomposition into out=
// variants, which would run the shape computation twice.
int64_t register_structured_operators();

}  // namespace gaudi
