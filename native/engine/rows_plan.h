// Permutations and slices, planned from the call; both backends use it.
#pragma once
#include "shapes.h"

namespace voltaic {
namespace {

// y's axes after collapsing, innermost first, with the strides in x and y of each, in elements.
struct Permutation {
  int rank = 0;
  int64_t sizes[VOLTAIC_MAX_RANK], from[VOLTAIC_MAX_RANK], to[VOLTAIC_MAX_RANK];
};

inline voltaic_status plan_permute(const voltaic_call* call, Permutation& plan) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  int64_t strides[VOLTAIC_MAX_RANK], axes[VOLTAIC_MAX_RANK], stride = 1;
  for (int d = x.rank - 1; d >= 0; d--) {
    strides[d] = stride;
    stride *= x.shape[d];
  }
  uint32_t seen = 0;
  bool fits = x.rank == y.rank;
  for (int d = 0; d < x.rank; d++) {
    axes[d] = index_attribute(call, d, x.rank);
    if (axes[d] < 0 || seen >> axes[d] & 1)
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "permute: axis%d is %g, expected each axis of x %s once", d, attribute(call, d),
                  shape_text(x).text);
    seen |= 1u << axes[d];
    fits = fits && y.shape[d] == x.shape[axes[d]];
  }
  if (!fits)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "permute: y has shape %s, expected x's %s in the order of the axes",
                shape_text(y).text, shape_text(x).text);
  stride = 1;
  for (int d = y.rank - 1; d >= 0; d--) {
    const int64_t size = y.shape[d], from = strides[axes[d]];
    if (size == 1) continue;
    const int last = plan.rank - 1;
    if (last >= 0 && from == plan.from[last] * plan.sizes[last]) {
      plan.sizes[last] *= size;
    } else {
      plan.sizes[plan.rank] = size;
      plan.from[plan.rank] = from;
      plan.to[plan.rank++] = stride;
    }
    stride *= size;
  }
  return VOLTAIC_OK;
}

// whole[start : start + part.shape[axis]] along axis and part have one shape: runs of bytes, those
// of part one after the other, those of whole `stride` apart from `start` on.
struct Slice {
  int64_t runs = 0, run = 0, stride = 0, start = 0;
};

inline voltaic_status plan_slice(const voltaic_call* call, const char* op,
                                 const voltaic_tensor& whole_tensor, const voltaic_tensor& part,
                                 Slice& plan) {
  const int64_t axis = index_attribute(call, 0, whole_tensor.rank);
  if (axis < 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "%s: axis is %g, expected one of the %d axes of %s",
                op, attribute(call, 0), whole_tensor.rank, shape_text(whole_tensor).text);
  bool fits = part.rank == whole_tensor.rank;
  for (int d = 0; fits && d < part.rank; d++)
    fits = d == axis || part.shape[d] == whole_tensor.shape[d];
  if (!fits)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%s: the slice has shape %s, expected that of %s but along axis %lld", op,
                shape_text(part).text, shape_text(whole_tensor).text, (long long)axis);
  const int64_t size = whole_tensor.shape[axis], length = part.shape[axis];
  const int64_t start = index_attribute(call, 1, size - length + 1);
  if (start < 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "%s: start is %g for %lld of axis %lld of %s, expected 0 to %lld", op,
                attribute(call, 1), (long long)length, (long long)axis,
                shape_text(whole_tensor).text, (long long)(size - length));
  if (part.elements == 0) return VOLTAIC_OK;
  int64_t inner = element_size(part.dtype);
  for (int d = (int)axis + 1; d < part.rank; d++) inner *= part.shape[d];
  plan.run = length * inner;
  plan.runs = part.elements * element_size(part.dtype) / plan.run;
  plan.stride = size * inner;
  plan.start = start * inner;
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
