// Stands in for the toolkit's <cuda_runtime.h> when g++ compiles the CUDA sources: the language's
// keywords, the vector types and intrinsics that the kernels use, and the runtime calls that the
// backend makes. Kernels run in scheduler.cpp, the runtime is in runtime.cpp.
//
// Not emulated: timing, bank conflicts, races between blocks, the rounding of fast intrinsics (they
// are computed exactly here), and what only sm_90a has.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#include "scheduler.h"

// ---- keywords
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
// One launch at a time: run_grid(), which poisons the section for every block. AddressSanitizer
// looks at no variables of sections.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static __attribute__((section("voltaic_shared")))
#endif
#define __constant__ static const
#define __align__(bytes) alignas(bytes)

#define threadIdx (voltaic::emulator::position.thread)
#define blockIdx (voltaic::emulator::position.block)
#define blockDim (voltaic::emulator::position.block_size)
#define gridDim (voltaic::emulator::position.grid_size)
constexpr int warpSize = 32;

// ---- vector types
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- intrinsics
namespace voltaic::emulator {
template <class To, class From>
inline To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

// `exact`, wrong by up to `units` in the last place, as a function of its bits. Whole powers of two
// stay, as exp(0) does on a card.
inline float off_by_units(float exact, unsigned units) {
  const auto bits = bits_as<unsigned>(exact);
  if (!(std::fabs(exact) > 1e-37f) || std::isinf(exact) || (bits & 0x7fffffu) == 0) return exact;
  return bits_as<float>(bits + (bits * 2654435761u >> 16) % (2 * units + 1) - units);
}
}  // namespace voltaic::emulator
inline float __uint_as_float(unsigned x) { return voltaic::emulator::bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return voltaic::emulator::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return voltaic::emulator::bits_as<float>(x); }
inline int __float_as_int(float x) { return voltaic::emulator::bits_as<int>(x); }
#if defined(VOLTAIC_EMULATOR_CARD_ROUNDING)
#define expf(x) voltaic::emulator::off_by_units(::expf(x), 1)
#define logf(x) voltaic::emulator::off_by_units(::logf(x), 1)
#define log1pf(x) voltaic::emulator::off_by_units(::log1pf(x), 1)
#define tanhf(x) voltaic::emulator::off_by_units(::tanhf(x), 1)
#endif
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// The compiler cannot see into these, so that it fuses them with nothing, as on a card.
inline float __fadd_rn(float a, float b) {
  float sum = a + b;
  __asm__("" : "+x"(sum));
  return sum;
}
inline float __fmul_rn(float a, float b) {
  float product = a * b;
  __asm__("" : "+x"(product));
  return product;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
template <class T>
inline T __ldg(const T* from) {
  return *from;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }

// Blocks run one after the other and fibers do not interrupt each other: plain reads and writes do.
template <class T>
inline T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T>
inline T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <class T>
inline T atomicMin(T* at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
template <class T>
inline T atomicExch(T* at, T value) {
  const T before = *at;
  *at = value;
  return before;
}
template <class T>
inline T atomicCAS(T* at, T expected, T value) {
  const T before = *at;
  if (before == expected) *at = value;
  return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// ---- barriers and exchanges. Masks are not looked at: the kernels exchange in whole warps.
inline void __syncthreads() { voltaic::emulator::wait_for_block(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  voltaic::emulator::warp_exchange("__syncwarp", nullptr, [](void**) {});
}

namespace voltaic::emulator {
template <class T>
struct Shuffle {
  T given, got;
  int argument;
};
// Where source(lane, argument) names a lane that has returned, or none, a lane keeps its own.
template <class T, int (*source)(int lane, int argument)>
inline T shuffle(const char* kind, T value, int argument) {
  Shuffle<T> mine = {value, value, argument};
  warp_exchange(kind, &mine, [](void** lanes) {
    for (int lane = 0; lane < (int)kWarp; lane++) {
      if (lanes[lane] == nullptr) continue;
      auto* const self = static_cast<Shuffle<T>*>(lanes[lane]);
      const int from = source(lane, self->argument);
      if (from >= 0 && from < (int)kWarp && lanes[from] != nullptr)
        self->got = static_cast<Shuffle<T>*>(lanes[from])->given;
    }
  });
  return mine.got;
}
inline int shuffle_at(int, int from) { return from & 31; }
inline int shuffle_xor(int lane, int mask) { return lane ^ mask; }
inline int shuffle_up(int lane, int by) { return lane - by; }
inline int shuffle_down(int lane, int by) { return lane + by; }

struct Vote {
  bool given;
  unsigned ballot;
};
inline unsigned ballot(const char* kind, bool value) {
  Vote mine = {value, 0};
  warp_exchange(kind, &mine, [](void** lanes) {
    unsigned all = 0;
    for (unsigned lane = 0; lane < kWarp; lane++)
      if (lanes[lane] != nullptr && static_cast<Vote*>(lanes[lane])->given) all |= 1u << lane;
    for (unsigned lane = 0; lane < kWarp; lane++)
      if (lanes[lane] != nullptr) static_cast<Vote*>(lanes[lane])->ballot = all;
  });
  return mine.ballot;
}
}  // namespace voltaic::emulator

template <class T>
inline T __shfl_sync(unsigned, T value, int from) {
  return voltaic::emulator::shuffle<T, voltaic::emulator::shuffle_at>("__shfl_sync", value, from);
}
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return voltaic::emulator::shuffle<T, voltaic::emulator::shuffle_xor>("__shfl_xor_sync", value,
                                                                       mask);
}
template <class T>
inline T __shfl_up_sync(unsigned, T value, unsigned by) {
  return voltaic::emulator::shuffle<T, voltaic::emulator::shuffle_up>("__shfl_up_sync", value,
                                                                      (int)by);
}
template <class T>
inline T __shfl_down_sync(unsigned, T value, unsigned by) {
  return voltaic::emulator::shuffle<T, voltaic::emulator::shuffle_down>("__shfl_down_sync", value,
                                                                        (int)by);
}
inline unsigned __ballot_sync(unsigned, int value) {
  return voltaic::emulator::ballot("__ballot_sync", value != 0);
}
inline int __any_sync(unsigned, int value) {
  return voltaic::emulator::ballot("__any_sync", value != 0) != 0;
}
inline int __all_sync(unsigned, int value) {
  return voltaic::emulator::ballot("__all_sync", value == 0) == 0;
}

// ---- the runtime
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchTimeout = 702,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900
};
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount, l2CacheSize;
};
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);

cudaError_t cudaMalloc(void** out, size_t bytes);
cudaError_t cudaFree(void* memory);
constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocMapped = 2;
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned flags);
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags);
cudaError_t cudaFreeHost(void* memory);

namespace voltaic::emulator {
struct Stream;
struct Event;
struct Graph;
}  // namespace voltaic::emulator
using cudaStream_t = voltaic::emulator::Stream*;
using cudaEvent_t = voltaic::emulator::Event*;
using cudaGraph_t = voltaic::emulator::Graph*;
using cudaGraphExec_t = voltaic::emulator::Graph*;

constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaEventBlockingSync = 1;
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace voltaic::emulator {

// From now on calls that reach the card fail with `error`, as they do on one after a kernel's
// fault; cudaSuccess mends it, which nothing does on a card.
void break_card(cudaError_t error);

// Runs a kernel at once, or notes it down while its stream is being captured. The error also stands
// in cudaGetLastError().
cudaError_t launch_body(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> body);

template <class Kernel, class... Arguments>
cudaError_t launch(Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  return launch_body(grid, block, shared_bytes, stream, [=] { kernel(arguments...); });
}

}  // namespace voltaic::emulator
