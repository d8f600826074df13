// The embedding block, forward and backward, against double precision; its range checks; its fixed
// order of additions.
#include <cmath>
#include <string>
#include <vector>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;

namespace {

struct Block {
  int64_t tokens, width, vocabulary, kinds, limit;
  Array ids, types, positions, word, type, position, weight, bias, state;

  Block(Random& random, voltaic_dtype dtype, int64_t token_count, int64_t columns, int64_t words)
      : tokens(token_count),
        width(columns),
        vocabulary(words),
        kinds(random.integer(1, 3)),
        limit(random.integer(1, 40)) {
    ids = random.int_array({tokens}, 0, vocabulary - 1);
    types = random.int_array({tokens}, 0, kinds - 1);
    positions = random.int_array({tokens}, 0, limit - 1);
    word = random.array(dtype, {vocabulary, width});
    type = random.array(dtype, {kinds, width});
    position = random.array(dtype, {limit, width});
    weight = random.array(VOLTAIC_FLOAT32, {width}, 0.5, 2);
    bias = random.array(VOLTAIC_FLOAT32, {width});
    state = random.int_array({4}, -2147483648LL, 2147483647LL);
  }
};

struct Outputs {
  Array sum, y, mean, inverse_std;
  Outputs(const Block& block, voltaic_dtype dtype)
      : sum(dtype, {block.tokens, block.width}),
        y(sum),
        mean(VOLTAIC_FLOAT32, {block.tokens}),
        inverse_std(mean) {}
};

bool forward(Block& block, Outputs& out, double probability, double site) {
  return run("embedding_forward",
             {&block.ids, &block.types, &block.positions, &block.word, &block.type, &block.position,
              &block.weight, &block.bias, probability > 0 ? &block.state : nullptr, &out.sum,
              &out.y, &out.mean, &out.inverse_std},
             {1e-12, probability, site});
}

struct Gradients {
  Array word, type, position, weight, bias;
  Gradients(Random& random, const Block& block)
      : word(random.array(VOLTAIC_FLOAT32, {block.vocabulary, block.width})),
        type(random.array(VOLTAIC_FLOAT32, {block.kinds, block.width})),
        position(random.array(VOLTAIC_FLOAT32, {block.limit, block.width})),
        weight(random.array(VOLTAIC_FLOAT32, {block.width})),
        bias(weight) {}
};

bool backward(Block& block, Array& y_gradient, Outputs& out, Gradients& gradients,
              double probability, double site) {
  return run(
      "embedding_backward",
      {&y_gradient, &block.ids, &block.types, &block.positions, &out.sum, &out.mean,
       &out.inverse_std, &block.weight, probability > 0 ? &block.state : nullptr, &gradients.word,
       &gradients.type, &gradients.position, &gradients.weight, &gradients.bias},
      {probability, site});
}

double dropout_factor(Array& state, uint32_t site, double probability, int64_t i) {
  const uint32_t threshold = voltaic_dropout_threshold(probability);
  const voltaic_random4 block =
      voltaic_random_block(state.ints(), site, static_cast<uint64_t>(i / 8));
  if (threshold == 0) return 1;
  return voltaic_random16(&block, static_cast<int>(i % 8)) >= threshold
             ? 65536.0 / (65536.0 - threshold)
             : 0;
}

void check(Random& random, Block& block, voltaic_dtype dtype, double probability, uint32_t site) {
  const int64_t tokens = block.tokens, width = block.width;
  Outputs out(block, dtype);
  EXPECT(forward(block, out, probability, site));
  std::vector<double> sum, y, mean(tokens), inverse_std(tokens), factor;
  for (int64_t t = 0; t < tokens; t++) {
    double variance = 0;
    for (int64_t j = 0; j < width; j++) {
      sum.push_back(block.word.at(static_cast<int64_t>(block.ids.at(t)) * width + j) +
                    block.type.at(static_cast<int64_t>(block.types.at(t)) * width + j) +
                    block.position.at(static_cast<int64_t>(block.positions.at(t)) * width + j));
      mean[t] += out.sum.at(t * width + j) / width;
      factor.push_back(dropout_factor(block.state, site, probability, t * width + j));
    }
    for (int64_t j = 0; j < width; j++)
      variance += std::pow(out.sum.at(t * width + j) - mean[t], 2) / width;
    inverse_std[t] = 1 / std::sqrt(variance + 1e-12);
    for (int64_t j = 0; j < width; j++) {
      const double x_hat = (out.sum.at(t * width + j) - mean[t]) * inverse_std[t];
      y.push_back((x_hat * block.weight.at(j) + block.bias.at(j)) * factor[t * width + j]);
    }
  }
  EXPECT_CLOSE(out.sum, sum, 3e-7);
  EXPECT_CLOSE(out.y, y, 5e-6);
  EXPECT_CLOSE(out.mean, mean, 5e-6);  // the mean of a wide row is small beside its elements
  EXPECT_CLOSE(out.inverse_std, inverse_std, 5e-6);

  Array y_gradient = random.array(dtype, {tokens, width});
  Gradients gradients(random, block);
  std::vector<double> word = gradients.word.values(), type = gradients.type.values();
  std::vector<double> position = gradients.position.values();
  std::vector<double> weight = gradients.weight.values(), bias = gradients.bias.values();
  for (int64_t t = 0; t < tokens; t++) {
    double mean_g = 0, mean_product = 0;
    const auto gradient = [&](int64_t j) {
      return y_gradient.at(t * width + j) * factor[t * width + j];
    };
    const auto x_hat = [&](int64_t j) {
      return (out.sum.at(t * width + j) - out.mean.at(t)) * out.inverse_std.at(t);
    };
    for (int64_t j = 0; j < width; j++) {
      mean_g += gradient(j) * block.weight.at(j) / width;
      mean_product += gradient(j) * block.weight.at(j) * x_hat(j) / width;
      weight[j] += gradient(j) * x_hat(j);
      bias[j] += gradient(j);
    }
    for (int64_t j = 0; j < width; j++) {
      const double g = out.inverse_std.at(t) *
                       (gradient(j) * block.weight.at(j) - mean_g - x_hat(j) * mean_product);
      word[static_cast<int64_t>(block.ids.at(t)) * width + j] += g;
      type[static_cast<int64_t>(block.types.at(t)) * width + j] += g;
      position[static_cast<int64_t>(block.positions.at(t)) * width + j] += g;
    }
  }
  EXPECT(backward(block, y_gradient, out, gradients, probability, site));
  EXPECT_CLOSE(gradients.word, word, 5e-6);
  EXPECT_CLOSE(gradients.type, type, 5e-6);
  EXPECT_CLOSE(gradients.position, position, 5e-6);
  EXPECT_CLOSE(gradients.weight, weight, 3e-6);
  EXPECT_CLOSE(gradients.bias, bias, 3e-6);
}

}  // namespace

TEST(embedding_forward_and_backward_match_double_precision) {
  for (Random random : seeds(16)) {
    const voltaic_dtype dtype = random.float_dtype();
    const int64_t tokens = random.size(200), width = random.size(40) + 3,
                  vocabulary = random.size(60);
    Block block(random, dtype, tokens, width, vocabulary);
    const double probability = random.next() & 1 ? 0.1 : 0;
    check(random, block, dtype, probability,
          static_cast<uint32_t>(random.integer(0, 4294967295LL)));
  }
}

TEST(embedding_backward_takes_numbers_beyond_one_radix_digit) {
  Random random(21);
  Block block(random, VOLTAIC_FLOAT32, 150, 4, 5000);
  check(random, block, VOLTAIC_FLOAT32, 0.5, 7);
}

TEST(embedding_backward_sums_a_word_that_fills_the_batch) {
  Random random(22);
  for (int64_t tokens : {1, 63, 64, 65, 128, 129, 330}) {
    Block block(random, VOLTAIC_FLOAT32, tokens, 5, 9);
    for (int64_t t = 0; t < tokens; t++) block.ids.set(t, t % 50 == 49 ? 8 : 3);
    check(random, block, VOLTAIC_FLOAT32, 0, 0);
  }
}

TEST(embedding_takes_rows_of_every_width) {
  Random random(26);
  for (int64_t width : {8, 64, 72, 128, 256, 264, 768, 1024, 1032})
    for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
      Block block(random, dtype, 21, width, 12);
      check(random, block, dtype, 0.1, 3);
    }
}

TEST(embedding_backward_sums_words_that_come_over_a_thousand_times) {
  Random random(27);
  for (int64_t width : {5, 8}) {
    Block block(random, VOLTAIC_FLOAT32, 1500, width, 40);
    for (int64_t t = 0; t < block.tokens; t++)
      if (t % 7 > 0) block.ids.set(t, t < 1300 ? 11 : 39);
    check(random, block, VOLTAIC_FLOAT32, 0, 0);
  }
}

TEST(embedding_takes_arrays_that_start_at_any_element) {
  Random random(29);
  for (int64_t elements : {1, 4}) {  // four begin at 16 bytes in fp32, not in bf16
    const Shifted shifted(elements);
    for (int64_t width : {8, 256, 1032})
      for (voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
        Block block(random, dtype, 70, width, 12);
        check(random, block, dtype, 0.1, 3);
      }
  }
}

TEST(embedding_backward_sorts_more_tokens_than_one_block_of_a_card) {
  Random random(30);
  Block block(random, VOLTAIC_FLOAT32, 3001, 4, 700);
  check(random, block, VOLTAIC_FLOAT32, 0, 0);
}

TEST(embedding_backward_takes_numbers_of_three_bytes) {
  Random random(28);
  Block block(random, VOLTAIC_FLOAT32, 70, 1, 70000);
  check(random, block, VOLTAIC_FLOAT32, 0.5, 7);
}

TEST(embedding_refuses_numbers_out_of_range_in_both_directions) {
  Random random(23);
  const char* names[] = {"ids[5] is ", "types[5] is ", "positions[5] is "};
  for (int which = 0; which < 3; which++) {
    for (int32_t bad : {-1, 1000, 2147483647, -2147483647 - 1}) {
      Block block(random, VOLTAIC_FLOAT32, 9, 6, 10);
      Outputs out(block, VOLTAIC_FLOAT32);
      Array y_gradient = random.array(VOLTAIC_FLOAT32, {9, 6});
      Gradients gradients(random, block);
      EXPECT(forward(block, out, 0, 0));
      (which == 0 ? block.ids : which == 1 ? block.types : block.positions).ints()[5] = bad;
      for (bool back : {false, true}) {
        EXPECT(!(back ? backward(block, y_gradient, out, gradients, 0, 0)
                      : forward(block, out, 0, 0)));
        EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
        EXPECT_TEXT(last_message().find(names[which] + std::to_string(bad)) != std::string::npos,
                    last_message());
      }
    }
  }
}

TEST(embedding_of_no_tokens_leaves_the_gradients) {
  Random random(24);
  Block block(random, VOLTAIC_BFLOAT16, 0, 6, 10);
  Outputs out(block, VOLTAIC_BFLOAT16);
  Gradients gradients(random, block);
  const std::vector<double> before = gradients.word.values();
  Array y_gradient(VOLTAIC_BFLOAT16, {0, 6});
  EXPECT(forward(block, out, 0.1, 1));
  EXPECT(backward(block, y_gradient, out, gradients, 0.1, 1));
  EXPECT(gradients.word.values() == before);
}

TEST(embedding_keeps_nan_within_the_rows_it_meets) {
  Random random(25);
  Block block(random, VOLTAIC_FLOAT32, 12, 6, 10);
  for (int64_t t = 0; t < 12; t++) block.ids.set(t, t == 4 ? 9 : t % 8);
  block.word.set(9 * 6 + 2, NAN);
  Outputs out(block, VOLTAIC_FLOAT32);
  EXPECT(forward(block, out, 0, 0));
  for (int64_t i = 0; i < 12 * 6; i++) EXPECT(std::isnan(out.y.at(i)) == (i / 6 == 4));
}
