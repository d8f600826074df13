// Layer normalisation, plain and fused with dropout and residual, against double precision.
#include <cmath>
#include <vector>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;

namespace {

// What dropout multiplies element i of the flat array by.
double dropout_factor(Array& state, uint32_t site, double probability, int64_t i) {
  const uint32_t threshold = voltaic_dropout_threshold(probability);
  if (threshold == 0) return 1;
  const voltaic_random4 block =
      voltaic_random_block(state.ints(), site, static_cast<uint64_t>(i / 8));
  const bool keep = voltaic_random16(&block, static_cast<int>(i % 8)) >= threshold;
  return keep ? 65536.0 / (65536.0 - threshold) : 0;
}

struct Normalised {
  std::vector<double> y, mean, inverse_std;
};
Normalised layer_norm(const std::vector<double>& x, const Array& weight, const Array& bias,
                      int64_t rows, int64_t width, double epsilon) {
  Normalised result;
  for (int64_t r = 0; r < rows; r++) {
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < width; j++) mean += x[r * width + j] / width;
    for (int64_t j = 0; j < width; j++) variance += std::pow(x[r * width + j] - mean, 2) / width;
    const double inverse_std = 1 / std::sqrt(variance + epsilon);
    result.mean.push_back(mean);
    result.inverse_std.push_back(inverse_std);
    for (int64_t j = 0; j < width; j++)
      result.y.push_back((x[r * width + j] - mean) * inverse_std * weight.at(j) + bias.at(j));
  }
  return result;
}

struct Gradients {
  std::vector<double> x, weight, bias;
};
Gradients layer_norm_gradients(const Array& y_gradient, const std::vector<double>& x,
                               const Array& mean, const Array& inverse_std, const Array& weight,
                               int64_t rows, int64_t width) {
  Gradients result{{}, std::vector<double>(width), std::vector<double>(width)};
  for (int64_t r = 0; r < rows; r++) {
    double mean_g = 0, mean_product = 0;
    std::vector<double> x_hat;
    for (int64_t j = 0; j < width; j++) {
      const double gradient = y_gradient.at(r * width + j), g = gradient * weight.at(j);
      x_hat.push_back((x[r * width + j] - mean.at(r)) * inverse_std.at(r));
      mean_g += g / width;
      mean_product += g * x_hat[j] / width;
      result.weight[j] += gradient * x_hat[j];
      result.bias[j] += gradient;
    }
    for (int64_t j = 0; j < width; j++)
      result.x.push_back(inverse_std.at(r) * (y_gradient.at(r * width + j) * weight.at(j) - mean_g -
                                              x_hat[j] * mean_product));
  }
  return result;
}

std::vector<double> plus(std::vector<double> a, const Array& b) {
  for (size_t i = 0; i < a.size(); i++) a[i] += b.at(static_cast<int64_t>(i));
  return a;
}

Array random_state(Random& random) { return random.int_array({4}, -2147483648LL, 2147483647LL); }

void check_plain(Random& random, voltaic_dtype dtype, int64_t rows, int64_t width) {
  Array x = random.array(dtype, {rows, width}, -3, 5);
  Array weight = random.array(VOLTAIC_FLOAT32, {width}, 0.5, 2);
  Array bias = random.array(VOLTAIC_FLOAT32, {width});
  Array y(dtype, {rows, width}), mean(VOLTAIC_FLOAT32, {rows}),
      inverse_std(VOLTAIC_FLOAT32, {rows});
  EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
  const Normalised want = layer_norm(x.values(), weight, bias, rows, width, 1e-12);
  EXPECT_CLOSE(y, want.y,
               5e-6);  // (x - mean) cancels: rows of two nearly equal numbers lose some bits
  EXPECT_CLOSE(mean, want.mean, 1e-6);
  EXPECT_CLOSE(inverse_std, want.inverse_std, 5e-6);

  Array y_gradient = random.array(dtype, {rows, width});
  Array weight_gradient = random.array(VOLTAIC_FLOAT32, {width}), bias_gradient = weight_gradient;
  const Gradients gradients =
      layer_norm_gradients(y_gradient, x.values(), mean, inverse_std, weight, rows, width);
  const std::vector<double> weight_want = plus(gradients.weight, weight_gradient);
  const std::vector<double> bias_want = plus(gradients.bias, bias_gradient);
  Array x_gradient(dtype, {rows, width});
  EXPECT(run("layer_norm_backward", {&y_gradient, &x, &mean, &inverse_std, &weight, &x_gradient,
                                     &weight_gradient, &bias_gradient}));
  EXPECT_CLOSE(x_gradient, gradients.x, 5e-6);
  EXPECT_CLOSE(weight_gradient, weight_want, 2e-6);
  EXPECT_CLOSE(bias_gradient, bias_want, 2e-6);
}

void check_fused(Random& random, voltaic_dtype dtype, int64_t rows, int64_t width,
                 double probability) {
  const uint32_t site = static_cast<uint32_t>(random.integer(0, 4294967295LL));
  Array state = random_state(random);
  Array x = random.array(dtype, {rows, width}),
        residual = random.array(dtype, {rows, width}, -1, 2);
  Array weight = random.array(VOLTAIC_FLOAT32, {width}, 0.5, 2);
  Array bias = random.array(VOLTAIC_FLOAT32, {width});
  Array sum(dtype, {rows, width}), y(dtype, {rows, width});
  Array mean(VOLTAIC_FLOAT32, {rows}), inverse_std(VOLTAIC_FLOAT32, {rows});
  Array* given_state = probability > 0 ? &state : nullptr;
  EXPECT(run("dropout_residual_layer_norm_forward",
             {&x, &residual, &weight, &bias, given_state, &sum, &y, &mean, &inverse_std},
             {1e-12, probability, double(site)}));
  std::vector<double> factor, sum_want;
  for (int64_t i = 0; i < rows * width; i++) {
    factor.push_back(dropout_factor(state, site, probability, i));
    sum_want.push_back(x.at(i) * factor[i] + residual.at(i));
  }
  EXPECT_CLOSE(sum, sum_want, 2e-7);
  const Normalised want = layer_norm(sum.values(), weight, bias, rows, width, 1e-12);
  EXPECT_CLOSE(y, want.y, 5e-6);
  EXPECT_CLOSE(mean, want.mean, 1e-6);
  EXPECT_CLOSE(inverse_std, want.inverse_std, 5e-6);

  Array y_gradient = random.array(dtype, {rows, width});
  Array weight_gradient = random.array(VOLTAIC_FLOAT32, {width}), bias_gradient = weight_gradient;
  const Gradients gradients =
      layer_norm_gradients(y_gradient, sum.values(), mean, inverse_std, weight, rows, width);
  const std::vector<double> weight_want = plus(gradients.weight, weight_gradient);
  const std::vector<double> bias_want = plus(gradients.bias, bias_gradient);
  Array x_gradient(dtype, {rows, width}), residual_gradient(dtype, {rows, width});
  EXPECT(run("dropout_residual_layer_norm_backward",
             {&y_gradient, &sum, &mean, &inverse_std, &weight, given_state, &x_gradient,
              &residual_gradient, &weight_gradient, &bias_gradient},
             {probability, double(site)}));
  EXPECT_CLOSE(residual_gradient, gradients.x, 5e-6);
  std::vector<double> x_want;
  for (int64_t i = 0; i < rows * width; i++) x_want.push_back(residual_gradient.at(i) * factor[i]);
  EXPECT_CLOSE(x_gradient, x_want, 2e-7);
  for (int64_t i = 0; i < rows * width; i++)
    if (factor[i] == 0) EXPECT(x_gradient.at(i) == 0);
  EXPECT_CLOSE(weight_gradient, weight_want, 2e-6);
  EXPECT_CLOSE(bias_gradient, bias_want, 2e-6);
}

}  // namespace

TEST(layer_norm_forward_and_backward_match_double_precision) {
  for (Random random : seeds(24)) {
    const voltaic_dtype dtype = random.float_dtype();
    check_plain(random, dtype, random.size(40), random.size(80) + 3);
  }
}

TEST(layer_norm_takes_rows_of_every_width) {
  // Kernels may hold rows in registers: whole and partly filled ones, and wider ones than they
  // hold.
  Random random(31);
  for (int64_t width : {8, 16, 64, 72, 128, 136, 256, 264, 512, 600, 768, 1000, 1024, 1032, 2051})
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      check_plain(random, dtype, 19, width);
      check_fused(random, dtype, 11, width, 0.1);
    }
}

TEST(layer_norm_rows_may_start_at_any_element) {
  Random random(33);
  for (int64_t elements : {1, 4}) {  // four begin at 16 bytes in fp32, not in bf16
    const Shifted shifted(elements);
    for (int64_t width : {8, 256, 1024, 1032})
      for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
        check_plain(random, dtype, 19, width);
        check_fused(random, dtype, 11, width, 0.1);
      }
  }
}

TEST(layer_norm_over_many_blocks_of_narrow_rows_sums_its_parameter_gradients) {
  Random random(32);
  check_plain(random, VOLTAIC_FLOAT32, 1111, 8);
  check_fused(random, VOLTAIC_BFLOAT16, 517, 128, 0.5);
}

TEST(layer_norm_backward_agrees_with_finite_differences_of_the_forward_formula) {
  const int64_t rows = 3, width = 7;
  Random random(5);
  Array x = random.array(VOLTAIC_FLOAT32, {rows, width}),
        bias = random.array(VOLTAIC_FLOAT32, {width});
  Array weight = random.array(VOLTAIC_FLOAT32, {width}, 0.5, 2), y(VOLTAIC_FLOAT32, {rows, width});
  Array mean(VOLTAIC_FLOAT32, {rows}), inverse_std(VOLTAIC_FLOAT32, {rows});
  Array y_gradient = random.array(VOLTAIC_FLOAT32, {rows, width}),
        x_gradient(VOLTAIC_FLOAT32, {rows, width});
  Array weight_gradient = Array::zeros(VOLTAIC_FLOAT32, {width}), bias_gradient = weight_gradient;
  EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
  EXPECT(run("layer_norm_backward", {&y_gradient, &x, &mean, &inverse_std, &weight, &x_gradient,
                                     &weight_gradient, &bias_gradient}));
  std::vector<double> differences;
  const double step = 1e-5;
  for (int64_t i = 0; i < rows * width; i++) {
    double loss[2];
    for (int side = 0; side < 2; side++) {
      std::vector<double> moved = x.values();
      moved[i] += side ? step : -step;
      const Normalised normalised = layer_norm(moved, weight, bias, rows, width, 1e-12);
      loss[side] = 0;
      for (int64_t k = 0; k < rows * width; k++) loss[side] += normalised.y[k] * y_gradient.at(k);
    }
    differences.push_back((loss[1] - loss[0]) / (2 * step));
  }
  EXPECT_CLOSE(x_gradient, differences, 5e-6);
}

TEST(layer_norm_of_constant_rows_is_the_bias_with_epsilon_1e_minus_12) {
  for (int64_t width : {1, 3, 7, 64, 250, 256, 768}) {
    for (double value : {0.1, -1000.1, 1e-5, 12345.678, 0.0}) {
      const std::vector<double> constant(width, round_to(VOLTAIC_FLOAT32, value));
      Array x = Array::of_floats(VOLTAIC_FLOAT32, {1, width}, constant),
            y(VOLTAIC_FLOAT32, {1, width});
      Array weight = Array::of_floats(VOLTAIC_FLOAT32, {width}, std::vector<double>(width, 1.0));
      Array bias = Array::of_floats(VOLTAIC_FLOAT32, {width}, std::vector<double>(width, 0.25));
      Array mean(VOLTAIC_FLOAT32, {1}), inverse_std(VOLTAIC_FLOAT32, {1});
      EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
      EXPECT(mean.at(0) == constant[0]);
      EXPECT_CLOSE(y, std::vector<double>(width, 0.25), 1e-7);
      EXPECT(std::fabs(inverse_std.at(0) / 1e6 - 1) < 1e-3);
    }
  }
}

TEST(layer_norm_of_one_column_has_gradient_zero) {
  // inverse_std is 1e6 there, so anything but exact cancellation would show.
  Random random(4);
  Array x = random.array(VOLTAIC_FLOAT32, {9, 1}), y = x,
        y_gradient = random.array(VOLTAIC_FLOAT32, {9, 1});
  Array weight = random.array(VOLTAIC_FLOAT32, {1}),
        weight_gradient = Array::zeros(VOLTAIC_FLOAT32, {1});
  Array bias_gradient = weight_gradient, mean(VOLTAIC_FLOAT32, {9}), inverse_std = mean,
        x_gradient = x;
  EXPECT(run("layer_norm_forward", {&x, &weight, &weight, &y, &mean, &inverse_std}, {1e-12}));
  EXPECT(run("layer_norm_backward", {&y_gradient, &x, &mean, &inverse_std, &weight, &x_gradient,
                                     &weight_gradient, &bias_gradient}));
  for (int64_t i = 0; i < 9; i++) EXPECT(y.at(i) == weight.at(0) && x_gradient.at(i) == 0);
}

TEST(layer_norm_keeps_its_digits_far_from_zero) {
  Random random(9);
  const int64_t width = 96;
  Array x = random.array(VOLTAIC_FLOAT32, {2, width}, 999, 1001), y(VOLTAIC_FLOAT32, {2, width});
  Array weight = random.array(VOLTAIC_FLOAT32, {width}, 1, 2),
        bias = random.array(VOLTAIC_FLOAT32, {width});
  Array mean(VOLTAIC_FLOAT32, {2}), inverse_std(VOLTAIC_FLOAT32, {2});
  EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
  const Normalised want = layer_norm(x.values(), weight, bias, 2, width, 1e-12);
  EXPECT_CLOSE(inverse_std, want.inverse_std, 1e-6);
  EXPECT_CLOSE(y, want.y, 1e-4);  // the mean, an fp32 number near 1000, has a spacing of 6e-5
}

TEST(dropout_residual_layer_norm_matches_double_precision_and_the_philox_bits) {
  for (Random random : seeds(24)) {
    const voltaic_dtype dtype = random.float_dtype();
    const int64_t rows = random.size(50), width = random.size(70) + 3;
    const double probabilities[] = {0, 0.1, 0.5, 0.9};
    check_fused(random, dtype, rows, width, probabilities[random.integer(0, 3)]);
  }
}

TEST(layer_norm_over_many_tasks_sums_its_parameter_gradients) {
  Random random(3);
  const int64_t rows = 1100, width = 3;  // several tasks of 256 rows and a ragged last one
  Array x = random.array(VOLTAIC_FLOAT32, {rows, width}),
        weight = random.array(VOLTAIC_FLOAT32, {width});
  Array y(VOLTAIC_FLOAT32, {rows, width}),
      y_gradient = random.array(VOLTAIC_FLOAT32, {rows, width}, 0, 1);
  Array mean(VOLTAIC_FLOAT32, {rows}), inverse_std(VOLTAIC_FLOAT32, {rows}), x_gradient = y;
  Array weight_gradient = Array::zeros(VOLTAIC_FLOAT32, {width}), bias_gradient = weight_gradient;
  EXPECT(run("layer_norm_forward", {&x, &weight, &weight, &y, &mean, &inverse_std}, {1e-12}));
  EXPECT(run("layer_norm_backward", {&y_gradient, &x, &mean, &inverse_std, &weight, &x_gradient,
                                     &weight_gradient, &bias_gradient}));
  const Gradients want =
      layer_norm_gradients(y_gradient, x.values(), mean, inverse_std, weight, rows, width);
  EXPECT_CLOSE(weight_gradient, want.weight, 2e-6);
  EXPECT_CLOSE(bias_gradient, want.bias, 2e-6);
}

TEST(layer_norm_row_does_not_depend_on_the_other_rows) {
  for (Random random : seeds(6)) {
    const int64_t rows = random.size(30) + 1, width = random.size(70) + 1,
                  chosen = random.integer(0, rows - 1);
    Array x = random.array(VOLTAIC_FLOAT32, {rows, width}), y(VOLTAIC_FLOAT32, {rows, width});
    Array weight = random.array(VOLTAIC_FLOAT32, {width}),
          bias = random.array(VOLTAIC_FLOAT32, {width});
    Array mean(VOLTAIC_FLOAT32, {rows}), inverse_std(VOLTAIC_FLOAT32, {rows});
    Array one_x(VOLTAIC_FLOAT32, {1, width}), one_y = one_x, one_mean(VOLTAIC_FLOAT32, {1}),
                                              one_std = one_mean;
    for (int64_t j = 0; j < width; j++) one_x.set(j, x.at(chosen * width + j));
    EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
    EXPECT(
        run("layer_norm_forward", {&one_x, &weight, &bias, &one_y, &one_mean, &one_std}, {1e-12}));
    for (int64_t j = 0; j < width; j++) EXPECT(one_y.at(j) == y.at(chosen * width + j));
    EXPECT(one_mean.at(0) == mean.at(chosen) && one_std.at(0) == inverse_std.at(chosen));
  }
}

TEST(layer_norm_keeps_nan_within_its_row) {
  const int64_t rows = 3, width = 20;
  Random random(1);
  Array x = random.array(VOLTAIC_FLOAT32, {rows, width}), y(VOLTAIC_FLOAT32, {rows, width});
  Array weight = random.array(VOLTAIC_FLOAT32, {width}),
        bias = random.array(VOLTAIC_FLOAT32, {width});
  Array mean(VOLTAIC_FLOAT32, {rows}), inverse_std(VOLTAIC_FLOAT32, {rows});
  x.set(width + 17, NAN);
  EXPECT(run("layer_norm_forward", {&x, &weight, &bias, &y, &mean, &inverse_std}, {1e-12}));
  for (int64_t i = 0; i < rows * width; i++) EXPECT(std::isnan(y.at(i)) == (i / width == 1));
  EXPECT(std::isnan(mean.at(1)) && std::isnan(inverse_std.at(1)) && !std::isnan(mean.at(2)));
}

TEST(layer_norm_of_no_rows_succeeds_and_leaves_the_gradients) {
  Array none(VOLTAIC_FLOAT32, {0, 5}), y = none, sum = none, statistics(VOLTAIC_FLOAT32, {0}),
                                       more = statistics;
  Array x_gradient = none, residual_gradient = none;
  Random random(2);
  Array weight = random.array(VOLTAIC_FLOAT32, {5}), gradient = random.array(VOLTAIC_FLOAT32, {5});
  const std::vector<double> before = gradient.values();
  Array bias_gradient = gradient;
  EXPECT(run("layer_norm_forward", {&none, &weight, &weight, &y, &statistics, &more}, {1e-12}));
  EXPECT(run("layer_norm_backward", {&none, &none, &statistics, &statistics, &weight, &x_gradient,
                                     &gradient, &bias_gradient}));
  EXPECT(run("dropout_residual_layer_norm_forward",
             {&none, &none, &weight, &weight, nullptr, &sum, &y, &statistics, &more},
             {1e-12, 0, 0}));
  EXPECT(gradient.values() == before && bias_gradient.values() == before);
}

TEST(dropout_without_a_state_or_with_an_impossible_probability_is_refused) {
  Array x = Array::zeros(VOLTAIC_FLOAT32, {2, 3}), weight = Array::zeros(VOLTAIC_FLOAT32, {3});
  Array sum = x, y = x, mean(VOLTAIC_FLOAT32, {2}), inverse_std = mean,
        state = Array::of_ints({4}, {1, 2, 3, 4});
  EXPECT(!run("dropout_residual_layer_norm_forward",
              {&x, &x, &weight, &weight, nullptr, &sum, &y, &mean, &inverse_std}, {1e-12, 0.1, 0}));
  EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  for (double probability : {-0.1, 1.5, double(NAN)}) {
    EXPECT(!run("dropout_residual_layer_norm_forward",
                {&x, &x, &weight, &weight, &state, &sum, &y, &mean, &inverse_std},
                {1e-12, probability, 0}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}
