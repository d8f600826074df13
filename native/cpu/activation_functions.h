// The activation functions and their derivatives at the pre-activation x, for the activation
// kernels and the GEMM's epilogues. Kinds are those of the kernel table: 0 gelu (erf), 1 gelu_tanh,
// 2 relu, 3 tanh, 4 sigmoid.
//
// gelu(x) = x Phi(x) is computed as max(x, 0) - |x| Q(|x|), Q the normal distribution's upper tail
// (simd_math.h), so nothing cancels: measured errors are at most 4e-7 of |gelu(x)| for |x| < 2 and
// 4e-6 of it out to -12, which is 7e-8 for every negative x; derivatives are within 2e-7
// (gelu_gradient.h). NaN in, NaN out; gelu of infinity is infinity, of -infinity -0.
//
// Where the result is stored in bfloat16, gelu takes a shorter approximation (brief_tail): half the
// instructions, and no division. Rounded, it is within 0.504 of a last place, where rounding alone
// makes 0.5. Derivatives keep their precision: their sums, the gradient of a bias, are fp32.
#pragma once
#include "../engine/activation_kinds.h"
#include "gelu_gradient.h"
#include "simd_math.h"

namespace voltaic {
namespace {

VOLTAIC_INLINE vfloat vrelu(vfloat x) { return vmax(splat(0.0f), x); }
VOLTAIC_INLINE vfloat vrelu_gradient(vfloat x) {
  return select(x <= 0.0f, splat(0.0f), select(x > 0.0f, splat(1.0f), x));
}

VOLTAIC_INLINE vfloat vgelu(vfloat x) {
  const NormalTail tail = normal_tail(vabs(x));
  return fma(-tail.t, tail.upper, vrelu(x));
}

VOLTAIC_INLINE vfloat vgelu_brief(vfloat x) {
  const vfloat t = vmin(splat(kBriefEnd), vabs(x));
  return fma(-t, brief_tail(t), vrelu(x));
}

// x / 2 (1 + tanh(s / 2)) = x sigmoid(s), s = 2 sqrt(2 / pi) (x + 0.044715 x^3). Beyond |x| = 9.5
// function and derivative are at their limits to within 1e-30; the clamp keeps infinity from
// meeting zero.
constexpr float kGeluTanhLinear = 1.59576912f, kGeluTanhCubic = 0.0713548162f;
VOLTAIC_INLINE vfloat vgelu_tanh(vfloat x) {
  const vfloat y = vmax(splat(-9.5f), x);
  const vfloat s = y * fma(y * y, splat(kGeluTanhCubic), splat(kGeluTanhLinear));
  return y / (1.0f + vexp(-s));
}
// sigmoid(s) + x sigmoid(s) sigmoid(-s) ds/dx
VOLTAIC_INLINE vfloat vgelu_tanh_gradient(vfloat x) {
  const vfloat y = vmin(splat(9.5f), vmax(splat(-9.5f), x));
  const vfloat square = y * y;
  const vfloat e = vexp(-y * fma(square, splat(kGeluTanhCubic), splat(kGeluTanhLinear)));
  const vfloat sigmoid = 1.0f / (1.0f + e);
  const vfloat slope = y * fma(square, splat(3.0f * kGeluTanhCubic), splat(kGeluTanhLinear));
  return fma(slope * sigmoid, e * sigmoid, sigmoid);
}

VOLTAIC_INLINE vfloat vtanh_gradient(vfloat x) {
  const vfloat y = vtanh(x);
  return (1.0f - y) * (1.0f + y);
}
// e / (1 + e)^2 with e = exp(-|x|)
VOLTAIC_INLINE vfloat vsigmoid_gradient(vfloat x) {
  const vfloat e = vexp(-vabs(x));
  const vfloat s = 1.0f / (1.0f + e);
  return e * s * s;
}

// T is what the result will be stored as: float, or bfloat16.
template <int kind, class T = float>
VOLTAIC_INLINE vfloat activate(vfloat x) {
  static_assert(kind >= 0 && kind < kActivationKinds);
  if constexpr (kind == kGelu && sizeof(T) == 2)
    return vgelu_brief(x);
  else if constexpr (kind == kGelu)
    return vgelu(x);
  if constexpr (kind == kGeluTanh) return vgelu_tanh(x);
  if constexpr (kind == kRelu) return vrelu(x);
  if constexpr (kind == kTanh) return vtanh(x);
  if constexpr (kind == kSigmoid) return vsigmoid(x);
}
template <int kind>
VOLTAIC_INLINE vfloat activate_gradient(vfloat x) {
  static_assert(kind >= 0 && kind < kActivationKinds);
  if constexpr (kind == kGelu) return vgelu_gradient(x);
  if constexpr (kind == kGeluTanh) return vgelu_tanh_gradient(x);
  if constexpr (kind == kRelu) return vrelu_gradient(x);
  if constexpr (kind == kTanh) return vtanh_gradient(x);
  if constexpr (kind == kSigmoid) return vsigmoid_gradient(x);
}

// The kind chosen a vector at a time, where a loop of its own for each kind is not worth its code.
inline vfloat activate(int64_t kind, vfloat x) {
  with_activation(kind, [&](auto activation) { x = activate<activation.value>(x); });
  return x;
}
inline vfloat activate_gradient(int64_t kind, vfloat x) {
  with_activation(kind, [&](auto activation) { x = activate_gradient<activation.value>(x); });
  return x;
}

}  // namespace
}  // namespace voltaic
