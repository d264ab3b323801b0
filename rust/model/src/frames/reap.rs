//! Death, new processes in old rows, and the reaper.

use std::fmt::Write;

use super::{
    At, Entry, Frames, Lock, Mutant, PROCESSES, Process, Reaper, ReaperAt, SlotState, State, Word,
};
use crate::explore::Steps;

impl Frames {
    pub(super) fn death(state: &State, i: usize, steps: &mut Steps<State>) {
        let at = state.processes[i].at;
        if state.deaths == 0 || matches!(at, At::Dead | At::Done | At::Moved | At::AttachLock) {
            return;
        }
        let mut next = *state;
        next.deaths -= 1;
        next.processes[i] = Process::default();
        next.locks[i] = Lock::Free;
        steps.to(next, || format!("{i} KILLED before {at:?}"));
    }

    pub(super) fn restart(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        if state.restarts == 0 || state.in_use >> i & 1 == 1 || state.locks[i] != Lock::Free {
            return;
        }
        let mut next = *state;
        next.restarts -= 1;
        next.locks[i] = Lock::Owner;
        let first = if self.policy(i).is_some() {
            At::AttachReadHead
        } else {
            At::PublisherBegin
        };
        next.processes[i] = Process::publisher(first, 0);
        steps.to(next, || format!("{i}: a new process locks the byte"));
    }

    pub(super) fn reap(&self, state: &State, j: usize, steps: &mut Steps<State>) {
        let reaper = state.reapers[j];
        let row = reaper.row as usize;
        let bit = 1u8 << row;
        let shared = self.without(Mutant::SharedDescription);
        let holds = |lock: Lock| {
            lock == Lock::Reaper(j as u8) || (shared && matches!(lock, Lock::Reaper(_)))
        };
        if reaper.at == ReaperAt::Idle {
            for row in 0..PROCESSES {
                // A living process holds its lock, so a free byte of a row in use is a death.
                if state.in_use >> row & 1 == 1
                    && (state.locks[row] == Lock::Free || holds(state.locks[row]))
                {
                    let mut next = *state;
                    next.locks[row] = Lock::Reaper(j as u8);
                    next.reapers[j].row = row as u8;
                    next.reapers[j].at = ReaperAt::Marks;
                    steps.to(next, || format!("reaper {j} locks the byte of {row}"));
                }
            }
            return;
        }
        if state.reaper_deaths > 0 {
            let mut next = *state;
            next.reaper_deaths -= 1;
            next.reapers[j] = Reaper::default();
            if holds(state.locks[row]) {
                next.locks[row] = Lock::Free;
            }
            steps.to(next, || format!("reaper {j} KILLED before {:?}", reaper.at));
        }
        let mut next = *state;
        let slot = reaper.slot as usize;
        let mut label = format!("reaper {j}: {:?} of {row}", reaper.at);
        match reaper.at {
            ReaperAt::Idle => {}
            ReaperAt::Marks => {
                next.waiters &= !bit;
                next.space_waiters &= !bit;
                next.reliable &= !bit;
                if self.without(Mutant::RowFreedFirst) {
                    next.in_use &= !bit;
                }
                next.reapers[j].at = ReaperAt::Word;
            }
            ReaperAt::Word => {
                let word = state.slots[slot].word;
                let owned = matches!(
                    word.state,
                    SlotState::Try | SlotState::Claim | SlotState::Commit
                );
                if owned && word.owner as usize == row {
                    next.reapers[j].word = word;
                    next.reapers[j].at = ReaperAt::Repair;
                } else {
                    next.reapers[j].at = ReaperAt::Bit;
                }
            }
            ReaperAt::Repair => {
                let word = reaper.word;
                let is_frame = match word.state {
                    SlotState::Try => word.sequence != 0,
                    SlotState::Claim => {
                        word.sequence != 0 && self.without(Mutant::ScrubRestoresClaim)
                    }
                    _ => {
                        let named = Entry {
                            sequence: word.sequence,
                            slot: reaper.slot,
                        };
                        self.entry(state, word.sequence) == named
                            && !self.without(Mutant::ScrubIgnoresRing)
                    }
                };
                let repaired = if is_frame {
                    SlotState::Pub
                } else {
                    SlotState::Free
                };
                if state.slots[slot].word == word {
                    next.slots[slot].word = Word {
                        sequence: word.sequence,
                        owner: 0,
                        state: repaired,
                    };
                    next.reapers[j].at = ReaperAt::Bit;
                } else {
                    next.reapers[j].at = ReaperAt::Word;
                }
                next.reapers[j].word = Word::default();
                let _ = write!(label, ": slot {slot} {:?} becomes {repaired:?}", word.state);
            }
            ReaperAt::Bit => {
                next.slots[slot].holders &= !bit;
                next.reapers[j].slot += 1;
                next.reapers[j].at = ReaperAt::Word;
                if slot + 1 == self.slots {
                    next.reapers[j].slot = 0;
                    next.reapers[j].at = if self.helps_in_scrub() {
                        ReaperAt::HelpRead
                    } else {
                        ReaperAt::Kick
                    };
                }
            }
            ReaperAt::HelpRead => {
                next.reapers[j].at = ReaperAt::Kick;
                if self.head_is_behind(state, state.head) {
                    next.reapers[j].head = state.head;
                    next.reapers[j].at = ReaperAt::Help;
                }
            }
            ReaperAt::Help => {
                if state.head == reaper.head {
                    next.head += 1;
                }
                next.reapers[j].head = 0;
                next.reapers[j].at = ReaperAt::Kick;
            }
            ReaperAt::Kick => {
                let late = self.without(Mutant::KickAfterRowFreed) && state.in_use & bit != 0;
                if !late && !self.without(Mutant::NoKick) {
                    next.bump_and_wake_subscribers();
                    next.bump_and_wake_space();
                }
                next.reapers[j].at =
                    if state.in_use & bit == 0 && self.without(Mutant::KickAfterRowFreed) {
                        ReaperAt::Unlock
                    } else {
                        ReaperAt::FreeRow
                    };
            }
            ReaperAt::FreeRow => {
                next.in_use &= !bit;
                let kick_again = self.without(Mutant::KickAfterRowFreed);
                next.reapers[j].at = if kick_again {
                    ReaperAt::Kick
                } else {
                    ReaperAt::Unlock
                };
            }
            ReaperAt::Unlock => {
                next.reapers[j] = Reaper::default();
                if holds(state.locks[row]) {
                    next.locks[row] = Lock::Free;
                }
            }
        }
        steps.to(next, || label);
    }
}
