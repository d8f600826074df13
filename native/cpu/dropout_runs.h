// Dropout of flat runs: reading a call's probability, site and random state, and applying them.
// Element i of the flat array uses number i%8 of block i/8, is draws where it is at or above
// round(probability * 65536), and is then scaled by 65536 / (65536 - threshold).
//
// Philox makes 8 kWidth numbers at a time, so kernels draw runs of up to a thousand elements, or
// the few rows that they work on together, and then apply what stays in the L1 cache.
#pragma once
#include "simd_philox.h"
#include "vector_loops.h"

namespace voltaic {
namespace {

struct DropoutSite {
  bool active;
  const int32_t* state;
  uint32_t site;
  Dropout dropout;
};

// Reads probability and site (attributes probability_index and the next) and the optional state
// tensor.
inline voltaic_status dropout_site(const voltaic_call* call, int state_index, int probability_index,
                                   DropoutSite* out) {
  const double probability = attribute(call, probability_index);
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "dropout probability is %g, expected a number from 0 to 1", probability);
  out->dropout = dropout_of(probability);
  out->active = out->dropout.threshold > 0;
  out->site = (uint32_t)whole(call, probability_index + 1);
  out->state = nullptr;
  if (!out->active) return VOLTAIC_OK;
  if (!present(call, state_index))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "dropout probability is %g but the random state was left out", probability);
  out->state = data<const int32_t>(call, state_index);
  return VOLTAIC_OK;
}

constexpr int64_t kDropoutRun = 1024;  // elements drawn together: 128 bytes of bits, or 2 KiB

// to[k] = dropout of from[k] for the elements first to first + count - 1 of the flat array; from
// and to point at the first of them.
template <class T>
VOLTAIC_INLINE void dropout_run(const DropoutSite& site, int64_t first, int64_t count,
                                const T* from, T* to) {
  if (!site.active) {
    memcpy(to, from, (size_t)count * sizeof(T));
    return;
  }
  const Dropout dropout = site.dropout;  // a copy that the stores cannot touch
  dropout_draw draws[dropout_buffer(kDropoutRun)];
  for (int64_t start = 0; start < count; start += kDropoutRun) {
    const int64_t end = smaller(start + kDropoutRun, count), place = (first + start) % 8;
    draw_dropout(site.state, site.site, first + start, end - start, site.dropout, draws);
    for_vectors(start, end, [&](int64_t k, int64_t lanes) VOLTAIC_INLINED {
      store_partial(to + k,
                    apply_dropout(load_partial(from + k, lanes), draws, place + k - start, dropout),
                    lanes);
    });
  }
}

// Dropout for a task's rows, a few at a time: narrow rows share the blocks that are drawn together.
class RowsDropout {
 public:
  // The task ends with element end - 1 of the flat array.
  VOLTAIC_INLINE RowsDropout(const DropoutSite& site, int64_t end) : site_(site), end_(end) {}

  // Draws for columns begin to end - 1 (kDropoutRun at most) of `rows` rows, whose first element is
  // number first of the flat array.
  template <int rows>
  VOLTAIC_INLINE void draw(int64_t first, int64_t width, int64_t begin, int64_t end) {
    static_assert(rows <= kMostRows);
    if (!site_.active) return;
    if (end - begin < width) {
      for (int row = 0; row < rows; row++) {
        const int64_t at = first + row * width + begin;
        draw_dropout(site_.state, site_.site, at, end - begin, site_.dropout,
                     draws_ + row * kOfRow);
        place_[row] = row * kOfRow * kDrawsPerUnit + at % 8 - begin;
      }
      return;
    }
    if (first + rows * width > drawn_end_) {
      const int64_t groups = larger(1, kDropoutRun / larger(rows * width, 1));
      drawn_begin_ = first;
      drawn_end_ = smaller(end_, first + groups * rows * width);
      draw_dropout(site_.state, site_.site, first, drawn_end_ - first, site_.dropout, draws_);
    }
    for (int row = 0; row < rows; row++)
      place_[row] = drawn_begin_ % 8 + (first - drawn_begin_) + row * width;
  }
  // The dropout of x, a vector of a row from this column on.
  VOLTAIC_INLINE vfloat apply(vfloat x, int row, int64_t column) const {
    return site_.active ? apply_dropout(x, draws_, place_[row] + column, site_.dropout) : x;
  }

 private:
  static constexpr int kMostRows = 4;
  static constexpr int64_t kOfRow = dropout_buffer(kDropoutRun);
  const DropoutSite site_;
  const int64_t end_;
  int64_t drawn_begin_ = 0, drawn_end_ = 0, place_[kMostRows] = {};
  dropout_draw draws_[kMostRows * kOfRow];
};

}  // namespace
}  // namespace voltaic
