// ELECTRA's corruption of a batch: choosing the positions to predict and masking them, then putting
// the generator's samples in and labelling what differs. Bit for bit what the CPU chooses.
//
// corruption_mask, in each sequence of length l with e eligible tokens (not cls, sep or mask):
//   k = max(1, min(limit, round_half_even(l * probability in fp32))), at most e, and at most what
//   the sequences before leave of the capacity: a sequence cut by it chooses fewer, later ones none
//   chosen: the k smallest (key, t), key = word t%4 of block t/4 at site, t the flat token
//   a chosen token becomes mask where the uniform of the same word at site + 1 is below
//   replace_probability
// positions ascend, targets are the ids there; unused slots hold position 0 and target -100.
//
// Three launches: how many each sequence wants (a block per sequence, which copies ids to masked),
// where its slots start (one block: a running sum, cut at the capacity), and the choice (a block
// per sequence; empty ones leave at once). The choice is a radix select: the keys are drawn once
// into shared memory (sequences beyond its 4096 tokens draw them anew in every pass), the k-th
// smallest is found byte by byte from counts of the candidates, and since keys are uniform one or
// two of the four bytes settle it. Counts are integers, so their atomic additions are exact, and
// nothing depends on an order. Bytes: 12 per token; about 30 operations per token for Philox. Equal
// keys go by t: among tokens with the last key that is taken, the first ones win.
#include "../native/engine/philox.h"
#include "scan.cuh"

namespace voltaic {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kScanThreads = 256, kScanEach = 4;  // sequences of a thread at a time
constexpr int kHeldKeys = 4096;  // tokens of a sequence whose keys stand in shared memory

struct Mask {
  const int32_t *ids, *offsets, *state;
  int32_t *masked, *positions, *targets, *count;
  int64_t* starts;  // sequences + 1: first what each wants, then where its slots start
  int64_t tokens, sequences, capacity, limit, cls, sep, mask;
  float probability, replace_probability;
  uint32_t site;

  __device__ __forceinline__ bool eligible(int32_t id) const {
    return id != cls && id != sep && id != mask;
  }
  // Offsets that were refused must not lead out of the arrays.
  __device__ __forceinline__ int64_t bound(int64_t i) const {
    const int64_t offset = offsets[i];
    return offset < 0 ? 0 : offset > tokens ? tokens : offset;
  }
};

// length * probability in fp32, to the nearest whole number, ties to even. The product must round
// before anything is taken from it.
__device__ __forceinline__ int64_t rounded_share(int64_t length, float probability) {
  const float product = __fmul_rn(static_cast<float>(length), probability);
  const int64_t below = static_cast<int64_t>(product);
  const float rest = product - static_cast<float>(below);
  return below + (rest > 0.5f || (rest == 0.5f && below % 2 == 1));
}

__global__ void __launch_bounds__(kThreads) wants_kernel(Mask call, IndexCheck check) {
  __shared__ int room[kWarps];
  const int64_t sequence = blockIdx.x;
  const int64_t begin = call.bound(sequence), end = call.bound(sequence + 1);
  if (threadIdx.x == 0) {
    if (sequence == 0) in_range(check, 0, call.offsets[0], 0, 0);
    if (sequence + 1 < call.sequences) {
      in_range(check, sequence + 1, call.offsets[sequence + 1], call.offsets[sequence],
               call.tokens);
    } else {
      in_range(check, sequence + 1, call.offsets[sequence + 1], call.tokens, call.tokens);
    }
  }
  if (begin >= end) {
    if (threadIdx.x == 0) call.starts[sequence] = 0;
    return;
  }
  int eligible = 0;
  for (int64_t t = begin + threadIdx.x; t < end; t += kThreads) {
    const int32_t id = call.ids[t];
    eligible += call.eligible(id);
    call.masked[t] = id;
  }
  eligible = block_sum<kThreads>(eligible, room);
  if (threadIdx.x != 0) return;
  int64_t wanted = rounded_share(end - begin, call.probability);
  wanted = wanted < call.limit ? wanted : call.limit;
  wanted = wanted < 1 ? 1 : wanted;
  call.starts[sequence] = wanted < eligible ? wanted : eligible;
}

// Wants become starts, which the capacity cuts.
__global__ void __launch_bounds__(kScanThreads) starts_kernel(Mask call, IndexCheck check) {
  __shared__ int64_t room[kScanThreads / 32];
  int64_t carried = 0;
  for (int64_t first = 0; first < call.sequences; first += kScanThreads * kScanEach) {
    const int64_t sequence = first + threadIdx.x * kScanEach;
    int64_t wanted[kScanEach], sum = 0, total;
#pragma unroll
    for (int i = 0; i < kScanEach; i++) {
      wanted[i] = sequence + i < call.sequences ? call.starts[sequence + i] : 0;
      sum += wanted[i];
    }
    int64_t start = carried + block_sum_before<kScanThreads>(sum, room, &total);
#pragma unroll
    for (int i = 0; i < kScanEach; i++) {
      if (sequence + i < call.sequences)
        call.starts[sequence + i] = start < call.capacity ? start : call.capacity;
      start += wanted[i];
    }
    carried += total;
  }
  if (threadIdx.x != 0) return;
  carried = carried < call.capacity ? carried : call.capacity;
  call.starts[call.sequences] = carried;
  *call.count = static_cast<int32_t>(carried);
  if (call.sequences == 0) in_range(check, 0, call.tokens, 0, 0);
}

// Token t's word of its block.
__device__ __forceinline__ uint32_t word_of(const int32_t* state, uint32_t site, int64_t t) {
  const voltaic_random4 block = voltaic_random_block(state, site, static_cast<uint64_t>(t) / 4);
  const uint32_t low = t % 2 != 0 ? block.word[1] : block.word[0];
  const uint32_t high = t % 2 != 0 ? block.word[3] : block.word[2];
  return t % 4 >= 2 ? high : low;
}

// The words of a sequence's tokens: from shared memory, or drawn again.
struct Keys {
  const uint32_t* held;  // null: draw
  const int32_t* state;
  uint32_t site;
  int64_t first;  // the token of held[0]

  __device__ __forceinline__ uint32_t operator()(int64_t t) const {
    if (held != nullptr) return held[t - first];
    return word_of(state, site, t);
  }
};

// What is taken: every key below `last`, and of its own tokens the first `ties`.
struct Choice {
  uint32_t last;
  int64_t ties;
};

// The k smallest of the sequence's eligible keys, k at least 1 and at most as many as there are.
__device__ __forceinline__ Choice select_keys(const Mask& call, const Keys& keys, int64_t begin,
                                              int64_t end, int64_t k, int* counts, int64_t* found) {
  uint32_t prefix = 0;
  for (int shift = 24;; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) counts[i] = 0;
    __syncthreads();
    for (int64_t t = begin + threadIdx.x; t < end; t += kThreads) {
      if (!call.eligible(call.ids[t])) continue;
      const uint32_t key = keys(t);
      if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8))
        atomicAdd(&counts[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {  // a lane has eight of the counts
      int own[8], sum = 0;
      for (int i = 0; i < 8; i++) sum += own[i] = counts[threadIdx.x * 8 + i];
      int64_t before = warp_running_sum(sum) - sum;
      for (int i = 0; i < 8; i++) {
        if (before < k && k <= before + own[i]) {
          found[0] = threadIdx.x * 8 + i;
          found[1] = k - before;
          found[2] = own[i];
        }
        before += own[i];
      }
    }
    __syncthreads();
    prefix |= static_cast<uint32_t>(found[0]) << shift;
    k = found[1];
    if (k == found[2]) return {prefix | ((1u << shift) - 1), k};  // all that begin like this
    if (shift == 0) return {prefix, k};
  }
}

__global__ void __launch_bounds__(kThreads) choose_kernel(Mask call) {
  DYNAMIC_SHARED(uint32_t, held);
  __shared__ int counts[256], below_of_warp[kWarps], equal_of_warp[kWarps];
  __shared__ int64_t found[3];
  const int64_t sequence = blockIdx.x, unused = call.starts[call.sequences];
  for (int64_t slot = unused + sequence * kThreads + threadIdx.x; slot < call.capacity;
       slot += int64_t{gridDim.x} * kThreads) {
    call.positions[slot] = 0;
    call.targets[slot] = -100;
  }
  if (sequence >= call.sequences) return;
  const int64_t slot = call.starts[sequence];
  const int64_t k = call.starts[sequence + 1] - slot;
  if (k <= 0) return;
  const int64_t begin = call.bound(sequence), end = call.bound(sequence + 1);
  Keys keys = {nullptr, call.state, call.site, begin / 4 * 4};
  if (end - begin <= kHeldKeys) {
    for (int64_t block = begin / 4 + threadIdx.x; block * 4 < end; block += kThreads) {
      const voltaic_random4 words =
          voltaic_random_block(call.state, call.site, static_cast<uint64_t>(block));
#pragma unroll
      for (int i = 0; i < 4; i++) held[block * 4 - keys.first + i] = words.word[i];
    }
    keys.held = held;
    __syncthreads();
  }
  const Choice choice = select_keys(call, keys, begin, end, k, counts, found);

  // In ascending order of t, a block's width at a time: a token's slot is the number taken before
  // it.
  const int warp = threadIdx.x / 32;
  const unsigned lanes_before = (1u << threadIdx.x % 32) - 1;
  int64_t below_before = 0, equal_before = 0;
  for (int64_t first = begin; first < end; first += kThreads) {
    const int64_t t = first + threadIdx.x;
    const int32_t id = t < end ? call.ids[t] : 0;
    const bool candidate = t < end && call.eligible(id);
    const uint32_t key = candidate ? keys(t) : 0;
    const bool below = candidate && key < choice.last, equal = candidate && key == choice.last;
    const unsigned below_lanes = __ballot_sync(kAllLanes, below);
    const unsigned equal_lanes = __ballot_sync(kAllLanes, equal);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
      below_of_warp[warp] = __popc(below_lanes);
      equal_of_warp[warp] = __popc(equal_lanes);
    }
    __syncthreads();
    int64_t below_here = below_before + __popc(below_lanes & lanes_before);
    int64_t equal_here = equal_before + __popc(equal_lanes & lanes_before);
#pragma unroll
    for (int i = 0; i < kWarps; i++) {
      if (i < warp) {
        below_here += below_of_warp[i];
        equal_here += equal_of_warp[i];
      }
      below_before += below_of_warp[i];
      equal_before += equal_of_warp[i];
    }
    if (!below && !(equal && equal_here < choice.ties)) continue;
    const int64_t place = below_here + (equal_here < choice.ties ? equal_here : choice.ties);
    if (place >= k) continue;  // with refused offsets alone
    const int64_t to = slot + place;
    call.positions[to] = static_cast<int32_t>(t);
    call.targets[to] = id;
    if (voltaic_uniform(word_of(call.state, call.site + 1, t)) < call.replace_probability)
      call.masked[t] = static_cast<int32_t>(call.mask);
  }
}

voltaic_status corruption_mask(const voltaic_call* call) {
  const double probability = attribute(call, 0), replace_probability = attribute(call, 1);
  if (!(probability >= 0 && probability <= 1 && replace_probability >= 0 &&
        replace_probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "corruption_mask: probability is %g and replace_probability %g, expected numbers "
                "from 0 to 1",
                probability, replace_probability);
  if (tensor(call, 1).elements == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "offsets are empty; expected one more than there are sequences, the first 0");
  Mask mask = {};
  mask.ids = data<const int32_t>(call, 0);
  mask.offsets = data<const int32_t>(call, 1);
  mask.state = data<const int32_t>(call, 2);
  mask.masked = data<int32_t>(call, 3);
  mask.positions = data<int32_t>(call, 4);
  mask.targets = data<int32_t>(call, 5);
  mask.count = data<int32_t>(call, 6);
  mask.tokens = tensor(call, 0).elements;
  mask.sequences = tensor(call, 1).elements - 1;
  mask.capacity = tensor(call, 4).elements;
  mask.limit = whole(call, 2);
  mask.cls = whole(call, 3);
  mask.sep = whole(call, 4);
  mask.mask = whole(call, 5);
  mask.probability = static_cast<float>(probability);
  mask.replace_probability = static_cast<float>(replace_probability);
  mask.site = static_cast<uint32_t>(whole(call, 6));
  mask.starts = static_cast<int64_t*>(
      cuda::scratch(call, static_cast<size_t>(mask.sequences + 1) * sizeof(int64_t)));
  if (mask.starts == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;

  const IndexCheck check = index_check(call, "corruption_mask: offsets");
  const unsigned blocks = static_cast<unsigned>(larger(mask.sequences, 1));
  voltaic_status status = VOLTAIC_OK;
  if (mask.sequences > 0) status = launch(call, wants_kernel, blocks, kThreads, 0, mask, check);
  if (status == VOLTAIC_OK) status = launch(call, starts_kernel, 1, kScanThreads, 0, mask, check);
  if (status == VOLTAIC_OK)
    status =
        launch(call, choose_kernel, blocks, kThreads, (kHeldKeys + 4) * sizeof(uint32_t), mask);
  return status;
}

// ---- corruption_replace: replaced is ids with samples at the first `count` positions, the last of
// equal positions winning; labels say what differs. labels first hold each token's winning slot:
// -1, then by an integer maximum, which has no order. 20 bytes per token.
struct Replace {
  const int32_t *ids, *positions, *samples, *count;
  int32_t *replaced, *labels;
  int64_t tokens, capacity;
};

__global__ void __launch_bounds__(kThreads)
    winners_kernel(Replace call, IndexCheck count_check, IndexCheck position_check) {
  const int64_t slot = blockIdx.x * int64_t{kThreads} + threadIdx.x, count = *call.count;
  if (slot == 0) in_range(count_check, 0, count, 0, call.capacity);
  if (slot >= count || slot >= call.capacity) return;
  const int64_t t = call.positions[slot];
  if (in_range(position_check, slot, t, 0, call.tokens - 1))
    atomicMax(&call.labels[t], static_cast<int32_t>(slot));
}

__global__ void __launch_bounds__(kThreads) replace_kernel(Replace call) {
  const int64_t t = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (t >= call.tokens) return;
  const int32_t winner = call.labels[t], id = call.ids[t];
  const int32_t now = winner < 0 ? id : call.samples[winner];
  call.replaced[t] = now;
  call.labels[t] = now != id;
}

voltaic_status corruption_replace(const voltaic_call* call) {
  const Replace replace = {data<const int32_t>(call, 0), data<const int32_t>(call, 1),
                           data<const int32_t>(call, 2), data<const int32_t>(call, 3),
                           data<int32_t>(call, 4),       data<int32_t>(call, 5),
                           tensor(call, 0).elements,     tensor(call, 1).elements};
  voltaic_status status = VOLTAIC_OK;
  if (replace.tokens > 0)
    status = fill_bytes(call, replace.labels, 0xFF,
                        static_cast<size_t>(replace.tokens) * sizeof(int32_t));
  if (status != VOLTAIC_OK) return status;
  status = launch(call, winners_kernel, blocks_for(larger(replace.capacity, 1), kThreads), kThreads,
                  0, replace, index_check(call, "corruption_replace: count"),
                  index_check(call, "corruption_replace: positions"));
  if (status == VOLTAIC_OK && replace.tokens > 0)
    status =
        launch(call, replace_kernel, blocks_for(replace.tokens, kThreads), kThreads, 0, replace);
  return status;
}

}  // namespace

VOLTAIC_CUDA_KERNELS(corruption, {"corruption_mask", corruption_mask},
                     {"corruption_replace", corruption_replace})

}  // namespace voltaic
