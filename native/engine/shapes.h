// Shapes in words for messages, and the sizes of elements: what kernels that derive layouts from
// shapes share.
#pragma once
#include "kernel_call.h"

namespace voltaic {
namespace {

struct ShapeText {
  char text[160];  // six dimensions of 19 digits fit
};

// "[2, 3]"
inline ShapeText shape_text(const voltaic_tensor& tensor) {
  ShapeText result;
  int used = snprintf(result.text, sizeof result.text, "[");
  for (int d = 0; d < tensor.rank; d++)
    used += snprintf(result.text + used, sizeof result.text - (size_t)used, "%s%lld", d ? ", " : "",
                     (long long)tensor.shape[d]);
  snprintf(result.text + used, sizeof result.text - (size_t)used, "]");
  return result;
}

inline int64_t element_size(int32_t dtype) {
  return dtype == VOLTAIC_BFLOAT16 ? 2 : dtype == VOLTAIC_UINT8 ? 1 : 4;
}

// Calls body with a null pointer to the unsigned integer of size bytes (1, 2 or 4): for kernels
// that only move bits.
template <class Body>
inline voltaic_status with_element_size(int64_t size, Body&& body) {
  return size == 1   ? body((uint8_t*)nullptr)
         : size == 2 ? body((uint16_t*)nullptr)
                     : body((uint32_t*)nullptr);
}

// A whole-number attribute from 0 to below - 1, or -1 when it is none (NaN and fractions included).
inline int64_t index_attribute(const voltaic_call* call, int i, int64_t below) {
  const double value = attribute(call, i);
  if (!(value >= 0 && value < (double)below) || value != (double)(int64_t)value) return -1;
  return (int64_t)value;
}

}  // namespace
}  // namespace voltaic
