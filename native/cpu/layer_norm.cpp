// Layer normalisation over the last axis, plain and fused with dropout and the residual sum.
// Formulas and the reasons for the passes: layer_norm_rows.h.
//
// x, y, residual, sum and their gradients: [rows, width], fp32 or bf16; weight, bias, mean,
// inverse_std and parameter gradients fp32. Bytes per element, times the storage size: forward 2
// (read x, write y), fused 4 (x and residual in, sum and y out); backward 3, fused 4. FLOPs per
// element: about 8 forward, 16 backward, and 3 for a dropout number. In the fused forward,
// normalisation reads the sum as it was stored (rounded, in bf16): backward sees the same values.
//
// Measured at [4096, 256] on one Zen 3 core, AVX2, fp32: forward 27 GB/s, backward 43; with dropout
// 16 and 18, where drawing the numbers (0.55 ns an element) takes most of the time.
//
// Deterministic: rows are independent, the parameter gradients are summed within fixed blocks of
// rows (rows_of_task, from the width alone) and the blocks' sums added in order.
#include "dropout_runs.h"
#include "layer_norm_rows.h"

namespace voltaic {
namespace {

template <class T>
voltaic_status forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const T* x = data<const T>(call, 0);
  const float *weight = data<const float>(call, 1), *bias = data<const float>(call, 2);
  T* y = data<T>(call, 3);
  float *mean = data<float>(call, 4), *inverse_std = data<float>(call, 5);
  const float epsilon = (float)attribute(call, 0);
  parallel_ranges(rows, rows_of_task(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const RowStatistics statistics =
          layer_norm_row(x + row * width, weight, bias, y + row * width, width, epsilon);
      mean[row] = statistics.mean;
      inverse_std[row] = statistics.inverse_std;
    }
  });
  return VOLTAIC_OK;
}

template <class T>
voltaic_status backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const T *y_gradient = data<const T>(call, 0), *x = data<const T>(call, 1);
  const float *mean = data<const float>(call, 2), *inverse_std = data<const float>(call, 3);
  const float* weight = data<const float>(call, 4);
  T* x_gradient = data<T>(call, 5);
  return with_parameter_partials(
      call, rows, width, data<float>(call, 6), data<float>(call, 7),
      [&](int64_t first, int64_t count, float* weight_partial, float* bias_partial) {
        for (int64_t row = first; row < first + count; row++)
          layer_norm_row_backward(y_gradient + row * width, x + row * width,
                                  {mean[row], inverse_std[row]}, weight, x_gradient + row * width,
                                  weight_partial, bias_partial, width);
      });
}

template <class T>
voltaic_status fused_forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const T *x = data<const T>(call, 0), *residual = data<const T>(call, 1);
  const float *weight = data<const float>(call, 2), *bias = data<const float>(call, 3);
  T *sum = data<T>(call, 5), *y = data<T>(call, 6);
  float *mean = data<float>(call, 7), *inverse_std = data<float>(call, 8);
  const float epsilon = (float)attribute(call, 0);
  DropoutSite site;
  const voltaic_status status = dropout_site(call, 4, 1, &site);
  if (status != VOLTAIC_OK) return status;
  const int64_t group = rows_of_group(width);
  parallel_ranges(rows, rows_of_task(width), [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += group) {
      const int64_t last = smaller(first + group, end), start = first * width;
      dropout_run(site, start, (last - first) * width, x + start, sum + start,
                  [&](vfloat dropped, int64_t k, int64_t lanes) {
                    return dropped + load_partial(residual + start + k, lanes);
                  });
      for (int64_t row = first; row < last; row++) {
        const RowStatistics statistics =
            layer_norm_row(sum + row * width, weight, bias, y + row * width, width, epsilon);
        mean[row] = statistics.mean;
        inverse_std[row] = statistics.inverse_std;
      }
    }
  });
  return VOLTAIC_OK;
}

template <class T>
voltaic_status fused_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const T *y_gradient = data<const T>(call, 0), *sum = data<const T>(call, 1);
  const float *mean = data<const float>(call, 2), *inverse_std = data<const float>(call, 3);
  const float* weight = data<const float>(call, 4);
  T *x_gradient = data<T>(call, 6), *residual_gradient = data<T>(call, 7);
  DropoutSite site;
  const voltaic_status status = dropout_site(call, 5, 0, &site);
  if (status != VOLTAIC_OK) return status;
  const int64_t group = rows_of_group(width);
  return with_parameter_partials(
      call, rows, width, data<float>(call, 8), data<float>(call, 9),
      [&](int64_t begin, int64_t count, float* weight_partial, float* bias_partial) {
        for (int64_t first = begin; first < begin + count; first += group) {
          const int64_t last = smaller(first + group, begin + count), start = first * width;
          for (int64_t row = first; row < last; row++)
            layer_norm_row_backward(
                y_gradient + row * width, sum + row * width, {mean[row], inverse_std[row]}, weight,
                residual_gradient + row * width, weight_partial, bias_partial, width);
          dropout_run(site, start, (last - first) * width, residual_gradient + start,
                      x_gradient + start, [](vfloat dropped, int64_t, int64_t) { return dropped; });
        }
      });
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

VOLTAIC_KERNELS(layer_norm, {"layer_norm_forward", layer_norm_forward},
                {"layer_norm_backward", layer_norm_backward},
                {"dropout_residual_layer_norm_forward", dropout_residual_layer_norm_forward},
                {"dropout_residual_layer_norm_backward", dropout_residual_layer_norm_backward})

}  // namespace voltaic
