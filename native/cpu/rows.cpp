// Moving data: rows by index and back, axes in another order, slices.
//
//   gather_rows       y[i, :] = x[index[i], :]
//   scatter_add_rows  x[index[i], :] += y[i, :]
//   permute           y's axis d is x's axis axis_d
//   slice             y = x[start : start + n] along an axis; slice_assign writes the other way
//
// Bytes: what is moved is read once and written once; no arithmetic but scatter_add's addition, in
// fp32.
//
// scatter_add_rows sorts the indices (radix, stable) and gives each destination row to one
// task, which adds the rows in ascending i and rounds once: no atomics, the same bits for any
// number of threads, and little work where few of many rows are touched.
// permute collapses the axes; runs that stay contiguous are copied, all else is a batch of
// transpositions of 64 x 64 tiles, built from squares of 16 bytes a side in registers (2048 x 2048
// fp32 on one Zen 3 core: 11 GB/s, with a plain copy at 25).
#include "../engine/rows_plan.h"
#include "kernel.h"

namespace voltaic {
namespace {

constexpr int64_t kTaskBytes = 65536;  // some 10 us of copying

// ---- runs of bytes
VOLTAIC_INLINE void copy_run(char* to, const char* from, int64_t bytes) {
  if (bytes == 4)
    memcpy(to, from, 4);
  else if (bytes == 2)
    memcpy(to, from, 2);
  else
    memcpy(to, from, (size_t)bytes);
}

// Copies `runs` runs of bytes; the places of run i come from places(i, &to, &from). Long runs are
// cut.
template <class Places>
void copy_runs(int64_t runs, int64_t bytes, const Places& places) {
  if (runs <= 0 || bytes <= 0) return;
  const int64_t pieces = divide_up(bytes, kTaskBytes);
  parallel_ranges(runs * pieces, kTaskBytes / smaller(bytes, kTaskBytes),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; i++) {
                      char* to;
                      const char* from;
                      places(i / pieces, &to, &from);
                      const int64_t first = i % pieces * kTaskBytes;
                      copy_run(to + first, from + first, smaller(kTaskBytes, bytes - first));
                    }
                  });
}

// ---- rows by index
voltaic_status check_indices(const voltaic_call* call, const char* op, const int32_t* index,
                             int64_t n, int64_t rows) {
  for (int64_t i = 0; i < n; i++)
    if (index[i] < 0 || index[i] >= rows)
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "%s: index[%lld] is %d, expected 0 to %lld (x has %lld rows)", op, (long long)i,
                  index[i], (long long)rows - 1, (long long)rows);
  return VOLTAIC_OK;
}

voltaic_status gather_rows(const voltaic_call* call) {
  const voltaic_tensor& x = tensor(call, 0);
  const int32_t* index = data<int32_t>(call, 1);
  const int64_t n = tensor(call, 1).elements, row = x.shape[1] * element_size(x.dtype);
  const voltaic_status status = check_indices(call, "gather_rows", index, n, x.shape[0]);
  if (status != VOLTAIC_OK) return status;
  copy_runs(n, row, [&](int64_t i, char** to, const char** from) {
    *to = data<char>(call, 2) + i * row;
    *from = data<char>(call, 0) + index[i] * row;
  });
  return VOLTAIC_OK;
}

// order: 0 .. n - 1 sorted by (index, i), by 11 bits at a time. Both arrays hold n; returns the
// sorted one.
int32_t* sort_by_index(const int32_t* index, int64_t n, int64_t rows, int32_t* order,
                       int32_t* other) {
  constexpr int kBits = 11;
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  for (int shift = 0; shift < 31 && (rows - 1) >> shift > 0; shift += kBits) {
    int32_t starts[1 << kBits] = {};
    const int32_t mask = (1 << kBits) - 1;
    for (int64_t i = 0; i < n; i++) starts[index[i] >> shift & mask]++;
    int32_t sum = 0;
    for (int32_t& start : starts) {
      const int32_t count = start;
      start = sum;
      sum += count;
    }
    for (int64_t i = 0; i < n; i++) other[starts[index[order[i]] >> shift & mask]++] = order[i];
    int32_t* const sorted = other;
    other = order;
    order = sorted;
  }
  return order;
}

constexpr int64_t kColumnTile = 512;  // the accumulators (2 KB) stay in L1
constexpr int64_t kAhead = 4;         // rows fetched early: their places are random

// x[destination] += the rows order[0 .. count - 1] of y, in that order, for `columns` columns.
template <class X, class Y>
void add_rows(X* x, const Y* y, int64_t width, int64_t columns, const int32_t* order,
              int64_t count) {
  alignas(64) float sums[kColumnTile];
  int64_t c = 0;
  for (; c < columns; c += kWidth) store(sums + c, load_partial(x + c, columns - c));
  for (int64_t i = 0; i < count; i++) {
    const Y* row = y + order[i] * width;
    if (i + kAhead < count) {
      const char* ahead = (const char*)(y + order[i + kAhead] * width);
      for (int64_t b = 0; b < columns * (int64_t)sizeof(Y); b += 64) __builtin_prefetch(ahead + b);
    }
    for (c = 0; c < columns; c += kWidth)
      store(sums + c, load(sums + c) + load_partial(row + c, columns - c));
  }
  for (c = 0; c < columns; c += kWidth) store_partial(x + c, load(sums + c), columns - c);
}

voltaic_status scatter_add_rows(const voltaic_call* call) {
  const voltaic_tensor &y = tensor(call, 0), &x = tensor(call, 2);
  const int32_t* index = data<int32_t>(call, 1);
  const int64_t n = y.shape[0], width = y.shape[1];
  voltaic_status status = check_indices(call, "scatter_add_rows", index, n, x.shape[0]);
  if (status != VOLTAIC_OK || y.elements == 0) return status;
  if (n > INT32_MAX)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "scatter_add_rows: %lld rows, expected %d at most",
                (long long)n, INT32_MAX);
  int32_t* scratch = (int32_t*)thread_scratch(0, (size_t)n * 2 * sizeof(int32_t));
  if (!scratch)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY,
                "scatter_add_rows: no memory to sort %lld indices", (long long)n);
  const int32_t* order = sort_by_index(index, n, x.shape[0], scratch, scratch + n);
  const int64_t tiles = divide_up(width, kColumnTile);
  const int64_t slots =
      larger(1, kTaskBytes / 4 / smaller(width, kColumnTile));  // sorted places a task looks after
  return with_float(x.dtype, [&](auto* x_kind) {
    return with_float(y.dtype, [&](auto* y_kind) {
      auto* to = (decltype(x_kind))x.data;
      const auto* from = (decltype(y_kind))y.data;
      parallel_for(divide_up(n, slots) * tiles, [&](int64_t task) {
        const int64_t column = task % tiles * kColumnTile,
                      columns = smaller(kColumnTile, width - column);
        const int64_t end = smaller(n, (task / tiles + 1) * slots);
        int64_t i = task / tiles * slots;
        // A destination belongs to the task in which its first row stands.
        while (i > 0 && i < end && index[order[i]] == index[order[i - 1]]) i++;
        while (i < end) {
          const int64_t destination = index[order[i]];
          int64_t next = i + 1;
          while (next < n && index[order[next]] == destination) next++;
          add_rows(to + destination * width + column, from + column, width, columns, order + i,
                   next - i);
          i = next;
        }
      });
      return VOLTAIC_OK;
    });
  });
}

// ---- permute
typedef uint32_t words __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));
VOLTAIC_INLINE words vector_of(uint32_t) { return words{}; }
VOLTAIC_INLINE halves vector_of(uint16_t) { return halves{}; }
VOLTAIC_INLINE bytes vector_of(uint8_t) { return bytes{}; }

// a0 b0 a1 b1 ..., from the lower or the upper half of a and b.
VOLTAIC_INLINE words low_pairs(words a, words b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
VOLTAIC_INLINE words high_pairs(words a, words b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
VOLTAIC_INLINE halves low_pairs(halves a, halves b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
VOLTAIC_INLINE halves high_pairs(halves a, halves b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
VOLTAIC_INLINE bytes low_pairs(bytes a, bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
VOLTAIC_INLINE bytes high_pairs(bytes a, bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}

// A square of 16 bytes a side, in registers: y[j, i] = x[i, j]. A round interleaves the upper rows
// with the lower, which turns the bits of an element's place by one; after log2(side) rounds, row
// and column have changed places.
template <class T>
VOLTAIC_INLINE void transpose_square(const T* x, int64_t x_stride, T* y, int64_t y_stride) {
  typedef decltype(vector_of(T{})) Vector;
  constexpr int kSide = 16 / sizeof(T);
  Vector rows[kSide], next[kSide];
  for (int i = 0; i < kSide; i++) rows[i] = *(const Vector*)(x + i * x_stride);
  for (int round = 1; round < kSide; round *= 2) {
    for (int i = 0; i < kSide / 2; i++) {
      next[2 * i] = low_pairs(rows[i], rows[i + kSide / 2]);
      next[2 * i + 1] = high_pairs(rows[i], rows[i + kSide / 2]);
    }
    for (int i = 0; i < kSide; i++) rows[i] = next[i];
  }
  for (int i = 0; i < kSide; i++) *(Vector*)(y + i * y_stride) = rows[i];
}

constexpr int64_t kTile = 64;

// y[j, i] = x[i, j] for i < rows, j < columns, at most kTile each. Goes by strips as wide as a
// cache line, through a buffer: each line of x and y is touched once, so strides of a power of two,
// whose lines share a cache set, do no harm.
template <class T>
void transpose_tile(const T* x, int64_t x_stride, int64_t rows, int64_t columns, T* y,
                    int64_t y_stride) {
  constexpr int64_t kSide = 16 / sizeof(T), kStrip = 64 / sizeof(T);
  alignas(64) T strip[kStrip][kTile];
  for (int64_t first = 0; first < columns; first += kStrip) {
    const int64_t n = smaller(kStrip, columns - first);
    const T* from = x + first;
    int64_t i = 0;
    for (; i + kSide <= rows; i += kSide) {
      int64_t j = 0;
      for (; j + kSide <= n; j += kSide)
        transpose_square(from + i * x_stride + j, x_stride, &strip[j][i], kTile);
      for (; j < n; j++)
        for (int64_t k = i; k < i + kSide; k++) strip[j][k] = from[k * x_stride + j];
    }
    for (; i < rows; i++)
      for (int64_t j = 0; j < n; j++) strip[j][i] = from[i * x_stride + j];
    for (int64_t j = 0; j < n; j++)
      memcpy(y + (first + j) * y_stride, strip[j], (size_t)rows * sizeof(T));
  }
}

// Batches of 2D transpositions: x is contiguous along `axis` of y, y along its innermost.
template <class T>
void transpose(const Permutation& plan, const T* x, T* y) {
  int axis = 1;
  while (plan.from[axis] != 1) axis++;
  const int64_t rows = plan.sizes[0], columns = plan.sizes[axis];
  const int64_t row_tiles = divide_up(rows, kTile), column_tiles = divide_up(columns, kTile);
  int64_t batches = 1;
  for (int d = 1; d < plan.rank; d++) batches *= d == axis ? 1 : plan.sizes[d];
  const int64_t tile = smaller(rows, kTile) * smaller(columns, kTile) * (int64_t)sizeof(T);
  parallel_ranges(
      batches * row_tiles * column_tiles, kTaskBytes / tile, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          const int64_t row = i % row_tiles * kTile, column = i / row_tiles % column_tiles * kTile;
          int64_t rest = i / row_tiles / column_tiles;
          int64_t from = row * plan.from[0] + column, to = row + column * plan.to[axis];
          for (int d = 1; d < plan.rank; d++) {
            if (d == axis) continue;
            const int64_t coordinate = rest % plan.sizes[d];
            rest /= plan.sizes[d];
            from += coordinate * plan.from[d];
            to += coordinate * plan.to[d];
          }
          transpose_tile(x + from, plan.from[0], smaller(kTile, rows - row),
                         smaller(kTile, columns - column), y + to, plan.to[axis]);
        }
      });
}

voltaic_status permute(const voltaic_call* call) {
  Permutation plan;
  const voltaic_status status = plan_permute(call, plan);
  if (status != VOLTAIC_OK || tensor(call, 0).elements == 0) return status;
  const int64_t size = element_size(tensor(call, 0).dtype);
  char* const y = data<char>(call, 1);
  const char* const x = data<char>(call, 0);
  if (plan.rank == 0 || plan.from[0] == 1) {
    const int64_t run = (plan.rank == 0 ? 1 : plan.sizes[0]) * size;
    copy_runs(tensor(call, 0).elements * size / run, run,
              [&](int64_t i, char** to, const char** from) {
                *to = y + i * run;
                int64_t offset = 0;
                for (int d = 1; d < plan.rank; d++) {
                  offset += i % plan.sizes[d] * plan.from[d];
                  i /= plan.sizes[d];
                }
                *from = x + offset * size;
              });
    return VOLTAIC_OK;
  }
  return with_element_size(size, [&](auto* kind) {
    transpose(plan, (decltype(kind))x, (decltype(kind))y);
    return VOLTAIC_OK;
  });
}

// ---- slices
voltaic_status copy_slice(const voltaic_call* call, const char* op,
                          const voltaic_tensor& whole_tensor, const voltaic_tensor& part,
                          bool assign) {
  Slice plan;
  const voltaic_status status = plan_slice(call, op, whole_tensor, part, plan);
  if (status != VOLTAIC_OK || part.elements == 0) return status;
  char* const whole_data = (char*)whole_tensor.data + plan.start;
  char* const part_data = (char*)part.data;
  copy_runs(plan.runs, plan.run, [&](int64_t i, char** to, const char** from) {
    char* const in_whole = whole_data + i * plan.stride;
    char* const in_part = part_data + i * plan.run;
    *to = assign ? in_whole : in_part;
    *from = assign ? in_part : in_whole;
  });
  return VOLTAIC_OK;
}

voltaic_status slice(const voltaic_call* call) {
  return copy_slice(call, "slice", tensor(call, 0), tensor(call, 1), false);
}
voltaic_status slice_assign(const voltaic_call* call) {
  return copy_slice(call, "slice_assign", tensor(call, 1), tensor(call, 0), true);
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(rows, {"gather_rows", voltaic::gather_rows},
                {"scatter_add_rows", voltaic::scatter_add_rows}, {"permute", voltaic::permute},
                {"slice", voltaic::slice}, {"slice_assign", voltaic::slice_assign})
