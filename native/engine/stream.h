// A stream: a queue of work in order, and the thread that does it.
//
// JavaScript queues kernels and copies and goes on; the stream's thread takes them from a ring and
// calls the backend. The CPU backend computes in that thread (and the worker pool), a device
// backend launches from it. A kernel that fails leaves its error on the stream; what was queued
// behind it is skipped, and the next wait or download reports it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend_abi.h"
#include "kernel_table.h"

namespace voltaic {

constexpr uint32_t kMostTensors = 20;
constexpr uint32_t kMostAttributes = 16;

struct StreamError {
  voltaic_status status = VOLTAIC_OK;
  std::string message;
};

// Called on the stream's thread when a download or a marker has been reached.
using Completion = std::function<void(StreamError)>;

class Stream {
 public:
  // Throws std::runtime_error when the backend gives no stream.
  Stream(const voltaic_backend* backend, int32_t device);
  // Ends after the command that is running; commands still queued are dropped, their completions
  // called with an error.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // tensors and attributes are copied. Queues block while the ring is full.
  void queue_kernel(voltaic_kernel kernel, const char* op, const voltaic_tensor* tensors,
                    uint32_t tensor_count, const double* attributes, uint32_t attribute_count);
  // Copies bytes from `from` at once; they reach `to` in order.
  void queue_upload(void* to, const void* from, size_t bytes);
  // to must stay valid until done is called.
  void queue_download(void* to, const void* from, size_t bytes, Completion done);
  void queue_marker(Completion done);
  // Blocks until all that is queued has been done; takes the error.
  StreamError wait();
  // Blocks as wait() does, but leaves the error for the next download or wait to report.
  void drain();

 private:
  enum class Kind : uint8_t { kernel, upload, download, marker, fence };
  struct Command {
    Kind kind = Kind::marker;
    uint32_t tensor_count = 0, attribute_count = 0;
    voltaic_kernel kernel = nullptr;
    const char* op = "";
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
    std::unique_ptr<char[]> staging;
    Completion done;
    voltaic_tensor tensors[kMostTensors];
    double attributes[kMostAttributes];
  };

  Command& begin_push();
  void finish_push();
  void work();
  void execute(Command& command);
  void synchronize();

  const voltaic_backend* backend_;
  voltaic_stream* stream_ = nullptr;
  std::vector<Command> ring_;
  alignas(64) std::atomic<uint64_t> pushed_{0};
  alignas(64) std::atomic<uint64_t> done_{0};
  std::atomic<bool> sleeping_{false}, stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_, drained_;
  StreamError error_;  // touched by the stream's thread alone
  std::thread thread_;
};

}  // namespace voltaic
