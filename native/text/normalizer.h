// BERT's normalizer and pre-tokenizer in one walk: UTF-8 text in, words out.
//
// Two orders of the same steps, which give different words now and then:
//   huggingface  whole text: clean, space out Chinese, NFD and drop marks, lower-case; then split
//   google       clean, space out Chinese, split on whitespace; each word: lower-case (final sigma
//   by
//                context), NFD and drop marks; then split off punctuation
// Plain ASCII words take a path of their own that looks at each byte about twice and never decodes.
#pragma once
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "unicode.h"

namespace voltaic::text {

struct NormalizerOptions {
  UnicodeEdition edition = UnicodeEdition::kHuggingFace;
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

// A word after normalization. At least 8 bytes past its end can be read.
struct Word {
  const uint8_t* bytes;
  size_t size;
  // Bytes of the text it comes from: of its first and past its last character.
  uint32_t begin, end;
  // For each byte, where its character begins and ends in the text; null: byte i is begin + i.
  const uint32_t* starts;
  const uint32_t* stops;

  uint32_t start_of(size_t byte) const {
    return starts ? starts[byte] : begin + static_cast<uint32_t>(byte);
  }
  uint32_t stop_of(size_t byte) const {
    return stops ? stops[byte] : begin + static_cast<uint32_t>(byte) + 1;
  }
};

// A character after normalization and the bytes of the text it comes from.
struct NormalizedCharacter {
  char32_t c;
  uint32_t begin, end;
};

// The scratch memory of one walk; reused, so that a text allocates nothing after the first.
struct NormalizerScratch {
  std::vector<NormalizedCharacter> characters;
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> starts, stops;
  std::vector<uint8_t> ascii = std::vector<uint8_t>(64);
};

class Normalizer {
 public:
  explicit Normalizer(const NormalizerOptions& options);

  const NormalizerOptions& options() const { return options_; }

  // Calls sink(const Word&) for each word of `text` in order. Sources: whether the sink asks for
  // the source of single bytes (start_of, stop_of).
  template <bool Sources, class Sink>
  void for_each_word(std::span<const uint8_t> text, NormalizerScratch& scratch, Sink&& sink) const;

  // Appends the normalized form of a whole text, whitespace included.
  void normalize(std::span<const uint8_t> text, std::vector<NormalizedCharacter>& out) const;

  // Splits normalized characters into words.
  template <bool Sources, class Sink>
  void split(std::span<const NormalizedCharacter> characters, NormalizerScratch& scratch,
             Sink&& sink) const;

  bool is_whitespace(char32_t c) const { return (table_[c].flags & kWhitespace) != 0; }

 private:
  enum AsciiClass : uint8_t { kWordByte, kSpaceByte, kPunctuationByte, kRemovedByte, kNotAscii };

  // Normalizes from `position` up to the next whitespace or the end, and returns where it stopped.
  const uint8_t* normalize_chunk(const uint8_t* position, std::span<const uint8_t> text,
                                 std::vector<NormalizedCharacter>& out) const;
  void append(char32_t c, uint32_t begin, uint32_t end,
              std::vector<NormalizedCharacter>& out) const;
  void decompose(char32_t c, uint32_t begin, uint32_t end,
                 std::vector<NormalizedCharacter>& out) const;
  void order_canonically(std::vector<NormalizedCharacter>& out, size_t first, size_t begin,
                         size_t end) const;
  void finish_chunk(size_t first, std::vector<NormalizedCharacter>& out) const;
  char32_t lowercase_sigma(const uint8_t* sigma, const uint8_t* after,
                           std::span<const uint8_t> text) const;
  const uint8_t* lowercase_ascii(const uint8_t* word, size_t size, const uint8_t* text_end,
                                 std::vector<uint8_t>& buffer) const;

  NormalizerOptions options_;
  const UnicodeTable& table_;
  bool google_;
  bool decompose_;            // NFD and drop marks
  uint16_t chunk_end_flags_;  // what parts chunks
  uint16_t removed_flags_;
  uint16_t chinese_flags_;
  std::array<uint8_t, 256> ascii_class_;
};

template <bool Sources, class Sink>
void Normalizer::for_each_word(std::span<const uint8_t> text, NormalizerScratch& scratch,
                               Sink&& sink) const {
  const uint8_t* const start = text.data();
  const uint8_t* const end = start + text.size();
  const uint8_t* position = start;
  while (position < end) {
    const uint8_t* const word = position;
    uint8_t byte_class = ascii_class_[*position];
    if (byte_class == kSpaceByte || byte_class == kRemovedByte) {
      position++;
      continue;
    }
    if (byte_class == kPunctuationByte) {
      scratch.ascii[0] = *position++;
      const auto begin = static_cast<uint32_t>(word - start);
      sink(Word{scratch.ascii.data(), 1, begin, begin + 1, nullptr, nullptr});
      continue;
    }
    while (byte_class == kWordByte) {
      byte_class = ++position < end ? ascii_class_[*position] : uint8_t{kSpaceByte};
    }
    if (byte_class == kSpaceByte || byte_class == kPunctuationByte) {
      const auto size = static_cast<size_t>(position - word);
      const auto begin = static_cast<uint32_t>(word - start);
      const uint8_t* bytes = lowercase_ascii(word, size, end, scratch.ascii);
      sink(Word{bytes, size, begin, begin + static_cast<uint32_t>(size), nullptr, nullptr});
      continue;
    }
    // Something that ASCII rules do not decide: this word again, up to the next whitespace.
    scratch.characters.clear();
    position = normalize_chunk(word, text, scratch.characters);
    if (position == word) decode_utf8(position, end);  // whitespace past ASCII
    split<Sources>(scratch.characters, scratch, sink);
  }
}

template <bool Sources, class Sink>
void Normalizer::split(std::span<const NormalizedCharacter> characters, NormalizerScratch& scratch,
                       Sink&& sink) const {
  scratch.bytes.resize(characters.size() * 4 + 8);
  if constexpr (Sources) {
    scratch.starts.resize(scratch.bytes.size());
    scratch.stops.resize(scratch.bytes.size());
  }
  uint8_t* const bytes = scratch.bytes.data();
  size_t size = 0, first = 0;
  const auto flush = [&](size_t past) {
    if (size == 0) return;
    sink(Word{bytes, size, characters[first].begin, characters[past - 1].end,
              Sources ? scratch.starts.data() : nullptr, Sources ? scratch.stops.data() : nullptr});
    size = 0;
  };
  for (size_t i = 0; i < characters.size(); i++) {
    const NormalizedCharacter& character = characters[i];
    const uint16_t flags = table_[character.c].flags;
    if (flags & (kPunctuation | kWhitespace)) flush(i);
    if (flags & kWhitespace) continue;
    if (size == 0) first = i;
    const size_t length = encode_utf8(character.c, bytes + size);
    if constexpr (Sources) {
      for (size_t k = size; k < size + length; k++) {
        scratch.starts[k] = character.begin;
        scratch.stops[k] = character.end;
      }
    }
    size += length;
    if (flags & kPunctuation) flush(i + 1);
  }
  flush(characters.size());
}

// Lower-cases (if the options say so) eight bytes at a time into `buffer`.
inline const uint8_t* Normalizer::lowercase_ascii(const uint8_t* word, size_t size,
                                                  const uint8_t* text_end,
                                                  std::vector<uint8_t>& buffer) const {
  constexpr uint64_t kOnes = 0x0101010101010101;
  if (buffer.size() < size + 16) buffer.resize(2 * size + 16);
  uint8_t* const out = buffer.data();
  const uint64_t change = options_.lowercase ? kOnes * 0x80 : 0;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t eight = 0;
    const size_t rest = size - i;
    if (text_end - (word + i) >= 8) {
      std::memcpy(&eight, word + i, 8);
      if (rest < 8) eight &= ~uint64_t{0} >> (64 - 8 * rest);
    } else {
      std::memcpy(&eight, word + i, rest < 8 ? rest : 8);
    }
    // No byte is above 127 here, so no sum carries into its neighbour.
    const uint64_t from_a = eight + kOnes * (0x80 - 'A');
    const uint64_t past_z = eight + kOnes * (0x80 - 'Z' - 1);
    eight |= ((from_a ^ past_z) & change) >> 2;
    std::memcpy(out + i, &eight, 8);
  }
  return out;
}

}  // namespace voltaic::text
