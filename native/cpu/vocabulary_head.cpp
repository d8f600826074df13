// Cross-entropy over a vocabulary, its accuracy and a Gumbel-max sample in one pass over tiles of
// logits, and its gradient.
//
//   log_sum_exp = log sum exp(logits)
//   loss = mean over counted rows of log_sum_exp - logit of the target
//   prediction = first largest logit
//   sample = first largest of logits / temperature - log(-log(u)), u from Philox
//   logits_gradient = loss_gradient / counted * (exp(logits - log_sum_exp) - one-hot),
//   0 in ignored rows
//
// logits [rows, columns of a tile]; all else a few numbers a row, carried from tile to tile. So the
// logits of a whole vocabulary need never be in memory. NaN logits are passed over by prediction
// and sample and make the loss NaN. Ignored rows have a log_sum_exp and a prediction too.
//
// Bytes: forward reads the logits once, backward reads and writes them once. A row goes by in
// pieces of 1024 logits that stay in L1: largest so far, then the exponentials relative to it (the
// sum is rescaled when the largest grew), then the sample, which needs a quarter of a Philox call a
// logit and, at temperature 1, the same exponentials. One Zen 4 core, 612 rows of 30522: 0.31 ns a
// logit, 1.08 with the sample (Philox takes most of the rest), 0.14 to 0.3 backward.
//
// A task holds whole rows of a tile and losses are added in row order, in double precision: the
// same bits for any number of threads, and a row's results depend on its logits, their tiles, its
// target and its number (which seeds the sample) alone.
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

// What is known of a row after the tiles so far.
struct RowState {
  float max, sum, target_logit, score;
  int32_t prediction, sample;
};

// Logits begin to end - 1 of a tile's row, whose first block is first_block, against the best score
// so far: `largest` of the tile, and `best` of all tiles.
//
// A score y - log(-log(u)) above the best needs -log(u) < exp(y - best), and -log(u) is at least
// 1 - u. One exponential so rules out nearly all vectors (few are records) before their two
// logarithms; the slack is many times the rounding error of a score, so no winner is missed.
// `exponentials`: exp(y - shift), where they are at hand; those that vanish are too far below the
// largest logit to win.
//
// All random words of the piece come first: read back at once, they would still be on their way to
// the cache, in parts that no wider load can take over.
inline void sample_piece(const float* logits, const float* exponentials, float shift, int64_t begin,
                         int64_t end, uint64_t first_block, const Sampling& sampling,
                         int32_t disallowed, Largest& largest, float& best) {
  uint32_t piece_words[kPiece];
  for (int64_t i = begin; i < end; i += 4 * kWidth) {
    vuint words[4];
    philox_blocks<kForStore>(sampling.state, sampling.site, first_block + (uint64_t)i / 4, words);
    store_in_order(piece_words + (i - begin), words);
  }
  const auto slack = [&] { return __builtin_fabsf(best) * 1e-6f + 1e-3f; };
  float factor = exponentials == nullptr ? 0.0f : scalar_exp(shift - best + slack());
  for (int64_t i = begin; i < end; i += kWidth) {
    const vint at = lane_numbers() + (int32_t)i;
    const vfloat u = uniform_from_words((vuint)load_int((const int32_t*)piece_words + (i - begin)));
    vfloat y = load_or(logits + i, end - i, -kInfinity);
    y = select(at == disallowed, y - 1000.0f, y) * sampling.inverse_temperature;
    const vfloat bound = exponentials != nullptr ? load(exponentials + i - begin) * factor
                                                 : vexp(y - best + slack());
    if (!any_lane(1.0f - u <= bound)) continue;
    largest.meet(y - vlog(-vlog(u)), at);
    const float now = reduce_max(largest.value);
    if (now > best) {
      best = now;
      if (exponentials != nullptr) factor = scalar_exp(shift - best + slack());
    }
  }
}

// first_block: of the tile's first logit. sampling: null for none. target: its place in the tile,
// which may lie outside.
inline void head_row(const float* logits, int64_t columns, int32_t first, uint64_t first_block,
                     const Sampling* sampling, int64_t target, RowState& row) {
  Largest largest, sampled;
  vfloat sum = {};
  float max = row.max, best = row.score;
  const bool target_here = target >= 0 && target < columns;
  const int32_t disallowed =
      sampling != nullptr && sampling->disallow_target && target_here ? (int32_t)target : -1;
  for (int64_t begin = 0; begin < columns; begin += kPiece) {
    const int64_t end = smaller(begin + kPiece, columns);
    for (int64_t i = begin; i < end; i += kWidth)
      largest.meet(load_or(logits + i, end - i, -kInfinity), lane_numbers() + (int32_t)i);
    const float most = reduce_max(largest.value), grown = most > max ? most : max;
    if (grown != max) {  // from -infinity too: the factor is then 0, as the sum is
      const float factor = scalar_exp(max - grown);
      sum *= factor;
      row.sum *= factor;
      max = grown;
    }
    // Rows that begin with -infinity alone: any finite shift leaves their exponentials 0 and a NaN
    // a NaN.
    const float shift = max == -kInfinity ? 0.0f : max;
    float exponentials[kPiece];
    for (int64_t i = begin; i < end; i += kWidth) {
      const vfloat e = vexp(load_or(logits + i, end - i, -kInfinity) - shift);
      sum += e;
      store(exponentials + i - begin, e);
    }
    if (sampling == nullptr) continue;
    // Not where the largest logit may be no candidate, and others far below it may win.
    const bool at_hand =
        sampling->inverse_temperature == 1.0f && !sampling->disallow_target && shift < kInfinity;
    sample_piece(logits, at_hand ? exponentials : nullptr, shift, begin, end, first_block,
                 *sampling, disallowed, sampled, best);
  }
  row.sum += reduce_add(sum);
  if (reduce_max(largest.value) > row.max) row.prediction = first + largest.first_index();
  row.max = max;
  if (target_here) row.target_logit = logits[target];
  if (reduce_max(sampled.value) > row.score) row.sample = first + sampled.first_index();
  row.score = best;
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

voltaic_status check_tile(const voltaic_call* call, int64_t first, int64_t columns,
                          int64_t vocabulary) {
  if (first >= 0 && first % 4 == 0 && first + columns <= vocabulary) return VOLTAIC_OK;
  return fail(call, VOLTAIC_ERROR_ARGUMENT,
              "the tile has %lld columns from %lld on; expected a multiple of 4, and at most %lld "
              "columns in all",
              (long long)columns, (long long)first, (long long)vocabulary);
}

// tensors: logits, targets, state?, statistics, predictions, samples?
// attributes: first, vocabulary, temperature, site, disallow_target
voltaic_status vocabulary_head_tile(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], columns = tensor(call, 0).shape[1];
  const int64_t first = whole(call, 0), vocabulary = whole(call, 1);
  const float* logits = data<float>(call, 0);
  const int32_t* targets = data<int32_t>(call, 1);
  voltaic_status status = check_tile(call, first, columns, vocabulary);
  if (status == VOLTAIC_OK) status = check_targets(call, targets, rows, vocabulary);
  if (status != VOLTAIC_OK) return status;
  const bool samples_wanted = present(call, 5);
  const double temperature = attribute(call, 2);
  if (samples_wanted && !(temperature > 0))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the temperature is %g; expected a number above 0",
                temperature);
  if (samples_wanted && !present(call, 2))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "samples need the random state; none came");
  const Sampling sampling = {samples_wanted ? data<int32_t>(call, 2) : nullptr,
                             (uint32_t)whole(call, 3), (float)(1.0 / temperature),
                             attribute(call, 4) != 0};
  float* statistics = data<float>(call, 3);
  int32_t* predictions = data<int32_t>(call, 4);
  int32_t* samples = samples_wanted ? data<int32_t>(call, 5) : nullptr;

  const uint64_t blocks_per_row = (uint64_t)divide_up(vocabulary, 4);
  parallel_ranges(rows, kElementsPerTask / larger(columns, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const bool draws = samples_wanted && targets[r] != kIgnored;
      float* const known = statistics + 4 * r;
      const int32_t none = vocabulary == 0 ? -1 : 0;
      RowState row = {-kInfinity, 0, 0, -kInfinity, none, draws ? none : -1};
      if (first > 0) {
        row = {known[0], known[1],       known[2],
               known[3], predictions[r], samples_wanted ? samples[r] : -1};
      }
      head_row(logits + r * columns, columns, (int32_t)first,
               (uint64_t)r * blocks_per_row + (uint64_t)first / 4, draws ? &sampling : nullptr,
               targets[r] - first, row);
      known[0] = row.max;
      known[1] = row.sum;
      known[2] = row.target_logit;
      known[3] = row.score;
      predictions[r] = row.prediction;
      if (samples_wanted) samples[r] = row.sample;
    }
  });
  return VOLTAIC_OK;
}

// tensors: statistics, targets, predictions, loss, log_sum_exp, counts
voltaic_status vocabulary_head_loss(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0];
  const float* statistics = data<float>(call, 0);
  const int32_t *targets = data<int32_t>(call, 1), *predictions = data<int32_t>(call, 2);
  float* log_sum_exp = data<float>(call, 4);
  double sum = 0;
  int32_t counted = 0, right = 0;
  for (int64_t row = 0; row < rows; row++) {
    const float max = statistics[4 * row], target_logit = statistics[4 * row + 2];
    const float log_sum = scalar_log(statistics[4 * row + 1]);
    log_sum_exp[row] = max + log_sum;
    if (targets[row] == kIgnored) continue;
    // Not log_sum_exp - logit: when the target is nearly sure, that difference would lose the loss
    // in rounding.
    sum += (double)(log_sum + (max - target_logit));
    counted++;
    right += predictions[row] == targets[row];
  }
  *data<float>(call, 3) = counted > 0 ? (float)(sum / counted) : 0.0f;
  data<int32_t>(call, 5)[0] = counted;
  data<int32_t>(call, 5)[1] = right;
  return VOLTAIC_OK;
}

// tensors: loss_gradient, logits, targets, log_sum_exp, counts, logits_gradient
// attributes: first, vocabulary
voltaic_status vocabulary_head_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 1).shape[0], columns = tensor(call, 1).shape[1];
  const int64_t first = whole(call, 0), vocabulary = whole(call, 1);
  const float* logits = data<float>(call, 1);
  const int32_t* targets = data<int32_t>(call, 2);
  const float* log_sum_exp = data<float>(call, 3);
  const int32_t counted = data<int32_t>(call, 4)[0];
  const float scale = counted > 0 ? *data<float>(call, 0) / (float)counted : 0.0f;
  voltaic_status status = check_tile(call, first, columns, vocabulary);
  if (status == VOLTAIC_OK) status = check_targets(call, targets, rows, vocabulary);
  if (status != VOLTAIC_OK) return status;
  return with_float(tensor(call, 5).dtype, [&](auto* kind) {
    using T = __typeof__(*kind);
    T* gradient = data<T>(call, 5);
    parallel_ranges(rows, kElementsPerTask / larger(columns, 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const float* from = logits + row * columns;
        T* to = gradient + row * columns;
        if (targets[row] == kIgnored) {
          memset((void*)to, 0, (size_t)columns * sizeof(T));
          continue;
        }
        const int64_t target = targets[row] - first;
        const bool target_here = target >= 0 && target < columns;
        const float of_target =
            target_here ? (scalar_exp(from[target] - log_sum_exp[row]) - 1.0f) * scale : 0.0f;
        for (int64_t i = 0; i < columns; i += kWidth)
          store_partial(to + i,
                        vexp(load_partial(from + i, columns - i) - log_sum_exp[row]) * scale,
                        columns - i);
        if (target_here) put(to + target, of_target);
      }
    });
    return VOLTAIC_OK;
  });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(vocabulary_head, {"vocabulary_head_tile", voltaic::vocabulary_head_tile},
                {"vocabulary_head_loss", voltaic::vocabulary_head_loss},
                {"vocabulary_head_backward", voltaic::vocabulary_head_backward})
