// Attention over ragged sequences, fused: the score matrix never reaches memory. For each sequence
// and head
//
//   context = dropout(softmax(scale Q K^T)) V
//   qkv [tokens, 3, heads, size] -> context [tokens, heads, size], log_sum_exp [heads, tokens]
//   (natural)
//
// and backward, with P = exp(scale Q K^T - log_sum_exp), M the dropout mask times 1 / (1 -
// probability) and delta = rowsum(context_gradient * context):
//
//   V gradient = (P M)^T context_gradient     S = P (M (context_gradient V^T) - delta)
//   Q gradient = scale S K                    K gradient = scale S^T Q
//
// FLOPs of a sequence of n tokens and a head: 4 n^2 size forward, 10 n^2 size backward (14 where
// the scores are computed twice), and n^2 exponentials. Bytes: forward reads 3 and writes 1 n x
// size elements, backward reads 5 and writes 3. In bf16 that is n / 2 and 0.6 n FLOPs a byte: at
// 128 tokens memory rules, at 512 arithmetic.
//
// Paths: bf16 on sm_80 and later multiplies on tensor cores (attention_forward.cuh,
// attention_backward_keys.cuh and _queries.cuh), heads padded to 64 or 128 inside; everything else
// is plain fp32 (attention_general.cuh, attention_general_backward.cuh). `longest` picks kernels
// made for short sequences; where it is not above 0 it stands for all tokens. Shared memory stays
// within the 99 KB that a block of sm_86, 89 and 120 has (plain path: the 64 KB of sm_75). No sum
// runs across blocks or depends on the batch: the same bits on every run.
#include "attention_backward_queries.cuh"
#include "attention_forward.cuh"
#include "attention_general_backward.cuh"

namespace voltaic {
namespace {

// Reads and checks what forward and backward have in common. Offsets are checked by the kernels.
voltaic_status attention_arguments(const voltaic_call* call, int qkv, int offsets, int state,
                                   const char* what, Attention& a) {
  const voltaic_tensor& x = tensor(call, qkv);
  const double probability = attribute(call, 1), longest = attribute(call, 3);
  if (x.shape[3] < 1 || x.shape[3] > 128)
    return fail(call, VOLTAIC_ERROR_SHAPE, "the head size is %lld; expected 1 to 128",
                static_cast<long long>(x.shape[3]));
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the dropout probability is %g; expected 0 to 1",
                probability);
  if (tensor(call, offsets).elements == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "offsets are empty; expected one more than there are sequences, the first 0");
  a = {};
  a.tokens = x.shape[0];
  if (a.tokens > INT32_MAX)  // which no offset reaches
    return fail(call, VOLTAIC_ERROR_SHAPE, "attention over %lld tokens; expected at most %d",
                static_cast<long long>(a.tokens), INT32_MAX);
  a.heads = static_cast<int32_t>(x.shape[2]);
  a.size = static_cast<int32_t>(x.shape[3]);
  a.sequences = static_cast<int32_t>(tensor(call, offsets).elements - 1);
  a.offsets = data<const int32_t>(call, offsets);
  a.check = index_check(call, what);
  a.scale = static_cast<float>(attribute(call, 0));
  a.longest = static_cast<int32_t>(longest > 0 && longest < static_cast<double>(a.tokens)
                                       ? longest
                                       : static_cast<double>(a.tokens));
  const uint32_t threshold = voltaic_dropout_threshold(probability);
  a.dropout = {nullptr, static_cast<uint32_t>(whole(call, 2)), threshold, 1};
  if (threshold == 0) return VOLTAIC_OK;
  if (!present(call, state))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "dropout of %g needs the random state; none came",
                probability);
  a.dropout.state = data<const int32_t>(call, state);
  // At 65536 nothing is kept; the kernels compare 16 bits, and the one number left is scaled by 0.
  a.dropout.threshold = threshold < 65535 ? threshold : 65535;
  a.dropout.scale = threshold < 65536 ? 65536.0f / static_cast<float>(65536 - threshold) : 0.0f;
  // The block numbers of philox.h hold 4096 tiles of 16 a side.
  a.longest = a.longest < 65536 ? a.longest : 65536;
  return VOLTAIC_OK;
}

// Whether rows of a head start at multiples of `elements` elements in arrays aligned to 16 bytes.
bool has_vectors(const Attention& a, int elements, const void* x, const void* y = nullptr,
                 const void* z = nullptr, const void* w = nullptr) {
  return a.size % elements == 0 && aligned_16(x, y, z, w);
}

bool on_tensor_cores(const voltaic_call* call, int qkv) {
  return tensor(call, qkv).dtype == VOLTAIC_BFLOAT16 && call->stream->architecture >= 80;
}

// tensors: qkv, offsets, state?, context, log_sum_exp; attributes: scale, probability, site,
// longest
voltaic_status attention_forward(const voltaic_call* call) {
  Attention a = {};
  const voltaic_status status = attention_arguments(call, 0, 1, 2, "attention_forward: offsets", a);
  if (status != VOLTAIC_OK) return status;
  float* const log_sum_exp = data<float>(call, 4);
  if (on_tensor_cores(call, 0)) {
    const bfloat16* const qkv = data<const bfloat16>(call, 0);
    bfloat16* const context = data<bfloat16>(call, 3);
    a.vectors = has_vectors(a, 8, qkv, context);
    if (a.size > 64)
      return forward_on_tensor_cores<128, 4, 1, 2, false>(call, a, qkv, context, log_sum_exp);
    if (a.longest <= 64)
      return forward_on_tensor_cores<64, 4, 1, 4, true>(call, a, qkv, context, log_sum_exp);
    if (a.longest <= 128)
      return forward_on_tensor_cores<64, 8, 1, 2, true>(call, a, qkv, context, log_sum_exp);
    return forward_on_tensor_cores<64, 4, 2, 2, false>(call, a, qkv, context, log_sum_exp);
  }
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    const T* const qkv = data<const T>(call, 0);
    T* const context = data<T>(call, 3);
    a.vectors = has_vectors(a, 4, qkv, context);
    if constexpr (sizeof(T) == 4) {  // fp32 of the usual head: fewer registers
      if (a.size <= 64) return plain_forward<T, 2>(call, a, qkv, context, log_sum_exp);
    }
    return plain_forward<T, 4>(call, a, qkv, context, log_sum_exp);
  });
}

// tensors: context_gradient, qkv, offsets, context, log_sum_exp, state?, qkv_gradient; attributes
// as forward
voltaic_status attention_backward(const voltaic_call* call) {
  Attention a = {};
  const voltaic_status checked =
      attention_arguments(call, 1, 2, 5, "attention_backward: offsets", a);
  if (checked != VOLTAIC_OK) return checked;
  const float* const log_sum_exp = data<const float>(call, 4);
  const auto with_type = [&]<class T>(T*) {
    const T *gradient = data<const T>(call, 0), *qkv = data<const T>(call, 1),
            *context = data<const T>(call, 3);
    T* const qkv_gradient = data<T>(call, 6);
    const bool tensor_cores = on_tensor_cores(call, 1);
    a.vectors = has_vectors(a, tensor_cores ? 8 : 4, gradient, qkv, context, qkv_gradient);
    if constexpr (sizeof(T) == 2) {
      const AttentionBackward arrays = {gradient, qkv, context, log_sum_exp, nullptr, qkv_gradient};
      if (tensor_cores && a.size <= 64 && a.longest <= 64)
        return backward_whole<1>(call, a, arrays);
      if (tensor_cores && a.size <= 64 && a.longest <= 128)
        return backward_whole<2>(call, a, arrays);
    }
    voltaic_status status = VOLTAIC_OK;
    const float* delta = nullptr;
    if (a.tokens > 0 && a.heads > 0) {
      delta = queue_delta(call, a, gradient, context, &status);
      if (status != VOLTAIC_OK) return status;
    }
    if constexpr (sizeof(T) == 2) {
      const AttentionBackward arrays = {gradient, qkv, context, log_sum_exp, delta, qkv_gradient};
      if (tensor_cores && a.size <= 64) return backward_in_two<64, 2, 64>(call, a, arrays);
      if (tensor_cores) return backward_in_two<128, 1, 32>(call, a, arrays);
    }
    const PlainBackward<T> arrays = {gradient, qkv, log_sum_exp, delta, qkv_gradient};
    if constexpr (sizeof(T) == 4) {
      if (a.size <= 64) return plain_backward<T, 2>(call, a, arrays);
    }
    return plain_backward<T, 4>(call, a, arrays);
  };
  return with_float(tensor(call, 1).dtype, with_type);
}

}  // namespace

VOLTAIC_CUDA_KERNELS(attention, {"attention_forward", attention_forward},
                     {"attention_backward", attention_backward})

}  // namespace voltaic
