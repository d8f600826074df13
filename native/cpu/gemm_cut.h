// How a product's c is cut into blocks, a task each.
#pragma once
#include "kernel.h"

namespace voltaic {
namespace {

inline int64_t round_up(int64_t x, int64_t unit) { return divide_up(x, unit) * unit; }

// Sizes of the blocks of c, from the shape alone: a row's sums do not depend on them, the partial
// sums of bias_gradient do.
struct Cut {
  int64_t rows, columns;
};

constexpr int64_t kWantedTasks = 16;
constexpr int64_t kLeastTasks = 4;            // fewer, and few rows are cut as well:
constexpr int64_t kLeastRowsAlone = 96;       // each block packs the same columns of b
constexpr int64_t kLeastNanoseconds = 20000;  // of a task; starting one takes about a hundredth
constexpr int64_t kFewRows = 256;             // one row of blocks up to here
constexpr int64_t kLeastRows = 24;            // of a block, where there are several
constexpr int64_t kLeastRowsTransposed = 96;  // a transposed a is read in runs of a block's rows
constexpr int64_t kWideBlock = 512;           // columns of a block when there are tasks enough
constexpr int64_t kSquareRows = 256;          // at most, of a block that is about square
constexpr int64_t kLeastSquare = 64;          // rows or columns that are not halved

// Parts of size, all about as large and none above most, in whole units.
inline int64_t even_part(int64_t size, int64_t most, int64_t unit) {
  return round_up(divide_up(larger(size, 1), divide_up(larger(size, 1), most)), unit);
}

// For a kernel beside which packing is slow (kSquareBlocks): a transposed a, where both operands
// are packed, is cut into blocks of c that are about square, so that each packed element serves
// many sums.
template <class Kernel>
inline Cut cut_squarely(int64_t m, int64_t n, int64_t k) {
  Cut cut{even_part(m, kSquareRows, Kernel::kRows), even_part(n, kWideBlock, Kernel::kColumns)};
  while (divide_up(m, cut.rows) * divide_up(n, cut.columns) < kLeastTasks &&
         larger(cut.rows, cut.columns) > kLeastSquare &&
         2 * cut.rows * cut.columns * k > 2 * kLeastNanoseconds * Kernel::kFlopsPerNanosecond) {
    if (cut.rows >= cut.columns) {
      cut.rows = even_part(m, cut.rows / 2, Kernel::kRows);
    } else {
      cut.columns = even_part(n, cut.columns / 2, Kernel::kColumns);
    }
  }
  return cut;
}

template <class Kernel>
inline Cut cut_product(int64_t m, int64_t n, int64_t k, bool transpose_a) {
  if (transpose_a && Kernel::kSquareBlocks) return cut_squarely<Kernel>(m, n, k);
  Cut cut;
  const int64_t blocks = m <= kFewRows ? 1 : divide_up(m, Kernel::kRowBlock);
  cut.rows = round_up(divide_up(larger(m, 1), blocks), Kernel::kRows);
  cut.columns = smaller(kWideBlock, round_up(larger(n, 1), Kernel::kColumns));
  const auto tasks = [&] { return divide_up(m, cut.rows) * divide_up(n, cut.columns); };
  // Time at full speed plus reading b's columns at 20 bytes a nanosecond.
  const auto nanoseconds = [&] {
    return cut.columns * larger(k, 1) * (2 * cut.rows + Kernel::kFlopsPerNanosecond / 5) /
           Kernel::kFlopsPerNanosecond;
  };
  const auto worth_halving = [&] {
    return tasks() < kWantedTasks && nanoseconds() > 2 * kLeastNanoseconds;
  };
  const auto halve = [&](int64_t& size, int64_t unit, int64_t least) {
    while (size > least && worth_halving()) size = round_up(size / 2, unit);
  };
  if (blocks > 1) halve(cut.rows, Kernel::kRows, transpose_a ? kLeastRowsTransposed : kLeastRows);
  halve(cut.columns, Kernel::kColumns, 2 * Kernel::kColumns);
  if (blocks == 1 && tasks() < kLeastTasks) halve(cut.rows, Kernel::kRows, kLeastRowsAlone);
  return cut;
}

}  // namespace
}  // namespace voltaic
