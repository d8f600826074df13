// Dropout of attention's probabilities: 16-bit numbers keyed by the place in the sequence's score
// matrix (native/engine/philox.h), so that forward, backward, every tile size and the CPU drop the
// same ones.
//
// A call (r, c) of a 16 x 16 tile serves rows r, r + 8 and columns 2c, 2c + 1, 2c + 8, 2c + 9: what
// lane 4 r + c holds of a pair of accumulator fragments, in the order of the words. Where the tile
// stands transposed in the registers (keys as rows), lanes exchange the eight bits instead.
#pragma once
#include "../native/engine/philox.h"
#include "attention_work.cuh"

namespace voltaic {
namespace {

// The numbers of one sequence and head.
struct AttentionNumbers {
  uint32_t key_low, key_high, site, step;
  uint32_t block_low, block_high;  // of tile (0, 0), call (0, 0)
  uint32_t threshold;              // in the upper 16 bits

  __device__ __forceinline__ AttentionNumbers(const Attention& a, const AttentionWork& work)
      : key_low(0),
        key_high(0),
        site(a.dropout.site),
        step(0),
        block_low(0),
        block_high(0),
        threshold(a.dropout.threshold << 16) {
    if (a.dropout.state == nullptr) return;
    key_low = static_cast<uint32_t>(a.dropout.state[0]);
    key_high = static_cast<uint32_t>(a.dropout.state[1]);
    step = static_cast<uint32_t>(a.dropout.state[2]);
    const uint64_t block = voltaic_attention_block(
        static_cast<uint64_t>(work.sequence) * static_cast<uint64_t>(a.heads) +
            static_cast<uint64_t>(work.head),
        0, 0, 0, 0);
    block_low = static_cast<uint32_t>(block);
    block_high = (static_cast<uint32_t>(block >> 32) & 0xffffu) |
                 static_cast<uint32_t>(a.dropout.state[3]) << 16;
  }

  // Call number `call` = 4 r + c of tile (i, j).
  __device__ __forceinline__ voltaic_random4 of_tile(int i, int j, int call) const {
    const uint32_t block = static_cast<uint32_t>(i) << 17 | static_cast<uint32_t>(j) << 5 |
                           static_cast<uint32_t>(call);
    return voltaic_philox(key_low, key_high, block_low | block, block_high, site, step);
  }
  // The two numbers of a word.
  __device__ __forceinline__ bool keeps_low(uint32_t word) const { return word << 16 >= threshold; }
  __device__ __forceinline__ bool keeps_high(uint32_t word) const { return word >= threshold; }
  // Bit i: whether number i of the call is kept.
  __device__ __forceinline__ uint32_t kept(int i, int j, int call) const {
    const voltaic_random4 numbers = of_tile(i, j, call);
    uint32_t bits = 0;
#pragma unroll
    for (int w = 0; w < 4; w++)
      bits |= static_cast<uint32_t>(keeps_low(numbers.word[w])) << (2 * w) |
              static_cast<uint32_t>(keeps_high(numbers.word[w])) << (2 * w + 1);
    return bits;
  }
};

}  // namespace
}  // namespace voltaic
