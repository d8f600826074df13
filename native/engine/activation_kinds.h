// The activation functions' numbers in the kernel table, for every backend, and their choice as a
// type.
#pragma once
#include "kernel_call.h"

namespace voltaic {
namespace {

enum ActivationKind { kGelu = 0, kGeluTanh = 1, kRelu = 2, kTanh = 3, kSigmoid = 4 };
constexpr int kActivationKinds = 5;

template <int kind>
struct Activation {
  static constexpr int value = kind;
};

// Calls body with the kind as a type:
//   with_activation(kind, [&](auto activation) { ... activate<activation.value>(x) ... })
// Returns false, and calls nothing, when there is no such kind.
template <class Body>
inline bool with_activation(int64_t kind, Body&& body) {
  switch (kind) {
    case kGelu:
      body(Activation<kGelu>{});
      return true;
    case kGeluTanh:
      body(Activation<kGeluTanh>{});
      return true;
    case kRelu:
      body(Activation<kRelu>{});
      return true;
    case kTanh:
      body(Activation<kTanh>{});
      return true;
    case kSigmoid:
      body(Activation<kSigmoid>{});
      return true;
    default:
      return false;
  }
}

inline voltaic_status unknown_activation(const voltaic_call* call, const char* op) {
  return fail(
      call, VOLTAIC_ERROR_ARGUMENT,
      "%s: activation is %g, expected 0 (gelu), 1 (gelu_tanh), 2 (relu), 3 (tanh) or 4 (sigmoid)",
      op, attribute(call, 0));
}

}  // namespace
}  // namespace voltaic
