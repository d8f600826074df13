// Packing for the fp32 microkernel: panels of a few rows of op(a), or columns of op(b), laid out so
// that the microkernel reads them front to back: panel[k][i] for i < height, in fp32, anything
// beyond the matrix.
//
// A panel's elements stand in memory either adjacent for one k (op(a) of a transposed a, plain b)
// and are copied, or adjacent along k (plain a, transposed b) and are transposed in registers, a
// square of kWidth at a time. bf16 becomes fp32 on the way.
#pragma once
#include "kernel.h"
#include "transpose.h"

namespace voltaic {
namespace {

// Copies count floats, the largest power of two first.
template <int count>
VOLTAIC_INLINE void copy_row(float* to, const float* from) {
  if constexpr (count >= kWidth) {
    store(to, load(from));
    copy_row<count - kWidth>(to + kWidth, from + kWidth);
  } else if constexpr (count > 0) {
    constexpr int piece = count >= 8 ? 8 : count >= 4 ? 4 : count >= 2 ? 2 : 1;
    typedef float part __attribute__((vector_size(4 * piece), aligned(4), may_alias));
    *(part*)to = *(const part*)from;
    copy_row<count - piece>(to + piece, from + piece);
  }
}

// Rows that copying asks for ahead: far apart in memory, they have no prefetcher of their own.
constexpr int64_t kRowsAhead = 8;

// panel[k][i] = from[k * stride + i], i < count. Whole fp32 rows are copied by the widest pieces
// that their height is made of, so that no store crosses into the next row's place. On Zen 4, from
// rows a page apart, four k's of all panels at a time: 0.5 cycles an element, where whole vectors
// and 32 k's took 1.4 (16 lanes) and 2.6 (8).
template <int height>
inline void pack_copied(float* panel, const float* from, int64_t stride, int count, int64_t depth) {
  if (count == height) {
    for (int64_t k = 0; k < depth; k++, from += stride, panel += height) {
      __builtin_prefetch(from + kRowsAhead * stride);
      copy_row<height>(panel, from);
    }
  } else {
    for (int64_t k = 0; k < depth; k++, from += stride, panel += height)
      memcpy(panel, from, count * sizeof(float));
  }
}
// bf16: where the height is no multiple of a vector, each k's store runs over into the next k's
// place, which is stored after it. Loads take whole vectors as long as these end inside of the
// matrix: what they bring beyond count stays in rows or columns of a tile that nobody stores.
template <int height>
inline void pack_copied(float* panel, const bfloat16* from, int64_t stride, int count,
                        int64_t depth) {
  for (int64_t k = 0; k < depth; k++, from += stride, panel += height) {
    __builtin_prefetch(from + kRowsAhead * stride);
#pragma GCC unroll 4
    for (int i = 0; i < height; i += kWidth) {
      const int64_t held = count - i, to_the_end = (depth - 1 - k) * stride + held;
      const vfloat x = held > 0 && to_the_end >= kWidth ? load(from + i)
                                                        : load_partial(from + i, larger(0, held));
      if (height - i >= kWidth || k + 1 < depth) {
        store(panel + i, x);
      } else {
        store_partial(panel + i, x, height - i);
      }
    }
  }
}

// panel[k][i] = from[i * stride + k], i < count, a square of whole vectors at a time. (Squares of 8
// lanes in units of 16 took 0.26 cycles an element instead of 0.31 for 32 columns, but 0.57 instead
// of 0.33 for 14 rows, and twice as long where rows stand a page apart.)
template <int height, class F>
inline void pack_transposed(float* panel, const F* from, int64_t stride, int count, int64_t depth) {
  static_assert(height % kWidth == 0 || height < kWidth);
  constexpr int groups = height < kWidth ? 1 : height / kWidth;
  for (int64_t k = 0; k < depth; k += kWidth) {
    const int64_t steps = smaller(kWidth, depth - k);
    for (int group = 0; group < groups; group++) {
      const int first = group * kWidth;
      vfloat square[kWidth];
      for (int i = 0; i < kWidth; i++)
        square[i] =
            first + i < count ? load_partial(from + (first + i) * stride + k, steps) : vfloat{};
      transpose(square);
      float* to = panel + k * height + first;
      if (steps == kWidth && (height >= kWidth || k + kWidth < depth)) {
#pragma GCC unroll 16
        for (int j = 0; j < kWidth; j++) store(to + j * height, square[j]);
      } else {
        for (int j = 0; j < steps; j++) store_partial(to + j * height, square[j], height - first);
      }
    }
  }
}

}  // namespace
}  // namespace voltaic
