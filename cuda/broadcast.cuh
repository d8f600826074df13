// The one kernel of all element-wise ops: result[i] = op(first[i], second[i], third[i]), with NumPy
// broadcasting planned by native/engine/broadcast_plan.h.
//
// Bytes moved: each operand once and the result once. The result's collapsed axes are walked in
// packs of neighbours, as wide as 16 bytes of the widest type; a thread loads kUnroll packs of each
// operand before it uses the first, which keeps 64 bytes or more of each thread under way. A pack
// never crosses a row, so an operand's part of it is either a pack too or one repeated number, and
// finding it costs one multiplication an axis for the whole pack. That serves arrays of one shape,
// scalars, rows
// ([rows, width] with [width]) and columns alike. Where rows are no whole packs, or an operand does
// not start at a pack's boundary, the same kernel runs with packs of one number, a warp reading
// neighbours. Offsets fit 32 bits: the host cuts larger results in pieces.
//
// An op is a struct with First, Second, Third, Result, kInputs, kPack, kUnroll and
// apply(result, first, second, third) on packs. An element depends on nothing but its operands; a
// thread reads all its operands before it writes, so the result may be an operand's memory.
#pragma once
#include "../native/engine/broadcast_plan.h"
#include "index_math.cuh"

namespace voltaic {
namespace {

constexpr int kBroadcastThreads = 256;

template <int inputs>
struct BroadcastLayout {
  int rank;
  Divisor sizes[VOLTAIC_MAX_RANK];  // innermost first, axis 0 in packs
  uint32_t strides[inputs][VOLTAIC_MAX_RANK];
  bool repeated[inputs];  // one number for the whole pack
};

template <int inputs>
__device__ __forceinline__ void locate(const BroadcastLayout<inputs>& layout, uint32_t at,
                                       uint32_t (&offsets)[inputs]) {
#pragma unroll
  for (int i = 0; i < inputs; i++) offsets[i] = 0;
#pragma unroll
  for (int d = 0; d < VOLTAIC_MAX_RANK; d++) {
    if (d >= layout.rank) break;
    uint32_t coordinate = at;
    if (d < layout.rank - 1) {
      const uint32_t rest = layout.sizes[d].quotient(at);
      coordinate = at - rest * layout.sizes[d].divisor;
      at = rest;
    }
#pragma unroll
    for (int i = 0; i < inputs; i++) offsets[i] += coordinate * layout.strides[i][d];
  }
}

template <int width, class T>
__device__ __forceinline__ Pack<T, width> load_operand(const void* from, uint32_t offset,
                                                       bool repeated) {
  const T* const at = static_cast<const T*>(from) + offset;
  if (width > 1 && !repeated) return load_pack<T, width>(at);
  Pack<T, width> pack;
  const T value = *at;
#pragma unroll
  for (int i = 0; i < width; i++) pack.values[i] = value;
  return pack;
}

struct BroadcastPointers {
  const void* inputs[kMostInputs];
  void* result;
};

// The operands of one pack.
template <class Op, int width>
struct Operands {
  Pack<typename Op::First, width> first;
  Pack<typename Op::Second, width> second;
  Pack<typename Op::Third, width> third;

  __device__ __forceinline__ void load(const BroadcastPointers& pointers,
                                       const uint32_t (&offsets)[Op::kInputs],
                                       const bool (&repeated)[Op::kInputs]) {
    first = load_operand<width, typename Op::First>(pointers.inputs[0], offsets[0], repeated[0]);
    if constexpr (Op::kInputs > 1)
      second =
          load_operand<width, typename Op::Second>(pointers.inputs[1], offsets[1], repeated[1]);
    if constexpr (Op::kInputs > 2)
      third = load_operand<width, typename Op::Third>(pointers.inputs[2], offsets[2], repeated[2]);
  }
  __device__ __forceinline__ Pack<typename Op::Result, width> apply(const Op& op) const {
    Pack<typename Op::Result, width> result;
    if constexpr (Op::kInputs == 1) op.apply(result, first);
    if constexpr (Op::kInputs == 2) op.apply(result, first, second);
    if constexpr (Op::kInputs == 3) op.apply(result, first, second, third);
    return result;
  }
};

// `tail` numbers follow the packs, where there is one axis only.
template <class Op, int width, int unroll>
__global__ void __launch_bounds__(kBroadcastThreads)
    broadcast_kernel(Op op, BroadcastLayout<Op::kInputs> layout, BroadcastPointers pointers,
                     uint32_t packs, uint32_t tail) {
  auto* const result = static_cast<typename Op::Result*>(pointers.result);
  const uint32_t start = blockIdx.x * (kBroadcastThreads * unroll) + threadIdx.x;
  Operands<Op, width> operands[unroll];
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    const uint32_t at = start + u * kBroadcastThreads;
    if (at >= packs) break;
    uint32_t offsets[Op::kInputs];
    locate(layout, at, offsets);
    operands[u].load(pointers, offsets, layout.repeated);
  }
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    const uint32_t at = start + u * kBroadcastThreads;
    if (at >= packs) break;
    store_pack(result + static_cast<size_t>(at) * width, operands[u].apply(op));
  }
  if (width == 1 || blockIdx.x > 0 || threadIdx.x >= tail) return;
  const uint32_t at = packs * width + threadIdx.x;
  uint32_t offsets[Op::kInputs];
#pragma unroll
  for (int i = 0; i < Op::kInputs; i++) offsets[i] = layout.repeated[i] ? 0 : at;
  Operands<Op, 1> operand;
  operand.load(pointers, offsets, layout.repeated);
  store_pack(result + at, operand.apply(op));
}

inline bool starts_pack(const void* pointer, int64_t pack_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(pack_bytes) == 0;
}

template <class Op, int width, int unroll>
voltaic_status launch_packs(const voltaic_call* call, const Op& op, const Broadcast& plan,
                            void* result) {
  BroadcastLayout<Op::kInputs> layout;
  BroadcastPointers pointers = {{}, result};
  layout.rank = plan.rank;
  for (int d = 0; d < plan.rank; d++)
    layout.sizes[d] = divisor_of(larger(1, d == 0 ? plan.sizes[0] / width : plan.sizes[d]));
  for (int i = 0; i < Op::kInputs; i++) {
    const BroadcastInput& input = plan.input[i];
    pointers.inputs[i] = input.data;
    layout.repeated[i] = input.strides[0] == 0;
    for (int d = 0; d < plan.rank; d++)
      layout.strides[i][d] = static_cast<uint32_t>(input.strides[d] * (d == 0 ? width : 1));
  }
  const int64_t packs = plan.elements / width;
  const int64_t tail = plan.elements - packs * width;
  return launch(call, broadcast_kernel<Op, width, unroll>,
                blocks_for(larger(packs, 1), kBroadcastThreads * unroll), kBroadcastThreads, 0, op,
                layout, pointers, packs, tail);
}

template <class Op>
voltaic_status launch_broadcast(const voltaic_call* call, const Op& op, const Broadcast& plan,
                                void* result) {
  if (plan.elements == 0) return VOLTAIC_OK;
  if (plan.elements > INT32_MAX) {
    const int axis = plan.rank - 1;
    const int64_t size = plan.sizes[axis];
    for (int64_t half = 0; half < 2; half++) {
      Broadcast piece = plan;
      const int64_t first = half * (size / 2), count = half == 0 ? size / 2 : size - size / 2;
      const int64_t elements = plan.elements / size;
      piece.sizes[axis] = count;
      piece.elements = elements * count;
      if (count == 1 && axis > 0) piece.rank--;
      for (int i = 0; i < Op::kInputs; i++)
        piece.input[i].data += first * plan.input[i].strides[axis] * plan.input[i].size;
      char* const part =
          static_cast<char*>(result) + first * elements * (int64_t)sizeof(typename Op::Result);
      const voltaic_status status = launch_broadcast(call, op, piece, part);
      if (status != VOLTAIC_OK) return status;
    }
    return VOLTAIC_OK;
  }
  constexpr int64_t kSizes[] = {sizeof(typename Op::First), sizeof(typename Op::Second),
                                sizeof(typename Op::Third)};
  constexpr int width = Op::kPack;
  bool packed = (plan.rank == 1 || plan.sizes[0] % width == 0) &&
                starts_pack(result, width * (int64_t)sizeof(typename Op::Result));
  for (int i = 0; i < Op::kInputs; i++)
    packed = packed &&
             (plan.input[i].strides[0] == 0 || starts_pack(plan.input[i].data, width * kSizes[i]));
  if (packed) return launch_packs<Op, width, Op::kUnroll>(call, op, plan, result);
  return launch_packs<Op, 1, 4>(call, op, plan, result);
}

// The call's first tensors broadcast to the one behind them.
template <class Op>
voltaic_status run_broadcast(const voltaic_call* call, const char* name, const char* const* names,
                             const Op& op) {
  Broadcast plan;
  const voltaic_status status = plan_broadcast(call, name, Op::kInputs, names, plan);
  if (status != VOLTAIC_OK) return status;
  return launch_broadcast(call, op, plan, tensor(call, Op::kInputs).data);
}

// Tensors of one shape: the call's first kInputs into `result`.
template <class Op>
voltaic_status run_flat(const voltaic_call* call, int result, const Op& op) {
  Broadcast plan;
  plan.rank = 1;
  plan.sizes[0] = plan.elements = tensor(call, result).elements;
  for (int i = 0; i < Op::kInputs; i++) {
    plan.input[i].data = data<const char>(call, i);
    plan.input[i].size = element_size(tensor(call, i).dtype);
    plan.input[i].strides[0] = 1;
  }
  return launch_broadcast(call, op, plan, tensor(call, result).data);
}

}  // namespace
}  // namespace voltaic
