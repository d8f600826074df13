// The runtime calls of cuda_runtime.h, on host memory. Work on a stream is done at once, in order;
// while a stream is being captured it is noted down instead, and a graph's launch does it again.
//
// The emulated card's abilities are those of VOLTAIC_EMULATOR_ARCH (75, 80 or 90; 80 otherwise):
// which kernels a backend picks by them is tested that way.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace voltaic::emulator {

struct Graph {
  std::vector<std::function<cudaError_t()>> work;
};
struct Stream {
  std::unique_ptr<Graph> capture;
};
struct Event {
  std::chrono::steady_clock::time_point recorded;
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string launch_failure;
std::atomic<cudaError_t> broken{cudaSuccess};

cudaError_t set_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t do_or_note(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (broken != cudaSuccess) return set_error(broken);
  if (stream != nullptr && stream->capture) {
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  return set_error(work());
}

int architecture() {
  static const int value = [] {
    const char* const setting = std::getenv("VOLTAIC_EMULATOR_ARCH");
    const int number = setting == nullptr ? 0 : std::atoi(setting);
    return number == 75 || number == 90 ? number : 80;
  }();
  return value;
}

}  // namespace

void break_card(cudaError_t error) { broken = error; }

cudaError_t launch_body(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> body) {
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  if (threads == 0 || threads > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
      shared_bytes > properties.sharedMemPerBlockOptin)
    return set_error(cudaErrorInvalidValue);
  return do_or_note(stream, [=, body = std::move(body)] {
    std::string failure = run_grid(grid, block, shared_bytes, body);
    if (failure.empty()) return cudaSuccess;
    launch_failure = std::move(failure);
    return cudaErrorLaunchFailure;
  });
}

}  // namespace voltaic::emulator

using namespace voltaic::emulator;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    default:
      return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return launch_failure.c_str();
  return error == cudaErrorInvalidValue ? "invalid argument" : cudaGetErrorName(error);
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int) {
  *out = {};
  std::strncpy(out->name, "emulated on the CPU", sizeof out->name - 1);
  cudaMemGetInfo(nullptr, &out->totalGlobalMem);
  out->major = architecture() / 10;
  out->minor = architecture() % 10;
  out->multiProcessorCount = 4;
  out->sharedMemPerBlock = size_t{48} << 10;
  out->sharedMemPerBlockOptin = size_t{architecture() == 75   ? 64u
                                       : architecture() == 90 ? 227u
                                                              : 163u}
                                << 10;
  out->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (free_bytes != nullptr) *free_bytes = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * page;
  *total_bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** out, size_t bytes) {
  // Poisoned: what is read before it is written shows.
  if (bytes > size_t{1} << 40 || posix_memalign(out, 256, bytes > 0 ? bytes : 1) != 0)
    return set_error(cudaErrorMemoryAllocation);
  std::memset(*out, 0xFF, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) { return cudaMalloc(out, bytes); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  *out = new Stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (broken != cudaSuccess) return set_error(broken);
  return stream->capture ? set_error(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return do_or_note(stream, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return do_or_note(stream, [=] {
    if (bytes > 0) std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->recorded = std::chrono::steady_clock::now();
  return set_error(broken);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return set_error(broken); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->recorded - begin->recorded).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture) return set_error(cudaErrorStreamCaptureUnsupported);
  stream->capture = std::make_unique<Graph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  if (!stream->capture) return set_error(cudaErrorInvalidValue);
  *out = stream->capture.release();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  *out = new Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : graph->work)
    if (const cudaError_t error = set_error(work()); error != cudaSuccess) return error;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return cudaGraphExecDestroy(graph); }
