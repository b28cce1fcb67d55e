// Attention of one query per sequence: what a decode step asks for.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

namespace gaudi::bridge {

// Whether attend_rows can take this: bfloat16, one query, a mask (if any) to be added to the scores.
bool is_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             const std::optional<at::Tensor>& mask, bool causal);

// Output [batch, heads, 1, dim] in bfloat16, in memory as [batch, 1, heads, dim], and logsumexp
// [batch, heads, 1] in float32. q [batch, heads, 1, dim]; k, v [batch, groups, keys, dim], each group
// for equally many heads; the mask is broadcast to [batch, heads, 1, keys]. A row that sees nothing is
// zero. Sums are float32, and so are the weights of the keys.
std::pair<at::Tensor, at::Tensor> attend_rows(const at::Tensor& q, const at::Tensor& k,
                                              const at::Tensor& v,
                                              const std::optional<at::Tensor>& mask, double scale);

}  // namespace gaudi::bridge
