// Slots: how several publishers and many subscribers share a few buffers without a lock.
//
// States of a slot word (sequence, owner, state):
//
//     FREE ---TRY CAS---> TRY(owner) --no holders--> CLAIM(owner) --> COMMIT(next sequence, owner)
//                                                                        --> PUB(sequence)
//     PUB ----TRY CAS---> TRY(owner) --holders: put back--> PUB   (TRY of a FREE slot: sequence 0)
//     CLAIM, COMMIT --abandon or scrub--> FREE
//     TRY --scrub--> PUB (FREE without a sequence)      COMMIT --scrub, ring names it--> PUB
//     CLAIM --handed over--> HANDED(addressee) --release or scrub--> FREE   (mailbox.cpp)
//
// 1. Claim against take. A publisher CASes the word to TRY and then reads the holder bits; a
//    subscriber sets its bit and then reads the word. Each writes first and reads second, all four
//    seq_cst, so at least one of them sees the other: the publisher puts the word back, or the
//    subscriber sees TRY/CLAIM and waits briefly or gives up. Nobody writes bytes before it has
//    seen all holder words empty after its TRY.
// 2. Publication is one CAS: ring[sequence] from an older entry to (sequence, slot). Before it
//    nothing was published, after it the frame is, whatever happens to the publisher. `head`
//    follows by a CAS that anybody may do ("help"), so a publisher that dies between the two blocks
//    nobody. At most one entry is ever ahead of head, because whoever wants to write the next one
//    helps first.
// 3. The newest `keep` frames (counted from a head that was helped first) are never claimed, so
//    that a subscriber which read head finds its frame.
// 4. A holder bit says who holds, so the same atomic step takes a lease and records it; clearing
//    the bits of a dead participant is repeatable. Transitions out of an owned word are CASes from
//    the exact word of the owner, including its incarnation, so a publisher whose row was given to
//    somebody else notices.
// 5. Sleepers. Whoever makes progress possible changes something by a seq_cst RMW and then reads
//    the sleepers' bits seq_cst; a sleeper sets its bit seq_cst, reads the futex word, then looks
//    again seq_cst. Again one sees the other. What may unblock a loan: publish, abandon, put-back,
//    the undo of a failed take, release, detach, scrub.
//
// Bytes in a segment are written by other processes: every index is checked, every loop has a
// bound.
#include "slots.hpp"

#include <cstring>

#include "group.hpp"
#include "mailbox.hpp"
#include "steps.hpp"

#ifdef FRAMEGATE_STEPS
void (*framegate_test_step)(std::uint32_t step) = nullptr;
std::uint32_t framegate_test_mutations = 0;
#endif

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kSeqCst = std::memory_order_seq_cst;

// A publisher needs nanoseconds from TRY to CLAIM or back; longer means that it does not run.
constexpr std::uint32_t kTryRereads = 256;
// More lost races in a row than 256 publishers can cause; only a corrupt ring gets there.
constexpr std::uint32_t kPublishAttemptsMax = 1U << 20;
// As many as can be in play while one subscriber holds a frame: newest, held, free, one to spare.
constexpr std::uint32_t kWarmSlots = 4;

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

Word& ring_at(const SegmentView& view, std::uint64_t sequence) {
    return view.ring[sequence & view.ring_mask];
}

// Somebody reads the frame, or a group has not finished it. The marks after the holders: a reaper
// sets the mark before it clears the bit (group.cpp).
bool any_holder(const SegmentView& view, const SlotRecord& slot, std::memory_order order) {
    std::uint64_t all = 0;
    for (std::uint32_t i = 0; i < view.participant_words; ++i) {
        all |= slot.holders[i].load(order);
    }
    return (all | slot.marks.load(order)) != 0;
}

// The newest sequence that every reliable subscriber and every group has passed. Must be read after
// head: a subscriber that attaches sets its bit, re-reads head and starts there, so either this
// sees the bit or the subscriber sees our head.
std::uint64_t reliable_bound(const SegmentView& view) {
    std::uint64_t bound = ~std::uint64_t{0};
    if (FG_MUTATED(kMutateNoReliableBound)) {
        return bound;
    }
    for (std::uint32_t i = 0; i < view.participant_words; ++i) {
        // seq_cst: pairs with set_mark(kReliable) and the head re-read of the attaching subscriber.
        std::uint64_t bits = view.shared->reliable[i].load(kSeqCst);
        while (bits != 0) {
            const auto index = i * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
            bits &= bits - 1;
            if (index >= view.participants_max) {
                break;
            }
            // seq_cst: pairs with the store of the cursor after a validated take, so that the
            // holder bit set before it is visible to our holder check; and a loan that is about to
            // sleep must see every cursor that moved before the mover looked for sleepers.
            const std::uint64_t cursor = view.participants[index].cursor.load(kSeqCst);
            bound = cursor < bound ? cursor : bound;
        }
    }
    // seq_cst: pairs with F2 and F3 of a founder (group.cpp), as the reliable bits above.
    std::uint64_t groups = view.shared->groups.load(kSeqCst);
    while (groups != 0) {
        const auto group = static_cast<std::uint32_t>(__builtin_ctzll(groups));
        groups &= groups - 1;
        if (group >= kGroups) {
            break;
        }
        const std::uint64_t cursor = load_group_cursor(view, group);
        bound = cursor < bound ? cursor : bound;
    }
    return bound;
}

}  // namespace

Self self_of(std::uint32_t index, std::uint32_t incarnation) {
    return {index, owner_of(index, incarnation), index / 64, std::uint64_t{1} << (index % 64)};
}

std::uint64_t load_head(const SegmentView& view) {
    // seq_cst: the head re-read of a sleeper pairs with the head CAS and the waiter load of
    // publishers. It is also the acquire that makes ring entries up to head visible.
    return view.flow->head.load(kSeqCst);
}

std::uint64_t help_head(const SegmentView& view) {
    std::uint64_t head = load_head(view);
    if (FG_MUTATED(kMutateNoHelp)) {
        return head;
    }
    // acquire: pairs with the ring CAS of the publisher that stopped.
    const std::uint64_t entry = ring_at(view, head + 1).load(kAcquire);
    if (entry_sequence(entry) == head + 1 && entry_slot(entry) != kClosedSlot) {
        // seq_cst both ways: every head CAS, helpers included, pairs with the sleepers' head
        // re-read.
        if (view.flow->head.compare_exchange_strong(head, head + 1, kSeqCst, kSeqCst)) {
            return head + 1;
        }
    }
    return head;
}

bool sealed_after(const SegmentView& view, std::uint64_t sequence) {
    // seq_cst: pairs with the ring CAS of the sealer; a promise begins by a mark and then this look.
    return ring_at(view, sequence + 1).load(kSeqCst) == ring_entry(sequence + 1, kClosedSlot);
}

namespace {

// One slot on its way from PUB or FREE to CLAIM; true if it got there.
bool try_claim(const SegmentView& view, const Self& self, std::uint32_t index, std::uint64_t head,
               std::uint64_t bound, LoanAttempt* attempt) {
    SlotRecord& slot = view.slots[index];
    std::uint64_t word =
        slot.word.load(kAcquire);  // acquire: cheap pre-check, confirmed by the CAS
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
    if (any_holder(view, slot, kRelaxed)) {  // relaxed: cheap pre-check, confirmed below
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
    if (any_holder(view, slot, kSeqCst) && !FG_MUTATED(kMutateNoHoldersRecheck)) {
        std::uint64_t mine = slot_word(sequence, self.owner, SlotState::kTry);
        // seq_cst: a put-back makes a slot claimable; pairs with space sleepers.
        slot.word.compare_exchange_strong(mine, word, kSeqCst, kRelaxed);
        attempt->space = true;
        return false;
    }
    FG_STEP(kLoanChecked);
    attempt->word = slot_word(sequence, self.owner, SlotState::kClaim);
    // release is enough: takers that see CLAIM only give up. A plain store, since only the owner
    // (or its reaper, which proves it dead) moves a TRY word.
    slot.word.store(attempt->word, kRelease);
    FG_STEP(kLoanClaimed);
    attempt->slot = index;
    attempt->result = LoanResult::kOk;
    return true;
}

// Which slots to try first while nobody wants old frames: those whose frames were replaced last.
// Their bytes are the likeliest to be in the caches and the address-translation buffers of this
// machine: a ring of eight 1080p frames is 50 MB, the two or three slots that are really in play
// are 19 MB. Only a choice: whatever it picks is checked like every slot.
bool try_claim_warm(const SegmentView& view, const Self& self, std::uint64_t head,
                    std::uint64_t bound, LoanAttempt* attempt) {
    for (std::uint32_t i = 0; i < view.participant_words; ++i) {
        // relaxed: decides which old frames survive for a subscriber that attaches right now, and
        // its promise starts with the frames after it.
        if (view.shared->history[i].load(kRelaxed) != 0) {
            return false;
        }
    }
    std::uint32_t index = 0;
    for (std::uint32_t i = 0; i < kWarmSlots && head > view.keep + i; ++i) {
        if (find_frame(view, head - view.keep - i, &index) &&
            try_claim(view, self, index, head, bound, attempt)) {
            return true;
        }
    }
    return false;
}

}  // namespace

LoanAttempt try_loan(const SegmentView& view, const Self& self) {
    LoanAttempt attempt;
    // Help first: the bound "newest keep" of a stale head would protect the wrong frames, for ever
    // if all slots are in play (two slots, one publisher dead between ring and head).
    const std::uint64_t head = help_head(view);
    if (sealed_after(view, head)) {
        attempt.result = LoanResult::kMoved;
        return attempt;
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
        if (try_claim(view, self, index, head, bound, &attempt)) {
            view.flow->next_slot.store(index + 1, kRelaxed);  // relaxed: hint
            return attempt;
        }
    }
    return attempt;
}

std::uint32_t claimable_slots(const SegmentView& view, std::uint32_t enough) {
    const std::uint64_t head = help_head(view);
    const std::uint64_t bound = reliable_bound(view);
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < view.slot_count && count < enough; ++i) {
        // seq_cst: after the caller's own claim; two that claim the last two slots see each other.
        const std::uint64_t word = view.slots[i].word.load(kSeqCst);
        const bool is_old_frame = word_state(word) == SlotState::kPub &&
                                  word_sequence(word) + view.keep <= head &&
                                  word_sequence(word) <= bound;
        if ((is_old_frame || word_state(word) == SlotState::kFree) &&
            !any_holder(view, view.slots[i], kRelaxed)) {  // relaxed: an estimate
            ++count;
        }
    }
    return count;
}

Publication publish(const SegmentView& view, const Self& self, std::uint32_t index,
                    std::uint64_t claim_word) {
    SlotRecord& slot = view.slots[index];
    std::uint64_t mine = claim_word;
    PublishResult failure = PublishResult::kCorrupt;
    for (std::uint32_t attempt = 0; attempt < kPublishAttemptsMax; ++attempt) {
        std::uint64_t head = load_head(view);
        const std::uint64_t sequence = head + 1;
        if (sequence >= FG_SEQUENCE_MAX) {
            failure = PublishResult::kExhausted;
            break;
        }
        Word& entry = ring_at(view, sequence);
        std::uint64_t old =
            entry.load(kAcquire);  // acquire: pairs with the ring CAS of another publisher
        if (entry_sequence(old) == sequence) {
            if (entry_slot(old) == kClosedSlot) {
                return {PublishResult::kMoved, 0, mine};
            }
            // Somebody committed this sequence: help, then take the next. seq_cst as every head
            // CAS.
            view.flow->head.compare_exchange_strong(head, sequence, kSeqCst, kSeqCst);
            continue;
        }
        if (entry_sequence(old) > sequence) {
            continue;  // our head is old
        }
        const std::uint64_t commit = slot_word(sequence, self.owner, SlotState::kCommit);
        // release: bytes and frame header before COMMIT; pairs with the word load of take(). From
        // the exact own word: a publisher that was reaped alive learns it here, before anything is
        // published.
        if (!slot.word.compare_exchange_strong(mine, commit, kRelease, kRelaxed)) {
            return {PublishResult::kLost, 0, 0};
        }
        mine = commit;
        FG_STEP(kPublishCommitted);
        // seq_cst (release needed): the publication. Pairs with the acquire loads of the ring.
        if (!entry.compare_exchange_strong(old, ring_entry(sequence, index), kSeqCst, kRelaxed)) {
            continue;
        }
        FG_STEP(kPublishRing);
        // seq_cst: pairs with the head re-read of sleepers; our waiter load follows in the caller.
        view.flow->head.compare_exchange_strong(head, sequence, kSeqCst, kSeqCst);
        FG_STEP(kPublishHead);
        // seq_cst: COMMIT -> PUB makes the slot claimable once newer frames exist; pairs with space
        // sleepers. Failure means that a reaper already did it.
        slot.word.compare_exchange_strong(mine, slot_word(sequence, 0, SlotState::kPub), kSeqCst,
                                          kRelaxed);
        FG_STEP(kPublishDone);
        return {PublishResult::kOk, sequence, 0};
    }
    abandon(view, index, mine);
    return {failure, 0, 0};
}

bool abandon(const SegmentView& view, std::uint32_t index, std::uint64_t own_word) {
    std::uint64_t mine = own_word;
    // The sequence stays in the word for people; FREE says that there is no such frame here.
    const std::uint64_t free = slot_word(word_sequence(own_word), 0, SlotState::kFree);
    // seq_cst: makes a slot claimable; pairs with space sleepers.
    const bool ours = view.slots[index].word.compare_exchange_strong(mine, free, kSeqCst, kRelaxed);
    FG_STEP(kAbandoned);
    return ours;
}

bool find_frame(const SegmentView& view, std::uint64_t sequence, std::uint32_t* slot) {
    const std::uint64_t entry =
        ring_at(view, sequence).load(kAcquire);  // acquire: pairs with the publishing CAS
    *slot = entry_slot(entry);
    return entry_sequence(entry) == sequence && *slot < view.slot_count;
}

TakeAttempt take(const SegmentView& view, const Self& self, std::uint64_t sequence,
                 HeldFunction held, void* context) {
    TakeAttempt attempt;
    if (!find_frame(view, sequence, &attempt.slot)) {
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
        // seq_cst: second half of the pair; acquires bytes and frame header from the COMMIT (or
        // PUB) CAS.
        const std::uint64_t word = slot.word.load(kSeqCst);
        const SlotState state = word_state(word);
        if (word_sequence(word) != sequence || state == SlotState::kClaim ||
            state == SlotState::kFree || state == SlotState::kHanded) {
            attempt.result = TakeResult::kGone;
            break;
        }
        if (state == SlotState::kPub || state == SlotState::kCommit) {
            attempt.result = TakeResult::kOk;
            FG_STEP(kTakeDone);
            return attempt;
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

bool settled_word(const SlotRecord& slot) {
    for (std::uint32_t i = 0; i < kTryRereads; ++i) {
        if (word_state(slot.word.load(kSeqCst)) != SlotState::kTry) {  // seq_cst: as in take()
            return true;
        }
        cpu_pause();
    }
    return false;
}

bool still_frame(const SegmentView& view, std::uint32_t index, std::uint64_t sequence) {
    const std::uint64_t word =
        view.slots[index].word.load(kRelaxed);  // relaxed: a diagnosis, orders nothing
    const SlotState state = word_state(word);
    return word_sequence(word) == sequence &&
           (state == SlotState::kPub || state == SlotState::kCommit || state == SlotState::kTry);
}

bool release(const SegmentView& view, const Self& self, std::uint32_t index,
             std::uint64_t sequence) {
    const bool intact = still_frame(view, index, sequence);
    // seq_cst: release for the reads of the frame before the next owner's writes (pairs with its
    // holder check), and seq_cst against space sleepers.
    const std::uint64_t before = view.slots[index].holders[self.word].fetch_and(~self.bit, kSeqCst);
    FG_STEP(kReleased);
    return intact && (before & self.bit) != 0;
}

void set_mark(const SegmentView& view, const Self& self, Mark mark) {
    marks(view, mark)[self.word].fetch_or(self.bit,
                                          kSeqCst);  // seq_cst: sleepers (5), reliable attach
}

void clear_mark(const SegmentView& view, const Self& self, Mark mark) {
    marks(view, mark)[self.word].fetch_and(~self.bit, kSeqCst);
}

Self begin_row(const SegmentView& view, std::uint32_t index, const RowInfo& info) {
    ParticipantRow& row = view.participants[index];
    // Relaxed throughout: the row is ours by its lock, readers look at `state` first.
    const std::uint32_t incarnation = row.incarnation.load(kRelaxed) + 1;
    row.incarnation.store(incarnation, kRelaxed);
    row.role.store(info.role, kRelaxed);
    row.policy.store(info.policy, kRelaxed);
    row.pid.store(info.pid, kRelaxed);
    row.attached_unix_ns.store(info.attached_unix_ns, kRelaxed);
    std::uint64_t name[FG_PARTICIPANT_NAME_BYTES_MAX / 8] = {};
    const std::uint32_t name_bytes =
        info.name_bytes < kParticipantNameBytesMax ? info.name_bytes : kParticipantNameBytesMax;
    if (name_bytes != 0) {
        std::memcpy(name, info.name, name_bytes);
    }
    for (std::uint32_t i = 0; i < FG_PARTICIPANT_NAME_BYTES_MAX / 8; ++i) {
        row.name[i].store(name[i], kRelaxed);
    }
    row.name_bytes.store(name_bytes, kRelaxed);
    row.mailbox_offset.store(0, kRelaxed);
    row.armed.store(0, kRelaxed);
    row.received.store(0, kRelaxed);
    row.lost.store(0, kRelaxed);
    row.leases.store(0, kRelaxed);
    row.generation.store(0, kRelaxed);  // may want any, until it says which
    row.group.store(0, kRelaxed);
    row.cursor.store(load_head(view), kRelaxed);
    FG_STEP(kAttachLocked);
    // seq_cst (release needed): from here a death leaves something to reap. Marks are set only
    // after it, else a death in between would leave marks of a row that nobody reaps.
    row.state.store(1, kSeqCst);
    FG_STEP(kAttached);
    return self_of(index, incarnation);
}

void begin_reliable(const SegmentView& view, const Self& self, bool newest) {
    Word& cursor = view.participants[self.index].cursor;
    // Old first, so that what it holds back is more than needed, never less; then the mark; then
    // the head that counts. A publisher that did not see the mark has read a head that is not newer
    // than ours, and claims only what is `keep` older than that.
    cursor.store(promise_start(load_head(view), newest), kSeqCst);
    set_mark(view, self, Mark::kReliable);
    FG_STEP(kReliableMarked);
    cursor.store(promise_start(help_head(view), newest), kSeqCst);
    FG_STEP(kReliableAttached);
}

bool row_in_use(const SegmentView& view, std::uint32_t index) {
    return view.participants[index].state.load(kAcquire) != 0;  // acquire: pairs with begin_row
}

void scrub_row(const SegmentView& view, std::uint32_t index) {
    scrub_marks(view, index);
    scrub_slots(view, index);
    free_letters(view, index);
}

void scrub_marks(const SegmentView& view, std::uint32_t index) {
    const Self dead = self_of(index, 0);
    clear_mark(view, dead, Mark::kWaiter);
    clear_mark(view, dead, Mark::kSpaceWaiter);
    clear_mark(view, dead, Mark::kFd);
    clear_mark(view, dead, Mark::kReliable);
    clear_mark(view, dead, Mark::kHistory);
    view.participants[index].armed.store(0, kSeqCst);
    FG_STEP(kReapMarks);
    close_mailbox(view, index);
}

void scrub_slots(const SegmentView& view, std::uint32_t index) {
    const Self dead = self_of(index, 0);
    const std::uint32_t group = group_of(view, index);
    withdraw_letters(view, index);
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        SlotRecord& slot = view.slots[i];
        // Word first, bit second: whoever sees the bit gone may claim, so the word must be right by
        // then. The owner is dead, so its word changes only under our hands; three tries are
        // generous even against a hostile peer.
        for (int attempt = 0; attempt < 3; ++attempt) {
            std::uint64_t word =
                slot.word.load(kAcquire);  // acquire: pairs with the dead publisher's CASes
            const SlotState state = word_state(word);
            const std::uint64_t sequence = word_sequence(word);
            if ((state != SlotState::kTry && state != SlotState::kClaim &&
                 state != SlotState::kCommit && state != SlotState::kHanded) ||
                owner_participant(word_owner(word)) != index) {
                break;
            }
            bool is_frame = state == SlotState::kTry && sequence != 0;
            if (state == SlotState::kCommit) {
                // acquire: pairs with the ring CAS; the ring alone decides whether this was
                // published.
                is_frame = ring_at(view, sequence).load(kAcquire) == ring_entry(sequence, i);
            }
            const SlotState next = is_frame ? SlotState::kPub : SlotState::kFree;
            // seq_cst: makes a slot claimable; the kick that follows reads the sleepers' bits.
            if (slot.word.compare_exchange_strong(word, slot_word(sequence, 0, next), kSeqCst,
                                                  kRelaxed)) {
                break;
            }
        }
        if (group != kNoGroup) {
            mark_unfinished_of(view, i, group, dead);
        }
        slot.holders[dead.word].fetch_and(~dead.bit, kSeqCst);  // seq_cst: as in release()
    }
    FG_STEP(kReapSlots);
    help_head(view);
    if (group != kNoGroup) {
        announce_redelivery(view, group);
    }
    FG_STEP(kReapHelped);
}

void free_row(const SegmentView& view, std::uint32_t index) {
    view.participants[index].state.store(
        0, kSeqCst);  // release needed: the next owner starts from a clean row
    FG_STEP(kReapFreed);
}

}  // namespace framegate::impl
