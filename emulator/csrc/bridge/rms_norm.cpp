// The kernel of hpu::rms_norm, one launch: y = x / sqrt(mean(x^2) + eps) * gamma.
#include <torch_headers.h>

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "row_loops.h"

namespace gaudi::bridge {
namespace {

template <typename T>
inline float inverse_rms(const T* x, int64_t n, float eps) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float v = to_float(x[i + lane]);
      lanes[lane] += v * v;
    }
  }
  for (; i < n; ++i) {
    const float v = to_float(x[i]);
    lanes[0] += v * v;
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

template <typename T>
inline float normalise_row(const T* x, const float* gamma, T* y, int64_t n, float eps) {
  const float inverse = inverse_rms(x, n, eps);
  for (int64_t i = 0; i < n; ++i) from_float(to_float(x[i]) * inverse * gamma[i], y[i]);
  return inverse;
}

// target_clones does not work on templates: one plain function per dtype.
GAUDI_CLONES float row(const float* x, const float* g, float* y, int64_t n, float eps) {
  return normalise_row(x, g, y, n, eps);
}
GAUDI_CLONES float row(const c10::BFloat16* x, const float* g, c10::BFloat16* y, int64_t n,
                       float eps) {
  return normalise_row(x, g, y, n, eps);
}
GAUDI_CLONES float row(const c10::Half* x, const float* g, c10::Half* y, int64_t n, float eps) {
  return normalise_row(x, g, y, n, eps);
}

std::tuple<at::Tensor, at::Tensor> rms_norm(const at::Tensor& data_in, const at::Tensor& gamma,
                                            double epsilon) {
  TORCH_CHECK_VALUE(data_in.dim() > 0 && gamma.numel() == data_in.size(-1), "rms_norm: gamma has ",
                    gamma.numel(), " values for a last dimension of ", data_in.sizes());
  const auto x = data_in.contiguous();
  const auto weight = gamma.to(at::kFloat).contiguous();
  auto y = at::empty(x.sizes(), x.options());
  auto shape = x.sizes().vec();
  shape.back() = 1;
  auto inverse = at::empty(shape, x.options().dtype(at::kFloat));
  const int64_t n = x.size(-1);
  const int64_t rows = inverse.numel();
  GAUDI_DISPATCH(x.scalar_type(), "rms_norm", [&] {
    const auto* in = x.const_data_ptr<scalar_t>();
    auto* out = y.mutable_data_ptr<scalar_t>();
    const auto* g = weight.const_data_ptr<float>();
    auto* inv = inverse.mutable_data_ptr<float>();
    at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(n, 1)),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t r = begin; r < end; ++r) {
                         inv[r] = row(in + r * n, g, out + r * n, n,
                                      static_cast<float>(epsilon));
                       }
                     });
  });
  return {y, inverse};
}

TORCH_LIBRARY_FRAGMENT(gaudi_kernel, m) {
  m.def("rms_norm(Tensor data_in, Tensor gamma, float epsilon) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(gaudi_kernel, CPU, m) { m.impl("rms_norm", &rms_norm); }

}  // namespace
}  // namespace gaudi::bridge
