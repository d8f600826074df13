// Conversions between the four dtypes, a vector at a time.
//
// Float to whole number truncates toward zero and clamps to the range, NaN gives 0; int32 to uint8
// clamps; int32 to a float rounds to nearest (to bf16 by way of fp32). A tail is copied into a
// whole vector and runs the same code.
#pragma once
#include "kernel.h"

namespace voltaic {
namespace {

typedef uint8_t vbyte __attribute__((vector_size(VOLTAIC_WIDTH)));
typedef uint8_t vbyte_unaligned __attribute__((vector_size(VOLTAIC_WIDTH), aligned(1), may_alias));

// Calls body with a null pointer of the type that dtype names.
template <class Body>
inline voltaic_status with_any(int32_t dtype, Body&& body) {
  switch (dtype) {
    case VOLTAIC_INT32:
      return body((int32_t*)nullptr);
    case VOLTAIC_UINT8:
      return body((uint8_t*)nullptr);
    case VOLTAIC_BFLOAT16:
      return body((bfloat16*)nullptr);
    default:
      return body((float*)nullptr);
  }
}

// ---- a vector of any dtype as floats or as whole numbers, whichever it is
VOLTAIC_INLINE vfloat load_values(const float* from) { return load(from); }
VOLTAIC_INLINE vfloat load_values(const bfloat16* from) { return load(from); }
VOLTAIC_INLINE vint load_values(const int32_t* from) { return load_int(from); }
VOLTAIC_INLINE vint load_values(const uint8_t* from) {
  return __builtin_convertvector(*(const vbyte_unaligned*)from, vint);
}

VOLTAIC_INLINE void store_values(float* to, vfloat x) { store(to, x); }
VOLTAIC_INLINE void store_values(bfloat16* to, vfloat x) { store(to, x); }
VOLTAIC_INLINE void store_values(int32_t* to, vfloat x) {
  const vfloat number = select(x == x, x, splat(0));
  const vfloat within = vmin(vmax(number, splat(-2147483648.0f)), splat(2147483520.0f));
  store_int(to, select(number >= 2147483648.0f, splat_int(INT32_MAX), truncate_to_int(within)));
}
VOLTAIC_INLINE void store_values(uint8_t* to, vfloat x) {
  const vfloat number = select(x == x, x, splat(0));
  const vint whole = truncate_to_int(vmin(vmax(number, splat(0)), splat(255)));
  *(vbyte_unaligned*)to = __builtin_convertvector(whole, vbyte);
}
VOLTAIC_INLINE void store_values(float* to, vint x) { store(to, to_vfloat(x)); }
VOLTAIC_INLINE void store_values(bfloat16* to, vint x) { store(to, to_vfloat(x)); }
VOLTAIC_INLINE void store_values(int32_t* to, vint x) { store_int(to, x); }
VOLTAIC_INLINE void store_values(uint8_t* to, vint x) {
  const vint low = select(x < 0, splat_int(0), x);
  *(vbyte_unaligned*)to = __builtin_convertvector(select(low > 255, splat_int(255), low), vbyte);
}

template <class From, class To>
inline void cast_elements(const From* from, To* to, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store_values(to + i, load_values(from + i));
  if (i == n) return;
  From source[kWidth] = {};
  To target[kWidth];
  memcpy(source, from + i, (size_t)(n - i) * sizeof(From));
  store_values(target, load_values(source));
  memcpy(to + i, target, (size_t)(n - i) * sizeof(To));
}

// ---- an attribute as a value of a dtype, by the same rules
VOLTAIC_INLINE void set_value(float* to, double x) { *to = (float)x; }
VOLTAIC_INLINE void set_value(bfloat16* to, double x) { *to = to_bfloat16((float)x); }
VOLTAIC_INLINE void set_value(int32_t* to, double x) {
  *to = x != x ? 0 : x >= INT32_MAX ? INT32_MAX : x <= INT32_MIN ? INT32_MIN : (int32_t)x;
}
VOLTAIC_INLINE void set_value(uint8_t* to, double x) {
  *to = !(x > 0) ? 0 : x >= 255 ? 255 : (uint8_t)x;
}

}  // namespace
}  // namespace voltaic
