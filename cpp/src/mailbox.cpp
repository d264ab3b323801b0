// Mailboxes. docs/design/mailboxes.md is the theory with its table of deaths; in short:
//
//     cell  FREE -> WRITING(ticket, poster) -> READY(ticket, poster) -> FREE
//     slot  CLAIM(poster) -> HANDED(ticket, addressee) -> FREE
//
// 1. A ticket is used once in the life of a mailbox. It stands in the cell and in the slot that the
//    letter hands over, so that a reaper finds the one by the other and believes nothing that a
//    dead poster half wrote.
// 2. HANDED is one CAS: before it the slot is the poster's, after it the addressee's, and the scrub
//    of either finds it in the word.
// 3. Whoever moves a letter (owner: READY to FREE; poster or its reaper: READY to WRITING) does it
//    by a CAS from the exact word, and only the one that succeeds touches the slot.
// 4. Closing stores epoch 0 and then looks at the cells; posting makes the cell READY and then
//    looks at the epoch; all seq_cst, so one of them sees the other and no letter stays behind.
// 5. The owner scans all cells and takes the lowest ticket: a poster that does not run holds up one
//    cell and nobody else.
//
// Bytes in a segment are written by other processes: every index is checked, every loop has a
// bound.
#include "mailbox.hpp"

#include <cstring>

#include "steps.hpp"

namespace framegate::impl {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kSeqCst = std::memory_order_seq_cst;

constexpr std::uint64_t cell_word(std::uint64_t ticket, std::uint32_t poster, CellState state) {
    return ticket << (kOwnerBits + kStateBits) | std::uint64_t{poster} << kStateBits |
           static_cast<std::uint64_t>(state);
}
constexpr CellState cell_state(std::uint64_t word) {
    return static_cast<CellState>(word & ((1U << kStateBits) - 1));
}

MailCell* cells_of(const SegmentView& view, std::uint32_t index) {
    return reinterpret_cast<MailCell*>(view.mailboxes + index * view.mailbox_stride +
                                       sizeof(MailboxHeader));
}

void write_letter(MailCell& cell, const Letter& letter, const MailAddress& to) {
    // relaxed: the READY CAS releases them.
    cell.kind_type.store(static_cast<std::uint64_t>(letter.kind) | std::uint64_t{letter.type} << 32,
                         kRelaxed);
    cell.correlation.store(letter.correlation, kRelaxed);
    cell.from_epoch.store(letter.from.epoch, kRelaxed);
    cell.to_epoch.store(to.epoch, kRelaxed);
    cell.from_slot.store(letter.from.participant | std::uint64_t{letter.slot} << 32, kRelaxed);
    cell.bytes_generation.store(letter.bytes | std::uint64_t{letter.generation} << 32, kRelaxed);
    for (std::uint32_t at = 0; at < letter.bytes; at += 8) {
        std::uint64_t eight = 0;
        std::memcpy(&eight, letter.data + at, 8);  // data is a multiple of eight, zero at its end
        cell.data[at / 8].store(eight, kRelaxed);
    }
}

// Returns the epoch that is meant.
std::uint64_t read_letter(const MailCell& cell, std::uint64_t word, Letter* letter) {
    // relaxed: the load of the word acquired them. Each is loaded once, then bounded.
    const std::uint64_t kind_type = cell.kind_type.load(kRelaxed);
    const std::uint64_t from_slot = cell.from_slot.load(kRelaxed);
    const std::uint64_t bytes_generation = cell.bytes_generation.load(kRelaxed);
    const std::uint64_t bytes = bytes_generation & 0xffffffff;
    letter->generation = static_cast<std::uint32_t>(bytes_generation >> 32);
    letter->kind = static_cast<LetterKind>(kind_type & 0xffffffff);
    letter->type = static_cast<std::uint32_t>(kind_type >> 32);
    letter->correlation = cell.correlation.load(kRelaxed);
    letter->from.participant = static_cast<std::uint32_t>(from_slot & 0xffffffff);
    letter->from.epoch = cell.from_epoch.load(kRelaxed);
    letter->slot = static_cast<std::uint32_t>(from_slot >> 32);
    letter->bytes = static_cast<std::uint32_t>(
        bytes < std::uint64_t{FG_LETTER_BYTES_MAX} ? bytes : std::uint64_t{FG_LETTER_BYTES_MAX});
    letter->ticket = word_sequence(word);
    for (std::uint32_t at = 0; at < letter->bytes; at += 8) {
        const std::uint64_t eight = cell.data[at / 8].load(kRelaxed);
        std::memcpy(letter->data + at, &eight, 8);
    }
    return cell.to_epoch.load(kRelaxed);
}

// The slot that the letter `ticket` in the mailbox `index` handed over, whichever it is.
void free_handed(const SegmentView& view, std::uint64_t ticket, std::uint32_t index) {
    for (std::uint32_t i = 0; i < view.slot_count; ++i) {
        std::uint64_t word = view.slots[i].word.load(kAcquire);  // acquire: the poster's CAS
        if (word_state(word) == SlotState::kHanded && word_sequence(word) == ticket &&
            owner_participant(word_owner(word)) == index) {
            release_handed(view, i, word);
            return;  // a ticket hands over one slot
        }
    }
}

// The READY cell with the lowest ticket, and its word. (5)
//
// One look at each cell is not enough: two letters of one poster may become READY while we look, the
// first in a cell that we have passed, the second in one that is ahead. So every other cell is looked
// at once more after the one that is chosen was seen READY, round and round; a lower ticket found
// meanwhile is the new choice. What became READY before the choice is seen then (seq_cst).
MailCell* find_oldest(const SegmentView& view, std::uint32_t index, std::uint64_t* oldest_word) {
    const std::uint32_t count = view.mailbox_cells;
    MailCell* const cells = cells_of(view, index);
    MailCell* const end = cells + count;
    // relaxed: a hint. Usually the newest letter is the only one, then each cell is looked at once.
    MailCell* cell = cells + mailbox_header(view, index).tickets.load(kRelaxed) % count;
    MailCell* oldest = nullptr;
    // A choice gets lower each time; a bound for hostile peers who lower it for ever.
    std::uint32_t looks = 4 * count;
    for (std::uint32_t others = count; others != 0 && looks != 0; --looks) {
        // seq_cst: pairs with the READY CAS, also against sleepers and `armed`; acquires the letter.
        const std::uint64_t word = cell->word.load(kSeqCst);
        FG_STEP(kMailLooked);
        --others;
        if (word != 0 && cell_state(word) == CellState::kReady &&  // most are empty
            (oldest == nullptr || word_sequence(word) < word_sequence(*oldest_word))) {
            oldest = cell;
            *oldest_word = word;
            others = FG_MUTATED(kMutateNoSecondRound) ? others : count - 1;
        }
        cell = cell + 1 == end ? cells : cell + 1;
    }
    return oldest;
}

}  // namespace

bool has_mailbox(const SegmentView& view, std::uint32_t index) {
    // acquire: pairs with open_mailbox(); the pages are there once the bit is.
    return index < view.participants_max && view.mailbox_cells != 0 &&
           (view.shared->mailboxes[index / 64].load(kAcquire) >> (index % 64) & 1) != 0;
}

std::uint64_t open_epoch(const SegmentView& view, std::uint32_t index) {
    // seq_cst: (4).
    return has_mailbox(view, index) ? mailbox_header(view, index).epoch.load(kSeqCst) : 0;
}

std::uint32_t letters_in(const SegmentView& view, std::uint32_t index) {
    const MailCell* cells = cells_of(view, index);
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < view.mailbox_cells; ++i) {
        count += cells[i].word.load(kRelaxed) != 0 ? 1 : 0;  // relaxed: a guess for balancing
    }
    return count;
}

void open_mailbox(const SegmentView& view, const Self& self, std::uint64_t epoch) {
    view.shared->mailboxes[self.word].fetch_or(self.bit, kSeqCst);  // release needed: has_mailbox()
    MailCell* cells = cells_of(view, self.index);
    for (std::uint32_t i = 0; i < view.mailbox_cells; ++i) {
        // What was posted to a former owner while that one was closing, by a poster that died then.
        std::uint64_t word = cells[i].word.load(kAcquire);
        if (cell_state(word) == CellState::kReady &&
            cells[i].word.compare_exchange_strong(word, 0, kSeqCst, kRelaxed)) {
            free_handed(view, word_sequence(word), self.index);
        }
    }
    MailboxHeader& header = mailbox_header(view, self.index);
    header.sleepers.store(0, kRelaxed);  // relaxed: nobody looks before the epoch is stored
    header.armed.store(0, kRelaxed);
    header.accepts.store(0, kRelaxed);
    header.epoch.store(epoch, kSeqCst);  // release needed
    FG_STEP(kMailOpened);
}

bool take_letter(const SegmentView& view, const Self& self, std::uint64_t epoch, Letter* out,
                 bool* space) {
    // Each turn takes a letter out; a bound for hostile peers who put one in as fast.
    for (std::uint32_t turn = 0; turn < 4 * view.mailbox_cells; ++turn) {
        std::uint64_t oldest_word = 0;
        MailCell* oldest = find_oldest(view, self.index, &oldest_word);
        if (oldest == nullptr) {
            return false;
        }
        const std::uint64_t to_epoch = read_letter(*oldest, oldest_word, out);
        // acq_rel: our reads of the cell come before its next poster's writes; failure: the poster
        // took it back.
        std::uint64_t expected = oldest_word;
        if (!oldest->word.compare_exchange_strong(expected, 0, std::memory_order_acq_rel,
                                                  kRelaxed)) {
            continue;
        }
        FG_STEP(kMailPicked);
        if (to_epoch != epoch) {  // for a former owner of this row
            free_handed(view, out->ticket, self.index);
            *space = true;
            continue;
        }
        return true;
    }
    return false;
}

bool has_letter(const SegmentView& view, const Self& self) {
    const MailCell* cells = cells_of(view, self.index);
    for (std::uint32_t i = 0; i < view.mailbox_cells; ++i) {
        if (cell_state(cells[i].word.load(kSeqCst)) == CellState::kReady) {  // as in take_letter()
            return true;
        }
    }
    return false;
}

bool release_handed(const SegmentView& view, std::uint32_t slot, std::uint64_t word) {
    std::uint64_t mine = word;
    // seq_cst: makes a slot claimable, pairs with space sleepers; release for our reads before the
    // next owner's writes.
    const bool ours = view.slots[slot].word.compare_exchange_strong(
        mine, slot_word(0, 0, SlotState::kFree), kSeqCst, kRelaxed);
    FG_STEP(kMailReleased);
    return ours;
}

Posted post_letter(const SegmentView& view, const Self& self, const MailAddress& to,
                   const Letter& letter, std::uint64_t claim_word) {
    Posted posted;
    if (to.epoch == 0 || open_epoch(view, to.participant) != to.epoch) {
        return posted;
    }
    MailboxHeader& header = mailbox_header(view, to.participant);
    MailCell* cells = cells_of(view, to.participant);
    // relaxed: only has to be another number each time.
    posted.ticket = header.tickets.fetch_add(1, kRelaxed) + 1;
    posted.result = PostResult::kFull;
    if (posted.ticket > FG_SEQUENCE_MAX) {
        return posted;
    }
    const std::uint64_t writing = cell_word(posted.ticket, self.owner, CellState::kWriting);
    MailCell* cell = nullptr;
    for (std::uint32_t i = 0; cell == nullptr && i < view.mailbox_cells; ++i) {
        posted.cell = static_cast<std::uint32_t>((posted.ticket + i) % view.mailbox_cells);
        std::uint64_t free = 0;
        // acquire: pairs with the CAS that emptied the cell, whose reads come before our writes.
        if (cells[posted.cell].word.load(kRelaxed) == 0 &&
            cells[posted.cell].word.compare_exchange_strong(free, writing, kAcquire, kRelaxed)) {
            cell = &cells[posted.cell];
        }
    }
    if (cell == nullptr) {
        return posted;
    }
    FG_STEP(kMailClaimed);
    write_letter(*cell, letter, to);
    FG_STEP(kMailWritten);
    std::uint64_t mine = writing;
    if (letter.slot != kNoSlot) {
        std::uint64_t claim = claim_word;
        // release: payload and frame header before HANDED; pairs with the acquire load of the slot
        // word in Correspondent::lease().
        if (!view.slots[letter.slot].word.compare_exchange_strong(
                claim, handed_word(posted.ticket, owner_of(to)), kRelease, kRelaxed)) {
            cell->word.compare_exchange_strong(mine, 0, kRelease, kRelaxed);
            posted.result = PostResult::kLost;
            return posted;
        }
    }
    FG_STEP(kMailHanded);
    // seq_cst (release needed): the letter is there; epoch (4), sleepers and `armed` are read
    // after it. From the exact own word: a poster that was reaped alive learns it here.
    if (!cell->word.compare_exchange_strong(
            mine, cell_word(posted.ticket, self.owner, CellState::kReady), kSeqCst, kRelaxed)) {
        posted.result = PostResult::kLost;
        return posted;
    }
    FG_STEP(kMailReady);
    posted.result = PostResult::kOk;
    // seq_cst: (4).
    if (header.epoch.load(kSeqCst) != to.epoch && !FG_MUTATED(kMutateNoOpenRecheck)) {
        const Withdrawal back = withdraw_letter(view, self, to, posted, letter.slot, claim_word);
        posted.result = back == Withdrawal::kDone || letter.slot == kNoSlot ? PostResult::kGone
                                                                            : PostResult::kLost;
    }
    return posted;
}

Withdrawal withdraw_letter(const SegmentView& view, const Self& self, const MailAddress& to,
                           const Posted& posted, std::uint32_t slot, std::uint64_t back_to) {
    MailCell& cell = cells_of(view, to.participant)[posted.cell];
    const std::uint64_t writing = cell_word(posted.ticket, self.owner, CellState::kWriting);
    std::uint64_t word = cell_word(posted.ticket, self.owner, CellState::kReady);
    // acq_rel: whoever succeeds has the letter alone (3).
    if (!cell.word.compare_exchange_strong(word, writing, std::memory_order_acq_rel, kRelaxed)) {
        return Withdrawal::kRead;
    }
    FG_STEP(kMailRetracting);
    bool ours = true;
    if (slot != kNoSlot) {
        std::uint64_t handed = handed_word(posted.ticket, owner_of(to));
        // seq_cst: may make a slot claimable; pairs with space sleepers.
        ours = view.slots[slot].word.compare_exchange_strong(handed, back_to, kSeqCst, kRelaxed);
    }
    FG_STEP(kMailRetracted);
    word = writing;
    cell.word.compare_exchange_strong(word, 0, kRelease, kRelaxed);  // release: as in take_letter()
    return ours ? Withdrawal::kDone : Withdrawal::kSlotLost;
}

void close_mailbox(const SegmentView& view, std::uint32_t index) {
    if (!has_mailbox(view, index)) {
        return;
    }
    MailboxHeader& header = mailbox_header(view, index);
    header.epoch.store(0, kSeqCst);     // (4)
    header.accepts.store(0, kRelaxed);  // relaxed: a hint for callers
    header.sleepers.store(0, kSeqCst);
    header.armed.store(0, kSeqCst);
    FG_STEP(kReapMailClosed);
    MailCell* cells = cells_of(view, index);
    for (std::uint32_t i = 0; i < view.mailbox_cells; ++i) {
        std::uint64_t word = cells[i].word.load(kSeqCst);  // seq_cst: (4)
        if (cell_state(word) == CellState::kReady) {
            // Its slot, if any, is HANDED to the dead and goes with the dead's slot words.
            cells[i].word.compare_exchange_strong(word, 0, kSeqCst, kRelaxed);
        }
    }
    FG_STEP(kReapMailCells);
}

namespace {

// Every cell that participant `index` posted to, in any mailbox: `use(cell, word, to)`.
template <typename Use>
void for_letters_of(const SegmentView& view, std::uint32_t index, Use use) {
    for (std::uint32_t to = 0; to < view.participants_max; ++to) {
        if (!has_mailbox(view, to) || FG_MUTATED(kMutateNoMailScrub)) {
            continue;
        }
        MailCell* cells = cells_of(view, to);
        for (std::uint32_t i = 0; i < view.mailbox_cells; ++i) {
            const std::uint64_t word = cells[i].word.load(kAcquire);  // acquire: the poster's CASes
            if (word != 0 && owner_participant(word_owner(word)) == index) {
                use(cells[i], word, to);
            }
        }
    }
}

}  // namespace

void withdraw_letters(const SegmentView& view, std::uint32_t index) {
    for_letters_of(view, index, [&](MailCell& cell, std::uint64_t word, std::uint32_t to) {
        if (cell_state(word) == CellState::kReady) {
            const auto kind = static_cast<LetterKind>(cell.kind_type.load(kRelaxed) & 0xffffffff);
            // A whole letter stays, unless its addressee is gone or nobody wants the answer.
            if ((cell.to_epoch.load(kRelaxed) == open_epoch(view, to) &&
                 kind != LetterKind::kRequest) ||
                !cell.word.compare_exchange_strong(
                    word, cell_word(word_sequence(word), word_owner(word), CellState::kWriting),
                    kSeqCst, kRelaxed)) {
                return;
            }
        }
        // The cell stays WRITING until its slot was looked for in every generation; a reaper that
        // dies before is followed by one that does the same.
        free_handed(view, word_sequence(word), to);
    });
}

void free_letters(const SegmentView& view, std::uint32_t index) {
    for_letters_of(view, index, [](MailCell& cell, std::uint64_t word, std::uint32_t /*to*/) {
        if (cell_state(word) == CellState::kWriting) {
            // seq_cst (release needed): pairs with the next poster's acquire CAS.
            cell.word.compare_exchange_strong(word, 0, kSeqCst, kRelaxed);
        }
    });
    FG_STEP(kReapMailLetters);
}

}  // namespace framegate::impl
