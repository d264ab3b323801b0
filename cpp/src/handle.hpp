// What publisher and subscriber handles have in common: one participant, its lock, and when it
// ends.
//
// A handle is closed once; it detaches when it is closed, its last loan or lease is given back and
// nobody sleeps inside; its memory goes when it is detached and the last reference is dropped. All
// of it is decided under the handle's lock. Lock order: handle, then Topic::mutex_, then the fork
// list.
#pragma once

#include <cstdint>

#include "lock.hpp"
#include "slots.hpp"
#include "topic.hpp"

namespace framegate::impl {

struct Handle {
    Topic* topic_ = nullptr;
    Self self_;
    Lock lock_;
    // All below under lock_.
    std::uint32_t references_ = 1;
    std::uint32_t live_ = 0;      // loans or leases
    std::uint32_t inside_ = 0;    // threads that sleep in a call
    std::uint32_t sleepers_ = 0;  // of them, those that need the waiter bit of the participant
    bool closed_ = false;
    bool detached_ = false;

    const SegmentView& view() const { return topic_->view_; }
    bool may_detach() const { return closed_ && !detached_ && live_ == 0 && inside_ == 0; }
    bool may_free() const { return detached_ && references_ == 0; }
};

// A time-out turned into a deadline once; negative time-outs never end.
class Deadline {
  public:
    explicit Deadline(std::int64_t timeout_ns);
    // What to sleep now: the rest, but never longer than the sweep interval. 0: it passed.
    std::int64_t slice_ns() const;

  private:
    std::uint64_t end_ns_;
};

fg_status check_participant_name(const char* name, std::uint32_t name_bytes);

}  // namespace framegate::impl
