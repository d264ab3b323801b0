//! Groups across a resize: an old generation with one frame, which must not be retired while the group owes it.
//!
//! The frame is always in one of two hands. A lease: then the row of its owner names the old generation. Or a mark: given
//! to a member that did not finish it. From lease to mark the mark is set first (nack, reaper); from mark to lease the row
//! names the generation first, and then a look under the lock of the groups says whether it is still there. Whoever
//! retires tries the same lock, and reads all rows, then the marks. Members pass the frame to each other behind the back
//! of that reader, and die anywhere.

use crate::explore::{Model, Steps};

const MEMBERS: usize = 3;
const RETIRER: u8 = 9;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A member does not look whether the generation is still there.
    NoConfirm,
    /// It looks without the lock.
    ConfirmWithoutLock,
    /// The retirer does not take the lock.
    RetireWithoutLock,
    /// The retirer reads the marks before the rows.
    MarksBeforeRows,
    /// The retirer does not look at the marks.
    NoMarks,
    /// A member that gives the frame back lets the generation go before the mark is set.
    NackRowFirst,
    /// The reaper frees the row before the mark is set.
    ReapRowFirst,
    /// A member takes the mark off before its row names the generation.
    PickBeforeRow,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoConfirm,
        Self::ConfirmWithoutLock,
        Self::RetireWithoutLock,
        Self::MarksBeforeRows,
        Self::NoMarks,
        Self::NackRowFirst,
        Self::ReapRowFirst,
        Self::PickBeforeRow,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Retire {
    /// Members of the group, at most 3; all begin in the old generation.
    pub members: usize,
    /// How often the frame is given back.
    pub nacks: u8,
    /// Deaths of members.
    pub deaths: u8,
    /// Deaths of the retirer.
    pub retirer_deaths: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Seated,
    TakeCursor,
    TakeUndo,
    GoOn,
    InNew,
    Confirm,
    ConfirmLook,
    PickBit,
    PickMark,
    PickRow,
    PickUndo,
    Holding,
    NackBit,
    NackMark,
    LetRow,
    ReapMark,
    ReapBit,
    ReapRow,
    ReapMarkLate,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum RetirerAt {
    #[default]
    Start,
    Rows(u8),
    Marks,
    Retire,
    Done,
}

/// Shared memory, members, retirer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "bits of shared memory")]
pub struct State {
    // The cursor passed the frame: some member owns it.
    taken: bool,
    mark: bool,
    // A bit per member: holder bit on the slot; its row names the old generation.
    holders: u8,
    rows: u8,
    retired: bool,
    // Holder of the lock of the groups, plus one; 0: nobody.
    lock: u8,
    // Ghosts: the frame was finished; the group is over, so what it owed is nobody's.
    finished: bool,
    over: bool,
    members: [At; MEMBERS],
    retirer: RetirerAt,
    nacks: u8,
    deaths: u8,
    retirer_deaths: u8,
}

impl Retire {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn member(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let at = state.members[i];
        let bit = 1u8 << i;
        let me = i as u8 + 1;
        let is_dead = matches!(
            at,
            At::Dead | At::ReapMark | At::ReapBit | At::ReapRow | At::ReapMarkLate
        );
        if !is_dead && state.deaths > 0 {
            let mut next = *state;
            next.deaths -= 1;
            next.members[i] = if self.without(Mutant::ReapRowFirst) {
                At::ReapRow
            } else {
                At::ReapMark
            };
            next.lock = if state.lock == me { 0 } else { state.lock };
            steps.to(next, || format!("{i} KILLED before {at:?}"));
        }
        let mut next = *state;
        let then = &mut next.members[i];
        match at {
            At::Seated => {
                if state.taken {
                    *then = At::GoOn;
                } else {
                    *then = At::TakeCursor; // T1
                    next.holders |= bit;
                }
            }
            At::TakeCursor => {
                *then = if state.taken {
                    At::TakeUndo
                } else {
                    At::Holding
                };
                next.taken = true; // T3
            }
            At::TakeUndo => {
                *then = At::Seated; // T4
                next.holders &= !bit;
            }
            At::GoOn | At::LetRow => {
                *then = At::InNew;
                next.rows &= !bit;
            }
            At::InNew => {
                if !state.mark {
                    return; // nothing to do, until there is a mark
                }
                if self.without(Mutant::PickBeforeRow) {
                    *then = At::PickBit;
                } else {
                    *then = if self.without(Mutant::NoConfirm) {
                        At::PickBit
                    } else {
                        At::Confirm
                    };
                    next.rows |= bit;
                }
            }
            At::Confirm => {
                *then = At::ConfirmLook;
                if !self.without(Mutant::ConfirmWithoutLock) {
                    if state.lock != 0 {
                        return; // tried again: the lock is held for a moment only
                    }
                    next.lock = me;
                }
            }
            At::ConfirmLook => {
                *then = if state.retired {
                    At::LetRow
                } else {
                    At::PickBit
                };
                next.lock = if state.lock == me { 0 } else { state.lock };
            }
            At::PickBit => {
                *then = At::PickMark; // P1
                next.holders |= bit;
            }
            At::PickMark => {
                // P3
                *then = match (state.mark, self.without(Mutant::PickBeforeRow)) {
                    (true, true) => At::PickRow,
                    (true, false) => At::Holding,
                    (false, _) => At::PickUndo,
                };
                next.mark = false;
            }
            At::PickRow => {
                *then = At::Holding;
                next.rows |= bit;
            }
            At::PickUndo | At::NackBit => {
                *then = At::LetRow; // of a nack: R2
                next.holders &= !bit;
            }
            At::Holding => {
                if state.nacks > 0 {
                    let mut gives_back = *state;
                    gives_back.nacks -= 1;
                    if self.without(Mutant::NackRowFirst) {
                        gives_back.members[i] = At::NackMark;
                        gives_back.rows &= !bit;
                    } else {
                        gives_back.members[i] = At::NackBit;
                        gives_back.mark = true; // R1
                    }
                    steps.to(gives_back, || format!("{i} gives the frame back"));
                }
                *then = At::LetRow;
                next.holders &= !bit;
                next.finished = true;
            }
            At::NackMark => {
                *then = At::NackBit;
                next.mark = true;
            }
            // The reaper of this member; each step can be repeated.
            At::ReapMark => {
                *then = At::ReapBit;
                next.mark |= state.holders & bit != 0 && state.taken;
            }
            At::ReapBit => {
                *then = At::ReapRow;
                next.holders &= !bit;
            }
            At::ReapRow => {
                *then = if self.without(Mutant::ReapRowFirst) {
                    At::ReapMarkLate
                } else {
                    At::Dead
                };
                next.rows &= !bit;
            }
            At::ReapMarkLate => {
                *then = At::Dead;
                next.mark |= state.holders & bit != 0 && state.taken;
                next.holders &= !bit;
            }
            At::Dead => return,
        }
        steps.to(next, || format!("{i} {at:?}"));
    }

    fn retirer(&self, state: &State, steps: &mut Steps<State>) {
        let rows = RetirerAt::Rows(0);
        let first = if self.without(Mutant::MarksBeforeRows) {
            RetirerAt::Marks
        } else {
            rows
        };
        let is_inside = !matches!(state.retirer, RetirerAt::Start | RetirerAt::Done);
        if is_inside && state.retirer_deaths > 0 {
            let mut next = *state;
            next.retirer_deaths -= 1;
            next.retirer = RetirerAt::Start;
            next.lock = if state.lock == RETIRER { 0 } else { state.lock };
            steps.to(next, || {
                format!("retirer KILLED before {:?}", state.retirer)
            });
        }
        let mut next = *state;
        let mut violation = None;
        let mut gives_up = false;
        match state.retirer {
            RetirerAt::Start => {
                if !self.without(Mutant::RetireWithoutLock) {
                    if state.lock != 0 {
                        return;
                    }
                    next.lock = RETIRER;
                }
                next.retirer = first;
            }
            RetirerAt::Rows(i) => {
                gives_up = state.rows >> i & 1 == 1;
                next.retirer = if usize::from(i) + 1 < self.members {
                    RetirerAt::Rows(i + 1)
                } else if first == rows && !self.without(Mutant::NoMarks) {
                    RetirerAt::Marks
                } else {
                    RetirerAt::Retire
                };
            }
            RetirerAt::Marks => {
                // The cursor first, which a group that is over does not have.
                gives_up = !(state.taken || state.over) || state.mark;
                next.retirer = if first == rows {
                    RetirerAt::Retire
                } else {
                    rows
                };
            }
            RetirerAt::Retire => {
                violation = (!state.finished && !state.over)
                    .then_some("LOST: retired with a frame that the group is owed");
                next.retired = true;
                next.retirer = RetirerAt::Done;
            }
            RetirerAt::Done => return,
        }
        if gives_up {
            next.retirer = RetirerAt::Start; // a later look
        }
        if matches!(next.retirer, RetirerAt::Start | RetirerAt::Done) && state.lock == RETIRER {
            next.lock = 0;
        }
        steps.check(next, violation, || format!("retirer {:?}", state.retirer));
    }
}

impl Model for Retire {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            rows: (1 << self.members) - 1,
            nacks: self.nacks,
            deaths: self.deaths,
            retirer_deaths: self.retirer_deaths,
            ..State::default()
        };
        for member in &mut state.members[self.members..] {
            *member = At::Dead;
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..self.members {
            self.member(state, i, steps);
        }
        self.retirer(state, steps);
        // A group without members is over: its marks go.
        let all_dead = state.members.iter().all(|at| *at == At::Dead);
        if all_dead && !state.over {
            let mut next = *state;
            next.over = true;
            next.mark = false;
            steps.to(next, || "the group ends".into());
        }
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        if !state.retired {
            return Some("LEAK: a generation that nobody needs stays");
        }
        if state.lock != 0 || state.holders != 0 || state.rows != 0 || state.mark {
            return Some("LEAK: a lock, bit, row or mark of nobody");
        }
        (!state.finished && !state.over).then_some("LOST: nobody finished the frame")
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Retire);

const BASE: Retire = Retire {
    members: 2,
    nacks: 3,
    deaths: 1,
    retirer_deaths: 1,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    vec![
        ("retire: 2 members, 3 given back, 1 death", true, BASE),
        ("retire: 2 members, 2 given back, 2 deaths", true, Retire { nacks: 2, deaths: 2, ..BASE }),
        ("retire: 3 members, 2 given back, 2 deaths", true, Retire { members: 3, nacks: 2, deaths: 2, ..BASE }),
        ("retire: 3 members, 4 given back, 3 deaths", false, Retire { members: 3, nacks: 4, deaths: 3, retirer_deaths: 2, ..BASE }),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Retire {
    Retire {
        members: 3,
        nacks: 2,
        mutant: Some(mutant),
        ..BASE
    }
}
