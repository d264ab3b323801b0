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
//    the bits of a dead participant is repeatable.
// 5. Sleepers. Whoever makes progress possible changes something by a seq_cst RMW and then reads
//    the sleepers' bits seq_cst; a sleeper sets its bit seq_cst, reads the futex word, then looks
//    again seq_cst. Again one sees the other. What may unblock a loan: publish, abandon, put-back,
//    the undo of a failed take, release, detach, scrub. A publish has two such changes and one RMW:
//    PUB is stored before head is moved, and whoever reads the new head sees it.
// 6. An owned word (TRY, CLAIM, COMMIT) is changed by its owner, or by a reaper that has proved the
//    owner dead, so the owner may store where a CAS would cost three times as much: TRY to CLAIM to
//    COMMIT to PUB. It looks at the word before COMMIT, because a publisher that lost its lock may
//    have been reaped alive, and its slot be somebody else's by now; that can only narrow what a
//    lost lock breaks (docs/design/crash-safety.md), as the bytes of the slot were written before.
//    Put-back and abandon are CASes from the exact word.
//
// Bytes in a segment are written by other processes: every index is checked, every loop has a
// bound.
#include "slots.hpp"

#include <cstring>

#include "group.hpp"
#include "mailbox.hpp"
#include "slots_hot.hpp"
#include "steps.hpp"

#ifdef FRAMEGATE_STEPS
void (*framegate_test_step)(std::uint32_t step) = nullptr;
std::uint32_t framegate_test_mutations = 0;
#endif

namespace framegate::impl {

using hot::kAcquire;
using hot::kRelaxed;
using hot::kRelease;
using hot::kSeqCst;

namespace hot {

// As many as can be in play while one subscriber holds a frame: newest, held, free, one to spare.
constexpr std::uint32_t kWarmSlots = 4;

std::uint64_t slowest_cursor(const SegmentView& view) {
    std::uint64_t bound = ~std::uint64_t{0};
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
        if (hot::find_frame(view, head - view.keep - i, &index) &&
            hot::try_claim(view, self, index, head, bound, attempt)) {
            return true;
        }
    }
    return false;
}

}  // namespace hot

Self self_of(std::uint32_t index, std::uint32_t incarnation) {
    return {index, owner_of(index, incarnation), index / 64, std::uint64_t{1} << (index % 64)};
}

// ---- out of line, for everybody else

std::uint64_t load_head(const SegmentView& view) { return hot::load_head(view); }
std::uint64_t help_head(const SegmentView& view) { return hot::help_head(view); }
bool sealed_after(const SegmentView& view, std::uint64_t sequence) {
    return hot::sealed_after(view, sequence);
}
LoanAttempt try_loan(const SegmentView& view, const Self& self) {
    return hot::try_loan(view, self);
}
Publication publish(const SegmentView& view, const Self& self, std::uint32_t slot,
                    std::uint64_t claim_word) {
    return hot::publish(view, self, slot, claim_word);
}
bool find_frame(const SegmentView& view, std::uint64_t sequence, std::uint32_t* slot) {
    return hot::find_frame(view, sequence, slot);
}
TakeAttempt take(const SegmentView& view, const Self& self, std::uint64_t sequence,
                 HeldFunction held, void* context) {
    return hot::take(view, self, sequence, held, context);
}
bool still_frame(const SegmentView& view, std::uint32_t slot, std::uint64_t sequence) {
    return hot::still_frame(view, slot, sequence);
}
bool release(const SegmentView& view, const Self& self, std::uint32_t slot,
             std::uint64_t sequence) {
    return hot::release(view, self, slot, sequence);
}

// ---- the rest

std::uint32_t claimable_slots(const SegmentView& view, std::uint32_t enough) {
    const std::uint64_t head = help_head(view);
    const std::uint64_t bound = hot::reliable_bound(view);
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < view.slot_count && count < enough; ++i) {
        // seq_cst: after the caller's own claim; two that claim the last two slots see each other.
        const std::uint64_t word = view.slots[i].word.load(kSeqCst);
        const bool is_old_frame = word_state(word) == SlotState::kPub &&
                                  word_sequence(word) + view.keep <= head &&
                                  word_sequence(word) <= bound;
        if ((is_old_frame || word_state(word) == SlotState::kFree) &&
            !hot::any_holder(view, view.slots[i], kRelaxed)) {  // relaxed: an estimate
            ++count;
        }
    }
    return count;
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

bool settled_word(const SlotRecord& slot) {
    for (std::uint32_t i = 0; i < hot::kTryRereads; ++i) {
        if (word_state(slot.word.load(kSeqCst)) != SlotState::kTry) {  // seq_cst: as in take()
            return true;
        }
        hot::cpu_pause();
    }
    return false;
}

void set_mark(const SegmentView& view, const Self& self, Mark mark) {
    marks(view, mark)[self.word].fetch_or(self.bit,
                                          kSeqCst);  // seq_cst: sleepers (5), reliable attach
}

void clear_mark(const SegmentView& view, const Self& self, Mark mark) {
    // seq_cst: of kReliable it unblocks loans; the kick that follows reads the sleepers' bits.
    marks(view, mark)[self.word].fetch_and(~self.bit, kSeqCst);
}

Self begin_row(const SegmentView& view, std::uint32_t index, const RowInfo& info) {
    ParticipantRow& row = view.participants[index];
    // Relaxed throughout: the row is ours by its lock, readers look at `state` first.
    const std::uint32_t incarnation = row.incarnation.load(kRelaxed) + 1;
    row.incarnation.store(incarnation, kRelease);  // release: pairs with wakened() in wake.cpp
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
                is_frame = hot::ring_at(view, sequence).load(kAcquire) == ring_entry(sequence, i);
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
