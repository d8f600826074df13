// Vectors of the width that this unit is compiled for, on GCC's and Clang's vector extensions.
//
// One source serves every instruction set: 4 lanes (portable: SSE2, NEON), 8 (AVX2), 16 (AVX-512).
// Loads of fewer than a whole vector fill with zeros and run the same arithmetic, so that an
// element's result never depends on its place in a row. Contraction is off in the build: a
// multiply-add is fused exactly where fma() is written. VOLTAIC_WIDTH may be given by hand, to run
// the 16-lane code on a processor without AVX-512 (tests do).
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef VOLTAIC_ISA
#error "compile with -DVOLTAIC_ISA=portable|avx2|avx512|avx512bf16|amx"
#endif

#ifndef VOLTAIC_WIDTH
#if defined(__AVX512F__)
#define VOLTAIC_WIDTH 16
#elif defined(__AVX2__)
#define VOLTAIC_WIDTH 8
#else
#define VOLTAIC_WIDTH 4
#endif
#endif

#define VOLTAIC_INLINE inline __attribute__((always_inline))

namespace voltaic {
namespace {

constexpr int kWidth = VOLTAIC_WIDTH;

struct bfloat16 {
  uint16_t bits;
};

typedef float vfloat __attribute__((vector_size(4 * VOLTAIC_WIDTH)));
typedef int32_t vint __attribute__((vector_size(4 * VOLTAIC_WIDTH)));
typedef uint32_t vuint __attribute__((vector_size(4 * VOLTAIC_WIDTH)));
typedef uint16_t vhalf __attribute__((vector_size(2 * VOLTAIC_WIDTH)));
typedef float vfloat_unaligned
    __attribute__((vector_size(4 * VOLTAIC_WIDTH), aligned(4), may_alias));
typedef int32_t vint_unaligned
    __attribute__((vector_size(4 * VOLTAIC_WIDTH), aligned(4), may_alias));
typedef uint16_t vhalf_unaligned
    __attribute__((vector_size(2 * VOLTAIC_WIDTH), aligned(2), may_alias));

// ---- scalars
VOLTAIC_INLINE float to_float(float x) { return x; }
VOLTAIC_INLINE float to_float(bfloat16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float result;
  memcpy(&result, &bits, 4);
  return result;
}
// Round to nearest, ties to even; NaN stays NaN.
VOLTAIC_INLINE bfloat16 to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {(uint16_t)(bits >> 16 | 0x40u)};
  return {(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
VOLTAIC_INLINE void put(float* to, float x) { *to = x; }
VOLTAIC_INLINE void put(bfloat16* to, float x) { *to = to_bfloat16(x); }

// ---- vectors
VOLTAIC_INLINE vfloat splat(float x) {
  return x - vfloat{};
}  // exact for -0 too: folds to a broadcast
VOLTAIC_INLINE vint splat_int(int32_t x) { return vint{} + x; }
VOLTAIC_INLINE vint as_int(vfloat x) { return (vint)x; }
VOLTAIC_INLINE vfloat as_float(vint x) { return (vfloat)x; }

VOLTAIC_INLINE vfloat load(const float* from) { return *(const vfloat_unaligned*)from; }
VOLTAIC_INLINE void store(float* to, vfloat x) { *(vfloat_unaligned*)to = x; }
VOLTAIC_INLINE vint load_int(const int32_t* from) { return *(const vint_unaligned*)from; }
VOLTAIC_INLINE void store_int(int32_t* to, vint x) { *(vint_unaligned*)to = x; }

VOLTAIC_INLINE vfloat load(const bfloat16* from) {
  const vhalf halves = *(const vhalf_unaligned*)from;
  return (vfloat)(__builtin_convertvector(halves, vuint) << 16);
}
// Units compiled for AVX512_BF16 convert by its instruction, which takes subnormal fp32 as zero (of
// all 2^32 values the only difference, as run on Zen 4). Those units hold bf16 products, whose
// instructions do the same.
VOLTAIC_INLINE void store(bfloat16* to, vfloat x) {
#if defined(__AVX512BF16__) && VOLTAIC_WIDTH == 16
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
  memcpy(to, &rounded, sizeof(rounded));
#else
  const vuint bits = (vuint)x;
  const vuint rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const vuint quiet = bits >> 16 | 0x40u;
  const vuint is_nan = (vuint)((vint)(bits & 0x7fffffffu) > 0x7f800000);
  *(vhalf_unaligned*)to = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), vhalf);
#endif
}

// The first n (0 to kWidth) lanes; the others are zero, or left alone in memory.
template <class T>
VOLTAIC_INLINE vfloat load_partial(const T* from, int64_t n) {
  if (n >= kWidth) return load(from);
  T lanes[kWidth] = {};
  for (int i = 0; i < n; i++) lanes[i] = from[i];
  return load(lanes);
}
template <class T>
VOLTAIC_INLINE void store_partial(T* to, vfloat x, int64_t n) {
  if (n >= kWidth) return store(to, x);
  T lanes[kWidth];
  store(lanes, x);
  for (int i = 0; i < n; i++) to[i] = lanes[i];
}

VOLTAIC_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && VOLTAIC_WIDTH == 8
  return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__) && VOLTAIC_WIDTH == 4
  return (vfloat)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
// mask lanes are all ones or all zeros, as comparisons give them
VOLTAIC_INLINE vfloat select(vint mask, vfloat a, vfloat b) { return mask ? a : b; }
VOLTAIC_INLINE vint select(vint mask, vint a, vint b) { return mask ? a : b; }
// As in IEEE comparisons: a NaN in a gives b, a NaN in b stays.
VOLTAIC_INLINE vfloat vmax(vfloat a, vfloat b) { return a > b ? a : b; }
VOLTAIC_INLINE vfloat vmin(vfloat a, vfloat b) { return a < b ? a : b; }
VOLTAIC_INLINE vfloat vabs(vfloat x) { return as_float(as_int(x) & 0x7fffffff); }
VOLTAIC_INLINE vfloat vsqrt(vfloat x) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vfloat)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vfloat)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__) && VOLTAIC_WIDTH == 4
  return (vfloat)_mm_sqrt_ps((__m128)x);
#else
  vfloat result;
  for (int i = 0; i < kWidth; i++) result[i] = __builtin_sqrtf(x[i]);
  return result;
#endif
}
VOLTAIC_INLINE vfloat to_vfloat(vint x) { return __builtin_convertvector(x, vfloat); }
VOLTAIC_INLINE vint truncate_to_int(vfloat x) { return __builtin_convertvector(x, vint); }
// Nearest whole number, ties to even, for |x| < 2^22.
VOLTAIC_INLINE vfloat round_nearest(vfloat x) {
  const vfloat magic = splat(12582912.0f);
  return (x + magic) - magic;
}

// Sums in a fixed tree order: lane i with lane i + width/2, and so on.
VOLTAIC_INLINE float reduce_add(vfloat x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}
VOLTAIC_INLINE float reduce_max(vfloat x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++)
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

}  // namespace
}  // namespace voltaic
