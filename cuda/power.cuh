// a to the power b in fp32, to 1.1 units in the last place: the toolkit's powf may err by several,
// and double precision is slow on most cards.
//
// log2 |a| = e + log2 m, m in [sqrt(1/2), sqrt(2)), is kept as a sum of two floats: with
// q = (m - 1) / (m + 1), log2 m = 2 / ln 2 (q + q^3 / 3 + q^5 / 5 + ...), where the first two terms
// carry their rounding errors along. The product with b keeps its error too, so 2^x begins with an
// argument good to 2^-33 of its size; 2^x = 2^n (1 + f P(f)) is rounded once. Products whose
// rounding error is carried along are rounded by name: nvcc would fuse them into the sums that
// follow, and the error would count twice.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

// log2 of a finite a > 0 as high + low.
__device__ __forceinline__ void log2_in_two(float a, float& high, float& low) {
  const bool denormal = a < 1.17549435e-38f;
  const uint32_t bits = __float_as_uint(denormal ? a * 16777216.0f : a) - 0x3f3504f3u;
  const float e = static_cast<float>((static_cast<int32_t>(bits) >> 23) - (denormal ? 24 : 0));
  const float f = __uint_as_float((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  // q = f / (f + 2), with what the rounding left
  const float inverse = __frcp_rn(f + 2.0f);
  const float q = f * inverse;
  const float q_low = inverse * fmaf(-q, f, fmaf(-q, 2.0f, f));
  const float s = __fmul_rn(q, q);
  const float s_low = fmaf(2.0f * q, q_low, fmaf(q, q, -s));
  // 2 / ln 2 and a third of it, in two floats each
  constexpr float kOne = 2.88539004f, kOneLow = 3.851926e-8f;
  constexpr float kThird = 0.961796701f, kThirdLow = -7.028462e-9f;
  const float rest =
      fmaf(fmaf(fmaf(fmaf(0.221953083f, s, 0.262308190f), s, 0.320598893f), s, 0.412198582f), s,
           0.577078016f) *
      (s * s);
  const float cubic = __fmul_rn(kThird, s);
  const float cubic_low = fmaf(kThird, s, -cubic) + fmaf(kThirdLow, s, fmaf(kThird, s_low, rest));
  const float sum = kOne + cubic;
  const float sum_low = (kOne - sum) + cubic + (cubic_low + kOneLow);
  const float product = __fmul_rn(q, sum);
  const float product_low = fmaf(q, sum, -product) + fmaf(q, sum_low, q_low * sum);
  const float total = e + product;
  const float total_low = (e - total) + product + product_low;
  high = total + total_low;
  low = (total - high) + total_low;
}

// 2^(high + low), |low| far below |high|
__device__ __forceinline__ float exp2_of_two(float high, float low) {
  high = high > 200.0f ? 200.0f : high < -200.0f ? -200.0f : high;
  const float n = rintf(high);
  const float f = high - n;
  float p = fmaf(1.32154868e-6f, f, 1.52527338e-5f);
  p = fmaf(p, f, 1.54035304e-4f);
  p = fmaf(p, f, 1.33335581e-3f);
  p = fmaf(p, f, 9.61812911e-3f);
  p = fmaf(p, f, 5.55041087e-2f);
  p = fmaf(p, f, 0.240226507f);
  p = fmaf(p, f, 0.693147181f);
  p = fmaf(p, f, low * 0.693147181f * fmaf(p, f, 1.0f));
  // in two steps: the result may be denormal
  const int whole = static_cast<int>(n), half = whole / 2;
  return (1.0f + p) * __int_as_float((half + 127) << 23) *
         __int_as_float((whole - half + 127) << 23);
}

// pow as C has it, NaN, infinities and signs included. Squares and square roots are what
// normalisations ask for; their short cuts are exact.
__device__ __forceinline__ float power(float a, float b) {
  constexpr float kInfinity = __builtin_inff();
  if (b == 2.0f) return a * a;
  if (b == 0.5f && a >= 0.0f) return __fsqrt_rn(a) + 0.0f;  // the sum makes -0 into 0
  if (a == 1.0f || b == 0.0f) return 1.0f;
  if (a != a || b != b) return a + b;
  const float magnitude = fabsf(a), exponent = fabsf(b);
  if (exponent == kInfinity)
    return magnitude == 1.0f ? 1.0f : (magnitude > 1.0f) == (b > 0.0f) ? kInfinity : 0.0f;
  const bool whole = b == truncf(b), odd = whole && b * 0.5f != truncf(b * 0.5f);
  float result;
  if (magnitude == 0.0f || magnitude == kInfinity) {
    result = (magnitude == 0.0f) == (b > 0.0f) ? 0.0f : kInfinity;
  } else {
    if (a < 0.0f && !whole) return __builtin_nanf("");
    float high, low;
    log2_in_two(magnitude, high, low);
    const float product = __fmul_rn(b, high);
    const float product_low = fmaf(b, high, -product) + b * low;
    result = exp2_of_two(product, fabsf(product) < 200.0f ? product_low : 0.0f);
  }
  return odd && __float_as_int(a) < 0 ? -result : result;
}

}  // namespace
}  // namespace voltaic
