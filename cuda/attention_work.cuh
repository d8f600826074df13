// Which sequence, head and rows a block of an attention kernel works on, and the check of the
// offsets.
//
// Offsets are data: nothing of them is known when a kernel is queued. Two kinds of grid follow.
// - Whole: no sequence is longer than a tile; block = sequence * heads + head. An empty sequence
// costs a
//   block that reads two numbers and returns.
// - Tiles of T rows: sequence s has the tile numbers from offsets[s] / T + s up to
//   offsets[s + 1] / T + s + 1, one too many at most, whatever the lengths. So there are tokens / T
//   + sequences of them, known on the host, and a block finds its sequence with a search of the
//   offsets, 32 at a time; block = tile * heads + head. A bad hint `longest` costs nothing here.
#pragma once
#include "kernel.cuh"

namespace voltaic {
namespace {

struct AttentionDropout {
  const int32_t* state;  // null: no dropout
  uint32_t site, threshold;
  float scale;
};

// What all attention kernels get. All sizes fit in int32, the type of the offsets.
struct Attention {
  const int32_t* offsets;
  IndexCheck check;
  int64_t tokens;
  int32_t sequences, heads, size, longest;
  bool whole;    // the kind of grid
  bool vectors;  // rows of a head may be read and written 16 bytes at a time
  float scale;
  AttentionDropout dropout;

  // Elements from a token to the next, in qkv and in context.
  __device__ __forceinline__ int64_t qkv_stride() const {
    return 3 * static_cast<int64_t>(heads) * size;
  }
  __device__ __forceinline__ int64_t context_stride() const {
    return static_cast<int64_t>(heads) * size;
  }
};

// Every offset is looked at by one thread of the grid, which has more threads than there are
// offsets.
__device__ __forceinline__ void check_offsets(const Attention& a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > a.sequences) return;
  const int64_t value = a.offsets[i];
  if (i == 0 && !in_range(a.check, 0, value, 0, 0)) return;
  if (i == a.sequences && !in_range(a.check, i, value, a.tokens, a.tokens)) return;
  if (i == 0) return;
  const int64_t before = a.offsets[i - 1], most = before + a.longest;
  if (before < 0 || before > a.tokens) return;  // reported as what it is, or one before it
  in_range(a.check, i, value, before, most < a.tokens ? most : a.tokens);
}

struct AttentionWork {
  int32_t sequence, head;
  int32_t start, length;  // the sequence's first token, and its tokens; 0 where its offsets are bad
  int32_t first;          // the tile's first row, from the sequence's start
  __device__ __forceinline__ bool empty() const { return first >= length; }
  // Token and head as a row of qkv's queries (which 0), keys (1) or values (2); as one of context;
  // and as one of log_sum_exp.
  __device__ __forceinline__ int64_t qkv_row(const Attention& a, int row, int which) const {
    return (start + row) * a.qkv_stride() + (static_cast<int64_t>(which) * a.heads + head) * a.size;
  }
  __device__ __forceinline__ int64_t context_row(const Attention& a, int row) const {
    return (start + row) * a.context_stride() + static_cast<int64_t>(head) * a.size;
  }
  __device__ __forceinline__ int64_t statistics_row(const Attention& a, int row) const {
    return head * a.tokens + start + row;
  }
};

// The sequence whose tiles hold number `tile`, by the whole warp. With bad offsets it is some
// sequence.
template <int kTile>
__device__ __forceinline__ int32_t sequence_of_tile(const Attention& a, int32_t tile) {
  int32_t low = 0, high = a.sequences;
  while (high - low > 1) {
    const int32_t step = (high - low + 31) / 32;
    const int32_t probe = low + static_cast<int32_t>(threadIdx.x % 32) * step;
    const bool at_or_before = probe < high && a.offsets[probe] / kTile + probe <= tile;
    const int before = __popc(__ballot_sync(kAllLanes, at_or_before)) - 1;
    if (before > 0) low += before * step;
    if (high - low > step) high = low + step;
  }
  return low;
}

// `whole`: known to be when the kernel is compiled.
template <int kTile, bool whole = false>
__device__ __forceinline__ AttentionWork attention_work(const Attention& a) {
  AttentionWork work = {0, 0, 0, 0, 0};
  if (a.sequences == 0 || a.heads == 0) return work;
  const int32_t number = static_cast<int32_t>(blockIdx.x / static_cast<unsigned>(a.heads));
  work.head = static_cast<int32_t>(blockIdx.x % static_cast<unsigned>(a.heads));
  work.sequence = whole || a.whole ? number : sequence_of_tile<kTile>(a, number);
  const int32_t start = a.offsets[work.sequence], end = a.offsets[work.sequence + 1];
  if (start < 0 || end < start || end > a.tokens || end - start > a.longest) return work;
  work.start = start;
  work.length = end - start;
  if (whole || a.whole) return work;
  // Bad offsets elsewhere may have led here with a tile that is not this sequence's.
  const int32_t tile = number - (start / kTile + work.sequence);
  if (tile < 0 || tile > work.length / kTile) {
    work.length = 0;
  } else {
    work.first = tile * kTile;
  }
  return work;
}

// Blocks of the grid, for tiles of kTile rows.
inline int64_t attention_blocks(const Attention& a, int64_t tile) {
  const int64_t tiles = a.whole ? a.sequences : a.tokens / tile + a.sequences;
  return larger(tiles * a.heads, 1);
}
template <class... Parameters, class... Arguments>
inline voltaic_status launch_blocks(const voltaic_call* call, void (*kernel)(Parameters...),
                                    int64_t blocks, int threads, size_t shared_bytes,
                                    Arguments... arguments) {
  if (blocks == 0) return VOLTAIC_OK;
  if (blocks > kMostBlocks)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "attention needs %lld blocks; expected at most %lld: fewer sequences or heads",
                static_cast<long long>(blocks), static_cast<long long>(kMostBlocks));
  return launch(call, kernel, dim3(static_cast<unsigned>(blocks)),
                dim3(static_cast<unsigned>(threads)), shared_bytes, arguments...);
}

}  // namespace
}  // namespace voltaic
