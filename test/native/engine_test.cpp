// The engine by itself: Philox, the caching allocator, the stream.
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "../../native/cpu/backend.h"
#include "../../native/engine/allocator.h"
#include "../../native/engine/philox.h"
#include "../../native/engine/stream.h"
#include "harness.h"

using namespace voltaic;
using namespace voltaic::test;

namespace {
const voltaic_backend* backend() { return cpu_backend("portable"); }
voltaic_status allocate(CachingAllocator& allocator, size_t bytes, Block& block,
                        std::string& message) {
  return allocator.allocate(bytes, block, message, [] {});
}
}  // namespace

// Known answers of the reference implementation (Random123, kat_vectors).
TEST(philox_known_answers) {
  const voltaic_random4 zeros = voltaic_philox(0, 0, 0, 0, 0, 0);
  EXPECT(zeros.word[0] == 0x6627e8d5 && zeros.word[1] == 0xe169c58d &&
         zeros.word[2] == 0xbc57ac4c && zeros.word[3] == 0x9b00dbd8);
  const uint32_t f = 0xffffffff;
  const voltaic_random4 ones = voltaic_philox(f, f, f, f, f, f);
  EXPECT(ones.word[0] == 0x408f276d && ones.word[1] == 0x41c83b0e && ones.word[2] == 0xa20bc7c6 &&
         ones.word[3] == 0x6d5451fd);
  const voltaic_random4 pi =
      voltaic_philox(0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344);
  EXPECT(pi.word[0] == 0xd16cfe09 && pi.word[1] == 0x94fdcceb && pi.word[2] == 0x5001e420 &&
         pi.word[3] == 0x24126ea1);
}

TEST(philox_uniform_stays_inside) {
  EXPECT(voltaic_uniform(0) > 0.0f);
  EXPECT(voltaic_uniform(0xffffffffu) < 1.0f);
  EXPECT(voltaic_dropout_threshold(0.1) == 6554);
}

TEST(allocator_reuses_blocks_and_counts) {
  CachingAllocator allocator(backend(), 0, 0);
  std::string message;
  Block a, b;
  EXPECT(allocate(allocator, 100000, a, message) == VOLTAIC_OK);
  const void* const first = a.data;
  const uint64_t taken = allocator.statistics().system_allocations;
  allocator.release(a);
  EXPECT(allocate(allocator, 99000, b, message) == VOLTAIC_OK);
  EXPECT(b.data == first);
  EXPECT(allocator.statistics().system_allocations == taken);
  EXPECT(allocator.statistics().allocated_bytes == b.bytes);
  allocator.release(b);
  EXPECT(allocator.statistics().allocated_bytes == 0);
  allocator.release_cached();
  EXPECT(allocator.statistics().reserved_bytes == 0);
  Block nothing;
  EXPECT(allocate(allocator, 0, nothing, message) == VOLTAIC_OK && nothing.data == nullptr);
}

TEST(allocator_blocks_are_aligned_and_disjoint) {
  CachingAllocator allocator(backend(), 0, 0);
  for (Random random : seeds(3)) {
    std::vector<Block> blocks;
    std::string message;
    for (int i = 0; i < 300; i++) {
      if (!blocks.empty() && random.next() % 3 == 0) {
        const size_t victim = random.next() % blocks.size();
        allocator.release(blocks[victim]);
        blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(victim));
        continue;
      }
      Block block;
      const size_t bytes = static_cast<size_t>(random.integer(1, 200000));
      EXPECT(allocate(allocator, bytes, block, message) == VOLTAIC_OK && block.bytes >= bytes);
      EXPECT(block.bytes <= 256 || block.bytes <= bytes + bytes / 8 + 64);
      EXPECT(reinterpret_cast<uintptr_t>(block.data) % 64 == 0);
      std::memset(block.data, static_cast<int>(i & 255), block.bytes);
      for (const Block& other : blocks) {
        const char* const x = static_cast<const char*>(block.data);
        const char* const y = static_cast<const char*>(other.data);
        if (!(x + block.bytes <= y || y + other.bytes <= x)) EXPECT_TEXT(false, "blocks overlap");
      }
      blocks.push_back(block);
    }
    for (const Block& block : blocks) allocator.release(block);
    EXPECT(allocator.statistics().allocated_bytes == 0);
  }
}

// What one part of a step frees serves the next, whatever its sizes, and when all is free, pieces
// are whole again.
TEST(allocator_cuts_free_memory_and_joins_it) {
  for (Random random : seeds(3)) {
    CachingAllocator allocator(backend(), 0, 0);
    const auto take = [&](size_t bytes) {
      Block block;
      std::string message;
      EXPECT_TEXT(allocate(allocator, bytes, block, message) == VOLTAIC_OK, message);
      return block;
    };
    uint64_t reserved = 0;
    for (int step = 0; step < 4; step++) {
      Random same = random;
      std::vector<Block> blocks;
      // Many small ones, then as many bytes in large ones, then anything.
      for (int i = 0; i < 64; i++) blocks.push_back(take(size_t{1} << 20));
      while (!blocks.empty()) {
        const size_t victim = same.next() % blocks.size();
        allocator.release(blocks[victim]);
        blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(victim));
      }
      for (int i = 0; i < 4; i++) blocks.push_back(take(size_t{16} << 20));
      for (const Block& block : blocks) allocator.release(block);
      if (step == 0) EXPECT(allocator.statistics().reserved_bytes == size_t{64} << 20);
      blocks.clear();
      for (int i = 0; i < 200; i++) {
        if (blocks.empty() || same.next() % 3 != 0) {
          blocks.push_back(take(static_cast<size_t>(same.integer(1, 900000))));
        } else {
          const size_t victim = same.next() % blocks.size();
          allocator.release(blocks[victim]);
          blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(victim));
        }
      }
      for (const Block& block : blocks) allocator.release(block);
      if (step > 0) EXPECT(allocator.statistics().reserved_bytes == reserved);
      reserved = allocator.statistics().reserved_bytes;
    }
  }
}

TEST(allocator_limit_is_an_error_with_numbers) {
  CachingAllocator allocator(backend(), 0, 4 << 20);
  std::string message;
  Block a, b;
  EXPECT(allocate(allocator, 3 << 20, a, message) == VOLTAIC_OK);
  EXPECT(allocate(allocator, 3 << 20, b, message) == VOLTAIC_ERROR_OUT_OF_MEMORY);
  EXPECT_TEXT(message.find("3 MB asked") != std::string::npos &&
                  message.find("limit 4 MB") != std::string::npos,
              message);
  // Cached memory goes back before an allocation fails.
  allocator.release(a);
  EXPECT(allocate(allocator, 2 << 20, b, message) == VOLTAIC_OK);
  allocator.release(b);
}

TEST(allocator_tells_a_broken_device_from_a_full_one) {
  voltaic_backend broken = *backend();
  broken.name = "card";
  broken.memory_allocate = [](int32_t, size_t, void**, char* message) {
    std::strcpy(message, "asking for 1 MB failed: misaligned address");
    return VOLTAIC_ERROR_RUNTIME;
  };
  CachingAllocator allocator(&broken, 0, 0);
  Block block;
  std::string message;
  for (size_t bytes : {100, 10 << 20}) {
    EXPECT(allocator.allocate(bytes, block, message, [] {}) == VOLTAIC_ERROR_RUNTIME);
    EXPECT_TEXT(message == "card: asking for 1 MB failed: misaligned address", message);
  }
  EXPECT(allocator.statistics().reserved_bytes == 0);
}

TEST(allocator_pools_keep_their_blocks) {
  CachingAllocator allocator(backend(), 0, 0);
  std::string message;
  std::vector<Block> taken;
  const auto take = [&](size_t bytes) {
    Block block;
    EXPECT(allocate(allocator, bytes, block, message) == VOLTAIC_OK);
    taken.push_back(block);
    return block;
  };
  const auto release = [&](const Block& block) {
    std::erase_if(taken, [&](const Block& other) { return other.data == block.data; });
    allocator.release(block);
  };
  const Block before = take(100000), used = take(100000);
  release(before);
  const uint32_t pool = allocator.open_pool();
  allocator.use_pool(pool);
  // What is free and nobody's may become the pool's; what is freed meanwhile, too.
  const Block borrowed = take(100000), small = take(300);
  EXPECT(borrowed.data == before.data && borrowed.pool == pool);
  const Block fresh = take(100000);
  release(borrowed);
  release(used);
  const uint64_t taken_so_far = allocator.statistics().reserved_bytes;
  const Block joined = take(200000);  // the two were neighbours
  EXPECT(joined.data == borrowed.data && joined.pool == pool);
  release(joined);
  EXPECT(take(100000).data == borrowed.data);
  EXPECT(take(100000).data == used.data);
  EXPECT(allocator.statistics().reserved_bytes == taken_so_far);
  const Block again = {borrowed.data, borrowed.bytes, pool};
  release(again);
  allocator.use_pool(0);
  // Outside nobody gets them, not even when they are freed there.
  release(small);
  release(fresh);
  const Block outside = take(100000);
  EXPECT(outside.data != fresh.data && outside.data != borrowed.data && outside.pool == 0);
  EXPECT(take(300).data != small.data);
  release(outside);
  // Another capture's pool is another's; the first one used again has its own.
  const uint32_t other = allocator.open_pool();
  EXPECT(other != pool);
  allocator.use_pool(other);
  const Block elsewhere = take(100000);
  EXPECT(elsewhere.data == outside.data && elsewhere.pool == other);
  allocator.use_pool(pool);
  EXPECT(take(100000).data == borrowed.data);
  allocator.use_pool(0);
  // Closed: free blocks are nobody's at once, others when they are freed.
  allocator.close_pool(other);
  const uint64_t reserved = allocator.statistics().reserved_bytes;
  release(elsewhere);
  EXPECT(take(100000).data == elsewhere.data);
  allocator.close_pool(pool);
  EXPECT(take(100000).data == fresh.data);
  EXPECT(allocator.statistics().reserved_bytes == reserved);
  allocator.close_pool(77);  // not there: nothing happens
  for (const Block& block : taken) allocator.release(block);
}

TEST(allocator_does_not_wait_for_a_stream_under_capture) {
  CachingAllocator allocator(backend(), 0, 4 << 20);
  std::string message;
  Block a, b;
  EXPECT(allocate(allocator, 3 << 20, a, message) == VOLTAIC_OK);
  allocator.release(a);
  const uint32_t pool = allocator.open_pool();
  allocator.use_pool(pool);
  bool waited = false;
  EXPECT(allocator.allocate(7 << 19, b, message, [&] { waited = true; }) ==
         VOLTAIC_ERROR_OUT_OF_MEMORY);
  EXPECT(!waited);
  allocator.close_pool(pool);
  EXPECT(allocate(allocator, 7 << 19, b, message) == VOLTAIC_OK);
  EXPECT(b.pool == 0);
  allocator.release(b);
}

namespace {
std::atomic<int> runs{0};
voltaic_status count_run(const voltaic_call* call) {
  if (call->attributes[0] != runs.load()) return VOLTAIC_ERROR_RUNTIME;  // order broken
  runs++;
  return VOLTAIC_OK;
}
voltaic_status refuse(const voltaic_call* call) {
  std::strcpy(call->message, "index 9 is out of range");
  return VOLTAIC_ERROR_ARGUMENT;
}
}  // namespace

TEST(stream_runs_in_order_far_ahead_of_its_ring) {
  Stream stream(backend(), 0);
  runs = 0;
  for (int i = 0; i < 5000; i++) {
    const double attribute = i;
    stream.queue_kernel(count_run, "count", nullptr, 0, &attribute, 1);
  }
  EXPECT(stream.wait().status == VOLTAIC_OK);
  EXPECT(runs == 5000);
}

TEST(stream_uploads_are_copied_at_once) {
  Stream stream(backend(), 0);
  for (const size_t bytes : {size_t{16}, size_t{100000}}) {
    std::vector<char> source(bytes, 'a'), device(bytes), back(bytes);
    stream.queue_upload(device.data(), source.data(), bytes);
    std::fill(source.begin(), source.end(), 'b');
    stream.queue_download(back.data(), device.data(), bytes, nullptr);
    EXPECT(stream.wait().status == VOLTAIC_OK);
    EXPECT(back == std::vector<char>(bytes, 'a'));
  }
}

TEST(stream_error_skips_what_follows_and_is_reported_once) {
  Stream stream(backend(), 0);
  runs = 0;
  const double attribute = 0;
  stream.queue_kernel(refuse, "gather_rows", nullptr, 0, nullptr, 0);
  stream.queue_kernel(count_run, "count", nullptr, 0, &attribute, 1);
  const StreamError error = stream.wait();
  EXPECT(error.status == VOLTAIC_ERROR_ARGUMENT);
  EXPECT(error.message == "gather_rows: index 9 is out of range");
  EXPECT(runs == 0);
  stream.queue_kernel(count_run, "count", nullptr, 0, &attribute, 1);
  EXPECT(stream.wait().status == VOLTAIC_OK);
  EXPECT(runs == 1);
}

TEST(stream_ends_with_work_queued) {
  std::atomic<int> completions{0};
  for (int i = 0; i < 20; i++) {
    Stream stream(backend(), 0);
    for (int k = 0; k < 50; k++) stream.queue_marker([&](StreamError) { completions++; });
  }
  EXPECT(completions == 20 * 50);
}

// A backend that answers reads on a thread of its own, when the test lets it, and captures graphs
// as counts of kernels.
namespace {
struct SlowRead {
  void* to;
  const void* from;
  size_t bytes;
  voltaic_read_done done;
  void* context;
};
struct Fake {
  std::mutex mutex;
  std::vector<SlowRead> reads;
  std::atomic<int> kernels{0}, graphs{0}, launches{0};
  std::atomic<bool> capturing{false}, refuses_read{false};
} fake;

void answer_reads(voltaic_status status, const char* message) {
  std::vector<SlowRead> waiting;
  {
    const std::lock_guard<std::mutex> lock(fake.mutex);
    waiting.swap(fake.reads);
  }
  for (const SlowRead& read : waiting) {
    if (status == VOLTAIC_OK) std::memcpy(read.to, read.from, read.bytes);
    read.done(read.context, status, message);
  }
}

voltaic_status fake_kernel(const voltaic_call*) {
  if (!fake.capturing) fake.kernels++;
  return VOLTAIC_OK;
}

const voltaic_backend* fake_backend() {
  static const voltaic_backend table = [] {
    voltaic_backend made = *backend();
    made.stream_create = [](int32_t, voltaic_stream** out, char*) {
      *out = nullptr;
      return VOLTAIC_OK;
    };
    made.stream_destroy = [](voltaic_stream*) { answer_reads(VOLTAIC_OK, ""); };
    made.synchronize = [](voltaic_stream*, char* message) {
      if (!fake.capturing) return VOLTAIC_OK;
      std::strcpy(message, "waiting while capturing");
      return VOLTAIC_ERROR_ARGUMENT;
    };
    made.read = [](voltaic_stream*, void* to, const void* from, size_t bytes,
                   voltaic_read_done done, void* context, char* message) {
      if (fake.refuses_read) {
        std::strcpy(message, "no ring");
        return VOLTAIC_ERROR_OUT_OF_MEMORY;
      }
      const std::lock_guard<std::mutex> lock(fake.mutex);
      fake.reads.push_back({to, from, bytes, done, context});
      return VOLTAIC_OK;
    };
    made.capture_begin = [](voltaic_stream*, char*) {
      fake.capturing = true;
      return VOLTAIC_OK;
    };
    made.capture_end = [](voltaic_stream*, voltaic_graph** out, char*) {
      fake.capturing = false;
      *out = reinterpret_cast<voltaic_graph*>(&fake);
      fake.graphs++;
      return VOLTAIC_OK;
    };
    made.graph_launch = [](voltaic_stream*, voltaic_graph*, char*) {
      fake.launches++;
      return VOLTAIC_OK;
    };
    made.graph_destroy = [](voltaic_graph*) { fake.graphs--; };
    return made;
  }();
  return &table;
}

// Waits for a completion.
struct Outcome {
  std::promise<StreamError> promise;
  std::future<StreamError> future = promise.get_future();
  Completion completion() {
    return [this](StreamError error) { promise.set_value(std::move(error)); };
  }
  bool waits() {
    return future.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout;
  }
};
}  // namespace

TEST(stream_reads_do_not_hold_up_what_follows) {
  Stream stream(fake_backend(), 0);
  fake.kernels = 0;
  const int source = 7;
  int target = 0;
  Outcome read, failed;
  stream.queue_download(&target, &source, sizeof source, read.completion());
  stream.queue_kernel(fake_kernel, "k", nullptr, 0, nullptr, 0);
  EXPECT(stream.wait().status == VOLTAIC_OK);
  EXPECT(fake.kernels == 1);
  EXPECT(read.waits());
  answer_reads(VOLTAIC_OK, "");
  EXPECT(read.future.get().status == VOLTAIC_OK && target == 7);
  // What a read reports is that read's alone.
  stream.queue_download(&target, &source, sizeof source, failed.completion());
  EXPECT(stream.wait().status == VOLTAIC_OK);
  answer_reads(VOLTAIC_ERROR_ARGUMENT, "gather_rows: index[0] is 9");
  const StreamError error = failed.future.get();
  EXPECT(error.status == VOLTAIC_ERROR_ARGUMENT && error.message == "gather_rows: index[0] is 9");
  EXPECT(stream.wait().status == VOLTAIC_OK);
}

TEST(stream_errors_answer_a_read_at_once) {
  Stream stream(fake_backend(), 0);
  int target = 0;
  Outcome noted, next, refused;
  stream.queue_kernel(refuse, "gather_rows", nullptr, 0, nullptr, 0);
  stream.queue_download(&target, &target, sizeof target, noted.completion());
  EXPECT(noted.future.get().message == "gather_rows: index 9 is out of range");
  stream.queue_download(&target, &target, sizeof target, next.completion());
  EXPECT(stream.wait().status == VOLTAIC_OK);
  answer_reads(VOLTAIC_OK, "");
  EXPECT(next.future.get().status == VOLTAIC_OK);
  fake.refuses_read = true;
  stream.queue_download(&target, &target, sizeof target, refused.completion());
  EXPECT(refused.future.get().message == "no ring");
  fake.refuses_read = false;
  EXPECT(stream.wait().status == VOLTAIC_OK);
}

TEST(stream_ends_with_reads_under_way) {
  std::atomic<int> completions{0};
  int target = 0;
  for (int i = 0; i < 20; i++) {
    Stream stream(fake_backend(), 0);
    for (int k = 0; k < 50; k++)
      stream.queue_download(&target, &target, sizeof target, [&](StreamError) { completions++; });
  }
  EXPECT(completions == 20 * 50);
}

TEST(stream_captures_launches_and_destroys) {
  {
    Stream stream(fake_backend(), 0);
    fake.kernels = fake.launches = fake.graphs = 0;
    Outcome made, thrown, failing, earlier;
    stream.queue_capture_begin();
    stream.queue_kernel(fake_kernel, "k", nullptr, 0, nullptr, 0);
    stream.queue_capture_end(1, made.completion());
    EXPECT(made.future.get().status == VOLTAIC_OK);
    EXPECT(fake.kernels == 0 && fake.graphs == 1);
    stream.queue_launch(1);
    stream.queue_launch(1);
    EXPECT(stream.wait().status == VOLTAIC_OK && fake.launches == 2);

    stream.queue_capture_begin();
    stream.queue_capture_end(0, thrown.completion());
    EXPECT(thrown.future.get().status == VOLTAIC_OK && fake.graphs == 1);

    // A kernel that fails is the capture's failure, and the stream goes on.
    stream.queue_capture_begin();
    stream.queue_kernel(refuse, "gather_rows", nullptr, 0, nullptr, 0);
    stream.queue_capture_end(2, failing.completion());
    EXPECT(failing.future.get().message == "gather_rows: index 9 is out of range");
    EXPECT(stream.wait().status == VOLTAIC_OK && fake.graphs == 1);
    stream.queue_launch(2);
    EXPECT(stream.wait().status == VOLTAIC_ERROR_DISPOSED);

    // What failed before fails the capture, runs nothing, and stays to be told.
    stream.queue_kernel(refuse, "negate", nullptr, 0, nullptr, 0);
    stream.queue_capture_begin();
    stream.queue_kernel(fake_kernel, "k", nullptr, 0, nullptr, 0);
    stream.queue_capture_end(3, earlier.completion());
    EXPECT(earlier.future.get().status == VOLTAIC_ERROR_ARGUMENT);
    EXPECT(stream.wait().message == "negate: index 9 is out of range");
    EXPECT(fake.kernels == 0 && fake.graphs == 1);

    stream.queue_graph_destroy(1);
    stream.queue_graph_destroy(1);
    EXPECT(stream.wait().status == VOLTAIC_OK && fake.graphs == 0);

    // One that is left, and a capture that never ends, go with the stream.
    Outcome left;
    stream.queue_capture_begin();
    stream.queue_capture_end(4, left.completion());
    EXPECT(left.future.get().status == VOLTAIC_OK && fake.graphs == 1);
    Outcome open;
    stream.queue_capture_begin();
    stream.queue_task([](voltaic_stream*) { return StreamError{}; }, open.completion());
    open.future.get();
  }
  EXPECT(fake.graphs == 0 && !fake.capturing);
}

TEST(stream_tasks_run_in_order_and_keep_their_errors) {
  Stream stream(backend(), 0);
  runs = 0;
  const double attribute = 0;
  Outcome task;
  stream.queue_kernel(count_run, "count", nullptr, 0, &attribute, 1);
  int seen = -1;
  stream.queue_task(
      [&](voltaic_stream*) {
        seen = runs;
        return StreamError{VOLTAIC_ERROR_UNSUPPORTED, "another library"};
      },
      task.completion());
  EXPECT(stream.wait().status == VOLTAIC_OK);
  EXPECT(task.future.get().message == "another library" && seen == 1);
}

TEST(unknown_instruction_set_is_no_backend) { EXPECT(cpu_backend("avx9000") == nullptr); }
