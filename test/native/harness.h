// A small test harness for native code: named tests, seeded random arrays, and kernels called by
// name on any backend.
//
// A kernel test computes its expectation in double precision, in plain loops, from the very inputs
// the kernel got, and compares. Every run of a kernel goes through the kernel table's checks,
// starts from poisoned outputs (NaN), and is repeated with one and with several threads: the bits
// must agree.
//
//   TEST(layer_norm_forward) {
//     for (Random random : seeds(20)) {                 // prints the seed when something fails
//       Array x = random.array(VOLTAIC_FLOAT32, {rows, width});
//       Array y(VOLTAIC_FLOAT32, {rows, width});
//       EXPECT(run("layer_norm_forward", {&x, ...}, {1e-12}));
//       EXPECT_CLOSE(y, expected, 1e-6);                // expected: std::vector<double>
//     }
//   }
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "../../native/engine/backend_abi.h"

namespace voltaic::test {

// ---- registration
struct Test {
  const char* name;
  void (*body)();
};
bool register_test(const char* name, void (*body)());

#define TEST(name)                                                                         \
  static void test_##name();                                                               \
  static const bool registered_##name = voltaic::test::register_test(#name, &test_##name); \
  static void test_##name()

// Counts a pass or a failure; a failure prints file, line, the text and the current seed.
bool expect(bool condition, const char* file, int line, const std::string& text);
#define EXPECT(condition) voltaic::test::expect((condition), __FILE__, __LINE__, #condition)
#define EXPECT_TEXT(condition, text) voltaic::test::expect((condition), __FILE__, __LINE__, (text))

// ---- arrays
struct Array {
  voltaic_dtype dtype = VOLTAIC_FLOAT32;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;

  Array() = default;
  // Poisoned: every byte 0xFF, a NaN in both float types, -1 in int32.
  Array(voltaic_dtype dtype, std::vector<int64_t> shape);
  static Array of_floats(voltaic_dtype dtype, std::vector<int64_t> shape,
                         const std::vector<double>& values);
  static Array of_ints(std::vector<int64_t> shape, const std::vector<int32_t>& values);
  static Array zeros(voltaic_dtype dtype, std::vector<int64_t> shape);

  int64_t elements() const;
  double at(int64_t i) const;         // any dtype, as a double
  void set(int64_t i, double value);  // rounds to the dtype
  std::vector<double> values() const;
  int32_t* ints() { return reinterpret_cast<int32_t*>(bytes.data()); }
};

double round_to(voltaic_dtype dtype, double value);

// ---- random inputs
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  uint64_t next();
  double uniform(double low = -1, double high = 1);
  double normal();
  int64_t integer(int64_t low, int64_t high);  // both ends included
  // Sizes that kernels trip over: 1, primes, vector widths and their neighbours, up to most.
  int64_t size(int64_t most);
  Array array(voltaic_dtype dtype, std::vector<int64_t> shape, double low = -1, double high = 1);
  Array int_array(std::vector<int64_t> shape, int64_t low, int64_t high);
  voltaic_dtype float_dtype() { return next() & 1 ? VOLTAIC_FLOAT32 : VOLTAIC_BFLOAT16; }
  // Ragged offsets: sequences with lengths from shortest to longest (0 allowed).
  Array offsets(int64_t sequences, int64_t shortest, int64_t longest);

 private:
  uint64_t state_;
};
// Generators for count runs; the seed in use is printed with failures. --seed N runs that one
// alone, --seeds N at most the first N.
struct Seeds {
  int count;
  struct Iterator {
    int i;
    Random operator*() const;
    Iterator& operator++() {
      ++i;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return i != other.i; }
  };
  Iterator begin() const { return {0}; }
  Iterator end() const;
};
inline Seeds seeds(int count) { return {count}; }

// ---- kernels
// Runs an op on the backend under test, through the table's checks. nullptr: an optional argument
// left out. Returns true when it succeeded; last_message() has the sentence otherwise. Arrays whose
// role is out are poisoned first; the call is made once with 1 thread and once with several, from
// the same inputs, and the bits must agree.
bool run(const char* op, std::vector<Array*> tensors, std::vector<double> attributes = {});
// While it lives, every array starts this many elements behind an aligned address, as a view may.
struct Shifted {
  explicit Shifted(int64_t elements);
  ~Shifted();
  Shifted(const Shifted&) = delete;
};
voltaic_status last_status();
const std::string& last_message();
const std::string& backend_name();
// What the device says about a library for products; empty where its backend looks for none.
std::string matmul_library();

// ---- comparison
// fp32: every |actual - expected| <= tolerance * (scale + |expected|), scale the root mean square
// of expected. bf16: the root mean square error is at most twice that of rounding a straightforward
// 16-bit computation's results:
//       twice the error of `sixteen_bit` (default: expected rounded to bf16) against expected, plus
//       tolerance * scale.
// fp32 with `sixteen_bit`, for what was summed from 16-bit numbers: the same rule as bf16.
// NaN where none is expected fails. Returns whether it held and counts the check.
bool expect_close(const Array& actual, const std::vector<double>& expected, double tolerance,
                  const char* file, int line, const std::string& text,
                  const std::vector<double>* sixteen_bit = nullptr);
#define EXPECT_CLOSE(actual, expected, tolerance) \
  voltaic::test::expect_close((actual), (expected), (tolerance), __FILE__, __LINE__, #actual)
#define EXPECT_CLOSE_16(actual, expected, tolerance, sixteen_bit)                             \
  voltaic::test::expect_close((actual), (expected), (tolerance), __FILE__, __LINE__, #actual, \
                              &(sixteen_bit))

// int32 and uint8 arrays: equality
bool expect_equal(const Array& actual, const std::vector<int64_t>& expected, const char* file,
                  int line, const std::string& text);
#define EXPECT_EQUAL(actual, expected) \
  voltaic::test::expect_equal((actual), (expected), __FILE__, __LINE__, #actual)

}  // namespace voltaic::test
