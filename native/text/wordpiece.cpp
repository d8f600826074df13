// Building and walking the tries, and the cache of recent words.
#include "wordpiece.h"

#include <algorithm>
#include <cstring>

namespace voltaic::text {
namespace {

size_t count_characters(const uint8_t* bytes, size_t size) {
  return static_cast<size_t>(
      std::count_if(bytes, bytes + size, [](uint8_t byte) { return (byte & 0xC0) != 0x80; }));
}

std::vector<Trie::Entry> all_tokens(std::span<const std::string_view> tokens) {
  std::vector<Trie::Entry> entries;
  entries.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); id++) {
    entries.push_back({tokens[id], static_cast<int32_t>(id)});
  }
  return entries;
}

std::vector<Trie::Entry> continuation_tokens(std::span<const std::string_view> tokens,
                                             std::string_view prefix) {
  std::vector<Trie::Entry> entries;
  for (size_t id = 0; id < tokens.size(); id++) {
    if (tokens[id].starts_with(prefix)) {
      entries.push_back({tokens[id].substr(prefix.size()), static_cast<int32_t>(id)});
    }
  }
  return entries;
}

}  // namespace

Trie::Trie(std::vector<Entry> entries) {
  std::erase_if(entries, [](const Entry& entry) { return entry.key.empty(); });
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.key < b.key; });
  // Breadth first: a node stands for the entries [begin, end) that share its first `depth` bytes.
  struct Pending {
    uint32_t node;
    size_t begin, end, depth;
  };
  nodes_.emplace_back();
  std::vector<Pending> level{{0, 0, entries.size(), 0}};
  while (!level.empty()) {
    std::vector<Pending> next;
    for (const Pending& parent : level) {
      size_t i = parent.begin;
      for (; i < parent.end && entries[i].key.size() == parent.depth; i++) {
        nodes_[parent.node].value = entries[i].value;
      }
      nodes_[parent.node].children = static_cast<uint32_t>(nodes_.size());
      while (i < parent.end) {
        const size_t begin = i;
        const auto byte = static_cast<uint8_t>(entries[i].key[parent.depth]);
        while (i < parent.end && static_cast<uint8_t>(entries[i].key[parent.depth]) == byte) i++;
        const auto child = static_cast<uint32_t>(nodes_.size());
        nodes_.push_back({.byte = byte});
        nodes_[parent.node].child_count++;
        if (parent.depth == 0) first_[byte] = child;
        next.push_back({child, begin, i, parent.depth + 1});
      }
    }
    level = std::move(next);
  }
}

int32_t Trie::longest_match(std::span<const uint8_t> bytes, size_t& length) const {
  length = 0;
  int32_t value = kNone;
  if (bytes.empty()) return value;
  uint32_t node = first_[bytes[0]];
  for (size_t depth = 1; node != 0; depth++) {
    if (nodes_[node].value != kNone) {
      value = nodes_[node].value;
      length = depth;
    }
    if (depth == bytes.size()) break;
    const uint32_t end = nodes_[node].children + nodes_[node].child_count;
    uint32_t child = nodes_[node].children;
    while (child < end && nodes_[child].byte < bytes[depth]) child++;
    node = child < end && nodes_[child].byte == bytes[depth] ? child : 0;
  }
  return value;
}

WordPiece::WordPiece(std::span<const std::string_view> tokens, const WordPieceOptions& options)
    : words_(all_tokens(tokens)),
      continuations_(continuation_tokens(tokens, options.continuation_prefix)),
      unknown_id_(options.unknown_id),
      max_characters_(options.max_characters),
      cache_(size_t{1} << kCacheBits) {}

void Ids::grow(size_t more) {
  capacity_ = std::max(2 * capacity_, size_ + more + 256);
  auto larger = std::make_unique_for_overwrite<int32_t[]>(capacity_);
  std::copy_n(data_.get(), size_, larger.get());
  data_ = std::move(larger);
}

void WordPiece::match(const Word& word, Ids& ids, std::vector<uint32_t>& ends) const {
  const size_t first_piece = ids.size(), first_end = ends.size();
  bool known =
      word.size <= max_characters_ || count_characters(word.bytes, word.size) <= max_characters_;
  for (size_t position = 0; known && position < word.size;) {
    size_t length;
    const Trie& pieces = position == 0 ? words_ : continuations_;
    const int32_t id = pieces.longest_match({word.bytes + position, word.size - position}, length);
    known = id != Trie::kNone;
    position += length;
    ids.push_back(id);
    ends.push_back(static_cast<uint32_t>(position));
  }
  if (!known) {
    ids.resize(first_piece);
    ends.resize(first_end);
    ids.push_back(unknown_id_);
    ends.push_back(static_cast<uint32_t>(word.size));
  }
}

void WordPiece::encode_uncached(const Word& word, Ids& ids, std::vector<uint32_t>* ends) {
  const size_t first_piece = ids.size();
  ends_.clear();
  match(word, ids, ends_);
  if (ends) ends->insert(ends->end(), ends_.begin(), ends_.end());
  if (word.size > kCachedBytes || ends_.size() > kCachedPieces) return;
  CachedWord cached{.key = key_of(word), .pieces = static_cast<uint8_t>(ends_.size())};
  for (size_t i = 0; i < ends_.size(); i++) {
    cached.ids[i] = ids[first_piece + i];
    cached.ends[i] = static_cast<uint8_t>(ends_[i]);
  }
  cache_[slot_of(cached.key)] = cached;
}

}  // namespace voltaic::text
