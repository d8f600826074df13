// Attention's bf16 products on AMX tiles, for attention_pairs.h: c (+)= a b by blocks of 32 x 32.
//
// a is row-major, b lies in pairs of neighbours along the depth (amx_tiles.h), both as the tasks
// made them: nothing is packed again. Four tiles of c, two of a and two of b: a step of 32 along
// the depth loads 4 tiles (4 KB) for 4 dots, 32 cycles of loads beside 64 of dots. Edges of 16 rows
// or columns take half a block.
#pragma once
#include "amx_tiles.h"
#if defined(VOLTAIC_TILES)

namespace voltaic {
namespace {

struct TileProducts {
  static constexpr int64_t kRowUnit = 16, kDepthUnit = 32;
  Tiles tiles;

  // c[rows][columns] (+)= a[rows][depth] b. Pair p of columns 16 g to 16 g + 15 is at b + g *
  // b_group + p * b_pair. Rows, columns and depth are rounded up to whole tiles.
  void multiply(float* c, int64_t c_stride, const bfloat16* a, int64_t a_stride, const bfloat16* b,
                int64_t b_group, int64_t b_pair, int64_t rows, int64_t columns, int64_t depth,
                bool keep) {
    const int64_t steps = divide_up(depth, 32);
    for (int64_t column = 0; column < columns; column += 32)
      for (int64_t row = 0; row < rows; row += 32) {
        float* to = c + row * c_stride + column;
        const bfloat16 *left = a + row * a_stride, *right = b + column / 16 * b_group;
        const bool two_rows = rows - row > 16, two_columns = columns - column > 16;
        auto block = [&](auto tile_rows, auto tile_columns) {
          multiply_block<decltype(tile_rows)::value, decltype(tile_columns)::value>(
              to, c_stride, left, a_stride, right, b_group, b_pair, steps, keep);
        };
        if (two_rows) {
          two_columns ? block(Count<2>{}, Count<2>{}) : block(Count<2>{}, Count<1>{});
        } else {
          two_columns ? block(Count<1>{}, Count<2>{}) : block(Count<1>{}, Count<1>{});
        }
      }
  }

 private:
  template <int count>
  struct Count {
    static constexpr int value = count;
  };

  // Tiles of c: 0, right 1, lower 2 and 3; of a: 4, lower 5; of b: 6, right 7.
  template <int tile_rows, int tile_columns>
  void multiply_block(float* c, int64_t c_stride, const bfloat16* a, int64_t a_stride,
                      const bfloat16* b, int64_t b_group, int64_t b_pair, int64_t steps,
                      bool keep) {
    float *right = c + 16, *lower = c + 16 * c_stride;
    if (keep) {
      tiles.load<0>(c, 4 * c_stride);
      if constexpr (tile_columns == 2) tiles.load<1>(right, 4 * c_stride);
      if constexpr (tile_rows == 2) tiles.load<2>(lower, 4 * c_stride);
      if constexpr (tile_rows + tile_columns == 4) tiles.load<3>(lower + 16, 4 * c_stride);
    } else {
      tiles.zero<0>();
      tiles.zero<1>();
      tiles.zero<2>();
      tiles.zero<3>();
    }
    for (int64_t s = 0; s < steps; s++, a += 32, b += 16 * b_pair) {
      tiles.load<4>(a, 2 * a_stride);
      tiles.load<6>(b, 2 * b_pair);
      tiles.dot<0, 4, 6>();
      if constexpr (tile_columns == 2) {
        tiles.load<7>(b + b_group, 2 * b_pair);
        tiles.dot<1, 4, 7>();
      }
      if constexpr (tile_rows == 2) {
        tiles.load<5>(a + 16 * a_stride, 2 * a_stride);
        tiles.dot<2, 5, 6>();
      }
      if constexpr (tile_rows + tile_columns == 4) tiles.dot<3, 5, 7>();
    }
    tiles.store<0>(c, 4 * c_stride);
    if constexpr (tile_columns == 2) tiles.store<1>(right, 4 * c_stride);
    if constexpr (tile_rows == 2) tiles.store<2>(lower, 4 * c_stride);
    if constexpr (tile_rows + tile_columns == 4) tiles.store<3>(lower + 16, 4 * c_stride);
  }
};

}  // namespace
}  // namespace voltaic
#endif
