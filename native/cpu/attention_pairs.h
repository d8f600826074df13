// Attention's tasks for bf16 where the processor multiplies bf16: on AMX tiles (attention_tiles.h)
// or by dots of pairs (attention_dots.h), which take the same operands: a row-major, b in pairs of
// neighbours along the depth, one 32-bit word a pair. Probabilities and score gradients are rounded
// to bf16 before a product, as on tensor cores; sums, exponentials and the accumulated key and
// value gradients stay fp32.
//
//   scores = Q K^T                        a: queries           b: keys, transposed as words
//   context = P V                         a: probabilities     b: values, two rows to a word
//   probability gradients = dO V^T        a: dO                b: values, transposed as words
//   Q gradient = S K                      a: score gradients S b: keys, two rows to a word
//   V gradient^T = dO^T P, K gradient^T = Q^T S
//                                         a: dO^T, Q^T         b: P and S, two rows to a word
//
// The last two are kept transposed, so that P and S enter as the row pass writes them: it takes two
// rows of scores at a time and stores words of both. Only heads (length x size) are ever
// transposed, never a matrix of scores.
//
// Bytes: 32 queries at a time; their fp32 scores (16 KB at 128 tokens, twice that backward) stand
// in L1 or L2 between product and row pass. Backward, P and S of up to 128 queries are kept as
// words (32 KB each at 128 tokens), so that the fp32 sums of both gradients (32 KB each) are read
// and written once for 128 queries: once, for sequences to 128 tokens.
//
// Dots on a Zen 4 core (235 GFLOP/s), size 64, data in L2, GFLOP/s forward / backward: 147 / 170 at
// 128 tokens, 126 / 158 with dropout. Products run at 97 % of the core's peak, so forward they are
// 64 % of the time (55 % with dropout), backward 73 % (68 %).
//
// AMX, by count, for a head of 128 tokens and size 64: forward 256 dots of tiles (4,096 cycles),
// backward 640 (10,240) and 224 tiles of sums stored (3,584). The row pass has 1,024 vectors of
// scores at about 15 and 18 instructions, and as many again for dropout's bits: it weighs more than
// the products.
#pragma once
#include "attention_dots.h"
#include "attention_tiles.h"
#if defined(VOLTAIC_TILES) || defined(VOLTAIC_DOTS)
#include "attention_products.h"
#include "attention_softmax.h"

namespace voltaic {
namespace {

#if defined(VOLTAIC_TILES)
using PairProducts = TileProducts;
#else
using PairProducts = DotProducts;
#endif

static_assert(kWidth == 16);
constexpr int64_t kStrip = 32;       // queries whose scores are held in fp32
constexpr int64_t kPairBlock = 128;  // queries whose P and S are held for one sum over them
constexpr int64_t kDepthUnit = PairProducts::kDepthUnit;

// Columns of two rows of numbers, rounded: as words to `words`, and row by row where rows is not
// null.
VOLTAIC_INLINE void store_two_rows(bfloat16* words, bfloat16* rows, int64_t stride, vfloat even,
                                   vfloat odd) {
#if defined(__AVX512BF16__)
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(words, _mm512_permutexvar_epi16(order, both));
  if (rows == nullptr) return;
  _mm256_storeu_si256((__m256i*)rows, _mm512_castsi512_si256(both));
  _mm256_storeu_si256((__m256i*)(rows + stride), _mm512_extracti64x4_epi64(both, 1));
#else
  bfloat16 halves[2][kWidth];
  store(halves[0], even);
  store(halves[1], odd);
  const vuint pairs = (vuint)load(halves[0]) >> 16 | (vuint)load(halves[1]);
  memcpy(words, &pairs, sizeof(pairs));
  if (rows == nullptr) return;
  memcpy(rows, halves[0], sizeof(halves[0]));
  memcpy(rows + stride, halves[1], sizeof(halves[1]));
#endif
}

// The first lanes (up to 32) of a row as words, zeros beyond; nothing is read beyond.
VOLTAIC_INLINE vfloat row_words(const bfloat16* from, int64_t lanes) {
  vfloat words = {};
  if (lanes >= 32) {
    memcpy(&words, from, 64);
  } else if (lanes > 0) {
    memcpy(&words, from, 2 * (size_t)lanes);
  }
  return words;
}
// Words of two rows: lane i holds even[i], odd[i]. odd may be null: zeros.
VOLTAIC_INLINE vfloat two_rows(const bfloat16* even, const bfloat16* odd, int64_t lanes) {
  vuint words = (vuint)load_partial(even, lanes) >> 16;
  if (odd != nullptr) words |= (vuint)load_partial(odd, lanes);
  return (vfloat)words;
}

// Rows [count][size], stride apart, as they are: [padded_count][to_stride], zeros beyond.
inline void copy_padded(bfloat16* to, int64_t to_stride, int64_t padded_count, const bfloat16* from,
                        int64_t stride, int64_t count, int64_t size) {
  for (int64_t row = 0; row < padded_count; row++)
    for (int64_t column = 0; column < to_stride; column += 32) {
      const vfloat words =
          row < count ? row_words(from + row * stride + column, size - column) : vfloat{};
      memcpy(to + row * to_stride + column, &words, 64);
    }
}
// b with the rows as columns and size as depth: [ceil(count / 16)][ceil(size / 32) * 16][16 words].
inline void pack_rows_as_columns(bfloat16* to, const bfloat16* from, int64_t stride, int64_t count,
                                 int64_t size) {
  for (int64_t first = 0; first < count; first += 16)
    for (int64_t column = 0; column < size; column += 32, to += 512) {
      vfloat words[16];
      for (int64_t r = 0; r < 16; r++)
        words[r] = first + r < count
                       ? row_words(from + (first + r) * stride + column, size - column)
                       : vfloat{};
      transpose(words);
      memcpy(to, words, sizeof(words));
    }
}
// b with size as columns and the rows as depth, padded to padded_count:
// [ceil(size / 16)][padded_count / 2][16 words].
inline void pack_rows_as_depth(bfloat16* to, int64_t padded_count, const bfloat16* from,
                               int64_t stride, int64_t count, int64_t size) {
  for (int64_t column = 0; column < size; column += 16)
    for (int64_t row = 0; row < padded_count; row += 2, to += 32) {
      const bfloat16* even = from + row * stride + column;
      const vfloat words =
          row < count ? two_rows(even, row + 1 < count ? even + stride : nullptr, size - column)
                      : vfloat{};
      memcpy(to, &words, 64);
    }
}
// a with size as rows and the rows as depth: [ceil(size / 16) * 16][to_stride].
inline void pack_transposed(bfloat16* to, int64_t to_stride, const bfloat16* from, int64_t stride,
                            int64_t count, int64_t size) {
  for (int64_t column = 0; column < size; column += 16)
    for (int64_t row = 0; row < count; row += 32) {
      vfloat words[16];
      for (int64_t p = 0; p < 16; p++) {
        const int64_t even = row + 2 * p;
        const bfloat16* at = from + even * stride + column;
        words[p] = even < count
                       ? two_rows(at, even + 1 < count ? at + stride : nullptr, size - column)
                       : vfloat{};
      }
      transpose(words);
      for (int64_t i = 0; i < 16; i++) memcpy(to + (column + i) * to_stride + row, &words[i], 64);
    }
}
// Rows [count][size] from their transpose, times factor.
inline void store_transposed(bfloat16* to, int64_t stride, const float* from, int64_t from_stride,
                             int64_t count, int64_t size, float factor) {
  for (int64_t row = 0; row < count; row += 16)
    for (int64_t column = 0; column < size; column += 16) {
      vfloat lanes[16];
      for (int64_t i = 0; i < 16; i++)
        lanes[i] = load(from + (column + i) * from_stride + row) * factor;
      transpose(lanes);
      for (int64_t r = 0; r < smaller(count - row, 16); r++)
        store_partial(to + (row + r) * stride + column, lanes[r], size - column);
    }
}

// Scratch of one task; from key_depth on for the backward pass.
struct PairBuffers {
  int64_t size_columns, size_depth;  // the head size, rounded up to 16 and to 32
  int64_t columns, stride;           // keys rounded up to 16; of rows of scores
  int64_t depth;                     // keys as the depth of a product
  int64_t block;                     // queries of a block, rounded up to 32

  bfloat16 *keys, *values, *queries, *rows;
  float *scores, *context;
  uint16_t* kept;
  bfloat16 *key_depth, *gradients, *queries_transposed, *gradients_transposed;
  bfloat16 *probabilities, *score_gradients;
  float *probability_gradients, *key_gradient, *value_gradient;

  bool take(int64_t length, int64_t size, bool backward) {
    Carve sizes{nullptr};
    lay_out(sizes, length, size, backward);
    Carve carve{(char*)thread_scratch(2, sizes.used)};
    if (carve.memory == nullptr) return false;
    lay_out(carve, length, size, backward);
    // The row pass writes whole vectors up to columns; the depth may go further.
    if (depth > columns) memset((void*)rows, 0, (size_t)(kStrip * stride) * sizeof(bfloat16));
    return true;
  }

 private:
  void lay_out(Carve& carve, int64_t length, int64_t size, bool backward) {
    size_columns = round_up(size, 16);
    size_depth = round_up(size, 32);
    columns = round_up(length, 16);
    depth = round_up(length, kDepthUnit);
    // Not a power of two, so that rows spread over cache sets.
    stride = round_up(length, 32) + 32;
    block = smaller(round_up(length, 32), kPairBlock);
    carve.take(keys, columns * size_depth);
    carve.take(values, backward ? columns * size_depth : depth * size_columns);
    carve.take(queries, kStrip * size_depth);
    carve.take(rows, kStrip * stride);
    carve.take(scores, kStrip * stride);
    carve.take(context, kStrip * size_columns);
    carve.take(kept, columns);
    if (!backward) return;
    carve.take(key_depth, depth * size_columns);
    carve.take(gradients, kStrip * size_depth);
    carve.take(queries_transposed, size_columns * block);
    carve.take(gradients_transposed, size_columns * block);
    carve.take(probabilities, block * columns);
    carve.take(score_gradients, block * columns);
    carve.take(probability_gradients, kStrip * stride);
    carve.take(key_gradient, size_columns * columns);
    carve.take(value_gradient, size_columns * columns);
  }
};

inline bool forward_task_on_pairs(const Attention& a, const AttentionTask& task,
                                  const ForwardArrays<bfloat16>& arrays) {
  PairBuffers b;
  if (!b.take(task.length, a.size, false)) return false;
  PairProducts products;
  const int64_t width = a.heads * a.size, length = task.length;
  const bfloat16* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  pack_rows_as_columns(b.keys, q + width, a.token_stride, length, a.size);
  pack_rows_as_depth(b.values, b.depth, q + 2 * width, a.token_stride, length, a.size);

  for (int64_t first = task.first; first < task.first + task.count; first += kStrip) {
    const int64_t rows = smaller(kStrip, task.first + task.count - first);
    copy_padded(b.queries, b.size_depth, round_up(rows, PairProducts::kRowUnit),
                q + first * a.token_stride, a.token_stride, rows, a.size);
    products.multiply(b.scores, b.stride, b.queries, b.size_depth, b.keys, 16 * b.size_depth, 32,
                      rows, b.columns, b.size_depth, false);
    float sums[kStrip];
    for (int64_t r = 0; r < rows; r += 16) {
      if (a.state != nullptr) attention_kept(a, task, (first + r) / 16, b.kept);
      exponentials(
          {b.scores + r * b.stride, b.stride, smaller(rows - r, 16), length,
           a.state != nullptr ? b.kept : nullptr},
          a.scale, sums + r, arrays.log_sum_exp + task.head * a.tokens + task.start + first + r,
          [&](int64_t i, int64_t j, vfloat e) { store(b.rows + (r + i) * b.stride + j, e); });
    }
    products.multiply(b.context, b.size_columns, b.rows, b.stride, b.values, 16 * b.depth, 32, rows,
                      a.size, b.depth, false);
    for (int64_t r = 0; r < rows; r++)
      store_row(arrays.context + ((task.start + first + r) * a.heads + task.head) * a.size,
                b.context + r * b.size_columns, a.size, a.dropout.scale / sums[r]);
  }
  return true;
}

// The row pass of 16 rows at most of a strip, from row r of it and row at of the block: words of P
// and S of two rows, and S by rows.
inline void gradients_of_rows(const PairBuffers& b, const GradientRows& of_rows, int64_t r,
                              int64_t at, int64_t count, int64_t length, const uint16_t* kept) {
  for (int64_t i = 0; i < count; i += 2) {
    const float* scores = b.scores + (r + i) * b.stride;
    const float* gradients = b.probability_gradients + (r + i) * b.stride;
    bfloat16* rows = b.rows + (r + i) * b.stride;
    const int64_t pair = (at + i) * b.columns;
    const uint16_t* words = kept != nullptr ? kept + i : nullptr;
    row_vectors(length, [&](int64_t j, int64_t lanes) {
      const ScoreGradients even =
          score_gradients(of_rows, i, load(scores + j), load(gradients + j), words, j, lanes);
      const ScoreGradients odd = score_gradients(of_rows, i + 1, load(scores + b.stride + j),
                                                 load(gradients + b.stride + j),
                                                 words != nullptr ? words + 1 : nullptr, j, lanes);
      store_two_rows(b.probabilities + pair + 2 * j, nullptr, 0, even.kept, odd.kept);
      store_two_rows(b.score_gradients + pair + 2 * j, rows + j, b.stride, even.of_score,
                     odd.of_score);
    });
  }
}

inline bool backward_task_on_pairs(const Attention& a, const AttentionTask& task,
                                   const BackwardArrays<bfloat16>& arrays) {
  PairBuffers b;
  if (!b.take(task.length, a.size, true)) return false;
  PairProducts products;
  const int64_t width = a.heads * a.size, length = task.length;
  const bfloat16* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  bfloat16* q_gradient = arrays.qkv_gradient + task.start * a.token_stride + task.head * a.size;
  pack_rows_as_columns(b.keys, q + width, a.token_stride, length, a.size);
  pack_rows_as_columns(b.values, q + 2 * width, a.token_stride, length, a.size);
  pack_rows_as_depth(b.key_depth, b.depth, q + width, a.token_stride, length, a.size);

  for (int64_t start = 0; start < length; start += b.block) {
    const int64_t queries = smaller(b.block, length - start);
    const bfloat16* query = q + start * a.token_stride;
    const int64_t at = ((task.start + start) * a.heads + task.head) * a.size;
    const bfloat16* gradient = arrays.context_gradient + at;
    for (int64_t strip = 0; strip < queries; strip += kStrip) {
      const int64_t rows = smaller(kStrip, queries - strip);
      const int64_t padded_rows = round_up(rows, PairProducts::kRowUnit);
      copy_padded(b.queries, b.size_depth, padded_rows, query + strip * a.token_stride,
                  a.token_stride, rows, a.size);
      copy_padded(b.gradients, b.size_depth, padded_rows, gradient + strip * width, width, rows,
                  a.size);
      products.multiply(b.scores, b.stride, b.queries, b.size_depth, b.keys, 16 * b.size_depth, 32,
                        rows, b.columns, b.size_depth, false);
      products.multiply(b.probability_gradients, b.stride, b.gradients, b.size_depth, b.values,
                        16 * b.size_depth, 32, rows, b.columns, b.size_depth, false);
      for (int64_t r = 0; r < rows; r += 16) {
        const int64_t count = smaller(rows - r, 16), first = start + strip + r;
        if (a.state != nullptr) attention_kept(a, task, first / 16, b.kept);
        const GradientRows of_rows(
            a, arrays.log_sum_exp + task.head * a.tokens + task.start + first,
            gradient + (strip + r) * width, arrays.context + at + (strip + r) * width, count);
        gradients_of_rows(b, of_rows, r, strip + r, count, length,
                          a.state != nullptr ? b.kept : nullptr);
      }
      products.multiply(b.context, b.size_columns, b.rows, b.stride, b.key_depth, 16 * b.depth, 32,
                        rows, a.size, b.depth, false);
      for (int64_t r = 0; r < rows; r++)
        store_row(q_gradient + (start + strip + r) * a.token_stride, b.context + r * b.size_columns,
                  a.size, a.scale);
    }
    const int64_t even = round_up(queries, 2), padded = round_up(queries, kDepthUnit);
    const size_t past = (size_t)((padded - even) * b.columns) * sizeof(bfloat16);
    memset((void*)(b.probabilities + even * b.columns), 0, past);
    memset((void*)(b.score_gradients + even * b.columns), 0, past);
    pack_transposed(b.queries_transposed, b.block, query, a.token_stride, queries, a.size);
    pack_transposed(b.gradients_transposed, b.block, gradient, width, queries, a.size);
    products.multiply(b.value_gradient, b.columns, b.gradients_transposed, b.block, b.probabilities,
                      32, 2 * b.columns, a.size, b.columns, padded, start > 0);
    products.multiply(b.key_gradient, b.columns, b.queries_transposed, b.block, b.score_gradients,
                      32, 2 * b.columns, a.size, b.columns, padded, start > 0);
  }
  store_transposed(q_gradient + width, a.token_stride, b.key_gradient, b.columns, length, a.size,
                   a.scale);
  store_transposed(q_gradient + 2 * width, a.token_stride, b.value_gradient, b.columns, length,
                   a.size, a.state != nullptr ? a.dropout.scale : 1.0f);
  return true;
}

}  // namespace
}  // namespace voltaic
#endif
