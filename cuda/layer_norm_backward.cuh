// The gradient of layer normalisation, for the layer_norm and embedding kernels:
//
//   g = y_gradient weight
//   x_gradient = inverse_std (g - mean(g) - x_hat mean(g x_hat))
//   weight_gradient += sum over rows of y_gradient x_hat
//   bias_gradient += sum over rows of y_gradient
//
// A block of 8 warps takes a contiguous range of rows, a row in the registers of a warp
// (layer_norm_rows.cuh). A lane keeps the sums of its columns of both parameter gradients in
// registers over all its rows; at the end the warps add theirs in shared memory, one after the
// other, and the block writes one partial row of each, which a second kernel adds in order. The
// next row is under way while one is worked on, where registers allow; both passes over a row
// unpack it anew instead of keeping it in fp32, so that two blocks fit a processor up to 768
// elements of bf16: 16 warps with 3 KB each under way.
//
// How many blocks there are follows from the shape alone, and with them the order of all additions.
// It is a multiple of 264, two for each of an H100's or H200's 132 processors, from about 8,400
// rows on: below, a warp has four rows, so that partials (16 bytes per column and block, in the L2
// cache) stay small beside the rows.
//
// Rows that no warp holds: a kernel for the row's gradient that reads a row twice, and one for the
// parameters with a thread per column.
#pragma once
#include "layer_norm_rows.cuh"

namespace voltaic {
namespace {

constexpr int kBackwardThreads = 256;
constexpr int kBackwardBlocks = 264;
constexpr int kColumnThreads = 128;  // of the kernel that takes any width
constexpr int kAddColumns = 32, kAddRows = 16;

// What the gradient of the rows is for.
enum Gradient {
  normalised,  // x_gradient, or residual_gradient and x_gradient = dropout(residual_gradient)
  embedded,    // row_gradient in fp32; y_gradient passes the dropout first
};

template <class T>
struct Backward {
  const T *y_gradient, *x;
  const float *mean, *inverse_std, *weight;
  T *x_gradient, *residual_gradient;  // the second may be null: then there is no dropout
  float* row_gradient;
  int64_t row_stride;  // of row_gradient, a multiple of 4
  float* partials;     // [blocks, 2, width]
  int64_t rows, rows_of_block, width;
  int lanes;
  DropoutSite dropout;
};

// Narrow rows go two at a time, so that enough bytes are under way. The next rows are loaded before
// these are done, except where their registers would not fit: with the sums, 128 hold two rows of
// three words of bf16. fp32 rows above 256 elements leave a processor one block of 8 warps, with 6
// or 8 KB each under way.
template <class T, int units>
constexpr int kBackwardRows = units == 1 ? 2 : 1;
template <class T, int units>
constexpr bool kLoadsAhead = sizeof(T) == 4 || units <= 3;
// Blocks of a processor, at least. The embedding's, once a step, are not worth counting registers
// for.
template <class T, int units, Gradient kind>
constexpr int kBackwardResident = kind == embedded || (sizeof(T) == 4 && units >= 3) ? 1 : 2;

template <class T, int units, Gradient kind>
__global__ void __launch_bounds__(kBackwardThreads, (kBackwardResident<T, units, kind>))
    backward_rows(Backward<T> a) {
  constexpr int words = kWords<T, units>, per_word = kPerWord<T>,
                together = kBackwardRows<T, units>;
  constexpr bool ahead = kLoadsAhead<T, units>;
  DYNAMIC_SHARED(float, weight);  // then the sums of weight_gradient and bias_gradient
  const int width = static_cast<int>(a.width);
  const RowLane<T, units> at(width, a.lanes);
  const RowDropout dropout(a.dropout);
  const float share = 1.0f / static_cast<float>(width);
  // Rows are counted from the block's first: 32 bits hold their elements (cut_backward).
  const int64_t begin = blockIdx.x * a.rows_of_block, base = begin * width;
  const int count =
      static_cast<int>(a.rows - begin < a.rows_of_block ? a.rows - begin : a.rows_of_block);
  const int step = kBackwardThreads / at.lanes;
  const int row_in_warp = units == 1 ? static_cast<int>(threadIdx.x) % 32 / at.lanes : 0;
  int row = static_cast<int>(threadIdx.x) / at.lanes;

  struct Row {
    uint4 y_gradient[words], x[words];
    RowStatistics statistics;
  };
  const auto load = [&](Row& to, int from) {
    const bool there = from < count;
    load_row(at, a.y_gradient + (base + from * width), there, to.y_gradient);
    load_row(at, a.x + (base + from * width), there, to.x);
    to.statistics = {there ? a.mean[begin + from] : 0.0f,
                     there ? a.inverse_std[begin + from] : 0.0f};
  };
  Row next[together];
  if constexpr (ahead) {
#pragma unroll
    for (int r = 0; r < together; r++) load(next[r], row + r * step);
  }
  fill_parameters<T, units>(a.weight, weight, width);
  __syncthreads();

  float weight_sum[words][per_word] = {}, bias_sum[words][per_word] = {};
  // The lanes of a warp go round together: the first of its rows decides.
  for (; row - row_in_warp < count; row += together * step) {
    uint32_t kept[together];
#pragma unroll
    for (int r = 0; r < together; r++)
      kept[r] =
          dropout.on()
              ? kept_of_row(dropout, static_cast<uint64_t>(base + (row + r * step) * width) / 8, at)
              : 0;
    Row rows[together];
#pragma unroll
    for (int r = 0; r < together; r++) {
      if constexpr (ahead) {
        rows[r] = next[r];
      } else {
        load(rows[r], row + r * step);
      }
    }
    if constexpr (ahead) {
#pragma unroll
      for (int r = 0; r < together; r++) load(next[r], row + (together + r) * step);
    }

    // Word i of y_gradient; one that passes the dropout first does so in fp32.
    const auto unpack_gradient = [&](int r, int i, float(&gradient)[per_word]) {
      unpack(rows[r].y_gradient[i], gradient);
      if constexpr (kind == embedded) {
        if (!dropout.on()) return;
#pragma unroll
        for (int k = 0; k < per_word; k++)
          gradient[k] = dropout.apply(gradient[k], kept[r], i * per_word + k);
      }
    };
#pragma unroll
    for (int r = 0; r < together; r++) {
      const int own_row = row + r * step;
      const bool there = own_row < count;
      const int64_t element = base + own_row * width;
      const float mean = rows[r].statistics.mean, inverse_std = rows[r].statistics.inverse_std;
      float sums[2] = {}, products[2] = {};
#pragma unroll
      for (int i = 0; i < words; i++) {
        if (!at.has(i) || !there) continue;
        float gradient[per_word], x[per_word], w[per_word];
        unpack_gradient(r, i, gradient);
        unpack(rows[r].x[i], x);
        parameters_of(weight, at.word(i), at.plane, w);
#pragma unroll
        for (int k = 0; k < per_word; k++) {
          const float x_hat = (x[k] - mean) * inverse_std, g = gradient[k] * w[k];
          sums[k % 2] += g;
          products[k % 2] = fmaf(g, x_hat, products[k % 2]);
          weight_sum[i][k] = fmaf(gradient[k], x_hat, weight_sum[i][k]);
          bias_sum[i][k] += gradient[k];
        }
      }
      const float mean_g = group_sum(sums[0] + sums[1], at.lanes) * share;
      const float mean_product = group_sum(products[0] + products[1], at.lanes) * share;
#pragma unroll
      for (int i = 0; i < words; i++) {
        if (!at.has(i) || !there) continue;
        float gradient[per_word], x[per_word], w[per_word];
        unpack_gradient(r, i, gradient);
        unpack(rows[r].x[i], x);
        parameters_of(weight, at.word(i), at.plane, w);
#pragma unroll
        for (int k = 0; k < per_word; k++) {
          const float x_hat = (x[k] - mean) * inverse_std, g = gradient[k] * w[k];
          gradient[k] = fmaf(x_hat, -mean_product, g - mean_g) * inverse_std;
        }
        if constexpr (kind == embedded) {
          float* const to = a.row_gradient + element + at.word(i) * per_word;
#pragma unroll
          for (int k = 0; k < per_word; k += 4)
            *reinterpret_cast<float4*>(to + k) =
                make_float4(gradient[k], gradient[k + 1], gradient[k + 2], gradient[k + 3]);
        } else {
          uint4 word = packed(gradient);
          if (a.residual_gradient != nullptr)
            reinterpret_cast<uint4*>(a.residual_gradient + element)[at.word(i)] = word;
          if (dropout.on()) {
            unpack(word, gradient);  // as it was rounded
#pragma unroll
            for (int k = 0; k < per_word; k++)
              gradient[k] = dropout.apply(gradient[k], kept[r], i * per_word + k);
            word = packed(gradient);
          }
          reinterpret_cast<uint4*>(a.x_gradient + element)[at.word(i)] = word;
        }
      }
    }
  }

  // The rows of a warp, then the warps in order.
  float* const weight_total = weight + kParameterFloats<units>;
  float* const bias_total = weight_total + kParameterFloats<units>;
  if (units == 1) {
    for (int mask = at.lanes; mask < 32; mask *= 2) {
#pragma unroll
      for (int i = 0; i < words; i++) {
#pragma unroll
        for (int k = 0; k < per_word; k++) {
          weight_sum[i][k] += __shfl_xor_sync(kAllLanes, weight_sum[i][k], mask);
          bias_sum[i][k] += __shfl_xor_sync(kAllLanes, bias_sum[i][k], mask);
        }
      }
    }
  }
  const int own_warp = threadIdx.x / 32, own_lane = threadIdx.x % 32;
  for (int warp = 0; warp < kBackwardThreads / 32; warp++) {
    if (own_warp == warp && own_lane < at.lanes) {
#pragma unroll
      for (int i = 0; i < words; i++) {
        if (!at.has(i)) continue;
#pragma unroll
        for (int h = 0; h < per_word / 4; h++) {
          const int place = h * at.plane + at.word(i);
          float4* const to_weight = reinterpret_cast<float4*>(weight_total) + place;
          float4* const to_bias = reinterpret_cast<float4*>(bias_total) + place;
          float4 w = warp == 0 ? make_float4(0, 0, 0, 0) : *to_weight;
          float4 b = warp == 0 ? make_float4(0, 0, 0, 0) : *to_bias;
          w = make_float4(w.x + weight_sum[i][4 * h], w.y + weight_sum[i][4 * h + 1],
                          w.z + weight_sum[i][4 * h + 2], w.w + weight_sum[i][4 * h + 3]);
          b = make_float4(b.x + bias_sum[i][4 * h], b.y + bias_sum[i][4 * h + 1],
                          b.z + bias_sum[i][4 * h + 2], b.w + bias_sum[i][4 * h + 3]);
          *to_weight = w;
          *to_bias = b;
        }
      }
    }
    __syncthreads();
  }
  float* const partial = a.partials + blockIdx.x * int64_t{2} * width;
  for (int i = threadIdx.x; i < width; i += kBackwardThreads) {
    const int place = shared_place<T, units>(i);
    partial[i] = weight_total[place];
    partial[width + i] = bias_total[place];
  }
}

// ---- any width, any address
template <class T, Gradient kind>
__device__ __forceinline__ float gradient_at(const Backward<T>& a, int64_t element) {
  const float gradient = to_float(a.y_gradient[element]);
  if (kind != embedded || a.dropout.state == nullptr) return gradient;
  return dropped(a.dropout, gradient, element);
}

template <class T, Gradient kind>
__global__ void __launch_bounds__(kAnyThreads, 4) backward_any_rows(Backward<T> a, int threads) {
  __shared__ float room[kAnyThreads / 32];
  const int lane = threadIdx.x & (threads - 1);
  const float share = 1.0f / static_cast<float>(a.width);
  const int64_t rows_of_block = kAnyThreads / threads;
  for (int64_t row = blockIdx.x * rows_of_block + threadIdx.x / threads; row < a.rows;
       row += gridDim.x * rows_of_block) {
    const float mean = a.mean[row], inverse_std = a.inverse_std[row];
    const int64_t start = row * a.width;
    float sum = 0, product = 0;
#pragma unroll 1
    for (int64_t i = lane; i < a.width; i += threads) {
      // Rounded by itself: where it is its own mean, as in rows of one element, the rest is exactly
      // 0.
      const float g = __fmul_rn(gradient_at<T, kind>(a, start + i), a.weight[i]);
      sum += g;
      product = fmaf(g, (to_float(a.x[start + i]) - mean) * inverse_std, product);
    }
    const float mean_g = row_sum(sum, threads, room) * share;
    const float mean_product = row_sum(product, threads, room) * share;
#pragma unroll 1
    for (int64_t i = lane; i < a.width; i += threads) {
      const float g = __fmul_rn(gradient_at<T, kind>(a, start + i), a.weight[i]);
      const float x_hat = (to_float(a.x[start + i]) - mean) * inverse_std;
      const float gradient = fmaf(x_hat, -mean_product, g - mean_g) * inverse_std;
      if constexpr (kind == embedded) {
        a.row_gradient[row * a.row_stride + i] = gradient;
      } else {
        T stored = from_float<T>(gradient);
        if (a.residual_gradient != nullptr) a.residual_gradient[start + i] = stored;
        if (a.dropout.state != nullptr)
          stored = from_float<T>(dropped(a.dropout, to_float(stored), start + i));
        a.x_gradient[start + i] = stored;
      }
    }
  }
}

// partials of a block's rows, a thread a column.
template <class T, Gradient kind>
__global__ void __launch_bounds__(kColumnThreads) backward_any_columns(Backward<T> a) {
  const int64_t column = blockIdx.y * int64_t{kColumnThreads} + threadIdx.x;
  if (column >= a.width) return;
  const int64_t begin = blockIdx.x * a.rows_of_block;
  const int64_t end = begin + a.rows_of_block < a.rows ? begin + a.rows_of_block : a.rows;
  float weight_sum = 0, bias_sum = 0;
#pragma unroll 1
  for (int64_t row = begin; row < end; row++) {
    const int64_t element = row * a.width + column;
    const float gradient = gradient_at<T, kind>(a, element);
    weight_sum =
        fmaf(gradient, (to_float(a.x[element]) - a.mean[row]) * a.inverse_std[row], weight_sum);
    bias_sum += gradient;
  }
  float* const partial = a.partials + blockIdx.x * 2 * a.width;
  partial[column] = weight_sum;
  partial[a.width + column] = bias_sum;
}

// gradients += the partials, row kAddRows i + r by threads r in order, then those in order.
__global__ void __launch_bounds__(kAddColumns* kAddRows)
    add_partials(const float* __restrict__ partials, int64_t count, int64_t width,
                 float* weight_gradient, float* bias_gradient) {
  __shared__ float sums[kAddRows][kAddColumns];
  const int r = threadIdx.x / kAddColumns, c = threadIdx.x % kAddColumns;
  const int64_t column = blockIdx.x * int64_t{kAddColumns} + c;
  float sum = 0;
  if (column < 2 * width) {
#pragma unroll 4
    for (int64_t i = r; i < count; i += kAddRows) sum += partials[i * 2 * width + column];
  }
  sums[r][c] = sum;
  __syncthreads();
  if (r != 0 || column >= 2 * width) return;
#pragma unroll
  for (int i = 1; i < kAddRows; i++) sum += sums[i][c];
  float* const to = column < width ? weight_gradient + column : bias_gradient + (column - width);
  *to += sum;
}

// ---- host
struct BackwardCut {
  int64_t blocks, rows_of_block;
  bool in_registers;
  size_t partial_bytes;
};

inline BackwardCut cut_backward(int64_t rows, int64_t width, bool in_registers) {
  const int64_t at_once = kBackwardThreads / lanes_of_row(width);
  int64_t rows_of_block;
  if (in_registers) {
    // Four rows a warp, then eight in each of up to four rounds of blocks.
    const int64_t small = divide_up(rows, 4 * at_once);
    const int64_t rounds = larger(1, smaller(4, rows / (8 * at_once * kBackwardBlocks)));
    rows_of_block = divide_up(rows, smaller(small, rounds * kBackwardBlocks));
    rows_of_block = smaller(rows_of_block, (int64_t{1} << 30) / width);
    rows_of_block = divide_up(rows_of_block, at_once) * at_once;
  } else {
    rows_of_block = larger(64, divide_up(rows, 1024));
  }
  const int64_t blocks = divide_up(rows, rows_of_block);
  return {blocks, rows_of_block, in_registers,
          static_cast<size_t>(blocks * 2 * width) * sizeof(float)};
}

// The rows' gradients, and with weight_gradient and bias_gradient the parameters': a holds
// everything but what the cut decides. There is at least one row and one column.
template <class T, Gradient kind>
inline voltaic_status run_backward(const voltaic_call* call, Backward<T> a, const BackwardCut& cut,
                                   float* weight_gradient, float* bias_gradient) {
  a.rows_of_block = cut.rows_of_block;
  a.lanes = lanes_of_row(a.width);
  voltaic_status status = VOLTAIC_OK;
  if (cut.in_registers) {
    status = with_units(a.width, [&](auto units) {
      // Once a step: fewer kernels to compile are worth some idle lanes.
      constexpr int own = kind == embedded && units.value > 1 ? 4 : units.value;
      return launch(call, backward_rows<T, own, kind>, dim3(static_cast<unsigned>(cut.blocks)),
                    kBackwardThreads, 3 * kParameterFloats<own> * sizeof(float), a);
    });
  } else {
    const dim3 columns(static_cast<unsigned>(cut.blocks),
                       static_cast<unsigned>(divide_up(a.width, kColumnThreads)));
    status = launch(call, backward_any_columns<T, kind>, columns, kColumnThreads, 0, a);
    if (status != VOLTAIC_OK) return status;
    status = launch(call, backward_any_rows<T, kind>, blocks_of_rows(call, a.rows, a.width),
                    kAnyThreads, 0, a, threads_of_row(a.width));
  }
  if (status != VOLTAIC_OK) return status;
  return launch(call, add_partials, blocks_for(2 * a.width, kAddColumns), kAddColumns * kAddRows, 0,
                a.partials, cut.blocks, a.width, weight_gradient, bias_gradient);
}

}  // namespace
}  // namespace voltaic
