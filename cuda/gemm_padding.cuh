// bf16 operands whose rows do not begin at multiples of 16 bytes, copied for the product into
// scratch memory with rows of a multiple of 64 elements, the further ones zero. The vocabulary's
// 30,522 is the case that matters: gradients of logits are [rows, 30522], and no product of them
// could use 16-byte copies, be it ours or a library's.
//
// 4 bytes move per element, once; the product gains on 2 n FLOPs for each, n being the other
// operand's outer size. Whether it pays is estimated from the shape and the card alone
// (gemm_tiles.cuh): at n = 128 it is about even, from 256 on it does, and never for small products.
// What k has beyond a multiple of 8 meets zeros: here behind a row, or in rows that are not there.
//
// A thread makes 8 elements of 4 rows. It reads the two aligned 16-byte words that hold them and
// shifts, whatever the alignment; the second word is its neighbour's first, and comes from L1. Only
// chunks at a row's end, or whose words reach beyond the operand, go element by element.
#pragma once
#include "gemm_tensor_core.cuh"

namespace voltaic {
namespace {

constexpr int kPadThreads = 256, kPadRows = 4;  // rows of a thread, all loads under way at once
constexpr int64_t kPadMultiple = 64;            // elements
constexpr int64_t kPadBytesMultiple = 256;      // of an operand's copy

// The 16 bytes that begin `bytes` (even) into two words.
__device__ __forceinline__ uint4 shifted_word(uint4 first, uint4 second, unsigned bytes) {
  uint32_t x[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
#pragma unroll
  for (int i = 0; i < 6; i++) x[i] = bytes & 8 ? x[i + 2] : x[i];
#pragma unroll
  for (int i = 0; i < 5; i++) x[i] = bytes & 4 ? x[i + 1] : x[i];
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] = bytes & 2 ? x[i] >> 16 | x[i + 1] << 16 : x[i];
  return make_uint4(x[0], x[1], x[2], x[3]);
}

// column_lanes threads, a power of 2, lie side by side over a row's chunks of 8.
__global__ void __launch_bounds__(kPadThreads, 4)
    pad_rows_kernel(const bfloat16* __restrict__ from, int64_t rows, int64_t width,
                    bfloat16* __restrict__ to, int64_t padded, int column_lanes,
                    unsigned column_blocks) {
  const unsigned row_block = blockIdx.x / column_blocks;
  const unsigned column_block = blockIdx.x - row_block * column_blocks;
  const int row_lanes = kPadThreads / column_lanes;
  const int lane = threadIdx.x % column_lanes, row_lane = threadIdx.x / column_lanes;
  const int64_t column = (static_cast<int64_t>(column_block) * column_lanes + lane) * 8;
  const int64_t first_row = static_cast<int64_t>(row_block) * row_lanes * kPadRows + row_lane;
  if (column >= padded) return;
  const auto begin = reinterpret_cast<uintptr_t>(from);
  const auto end = reinterpret_cast<uintptr_t>(from + rows * width);
  uint4 first[kPadRows] = {}, second[kPadRows] = {};
  bool by_words[kPadRows];
#pragma unroll
  for (int i = 0; i < kPadRows; i++) {
    const int64_t row = first_row + i * row_lanes;
    const uintptr_t word =
        reinterpret_cast<uintptr_t>(from + row * width + column) & ~uintptr_t{15};
    by_words[i] = row < rows && column + 8 <= width && word >= begin && word + 32 <= end;
    if (!by_words[i]) continue;
    first[i] = *reinterpret_cast<const uint4*>(word);
    second[i] = *reinterpret_cast<const uint4*>(word + 16);
  }
#pragma unroll
  for (int i = 0; i < kPadRows; i++) {
    const int64_t row = first_row + i * row_lanes;
    if (row >= rows) return;
    const bfloat16* const at = from + row * width + column;
    uint4 chunk;
    if (by_words[i]) {
      chunk = shifted_word(first[i], second[i], reinterpret_cast<uintptr_t>(at) & 15);
    } else {
      uint32_t x[4] = {};
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (column + j < width) x[j / 2] |= static_cast<uint32_t>(at[j].bits) << (j % 2 * 16);
      chunk = make_uint4(x[0], x[1], x[2], x[3]);
    }
    *reinterpret_cast<uint4*>(to + row * padded + column) = chunk;
  }
}

// ---- host

// One operand of a product as the copy sees it: a matrix of all items' rows. None where it needs no
// copy, or lies with gaps between items.
struct PaddedOperand {
  int64_t rows = 0, width = 0;
  bool shared = false;  // one item's rows serve all

  int64_t padded() const { return divide_up(width, kPadMultiple) * kPadMultiple; }
  int64_t bytes() const {
    return divide_up(rows * padded() * 2, kPadBytesMultiple) * kPadBytesMultiple;
  }
  double clocks(int processors) const {
    constexpr double kBytesPerClock = 12;  // of memory, for each processor
    return rows == 0 ? 0.0
                     : kLaunchClocks + 2.0 * static_cast<double>(rows * (width + padded())) /
                                           (kBytesPerClock * processors);
  }
};
inline PaddedOperand padded_operand(int64_t rows, int64_t width, int64_t items, int64_t stride) {
  const bool shared = items == 1 || stride == 0;
  if (!shared && stride != rows * width) return {};
  return {shared ? rows : items * rows, width, shared};
}

inline voltaic_status pad_rows(const voltaic_call* call, const PaddedOperand& operand,
                               const bfloat16* from, bfloat16* to) {
  const int64_t chunks = operand.padded() / 8;
  int column_lanes = kPadThreads;
  while (column_lanes > 1 && column_lanes / 2 >= chunks) column_lanes /= 2;
  const int64_t column_blocks = divide_up(chunks, column_lanes);
  const int64_t row_blocks = divide_up(operand.rows, kPadThreads / column_lanes * kPadRows);
  return launch(call, pad_rows_kernel, blocks_for(row_blocks * column_blocks, 1), kPadThreads, 0,
                from, operand.rows, operand.width, to, operand.padded(), column_lanes,
                static_cast<unsigned>(column_blocks));
}

// Copies the operands that need it, where that pays, and makes p the product of the copies. They
// lie in the first *taken bytes of the call's scratch memory; whoever asks for more of it must
// leave those. (Asking may give another block: the one before stays as it is.)
voltaic_status pad_operands(const voltaic_call* call, Product<bfloat16>& p, size_t* taken) {
  if (call->stream->architecture < 80 || p.k == 0) return VOLTAIC_OK;
  p.find_vectors(8);
  if (p.vectors_a && p.vectors_b) return VOLTAIC_OK;
  Product<bfloat16> fast = p;
  PaddedOperand a, b;
  if (!p.vectors_a) {
    a = padded_operand(p.transpose_a ? p.k : p.m, p.leading_a, p.items, p.stride_a);
    if (a.rows == 0) return VOLTAIC_OK;
    fast.leading_a = a.padded();
    fast.stride_a = a.shared ? 0 : a.rows / p.items * a.padded();
  }
  if (!p.vectors_b) {
    b = padded_operand(p.transpose_b ? p.n : p.k, p.leading_b, p.items, p.stride_b);
    if (b.rows == 0) return VOLTAIC_OK;
    fast.leading_b = b.padded();
    fast.stride_b = b.shared ? 0 : b.rows / p.items * b.padded();
  }
  fast.vectors_a = fast.vectors_b = true;
  const int processors = call->stream->processors;
  if (plan_tensor_cores(fast, processors).clocks + a.clocks(processors) + b.clocks(processors) >=
      plan_tensor_cores(p, processors).clocks)
    return VOLTAIC_OK;
  const int64_t bytes = a.bytes() + b.bytes();
  auto* const room = static_cast<char*>(cuda::scratch(call, static_cast<size_t>(bytes)));
  if (room == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  voltaic_status status = VOLTAIC_OK;
  if (a.rows > 0) {
    auto* const copy = reinterpret_cast<bfloat16*>(room);
    status = pad_rows(call, a, p.a, copy);
    fast.a = copy;
  }
  if (b.rows > 0 && status == VOLTAIC_OK) {
    auto* const copy = reinterpret_cast<bfloat16*>(room + a.bytes());
    status = pad_rows(call, b, p.b, copy);
    fast.b = copy;
  }
  *taken = static_cast<size_t>(bytes);
  p = fast;
  return status;
}

}  // namespace
}  // namespace voltaic
