// y = f(x) over adjacent elements: the activation kernels', and that of products whose library
// knows no activation.
#pragma once
#include "activation_functions.cuh"
#include "kernel.cuh"

namespace voltaic {
namespace {

constexpr int kActivationThreads = 256;

// Elements from `vectors` packs on are done one by one, by the threads behind those of the packs.
template <class T, int kind>
__global__ void __launch_bounds__(kActivationThreads)
    activation_forward_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t vectors,
                              int64_t elements) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kActivationThreads + threadIdx.x;
  if (thread < vectors) {
    auto pack = load_pack(x + thread * kPack);
#pragma unroll
    for (int i = 0; i < kPack; i++)
      pack.values[i] = from_float<T>(activate<kind>(to_float(pack.values[i])));
    store_pack(y + thread * kPack, pack);
    return;
  }
  const int64_t i = vectors * kPack + (thread - vectors);
  if (i < elements) y[i] = from_float<T>(activate<kind>(to_float(x[i])));
}

template <class T>
voltaic_status activate_all(const voltaic_call* call, int64_t kind, const T* x, T* y,
                            int64_t elements) {
  const int64_t vectors = aligned_16(x, y) ? elements / (16 / (int64_t)sizeof(T)) : 0;
  const int64_t threads = vectors + (elements - vectors * (16 / (int64_t)sizeof(T)));
  voltaic_status status = VOLTAIC_OK;
  const bool known = with_activation(kind, [&](auto activation) {
    if (elements > 0)
      status = launch(call, activation_forward_kernel<T, activation.value>,
                      blocks_for(threads, kActivationThreads), kActivationThreads, 0, x, y, vectors,
                      elements);
  });
  return known ? status : unknown_activation(call, "activation_forward");
}

}  // namespace
}  // namespace voltaic
