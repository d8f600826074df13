// The worker pool: every task once, whoever calls, whatever the number of threads, and no hang.
#include "../../native/engine/parallel.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "harness.h"

using namespace voltaic;

namespace {

constexpr int kThreadCounts[] = {1, 2, 3, 8, 64};

// Runs body(task) for each task, through a plain function pointer as kernels do.
template <class Body>
void parallel(int64_t tasks, Body& body) {
  parallel_tasks(
      tasks, [](void* context, int64_t task) { (*static_cast<Body*>(context))(task); }, &body);
}

// Counts how often each task ran.
class Counter {
 public:
  explicit Counter(int64_t tasks)
      : tasks_(tasks), counts_(new std::atomic<int>[static_cast<size_t>(tasks)]()) {}
  void operator()(int64_t task) {
    if (task < 0 || task >= tasks_)
      outside_ = true;
    else
      counts_[static_cast<size_t>(task)].fetch_add(1, std::memory_order_relaxed);
  }
  bool each_ran(int times) const {
    if (outside_) return false;
    for (int64_t i = 0; i < tasks_; i++)
      if (counts_[static_cast<size_t>(i)].load() != times) return false;
    return true;
  }

 private:
  int64_t tasks_;
  std::unique_ptr<std::atomic<int>[]> counts_;
  std::atomic<bool> outside_{false};
};

// Puts the number of threads back when a test ends.
struct ThreadCount {
  int before = thread_count();
  ~ThreadCount() { set_thread_count(before); }
};

}  // namespace

TEST(every_task_runs_exactly_once) {
  ThreadCount restore;
  for (const int threads : kThreadCounts) {
    set_thread_count(threads);
    for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      Counter counter(tasks);
      parallel(tasks, counter);
      EXPECT_TEXT(counter.each_ran(1),
                  std::to_string(tasks) + " tasks on " + std::to_string(threads) + " threads");
    }
  }
}

TEST(the_work_is_done_and_visible_when_the_call_returns) {
  ThreadCount restore;
  set_thread_count(4);
  std::vector<int64_t> values(500);
  bool right = true;
  for (int64_t round = 0; round < 500; round++) {
    auto body = [&](int64_t task) {
      values[static_cast<size_t>(task)] = round * task;
    };  // plain, unsynchronised writes
    parallel(500, body);
    for (int64_t i = 0; i < 500; i++) right = right && values[static_cast<size_t>(i)] == round * i;
  }
  EXPECT(right);
}

TEST(the_thread_count_is_kept_within_bounds_and_can_change_between_calls) {
  ThreadCount restore;
  EXPECT(available_processors() >= 1);
  set_thread_count(0);
  EXPECT(thread_count() == 1);
  set_thread_count(-5);
  EXPECT(thread_count() == 1);
  set_thread_count(1 << 30);
  EXPECT(thread_count() >= 1 && thread_count() <= 4096);
  bool right = true;
  for (int round = 0; round < 400; round++) {
    set_thread_count(1 + round * 7 % 9);
    Counter counter(40);
    parallel(40, counter);
    right = right && counter.each_ran(1);
  }
  EXPECT(right);
}

TEST(one_thread_runs_tasks_in_order_on_its_caller) {
  ThreadCount restore;
  set_thread_count(1);
  std::vector<int64_t> order;
  bool here = true;
  auto body = [&, caller = std::this_thread::get_id()](int64_t task) {
    order.push_back(task);
    here = here && std::this_thread::get_id() == caller;
  };
  parallel(50, body);
  EXPECT(here && order.size() == 50);
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); i++)
    EXPECT(order[static_cast<size_t>(i)] == i);
}

TEST(nested_calls_run_all_their_tasks) {
  ThreadCount restore;
  for (const int threads : kThreadCounts) {
    set_thread_count(threads);
    Counter counter(20 * 30);
    auto outer = [&](int64_t i) {
      auto inner = [&](int64_t j) { counter(i * 30 + j); };
      parallel(30, inner);
    };
    parallel(20, outer);
    EXPECT_TEXT(counter.each_ran(1), "nested on " + std::to_string(threads) + " threads");
  }
}

TEST(many_callers_at_once_each_get_all_their_tasks) {
  ThreadCount restore;
  set_thread_count(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; caller++)
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 300; round++) {
        const int64_t tasks = 1 + (caller * 31 + round) % 60;
        Counter counter(tasks);
        parallel(tasks, counter);
        if (!counter.each_ran(1)) wrong++;
      }
    });
  // The number of threads changes under their feet.
  for (int round = 0; round < 300; round++) {
    set_thread_count(1 + round % 5);
    std::this_thread::yield();
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT(wrong == 0);
}

TEST(a_hundred_thousand_short_regions_end) {
  ThreadCount restore;
  set_thread_count(2);
  std::atomic<int64_t> ran{0};
  auto body = [&](int64_t) { ran.fetch_add(1, std::memory_order_relaxed); };
  for (int round = 0; round < 100000; round++) parallel(2, body);
  EXPECT(ran == 200000);
}

TEST(workers_that_sleep_are_woken) {
  ThreadCount restore;
  set_thread_count(4);
  bool right = true;
  for (int round = 0; round < 12; round++) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(round % 3 ? 1 : 8));  // longer than the workers spin
    Counter counter(100);
    parallel(100, counter);
    right = right && counter.each_ran(1);
  }
  EXPECT(right);
}

TEST(scratch_is_aligned_kept_and_apart_for_each_slot_and_thread) {
  ThreadCount restore;
  set_thread_count(4);
  std::atomic<int> wrong{0};
  auto body = [&](int64_t task) {
    uint8_t* slots[4];
    const size_t bytes = static_cast<size_t>(1 + task * 97 % 5000);
    for (int slot = 0; slot < 4; slot++) {
      slots[slot] = static_cast<uint8_t*>(thread_scratch(slot, bytes));
      if (slots[slot] == nullptr || reinterpret_cast<uintptr_t>(slots[slot]) % 64 != 0) {
        wrong++;
        return;
      }
      std::memset(slots[slot], static_cast<int>(task * 4 + slot) & 0xFF, bytes);
    }
    for (int slot = 0; slot < 4; slot++)
      for (size_t i = 0; i < bytes; i++)
        if (slots[slot][i] != static_cast<uint8_t>(task * 4 + slot)) wrong++;
    if (thread_scratch(1, bytes / 2) != slots[1] || thread_scratch(1, bytes) != slots[1]) wrong++;
  };
  parallel(200, body);
  EXPECT(wrong == 0);
  uint8_t* large = static_cast<uint8_t*>(thread_scratch(2, 3 << 20));
  EXPECT(large != nullptr && reinterpret_cast<uintptr_t>(large) % 64 == 0);
  std::memset(large, 1, 3 << 20);
}

// Sanitizers end the process at such a request instead of refusing it.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(scratch_that_cannot_be_had_is_a_null_pointer_and_later_calls_still_work) {
  EXPECT(thread_scratch(3, size_t{1} << 60) == nullptr);
  void* memory = thread_scratch(3, 1000);
  EXPECT(memory != nullptr);
  std::memset(memory, 0, 1000);
}
#endif
