// The discriminator's head against plain loops in double precision: logits, loss, metrics,
// gradients.
#include <cmath>
#include <limits>

#include "harness.h"

using namespace voltaic::test;
using Doubles = std::vector<double>;
using Integers = std::vector<int64_t>;

namespace {

struct Head {
  Array hidden, weight, bias, labels, logits, loss, valid, metrics;
  bool with_metrics = true;

  int64_t tokens() const { return hidden.shape[0]; }
  int64_t width() const { return hidden.shape[1]; }
  bool forward() {
    logits = Array(VOLTAIC_FLOAT32, {tokens()});
    loss = Array(VOLTAIC_FLOAT32, {1});
    valid = Array(VOLTAIC_INT32, {1});
    return run("discriminator_head_forward", {&hidden, &weight, &bias, &labels, &logits, &loss,
                                              &valid, with_metrics ? &metrics : nullptr});
  }
};

Head make_head(Random& random, voltaic_dtype dtype, int64_t tokens, int64_t width, double spread) {
  Head head;
  head.hidden = random.array(dtype, {tokens, width}, -spread, spread);
  head.weight = random.array(VOLTAIC_FLOAT32, {1, width});
  head.bias = random.array(VOLTAIC_FLOAT32, {1});
  head.labels = random.int_array({tokens}, 0, 2);
  for (int64_t t = 0; t < tokens; t++)
    if (head.labels.ints()[t] == 2) head.labels.ints()[t] = -100;
  head.metrics = random.int_array({4100}, 0, 5);
  return head;
}

std::vector<double> expected_logits(const Head& head) {
  std::vector<double> result;
  for (int64_t t = 0; t < head.tokens(); t++) {
    double sum = head.bias.at(0);
    for (int64_t i = 0; i < head.width(); i++)
      sum += head.hidden.at(t * head.width() + i) * head.weight.at(i);
    result.push_back(sum);
  }
  return result;
}

void check_forward(Head& head) {
  const Array before = head.metrics;
  EXPECT(head.forward());
  const std::vector<double> logits = expected_logits(head);
  EXPECT_CLOSE(head.logits, logits, 2e-6);
  double loss = 0;
  int64_t valid = 0;
  std::vector<int64_t> metrics;
  for (double x : before.values()) metrics.push_back(static_cast<int64_t>(x));
  for (int64_t t = 0; t < head.tokens(); t++) {
    const int32_t label = head.labels.ints()[t];
    if (label == -100) continue;
    const double x = logits[static_cast<size_t>(t)];
    loss += std::fmax(x, 0) - x * label + std::log1p(std::exp(-std::fabs(x)));
    valid++;
    const double got =
        head.logits.at(t);  // the metrics are those of the logits that were given out
    metrics[got > 0 ? (label ? 0 : 1) : (label ? 3 : 2)]++;
    const double place = std::floor((got + 16) * 64);
    metrics[static_cast<size_t>(4 + (label ? 0 : 2048) + std::fmin(std::fmax(place, 0), 2047))]++;
  }
  EXPECT_CLOSE(head.loss, Doubles{valid ? loss / static_cast<double>(valid) : 0}, 2e-6);
  EXPECT_EQUAL(head.valid, Integers{valid});
  if (head.with_metrics) EXPECT_EQUAL(head.metrics, metrics);
}

void check_gradients(Random& random, Head& head) {
  const int64_t tokens = head.tokens();
  EXPECT(head.forward());
  Array upstream = random.array(VOLTAIC_FLOAT32, {1}, 0.5, 50);
  Array hidden_gradient(head.hidden.dtype, {tokens, head.width()});
  Array weight_gradient = random.array(VOLTAIC_FLOAT32, {1, head.width()});
  Array bias_gradient = random.array(VOLTAIC_FLOAT32, {1});
  std::vector<double> weight_expected = weight_gradient.values(),
                      bias_expected = bias_gradient.values(), hidden_expected;
  const double valid = head.valid.at(0);
  for (int64_t t = 0; t < tokens; t++) {
    const int32_t label = head.labels.ints()[t];
    const double g =
        label == -100 ? 0
                      : upstream.at(0) / valid * (1 / (1 + std::exp(-head.logits.at(t))) - label);
    bias_expected[0] += g;
    for (int64_t i = 0; i < head.width(); i++) {
      hidden_expected.push_back(g * head.weight.at(i));
      weight_expected[static_cast<size_t>(i)] += g * head.hidden.at(t * head.width() + i);
    }
  }
  EXPECT(run("discriminator_head_backward",
             {&upstream, &head.hidden, &head.weight, &head.labels, &head.logits, &head.valid,
              &hidden_gradient, &weight_gradient, &bias_gradient}));
  EXPECT_CLOSE(hidden_gradient, hidden_expected, 2e-6);
  EXPECT_CLOSE(weight_gradient, weight_expected,
               1e-5);  // sums of hundreds of terms of either sign
  EXPECT_CLOSE(bias_gradient, bias_expected, 1e-5);
}

}  // namespace

TEST(discriminator_head_matches_the_reference_on_random_shapes) {
  for (Random random : seeds(30)) {
    const int64_t width = random.next() % 6 == 0 ? 8 * random.integer(17, 100) : random.size(130);
    Head head = make_head(random, random.float_dtype(), random.size(130), width, 2);
    head.with_metrics = random.next() % 4 != 0;
    check_forward(head);
  }
}

TEST(discriminator_head_loss_is_stable_for_huge_logits) {
  Head head;
  head.with_metrics = false;
  head.hidden = Array::of_floats(VOLTAIC_FLOAT32, {4, 1}, {500, -500, 500, -500});
  head.weight = Array::of_floats(VOLTAIC_FLOAT32, {1, 1}, {2});
  head.bias = Array::of_floats(VOLTAIC_FLOAT32, {1}, {0});
  head.labels = Array::of_ints({4}, {1, 0, 0, 1});
  EXPECT(head.forward());
  EXPECT_CLOSE(head.loss, Doubles{500}, 1e-6);
}

TEST(discriminator_head_puts_logits_in_bins_with_clamped_ends) {
  Head head;
  const std::vector<double> values = {-1e30, -16, -16 + 1.0 / 64, 0, 0.015, 15.99, 16, 1e30, -17};
  const std::vector<int64_t> bins = {0, 0, 1, 1024, 1024, 2047, 2047, 2047, 0};
  const int64_t n = static_cast<int64_t>(values.size());
  head.hidden = Array::of_floats(VOLTAIC_FLOAT32, {n, 1}, values);
  head.weight = Array::of_floats(VOLTAIC_FLOAT32, {1, 1}, {1});
  head.bias = Array::of_floats(VOLTAIC_FLOAT32, {1}, {0});
  head.labels = Array::of_ints({n}, std::vector<int32_t>(values.size(), 0));
  head.metrics = Array::zeros(VOLTAIC_INT32, {4100});
  EXPECT(head.forward());
  std::vector<int64_t> expected(4100, 0);
  for (size_t i = 0; i < values.size(); i++) {
    expected[values[i] > 0 ? 1 : 2]++;
    expected[static_cast<size_t>(4 + 2048 + bins[i])]++;
  }
  EXPECT_EQUAL(head.metrics, expected);
}

TEST(discriminator_head_gradients_match_the_reference_and_accumulate) {
  for (Random random : seeds(30)) {
    const int64_t tokens =
        random.next() % 4 == 0 ? random.integer(256, 600) : random.size(130);  // several blocks
    // Now and then more columns than a warp of a card has at once.
    const int64_t width = random.next() % 6 == 0 ? 8 * random.integer(33, 70) : random.size(100);
    Head head = make_head(random, random.float_dtype(), tokens, width, 1);
    check_gradients(random, head);
  }
}

TEST(discriminator_head_takes_arrays_that_start_at_any_element) {
  Random random(12);
  for (int64_t elements : {1, 4}) {  // four begin at 16 bytes in fp32, not in bf16
    const Shifted shifted(elements);
    for (int64_t width : {8, 256, 520})
      for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
        Head head = make_head(random, dtype, 70, width, 1);
        check_forward(head);
        check_gradients(random, head);
      }
  }
}

// So many that a block of a card has several tiles of them.
TEST(discriminator_head_gradients_add_up_over_very_many_tokens) {
  constexpr int64_t kTokens = 262401;
  for (Random random : seeds(1)) {
    Head head = make_head(random, VOLTAIC_FLOAT32, kTokens, 1, 1);
    head.logits = random.array(VOLTAIC_FLOAT32, {kTokens}, -3, 3);
    head.valid = Array::of_ints({1}, {1000});
    Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {1});
    Array hidden_gradient(VOLTAIC_FLOAT32, {kTokens, 1});
    Array weight_gradient = Array::zeros(VOLTAIC_FLOAT32, {1, 1}),
          bias_gradient = Array::zeros(VOLTAIC_FLOAT32, {1});
    std::vector<double> hidden_expected;
    double weight_expected = 0, bias_expected = 0, magnitude = 0;
    for (int64_t t = 0; t < kTokens; t++) {
      const int32_t label = head.labels.ints()[t];
      const double g = label == -100 ? 0 : (1 / (1 + std::exp(-head.logits.at(t))) - label) / 1000;
      hidden_expected.push_back(g * head.weight.at(0));
      weight_expected += g * head.hidden.at(t);
      bias_expected += g;
      magnitude += std::fabs(g);
    }
    EXPECT(run("discriminator_head_backward",
               {&upstream, &head.hidden, &head.weight, &head.labels, &head.logits, &head.valid,
                &hidden_gradient, &weight_gradient, &bias_gradient}));
    EXPECT_CLOSE(hidden_gradient, hidden_expected, 2e-6);
    EXPECT(std::fabs(weight_gradient.at(0) - weight_expected) < 1e-6 * magnitude);
    EXPECT(std::fabs(bias_gradient.at(0) - bias_expected) < 1e-6 * magnitude);
  }
}

TEST(discriminator_head_without_counted_tokens_has_no_loss_and_no_gradient) {
  for (Random random : seeds(2)) {
    for (int64_t tokens : {0, 5}) {
      Head head = make_head(random, random.float_dtype(), tokens, 9, 1);
      for (int64_t t = 0; t < tokens; t++) head.labels.ints()[t] = -100;
      EXPECT(head.forward());
      EXPECT(head.loss.at(0) == 0 && head.valid.at(0) == 0);
      Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {50}),
            hidden_gradient(head.hidden.dtype, {tokens, 9});
      Array weight_gradient = Array::zeros(VOLTAIC_FLOAT32, {1, 9}),
            bias_gradient = Array::zeros(VOLTAIC_FLOAT32, {1});
      EXPECT(run("discriminator_head_backward",
                 {&upstream, &head.hidden, &head.weight, &head.labels, &head.logits, &head.valid,
                  &hidden_gradient, &weight_gradient, &bias_gradient}));
      EXPECT_CLOSE(hidden_gradient, std::vector<double>(static_cast<size_t>(tokens * 9), 0.0), 0);
      EXPECT_CLOSE(weight_gradient, std::vector<double>(9, 0.0), 0);
      EXPECT(bias_gradient.at(0) == 0);
    }
  }
}

TEST(discriminator_head_shows_nan_in_its_token_and_in_the_loss) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, random.float_dtype(), 40, 20, 1);
    head.labels.ints()[17] = 1;
    head.hidden.set(17 * 20 + 3, std::numeric_limits<double>::quiet_NaN());
    EXPECT(head.forward());
    EXPECT(std::isnan(head.loss.at(0)));
    for (int64_t t = 0; t < 40; t++) EXPECT(std::isnan(head.logits.at(t)) == (t == 17));
  }
}

TEST(discriminator_head_refuses_bad_labels_with_a_reason) {
  for (Random random : seeds(1)) {
    for (int32_t label : {2, -1, 100}) {
      Head head = make_head(random, VOLTAIC_FLOAT32, 6, 4, 1);
      head.labels.ints()[4] = label;
      EXPECT(!head.forward());
      EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
      // A card's message: "labels[4] is 2", for "the label of token 4 is 2".
      const std::string is = " is " + std::to_string(label);
      EXPECT_TEXT(last_message().find("token 4" + is) != std::string::npos ||
                      last_message().find("labels[4]" + is) != std::string::npos,
                  last_message());
    }
  }
}
