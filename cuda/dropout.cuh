// Dropout of flat arrays: element i uses number i % 8 of block i / 8, is kept where it is at or
// above round(probability * 65536), and is then scaled by 65536 / (65536 - threshold).
#pragma once
#include "../native/engine/philox.h"
#include "kernel.cuh"

namespace voltaic {
namespace {

struct DropoutSite {
  const int32_t* state;  // null: no dropout
  uint32_t site, threshold;
  float scale;
};

// Reads probability and site (attributes probability_index and the next) and the optional state
// tensor.
inline voltaic_status dropout_site(const voltaic_call* call, int state_index, int probability_index,
                                   DropoutSite* out) {
  const double probability = attribute(call, probability_index);
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "dropout probability is %g, expected a number from 0 to 1", probability);
  const uint32_t threshold = voltaic_dropout_threshold(probability);
  *out = {nullptr, static_cast<uint32_t>(whole(call, probability_index + 1)), threshold,
          threshold < 65536 ? 65536.0f / static_cast<float>(65536 - threshold) : 0.0f};
  if (threshold == 0) return VOLTAIC_OK;
  if (!present(call, state_index))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "dropout probability is %g but the random state was left out", probability);
  out->state = data<const int32_t>(call, state_index);
  return VOLTAIC_OK;
}

// Which of elements 8 block to 8 block + 7 are kept: bit i for element 8 block + i.
__device__ __forceinline__ uint32_t kept_of_block(const DropoutSite& dropout, uint64_t block) {
  const voltaic_random4 numbers = voltaic_random_block(dropout.state, dropout.site, block);
  uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < 8; i++)
    kept |= static_cast<uint32_t>(voltaic_random16(&numbers, i) >= dropout.threshold) << i;
  return kept;
}
// One element's factor: 0, or the scale. kept_of_block() is the fast way where a thread has eight.
__device__ __forceinline__ float dropout_factor(const DropoutSite& dropout, uint64_t element) {
  return kept_of_block(dropout, element / 8) >> (element % 8) & 1u ? dropout.scale : 0.0f;
}

}  // namespace
}  // namespace voltaic
