// Groups: a work queue on the slots. Every frame goes to one member; a frame whose member died, or
// gave it back (nack), goes to another one: at least once, twice only after a death or a nack.
//
// Delivery. The group has one cursor. A member first leases the frame behind the cursor like any
// subscriber (holder bit, then the word), and only then moves the cursor over it by a CAS: who moves
// it owns the frame, the others take their bit back. Releasing the lease is the acknowledgement.
//
//     T1  announce: bit on ring[cursor + 1]     T2  validate the word (take() in slots.cpp)
//     T3  CAS cursor: n - 1 -> n                T4  lost: bit off
//
// Redelivery. A slot has a mark per group: "given to a member that did not finish it".
//
//     reaper, nack   R1  mark on, if sequence <= cursor    R2  holder bit off    R3  bump, kick
//     picker         P1  own bit on    P2  word, not TRY   P3  mark off: who cleared it owns it
//                    P4  word again: a frame with sequence <= cursor, else bit off
//     publisher      L1  TRY           L2  holder words    L3  marks: any: put back
//
// Why nothing is lost. Between T3 and the release there is always a holder bit or a mark on the
// slot: R1 before R2, P1 before P3. A publisher reads the holders before the marks, so if it missed
// the bit because R2 had removed it, it sees the mark of R1; if it missed the mark because P3 had
// removed it, then P1 and P2 came before, P2 did not see TRY, so L1 came after P1 and L2 saw the
// picker's bit. From P2 on the slot cannot leave its frame, because every later L2 sees that bit.
// P4 looks at the word only after the mark is off: a frame that came into the slot later and whose
// member died is marked anew, and a mark that was stale (a stray bit of a dead member, see R1) is
// dropped without a race. A frame behind the cursor is nobody's yet: the cursor will deliver it.
//
// Membership. A group lives from its first member until its last one is gone. While it lives its
// bit in SharedWords.groups makes publishers obey the cursor, so that no member changes that. Rows
// change hands under one lock (an OFD byte lock, dropped by the kernel at death); leaving needs
// none, because a death cannot take it.
//
//     found   F1  name, cursor = head    F2  bit in groups    F3  cursor = head again    then J1
//     join    J1  group in own row       J2  member bit
//     leave   V1  member bit off
//     end     E1  (no member:) all marks of the group off     E2  bit in groups off
//
// Resize. Cursor, members and rows are of the topic, marks and leases of a generation. A group is
// founded before the seal or behind it, because a resizer holds the same lock. Frames up to the seal
// are taken in the old generation, the others in the new one, and what is not finished in an old one
// is looked for from wherever a member works by then (generation.cpp).
//
// The promise begins with the head of F3: see begin_reliable, of which F1 to F3 are a copy. Founder
// and joiners that die before J2 leave a group without members, which the next one who holds the
// lock ends. An empty group is over, and holds nothing back from E2 on.
#include "group.hpp"

#include <cstring>

#include "steps.hpp"

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kSeqCst = std::memory_order_seq_cst;

// Each lost round means that another member got a frame.
constexpr int kRounds = 64;

std::uint64_t bit_of(std::uint32_t group) { return std::uint64_t{1} << group; }

bool has_name(const GroupRow& row, const char* name, std::uint32_t name_bytes) {
    std::uint64_t words[FG_GROUP_NAME_BYTES_MAX / 8];
    for (std::uint32_t i = 0; i < FG_GROUP_NAME_BYTES_MAX / 8; ++i) {
        words[i] = row.name[i].load(kRelaxed);  // relaxed: names change under the lock
    }
    return row.name_bytes.load(kRelaxed) == name_bytes && std::memcmp(words, name, name_bytes) == 0;
}

void set_name(GroupRow& row, const char* name, std::uint32_t name_bytes) {
    std::uint64_t words[FG_GROUP_NAME_BYTES_MAX / 8] = {};
    std::memcpy(words, name, name_bytes);
    for (std::uint32_t i = 0; i < FG_GROUP_NAME_BYTES_MAX / 8; ++i) {
        row.name[i].store(words[i], kRelaxed);  // relaxed: F2 releases it
    }
    row.name_bytes.store(name_bytes, kRelaxed);
}

bool in_use(const SegmentView& view, std::uint32_t group) {
    return (view.shared->groups.load(kAcquire) & bit_of(group)) != 0;  // acquire: name, marks
}

// A frame with bytes that the caller's holder bit protects. TRY: its publisher must see that bit
// and put the frame back.
bool is_frame(const SegmentView& view, std::uint32_t slot, std::uint64_t word) {
    const std::uint64_t sequence = word_sequence(word);
    switch (word_state(word)) {
        case SlotState::kPub:
            return true;
        case SlotState::kTry:
            return sequence != 0;
        case SlotState::kCommit: {
            std::uint32_t named = 0;
            return find_frame(view, sequence, &named) && named == slot;
        }
        default:
            return false;
    }
}

void undo(const SegmentView& view, const Self& self, GroupTake* take, HeldFunction held,
          void* context) {
    if (!held(context, take->slot)) {
        // seq_cst: the bit may have turned a loan away; pairs with space sleepers.
        view.slots[take->slot].holders[self.word].fetch_and(~self.bit, kSeqCst);
        take->space = true;
    }
}

// P1 to P4 on one slot.
TakeResult pick(const SegmentView& view, const Self& self, std::uint32_t group, GroupTake* take,
                HeldFunction held, void* context) {
    SlotRecord& slot = view.slots[take->slot];
    // P1. seq_cst: the claim/take pair of slots.cpp (1).
    slot.holders[self.word].fetch_or(self.bit, kSeqCst);
    FG_STEP(kGroupPickAnnounced);
    // P2. seq_cst: second half of the pair.
    if (!settled_word(slot)) {
        undo(view, self, take, held, context);
        return TakeResult::kBusy;  // the mark stays, for the next look
    }
    // P3. seq_cst: after P2 and before the cursor load, for everybody.
    const bool mine = (slot.marks.fetch_and(~bit_of(group), kSeqCst) & bit_of(group)) != 0;
    FG_STEP(kGroupPicked);
    if (mine) {
        // P4. seq_cst: acquires bytes and header from the COMMIT (or PUB) CAS.
        const std::uint64_t word = slot.word.load(kSeqCst);
        if (is_frame(view, take->slot, word) &&
            word_sequence(word) <= load_group_cursor(view, group)) {
            take->sequence = word_sequence(word);
            take->redelivered = true;
            return TakeResult::kOk;
        }
    }
    undo(view, self, take, held, context);
    return TakeResult::kGone;
}

// The oldest marked slot, by a glance. False: none.
bool find_unfinished(const SegmentView& view, std::uint32_t group, std::uint32_t* slot) {
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        // acquire: pairs with the marking RMW; whether the mark still counts is decided by P3.
        if ((view.slots[i].marks.load(kAcquire) & bit_of(group)) == 0) {
            continue;
        }
        const std::uint64_t sequence = word_sequence(view.slots[i].word.load(kRelaxed));
        if (sequence < oldest) {
            oldest = sequence;
            *slot = i;
        }
    }
    return oldest != ~std::uint64_t{0};
}

}  // namespace

std::uint32_t group_of(const SegmentView& view, std::uint32_t participant) {
    // acquire: pairs with the store in join_group.
    const std::uint64_t number = view.participants[participant].group.load(kAcquire);
    return number != 0 && number <= kGroups ? static_cast<std::uint32_t>(number - 1) : kNoGroup;
}

bool has_members(const SegmentView& view, std::uint32_t group) {
    std::uint64_t all = 0;
    for (std::uint32_t i = 0; i < view.participant_words; ++i) {
        all |= view.groups[group].members[i].load(kAcquire);  // acquire: marks set before V1
    }
    return all != 0;
}

std::uint64_t load_group_cursor(const SegmentView& view, std::uint32_t group) {
    // seq_cst: sleepers look at it after their bit; and the acquire that makes the holder bit set
    // before T3 visible to a publisher's holder check.
    return view.groups[group].cursor.load(kSeqCst);
}

std::uint64_t load_redeliveries(const SegmentView& view, std::uint32_t group) {
    // seq_cst: sleepers look at it after their bit, against the bump and kick of announcers; the
    // acquire that makes the marks before the bump visible.
    return view.groups[group].redeliveries.load(kSeqCst);
}

void announce_redelivery(const SegmentView& view, std::uint32_t group) {
    view.groups[group].redeliveries.fetch_add(1, kSeqCst);  // R3, as above
}

void drop_marks(const SegmentView& view, std::uint32_t group) {
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        // seq_cst: may make a slot claimable; the kick that follows reads the sleepers' bits.
        view.slots[i].marks.fetch_and(~bit_of(group), kSeqCst);
    }
}

std::uint64_t oldest_group_cursor(const SegmentView& view, std::uint64_t groups) {
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        if ((groups & bit_of(i)) != 0) {
            const std::uint64_t cursor = load_group_cursor(view, i);
            oldest = cursor < oldest ? cursor : oldest;
        }
    }
    return oldest;
}

bool any_mark_of(const SegmentView& view, std::uint64_t groups) {
    std::uint64_t all = 0;
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        all |= view.slots[i].marks.load(kSeqCst);  // seq_cst: after the rows, generation.cpp
    }
    return (all & groups) != 0;
}

bool any_group(const SegmentView& view) {
    return view.shared->groups.load(kAcquire) != 0;  // acquire: under the lock nobody founds one
}

std::uint32_t join_group(const SegmentView& view, const Self& self, const char* name,
                         std::uint32_t name_bytes, bool newest) {
    std::uint32_t found = kNoGroup;
    std::uint32_t free_row = kNoGroup;
    for (std::uint32_t i = 0; i < kGroups; ++i) {
        if (is_over(view, i)) {
            end_group(view, i);
        }
        if (!in_use(view, i)) {
            free_row = free_row == kNoGroup ? i : free_row;
        } else if (has_name(view.groups[i], name, name_bytes)) {
            found = i;
        }
    }
    const std::uint32_t group = found != kNoGroup ? found : free_row;
    if (group == kNoGroup) {
        return kNoGroup;
    }
    GroupRow& row = view.groups[group];
    if (found == kNoGroup) {
        drop_marks(view, group);  // of members that were taken for dead, if ever
        set_name(row, name, name_bytes);
        row.cursor.store(promise_start(load_head(view), newest), kSeqCst);  // F1
        FG_STEP(kGroupNamed);
        // F2. seq_cst: publishers read it after head.
        view.shared->groups.fetch_or(bit_of(group), kSeqCst);
        FG_STEP(kGroupBound);
        row.cursor.store(promise_start(help_head(view), newest), kSeqCst);  // F3
    }
    // J1. release: whoever reaps us must find the group.
    view.participants[self.index].group.store(group + 1, std::memory_order_release);
    FG_STEP(kGroupJoining);
    // J2. seq_cst (release of what came before needed): pairs with has_members().
    row.members[self.word].fetch_or(self.bit, kSeqCst);
    FG_STEP(kGroupJoined);
    return group;
}

void leave_group(const SegmentView& view, std::uint32_t participant) {
    const std::uint32_t group = group_of(view, participant);
    if (group == kNoGroup) {
        return;
    }
    const Self self = self_of(participant, 0);
    // V1. seq_cst (release of what came before needed): pairs with has_members().
    view.groups[group].members[self.word].fetch_and(~self.bit, kSeqCst);
    FG_STEP(kGroupLeft);
}

bool is_over(const SegmentView& view, std::uint32_t group) {
    return in_use(view, group) && !has_members(view, group);
}

void end_group(const SegmentView& view, std::uint32_t group) {
    drop_marks(view, group);  // E1
    FG_STEP(kGroupEnded);
    // E2. seq_cst: unblocks loans; the kick that follows reads the sleepers' bits.
    view.shared->groups.fetch_and(~bit_of(group), kSeqCst);
}

GroupTake take_shared(const SegmentView& view, const Self& self, std::uint32_t group,
                      HeldFunction held, void* context) {
    Word& cursor = view.groups[group].cursor;
    GroupTake take;
    for (int round = 0; round < kRounds; ++round) {
        std::uint64_t passed = load_group_cursor(view, group);
        const std::uint64_t head = load_head(view);
        if (head <= passed) {
            break;
        }
        const std::uint64_t next = passed + 1;
        // T1, T2
        const TakeAttempt attempt = framegate::impl::take(view, self, next, held, context);
        take.slot = attempt.slot;
        take.space = take.space || attempt.space;
        if (attempt.result == TakeResult::kBusy) {
            take.result = TakeResult::kBusy;
            break;
        }
        if (attempt.result == TakeResult::kGone) {
            // Either another member got it and it is over by now: then the cursor has moved. Or it
            // was never kept for us, which only a process that does not keep to the rules causes.
            const std::uint64_t ring_length = std::uint64_t{view.ring_mask} + 1;
            const std::uint64_t skip = head - passed > ring_length ? head - ring_length : next;
            // seq_cst: as T3; it may unblock loans.
            if (cursor.compare_exchange_strong(passed, skip, kSeqCst, kSeqCst)) {
                take.lost += skip - (next - 1);
                take.space = true;
            }
            continue;
        }
        // T3. seq_cst: the holder bit comes before it for publishers that obey the cursor.
        if (cursor.compare_exchange_strong(passed, next, kSeqCst, kSeqCst)) {
            FG_STEP(kGroupTaken);
            take.result = TakeResult::kOk;
            take.sequence = next;
            break;
        }
        undo(view, self, &take, held, context);  // T4
    }
    return take;
}

GroupTake take_unfinished(const SegmentView& view, const Self& self, std::uint32_t group,
                          HeldFunction held, void* context) {
    GroupTake take;
    for (int round = 0; find_unfinished(view, group, &take.slot); ++round) {
        // Always beaten by others: there may be more, look again soon.
        take.result =
            round < kRounds ? pick(view, self, group, &take, held, context) : TakeResult::kBusy;
        if (take.result != TakeResult::kGone) {
            break;
        }
    }
    return take;
}

bool any_unfinished(const SegmentView& view, std::uint32_t group) {
    std::uint32_t slot = 0;
    return find_unfinished(view, group, &slot);
}

void mark_unfinished(const SegmentView& view, std::uint32_t slot, std::uint32_t group) {
    view.slots[slot].marks.fetch_or(bit_of(group), kSeqCst);  // R1, before R2 for publishers
    FG_STEP(kGroupMarked);
}

void mark_unfinished_of(const SegmentView& view, std::uint32_t index, std::uint32_t group,
                        const Self& dead) {
    const SlotRecord& slot = view.slots[index];
    if ((slot.holders[dead.word].load(kAcquire) & dead.bit) == 0) {  // acquire: its owner is dead
        return;
    }
    const std::uint64_t word = slot.word.load(kSeqCst);
    const SlotState state = word_state(word);
    // In FREE and CLAIM there is no frame, so the bit is a stray one of a take that failed. In the
    // other states it may be one, too: then the frame comes twice, or P4 drops the mark.
    if (state != SlotState::kFree && state != SlotState::kClaim &&
        word_sequence(word) <= load_group_cursor(view, group) && !FG_MUTATED(kMutateNoRedelivery)) {
        mark_unfinished(view, index, group);
    }
}

}  // namespace framegate::impl
