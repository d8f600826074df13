// NumPy broadcasting for element-wise kernels: from the shapes of inputs and result to blocks of
// plain arrays.
//
// The result, its axes collapsed by the plan, is cut into blocks of at most kBlock elements, and an
// op sees nothing but contiguous arrays: an input of the result's shape, or a long row of one, is
// passed where it lies; a scalar is spread once a task; anything else is spread into a block that
// stays in the L1 cache. So each op needs one loop, not one for each kind of broadcasting, and it
// costs one L1 round trip for a broadcast operand, which the larger operand's way from memory
// hides.
#pragma once
#include "../engine/broadcast_plan.h"
#include "kernel.h"

namespace voltaic {
namespace {

constexpr int64_t kBlock = 1024;          // elements: three inputs of 4 bytes take 12 KB of L1
constexpr int64_t kLongRow = 256;         // rows from this length on are passed where they lie
constexpr int64_t kTaskElements = 16384;  // some 10 us of work

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
