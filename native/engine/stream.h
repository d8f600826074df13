// A stream: a queue of work in order, and the thread that does it.
//
// JavaScript queues kernels and copies and goes on; the stream's thread takes them from a ring and
// calls the backend. The CPU backend computes in that thread (and the worker pool), a device
// backend launches from it. A kernel that fails leaves its error on the stream; what was queued
// behind it is skipped, and the next wait or download reports it. Where the backend can read
// without waiting, a download does not hold up what is queued behind it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "backend_abi.h"
#include "kernel_table.h"
#include "profile.h"

namespace voltaic {

constexpr uint32_t kMostTensors = 20;
constexpr uint32_t kMostAttributes = 16;

struct StreamError {
  voltaic_status status = VOLTAIC_OK;
  std::string message;
};

// Called once when a download, a marker or a task has been done, on the stream's thread or one of
// the backend's.
using Completion = std::function<void(StreamError)>;
// Something to be done on the stream's thread; its error is its own, not the stream's.
using Task = std::function<StreamError(voltaic_stream*)>;

class Stream {
 public:
  // Throws std::runtime_error when the backend gives no stream.
  Stream(const voltaic_backend* backend, int32_t device);
  // Ends after the command that is running and the reads under way; commands still queued are
  // dropped, their completions called with an error. Graphs that are left are destroyed.
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
  void queue_task(Task task, Completion done);

  // Captured graphs, where the backend has them. Between begin and end kernels are noted down, not
  // done; nothing else may be queued there. What fails in between is the capture's failure: `done`
  // of its end gets it, and there is no graph then. An error from before stays on the stream, and
  // the capture fails for it. Graphs have numbers of the caller's; 0 throws away what was captured.
  void queue_capture_begin();
  void queue_capture_end(uint64_t graph, Completion done);
  void queue_launch(uint64_t graph);
  void queue_graph_destroy(uint64_t graph);

  // To be called by tasks, on the stream's thread: notes down what each kernel takes from here on;
  // ends that and gives what was noted.
  void begin_profile();
  std::string end_profile();

  // Blocks until all that is queued has been done; takes the error.
  StreamError wait();
  // Blocks as wait() does, but leaves the error for the next download or wait to report.
  void drain();

 private:
  enum class Kind : uint8_t {
    kernel,
    upload,
    download,
    marker,
    fence,
    task,
    capture_begin,
    capture_end,
    launch,
    graph_destroy
  };
  struct Command {
    Kind kind = Kind::marker;
    uint32_t tensor_count = 0, attribute_count = 0;
    voltaic_kernel kernel = nullptr;
    const char* op = "";
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
    uint64_t graph = 0;
    std::unique_ptr<char[]> staging;
    Completion done;
    Task task;
    voltaic_tensor tensors[kMostTensors];
    double attributes[kMostAttributes];
  };

  Command& begin_push();
  void finish_push();
  void work();
  void execute(Command& command);
  void synchronize();
  void copy_down(Command& command);
  void read(Command& command);
  void begin_capture();
  StreamError end_capture(uint64_t number);
  void launch(uint64_t number);
  void destroy_graph(uint64_t number);
  void run_kernel(const Command& command);
  void note(voltaic_status status, std::string message);
  StreamError& error() { return in_capture_ ? capture_error_ : error_; }

  const voltaic_backend* backend_;
  voltaic_stream* stream_ = nullptr;
  std::vector<Command> ring_;
  alignas(64) std::atomic<uint64_t> pushed_{0};
  alignas(64) std::atomic<uint64_t> done_{0};
  std::atomic<bool> sleeping_{false}, stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_, drained_;
  // Touched by the stream's thread alone.
  StreamError error_;          // not reported yet
  StreamError capture_error_;  // of the capture under way
  bool in_capture_ = false;    // between begin and end, whether begin worked or not
  bool capturing_ = false;     // the backend notes down
  std::unordered_map<uint64_t, voltaic_graph*> graphs_;
  std::unique_ptr<Profile> profile_;  // while there is one
  std::thread thread_;
};

}  // namespace voltaic
