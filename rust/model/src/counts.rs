//! What all workers count together: connections, requests, waiting requests (`rust/http/src/edge/limits.rs`).
//!
//! Each worker has a row that it alone writes. Whoever wants one more adds it to its row (C1), reads all rows one after the
//! other (C2), and keeps it if the sum is not too much (C3), else takes it back (C4). Letting go is one subtraction (C5). A worker
//! may die before any step: its connections are closed by the kernel, its row says what it held, and the supervisor
//! clears that before it starts a successor with the same row (S1).

use crate::explore::{Model, Steps};

const WORKERS: usize = 3;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The rows are read before the own one is raised: look, then take.
    SumBeforeAdd,
    /// Who was refused keeps what it added.
    NoTakeBack,
    /// One row for all of them.
    CommonRow,
    /// The supervisor does not clear the row of a dead worker.
    NobodyClears,
    /// The successor is started first, then the row is cleared.
    ClearAfterStart,
    /// The row is cleared when the worker is asked to stop, not when it is dead.
    ClearBeforeEnd,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SumBeforeAdd,
        Self::NoTakeBack,
        Self::CommonRow,
        Self::NobodyClears,
        Self::ClearAfterStart,
        Self::ClearBeforeEnd,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Workers, at most 3.
    pub workers: usize,
    /// What they may hold together.
    pub most: u8,
    /// How often each worker asks for one more.
    pub tries: u8,
    /// Deaths of workers.
    pub deaths: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Idle,
    Add,
    /// The row that is read next, and the sum of those before.
    Read(u8, u8),
    Decide(u8),
    AddLate,
    TakeBack,
    Dead,
}

/// Rows, and what each worker does and holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    rows: [u8; WORKERS],
    workers: [At; WORKERS],
    held: [u8; WORKERS],
    tries: [u8; WORKERS],
    // Of a mutant: the row is still to be cleared, or was already.
    clear_due: [bool; WORKERS],
    cleared_early: [bool; WORKERS],
    deaths: u8,
}

impl Counts {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn row(&self, worker: usize) -> usize {
        if self.without(Mutant::CommonRow) {
            0
        } else {
            worker
        }
    }

    fn worker(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let at = state.workers[i];
        let row = self.row(i);
        if at == At::Dead {
            return self.supervisor(state, i, steps);
        }
        if state.deaths > 0 {
            let mut next = *state;
            next.deaths -= 1;
            next.workers[i] = At::Dead;
            next.held[i] = 0;
            steps.to(next, || format!("{i} KILLED before {at:?}"));
        }
        let mut next = *state;
        let then = &mut next.workers[i];
        let mut violation = None;
        match at {
            At::Idle => {
                if state.held[i] > 0 {
                    let mut lets_go = *state;
                    lets_go.held[i] -= 1;
                    lets_go.rows[row] = state.rows[row].saturating_sub(1);
                    steps.to(lets_go, || format!("{i} lets go"));
                }
                if state.tries[i] == 0 {
                    return;
                }
                next.tries[i] -= 1;
                *then = if self.without(Mutant::SumBeforeAdd) {
                    At::Read(0, 1)
                } else {
                    At::Add
                };
            }
            At::Add => {
                next.rows[row] += 1;
                *then = At::Read(0, 0);
            }
            At::Read(from, sum) => {
                let sum = sum + state.rows[usize::from(from)];
                let last = usize::from(from) + 1 == self.workers;
                *then = if last {
                    At::Decide(sum)
                } else {
                    At::Read(from + 1, sum)
                };
            }
            At::Decide(sum) if sum > self.most => {
                *then = if self.without(Mutant::SumBeforeAdd) || self.without(Mutant::NoTakeBack) {
                    At::Idle
                } else {
                    At::TakeBack
                };
            }
            At::Decide(_) if self.without(Mutant::SumBeforeAdd) => *then = At::AddLate,
            At::Decide(_) | At::AddLate => {
                if at == At::AddLate {
                    next.rows[row] += 1;
                }
                *then = At::Idle;
                next.held[i] += 1;
                let all: u8 = next.held.iter().sum();
                violation = (all > self.most).then_some("MORE than there may be");
            }
            At::TakeBack => {
                next.rows[row] = state.rows[row].saturating_sub(1);
                *then = At::Idle;
            }
            At::Dead => {}
        }
        steps.check(next, violation, || format!("{i} {at:?}"));
    }

    fn supervisor(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let mut next = *state;
        let keeps_row = self.without(Mutant::NobodyClears) || self.without(Mutant::CommonRow);
        if self.without(Mutant::ClearAfterStart) {
            next.clear_due[i] = true;
        } else if !keeps_row && !state.cleared_early[i] {
            next.rows[i] = 0;
        }
        next.workers[i] = At::Idle;
        next.cleared_early[i] = false;
        steps.to(next, || format!("the supervisor starts {i} anew"));
    }
}

impl Model for Counts {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            deaths: self.deaths,
            ..State::default()
        };
        state.tries[..self.workers].fill(self.tries);
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..self.workers {
            self.worker(state, i, steps);
            if state.clear_due[i] {
                let mut next = *state;
                next.clear_due[i] = false;
                next.rows[i] = 0;
                steps.to(next, || format!("the supervisor clears the row of {i}"));
            }
            let may_clear_early = self.without(Mutant::ClearBeforeEnd)
                && state.workers[i] != At::Dead
                && !state.cleared_early[i];
            if may_clear_early {
                let mut next = *state;
                next.cleared_early[i] = true;
                next.rows[i] = 0;
                steps.to(next, || {
                    format!("the row of {i}, which is to stop, is cleared")
                });
            }
        }
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        state
            .rows
            .iter()
            .any(|row| *row > 0)
            .then_some("LEAK: nobody holds anything, and the rows say that somebody does")
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Counts);

const BASE: Counts = Counts {
    workers: 2,
    most: 1,
    tries: 2,
    deaths: 1,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    vec![
        ("counts: 2 workers, 1 at a time, 1 death", true, BASE),
        ("counts: 3 workers, 2 at a time, 1 death", true, Counts { workers: 3, most: 2, ..BASE }),
        ("counts: 3 workers, 1 at a time, 2 deaths", true, Counts { workers: 3, deaths: 2, ..BASE }),
        ("counts: 3 workers, 2 at a time, 3 deaths, 3 tries", false, Counts { workers: 3, most: 2, tries: 3, deaths: 3, ..BASE }),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Counts {
    Counts {
        mutant: Some(mutant),
        ..BASE
    }
}
