// The emulator's twins of the functions in ../primitives.cuh, which documents them.
#pragma once
#include <cuda_runtime.h>

namespace voltaic {
namespace {

struct MmaOperands {
  float* d;
  const uint32_t *a, *b;
};
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperands mine = {d, a, b};
  emulator::warp_exchange("mma_bf16", &mine, [](void** lanes) {
    float a_rows[16][16], b_rows[16][8];
    const auto low = [](uint32_t word) { return __uint_as_float(word << 16); };
    const auto high = [](uint32_t word) { return __uint_as_float(word & 0xffff0000u); };
    for (int lane = 0; lane < 32; lane++) {
      const auto* const from = static_cast<const MmaOperands*>(lanes[lane]);
      const int group = lane / 4, pair = lane % 4;
      for (int i = 0; i < 4; i++) {
        float* const at = &a_rows[group + 8 * (i % 2)][2 * pair + 8 * (i / 2)];
        at[0] = low(from->a[i]);
        at[1] = high(from->a[i]);
      }
      for (int i = 0; i < 2; i++) {
        b_rows[2 * pair + 8 * i][group] = low(from->b[i]);
        b_rows[2 * pair + 1 + 8 * i][group] = high(from->b[i]);
      }
    }
    float sums[16][8] = {};
    for (int row = 0; row < 16; row++)
      for (int k = 0; k < 16; k++)
        for (int column = 0; column < 8; column++)
          sums[row][column] += a_rows[row][k] * b_rows[k][column];
    for (int lane = 0; lane < 32; lane++) {
      float* const out = static_cast<MmaOperands*>(lanes[lane])->d;
      for (int i = 0; i < 4; i++) out[i] += sums[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
  });
}

struct MatrixOperands {
  uint32_t* r;
  const uint16_t* row;
};
template <bool transposed>
inline void load_matrices_as(uint32_t (&r)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    emulator::give_up("load_matrices: a row's address is not a multiple of 16");
  MatrixOperands mine = {r, static_cast<const uint16_t*>(row)};
  emulator::warp_exchange(
      transposed ? "load_matrices_transposed" : "load_matrices", &mine, [](void** lanes) {
        for (int lane = 0; lane < 32; lane++)
          for (int i = 0; i < 4; i++) {
            const auto at = [&](int r, int c) -> uint32_t {
              return static_cast<MatrixOperands*>(lanes[8 * i + r])->row[c];
            };
            const int g = lane / 4, p = 2 * (lane % 4);
            static_cast<MatrixOperands*>(lanes[lane])->r[i] =
                transposed ? at(p, g) | at(p + 1, g) << 16 : at(g, p) | at(g, p + 1) << 16;
          }
      });
}
inline void load_matrices(uint32_t (&r)[4], const void* row) { load_matrices_as<false>(r, row); }
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  load_matrices_as<true>(r, row);
}

// Misaligned addresses are the hardware's business to refuse; here they show as a trap.
inline void copy_async_16(void* to_shared, const void* from, int valid = 16) {
  if ((reinterpret_cast<uintptr_t>(to_shared) | reinterpret_cast<uintptr_t>(from)) % 16 != 0)
    emulator::give_up("copy_async_16: an address is not a multiple of 16");
  emulator::defer_copy(to_shared, from, (unsigned)valid, 16 - (unsigned)valid);
}
inline void copy_async_commit() { emulator::commit_copies(); }
template <int left>
inline void copy_async_wait() {
  emulator::wait_for_copies(left);
}

inline float fast_exp2(float x) {
  const float exact = x < -126.0f ? 0.0f : std::exp2(x);
#if defined(VOLTAIC_EMULATOR_CARD_ROUNDING)
  return emulator::off_by_units(exact, 2);
#else
  return exact;
#endif
}
inline float fast_reciprocal(float x) { return std::fabs(x) > 0x1p126f ? 0.0f : 1.0f / x; }

}  // namespace
}  // namespace voltaic
