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
// After the parameters of a lambda that is the body of an inner loop: called for whole vectors and
// for the last one, it would otherwise stay a function, and what it captures in memory.
#define VOLTAIC_INLINED __attribute__((always_inline))

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

// Lanes of 16 bits as lanes of 32 and back, where they fit. (GCC 12 takes more instructions for
// __builtin_convertvector than AVX2 has.)
VOLTAIC_INLINE vuint widen(vhalf x) {
#if defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vuint)_mm256_cvtepu16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, vuint);
#endif
}
VOLTAIC_INLINE vhalf narrow(vuint x) {
#if defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vhalf)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)x),
                                 _mm256_extracti128_si256((__m256i)x, 1));
#else
  return __builtin_convertvector(x, vhalf);
#endif
}
// AVX-512 moves words by one permutation each way; widening or narrowing lanes would take two more.
VOLTAIC_INLINE vfloat from_halves(vhalf x) {
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
  typedef uint16_t vwords __attribute__((vector_size(64)));
  const vwords to_upper = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                           0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  return (vfloat)_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, (__m512i)to_upper,
                                                _mm512_castsi256_si512((__m256i)x));
#else
  return (vfloat)(widen(x) << 16);
#endif
}
VOLTAIC_INLINE vfloat load(const bfloat16* from) {
  return from_halves(*(const vhalf_unaligned*)from);
}
// As to_bfloat16, lane by lane, in the lower halves of the lanes.
VOLTAIC_INLINE vuint round_to_half(vfloat x) {
  const vuint bits = (vuint)x;
  const vuint rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const vuint quiet = bits >> 16 | 0x40u;
  const vuint is_nan = (vuint)((vint)(bits & 0x7fffffffu) > 0x7f800000);
  return (rounded & ~is_nan) | (quiet & is_nan);
}
// Units compiled for AVX512_BF16 convert by its instruction, which takes subnormal fp32 as zero (of
// all 2^32 values the only difference, as run on Zen 4). Those units hold bf16 products, whose
// instructions do the same.
VOLTAIC_INLINE vhalf to_halves(vfloat x) {
#if defined(__AVX512BF16__) && VOLTAIC_WIDTH == 16
  vhalf rounded;
  const __m256bh converted = _mm512_cvtneps_pbh((__m512)x);
  memcpy(&rounded, &converted, sizeof(rounded));
  return rounded;
#elif defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
  typedef uint16_t vwords __attribute__((vector_size(64)));
  const vwords upper = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i bits = (__m512i)x;
  const __mmask16 is_odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
  __m512i sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  sum = _mm512_mask_add_epi32(sum, is_odd, bits, _mm512_set1_epi32(0x8000));
  sum = _mm512_mask_or_epi32(sum, is_nan, bits, _mm512_set1_epi32(0x400000));
  return (vhalf)_mm512_castsi512_si256(_mm512_permutexvar_epi16((__m512i)upper, sum));
#else
  return narrow(round_to_half(x));
#endif
}
VOLTAIC_INLINE void store(bfloat16* to, vfloat x) { *(vhalf_unaligned*)to = to_halves(x); }

// The first n lanes (none below 0, all from kWidth on); the others are zero, or left alone in
// memory.
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
VOLTAIC_INLINE __mmask16 lane_mask(int64_t n) {
  return n > 0 ? (__mmask16)((1u << n) - 1) : (__mmask16)0;
}
VOLTAIC_INLINE vfloat load_partial(const float* from, int64_t n) {
  if (n >= kWidth) return load(from);
  return (vfloat)_mm512_maskz_loadu_ps(lane_mask(n), from);
}
VOLTAIC_INLINE vfloat load_partial(const bfloat16* from, int64_t n) {
  if (n >= kWidth) return load(from);
  return from_halves((vhalf)_mm256_maskz_loadu_epi16(lane_mask(n), from));
}
VOLTAIC_INLINE void store_partial(float* to, vfloat x, int64_t n) {
  if (n >= kWidth) return store(to, x);
  _mm512_mask_storeu_ps(to, lane_mask(n), (__m512)x);
}
VOLTAIC_INLINE void store_partial(bfloat16* to, vfloat x, int64_t n) {
  if (n >= kWidth) return store(to, x);
  _mm256_mask_storeu_epi16(to, lane_mask(n), (__m256i)to_halves(x));
}
#else
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
#endif

// Stores and gives back what a load would find there.
VOLTAIC_INLINE vfloat store_rounded(float* to, vfloat x, int64_t n) {
  store_partial(to, x, n);
  return x;
}
VOLTAIC_INLINE vfloat store_rounded(bfloat16* to, vfloat x, int64_t n) {
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
  const vhalf halves = to_halves(x);
  const vfloat rounded = from_halves(halves);
#else
  const vuint bits = round_to_half(x);
  const vhalf halves = narrow(bits);
  const vfloat rounded = (vfloat)(bits << 16);
#endif
  if (n >= kWidth) {
    *(vhalf_unaligned*)to = halves;
  } else {
    memcpy(to, &halves, (size_t)n * sizeof(bfloat16));
  }
  return rounded;
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
// (Written out because GCC 12 compares and blends for some of them.)
VOLTAIC_INLINE vfloat vmax(vfloat a, vfloat b) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}
VOLTAIC_INLINE vfloat vmin(vfloat a, vfloat b) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}
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

// Sums in a fixed tree order: lane i with lane i + width/2, and so on. Halves meet in registers: by
// way of memory a row's sum would wait for some twenty loads and stores.
#if defined(__SSE2__) && (VOLTAIC_WIDTH == 4 || (defined(__AVX2__) && VOLTAIC_WIDTH == 8) || \
                          (defined(__AVX512F__) && VOLTAIC_WIDTH == 16))
template <class Combine>
VOLTAIC_INLINE float fold_lanes(vfloat x, const Combine& combine) {
#if VOLTAIC_WIDTH == 16
  const __m256d upper = _mm512_extractf64x4_pd((__m512d)x, 1);
  const __m256 eight = combine(_mm512_castps512_ps256((__m512)x), (__m256)upper);
  const __m128 four = combine(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#elif VOLTAIC_WIDTH == 8
  const __m128 four =
      combine(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
#else
  const __m128 four = (__m128)x;
#endif
  const __m128 two = combine(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(combine(two, _mm_shuffle_ps(two, two, 1)));
}
VOLTAIC_INLINE float reduce_add(vfloat x) {
  return fold_lanes(x, [](auto a, auto b) { return a + b; });
}
VOLTAIC_INLINE float reduce_max(vfloat x) {
  return fold_lanes(x, [](auto a, auto b) { return a > b ? a : b; });
}
#else
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
#endif

}  // namespace
}  // namespace voltaic
