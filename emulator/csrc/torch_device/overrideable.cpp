// Operators that PyTorch leaves to each accelerator: convolution; and norms, which it would compute
// in parts that round in between, where a card has one kernel.
#include <torch_headers.h>

#include <ATen/ops/convolution_backward.h>

#include "device_storage.h"
#include "fallback.h"
#include "graph.h"
#include "launch.h"

namespace gaudi {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
    c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
    c10::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> output_mask) {
  refuse_in_capture("aten::convolution_backward_overrideable",
                    "training convolutions are not recorded");
  come_after_current_stream(grad.device().index());
  const int64_t bias_size = grad.size(1);
  at::Tensor g, w, b;
  {
    const c10::InferenceMode inference;
    std::tie(g, w, b) = at::convolution_backward(
        host_alias(grad), host_alias(input), host_alias(weight), c10::IntArrayRef(bias_size),
        stride, padding, dilation, transposed, output_padding, groups, output_mask);
  }
  const int card = grad.device().index();
  auto on_card = [&](const at::Tensor& t) { return t.defined() ? adopt(t, card) : t; };
  return {on_card(g), on_card(w), on_card(b)};
}

TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("convolution_overrideable",
         torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>());
  m.impl("convolution_backward_overrideable", &convolution_backward);
  for (const auto* name : {"native_layer_norm", "native_group_norm"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>());
  }
}

}  // namespace
}  // namespace gaudi
