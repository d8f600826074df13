// Rows of layer normalisation in the registers of a warp: what the layer_norm and embedding kernels
// share. Formulas:
//
//   mean = sum x / width,  variance = sum (x - mean)^2 / width
//   inverse_std = 1 / sqrt(variance + epsilon),  x_hat = (x - mean) inverse_std
//   y = x_hat weight + bias
//
// A row of up to 1024 elements, a multiple of 8, lies in the registers of a group of lanes: 32, or
// 8 or 16 for up to 64 or 128 elements, so that narrow rows leave no lane idle. A lane has `units`
// times 8 elements, as words of 16 bytes: word i of a lane is word i * lanes + lane of the row, so
// that a warp reads whole sectors in both dtypes.
//
// The statistics take two passes over the registers. The first sums differences from the row's
// first element, the second centres on that mean and sums the deviations and their squares, which
// corrects the mean's rounding: a constant row gives exactly the bias even with epsilon 1e-12,
// where 1 / sqrt(epsilon) would otherwise blow the last bit of the mean up. The order of the sums
// is fixed by width alone.
#pragma once
#include "dropout.cuh"

namespace voltaic {
namespace {

struct RowStatistics {
  float mean, inverse_std;
};

constexpr int kWidestRow = 1024;  // elements of a row that a warp holds

// Elements of a 16-byte word, and a lane's words where it has units * 8 elements.
template <class T>
constexpr int kPerWord = 16 / static_cast<int>(sizeof(T));
template <class T, int units>
constexpr int kWords = units * 8 / kPerWord<T>;

inline int lanes_of_row(int64_t width) { return width <= 64 ? 8 : width <= 128 ? 16 : 32; }
inline bool row_fits_a_warp(int64_t width) {
  return width % 8 == 0 && width <= kWidestRow && width > 0;
}

// Where a thread stands: its lane in the row's group, and how rows are cut into words.
template <class T, int units>
struct RowLane {
  static constexpr int plane = kWords<T, units> * 32;  // see "parameters in shared memory"
  int lanes, lane, words;
  __device__ __forceinline__ RowLane(int width, int narrow_lanes)
      : lanes(units == 1 ? narrow_lanes : 32),
        lane(threadIdx.x & (lanes - 1)),
        words(width / kPerWord<T>) {}
  __device__ __forceinline__ int word(int i) const { return i * lanes + lane; }
  __device__ __forceinline__ bool has(int i) const { return word(i) < words; }
};

__device__ __forceinline__ float group_sum(float value, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

// ---- words and numbers
__device__ __forceinline__ void unpack(const uint4& word, float (&to)[4]) {
  to[0] = __uint_as_float(word.x);
  to[1] = __uint_as_float(word.y);
  to[2] = __uint_as_float(word.z);
  to[3] = __uint_as_float(word.w);
}
__device__ __forceinline__ void unpack(const uint4& word, float (&to)[8]) {
  to[0] = low_float(word.x);
  to[1] = high_float(word.x);
  to[2] = low_float(word.y);
  to[3] = high_float(word.y);
  to[4] = low_float(word.z);
  to[5] = high_float(word.z);
  to[6] = low_float(word.w);
  to[7] = high_float(word.w);
}
__device__ __forceinline__ uint4 packed(const float (&from)[4]) {
  return make_uint4(__float_as_uint(from[0]), __float_as_uint(from[1]), __float_as_uint(from[2]),
                    __float_as_uint(from[3]));
}
__device__ __forceinline__ uint4 packed(const float (&from)[8]) {
  return make_uint4(pack_bfloat16(from[0], from[1]), pack_bfloat16(from[2], from[3]),
                    pack_bfloat16(from[4], from[5]), pack_bfloat16(from[6], from[7]));
}

// Words that the row does not have, and all of a row that is not there, are zeros.
template <class T, int units>
__device__ __forceinline__ void load_row(const RowLane<T, units>& at, const T* row, bool there,
                                         uint4 (&words)[kWords<T, units>]) {
#pragma unroll
  for (int i = 0; i < kWords<T, units>; i++)
    words[i] = there && at.has(i) ? reinterpret_cast<const uint4*>(row)[at.word(i)]
                                  : make_uint4(0, 0, 0, 0);
}

// ---- parameters in shared memory, as fp32, kParameterFloats of them each: word w's elements 4 h
// to 4 h + 3 stand in float4 number h * plane + w, so that neighbouring lanes read neighbouring
// float4s in both dtypes, at offsets that the compiler knows.
template <int units>
constexpr int kParameterFloats = units * 256;

template <class T, int units>
__device__ __forceinline__ int shared_place(int column) {
  const int word = column / kPerWord<T>, element = column % kPerWord<T>;
  return (element / 4 * RowLane<T, units>::plane + word) * 4 + element % 4;
}
template <class T, int units>
__device__ __forceinline__ void fill_parameters(const float* from, float* to, int width) {
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[shared_place<T, units>(i)] = from[i];
}
template <int count>
__device__ __forceinline__ void parameters_of(const float* shared, int word, int plane,
                                              float (&to)[count]) {
#pragma unroll
  for (int h = 0; h < count / 4; h++) {
    const float4 four = reinterpret_cast<const float4*>(shared)[h * plane + word];
    to[4 * h] = four.x;
    to[4 * h + 1] = four.y;
    to[4 * h + 2] = four.z;
    to[4 * h + 3] = four.w;
  }
}

// ---- dropout of a row in words. The state is read once a thread, not once a block of numbers.
struct RowDropout {
  int32_t state[4];
  DropoutSite site;

  __device__ __forceinline__ explicit RowDropout(const DropoutSite& dropout) : site(dropout) {
#pragma unroll
    for (int i = 0; i < 4; i++) state[i] = dropout.state != nullptr ? dropout.state[i] : 0;
  }
  __device__ __forceinline__ bool on() const { return site.state != nullptr; }
  __device__ __forceinline__ uint32_t kept(const int32_t (&from)[4], uint64_t block) const {
    DropoutSite held = site;
    held.state = from;
    return kept_of_block(held, block);
  }
  // x scaled where `bit` of kept is set, otherwise 0.
  __device__ __forceinline__ float apply(float x, uint32_t kept, int bit) const {
    return kept >> bit & 1u ? x * site.scale : 0.0f;
  }
};

// Bit i * kPerWord + k: whether element k of the lane's word i is kept. A block of eight numbers
// serves one word of bf16. In fp32 it serves the same word of two neighbouring lanes: each draws
// one of two blocks and they exchange. Every lane of the warp must call it; row_blocks is the row's
// first block.
template <class T, int units>
__device__ __forceinline__ uint32_t kept_of_row(const RowDropout& dropout, uint64_t row_blocks,
                                                const RowLane<T, units>& at) {
  int32_t state[4];
#pragma unroll
  for (int i = 0; i < 4; i++) state[i] = dropout.state[i];
#if defined(__CUDACC__)
  // Philox's twenty round keys are made anew for each row: kept in registers from row to row they
  // would cost more than they save.
  asm volatile("" : "+r"(state[0]), "+r"(state[1]));
#endif
  uint32_t all = 0;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kWords<T, units>; i++)
      all |= dropout.kept(state, row_blocks + static_cast<uint32_t>(at.word(i))) << 8 * i;
  } else {
    const int odd = at.lane % 2;
#pragma unroll
    for (int i = 0; i < kWords<T, units>; i += 2) {
      const uint32_t own =
          dropout.kept(state, row_blocks + static_cast<uint32_t>(at.word(i + odd) / 2));
      const uint32_t other = __shfl_xor_sync(kAllLanes, own, 1);
      all |= ((odd ? other : own) >> 4 * odd & 15u) << 4 * i;
      all |= ((odd ? own : other) >> 4 * odd & 15u) << 4 * (i + 1);
    }
  }
  return all;
}

// ---- statistics of the row whose elements stand in v; every lane of the warp must call it.
template <class T, int units>
__device__ __forceinline__ RowStatistics
row_statistics(const RowLane<T, units>& at, const float (&v)[kWords<T, units>][kPerWord<T>],
               int width, float epsilon) {
  const float share = 1.0f / static_cast<float>(width);
  const float first = __shfl_sync(kAllLanes, v[0][0], (threadIdx.x & 31) & ~(at.lanes - 1));
  float sums[4] = {}, deviations[4] = {}, squares[4] = {};
#pragma unroll
  for (int i = 0; i < kWords<T, units>; i++) {
    if (!at.has(i)) continue;
#pragma unroll
    for (int k = 0; k < kPerWord<T>; k++) sums[k % 4] += v[i][k] - first;
  }
  const float sum = group_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), at.lanes);
  const float rough = fmaf(sum, share, first);
#pragma unroll
  for (int i = 0; i < kWords<T, units>; i++) {
    if (!at.has(i)) continue;
#pragma unroll
    for (int k = 0; k < kPerWord<T>; k++) {
      const float d = v[i][k] - rough;
      deviations[k % 4] += d;
      squares[k % 4] = fmaf(d, d, squares[k % 4]);
    }
  }
  const float deviation =
      group_sum((deviations[0] + deviations[1]) + (deviations[2] + deviations[3]), at.lanes);
  const float square = group_sum((squares[0] + squares[1]) + (squares[2] + squares[3]), at.lanes);
  const float correction = deviation * share;
  const float variance = square * share - correction * correction;
  const float floor = variance < 0.0f ? 0.0f : variance;  // a NaN passes
  return {rough + correction, 1.0f / sqrtf(floor + epsilon)};
}

// y from the elements v, which it overwrites with the normalised ones.
template <class T, int units>
__device__ __forceinline__ void normalise(const RowLane<T, units>& at,
                                          float (&v)[kWords<T, units>][kPerWord<T>],
                                          const RowStatistics& row, const float* weight,
                                          const float* bias) {
#pragma unroll
  for (int i = 0; i < kWords<T, units>; i++) {
    if (!at.has(i)) continue;
    float w[kPerWord<T>], b[kPerWord<T>];
    parameters_of(weight, at.word(i), at.plane, w);
    parameters_of(bias, at.word(i), at.plane, b);
#pragma unroll
    for (int k = 0; k < kPerWord<T>; k++)
      v[i][k] = fmaf((v[i][k] - row.mean) * row.inverse_std, w[k], b[k]);
  }
}

// ---- rows of any width, and at any address: `threads`, 32 or all of a block of 256, take a row's
// elements in turn and read them again for every pass, from the cache. Their loops are not
// unrolled: dropout would fill them with copies of Philox.
constexpr int kAnyThreads = 256;

inline int threads_of_row(int64_t width) { return width <= kWidestRow ? 32 : kAnyThreads; }
// Blocks that go round over the rows.
inline dim3 blocks_of_rows(const voltaic_call* call, int64_t rows, int64_t width) {
  return dim3(static_cast<unsigned>(smaller(divide_up(rows, kAnyThreads / threads_of_row(width)),
                                            int64_t{32} * call->stream->processors)));
}

__device__ __forceinline__ float row_sum(float value, int threads, float* room) {
  if (threads == 32) return warp_sum(value);
  const float sum = block_sum<kAnyThreads>(value, room);
  __syncthreads();
  return sum;
}

// The dropout of one element; a dropped one is 0 whatever it was.
__device__ __forceinline__ float dropped(const DropoutSite& dropout, float x, int64_t element) {
  const float factor = dropout_factor(dropout, static_cast<uint64_t>(element));
  return factor == 0.0f ? 0.0f : x * factor;
}

// Each thread must have written what it reads here itself, if this kernel wrote it. What deviations
// are taken from is rounded by name: fused into the differences, it would be another number there
// than in the mean.
template <class T>
__device__ __forceinline__ RowStatistics any_row_statistics(const T* x, int64_t width,
                                                            float epsilon, int threads,
                                                            float* room) {
  const int lane = threadIdx.x & (threads - 1);
  const float share = 1.0f / static_cast<float>(width);
  float sum = 0, deviation = 0, square = 0;
#pragma unroll 2
  for (int64_t i = lane; i < width; i += threads) sum += to_float(x[i]);
  const float rough = __fmul_rn(row_sum(sum, threads, room), share);
#pragma unroll 2
  for (int64_t i = lane; i < width; i += threads) deviation += to_float(x[i]) - rough;
  const float mean = fmaf(row_sum(deviation, threads, room), share, rough);
  deviation = 0;
#pragma unroll 2
  for (int64_t i = lane; i < width; i += threads) {
    const float d = to_float(x[i]) - mean;
    deviation += d;
    square = fmaf(d, d, square);
  }
  const float correction = row_sum(deviation, threads, room) * share;
  const float variance = row_sum(square, threads, room) * share - correction * correction;
  const float floor = variance < 0.0f ? 0.0f : variance;  // a NaN passes
  return {mean + correction, 1.0f / sqrtf(floor + epsilon)};
}

// Calls body with an integral constant: the units of 8 elements that a lane has. No kernel is made
// for two: models with rows of 264 to 512 elements are rare, and three serve them.
template <int value_>
struct Units {
  static constexpr int value = value_;
};
template <class Body>
inline voltaic_status with_units(int64_t width, Body&& body) {
  if (width <= 256) return body(Units<1>());
  if (width <= 768) return body(Units<3>());
  return body(Units<4>());
}

}  // namespace
}  // namespace voltaic
