// A stand-in for cuBLASLt on host memory, for the tests of cuda/matmul_library.cu under the
// emulator: a library of its own, with the functions that are used, plain loops, and a strict eye
// for what it is given. What a real library would read wrongly or refuse ends in kMisuse here, and
// a line on standard error says why.
//
// Settings, in the environment:
//   FAKE_CUBLASLT_VERSION=13.1.0      the version it reports
//   FAKE_CUBLASLT_CREATE_STATUS=1     Create fails
//   FAKE_CUBLASLT_MATMUL_STATUS=13    Matmul fails
//   FAKE_CUBLASLT_FASTEST=2           every algorithm but that one takes two milliseconds more
//   FAKE_CUBLASLT_MIXED_BIAS=1        takes an fp32 bias beside a bf16 output, which the real one
//   does not FAKE_CUBLASLT_NONE=1              knows no algorithm for anything
// Built with -DLACKS_MATMUL it has no Matmul.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 7, kNotSupported = 15, kMisuse = 77;
constexpr int32_t kFloat32 = 0, kBfloat16 = 14;
constexpr int kAlgorithms = 5;
constexpr size_t kNeededWorkspace = 4096;
constexpr uint64_t kMagic = 0x564F4C5441494321ull;

int misuse(const std::string& what) {
  std::fprintf(stderr, "fake cuBLASLt: %s\n", what.c_str());
  return kMisuse;
}
const char* setting(const char* name) { return std::getenv(name); }

// Descriptors are maps from attribute to value: what nobody set is not there.
struct Descriptor {
  enum Kind { kDescription, kLayout, kPreference } kind;
  std::map<int32_t, uint64_t> values;
  uint64_t get(int32_t attribute, uint64_t otherwise = 0) const {
    const auto at = values.find(attribute);
    return at == values.end() ? otherwise : at->second;
  }
};
int live_descriptors = 0;

int create(Descriptor** out, Descriptor::Kind kind) {
  *out = new Descriptor{kind, {}};
  live_descriptors++;
  return kSuccess;
}
int destroy(Descriptor* descriptor, Descriptor::Kind kind) {
  if (descriptor == nullptr || descriptor->kind != kind)
    return misuse("destroys another's descriptor");
  delete descriptor;
  live_descriptors--;
  return kSuccess;
}
// sizes: the attributes that exist, and their bytes.
int set(Descriptor* descriptor, Descriptor::Kind kind, const std::map<int32_t, size_t>& sizes,
        int32_t attribute, const void* value, size_t bytes) {
  if (descriptor == nullptr || descriptor->kind != kind) return misuse("sets another's descriptor");
  const auto size = sizes.find(attribute);
  if (size == sizes.end()) return misuse("attribute " + std::to_string(attribute));
  if (size->second != bytes)
    return misuse("attribute " + std::to_string(attribute) + " of " + std::to_string(bytes) +
                  " bytes");
  uint64_t wide = 0;
  std::memcpy(&wide, value, bytes);
  descriptor->values[attribute] = wide;
  return kSuccess;
}

enum : int32_t { kLayoutType, kLayoutOrder, kRows, kColumns, kLeading, kBatch, kBatchStride };
enum : int32_t { kCompute, kScale, kPointerMode, kTransposeA, kTransposeB };
constexpr int32_t kEpilogue = 7, kBiasPointer = 8, kBiasType = 26;

struct Matrix {
  int32_t type;
  int64_t rows, columns, leading, batch, stride;
  explicit Matrix(const Descriptor* layout)
      : type(int32_t(layout->get(kLayoutType))),
        rows(int64_t(layout->get(kRows))),
        columns(int64_t(layout->get(kColumns))),
        leading(int64_t(layout->get(kLeading))),
        batch(int64_t(layout->get(kBatch, 1))),
        stride(int64_t(layout->get(kBatchStride))) {}
  size_t element() const { return type == kFloat32 ? 4 : 2; }
};

// Empty, or what does not fit together.
std::string wrong(const Descriptor* description, const Descriptor* layouts[4]) {
  if (description == nullptr || description->kind != Descriptor::kDescription)
    return "no description";
  for (int i = 0; i < 4; i++)
    if (layouts[i] == nullptr || layouts[i]->kind != Descriptor::kLayout) return "no layout";
  if (description->get(kCompute) != 68) return "compute type is not CUBLAS_COMPUTE_32F";
  if (description->get(kScale) != 0) return "scale type is not CUDA_R_32F";
  const Matrix a(layouts[0]), b(layouts[1]), c(layouts[2]), d(layouts[3]);
  for (const Matrix& matrix : {a, b, c, d}) {
    if (matrix.rows < 1 || matrix.columns < 1) return "an empty matrix";
    if (matrix.leading < matrix.rows) return "a leading dimension below the rows";
    if (matrix.batch != a.batch) return "batches differ";
  }
  if (layouts[2] != layouts[3]) return "c and d differ";
  if (c.batch > 1 && c.stride < c.leading * c.columns) return "items of c overlap";
  if (a.type != kBfloat16 || b.type != kBfloat16) return "inputs are not bf16";
  if (d.type != kBfloat16 && d.type != kFloat32) return "the output is neither bf16 nor fp32";
  const bool ta = description->get(kTransposeA), tb = description->get(kTransposeB);
  if ((ta ? a.columns : a.rows) != d.rows) return "rows of op(a) and d differ";
  if ((tb ? b.rows : b.columns) != d.columns) return "columns of op(b) and d differ";
  if ((ta ? a.rows : a.columns) != (tb ? b.columns : b.rows)) return "k differs";
  return "";
}

int32_t bias_type(const Descriptor* description, const Matrix& d) {
  const auto given = int32_t(description->get(kBiasType, uint64_t(uint32_t(-1))));
  return given == -1 ? d.type : given;
}
bool supported(const Descriptor* description, const Matrix& d) {
  if (setting("FAKE_CUBLASLT_NONE") != nullptr) return false;
  if (description->get(kEpilogue, 1) == 1) return true;
  if (description->get(kEpilogue) != 4 || description->get(kBiasPointer) == 0) return false;
  const int32_t type = bias_type(description, d);
  return type == d.type || (type == kFloat32 && setting("FAKE_CUBLASLT_MIXED_BIAS") != nullptr);
}

struct Algorithm {
  uint64_t magic, index, problem, align_a, align_b, align_c, align_d, reserved;
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  int32_t status;
  float waves;
  int32_t reserved[4];
};

uint64_t problem_hash(const Descriptor* description, const Descriptor* layouts[4]) {
  uint64_t hash = 14695981039346656037ull;
  const auto mix = [&](uint64_t value) { hash = (hash ^ value) * 1099511628211ull; };
  for (const auto& [attribute, value] : description->values)
    if (attribute != kBiasPointer) mix(uint64_t(attribute)), mix(value);
  for (int i = 0; i < 4; i++)
    for (const auto& [attribute, value] : layouts[i]->values) mix(uint64_t(attribute)), mix(value);
  return hash;
}

[[maybe_unused]] float load(const void* from, int32_t type, int64_t i) {
  if (type == kFloat32) return static_cast<const float*>(from)[i];
  const uint32_t bits = uint32_t(static_cast<const uint16_t*>(from)[i]) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
[[maybe_unused]] void store(void* to, int32_t type, int64_t i, float value) {
  if (type == kFloat32) {
    static_cast<float*>(to)[i] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits += value != value ? 0 : 0x7FFF + (bits >> 16 & 1);
  static_cast<uint16_t*>(to)[i] = uint16_t(bits >> 16);
}

}  // namespace

extern "C" {
// What the tests look at.
int fake_cublaslt_matmuls = 0, fake_cublaslt_heuristics = 0, fake_cublaslt_checks = 0;
int fake_cublaslt_last_algorithm = -1, fake_cublaslt_last_bias_type = -1;
int fake_cublaslt_live_descriptors() { return live_descriptors; }
int fake_cublaslt_handles = 0;

int cublasLtCreate(void** handle) {
  if (const char* const status = setting("FAKE_CUBLASLT_CREATE_STATUS")) return std::atoi(status);
  *handle = new int(1);
  fake_cublaslt_handles++;
  return kSuccess;
}
int cublasLtDestroy(void* handle) {
  delete static_cast<int*>(handle);
  fake_cublaslt_handles--;
  return kSuccess;
}
int cublasLtGetProperty(int32_t property, int32_t* value) {
  const char* const version = setting("FAKE_CUBLASLT_VERSION");
  int parts[3] = {};
  if (property < 0 || property > 2 ||
      std::sscanf(version == nullptr ? "13.1.0" : version, "%d.%d.%d", &parts[0], &parts[1],
                  &parts[2]) != 3)
    return kInvalidValue;
  *value = parts[property];
  return kSuccess;
}

int cublasLtMatmulDescCreate(Descriptor** out, int32_t compute, int32_t scale) {
  create(out, Descriptor::kDescription);
  (*out)->values = {{kCompute, uint64_t(compute)}, {kScale, uint64_t(scale)}};
  return kSuccess;
}
int cublasLtMatmulDescDestroy(Descriptor* it) { return destroy(it, Descriptor::kDescription); }
int cublasLtMatmulDescSetAttribute(Descriptor* it, int32_t attribute, const void* value,
                                   size_t bytes) {
  return set(
      it, Descriptor::kDescription,
      {{kTransposeA, 4}, {kTransposeB, 4}, {kEpilogue, 4}, {kBiasPointer, 8}, {kBiasType, 4}},
      attribute, value, bytes);
}

int cublasLtMatrixLayoutCreate(Descriptor** out, int32_t type, uint64_t rows, uint64_t columns,
                               int64_t leading) {
  create(out, Descriptor::kLayout);
  (*out)->values = {{kLayoutType, uint64_t(type)},
                    {kRows, rows},
                    {kColumns, columns},
                    {kLeading, uint64_t(leading)}};
  return kSuccess;
}
int cublasLtMatrixLayoutDestroy(Descriptor* it) { return destroy(it, Descriptor::kLayout); }
int cublasLtMatrixLayoutSetAttribute(Descriptor* it, int32_t attribute, const void* value,
                                     size_t bytes) {
  return set(it, Descriptor::kLayout, {{kBatch, 4}, {kBatchStride, 8}}, attribute, value, bytes);
}

int cublasLtMatmulPreferenceCreate(Descriptor** out) {
  return create(out, Descriptor::kPreference);
}
int cublasLtMatmulPreferenceDestroy(Descriptor* it) { return destroy(it, Descriptor::kPreference); }
int cublasLtMatmulPreferenceSetAttribute(Descriptor* it, int32_t attribute, const void* value,
                                         size_t bytes) {
  return set(it, Descriptor::kPreference, {{1, 8}, {3, 4}, {5, 4}, {6, 4}, {7, 4}, {8, 4}},
             attribute, value, bytes);
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, Descriptor* description, Descriptor* a,
                                   Descriptor* b, Descriptor* c, Descriptor* d,
                                   Descriptor* preference, int32_t wanted, Heuristic* results,
                                   int32_t* count) {
  fake_cublaslt_heuristics++;
  *count = 0;
  const Descriptor* layouts[4] = {a, b, c, d};
  if (const std::string what = wrong(description, layouts); !what.empty()) return misuse(what);
  if (handle == nullptr || preference->kind != Descriptor::kPreference)
    return misuse("no preference");
  if (preference->get(3, 7) != 2) return misuse("partial sums may be rounded to the output's type");
  if (!supported(description, Matrix(d))) return kNotSupported;
  for (int i = 0; i < kAlgorithms && i < wanted; i++) {
    results[i] = {};
    results[i].algorithm = {kMagic,
                            uint64_t(i),
                            problem_hash(description, layouts),
                            preference->get(5, 256),
                            preference->get(6, 256),
                            preference->get(7, 256),
                            preference->get(8, 256),
                            0};
    results[i].workspace_bytes = kNeededWorkspace;
    // The second candidate is one that does not run here.
    results[i].status = i == 1 ? kNotSupported : kSuccess;
    (*count)++;
  }
  return kSuccess;
}

int cublasLtMatmulAlgoCheck(void* handle, Descriptor* description, Descriptor* a, Descriptor* b,
                            Descriptor* c, Descriptor* d, const Algorithm* algorithm,
                            Heuristic* result) {
  fake_cublaslt_checks++;
  const Descriptor* layouts[4] = {a, b, c, d};
  if (handle == nullptr) return kInvalidValue;
  if (const std::string what = wrong(description, layouts); !what.empty()) return misuse(what);
  if (algorithm->magic != kMagic || algorithm->problem != problem_hash(description, layouts))
    return kNotSupported;
  *result = {};
  result->algorithm = *algorithm;
  result->workspace_bytes = kNeededWorkspace;
  return kSuccess;
}

#if !defined(LACKS_MATMUL)
int cublasLtMatmul(void* handle, Descriptor* description, const void* alpha, const void* a,
                   Descriptor* a_layout, const void* b, Descriptor* b_layout, const void* beta,
                   const void* c, Descriptor* c_layout, void* d, Descriptor* d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                   void* stream) {
  fake_cublaslt_matmuls++;
  if (const char* const status = setting("FAKE_CUBLASLT_MATMUL_STATUS")) return std::atoi(status);
  const Descriptor* layouts[4] = {a_layout, b_layout, c_layout, d_layout};
  if (const std::string what = wrong(description, layouts); !what.empty()) return misuse(what);
  if (handle == nullptr || stream == nullptr) return misuse("no handle or stream");
  if (algorithm == nullptr || algorithm->magic != kMagic ||
      algorithm->problem != problem_hash(description, layouts))
    return misuse("the algorithm is not for this product");
  const auto aligned = [](const void* pointer, uint64_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
  };
  if (!aligned(a, algorithm->align_a) || !aligned(b, algorithm->align_b) ||
      !aligned(c, algorithm->align_c) || !aligned(d, algorithm->align_d))
    return misuse("a pointer is less aligned than was promised");
  if (workspace == nullptr || !aligned(workspace, 256) || workspace_bytes < kNeededWorkspace)
    return misuse("too small a workspace");
  std::memset(workspace, 0xAB, kNeededWorkspace);
  std::memset(static_cast<char*>(workspace) + workspace_bytes - kNeededWorkspace, 0xAB,
              kNeededWorkspace);
  const Matrix am(a_layout), bm(b_layout), cm(c_layout);
  if (!supported(description, cm)) return kNotSupported;
  const bool ta = description->get(kTransposeA), tb = description->get(kTransposeB);
  const int64_t k = ta ? am.rows : am.columns;
  const bool has_bias = description->get(kEpilogue, 1) == 4;
  const void* bias = reinterpret_cast<const void*>(description->get(kBiasPointer));
  if (has_bias && (bias == nullptr || !aligned(bias, 16))) return misuse("no bias, or not aligned");
  fake_cublaslt_last_algorithm = int(algorithm->index);
  fake_cublaslt_last_bias_type = has_bias ? bias_type(description, cm) : -1;
  if (const char* const fastest = setting("FAKE_CUBLASLT_FASTEST"))
    if (uint64_t(std::atoi(fastest)) != algorithm->index)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const float factor = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  for (int64_t item = 0; item < cm.batch; item++)
    for (int64_t column = 0; column < cm.columns; column++)
      for (int64_t row = 0; row < cm.rows; row++) {
        float sum = 0;
        for (int64_t p = 0; p < k; p++)
          sum += load(a, am.type,
                      item * am.stride + (ta ? p + row * am.leading : row + p * am.leading)) *
                 load(b, bm.type,
                      item * bm.stride + (tb ? column + p * bm.leading : p + column * bm.leading));
        const int64_t at = item * cm.stride + row + column * cm.leading;
        sum *= factor;
        if (keep != 0) sum += keep * load(c, cm.type, at);
        if (has_bias) sum += load(bias, bias_type(description, cm), row);
        store(d, cm.type, at, sum);
      }
  return kSuccess;
}
#endif
}
