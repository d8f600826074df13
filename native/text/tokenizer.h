// A whole tokenizer: added tokens cut out of the text, words, WordPiece.
//
// Holds scratch memory and a cache: use one object from one thread at a time.
#pragma once
#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "normalizer.h"
#include "wordpiece.h"

namespace voltaic::text {

// A token found in the text itself, before it is split into words. Of two that begin at the same
// character the longer one counts.
struct AddedToken {
  std::string content;
  int32_t id;
  bool normalized = false;   // sought in the normalized text instead of the given one
  bool single_word = false;  // only where no word character stands beside it
  bool left_strip = false;   // takes whitespace before it along
  bool right_strip = false;
};

// The tokens of a text, in columns. Offsets are bytes of the text; words are counted from 0.
struct Tokens {
  Ids ids;
  std::vector<uint32_t> begins, ends;
  std::vector<int32_t> words;

  void clear() {
    ids.resize(0);
    begins.clear();
    ends.clear();
    words.clear();
  }
};

class Tokenizer {
 public:
  Tokenizer(std::span<const std::string_view> vocabulary, const NormalizerOptions& normalizer,
            const WordPieceOptions& wordpiece, std::vector<AddedToken> added)
      : normalizer_(normalizer),
        wordpiece_(vocabulary, wordpiece),
        added_(std::move(added)),
        given_(given_entries()),
        normalized_(normalized_entries()) {
    for (const AddedToken& token : added_) has_normalized_ |= token.normalized;
  }

  // Appends the tokens of a text. Details: with offsets and words, or ids alone.
  template <bool Details>
  void encode(std::span<const uint8_t> text, Tokens& out) {
    word_ = 0;
    size_t from = 0;
    while (const auto found = find(given_, text, from)) {
      encode_plain<Details>(text, from, found->begin, out);
      push<Details>(*found->token, static_cast<uint32_t>(found->begin),
                    static_cast<uint32_t>(found->end), out);
      from = found->end;
    }
    encode_plain<Details>(text, from, text.size(), out);
  }

 private:
  struct Found {
    const AddedToken* token;
    size_t begin, end;
  };

  std::vector<Trie::Entry> given_entries() const {
    std::vector<Trie::Entry> entries;
    for (size_t i = 0; i < added_.size(); i++) {
      if (!added_[i].normalized) entries.push_back({added_[i].content, static_cast<int32_t>(i)});
    }
    return entries;
  }

  // The contents of these are normalized as the text is.
  std::vector<Trie::Entry> normalized_entries() {
    normalized_contents_.resize(added_.size());
    std::vector<Trie::Entry> entries;
    for (size_t i = 0; i < added_.size(); i++) {
      if (!added_[i].normalized) continue;
      const auto* bytes = reinterpret_cast<const uint8_t*>(added_[i].content.data());
      scratch_.characters.clear();
      normalizer_.normalize({bytes, added_[i].content.size()}, scratch_.characters);
      append_bytes(scratch_.characters, normalized_contents_[i], nullptr);
      entries.push_back({normalized_contents_[i], static_cast<int32_t>(i)});
    }
    return entries;
  }

  template <class Bytes>
  static void append_bytes(std::span<const NormalizedCharacter> characters, Bytes& bytes,
                           std::vector<size_t>* starts) {
    for (const NormalizedCharacter& character : characters) {
      uint8_t buffer[4];
      if (starts) starts->push_back(bytes.size());
      bytes.insert(bytes.end(), buffer, buffer + encode_utf8(character.c, buffer));
    }
    if (starts) starts->push_back(bytes.size());
  }

  // The next added token at or after `from`, with the whitespace that it takes.
  std::optional<Found> find(const Trie& trie, std::span<const uint8_t> text, size_t from) const {
    for (size_t position = from; (position = trie.next_beginning(text, position)) < text.size();) {
      size_t length;
      const int32_t index = trie.longest_match(text.subspan(position), length);
      if (index == Trie::kNone) {
        position++;
        continue;
      }
      const AddedToken& token = added_[static_cast<size_t>(index)];
      size_t begin = position, end = position + length;
      position = end;
      if (token.single_word &&
          (word_character_before(text, begin) || word_character_at(text, end))) {
        continue;
      }
      if (token.left_strip) {
        while (begin > from) {
          const uint8_t* before = text.data() + begin;
          if (!normalizer_.is_whitespace(decode_utf8_before(before, text.data()))) break;
          begin = std::max(from, static_cast<size_t>(before - text.data()));
        }
      }
      if (token.right_strip) {
        while (end < text.size()) {
          const uint8_t* after = text.data() + end;
          if (!normalizer_.is_whitespace(decode_utf8(after, text.data() + text.size()))) break;
          end = static_cast<size_t>(after - text.data());
        }
      }
      return Found{&token, begin, end};
    }
    return std::nullopt;
  }

  static bool is_word_character(char32_t c) {
    return (UnicodeTable::of(UnicodeEdition::kHuggingFace)[c].flags & kWordCharacter) != 0;
  }
  static bool word_character_before(std::span<const uint8_t> text, size_t position) {
    const uint8_t* before = text.data() + position;
    return position > 0 && is_word_character(decode_utf8_before(before, text.data()));
  }
  static bool word_character_at(std::span<const uint8_t> text, size_t position) {
    const uint8_t* at = text.data() + position;
    return position < text.size() && is_word_character(decode_utf8(at, text.data() + text.size()));
  }

  template <bool Details>
  void push(const AddedToken& token, uint32_t begin, uint32_t end, Tokens& out) {
    out.ids.push_back(token.id);
    if constexpr (Details) {
      out.begins.push_back(begin);
      out.ends.push_back(end);
      out.words.push_back(word_);
    }
    word_++;
  }

  // Text in which no (more) added token is to be sought as given.
  template <bool Details>
  void encode_plain(std::span<const uint8_t> text, size_t begin, size_t end, Tokens& out) {
    if (begin == end) return;
    const auto base = static_cast<uint32_t>(begin);
    const auto plain = text.subspan(begin, end - begin);
    const auto sink = [&](const Word& word) { encode_word<Details>(word, base, out); };
    if (!has_normalized_) {
      normalizer_.for_each_word<Details>(plain, scratch_, sink);
      return;
    }
    std::vector<NormalizedCharacter> characters;
    std::vector<uint8_t> bytes;
    std::vector<size_t> starts;  // the first byte of each character, and the end
    normalizer_.normalize(plain, characters);
    append_bytes(characters, bytes, &starts);
    const auto character_at = [&](size_t byte) {
      return static_cast<size_t>(std::lower_bound(starts.begin(), starts.end(), byte) -
                                 starts.begin());
    };
    size_t from = 0;
    const auto split_until = [&](size_t byte) {
      const size_t first = character_at(from), past = character_at(byte);
      normalizer_.split<Details>(std::span(characters).subspan(first, past - first), scratch_,
                                 sink);
    };
    while (const auto found = find(normalized_, bytes, from)) {
      split_until(found->begin);
      push<Details>(*found->token, base + characters[character_at(found->begin)].begin,
                    base + characters[character_at(found->end) - 1].end, out);
      from = found->end;
    }
    split_until(bytes.size());
  }

  template <bool Details>
  void encode_word(const Word& word, uint32_t base, Tokens& out) {
    if constexpr (Details) {
      piece_ends_.clear();
      wordpiece_.encode(word, out.ids, &piece_ends_);
      size_t piece_begin = 0;
      for (const uint32_t piece_end : piece_ends_) {
        out.begins.push_back(base + word.start_of(piece_begin));
        out.ends.push_back(base + word.stop_of(piece_end - 1));
        out.words.push_back(word_);
        piece_begin = piece_end;
      }
      word_++;
    } else {
      wordpiece_.encode(word, out.ids, nullptr);
    }
  }

  NormalizerScratch scratch_;
  Normalizer normalizer_;
  WordPiece wordpiece_;
  std::vector<AddedToken> added_;
  std::vector<std::string> normalized_contents_;
  Trie given_;
  Trie normalized_;
  bool has_normalized_ = false;
  std::vector<uint32_t> piece_ends_;
  int32_t word_ = 0;
};

}  // namespace voltaic::text
