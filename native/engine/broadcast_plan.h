// NumPy broadcasting, planned from the shapes of inputs and result; both backends use it.
//
// The result's axes are collapsed: axes of size 1 go, and neighbours that every input walks alike
// become one.
#pragma once
#include "shapes.h"

namespace voltaic {
namespace {

constexpr int kMostInputs = 3;

struct BroadcastInput {
  const char* data;
  int64_t size;                       // bytes of an element
  int64_t strides[VOLTAIC_MAX_RANK];  // in elements, innermost first; 0 where it is repeated
  bool as_result, scalar;
};

struct Broadcast {
  int rank = 0;                     // at least 1
  int64_t sizes[VOLTAIC_MAX_RANK];  // of the collapsed result, innermost first
  int64_t elements = 0;
  int inputs = 0;
  BroadcastInput input[kMostInputs];
};

inline bool broadcasts_to(const voltaic_tensor& from, const voltaic_tensor& to) {
  if (from.rank > to.rank) return false;
  for (int d = 0; d < from.rank; d++) {
    const int64_t size = from.shape[d];
    if (size != 1 && size != to.shape[d + to.rank - from.rank]) return false;
  }
  return true;
}

// Plans the call's first `inputs` tensors to broadcast to the one after them. names: one letter or
// word for each.
inline voltaic_status plan_broadcast(const voltaic_call* call, const char* op, int inputs,
                                     const char* const* names, Broadcast& plan) {
  const voltaic_tensor& result = tensor(call, inputs);
  for (int i = 0; i < inputs; i++) {
    if (broadcasts_to(tensor(call, i), result)) continue;
    char all[3 * sizeof(ShapeText)];
    int used = 0;
    for (int j = 0; j < inputs; j++)
      used += snprintf(all + used, sizeof all - (size_t)used, "%s%s %s", j ? ", " : "", names[j],
                       shape_text(tensor(call, j)).text);
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%s: %s does not broadcast to %s: got %s, and %s %s as the result", op, names[i],
                names[inputs], all, names[inputs], shape_text(result).text);
  }
  plan.elements = result.elements;
  plan.inputs = inputs;
  int64_t contiguous[kMostInputs] = {1, 1, 1};
  for (int d = result.rank - 1; d >= 0; d--) {
    const int64_t size = result.shape[d];
    int64_t strides[kMostInputs];
    bool merge = plan.rank > 0;
    for (int i = 0; i < inputs; i++) {
      const voltaic_tensor& from = tensor(call, i);
      const int axis = d - (result.rank - from.rank);
      const bool repeated = axis < 0 || from.shape[axis] != size;
      strides[i] = repeated ? 0 : contiguous[i];
      if (!repeated) contiguous[i] *= size;
      if (merge)
        merge = strides[i] == plan.input[i].strides[plan.rank - 1] * plan.sizes[plan.rank - 1];
    }
    if (size == 1) continue;
    if (merge) {
      plan.sizes[plan.rank - 1] *= size;
    } else {
      for (int i = 0; i < inputs; i++) plan.input[i].strides[plan.rank] = strides[i];
      plan.sizes[plan.rank++] = size;
    }
  }
  if (plan.rank == 0) {
    plan.rank = 1;
    plan.sizes[0] = 1;
    for (int i = 0; i < inputs; i++) plan.input[i].strides[0] = 0;
  }
  for (int i = 0; i < inputs; i++) {
    BroadcastInput& input = plan.input[i];
    input.data = data<const char>(call, i);
    input.size = element_size(tensor(call, i).dtype);
    input.scalar = tensor(call, i).elements == 1;
    input.as_result = true;
    int64_t stride = 1;
    for (int d = 0; d < plan.rank; d++) {
      input.as_result = input.as_result && input.strides[d] == stride;
      stride *= plan.sizes[d];
    }
  }
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
