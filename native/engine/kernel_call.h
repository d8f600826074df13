// A kernel's view of its call, on every backend: arguments, attributes, failure, and small
// arithmetic on sizes. All with internal linkage: the CPU's kernel units are compiled once for each
// instruction set, and a shared inline function could be linked from the wrong one.
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "backend_abi.h"

namespace voltaic {
namespace {

inline const voltaic_tensor& tensor(const voltaic_call* call, int i) { return call->tensors[i]; }
inline bool present(const voltaic_call* call, int i) { return call->tensors[i].rank >= 0; }
template <class T>
inline T* data(const voltaic_call* call, int i) {
  return static_cast<T*>(call->tensors[i].data);
}
inline double attribute(const voltaic_call* call, int i) { return call->attributes[i]; }
inline int64_t whole(const voltaic_call* call, int i) { return (int64_t)call->attributes[i]; }

__attribute__((format(printf, 3, 4))) inline voltaic_status fail(const voltaic_call* call,
                                                                 voltaic_status status,
                                                                 const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call->message, VOLTAIC_MESSAGE_LENGTH, format, arguments);
  va_end(arguments);
  return status;
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
}  // namespace voltaic
