// Labels of the moments at which a participant may die, in the order of
// docs/design/crash-safety.md. In a normal build FG_STEP is nothing. The test build of the library
// (FRAMEGATE_STEPS) calls framegate_test_step at each of them, so a test can kill the process
// exactly there, and lets a test switch single rules of the algorithm off to show that the tests
// notice.
#pragma once

#include <cstdint>

namespace framegate::impl {

enum class Step : std::uint32_t {
    kLoanCandidate = 1,   // slot looked claimable and unheld, word untouched
    kLoanTry,             // slot word is TRY
    kLoanChecked,         // no holders seen, not yet CLAIM
    kLoanClaimed,         // slot word is CLAIM
    kPublishCommitted,    // slot word is COMMIT, ring not written
    kPublishRing,         // ring written, head not moved
    kPublishWord,         // word is PUB, head not moved
    kPublishDone,         // head moved, nobody woken
    kWakeBumped,          // futex word bumped, no FUTEX_WAKE
    kWakeSent,            // datagram sent, consumer still armed
    kAbandoned,           // slot free, space waiters not woken
    kTakeAnnounced,       // holder bit set, word not checked
    kTakeDone,            // lease validated, nothing recorded
    kReleased,            // holder bit cleared, space waiters not woken
    kWaiting,             // waiter bit set, about to sleep
    kSpaceWaiting,        // space waiter bit set, about to sleep
    kArmed,               // armed, head not read again
    kAttachLocked,        // byte locked, row not in use
    kAttached,            // row in use
    kDetachScrubbed,      // own row scrubbed, state not 0
    kReliableMarked,      // holds publishers back, cursor from before the mark
    kReliableAttached,    // cursor where the promise begins
    kReliableMoved,       // frame leased, cursor moved over it
    kGroupNamed,          // row of a new group filled, not in use
    kGroupBound,          // in use, holds publishers back, cursor from before
    kGroupJoining,        // group named in the own row, no member of it
    kGroupJoined,         // member
    kGroupTaken,          // group cursor moved, nothing recorded
    kGroupPickAnnounced,  // holder bit set on a marked slot, mark still there
    kGroupPicked,         // mark cleared, word not checked again
    kGroupMarked,         // mark set, holder bit still there
    kGroupReturned,       // own row says that an older generation is wanted, nothing taken there
    kGroupLeft,           // member bit cleared, group maybe empty
    kGroupEnded,          // marks of an empty group cleared, still in use
    kReapLocked,          // reaper holds the byte of the dead
    kReapMarks,           // marks cleared
    kReapSlots,           // slots scrubbed, head not helped
    kReapHelped,          // head helped, nobody kicked
    kReapKicked,          // kicked, state not 0
    kReapFreed,           // state 0, byte still locked
    kMailClaimed,         // cell WRITING, nothing in it
    kMailWritten,         // letter in the cell, slot not handed over
    kMailHanded,          // slot HANDED, cell WRITING
    kMailReady,           // cell READY, mailbox not looked at again
    kMailRung,            // bell bumped, no FUTEX_WAKE
    kMailSent,            // datagram sent, owner still armed
    kMailRetracting,      // own letter back to WRITING, slot still HANDED
    kMailRetracted,       // slot taken back, cell still WRITING
    kMailLooked,          // one cell of the own mailbox looked at
    kMailPicked,          // letter taken out, nothing recorded
    kMailReleased,        // handed slot free, space waiters not woken
    kMailOpened,          // row in use, mailbox open
    kMailWaiting,         // bell watched, about to sleep
    kMailArmed,           // armed, cells not looked at again
    kReapMailClosed,      // mailbox of the dead closed, its cells not looked at
    kReapMailCells,       // its cells free
    kReapMailLetters,     // the dead's own letters taken back
    kMetadataLocked,      // the right to append metadata is ours, nothing written
    kMetadataWritten,     // record written, nobody counts it
    kMetadataStored,      // record counted, byte still locked
    kCreateData,          // data file exists, no control file
    kCreateControl,       // control file complete under its temporary name
    kCreateLinked,        // linked, temporary name still there
    kResizeBuilt,         // files of the new generation complete, nothing leads to them
    kResizeLinked,        // the old generation names the new one, not sealed
    kResizeSealed,        // sealed, new head not written, nobody woken
    kRetireLinked,        // the chain skips the retired generations, their files are still there
    kCollectLocked,       // a stale topic found and locked, still named
    kCollectUnlinked,     // its control file has no name any more, its data has
    kCount,
};

constexpr bool is_of_mail(Step step) {
    return step >= Step::kMailClaimed && step <= Step::kReapMailLetters;
}

enum Mutation : std::uint32_t {
    kMutateNoHoldersRecheck = 1,      // a loan does not look at the holders again after TRY
    kMutateNoHelp = 2,                // neither a loan nor a scrub helps a stalled head
    kMutateNoRedelivery = 4,          // a scrub of a group member marks nothing
    kMutateNoReliableBound = 8,       // a loan obeys no cursor
    kMutateNoReturn = 16,             // members never look into generations that they have left
    kMutateNoMailScrub = 1U << 18,    // a scrub leaves half-written letters alone
    kMutateNoOpenRecheck = 1U << 19,  // a post does not look at the mailbox again
    kMutateNoSecondRound = 1U << 20,  // an owner looks at each cell once
    kMutateNoRecheck = 1U
        << 16,  // sleepers never look by themselves, nor spin: a lost wake stays lost
    kMutateNoSecondLook = 1U << 17,  // sleepers do not look again after saying that they sleep
};

}  // namespace framegate::impl

#ifdef FRAMEGATE_STEPS
extern "C" {
extern void (*framegate_test_step)(std::uint32_t step);
extern std::uint32_t framegate_test_mutations;
}
#define FG_STEP(name)                                                                       \
    do {                                                                                    \
        if (framegate_test_step != nullptr) {                                               \
            framegate_test_step(static_cast<std::uint32_t>(::framegate::impl::Step::name)); \
        }                                                                                   \
    } while (false)
#define FG_MUTATED(mutation) ((framegate_test_mutations & ::framegate::impl::mutation) != 0)
#else
#define FG_STEP(name) static_cast<void>(0)
#define FG_MUTATED(mutation) false
#endif
