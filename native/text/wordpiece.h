// WordPiece: one normalized word to the ids of its pieces, greedy longest match from the left.
//
// A word with a part that no piece matches, or with more characters than the limit, is the unknown
// token as a whole. Pieces are found by one walk down a trie; most words of a text come from a
// cache of recent words, one cache line each.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "normalizer.h"

namespace voltaic::text {

// Byte strings to values, for longest-prefix matching. Constant once built; children of a node lie
// side by side, ordered by byte.
class Trie {
 public:
  struct Entry {
    std::string_view key;
    int32_t value;
  };
  static constexpr int32_t kNone = -1;

  // Of equal keys the last one counts. Empty keys are left out.
  explicit Trie(std::vector<Entry> entries);

  // Value of the longest key that begins `bytes`, and its length in `length`; kNone if there is
  // none.
  int32_t longest_match(std::span<const uint8_t> bytes, size_t& length) const;

  // The same in two steps, for callers that match many positions: where the first byte leads.
  bool begins(uint8_t byte) const { return first_[byte] != 0; }

 private:
  struct Node {
    uint32_t children = 0;  // index of the first child
    uint16_t child_count = 0;
    uint8_t byte = 0;
    int32_t value = kNone;
  };
  std::vector<Node> nodes_;  // 0: none; the root's children are reached through first_
  uint32_t first_[256] = {};
};

struct WordPieceOptions {
  std::string_view continuation_prefix = "##";
  int32_t unknown_id = 0;
  size_t max_characters = 100;
};

class WordPiece {
 public:
  // tokens[id]; of equal tokens the last id counts.
  WordPiece(std::span<const std::string_view> tokens, const WordPieceOptions& options);

  // Appends the ids of the word, and for each (when wanted) the byte of the word where it ends.
  void encode(const Word& word, std::vector<int32_t>& ids, std::vector<uint32_t>* ends);

 private:
  static constexpr size_t kCachedBytes = 32, kCachedPieces = 6;
  static constexpr int kCacheBits = 14;

  struct alignas(64) CachedWord {
    uint64_t bytes[kCachedBytes / 8];
    int32_t ids[kCachedPieces];
    uint8_t ends[kCachedPieces];
    uint8_t size;  // 0: free
    uint8_t pieces;
  };
  static_assert(sizeof(CachedWord) == 64);

  void match(const Word& word, std::vector<int32_t>& ids, std::vector<uint32_t>& ends) const;

  Trie words_;
  Trie continuations_;
  int32_t unknown_id_;
  size_t max_characters_;
  std::vector<CachedWord> cache_;
  std::vector<uint32_t> ends_;
};

}  // namespace voltaic::text
