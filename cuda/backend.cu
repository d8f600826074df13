// The CUDA backend behind the engine's C border (native/engine/backend_abi.h): devices, memory,
// streams, captured graphs, and the table of kernels. Compiled by nvcc into libvoltaic_cuda.so, and
// by g++ with emulator/ into libvoltaic_emulated.so.
//
// cudart is linked statically and the driver is found at run time, so the library opens on any
// machine; probe() says why there is no device. Nothing here prints, throws across the border or
// ends the process.
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "matmul_library.cuh"
#include "transfers.cuh"

#define FAMILY(name) extern "C" const voltaic_kernel_entry* voltaic_cuda_##name(uint32_t*);
#include "families.inc"
#undef FAMILY

#define VOLTAIC_TEXT_(x) #x
#define VOLTAIC_TEXT(x) VOLTAIC_TEXT_(x)
#if !defined(VOLTAIC_CUDA_ARCHITECTURES)
#define VOLTAIC_CUDA_ARCHITECTURES emulated
#endif

namespace voltaic::cuda {

voltaic_status runtime_failure(char* message, const char* what, cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: {
      size_t free_bytes = 0, total_bytes = 0;
      cudaMemGetInfo(&free_bytes, &total_bytes);
      cudaGetLastError();
      std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s: the card has %zu MB free of %zu MB", what,
                    free_bytes >> 20, total_bytes >> 20);
      return VOLTAIC_ERROR_OUT_OF_MEMORY;
    }
    case cudaErrorNoDevice:
      std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s: no CUDA device", what);
      return VOLTAIC_ERROR_NO_DEVICE;
    case cudaErrorNoKernelImageForDevice:
      std::snprintf(message, VOLTAIC_MESSAGE_LENGTH,
                    "%s: this build has no kernels for the card (it has targets %s); build with "
                    "npx voltaic build-cuda",
                    what, VOLTAIC_TEXT(VOLTAIC_CUDA_ARCHITECTURES));
      return VOLTAIC_ERROR_UNSUPPORTED;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
      // Whoever asks next gets it, and everyone after: it names no culprit.
      std::snprintf(message, VOLTAIC_MESSAGE_LENGTH,
                    "%s failed: %s (%s, CUDA error %d), in this or in earlier work; the process "
                    "cannot use the card any more",
                    what, cudaGetErrorString(error), cudaGetErrorName(error),
                    static_cast<int>(error));
      return VOLTAIC_ERROR_RUNTIME;
    default:
      std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s failed: %s (%s, CUDA error %d)", what,
                    cudaGetErrorString(error), cudaGetErrorName(error), static_cast<int>(error));
      return VOLTAIC_ERROR_RUNTIME;
  }
}

namespace {

// Scratch memory grows and stays until the stream ends: a captured graph keeps its addresses.
// Growing by half at least bounds what is left behind to twice the largest.
struct OwnedStream : voltaic_stream {
  std::vector<void*> scratch_blocks;
  size_t scratch_bytes = 0;
};

voltaic_status fail_with(char* message, voltaic_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, VOLTAIC_MESSAGE_LENGTH, format, arguments);
  va_end(arguments);
  return status;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

voltaic_status probe(int32_t* device_count, char* reason, size_t reason_length) {
  int count = 0, runtime = 0, driver = 0;
  *device_count = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error == cudaSuccess && count > 0) {
    *device_count = count;
    return VOLTAIC_OK;
  }
  if (driver == 0) {
    std::snprintf(reason, reason_length, "no NVIDIA driver (this build needs one for CUDA %s)",
                  version_text(runtime).c_str());
    return VOLTAIC_ERROR_NO_DRIVER;
  }
  if (error == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000) {
    std::snprintf(
        reason, reason_length,
        "the NVIDIA driver is for CUDA %s, this build needs CUDA %s%s; update the driver, or "
        "build with an older toolkit: npx voltaic build-cuda",
        version_text(driver).c_str(), version_text(runtime).c_str(),
        runtime / 1000 == 13 ? " (driver 580 or later)" : "");
    return VOLTAIC_ERROR_DRIVER_TOO_OLD;
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) {
    std::snprintf(reason, reason_length, "the NVIDIA driver (CUDA %s) sees no device",
                  version_text(driver).c_str());
    return VOLTAIC_ERROR_NO_DEVICE;
  }
  std::snprintf(reason, reason_length, "asking for CUDA devices failed: %s (%s)",
                cudaGetErrorString(error), cudaGetErrorName(error));
  return VOLTAIC_ERROR_RUNTIME;
}

voltaic_status device_info(int32_t device, voltaic_device_info* out, char* message) {
  cudaDeviceProp properties;
  if (cudaError_t error = cudaGetDeviceProperties(&properties, device))
    return runtime_failure(message, "asking for the device", error);
  out->device = device;
  out->total_bytes = properties.totalGlobalMem;
  size_t free_bytes = 0, total_bytes = 0;
  if (use_device(device) == cudaSuccess && cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess)
    out->free_bytes = free_bytes;
  cudaGetLastError();
  out->bfloat16_is_fast = properties.major >= 8;
  describe_matmul_library(out->matmul_library, sizeof out->matmul_library);
  std::snprintf(out->name, sizeof out->name, "%s", properties.name);
  std::snprintf(out->instruction_set, sizeof out->instruction_set, "sm_%d%d", properties.major,
                properties.minor);
  return VOLTAIC_OK;
}

voltaic_status memory_allocate(int32_t device, size_t bytes, void** out, char* message) {
  cudaError_t error = use_device(device);
  if (error == cudaSuccess) error = cudaMalloc(out, bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();
    char what[64];
    std::snprintf(what, sizeof what, "asking for %zu MB", (bytes + 524288) >> 20);
    return runtime_failure(message, what, error);
  }
  return VOLTAIC_OK;
}

void memory_release(int32_t device, void* pointer) {
  use_device(device);
  cudaFree(pointer);
  cudaGetLastError();
}

void stream_destroy(voltaic_stream* stream) {
  auto* const self = static_cast<OwnedStream*>(stream);
  if (self == nullptr) return;
  use_device(self);
  if (self->handle != nullptr) cudaStreamSynchronize(self->handle);
  close_matmul_library(self);
  delete self->staging;
  for (void* block : self->scratch_blocks) cudaFree(block);
  if (self->error != nullptr) cudaFreeHost(self->error);
  if (self->handle != nullptr) cudaStreamDestroy(self->handle);
  cudaGetLastError();
  delete self;
}

voltaic_status stream_create(int32_t device, voltaic_stream** out, char* message) {
  auto* const self = new (std::nothrow) OwnedStream{};
  if (self == nullptr) return fail_with(message, VOLTAIC_ERROR_OUT_OF_MEMORY, "no host memory");
  self->device = device;
  cudaDeviceProp properties;
  void *error = nullptr, *device_error = nullptr;
  cudaError_t failed = use_device(device);
  if (failed == cudaSuccess) failed = cudaGetDeviceProperties(&properties, device);
  if (failed == cudaSuccess)
    failed = cudaStreamCreateWithFlags(&self->handle, cudaStreamNonBlocking);
  if (failed == cudaSuccess) failed = cudaHostAlloc(&error, sizeof(DataError), cudaHostAllocMapped);
  if (failed == cudaSuccess) failed = cudaHostGetDevicePointer(&device_error, error, 0);
  if (failed != cudaSuccess) {
    cudaGetLastError();
    stream_destroy(self);
    return runtime_failure(message, "opening a stream", failed);
  }
  self->error = static_cast<DataError*>(error);
  self->device_error = static_cast<DataError*>(device_error);
  *self->error = {};
  self->architecture = 10 * properties.major + properties.minor;
  self->processors = properties.multiProcessorCount;
  self->most_shared_bytes = properties.sharedMemPerBlockOptin;
  self->staging = new Staging(device, self->error);
  open_matmul_library(self);
  *out = self;
  return VOLTAIC_OK;
}

voltaic_status refuse_while_capturing(char* message, const char* what) {
  return fail_with(message, VOLTAIC_ERROR_ARGUMENT,
                   "%s while a graph is being captured: only kernels can be captured", what);
}

voltaic_status copy(voltaic_stream* stream, void* to, const void* from, size_t bytes,
                    voltaic_copy_kind kind, char* message) {
  use_device(stream);
  if (stream->capturing && kind != VOLTAIC_COPY_DEVICE_TO_DEVICE)
    return refuse_while_capturing(message, "a copy between host and card");
  cudaError_t error;
  if (kind == VOLTAIC_COPY_HOST_TO_DEVICE) {
    error = stream->staging->upload(stream->handle, to, from, bytes);
  } else {
    error = cudaMemcpyAsync(
        to, from, bytes,
        kind == VOLTAIC_COPY_DEVICE_TO_HOST ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice,
        stream->handle);
  }
  if (error == cudaSuccess) return VOLTAIC_OK;
  cudaGetLastError();
  return runtime_failure(message, "a copy", error);
}

voltaic_status synchronize(voltaic_stream* stream, char* message) {
  use_device(stream);
  if (stream->capturing) return refuse_while_capturing(message, "waiting");
  const cudaError_t error = cudaStreamSynchronize(stream->handle);
  stream->staging->wait_for_reads();  // which are answered when the work failed, too
  if (error != cudaSuccess) {
    cudaGetLastError();
    return runtime_failure(message, "the work on the stream", error);
  }
  return take_data_error(stream->error, message);
}

voltaic_status read(voltaic_stream* stream, void* to, const void* from, size_t bytes,
                    voltaic_read_done done, void* context, char* message) {
  use_device(stream);
  if (stream->capturing) return refuse_while_capturing(message, "a read");
  if (!stream->staging->fits_ring(bytes)) {
    voltaic_status status = copy(stream, to, from, bytes, VOLTAIC_COPY_DEVICE_TO_HOST, message);
    if (status == VOLTAIC_OK) status = synchronize(stream, message);
    if (status == VOLTAIC_OK) done(context, VOLTAIC_OK, "");
    return status;
  }
  if (cudaError_t error = stream->staging->read(stream->handle, to, from, bytes, done, context)) {
    cudaGetLastError();
    return runtime_failure(message, "a read", error);
  }
  return VOLTAIC_OK;
}

}  // namespace

void* scratch(const voltaic_call* call, size_t bytes, [[maybe_unused]] size_t kept) {
  auto* const self = static_cast<OwnedStream*>(call->stream);
  if (bytes > self->scratch_bytes) {
    size_t wanted = self->scratch_bytes + self->scratch_bytes / 2;
    wanted = (bytes > wanted ? bytes : wanted) + ((size_t{1} << 20) - 1);
    wanted = wanted >> 20 << 20;
    void* block = nullptr;
    cudaError_t error = use_device(self);
    if (error == cudaSuccess) error = cudaMalloc(&block, wanted);
    if (error != cudaSuccess) {
      cudaGetLastError();
      char what[64];
      std::snprintf(what, sizeof what, "asking for %zu MB of scratch memory", wanted >> 20);
      runtime_failure(call->message, what, error);
      return nullptr;
    }
    self->scratch_blocks.push_back(block);
    self->scratch_bytes = wanted;
  }
  void* const block = self->scratch_blocks.empty() ? nullptr : self->scratch_blocks.back();
#if !defined(__CUDACC__)
  // Poisoned for each call: a kernel that counts on what another left shows.
  if (block != nullptr && bytes > kept)
    cudaMemsetAsync(static_cast<char*>(block) + kept, 0xFF, bytes - kept, self->handle);
#endif
  return block;
}

}  // namespace voltaic::cuda

struct voltaic_graph {
  cudaGraphExec_t exec;
};

namespace voltaic::cuda {
namespace {

voltaic_status capture_begin(voltaic_stream* stream, char* message) {
  use_device(stream);
  if (stream->capturing) return refuse_while_capturing(message, "another capture");
  // Relaxed: memory for tensors may be taken meanwhile, on another thread or for scratch.
  if (cudaError_t error = cudaStreamBeginCapture(stream->handle, cudaStreamCaptureModeRelaxed)) {
    cudaGetLastError();
    return runtime_failure(message, "beginning a capture", error);
  }
  stream->capturing = true;
  return VOLTAIC_OK;
}

voltaic_status capture_end(voltaic_stream* stream, voltaic_graph** out, char* message) {
  *out = nullptr;
  use_device(stream);
  if (!stream->capturing)
    return fail_with(message, VOLTAIC_ERROR_ARGUMENT, "no capture has been begun");
  stream->capturing = false;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream->handle, &graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return runtime_failure(message, "ending a capture", error);
  }
  *out = new (std::nothrow) voltaic_graph{exec};
  return *out != nullptr ? VOLTAIC_OK
                         : fail_with(message, VOLTAIC_ERROR_OUT_OF_MEMORY, "no host memory");
}

voltaic_status graph_launch(voltaic_stream* stream, voltaic_graph* graph, char* message) {
  use_device(stream);
  if (stream->capturing) return refuse_while_capturing(message, "a graph's launch");
  if (cudaError_t error = cudaGraphLaunch(graph->exec, stream->handle)) {
    cudaGetLastError();
    return runtime_failure(message, "a graph's launch", error);
  }
  return VOLTAIC_OK;
}

void graph_destroy(voltaic_graph* graph) {
  cudaGraphExecDestroy(graph->exec);
  cudaGetLastError();
  delete graph;
}

voltaic_status unknown_setting(const char* name, char* message) {
  return fail_with(message, VOLTAIC_ERROR_ARGUMENT,
                   "the CUDA backend has no setting '%s'; it has matmul", name);
}

voltaic_status setting_get(voltaic_stream* stream, const char* name, char* text, size_t length,
                           size_t* needed, char* message) {
  if (std::string(name) != "matmul") return unknown_setting(name, message);
  return matmul_choices(stream, text, length, needed, message);
}

voltaic_status setting_set(voltaic_stream* stream, const char* name, const char* text,
                           char* message) {
  if (std::string(name) != "matmul") return unknown_setting(name, message);
  return set_matmul_choices(stream, text, message);
}

const std::vector<voltaic_kernel_entry>& kernels() {
  static const std::vector<voltaic_kernel_entry> all = [] {
    std::vector<voltaic_kernel_entry> entries;
    uint32_t count = 0;
    const voltaic_kernel_entry* family = nullptr;
#define FAMILY(name)                    \
  family = voltaic_cuda_##name(&count); \
  entries.insert(entries.end(), family, family + count);
#include "families.inc"
#undef FAMILY
    return entries;
  }();
  return all;
}

}  // namespace
}  // namespace voltaic::cuda

extern "C" __attribute__((visibility("default"))) const voltaic_backend* voltaic_backend_entry(
    uint32_t) {
  using namespace voltaic::cuda;
  static const voltaic_backend table = [] {
    voltaic_backend made = {};
    made.abi_version = VOLTAIC_BACKEND_ABI_VERSION;
    made.struct_size = sizeof made;
    made.name = "cuda";
#if defined(__CUDACC__)
    made.build_info = "nvcc " VOLTAIC_TEXT(__CUDACC_VER_MAJOR__) "." VOLTAIC_TEXT(
        __CUDACC_VER_MINOR__) ", targets " VOLTAIC_TEXT(VOLTAIC_CUDA_ARCHITECTURES);
#else
    made.build_info = "emulated on the CPU, built with " __VERSION__;
#endif
    made.probe = probe;
    made.device_info = device_info;
    made.memory_allocate = memory_allocate;
    made.memory_release = memory_release;
    made.stream_create = stream_create;
    made.stream_destroy = stream_destroy;
    made.copy = copy;
    made.synchronize = synchronize;
    made.read = read;
    made.capture_begin = capture_begin;
    made.capture_end = capture_end;
    made.graph_launch = graph_launch;
    made.graph_destroy = graph_destroy;
    made.setting_get = setting_get;
    made.setting_set = setting_set;
    made.kernel_count = static_cast<uint32_t>(kernels().size());
    made.kernels = kernels().data();
    return made;
  }();
  return &table;
}
