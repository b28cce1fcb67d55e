// Which operators change their data type under torch.autocast("hpu")? PyTorch's standard lists.
#include <torch_headers.h>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

namespace at::autocast {
namespace {

#define GAUDI_LOWER(...) KERNEL(c10::DeviceType::HPU, __VA_ARGS__, lower_precision_fp)
#define GAUDI_FP32(...) KERNEL(c10::DeviceType::HPU, __VA_ARGS__, fp32)
#define GAUDI_SET_DTYPE(...) KERNEL(c10::DeviceType::HPU, __VA_ARGS__, fp32_set_opt_dtype)
#define GAUDI_PROMOTE(...) KERNEL(c10::DeviceType::HPU, __VA_ARGS__, promote)

TORCH_LIBRARY_IMPL(_, AutocastHPU, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastHPU, m) {
  AT_FORALL_LOWER_PRECISION_FP(GAUDI_LOWER)
  AT_FORALL_FP32(GAUDI_FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(GAUDI_SET_DTYPE)
  AT_FORALL_PROMOTE(GAUDI_PROMOTE)
}

}  // namespace
}  // namespace at::autocast
