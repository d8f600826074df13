// Layer normalisation over the last axis, plain and fused with dropout and the residual sum.
// Formulas and the reasons for the passes: layer_norm_rows.h.
//
// x, y, residual, sum and their gradients: [rows, width], fp32 or bf16; weight, bias, mean,
// inverse_std and parameter gradients fp32. Bytes per element, times the storage size: forward 2
// (read x, write y), fused 4 (x and residual in, sum and y out); backward 3, fused 4. FLOPs per
// element: about 8 forward, 16 backward, and 3 for a dropout number. In the fused forward,
// normalisation reads the sum as it was stored (rounded, in bf16): backward sees the same values.
//
// Measured on one Zen 4 core with AVX-512, ns an element (GB/s of the bytes above):
//                                [4096, 256] fp32   bf16          [1024, 768] fp32   bf16
//   forward                      0.17 (48)          0.21 (19)     0.15 (54)          0.19 (21)
//   backward                     0.20 (61)          0.27 (22)     0.22 (54)          0.27 (22)
//   fused forward, dropout 0     0.29 (56)          0.32 (25)     0.34 (47)          0.29 (28)
//   fused backward, dropout 0    0.32 (51)          0.40 (20)     0.33 (48)          0.39 (20)
//   fused forward, dropout 0.1   0.46 (35)          0.52 (16)     0.49 (33)          0.48 (17)
//   fused backward, dropout 0.1  0.46 (35)          0.60 (13)     0.53 (30)          0.59 (14)
// A plain loop over the same arrays in the third-level cache moves 79 to 101 GB/s a core: fp32 is
// at half of that, bf16 at a fifth, bound by its instructions.
//
// Deterministic: rows are independent, the parameter gradients are summed within fixed blocks of
// rows (rows_of_task, from the width alone) and the blocks' sums added in order.
#include "dropout_runs.h"
#include "layer_norm_rows.h"

namespace voltaic {
namespace {

// The arguments of a call, with what is done to n rows from `first` on.
template <class T>
struct Forward {
  const T* x;
  const float *weight, *bias;
  T* y;
  float *mean, *inverse_std;
  int64_t width;
  float epsilon;

  template <int n>
  VOLTAIC_INLINE void rows(int64_t first) const {
    const auto x_rows = row_block(x, first, width);
    const auto y_rows = row_block(y, first, width);
    RowSum sums[n];
    RowStatistics statistics[n];
    sum_columns(0, width, x_rows, sums);
    row_statistics(width, epsilon, sums, x_rows, statistics);
    normalise_columns<n>(0, width, statistics, weight, bias, x_rows, y_rows.writer());
    store_statistics(statistics, mean + first, inverse_std + first);
  }
};

template <class T>
voltaic_status forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const Forward<T> kernel = {data<const T>(call, 0),
                             data<const float>(call, 1),
                             data<const float>(call, 2),
                             data<T>(call, 3),
                             data<float>(call, 4),
                             data<float>(call, 5),
                             width,
                             (float)attribute(call, 0)};
  parallel_ranges(rows, rows_of_task(width), [&](int64_t begin, int64_t end) {
    rows_together(begin, end, true, [&]<int n>(int64_t first, Rows<n>) VOLTAIC_INLINED {
      kernel.template rows<n>(first);
    });
  });
  return VOLTAIC_OK;
}

template <class T>
struct Backward {
  const T *y_gradient, *x;
  const float *mean, *inverse_std, *weight;
  T* x_gradient;
  int64_t width;

  template <int n>
  VOLTAIC_INLINE void rows(int64_t first, float* weight_partial, float* bias_partial) const {
    const auto x_rows = row_block(x, first, width);
    const auto gradient = row_block(y_gradient, first, width);
    const auto x_gradient_rows = row_block(x_gradient, first, width);
    RowStatistics statistics[n];
    GradientSums<n> sums;
    GradientMeans means[n];
    load_statistics(mean + first, inverse_std + first, statistics);
    sum_gradients(0, width, statistics, weight, x_rows, gradient, weight_partial, bias_partial,
                  sums);
    gradient_means(width, sums, means);
    gradient_columns<n>(0, width, statistics, means, weight, x_rows, gradient,
                        x_gradient_rows.writer());
  }
};

template <class T>
voltaic_status backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const Backward<T> kernel = {data<const T>(call, 0),
                              data<const T>(call, 1),
                              data<const float>(call, 2),
                              data<const float>(call, 3),
                              data<const float>(call, 4),
                              data<T>(call, 5),
                              width};
  return with_parameter_partials(
      call, rows, width, data<float>(call, 6), data<float>(call, 7),
      [&](int64_t begin, int64_t end, float* weight_partial, float* bias_partial) {
        rows_together(begin, end, true, [&]<int n>(int64_t first, Rows<n>) VOLTAIC_INLINED {
          kernel.template rows<n>(first, weight_partial, bias_partial);
        });
      });
}

template <class T>
struct FusedForward {
  const T *x, *residual;
  const float *weight, *bias;
  T *sum, *y;
  float *mean, *inverse_std;
  int64_t width;
  float epsilon;
  DropoutSite site;

  template <int n>
  VOLTAIC_INLINE void rows(int64_t first, RowsDropout& dropout) const {
    const auto x_rows = row_block(x, first, width);
    const auto residual_rows = row_block(residual, first, width);
    const auto sum_rows = row_block(sum, first, width);
    const auto y_rows = row_block(y, first, width);
    RowSum sums[n];
    RowStatistics statistics[n];
    const auto add = [&](int row, int64_t i, int64_t lanes) VOLTAIC_INLINED {
      const vfloat dropped = dropout.apply(x_rows(row, i, lanes), row, i);
      return store_rounded(sum_rows.at(row, i), dropped + residual_rows(row, i, lanes), lanes);
    };
    for (int64_t begin = 0; begin < width; begin += kDropoutRun) {
      const int64_t end = smaller(width, begin + kDropoutRun);
      dropout.draw<n>(first * width, width, begin, end);
      sum_columns(begin, end, add, sums);
    }
    row_statistics(width, epsilon, sums, sum_rows, statistics);
    normalise_columns<n>(0, width, statistics, weight, bias, sum_rows, y_rows.writer());
    store_statistics(statistics, mean + first, inverse_std + first);
  }
};

template <class T>
voltaic_status fused_forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  DropoutSite site;
  const voltaic_status status = dropout_site(call, 4, 1, &site);
  if (status != VOLTAIC_OK) return status;
  const FusedForward<T> kernel = {data<const T>(call, 0),
                                  data<const T>(call, 1),
                                  data<const float>(call, 2),
                                  data<const float>(call, 3),
                                  data<T>(call, 5),
                                  data<T>(call, 6),
                                  data<float>(call, 7),
                                  data<float>(call, 8),
                                  width,
                                  (float)attribute(call, 0),
                                  site};
  parallel_ranges(rows, rows_of_task(width), [&](int64_t begin, int64_t end) {
    RowsDropout dropout(site, end * width);
    rows_together(begin, end, go_together<T>(width),
                  [&]<int n>(int64_t first, Rows<n>)
                      VOLTAIC_INLINED { kernel.template rows<n>(first, dropout); });
  });
  return VOLTAIC_OK;
}

template <class T>
struct FusedBackward {
  const T *y_gradient, *sum;
  const float *mean, *inverse_std, *weight;
  T *x_gradient, *residual_gradient;
  int64_t width;
  DropoutSite site;

  template <int n>
  VOLTAIC_INLINE void rows(int64_t first, RowsDropout& dropout, float* weight_partial,
                           float* bias_partial) const {
    const auto sum_rows = row_block(sum, first, width);
    const auto gradient = row_block(y_gradient, first, width);
    const auto x_gradient_rows = row_block(x_gradient, first, width);
    const auto residual_gradient_rows = row_block(residual_gradient, first, width);
    RowStatistics statistics[n];
    GradientSums<n> sums;
    GradientMeans means[n];
    load_statistics(mean + first, inverse_std + first, statistics);
    sum_gradients(0, width, statistics, weight, sum_rows, gradient, weight_partial, bias_partial,
                  sums);
    gradient_means(width, sums, means);
    const auto put = [&](int row, int64_t i, int64_t lanes, vfloat of_sum) VOLTAIC_INLINED {
      const vfloat stored = store_rounded(residual_gradient_rows.at(row, i), of_sum, lanes);
      store_partial(x_gradient_rows.at(row, i), dropout.apply(stored, row, i), lanes);
    };
    for (int64_t begin = 0; begin < width; begin += kDropoutRun) {
      const int64_t end = smaller(width, begin + kDropoutRun);
      dropout.draw<n>(first * width, width, begin, end);
      gradient_columns<n>(begin, end, statistics, means, weight, sum_rows, gradient, put);
    }
  }
};

template <class T>
voltaic_status fused_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  DropoutSite site;
  const voltaic_status status = dropout_site(call, 5, 0, &site);
  if (status != VOLTAIC_OK) return status;
  const FusedBackward<T> kernel = {data<const T>(call, 0),
                                   data<const T>(call, 1),
                                   data<const float>(call, 2),
                                   data<const float>(call, 3),
                                   data<const float>(call, 4),
                                   data<T>(call, 6),
                                   data<T>(call, 7),
                                   width,
                                   site};
  return with_parameter_partials(
      call, rows, width, data<float>(call, 8), data<float>(call, 9),
      [&](int64_t begin, int64_t end, float* weight_partial, float* bias_partial) {
        RowsDropout dropout(site, end * width);
        rows_together(begin, end, go_together<T>(width),
                      [&]<int n>(int64_t first, Rows<n>) VOLTAIC_INLINED {
                        kernel.template rows<n>(first, dropout, weight_partial, bias_partial);
                      });
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
