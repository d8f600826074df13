// Arithmetic, comparison, choice, casts and fills, element by element.
//
//   c = a op b                add, subtract, multiply, divide, power, maximum, minimum, comparisons
//   c = condition ? a : b     where; these with NumPy broadcasting of the inputs to c (broadcast.h)
//   y = f(x)                  negate, absolute, exp, log, sqrt, scale * x + shift, cast; one shape
//   y = value, y = x, y += x  fill, broadcast, accumulate
//
// Bytes: each operand once and the result once; one operation an element. On one Zen 4 core with
// AVX-512, arrays larger than the cache: fp32 24 GB/s (a sum into a third array) to 50 (in place),
// bf16 29 to 55, fills 43 to 50; arrays of a million elements, in the third level: fp32 66 to 124,
// bf16 44 to 64. On Zen 3: casts to uint8 7, power 14 ns an element.
// bf16 is computed in fp32 and rounded once. Whole numbers wrap around in add, subtract and
// multiply. Float to whole number truncates toward zero and clamps (NaN gives 0). maximum and
// minimum hand on NaN.
//
// Deterministic: no element depends on another, and vector tails run the same arithmetic.
#include <math.h>

#include "broadcast.h"
#include "cast.h"
#include "simd_math.h"

namespace voltaic {
namespace {

// ---- two inputs
// apply(vfloat, vfloat) serves both float types, apply_whole int32 and uint8.
struct Add {
  static constexpr const char* kName = "add";
  static vfloat apply(vfloat a, vfloat b) { return a + b; }
  template <class T>
  static T apply_whole(T a, T b) {
    return (T)((uint32_t)a + (uint32_t)b);
  }
};
struct Subtract {
  static constexpr const char* kName = "subtract";
  static vfloat apply(vfloat a, vfloat b) { return a - b; }
  template <class T>
  static T apply_whole(T a, T b) {
    return (T)((uint32_t)a - (uint32_t)b);
  }
};
struct Multiply {
  static constexpr const char* kName = "multiply";
  static vfloat apply(vfloat a, vfloat b) { return a * b; }
  template <class T>
  static T apply_whole(T a, T b) {
    return (T)((uint32_t)a * (uint32_t)b);
  }
};
struct Maximum {
  static constexpr const char* kName = "maximum";
  static vfloat apply(vfloat a, vfloat b) { return select((a > b) | (a != a), a, b); }
  template <class T>
  static T apply_whole(T a, T b) {
    return a > b ? a : b;
  }
};
struct Minimum {
  static constexpr const char* kName = "minimum";
  static vfloat apply(vfloat a, vfloat b) { return select((a < b) | (a != a), a, b); }
  template <class T>
  static T apply_whole(T a, T b) {
    return a < b ? a : b;
  }
};
struct Divide {
  static constexpr const char* kName = "divide";
  static vfloat apply(vfloat a, vfloat b) { return a / b; }
};
struct Power {
  static constexpr const char* kName = "power";
  // Squares and square roots are what normalisations ask for; their short cuts are exact.
  static float one(float a, float b) {
    if (b == 2) return a * a;
    if (b == 0.5f && a >= 0)
      return __builtin_sqrtf(a) + 0.0f;  // the sum makes -0 into 0, as powf has it
    return powf(a, b);
  }
  static vfloat apply(vfloat a, vfloat b) {
    vfloat result = {};
    for (int i = 0; i < kWidth; i++) result[i] = one(a[i], b[i]);
    return result;
  }
};

template <class Op, class T>
void float_block(const void* const* inputs, void* to, int64_t n) {
  const T* a = (const T*)inputs[0];
  const T* b = (const T*)inputs[1];
  T* c = (T*)to;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(c + i, Op::apply(load(a + i), load(b + i)));
  if (i < n)
    store_partial(c + i, Op::apply(load_partial(a + i, n - i), load_partial(b + i, n - i)), n - i);
}

template <class Op, class T>
void whole_block(const void* const* inputs, void* to, int64_t n) {
  const T* a = (const T*)inputs[0];
  const T* b = (const T*)inputs[1];
  T* c = (T*)to;
  for (int64_t i = 0; i < n; i++) c[i] = Op::template apply_whole<T>(a[i], b[i]);
}

constexpr const char* kTwoNames[] = {"a", "b", "c"};

voltaic_status two_inputs(const voltaic_call* call, const char* op, BlockFunction function) {
  Broadcast plan;
  const voltaic_status status = plan_broadcast(call, op, 2, kTwoNames, plan);
  if (status == VOLTAIC_OK)
    for_each_block(plan, function, tensor(call, 2).data, element_size(tensor(call, 2).dtype));
  return status;
}

template <class Op>
voltaic_status float_op(const voltaic_call* call) {
  const bool bf16 = tensor(call, 0).dtype == VOLTAIC_BFLOAT16;
  return two_inputs(call, Op::kName, bf16 ? float_block<Op, bfloat16> : float_block<Op, float>);
}

template <class Op>
voltaic_status any_op(const voltaic_call* call) {
  switch (tensor(call, 0).dtype) {
    case VOLTAIC_INT32:
      return two_inputs(call, Op::kName, whole_block<Op, int32_t>);
    case VOLTAIC_UINT8:
      return two_inputs(call, Op::kName, whole_block<Op, uint8_t>);
    default:
      return float_op<Op>(call);
  }
}

// ---- comparisons, to 0 or 1
#define VOLTAIC_COMPARISON(type, name, operation) \
  struct type {                                   \
    static constexpr const char* kName = name;    \
    template <class T>                            \
    static bool apply(T a, T b) {                 \
      return a operation b;                       \
    }                                             \
  };
VOLTAIC_COMPARISON(Equal, "equal", ==)
VOLTAIC_COMPARISON(NotEqual, "not_equal", !=)
VOLTAIC_COMPARISON(Less, "less", <)
VOLTAIC_COMPARISON(LessEqual, "less_equal", <=)
VOLTAIC_COMPARISON(Greater, "greater", >)
VOLTAIC_COMPARISON(GreaterEqual, "greater_equal", >=)
#undef VOLTAIC_COMPARISON

VOLTAIC_INLINE float comparable(bfloat16 x) { return to_float(x); }
VOLTAIC_INLINE float comparable(float x) { return x; }
VOLTAIC_INLINE int32_t comparable(int32_t x) { return x; }
VOLTAIC_INLINE uint8_t comparable(uint8_t x) { return x; }

template <class Op, class T>
void comparison_block(const void* const* inputs, void* to, int64_t n) {
  const T* a = (const T*)inputs[0];
  const T* b = (const T*)inputs[1];
  uint8_t* __restrict c = (uint8_t*)to;
  for (int64_t i = 0; i < n; i++) c[i] = Op::apply(comparable(a[i]), comparable(b[i]));
}

template <class Op>
voltaic_status comparison(const voltaic_call* call) {
  switch (tensor(call, 0).dtype) {
    case VOLTAIC_INT32:
      return two_inputs(call, Op::kName, comparison_block<Op, int32_t>);
    case VOLTAIC_UINT8:
      return two_inputs(call, Op::kName, comparison_block<Op, uint8_t>);
    case VOLTAIC_BFLOAT16:
      return two_inputs(call, Op::kName, comparison_block<Op, bfloat16>);
    default:
      return two_inputs(call, Op::kName, comparison_block<Op, float>);
  }
}

// ---- where
template <class T>
void where_block(const void* const* inputs, void* to, int64_t n) {
  const uint8_t* condition = (const uint8_t*)inputs[0];
  const T* a = (const T*)inputs[1];
  const T* b = (const T*)inputs[2];
  T* c = (T*)to;
  for (int64_t i = 0; i < n; i++) {
    const T yes = a[i], no = b[i];
    c[i] = condition[i] ? yes : no;
  }
}

voltaic_status where(const voltaic_call* call) {
  static constexpr const char* kNames[] = {"condition", "a", "b", "c"};
  Broadcast plan;
  const voltaic_status status = plan_broadcast(call, "where", 3, kNames, plan);
  if (status != VOLTAIC_OK) return status;
  const int64_t size = element_size(tensor(call, 3).dtype);
  const BlockFunction function = size == 1   ? where_block<uint8_t>
                                 : size == 2 ? where_block<uint16_t>
                                             : where_block<uint32_t>;
  for_each_block(plan, function, tensor(call, 3).data, size);
  return VOLTAIC_OK;
}

// ---- one input
template <class T, class Function>
void map_floats(const T* x, T* y, int64_t elements, Function function) {
  parallel_ranges(elements, kTaskElements, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kWidth <= end; i += kWidth) store(y + i, function(load(x + i)));
    if (i < end) store_partial(y + i, function(load_partial(x + i, end - i)), end - i);
  });
}

template <class Function>
voltaic_status one_input(const voltaic_call* call, Function function) {
  return with_float(tensor(call, 0).dtype, [&](auto* kind) {
    typedef decltype(kind) Pointer;
    map_floats((Pointer)tensor(call, 0).data, (Pointer)tensor(call, 1).data,
               tensor(call, 0).elements, function);
    return VOLTAIC_OK;
  });
}

voltaic_status negate(const voltaic_call* call) {
  return one_input(call, [](vfloat x) { return -x; });
}
voltaic_status absolute(const voltaic_call* call) {
  return one_input(call, [](vfloat x) { return vabs(x); });
}
voltaic_status exponential(const voltaic_call* call) {
  return one_input(call, [](vfloat x) { return vexp(x); });
}
voltaic_status logarithm(const voltaic_call* call) {
  return one_input(call, [](vfloat x) { return vlog(x); });
}
voltaic_status square_root(const voltaic_call* call) {
  return one_input(call, [](vfloat x) { return vsqrt(x); });
}
voltaic_status affine(const voltaic_call* call) {
  const vfloat scale = splat((float)attribute(call, 0)), shift = splat((float)attribute(call, 1));
  return one_input(call, [=](vfloat x) { return fma(x, scale, shift); });
}

// ---- moves and casts
voltaic_status broadcast(const voltaic_call* call) {
  static constexpr const char* kNames[] = {"x", "y"};
  Broadcast plan;
  const voltaic_status status = plan_broadcast(call, "broadcast", 1, kNames, plan);
  if (status != VOLTAIC_OK) return status;
  char* y = data<char>(call, 1);
  parallel_ranges(plan.elements, kTaskElements, [&](int64_t begin, int64_t end) {
    spread_any(plan, plan.input[0], begin, end - begin, y + begin * plan.input[0].size);
  });
  return VOLTAIC_OK;
}

voltaic_status cast(const voltaic_call* call) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  return with_any(x.dtype, [&](auto* from) {
    return with_any(y.dtype, [&](auto* to) {
      const auto* source = (decltype(from))x.data;
      auto* target = (decltype(to))y.data;
      parallel_ranges(x.elements, kTaskElements, [&](int64_t begin, int64_t end) {
        cast_elements(source + begin, target + begin, end - begin);
      });
      return VOLTAIC_OK;
    });
  });
}

// Zeros by memset, which takes whole cache lines without reading them first. Others in whole
// vectors: left to itself, the compiler stores elements of two bytes one by one.
template <class T>
void fill_elements(T* to, T value, int64_t n) {
  const T zero = {};
  if (memcmp(&value, &zero, sizeof value) == 0) {
    memset((void*)to, 0, (size_t)n * sizeof(T));
    return;
  }
  alignas(64) T pattern[64 / sizeof(T)];
  for (T& element : pattern) element = value;
  const int64_t per_pattern = 64 / (int64_t)sizeof(T);
  int64_t i = 0;
  for (; i + per_pattern <= n; i += per_pattern) memcpy(to + i, pattern, sizeof pattern);
  memcpy(to + i, pattern, (size_t)(n - i) * sizeof(T));
}
voltaic_status fill(const voltaic_call* call) {
  const voltaic_tensor& y = tensor(call, 0);
  return with_any(y.dtype, [&](auto* kind) {
    auto* to = (decltype(kind))y.data;
    __typeof__(*to) value;
    set_value(&value, attribute(call, 0));
    parallel_ranges(y.elements, 4 * kTaskElements, [&](int64_t begin, int64_t end) {
      fill_elements(to + begin, value, end - begin);
    });
    return VOLTAIC_OK;
  });
}

voltaic_status accumulate(const voltaic_call* call) {
  const voltaic_tensor &from = tensor(call, 0), &to = tensor(call, 1);
  return with_float(from.dtype, [&](auto* x_kind) {
    return with_float(to.dtype, [&](auto* y_kind) {
      const auto* x = (decltype(x_kind))from.data;
      auto* y = (decltype(y_kind))to.data;
      parallel_ranges(from.elements, kTaskElements, [&](int64_t begin, int64_t end) {
        int64_t i = begin;
        for (; i + kWidth <= end; i += kWidth) store(y + i, load(y + i) + load(x + i));
        if (i < end)
          store_partial(y + i, load_partial(y + i, end - i) + load_partial(x + i, end - i),
                        end - i);
      });
      return VOLTAIC_OK;
    });
  });
}

}  // namespace
}  // namespace voltaic

VOLTAIC_KERNELS(elementwise, {"add", voltaic::any_op<voltaic::Add>},
                {"subtract", voltaic::any_op<voltaic::Subtract>},
                {"multiply", voltaic::any_op<voltaic::Multiply>},
                {"divide", voltaic::float_op<voltaic::Divide>},
                {"power", voltaic::float_op<voltaic::Power>},
                {"maximum", voltaic::any_op<voltaic::Maximum>},
                {"minimum", voltaic::any_op<voltaic::Minimum>},
                {"equal", voltaic::comparison<voltaic::Equal>},
                {"not_equal", voltaic::comparison<voltaic::NotEqual>},
                {"less", voltaic::comparison<voltaic::Less>},
                {"less_equal", voltaic::comparison<voltaic::LessEqual>},
                {"greater", voltaic::comparison<voltaic::Greater>},
                {"greater_equal", voltaic::comparison<voltaic::GreaterEqual>},
                {"where", voltaic::where}, {"negate", voltaic::negate},
                {"absolute", voltaic::absolute}, {"exp", voltaic::exponential},
                {"log", voltaic::logarithm}, {"sqrt", voltaic::square_root},
                {"affine", voltaic::affine}, {"cast", voltaic::cast}, {"fill", voltaic::fill},
                {"broadcast", voltaic::broadcast}, {"accumulate", voltaic::accumulate})
