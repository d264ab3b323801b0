// What every loan, publish, take and release goes through, inline for the two files that do it:
// together the calls and the packing of their results cost as much as two of the atomic operations.
// Everybody else calls the functions of the same names in slots.hpp. The theory is at the head of
// slots.cpp, whose numbers the comments use.
#pragma once

#include "group.hpp"
#include "slots.hpp"
#include "steps.hpp"

namespace framegate::impl::hot {

inline constexpr auto kRelaxed = std::memory_order_relaxed;
inline constexpr auto kAcquire = std::memory_order_acquire;
inline constexpr auto kRelease = std::memory_order_release;
inline constexpr auto kSeqCst = std::memory_order_seq_cst;

// A publisher needs nanoseconds from TRY to CLAIM or back; longer means that it does not run.
inline constexpr std::uint32_t kTryRereads = 256;
// More lost races in a row than 256 publishers can cause; only a corrupt ring gets there.
inline constexpr std::uint32_t kPublishAttemptsMax = 1U << 20;

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

[[gnu::always_inline]] inline Word& ring_at(const SegmentView& view, std::uint64_t sequence) {
    return view.ring[sequence & view.ring_mask];
}

// Somebody reads the frame, or a group has not finished it. The marks after the holders: a reaper
// sets the mark before it clears the bit (group.cpp).
[[gnu::always_inline]] inline bool any_holder(const SegmentView& view, const SlotRecord& slot,
                                              std::memory_order order) {
    std::uint64_t all = slot.holders[0].load(order);
    for (std::uint32_t i = 1; i < view.participant_words; ++i) {
        all |= slot.holders[i].load(order);
    }
    return (all | slot.marks.load(order)) != 0;
}

// Of cursors that do hold publishers back; slots.cpp.
std::uint64_t slowest_cursor(const SegmentView& view);

// The newest sequence that every reliable subscriber and every group has passed. Must be read after
// head: a subscriber that attaches sets its bit, re-reads head and starts there, so either this
// sees the bit or the subscriber sees our head.
[[gnu::always_inline]] inline std::uint64_t reliable_bound(const SegmentView& view) {
    // seq_cst: pairs with set_mark(kReliable) and the head re-read of the attaching subscriber, and
    // with F2 and F3 of a founder (group.cpp).
    const bool none = !any_mark(view, Mark::kReliable) && view.shared->groups.load(kSeqCst) == 0;
    if (none || FG_MUTATED(kMutateNoReliableBound)) [[likely]] {
        return ~std::uint64_t{0};
    }
    return slowest_cursor(view);
}

[[gnu::always_inline]] inline std::uint64_t load_head(const SegmentView& view) {
    // seq_cst: the head re-read of a sleeper pairs with the head CAS and the waiter load of
    // publishers. It is also the acquire that makes ring entries up to head visible, and the PUB of
    // the slots that they name.
    return view.flow->head.load(kSeqCst);
}

[[gnu::always_inline]] inline std::uint64_t help_head(const SegmentView& view) {
    std::uint64_t head = hot::load_head(view);
    if (FG_MUTATED(kMutateNoHelp)) {
        return head;
    }
    // acquire: pairs with the ring CAS of the publisher that stopped.
    const std::uint64_t entry = ring_at(view, head + 1).load(kAcquire);
    if (entry_sequence(entry) == head + 1 && entry_slot(entry) != kClosedSlot) [[unlikely]] {
        // seq_cst both ways: every head CAS, helpers included, pairs with the sleepers' head
        // re-read.
        if (view.flow->head.compare_exchange_strong(head, head + 1, kSeqCst, kSeqCst)) {
            return head + 1;
        }
    }
    return head;
}

[[gnu::always_inline]] inline bool sealed_after(const SegmentView& view, std::uint64_t sequence) {
    // seq_cst: pairs with the ring CAS of the sealer; a promise begins by a mark and then this look.
    return ring_at(view, sequence + 1).load(kSeqCst) == ring_entry(sequence + 1, kClosedSlot);
}

// ---- loan

// One slot on its way from PUB or FREE to CLAIM; true if it got there.
[[gnu::always_inline]] inline bool try_claim(const SegmentView& view, const Self& self,
                                             std::uint32_t index, std::uint64_t head,
                                             std::uint64_t bound, LoanAttempt* attempt) {
    SlotRecord& slot = view.slots[index];
    // seq_cst, here and of the holders: the CAS confirms a yes, but a no is what a loan that showed
    // its space bit goes to sleep on (5).
    std::uint64_t word = slot.word.load(kSeqCst);
    // The frame that a TRY of ours would protect. A FREE slot has none, whatever sequence its word
    // still shows: a scrub of TRY must not bring back a frame whose bytes were half overwritten
    // before the slot became free.
    const std::uint64_t sequence = word_state(word) == SlotState::kPub ? word_sequence(word) : 0;
    if (word_state(word) == SlotState::kPub) {
        if (sequence + view.keep > head || sequence > bound) {
            return false;
        }
    } else if (word_state(word) != SlotState::kFree) {
        return false;
    }
    if (any_holder(view, slot, kSeqCst)) {
        return false;
    }
    FG_STEP(kLoanCandidate);
    // seq_cst: the claim/take pair (1); pairs with take()'s fetch_or and word load.
    if (!slot.word.compare_exchange_strong(word, slot_word(sequence, self.owner, SlotState::kTry),
                                           kSeqCst, kRelaxed)) {
        return false;
    }
    FG_STEP(kLoanTry);
    // seq_cst: second half of the pair. It also acquires the release of the last reader, whose
    // reads thus happen before our writes.
    if (any_holder(view, slot, kSeqCst) && !FG_MUTATED(kMutateNoHoldersRecheck)) [[unlikely]] {
        std::uint64_t mine = slot_word(sequence, self.owner, SlotState::kTry);
        // seq_cst: a put-back makes a slot claimable; pairs with space sleepers.
        slot.word.compare_exchange_strong(mine, word, kSeqCst, kRelaxed);
        attempt->space = true;
        return false;
    }
    FG_STEP(kLoanChecked);
    attempt->word = slot_word(sequence, self.owner, SlotState::kClaim);
    // release is enough: takers that see CLAIM only give up. A plain store (6).
    slot.word.store(attempt->word, kRelease);
    FG_STEP(kLoanClaimed);
    attempt->slot = index;
    attempt->result = LoanResult::kOk;
    return true;
}

// Slots of large frames: those whose frames were replaced last first; slots.cpp.
bool try_claim_warm(const SegmentView& view, const Self& self, std::uint64_t head,
                    std::uint64_t bound, LoanAttempt* attempt);

[[gnu::always_inline]] inline LoanAttempt try_loan(const SegmentView& view, const Self& self) {
    LoanAttempt attempt;
    std::uint64_t head = hot::load_head(view);
    // seq_cst: as in help_head() and sealed_after(), which follow if there is anything ahead of head.
    if (entry_sequence(ring_at(view, head + 1).load(kSeqCst)) == head + 1) [[unlikely]] {
        // Help first: the bound "newest keep" of a stale head would protect the wrong frames, for
        // ever if all slots are in play (two slots, one publisher dead between ring and head).
        head = hot::help_head(view);
        if (hot::sealed_after(view, head)) {
            attempt.result = LoanResult::kMoved;
            return attempt;
        }
    }
    const std::uint64_t bound = reliable_bound(view);
    if (view.reuse_warm && try_claim_warm(view, self, head, bound, &attempt)) {
        return attempt;
    }
    // relaxed: only a hint that spreads the loans, oldest frame first; every slot is looked at
    // whatever it says, so two publishers that read the same value merely collide once.
    const std::uint64_t start = view.flow->next_slot.load(kRelaxed);
    auto index = start < view.slot_count ? static_cast<std::uint32_t>(start) : 0;
    for (std::uint32_t i = 0; i < view.slot_count;
         ++i, index = index + 1 < view.slot_count ? index + 1 : 0) {
        if (try_claim(view, self, index, head, bound, &attempt)) [[likely]] {
            view.flow->next_slot.store(index + 1, kRelaxed);  // relaxed: hint
            return attempt;
        }
    }
    return attempt;
}

// ---- publish

[[gnu::always_inline]] inline Publication publish(const SegmentView& view, const Self& self,
                                                  std::uint32_t index, std::uint64_t claim_word) {
    SlotRecord& slot = view.slots[index];
    Word& head_word = view.flow->head;
    std::uint64_t mine = claim_word;
    PublishResult failure = PublishResult::kCorrupt;
    for (std::uint32_t attempt = 0; attempt < kPublishAttemptsMax; ++attempt) {
        // seq_cst: as load_head().
        std::uint64_t head = head_word.load(kSeqCst);
        const std::uint64_t sequence = head + 1;
        if (sequence >= FG_SEQUENCE_MAX) [[unlikely]] {
            failure = PublishResult::kExhausted;
            break;
        }
        Word& entry = ring_at(view, sequence);
        std::uint64_t old =
            entry.load(kAcquire);  // acquire: pairs with the ring CAS of another publisher
        if (entry_sequence(old) >= sequence) [[unlikely]] {
            if (entry_sequence(old) > sequence) {
                continue;  // our head is old
            }
            if (entry_slot(old) == kClosedSlot) {
                return {PublishResult::kMoved, 0, mine};
            }
            // Somebody committed this sequence: help, then take the next. seq_cst as every head
            // CAS.
            head_word.compare_exchange_strong(head, sequence, kSeqCst, kSeqCst);
            continue;
        }
        const std::uint64_t commit = slot_word(sequence, self.owner, SlotState::kCommit);
        // relaxed: our own word, or that of whoever got the slot from our reaper. A publisher that
        // was reaped alive learns it here, before anything is published.
        if (slot.word.load(kRelaxed) != mine) [[unlikely]] {
            return {PublishResult::kLost, 0, 0};
        }
        // release: bytes and frame header before COMMIT; pairs with the word load of take(). A plain
        // store (6).
        slot.word.store(commit, kRelease);
        mine = commit;
        FG_STEP(kPublishCommitted);
        // seq_cst (release needed): the publication. Pairs with the acquire loads of the ring.
        if (!entry.compare_exchange_strong(old, ring_entry(sequence, index), kSeqCst, kRelaxed))
            [[unlikely]] {
            continue;
        }
        FG_STEP(kPublishRing);
        // release: bytes and header for whoever reads PUB instead of COMMIT. Before head, so that
        // the CAS there is also what makes it visible: PUB makes the slot claimable once newer frames
        // exist, a loan that goes to sleep reads head after its space bit, and we read the space bits
        // after our CAS. A plain store (6).
        slot.word.store(slot_word(sequence, 0, SlotState::kPub), kRelease);
        FG_STEP(kPublishWord);
        // seq_cst: pairs with the head re-read of sleepers; our waiter load follows in the caller.
        if (!head_word.compare_exchange_strong(head, sequence, kSeqCst, kSeqCst)) [[unlikely]] {
            // Somebody helped. A failed CAS releases nothing; this does, for the sake of the PUB.
            head_word.fetch_or(0, kSeqCst);
        }
        FG_STEP(kPublishDone);
        return {PublishResult::kOk, sequence, 0};
    }
    impl::abandon(view, index, mine);
    return {failure, 0, 0};
}

// ---- take

[[gnu::always_inline]] inline bool find_frame(const SegmentView& view, std::uint64_t sequence,
                                              std::uint32_t* slot) {
    const std::uint64_t entry =
        ring_at(view, sequence).load(kAcquire);  // acquire: pairs with the publishing CAS
    *slot = entry_slot(entry);
    return entry_sequence(entry) == sequence && *slot < view.slot_count;
}

[[gnu::always_inline]] inline TakeAttempt take(const SegmentView& view, const Self& self,
                                               std::uint64_t sequence, HeldFunction held,
                                               void* context) {
    TakeAttempt attempt;
    if (!hot::find_frame(view, sequence, &attempt.slot)) {
        return attempt;
    }
    SlotRecord& slot = view.slots[attempt.slot];
    // relaxed: spares a bit that would only be taken back; the answer that counts is read after
    // announcing.
    if (word_sequence(slot.word.load(kRelaxed)) != sequence) {
        return attempt;
    }
    // seq_cst: the claim/take pair (1). The read-modify-write keeps the release sequence of other
    // holders intact.
    slot.holders[self.word].fetch_or(self.bit, kSeqCst);
    FG_STEP(kTakeAnnounced);
    attempt.result = TakeResult::kBusy;
    for (std::uint32_t i = 0; i < kTryRereads; ++i) {
        // seq_cst: second half of the pair; acquires bytes and frame header from COMMIT or PUB.
        const std::uint64_t word = slot.word.load(kSeqCst);
        const SlotState state = word_state(word);
        if (word_sequence(word) == sequence &&
            (state == SlotState::kPub || state == SlotState::kCommit)) [[likely]] {
            attempt.result = TakeResult::kOk;
            FG_STEP(kTakeDone);
            return attempt;
        }
        if (word_sequence(word) != sequence || state != SlotState::kTry) {
            attempt.result = TakeResult::kGone;
            break;
        }
        // TRY: our bit is set, so the publisher puts the frame back, unless it read the holders
        // before.
        cpu_pause();
    }
    if (!held(context, attempt.slot)) {
        // seq_cst: the bit may have turned a loan away; pairs with space sleepers.
        slot.holders[self.word].fetch_and(~self.bit, kSeqCst);
        attempt.space = true;
    }
    return attempt;
}

// ---- release

[[gnu::always_inline]] inline bool still_frame(const SegmentView& view, std::uint32_t index,
                                               std::uint64_t sequence) {
    const std::uint64_t word =
        view.slots[index].word.load(kRelaxed);  // relaxed: a diagnosis, orders nothing
    const SlotState state = word_state(word);
    return word_sequence(word) == sequence &&
           (state == SlotState::kPub || state == SlotState::kCommit || state == SlotState::kTry);
}

[[gnu::always_inline]] inline bool release(const SegmentView& view, const Self& self,
                                           std::uint32_t index, std::uint64_t sequence) {
    const bool intact = hot::still_frame(view, index, sequence);
    // seq_cst: release for the reads of the frame before the next owner's writes (pairs with its
    // holder check), and seq_cst against space sleepers.
    const std::uint64_t before = view.slots[index].holders[self.word].fetch_and(~self.bit, kSeqCst);
    FG_STEP(kReleased);
    return intact && (before & self.bit) != 0;
}

}  // namespace framegate::impl::hot
