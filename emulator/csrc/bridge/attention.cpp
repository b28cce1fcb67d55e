// The kernel of fused attention, one launch: ATen's flash kernel, or attention_row.cpp's for one query
// per sequence, then the sink of each row.
//
// PyTorch declares its kernel random because of dropout, which is never used here; under a name of
// its own it needs no generator and can be captured.
//
// Sequences that share a batch are told apart by a mask, most of which hides. ATen's kernel computes
// what is hidden too; here the queries go in blocks, each with the range of keys that it can see.
#include <torch_headers.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "attention_row.h"
#include "row_loops.h"

namespace gaudi::bridge {
namespace {

constexpr int64_t kBlock = 64;  // queries that share a range of keys
constexpr int64_t kChunk = 32;  // mask elements looked at together

// A key with this or less added to its score has the weight 0 beside any other, in float32 and bfloat16.
constexpr float kHidden = -1e29f;

template <typename T>
inline bool any_visible(const T* mask, int64_t n) {
  int visible = 0;
  for (int64_t i = 0; i < n; ++i) visible |= static_cast<int>(!(to_float(mask[i]) <= kHidden));
  return visible != 0;
}

// Shrinks [0, keys) to the chunks that hold a visible key of this row; false if none does.
template <typename T>
inline bool visible_range(const T* mask, int64_t keys, int64_t& begin, int64_t& end) {
  int64_t first = 0;
  while (first < keys && !any_visible(mask + first, std::min(kChunk, keys - first))) {
    first += kChunk;
  }
  if (first >= keys) return false;
  int64_t last = (keys - 1) / kChunk * kChunk;
  while (!any_visible(mask + last, std::min(kChunk, keys - last))) last -= kChunk;
  begin = first;
  end = std::min(keys, last + kChunk);
  return true;
}

GAUDI_CLONES bool row_range(const float* mask, int64_t keys, int64_t& begin, int64_t& end) {
  return visible_range(mask, keys, begin, end);
}
GAUDI_CLONES bool row_range(const c10::BFloat16* mask, int64_t keys, int64_t& begin, int64_t& end) {
  return visible_range(mask, keys, begin, end);
}

// Keys [begin, end) that the queries of `mask` [queries, keys] see; all of them if a query sees none,
// whose result is then a mean over all keys.
std::pair<int64_t, int64_t> block_range(const at::Tensor& mask) {
  const int64_t keys = mask.size(1);
  int64_t begin = keys;
  int64_t end = 0;
  for (int64_t query = 0; query < mask.size(0); ++query) {
    int64_t first = 0;
    int64_t last = 0;
    const bool found =
        mask.scalar_type() == at::kFloat
            ? row_range(mask.const_data_ptr<float>() + query * mask.stride(0), keys, first, last)
            : row_range(mask.const_data_ptr<c10::BFloat16>() + query * mask.stride(0), keys, first,
                        last);
    if (!found) return {0, keys};
    begin = std::min(begin, first);
    end = std::max(end, last);
  }
  return {begin, end};
}

// One mask for all heads and batches, in a dtype whose hidden value is out of any score's reach.
bool worth_blocks(const at::Tensor& q, const at::Tensor& k, const std::optional<at::Tensor>& mask,
                  bool causal) {
  return !causal && mask.has_value() && mask->dim() == 4 && mask->size(0) == 1 &&
         mask->size(1) == 1 && mask->size(2) == q.size(2) && mask->size(3) == k.size(2) &&
         mask->stride(3) == 1 && q.size(2) > kBlock && q.size(0) == 1 &&
         (mask->scalar_type() == at::kFloat || mask->scalar_type() == at::kBFloat16);
}

// Output [batch, heads, queries, dim] and logsumexp [batch, heads, queries].
std::pair<at::Tensor, at::Tensor> attend(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const std::optional<at::Tensor>& mask,
                                         bool causal, double scale) {
  auto [out, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(
      q, k, v, /*dropout_p=*/0.0, causal, mask, scale);
  return {std::move(out), std::move(log_sum)};
}

std::pair<at::Tensor, at::Tensor> attend_in_blocks(const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v, const at::Tensor& mask,
                                                   double scale) {
  std::vector<at::Tensor> outs;
  std::vector<at::Tensor> sums;
  for (int64_t first = 0; first < q.size(2); first += kBlock) {
    const int64_t rows = std::min(kBlock, q.size(2) - first);
    const auto part = mask.narrow(2, first, rows);
    const auto [begin, end] = block_range(part[0][0]);
    auto [out, log_sum] =
        attend(q.narrow(2, first, rows), k.narrow(2, begin, end - begin),
               v.narrow(2, begin, end - begin), part.narrow(3, begin, end - begin), false, scale);
    // ATen lays its result out as [batch, queries, heads, dim]; keep that, so that the parts join
    // by copying rows.
    outs.push_back(out.transpose(1, 2));
    sums.push_back(std::move(log_sum));
  }
  return {at::cat(outs, 1).transpose(1, 2), at::cat(sums, 2)};
}

// softmax with one more logit s per head scales each row by sigmoid(logsumexp - s).
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::optional<at::Tensor>& mask, bool causal, double scale,
                           const std::optional<at::Tensor>& sink) {
  auto [out, log_sum] = is_rows(q, k, v, mask, causal) ? attend_rows(q, k, v, mask, scale)
                        : worth_blocks(q, k, mask, causal)
                            ? attend_in_blocks(q, k, v, *mask, scale)
                            : attend(q, k, v, mask, causal, scale);
  if (!sink.has_value()) return out;
  const auto share = at::sigmoid(log_sum.unsqueeze(-1) - *sink);
  return out.to(at::kFloat).mul_(share).to(out.scalar_type());
}

TORCH_LIBRARY_FRAGMENT(gaudi_kernel, m) {
  m.def(
      "flash_attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale, "
      "Tensor? sink) -> Tensor");
}
TORCH_LIBRARY_IMPL(gaudi_kernel, CPU, m) { m.impl("flash_attention", &flash_attention); }

}  // namespace
}  // namespace gaudi::bridge
