// What the forward and backward passes of attention share, whatever multiplies their blocks: the
// call's arguments, its cut into tasks, dropout numbers for 16 rows of the score matrix, and the
// arithmetic on a row of scores.
#pragma once
#include "ragged.h"
#include "simd_math.h"
#include "simd_philox.h"

namespace voltaic {
namespace {

struct Attention {
  int64_t tokens, heads, size, sequences;
  int64_t token_stride;  // elements from a token to the next in qkv
  const int32_t* offsets;
  const int32_t* state;  // nullptr: no dropout
  uint32_t site;
  Dropout dropout;
  float scale;
};

template <class T>
struct ForwardArrays {
  const T* qkv;
  T* context;
  float* log_sum_exp;
};
template <class T>
struct BackwardArrays {
  const T *context_gradient, *qkv, *context;
  const float* log_sum_exp;
  T* qkv_gradient;
};

// Cuts one piece of memory into arrays aligned to 64 bytes; with memory null it only counts.
struct Carve {
  char* memory;
  size_t used = 0;
  template <class T>
  void take(T*& array, int64_t count) {
    array = memory == nullptr ? nullptr : (T*)(memory + used);
    used += ((size_t)count * sizeof(T) + 63) / 64 * 64;
  }
};

// Reads and checks what forward and backward have in common. longest, a hint, is not needed here.
inline voltaic_status attention_arguments(const voltaic_call* call, int qkv, int offsets, int state,
                                          Attention& a) {
  const voltaic_tensor& x = tensor(call, qkv);
  const double probability = attribute(call, 1);
  a.tokens = x.shape[0];
  a.heads = x.shape[2];
  a.size = x.shape[3];
  a.token_stride = 3 * a.heads * a.size;
  if (a.size < 1 || a.size > 128)
    return fail(call, VOLTAIC_ERROR_SHAPE, "the head size is %lld; expected 1 to 128",
                (long long)a.size);
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the dropout probability is %g; expected 0 to 1",
                probability);
  const voltaic_status status = check_offsets(call, offsets, a.tokens);
  if (status != VOLTAIC_OK) return status;
  a.sequences = tensor(call, offsets).elements - 1;
  a.offsets = data<int32_t>(call, offsets);
  a.scale = (float)attribute(call, 0);
  a.site = (uint32_t)whole(call, 2);
  a.dropout = dropout_of(probability);
  a.state = nullptr;
  if (a.dropout.threshold > 0) {
    if (!present(call, state))
      return fail(call, VOLTAIC_ERROR_ARGUMENT, "dropout of %g needs the random state; none came",
                  probability);
    a.state = data<int32_t>(call, state);
    for (int64_t s = 0; s < a.sequences;
         s++)  // the block numbers of philox.h hold 4096 tiles a side
      if (a.offsets[s + 1] - a.offsets[s] > 65536)
        return fail(call, VOLTAIC_ERROR_ARGUMENT,
                    "sequence %lld has %d tokens; attention with dropout takes at most 65536",
                    (long long)s, a.offsets[s + 1] - a.offsets[s]);
  }
  return VOLTAIC_OK;
}

// One task: the queries first to first + count - 1 (counted in the sequence) of a sequence and
// head.
struct AttentionTask {
  int64_t sequence, head, start, length, first, count;
};

// Runs body(task) for each sequence, head and run of at most chunk queries. False when body
// returned false, scratch memory having run out.
template <class Body>
inline bool for_attention_tasks(const Attention& a, int64_t chunk, Body&& body) {
  int64_t* first_task = (int64_t*)thread_scratch(0, (size_t)(a.sequences + 1) * sizeof(int64_t));
  if (first_task == nullptr) return false;
  first_task[0] = 0;
  for (int64_t s = 0; s < a.sequences; s++)
    first_task[s + 1] = first_task[s] + a.heads * divide_up(a.offsets[s + 1] - a.offsets[s], chunk);
  bool enough = true;
  auto run = [&](int64_t number) {
    int64_t low = 0, high = a.sequences;  // the sequence that holds this task
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (first_task[middle] <= number ? low : high) = middle;
    }
    const int64_t start = a.offsets[low], length = a.offsets[low + 1] - start;
    const int64_t within = number - first_task[low], chunks = divide_up(length, chunk);
    const int64_t first = within % chunks * chunk;
    if (!body(AttentionTask{low, within / chunks, start, length, first,
                            smaller(chunk, length - first)}))
      __atomic_store_n(&enough, false, __ATOMIC_RELAXED);
  };
  parallel_for(first_task[a.sequences], run);
  return enough;
}

// The dropout numbers of rows 16 i to 16 i + 15, columns 0 to length - 1 of the task's score
// matrix: row r at numbers + r * stride. Words 0 and 1 of a tile's block (r, c) are columns 2c,
// 2c+1 and 2c+8, 2c+9 of row r, words 2 and 3 those of row r + 8; the four blocks of a row lie side
// by side, so four lanes of a word are eight columns.
inline void attention_dropout_numbers(const Attention& a, const AttentionTask& task, int64_t i,
                                      uint16_t* numbers, int64_t stride) {
  for (int64_t j = 0; 16 * j < task.length; j++) {
    const uint64_t first = voltaic_attention_block((uint64_t)(task.sequence * a.heads + task.head),
                                                   (uint32_t)i, (uint32_t)j, 0, 0);
    for (int block = 0; block < 32; block += kWidth) {
      vuint words[4];
      philox_blocks(a.state, a.site, first + (uint64_t)block, words);
      for (int w = 0; w < 4; w++)
        for (int part = 0; part < kWidth / 4; part++) {
          const int64_t row = block / 4 + part + 8 * (w >> 1);
          memcpy(numbers + row * stride + 16 * j + 8 * (w & 1), (const char*)&words[w] + 16 * part,
                 16);
        }
    }
  }
}

// exp(scale * score - max) of a row of scores, 0 where dropped (numbers not null) and beyond length
// up to padded, a multiple of kWidth. Returns the sum over all, dropped ones too, and puts the
// natural log of sum exp(scale * score).
template <class P>
inline float exponentials(const float* scores, P* to, int64_t length, int64_t padded, float scale,
                          const uint16_t* numbers, int32_t threshold, float* log_sum_exp) {
  vfloat largest = splat(-kInfinity);
  for (int64_t j = 0; j < length; j += kWidth)
    largest =
        vmax(select(first_lanes(length - j), load(scores + j) * scale, splat(-kInfinity)), largest);
  const float max = reduce_max(largest);
  vfloat sum = {};
  const int64_t whole_vectors = length / kWidth * kWidth;
  for (int64_t j = 0; j < padded; j += kWidth) {
    vfloat e = vexp(load(scores + j) * scale - max);
    if (j >= whole_vectors) e = select(first_lanes(length - j), e, splat(0.0f));
    sum += e;
    if (numbers != nullptr) e = select(dropout_keep(numbers + j, threshold), e, splat(0.0f));
    store(to + j, e);
  }
  const float total = reduce_add(sum);
  *log_sum_exp = max + scalar_log(total);
  return total;
}

// One row of the backward pass. With p = exp(scale * score - log_sum_exp) and m the dropout factor
// (0 or 1 / (1 - probability)): dropped = p m, the weights of the values, and score_gradient = p (m
// probability_gradient - delta). Both are 0 beyond length up to padded.
template <class P>
inline void probability_gradients(const float* scores, const float* probability_gradients_of_row,
                                  P* dropped, P* score_gradient, int64_t length, int64_t padded,
                                  float scale, float log_sum_exp, float delta,
                                  const uint16_t* numbers, Dropout dropout) {
  for (int64_t j = 0; j < padded; j += kWidth) {
    vfloat p = vexp(load(scores + j) * scale - log_sum_exp);
    vfloat gradient = load(probability_gradients_of_row + j);
    vfloat weight = p;
    if (numbers != nullptr) {
      const vint keep = dropout_keep(numbers + j, dropout.threshold);
      weight = select(keep, p * dropout.scale, splat(0.0f));
      gradient = select(keep, gradient * dropout.scale, splat(0.0f));
    }
    vfloat of_score = p * (gradient - delta);
    if (j + kWidth > length) {
      const vint inside = first_lanes(length - j);
      weight = select(inside, weight, splat(0.0f));
      of_score = select(inside, of_score, splat(0.0f));
    }
    store(dropped + j, weight);
    store(score_gradient + j, of_score);
  }
}

// Sum of a[i] * b[i]
template <class T>
inline float dot_rows(const T* a, const T* b, int64_t size) {
  vfloat sum = {};
  for (int64_t i = 0; i < size; i += kWidth)
    sum = fma(load_partial(a + i, size - i), load_partial(b + i, size - i), sum);
  return reduce_add(sum);
}

// Stores a row times factor.
template <class T>
inline void store_row(T* to, const float* from, int64_t size, float factor) {
  for (int64_t i = 0; i < size; i += kWidth)
    store_partial(to + i, load(from + i) * factor, size - i);
}

}  // namespace
}  // namespace voltaic
