// Arithmetic, comparison, choice, casts and fills, element by element.
//
//   c = a op b                add, subtract, multiply, divide, power, maximum, minimum, comparisons
//   c = condition ? a : b     where; these with NumPy broadcasting of the inputs to c
//   y = f(x)                  negate, absolute, exp, log, sqrt, scale * x + shift, cast; one shape
//   y = value, y = x, y += x  fill, broadcast, accumulate
//
// All but fill run broadcast_kernel (broadcast.cuh), which has the bytes, the tiles and the
// reasons; the ops are in elementwise_ops.cuh. One operation an element: memory-bound but for
// power, some 80 operations.
#include "elementwise_ops.cuh"

namespace voltaic {
namespace {

// Calls body with a null pointer of the type that dtype names.
template <class Body>
inline voltaic_status with_any(int32_t dtype, Body&& body) {
  switch (dtype) {
    case VOLTAIC_INT32:
      return body((int32_t*)nullptr);
    case VOLTAIC_UINT8:
      return body((uint8_t*)nullptr);
    case VOLTAIC_BFLOAT16:
      return body((bfloat16*)nullptr);
    default:
      return body((float*)nullptr);
  }
}

constexpr const char* kTwoNames[] = {"a", "b", "c"};
constexpr const char* kWhereNames[] = {"condition", "a", "b", "c"};
constexpr const char* kBroadcastNames[] = {"x", "y"};
// In the order of ArithmeticKind.
constexpr const char* kArithmeticNames[] = {"add",    "subtract", "multiply",
                                            "divide", "maximum",  "minimum"};

template <ArithmeticKind kind>
voltaic_status arithmetic(const voltaic_call* call) {
  return with_any(tensor(call, 0).dtype, [&]<class T>(T*) {
    return run_broadcast(call, kArithmeticNames[kind], kTwoNames, Arithmetic<T>{kind});
  });
}

voltaic_status power_op(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    return run_broadcast(call, "power", kTwoNames, Power<T>{});
  });
}

voltaic_status compare(const voltaic_call* call, const char* name, uint32_t relations) {
  return with_any(tensor(call, 0).dtype, [&]<class T>(T*) {
    return run_broadcast(call, name, kTwoNames, Comparison<T>{relations});
  });
}
voltaic_status equal(const voltaic_call* call) { return compare(call, "equal", kIsEqual); }
voltaic_status not_equal(const voltaic_call* call) {
  return compare(call, "not_equal", kIsLess | kIsGreater | kIsUnordered);
}
voltaic_status less(const voltaic_call* call) { return compare(call, "less", kIsLess); }
voltaic_status less_equal(const voltaic_call* call) {
  return compare(call, "less_equal", kIsLess | kIsEqual);
}
voltaic_status greater(const voltaic_call* call) { return compare(call, "greater", kIsGreater); }
voltaic_status greater_equal(const voltaic_call* call) {
  return compare(call, "greater_equal", kIsGreater | kIsEqual);
}

voltaic_status where(const voltaic_call* call) {
  return with_element_size(element_size(tensor(call, 3).dtype), [&]<class T>(T*) {
    return run_broadcast(call, "where", kWhereNames, Where<T>{});
  });
}

voltaic_status broadcast(const voltaic_call* call) {
  return with_element_size(element_size(tensor(call, 0).dtype), [&]<class T>(T*) {
    return run_broadcast(call, "broadcast", kBroadcastNames, Cast<T, T>{});
  });
}

template <MapKind kind>
voltaic_status map(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) {
    const bool affine = kind == kAffine;
    return run_flat(call, 1,
                    Map<T>{kind, affine ? static_cast<float>(attribute(call, 0)) : 1.0f,
                           affine ? static_cast<float>(attribute(call, 1)) : 0.0f});
  });
}

voltaic_status cast(const voltaic_call* call) {
  const int32_t from = tensor(call, 0).dtype, to = tensor(call, 1).dtype;
  if (from == to)
    return with_element_size(element_size(from),
                             [&]<class T>(T*) { return run_flat(call, 1, Cast<T, T>{}); });
  return with_any(from, [&]<class From>(From*) {
    return with_any(to, [&]<class To>(To*) {
      if constexpr (same_type<From, To>)
        return VOLTAIC_OK;
      else
        return run_flat(call, 1, Cast<From, To>{});
    });
  });
}

voltaic_status accumulate(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class X>(X*) {
    return with_float(tensor(call, 1).dtype,
                      [&]<class Y>(Y*) { return run_flat(call, 1, Accumulate<X, Y>{}); });
  });
}

// ---- fill: 16 bytes a thread four times over; bytes before the first and behind the last whole 16
// are written one by one. An element's bytes repeat every four bytes of `pattern`.
constexpr int kFillUnroll = 4;

__global__ void __launch_bounds__(kBroadcastThreads)
    fill_kernel(unsigned char* to, int64_t bytes, int64_t head, int64_t packs, uint32_t pattern) {
  const uint32_t turn = 8 * static_cast<uint32_t>(head % 4);
  const uint32_t word = turn == 0 ? pattern : pattern >> turn | pattern << (32 - turn);
  const int64_t start =
      static_cast<int64_t>(blockIdx.x) * (kBroadcastThreads * kFillUnroll) + threadIdx.x;
#pragma unroll
  for (int u = 0; u < kFillUnroll; u++) {
    const int64_t at = start + u * kBroadcastThreads;
    if (at < packs)
      *reinterpret_cast<uint4*>(to + head + at * 16) = make_uint4(word, word, word, word);
  }
  if (blockIdx.x > 0) return;
  if (threadIdx.x < head)
    to[threadIdx.x] = static_cast<unsigned char>(pattern >> 8 * (threadIdx.x % 4));
  const int64_t rest = head + packs * 16 + threadIdx.x;
  if (rest < bytes) to[rest] = static_cast<unsigned char>(pattern >> 8 * (rest % 4));
}

voltaic_status fill(const voltaic_call* call) {
  const voltaic_tensor& y = tensor(call, 0);
  const double value = attribute(call, 0);
  uint32_t pattern = 0;
  switch (y.dtype) {
    case VOLTAIC_INT32:
      pattern = static_cast<uint32_t>(value != value       ? 0
                                      : value >= INT32_MAX ? INT32_MAX
                                      : value <= INT32_MIN ? INT32_MIN
                                                           : static_cast<int32_t>(value));
      break;
    case VOLTAIC_UINT8:
      pattern = 0x01010101u * (!(value > 0)   ? 0u
                               : value >= 255 ? 255u
                                              : static_cast<uint32_t>(value));
      break;
    case VOLTAIC_BFLOAT16:
      pattern = 0x00010001u * scalars::float_to_bfloat16_bits(static_cast<float>(value));
      break;
    default: {
      const float number = static_cast<float>(value);
      memcpy(&pattern, &number, sizeof pattern);
    }
  }
  const int64_t bytes = y.elements * element_size(y.dtype);
  if (bytes == 0) return VOLTAIC_OK;
  const int64_t head =
      smaller(bytes, static_cast<int64_t>(-reinterpret_cast<uintptr_t>(y.data) % 16));
  const int64_t packs = (bytes - head) / 16;
  return launch(call, fill_kernel, blocks_for(larger(packs, 1), kBroadcastThreads * kFillUnroll),
                kBroadcastThreads, 0, static_cast<unsigned char*>(y.data), bytes, head, packs,
                pattern);
}

}  // namespace

VOLTAIC_CUDA_KERNELS(elementwise, {"add", arithmetic<kAdd>}, {"subtract", arithmetic<kSubtract>},
                     {"multiply", arithmetic<kMultiply>}, {"divide", arithmetic<kDivide>},
                     {"power", power_op}, {"maximum", arithmetic<kMaximum>},
                     {"minimum", arithmetic<kMinimum>}, {"equal", equal}, {"not_equal", not_equal},
                     {"less", less}, {"less_equal", less_equal}, {"greater", greater},
                     {"greater_equal", greater_equal}, {"where", where}, {"negate", map<kNegate>},
                     {"absolute", map<kAbsolute>}, {"exp", map<kExp>}, {"log", map<kLog>},
                     {"sqrt", map<kSqrt>}, {"affine", map<kAffine>}, {"cast", cast}, {"fill", fill},
                     {"broadcast", broadcast}, {"accumulate", accumulate})

}  // namespace voltaic
