// Runs CUDA kernels on the CPU: every CUDA thread of a block is a fiber, blocks run one after the
// other on the calling thread, each from poisoned shared memory.
//
// A fiber runs until it waits at a barrier or a warp exchange, or returns. The last lane of a warp
// to arrive at an exchange does it for all lanes, through pointers to their operands, and goes on;
// the others become ready. Lanes that have returned count as arrived, as on a card. When no fiber
// can run and some still wait, the block is given up and the launch fails with the reason: a
// barrier in a divergent branch, or lanes of a warp at different exchanges.
//
// The order in which ready lanes, and blocks, run is VOLTAIC_EMULATOR_ORDER: forward (the default),
// reverse, or a number that seeds a random one. A missing barrier shows in at least one of them,
// and so does a block that counts on another of its launch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};

namespace voltaic::emulator {

constexpr unsigned kWarp = 32;
constexpr unsigned kMostThreads = 1024;

// What a running CUDA thread sees of itself. One per host thread; the scheduler keeps it current.
struct Position {
  uint3 thread, block;
  dim3 block_size, grid_size;
  unsigned lane_in_block;
  unsigned char* dynamic_shared;
};
// Initial-exec: a read costs one instruction, and the kernels read it often.
extern thread_local Position position __attribute__((tls_model("initial-exec")));

void wait_for_block();

// One rendezvous of the calling lane's warp. kind names the exchange: lanes that meet in different
// ones are reported. work gets the lanes' operands, nullptr for lanes that have returned or never
// were.
void warp_exchange(const char* kind, void* operands, void (*work)(void** lanes));

// cp.async: the copy is done when its group is waited for, so that a missing wait shows.
void defer_copy(void* to, const void* from, unsigned bytes, unsigned zeros_after);
void commit_copies();
void wait_for_copies(int most_groups_left);

// Ends the launch with a sentence: what a card would refuse, such as a misaligned address.
void give_up(const char* reason);

// Runs all blocks of a launch. Returns an empty string, or why a block was given up.
std::string run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

}  // namespace voltaic::emulator
