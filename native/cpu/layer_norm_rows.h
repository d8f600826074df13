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
// A row stays in the L1 cache over its passes. With AVX-512, four rows go through them together:
// their sums, reductions, roots and divisions run side by side, where one row's would wait for each
// other, and a vector of the weight, or of the partial gradients, is read once for all four. The
// registers of other instruction sets have room for one row, in four independent sums. How a row is
// summed depends on its width alone, so its result depends on neither the other rows nor the
// threads.
//
// The second pass centres on the first pass's mean and sums both the deviations and their squares,
// which corrects the mean's rounding: a constant row gives exactly the bias even with epsilon
// 1e-12, where 1 / sqrt(epsilon) would otherwise blow the last bit of the mean up.
#pragma once
#include "ragged.h"
#include "vector_loops.h"

namespace voltaic {
namespace {

constexpr int kRowsTogether = kWidth == 16 ? 4 : 1;
constexpr int kChains = 4 / kRowsTogether;  // independent sums of a row

// Runs body(first_row, rows) for the rows begin to end - 1, where rows is a constant type:
// kRowsTogether while there are, and 1 for what is left; or always 1, which gives the same bits.
template <int n>
struct Rows {};
template <class Body>
VOLTAIC_INLINE void rows_together(int64_t begin, int64_t end, bool together, Body&& body) {
  int64_t row = begin;
  if (together && kRowsTogether > 1)
    for (; row + kRowsTogether <= end; row += kRowsTogether) body(row, Rows<kRowsTogether>());
  for (; row < end; row++) body(row, Rows<1>());
}
// Kernels that move four arrays wait for memory in fp32: long rows then go one at a time, as memory
// lies ([4096, 256] on Zen 4: 0.53 ns an element rather than 0.78).
template <class T>
inline bool go_together(int64_t width) {
  return sizeof(T) == sizeof(bfloat16) || width < 256;
}

// body(row) for each of the rows. Written out: with constants for numbers from the start, arrays of
// a few vectors become registers.
template <int rows, class Body>
VOLTAIC_INLINE void each_row(Body&& body) {
  static_assert(rows == 1 || rows == 4);
  body(0);
  if constexpr (rows == 4) {
    body(1);
    body(2);
    body(3);
  }
}

struct RowStatistics {
  float mean, inverse_std;
};

struct RowSum {
  vfloat chain[kChains] = {};
  VOLTAIC_INLINE float total() const {
    if constexpr (kChains == 1) return reduce_add(chain[0]);
    return reduce_add((chain[0] + chain[1]) + (chain[2 % kChains] + chain[3 % kChains]));
  }
};
// body(i, lanes, chain) for columns begin (a multiple of 4 kWidth) to end - 1.
template <class Body>
VOLTAIC_INLINE void for_chains(int64_t begin, int64_t end, Body&& body) {
  int64_t i = begin;
  for (; i + kChains * kWidth <= end; i += kChains * kWidth) {
    body(i, (int64_t)kWidth, 0);
    if constexpr (kChains == 4) {
      body(i + kWidth, (int64_t)kWidth, 1);
      body(i + 2 * kWidth, (int64_t)kWidth, 2);
      body(i + 3 * kWidth, (int64_t)kWidth, 3);
    }
  }
  for_vectors(i, end, [&](int64_t at, int64_t lanes) VOLTAIC_INLINED { body(at, lanes, 0); });
}

// x_hat of a vector; the two numbers are read once, into registers, ahead of a loop.
template <int rows>
struct Centre {
  vfloat mean[rows], inverse_std[rows];
  VOLTAIC_INLINE explicit Centre(const RowStatistics* statistics) {
    each_row<rows>([&](int row) VOLTAIC_INLINED {
      mean[row] = splat(statistics[row].mean);
      inverse_std[row] = splat(statistics[row].inverse_std);
    });
  }
  VOLTAIC_INLINE vfloat operator()(int row, vfloat x) const {
    return (x - mean[row]) * inverse_std[row];
  }
};

// Rows that lie one after the other. Made where they are used: the pointers that a task's function
// captures are read from memory again after each store.
template <class T>
struct RowBlock {
  T* first;
  int64_t width;
  VOLTAIC_INLINE T* at(int row, int64_t i) const { return first + row * width + i; }
  VOLTAIC_INLINE vfloat operator()(int row, int64_t i, int64_t lanes) const {
    return load_partial(at(row, i), lanes);
  }
  // What a pass is given to put its results.
  VOLTAIC_INLINE auto writer() const {
    return [to = *this](int row, int64_t i, int64_t lanes, vfloat x)
               VOLTAIC_INLINED { store_partial(to.at(row, i), x, lanes); };
  }
};
template <class T>
VOLTAIC_INLINE RowBlock<T> row_block(T* x, int64_t row, int64_t width) {
  return {x + row * width, width};
}

// In what follows value(row, i, lanes) gives the vector of a row's x from column i on.

// First pass: adds columns begin to end - 1 to the sums.
template <int rows, class Value>
VOLTAIC_INLINE void sum_columns(int64_t begin, int64_t end, Value&& value, RowSum (&sums)[rows]) {
  for_chains(begin, end, [&](int64_t i, int64_t lanes, int chain) VOLTAIC_INLINED {
    each_row<rows>([&](int row)
                       VOLTAIC_INLINED { sums[row].chain[chain] += value(row, i, lanes); });
  });
}

// Second pass: the statistics of rows whose sums are known.
template <int rows, class Value>
VOLTAIC_INLINE void row_statistics(int64_t width, float epsilon, const RowSum (&sums)[rows],
                                   Value&& value, RowStatistics* statistics) {
  const float share = 1.0f / (float)larger(width, 1);
  float rough[rows];
  RowSum deviation[rows], square[rows];
  each_row<rows>([&](int row) VOLTAIC_INLINED { rough[row] = sums[row].total() * share; });
  for_chains(0, width, [&](int64_t i, int64_t lanes, int chain) VOLTAIC_INLINED {
    each_row<rows>([&](int row) VOLTAIC_INLINED {
      const vfloat d = select(first_lanes(lanes), value(row, i, lanes) - rough[row], splat(0.0f));
      deviation[row].chain[chain] += d;
      square[row].chain[chain] = fma(d, d, square[row].chain[chain]);
    });
  });
  each_row<rows>([&](int row) VOLTAIC_INLINED {
    const float correction = deviation[row].total() * share;
    const float variance = square[row].total() * share - correction * correction;
    const float floor = variance < 0.0f ? 0.0f : variance;  // a NaN passes
    statistics[row] = {rough[row] + correction, 1.0f / __builtin_sqrtf(floor + epsilon)};
  });
}

// Third pass: put(row, i, lanes, y) for columns begin to end - 1.
template <int rows, class Value, class Put>
VOLTAIC_INLINE void normalise_columns(int64_t begin, int64_t end, const RowStatistics* statistics,
                                      const float* weight, const float* bias, Value&& value,
                                      Put&& put) {
  const Centre<rows> centre(statistics);
  for_vectors(begin, end, [&](int64_t i, int64_t lanes) VOLTAIC_INLINED {
    const vfloat w = load_partial(weight + i, lanes), b = load_partial(bias + i, lanes);
    each_row<rows>([&](int row) VOLTAIC_INLINED {
      const vfloat x_hat = centre(row, value(row, i, lanes));
      put(row, i, lanes, fma(x_hat, w, b));
    });
  });
}

// Backward, first pass over columns begin to end - 1: the sums of g and g x_hat, and the rows'
// shares added to weight_partial and bias_partial, in the order of the rows. gradient(row, i,
// lanes) gives y_gradient.
template <int rows>
struct GradientSums {
  RowSum g[rows], product[rows];
};
template <int rows, class Value, class Gradient>
VOLTAIC_INLINE void sum_gradients(int64_t begin, int64_t end, const RowStatistics* statistics,
                                  const float* weight, Value&& value, Gradient&& gradient,
                                  float* weight_partial, float* bias_partial,
                                  GradientSums<rows>& sums) {
  const Centre<rows> centre(statistics);
  for_chains(begin, end, [&](int64_t i, int64_t lanes, int chain) VOLTAIC_INLINED {
    const vfloat w = load_partial(weight + i, lanes);
    vfloat weight_sum = load_partial(weight_partial + i, lanes);
    vfloat bias_sum = load_partial(bias_partial + i, lanes);
    each_row<rows>([&](int row) VOLTAIC_INLINED {
      const vfloat y_gradient = gradient(row, i, lanes), g = y_gradient * w;
      const vfloat x_hat = centre(row, value(row, i, lanes));
      sums.g[row].chain[chain] += g;
      sums.product[row].chain[chain] =
          fma(g, select(first_lanes(lanes), x_hat, splat(0.0f)), sums.product[row].chain[chain]);
      weight_sum = fma(y_gradient, x_hat, weight_sum);
      bias_sum += y_gradient;
    });
    store_partial(weight_partial + i, weight_sum, lanes);
    store_partial(bias_partial + i, bias_sum, lanes);
  });
}

template <int rows>
VOLTAIC_INLINE void load_statistics(const float* mean, const float* inverse_std,
                                    RowStatistics (&statistics)[rows]) {
  for (int row = 0; row < rows; row++) statistics[row] = {mean[row], inverse_std[row]};
}
template <int rows>
VOLTAIC_INLINE void store_statistics(const RowStatistics (&statistics)[rows], float* mean,
                                     float* inverse_std) {
  for (int row = 0; row < rows; row++) {
    mean[row] = statistics[row].mean;
    inverse_std[row] = statistics[row].inverse_std;
  }
}

struct GradientMeans {
  float g, product;
};
template <int rows>
VOLTAIC_INLINE void gradient_means(int64_t width, const GradientSums<rows>& sums,
                                   GradientMeans* means) {
  const float share = 1.0f / (float)larger(width, 1);
  each_row<rows>([&](int row) VOLTAIC_INLINED {
    means[row] = {sums.g[row].total() * share, sums.product[row].total() * share};
  });
}

// Backward, second pass: put(row, i, lanes, x_gradient) for columns begin to end - 1.
template <int rows, class Value, class Gradient, class Put>
VOLTAIC_INLINE void gradient_columns(int64_t begin, int64_t end, const RowStatistics* statistics,
                                     const GradientMeans* means, const float* weight, Value&& value,
                                     Gradient&& gradient, Put&& put) {
  const Centre<rows> centre(statistics);
  for_vectors(begin, end, [&](int64_t i, int64_t lanes) VOLTAIC_INLINED {
    const vfloat w = load_partial(weight + i, lanes);
    each_row<rows>([&](int row) VOLTAIC_INLINED {
      const vfloat x_hat = centre(row, value(row, i, lanes));
      const vfloat g = gradient(row, i, lanes) * w - means[row].g;
      put(row, i, lanes, fma(x_hat, splat(-means[row].product), g) * centre.inverse_std[row]);
    });
  });
}

// ---- the cut into tasks, from the shape alone
// Rows of a task: about 16384 elements (64 KiB of fp32), so that tasks are worth their start and
// partials stay few; whole groups of rows that go together.
inline int64_t rows_of_task(int64_t width) {
  const int64_t rows = divide_up(16384, larger(width, 1));
  return rows < 16 ? 16 : rows > 256 ? 256 : divide_up(rows, kRowsTogether) * kRowsTogether;
}

// Runs body(first_row, end_row, weight_partial, bias_partial) for each task's rows with partials of
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
    body(begin, end, partial, partial + stride / 2);
  });
  parallel_ranges(width, 8 * kWidth, [&](int64_t begin, int64_t end) {
    for_vectors(begin, end, [&](int64_t i, int64_t lanes) VOLTAIC_INLINED {
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
