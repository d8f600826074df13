// The activation functions and their derivatives at the pre-activation x, for the activation
// kernels and the epilogues of products. Kinds are those of the kernel table: 0 gelu (erf), 1
// gelu_tanh, 2 relu, 3 tanh, 4 sigmoid. Formulas and error bounds are those of
// native/cpu/activation_functions.h, but for two that would make more of the toolkit's errors (expf
// 1 to 2 units in the last place, tanhf 2): sigmoid below 0, and tanh's derivative.
#pragma once
#include <cuda_runtime.h>

#include "../native/engine/activation_kinds.h"
#include "primitives.cuh"

namespace voltaic {
namespace {

// The standard normal distribution beyond t >= 0 (NaN stays): upper = Q(t) = density u P(u)
// to 3.4e-8, u = 1 / (1 + 0.35 t), density = exp(-t^2 / 2). Arguments above 15 count as 15.
struct NormalTail {
  float t, upper, density;
};
__device__ __forceinline__ NormalTail normal_tail(float t) {
  t = t > 15.0f ? 15.0f : t;
  const float u = fast_reciprocal(fmaf(t, 0.35f, 1.0f));
  const float density = expf(t * t * -0.5f);
  float p = -0.029163599f;
  p = fmaf(p, u, 0.144059435f);
  p = fmaf(p, u, -0.255899519f);
  p = fmaf(p, u, 0.159390822f);
  p = fmaf(p, u, -0.0232628211f);
  p = fmaf(p, u, 0.105574556f);
  p = fmaf(p, u, 0.119815513f);
  p = fmaf(p, u, 0.13986434f);
  p = fmaf(p, u, 0.139621258f);
  return {t, density * (u * p), density};
}

// 1 / (1 + e) or e / (1 + e) with e = exp(-|x|)
__device__ __forceinline__ float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

constexpr float kGeluTanhLinear = 1.59576912f, kGeluTanhCubic = 0.0713548162f;

template <int kind>
__device__ __forceinline__ float activate(float x) {
  static_assert(kind >= 0 && kind < kActivationKinds);
  if constexpr (kind == kGelu) {
    const NormalTail tail = normal_tail(fabsf(x));
    return fmaf(-tail.t, tail.upper, x < 0.0f ? 0.0f : x);
  }
  if constexpr (kind == kGeluTanh) {
    const float y = x < -9.5f ? -9.5f : x;
    return y / (1.0f + expf(-y * fmaf(y * y, kGeluTanhCubic, kGeluTanhLinear)));
  }
  if constexpr (kind == kRelu) return x < 0.0f ? 0.0f : x;
  if constexpr (kind == kTanh) return tanhf(x);
  if constexpr (kind == kSigmoid) return sigmoid(x);
}

template <int kind>
__device__ __forceinline__ float activate_gradient(float x) {
  static_assert(kind >= 0 && kind < kActivationKinds);
  if constexpr (kind == kGelu) {
    const NormalTail tail = normal_tail(fabsf(x));
    const float d = fmaf(tail.t * -0.398942280f, tail.density, tail.upper);
    return x < 0.0f ? d : 1.0f - d;
  }
  if constexpr (kind == kGeluTanh) {
    const float y = x < -9.5f ? -9.5f : x > 9.5f ? 9.5f : x;
    const float square = y * y;
    const float e = expf(-y * fmaf(square, kGeluTanhCubic, kGeluTanhLinear));
    const float s = 1.0f / (1.0f + e);
    const float slope = y * fmaf(square, 3.0f * kGeluTanhCubic, kGeluTanhLinear);
    return fmaf(slope * s, e * s, s);
  }
  if constexpr (kind == kRelu) return x <= 0.0f ? 0.0f : x > 0.0f ? 1.0f : x;
  if constexpr (kind == kTanh) {
    // 4 e / (1 + e)^2 with e = exp(-2 |x|)
    const float e = expf(-2.0f * fabsf(x)), s = 1.0f / (1.0f + e);
    return 4.0f * e * s * s;
  }
  if constexpr (kind == kSigmoid) {
    const float e = expf(-fabsf(x)), s = 1.0f / (1.0f + e);
    return e * s * s;
  }
}

}  // namespace
}  // namespace voltaic
