#include "allocator.h"

#include <bit>

namespace voltaic {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = 256;
constexpr size_t kSlab = size_t{1} << 20;
constexpr size_t kLargestInSlab = size_t{32} << 10;

// The next of eight steps between powers of two: at most 12.5 % larger.
size_t size_class(size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
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
}

void CachingAllocator::count_allocation(size_t bytes) {
  statistics_.allocations++;
  statistics_.allocated_bytes += bytes;
  if (statistics_.allocated_bytes > statistics_.peak_allocated_bytes)
    statistics_.peak_allocated_bytes = statistics_.allocated_bytes;
}

void* CachingAllocator::take(FreeBlocks& from, size_t rounded) {
  const auto found = from.find(rounded);
  if (found == from.end() || found->second.empty()) return nullptr;
  void* const data = found->second.back();
  found->second.pop_back();
  return data;
}

bool CachingAllocator::take_cached(size_t bytes, Block& out) {
  if (bytes == 0) {
    out = {};
    return true;
  }
  const size_t rounded = size_class(bytes);
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

voltaic_status CachingAllocator::take_new(size_t bytes, Block& out, std::string& message) {
  const size_t rounded = size_class(bytes);
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
  } else if (const voltaic_status status = reserve(rounded, &data, message); status != VOLTAIC_OK) {
    return status;
  }
  out = {data, rounded, pool_};
  count_allocation(rounded);
  return VOLTAIC_OK;
}

void CachingAllocator::release(const Block& block) {
  if (block.data == nullptr) return;
  statistics_.allocated_bytes -= block.bytes;
  auto owner = pools_.find(block.pool);
  if (owner == pools_.end()) owner = pools_.find(pool_);
  (owner == pools_.end() ? free_ : owner->second)[block.bytes].push_back(block.data);
}

uint32_t CachingAllocator::open_pool() {
  pools_[++last_pool_];
  return last_pool_;
}

void CachingAllocator::close_pool(uint32_t pool) {
  const auto closed = pools_.find(pool);
  if (closed == pools_.end()) return;
  for (const auto& [bytes, blocks] : closed->second)
    free_[bytes].insert(free_[bytes].end(), blocks.begin(), blocks.end());
  pools_.erase(closed);
  if (pool_ == pool) pool_ = 0;
}

bool CachingAllocator::has_cached() const {
  for (const auto& [bytes, blocks] : free_)
    if (bytes > kLargestInSlab && !blocks.empty()) return true;
  return false;
}

void CachingAllocator::release_cached() {
  for (auto& [bytes, blocks] : free_) {
    if (bytes <= kLargestInSlab) continue;
    for (void* data : blocks) {
      backend_->memory_release(device_, data);
      statistics_.reserved_bytes -= bytes;
    }
    blocks.clear();
  }
}

}  // namespace voltaic
