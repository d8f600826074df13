// The worker pool. Workers spin briefly for the next piece of work, then sleep: waking a sleeping
// thread costs tens of microseconds, and kernels follow each other within a few.
#include "parallel.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "spin.h"

namespace voltaic {
namespace {

constexpr int kMostThreads = 256;

// One parallel region at a time. A region opens when the generation moves on and closes when its
// number is stored as closed; a worker announces itself before it looks, and run() closes before it
// counts who is inside, so no worker can touch a region that run() has left.
class Pool {
 public:
  void run(int64_t tasks, TaskFunction function, void* context) {
    const int threads = thread_count();
    if (threads <= 1 || tasks <= 1 || inside_region || !region_mutex_.try_lock()) {
      for (int64_t task = 0; task < tasks; task++) function(context, task);
      return;
    }
    std::lock_guard<std::mutex> region(region_mutex_, std::adopt_lock);
    if (!start_workers(threads - 1)) {
      for (int64_t task = 0; task < tasks; task++) function(context, task);
      return;
    }
    inside_region = true;
    function_ = function;
    context_ = context;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    allowed_.store(threads - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(sleep_mutex_);
      wake_.notify_all();
    }
    work();
    // No worker may enter from here on; wait for those inside.
    closed_generation_.store(generation_.load(std::memory_order_relaxed),
                             std::memory_order_seq_cst);
    for (Spin spin; inside_.load(std::memory_order_seq_cst) > 0;) spin.wait();
    inside_region = false;
  }

 private:
  void work() {
    for (;;) {
      const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks_) return;
      function_(context_, task);
    }
  }

  void worker(int number) {
    inside_region = true;
    uint64_t seen = 0;
    for (;;) {
      for (Spin spin; generation_.load(std::memory_order_acquire) == seen;) {
        if (!spin.long_enough()) {
          spin.wait();
          continue;
        }
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen; });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      }
      seen = generation_.load(std::memory_order_acquire);
      // Announce, then look whether the region is still open: run() does the two in the other
      // order.
      inside_.fetch_add(1, std::memory_order_seq_cst);
      if (closed_generation_.load(std::memory_order_seq_cst) < seen &&
          number < allowed_.load(std::memory_order_relaxed)) {
        work();
      }
      inside_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  // Threads are started when first needed and never joined: the process may end at any time.
  bool start_workers(int wanted) {
    while (started_ < wanted) {
      try {
        std::thread(&Pool::worker, this, started_).detach();
      } catch (...) {
        return started_ > 0;
      }
      started_++;
    }
    return true;
  }

  static thread_local bool inside_region;

  std::mutex region_mutex_;
  int started_ = 0;
  TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int> allowed_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> generation_{0};
  std::atomic<uint64_t> closed_generation_{0};
  alignas(64) std::atomic<int> inside_{0};
  std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
};

thread_local bool Pool::inside_region = false;

// Never destroyed: workers may outlive static destructors.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

// The CPU limit of a container (control groups, version 2 then 1), rounded up; 0 when there is
// none.
int container_limit() {
  double quota = 0, period = 0;
  if (FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(file, "%lf %lf", &quota, &period) != 2) quota = 0;
    std::fclose(file);
  } else if (FILE* quota_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {
    if (std::fscanf(quota_file, "%lf", &quota) != 1) quota = 0;
    std::fclose(quota_file);
    if (FILE* period_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
      if (std::fscanf(period_file, "%lf", &period) != 1) period = 0;
      std::fclose(period_file);
    }
  }
  return quota > 0 && period > 0 ? static_cast<int>((quota + period - 1) / period) : 0;
}

int clamp_threads(int threads) {
  return threads < 1 ? 1 : threads > kMostThreads ? kMostThreads : threads;
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> setting{available_processors()};
  return setting;
}

struct Scratch {
  struct Slot {
    void* memory = nullptr;
    size_t bytes = 0;
  } slots[4];
  ~Scratch() {
    for (Slot& slot : slots) std::free(slot.memory);
  }
};

}  // namespace

void parallel_tasks(int64_t tasks, TaskFunction function, void* context) {
  pool().run(tasks, function, context);
}

int available_processors() {
  int count = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
#endif
  const int limit = container_limit();
  return clamp_threads(limit > 0 && limit < count ? limit : count);
}

void set_thread_count(int threads) { thread_setting().store(clamp_threads(threads)); }
int thread_count() { return thread_setting().load(std::memory_order_relaxed); }

void* thread_scratch(int slot, size_t bytes) {
  static thread_local Scratch scratch;
  Scratch::Slot& chosen = scratch.slots[slot & 3];
  if (chosen.bytes < bytes) {
    std::free(chosen.memory);
    const size_t rounded = (bytes + (bytes >> 2) + 4095) & ~size_t{4095};
    chosen.memory = std::aligned_alloc(64, rounded);
    chosen.bytes = chosen.memory ? rounded : 0;
  }
  return chosen.memory;
}

}  // namespace voltaic
