// What ASCII text looks like, 64 bytes at a time: which bytes are of words, which are punctuation,
// and which need a closer look; and how a short word is taken out of it, lower-cased.
//
// SSE2, which every x86-64 has, takes some 130 instructions for 64 bytes (other processors: 8 bytes
// at a time in a general register), of the 200 ns that 64 bytes of English take in all on Zen 4.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace voltaic::text {

constexpr size_t kAsciiBlock = 64;  // bytes looked at at once
constexpr size_t kAsciiWord = 16;   // bytes of a word that one load takes

// One bit a byte, the first byte's lowest. In no mask: space and line feed.
struct AsciiBlock {
  uint64_t word;         // letters and digits
  uint64_t punctuation;  // each a token of its own
  uint64_t other;        // not ASCII, or a control character: the tables decide
};

inline AsciiBlock classify_ascii_portable(const uint8_t* bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x80 * kOnes;
  uint64_t word = 0, space = 0, other = 0;
  for (int i = 0; i < 8; i++) {
    uint64_t c = 0;
    for (int k = 0; k < 8; k++) c |= uint64_t{bytes[8 * i + k]} << (8 * k);
    // Of the lower seven bits, so that no sum carries into the neighbour.
    const uint64_t low = c & ~kHigh;
    const auto from = [](uint64_t x, uint64_t first) { return x + kOnes * (0x80 - first); };
    const auto within = [&](uint64_t x, uint64_t first, uint64_t count) {
      return from(x, first) & ~from(x, first + count) & kHigh;
    };
    const auto mask = [i](uint64_t x) { return (x >> 7) * 0x0102040810204080 >> 56 << (8 * i); };
    const uint64_t ascii = ~c & kHigh;
    const uint64_t letter = within(low | 0x20 * kOnes, 'a', 26);
    word |= mask((letter | within(low, '0', 10)) & ascii);
    const uint64_t blank = (within(low, ' ', 1) | within(low, '\n', 1)) & ascii;
    space |= mask(blank);
    other |= mask(((~from(low, ' ') | from(low, 0x7F) | c) & kHigh) & ~blank);
  }
  return {word, ~(word | space | other), other};
}

#ifdef __SSE2__
inline AsciiBlock classify_ascii(const uint8_t* bytes) {
  uint64_t word = 0, space = 0, other = 0;
  for (int i = 0; i < 4; i++) {
    const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + i);
    // [first, first + count) as one signed comparison.
    const auto within = [](__m128i x, char first, int count) {
      const __m128i moved = _mm_add_epi8(x, _mm_set1_epi8(static_cast<char>(-128 - first)));
      return _mm_cmplt_epi8(moved, _mm_set1_epi8(static_cast<char>(-128 + count)));
    };
    const auto mask = [i](__m128i x) {
      return static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(x))) << (16 * i);
    };
    const __m128i letter = within(_mm_or_si128(c, _mm_set1_epi8(0x20)), 'a', 26);
    word |= mask(_mm_or_si128(letter, within(c, '0', 10)));
    const __m128i blank =
        _mm_or_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(c, _mm_set1_epi8('\n')));
    space |= mask(blank);
    // Signed, bytes past ASCII are below the space as well.
    const __m128i odd =
        _mm_or_si128(_mm_cmplt_epi8(c, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(c, _mm_set1_epi8(0x7F)));
    other |= mask(_mm_andnot_si128(blank, odd));
  }
  return {word, ~(word | space | other), other};
}
#else
inline AsciiBlock classify_ascii(const uint8_t* bytes) { return classify_ascii_portable(bytes); }
#endif

// Writes 16 bytes: the `size` (to 16) first of `from`, where 16 can be read, and zeros.
// `lowercase`: all ones, or 0 to leave the bytes as they are. Bytes are of words: ASCII without
// @[\]^_`.
inline void load_ascii_word(const uint8_t* from, size_t size, uint64_t lowercase, uint8_t* out) {
  alignas(16) static constexpr uint8_t kKept[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                                    255, 255, 255, 255, 255, 255, 255, 255};
  uint64_t bytes[2], kept[2];
  std::memcpy(bytes, from, 16);
  std::memcpy(kept, kKept + 16 - size, 16);
  for (int i = 0; i < 2; i++) {
    bytes[i] &= kept[i];
    // Of all that words are made of, capitals alone have 0x40 without 0x20.
    bytes[i] |= (bytes[i] & (lowercase & 0x4040404040404040)) >> 1;
  }
  std::memcpy(out, bytes, 16);
}

}  // namespace voltaic::text
