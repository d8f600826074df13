// Reductions over any axes against plain double-precision sums.
#include <algorithm>
#include <cmath>
#include <limits>

#include "harness.h"

using namespace voltaic::test;

namespace {

using Shape = std::vector<int64_t>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool reduced(uint32_t axes, size_t d) { return (axes >> d & 1) != 0; }

Shape kept_shape(const Shape& shape, uint32_t axes) {
  Shape kept;
  for (size_t d = 0; d < shape.size(); d++)
    if (!reduced(axes, d)) kept.push_back(shape[d]);
  return kept;
}

struct Expected {
  std::vector<double> sum, mean, max;
};
Expected reference(const Array& x, uint32_t axes) {
  const Shape kept = kept_shape(x.shape, axes);
  int64_t results = 1;
  for (const int64_t size : kept) results *= size;
  const size_t n = static_cast<size_t>(results);
  Expected expected{std::vector<double>(n, 0.0), std::vector<double>(n, 0.0),
                    std::vector<double>(n, -kInfinity)};
  for (int64_t i = 0; i < x.elements(); i++) {
    int64_t rest = i, index = 0, stride = 1;
    for (size_t d = x.shape.size(); d-- > 0;) {
      const int64_t coordinate = rest % x.shape[d];
      rest /= x.shape[d];
      if (reduced(axes, d)) continue;
      index += coordinate * stride;
      stride *= x.shape[d];
    }
    const size_t at = static_cast<size_t>(index);
    const double value = x.at(i);
    expected.sum[at] += value;
    if (!std::isnan(expected.max[at]) && !(value <= expected.max[at])) expected.max[at] = value;
  }
  for (size_t i = 0; i < n; i++)
    expected.mean[i] =
        expected.sum[i] / (static_cast<double>(x.elements()) / static_cast<double>(results));
  return expected;
}

// Sums of values around zero cancel: errors are measured against the size of what was added.
void check(Array& x, uint32_t axes) {
  const Expected expected = reference(x, axes);
  Array y(x.dtype, kept_shape(x.shape, axes));
  const std::string text =
      "axes " + std::to_string(axes) + " of rank " + std::to_string(x.shape.size());
  const double terms =
      static_cast<double>(x.elements()) / static_cast<double>(std::max<int64_t>(1, y.elements()));
  // fp32 partial sums of at most 4096 terms in many accumulators: far below terms * 2^-24
  const double tolerance = 1e-6 * std::max(1.0, std::sqrt(terms) / 8);
  const std::vector<double> attributes{static_cast<double>(axes)};
  EXPECT_TEXT(run("sum", {&x, &y}, attributes), "sum over " + text);
  EXPECT_CLOSE(y, expected.sum, tolerance);
  EXPECT_TEXT(run("mean", {&x, &y}, attributes), "mean over " + text);
  EXPECT_CLOSE(y, expected.mean, tolerance);
  if (x.elements() == 0) return;
  EXPECT_TEXT(run("max", {&x, &y}, attributes), "max over " + text);
  bool equal = true;
  for (int64_t i = 0; i < y.elements(); i++) {
    const double want = expected.max[static_cast<size_t>(i)];
    equal = equal && (std::isnan(want) ? std::isnan(y.at(i)) : y.at(i) == want);
  }
  EXPECT_TEXT(equal, "max over " + text + " is exact");
}

bool on_cpu() { return backend_name().starts_with("cpu:"); }

}  // namespace

TEST(any_set_of_axes_is_reduced) {
  for (Random random : seeds(60)) {
    Shape shape(static_cast<size_t>(random.integer(0, 6)));
    int64_t elements = 1;
    for (int64_t& size : shape) {
      size = random.size(std::max<int64_t>(1, std::min<int64_t>(33, 800 / elements)));
      elements *= size;
    }
    Array x = random.array(random.float_dtype(), shape, -1, 2);
    check(x, static_cast<uint32_t>(random.integer(0, (1 << shape.size()) - 1)));
  }
}

TEST(rows_and_columns_of_many_widths_are_reduced) {
  for (Random random : seeds(12)) {
    const voltaic_dtype dtype = random.float_dtype();
    Array x = random.array(dtype, {random.size(90), random.size(130)}, -1, 2);
    check(x, 2);
    check(x, 1);
    check(x, 3);
    check(x, 0);
  }
}

TEST(long_reductions_are_cut_into_chunks) {
  for (Random random : seeds(2)) {
    const int64_t scale = on_cpu() ? 1 : 0;
    Array row = random.array(VOLTAIC_FLOAT32, {4097 + scale * 70001}, -1, 2);
    check(row, 1);
    Array rows = random.array(VOLTAIC_BFLOAT16, {3, 4096 + 9}, -1, 2);
    check(rows, 2);
    Array columns = random.array(VOLTAIC_FLOAT32, {257 + scale * 900, 19}, -1, 2);
    check(columns, 1);
    Array middle = random.array(VOLTAIC_FLOAT32, {2, 261, 2, 9}, -1, 2);
    check(middle, 2);
    check(middle, 6);
    check(middle, 10);
    Array split = random.array(VOLTAIC_FLOAT32, {300, 2, 17}, -1, 2);
    check(split, 5);
    if (!on_cpu()) continue;
    Array wide = random.array(VOLTAIC_FLOAT32, {2, 40000}, -1, 2);
    check(wide, 1);
    check(wide, 2);
  }
}

TEST(a_long_sum_keeps_its_small_terms) {
  if (!on_cpu()) return;
  Array ones(VOLTAIC_FLOAT32, {1 << 20, 2}), y(VOLTAIC_FLOAT32, {2});
  for (int64_t i = 0; i < ones.elements(); i++) ones.set(i, 1.1);
  EXPECT(run("sum", {&ones, &y}, {1.0}));
  const double expected =
      static_cast<double>(1.1f) * (1 << 20);  // a running fp32 sum would be wrong by 1e-3
  EXPECT_CLOSE(y, (std::vector<double>{expected, expected}), 1e-6);
}

TEST(a_row_gives_the_same_bits_among_any_number_of_rows) {
  for (Random random : seeds(6)) {
    const int64_t width = random.integer(0, 1) ? random.size(100) : 4096 + random.size(50);
    Array many = random.array(VOLTAIC_FLOAT32, {5, width}), sums(VOLTAIC_FLOAT32, {5});
    EXPECT(run("sum", {&many, &sums}, {2.0}));
    Array one(VOLTAIC_FLOAT32, {1, width}), single(VOLTAIC_FLOAT32, {1});
    std::memcpy(one.bytes.data(), many.bytes.data() + 3 * width * 4,
                static_cast<size_t>(width) * 4);
    EXPECT(run("sum", {&one, &single}, {2.0}));
    EXPECT(std::memcmp(single.bytes.data(), sums.bytes.data() + 12, 4) == 0);
  }
}

TEST(empty_reductions_have_their_definitions) {
  Array x(VOLTAIC_FLOAT32, {3, 0, 2}), y(VOLTAIC_FLOAT32, {3, 2}), none(VOLTAIC_FLOAT32, {0, 2}),
      all(VOLTAIC_FLOAT32, {});
  EXPECT(run("sum", {&x, &y}, {2.0}));
  EXPECT_CLOSE(y, std::vector<double>(6, 0.0), 0);
  EXPECT(run("mean", {&x, &y}, {2.0}));
  EXPECT_CLOSE(y, std::vector<double>(6, kNaN), 0);
  EXPECT(!run("max", {&x, &y}, {2.0}));
  EXPECT(last_message().find("max") != std::string::npos);
  EXPECT(run("max", {&x, &none}, {1.0}));
  EXPECT(run("sum", {&x, &all}, {7.0}) && all.at(0) == 0);
}

TEST(nan_reaches_the_result) {
  for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
    for (Random random : seeds(6)) {
      Array x = random.array(dtype, {random.size(20), random.size(60)});
      x.set(random.integer(0, x.elements() - 1), kNaN);
      x.set(random.integer(0, x.elements() - 1), kNaN);
      check(x, 2);
      check(x, 1);
      check(x, 3);
    }
}

TEST(wrong_axes_and_shapes_are_refused) {
  Array x = Array::zeros(VOLTAIC_FLOAT32, {2, 3}), y(VOLTAIC_FLOAT32, {2}),
        kept(VOLTAIC_FLOAT32, {2, 1});
  for (const double axes : {4.0, -1.0, 0.5, kNaN}) {
    EXPECT(!run("sum", {&x, &y}, {axes}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find("axes") != std::string::npos);
  }
  EXPECT(!run("sum", {&x, &y}, {1.0}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE &&
         last_message().find("[2, 3]") != std::string::npos);
  EXPECT(!run("mean", {&x, &kept}, {2.0}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
}

TEST(argmax_gives_the_first_largest_and_nan_counts_as_largest) {
  for (Random random : seeds(30)) {
    const voltaic_dtype dtype = random.float_dtype();
    Array x = random.array(dtype, {random.size(20), random.integer(1, 2), random.size(130)});
    for (int64_t i = 0; i < x.elements(); i++) {
      if (random.integer(0, 2) == 0) x.set(i, static_cast<double>(random.integer(0, 1)));  // ties
      if (random.integer(0, 150) == 0) x.set(i, kNaN);
      if (random.integer(0, 20) == 0) x.set(i, -kInfinity);
    }
    const int64_t width = x.shape[2];
    Array y(VOLTAIC_INT32, {x.shape[0], x.shape[1]});
    std::vector<int64_t> expected;
    for (int64_t row = 0; row < y.elements(); row++) {
      int64_t best = 0;
      for (int64_t i = 1; i < width; i++) {
        const double value = x.at(row * width + i), largest = x.at(row * width + best);
        if (!std::isnan(largest) && (std::isnan(value) || value > largest)) best = i;
      }
      expected.push_back(best);
    }
    EXPECT(run("argmax", {&x, &y}));
    EXPECT_EQUAL(y, expected);
  }
  Array low = Array::of_floats(VOLTAIC_FLOAT32, {3}, {-kInfinity, -kInfinity, -kInfinity}),
        y(VOLTAIC_INT32, {});
  EXPECT(run("argmax", {&low, &y}) && y.at(0) == 0);
  Array empty(VOLTAIC_FLOAT32, {2, 0}), two(VOLTAIC_INT32, {2}), none(VOLTAIC_FLOAT32, {0, 5}),
      zero(VOLTAIC_INT32, {0});
  EXPECT(!run("argmax", {&empty, &two}));
  EXPECT(run("argmax", {&none, &zero}));
  EXPECT(!run("argmax", {&none, &two}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
}

TEST(reductions_take_several_blocks_and_columns) {
  for (Random random : seeds(1))
    for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      Array wide = random.array(dtype, {150, 264}, -1, 2);  // more columns and rows than a block's
      check(wide, 1);
      Array many = random.array(dtype, {300, 40}, -1, 2);  // more rows than a block's
      check(many, 2);
      check(many, 1);
      Array middle = random.array(dtype, {5, 70, 16}, -1, 2);
      check(middle, 2);
      check(middle, 5);
      Array narrow = random.array(dtype, {5000, 2}, -1, 2);
      check(narrow, 1);
      check(narrow, 3);
      Array runs = random.array(dtype, {40, 3, 136}, -1, 2);  // long results in pieces
      check(runs, 5);
    }
}

TEST(a_result_has_the_same_bits_wherever_its_numbers_stand) {
  for (Random random : seeds(3))
    for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      for (const auto& [shape, axes] : std::vector<std::pair<Shape, double>>{
               {{7, 48}, 2}, {{7, 1160}, 2}, {{40, 48}, 1}, {{3, 20, 16}, 5}, {{9001}, 1}}) {
        Array x = random.array(dtype, shape, -1, 2);
        Array y(dtype, kept_shape(shape, static_cast<uint32_t>(axes))), moved = y;
        EXPECT(run("sum", {&x, &y}, {axes}));
        const Shifted shifted(random.integer(1, 3));
        EXPECT(run("sum", {&x, &moved}, {axes}));
        EXPECT(y.bytes == moved.bytes);
        EXPECT(run("max", {&x, &moved}, {axes}));
      }
}

TEST(argmax_of_long_rows) {
  for (Random random : seeds(4))
    for (const bool aligned : {true, false}) {
      const Shifted shifted(aligned ? 0 : 1);
      Array x = random.array(random.float_dtype(), {2, random.integer(0, 1) ? 3000 : 3001});
      const int64_t width = x.shape[1], place = random.integer(0, width - 2);
      for (const int64_t i : {place, place + 1, width - 1}) x.set(i, 9);  // the first of equals
      for (const int64_t i : {place, width - 1}) x.set(width + i, kNaN);
      Array y(VOLTAIC_INT32, {2});
      EXPECT(run("argmax", {&x, &y}));
      EXPECT_EQUAL(y, (std::vector<int64_t>{place, place}));
    }
}
