// The element-wise ops as broadcast_kernel runs them: what they read, what they write, and the
// arithmetic on a pack. Which of a family's operations it is, is decided at run time, once a pack
// and alike in all threads, so that one kernel serves the family.
//
// bf16 is computed in fp32 and rounded once. Whole numbers wrap around in add, subtract and
// multiply. Float to whole number truncates toward zero and clamps (NaN gives 0); int32 to uint8
// clamps. maximum and minimum hand on NaN.
#pragma once
#include "../native/engine/bfloat16.h"
#include "broadcast.cuh"
#include "power.cuh"

namespace voltaic {
namespace {

template <class A, class B>
constexpr bool same_type = false;
template <class A>
constexpr bool same_type<A, A> = true;
template <class T>
constexpr bool is_float = same_type<T, float> || same_type<T, bfloat16>;

// Loads and stores of the widest type are 16 bytes.
template <class A, class B>
constexpr int pack_of = 16 / (sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));

// ---- two inputs
enum ArithmeticKind { kAdd, kSubtract, kMultiply, kDivide, kMaximum, kMinimum };

// result[i] = function(a[i], b[i]), floats in fp32.
template <class Result, class T, int width, class Function>
__device__ __forceinline__ void for_pairs(Pack<Result, width>& result, const Pack<T, width>& a,
                                          const Pack<T, width>& b, Function function) {
#pragma unroll
  for (int i = 0; i < width; i++) {
    if constexpr (is_float<T>)
      result.values[i] = from_float<Result>(function(to_float(a.values[i]), to_float(b.values[i])));
    else
      result.values[i] = function(a.values[i], b.values[i]);
  }
}

template <class T>
struct Arithmetic {
  using First = T;
  using Second = T;
  using Third = T;
  using Result = T;
  static constexpr int kInputs = 2, kPack = is_float<T> ? 16 / sizeof(T) : 1,
                       kUnroll = is_float<T> ? 2 : 4;  // whole numbers: as for casts
  ArithmeticKind kind;

  template <int width>
  __device__ __forceinline__ void apply(Pack<T, width>& c, const Pack<T, width>& a,
                                        const Pack<T, width>& b) const {
    if constexpr (is_float<T>) {
      switch (kind) {
        case kAdd:
          return for_pairs(c, a, b, [](float x, float y) { return x + y; });
        case kSubtract:
          return for_pairs(c, a, b, [](float x, float y) { return x - y; });
        case kMultiply:
          return for_pairs(c, a, b, [](float x, float y) { return x * y; });
        case kDivide:
          return for_pairs(c, a, b, [](float x, float y) { return x / y; });
        case kMaximum:
          return for_pairs(c, a, b, [](float x, float y) { return x > y || x != x ? x : y; });
        default:
          return for_pairs(c, a, b, [](float x, float y) { return x < y || x != x ? x : y; });
      }
    } else {
      switch (kind) {
        case kAdd:
          return for_pairs(c, a, b, [](T x, T y) { return (T)((uint32_t)x + (uint32_t)y); });
        case kSubtract:
          return for_pairs(c, a, b, [](T x, T y) { return (T)((uint32_t)x - (uint32_t)y); });
        case kMultiply:
          return for_pairs(c, a, b, [](T x, T y) { return (T)((uint32_t)x * (uint32_t)y); });
        case kMaximum:
          return for_pairs(c, a, b, [](T x, T y) { return x > y ? x : y; });
        default:
          return for_pairs(c, a, b, [](T x, T y) { return x < y ? x : y; });
      }
    }
  }
};

template <class T>
struct Power {
  using First = T;
  using Second = T;
  using Third = T;
  using Result = T;
  static constexpr int kInputs = 2, kPack = 4, kUnroll = 1;

  template <int width>
  __device__ __forceinline__ void apply(Pack<T, width>& c, const Pack<T, width>& a,
                                        const Pack<T, width>& b) const {
    for_pairs(c, a, b, [](float x, float y) { return power(x, y); });
  }
};

// A comparison is the set of relations for which it holds.
constexpr uint32_t kIsLess = 1, kIsEqual = 2, kIsGreater = 4, kIsUnordered = 8;

template <class T>
struct Comparison {
  using First = T;
  using Second = T;
  using Third = T;
  using Result = uint8_t;
  static constexpr int kInputs = 2, kPack = 16 / sizeof(T), kUnroll = sizeof(T) == 1 ? 1 : 2;
  uint32_t relations;

  template <class Number>
  __device__ __forceinline__ uint8_t holds(Number a, Number b) const {
    const uint32_t relation = a < b    ? kIsLess
                              : a == b ? kIsEqual
                              : a > b  ? kIsGreater
                                       : kIsUnordered;
    return (relations & relation) != 0;
  }
  template <int width>
  __device__ __forceinline__ void apply(Pack<uint8_t, width>& c, const Pack<T, width>& a,
                                        const Pack<T, width>& b) const {
#pragma unroll
    for (int i = 0; i < width; i++) {
      if constexpr (is_float<T>)
        c.values[i] = holds(to_float(a.values[i]), to_float(b.values[i]));
      else
        c.values[i] = holds(a.values[i], b.values[i]);
    }
  }
};

// T is a whole number of the element's size: bits move as they are.
template <class T>
struct Where {
  using First = uint8_t;
  using Second = T;
  using Third = T;
  using Result = T;
  static constexpr int kInputs = 3, kPack = 16 / sizeof(T), kUnroll = sizeof(T) == 1 ? 1 : 2;

  template <int width>
  __device__ __forceinline__ void apply(Pack<T, width>& c, const Pack<uint8_t, width>& condition,
                                        const Pack<T, width>& a, const Pack<T, width>& b) const {
#pragma unroll
    for (int i = 0; i < width; i++) c.values[i] = condition.values[i] ? a.values[i] : b.values[i];
  }
};

// ---- one input
enum MapKind { kNegate, kAbsolute, kExp, kLog, kSqrt, kAffine };

template <class T, int width, class Function>
__device__ __forceinline__ void for_each(Pack<T, width>& y, const Pack<T, width>& x,
                                         Function function) {
#pragma unroll
  for (int i = 0; i < width; i++) y.values[i] = from_float<T>(function(to_float(x.values[i])));
}

template <class T>
struct Map {
  using First = T;
  using Second = T;
  using Third = T;
  using Result = T;
  static constexpr int kInputs = 1, kPack = 16 / sizeof(T), kUnroll = 4;
  MapKind kind;
  float scale, shift;

  template <int width>
  __device__ __forceinline__ void apply(Pack<T, width>& y, const Pack<T, width>& x) const {
    const float times = scale, plus = shift;
    switch (kind) {
      case kNegate:
        return for_each(y, x, [](float v) { return -v; });
      case kAbsolute:
        return for_each(y, x, [](float v) { return fabsf(v); });
      case kExp:
        return for_each(y, x, [](float v) { return expf(v); });
      case kLog:
        return for_each(y, x, [](float v) { return logf(v); });
      case kSqrt:
        return for_each(y, x, [](float v) { return __fsqrt_rn(v); });
      default:
        return for_each(y, x, [=](float v) { return fmaf(v, times, plus); });
    }
  }
};

__device__ __forceinline__ float number_of(float x) { return x; }
__device__ __forceinline__ float number_of(bfloat16 x) { return to_float(x); }
__device__ __forceinline__ int32_t number_of(int32_t x) { return x; }
__device__ __forceinline__ int32_t number_of(uint8_t x) { return x; }

template <class To>
__device__ __forceinline__ To converted(float x) {
  if constexpr (same_type<To, int32_t>) {
    if (x >= 2147483648.0f) return INT32_MAX;
    if (x <= -2147483648.0f) return INT32_MIN;
    return x != x ? 0 : static_cast<int32_t>(x);
  } else if constexpr (same_type<To, uint8_t>) {
    return !(x > 0.0f) ? 0 : x >= 255.0f ? 255 : static_cast<uint8_t>(static_cast<int32_t>(x));
  } else {
    return from_float<To>(x);
  }
}
template <class To>
__device__ __forceinline__ To converted(int32_t x) {
  if constexpr (same_type<To, uint8_t>)
    return static_cast<uint8_t>(x < 0 ? 0 : x > 255 ? 255 : x);
  else if constexpr (is_float<To>)
    return from_float<To>(static_cast<float>(x));
  else
    return x;
}

// To the same type it is a copy of bits; T is then a whole number of the element's size. Casts from
// or to whole numbers are rare and small: one kernel each, which takes numbers one by one.
template <class From, class To>
struct Cast {
  using First = From;
  using Second = From;
  using Third = From;
  using Result = To;
  static constexpr bool kPacked = same_type<From, To> || (is_float<From> && is_float<To>);
  static constexpr int kInputs = 1, kPack = kPacked ? pack_of<From, To> : 1,
                       kUnroll = kPacked && sizeof(From) + sizeof(To) < 4 ? 2 : 4;

  template <int width>
  __device__ __forceinline__ void apply(Pack<To, width>& y, const Pack<From, width>& x) const {
#pragma unroll
    for (int i = 0; i < width; i++) {
      if constexpr (same_type<From, To>)
        y.values[i] = x.values[i];
      else
        y.values[i] = converted<To>(number_of(x.values[i]));
    }
  }
};

// y + x, into y
template <class X, class Y>
struct Accumulate {
  using First = X;
  using Second = Y;
  using Third = Y;
  using Result = Y;
  static constexpr int kInputs = 2, kPack = pack_of<X, Y>, kUnroll = 2;

  template <int width>
  __device__ __forceinline__ void apply(Pack<Y, width>& sum, const Pack<X, width>& x,
                                        const Pack<Y, width>& y) const {
#pragma unroll
    for (int i = 0; i < width; i++)
      sum.values[i] = from_float<Y>(to_float(y.values[i]) + to_float(x.values[i]));
  }
};

}  // namespace
}  // namespace voltaic
