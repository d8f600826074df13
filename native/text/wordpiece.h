// WordPiece: one normalized word to the ids of its pieces, greedy longest match from the left.
//
// A word with a part that no piece matches, or with more characters than the limit, is the unknown
// token as a whole. Pieces are found by one walk down a trie; nearly all words of a text come from
// a cache of recent words, half a cache line each, whose ids are copied without a branch.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "normalizer.h"

namespace voltaic::text {

// Ids of tokens, one behind the other; growing does not fill what is not written yet.
class Ids {
 public:
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  const int32_t* data() const { return data_.get(); }
  int32_t operator[](size_t i) const { return data_[i]; }
  void resize(size_t less) { size_ = less; }

  void push_back(int32_t id) { *room(1) = id, size_++; }
  // Takes `count` (to 4) of four ids.
  void append(const int32_t* four, size_t count) {
    std::memcpy(room(4), four, 16);
    size_ += count;
  }

 private:
  int32_t* room(size_t more) {
    if (size_ + more > capacity_) grow(more);
    return data_.get() + size_;
  }
  void grow(size_t more);

  std::unique_ptr<int32_t[]> data_;
  size_t size_ = 0, capacity_ = 0;
};

// Byte strings to values, for longest-prefix matching. A double array: the child of a node by a
// byte is one addition away, and is its child if it says so. Constant once built.
class Trie {
 public:
  struct Entry {
    std::string_view key;
    int32_t value;
  };
  static constexpr int32_t kNone = -1;
  using Node = uint32_t;
  static constexpr Node kRoot = 0, kNowhere = ~Node{0};

  // Of equal keys the last one counts. Empty keys are left out.
  explicit Trie(std::vector<Entry> entries);

  // Value of the longest key that begins `bytes`, and its length in `length`; kNone if there is
  // none. From another node than the root: of the keys behind it, counted from there; kNone from
  // kNowhere.
  int32_t longest_match(std::span<const uint8_t> bytes, size_t& length, Node from = kRoot) const {
    length = 0;
    int32_t value = kNone;
    if (from == kNowhere) return value;
    for (size_t i = 0; i < bytes.size(); i++) {
      const Node next = child(from, bytes[i]);
      if (next == kNowhere) break;
      from = next;
      if (cells_[from].value != kNone) {
        value = cells_[from].value;
        length = i + 1;
      }
    }
    return value;
  }

  // The node that all keys with this beginning lie behind; kNowhere if there is none.
  Node find(std::string_view beginning) const;

  // The first place from `position` on where a key may begin; the size of `bytes` if there is none.
  size_t next_beginning(std::span<const uint8_t> bytes, size_t position) const;

 private:
  struct Cell {
    Node children = 0;  // where the child by byte 0 would be
    Node parent = kNowhere;
    int32_t value = kNone;
  };

  Node child(Node node, uint8_t byte) const {
    const Node next = cells_[node].children + byte;
    return cells_[next].parent == node ? next : kNowhere;
  }
  // Behind the root; far enough that what lies 255 cells before a cell is one.
  static constexpr Node kFirstCell = 256;
  // How many of the last cells are searched for room for several children.
  static constexpr Node kPlacingWindow = 1024;
  Node place(std::span<const uint8_t> bytes);

  std::vector<Cell> cells_;  // 256 more than are used, so that every step stays inside
  Node first_free_ = kFirstCell, end_ = kFirstCell;
  size_t beginnings_ = 0;  // how many bytes keys begin with
  uint8_t beginning_ = 0;  // one of them
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
  void encode(const Word& word, Ids& ids, std::vector<uint32_t>* ends) {
    if (word.size <= kCachedBytes) {
      const Key key = key_of(word);
      const CachedWord& cached = cache_[slot_of(key)];
      if (((cached.key[0] ^ key[0]) | (cached.key[1] ^ key[1])) == 0) {
        ids.append(cached.ids, cached.pieces);
        if (ends) ends->insert(ends->end(), cached.ends, cached.ends + cached.pieces);
        return;
      }
    }
    encode_uncached(word, ids, ends);
  }

 private:
  // A miss costs some 70 ns on Zen 4, as two sizes of cache tell. Of the words of English Wikipedia
  // 11 % miss 2^14 slots, 6.5 % these 2^16 (2 MB) and 5.4 % 2^17; 4 % are new. 185, 219 and 230
  // MB/s.
  static constexpr size_t kCachedBytes = 15, kCachedPieces = 3;
  static constexpr int kCacheBits = 16;

  // The bytes of a word of 1 to 15, zeros, and its size as the last byte.
  using Key = std::array<uint64_t, 2>;

  // The ids are copied four at a time: what follows them must be readable.
  struct alignas(32) CachedWord {
    Key key = {};  // no word's
    int32_t ids[kCachedPieces] = {};
    uint8_t pieces = 0;
    uint8_t ends[kCachedPieces] = {};
  };
  static_assert(sizeof(CachedWord) == 32);

  static Key key_of(const Word& word) {
    Key key;
    std::memcpy(key.data(), word.bytes, 16);
    key[1] |= uint64_t{word.size} << 56;
    return key;
  }
  static size_t slot_of(const Key& key) {
    const uint64_t hash = (key[0] ^ key[1] * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9;
    return (hash ^ hash << 31) >> (64 - kCacheBits);
  }

  void encode_uncached(const Word& word, Ids& ids, std::vector<uint32_t>* ends);
  void match(const Word& word, Ids& ids, std::vector<uint32_t>& ends) const;

  Trie pieces_;
  Trie::Node continuations_;  // what the continuation prefix leads to
  int32_t unknown_id_;
  size_t max_characters_;
  std::vector<CachedWord> cache_;
  std::vector<uint32_t> ends_;
};

}  // namespace voltaic::text
