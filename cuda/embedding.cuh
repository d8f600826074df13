// The embedding block:
//   sum = word[ids] + type[types] + position[positions]
//   y = dropout(layer_norm(sum))
//
// Tables [vocabulary | kinds | limit, width] and sum, y, y_gradient [tokens, width] in fp32 or
// bf16; statistics, weight, bias and all gradients of parameters fp32. Rows in registers:
// layer_norm_rows.cuh. Bytes per element, times the storage size: forward 5 (three table rows in,
// of which types and positions come from the cache; sum and y out), in one launch; backward 2 in,
// and one fp32 row written and read three times with the table rows it is added to. FLOPs per
// element: about 12 forward, 20 backward, and 10 integer operations for a dropout number.
//
// Backward: (1) the tokens are sorted by table row (sort_indices.cuh); (2) per row, the dropout
// mask and the normalisation's gradient into fp32 scratch, with its parameters'
// (layer_norm_backward.cuh); (3) scratch rows are added to the tables in sorted order
// (embedding_tables.cuh). Every sum has an order that follows from shapes and numbers. Numbers out
// of range are reported and count as 0.
#include "embedding_tables.cuh"
#include "layer_norm_backward.cuh"

namespace voltaic {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Forward {
  const T* tables[3];
  Tokens tokens;
  const float *weight, *bias;
  T *sum, *y;
  float *mean, *inverse_std;
  int64_t width;
  int lanes;
  float epsilon;
  DropoutSite dropout;
  IndexCheck checks[3];
};

// The rows of a token in the three tables; one thread of the row's group reports.
template <class T>
__device__ __forceinline__ void table_rows(const Forward<T>& a, int64_t token, bool reports,
                                           const T* (&rows)[3]) {
#pragma unroll
  for (int table = 0; table < 3; table++) {
    int64_t number = a.tokens.numbers[table][token];
    if (number < 0 || number >= a.tokens.limits[table]) {
      if (reports) in_range(a.checks[table], token, number, 0, a.tokens.limits[table] - 1);
      number = 0;
    }
    rows[table] = a.tables[table] + number * a.width;
  }
}

template <class T, int units>
__global__ void __launch_bounds__(kThreads, (units * sizeof(T) > 8 ? 1 : 2))
    forward_rows(Forward<T> a) {
  constexpr int words = kWords<T, units>, per_word = kPerWord<T>;
  DYNAMIC_SHARED(float, weight);
  const int width = static_cast<int>(a.width);
  float* const bias = weight + kParameterFloats<units>;
  const RowLane<T, units> at(width, a.lanes);
  const RowDropout dropout(a.dropout);
  fill_parameters<T, units>(a.weight, weight, width);
  fill_parameters<T, units>(a.bias, bias, width);
  __syncthreads();
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kThreads / at.lanes);
  int64_t row = blockIdx.x * int64_t{kThreads / at.lanes} + threadIdx.x / at.lanes;
  // The lanes of a warp go round together: the first of its rows decides.
  for (int64_t warp_row = row - threadIdx.x % 32 / at.lanes; warp_row < a.tokens.count;
       warp_row += step, row += step) {
    const bool there = row < a.tokens.count;
    const T* rows[3] = {a.tables[0], a.tables[1], a.tables[2]};
    if (there) table_rows(a, row, at.lane == 0, rows);
    uint4 loaded[3][words];
#pragma unroll
    for (int table = 0; table < 3; table++) load_row(at, rows[table], there, loaded[table]);
    const uint32_t kept =
        dropout.on() ? kept_of_row(dropout, static_cast<uint64_t>(row) * (width / 8u), at) : 0;
    float v[words][per_word];
#pragma unroll
    for (int i = 0; i < words; i++) {
      float type[per_word], position[per_word];
      unpack(loaded[0][i], v[i]);
      unpack(loaded[1][i], type);
      unpack(loaded[2][i], position);
#pragma unroll
      for (int k = 0; k < per_word; k++) v[i][k] = v[i][k] + type[k] + position[k];
      const uint4 word = packed(v[i]);
      unpack(word, v[i]);  // as it was rounded
      if (there && at.has(i)) reinterpret_cast<uint4*>(a.sum + row * width)[at.word(i)] = word;
    }
    const RowStatistics statistics = row_statistics(at, v, width, a.epsilon);
    normalise(at, v, statistics, weight, bias);
    if (!there) continue;
#pragma unroll
    for (int i = 0; i < words; i++) {
      if (!at.has(i)) continue;
      if (dropout.on()) {
#pragma unroll
        for (int k = 0; k < per_word; k++) v[i][k] = dropout.apply(v[i][k], kept, i * per_word + k);
      }
      reinterpret_cast<uint4*>(a.y + row * width)[at.word(i)] = packed(v[i]);
    }
    if (at.lane == 0) {
      a.mean[row] = statistics.mean;
      a.inverse_std[row] = statistics.inverse_std;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kAnyThreads, 4) forward_any_rows(Forward<T> a, int threads) {
  __shared__ float room[kAnyThreads / 32];
  const int lane = threadIdx.x & (threads - 1);
  const int64_t rows_of_block = kAnyThreads / threads;
  for (int64_t row = blockIdx.x * rows_of_block + threadIdx.x / threads; row < a.tokens.count;
       row += gridDim.x * rows_of_block) {
    const T* rows[3];
    table_rows(a, row, lane == 0, rows);
    const int64_t start = row * a.width;
#pragma unroll 2
    for (int64_t i = lane; i < a.width; i += threads)
      a.sum[start + i] =
          from_float<T>(to_float(rows[0][i]) + to_float(rows[1][i]) + to_float(rows[2][i]));
    const RowStatistics statistics =
        any_row_statistics(a.sum + start, a.width, a.epsilon, threads, room);
#pragma unroll 1
    for (int64_t i = lane; i < a.width; i += threads) {
      float y = fmaf((to_float(a.sum[start + i]) - statistics.mean) * statistics.inverse_std,
                     a.weight[i], a.bias[i]);
      if (a.dropout.state != nullptr) y = dropped(a.dropout, y, start + i);
      a.y[start + i] = from_float<T>(y);
    }
    if (lane == 0) {
      a.mean[row] = statistics.mean;
      a.inverse_std[row] = statistics.inverse_std;
    }
  }
}

// ids, types and positions are tensors first to first + 2. There is a token.
voltaic_status describe_tokens(const voltaic_call* call, int first, int64_t vocabulary,
                               int64_t kinds, int64_t limit, Tokens* tokens,
                               IndexCheck (&checks)[3]) {
  *tokens = {{data<const int32_t>(call, first), data<const int32_t>(call, first + 1),
              data<const int32_t>(call, first + 2)},
             {vocabulary, kinds, limit},
             tensor(call, first).elements};
  if (vocabulary == 0 || kinds == 0 || limit == 0)
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "the embedding tables have %lld, %lld and %lld rows; expected at least one in each",
                (long long)vocabulary, (long long)kinds, (long long)limit);
  checks[0] = index_check(call, "embedding: ids");
  checks[1] = index_check(call, "embedding: types");
  checks[2] = index_check(call, "embedding: positions");
  return VOLTAIC_OK;
}

template <class T>
voltaic_status forward(const voltaic_call* call) {
  Forward<T> a = {};
  voltaic_status status = dropout_site(call, 8, 1, &a.dropout);
  const int64_t tokens = tensor(call, 0).elements;
  if (status != VOLTAIC_OK || tokens == 0) return status;
  status = describe_tokens(call, 0, tensor(call, 3).shape[0], tensor(call, 4).shape[0],
                           tensor(call, 5).shape[0], &a.tokens, a.checks);
  if (status != VOLTAIC_OK) return status;
  for (int table = 0; table < 3; table++) a.tables[table] = data<const T>(call, 3 + table);
  a.weight = data<const float>(call, 6);
  a.bias = data<const float>(call, 7);
  a.sum = data<T>(call, 9);
  a.y = data<T>(call, 10);
  a.mean = data<float>(call, 11);
  a.inverse_std = data<float>(call, 12);
  a.width = tensor(call, 3).shape[1];
  a.lanes = lanes_of_row(a.width);
  a.epsilon = static_cast<float>(attribute(call, 0));
  if (row_fits_a_warp(a.width) && aligned_16(a.tables[0], a.tables[1], a.tables[2]) &&
      aligned_16(a.sum, a.y)) {
    const int64_t blocks =
        smaller(divide_up(tokens, kThreads / a.lanes), int64_t{8} * call->stream->processors);
    return with_units(a.width, [&](auto units) {
      // Once a step: fewer kernels to compile are worth some idle lanes.
      constexpr int own = units.value > 1 ? 4 : 1;
      return launch(call, forward_rows<T, own>, dim3(static_cast<unsigned>(blocks)), kThreads,
                    2 * kParameterFloats<own> * sizeof(float), a);
    });
  }
  return launch(call, forward_any_rows<T>, blocks_of_rows(call, tokens, a.width), kAnyThreads, 0, a,
                threads_of_row(a.width));
}

// Cuts one buffer into parts of whole 256 bytes; with no buffer, only counts them.
struct Cutter {
  char* buffer;
  size_t used;

  template <class T>
  T* take(int64_t count) {
    T* const part = reinterpret_cast<T*>(buffer == nullptr ? nullptr : buffer + used);
    used += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
};
struct BackwardScratch {
  void* sort;
  float *gradients, *chunk_partials, *parameter_partials;
};
size_t cut_scratch(char* buffer, int64_t pairs, int64_t tokens, int64_t stride,
                   const BackwardCut& cut, BackwardScratch* out) {
  Cutter cutter = {buffer, 0};
  out->sort = cutter.take<char>(static_cast<int64_t>(sort_bytes(pairs)));
  out->gradients = cutter.take<float>(tokens * stride);
  out->chunk_partials = cutter.take<float>(divide_up(pairs, kChunk) * 2 * stride);
  out->parameter_partials =
      cutter.take<float>(static_cast<int64_t>(cut.partial_bytes / sizeof(float)));
  return cutter.used;
}

template <class T>
voltaic_status backward(const voltaic_call* call) {
  Backward<T> a = {};
  voltaic_status status = dropout_site(call, 8, 0, &a.dropout);
  a.rows = tensor(call, 0).shape[0];
  a.width = tensor(call, 0).shape[1];
  if (status != VOLTAIC_OK || a.rows == 0) return status;
  Tokens tokens;
  IndexCheck checks[3];
  status = describe_tokens(call, 1, tensor(call, 9).shape[0], tensor(call, 10).shape[0],
                           tensor(call, 11).shape[0], &tokens, checks);
  if (status != VOLTAIC_OK || a.width == 0) return status;
  const int64_t vocabulary = tokens.limits[0], kinds = tokens.limits[1];
  const int64_t all_rows = vocabulary + kinds + tokens.limits[2], pairs = 3 * a.rows;
  if (all_rows > int64_t{1} << 32 || pairs >= int64_t{1} << 31)
    return fail(
        call, VOLTAIC_ERROR_ARGUMENT,
        "embedding_backward: %lld table rows and %lld tokens; expected at most 2^32 rows in "
        "all and fewer than 2^31 / 3 tokens",
        (long long)all_rows, (long long)a.rows);
  Tables tables = {{data<float>(call, 9), data<float>(call, 10), data<float>(call, 11)},
                   {0, vocabulary, vocabulary + kinds},
                   a.width,
                   false};
  tables.aligned = a.width % 4 == 0 && aligned_16(tables.rows[0], tables.rows[1], tables.rows[2]);

  a.y_gradient = data<const T>(call, 0);
  a.x = data<const T>(call, 4);
  a.mean = data<const float>(call, 5);
  a.inverse_std = data<const float>(call, 6);
  a.weight = data<const float>(call, 7);
  a.row_stride = divide_up(a.width, 4) * 4;
  const BackwardCut cut =
      cut_backward(a.rows, a.width, row_fits_a_warp(a.width) && aligned_16(a.y_gradient, a.x));
  BackwardScratch scratch;
  const size_t bytes = cut_scratch(nullptr, pairs, a.rows, a.row_stride, cut, &scratch);
  char* const buffer = static_cast<char*>(cuda::scratch(call, bytes));
  if (buffer == nullptr) return VOLTAIC_ERROR_OUT_OF_MEMORY;
  cut_scratch(buffer, pairs, a.rows, a.row_stride, cut, &scratch);
  a.row_gradient = scratch.gradients;
  a.partials = scratch.parameter_partials;

  const TokenKeys keys = {tokens,
                          {tables.firsts[0], tables.firsts[1], tables.firsts[2]},
                          {checks[0], checks[1], checks[2]}};
  Sorted sorted;
  status = sort_indices(call, keys, pairs, key_bits(all_rows - 1), scratch.sort, nullptr, &sorted);
  if (status == VOLTAIC_OK)
    status = run_backward<T, embedded>(call, a, cut, data<float>(call, 12), data<float>(call, 13));
  if (status == VOLTAIC_OK)
    status = add_to_tables(call, sorted, a.rows, scratch.gradients, a.row_stride, tables,
                           scratch.chunk_partials);
  return status;
}

voltaic_status embedding_forward(const voltaic_call* call) {
  return with_float(tensor(call, 3).dtype, [&]<class T>(T*) { return forward<T>(call); });
}
voltaic_status embedding_backward(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return backward<T>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(embedding, {"embedding_forward", embedding_forward},
                     {"embedding_backward", embedding_backward})

}  // namespace voltaic
