// Is it worth looking for the next frame for a moment before going to sleep?
//
// A sleep and the wake at its end cost the subscriber some microseconds of CPU time and the publisher
// a system call, which on a virtual machine takes as long as the sleeper needs to wake: some 25 us.
// While frames come faster than that, looking costs less than sleeping, for both. So a subscriber
// looks for as long as sleeping costs, at most, and only while the last frames came within that time.
// One that does not ends it until kFastWaits frames in a row were fast again. So an idle subscriber, a
// camera and a publisher that shares the core with the subscriber cost nothing; the worst publisher,
// which stops whenever it is looked for, costs one look in five waits.
//
// Waking by a timer shortly before the next frame of a steady publisher is due was tried: what it
// spared at the median it cost in CPU time and missed by jitter.
#pragma once

#include <cstdint>

#include "framegate/shm.h"

namespace framegate::impl {

class Cadence {
  public:
    static constexpr std::uint64_t kLookNs = FG_SPIN_NS;
    // How late a sleeper learns of a frame.
    static constexpr std::uint64_t kWakeNs = 25000;
    static constexpr std::uint32_t kFastWaits = 4;

    // How long to look before the next sleep; 0: not at all.
    std::uint64_t look_ns() const { return fast_ >= kFastWaits ? kLookNs : 0; }

    // A wait ended with a frame. `slept`: it was woken for it.
    void came_after(std::uint64_t ns, bool slept) {
        const bool is_fast = ns <= kLookNs + (slept ? kWakeNs : 0);
        fast_ = !is_fast ? 0 : fast_ < kFastWaits ? fast_ + 1 : fast_;
    }
    // It was looked for in vain, or the wait ended without a frame.
    void did_not_come() { fast_ = 0; }

  private:
    std::uint32_t fast_ = 0;  // waits in a row
};

}  // namespace framegate::impl
