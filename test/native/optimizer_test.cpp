// The optimizer over the arena: the published vectors of both forms, segments, clipping, frozen
// parts, the bf16 copy.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "harness.h"

using namespace voltaic::test;

namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-6;

struct Arena {
  Array parameters, gradients, first, second, working, starts, segment_rates, norm, rates;
  Arena(int64_t n, std::vector<int32_t> segment_starts, std::vector<double> multiplier_and_decay)
      : parameters(Array::zeros(VOLTAIC_FLOAT32, {n})),
        gradients(parameters),
        first(parameters),
        second(parameters),
        working(VOLTAIC_BFLOAT16, {n}) {
    const int64_t segments = static_cast<int64_t>(segment_starts.size());
    starts = Array::of_ints({segments}, segment_starts);
    segment_rates = Array::of_floats(VOLTAIC_FLOAT32, {segments, 2}, multiplier_and_decay);
    norm = Array::zeros(VOLTAIC_FLOAT32, {1});
    rates = Array::of_floats(VOLTAIC_FLOAT32, {4}, {0.01, 1, 1, 1});
  }
  bool step(double max_norm = 0, bool with_working = true) {
    return run("adamw",
               {&parameters, &gradients, &first, &second, with_working ? &working : nullptr,
                &starts, &segment_rates, &norm, &rates},
               {kBeta1, kBeta2, kEpsilon, max_norm});
  }
};

// One step in double precision; segments as the kernel takes them.
struct Reference {
  std::vector<double> p, m, v;
  void step(const Arena& arena, double max_norm) {
    const double norm = arena.norm.at(0);
    const double scale = arena.rates.at(3) * (max_norm > 0 ? std::min(1.0, max_norm / norm) : 1);
    for (size_t i = 0; i < p.size(); i++) {
      int64_t segment = arena.starts.elements() - 1;
      while (arena.starts.at(segment) * 16 > static_cast<double>(i)) segment--;
      const double multiplier = arena.segment_rates.at(2 * segment),
                   decay = arena.segment_rates.at(2 * segment + 1);
      if (multiplier == 0) continue;
      const double g = arena.gradients.at(static_cast<int64_t>(i)) * scale;
      m[i] = kBeta1 * m[i] + (1 - kBeta1) * g;
      v[i] = kBeta2 * v[i] + (1 - kBeta2) * g * g;
      const double u = m[i] / arena.rates.at(1) / (std::sqrt(v[i] / arena.rates.at(2)) + kEpsilon) +
                       decay * p[i];
      p[i] -= arena.rates.at(0) * multiplier * u;
    }
  }
};

}  // namespace

TEST(adamw_gives_the_published_vectors_in_both_forms) {
  // Specification, section 9.2: p = 1, rate 0.01, decay 0.01, gradients 0.1, -0.2, 0.3.
  const double published[2][3] = {{0.9682872202, 0.9837460964, 0.9666579168},
                                  {0.9899001000, 0.9934621221, 0.9899303810}};
  for (bool corrected : {false, true}) {
    Arena arena(1, {0}, {1, 0.01});
    arena.parameters.set(0, 1);
    for (int step = 1; step <= 3; step++) {
      arena.gradients.set(0, step == 1 ? 0.1 : step == 2 ? -0.2 : 0.3);
      if (corrected) {
        arena.rates.set(1, 1 - std::pow(kBeta1, step));
        arena.rates.set(2, 1 - std::pow(kBeta2, step));
      }
      EXPECT(arena.step());
      EXPECT_CLOSE(arena.parameters, std::vector<double>{published[corrected][step - 1]}, 3e-7);
    }
  }
}

TEST(adamw_over_segments_matches_double_precision) {
  for (Random random : seeds(16)) {
    std::vector<int32_t> starts{0};
    std::vector<double> rates{random.uniform(0.5, 1), 0.01};
    const int64_t segments = random.integer(1, 8);
    for (int64_t s = 1; s < segments; s++) {
      starts.push_back(starts.back() + static_cast<int32_t>(random.integer(1, 12)));
      rates.push_back(random.integer(0, 3) == 0 ? 0 : random.uniform(0.5, 1));
      rates.push_back(random.next() & 1 ? 0.01 : 0);
    }
    const int64_t n = starts.back() * 16 + random.size(130);
    Arena arena(n, starts, rates);
    arena.parameters = random.array(VOLTAIC_FLOAT32, {n});
    arena.first = random.array(VOLTAIC_FLOAT32, {n}, -0.1, 0.1);
    arena.second = random.array(VOLTAIC_FLOAT32, {n}, 0, 0.1);
    const double max_norm = random.next() & 1 ? 1 : 0;
    arena.norm.set(0, random.uniform(0.2, 4));
    Reference want{arena.parameters.values(), arena.first.values(), arena.second.values()};
    for (int step = 1; step <= 3; step++) {
      arena.gradients = random.array(VOLTAIC_FLOAT32, {n});
      arena.rates =
          Array::of_floats(VOLTAIC_FLOAT32, {4},
                           {0.01, 1 - std::pow(kBeta1, step), 1 - std::pow(kBeta2, step), 0.5});
      EXPECT(arena.step(max_norm));
      want.step(arena, max_norm);
    }
    EXPECT_CLOSE(arena.parameters, want.p, 1e-6);
    EXPECT_CLOSE(arena.first, want.m, 1e-6);
    EXPECT_CLOSE(arena.second, want.v, 1e-6);
    for (int64_t i = 0; i < n; i++)
      EXPECT(arena.working.at(i) == round_to(VOLTAIC_BFLOAT16, arena.parameters.at(i)));
  }
}

TEST(adamw_leaves_a_segment_with_multiplier_zero_untouched_but_copies_it) {
  Random random(3);
  Arena arena(96, {0, 2, 4}, {1, 0, 0, 0.5, 1, 0});
  arena.parameters = random.array(VOLTAIC_FLOAT32, {96});
  arena.first = random.array(VOLTAIC_FLOAT32, {96});
  arena.second = random.array(VOLTAIC_FLOAT32, {96}, 0, 1);
  arena.gradients = random.array(VOLTAIC_FLOAT32, {96});
  for (int64_t i = 32; i < 64; i++) arena.gradients.set(i, NAN);
  const std::vector<double> p = arena.parameters.values(), m = arena.first.values(),
                            v = arena.second.values();
  EXPECT(arena.step());
  for (int64_t i = 0; i < 96; i++) {
    const bool frozen = i >= 32 && i < 64;
    EXPECT((arena.parameters.at(i) == p[i]) == frozen);
    EXPECT((arena.first.at(i) == m[i]) == frozen);
    EXPECT((arena.second.at(i) == v[i]) == frozen);
    EXPECT(arena.working.at(i) == round_to(VOLTAIC_BFLOAT16, arena.parameters.at(i)));
  }
}

TEST(adamw_keeps_padding_zero_and_works_without_the_16_bit_copy) {
  Random random(4);
  Arena arena(48, {0, 1}, {1, 0.01, 1, 0.01});
  for (int64_t i : {0, 1, 2, 16, 17}) arena.gradients.set(i, random.uniform(0.5, 1));
  EXPECT(arena.step(1.0, false));
  for (int64_t i = 0; i < 48; i++)
    EXPECT((arena.parameters.at(i) == 0) == (i > 17 || (i > 2 && i < 16)));
}

TEST(adamw_across_its_tasks_is_one_update) {
  // A segment that ends within the second task of 32768, and an end that is no multiple of a
  // vector.
  const int64_t n = 65536 + 21;
  Random random(5);
  Arena arena(n, {0, 2500, 4097}, {1, 0, 0.5, 0.01, 0, 0});
  arena.parameters = random.array(VOLTAIC_FLOAT32, {n});
  arena.gradients = random.array(VOLTAIC_FLOAT32, {n});
  Reference want{arena.parameters.values(), arena.first.values(), arena.second.values()};
  EXPECT(arena.step());
  want.step(arena, 0);
  EXPECT_CLOSE(arena.parameters, want.p, 1e-6);
}

TEST(adamw_and_global_norm_take_arrays_that_start_at_any_element) {
  Random random(6);
  for (int64_t elements : {1, 2, 4}) {
    const Shifted shifted(elements);
    const int64_t n = 33000;
    Arena arena(n, {0, 700, 1500}, {1, 0, 0.5, 0.01, 0, 0});
    arena.parameters = random.array(VOLTAIC_FLOAT32, {n});
    arena.gradients = random.array(VOLTAIC_FLOAT32, {n});
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += arena.gradients.at(i) * arena.gradients.at(i);
    EXPECT(run("global_norm", {&arena.gradients, &arena.norm}, {1}));
    EXPECT_CLOSE(arena.norm, std::vector<double>{std::sqrt(squares)}, 3e-7);
    Reference want{arena.parameters.values(), arena.first.values(), arena.second.values()};
    EXPECT(arena.step(1));
    want.step(arena, 1);
    EXPECT_CLOSE(arena.parameters, want.p, 1e-6);
    for (int64_t i = 0; i < n; i++)
      EXPECT(arena.working.at(i) == round_to(VOLTAIC_BFLOAT16, arena.parameters.at(i)));
  }
}

TEST(adamw_refuses_a_segment_table_that_does_not_fit) {
  struct Case {
    std::vector<int32_t> starts;
  };
  for (const Case& c :
       {Case{{1, 2}}, Case{{0, 0}}, Case{{0, 2, 1}}, Case{{0, 4}}, Case{{0, -1}}, Case{{}}}) {
    Arena arena(64, c.starts, std::vector<double>(2 * c.starts.size(), 1.0));
    EXPECT(!arena.step());
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
  }
}

TEST(adamw_looks_at_every_segment_of_a_long_table) {
  for (int32_t segments : {33, 700, 2100}) {
    std::vector<int32_t> starts;
    std::vector<double> rates;
    int32_t end = 0;
    for (int32_t s = 0; s < segments; s++) {
      starts.push_back(end);
      end += s % 50 == 7 ? 90 : 1;
      rates.push_back(s % 3 == 0 ? 0 : 1.0 / (s + 1));
      rates.push_back(0.01 * (s % 5));
    }
    Random random(7);
    const int64_t n = end * 16;
    Arena arena(n, starts, rates);
    arena.parameters = random.array(VOLTAIC_FLOAT32, {n});
    arena.gradients = random.array(VOLTAIC_FLOAT32, {n});
    Reference want{arena.parameters.values(), arena.first.values(), arena.second.values()};
    EXPECT(arena.step());
    want.step(arena, 0);
    EXPECT_CLOSE(arena.parameters, want.p, 1e-6);
    const int32_t bad = segments - 3;
    arena.starts.set(bad, starts[static_cast<size_t>(bad - 1)]);
    EXPECT(!arena.step());
    EXPECT(last_status() == VOLTAIC_ERROR_ARGUMENT);
    const std::string message = "segment_starts[" + std::to_string(bad) + "] is " +
                                std::to_string(starts[static_cast<size_t>(bad - 1)]);
    EXPECT_TEXT(last_message().find(message) != std::string::npos, last_message());
  }
}

TEST(adamw_passes_nan_on) {
  Arena arena(32, {0}, {1, 0});
  arena.gradients.set(7, NAN);
  EXPECT(arena.step());
  for (int64_t i = 0; i < 32; i++) EXPECT(std::isnan(arena.parameters.at(i)) == (i == 7));
  arena.norm.set(0, NAN);
  EXPECT(arena.step(1.0));
  EXPECT(std::isnan(arena.parameters.at(0)));
}

TEST(global_norm_matches_double_precision_at_any_size) {
  for (int64_t n : {0, 1, 7, 64, 4095, 4097, 40000, 70001}) {
    Random random(static_cast<uint64_t>(n));
    Array gradients = random.array(VOLTAIC_FLOAT32, {n}), norm(VOLTAIC_FLOAT32, {1});
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += gradients.at(i) * gradients.at(i);
    EXPECT(run("global_norm", {&gradients, &norm}, {0.25}));
    EXPECT_CLOSE(norm, std::vector<double>{0.25 * std::sqrt(sum)}, 3e-7);
  }
}

TEST(global_norm_shows_infinity_and_nan) {
  Array gradients = Array::zeros(VOLTAIC_FLOAT32, {100}), norm(VOLTAIC_FLOAT32, {1});
  gradients.set(41, -INFINITY);
  EXPECT(run("global_norm", {&gradients, &norm}, {1}));
  EXPECT(norm.at(0) == INFINITY);
  gradients.set(99, NAN);
  EXPECT(run("global_norm", {&gradients, &norm}, {1}));
  EXPECT(std::isnan(norm.at(0)));
}
