// What the op gemm is called with on every backend: the places of its tensors and attributes, its
// epilogues, and what it refuses.
#pragma once
#include "activation_kinds.h"

namespace voltaic {
namespace {

// What happens to a product on its way to c; see kernel_rows.inc.
enum EpilogueKind {
  kPlain = 0,
  kBias = 1,
  kBiasActivation = 2,
  kActivationGradient = 3,
  kActivationGradientAndValue = 4
};

enum GemmTensor { kA, kB, kBiasTensor, kSaved, kBiasGradient, kC };
enum GemmAttribute {
  kM,
  kN,
  kK,
  kTransposeA,
  kTransposeB,
  kAlpha,
  kBeta,
  kEpilogue,
  kActivation,
  kBatch,
  kStrideA,
  kStrideB,
  kStrideC
};

// Elements of b's type that panels packed ahead may take, whatever kernel makes them: panels of at
// most 48 columns, the last one whole, each step of k's rounded to 32. lib/tensor/weight-copies.ts
// allocates by the same formula.
constexpr int64_t kMostPanelColumns = 48, kPackedDepthUnit = 32;
inline int64_t packed_elements(int64_t n, int64_t k) {
  return (n + kMostPanelColumns) * (divide_up(k, kPackedDepthUnit) * kPackedDepthUnit);
}

inline bool is_size(double x) {
  return x >= 0 && x < 4503599627370496.0 && x == (double)(int64_t)x;
}

// Whether items of rows x columns, stride apart, lie within elements; free of overflow.
inline bool fits(int64_t items, int64_t rows, int64_t columns, int64_t stride, int64_t elements) {
  if (items == 0 || rows == 0 || columns == 0) return true;
  const double last = (double)(items - 1) * (double)stride + (double)rows * (double)columns;
  return last <= (double)elements;
}

// The checks that shapes and attributes allow.
inline voltaic_status check_gemm(const voltaic_call* call) {
  static const char* const names[] = {"m",        "n",        "k",        "",           "",
                                      "",         "",         "epilogue", "activation", "batch",
                                      "stride_a", "stride_b", "stride_c"};
  const int whole_numbers[] = {kM,     kN,       kK,       kEpilogue, kActivation,
                               kBatch, kStrideA, kStrideB, kStrideC};
  for (int i : whole_numbers)
    if (!is_size(attribute(call, i)))
      return fail(call, VOLTAIC_ERROR_ARGUMENT, "gemm: %s is %g, expected a whole number from 0",
                  names[i], attribute(call, i));
  const int64_t m = whole(call, kM), n = whole(call, kN), k = whole(call, kK),
                items = whole(call, kBatch);
  const int64_t epilogue = whole(call, kEpilogue), stride_c = whole(call, kStrideC);
  if (epilogue > kActivationGradientAndValue)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "gemm: epilogue is %lld, expected 0 to 4",
                (long long)epilogue);
  if (whole(call, kActivation) >= kActivationKinds)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "gemm: activation is %lld, expected 0 to %d",
                (long long)whole(call, kActivation), kActivationKinds - 1);
  if (epilogue == kBias && !present(call, kBiasTensor))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "gemm: epilogue 1 adds a bias, but none was given");
  if (epilogue >= kActivationGradient && !present(call, kSaved))
    return fail(
        call, VOLTAIC_ERROR_ARGUMENT,
        "gemm: epilogue %lld needs saved, the values before the activation, but it was left out",
        (long long)epilogue);
  if (!fits(items, m, k, whole(call, kStrideA), tensor(call, kA).elements))
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "gemm: a holds %lld elements, fewer than %lld times %lld x %lld",
                (long long)tensor(call, kA).elements, (long long)items, (long long)m, (long long)k);
  if (!fits(items, k, n, whole(call, kStrideB), tensor(call, kB).elements))
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "gemm: b holds %lld elements, fewer than %lld times %lld x %lld",
                (long long)tensor(call, kB).elements, (long long)items, (long long)k, (long long)n);
  const int results[] = {kC, kSaved}, rows_of_n[] = {kBiasTensor, kBiasGradient};
  for (int i : results)
    if (present(call, i) && !fits(items, m, n, stride_c, tensor(call, i).elements))
      return fail(call, VOLTAIC_ERROR_SHAPE,
                  "gemm: %s holds %lld elements, fewer than %lld times %lld x %lld",
                  i == kC ? "c" : "saved", (long long)tensor(call, i).elements, (long long)items,
                  (long long)m, (long long)n);
  if (items > 1 && (double)stride_c < (double)m * (double)n)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "gemm: stride_c is %lld, so items of %lld x %lld would overlap in c",
                (long long)stride_c, (long long)m, (long long)n);
  for (int i : rows_of_n)
    if (present(call, i) && tensor(call, i).elements != n)
      return fail(call, VOLTAIC_ERROR_SHAPE, "gemm: %s has %lld elements, expected n = %lld",
                  i == kBiasTensor ? "bias" : "bias_gradient", (long long)tensor(call, i).elements,
                  (long long)n);
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic
