// A stable sort of keys with their places, on the card: order[] lists 0..n-1 by (key, place),
// keys[] the keys in that order. A run of equal keys starts at i where i is 0 or keys[i] differs
// from keys[i - 1]. Keys come from a functor: key = source(place), called once a place.
//
// Radix sort from the lowest digit, 8 bits a pass, as many passes as `bits` needs. Launches:
//   up to 8192 keys     one in all: a block keeps keys and places in registers through every pass
//                       and exchanges them in shared memory
//   up to 131072 keys   two a pass: the digits of each tile of 2048 keys are counted; each tile
//                       sums the counts of those before it and writes its keys and places where
//                       they belong
//   above               three a pass: a block a digit sums its counts over the tiles in between
// The first pass counts what the functor gives and keeps it, later ones read the kept keys. Small
// tiles, because a step's 10,000 to 400,000 token numbers must spread over a card's processors.
// Scratch: 8 bytes a key up to 8192, above 16 a key and 1 KB a tile. Bytes a pass: 20 a key, writes
// in pieces of some 8 keys; typical sizes stay in the L2 cache.
//
// In a warp, eight votes tell each lane which lanes have its digit: its rank is the number of those
// before it, after what the warp's running count has. So ranks follow the order of places: within a
// digit, tiles, warps, rounds and lanes come in order, and the sort is stable. Only whole numbers
// are added, and the result is a function of the keys alone.
#pragma once
#include "scan.cuh"

namespace voltaic {
namespace {

constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kSmallSortThreads = 512, kSmallSortItems = 16;
constexpr int kSortThreads = 256, kSortItems = 8;
constexpr int64_t kSmallSort = kSmallSortThreads * kSmallSortItems;
constexpr int64_t kSortTile = kSortThreads * kSortItems;
constexpr int64_t kFewTiles = 64;           // so many sum their counts themselves
constexpr uint32_t kLastKey = 0xffffffffu;  // stands in for keys past the end, behind all others

struct Sorted {
  const uint32_t* keys;
  const int32_t* order;
};

// Keys that are row numbers below `limit`. A bad one is reported and becomes `limit`, behind the
// others.
struct IndexKeys {
  const int32_t* index;
  int64_t limit;
  IndexCheck check;

  __device__ __forceinline__ uint32_t operator()(int64_t i) const {
    const int32_t value = index[i];
    return in_range(check, i, value, 0, limit - 1) ? static_cast<uint32_t>(value) : kLastKey;
  }
};
// Keys that stand in memory.
struct StoredKeys {
  const uint32_t* keys;
  __device__ __forceinline__ uint32_t operator()(int64_t i) const { return keys[i]; }
};
// How many bits tell the keys below `limit` and kLastKey apart.
inline int key_bits(int64_t limit) {
  int bits = 1;
  while (bits < 32 && limit >> bits > 0) bits++;
  return bits;
}

__device__ __forceinline__ uint32_t digit_of(uint32_t key, int shift) {
  return key >> shift & (kDigits - 1);
}

// The rank of this lane's digit among those that the warp has shown so far, in order of calls and
// lanes. counts: the warp's count of each digit. A whole warp calls it.
__device__ __forceinline__ uint32_t rank_in_warp(uint32_t digit, uint16_t* counts) {
  uint32_t same = kAllLanes;
#pragma unroll
  for (int bit = 0; bit < kDigitBits; bit++) {
    const bool set = (digit >> bit & 1) != 0;
    const uint32_t votes = __ballot_sync(kAllLanes, set);
    same &= set ? votes : ~votes;
  }
  const uint32_t before = same & ((1u << threadIdx.x % 32) - 1);
  const uint32_t count = counts[digit];
  __syncwarp();
  if (before == 0) counts[digit] = static_cast<uint16_t>(count + __popc(same));
  __syncwarp();
  return count + __popc(before);
}

// Turns each warp's counts of a digit into the sum of those of the warps before; returns the
// block's count.
template <int threads>
__device__ __forceinline__ uint32_t sum_warps(uint16_t (*counts)[kDigits], unsigned digit) {
  uint32_t sum = 0;
#pragma unroll
  for (int warp = 0; warp < threads / 32; warp++) {
    const uint32_t count = counts[warp][digit];
    counts[warp][digit] = static_cast<uint16_t>(sum);
    sum += count;
  }
  return sum;
}

template <int threads>
struct SortRoom {
  uint16_t counts[threads / 32][kDigits];
  uint32_t starts[kDigits];
  uint32_t warps[threads / 32];
};
struct SmallSortRoom {
  SortRoom<kSmallSortThreads> sort;
  uint32_t exchange[kSmallSort];
};

// One block. rounds: keys of a thread, 32 neighbours a warp and round.
template <class Source>
__global__ void __launch_bounds__(kSmallSortThreads, 1)
    small_sort_kernel(Source source, int n, int rounds, int bits, uint32_t* sorted_keys,
                      int32_t* sorted_order) {
  DYNAMIC_SHARED(SmallSortRoom, room);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int first = warp * rounds * 32 + lane;
  uint32_t keys[kSmallSortItems];
  int32_t order[kSmallSortItems], places[kSmallSortItems];
  // By way of shared memory, each thread through its own words: few copies of the functor.
#pragma unroll 4
  for (int j = 0; j < rounds; j++) {
    const int i = first + j * 32;
    room->exchange[i] = i < n ? source(i) : kLastKey;
  }
#pragma unroll
  for (int j = 0; j < kSmallSortItems; j++) {
    const int i = first + j * 32;
    keys[j] = j < rounds ? room->exchange[i] : kLastKey;
    order[j] = i;
  }
  uint16_t* const counts = &room->sort.counts[0][0];
  for (int shift = 0; shift < bits; shift += kDigitBits) {
    for (int i = static_cast<int>(threadIdx.x); i < kSmallSortThreads / 32 * kDigits;
         i += kSmallSortThreads)
      counts[i] = 0;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kSmallSortItems; j++) {
      if (j >= rounds) break;
      places[j] = static_cast<int>(rank_in_warp(digit_of(keys[j], shift), counts + warp * kDigits));
    }
    __syncthreads();
    const uint32_t total =
        threadIdx.x < kDigits ? sum_warps<kSmallSortThreads>(room->sort.counts, threadIdx.x) : 0;
    uint32_t all;
    const uint32_t start = block_sum_before<kSmallSortThreads>(total, room->sort.warps, &all);
    if (threadIdx.x < kDigits) room->sort.starts[threadIdx.x] = start;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kSmallSortItems; j++) {
      if (j >= rounds) break;
      const uint32_t digit = digit_of(keys[j], shift);
      places[j] += static_cast<int>(room->sort.starts[digit] + counts[warp * kDigits + digit]);
      room->exchange[places[j]] = keys[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kSmallSortItems; j++)
      if (j < rounds) keys[j] = room->exchange[first + j * 32];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kSmallSortItems; j++)
      if (j < rounds) room->exchange[places[j]] = static_cast<uint32_t>(order[j]);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kSmallSortItems; j++)
      if (j < rounds) order[j] = static_cast<int32_t>(room->exchange[first + j * 32]);
  }
#pragma unroll
  for (int j = 0; j < kSmallSortItems; j++) {
    const int i = first + j * 32;
    if (j >= rounds || i >= n) break;
    if (sorted_keys != nullptr) sorted_keys[i] = keys[j];
    sorted_order[i] = order[j];
  }
}

// Where a tile's count of a digit stands: for few tiles digits are neighbours, for the blocks that
// read all tiles; for many tiles are, for the block that has the digit.
__device__ __forceinline__ int64_t place_of_count(int64_t tile, int64_t tiles, int digit) {
  return tiles <= kFewTiles ? tile * kDigits + digit : digit * tiles + tile;
}

// kept: where the keys go, or null.
template <class Source>
__global__ void __launch_bounds__(kSortThreads, 4)
    count_digits_kernel(Source source, int64_t n, int shift, uint32_t* counts, uint32_t* kept) {
  static_assert(kSortThreads == kDigits);
  DYNAMIC_SHARED(uint32_t, tile_counts);
  tile_counts[threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = blockIdx.x * kSortTile + threadIdx.x;
#pragma unroll 4
  for (int j = 0; j < kSortItems; j++) {
    const int64_t i = first + j * kSortThreads;
    if (i >= n) break;
    const uint32_t key = source(i);
    if (kept != nullptr) kept[i] = key;
    atomicAdd(&tile_counts[digit_of(key, shift)], 1u);
  }
  __syncthreads();
  const int digit = static_cast<int>(threadIdx.x);
  counts[place_of_count(blockIdx.x, gridDim.x, digit)] = tile_counts[digit];
}

// For many tiles, a block a digit: its counts become the sums of those of the tiles before; totals
// gets the digit's.
__global__ void __launch_bounds__(kSortThreads)
    sum_tiles_kernel(uint32_t* counts, int64_t tiles, uint32_t* totals) {
  __shared__ uint32_t room[kSortThreads / 32];
  uint32_t* const mine = counts + blockIdx.x * tiles;
  uint32_t before = 0;
  for (int64_t first = 0; first < tiles; first += kSortThreads) {
    const int64_t i = first + threadIdx.x;
    uint32_t all;
    const uint32_t here = block_sum_before<kSortThreads>(i < tiles ? mine[i] : 0u, room, &all);
    if (i < tiles) mine[i] = before + here;
    before += all;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

// order: null in the first pass, where place i is i. sorted_keys: null in the last, where nobody
// needs them. totals: of sum_tiles_kernel, for many tiles.
__global__ void __launch_bounds__(kSortThreads, 3)
    place_keys_kernel(const uint32_t* keys, const int32_t* order, int64_t n, int shift,
                      const uint32_t* counts, const uint32_t* totals, uint32_t* sorted_keys,
                      int32_t* sorted_order) {
  DYNAMIC_SHARED(SortRoom<kSortThreads>, room);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t start = blockIdx.x * kSortTile, tiles = gridDim.x;
  const int count = static_cast<int>(n - start < kSortTile ? n - start : kSortTile);
  const int first = warp * 32 * kSortItems + lane;
  const uint32_t* const from = keys + start;
  uint32_t tile_keys[kSortItems], ranks[kSortItems];
#pragma unroll
  for (int j = 0; j < kSortItems; j++)
    tile_keys[j] = first + j * 32 < count ? from[first + j * 32] : kLastKey;
  // The thread's digit: how many keys have it, in all and in the tiles before.
  const int own_digit = static_cast<int>(threadIdx.x);
  uint32_t total = 0, before = 0;
  if (tiles <= kFewTiles) {
#pragma unroll 16
    for (int tile = 0; tile < static_cast<int>(tiles); tile++) {
      const uint32_t here = counts[tile * kDigits + own_digit];
      total += here;
      if (tile < static_cast<int>(blockIdx.x)) before += here;
    }
  } else {
    total = totals[own_digit];
    before = counts[place_of_count(blockIdx.x, tiles, own_digit)];
  }
#pragma unroll
  for (int w = 0; w < kSortThreads / 32; w++) room->counts[w][own_digit] = 0;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kSortItems; j++)
    ranks[j] = rank_in_warp(digit_of(tile_keys[j], shift), room->counts[warp]);
  __syncthreads();
  sum_warps<kSortThreads>(room->counts, own_digit);
  uint32_t all;
  room->starts[own_digit] = block_sum_before<kSortThreads>(total, room->warps, &all) + before;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kSortItems; j++) {
    const int i = first + j * 32;
    if (i >= count) break;
    const uint32_t digit = digit_of(tile_keys[j], shift);
    const uint32_t to = room->starts[digit] + room->counts[warp][digit] + ranks[j];
    if (sorted_keys != nullptr) sorted_keys[to] = tile_keys[j];
    sorted_order[to] = order != nullptr ? order[start + i] : static_cast<int32_t>(start + i);
  }
}

// Bytes of scratch memory for n keys.
inline size_t sort_bytes(int64_t n) {
  const int64_t words = n <= kSmallSort ? 2 * n : 4 * n + (divide_up(n, kSortTile) + 1) * kDigits;
  return static_cast<size_t>(words) * sizeof(uint32_t);
}

// Sorts source(0) to source(n - 1), 0 < n <= 2^31, of which the lowest `bits` count. memory:
// sort_bytes(n), of the call's scratch memory, 4-byte aligned. Where the order shall stand, if not
// in memory; then the sorted keys are not kept.
template <class Source>
voltaic_status sort_indices(const voltaic_call* call, const Source& source, int64_t n, int bits,
                            void* memory, int32_t* order_to, Sorted* sorted) {
  uint32_t* keys[2] = {static_cast<uint32_t*>(memory), nullptr};
  if (n <= kSmallSort) {
    int32_t* const order = order_to ? order_to : reinterpret_cast<int32_t*>(keys[0] + n);
    uint32_t* const kept = order_to ? nullptr : keys[0];
    if (sorted != nullptr) *sorted = {kept, order};
    return launch(call, small_sort_kernel<Source>, 1, kSmallSortThreads, sizeof(SmallSortRoom),
                  source, n, divide_up(n, kSmallSortThreads), bits, kept, order);
  }
  keys[1] = keys[0] + n;
  int32_t* const orders[2] = {reinterpret_cast<int32_t*>(keys[1] + n),
                              reinterpret_cast<int32_t*>(keys[1] + 2 * n)};
  uint32_t* const counts = keys[1] + 3 * n;
  const int64_t tiles = divide_up(n, kSortTile);
  uint32_t* const totals = counts + tiles * kDigits;
  const dim3 blocks = blocks_for(tiles, 1);
  const size_t room = kDigits * sizeof(uint32_t);
  voltaic_status status = VOLTAIC_OK;
  const int32_t* order = nullptr;
  int from = 0;
  for (int shift = 0; shift < bits && status == VOLTAIC_OK; shift += kDigitBits) {
    const bool last = shift + kDigitBits >= bits;
    int32_t* const to = last && order_to ? order_to : orders[1 - from];
    uint32_t* const keys_to = last && order_to ? nullptr : keys[1 - from];
    status = shift == 0 ? launch(call, count_digits_kernel<Source>, blocks, kSortThreads, room,
                                 source, n, shift, counts, keys[0])
                        : launch(call, count_digits_kernel<StoredKeys>, blocks, kSortThreads, room,
                                 StoredKeys{keys[from]}, n, shift, counts, nullptr);
    if (status == VOLTAIC_OK && tiles > kFewTiles)
      status = launch(call, sum_tiles_kernel, kDigits, kSortThreads, 0, counts, tiles, totals);
    if (status == VOLTAIC_OK)
      status = launch(call, place_keys_kernel, blocks, kSortThreads, sizeof(SortRoom<kSortThreads>),
                      keys[from], order, n, shift, counts, totals, keys_to, to);
    order = to;
    from = 1 - from;
    if (sorted != nullptr) *sorted = {keys_to, to};
  }
  return status;
}

}  // namespace
}  // namespace voltaic
