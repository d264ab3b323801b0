//! Attach, take, release and sleep.

use super::{At, Frames, Lock, Mutant, Policy, Process, SlotState, State};
use crate::explore::Steps;

impl Frames {
    pub(super) fn subscribe(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        match at {
            _ if at.is_within(At::AttachLock, At::AttachCursorAgain) => {
                self.attach(state, i, at, steps);
            }
            _ if at.is_within(At::WaitMark, At::WaitUnmark) => self.wait(state, i, at, steps),
            _ => self.take(state, i, at, steps),
        }
    }

    fn attach(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let me = &mut next.processes[i];
        let mark_first = self.without(Mutant::MarkBeforeInUse);
        match at {
            At::AttachLock => {
                if state.locks[i] != Lock::Free || state.in_use >> i & 1 == 1 {
                    return;
                }
                me.at = At::AttachReadHead;
                next.locks[i] = Lock::Owner;
            }
            At::AttachReadHead => {
                me.head = state.head;
                me.at = At::AttachCursor;
            }
            At::AttachCursor => {
                next.cursors[i] = process.head;
                me.at = if mark_first {
                    At::AttachMark
                } else {
                    At::AttachInUse
                };
            }
            At::AttachInUse => {
                next.in_use |= 1 << i;
                me.at = if mark_first {
                    At::AttachReadHeadAgain
                } else {
                    At::AttachMark
                };
            }
            At::AttachMark => {
                if self.is_reliable(i) {
                    next.reliable |= 1 << i;
                }
                me.at = if mark_first {
                    At::AttachInUse
                } else {
                    At::AttachReadHeadAgain
                };
            }
            At::AttachReadHeadAgain => {
                if !self.without(Mutant::AttachDoesNotLookAgain) {
                    me.head = state.head;
                }
                me.at = At::AttachCursorAgain;
            }
            // AttachCursorAgain
            _ => {
                next.cursors[i] = process.head;
                *me = Process::subscriber(At::Look, process.head);
            }
        }
        steps.to(next, || format!("{i} {at:?} (head {})", process.head));
    }

    fn take(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let slot = process.slot as usize;
        let wanted = process.wanted;
        let reliable = self.is_reliable(i);
        let mut violation = None;
        let me = &mut next.processes[i];
        // The frame is gone: the queue passes it, latest looks at head again.
        let position_without = if self.policy(i) == Some(Policy::Latest) {
            process.count
        } else {
            wanted
        };
        let gone = Process::subscriber(At::Look, position_without);
        let after_take = if self.one_take { At::Done } else { At::Look };
        let lost = reliable.then_some("LOST: a reliable subscriber missed a frame");
        let current = state.slots[slot].word;
        let is_wanted = current.sequence == wanted || self.without(Mutant::TakeIgnoresSequence);
        match at {
            At::Look => {
                let position = process.count;
                if state.head <= position {
                    if self.is_sealed_at(state, position + 1) {
                        *me = Process::subscriber(At::Moved, position);
                    } else if self.sleep {
                        me.at = At::WaitMark;
                    } else {
                        return; // nothing new; whoever publishes gives it another step
                    }
                } else {
                    let oldest = (state.head + 1).saturating_sub(self.ring_length());
                    let queued = (position + 1).max(oldest);
                    violation = (queued > position + 1).then_some(()).and(lost);
                    me.wanted = if self.policy(i) == Some(Policy::Latest) {
                        state.head
                    } else {
                        queued
                    };
                    me.at = At::TakeReadRing;
                    if reliable && self.without(Mutant::CursorBeforeTake) {
                        next.cursors[i] = queued;
                    }
                }
            }
            At::TakeReadRing => {
                let entry = self.entry(state, wanted);
                if entry.sequence == wanted {
                    me.slot = entry.slot;
                    me.at = At::TakeReadWord;
                } else {
                    violation = if entry.sequence < wanted {
                        Some("HEAD is ahead of the ring")
                    } else {
                        lost
                    };
                    *me = gone;
                }
            }
            At::TakeReadWord => {
                if is_wanted {
                    me.at = At::TakeAnnounce;
                } else {
                    violation = lost;
                    *me = gone;
                }
            }
            At::TakeAnnounce => {
                next.slots[slot].holders |= 1 << i;
                me.at = At::TakeValidate;
                if self.without(Mutant::WordBeforeBit) {
                    me.at = At::Leased;
                    violation = (state.slots[slot].bytes != wanted).then_some("WRONG BYTES leased");
                }
            }
            At::TakeValidate => match current.state {
                SlotState::Pub | SlotState::Commit if is_wanted => {
                    violation = (state.slots[slot].bytes != wanted).then_some("WRONG BYTES leased");
                    me.at = if reliable {
                        At::StoreCursor
                    } else {
                        At::Leased
                    };
                }
                SlotState::Try if is_wanted => {
                    // Looks again for a while (no step: nothing changes), then gives up for now and comes back.
                    me.at = At::TakeUndo;
                    me.then = At::Look;
                }
                _ => {
                    violation = lost;
                    me.at = At::TakeUndo;
                }
            },
            At::TakeUndo => {
                let busy = process.then == At::Look;
                *me = if busy {
                    Process::subscriber(At::Look, process.count)
                } else {
                    gone
                };
                me.at = after_take;
                if self.wakes_space(Mutant::NoSpaceWakeOnUndo) {
                    me.then = me.at;
                    me.at = At::SpaceWakeRead;
                }
                next.slots[slot].holders &= !(1 << i);
            }
            At::StoreCursor => {
                next.cursors[i] = wanted;
                me.at = At::Leased;
            }
            // Leased: the release, after any time.
            _ => {
                violation = if state.slots[slot].bytes != wanted {
                    Some("LEASED BYTES changed")
                } else if state.slots[slot].holders >> i & 1 == 0 {
                    Some("HOLDER BIT of a live lease vanished")
                } else {
                    None
                };
                *me = Process::subscriber(after_take, wanted);
                if self.wakes_space(Mutant::NoSpaceWakeOnRelease) {
                    me.then = me.at;
                    me.at = At::SpaceWakeRead;
                }
                next.slots[slot].holders &= !(1 << i);
            }
        }
        steps.check(next, violation, || {
            format!("{i} {at:?} of {wanted} in slot {slot}")
        });
    }

    fn wait(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let me = &mut next.processes[i];
        match at {
            At::WaitMark => {
                next.waiters |= 1 << i;
                me.at = At::WaitReadFutex;
            }
            At::WaitReadFutex => {
                me.at = if self.without(Mutant::SleeperDoesNotLookAgain) {
                    At::WaitSleep
                } else {
                    At::WaitLook
                };
            }
            At::WaitLook => {
                let news =
                    state.head > process.count || self.is_sealed_at(state, process.count + 1);
                me.at = if news { At::WaitUnmark } else { At::WaitSleep };
                if news {
                    me.is_stale = false;
                }
            }
            At::WaitSleep => {
                me.at = if process.is_stale {
                    At::WaitReadFutex
                } else {
                    At::WaitAsleep
                };
                me.is_stale = false;
            }
            At::WaitUnmark => {
                next.waiters &= !(1 << i);
                me.at = At::Look;
            }
            // WaitAsleep: only a wake moves it.
            _ => return,
        }
        steps.to(next, || format!("{i} {at:?}"));
    }
}
