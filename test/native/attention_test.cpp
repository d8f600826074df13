// Attention against plain loops in double precision: values, gradients, dropout bits, ragged and
// empty sequences.
#include <cmath>
#include <limits>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;

namespace {

struct Problem {
  voltaic_dtype dtype = VOLTAIC_FLOAT32;
  int64_t heads = 1, size = 1;
  double scale = 1, probability = 0;
  uint32_t site = 0;
  double longest = 0;  // the hint: not above 0 where it is not known
  Array offsets, qkv, state, context, log_sum_exp, context_gradient, qkv_gradient;

  int64_t tokens() const { return qkv.shape[0]; }
  std::vector<double> attributes() const {
    return {scale, probability, static_cast<double>(site), longest};
  }
  Array* state_argument() { return probability > 0 ? &state : nullptr; }
  bool forward() {
    context = Array(dtype, {tokens(), heads, size});
    log_sum_exp = Array(VOLTAIC_FLOAT32, {heads, tokens()});
    return run("attention_forward", {&qkv, &offsets, state_argument(), &context, &log_sum_exp},
               attributes());
  }
  bool backward() {
    qkv_gradient = Array(dtype, {tokens(), 3, heads, size});
    return run("attention_backward",
               {&context_gradient, &qkv, &offsets, &context, &log_sum_exp, state_argument(),
                &qkv_gradient},
               attributes());
  }
};

Problem make_problem(Random& random, voltaic_dtype dtype, Array offsets, int64_t heads,
                     int64_t size, double probability) {
  Problem p;
  p.dtype = dtype;
  p.heads = heads;
  p.size = size;
  p.scale = 1 / std::sqrt(static_cast<double>(size));
  p.probability = probability;
  p.site = static_cast<uint32_t>(random.integer(0, 1000));
  for (int64_t i = 1; i < offsets.elements(); i++)
    p.longest = std::fmax(p.longest, offsets.ints()[i] - offsets.ints()[i - 1]);
  p.offsets = std::move(offsets);
  const int64_t tokens = p.offsets.ints()[p.offsets.elements() - 1];
  p.qkv = random.array(dtype, {tokens, 3, heads, size}, -2, 2);
  p.context_gradient = random.array(dtype, {tokens, heads, size});
  p.state = Array::of_ints(
      {4}, {static_cast<int32_t>(random.next()), static_cast<int32_t>(random.next()), 7, 1});
  return p;
}

// The factor of a probability: 0, or 65536 / (65536 - threshold).
double dropout_factor(Problem& p, int64_t sequence, int64_t head, int64_t row, int64_t column) {
  if (p.probability == 0) return 1;
  const uint32_t threshold = voltaic_dropout_threshold(p.probability);
  const int64_t r = row % 8, in_eight = column % 8;
  const voltaic_random4 block = voltaic_random_block(
      p.state.ints(), p.site,
      voltaic_attention_block(static_cast<uint64_t>(sequence * p.heads + head),
                              static_cast<uint32_t>(row / 16), static_cast<uint32_t>(column / 16),
                              static_cast<uint32_t>(r), static_cast<uint32_t>(in_eight / 2)));
  const int number = 4 * (row % 16 >= 8) + 2 * (column % 16 >= 8) + static_cast<int>(in_eight % 2);
  return voltaic_random16(&block, number) >= threshold ? 65536.0 / (65536 - threshold) : 0;
}

struct Reference {
  std::vector<double> context, log_sum_exp, qkv_gradient;
};

// qkv in double. What a straightforward computation with 16-bit products rounds before a product
// (probabilities, score gradients) and at the end is rounded to dtype `rounding`. The gradient uses
// `context`, where given, for delta.
Reference reference(Problem& p, const std::vector<double>& qkv, voltaic_dtype rounding,
                    const Array* context = nullptr) {
  const bool rounds = rounding == VOLTAIC_BFLOAT16;
  const auto rounded = [&](double x) { return rounds ? round_to(rounding, x) : x; };
  const int64_t tokens = p.tokens(), heads = p.heads, size = p.size;
  Reference result;
  result.context.assign(static_cast<size_t>(tokens * heads * size), 0);
  result.log_sum_exp.assign(static_cast<size_t>(heads * tokens), 0);
  result.qkv_gradient.assign(qkv.size(), 0);
  const std::vector<double> g = p.context_gradient.values();
  const auto at = [&](int64_t token, int64_t which, int64_t head) {
    return static_cast<size_t>(((token * 3 + which) * heads + head) * size);
  };
  for (int64_t s = 0; s + 1 < p.offsets.elements(); s++)
    for (int64_t h = 0; h < heads; h++) {
      const int64_t begin = p.offsets.ints()[s], length = p.offsets.ints()[s + 1] - begin;
      for (int64_t i = 0; i < length; i++) {
        std::vector<double> score(static_cast<size_t>(length)), factor(score.size());
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < length; j++) {
          double dot = 0;
          for (int64_t d = 0; d < size; d++)
            dot += qkv[at(begin + i, 0, h) + static_cast<size_t>(d)] *
                   qkv[at(begin + j, 1, h) + static_cast<size_t>(d)];
          score[static_cast<size_t>(j)] = dot * p.scale;
          most = std::fmax(most, dot * p.scale);
          factor[static_cast<size_t>(j)] = dropout_factor(p, s, h, i, j);
        }
        for (double x : score) sum += std::exp(x - most);
        const double log_sum_exp = most + std::log(sum);
        result.log_sum_exp[static_cast<size_t>(h * tokens + begin + i)] = log_sum_exp;
        const size_t out = static_cast<size_t>(((begin + i) * heads + h) * size);
        for (int64_t j = 0; j < length; j++) {
          const size_t column = static_cast<size_t>(j);
          const double weight = rounded(std::exp(score[column] - log_sum_exp) * factor[column]);
          for (size_t d = 0; d < static_cast<size_t>(size); d++)
            result.context[out + d] += weight * qkv[at(begin + j, 2, h) + d];
        }
        for (size_t d = 0; d < static_cast<size_t>(size); d++)
          result.context[out + d] = rounded(result.context[out + d]);
        double delta = 0;
        for (size_t d = 0; d < static_cast<size_t>(size); d++)
          delta += g[out + d] *
                   (context ? context->at(static_cast<int64_t>(out + d)) : result.context[out + d]);
        for (int64_t j = 0; j < length; j++) {
          const size_t column = static_cast<size_t>(j);
          const double probability = std::exp(score[column] - log_sum_exp);
          double probability_gradient = 0;
          for (size_t d = 0; d < static_cast<size_t>(size); d++)
            probability_gradient += g[out + d] * qkv[at(begin + j, 2, h) + d];
          const double weight = rounded(probability * factor[column]);
          const double score_gradient =
              rounded(probability * (probability_gradient * factor[column] - delta));
          for (size_t d = 0; d < static_cast<size_t>(size); d++) {
            result.qkv_gradient[at(begin + j, 2, h) + d] += weight * g[out + d];
            result.qkv_gradient[at(begin + i, 0, h) + d] +=
                p.scale * score_gradient * qkv[at(begin + j, 1, h) + d];
            result.qkv_gradient[at(begin + j, 1, h) + d] +=
                p.scale * score_gradient * qkv[at(begin + i, 0, h) + d];
          }
        }
      }
    }
  for (double& x : result.qkv_gradient) x = rounded(x);
  return result;
}

void check_against_reference(Problem& p) {
  EXPECT(p.forward());
  const std::vector<double> qkv = p.qkv.values();
  const Reference exact = reference(p, qkv, VOLTAIC_FLOAT32, &p.context);
  const Reference sixteen = reference(p, qkv, VOLTAIC_BFLOAT16, &p.context);
  // fp32: dot products of 128 terms near 10 before the exponential; 16 bit: the rule of two.
  EXPECT_CLOSE_16(p.context, exact.context, p.dtype == VOLTAIC_FLOAT32 ? 1e-5 : 1e-4,
                  sixteen.context);
  EXPECT_CLOSE(p.log_sum_exp, exact.log_sum_exp, 5e-6);
  EXPECT(p.backward());
  EXPECT_CLOSE_16(p.qkv_gradient, exact.qkv_gradient, p.dtype == VOLTAIC_FLOAT32 ? 2e-5 : 1e-3,
                  sixteen.qkv_gradient);
}

}  // namespace

TEST(attention_matches_the_reference_on_random_ragged_shapes) {
  for (Random random : seeds(24)) {
    const voltaic_dtype dtype = random.float_dtype();
    const int64_t heads = random.integer(1, 3), size = random.size(128);
    Array offsets = random.offsets(random.integer(1, 4), 0, random.size(48));
    Problem p = make_problem(random, dtype, offsets, heads, size, random.next() % 2 ? 0.1 : 0);
    if (random.next() % 3 == 0) p.longest = 0;
    check_against_reference(p);
  }
}

// Query blocks and chunks (32, 48, 128, 192), depth blocks (256), register and dropout tiles, and
// what is left after them.
TEST(attention_matches_the_reference_past_every_block_size) {
  for (Random random : seeds(1))
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      const int32_t length = static_cast<int32_t>(random.integer(257, 280));
      Problem p = make_problem(random, dtype, Array::of_ints({3}, {0, length, length + 64}), 1,
                               dtype == VOLTAIC_FLOAT32 ? 20 : 36, 0.25);
      check_against_reference(p);
    }
}

// A GPU's tiles of 32, 64 and 128 rows, at, before and after their edges, and its head sizes of 64
// and 128 with what is padded to them, and rows that are no multiple of 16 bytes.
TEST(attention_matches_the_reference_at_the_edges_of_tiles) {
  for (Random random : seeds(1))
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      for (double probability : {0.0, 0.1}) {
        const auto check = [&](std::vector<int32_t> lengths, int64_t heads, int64_t size) {
          std::vector<int32_t> bounds = {0};
          for (int32_t length : lengths) bounds.push_back(bounds.back() + length);
          Problem p = make_problem(random, dtype,
                                   Array::of_ints({static_cast<int64_t>(bounds.size())}, bounds),
                                   heads, size, probability);
          check_against_reference(p);
        };
        check({64, 0, 63, 31, 1, 33}, 2, 64);
        check({65, 128, 0, 0, 127, 16}, 1, 64);
        check({129, 17, 200, 0, 96}, 1, 64);
        check({127, 81}, 1, 33);
        check({130, 15}, 1, 16);
        check({65, 64, 48}, 1, 128);
        check({97, 20}, 1, 80);
        check({140}, 1, 8);
        check({129, 60}, 2, 1);
      }
}

// A replayed batch with room for more sequences than it has: thousands of blocks with nothing to
// do.
TEST(attention_passes_over_thousands_of_empty_sequences) {
  for (Random random : seeds(1))
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      for (double longest : {0.0, 40.0}) {
        std::vector<int32_t> bounds(1200, 70);
        bounds[0] = 0;
        std::fill_n(bounds.begin() + 1, 500, 40);
        Problem p = make_problem(random, dtype, Array::of_ints({1200}, bounds), 1, 24,
                                 longest > 0 ? 0.1 : 0);
        p.longest = longest;
        check_against_reference(p);
      }
}

TEST(attention_of_no_tokens_and_of_empty_sequences_works) {
  for (Random random : seeds(2)) {
    Problem none = make_problem(random, random.float_dtype(), Array::of_ints({1}, {0}), 2, 8, 0.1);
    EXPECT(none.forward());
    EXPECT(none.backward());
    Problem headless =
        make_problem(random, random.float_dtype(), Array::of_ints({2}, {0, 200}), 0, 8, 0);
    EXPECT(headless.forward());
    EXPECT(headless.backward());
    Problem empty =
        make_problem(random, random.float_dtype(), Array::of_ints({4}, {0, 0, 0, 0}), 2, 8, 0);
    EXPECT(empty.forward());
    EXPECT(empty.backward());
    Problem single =
        make_problem(random, random.float_dtype(), Array::of_ints({4}, {0, 0, 1, 1}), 2, 8, 0);
    EXPECT(single.forward());
    for (int64_t h = 0; h < 2; h++)  // one token attends to itself alone
      for (int64_t d = 0; d < 8; d++)
        EXPECT(single.context.at(h * 8 + d) == single.qkv.at((2 * 2 + h) * 8 + d));
    EXPECT(single.backward());
  }
}

// Equal scores, and values that are unit vectors, for keys from `window` on: the context is a part
// of the dropped probability matrix itself. With gradients that are unit vectors, for queries from
// `window` on, so is the gradient of the values.
void check_dropped(Random& random, voltaic_dtype dtype, int64_t first, int64_t second, int64_t size,
                   int64_t window, double longest) {
  const double probability = std::vector<double>{0.1, 0.5, 0.9, 0.25}[random.next() % 4];
  // Sequences 0 and 11, none of the others having tokens: the block numbers of the latter need
  // more than 32 bits.
  std::vector<int32_t> offsets(12, static_cast<int32_t>(first));
  offsets[0] = 0;
  offsets.push_back(static_cast<int32_t>(first + second));
  Problem p = make_problem(random, dtype, Array::of_ints({13}, offsets), 2, size, probability);
  if (longest >= 0) p.longest = longest;
  for (int64_t t = 0; t < p.tokens(); t++)
    for (int64_t h = 0; h < p.heads; h++)
      for (int64_t d = 0; d < size; d++) {
        const double unit = window + d == (t < first ? t : t - first);
        p.qkv.set(((t * 3 + 0) * p.heads + h) * size + d, 0);
        p.qkv.set(((t * 3 + 2) * p.heads + h) * size + d, unit);
        p.context_gradient.set((t * p.heads + h) * size + d, unit);
      }
  EXPECT(p.forward());
  EXPECT(p.backward());
  const double tolerance = dtype == VOLTAIC_FLOAT32 ? 1e-6 : 1.0 / 128;
  int wrong = 0;
  for (int64_t s = 0; s < 2; s++)
    for (int64_t h = 0; h < p.heads; h++) {
      const int64_t begin = s ? first : 0, length = s ? second : first;
      for (int64_t i = 0; i < length; i++)
        for (int64_t d = 0; d < size && window + d < length; d++) {
          const auto check = [&](double value, double factor) {
            const double expected = factor / static_cast<double>(length);
            wrong += factor == 0 ? value != 0 : std::fabs(value - expected) > tolerance * expected;
          };
          const int64_t sequence = s ? 11 : 0;
          check(p.context.at(((begin + i) * p.heads + h) * size + d),
                dropout_factor(p, sequence, h, i, window + d));
          check(p.qkv_gradient.at((((begin + i) * 3 + 2) * p.heads + h) * size + d),
                dropout_factor(p, sequence, h, window + d, i));
        }
    }
  EXPECT(wrong == 0);
}

TEST(attention_drops_exactly_where_the_philox_numbers_say) {
  for (Random random : seeds(3))
    check_dropped(random, VOLTAIC_FLOAT32, random.integer(1, 80), random.integer(1, 40), 80, 0, -1);
  for (Random random : seeds(1))
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      check_dropped(random, dtype, 64, random.integer(1, 64), 64, 0, -1);
      check_dropped(random, dtype, 128, random.integer(1, 128), 64, 64, -1);
      check_dropped(random, dtype, random.integer(120, 180), 70, 64, 60, 0);
      check_dropped(random, dtype, random.integer(90, 140), 30, 128, 20, -1);
    }
}

TEST(attention_with_dropout_of_everything_is_zero) {
  for (Random random : seeds(1)) {
    Problem p = make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({2}, {0, 20}), 1, 16, 1);
    EXPECT(p.forward());
    EXPECT_CLOSE(p.context, std::vector<double>(20 * 16, 0.0), 0);
    EXPECT(p.backward());
    EXPECT_CLOSE(p.qkv_gradient, std::vector<double>(20 * 48, 0.0), 0);
  }
}

TEST(attention_gradients_agree_with_finite_differences) {
  for (Random random : seeds(2)) {
    Problem p = make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({3}, {0, 5, 8}), 2, 3,
                             random.next() & 1 ? 0.3 : 0);
    const std::vector<double> qkv = p.qkv.values(), g = p.context_gradient.values();
    const auto loss = [&](const std::vector<double>& x) {
      const Reference r = reference(p, x, VOLTAIC_FLOAT32);
      double sum = 0;
      for (size_t i = 0; i < g.size(); i++) sum += r.context[i] * g[i];
      return sum;
    };
    std::vector<double> expected;
    for (size_t i = 0; i < qkv.size(); i++) {
      std::vector<double> above = qkv, below = qkv;
      above[i] += 1e-5;
      below[i] -= 1e-5;
      expected.push_back((loss(above) - loss(below)) / 2e-5);
    }
    EXPECT(p.forward());
    EXPECT(p.backward());
    EXPECT_CLOSE(p.qkv_gradient, expected, 1e-5);  // truncation of the differences: 1e-10
  }
}

TEST(attention_of_a_sequence_does_not_depend_on_its_batch_in_fp32) {
  for (Random random : seeds(3)) {
    const int32_t before = static_cast<int32_t>(random.integer(0, 40)),
                  length = static_cast<int32_t>(random.size(70));
    Problem batch = make_problem(
        random, VOLTAIC_FLOAT32,
        Array::of_ints({4}, {0, before, before + length, before + length + 9}), 2, 24, 0);
    Problem alone =
        make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({2}, {0, length}), 2, 24, 0);
    alone.scale = batch.scale;
    const size_t row = 3 * 2 * 24 * 4, third = row / 3;
    std::copy_n(batch.qkv.bytes.begin() + static_cast<long>(row) * before,
                row * static_cast<size_t>(length), alone.qkv.bytes.begin());
    std::copy_n(batch.context_gradient.bytes.begin() + static_cast<long>(third) * before,
                third * static_cast<size_t>(length), alone.context_gradient.bytes.begin());
    EXPECT(batch.forward());
    EXPECT(alone.forward());
    EXPECT(batch.backward());
    EXPECT(alone.backward());
    EXPECT(std::equal(alone.context.bytes.begin(), alone.context.bytes.end(),
                      batch.context.bytes.begin() + static_cast<long>(third) * before));
    EXPECT(std::equal(alone.qkv_gradient.bytes.begin(), alone.qkv_gradient.bytes.end(),
                      batch.qkv_gradient.bytes.begin() + static_cast<long>(row) * before));
  }
}

TEST(attention_takes_a_scale_of_any_sign) {
  for (Random random : seeds(1))
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      for (double scale : {-0.4, 0.0}) {
        Problem p = make_problem(random, dtype, Array::of_ints({3}, {0, 70, 91}), 1, 16, 0.1);
        p.scale = scale;
        check_against_reference(p);
      }
}

TEST(attention_is_stable_for_huge_scores) {
  for (Random random : seeds(2)) {
    Problem p = make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({2}, {0, 33}), 1, 16, 0);
    p.scale = 1000;  // scores of thousands: nearly one-hot, exp of them overflows
    EXPECT(p.forward());
    const Reference exact = reference(p, p.qkv.values(), VOLTAIC_FLOAT32);
    EXPECT_CLOSE(p.log_sum_exp, exact.log_sum_exp, 1e-6);
    for (double x : p.context.values()) EXPECT(std::isfinite(x));
  }
}

TEST(attention_keeps_nan_within_the_row_or_the_sequence_it_touches) {
  for (Random random : seeds(2)) {
    Problem p =
        make_problem(random, random.float_dtype(), Array::of_ints({4}, {0, 9, 30, 40}), 2, 8, 0);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto element = [&](int64_t token, int64_t which, int64_t head) {
      return ((token * 3 + which) * 2 + head) * 8;
    };
    p.qkv.set(element(12, 0, 1), nan);  // a query of the second sequence, head 1
    p.qkv.set(element(35, 1, 0), nan);  // a key of the third, head 0
    EXPECT(p.forward());
    for (int64_t t = 0; t < 40; t++)
      for (int64_t h = 0; h < 2; h++)
        EXPECT(std::isnan(p.context.at((t * 2 + h) * 8)) ==
               ((t == 12 && h == 1) || (t >= 30 && h == 0)));
    EXPECT(p.backward());
    for (int64_t t = 0; t < 40; t++)
      for (int64_t h = 0; h < 2; h++) {
        const bool touched = (t >= 9 && t < 30 && h == 1) || (t >= 30 && h == 0);
        EXPECT(std::isnan(p.qkv_gradient.at(element(t, 1, h))) == touched);
      }
  }
}

TEST(attention_refuses_bad_arguments_with_a_reason) {
  for (Random random : seeds(1)) {
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16})
      for (double longest : {0.0, 10.0}) {
        const auto refused = [&](std::vector<int32_t> offsets, const char* says) {
          Problem p = make_problem(random, dtype, Array::of_ints({2}, {0, 10}), 1, 8, 0);
          EXPECT(p.forward());
          const int64_t bounds = static_cast<int64_t>(offsets.size());
          p.offsets = Array::of_ints({bounds}, offsets);
          p.longest = longest;
          EXPECT(!p.backward());
          EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
          EXPECT_TEXT(last_message().find(says) != std::string::npos, last_message());
          EXPECT(!p.forward());
          EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
          EXPECT_TEXT(last_message().find(says) != std::string::npos, last_message());
        };
        refused({}, "empty");
        refused({0}, "10");
        refused({1, 10}, "offsets[0]");
        refused({0, 6, 4, 10}, "offsets[2]");
        refused({0, 9}, "10");
        refused({0, 11}, "10");
        refused({0, -1, 10}, "offsets[1]");
        refused({0, 2147483647, 10}, "offsets[");
        refused({-2147483647, 2147483647, -2147483647}, "offsets[");
        refused(std::vector<int32_t>(100, 2147483647), "offsets[");
        // A hint that is too small: computed all the same, or refused by name.
        Problem p = make_problem(random, dtype, Array::of_ints({2}, {0, 10}), 1, 8, 0);
        p.longest = 9;
        EXPECT_TEXT(p.forward() || last_message().find("offsets[1] is 10; expected 0 to 9") !=
                                       std::string::npos,
                    last_message());
      }
    Problem wide = make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({2}, {0, 2}), 1, 129, 0);
    EXPECT(!wide.forward());
    EXPECT(last_status() == VOLTAIC_ERROR_SHAPE);
    Problem p = make_problem(random, VOLTAIC_FLOAT32, Array::of_ints({2}, {0, 2}), 1, 8, 0);
    p.context = Array(VOLTAIC_FLOAT32, {2, 1, 8});
    p.log_sum_exp = Array(VOLTAIC_FLOAT32, {1, 2});
    for (double probability : {-0.1, 1.5, static_cast<double>(NAN)}) {
      EXPECT(!run("attention_forward", {&p.qkv, &p.offsets, &p.state, &p.context, &p.log_sum_exp},
                  {1, probability, 0, 0}));
      EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
    }
    EXPECT(!run("attention_forward", {&p.qkv, &p.offsets, nullptr, &p.context, &p.log_sum_exp},
                {1, 0.1, 0, 0}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}
