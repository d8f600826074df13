// The vocabulary head against plain loops in double precision: loss, counts, predictions, samples,
// gradient.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;
using Doubles = std::vector<double>;

namespace {

struct Head {
  Array logits, targets, state, loss, log_sum_exp, predictions, counts, samples;
  double temperature = 1;
  uint32_t site = 0;
  bool sampled = true, disallow = false;
  int64_t tile = 0;  // columns at once; 0: all

  int64_t rows() const { return logits.shape[0]; }
  int64_t vocabulary() const { return logits.shape[1]; }
  // Columns first to first + columns - 1 of the logits.
  Array columns_from(int64_t first, int64_t columns) const {
    Array part(VOLTAIC_FLOAT32, {rows(), columns});
    for (int64_t row = 0; row < rows(); row++)
      std::copy_n(logits.bytes.begin() + 4 * (row * vocabulary() + first), 4 * columns,
                  part.bytes.begin() + 4 * row * columns);
    return part;
  }
  bool forward() {
    loss = Array(VOLTAIC_FLOAT32, {1});
    log_sum_exp = Array(VOLTAIC_FLOAT32, {rows()});
    predictions = Array(VOLTAIC_INT32, {rows()});
    counts = Array(VOLTAIC_INT32, {2});
    samples = Array(VOLTAIC_INT32, {rows()});
    // The first tile reads nothing of these.
    Array statistics(VOLTAIC_FLOAT32, {rows(), 4});
    for (int64_t i = 0; i < statistics.elements(); i++) statistics.set(i, NAN);
    for (int64_t i = 0; i < rows(); i++) predictions.ints()[i] = samples.ints()[i] = 123456;
    const int64_t step = tile == 0 ? std::max<int64_t>(vocabulary(), 1) : tile;
    for (int64_t first = 0; first == 0 || first < vocabulary(); first += step) {
      Array part = columns_from(first, std::min(step, vocabulary() - first));
      if (!run("vocabulary_head_tile",
               {&part, &targets, sampled ? &state : nullptr, &statistics, &predictions,
                sampled ? &samples : nullptr},
               {static_cast<double>(first), static_cast<double>(vocabulary()), temperature,
                static_cast<double>(site), disallow ? 1.0 : 0.0}))
        return false;
    }
    return run("vocabulary_head_loss",
               {&statistics, &targets, &predictions, &loss, &log_sum_exp, &counts});
  }
  bool backward(Array& loss_gradient, Array& gradient) {
    return run("vocabulary_head_backward",
               {&loss_gradient, &logits, &targets, &log_sum_exp, &counts, &gradient},
               {0, static_cast<double>(vocabulary())});
  }
};

Head make_head(Random& random, int64_t rows, int64_t vocabulary, double spread, bool with_ignored) {
  Head head;
  head.logits = random.array(VOLTAIC_FLOAT32, {rows, vocabulary}, -spread, spread);
  head.targets = random.int_array({rows}, 0, vocabulary - 1);
  if (with_ignored)
    for (int64_t row = 0; row < rows; row++)
      if (random.next() % 3 == 0) head.targets.ints()[row] = -100;
  head.state = Array::of_ints(
      {4}, {static_cast<int32_t>(random.next()), static_cast<int32_t>(random.next()), 3, 2});
  head.site = static_cast<uint32_t>(random.integer(0, 99));
  return head;
}

double gumbel(Head& head, int64_t row, int64_t v) {
  const uint64_t block = static_cast<uint64_t>(row * ((head.vocabulary() + 3) / 4) + v / 4);
  const voltaic_random4 words = voltaic_random_block(head.state.ints(), head.site, block);
  return -std::log(-std::log(static_cast<double>(voltaic_uniform(words.word[v % 4]))));
}

struct Expected {
  double loss = 0;
  std::vector<double> log_sum_exp;
  std::vector<int64_t> predictions, counts = {0, 0};
};

Expected expect_of(Head& head) {
  Expected e;
  for (int64_t row = 0; row < head.rows(); row++) {
    double most = -INFINITY, sum = 0;
    int64_t best = 0;
    for (int64_t v = 0; v < head.vocabulary(); v++) {
      const double x = head.logits.at(row * head.vocabulary() + v);
      if (x > most) {
        most = x;
        best = v;
      }
    }
    for (int64_t v = 0; v < head.vocabulary(); v++)
      sum += std::exp(head.logits.at(row * head.vocabulary() + v) - most);
    e.log_sum_exp.push_back(most + std::log(sum));
    e.predictions.push_back(best);
    const int32_t target = head.targets.ints()[row];
    if (target == -100) continue;
    e.loss += std::log(sum) + most - head.logits.at(row * head.vocabulary() + target);
    e.counts[0]++;
    e.counts[1] += best == target;
  }
  if (e.counts[0] > 0) e.loss /= static_cast<double>(e.counts[0]);
  return e;
}

// How far the chosen score lies below the best, in double precision; negative targets must give -1.
void check_samples(Head& head) {
  int64_t others = 0;
  for (int64_t row = 0; row < head.rows(); row++) {
    const int32_t target = head.targets.ints()[row], sample = head.samples.ints()[row];
    if (target == -100) {
      EXPECT(sample == -1);
      continue;
    }
    if (!EXPECT(sample >= 0 && sample < head.vocabulary())) continue;
    double best = -INFINITY, chosen = -INFINITY;
    int64_t best_index = 0;
    for (int64_t v = 0; v < head.vocabulary(); v++) {
      const double x =
          head.logits.at(row * head.vocabulary() + v) - (head.disallow && v == target ? 1000 : 0);
      const double score = x / head.temperature + gumbel(head, row, v);
      if (score > best) {
        best = score;
        best_index = v;
      }
      if (v == sample) chosen = score;
    }
    others += sample != best_index;
    EXPECT(chosen >= best - 1e-5 * (1 + std::fabs(best)));  // a near tie in fp32
  }
  EXPECT(others <= 1 + head.rows() / 100);  // near ties are rare
}

}  // namespace

TEST(vocabulary_head_matches_the_reference_on_random_shapes) {
  for (Random random : seeds(40)) {
    Head head =
        make_head(random, random.size(20), random.size(130), random.next() & 1 ? 3 : 30, true);
    head.temperature = random.next() & 1 ? 1 : 0.7;
    head.disallow = random.next() % 3 == 0;
    head.sampled = random.next() % 4 != 0;
    if (random.next() % 2 == 0) head.tile = 4 * random.integer(1, 20);
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    EXPECT_CLOSE(head.loss, Doubles{e.loss}, 1e-6);
    EXPECT_CLOSE(head.log_sum_exp, e.log_sum_exp, 1e-6);
    EXPECT_EQUAL(head.predictions, e.predictions);
    EXPECT_EQUAL(head.counts, e.counts);
    if (head.sampled) check_samples(head);
  }
}

// Several pieces of a row, the largest logit in the first, the last or between; a tail that is no
// whole vector.
TEST(vocabulary_head_matches_the_reference_on_a_large_vocabulary) {
  for (Random random : seeds(3)) {
    Head head = make_head(random, 3, 3001, 5, false);
    for (int64_t row = 0; row < 3; row++)
      head.logits.set(row * 3001 + std::vector<int64_t>{1, 1500, 3000}[static_cast<size_t>(row)],
                      9);
    head.temperature = 0.5;
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    EXPECT_CLOSE(head.loss, Doubles{e.loss}, 1e-6);
    EXPECT_CLOSE(head.log_sum_exp, e.log_sum_exp, 1e-6);
    EXPECT_EQUAL(head.predictions, e.predictions);
    check_samples(head);
  }
}

// What a tile gives joins what is known of the row: predictions and samples are those of one tile,
// to the bit, the sums to rounding, wherever the largest logit and the target lie.
TEST(vocabulary_head_gives_the_same_in_tiles) {
  for (Random random : seeds(4)) {
    for (double temperature : {1.0, 0.5}) {
      Head whole = make_head(random, 7, 3001, random.next() & 1 ? 3 : 30, true);
      whole.temperature = temperature;
      whole.disallow = random.next() & 1;
      whole.logits.set(3001 + 2999, 40);
      Head tiled = whole;
      tiled.tile = 4 * random.integer(100, 400);
      EXPECT(whole.forward());
      EXPECT(tiled.forward());
      EXPECT(tiled.predictions.bytes == whole.predictions.bytes);
      EXPECT(tiled.samples.bytes == whole.samples.bytes);
      EXPECT(tiled.counts.bytes == whole.counts.bytes);
      EXPECT_CLOSE(tiled.loss, Doubles{whole.loss.at(0)}, 1e-6);
      // The same logits and the same shift: a tile's gradient has the whole's bits.
      tiled.log_sum_exp = whole.log_sum_exp;
      Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {0.7});
      Array expected(VOLTAIC_FLOAT32, {7, 3001});
      EXPECT(whole.backward(upstream, expected));
      for (int64_t first = 0; first < 3001; first += tiled.tile) {
        const int64_t columns = std::min<int64_t>(tiled.tile, 3001 - first);
        Array part = tiled.columns_from(first, columns), gradient(VOLTAIC_FLOAT32, {7, columns});
        EXPECT(run("vocabulary_head_backward",
                   {&upstream, &part, &tiled.targets, &tiled.log_sum_exp, &tiled.counts, &gradient},
                   {static_cast<double>(first), 3001}));
        for (int64_t i = 0; i < gradient.elements(); i++)
          if (gradient.at(i) != expected.at(i / columns * 3001 + first + i % columns))
            EXPECT_TEXT(false, "a tile's gradient differs from the whole's");
      }
    }
  }
}

// A card cuts these rows into several segments, and loads their logits by ones, twos or fours.
TEST(vocabulary_head_matches_the_reference_on_a_whole_vocabulary) {
  for (int64_t vocabulary : {30522, 12292, 12289}) {
    Random random(static_cast<uint64_t>(vocabulary));
    Head head = make_head(random, 4, vocabulary, 5, false);
    const int64_t last = vocabulary - 1;
    head.targets.ints()[1] = static_cast<int32_t>(last);
    head.logits.set(vocabulary + last, 9);     // the last is the largest
    head.logits.set(2 * vocabulary + 100, 9);  // the first of two
    head.logits.set(2 * vocabulary + last, 9);
    for (int64_t v = 0; v < 7000; v++) head.logits.set(3 * vocabulary + v, -INFINITY);
    head.targets.ints()[3] = 9000;
    head.temperature = vocabulary % 2 ? 0.7 : 1;
    head.disallow = vocabulary % 4 == 0;
    head.tile = vocabulary == 12289 ? 0 : 4096;
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    EXPECT_CLOSE(head.loss, Doubles{e.loss}, 1e-6);
    EXPECT_CLOSE(head.log_sum_exp, e.log_sum_exp, 1e-6);
    EXPECT_EQUAL(head.predictions, e.predictions);
    EXPECT_EQUAL(head.counts, e.counts);
    check_samples(head);
  }
}

TEST(vocabulary_head_matches_the_reference_on_many_rows) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, 700, random.size(9), 3, true);
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    EXPECT_CLOSE(head.loss, Doubles{e.loss}, 1e-6);
    EXPECT_CLOSE(head.log_sum_exp, e.log_sum_exp, 2e-6);
    EXPECT_EQUAL(head.predictions, e.predictions);
    EXPECT_EQUAL(head.counts, e.counts);
    check_samples(head);
  }
}

TEST(vocabulary_head_of_a_row_does_not_depend_on_its_place) {
  for (Random random : seeds(3)) {
    const int64_t vocabulary = random.integer(900, 1000);
    Head all = make_head(random, 5, vocabulary, 4, false), one = all;
    const long bytes = static_cast<long>(vocabulary) * 4;
    one.logits = Array(VOLTAIC_FLOAT32, {1, vocabulary});
    std::copy_n(all.logits.bytes.begin() + 3 * bytes, bytes, one.logits.bytes.begin());
    one.targets = Array::of_ints({1}, {all.targets.ints()[3]});
    EXPECT(all.forward());
    EXPECT(one.forward());
    EXPECT(one.log_sum_exp.at(0) == all.log_sum_exp.at(3));
    EXPECT(one.predictions.at(0) == all.predictions.at(3));
  }
}

// Where no bound on the largest score is to be had from the sum of exponentials.
TEST(vocabulary_head_samples_the_infinite_and_passes_over_the_hopeless) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, 3, 2000, 2, false);
    head.logits.set(700, INFINITY);
    head.logits.set(1900, INFINITY);
    head.logits.set(2000 + 1234, 3e38);
    head.targets.ints()[2] = 77;  // far above the others, and not allowed
    head.logits.set(4000 + 77, 300);
    head.disallow = true;
    head.temperature = 0.5;
    for (int64_t row = 0; row < 2; row++) head.targets.ints()[row] = 5;
    EXPECT(head.forward());
    EXPECT(head.samples.at(0) == 700 && head.predictions.at(0) == 700);
    EXPECT(head.samples.at(1) == 1234 && head.predictions.at(1) == 1234);
    EXPECT(head.samples.at(2) != 77 && head.predictions.at(2) == 77);
    double best = -INFINITY;
    int64_t best_index = -1;
    for (int64_t v = 0; v < 2000; v++) {
      const double score = head.logits.at(4000 + v) / head.temperature + gumbel(head, 2, v);
      if (v != 77 && score > best) {
        best = score;
        best_index = v;
      }
    }
    EXPECT(head.samples.at(2) == static_cast<double>(best_index));
    for (int64_t v = 0; v < 6000; v++)
      head.logits.set(v, v < 2000 ? -INFINITY : std::numeric_limits<double>::quiet_NaN());
    EXPECT(head.forward());
    EXPECT_EQUAL(head.samples, (std::vector<int64_t>{0, 0, 0}));
    EXPECT_EQUAL(head.predictions, (std::vector<int64_t>{0, 0, 0}));
  }
}

TEST(vocabulary_head_gradient_matches_the_reference_and_vanishes_in_ignored_rows) {
  for (Random random : seeds(30)) {
    const bool wide = random.next() % 10 == 0;  // more than a block of a card has
    Head head = make_head(random, random.size(20), wide ? 1000 + random.size(20) : random.size(130),
                          4, true);
    head.sampled = false;
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    const double loss_gradient = random.uniform(0.1, 3);
    Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {loss_gradient});
    std::vector<double> expected;
    for (int64_t i = 0; i < head.logits.elements(); i++) {
      const int64_t row = i / head.vocabulary();
      const int32_t target = head.targets.ints()[row];
      const double p = std::exp(head.logits.at(i) - e.log_sum_exp[static_cast<size_t>(row)]);
      expected.push_back(target == -100 ? 0
                                        : upstream.at(0) / static_cast<double>(e.counts[0]) *
                                              (p - (i % head.vocabulary() == target)));
    }
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      Array gradient(dtype, {head.rows(), head.vocabulary()});
      EXPECT(head.backward(upstream, gradient));
      // The logarithm of the sum, near 10, is rounded to fp32: 1e-6 of each probability.
      EXPECT_CLOSE(gradient, expected, 3e-6);
      for (int64_t i = 0; i < gradient.elements(); i++)
        if (head.targets.ints()[i / head.vocabulary()] == -100 && gradient.at(i) != 0)
          EXPECT_TEXT(false, "an ignored row has a gradient");
    }
  }
}

TEST(vocabulary_head_gradient_may_overwrite_the_logits) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, 5, 37, 4, true);
    EXPECT(head.forward());
    Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {1});
    Array apart(VOLTAIC_FLOAT32, {5, 37});
    EXPECT(head.backward(upstream, apart));
    EXPECT(head.backward(upstream, head.logits));
    EXPECT(apart.bytes == head.logits.bytes);
  }
}

TEST(vocabulary_head_samples_follow_the_softmax) {
  for (Random random : seeds(1)) {
    const std::vector<double> logits = {0, 1, -1, 2, 0.5};
    const int64_t rows = 4000;
    for (double temperature : {1.0, 2.0}) {
      std::vector<double> all;
      for (int64_t row = 0; row < rows; row++) all.insert(all.end(), logits.begin(), logits.end());
      Head head = make_head(random, 1, 5, 1, false);
      head.logits = Array::of_floats(VOLTAIC_FLOAT32, {rows, 5}, all);
      head.targets = Array::of_ints({rows}, std::vector<int32_t>(static_cast<size_t>(rows), 3));
      head.temperature = temperature;
      EXPECT(head.forward());
      std::vector<double> drawn(5, 0);
      for (int64_t row = 0; row < rows; row++)
        drawn[static_cast<size_t>(head.samples.ints()[row])]++;
      double sum = 0, chi_squared = 0;
      for (double x : logits) sum += std::exp(x / temperature);
      for (size_t v = 0; v < 5; v++) {
        const double expected = static_cast<double>(rows) * std::exp(logits[v] / temperature) / sum;
        chi_squared += (drawn[v] - expected) * (drawn[v] - expected) / expected;
      }
      EXPECT_TEXT(chi_squared < 18.5,
                  "chi squared of 4 degrees of freedom, exceeded once in a thousand");
    }
  }
}

TEST(vocabulary_head_never_samples_a_disallowed_target) {
  for (Random random : seeds(3)) {
    Head head = make_head(random, 50, 5, 3, false);
    for (int64_t row = 0; row < 50; row++) head.logits.set(row * 5 + head.targets.ints()[row], 20);
    EXPECT(head.forward());
    int64_t hits = 0;
    for (int64_t row = 0; row < 50; row++)
      hits += head.samples.ints()[row] == head.targets.ints()[row];
    EXPECT(hits == 50);
    head.disallow = true;
    EXPECT(head.forward());
    for (int64_t row = 0; row < 50; row++)
      EXPECT(head.samples.ints()[row] != head.targets.ints()[row]);
  }
}

TEST(vocabulary_head_keeps_the_loss_of_a_nearly_sure_target_and_of_huge_logits) {
  Head head;
  head.sampled = false;
  // log_sum_exp - logit would round to a multiple of 6e-5 here; the sum 1 + 1.2e-5 itself is good
  // to 6e-8.
  head.logits = Array::of_floats(VOLTAIC_FLOAT32, {1, 3}, {1000, 988, 988});
  head.targets = Array::of_ints({1}, {0});
  EXPECT(head.forward());
  EXPECT_CLOSE(head.loss, Doubles{std::log1p(2 * std::exp(-12.0))}, 0.005);
  head.logits = Array::of_floats(VOLTAIC_FLOAT32, {1, 3}, {3e38, -3e38, 1});
  EXPECT(head.forward());
  EXPECT(head.loss.at(0) == 0 && head.counts.at(1) == 1);
}

TEST(vocabulary_head_takes_minus_infinity_as_an_impossible_class) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, 4, 2100, 2, false);
    for (int64_t row = 0; row < 4; row++) {
      for (int64_t v = 0; v < 1200; v++) head.logits.set(row * 2100 + v, -INFINITY);
      head.targets.ints()[row] = 1500;
    }
    EXPECT(head.forward());
    const Expected e = expect_of(head);
    EXPECT_CLOSE(head.loss, Doubles{e.loss}, 1e-6);
    EXPECT_EQUAL(head.predictions, e.predictions);
    check_samples(head);
  }
}

TEST(vocabulary_head_without_counted_rows_has_no_loss_and_no_gradient) {
  for (Random random : seeds(2)) {
    for (int64_t rows : {0, 3}) {
      Head head = make_head(random, rows, 7, 2, false);
      for (int64_t row = 0; row < rows; row++) head.targets.ints()[row] = -100;
      EXPECT(head.forward());
      EXPECT(head.loss.at(0) == 0);
      EXPECT_EQUAL(head.counts, (std::vector<int64_t>{0, 0}));
      Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {1}),
            gradient(VOLTAIC_FLOAT32, {rows, 7});
      EXPECT(head.backward(upstream, gradient));
      EXPECT_CLOSE(gradient, std::vector<double>(static_cast<size_t>(rows * 7), 0.0), 0);
    }
  }
}

TEST(vocabulary_head_shows_nan_in_the_loss_of_its_row) {
  for (Random random : seeds(2)) {
    Head head = make_head(random, 3, 1500, 2, false);
    head.logits.set(1500 + random.integer(0, 1499), std::numeric_limits<double>::quiet_NaN());
    EXPECT(head.forward());
    EXPECT(std::isnan(head.loss.at(0)));
    EXPECT(!std::isnan(head.log_sum_exp.at(0)) && std::isnan(head.log_sum_exp.at(1)) &&
           !std::isnan(head.log_sum_exp.at(2)));
    EXPECT(head.predictions.at(1) >= 0 && head.predictions.at(1) < 1500);
    EXPECT(head.samples.at(1) >= 0 && head.samples.at(1) < 1500);
  }
}

TEST(vocabulary_head_refuses_bad_targets_and_temperatures_with_a_reason) {
  for (Random random : seeds(1)) {
    for (int32_t target : {-1, 7, -99, 1 << 30}) {
      Head head = make_head(random, 4, 7, 2, false);
      head.targets.ints()[2] = target;
      EXPECT(!head.forward());
      EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
      // A card's message: "targets[2] is 7", for "the target of row 2 is 7".
      EXPECT_TEXT((last_message().find("row 2 is ") != std::string::npos ||
                   last_message().find("targets[2] is ") != std::string::npos) &&
                      last_message().find(std::to_string(target)) != std::string::npos,
                  last_message());
      Array upstream = Array::of_floats(VOLTAIC_FLOAT32, {1}, {1}),
            gradient(VOLTAIC_FLOAT32, {4, 7});
      head.counts = Array::of_ints({2}, {4, 0});
      EXPECT(!head.backward(upstream, gradient));
    }
    for (double temperature : {0.0, -1.0, static_cast<double>(NAN)}) {
      Head head = make_head(random, 2, 7, 2, false);
      head.temperature = temperature;
      EXPECT(!head.forward());
      EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
    }
    Head head = make_head(random, 2, 7, 2, false);
    head.forward();
    Array statistics(VOLTAIC_FLOAT32, {2, 4});
    EXPECT(
        !run("vocabulary_head_tile",
             {&head.logits, &head.targets, nullptr, &statistics, &head.predictions, &head.samples},
             {0, 7, 1, 0, 0}));
    // A tile begins with a whole Philox block and ends inside of the vocabulary.
    for (double first : {-4.0, 2.0, 4.0})
      EXPECT(!run(
          "vocabulary_head_tile",
          {&head.logits, &head.targets, &head.state, &statistics, &head.predictions, &head.samples},
          {first, 10, 1, 0, 0}));
  }
}
