// Cross-entropy over a vocabulary, its accuracy and a Gumbel-max sample in one pass over the
// logits, and its gradient.
//
//   log_sum_exp = log sum exp(logits)
//   loss = mean over counted rows of log_sum_exp - logit of the target
//   prediction = first largest logit
//   sample = first largest of logits / temperature - log(-log(u)), u from Philox
//   logits_gradient = loss_gradient / counted * (exp(logits - log_sum_exp) - one-hot), 0 in ignored
//   rows
//
// logits [rows, vocabulary]; all else one number a row. NaN logits are passed over by prediction
// and sample and make the loss NaN. Ignored rows have a log_sum_exp and a prediction too, but no
// sample.
//
// Bytes moved: forward 4 an element (30522 of them: 122 KB a row), backward 4 and the gradient's 4
// or 2, nothing for ignored rows but their zeros. At full bandwidth an H200 has 27 instructions for
// 4 bytes that are read: forward takes about 7 an element, and 23 with a sample (10 for Philox, see
// vocabulary_segments.cuh for how the logarithms are left out); backward about 20 of its 40 to 50.
//
// Forward, a row is cut into segments of at most 5120 logits, equal and whole quads; a block of up
// to 256 threads has a segment, all of it in registers: 20 logits a thread, 80 bytes on their way
// in each, four blocks to a processor. (30522 logits make 6 segments with 4.97 quads a thread.) A
// second kernel, a thread a row, joins the segments. Segments follow from the vocabulary alone, and
// what a thread adds from its segment alone, so that a row's bits do not depend on alignment or on
// other rows; the losses' order follows from the number of rows. Backward takes the logits as one
// flat array, so that 16 bytes are loaded and stored at once wherever rows begin.
#include "vocabulary_gradient.cuh"
#include "vocabulary_segments.cuh"

namespace voltaic {
namespace {

template <int kLoad>
voltaic_status launch_segments(const voltaic_call* call, const Segments& segments, int64_t rows,
                               const Sampling& sampling, RowPart* parts, unsigned* ticket) {
  const float* logits = data<const float>(call, 0);
  const int32_t* targets = data<const int32_t>(call, 1);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(segments.count));
  return sampling.state != nullptr
             ? launch(call, vocabulary_segments<kLoad, true>, grid, segments.threads, 0, logits,
                      targets, segments, sampling, parts, ticket)
             : launch(call, vocabulary_segments<kLoad, false>, grid, segments.threads, 0, logits,
                      targets, segments, sampling, parts, ticket);
}

// tensors: logits, targets, state?, loss, log_sum_exp, predictions, counts, samples?
// attributes: temperature, site, disallow_target
voltaic_status vocabulary_head_forward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 0).shape[0], vocabulary = tensor(call, 0).shape[1];
  const bool samples_wanted = present(call, 7);
  const double temperature = attribute(call, 0);
  if (samples_wanted && !(temperature > 0))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "the temperature is %g; expected a number above 0",
                temperature);
  if (samples_wanted && !present(call, 2))
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "samples need the random state; none came");
  if (rows > kMostBlocks || vocabulary > kMostVocabulary)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "the logits are [%lld, %lld]; expected at most %lld rows of %lld", (long long)rows,
                (long long)vocabulary, (long long)kMostBlocks, (long long)kMostVocabulary);
  const Sampling sampling = {samples_wanted ? data<const int32_t>(call, 2) : nullptr,
                             static_cast<uint32_t>(whole(call, 1)),
                             static_cast<float>(1.0 / temperature), attribute(call, 2) != 0};
  const Segments segments = cut_into_segments(vocabulary);

  // Scratch: the losses' parts, those of the rows' segments, the ticket of the blocks that join
  // them.
  const int64_t blocks = larger(divide_up(rows, kJoinThreads), 1);
  const size_t losses_bytes = static_cast<size_t>(blocks) * sizeof(LossPart),
               parts_bytes = static_cast<size_t>(rows * segments.count) * sizeof(RowPart);
  auto* const losses =
      static_cast<LossPart*>(cuda::scratch(call, losses_bytes + parts_bytes + sizeof(unsigned)));
  if (losses == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  auto* const parts = reinterpret_cast<RowPart*>(losses + blocks);
  auto* const ticket = reinterpret_cast<unsigned*>(parts + rows * segments.count);

  voltaic_status status = VOLTAIC_OK;
  const auto address = reinterpret_cast<uintptr_t>(data<const float>(call, 0));
  if (rows > 0) {
    if (vocabulary % 4 == 0 && address % 16 == 0) {
      status = launch_segments<4>(call, segments, rows, sampling, parts, ticket);
    } else if (vocabulary % 2 == 0 && address % 8 == 0) {
      status = launch_segments<2>(call, segments, rows, sampling, parts, ticket);
    } else {
      status = launch_segments<1>(call, segments, rows, sampling, parts, ticket);
    }
  }
  if (status != VOLTAIC_OK) return status;
  const HeadOutputs outputs = {data<float>(call, 3), data<float>(call, 4), data<int32_t>(call, 5),
                               data<int32_t>(call, 6),
                               samples_wanted ? data<int32_t>(call, 7) : nullptr};
  return launch(call, join_segments, static_cast<unsigned>(blocks), kJoinThreads, 0,
                data<const float>(call, 0), data<const int32_t>(call, 1), rows, segments, parts,
                losses, ticket, outputs, index_check(call, "vocabulary_head: targets"));
}

// tensors: loss_gradient, logits, targets, log_sum_exp, counts, logits_gradient
voltaic_status vocabulary_head_backward(const voltaic_call* call) {
  const int64_t rows = tensor(call, 1).shape[0], vocabulary = tensor(call, 1).shape[1];
  if (rows > kMostBlocks || vocabulary > kMostVocabulary)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "the logits are [%lld, %lld]; expected at most %lld rows of %lld", (long long)rows,
                (long long)vocabulary, (long long)kMostBlocks, (long long)kMostVocabulary);
  if (rows == 0) return VOLTAIC_OK;
  return with_float(tensor(call, 5).dtype, [&]<class T>(T*) {
    const float* logits = data<const float>(call, 1);
    T* gradient = data<T>(call, 5);
    const int64_t blocks = larger(divide_up(rows * vocabulary, kGradientBlock), 1);
    return launch(call, vocabulary_gradient<T>, static_cast<unsigned>(blocks), kGradientThreads, 0,
                  data<const float>(call, 0), logits, data<const int32_t>(call, 2),
                  data<const float>(call, 3), data<const int32_t>(call, 4), gradient, rows,
                  static_cast<uint32_t>(vocabulary), aligned_16(logits, gradient),
                  index_check(call, "vocabulary_head: targets"));
  });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(vocabulary_head, {"vocabulary_head_forward", vocabulary_head_forward},
                     {"vocabulary_head_backward", vocabulary_head_backward})

}  // namespace voltaic
