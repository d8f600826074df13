// The vectorised Philox of native/cpu/simd_philox.h draws the bits of native/engine/philox.h. This
// unit is compiled for the baseline instruction set; the ops that draw numbers check the others.
#ifndef VOLTAIC_ISA
#define VOLTAIC_ISA portable
#endif
#include "../../native/cpu/simd_philox.h"

#include "harness.h"

using namespace voltaic;

TEST(vectorised_philox_agrees_with_the_plain_one_bit_for_bit) {
  for (test::Random random : test::seeds(20)) {
    const int32_t state[4] = {
        static_cast<int32_t>(random.next()), static_cast<int32_t>(random.next()),
        static_cast<int32_t>(random.next()), static_cast<int32_t>(random.integer(0, 65535))};
    const uint32_t site = static_cast<uint32_t>(random.next());
    // Runs of blocks that cross 2^32 and that end at the last of the 48-bit numbers, too.
    for (uint64_t first : {uint64_t{0}, random.next() >> 16, (uint64_t{1} << 32) - 2,
                           (uint64_t{1} << 48) - kWidth}) {
      vuint words[4], for_store[4];
      philox_blocks(state, site, first, words);
      philox_blocks<kForStore>(state, site, first, for_store);
      uint32_t stored[4 * kWidth];
      store_in_order(stored, for_store);
      for (int l = 0; l < kWidth; l++) {
        const voltaic_random4 expected =
            voltaic_random_block(state, site, first + static_cast<uint64_t>(l));
        for (int w = 0; w < 4; w++) {
          EXPECT(words[w][l] == expected.word[w]);
          EXPECT(stored[4 * l + w] == expected.word[w]);
        }
      }
      for (int w = 0; w < 4; w++) {
        const vfloat uniform = uniform_from_words(words[w]);
        for (int l = 0; l < kWidth; l++) EXPECT(uniform[l] == voltaic_uniform(words[w][l]));
      }
    }
  }
}

TEST(dropout_starts_anywhere_in_the_flat_array) {
  for (test::Random random : test::seeds(20)) {
    const int32_t state[4] = {1, 2, static_cast<int32_t>(random.integer(0, 1000)), 0};
    // The second run crosses block 2^32. Everything is dropped at 65536, almost nothing at 1.
    for (const int64_t first : {random.integer(0, 1 << 20), (int64_t{8} << 32) - 150})
      for (const int32_t threshold : {1, static_cast<int32_t>(random.integer(1, 65536)), 65536}) {
        const int64_t count = random.integer(0, 300);
        const Dropout dropout = {threshold, 3.0f};
        std::vector<dropout_draw> draws(static_cast<size_t>(dropout_buffer(count)));
        draw_dropout(state, 7, first, count, dropout, draws.data());
        for (int64_t k = 0; k < count; k += kWidth) {  // vectors may reach past the run
          const vfloat applied = apply_dropout(splat(2.0f), draws.data(), first % 8 + k, dropout);
          for (int l = 0; l < kWidth && k + l < count; l++) {
            const int64_t at = first + k + l;
            const voltaic_random4 block =
                voltaic_random_block(state, 7, static_cast<uint64_t>(at / 8));
            const bool is_kept = static_cast<int32_t>(voltaic_random16(
                                     &block, static_cast<int>(at % 8))) >= threshold;
            EXPECT(applied[l] == (is_kept ? 6.0f : 0.0f));
          }
        }
      }
  }
}

TEST(dropout_of_nothing_and_of_everything_have_finite_scales) {
  EXPECT(dropout_of(0).threshold == 0 && dropout_of(0).scale == 1);
  EXPECT(dropout_of(0.5).threshold == 32768 && dropout_of(0.5).scale == 2);
  EXPECT(dropout_of(1).threshold == 65536 && dropout_of(1).scale == 0);
}
