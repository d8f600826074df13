// ELECTRA's corruption of a batch: choosing the positions to predict and masking them, then putting
// the generator's samples in and labelling what differs.
//
// corruption_mask, in each sequence of length l with e eligible tokens (not cls, sep or mask):
//   k = max(1, min(limit, round_half_even(l * probability in fp32))), at most e, and at most what
//   the sequences before leave of the capacity: a sequence cut by it chooses fewer, later ones none
//   chosen: the k smallest (key, t), key = word t%4 of block t/4 at site, t the flat token
//   a chosen token becomes mask where the uniform of the same word at site + 1 is below
//   replace_probability
// positions ascend, targets are the ids there; unused slots hold position 0 and target -100.
//
// Bytes: ids read three times, masked written, and 4 per token of keys written and read twice;
// about 30 operations per token for Philox, and a heap of the k smallest keys so far: 40
// microseconds for 32 sequences of 128 on one core (Zen 3). Sequences are independent once the
// prefix sum has placed them; keys are distinct pairs, so which tokens win never depends on the
// order they were met in.
#include "ragged.h"
#include "simd_philox.h"

namespace voltaic {
namespace {

constexpr int64_t kGrain = 4096;  // tokens of a task; a multiple of a block's 4

// The words that serve elements 0 to count - 1.
void draw_words(const int32_t* state, uint32_t site, int64_t count, uint32_t* to) {
  parallel_ranges(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 4 * kWidth) {
      vuint words[4];
      uint32_t flat[4 * kWidth];
      philox_blocks<kForStore>(state, site, (uint64_t)i / 4, words);
      store_in_order(flat, words);
      memcpy(to + i, flat, (size_t)smaller(4 * kWidth, end - i) * 4);
    }
  });
}

// length * probability in fp32, to the nearest whole number, ties to even.
int64_t wanted(int64_t length, float probability) {
  const float product = (float)length * probability;
  const int64_t below = (int64_t)product;
  const float rest = product - (float)below;
  return below + (rest > 0.5f || (rest == 0.5f && below % 2 == 1));
}

// The k smallest pairs so far, the largest at the root.
struct Heap {
  uint64_t* pairs;
  int64_t k, size;

  void offer(uint64_t pair) {
    if (size < k) {
      int64_t at = size++;
      for (; at > 0 && pairs[(at - 1) / 2] < pair; at = (at - 1) / 2)
        pairs[at] = pairs[(at - 1) / 2];
      pairs[at] = pair;
    } else if (pair < pairs[0]) {
      int64_t at = 0;
      for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= k) break;
        if (child + 1 < k && pairs[child + 1] > pairs[child]) child++;
        if (pairs[child] < pair) break;
        pairs[at] = pairs[child];
        at = child;
      }
      pairs[at] = pair;
    }
  }
};

voltaic_status no_scratch(const voltaic_call* call, size_t bytes) {
  return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY,
              "corruption_mask: no memory for %lld bytes of scratch", (long long)bytes);
}

voltaic_status corruption_mask(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 0).elements, sequences = tensor(call, 1).elements - 1;
  const int64_t capacity = tensor(call, 4).elements;
  const int32_t *ids = data<const int32_t>(call, 0), *offsets = data<const int32_t>(call, 1);
  const int32_t* state = data<const int32_t>(call, 2);
  int32_t *masked = data<int32_t>(call, 3), *positions = data<int32_t>(call, 4);
  int32_t* targets = data<int32_t>(call, 5);
  const double probability = attribute(call, 0), replace_probability = attribute(call, 1);
  const int64_t limit = whole(call, 2), cls = whole(call, 3), sep = whole(call, 4),
                mask = whole(call, 5);
  const uint32_t site = (uint32_t)whole(call, 6);
  if (!(probability >= 0 && probability <= 1 && replace_probability >= 0 &&
        replace_probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "corruption_mask: probability is %g and replace_probability %g, expected numbers "
                "from 0 to 1",
                probability, replace_probability);
  const voltaic_status status = check_offsets(call, 1, tokens);
  if (status != VOLTAIC_OK) return status;

  // Scratch: a key per token, then where each sequence's choices start.
  const size_t bytes =
      (size_t)tokens * sizeof(uint32_t) + (size_t)(sequences + 2) * sizeof(int64_t);
  int64_t* starts = (int64_t*)thread_scratch(0, bytes);
  if (starts == nullptr) return no_scratch(call, bytes);
  uint32_t* keys = (uint32_t*)(starts + sequences + 2);
  draw_words(state, site, tokens, keys);

  const auto eligible = [&](int64_t t) { return ids[t] != cls && ids[t] != sep && ids[t] != mask; };
  parallel_for(sequences, [&](int64_t sequence) {
    int64_t count = 0;
    for (int64_t t = offsets[sequence]; t < offsets[sequence + 1]; t++) {
      count += eligible(t);
      masked[t] = ids[t];
    }
    const int64_t length = offsets[sequence + 1] - offsets[sequence];
    const int64_t k = larger(1, smaller(limit, wanted(length, (float)probability)));
    starts[sequence + 1] = smaller(k, count);
  });
  int64_t most = 1;
  starts[0] = 0;
  for (int64_t sequence = 0; sequence < sequences; sequence++) {
    const int64_t k = smaller(starts[sequence + 1], capacity - starts[sequence]);
    starts[sequence + 1] = starts[sequence] + k;
    most = larger(most, k);
  }

  bool starved[1] = {false};
  parallel_for(sequences, [&](int64_t sequence) {
    int64_t slot = starts[sequence];
    const int64_t k = starts[sequence + 1] - slot;
    if (k == 0) return;
    Heap heap = {(uint64_t*)thread_scratch(2, (size_t)most * sizeof(uint64_t)), k, 0};
    if (heap.pairs == nullptr) {
      __atomic_store_n(starved, true, __ATOMIC_RELAXED);
      return;
    }
    const auto pair = [&](int64_t t) { return (uint64_t)keys[t] << 32 | (uint64_t)t; };
    for (int64_t t = offsets[sequence]; t < offsets[sequence + 1]; t++)
      if (eligible(t)) heap.offer(pair(t));
    for (int64_t t = offsets[sequence]; t < offsets[sequence + 1]; t++) {
      if (!eligible(t) || pair(t) > heap.pairs[0]) continue;
      positions[slot] = (int32_t)t;
      targets[slot++] = ids[t];
      const voltaic_random4 block = voltaic_random_block(state, site + 1, (uint64_t)t / 4);
      if (voltaic_uniform(block.word[t % 4]) < (float)replace_probability)
        masked[t] = (int32_t)mask;
    }
  });
  if (*starved) return no_scratch(call, (size_t)most * sizeof(uint64_t));
  for (int64_t slot = starts[sequences]; slot < capacity; slot++) {
    positions[slot] = 0;
    targets[slot] = -100;
  }
  *data<int32_t>(call, 6) = (int32_t)starts[sequences];
  return VOLTAIC_OK;
}

voltaic_status corruption_replace(const voltaic_call* call) {
  const int64_t tokens = tensor(call, 0).elements, capacity = tensor(call, 1).elements;
  const int32_t *ids = data<const int32_t>(call, 0), *positions = data<const int32_t>(call, 1);
  const int32_t* samples = data<const int32_t>(call, 2);
  const int64_t count = *data<const int32_t>(call, 3);
  int32_t *replaced = data<int32_t>(call, 4), *labels = data<int32_t>(call, 5);
  if (count < 0 || count > capacity)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "corruption_replace: count is %lld, expected 0 to %lld", (long long)count,
                (long long)capacity);
  for (int64_t slot = 0; slot < count; slot++)
    if (positions[slot] < 0 || positions[slot] >= tokens)
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "corruption_replace: positions[%lld] is %d, expected a number from 0 to %lld",
                  (long long)slot, positions[slot], (long long)tokens - 1);
  if (tokens > 0) memcpy(replaced, ids, (size_t)tokens * sizeof(int32_t));
  for (int64_t slot = 0; slot < count; slot++) replaced[positions[slot]] = samples[slot];
  for (int64_t t = 0; t < tokens; t++) labels[t] = replaced[t] != ids[t];
  return VOLTAIC_OK;
}

}  // namespace

VOLTAIC_KERNELS(corruption, {"corruption_mask", corruption_mask},
                {"corruption_replace", corruption_replace})

}  // namespace voltaic
