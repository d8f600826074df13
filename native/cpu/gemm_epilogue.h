// What happens to a tile of finished sums on its way into c, while it is in L1:
// alpha, beta * c, bias, activation or its derivative, column sums, rounding to c's type.
#pragma once
#include "../engine/gemm_arguments.h"
#include "activation_functions.h"
#include "kernel.h"

namespace voltaic {
namespace {

// Rows of c, and of saved where it is given, are n elements long.
template <class F, class G>
struct Epilogue {
  int64_t kind, activation, n;
  float alpha, beta;
  const float* bias;
  F* saved;
  G* c;

  // Whether fp32 sums are c as they stand.
  bool keeps_sums() const { return kind == kPlain && alpha == 1 && beta == 0; }

  // Asks for the lines of c and saved that finish will use, so that they arrive while the sums are
  // computed.
  VOLTAIC_INLINE void prefetch(int64_t row, int64_t column, int rows, int columns) const {
    const int64_t end = row * n + column + columns - 1;
    for (int i = 0; i < rows; i++) __builtin_prefetch(c + end + i * n, 1);
    if (saved != nullptr)
      for (int i = 0; i < rows; i++) __builtin_prefetch(saved + end + i * n, 1);
  }

  // Whether c is alpha times the sums, plus bias where there is one: a kernel that holds the sums
  // in registers may then write c itself.
  VOLTAIC_INLINE bool only_scales() const { return kind <= kBias && beta == 0; }

  // tile[i][j], rows of tile_columns, belongs at c[row + i][column + j]. column_sums[j], when asked
  // for, collects what an activation's gradient stores, in fp32, rows ascending. The tile is
  // overwritten.
  template <int tile_columns>
  void finish(float* tile, int64_t row, int64_t column, int rows, int columns,
              float* column_sums) const {
    const int64_t origin = row * n + column;
    each_vector<tile_columns>(
        rows, columns, [&](int64_t i, int64_t j, int64_t held) __attribute__((always_inline)) {
          const int64_t at = origin + i * n + j;
          vfloat x = load(tile + i * tile_columns + j) * splat(alpha);
          if (beta != 0) x = fma(splat(beta), load_partial(c + at, held), x);
          if (bias != nullptr) x += load_partial(bias + column + j, held);
          if (kind <= kBias) return store_partial(c + at, x, held);
          store(tile + i * tile_columns + j, x);
          if (kind == kBiasActivation && saved != nullptr) store_partial(saved + at, x, held);
        });
    if (kind <= kBias) return;
    with_activation(activation, [&](auto chosen) {
      constexpr int function = decltype(chosen)::value;
      if (kind == kBiasActivation) {
        each_vector<tile_columns>(
            rows, columns, [&](int64_t i, int64_t j, int64_t held) __attribute__((always_inline)) {
              const vfloat x = load(tile + i * tile_columns + j);
              store_partial(c + origin + i * n + j, activate<function, G>(x), held);
            });
      } else if (kind == kActivationGradient) {
        scale_by_gradient<tile_columns, function, false>(tile, origin, rows, columns, column_sums);
      } else {
        scale_by_gradient<tile_columns, function, true>(tile, origin, rows, columns, column_sums);
      }
    });
  }

 private:
  // with_value: saved becomes the activation of what it was; both share most of their arithmetic.
  template <int tile_columns, int function, bool with_value>
  void scale_by_gradient(const float* tile, int64_t origin, int rows, int columns,
                         float* column_sums) const {
    each_vector<tile_columns>(
        rows, columns, [&](int64_t i, int64_t j, int64_t held) __attribute__((always_inline)) {
          const int64_t at = origin + i * n + j;
          const vfloat before = load_partial(saved + at, held);
          const vfloat y = load(tile + i * tile_columns + j) * activate_gradient<function>(before);
          if (with_value) store_partial(saved + at, activate<function>(before), held);
          store_partial(c + at, y, held);
          if (column_sums != nullptr) store(column_sums + j, load(column_sums + j) + y);
        });
  }

  // Whole tiles, nearly all, run without the checks that loads and stores of parts of a vector
  // make.
  template <int tile_columns, class Body>
  static VOLTAIC_INLINE void each_vector(int rows, int columns, Body&& body) {
    if (columns == tile_columns) {
      for (int64_t i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int64_t j = 0; j < tile_columns; j += kWidth) body(i, j, int64_t{kWidth});
    } else {
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += kWidth) body(i, j, smaller(kWidth, columns - j));
    }
  }
};

}  // namespace
}  // namespace voltaic
