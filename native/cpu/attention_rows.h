// What the forward and backward passes of attention share, whatever multiplies their blocks: the
// call's arguments, its cut into tasks, and which probabilities dropout keeps.
#pragma once
#include "ragged.h"
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

// Which probabilities of 16 rows of a score matrix dropout keeps: bit c of word 16 j + r is column
// 16 j + c of row r.
//
// Words 0 and 1 of a tile's block (r, c) are columns 2c, 2c+1 and 2c+8, 2c+9 of row r, words 2 and
// 3 those of row r + 8; the four blocks of a row lie side by side, so four lanes of a word are
// eight columns.
inline void attention_kept(const Attention& a, const AttentionTask& task, int64_t i,
                           uint16_t* kept) {
  const uint64_t matrix = (uint64_t)(task.sequence * a.heads + task.head);
  const int32_t threshold = a.dropout.threshold;
  for (int64_t j = 0; 16 * j < task.length; j++, kept += 16) {
    const uint64_t first = voltaic_attention_block(matrix, (uint32_t)i, (uint32_t)j, 0, 0);
    for (int block = 0; block < 32; block += kWidth) {
      vuint words[4];
      philox_blocks(a.state, a.site, first + (uint64_t)block, words);
      for (int half = 0; half < 2; half++) {
        uint16_t* rows = kept + 8 * half + block / 4;
        const vuint left = words[2 * half], right = words[2 * half + 1];
#if defined(__AVX512BW__) && VOLTAIC_WIDTH == 16
        const __m512i limit = _mm512_set1_epi16((short)(threshold - 1));
        const uint64_t bits =
            _pdep_u64(_mm512_cmpgt_epu16_mask((__m512i)left, limit), 0x00ff00ff00ff00ff) |
            _pdep_u64(_mm512_cmpgt_epu16_mask((__m512i)right, limit), 0xff00ff00ff00ff00);
        memcpy(rows, &bits, 8);
#elif defined(__SSE2__)
        const __m128i limit = _mm_set1_epi16((short)(threshold - 1));
        for (int part = 0; part < kWidth / 4; part++) {
          __m128i eight[2];
          memcpy(&eight[0], (const char*)&left + 16 * part, 16);
          memcpy(&eight[1], (const char*)&right + 16 * part, 16);
          for (__m128i& x : eight)  // all ones where dropped
            x = _mm_cmpeq_epi16(_mm_subs_epu16(x, limit), _mm_setzero_si128());
          rows[part] = (uint16_t)~_mm_movemask_epi8(_mm_packs_epi16(eight[0], eight[1]));
        }
#else
        for (int part = 0; part < kWidth / 4; part++) {
          uint32_t bits = 0;
          for (int c = 0; c < 8; c++) {
            const int lane = 4 * part + c / 2, shift = 16 * (c & 1);
            bits |= (uint32_t)((int32_t)(left[lane] >> shift & 0xffffu) >= threshold) << c;
            bits |= (uint32_t)((int32_t)(right[lane] >> shift & 0xffffu) >= threshold) << (c + 8);
          }
          rows[part] = (uint16_t)bits;
        }
#endif
      }
    }
  }
}

// x in the lanes of columns j to j + kWidth - 1 of a row that its words keep (16 words apart), 0
// in the others.
VOLTAIC_INLINE vfloat where_kept(const uint16_t* words, int64_t j, vfloat x) {
  const uint32_t bits = (uint32_t)words[j & ~(int64_t)15] >> (j & 15);
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return (vfloat)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)x);
#else
  return select((splat_int((int32_t)bits) & splat_int(1) << lane_numbers()) != 0, x, splat(0.0f));
#endif
}

}  // namespace
}  // namespace voltaic
