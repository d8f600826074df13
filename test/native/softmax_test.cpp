// Softmax, log-softmax and the ragged cross-entropy against plain loops in double precision.
#include <cmath>
#include <limits>

#include "harness.h"

using namespace voltaic::test;
using Doubles = std::vector<double>;
using Integers = std::vector<int64_t>;

namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> softmax_of(const std::vector<double>& x, int64_t width, bool logarithm) {
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(width)) {
    double most = -INFINITY, sum = 0;
    for (size_t i = row; i < row + static_cast<size_t>(width); i++) most = std::fmax(most, x[i]);
    for (size_t i = row; i < row + static_cast<size_t>(width); i++) sum += std::exp(x[i] - most);
    for (size_t i = row; i < row + static_cast<size_t>(width); i++)
      y[i] = logarithm ? x[i] - most - std::log(sum) : std::exp(x[i] - most) / sum;
  }
  return y;
}

void check_rows(Random& random, voltaic_dtype dtype, int64_t rows, int64_t width) {
  const bool logarithm = random.next() & 1;
  const std::vector<int64_t> shape = {rows, width};
  Array x = random.array(dtype, shape, -8, 8), y(dtype, shape);
  EXPECT(run("softmax_forward", {&x, &y}, {logarithm ? 1.0 : 0.0}));
  EXPECT_CLOSE(y, softmax_of(x.values(), width, logarithm), 2e-6);

  Array y_gradient = random.array(dtype, shape), x_gradient(dtype, shape);
  std::vector<double> expected;
  for (int64_t row = 0; row < rows; row++) {
    double sum = 0;
    for (int64_t i = row * width; i < (row + 1) * width; i++)
      sum += logarithm ? y_gradient.at(i) : y.at(i) * y_gradient.at(i);
    for (int64_t i = row * width; i < (row + 1) * width; i++)
      expected.push_back(logarithm ? y_gradient.at(i) - std::exp(y.at(i)) * sum
                                   : y.at(i) * (y_gradient.at(i) - sum));
  }
  EXPECT(run("softmax_backward", {&y, &y_gradient, &x_gradient}, {logarithm ? 1.0 : 0.0}));
  EXPECT_CLOSE(x_gradient, expected, 5e-6);
}

std::vector<int64_t> random_shape(Random& random) {
  switch (random.next() % 3) {
    case 0:
      return {random.size(130)};
    case 1:
      return {random.size(20), random.size(130)};
    default:
      return {random.integer(1, 4), random.integer(0, 3), random.size(70)};
  }
}

struct Ragged {
  Array logits, offsets, targets, loss, log_sum_exp, valid;
  bool forward() {
    loss = Array(VOLTAIC_FLOAT32, {1});
    log_sum_exp = Array(VOLTAIC_FLOAT32, targets.shape);
    valid = Array(VOLTAIC_INT32, {1});
    return run("ragged_cross_entropy_forward",
               {&logits, &offsets, &targets, &loss, &log_sum_exp, &valid});
  }
  bool backward(Array& upstream, Array& gradient) {
    gradient = Array(VOLTAIC_FLOAT32, logits.shape);
    return run("ragged_cross_entropy_backward",
               {&upstream, &logits, &offsets, &targets, &log_sum_exp, &valid, &gradient});
  }
};

Ragged make_ragged(Random& random, int64_t sequences, int64_t longest) {
  Ragged r;
  r.offsets = random.offsets(sequences, 0, longest);
  r.logits = random.array(VOLTAIC_FLOAT32, {r.offsets.ints()[sequences]}, -6, 6);
  std::vector<int32_t> targets;
  for (int64_t s = 0; s < sequences; s++) {
    const int32_t length = r.offsets.ints()[s + 1] - r.offsets.ints()[s];
    targets.push_back(length == 0 || random.next() % 4 == 0
                          ? -100
                          : static_cast<int32_t>(random.integer(0, length - 1)));
  }
  r.targets = Array::of_ints({sequences}, targets);
  return r;
}

}  // namespace

TEST(softmax_matches_the_reference_on_random_shapes) {
  for (Random random : seeds(40)) {
    const bool logarithm = random.next() & 1;
    Array x = random.array(random.float_dtype(), random_shape(random), -20, 20);
    Array y(x.dtype, x.shape);
    EXPECT(run("softmax_forward", {&x, &y}, {logarithm ? 1.0 : 0.0}));
    EXPECT_CLOSE(y, softmax_of(x.values(), x.shape.back(), logarithm), 1e-6);
  }
}

TEST(softmax_gradient_matches_the_reference_on_random_shapes) {
  for (Random random : seeds(40)) {
    const bool logarithm = random.next() & 1;
    const voltaic_dtype dtype = random.float_dtype();
    const std::vector<int64_t> shape = random_shape(random);
    const int64_t width = shape.back();
    Array x = random.array(VOLTAIC_FLOAT32, shape, -4, 4);
    Array y = Array::of_floats(dtype, shape, softmax_of(x.values(), width, logarithm));
    Array y_gradient = random.array(dtype, shape), x_gradient(dtype, shape);
    std::vector<double> expected;
    for (int64_t i = 0; i < y.elements(); i++) {
      double sum = 0;
      for (int64_t j = i / width * width; j < i / width * width + width; j++)
        sum += logarithm ? y_gradient.at(j) : y.at(j) * y_gradient.at(j);
      expected.push_back(logarithm ? y_gradient.at(i) - std::exp(y.at(i)) * sum
                                   : y.at(i) * (y_gradient.at(i) - sum));
    }
    EXPECT(run("softmax_backward", {&y, &y_gradient, &x_gradient}, {logarithm ? 1.0 : 0.0}));
    EXPECT_CLOSE(x_gradient, expected, 3e-6);
  }
}

// Rows that have a part of a warp, several warps or a whole block of a card, and rows that no block
// holds; rows that begin at 16 bytes and rows that do not.
TEST(softmax_and_its_gradient_match_the_reference_on_rows_of_every_length) {
  int64_t seed = 0;
  for (int64_t width : {16, 48, 67, 520, 1031, 4104, 16392, 20001, 32776, 33001}) {
    Random random(static_cast<uint64_t>(++seed));
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      check_rows(random, dtype, width < 100 ? 100 : 2, width);
  }
}

TEST(softmax_rows_may_start_at_any_element) {
  Random random(11);
  for (int64_t elements : {1, 4}) {  // four begin at 16 bytes in fp32, not in bf16
    const Shifted shifted(elements);
    for (int64_t width : {16, 520, 4104, 33000})
      for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
        check_rows(random, dtype, width < 100 ? 40 : 2, width);
  }
}

TEST(softmax_gradient_agrees_with_finite_differences) {
  for (Random random : seeds(4)) {
    const bool logarithm = random.next() & 1;
    Array x = random.array(VOLTAIC_FLOAT32, {2, 7}), g = random.array(VOLTAIC_FLOAT32, {2, 7});
    Array y(VOLTAIC_FLOAT32, {2, 7}), x_gradient(VOLTAIC_FLOAT32, {2, 7});
    EXPECT(run("softmax_forward", {&x, &y}, {logarithm ? 1.0 : 0.0}));
    EXPECT(run("softmax_backward", {&y, &g, &x_gradient}, {logarithm ? 1.0 : 0.0}));
    const auto loss = [&](const std::vector<double>& values) {
      const std::vector<double> result = softmax_of(values, 7, logarithm);
      double sum = 0;
      for (size_t i = 0; i < result.size(); i++) sum += result[i] * g.at(static_cast<int64_t>(i));
      return sum;
    };
    std::vector<double> expected;
    for (size_t i = 0; i < 14; i++) {
      std::vector<double> above = x.values(), below = above;
      above[i] += 1e-5;
      below[i] -= 1e-5;
      expected.push_back((loss(above) - loss(below)) / 2e-5);
    }
    EXPECT_CLOSE(x_gradient, expected, 3e-6);
  }
}

TEST(softmax_of_a_scalar_is_one_and_of_nothing_is_nothing) {
  Array scalar = Array::of_floats(VOLTAIC_FLOAT32, {}, {3}), y(VOLTAIC_FLOAT32, {});
  EXPECT(run("softmax_forward", {&scalar, &y}, {0}));
  EXPECT(y.at(0) == 1);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{0}, {3, 0}, {0, 5}}) {
    Array none(VOLTAIC_FLOAT32, shape), result(VOLTAIC_FLOAT32, shape);
    EXPECT(run("softmax_forward", {&none, &result}, {1}));
    EXPECT(run("softmax_backward", {&none, &none, &result}, {1}));
  }
}

TEST(softmax_is_stable_and_works_in_place) {
  for (Random random : seeds(2)) {
    const bool logarithm = random.next() & 1;
    Array x = Array::of_floats(VOLTAIC_FLOAT32, {3, 3},
                               {3e38, -3e38, 3e38, 1000, 1001, -1000, -INFINITY, 0, 1});
    const std::vector<double> expected = softmax_of(x.values(), 3, logarithm);
    EXPECT(run("softmax_forward", {&x, &x}, {logarithm ? 1.0 : 0.0}));
    for (int64_t i = 0; i < 9; i++) {
      const double want = expected[static_cast<size_t>(i)], got = x.at(i);
      EXPECT(want < -3.4e38 ? got < -3.4e38
                            : std::fabs(got - want) <= 1e-6 * (1 + std::fabs(want)));
    }
  }
}

TEST(softmax_of_long_rows_works_in_place_and_keeps_infinities_and_nan) {
  constexpr int64_t kWidth = 33000;
  for (Random random : seeds(2)) {
    const bool logarithm = random.next() & 1;
    Array x = random.array(VOLTAIC_FLOAT32, {3, kWidth});
    for (int64_t i = 0; i < 20000; i++) x.set(i, -INFINITY);
    for (int64_t i = kWidth; i < 2 * kWidth; i++) x.set(i, -INFINITY);
    x.set(3 * kWidth - 2, kNan);
    const std::vector<double> expected = softmax_of(x.values(), kWidth, logarithm);
    EXPECT(run("softmax_forward", {&x, &x}, {logarithm ? 1.0 : 0.0}));
    for (int64_t i = 0; i < 3 * kWidth; i++) {
      const double want = i < kWidth ? expected[static_cast<size_t>(i)] : kNan, got = x.at(i);
      const bool same = std::isfinite(want) ? std::fabs(got - want) <= 2e-6 * (1 + std::fabs(want))
                        : std::isnan(want)  ? std::isnan(got)
                                            : got == want;
      if (!same) EXPECT_TEXT(false, "element " + std::to_string(i) + " is " + std::to_string(got));
    }
  }
}

TEST(softmax_keeps_nan_within_its_row) {
  for (Random random : seeds(4)) {
    const bool logarithm = random.next() & 1;
    Array x = random.array(random.float_dtype(), {3, 37});
    x.set(37 + random.integer(0, 36), kNan);
    Array y(x.dtype, x.shape);
    EXPECT(run("softmax_forward", {&x, &y}, {logarithm ? 1.0 : 0.0}));
    for (int64_t i = 0; i < x.elements(); i++) EXPECT(std::isnan(y.at(i)) == (i / 37 == 1));
  }
}

TEST(softmax_of_a_row_does_not_depend_on_its_place) {
  for (Random random : seeds(4)) {
    const int64_t width = random.size(70);
    Array all = random.array(VOLTAIC_FLOAT32, {5, width}), y(VOLTAIC_FLOAT32, {5, width});
    Array one(VOLTAIC_FLOAT32, {1, width}), one_y(VOLTAIC_FLOAT32, {1, width});
    const long bytes = static_cast<long>(width) * 4;
    std::copy_n(all.bytes.begin() + 3 * bytes, bytes, one.bytes.begin());
    EXPECT(run("softmax_forward", {&all, &y}, {0}));
    EXPECT(run("softmax_forward", {&one, &one_y}, {0}));
    EXPECT(std::equal(one_y.bytes.begin(), one_y.bytes.end(), y.bytes.begin() + 3 * bytes));
  }
}

TEST(ragged_cross_entropy_matches_the_reference) {
  for (Random random : seeds(30)) {
    Ragged r = make_ragged(random, random.integer(0, 12), random.size(130));
    EXPECT(r.forward());
    const int64_t sequences = r.targets.elements();
    double loss = 0;
    int64_t valid = 0;
    std::vector<double> log_sum_exp, gradient(static_cast<size_t>(r.logits.elements()), 0);
    for (int64_t s = 0; s < sequences; s++) {
      const int64_t begin = r.offsets.ints()[s], end = r.offsets.ints()[s + 1];
      double sum = 0;
      for (int64_t t = begin; t < end; t++) sum += std::exp(r.logits.at(t));
      log_sum_exp.push_back(std::log(sum));
      const int32_t target = r.targets.ints()[s];
      if (target == -100) continue;
      valid++;
      loss += std::log(sum) - r.logits.at(begin + target);
      for (int64_t t = begin; t < end; t++)
        gradient[static_cast<size_t>(t)] = std::exp(r.logits.at(t)) / sum - (t - begin == target);
    }
    EXPECT_CLOSE(r.loss, Doubles{valid ? loss / static_cast<double>(valid) : 0}, 1e-6);
    EXPECT_EQUAL(r.valid, Integers{valid});
    for (int64_t s = 0; s < sequences; s++) {
      const double want = log_sum_exp[static_cast<size_t>(s)];
      EXPECT(std::isinf(want) ? r.log_sum_exp.at(s) == want
                              : std::fabs(r.log_sum_exp.at(s) - want) < 1e-5);
    }
    Array upstream = random.array(VOLTAIC_FLOAT32, {1}, 0.1, 2), result;
    EXPECT(r.backward(upstream, result));
    for (double& g : gradient) g *= upstream.at(0) / static_cast<double>(valid ? valid : 1);
    EXPECT_CLOSE(result, gradient, 5e-6);
  }
}

TEST(ragged_cross_entropy_refuses_bad_targets_and_offsets_with_a_reason) {
  for (Random random : seeds(1)) {
    const auto refused = [&](std::vector<int32_t> offsets, std::vector<int32_t> targets,
                             voltaic_status status) {
      Ragged r;
      r.logits = random.array(VOLTAIC_FLOAT32, {10});
      r.offsets = Array::of_ints({static_cast<int64_t>(offsets.size())}, offsets);
      r.targets = Array::of_ints({static_cast<int64_t>(targets.size())}, targets);
      EXPECT(!r.forward());
      EXPECT(last_status() == status);
    };
    refused({0, 4, 10}, {4, 0},
            VOLTAIC_ERROR_ARGUMENT);  // one past its sequence, though inside the run
    refused({0, 4, 10}, {0, -1}, VOLTAIC_ERROR_ARGUMENT);
    refused({0, 0, 10}, {0, 1}, VOLTAIC_ERROR_ARGUMENT);  // an empty sequence has no target
    refused({0, 4, 9}, {0, 0}, VOLTAIC_ERROR_ARGUMENT);
    refused({0, 14, 10}, {0, 0}, VOLTAIC_ERROR_ARGUMENT);
    refused({0, 10}, {0, 0}, VOLTAIC_ERROR_SHAPE);
  }
}

TEST(ragged_cross_entropy_adds_many_sequences_and_long_ones) {
  for (Random random : seeds(2)) {
    Ragged r = random.next() & 1 ? make_ragged(random, 300, 5) : make_ragged(random, 3, 2000);
    EXPECT(r.forward());
    double loss = 0;
    int64_t valid = 0;
    for (int64_t s = 0; s < r.targets.elements(); s++) {
      const int32_t target = r.targets.ints()[s];
      if (target == -100) continue;
      double sum = 0;
      for (int64_t t = r.offsets.ints()[s]; t < r.offsets.ints()[s + 1]; t++)
        sum += std::exp(r.logits.at(t));
      loss += std::log(sum) - r.logits.at(r.offsets.ints()[s] + target);
      valid++;
    }
    EXPECT_CLOSE(r.loss, Doubles{valid ? loss / static_cast<double>(valid) : 0}, 1e-6);
    EXPECT_EQUAL(r.valid, Integers{valid});
  }
}

TEST(ragged_cross_entropy_shows_nan_in_the_loss) {
  for (Random random : seeds(1)) {
    Ragged r;
    r.offsets = Array::of_ints({3}, {0, 20, 40});
    r.logits = random.array(VOLTAIC_FLOAT32, {40});
    r.targets = Array::of_ints({2}, {3, 5});
    r.logits.set(25, kNan);
    EXPECT(r.forward());
    EXPECT(std::isnan(r.loss.at(0)) && !std::isnan(r.log_sum_exp.at(0)) &&
           std::isnan(r.log_sum_exp.at(1)));
  }
}
