// The bf16 kernel on dots of pairs (bf16_dots.h): tile[14][32] = sum over pairs of k of
// a[pair][i] . b[pair][j], with all sums in registers.
//
// A panel of b is [k / 2][32] pairs. A plain a is read from the matrix: a pair is 32 bits of its
// row, loaded into all lanes. Else, or where k is odd, a's panel is packed as [k / 2][14] pairs;
// the last pair of an odd k ends in zeros. Where the epilogue only scales and adds a bias, the sums
// go from registers to c.
//
// 14 x 32 as in gemm_micro.h: 28 sums, 2 vectors of b, 1 broadcast; 16 loads for 28 dots, one of
// which starts each cycle. Measured on Zen 4 (235 GFLOP/s a core in registers; one thread, CPU
// time, other work on the machine), GFLOP/s: the loops alone 224 at a depth of 256; whole products
// 213 to 219 on ELECTRA-small's and base's forward and data-gradient shapes, 204 at k = 64, 187 to
// 201 on the vocabulary, 187 to 203 on weight gradients, 176 to 203 with 32 and 128 rows.
// oneDNN 2.6.3 in its plain layout, in the hour before: 204 to 215, 214 to 224, 164 to 171, 180 to
// 200, 179 to 221. Reading a plain a instead of packing it gave 3 to 5 %, 13 % at k = 64; results
// from registers 10 % at k = 64, 5 % at 128; a tile of 12 x 32 loses 5 %, a depth of 256 instead of
// 512 5 % at k = 1024, and a depth of 1024 gains 1 % there and loses 2 % on weight gradients.
//
// An element's sum is a chain of dots in ascending k, one chain for each kDepth, the chains added
// in order, whatever the tile's rows: no cut of the product changes it.
#pragma once
#include "bf16_dots.h"
#include "transpose.h"
#ifdef VOLTAIC_DOTS

namespace voltaic {
namespace {

// Lane i holds the pair lower[i], upper[i] for i < held, else zeros; without upper its half is
// zero.
VOLTAIC_INLINE vpairs join_rows(const bfloat16* lower, const bfloat16* upper, int64_t held) {
  const vuint low = (vuint)load_partial(lower, held) >> 16;
  return upper == nullptr ? low : low | (vuint)load_partial(upper, held);
}

struct DotKernel {
  static constexpr int kRows = 14, kVectors = 2;
  static constexpr int kColumns = kVectors * kWidth;
  static constexpr int64_t kDepth = 512;
  static constexpr int64_t kRowBlock = 192;            // about; rows of a that stay in L2
  static constexpr int64_t kFlopsPerNanosecond = 200;  // about, for cutting work into tasks
  static constexpr bool kWritesResults = true;
  static constexpr bool kOverlapsEpilogue = false;
  static constexpr bool kSquareBlocks = false;
  static constexpr int64_t kPackingSteps = 32;
  using Packed = bfloat16;

  // Row i of pair p is at data + i * row + p * step, in elements.
  struct PanelA {
    const bfloat16* data;
    int64_t row, step;
  };
  struct PanelB {
    const bfloat16* data;
  };

  static int64_t padded_depth(int64_t depth) { return divide_up(depth, 2) * 2; }

  static void pack_a(bfloat16* to, const bfloat16* a, int64_t stride, bool transposed, int rows,
                     int64_t depth) {
    pack<kRows>(to, a, stride, !transposed, rows, depth);
  }
  static void pack_b(bfloat16* to, const bfloat16* b, int64_t stride, bool transposed, int columns,
                     int64_t depth) {
    pack<kColumns>(to, b, stride, transposed, columns, depth);
  }
  static PanelA packed_a(const bfloat16* panel) { return {panel, 2, 2 * kRows}; }
  static PanelB packed_b(const bfloat16* panel) { return {panel}; }

  static bool reads_a(const bfloat16*, bool transposed, int, int64_t depth, int64_t, int64_t,
                      bool) {
    return !transposed && depth % 2 == 0;
  }
  static PanelA direct_a(const bfloat16* a, int64_t stride, bool) { return {a, stride, 2}; }
  static bool reads_b(const bfloat16*, bool, int) { return false; }
  static PanelB direct_b(const bfloat16* b, int64_t) { return {b}; }

  // keep: tile += instead of tile =. Rows beyond the given are neither read nor written.
  void multiply(int64_t depth, PanelA a, PanelB b, int rows, float* tile, bool keep) {
    choose_rows<kRows>(
        depth, a, b, rows, [=](int i, int j, vfloat sums) __attribute__((always_inline)) {
          float* to = tile + i * kColumns + j;
          store(to, keep ? load(to) + sums : sums);
        });
  }
  // The last step of a product, from registers straight to c[row...][column...], where the epilogue
  // only scales and adds a bias; tile holds the sums of earlier steps, or is nullptr.
  template <class Epilogue>
  void multiply_into(const Epilogue& out, int64_t row, int64_t column, int64_t depth, PanelA a,
                     PanelB b, int rows, const float* tile) {
    const int64_t n = out.n;
    auto* const c = out.c + row * n + column;
    const float* const bias = out.bias == nullptr ? nullptr : out.bias + column;
    const vfloat alpha = splat(out.alpha);
    choose_rows<kRows>(
        depth, a, b, rows, [=](int i, int j, vfloat sums) __attribute__((always_inline)) {
          if (tile != nullptr) sums = load(tile + i * kColumns + j) + sums;
          sums *= alpha;
          if (bias != nullptr) sums += load(bias + j);
          store(c + i * n + j, sums);
        });
  }

 private:
  // A panel [depth / 2][height] of pairs from rows along the depth, a square of words at a time, or
  // across it. Where the height is no multiple of a vector, each pair's store runs over into the
  // next one's place, which is stored after it.
  template <int height>
  static void pack(bfloat16* to, const bfloat16* from, int64_t stride, bool along_depth, int count,
                   int64_t depth) {
    if (along_depth) {
      pack_along_depth<height>((float*)to, from, stride, count, depth);
    } else {
      pack_across_depth<height>((float*)to, from, stride, count, depth);
    }
  }

  template <int height>
  static void pack_along_depth(float* to, const bfloat16* from, int64_t stride, int count,
                               int64_t depth) {
    for (int64_t k = 0; k < depth; k += 2 * kWidth) {
      const int64_t steps = smaller(2 * kWidth, depth - k), pairs = divide_up(steps, 2);
      for (int first = 0; first < height; first += kWidth) {
        vfloat square[kWidth];
        const bfloat16* rows = from + first * stride + k;
        if (steps == 2 * kWidth && first + kWidth <= count) {
          load_transposed(square, rows, stride * sizeof(bfloat16));
        } else {
          for (int i = 0; i < kWidth; i++) {
            square[i] = vfloat{};
            if (first + i < count) memcpy(&square[i], rows + i * stride, steps * sizeof(bfloat16));
          }
          transpose(square);
        }
        float* panel = to + k / 2 * height + first;
        if (pairs == kWidth && (first + kWidth <= height || k + 2 * kWidth < depth)) {
#pragma GCC unroll 16
          for (int p = 0; p < kWidth; p++) store(panel + p * height, square[p]);
        } else {
          for (int64_t p = 0; p < pairs; p++)
            store_partial(panel + p * height, square[p], height - first);
        }
      }
    }
  }

  // Loads take whole vectors as long as these end inside of the matrix, as in pack_copied.
  template <int height>
  static void pack_across_depth(float* to, const bfloat16* from, int64_t stride, int count,
                                int64_t depth) {
    for (int64_t k = 0; k < depth; k += 2, from += 2 * stride, to += height) {
      const bool paired = k + 1 < depth;
      __builtin_prefetch(from + kPackingSteps * stride);
      __builtin_prefetch(from + (kPackingSteps + 1) * stride);
#pragma GCC unroll 4
      for (int i = 0; i < height; i += kWidth) {
        const int64_t held = larger(0, count - i);
        const int64_t to_the_end = (k + 2 < depth ? stride : 0) + held;
        const vfloat pairs = (vfloat)join_rows(from + i, paired ? from + stride + i : nullptr,
                                               held > 0 && to_the_end >= kWidth ? kWidth : held);
        if (height - i >= kWidth || k + 2 < depth) {
          store(to + i, pairs);
        } else {
          store_partial(to + i, pairs, height - i);
        }
      }
    }
  }

  template <int rows, class Finish>
  static VOLTAIC_INLINE void choose_rows(int64_t depth, PanelA a, PanelB b, int wanted,
                                         const Finish& finish) {
    if constexpr (rows > 1)
      if (wanted < rows) return choose_rows<rows - 1>(depth, a, b, wanted, finish);
    multiply_rows<rows>(depth, a, b.data, finish);
  }

  template <int rows, class Finish>
  static __attribute__((noinline)) void multiply_rows(int64_t depth, PanelA a, const bfloat16* b,
                                                      Finish finish) {
    // Rows 0 to 6 lie at 0, 1, 2, 3, 4, 5 and 2 x 3 strides from one pointer, rows 7 to 13 from
    // another. The compiler is kept from making a pointer for each row, most of them in memory.
    int64_t one = a.row * sizeof(bfloat16), three = 3 * one, five = 5 * one;
    const char *upper = (const char*)a.data, *lower = upper + 7 * one;
    __asm__("" : "+r"(one), "+r"(three), "+r"(five));
    const auto row_of_a = [&](int i) __attribute__((always_inline)) {
      const int64_t offsets[] = {0, one, 2 * one, three, 4 * one, five, 2 * three};
      return splat_pair((const bfloat16*)((i < 7 ? upper : lower) + offsets[i % 7]));
    };
    vfloat sums[rows][kVectors] = {};
    for (int64_t k = 0; k < depth; k += 2, b += 2 * kColumns) {
      vpairs row[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) row[v] = load_pairs(b + 2 * v * kWidth);
#pragma GCC unroll 16
      for (int i = 0; i < rows; i++) {
        const vpairs x = row_of_a(i);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) sums[i][v] = dot_pairs(sums[i][v], x, row[v]);
      }
      upper += a.step * sizeof(bfloat16);
      lower += a.step * sizeof(bfloat16);
      __asm__("" : "+r"(upper), "+r"(lower));
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) finish(i, v * kWidth, sums[i][v]);
  }
};

}  // namespace
}  // namespace voltaic
#endif
