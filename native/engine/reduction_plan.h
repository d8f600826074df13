// Which axes a reduction keeps and which it reduces, planned from the call; both backends use it.
//
// Axes of size 1 go and neighbours of one kind become one axis.
#pragma once
#include "shapes.h"

namespace voltaic {
namespace {

// Axes of x, outermost first, with strides in elements.
struct Axes {
  int rank = 0;
  int64_t sizes[VOLTAIC_MAX_RANK] = {}, strides[VOLTAIC_MAX_RANK] = {};

  int64_t count() const {
    int64_t product = 1;
    for (int d = 0; d < rank; d++) product *= sizes[d];
    return product;
  }
  int64_t offset(int64_t index) const {
    int64_t sum = 0;
    for (int d = rank - 1; d > 0; d--) {
      sum += index % sizes[d] * strides[d];
      index /= sizes[d];
    }
    return rank > 0 ? sum + index * strides[0] : 0;
  }
};

struct ReductionPlan {
  Axes kept, reduced;  // without inner
  int64_t inner = 1;   // the size of the last axis, contiguous
  bool inner_is_reduced = true;
};

// Checks the axes and y's shape, then collapses. An empty reduction is refused unless the op has a
// result for it.
inline voltaic_status plan_reduction(const voltaic_call* call, const char* op,
                                     bool empty_has_result, ReductionPlan& plan) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  const int64_t mask = index_attribute(call, 0, int64_t{1} << x.rank);
  if (mask < 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "%s: axes is %g, expected a set of the %d axes of x %s as bits", op,
                attribute(call, 0), x.rank, shape_text(x).text);
  int rank = 0;
  bool fits = true;
  for (int d = 0; d < x.rank; d++) {
    if (mask >> d & 1) continue;
    fits = fits && rank < y.rank && y.shape[rank] == x.shape[d];
    rank++;
  }
  if (!fits || rank != y.rank)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%s: y has shape %s, expected x's axes that are not reduced (x %s, axes 0x%x)", op,
                shape_text(y).text, shape_text(x).text, (unsigned)mask);
  if (x.elements == 0 && y.elements > 0 && !empty_has_result)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%s: x %s has no elements to take the largest of (axes 0x%x, y %s)", op,
                shape_text(x).text, (unsigned)mask, shape_text(y).text);
  struct {
    int64_t size, stride;
    bool reduced;
  } axes[VOLTAIC_MAX_RANK];
  int count = 0;  // innermost first
  int64_t stride = 1;
  for (int d = x.rank - 1; d >= 0; d--) {
    const bool reduced = mask >> d & 1;
    if (x.shape[d] == 1) continue;
    if (count > 0 && axes[count - 1].reduced == reduced)
      axes[count - 1].size *= x.shape[d];
    else
      axes[count++] = {x.shape[d], stride, reduced};
    stride *= x.shape[d];
  }
  if (count > 0) {
    plan.inner = axes[0].size;
    plan.inner_is_reduced = axes[0].reduced;
  }
  for (int i = count - 1; i > 0; i--) {
    Axes& to = axes[i].reduced ? plan.reduced : plan.kept;
    to.sizes[to.rank] = axes[i].size;
    to.strides[to.rank++] = axes[i].stride;
  }
  return VOLTAIC_OK;
}

// Checks argmax(x, y): y has x's shape without the last axis, which is not empty.
inline voltaic_status check_argmax(const voltaic_call* call) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  bool fits = x.rank > 0 && y.rank == x.rank - 1;
  for (int d = 0; fits && d < y.rank; d++) fits = y.shape[d] == x.shape[d];
  if (!fits)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "argmax: y has shape %s, expected that of x %s without its last axis",
                shape_text(y).text, shape_text(x).text);
  if (x.shape[x.rank - 1] == 0 && y.elements > 0)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "argmax: x %s has an empty last axis, expected one element at least",
                shape_text(x).text);
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
