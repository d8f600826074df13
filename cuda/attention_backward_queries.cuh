// Attention backward on tensor cores, sequences of more than 128 tokens or heads of more than 64:
// the query gradients, and what queues all of backward. The forms are described in
// attention_backward_keys.cuh.
//
// A warp has 16 or 32 queries, their fragments and those of the context's gradient in registers;
// keys and values come in two buffers, as in attention_forward.cuh. Scores of 16 keys at a time
// become score gradients, which, rounded, are the left operand of the product with the keys.
#pragma once
#include "attention_backward_keys.cuh"

namespace voltaic {
namespace {

template <int kSize, int kFragments, int kKeys>
constexpr size_t queries_shared_bytes() {
  return static_cast<size_t>(2 * 64 * kFragments + 4 * kKeys) * kSize * sizeof(bfloat16);
}

template <int kSize, int kFragments, int kKeys>
__global__ void __launch_bounds__(kBackwardThreads, 2)
    backward_queries_kernel(Attention a, AttentionBackward arrays) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return;  // never launched: bf16 tensor cores came with sm_80
#endif
  constexpr int kRows = 64 * kFragments, kThreads = kBackwardThreads;
  constexpr int kTile = kKeys * kSize;
  DYNAMIC_SHARED(bfloat16, shared);
  bfloat16* const queries = shared;
  bfloat16* const context_gradient = queries + kRows * kSize;
  bfloat16* const buffers = context_gradient + kRows * kSize;  // keys and values of a tile, twice

  const AttentionWork work = attention_work<kRows>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride();
  const int tiles = (work.length + kKeys - 1) / kKeys;
  const auto load_keys_and_values = [&](int tile) {
    bfloat16* const to = buffers + (tile & 1) * 2 * kTile;
    const int rows = work.length - tile * kKeys;
    load_tile<kSize, kKeys, kThreads>(to, arrays.qkv + work.qkv_row(a, tile * kKeys, 1), stride,
                                      rows, a.size, a.vectors);
    load_tile<kSize, kKeys, kThreads>(to + kTile, arrays.qkv + work.qkv_row(a, tile * kKeys, 2),
                                      stride, rows, a.size, a.vectors);
  };
  load_tile<kSize, kRows, kThreads>(queries, arrays.qkv + work.qkv_row(a, work.first, 0), stride,
                                    work.length - work.first, a.size, a.vectors);
  load_tile<kSize, kRows, kThreads>(
      context_gradient, arrays.context_gradient + work.context_row(a, work.first),
      a.context_stride(), work.length - work.first, a.size, a.vectors);
  load_keys_and_values(0);
  copy_async_commit();
  if (tiles > 1) load_keys_and_values(1);
  copy_async_commit();

  const int lane = lane_number(), pair = lane % 4, group = lane / 4;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * kFragments;
  const bool active = work.first + warp_row < work.length;
  const AttentionNumbers numbers(a, work);
  const ScoreGradients score_gradient = {a.scale * kLog2E, a.dropout.scale,
                                         a.dropout.state != nullptr};
  uint32_t query[kFragments][kSize / 16][4], gradient[kFragments][kSize / 16][4];
  float sums[kFragments][kSize / 8][4], log_sum_exp[kFragments][2], delta[kFragments][2];
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
#pragma unroll
    for (int n = 0; n < kSize / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[f][n][e] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = work.first + warp_row + 16 * f + 8 * r + group;
      const bool inside = row < work.length;
      const int64_t at = work.statistics_row(a, row);
      log_sum_exp[f][r] = inside ? arrays.log_sum_exp[at] * kLog2E : kInfinityFloat;
      delta[f][r] = inside ? arrays.delta[at] : 0.0f;
    }
  }

#pragma unroll 1
  for (int tile = 0; tile < tiles; tile++) {
    if (tile == 0) {
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    if (tile > 0 && tile + 1 < tiles) {
      load_keys_and_values(tile + 1);
      copy_async_commit();
    }
    if (!active) continue;
    if (tile == 0) {
#pragma unroll
      for (int f = 0; f < kFragments; f++)
#pragma unroll
        for (int k = 0; k < kSize / 16; k++) {
          left_fragment<kSize>(query[f][k], queries, warp_row + 16 * f, 2 * k);
          left_fragment<kSize>(gradient[f][k], context_gradient, warp_row + 16 * f, 2 * k);
        }
    }
    const bfloat16* const keys = buffers + (tile & 1) * 2 * kTile;
    const bfloat16* const values = keys + kTile;
    const int left = work.length - tile * kKeys;
#pragma unroll 1
    for (int c = 0; c < kKeys / 16 && 16 * c < left; c++) {
      float scores[kFragments][2][4], products[kFragments][2][4];
#pragma unroll
      for (int f = 0; f < kFragments; f++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) scores[f][n][e] = products[f][n][e] = 0;
#pragma unroll
      for (int k = 0; k < kSize / 16; k++) {
        uint32_t right[4];
        right_of_rows<kSize>(right, keys, 16 * c, 2 * k);
#pragma unroll
        for (int f = 0; f < kFragments; f++)
          multiply_pair(scores[f][0], scores[f][1], query[f][k], right);
        right_of_rows<kSize>(right, values, 16 * c, 2 * k);
#pragma unroll
        for (int f = 0; f < kFragments; f++)
          multiply_pair(products[f][0], products[f][1], gradient[f][k], right);
      }
      uint32_t gradients[kFragments][4];
#pragma unroll
      for (int f = 0; f < kFragments; f++) {
        voltaic_random4 random = {{0, 0, 0, 0}};
        if (score_gradient.drops)
          random = numbers.of_tile((work.first + warp_row) / 16 + f, tile * (kKeys / 16) + c, lane);
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const uint32_t word = random.word[n + e / 2 * 2];
            score_gradient(scores[f][n][e], products[f][n][e], log_sum_exp[f][e / 2],
                           delta[f][e / 2],
                           e % 2 ? numbers.keeps_high(word) : numbers.keeps_low(word));
          }
        if (16 * c + 16 > left) {
#pragma unroll
          for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
              if (16 * c + 8 * n + 2 * pair + e % 2 >= left) products[f][n][e] = 0;
        }
        as_left(gradients[f], products[f][0], products[f][1]);
      }
#pragma unroll
      for (int n = 0; n < kSize / 16; n++) {
        uint32_t right[4];
        right_of_columns<kSize>(right, keys, 16 * c, 2 * n);
#pragma unroll
        for (int f = 0; f < kFragments; f++)
          multiply_pair(sums[f][2 * n], sums[f][2 * n + 1], gradients[f], right);
      }
    }
  }
  if (!active) return;
#pragma unroll
  for (int f = 0; f < kFragments; f++)
    put_accumulators<kSize>(queries, warp_row + 16 * f, 0, sums[f], a.scale, a.scale);
  __syncwarp();
  store_rows<kSize, 16 * kFragments, kSize / 8>(
      arrays.qkv_gradient + work.qkv_row(a, work.first + warp_row, 0), stride, queries, warp_row, 0,
      work.length - work.first - warp_row, a.size, a.vectors);
}

// One kernel for sequences of up to 64 kFragments tokens.
template <int kFragments>
inline voltaic_status backward_whole(const voltaic_call* call, Attention a,
                                     const AttentionBackward& arrays) {
  constexpr int kKeys = 64 * kFragments;
  a.whole = true;
  return launch_blocks(call, backward_keys_kernel<64, kFragments, 64, true>,
                       attention_blocks(a, kKeys), kBackwardThreads,
                       keys_shared_bytes<64, kFragments, 64, true>(kFragments), a, arrays);
}
// Two kernels for any length; kTile: queries of a tile of the first, keys of the second's.
template <int kSize, int kFragments, int kTile>
inline voltaic_status backward_in_two(const voltaic_call* call, Attention a,
                                      const AttentionBackward& arrays) {
  constexpr int kRows = 64 * kFragments;
  a.whole = a.longest <= kRows;
  const voltaic_status status = launch_blocks(
      call, backward_keys_kernel<kSize, kFragments, kTile, false>, attention_blocks(a, kRows),
      kBackwardThreads, keys_shared_bytes<kSize, kFragments, kTile, false>(2), a, arrays);
  if (status != VOLTAIC_OK) return status;
  return launch_blocks(call, backward_queries_kernel<kSize, kFragments, kTile>,
                       attention_blocks(a, kRows), kBackwardThreads,
                       queries_shared_bytes<kSize, kFragments, kTile>(), a, arrays);
}

}  // namespace
}  // namespace voltaic
