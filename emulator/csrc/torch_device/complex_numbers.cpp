// A card has no complex numbers: the bridge leaves what `torch.complex` makes on the host, where it
// is computed (lazy/test_complex.py of its own suite).
#include <torch_headers.h>

#include <ATen/ops/complex.h>

namespace gaudi {
namespace {

at::Tensor complex_on_host(const at::Tensor& real, const at::Tensor& imag) {
  return at::complex(real.cpu(), imag.cpu());
}

TORCH_LIBRARY_IMPL(aten, HPU, m) { m.impl("complex", &complex_on_host); }

}  // namespace
}  // namespace gaudi
