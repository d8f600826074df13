// AMX tiles for bf16 products, and the same tiles in plain C++ where a processor has none.
//
// A processor with AMX holds eight tiles of 16 rows x 64 bytes. One instruction adds the product of
// a tile of a (16 rows of 32 bf16) and a tile of b (32 x 16, kept as 16 rows of 16 pairs: row p
// holds b[2p][j], b[2p+1][j] for j = 0...15, "VNNI") to a tile of c (16 x 16 fp32). Every tile here
// keeps its full size; edges are filled with zeros.
//
//   Tiles tiles;                               // at the start of a task: configures this thread;
//   its end releases tiles.zero<0>(); tiles.load<4>(a, stride_in_bytes);         // 16 rows of 64
//   bytes tiles.load<6>(b, 64); tiles.dot<0, 4, 6>();                      // tile 0 += tile 4 x
//   tile 6 tiles.store<0>(c, stride_in_bytes);
//
// The backend's start asks the kernel for permission once per process (ARCH_REQ_XCOMP_PERM); the
// configuration belongs to a thread, so each task makes its own Tiles and no two live on one thread
// at a time.
//
// VOLTAIC_TILES is defined where tiles can be used: compiled for AMX, or with
// -DVOLTAIC_EMULATE_AMX, which runs the same callers on the emulation below (tests do, on any
// processor). The emulation sums as the instruction does: pairs' even and odd halves apart, in
// fp32, then both into c. The instruction takes subnormal inputs as zero; it does not.
#pragma once
#if defined(__AMX_BF16__) || defined(VOLTAIC_EMULATE_AMX)
#define VOLTAIC_TILES 1
#include "kernel.h"
#include "transpose.h"

namespace voltaic {
namespace {

constexpr int kTileRows = 16;       // rows of a and of c; columns of b and of c
constexpr int kTileDepth = 32;      // columns of a, rows of b
constexpr int kTileElements = 512;  // bf16 in a tile of a or b

#if defined(__AMX_BF16__) && !defined(VOLTAIC_EMULATE_AMX)

// Written as assembly because a tile's number is a template argument here, and because the memory
// clobber keeps stores to packed panels before the loads that read them.
struct Tiles {
  Tiles() {
    struct {
      uint8_t palette, start_row, reserved[14];
      uint16_t bytes_per_row[16];
      uint8_t rows[16];
    } configuration = {};
    static_assert(sizeof(configuration) == 64);
    configuration.palette = 1;
    for (int i = 0; i < 8; i++) {
      configuration.bytes_per_row[i] = 64;
      configuration.rows[i] = kTileRows;
    }
    __asm__ volatile("ldtilecfg (%0)" : : "r"(&configuration) : "memory");
  }
  ~Tiles() { __asm__ volatile("tilerelease" : : : "memory"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int tile>
  VOLTAIC_INLINE void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  template <int tile>
  VOLTAIC_INLINE void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(tile)
                     : "memory");
  }
  // The same with a hint that the lines are not needed again soon.
  template <int tile>
  VOLTAIC_INLINE void load_passing(const void* from, int64_t stride) {
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(tile)
                     : "memory");
  }
  template <int tile>
  VOLTAIC_INLINE void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(tile)
                     : "memory");
  }
  template <int c, int a, int b>
  VOLTAIC_INLINE void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};

#else

struct Tiles {
  Tiles() { memset(rows_, 0xff, sizeof(rows_)); }  // NaN: a tile used before it is set shows
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int tile>
  void zero() {
    memset(rows_[tile], 0, sizeof(rows_[tile]));
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    for (int r = 0; r < kTileRows; r++) memcpy(rows_[tile][r], (const char*)from + r * stride, 64);
  }
  template <int tile>
  void load_passing(const void* from, int64_t stride) {
    load<tile>(from, stride);
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    for (int r = 0; r < kTileRows; r++) memcpy((char*)to + r * stride, rows_[tile][r], 64);
  }
  template <int c, int a, int b>
  void dot() {
    for (int r = 0; r < kTileRows; r++) {
      float even[16] = {}, odd[16] = {}, sums[16];
      for (int p = 0; p < 16; p++) {
        const float a_even = low_half(rows_[a][r][p]), a_odd = high_half(rows_[a][r][p]);
        for (int j = 0; j < 16; j++) {
          even[j] += a_even * low_half(rows_[b][p][j]);
          odd[j] += a_odd * high_half(rows_[b][p][j]);
        }
      }
      memcpy(sums, rows_[c][r], 64);
      for (int j = 0; j < 16; j++) sums[j] += even[j] + odd[j];
      memcpy(rows_[c][r], sums, 64);
    }
  }

 private:
  static VOLTAIC_INLINE float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
  }
  static VOLTAIC_INLINE float low_half(uint32_t pair) { return bits_to_float(pair << 16); }
  static VOLTAIC_INLINE float high_half(uint32_t pair) { return bits_to_float(pair & 0xffff0000u); }

  uint32_t rows_[8][kTileRows][16];
};

#endif

// ---- filling tiles: to is 1024 bytes, aligned to 64; what lies beyond the given sizes becomes
// zero

typedef uint32_t TileRow __attribute__((vector_size(64)));
typedef uint16_t HalfTileRow __attribute__((vector_size(32)));
typedef uint16_t HalfTileRowUnaligned __attribute__((vector_size(32), aligned(2), may_alias));

VOLTAIC_INLINE void transpose_words(TileRow* rows) { transpose((vfloat*)rows); }

VOLTAIC_INLINE TileRow widen_halves(const bfloat16* from, int count) {
  if (count >= 16) return __builtin_convertvector(*(const HalfTileRowUnaligned*)from, TileRow);
  HalfTileRow halves = {};
  if (count > 0) memcpy(&halves, from, 2 * count);
  return __builtin_convertvector(halves, TileRow);
}
// words[p][j] = from[2p][j], from[2p + 1][j]
VOLTAIC_INLINE void load_pairs(TileRow* words, const bfloat16* from, int64_t stride, int depth,
                               int columns) {
  for (int p = 0; p < 16; p++) {
    const bfloat16* row = from + 2 * p * stride;
    words[p] = widen_halves(row, 2 * p < depth ? columns : 0);
    words[p] |= widen_halves(row + stride, 2 * p + 1 < depth ? columns : 0) << 16;
  }
}
// words[r] = from[r][0...31]
VOLTAIC_INLINE void load_rows(TileRow* words, const bfloat16* from, int64_t stride, int rows,
                              int depth) {
  for (int r = 0; r < 16; r++) {
    words[r] = TileRow{};
    if (r < rows && depth > 0)
      memcpy(&words[r], from + r * stride, depth < kTileDepth ? 2 * depth : 64);
  }
}

// A tile of a from row-major a[rows][depth]; stride between rows in elements. Not needed for whole
// tiles, which load straight from a matrix.
VOLTAIC_INLINE void pack_rows(bfloat16* to, const bfloat16* from, int64_t stride, int rows,
                              int depth) {
  TileRow words[16];
  load_rows(words, from, stride, rows, depth);
  memcpy(to, words, sizeof(words));
}
// The same from a stored transposed: from[depth][rows]. Whole tiles join two rows of 16 by one
// shuffle each way: within halves of 8, which leaves the middle quarters of the words exchanged.
// On Zen 4: 24 ns a tile; widening, joining and transposing in registers took 41.
VOLTAIC_INLINE void pack_rows_transposed(bfloat16* to, const bfloat16* from, int64_t stride,
                                         int rows, int depth) {
  TileRow words[16];
#if defined(__AVX2__)
  if (rows >= kTileRows && depth >= kTileDepth) {
    __m256i joined[16][2];
    for (int p = 0; p < 16; p++, from += 2 * stride) {
      const __m256i even = _mm256_loadu_si256((const __m256i*)from),
                    odd = _mm256_loadu_si256((const __m256i*)(from + stride));
      joined[p][0] = _mm256_unpacklo_epi16(even, odd);
      joined[p][1] = _mm256_unpackhi_epi16(even, odd);
    }
    vfloat columns[16];
    load_transposed(columns, joined, sizeof(joined[0]));
    for (int i = 0; i < 16; i++) {
      const int quarter = i / 4, row = quarter == 1 ? i + 4 : quarter == 2 ? i - 4 : i;
      memcpy(to + row * kTileDepth, &columns[i], 64);
    }
    return;
  }
#endif
  load_pairs(words, from, stride, depth, rows);
  transpose_words(words);
  memcpy(to, words, sizeof(words));
}
// A tile of b from row-major b[depth][columns].
VOLTAIC_INLINE void pack_pairs(bfloat16* to, const bfloat16* from, int64_t stride, int depth,
                               int columns) {
  TileRow words[16];
  load_pairs(words, from, stride, depth, columns);
  memcpy(to, words, sizeof(words));
}
// The same from b stored transposed: from[columns][depth] (the keys of attention, a Linear layer's
// weight).
VOLTAIC_INLINE void pack_pairs_transposed(bfloat16* to, const bfloat16* from, int64_t stride,
                                          int depth, int columns) {
  TileRow words[16];
  if (columns >= kTileRows && depth >= kTileDepth) {
    load_transposed((vfloat*)words, from, stride * sizeof(bfloat16));
  } else {
    load_rows(words, from, stride, columns, depth);
    transpose_words(words);
  }
  memcpy(to, words, sizeof(words));
}

// ---- small products; steps counts blocks of 32 along the depth

// c[32][32] (+)= a[32][32 * steps] * b, four tiles of c at once: each tile loaded serves two
// products. The lower 16 rows of a start a_lower elements after a, the right 16 columns of b
// b_right elements after b. Uses all tiles. meanwhile(s) runs behind the instructions of step s.
// The hint on b gave 3 % over ELECTRA-small's products, in one run on a busy machine.
template <class Meanwhile>
VOLTAIC_INLINE void tile_product_2x2(Tiles& tiles, float* c, int64_t c_stride, const bfloat16* a,
                                     int64_t a_stride, int64_t a_step, int64_t a_lower,
                                     const bfloat16* b, int64_t b_step, int64_t b_right,
                                     int64_t steps, bool keep, Meanwhile&& meanwhile) {
  float *right = c + 16, *lower = c + 16 * c_stride;
  if (keep) {
    tiles.load<0>(c, 4 * c_stride);
    tiles.load<1>(right, 4 * c_stride);
    tiles.load<2>(lower, 4 * c_stride);
    tiles.load<3>(lower + 16, 4 * c_stride);
  } else {
    tiles.zero<0>();
    tiles.zero<1>();
    tiles.zero<2>();
    tiles.zero<3>();
  }
  for (int64_t s = 0; s < steps; s++) {
    tiles.load<4>(a + s * a_step, 2 * a_stride);
    tiles.load_passing<6>(b + s * b_step, 64);
    tiles.dot<0, 4, 6>();
    tiles.load_passing<7>(b + s * b_step + b_right, 64);
    tiles.dot<1, 4, 7>();
    tiles.load<5>(a + s * a_step + a_lower, 2 * a_stride);
    tiles.dot<2, 5, 6>();
    tiles.dot<3, 5, 7>();
    meanwhile(s);
  }
  tiles.store<0>(c, 4 * c_stride);
  tiles.store<1>(right, 4 * c_stride);
  tiles.store<2>(lower, 4 * c_stride);
  tiles.store<3>(lower + 16, 4 * c_stride);
}

}  // namespace
}  // namespace voltaic
#endif
