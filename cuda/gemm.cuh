// gemm: c = alpha * op(a) op(b) + beta * c for each item of a batch, with the epilogues of the
// kernel table; and bias_gradient, the column sums of a matrix.
//
// op(a) is m x k, op(b) k x n, c m x n, row-major, fp32 or bf16 (a and b alike; c has a type of its
// own). 2 m n k FLOPs; at least (m k + k n + 2 m n) elements move. Sums are fp32; alpha, beta, bias
// and activation work on the fp32 sums, and c is rounded once. beta 0 leaves c unread.
//
//   gemm_tiles.cuh        the product as kernels see it, order of tiles, estimate of time
//   gemm_tensor_core.cuh  bf16 from sm_80 on; gemm_operand_tiles.cuh is its shared memory
//   gemm_simt.cuh         fp32, and bf16 on sm_75
//   gemm_epilogue.cuh     sums to c
//   gemm_columns.cuh      column sums
//   gemm_padding.cuh      bf16 operands whose rows begin anywhere, copied so that they do not
//
// A library (matmul_library.cuh) is asked first where the stream has one. It knows products and
// biases; activations then follow in a kernel of their own. VOLTAIC_GEMM=unfused takes that way
// with the kernels here in the library's place, so that it is tested without one.
#include <cstdlib>
#include <cstring>

#include "activation_forward.cuh"
#include "gemm_columns.cuh"
#include "gemm_padding.cuh"
#include "gemm_simt.cuh"
#include "gemm_tensor_core.cuh"
#include "matmul_library.cuh"

namespace voltaic {
namespace {

// ---- by the kernels here

// Tile and split of k, from the shape and the card alone.
struct Plan {
  bool tensor_cores;
  int tile, splits;
  int64_t k_range;
};
template <class F>
Plan make_plan(const voltaic_call* call, Product<F>& p) {
  constexpr bool kHalf = sizeof(F) == 2;
  if (kHalf && call->stream->architecture >= 80) {
    p.find_vectors(8);
    const TensorCorePlan plan = plan_tensor_cores(p, call->stream->processors);
    return {true, plan.tile, plan.splits, plan.k_range};
  }
  p.find_vectors(4);
  const SimtPlan plan = plan_simt(p, call->stream);
  return {false, plan.tile, plan.splits, plan.splits > 1 ? sum_chunk(p.k) : p.k};
}

// Null, with the message written, when the card gives none.
float* scratch_floats(const voltaic_call* call, size_t taken, int64_t count) {
  auto* const all = static_cast<char*>(cuda::scratch(call, taken + count * sizeof(float), taken));
  return all == nullptr ? nullptr : reinterpret_cast<float*>(all + taken);
}

// The whole op. A split k's products and the column sums share the call's scratch memory, of which
// the first `taken` bytes are in use.
template <class F>
voltaic_status multiply(const voltaic_call* call, Product<F> p, Epilogue<F> e, float* bias_gradient,
                        size_t taken) {
  // More blocks than a launch may have: the items in two halves.
  if (p.items > 1 && kTensorCoreTiles[kSmall].blocks(p.m, p.n, p.items) > kMostBlocks / 8) {
    Product<F> second = p;
    Epilogue<F> second_e = e;
    p.items /= 2;
    second.items -= p.items;
    second.a += p.items * p.stride_a;
    second.b += p.items * p.stride_b;
    second_e.move_to(p.items, 0);
    const voltaic_status status = multiply(call, p, e, bias_gradient, taken);
    return status == VOLTAIC_OK ? multiply(call, second, second_e, bias_gradient, taken) : status;
  }
  const Plan plan = make_plan(call, p);
  p.splits = plan.splits;
  p.k_range = plan.k_range;
  const TileCost& cost = plan.tensor_cores ? kTensorCoreTiles[plan.tile] : kSimtTiles[plan.tile];
  const int64_t item = p.m * p.n;
  const int64_t split_elements = p.splits > 1 ? p.splits * p.items * item : 0;
  const int64_t sum_rows = bias_gradient == nullptr ? 0
                           : p.splits > 1 ? finish_row_blocks(p.m, p.n, p.items, kSumBatch)
                                          : divide_up(p.m, cost.rows) * p.items;
  // A multiple of four: both parts begin at 16 bytes.
  const int64_t sums_at = divide_up(split_elements, 4) * 4;
  float* room = nullptr;
  if (split_elements + sum_rows > 0) {
    room = scratch_floats(call, taken, sums_at + sum_rows * p.n);
    if (room == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  }
  if (sum_rows > 0) e.column_sums = room + sums_at;

  Epilogue<F> of_product = e;
  if (p.splits > 1) {
    of_product = {};
    of_product.float_output = true;
    of_product.vector = p.n % 4 == 0 ? 4 : 1;
    of_product.alpha = 1;
    of_product.n = p.n;
    of_product.item_stride = item;
    of_product.split_stride = p.items * item;
    of_product.c = room;
  }
  voltaic_status status = VOLTAIC_OK;
  if constexpr (sizeof(F) == 2)
    status = plan.tensor_cores ? multiply_on_tensor_cores(call, plan.tile, p, of_product)
                               : multiply_simt(call, plan.tile, p, of_product);
  else
    status = multiply_simt(call, plan.tile, p, of_product);
  if (status == VOLTAIC_OK && p.splits > 1)
    status = finish<kSumBatch>(call, static_cast<const float*>(room), p.splits, p.items * item,
                               item, p.m, p.items, e);
  if (status == VOLTAIC_OK && sum_rows > 0)
    status = add_column_partials(call, e.column_sums, sum_rows, p.n, bias_gradient);
  return status;
}

// ---- by a library, and a kernel for what it does not know

bool unfused_by_setting() {
  static const bool value = [] {
    const char* const setting = std::getenv("VOLTAIC_GEMM");
    return setting != nullptr && std::strcmp(setting, "unfused") == 0;
  }();
  return value;
}

// Whether saved lies in c's memory: then a product into c would overwrite it.
template <class F>
bool overlap(const Epilogue<F>& e, int64_t elements) {
  const auto c = reinterpret_cast<uintptr_t>(e.c), saved = reinterpret_cast<uintptr_t>(e.saved);
  return saved != 0 && c < saved + elements * sizeof(F) &&
         saved < c + elements * (e.float_output ? sizeof(float) : sizeof(bfloat16));
}

// The product with at most a bias, into `to`. False: the library does not take it.
template <class F>
bool plain_product(const voltaic_call* call, const Product<F>& p, const Epilogue<F>& e, void* to,
                   bool float_output, size_t taken, voltaic_status* status) {
  if (call->stream->matmul != nullptr && p.k > 0) {
    cuda::MatmulProblem problem = {};
    problem.m = p.m;
    problem.n = p.n;
    problem.k = p.k;
    problem.transpose_a = p.transpose_a;
    problem.transpose_b = p.transpose_b;
    problem.alpha = e.alpha;
    problem.beta = e.beta;
    problem.batch = p.items;
    problem.stride_a = p.stride_a;
    problem.stride_b = p.stride_b;
    problem.stride_c = e.item_stride;
    problem.leading_a = p.leading_a;
    problem.leading_b = p.leading_b;
    problem.dtype = sizeof(F) == 2 ? VOLTAIC_BFLOAT16 : VOLTAIC_FLOAT32;
    problem.c_dtype = float_output ? VOLTAIC_FLOAT32 : VOLTAIC_BFLOAT16;
    problem.a = p.a;
    problem.b = p.b;
    problem.c = to;
    problem.bias = e.bias;
    if (cuda::matmul_by_library(call, problem, status)) return true;
  }
  if (!unfused_by_setting()) return false;
  Epilogue<F> plain = e;
  plain.kind = e.bias != nullptr ? kBias : kPlain;
  plain.saved = nullptr;
  plain.c = to;
  plain.float_output = float_output;
  *status = multiply(call, p, plain, nullptr, taken);
  return true;
}

// False, and nothing queued: the kernels here do the whole.
template <class F>
bool multiply_unfused(const voltaic_call* call, const Product<F>& p, const Epilogue<F>& e,
                      float* bias_gradient, size_t taken, voltaic_status* status) {
  if (call->stream->matmul == nullptr && !unfused_by_setting()) return false;
  const bool in_place = overlap(e, (p.items - 1) * e.item_stride + p.m * p.n);
  if (in_place) return false;
  // The sums before an activation go into saved where c is not needed for them.
  const bool through_saved = e.kind == kBiasActivation && e.saved != nullptr && e.beta == 0.0f;
  const bool to_float = through_saved ? sizeof(F) == 4 : e.float_output;
  void* const to = through_saved ? static_cast<void*>(e.saved) : e.c;
  // Only where all is bf16 may a sum be rounded to bf16 on its way.
  if (e.kind >= kBiasActivation && !to_float && (sizeof(F) == 4 || e.float_output)) return false;
  if (!plain_product(call, p, e, to, to_float, taken, status)) return false;
  if (*status != VOLTAIC_OK || e.kind <= kBias) return true;

  // All of saved to all of c: what activation_forward does.
  if constexpr (sizeof(F) == 2)
    if (through_saved && !e.float_output && (p.items == 1 || e.item_stride == p.m * p.n)) {
      *status =
          activate_all(call, e.activation, e.saved, static_cast<F*>(e.c), p.items * p.m * p.n);
      return true;
    }

  Epilogue<F> rest = e;
  rest.bias = nullptr;
  if (through_saved) rest.saved = nullptr;
  const int64_t sum_rows =
      bias_gradient == nullptr ? 0 : finish_row_blocks(p.m, p.n, p.items, kFinishBatch);
  if (sum_rows > 0) {
    rest.column_sums = scratch_floats(call, taken, sum_rows * p.n);
    if (rest.column_sums == nullptr) {
      *status = VOLTAIC_ERROR_OUT_OF_MEMORY;
      return true;
    }
  }
  if (to_float)
    *status = finish<kFinishBatch>(call, static_cast<const float*>(to), 1, 0, e.item_stride, p.m,
                                   p.items, rest);
  else if constexpr (sizeof(F) == 2)
    *status = finish<kFinishBatch>(call, static_cast<const bfloat16*>(to), 1, 0, e.item_stride, p.m,
                                   p.items, rest);
  if (*status == VOLTAIC_OK && sum_rows > 0)
    *status = add_column_partials(call, rest.column_sums, sum_rows, p.n, bias_gradient);
  return true;
}

// ---- the op

template <class F>
voltaic_status gemm_typed(const voltaic_call* call) {
  if (whole(call, kEpilogue) > kActivationGradient)
    return fail(call, VOLTAIC_ERROR_UNSUPPORTED, "gemm: epilogue 4 is the CPU's");
  Product<F> p = {};
  p.m = whole(call, kM);
  p.n = whole(call, kN);
  p.k = whole(call, kK);
  p.transpose_a = attribute(call, kTransposeA) != 0;
  p.transpose_b = attribute(call, kTransposeB) != 0;
  p.items = whole(call, kBatch);
  p.stride_a = whole(call, kStrideA);
  p.stride_b = whole(call, kStrideB);
  p.a = data<const F>(call, kA);
  p.b = data<const F>(call, kB);
  Epilogue<F> e = {};
  e.kind = static_cast<int32_t>(whole(call, kEpilogue));
  e.activation = static_cast<int32_t>(whole(call, kActivation));
  e.float_output = tensor(call, kC).dtype == VOLTAIC_FLOAT32;
  e.alpha = static_cast<float>(attribute(call, kAlpha));
  e.beta = static_cast<float>(attribute(call, kBeta));
  e.n = p.n;
  e.item_stride = whole(call, kStrideC);
  const bool adds_bias = e.kind == kBias || e.kind == kBiasActivation;
  e.bias = adds_bias && present(call, kBiasTensor) ? data<const float>(call, kBiasTensor) : nullptr;
  e.saved = e.kind >= kBiasActivation && present(call, kSaved) ? data<F>(call, kSaved) : nullptr;
  e.c = data<void>(call, kC);
  float* const bias_gradient = e.kind == kActivationGradient && present(call, kBiasGradient)
                                   ? data<float>(call, kBiasGradient)
                                   : nullptr;
  if (p.items == 0 || p.m == 0 || p.n == 0) return VOLTAIC_OK;
  // Rows against one shared b are one tall product.
  if (p.items > 1 && !p.transpose_a && p.stride_b == 0 && p.stride_a == p.m * p.k &&
      e.item_stride == p.m * p.n) {
    p.m *= p.items;
    p.items = 1;
  }
  p.pack_rows();
  const auto may_move = [&](int columns) {
    const auto lies_at_multiples = [&](const void* at, size_t element) {
      return reinterpret_cast<uintptr_t>(at) % (columns * element) == 0;
    };
    return p.n % columns == 0 && (p.items == 1 || e.item_stride % columns == 0) &&
           lies_at_multiples(e.c, e.float_output ? sizeof(float) : sizeof(bfloat16)) &&
           lies_at_multiples(e.saved, sizeof(F));
  };
  e.vector = may_move(4) ? 4 : may_move(2) ? 2 : 1;
  size_t taken = 0;
  voltaic_status status = VOLTAIC_OK;
  if constexpr (sizeof(F) == 2) status = pad_operands(call, p, &taken);
  if (status != VOLTAIC_OK || multiply_unfused(call, p, e, bias_gradient, taken, &status))
    return status;
  return multiply(call, p, e, bias_gradient, taken);
}

voltaic_status gemm(const voltaic_call* call) {
  const voltaic_status checked = check_gemm(call);
  if (checked != VOLTAIC_OK) return checked;
  return with_float(tensor(call, kA).dtype, [&]<class F>(F*) { return gemm_typed<F>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(gemm, {"gemm", gemm}, {"bias_gradient", bias_gradient})

}  // namespace voltaic
