// The optimizer over the arena: the gradients' global norm, and clipped AdamW.
//
// norm = scale * sqrt(sum of gradient^2). Reads 4 bytes and does 2 FLOPs per parameter. Sums of
// 4096 squares are fp32, larger ones fp64, in an order fixed by n alone.
//
// AdamW, per element, with g = gradient * scale * min(1, max_norm / norm):
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   u = (m / correction1) / (sqrt(v / correction2) + epsilon) + decay p,   p -= rate multiplier u
// 28 bytes moved per parameter (16 in, 12 out), 30 with the bf16 copy, for about 17 FLOPs, a square
// root and a division: bound by memory (14 million parameters on one Zen 3 core: 9.2 ms,
// 43 GB/s; the norm 2.3 ms, 24 GB/s). Elements are independent, so the cut into tasks of 32768
// never shows. A segment reaches to the next one's start, its padding of zeros included. A frozen
// one (multiplier 0) still has its working copy written.
#include "vector_loops.h"

namespace voltaic {
namespace {

constexpr int64_t kBlock = 32768;  // elements of a task: 0.5 MiB of the four arrays
constexpr int64_t kSumBlock = 4096;
constexpr int64_t kUnit = 16;  // elements that segment_starts counts in

float sum_of_squares(const float* x, int64_t count) {
  vfloat sums[4] = {};
  for_summed_vectors(count, [&](int64_t i, int64_t lanes, int chain) {
    const vfloat value = load_partial(x + i, lanes);
    sums[chain] = fma(value, value, sums[chain]);
  });
  return add_chains(sums);
}

voltaic_status global_norm(const voltaic_call* call) {
  const int64_t n = tensor(call, 0).elements, tasks = divide_up(n, kBlock);
  const float* gradients = data<const float>(call, 0);
  double* partials = (double*)thread_scratch(0, (size_t)larger(tasks, 1) * sizeof(double));
  if (partials == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "global_norm: no memory for %lld partial sums",
                (long long)tasks);
  parallel_for(tasks, [&](int64_t task) {
    const int64_t end = smaller((task + 1) * kBlock, n);
    double sum = 0;
    for (int64_t i = task * kBlock; i < end; i += kSumBlock)
      sum += (double)sum_of_squares(gradients + i, smaller(kSumBlock, end - i));
    partials[task] = sum;
  });
  double sum = 0;
  for (int64_t task = 0; task < tasks; task++) sum += partials[task];
  *data<float>(call, 1) = (float)(attribute(call, 0) * __builtin_sqrt(sum));
  return VOLTAIC_OK;
}

// The segment table must start at 0, ascend and stay within the arena.
voltaic_status check_segments(const voltaic_call* call, const int32_t* starts, int64_t segments,
                              int64_t n) {
  if (segments == 0 || starts[0] != 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "adamw: segment_starts must begin with 0, but %s %d",
                segments ? "the first is" : "there are", segments ? starts[0] : 0);
  for (int64_t i = 1; i < segments; i++)
    if (starts[i] <= starts[i - 1] || starts[i] >= divide_up(n, kUnit))
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "adamw: segment_starts[%lld] is %d, expected more than %d and less than %lld",
                  (long long)i, starts[i], starts[i - 1], (long long)divide_up(n, kUnit));
  return VOLTAIC_OK;
}

struct Step {
  float *parameters, *first_moment, *second_moment;
  const float* gradients;
  bfloat16* working;  // may be null
  float gradient_scale, beta1, beta2, rest1, rest2, inverse_correction1, inverse_correction2,
      epsilon;
};

// Elements begin to end - 1, of one segment, whose rate includes its multiplier.
void update(const Step& step, int64_t begin, int64_t end, float rate, float decay) {
  for_vectors(begin, end, [&](int64_t i, int64_t lanes) {
    const vfloat g = load_partial(step.gradients + i, lanes) * step.gradient_scale;
    const vfloat m =
        fma(load_partial(step.first_moment + i, lanes), splat(step.beta1), g * step.rest1);
    const vfloat v =
        fma(load_partial(step.second_moment + i, lanes), splat(step.beta2), g * g * step.rest2);
    const vfloat denominator = vsqrt(v * step.inverse_correction2) + step.epsilon;
    const vfloat p = load_partial(step.parameters + i, lanes);
    const vfloat u = fma(p, splat(decay), m * step.inverse_correction1 / denominator);
    const vfloat updated = fma(u, splat(-rate), p);
    store_partial(step.first_moment + i, m, lanes);
    store_partial(step.second_moment + i, v, lanes);
    store_partial(step.parameters + i, updated, lanes);
    if (step.working) store_partial(step.working + i, updated, lanes);
  });
}

void copy_to_working(const Step& step, int64_t begin, int64_t end) {
  if (step.working == nullptr) return;
  for_vectors(begin, end, [&](int64_t i, int64_t lanes) {
    store_partial(step.working + i, load_partial(step.parameters + i, lanes), lanes);
  });
}

voltaic_status adamw(const voltaic_call* call) {
  const int64_t n = tensor(call, 0).elements, segments = tensor(call, 5).elements;
  const int32_t* starts = data<const int32_t>(call, 5);
  const float* segment_rates = data<const float>(call, 6);
  if (n == 0) return VOLTAIC_OK;
  const voltaic_status status = check_segments(call, starts, segments, n);
  if (status != VOLTAIC_OK) return status;

  const float norm = *data<const float>(call, 7);
  const float* rates = data<const float>(call, 8);
  const double beta1 = attribute(call, 0), beta2 = attribute(call, 1);
  const float max_norm = (float)attribute(call, 3), ratio = max_norm / norm;
  const float clip = max_norm == 0.0f || ratio >= 1.0f ? 1.0f : ratio;  // NaN stays NaN
  const Step step = {data<float>(call, 0),
                     data<float>(call, 2),
                     data<float>(call, 3),
                     data<const float>(call, 1),
                     present(call, 4) ? data<bfloat16>(call, 4) : nullptr,
                     rates[3] * clip,
                     (float)beta1,
                     (float)beta2,
                     (float)(1 - beta1),
                     (float)(1 - beta2),
                     1.0f / rates[1],
                     1.0f / rates[2],
                     (float)attribute(call, 2)};
  parallel_ranges(n, kBlock, [&](int64_t begin, int64_t end) {
    int64_t low = 0, high = segments;  // the last segment that starts at or before begin
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (starts[middle] * kUnit <= begin ? low : high) = middle;
    }
    for (int64_t segment = low, i = begin; i < end; segment++) {
      const int64_t last = segment + 1 < segments ? smaller(end, starts[segment + 1] * kUnit) : end;
      const float multiplier = segment_rates[2 * segment];
      if (multiplier == 0.0f) {
        copy_to_working(step, i, last);
      } else {
        update(step, i, last, rates[0] * multiplier, segment_rates[2 * segment + 1]);
      }
      i = last;
    }
  });
  return VOLTAIC_OK;
}

}  // namespace

VOLTAIC_KERNELS(optimizer, {"global_norm", global_norm}, {"adamw", adamw})

}  // namespace voltaic
