// The emulator of CUDA threads: barriers, warp exchanges, tensor-core products and asynchronous
// copies do what a card does, and planted faults show.
#include "../../cuda/primitives.cuh"

#include <cstdlib>
#include <numeric>
#include <vector>

#include "../../cuda/kernel.cuh"
#include "harness.h"

using namespace voltaic::test;

namespace {

using voltaic::emulator::run_grid;

float bf16(double value) { return static_cast<float>(round_to(VOLTAIC_BFLOAT16, value)); }

// Sum over a block through shared memory, with and without the barrier it needs.
void reversal(const int* in, int* out, bool with_barrier) {
  DYNAMIC_SHARED(int, room);
  room[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}

}  // namespace

TEST(emulator_runs_every_thread_of_every_block) {
  std::vector<int> seen(3 * 2 * 2 * 4 * 3, 0);
  const std::string failure = run_grid(dim3(3, 2, 2), dim3(4, 3), 0, [&] {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    seen[block * 12 + threadIdx.y * blockDim.x + threadIdx.x]++;
  });
  EXPECT(failure.empty());
  EXPECT(std::accumulate(seen.begin(), seen.end(), 0) == 144);
  for (int count : seen) EXPECT(count == 1);
}

TEST(emulator_barriers_order_shared_memory_and_a_missing_one_shows) {
  std::vector<int> in(96), out(96);
  std::iota(in.begin(), in.end(), 100);
  EXPECT(run_grid(1, 96, 96 * sizeof(int), [&] { reversal(in.data(), out.data(), true); }).empty());
  for (int i = 0; i < 96; i++) EXPECT(out[static_cast<size_t>(i)] == 100 + 95 - i);
  EXPECT(
      run_grid(1, 96, 96 * sizeof(int), [&] { reversal(in.data(), out.data(), false); }).empty());
  int poisoned = 0;
  for (int value : out) poisoned += value == -1;
  EXPECT(poisoned > 0);
}

TEST(emulator_lets_lanes_return_early) {
  std::vector<int> out(64, 0);
  const std::string failure = run_grid(1, 64, 0, [&] {
    if (threadIdx.x % 32 >= 20) return;
    const int sum = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
    __syncthreads();
    out[threadIdx.x] = sum;
  });
  EXPECT(failure.empty());
  EXPECT(out[0] == 1 && out[5] == 4 && out[32] == 33 && out[20] == 0);
}

TEST(emulator_reports_a_barrier_that_not_all_threads_reach) {
  const std::string failure = run_grid(dim3(2), 64, 0, [&] {
    if (threadIdx.x < 40) {
      __syncthreads();
    } else {
      __shfl_xor_sync(0xffffffffu, 1, 1);
      __syncthreads();
      __syncthreads();
    }
  });
  EXPECT_TEXT(failure.find("none can go on") != std::string::npos, failure);
}

TEST(emulator_reports_lanes_of_a_warp_in_different_exchanges) {
  const std::string failure = run_grid(1, 32, 0, [&] {
    if (threadIdx.x < 16) {
      __shfl_xor_sync(0xffffffffu, 1, 1);
    } else {
      __ballot_sync(0xffffffffu, 1);
    }
  });
  EXPECT_TEXT(failure.find("different exchanges") != std::string::npos, failure);
  EXPECT(run_grid(1, 32, 0, [] { __syncwarp(); }).empty());  // and it goes on after that
}

TEST(emulator_votes_and_shuffles_as_documented) {
  const std::string failure = run_grid(1, 32, 0, [&] {
    const int lane = static_cast<int>(threadIdx.x);
    EXPECT(__ballot_sync(0xffffffffu, lane % 3 == 0) == 0x49249249u);
    EXPECT(__any_sync(0xffffffffu, lane == 31) && !__any_sync(0xffffffffu, 0));
    EXPECT(__all_sync(0xffffffffu, 1) && !__all_sync(0xffffffffu, lane != 7));
    EXPECT(__shfl_sync(0xffffffffu, lane * 2, 5) == 10);
    EXPECT(__shfl_up_sync(0xffffffffu, lane, 3) == (lane < 3 ? lane : lane - 3));
    EXPECT(__shfl_down_sync(0xffffffffu, lane, 4) == (lane > 27 ? lane : lane + 4));
    EXPECT(voltaic::warp_sum(lane) == 496);
  });
  EXPECT(failure.empty());
}

TEST(emulator_multiplies_fragments_as_a_tensor_core_does) {
  for (Random random : seeds(5)) {
    std::vector<float> a(256), b(128), d(128);
    for (float& x : a) x = bf16(random.uniform());
    for (float& x : b) x = bf16(random.uniform());
    for (float& x : d) x = static_cast<float>(random.uniform());
    std::vector<float> found(128);
    const std::string failure = run_grid(1, 32, 0, [&] {
      const int group = static_cast<int>(threadIdx.x) / 4, pair = static_cast<int>(threadIdx.x) % 4;
      const auto word = [](float low, float high) { return voltaic::pack_bfloat16(low, high); };
      uint32_t fragment_a[4], fragment_b[2];
      float sums[4];
      for (int i = 0; i < 4; i++) {
        const int row = group + 8 * (i % 2), column = 2 * pair + 8 * (i / 2);
        fragment_a[i] = word(a[static_cast<size_t>(row * 16 + column)],
                             a[static_cast<size_t>(row * 16 + column + 1)]);
        sums[i] = d[static_cast<size_t>((group + 8 * (i / 2)) * 8 + 2 * pair + i % 2)];
      }
      for (int i = 0; i < 2; i++) {
        const int row = 2 * pair + 8 * i;
        fragment_b[i] = word(b[static_cast<size_t>(row * 8 + group)],
                             b[static_cast<size_t>((row + 1) * 8 + group)]);
      }
      voltaic::mma_bf16(sums, fragment_a, fragment_b);
      for (int i = 0; i < 4; i++)
        found[static_cast<size_t>((group + 8 * (i / 2)) * 8 + 2 * pair + i % 2)] = sums[i];
    });
    EXPECT(failure.empty());
    for (int row = 0; row < 16; row++)
      for (int column = 0; column < 8; column++) {
        double want = d[static_cast<size_t>(row * 8 + column)];
        for (int k = 0; k < 16; k++)
          want += static_cast<double>(a[static_cast<size_t>(row * 16 + k)]) *
                  b[static_cast<size_t>(k * 8 + column)];
        // 16 products and sums in fp32 of numbers below 1.
        EXPECT(std::fabs(found[static_cast<size_t>(row * 8 + column)] - want) < 1e-5);
      }
  }
}

TEST(emulator_loads_matrices_with_and_without_transposition) {
  const std::string failure = run_grid(1, 32, 4 * 64 * 2, [&] {
    DYNAMIC_SHARED(uint16_t, room);
    for (unsigned i = threadIdx.x; i < 256; i += 32) room[i] = static_cast<uint16_t>(i);
    __syncwarp();
    uint32_t straight[4], transposed[4];
    voltaic::load_matrices(straight, room + 8 * threadIdx.x);
    voltaic::load_matrices_transposed(transposed, room + 8 * threadIdx.x);
    const uint32_t group = threadIdx.x / 4, pair = threadIdx.x % 4;
    for (uint32_t i = 0; i < 4; i++) {
      const uint32_t at = 64 * i + 8 * group + 2 * pair, down = 64 * i + 16 * pair + group;
      EXPECT(straight[i] == (at | (at + 1) << 16));
      EXPECT(transposed[i] == (down | (down + 8) << 16));
    }
  });
  EXPECT(failure.empty());
}

TEST(emulator_copies_asynchronously_and_a_missing_wait_shows) {
  alignas(16) uint32_t from[64];
  for (uint32_t i = 0; i < 64; i++) from[i] = i;
  for (const bool waits : {true, false}) {
    const std::string failure = run_grid(1, 8, 3 * 8 * 16, [&] {
      DYNAMIC_SHARED(uint32_t, room);
      uint32_t* const mine = room + 4 * threadIdx.x;
      voltaic::copy_async_16(mine, from + 4 * threadIdx.x);
      voltaic::copy_async_commit();
      voltaic::copy_async_16(mine + 32, from + 32 + 4 * threadIdx.x, 8);
      voltaic::copy_async_commit();
      if (waits) voltaic::copy_async_wait<1>();
      EXPECT((mine[0] == 4 * threadIdx.x) == waits);
      EXPECT(mine[32] == 0xffffffffu);  // its group has not been waited for
      if (waits) voltaic::copy_async_wait<0>();
      EXPECT((mine[33] == 4 * threadIdx.x + 33) == waits);
      EXPECT((mine[34] == 0) == waits);  // behind the valid bytes
    });
    EXPECT(failure.empty());
  }
  EXPECT(!run_grid(1, 1, 32, [&] {
            DYNAMIC_SHARED(unsigned char, room);
            voltaic::copy_async_16(room + 4, from);
          }).empty());
}

TEST(emulator_replays_a_captured_graph_with_what_memory_holds_then) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  EXPECT(cudaStreamCreateWithFlags(&stream, 0) == cudaSuccess);
  int value = 1, result = 0;
  EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
  const auto kernel = [](const int* in, int* out) { *out = 10 * *in; };
  voltaic::emulator::launch(+kernel, 1, 1, 0, stream, &value, &result);
  EXPECT(result == 0);  // noted down, not done
  EXPECT(cudaStreamSynchronize(stream) != cudaSuccess);
  EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  EXPECT(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  cudaGraphDestroy(graph);
  for (value = 2; value < 5; value++) {
    EXPECT(cudaGraphLaunch(exec, stream) == cudaSuccess);
    EXPECT(result == 10 * value);
  }
  cudaGraphExecDestroy(exec);
  cudaStreamDestroy(stream);
}

TEST(emulator_refuses_launches_that_a_card_refuses) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, 0);
  const auto nothing = []() {};
  EXPECT(voltaic::emulator::launch(+nothing, 1, 1025, 0, stream) != cudaSuccess);
  EXPECT(voltaic::emulator::launch(+nothing, dim3(1, 70000), 32, 0, stream) != cudaSuccess);
  EXPECT(voltaic::emulator::launch(+nothing, 0, 32, 0, stream) != cudaSuccess);
  EXPECT(voltaic::emulator::launch(+nothing, 1, 32, size_t{300} << 10, stream) != cudaSuccess);
  EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
  EXPECT(voltaic::emulator::launch(+nothing, 1, 1024, 0, stream) == cudaSuccess);
  cudaStreamDestroy(stream);
}
