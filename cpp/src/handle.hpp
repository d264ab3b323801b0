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

class Handle {
  public:
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    void retain();
    void drop_reference();
    void close();

  protected:
    // What differs between the kinds of handles. A table of its own instead of virtual functions,
    // which would need symbols of libstdc++.
    struct Kind {
        const char* noun;                       // "publisher", for messages
        Mark sleep_mark;                        // shown while threads sleep inside
        Access access;                          // to the payloads
        std::size_t record_bytes;               // of what the kind keeps per slot, zero: nothing
        bool (*is_held)(const void* record);    // loaned or leased
        void (*before_detach)(Handle& handle);  // under lock_; may be nullptr
        void (*destroy)(Handle& handle);        // frees what the kind allocated, and the handle
        // What else keeps the current generation: so many let_go_of_one() will follow.
        std::uint32_t (*held_besides)(const Handle& handle) = nullptr;
    };

    // Holds the handle's lock for one call that may be the last. On the way out it detaches what
    // may detach, unlocks, and frees what nothing refers to any more: touch nothing of the handle
    // after it.
    class Call {
      public:
        explicit Call(Handle& handle) : handle_(handle) { handle_.lock_.lock(); }
        ~Call() {
            if (!handle_.closed_) {  // the hot path: nothing ends while the handle is open
                handle_.lock_.unlock();
            } else {
                handle_.finish_and_unlock();
            }
        }
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;

      private:
        Handle& handle_;
    };

    // Where the handle works: a generation and the kind's record for each of its slots.
    struct Seat {
        Generation* generation = nullptr;
        SegmentView view;  // of it: here, every call spares a load that the next ones wait for
        unsigned char* records = nullptr;
        std::uint64_t first_sequence = 0;
        std::uint32_t held = 0;  // of an older seat: records in use
        Seat* older = nullptr;
    };

    explicit Handle(const Kind& kind) : kind_(kind) {}
    ~Handle() = default;

    void forsake() { kind_.destroy(*this); }  // instead of begin()
    // Attaches a participant in the newest generation, or where the newest frame is; the handle
    // keeps the topic from here on. On failure the handle's memory is freed.
    fg_status begin(Topic& topic, const RowInfo& info);
    const char* noun() const { return kind_.noun; }
    const SegmentView& view() const { return seat_.view; }
    const Identity& geometry() const { return seat_.generation->identity_; }
    const SharedWords& shared() const { return *topic_->view_.shared; }  // without lock_, too
    // After FG_MOVED, under lock_: goes on in the next generation. What is still held stays good in
    // an older seat. FG_EMPTY: not before the next generation has a frame.
    fg_status move_on(bool even_if_empty);
    // The older seat in which something of this sequence (this generation) is held; else nullptr.
    Seat* older_seat_of_sequence(std::uint64_t sequence);
    Seat* older_seat_of_generation(std::uint32_t generation);
    // A seat in that older generation, which was entered for it; the own row says so from here on.
    // Then one record more of it is in use, or it is left.
    fg_status sit_in_older(Generation& generation, Seat** out);
    void leave_if_unused(Seat* older);
    // One record less is in use in it; frees it with the last.
    void let_go_of_one(Seat* older);
    // relaxed, both: a flag that never goes back; fork and the sweep that sets it order everything
    // else.
    bool is_alive() const {  // neither forked nor poisoned
        return topic_->fds_.condition.load(std::memory_order_relaxed) == kAlive;
    }
    bool is_forked() const {  // copied by fork() in whatever state its lock was: leave it alone
        return topic_->fds_.condition.load(std::memory_order_relaxed) == kForked;
    }
    fg_status say_closed() const;
    // Runs `body` under lock_, on an open handle of this process; else says why not.
    template <typename Body>
    fg_status while_open(Body body) {
        if (const fg_status status = check_usable(*topic_); status != FG_OK) {
            return status;
        }
        const Locked guard(lock_);
        return closed_ ? say_closed() : body();
    }
    // Around a sleep on one of the futexes: shows the mark of the kind, keeps the handle attached.
    // FG_CLOSED, or FG_OK and then end_sleep() must follow.
    fg_status begin_sleep();
    void end_sleep();

    Topic* topic_ = nullptr;
    Self self_;
    Lock lock_;
    // All below under lock_.
    Seat seat_;
    std::uint32_t live_ = 0;  // loans or leases
    bool closed_ = false;

  private:
    fg_status sit_down(Generation& generation);
    void free_seat(Seat& seat);
    void show_generation();
    void finish_and_unlock();

    const Kind& kind_;
    std::uint32_t references_ = 1;
    std::uint32_t sleepers_ = 0;  // threads between begin_sleep() and end_sleep()
    bool detached_ = false;
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

// The row of a participant that attaches now; FG_INVALID_ARGUMENT if the name is too long.
fg_status fill_row_info(std::uint32_t role, std::uint32_t policy, const char* name,
                        std::uint32_t name_bytes, RowInfo* info);

}  // namespace framegate::impl
