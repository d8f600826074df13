// Dot products of bf16 pairs with fp32 sums (vdpbf16ps), and the same in plain C++ where a
// processor has none.
//
// A vector of pairs holds in each 32-bit lane two bf16 that are neighbours along k, the lower first:
// 2 FLOPs a lane more than an fp32 multiply-add, at the same rate on Zen 4 (235 GFLOP/s a core,
// fp32 117). Row-major rows along k are pairs as they lie in memory.
//
//   sums = dot_pairs(sums, a, b);   // lane i: sums + a[i].high b[i].high, then + a[i].low b[i].low
//
// Each of the two products enters by a fused multiply-add, rounded to nearest; products of bf16 are
// exact in fp32, so plain multiplication and addition give the same. The instruction takes
// subnormal inputs as zero and gives zero for subnormal sums; the emulation does not.
//
// VOLTAIC_DOTS is defined where dots are to be used: compiled for AVX512_BF16 without AMX (Zen 4
// and 5, Cooper Lake; processors with AMX run the instruction at half the rate of fp32
// multiply-adds), or with -DVOLTAIC_EMULATE_DOTS, which runs the same callers on the emulation
// (tests do, on any processor).
#pragma once
#include "simd.h"
#if (defined(__AVX512BF16__) && !defined(__AMX_BF16__)) || defined(VOLTAIC_EMULATE_DOTS)
#define VOLTAIC_DOTS 1

namespace voltaic {
namespace {

typedef vuint vpairs;
typedef uint32_t vpairs_unaligned
    __attribute__((vector_size(4 * VOLTAIC_WIDTH), aligned(2), may_alias));
typedef uint32_t pair_unaligned __attribute__((aligned(2), may_alias));

VOLTAIC_INLINE vpairs load_pairs(const bfloat16* from) { return *(const vpairs_unaligned*)from; }
// from[0] and from[1] in every lane
VOLTAIC_INLINE vpairs splat_pair(const bfloat16* from) {
  return vpairs{} + *(const pair_unaligned*)from;
}

VOLTAIC_INLINE vfloat dot_pairs(vfloat sums, vpairs a, vpairs b) {
#if defined(__AVX512BF16__) && !defined(VOLTAIC_EMULATE_DOTS)
  return (vfloat)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
  sums += (vfloat)(a & 0xffff0000u) * (vfloat)(b & 0xffff0000u);
  return sums + (vfloat)(a << 16) * (vfloat)(b << 16);
#endif
}

}  // namespace
}  // namespace voltaic
#endif
