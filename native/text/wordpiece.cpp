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

}  // namespace

Trie::Trie(std::vector<Entry> entries) {
  std::erase_if(entries, [](const Entry& entry) { return entry.key.empty(); });
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.key < b.key; });
  // Breadth first, so that nodes with many children find room: a node stands for the entries
  // [begin, end) that share its first `depth` bytes.
  struct Pending {
    Node node;
    size_t begin, end, depth;
  };
  cells_.resize(kFirstCell + 256);
  std::vector<Pending> level{{kRoot, 0, entries.size(), 0}};
  std::vector<uint8_t> bytes;
  while (!level.empty()) {
    std::vector<Pending> next;
    for (const Pending& parent : level) {
      size_t i = parent.begin;
      for (; i < parent.end && entries[i].key.size() == parent.depth; i++) {
        cells_[parent.node].value = entries[i].value;
      }
      if (i == parent.end) continue;
      const size_t first = next.size();
      bytes.clear();
      while (i < parent.end) {
        const size_t begin = i;
        const auto byte = static_cast<uint8_t>(entries[i].key[parent.depth]);
        while (i < parent.end && static_cast<uint8_t>(entries[i].key[parent.depth]) == byte) i++;
        bytes.push_back(byte);
        next.push_back({byte, begin, i, parent.depth + 1});
      }
      const Node children = place(bytes);
      cells_[parent.node].children = children;
      for (size_t k = first; k < next.size(); k++) {
        next[k].node += children;
        cells_[next[k].node].parent = parent.node;
      }
    }
    level = std::move(next);
  }
  for (int byte = 0; byte < 256; byte++) {
    if (child(kRoot, static_cast<uint8_t>(byte)) == kNowhere) continue;
    beginnings_++;
    beginning_ = static_cast<uint8_t>(byte);
  }
  cells_.resize(end_ + 256);
  cells_.shrink_to_fit();
}

// Where cells for all of these bytes, in ascending order, are free. Only children fill what others
// left; several are placed near the end, since a search through all holes would take seconds.
Trie::Node Trie::place(std::span<const uint8_t> bytes) {
  const auto taken = [this](Node cell) { return cells_[cell].parent != kNowhere; };
  while (taken(first_free_)) first_free_++;
  Node cell = first_free_;
  if (bytes.size() > 1) cell = std::max(cell + kPlacingWindow, end_) - kPlacingWindow;
  for (;; cell++) {
    if (cells_.size() < size_t{cell} + 512) cells_.resize(size_t{cell} + 4096);
    const Node children = cell - bytes.front();
    if (std::none_of(bytes.begin(), bytes.end(), [&](uint8_t b) { return taken(children + b); })) {
      end_ = std::max(end_, children + bytes.back() + 1);
      return children;
    }
  }
}

size_t Trie::next_beginning(std::span<const uint8_t> bytes, size_t position) const {
  if (beginnings_ == 0 || position >= bytes.size()) return bytes.size();
  if (beginnings_ == 1) {
    const void* found = std::memchr(bytes.data() + position, beginning_, bytes.size() - position);
    return found ? static_cast<size_t>(static_cast<const uint8_t*>(found) - bytes.data())
                 : bytes.size();
  }
  while (position < bytes.size() && child(kRoot, bytes[position]) == kNowhere) position++;
  return position;
}

Trie::Node Trie::find(std::string_view beginning) const {
  Node node = kRoot;
  for (size_t i = 0; i < beginning.size() && node != kNowhere; i++) {
    node = child(node, static_cast<uint8_t>(beginning[i]));
  }
  return node;
}

WordPiece::WordPiece(std::span<const std::string_view> tokens, const WordPieceOptions& options)
    : pieces_(all_tokens(tokens)),
      continuations_(pieces_.find(options.continuation_prefix)),
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
    const int32_t id = pieces_.longest_match({word.bytes + position, word.size - position}, length,
                                             position == 0 ? Trie::kRoot : continuations_);
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
