// Products by cuBLASLt, which is opened at run time where it is found (matmul_library_search.h).
//
// It takes bf16 inputs, with fp32 or bf16 output, fp32 sums, and partial sums of a split k in fp32.
// Problems in fp32 stay with our own kernels: there a row's result must not depend on the rows
// around it, which the library does not promise, and its fast path would be TF32.
//
// Which of its algorithms does a product is decided once for each kind (matmul_library_plan.h) and
// kept: by the library's own estimate, which is the same every time, or by timing the best of its
// candidates once the stream is told to ("tune"; matmul_library_choices.h writes the outcome down).
// With a fixed algorithm the library repeats its bits, given the same workspace: 32 MiB, each
// stream its own.
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "kernel.cuh"
#include "matmul_library.cuh"
#include "matmul_library_choices.h"
#include "matmul_library_plan.h"
#include "matmul_library_search.h"

namespace voltaic::cuda {

struct Matmul {
  LtHandle handle = nullptr;
  int32_t device = 0, architecture = 0;
  void* workspace = nullptr;  // kWorkspace bytes, then room for a bias
  bool off = false, tuning = false;
  std::map<ProductKey, std::shared_ptr<Plan>> plans;
};

namespace {

constexpr int64_t kMostBias = 1 << 18;  // elements; 1 MiB
constexpr int32_t kCandidates = 8, kWarmUps = 3, kTimings = 2, kTimedRuns = 5;
constexpr int64_t kMostSize = 0x7fffffff;

// Found at first use, and open until the process ends.
const MatmulLibrary& library() {
#if defined(__CUDACC__)
  constexpr bool kAnywhere = true;
#else
  constexpr bool kAnywhere = false;  // a real library cannot multiply on the emulated card
#endif
  static const MatmulLibrary& found = *new MatmulLibrary(find_library(kAnywhere));
  return found;
}

std::mutex shared_mutex;
// Why the library, found, does not start. Under the mutex.
std::string& start_failure() {
  static std::string& text = *new std::string;
  return text;
}
// What the library's estimates chose, for each device. Under the mutex.
std::map<std::pair<int32_t, ProductKey>, Choice>& first_choices() {
  static auto& choices = *new std::map<std::pair<int32_t, ProductKey>, Choice>;
  return choices;
}

__global__ void round_bias_kernel(const float* __restrict__ bias, bfloat16* __restrict__ rounded,
                                  int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) rounded[i] = from_float<bfloat16>(bias[i]);
}

voltaic_status library_failure(const voltaic_call* call, const MatmulProblem& p, LtStatus status) {
  return fail(call, VOLTAIC_ERROR_RUNTIME,
              "cuBLASLt failed at a product of %lld x %lld x %lld: %s (status %d; %s). "
              "VOLTAIC_CUBLASLT=off does without it",
              static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k),
              lt_status_name(status), status, library().path.c_str());
}

// Queues the product with one algorithm, into d (which has c's layout).
LtStatus queue(const Matmul& self, cudaStream_t stream, const std::shared_ptr<Plan>& plan,
               const MatmulProblem& p, const void* bias, const LtAlgorithm& algorithm, void* d) {
  const LtFunctions& lt = library().call;
  // Owns the plan: a captured product may come when the stream has forgotten it.
  const auto now = [&lt, &self, plan, stream, p, bias, algorithm, d]() -> LtStatus {
    if (bias != nullptr) {
      const LtStatus status =
          lt.MatmulDescSetAttribute(plan->description.get(), kLtBiasPointer, &bias, sizeof bias);
      if (status != kLtSuccess) return status;
    }
    return lt.Matmul(self.handle, plan->description.get(), &p.alpha, p.b, plan->b.get(), p.a,
                     plan->a.get(), &p.beta, p.c, plan->c.get(), d, plan->c.get(), &algorithm,
                     self.workspace, kWorkspace, stream);
  };
#if defined(__CUDACC__)
  return now();
#else
  // As a launch, so that a capture notes it down instead.
  const auto status = std::make_shared<LtStatus>(kLtSuccess);
  emulator::launch_body(1, 1, 0, stream, [now, status] {
    *status = now();
    if (*status != kLtSuccess) emulator::give_up("the matmul library failed");
  });
  cudaGetLastError();
  return *status;
#endif
}

// The bias as the plan wants it: where it is, or in the stream's own room, aligned and rounded as
// needed.
voltaic_status prepare_bias(const voltaic_call* call, const Matmul& self, const Plan& plan,
                            const MatmulProblem& p, const void** bias) {
  *bias = p.bias;
  if (p.bias == nullptr || (plan.choice.bias == kBiasFloat32 && aligned_16(p.bias)))
    return VOLTAIC_OK;
  void* const room = static_cast<char*>(self.workspace) + kWorkspace;
  *bias = room;
  if (plan.choice.bias == kBiasRounded)
    return launch(call, round_bias_kernel, blocks_for(p.n, 256), 256, 0, p.bias,
                  static_cast<bfloat16*>(room), p.n);
  return copy_bytes(call, room, p.bias, static_cast<size_t>(p.n) * sizeof(float));
}

struct Timer {
  cudaEvent_t begin = nullptr, end = nullptr;
  ~Timer() {
    if (begin != nullptr) cudaEventDestroy(begin);
    if (end != nullptr) cudaEventDestroy(end);
  }
};

// The place of the fastest candidate, on the problem's own numbers. Where c is also read (beta),
// the results go elsewhere; otherwise the real run overwrites them.
voltaic_status fastest(const voltaic_call* call, const Matmul& self,
                       const std::shared_ptr<Plan>& plan, const MatmulProblem& p,
                       const LtHeuristic* candidates, int32_t count, int32_t* best) {
  *best = 0;
  if (count == 1) return VOLTAIC_OK;
  const cudaStream_t stream = call->stream->handle;
  void* d = p.c;
  if (p.beta != 0) {
    const int64_t elements = (p.batch - 1) * p.stride_c + p.m * p.n;
    if (cudaMalloc(&d, static_cast<size_t>(elements) * (p.c_dtype == VOLTAIC_FLOAT32 ? 4 : 2)) !=
        cudaSuccess) {
      cudaGetLastError();
      return VOLTAIC_OK;  // no room to try: the library's own first choice
    }
  }
  const void* bias = nullptr;
  voltaic_status status = prepare_bias(call, self, *plan, p, &bias);
  Timer timer;
  cudaError_t error = cudaEventCreateWithFlags(&timer.begin, 0);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&timer.end, 0);
  float least = 0;
  bool any = false;
  for (int32_t i = 0; i < count && status == VOLTAIC_OK && error == cudaSuccess; i++) {
    LtStatus refused = kLtSuccess;
    const auto run = [&](int32_t times) {
      for (int32_t time = 0; time < times && refused == kLtSuccess; time++)
        refused = queue(self, stream, plan, p, bias, candidates[i].algorithm, d);
    };
    run(kWarmUps);
    // The better of two, against what else the machine may be doing.
    for (int32_t timing = 0; timing < kTimings; timing++) {
      float milliseconds = 0;
      if (error == cudaSuccess) error = cudaEventRecord(timer.begin, stream);
      run(kTimedRuns);
      if (error == cudaSuccess) error = cudaEventRecord(timer.end, stream);
      if (error == cudaSuccess) error = cudaEventSynchronize(timer.end);
      if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, timer.begin, timer.end);
      if (error != cudaSuccess || refused != kLtSuccess) break;
      if (any && milliseconds >= least) continue;
      any = true;
      least = milliseconds;
      *best = i;
    }
  }
  if (d != p.c) {
    cudaStreamSynchronize(stream);
    cudaFree(d);
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return runtime_failure(call->message, "timing a product", error);
  }
  return status;
}

// The plan for a problem, made when its key is new.
voltaic_status plan_for(const voltaic_call* call, Matmul& self, const MatmulProblem& p,
                        std::shared_ptr<Plan>* out) {
  const LtFunctions& lt = library().call;
  const ProductKey key = key_of(p);
  auto [at, is_new] = self.plans.try_emplace(key);
  if (is_new) at->second = std::make_shared<Plan>();
  *out = at->second;
  if (!is_new) return VOLTAIC_OK;
  Plan& plan = *at->second;
  const bool tune = self.tuning && !call->stream->capturing;
  if (!tune) {
    std::lock_guard<std::mutex> lock(shared_mutex);
    const auto known = first_choices().find({self.device, key});
    if (known != first_choices().end()) {
      plan.choice = known->second;
      if (plan.choice.index >= 0 && !describe_product(lt, key, plan)) plan.choice.index = -1;
      return VOLTAIC_OK;
    }
  }
  LtHeuristic candidates[kCandidates];
  const int32_t count =
      plan_product(lt, self.handle, key, plan, candidates, tune ? kCandidates : 1);
  int32_t best = count > 0 ? 0 : -1;
  if (tune && count > 0) {
    const voltaic_status status = fastest(call, self, *out, p, candidates, count, &best);
    if (status != VOLTAIC_OK) {
      self.plans.erase(at);
      return status;
    }
  }
  plan.choice.index = best;
  if (best >= 0) plan.choice.algorithm = candidates[best].algorithm;
  if (!tune) {
    std::lock_guard<std::mutex> lock(shared_mutex);
    first_choices().emplace(std::pair(self.device, key), plan.choice);
  }
  return VOLTAIC_OK;
}

voltaic_status text_failure(char* message, voltaic_status status, const std::string& text) {
  std::snprintf(message, VOLTAIC_MESSAGE_LENGTH, "%s", text.c_str());
  return status;
}

std::string next_line(const std::string& text, size_t& at) {
  const size_t end = std::min(text.find('\n', at), text.size());
  std::string line = text.substr(at, end - at);
  at = end + 1;
  return line;
}

// A written choice as a plan, when the library still takes it.
bool restore(const Matmul& self, const ProductKey& key, const Choice& choice, Plan& plan) {
  plan.choice = choice;
  if (choice.index < 0) return true;
  const LtFunctions& lt = library().call;
  LtHeuristic checked = {};
  return describe_product(lt, key, plan) &&
         lt.MatmulAlgoCheck(self.handle, plan.description.get(), plan.b.get(), plan.a.get(),
                            plan.c.get(), plan.c.get(), &choice.algorithm,
                            &checked) == kLtSuccess &&
         checked.workspace_bytes <= kWorkspace;
}

}  // namespace

bool matmul_by_library(const voltaic_call* call, const MatmulProblem& p, voltaic_status* status) {
  Matmul* const self = call->stream->matmul;
  if (self == nullptr || self->off || p.dtype != VOLTAIC_BFLOAT16 || p.alpha == 0) return false;
  for (const int64_t size : {p.m, p.n, p.k, p.batch})
    if (size < 1 || size > kMostSize) return false;
  if ((p.batch > 1 && p.stride_c == 0) || (p.bias != nullptr && p.n > kMostBias)) return false;
  use_device(call->stream);
  if (self->workspace == nullptr) {
    if (const cudaError_t error =
            cudaMalloc(&self->workspace, kWorkspace + kMostBias * sizeof(float))) {
      cudaGetLastError();
      self->workspace = nullptr;
      *status = runtime_failure(call->message, "asking for 33 MB for cuBLASLt", error);
      return true;
    }
  }
  std::shared_ptr<Plan> plan;
  *status = plan_for(call, *self, p, &plan);
  if (*status != VOLTAIC_OK) return true;
  if (plan->choice.index < 0) return false;
  const void* bias = nullptr;
  *status = prepare_bias(call, *self, *plan, p, &bias);
  if (*status != VOLTAIC_OK) return true;
  const LtStatus queued =
      queue(*self, call->stream->handle, plan, p, bias, plan->choice.algorithm, p.c);
  if (queued != kLtSuccess) *status = library_failure(call, p, queued);
  return true;
}

void open_matmul_library(voltaic_stream* stream) {
  const MatmulLibrary& found = library();
  if (!found.usable) return;
  use_device(stream);
  LtHandle handle = nullptr;
  const LtStatus status = found.call.Create(&handle);
  if (status != kLtSuccess) {
    cudaGetLastError();
    std::lock_guard<std::mutex> lock(shared_mutex);
    if (!start_failure().empty()) return;
    start_failure() = "does not start (" + std::string(lt_status_name(status)) + ", status " +
                      std::to_string(status) + "): own kernels; " + found.description;
    return;
  }
  stream->matmul = new Matmul;
  stream->matmul->handle = handle;
  stream->matmul->device = stream->device;
  stream->matmul->architecture = stream->architecture;
}

void close_matmul_library(voltaic_stream* stream) {
  Matmul* const self = std::exchange(stream->matmul, nullptr);
  if (self == nullptr) return;
  self->plans.clear();
  library().call.Destroy(self->handle);
  if (self->workspace != nullptr) cudaFree(self->workspace);
  delete self;
}

void describe_matmul_library(char* text, size_t length) {
  const std::string& description = library().description;
  std::lock_guard<std::mutex> lock(shared_mutex);
  std::snprintf(text, length, "%s",
                start_failure().empty() ? description.c_str() : start_failure().c_str());
}

voltaic_status matmul_choices(voltaic_stream* stream, char* text, size_t length, size_t* needed,
                              char*) {
  const Matmul* const self = stream->matmul;
  std::string all;
  if (self != nullptr && self->off) all = "off";
  if (self != nullptr && !self->off) {
    all = choices_header(library().version, self->architecture) + "\n";
    for (const auto& [key, plan] : self->plans) all += choice_line(key, plan->choice) + "\n";
  }
  *needed = all.size() + 1;
  if (length > 0) std::snprintf(text, length, "%s", all.c_str());
  return VOLTAIC_OK;
}

voltaic_status set_matmul_choices(voltaic_stream* stream, const char* given, char* message) {
  const std::string text = given;
  Matmul* const self = stream->matmul;
  if (self == nullptr && (text.empty() || text == "off")) return VOLTAIC_OK;
  if (text.empty()) {
    self->off = self->tuning = false;
    self->plans.clear();
    return VOLTAIC_OK;
  }
  size_t at = 0;
  const std::string header = next_line(text, at);
  const bool choices = header.rfind("cublaslt ", 0) == 0;
  if (text != "off" && text != "on" && text != "tune" && !choices)
    return text_failure(message, VOLTAIC_ERROR_ARGUMENT,
                        "matmul is '" + header.substr(0, 80) +
                            "', expected tune, on, off, or choices that were read from it");
  if (self == nullptr) {
    char description[256];
    describe_matmul_library(description, sizeof description);
    return text_failure(message, VOLTAIC_ERROR_UNSUPPORTED,
                        (choices ? "the choices of products are from " + header.substr(0, 80)
                                 : "matmul '" + text + "' needs cuBLASLt") +
                            "; here it is " + description);
  }
  if (!choices) {
    self->off = text == "off";
    self->tuning = text == "tune";
    return VOLTAIC_OK;
  }
  use_device(stream);
  const std::string here = choices_header(library().version, self->architecture);
  if (header != here)
    return text_failure(
        message, VOLTAIC_ERROR_UNSUPPORTED,
        "the choices of products are from " + header.substr(0, 80) + ", here is " + here);
  std::map<ProductKey, std::shared_ptr<Plan>> restored;
  while (at < text.size()) {
    const std::string line = next_line(text, at);
    if (line.empty()) continue;
    ProductKey key;
    Choice choice;
    if (!parse_choice(line, key, choice))
      return text_failure(message, VOLTAIC_ERROR_ARGUMENT,
                          "a line of the choices of products is damaged: " + line);
    const auto plan = restored[key] = std::make_shared<Plan>();
    if (!restore(*self, key, choice, *plan))
      return text_failure(message, VOLTAIC_ERROR_UNSUPPORTED,
                          "cuBLASLt refuses an algorithm that it chose before: " + line);
  }
  for (auto& [key, plan] : restored) self->plans.insert_or_assign(key, std::move(plan));
  self->off = false;
  return VOLTAIC_OK;
}

}  // namespace voltaic::cuda
