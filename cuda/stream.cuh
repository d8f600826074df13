// The backend's stream: a CUDA stream and what its kernels share: the card's abilities, scratch
// memory and the place where a kernel reports an index that is out of range. Used from one host
// thread.
#pragma once
#include <cuda_runtime.h>

#include "../native/engine/kernel_call.h"

namespace voltaic::cuda {

// Pinned host memory that kernels write to. The first thread to report wins: it makes `state` 1,
// writes the rest, and makes it 2. Only then does the host, which looks while later kernels run,
// take it, and makes it 0.
struct DataError {
  unsigned state;
  int32_t reserved;
  unsigned long long what;  // a host pointer: text that names op and argument
  long long index, value, low, high;
};

struct Staging;  // pinned memory that copies pass through: transfers.cuh
struct Matmul;   // cuBLASLt, where it is there: matmul_library.cuh

}  // namespace voltaic::cuda

struct voltaic_stream {
  int32_t device;
  cudaStream_t handle;
  // What the card can do.
  int32_t architecture;      // 10 major + minor: 75, 80, 90, ...
  int32_t processors;        // streaming multiprocessors
  size_t most_shared_bytes;  // dynamic shared memory that a block may ask for
  bool capturing;
  // `error` as the host sees it, `device_error` as kernels do.
  voltaic::cuda::DataError *error, *device_error;
  voltaic::cuda::Staging* staging;
  voltaic::cuda::Matmul* matmul;
};

namespace voltaic::cuda {

// Memory for the length of one call: the next call on the stream may get the same. Null, with the
// message written, when the card gives none. A call that asks again gets the same memory, or other
// where it must be longer; what it wrote before stays in place as far as `kept` bytes of the first
// (and pointers into it stay good). Never moved: a captured graph keeps its addresses.
void* scratch(const voltaic_call* call, size_t bytes, size_t kept = 0);

// Makes a device the calling thread's. Every entry of the backend begins with it: the engine may
// open a stream on one thread and use it on another. Where memory or a stream is to be made the
// error must be looked at, or it would be another device's.
inline cudaError_t use_device(int32_t device) {
  static thread_local int32_t current = -1;
  if (current == device) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(device);
  current = error == cudaSuccess ? device : -1;
  return error;
}
inline cudaError_t use_device(const voltaic_stream* stream) { return use_device(stream->device); }

// A failed runtime call as a status, its numbers and names in the message.
voltaic_status runtime_failure(char* message, const char* what, cudaError_t error);

}  // namespace voltaic::cuda
