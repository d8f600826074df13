// A stable sort of (key, value) pairs by key, on the card: least significant byte first, as many
// passes of 8 bits as the keys need. A pass is three launches:
//   counts of each of the 256 digits in each tile of 1024 pairs, stored digit by digit;
//   running sums along each digit's tiles, a warp a digit, and the digits' totals;
//   the move: each tile's warps number their pairs in order and write them where the digits before,
//   the tiles before and the warps before leave off.
// Bytes: 28 per pair and pass, and 2 KB of counts per tile. Everything is whole numbers, so it
// repeats bit for bit; ties stay in their order. Used for token numbers: two passes up to a
// vocabulary of 65,000.
#pragma once
#include "scan.cuh"

namespace voltaic {
namespace {

constexpr int kSortThreads = 256, kSortWarps = kSortThreads / 32;
constexpr int kSortRounds = 4;  // pairs of a thread
constexpr int kSortTile = kSortThreads * kSortRounds;
constexpr int kDigits = 256;

struct Pairs {
  uint32_t* keys;
  int32_t* values;
};
struct SortScratch {
  Pairs other;       // as long as the pairs
  uint32_t* counts;  // kDigits * tiles, tiles = sort_tiles(count)
  uint32_t* totals;  // kDigits
};
inline int64_t sort_tiles(int64_t count) { return divide_up(count, kSortTile); }

__global__ void __launch_bounds__(kSortThreads)
    count_digits(const uint32_t* __restrict__ keys, int64_t count, int shift, int64_t tiles,
                 uint32_t* counts) {
  __shared__ uint32_t own[kDigits];
  own[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (int round = 0; round < kSortRounds; round++) {
    const int64_t i = blockIdx.x * int64_t{kSortTile} + round * kSortThreads + threadIdx.x;
    if (i < count) atomicAdd(&own[keys[i] >> shift & 255u], 1u);
  }
  __syncthreads();
  counts[threadIdx.x * tiles + blockIdx.x] = own[threadIdx.x];
}

__global__ void __launch_bounds__(kSortThreads)
    sum_digits(uint32_t* counts, int64_t tiles, uint32_t* totals) {
  const int digit = static_cast<int>(blockIdx.x) * kSortWarps + static_cast<int>(threadIdx.x) / 32;
  uint32_t* const own = counts + digit * tiles;
  uint32_t before = 0;
  for (int64_t first = 0; first < tiles; first += 32) {
    const int64_t tile = first + threadIdx.x % 32;
    const uint32_t here = tile < tiles ? own[tile] : 0;
    const uint32_t sum = warp_running_sum(here);
    if (tile < tiles) own[tile] = before + sum - here;
    before += __shfl_sync(kAllLanes, sum, 31);
  }
  if (threadIdx.x % 32 == 0) totals[digit] = before;
}

// The lanes with the same digit as this one, among those that have one.
__device__ __forceinline__ unsigned lanes_with(uint32_t digit, bool there) {
  unsigned same = __ballot_sync(kAllLanes, there);
#pragma unroll
  for (int bit = 0; bit < 8; bit++) {
    const unsigned set = __ballot_sync(kAllLanes, digit >> bit & 1u);
    same &= digit >> bit & 1u ? set : ~set;
  }
  return same;
}

__global__ void __launch_bounds__(kSortThreads)
    move_pairs(Pairs from, Pairs to, int64_t count, int shift, int64_t tiles,
               const uint32_t* __restrict__ counts, const uint32_t* __restrict__ totals) {
  __shared__ uint32_t starts[kSortWarps][kDigits];  // first a warp's counts, then where it writes
  __shared__ uint32_t room[kSortWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = lane; i < kDigits; i += 32) starts[warp][i] = 0;
  __syncwarp();
  const int64_t first = blockIdx.x * int64_t{kSortTile} + warp * 32 * kSortRounds + lane;
  uint32_t keys[kSortRounds], places[kSortRounds];
  int32_t values[kSortRounds];
#pragma unroll
  for (int round = 0; round < kSortRounds; round++) {
    const int64_t i = first + round * 32;
    keys[round] = i < count ? from.keys[i] : 0;
    values[round] = i < count ? from.values[i] : 0;
  }
#pragma unroll
  for (int round = 0; round < kSortRounds; round++) {
    const bool there = first + round * 32 < count;
    const uint32_t digit = keys[round] >> shift & 255u;
    const unsigned same = lanes_with(digit, there);
    const unsigned before = same & ((1u << lane) - 1);
    places[round] = starts[warp][digit] + __popc(before);
    __syncwarp();
    if (there && before == 0) starts[warp][digit] += __popc(same);
    __syncwarp();
  }
  __syncthreads();
  uint32_t all;
  const int digit = threadIdx.x;
  uint32_t start = block_sum_before<kSortThreads>(totals[digit], room, &all);
  start += counts[digit * tiles + blockIdx.x];
#pragma unroll
  for (int i = 0; i < kSortWarps; i++) {
    const uint32_t here = starts[i][digit];
    starts[i][digit] = start;
    start += here;
  }
  __syncthreads();
#pragma unroll
  for (int round = 0; round < kSortRounds; round++) {
    if (first + round * 32 >= count) continue;
    const uint32_t place = starts[warp][keys[round] >> shift & 255u] + places[round];
    to.keys[place] = keys[round];
    to.values[place] = values[round];
  }
}

// Sorts `count` pairs (at least 1, below 2^31) with keys below `limit`; *sorted tells where they
// are then.
inline voltaic_status sort_pairs(const voltaic_call* call, Pairs pairs, int64_t count,
                                 int64_t limit, const SortScratch& scratch, Pairs* sorted) {
  const int64_t tiles = sort_tiles(count);
  const dim3 blocks(static_cast<unsigned>(tiles));
  Pairs other = scratch.other;
  for (int shift = 0; shift < 32 && (limit - 1) >> shift > 0; shift += 8) {
    voltaic_status status = launch(call, count_digits, blocks, kSortThreads, 0, pairs.keys, count,
                                   shift, tiles, scratch.counts);
    if (status == VOLTAIC_OK)
      status = launch(call, sum_digits, kDigits / kSortWarps, kSortThreads, 0, scratch.counts,
                      tiles, scratch.totals);
    if (status == VOLTAIC_OK)
      status = launch(call, move_pairs, blocks, kSortThreads, 0, pairs, other, count, shift, tiles,
                      scratch.counts, scratch.totals);
    if (status != VOLTAIC_OK) return status;
    const Pairs moved = other;
    other = pairs;
    pairs = moved;
  }
  *sorted = pairs;
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
