// The discriminator's head on its last hidden states: one logit a token, sigmoid cross-entropy, and
// its metrics.
//
//   logit x = hidden . weight + bias
//   loss = mean over labels y != -100 of max(x, 0) - x y + log(1 + e^-|x|)
//   g = loss_gradient / valid * (sigmoid(x) - y), 0 where ignored
//   hidden_gradient = g weight, weight_gradient += sum g hidden, bias_gradient += sum g
//
// hidden [tokens, width], weight [1, width], logits [tokens], metrics [4 + 2048 + 2048]
//
// Bytes moved: forward reads hidden once (2 FLOPs an element), backward reads it and writes its
// gradient once (3 FLOPs). Both load and store 16 bytes at once, one element where rows do not
// begin at 16 bytes, and have 64 bytes on their way in each thread.
//
// Forward: a warp has four tokens at once, so that a weight is fetched once for four products; the
// last steps of a block's 32 tokens are one warp's, a token a lane. Backward: a warp keeps 32
// chunks of columns (of weight and of its gradient) in registers and walks tokens, four at once;
// the eight warps of a block take the same columns and every eighth token. Weight gradients are
// added within a warp, over the warps, and over the blocks by a second kernel. All these orders,
// and that of the losses, follow from the shapes alone. The histogram is whole numbers, which
// atomic additions leave exact.
#include "activation_functions.cuh"
#include "loss_mean.cuh"

namespace voltaic {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTokens = 4;  // a warp's at once
constexpr int kBlockTokens = kWarps * kTokens;
constexpr int kBins = 2048;

enum Outcome { kTruePositive, kFalsePositive, kTrueNegative, kFalseNegative };

// Bin of a logit: 64 to the unit over [-16, 16), ends clamped; NaN counts as lowest.
__device__ __forceinline__ int bin_of(float logit) {
  const float place = (logit + 16.0f) * 64.0f;
  if (!(place > 0.0f)) return 0;
  return place >= static_cast<float>(kBins - 1) ? kBins - 1 : static_cast<int>(place);
}

// The label of a token; one that is none is reported and then ignored.
__device__ __forceinline__ int32_t label_of(const int32_t* labels, int64_t token,
                                            const IndexCheck& check) {
  const int32_t label = labels[token];
  return label == kIgnored || in_range(check, token, label, 0, 1) ? label : kIgnored;
}

// Block b has tokens 32 b to 32 b + 31. counts of its part: one for each Outcome.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    discriminator_logits(const T* __restrict__ hidden, const float* __restrict__ weight,
                         const float* bias, const int32_t* labels, float* logits, int32_t* metrics,
                         LossPart* parts, int64_t tokens, int width, IndexCheck check) {
  __shared__ float products[kBlockTokens];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBlockTokens;
  const T* rows[kTokens];
  float sums[kTokens] = {};
#pragma unroll
  for (int t = 0; t < kTokens; t++) {
    const int64_t token = first + warp * kTokens + t;
    rows[t] = hidden + (token < tokens ? token : tokens - 1) * width;  // behind the end: any
  }
  for (int column = lane * kPack; column < width; column += 32 * kPack) {
    Pack<T, kPack> packs[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; t++) packs[t] = load_pack<T, kPack>(rows[t] + column);
    float weights[kPack];
    constexpr int kWeights = kPack < 4 ? kPack : 4;
#pragma unroll
    for (int i = 0; i < kPack; i += kWeights) {
      const auto pack = load_pack<float, kWeights>(weight + column + i);
#pragma unroll
      for (int j = 0; j < kWeights; j++) weights[i + j] = pack.values[j];
    }
#pragma unroll
    for (int i = 0; i < kPack; i++)
#pragma unroll
      for (int t = 0; t < kTokens; t++)
        sums[t] = fmaf(to_float(packs[t].values[i]), weights[i], sums[t]);
  }
#pragma unroll
  for (int t = 0; t < kTokens; t++) sums[t] = warp_sum(sums[t]);
  if (lane == 0) {
#pragma unroll
    for (int t = 0; t < kTokens; t++) products[warp * kTokens + t] = sums[t];
  }
  __syncthreads();
  if (warp > 0) return;

  const int64_t token = first + lane;
  LossPart part = {};
  if (token < tokens) {
    const float logit = products[lane] + *bias;
    logits[token] = logit;
    const int32_t label = label_of(labels, token, check);
    if (label != kIgnored) {
      const float positive = logit < 0.0f ? 0.0f : logit;  // NaN stays
      part.sum = positive - logit * static_cast<float>(label) + log1pf(expf(-fabsf(logit)));
      const bool replaced = label == 1;
      const int outcome = logit > 0.0f ? (replaced ? kTruePositive : kFalsePositive)
                                       : (replaced ? kFalseNegative : kTrueNegative);
#pragma unroll
      for (int i = 0; i < 4; i++) part.counts[i] = i == outcome;
      if (metrics != nullptr) atomicAdd(metrics + 4 + (replaced ? 0 : kBins) + bin_of(logit), 1);
    }
  }
  part.sum = warp_sum(part.sum);
#pragma unroll
  for (int i = 0; i < 4; i++) part.counts[i] = warp_sum(part.counts[i]);
  if (lane == 0) parts[blockIdx.x] = part;
}

__global__ void __launch_bounds__(kThreads)
    discriminator_mean(const LossPart* parts, int64_t count, float* loss, int32_t* valid,
                       int32_t* metrics) {
  __shared__ LossPart room[kWarps];
  const LossPart total = sum_of_parts(parts, count, room);
  if (threadIdx.x != 0) return;
  *valid = total.counts[0] + total.counts[1] + total.counts[2] + total.counts[3];
  *loss = mean_loss(total.sum, *valid);
  if (metrics == nullptr) return;
#pragma unroll
  for (int i = 0; i < 4; i++) metrics[i] += total.counts[i];
}

// Block (b, s): columns of slab s (32 chunks), tokens b tokens_of_block on. sums [blocks, width +
// 1]: the block's share of weight_gradient, and behind it of bias_gradient.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads, kPack > 4 ? 3 : 4)
    discriminator_gradients(const float* loss_gradient, const T* hidden, const float* weight,
                            const int32_t* labels, const float* logits, const int32_t* valid,
                            T* hidden_gradient, float* sums, int64_t tokens,
                            int64_t tokens_of_block, int width, IndexCheck check) {
  constexpr int kSlab = 32 * kPack;
  __shared__ float gradients[kThreads];
  __shared__ float of_warps[kWarps][kSlab];
  __shared__ float room[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int slab = blockIdx.y * kSlab, column = slab + lane * kPack;
  const float scale = *valid > 0 ? *loss_gradient / static_cast<float>(*valid) : 0.0f;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * tokens_of_block;
  const int64_t end =
      min(static_cast<long long>(begin + tokens_of_block), static_cast<long long>(tokens));
  float weights[kPack], weight_sums[kPack] = {}, bias_sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPack; i++) weights[i] = column < width ? weight[column + i] : 0.0f;

  for (int64_t tile = begin; tile < end; tile += kThreads) {
    if (tile > begin) __syncthreads();  // the last tile's gradients have been read
    const int64_t own = tile + threadIdx.x;
    float gradient = 0.0f;
    if (own < end) {
      const int32_t label = label_of(labels, own, check);
      if (label != kIgnored) gradient = (sigmoid(logits[own]) - static_cast<float>(label)) * scale;
    }
    gradients[threadIdx.x] = gradient;
    bias_sum += gradient;
    __syncthreads();
    if (column >= width) continue;
    const int count = static_cast<int>(end - tile < kThreads ? end - tile : kThreads);
    const int64_t step = static_cast<int64_t>(kWarps) * width;  // to this warp's next token
    int64_t at = (tile + warp) * width + column;
    for (int t = warp; t < count; t += kBlockTokens, at += kTokens * step) {
      Pack<T, kPack> packs[kTokens];
#pragma unroll
      for (int j = 0; j < kTokens; j++)
        if (t + j * kWarps < count) packs[j] = load_pack<T, kPack>(hidden + at + j * step);
#pragma unroll
      for (int j = 0; j < kTokens; j++) {
        if (t + j * kWarps >= count) continue;
        const float g = gradients[t + j * kWarps];
#pragma unroll
        for (int i = 0; i < kPack; i++) {
          weight_sums[i] = fmaf(g, to_float(packs[j].values[i]), weight_sums[i]);
          packs[j].values[i] = from_float<T>(g * weights[i]);
        }
        store_pack(hidden_gradient + at + j * step, packs[j]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kPack; i++) of_warps[warp][lane * kPack + i] = weight_sums[i];
  const float bias = block_sum<kThreads>(bias_sum, room);  // also the barrier for of_warps
  float* const to = sums + static_cast<int64_t>(blockIdx.x) * (width + 1);
  for (int i = threadIdx.x; i < kSlab && slab + i < width; i += kThreads) {
    float sum = of_warps[0][i];
#pragma unroll
    for (int w = 1; w < kWarps; w++) sum += of_warps[w][i];
    to[slab + i] = sum;
  }
  if (blockIdx.y == 0 && threadIdx.x == 0) to[width] = bias;
}

// A column a lane, every 16th block a warp.
constexpr int kSumWarps = 16;
__global__ void __launch_bounds__(32 * kSumWarps)
    add_discriminator_sums(const float* __restrict__ sums, int64_t blocks, int width,
                           float* weight_gradient, float* bias_gradient) {
  __shared__ float of_warps[kSumWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int column = blockIdx.x * 32 + lane;
  float sum = 0.0f;
  if (column <= width) {
#pragma unroll 4
    for (int64_t block = warp; block < blocks; block += kSumWarps)
      sum += sums[block * (width + 1) + column];
  }
  of_warps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column > width) return;
#pragma unroll
  for (int w = 1; w < kSumWarps; w++) sum += of_warps[w][lane];
  *(column < width ? weight_gradient + column : bias_gradient) += sum;
}

template <class T, int kPack>
voltaic_status forward(const voltaic_call* call, int64_t tokens, int width, LossPart* parts,
                       int64_t blocks, int32_t* metrics) {
  return launch(call, discriminator_logits<T, kPack>, static_cast<unsigned>(blocks), kThreads, 0,
                data<const T>(call, 0), data<const float>(call, 1), data<const float>(call, 2),
                data<const int32_t>(call, 3), data<float>(call, 4), metrics, parts, tokens, width,
                index_check(call, "discriminator_head: labels"));
}

// tensors: hidden, weight, bias, labels, logits, loss, valid, metrics?
voltaic_status discriminator_head_forward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 0).shape[0], width = tensor(call, 0).shape[1];
  const int64_t blocks = divide_up(tokens, kBlockTokens);
  int32_t* metrics = present(call, 7) ? data<int32_t>(call, 7) : nullptr;
  auto* const parts = static_cast<LossPart*>(
      cuda::scratch(call, static_cast<size_t>(larger(blocks, 1)) * sizeof(LossPart)));
  if (parts == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  voltaic_status status = VOLTAIC_OK;
  if (tokens > 0)
    status = with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
      constexpr int kPack = 16 / sizeof(T);
      return width % kPack == 0 && aligned_16(data<T>(call, 0), data<float>(call, 1))
                 ? forward<T, kPack>(call, tokens, static_cast<int>(width), parts, blocks, metrics)
                 : forward<T, 1>(call, tokens, static_cast<int>(width), parts, blocks, metrics);
    });
  if (status != VOLTAIC_OK) return status;
  return launch(call, discriminator_mean, 1, kThreads, 0, parts, blocks, data<float>(call, 5),
                data<int32_t>(call, 6), metrics);
}

// Blocks of tokens, about 1000 blocks in all where there is that much to do.
struct BackwardPlan {
  int64_t slabs, tokens_of_block, blocks;
};
inline BackwardPlan plan_backward(int64_t tokens, int64_t width, int pack) {
  const int64_t slabs = larger(divide_up(width, 32 * pack), 1);
  const int64_t most = larger(1024 / slabs, 1);
  const int64_t tokens_of_block = divide_up(divide_up(tokens, most), kBlockTokens) * kBlockTokens;
  return {slabs, tokens_of_block, divide_up(tokens, tokens_of_block)};
}

template <class T, int kPack>
voltaic_status backward(const voltaic_call* call, int64_t tokens, int width) {
  const BackwardPlan plan = plan_backward(tokens, width, kPack);
  auto* const sums = static_cast<float*>(
      cuda::scratch(call, static_cast<size_t>(plan.blocks * (width + 1)) * sizeof(float)));
  if (sums == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  const voltaic_status status =
      launch(call, discriminator_gradients<T, kPack>,
             dim3(static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.slabs)), kThreads,
             0, data<const float>(call, 0), data<const T>(call, 1), data<const float>(call, 2),
             data<const int32_t>(call, 3), data<const float>(call, 4), data<const int32_t>(call, 5),
             data<T>(call, 6), sums, tokens, plan.tokens_of_block, width,
             index_check(call, "discriminator_head: labels"));
  if (status != VOLTAIC_OK) return status;
  return launch(call, add_discriminator_sums, static_cast<unsigned>(divide_up(width + 1, 32)),
                32 * kSumWarps, 0, sums, plan.blocks, width, data<float>(call, 7),
                data<float>(call, 8));
}

// tensors: loss_gradient, hidden, weight, labels, logits, valid, hidden_gradient, weight_gradient,
// bias_gradient
voltaic_status discriminator_head_backward(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 1).shape[0], width = tensor(call, 1).shape[1];
  if (tokens == 0) return VOLTAIC_OK;
  return with_float(tensor(call, 1).dtype, [&]<class T>(T*) {
    constexpr int kPack = 16 / sizeof(T);
    return width % kPack == 0 && aligned_16(data<T>(call, 1), data<T>(call, 6))
               ? backward<T, kPack>(call, tokens, static_cast<int>(width))
               : backward<T, 1>(call, tokens, static_cast<int>(width));
  });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(discriminator_head, {"discriminator_head_forward", discriminator_head_forward},
                     {"discriminator_head_backward", discriminator_head_backward})

}  // namespace voltaic
