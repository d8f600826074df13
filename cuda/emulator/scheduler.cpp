#include "scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

// The section of __shared__ variables; null where there are none.
extern "C" {
extern char __start_voltaic_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_voltaic_shared[] __attribute__((weak, visibility("hidden")));
}

// Saves the callee-saved registers on the running stack and continues on another.
extern "C" void voltaic_emulator_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(.text
.globl voltaic_emulator_switch
.hidden voltaic_emulator_switch
.type voltaic_emulator_switch, @function
voltaic_emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size voltaic_emulator_switch, .-voltaic_emulator_switch
.section .note.GNU-stack, "", @progbits
.text
)");
#else
#error "the emulator's stack switch is written for x86-64"
#endif

namespace voltaic::emulator {

thread_local Position position __attribute__((tls_model("initial-exec"))) = {};

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = size_t{256} << 10;
#else
constexpr size_t kStack = size_t{64} << 10;
#endif
constexpr size_t kGuard = 4096;
constexpr size_t kMostGroups = 32;

enum class State : uint8_t { ready, in_exchange, at_barrier, done };

struct PendingCopy {
  void* to;
  const void* from;
  unsigned bytes, zeros;
};

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  State state = State::done;
  uint3 thread = {};
  void* operands = nullptr;
  // Copies not yet done, oldest group first; the open group is last.
  std::vector<std::vector<PendingCopy>> groups;
};

struct Warp {
  unsigned live = 0, arrived = 0;
  const char* kind = nullptr;
};

struct Scheduler {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned> ready;  // this round's lanes, in the order of running
  void* own_stack = nullptr;
  unsigned current = 0, threads = 0, live = 0, at_barrier = 0;
  const std::function<void()>* body = nullptr;
  std::string failure;
  uint64_t random = 0;
  enum class Order { forward, reverse, shuffled } order = Order::forward;

  Scheduler() {
    const char* const setting = std::getenv("VOLTAIC_EMULATOR_ORDER");
    if (setting == nullptr || setting[0] == 0 || std::strcmp(setting, "forward") == 0) return;
    order = std::strcmp(setting, "reverse") == 0 ? Order::reverse : Order::shuffled;
    random = std::strtoull(setting, nullptr, 10) * 2 + 1;
  }
  ~Scheduler() {
    for (Fiber& fiber : fibers)
      if (fiber.stack != nullptr) munmap(fiber.stack, kStack + kGuard);
  }

  void prepare(unsigned count);
  void arrange(std::vector<unsigned>& lanes);
  void start(unsigned lane, dim3 block);
  void run_block(dim3 block);
  void run_round();
  void leave() { voltaic_emulator_switch(&fibers[current].stack_pointer, own_stack); }
  void open_barrier_when_full();
  void finish_exchange(unsigned warp, void (*work)(void** lanes), unsigned except);
  void (*pending_work[kMostThreads / kWarp])(void** lanes) = {};
};

Scheduler& scheduler() {
  static thread_local Scheduler instance;
  return instance;
}

// A fiber's first function: never returns.
void enter() {
  Scheduler& self = scheduler();
  (*self.body)();
  Fiber& fiber = self.fibers[self.current];
  fiber.state = State::done;
  const unsigned warp = self.current / kWarp;
  self.live--;
  self.warps[warp].live--;
  // Those who wait may have waited for this lane alone.
  if (self.warps[warp].arrived > 0 && self.warps[warp].arrived == self.warps[warp].live)
    self.finish_exchange(warp, self.pending_work[warp], kMostThreads);
  self.open_barrier_when_full();
  self.leave();
}

void Scheduler::prepare(unsigned count) {
  threads = count;
  if (fibers.size() < count) fibers.resize(count);
  for (unsigned i = 0; i < count; i++) {
    if (fibers[i].stack != nullptr) continue;
    void* const memory = mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      failure = "the emulator found no memory for a stack";
      return;
    }
    mprotect(memory, kGuard, PROT_NONE);
    fibers[i].stack = static_cast<char*>(memory);
  }
  warps.assign((count + kWarp - 1) / kWarp, {});
}

void Scheduler::arrange(std::vector<unsigned>& lanes) {
  if (order == Order::reverse) std::sort(lanes.begin(), lanes.end(), std::greater<>());
  if (order == Order::forward) std::sort(lanes.begin(), lanes.end());
  if (order != Order::shuffled) return;
  for (size_t i = lanes.size(); i > 1; i--) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(lanes[i - 1], lanes[(random >> 33) % i]);
  }
}

void Scheduler::start(unsigned lane, dim3 block) {
  Fiber& fiber = fibers[lane];
  fiber.state = State::ready;
  fiber.thread = {lane % block.x, lane / block.x % block.y, lane / (block.x * block.y)};
  fiber.groups.clear();
  auto** top = reinterpret_cast<void**>(fiber.stack + kStack + kGuard);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack + kGuard, kStack);
#endif
  *--top = nullptr;  // the frame that enter() would return to; also aligns its stack
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.stack_pointer = top;
}

void Scheduler::run_round() {
  std::vector<unsigned> lanes;
  lanes.swap(ready);
  arrange(lanes);
  for (const unsigned lane : lanes) {
    current = lane;
    position.thread = fibers[lane].thread;
    position.lane_in_block = lane;
    voltaic_emulator_switch(&own_stack, fibers[lane].stack_pointer);
    if (!failure.empty()) return;
  }
}

void Scheduler::run_block(dim3 block) {
  live = threads;
  at_barrier = 0;
  ready.resize(threads);
  std::iota(ready.begin(), ready.end(), 0u);
  for (unsigned i = 0; i < threads; i++) start(i, block);
  for (unsigned i = 0; i < warps.size(); i++) {
    warps[i] = {};
    warps[i].live = std::min(kWarp, threads - i * kWarp);
  }
  while (live > 0 && failure.empty()) {
    if (ready.empty()) {
      unsigned waiting = 0;
      for (unsigned i = 0; i < threads; i++) waiting += fibers[i].state == State::in_exchange;
      failure = "block " + std::to_string(position.block.x) + ", " +
                std::to_string(position.block.y) + ", " + std::to_string(position.block.z) + ": " +
                std::to_string(at_barrier) + " of " + std::to_string(live) +
                " threads wait at a barrier, " + std::to_string(waiting) +
                " in a warp exchange, and none can go on (a barrier in a divergent branch?)";
      return;
    }
    run_round();
  }
}

void Scheduler::open_barrier_when_full() {
  if (at_barrier == 0 || at_barrier < live) return;
  for (unsigned i = 0; i < threads; i++) {
    if (fibers[i].state != State::at_barrier) continue;
    fibers[i].state = State::ready;
    ready.push_back(i);
  }
  at_barrier = 0;
}

void Scheduler::finish_exchange(unsigned warp, void (*work)(void** lanes), unsigned except) {
  void* lanes[kWarp] = {};
  const unsigned first = warp * kWarp;
  for (unsigned i = first; i < std::min(first + kWarp, threads); i++) {
    if (fibers[i].state != State::in_exchange && i != except) continue;
    lanes[i - first] = fibers[i].operands;
    if (i == except) continue;
    fibers[i].state = State::ready;
    ready.push_back(i);
  }
  warps[warp].arrived = 0;
  work(lanes);
}

void copy_now(const PendingCopy& copy) {
  if (copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
}

}  // namespace

void wait_for_block() {
  Scheduler& self = scheduler();
  self.fibers[self.current].state = State::at_barrier;
  self.at_barrier++;
  self.open_barrier_when_full();
  self.leave();
}

void warp_exchange(const char* kind, void* operands, void (*work)(void** lanes)) {
  Scheduler& self = scheduler();
  const unsigned lane = self.current, index = lane / kWarp;
  Warp& warp = self.warps[index];
  Fiber& fiber = self.fibers[lane];
  if (warp.arrived > 0 && std::strcmp(warp.kind, kind) != 0) {
    give_up(("lanes of warp " + std::to_string(index) + " met in different exchanges, " +
             warp.kind + " and " + kind)
                .c_str());
  }
  warp.kind = kind;
  warp.arrived++;
  fiber.operands = operands;
  if (warp.arrived == warp.live) {
    self.finish_exchange(index, work, lane);
    return;
  }
  self.pending_work[index] = work;
  fiber.state = State::in_exchange;
  self.leave();
}

void give_up(const char* reason) {
  Scheduler& self = scheduler();
  self.failure = reason;
  self.leave();
}

void defer_copy(void* to, const void* from, unsigned bytes, unsigned zeros_after) {
  Scheduler& self = scheduler();
  auto& groups = self.fibers[self.current].groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from, bytes, zeros_after});
}

void commit_copies() {
  Scheduler& self = scheduler();
  auto& groups = self.fibers[self.current].groups;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
  if (groups.size() > kMostGroups) self.failure = "over 30 groups of asynchronous copies are open";
}

void wait_for_copies(int most_groups_left) {
  Scheduler& self = scheduler();
  auto& groups = self.fibers[self.current].groups;
  const size_t committed = groups.empty() ? 0 : groups.size() - 1;
  if (committed <= static_cast<size_t>(most_groups_left)) return;
  const size_t finish = committed - static_cast<size_t>(most_groups_left);
  for (size_t i = 0; i < finish; i++)
    for (const PendingCopy& copy : groups[i]) copy_now(copy);
  groups.erase(groups.begin(), groups.begin() + static_cast<ptrdiff_t>(finish));
}

std::string run_grid(dim3 grid, dim3 block, size_t shared_bytes,
                     const std::function<void()>& body) {
  // Kernels' __shared__ variables are plain statics. Thread-local ones would have to fit into the
  // little room that the loader keeps for `position`, which is initial-exec.
  static std::mutex one_launch;
  const std::lock_guard lock(one_launch);
  Scheduler& self = scheduler();
  self.failure.clear();
  self.body = &body;
  self.prepare(block.x * block.y * block.z);
  // Exactly as long as asked for, so that AddressSanitizer sees what lies behind.
  void* shared = nullptr;
  if (posix_memalign(&shared, 128, shared_bytes) != 0)
    self.failure = "the emulator found no memory for shared memory";
  position.dynamic_shared = static_cast<unsigned char*>(shared);
  position.block_size = block;
  position.grid_size = grid;
  std::vector<unsigned> blocks(static_cast<size_t>(grid.x) * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  self.arrange(blocks);
  for (const unsigned index : blocks) {
    if (!self.failure.empty()) break;
    // Poisoned, so that a read before the first write shows.
    if (shared_bytes > 0) std::memset(shared, 0xFF, shared_bytes);
    if (__start_voltaic_shared != nullptr)
      std::memset(__start_voltaic_shared, 0xFF,
                  static_cast<size_t>(__stop_voltaic_shared - __start_voltaic_shared));
    position.block = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
    self.run_block(block);
  }
  std::free(shared);
  return std::exchange(self.failure, {});
}

}  // namespace voltaic::emulator
