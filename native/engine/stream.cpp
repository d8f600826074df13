#include "stream.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <stdexcept>
#include <utility>

#include "spin.h"

namespace voltaic {
namespace {

constexpr size_t kRing = 1024;  // commands; a power of two

}  // namespace

Stream::Stream(const voltaic_backend* backend, int32_t device) : backend_(backend), ring_(kRing) {
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  if (backend_->stream_create(device, &stream_, message) != VOLTAIC_OK)
    throw std::runtime_error(message);
  thread_ = std::thread(&Stream::work, this);
}

Stream::~Stream() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  thread_.join();
  if (capturing_) end_capture(0);
  while (!graphs_.empty()) destroy_graph(graphs_.begin()->first);
  // Answers the reads that are under way; their buffers are their callers', who wait for that.
  backend_->stream_destroy(stream_);
}

Stream::Command& Stream::begin_push() {
  const uint64_t at = pushed_.load(std::memory_order_relaxed);
  if (at - done_.load(std::memory_order_acquire) >= kRing) {
    // Backpressure: far ahead of the device, the producer waits for room.
    std::unique_lock<std::mutex> lock(mutex_);
    drained_.wait(lock, [&] { return at - done_.load() < kRing / 2; });
  }
  return ring_[at % kRing];
}

void Stream::finish_push() {
  pushed_.fetch_add(1, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst)) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_one();
  }
}

void Stream::queue_kernel(voltaic_kernel kernel, const char* op, const voltaic_tensor* tensors,
                          uint32_t tensor_count, const double* attributes,
                          uint32_t attribute_count) {
  Command& command = begin_push();
  command.kind = Kind::kernel;
  command.kernel = kernel;
  command.op = op;
  command.tensor_count = tensor_count;
  command.attribute_count = attribute_count;
  std::copy_n(tensors, tensor_count, command.tensors);
  std::copy_n(attributes, attribute_count, command.attributes);
  finish_push();
}

void Stream::queue_upload(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  Command& command = begin_push();
  command.kind = Kind::upload;
  command.to = to;
  command.bytes = bytes;
  // Small uploads (rates, random state) ride in the command itself.
  char* staging = reinterpret_cast<char*>(command.tensors);
  if (bytes > sizeof command.tensors) {
    command.staging.reset(new char[bytes]);
    staging = command.staging.get();
  }
  std::memcpy(staging, from, bytes);
  command.from = staging;
  finish_push();
}

void Stream::queue_download(void* to, const void* from, size_t bytes, Completion done) {
  Command& command = begin_push();
  command.kind = Kind::download;
  command.to = to;
  command.from = from;
  command.bytes = bytes;
  command.done = std::move(done);
  finish_push();
}

void Stream::queue_marker(Completion done) {
  Command& command = begin_push();
  command.kind = Kind::marker;
  command.done = std::move(done);
  finish_push();
}

void Stream::queue_task(Task task, Completion done) {
  Command& command = begin_push();
  command.kind = Kind::task;
  command.task = std::move(task);
  command.done = std::move(done);
  finish_push();
}

void Stream::queue_capture_begin() {
  begin_push().kind = Kind::capture_begin;
  finish_push();
}

void Stream::queue_capture_end(uint64_t graph, Completion done) {
  Command& command = begin_push();
  command.kind = Kind::capture_end;
  command.graph = graph;
  command.done = std::move(done);
  finish_push();
}

void Stream::queue_launch(uint64_t graph) {
  Command& command = begin_push();
  command.kind = Kind::launch;
  command.graph = graph;
  finish_push();
}

void Stream::queue_graph_destroy(uint64_t graph) {
  Command& command = begin_push();
  command.kind = Kind::graph_destroy;
  command.graph = graph;
  finish_push();
}

StreamError Stream::wait() {
  std::promise<StreamError> reached;
  std::future<StreamError> result = reached.get_future();
  queue_marker([&](StreamError error) { reached.set_value(std::move(error)); });
  return result.get();
}

void Stream::drain() {
  std::promise<void> reached;
  Command& command = begin_push();
  command.kind = Kind::fence;
  command.done = [&](StreamError) { reached.set_value(); };
  finish_push();
  reached.get_future().get();
}

// The first failure stays until it is reported.
void Stream::note(voltaic_status status, std::string message) {
  if (status != VOLTAIC_OK && error().status == VOLTAIC_OK) error() = {status, std::move(message)};
}

void Stream::synchronize() {
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  const voltaic_status status = backend_->synchronize(stream_, message);
  note(status, message);
}

void Stream::copy_down(Command& command) {
  if (error_.status == VOLTAIC_OK && command.bytes > 0) {
    char message[VOLTAIC_MESSAGE_LENGTH] = "";
    const voltaic_status status = backend_->copy(stream_, command.to, command.from, command.bytes,
                                                 VOLTAIC_COPY_DEVICE_TO_HOST, message);
    note(status, std::string("download: ") + message);
  }
  synchronize();
  const Completion done = std::exchange(command.done, nullptr);
  StreamError failed = std::exchange(error_, {});
  if (done) done(std::move(failed));
}

void Stream::read(Command& command) {
  auto done = std::make_unique<Completion>(std::exchange(command.done, nullptr));
  StreamError failed = std::exchange(error_, {});
  if (failed.status == VOLTAIC_OK) {
    char message[VOLTAIC_MESSAGE_LENGTH] = "";
    const auto answer = [](void* context, voltaic_status status, const char* text) {
      const std::unique_ptr<Completion> asked(static_cast<Completion*>(context));
      if (*asked) (*asked)(status == VOLTAIC_OK ? StreamError{} : StreamError{status, text});
    };
    const voltaic_status status = backend_->read(stream_, command.to, command.from, command.bytes,
                                                 answer, done.get(), message);
    if (status == VOLTAIC_OK) {
      done.release();  // answer's, which may have been called already
      return;
    }
    failed = {status, message};
  }
  if (*done) (*done)(std::move(failed));
}

void Stream::begin_capture() {
  in_capture_ = true;
  capture_error_ = error_;
  if (error_.status != VOLTAIC_OK) return;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  const voltaic_status status = backend_->capture_begin(stream_, message);
  capturing_ = status == VOLTAIC_OK;
  note(status, std::string("capture: ") + message);
}

StreamError Stream::end_capture(uint64_t number) {
  voltaic_graph* graph = nullptr;
  if (capturing_) {
    char message[VOLTAIC_MESSAGE_LENGTH] = "";
    const voltaic_status status = backend_->capture_end(stream_, &graph, message);
    note(status, std::string("capture: ") + message);
  }
  capturing_ = in_capture_ = false;
  StreamError failed = std::exchange(capture_error_, {});
  if (graph == nullptr) return failed;
  if (number == 0 || failed.status != VOLTAIC_OK) {
    backend_->graph_destroy(graph);
  } else {
    graphs_[number] = graph;
  }
  return failed;
}

void Stream::launch(uint64_t number) {
  if (error().status != VOLTAIC_OK) return;
  const auto found = graphs_.find(number);
  if (found == graphs_.end()) return note(VOLTAIC_ERROR_DISPOSED, "launch: there is no such graph");
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  const Profile::Clock::time_point begin = Profile::Clock::now();
  const voltaic_status status = backend_->graph_launch(stream_, found->second, message);
  note(status, std::string("launch: ") + message);
  if (profile_ == nullptr) return;
  synchronize();
  profile_->add("captured graph", Profile::Clock::now() - begin);
}

void Stream::destroy_graph(uint64_t number) {
  const auto found = graphs_.find(number);
  if (found == graphs_.end()) return;
  synchronize();  // it may be running
  backend_->graph_destroy(found->second);
  graphs_.erase(found);
}

void Stream::begin_profile() {
  synchronize();
  profile_ = std::make_unique<Profile>();
}

std::string Stream::end_profile() {
  const std::unique_ptr<Profile> profile = std::move(profile_);
  return profile == nullptr ? "" : profile->text();
}

void Stream::run_kernel(const Command& command) {
  if (error().status != VOLTAIC_OK) return;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  voltaic_call call = {};
  call.struct_size = sizeof call;
  call.tensor_count = command.tensor_count;
  call.attribute_count = command.attribute_count;
  call.tensors = command.tensors;
  call.attributes = command.attributes;
  call.stream = stream_;
  call.message = message;
  const bool profiled = profile_ != nullptr && !in_capture_;
  const Profile::Clock::time_point begin =
      profiled ? Profile::Clock::now() : Profile::Clock::time_point{};
  const voltaic_status status = command.kernel(&call);
  if (status != VOLTAIC_OK) note(status, std::string(command.op) + ": " + message);
  if (!profiled) return;
  synchronize();
  profile_->add(command.op, call, Profile::Clock::now() - begin);
}

void Stream::execute(Command& command) {
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  voltaic_status status = VOLTAIC_OK;
  switch (command.kind) {
    case Kind::kernel:
      return run_kernel(command);
    case Kind::upload:
      status = backend_->copy(stream_, command.to, command.from, command.bytes,
                              VOLTAIC_COPY_HOST_TO_DEVICE, message);
      note(status, std::string("upload: ") + message);
      command.staging.reset();
      return;
    case Kind::download:
      if (backend_->read != nullptr) return read(command);
      return copy_down(command);
    case Kind::marker:
    case Kind::fence: {
      synchronize();
      StreamError failed = command.kind == Kind::fence ? StreamError{} : std::exchange(error_, {});
      const Completion done = std::exchange(command.done, nullptr);
      if (done) done(std::move(failed));
      return;
    }
    case Kind::task: {
      const Task task = std::exchange(command.task, nullptr);
      const Completion done = std::exchange(command.done, nullptr);
      StreamError failed = task(stream_);
      if (done) done(std::move(failed));
      return;
    }
    case Kind::capture_begin:
      return begin_capture();
    case Kind::capture_end: {
      const Completion done = std::exchange(command.done, nullptr);
      StreamError failed = end_capture(command.graph);
      if (done) done(std::move(failed));
      return;
    }
    case Kind::launch:
      return launch(command.graph);
    case Kind::graph_destroy:
      return destroy_graph(command.graph);
  }
}

void Stream::work() {
  uint64_t at = 0;
  for (;;) {
    for (Spin spin;
         pushed_.load(std::memory_order_acquire) == at && !stop_.load(std::memory_order_relaxed);) {
      if (!spin.long_enough()) {
        spin.wait();
        continue;
      }
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.store(true, std::memory_order_seq_cst);
      wake_.wait(lock,
                 [&] { return pushed_.load(std::memory_order_seq_cst) != at || stop_.load(); });
      sleeping_.store(false, std::memory_order_seq_cst);
    }
    if (stop_.load()) break;
    execute(ring_[at % kRing]);
    at++;
    done_.store(at, std::memory_order_release);
    if (pushed_.load(std::memory_order_relaxed) - at == kRing / 2 - 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      drained_.notify_one();
    }
  }
  for (; at != pushed_.load(); at++) {
    Command& command = ring_[at % kRing];
    if (command.done) command.done({VOLTAIC_ERROR_RUNTIME, "the environment is shutting down"});
  }
}

}  // namespace voltaic
