// NumPy broadcasting for element-wise kernels: from the shapes of inputs and result to blocks of
// plain arrays.
//
// The result's axes are collapsed: axes of size 1 go, and neighbours that every input walks alike
// become one. The result is then cut into blocks of at most kBlock elements, and an op sees nothing
// but contiguous arrays: an input of the result's shape, or a long row of one, is passed where it
// lies; a scalar is spread once a task; anything else is spread into a block that stays in the L1
// cache. So each op needs one loop, not one for each kind of broadcasting, and it costs one L1
// round trip for a broadcast operand, which the larger operand's way from memory hides.
#pragma once
#include "../engine/shapes.h"
#include "kernel.h"

namespace voltaic {
namespace {

constexpr int kMostInputs = 3;
constexpr int64_t kBlock = 1024;          // elements: three inputs of 4 bytes take 12 KB of L1
constexpr int64_t kLongRow = 256;         // rows from this length on are passed where they lie
constexpr int64_t kTaskElements = 16384;  // some 10 us of work

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

// Where element `at` of the result lies in an input; coordinates (when given) gets its place along
// each axis.
inline int64_t input_offset(const Broadcast& plan, const BroadcastInput& input, int64_t at,
                            int64_t* coordinates = nullptr) {
  int64_t offset = 0;
  for (int d = 0; d < plan.rank; d++) {
    const int64_t coordinate = at % plan.sizes[d];
    at /= plan.sizes[d];
    offset += coordinate * input.strides[d];
    if (coordinates) coordinates[d] = coordinate;
  }
  return offset;
}

// Writes the input's values for elements at .. at + n - 1 of the result.
template <class T>
inline void spread(const Broadcast& plan, const BroadcastInput& input, int64_t at, int64_t n,
                   T* to) {
  const T* from = (const T*)input.data;
  int64_t coordinates[VOLTAIC_MAX_RANK];
  int64_t offset = input_offset(plan, input, at, coordinates);
  for (;;) {
    const int64_t run = smaller(n, plan.sizes[0] - coordinates[0]);
    if (input.strides[0] == 0) {
      const T value = from[offset];
      for (int64_t i = 0; i < run; i++) to[i] = value;
    } else {
      for (int64_t i = 0; i < run; i++) to[i] = from[offset + i];
    }
    to += run;
    n -= run;
    if (n <= 0) return;
    offset -= coordinates[0] * input.strides[0];
    coordinates[0] = 0;
    for (int d = 1; d < plan.rank; d++) {
      offset += input.strides[d];
      if (++coordinates[d] < plan.sizes[d]) break;
      offset -= plan.sizes[d] * input.strides[d];
      coordinates[d] = 0;
    }
  }
}

inline void spread_any(const Broadcast& plan, const BroadcastInput& input, int64_t at, int64_t n,
                       void* to) {
  with_element_size(input.size, [&](auto* kind) {
    spread(plan, input, at, n, (decltype(kind))to);
    return VOLTAIC_OK;
  });
}

// An op on n contiguous elements of each input.
typedef void (*BlockFunction)(const void* const* inputs, void* to, int64_t n);

inline void for_each_block(const Broadcast& plan, BlockFunction function, void* result,
                           int64_t result_size) {
  const int64_t row = plan.sizes[0];
  parallel_ranges(plan.elements, kTaskElements, [&](int64_t begin, int64_t end) {
    alignas(64) char buffers[kMostInputs][kBlock * 4];
    const void* inputs[kMostInputs] = {};
    for (int i = 0; i < plan.inputs; i++) {
      if (!plan.input[i].scalar) continue;
      spread_any(plan, plan.input[i], begin, smaller(kBlock, end - begin), buffers[i]);
      inputs[i] = buffers[i];
    }
    for (int64_t at = begin, n; at < end; at += n) {
      n = smaller(kBlock, end - at);
      if (row >= kLongRow) n = smaller(n, row - at % row);
      for (int i = 0; i < plan.inputs; i++) {
        const BroadcastInput& input = plan.input[i];
        if (input.scalar) continue;
        if (input.as_result) {
          inputs[i] = input.data + at * input.size;
        } else if (row >= kLongRow && input.strides[0] == 1) {
          inputs[i] = input.data + input_offset(plan, input, at) * input.size;
        } else {
          spread_any(plan, input, at, n, buffers[i]);
          inputs[i] = buffers[i];
        }
      }
      function(inputs, (char*)result + at * result_size, n);
    }
  });
}

}  // namespace
}  // namespace voltaic
