#include "mail.hpp"

#include <cstdlib>
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
        return say_no_mailboxes(topic);
    }
    if (const fg_status status = map_data(topic, false); status != FG_OK) {
        return status;
    }
    letters_ =
        static_cast<std::uint64_t*>(std::calloc(topic.view_.slot_count, sizeof(std::uint64_t)));
    if (letters_ == nullptr) {
        return fail(FG_OUT_OF_MEMORY, "no memory for a %s of topic \"%s\"", noun(), topic.name_);
    }
    const fg_status status = join(topic, role, name, name_bytes);
    if (status != FG_OK) {
        std::free(letters_);
    }
    return status;
}

void Correspondent::free_mail_tables() {
    std::free(letters_);
    free_tables();
}

bool Correspondent::lease(const Letter& letter, fg_frame* out) {
    if (letter.slot == kNoSlot || !read_header(*topic_, letter.slot, letter.ticket, out)) {
        discard(letter);
        return false;
    }
    letters_[letter.slot] = handed_word(letter.ticket, self_.owner);
    ++live_;
    return true;
}

void Correspondent::discard(const Letter& letter) {
    if (letter.slot != kNoSlot) {
        release_handed(view(), letter.slot, handed_word(letter.ticket, self_.owner));
        wake_space(*topic_);
    }
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
    if (frame.data == nullptr || frame.slot >= view().slot_count || letters_[frame.slot] == 0 ||
        word_sequence(letters_[frame.slot]) != frame.sequence) {
        return fail(FG_LEASE_LOST, "topic \"%s\": the message was released before", topic_->name_);
    }
    return read_arrays(*topic_, frame, out, capacity, count);
}

fg_status Correspondent::release(fg_frame* frame) {
    if (frame->data == nullptr) {
        return FG_OK;
    }
    frame->data = nullptr;
    if (is_forked()) {
        return check_usable(*topic_);
    }
    const Call call(*this);
    if (frame->slot >= view().slot_count || letters_[frame->slot] == 0 ||
        word_sequence(letters_[frame->slot]) != frame->sequence) {
        return fail(FG_LEASE_LOST, "topic \"%s\": the message was released before", topic_->name_);
    }
    const std::uint64_t word = letters_[frame->slot];
    letters_[frame->slot] = 0;
    --live_;
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;  // poisoned: nothing is stored in the segment any more
    }
    const bool intact = release_handed(view(), frame->slot, word);
    wake_space(*topic_);
    return intact ? static_cast<fg_status>(FG_OK)
                  : fail(FG_LEASE_LOST,
                         "topic \"%s\": a message was not protected to the end, because this "
                         "process looked dead to another one",
                         topic_->name_);
}

// ---- event loops

fg_status Correspondent::event_fd(int* fd) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    if (closed_) {
        return say_closed();
    }
    if (!event_fd_.is_open()) {
        if (const fg_status status = event_fd_.open(*topic_, self_); status != FG_OK) {
            return status;
        }
    }
    *fd = event_fd_.fd();
    return FG_OK;
}

fg_status Correspondent::arm(bool* ready) {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    const Locked guard(lock_);
    if (closed_) {
        return say_closed();
    }
    if (!event_fd_.is_open()) {
        return fail(FG_INVALID_ARGUMENT, "topic \"%s\": ask for the event fd before arming it",
                    topic_->name_);
    }
    event_fd_.start_tick();
    // seq_cst: before the cells are looked at; pairs with ring_mailbox(). A new value each time, so
    // that a slow poster disarms only what it saw.
    header().armed.store(++armings_, std::memory_order_seq_cst);
    FG_STEP(kMailArmed);
    *ready = has_letter(view(), self_);
    return FG_OK;
}

fg_status Correspondent::drain() {
    if (const fg_status status = check_usable(*topic_); status != FG_OK) {
        return status;
    }
    bool ticked = false;
    {
        const Locked guard(lock_);
        if (closed_) {
            return say_closed();
        }
        ticked = event_fd_.is_open() && event_fd_.drain();
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
