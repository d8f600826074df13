// Activation kernels against the formulas in double precision.
#include <cmath>
#include <vector>

#include "harness.h"

using namespace voltaic::test;

namespace {

const double kPi = 3.14159265358979323846;

double activation(int kind, double x) {
  const double tanh_argument = std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x);
  switch (kind) {
    case 0:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case 1:
      return x / (1 + std::exp(-2 * tanh_argument));
    case 2:
      return x > 0 ? x : 0 * x;
    case 3:
      return std::tanh(x);
    default:
      return 1 / (1 + std::exp(-x));
  }
}

double activation_gradient(int kind, double x) {
  const double root = std::sqrt(2 / kPi), argument = 2 * root * (x + 0.044715 * x * x * x);
  const double sigmoid = 1 / (1 + std::exp(-argument));
  switch (kind) {
    case 0:
      return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi);
    case 1:
      return sigmoid +
             x * sigmoid / (1 + std::exp(argument)) * 2 * root * (1 + 3 * 0.044715 * x * x);
    case 2:
      return x > 0;
    case 3:
      return 1 / (std::cosh(x) * std::cosh(x));
    default:
      return 1 / ((1 + std::exp(-x)) * (1 + std::exp(x)));
  }
}

}  // namespace

TEST(activation_forward_and_backward_of_every_kind_match_their_formulas) {
  for (Random random : seeds(30)) {
    const voltaic_dtype dtype = random.float_dtype();
    const int kind = static_cast<int>(random.integer(0, 4));
    const int64_t rows = random.size(20), width = random.size(60);
    const Array x_values = random.array(dtype, {rows, width}, -7, 7);
    Array x = x_values, y(dtype, {rows, width}), x_gradient(dtype, {rows, width});
    Array y_gradient = random.array(dtype, {rows, width}, -2, 2);
    std::vector<double> expected, expected_gradient;
    for (int64_t i = 0; i < x.elements(); i++) {
      expected.push_back(activation(kind, x.at(i)));
      expected_gradient.push_back(y_gradient.at(i) * activation_gradient(kind, x.at(i)));
    }
    EXPECT(run("activation_forward", {&x, &y}, {double(kind)}));
    EXPECT(run("activation_backward", {&x, &y_gradient, &x_gradient}, {double(kind)}));
    EXPECT_CLOSE(y, expected, 3e-7);  // a few roundings of fp32
    EXPECT_CLOSE(x_gradient, expected_gradient, 6e-7);
  }
}

TEST(gelu_and_its_derivative_keep_1e_minus_7_far_below_zero) {
  std::vector<double> points;
  for (int i = 0; i <= 6000; i++) points.push_back(round_to(VOLTAIC_FLOAT32, -12 + i * 0.002));
  const int64_t n = static_cast<int64_t>(points.size());
  for (int kind : {0, 1}) {
    Array x = Array::of_floats(VOLTAIC_FLOAT32, {n}, points), y(VOLTAIC_FLOAT32, {n});
    Array ones = Array::of_floats(VOLTAIC_FLOAT32, {n}, std::vector<double>(points.size(), 1.0));
    Array gradient(VOLTAIC_FLOAT32, {n});
    EXPECT(run("activation_forward", {&x, &y}, {double(kind)}));
    EXPECT(run("activation_backward", {&x, &ones, &gradient}, {double(kind)}));
    double worst = 0, worst_gradient = 0, worst_relative = 0;
    for (int64_t i = 0; i < n; i++) {
      const double want = activation(kind, x.at(i));
      worst = std::fmax(worst, std::fabs(y.at(i) - want));
      if (kind == 0 && want != 0)
        worst_relative = std::fmax(worst_relative, std::fabs(y.at(i) / want - 1));
      worst_gradient =
          std::fmax(worst_gradient, std::fabs(gradient.at(i) - activation_gradient(kind, x.at(i))));
    }
    EXPECT(worst < 1e-7);
    EXPECT(worst_relative < 5e-6);  // the far tail is no rounding noise either
    EXPECT(worst_gradient < 2e-7);
  }
}

TEST(gelu_in_bfloat16_rounds_to_within_0_505_of_a_last_place) {
  // All bfloat16 numbers from -5 to 16 but those near the denormal ones.
  std::vector<double> points;
  for (double x = 1e-36; x < 16; x = std::fmax(x * (1 + 1.0 / 256), 1e-36)) {
    points.push_back(round_to(VOLTAIC_BFLOAT16, x));
    if (x < 5) points.push_back(-points.back());
  }
  const int64_t n = static_cast<int64_t>(points.size());
  Array x = Array::of_floats(VOLTAIC_BFLOAT16, {n}, points), y(VOLTAIC_BFLOAT16, {n});
  EXPECT(run("activation_forward", {&x, &y}, {0}));
  double worst = 0;
  for (int64_t i = 0; i < n; i++) {
    const double want = activation(0, x.at(i));
    worst = std::fmax(worst, std::fabs(y.at(i) - want) / std::ldexp(1, std::ilogb(want) - 7));
  }
  EXPECT(worst < 0.505);
}

TEST(tanh_and_sigmoid_are_within_3_units_in_the_last_place) {
  std::vector<double> points;
  for (double x = 1e-8; x < 80; x *= 1.003)
    for (double sign : {-1, 1}) points.push_back(round_to(VOLTAIC_FLOAT32, sign * x));
  const int64_t n = static_cast<int64_t>(points.size());
  for (int kind : {3, 4}) {
    Array x = Array::of_floats(VOLTAIC_FLOAT32, {n}, points), y(VOLTAIC_FLOAT32, {n});
    EXPECT(run("activation_forward", {&x, &y}, {double(kind)}));
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
      const double want = activation(kind, x.at(i));
      worst = std::fmax(worst, std::fabs(y.at(i) - want) / std::ldexp(1, std::ilogb(want) - 23));
    }
    EXPECT(worst < 3);
  }
}

TEST(activation_gelu_gives_the_published_values) {
  // Specification, section 9.1: x = -3, -1, 1, 2 by the erf form, then by the tanh form.
  const std::vector<double> published[] = {
      {-0.0040496941, -0.1586552539, 0.8413447461, 1.9544997361},
      {-0.0036373921, -0.1588080094, 0.8411919906, 1.9545976941}};
  for (int kind : {0, 1}) {
    Array x = Array::of_floats(VOLTAIC_FLOAT32, {4}, {-3, -1, 1, 2}), y(VOLTAIC_FLOAT32, {4});
    EXPECT(run("activation_forward", {&x, &y}, {double(kind)}));
    EXPECT_CLOSE(y, published[kind], 1e-7);
  }
}

TEST(activation_keeps_nan_and_saturates_at_infinity) {
  const double limit[5][2] = {{0, INFINITY}, {0, INFINITY}, {0, INFINITY}, {-1, 1}, {0, 1}};
  for (int kind = 0; kind < 5; kind++) {
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      Array x = Array::of_floats(dtype, {5}, {-INFINITY, INFINITY, NAN, -3e38, 3e38}),
            y(dtype, {5});
      Array ones = Array::of_floats(dtype, {5}, {1, 1, 1, 1, 1}), gradient(dtype, {5});
      EXPECT(run("activation_forward", {&x, &y}, {double(kind)}));
      EXPECT(run("activation_backward", {&x, &ones, &gradient}, {double(kind)}));
      const double slope = kind < 3 ? 1 : 0;
      for (int i : {0, 1, 3, 4}) {
        const double top = kind < 3 ? x.at(i) : limit[kind][1];
        const double want = i % 3 == 0 ? limit[kind][0] : top;
        EXPECT(y.at(i) == want || std::fabs(y.at(i) - want) < 1e-30);
        EXPECT(std::fabs(gradient.at(i) - (i % 3 == 0 ? 0 : slope)) < 1e-30);
      }
      EXPECT(std::isnan(y.at(2)) && std::isnan(gradient.at(2)));
    }
  }
}

TEST(activation_of_nothing_succeeds_and_an_unknown_kind_is_refused) {
  Array x(VOLTAIC_FLOAT32, {0, 3}), y(VOLTAIC_FLOAT32, {0, 3}), g(VOLTAIC_FLOAT32, {0, 3});
  EXPECT(run("activation_forward", {&x, &y}, {0}));
  EXPECT(run("activation_backward", {&x, &y, &g}, {4}));
  for (double kind : {-1.0, 5.0, 1e9}) {
    EXPECT(!run("activation_forward", {&x, &y}, {kind}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
    EXPECT(!run("activation_backward", {&x, &y, &g}, {kind}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}

TEST(activation_of_an_element_does_not_depend_on_its_place) {
  for (Random random : seeds(10)) {
    const int64_t n = 61, shift = random.integer(1, 20);
    Array x = random.array(VOLTAIC_FLOAT32, {n}, -4, 4), y(VOLTAIC_FLOAT32, {n});
    Array moved(VOLTAIC_FLOAT32, {n - shift}), y_moved(VOLTAIC_FLOAT32, {n - shift});
    for (int64_t i = 0; i < n - shift; i++) moved.set(i, x.at(i + shift));
    const double kind = static_cast<double>(random.integer(0, 4));
    EXPECT(run("activation_forward", {&x, &y}, {kind}));
    EXPECT(run("activation_forward", {&moved, &y_moved}, {kind}));
    for (int64_t i = 0; i < n - shift; i++) EXPECT(y_moved.at(i) == y.at(i + shift));
  }
}
