// Layer normalisation over the last axis, plain and fused with dropout and the residual sum.
// Formulas and how a row lies in registers: layer_norm_rows.cuh; the gradients:
// layer_norm_backward.cuh.
//
// x, y, residual, sum and their gradients: [rows, width], fp32 or bf16; weight, bias, mean,
// inverse_std and parameter gradients fp32. Bytes per element, times the storage size: forward 2
// (read x, write y), fused 4 (x and residual in, sum and y out); backward 3, fused 4. FLOPs per
// element: about 8 forward, 16 backward, and 10 integer operations for a dropout number. In the
// fused forward, normalisation reads the sum as it was stored (rounded, in bf16): backward sees the
// same values.
//
// Forward: a row in a warp's registers, read once and written once. Blocks of 8 warps go round over
// the rows, weight and bias in shared memory as fp32; the next row's loads are issued before this
// one is normalised, and its dropout numbers, which need no data, are drawn while they are under
// way. Rows of more than 1024 elements, of a width that is no multiple of 8, or at addresses that
// are no multiple of 16 are read again for every pass. A row's result depends on the row alone.
#include "layer_norm_backward.cuh"

namespace voltaic {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Forward {
  const T *x, *residual;  // residual and sum are null in the plain form
  const float *weight, *bias;
  T *sum, *y;
  float *mean, *inverse_std;
  int64_t rows, width;
  int lanes;
  float epsilon;
  DropoutSite dropout;
};

// Narrow rows go two at a time, so that enough bytes are under way.
template <class T, int units>
constexpr int kForwardRows = units == 1 ? 2 : 1;
template <class T, int units>
constexpr int kForwardResident = units * sizeof(T) <= 6 ? 3 : 2;

template <class T, int units>
__global__ void __launch_bounds__(kThreads, (kForwardResident<T, units>))
    forward_rows(Forward<T> a) {
  constexpr int words = kWords<T, units>, per_word = kPerWord<T>, together = kForwardRows<T, units>;
  DYNAMIC_SHARED(float, weight);
  const int width = static_cast<int>(a.width);
  float* const bias = weight + kParameterFloats<units>;
  const RowLane<T, units> at(width, a.lanes);
  const RowDropout dropout(a.dropout);
  const bool fused = a.residual != nullptr;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kThreads / at.lanes);
  int64_t row = blockIdx.x * int64_t{kThreads / at.lanes} + threadIdx.x / at.lanes;
  uint4 x_words[together][words], residual_words[together][words];
  const auto load = [&](int r, int64_t from) {
    load_row(at, a.x + from * width, from < a.rows, x_words[r]);
    load_row(at, a.residual + from * width, fused && from < a.rows, residual_words[r]);
  };
#pragma unroll
  for (int r = 0; r < together; r++) load(r, row + r * step);
  fill_parameters<T, units>(a.weight, weight, width);
  fill_parameters<T, units>(a.bias, bias, width);
  __syncthreads();
  // The lanes of a warp go round together: the first of its rows decides.
  for (int64_t warp_row = row - threadIdx.x % 32 / at.lanes; warp_row < a.rows;
       warp_row += together * step, row += together * step) {
    float v[together][words][per_word];
#pragma unroll
    for (int r = 0; r < together; r++) {
      const int64_t own_row = row + r * step;
      if (fused) {
        const uint32_t kept =
            dropout.on() ? kept_of_row(dropout, static_cast<uint64_t>(own_row) * (width / 8u), at)
                         : 0;
#pragma unroll
        for (int i = 0; i < words; i++) {
          float other[per_word];
          unpack(x_words[r][i], v[r][i]);
          unpack(residual_words[r][i], other);
#pragma unroll
          for (int k = 0; k < per_word; k++) {
            const float x =
                dropout.on() ? dropout.apply(v[r][i][k], kept, i * per_word + k) : v[r][i][k];
            v[r][i][k] = x + other[k];
          }
          const uint4 word = packed(v[r][i]);
          unpack(word, v[r][i]);  // as it was rounded
          if (own_row < a.rows && at.has(i))
            reinterpret_cast<uint4*>(a.sum + own_row * width)[at.word(i)] = word;
        }
      } else {
#pragma unroll
        for (int i = 0; i < words; i++) unpack(x_words[r][i], v[r][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < together; r++) load(r, row + (together + r) * step);
#pragma unroll
    for (int r = 0; r < together; r++) {
      const int64_t own_row = row + r * step;
      const RowStatistics statistics = row_statistics(at, v[r], width, a.epsilon);
      normalise(at, v[r], statistics, weight, bias);
      if (own_row >= a.rows) continue;
#pragma unroll
      for (int i = 0; i < words; i++)
        if (at.has(i))
          reinterpret_cast<uint4*>(a.y + own_row * width)[at.word(i)] = packed(v[r][i]);
      if (at.lane == 0) {
        a.mean[own_row] = statistics.mean;
        a.inverse_std[own_row] = statistics.inverse_std;
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kAnyThreads, 4) forward_any_rows(Forward<T> a, int threads) {
  __shared__ float room[kAnyThreads / 32];
  const int lane = threadIdx.x & (threads - 1);
  const int64_t rows_of_block = kAnyThreads / threads;
  for (int64_t row = blockIdx.x * rows_of_block + threadIdx.x / threads; row < a.rows;
       row += gridDim.x * rows_of_block) {
    const int64_t start = row * a.width;
    const T* from = a.x + start;
    if (a.residual != nullptr) {
#pragma unroll 1
      for (int64_t i = lane; i < a.width; i += threads) {
        float x = to_float(from[i]);
        if (a.dropout.state != nullptr) x = dropped(a.dropout, x, start + i);
        a.sum[start + i] = from_float<T>(x + to_float(a.residual[start + i]));
      }
      from = a.sum + start;
    }
    const RowStatistics statistics = any_row_statistics(from, a.width, a.epsilon, threads, room);
#pragma unroll 2
    for (int64_t i = lane; i < a.width; i += threads)
      a.y[start + i] = from_float<T>(fmaf(
          (to_float(from[i]) - statistics.mean) * statistics.inverse_std, a.weight[i], a.bias[i]));
    if (lane == 0) {
      a.mean[row] = statistics.mean;
      a.inverse_std[row] = statistics.inverse_std;
    }
  }
}

template <class T>
voltaic_status run_forward(const voltaic_call* call, Forward<T> a) {
  a.lanes = lanes_of_row(a.width);
  if (a.rows == 0) return VOLTAIC_OK;
  if (row_fits_a_warp(a.width) && aligned_16(a.x, a.residual, a.sum, a.y)) {
    const int64_t blocks =
        smaller(divide_up(a.rows, kThreads / a.lanes), int64_t{8} * call->stream->processors);
    return with_units(a.width, [&](auto units) {
      return launch(call, forward_rows<T, units.value>, dim3(static_cast<unsigned>(blocks)),
                    kThreads, 2 * kParameterFloats<units.value> * sizeof(float), a);
    });
  }
  return launch(call, forward_any_rows<T>, blocks_of_rows(call, a.rows, a.width), kAnyThreads, 0, a,
                threads_of_row(a.width));
}

template <class T>
voltaic_status forward(const voltaic_call* call) {
  Forward<T> a = {};
  a.rows = tensor(call, 0).shape[0];
  a.width = tensor(call, 0).shape[1];
  a.x = data<const T>(call, 0);
  a.weight = data<const float>(call, 1);
  a.bias = data<const float>(call, 2);
  a.y = data<T>(call, 3);
  a.mean = data<float>(call, 4);
  a.inverse_std = data<float>(call, 5);
  a.epsilon = static_cast<float>(attribute(call, 0));
  return run_forward(call, a);
}

template <class T>
voltaic_status fused_forward(const voltaic_call* call) {
  Forward<T> a = {};
  a.rows = tensor(call, 0).shape[0];
  a.width = tensor(call, 0).shape[1];
  a.x = data<const T>(call, 0);
  a.residual = data<const T>(call, 1);
  a.weight = data<const float>(call, 2);
  a.bias = data<const float>(call, 3);
  a.sum = data<T>(call, 5);
  a.y = data<T>(call, 6);
  a.mean = data<float>(call, 7);
  a.inverse_std = data<float>(call, 8);
  a.epsilon = static_cast<float>(attribute(call, 0));
  const voltaic_status status = dropout_site(call, 4, 1, &a.dropout);
  return status == VOLTAIC_OK ? run_forward(call, a) : status;
}

// Both forms: their first five tensors are the same, a holds the rest.
template <class T>
voltaic_status run_backward_of(const voltaic_call* call, Backward<T> a, float* weight_gradient,
                               float* bias_gradient) {
  a.rows = tensor(call, 0).shape[0];
  a.width = tensor(call, 0).shape[1];
  a.y_gradient = data<const T>(call, 0);
  a.x = data<const T>(call, 1);
  a.mean = data<const float>(call, 2);
  a.inverse_std = data<const float>(call, 3);
  a.weight = data<const float>(call, 4);
  if (a.rows == 0 || a.width == 0) return VOLTAIC_OK;
  const BackwardCut cut = cut_backward(
      a.rows, a.width,
      row_fits_a_warp(a.width) && aligned_16(a.y_gradient, a.x, a.x_gradient, a.residual_gradient));
  a.partials = static_cast<float*>(cuda::scratch(call, cut.partial_bytes));
  if (a.partials == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  return run_backward<T, normalised>(call, a, cut, weight_gradient, bias_gradient);
}

template <class T>
voltaic_status backward(const voltaic_call* call) {
  Backward<T> a = {};
  a.x_gradient = data<T>(call, 5);
  return run_backward_of(call, a, data<float>(call, 6), data<float>(call, 7));
}

template <class T>
voltaic_status fused_backward(const voltaic_call* call) {
  Backward<T> a = {};
  a.x_gradient = data<T>(call, 6);
  a.residual_gradient = data<T>(call, 7);
  const voltaic_status status = dropout_site(call, 5, 0, &a.dropout);
  if (status != VOLTAIC_OK) return status;
  return run_backward_of(call, a, data<float>(call, 8), data<float>(call, 9));
}

voltaic_status layer_norm_forward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return forward<T>(call); });
}
voltaic_status layer_norm_backward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return backward<T>(call); });
}
voltaic_status dropout_residual_layer_norm_forward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return fused_forward<T>(call); });
}
voltaic_status dropout_residual_layer_norm_backward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return fused_backward<T>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(layer_norm, {"layer_norm_forward", layer_norm_forward},
                     {"layer_norm_backward", layer_norm_backward},
                     {"dropout_residual_layer_norm_forward", dropout_residual_layer_norm_forward},
                     {"dropout_residual_layer_norm_backward", dropout_residual_layer_norm_backward})

}  // namespace voltaic
