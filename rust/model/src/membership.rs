//! Groups come and go: founding, joining, leaving, death in each of them, and the publisher that obeys the cursor of a
//! group only while the group is in use.
//!
//! Rows of groups change hands under one lock, which the kernel drops at death. A founder sets the cursor (F1), then the
//! bit "in use" (F2), then the cursor again from a head read after it (F3); a joiner writes the group into its row (J1),
//! then its member bit (J2). Leaving (V1) needs no lock; whoever finds a group in use without members takes the lock and
//! ends it. Three processes, one group row, one publisher that reads head, then the bit, then the cursor.

use crate::explore::{Model, Steps};

const PROCESSES: usize = 3;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A founder does not look at head again after it set the bit.
    NoSecondLook,
    /// Whoever leaves last ends the group without the lock.
    EndWithoutLock,
    /// The lock is given back before the member bit is set.
    UnlockBeforeMember,
    /// Nobody ends a group whose last member died or left.
    NobodyEnds,
    /// The publisher reads the bit before head.
    BitBeforeHead,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NoSecondLook,
        Self::EndWithoutLock,
        Self::UnlockBeforeMember,
        Self::NobodyEnds,
        Self::BitBeforeHead,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// Processes that join once and may leave, at most 3.
    pub processes: usize,
    /// Frames that are published.
    pub frames: u8,
    /// Deaths of processes.
    pub deaths: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Outside,
    Dead,
    Gone,
    Look,
    EndForJoin,
    FoundCursor,
    FoundBit,
    FoundCursorAgain,
    JoinRow,
    UnlockEarly,
    JoinMember,
    Unlock,
    Member,
    Left,
    LockForEnd,
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum PublisherAt {
    #[default]
    ReadHead,
    ReadBit,
    ReadCursor,
    Reuse,
}

/// Shared memory, processes, publisher.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    head: u8,
    in_use: bool,
    cursor: u8,
    members: u8,
    // Rows in which the group is written: what a reaper of the row looks at.
    rows: u8,
    // Process that holds the lock, plus one; 0: nobody.
    lock: u8,
    // Ghost, a bit per frame: its slot was used again.
    reused: u8,
    processes: [At; PROCESSES],
    publisher: PublisherAt,
    read_head: u8,
    read_bit: bool,
    read_cursor: u8,
    deaths: u8,
}

impl Membership {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn ends(&self) -> bool {
        !self.without(Mutant::NobodyEnds)
    }

    fn process(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let at = state.processes[i];
        let bit = 1u8 << i;
        let me = i as u8 + 1;
        let is_inside = !matches!(at, At::Outside | At::Dead | At::Gone);
        if is_inside && state.deaths > 0 {
            let mut next = *state;
            next.deaths -= 1;
            next.processes[i] = At::Dead;
            next.lock = if state.lock == me { 0 } else { state.lock };
            steps.to(next, || format!("{i} KILLED before {at:?}"));
        }
        let mut next = *state;
        let mut violation = None;
        let then = &mut next.processes[i];
        match at {
            At::Outside | At::LockForEnd => {
                if state.lock != 0 {
                    return;
                }
                *then = if at == At::Outside { At::Look } else { At::End };
                next.lock = me;
            }
            At::Look => {
                *then = match (state.in_use, state.members) {
                    (true, 0) if self.ends() => At::EndForJoin,
                    (true, _) => At::JoinRow,
                    (false, _) => At::FoundCursor,
                };
            }
            At::EndForJoin => {
                *then = At::FoundCursor;
                next.in_use = false;
            }
            At::FoundCursor => {
                *then = At::FoundBit;
                next.cursor = state.head;
            }
            At::FoundBit => {
                *then = if self.without(Mutant::NoSecondLook) {
                    At::JoinRow
                } else {
                    At::FoundCursorAgain
                };
                next.in_use = true;
            }
            At::FoundCursorAgain => {
                *then = At::JoinRow;
                next.cursor = state.head;
            }
            At::JoinRow => {
                let early = self.without(Mutant::UnlockBeforeMember);
                *then = if early {
                    At::UnlockEarly
                } else {
                    At::JoinMember
                };
                next.rows |= bit;
            }
            At::UnlockEarly => {
                *then = At::JoinMember;
                next.lock = 0;
            }
            At::JoinMember => {
                let early = self.without(Mutant::UnlockBeforeMember);
                *then = if early { At::Member } else { At::Unlock };
                next.members |= bit;
            }
            At::Unlock => {
                *then = At::Member;
                next.lock = 0;
            }
            At::Member => {
                if !state.in_use {
                    violation = Some("ENDED under a living member");
                } else if state.cursor < state.head {
                    // Takes the next frame of the group.
                    let mut takes = *state;
                    takes.cursor += 1;
                    let lost = (state.reused >> takes.cursor & 1 == 1)
                        .then_some("LOST: a frame that the group was promised");
                    steps.check(takes, lost, || format!("{i} takes {}", takes.cursor));
                }
                // Or leaves (V1).
                *then = At::Left;
                next.members &= !bit;
            }
            At::Left => {
                let is_over = state.in_use && state.members == 0 && self.ends();
                let lockless = self.without(Mutant::EndWithoutLock);
                *then = match (is_over, lockless) {
                    (true, false) => At::LockForEnd,
                    (true, true) => At::End,
                    (false, _) => At::Gone,
                };
                next.rows &= !bit;
            }
            At::End => {
                // Under the lock it is looked at again.
                let lockless = self.without(Mutant::EndWithoutLock);
                if lockless || state.members == 0 {
                    next.in_use = false;
                }
                next.processes[i] = At::Gone;
                next.lock = if state.lock == me { 0 } else { state.lock };
            }
            At::Dead | At::Gone => return,
        }
        steps.check(next, violation, || format!("{i} {at:?}"));
    }

    // V1 for the dead, then the end of a group without members; the lock is held for one step, as nobody needs to see it.
    fn reaper(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..self.processes {
            let bit = 1u8 << i;
            if state.processes[i] == At::Dead && (state.members | state.rows) & bit != 0 {
                let mut next = *state;
                next.members &= !bit;
                next.rows &= !bit;
                steps.to(next, || format!("the reaper takes {i} out"));
            }
        }
        if state.in_use && state.members == 0 && state.lock == 0 && self.ends() {
            let mut next = *state;
            next.in_use = false;
            steps.to(next, || "a sweep ends the group".into());
        }
    }

    fn publisher(&self, state: &State, steps: &mut Steps<State>) {
        let mut next = *state;
        let bit_first = self.without(Mutant::BitBeforeHead);
        if state.head < self.frames {
            let mut publishes = *state;
            publishes.head += 1;
            steps.to(publishes, || {
                format!("frame {} is published by another", publishes.head)
            });
        }
        match state.publisher {
            PublisherAt::ReadHead => {
                if (1..state.head).all(|frame| state.reused >> frame & 1 == 1) {
                    return; // nothing to reuse: the newest is kept
                }
                next.read_head = state.head;
                next.read_bit = state.in_use;
                next.publisher = if bit_first {
                    PublisherAt::ReadCursor
                } else {
                    PublisherAt::ReadBit
                };
            }
            PublisherAt::ReadBit => {
                next.read_bit = state.in_use;
                next.publisher = PublisherAt::ReadCursor;
            }
            PublisherAt::ReadCursor => {
                if bit_first {
                    next.read_head = state.head;
                }
                next.read_cursor = if next.read_bit { state.cursor } else { u8::MAX };
                next.publisher = PublisherAt::Reuse;
            }
            PublisherAt::Reuse => {
                next.publisher = PublisherAt::ReadHead;
                next.read_head = 0;
                next.read_bit = false;
                next.read_cursor = 0;
                // Whichever slot it comes to first.
                for frame in 1..state.read_head {
                    if frame <= state.read_cursor && state.reused >> frame & 1 == 0 {
                        let mut reuses = next;
                        reuses.reused |= 1 << frame;
                        steps.to(reuses, || format!("publisher reuses the slot of {frame}"));
                    }
                }
            }
        }
        steps.to(next, || format!("publisher {:?}", state.publisher));
    }
}

impl Model for Membership {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            deaths: self.deaths,
            ..State::default()
        };
        for process in &mut state.processes[self.processes..] {
            *process = At::Gone;
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..self.processes {
            self.process(state, i, steps);
        }
        self.reaper(state, steps);
        self.publisher(state, steps);
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        if state.lock != 0 {
            return Some("LEAK: the lock of nobody");
        }
        state
            .in_use
            .then_some("LEAK: a group of nobody, which holds publishers back")
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Membership);

const BASE: Membership = Membership {
    processes: 2,
    frames: 3,
    deaths: 1,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    vec![
        ("membership: 2 processes, 1 death", true, BASE),
        ("membership: 3 processes, 2 deaths", true, Membership { processes: 3, deaths: 2, ..BASE }),
        ("membership: 3 processes, 3 deaths, 5 frames", false, Membership { processes: 3, deaths: 3, frames: 5, ..BASE }),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Membership {
    Membership {
        frames: if mutant == Mutant::BitBeforeHead {
            4
        } else {
            BASE.frames
        },
        mutant: Some(mutant),
        ..BASE
    }
}
