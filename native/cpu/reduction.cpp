// Sum, mean and maximum over any axes, and the index of the largest along the last axis.
//
//   y[kept] = sum | mean | max of x over the reduced axes
//   argmax: the first largest of the last axis; NaN counts as largest
//
// Axes of size 1 go and neighbours of one kind become one axis, so two loops serve every case:
//   runs      the last axis is reduced: contiguous runs are summed in vector accumulators
//   columns   the last axis is kept: rows are added to a row of accumulators, four at a time
// Bytes: x once, y once; one operation an element: memory speed (one Zen 3 core: fp32 22 to 40
// GB/s, bf16 13 to 17; rows of a few elements cost some 25 ns each).
//
// Deterministic, and independent of how many results there are: the elements of one result, in
// row-major order, are cut into chunks of fixed length (kRunChunk elements; kColumnChunk rows). A
// chunk gives an fp32 partial; the partials are added in order in double precision, which keeps
// long sums exact to the last bits. Chunks of all results together are cut into tasks, so that one
// long sum uses all threads as well as many short ones. Empty sums are 0, empty means NaN; an empty
// maximum is refused.
#include "../engine/reduction_plan.h"
#include "kernel.h"

namespace voltaic {
namespace {

constexpr int64_t kRunChunk = 4096;    // elements; partials take 1/4096 of the input's size at most
constexpr int64_t kColumnChunk = 256;  // rows
constexpr int64_t kColumnTile = 1024;  // columns: the accumulators (4 KB) stay in L1
constexpr int64_t kTaskElements = 32768;  // some 10 us of work

struct Sum {
  static constexpr float kIdentity = 0;
  static constexpr bool kEmptyHasResult = true;
  static vfloat combine(vfloat a, vfloat b) { return a + b; }
  template <class T>
  static T combine_scalars(T a, T b) {
    return a + b;
  }
};
struct Max {
  static constexpr float kIdentity = -__builtin_inff();
  static constexpr bool kEmptyHasResult = false;
  static vfloat combine(vfloat a, vfloat b) { return select((a > b) | (a != a), a, b); }
  template <class T>
  static T combine_scalars(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

// The first n lanes of a vector, the others the operation's identity.
template <class Op, class T>
VOLTAIC_INLINE vfloat load_or_identity(const T* from, int64_t n) {
  vint lane;
  for (int i = 0; i < kWidth; i++) lane[i] = i;
  return select(lane < (int32_t)n, load_partial(from, n), splat(Op::kIdentity));
}

// n contiguous elements, into four accumulators.
template <class Op, class T>
VOLTAIC_INLINE void reduce_run(const T* from, int64_t n, vfloat (&sums)[4]) {
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int j = 0; j < 4; j++) sums[j] = Op::combine(sums[j], load(from + i + j * kWidth));
  for (int j = 0; j < 4; j++) {
    const int64_t rest = n - i - j * kWidth;
    if (rest <= 0) break;
    const T* at = from + i + j * kWidth;
    sums[j] = Op::combine(sums[j], rest >= kWidth ? load(at) : load_or_identity<Op>(at, rest));
  }
}

template <class Op>
float reduce_lanes(vfloat x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] = Op::combine_scalars(lanes[i], lanes[i + half]);
  return lanes[0];
}

// Elements begin .. end - 1, in row-major order, of the result whose elements start at x.
template <class Op, class T>
float reduce_chunk(const ReductionPlan& plan, const T* x, int64_t begin, int64_t end) {
  vfloat sums[4];
  for (vfloat& sum : sums) sum = splat(Op::kIdentity);
  if (plan.reduced.rank == 0) {
    reduce_run<Op>(x + begin, end - begin, sums);
  } else {
    while (begin < end) {
      const int64_t at = begin % plan.inner, run = smaller(plan.inner - at, end - begin);
      reduce_run<Op>(x + plan.reduced.offset(begin / plan.inner) + at, run, sums);
      begin += run;
    }
  }
  return reduce_lanes<Op>(
      Op::combine(Op::combine(sums[0], sums[1]), Op::combine(sums[2], sums[3])));
}

template <class Op, class T>
voltaic_status reduce_runs(const voltaic_call* call, const ReductionPlan& plan, const T* x, T* y,
                           double divisor) {
  const int64_t results = plan.kept.count(), length = plan.reduced.count() * plan.inner;
  const int64_t chunks = divide_up(length, kRunChunk),
                grain = kTaskElements / smaller(length, kRunChunk);
  if (chunks == 1) {
    parallel_ranges(results, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        put(y + i, (float)(reduce_chunk<Op>(plan, x + plan.kept.offset(i), 0, length) / divisor));
    });
    return VOLTAIC_OK;
  }
  float* partials = (float*)thread_scratch(0, (size_t)(results * chunks) * sizeof(float));
  if (!partials)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "reduction: no memory for partial results");
  parallel_ranges(results * chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i % chunks * kRunChunk;
      partials[i] = reduce_chunk<Op>(plan, x + plan.kept.offset(i / chunks), first,
                                     smaller(length, first + kRunChunk));
    }
  });
  parallel_ranges(results, divide_up(kTaskElements, chunks), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      double total = Op::kIdentity;
      for (int64_t c = 0; c < chunks; c++)
        total = Op::combine_scalars(total, (double)partials[i * chunks + c]);
      put(y + i, (float)(total / divisor));
    }
  });
  return VOLTAIC_OK;
}

// The rows begin .. end - 1 of `columns` columns from x on, into sums.
template <class Op, class T>
void reduce_rows(const ReductionPlan& plan, const T* x, int64_t begin, int64_t end, int64_t columns,
                 float* sums) {
  for (int64_t i = 0; i < columns; i++) sums[i] = Op::kIdentity;
  auto row = [&](int64_t r) { return x + plan.reduced.offset(r); };
  int64_t r = begin;
  for (; r + 4 <= end; r += 4) {
    const T *a = row(r), *b = row(r + 1), *c = row(r + 2), *d = row(r + 3);
    int64_t i = 0;
    for (; i + kWidth <= columns; i += kWidth)
      store(sums + i,
            Op::combine(load(sums + i), Op::combine(Op::combine(load(a + i), load(b + i)),
                                                    Op::combine(load(c + i), load(d + i)))));
    for (; i < columns; i++)
      sums[i] = Op::combine_scalars(
          sums[i], Op::combine_scalars(Op::combine_scalars(to_float(a[i]), to_float(b[i])),
                                       Op::combine_scalars(to_float(c[i]), to_float(d[i]))));
  }
  for (; r < end; r++) {
    const T* a = row(r);
    int64_t i = 0;
    for (; i + kWidth <= columns; i += kWidth)
      store(sums + i, Op::combine(load(sums + i), load(a + i)));
    for (; i < columns; i++) sums[i] = Op::combine_scalars(sums[i], to_float(a[i]));
  }
}

template <class Op, class T>
voltaic_status reduce_columns(const voltaic_call* call, const ReductionPlan& plan, const T* x, T* y,
                              double divisor) {
  const int64_t outer = plan.kept.count(), width = plan.inner, rows = plan.reduced.count();
  const int64_t chunks = divide_up(rows, kColumnChunk), tiles = divide_up(width, kColumnTile);
  const int64_t unit = smaller(rows, kColumnChunk) * smaller(width, kColumnTile);
  float* partials = nullptr;
  if (chunks > 1) {
    partials = (float*)thread_scratch(0, (size_t)(outer * chunks * width) * sizeof(float));
    if (!partials)
      return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "reduction: no memory for partial results");
  }
  parallel_ranges(outer * chunks * tiles, kTaskElements / unit, [&](int64_t begin, int64_t end) {
    alignas(64) float sums[kColumnTile];
    for (int64_t i = begin; i < end; i++) {
      const int64_t tile = i % tiles, chunk = i / tiles % chunks, k = i / tiles / chunks;
      const int64_t column = tile * kColumnTile, columns = smaller(kColumnTile, width - column);
      const int64_t first = chunk * kColumnChunk, last = smaller(rows, first + kColumnChunk);
      float* to = chunks > 1 ? partials + (k * chunks + chunk) * width + column : sums;
      reduce_rows<Op>(plan, x + plan.kept.offset(k) + column, first, last, columns, to);
      if (chunks > 1) continue;
      for (int64_t j = 0; j < columns; j++)
        put(y + k * width + column + j, (float)(sums[j] / divisor));
    }
  });
  if (chunks == 1) return VOLTAIC_OK;
  constexpr int64_t kTotals = 64;  // columns of one result row that are added up together
  const int64_t groups = divide_up(width, kTotals);
  parallel_ranges(outer * groups, divide_up(kTaskElements, chunks * kTotals),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; i++) {
                      const int64_t k = i / groups, column = i % groups * kTotals,
                                    columns = smaller(kTotals, width - column);
                      double totals[kTotals];
                      for (double& total : totals) total = Op::kIdentity;
                      for (int64_t c = 0; c < chunks; c++)
                        for (int64_t j = 0; j < columns; j++)
                          totals[j] = Op::combine_scalars(
                              totals[j], (double)partials[(k * chunks + c) * width + column + j]);
                      for (int64_t j = 0; j < columns; j++)
                        put(y + k * width + column + j, (float)(totals[j] / divisor));
                    }
                  });
  return VOLTAIC_OK;
}

template <class Op>
voltaic_status reduce(const voltaic_call* call, const char* op, bool mean) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  ReductionPlan plan;
  const voltaic_status status = plan_reduction(call, op, Op::kEmptyHasResult, plan);
  if (status != VOLTAIC_OK || y.elements == 0) return status;
  return with_float(x.dtype, [&](auto* kind) {
    typedef decltype(kind) Pointer;
    auto* to = (Pointer)y.data;
    if (x.elements == 0) {
      for (int64_t i = 0; i < y.elements; i++) put(to + i, mean ? __builtin_nanf("") : 0.0f);
      return VOLTAIC_OK;
    }
    const auto* from = (Pointer)x.data;
    const double divisor = mean ? (double)(x.elements / y.elements) : 1;
    return plan.inner_is_reduced ? reduce_runs<Op>(call, plan, from, to, divisor)
                                 : reduce_columns<Op>(call, plan, from, to, divisor);
  });
}

voltaic_status sum(const voltaic_call* call) { return reduce<Sum>(call, "sum", false); }
voltaic_status mean(const voltaic_call* call) { return reduce<Sum>(call, "mean", true); }
voltaic_status max(const voltaic_call* call) { return reduce<Max>(call, "max", false); }

bool any_lane(vint mask) {
  int32_t lanes[kWidth], any = 0;
  store_int(lanes, mask);
  for (int i = 0; i < kWidth; i++) any |= lanes[i];
  return any != 0;
}

// The largest value first, then its first place: the second pass finds the row in the cache.
template <class T>
int32_t first_largest(const T* row, int64_t width) {
  vfloat sums[4];
  for (vfloat& best : sums) best = splat(Max::kIdentity);
  reduce_run<Max>(row, width, sums);
  const float largest = reduce_lanes<Max>(
      Max::combine(Max::combine(sums[0], sums[1]), Max::combine(sums[2], sums[3])));
  for (int64_t i = 0; i < width; i += kWidth) {
    const int64_t n = smaller(kWidth, width - i);
    const vfloat values = load_partial(row + i, n);
    if (!any_lane((values == largest) | (values != values))) continue;
    for (int64_t j = i; j < i + n; j++) {
      const float value = to_float(row[j]);
      if (value == largest || value != value) return (int32_t)j;
    }
  }
  return 0;
}

voltaic_status argmax(const voltaic_call* call) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  const voltaic_status status = check_argmax(call);
  if (status != VOLTAIC_OK || y.elements == 0) return status;
  const int64_t width = x.shape[x.rank - 1];
  return with_float(x.dtype, [&](auto* kind) {
    const auto* from = (decltype(kind))x.data;
    int32_t* to = (int32_t*)y.data;
    parallel_ranges(y.elements, kTaskElements / width, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) to[i] = first_largest(from + i * width, width);
    });
    return VOLTAIC_OK;
  });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(reduction, {"sum", voltaic::sum}, {"mean", voltaic::mean}, {"max", voltaic::max},
                {"argmax", voltaic::argmax})
