// Tiles of bf16 operands in shared memory, for tensor_core_kernel (gemm_tensor_core.cuh): where a
// chunk of 16 bytes lies, the copies that bring it there, and the fragments that ldmatrix takes
// from it.
//
// Swizzled: chunk c of row r lies at c ^ r, cut to a line of 128 bytes, so that neither eight
// lanes' copies nor ldmatrix's eight rows meet a bank twice. Operands stay as they lie in memory:
// where k does not run along their rows, ldmatrix transposes.
#pragma once
#include "bfloat16.cuh"
#include "primitives.cuh"

namespace voltaic {
namespace {

constexpr int kStep = 32, kStepChunks = kStep / 8;  // along k; in chunks of 16 bytes

template <int rows, int columns, int warp_rows, int warp_columns, int resident>
struct TensorCoreTile {
  static constexpr int kRows = rows, kColumns = columns, kResident = resident;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = warp_columns;
  static constexpr int kWarpsDown = rows / warp_rows, kWarpsAcross = columns / warp_columns;
  static constexpr int kThreads = 32 * kWarpsDown * kWarpsAcross;
  static constexpr int kABytes = rows * kStep * 2, kBBytes = columns * kStep * 2;
  static constexpr int kStageBytes = kABytes + kBBytes;
};
using LargeTile = TensorCoreTile<128, 256, 64, 64, 1>;
using MiddleTile = TensorCoreTile<128, 128, 64, 64, 2>;
using SmallTile = TensorCoreTile<64, 64, 32, 32, 4>;

// Where a chunk lies in a shared tile. along_k: rows of the tile are rows (a) or columns (b) of the
// product, 64 bytes of k each, two in a line of 128 bytes. Otherwise its rows are the 32 of the
// step.
template <bool along_k, int outer>
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
  return along_k ? row * (kStep * 2) + ((chunk ^ (row / 2 % 4)) * 16)
                 : row * (outer * 2) + ((chunk ^ (row % 8)) * 16);
}

// A thread's share of the copies of one operand. guarded: rows that begin anywhere.
template <bool along_k, int outer, int threads, bool guarded>
struct TileCopies {
  static constexpr int kTileRows = along_k ? outer : kStep;
  static constexpr int kChunks = along_k ? kStepChunks : outer / 8;  // of a row
  static constexpr int kRowStep = threads / kChunks, kCopies = kTileRows / kRowStep;
  static_assert(kRowStep % 8 == 0 && kTileRows % kRowStep == 0);

  const bfloat16 *any, *from;
  int64_t leading;  // elements
  int row, column, offset, outer_left;
  bool vectors, pairs;
  uint32_t words[guarded ? kCopies : 1][4];

  __device__ __forceinline__ TileCopies(const bfloat16* matrix, int64_t leading_,
                                        int64_t outer_begin, int64_t outer_end, int64_t k_begin,
                                        bool whole_rows) {
    const int chunk = threadIdx.x % kChunks;
    row = threadIdx.x / kChunks;
    column = chunk * 8;
    offset = chunk_offset<along_k, outer>(row, chunk);
    any = matrix;
    leading = leading_;
    from = along_k ? matrix + (outer_begin + row) * leading + k_begin + column
                   : matrix + (k_begin + row) * leading + outer_begin + column;
    outer_left =
        outer_end - outer_begin < outer ? static_cast<int>(outer_end - outer_begin) : outer;
    vectors = whole_rows;
    pairs = (reinterpret_cast<uintptr_t>(matrix) & 3) == 0 && leading % 2 == 0;
  }

  // Begins the copies of a step, of which k_left of k exist.
  __device__ __forceinline__ void begin(unsigned char* tile, int k_left) {
    const int rows_left = along_k ? outer_left : k_left;
    const int columns_left = along_k ? k_left : outer_left;
    const bfloat16* at = from;
#pragma unroll
    for (int i = 0; i < kCopies; i++, at += kRowStep * leading) {
      const bool row_there = row + i * kRowStep < rows_left;
      if (!guarded || vectors) {
        const bool there = row_there && column < columns_left;
        copy_async_16(place(tile, i), there ? at : any, there ? 16 : 0);
      } else {
        fetch(words[guarded ? i : 0], at, row_there ? columns_left - column : 0);
      }
    }
    from += along_k ? kStep : kStep * leading;
  }
  // Stores what begin() could not leave to cp.async.
  __device__ __forceinline__ void end(unsigned char* tile) {
    if constexpr (guarded) {
      if (vectors) return;
#pragma unroll
      for (int i = 0; i < kCopies; i++)
        *reinterpret_cast<uint4*>(place(tile, i)) =
            make_uint4(words[i][0], words[i][1], words[i][2], words[i][3]);
    }
  }

 private:
  __device__ __forceinline__ unsigned char* place(unsigned char* tile, int i) const {
    return tile + offset + i * kRowStep * (along_k ? kStep * 2 : outer * 2);
  }
  // The first `held` of eight elements; by twos where all rows begin at even ones and end so, as
  // those of the vocabulary's products do.
  __device__ __forceinline__ void fetch(uint32_t (&to)[4], const bfloat16* at, int held) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      to[i] = 0;
      if (2 * i >= held) continue;
      if (pairs) {
        to[i] = *reinterpret_cast<const uint32_t*>(at + 2 * i);
      } else {
        to[i] = at[2 * i].bits;
        if (2 * i + 1 < held) to[i] |= static_cast<uint32_t>(at[2 * i + 1].bits) << 16;
      }
    }
  }
};

// A lane's addresses for ldmatrix: four 8 x 8 matrices that make 16 of the operand's outer size by
// 16 of k. For a they go down the outer size first, for b along k, as the fragments want them.
template <bool along_k, int outer, bool of_a>
struct TileFragments {
  int row_offset, chunk_bits;

  __device__ __forceinline__ TileFragments(int warp_begin) {
    const int lane = threadIdx.x % 32, in_matrix = lane % 8, matrix = lane / 8;
    const int outer_half = of_a ? matrix % 2 : matrix / 2, k_half = of_a ? matrix / 2 : matrix % 2;
    if (along_k) {
      row_offset = (warp_begin + outer_half * 8 + in_matrix) * (kStep * 2);
      chunk_bits = (k_half ^ (in_matrix / 2)) * 16;
    } else {
      row_offset = (k_half * 8 + in_matrix) * (outer * 2);
      chunk_bits = ((warp_begin / 8 + outer_half) ^ in_matrix) * 16;
    }
  }
  // Number i of the warp's 16s of the outer size, at half `half` of the step.
  __device__ __forceinline__ void load(uint32_t (&r)[4], const unsigned char* tile, int i,
                                       int half) const {
    if (along_k)
      load_matrices(r, tile + row_offset + i * 16 * (kStep * 2) + (chunk_bits ^ (half * 32)));
    else
      load_matrices_transposed(
          r, tile + row_offset + half * 16 * (outer * 2) + (chunk_bits ^ (i * 32)));
  }
};

}  // namespace
}  // namespace voltaic
