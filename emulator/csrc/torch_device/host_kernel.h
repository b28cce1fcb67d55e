#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace gaudi {

// Run an operator's kernel on host aliases. A kernel of the host that does not exist for a narrow
// floating type (fp8, bfloat16, float16) runs in float32 and its results are rounded once, which is
// how the card's vector engine computes. So do a few operators on integers that the card has. Where
// the card holds 32 bits of an int64, results are cut to them.
void call_host_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace gaudi
