// CLOCK_MONOTONIC at half its price, for publication times.
//
// Where the kernel keeps time by the CPU's time-stamp counter, a call of clock_gettime() is a
// serialised read of that counter and a multiplication: 18 ns, as much as three atomic operations
// and a fifth of a frame's whole way. A Stamp reads the clock itself once in kWindowNs and counts
// on from there by the bare counter. How wrong that can be:
//
// - where it starts: the counter is read behind the clock, so a stamp is late, by what lies between
//   the two (some 10 ns); readings that were interrupted are not started from;
// - how fast it goes: measured against the clock over a millisecond at least (1 in 100,000), and the
//   clock may be slewed by 1 in 2,000 meanwhile: 10 ns in a window.
//
// So stamps differ from the clock by less than two readings of it that follow each other do, never
// by more than a window whatever the counter does (another host after a migration, a core that is
// out of step), and those of one Stamp never go back. Where the kernel does not trust the counter,
// every stamp is a reading of the clock.
#pragma once

#include <cstdint>

namespace framegate::impl {

std::uint64_t monotonic_ns();

class Stamp {
  public:
    static constexpr std::uint64_t kWindowNs = 20000;

    // Of one thread at a time.
    std::uint64_t now_ns() {
#if defined(__x86_64__)
        const std::uint64_t passed = __builtin_ia32_rdtsc() - start_ticks_;
        if (passed < window_ticks_) [[likely]] {
            const std::uint64_t now = start_ns_ + (passed * scale_ >> 32);
            last_ns_ = now > last_ns_ ? now : last_ns_;
            return last_ns_;
        }
#endif
        return start_again();
    }

    // Does the kernel keep time by the counter? Looked up once.
    static bool counter_is_the_clock();

  private:
    [[gnu::noinline]] std::uint64_t start_again();
    void measure(std::uint64_t ticks, std::uint64_t ns);

    std::uint64_t start_ticks_ = 0;
    std::uint64_t window_ticks_ = 0;  // 0: the counter's rate is not known
    std::uint64_t start_ns_ = 0;
    std::uint64_t scale_ = 0;  // nanoseconds per tick, times 2^32
    std::uint64_t last_ns_ = 0;
    // From where the rate is measured.
    std::uint64_t rate_ticks_ = 0;
    std::uint64_t rate_ns_ = 0;
};

}  // namespace framegate::impl
