// Softmax and log-softmax along the last axis, and cross-entropy over the tokens of ragged
// sequences.
//
//   softmax: y = exp(x - max) / sum exp(x - max); log-softmax: y = x - max - log sum exp(x - max)
//   softmax backward: x_gradient = y (y_gradient - sum y y_gradient)
//   log-softmax backward: x_gradient = y_gradient - exp(y) sum y_gradient
//   ragged cross-entropy: loss = mean over counted sequences of log_sum_exp - logit of the target;
//   backward: loss_gradient / valid * (exp(logit - log_sum_exp) - [token is the target])
//
// Bytes moved: 2 an element forward, 3 backward, times the storage size; about 15 instructions an
// element, which the bandwidth leaves room for in fp32 (50) and bf16 (27).
//
// Forward a thread has up to 32 numbers of a row, backward 16 of each array, as chunks of 16 bytes:
// 64 to 128 bytes are on their way in each thread before the first is used, and 64 registers let
// 1024 threads share a processor. A row of up to 1024 elements (512 backward) has a warp or a part
// of one, longer ones up to a block of 1024 threads. That is 32768 elements forward and 16384
// backward; longer rows are read a second time. Where rows do not begin at 16 bytes, chunks are
// single elements, eight of them, neighbours in neighbouring threads.
// A ragged sequence has a block: sequences are short.
//
// Which thread adds what follows from a row's width and the arrays' alignment alone, losses are
// added in an order that follows from their number: the same bits on every run, whatever rows stand
// around.
#include "ragged_cross_entropy.cuh"
#include "softmax_rows.cuh"

namespace voltaic {
namespace {

struct Rows {
  int64_t count, width;
};
inline Rows rows_of(const voltaic_tensor& x) {
  const int64_t width = x.rank > 0 ? x.shape[x.rank - 1] : 1;
  return {width > 0 ? x.elements / width : 0, width};
}

struct TeamPlan {
  RowTeam team;
  unsigned blocks, block_threads;
};
// Threads of a row: enough for its chunks, at least (where it has them) those of 32 neighbouring
// bytes, the unit of memory.
inline TeamPlan plan_teams(const Rows& rows, int chunk, int chunks, int chunk_bytes) {
  const int64_t all = divide_up(rows.width, chunk);
  const int64_t wanted = larger(divide_up(all, chunks), smaller(all, 32 / chunk_bytes));
  int shift = 0;
  while ((int64_t{1} << shift) < wanted) shift++;
  int64_t block_threads = larger(32, int64_t{1} << shift);
  while (block_threads < 256 && block_threads < rows.count << shift) block_threads *= 2;
  return {{shift},
          static_cast<unsigned>(divide_up(rows.count, block_threads >> shift)),
          static_cast<unsigned>(block_threads)};
}

template <class T, int kChunk>
voltaic_status forward(const voltaic_call* call, const Rows& rows) {
  constexpr int kChunks = kChunk == 1 ? 8 : 32 / kChunk;
  const T* x = data<const T>(call, 0);
  T* y = data<T>(call, 1);
  const bool logarithm = attribute(call, 0) != 0;
  if (rows.width <= kMostRowThreads * kChunk * kChunks) {
    const TeamPlan plan = plan_teams(rows, kChunk, kChunks, kChunk * sizeof(T));
    return launch(call, softmax_rows<T, kChunk, kChunks>, plan.blocks, plan.block_threads, 0, x, y,
                  rows.count, rows.width, plan.team, logarithm);
  }
  constexpr int kBatch = kChunk > 1 ? 64 / (kChunk * sizeof(T)) : 16;
  return launch(call, softmax_rows_of_any_length<T, kChunk, kBatch>,
                static_cast<unsigned>(rows.count), kLongRowThreads, 0, x, y, rows.width, logarithm);
}

template <class T, int kChunk>
voltaic_status backward(const voltaic_call* call, const Rows& rows) {
  constexpr int kChunks = kChunk == 1 ? 8 : 16 / kChunk;
  const T *y = data<const T>(call, 0), *y_gradient = data<const T>(call, 1);
  T* x_gradient = data<T>(call, 2);
  const bool logarithm = attribute(call, 0) != 0;
  if (rows.width <= kMostRowThreads * kChunk * kChunks) {
    const TeamPlan plan = plan_teams(rows, kChunk, kChunks, kChunk * sizeof(T));
    return launch(call, softmax_rows_backward<T, kChunk, kChunks>, plan.blocks, plan.block_threads,
                  0, y, y_gradient, x_gradient, rows.count, rows.width, plan.team, logarithm);
  }
  constexpr int kBatch = kChunk > 1 ? 2 : 8;
  return launch(call, softmax_rows_of_any_length_backward<T, kChunk, kBatch>,
                static_cast<unsigned>(rows.count), kLongRowThreads, 0, y, y_gradient, x_gradient,
                rows.width, logarithm);
}

// tensors: x, y; attribute: logarithm
voltaic_status softmax_forward(const voltaic_call* call) {
  const Rows rows = rows_of(tensor(call, 0));
  if (rows.count == 0) return VOLTAIC_OK;
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    constexpr int kPack = 16 / sizeof(T);
    return rows.width % kPack == 0 && aligned_16(data<T>(call, 0), data<T>(call, 1))
               ? forward<T, kPack>(call, rows)
               : forward<T, 1>(call, rows);
  });
}

// tensors: y, y_gradient, x_gradient; attribute: logarithm
voltaic_status softmax_backward(const voltaic_call* call) {
  const Rows rows = rows_of(tensor(call, 0));
  if (rows.count == 0) return VOLTAIC_OK;
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    constexpr int kPack = 16 / sizeof(T);
    return rows.width % kPack == 0 &&
                   aligned_16(data<T>(call, 0), data<T>(call, 1), data<T>(call, 2))
               ? backward<T, kPack>(call, rows)
               : backward<T, 1>(call, rows);
  });
}

// Takes the batch from tensors index to index + 2: logits, offsets, targets.
voltaic_status ragged_batch(const voltaic_call* call, int index, RaggedBatch* batch,
                            RaggedChecks* checks) {
  const int64_t bounds = tensor(call, index + 1).elements;
  *batch = {data<const float>(call, index), data<const int32_t>(call, index + 1),
            data<const int32_t>(call, index + 2), tensor(call, index).elements,
            tensor(call, index + 2).elements};
  *checks = {index_check(call, "ragged_cross_entropy: offsets"),
             index_check(call, "ragged_cross_entropy: targets")};
  if (bounds == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "offsets are empty; expected one more than there are sequences, the first 0");
  if (bounds != batch->sequences + 1)
    return fail(call, VOLTAIC_ERROR_SHAPE,
                "%lld offsets came with %lld targets; expected one offset more than targets",
                (long long)bounds, (long long)batch->sequences);
  return VOLTAIC_OK;
}

// tensors: logits, offsets, targets, loss, log_sum_exp, valid
voltaic_status ragged_cross_entropy_forward(const voltaic_call* call) {
  RaggedBatch batch;
  RaggedChecks checks;
  voltaic_status status = ragged_batch(call, 0, &batch, &checks);
  if (status != VOLTAIC_OK) return status;
  auto* const parts = static_cast<LossPart*>(
      cuda::scratch(call, static_cast<size_t>(larger(batch.sequences, 1)) * sizeof(LossPart)));
  if (parts == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  if (batch.sequences > 0)
    status = launch(call, ragged_cross_entropy, static_cast<unsigned>(batch.sequences),
                    kSequenceThreads, 0, batch, checks, data<float>(call, 4), parts);
  if (status != VOLTAIC_OK) return status;
  return launch(call, ragged_cross_entropy_mean, 1, 256, 0, batch, checks, parts,
                data<float>(call, 3), data<int32_t>(call, 5));
}

// tensors: loss_gradient, logits, offsets, targets, log_sum_exp, valid, logits_gradient
voltaic_status ragged_cross_entropy_backward(const voltaic_call* call) {
  RaggedBatch batch;
  RaggedChecks checks;
  const voltaic_status status = ragged_batch(call, 1, &batch, &checks);
  if (status != VOLTAIC_OK) return status;
  return launch(call, ragged_cross_entropy_gradient,
                static_cast<unsigned>(larger(batch.sequences, 1)), kSequenceThreads, 0, batch,
                checks, data<const float>(call, 0), data<const float>(call, 4),
                data<const int32_t>(call, 5), data<float>(call, 6));
}

}  // namespace

VOLTAIC_CUDA_KERNELS(softmax, {"softmax_forward", softmax_forward},
                     {"softmax_backward", softmax_backward},
                     {"ragged_cross_entropy_forward", ragged_cross_entropy_forward},
                     {"ragged_cross_entropy_backward", ragged_cross_entropy_backward})

}  // namespace voltaic
