// Ragged batches: the check of a call's offsets, and lane masks for the ends of rows.
#pragma once
#include "kernel.h"

namespace voltaic {
namespace {

// Tensor number index holds one offset more than there are sequences: from 0 to count, never down.
inline voltaic_status check_offsets(const voltaic_call* call, int index, int64_t count) {
  const int64_t bounds = tensor(call, index).elements;
  const int32_t* offsets = data<int32_t>(call, index);
  if (bounds == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "offsets are empty; expected one more than there are sequences, the first 0");
  if (offsets[0] != 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "offsets[0] is %d; expected 0", offsets[0]);
  for (int64_t i = 1; i < bounds; i++)
    if (offsets[i] < offsets[i - 1])
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "offsets[%lld] is %d, below offsets[%lld] = %d; expected offsets that never fall",
                  (long long)i, offsets[i], (long long)i - 1, offsets[i - 1]);
  if (offsets[bounds - 1] != count)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "the last offset is %d; expected the number of tokens, %lld", offsets[bounds - 1],
                (long long)count);
  return VOLTAIC_OK;
}

VOLTAIC_INLINE vint lane_numbers() {
  vint lanes;
  for (int l = 0; l < kWidth; l++) lanes[l] = l;
  return lanes;
}
// All ones in the first n lanes (n may be 0 or less, or more than a vector has).
VOLTAIC_INLINE vint first_lanes(int64_t n) { return lane_numbers() < (int32_t)smaller(n, kWidth); }
// The first n (at least 1) lanes; other, a value that does not count, in the rest.
template <class T>
VOLTAIC_INLINE vfloat load_or(const T* from, int64_t n, float other) {
  if (n >= kWidth) return load(from);
  return select(first_lanes(n), load_partial(from, n), splat(other));
}

}  // namespace
}  // namespace voltaic
