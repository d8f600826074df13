// The kernels of softmax and log-softmax along rows. A row is read once: it stays in the registers
// of the threads that share it, a power of two from one thread to a block. Rows that are too long
// for that are read twice (rows_of_any_length: the largest and the sum grow together, then the
// results).
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

// The largest of some numbers, NaN passed over, and the sum of their exponentials relative to it:
// both grow as numbers come. A NaN shows in the sum; so does an infinity, as exp(infinity -
// infinity).
struct OnlineSum {
  float max = -INFINITY, sum = 0.0f;

  // What exponentials are relative to: while there is -infinity alone, any finite number keeps them
  // 0.
  static __device__ __forceinline__ float shift_of(float max) {
    return max == -INFINITY ? 0.0f : max;
  }
  template <int count>
  __device__ __forceinline__ void add(const float (&x)[count]) {
    float largest = max;
#pragma unroll
    for (int i = 0; i < count; i++) largest = fmaxf(largest, x[i]);
    const float shift = shift_of(largest);
    sum *= expf(max - shift);
    max = largest;
#pragma unroll
    for (int i = 0; i < count; i++) sum += expf(x[i] - shift);
  }
  // Combines the threads of a block, in every thread.
  template <int threads>
  __device__ __forceinline__ void combine(float* room_of_max, float* room_of_sum) {
    const float largest = block_max<threads>(max, room_of_max);
    sum = block_sum<threads>(sum * expf(max - shift_of(largest)), room_of_sum);
    max = largest;
  }
};

// ---- rows in registers

constexpr int kMostRowThreads = 1024;

// How threads share rows: 2^shift threads a row, each with chunks of neighbours, the row's chunks
// dealt out in turn.
struct RowTeam {
  int shift;
  __device__ __forceinline__ int threads() const { return 1 << shift; }
  __device__ __forceinline__ int member() const { return threadIdx.x & (threads() - 1); }
  __device__ __forceinline__ int64_t row() const {
    return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) >> shift;
  }

  // value of all members combined by op, in each. Every thread of the block must call it; `room` is
  // shared memory for 32 numbers, not used again before the next __syncthreads().
  template <class Op>
  __device__ __forceinline__ float combine(float value, float identity, float* room, Op op) const {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
      if (mask < threads()) value = op(value, __shfl_xor_sync(kAllLanes, value, mask));
    if (shift <= 5) return value;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = threads() / 32;
    if (lane == 0) room[warp] = value;
    __syncthreads();
    value = lane < warps ? room[warp / warps * warps + lane] : identity;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
      value = op(value, __shfl_xor_sync(kAllLanes, value, mask));
    return value;
  }
};
// Forgets what the compiler knows about step, so that it computes c * step anew for the next loop
// instead of keeping a number for each chunk in a register: sm_120's would not fit.
__device__ __forceinline__ void compute_anew(int& step) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(step));
#else
  (void)step;
#endif
}
struct Add {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Larger {  // NaN passed over
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

template <class T, int kChunk, int kChunks>
__global__ void __launch_bounds__(kMostRowThreads)
    softmax_rows(const T* x, T* y, int64_t rows, int width, RowTeam team, bool logarithm) {
  __shared__ float maxima[32], sums[32];
  const int64_t row = team.row();
  const int first = team.member() * kChunk;
  int step = team.threads() * kChunk;
  const int64_t at = row * width + first;
  const int left = row < rows ? width - first : 0;  // columns from this thread's first on

  float values[kChunks][kChunk];
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step < left) {
      const auto chunk = load_pack<T, kChunk>(x + at + c * step);
#pragma unroll
      for (int i = 0; i < kChunk; i++) values[c][i] = to_float(chunk.values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; i++) values[c][i] = -INFINITY;
    }
  }
  compute_anew(step);
  // Chunks that no member has are passed over: c * step < width is the same for the whole block.
  float max = -INFINITY;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step >= width) break;
#pragma unroll
    for (int i = 0; i < kChunk; i++) max = fmaxf(max, values[c][i]);
  }
  max = team.combine(max, -INFINITY, maxima, Larger{});
  compute_anew(step);

  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step >= width) break;
#pragma unroll
    for (int i = 0; i < kChunk; i++) {
      values[c][i] -= max;
      const float e = expf(values[c][i]);
      sum += e;
      if (!logarithm) values[c][i] = e;
    }
  }
  sum = team.combine(sum, 0.0f, sums, Add{});
  compute_anew(step);

  // Log-softmax: value - log(sum); softmax: value / sum.
  const float factor = logarithm ? 1.0f : 1.0f / sum;
  const float term = logarithm ? -logf(sum) : 0.0f;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step >= left) continue;
    Pack<T, kChunk> chunk;
#pragma unroll
    for (int i = 0; i < kChunk; i++)
      chunk.values[i] = from_float<T>(logarithm ? values[c][i] + term : values[c][i] * factor);
    store_pack(y + at + c * step, chunk);
  }
}

template <class T, int kChunk, int kChunks>
__global__ void __launch_bounds__(kMostRowThreads)
    softmax_rows_backward(const T* y, const T* y_gradient, T* x_gradient, int64_t rows, int width,
                          RowTeam team, bool logarithm) {
  __shared__ float sums[32];
  const int64_t row = team.row();
  const int first = team.member() * kChunk;
  int step = team.threads() * kChunk;
  const int64_t at = row * width + first;
  const int left = row < rows ? width - first : 0;

  Pack<T, kChunk> outputs[kChunks], gradients[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    outputs[c] = gradients[c] = {};
    if (c * step >= left) continue;
    outputs[c] = load_pack<T, kChunk>(y + at + c * step);
    gradients[c] = load_pack<T, kChunk>(y_gradient + at + c * step);
  }
  compute_anew(step);
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step >= width) break;
#pragma unroll
    for (int i = 0; i < kChunk; i++)
      sum = fmaf(logarithm ? 1.0f : to_float(outputs[c].values[i]),
                 to_float(gradients[c].values[i]), sum);
  }
  sum = team.combine(sum, 0.0f, sums, Add{});
  compute_anew(step);
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (c * step >= left) continue;
#pragma unroll
    for (int i = 0; i < kChunk; i++) {
      const float out = to_float(outputs[c].values[i]), g = to_float(gradients[c].values[i]);
      gradients[c].values[i] = from_float<T>(logarithm ? g - expf(out) * sum : out * (g - sum));
    }
    store_pack(x_gradient + at + c * step, gradients[c]);
  }
}

// ---- rows of any length: a block a row, which is read twice

constexpr int kLongRowThreads = 512;

template <class T, int kChunk, int kChunks>
__global__ void __launch_bounds__(kLongRowThreads)
    softmax_rows_of_any_length(const T* x, T* y, int64_t width, bool logarithm) {
  __shared__ float maxima[kLongRowThreads / 32], sums[kLongRowThreads / 32];
  constexpr int kStep = kLongRowThreads * kChunk;
  const T* const from = x + blockIdx.x * width;
  T* const to = y + blockIdx.x * width;
  OnlineSum total;
  for (int64_t begin = threadIdx.x * kChunk; begin < width; begin += kChunks * kStep) {
    float values[kChunks * kChunk];
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      const bool inside = begin + c * kStep < width;
      Pack<T, kChunk> chunk;
      if (inside) chunk = load_pack<T, kChunk>(from + begin + c * kStep);
#pragma unroll
      for (int i = 0; i < kChunk; i++)
        values[c * kChunk + i] = inside ? to_float(chunk.values[i]) : -INFINITY;
    }
    total.add(values);
  }
  total.combine<kLongRowThreads>(maxima, sums);
  // A row of -infinity alone has no softmax: NaN, as (-infinity) - (-infinity) gives.
  const float factor = 1.0f / total.sum, log_sum = logf(total.sum);
  for (int64_t begin = threadIdx.x * kChunk; begin < width; begin += kChunks * kStep) {
    Pack<T, kChunk> chunks[kChunks];
#pragma unroll
    for (int c = 0; c < kChunks; c++)
      if (begin + c * kStep < width) chunks[c] = load_pack<T, kChunk>(from + begin + c * kStep);
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      if (begin + c * kStep >= width) continue;
#pragma unroll
      for (int i = 0; i < kChunk; i++) {
        const float below = to_float(chunks[c].values[i]) - total.max;
        chunks[c].values[i] = from_float<T>(logarithm ? below - log_sum : expf(below) * factor);
      }
      store_pack(to + begin + c * kStep, chunks[c]);
    }
  }
}

template <class T, int kChunk, int kChunks>
__global__ void __launch_bounds__(kLongRowThreads)
    softmax_rows_of_any_length_backward(const T* y, const T* y_gradient, T* x_gradient,
                                        int64_t width, bool logarithm) {
  __shared__ float sums[kLongRowThreads / 32];
  constexpr int kStep = kLongRowThreads * kChunk;
  const int64_t row = blockIdx.x * width;
  float sum = 0.0f;
  for (int64_t begin = threadIdx.x * kChunk; begin < width; begin += kChunks * kStep) {
    Pack<T, kChunk> outputs[kChunks], gradients[kChunks];
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      outputs[c] = gradients[c] = {};
      if (begin + c * kStep >= width) continue;
      if (!logarithm) outputs[c] = load_pack<T, kChunk>(y + row + begin + c * kStep);
      gradients[c] = load_pack<T, kChunk>(y_gradient + row + begin + c * kStep);
    }
#pragma unroll
    for (int c = 0; c < kChunks; c++)
#pragma unroll
      for (int i = 0; i < kChunk; i++)
        sum = fmaf(logarithm ? 1.0f : to_float(outputs[c].values[i]),
                   to_float(gradients[c].values[i]), sum);
  }
  sum = block_sum<kLongRowThreads>(sum, sums);
  for (int64_t begin = threadIdx.x * kChunk; begin < width; begin += kChunks * kStep) {
    Pack<T, kChunk> outputs[kChunks], gradients[kChunks];
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      if (begin + c * kStep >= width) continue;
      outputs[c] = load_pack<T, kChunk>(y + row + begin + c * kStep);
      gradients[c] = load_pack<T, kChunk>(y_gradient + row + begin + c * kStep);
    }
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      if (begin + c * kStep >= width) continue;
#pragma unroll
      for (int i = 0; i < kChunk; i++) {
        const float out = to_float(outputs[c].values[i]), g = to_float(gradients[c].values[i]);
        gradients[c].values[i] = from_float<T>(logarithm ? g - expf(out) * sum : out * (g - sum));
      }
      store_pack(x_gradient + row + begin + c * kStep, gradients[c]);
    }
  }
}

}  // namespace
}  // namespace voltaic
