// BERT's normalizer and pre-tokenizer in one walk: UTF-8 text in, words out.
//
// Two orders of the same steps, which give different words now and then:
//   huggingface  whole text: clean, space out Chinese, NFD and drop marks, lower-case; then split
//   google       clean, space out Chinese, split on whitespace; each word: lower-case (final sigma
//   by
//                context), NFD and drop marks; then split off punctuation
// ASCII takes a path of its own that never decodes: ascii_block.h says of 64 bytes at a time where
// words and punctuation stand, and only what touches something else goes byte by byte.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "ascii_block.h"
#include "unicode.h"

namespace voltaic::text {

struct NormalizerOptions {
  UnicodeEdition edition = UnicodeEdition::kHuggingFace;
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

// A word after normalization. The bytes from its end to the next multiple of 16 are zero.
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
  std::vector<uint8_t> ascii = std::vector<uint8_t>(64);  // a word and its zeros
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
  template <class Sink>
  const uint8_t* ascii_words(const uint8_t* position, std::span<const uint8_t> text,
                             NormalizerScratch& scratch, Sink& sink) const;
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
  while ((position = ascii_words(position, text, scratch, sink)) < end) {
    const uint8_t* const word = position;
    uint8_t byte_class = ascii_class_[*position];
    if (byte_class == kSpaceByte || byte_class == kRemovedByte) {
      position++;
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

// Words of letters and digits, and punctuation, until something else stands at or right behind a
// word, or a word is longer than a block. Returns where that word or other thing begins.
template <class Sink>
const uint8_t* Normalizer::ascii_words(const uint8_t* position, std::span<const uint8_t> text,
                                       NormalizerScratch& scratch, Sink& sink) const {
  const uint8_t* const start = text.data();
  const uint8_t* const end = start + text.size();
  const uint64_t letters = options_.lowercase ? ~uint64_t{0} : 0;
  while (position < end) {
    const auto rest = static_cast<size_t>(end - position);
    uint8_t tail[2 * kAsciiBlock];
    const uint8_t* block = position;
    if (rest < kAsciiBlock + kAsciiWord) {
      // Spaces behind the text, so that a word ends with it.
      std::memset(tail, ' ', sizeof tail);
      std::memcpy(tail, position, rest);
      block = tail;
    }
    const AsciiBlock masks = classify_ascii(block);
    const auto base = static_cast<uint32_t>(position - start);
    const int odd = std::countr_zero(masks.other);
    // Where words begin, and each punctuation.
    uint64_t begins = (masks.word & ~(masks.word << 1)) | masks.punctuation;
    for (; begins != 0; begins &= begins - 1) {
      const int at = std::countr_zero(begins);
      const int run = std::countr_one(masks.word >> at);
      if (at + run >= odd) break;  // or the block ends, where nothing is odd
      const auto size = static_cast<size_t>(run + (run == 0));
      const uint32_t begin = base + static_cast<uint32_t>(at);
      const uint8_t* bytes = scratch.ascii.data();
      if (size <= kAsciiWord) {
        load_ascii_word(block + at, size, run == 0 ? 0 : letters, scratch.ascii.data());
      } else {
        bytes = lowercase_ascii(position + at, size, end, scratch.ascii);
      }
      sink(Word{bytes, size, begin, begin + static_cast<uint32_t>(size), nullptr, nullptr});
    }
    const int stop = begins != 0 ? std::min(std::countr_zero(begins), odd) : odd;
    position += std::min(rest, static_cast<size_t>(stop));
    // A word that the block cuts is looked at again from its beginning.
    if (odd < 64 || stop == 0) return position;
  }
  return end;
}

template <bool Sources, class Sink>
void Normalizer::split(std::span<const NormalizedCharacter> characters, NormalizerScratch& scratch,
                       Sink&& sink) const {
  scratch.bytes.resize(characters.size() * 4 + 16);
  if constexpr (Sources) {
    scratch.starts.resize(scratch.bytes.size());
    scratch.stops.resize(scratch.bytes.size());
  }
  uint8_t* const bytes = scratch.bytes.data();
  size_t size = 0, first = 0;
  const auto flush = [&](size_t past) {
    if (size == 0) return;
    std::memset(bytes + size, 0, 16);
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

// Lower-cases (if the options say so) into `buffer`, 16 bytes at a time.
inline const uint8_t* Normalizer::lowercase_ascii(const uint8_t* word, size_t size,
                                                  const uint8_t* text_end,
                                                  std::vector<uint8_t>& buffer) const {
  if (buffer.size() < size + kAsciiWord) buffer.resize(2 * size + kAsciiWord);
  const uint64_t letters = options_.lowercase ? ~uint64_t{0} : 0;
  for (size_t i = 0; i < size; i += kAsciiWord) {
    const size_t rest = std::min(size - i, kAsciiWord);
    uint8_t tail[kAsciiWord] = {};
    const uint8_t* from = word + i;
    if (static_cast<size_t>(text_end - from) < kAsciiWord) {
      std::memcpy(tail, from, rest);
      from = tail;
    }
    load_ascii_word(from, rest, letters, buffer.data() + i);
  }
  return buffer.data();
}

}  // namespace voltaic::text
