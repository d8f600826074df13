// What Voltaic uses of cuBLASLt, declared here: its headers are on few machines, and its numbers
// are the same from CUDA 11.4 to 13.2. Fifteen plain C functions, opaque handles, one struct with a
// layout, and some twenty constants. Descriptors are only ever made by the library's own Create
// functions, since the sizes of those structs differ between releases.
//
// Checked against the bindings of every release from 11.4 on that cudarc generates, and, without a
// card, against the library itself (13.1.1: attribute sizes, and what was set read back).
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace voltaic::cuda {
namespace {

struct LtContext;
struct LtMatmulDescription;
struct LtLayout;
struct LtPreference;
using LtHandle = LtContext*;

using LtStatus = int32_t;
constexpr LtStatus kLtSuccess = 0, kLtNotInitialized = 1, kLtAllocationFailed = 3,
                   kLtInvalidValue = 7, kLtArchitectureMismatch = 8, kLtExecutionFailed = 13,
                   kLtInternalError = 14, kLtNotSupported = 15;

inline const char* lt_status_name(LtStatus status) {
  switch (status) {
    case kLtNotInitialized:
      return "not initialized";
    case kLtAllocationFailed:
      return "no memory";
    case kLtInvalidValue:
      return "invalid value";
    case kLtArchitectureMismatch:
      return "not for this card";
    case kLtExecutionFailed:
      return "execution failed";
    case kLtInternalError:
      return "internal error";
    case kLtNotSupported:
      return "not supported";
    default:
      return "failed";
  }
}

// cudaDataType_t, cublasComputeType_t, cublasOperation_t
constexpr int32_t kLtFloat32 = 0, kLtBfloat16 = 14;
constexpr int32_t kLtComputeFloat32 = 68;  // fp32 sums and scalars; no TF32
constexpr int32_t kLtPlain = 0, kLtTransposed = 1;

// cublasLtMatmulDescAttributes_t: int32 each, but the epilogue (uint32) and the pointer
constexpr int32_t kLtTransposeA = 3, kLtTransposeB = 4, kLtEpilogue = 7, kLtBiasPointer = 8,
                  kLtBiasType = 26;  // the last: from CUDA 11.8 on
constexpr uint32_t kLtEpilogueBias = 4;

// cublasLtMatrixLayoutAttribute_t: int32 and int64. The order is column-major where not set.
constexpr int32_t kLtBatchCount = 5, kLtBatchStride = 6;

// cublasLtMatmulPreferenceAttributes_t: uint64, and uint32 for the others
constexpr int32_t kLtMostWorkspace = 1, kLtReductions = 3, kLtAlignmentA = 5, kLtAlignmentB = 6,
                  kLtAlignmentC = 7, kLtAlignmentD = 8;
// Partial sums of a split k stay fp32; the other schemes round them to the output's type.
constexpr uint32_t kLtReduceInFloat32 = 2;

// libraryPropertyType_t
constexpr int32_t kLtMajor = 0, kLtMinor = 1, kLtPatch = 2;

// cublasLtMatmulAlgo_t: plain bytes that may be written down and used again by the same version.
struct LtAlgorithm {
  uint64_t words[8];
};
// cublasLtMatmulHeuristicResult_t
struct LtHeuristic {
  LtAlgorithm algorithm;
  size_t workspace_bytes;
  LtStatus status;
  float waves;
  int32_t reserved[4];
};
static_assert(sizeof(LtAlgorithm) == 64 && sizeof(LtHeuristic) == 96);

// cublasLtCreate is Create here, and so on.
struct LtFunctions {
  LtStatus (*Create)(LtHandle* out);
  LtStatus (*Destroy)(LtHandle handle);
  LtStatus (*GetProperty)(int32_t property, int32_t* value);
  LtStatus (*MatmulDescCreate)(LtMatmulDescription** out, int32_t compute, int32_t scale_type);
  LtStatus (*MatmulDescDestroy)(LtMatmulDescription* description);
  LtStatus (*MatmulDescSetAttribute)(LtMatmulDescription* description, int32_t attribute,
                                     const void* value, size_t bytes);
  LtStatus (*MatrixLayoutCreate)(LtLayout** out, int32_t type, uint64_t rows, uint64_t columns,
                                 int64_t leading_dimension);
  LtStatus (*MatrixLayoutDestroy)(LtLayout* layout);
  LtStatus (*MatrixLayoutSetAttribute)(LtLayout* layout, int32_t attribute, const void* value,
                                       size_t bytes);
  LtStatus (*MatmulPreferenceCreate)(LtPreference** out);
  LtStatus (*MatmulPreferenceDestroy)(LtPreference* preference);
  LtStatus (*MatmulPreferenceSetAttribute)(LtPreference* preference, int32_t attribute,
                                           const void* value, size_t bytes);
  LtStatus (*MatmulAlgoGetHeuristic)(LtHandle handle, LtMatmulDescription* description, LtLayout* a,
                                     LtLayout* b, LtLayout* c, LtLayout* d,
                                     LtPreference* preference, int32_t wanted, LtHeuristic* results,
                                     int32_t* count);
  LtStatus (*MatmulAlgoCheck)(LtHandle handle, LtMatmulDescription* description, LtLayout* a,
                              LtLayout* b, LtLayout* c, LtLayout* d, const LtAlgorithm* algorithm,
                              LtHeuristic* result);
  LtStatus (*Matmul)(LtHandle handle, LtMatmulDescription* description, const void* alpha,
                     const void* a, LtLayout* a_layout, const void* b, LtLayout* b_layout,
                     const void* beta, const void* c, LtLayout* c_layout, void* d,
                     LtLayout* d_layout, const LtAlgorithm* algorithm, void* workspace,
                     size_t workspace_bytes, cudaStream_t stream);
};

}  // namespace
}  // namespace voltaic::cuda
