// The C border between the engine and a backend (CPU inside the addon, CUDA in a library of its
// own).
//
// A backend is one constant table: memory, streams, and a kernel for each row of the kernel table
// (kernel_table.h). Plain C: no C++ types, no exceptions, no memory that changes owner. Structs
// that may grow carry their size. The engine has already checked every call against the row's
// signature (dtypes, shapes, devices), so a kernel checks only what needs the data itself, such as
// index ranges.
#ifndef VOLTAIC_BACKEND_ABI_H
#define VOLTAIC_BACKEND_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VOLTAIC_BACKEND_ABI_VERSION 2u
#define VOLTAIC_BACKEND_ENTRY_NAME "voltaic_backend_entry"
#define VOLTAIC_MAX_RANK 6
#define VOLTAIC_MESSAGE_LENGTH 512

typedef enum voltaic_status {
  VOLTAIC_OK = 0,
  VOLTAIC_ERROR_SHAPE = 1,
  VOLTAIC_ERROR_DTYPE = 2,
  VOLTAIC_ERROR_DEVICE = 3,
  VOLTAIC_ERROR_OUT_OF_MEMORY = 4,
  VOLTAIC_ERROR_ARGUMENT = 5,  // an attribute or an index out of range
  VOLTAIC_ERROR_DISPOSED = 6,  // a tensor that was freed
  VOLTAIC_ERROR_NO_DRIVER = 7,
  VOLTAIC_ERROR_DRIVER_TOO_OLD = 8,
  VOLTAIC_ERROR_NO_DEVICE = 9,
  VOLTAIC_ERROR_RUNTIME = 10,  // the device reported a failure
  VOLTAIC_ERROR_UNSUPPORTED = 11
} voltaic_status;

typedef enum voltaic_dtype {
  VOLTAIC_FLOAT32 = 0,
  VOLTAIC_BFLOAT16 = 1,
  VOLTAIC_INT32 = 2,
  VOLTAIC_UINT8 = 3
} voltaic_dtype;

// A contiguous row-major array in the backend's memory. An optional argument left out has rank -1
// (and data NULL); data may be NULL when elements is 0.
typedef struct voltaic_tensor {
  void* data;
  int64_t elements;
  int32_t dtype;  // voltaic_dtype
  int32_t rank;
  int64_t shape[VOLTAIC_MAX_RANK];
} voltaic_tensor;

typedef struct voltaic_stream voltaic_stream;  // owned by the backend

// One queued operation. Tensors and attributes stand in the order of the row's signature.
// On failure the kernel writes a sentence into message: what came, what was expected.
typedef struct voltaic_call {
  uint32_t struct_size;
  uint32_t tensor_count;
  uint32_t attribute_count;
  uint32_t reserved;
  const voltaic_tensor* tensors;
  const double* attributes;  // whole numbers are exact up to 2^53
  voltaic_stream* stream;
  char* message;  // VOLTAIC_MESSAGE_LENGTH bytes
} voltaic_call;

typedef voltaic_status (*voltaic_kernel)(const voltaic_call* call);

typedef struct voltaic_kernel_entry {
  const char* name;  // as in the kernel table
  voltaic_kernel kernel;
} voltaic_kernel_entry;

typedef struct voltaic_device_info {
  uint32_t struct_size;  // set by the caller
  int32_t device;
  uint64_t total_bytes, free_bytes;
  int32_t bfloat16_is_fast;  // the hardware multiplies bf16 faster than fp32
  char name[256];            // "NVIDIA H200", "AMD EPYC"
  char instruction_set[64];  // "avx2", "sm_90"
  char matmul_library[256];  // a library for products, its version and path, or why there is none
} voltaic_device_info;

typedef enum voltaic_copy_kind {
  VOLTAIC_COPY_HOST_TO_DEVICE = 0,
  VOLTAIC_COPY_DEVICE_TO_HOST = 1,
  VOLTAIC_COPY_DEVICE_TO_DEVICE = 2
} voltaic_copy_kind;

typedef struct voltaic_graph voltaic_graph;  // a captured run of calls

// Called once, on a thread of the backend's own.
typedef void (*voltaic_read_done)(void* context, voltaic_status status, const char* message);

typedef struct voltaic_backend {
  uint32_t abi_version;
  uint32_t struct_size;
  const char* name;        // "cpu", "cuda"
  const char* build_info;  // compiler, toolkit version, architectures

  // Never fails loudly: no device gives a count of 0 and the reason, for people.
  voltaic_status (*probe)(int32_t* device_count, char* reason, size_t reason_length);
  voltaic_status (*device_info)(int32_t device, voltaic_device_info* out, char* message);

  // Aligned to 64 bytes at least. The engine caches blocks; this is the slow path.
  voltaic_status (*memory_allocate)(int32_t device, size_t bytes, void** out, char* message);
  void (*memory_release)(int32_t device, void* pointer);

  // The engine calls a stream's functions from one thread of its own. copy and kernels may return
  // before the work is done; synchronize waits for all of it and reports what failed.
  voltaic_status (*stream_create)(int32_t device, voltaic_stream** out, char* message);
  void (*stream_destroy)(voltaic_stream* stream);
  voltaic_status (*copy)(voltaic_stream* stream, void* to, const void* from, size_t bytes,
                         voltaic_copy_kind kind, char* message);
  voltaic_status (*synchronize)(voltaic_stream* stream, char* message);

  // As copy from device to host, but returns at once: done is called when `to` has the bytes, or
  // with what failed until then. Not called when read itself returns an error. Reads are answered
  // in order, and before a synchronize that was called after them returns; stream_destroy answers
  // those that are left. NULL where the backend has none: the engine copies and synchronizes.
  voltaic_status (*read)(voltaic_stream* stream, void* to, const void* from, size_t bytes,
                         voltaic_read_done done, void* context, char* message);

  // Capture and replay of a fixed run of kernel calls: between begin and end calls are noted down,
  // not done. NULL where the backend has none.
  voltaic_status (*capture_begin)(voltaic_stream* stream, char* message);
  voltaic_status (*capture_end)(voltaic_stream* stream, voltaic_graph** out, char* message);
  voltaic_status (*graph_launch)(voltaic_stream* stream, voltaic_graph* graph, char* message);
  void (*graph_destroy)(voltaic_graph* graph);

  // Choices that decide a stream's bits beside the build and the card, as text: a run writes them
  // down and takes them back. Name: "matmul", the choices among a matmul library's algorithms; set
  // also takes "tune": algorithms are timed at first use. get writes at most length bytes, the
  // ending 0 included, and the length that is needed to `needed`. NULL where the backend has none.
  voltaic_status (*setting_get)(voltaic_stream* stream, const char* name, char* text, size_t length,
                                size_t* needed, char* message);
  voltaic_status (*setting_set)(voltaic_stream* stream, const char* name, const char* text,
                                char* message);

  uint32_t kernel_count;
  const voltaic_kernel_entry* kernels;
} voltaic_backend;

typedef const voltaic_backend* (*voltaic_backend_entry_function)(uint32_t host_abi_version);

#ifdef __cplusplus
}
#endif
#endif
