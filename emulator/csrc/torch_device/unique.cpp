// `_unique` and `_unique2`: what was not asked for is None on the card, where PyTorch's host kernel
// returns an empty tensor (eager/test_eager_ops.py of HabanaAI/gaudi-pytorch-bridge).
#include <torch_headers.h>

#include "fallback.h"

namespace gaudi {
namespace {

void unique(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const size_t begin = stack->size() - arguments.size();
  bool inverse = true;
  bool counts = true;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() == "return_inverse") inverse = (*stack)[begin + i].toBool();
    if (arguments[i].name() == "return_counts") counts = (*stack)[begin + i].toBool();
  }
  boxed_fallback(op, stack);
  const size_t values = stack->size() - op.schema().returns().size();
  if (!inverse) (*stack)[values + 1] = at::Tensor();
  if (!counts) (*stack)[values + 2] = at::Tensor();
}

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("_unique", torch::CppFunction::makeFromBoxedFunction<&unique>());
  m.impl("_unique2", torch::CppFunction::makeFromBoxedFunction<&unique>());
}

}  // namespace
}  // namespace gaudi
