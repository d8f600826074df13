// The general path of the normalizer: one whitespace-parted chunk at a time, code point by code
// point.
#include "normalizer.h"

#include <algorithm>

namespace voltaic::text {
namespace {

constexpr char32_t kCapitalSigma = 0x3A3, kSmallSigma = 0x3C3, kFinalSigma = 0x3C2;

}  // namespace

Normalizer::Normalizer(const NormalizerOptions& options)
    : options_(options),
      table_(UnicodeTable::of(options.edition)),
      google_(options.edition == UnicodeEdition::kGoogle),
      decompose_(options.strip_accents && (!google_ || options.lowercase)),
      chunk_end_flags_(options.clean_text ? kSpace | kWhitespace : kWhitespace),
      removed_flags_(options.clean_text ? kRemoved : 0),
      chinese_flags_(options.handle_chinese_chars ? kChinese : 0) {
  for (int byte = 0; byte < 256; byte++) {
    const uint16_t flags = byte < 128 ? table_[byte].flags : uint16_t{0};
    ascii_class_[byte] = byte >= 128                  ? kNotAscii
                         : (flags & removed_flags_)   ? kRemovedByte
                         : (flags & chunk_end_flags_) ? kSpaceByte
                         : (flags & kPunctuation)     ? kPunctuationByte
                                                      : kWordByte;
  }
}

const uint8_t* Normalizer::normalize_chunk(const uint8_t* position, std::span<const uint8_t> text,
                                           std::vector<NormalizedCharacter>& out) const {
  const uint8_t* const start = text.data();
  const uint8_t* const text_end = start + text.size();
  size_t first = out.size();
  while (position < text_end) {
    const uint8_t* const here = position;
    const char32_t c = decode_utf8(position, text_end);
    const uint16_t flags = table_[c].flags;
    if (flags & removed_flags_) continue;
    if (flags & chunk_end_flags_) {
      position = here;
      break;
    }
    const auto begin = static_cast<uint32_t>(here - start);
    const auto end = static_cast<uint32_t>(position - start);
    if (flags & chinese_flags_) {
      finish_chunk(first, out);
      out.push_back({' ', begin, end});
      first = out.size();
      append(c, begin, end, out);
      finish_chunk(first, out);
      out.push_back({' ', begin, end});
      first = out.size();
    } else if (google_ && c == kCapitalSigma && options_.lowercase) {
      decompose(lowercase_sigma(here, position, text), begin, end, out);
    } else {
      append(c, begin, end, out);
    }
  }
  finish_chunk(first, out);
  return position;
}

// google lower-cases before it decomposes; huggingface after (in finish_chunk).
void Normalizer::append(char32_t c, uint32_t begin, uint32_t end,
                        std::vector<NormalizedCharacter>& out) const {
  const CodePoint& record = table_[c];
  if (google_ && options_.lowercase && record.lowercase_length > 0) {
    for (int i = 0; i < record.lowercase_length; i++) {
      decompose(record.lowercase[i], begin, end, out);
    }
  } else {
    decompose(c, begin, end, out);
  }
}

void Normalizer::decompose(char32_t c, uint32_t begin, uint32_t end,
                           std::vector<NormalizedCharacter>& out) const {
  if (!decompose_) {
    out.push_back({c, begin, end});
  } else if (is_hangul_syllable(c)) {
    char32_t jamo[3];
    const int length = decompose_hangul(c, jamo);
    for (int i = 0; i < length; i++) out.push_back({jamo[i], begin, end});
  } else if (const CodePoint& record = table_[c]; record.decomposition_length > 0) {
    for (int i = 0; i < record.decomposition_length; i++) {
      out.push_back({record.decomposition[i], begin, end});
    }
  } else {
    out.push_back({c, begin, end});
  }
}

// Sorts the combining characters out[begin, end) by class. Sources stay where they were, as in
// Hugging Face's library: characters of the text take theirs one after the other, and what a
// decomposition added takes that of the character before it.
void Normalizer::order_canonically(std::vector<NormalizedCharacter>& out, size_t first,
                                   size_t begin, size_t end) const {
  struct Combining {
    char32_t c;
    bool added;
  };
  std::vector<Combining> ordered;
  std::vector<NormalizedCharacter> sources;
  NormalizedCharacter source = begin > first ? out[begin - 1] : out[begin];
  for (size_t i = begin; i < end; i++) {
    const bool added = i > first && out[i].begin == out[i - 1].begin;
    ordered.push_back({out[i].c, added});
    if (!added) sources.push_back(out[i]);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [&](const Combining& a, const Combining& b) {
    return table_[a.c].combining_class < table_[b.c].combining_class;
  });
  auto next = sources.begin();
  for (const Combining& combining : ordered) {
    if (!combining.added) source = *next++;
    out[begin++] = {combining.c, source.begin, source.end};
  }
}

// Canonical order, marks dropped, and huggingface's lower-casing, for the characters from `first`
// on.
void Normalizer::finish_chunk(size_t first, std::vector<NormalizedCharacter>& out) const {
  if (decompose_) {
    size_t kept = first;
    for (size_t i = first; i < out.size();) {
      size_t end = i;
      bool order = false;
      do {
        const CodePoint& record = table_[out[end].c];
        if (record.combining_class == 0) break;
        // Nearly all that combines is a mark and goes; its order matters only to what stays.
        order |= (record.flags & kMark) == 0;
      } while (++end < out.size());
      if (order) order_canonically(out, first, i, end);
      end = std::max(end, i + 1);
      for (; i < end; i++) {
        if ((table_[out[i].c].flags & kMark) == 0) out[kept++] = out[i];
      }
    }
    out.resize(kept);
  }
  if (google_ || !options_.lowercase) return;
  for (size_t i = first; i < out.size(); i++) {
    const CodePoint& record = table_[out[i].c];
    if (record.lowercase_length == 0) continue;
    out[i].c = record.lowercase[0];
    for (int k = 1; k < record.lowercase_length; k++) {
      const NormalizedCharacter more{record.lowercase[k], out[i].begin, out[i].end};
      out.insert(out.begin() + static_cast<ptrdiff_t>(++i), more);
    }
  }
}

// Final sigma: after a cased letter and before none, looking through ignorable characters.
char32_t Normalizer::lowercase_sigma(const uint8_t* sigma, const uint8_t* after,
                                     std::span<const uint8_t> text) const {
  const auto passed = [&](char32_t c) {
    return (table_[c].flags & (kIgnorable | removed_flags_)) != 0;
  };
  const uint8_t* const start = text.data();
  const uint8_t* const end = start + text.size();
  bool cased_before = false, cased_after = false;
  while (sigma > start) {
    const char32_t c = decode_utf8_before(sigma, start);
    if (passed(c)) continue;
    cased_before = (table_[c].flags & kCased) != 0;
    break;
  }
  while (cased_before && after < end) {
    const char32_t c = decode_utf8(after, end);
    if (passed(c)) continue;
    cased_after = (table_[c].flags & kCased) != 0;
    break;
  }
  return cased_before && !cased_after ? kFinalSigma : kSmallSigma;
}

void Normalizer::normalize(std::span<const uint8_t> text,
                           std::vector<NormalizedCharacter>& out) const {
  const uint8_t* const start = text.data();
  const uint8_t* const end = start + text.size();
  for (const uint8_t* position = start; position < end;) {
    position = normalize_chunk(position, text, out);
    if (position == end) break;
    const uint8_t* const here = position;
    const char32_t c = decode_utf8(position, end);
    out.push_back({options_.clean_text ? U' ' : c, static_cast<uint32_t>(here - start),
                   static_cast<uint32_t>(position - start)});
  }
}

}  // namespace voltaic::text
