// Layer normalisation of rows, both ways: what the layer_norm and embedding kernels share.
//
//   mean = sum x / width
//   variance = sum (x - mean)^2 / width
//   inverse_std = 1 / sqrt(variance + epsilon)
//   x_hat = (x - mean) inverse_std
//   y = x_hat weight + bias
//
//   g = y_gradient weight
//   x_gradient = inverse_std (g - mean(g) - x_hat mean(g x_hat))
//   weight_gradient = sum over rows of y_gradient x_hat
//   bias_gradient = sum over rows of y_gradient
//
// A row stays in the L1 cache over its passes. The second pass centres on the first pass's mean and
// sums both the deviations and their squares, which corrects the mean's rounding: a constant row
// gives exactly the bias even with epsilon 1e-12, where 1 / sqrt(epsilon) would otherwise blow the
// last bit of the mean up. The order of the sums is fixed by width alone, so a row's result depends
// on neither the other rows nor the threads.
#pragma once
#include "ragged.h"
#include "vector_loops.h"

namespace voltaic {
namespace {

struct RowStatistics {
  float mean, inverse_std;
};

template <class T>
VOLTAIC_INLINE RowStatistics row_statistics(const T* x, int64_t width, float epsilon) {
  const float share = 1.0f / (float)larger(width, 1);
  vfloat sum[4] = {}, deviation[4] = {}, square[4] = {};
  for_summed_vectors(width, [&](int64_t i, int64_t lanes, int chain) {
    sum[chain] += load_partial(x + i, lanes);
  });
  const float rough = add_chains(sum) * share;
  for_summed_vectors(width, [&](int64_t i, int64_t lanes, int chain) {
    const vfloat d = select(first_lanes(lanes), load_partial(x + i, lanes) - rough, splat(0.0f));
    deviation[chain] += d;
    square[chain] = fma(d, d, square[chain]);
  });
  const float correction = add_chains(deviation) * share;
  const float variance = add_chains(square) * share - correction * correction;
  const float floor = variance < 0.0f ? 0.0f : variance;  // a NaN passes
  return {rough + correction, 1.0f / __builtin_sqrtf(floor + epsilon)};
}

// Y may be wider than X: the embedding kernel keeps fp32 until after its dropout.
template <class X, class Y>
VOLTAIC_INLINE RowStatistics layer_norm_row(const X* x, const float* weight, const float* bias,
                                            Y* y, int64_t width, float epsilon) {
  const RowStatistics row = row_statistics(x, width, epsilon);
  for_vectors(0, width, [&](int64_t i, int64_t lanes) {
    const vfloat x_hat = (load_partial(x + i, lanes) - row.mean) * row.inverse_std;
    store_partial(y + i, fma(x_hat, load_partial(weight + i, lanes), load_partial(bias + i, lanes)),
                  lanes);
  });
  return row;
}

// Adds the row's share to weight_partial and bias_partial.
template <class G, class X, class Y>
VOLTAIC_INLINE void layer_norm_row_backward(const G* y_gradient, const X* x, RowStatistics row,
                                            const float* weight, Y* x_gradient,
                                            float* weight_partial, float* bias_partial,
                                            int64_t width) {
  const float share = 1.0f / (float)larger(width, 1);
  vfloat sum[4] = {}, product[4] = {};
  for_summed_vectors(width, [&](int64_t i, int64_t lanes, int chain) {
    const vfloat gradient = load_partial(y_gradient + i, lanes);
    const vfloat x_hat = (load_partial(x + i, lanes) - row.mean) * row.inverse_std;
    const vfloat g = gradient * load_partial(weight + i, lanes);
    sum[chain] += g;
    product[chain] = fma(g, select(first_lanes(lanes), x_hat, splat(0.0f)), product[chain]);
    store_partial(weight_partial + i, fma(gradient, x_hat, load_partial(weight_partial + i, lanes)),
                  lanes);
    store_partial(bias_partial + i, gradient + load_partial(bias_partial + i, lanes), lanes);
  });
  const float mean_g = add_chains(sum) * share, mean_product = add_chains(product) * share;
  for_vectors(0, width, [&](int64_t i, int64_t lanes) {
    const vfloat x_hat = (load_partial(x + i, lanes) - row.mean) * row.inverse_std;
    const vfloat g = load_partial(y_gradient + i, lanes) * load_partial(weight + i, lanes);
    store_partial(x_gradient + i, fma(x_hat, splat(-mean_product), g - mean_g) * row.inverse_std,
                  lanes);
  });
}

// ---- the cut into tasks, from the shape alone
// Rows of a task: about 16384 elements (64 KiB of fp32), so that tasks are worth their start and
// partials stay few.
inline int64_t rows_of_task(int64_t width) {
  const int64_t rows = divide_up(16384, larger(width, 1));
  return rows < 16 ? 16 : rows > 256 ? 256 : rows;
}

// Runs body(first_row, rows, weight_partial, bias_partial) for each task's rows with partials of
// zeros, then adds the partials to the gradients in the order of the tasks.
template <class Body>
inline voltaic_status with_parameter_partials(const voltaic_call* call, int64_t rows, int64_t width,
                                              float* weight_gradient, float* bias_gradient,
                                              const Body& body) {
  const int64_t grain = rows_of_task(width), tasks = divide_up(rows, grain);
  if (tasks == 0 || width == 0) return VOLTAIC_OK;
  const int64_t stride =
      2 * divide_up(width, 16) * 16;  // whole cache lines, shared by no two tasks
  float* partials = (float*)thread_scratch(0, (size_t)(tasks * stride) * 4);
  if (partials == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY,
                "no memory for %lld partial sums of %lld columns", (long long)tasks,
                (long long)width);
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    float* partial = partials + begin / grain * stride;
    memset(partial, 0, (size_t)stride * 4);
    body(begin, end - begin, partial, partial + stride / 2);
  });
  parallel_ranges(width, 8 * kWidth, [&](int64_t begin, int64_t end) {
    for_vectors(begin, end, [&](int64_t i, int64_t lanes) {
      vfloat weight_sum = splat(0.0f), bias_sum = splat(0.0f);
      for (int64_t task = 0; task < tasks; task++) {
        weight_sum += load_partial(partials + task * stride + i, lanes);
        bias_sum += load_partial(partials + task * stride + stride / 2 + i, lanes);
      }
      store_partial(weight_gradient + i, load_partial(weight_gradient + i, lanes) + weight_sum,
                    lanes);
      store_partial(bias_gradient + i, load_partial(bias_gradient + i, lanes) + bias_sum, lanes);
    });
  });
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
