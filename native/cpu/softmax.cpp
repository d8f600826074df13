// Softmax and log-softmax along the last axis, and cross-entropy over the tokens of ragged
// sequences.
//
//   softmax: y = exp(x - max) / sum exp(x - max); log-softmax: y = x - max - log sum exp(x - max)
//   softmax backward: x_gradient = y (y_gradient - sum y y_gradient)
//   log-softmax backward: x_gradient = y_gradient - exp(y) sum y_gradient
//   ragged cross-entropy: loss = mean over counted sequences of log_sum_exp - logit of the target;
//   backward: loss_gradient / valid * (exp(logit - log_sum_exp) - [token is the target])
//
// Bytes: each pass reads its inputs and writes its output once from and to memory; further passes
// over a row hit the cache. About one exponential an element (two for bf16, which cannot keep the
// first). Rows, and sequences, are whole within a task, and losses are added in their order: the
// same bits for any number of threads, and a row's result depends on that row alone.
#include "ragged.h"
#include "simd_math.h"

namespace voltaic {
namespace {

constexpr int64_t kElementsPerTask = 16384;

struct Rows {
  int64_t count, width;
};
inline Rows rows_of(const voltaic_tensor& x) {
  const int64_t width = x.rank > 0 ? x.shape[x.rank - 1] : 1;
  return {width > 0 ? x.elements / width : 0, width};
}
inline int64_t rows_per_task(int64_t width) {
  return larger(1, kElementsPerTask / larger(width, 1));
}

template <class T>
VOLTAIC_INLINE float largest_of(const T* x, int64_t width) {
  vfloat largest = splat(-kInfinity);
  for (int64_t i = 0; i < width; i += kWidth)
    largest = vmax(load_or(x + i, width - i, -kInfinity), largest);
  return reduce_max(largest);
}

// The sum over a row of what add(i, sum) adds for the vector at i. In runs of 64 vectors, whose
// sums are added then: a lane's rounding grows with the run, not with a row of a vocabulary's
// length.
template <class Add>
VOLTAIC_INLINE float sum_of_row(int64_t width, Add&& add) {
  constexpr int64_t kRun = 64 * kWidth;
  vfloat sum = {};
  for (int64_t start = 0; start < width; start += kRun) {
    const int64_t end = smaller(start + kRun, width);
    vfloat of_run = {};
    for (int64_t i = start; i < end; i += kWidth) of_run = add(i, of_run);
    sum += of_run;
  }
  return reduce_add(sum);
}

// The sum of exp(x - shift), a NaN among them kept.
template <class T>
VOLTAIC_INLINE float sum_of_exponentials(const T* x, int64_t width, float shift) {
  return sum_of_row(width, [&](int64_t i, vfloat sum) {
    return sum + vexp(load_or(x + i, width - i, -kInfinity) - shift);
  });
}

template <class T>
void softmax_row(const T* x, T* y, int64_t width) {
  const float max = largest_of(x, width);
  if constexpr (sizeof(T) == sizeof(float)) {
    const float inverse = 1.0f / sum_of_row(width, [&](int64_t i, vfloat sum) {
                            const vfloat e = vexp(load_or(x + i, width - i, -kInfinity) - max);
                            store_partial(y + i, e, width - i);
                            return sum + e;
                          });
    for (int64_t i = 0; i < width; i += kWidth)
      store_partial(y + i, load_partial(y + i, width - i) * inverse, width - i);
  } else {
    const float inverse = 1.0f / sum_of_exponentials(x, width, max);
    for (int64_t i = 0; i < width; i += kWidth)
      store_partial(y + i, vexp(load_partial(x + i, width - i) - max) * inverse, width - i);
  }
}

template <class T>
void log_softmax_row(const T* x, T* y, int64_t width) {
  const float max = largest_of(x, width);
  const float log_sum = scalar_log(sum_of_exponentials(x, width, max));
  for (int64_t i = 0; i < width; i += kWidth)
    store_partial(y + i, (load_partial(x + i, width - i) - max) - log_sum, width - i);
}

template <class T>
void softmax_backward_row(const T* y, const T* y_gradient, T* x_gradient, int64_t width) {
  const float total = sum_of_row(width, [&](int64_t i, vfloat sum) {
    return fma(load_partial(y + i, width - i), load_partial(y_gradient + i, width - i), sum);
  });
  for (int64_t i = 0; i < width; i += kWidth)
    store_partial(
        x_gradient + i,
        load_partial(y + i, width - i) * (load_partial(y_gradient + i, width - i) - total),
        width - i);
}

template <class T>
void log_softmax_backward_row(const T* y, const T* y_gradient, T* x_gradient, int64_t width) {
  const float total = sum_of_row(
      width, [&](int64_t i, vfloat sum) { return sum + load_partial(y_gradient + i, width - i); });
  for (int64_t i = 0; i < width; i += kWidth)
    store_partial(
        x_gradient + i,
        load_partial(y_gradient + i, width - i) - vexp(load_partial(y + i, width - i)) * total,
        width - i);
}

// tensors: x, y; attribute: logarithm
voltaic_status softmax_forward(const voltaic_call* call) {
  const Rows rows = rows_of(tensor(call, 0));
  const bool logarithm = attribute(call, 0) != 0;
  return with_float(tensor(call, 0).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const T* x = data<T>(call, 0);
    T* y = data<T>(call, 1);
    parallel_ranges(rows.count, rows_per_task(rows.width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        if (logarithm) {
          log_softmax_row(x + row * rows.width, y + row * rows.width, rows.width);
        } else {
          softmax_row(x + row * rows.width, y + row * rows.width, rows.width);
        }
      }
    });
    return VOLTAIC_OK;
  });
}

// tensors: y, y_gradient, x_gradient; attribute: logarithm
voltaic_status softmax_backward(const voltaic_call* call) {
  const Rows rows = rows_of(tensor(call, 0));
  const bool logarithm = attribute(call, 0) != 0;
  return with_float(tensor(call, 0).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const T *y = data<T>(call, 0), *y_gradient = data<T>(call, 1);
    T* x_gradient = data<T>(call, 2);
    parallel_ranges(rows.count, rows_per_task(rows.width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t at = row * rows.width;
        if (logarithm) {
          log_softmax_backward_row(y + at, y_gradient + at, x_gradient + at, rows.width);
        } else {
          softmax_backward_row(y + at, y_gradient + at, x_gradient + at, rows.width);
        }
      }
    });
    return VOLTAIC_OK;
  });
}

constexpr int32_t kIgnored = -100;

// Checks offsets and targets of a ragged cross-entropy: tensors number 1 and 2 or, backward, 2
// and 3.
voltaic_status check_ragged(const voltaic_call* call, int offsets_index, int targets_index,
                            int64_t tokens) {
  const voltaic_status status = check_offsets(call, offsets_index, tokens);
  if (status != VOLTAIC_OK) return status;
  const int64_t sequences = tensor(call, targets_index).elements;
  if (tensor(call, offsets_index).elements != sequences + 1)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%lld offsets came with %lld targets; expected one offset more than targets",
                (long long)tensor(call, offsets_index).elements, (long long)sequences);
  const int32_t* offsets = data<int32_t>(call, offsets_index);
  const int32_t* targets = data<int32_t>(call, targets_index);
  for (int64_t s = 0; s < sequences; s++) {
    const int32_t length = offsets[s + 1] - offsets[s];
    if (targets[s] != kIgnored && (targets[s] < 0 || targets[s] >= length))
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "the target of sequence %lld is %d; expected -100 or 0 to %d", (long long)s,
                  targets[s], length - 1);
  }
  return VOLTAIC_OK;
}

// tensors: logits, offsets, targets, loss, log_sum_exp, valid
voltaic_status ragged_cross_entropy_forward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 0).elements, sequences = tensor(call, 2).elements;
  const voltaic_status status = check_ragged(call, 1, 2, tokens);
  if (status != VOLTAIC_OK) return status;
  const float* logits = data<float>(call, 0);
  const int32_t *offsets = data<int32_t>(call, 1), *targets = data<int32_t>(call, 2);
  float* log_sum_exp = data<float>(call, 4);
  float* losses = (float*)thread_scratch(0, (size_t)larger(sequences, 1) * sizeof(float));
  if (losses == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "no memory for the losses of %lld sequences",
                (long long)sequences);
  const int64_t grain = divide_up(sequences * 4096, larger(tokens, 1));  // about 4096 tokens a task
  parallel_ranges(sequences, grain, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      const float* row = logits + offsets[s];
      const int64_t length = offsets[s + 1] - offsets[s];
      const float max = largest_of(row, length);
      const float log_sum =
          scalar_log(sum_of_exponentials(row, length, max == -kInfinity ? 0.0f : max));
      log_sum_exp[s] = max + log_sum;
      losses[s] = targets[s] == kIgnored ? 0.0f : log_sum + (max - row[targets[s]]);
    }
  });
  double sum = 0;
  int32_t valid = 0;
  for (int64_t s = 0; s < sequences; s++) {
    if (targets[s] == kIgnored) continue;
    sum += (double)losses[s];
    valid++;
  }
  *data<float>(call, 3) = valid > 0 ? (float)(sum / valid) : 0.0f;
  *data<int32_t>(call, 5) = valid;
  return VOLTAIC_OK;
}

// tensors: loss_gradient, logits, offsets, targets, log_sum_exp, valid, logits_gradient
voltaic_status ragged_cross_entropy_backward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 1).elements, sequences = tensor(call, 3).elements;
  const voltaic_status status = check_ragged(call, 2, 3, tokens);
  if (status != VOLTAIC_OK) return status;
  const float* logits = data<float>(call, 1);
  const int32_t *offsets = data<int32_t>(call, 2), *targets = data<int32_t>(call, 3);
  const float* log_sum_exp = data<float>(call, 4);
  const int32_t valid = *data<int32_t>(call, 5);
  const float scale = valid > 0 ? *data<float>(call, 0) / (float)valid : 0.0f;
  float* gradient = data<float>(call, 6);
  const int64_t grain = divide_up(sequences * 4096, larger(tokens, 1));
  parallel_ranges(sequences, grain, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      const float* row = logits + offsets[s];
      float* to = gradient + offsets[s];
      const int64_t length = offsets[s + 1] - offsets[s];
      if (targets[s] == kIgnored) {
        memset(to, 0, (size_t)length * sizeof(float));
        continue;
      }
      const float of_target = (scalar_exp(row[targets[s]] - log_sum_exp[s]) - 1.0f) * scale;
      for (int64_t i = 0; i < length; i += kWidth)
        store_partial(to + i, vexp(load_partial(row + i, length - i) - log_sum_exp[s]) * scale,
                      length - i);
      to[targets[s]] = of_target;
    }
  });
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(softmax, {"softmax_forward", voltaic::softmax_forward},
                {"softmax_backward", voltaic::softmax_backward},
                {"ragged_cross_entropy_forward", voltaic::ragged_cross_entropy_forward},
                {"ragged_cross_entropy_backward", voltaic::ragged_cross_entropy_backward})
