// Random numbers: every op against its formula on the words of philox.h, and the very bits that
// every build must give.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;

namespace {

uint32_t word(Array& state, uint32_t site, int64_t i) {
  return voltaic_random_block(state.ints(), site, static_cast<uint64_t>(i / 4)).word[i % 4];
}
double uniform(Array& state, uint32_t site, int64_t i) {
  return voltaic_uniform(word(state, site, i));
}

Array random_state(Random& random) { return random.int_array({4}, -2147483648LL, 2147483647LL); }
uint32_t random_site(Random& random) {
  return static_cast<uint32_t>(random.integer(0, 4294967295LL));
}

// The distribution function of the standard normal.
double normal_distribution(double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; }

// FNV-1a over an array's bytes.
uint64_t hash(const Array& array) {
  uint64_t result = 0xcbf29ce484222325ull;
  for (uint8_t byte : array.bytes) result = (result ^ byte) * 0x100000001b3ull;
  return result;
}

}  // namespace

TEST(uniform_and_bernoulli_follow_their_words) {
  for (Random random : seeds(12)) {
    Array state = random_state(random);
    const uint32_t site = random_site(random);
    const int64_t n = random.size(700);
    const double low = random.uniform(-3, 0), high = random.uniform(0.5, 3),
                 probability = random.uniform(0, 1);
    Array y(VOLTAIC_FLOAT32, {n}), coin(VOLTAIC_UINT8, {n});
    EXPECT(run("uniform", {&state, &y}, {low, high, double(site)}));
    EXPECT(run("bernoulli", {&state, &coin}, {probability, double(site)}));
    std::vector<double> want;
    std::vector<int64_t> coins;
    for (int64_t i = 0; i < n; i++) {
      want.push_back(low + uniform(state, site, i) * (high - low));
      coins.push_back(uniform(state, site, i) < static_cast<float>(probability));
    }
    EXPECT_CLOSE(y, want, 5e-7);
    EXPECT_EQUAL(coin, coins);
  }
}

TEST(bernoulli_of_zero_and_one_is_certain_and_other_values_are_refused) {
  Random random(1);
  Array state = random_state(random), y(VOLTAIC_UINT8, {500});
  EXPECT(run("bernoulli", {&state, &y}, {0, 3}));
  EXPECT_EQUAL(y, std::vector<int64_t>(500, 0));
  EXPECT(run("bernoulli", {&state, &y}, {1, 3}));
  EXPECT_EQUAL(y, std::vector<int64_t>(500, 1));
  for (double probability : {-0.01, 1.01, double(NAN)}) {
    EXPECT(!run("bernoulli", {&state, &y}, {probability, 3}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}

TEST(normal_is_box_muller_on_pairs_of_words) {
  for (Random random : seeds(12)) {
    Array state = random_state(random);
    const uint32_t site = random_site(random);
    const int64_t n = random.size(700);
    const double mean = random.uniform(-1, 1), std = random.uniform(0.01, 2);
    Array y(VOLTAIC_FLOAT32, {n});
    EXPECT(run("normal", {&state, &y}, {mean, std, double(site)}));
    std::vector<double> want;
    for (int64_t i = 0; i < n; i++) {
      const double radius = std::sqrt(-2 * std::log(uniform(state, site, i / 2 * 2)));
      const double angle = 2 * 3.14159265358979323846 * uniform(state, site, i / 2 * 2 + 1);
      want.push_back(mean + std * radius * (i % 2 ? std::sin(angle) : std::cos(angle)));
    }
    EXPECT_CLOSE(y, want, 1e-6);
  }
}

TEST(truncated_normal_is_the_quantile_of_its_uniform) {
  for (Random random : seeds(12)) {
    Array state = random_state(random);
    const uint32_t site = random_site(random);
    const int64_t n = random.size(700);
    Array z(VOLTAIC_FLOAT32, {n}), y(VOLTAIC_FLOAT32, {n});
    EXPECT(run("truncated_normal", {&state, &z}, {0, 1, double(site)}));
    EXPECT(run("truncated_normal", {&state, &y}, {0.5, 0.02, double(site)}));
    const double inside = normal_distribution(2) - normal_distribution(-2);
    std::vector<double> shifted;
    for (int64_t i = 0; i < n; i++) {
      EXPECT(std::fabs(z.at(i)) <= 2);
      const double u = (normal_distribution(z.at(i)) - normal_distribution(-2)) / inside;
      EXPECT(std::fabs(u - uniform(state, site, i)) < 3e-7);
      shifted.push_back(0.5 + 0.02 * z.at(i));
    }
    EXPECT_CLOSE(y, shifted, 1e-6);
  }
}

TEST(random_numbers_have_the_moments_of_their_distributions) {
  Array state = Array::of_ints({4}, {12345, -6789, 7, 2});
  const int64_t n = 20000;
  struct Case {
    const char* op;
    double a, b, mean, deviation, fourth;
  };
  // The standard deviation of the normal cut at two is 0.8796256610, its fourth moment 1.4158688.
  const double cut = 0.8796256610342398;
  for (const Case& c :
       {Case{"uniform", -1, 1, 0, std::sqrt(1.0 / 3), 0.2}, Case{"normal", 0, 1, 0, 1, 3},
        Case{"truncated_normal", 0, 1, 0, cut, 1.4158688}}) {
    Array y(VOLTAIC_FLOAT32, {n});
    EXPECT(run(c.op, {&state, &y}, {c.a, c.b, 11}));
    double mean = 0, square = 0, fourth = 0, neighbours = 0;
    for (int64_t i = 0; i < n; i++) {
      mean += y.at(i) / n;
      square += y.at(i) * y.at(i) / n;
      fourth += std::pow(y.at(i), 4) / n;
      neighbours += i > 0 ? y.at(i) * y.at(i - 1) / n : 0;
    }
    const double error = 4 / std::sqrt(double(n));  // four standard errors
    EXPECT(std::fabs(mean - c.mean) < error * c.deviation);
    EXPECT(std::fabs(square - c.deviation * c.deviation) < error * 1.5);
    EXPECT(std::fabs(fourth - c.fourth) < error * 10);
    EXPECT(std::fabs(neighbours) < error);
  }
}

TEST(random_numbers_are_the_same_bits_in_every_build) {
  // Found with the portable build; nothing in the formulas may be fused or reordered.
  Array state = Array::of_ints({4}, {-1640531527, 42, 1000, 3});
  Array y(VOLTAIC_FLOAT32, {1003});
  EXPECT(run("uniform", {&state, &y}, {-0.25, 1.5, 9}));
  EXPECT_TEXT(hash(y) == 0xbdfc6ef088f90a5bull, "uniform: " + std::to_string(hash(y)));
  EXPECT(run("normal", {&state, &y}, {0.125, 0.02, 9}));
  EXPECT_TEXT(hash(y) == 0x331d36c90f17e5b7ull, "normal: " + std::to_string(hash(y)));
  EXPECT(run("truncated_normal", {&state, &y}, {0, 0.02, 9}));
  EXPECT_TEXT(hash(y) == 0xd224ce790df26777ull, "truncated_normal: " + std::to_string(hash(y)));
}

TEST(permutation_sorts_by_word_then_index) {
  for (Random random : seeds(12)) {
    Array state = random_state(random);
    const uint32_t site = random_site(random);
    const int64_t n = random.size(3000);
    Array y(VOLTAIC_INT32, {n});
    EXPECT(run("permutation", {&state, &y}, {double(site)}));
    std::vector<std::pair<uint32_t, int64_t>> order;
    for (int64_t i = 0; i < n; i++) order.push_back({word(state, site, i), i});
    std::sort(order.begin(), order.end());
    std::vector<int64_t> want;
    for (const auto& entry : order) want.push_back(entry.second);
    EXPECT_EQUAL(y, want);
  }
}

TEST(dropout_zeroes_by_16_bit_numbers_and_scales_the_rest) {
  for (Random random : seeds(16)) {
    const voltaic_dtype dtype = random.float_dtype();
    Array state = random_state(random);
    const uint32_t site = random_site(random);
    const double probabilities[] = {0, 0.1, 0.5, 1},
                 probability = probabilities[random.integer(0, 3)];
    const int64_t rows = random.size(30), width = random.size(60);
    Array x = random.array(dtype, {rows, width}), y(dtype, {rows, width});
    EXPECT(run("dropout", {&x, &state, &y}, {probability, double(site)}));
    const uint32_t threshold = voltaic_dropout_threshold(probability);
    std::vector<double> want;
    for (int64_t i = 0; i < rows * width; i++) {
      const voltaic_random4 block =
          voltaic_random_block(state.ints(), site, static_cast<uint64_t>(i / 8));
      const bool keep = voltaic_random16(&block, static_cast<int>(i % 8)) >= threshold;
      want.push_back(keep ? x.at(i) * 65536.0 / (65536.0 - threshold) : 0);
      if (!keep) EXPECT(y.at(i) == 0);
    }
    EXPECT_CLOSE(y, want, 2e-7);
  }
}

TEST(dropout_keeps_nan_where_it_keeps_and_refuses_impossible_probabilities) {
  Random random(1);
  Array state = random_state(random), x(VOLTAIC_FLOAT32, {4000}), y = x;  // x is all NaN
  EXPECT(run("dropout", {&x, &state, &y}, {0.25, 4}));
  int64_t kept = 0;
  for (int64_t i = 0; i < 4000; i++) {
    EXPECT(std::isnan(y.at(i)) || y.at(i) == 0);
    kept += std::isnan(y.at(i));
  }
  EXPECT(std::abs(kept - 3000) < 120);  // four standard deviations
  EXPECT(!run("dropout", {&x, &state, &y}, {-0.5, 4}));
  EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
}

TEST(random_ops_fill_nothing_when_there_is_nothing) {
  Random random(2);
  Array state = random_state(random), y(VOLTAIC_FLOAT32, {0}), n(VOLTAIC_INT32, {0}),
        coin(VOLTAIC_UINT8, {0});
  EXPECT(run("uniform", {&state, &y}, {0, 1, 1}));
  EXPECT(run("normal", {&state, &y}, {0, 1, 1}));
  EXPECT(run("truncated_normal", {&state, &y}, {0, 1, 1}));
  EXPECT(run("bernoulli", {&state, &coin}, {0.5, 1}));
  EXPECT(run("permutation", {&state, &n}, {1}));
  EXPECT(run("dropout", {&y, &state, &y}, {0.5, 1}));
}

TEST(long_permutations_are_sorted_by_many_blocks) {
  Random random(3);
  Array state = random_state(random);
  for (const int64_t n : {8193, 131073 + 2048}) {
    Array y(VOLTAIC_INT32, {n});
    EXPECT(run("permutation", {&state, &y}, {5}));
    std::vector<std::pair<uint32_t, int64_t>> order;
    for (int64_t i = 0; i < n; i++) order.push_back({word(state, 5, i), i});
    std::sort(order.begin(), order.end());
    std::vector<int64_t> want;
    for (const auto& entry : order) want.push_back(entry.second);
    EXPECT_EQUAL(y, want);
  }
}

TEST(random_numbers_do_not_depend_on_where_they_stand) {
  Random random(4);
  Array state = random_state(random);
  for (const int64_t n : {1024 + 8, 77}) {
    Array y(VOLTAIC_FLOAT32, {n}), coin(VOLTAIC_UINT8, {n}),
        x = random.array(VOLTAIC_BFLOAT16, {n}), dropped(VOLTAIC_BFLOAT16, {n});
    EXPECT(run("normal", {&state, &y}, {0, 1, 6}));
    EXPECT(run("bernoulli", {&state, &coin}, {0.3, 6}));
    EXPECT(run("dropout", {&x, &state, &dropped}, {0.3, 6}));
    Array in_place = x;
    EXPECT(run("dropout", {&in_place, &state, &in_place}, {0.3, 6}));
    EXPECT(in_place.bytes == dropped.bytes);
    const Shifted shifted(1);
    Array moved(VOLTAIC_FLOAT32, {n}), coins(VOLTAIC_UINT8, {n}), also(VOLTAIC_BFLOAT16, {n});
    EXPECT(run("normal", {&state, &moved}, {0, 1, 6}));
    EXPECT(run("bernoulli", {&state, &coins}, {0.3, 6}));
    EXPECT(run("dropout", {&x, &state, &also}, {0.3, 6}));
    EXPECT(moved.bytes == y.bytes);
    EXPECT(coins.bytes == coin.bytes);
    EXPECT(also.bytes == dropped.bytes);
  }
}
