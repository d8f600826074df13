// One kind of product as cuBLASLt sees it: its key, its descriptors, and the algorithm that does
// it.
//
// cuBLASLt's matrices are column-major, ours row-major. A row-major matrix is its own transpose
// read by columns, so that c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T: the library's A
// is b, its B is a, its m is n and its n is m, and the transpositions and leading dimensions stay
// what they were:
//
//   ours                                    the library's
//   a: m x k, or k x m when transposed      B: k x m, or m x k with op T; leading dimension k or m,
//   b: k x n, or n x k when transposed      A: n x k, or k x n with op T; n or k, or more
//   c: m x n                                C = D: n x m; leading dimension n
//
// The library adds a bias along D's rows, which are our columns: as gemm wants it.
#pragma once
#include <compare>
#include <memory>

#include "matmul_library.cuh"
#include "matmul_library_api.h"

namespace voltaic::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;

// What decides which algorithms do a product: everything but where the numbers are. Strides are 0
// where there is one item, and alignments at most 256, which every tensor's start has.
struct ProductKey {
  int64_t m, n, k;
  int32_t transpose_a, transpose_b;
  int64_t leading_a, leading_b;
  int32_t c_dtype;
  int32_t bias;
  int64_t batch, stride_a, stride_b, stride_c;
  int32_t align_a, align_b, align_c;  // in bytes
  auto operator<=>(const ProductKey&) const = default;
};

inline int32_t alignment_of(const void* pointer) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(pointer) | 256;
  return static_cast<int32_t>(bits & (~bits + 1));
}

inline ProductKey key_of(const MatmulProblem& p) {
  const bool several = p.batch > 1;
  return {p.m,
          p.n,
          p.k,
          p.transpose_a,
          p.transpose_b,
          p.leading_a > 0 ? p.leading_a
          : p.transpose_a ? p.m
                          : p.k,
          p.leading_b > 0 ? p.leading_b
          : p.transpose_b ? p.k
                          : p.n,
          p.c_dtype,
          p.bias != nullptr,
          p.batch,
          several ? p.stride_a : 0,
          several ? p.stride_b : 0,
          several ? p.stride_c : 0,
          alignment_of(p.a),
          alignment_of(p.b),
          alignment_of(p.c)};
}

// How the library gets the bias. It is fp32; beside a bf16 output most releases take a bf16 bias
// alone, so it is rounded for them: by 2^-9 of itself, where the output's own rounding is 2^-9 of
// the sum.
enum BiasForm : int32_t { kNoBias = 0, kBiasFloat32 = 1, kBiasRounded = 2 };

// The algorithm for a key. index: its place in the library's list, -1 when the library has none.
struct Choice {
  BiasForm bias = kNoBias;
  int32_t index = -1;
  LtAlgorithm algorithm = {};
};

// Descriptors, made by the library and given back to it.
template <class T>
using LtOwned = std::unique_ptr<T, LtStatus (*)(T*)>;

struct Plan {
  Choice choice;
  LtOwned<LtMatmulDescription> description{nullptr, nullptr};
  LtOwned<LtLayout> a{nullptr, nullptr}, b{nullptr, nullptr}, c{nullptr, nullptr};
};

inline LtOwned<LtLayout> make_layout(const LtFunctions& call, int32_t type, int64_t rows,
                                     int64_t columns, int64_t leading, int64_t batch,
                                     int64_t stride) {
  LtLayout* made = nullptr;
  if (call.MatrixLayoutCreate(&made, type, static_cast<uint64_t>(rows),
                              static_cast<uint64_t>(columns), leading) != kLtSuccess)
    return {nullptr, nullptr};
  LtOwned<LtLayout> layout(made, call.MatrixLayoutDestroy);
  if (batch > 1) {
    const auto count = static_cast<int32_t>(batch);
    if (call.MatrixLayoutSetAttribute(made, kLtBatchCount, &count, sizeof count) != kLtSuccess ||
        call.MatrixLayoutSetAttribute(made, kLtBatchStride, &stride, sizeof stride) != kLtSuccess)
      return {nullptr, nullptr};
  }
  return layout;
}

// Makes the descriptors; plan.choice.bias says in which form the bias comes. False: the library
// refuses.
inline bool describe_product(const LtFunctions& call, const ProductKey& key, Plan& plan) {
  LtMatmulDescription* made = nullptr;
  if (call.MatmulDescCreate(&made, kLtComputeFloat32, kLtFloat32) != kLtSuccess) return false;
  plan.description = {made, call.MatmulDescDestroy};
  const auto set = [&](int32_t attribute, const auto& value) {
    return call.MatmulDescSetAttribute(made, attribute, &value, sizeof value) == kLtSuccess;
  };
  const int32_t transpose_first = key.transpose_b ? kLtTransposed : kLtPlain;
  const int32_t transpose_second = key.transpose_a ? kLtTransposed : kLtPlain;
  if (!set(kLtTransposeA, transpose_first) || !set(kLtTransposeB, transpose_second)) return false;
  const bool float32_out = key.c_dtype == VOLTAIC_FLOAT32;
  if (key.bias) {
    // Not set, the bias has the output's type. Releases before CUDA 11.8 know nothing else.
    const bool own_type = plan.choice.bias == kBiasFloat32 && !float32_out;
    // In the place of the pointer, which each call sets: choosing an algorithm may look whether
    // there is one, and how it is aligned.
    const uintptr_t aligned_as_ours = 16;
    if (!set(kLtEpilogue, kLtEpilogueBias) || !set(kLtBiasPointer, aligned_as_ours) ||
        (own_type && !set(kLtBiasType, kLtFloat32)))
      return false;
  }
  plan.a = make_layout(call, kLtBfloat16, key.transpose_a ? key.m : key.k,
                       key.transpose_a ? key.k : key.m, key.leading_a, key.batch, key.stride_a);
  plan.b = make_layout(call, kLtBfloat16, key.transpose_b ? key.k : key.n,
                       key.transpose_b ? key.n : key.k, key.leading_b, key.batch, key.stride_b);
  plan.c = make_layout(call, float32_out ? kLtFloat32 : kLtBfloat16, key.n, key.m, key.n, key.batch,
                       key.stride_c);
  return plan.a != nullptr && plan.b != nullptr && plan.c != nullptr;
}

// The library's best `wanted` algorithms for a described product, best first by its own estimate.
// Returns how many there are.
inline int32_t best_algorithms(const LtFunctions& call, LtHandle handle, const ProductKey& key,
                               const Plan& plan, LtHeuristic* results, int32_t wanted) {
  LtPreference* made = nullptr;
  if (call.MatmulPreferenceCreate(&made) != kLtSuccess) return 0;
  const LtOwned<LtPreference> preference(made, call.MatmulPreferenceDestroy);
  const auto set = [&](int32_t attribute, auto value) {
    return call.MatmulPreferenceSetAttribute(made, attribute, &value, sizeof value) == kLtSuccess;
  };
  if (!set(kLtMostWorkspace, uint64_t{kWorkspace}) || !set(kLtReductions, kLtReduceInFloat32) ||
      !set(kLtAlignmentA, static_cast<uint32_t>(key.align_b)) ||
      !set(kLtAlignmentB, static_cast<uint32_t>(key.align_a)) ||
      !set(kLtAlignmentC, static_cast<uint32_t>(key.align_c)) ||
      !set(kLtAlignmentD, static_cast<uint32_t>(key.align_c)))
    return 0;
  int32_t count = 0, usable = 0;
  if (call.MatmulAlgoGetHeuristic(handle, plan.description.get(), plan.b.get(), plan.a.get(),
                                  plan.c.get(), plan.c.get(), made, wanted, results,
                                  &count) != kLtSuccess)
    return 0;
  for (int32_t i = 0; i < count; i++)
    if (results[i].status == kLtSuccess && results[i].workspace_bytes <= kWorkspace)
      results[usable++] = results[i];
  return usable;
}

// Describes the product with the bias in the best form that the library takes, and lists its best
// algorithms. 0: the library does not do this product.
inline int32_t plan_product(const LtFunctions& call, LtHandle handle, const ProductKey& key,
                            Plan& plan, LtHeuristic* results, int32_t wanted) {
  for (const BiasForm form : {kBiasFloat32, kBiasRounded}) {
    plan.choice.bias = key.bias ? form : kNoBias;
    if (describe_product(call, key, plan))
      if (const int32_t count = best_algorithms(call, handle, key, plan, results, wanted))
        return count;
    if (!key.bias || key.c_dtype == VOLTAIC_FLOAT32) break;
  }
  return 0;
}

}  // namespace
}  // namespace voltaic::cuda
