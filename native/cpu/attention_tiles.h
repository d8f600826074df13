// Attention's tasks for bf16 on AMX tiles: the same passes as in attention.cpp, with the products
// in bf16 x bf16 -> fp32 tiles of 32 x 32. Probabilities and score gradients are rounded to bf16
// before a product, as on tensor cores; sums, exponentials and the accumulated key and value
// gradients stay fp32.
//
// Every operand is packed into tiles of 1 KB (amx_tiles.h) with zeros past its edges: whole tiles
// everywhere, any length and head size. In memory order: [16 rows or columns][steps of 32 along the
// depth][512].
#pragma once
#include "amx_tiles.h"
#if defined(VOLTAIC_TILES)
#include "attention_products.h"
#include "attention_rows.h"

namespace voltaic {
namespace {

// Queries at a time: two steps of depth for the key and value gradients.
constexpr int64_t kTileBlock = 64;

struct TileOperand {  // 16 rows (of a) or columns (of b) and one step of depth further
  const bfloat16* data;
  int64_t group_stride, step_stride;
  int64_t row_stride;  // of a; packed tiles have 32
};

// c[32 * rows][32 * columns] (+)= a b over steps of 32
inline void tile_block_product(Tiles& tiles, float* c, int64_t c_stride, TileOperand a,
                               int64_t rows, TileOperand b, int64_t columns, int64_t steps,
                               bool keep) {
  for (int64_t column = 0; column < columns; column++)
    for (int64_t row = 0; row < rows; row++)
      tile_product_2x2(tiles, c + 32 * row * c_stride + 32 * column, c_stride,
                       a.data + 2 * row * a.group_stride, a.row_stride, a.step_stride,
                       a.group_stride, b.data + 2 * column * b.group_stride, b.step_stride,
                       b.group_stride, steps, keep);
}

// How many groups of 16 (an even number) and steps of 32 cover a size.
VOLTAIC_INLINE int64_t groups_of(int64_t size) { return round_up(size, 32) / 16; }
VOLTAIC_INLINE int64_t steps_of(int64_t size) { return round_up(size, 32) / 32; }
VOLTAIC_INLINE int64_t tile_elements(int64_t groups, int64_t steps) {
  return groups * steps * kTileElements;
}
VOLTAIC_INLINE TileOperand packed(const bfloat16* tiles, int64_t steps) {
  return {tiles, steps * kTileElements, kTileElements, 32};
}
VOLTAIC_INLINE int within(int64_t left, int64_t most) {
  return (int)(left < 0 ? 0 : left > most ? most : left);
}

// Packs [count][size] rows, stride apart, with pack(to, from, stride, count left, size left) for
// each tile: groups of 16 rows by steps of 32 columns, or (by_columns) groups of 16 columns by
// steps of 32 rows.
template <bool by_columns, class Pack>
inline void pack_tiles(bfloat16* to, const bfloat16* from, int64_t stride, int64_t count,
                       int64_t size, int64_t steps, Pack&& pack) {
  const int64_t groups = groups_of(by_columns ? size : count);
  for (int64_t group = 0; group < groups; group++)
    for (int64_t step = 0; step < steps; step++, to += kTileElements) {
      const int64_t row = by_columns ? 32 * step : 16 * group;
      const int64_t column = by_columns ? 16 * group : 32 * step;
      // A tile past the edge is all zeros and must not form an address there.
      const bool outside = row >= count || column >= size;
      pack(to, outside ? from : from + row * stride + column, outside ? 0 : count - row,
           outside ? 0 : size - column);
    }
}

// As a: rows of the product are the rows.
inline void pack_left(bfloat16* to, const bfloat16* from, int64_t stride, int64_t count,
                      int64_t size) {
  pack_tiles<false>(to, from, stride, count, size, steps_of(size),
                    [&](bfloat16* tile, const bfloat16* at, int64_t rows, int64_t depth) {
                      pack_rows(tile, at, stride, within(rows, 16), within(depth, 32));
                    });
}
// As b transposed: columns of the product are the rows.
inline void pack_right_transposed(bfloat16* to, const bfloat16* from, int64_t stride, int64_t count,
                                  int64_t size) {
  pack_tiles<false>(to, from, stride, count, size, steps_of(size),
                    [&](bfloat16* tile, const bfloat16* at, int64_t columns, int64_t depth) {
                      pack_pairs_transposed(tile, at, stride, within(depth, 32),
                                            within(columns, 16));
                    });
}
// As b: the depth of the product runs over the rows, in that many steps.
inline void pack_right(bfloat16* to, const bfloat16* from, int64_t stride, int64_t count,
                       int64_t size, int64_t steps) {
  pack_tiles<true>(to, from, stride, count, size, steps,
                   [&](bfloat16* tile, const bfloat16* at, int64_t depth, int64_t columns) {
                     pack_pairs(tile, at, stride, within(depth, 32), within(columns, 16));
                   });
}

struct TileBuffers {
  int64_t columns, stride;  // of scores and probabilities: keys rounded up to 32, and 32 more
  int64_t padded_size, size_steps, key_steps;  // head size rounded up to 32
  bfloat16 *keys, *values;                     // tiles: K^T; V (forward) or V^T (backward)
  bfloat16 *queries, *probabilities;
  float *scores, *context;
  uint16_t* numbers;
  bfloat16 *key_rows, *query_rows, *gradients, *gradient_rows, *score_gradients;
  float *probability_gradients, *key_gradient, *value_gradient;

  bool take(int64_t length, int64_t size, bool backward) {
    Carve sizes{nullptr};
    lay_out(sizes, length, size, backward);
    Carve carve{(char*)thread_scratch(2, sizes.used)};
    if (carve.memory == nullptr) return false;
    lay_out(carve, length, size, backward);
    return true;
  }

 private:
  void lay_out(Carve& carve, int64_t length, int64_t size, bool backward) {
    columns = round_up(length, 32);
    stride = columns + 32;
    padded_size = round_up(size, 32);
    size_steps = steps_of(size);
    key_steps = steps_of(length);
    const int64_t head = columns * padded_size, block = kTileBlock * padded_size;
    carve.take(keys, head);
    carve.take(values, head);
    carve.take(queries, block);
    carve.take(probabilities, kTileBlock * stride);
    carve.take(scores, kTileBlock * stride);
    carve.take(context, block);
    carve.take(numbers, 16 * stride);
    if (!backward) return;
    carve.take(key_rows, head);
    carve.take(query_rows, block);
    carve.take(gradients, block);
    carve.take(gradient_rows, block);
    carve.take(score_gradients, kTileBlock * stride);
    carve.take(probability_gradients, kTileBlock * stride);
    carve.take(key_gradient, head);
    carve.take(value_gradient, head);
  }
};

template <class T>
bool forward_task_on_tiles(const Attention& a, const AttentionTask& task,
                           const ForwardArrays<T>& arrays) {
  TileBuffers b;
  if (!b.take(task.length, a.size, false)) return false;
  Tiles tiles;
  const int64_t width = a.heads * a.size, length = task.length;
  const T* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  pack_right_transposed(b.keys, q + width, a.token_stride, length, a.size);
  pack_right(b.values, q + 2 * width, a.token_stride, length, a.size, b.key_steps);

  for (int64_t first = task.first; first < task.first + task.count; first += kTileBlock) {
    const int64_t rows = smaller(kTileBlock, task.first + task.count - first);
    pack_left(b.queries, q + first * a.token_stride, a.token_stride, rows, a.size);
    tile_block_product(tiles, b.scores, b.stride, packed(b.queries, b.size_steps), steps_of(rows),
                       packed(b.keys, b.size_steps), b.columns / 32, b.size_steps, false);
    float sums[kTileBlock];
    for (int64_t r = 0; r < rows; r++) {
      if (a.state != nullptr && r % 16 == 0)
        attention_dropout_numbers(a, task, (first + r) / 16, b.numbers, b.stride);
      sums[r] = exponentials(
          b.scores + r * b.stride, b.probabilities + r * b.stride, length, b.columns, a.scale,
          a.state != nullptr ? b.numbers + r % 16 * b.stride : nullptr, a.dropout.threshold,
          arrays.log_sum_exp + task.head * a.tokens + task.start + first + r);
    }
    tile_block_product(tiles, b.context, b.padded_size,
                       {b.probabilities, 16 * b.stride, 32, b.stride}, steps_of(rows),
                       packed(b.values, b.key_steps), b.padded_size / 32, b.key_steps, false);
    for (int64_t r = 0; r < rows; r++)
      store_row(arrays.context + ((task.start + first + r) * a.heads + task.head) * a.size,
                b.context + r * b.padded_size, a.size, a.dropout.scale / sums[r]);
  }
  return true;
}

// gradient[keys][size] += weights^T rows, where weights [kTileBlock][keys] hold zeros past the
// block's queries.
inline void add_transposed_product(Tiles& tiles, const TileBuffers& b, float* gradient,
                                   const bfloat16* weights, const bfloat16* rows) {
  constexpr int64_t kSteps = kTileBlock / 32;
  alignas(64) bfloat16 left[2 * kSteps * kTileElements];
  for (int64_t key = 0; key < b.columns; key += 32) {
    for (int64_t group = 0; group < 2; group++)
      for (int64_t step = 0; step < kSteps; step++)
        pack_rows_transposed(left + (group * kSteps + step) * kTileElements,
                             weights + 32 * step * b.stride + key + 16 * group, b.stride, 16, 32);
    tile_block_product(tiles, gradient + key * b.padded_size, b.padded_size, packed(left, kSteps),
                       1, packed(rows, kSteps), b.padded_size / 32, kSteps, true);
  }
}

template <class T>
bool backward_task_on_tiles(const Attention& a, const AttentionTask& task,
                            const BackwardArrays<T>& arrays) {
  TileBuffers b;
  if (!b.take(task.length, a.size, true)) return false;
  Tiles tiles;
  const int64_t width = a.heads * a.size, length = task.length;
  const T* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  T* q_gradient = arrays.qkv_gradient + task.start * a.token_stride + task.head * a.size;
  pack_right_transposed(b.keys, q + width, a.token_stride, length, a.size);
  pack_right_transposed(b.values, q + 2 * width, a.token_stride, length, a.size);
  pack_right(b.key_rows, q + width, a.token_stride, length, a.size, b.key_steps);
  memset(b.key_gradient, 0, (size_t)(b.columns * b.padded_size) * sizeof(float));
  memset(b.value_gradient, 0, (size_t)(b.columns * b.padded_size) * sizeof(float));

  for (int64_t first = 0; first < length; first += kTileBlock) {
    const int64_t rows = smaller(kTileBlock, length - first);
    const int64_t at = ((task.start + first) * a.heads + task.head) * a.size;
    const T *query = q + first * a.token_stride, *gradient = arrays.context_gradient + at;
    pack_left(b.queries, query, a.token_stride, rows, a.size);
    pack_left(b.gradients, gradient, width, rows, a.size);
    // Two steps of depth whatever the rows: the last block's second step may be all zeros.
    pack_right(b.query_rows, query, a.token_stride, rows, a.size, kTileBlock / 32);
    pack_right(b.gradient_rows, gradient, width, rows, a.size, kTileBlock / 32);
    tile_block_product(tiles, b.scores, b.stride, packed(b.queries, b.size_steps), steps_of(rows),
                       packed(b.keys, b.size_steps), b.columns / 32, b.size_steps, false);
    tile_block_product(tiles, b.probability_gradients, b.stride, packed(b.gradients, b.size_steps),
                       steps_of(rows), packed(b.values, b.size_steps), b.columns / 32, b.size_steps,
                       false);
    for (int64_t r = 0; r < rows; r++) {
      if (a.state != nullptr && r % 16 == 0)
        attention_dropout_numbers(a, task, (first + r) / 16, b.numbers, b.stride);
      const float delta = dot_rows(gradient + r * width, arrays.context + at + r * width, a.size);
      probability_gradients(
          b.scores + r * b.stride, b.probability_gradients + r * b.stride,
          b.probabilities + r * b.stride, b.score_gradients + r * b.stride, length, b.columns,
          a.scale, arrays.log_sum_exp[task.head * a.tokens + task.start + first + r], delta,
          a.state != nullptr ? b.numbers + r % 16 * b.stride : nullptr, a.dropout);
    }
    const size_t past = (size_t)((kTileBlock - rows) * b.stride) * sizeof(T);
    memset((void*)(b.probabilities + rows * b.stride), 0, past);
    memset((void*)(b.score_gradients + rows * b.stride), 0, past);
    add_transposed_product(tiles, b, b.value_gradient, b.probabilities, b.gradient_rows);
    add_transposed_product(tiles, b, b.key_gradient, b.score_gradients, b.query_rows);
    tile_block_product(tiles, b.context, b.padded_size,
                       {b.score_gradients, 16 * b.stride, 32, b.stride}, steps_of(rows),
                       packed(b.key_rows, b.key_steps), b.padded_size / 32, b.key_steps, false);
    for (int64_t r = 0; r < rows; r++)
      store_row(q_gradient + (first + r) * a.token_stride, b.context + r * b.padded_size, a.size,
                a.scale);
  }
  for (int64_t row = 0; row < length; row++) {
    store_row(q_gradient + row * a.token_stride + width, b.key_gradient + row * b.padded_size,
              a.size, a.scale);
    store_row(q_gradient + row * a.token_stride + 2 * width, b.value_gradient + row * b.padded_size,
              a.size, 1.0f);
  }
  return true;
}

}  // namespace
}  // namespace voltaic
#endif
