// The gradients of the embedding block's three tables: table[number] += gradient[token] for each
// token's word, type and position, in an order that follows from the numbers alone.
//
// The tables count as one with vocabulary + kinds + limit rows, so that one sort by row
// (sort_indices.cuh, stable: a row's tokens ascend) and two launches serve all three. The sorted
// list of 3 tokens is cut into chunks of 64 whatever it holds, a block a chunk: it sums the runs of
// equal rows, a thread for four columns. A run that lies within one chunk is added to its table row
// there; a run cut by a border leaves one partial in each chunk it touches, which a second kernel
// adds in the order of the chunks (eight sums a column, each of every eighth chunk, then those in
// order). So a word or a type that fills the batch is as parallel as rare ones, every table row has
// one writer, and no long sum runs through one accumulator. Bytes: each token's fp32 gradient row
// three times, from the L2 cache where it fits, and every table row met once in and out.
#pragma once
#include "sort_indices.cuh"

namespace voltaic {
namespace {

constexpr int kChunk = 64;
constexpr int kChunkLoads = 8;  // rows under way at once
constexpr int kMostChunkThreads = 256;
constexpr int kJoinColumns = 32, kJoinRows = 8;

struct Tables {
  float* rows[3];     // word, type, position: [limits[i], width]
  int64_t firsts[3];  // the number of a table's first row, all three counted as one
  int64_t width;
  bool aligned;  // four columns may be read and written at once
};

// Where the row with this number begins.
__device__ __forceinline__ float* table_row(const Tables& tables, int64_t number) {
  const int table = number >= tables.firsts[2] ? 2 : number >= tables.firsts[1] ? 1 : 0;
  float* const rows = table == 2 ? tables.rows[2] : table == 1 ? tables.rows[1] : tables.rows[0];
  const int64_t first = table == 2 ? tables.firsts[2] : table == 1 ? tables.firsts[1] : 0;
  return rows + (number - first) * tables.width;
}

struct Tokens {
  const int32_t* numbers[3];  // ids, types, positions
  int64_t limits[3];
  int64_t count;
};

// Pair table * tokens + token has the number of the token's row as its key. A number out of range
// is reported and counts as row 0 of its table.
struct TokenKeys {
  Tokens tokens;
  int64_t firsts[3];  // of Tables
  IndexCheck checks[3];

  __device__ __forceinline__ uint32_t operator()(int64_t pair) const {
    uint32_t key = 0;
#pragma unroll
    for (int table = 0; table < 3; table++) {
      const int64_t token = pair - table * tokens.count;
      if (token < 0 || token >= tokens.count) continue;
      const int64_t number = tokens.numbers[table][token];
      const bool good = in_range(checks[table], token, number, 0, tokens.limits[table] - 1);
      key = static_cast<uint32_t>(firsts[table] + (good ? number : 0));
    }
    return key;
  }
};

// gradients, and partials of [chunks, 2]: rows of `stride` numbers, a multiple of 4. A chunk's
// first partial is of a run that began before it, the second of one that begins in it and goes on
// behind it. A thread has `columns` neighbouring columns: 4, or 1 where the tables' rows are not
// aligned.
template <int columns>
__global__ void __launch_bounds__(kMostChunkThreads)
    sum_chunks(Sorted sorted, int64_t count, int64_t tokens, const float* __restrict__ gradients,
               int64_t stride, Tables tables, float* partials) {
  using Columns = Pack<float, columns>;
  __shared__ const float* from[kChunk];
  __shared__ float* to[kChunk];  // where the run that ends with this token goes; null: it goes on
  __shared__ bool adds[kChunk];  // to what is there; otherwise it is a partial, which is written
  const int64_t begin = blockIdx.x * int64_t{kChunk};
  const int length = count - begin < kChunk ? static_cast<int>(count - begin) : kChunk;
  const uint32_t* const numbers = sorted.keys + begin;
  for (int i = threadIdx.x; i < kChunk; i += blockDim.x) {
    from[i] = gradients;
    to[i] = nullptr;
    adds[i] = false;
    if (i >= length) continue;
    const uint32_t number = numbers[i];
    const bool last = i + 1 == length;
    const bool from_before =
        begin > 0 && number == numbers[-1];  // sorted: then all between are equal
    const bool goes_on = begin + i + 1 < count && number == numbers[i + 1];
    const int64_t pair = sorted.order[begin + i];
    from[i] = gradients + (pair - (pair >= 2 * tokens ? 2
                                   : pair >= tokens   ? 1
                                                      : 0) *
                                      tokens) *
                              stride;
    if (goes_on && !last) continue;
    adds[i] = !from_before && !goes_on;
    to[i] = adds[i] ? table_row(tables, number)
                    : partials + (blockIdx.x * int64_t{2} + (from_before ? 0 : 1)) * stride;
  }
  __syncthreads();
  for (int64_t column = threadIdx.x * columns; column < tables.width;
       column += blockDim.x * columns) {
    Columns sum = {};
#pragma unroll 1
    for (int first = 0; first < length; first += kChunkLoads) {
      // Everything that is read is under way before any of it is used: the runs of a batch go to
      // different rows.
      Columns loaded[kChunkLoads], there[kChunkLoads];
#pragma unroll
      for (int k = 0; k < kChunkLoads; k++) {
        const int i = first + k;
        loaded[k] = i < length ? load_pack<float, columns>(from[i] + column) : Columns{};
        there[k] = adds[i] ? load_pack<float, columns>(to[i] + column) : Columns{};
      }
#pragma unroll
      for (int k = 0; k < kChunkLoads; k++) {
        float* const target = to[first + k];
#pragma unroll
        for (int j = 0; j < columns; j++) {
          sum.values[j] += loaded[k].values[j];
          there[k].values[j] += sum.values[j];
          if (target != nullptr) sum.values[j] = 0;
        }
        if (target != nullptr) store_pack(target + column, there[k]);
      }
    }
  }
}

// A block for each chunk in which a run begins that goes on behind it; others leave at once.
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    join_chunks(const uint32_t* __restrict__ numbers, int64_t count, int64_t stride, Tables tables,
                const float* __restrict__ partials) {
  __shared__ float sums[kJoinRows][kJoinColumns];
  const int64_t chunk = blockIdx.x, begin = chunk * kChunk, behind = begin + kChunk;
  if (behind >= count) return;
  const uint32_t number = numbers[behind - 1];
  if (numbers[behind] != number) return;
  if (begin > 0 && numbers[begin - 1] == number) return;  // it began earlier
  int64_t low = behind, high = count;  // the run's last pair is low or behind it, and before high
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (numbers[middle] == number) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t last = low / kChunk;
  const int r = threadIdx.x / kJoinColumns, c = threadIdx.x % kJoinColumns;
  for (int64_t first = blockIdx.y * int64_t{kJoinColumns}; first < tables.width;
       first += int64_t{gridDim.y} * kJoinColumns) {
    const int64_t column = first + c;
    float sum = r == 0 && column < tables.width ? partials[(2 * chunk + 1) * stride + column] : 0;
    if (column < tables.width) {
#pragma unroll 4
      for (int64_t i = chunk + 1 + r; i <= last; i += kJoinRows)
        sum += partials[2 * i * stride + column];
    }
    sums[r][c] = sum;
    __syncthreads();
    if (r == 0 && column < tables.width) {
#pragma unroll
      for (int i = 1; i < kJoinRows; i++) sum += sums[i][c];
      table_row(tables, number)[column] += sum;
    }
    __syncthreads();
  }
}

// Adds the rows of gradients to the tables, from the sorted pairs of TokenKeys.
inline voltaic_status add_to_tables(const voltaic_call* call, const Sorted& sorted, int64_t tokens,
                                    const float* gradients, int64_t stride, const Tables& tables,
                                    float* partials) {
  const int64_t count = 3 * tokens;
  const unsigned chunks = static_cast<unsigned>(divide_up(count, kChunk));
  const int64_t own = tables.aligned ? 4 : 1;
  const unsigned threads = static_cast<unsigned>(
      smaller(divide_up(divide_up(tables.width, own), 32) * 32, kMostChunkThreads));
  const voltaic_status status =
      launch(call, tables.aligned ? sum_chunks<4> : sum_chunks<1>, chunks, threads, 0, sorted,
             count, tokens, gradients, stride, tables, partials);
  if (status != VOLTAIC_OK) return status;
  const dim3 grid(chunks,
                  static_cast<unsigned>(smaller(divide_up(tables.width, kJoinColumns), 65535)));
  return launch(call, join_chunks, grid, kJoinColumns * kJoinRows, 0, sorted.keys, count, stride,
                tables, partials);
}

}  // namespace
}  // namespace voltaic
