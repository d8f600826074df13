// What happens to the fp32 sums of a product on their way into c, four neighbouring columns at a
// time:
//   x = alpha sum + beta c (+ bias); epilogue 2: saved = x, x = activation(x);
//   epilogue 3: x *= activation'(saved), and x is added to its column's sum; c = x.
// The product kernels do it on their accumulators. finish_kernel does it on what lies in memory:
// the partial products of a split k, added in order, or what a library's product left.
//
// finish_kernel moves splits + 1 to 3 elements per element of c and computes little. A thread has 4
// columns of 4 rows, or of 8 partial products, under way at once, and a warp shares a row, so that
// whole lines move. Column sums leave a block as one row of partial sums, whose number follows from
// m and n alone (gemm_columns.cuh adds them in order).
#pragma once
#include "../native/engine/gemm_arguments.h"
#include "activation_functions.cuh"
#include "kernel.cuh"

namespace voltaic {
namespace {

// Rows of c, and of saved where it is given, are n elements long; both may be the same memory.
template <class F>
struct Epilogue {
  int32_t kind, activation;
  bool float_output;  // c is fp32, not bf16
  int32_t vector;     // columns of c and saved that may be moved at once: 4, 2 or 1
  float alpha, beta;
  int64_t n, item_stride, split_stride;  // strides in elements: c and saved; c alone
  const float* bias;                     // [n], or null
  F* saved;                              // or null
  void* c;
  float* column_sums;  // [row blocks][n], or null

  __host__ __device__ __forceinline__ void move_to(int64_t item, int64_t split) {
    const int64_t offset = item * item_stride + split * split_stride;
    c = float_output ? static_cast<void*>(static_cast<float*>(c) + offset)
                     : static_cast<void*>(static_cast<bfloat16*>(c) + offset);
    if (saved != nullptr) saved += item * item_stride;
  }
};

// Loads and stores of four neighbours, of which the first `held` (1 to 4) exist, `vector` (4, 2 or
// 1) at a time: held is a multiple of it.
template <class T>
__device__ __forceinline__ void load_four(const T* from, int held, int vector, float (&out)[4]) {
  if (vector == 4) {
    const auto pack = load_pack<T, 4>(from);
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = to_float(pack.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = i < held ? to_float(from[i]) : 0.0f;
  }
}
// Rows of the vocabulary's logits have an even number of columns: by twos, half as many stores, and
// by fours in every other row.
template <class T>
__device__ __forceinline__ void store_four(T* to, int held, int vector, const float (&x)[4]) {
  const bool at_four = reinterpret_cast<uintptr_t>(to) % (4 * sizeof(T)) == 0;
  if (vector == 4 || (vector == 2 && held == 4 && at_four)) {
    Pack<T, 4> pack;
#pragma unroll
    for (int i = 0; i < 4; i++) pack.values[i] = from_float<T>(x[i]);
    store_pack(to, pack);
  } else if (vector == 2) {
    store_pack(to, Pack<T, 2>{{from_float<T>(x[0]), from_float<T>(x[1])}});
    if (held > 2) store_pack(to + 2, Pack<T, 2>{{from_float<T>(x[2]), from_float<T>(x[3])}});
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < held) to[i] = from_float<T>(x[i]);
  }
}

template <int kind>
__device__ __forceinline__ void activate_four_as(float (&x)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] = activate<kind>(x[i]);
}
template <int kind>
__device__ __forceinline__ void scale_four_as(float (&x)[4], const float (&at)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] *= activate_gradient<kind>(at[i]);
}
// The kind is a run-time value: as a template's it would multiply the product kernels by five.
__device__ __forceinline__ void activate_four(int kind, float (&x)[4]) {
  switch (kind) {
    case kGelu:
      return activate_four_as<kGelu>(x);
    case kGeluTanh:
      return activate_four_as<kGeluTanh>(x);
    case kRelu:
      return activate_four_as<kRelu>(x);
    case kTanh:
      return activate_four_as<kTanh>(x);
    default:
      return activate_four_as<kSigmoid>(x);
  }
}
__device__ __forceinline__ void scale_four_by_gradient(int kind, float (&x)[4],
                                                       const float (&at)[4]) {
  switch (kind) {
    case kGelu:
      return scale_four_as<kGelu>(x, at);
    case kGeluTanh:
      return scale_four_as<kGeluTanh>(x, at);
    case kRelu:
      return scale_four_as<kRelu>(x, at);
    case kTanh:
      return scale_four_as<kTanh>(x, at);
    default:
      return scale_four_as<kSigmoid>(x, at);
  }
}

template <class F>
__device__ __forceinline__ void load_c(const Epilogue<F>& e, int64_t at, int held,
                                       float (&out)[4]) {
  if (e.float_output)
    load_four(static_cast<const float*>(e.c) + at, held, e.vector, out);
  else
    load_four(static_cast<const bfloat16*>(e.c) + at, held, e.vector, out);
}

template <class F>
__device__ __forceinline__ void load_bias(const Epilogue<F>& e, int64_t column, int held,
                                          float (&out)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) out[i] = e.bias != nullptr && i < held ? e.bias[column + i] : 0.0f;
}

// From the sum before an activation to c; x becomes what is stored, before its rounding. saved is
// read before, for kActivationGradient alone.
template <class F>
__device__ __forceinline__ void activate_and_store(const Epilogue<F>& e, int64_t at, int held,
                                                   const float (&saved)[4], float (&x)[4]) {
  if (e.kind == kBiasActivation) {
    if (e.saved != nullptr) store_four(e.saved + at, held, e.vector, x);
    activate_four(e.activation, x);
  }
  if (e.kind == kActivationGradient) scale_four_by_gradient(e.activation, x, saved);
  if (e.float_output)
    store_four(static_cast<float*>(e.c) + at, held, e.vector, x);
  else
    store_four(static_cast<bfloat16*>(e.c) + at, held, e.vector, x);
}

// The whole epilogue. c is read before too, where beta is not 0.
template <class F>
__device__ __forceinline__ void finish_four(const Epilogue<F>& e, int64_t at, int held,
                                            const float (&bias)[4], const float (&c)[4],
                                            const float (&saved)[4], float (&x)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[i] *= e.alpha;
    if (e.beta != 0.0f) x[i] = fmaf(e.beta, c[i], x[i]);
    if (e.bias != nullptr) x[i] += bias[i];
  }
  activate_and_store(e, at, held, saved, x);
}

// The same for a caller that has fetched nothing.
template <class F>
__device__ __forceinline__ void finish_four(const Epilogue<F>& e, int64_t at, int held,
                                            const float (&bias)[4], float (&x)[4]) {
  float c[4] = {}, saved[4] = {};
  if (e.beta != 0.0f) load_c(e, at, held, c);
  if (e.kind == kActivationGradient) load_four(e.saved + at, held, e.vector, saved);
  finish_four(e, at, held, bias, c, saved, x);
}

// ---- on what lies in memory

// Rows of a thread under way at once: of a single source; of partial products, whose loads are
// many.
constexpr int kFinishBatch = 4, kSumBatch = 1;
constexpr int kFinishThreads = 128, kFinishColumns = 128;
constexpr int kFinishRowLanes = kFinishThreads / (kFinishColumns / 4);

// Rows of a block: few where that makes too few blocks otherwise.
inline int64_t finish_rows(int64_t m, int64_t n, int batch) {
  return kFinishRowLanes * batch * (m * n >= (int64_t{1} << 22) ? 4 : 1);
}

// kSumBatch: sum = source[0] + source[1] + ..., split_stride apart, then the whole epilogue.
// Otherwise source, which may be c or saved, has alpha, beta and bias in it. An item's [m, n]
// matrices are source_stride apart. vectors: four columns of all of them move at once.
// of_gelu: known to be whole vectors times gelu's derivative, all bf16: the rows of a batch go side
// by side, without a choice at run time.
template <class T, class F, int batch, bool of_gelu>
__global__ void __launch_bounds__(kFinishThreads, 4)
    finish_kernel(const T* source, int splits, int64_t split_stride, int64_t source_stride,
                  bool vectors, int64_t m, int64_t rows_per_block, Epilogue<F> e) {
  DYNAMIC_SHARED(float, sums_of_lanes);  // [kFinishRowLanes][kFinishColumns]
  const int64_t column_blocks = (e.n + kFinishColumns - 1) / kFinishColumns;
  const int64_t row_blocks = (m + rows_per_block - 1) / rows_per_block;
  const int64_t row_block = blockIdx.x / column_blocks;  // of all items
  const int64_t item = row_block / row_blocks;
  const int lane = threadIdx.x / (kFinishColumns / 4);
  const int local_column = threadIdx.x % (kFinishColumns / 4) * 4;
  const int64_t column = blockIdx.x % column_blocks * kFinishColumns + local_column;
  const int64_t first_row = (row_block - item * row_blocks) * rows_per_block;
  const int rows =
      static_cast<int>(m - first_row < rows_per_block ? m - first_row : rows_per_block);
  const int held = e.n - column < 4 ? static_cast<int>(e.n - column) : 4;
  e.move_to(item, 0);
  source += item * source_stride;
  float bias[4], sums[4] = {};
  load_bias(e, column, held, bias);
#pragma unroll 1
  for (int row = lane; row < rows && held > 0; row += kFinishRowLanes * batch) {
    int64_t at = (first_row + row) * e.n + column;
    const int64_t step = kFinishRowLanes * e.n;
    // All loads before the first use of one.
    Pack<T, 4> raw[batch] = {};
    Pack<F, 4> raw_saved[batch] = {};
    const bool reads_saved = e.kind == kActivationGradient;
    if (vectors) {
#pragma unroll
      for (int i = 0; i < batch; i++)
        if (row + i * kFinishRowLanes < rows) {
          raw[i] = load_pack<T, 4>(source + at + i * step);
          if (reads_saved) raw_saved[i] = load_pack<F, 4>(e.saved + at + i * step);
        }
    } else {
#pragma unroll
      for (int i = 0; i < batch; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (row + i * kFinishRowLanes < rows && j < held) {
            raw[i].values[j] = source[at + i * step + j];
            if (reads_saved) raw_saved[i].values[j] = e.saved[at + i * step + j];
          }
    }
    if constexpr (batch == kSumBatch) {
#pragma unroll 8
      for (int split = 1; split < splits; split++) {
        float more[4];
        load_four(source + split * split_stride + at, held, vectors ? 4 : 1, more);
#pragma unroll
        for (int j = 0; j < 4; j++) raw[0].values[j] += more[j];
      }
    }
    if constexpr (of_gelu) {
#pragma unroll
      for (int i = 0; i < batch; i++) {
        if (row + i * kFinishRowLanes >= rows) break;
        float x[4], saved[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          x[j] = to_float(raw[i].values[j]);
          saved[j] = to_float(raw_saved[i].values[j]);
        }
        scale_four_as<kGelu>(x, saved);
        store_four(static_cast<F*>(e.c) + at + i * step, 4, 4, x);
#pragma unroll
        for (int j = 0; j < 4; j++) sums[j] += x[j];
      }
    } else {
      // Rows move up instead of being indexed, so that the activation functions stand here once.
#pragma unroll 1
      for (int i = 0; i < batch; i++) {
        if (row + i * kFinishRowLanes >= rows) break;
        float x[4], saved[4], c[4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
          x[j] = to_float(raw[0].values[j]);
          saved[j] = to_float(raw_saved[0].values[j]);
        }
        if constexpr (batch == kSumBatch) {
          if (e.beta != 0.0f) load_c(e, at, held, c);
          finish_four(e, at, held, bias, c, saved, x);
        } else {
          activate_and_store(e, at, held, saved, x);
        }
        at += step;
#pragma unroll
        for (int j = 0; j < 4; j++) sums[j] += x[j];
#pragma unroll
        for (int next = 0; next + 1 < batch; next++) {
          raw[next] = raw[next + 1];
          raw_saved[next] = raw_saved[next + 1];
        }
      }
    }
  }
  if (e.column_sums == nullptr) return;
#pragma unroll
  for (int j = 0; j < 4; j++) sums_of_lanes[lane * kFinishColumns + local_column + j] = sums[j];
  __syncthreads();
  const int64_t mine = blockIdx.x % column_blocks * kFinishColumns + threadIdx.x;
  if (mine >= e.n) return;
  float sum = sums_of_lanes[threadIdx.x];
#pragma unroll
  for (int i = 1; i < kFinishRowLanes; i++) sum += sums_of_lanes[i * kFinishColumns + threadIdx.x];
  e.column_sums[row_block * e.n + mine] = sum;
}

// Rows of column sums that finish() writes.
inline int64_t finish_row_blocks(int64_t m, int64_t n, int64_t items, int batch) {
  return divide_up(m, finish_rows(m, n, batch)) * items;
}

template <int batch, class T, class F>
voltaic_status finish(const voltaic_call* call, const T* source, int splits, int64_t split_stride,
                      int64_t source_stride, int64_t m, int64_t items, const Epilogue<F>& e) {
  const bool vectors = e.vector == 4 && split_stride % 4 == 0 && source_stride % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(source) % (4 * sizeof(T)) == 0;
  const int64_t blocks = finish_row_blocks(m, e.n, items, batch) * divide_up(e.n, kFinishColumns);
  const auto queue = [&](auto kernel) {
    return launch(call, kernel, blocks_for(blocks, 1), kFinishThreads,
                  kFinishRowLanes * kFinishColumns * sizeof(float), source, splits, split_stride,
                  source_stride, vectors, m, finish_rows(m, e.n, batch), e);
  };
  if constexpr (batch == kFinishBatch && sizeof(T) == 2)
    if (vectors && e.n % 4 == 0 && e.kind == kActivationGradient && e.activation == kGelu &&
        !e.float_output)
      return queue(finish_kernel<T, F, batch, true>);
  return queue(finish_kernel<T, F, batch, false>);
}

}  // namespace
}  // namespace voltaic
