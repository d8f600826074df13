// Attention forward on tensor cores: bf16, sm_80 and later.
//
// A block has kRows = 16 kFragments kWarps queries of a sequence and head; a warp has 16 or 32 of
// them, their fragments in registers. Keys and values come in tiles of 64, two buffers, so that a
// tile is copied while the one before is used; a sequence of up to 128 is on its way as a whole
// before the first product. The softmax is online: scores of a tile, the new largest, what was
// summed so far scaled down to it. The accumulators of the scores, rounded, are the left operand of
// the product with the values. Row sums are added across lanes once, at the end. One barrier a
// tile.
//
// Sequences up to kRows: one block, so that queries, keys and values are read once and the context
// is written once (4 n size 2 bytes for 4 n^2 size FLOPs: bound by memory up to about 200 tokens).
// There 16 rows a warp and eight warps, which hide latency better; longer ones are bound by
// arithmetic, and 32 rows a warp halve the reads of shared memory for each product.
#pragma once
#include "attention_dropout.cuh"
#include "attention_tiles.cuh"

namespace voltaic {
namespace {

constexpr int kForwardKeys = 64;

template <int kSize, int kWarps, int kFragments>
constexpr size_t forward_shared_bytes(int tiles) {
  return static_cast<size_t>(16 * kWarps * kFragments + 2 * tiles * kForwardKeys) * kSize *
         sizeof(bfloat16);
}

// What a warp has summed for 16 queries.
template <int kSize>
struct ForwardRows {
  float context[kSize / 8][4];
  float largest[2], sum[2];  // of the lane's two rows; `sum` over the lane's own columns only
};

// scores -> exp2(scale_log2 (scores - largest)), and what was summed before scaled to the new
// largest.
template <int kSize>
__device__ __forceinline__ void online_softmax(ForwardRows<kSize>& rows,
                                               float (&scores)[kForwardKeys / 8][4],
                                               float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float largest = rows.largest[r];
#pragma unroll
    for (int n = 0; n < kForwardKeys / 8; n++)
      largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    // All scores -infinity: no difference of infinities.
    const float base = largest == -kInfinityFloat ? 0.0f : largest * scale_log2;
    const float before = fast_exp2(fmaf(rows.largest[r], scale_log2, -base));
    rows.largest[r] = largest;
    float sum = rows.sum[r] * before;
#pragma unroll
    for (int n = 0; n < kSize / 8; n++) {
      rows.context[n][2 * r] *= before;
      rows.context[n][2 * r + 1] *= before;
    }
#pragma unroll
    for (int n = 0; n < kForwardKeys / 8; n++)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; e++) {
        scores[n][e] = fast_exp2(fmaf(scores[n][e], scale_log2, -base));
        sum += scores[n][e];
      }
    rows.sum[r] = sum;
  }
}

template <int kSize, int kWarps, int kFragments, int kBlocks, bool whole>
__global__ void __launch_bounds__(32 * kWarps, kBlocks)
    attention_forward_kernel(Attention a, const bfloat16* __restrict__ qkv,
                             bfloat16* __restrict__ context, float* __restrict__ log_sum_exp) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return;  // never launched: bf16 tensor cores came with sm_80
#endif
  constexpr int kRows = 16 * kFragments * kWarps, kThreads = 32 * kWarps, kKeys = kForwardKeys;
  constexpr int kTile = kKeys * kSize;
  static_assert(!whole || kRows <= 2 * kKeys);  // nothing is left to load after the first tile
  DYNAMIC_SHARED(bfloat16, shared);
  bfloat16* const queries = shared;
  bfloat16* const buffers = shared + kRows * kSize;  // keys and values of a tile, twice

  check_offsets(a);
  const AttentionWork work = attention_work<kRows, whole>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride();
  const int tiles = (work.length + kKeys - 1) / kKeys;
  const auto load_keys_and_values = [&](int tile) {
    bfloat16* const to = buffers + (tile & 1) * 2 * kTile;
    const int rows = work.length - tile * kKeys;
    load_tile<kSize, kKeys, kThreads>(to, qkv + work.qkv_row(a, tile * kKeys, 1), stride, rows,
                                      a.size, a.vectors);
    load_tile<kSize, kKeys, kThreads>(to + kTile, qkv + work.qkv_row(a, tile * kKeys, 2), stride,
                                      rows, a.size, a.vectors);
  };
  load_tile<kSize, kRows, kThreads>(queries, qkv + work.qkv_row(a, work.first, 0), stride,
                                    work.length - work.first, a.size, a.vectors);
  load_keys_and_values(0);
  copy_async_commit();
  if (tiles > 1) load_keys_and_values(1);
  copy_async_commit();

  const int lane = lane_number(), pair = lane % 4, group = lane / 4;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16 * kFragments;
  const bool active = work.first + warp_row < work.length;
  const AttentionNumbers numbers(a, work);
  // The largest score is looked for before the scale: a negative one changes the queries' sign.
  // Never 0, so that -infinity, the score of what is no key, stays -infinity.
  const float scale_log2 = fmaxf(fabsf(a.scale) * kLog2E, 1e-30f);
  const uint32_t sign = a.scale < 0 ? 0x80008000u : 0u;
  uint32_t query[kFragments][kSize / 16][4];
  ForwardRows<kSize> sums[kFragments];
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sums[f].largest[r] = -kInfinityFloat;
      sums[f].sum[r] = 0;
    }
#pragma unroll
    for (int n = 0; n < kSize / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[f].context[n][e] = 0;
  }

#pragma unroll 1
  for (int tile = 0; tile < tiles; tile++) {
    if (tile == 0) {
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    // Everyone is done with the tile before: its buffer is free.
    if (!whole && tile > 0 && tile + 1 < tiles) {
      load_keys_and_values(tile + 1);
      copy_async_commit();
    }
    if (!active) continue;
    // Two tiles at most read the queries twice: between the products their registers are free.
    if (whole || tile == 0) {
#pragma unroll
      for (int f = 0; f < kFragments; f++)
#pragma unroll
        for (int k = 0; k < kSize / 16; k++) {
          left_fragment<kSize>(query[f][k], queries, warp_row + 16 * f, 2 * k);
#pragma unroll
          for (int i = 0; i < 4; i++) query[f][k][i] ^= sign;
        }
    }
    const bfloat16* const keys = buffers + (tile & 1) * 2 * kTile;
    const bfloat16* const values = keys + kTile;

    float scores[kFragments][kKeys / 8][4];
#pragma unroll
    for (int f = 0; f < kFragments; f++)
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) scores[f][n][e] = 0;
#pragma unroll
    for (int k = 0; k < kSize / 16; k++)
#pragma unroll
      for (int n = 0; n < kKeys / 16; n++) {
        uint32_t b[4];
        right_of_rows<kSize>(b, keys, 16 * n, 2 * k);
#pragma unroll
        for (int f = 0; f < kFragments; f++)
          multiply_pair(scores[f][2 * n], scores[f][2 * n + 1], query[f][k], b);
      }

    const int left = work.length - tile * kKeys;
    if (left < kKeys) {
#pragma unroll
      for (int f = 0; f < kFragments; f++)
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (8 * n + 2 * pair + e % 2 >= left) scores[f][n][e] = -kInfinityFloat;
    }
#pragma unroll
    for (int f = 0; f < kFragments; f++) online_softmax<kSize>(sums[f], scores[f], scale_log2);

    if (a.dropout.state != nullptr) {
      const int row_tile = (work.first + warp_row) / 16;
#pragma unroll
      for (int n = 0; n < kKeys / 16; n++)
#pragma unroll
        for (int f = 0; f < kFragments; f++) {
          const voltaic_random4 random =
              numbers.of_tile(row_tile + f, tile * (kKeys / 16) + n, lane);
#pragma unroll
          for (int w = 0; w < 4;
               w++) {  // words: row group, columns 2 pair, + 8; then row group + 8
            float* const two = &scores[f][2 * n + w % 2][w / 2 * 2];
            two[0] = numbers.keeps_low(random.word[w]) ? two[0] : 0.0f;
            two[1] = numbers.keeps_high(random.word[w]) ? two[1] : 0.0f;
          }
        }
    }

#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
      uint32_t probabilities[kFragments][4];
#pragma unroll
      for (int f = 0; f < kFragments; f++)
        as_left(probabilities[f], scores[f][2 * k], scores[f][2 * k + 1]);
#pragma unroll
      for (int n = 0; n < kSize / 16; n++) {
        uint32_t b[4];
        right_of_columns<kSize>(b, values, 16 * k, 2 * n);
#pragma unroll
        for (int f = 0; f < kFragments; f++)
          multiply_pair(sums[f].context[2 * n], sums[f].context[2 * n + 1], probabilities[f], b);
      }
    }
  }
  if (!active) return;

    // The warp's queries are in registers: their place in shared memory takes its context.
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = sums[f].sum[r];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      factor[r] = a.dropout.scale / sum;
      const int row = work.first + warp_row + 16 * f + 8 * r + group;
      if (pair == 0 && row < work.length)
        log_sum_exp[work.statistics_row(a, row)] = sums[f].largest[r] * fabsf(a.scale) + logf(sum);
    }
    put_accumulators<kSize>(queries, warp_row + 16 * f, 0, sums[f].context, factor[0], factor[1]);
  }
  __syncwarp();
  store_rows<kSize, 16 * kFragments, kSize / 8>(
      context + work.context_row(a, work.first + warp_row), a.context_stride(), queries, warp_row,
      0, work.length - work.first - warp_row, a.size, a.vectors);
}

template <int kSize, int kWarps, int kFragments, int kBlocks, bool whole>
inline voltaic_status forward_on_tensor_cores(const voltaic_call* call, Attention a,
                                              const bfloat16* qkv, bfloat16* context,
                                              float* log_sum_exp) {
  constexpr int kRows = 16 * kWarps * kFragments;
  a.whole = whole || a.longest <= kRows;
  const size_t shared =
      forward_shared_bytes<kSize, kWarps, kFragments>(a.longest > kForwardKeys ? 2 : 1);
  return launch_blocks(call, attention_forward_kernel<kSize, kWarps, kFragments, kBlocks, whole>,
                       attention_blocks(a, kRows), 32 * kWarps, shared, a, qkv, context,
                       log_sum_exp);
}

}  // namespace
}  // namespace voltaic
