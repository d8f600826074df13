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
      vuint words[4];
      philox_blocks(state, site, first, words);
      uint32_t stored[4 * kWidth];
      store_blocks(stored, words);
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

TEST(dropout_numbers_start_anywhere_in_the_flat_array) {
  for (test::Random random : test::seeds(20)) {
    const int32_t state[4] = {1, 2, static_cast<int32_t>(random.integer(0, 1000)), 0};
    const int64_t first = random.integer(0, 1 << 20), count = random.integer(0, 300);
    std::vector<uint16_t> buffer(static_cast<size_t>(dropout_buffer(count)));
    const uint16_t* numbers = dropout_numbers(state, 7, first, count, buffer.data());
    for (int64_t k = 0; k < count; k++) {
      const voltaic_random4 block =
          voltaic_random_block(state, 7, static_cast<uint64_t>((first + k) / 8));
      EXPECT(numbers[k] == voltaic_random16(&block, static_cast<int>((first + k) % 8)));
    }
    const Dropout dropout = dropout_of(random.uniform(0, 1));
    for (int64_t k = 0; k < count;
         k += kWidth) {  // the buffer may be read past its run by less than a vector
      const vfloat kept = dropout_apply(splat(2.0f), numbers + k, dropout);
      for (int l = 0; l < kWidth && k + l < count; l++)
        EXPECT(kept[l] == (numbers[k + l] >= dropout.threshold ? 2.0f * dropout.scale : 0.0f));
    }
  }
}

TEST(dropout_of_nothing_and_of_everything_have_finite_scales) {
  EXPECT(dropout_of(0).threshold == 0 && dropout_of(0).scale == 1);
  EXPECT(dropout_of(0.5).threshold == 32768 && dropout_of(0.5).scale == 2);
  EXPECT(dropout_of(1).threshold == 65536 && dropout_of(1).scale == 0);
}
