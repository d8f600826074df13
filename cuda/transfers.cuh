// Copies between host and card through pinned memory, so that neither side waits for the other.
//
// Uploads: the bytes are copied into one half of a pinned buffer and queued from there; a half is
// used again once its last copy is done. Reads: the card copies into a pinned ring, and a thread of
// its own waits for each in turn, moves the bytes on and tells who asked. Copies that are too long
// for the ring go directly and block.
#pragma once
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "stream.cuh"

namespace voltaic::cuda {

// What the kernels so far have reported; clears it. `message` has room for VOLTAIC_MESSAGE_LENGTH.
// What a kernel is just writing is left for a later look.
inline voltaic_status take_data_error(DataError* error, char* message) {
  if (__atomic_load_n(&error->state, __ATOMIC_ACQUIRE) != 2) return VOLTAIC_OK;
  std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s[%lld] is %lld; expected %lld to %lld",
                reinterpret_cast<const char*>(error->what), error->index, error->value, error->low,
                error->high);
  __atomic_store_n(&error->state, 0u, __ATOMIC_RELEASE);
  return VOLTAIC_ERROR_ARGUMENT;
}

struct Staging {
  static constexpr size_t kHalf = size_t{4} << 20;
  static constexpr size_t kRing = size_t{1} << 20;

  struct Read {
    cudaEvent_t event;
    const char* pinned;
    void* to;
    size_t bytes, ring_bytes;
    voltaic_read_done done;
    void* context;
  };

  Staging(int32_t device_, DataError* error_) : device(device_), error(error_) {}
  ~Staging() {
    if (reader.joinable()) {
      {
        std::lock_guard<std::mutex> lock(mutex);
        stop = true;
      }
      changed.notify_all();
      reader.join();
    }
    for (cudaEvent_t event : free_events) cudaEventDestroy(event);
    for (Half& half : halves) {
      if (half.event != nullptr) cudaEventDestroy(half.event);
      if (half.memory != nullptr) cudaFreeHost(half.memory);
    }
    if (ring != nullptr) cudaFreeHost(ring);
  }

  cudaError_t upload(cudaStream_t stream, void* to, const void* from, size_t bytes) {
    const char* source = static_cast<const char*>(from);
    char* target = static_cast<char*>(to);
    while (bytes > 0) {
      Half& half = halves[current_half];
      if (half.memory == nullptr) {
        void* memory = nullptr;
        if (cudaError_t failed = cudaHostAlloc(&memory, kHalf, cudaHostAllocDefault)) return failed;
        half.memory = static_cast<char*>(memory);
        if (cudaError_t failed = cudaEventCreateWithFlags(&half.event, cudaEventDisableTiming))
          return failed;
      }
      if (half.used == kHalf) {
        current_half ^= 1;
        Half& next = halves[current_half];
        if (next.memory != nullptr) {
          if (cudaError_t failed = cudaEventSynchronize(next.event)) return failed;
        }
        next.used = 0;
        continue;
      }
      const size_t part = bytes < kHalf - half.used ? bytes : kHalf - half.used;
      std::memcpy(half.memory + half.used, source, part);
      if (cudaError_t failed = cudaMemcpyAsync(target, half.memory + half.used, part,
                                               cudaMemcpyHostToDevice, stream))
        return failed;
      if (cudaError_t failed = cudaEventRecord(half.event, stream)) return failed;
      const size_t rounded = (part + 63) / 64 * 64;
      half.used = half.used + rounded < kHalf ? half.used + rounded : kHalf;
      source += part;
      target += part;
      bytes -= part;
    }
    return cudaSuccess;
  }

  // Whether a read goes through the ring; the caller copies longer ones directly.
  bool fits_ring(size_t bytes) const { return bytes <= kRing / 4; }

  cudaError_t read(cudaStream_t stream, void* to, const void* from, size_t bytes,
                   voltaic_read_done done, void* context) {
    if (ring == nullptr) {
      void* memory = nullptr;
      if (cudaError_t failed = cudaHostAlloc(&memory, kRing, cudaHostAllocDefault)) return failed;
      ring = static_cast<char*>(memory);
      reader = std::thread(&Staging::serve, this);
    }
    const size_t rounded = bytes == 0 ? 64 : (bytes + 63) / 64 * 64;
    Read read = {nullptr, nullptr, to, bytes, rounded, done, context};
    size_t ring_before = 0;
    {
      std::unique_lock<std::mutex> lock(mutex);
      ring_before = ring_at;
      if (ring_at + rounded > kRing) {  // the piece up to the end stays unused
        read.ring_bytes += kRing - ring_at;
        ring_at = 0;
      }
      changed.wait(lock, [&] { return ring_used + read.ring_bytes <= kRing; });
      ring_used += read.ring_bytes;
      read.pinned = ring + ring_at;
      ring_at += rounded;
      if (!free_events.empty()) {
        read.event = free_events.back();
        free_events.pop_back();
      }
    }
    cudaError_t failed = cudaSuccess;
    if (read.event == nullptr)
      failed =
          cudaEventCreateWithFlags(&read.event, cudaEventDisableTiming | cudaEventBlockingSync);
    if (failed == cudaSuccess && bytes > 0)
      failed = cudaMemcpyAsync(const_cast<char*>(read.pinned), from, bytes, cudaMemcpyDeviceToHost,
                               stream);
    if (failed == cudaSuccess) failed = cudaEventRecord(read.event, stream);
    std::lock_guard<std::mutex> lock(mutex);
    if (failed != cudaSuccess) {
      // Its room is the ring's latest. Without it a card that fails would soon make reads wait.
      ring_at = ring_before;
      ring_used -= read.ring_bytes;
      if (read.event != nullptr) free_events.push_back(read.event);
      return failed;
    }
    reads.push_back(read);
    unanswered++;
    changed.notify_all();
    return cudaSuccess;
  }

  // An error that a kernel before a read has reported is that read's: whoever waits looks after it
  // has been answered.
  void wait_for_reads() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return unanswered == 0; });
  }

 private:
  struct Half {
    char* memory = nullptr;
    cudaEvent_t event = nullptr;
    size_t used = 0;
  };

  void serve() {
    cudaSetDevice(device);
    for (;;) {
      Read read;
      {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return stop || !reads.empty(); });
        if (reads.empty()) return;
        read = reads.front();
        reads.pop_front();
      }
      char message[VOLTAIC_MESSAGE_LENGTH] = "";
      const cudaError_t failed = cudaEventSynchronize(read.event);
      voltaic_status status = failed == cudaSuccess
                                  ? take_data_error(error, message)
                                  : runtime_failure(message, "the work before a read", failed);
      if (status == VOLTAIC_OK && read.bytes > 0) std::memcpy(read.to, read.pinned, read.bytes);
      {
        std::lock_guard<std::mutex> lock(mutex);
        ring_used -= read.ring_bytes;
        free_events.push_back(read.event);
      }
      changed.notify_all();
      read.done(read.context, status, message);
      {
        std::lock_guard<std::mutex> lock(mutex);
        unanswered--;
      }
      changed.notify_all();
    }
  }

  const int32_t device;
  DataError* const error;
  Half halves[2];
  int current_half = 0;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Read> reads;
  std::vector<cudaEvent_t> free_events;
  char* ring = nullptr;
  size_t ring_at = 0, ring_used = 0, unanswered = 0;
  bool stop = false;
  std::thread reader;
};

}  // namespace voltaic::cuda
