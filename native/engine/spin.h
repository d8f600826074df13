// Waiting for another thread that is expected within microseconds, before going to sleep.
//
// At first with pause instructions alone. Then the processor is offered to other threads between
// them: where more threads want to run than there are cores (Node's own thread beside the stream's
// and the workers', or other processes), the one that is waited for may be among them. How long a
// pause instruction takes differs tenfold between processors, so time is counted, not pauses.
//
// Measured (Zen 4, 2 cores, 2 threads), a region of 8 tasks of 10 us: while both threads happen to
// be on one core, 75 to 140 us at the 99th percentile, where pauses alone held the caller up
// for a whole spin, 530 to 670 us; apart, a median of 42 and 41 us. Empty regions: 0.2 to 2 us
// while the workers spin, 11 us when they sleep.
#pragma once
#include <sched.h>

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace voltaic {

class Spin {
 public:
  // Waits a little.
  void wait() {
    for (int i = 0; i < kPauses; i++) pause();
    if (waited() > kAlone) sched_yield();
  }
  // Whether it has taken so long that sleeping is better: waking up costs tens of microseconds.
  bool long_enough() const { return waited() > kMost; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kPauses = 16;
  static constexpr Clock::duration kAlone = std::chrono::microseconds(10),
                                   kMost = std::chrono::microseconds(500);

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  Clock::duration waited() const { return Clock::now() - since_; }

  const Clock::time_point since_ = Clock::now();
};

}  // namespace voltaic
