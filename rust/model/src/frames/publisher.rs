//! Loan and publish.

use super::{At, Entry, Frames, JUNK, Mutant, Process, SlotState, State, Word, published, word};
use crate::explore::Steps;

impl Frames {
    pub(super) fn loan(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let me = &mut next.processes[i];
        let slot = process.slot as usize;
        match at {
            At::PublisherBegin => {
                next.in_use |= 1 << i;
                next.processes[i] = Process::publisher(At::LoanReadHead, 1);
            }
            At::LoanReadHead => {
                if process.count == 0 {
                    *me = Process::publisher(At::Done, 0);
                } else {
                    me.head = state.head;
                    me.at = if self.without(Mutant::BoundBeforeHead) {
                        // The bound first means: head is read after it.
                        me.bound = Self::bound(state);
                        At::LoanReadBoundEarly
                    } else {
                        At::LoanReadRing
                    };
                }
            }
            At::LoanReadBoundEarly => {
                me.head = state.head;
                me.at = At::LoanScan;
            }
            At::LoanReadRing => {
                let behind = self.helps_in_loan() && self.head_is_behind(state, process.head);
                me.at = if behind {
                    At::LoanHelp
                } else {
                    At::LoanReadSeal
                };
            }
            At::LoanHelp => {
                if state.head == process.head {
                    next.head += 1;
                }
                next.processes[i].head = next.head;
                next.processes[i].at = At::LoanReadSeal;
            }
            At::LoanReadSeal => {
                if self.is_sealed_at(state, process.head + 1) {
                    *me = Process::publisher(At::Moved, 0);
                } else {
                    me.at = At::LoanReadBound;
                }
            }
            At::LoanReadBound => {
                me.bound = Self::bound(state);
                me.at = At::LoanScan;
            }
            At::LoanScan => {
                self.scan(state, i, steps);
                return;
            }
            At::LoanTry => {
                if state.slots[slot].word == process.word {
                    let sequence = self.sequence_of_try(process.word);
                    next.slots[slot].word = word(sequence, i, SlotState::Try);
                    me.at = if self.without(Mutant::NoHoldersRecheck) {
                        At::LoanClaim
                    } else {
                        At::LoanReadHolders
                    };
                } else {
                    me.at = At::LoanScan;
                    me.slot = 0;
                    me.word = Word::default();
                }
            }
            At::LoanReadHolders => {
                let held = state.slots[slot].holders != 0;
                me.at = if held && !self.without(Mutant::NoPutBack) {
                    At::LoanPutBack
                } else {
                    At::LoanClaim
                };
            }
            At::LoanPutBack => {
                self.put_back(state, i, steps);
                return;
            }
            At::LoanClaim => {
                let mine = word(self.sequence_of_try(process.word), i, SlotState::Try);
                let violation = (state.slots[slot].word != mine)
                    .then_some("CLOBBER: CLAIM over a foreign word");
                next.slots[slot].word = word(mine.sequence, i, SlotState::Claim);
                next.processes[i] = Process {
                    slot: process.slot,
                    ..Process::publisher(At::Write, process.count)
                };
                steps.check(next, violation, || format!("{i} claims slot {slot}"));
                return;
            }
            At::Refused => {
                if !self.loan_would_end(state) {
                    return;
                }
                me.at = At::LoanReadHead;
            }
            At::SpaceMark => {
                next.space_waiters |= 1 << i;
                me.at = At::SpaceReadFutex;
            }
            At::SpaceReadFutex => {
                me.at = if self.without(Mutant::LoanDoesNotLookAgain) {
                    At::SpaceSleep
                } else {
                    At::SpaceScan
                };
            }
            At::SpaceScan => {
                // A whole attempt to loan; its single steps are those of the attempt that follows if this one says yes.
                let ends = self.loan_would_end(state);
                me.at = if ends {
                    At::SpaceUnmark
                } else {
                    At::SpaceSleep
                };
                if ends {
                    me.is_stale = false;
                }
            }
            At::SpaceSleep => {
                me.at = if process.is_stale {
                    At::SpaceReadFutex
                } else {
                    At::SpaceAsleep
                };
                me.is_stale = false;
            }
            At::SpaceUnmark => {
                next.space_waiters &= !(1 << i);
                next.processes[i] = Process::publisher(At::LoanReadHead, process.count);
            }
            // SpaceAsleep: only a wake moves it.
            _ => return,
        }
        steps.to(next, || format!("{i} {at:?}{}", detail(&process)));
    }

    fn sequence_of_try(&self, before: Word) -> u8 {
        if before.state == SlotState::Pub || self.without(Mutant::TryOfFreeKeepsSequence) {
            before.sequence
        } else {
            0
        }
    }

    // Any claimable slot may be the next that the scan meets.
    fn scan(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let process = state.processes[i];
        let mut found = false;
        for slot in 0..self.slots {
            let candidate = state.slots[slot];
            if Self::is_claimable(candidate.word, process.head, process.bound)
                && candidate.holders == 0
            {
                found = true;
                let mut next = *state;
                next.processes[i].at = At::LoanTry;
                next.processes[i].slot = slot as u8;
                next.processes[i].word = candidate.word;
                steps.to(next, || format!("{i} picks slot {slot}"));
            }
        }
        if !found {
            let mut next = *state;
            let at = if self.space {
                At::SpaceMark
            } else {
                At::Refused
            };
            next.processes[i] = Process::publisher(at, process.count);
            steps.to(next, || format!("{i} finds no slot"));
        }
    }

    fn put_back(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let process = state.processes[i];
        let slot = process.slot as usize;
        let mine = word(self.sequence_of_try(process.word), i, SlotState::Try);
        let mut next = *state;
        let violation = (state.slots[slot].word != mine)
            .then_some("CLOBBER: a TRY was taken away from its owner");
        next.slots[slot].word = process.word;
        let wakes = self.wakes_space(Mutant::NoSpaceWakeOnPutBack);
        if self.give_up {
            let mut gone = next;
            gone.processes[i] = Process::publisher(At::LoanReadHead, process.count - 1);
            if wakes {
                gone.processes[i].at = At::SpaceWakeRead;
                gone.processes[i].then = At::LoanReadHead;
            }
            steps.check(gone, violation, || {
                format!("{i} puts slot {slot} back and gives up")
            });
        }
        next.processes[i].slot = 0;
        next.processes[i].word = Word::default();
        next.processes[i].at = At::LoanScan;
        if wakes {
            next.processes[i].at = At::SpaceWakeRead;
            next.processes[i].then = At::LoanScan;
        }
        steps.check(next, violation, || format!("{i} puts slot {slot} back"));
    }

    // After something that may have made a slot claimable: read the bits, then bump and wake.
    pub(super) fn wake_space(state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let then = state.processes[i].then;
        if at == At::SpaceWakeRead && state.space_waiters != 0 {
            next.processes[i].at = At::SpaceWakeNow;
        } else {
            next.processes[i].at = then;
            next.processes[i].then = At::default();
            if at == At::SpaceWakeNow {
                next.bump_and_wake_space();
            }
        }
        steps.to(next, || format!("{i} {at:?}"));
    }

    // The end of a publish or an abandon.
    fn after_publish(&self, process: &Process, unless: Mutant) -> Process {
        let mut after = Process::publisher(At::LoanReadHead, process.count - 1);
        if self.wakes_space(unless) {
            after.then = after.at;
            after.at = At::SpaceWakeRead;
        }
        after
    }

    pub(super) fn publish(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let slot = process.slot as usize;
        let sequence = process.head + 1;
        let entry = self.entry(state, sequence);
        let mut violation = None;
        let me = &mut next.processes[i];
        match at {
            At::Write => {
                violation = if state.is_leased(process.slot) {
                    Some("OVERWRITE of a leased frame")
                } else if state.is_loaned_to_other(i, process.slot) {
                    Some("TWO WRITERS in one slot")
                } else {
                    None
                };
                me.at = At::PublishReadHead;
                next.slots[slot].bytes = JUNK;
                if self.abandon {
                    let mut abandons = next;
                    abandons.processes[i].at = At::Abandon;
                    steps.check(abandons, violation, || {
                        format!("{i} writes slot {slot}, will abandon it")
                    });
                }
            }
            At::Abandon => {
                let mine = state.slots[slot].word;
                let is_mine = mine.state == SlotState::Claim && mine.owner as usize == i;
                violation = (!is_mine).then_some("LOST LOAN of a living publisher");
                next.slots[slot].word = word(mine.sequence, 0, SlotState::Free);
                *me = self.after_publish(&process, Mutant::NoSpaceWakeOnAbandon);
            }
            At::PublishReadHead => {
                me.head = state.head;
                me.at = At::PublishReadRing;
            }
            At::PublishReadRing => {
                if !self.without(Mutant::SealBesideRing) && self.is_sealed_at(state, sequence) {
                    next.slots[slot].word =
                        word(state.slots[slot].word.sequence, 0, SlotState::Free);
                    *me = Process::publisher(At::Moved, 0);
                } else if entry.sequence == sequence && self.helps_in_publish() {
                    me.at = At::PublishHelp;
                } else if entry.sequence >= sequence {
                    me.at = At::PublishReadHead;
                    me.head = 0;
                } else {
                    me.entry = entry;
                    me.at = At::PublishCommit;
                }
            }
            At::PublishHelp => {
                me.at = At::PublishReadHead;
                me.head = 0;
                if state.head == process.head {
                    next.head += 1;
                }
            }
            At::PublishCommit => {
                let mine = state.slots[slot].word;
                let is_mine = mine.owner as usize == i
                    && matches!(mine.state, SlotState::Claim | SlotState::Commit);
                violation = (!is_mine).then_some("LOST LOAN of a living publisher");
                next.slots[slot].word = word(sequence, i, SlotState::Commit);
                me.at = At::PublishRing;
            }
            At::PublishRing => {
                if entry == process.entry || self.without(Mutant::RingStore) {
                    let mine = word(sequence, i, SlotState::Commit);
                    violation = if state.newest + 1 != sequence {
                        Some("SEQUENCE published twice or out of order")
                    } else if state.slots[slot].word != mine {
                        Some("PUBLISHED a slot that was taken away")
                    } else {
                        None
                    };
                    me.at = At::PublishPub;
                    me.entry = Entry::default();
                    self.set_entry(&mut next, sequence, process.slot);
                    next.slots[slot].bytes = sequence;
                    next.newest = sequence;
                } else {
                    me.at = At::PublishReadHead;
                    me.head = 0;
                    me.entry = Entry::default();
                }
            }
            At::PublishPub => {
                let is_mine = state.slots[slot].word == word(sequence, i, SlotState::Commit);
                violation = (!is_mine).then_some("COMMIT was taken away from a living publisher");
                next.slots[slot].word = published(sequence);
                me.at = At::PublishHead;
            }
            At::PublishHead => {
                if state.head == process.head {
                    next.head += 1;
                }
                *me = self.after_publish(&process, Mutant::NoSpaceWakeOnPublish);
                if self.sleep {
                    *me = Process::publisher(At::WakeReadBits, process.count);
                }
            }
            At::WakeReadBits => {
                if state.waiters == 0 {
                    *me = self.after_publish(&process, Mutant::NoSpaceWakeOnPublish);
                } else {
                    me.at = At::WakeBump;
                }
            }
            At::WakeBump => {
                me.at = At::WakeFutex;
                next.bump_subscribers();
            }
            // WakeFutex
            _ => {
                *me = self.after_publish(&process, Mutant::NoSpaceWakeOnPublish);
                next.wake_subscribers();
            }
        }
        steps.check(next, violation, || {
            format!("{i} {at:?}{}", detail(&process))
        });
    }
}

fn detail(process: &Process) -> String {
    format!(
        " (slot {}, head {}, bound {})",
        process.slot, process.head, process.bound
    )
}
