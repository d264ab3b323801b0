#include "mail.hpp"

#include <cstring>

#include "header.hpp"

namespace framegate::impl {
namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;
}  // namespace

fg_status say_no_mailboxes(const Topic& topic) {
    return fail(FG_UNSUPPORTED,
                "topic \"%s\" was created without mailboxes: neither calls nor controls; create it "
                "with mailbox_bytes",
                topic.name_);
}

fg_status broadcast_control(Topic& topic, const Self& self, std::uint32_t type, const void* data,
                            std::uint32_t bytes, std::uint32_t* reached) {
    const SegmentView& view = topic.view_;
    *reached = 0;
    if (bytes > FG_LETTER_BYTES_MAX) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": a control message has %u bytes, at most %d",
                    topic.name_, bytes, FG_LETTER_BYTES_MAX);
    }
    if (view.mailbox_cells == 0) {
        return say_no_mailboxes(topic);
    }
    Letter letter;
    letter.kind = LetterKind::kControl;
    letter.type = type;
    letter.bytes = bytes;
    if (bytes != 0) {
        std::memcpy(letter.data, data, bytes);
    }
    letter.from.participant = self.index;
    // relaxed: our own row.
    letter.from.epoch = mail_epoch(view.participants[self.index].incarnation.load(kRelaxed));
    std::uint32_t full = 0;
    for (std::uint32_t i = 0; i < view.participants_max; ++i) {
        const MailAddress to{i, open_epoch(view, i)};
        // relaxed: the role was stored before the mailbox was opened.
        if (to.epoch == 0 || view.participants[i].role.load(kRelaxed) != FG_ROLE_PUBLISHER) {
            continue;
        }
        const Posted posted = post_letter(view, self, to, letter, 0);
        if (posted.result == PostResult::kOk) {
            ++*reached;
            ring_mailbox(topic, i);
        } else if (posted.result == PostResult::kFull) {
            ++full;
        }
    }
    return full == 0 ? static_cast<fg_status>(FG_OK)
                     : fail(FG_MAILBOX_FULL,
                            "topic \"%s\": the mailboxes of %u publishers are full of %u messages "
                            "each, that nobody asked for; %u have the message",
                            topic.name_, full, view.mailbox_cells, *reached);
}

fg_status Correspondent::join_mail(Topic& topic, std::uint32_t role, const char* name,
                                   std::uint32_t name_bytes) {
    if (topic.view_.mailbox_cells == 0) {
        forsake();
        return say_no_mailboxes(topic);
    }
    return join(topic, role, name, name_bytes);
}

// The seat of the letter's slot. A letter that was posted behind a resize may be ahead of us; then we
// follow. One that was posted before it is in a generation that we may have left: of a request,
// because its caller keeps that generation until the call is over, and of a reply because it comes
// from the same one or a later one.
Handle::Seat* Correspondent::reach(const Letter& letter) {
    if (letter.slot == kNoSlot) {
        return nullptr;
    }
    if (letter.generation > geometry().generation) {
        static_cast<void>(catch_up());
    }
    if (letter.generation == geometry().generation) {
        return &seat_;
    }
    Seat* seat = older_seat_of_generation(letter.generation);
    Generation* older = nullptr;
    if (seat != nullptr || letter.generation > geometry().generation ||
        enter_generation(*topic_, Access::kWrite, letter.generation, &older) != FG_OK) {
        return seat;
    }
    return sit_in_older(*older, &seat) == FG_OK ? seat : nullptr;
}

Handle::Seat* Correspondent::lease(const Letter& letter, fg_frame* out) {
    const std::uint64_t word = handed_word(letter.ticket, self_.owner);
    Seat* seat = reach(letter);
    // acquire: pairs with the HANDED CAS; payload and frame header come with it.
    if (seat != nullptr && letter.slot < seat->generation->identity_.slots &&
        seat->generation->view_.slots[letter.slot].word.load(std::memory_order_acquire) == word &&
        read_header(*seat->generation, seat->generation->data_write_, letter.slot, letter.ticket,
                    out)) {
        message(*seat, letter.slot) = word;
        seat->held += seat != &seat_ ? 1 : 0;
        ++live_;
        return seat;
    }
    discard(letter);
    if (seat != nullptr && seat != &seat_) {
        leave_if_unused(seat);
    }
    return nullptr;
}

void Correspondent::discard(const Letter& letter) {
    if (letter.generation > geometry().generation) {
        static_cast<void>(catch_up());
    }
    // In a sealed generation nothing is loaned any more, so its slot matters to nobody.
    if (letter.slot != kNoSlot && letter.generation == geometry().generation &&
        letter.slot < geometry().slots) {
        release_handed(view(), letter.slot, handed_word(letter.ticket, self_.owner));
        wake_space(*topic_);
    }
}

Handle::Seat* Correspondent::seat_of_message(const fg_frame& frame) {
    for (Seat* seat = &seat_; seat != nullptr; seat = seat->older) {
        if (seat->records != nullptr && frame.slot < seat->generation->identity_.slots &&
            message(*seat, frame.slot) != 0 &&
            word_sequence(message(*seat, frame.slot)) == frame.sequence) {
            return seat;
        }
    }
    return nullptr;
}

bool Correspondent::end_lease(fg_frame* frame) {
    Seat* seat = seat_of_message(*frame);
    const std::uint64_t word = message(*seat, frame->slot);
    message(*seat, frame->slot) = 0;
    frame->data = nullptr;
    --live_;
    bool intact = true;
    if (is_alive()) {  // else poisoned: nothing is stored in the segment any more
        intact = release_handed(seat->generation->view_, frame->slot, word);
        wake_space(*topic_);
    }
    if (seat != &seat_) {
        let_go_of_one(seat);
    }
    return intact;
}

fg_status Correspondent::check_letter(const Seat& seat, const fg_publish_info& info) const {
    const std::uint64_t slot_bytes = seat.generation->identity_.slot_bytes;
    return info.bytes <= slot_bytes
               ? check_info(info, Schema::kFree)
               : fail(FG_FRAME_TOO_LARGE,
                      "topic \"%s\": a message of %llu bytes does not fit into a slot of %llu",
                      topic_->name_, static_cast<unsigned long long>(info.bytes),
                      static_cast<unsigned long long>(slot_bytes));
}

fg_status Correspondent::bring_along(fg_loan* loan, const fg_publish_info& info) {
    if (const fg_status status = catch_up(); status != FG_OK) {
        return status;
    }
    return loan->generation == geometry().generation ? static_cast<fg_status>(FG_OK)
                                                     : carry_over(loan, info.bytes);
}

void Correspondent::ring_own() {
    if (is_alive()) {
        ring_mailbox(*topic_, self_.index);
    }
}

void Correspondent::end_correspondence() {
    closed_ = true;
    ring_own();
}

fg_status Correspondent::arrays(const fg_frame& frame, fg_array* out, std::size_t capacity,
                                std::size_t* count) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    const Seat* seat = frame.data == nullptr ? nullptr : seat_of_message(frame);
    if (seat == nullptr) {
        return fail(FG_LEASE_LOST, "topic \"%s\": the message was released before", topic_->name_);
    }
    return read_arrays(*topic_, *seat->generation, seat->generation->data_write_, frame, out,
                       capacity, count);
}

fg_status Correspondent::release(fg_frame* frame) {
    if (frame->data == nullptr) {
        return FG_OK;
    }
    if (is_forked()) {
        frame->data = nullptr;
        return check_usable(*topic_);
    }
    const Call call(*this);
    if (seat_of_message(*frame) == nullptr) {
        frame->data = nullptr;
        return fail(FG_LEASE_LOST, "topic \"%s\": the message was released before", topic_->name_);
    }
    if (!end_lease(frame)) {
        return fail(FG_LEASE_LOST,
                    "topic \"%s\": a message was not protected to the end, because this process "
                    "looked dead to another one",
                    topic_->name_);
    }
    return check_usable(*topic_);
}

// ---- event loops

fg_status Correspondent::event_fd(int* fd) {
    return while_open([&] {
        if (!event_fd_.is_open()) {
            if (const fg_status status = event_fd_.open(*topic_, self_); status != FG_OK) {
                return status;
            }
        }
        *fd = event_fd_.fd();
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Correspondent::arm(bool* ready) {
    return while_open([&] {
        if (!event_fd_.is_open()) {
            return fail(FG_INVALID_ARGUMENT, "topic \"%s\": ask for the event fd before arming it",
                        topic_->name_);
        }
        event_fd_.start_tick();
        // seq_cst: before the cells are looked at; pairs with ring_mailbox(). A new value each
        // time, so that a slow poster disarms only what it saw.
        header().armed.store(++armings_, std::memory_order_seq_cst);
        FG_STEP(kMailArmed);
        *ready = has_letter(view(), self_);
        return static_cast<fg_status>(FG_OK);
    });
}

fg_status Correspondent::drain() {
    bool ticked = false;
    const fg_status status = while_open([&] {
        ticked = event_fd_.is_open() && event_fd_.drain();
        return static_cast<fg_status>(FG_OK);
    });
    if (status != FG_OK) {
        return status;
    }
    if (ticked) {
        sweep_if_due(*topic_);
    }
    return check_usable(*topic_);
}

void Correspondent::close_event_fd(Handle& handle) {
    auto& self = static_cast<Correspondent&>(handle);
    self.event_fd_.close(*self.topic_, self.self_, self.is_alive());
}

}  // namespace framegate::impl
