// Where a stream's time goes: for each kind of call (op, dtype and shapes of its tensors) how often
// it ran and for how long.
//
// A stream notes calls down between begin and end of a profile, on its own thread. On a device that
// works behind the host's back every call is waited for meanwhile, so times are the kernels' own
// and the whole is slower than without.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "backend_abi.h"

namespace voltaic {

class Profile {
 public:
  using Clock = std::chrono::steady_clock;

  void add(const char* op, const voltaic_call& call, Clock::duration time);
  void add(const std::string& what, Clock::duration time);

  // One line a kind of call: what, calls, seconds; separated by tabs. what is the op, then dtype
  // and shape of each tensor ("gemm f32[8,4] - f32[8,2]"; "-" for one that was left out).
  std::string text() const;

 private:
  struct Entry {
    uint64_t calls = 0;
    Clock::duration time{};
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace voltaic
