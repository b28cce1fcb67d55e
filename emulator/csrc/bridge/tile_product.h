// The same products as narrow_product.cpp on processors with matrix tiles (AMX).
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace gaudi::bridge {

// y = x times the transposed weight, plus bias: summed in float32, rounded once.
struct Product {
  const c10::BFloat16* x;       // [m, k], rows x_stride apart
  const c10::BFloat16* weight;  // [n, k], rows weight_stride apart: columns of the second matrix
  const c10::BFloat16* bias;    // [n] or null
  c10::BFloat16* y;             // [m, n], dense
  int64_t m, n, k, x_stride, weight_stride;
};

// False, and nothing done, where the processor has no tiles or the shape does not suit them.
bool multiply_in_tiles(const Product& p);

}  // namespace gaudi::bridge
