// Products of a few rows with a weight matrix in bfloat16: what a decode step is made of.
//
// ATen's kernel rearranges the weight for every call, which pays only when many rows share it. Here the
// weight is read once, where it lies, fetched ahead while the previous columns are summed. Sums are
// float32, in another order than ATen's. Everything else goes to ATen.
#include <bridge/bf16_vectors.h>
#include <bridge/tile_product.h>
#include <torch_headers.h>

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace gaudi::bridge {
namespace {

#ifdef GAUDI_HAS_BF16_DOT

constexpr int64_t kMostRows = 64;  // beyond, the rearranged weight is as fast
constexpr int kColumns = 4;        // columns of the result summed side by side
constexpr int kRows = 6;           // 6 x 4 sums and their operands fill the 32 vector registers
constexpr int64_t kStep = 32;      // elements per vector
constexpr int64_t kPanelsAhead = 4;  // how far ahead the weight is fetched: 4 times 4 columns

// R rows from `row` on by `count` columns (at most kColumns) from `column` on. The tiles of a panel
// share the fetching ahead: tile number `group` of `groups` takes every groups-th column.
template <int R>
GAUDI_BF16_DOT void tile(const Product& p, int64_t row, int64_t column, int64_t count,
                         int64_t group, int64_t groups) {
  const c10::BFloat16* w[kColumns];
  bool fetch[kColumns];
  const int64_t ahead = kPanelsAhead * kColumns * p.weight_stride;
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
    w[c] = p.weight + (column + std::min<int64_t>(c, count - 1)) * p.weight_stride;
    fetch[c] = c % groups == group && column + c + kPanelsAhead * kColumns < p.n;
  }
  const c10::BFloat16* x = p.x + row * p.x_stride;
  __m512 sum[R][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_setzero_ps();
  }
  int64_t i = 0;
  for (; i + kStep <= p.k; i += kStep) {
    __m512bh wide[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      wide[c] = load(w[c] + i);
      if (fetch[c]) _mm_prefetch(reinterpret_cast<const char*>(w[c] + i + ahead), _MM_HINT_T1);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh v = load(x + r * p.x_stride + i);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], v, wide[c]);
    }
  }
  if (i < p.k) {
    const __mmask32 mask = (__mmask32{1} << (p.k - i)) - 1;
    __m512bh wide[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) wide[c] = load_tail(w[c] + i, mask);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh v = load_tail(x + r * p.x_stride + i, mask);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], v, wide[c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    alignas(16) float result[kColumns];
    _mm_store_ps(result, sums(sum[r]));
    c10::BFloat16* y = p.y + (row + r) * p.n + column;
    for (int64_t c = 0; c < count; ++c) {
      const float bias = p.bias == nullptr ? 0.0f : static_cast<float>(p.bias[column + c]);
      y[c] = static_cast<c10::BFloat16>(result[c] + bias);
    }
  }
}

void columns(const Product& p, int64_t begin, int64_t end) {
  using Tile = void (*)(const Product&, int64_t, int64_t, int64_t, int64_t, int64_t);
  static constexpr std::array<Tile, kRows + 1> kTiles{nullptr,  &tile<1>, &tile<2>, &tile<3>,
                                                      &tile<4>, &tile<5>, &tile<6>};
  const int64_t groups = (p.m + kRows - 1) / kRows;
  for (int64_t column = begin; column < end; column += kColumns) {
    const int64_t count = std::min<int64_t>(kColumns, end - column);
    int64_t row = 0;
    for (int64_t group = 0; group < groups; ++group) {
      // Groups of nearly equal size: 16 rows are 6 + 5 + 5.
      const int64_t rows = (p.m - row + groups - group - 1) / (groups - group);
      kTiles[static_cast<size_t>(rows)](p, row, column, count, group, groups);
      row += rows;
    }
  }
}

bool fits(const at::Tensor& x, const at::Tensor& matrix) {
  return has_bf16_dot() && x.dim() == 2 && matrix.dim() == 2 && x.scalar_type() == at::kBFloat16 &&
         matrix.scalar_type() == at::kBFloat16 && x.size(1) == matrix.size(0) && x.size(0) > 0 &&
         x.size(0) <= kMostRows && x.size(1) >= kStep && matrix.size(1) >= kColumns &&
         x.stride(1) == 1 && matrix.stride(0) == 1 && x.stride(0) >= 0 && matrix.stride(1) >= 0;
}

void multiply(const at::Tensor& x, const at::Tensor& matrix, const c10::BFloat16* bias,
              const at::Tensor& y) {
  const Product p{x.const_data_ptr<c10::BFloat16>(),
                  matrix.const_data_ptr<c10::BFloat16>(),
                  bias,
                  y.mutable_data_ptr<c10::BFloat16>(),
                  x.size(0),
                  matrix.size(1),
                  x.size(1),
                  x.stride(0),
                  matrix.stride(1)};
  if (multiply_in_tiles(p)) return;
  const int64_t panels = (p.n + kColumns - 1) / kColumns;
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / (p.k * kColumns));
  at::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) {
    columns(p, begin * kColumns, std::min(end * kColumns, p.n));
  });
}

#else

bool fits(const at::Tensor&, const at::Tensor&) { return false; }
void multiply(const at::Tensor&, const at::Tensor&, const c10::BFloat16*, const at::Tensor&) {}

#endif

bool dense_result(const at::Tensor& out, const at::Tensor& x, const at::Tensor& matrix) {
  return out.scalar_type() == at::kBFloat16 && out.dim() == 2 && out.size(0) == x.size(0) &&
         out.size(1) == matrix.size(1) && out.is_contiguous();
}

bool plain_bias(const at::Tensor& bias, const at::Tensor& matrix, const at::Scalar& beta,
                const at::Scalar& alpha) {
  return bias.scalar_type() == at::kBFloat16 && bias.dim() == 1 && matrix.dim() == 2 &&
         bias.size(0) == matrix.size(1) && bias.stride(0) == 1 && beta.toDouble() == 1.0 &&
         alpha.toDouble() == 1.0;
}

at::Tensor mm(const at::Tensor& x, const at::Tensor& matrix) {
  if (!fits(x, matrix)) return at::mm(x, matrix);
  auto y = at::empty({x.size(0), matrix.size(1)}, x.options());
  multiply(x, matrix, nullptr, y);
  return y;
}

at::Tensor& mm_out(const at::Tensor& x, const at::Tensor& matrix, at::Tensor& out) {
  if (!fits(x, matrix) || !dense_result(out, x, matrix)) return at::mm_out(out, x, matrix);
  multiply(x, matrix, nullptr, out);
  return out;
}

at::Tensor addmm(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& matrix,
                 const at::Scalar& beta, const at::Scalar& alpha) {
  if (!fits(x, matrix) || !plain_bias(bias, matrix, beta, alpha)) {
    return at::addmm(bias, x, matrix, beta, alpha);
  }
  auto y = at::empty({x.size(0), matrix.size(1)}, x.options());
  multiply(x, matrix, bias.const_data_ptr<c10::BFloat16>(), y);
  return y;
}

at::Tensor& addmm_out(const at::Tensor& bias, const at::Tensor& x, const at::Tensor& matrix,
                      const at::Scalar& beta, const at::Scalar& alpha, at::Tensor& out) {
  if (!fits(x, matrix) || !plain_bias(bias, matrix, beta, alpha) ||
      !dense_result(out, x, matrix)) {
    return at::addmm_out(out, bias, x, matrix, beta, alpha);
  }
  multiply(x, matrix, bias.const_data_ptr<c10::BFloat16>(), out);
  return out;
}

// The schemas are ATen's: the device runs these in the place of aten::mm and aten::addmm.
TORCH_LIBRARY_FRAGMENT(gaudi_kernel, m) {
  m.def("mm(Tensor self, Tensor mat2) -> Tensor");
  m.def("mm.out(Tensor self, Tensor mat2, *, Tensor(a!) out) -> Tensor(a!)");
  m.def(
      "addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor");
  m.def(
      "addmm.out(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1, "
      "Tensor(a!) out) -> Tensor(a!)");
}
TORCH_LIBRARY_IMPL(gaudi_kernel, CPU, m) {
  m.impl("mm", &mm);
  m.impl("mm.out", &mm_out);
  m.impl("addmm", &addmm);
  m.impl("addmm.out", &addmm_out);
}

}  // namespace
}  // namespace gaudi::bridge
