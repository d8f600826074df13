// Random numbers into tensors: uniform, normal, truncated normal, Bernoulli, permutation, dropout.
// Every number is a function of (state, site, element) alone: native/engine/philox.h.
//
// Element i of the flat array has w, word i%4 of block i/4, and u = ((w >> 9) + 1/2) / 2^23.
//   uniform           u * (high - low) + low
//   normal            a pair i, i+1 (i even) from its two u, v, with r = sqrt(-2 log u):
//                     r cos(2 pi v) * std + mean, r sin(2 pi v) * std + mean
//   truncated_normal  y = 2 u - 1, c = y * erf(sqrt(2)), w = -log(1 - c^2), z = y Q(w):
//                     z * std + mean, z cut to [-2, 2]
//   bernoulli         1 where u < probability (rounded to fp32)
//   permutation       0..n-1 sorted by (word, index): sort_indices.cuh
//   dropout           8 elements a block of numbers; its backward is the op itself, on the gradient
//
// random_numbers.cuh has the formulas, whose bits are the CPU's. A thread makes one block of
// numbers, and writes 16 bytes (bernoulli: four blocks for 16 bytes). Bytes: 4 written per element
// (1 for bernoulli); dropout 2 times the storage size. A block takes some 60 integer operations, 15
// an element or 8 in dropout, and a normal number some 30 more: about as long as the writing.
#include "dropout.cuh"
#include "random_numbers.cuh"
#include "sort_indices.cuh"

namespace voltaic {
namespace {

constexpr int kRandomThreads = 256;

// y[4 b + i] = transform(words of block b)[i]
template <class Transform>
__global__ void __launch_bounds__(kRandomThreads)
    random_floats_kernel(Transform transform, const int32_t* state, uint32_t site, float* y,
                         int64_t elements, bool aligned) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kRandomThreads + threadIdx.x;
  const int64_t first = 4 * block;
  if (first >= elements) return;
  const voltaic_random4 words = voltaic_random_block(state, site, static_cast<uint64_t>(block));
  Pack<float> values;
  transform(words, values.values);
  if (aligned && first + 4 <= elements) {
    store_pack(y + first, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (first + i < elements) y[first + i] = values.values[i];
}

template <class Transform>
voltaic_status random_floats(const voltaic_call* call, int site_index, const Transform& transform) {
  float* y = data<float>(call, 1);
  const int64_t elements = tensor(call, 1).elements;
  if (elements == 0) return VOLTAIC_OK;
  return launch(call, random_floats_kernel<Transform>,
                blocks_for(divide_up(elements, 4), kRandomThreads), kRandomThreads, 0, transform,
                data<const int32_t>(call, 0), static_cast<uint32_t>(whole(call, site_index)), y,
                elements, aligned_16(y));
}

voltaic_status uniform(const voltaic_call* call) {
  const float low = static_cast<float>(attribute(call, 0)),
              range = static_cast<float>(attribute(call, 1) - attribute(call, 0));
  return random_floats(call, 2, Uniform{low, range});
}
voltaic_status normal(const voltaic_call* call) {
  return random_floats(
      call, 2,
      Normal{static_cast<float>(attribute(call, 0)), static_cast<float>(attribute(call, 1))});
}
voltaic_status truncated_normal(const voltaic_call* call) {
  return random_floats(call, 2,
                       TruncatedNormal{static_cast<float>(attribute(call, 0)),
                                       static_cast<float>(attribute(call, 1))});
}

// 16 elements a thread
__global__ void __launch_bounds__(kRandomThreads)
    bernoulli_kernel(const int32_t* state, uint32_t site, float probability, uint8_t* y,
                     int64_t elements, bool aligned) {
  const int64_t first = 16 * (static_cast<int64_t>(blockIdx.x) * kRandomThreads + threadIdx.x);
  if (first >= elements) return;
  uint32_t bytes[4];
#pragma unroll
  for (int b = 0; b < 4; b++) {
    const voltaic_random4 words =
        voltaic_random_block(state, site, static_cast<uint64_t>(first / 4 + b));
    bytes[b] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
      bytes[b] |= static_cast<uint32_t>(voltaic_uniform(words.word[i]) < probability) << 8 * i;
  }
  if (aligned && first + 16 <= elements) {
    *reinterpret_cast<uint4*>(y + first) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 16; i++)
    if (first + i < elements) y[first + i] = static_cast<uint8_t>(bytes[i / 4] >> 8 * (i % 4));
}

voltaic_status bernoulli(const voltaic_call* call) {
  const double probability = attribute(call, 0);
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "bernoulli: probability is %g, expected a number from 0 to 1", probability);
  uint8_t* y = data<uint8_t>(call, 1);
  const int64_t elements = tensor(call, 1).elements;
  if (elements == 0) return VOLTAIC_OK;
  return launch(call, bernoulli_kernel, blocks_for(divide_up(elements, 16), kRandomThreads),
                kRandomThreads, 0, data<const int32_t>(call, 0),
                static_cast<uint32_t>(whole(call, 1)), static_cast<float>(probability), y, elements,
                aligned_16(y));
}

struct RandomKeys {
  const int32_t* state;
  uint32_t site;

  __device__ __forceinline__ uint32_t operator()(int64_t i) const {
    const voltaic_random4 words = voltaic_random_block(state, site, static_cast<uint64_t>(i) / 4);
    const int word = static_cast<int>(i % 4);
    return word < 2 ? (word == 0 ? words.word[0] : words.word[1])
                    : (word == 2 ? words.word[2] : words.word[3]);
  }
};

voltaic_status permutation(const voltaic_call* call) {
  const int64_t n = tensor(call, 1).elements;
  if (n > 2147483648)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "permutation: n is %lld, expected at most 2147483648",
                static_cast<long long>(n));
  if (n == 0) return VOLTAIC_OK;
  void* const memory = cuda::scratch(call, sort_bytes(n));
  if (memory == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  const RandomKeys keys = {data<const int32_t>(call, 0), static_cast<uint32_t>(whole(call, 0))};
  return sort_indices(call, keys, n, 32, memory, data<int32_t>(call, 1), nullptr);
}

// Eight elements a thread: one block of numbers. x and y may be the same memory.
template <class T>
__global__ void __launch_bounds__(kRandomThreads)
    dropout_kernel(DropoutSite site, const T* x, T* y, int64_t elements, bool aligned) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kRandomThreads + threadIdx.x;
  const int64_t first = 8 * block;
  if (first >= elements) return;
  if (aligned && first + 8 <= elements) {
    Pack<T> packs[8 / kPack];
#pragma unroll
    for (int p = 0; p < 8 / kPack; p++) packs[p] = load_pack<T>(x + first + p * kPack);
    const uint32_t kept = kept_of_block(site, static_cast<uint64_t>(block));
#pragma unroll
    for (int p = 0; p < 8 / kPack; p++) {
#pragma unroll
      for (int i = 0; i < kPack; i++) {
        const float scaled = to_float(packs[p].values[i]) * site.scale;
        packs[p].values[i] = from_float<T>(kept >> (p * kPack + i) & 1u ? scaled : 0.0f);
      }
      store_pack(y + first + p * kPack, packs[p]);
    }
    return;
  }
  const uint32_t kept = kept_of_block(site, static_cast<uint64_t>(block));
#pragma unroll
  for (int i = 0; i < 8; i++)
    if (first + i < elements)
      y[first + i] = from_float<T>(kept >> i & 1u ? to_float(x[first + i]) * site.scale : 0.0f);
}

template <class T>
voltaic_status drop(const voltaic_call* call) {
  const T* x = data<const T>(call, 0);
  T* y = data<T>(call, 2);
  const int64_t elements = tensor(call, 0).elements;
  DropoutSite site{};
  const voltaic_status status = dropout_site(call, 1, 0, &site);
  if (status != VOLTAIC_OK || elements == 0) return status;
  if (site.state == nullptr) {
    if (x == y) return VOLTAIC_OK;
    return copy_bytes(call, y, x, static_cast<size_t>(elements) * sizeof(T));
  }
  return launch(call, dropout_kernel<T>, blocks_for(divide_up(elements, 8), kRandomThreads),
                kRandomThreads, 0, site, x, y, elements, aligned_16(x, y));
}

voltaic_status dropout(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return drop<T>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(random, {"uniform", uniform}, {"normal", normal},
                     {"truncated_normal", truncated_normal}, {"bernoulli", bernoulli},
                     {"permutation", permutation}, {"dropout", dropout})

}  // namespace voltaic
