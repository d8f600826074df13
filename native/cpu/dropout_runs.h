// Dropout of flat runs: reading a call's probability, site and random state, and applying them.
// Element i of the flat array uses number i%8 of block i/8, is kept where it is at or above
// round(probability * 65536), and is then scaled by 65536 / (65536 - threshold).
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

// to[k] = finish(dropout of from[k], k) for the elements first to first + count - 1 of the flat
// array; from and to point at the first of them.
template <class From, class To, class Finish>
VOLTAIC_INLINE void dropout_run(const DropoutSite& site, int64_t first, int64_t count,
                                const From* from, To* to, Finish&& finish) {
  constexpr int64_t kRun = 1024;
  uint16_t buffer[dropout_buffer(kRun)];
  for (int64_t start = 0; start < count; start += kRun) {
    const int64_t end = smaller(start + kRun, count);
    const uint16_t* numbers =
        site.active ? dropout_numbers(site.state, site.site, first + start, end - start, buffer)
                    : nullptr;
    for_vectors(start, end, [&](int64_t k, int64_t lanes) {
      vfloat x = load_partial(from + k, lanes);
      if (site.active) x = dropout_apply(x, numbers + (k - start), site.dropout);
      store_partial(to + k, finish(x, k, lanes), lanes);
    });
  }
}

// Rows whose dropout is drawn together: Philox makes 8 kWidth numbers at a time, more than a narrow
// row needs.
inline int64_t rows_of_group(int64_t width) { return larger(1, 1024 / larger(width, 1)); }

}  // namespace
}  // namespace voltaic
