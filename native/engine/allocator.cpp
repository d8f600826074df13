#include "allocator.h"

#include <bit>
#include <iterator>
#include <utility>

namespace voltaic {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = 256;
constexpr size_t kSlab = size_t{1} << 20;
constexpr size_t kLargestInSlab = size_t{32} << 10;
constexpr size_t kPage = 4096;
// Blocks of more than half of it get a segment of their own size.
constexpr size_t kSegment = size_t{16} << 20;

// Large: whole pages. Small: the next of eight steps between powers of two. At most 12.5 % larger.
size_t rounded_up(size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  if (bytes > kLargestInSlab) return (bytes + kPage - 1) / kPage * kPage;
  const size_t step = std::bit_floor(bytes - 1) / 8;
  const size_t rounded = (bytes + step - 1) / step * step;
  return (rounded + kAlignment - 1) / kAlignment * kAlignment;
}

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + 524288) >> 20) + " MB"; }

}  // namespace

CachingAllocator::CachingAllocator(const voltaic_backend* backend, int32_t device,
                                   uint64_t limit_bytes)
    : backend_(backend), device_(device) {
  statistics_.limit_bytes = limit_bytes;
}

CachingAllocator::~CachingAllocator() {
  while (!pools_.empty()) close_pool(pools_.begin()->first);
  release_cached();
  for (void* slab : slabs_) backend_->memory_release(device_, slab);
  // Blocks that somebody still holds end with the device.
  for (const auto& [number, segment] : segments_) backend_->memory_release(device_, segment.data);
}

void CachingAllocator::count_allocation(size_t bytes) {
  statistics_.allocations++;
  statistics_.allocated_bytes += bytes;
  if (statistics_.allocated_bytes > statistics_.peak_allocated_bytes)
    statistics_.peak_allocated_bytes = statistics_.allocated_bytes;
}

void* CachingAllocator::take(FreeMemory& from, size_t rounded) {
  if (rounded <= kLargestInSlab) {
    const auto found = from.small.find(rounded);
    if (found == from.small.end() || found->second.empty()) return nullptr;
    void* const data = found->second.back();
    found->second.pop_back();
    return data;
  }
  const auto smallest = from.pieces.lower_bound({rounded, 0, nullptr});
  if (smallest == from.pieces.end()) return nullptr;
  char* const data = std::get<char*>(*smallest);
  from.pieces.erase(smallest);
  Piece& piece = pieces_.at(data);
  if (piece.bytes > rounded) {
    const auto rest =
        pieces_.insert({data + rounded, {piece.bytes - rounded, piece.segment, piece.pool, true}});
    from.pieces.insert({rest.first->second.bytes, piece.segment, data + rounded});
  }
  piece.bytes = rounded;
  piece.free = false;
  return data;
}

bool CachingAllocator::take_cached(size_t bytes, Block& out) {
  if (bytes == 0) {
    out = {};
    return true;
  }
  const size_t rounded = rounded_up(bytes);
  void* data = pool_ == 0 ? nullptr : take(pools_[pool_], rounded);
  if (data == nullptr) data = take(free_, rounded);
  if (data == nullptr) return false;
  out = {data, rounded, pool_};
  count_allocation(rounded);
  return true;
}

voltaic_status CachingAllocator::reserve(size_t bytes, void** out, std::string& message) {
  char detail[VOLTAIC_MESSAGE_LENGTH] = "";
  const bool over =
      statistics_.limit_bytes > 0 && statistics_.reserved_bytes + bytes > statistics_.limit_bytes;
  const voltaic_status status =
      over ? VOLTAIC_ERROR_OUT_OF_MEMORY : backend_->memory_allocate(device_, bytes, out, detail);
  if (status == VOLTAIC_OK) {
    statistics_.system_allocations++;
    statistics_.reserved_bytes += bytes;
    if (statistics_.reserved_bytes > statistics_.peak_reserved_bytes)
      statistics_.peak_reserved_bytes = statistics_.reserved_bytes;
    return VOLTAIC_OK;
  }
  if (status != VOLTAIC_ERROR_OUT_OF_MEMORY) {  // a device that failed has no memory for anyone
    message = std::string(backend_->name) + ": " + detail;
    return status;
  }
  message = "out of memory on " + std::string(backend_->name) + ": " + megabytes(bytes) +
            " asked, " + megabytes(statistics_.allocated_bytes) + " in live tensors, " +
            megabytes(statistics_.reserved_bytes) + " reserved" +
            (over ? ", limit " + megabytes(statistics_.limit_bytes) : "") +
            (detail[0] ? " (" : "") + detail + (detail[0] ? ")" : "") +
            ". Free tensors with `using`, scope() or dispose() (a synchronous loop never runs "
            "finalizers), use smaller "
            "batches, or raise the limit with VOLTAIC_MEMORY_LIMIT";
  return VOLTAIC_ERROR_OUT_OF_MEMORY;
}

// A new segment, free, nobody's.
voltaic_status CachingAllocator::add_segment(size_t bytes, std::string& message) {
  void* data = nullptr;
  if (const voltaic_status status = reserve(bytes, &data, message); status != VOLTAIC_OK)
    return status;
  char* const begin = static_cast<char*>(data);
  segments_[++last_segment_] = {begin, bytes};
  set_free(pieces_.insert({begin, {bytes, last_segment_, 0, false}}).first, 0);
  return VOLTAIC_OK;
}

voltaic_status CachingAllocator::take_new(size_t bytes, Block& out, std::string& message) {
  const size_t rounded = rounded_up(bytes);
  void* data = nullptr;
  if (rounded <= kLargestInSlab) {
    if (slab_left_ < rounded) {
      void* slab = nullptr;
      if (const voltaic_status status = reserve(kSlab, &slab, message); status != VOLTAIC_OK)
        return status;
      slabs_.push_back(slab);
      slab_ = static_cast<char*>(slab);
      slab_left_ = kSlab;
    }
    data = slab_;
    slab_ += rounded;
    slab_left_ -= rounded;
  } else {
    voltaic_status status = VOLTAIC_ERROR_OUT_OF_MEMORY;
    if (rounded <= kSegment / 2) status = add_segment(kSegment, message);
    // Also where there is no room for a whole segment any more.
    if (status == VOLTAIC_ERROR_OUT_OF_MEMORY) status = add_segment(rounded, message);
    if (status != VOLTAIC_OK) return status;
    data = take(free_, rounded);
  }
  out = {data, rounded, pool_};
  count_allocation(rounded);
  return VOLTAIC_OK;
}

// The piece is the pool's from now on, together with its free neighbours there.
void CachingAllocator::set_free(Pieces::iterator piece, uint32_t pool) {
  FreePieces& pieces = free_of(pool).pieces;
  piece->second.free = true;
  piece->second.pool = pool;
  const auto joins = [&](const Piece& other) {
    return other.free && other.pool == pool && other.segment == piece->second.segment;
  };
  const auto forget = [&](Pieces::iterator other) {
    pieces.erase({other->second.bytes, other->second.segment, other->first});
  };
  if (const auto next = std::next(piece); next != pieces_.end() && joins(next->second)) {
    forget(next);
    piece->second.bytes += next->second.bytes;
    pieces_.erase(next);
  }
  if (piece != pieces_.begin()) {
    if (const auto before = std::prev(piece); joins(before->second)) {
      forget(before);
      before->second.bytes += piece->second.bytes;
      pieces_.erase(piece);
      piece = before;
    }
  }
  pieces.insert({piece->second.bytes, piece->second.segment, piece->first});
}

void CachingAllocator::release(const Block& block) {
  if (block.data == nullptr) return;
  statistics_.allocated_bytes -= block.bytes;
  uint32_t owner = block.pool;
  if (!pools_.contains(owner)) owner = pools_.contains(pool_) ? pool_ : 0;
  if (block.bytes <= kLargestInSlab) {
    free_of(owner).small[block.bytes].push_back(block.data);
  } else {
    set_free(pieces_.find(static_cast<char*>(block.data)), owner);
  }
}

uint32_t CachingAllocator::open_pool() {
  pools_[++last_pool_];
  return last_pool_;
}

void CachingAllocator::close_pool(uint32_t pool) {
  const auto closed = pools_.find(pool);
  if (closed == pools_.end()) return;
  const FreeMemory left = std::move(closed->second);
  pools_.erase(closed);
  if (pool_ == pool) pool_ = 0;
  for (const auto& [bytes, blocks] : left.small)
    free_.small[bytes].insert(free_.small[bytes].end(), blocks.begin(), blocks.end());
  for (const auto& [bytes, segment, data] : left.pieces) set_free(pieces_.find(data), 0);
}

bool CachingAllocator::has_cached() const {
  for (const auto& [bytes, segment, data] : free_.pieces)
    if (bytes == segments_.at(segment).bytes) return true;
  return false;
}

void CachingAllocator::release_cached() {
  for (auto piece = free_.pieces.begin(); piece != free_.pieces.end();) {
    const auto [bytes, segment, data] = *piece;
    if (bytes != segments_.at(segment).bytes) {
      ++piece;
      continue;
    }
    backend_->memory_release(device_, data);
    statistics_.reserved_bytes -= bytes;
    pieces_.erase(data);
    segments_.erase(segment);
    piece = free_.pieces.erase(piece);
  }
}

}  // namespace voltaic
