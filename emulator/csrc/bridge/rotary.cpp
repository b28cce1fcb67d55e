// The kernel of hpu::rotary_pos_embedding, one launch: rotate pairs of the last dimension.
#include <torch_headers.h>

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "row_loops.h"

namespace gaudi::bridge {
namespace {

// As the card does: each product is rounded to the type of the input, then their sum. Its witness is in
// emulator/docs/rounding.md.
template <typename T>
[[gnu::always_inline]] inline float rounded(float value) {
  T narrow;
  from_float(value, narrow);
  return to_float(narrow);
}

// Elements i and i + half rotate together (blockwise), or 2i and 2i + 1 (pairwise).
template <typename T>
inline void rotate_row(const T* __restrict x, const T* __restrict sin, const T* __restrict cos,
                       T* __restrict y, int64_t half, bool pairwise) {
  const auto product = [](float a, T b) { return rounded<T>(a * to_float(b)); };
  if (pairwise) {
    for (int64_t i = 0; i < half; ++i) {
      const int64_t a = 2 * i;
      const int64_t b = a + 1;
      const float xa = to_float(x[a]);
      const float xb = to_float(x[b]);
      from_float(product(xa, cos[a]) - product(xb, sin[a]), y[a]);
      from_float(product(xb, cos[b]) + product(xa, sin[b]), y[b]);
    }
    return;
  }
  for (int64_t i = 0; i < half; ++i) {
    const float xa = to_float(x[i]);
    const float xb = to_float(x[i + half]);
    from_float(product(xa, cos[i]) - product(xb, sin[i]), y[i]);
    from_float(product(xb, cos[i + half]) + product(xa, sin[i + half]), y[i + half]);
  }
}

#define GAUDI_ROTATE(T)                                                                       \
  GAUDI_CLONES void rotate(const T* x, const T* sin, const T* cos, T* y, int64_t half,        \
                           bool pairwise) {                                                   \
    rotate_row(x, sin, cos, y, half, pairwise);                                               \
  }
GAUDI_ROTATE(float)
GAUDI_ROTATE(c10::BFloat16)
GAUDI_ROTATE(c10::Half)
#undef GAUDI_ROTATE

// Walks the rows of a tensor in order; dividing an index by the sizes for every row costs more than
// rotating the row.
class RowWalk {
 public:
  RowWalk(int64_t first, c10::IntArrayRef sizes, c10::IntArrayRef strides)
      : sizes_(sizes.slice(0, sizes.size() - 1)), strides_(strides), place_(sizes_.size()) {
    for (size_t d = sizes_.size(); d-- > 0;) {
      place_[d] = first % sizes_[d];
      offset_ += place_[d] * strides_[d];
      first /= sizes_[d];
    }
  }

  int64_t offset() const { return offset_; }

  void step() {
    for (size_t d = sizes_.size(); d-- > 0;) {
      offset_ += strides_[d];
      if (++place_[d] < sizes_[d]) return;
      offset_ -= strides_[d] * sizes_[d];
      place_[d] = 0;
    }
  }

 private:
  c10::IntArrayRef sizes_;  // of the leading dimensions
  c10::IntArrayRef strides_;
  c10::SmallVector<int64_t, 5> place_;
  int64_t offset_ = 0;
};

at::Tensor with_dense_rows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) == 1 ? tensor : tensor.contiguous();
}

at::Tensor rotary(const at::Tensor& input, const at::Tensor& sin, const at::Tensor& cos,
                  bool pairwise) {
  const auto x = with_dense_rows(input);
  const auto s = with_dense_rows(sin.to(x.scalar_type())).expand_as(x);
  const auto c = with_dense_rows(cos.to(x.scalar_type())).expand_as(x);
  TORCH_CHECK_VALUE(s.size(-1) == 1 || (s.stride(-1) == 1 && c.stride(-1) == 1),
                    "rotary_pos_embedding: sin and cos need the last dimension of the input, ",
                    x.size(-1));
  auto y = at::empty(x.sizes(), x.options());
  const int64_t dim = x.size(-1);
  const int64_t rows = dim == 0 ? 0 : x.numel() / dim;
  GAUDI_DISPATCH(x.scalar_type(), "rotary_pos_embedding", [&] {
    const auto* xp = x.const_data_ptr<scalar_t>();
    const auto* sp = s.const_data_ptr<scalar_t>();
    const auto* cp = c.const_data_ptr<scalar_t>();
    auto* yp = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(dim, 1)),
                     [&](int64_t begin, int64_t end) {
                       RowWalk xs(begin, x.sizes(), x.strides());
                       RowWalk ss(begin, s.sizes(), s.strides());
                       RowWalk cs(begin, c.sizes(), c.strides());
                       for (int64_t r = begin; r < end; ++r) {
                         rotate(xp + xs.offset(), sp + ss.offset(), cp + cs.offset(), yp + r * dim,
                                dim / 2, pairwise);
                         xs.step();
                         ss.step();
                         cs.step();
                       }
                     });
  });
  return y;
}

TORCH_LIBRARY_FRAGMENT(gaudi_kernel, m) {
  m.def("rotary(Tensor input, Tensor sin, Tensor cos, bool pairwise) -> Tensor");
}
TORCH_LIBRARY_IMPL(gaudi_kernel, CPU, m) { m.impl("rotary", &rotary); }

}  // namespace
}  // namespace gaudi::bridge
