// The few instructions that CUDA C++ has no name for, one function each. The emulator's twins are
// in emulator/primitives.h.
//
// Tensor-core fragments, for lane = 4 * group + pair (group 0 to 7, pair 0 to 3), registers of two
// bf16, the lower half the smaller index:
//   a[16 x 16], row-major: a[0] rows group,     columns 2 pair, 2 pair + 1    a[2] the same rows,
//   columns + 8
//                          a[1] rows group + 8, columns 2 pair, 2 pair + 1    a[3] the same rows,
//                          columns + 8
//   b[16 x 8], a column in one lane: b[0] rows 2 pair, 2 pair + 1 of column group    b[1] rows + 8
//   d[16 x 8]: d[0], d[1] row group, columns 2 pair, 2 pair + 1               d[2], d[3] row group
//   + 8
// The accumulator of one product, packed to bf16, is thus the a-fragment of the next.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#if !defined(__CUDACC__)
#include "emulator/primitives.h"
#else

namespace voltaic {
namespace {

// d += a b on the tensor cores. Needs sm_80: for sm_75 it compiles to a trap, and the host never
// launches a kernel with it there.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("trap;");
#endif
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory. Lanes 0-7 name the rows of the first,
// 8-15 of the second, ...: 16 bytes each, 16-byte aligned. Lane 4 g + p gets row g, columns 2 p and
// 2 p + 1 of matrix i in r[i]; with `transposed`, column g, rows 2 p and 2 p + 1.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes from global to shared memory, both 16-byte aligned: the first `valid` (0 to 16) are
// copied, the rest of the 16 become 0. Asynchronous from sm_80 on: done once its group has been
// waited for and, for other threads' copies, __syncthreads() after that.
__device__ __forceinline__ void copy_async_16(void* to_shared, const void* from, int valid = 16) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)),
               "l"(from), "r"(valid)
               : "memory");
#else
  uint4 value = make_uint4(0, 0, 0, 0);
  if (valid == 16) {
    value = *static_cast<const uint4*>(from);
  } else {
    for (int i = 0; i < valid; i++)
      reinterpret_cast<unsigned char*>(&value)[i] = static_cast<const unsigned char*>(from)[i];
  }
  *static_cast<uint4*>(to_shared) = value;
#endif
}
// Closes the group of this thread's copies since the last one.
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `left` of this thread's groups are under way.
template <int left>
__device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#endif
}

// 2^x to 2 ulp; 0 below -126; NaN stays NaN.
__device__ __forceinline__ float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// 1 / x to 1 ulp, without the branch of a division; 0 where that is below 2^-126; NaN stays NaN.
__device__ __forceinline__ float fast_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace
}  // namespace voltaic
#endif
