// Cross-entropy over a vocabulary, its accuracy and a Gumbel-max sample in one pass over the
// logits, and its gradient.
//
//   log_sum_exp = log sum exp(logits)
//   loss = mean over counted rows of log_sum_exp - logit of the target
//   prediction = first largest logit
//   sample = first largest of logits / temperature - log(-log(u)), u from Philox
//   logits_gradient = loss_gradient / counted * (exp(logits - log_sum_exp) - one-hot),
//   0 in ignored rows
//
// logits [rows, vocabulary]; all else one number a row. NaN logits are passed over by prediction
// and sample and make the loss NaN. Ignored rows have a log_sum_exp and a prediction too.
//
// Bytes: forward reads the logits once, backward reads and writes them once. A row goes by in
// pieces of 1024 logits that stay in L1: largest so far, then the exponentials relative to it (the
// sum is rescaled when the largest grew), then the sample. Per logit one exponential, and with
// sampling a second one and a quarter of a Philox call: the arithmetic takes the time. One Zen 3
// core, 640 rows of 30522: 0.6 ns a logit, 2.2 with the sample, 0.54 backward (15 GB/s).
//
// A task holds whole rows and losses are added in row order, in double precision: the same bits for
// any number of threads, and a row's results depend on its logits, its target and its number (which
// seeds the sample) alone.
#include "ragged.h"
#include "simd_math.h"
#include "simd_philox.h"

namespace voltaic {
namespace {

constexpr int64_t kPiece = 1024;
constexpr int64_t kElementsPerTask = 8192;
constexpr int32_t kIgnored = -100;

// The largest number of each lane so far, and its index. Strict comparison keeps the first and
// skips NaN.
struct Largest {
  vfloat value = splat(-kInfinity);
  vint index = {};
  VOLTAIC_INLINE void meet(vfloat x, vint at) {
    const vint greater = x > value;
    value = select(greater, x, value);
    index = select(greater, at, index);
  }
  // The lowest index among the lanes that hold the largest value.
  VOLTAIC_INLINE int32_t first_index() const {
    float best = value[0];
    int32_t where = index[0];
    for (int l = 1; l < kWidth; l++)
      if (value[l] > best || (value[l] == best && index[l] < where)) {
        best = value[l];
        where = index[l];
      }
    return where;
  }
};

struct Sampling {
  const int32_t* state;
  uint32_t site;
  float inverse_temperature;
  bool disallow_target;
};

struct RowResult {
  float max, log_sum;
  int32_t prediction, sample;
};

VOLTAIC_INLINE bool any_lane(vint mask) {
#if defined(__AVX512F__) && VOLTAIC_WIDTH == 16
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__) && VOLTAIC_WIDTH == 8
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  int32_t any = 0;
  for (int l = 0; l < kWidth; l++) any |= mask[l];
  return any != 0;
#endif
}

// logits begin to end - 1 of a row, whose first block is first_block. All random words of the piece
// come first: read back at once, they would still be on their way to the cache, in parts that no
// wider load can take over.
//
// A score y - log(-log(u)) above the best so far needs -log(u) < exp(y - best), and -log(u) is at
// least 1 - u. One exponential so rules out nearly all vectors (few are records) before their two
// logarithms; the slack is many times the rounding error of a score, so no winner is missed.
inline void sample_piece(const float* logits, int64_t begin, int64_t end, uint64_t first_block,
                         const Sampling& sampling, int32_t disallowed, Largest& largest) {
  uint32_t piece_words[kPiece];
  for (int64_t i = begin; i < end; i += 4 * kWidth) {
    vuint words[4];
    philox_blocks(sampling.state, sampling.site, first_block + (uint64_t)i / 4, words);
    store_blocks(piece_words + (i - begin), words);
  }
  for (int64_t i = begin; i < end; i += kWidth) {
    const vint at = lane_numbers() + (int32_t)i;
    vfloat y = load_or(logits + i, end - i, -kInfinity);
    y = select(at == disallowed, y - 1000.0f, y) * sampling.inverse_temperature;
    const vfloat u = uniform_from_words((vuint)load_int((const int32_t*)piece_words + (i - begin)));
    const vfloat slack = vabs(largest.value) * 1e-6f + 1e-3f;
    if (any_lane(1.0f - u <= vexp(y - largest.value + slack))) largest.meet(y - vlog(-vlog(u)), at);
  }
}

inline RowResult head_row(const float* logits, int64_t vocabulary, uint64_t first_block,
                          const Sampling* sampling, int32_t target) {
  Largest largest, sampled;
  float max = -kInfinity;
  vfloat sum = {};
  for (int64_t begin = 0; begin < vocabulary; begin += kPiece) {
    const int64_t end = smaller(begin + kPiece, vocabulary);
    for (int64_t i = begin; i < end; i += kWidth)
      largest.meet(load_or(logits + i, end - i, -kInfinity), lane_numbers() + (int32_t)i);
    const float grown = reduce_max(largest.value);
    if (grown != max) {  // from -infinity too: the factor is then 0, as the sum is
      sum *= scalar_exp(max - grown);
      max = grown;
    }
    // Rows that begin with -infinity alone: any finite shift leaves their exponentials 0 and a NaN
    // a NaN.
    const float shift = max == -kInfinity ? 0.0f : max;
    for (int64_t i = begin; i < end; i += kWidth)
      sum += vexp(load_or(logits + i, end - i, -kInfinity) - shift);
    if (sampling != nullptr && target != kIgnored)
      sample_piece(logits, begin, end, first_block, *sampling,
                   sampling->disallow_target ? target : -1, sampled);
  }
  const bool none = vocabulary == 0;
  return {max, scalar_log(reduce_add(sum)), none ? -1 : largest.first_index(),
          none || target == kIgnored ? -1 : sampled.first_index()};
}

voltaic_status check_targets(const voltaic_call* call, const int32_t* targets, int64_t rows,
                             int64_t vocabulary) {
  for (int64_t row = 0; row < rows; row++)
    if (targets[row] != kIgnored && (targets[row] < 0 || targets[row] >= vocabulary))
      return fail(call, VOLTAIC_ERROR_ARGUMENT,
                  "the target of row %lld is %d; expected -100 or 0 to %lld", (long long)row,
                  targets[row], (long long)vocabulary - 1);
  return VOLTAIC_OK;
}

// tensors: logits, targets, state?, loss, log_sum_exp, predictions, counts, samples?
// attributes: temperature, site, disallow_target
voltaic_status vocabulary_head_forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], vocabulary = tensor(call, 0).shape[1];
  const float* logits = data<float>(call, 0);
  const int32_t* targets = data<int32_t>(call, 1);
  const voltaic_status status = check_targets(call, targets, rows, vocabulary);
  if (status != VOLTAIC_OK) return status;
  const bool samples_wanted = present(call, 7);
  const double temperature = attribute(call, 0);
  if (samples_wanted && !(temperature > 0))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the temperature is %g; expected a number above 0",
                temperature);
  if (samples_wanted && !present(call, 2))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "samples need the random state; none came");
  const Sampling sampling = {samples_wanted ? data<int32_t>(call, 2) : nullptr,
                             (uint32_t)whole(call, 1), (float)(1.0 / temperature),
                             attribute(call, 2) != 0};
  float* log_sum_exp = data<float>(call, 4);
  int32_t* predictions = data<int32_t>(call, 5);
  int32_t* samples = samples_wanted ? data<int32_t>(call, 7) : nullptr;
  float* losses = (float*)thread_scratch(0, (size_t)larger(rows, 1) * sizeof(float));
  if (losses == nullptr)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY, "no memory for the losses of %lld rows",
                (long long)rows);

  const uint64_t blocks_per_row = (uint64_t)divide_up(vocabulary, 4);
  parallel_ranges(rows, kElementsPerTask / larger(vocabulary, 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const float* from = logits + row * vocabulary;
      const RowResult result = head_row(from, vocabulary, (uint64_t)row * blocks_per_row,
                                        samples_wanted ? &sampling : nullptr, targets[row]);
      log_sum_exp[row] = result.max + result.log_sum;
      predictions[row] = result.prediction;
      if (samples_wanted) samples[row] = result.sample;
      // Not log_sum_exp - logit: when the target is nearly sure, that difference would lose the
      // loss in rounding.
      losses[row] =
          targets[row] == kIgnored ? 0.0f : result.log_sum + (result.max - from[targets[row]]);
    }
  });

  double sum = 0;
  int32_t counted = 0, right = 0;
  for (int64_t row = 0; row < rows; row++) {
    if (targets[row] == kIgnored) continue;
    sum += (double)losses[row];
    counted++;
    right += predictions[row] == targets[row];
  }
  *data<float>(call, 3) = counted > 0 ? (float)(sum / counted) : 0.0f;
  data<int32_t>(call, 6)[0] = counted;
  data<int32_t>(call, 6)[1] = right;
  return VOLTAIC_OK;
}

// tensors: loss_gradient, logits, targets, log_sum_exp, counts, logits_gradient
voltaic_status vocabulary_head_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 1).shape[0], vocabulary = tensor(call, 1).shape[1];
  const float* logits = data<float>(call, 1);
  const int32_t* targets = data<int32_t>(call, 2);
  const float* log_sum_exp = data<float>(call, 3);
  const int32_t counted = data<int32_t>(call, 4)[0];
  const float scale = counted > 0 ? *data<float>(call, 0) / (float)counted : 0.0f;
  const voltaic_status status = check_targets(call, targets, rows, vocabulary);
  if (status != VOLTAIC_OK) return status;
  return with_float(tensor(call, 5).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    T* gradient = data<T>(call, 5);
    parallel_ranges(
        rows, kElementsPerTask / larger(vocabulary, 1), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; row++) {
            const float* from = logits + row * vocabulary;
            T* to = gradient + row * vocabulary;
            if (targets[row] == kIgnored) {
              memset((void*)to, 0, (size_t)vocabulary * sizeof(T));
              continue;
            }
            const float of_target =
                (scalar_exp(from[targets[row]] - log_sum_exp[row]) - 1.0f) * scale;
            for (int64_t i = 0; i < vocabulary; i += kWidth)
              store_partial(to + i,
                            vexp(load_partial(from + i, vocabulary - i) - log_sum_exp[row]) * scale,
                            vocabulary - i);
            put(to + targets[row], of_target);
          }
        });
    return VOLTAIC_OK;
  });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(vocabulary_head, {"vocabulary_head_forward", voltaic::vocabulary_head_forward},
                {"vocabulary_head_backward", voltaic::vocabulary_head_backward})
