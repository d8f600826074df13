// WordPiece vocabulary training as Hugging Face's tokenizers do it: byte pair encoding over the
// words of a corpus, with "##" on what continues a word. Deterministic: continuation characters
// enter in code point order, and ties go to the smaller pair of ids.
#pragma once
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "normalizer.h"

namespace voltaic::text {

struct TrainingOptions {
  size_t vocabulary_size = 30522;
  uint64_t min_frequency = 2;
  size_t limit_alphabet = 1000;
  std::vector<std::string> special_tokens;
};

class VocabularyTrainer {
 public:
  explicit VocabularyTrainer(const NormalizerOptions& options) : normalizer_(options) {}

  // Counts the words of the next piece of a text; a piece may end anywhere, even within a
  // character.
  void feed(std::span<const uint8_t> bytes);

  // Ends the text: what was fed last and what comes next are not one word.
  void end_text();

  uint64_t words() const { return words_; }
  size_t distinct_words() const { return counts_.size(); }

  // The vocabulary in the order of its ids; longer than asked for when special tokens and alphabet
  // alone are. Returns early (with what it has) once `cancelled` is set.
  std::vector<std::string> train(const TrainingOptions& options,
                                 const std::atomic<bool>& cancelled) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  // A run without whitespace is cut after this many bytes, so that it cannot fill the memory.
  static constexpr size_t kLongestRun = size_t{1} << 20;

  void count(std::span<const uint8_t> text);

  Normalizer normalizer_;
  NormalizerScratch scratch_;
  std::vector<uint8_t> pending_;  // the unfinished last run of what was fed
  std::unordered_map<std::string, uint64_t, Hash, std::equal_to<>> counts_;
  uint64_t words_ = 0;
};

}  // namespace voltaic::text
