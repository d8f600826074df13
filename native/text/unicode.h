// What a tokenizer needs to know of each Unicode code point, as two fixed editions.
//
// The two tokenizers that Voltaic matches rest on different Unicode versions (Hugging Face's on
// tables of mixed age, the TensorFlow original on Python's Unicode 14), and a newer table would
// give other ids. So both are written down in unicode_tables.inc, and the runtime's own Unicode
// data (which changes with every Node version) is never asked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace voltaic::text {

enum class UnicodeEdition : uint8_t { kHuggingFace, kGoogle };

// Flags of a code point.
enum : uint16_t {
  kRemoved = 1,       // dropped by text cleaning
  kSpace = 2,         // made a space by text cleaning
  kWhitespace = 4,    // parts words in the pre-tokenizer
  kChinese = 8,       // a word of its own
  kMark = 16,         // non-spacing mark, dropped with accents
  kPunctuation = 32,  // a token of its own
  kWordCharacter = 64,
  kCased = 128,     // cased and not ignorable: decides the final sigma
  kIgnorable = 256  // case-ignorable
};

struct CodePoint {
  uint16_t flags = 0;
  uint8_t combining_class = 0;
  uint8_t decomposition_length = 0;  // 0: decomposes to itself
  uint8_t lowercase_length = 0;      // 0: lower-cases to itself
  char32_t decomposition[4] = {};    // canonical, complete; Hangul syllables by decompose_hangul
  char32_t lowercase[3] = {};
};

class UnicodeTable {
 public:
  // Built at the first call, then constant and shared by all threads.
  static const UnicodeTable& of(UnicodeEdition edition);

  const CodePoint& operator[](char32_t c) const { return code_points_[pages_[c >> 8][c & 255]]; }

 private:
  explicit UnicodeTable(UnicodeEdition edition);
  CodePoint& own_record(char32_t c);

  using Page = uint16_t[256];
  std::unique_ptr<Page[]> pages_;
  std::vector<CodePoint> code_points_;  // record 0: no property at all
};

inline bool is_hangul_syllable(char32_t c) { return c - 0xAC00u < 11172u; }

// Writes the two or three jamo of a syllable and returns how many.
inline int decompose_hangul(char32_t syllable, char32_t jamo[3]) {
  const char32_t index = syllable - 0xAC00;
  jamo[0] = 0x1100 + index / 588;
  jamo[1] = 0x1161 + index % 588 / 28;
  jamo[2] = 0x11A7 + index % 28;
  return index % 28 == 0 ? 2 : 3;
}

// Reads one code point and moves `position` past it. Malformed bytes give U+FFFD, one for each
// longest piece that could have begun a character, as the web's decoders do. Needs position < end.
char32_t decode_utf8(const uint8_t*& position, const uint8_t* end);

// The code point that ends just before `position`. Needs start < position.
char32_t decode_utf8_before(const uint8_t*& position, const uint8_t* start);

// Writes 1 to 4 bytes and returns how many.
inline size_t encode_utf8(char32_t c, uint8_t* out) {
  if (c < 0x80) {
    out[0] = static_cast<uint8_t>(c);
    return 1;
  }
  if (c < 0x800) {
    out[0] = static_cast<uint8_t>(0xC0 | c >> 6);
    out[1] = static_cast<uint8_t>(0x80 | (c & 63));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = static_cast<uint8_t>(0xE0 | c >> 12);
    out[1] = static_cast<uint8_t>(0x80 | (c >> 6 & 63));
    out[2] = static_cast<uint8_t>(0x80 | (c & 63));
    return 3;
  }
  out[0] = static_cast<uint8_t>(0xF0 | c >> 18);
  out[1] = static_cast<uint8_t>(0x80 | (c >> 12 & 63));
  out[2] = static_cast<uint8_t>(0x80 | (c >> 6 & 63));
  out[3] = static_cast<uint8_t>(0x80 | (c & 63));
  return 4;
}

}  // namespace voltaic::text
