// The text rooms on hostile bytes: nothing is read or written out of bounds (run under
// AddressSanitizer), offsets stay in the text, and the paths that are there for speed give what the
// plain ones give.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../../native/text/tokenizer.h"
#include "../../native/text/vocabulary_trainer.h"
#include "harness.h"

using namespace voltaic::text;
using voltaic::test::Random;
using voltaic::test::seeds;

namespace {

// A copy in memory of exactly its size, so that a byte too far is seen.
struct ExactBytes {
  explicit ExactBytes(const std::string& text)
      : size(text.size()), data(std::make_unique<uint8_t[]>(text.size())) {
    std::memcpy(data.get(), text.data(), size);
  }
  std::span<const uint8_t> span() const { return {data.get(), size}; }
  size_t size;
  std::unique_ptr<uint8_t[]> data;
};

std::string random_bytes(Random& random, int64_t most) {
  static const std::vector<std::string> pieces = {" ",
                                                  "\n",
                                                  "a",
                                                  "Hello",
                                                  "[MASK]",
                                                  "x",
                                                  "\xC3\xA9",
                                                  "\xE4\xB8\xAD",
                                                  "\xF0\x9F\x98\x80",
                                                  "\t",
                                                  "e\xCC\x81",
                                                  "\xCE\xA3",
                                                  "\xCC\xB4",
                                                  "\xE3\x80\xAF",
                                                  "\xEA\xB0\x81",
                                                  "\xE2\x80\x8B",
                                                  "don't",
                                                  "\xFF",
                                                  "\xE2\x80",
                                                  "\xF0\x9F",
                                                  "\x80",
                                                  "\xED\xA0\x80",
                                                  std::string(1, '\0'),
                                                  "\xC4\xB0",
                                                  "\xE2\x80\xA8",
                                                  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  std::string text;
  const int64_t count = random.integer(0, most);
  for (int64_t i = 0; i < count; i++) {
    if (random.integer(0, 3) == 0) {
      text.push_back(static_cast<char>(random.integer(0, 255)));
    } else {
      text +=
          pieces[static_cast<size_t>(random.integer(0, static_cast<int64_t>(pieces.size()) - 1))];
    }
  }
  return text;
}

NormalizerOptions random_options(Random& random) {
  const auto flag = [&] { return random.integer(0, 1) == 1; };
  return {flag() ? UnicodeEdition::kGoogle : UnicodeEdition::kHuggingFace, flag(), flag(), flag(),
          flag()};
}

const std::vector<std::string_view> kVocabulary = {
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "hello",
    "hell",  "##o",   "e",     "x",     "don",    "'", "t",   "\xE4\xB8\xAD"};

std::string word_text(const Word& word) {
  return {reinterpret_cast<const char*>(word.bytes), word.size};
}

std::vector<int32_t> ids_of(const Tokens& tokens) {
  return {tokens.ids.data(), tokens.ids.data() + tokens.ids.size()};
}

// WordPiece by its definition: the longest piece from the left, by looking for each length.
std::vector<int32_t> pieces_of(std::string_view word, size_t max_characters) {
  const auto is_start = [](char byte) { return (byte & 0xC0) != 0x80; };
  const auto characters = static_cast<size_t>(std::count_if(word.begin(), word.end(), is_start));
  std::vector<int32_t> ids;
  while (!word.empty() && characters <= max_characters) {
    size_t length = word.size();
    ptrdiff_t id = -1;
    for (; length > 0 && id < 0; length--) {
      const std::string piece = (ids.empty() ? "" : "##") + std::string(word.substr(0, length));
      const auto found = std::find(kVocabulary.begin(), kVocabulary.end(), piece);
      if (found != kVocabulary.end()) id = found - kVocabulary.begin();
    }
    if (id < 0) return {1};
    ids.push_back(static_cast<int32_t>(id));
    word.remove_prefix(length + 1);
  }
  return word.empty() ? ids : std::vector<int32_t>{1};
}

}  // namespace

TEST(text_hostile_bytes_keep_offsets_in_order) {
  for (Random random : seeds(400)) {
    const NormalizerOptions options = random_options(random);
    const bool normalized = random.integer(0, 1) == 1;
    Tokenizer tokenizer(
        kVocabulary, options, {"##", 1, 20},
        {{"[MASK]", 4, false, false, true, true}, {"ello", 16, normalized, false, false, true}});
    const ExactBytes text(random_bytes(random, 40));
    Tokens plain, detailed;
    tokenizer.encode<false>(text.span(), plain);
    tokenizer.encode<true>(text.span(), detailed);
    EXPECT(ids_of(plain) == ids_of(detailed));
    EXPECT(detailed.begins.size() == detailed.ids.size() &&
           detailed.words.size() == detailed.ids.size());
    for (size_t i = 0; i < detailed.ids.size(); i++) {
      EXPECT(detailed.begins[i] <= detailed.ends[i] && detailed.ends[i] <= text.size);
      EXPECT(i == 0 || detailed.words[i] - detailed.words[i - 1] == 0 ||
             detailed.words[i] - detailed.words[i - 1] == 1);
    }
  }
}

TEST(text_words_of_the_fast_path_are_those_of_the_general_one) {
  for (Random random : seeds(400)) {
    const Normalizer normalizer(random_options(random));
    const ExactBytes text(random_bytes(random, 40));
    NormalizerScratch scratch;
    std::vector<std::string> fast, general;
    normalizer.for_each_word<true>(text.span(), scratch,
                                   [&](const Word& word) { fast.push_back(word_text(word)); });
    std::vector<NormalizedCharacter> characters;
    normalizer.normalize(text.span(), characters);
    normalizer.split<true>(characters, scratch,
                           [&](const Word& word) { general.push_back(word_text(word)); });
    EXPECT(fast == general);
  }
}

TEST(text_ids_are_those_of_the_definition_whatever_is_cached) {
  for (Random random : seeds(200)) {
    const NormalizerOptions options = random_options(random);
    const Normalizer normalizer(options);
    Tokenizer tokenizer(kVocabulary, options, {"##", 1, 20}, {});
    // The second text finds words of the first in the cache.
    for (int round = 0; round < 2; round++) {
      std::string bytes = random_bytes(random, 60);
      for (int64_t words = random.integer(0, 40); words > 0; words--) {
        bytes += "hello don" + std::string(static_cast<size_t>(random.integer(0, 70)), 'a');
        bytes += std::string(static_cast<size_t>(random.integer(0, 2)), '\0');
      }
      const ExactBytes text(bytes);
      std::vector<int32_t> expected;
      std::vector<NormalizedCharacter> characters;
      NormalizerScratch scratch;
      normalizer.normalize(text.span(), characters);
      normalizer.split<true>(characters, scratch, [&](const Word& word) {
        const auto ids = pieces_of(word_text(word), 20);
        expected.insert(expected.end(), ids.begin(), ids.end());
      });
      Tokens tokens;
      tokenizer.encode<false>(text.span(), tokens);
      EXPECT(ids_of(tokens) == expected);
    }
  }
}

TEST(text_blocks_of_ascii_are_classified_alike_by_every_path) {
  for (Random random : seeds(200)) {
    uint8_t bytes[kAsciiBlock];
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.integer(0, 255));
    const AsciiBlock block = classify_ascii(bytes), plain = classify_ascii_portable(bytes);
    EXPECT(block.word == plain.word && block.punctuation == plain.punctuation &&
           block.other == plain.other);
    for (size_t i = 0; i < kAsciiBlock; i++) {
      const uint16_t flags = UnicodeTable::of(UnicodeEdition::kGoogle)[bytes[i]].flags;
      const bool blank = bytes[i] == ' ' || bytes[i] == '\n';
      const bool other = !blank && (bytes[i] < ' ' || bytes[i] >= 0x7F);
      EXPECT((block.other >> i & 1) == other);
      EXPECT((block.punctuation >> i & 1) == (!other && (flags & kPunctuation) != 0));
      EXPECT((block.word >> i & 1) == (!other && !blank && (flags & kPunctuation) == 0));
    }
  }
}

TEST(text_utf8_round_trip_of_every_code_point) {
  bool right = true;
  for (char32_t c = 0; c < 0x110000; c++) {
    if (c >= 0xD800 && c < 0xE000) continue;
    uint8_t bytes[4];
    const size_t size = encode_utf8(c, bytes);
    const uint8_t* forward = bytes;
    const uint8_t* backward = bytes + size;
    right &= decode_utf8(forward, bytes + size) == c && forward == bytes + size;
    right &= decode_utf8_before(backward, bytes) == c && backward == bytes;
  }
  EXPECT(right);
}

TEST(text_trie_finds_the_longest_key) {
  const Trie trie({{"a", 1}, {"abc", 2}, {"", 3}, {"abd", 4}, {"abc", 5}});
  const auto find = [&](std::string_view text, size_t& length) {
    return trie.longest_match({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, length);
  };
  size_t length = 0;
  EXPECT(find("abcd", length) == 5 && length == 3);
  EXPECT(find("abx", length) == 1 && length == 1);
  EXPECT(find("b", length) == Trie::kNone && length == 0);
  EXPECT(find("", length) == Trie::kNone && length == 0);
}

TEST(text_vocabulary_does_not_depend_on_where_the_corpus_is_cut) {
  const std::atomic<bool> never{false};
  for (Random random : seeds(60)) {
    const NormalizerOptions options = random_options(random);
    const ExactBytes text(random_bytes(random, 300));
    VocabularyTrainer whole(options), pieces(options);
    whole.feed(text.span());
    whole.end_text();
    for (size_t begin = 0; begin < text.size;) {
      const size_t size = std::min(text.size - begin, static_cast<size_t>(random.integer(1, 9)));
      const ExactBytes piece(
          std::string(reinterpret_cast<const char*>(text.data.get() + begin), size));
      pieces.feed(piece.span());
      begin += size;
    }
    pieces.end_text();
    const TrainingOptions training{60, 1, 40, {"[PAD]"}};
    EXPECT(whole.words() == pieces.words());
    EXPECT(whole.train(training, never) == pieces.train(training, never));
  }
}

TEST(text_a_run_without_whitespace_is_cut_at_characters) {
  VocabularyTrainer trainer({});
  std::string text;
  while (text.size() < (size_t{3} << 20)) text += "\xC3\xA9";
  const ExactBytes bytes(text);
  trainer.feed(bytes.span());
  trainer.end_text();
  const std::atomic<bool> never{false};
  const auto vocabulary = trainer.train({4, 1, 100, {}}, never);
  EXPECT(trainer.words() <= 4);
  // Accents are dropped, so all characters are e; U+FFFD would be another.
  EXPECT(vocabulary.size() == 4 && vocabulary[0] == "e" && vocabulary[1] == "##e");
}
