#include "harness.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "../../native/cpu/backend.h"
#include "../../native/engine/bfloat16.h"
#include "../../native/engine/kernel_table.h"
#include "../../native/engine/parallel.h"

namespace voltaic::test {
namespace {

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

struct State {
  int passed = 0, failed = 0;
  const char* test = "";
  int64_t seed = -1;
  int64_t only_seed = -1;
  int most_seeds = 1 << 30;
  const voltaic_backend* backend = nullptr;
  voltaic_stream* stream = nullptr;
  std::string name;
  voltaic_status status = VOLTAIC_OK;
  std::string message;
  int64_t shift = 0;  // elements behind an aligned address where arrays start
} state;

size_t dtype_size(voltaic_dtype dtype) {
  return dtype == VOLTAIC_BFLOAT16 ? 2 : dtype == VOLTAIC_UINT8 ? 1 : 4;
}

// Backend memory that holds an array for the length of a call.
class DeviceArray {
 public:
  DeviceArray(const Array& array)
      : bytes_(array.bytes.size()),
        head_(64 + static_cast<size_t>(state.shift) * dtype_size(array.dtype)) {
    char message[VOLTAIC_MESSAGE_LENGTH] = "";
    // A guard of 64 bytes on either side shows writes out of bounds also without a sanitizer.
    if (state.backend->memory_allocate(0, head_ + bytes_ + 64, &memory_, message) != VOLTAIC_OK)
      std::abort();
    const std::vector<uint8_t> guard(head_, kGuard);
    copy(memory_, guard.data(), head_, VOLTAIC_COPY_HOST_TO_DEVICE);
    copy(end(), guard.data(), 64, VOLTAIC_COPY_HOST_TO_DEVICE);
    copy(data(), array.bytes.data(), bytes_, VOLTAIC_COPY_HOST_TO_DEVICE);
  }
  ~DeviceArray() { state.backend->memory_release(0, memory_); }
  DeviceArray(const DeviceArray&) = delete;
  void* data() const { return static_cast<char*>(memory_) + head_; }
  std::vector<uint8_t> read() const {
    std::vector<uint8_t> bytes(bytes_);
    copy(bytes.data(), data(), bytes_, VOLTAIC_COPY_DEVICE_TO_HOST);
    return bytes;
  }
  bool guards_hold() const {
    std::vector<uint8_t> guard(64);
    for (const char* at :
         {static_cast<const char*>(data()) - 64, static_cast<const char*>(end())}) {
      copy(guard.data(), at, 64, VOLTAIC_COPY_DEVICE_TO_HOST);
      for (uint8_t byte : guard)
        if (byte != kGuard) return false;
    }
    return true;
  }

 private:
  static constexpr uint8_t kGuard = 0xA5;
  char* end() const { return static_cast<char*>(memory_) + head_ + bytes_; }
  static void copy(void* to, const void* from, size_t bytes, voltaic_copy_kind kind) {
    char message[VOLTAIC_MESSAGE_LENGTH] = "";
    if (bytes == 0) return;
    if (state.backend->copy(state.stream, to, from, bytes, kind, message) != VOLTAIC_OK ||
        state.backend->synchronize(state.stream, message) != VOLTAIC_OK) {
      std::fprintf(stderr, "copy failed: %s\n", message);
      std::abort();
    }
  }
  void* memory_ = nullptr;
  size_t bytes_, head_;
};

const KernelSignature* find_signature(const char* op) {
  for (const KernelSignature& signature : kernel_table())
    if (std::strcmp(signature.row->name, op) == 0) return &signature;
  return nullptr;
}

voltaic_kernel find_kernel(const char* op) {
  for (uint32_t i = 0; i < state.backend->kernel_count; i++)
    if (std::strcmp(state.backend->kernels[i].name, op) == 0)
      return state.backend->kernels[i].kernel;
  return nullptr;
}

// One call; results holds the bytes of all arrays afterwards.
voltaic_status call_once(const KernelSignature& signature, voltaic_kernel kernel,
                         const std::vector<Array*>& arrays, const std::vector<double>& attributes,
                         std::vector<std::vector<uint8_t>>& results) {
  std::vector<std::unique_ptr<DeviceArray>> device;
  std::vector<voltaic_tensor> tensors(arrays.size());
  for (size_t i = 0; i < arrays.size(); i++) {
    voltaic_tensor& tensor = tensors[i];
    tensor = {};
    tensor.rank = -1;
    device.emplace_back();
    if (arrays[i] == nullptr) continue;
    Array copy = *arrays[i];
    if (signature.tensors[i].role == Role::out)
      std::fill(copy.bytes.begin(), copy.bytes.end(), uint8_t{0xFF});
    // The same Array given twice is the same memory (in-place use).
    for (size_t j = 0; j < i; j++)
      if (arrays[j] == arrays[i]) tensors[i].data = tensors[j].data;
    if (tensor.data == nullptr) {
      device.back() = std::make_unique<DeviceArray>(copy);
      tensor.data = device.back()->data();
    }
    tensor.dtype = copy.dtype;
    tensor.rank = static_cast<int32_t>(copy.shape.size());
    tensor.elements = copy.elements();
    for (size_t d = 0; d < copy.shape.size(); d++) tensor.shape[d] = copy.shape[d];
  }
  state.message.clear();
  voltaic_status status =
      check_call(signature, tensors.data(), static_cast<uint32_t>(tensors.size()),
                 static_cast<uint32_t>(attributes.size()), state.message);
  if (status != VOLTAIC_OK) return status;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  voltaic_call call = {};
  call.struct_size = sizeof call;
  call.tensor_count = static_cast<uint32_t>(tensors.size());
  call.attribute_count = static_cast<uint32_t>(attributes.size());
  call.tensors = tensors.data();
  call.attributes = attributes.data();
  call.stream = state.stream;
  call.message = message;
  status = kernel(&call);
  if (status == VOLTAIC_OK) status = state.backend->synchronize(state.stream, message);
  state.message = message;
  results.clear();
  for (size_t i = 0; i < arrays.size(); i++) {
    results.emplace_back();
    // In place: the bytes of the argument that owns the memory.
    for (size_t j = 0; j < i && arrays[i] != nullptr; j++)
      if (arrays[j] == arrays[i]) results.back() = results[j];
    if (!device[i]) continue;
    EXPECT_TEXT(device[i]->guards_hold(), std::string(signature.row->name) + " wrote outside of " +
                                              signature.tensors[i].name);
    results.back() = device[i]->read();
  }
  return status;
}

}  // namespace

bool register_test(const char* name, void (*body)()) {
  tests().push_back({name, body});
  return true;
}

bool expect(bool condition, const char* file, int line, const std::string& text) {
  if (condition) {
    state.passed++;
  } else {
    state.failed++;
    if (state.failed <= 60)
      std::printf("not ok %s [%s, seed %lld] %s:%d: %s%s%s\n", state.test, state.name.c_str(),
                  static_cast<long long>(state.seed), file, line, text.c_str(),
                  state.message.empty() ? "" : " | ", state.message.c_str());
  }
  return condition;
}

Array::Array(voltaic_dtype type, std::vector<int64_t> dimensions)
    : dtype(type), shape(std::move(dimensions)) {
  bytes.assign(static_cast<size_t>(elements()) * dtype_size(dtype), 0xFF);
}
Array Array::of_floats(voltaic_dtype dtype, std::vector<int64_t> shape,
                       const std::vector<double>& values) {
  Array array(dtype, std::move(shape));
  for (size_t i = 0; i < values.size(); i++) array.set(static_cast<int64_t>(i), values[i]);
  return array;
}
Array Array::of_ints(std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  Array array(VOLTAIC_INT32, std::move(shape));
  for (size_t i = 0; i < values.size(); i++) array.set(static_cast<int64_t>(i), values[i]);
  return array;
}
Array Array::zeros(voltaic_dtype dtype, std::vector<int64_t> shape) {
  Array array(dtype, std::move(shape));
  std::fill(array.bytes.begin(), array.bytes.end(), uint8_t{0});
  return array;
}
int64_t Array::elements() const {
  int64_t count = 1;
  for (int64_t dimension : shape) count *= dimension;
  return count;
}
double Array::at(int64_t i) const {
  const uint8_t* from = bytes.data() + static_cast<size_t>(i) * dtype_size(dtype);
  float f;
  int32_t n;
  uint16_t h;
  switch (dtype) {
    case VOLTAIC_FLOAT32:
      std::memcpy(&f, from, 4);
      return f;
    case VOLTAIC_BFLOAT16:
      std::memcpy(&h, from, 2);
      return scalars::bfloat16_bits_to_float(h);
    case VOLTAIC_INT32:
      std::memcpy(&n, from, 4);
      return n;
    default:
      return *from;
  }
}
void Array::set(int64_t i, double value) {
  uint8_t* to = bytes.data() + static_cast<size_t>(i) * dtype_size(dtype);
  const float f = static_cast<float>(value);
  const int32_t n = static_cast<int32_t>(value);
  const uint16_t h = scalars::float_to_bfloat16_bits(f);
  switch (dtype) {
    case VOLTAIC_FLOAT32:
      std::memcpy(to, &f, 4);
      break;
    case VOLTAIC_BFLOAT16:
      std::memcpy(to, &h, 2);
      break;
    case VOLTAIC_INT32:
      std::memcpy(to, &n, 4);
      break;
    default:
      *to = static_cast<uint8_t>(value);
  }
}
std::vector<double> Array::values() const {
  std::vector<double> result;
  for (int64_t i = 0; i < elements(); i++) result.push_back(at(i));
  return result;
}

double round_to(voltaic_dtype dtype, double value) {
  const float f = static_cast<float>(value);
  return dtype == VOLTAIC_BFLOAT16
             ? scalars::bfloat16_bits_to_float(scalars::float_to_bfloat16_bits(f))
             : f;
}

uint64_t Random::next() {  // SplitMix64
  state_ += 0x9E3779B97F4A7C15ull;
  uint64_t z = state_;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}
double Random::uniform(double low, double high) {
  return low + (high - low) * (static_cast<double>(next() >> 11) / 9007199254740992.0);
}
double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(uniform(1e-12, 1)));
  return radius * std::cos(6.283185307179586 * uniform(0, 1));
}
int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
}
int64_t Random::size(int64_t most) {
  constexpr int64_t awkward[] = {1,  2,  3,  4,  5,  7,  8,  9,  13,  15,  16,  17,
                                 31, 32, 33, 47, 63, 64, 65, 97, 127, 128, 129, 251};
  const int64_t chosen = next() & 1 ? awkward[next() % 24] : integer(1, most);
  return chosen <= most ? chosen : integer(1, most);
}
Array Random::array(voltaic_dtype dtype, std::vector<int64_t> shape, double low, double high) {
  Array array(dtype, std::move(shape));
  for (int64_t i = 0; i < array.elements(); i++) array.set(i, uniform(low, high));
  return array;
}
Array Random::int_array(std::vector<int64_t> shape, int64_t low, int64_t high) {
  Array array(VOLTAIC_INT32, std::move(shape));
  for (int64_t i = 0; i < array.elements(); i++)
    array.set(i, static_cast<double>(integer(low, high)));
  return array;
}
Array Random::offsets(int64_t sequences, int64_t shortest, int64_t longest) {
  std::vector<int32_t> offsets{0};
  for (int64_t i = 0; i < sequences; i++)
    offsets.push_back(offsets.back() + static_cast<int32_t>(integer(shortest, longest)));
  return Array::of_ints({sequences + 1}, offsets);
}

Random Seeds::Iterator::operator*() const {
  state.seed = state.only_seed >= 0 ? state.only_seed : i;
  return Random(static_cast<uint64_t>(state.seed));
}

Seeds::Iterator Seeds::end() const {
  return {state.only_seed >= 0 ? std::min(count, 1) : std::min(count, state.most_seeds)};
}

bool run(const char* op, std::vector<Array*> arrays, std::vector<double> attributes) {
  const KernelSignature* signature = find_signature(op);
  const voltaic_kernel kernel = find_kernel(op);
  state.status = VOLTAIC_ERROR_UNSUPPORTED;
  if (signature == nullptr || kernel == nullptr) {
    state.message = std::string("no op ") + op;
    return false;
  }
  if (arrays.size() != signature->tensors.size()) {
    state.message = std::string(op) + ": wrong number of tensors in the test";
    return false;
  }
  std::vector<std::vector<uint8_t>> first, second;
  set_thread_count(1);
  state.status = call_once(*signature, kernel, arrays, attributes, first);
  if (state.status != VOLTAIC_OK) return false;
  set_thread_count(3);
  EXPECT_TEXT(call_once(*signature, kernel, arrays, attributes, second) == VOLTAIC_OK,
              "second run");
  for (size_t i = 0; i < arrays.size(); i++) {
    if (arrays[i] == nullptr || first[i].empty()) continue;
    EXPECT_TEXT(first[i] == second[i], std::string(op) + ": " + signature->tensors[i].name +
                                           " differs between 1 and 3 threads");
    EXPECT_TEXT(signature->tensors[i].role != Role::in || first[i] == arrays[i]->bytes ||
                    std::count(arrays.begin(), arrays.end(), arrays[i]) > 1,
                std::string(op) + " changed its input " + signature->tensors[i].name);
    if (signature->tensors[i].role != Role::in) arrays[i]->bytes = first[i];
  }
  return true;
}
Shifted::Shifted(int64_t elements) { state.shift = elements; }
Shifted::~Shifted() { state.shift = 0; }
voltaic_status last_status() { return state.status; }
const std::string& last_message() { return state.message; }
const std::string& backend_name() { return state.name; }
std::string matmul_library() {
  voltaic_device_info info = {};
  info.struct_size = sizeof info;
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  return state.backend->device_info(0, &info, message) == VOLTAIC_OK ? info.matmul_library : "";
}

bool expect_close(const Array& actual, const std::vector<double>& expected, double tolerance,
                  const char* file, int line, const std::string& text,
                  const std::vector<double>* sixteen_bit) {
  if (static_cast<int64_t>(expected.size()) != actual.elements())
    return expect(false, file, line, text + ": sizes differ in the test");
  double sum = 0;
  for (double value : expected) sum += std::isfinite(value) ? value * value : 0;
  const double scale = expected.empty() ? 0 : std::sqrt(sum / static_cast<double>(expected.size()));
  const bool sixteen = actual.dtype == VOLTAIC_BFLOAT16 || sixteen_bit != nullptr;
  double error = 0, allowed = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double value = actual.at(static_cast<int64_t>(i)), want = expected[i];
    if (std::isnan(want) && std::isnan(value)) continue;
    if (std::isinf(want) && value == want) continue;
    const double difference = std::fabs(value - want);
    if (sixteen) {
      error += difference * difference;
      const double plain =
          (sixteen_bit ? (*sixteen_bit)[i] : round_to(VOLTAIC_BFLOAT16, want)) - want;
      allowed += plain * plain;
    }
    const double bound = sixteen ? INFINITY : tolerance * (scale + std::fabs(want));
    if (!(difference <= bound)) {
      char detail[200];
      std::snprintf(detail, sizeof detail,
                    ": element %zu is %.9g, expected %.9g (scale %.3g, tolerance %.2g)", i, value,
                    want, scale, tolerance);
      return expect(false, file, line, text + detail);
    }
  }
  if (sixteen) {
    const double n = static_cast<double>(expected.empty() ? 1 : expected.size());
    error = std::sqrt(error / n);
    allowed = 2 * std::sqrt(allowed / n) + tolerance * scale;
    if (!(error <= allowed)) {
      char detail[160];
      std::snprintf(detail, sizeof detail, ": 16-bit error %.3g over the allowed %.3g", error,
                    allowed);
      return expect(false, file, line, text + detail);
    }
  }
  return expect(true, file, line, text);
}

bool expect_equal(const Array& actual, const std::vector<int64_t>& expected, const char* file,
                  int line, const std::string& text) {
  if (static_cast<int64_t>(expected.size()) != actual.elements())
    return expect(false, file, line, text + ": sizes differ in the test");
  for (size_t i = 0; i < expected.size(); i++)
    if (static_cast<int64_t>(actual.at(static_cast<int64_t>(i))) != expected[i])
      return expect(false, file, line,
                    text + ": element " + std::to_string(i) + " is " +
                        std::to_string(static_cast<int64_t>(actual.at(static_cast<int64_t>(i)))) +
                        ", expected " + std::to_string(expected[i]));
  return expect(true, file, line, text);
}

// kernel_tests [--backend cpu:avx2 | FILE.so] [--only TEXT] [--seed N] [--seeds N]
int run_all(int count, char** arguments) {
  std::string backend = "cpu:" + cpu_instruction_sets().back(), only;
  for (int i = 1; i + 1 < count; i += 2) {
    if (std::string(arguments[i]) == "--backend") backend = arguments[i + 1];
    if (std::string(arguments[i]) == "--only") only = arguments[i + 1];
    if (std::string(arguments[i]) == "--seed") state.only_seed = std::atoll(arguments[i + 1]);
    if (std::string(arguments[i]) == "--seeds") state.most_seeds = std::atoi(arguments[i + 1]);
  }
  state.name = backend;
  if (backend.starts_with("cpu:")) {
    state.backend = cpu_backend(backend.substr(4));
  } else if (void* library = dlopen(backend.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    const auto entry = reinterpret_cast<voltaic_backend_entry_function>(
        dlsym(library, VOLTAIC_BACKEND_ENTRY_NAME));
    if (entry != nullptr) state.backend = entry(VOLTAIC_BACKEND_ABI_VERSION);
  }
  char message[VOLTAIC_MESSAGE_LENGTH] = "";
  if (state.backend == nullptr) {
    std::printf("# %s does not run on this machine\n0 passed, 0 failed, 1 skipped\n",
                backend.c_str());
    return 0;
  }
  if (state.backend->stream_create(0, &state.stream, message) != VOLTAIC_OK) {
    std::printf("no stream on %s: %s\n0 passed, 1 failed\n", backend.c_str(), message);
    return 1;
  }
  for (const Test& test : tests()) {
    if (!only.empty() && std::string(test.name).find(only) == std::string::npos) continue;
    state.test = test.name;
    state.seed = -1;
    const int before = state.failed;
    test.body();
    std::printf("%s %s [%s]\n", state.failed == before ? "ok" : "not ok", test.name,
                backend.c_str());
    std::fflush(stdout);
  }
  state.backend->stream_destroy(state.stream);
  std::printf("%d passed, %d failed\n", state.passed, state.failed);
  return state.failed > 0;
}

}  // namespace voltaic::test

int main(int count, char** arguments) { return voltaic::test::run_all(count, arguments); }
