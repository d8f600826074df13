// Conversions between float and bfloat16 bits for code outside of the kernels.
#pragma once
#include <cstdint>
#include <cstring>

namespace voltaic::scalars {

inline float bfloat16_bits_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float result;
  std::memcpy(&result, &wide, 4);
  return result;
}

// Round to nearest, ties to even; NaN stays NaN.
inline uint16_t float_to_bfloat16_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace voltaic::scalars
