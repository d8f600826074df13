// The discriminator's head on its last hidden states: one logit a token, sigmoid cross-entropy, and
// its metrics.
//
//   logit x = hidden . weight + bias
//   loss = mean over labels y != -100 of max(x, 0) - x y + log(1 + e^-|x|)
//   g = loss_gradient / valid * (sigmoid(x) - y), 0 where ignored
//   hidden_gradient = g weight, weight_gradient += sum g hidden, bias_gradient += sum g
//
//   hidden [tokens, width], weight [1, width], logits [tokens], metrics [4 + 2048 + 2048]
//
// Forward reads hidden once (2 FLOPs an element), backward reads and writes it once (3 FLOPs): both
// run at memory speed. Weight gradients: each task sums the rows of a fixed block of 256 tokens,
// and the blocks are added in order, so the bits do not depend on the number of threads. Losses are
// added in token order, in double precision.
#include "kernel.h"
#include "simd_math.h"

namespace voltaic {
namespace {

constexpr int64_t kTokenBlock = 256;
constexpr int64_t kBins = 2048;
constexpr int32_t kIgnored = -100;

// Four sums in turn hide the latency of fma; the order depends on the width alone.
template <class T>
VOLTAIC_INLINE float dot(const T* a, const float* b, int64_t width) {
  vfloat sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= width; i += 4 * kWidth)
    for (int j = 0; j < 4; j++)
      sums[j] = fma(load(a + i + j * kWidth), load(b + i + j * kWidth), sums[j]);
  for (; i < width; i += kWidth)
    sums[0] = fma(load_partial(a + i, width - i), load_partial(b + i, width - i), sums[0]);
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

voltaic_status check_labels(const voltaic_call* call, const int32_t* labels, int64_t tokens) {
  for (int64_t t = 0; t < tokens; t++)
    if (labels[t] != 0 && labels[t] != 1 && labels[t] != kIgnored)
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "the label of token %lld is %d; expected 0, 1 or -100", (long long)t, labels[t]);
  return VOLTAIC_OK;
}

// Bin of a logit: 64 to the unit over [-16, 16), ends clamped; NaN counts as lowest.
VOLTAIC_INLINE int64_t bin_of(float logit) {
  const float place = (logit + 16.0f) * 64.0f;
  if (!(place > 0.0f)) return 0;
  return place >= (float)(kBins - 1) ? kBins - 1 : (int64_t)place;
}

// tensors: hidden, weight, bias, labels, logits, loss, valid, metrics?
voltaic_status discriminator_head_forward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const float *weight = data<float>(call, 1), bias = *data<float>(call, 2);
  const int32_t* labels = data<int32_t>(call, 3);
  float* logits = data<float>(call, 4);
  const voltaic_status status = check_labels(call, labels, tokens);
  if (status != VOLTAIC_OK) return status;
  float* losses = (float*)thread_scratch(0, (size_t)(tokens + kWidth) * sizeof(float));
  if (losses == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "no memory for the losses of %lld tokens",
                (long long)tokens);
  with_float(tensor(call, 0).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const T* hidden = data<T>(call, 0);
    parallel_ranges(tokens, kTokenBlock, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++)
        logits[t] = dot(hidden + t * width, weight, width) + bias;
      for (int64_t t = begin; t < end; t += kWidth) {
        const vfloat x = load_partial(logits + t, end - t);
        const vfloat positive = select(x < 0.0f, splat(0.0f), x);  // NaN stays
        float label[kWidth] = {};
        for (int l = 0; l < kWidth && t + l < end; l++) label[l] = labels[t + l] == 1 ? 1.0f : 0.0f;
        store_partial(losses + t, positive - x * load(label) + vsoftplus_negative_abs(x), end - t);
      }
    });
    return VOLTAIC_OK;
  });

  double sum = 0;
  int32_t valid = 0;
  for (int64_t t = 0; t < tokens; t++) {
    if (labels[t] == kIgnored) continue;
    sum += (double)losses[t];
    valid++;
  }
  *data<float>(call, 5) = valid > 0 ? (float)(sum / valid) : 0.0f;
  *data<int32_t>(call, 6) = valid;
  if (!present(call, 7)) return VOLTAIC_OK;
  int32_t* metrics = data<int32_t>(call, 7);
  for (int64_t t = 0; t < tokens; t++) {
    if (labels[t] == kIgnored) continue;
    const bool predicted = logits[t] > 0.0f, replaced = labels[t] == 1;
    metrics[predicted ? (replaced ? 0 : 1) : (replaced ? 3 : 2)]++;
    metrics[4 + (replaced ? 0 : kBins) + bin_of(logits[t])]++;
  }
  return VOLTAIC_OK;
}

// The rows of one block: hidden_gradient, and the block's sums for weight (width numbers) and bias
// (the next one).
template <class T>
void backward_block(const T* hidden, const float* weight, const int32_t* labels,
                    const float* logits, float scale, int64_t tokens, int64_t width,
                    T* hidden_gradient, float* sums) {
  float gradients[kTokenBlock];
  for (int64_t t = 0; t < tokens; t += kWidth) {
    float label[kWidth] = {}, counted[kWidth] = {};
    for (int l = 0; l < kWidth && t + l < tokens; l++) {
      label[l] = labels[t + l] == 1 ? 1.0f : 0.0f;
      counted[l] = labels[t + l] == kIgnored ? 0.0f : 1.0f;
    }
    const vfloat g = (vsigmoid(load_partial(logits + t, tokens - t)) - load(label)) * scale;
    store(gradients + t, select(load(counted) != 0.0f, g, splat(0.0f)));
  }
  vfloat total = {};
  for (int64_t t = 0; t < tokens; t++) total[0] += gradients[t];
  sums[width] = total[0];
  // Columns outermost: a vector of weights and of sums stays in registers for all rows of the
  // block.
  int64_t column = 0;
  for (; column + 4 * kWidth <= width; column += 4 * kWidth) {
    vfloat w[4], sum[4] = {};
    for (int j = 0; j < 4; j++) w[j] = load(weight + column + j * kWidth);
    for (int64_t t = 0; t < tokens; t++) {
      const vfloat g = splat(gradients[t]);
      for (int j = 0; j < 4; j++) {
        const int64_t at = t * width + column + j * kWidth;
        sum[j] = fma(g, load(hidden + at), sum[j]);
        store(hidden_gradient + at, g * w[j]);
      }
    }
    for (int j = 0; j < 4; j++) store(sums + column + j * kWidth, sum[j]);
  }
  for (; column < width; column += kWidth) {
    const vfloat w = load_partial(weight + column, width - column);
    vfloat sum = {};
    for (int64_t t = 0; t < tokens; t++) {
      const vfloat g = splat(gradients[t]);
      sum = fma(g, load_partial(hidden + t * width + column, width - column), sum);
      store_partial(hidden_gradient + t * width + column, g * w, width - column);
    }
    store_partial(sums + column, sum, width - column);
  }
}

// tensors: loss_gradient, hidden, weight, labels, logits, valid, hidden_gradient, weight_gradient,
// bias_gradient
voltaic_status discriminator_head_backward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 1).shape[0], width = tensor(call, 1).shape[1];
  const float* weight = data<float>(call, 2);
  const int32_t* labels = data<int32_t>(call, 3);
  const float* logits = data<float>(call, 4);
  const int32_t valid = *data<int32_t>(call, 5);
  const float scale = valid > 0 ? *data<float>(call, 0) / (float)valid : 0.0f;
  float *weight_gradient = data<float>(call, 7), *bias_gradient = data<float>(call, 8);
  const voltaic_status status = check_labels(call, labels, tokens);
  if (status != VOLTAIC_OK) return status;
  const int64_t blocks = divide_up(tokens, kTokenBlock), stride = width + 1;
  float* sums = (float*)thread_scratch(0, (size_t)(larger(blocks, 1) * stride) * sizeof(float));
  if (sums == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY,
                "no memory for the sums of %lld blocks of tokens", (long long)blocks);
  with_float(tensor(call, 1).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    const T* hidden = data<T>(call, 1);
    T* hidden_gradient = data<T>(call, 6);
    parallel_for(blocks, [&](int64_t block) {
      const int64_t first = block * kTokenBlock;
      backward_block(hidden + first * width, weight, labels + first, logits + first, scale,
                     smaller(kTokenBlock, tokens - first), width, hidden_gradient + first * width,
                     sums + block * stride);
    });
    return VOLTAIC_OK;
  });
  for (int64_t block = 0; block < blocks; block++) {
    for (int64_t i = 0; i < width; i += kWidth)
      store_partial(weight_gradient + i,
                    load_partial(weight_gradient + i, width - i) +
                        load_partial(sums + block * stride + i, width - i),
                    width - i);
    bias_gradient[0] += sums[block * stride + width];
  }
  return VOLTAIC_OK;
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(discriminator_head,
                {"discriminator_head_forward", voltaic::discriminator_head_forward},
                {"discriminator_head_backward", voltaic::discriminator_head_backward})
