// What every CUDA kernel family uses: the call's arguments and failure (kernel_call.h), launches,
// scratch memory, checks of data on the card, reductions, and registration.
//
// The same sources are compiled by nvcc for cards and by g++ for the emulator (emulator/). Rules
// that keep both right:
// - Kernels are launched with launch(), dynamic shared memory is named with DYNAMIC_SHARED.
// - Lanes exchange in whole warps only: no lane of a warp may skip an exchange that others reach,
//   unless it has returned. No implicit lockstep: __syncwarp() orders shared memory within a warp.
// - __CUDA_ARCH__ never changes a kernel's signature or which instantiations exist; what a card
// cannot
//   do is decided on the host by call->stream->architecture.
// - No floating-point atomics: results repeat bit for bit. Partial sums are added in an order that
//   follows from the shapes alone.
// - fp32: a row's result does not depend on the rows around it.
// - NaN in, NaN out; element counts may be 0 (launch nothing then) and above 2^31.
#pragma once
#include <cuda_runtime.h>

#include <mutex>

#include "../native/engine/kernel_call.h"
#include "bfloat16.cuh"
#include "stream.cuh"

// At the end of FAMILY.cuh: VOLTAIC_CUDA_KERNELS(family, {"op", function}, ...)
#define VOLTAIC_CUDA_KERNELS(family, ...)                                         \
  extern "C" const voltaic_kernel_entry* voltaic_cuda_##family(uint32_t*);        \
  extern "C" const voltaic_kernel_entry* voltaic_cuda_##family(uint32_t* count) { \
    static const voltaic_kernel_entry entries[] = {__VA_ARGS__};                  \
    *count = sizeof(entries) / sizeof(entries[0]);                                \
    return entries;                                                               \
  }

// The block's dynamic shared memory, 16-byte aligned: DYNAMIC_SHARED(float, name) declares float*
// name. One name, one type a kernel; cut it up with pointers.
#if defined(__CUDACC__)
#define DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(16) unsigned char voltaic_shared_[]; \
  type* const name = reinterpret_cast<type*>(voltaic_shared_)
#else
#define DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(voltaic::emulator::position.dynamic_shared)
#endif

namespace voltaic {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kMostBlocks = 0x7fffffff;  // in x; in y and z it is 65535

// Queues kernel<<<grid, block, shared_bytes>>>(arguments...) on the call's stream.
template <class... Parameters, class... Arguments>
inline voltaic_status launch(const voltaic_call* call, void (*kernel)(Parameters...), dim3 grid,
                             dim3 block, size_t shared_bytes, Arguments... arguments) {
  cudaError_t error = cuda::use_device(call->stream);
  // The limit is the kernel's: a stream of another thread may set another one before the launch.
  static std::mutex one_limit;
  std::unique_lock<std::mutex> lock(one_limit, std::defer_lock);
  if (error == cudaSuccess && shared_bytes > (size_t{48} << 10)) {
    lock.lock();
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return cuda::runtime_failure(call->message, "asking for the device and its shared memory",
                                 error);
  }
#if defined(__CUDACC__)
  kernel<<<grid, block, shared_bytes, call->stream->handle>>>(
      static_cast<Parameters>(arguments)...);
  error = cudaGetLastError();
#else
  error = emulator::launch(kernel, grid, block, shared_bytes, call->stream->handle,
                           static_cast<Parameters>(arguments)...);
  cudaGetLastError();
#endif
  return error == cudaSuccess ? VOLTAIC_OK
                              : cuda::runtime_failure(call->message, "the launch", error);
}

inline voltaic_status queued(const voltaic_call* call, const char* what, cudaError_t error) {
  if (error == cudaSuccess) return VOLTAIC_OK;
  cudaGetLastError();
  return cuda::runtime_failure(call->message, what, error);
}
// Queues a copy within the card's memory.
inline voltaic_status copy_bytes(const voltaic_call* call, void* to, const void* from,
                                 size_t bytes) {
  cudaError_t error = cuda::use_device(call->stream);
  if (error == cudaSuccess)
    error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, call->stream->handle);
  return queued(call, "a copy on the card", error);
}
// Queues setting every byte to one value.
inline voltaic_status fill_bytes(const voltaic_call* call, void* to, int value, size_t bytes) {
  cudaError_t error = cuda::use_device(call->stream);
  if (error == cudaSuccess) error = cudaMemsetAsync(to, value, bytes, call->stream->handle);
  return queued(call, "filling memory of the card", error);
}

// Blocks of `threads` for `items` items, one a thread.
inline dim3 blocks_for(int64_t items, int64_t threads) {
  return dim3(static_cast<unsigned>(smaller(divide_up(items, threads), kMostBlocks)));
}

// Calls body with a null pointer of the float type that dtype names: body((float*)nullptr) or
// (bfloat16*).
template <class Body>
inline voltaic_status with_float(int32_t dtype, Body&& body) {
  return dtype == VOLTAIC_BFLOAT16 ? body((bfloat16*)nullptr) : body((float*)nullptr);
}

// Whether all of these may be read and written 16 bytes at a time from their start.
inline bool aligned_16(const void* a, const void* b = nullptr, const void* c = nullptr,
                       const void* d = nullptr) {
  return ((reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) |
           reinterpret_cast<uintptr_t>(c) | reinterpret_cast<uintptr_t>(d)) &
          15) == 0;
}

// ---- what only the data shows: an index out of range is reported by the kernel that meets it and
// comes back with the next read or synchronize. The kernel goes on with something harmless.
struct IndexCheck {
  cuda::DataError* error;
  unsigned long long what;
};
// what: a string literal that names op and argument, such as "gather_rows: index".
inline IndexCheck index_check(const voltaic_call* call, const char* what) {
  return {call->stream->device_error, reinterpret_cast<unsigned long long>(what)};
}
// Whether low <= value <= high; otherwise reports "WHAT[index] is VALUE; expected LOW to HIGH".
__device__ __forceinline__ bool in_range(const IndexCheck& check, int64_t index, int64_t value,
                                         int64_t low, int64_t high) {
  if (value >= low && value <= high) return true;
  if (atomicCAS(&check.error->state, 0u, 1u) == 0u) {
    check.error->what = check.what;
    check.error->index = index;
    check.error->value = value;
    check.error->low = low;
    check.error->high = high;
    __threadfence_system();  // the host may be looking
    *static_cast<volatile unsigned*>(&check.error->state) = 2;
  }
  return false;
}

// ---- reductions. A warp's result is in every lane, and the same in each.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}
// NaN wins.
__device__ __forceinline__ float larger_or_nan(float a, float b) {
  return a != a ? a : (a < b || b != b ? b : a);
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value = larger_or_nan(value, __shfl_xor_sync(kAllLanes, value, mask));
  return value;
}

// Sum over a block of `threads` (a multiple of 32), in every thread. Every thread must call it;
// `room` is shared memory for threads / 32 numbers, free again after the next __syncthreads().
template <int threads, class T>
__device__ __forceinline__ T block_sum(T value, T* room) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  value = warp_sum(value);
  if constexpr (threads == 32) return value;
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = room[0];
#pragma unroll
  for (int i = 1; i < threads / 32; i++) sum += room[i];
  return sum;
}
template <int threads>
__device__ __forceinline__ float block_max(float value, float* room) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  value = warp_max(value);
  if constexpr (threads == 32) return value;
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  float most = room[0];
#pragma unroll
  for (int i = 1; i < threads / 32; i++) most = larger_or_nan(most, room[i]);
  return most;
}

}  // namespace
}  // namespace voltaic
