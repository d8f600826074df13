// Unpacks the tables of unicode_tables.inc into pages, and decodes UTF-8.
#include "unicode.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>

namespace voltaic::text {
namespace {

struct FlagRange {
  uint32_t first, last;
  uint16_t flags;
};
struct CombiningRange {
  uint32_t first, last;
  uint8_t combining_class;
};
// `editions`: 1 Hugging Face, 2 Google, 3 both.
struct Decomposition {
  uint8_t editions;
  uint32_t code_point;
  uint8_t length;
  uint32_t mapped[4];
};
struct Lowercase {
  uint8_t editions;
  uint32_t code_point;
  uint8_t length;
  uint32_t mapped[3];
};

#include "unicode_tables.inc"

constexpr size_t kPages = 0x110000 / 256;

}  // namespace

const UnicodeTable& UnicodeTable::of(UnicodeEdition edition) {
  static const UnicodeTable hugging_face(UnicodeEdition::kHuggingFace);
  static const UnicodeTable google(UnicodeEdition::kGoogle);
  return edition == UnicodeEdition::kHuggingFace ? hugging_face : google;
}

// The record of one code point alone; copied from the shared one when it has none yet.
CodePoint& UnicodeTable::own_record(char32_t c) {
  uint16_t& index = pages_[c >> 8][c & 255];
  const CodePoint& record = code_points_[index];
  if (record.decomposition_length == 0 && record.lowercase_length == 0) {
    code_points_.push_back(CodePoint(record));
    index = static_cast<uint16_t>(code_points_.size() - 1);
  }
  return code_points_[index];
}

UnicodeTable::UnicodeTable(UnicodeEdition edition) : pages_(std::make_unique<Page[]>(kPages)) {
  const bool google = edition == UnicodeEdition::kGoogle;
  const uint8_t mask = google ? 2 : 1;
  const auto flags = google ? std::span<const FlagRange>(kGoogleFlags)
                            : std::span<const FlagRange>(kHuggingFaceFlags);
  const auto combining = google ? std::span<const CombiningRange>(kGoogleCombining)
                                : std::span<const CombiningRange>(kHuggingFaceCombining);

  code_points_.emplace_back();
  std::map<uint32_t, uint16_t> shared;  // flags and combining class -> record
  const auto share = [&](uint32_t c, uint16_t new_flags, uint8_t combining_class) {
    const auto [found, fresh] = shared.try_emplace(uint32_t{new_flags} << 8 | combining_class,
                                                   static_cast<uint16_t>(code_points_.size()));
    if (fresh) {
      code_points_.push_back({.flags = new_flags, .combining_class = combining_class});
    }
    pages_[c >> 8][c & 255] = found->second;
  };
  for (const FlagRange& range : flags) {
    for (uint32_t c = range.first; c <= range.last; c++) share(c, range.flags, 0);
  }
  for (const CombiningRange& range : combining) {
    for (uint32_t c = range.first; c <= range.last; c++) {
      share(c, (*this)[c].flags, range.combining_class);
    }
  }
  for (const Decomposition& row : kDecompositions) {
    if ((row.editions & mask) == 0) continue;
    CodePoint& record = own_record(row.code_point);
    record.decomposition_length = row.length;
    std::copy_n(row.mapped, row.length, record.decomposition);
  }
  for (const Lowercase& row : kLowercase) {
    if ((row.editions & mask) == 0) continue;
    CodePoint& record = own_record(row.code_point);
    record.lowercase_length = row.length;
    std::copy_n(row.mapped, row.length, record.lowercase);
  }
}

char32_t decode_utf8(const uint8_t*& position, const uint8_t* end) {
  constexpr char32_t kReplacement = 0xFFFD;
  const uint8_t lead = *position++;
  if (lead < 0x80) return lead;
  // The first continuation byte's range shuts out overlong forms, surrogates and values past
  // 10FFFF.
  int more;
  uint8_t low = 0x80, high = 0xBF;
  char32_t c;
  if (lead < 0xC2) {
    return kReplacement;
  } else if (lead < 0xE0) {
    more = 1;
    c = lead & 31;
  } else if (lead < 0xF0) {
    more = 2;
    c = lead & 15;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead < 0xF5) {
    more = 3;
    c = lead & 7;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return kReplacement;
  }
  for (; more > 0; more--) {
    if (position == end || *position < low || *position > high) return kReplacement;
    c = c << 6 | (*position++ & 63);
    low = 0x80;
    high = 0xBF;
  }
  return c;
}

char32_t decode_utf8_before(const uint8_t*& position, const uint8_t* start) {
  // A character has at most three continuation bytes; a start that does not reach `position`
  // exactly means malformed bytes, of which the last one alone counts.
  const uint8_t* const end = position;
  for (const uint8_t* lead = end - 1; lead >= start && end - lead <= 4; lead--) {
    if ((*lead & 0xC0) == 0x80) continue;
    const uint8_t* after = lead;
    const char32_t c = decode_utf8(after, end);
    if (after != end) break;
    position = lead;
    return c;
  }
  position = end - 1;
  return 0xFFFD;
}

}  // namespace voltaic::text
