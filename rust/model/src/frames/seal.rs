//! Resize: the ring is closed at the next sequence, and everybody moves to the next generation.

use super::{At, CLOSED, Frames, Mutant, Process, State};
use crate::explore::Steps;

impl Frames {
    pub(super) fn seal(&self, state: &State, i: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[i];
        let sequence = process.head + 1;
        let entry = self.entry(state, sequence);
        let me = &mut next.processes[i];
        match at {
            At::SealReadHead => {
                me.head = state.head;
                me.at = if self.without(Mutant::SealBesideRing) {
                    At::SealClose
                } else {
                    At::SealReadRing
                };
            }
            At::SealReadRing => {
                if self.is_sealed_at(state, sequence) {
                    *me = Process::publisher(At::Done, 0);
                } else if entry.sequence == sequence {
                    me.at = At::SealHelp;
                } else if entry.sequence > sequence {
                    me.at = At::SealReadHead;
                } else {
                    me.entry = entry;
                    me.at = At::SealClose;
                }
            }
            At::SealHelp => {
                *me = Process::publisher(At::SealReadHead, 0);
                if state.head == process.head {
                    next.head += 1;
                }
            }
            At::SealClose => {
                if self.without(Mutant::SealBesideRing) {
                    *me = Process::publisher(At::SealWake, 0);
                    next.sealed = true;
                } else if entry == process.entry {
                    *me = Process::publisher(At::SealWake, 0);
                    next.sealed = true;
                    self.set_entry(&mut next, sequence, CLOSED);
                } else {
                    *me = Process::publisher(At::SealReadHead, 0);
                }
            }
            // SealWake
            _ => {
                *me = Process::publisher(At::Done, 0);
                next.bump_and_wake_subscribers();
                next.bump_and_wake_space();
            }
        }
        steps.to(next, || format!("{i} {at:?} at {sequence}"));
    }
}
