// gemm: c = alpha * op(a) op(b) + beta * c for each item of a batch, with the epilogues of the
// kernel table, and the column sums of a matrix (bias_gradient).
//
// op(a) is m x k, op(b) k x n, c m x n, row-major, fp32 or bf16 (a and b alike; c has a type of its
// own). 2 m n k FLOPs; at least (m k + k n + 2 m n) elements move. Sums are fp32; alpha, beta, bias
// and activation work on the fp32 sums, and c is rounded once. beta 0 leaves c unread.
//
//   gemm_pack.h      panels for the fp32 microkernel
//   gemm_micro.h     the fp32 microkernel (bf16 too where nothing multiplies it)
//   gemm_amx.h       the bf16 kernel on AMX tiles
//   gemm_dot.h       the bf16 kernel on dots of pairs (AVX512_BF16)
//   gemm_epilogue.h  sums to c
//   gemm_cut.h       sizes of blocks
//   gemm_blocks.h    loops, tasks, packing
//
// gemm_packed takes b's panels as pack_weight made them, with the same bits. Measured (Zen 4, two
// threads, 12 weights in turn), us, gemm against gemm_packed: fp32 32x1024x256 311, 130;
// 32x256x1024 176, 131; 128x1024x256 464, 387; 128x3072x768 3516, 2933; bf16, widened to fp32, 129,
// 108; 124, 115; 394, 366; 3364, 3077. With 1024 rows both take the same within 3 %.
//
// Same bits for any number of threads: tasks are blocks of c, cut from the shape alone; in fp32 an
// element's sum is a chain over k that no other size enters (gemm_micro.h). bias_gradient adds each
// block of rows apart and the blocks in order.
#include "gemm_amx.h"
#include "gemm_blocks.h"
#include "gemm_dot.h"
#include "gemm_micro.h"

namespace voltaic {
namespace {

struct Batch {
  int64_t items, stride_a, stride_b, stride_c;
};

// Items smaller than this run whole, several at once; larger ones one after the other, each on all
// threads.
constexpr double kSmallItemFlops = 4e6;
constexpr int64_t kManyItems = 16;
constexpr double kManyItemFlops = 64e6;

void add_partials(float* bias_gradient, const float* partials, int64_t count, int64_t stride,
                  int64_t n) {
  for (int64_t block = 0; block < count; block++)
    for (int64_t j = 0; j < n; j += kWidth) {
      const int64_t held = smaller(kWidth, n - j);
      store_partial(bias_gradient + j,
                    load_partial(bias_gradient + j, held) + load(partials + block * stride + j),
                    held);
    }
}

template <class Kernel, class F, class G>
voltaic_status multiply_batch(const voltaic_call* call, const Product<F, G>& first,
                              const Batch& batch, float* bias_gradient) {
  const Cut cut = cut_product<Kernel>(first.m, first.n, first.k, first.transpose_a);
  const double flops = 2.0 * first.m * first.n * larger(first.k, 1);
  const bool items_in_tasks =
      batch.items > 1 &&
      (flops <= kSmallItemFlops || (batch.items >= kManyItems && flops <= kManyItemFlops));

  // Column sums of each block of rows; those of a whole batch when its items run side by side.
  const int64_t row_blocks = divide_up(first.m, cut.rows),
                padded_columns = round_up(first.n, cut.columns);
  const int64_t partials = bias_gradient == nullptr ? 0 : row_blocks * padded_columns;
  float* sums = nullptr;
  if (partials > 0) {
    const size_t bytes = partials * (items_in_tasks ? batch.items : 1) * sizeof(float);
    sums = (float*)thread_scratch(3, bytes);
    if (sums == nullptr)
      return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "gemm: no memory for column sums");
    memset(sums, 0, bytes);
  }
  const auto item = [&](int64_t i) {
    Product<F, G> p = first;
    p.a += i * batch.stride_a;
    p.b += i * batch.stride_b;
    p.out.c += i * batch.stride_c;
    if (p.out.saved != nullptr) p.out.saved += i * batch.stride_c;
    return p;
  };

  bool out_of_memory = false;
  if (items_in_tasks) {
    parallel_ranges(batch.items, (int64_t)(1e6 / flops), [&](int64_t begin, int64_t end) {
      Kernel kernel;
      for (int64_t i = begin; i < end; i++)
        if (!multiply_alone(kernel, item(i), cut, sums == nullptr ? nullptr : sums + i * partials,
                            padded_columns))
          __atomic_store_n(&out_of_memory, true, __ATOMIC_RELAXED);
    });
    if (sums != nullptr)
      add_partials(bias_gradient, sums, batch.items * row_blocks, padded_columns, first.n);
  } else {
    for (int64_t i = 0; i < batch.items && !out_of_memory; i++) {
      if (sums != nullptr && i > 0) memset(sums, 0, partials * sizeof(float));
      out_of_memory = !multiply_in_tasks<Kernel>(item(i), cut, sums, padded_columns);
      if (sums != nullptr) add_partials(bias_gradient, sums, row_blocks, padded_columns, first.n);
    }
  }
  if (out_of_memory)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "gemm: no memory to pack panels");
  return VOLTAIC_OK;
}

template <class F>
struct KernelOf {
  using type = FloatKernel;
};
#ifdef VOLTAIC_TILES
template <>
struct KernelOf<bfloat16> {
  using type = TileKernel;
};
#elif defined(VOLTAIC_DOTS)
template <>
struct KernelOf<bfloat16> {
  using type = DotKernel;
};
#endif

// ---- the op

template <class F, class G>
voltaic_status gemm_typed(const voltaic_call* call, bool packed, F*, G*) {
  const int64_t epilogue = whole(call, kEpilogue);
  Product<F, G> p;
  p.m = whole(call, kM);
  p.n = whole(call, kN);
  p.k = whole(call, kK);
  p.transpose_a = attribute(call, kTransposeA) != 0;
  p.transpose_b = attribute(call, kTransposeB) != 0;
  p.a = data<F>(call, kA);
  p.b = packed ? nullptr : data<F>(call, kB);
  p.stored_b = packed ? data<F>(call, kB) : nullptr;
  p.out.kind = epilogue;
  p.out.activation = whole(call, kActivation);
  p.out.n = p.n;
  p.out.alpha = (float)attribute(call, kAlpha);
  p.out.beta = (float)attribute(call, kBeta);
  const bool adds_bias = epilogue == kBias || epilogue == kBiasActivation;
  p.out.bias = adds_bias && present(call, kBiasTensor) ? data<float>(call, kBiasTensor) : nullptr;
  p.out.saved =
      epilogue >= kBiasActivation && present(call, kSaved) ? data<F>(call, kSaved) : nullptr;
  p.out.c = data<G>(call, kC);
  float* bias_gradient = epilogue >= kActivationGradient && present(call, kBiasGradient)
                             ? data<float>(call, kBiasGradient)
                             : nullptr;

  Batch batch{whole(call, kBatch), whole(call, kStrideA), whole(call, kStrideB),
              whole(call, kStrideC)};
  if (batch.items == 0 || p.m == 0 || p.n == 0) return VOLTAIC_OK;
  // Rows against one shared b are one tall product.
  if (batch.items > 1 && !p.transpose_a && batch.stride_b == 0 && batch.stride_a == p.m * p.k &&
      batch.stride_c == p.m * p.n) {
    p.m *= batch.items;
    batch.items = 1;
  }
  return multiply_batch<typename KernelOf<F>::type>(call, p, batch, bias_gradient);
}

voltaic_status multiply_checked(const voltaic_call* call, bool packed) {
  const voltaic_status checked = check_gemm(call);
  if (checked != VOLTAIC_OK) return checked;
  return with_float(tensor(call, kA).dtype, [&](auto* f) {
    return with_float(tensor(call, kC).dtype,
                      [&](auto* g) { return gemm_typed(call, packed, f, g); });
  });
}

voltaic_status gemm(const voltaic_call* call) { return multiply_checked(call, false); }

// ---- weights packed ahead

// Whether tensor `at` of a call can hold the panels of an n x k weight.
voltaic_status check_packed(const voltaic_call* call, const char* op, int at, int n, int k) {
  const int sizes[] = {n, k};
  for (int i : sizes)
    if (!is_size(attribute(call, i)))
      return fail(call, VOLTAIC_ERROR_ARGUMENT, "%s: %s is %g, expected a whole number from 0", op,
                  i == n ? "n" : "k", attribute(call, i));
  // As doubles: free of overflow.
  const double columns = attribute(call, n), depth = attribute(call, k);
  const double most = (columns + kMostPanelColumns) * (depth + kPackedDepthUnit);
  const int64_t elements = tensor(call, at).elements;
  if (most > 4503599627370496.0 || elements < packed_elements(whole(call, n), whole(call, k)))
    return fail(
        call, VOLTAIC_ERROR_SHAPE,
        "%s: packed panels of %lld elements, too few for %g x %g: (n + %lld) times k rounded "
        "up to %lld",
        op, (long long)elements, columns, depth, (long long)kMostPanelColumns,
        (long long)kPackedDepthUnit);
  return VOLTAIC_OK;
}

voltaic_status pack_weight(const voltaic_call* call) {
  enum { kWeight, kPacked };
  enum { kColumns, kDepth, kTransposed };
  const voltaic_status checked = check_packed(call, "pack_weight", kPacked, kColumns, kDepth);
  if (checked != VOLTAIC_OK) return checked;
  const int64_t n = whole(call, kColumns), k = whole(call, kDepth);
  if (tensor(call, kWeight).elements != n * k)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "pack_weight: b holds %lld elements, expected %lld x %lld",
                (long long)tensor(call, kWeight).elements, (long long)n, (long long)k);
  if (n == 0 || k == 0) return VOLTAIC_OK;
  return with_float(tensor(call, kWeight).dtype, [&]<class F>(F*) {
    if (!pack_stored<typename KernelOf<F>::type>(data<const F>(call, kWeight), n, k,
                                                 attribute(call, kTransposed) != 0,
                                                 data<F>(call, kPacked)))
      return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "pack_weight: no memory for a panel");
    return VOLTAIC_OK;
  });
}

voltaic_status gemm_packed(const voltaic_call* call) {
  enum { kRows, kColumns, kDepth, kBetaHere, kEpilogueHere, kActivationHere };
  const voltaic_status checked = check_packed(call, "gemm_packed", kB, kColumns, kDepth);
  if (checked != VOLTAIC_OK) return checked;
  double attributes[kStrideC + 1] = {};
  attributes[kM] = attribute(call, kRows);
  attributes[kN] = attribute(call, kColumns);
  attributes[kK] = attribute(call, kDepth);
  attributes[kAlpha] = attributes[kBatch] = 1;
  attributes[kBeta] = attribute(call, kBetaHere);
  attributes[kEpilogue] = attribute(call, kEpilogueHere);
  attributes[kActivation] = attribute(call, kActivationHere);
  voltaic_call full = *call;
  full.attributes = attributes;
  full.attribute_count = kStrideC + 1;
  return multiply_checked(&full, true);
}

// ---- bias_gradient[j] += sum over rows of gradient[., j]: one read of the gradient, rows in
// blocks of kSumRows.

constexpr int64_t kSumRows = 128, kSumColumns = 512;

template <class F>
voltaic_status bias_gradient_typed(const voltaic_call* call, F*) {
  const int64_t rows = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const F* gradient = data<F>(call, 0);
  if (rows == 0 || width == 0) return VOLTAIC_OK;
  const int64_t row_blocks = divide_up(rows, kSumRows),
                column_blocks = divide_up(width, kSumColumns);
  const int64_t padded = round_up(width, kWidth);
  float* partials = (float*)thread_scratch(0, row_blocks * padded * sizeof(float));
  if (partials == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "bias_gradient: no memory for partial sums");
  parallel_for(row_blocks * column_blocks, [&](int64_t task) {
    const int64_t block = task / column_blocks, column = task % column_blocks * kSumColumns;
    const int64_t end_row = smaller(rows, (block + 1) * kSumRows),
                  end_column = smaller(width, column + kSumColumns);
    float* sums = partials + block * padded;
    for (int64_t j = column; j < end_column; j += kWidth) store(sums + j, vfloat{});
    for (int64_t row = block * kSumRows; row < end_row; row++)
      for (int64_t j = column; j < end_column; j += kWidth)
        store(sums + j, load(sums + j) + load_partial(gradient + row * width + j, end_column - j));
  });
  add_partials(data<float>(call, 1), partials, row_blocks, padded, width);
  return VOLTAIC_OK;
}

voltaic_status bias_gradient(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&](auto* f) { return bias_gradient_typed(call, f); });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(gemm, {"gemm", voltaic::gemm}, {"pack_weight", voltaic::pack_weight},
                {"gemm_packed", voltaic::gemm_packed}, {"bias_gradient", voltaic::bias_gradient})
