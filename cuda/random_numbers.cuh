// Four words of a Philox block to four numbers, by the formulas of native/cpu/random.cpp.
//
// The formulas use nothing but +, -, *, square roots and comparisons in fp32, each rounded on its
// own: the functions below name every rounding, because nvcc would fuse a * b + c, and the bits
// shall be those of every other device.
#pragma once
#include "../native/engine/philox.h"
#include "kernel.cuh"

namespace voltaic {
namespace {

__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
// a * b + c, rounded twice
__device__ __forceinline__ float times_plus(float a, float b, float c) {
  return plus(times(a, b), c);
}
// coefficients[0] + coefficients[1] x + ... by Horner's rule
template <int count>
__device__ __forceinline__ float polynomial_twice_rounded(float x,
                                                          const float (&coefficients)[count]) {
  float sum = coefficients[count - 1];
#pragma unroll
  for (int i = count - 2; i >= 0; i--) sum = times_plus(sum, x, coefficients[i]);
  return sum;
}

// vlog_form<false> of native/cpu/simd_math.h, for normal x > 0.
__device__ __forceinline__ float log_twice_rounded(float x) {
  constexpr float kP[] = {0.333333313f, -0.250008196f, 0.200012416f, -0.166234091f,
                          0.142015815f, -0.131596133f, 0.127621993f, -0.0763639957f};
  constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  const uint32_t bits = __float_as_uint(x) - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float f = plus(__uint_as_float((bits & 0x7fffffu) + 0x3f3504f3u), -1.0f);
  const float square = times(f, f);
  float small = times_plus(e, kLog2Low, times(polynomial_twice_rounded(f, kP), times(square, f)));
  small = times_plus(square, -0.5f, small);
  return times_plus(e, kLog2High, plus(f, small));
}

struct Uniform {
  float low, range;

  __device__ __forceinline__ void operator()(const voltaic_random4& words, float (&y)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) y[i] = times_plus(voltaic_uniform(words.word[i]), range, low);
  }
};

struct Turn {
  float cosine, sine;
};
// cos and sin of 2 pi v, v in (0, 1); 4 v and f are exact.
__device__ __forceinline__ Turn turn(float v) {
  constexpr float kSine[] = {1.57079637f, -0.645966589f, 0.0797115937f, -0.004682987f};
  constexpr float kCosine[] = {-1.23370051f, 0.253668517f, -0.0208552405f, 0.000893477583f};
  const float quarters = v * 4.0f, q = rintf(quarters), f = quarters - q, square = times(f, f);
  const float sine = times(polynomial_twice_rounded(square, kSine), f);
  const float cosine = times_plus(polynomial_twice_rounded(square, kCosine), square, 1.0f);
  const int quadrant = static_cast<int>(q);
  const bool odd = (quadrant & 1) != 0;
  const float c = odd ? sine : cosine, s = odd ? cosine : sine;
  return {(quadrant + 1) & 2 ? -c : c, quadrant & 2 ? -s : s};
}

struct Normal {
  float mean, std;

  __device__ __forceinline__ void operator()(const voltaic_random4& words, float (&y)[4]) const {
#pragma unroll
    for (int pair = 0; pair < 4; pair += 2) {
      const float logarithm = log_twice_rounded(voltaic_uniform(words.word[pair]));
      const float radius = __fsqrt_rn(times(logarithm, -2.0f));
      const Turn direction = turn(voltaic_uniform(words.word[pair + 1]));
      y[pair] = times_plus(times(radius, direction.cosine), std, mean);
      y[pair + 1] = times_plus(times(radius, direction.sine), std, mean);
    }
  }
};

// z * std + mean with Phi(z) = Phi(-2) + u (Phi(2) - Phi(-2))
struct TruncatedNormal {
  float mean, std;

  __device__ __forceinline__ void operator()(const voltaic_random4& words, float (&y)[4]) const {
    constexpr float kQ[] = {1.19628799f,      0.313188344f,    0.0155824255f,   -0.0031292222f,
                            -0.000204859491f, 8.62432644e-05f, -6.03120407e-06f};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float centered = plus(times(voltaic_uniform(words.word[i]), 2.0f), -1.0f);
      const float c = times(centered, 0.954499722f);
      const float w = -log_twice_rounded(plus(1.0f, -times(c, c)));
      const float z = times(polynomial_twice_rounded(w, kQ), centered);
      y[i] = times_plus(fminf(2.0f, fmaxf(-2.0f, z)), std, mean);
    }
  }
};

}  // namespace
}  // namespace voltaic
