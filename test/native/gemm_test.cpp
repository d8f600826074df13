// gemm against plain loops in double precision, on the very values that the kernel got.
#include "harness.h"

#include <cmath>
#include <cstdlib>
#include <limits>

using namespace voltaic::test;

namespace {

// fp32 sums of up to 700 products of numbers in [-1, 1]: rounding grows as sqrt(k) of 6e-8 each,
// about 2e-6 of the result's scale; the rest covers bf16 products summed in another order.
constexpr double kTolerance = 1e-5;
// Whether a product may be rounded on its way to an activation: where a library makes it and a
// kernel follows, and where VOLTAIC_GEMM=unfused has our own kernels stand in for a library.
// Everywhere else product and epilogue are one kernel, with fp32 sums between them.
bool products_in_steps() {
  const char* const setting = std::getenv("VOLTAIC_GEMM");
  const bool unfused = setting != nullptr && std::string(setting) == "unfused";
  return !backend_name().starts_with("cpu:") &&
         (unfused || matmul_library().starts_with("cuBLASLt "));
}

enum Epilogue { kPlain, kBias, kBiasActivation, kActivationGradient, kActivationGradientAndValue };
// Only the CPU has the last one.
int last_epilogue() {
  return backend_name().starts_with("cpu:") ? kActivationGradientAndValue : kActivationGradient;
}

struct Gemm {
  int64_t m = 1, n = 1, k = 1;
  bool transpose_a = false, transpose_b = false;
  double alpha = 1, beta = 0;
  int epilogue = kPlain, activation = 0;
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;

  std::vector<double> attributes() const {
    return {double(m),
            double(n),
            double(k),
            double(transpose_a),
            double(transpose_b),
            alpha,
            beta,
            double(epilogue),
            double(activation),
            double(batch),
            double(stride_a),
            double(stride_b),
            double(stride_c)};
  }
};

double activate(int kind, double x) {
  switch (kind) {
    case 0:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case 1:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case 2:
      return x > 0 ? x : 0;
    case 3:
      return std::tanh(x);
    default:
      return 1 / (1 + std::exp(-x));
  }
}
double activate_gradient(int kind, double x) {
  switch (kind) {
    case 0:
      return 0.5 * (1 + std::erf(x / std::sqrt(2.0))) +
             x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    case 1: {
      const double c = std::sqrt(2 / M_PI), t = std::tanh(c * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    }
    case 2:
      return x > 0 ? 1 : 0;
    case 3:
      return 1 - std::tanh(x) * std::tanh(x);
    default: {
      const double s = 1 / (1 + std::exp(-x));
      return s * (1 - s);
    }
  }
}

struct Expected {
  std::vector<double> c, saved, bias_gradient;
  // Where a 16-bit product is rounded before the activation.
  std::vector<double> c_in_steps, bias_gradient_in_steps;
};

// What the row of the kernel table says, element by element. Elements of c and saved between items
// stay as they were.
Expected expected_gemm(const Gemm& g, const Array& a, const Array& b, const Array* bias,
                       const Array* saved, const Array* bias_gradient, const Array& c) {
  Expected result;
  result.c = result.c_in_steps = c.values();
  const std::vector<double> av = a.values(), bv = b.values();
  if (saved != nullptr) result.saved = saved->values();
  if (bias_gradient != nullptr)
    result.bias_gradient = result.bias_gradient_in_steps = bias_gradient->values();
  for (int64_t item = 0; item < g.batch; item++)
    for (int64_t i = 0; i < g.m; i++)
      for (int64_t j = 0; j < g.n; j++) {
        double sum = 0;
        for (int64_t p = 0; p < g.k; p++)
          sum += av[size_t(item * g.stride_a + (g.transpose_a ? p * g.m + i : i * g.k + p))] *
                 bv[size_t(item * g.stride_b + (g.transpose_b ? j * g.k + p : p * g.n + j))];
        const size_t at = size_t(item * g.stride_c + i * g.n + j);
        sum *= g.alpha;
        if (g.beta != 0) sum += g.beta * c.at(int64_t(at));
        if (bias != nullptr && (g.epilogue == kBias || g.epilogue == kBiasActivation))
          sum += bias->at(j);
        double rounded = round_to(VOLTAIC_BFLOAT16, sum);
        if (g.epilogue == kBiasActivation) {
          rounded = activate(g.activation, rounded);
          if (saved != nullptr) result.saved[at] = sum;
          sum = activate(g.activation, sum);
        } else if (g.epilogue >= kActivationGradient) {
          if (g.epilogue == kActivationGradientAndValue)
            result.saved[at] = activate(g.activation, saved->at(int64_t(at)));
          rounded *= activate_gradient(g.activation, saved->at(int64_t(at)));
          sum *= activate_gradient(g.activation, saved->at(int64_t(at)));
          if (bias_gradient != nullptr) {
            result.bias_gradient[size_t(j)] += sum;
            result.bias_gradient_in_steps[size_t(j)] += rounded;
          }
        }
        result.c[at] = sum;
        result.c_in_steps[at] = round_to(VOLTAIC_BFLOAT16, rounded);
      }
  return result;
}

// Makes inputs for g, runs it and compares all it wrote.
void check(Random& random, const Gemm& g, voltaic_dtype in, voltaic_dtype out, bool with_optional) {
  const int64_t span_c = g.batch == 0 ? 0 : (g.batch - 1) * g.stride_c + g.m * g.n;
  Array a = random.array(in, {(g.batch == 0 ? 0 : (g.batch - 1) * g.stride_a) + g.m * g.k});
  Array b = random.array(in, {(g.batch == 0 ? 0 : (g.batch - 1) * g.stride_b) + g.k * g.n});
  Array bias = random.array(VOLTAIC_FLOAT32, {g.n}),
        bias_gradient = random.array(VOLTAIC_FLOAT32, {g.n});
  Array saved = g.epilogue >= kActivationGradient ? random.array(in, {span_c}, -3, 3)
                                                  : Array::zeros(in, {span_c});
  // Poison that must not leak when beta is 0; with gaps between items, zeros that must stay.
  Array c = g.beta != 0              ? random.array(out, {span_c})
            : g.stride_c > g.m * g.n ? Array::zeros(out, {span_c})
                                     : Array(out, {span_c});
  const bool uses_bias = g.epilogue == kBias || (g.epilogue == kBiasActivation && with_optional);
  const bool uses_saved =
      g.epilogue >= kActivationGradient || (g.epilogue == kBiasActivation && with_optional);
  const bool uses_gradient = g.epilogue >= kActivationGradient && with_optional;
  const Expected want =
      expected_gemm(g, a, b, uses_bias ? &bias : nullptr, uses_saved ? &saved : nullptr,
                    uses_gradient ? &bias_gradient : nullptr, c);
  const std::string text = std::to_string(g.m) + "x" + std::to_string(g.n) + "x" +
                           std::to_string(g.k) + " transposed " + std::to_string(g.transpose_a) +
                           std::to_string(g.transpose_b) + " epilogue " +
                           std::to_string(g.epilogue) + " batch " + std::to_string(g.batch) +
                           " dtypes " + std::to_string(in) + std::to_string(out);
  if (!expect(run("gemm",
                  {&a, &b, uses_bias ? &bias : nullptr, uses_saved ? &saved : nullptr,
                   uses_gradient ? &bias_gradient : nullptr, &c},
                  g.attributes()),
              __FILE__, __LINE__, text))
    return;
  // And there only where a, b and c are all 16-bit.
  const bool in_steps = in == VOLTAIC_BFLOAT16 && out == VOLTAIC_BFLOAT16 && products_in_steps();
  expect_close(c, want.c, kTolerance, __FILE__, __LINE__, "c of " + text,
               in_steps ? &want.c_in_steps : nullptr);
  if (uses_saved)
    expect_close(saved, want.saved, kTolerance, __FILE__, __LINE__, "saved of " + text);
  if (uses_gradient)
    expect_close(bias_gradient, want.bias_gradient, kTolerance, __FILE__, __LINE__,
                 "bias_gradient of " + text, in_steps ? &want.bias_gradient_in_steps : nullptr);
}

void choose_dtypes(Random& random, voltaic_dtype& in, voltaic_dtype& out) {
  in = random.float_dtype();
  out = random.float_dtype();
}

}  // namespace

TEST(gemm_all_transposes_and_dtypes_match_plain_loops) {
  for (Random random : seeds(48)) {
    Gemm g;
    g.m = random.size(70);
    g.n = random.size(70);
    g.k = random.size(70);
    g.transpose_a = random.next() & 1;
    g.transpose_b = random.next() & 1;
    g.alpha = random.next() & 1 ? 1 : random.uniform(-2, 2);
    g.beta = random.next() & 1 ? 0 : random.uniform(-2, 2);
    voltaic_dtype in, out;
    choose_dtypes(random, in, out);
    check(random, g, in, out, false);
  }
}

TEST(gemm_epilogues_match_plain_loops) {
  for (Random random : seeds(40)) {
    Gemm g;
    g.m = random.size(70);
    g.n = random.size(50);
    g.k = random.size(40);
    g.transpose_a = random.next() & 1;
    g.transpose_b = random.next() & 1;
    g.alpha = random.uniform(-1, 1);
    g.beta = random.next() & 1 ? 0 : random.uniform(-1, 1);
    g.epilogue = int(random.integer(kBias, last_epilogue()));
    g.activation = int(random.integer(0, 4));
    voltaic_dtype in, out;
    choose_dtypes(random, in, out);
    check(random, g, in, out, random.next() & 1);
  }
}

TEST(gemm_batches_with_strides_match_plain_loops) {
  for (Random random : seeds(24)) {
    Gemm g;
    g.m = random.size(20);
    g.n = random.size(20);
    g.k = random.size(20);
    g.transpose_a = random.next() & 1;
    g.transpose_b = random.next() & 1;
    g.batch = random.integer(0, 9);
    g.beta = random.next() & 1 ? 0 : 0.5;
    g.epilogue = int(random.integer(kPlain, last_epilogue()));
    // Shared, adjacent, or with a gap.
    const int64_t kind = random.integer(0, 3);
    g.stride_a = kind == 0 ? 0 : g.m * g.k + (kind == 2 ? 5 : 0);
    g.stride_b = kind == 1 || kind == 3 ? 0 : g.k * g.n + (kind == 2 ? 3 : 0);
    g.stride_c = g.m * g.n + (kind == 2 ? 7 : 0);
    voltaic_dtype in, out;
    choose_dtypes(random, in, out);
    check(random, g, in, out, true);
  }
}

// Whole vectors of bf16 and gelu throughout, as models have it, at sizes where rows end within a
// block's batch.
TEST(gemm_gelu_of_whole_vectors_matches_plain_loops) {
  for (Random random : seeds(6)) {
    Gemm g;
    g.m = random.integer(1, 150);
    g.n = 4 * random.integer(1, 40);
    g.k = 8 * random.integer(1, 4);
    g.batch = random.integer(1, 2);
    g.stride_a = g.m * g.k;
    g.stride_b = g.k * g.n;
    g.stride_c = g.m * g.n;
    for (const int epilogue : {int(kBiasActivation), int(kActivationGradient)}) {
      g.epilogue = epilogue;
      check(random, g, VOLTAIC_BFLOAT16, VOLTAIC_BFLOAT16, random.next() & 1);
    }
  }
}

// Deeper than one packed panel, taller and wider than one block, and larger batch items that take
// all threads each.
TEST(gemm_crosses_block_borders) {
  const int64_t sizes[][3] = {{5, 9, 700},    {230, 17, 33}, {9, 1100, 6}, {210, 530, 3},
                              {200, 40, 530}, {1, 67, 513},  {40, 1, 600}, {64, 64, 1}};
  for (const auto& size : sizes)
    for (Random random : seeds(2)) {
      Gemm g;
      g.m = size[0];
      g.n = size[1];
      g.k = size[2];
      g.transpose_a = random.next() & 1;
      g.transpose_b = random.next() & 1;
      g.epilogue = random.next() & 1 ? kActivationGradient : kBiasActivation;
      g.beta = random.next() & 1 ? 0 : 0.25;
      voltaic_dtype in, out;
      choose_dtypes(random, in, out);
      check(random, g, in, out, true);
    }
  for (Random random : seeds(2)) {
    Gemm g;
    g.batch = 2;
    g.m = 200;
    g.n = 100;
    g.k = 101;
    g.transpose_a = true;
    g.stride_a = g.m * g.k;
    g.stride_b = g.k * g.n;
    g.stride_c = g.m * g.n;
    g.epilogue = kActivationGradient;
    check(random, g, random.float_dtype(), VOLTAIC_FLOAT32, true);
  }
}

// A transposed a, whose blocks of c a CPU may cut squarely: packed by each task or ahead, by rows
// and by columns, in one step of k or in several, whole and halved.
TEST(gemm_of_a_transposed_a_crosses_the_borders_of_square_blocks) {
  if (!backend_name().starts_with("cpu:")) return;
  const int64_t sizes[][3] = {{1100, 40, 33}, {40, 2100, 33},  {258, 514, 40},
                              {40, 66, 1030}, {186, 186, 900}, {520, 130, 34}};
  for (const auto& size : sizes) {
    Random random(static_cast<uint64_t>(size[0] + size[1]));
    Gemm g;
    g.m = size[0];
    g.n = size[1];
    g.k = size[2];
    g.transpose_a = true;
    g.transpose_b = random.next() & 1;
    g.beta = random.next() & 1 ? 0 : 0.25;
    check(random, g, VOLTAIC_BFLOAT16, VOLTAIC_FLOAT32, true);
  }
}

// Sizes for which a card of four processors, such as the emulator's, takes each of its tiles, whole
// and cut at both borders, with steps left over along k; multiples of 8 for its widest loads, or
// just not.
TEST(gemm_tiles_of_every_size_meet_their_borders) {
  const int64_t sizes[][3] = {{248, 504, 72}, {504, 248, 360}, {256, 512, 64}, {72, 136, 104},
                              {249, 503, 70}, {255, 250, 136}, {40, 8, 1032},  {66, 130, 34}};
  int turn = 0;
  for (const auto& size : sizes)
    for (int transposes = 0; transposes < 4; transposes++) {
      Random random(static_cast<uint64_t>(++turn));
      Gemm g;
      g.m = size[0];
      g.n = size[1];
      g.k = size[2];
      g.transpose_a = transposes & 1;
      g.transpose_b = transposes & 2;
      g.beta = random.next() & 1 ? 0 : 0.25;
      g.epilogue = int(random.integer(kPlain, last_epilogue()));
      g.activation = int(random.integer(0, 4));
      check(random, g, VOLTAIC_BFLOAT16, random.float_dtype(), true);
    }
  // Rows of a and b begin at multiples of 8, those of c at even or odd elements.
  for (int64_t n = 250; n < 258; n++) {
    Random random(static_cast<uint64_t>(n));
    Gemm g;
    g.m = n < 254 ? 130 : 510;
    g.n = n;
    g.k = n < 254 ? 48 : 376;
    g.transpose_b = true;
    g.epilogue = int(n % 4);
    check(random, g, VOLTAIC_BFLOAT16, random.float_dtype(), true);
  }
}

// Rows that do not begin at multiples of 8, in products large enough that a card of four processors
// copies the operand first, with padded rows: a's, b's or both, along k and across it, at even and
// odd elements; one item, several, and one that serves several; c's rows as unaligned.
TEST(gemm_pads_rows_that_begin_anywhere) {
  struct Case {
    int64_t m, n, k, batch;
    bool transpose_a, transpose_b, shared;
  };
  const Case cases[] = {
      {256, 512, 250, 1, false, false, false}, {506, 256, 256, 1, true, false, false},
      {256, 506, 264, 1, false, false, false}, {256, 512, 251, 1, true, true, false},
      {506, 506, 250, 1, false, true, false},  {505, 264, 507, 1, true, true, false},
      {256, 250, 248, 4, false, false, false}, {130, 256, 512, 4, true, false, true}};
  int turn = 0;
  for (const Case& it : cases) {
    Random random(static_cast<uint64_t>(++turn));
    Gemm g;
    g.m = it.m;
    g.n = it.n;
    g.k = it.k;
    g.transpose_a = it.transpose_a;
    g.transpose_b = it.transpose_b;
    g.batch = it.batch;
    g.stride_a = g.batch > 1 && !it.shared ? g.m * g.k : 0;
    g.stride_b = g.batch > 1 ? g.k * g.n : 0;
    g.stride_c = g.batch > 1 ? g.m * g.n : 0;
    g.epilogue = turn % 4;
    g.activation = turn % 5;
    check(random, g, VOLTAIC_BFLOAT16, turn & 1 ? VOLTAIC_FLOAT32 : VOLTAIC_BFLOAT16, true);
  }
}

// Views may begin at any element.
TEST(gemm_takes_tensors_that_begin_anywhere) {
  for (const int64_t shift : {1, 2, 3}) {
    const Shifted shifted(shift);
    for (Random random : seeds(8)) {
      Gemm g;
      g.m = 8 * random.integer(1, 12);
      g.n = 8 * random.integer(1, 12);
      g.k = 8 * random.integer(1, 12);
      g.transpose_a = random.next() & 1;
      g.transpose_b = random.next() & 1;
      g.beta = random.next() & 1 ? 0 : 0.5;
      g.epilogue = int(random.integer(kPlain, last_epilogue()));
      g.activation = int(random.integer(0, 4));
      voltaic_dtype in, out;
      choose_dtypes(random, in, out);
      check(random, g, in, out, true);
    }
    Random random(static_cast<uint64_t>(shift));
    Gemm padded;
    padded.m = 256;
    padded.n = 504;
    padded.k = 264;
    padded.epilogue = kActivationGradient;
    padded.transpose_a = shift == 1;
    padded.transpose_b = shift == 2;
    check(random, padded, VOLTAIC_BFLOAT16, VOLTAIC_BFLOAT16, true);
  }
}

// Few rows and columns, and much between: k is cut for more blocks, and the parts are added.
TEST(gemm_long_sums_match_plain_loops) {
  for (Random random : seeds(16)) {
    Gemm g;
    g.m = random.size(90);
    g.n = random.size(90);
    g.k = random.integer(0, 2) == 0 ? 8 * random.integer(128, 260) : random.integer(1020, 2100);
    g.transpose_a = random.next() & 1;
    g.transpose_b = random.next() & 1;
    g.alpha = random.uniform(-1, 1);
    g.beta = random.next() & 1 ? 0 : 1;
    g.epilogue = int(random.integer(kPlain, last_epilogue()));
    g.activation = int(random.integer(0, 4));
    g.batch = random.integer(1, 3);
    g.stride_a = g.m * g.k;
    g.stride_b = random.next() & 1 ? 0 : g.k * g.n;
    g.stride_c = g.m * g.n + (random.next() & 1 ? 0 : 4);
    voltaic_dtype in, out;
    choose_dtypes(random, in, out);
    check(random, g, in, out, true);
  }
  // The same sums by one block each.
  for (const int64_t size : {256, 290}) {
    Random random(static_cast<uint64_t>(size));
    Gemm g;
    g.m = g.n = size;
    g.k = 1100;
    g.transpose_a = size == 290;
    g.epilogue = kActivationGradient;
    check(random, g, VOLTAIC_FLOAT32, VOLTAIC_FLOAT32, true);
  }
}

TEST(gemm_long_row_is_the_same_alone_and_among_others) {
  Random random(1);
  Gemm g;
  g.m = 256;
  g.n = 250;
  g.k = 1101;
  Array a = random.array(VOLTAIC_FLOAT32, {g.m, g.k}),
        b = random.array(VOLTAIC_FLOAT32, {g.k * g.n});
  Array c(VOLTAIC_FLOAT32, {g.m, g.n});
  EXPECT(run("gemm", {&a, &b, nullptr, nullptr, nullptr, &c}, g.attributes()));
  Gemm alone = g;
  alone.m = 1;
  Array one(VOLTAIC_FLOAT32, {1, g.k}), result(VOLTAIC_FLOAT32, {1, g.n});
  std::memcpy(one.bytes.data(), a.bytes.data() + 77 * one.bytes.size(), one.bytes.size());
  EXPECT(run("gemm", {&one, &b, nullptr, nullptr, nullptr, &result}, alone.attributes()));
  EXPECT(std::memcmp(result.bytes.data(), c.bytes.data() + 77 * result.bytes.size(),
                     result.bytes.size()) == 0);
}

TEST(gemm_takes_empty_sizes) {
  for (Random random : seeds(4)) {
    for (int empty = 0; empty < 3; empty++)
      for (int epilogue = kPlain; epilogue <= last_epilogue(); epilogue++) {
        Gemm g;
        g.m = empty == 0 ? 0 : 7;
        g.n = empty == 1 ? 0 : 19;
        g.k = empty == 2 ? 0 : 3;
        g.epilogue = epilogue;
        g.activation = 3;
        g.beta = random.next() & 1 ? 0 : 2;
        check(random, g, random.float_dtype(), random.float_dtype(), true);
      }
  }
}

// The promise of the engine: a row's fp32 result depends on the row and on b, not on the rows
// around it.
TEST(gemm_row_is_the_same_alone_and_among_others) {
  for (Random random : seeds(12)) {
    Gemm g;
    g.m = random.size(230);
    g.n = random.size(70);
    g.k = random.next() & 1 ? random.size(60) : random.integer(250, 530);
    g.transpose_b = random.next() & 1;
    g.epilogue = kBiasActivation;
    Array a = random.array(VOLTAIC_FLOAT32, {g.m, g.k}),
          b = random.array(VOLTAIC_FLOAT32, {g.k * g.n});
    Array bias = random.array(VOLTAIC_FLOAT32, {g.n}), c(VOLTAIC_FLOAT32, {g.m, g.n});
    EXPECT(run("gemm", {&a, &b, &bias, nullptr, nullptr, &c}, g.attributes()));
    for (const int64_t row : {int64_t{0}, g.m / 2, g.m - 1}) {
      Gemm alone = g;
      alone.m = 1;
      Array one(VOLTAIC_FLOAT32, {1, g.k}), result(VOLTAIC_FLOAT32, {1, g.n});
      const size_t bytes = size_t(g.k) * 4, result_bytes = size_t(g.n) * 4;
      std::memcpy(one.bytes.data(), a.bytes.data() + size_t(row) * bytes, bytes);
      EXPECT(run("gemm", {&one, &b, &bias, nullptr, nullptr, &result}, alone.attributes()));
      EXPECT(std::memcmp(result.bytes.data(), c.bytes.data() + size_t(row) * result_bytes,
                         result_bytes) == 0);
    }
  }
}

// Panels of a are read where they stand or packed, sums wait in c or in scratch: which, depends on
// the sizes around them, and the bits do not.
TEST(gemm_sums_are_the_same_however_panels_are_read) {
  if (!backend_name().starts_with("cpu:")) return;
  const int64_t wide_m = 270, wide_n = 530;
  for (Random random : seeds(6)) {
    const bool transpose_a = random.next() & 1;
    Gemm wide, narrow;
    wide.m = wide_m;
    wide.n = wide_n;
    narrow.m = random.size(40);
    narrow.n = random.size(70);
    wide.k = narrow.k = random.integer(250, 600);
    wide.transpose_a = narrow.transpose_a = transpose_a;
    wide.transpose_b = narrow.transpose_b = true;
    Array a = random.array(VOLTAIC_FLOAT32, {wide_m * wide.k}),
          b = random.array(VOLTAIC_FLOAT32, {wide_n, wide.k});
    Array first_a(VOLTAIC_FLOAT32, {narrow.m * wide.k});
    for (int64_t i = 0; i < narrow.m; i++)
      for (int64_t k = 0; k < wide.k; k++)
        first_a.set(transpose_a ? k * narrow.m + i : i * wide.k + k,
                    a.at(transpose_a ? k * wide_m + i : i * wide.k + k));
    Array first_b(VOLTAIC_FLOAT32, {narrow.n, wide.k});
    std::memcpy(first_b.bytes.data(), b.bytes.data(), first_b.bytes.size());
    Array c(VOLTAIC_FLOAT32, {wide_m, wide_n}), in_place(VOLTAIC_FLOAT32, {narrow.m, narrow.n}),
        added = Array::zeros(VOLTAIC_FLOAT32, {narrow.m, narrow.n});
    EXPECT(run("gemm", {&a, &b, nullptr, nullptr, nullptr, &c}, wide.attributes()));
    EXPECT(run("gemm", {&first_a, &first_b, nullptr, nullptr, nullptr, &in_place},
               narrow.attributes()));
    narrow.beta = 1;
    EXPECT(
        run("gemm", {&first_a, &first_b, nullptr, nullptr, nullptr, &added}, narrow.attributes()));
    for (int64_t i = 0; i < narrow.m; i++)
      for (int64_t j = 0; j < narrow.n; j++) {
        EXPECT(in_place.at(i * narrow.n + j) == c.at(i * wide_n + j));
        EXPECT(added.at(i * narrow.n + j) == c.at(i * wide_n + j));
      }
  }
}

TEST(gemm_passes_nan_and_infinity_on_to_their_row_and_column_alone) {
  for (Random random : seeds(8)) {
    Gemm g;
    g.m = random.integer(2, 40);
    g.n = random.integer(2, 40);
    g.k = random.integer(1, 70);
    g.transpose_a = random.next() & 1;
    g.transpose_b = random.next() & 1;
    const voltaic_dtype in = random.float_dtype();
    Array a = random.array(in, {g.m * g.k}), b = random.array(in, {g.k * g.n}),
          c(VOLTAIC_FLOAT32, {g.m * g.n});
    const int64_t row = random.integer(0, g.m - 1), column = random.integer(0, g.n - 1),
                  p = random.integer(0, g.k - 1);
    a.set(g.transpose_a ? p * g.m + row : row * g.k + p, std::numeric_limits<double>::quiet_NaN());
    const int64_t at_b = g.transpose_b ? column * g.k + p : p * g.n + column;
    b.set(at_b, std::numeric_limits<double>::infinity());
    EXPECT(run("gemm", {&a, &b, nullptr, nullptr, nullptr, &c}, g.attributes()));
    for (int64_t i = 0; i < g.m; i++)
      for (int64_t j = 0; j < g.n; j++) {
        const double x = c.at(i * g.n + j);
        EXPECT(i == row ? std::isnan(x) : j == column ? !std::isfinite(x) : std::isfinite(x));
      }
  }
}

TEST(gemm_activation_gradient_may_overwrite_saved) {
  for (Random random : seeds(4)) {
    Gemm g;
    g.m = random.size(40);
    g.n = random.size(40);
    g.k = random.size(20);
    g.epilogue = kActivationGradient;
    const voltaic_dtype in = random.float_dtype();
    Array a = random.array(in, {g.m * g.k}), b = random.array(in, {g.k * g.n}),
          saved = random.array(in, {g.m * g.n}, -3, 3);
    const Expected want = expected_gemm(g, a, b, nullptr, &saved, nullptr, saved);
    EXPECT(run("gemm", {&a, &b, nullptr, &saved, nullptr, &saved}, g.attributes()));
    EXPECT_CLOSE(saved, want.c, kTolerance);
  }
}

TEST(gemm_names_what_is_wrong_with_its_arguments) {
  Random random(1);
  Array a = random.array(VOLTAIC_FLOAT32, {6}), b = random.array(VOLTAIC_FLOAT32, {12}),
        c(VOLTAIC_FLOAT32, {8});
  Array bias = random.array(VOLTAIC_FLOAT32, {3});
  Gemm good;
  good.m = 2;
  good.n = 4;
  good.k = 3;
  const auto refused = [&](const Gemm& g, voltaic_status status, const char* word,
                           Array* with_bias = nullptr) {
    EXPECT(!run("gemm", {&a, &b, with_bias, nullptr, nullptr, &c}, g.attributes()));
    EXPECT(last_status() == status);
    EXPECT_TEXT(last_message().find(word) != std::string::npos,
                std::string("message names ") + word);
  };
  EXPECT(run("gemm", {&a, &b, nullptr, nullptr, nullptr, &c}, good.attributes()));
  Gemm g = good;
  g.m = 3;
  refused(g, VOLTAIC_ERROR_SHAPE, "a holds 6");
  g = good;
  g.n = 5;
  refused(g, VOLTAIC_ERROR_SHAPE, "b holds 12");
  g = good;
  g.k = 0;
  g.n = 5;
  refused(g, VOLTAIC_ERROR_SHAPE, "c holds 8");
  g = good;
  g.batch = 2;
  g.stride_c = 8;
  refused(g, VOLTAIC_ERROR_SHAPE, "c holds 8");
  g.stride_c = 0;
  g.m = g.n = g.k = 1;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "stride_c");
  g = good;
  g.epilogue = 5;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "epilogue is 5");
  g = good;
  g.epilogue = kBiasActivation;
  g.activation = 5;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "activation is 5");
  g = good;
  g.epilogue = kBias;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "bias");
  refused(g, VOLTAIC_ERROR_SHAPE, "bias has 3", &bias);
  g.epilogue = kActivationGradient;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "saved");
  g = good;
  g.m = -1;
  refused(g, VOLTAIC_ERROR_ARGUMENT, "m is -1");
  g.m = 1e9;
  g.k = 1e9;
  g.batch = 1e9;
  g.stride_a = 1e15;
  refused(g, VOLTAIC_ERROR_SHAPE, "a holds 6");
}

// A weight's panels made ahead are the very numbers that the product packs by itself: same bits,
// from both layouts, with every epilogue, below and beyond a block of rows and a step of k.
TEST(gemm_packed_gives_the_bits_of_gemm) {
  if (!backend_name().starts_with("cpu:")) return;
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 67, 513},   {3, 13, 33},    {40, 97, 31},
                              {64, 256, 7}, {230, 100, 40}, {210, 49, 530}, {33, 530, 261}};
  int turn = 0;
  for (const auto& size : sizes)
    for (Random random : seeds(4))
      for (const voltaic_dtype in : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
        Gemm g;
        g.m = size[0];
        g.n = size[1];
        g.k = size[2];
        g.transpose_b = ++turn & 1;
        g.beta = random.next() & 1 ? 0 : 0.5;
        g.epilogue = turn / 2 % 5;
        g.activation = int(random.integer(0, 4));
        const voltaic_dtype out = random.float_dtype();
        Array a = random.array(in, {g.m, g.k}), b = random.array(in, {g.k * g.n}),
              bias = random.array(VOLTAIC_FLOAT32, {g.n}), c = random.array(out, {g.m, g.n}),
              saved = random.array(in, {g.m, g.n}, -3, 3),
              gradient = random.array(VOLTAIC_FLOAT32, {g.n});
        Array packed(in, {(g.n + 48) * ((g.k + 31) / 32 * 32)});
        Array own_c = c, own_saved = saved, own_gradient = gradient;
        EXPECT(run("gemm", {&a, &b, &bias, &saved, &gradient, &c}, g.attributes()));
        EXPECT(
            run("pack_weight", {&b, &packed}, {double(g.n), double(g.k), double(g.transpose_b)}));
        EXPECT(run("gemm_packed", {&a, &packed, &bias, &own_saved, &own_gradient, &own_c},
                   {double(g.m), double(g.n), double(g.k), g.beta, double(g.epilogue),
                    double(g.activation)}));
        const std::string text = std::to_string(g.m) + "x" + std::to_string(g.n) + "x" +
                                 std::to_string(g.k) + " epilogue " + std::to_string(g.epilogue);
        EXPECT_TEXT(own_c.bytes == c.bytes, "c of " + text);
        EXPECT_TEXT(own_saved.bytes == saved.bytes, "saved of " + text);
        EXPECT_TEXT(own_gradient.bytes == gradient.bytes, "bias_gradient of " + text);
      }
}

TEST(gemm_packed_names_what_is_wrong_with_its_arguments) {
  if (!backend_name().starts_with("cpu:")) return;
  Random random(1);
  Array a = random.array(VOLTAIC_FLOAT32, {6}), b = random.array(VOLTAIC_FLOAT32, {12}),
        c(VOLTAIC_FLOAT32, {8}), few(VOLTAIC_FLOAT32, {52 * 32 - 1}),
        packed(VOLTAIC_FLOAT32, {52 * 32});
  const auto says = [](voltaic_status status, const char* word) {
    EXPECT(last_status() == status);
    EXPECT_TEXT(last_message().find(word) != std::string::npos, std::string("names ") + word);
  };
  EXPECT(!run("pack_weight", {&b, &few}, {4, 3, 0}));
  says(VOLTAIC_ERROR_SHAPE, "panels of 1663 elements");
  EXPECT(!run("pack_weight", {&a, &packed}, {4, 3, 0}));
  says(VOLTAIC_ERROR_SHAPE, "b holds 6");
  EXPECT(!run("pack_weight", {&b, &packed}, {4, -3, 0}));
  says(VOLTAIC_ERROR_ARGUMENT, "k is -3");
  EXPECT(run("pack_weight", {&b, &packed}, {4, 3, 0}));
  const auto refused = [&](std::vector<double> attributes, voltaic_status status,
                           const char* word) {
    EXPECT(!run("gemm_packed", {&a, &packed, nullptr, nullptr, nullptr, &c}, attributes));
    says(status, word);
  };
  EXPECT(run("gemm_packed", {&a, &packed, nullptr, nullptr, nullptr, &c}, {2, 4, 3, 0, 0, 0}));
  refused({2, 5, 3, 0, 0, 0}, VOLTAIC_ERROR_SHAPE, "too few for 5 x 3");
  refused({2, 1e9, 1e9, 0, 0, 0}, VOLTAIC_ERROR_SHAPE, "too few");
  refused({3, 4, 3, 0, 0, 0}, VOLTAIC_ERROR_SHAPE, "a holds 6");
  refused({2, 4, 3, 0, 1, 0}, VOLTAIC_ERROR_ARGUMENT, "bias");
}

TEST(bias_gradient_adds_column_sums) {
  for (Random random : seeds(16)) {
    const int64_t rows = random.next() & 1 ? random.size(60) : random.integer(0, 300);
    const int64_t width = random.integer(0, 7) == 0 ? random.integer(500, 530) : random.size(60);
    const voltaic_dtype dtype = random.float_dtype();
    Array gradient = random.array(dtype, {rows, width}),
          sums = random.array(VOLTAIC_FLOAT32, {width});
    std::vector<double> want = sums.values();
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < width; j++) want[size_t(j)] += gradient.at(i * width + j);
    EXPECT(run("bias_gradient", {&gradient, &sums}));
    EXPECT_CLOSE(sums, want, kTolerance);
  }
  // Whole lines of the widest loads, many rows a block, and rows left over.
  for (const voltaic_dtype dtype : {VOLTAIC_FLOAT32, VOLTAIC_BFLOAT16}) {
    Random random(7);
    const int64_t rows = 1003, width = 264;
    Array gradient = random.array(dtype, {rows, width}),
          sums = random.array(VOLTAIC_FLOAT32, {width});
    std::vector<double> want = sums.values();
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < width; j++) want[size_t(j)] += gradient.at(i * width + j);
    EXPECT(run("bias_gradient", {&gradient, &sums}));
    EXPECT_CLOSE(sums, want, kTolerance);
  }
}
