// A caching allocator in stream order.
//
// All work on a stream runs in the order it was queued, so a block freed by JavaScript may be given
// to the next allocation at once, though queued work still uses it: whatever touches it next is
// queued later. Used from one thread.
//
// Small blocks (to 32 KiB) have size classes, eight an octave, and are cut from slabs; a freed one
// serves its own class. Larger ones are whole pages, cut from segments: the smallest free piece
// that is large enough serves, the rest of it stays free, and a freed piece joins free neighbours.
// So what one part of a step frees serves the next part, whatever its sizes. When all that a step
// allocated is freed, the pieces are whole again: a step that repeats its allocations takes the
// same pieces, since ties are decided by the segments' order.
//
// A captured graph keeps the addresses that it was captured with, so it has a pool: what is
// allocated while one is in use belongs to it, and comes back to it alone when it is freed. Nothing
// outside of the graph ever gets these addresses while the pool is open.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "backend_abi.h"

namespace voltaic {

struct MemoryStatistics {
  uint64_t allocated_bytes = 0;  // in live tensors, rounded to size classes or pages
  uint64_t peak_allocated_bytes = 0;
  uint64_t reserved_bytes = 0;  // taken from the backend, live and cached
  uint64_t peak_reserved_bytes = 0;
  uint64_t allocations = 0;         // asked of this allocator, ever
  uint64_t system_allocations = 0;  // asked of the backend, ever
  uint64_t limit_bytes = 0;
};

struct Block {
  void* data = nullptr;
  size_t bytes = 0;   // the size class, or whole pages
  uint32_t pool = 0;  // whose it is; 0 is nobody's
};

class CachingAllocator {
 public:
  CachingAllocator(const voltaic_backend* backend, int32_t device, uint64_t limit_bytes);
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // bytes 0 gives a null block. On failure message says how much was asked, what is in use and what
  // to do. wait_for_stream is called before cached memory goes back to the backend.
  template <class Wait>
  voltaic_status allocate(size_t bytes, Block& out, std::string& message, Wait&& wait_for_stream) {
    if (take_cached(bytes, out)) return VOLTAIC_OK;
    voltaic_status status = take_new(bytes, out, message);
    // A stream that is being captured cannot be waited for.
    if (status == VOLTAIC_ERROR_OUT_OF_MEMORY && pool_ == 0 && has_cached()) {
      wait_for_stream();
      release_cached();
      status = take_new(bytes, out, message);
    }
    return status;
  }
  void release(const Block& block);
  // Gives cached blocks back to the backend. The caller has waited for the stream.
  void release_cached();

  // ---- pools
  uint32_t open_pool();
  // From now on blocks are the pool's, those freed too: what was captured may have used them. Free
  // blocks that are nobody's may be taken. 0: back to normal.
  void use_pool(uint32_t pool) { pool_ = pool; }
  // The graph is gone: its free blocks are nobody's, those in use when they are freed.
  void close_pool(uint32_t pool);

  void set_limit(uint64_t bytes) { statistics_.limit_bytes = bytes; }
  const MemoryStatistics& statistics() const { return statistics_; }

 private:
  // A piece of a segment. Neighbours in memory are neighbours in pieces_.
  struct Piece {
    size_t bytes;
    uint32_t segment;
    uint32_t pool;  // whose it is while it is free
    bool free;
  };
  // In the order in which they are tried: bytes, segment, address.
  using FreePieces = std::set<std::tuple<size_t, uint32_t, char*>>;
  struct FreeMemory {
    std::unordered_map<size_t, std::vector<void*>> small;  // by size class; last in, first out
    FreePieces pieces;
  };
  using Pieces = std::map<char*, Piece>;
  struct Segment {
    char* data;
    size_t bytes;
  };

  bool take_cached(size_t bytes, Block& out);
  void* take(FreeMemory& from, size_t rounded);
  voltaic_status take_new(size_t bytes, Block& out, std::string& message);
  voltaic_status add_segment(size_t bytes, std::string& message);
  void set_free(Pieces::iterator piece, uint32_t pool);
  FreeMemory& free_of(uint32_t pool) { return pool == 0 ? free_ : pools_[pool]; }
  bool has_cached() const;
  voltaic_status reserve(size_t bytes, void** out, std::string& message);
  void count_allocation(size_t bytes);

  const voltaic_backend* backend_;
  int32_t device_;
  FreeMemory free_;
  std::unordered_map<uint32_t, FreeMemory> pools_;
  uint32_t pool_ = 0, last_pool_ = 0;
  Pieces pieces_;
  std::map<uint32_t, Segment> segments_;
  uint32_t last_segment_ = 0;
  std::vector<void*> slabs_;
  char* slab_ = nullptr;
  size_t slab_left_ = 0;
  MemoryStatistics statistics_;
};

}  // namespace voltaic
