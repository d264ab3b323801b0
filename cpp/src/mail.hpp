// Participants that wait for letters: what callers and responders have in common. Also control
// messages, which anybody may send to the publishers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framegate/shm.h"
#include "liveness.hpp"
#include "mailbox.hpp"
#include "publisher.hpp"
#include "status.hpp"
#include "steps.hpp"
#include "wake.hpp"

namespace framegate::impl {

fg_status say_no_mailboxes(const Topic& topic);

// Posts to every publisher; `reached` counts them. FG_MAILBOX_FULL if somebody's mailbox was full;
// the others have it.
fg_status broadcast_control(Topic& topic, const Self& self, std::uint32_t type, const void* data,
                            std::uint32_t bytes, std::uint32_t* reached);

class Correspondent : public Publisher {
  public:
    fg_status arrays(const fg_frame& frame, fg_array* out, std::size_t capacity,
                     std::size_t* count);
    fg_status release(fg_frame* frame);
    fg_status event_fd(int* fd);
    fg_status arm(bool* ready);
    fg_status drain();

  protected:
    explicit Correspondent(const Kind& kind) : Publisher(kind) {}
    fg_status join_mail(Topic& topic, std::uint32_t role, const char* name,
                        std::uint32_t name_bytes);
    static void close_event_fd(Handle& handle);

    // All under lock_.
    fg_status check_letter(const Seat& seat, const fg_publish_info& info) const;
    // A loan from before a resize is copied to the newest generation, where everybody is.
    fg_status bring_along(fg_loan* loan, const fg_publish_info& info);
    // The seat in which the letter's slot is leased now; nullptr, and discarded, if it makes no sense
    // or there is no memory to get at it.
    Seat* lease(const Letter& letter, fg_frame* out);
    bool end_lease(fg_frame* frame);  // false if the slot had been taken away
    void discard(const Letter& letter);
    // Ends waits of other threads and loops; they look again.
    void ring_own();
    void end_correspondence();  // closed from here on
    // Without lock_, too: mailboxes are the topic's, whatever generation the seat is in.
    MailboxHeader& header() { return mailbox_header(topic_->view_, self_.index); }

    // Sleeps until `look` (under lock_) says something else than FG_EMPTY; FG_EMPTY when the time
    // is over.
    template <typename Look>
    fg_status wait_for_mail(std::int64_t timeout_ns, Look look);

  private:
    Seat* reach(const Letter& letter);
    Seat* seat_of_message(const fg_frame& frame);

    std::uint32_t waiters_ = 0;  // threads in wait_for_mail()
    bool was_empty_ = false;     // the last look found nothing
    std::uint64_t armings_ = 0;
    EventFd event_fd_;
};

template <typename Look>
fg_status Correspondent::wait_for_mail(std::int64_t timeout_ns, Look look) {
    fg_status status = check_usable(*topic_);
    if (status != FG_OK) {
        return status;
    }
    {
        const Locked guard(lock_);
        // Who looked in vain just now and comes to wait looks again below, with `sleepers` set.
        if (closed_ || timeout_ns == 0 || !was_empty_) {
            status = closed_ ? say_closed() : look();
            was_empty_ = status == FG_EMPTY;
            if (status != FG_EMPTY || timeout_ns == 0) {
                return status;
            }
        }
        was_empty_ = false;
        ++live_;  // stay attached meanwhile
        if (waiters_++ == 0) {
            // seq_cst: before the cells are looked at; pairs with ring_mailbox().
            header().sleepers.store(1, std::memory_order_seq_cst);
        }
    }
    const Deadline deadline(timeout_ns);
    for (;;) {
        // seq_cst, after `sleepers` and before the cells: whoever posts after our look sees that we
        // sleep, and the bump makes the sleep return.
        const std::uint32_t value = header().bell.load(std::memory_order_seq_cst);
        status = check_usable(*topic_);
        if (status == FG_OK) {
            const Locked guard(lock_);
            status = closed_ ? say_closed() : look();
        }
        if (status != FG_EMPTY) {
            break;
        }
        FG_STEP(kMailWaiting);
        const std::int64_t slice = deadline.slice_ns();
        if (slice == 0) {
            break;
        }
        const SleepResult slept = futex_sleep(header().bell, value, slice);
        if (slept == SleepResult::kInterrupted) {
            status = fail(FG_INTERRUPTED, "topic \"%s\": a signal interrupted the wait for mail",
                          topic_->name_);
            break;
        }
        if (slept == SleepResult::kTimeout) {
            sweep_if_due(*topic_);  // bounded re-check: whoever we wait for may have died
        }
    }
    const Call call(*this);
    --live_;
    if (--waiters_ == 0 && is_alive()) {
        header().sleepers.store(0, std::memory_order_seq_cst);
    }
    return status;
}

}  // namespace framegate::impl
