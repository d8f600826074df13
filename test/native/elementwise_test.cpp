// Element-wise kernels against plain double-precision loops: broadcasting of any shapes, every
// dtype, corner values.
#include <algorithm>
#include <cmath>
#include <limits>

#include "harness.h"

using namespace voltaic::test;

namespace {

using Shape = std::vector<int64_t>;
constexpr voltaic_dtype kDtypes[] = {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16, VOLTAIC_INT32,
                                     VOLTAIC_UINT8};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_float(voltaic_dtype dtype) { return dtype == VOLTAIC_FLOAT32 || dtype == VOLTAIC_BFLOAT16; }

// The flat index in an array of shape `from` of element i of the result.
int64_t source_index(int64_t i, const Shape& from, const Shape& result) {
  int64_t index = 0, stride = 1;
  for (size_t d = result.size(); d-- > 0;) {
    const int64_t coordinate = i % result[d];
    i /= result[d];
    const size_t missing = result.size() - from.size();
    if (d < missing) continue;
    if (from[d - missing] != 1) index += coordinate * stride;
    stride *= from[d - missing];
  }
  return index;
}

// A random result shape, and shapes that broadcast to it.
Shape random_shape(Random& random, int64_t most_rank, int64_t most_elements) {
  Shape shape(static_cast<size_t>(random.integer(0, most_rank)));
  int64_t elements = 1;
  for (int64_t& size : shape) {
    size = random.integer(0, 40) == 0
               ? 0
               : random.size(std::max<int64_t>(
                     1, std::min<int64_t>(40, most_elements / std::max<int64_t>(1, elements))));
    elements *= size;
  }
  return shape;
}
Shape random_operand(Random& random, const Shape& result) {
  Shape shape = result;
  if (random.integer(0, 3) == 0) return shape;
  for (int64_t& size : shape)
    if (random.integer(0, 2) == 0) size = 1;
  shape.erase(shape.begin(), shape.begin() + random.integer(0, static_cast<int64_t>(shape.size())));
  return shape;
}
Array random_values(Random& random, voltaic_dtype dtype, const Shape& shape) {
  if (is_float(dtype)) {
    Array array = random.array(dtype, shape, -3, 3);
    for (int64_t i = 0; i < array.elements(); i++)  // equal values, so that comparisons meet them
      if (random.integer(0, 3) == 0) array.set(i, static_cast<double>(random.integer(-2, 2)));
    return array;
  }
  Array array(dtype, shape);
  const bool small = random.integer(0, 1) == 1;
  for (int64_t i = 0; i < array.elements(); i++)
    array.set(i, static_cast<double>(dtype == VOLTAIC_UINT8 ? random.integer(0, small ? 3 : 255)
                                     : small                ? random.integer(-3, 3)
                                             : random.integer(INT32_MIN, INT32_MAX)));
  return array;
}

double wrap(voltaic_dtype dtype, int64_t value) {
  return dtype == VOLTAIC_UINT8
             ? static_cast<double>(static_cast<uint8_t>(value))
             : static_cast<double>(static_cast<int32_t>(static_cast<uint32_t>(value)));
}
int64_t whole(double x) { return static_cast<int64_t>(x); }

struct TwoInputs {
  const char* op;
  bool floats_only, to_bytes;
  double (*reference)(voltaic_dtype, double, double);
};
constexpr TwoInputs kTwoInputs[] = {
    {"add", false, false,
     [](voltaic_dtype t, double a, double b) {
       return is_float(t) ? a + b : wrap(t, whole(a) + whole(b));
     }},
    {"subtract", false, false,
     [](voltaic_dtype t, double a, double b) {
       return is_float(t) ? a - b : wrap(t, whole(a) - whole(b));
     }},
    {"multiply", false, false,
     [](voltaic_dtype t, double a, double b) {
       return is_float(t) ? a * b : wrap(t, whole(a) * whole(b));
     }},
    {"divide", true, false, [](voltaic_dtype, double a, double b) { return a / b; }},
    {"power", true, false, [](voltaic_dtype, double a, double b) { return std::pow(a, b); }},
    {"maximum", false, false,
     [](voltaic_dtype, double a, double b) { return a > b || a != a ? a : b; }},
    {"minimum", false, false,
     [](voltaic_dtype, double a, double b) { return a < b || a != a ? a : b; }},
    {"equal", false, true, [](voltaic_dtype, double a, double b) { return a == b ? 1.0 : 0.0; }},
    {"not_equal", false, true,
     [](voltaic_dtype, double a, double b) { return a != b ? 1.0 : 0.0; }},
    {"less", false, true, [](voltaic_dtype, double a, double b) { return a < b ? 1.0 : 0.0; }},
    {"less_equal", false, true,
     [](voltaic_dtype, double a, double b) { return a <= b ? 1.0 : 0.0; }},
    {"greater", false, true, [](voltaic_dtype, double a, double b) { return a > b ? 1.0 : 0.0; }},
    {"greater_equal", false, true,
     [](voltaic_dtype, double a, double b) { return a >= b ? 1.0 : 0.0; }},
};

// Values must match one by one: NaN with NaN, infinities, and the rest within tolerance relative to
// each value.
bool each_close(const Array& actual, const std::vector<double>& expected, double tolerance) {
  for (int64_t i = 0; i < actual.elements(); i++) {
    const double value = actual.at(i), want = expected[static_cast<size_t>(i)];
    if (std::isnan(want) ? std::isnan(value) : value == want) continue;
    if (!(std::fabs(value - want) <= tolerance * std::fabs(want) + 1e-37)) {
      std::printf("element %lld is %.9g, expected %.9g\n", static_cast<long long>(i), value, want);
      return false;
    }
  }
  return true;
}
// One rounding: half a unit in the last place; power may err by one (libm promises no more).
double rounding(voltaic_dtype dtype, double units) {
  return units * (dtype == VOLTAIC_BFLOAT16 ? 0x1p-8 : dtype == VOLTAIC_FLOAT32 ? 0x1p-24 : 0);
}

void check_two_inputs(const TwoInputs& kind, Array& a, Array& b, const Shape& shape) {
  const voltaic_dtype dtype = a.dtype;
  Array c(kind.to_bytes ? VOLTAIC_UINT8 : dtype, shape);
  std::vector<double> expected;
  for (int64_t i = 0; i < c.elements(); i++)
    expected.push_back(kind.reference(dtype, a.at(source_index(i, a.shape, shape)),
                                      b.at(source_index(i, b.shape, shape))));
  EXPECT_TEXT(run(kind.op, {&a, &b, &c}), std::string(kind.op) + " runs");
  EXPECT_TEXT(
      each_close(c, expected,
                 kind.to_bytes ? 0 : rounding(dtype, std::string(kind.op) == "power" ? 2.1 : 1.01)),
      std::string(kind.op) + " of dtype " + std::to_string(dtype));
}

}  // namespace

TEST(two_inputs_broadcast_like_numpy_in_every_dtype) {
  for (Random random : seeds(24)) {
    for (const TwoInputs& kind : kTwoInputs) {
      const voltaic_dtype dtype =
          kind.floats_only ? random.float_dtype() : kDtypes[random.integer(0, 3)];
      const Shape shape = random_shape(random, 6, 600);
      Array a = random_values(random, dtype, random_operand(random, shape));
      Array b = random_values(random, dtype, random_operand(random, shape));
      check_two_inputs(kind, a, b, shape);
    }
  }
}

TEST(rows_columns_scalars_and_long_rows_broadcast) {
  const std::vector<std::pair<Shape, Shape>> pairs = {{{37, 64}, {64}},
                                                      {{64}, {37, 64}},
                                                      {{37, 64}, {37, 1}},
                                                      {{5, 257}, {5, 1}},
                                                      {{3, 1, 300}, {1, 7, 300}},
                                                      {{2, 1031}, {1031}},
                                                      {{33, 1}, {1, 45}},
                                                      {{1, 1}, {}},
                                                      {{4, 3, 5}, {3, 1}},
                                                      {{2, 1, 3, 1, 2, 1}, {1, 2, 1, 2, 1, 3}},
                                                      {{0, 4}, {4}},
                                                      {{9, 2}, {2}}};
  for (Random random : seeds(1))
    for (const auto& [first, second] : pairs)
      for (const voltaic_dtype dtype : kDtypes) {
        Shape shape(std::max(first.size(), second.size()));
        for (size_t d = 0; d < shape.size(); d++) {  // d counts from the last axis
          const int64_t x = d < first.size() ? first[first.size() - 1 - d] : 1;
          const int64_t y = d < second.size() ? second[second.size() - 1 - d] : 1;
          shape[shape.size() - 1 - d] = x == 1 ? y : x;
        }
        Array a = random_values(random, dtype, first), b = random_values(random, dtype, second);
        check_two_inputs(kTwoInputs[1], a, b, shape);
        check_two_inputs(kTwoInputs[9], a, b, shape);
      }
}

TEST(large_arrays_are_cut_into_tasks_without_seams) {
  for (Random random : seeds(1)) {
    const int64_t rows = backend_name().starts_with("cpu:") ? 301 : 5;
    Array a = random_values(random, VOLTAIC_FLOAT32, {rows, 259});
    Array row = random_values(random, VOLTAIC_FLOAT32, {259}),
          column = random_values(random, VOLTAIC_FLOAT32, {rows, 1});
    check_two_inputs(kTwoInputs[0], a, row, a.shape);
    check_two_inputs(kTwoInputs[2], column, a, a.shape);
    check_two_inputs(kTwoInputs[2], column, row, a.shape);
    Array flat = random_values(random, VOLTAIC_INT32, {rows * 131});
    check_two_inputs(kTwoInputs[0], flat, flat, flat.shape);
  }
}

TEST(shapes_that_do_not_broadcast_are_refused_with_all_shapes_named) {
  for (const auto& [a_shape, b_shape, c_shape] :
       std::vector<std::tuple<Shape, Shape, Shape>>{{{2, 3}, {4}, {2, 3}},
                                                    {{2, 3}, {3}, {3, 2}},
                                                    {{1, 2, 3}, {3}, {2, 3}},
                                                    {{2, 3}, {2, 3}, {2, 1}}}) {
    Array a = Array::zeros(VOLTAIC_FLOAT32, a_shape), b = Array::zeros(VOLTAIC_FLOAT32, b_shape);
    Array c(VOLTAIC_FLOAT32, c_shape);
    EXPECT(!run("add", {&a, &b, &c}));
    EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
    for (const Shape& shape : {a_shape, b_shape, c_shape}) {
      std::string text = "[";
      for (size_t d = 0; d < shape.size(); d++) text += (d ? ", " : "") + std::to_string(shape[d]);
      EXPECT_TEXT(last_message().find(text + "]") != std::string::npos,
                  "the message names " + text + "]");
    }
    EXPECT(last_message().find("add") != std::string::npos);
  }
}

TEST(maximum_and_minimum_hand_on_nan_and_comparisons_with_nan_are_false) {
  const std::vector<double> first = {kNaN, 1, kNaN, kInfinity, -kInfinity},
                            second = {1, kNaN, kNaN, 2, 2};
  for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
    Array a = Array::of_floats(dtype, {5}, first), b = Array::of_floats(dtype, {5}, second),
          c(dtype, {5});
    EXPECT(run("maximum", {&a, &b, &c}));
    EXPECT(std::isnan(c.at(0)) && std::isnan(c.at(1)) && std::isnan(c.at(2)) &&
           c.at(3) == kInfinity && c.at(4) == 2);
    EXPECT(run("minimum", {&a, &b, &c}));
    EXPECT(std::isnan(c.at(0)) && std::isnan(c.at(1)) && std::isnan(c.at(2)) && c.at(3) == 2 &&
           c.at(4) == -kInfinity);
    Array bits(VOLTAIC_UINT8, {5});
    EXPECT(run("less_equal", {&a, &b, &bits}));
    EXPECT_EQUAL(bits, (std::vector<int64_t>{0, 0, 0, 0, 1}));
    EXPECT(run("not_equal", {&a, &b, &bits}));
    EXPECT_EQUAL(bits, (std::vector<int64_t>{1, 1, 1, 1, 1}));
  }
}

TEST(power_is_right_at_its_corners) {
  const std::vector<double> base = {0,    0,    -0.0, -2,        -2,         -2,   4, -8, 0.25,
                                    kNaN, kNaN, 1,    kInfinity, -kInfinity, -0.0, 3, 2,  0};
  const std::vector<double> exponent = {0, 2, 0.5,  3,   2,   -1, 0.5, 0.5, -0.5,
                                        0, 2, kNaN, 0.5, 0.5, -1, -3,  128, -2};
  for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
    const int64_t n = static_cast<int64_t>(base.size());
    Array a = Array::of_floats(dtype, {n}, base), b = Array::of_floats(dtype, {n}, exponent),
          c(dtype, {n});
    std::vector<double> expected;
    for (size_t i = 0; i < base.size(); i++) {
      const double value = std::pow(base[i], exponent[i]);
      expected.push_back(std::fabs(value) > 3.4e38 ? std::copysign(kInfinity, value) : value);
    }
    EXPECT(run("power", {&a, &b, &c}));
    EXPECT(each_close(c, expected, rounding(dtype, 2.1)));
  }
}

TEST(where_chooses_by_any_byte_but_zero) {
  for (Random random : seeds(20)) {
    const voltaic_dtype dtype = kDtypes[random.integer(0, 3)];
    const Shape shape = random_shape(random, 6, 600);
    Array condition(VOLTAIC_UINT8, random_operand(random, shape));
    for (int64_t i = 0; i < condition.elements(); i++)
      condition.set(i, random.integer(0, 1) ? static_cast<double>(random.integer(1, 255)) : 0.0);
    Array a = random_values(random, dtype, random_operand(random, shape));
    Array b = random_values(random, dtype, random_operand(random, shape));
    Array c(dtype, shape);
    std::vector<double> expected;
    for (int64_t i = 0; i < c.elements(); i++)
      expected.push_back(condition.at(source_index(i, condition.shape, shape)) != 0
                             ? a.at(source_index(i, a.shape, shape))
                             : b.at(source_index(i, b.shape, shape)));
    EXPECT(run("where", {&condition, &a, &b, &c}));
    EXPECT(each_close(c, expected, 0));
  }
  Array condition = Array::zeros(VOLTAIC_UINT8, {3}), a = Array::zeros(VOLTAIC_FLOAT32, {2}),
        c(VOLTAIC_FLOAT32, {2});
  EXPECT(!run("where", {&condition, &a, &a, &c}));
  EXPECT(last_status() == VOLTAIC_ERROR_SHAPE &&
         last_message().find("condition") != std::string::npos);
}

TEST(unary_ops_match_their_definitions) {
  struct Unary {
    const char* op;
    double (*reference)(double);
    double units;  // exp and log: the vector forms are good to 2 units in the last place
  };
  constexpr Unary kUnary[] = {{"negate", [](double x) { return -x; }, 0},
                              {"absolute", [](double x) { return std::fabs(x); }, 0},
                              {"exp", [](double x) { return std::exp(x); }, 4},
                              {"log", [](double x) { return std::log(x); }, 4},
                              {"sqrt", [](double x) { return std::sqrt(x); }, 1.01}};
  for (Random random : seeds(12))
    for (const Unary& kind : kUnary) {
      const voltaic_dtype dtype = random.float_dtype();
      Array x = random.array(dtype, random_shape(random, 3, 400), -4, 9), y(dtype, x.shape);
      std::vector<double> expected;
      for (const double value : x.values()) expected.push_back(kind.reference(value));
      EXPECT(run(kind.op, {&x, &y}));
      EXPECT_TEXT(each_close(y, expected, rounding(dtype, kind.units)), kind.op);
    }
  Array x = Array::of_floats(VOLTAIC_FLOAT32, {5}, {kNaN, kInfinity, -kInfinity, 0, -1}),
        y(VOLTAIC_FLOAT32, {5});
  for (const Unary& kind : kUnary) {
    std::vector<double> expected;
    for (const double value : x.values()) expected.push_back(kind.reference(value));
    EXPECT(run(kind.op, {&x, &y}));
    EXPECT_TEXT(each_close(y, expected, rounding(VOLTAIC_FLOAT32, kind.units)), kind.op);
  }
}

TEST(affine_scales_and_shifts) {
  for (Random random : seeds(10)) {
    const voltaic_dtype dtype = random.float_dtype();
    Array x = random.array(dtype, random_shape(random, 3, 400)), y(dtype, x.shape);
    const double scale = random.uniform(-2, 2), shift = random.uniform(-2, 2);
    std::vector<double> expected;
    for (const double value : x.values()) expected.push_back(value * scale + shift);
    EXPECT(run("affine", {&x, &y}, {scale, shift}));
    EXPECT_CLOSE(y, expected, 2e-7);  // scale and shift are rounded to fp32, the sum once or twice
  }
}

TEST(casts_truncate_clamp_and_round) {
  const std::vector<double> corners = {
      0,    -0.0, 0.5,      -0.5,       1.9,        -1.9,         254.99,       255,
      256,  -1,   kNaN,     kInfinity,  -kInfinity, 2147483520.0, 2147483648.0, -2147483648.0,
      -3e9, 1e20, 16777217, 2147483647, 130};
  const auto convert = [](voltaic_dtype to, double x) -> double {
    if (is_float(to)) return round_to(to, x);
    const double low = to == VOLTAIC_UINT8 ? 0 : INT32_MIN,
                 high = to == VOLTAIC_UINT8 ? 255 : INT32_MAX;
    return std::isnan(x) ? 0 : std::trunc(std::clamp(x, low, high));
  };
  for (Random random : seeds(3))
    for (const voltaic_dtype from : kDtypes)
      for (const voltaic_dtype to : kDtypes) {
        Array x = random_values(random, from, {random.size(90)});
        for (size_t i = 0; i < corners.size(); i++) {
          if (static_cast<int64_t>(i) >= x.elements()) break;
          x.set(static_cast<int64_t>(i), is_float(from) ? corners[i] : convert(from, corners[i]));
        }
        Array y(to, x.shape);
        std::vector<double> expected;
        for (const double value : x.values()) expected.push_back(convert(to, value));
        EXPECT(run("cast", {&x, &y}));
        EXPECT_TEXT(each_close(y, expected, 0),
                    "cast " + std::to_string(from) + " to " + std::to_string(to));
      }
}

TEST(fill_writes_one_value_everywhere) {
  for (Random random : seeds(4))
    for (const voltaic_dtype dtype : kDtypes) {
      Array y(dtype, random_shape(random, 3, 300));
      EXPECT(run("fill", {&y}, {7.0}));
      EXPECT(each_close(y, std::vector<double>(static_cast<size_t>(y.elements()), 7), 0));
    }
  Array bytes(VOLTAIC_UINT8, {3}), ints(VOLTAIC_INT32, {3}), floats(VOLTAIC_BFLOAT16, {3});
  EXPECT(run("fill", {&bytes}, {300.0}) && bytes.at(2) == 255);
  EXPECT(run("fill", {&bytes}, {-3.0}) && bytes.at(0) == 0);
  EXPECT(run("fill", {&ints}, {kNaN}) && ints.at(1) == 0);
  EXPECT(run("fill", {&ints}, {-1e30}) && ints.at(1) == INT32_MIN);
  EXPECT(run("fill", {&ints}, {2147483647.0}) && ints.at(2) == INT32_MAX);
  EXPECT(run("fill", {&floats}, {-kInfinity}) && floats.at(0) == -kInfinity);
}

TEST(broadcast_repeats_values) {
  for (Random random : seeds(16)) {
    const voltaic_dtype dtype = kDtypes[random.integer(0, 3)];
    const Shape shape = random_shape(random, 6, 900);
    Array x = random_values(random, dtype, random_operand(random, shape)), y(dtype, shape);
    std::vector<double> expected;
    for (int64_t i = 0; i < y.elements(); i++)
      expected.push_back(x.at(source_index(i, x.shape, shape)));
    EXPECT(run("broadcast", {&x, &y}));
    EXPECT(each_close(y, expected, 0));
  }
}

TEST(accumulate_adds_in_fp32_whatever_the_dtypes) {
  for (Random random : seeds(12)) {
    const Shape shape = random_shape(random, 3, 400);
    Array x = random.array(random.float_dtype(), shape),
          y = random.array(random.float_dtype(), shape);
    std::vector<double> expected = y.values();
    for (size_t i = 0; i < expected.size(); i++)
      expected[i] = static_cast<float>(expected[i] + x.at(static_cast<int64_t>(i)));
    const voltaic_dtype dtype = y.dtype;
    EXPECT(run("accumulate", {&x, &y}));
    EXPECT(each_close(y, expected, rounding(dtype, 1.01)));
  }
}

TEST(whole_packs_broadcast_over_several_blocks) {
  const std::vector<std::pair<Shape, Shape>> pairs = {
      {{12, 1024}, {1024}},        {{12, 1024}, {12, 1}},
      {{12, 1, 256}, {1, 4, 256}}, {{3, 1, 2, 1, 512}, {5, 1, 4, 1}},
      {{1}, {12, 1024}},           {{12291}, {12291}}};
  for (Random random : seeds(1))
    for (const auto& [first, second] : pairs)
      for (const voltaic_dtype dtype : kDtypes) {
        Shape shape(std::max(first.size(), second.size()));
        for (size_t d = 0; d < shape.size(); d++) {
          const int64_t x = d < first.size() ? first[first.size() - 1 - d] : 1;
          const int64_t y = d < second.size() ? second[second.size() - 1 - d] : 1;
          shape[shape.size() - 1 - d] = x == 1 ? y : x;
        }
        Array a = random_values(random, dtype, first), b = random_values(random, dtype, second);
        check_two_inputs(kTwoInputs[random.integer(0, 2)], a, b, shape);
        check_two_inputs(kTwoInputs[random.integer(7, 12)], a, b, shape);
      }
}

TEST(arrays_may_start_at_any_element) {
  for (Random random : seeds(3)) {
    const Shifted shifted(random.integer(1, 3));
    for (const voltaic_dtype dtype : kDtypes) {
      Array a = random_values(random, dtype, {37, 64}), row = random_values(random, dtype, {64});
      check_two_inputs(kTwoInputs[0], a, row, a.shape);
      check_two_inputs(kTwoInputs[6], row, a, a.shape);
      check_two_inputs(kTwoInputs[10], a, a, a.shape);
      Array copy(dtype, a.shape), filled(dtype, {random.size(90)});
      EXPECT(run("cast", {&a, &copy}));
      EXPECT(copy.bytes == a.bytes);
      EXPECT(run("broadcast", {&a, &copy}));
      EXPECT(copy.bytes == a.bytes);
      EXPECT(run("fill", {&filled}, {3.0}));
      EXPECT(each_close(filled, std::vector<double>(static_cast<size_t>(filled.elements()), 3), 0));
    }
    Array x = random.array(random.float_dtype(), {1300}),
          y = random.array(random.float_dtype(), {1300});
    std::vector<double> expected = y.values();
    for (size_t i = 0; i < expected.size(); i++)
      expected[i] = static_cast<float>(expected[i] + x.at(static_cast<int64_t>(i)));
    const voltaic_dtype dtype = y.dtype;
    EXPECT(run("accumulate", {&x, &y}));
    EXPECT(each_close(y, expected, rounding(dtype, 1.01)));
  }
}

TEST(the_result_may_take_an_operands_place) {
  for (Random random : seeds(2))
    for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      Array a = random.array(dtype, {9, 1030}, -2, 2), row = random.array(dtype, {1030}, -2, 2);
      std::vector<double> sum, negative;
      for (int64_t i = 0; i < a.elements(); i++) {
        sum.push_back(round_to(dtype, static_cast<float>(a.at(i) + row.at(i % 1030))));
        negative.push_back(-sum.back());
      }
      EXPECT(run("add", {&a, &row, &a}));
      EXPECT(each_close(a, sum, rounding(dtype, 1.01)));
      EXPECT(run("negate", {&a, &a}));
      EXPECT(each_close(a, negative, rounding(dtype, 1.01)));
    }
}

TEST(power_is_right_to_one_unit_everywhere) {
  for (Random random : seeds(2)) {
    const int64_t n = 4000;
    Array a(VOLTAIC_FLOAT32, {n}), b(VOLTAIC_FLOAT32, {n}), c(VOLTAIC_FLOAT32, {n});
    std::vector<double> expected;
    for (int64_t i = 0; i < n; i++) {
      const bool near_one = random.integer(0, 1) == 1;
      a.set(i, near_one ? random.uniform(0.6, 1.6) : std::exp2(random.uniform(-126, 127)));
      b.set(i, near_one ? random.uniform(-170, 170) : random.uniform(-1, 1));
      expected.push_back(std::pow(a.at(i), b.at(i)));
    }
    EXPECT(run("power", {&a, &b, &c}));
    EXPECT(each_close(c, expected, rounding(VOLTAIC_FLOAT32, 2.1)));
  }
}
