// Elementary functions on vectors: exp, log, erf, tanh, sigmoid, softplus, and the upper tail of
// the normal distribution.
//
// Each is a range reduction and a polynomial fitted to least largest relative error (the fit's
// error is beside it). Largest errors over all floats, in units in the last place, measured with
// and without fused multiply-add: exp 1.0, log 0.8, erf 1.5, tanh 1.3, sigmoid 2.2, softplus 2.6.
// The test (test/native/simd_math_test.cpp) holds them to 2, the last two to 3. The bits differ
// between processors that fuse and those that do not, never between lanes or widths of the same
// kind.
//
// Special values are those of C's functions: NaN in, NaN out; exp overflows to infinity
// above 88.72; log(0) is -infinity and log of a negative number NaN. Results that would be denormal
// are flushed to zero (exp below -87.33); a denormal argument of log is taken as it is.
#pragma once
#include "simd.h"

namespace voltaic {
namespace {

// a * b + c, fused where the processor can, or always rounded twice: bits that every device gives.
template <bool fused>
VOLTAIC_INLINE vfloat multiply_add(vfloat a, vfloat b, vfloat c) {
  if constexpr (fused) return fma(a, b, c);
  return a * b + c;
}

// coefficients[0] + coefficients[1] x + ... by Horner's rule.
template <bool fused = true, int count>
VOLTAIC_INLINE vfloat polynomial(vfloat x, const float (&coefficients)[count]) {
  vfloat sum = splat(coefficients[count - 1]);
  for (int i = count - 2; i >= 0; i--) sum = multiply_add<fused>(sum, x, splat(coefficients[i]));
  return sum;
}

constexpr float kLog2High = 0.693359375f;  // nine bits, so that small whole multiples are exact
constexpr float kLog2Low = -2.12194440e-4f;
constexpr float kInfinity = __builtin_inff();

// Logs of the largest and least normal numbers.
constexpr float kHighestExponent = 88.7228317f, kLowestExponent = -87.3365402f;

// e^x = 2^n e^r, r = x - n log 2 in [-0.347, 0.347]; e^r = 1 + r + r^2 P(r) to 3.2e-9. For x up to
// kHighestExponent; beyond it, and for NaN, the result means nothing.
template <bool fused = true>
VOLTAIC_INLINE vfloat exp_in_range(vfloat x) {
  constexpr float kP[] = {0.49999994f, 0.166665211f, 0.041668281f, 0.0083686905f, 0.00138194906f};
  const vfloat magic =
      splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
  const vfloat shifted = multiply_add<fused>(x, splat(1.44269504f), magic);
  const vfloat n = shifted - magic;
  vfloat r = multiply_add<fused>(n, splat(-kLog2High), x);
  r = multiply_add<fused>(n, splat(-kLog2Low), r);
  const vfloat p = multiply_add<fused>(r * r, polynomial<fused>(r, kP), r) + 1.0f;
  const vfloat result = (vfloat)((vuint)p + ((vuint)shifted << 23));
  return select(x < kLowestExponent, splat(0.0f), result);
}
template <bool fused = true>
VOLTAIC_INLINE vfloat vexp_form(vfloat x) {
  return select(x <= kHighestExponent, exp_in_range<fused>(x), x * kInfinity);  // infinity, or NaN
}
VOLTAIC_INLINE vfloat vexp(vfloat x) { return vexp_form<true>(x); }

// log x = e log 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2));
// log(1 + f) = f - f^2/2 + f^3 P(f) to 5.9e-9.
template <bool fused = true>
VOLTAIC_INLINE vfloat vlog_form(vfloat x) {
  constexpr float kP[] = {0.333333313f, -0.250008196f, 0.200012416f, -0.166234091f,
                          0.142015815f, -0.131596133f, 0.127621993f, -0.0763639957f};
  const vint denormal = x < 1.17549435e-38f;
  const vuint bits = (vuint)select(denormal, x * 8388608.0f, x) - 0x3f3504f3u;
  const vfloat e = to_vfloat(((vint)bits >> 23) - (denormal & 23));
  const vfloat f = (vfloat)((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const vfloat square = f * f;
  vfloat small = multiply_add<fused>(e, splat(kLog2Low), polynomial<fused>(f, kP) * (square * f));
  small = multiply_add<fused>(square, splat(-0.5f), small);
  const vfloat result = multiply_add<fused>(e, splat(kLog2High), f + small);
  const vfloat special =
      select(x == 0.0f, splat(-kInfinity), select(x < 0.0f, splat(__builtin_nanf("")), x));
  return select((x > 0.0f) & (x < kInfinity), result, special);
}
VOLTAIC_INLINE vfloat vlog(vfloat x) { return vlog_form<true>(x); }

// The standard normal distribution beyond t >= 0 (NaN stays):
//   upper = Q(t) = density u P(u) to 3.4e-8, u = 1 / (1 + 0.35 t), density = exp(-t^2 / 2)
// Relative error 4e-7 up to t = 2, then about 6e-8 t^2 / 2 from the rounding of the exponent.
// Arguments above 15, where both vanish, count as 15. Of NaN t and upper are NaN.
struct NormalTail {
  vfloat t, upper, density;
};
VOLTAIC_INLINE NormalTail normal_tail(vfloat t) {
  constexpr float kP[] = {0.139621258f, 0.13986434f,   0.119815513f, 0.105574556f, -0.0232628211f,
                          0.159390822f, -0.255899519f, 0.144059435f, -0.029163599f};
  t = vmin(splat(15.0f), t);
  const vfloat u = 1.0f / fma(t, splat(0.35f), splat(1.0f));
  const vfloat density = exp_in_range(t * t * -0.5f);
  return {t, density * (u * polynomial(u, kP)), density};
}

// 2^x to a relative 2.6e-6, for what is rounded to bfloat16 in the end; x from -126 to 127.
VOLTAIC_INLINE vfloat exp2_brief(vfloat x) {
  constexpr float kP[] = {0.9999993f, 0.6931218f, 0.24024744f, 0.05591786f, 0.009570101f};
  const vfloat shifted = x + 12582912.0f;  // as in exp_in_range
  const vfloat p = polynomial(x - (shifted - 12582912.0f), kP);
  return (vfloat)((vuint)p + ((vuint)shifted << 23));
}

// The tail for results of 8 bits: upper = 2^P(t) without division or a second polynomial, P fitted
// to log2 Q(t). Relative error 1.8e-5 up to t = 6 (a bfloat16 rounds by up to 3.9e-3), growing to
// 0.008 at 9, where t Q(t) is 1e-18. From kBriefEnd on Q is 0, and t stays kBriefEnd.
constexpr float kBriefEnd = 12.5f;
VOLTAIC_INLINE vfloat brief_tail(vfloat t) {
  constexpr float kP[] = {-1.0000211f,  -1.1509199f,     -0.45925114f,  -0.05323485f,
                          0.008185257f, -0.00085642125f, 5.313836e-05f, -1.4550882e-06f};
  return select(t < kBriefEnd, exp2_brief(polynomial(t, kP)), splat(0.0f));
}

VOLTAIC_INLINE vfloat copy_sign(vfloat magnitude, vfloat sign) {
  return as_float(as_int(magnitude) | (as_int(sign) & (int32_t)0x80000000));
}

// erf x = x + x P(x^2) below 0.92 (error 1.8e-8), 1 - 2 Q(sqrt(2) |x|) above.
VOLTAIC_INLINE vfloat verf(vfloat x) {
  constexpr float kP[] = {0.128379151f,   -0.376124889f,  0.11281731f,
                          -0.0267629661f, 0.00498735206f, -0.000595957856f};
  const vfloat magnitude = vabs(x);
  const vfloat near = fma(polynomial(magnitude * magnitude, kP), magnitude, magnitude);
  const vfloat far = fma(normal_tail(magnitude * 1.41421356f).upper, splat(-2.0f), splat(1.0f));
  return copy_sign(select(magnitude < 0.92f, near, far), x);
}

// tanh x = x + x^3 P(x^2) below 0.625 (error 4.8e-9), 1 - 2 / (e^(2|x|) + 1) above.
VOLTAIC_INLINE vfloat vtanh(vfloat x) {
  constexpr float kP[] = {-0.333332777f, 0.133313224f, -0.0537293665f, 0.0206042957f,
                          -0.00566506386f};
  const vfloat magnitude = vabs(x), square = magnitude * magnitude;
  const vfloat near = fma(polynomial(square, kP) * square, magnitude, magnitude);
  const vfloat far = 1.0f - 2.0f / (vexp(magnitude + magnitude) + 1.0f);
  return copy_sign(select(magnitude < 0.625f, near, far), x);
}

VOLTAIC_INLINE vfloat vsigmoid(vfloat x) { return 1.0f / (1.0f + vexp(-x)); }

// log(1 + e^-|x|), the smooth part of the stable sigmoid cross-entropy
// max(x, 0) - x y + log(1 + e^-|x|): with e = e^-|x| and z = e / (2 + e) in [0, 1/3] it is
// 2 artanh z = 2 z + 2 z^3 P(z^2) to 4.5e-9.
VOLTAIC_INLINE vfloat vsoftplus_negative_abs(vfloat x) {
  constexpr float kP[] = {0.333332092f, 0.200107172f, 0.140015483f, 0.140031859f};
  const vfloat e = vexp(-vabs(x));
  const vfloat z = e / (2.0f + e), square = z * z;
  return 2.0f * fma(polynomial(square, kP) * square, z, z);
}

// The same for one number: lane 0 of the vector form.
VOLTAIC_INLINE float scalar_exp(float x) { return vexp(splat(x))[0]; }
VOLTAIC_INLINE float scalar_log(float x) { return vlog(splat(x))[0]; }
VOLTAIC_INLINE float scalar_erf(float x) { return verf(splat(x))[0]; }
VOLTAIC_INLINE float scalar_tanh(float x) { return vtanh(splat(x))[0]; }
VOLTAIC_INLINE float scalar_sigmoid(float x) { return vsigmoid(splat(x))[0]; }
VOLTAIC_INLINE float scalar_softplus_negative_abs(float x) {
  return vsoftplus_negative_abs(splat(x))[0];
}

}  // namespace
}  // namespace voltaic
