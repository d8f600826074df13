// The loops around the microkernel: how a product is cut into tasks and blocks, and what is packed
// where.
//
// c is cut into blocks of rows x columns, a task each; k is never split between threads. A task
// runs through k in steps of kDepth, through its panels of b and under each through its panels of
// a, which stay in L2; sums of earlier steps wait in scratch and the last step hands each tile to
// the epilogue: at once, or, where the kernel's arithmetic is not done by the vector units, between
// the steps of the next tile.
//
// Each panel is packed once, or nearly: b ahead and by all threads when several rows of blocks use
// it, else by the task right before use; a ahead when several narrow columns of blocks use it, else
// by the task. What the kernel reads from the matrix itself (reads_a, reads_b) is not packed. A
// weight's panels may be there already (pack_weight), in b's own type: where the
// microkernel takes fp32 for bf16, the task widens each right before use, a copy of adjacent
// elements in place of a transposition.
#pragma once
#include "gemm_cut.h"
#include "gemm_epilogue.h"
#include "gemm_pack.h"

namespace voltaic {
namespace {

// One product: c = epilogue(alpha op(a) op(b) + beta c).
template <class F, class G>
struct Product {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  const F *a, *b;
  const F* stored_b;  // panels made by pack_weight, in place of b; or nullptr
  Epilogue<F, G> out;

  int64_t stride_a() const { return transpose_a ? m : k; }
  int64_t stride_b() const { return transpose_b ? k : n; }
  const F* at_a(int64_t row, int64_t depth) const {
    return transpose_a ? a + depth * m + row : a + row * k + depth;
  }
  const F* at_b(int64_t depth, int64_t column) const {
    return transpose_b ? b + column * k + depth : b + depth * n + column;
  }
};

constexpr int64_t kCloseColumns = 256;        // of c, whose rows then do not share sets of L1
constexpr int64_t kFewBlocks = 4;             // that pack for themselves where blocks are square
constexpr int64_t kPackedElements = 4 << 20;  // of b, packed ahead at a time: stays in L3
constexpr int64_t kPackingGrain = 1 << 15;    // elements packed by a task

// Panels packed ahead of the tasks, for columns (or rows) first to first + count: all of the first
// step of kDepth, panel by panel, then the next step.
template <class Kernel>
struct PackedPanels {
  typename Kernel::Packed* data = nullptr;
  int64_t first = 0, count = 0;

  template <int width>
  typename Kernel::Packed* panel(int64_t i, int64_t depth_start, int64_t depth) const {
    return data + depth_start * round_up(count, width) + (i - first) * Kernel::padded_depth(depth);
  }
};

template <class A, class B>
constexpr bool kSameType = false;
template <class A>
constexpr bool kSameType<A, A> = true;

// Where pack_weight puts a panel: as PackedPanels of all n columns.
template <class Kernel>
inline int64_t place_of_stored(int64_t n, int64_t column, int64_t depth_start, int64_t depth) {
  return depth_start * round_up(n, Kernel::kColumns) + column * Kernel::padded_depth(depth);
}

// Whether a kernel can leave sums in rows of a matrix, and c holds numbers of their kind: where the
// epilogue has nothing to do, they wait in c itself.
template <class Kernel, class G>
constexpr bool kSumsInPlace = false;
template <class Kernel>
constexpr bool kSumsInPlace<Kernel, float> = requires(Kernel k, float* c, int64_t stride) {
  k.multiply(0, {}, {}, 0, c, stride, false);
};

template <class Kernel, class F, class G>
struct Blocks {
  using Packed = typename Kernel::Packed;
  using PanelB = typename Kernel::PanelB;
  static constexpr int kRows = Kernel::kRows, kColumns = Kernel::kColumns;

  const Product<F, G>& product;
  PackedPanels<Kernel> packed_a, packed_b;

  // Scratch elements of a task, each part rounded to 64 bytes.
  static int64_t step_depth(int64_t k) { return Kernel::padded_depth(smaller(k, Kernel::kDepth)); }
  static int64_t bytes_of_a(int64_t rows, int64_t k) {
    return round_up(round_up(rows, kRows) * step_depth(k) * sizeof(Packed), 64);
  }
  static int64_t bytes_of_b(int64_t k) {
    return round_up(kColumns * step_depth(k) * sizeof(Packed), 64);
  }
  static int64_t bytes_of_sums(int64_t rows, int64_t columns, int64_t k) {
    return k <= Kernel::kDepth
               ? 0
               : round_up(rows, kRows) * round_up(columns, kColumns) * sizeof(float);
  }

  // Computes c[row...][column...] of size rows x columns. column_sums: columns floats, rounded up
  // to whole panels, that collect the block's, or nullptr. Returns false when scratch memory runs
  // out.
  bool run(Kernel& kernel, int64_t row, int64_t rows, int64_t column, int64_t columns,
           float* column_sums) const {
    if constexpr (Kernel::kOverlapsEpilogue) {
      return run_overlapped(kernel, row, rows, column, columns, column_sums);
    } else {
      return run_in_turn(kernel, row, rows, column, columns, column_sums);
    }
  }

 private:
  // Each tile of sums, then its epilogue.
  bool run_in_turn(Kernel& kernel, int64_t row, int64_t rows, int64_t column, int64_t columns,
                   float* column_sums) const {
    const Product<F, G>& p = product;
    const int64_t size_a = packed_a.data != nullptr ? 0 : bytes_of_a(rows, p.k),
                  size_b = bytes_of_b(p.k);
    char* scratch = (char*)thread_scratch(2, size_a + size_b + bytes_of_sums(rows, columns, p.k));
    if (scratch == nullptr) return false;
    Packed *own_a = (Packed*)scratch, *own_b = (Packed*)(scratch + size_a);
    float* sums = (float*)(scratch + size_a + size_b);
    alignas(64) float single[kRows * kColumns];
    const bool in_place = p.out.keeps_sums() && (p.k <= Kernel::kDepth || p.n <= kCloseColumns);

    for (int64_t start = 0; start == 0 || start < p.k; start += Kernel::kDepth) {
      const int64_t depth = smaller(Kernel::kDepth, p.k - start);
      const bool first = start == 0, last = start + depth >= p.k;
      if (packed_a.data == nullptr) pack_rows_of_a(own_a, start, depth, row, rows, columns);
      float* tile = first && last ? single : sums;
      for (int64_t j = 0; j < columns; j += kColumns) {
        const int held_columns = (int)smaller(kColumns, columns - j);
        const auto b = panel_b(own_b, start, depth, column + j, held_columns, rows);
        for (int64_t i = 0; i < rows; i += kRows) {
          const int held = (int)smaller(kRows, rows - i);
          if (packed_b.data != nullptr || (kSameType<F, Packed> && p.stored_b != nullptr))
            prefetch_share(b.data + kColumns * Kernel::padded_depth(depth), depth, i, rows);
          if (last) p.out.prefetch(row + i, column + j, held, held_columns);
          const auto a = panel_a(own_a, start, depth, row, i, held, columns);
          if constexpr (kSumsInPlace<Kernel, G>) {
            if (in_place && held_columns == kColumns) {
              kernel.multiply(depth, a, b, held, p.out.c + (row + i) * p.n + column + j, p.n,
                              !first);
              continue;
            }
          }
          bool done = false;
          if constexpr (Kernel::kWritesResults) {
            done = last && held_columns == kColumns && p.out.only_scales();
            if (done)
              kernel.multiply_into(p.out, row + i, column + j, depth, a, b, held,
                                   first ? nullptr : tile);
          }
          if (!done) kernel.multiply(depth, a, b, held, tile, !first);
          if (last && !done) {
            float* sums_here = column_sums == nullptr ? nullptr : column_sums + j;
            p.out.template finish<kColumns>(tile, row + i, column + j, held, held_columns,
                                            sums_here);
          }
          if (tile != single) tile += kRows * kColumns;
        }
      }
    }
    return true;
  }

  // A tile of sums on its way to c[row...][column...]; its first `done` rows are there.
  struct WaitingTile {
    float* sums;
    int64_t row, column;
    int rows = 0, columns;
    float* column_sums;
    int64_t done = 0;
  };
  VOLTAIC_INLINE void finish_rows(WaitingTile& tile, int64_t end) const {
    if (tile.done >= end) return;
    product.out.template finish<kColumns>(tile.sums + tile.done * kColumns, tile.row + tile.done,
                                          tile.column, (int)(end - tile.done), tile.columns,
                                          tile.column_sums);
    tile.done = end;
  }
  // For a kernel beside which the vector units are free: a tile's epilogue runs in parts between
  // the steps of the next tile. Where b's panels are packed, tiles follow each other along the rows
  // of c, which writes longer runs; where they are packed here, each serves all its tiles at once.
  bool run_overlapped(Kernel& kernel, int64_t row, int64_t rows, int64_t column, int64_t columns,
                      float* column_sums) const {
    static_assert(kRows == kColumns);  // either order reads as many panels
    const Product<F, G>& p = product;
    const bool several = p.k > Kernel::kDepth;
    const int64_t size_a = packed_a.data != nullptr ? 0 : bytes_of_a(rows, p.k),
                  size_b = bytes_of_b(p.k);
    char* scratch = (char*)thread_scratch(2, size_a + size_b + bytes_of_sums(rows, columns, p.k));
    if (scratch == nullptr) return false;
    Packed *own_a = (Packed*)scratch, *own_b = (Packed*)(scratch + size_a);
    alignas(64) float in_turn[2][kRows * kColumns];  // where k takes one step
    WaitingTile waiting;

    for (int64_t start = 0; start == 0 || start < p.k; start += Kernel::kDepth) {
      const int64_t depth = smaller(Kernel::kDepth, p.k - start);
      const bool last = start + depth >= p.k;
      if (packed_a.data == nullptr) pack_rows_of_a(own_a, start, depth, row, rows, columns);
      float* next = (float*)(scratch + size_a + size_b);
      int turn = 0;
      PanelB b;
      const auto tile = [&](int64_t i, int64_t j) {
        const int held = (int)smaller(kRows, rows - i),
                  held_columns = (int)smaller(kColumns, columns - j);
        float* const sums = several ? next : in_turn[turn];
        next += kRows * kColumns;
        turn = 1 - turn;
        if (last) p.out.prefetch(row + i, column + j, held, held_columns);
        kernel.multiply_overlapped(
            depth, panel_a(own_a, start, depth, row, i, held, columns), b, held, sums, start > 0,
            [&](int64_t part, int64_t parts)
                VOLTAIC_INLINED { finish_rows(waiting, waiting.rows * (part + 1) / parts); });
        finish_rows(waiting, waiting.rows);
        if (last)
          waiting = {sums, row + i,      column + j,
                     held, held_columns, column_sums == nullptr ? nullptr : column_sums + j};
      };
      if (b_is_packed()) {
        for (int64_t i = 0; i < rows; i += kRows)
          for (int64_t j = 0; j < columns; j += kColumns) {
            b = panel_b(own_b, start, depth, column + j, kColumns, rows);
            if (i + kRows < rows && reads_a(kRows, depth, columns))
              prefetch_rows_of_a(row + i + kRows, start, depth, j, columns);
            tile(i, j);
          }
      } else {
        for (int64_t j = 0; j < columns; j += kColumns) {
          b = panel_b(own_b, start, depth, column + j, (int)smaller(kColumns, columns - j), rows);
          for (int64_t i = 0; i < rows; i += kRows) tile(i, j);
        }
      }
    }
    finish_rows(waiting, waiting.rows);
    return true;
  }

  // Whether b's panels stand in memory, in the kernel's type.
  bool b_is_packed() const {
    return packed_b.data != nullptr || (kSameType<F, Packed> && product.stored_b != nullptr);
  }
  bool reads_a(int held, int64_t depth, int64_t columns) const {
    return Kernel::reads_a(product.a, product.transpose_a, held, depth, product.stride_a(), columns,
                           columns == product.n);
  }
  // Where elements of a panel are adjacent across k's, a few k's of all panels at a time: rows far
  // apart in memory share sets of the cache.
  void pack_rows_of_a(Packed* own, int64_t start, int64_t depth, int64_t row, int64_t rows,
                      int64_t columns) const {
    const Product<F, G>& p = product;
    const int64_t most = p.transpose_a ? Kernel::kPackingSteps : depth;
    for (int64_t inner = 0; inner < depth; inner += most)
      for (int64_t i = 0; i < rows; i += kRows) {
        const int held = (int)smaller(kRows, rows - i);
        if (reads_a(held, depth, columns)) continue;
        Kernel::pack_a(own + i * Kernel::padded_depth(depth) + inner * kRows,
                       p.at_a(row + i, start + inner), p.stride_a(), p.transpose_a, held,
                       smaller(most, depth - inner));
      }
  }
  // The next panel of b comes to L2 while this one is used, a share under each panel of a.
  static void prefetch_share(const Packed* next, int64_t depth, int64_t i, int64_t rows) {
    const int64_t share =
        divide_up(kColumns * depth * (int64_t)sizeof(Packed), divide_up(rows, kRows));
    const char* from = (const char*)next + i / kRows * share;
    for (int64_t at = 0; at < share; at += 64) __builtin_prefetch(from + at, 0, 2);
  }
  // The same for the next panel of an a that is read where it stands.
  void prefetch_rows_of_a(int64_t row, int64_t start, int64_t depth, int64_t j,
                          int64_t columns) const {
    const int64_t share = divide_up(kRows, divide_up(columns, kColumns)),
                  first = smaller(kRows, j / kColumns * share),
                  end = smaller(product.m - row, smaller(kRows, first + share));
    for (int64_t i = first; i < end; i++) {
      const char* from = (const char*)product.at_a(row + i, start);
      for (int64_t at = 0; at < depth * (int64_t)sizeof(F); at += 64)
        __builtin_prefetch(from + at, 0, 2);
    }
  }
  auto panel_a(const Packed* own, int64_t start, int64_t depth, int64_t row, int64_t i, int held,
               int64_t columns) const {
    const Product<F, G>& p = product;
    if (packed_a.data != nullptr)
      return Kernel::packed_a(packed_a.template panel<kRows>(row + i, start, depth));
    if (reads_a(held, depth, columns))
      return Kernel::direct_a(p.at_a(row + i, start), p.stride_a(), p.transpose_a);
    return Kernel::packed_a(own + i * Kernel::padded_depth(depth));
  }
  // Plain fp32 rows of b serve as they are when a panel is used only a few times.
  auto panel_b(Packed* own, int64_t start, int64_t depth, int64_t column, int held,
               int64_t rows) const {
    const Product<F, G>& p = product;
    if (packed_b.data != nullptr)
      return Kernel::packed_b(packed_b.template panel<kColumns>(column, start, depth));
    if (p.stored_b != nullptr) {
      const F* stored = p.stored_b + place_of_stored<Kernel>(p.n, column, start, depth);
      if constexpr (kSameType<F, Packed>) {
        return Kernel::packed_b(stored);
      } else {
        for (int64_t i = 0; i < kColumns * depth; i += kWidth) store(own + i, load(stored + i));
        return Kernel::packed_b(own);
      }
    }
    if (rows <= 2 * kRows && Kernel::reads_b(p.b, p.transpose_b, held))
      return Kernel::direct_b(p.at_b(start, column), p.stride_b());
    Kernel::pack_b(own, p.at_b(start, column), p.stride_b(), p.transpose_b, held, depth);
    return Kernel::packed_b(own);
  }
};

// Packs panels of op(a) (is_b false) or op(b) for rows or columns first to first + count into to,
// by all threads. A task takes one step of kDepth of a few panels. Where elements are adjacent
// along k these are read a panel at a time; where they are adjacent across panels, many panels are,
// a few k's at a time, so that memory is read in long runs.
template <class Kernel, bool is_b, class F, class G>
inline PackedPanels<Kernel> pack_ahead(const Product<F, G>& p, int64_t first, int64_t count,
                                       typename Kernel::Packed* to) {
  constexpr int width = is_b ? Kernel::kColumns : Kernel::kRows;
  const PackedPanels<Kernel> packed{to, first, count};
  const bool along_depth = is_b ? p.transpose_b : !p.transpose_a;
  const int64_t panels = divide_up(count, width);
  const int64_t most = along_depth ? Kernel::kDepth : Kernel::kPackingSteps;
  const int64_t together =
      divide_up(kPackingGrain, width * larger(1, smaller(p.k, Kernel::kDepth)));
  const int64_t groups = divide_up(panels, together);
  parallel_for(groups * divide_up(p.k, Kernel::kDepth), [&](int64_t task) {
    const int64_t begin = task % groups * together, end = smaller(panels, begin + together);
    const int64_t start = task / groups * Kernel::kDepth,
                  depth = smaller(Kernel::kDepth, p.k - start);
    for (int64_t inner = 0; inner < depth; inner += most)
      for (int64_t i = begin; i < end; i++) {
        const int64_t at = first + i * width, steps = smaller(most, depth - inner);
        const int held = (int)smaller(width, count - i * width);
        auto* panel = packed.template panel<width>(at, start, depth) + inner * width;
        if constexpr (is_b) {
          Kernel::pack_b(panel, p.at_b(start + inner, at), p.stride_b(), p.transpose_b, held,
                         steps);
        } else {
          Kernel::pack_a(panel, p.at_a(at, start + inner), p.stride_a(), p.transpose_a, held,
                         steps);
        }
      }
  });
  return packed;
}

// Packs all of op(b) for products to come, by all threads; a task takes one step of kDepth of a
// panel. Returns false when scratch memory runs out.
template <class Kernel, class F>
inline bool pack_stored(const F* b, int64_t n, int64_t k, bool transposed, F* to) {
  using Packed = typename Kernel::Packed;
  static_assert(Kernel::kColumns <= kMostPanelColumns && Kernel::kDepth % kPackedDepthUnit == 0);
  Product<F, F> p = {};
  p.n = n;
  p.k = k;
  p.transpose_b = transposed;
  p.b = b;
  if constexpr (kSameType<F, Packed>) {
    pack_ahead<Kernel, true>(p, 0, n, to);
    return true;
  } else {
    constexpr int64_t kColumns = Kernel::kColumns;
    const int64_t panels = divide_up(n, kColumns);
    bool out_of_memory = false;
    parallel_for(panels * divide_up(k, Kernel::kDepth), [&](int64_t task) {
      const int64_t column = task % panels * kColumns, start = task / panels * Kernel::kDepth,
                    depth = smaller(Kernel::kDepth, k - start);
      auto* own = (Packed*)thread_scratch(2, kColumns * depth * sizeof(Packed));
      if (own == nullptr) return __atomic_store_n(&out_of_memory, true, __ATOMIC_RELAXED);
      Kernel::pack_b(own, p.at_b(start, column), p.stride_b(), transposed,
                     (int)smaller(kColumns, n - column), depth);
      F* stored = to + place_of_stored<Kernel>(n, column, start, depth);
      for (int64_t i = 0; i < kColumns * depth; i += kWidth) store(stored + i, load(own + i));
    });
    return !out_of_memory;
  }
}

// Runs one product on all threads. partial_sums: divide_up(m, cut.rows) rows of padded_columns
// floats, zeroed, or nullptr.
template <class Kernel, class F, class G>
inline bool multiply_in_tasks(const Product<F, G>& p, Cut cut, float* partial_sums,
                              int64_t padded_columns) {
  const int64_t row_blocks = divide_up(p.m, cut.rows), padded_k = Kernel::padded_depth(p.k);
  const bool squarely = p.transpose_a && Kernel::kSquareBlocks;
  const bool b_ahead = row_blocks > (squarely ? kFewBlocks : 1) && p.stored_b == nullptr;
  const bool a_ahead = squarely ? divide_up(p.n, cut.columns) >= kFewBlocks
                                : cut.columns < kWideBlock && cut.columns < p.n &&
                                      !Kernel::reads_a(p.a, p.transpose_a, Kernel::kRows, p.k,
                                                       p.stride_a(), cut.columns, false);
  // A wide b packs and multiplies a stretch of columns at a time.
  int64_t stretch = round_up(p.n, cut.columns);
  if (b_ahead && stretch * padded_k > kPackedElements)
    stretch = larger(1, kPackedElements / padded_k / cut.columns) * cut.columns;

  using Packed = typename Kernel::Packed;
  Blocks<Kernel, F, G> blocks{p, {}, {}};
  if (a_ahead) {
    auto* to = (Packed*)thread_scratch(1, round_up(p.m, Kernel::kRows) * padded_k * sizeof(Packed));
    if (to == nullptr) return false;
    blocks.packed_a = pack_ahead<Kernel, false>(p, 0, p.m, to);
  }
  Packed* to_b = nullptr;
  if (b_ahead) {
    to_b = (Packed*)thread_scratch(0, stretch * padded_k * sizeof(Packed));
    if (to_b == nullptr) return false;
  }
  bool out_of_memory = false;
  for (int64_t first = 0; first < p.n; first += stretch) {
    const int64_t width = smaller(stretch, p.n - first),
                  column_blocks = divide_up(width, cut.columns);
    if (b_ahead) blocks.packed_b = pack_ahead<Kernel, true>(p, first, width, to_b);
    parallel_for(row_blocks * column_blocks, [&](int64_t task) {
      const int64_t row = task / column_blocks * cut.rows,
                    column = first + task % column_blocks * cut.columns;
      float* sums = partial_sums == nullptr
                        ? nullptr
                        : partial_sums + row / cut.rows * padded_columns + column;
      Kernel kernel;
      if (!blocks.run(kernel, row, smaller(cut.rows, p.m - row), column,
                      smaller(cut.columns, first + width - column), sums))
        __atomic_store_n(&out_of_memory, true, __ATOMIC_RELAXED);
    });
  }
  return !out_of_memory;
}

// Runs one small product on the calling thread, as one of many.
template <class Kernel, class F, class G>
inline bool multiply_alone(Kernel& kernel, const Product<F, G>& p, Cut cut, float* partial_sums,
                           int64_t padded_columns) {
  const Blocks<Kernel, F, G> blocks{p, {}, {}};
  for (int64_t row = 0; row < p.m; row += cut.rows)
    for (int64_t column = 0; column < p.n; column += cut.columns) {
      float* sums = partial_sums == nullptr
                        ? nullptr
                        : partial_sums + row / cut.rows * padded_columns + column;
      if (!blocks.run(kernel, row, smaller(cut.rows, p.m - row), column,
                      smaller(cut.columns, p.n - column), sums))
        return false;
    }
  return true;
}

}  // namespace
}  // namespace voltaic
