// Attention backward on tensor cores: bf16, sm_80 and later. The formulas are in attention.cuh;
// scores and dropout are computed again from queries, keys and log_sum_exp.
//
// backward_keys_kernel: a block has kKeys = 64 kFragments keys of a sequence and head, a warp 16 or
// 32 of them, and goes over the queries in tiles of kQueries. Scores are computed transposed, keys
// as rows: then probabilities and score gradients, rounded, are left operands of the products for
// the value and key gradients without leaving the registers, and a warp's gradients are its own.
// Whole: the block has all keys of the sequence, so it computes the query gradients as well: score
// gradients of a tile go to shared memory, and each warp multiplies a quarter of the tile's query
// gradients out of them. Queries, keys, values, context and its gradient are then read once, and
// the three gradients written once: 8 n size 2 bytes for 10 n^2 size FLOPs.
//
// backward_queries_kernel, for longer sequences: a block has 64 kFragments queries and goes over
// the keys, computing scores once more: 14 n^2 size FLOPs in all, and no sums across blocks.
//
// All sums are in an order that follows from the sequence alone.
#pragma once
#include "attention_dropout.cuh"
#include "attention_tiles.cuh"

namespace voltaic {
namespace {

struct AttentionBackward {
  const bfloat16 *context_gradient, *qkv, *context;
  const float *log_sum_exp, *delta;  // delta: where it is not computed here
  bfloat16* qkv_gradient;
};

constexpr int kBackwardThreads = 128;

template <int kSize, int kFragments, int kQueries, bool whole>
constexpr size_t keys_shared_bytes(int tiles) {
  constexpr int kKeys = 64 * kFragments;
  return static_cast<size_t>(2 * kKeys + 2 * tiles * kQueries + (whole ? kKeys : 0)) * kSize *
             sizeof(bfloat16) +
         4 * kQueries * sizeof(float);
}

// Of one 16 x 16 tile of transposed scores, dropout applied: scores become the weights of the
// context gradient, without the dropout's scale, and products (context gradient times values) score
// gradients, without the scale of the scores. Bit i of kept[q]: number i of the call that serves
// query 2 pair + q (and + 8) and the lane's key.
struct ScoreGradients {
  float scale_log2, dropout_scale;
  bool drops;
  __device__ __forceinline__ void operator()(float& score, float& product, float log_sum_exp_log2,
                                             float delta, bool kept) const {
    const float probability = fast_exp2(fmaf(score, scale_log2, -log_sum_exp_log2));
    if (drops) {
      score = kept ? probability : 0.0f;
      product = probability * fmaf(product, kept ? dropout_scale : 0.0f, -delta);
    } else {
      score = probability;
      product = probability * (product - delta);
    }
  }
};

template <int kSize, int kFragments, int kQueries, bool whole>
__global__ void __launch_bounds__(kBackwardThreads, 2)
    backward_keys_kernel(Attention a, AttentionBackward arrays) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return;  // never launched: bf16 tensor cores came with sm_80
#endif
  constexpr int kKeys = 64 * kFragments, kThreads = kBackwardThreads;
  constexpr int kTile = kQueries * kSize;
  static_assert(!whole || (kSize == 64 && kQueries == 64));
  DYNAMIC_SHARED(bfloat16, shared);
  // [2][kQueries] each; where whole, the sequence's first and second 64.
  float* const log_sum_exp = reinterpret_cast<float*>(shared);
  float* const delta = log_sum_exp + 2 * kQueries;
  bfloat16* const keys = reinterpret_cast<bfloat16*>(delta + 2 * kQueries);
  bfloat16* const values = keys + kKeys * kSize;
  bfloat16* const score_gradients =
      values + kKeys * kSize;  // [keys][queries of a tile]; context first
  bfloat16* const buffers = score_gradients + (whole ? kKeys * kSize : 0);

  check_offsets(a);
  const AttentionWork work = attention_work<kKeys, whole>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride(), context_stride = a.context_stride();
  const int tiles = (work.length + kQueries - 1) / kQueries;
  const int left = work.length - work.first;  // keys from the block's first on
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;

  // Buffers of a tile: queries, then the context's gradient.
  const auto load_queries = [&](int tile) {
    bfloat16* const to = buffers + (tile & 1) * 2 * kTile;
    const int rows = work.length - tile * kQueries;
    load_tile<kSize, kQueries, kThreads>(to, arrays.qkv + work.qkv_row(a, tile * kQueries, 0),
                                         stride, rows, a.size, a.vectors);
    load_tile<kSize, kQueries, kThreads>(
        to + kTile, arrays.context_gradient + work.context_row(a, tile * kQueries), context_stride,
        rows, a.size, a.vectors);
  };
  // A row's log_sum_exp in halvings, or its delta. Past the end: a probability of 0.
  const auto statistic = [&](const float* of, int row, float factor, float past) {
    return row < work.length ? of[work.statistics_row(a, row)] * factor : past;
  };
  // Threads below kQueries carry a tile's log_sum_exp, the next kQueries its delta.
  const auto load_statistic = [&](int tile) {
    const int row = tile * kQueries + thread % kQueries;
    if (thread < kQueries) return statistic(arrays.log_sum_exp, row, kLog2E, kInfinityFloat);
    return thread < 2 * kQueries ? statistic(arrays.delta, row, 1.0f, 0.0f) : 0.0f;
  };
  const auto put_statistic = [&](int tile, float value) {
    if (thread < 2 * kQueries)
      (thread < kQueries ? log_sum_exp : delta)[(tile & 1) * kQueries + thread % kQueries] = value;
  };

  load_tile<kSize, kKeys, kThreads>(keys, arrays.qkv + work.qkv_row(a, work.first, 1), stride, left,
                                    a.size, a.vectors);
  load_tile<kSize, kKeys, kThreads>(values, arrays.qkv + work.qkv_row(a, work.first, 2), stride,
                                    left, a.size, a.vectors);
  load_queries(0);
  if constexpr (whole) {
    load_tile<kSize, kKeys, kThreads>(score_gradients, arrays.context + work.context_row(a, 0),
                                      context_stride, left, a.size, a.vectors);
    if (tiles > 1) load_queries(1);
    copy_async_commit();
    if (thread < kKeys)
      log_sum_exp[thread] = statistic(arrays.log_sum_exp, thread, kLog2E, kInfinityFloat);
    copy_async_wait<0>();
    __syncthreads();
    // delta = rowsum(context gradient * context): eight lanes a row.
    const int piece = thread % 8;
#pragma unroll 1
    for (int row = thread / 8; row < tiles * kQueries; row += kThreads / 8) {
      const int at = tile_at<kSize>(row % kQueries, piece);
      const auto g = load_pack(buffers + row / kQueries * 2 * kTile + kTile + at);
      const auto c = load_pack(score_gradients + row / kQueries * kTile + at);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) sum = fmaf(to_float(g.values[i]), to_float(c.values[i]), sum);
#pragma unroll
      for (int mask = 4; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
      if (piece == 0) delta[row] = sum;
    }
    __syncthreads();
  } else {
    copy_async_commit();
    put_statistic(0, load_statistic(0));
    if (tiles > 1) {
      load_queries(1);
      put_statistic(1, load_statistic(1));
    }
    copy_async_commit();
  }

  const int lane = lane_number(), pair = lane % 4, group = lane / 4;
  const int warp_key = warp * 16 * kFragments;
  const bool active = warp_key < left;
  const AttentionNumbers numbers(a, work);
  const ScoreGradients score_gradient = {a.scale * kLog2E, a.dropout.scale,
                                         a.dropout.state != nullptr};
  float key_gradient[kFragments][kSize / 8][4], value_gradient[kFragments][kSize / 8][4];
#pragma unroll
  for (int f = 0; f < kFragments; f++)
#pragma unroll
    for (int n = 0; n < kSize / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) key_gradient[f][n][e] = value_gradient[f][n][e] = 0;

#pragma unroll 1
  for (int tile = 0; tile < tiles; tile++) {
    float next_statistic = 0;
    const bool loads_next = !whole && tile > 0 && tile + 1 < tiles;
    if constexpr (whole) {
      if (tile > 0) __syncthreads();  // the score gradients of the tile before have been read
    } else {
      if (tile == 0) {
        copy_async_wait<1>();
      } else {
        copy_async_wait<0>();
      }
      __syncthreads();
      if (loads_next) {
        load_queries(tile + 1);
        copy_async_commit();
        next_statistic = load_statistic(tile + 1);
      }
    }
    const bfloat16* const queries = buffers + (tile & 1) * 2 * kTile;
    const bfloat16* const context_gradient = queries + kTile;
    const int rows = work.length - tile * kQueries;

    if (active) {
#pragma unroll 1
      for (int q = 0; q < kQueries / 16 && 16 * q < rows; q++) {
        float scores[kFragments][2][4], products[kFragments][2][4];
#pragma unroll
        for (int f = 0; f < kFragments; f++)
#pragma unroll
          for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) scores[f][n][e] = products[f][n][e] = 0;
#pragma unroll
        for (int k = 0; k < kSize / 16; k++) {
          uint32_t left_rows[4], right[4];
          right_of_rows<kSize>(right, queries, 16 * q, 2 * k);
#pragma unroll
          for (int f = 0; f < kFragments; f++) {
            left_fragment<kSize>(left_rows, keys, warp_key + 16 * f, 2 * k);
            multiply_pair(scores[f][0], scores[f][1], left_rows, right);
          }
          right_of_rows<kSize>(right, context_gradient, 16 * q, 2 * k);
#pragma unroll
          for (int f = 0; f < kFragments; f++) {
            left_fragment<kSize>(left_rows, values, warp_key + 16 * f, 2 * k);
            multiply_pair(products[f][0], products[f][1], left_rows, right);
          }
        }

        const int at = (tile & 1) * kQueries + 16 * q + 2 * pair;
        const int row_tile = (tile * kQueries) / 16 + q;
#pragma unroll
        for (int f = 0; f < kFragments; f++) {
          // The calls of queries 2 pair and 2 pair + 1 (and + 8) for the lane's keys, moved so that
          // bits 0 and 2 are keys group and group + 8; bits 4 and 6 those of query + 8.
          uint32_t kept[2] = {0, 0};
          if (score_gradient.drops) {
            const uint32_t own = numbers.kept(row_tile, (work.first + warp_key) / 16 + f, lane);
#pragma unroll
            for (int i = 0; i < 2; i++)
              kept[i] = __shfl_sync(kAllLanes, own, 4 * (2 * pair + i) + group / 2) >> (group & 1);
          }
#pragma unroll
          for (int n = 0; n < 2; n++) {
            const float2 sum = *reinterpret_cast<const float2*>(log_sum_exp + at + 8 * n);
            const float2 offset = *reinterpret_cast<const float2*>(delta + at + 8 * n);
#pragma unroll
            for (int e = 0; e < 4; e++)
              score_gradient(scores[f][n][e], products[f][n][e], e % 2 ? sum.y : sum.x,
                             e % 2 ? offset.y : offset.x, kept[e % 2] >> (4 * n + e / 2 * 2) & 1u);
          }
          if (warp_key + 16 * f + 16 > left) {  // rows that are no keys: 0, whatever came out
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
              for (int e = 0; e < 4; e++)
                if (warp_key + 16 * f + group + e / 2 * 8 >= left)
                  scores[f][n][e] = products[f][n][e] = 0;
          }
        }

        uint32_t weights[kFragments][4], gradients[kFragments][4];
#pragma unroll
        for (int f = 0; f < kFragments; f++) {
          as_left(weights[f], scores[f][0], scores[f][1]);
          as_left(gradients[f], products[f][0], products[f][1]);
          if constexpr (whole) {
#pragma unroll
            for (int i = 0; i < 4; i++)
              *reinterpret_cast<uint32_t*>(
                  score_gradients +
                  tile_at<kQueries>(warp_key + 16 * f + group + i % 2 * 8, 2 * q + i / 2) +
                  2 * pair) = gradients[f][i];
          }
        }
#pragma unroll
        for (int n = 0; n < kSize / 16; n++) {
          uint32_t right[4];
          right_of_columns<kSize>(right, context_gradient, 16 * q, 2 * n);
#pragma unroll
          for (int f = 0; f < kFragments; f++)
            multiply_pair(value_gradient[f][2 * n], value_gradient[f][2 * n + 1], weights[f],
                          right);
          right_of_columns<kSize>(right, queries, 16 * q, 2 * n);
#pragma unroll
          for (int f = 0; f < kFragments; f++)
            multiply_pair(key_gradient[f][2 * n], key_gradient[f][2 * n + 1], gradients[f], right);
        }
      }
    }
    if (loads_next) put_statistic(tile + 1, next_statistic);

    if constexpr (whole) {
      __syncthreads();
      // A warp's quarter of the tile's query gradients: 32 rows, 32 columns.
      const int row = 32 * (warp % 2), piece = 4 * (warp / 2);
      if (row < rows) {
        float sums[2][4][4];
#pragma unroll
        for (int f = 0; f < 2; f++)
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[f][n][e] = 0;
#pragma unroll 1
        for (int k = 0; 16 * k < left; k++) {
          uint32_t gradients[2][4];
#pragma unroll
          for (int f = 0; f < 2; f++)
            left_fragment_transposed<kQueries>(gradients[f], score_gradients, 16 * k,
                                               row / 8 + 2 * f);
#pragma unroll
          for (int n = 0; n < 2; n++) {
            uint32_t right[4];
            right_of_columns<kSize>(right, keys, 16 * k, piece + 2 * n);
#pragma unroll
            for (int f = 0; f < 2; f++)
              multiply_pair(sums[f][2 * n], sums[f][2 * n + 1], gradients[f], right);
          }
        }
        // The tile's queries have been used: their place takes the gradients.
        bfloat16* const place = buffers + (tile & 1) * 2 * kTile;
#pragma unroll
        for (int f = 0; f < 2; f++)
          put_accumulators<kSize>(place, row + 16 * f, piece, sums[f], a.scale, a.scale);
        __syncwarp();
        store_rows<kSize, 32, 4>(arrays.qkv_gradient + work.qkv_row(a, tile * kQueries + row, 0),
                                 stride, place, row, piece, rows - row, a.size, a.vectors);
      }
    }
  }

  if constexpr (whole) __syncthreads();  // all warps have read the keys
  if (!active) return;
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
    put_accumulators<kSize>(keys, warp_key + 16 * f, 0, key_gradient[f], a.scale, a.scale);
    put_accumulators<kSize>(values, warp_key + 16 * f, 0, value_gradient[f], a.dropout.scale,
                            a.dropout.scale);
  }
  __syncwarp();
  store_rows<kSize, 16 * kFragments, kSize / 8>(
      arrays.qkv_gradient + work.qkv_row(a, work.first + warp_key, 1), stride, keys, warp_key, 0,
      left - warp_key, a.size, a.vectors);
  store_rows<kSize, 16 * kFragments, kSize / 8>(
      arrays.qkv_gradient + work.qkv_row(a, work.first + warp_key, 2), stride, values, warp_key, 0,
      left - warp_key, a.size, a.vectors);
}

}  // namespace
}  // namespace voltaic
