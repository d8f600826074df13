// Activation functions: y = f(x) and x_gradient = y_gradient f'(x), element by element; kinds and
// formulas are in activation_functions.cuh.
//
// Bytes moved: 2 per element forward and 3 backward, times the storage size. FLOPs per element:
// gelu about 40 forward and 45 backward, which at bf16's 4 bytes an element is near the ridge of
// fp32 arithmetic, so the polynomial matters as much as the bytes. A thread has 16 bytes of each
// array, the widest load; a block of 256 threads leaves room for the eight blocks of a processor to
// overlap loads with arithmetic. An element's result depends on nothing but itself.
#include "activation_forward.cuh"

namespace voltaic {
namespace {

template <class T, int kind>
__global__ void __launch_bounds__(kActivationThreads)
    backward_kernel(const T* __restrict__ x, const T* __restrict__ y_gradient,
                    T* __restrict__ x_gradient, int64_t vectors, int64_t elements) {
  constexpr int kPack = 16 / sizeof(T);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kActivationThreads + threadIdx.x;
  if (thread < vectors) {
    const auto at = load_pack(x + thread * kPack);
    auto pack = load_pack(y_gradient + thread * kPack);
#pragma unroll
    for (int i = 0; i < kPack; i++)
      pack.values[i] =
          from_float<T>(activate_gradient<kind>(to_float(at.values[i])) * to_float(pack.values[i]));
    store_pack(x_gradient + thread * kPack, pack);
    return;
  }
  const int64_t i = vectors * kPack + (thread - vectors);
  if (i < elements)
    x_gradient[i] =
        from_float<T>(activate_gradient<kind>(to_float(x[i])) * to_float(y_gradient[i]));
}

template <class T>
voltaic_status backward(const voltaic_call* call) {
  const T *x = data<const T>(call, 0), *y_gradient = data<const T>(call, 1);
  T* x_gradient = data<T>(call, 2);
  const int64_t elements = tensor(call, 0).elements;
  const int64_t vectors =
      aligned_16(x, y_gradient, x_gradient) ? elements / (16 / (int64_t)sizeof(T)) : 0;
  const int64_t threads = vectors + (elements - vectors * (16 / (int64_t)sizeof(T)));
  voltaic_status status = VOLTAIC_OK;
  const bool known = with_activation(whole(call, 0), [&](auto activation) {
    if (elements > 0)
      status = launch(call, backward_kernel<T, activation.value>,
                      blocks_for(threads, kActivationThreads), kActivationThreads, 0, x, y_gradient,
                      x_gradient, vectors, elements);
  });
  return known ? status : unknown_activation(call, "activation_backward");
}

voltaic_status activation_forward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    return activate_all(call, whole(call, 0), data<const T>(call, 0), data<T>(call, 1),
                        tensor(call, 0).elements);
  });
}
voltaic_status activation_backward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return backward<T>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(activation, {"activation_forward", activation_forward},
                     {"activation_backward", activation_backward})

}  // namespace voltaic
