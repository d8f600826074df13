// Philox4x32-10 for kWidth blocks at once, bit for bit as native/engine/philox.h, and dropout on
// top of it.
//
// Blocks 2l and 2l+1 share 64-bit lane l of an even and an odd half: a 32 x 32 -> 64 bit product
// then leaves its high word one shift away and its low word in place, so a round is two multiplies,
// two shifts and four exclusive ors a half. About 45 instructions per 16 numbers on AVX2.
#pragma once
#include "../engine/philox.h"
#include "simd.h"

namespace voltaic {
namespace {

typedef uint64_t vlong __attribute__((vector_size(4 * VOLTAIC_WIDTH)));

// The low halves of the 64-bit lanes of x times multiplier (also held in low halves), all 64 bits.
VOLTAIC_INLINE vlong multiply_low_halves(vlong x, vlong multiplier) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vlong)_mm512_mul_epu32((__m512i)x, (__m512i)multiplier);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vlong)_mm256_mul_epu32((__m256i)x, (__m256i)multiplier);
#elif defined(__SSE2__) && VOLTAIC_WIDTH == 4
  return (vlong)_mm_mul_epu32((__m128i)x, (__m128i)multiplier);
#elif defined(__aarch64__) && VOLTAIC_WIDTH == 4
  return (vlong)vmull_u32(vmovn_u64((uint64x2_t)x), vmovn_u64((uint64x2_t)multiplier));
#else
  return (x & 0xffffffffu) * (multiplier & 0xffffffffu);
#endif
}

// Words 0 to 3 of the blocks first_block to first_block + kWidth - 1 (lane l: block first_block +
// l).
VOLTAIC_INLINE void philox_blocks(const int32_t* state, uint32_t site, uint64_t first_block,
                                  vuint out[4]) {
  vlong c0[2], c1[2], c2[2], c3[2];
  for (int odd = 0; odd < 2; odd++) {
    vlong block;
    for (int l = 0; l < kWidth / 2; l++) block[l] = first_block + 2 * (uint64_t)l + (uint64_t)odd;
    c0[odd] = block;
    c1[odd] = (block >> 32 & 0xffffu) | (uint64_t)((uint32_t)state[3] << 16);
    c2[odd] = vlong{} + (uint64_t)site;
    c3[odd] = vlong{} + (uint64_t)(uint32_t)state[2];
  }
  uint32_t key0 = (uint32_t)state[0], key1 = (uint32_t)state[1];
  const vlong multiplier0 = vlong{} + 0xD2511F53u, multiplier1 = vlong{} + 0xCD9E8D57u;
  for (int round = 0; round < 10; round++) {
    for (int odd = 0; odd < 2;
         odd++) {  // the upper halves of the lanes hold leftovers that nothing reads
      const vlong product0 = multiply_low_halves(c0[odd], multiplier0);
      const vlong product1 = multiply_low_halves(c2[odd], multiplier1);
      c0[odd] = (product1 >> 32) ^ c1[odd] ^ (vlong{} + (uint64_t)key0);
      c2[odd] = (product0 >> 32) ^ c3[odd] ^ (vlong{} + (uint64_t)key1);
      c1[odd] = product1;
      c3[odd] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  out[0] = (vuint)((c0[0] & 0xffffffffu) | c0[1] << 32);
  out[1] = (vuint)((c1[0] & 0xffffffffu) | c1[1] << 32);
  out[2] = (vuint)((c2[0] & 0xffffffffu) | c2[1] << 32);
  out[3] = (vuint)((c3[0] & 0xffffffffu) | c3[1] << 32);
}

// The four words of each block side by side: to[4 * l + w] = words[w][l]. Read as 16-bit numbers,
// to holds the eight numbers of each block in order (little endian).
VOLTAIC_INLINE void store_blocks(uint32_t* to, const vuint words[4]) {
#if (defined(__AVX512F__) && VOLTAIC_WIDTH == 16) || (defined(__AVX2__) && VOLTAIC_WIDTH == 8) || \
    (defined(__SSE2__) && VOLTAIC_WIDTH == 4)
#if VOLTAIC_WIDTH == 16
  const __m512i ab = _mm512_unpacklo_epi32((__m512i)words[0], (__m512i)words[1]);
  const __m512i AB = _mm512_unpackhi_epi32((__m512i)words[0], (__m512i)words[1]);
  const __m512i cd = _mm512_unpacklo_epi32((__m512i)words[2], (__m512i)words[3]);
  const __m512i CD = _mm512_unpackhi_epi32((__m512i)words[2], (__m512i)words[3]);
  const __m512i quarter[4] = {_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd),
                              _mm512_unpacklo_epi64(AB, CD), _mm512_unpackhi_epi64(AB, CD)};
#elif VOLTAIC_WIDTH == 8
  const __m256i ab = _mm256_unpacklo_epi32((__m256i)words[0], (__m256i)words[1]);
  const __m256i AB = _mm256_unpackhi_epi32((__m256i)words[0], (__m256i)words[1]);
  const __m256i cd = _mm256_unpacklo_epi32((__m256i)words[2], (__m256i)words[3]);
  const __m256i CD = _mm256_unpackhi_epi32((__m256i)words[2], (__m256i)words[3]);
  const __m256i quarter[4] = {_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd),
                              _mm256_unpacklo_epi64(AB, CD), _mm256_unpackhi_epi64(AB, CD)};
#else
  const __m128i ab = _mm_unpacklo_epi32((__m128i)words[0], (__m128i)words[1]);
  const __m128i AB = _mm_unpackhi_epi32((__m128i)words[0], (__m128i)words[1]);
  const __m128i cd = _mm_unpacklo_epi32((__m128i)words[2], (__m128i)words[3]);
  const __m128i CD = _mm_unpackhi_epi32((__m128i)words[2], (__m128i)words[3]);
  const __m128i quarter[4] = {_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd),
                              _mm_unpacklo_epi64(AB, CD), _mm_unpackhi_epi64(AB, CD)};
#endif
  // 128-bit part p of quarter[q] is block 4 p + q.
  for (int q = 0; q < 4; q++)
    for (int part = 0; part < kWidth / 4; part++)
      memcpy(to + 4 * (4 * part + q), (const char*)&quarter[q] + 16 * part, 16);
#else
  for (int l = 0; l < kWidth; l++)
    for (int w = 0; w < 4; w++) to[4 * l + w] = words[w][l];
#endif
}

// As voltaic_uniform: in (0, 1), from the upper 23 bits.
VOLTAIC_INLINE vfloat uniform_from_words(vuint words) {
  return (to_vfloat((vint)(words >> 9)) + 0.5f) * (1.0f / 8388608.0f);
}

// ---- dropout of a flat array: element i uses block i/8, number i%8
// Dropout as a call describes it: keep where the 16-bit number is at or above threshold, and scale
// what is kept.
struct Dropout {
  int32_t threshold;
  float scale;
};
inline Dropout dropout_of(double probability) {
  const uint32_t threshold = voltaic_dropout_threshold(probability);
  return {(int32_t)threshold, threshold >= 65536 ? 0.0f : 65536.0f / (float)(65536 - threshold)};
}

// How many uint16_t the buffer of dropout_numbers needs for a run of count elements.
constexpr int64_t dropout_buffer(int64_t count) { return count + 8 + 9 * kWidth; }

// Fills buffer with the numbers of elements first to first + count - 1 of the flat array. The
// number of element first + k is at result[k]; whole vectors may be loaded up to the end of the run
// and past it.
VOLTAIC_INLINE const uint16_t* dropout_numbers(const int32_t* state, uint32_t site, int64_t first,
                                               int64_t count, uint16_t* buffer) {
  const int64_t begin = first / 8, end = (first + count + 7) / 8;
  for (int64_t block = begin; block < end; block += kWidth) {
    vuint words[4];
    philox_blocks(state, site, (uint64_t)block, words);
    uint32_t stored[4 * kWidth];
    store_blocks(stored, words);
    memcpy(buffer + 8 * (block - begin), stored, sizeof stored);
  }
  return buffer + first % 8;
}

// All ones in the lanes that are kept, for the kWidth elements whose numbers start at numbers.
VOLTAIC_INLINE vint dropout_keep(const uint16_t* numbers, int32_t threshold) {
  return __builtin_convertvector(*(const vhalf_unaligned*)numbers, vint) >= threshold;
}
// x scaled where kept, 0 elsewhere.
VOLTAIC_INLINE vfloat dropout_apply(vfloat x, const uint16_t* numbers, Dropout dropout) {
  return select(dropout_keep(numbers, dropout.threshold), x * dropout.scale, splat(0.0f));
}

}  // namespace
}  // namespace voltaic
