// Word counting and the merge loop.
#include "vocabulary_trainer.h"

#include <algorithm>
#include <map>
#include <unordered_map>

namespace voltaic::text {
namespace {

constexpr std::string_view kPrefix = "##";

bool is_ascii_space(uint8_t byte) {
  return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

using Pair = uint64_t;  // left id in the upper half, so that pairs compare as (left, right)

Pair pair_of(uint32_t left, uint32_t right) { return Pair{left} << 32 | right; }

// The words of the corpus as runs of symbols that shrink as symbols merge.
struct TrainingWords {
  struct Entry {
    size_t begin;
    uint32_t length;
    int64_t count;
  };
  std::vector<Entry> entries;
  std::vector<uint32_t> symbols;
};

struct Change {
  Pair pair;
  int64_t count;
};

// Replaces each (left, right) of the word by `merged`, and reports the pairs that come and go
// beside it.
void merge_in_word(TrainingWords& words, uint32_t index, Pair pair, uint32_t merged,
                   std::vector<Change>& changes) {
  TrainingWords::Entry& word = words.entries[index];
  uint32_t* const symbols = words.symbols.data() + word.begin;
  const auto left = static_cast<uint32_t>(pair >> 32), right = static_cast<uint32_t>(pair);
  uint32_t length = 0;
  for (uint32_t i = 0; i < word.length; i++) {
    if (symbols[i] != left || i + 1 == word.length || symbols[i + 1] != right) {
      symbols[length++] = symbols[i];
      continue;
    }
    if (length > 0) {
      changes.push_back({pair_of(symbols[length - 1], left), -word.count});
      changes.push_back({pair_of(symbols[length - 1], merged), word.count});
    }
    if (i + 2 < word.length) {
      changes.push_back({pair_of(right, symbols[i + 2]), -word.count});
      changes.push_back({pair_of(merged, symbols[i + 2]), word.count});
    }
    symbols[length++] = merged;
    i++;
  }
  word.length = length;
}

// A pair to merge, its count when it was queued, and the words in which it was found.
struct Candidate {
  int64_t count;
  Pair pair;
  uint64_t serial;
  std::vector<uint32_t> words;

  bool operator<(const Candidate& other) const {  // the heap's top is the largest
    if (count != other.count) return count < other.count;
    if (pair != other.pair) return pair > other.pair;
    return serial > other.serial;
  }
};

class CandidateHeap {
 public:
  bool empty() const { return heap_.empty(); }
  void push(Candidate candidate) {
    heap_.push_back(std::move(candidate));
    std::push_heap(heap_.begin(), heap_.end());
  }
  Candidate pop() {
    std::pop_heap(heap_.begin(), heap_.end());
    Candidate top = std::move(heap_.back());
    heap_.pop_back();
    return top;
  }

 private:
  std::vector<Candidate> heap_;
};

class Vocabulary {
 public:
  // The id of a token, which enters if it is new.
  uint32_t add(const std::string& token) {
    const auto [found, fresh] = ids_.try_emplace(token, static_cast<uint32_t>(tokens.size()));
    if (fresh) tokens.push_back(token);
    return found->second;
  }
  std::vector<std::string> tokens;

 private:
  std::unordered_map<std::string, uint32_t> ids_;
};

using WordCounts = std::vector<std::pair<std::string_view, uint64_t>>;

template <class Visit>
void for_each_character(std::string_view word, Visit&& visit) {
  const auto* position = reinterpret_cast<const uint8_t*>(word.data());
  const uint8_t* const end = position + word.size();
  for (bool first = true; position < end; first = false) visit(decode_utf8(position, end), first);
}

std::string to_utf8(char32_t c) {
  uint8_t bytes[4];
  return {reinterpret_cast<const char*>(bytes), encode_utf8(c, bytes)};
}

struct Alphabet {
  uint32_t initial;
  uint32_t continuation;
};

// Enters the most frequent characters in code point order, then those that continue a word with
// "##".
std::unordered_map<char32_t, Alphabet> add_alphabet(const WordCounts& words, size_t limit,
                                                    Vocabulary& vocabulary) {
  struct Seen {
    char32_t c;
    uint64_t count;
    bool continues;
  };
  std::map<char32_t, Seen> seen;
  for (const auto& [word, count] : words) {
    for_each_character(word, [&, times = count](char32_t c, bool first) {
      Seen& entry = seen.try_emplace(c, Seen{c, 0, false}).first->second;
      entry.count += times;
      entry.continues |= !first;
    });
  }
  std::vector<Seen> kept;
  for (const auto& [c, entry] : seen) kept.push_back(entry);
  if (kept.size() > limit) {
    std::stable_sort(kept.begin(), kept.end(),
                     [](const Seen& a, const Seen& b) { return a.count > b.count; });
    kept.resize(limit);
    std::sort(kept.begin(), kept.end(), [](const Seen& a, const Seen& b) { return a.c < b.c; });
  }
  std::unordered_map<char32_t, Alphabet> alphabet;
  for (const Seen& entry : kept) alphabet[entry.c] = {vocabulary.add(to_utf8(entry.c)), 0};
  for (const Seen& entry : kept) {
    if (entry.continues) {
      alphabet[entry.c].continuation = vocabulary.add(std::string(kPrefix) + to_utf8(entry.c));
    }
  }
  return alphabet;
}

TrainingWords symbols_of(const WordCounts& words,
                         const std::unordered_map<char32_t, Alphabet>& alphabet) {
  TrainingWords result;
  for (const auto& [word, count] : words) {
    const size_t begin = result.symbols.size();
    for_each_character(word, [&](char32_t c, bool first) {
      const auto found = alphabet.find(c);
      if (found == alphabet.end()) return;
      result.symbols.push_back(first ? found->second.initial : found->second.continuation);
    });
    const auto length = static_cast<uint32_t>(result.symbols.size() - begin);
    result.entries.push_back({begin, length, static_cast<int64_t>(count)});
  }
  return result;
}

// Counts of pairs, and the words in which pairs appeared since they were last queued.
class PairBook {
 public:
  void change(Pair pair, int64_t by, uint32_t word) {
    counts_[pair] += by;
    if (by <= 0) return;
    const auto [found, fresh] = slots_.try_emplace(pair, fresh_.size());
    if (fresh) fresh_.push_back({pair, {}});
    std::vector<uint32_t>& words = fresh_[found->second].words;
    if (words.empty() || words.back() != word) words.push_back(word);
  }
  int64_t count(Pair pair) const {
    const auto found = counts_.find(pair);
    return found == counts_.end() ? 0 : found->second;
  }
  void queue_fresh(CandidateHeap& queue) {
    for (Fresh& fresh : fresh_) {
      const int64_t now = count(fresh.pair);
      if (now > 0) queue.push({now, fresh.pair, serial_++, std::move(fresh.words)});
    }
    fresh_.clear();
    slots_.clear();
  }

 private:
  struct Fresh {
    Pair pair;
    std::vector<uint32_t> words;
  };
  std::unordered_map<Pair, int64_t> counts_;
  std::unordered_map<Pair, size_t> slots_;
  std::vector<Fresh> fresh_;
  uint64_t serial_ = 0;
};

}  // namespace

void VocabularyTrainer::count(std::span<const uint8_t> text) {
  normalizer_.for_each_word<false>(text, scratch_, [this](const Word& word) {
    const std::string_view bytes(reinterpret_cast<const char*>(word.bytes), word.size);
    words_++;
    const auto found = counts_.find(bytes);
    if (found != counts_.end()) {
      found->second++;
    } else {
      counts_.emplace(bytes, 1);
    }
  });
}

void VocabularyTrainer::feed(std::span<const uint8_t> bytes) {
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  const std::span<const uint8_t> all(pending_);
  size_t done = all.size();
  while (done > 0 && !is_ascii_space(all[done - 1])) done--;
  count(all.first(done));
  // Cuts depend on where the run began alone, never on how the text was divided into pieces.
  while (all.size() - done > kLongestRun + 4) {
    size_t cut = done + kLongestRun;
    while (cut > done + kLongestRun - 4 && (all[cut] & 0xC0) == 0x80) cut--;
    count(all.subspan(done, cut - done));
    done = cut;
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(done));
}

void VocabularyTrainer::end_text() {
  count(pending_);
  pending_.clear();
}

std::vector<std::string> VocabularyTrainer::train(const TrainingOptions& options,
                                                  const std::atomic<bool>& cancelled) const {
  WordCounts sorted(counts_.begin(), counts_.end());
  std::sort(sorted.begin(), sorted.end());

  Vocabulary vocabulary;
  for (const std::string& token : options.special_tokens) vocabulary.add(token);
  const auto alphabet = add_alphabet(sorted, options.limit_alphabet, vocabulary);
  TrainingWords words = symbols_of(sorted, alphabet);

  PairBook pairs;
  CandidateHeap queue;
  for (uint32_t index = 0; index < words.entries.size(); index++) {
    const TrainingWords::Entry& word = words.entries[index];
    for (uint32_t i = 0; i + 1 < word.length; i++) {
      const uint32_t* symbol = words.symbols.data() + word.begin + i;
      pairs.change(pair_of(symbol[0], symbol[1]), word.count, index);
    }
  }
  pairs.queue_fresh(queue);

  const auto least = static_cast<int64_t>(std::max<uint64_t>(1, options.min_frequency));
  std::vector<Change> changes;
  while (vocabulary.tokens.size() < options.vocabulary_size && !queue.empty() && !cancelled) {
    Candidate top = queue.pop();
    if (const int64_t now = pairs.count(top.pair); now != top.count) {
      top.count = now;
      queue.push(std::move(top));
      continue;
    }
    if (top.count < least) break;
    const std::string& left = vocabulary.tokens[top.pair >> 32];
    const std::string& right = vocabulary.tokens[static_cast<uint32_t>(top.pair)];
    const uint32_t merged =
        vocabulary.add(left + (right.starts_with(kPrefix) ? right.substr(kPrefix.size()) : right));
    for (const uint32_t index : top.words) {
      changes.clear();
      merge_in_word(words, index, top.pair, merged, changes);
      for (const Change& change : changes) pairs.change(change.pair, change.count, index);
    }
    pairs.queue_fresh(queue);
  }
  return std::move(vocabulary.tokens);
}

}  // namespace voltaic::text
