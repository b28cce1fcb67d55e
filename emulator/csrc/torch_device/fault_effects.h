// What does an armed fault do to an operator: PyTorch's exceptions, and results that are NaN?
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <ATen/ops/fill.h>

#include <limits>

#include "../runtime/faults.h"
#include "../runtime/memory.h"

namespace gaudi {

// runtime::fault_point, which raises torch.OutOfMemoryError where that is the fault.
inline runtime::Fault fault_at(runtime::Site site, int card) {
  try {
    return runtime::fault_point(site, card);
  } catch (const runtime::OutOfMemory& e) {
    TORCH_CHECK_WITH(OutOfMemoryError, false, e.what());
  }
}

// Fill a host alias of floating numbers with NaN; returns whether there was something to fill.
inline bool spoil(const at::Tensor& host) {
  if (!host.defined() || host.numel() == 0 || !host.is_floating_point()) return false;
  at::Tensor target = host.detach();
  target.fill_(std::numeric_limits<double>::quiet_NaN());
  return true;
}

// The last `count` values of a stack: tensors and lists of them.
inline void spoil_stack(torch::jit::Stack& stack, size_t count) {
  for (size_t i = stack.size() - count; i < stack.size(); ++i) {
    if (stack[i].isTensor()) {
      spoil(stack[i].toTensor());
    } else if (stack[i].isTensorList()) {
      for (const at::Tensor& t : stack[i].toTensorList()) spoil(t);
    }
  }
}

}  // namespace gaudi
