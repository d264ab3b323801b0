// When will the next frame come? A guess from how long the last waits were, so that a subscriber can
// be awake when it does.
//
// Waking a thread costs the publisher a system call that takes as long as the sleeper needs to wake:
// on a virtual machine some 25 us, in which the interrupt goes through the hypervisor. Nobody waits
// for that if the subscriber looks at the right moment. Two kinds of publishers make it easy:
//
// - fast ones: the next frame is there before a sleep would have begun. Look for as long as sleeping
//   and waking costs, then sleep;
// - steady ones of a kilohertz and more, as control loops are: sleep by the subscriber's own timer
//   until shortly before the frame is due, then look for it.
//
// What it costs is bounded: a look lasts kLookNsMax at most, and none is planned for frames that come
// more slowly than kSteadyNsMax, after waits that were not alike, or after a look in vain until the
// next kSteadyWaits waits were alike again. So an idle subscriber, a camera and a publisher that
// shares the core with the subscriber cost nothing.
#pragma once

#include <cstdint>

namespace framegate::impl {

class Cadence {
  public:
    struct Plan {
        std::uint64_t sleep_ns = 0;
        std::uint64_t look_ns = 0;  // 0: none
    };

    // What sleeping and waking costs both sides.
    static constexpr std::uint64_t kFastNs = 50000;
    static constexpr std::uint64_t kSteadyNsMin = 150000;
    static constexpr std::uint64_t kSteadyNsMax = 1000000;
    // Waits that differ by more are not alike.
    static constexpr std::uint64_t kJitterNsMax = 40000;
    // A timer rings late by the kernel's slack (50 us for ordinary threads) and the thread then
    // wakes.
    static constexpr std::uint64_t kTimerLateNs = 80000;
    static constexpr std::uint64_t kLookNsMax = 160000;
    static constexpr std::uint32_t kSteadyWaits = 4;

    Plan plan() const {
        if (alike_ < kSteadyWaits) {
            return {};
        }
        if (mean_ns_ <= kFastNs) {
            return {0, kFastNs};
        }
        if (mean_ns_ < kSteadyNsMin || mean_ns_ > kSteadyNsMax) {
            return {};
        }
        // The kernel may ring at any moment from when it was asked to.
        const std::uint64_t early = kTimerLateNs + 2 * jitter_ns_;
        const std::uint64_t sleep = mean_ns_ > early ? mean_ns_ - early : 0;
        const std::uint64_t look = mean_ns_ - sleep + 2 * jitter_ns_ + kTimerLateNs / 4;
        return {sleep, look < kLookNsMax ? look : kLookNsMax};
    }

    // A wait ended with a frame. `woken`: by the publisher, so the frame had come a wake earlier.
    void came_after(std::uint64_t ns, bool woken) {
        constexpr std::uint64_t kWakeNs = 25000;
        const std::uint64_t passed = !woken ? ns : ns > kWakeNs ? ns - kWakeNs : 0;
        const std::uint64_t difference = passed > mean_ns_ ? passed - mean_ns_ : mean_ns_ - passed;
        const bool is_alike =
            difference <= kJitterNsMax || (passed <= kFastNs && mean_ns_ <= kFastNs);
        if (!is_alike) {
            mean_ns_ = passed;
            jitter_ns_ = 0;
            alike_ = 0;
            return;
        }
        mean_ns_ = mean_ns_ - mean_ns_ / 4 + passed / 4;
        jitter_ns_ = jitter_ns_ - jitter_ns_ / 4 + difference / 4;
        alike_ += alike_ < kSteadyWaits ? 1 : 0;
    }
    // It was looked for in vain, or the wait ended without a frame.
    void did_not_come() { alike_ = 0; }

  private:
    std::uint64_t mean_ns_ = 0;
    std::uint64_t jitter_ns_ = 0;
    std::uint32_t alike_ = 0;  // waits in a row
};

}  // namespace framegate::impl
