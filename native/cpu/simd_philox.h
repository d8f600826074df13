// Philox4x32-10 for kWidth blocks at once, bit for bit as native/engine/philox.h, and dropout on
// top of it.
//
// Blocks lie in the 64-bit lanes of two halves: a 32 x 32 -> 64 bit product then leaves its high
// word one shuffle away and its low word in place, so a round is two multiplies, two shuffles and
// two exclusive ors of three (four, below AVX-512) a half. Shuffles rather than shifts, which would
// wait for the multiplier's port on Intel. Of the first two rounds, half are the same for all
// blocks and done in scalars.
//
// Zen 4, AVX-512: 78 cycles for the 64 words of 16 blocks, which are 128 numbers of dropout (0.17
// ns each; 0.28 with AVX2).
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
// The high halves of the 64-bit lanes, in the low halves; the high ones hold anything.
VOLTAIC_INLINE vlong high_halves(vlong x) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vlong)_mm512_shuffle_epi32((__m512i)x, (_MM_PERM_ENUM)0xf5);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vlong)_mm256_shuffle_epi32((__m256i)x, 0xf5);
#elif defined(__SSE2__) && VOLTAIC_WIDTH == 4
  return (vlong)_mm_shuffle_epi32((__m128i)x, 0xf5);
#else
  return x >> 32;
#endif
}
// low's low halves below, high's low halves above.
VOLTAIC_INLINE vlong join_low_halves(vlong low, vlong high) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vlong)_mm512_mask_shuffle_epi32((__m512i)low, 0xaaaa, (__m512i)high, (_MM_PERM_ENUM)0xa0);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return (vlong)_mm256_blend_epi32((__m256i)low, _mm256_slli_epi64((__m256i)high, 32), 0xaa);
#else
  return (low & 0xffffffffu) | high << 32;
#endif
}

// How blocks lie in lanes. kInOrder: lane l holds block l of the run. kForStore: lane 4 p + q holds
// block kWidth / 4 q + p, which store_in_order turns into the blocks' own order without a further
// shuffle.
enum WordOrder { kInOrder, kForStore };
constexpr int block_of_lane(WordOrder order, int l) {
  return order == kInOrder ? l : kWidth / 4 * (l % 4) + l / 4;
}

// What a run of blocks with the same upper 16 bits shares, worked out once: the first two rounds of
// the words that do not depend on the lower 32, joined with the keys that they meet.
struct PhiloxRun {
  uint32_t seed0, seed1, first_c2, second_c0, second_c2, second_c3;
};
VOLTAIC_INLINE PhiloxRun philox_run(const int32_t* state, uint32_t site, uint64_t first_block) {
  const uint32_t seed0 = (uint32_t)state[0], seed1 = (uint32_t)state[1];
  const uint32_t upper = (uint32_t)(first_block >> 32 & 0xffffu) | (uint32_t)state[3] << 16;
  const uint64_t product1 = (uint64_t)0xCD9E8D57u * site;
  const uint64_t product0 = (uint64_t)0xD2511F53u * ((uint32_t)(product1 >> 32) ^ upper ^ seed0);
  return {seed0,
          seed1,
          (uint32_t)state[2] ^ seed1,
          (uint32_t)product1 ^ (seed0 + 0x9E3779B9u),
          (uint32_t)(product0 >> 32) ^ (seed1 + 0xBB67AE85u),
          (uint32_t)product0};
}

struct PhiloxWords {
  vuint word[4];
};

// Words 0 to 3 of the blocks of `vectors` times kWidth numbers; low: the lower 32 bits of the
// first.
template <WordOrder order, int vectors>
VOLTAIC_INLINE void philox_vectors(const PhiloxRun& run, uint32_t low,
                                   PhiloxWords (&out)[vectors]) {
  constexpr int kHalves = 2 * vectors;
  const vlong multiplier0 = vlong{} + 0xD2511F53u, multiplier1 = vlong{} + 0xCD9E8D57u;
  vlong c0[kHalves], c1[kHalves], c2[kHalves], c3[kHalves];
#pragma GCC unroll 4
  for (int half = 0; half < kHalves; half++) {  // lane l of an odd half: 32-bit lane 2 l + 1
    vlong place = {};
    for (int l = 0; l < kWidth / 2; l++)
      place[l] = (uint64_t)(half / 2 * kWidth + block_of_lane(order, 2 * l + half % 2));
    const vlong product0 = multiply_low_halves(place + (uint64_t)low, multiplier0);
    c1[half] = multiply_low_halves(high_halves(product0) ^ (vlong{} + (uint64_t)run.first_c2),
                                   multiplier1);
    c0[half] = high_halves(c1[half]) ^ (vlong{} + (uint64_t)run.second_c0);
    c2[half] = product0 ^ (vlong{} + (uint64_t)run.second_c2);
    c3[half] = vlong{} + (uint64_t)run.second_c3;
  }
  uint32_t key0 = run.seed0 + 0x9E3779B9u, key1 = run.seed1 + 0xBB67AE85u;
#pragma GCC unroll 8
  for (int round = 2; round < 10; round++) {
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
#pragma GCC unroll 4
    for (int half = 0; half < kHalves; half++) {  // the upper halves of the lanes hold leftovers
      const vlong product0 = multiply_low_halves(c0[half], multiplier0);
      const vlong product1 = multiply_low_halves(c2[half], multiplier1);
      c0[half] = high_halves(product1) ^ c1[half] ^ (vlong{} + (uint64_t)key0);
      c2[half] = high_halves(product0) ^ c3[half] ^ (vlong{} + (uint64_t)key1);
      c1[half] = product1;
      c3[half] = product0;
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < vectors; v++) {
    out[v].word[0] = (vuint)join_low_halves(c0[2 * v], c0[2 * v + 1]);
    out[v].word[1] = (vuint)join_low_halves(c1[2 * v], c1[2 * v + 1]);
    out[v].word[2] = (vuint)join_low_halves(c2[2 * v], c2[2 * v + 1]);
    out[v].word[3] = (vuint)join_low_halves(c3[2 * v], c3[2 * v + 1]);
  }
}

// Words 0 to 3 of the blocks first_block to first_block + kWidth - 1.
template <WordOrder order = kInOrder>
VOLTAIC_INLINE void philox_blocks(const int32_t* state, uint32_t site, uint64_t first_block,
                                  vuint out[4]) {
  if (__builtin_expect((uint32_t)first_block > 0xffffffffu - (uint32_t)(kWidth - 1), 0)) {
    for (int l = 0; l < kWidth; l++) {  // the blocks' upper bits differ
      const voltaic_random4 block =
          voltaic_random_block(state, site, first_block + (uint64_t)block_of_lane(order, l));
      for (int w = 0; w < 4; w++) out[w][l] = block.word[w];
    }
    return;
  }
  PhiloxWords words[1];
  philox_vectors<order, 1>(philox_run(state, site, first_block), (uint32_t)first_block, words);
  for (int w = 0; w < 4; w++) out[w] = words[0].word[w];
}

// The four words of each block side by side, block after block; words as kForStore leaves them.
// ordered[q] is the blocks kWidth / 4 q and on. Read as 16-bit numbers, a block's eight are in
// order (little endian).
VOLTAIC_INLINE void order_blocks(const vuint words[4], vuint ordered[4]) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  const __m512i ab = _mm512_unpacklo_epi32((__m512i)words[0], (__m512i)words[1]);
  const __m512i AB = _mm512_unpackhi_epi32((__m512i)words[0], (__m512i)words[1]);
  const __m512i cd = _mm512_unpacklo_epi32((__m512i)words[2], (__m512i)words[3]);
  const __m512i CD = _mm512_unpackhi_epi32((__m512i)words[2], (__m512i)words[3]);
  ordered[0] = (vuint)_mm512_unpacklo_epi64(ab, cd);
  ordered[1] = (vuint)_mm512_unpackhi_epi64(ab, cd);
  ordered[2] = (vuint)_mm512_unpacklo_epi64(AB, CD);
  ordered[3] = (vuint)_mm512_unpackhi_epi64(AB, CD);
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  const __m256i ab = _mm256_unpacklo_epi32((__m256i)words[0], (__m256i)words[1]);
  const __m256i AB = _mm256_unpackhi_epi32((__m256i)words[0], (__m256i)words[1]);
  const __m256i cd = _mm256_unpacklo_epi32((__m256i)words[2], (__m256i)words[3]);
  const __m256i CD = _mm256_unpackhi_epi32((__m256i)words[2], (__m256i)words[3]);
  ordered[0] = (vuint)_mm256_unpacklo_epi64(ab, cd);
  ordered[1] = (vuint)_mm256_unpackhi_epi64(ab, cd);
  ordered[2] = (vuint)_mm256_unpacklo_epi64(AB, CD);
  ordered[3] = (vuint)_mm256_unpackhi_epi64(AB, CD);
#elif defined(__SSE2__) && VOLTAIC_WIDTH == 4
  const __m128i ab = _mm_unpacklo_epi32((__m128i)words[0], (__m128i)words[1]);
  const __m128i AB = _mm_unpackhi_epi32((__m128i)words[0], (__m128i)words[1]);
  const __m128i cd = _mm_unpacklo_epi32((__m128i)words[2], (__m128i)words[3]);
  const __m128i CD = _mm_unpackhi_epi32((__m128i)words[2], (__m128i)words[3]);
  ordered[0] = (vuint)_mm_unpacklo_epi64(ab, cd);
  ordered[1] = (vuint)_mm_unpackhi_epi64(ab, cd);
  ordered[2] = (vuint)_mm_unpacklo_epi64(AB, CD);
  ordered[3] = (vuint)_mm_unpackhi_epi64(AB, CD);
#else
  for (int l = 0; l < kWidth; l++)
    for (int w = 0; w < 4; w++) ordered[l % 4][4 * (l / 4) + w] = words[w][l];
#endif
}
// to[4 * b + w] = word w of block b of the run.
VOLTAIC_INLINE void store_in_order(uint32_t* to, const vuint words[4]) {
  vuint ordered[4];
  order_blocks(words, ordered);
  memcpy(to, ordered, sizeof ordered);
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

// All ones in the lanes that are kept, for the kWidth elements whose numbers start at numbers.
VOLTAIC_INLINE vint dropout_keep(const uint16_t* numbers, int32_t threshold) {
  return (vint)widen(*(const vhalf_unaligned*)numbers) >= threshold;
}
// What is drawn for a run: with AVX-512, a bit an element that says whether it is kept; otherwise
// its 16-bit number, since a comparison costs the same before and after.
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
typedef uint8_t dropout_draw;
constexpr int64_t kDrawsPerUnit = 8;
#else
typedef uint16_t dropout_draw;
constexpr int64_t kDrawsPerUnit = 1;
#endif

// How many units draw_dropout needs for a run of count elements: whole vectors of blocks are drawn,
// and whole vectors read.
constexpr int64_t dropout_buffer(int64_t count) {
  return (count + 8 + 17 * kWidth) / kDrawsPerUnit + 4;
}

// What is kept of the numbers in words, as far as it is known before they are applied.
VOLTAIC_INLINE void store_draws(dropout_draw* to, const vuint words[4],
                                [[maybe_unused]] Dropout dropout) {
  vuint ordered[4];
  order_blocks(words, ordered);
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
  const __m512i below = _mm512_set1_epi16((int16_t)(dropout.threshold - 1));
  for (int q = 0; q < 4; q++) {
    const uint32_t kept = _mm512_cmpgt_epu16_mask((__m512i)ordered[q], below);
    memcpy(to + 4 * q, &kept, sizeof kept);
  }
#else
  memcpy(to, ordered, sizeof ordered);
#endif
}

// Draws for the elements first to first + count - 1 of the flat array. Element first + k is then
// place first % 8 + k of the buffer. The threshold is 1 to 65536.
VOLTAIC_INLINE void draw_dropout(const int32_t* state, uint32_t site, int64_t first, int64_t count,
                                 Dropout dropout, dropout_draw* buffer) {
  // Four chains of rounds in turn hide their latency where there are registers for them.
  constexpr int kVectors = kWidth == 16 ? 2 : 1;
  constexpr int64_t kUnitsOfVector = 8 * kWidth / kDrawsPerUnit;
  const int64_t begin = first / 8, end = (first + count + 7) / 8;
  if (__builtin_expect(begin >> 32 != (end + kVectors * kWidth) >> 32, 0)) {
    for (int64_t block = begin; block < end; block += kWidth, buffer += kUnitsOfVector) {
      vuint words[4];
      philox_blocks<kForStore>(state, site, (uint64_t)block, words);
      store_draws(buffer, words, dropout);
    }
    return;
  }
  const PhiloxRun run = philox_run(state, site, (uint64_t)begin);
  for (int64_t block = begin; block < end; block += kVectors * kWidth) {
    PhiloxWords words[kVectors];
    philox_vectors<kForStore, kVectors>(run, (uint32_t)block, words);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++, buffer += kUnitsOfVector)
      store_draws(buffer, words[v].word, dropout);
  }
}

// x scaled where kept, 0 elsewhere, for the kWidth elements from this place of the buffer on.
VOLTAIC_INLINE vfloat apply_dropout(vfloat x, const dropout_draw* buffer, int64_t place,
                                    Dropout dropout) {
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
  uint32_t bits;
  memcpy(&bits, buffer + place / 8, sizeof bits);
  return (vfloat)_mm512_maskz_mul_ps((__mmask16)(bits >> place % 8), (__m512)x,
                                     _mm512_set1_ps(dropout.scale));
#else
  return select(dropout_keep(buffer + place, dropout.threshold), x * dropout.scale, splat(0.0f));
#endif
}

}  // namespace
}  // namespace voltaic
