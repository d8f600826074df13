// What every CPU kernel file uses: the call's arguments, failure, parallel loops, and registration.
//
// A kernel file is compiled once for each instruction set (VOLTAIC_ISA = portable, avx2, avx512,
// avx512bf16, amx), so all it defines has internal linkage: an inline function with a shared name
// could otherwise be linked from the unit compiled for the wrong processor. No standard headers
// with templates in here for the same reason.
#pragma once
#include <string.h>

#include "../engine/kernel_call.h"
#include "../engine/parallel.h"
#include "simd.h"

#define VOLTAIC_JOIN_(a, b) a##b
#define VOLTAIC_JOIN(a, b) VOLTAIC_JOIN_(a, b)

// At the end of FAMILY.cpp: VOLTAIC_KERNELS(family, {"op", function}, ...)
#define VOLTAIC_KERNELS(family, ...)                                                   \
  extern "C" const voltaic_kernel_entry* VOLTAIC_JOIN(voltaic_cpu_##family##_,         \
                                                      VOLTAIC_ISA)(uint32_t*);         \
  extern "C" const voltaic_kernel_entry* VOLTAIC_JOIN(voltaic_cpu_##family##_,         \
                                                      VOLTAIC_ISA)(uint32_t * count) { \
    static const voltaic_kernel_entry entries[] = {__VA_ARGS__};                       \
    *count = sizeof(entries) / sizeof(entries[0]);                                     \
    return entries;                                                                    \
  }

namespace voltaic {
namespace {

// Runs body(task) for task in 0..tasks-1 on the pool.
template <class Body>
inline void parallel_for(int64_t tasks, const Body& body) {
  struct Caller {
    static void run(void* context, int64_t task) { (*static_cast<const Body*>(context))(task); }
  };
  if (tasks == 1) {
    body(int64_t{0});
  } else if (tasks > 1) {
    parallel_tasks(tasks, &Caller::run, (void*)&body);
  }
}

// Cuts 0..items-1 into runs of about grain items (from the shape alone) and runs body(begin, end)
// on each.
template <class Body>
inline void parallel_ranges(int64_t items, int64_t grain, Body&& body) {
  if (items <= 0) return;
  grain = larger(grain, 1);
  const int64_t tasks = divide_up(items, grain);
  auto run = [&](int64_t task) { body(task * grain, smaller(items, (task + 1) * grain)); };
  parallel_for(tasks, run);
}

// Calls body with a null pointer of the float type that dtype names: body((float*)nullptr) or
// (bfloat16*).
template <class Body>
inline voltaic_status with_float(int32_t dtype, Body&& body) {
  return dtype == VOLTAIC_BFLOAT16 ? body((bfloat16*)nullptr) : body((float*)nullptr);
}

}  // namespace
}  // namespace voltaic
