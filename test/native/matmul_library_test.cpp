// cuda/matmul_library.cu under the emulator, with fake_cublaslt.cpp in the place of cuBLASLt. A
// program of its own, built and run by scripts/test-matmul-library.mjs: the library is looked for
// once a process, so every case runs in a child process with its own environment.
//
//   matmul_library_test FOLDER    where libfake_cublaslt.so and libfake_cublaslt_lacking.so are
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../cuda/matmul_library_search.h"
#include "../../cuda/matmul_library.cuh"

namespace voltaic::cuda {
// backend.cu has the real one.
voltaic_status runtime_failure(char* message, const char* what, cudaError_t error) {
  std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s failed: %s", what, cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? VOLTAIC_ERROR_OUT_OF_MEMORY : VOLTAIC_ERROR_RUNTIME;
}
}  // namespace voltaic::cuda

using namespace voltaic::cuda;

namespace {

struct Counts {
  int passed, failed;
};
Counts* counts;  // shared with the children
std::string fake, lacking;

bool expect(bool condition, int line, const std::string& text) {
  (condition ? counts->passed : counts->failed)++;
  if (!condition)
    std::printf("not ok test/native/matmul_library_test.cpp:%d: %s\n", line, text.c_str());
  return condition;
}
#define EXPECT(condition) expect((condition), __LINE__, #condition)
#define EXPECT_TEXT(actual, part)                            \
  expect((actual).find(part) != std::string::npos, __LINE__, \
         std::string("'") + (actual) + "' should have '" + (part) + "'")

// ---- what the fake library counts
int& seen(const char* name) {
  static void* const handle = dlopen(fake.c_str(), RTLD_NOW);
  return *static_cast<int*>(dlsym(handle, name));
}
int live_descriptors() {
  static void* const handle = dlopen(fake.c_str(), RTLD_NOW);
  return reinterpret_cast<int (*)()>(dlsym(handle, "fake_cublaslt_live_descriptors"))();
}

std::string description() {
  char text[256];
  describe_matmul_library(text, sizeof text);
  return text;
}

// ---- streams and calls
struct Stream {
  voltaic_stream it = {};
  Stream() {
    it.architecture = 90;
    it.processors = 4;
    it.most_shared_bytes = 48 << 10;
    cudaStreamCreateWithFlags(&it.handle, 0);
    open_matmul_library(&it);
  }
  ~Stream() {
    close_matmul_library(&it);
    cudaStreamDestroy(it.handle);
  }
  Stream(const Stream&) = delete;

  std::string message = std::string(VOLTAIC_MESSAGE_LENGTH, '\0');
  bool multiply(const MatmulProblem& problem, voltaic_status* status) {
    voltaic_call call = {};
    call.stream = &it;
    call.message = message.data();
    return matmul_by_library(&call, problem, status);
  }
  std::string choices() {
    size_t needed = 0;
    EXPECT(matmul_choices(&it, nullptr, 0, &needed, message.data()) == VOLTAIC_OK);
    std::string text(needed, '\0');
    EXPECT(matmul_choices(&it, text.data(), needed, &needed, message.data()) == VOLTAIC_OK);
    EXPECT(needed == text.size());
    text.pop_back();
    return text;
  }
  voltaic_status set(const std::string& text) {
    return set_matmul_choices(&it, text.c_str(), message.data());
  }
  std::string said() const { return message.c_str(); }
};

// ---- arrays
float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Device memory of its own, as the emulator has it: 256-byte aligned, at an offset in elements.
struct Array {
  int32_t dtype;
  int64_t elements, offset;
  void* memory = nullptr;
  Array(int32_t dtype_, int64_t elements_, int64_t offset_ = 0)
      : dtype(dtype_), elements(elements_), offset(offset_) {
    cudaMalloc(&memory, size_t(elements + offset) * size());
  }
  ~Array() { cudaFree(memory); }
  Array(const Array&) = delete;
  size_t size() const { return dtype == VOLTAIC_FLOAT32 ? 4 : 2; }
  void* data() const { return static_cast<char*>(memory) + size_t(offset) * size(); }
  float at(int64_t i) const {
    return dtype == VOLTAIC_FLOAT32 ? static_cast<float*>(data())[i]
                                    : from_bf16(static_cast<uint16_t*>(data())[i]);
  }
  void set(int64_t i, float value) {
    if (dtype == VOLTAIC_FLOAT32)
      static_cast<float*>(data())[i] = value;
    else
      static_cast<uint16_t*>(data())[i] = to_bf16(value);
  }
  void fill(std::mt19937& random) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < elements; i++) set(i, uniform(random));
  }
};

struct Product {
  int64_t m = 5, n = 7, k = 6;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
  int64_t batch = 1, gap = 0;
  bool share_a = false, share_b = false, bias = false;
  int32_t c_dtype = VOLTAIC_BFLOAT16;
  int64_t offset = 0;   // of all arrays, in elements
  int64_t padding = 0;  // behind the rows of a and b
};

// Random inputs for a product, and its result in double precision.
struct Case {
  Product p;
  MatmulProblem problem;
  std::unique_ptr<Array> a, b, c, bias;
  std::vector<double> expected;

  Case(const Product& p_, std::mt19937& random) : p(p_) {
    const int64_t leading_a = (p.transpose_a ? p.m : p.k) + p.padding;
    const int64_t leading_b = (p.transpose_b ? p.k : p.n) + p.padding;
    const int64_t item_a = (p.transpose_a ? p.k : p.m) * leading_a;
    const int64_t item_b = (p.transpose_b ? p.n : p.k) * leading_b;
    const int64_t stride_a = p.share_a ? 0 : item_a + p.gap;
    const int64_t stride_b = p.share_b ? 0 : item_b + p.gap, stride_c = p.m * p.n + p.gap;
    a = std::make_unique<Array>(VOLTAIC_BFLOAT16, (p.batch - 1) * stride_a + item_a, p.offset);
    b = std::make_unique<Array>(VOLTAIC_BFLOAT16, (p.batch - 1) * stride_b + item_b, p.offset);
    c = std::make_unique<Array>(p.c_dtype, (p.batch - 1) * stride_c + p.m * p.n, p.offset);
    bias = std::make_unique<Array>(VOLTAIC_FLOAT32, p.n, p.offset);
    a->fill(random);
    b->fill(random);
    bias->fill(random);
    if (p.beta != 0 || p.gap != 0) c->fill(random);  // otherwise poison, which must not be read
    for (int64_t i = 0; i < c->elements; i++) expected.push_back(c->at(i));
    for (int64_t item = 0; item < p.batch; item++)
      for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
          double sum = 0;
          for (int64_t q = 0; q < p.k; q++)
            sum += double(a->at(item * stride_a +
                                (p.transpose_a ? q * leading_a + i : i * leading_a + q))) *
                   b->at(item * stride_b + (p.transpose_b ? j * leading_b + q : q * leading_b + j));
          double& at = expected[size_t(item * stride_c + i * p.n + j)];
          at = p.alpha * sum + (p.beta != 0 ? p.beta * at : 0) + (p.bias ? bias->at(j) : 0);
        }
    problem = {p.m,
               p.n,
               p.k,
               p.transpose_a,
               p.transpose_b,
               p.alpha,
               p.beta,
               p.batch,
               stride_a,
               stride_b,
               stride_c,
               VOLTAIC_BFLOAT16,
               p.c_dtype,
               a->data(),
               b->data(),
               c->data(),
               p.bias ? static_cast<const float*>(bias->data()) : nullptr,
               p.padding > 0 ? leading_a : 0,
               p.padding > 0 ? leading_b : 0};
  }

  // fp32 output: rounding of sums of up to 80 terms. bf16: half a unit in the last of 8 bits, twice
  // where the bias is rounded too.
  bool is_right() const {
    const double relative = p.c_dtype == VOLTAIC_FLOAT32 ? 1e-5 : 1.0 / 256;
    for (int64_t i = 0; i < c->elements; i++) {
      const double want = expected[size_t(i)], got = c->at(i);
      if (!(std::fabs(got - want) <= relative * (1 + std::fabs(want)))) {
        std::printf("# element %lld is %g, expected %g\n", static_cast<long long>(i), got, want);
        return false;
      }
    }
    return true;
  }
};

// Taken by the library, queued, and right.
bool done(Stream& stream, Case& it) {
  voltaic_status status = VOLTAIC_ERROR_RUNTIME;
  if (!stream.multiply(it.problem, &status)) return false;
  if (status != VOLTAIC_OK) std::printf("# %s\n", stream.said().c_str());
  return status == VOLTAIC_OK && it.is_right();
}
bool done(Stream& stream, const Product& p) {
  std::mt19937 random(7);
  Case it(p, random);
  return done(stream, it);
}

// ---- cases
void products() {
  EXPECT(description() == "cuBLASLt 13.1.0 (" + fake + ")");
  {
    Stream stream;
    std::mt19937 random(1);
    const auto chance = [&] { return (random() & 1) != 0; };
    for (int round = 0; round < 200; round++) {
      Product p;
      p.m = 1 + random() % 40;
      p.n = 1 + random() % 40;
      p.k = 1 + random() % 80;
      p.transpose_a = chance();
      p.transpose_b = chance();
      p.alpha = chance() ? 1 : 0.5f;
      p.beta = chance() ? 0 : -0.75f;
      p.batch = chance() ? 1 : 1 + random() % 4;
      p.gap = chance() ? 0 : 3;
      p.share_a = chance();
      p.share_b = chance();
      p.bias = chance();
      p.c_dtype = chance() ? VOLTAIC_FLOAT32 : VOLTAIC_BFLOAT16;
      p.offset = random() % 4;
      p.padding = random() % 3;
      Case it(p, random);
      expect(done(stream, it), __LINE__,
             "round " + std::to_string(round) + ": " + std::to_string(p.m) + "x" +
                 std::to_string(p.n) + "x" + std::to_string(p.k) + " batch " +
                 std::to_string(p.batch) + " bias " + std::to_string(p.bias));
    }
    EXPECT(seen("fake_cublaslt_matmuls") == 200);
  }
  EXPECT(live_descriptors() == 0);
  EXPECT(seen("fake_cublaslt_handles") == 0);
}

void choices_are_kept() {
  Stream stream, other;
  Product p;
  for (int i = 0; i < 5; i++) EXPECT(done(stream, p));
  EXPECT(done(other, p));
  EXPECT(seen("fake_cublaslt_heuristics") == 1);
  p.beta = 1;  // not part of the key
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_heuristics") == 1);
  p.offset = 1;  // alignment is
  EXPECT(done(stream, p));
  p.k = 8;
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_heuristics") == 3);
  p.padding = 2;  // so are rows that lie apart
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_heuristics") == 4);
}

void what_it_does_not_take() {
  Stream stream;
  std::mt19937 random(3);
  Case it(Product{}, random);
  voltaic_status status;
  const auto refused = [&](auto change) {
    MatmulProblem problem = it.problem;
    change(problem);
    return !stream.multiply(problem, &status);
  };
  EXPECT(refused([](MatmulProblem& q) { q.dtype = VOLTAIC_FLOAT32; }));
  EXPECT(refused([](MatmulProblem& q) { q.m = 0; }));
  EXPECT(refused([](MatmulProblem& q) { q.n = 0; }));
  EXPECT(refused([](MatmulProblem& q) { q.k = 0; }));
  EXPECT(refused([](MatmulProblem& q) { q.batch = 0; }));
  EXPECT(refused([](MatmulProblem& q) { q.alpha = 0; }));
  EXPECT(refused([](MatmulProblem& q) { q.m = int64_t{1} << 31; }));
  EXPECT(refused([](MatmulProblem& q) { q.batch = 2, q.stride_c = 0; }));
  EXPECT(seen("fake_cublaslt_heuristics") == 0);
  EXPECT(!refused([](MatmulProblem&) {}));
}

void knows_no_algorithm() {
  Stream stream;
  EXPECT(!done(stream, Product{}));
  EXPECT(!done(stream, Product{}));
  EXPECT(seen("fake_cublaslt_heuristics") == 1);  // remembered
  EXPECT_TEXT(stream.choices(), "choice=-1\n");
  Stream other;
  EXPECT(other.set(stream.choices()) == VOLTAIC_OK);
  EXPECT(other.choices() == stream.choices());
}

// By default a bf16 output's bias is rounded for the library; where it takes fp32, it gets that.
void bias_forms() {
  Stream stream;
  Product p;
  p.bias = true;
  EXPECT(done(stream, p));
  const bool mixed = std::getenv("FAKE_CUBLASLT_MIXED_BIAS") != nullptr;
  EXPECT(seen("fake_cublaslt_last_bias_type") == (mixed ? 0 : 14));
  EXPECT_TEXT(stream.choices(), mixed ? "bias=1" : "bias=2");
  p.c_dtype = VOLTAIC_FLOAT32;
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_last_bias_type") == 0);
  p.offset = 1;  // a bias that is not aligned is copied first
  EXPECT(done(stream, p));
}

void a_failing_product_says_so() {
  Stream stream;
  std::mt19937 random(3);
  Case it(Product{}, random);
  voltaic_status status = VOLTAIC_OK;
  EXPECT(stream.multiply(it.problem, &status));
  EXPECT(status == VOLTAIC_ERROR_RUNTIME);
  EXPECT_TEXT(stream.said(), "5 x 7 x 6: execution failed (status 13; " + fake);
}

void no_library(const std::string& part) {
  EXPECT_TEXT(description(), part);
  EXPECT_TEXT(description(), "own kernels");
  Stream stream;
  EXPECT(stream.it.matmul == nullptr);
  EXPECT(!done(stream, Product{}));
  EXPECT(stream.choices() == "");
  EXPECT(stream.set("") == VOLTAIC_OK);
  EXPECT(stream.set("off") == VOLTAIC_OK);
  EXPECT(stream.set("tune") == VOLTAIC_ERROR_UNSUPPORTED);
  EXPECT_TEXT(stream.said(), "matmul 'tune' needs cuBLASLt");
  EXPECT_TEXT(stream.said(), part.substr(0, 20));
  EXPECT(stream.set("cublaslt 13.1.0 sm_90\n") == VOLTAIC_ERROR_UNSUPPORTED);
  EXPECT_TEXT(stream.said(), "cublaslt 13.1.0 sm_90");
  EXPECT(stream.set("fast") == VOLTAIC_ERROR_ARGUMENT);
}

// Replays a capture: the product happens then, with the numbers of then.
void capture() {
  Stream stream;
  EXPECT(stream.set("tune") == VOLTAIC_OK);
  std::mt19937 random(4);
  Product p;
  p.bias = true;
  Case it(p, random);
  cudaStreamBeginCapture(stream.it.handle, cudaStreamCaptureModeRelaxed);
  stream.it.capturing = true;
  voltaic_status status = VOLTAIC_ERROR_RUNTIME;
  EXPECT(stream.multiply(it.problem, &status) && status == VOLTAIC_OK);
  stream.it.capturing = false;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaStreamEndCapture(stream.it.handle, &graph);
  EXPECT(seen("fake_cublaslt_matmuls") == 0);  // nothing timed either
  cudaGraphInstantiate(&exec, graph, 0);
  EXPECT(cudaGraphLaunch(exec, stream.it.handle) == cudaSuccess);
  EXPECT(seen("fake_cublaslt_matmuls") == 1);
  EXPECT(it.is_right());
  cudaGraphDestroy(graph);
  cudaGraphExecDestroy(exec);
}

void choices_round_trip() {
  Stream first;
  EXPECT(first.choices() == "cublaslt 13.1.0 sm_90\n");
  Product p, wide;
  wide.c_dtype = VOLTAIC_FLOAT32;
  wide.transpose_b = wide.bias = true;
  wide.batch = 3;
  EXPECT(done(first, p) && done(first, wide));
  std::string text = first.choices();
  EXPECT_TEXT(text,
              "m=5 n=7 k=6 transposed=00 leading=6,7 c=bf16 bias=0 batch=1,0,0,0 "
              "aligned=256,256,256 choice=0 ");
  EXPECT_TEXT(text, "m=5 n=7 k=6 transposed=01 leading=6,6 c=fp32 bias=1 batch=3,30,42,35 ");

  // Another algorithm than the estimate's first: byte 8 is the fake's index.
  const size_t at = text.find("choice=0 ") + 9;
  EXPECT(text.substr(at + 16, 2) == "00");
  text.replace(at + 16, 2, "03");
  text.replace(text.find("choice=0 "), 8, "choice=3");
  const int heuristics = seen("fake_cublaslt_heuristics");
  Stream second;
  EXPECT(second.set(text) == VOLTAIC_OK);
  EXPECT(second.choices() == text);
  EXPECT(seen("fake_cublaslt_checks") == 2);
  EXPECT(done(second, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 3);
  EXPECT(done(second, wide));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 0);
  EXPECT(seen("fake_cublaslt_heuristics") == heuristics);
  EXPECT(done(first, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 0);

  const auto refused = [&](std::string changed, const char* from, const char* to,
                           voltaic_status status, const char* part) {
    const size_t place = changed.find(from);
    changed.replace(place, std::strlen(from), to);
    EXPECT(second.set(changed) == status);
    EXPECT_TEXT(second.said(), part);
    EXPECT(second.choices() == text);
  };
  refused(text, "13.1.0", "12.4.5", VOLTAIC_ERROR_UNSUPPORTED,
          "from cublaslt 12.4.5 sm_90, here is cublaslt 13.1.0 sm_90");
  refused(text, "sm_90", "sm_80", VOLTAIC_ERROR_UNSUPPORTED,
          "from cublaslt 13.1.0 sm_80, here is cublaslt 13.1.0 sm_90");
  refused(text, "m=5", "m=6", VOLTAIC_ERROR_UNSUPPORTED, "refuses an algorithm");
  refused(text, "n=7", "n=x", VOLTAIC_ERROR_ARGUMENT, "damaged: m=5 n=x");
  refused(text, "leading=6", "leading=5", VOLTAIC_ERROR_ARGUMENT, "damaged");
  refused(text, "bias=0", "bias=3", VOLTAIC_ERROR_ARGUMENT, "damaged");
  refused(text, "choice=3 ", "choice=3 0", VOLTAIC_ERROR_ARGUMENT, "damaged");
  refused(text, "choice=3 ", "choice=3 g", VOLTAIC_ERROR_ARGUMENT, "damaged");
  EXPECT(second.set("fast") == VOLTAIC_ERROR_ARGUMENT);
  EXPECT_TEXT(second.said(), "matmul is 'fast', expected tune, on, off");

  EXPECT(second.set("off") == VOLTAIC_OK);
  EXPECT(!done(second, p));
  EXPECT(second.choices() == "off");
  EXPECT(second.set("on") == VOLTAIC_OK);
  EXPECT(second.choices() == text);
  EXPECT(done(second, p));
}

// A run that begins has no part in what an earlier one on the stream restored, tuned or switched
// off.
void back_to_the_default() {
  Stream stream;
  const Product p;
  const std::string fresh = stream.choices();
  const auto by_estimate = [&] {
    return stream.set("") == VOLTAIC_OK && stream.choices() == fresh && done(stream, p) &&
           seen("fake_cublaslt_last_algorithm") == 0;
  };
  EXPECT(done(stream, p));
  std::string text = stream.choices();
  text.replace(text.find("choice=0 ") + 25, 2, "03");
  EXPECT(stream.set(text) == VOLTAIC_OK);
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 3);
  EXPECT(by_estimate());
  EXPECT(stream.set("off") == VOLTAIC_OK);
  EXPECT(!done(stream, p));
  EXPECT(by_estimate());
  EXPECT(stream.set("") == VOLTAIC_OK);
  EXPECT(stream.set("tune") == VOLTAIC_OK);
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 2);
  const int before = seen("fake_cublaslt_matmuls");
  EXPECT(by_estimate());
  EXPECT(seen("fake_cublaslt_matmuls") == before + 1);  // nothing timed
}

// A captured product outlives the choices that it was made with.
void capture_and_forget() {
  Stream stream;
  std::mt19937 random(4);
  Case it(Product{}, random);
  cudaStreamBeginCapture(stream.it.handle, cudaStreamCaptureModeRelaxed);
  stream.it.capturing = true;
  voltaic_status status = VOLTAIC_ERROR_RUNTIME;
  EXPECT(stream.multiply(it.problem, &status) && status == VOLTAIC_OK);
  stream.it.capturing = false;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaStreamEndCapture(stream.it.handle, &graph);
  cudaGraphInstantiate(&exec, graph, 0);
  EXPECT(stream.set("") == VOLTAIC_OK);
  EXPECT(cudaGraphLaunch(exec, stream.it.handle) == cudaSuccess);
  EXPECT(it.is_right());
  cudaGraphDestroy(graph);
  cudaGraphExecDestroy(exec);
}

void tuning() {
  Stream stream;
  EXPECT(stream.set("tune") == VOLTAIC_OK);
  // 4 of 5 candidates run here, 13 times each, and then the product itself.
  const int each = 4 * 13 + 1;
  Product p;
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_matmuls") == each);
  EXPECT(seen("fake_cublaslt_last_algorithm") == 2);
  p.k = 9;
  p.beta = 0.5f;  // c must survive the timing
  p.bias = true;
  p.batch = 2;
  p.gap = 4;
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_matmuls") == 2 * each);
  EXPECT(done(stream, p));
  EXPECT(seen("fake_cublaslt_matmuls") == 2 * each + 1);
  EXPECT_TEXT(stream.choices(), "choice=1 ");  // the place among those that run here

  // Without timing; then a resumed run with the outcome, which times new products only.
  Stream plain;
  EXPECT(done(plain, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 0);
  Stream resumed;
  EXPECT(resumed.set(stream.choices()) == VOLTAIC_OK);
  EXPECT(resumed.set("tune") == VOLTAIC_OK);
  const int before = seen("fake_cublaslt_matmuls");
  EXPECT(done(resumed, p));
  EXPECT(seen("fake_cublaslt_last_algorithm") == 2);
  EXPECT(seen("fake_cublaslt_matmuls") == before + 1);
  EXPECT(resumed.set("on") == VOLTAIC_OK);
  p.n = 11;
  EXPECT(done(resumed, p));
  EXPECT(seen("fake_cublaslt_matmuls") == before + 2);
}

// Where it is looked for, with copies of the fake in a folder of our own.
void search_order() {
  namespace fs = std::filesystem;
  const std::string root =
      (fs::temp_directory_path() / ("voltaic-" + std::to_string(getpid()))).string();
  const auto put = [&](const std::string& place) {
    fs::create_directories(fs::path(root + place).parent_path());
    fs::copy_file(fake, root + place);
  };
  const std::string wheel = "/lib/python3.11/site-packages/nvidia/";
  put("/toolkit/lib64/libcublasLt.so.12");
  put("/toolkit/targets/any-linux/lib/libcublasLt.so");
  put("/environment" + wheel + "cublas/lib/libcublasLt.so.12");
  put("/environment" + wheel + "cu13/lib/libcublasLt.so.13");
  put("/conda/lib/libcublasLt.so.11");
  put("/python/bin/python3.11");
  put("/python" + wheel + "cublas/lib/libcublasLt.so.12");
  put("/home/.local" + wheel + "cu13/lib/libcublasLt.so.13");
  fs::create_symlink("python3.11", root + "/python/bin/python3");
  setenv("CUDA_HOME", (root + "/toolkit").c_str(), 1);
  setenv("VIRTUAL_ENV", (root + "/environment").c_str(), 1);
  setenv("CONDA_PREFIX", (root + "/conda").c_str(), 1);
  setenv("PATH", ("/nowhere:" + root + "/python/bin:").c_str(), 1);
  setenv("HOME", (root + "/home").c_str(), 1);
  unsetenv("CUDA_PATH");

  std::vector<std::string> ours;
  for (const std::string& folder : library_folders())
    if (folder.rfind(root, 0) == 0) ours.push_back(folder.substr(root.size()));
  const std::vector<std::string> expected = {
      "/toolkit/lib64",
      "/toolkit/targets/any-linux/lib",
      "/environment" + wheel + "cu13/lib",
      "/environment" + wheel + "cublas/lib",
      "/conda/lib",
      "/python" + wheel + "cublas/lib",
      "/home/.local" + wheel + "cu13/lib",
  };
  EXPECT(ours == expected);

  bool by_loader = false;
  for (const char* name : kLibraryNames) {
    void* const handle = dlopen(name, RTLD_LAZY);
    by_loader = by_loader || handle != nullptr;
  }
  if (by_loader) {
    std::printf("# the loader finds a cuBLASLt here: the order of opening is not tested\n");
  } else {
    // One that does not load is passed over and named.
    const std::string first = root + "/toolkit/lib64/libcublasLt.so.12";
    fs::remove(first);
    std::FILE* const broken = std::fopen(first.c_str(), "w");
    std::fputs("no library", broken);
    std::fclose(broken);
    const MatmulLibrary second = find_library(true);
    EXPECT(second.path == root + "/toolkit/targets/any-linux/lib/libcublasLt.so");
    EXPECT_TEXT(second.description, "; not taken: " + first);
    fs::remove(first);
    fs::copy_file(fake, first);
    EXPECT(find_library(true).path == first);
  }
  fs::remove_all(root);
}

struct Scenario {
  const char* name;
  std::vector<std::pair<const char*, std::string>> environment;
  void (*body)();
};

void run(const Scenario& scenario) {
  const Counts before = *counts;
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    unsetenv("VOLTAIC_CUBLASLT");
    for (const auto& [name, value] : scenario.environment) setenv(name, value.c_str(), 1);
    scenario.body();
    std::fflush(stdout);
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) {
    counts->failed++;
    std::printf("not ok %s ended with status %d\n", scenario.name, status);
  } else {
    std::printf("%s %s: %d checks\n", counts->failed == before.failed ? "ok" : "not ok",
                scenario.name, counts->passed + counts->failed - before.passed - before.failed);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::printf("usage: matmul_library_test FOLDER\n");
    return 2;
  }
  const std::string folder = std::filesystem::canonical(arguments[1]).string();
  fake = folder + "/libfake_cublaslt.so";
  lacking = folder + "/libfake_cublaslt_lacking.so";
  counts = static_cast<Counts*>(
      mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *counts = {};
  const std::pair<const char*, std::string> with = {"VOLTAIC_CUBLASLT", fake};
  const Scenario scenarios[] = {
      {"products match plain loops", {with}, products},
      {"choices are kept", {with}, choices_are_kept},
      {"what the library does not take", {with}, what_it_does_not_take},
      {"the library knows no algorithm", {with, {"FAKE_CUBLASLT_NONE", "1"}}, knows_no_algorithm},
      {"a bias is rounded", {with}, bias_forms},
      {"a bias in fp32", {with, {"FAKE_CUBLASLT_MIXED_BIAS", "1"}}, bias_forms},
      {"a failing product",
       {with, {"FAKE_CUBLASLT_MATMUL_STATUS", "13"}},
       a_failing_product_says_so},
      {"capture", {with}, capture},
      {"a capture outlives choices", {with}, capture_and_forget},
      {"choices, written and read", {with}, choices_round_trip},
      {"back to the default", {with, {"FAKE_CUBLASLT_FASTEST", "2"}}, back_to_the_default},
      {"tuning", {with, {"FAKE_CUBLASLT_FASTEST", "2"}}, tuning},
      {"the oldest version",
       {with, {"FAKE_CUBLASLT_VERSION", "11.4.2"}},
       [] { EXPECT(description() == "cuBLASLt 11.4.2 (" + fake + ")"); }},
      {"off", {{"VOLTAIC_CUBLASLT", "off"}}, [] { no_library("off (VOLTAIC_CUBLASLT=off): "); }},
      {"not looked for under the emulator", {}, [] { no_library("not looked for: own kernels"); }},
      {"no such file",
       {{"VOLTAIC_CUBLASLT", "/nowhere/libcublasLt.so.13"}},
       [] {
         no_library(
             "not usable: own kernels (VOLTAIC_CUBLASLT: /nowhere/libcublasLt.so.13 is not there)");
       }},
      {"not a library",
       {{"VOLTAIC_CUBLASLT", "/etc/passwd"}},
       [] { no_library("not usable: own kernels (VOLTAIC_CUBLASLT: /etc/passwd: "); }},
      {"a function is missing",
       {{"VOLTAIC_CUBLASLT", lacking}},
       [] {
         no_library("not usable: own kernels (VOLTAIC_CUBLASLT: " + lacking +
                    " lacks cublasLtMatmul)");
       }},
      {"too old a version",
       {with, {"FAKE_CUBLASLT_VERSION", "11.3.9"}},
       [] {
         no_library("not usable: own kernels (VOLTAIC_CUBLASLT: " + fake +
                    " is version 11.3.9, expected 11.4 or later)");
       }},
      {"does not start",
       {with, {"FAKE_CUBLASLT_CREATE_STATUS", "1"}},
       [] {
         { Stream stream; }
         no_library("does not start (not initialized, status 1): own kernels; cuBLASLt 13.1.0 (");
       }},
      {"search order", {}, search_order},
  };
  for (const Scenario& scenario : scenarios) run(scenario);
  std::printf("%d passed, %d failed\n", counts->passed, counts->failed);
  return counts->failed == 0 ? 0 : 1;
}
