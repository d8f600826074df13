// What one JavaScript environment (the main thread, or a worker) holds: devices with their streams
// and allocators, and the slots behind tensor handles. A handle is slot + generation * 2^24 as a
// double; 0 is none. A freed slot's next generation makes old handles invalid instead of dangling.
// Handles never cross environments.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../engine/allocator.h"
#include "../engine/backend_abi.h"
#include "../engine/backends.h"
#include "../engine/kernel_table.h"
#include "../engine/stream.h"

namespace voltaic::addon {

// One device of this environment. All its tensors live in one allocator and all its work runs on
// one stream.
struct Device {
  Device(const voltaic_backend* backend, int32_t index, uint64_t limit_bytes);

  const voltaic_backend* backend;
  int32_t index;
  CachingAllocator allocator;
  Stream stream;  // after the allocator: ends first, so no running kernel loses its memory
  std::vector<voltaic_kernel> kernels;  // by op number; nullptr where the backend has none
  uint64_t told_to_v8 = 0;              // reserved bytes that V8 knows of
  uint64_t launches = 0;                // of graphs, which may write to any storage

  // The capture under way: its graph's number, 0 for none; its pool; what made it fail already.
  uint64_t capturing = 0;
  uint32_t capture_pool = 0;
  std::string capture_failure;
};

// A captured graph. Its pool may be shared with other graphs.
struct Graph {
  Device* device;
  uint32_t pool;
};

struct Storage {
  Device* device;
  Block block;
  uint32_t references;
  uint64_t writes = 0;  // queued so far: uploads, and kernels that it is a result of
};

struct Slot {
  Storage* storage = nullptr;
  uint32_t generation = 1;
  int32_t device = -1;
  voltaic_tensor tensor = {};  // data includes the offset
};

class Environment {
 public:
  static void create(napi_env env);
  static Environment& of(napi_env env);
  ~Environment();

  // ---- devices
  int32_t add_device(const voltaic_backend* backend, int32_t index, uint64_t limit_bytes);
  Device* device(int32_t number) {
    return number >= 0 && number < static_cast<int32_t>(devices_.size())
               ? devices_[static_cast<size_t>(number)].get()
               : nullptr;
  }
  BackendLibrary library;

  // ---- tensors; each returns a status and leaves its sentence in last_error
  voltaic_status allocate(int32_t device, int32_t dtype, int32_t rank, const double* shape,
                          double& handle);
  voltaic_status view(double of, int32_t dtype, int32_t rank, const double* shape,
                      double element_offset, double& handle);
  voltaic_status release(double handle);
  voltaic_status run(uint32_t op, uint32_t tensor_count, uint32_t attribute_count,
                     const double* command);
  Slot* find(double handle);  // nullptr: freed, or never was
  Slot* find_or_explain(double handle, const char* what);

  // ---- captured graphs, by number
  // like: a graph whose memory the new one shares, or 0.
  voltaic_status begin_capture(int32_t device, uint64_t like, uint64_t& number);
  // Blocks until the graph is there. Not kept, or failed: nothing is left of it.
  voltaic_status end_capture(int32_t device, bool keep);
  voltaic_status launch(uint64_t graph);
  voltaic_status release_graph(uint64_t graph);
  // Moving data is refused while a graph is being captured, and makes the capture fail.
  voltaic_status refuse_in_capture(Device& device, const char* what);

  // ---- completions of downloads, markers and settings, delivered on the JavaScript thread
  struct Pending {
    Environment* environment;
    napi_deferred deferred;
    enum class Result : uint8_t { nothing, bytes, text } result = Result::nothing;
    std::vector<char> bytes;
    StreamError error;
  };
  Pending* begin_pending(napi_value* promise);
  void finish_pending(Pending* pending);  // on any thread
  // The completion that finishes it.
  Completion finisher(Pending* pending) {
    return [this, pending](StreamError error) {
      pending->error = std::move(error);
      finish_pending(pending);
    };
  }

  napi_env env;
  double* command = nullptr;  // the bound command buffer
  size_t command_length = 0;
  napi_ref command_reference = nullptr;
  std::string last_error;
  uint64_t live_tensors = 0;

 private:
  explicit Environment(napi_env env);
  static void deliver(napi_env env, napi_value callback, void* context, void* data);
  void stop();
  double new_slot(Storage* storage, int32_t device, const voltaic_tensor& tensor);
  void tell_v8(Device& device);
  void close_pool(const Graph& graph);
  voltaic_status fail(voltaic_status status, std::string message) {
    last_error = std::move(message);
    return status;
  }

  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::unordered_map<uint64_t, Graph> graphs_;
  uint64_t last_graph_ = 0;
  napi_threadsafe_function deliveries_ = nullptr;
  int pending_count_ = 0;
};

const char* status_code(voltaic_status status);  // "ERR_SHAPE", …
size_t dtype_size(int32_t dtype);

}  // namespace voltaic::addon
