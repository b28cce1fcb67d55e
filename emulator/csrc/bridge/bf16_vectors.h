// Vectors of 32 bfloat16 numbers on processors that multiply them (AVX-512 BF16).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GAUDI_HAS_BF16_DOT 1
#define GAUDI_BF16_DOT __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))

#include <c10/util/BFloat16.h>
#include <immintrin.h>

namespace gaudi::bridge {

inline bool has_bf16_dot() {
  static const bool supported = __builtin_cpu_supports("avx512bf16") > 0 &&
                                __builtin_cpu_supports("avx512bw") > 0 &&
                                __builtin_cpu_supports("avx512vl") > 0 &&
                                __builtin_cpu_supports("avx512dq") > 0;
  return supported;
}

GAUDI_BF16_DOT inline __m512bh load(const c10::BFloat16* p) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
}

GAUDI_BF16_DOT inline __m512bh load_tail(const c10::BFloat16* p, __mmask32 mask) {
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, p));
}

// The sums of four vectors, in order.
GAUDI_BF16_DOT inline __m128 sums(const __m512 (&v)[4]) {
  __m128 quarter[4];
#pragma GCC unroll 8
  for (int c = 0; c < 4; ++c) {
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(v[c]), _mm512_extractf32x8_ps(v[c], 1));
    quarter[c] = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }
  return _mm_hadd_ps(_mm_hadd_ps(quarter[0], quarter[1]), _mm_hadd_ps(quarter[2], quarter[3]));
}

}  // namespace gaudi::bridge

#endif
