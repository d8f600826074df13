// The vocabulary head's pass over a tile of logits: what each segment of a row gives, and how it
// joins what is known of the row.
//
// The sample without a logarithm for each logit. The largest of n scores y - log(-log(u)) lies
// around log sum exp(y), and below theta = log sum exp(y) - 2.5 in 5 of a million cases. A score of
// theta or more needs -log(u) <= exp(y - theta), and 1 - u is at most -log(u). So an exponential
// and a comparison rule out all but about exp(2.5) = 12 logits of a segment; those alone, the
// candidates, get their two logarithms. Should the best of them lie below theta, all logits are
// candidates. The bound is loosened by more than rounding amounts to, so the sample is that of a
// plain search, whatever the bound.
#pragma once
#include "../native/engine/philox.h"
#include "loss_mean.cuh"
#include "primitives.cuh"

namespace voltaic {
namespace {

// A thread's; a quad is 4 neighbouring logits, served by one Philox block.
constexpr int kQuads = 5;
constexpr int kSegmentThreads = 256;
constexpr int kSegmentQuads = kQuads * kSegmentThreads;
constexpr int kJoinThreads = 128;
// Segments are counted in the grid's y.
constexpr int64_t kMostVocabulary = int64_t{65535} * 4 * kSegmentQuads;
constexpr float kLog2E = 1.44269504f;

struct Segments {
  int32_t first, columns;  // of the tile
  int32_t vocabulary;
  int32_t count, quads;  // how many, and the quads of each; the last may have fewer
  unsigned threads;
};
inline Segments cut_into_segments(int64_t first, int64_t columns, int64_t vocabulary) {
  const int64_t row_quads = divide_up(columns, 4);
  const int64_t count = larger(divide_up(row_quads, kSegmentQuads), 1);
  const int64_t quads = divide_up(row_quads, count);
  unsigned threads = 32;
  while (threads * kQuads < quads) threads *= 2;
  return {static_cast<int32_t>(first),      static_cast<int32_t>(columns),
          static_cast<int32_t>(vocabulary), static_cast<int32_t>(count),
          static_cast<int32_t>(quads),      threads};
}

struct Sampling {
  const int32_t* state;  // null: no samples
  uint32_t site;
  float inverse_temperature;
  bool disallow_target;
};

// What a segment of a row gives. Indices count from the tile's first; INT_MAX: none.
struct RowPart {
  float max, sum;  // the largest logit; the sum of exponentials relative to it
  int32_t prediction;
  int32_t sample;
  float score;
};

constexpr int32_t kNone = 0x7fffffff;
struct Scored {
  float score;
  int32_t index;
  // The higher score, of equals the lower index.
  __device__ __forceinline__ void meet(const Scored& other) {
    if (!(other.score > score || (other.score == score && other.index < index))) return;
    *this = other;
  }
};

struct SegmentRoom {
  float maxima[kSegmentThreads / 32], sums[kSegmentThreads / 32], weights[kSegmentThreads / 32];
  int32_t predictions[kSegmentThreads / 32];
  Scored best[kSegmentThreads / 32];
};

__device__ __forceinline__ int32_t warp_min(int32_t value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value = min(value, __shfl_xor_sync(kAllLanes, value, mask));
  return value;
}

// A row's logits and random numbers as the sampling threads need them.
struct SampledRow {
  const float* logits;
  Sampling sampling;
  uint32_t key0, key1, step, high;  // of the random state
  uint64_t first_block;
  int32_t disallowed;  // index, or -1

  __device__ __forceinline__ voltaic_random4 words(int32_t quad) const {
    const uint64_t block = first_block + static_cast<uint32_t>(quad);
    return voltaic_philox(key0, key1, static_cast<uint32_t>(block),
                          (static_cast<uint32_t>(block >> 32) & 0xffffu) | high, sampling.site,
                          step);
  }
  __device__ __forceinline__ float score(int32_t index) const {
    const voltaic_random4 four = words(index / 4);
    const uint32_t word = index & 2 ? (index & 1 ? four.word[3] : four.word[2])
                                    : (index & 1 ? four.word[1] : four.word[0]);
    float y = logits[index];
    if (index == disallowed) y -= 1000.0f;
    // Rounded before the difference, as on the CPU, not fused into it.
    return __fmul_rn(y, sampling.inverse_temperature) - logf(-logf(voltaic_uniform(word)));
  }
};

// Best score among this thread's candidates; bit 4 i + j of `candidates` is number j of quad i.
__device__ __forceinline__ Scored best_candidate(const SampledRow& row, uint32_t candidates,
                                                 int32_t first_quad) {
  Scored best = {-INFINITY, kNone};
  while (candidates != 0) {
    const int bit = __ffs(static_cast<int>(candidates)) - 1;
    candidates &= candidates - 1;
    const int32_t index = 4 * (first_quad + bit / 4 * static_cast<int32_t>(blockDim.x)) + bit % 4;
    const float score = row.score(index);
    if (score > best.score) best = {score, index};
  }
  return best;
}
// In every thread.
__device__ __forceinline__ Scored block_best(Scored best, Scored* room) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    best.meet({__shfl_xor_sync(kAllLanes, best.score, mask),
               __shfl_xor_sync(kAllLanes, best.index, mask)});
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = best;
  __syncthreads();
  best = room[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; warp++) best.meet(room[warp]);
  return best;
}

// Block (row, segment). kLoad: how many logits can be loaded at once.
template <int kLoad, bool kSampled>
__global__ void __launch_bounds__(kSegmentThreads, kLoad > 1 ? 4 : 3)
    vocabulary_segments(const float* logits, const int32_t* targets, Segments segments,
                        Sampling sampling, RowPart* parts) {
  __shared__ SegmentRoom room;
  const int64_t row = blockIdx.x;
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* const from = logits + row * segments.columns;
  const int32_t begin = blockIdx.y * segments.quads;
  const int32_t first_quad = begin + threadIdx.x;
  // Logits from here on belong to the next segment, or to nothing.
  const int32_t end = min(4 * (begin + segments.quads), segments.columns);
  const int32_t target = kSampled ? targets[row] : kIgnored;

  float x[kQuads][4];
#pragma unroll
  for (int i = 0; i < kQuads; i++) {
    const int32_t index = 4 * (first_quad + i * static_cast<int32_t>(blockDim.x));
#pragma unroll
    for (int j = 0; j < 4; j += kLoad) {
      if (index + j < end) {  // kLoad divides the columns, and what segments begin at
        const auto pack = load_pack<float, kLoad>(from + index + j);
#pragma unroll
        for (int k = 0; k < kLoad; k++) x[i][j + k] = pack.values[k];
      } else {
#pragma unroll
        for (int k = 0; k < kLoad; k++) x[i][j + k] = -INFINITY;
      }
    }
  }

  // The largest; NaN is passed over, and shows in the sum.
  float own_max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kQuads; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) own_max = fmaxf(own_max, x[i][j]);
  float max = warp_max(own_max);
  if (lane == 0) room.maxima[warp] = max;
  __syncthreads();
  max = room.maxima[0];
  for (int i = 1; i < warps; i++) max = fmaxf(max, room.maxima[i]);
  // With -infinity alone, any finite number keeps exponentials 0.
  const float shift = max == -INFINITY ? 0.0f : max;

  int32_t prediction = kNone;
  if (own_max == max && max != -INFINITY) {
#pragma unroll
    for (int i = kQuads - 1; i >= 0; i--)
#pragma unroll
      for (int j = 3; j >= 0; j--)
        if (x[i][j] == max)
          prediction = 4 * (first_quad + i * static_cast<int32_t>(blockDim.x)) + j;
  }
  prediction = warp_min(prediction);

  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kQuads; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) sum += fast_exp2((x[i][j] - shift) * kLog2E);
  sum = warp_sum(sum);

  const bool drawn = kSampled && target != kIgnored;
  SampledRow sampled;
  float inverse_temperature = 1.0f, weights = sum;
  if (drawn) {
    const int32_t* const state = sampling.state;
    sampled = {from,
               sampling,
               static_cast<uint32_t>(state[0]),
               static_cast<uint32_t>(state[1]),
               static_cast<uint32_t>(state[2]),
               static_cast<uint32_t>(state[3]) << 16,
               static_cast<uint64_t>(row) * static_cast<uint32_t>((segments.vocabulary + 3) / 4) +
                   static_cast<uint32_t>(segments.first / 4),
               sampling.disallow_target ? target - segments.first : -1};
    inverse_temperature = sampling.inverse_temperature;
    // The sum of exp(y - shift / temperature), where that is another one.
    if (inverse_temperature != 1.0f || sampled.disallowed >= 0) {
      const float scale = kLog2E * inverse_temperature;
      weights = 0.0f;
#pragma unroll
      for (int i = 0; i < kQuads; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int32_t index = 4 * (first_quad + i * static_cast<int32_t>(blockDim.x)) + j;
          const float y = x[i][j] - shift;
          weights += index == sampled.disallowed ? 0.0f : fast_exp2(y * scale);
        }
      weights = warp_sum(weights);
    }
  }
  if (lane == 0) {
    room.sums[warp] = sum;
    room.weights[warp] = weights;
    room.predictions[warp] = prediction;
  }
  __syncthreads();

  Scored best = {-INFINITY, kNone};
  if (drawn) {
    weights = room.weights[0];
    for (int i = 1; i < warps; i++) weights += room.weights[i];
    const float theta = fmaf(shift, inverse_temperature, logf(weights) - 2.5f);
    // exp(y - theta) as 2^(x scale + offset), loosened for what is rounded here and in scores.
    const float scale = kLog2E * inverse_temperature;
    const float offset = fmaf(theta, -kLog2E, fmaf(fabsf(theta), 1e-6f, 0.02f));
    uint32_t candidates = 0;
#pragma unroll
    for (int i = 0; i < kQuads; i++) {
      const int32_t quad = first_quad + i * static_cast<int32_t>(blockDim.x);
      if (4 * quad >= end) break;
      const voltaic_random4 four = sampled.words(quad);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        // 1 - u <= bound, with 2 - 2^-24 - (1 - u) = 1 + whole steps of 2^-23 from the word's bits.
        const float place = __uint_as_float(four.word[j] >> 9 | 0x3f800000u);
        const float bound = fast_exp2(fmaf(x[i][j], scale, offset));
        if (place + bound >= 2.0f - 0x1p-22f) candidates |= 1u << (4 * i + j);
      }
    }
    // -infinity, of logits or behind the end, is never the largest.
    best = block_best(best_candidate(sampled, candidates, first_quad), room.best);
    if (!(best.score >= theta)) {
      candidates = 0;
#pragma unroll
      for (int i = 0; i < kQuads; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (4 * (first_quad + i * static_cast<int32_t>(blockDim.x)) + j < end)
            candidates |= 1u << (4 * i + j);
      __syncthreads();
      best = block_best(best_candidate(sampled, candidates, first_quad), room.best);
    }
  }
  if (threadIdx.x != 0) return;
  for (int i = 1; i < warps; i++) {
    sum += room.sums[i];
    prediction = min(prediction, room.predictions[i]);
  }
  parts[row * segments.count + blockIdx.y] = {max, sum, prediction, best.index, best.score};
}

// What is known of the rows after the tiles so far: [rows][4] the largest logit, the sum of
// exponentials relative to it, the target's logit, the best sample's score; and the indices.
struct RowsKnown {
  float* statistics;
  int32_t *predictions, *samples;
};

// A thread a row.
__global__ void __launch_bounds__(kJoinThreads)
    join_segments(const float* logits, const int32_t* targets, int64_t rows, Segments segments,
                  const RowPart* parts, RowsKnown known, IndexCheck check) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kJoinThreads + threadIdx.x;
  if (row >= rows) return;
  float* const statistics = known.statistics + 4 * row;
  const int32_t target = targets[row];
  const bool draws = known.samples != nullptr && target != kIgnored;
  // Without a number above -infinity, the first is the largest.
  const int32_t none = segments.vocabulary > 0 ? 0 : -1;
  const bool begins = segments.first == 0;
  const float max_before = begins ? -INFINITY : statistics[0];
  const float sum_before = begins ? 0.0f : statistics[1];
  float target_logit = begins ? 0.0f : statistics[2];
  Scored sampled = {begins ? -INFINITY : statistics[3],
                    begins || !draws ? kNone : known.samples[row]};
  int32_t prediction = begins ? none : known.predictions[row];

  const RowPart* const of_row = parts + row * segments.count;
  float max = max_before;
#pragma unroll 4
  for (int32_t i = 0; i < segments.count; i++) {
    const RowPart part = of_row[i];
    if (part.max > max) {
      max = part.max;
      prediction = segments.first + part.prediction;
    }
    if (part.sample != kNone) sampled.meet({part.score, segments.first + part.sample});
  }
  const float shift = max == -INFINITY ? 0.0f : max;
  // A sum relative to -infinity is 0 or NaN, and remains so.
  const auto relative = [&](float of, float sum) {
    return of == -INFINITY ? sum : sum * expf(of - shift);
  };
  float sum = relative(max_before, sum_before);
#pragma unroll 4
  for (int32_t i = 0; i < segments.count; i++) sum += relative(of_row[i].max, of_row[i].sum);
  const bool good =
      target == kIgnored || in_range(check, row, target, 0, int64_t{segments.vocabulary} - 1);
  const int64_t place = int64_t{target} - segments.first;
  if (good && place >= 0 && place < segments.columns)
    target_logit = logits[row * segments.columns + place];
  statistics[0] = max;
  statistics[1] = sum;
  statistics[2] = target_logit;
  statistics[3] = sampled.score;
  known.predictions[row] = prediction;
  if (known.samples != nullptr)
    known.samples[row] = !draws ? -1 : sampled.index == kNone ? none : sampled.index;
}

}  // namespace
}  // namespace voltaic
