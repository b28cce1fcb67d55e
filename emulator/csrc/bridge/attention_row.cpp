// ATen's flash kernel arranges keys and values for its products, which pays only when many queries
// share them. With one query they are read once, where they lie, for all heads of a group.
#include <torch_headers.h>

#include "attention_row.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "bf16_vectors.h"

namespace gaudi::bridge {

#ifdef GAUDI_HAS_BF16_DOT

namespace {

constexpr int64_t kHeads = 4;  // heads that read keys and values together
constexpr int64_t kKeys = 4;   // keys whose scores are summed side by side
constexpr int64_t kStep = 32;  // bfloat16 numbers per vector
constexpr int64_t kLane = 16;  // float32 numbers per vector

// At most kHeads heads of one sequence that share keys and values.
struct Heads {
  const c10::BFloat16 *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;  // from head to head, from key to key
  const float* added;                    // the mask, or null
  int64_t added_stride;
  int64_t keys, dim;
  float scale;
  c10::BFloat16* out;  // [heads, dim], dense
  float* log_sum;      // [heads]
};

int64_t padded(int64_t keys) { return (keys + kLane - 1) / kLane * kLane; }

// e to the power of x <= 0: a polynomial of degree 6 around the nearest multiple of ln 2 (Cephes,
// expf). Relative error below 2e-7; 0 below -104; NaN stays.
GAUDI_BF16_DOT inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

// Products of queries and keys into scores [H, padded keys].
template <int H>
GAUDI_BF16_DOT void score(const Heads& g, float* scores) {
  const int64_t row = padded(g.keys);
  for (int64_t key = 0; key < g.keys; key += kKeys) {
    const c10::BFloat16* k[kKeys];
    for (int64_t c = 0; c < kKeys; ++c) k[c] = g.k + std::min(key + c, g.keys - 1) * g.k_stride;
    __m512 sum[H][kKeys];
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
#pragma GCC unroll 8
      for (int c = 0; c < kKeys; ++c) sum[h][c] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < g.dim; i += kStep) {
      __m512bh wide[kKeys];
#pragma GCC unroll 8
      for (int c = 0; c < kKeys; ++c) wide[c] = load(k[c] + i);
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h) {
        const __m512bh q = load(g.q + h * g.q_stride + i);
#pragma GCC unroll 8
        for (int c = 0; c < kKeys; ++c) sum[h][c] = _mm512_dpbf16_ps(sum[h][c], q, wide[c]);
      }
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) _mm_storeu_ps(scores + h * row + key, sums(sum[h]));
  }
}

// Scores of one head become weights that are not divided yet; returns what to divide by.
GAUDI_BF16_DOT float soften(const Heads& g, int64_t head, float* scores, float& log_sum) {
  const __m512 nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  const __m512 scale = _mm512_set1_ps(g.scale);
  __m512 most = nothing;
  for (int64_t i = 0; i < g.keys; i += kLane) {
    const auto in = static_cast<__mmask16>(g.keys - i >= kLane ? 0xFFFF : (1 << (g.keys - i)) - 1);
    __m512 s = _mm512_mul_ps(_mm512_loadu_ps(scores + i), scale);
    if (g.added != nullptr) {
      s = _mm512_add_ps(s, _mm512_maskz_loadu_ps(in, g.added + head * g.added_stride + i));
    }
    s = _mm512_mask_blend_ps(in, nothing, s);
    most = _mm512_max_ps(most, s);
    _mm512_storeu_ps(scores + i, s);
  }
  const float highest = _mm512_reduce_max_ps(most);
  // Where everything is hidden (or NaN), there is nothing to subtract.
  const __m512 shift = _mm512_set1_ps(std::isinf(highest) ? 0.0f : highest);
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < g.keys; i += kLane) {
    const __m512 weight = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
    total = _mm512_add_ps(total, weight);
    _mm512_storeu_ps(scores + i, weight);
  }
  const float sum = _mm512_reduce_add_ps(total);
  log_sum = highest + std::log(sum);
  return sum;
}

// Weighted sums of values: out [H, dim].
template <int H>
GAUDI_BF16_DOT void mix(const Heads& g, const float* weights, const float* sums) {
  const int64_t row = padded(g.keys);
  for (int64_t i = 0; i < g.dim; i += kStep) {
    __m512 low[H];
    __m512 high[H];
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) low[h] = high[h] = _mm512_setzero_ps();
    for (int64_t key = 0; key < g.keys; ++key) {
      const __m512i v = _mm512_loadu_si512(g.v + key * g.v_stride + i);
      const __m512 first = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)), 16));
      const __m512 second = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)), 16));
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h) {
        const __m512 weight = _mm512_set1_ps(weights[h * row + key]);
        low[h] = _mm512_fmadd_ps(weight, first, low[h]);
        high[h] = _mm512_fmadd_ps(weight, second, high[h]);
      }
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      const __m512 inverse = _mm512_set1_ps(sums[h] == 0.0f ? 0.0f : 1.0f / sums[h]);
      const auto narrow =
          _mm512_cvtne2ps_pbh(_mm512_mul_ps(high[h], inverse), _mm512_mul_ps(low[h], inverse));
      _mm512_storeu_si512(g.out + h * g.dim + i, reinterpret_cast<__m512i>(narrow));
    }
  }
}

template <int H>
void attend(const Heads& g, float* scratch) {
  float sums[H];
  score<H>(g, scratch);
  for (int h = 0; h < H; ++h) {
    sums[h] = soften(g, h, scratch + h * padded(g.keys), g.log_sum[h]);
  }
  mix<H>(g, scratch, sums);
}

bool rows_of_bf16(const at::Tensor& t) {
  return t.dim() == 4 && t.scalar_type() == at::kBFloat16 && t.stride(3) == 1;
}

}  // namespace

bool is_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             const std::optional<at::Tensor>& mask, bool causal) {
  return has_bf16_dot() && !causal && rows_of_bf16(q) && rows_of_bf16(k) && rows_of_bf16(v) &&
         q.size(2) == 1 && q.size(3) % kStep == 0 && q.numel() > 0 && k.size(2) > 0 &&
         k.size(1) > 0 && q.size(1) % k.size(1) == 0 && k.sizes() == v.sizes() &&
         k.size(0) == q.size(0) && k.size(3) == q.size(3) &&
         (!mask.has_value() || (mask->dim() == 4 && at::isFloatingType(mask->scalar_type())));
}

std::pair<at::Tensor, at::Tensor> attend_rows(const at::Tensor& q, const at::Tensor& k,
                                              const at::Tensor& v,
                                              const std::optional<at::Tensor>& mask, double scale) {
  const int64_t batch = q.size(0), heads = q.size(1), dim = q.size(3);
  const int64_t groups = k.size(1), keys = k.size(2), per_group = heads / groups;
  const auto out = at::empty({batch, 1, heads, dim}, q.options());
  const auto log_sum = at::empty({batch, heads, 1}, q.options().dtype(at::kFloat));
  at::Tensor added;
  if (mask.has_value()) {
    added = mask->to(at::kFloat).expand({batch, mask->size(1), 1, keys});
    if (added.stride(3) != 1) added = added.contiguous();
  }
  const int64_t parts = (per_group + kHeads - 1) / kHeads;
  const int64_t grain = std::max<int64_t>(1, (1 << 17) / (keys * dim));
  using Attend = void (*)(const Heads&, float*);
  static constexpr std::array<Attend, kHeads + 1> kAttend{nullptr, &attend<1>, &attend<2>,
                                                          &attend<3>, &attend<4>};
  at::parallel_for(0, batch * groups * parts, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(kHeads * padded(keys)));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / parts / groups, group = task / parts % groups;
      const int64_t first = group * per_group + task % parts * kHeads;
      const int64_t count = std::min(kHeads, (group + 1) * per_group - first);
      const bool own_mask = mask.has_value() && mask->size(1) > 1;
      const Heads g{
          q.const_data_ptr<c10::BFloat16>() + b * q.stride(0) + first * q.stride(1),
          k.const_data_ptr<c10::BFloat16>() + b * k.stride(0) + group * k.stride(1),
          v.const_data_ptr<c10::BFloat16>() + b * v.stride(0) + group * v.stride(1),
          q.stride(1), k.stride(2), v.stride(2),
          added.defined() ? added.const_data_ptr<float>() + b * added.stride(0) +
                                (own_mask ? first * added.stride(1) : 0)
                          : nullptr,
          own_mask ? added.stride(1) : 0,
          keys, dim, static_cast<float>(scale),
          out.mutable_data_ptr<c10::BFloat16>() + (b * heads + first) * dim,
          log_sum.mutable_data_ptr<float>() + b * heads + first};
      kAttend[static_cast<size_t>(count)](g, scratch.data());
    }
  });
  return {out.transpose(1, 2), log_sum};
}

#else

bool is_rows(const at::Tensor&, const at::Tensor&, const at::Tensor&,
             const std::optional<at::Tensor>&, bool) {
  return false;
}
std::pair<at::Tensor, at::Tensor> attend_rows(const at::Tensor&, const at::Tensor&,
                                              const at::Tensor&, const std::optional<at::Tensor>&,
                                              double) {
  return {};
}

#endif

}  // namespace gaudi::bridge
