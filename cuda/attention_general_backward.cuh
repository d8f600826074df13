// Attention backward on plain fp32 arithmetic (attention_general.cuh), and delta for all two-kernel
// forms.
//
// Three kernels: delta = rowsum(context gradient * context); key and value gradients, a block for
// 32 keys over tiles of queries; query gradients, a block for 32 queries over tiles of keys. Both
// compute the scores again: 14 n^2 size FLOPs. No sums across blocks.
#pragma once
#include "attention_general.cuh"

namespace voltaic {
namespace {

constexpr int kDeltaThreads = 256;
constexpr int kDeltaRows = kDeltaThreads / 8;

// Eight lanes a token, 32 tokens of a head a block: 2 tokens heads size elements are read once.
template <class T>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(Attention a, const T* __restrict__ context_gradient, const T* __restrict__ context,
                 float* __restrict__ delta) {
  constexpr int kPack = 16 / sizeof(T);
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.heads));
  const int64_t token =
      static_cast<int64_t>(blockIdx.x / static_cast<unsigned>(a.heads)) * kDeltaRows +
      threadIdx.x / 8;
  const int x = static_cast<int>(threadIdx.x) % 8;
  float sum = 0;
  if (token < a.tokens) {
    const int64_t row = token * a.context_stride() + static_cast<int64_t>(head) * a.size;
    const T *g = context_gradient + row, *c = context + row;
    if (a.size % kPack == 0 && a.vectors) {
#pragma unroll 4
      for (int i = x * kPack; i < a.size; i += 8 * kPack) {
        const auto g_pack = load_pack(g + i), c_pack = load_pack(c + i);
#pragma unroll
        for (int e = 0; e < kPack; e++)
          sum = fmaf(to_float(g_pack.values[e]), to_float(c_pack.values[e]), sum);
      }
    } else {
      for (int i = x; i < a.size; i += 8) sum = fmaf(to_float(g[i]), to_float(c[i]), sum);
    }
  }
#pragma unroll
  for (int mask = 4; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  if (x == 0 && token < a.tokens) delta[head * a.tokens + token] = sum;
}

// Queues it; returns the result in scratch memory, float [heads, tokens], or null with the message
// written.
template <class T>
inline float* queue_delta(const voltaic_call* call, const Attention& a, const T* context_gradient,
                          const T* context, voltaic_status* status) {
  float* const delta = static_cast<float*>(cuda::scratch(
      call, static_cast<size_t>(a.heads) * static_cast<size_t>(a.tokens) * sizeof(float)));
  *status = VOLTAIC_ERROR_OUT_OF_MEMORY;
  if (delta == nullptr) return nullptr;
  *status = launch_blocks(call, delta_kernel<T>, divide_up(a.tokens, kDeltaRows) * a.heads,
                          kDeltaThreads, 0, a, context_gradient, context, delta);
  return *status == VOLTAIC_OK ? delta : nullptr;
}

template <class T>
struct PlainBackward {
  const T *context_gradient, *qkv;
  const float *log_sum_exp, *delta;
  T* qkv_gradient;
};

// Probability and score gradient, as ScoreGradients of attention_backward_keys.cuh.
__device__ __forceinline__ float plain_probability(const Attention& a, float score,
                                                   float log_sum_exp) {
  return plain_exp(fmaf(score, a.scale, -log_sum_exp));
}
__device__ __forceinline__ float plain_score_gradient(const Attention& a, float probability,
                                                      float product, float delta, bool kept) {
  return probability * (a.dropout.state == nullptr
                            ? product - delta
                            : fmaf(product, kept ? a.dropout.scale : 0.0f, -delta));
}

__device__ __forceinline__ int place(int y, int i, int x, int j) {
  return (y + 8 * i) * kWeightStride + x + 8 * j;
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kPlainThreads, plain_blocks(kPieces == 2 ? 168 : 256))
    plain_backward_keys_kernel(Attention a, PlainBackward<T> arrays) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (sizeof(T) == 2) return;  // never launched: bf16 has tensor cores there
#endif
  DYNAMIC_SHARED(float, keys);
  float* const values = keys + kPlainTile * plain_stride(a.size);
  float* const buffer = values + kPlainTile * plain_stride(a.size);
  float* const weights = buffer + kPlainTile * plain_stride(a.size);  // [keys][queries]
  float* const gradients = weights + kPlainTile * kWeightStride;      // [keys][queries]

  check_offsets(a);
  const AttentionWork work = attention_work<kPlainTile>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride();
  const int rows = work.length - work.first;
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
  const AttentionNumbers numbers(a, work);
  load_plain_tile(keys, arrays.qkv + work.qkv_row(a, work.first, 1), stride, rows, a);
  load_plain_tile(values, arrays.qkv + work.qkv_row(a, work.first, 2), stride, rows, a);
  PlainSums<kPieces> key_gradient, value_gradient;
  key_gradient.clear();
  value_gradient.clear();

#pragma unroll 1
  for (int query = 0; query < work.length; query += kPlainTile) {
    const int left = work.length - query;
    load_plain_tile(buffer, arrays.qkv + work.qkv_row(a, query, 0), stride, left, a);
    __syncthreads();
    float products[4][4];
    multiply_rows(products, keys, buffer, a.size);
    // Probabilities wait in the thread's own places of shared memory: registers are short.
#pragma unroll
    for (int j = 0; j < 4; j++) {
      // Past the end: a probability of 0.
      const float sum = x + 8 * j < left
                            ? arrays.log_sum_exp[work.statistics_row(a, query + x + 8 * j)]
                            : -kLowest;
#pragma unroll
      for (int i = 0; i < 4; i++)
        weights[place(y, i, x, j)] = plain_probability(a, products[i][j], sum);
    }
    __syncthreads();
    load_plain_tile(buffer, arrays.context_gradient + work.context_row(a, query),
                    a.context_stride(), left, a);
    __syncthreads();
    multiply_rows(products, values, buffer, a.size);
    const uint32_t kept =
        a.dropout.state != nullptr ? plain_kept<true>(numbers, query, work.first) : 0xffffu;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float delta =
          x + 8 * j < left ? arrays.delta[work.statistics_row(a, query + x + 8 * j)] : 0.0f;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const bool keep = kept >> (4 * i + j) & 1u;
        const float probability = weights[place(y, i, x, j)];
        gradients[place(y, i, x, j)] =
            plain_score_gradient(a, probability, products[i][j], delta, keep);
        if (!keep) weights[place(y, i, x, j)] = 0;
      }
    }
    __syncthreads();
    value_gradient.add(weights, buffer, a.size);
    __syncthreads();
    load_plain_tile(buffer, arrays.qkv + work.qkv_row(a, query, 0), stride, left, a);
    __syncthreads();
    key_gradient.add(gradients, buffer, a.size);
    __syncthreads();
  }
  const float key_factor[4] = {a.scale, a.scale, a.scale, a.scale};
  const float drop = a.dropout.scale, value_factor[4] = {drop, drop, drop, drop};
  key_gradient.store(arrays.qkv_gradient + work.qkv_row(a, work.first, 1), stride, rows, key_factor,
                     a);
  value_gradient.store(arrays.qkv_gradient + work.qkv_row(a, work.first, 2), stride, rows,
                       value_factor, a);
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kPlainThreads, plain_blocks(kPieces == 2 ? 128 : 168))
    plain_backward_queries_kernel(Attention a, PlainBackward<T> arrays) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (sizeof(T) == 2) return;  // never launched: bf16 has tensor cores there
#endif
  DYNAMIC_SHARED(float, queries);
  float* const context_gradient = queries + kPlainTile * plain_stride(a.size);
  float* const buffer = context_gradient + kPlainTile * plain_stride(a.size);
  float* const gradients = buffer + kPlainTile * plain_stride(a.size);  // [queries][keys]

  const AttentionWork work = attention_work<kPlainTile>(a);
  if (work.empty()) return;
  const int64_t stride = a.qkv_stride();
  const int rows = work.length - work.first;
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
  const AttentionNumbers numbers(a, work);
  load_plain_tile(queries, arrays.qkv + work.qkv_row(a, work.first, 0), stride, rows, a);
  load_plain_tile(context_gradient, arrays.context_gradient + work.context_row(a, work.first),
                  a.context_stride(), rows, a);
  PlainSums<kPieces> sums;
  sums.clear();
  float sum[4], delta[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const bool inside = y + 8 * i < rows;
    const int64_t at = work.statistics_row(a, work.first + y + 8 * i);
    sum[i] = inside ? arrays.log_sum_exp[at] : -kLowest;
    delta[i] = inside ? arrays.delta[at] : 0.0f;
  }

#pragma unroll 1
  for (int key = 0; key < work.length; key += kPlainTile) {
    const int left = work.length - key;
    load_plain_tile(buffer, arrays.qkv + work.qkv_row(a, key, 2), stride, left, a);
    __syncthreads();
    float products[4][4];
    multiply_rows(products, context_gradient, buffer, a.size);
    const uint32_t kept =
        a.dropout.state != nullptr ? plain_kept<false>(numbers, work.first, key) : 0xffffu;
    // Score gradients over probabilities wait in the thread's own places.
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        gradients[place(y, i, x, j)] =
            plain_score_gradient(a, 1.0f, products[i][j], delta[i], kept >> (4 * i + j) & 1u);
    __syncthreads();
    load_plain_tile(buffer, arrays.qkv + work.qkv_row(a, key, 1), stride, left, a);
    __syncthreads();
    multiply_rows(products, queries, buffer, a.size);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        // Columns that are no keys: 0, whatever came out.
        const float probability =
            x + 8 * j < left ? plain_probability(a, products[i][j], sum[i]) : 0.0f;
        gradients[place(y, i, x, j)] *= probability;
      }
    __syncthreads();
    sums.add(gradients, buffer, a.size);
    __syncthreads();
  }
  const float factor[4] = {a.scale, a.scale, a.scale, a.scale};
  sums.store(arrays.qkv_gradient + work.qkv_row(a, work.first, 0), stride, rows, factor, a);
}

template <class T, int kPieces>
inline voltaic_status plain_backward(const voltaic_call* call, Attention a,
                                     const PlainBackward<T>& arrays) {
  a.whole = a.longest <= kPlainTile;
  const int64_t blocks = attention_blocks(a, kPlainTile);
  const voltaic_status status =
      launch_blocks(call, plain_backward_keys_kernel<T, kPieces>, blocks, kPlainThreads,
                    plain_shared_bytes(a.size, 3, 2), a, arrays);
  if (status != VOLTAIC_OK) return status;
  return launch_blocks(call, plain_backward_queries_kernel<T, kPieces>, blocks, kPlainThreads,
                       plain_shared_bytes(a.size, 3, 1), a, arrays);
}

}  // namespace
}  // namespace voltaic
