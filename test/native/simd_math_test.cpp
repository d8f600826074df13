// The elementary functions of native/cpu/simd_math.h against double precision, over all of fp32:
// the stated error bounds, special values, and one arithmetic for every lane. This unit is compiled
// for the baseline instruction set; the ops that use these functions check the others.
#ifndef VOLTAIC_ISA
#define VOLTAIC_ISA portable
#endif
#include "../../native/cpu/activation_functions.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "harness.h"

namespace {

constexpr float kLeastNormal = 1.17549435e-38f;

float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// The error in units in the last place of the exact result. Results below the normal numbers may be
// flushed.
double error_in_units(float got, double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : INFINITY;
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded)) return got == rounded ? 0 : INFINITY;
  if (std::fabs(exact) < kLeastNormal) return std::fabs(got) <= kLeastNormal ? 0 : INFINITY;
  return std::fabs(got - exact) / std::ldexp(1.0, std::ilogb(exact) - 23);
}

// The largest error over a dense sample of all floats, of both signs, from low to high.
void expect_within(const char* name, double bound, float (*function)(float),
                   double (*exact)(double), float low, float high) {
  double worst = 0;
  float worst_at = 0;
  for (uint32_t bits = 0; bits <= 0x7f800000u; bits += 10007) {
    for (uint32_t sign : {0u, 0x80000000u}) {
      const float x = from_bits(bits | sign);
      if (!(x >= low && x <= high)) continue;
      const double error = error_in_units(function(x), exact(static_cast<double>(x)));
      if (error > worst) {
        worst = error;
        worst_at = x;
      }
    }
  }
  EXPECT_TEXT(worst <= bound, std::string(name) + ": " + std::to_string(worst) + " units at " +
                                  std::to_string(worst_at));
}

constexpr float kAll = INFINITY;

float unfused_exp(float x) { return voltaic::vexp_form<false>(voltaic::splat(x))[0]; }
float unfused_log(float x) { return voltaic::vlog_form<false>(voltaic::splat(x))[0]; }
float upper_tail(float x) { return voltaic::normal_tail(voltaic::splat(x)).upper[0]; }

}  // namespace

TEST(exp_log_erf_and_tanh_are_within_2_units_in_the_last_place) {
  expect_within(
      "exp", 2, voltaic::scalar_exp, [](double x) { return std::exp(x); }, -kAll, kAll);
  expect_within(
      "log", 2, voltaic::scalar_log, [](double x) { return std::log(x); }, -kAll, kAll);
  expect_within(
      "erf", 2, voltaic::scalar_erf, [](double x) { return std::erf(x); }, -kAll, kAll);
  expect_within(
      "tanh", 2, voltaic::scalar_tanh, [](double x) { return std::tanh(x); }, -kAll, kAll);
  expect_within(
      "unfused exp", 2, unfused_exp, [](double x) { return std::exp(x); }, -kAll, kAll);
  expect_within(
      "unfused log", 2, unfused_log, [](double x) { return std::log(x); }, -kAll, kAll);
}

TEST(sigmoid_and_softplus_are_within_3_units_in_the_last_place) {
  expect_within(
      "sigmoid", 3, voltaic::scalar_sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -87,
      kAll);
  expect_within(
      "softplus", 3, voltaic::scalar_softplus_negative_abs,
      [](double x) { return std::log1p(std::exp(-std::fabs(x))); }, -87, 87);
}

TEST(upper_tail_of_the_normal_distribution_keeps_relative_accuracy) {
  // In units: 8 up to t = 2; further out the rounding of t^2 / 2 adds t^2 / 2 halves of one or so.
  const auto exact = [](double t) { return std::erfc(t / std::sqrt(2.0)) / 2; };
  expect_within("upper tail", 8, upper_tail, exact, 0, 2);
  expect_within("upper tail", 100, upper_tail, exact, 0, 12.5f);
}

TEST(elementary_functions_take_special_values_as_c_does) {
  const float quiet = NAN;
  EXPECT(std::isnan(voltaic::scalar_exp(quiet)) && std::isnan(voltaic::scalar_log(quiet)));
  EXPECT(std::isnan(voltaic::scalar_erf(quiet)) && std::isnan(voltaic::scalar_tanh(quiet)));
  EXPECT(std::isnan(voltaic::scalar_sigmoid(quiet)) &&
         std::isnan(voltaic::scalar_softplus_negative_abs(quiet)));
  // Payloads that an integer trick on the exponent could turn into numbers
  for (uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xffc00123u, 0xff800001u, 0x7fc001ffu})
    EXPECT(std::isnan(voltaic::scalar_exp(from_bits(bits))) &&
           std::isnan(voltaic::scalar_tanh(from_bits(bits))) &&
           std::isnan(voltaic::scalar_erf(from_bits(bits))) &&
           std::isnan(voltaic::vgelu(voltaic::splat(from_bits(bits)))[0]) &&
           std::isnan(voltaic::vgelu_gradient(voltaic::splat(from_bits(bits)))[0]));
  EXPECT(voltaic::scalar_exp(INFINITY) == INFINITY && voltaic::scalar_exp(-INFINITY) == 0);
  EXPECT(voltaic::scalar_exp(88.7228317f) < INFINITY && voltaic::scalar_exp(88.73f) == INFINITY);
  EXPECT(voltaic::scalar_exp(0) == 1 && voltaic::scalar_exp(-0.0f) == 1 &&
         voltaic::scalar_exp(-3e38f) == 0);
  EXPECT(voltaic::scalar_log(0) == -INFINITY && voltaic::scalar_log(-0.0f) == -INFINITY);
  EXPECT(std::isnan(voltaic::scalar_log(-1e-40f)) && std::isnan(voltaic::scalar_log(-INFINITY)));
  EXPECT(voltaic::scalar_log(INFINITY) == INFINITY && voltaic::scalar_log(1) == 0);
  EXPECT(voltaic::scalar_erf(INFINITY) == 1 && voltaic::scalar_erf(-INFINITY) == -1);
  EXPECT(voltaic::scalar_tanh(INFINITY) == 1 && voltaic::scalar_tanh(-INFINITY) == -1);
  EXPECT(std::signbit(voltaic::scalar_tanh(-0.0f)) && std::signbit(voltaic::scalar_erf(-0.0f)));
  EXPECT(voltaic::scalar_sigmoid(INFINITY) == 1 && voltaic::scalar_sigmoid(-INFINITY) == 0);
  EXPECT(voltaic::scalar_softplus_negative_abs(-INFINITY) == 0);
}

TEST(every_lane_computes_as_lane_0) {
  for (voltaic::test::Random random : voltaic::test::seeds(200)) {
    voltaic::vfloat x;
    for (int lane = 0; lane < voltaic::kWidth; lane++)
      x[lane] = static_cast<float>(random.uniform(-20, 20));
    const voltaic::vfloat together[] = {voltaic::vexp(x), voltaic::vlog(x * x), voltaic::verf(x),
                                        voltaic::vtanh(x), voltaic::vgelu(x)};
    for (int lane = 0; lane < voltaic::kWidth; lane++) {
      EXPECT(together[0][lane] == voltaic::scalar_exp(x[lane]));
      EXPECT(together[1][lane] == voltaic::scalar_log(x[lane] * x[lane]));
      EXPECT(together[2][lane] == voltaic::scalar_erf(x[lane]));
      EXPECT(together[3][lane] == voltaic::scalar_tanh(x[lane]));
      EXPECT(together[4][lane] == voltaic::vgelu(voltaic::splat(x[lane]))[0]);
    }
  }
}
