// The optimizer over the arena: the gradients' global norm, and clipped AdamW.
//
// norm = scale * sqrt(sum of gradient^2). Reads 4 bytes and does 2 FLOPs per parameter. A block
// sums 16384 squares: each thread 64 of them in fp32, in four rounds of four 16-byte loads that are
// all under way before the first is used; block sums and what follows are fp64, added by one block
// in an order fixed by n alone.
//
// AdamW, per element, with g = gradient * scale * min(1, max_norm / norm):
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   u = (m / correction1) / (sqrt(v / correction2) + epsilon) + decay p,   p -= rate multiplier u
// 28 bytes moved per parameter (16 in, 12 out), 30 with the bf16 copy, for about 17 FLOPs, a square
// root and a division. A thread has two packs of four elements: 128 bytes under way while it looks
// its segments up in the table (a pack lies within one unit of 16 elements, so within one segment)
// and turns norm and rates, read from device memory, into factors. Elements are independent. A
// segment reaches to the next one's start, its padding included. A frozen one (multiplier 0) still
// has its working copy written.
#include "kernel.cuh"

namespace voltaic {
namespace {

constexpr int kThreads = 256;
constexpr int kNormRounds = 4, kNormLoads = 4;  // a thread's rounds, and packs a round
constexpr int64_t kNormBlock = int64_t{kThreads} * kNormRounds * kNormLoads * 4;
constexpr int kLastThreads = 1024;
constexpr int kStepPacks = 2;  // a thread's, a block's width apart
constexpr int kUnit = 16;      // elements that segment_starts counts in

// partials[block] = the sum of the block's squares. `aligned`: gradients is a multiple of 16.
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const float* __restrict__ gradients, int64_t n, bool aligned,
                   double* __restrict__ partials) {
  __shared__ double room[kThreads / 32];
  const int64_t begin = blockIdx.x * kNormBlock;
  float sums[4] = {};
  if (aligned && begin + kNormBlock <= n) {
    const float* from = gradients + begin + threadIdx.x * 4;
#pragma unroll 1
    for (int round = 0; round < kNormRounds; round++, from += kNormLoads * kThreads * 4) {
      Pack<float> packs[kNormLoads];
#pragma unroll
      for (int i = 0; i < kNormLoads; i++) packs[i] = load_pack(from + i * kThreads * 4);
#pragma unroll
      for (int i = 0; i < kNormLoads; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums[k] = fmaf(packs[i].values[k], packs[i].values[k], sums[k]);
    }
  } else {
    const int64_t end = n < begin + kNormBlock ? n : begin + kNormBlock;
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
      sums[0] = fmaf(gradients[i], gradients[i], sums[0]);
  }
  const double sum =
      block_sum<kThreads>(static_cast<double>((sums[0] + sums[1]) + (sums[2] + sums[3])), room);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kLastThreads)
    norm_kernel(const double* __restrict__ partials, int64_t count, double scale, float* norm) {
  __shared__ double room[kLastThreads / 32];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kLastThreads) sum += partials[i];
  sum = block_sum<kLastThreads>(sum, room);
  if (threadIdx.x == 0) *norm = static_cast<float>(scale * sqrt(sum));
}

voltaic_status global_norm(const voltaic_call* call) {
  const int64_t n = tensor(call, 0).elements, blocks = divide_up(n, kNormBlock);
  const float* gradients = data<const float>(call, 0);
  double* partials = nullptr;
  if (blocks > 0) {
    partials =
        static_cast<double*>(cuda::scratch(call, static_cast<size_t>(blocks) * sizeof(double)));
    if (partials == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
    const voltaic_status status =
        launch(call, squares_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, gradients, n,
               aligned_16(gradients), partials);
    if (status != VOLTAIC_OK) return status;
  }
  return launch(call, norm_kernel, 1, kLastThreads, 0, partials, blocks, attribute(call, 0),
                data<float>(call, 1));
}

struct Step {
  float *parameters, *first_moment, *second_moment;
  const float* gradients;
  bfloat16* working;  // may be null
  int64_t n;
  bool aligned;  // packs may be read and written whole
  const int32_t* starts;
  const float* segment_rates;
  int32_t segments;
  const float *norm, *rates;
  float beta1, beta2, rest1, rest2, epsilon, max_norm;
};

// The first is 0, then they ascend and stay within the arena: each number is looked at by one
// thread.
__device__ __forceinline__ void check_segments(const Step& step, const IndexCheck& check) {
  const int64_t units = (step.n + kUnit - 1) / kUnit;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < step.segments;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t low = i == 0 ? 0 : int64_t{step.starts[i - 1]} + 1;
    in_range(check, i, step.starts[i], low, i == 0 ? 0 : units - 1);
  }
}

// The last segment that starts at or before the unit: a warp looks at 32 starts at once, so that a
// table of up to 1024 segments takes two loads in a row. A whole warp calls it, with the same unit.
__device__ __forceinline__ int segment_of(const Step& step, int64_t unit) {
  const int lane = threadIdx.x % 32;
  int first = 0, count = step.segments;
  while (count > 1) {
    const int stride = (count + 31) / 32, place = lane * stride;
    const unsigned before =
        __ballot_sync(kAllLanes, place < count && step.starts[first + place] <= unit);
    const int skipped = (before == 0 ? 0 : __popc(before) - 1) * stride;
    first += skipped;
    count = count - skipped < stride ? count - skipped : stride;
  }
  return first;
}
// The same from a segment that starts at or before the unit, a few before the one looked for.
__device__ __forceinline__ int segment_from(const Step& step, int segment, int64_t unit) {
  while (segment + 1 < step.segments && step.starts[segment + 1] <= unit) segment++;
  return segment;
}

// Four elements from `element` on; those from n on do not exist and are 0.
__device__ __forceinline__ Pack<float> load_four(const Step& step, const float* from,
                                                 int64_t element) {
  if (step.aligned && element + 4 <= step.n) return load_pack(from + element);
  Pack<float> pack = {};
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (element + i < step.n) pack.values[i] = from[element + i];
  return pack;
}
template <class T>
__device__ __forceinline__ void store_four(const Step& step, T* to, int64_t element,
                                           const Pack<T, 4>& pack) {
  if (step.aligned && element + 4 <= step.n) {
    store_pack(to + element, pack);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (element + i < step.n) to[element + i] = pack.values[i];
}

__global__ void __launch_bounds__(kThreads) step_kernel(Step step, IndexCheck check) {
  const int64_t first = (blockIdx.x * int64_t{kStepPacks} * kThreads + threadIdx.x) * 4;
  Pack<float> p[kStepPacks], g[kStepPacks], m[kStepPacks], v[kStepPacks];
#pragma unroll
  for (int k = 0; k < kStepPacks; k++) {
    const int64_t at = first + k * kThreads * 4;
    p[k] = load_four(step, step.parameters, at);
    g[k] = load_four(step, step.gradients, at);
    m[k] = load_four(step, step.first_moment, at);
    v[k] = load_four(step, step.second_moment, at);
  }
  check_segments(step, check);
  const int64_t first_of_warp = first - threadIdx.x % 32 * 4;
  int segment = segment_of(step, first_of_warp / kUnit);
  const float ratio = step.max_norm / *step.norm;
  const float clip = step.max_norm == 0.0f || ratio >= 1.0f ? 1.0f : ratio;  // NaN stays NaN
  const float scale = step.rates[3] * clip, rate = step.rates[0];
  const float inverse_correction1 = 1.0f / step.rates[1];
  const float inverse_correction2 = 1.0f / step.rates[2];
#pragma unroll
  for (int k = 0; k < kStepPacks; k++) {
    const int64_t at = first + k * kThreads * 4;
    if (at >= step.n) return;
    segment = segment_from(step, segment, at / kUnit);
    const float multiplier = step.segment_rates[2 * segment];
    const float decay = step.segment_rates[2 * segment + 1], step_rate = rate * multiplier;
    if (multiplier != 0.0f) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float gradient = g[k].values[i] * scale;
        const float first_moment = fmaf(m[k].values[i], step.beta1, gradient * step.rest1);
        const float second_moment =
            fmaf(v[k].values[i], step.beta2, gradient * gradient * step.rest2);
        const float denominator = sqrtf(second_moment * inverse_correction2) + step.epsilon;
        const float u =
            fmaf(p[k].values[i], decay, first_moment * inverse_correction1 / denominator);
        p[k].values[i] = fmaf(u, -step_rate, p[k].values[i]);
        m[k].values[i] = first_moment;
        v[k].values[i] = second_moment;
      }
      store_four(step, step.first_moment, at, m[k]);
      store_four(step, step.second_moment, at, v[k]);
      store_four(step, step.parameters, at, p[k]);
    }
    if (step.working != nullptr) {
      Pack<bfloat16, 4> copy;
#pragma unroll
      for (int i = 0; i < 4; i++) copy.values[i] = from_float<bfloat16>(p[k].values[i]);
      store_four(step, step.working, at, copy);
    }
  }
}

voltaic_status adamw(const voltaic_call* call) {
  const int64_t n = tensor(call, 0).elements, segments = tensor(call, 5).elements;
  if (n == 0) return VOLTAIC_OK;
  if (segments == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "adamw: segment_starts must begin with 0, but there are 0");
  const double beta1 = attribute(call, 0), beta2 = attribute(call, 1);
  Step step = {};
  step.parameters = data<float>(call, 0);
  step.gradients = data<const float>(call, 1);
  step.first_moment = data<float>(call, 2);
  step.second_moment = data<float>(call, 3);
  step.working = present(call, 4) ? data<bfloat16>(call, 4) : nullptr;
  step.n = n;
  step.aligned =
      aligned_16(step.parameters, step.gradients, step.first_moment, step.second_moment) &&
      reinterpret_cast<uintptr_t>(step.working) % 8 == 0;
  step.starts = data<const int32_t>(call, 5);
  step.segment_rates = data<const float>(call, 6);
  step.segments = static_cast<int32_t>(segments);
  step.norm = data<const float>(call, 7);
  step.rates = data<const float>(call, 8);
  step.beta1 = static_cast<float>(beta1);
  step.beta2 = static_cast<float>(beta2);
  step.rest1 = static_cast<float>(1 - beta1);
  step.rest2 = static_cast<float>(1 - beta2);
  step.epsilon = static_cast<float>(attribute(call, 2));
  step.max_norm = static_cast<float>(attribute(call, 3));
  const int64_t blocks = divide_up(n, int64_t{kStepPacks} * kThreads * 4);
  return launch(call, step_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, step,
                index_check(call, "adamw: segment_starts"));
}

}  // namespace

VOLTAIC_CUDA_KERNELS(optimizer, {"global_norm", global_norm}, {"adamw", adamw})

}  // namespace voltaic
