// The lock-free algorithm over mapped bytes. Atomics only: no system call, no allocation, no clock;
// runs on heap memory as well as on a mapping. The theory is at the head of slots.cpp.
#pragma once

#include <cstdint>

#include "layout.hpp"

namespace framegate::impl {

// Where things are: pointers into the mapping and a private copy of the checked geometry.
struct SegmentView {
    SharedWords* shared = nullptr;  // of the topic: who sleeps, who holds back
    SharedWords* flow = nullptr;    // of the generation: head, next_slot, next_generation
    ParticipantRow* participants = nullptr;
    Word* ring = nullptr;
    SlotRecord* slots = nullptr;
    GroupRow* groups = nullptr;
    std::uint32_t slot_count = 0;
    std::uint32_t ring_mask = 0;
    std::uint32_t keep = 1;
    std::uint32_t participants_max = 0;
    std::uint32_t participant_words = 0;
    unsigned char* mailboxes = nullptr;
    std::uint64_t mailbox_stride = 0;  // bytes; 0: the topic has none
    std::uint32_t mailbox_cells = 0;
    bool reuse_warm = false;  // slots so large that it pays to write into a warm one
};

// One participant as the algorithm sees it.
struct Self {
    std::uint32_t index = 0;
    std::uint32_t owner = 0;  // index and incarnation, as in slot words
    std::uint32_t word = 0;   // index / 64
    std::uint64_t bit = 0;    // 1 << index % 64
};
Self self_of(std::uint32_t index, std::uint32_t incarnation);

// ---- publisher

enum class LoanResult { kOk, kNone, kMoved };
struct LoanAttempt {
    LoanResult result = LoanResult::kNone;
    std::uint32_t slot = 0;
    std::uint64_t word = 0;  // the CLAIM word, proof of the loan
    bool space = false;      // put a slot back: the caller must wake space waiters
};
LoanAttempt try_loan(const SegmentView& view, const Self& self);

// How many slots a loan could have now; counts no further than `enough`.
std::uint32_t claimable_slots(const SegmentView& view, std::uint32_t enough);

enum class PublishResult { kOk, kLost, kMoved, kExhausted, kCorrupt };
struct Publication {
    PublishResult result = PublishResult::kLost;
    std::uint64_t sequence = 0;
    std::uint64_t word = 0;  // on kMoved: what proves the loan now
};
// The frame's header in the slot record must be written before. On kExhausted and kCorrupt the slot
// is free; on kMoved it is still loaned, so that its bytes can be carried to the next generation.
Publication publish(const SegmentView& view, const Self& self, std::uint32_t slot,
                    std::uint64_t claim_word);
// False if the loan was not this participant's any more.
bool abandon(const SegmentView& view, std::uint32_t slot, std::uint64_t claim_word);

// ---- subscriber

enum class TakeResult {
    kOk,
    kGone,  // not there any more
    kBusy,  // a publisher holds it in TRY for longer than it should need: alive but off-CPU, or
            // dead
};
struct TakeAttempt {
    TakeResult result = TakeResult::kGone;
    std::uint32_t slot = 0;
    bool space = false;  // cleared the bit again: the caller must wake space waiters
};
// `held` tells whether this participant already leases the slot, so that a failed take does not
// clear that lease's bit.
using HeldFunction = bool (*)(void* context, std::uint32_t slot);
TakeAttempt take(const SegmentView& view, const Self& self, std::uint64_t sequence,
                 HeldFunction held, void* context);
// Waits briefly for the word of a slot to be anything but TRY. False: it stayed TRY.
bool settled_word(const SlotRecord& slot);
// Slot that the ring names for this frame; false if it names another frame (or nonsense).
bool find_frame(const SegmentView& view, std::uint64_t sequence, std::uint32_t* slot);
// Clears the holder bit; the caller must wake space waiters. False if the lease had been taken
// away.
bool release(const SegmentView& view, const Self& self, std::uint32_t slot, std::uint64_t sequence);
// Does the slot still carry this frame?
bool still_frame(const SegmentView& view, std::uint32_t slot, std::uint64_t sequence);

std::uint64_t load_head(const SegmentView& view);
// Moves head over a frame whose publisher stopped between ring and head. Returns the head
// afterwards.
std::uint64_t help_head(const SegmentView& view);
// True if the topic is sealed right behind `sequence`.
bool sealed_after(const SegmentView& view, std::uint64_t sequence);

// ---- sleeping

enum class Mark { kWaiter, kSpaceWaiter, kFd, kReliable, kHistory };
void set_mark(const SegmentView& view, const Self& self, Mark mark);
void clear_mark(const SegmentView& view, const Self& self, Mark mark);

[[gnu::always_inline]] inline Word* marks(const SegmentView& view, Mark mark) {
    switch (mark) {
        case Mark::kWaiter:
            return view.shared->waiters;
        case Mark::kSpaceWaiter:
            return view.shared->space_waiters;
        case Mark::kFd:
            return view.shared->fds;
        case Mark::kHistory:
            return view.shared->history;
        case Mark::kReliable:
            break;
    }
    return view.shared->reliable;
}

[[gnu::always_inline]] inline std::uint64_t mark_word(const SegmentView& view, Mark mark,
                                                      std::uint32_t word) {
    return marks(view, mark)[word].load(
        std::memory_order_seq_cst);  // seq_cst: sleepers, slots.cpp (5)
}

// On the hot path of everything that may have to wake somebody, so inline.
[[gnu::always_inline]] inline bool any_mark(const SegmentView& view, Mark mark) {
    std::uint64_t all = mark_word(view, mark, 0);
    for (std::uint32_t i = 1; i < view.participant_words; ++i) {
        all |= mark_word(view, mark, i);
    }
    return all != 0;
}

// The same of several kinds, for whoever has to wake somebody only if there is anybody at all.
template <typename... Marks>
[[gnu::always_inline]] inline bool any_of_marks(const SegmentView& view, Marks... kinds) {
    std::uint64_t all = (mark_word(view, kinds, 0) | ...);
    for (std::uint32_t i = 1; i < view.participant_words; ++i) {
        all |= (mark_word(view, kinds, i) | ...);
    }
    return all != 0;
}

// ---- rows

// All of these need the lock of the row's byte.
struct RowInfo {
    std::uint32_t role = 0;
    std::uint32_t policy = 0;
    std::uint32_t pid = 0;
    std::uint64_t attached_unix_ns = 0;
    const char* name = nullptr;
    std::uint32_t name_bytes = 0;
    bool newest = false;  // subscriber: the newest frame that exists counts as unseen
    const char* group = nullptr;
    std::uint32_t group_bytes = 0;
};
Self begin_row(const SegmentView& view, std::uint32_t index, const RowInfo& info);
// Cursor of a reliable subscriber or group that begins when `head` is the newest frame: with that
// frame or behind it.
constexpr std::uint64_t promise_start(std::uint64_t head, bool newest) {
    return newest && head != 0 ? head - 1 : head;
}
// Makes the cursor of the row hold publishers back, and sets it to where the promise begins.
void begin_reliable(const SegmentView& view, const Self& self, bool newest);
bool row_in_use(const SegmentView& view, std::uint32_t index);
// Takes back everything that participant `index` could have left behind, except the row itself:
// marks, slot words, holder bits, a stalled head. Each step can be repeated. Afterwards the caller
// lets it leave its group, kicks everybody, then frees the row.
void scrub_row(const SegmentView& view, std::uint32_t index);
// Its two halves: what is the topic's, and what is a generation's (slots and head).
void scrub_marks(const SegmentView& view, std::uint32_t index);
void scrub_slots(const SegmentView& view, std::uint32_t index);
void free_row(const SegmentView& view, std::uint32_t index);

}  // namespace framegate::impl
