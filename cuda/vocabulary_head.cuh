// Cross-entropy over a vocabulary, its accuracy and a Gumbel-max sample in one pass over tiles of
// logits, and its gradient.
//
//   log_sum_exp = log sum exp(logits)
//   loss = mean over counted rows of log_sum_exp - logit of the target
//   prediction = first largest logit
//   sample = first largest of logits / temperature - log(-log(u)), u from Philox
//   logits_gradient = loss_gradient / counted * (exp(logits - log_sum_exp) - one-hot), 0 in ignored
//   rows
//
// logits [rows, columns of a tile]; all else a few numbers a row, carried from tile to tile. NaN
// logits are passed over by prediction and sample and make the loss NaN. Ignored rows have a
// log_sum_exp and a prediction too, but no sample.
//
// Bytes moved: forward 4 an element (30522 of them: 122 KB a row), backward 4 and the gradient's 4
// or 2, nothing for ignored rows but their zeros. At full bandwidth an H200 has 27 instructions for
// 4 bytes that are read: forward takes about 7 an element, and 23 with a sample (10 for Philox, see
// vocabulary_segments.cuh for how the logarithms are left out); backward about 20 of its 40 to 50.
//
// Forward, a row is cut into segments of at most 5120 logits, equal and whole quads; a block of up
// to 256 threads has a segment, all of it in registers: 20 logits a thread, 80 bytes on their way
// in each, four blocks to a processor. (30522 logits make 6 segments with 4.97 quads a thread.) A
// second kernel, a thread a row, joins the segments with what is known of the row. Segments follow
// from the tile alone, and what a thread adds from its segment alone, so that a row's bits do not
// depend on alignment or on other rows; the losses' order follows from the number of rows. Backward
// takes the logits as one flat array, so that 16 bytes are loaded and stored at once wherever rows
// begin.
#include "vocabulary_gradient.cuh"
#include "vocabulary_loss.cuh"
#include "vocabulary_segments.cuh"

namespace voltaic {
namespace {

template <int kLoad>
voltaic_status launch_segments(const voltaic_call* call, const Segments& segments, int64_t rows,
                               const Sampling& sampling, RowPart* parts) {
  const float* logits = data<const float>(call, 0);
  const int32_t* targets = data<const int32_t>(call, 1);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(segments.count));
  return sampling.state != nullptr
             ? launch(call, vocabulary_segments<kLoad, true>, grid, segments.threads, 0, logits,
                      targets, segments, sampling, parts)
             : launch(call, vocabulary_segments<kLoad, false>, grid, segments.threads, 0, logits,
                      targets, segments, sampling, parts);
}

voltaic_status check_tile(const voltaic_call* call, int64_t first, int64_t rows, int64_t columns,
                          int64_t vocabulary) {
  if (rows > kMostBlocks || vocabulary > kMostVocabulary)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "there are %lld rows and a vocabulary of %lld; expected at most %lld and %lld",
                (long long)rows, (long long)vocabulary, (long long)kMostBlocks,
                (long long)kMostVocabulary);
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
  const bool samples_wanted = present(call, 5);
  const double temperature = attribute(call, 2);
  if (samples_wanted && !(temperature > 0))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the temperature is %g; expected a number above 0",
                temperature);
  if (samples_wanted && !present(call, 2))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "samples need the random state; none came");
  voltaic_status status = check_tile(call, first, rows, columns, vocabulary);
  if (status != VOLTAIC_OK || rows == 0) return status;
  const Sampling sampling = {samples_wanted ? data<const int32_t>(call, 2) : nullptr,
                             static_cast<uint32_t>(whole(call, 3)),
                             static_cast<float>(1.0 / temperature), attribute(call, 4) != 0};
  const Segments segments = cut_into_segments(first, columns, vocabulary);
  auto* const parts = static_cast<RowPart*>(
      cuda::scratch(call, static_cast<size_t>(rows * segments.count) * sizeof(RowPart)));
  if (parts == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;

  const auto address = reinterpret_cast<uintptr_t>(data<const float>(call, 0));
  if (columns % 4 == 0 && address % 16 == 0) {
    status = launch_segments<4>(call, segments, rows, sampling, parts);
  } else if (columns % 2 == 0 && address % 8 == 0) {
    status = launch_segments<2>(call, segments, rows, sampling, parts);
  } else {
    status = launch_segments<1>(call, segments, rows, sampling, parts);
  }
  if (status != VOLTAIC_OK) return status;
  const RowsKnown known = {data<float>(call, 3), data<int32_t>(call, 4),
                           samples_wanted ? data<int32_t>(call, 5) : nullptr};
  return launch(call, join_segments, static_cast<unsigned>(divide_up(rows, kJoinThreads)),
                kJoinThreads, 0, data<const float>(call, 0), data<const int32_t>(call, 1), rows,
                segments, parts, known, index_check(call, "vocabulary_head: targets"));
}

// tensors: statistics, targets, predictions, loss, log_sum_exp, counts
voltaic_status vocabulary_head_loss(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0];
  const int64_t blocks = larger(divide_up(rows, kLossRows), 1);
  auto* const parts =
      static_cast<LossPart*>(cuda::scratch(call, static_cast<size_t>(blocks) * sizeof(LossPart)));
  if (parts == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  const HeadLoss output = {data<float>(call, 3), data<int32_t>(call, 5)};
  const voltaic_status status =
      launch(call, vocabulary_loss, static_cast<unsigned>(blocks), kLossThreads, 0,
             data<const float>(call, 0), data<const int32_t>(call, 1), data<const int32_t>(call, 2),
             rows, data<float>(call, 4), parts, output);
  if (status != VOLTAIC_OK || blocks == 1) return status;
  return launch(call, vocabulary_loss_sum, 1, kLossThreads, 0, parts, blocks, output);
}

// tensors: loss_gradient, logits, targets, log_sum_exp, counts, logits_gradient
// attributes: first, vocabulary
voltaic_status vocabulary_head_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 1).shape[0], columns = tensor(call, 1).shape[1];
  const int64_t first = whole(call, 0), vocabulary = whole(call, 1);
  const voltaic_status status = check_tile(call, first, rows, columns, vocabulary);
  if (status != VOLTAIC_OK || rows == 0) return status;
  const GradientTile tile = {static_cast<int32_t>(first), static_cast<uint32_t>(columns),
                             vocabulary};
  return with_float(tensor(call, 5).dtype, [&]<class T>(T*) {
    const float* logits = data<const float>(call, 1);
    T* gradient = data<T>(call, 5);
    const int64_t blocks = larger(divide_up(rows * columns, kGradientBlock), 1);
    return launch(call, vocabulary_gradient<T>, static_cast<unsigned>(blocks), kGradientThreads, 0,
                  data<const float>(call, 0), logits, data<const int32_t>(call, 2),
                  data<const float>(call, 3), data<const int32_t>(call, 4), gradient, rows, tile,
                  aligned_16(logits, gradient), index_check(call, "vocabulary_head: targets"));
  });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(vocabulary_head, {"vocabulary_head_tile", vocabulary_head_tile},
                     {"vocabulary_head_loss", vocabulary_head_loss},
                     {"vocabulary_head_backward", vocabulary_head_backward})

}  // namespace voltaic
