// Loops over runs of numbers a vector at a time, with the last, partial vector outside of the loop:
// the loop itself then holds no call and keeps its constants in registers.
#pragma once
#include "kernel.h"

namespace voltaic {
namespace {

// body(i, lanes) for i = begin, begin + kWidth, ... below end; lanes is kWidth but in the last
// vector.
template <class Body>
VOLTAIC_INLINE void for_vectors(int64_t begin, int64_t end, Body&& body) {
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) body(i, (int64_t)kWidth);
  if (i < end) body(i, end - i);
}

// For sums: body(i, lanes, chain) from 0 to count, where chain 0 to 3 says which of four
// independent sums a vector goes to, so that additions need not wait for each other.
template <class Body>
VOLTAIC_INLINE void for_summed_vectors(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + 4 * kWidth <= count; i += 4 * kWidth) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; chain++) body(i + chain * kWidth, (int64_t)kWidth, chain);
  }
  for_vectors(i, count, [&](int64_t at, int64_t lanes) { body(at, lanes, 0); });
}
VOLTAIC_INLINE float add_chains(const vfloat (&sums)[4]) {
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace
}  // namespace voltaic
