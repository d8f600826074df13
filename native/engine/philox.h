// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Every random number of Voltaic is a pure function of (seed, step, micro-batch, site, block):
// nothing is stored, any thread may ask for any block, and the CPU and CUDA draw the same bits.
//   key     = (seed low, seed high)
//   counter = (block low 32, block high 16 | micro-batch << 16, site, step)
// The state tensor that kernels read is int32[4] = { seed low, seed high, step, micro-batch }.
#ifndef VOLTAIC_PHILOX_H
#define VOLTAIC_PHILOX_H

#include <stdint.h>

#if defined(__CUDACC__)
#define VOLTAIC_PHILOX_FUNCTION __host__ __device__ __forceinline__
#else
#define VOLTAIC_PHILOX_FUNCTION static inline
#endif

typedef struct voltaic_random4 {
  uint32_t word[4];
} voltaic_random4;

VOLTAIC_PHILOX_FUNCTION voltaic_random4 voltaic_philox(uint32_t key0, uint32_t key1, uint32_t c0,
                                                       uint32_t c1, uint32_t c2, uint32_t c3) {
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = (uint64_t)0xD2511F53u * c0;
    const uint64_t product1 = (uint64_t)0xCD9E8D57u * c2;
    const uint32_t next0 = (uint32_t)(product1 >> 32) ^ c1 ^ key0;
    const uint32_t next2 = (uint32_t)(product0 >> 32) ^ c3 ^ key1;
    c1 = (uint32_t)product1;
    c3 = (uint32_t)product0;
    c0 = next0;
    c2 = next2;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  const voltaic_random4 result = {{c0, c1, c2, c3}};
  return result;
}

// The four words of a block. state: int32[4], see above.
VOLTAIC_PHILOX_FUNCTION voltaic_random4 voltaic_random_block(const int32_t* state, uint32_t site,
                                                             uint64_t block) {
  return voltaic_philox((uint32_t)state[0], (uint32_t)state[1], (uint32_t)block,
                        (uint32_t)(block >> 32 & 0xffffu) | (uint32_t)state[3] << 16, site,
                        (uint32_t)state[2]);
}

// Number i (0..7) of the eight 16-bit numbers of a block: word i/2, low half first.
VOLTAIC_PHILOX_FUNCTION uint32_t voltaic_random16(const voltaic_random4* block, int i) {
  return block->word[i >> 1] >> (16 * (i & 1)) & 0xffffu;
}

// Uniform in (0, 1): the upper 23 bits, shifted by half a step so that 0 and 1 never come; exact in
// fp32. Where words are used, block b serves elements 4b to 4b+3.
VOLTAIC_PHILOX_FUNCTION float voltaic_uniform(uint32_t word) {
  return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

// Dropout keeps an element where its 16-bit number is at or above this threshold.
VOLTAIC_PHILOX_FUNCTION uint32_t voltaic_dropout_threshold(double probability) {
  return (uint32_t)(probability * 65536.0 + 0.5);
}

// The block of attention's dropout for score-matrix tile (i, j) of a sequence and head, call (r,
// c), r in 0..7, c in 0..3. It serves rows r, r+8 and columns 2c, 2c+1, 2c+8, 2c+9 of the 16 x 16
// tile, rows outermost: number 4*(row >= 8) + {0: 2c, 1: 2c+1, 2: 2c+8, 3: 2c+9}.
VOLTAIC_PHILOX_FUNCTION uint64_t voltaic_attention_block(uint64_t sequence_times_heads_plus_head,
                                                         uint32_t i, uint32_t j, uint32_t r,
                                                         uint32_t c) {
  return sequence_times_heads_plus_head << 29 | (uint64_t)i << 17 | (uint64_t)j << 5 | r << 2 | c;
}

#endif
