// Mailboxes: letters between participants, and slots handed over with them. Atomics only, like
// slots.hpp; the theory is at the head of mailbox.cpp.
#pragma once

#include <cstdint>

#include "layout.hpp"
#include "slots.hpp"

namespace framegate::impl {

// Who is meant: a row, and which owner of it.
struct MailAddress {
    std::uint32_t participant = 0;
    std::uint64_t epoch = 0;
};
inline bool operator==(const MailAddress& a, const MailAddress& b) {
    return a.participant == b.participant && a.epoch == b.epoch;
}

// Never 0, and another one for each owner of a row.
constexpr std::uint64_t mail_epoch(std::uint32_t incarnation) {
    return std::uint64_t{incarnation} << 1 | 1;
}
// The owner that slot words carry.
constexpr std::uint32_t owner_of(const MailAddress& address) {
    return owner_of(address.participant, static_cast<std::uint32_t>(address.epoch >> 1));
}

enum class LetterKind : std::uint32_t { kControl = 1, kRequest, kReply, kFailure };

// A private copy of what a cell holds.
struct Letter {
    LetterKind kind = LetterKind::kControl;
    std::uint32_t type = 0;         // of a control message
    std::uint64_t correlation = 0;  // of a call
    MailAddress from;
    std::uint32_t slot = kNoSlot;
    std::uint32_t generation = 0;  // of the slot
    std::uint32_t bytes = 0;
    unsigned char data[FG_LETTER_BYTES_MAX] = {};
    std::uint64_t ticket = 0;  // given by the mailbox
};

inline MailboxHeader& mailbox_header(const SegmentView& view, std::uint32_t index) {
    return *reinterpret_cast<MailboxHeader*>(view.mailboxes + index * view.mailbox_stride);
}
// Has this row ever had a mailbox, so that its pages exist?
bool has_mailbox(const SegmentView& view, std::uint32_t index);
// The epoch of its owner, 0 if it is closed.
std::uint64_t open_epoch(const SegmentView& view, std::uint32_t index);
// How many of its cells are in use.
std::uint32_t letters_in(const SegmentView& view, std::uint32_t index);

// The word of a slot that was handed over by the letter `ticket`.
constexpr std::uint64_t handed_word(std::uint64_t ticket, std::uint32_t owner) {
    return slot_word(ticket, owner, SlotState::kHanded);
}

// ---- owner

// Its pages must exist and its row be in use. Only now it can be posted to.
void open_mailbox(const SegmentView& view, const Self& self, std::uint64_t epoch);
// The oldest letter. With a slot: it is this participant's from here on if its word is
// handed_word(ticket, self.owner), which is for the taker to see. `space`: letters for former owners were dropped with their slots, wake space
// waiters.
bool take_letter(const SegmentView& view, const Self& self, std::uint64_t epoch, Letter* out,
                 bool* space);
// Is there a letter? Looks after whatever the caller stored before.
bool has_letter(const SegmentView& view, const Self& self);
// Gives a handed slot back; the caller must wake space waiters. False if it was taken away.
bool release_handed(const SegmentView& view, std::uint32_t slot, std::uint64_t word);

// ---- poster

enum class PostResult {
    kOk,
    kFull,
    kGone,  // closed, or another owner's by now; the loan is still good
    kLost,  // gone, and the slot with it
};
struct Posted {
    PostResult result = PostResult::kGone;
    std::uint32_t cell = 0;
    std::uint64_t ticket = 0;
};
// Posts a letter; with letter.slot, hands that slot over, whose word is `claim_word`. The caller
// must ring afterwards.
Posted post_letter(const SegmentView& view, const Self& self, const MailAddress& to,
                   const Letter& letter, std::uint64_t claim_word);

enum class Withdrawal {
    kDone,      // never read; its slot has the wanted word
    kRead,      // too late
    kSlotLost,  // never read, but the slot was taken away
};
// Takes a posted letter back; `slot_word` is what its slot becomes: FREE, or the CLAIM it was.
Withdrawal withdraw_letter(const SegmentView& view, const Self& self, const MailAddress& to,
                           const Posted& posted, std::uint32_t slot, std::uint64_t slot_word);

// ---- reaper

// All that participant `index` could have left in mailboxes, in three parts of a scrub: with the
// marks, with the slots of each generation, and after all of them.
void close_mailbox(const SegmentView& view, std::uint32_t index);
void withdraw_letters(const SegmentView& view, std::uint32_t index);
void free_letters(const SegmentView& view, std::uint32_t index);

}  // namespace framegate::impl
