// Attention on plain fp32 arithmetic: fp32 tensors on every card (no TF32), and bf16 ones before
// sm_80. Here: tiles, products, and the forward pass; attention_general_backward.cuh has the rest.
//
// A block of 64 threads has 32 rows of a sequence and head (queries, or keys) and goes over tiles
// of 32 of the others. Thread (y, x), each 0 to 7, has the scores of rows y + 8 i and columns x + 8
// j, i and j to 3: with that the calls of the dropout (attention_dropout.cuh) are each used by two
// threads. Tiles are fp32 in shared memory, rows an odd number of 16-byte pieces apart, so that
// eight rows lie in different banks. Products read 16 bytes from both sides for 64 multiply-adds a
// thread. One buffer takes keys and values in turn, which keeps a head of 128 within the 64 KB of
// sm_75 in both passes.
//
// Sums are in an order that follows from the sequence alone, in no way from the batch.
#pragma once
#include "attention_dropout.cuh"
#include "primitives.cuh"

namespace voltaic {
namespace {

constexpr int kPlainTile = 32, kPlainThreads = 64;
// Blocks of a processor that leave `registers` a thread (two warps a block, four files of
// registers: 128, 168 or 256).
constexpr int plain_blocks(int registers) { return 65536 / (kPlainThreads * registers); }
// The rows that a warp writes to, four, then lie in different banks.
constexpr int kWeightStride = kPlainTile + 8;
constexpr float kLog2EFloat = 1.4426950408889634f;
constexpr float kLowest = -__builtin_huge_valf();

// Pieces of four numbers in a row of a tile, and the floats from a row to the next.
__host__ __device__ __forceinline__ int plain_pieces(int size) { return (size + 3) / 4; }
__host__ __device__ __forceinline__ int plain_stride(int size) {
  return 4 * (plain_pieces(size) | 1);
}
inline size_t plain_shared_bytes(int size, int tiles, int weights) {
  return static_cast<size_t>(kPlainTile) * sizeof(float) *
         static_cast<size_t>(tiles * plain_stride(size) + weights * kWeightStride);
}

// `rows` rows (at most 32) of `size` numbers, `stride` apart, to shared memory; zeros in the rest.
template <class T>
__device__ __forceinline__ void load_plain_tile(float* tile, const T* from, int64_t stride,
                                                int rows, const Attention& a) {
  const int pieces = plain_pieces(a.size), to_stride = plain_stride(a.size);
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
#pragma unroll 1
  for (int piece = x; piece < pieces; piece += 8) {
    const T* const at = from + y * stride + 4 * piece;
    Pack<T, 4> four[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      four[i] = {};
      if (y + 8 * i >= rows) continue;
      if (a.vectors) {
        four[i] = load_pack<T, 4>(at + 8 * i * stride);
      } else {
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (4 * piece + e < a.size) four[i].values[e] = at[8 * i * stride + e];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      Pack<float, 4> wide;
#pragma unroll
      for (int e = 0; e < 4; e++) wide.values[e] = to_float(four[i].values[e]);
      store_pack(tile + (y + 8 * i) * to_stride + 4 * piece, wide);
    }
  }
}

// products[i][j] = row y + 8 i of `left` times row x + 8 j of `right`.
__device__ __forceinline__ void multiply_rows(float (&products)[4][4], const float* left,
                                              const float* right, int size) {
  const int pieces = plain_pieces(size), stride = plain_stride(size);
  const float* const own = left + static_cast<int>(threadIdx.x) / 8 * stride;
  const float* const other = right + static_cast<int>(threadIdx.x) % 8 * stride;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) products[i][j] = 0;
#pragma unroll 1
  for (int piece = 0; piece < pieces; piece++) {
    Pack<float, 4> l[4], r[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      l[i] = load_pack<float, 4>(own + 8 * i * stride + 4 * piece);
      r[i] = load_pack<float, 4>(other + 8 * i * stride + 4 * piece);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          products[i][j] = fmaf(l[i].values[e], r[j].values[e], products[i][j]);
  }
}

// What a thread sums of 32 rows of a head of up to 32 kPieces: rows y + 8 i, columns 4 (x + 8 c) +
// e.
template <int kPieces>
struct PlainSums {
  float of[4][kPieces][4];
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int c = 0; c < kPieces; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) of[i][c][e] = 0;
  }
  // += weights[32][kWeightStride] times 32 rows of a tile.
  __device__ __forceinline__ void add(const float* weights, const float* tile, int size) {
    const int pieces = plain_pieces(size), stride = plain_stride(size);
    const int x = static_cast<int>(threadIdx.x) % 8;
    const float* const own = weights + static_cast<int>(threadIdx.x) / 8 * kWeightStride;
#pragma unroll 1
    for (int k = 0; k < kPlainTile; k += 4) {
      Pack<float, 4> w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = load_pack<float, 4>(own + 8 * i * kWeightStride + k);
#pragma unroll
      for (int c = 0; c < kPieces; c++) {
        if (x + 8 * c >= pieces) continue;
#pragma unroll
        for (int s = 0; s < 4; s++) {
          const auto row = load_pack<float, 4>(tile + (k + s) * stride + 4 * (x + 8 * c));
#pragma unroll
          for (int i = 0; i < 4; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
              of[i][c][e] = fmaf(w[i].values[s], row.values[e], of[i][c][e]);
        }
      }
    }
  }
  // Row y + 8 i times factor[i], for rows below `rows`.
  template <class T>
  __device__ __forceinline__ void store(T* to, int64_t stride, int rows, const float (&factor)[4],
                                        const Attention& a) const {
    const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int c = 0; c < kPieces; c++) {
        const int column = 4 * (x + 8 * c);
        if (y + 8 * i >= rows || column >= a.size) continue;
        T* const at = to + (y + 8 * i) * stride + column;
        Pack<T, 4> four;
#pragma unroll
        for (int e = 0; e < 4; e++) four.values[e] = from_float<T>(of[i][c][e] * factor[i]);
        if (a.vectors) {
          store_pack(at, four);
        } else {
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (column + e < a.size) at[e] = four.values[e];
        }
      }
  }
};

// Whether the thread's 16 scores are kept: bit 4 i + j. Rows of the tile are queries first + ...,
// columns keys; where transposed the other way round.
template <bool transposed>
__device__ __forceinline__ uint32_t plain_kept(const AttentionNumbers& numbers, int first_query,
                                               int first_key) {
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
  const int query = transposed ? x : y, key = transposed ? y : x;
  uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const uint32_t bits =
          numbers.kept(first_query / 16 + i, first_key / 16 + j, 4 * query + key / 2) >> (key & 1);
#pragma unroll
      for (int q = 0; q < 2; q++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
          const int row = 2 * i + q, column = 2 * j + k;
          kept |= (bits >> (4 * q + 2 * k) & 1u)
                  << (transposed ? 4 * column + row : 4 * row + column);
        }
    }
  return kept;
}

__device__ __forceinline__ float plain_exp(float x) { return fast_exp2(x * kLog2EFloat); }

template <class T, int kPieces>
__global__ void __launch_bounds__(kPlainThreads, plain_blocks(kPieces == 2 ? 128 : 256))
    plain_forward_kernel(Attention a, const T* __restrict__ qkv, T* __restrict__ context,
                         float* __restrict__ log_sum_exp) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (sizeof(T) == 2) return;  // never launched: bf16 has tensor cores there
#endif
  DYNAMIC_SHARED(float, queries);
  float* const buffer = queries + kPlainTile * plain_stride(a.size);
  float* const weights = buffer + kPlainTile * plain_stride(a.size);

  check_offsets(a);
  const AttentionWork work = attention_work<kPlainTile>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride();
  const int rows = work.length - work.first;
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
  const AttentionNumbers numbers(a, work);
  load_plain_tile(queries, qkv + work.qkv_row(a, work.first, 0), stride, rows, a);
  PlainSums<kPieces> sums;
  sums.clear();
  float largest[4], total[4];  // the total over the thread's own columns
#pragma unroll
  for (int i = 0; i < 4; i++) {
    largest[i] = kLowest;
    total[i] = 0;
  }

#pragma unroll 1
  for (int key = 0; key < work.length; key += kPlainTile) {
    const int left = work.length - key;
    load_plain_tile(buffer, qkv + work.qkv_row(a, key, 1), stride, left, a);
    __syncthreads();
    // Before the scores: the numbers need registers.
    const uint32_t kept =
        a.dropout.state != nullptr ? plain_kept<false>(numbers, work.first, key) : 0xffffu;
    float scores[4][4];
    multiply_rows(scores, queries, buffer, a.size);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float most = largest[i];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        scores[i][j] = x + 8 * j < left ? scores[i][j] * a.scale : kLowest;
        most = fmaxf(most, scores[i][j]);
      }
#pragma unroll
      for (int mask = 4; mask > 0; mask /= 2)
        most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, mask));
      // All scores -infinity: no difference of infinities.
      const float base = most == kLowest ? 0.0f : most;
      const float before = plain_exp(largest[i] - base);
      largest[i] = most;
      total[i] *= before;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float probability = plain_exp(scores[i][j] - base);
        total[i] += probability;
        weights[(y + 8 * i) * kWeightStride + x + 8 * j] =
            kept >> (4 * i + j) & 1u ? probability : 0.0f;
      }
#pragma unroll
      for (int c = 0; c < kPieces; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums.of[i][c][e] *= before;
    }
    __syncthreads();
    load_plain_tile(buffer, qkv + work.qkv_row(a, key, 2), stride, left, a);
    __syncthreads();
    sums.add(weights, buffer, a.size);
    __syncthreads();
  }

  float factor[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) total[i] += __shfl_xor_sync(kAllLanes, total[i], mask);
    factor[i] = a.dropout.scale / total[i];
    if (x == 0 && y + 8 * i < rows)
      log_sum_exp[work.statistics_row(a, work.first + y + 8 * i)] = largest[i] + logf(total[i]);
  }
  sums.store(context + work.context_row(a, work.first), a.context_stride(), rows, factor, a);
}

template <class T, int kPieces>
inline voltaic_status plain_forward(const voltaic_call* call, Attention a, const T* qkv, T* context,
                                    float* log_sum_exp) {
  a.whole = a.longest <= kPlainTile;
  return launch_blocks(call, plain_forward_kernel<T, kPieces>, attention_blocks(a, kPlainTile),
                       kPlainThreads, plain_shared_bytes(a.size, 2, 1), a, qkv, context,
                       log_sum_exp);
}

}  // namespace
}  // namespace voltaic
