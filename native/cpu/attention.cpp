// Attention over ragged sequences: context = dropout(softmax(scale * Q K^T)) V for each sequence
// and head.
//
//   qkv [tokens, 3, heads, size] -> context [tokens, heads, size],
//   log_sum_exp [heads, tokens] (natural log)
//
// Backward, from P = exp(scale * Q K^T - log_sum_exp), M the dropout mask times 1 / (1 -
// probability), delta = rowsum(context_gradient * context):
//
//   V gradient = (P M)^T context_gradient     S = P (M (context_gradient V^T) - delta)
//   Q gradient = scale * S K                  K gradient = scale * S^T Q
//
// Work for a sequence of n tokens, per head: 4 n^2 size FLOPs and n^2 exponentials forward, 10 n^2
// size and n^2 backward. Bytes: forward reads 3 and writes 1 n x size elements of qkv's type and n
// floats; backward reads 5 and writes 3. The score matrix never reaches memory: 48 rows of it at a
// time (96 KB at 512 tokens) stand in L2 beside the head's packed keys and values. Rows are whole,
// so the softmax is the plain stable one: largest, sum, no rescaling.
//
// Tasks: forward, runs of 192 queries of a sequence and head; backward, a whole sequence and head,
// whose key and value gradients are summed over query blocks in order. No two tasks write the same
// number and none depends on other sequences: the same bits for any number of threads and any batch
// around the sequence.
//
// 48 queries a block: a multiple of the 16 rows of dropout tiles and of the 6 or 8 rows of register
// tiles. A Zen 4 core (117 GFLOP/s of fp32 multiply-adds), size 64, data in L2, GFLOP/s forward /
// backward: 74 / 81 at 32 tokens, 96 / 101 at 128, 96 / 100 at 512; with dropout 69 / 79, 87 / 97,
// 87 / 96; on AVX2 91 / 96 at 128 tokens, 80 / 91 with dropout. At 128 tokens and with dropout,
// products take 77 % of the time forward (at 97 % of the core's peak), exponentials 8 %, dropout's
// bits 9 %; backward 87, 4 and 4 %. From DRAM, as in a training step of 32 x 128 tokens, 71 / 80
// with dropout; asking for the next task's rows ahead did not help.
//
// bf16 is widened when packed where the processor has no bf16 products; where it has, it goes
// through attention_pairs.h instead.
#include "attention_pairs.h"
#include "attention_products.h"
#include "attention_softmax.h"

namespace voltaic {
namespace {

constexpr int64_t kQueryBlock = 48;
constexpr int64_t kQueryChunk = 192;

// Scratch of one task; the last five are for the backward pass.
struct Buffers {
  int64_t stride;        // of rows of scores
  int64_t padded_size;   // stride of rows of a head
  float *keys, *values;  // panels: K^T, and V (forward) or V^T (backward)
  float *queries, *scores, *context;
  uint16_t* kept;
  float *key_rows, *key_gradient, *value_gradient, *context_gradient, *probability_gradients;

  // False when memory ran out.
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
    const int64_t columns = round_up(length, kPanel), rows = round_up(length, kRows);
    // Rows of a power of two bytes would fall on few cache sets; 16 more also hold the last
    // register tile's overhang.
    stride = columns + 16;
    padded_size = round_up(size, kPanel);
    carve.take(keys, columns * size);
    carve.take(values, backward ? columns * size : length * padded_size);
    carve.take(queries, kQueryBlock * padded_size);
    carve.take(scores, kQueryBlock * stride);
    carve.take(context, kQueryBlock * padded_size);
    carve.take(kept, stride);
    if (!backward) return;
    carve.take(key_rows, length * padded_size);
    carve.take(key_gradient, rows * padded_size);
    carve.take(value_gradient, rows * padded_size);
    carve.take(context_gradient, kQueryBlock * padded_size);
    carve.take(probability_gradients, kQueryBlock * stride);
  }
};

template <class T>
bool forward_task(const Attention& a, const AttentionTask& task, const ForwardArrays<T>& arrays) {
  Buffers b;
  if (!b.take(task.length, a.size, false)) return false;
  const int64_t width = a.heads * a.size, length = task.length;
  const T* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  pack_transposed_as_panels(b.keys, q + width, a.token_stride, length, a.size);
  pack_rows_as_panels(b.values, q + 2 * width, a.token_stride, length, a.size);

  for (int64_t first = task.first; first < task.first + task.count; first += kQueryBlock) {
    const int64_t rows = smaller(kQueryBlock, task.first + task.count - first);
    copy_rows(b.queries, b.padded_size, round_up(rows, kRows), q + first * a.token_stride,
              a.token_stride, rows, a.size, 1.0f);
    block_product<false>({b.queries, b.padded_size, 1}, {b.keys, a.size * kPanel, kPanel}, rows,
                         length, a.size, b.scores, b.stride);
    float sums[kQueryBlock];
    for (int64_t r = 0; r < rows; r += kWidth) {
      if (a.state != nullptr && r % 16 == 0) attention_kept(a, task, (first + r) / 16, b.kept);
      float* row = b.scores + r * b.stride;
      exponentials({row, b.stride, smaller(rows - r, kWidth), length,
                    a.state != nullptr ? b.kept + r % 16 : nullptr},
                   a.scale, sums + r,
                   arrays.log_sum_exp + task.head * a.tokens + task.start + first + r,
                   [&](int64_t i, int64_t j, vfloat e) { store(row + i * b.stride + j, e); });
    }
    block_product<false>({b.scores, b.stride, 1}, {b.values, length * kPanel, kPanel}, rows, a.size,
                         length, b.context, b.padded_size);
    for (int64_t r = 0; r < rows; r++)
      store_row(arrays.context + ((task.start + first + r) * a.heads + task.head) * a.size,
                b.context + r * b.padded_size, a.size, a.dropout.scale / sums[r]);
  }
  return true;
}

template <class T>
bool backward_task(const Attention& a, const AttentionTask& task, const BackwardArrays<T>& arrays) {
  Buffers b;
  if (!b.take(task.length, a.size, true)) return false;
  const int64_t width = a.heads * a.size, length = task.length;
  const int64_t padded_length = round_up(length, kRows);
  const T* q = arrays.qkv + task.start * a.token_stride + task.head * a.size;
  T* q_gradient = arrays.qkv_gradient + task.start * a.token_stride + task.head * a.size;
  pack_transposed_as_panels(b.keys, q + width, a.token_stride, length, a.size);
  pack_transposed_as_panels(b.values, q + 2 * width, a.token_stride, length, a.size);
  pack_rows_as_panels(b.key_rows, q + width, a.token_stride, length, a.size);
  memset(b.key_gradient, 0, (size_t)(padded_length * b.padded_size) * sizeof(float));
  memset(b.value_gradient, 0, (size_t)(padded_length * b.padded_size) * sizeof(float));
  // The transposed products read whole register tiles, past the last key.
  memset(b.scores, 0, (size_t)(kQueryBlock * b.stride) * sizeof(float));
  memset(b.probability_gradients, 0, (size_t)(kQueryBlock * b.stride) * sizeof(float));

  for (int64_t first = 0; first < length; first += kQueryBlock) {
    const int64_t rows = smaller(kQueryBlock, length - first);
    const int64_t at = ((task.start + first) * a.heads + task.head) * a.size;
    copy_rows(b.queries, b.padded_size, round_up(rows, kRows), q + first * a.token_stride,
              a.token_stride, rows, a.size, 1.0f);
    copy_rows(b.context_gradient, b.padded_size, round_up(rows, kRows),
              arrays.context_gradient + at, width, rows, a.size, 1.0f);
    block_product<false>({b.queries, b.padded_size, 1}, {b.keys, a.size * kPanel, kPanel}, rows,
                         length, a.size, b.scores, b.stride);
    block_product<false>({b.context_gradient, b.padded_size, 1},
                         {b.values, a.size * kPanel, kPanel}, rows, length, a.size,
                         b.probability_gradients, b.stride);
    for (int64_t r = 0; r < rows; r += kWidth) {
      if (a.state != nullptr && r % 16 == 0) attention_kept(a, task, (first + r) / 16, b.kept);
      const int64_t count = smaller(rows - r, kWidth);
      const GradientRows of_rows(
          a, arrays.log_sum_exp + task.head * a.tokens + task.start + first + r,
          arrays.context_gradient + at + r * width, arrays.context + at + r * width, count);
      for (int64_t i = 0; i < count; i++) {
        const uint16_t* kept = a.state != nullptr ? b.kept + r % 16 + i : nullptr;
        float* score = b.scores + (r + i) * b.stride;
        float* gradient = b.probability_gradients + (r + i) * b.stride;
        row_vectors(length, [&](int64_t j, int64_t lanes) {
          const ScoreGradients g =
              score_gradients(of_rows, i, load(score + j), load(gradient + j), kept, j, lanes);
          store(score + j, g.kept);
          store(gradient + j, g.of_score);
        });
      }
    }
    block_product<true>({b.scores, 1, b.stride}, {b.context_gradient, kPanel, b.padded_size},
                        length, a.size, rows, b.value_gradient, b.padded_size);
    block_product<true>({b.probability_gradients, 1, b.stride}, {b.queries, kPanel, b.padded_size},
                        length, a.size, rows, b.key_gradient, b.padded_size);
    block_product<false>({b.probability_gradients, b.stride, 1},
                         {b.key_rows, length * kPanel, kPanel}, rows, a.size, length, b.context,
                         b.padded_size);
    for (int64_t r = 0; r < rows; r++)
      store_row(q_gradient + (first + r) * a.token_stride, b.context + r * b.padded_size, a.size,
                a.scale);
  }
  for (int64_t row = 0; row < length; row++) {
    store_row(q_gradient + row * a.token_stride + width, b.key_gradient + row * b.padded_size,
              a.size, a.scale);
    store_row(q_gradient + row * a.token_stride + 2 * width, b.value_gradient + row * b.padded_size,
              a.size, a.state != nullptr ? a.dropout.scale : 1.0f);
  }
  return true;
}

voltaic_status out_of_memory(const voltaic_call* call) {
  return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "no memory for the blocks of a sequence");
}

// tensors: qkv, offsets, state?, context, log_sum_exp; attributes: scale, probability, site,
// longest
voltaic_status attention_forward(const voltaic_call* call) {
  Attention a;
  const voltaic_status status = attention_arguments(call, 0, 1, 2, a);
  if (status != VOLTAIC_OK) return status;
  return with_float(tensor(call, 0).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const ForwardArrays<T> arrays = {data<T>(call, 0), data<T>(call, 3), data<float>(call, 4)};
    const bool enough = for_attention_tasks(a, kQueryChunk, [&](const AttentionTask& task) {
#if defined(VOLTAIC_TILES) || defined(VOLTAIC_DOTS)
      if constexpr (sizeof(T) == 2) return forward_task_on_pairs(a, task, arrays);
#endif
      return forward_task(a, task, arrays);
    });
    return enough ? VOLTAIC_OK : out_of_memory(call);
  });
}

// tensors: context_gradient, qkv, offsets, context, log_sum_exp, state?, qkv_gradient; attributes
// as forward
voltaic_status attention_backward(const voltaic_call* call) {
  Attention a;
  const voltaic_status status = attention_arguments(call, 1, 2, 5, a);
  if (status != VOLTAIC_OK) return status;
  return with_float(tensor(call, 1).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const BackwardArrays<T> arrays = {data<T>(call, 0), data<T>(call, 1), data<T>(call, 3),
                                      data<float>(call, 4), data<T>(call, 6)};
    // One task a sequence and head: the chunk is longer than any sequence.
    const bool enough = for_attention_tasks(a, larger(a.tokens, 1), [&](const AttentionTask& task) {
#if defined(VOLTAIC_TILES) || defined(VOLTAIC_DOTS)
      if constexpr (sizeof(T) == 2) return backward_task_on_pairs(a, task, arrays);
#endif
      return backward_task(a, task, arrays);
    });
    return enough ? VOLTAIC_OK : out_of_memory(call);
  });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(attention, {"attention_forward", voltaic::attention_forward},
                {"attention_backward", voltaic::attention_backward})
