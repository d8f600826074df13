// Gathering, scattering, permuting and slicing: every element where it belongs, sums in their
// order.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "harness.h"

using namespace voltaic::test;

namespace {

using Shape = std::vector<int64_t>;
constexpr voltaic_dtype kDtypes[] = {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16, VOLTAIC_INT32,
                                     VOLTAIC_UINT8};

size_t element_size(voltaic_dtype dtype) {
  return dtype == VOLTAIC_BFLOAT16 ? 2 : dtype == VOLTAIC_UINT8 ? 1 : 4;
}
// Any bits: moving must not change a single one, NaN payloads included.
Array random_bits(Random& random, voltaic_dtype dtype, const Shape& shape) {
  Array array(dtype, shape);
  for (uint8_t& byte : array.bytes) byte = static_cast<uint8_t>(random.next());
  return array;
}
bool same_element(const Array& a, int64_t i, const Array& b, int64_t j) {
  const size_t size = element_size(a.dtype);
  return std::memcmp(a.bytes.data() + static_cast<size_t>(i) * size,
                     b.bytes.data() + static_cast<size_t>(j) * size, size) == 0;
}
std::vector<int64_t> coordinates_of(int64_t i, const Shape& shape) {
  std::vector<int64_t> coordinates(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    coordinates[d] = i % shape[d];
    i /= shape[d];
  }
  return coordinates;
}
int64_t index_of(const std::vector<int64_t>& coordinates, const Shape& shape) {
  int64_t index = 0;
  for (size_t d = 0; d < shape.size(); d++) index = index * shape[d] + coordinates[d];
  return index;
}
bool on_cpu() { return backend_name().starts_with("cpu:"); }

void check_permute(Random& random, voltaic_dtype dtype, const Shape& shape,
                   const std::vector<int64_t>& axes) {
  Array x = random_bits(random, dtype, shape);
  Shape permuted;
  std::vector<double> attributes(6, 0.0);
  for (size_t d = 0; d < axes.size(); d++) {
    permuted.push_back(shape[static_cast<size_t>(axes[d])]);
    attributes[d] = static_cast<double>(axes[d]);
  }
  Array y(dtype, permuted);
  EXPECT(run("permute", {&x, &y}, attributes));
  bool right = true;
  for (int64_t i = 0; i < y.elements() && right; i++) {
    const std::vector<int64_t> to = coordinates_of(i, permuted);
    std::vector<int64_t> from(axes.size());
    for (size_t d = 0; d < axes.size(); d++) from[static_cast<size_t>(axes[d])] = to[d];
    right = same_element(y, i, x, index_of(from, shape));
  }
  EXPECT_TEXT(right, "permute puts every element where it belongs");
}

}  // namespace

TEST(gather_rows_copies_the_rows_asked_for) {
  for (Random random : seeds(16)) {
    Array x = random_bits(random, kDtypes[random.integer(0, 3)],
                          {random.size(60), random.integer(0, 9) ? random.size(130) : 0});
    const int64_t n = random.integer(0, 7) ? random.size(100) : 0, width = x.shape[1];
    Array index = random.int_array({n}, 0, x.shape[0] - 1), y(x.dtype, {n, width});
    EXPECT(run("gather_rows", {&x, &index, &y}));
    bool right = true;
    for (int64_t i = 0; i < n * width; i++)
      right = right &&
              same_element(y, i, x, static_cast<int64_t>(index.at(i / width)) * width + i % width);
    EXPECT(right);
  }
}

TEST(gather_and_scatter_refuse_rows_that_are_not_there) {
  for (const int32_t bad : {-1, 4, INT32_MAX, INT32_MIN}) {
    Array x = Array::zeros(VOLTAIC_FLOAT32, {4, 3}), index = Array::of_ints({3}, {0, 3, bad}),
          y = Array::zeros(VOLTAIC_FLOAT32, {3, 3});
    EXPECT(!run("gather_rows", {&x, &index, &y}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find(std::to_string(bad)) != std::string::npos);
    EXPECT(!run("scatter_add_rows", {&y, &index, &x}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find("index") != std::string::npos);
    EXPECT(x.bytes == std::vector<uint8_t>(48, 0));
  }
  Array none(VOLTAIC_FLOAT32, {0, 3}), index = Array::of_ints({1}, {0}), y(VOLTAIC_FLOAT32, {1, 3});
  EXPECT(!run("gather_rows", {&none, &index, &y}));
}

TEST(scatter_add_rows_adds_in_ascending_order_and_rounds_once) {
  for (Random random : seeds(30)) {
    const bool many_rows = random.integer(0, 3) == 0;
    const int64_t rows = many_rows ? random.integer(5000, 9000) : random.size(40);
    const int64_t width = many_rows ? random.size(5) : random.size(70),
                  n = random.integer(0, 7) ? random.size(120) : 0;
    Array y = random.array(random.float_dtype(), {n, width}, -2, 2);
    Array x = random.array(random.float_dtype(), {rows, width}, -2, 2);
    Array index =
        random.int_array({n}, 0, random.integer(0, 1) ? rows - 1 : std::min<int64_t>(rows - 1, 2));
    std::vector<float> sums;
    for (const double value : x.values()) sums.push_back(static_cast<float>(value));
    for (int64_t i = 0; i < n * width; i++)
      sums[static_cast<size_t>(static_cast<int64_t>(index.at(i / width)) * width + i % width)] +=
          static_cast<float>(y.at(i));
    EXPECT(run("scatter_add_rows", {&y, &index, &x}));
    bool same_bits = true;
    for (int64_t i = 0; i < x.elements(); i++)
      same_bits = same_bits &&
                  x.at(i) == round_to(x.dtype, static_cast<double>(sums[static_cast<size_t>(i)]));
    EXPECT(same_bits);
  }
}

TEST(scatter_add_rows_serves_wide_and_crowded_rows) {
  if (!on_cpu()) return;
  for (Random random : seeds(2)) {
    Array y = random.array(VOLTAIC_BFLOAT16, {1500, 521}, -2, 2),
          x = Array::zeros(VOLTAIC_FLOAT32, {2500, 521});
    Array index = random.int_array({1500}, 0, 2499);
    for (int64_t i = 0; i < 900; i++)
      index.ints()[random.integer(0, 1499)] = 2111;  // one token fills the batch
    std::vector<float> sums(static_cast<size_t>(x.elements()), 0.0f);
    for (int64_t i = 0; i < y.elements(); i++)
      sums[static_cast<size_t>(index.ints()[i / 521] * 521 + i % 521)] +=
          static_cast<float>(y.at(i));
    EXPECT(run("scatter_add_rows", {&y, &index, &x}));
    EXPECT(std::memcmp(sums.data(), x.bytes.data(), x.bytes.size()) == 0);
  }
}

TEST(permute_takes_axes_in_any_order) {
  for (Random random : seeds(60)) {
    Shape shape(static_cast<size_t>(random.integer(0, 6)));
    int64_t elements = 1;
    for (int64_t& size : shape) {
      size = random.integer(0, 50)
                 ? random.size(std::max<int64_t>(
                       1, std::min<int64_t>(40, 1500 / std::max<int64_t>(1, elements))))
                 : 0;
      elements *= size;
    }
    std::vector<int64_t> axes(shape.size());
    std::iota(axes.begin(), axes.end(), 0);
    for (size_t i = axes.size(); i > 1; i--)
      std::swap(axes[i - 1],
                axes[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
    check_permute(random, kDtypes[random.integer(0, 3)], shape, axes);
  }
}

TEST(matrices_of_all_shapes_are_transposed) {
  for (Random random : seeds(1))
    for (const voltaic_dtype dtype : kDtypes) {
      for (const Shape& shape :
           {Shape{1, 9}, {9, 1}, {4, 4}, {8, 8}, {5, 7}, {16, 65}, {67, 13}, {66, 70}, {2, 129}})
        check_permute(random, dtype, shape, {1, 0});
      check_permute(random, dtype, {3, 17, 9}, {0, 2, 1});
      check_permute(random, dtype, {2, 5, 3, 8}, {0, 2, 1, 3});  // heads to the front
      check_permute(random, dtype, {2, 5, 3, 8}, {0, 2, 3, 1});
      check_permute(random, dtype, {9, 3, 10}, {2, 1, 0});
      if (on_cpu()) check_permute(random, dtype, {301, 203}, {1, 0});
    }
}

TEST(permute_refuses_axes_and_shapes_that_do_not_fit) {
  Array x = Array::zeros(VOLTAIC_FLOAT32, {2, 3}), y(VOLTAIC_FLOAT32, {3, 2}),
        same(VOLTAIC_FLOAT32, {2, 3}), flat(VOLTAIC_FLOAT32, {6});
  for (const std::vector<double>& axes :
       std::vector<std::vector<double>>{{0, 0, 0, 0, 0, 0},
                                        {1, 2, 0, 0, 0, 0},
                                        {-1, 0, 0, 0, 0, 0},
                                        {0.5, 1, 0, 0, 0, 0},
                                        {std::nan(""), 0, 0, 0, 0, 0}}) {
    EXPECT(!run("permute", {&x, &y}, axes));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find("axis") != std::string::npos);
  }
  EXPECT(!run("permute", {&x, &same}, {1, 0, 0, 0, 0, 0}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE &&
         last_message().find("[2, 3]") != std::string::npos);
  EXPECT(!run("permute", {&x, &flat}, {1, 0, 0, 0, 0, 0}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
}

TEST(slice_and_slice_assign_are_each_others_reverse) {
  for (Random random : seeds(50)) {
    Shape shape(static_cast<size_t>(random.integer(1, 6)));
    int64_t elements = 1;
    for (int64_t& size : shape) {
      size = random.size(std::max<int64_t>(1, std::min<int64_t>(40, 1500 / elements)));
      elements *= size;
    }
    const voltaic_dtype dtype = kDtypes[random.integer(0, 3)];
    const int64_t axis = random.integer(0, static_cast<int64_t>(shape.size()) - 1),
                  size = shape[static_cast<size_t>(axis)];
    const int64_t start = random.integer(0, size), length = random.integer(0, size - start);
    Array x = random_bits(random, dtype, shape), changed = random_bits(random, dtype, shape);
    Shape part_shape = shape;
    part_shape[static_cast<size_t>(axis)] = length;
    Array part(dtype, part_shape);
    const std::vector<double> attributes{static_cast<double>(axis), static_cast<double>(start)};
    EXPECT(run("slice", {&x, &part}, attributes));
    bool right = true;
    for (int64_t i = 0; i < part.elements(); i++) {
      std::vector<int64_t> coordinates = coordinates_of(i, part_shape);
      coordinates[static_cast<size_t>(axis)] += start;
      right = right && same_element(part, i, x, index_of(coordinates, shape));
    }
    EXPECT_TEXT(right, "slice");
    const Array before = changed;
    EXPECT(run("slice_assign", {&part, &changed}, attributes));
    for (int64_t i = 0; i < x.elements(); i++) {
      const int64_t at = coordinates_of(i, shape)[static_cast<size_t>(axis)];
      right = right && same_element(changed, i, at >= start && at < start + length ? x : before, i);
    }
    EXPECT_TEXT(right, "slice_assign writes the slice and leaves the rest");
  }
}

TEST(large_runs_are_cut_without_seams) {
  if (!on_cpu()) return;
  for (Random random : seeds(1)) {
    Array x = random_bits(random, VOLTAIC_FLOAT32, {3, 20011}), y(VOLTAIC_FLOAT32, {2, 20011});
    EXPECT(run("slice", {&x, &y}, {0.0, 1.0}));
    EXPECT(std::memcmp(y.bytes.data(), x.bytes.data() + 20011 * 4, y.bytes.size()) == 0);
    Array index = Array::of_ints({2}, {2, 0});
    EXPECT(run("gather_rows", {&x, &index, &y}));
    EXPECT(std::memcmp(y.bytes.data(), x.bytes.data() + 2 * 20011 * 4, 20011 * 4) == 0);
    EXPECT(std::memcmp(y.bytes.data() + 20011 * 4, x.bytes.data(), 20011 * 4) == 0);
  }
}

TEST(slices_out_of_range_are_refused) {
  Array x = Array::zeros(VOLTAIC_FLOAT32, {4, 3}), y(VOLTAIC_FLOAT32, {2, 3}),
        longer(VOLTAIC_FLOAT32, {5, 3}), other(VOLTAIC_FLOAT32, {2, 2});
  for (const double start : {3.0, -1.0, 0.5, 1e18, std::nan("")}) {
    EXPECT(!run("slice", {&x, &y}, {0.0, start}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find("start") != std::string::npos);
    EXPECT(!run("slice_assign", {&y, &x}, {0.0, start}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
  for (const double axis : {2.0, -1.0, std::nan("")}) {
    EXPECT(!run("slice", {&x, &y}, {axis, 0.0}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT &&
           last_message().find("axis") != std::string::npos);
  }
  EXPECT(!run("slice", {&x, &longer}, {0.0, 0.0}));
  EXPECT(!run("slice", {&x, &other}, {0.0, 0.0}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
}

TEST(scatter_add_rows_serves_crowds_of_one_row) {
  for (Random random : seeds(3))
    for (const int64_t width : {132, 3}) {
      const int64_t n = random.integer(120, 200);
      Array y = random.array(random.float_dtype(), {n, width}, -2, 2),
            x = random.array(random.float_dtype(), {60, width}, -2, 2);
      Array index = random.int_array({n}, 0, 59);
      for (int64_t i = 0; i < n; i++)
        if (random.integer(0, 2)) index.ints()[i] = 17;
      for (int64_t i = 0; i < 32; i++) index.ints()[i] = 40;  // and one of just 32 or a few more
      std::vector<float> sums;
      for (const double value : x.values()) sums.push_back(static_cast<float>(value));
      for (int64_t i = 0; i < y.elements(); i++)
        sums[static_cast<size_t>(index.ints()[i / width] * width + i % width)] +=
            static_cast<float>(y.at(i));
      EXPECT(run("scatter_add_rows", {&y, &index, &x}));
      bool same_bits = true;
      for (int64_t i = 0; i < x.elements(); i++)
        same_bits = same_bits &&
                    x.at(i) == round_to(x.dtype, static_cast<double>(sums[static_cast<size_t>(i)]));
      EXPECT(same_bits);
    }
}

TEST(scatter_add_rows_sorts_many_indices) {
  for (Random random : seeds(1)) {
    const int64_t n = 9000, rows = 70000;  // more than one block sorts, in three passes
    Array y = random.array(VOLTAIC_FLOAT32, {n, 1}), x = Array::zeros(VOLTAIC_FLOAT32, {rows, 1});
    Array index = random.int_array({n}, 0, rows - 1);
    for (int64_t i = 0; i < n; i += 3)
      index.ints()[i] = static_cast<int32_t>(random.integer(0, 99));
    std::vector<float> sums(static_cast<size_t>(rows), 0.0f);
    for (int64_t i = 0; i < n; i++)
      sums[static_cast<size_t>(index.ints()[i])] += static_cast<float>(y.at(i));
    EXPECT(run("scatter_add_rows", {&y, &index, &x}));
    EXPECT(std::memcmp(sums.data(), x.bytes.data(), x.bytes.size()) == 0);
    index.ints()[8999] = static_cast<int32_t>(rows);
    EXPECT(!run("scatter_add_rows", {&y, &index, &x}));
    EXPECT(last_message().find("index[8999] is 70000") != std::string::npos);
  }
}

TEST(rows_may_start_at_any_element) {
  for (Random random : seeds(6)) {
    const Shifted shifted(random.integer(1, 4));
    const voltaic_dtype dtype = kDtypes[random.integer(0, 3)];
    check_permute(random, dtype, {66, 130}, {1, 0});
    check_permute(random, dtype, {2, 20, 36, 3}, {0, 2, 1, 3});
    check_permute(random, dtype, {3, 36, 20}, {2, 0, 1});
    Array x = random_bits(random, dtype, {9, 64}), part(dtype, {9, 32}), y(dtype, {20, 64});
    EXPECT(run("slice", {&x, &part}, {1.0, 16.0}));
    EXPECT(same_element(part, 40, x, 64 + 24));
    Array index = random.int_array({20}, 0, 8);
    EXPECT(run("gather_rows", {&x, &index, &y}));
    bool right = true;
    for (int64_t i = 0; i < y.elements(); i++)
      right = right && same_element(y, i, x, index.ints()[i / 64] * 64 + i % 64);
    EXPECT(right);
    Array added = random.array(random.float_dtype(), {20, 64}),
          to = Array::zeros(random.float_dtype(), {9, 64});
    EXPECT(run("scatter_add_rows", {&added, &index, &to}));
    float sum = 0;
    for (int64_t i = 0; i < 20; i++)
      if (index.ints()[i] == index.ints()[0]) sum += static_cast<float>(added.at(i * 64 + 5));
    EXPECT(to.at(index.ints()[0] * 64 + 5) == round_to(to.dtype, static_cast<double>(sum)));
  }
}

TEST(copies_take_several_blocks) {
  for (Random random : seeds(1))
    for (const voltaic_dtype dtype : kDtypes) {
      check_permute(random, dtype, {130, 200}, {1, 0});
      check_permute(random, dtype, {4, 17, 12, 16}, {0, 2, 1, 3});
      check_permute(random, dtype, {700, 3}, {1, 0});
      Array x = random_bits(random, dtype, {11, 1024}), y(dtype, {30, 1024});
      Array index = random.int_array({30}, 0, 10);
      EXPECT(run("gather_rows", {&x, &index, &y}));
      bool right = true;
      for (int64_t i = 0; i < y.elements(); i++)
        right = right && same_element(y, i, x, index.ints()[i / 1024] * 1024 + i % 1024);
      EXPECT(right);
    }
}
