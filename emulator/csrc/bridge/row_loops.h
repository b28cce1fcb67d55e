// How do the bridge's kernels read and write rows of any floating dtype? All arithmetic is float32.
#pragma once

#include <ATen/Dispatch.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>

// At -O2 the compiler leaves loops of unknown length scalar.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

// Compile the loop for several instruction sets and choose when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GAUDI_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GAUDI_CLONES
#endif

// The dtypes in which the card computes; others raise, with the operator's name.
#define GAUDI_DISPATCH(dtype, name, ...)                                 \
  AT_DISPATCH_SWITCH(dtype, name, AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__) \
                                      AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__) \
                                          AT_DISPATCH_CASE(at::kHalf, __VA_ARGS__))

namespace gaudi::bridge {

constexpr int kLanes = 16;  // partial sums per row: independent, so that they vectorise

[[gnu::always_inline]] inline float to_float(float value) { return value; }
[[gnu::always_inline]] inline float to_float(c10::Half value) { return static_cast<float>(value); }
[[gnu::always_inline]] inline float to_float(c10::BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.x) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

[[gnu::always_inline]] inline void from_float(float value, float& out) { out = value; }
[[gnu::always_inline]] inline void from_float(float value, c10::Half& out) { out = static_cast<c10::Half>(value); }
// Round to nearest, ties to even. A NaN keeps its upper bits with the quiet bit set.
[[gnu::always_inline]] inline void from_float(float value, c10::BFloat16& out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  out.x = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}

}  // namespace gaudi::bridge
