// Corruption: which positions are chosen, what they become, and how samples turn into labels.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../../native/engine/philox.h"
#include "harness.h"

using namespace voltaic::test;

namespace {

constexpr int32_t kCls = 2, kSep = 3, kMask = 4;

struct Batch {
  Array ids, offsets, state, masked, positions, targets, count;
  Batch(Array sequence_offsets, int64_t capacity, Random& random, int64_t vocabulary = 60)
      : offsets(std::move(sequence_offsets)),
        positions(VOLTAIC_INT32, {capacity}),
        targets(positions),
        count(VOLTAIC_INT32, {1}) {
    const int64_t tokens = static_cast<int64_t>(offsets.at(offsets.elements() - 1));
    ids = random.int_array({tokens}, 0, vocabulary - 1);
    state = random.int_array({4}, -2147483648LL, 2147483647LL);
    masked = Array(VOLTAIC_INT32, {tokens});
  }
  bool mask(double probability, double replace_probability, double limit, uint32_t site) {
    return run("corruption_mask", {&ids, &offsets, &state, &masked, &positions, &targets, &count},
               {probability, replace_probability, limit, kCls, kSep, kMask, double(site)});
  }
};

uint32_t word(Array& state, uint32_t site, int64_t t) {
  return voltaic_random_block(state.ints(), site, static_cast<uint64_t>(t / 4)).word[t % 4];
}

void check(Batch& batch, double probability, double replace_probability, int64_t limit,
           uint32_t site) {
  EXPECT(batch.mask(probability, replace_probability, static_cast<double>(limit), site));
  const int64_t capacity = batch.positions.elements();
  std::vector<int64_t> positions, targets, masked;
  for (int64_t t = 0; t < batch.ids.elements(); t++)
    masked.push_back(static_cast<int64_t>(batch.ids.at(t)));
  for (int64_t s = 0; s + 1 < batch.offsets.elements(); s++) {
    const int64_t begin = static_cast<int64_t>(batch.offsets.at(s)),
                  end = static_cast<int64_t>(batch.offsets.at(s + 1));
    std::vector<std::pair<uint32_t, int64_t>> keys;
    for (int64_t t = begin; t < end; t++) {
      const double id = batch.ids.at(t);
      if (id != kCls && id != kSep && id != kMask) keys.push_back({word(batch.state, site, t), t});
    }
    std::sort(keys.begin(), keys.end());
    const float product = static_cast<float>(end - begin) * static_cast<float>(probability);
    const int64_t wanted = std::max<int64_t>(1, std::min<int64_t>(limit, std::lrint(product)));
    const int64_t left = capacity - static_cast<int64_t>(positions.size());
    keys.resize(std::min({wanted, static_cast<int64_t>(keys.size()), left}));
    std::vector<int64_t> chosen;
    for (const auto& key : keys) chosen.push_back(key.second);
    std::sort(chosen.begin(), chosen.end());
    for (int64_t t : chosen) {
      positions.push_back(t);
      targets.push_back(static_cast<int64_t>(batch.ids.at(t)));
      if (voltaic_uniform(word(batch.state, site + 1, t)) < static_cast<float>(replace_probability))
        masked[t] = kMask;
    }
  }
  EXPECT_EQUAL(batch.count, std::vector<int64_t>{static_cast<int64_t>(positions.size())});
  positions.resize(capacity, 0);
  targets.resize(capacity, -100);
  EXPECT_EQUAL(batch.positions, positions);
  EXPECT_EQUAL(batch.targets, targets);
  EXPECT_EQUAL(batch.masked, masked);
}

}  // namespace

TEST(corruption_mask_follows_the_keys_of_philox) {
  for (Random random : seeds(24)) {
    const int64_t sequences = random.integer(1, 9), longest = random.size(90);
    Array offsets = random.offsets(sequences, 0, longest);
    Batch batch(offsets, random.size(120), random, random.next() & 1 ? 60 : 7);
    check(batch, random.uniform(0, 1), random.uniform(0, 1), random.integer(1, 30),
          static_cast<uint32_t>(random.integer(0, 4294967295LL)));
  }
}

TEST(corruption_mask_chooses_as_many_as_the_original_recipe) {
  // Specification, section 3.2: at 0.15 and N = 19, a length of 5 gives 1, 10 gives 2, and so on.
  const std::vector<std::pair<int, int>> examples = {
      {5, 1}, {10, 2}, {20, 3}, {30, 4}, {63, 9}, {70, 10}, {100, 15}, {128, 19}, {512, 19}};
  for (const auto& [length, chosen] : examples) {
    Random random(static_cast<uint64_t>(length));
    Batch batch(Array::of_ints({2}, {0, length}), 64, random);
    for (int64_t t = 0; t < length; t++) batch.ids.set(t, 10 + t % 40);
    EXPECT(batch.mask(0.15, 0.85, 19, 5));
    EXPECT_EQUAL(batch.count, std::vector<int64_t>{chosen});
  }
}

TEST(corruption_mask_chooses_every_eligible_token_about_equally_often) {
  Random random(6);
  Batch batch(Array::of_ints({2}, {0, 20}), 8, random);
  for (int64_t t = 0; t < 20; t++)
    batch.ids.set(t, t == 0 ? kCls : t == 19 ? kSep : t == 7 ? kMask : 10 + t);
  std::vector<int> times(20), replaced(20);
  const int draws = 2000;
  for (int draw = 0; draw < draws; draw++) {
    batch.state.set(2, draw);
    EXPECT(batch.mask(0.15, 0.85, 19, 5));
    for (int64_t slot = 0; slot < 3; slot++) {
      const int t = static_cast<int>(batch.positions.at(slot));
      times[t]++;
      replaced[t] += batch.masked.at(t) == kMask;
    }
  }
  int total = 0;
  for (int t = 0; t < 20; t++) {
    const bool special = t == 0 || t == 19 || t == 7;
    // 3 of 17 each time: 353 of 2000 with standard deviation 17; five of them
    EXPECT_TEXT(special ? times[t] == 0 : std::abs(times[t] - 353) < 85, std::to_string(times[t]));
    total += replaced[t];
  }
  EXPECT(std::abs(total - 0.85 * 3 * draws) < 5 * std::sqrt(3 * draws * 0.85 * 0.15));
}

TEST(corruption_mask_cuts_later_sequences_at_the_capacity) {
  Random random(7);
  Batch batch(Array::of_ints({5}, {0, 20, 40, 60, 80}), 5, random);
  for (int64_t t = 0; t < 80; t++) batch.ids.set(t, 10 + t % 40);
  check(batch, 0.15, 1, 19, 77);
  EXPECT(batch.positions.at(2) < 20 && batch.positions.at(3) >= 20 && batch.positions.at(4) < 40);
}

TEST(corruption_mask_takes_sequences_with_nothing_to_choose) {
  Random random(8);
  Batch batch(Array::of_ints({6}, {0, 0, 3, 3, 4, 4}), 4, random);
  batch.ids = Array::of_ints({4}, {kCls, kMask, kSep, 50});
  check(batch, 0.9, 1, 19, 1);
  EXPECT_EQUAL(batch.count, std::vector<int64_t>{1});
  Batch none(Array::of_ints({1}, {0}), 4, random), no_room(Array::of_ints({2}, {0, 9}), 0, random);
  check(none, 0.15, 0.85, 19, 1);
  check(no_room, 0.15, 0.85, 19, 1);
}

TEST(corruption_mask_takes_long_sequences) {
  Random random(10);
  Batch batch(Array::of_ints({4}, {0, 3, 5010, 5020}), 900, random);
  check(batch, 0.15, 0.85, 700, 9);
  check(batch, 0.15, 0.85, 2000, 9);
}

TEST(corruption_mask_takes_thousands_of_sequences_most_of_them_empty) {
  Random random(11);
  std::vector<int32_t> offsets{0};
  while (offsets.size() < 1200) {
    const int64_t length = offsets.size() % 4 == 0 ? random.integer(0, 6) : 0;
    offsets.push_back(offsets.back() + static_cast<int32_t>(length));
  }
  offsets.resize(2500, offsets.back());
  for (int64_t capacity : {400, 100}) {
    Batch batch(Array::of_ints({2500}, offsets), capacity, random);
    check(batch, 0.3, 0.5, 19, 2);
  }
}

TEST(corruption_mask_refuses_bad_offsets_and_probabilities) {
  Random random(9);
  for (const std::vector<int32_t>& offsets :
       {std::vector<int32_t>{0, 5, 4, 9}, {1, 9}, {0, 8}, {0, 10}, {}}) {
    Batch batch(Array::of_ints({2}, {0, 9}), 4, random);
    batch.offsets = Array::of_ints({static_cast<int64_t>(offsets.size())}, offsets);
    EXPECT(!batch.mask(0.15, 0.85, 19, 1));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
  for (double probability : {-0.1, 1.1, double(NAN)}) {
    Batch batch(Array::of_ints({2}, {0, 9}), 4, random);
    EXPECT(!batch.mask(probability, 0.85, 19, 1));
    EXPECT(!batch.mask(0.15, probability, 19, 1));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}

TEST(corruption_replace_puts_samples_in_and_labels_what_differs) {
  for (Random random : seeds(12)) {
    const int64_t tokens = random.size(80), capacity = random.size(40),
                  count = random.integer(0, capacity);
    Array ids = random.int_array({tokens}, 0, 5), samples = random.int_array({capacity}, 0, 5);
    Array positions = random.int_array({capacity}, 0, tokens - 1),
          replaced(VOLTAIC_INT32, {tokens});
    Array labels = replaced, filled = Array::of_ints({1}, {static_cast<int32_t>(count)});
    for (int64_t slot = count; slot < capacity; slot++) samples.set(slot, -1);
    EXPECT(run("corruption_replace", {&ids, &positions, &samples, &filled, &replaced, &labels}));
    std::vector<int64_t> want, differs;
    for (int64_t t = 0; t < tokens; t++) want.push_back(static_cast<int64_t>(ids.at(t)));
    for (int64_t slot = 0; slot < count; slot++)
      want[static_cast<size_t>(positions.at(slot))] = static_cast<int64_t>(samples.at(slot));
    for (int64_t t = 0; t < tokens; t++)
      differs.push_back(want[t] != static_cast<int64_t>(ids.at(t)));
    EXPECT_EQUAL(replaced, want);
    EXPECT_EQUAL(labels, differs);
  }
}

TEST(corruption_replace_refuses_positions_and_counts_out_of_range) {
  Array ids = Array::of_ints({3}, {7, 8, 9}), samples = Array::of_ints({2}, {1, 2}),
        out(VOLTAIC_INT32, {3});
  Array labels = out, count = Array::of_ints({1}, {2});
  for (int32_t bad : {-1, 3, 2147483647}) {
    Array positions = Array::of_ints({2}, {0, bad});
    EXPECT(!run("corruption_replace", {&ids, &positions, &samples, &count, &out, &labels}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
    EXPECT_TEXT(last_message().find("positions[1] is " + std::to_string(bad)) != std::string::npos,
                last_message());
  }
  Array positions = Array::of_ints({2}, {0, 1});
  for (int32_t bad : {-1, 3}) {
    count.ints()[0] = bad;
    EXPECT(!run("corruption_replace", {&ids, &positions, &samples, &count, &out, &labels}));
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}
