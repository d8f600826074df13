// The engine by itself: Philox, the caching allocator, the stream.
#include <atomic>
#include <cstring>
#include <stdexcept>

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

TEST(unknown_instruction_set_is_no_backend) { EXPECT(cpu_backend("avx9000") == nullptr); }
