//! Breadth-first search through all states of a model.
//!
//! States are kept whole (no hash compaction), so "holds" means that every reachable state was looked at; the trace of a
//! violation is a shortest one. Memory is sequentially consistent here: each step is one access, and every interleaving
//! of the steps is tried. What weaker memory adds is checked apart ([`crate::rc11`], `tests/loom.rs`).
//!
//! After the search a second pass asks whether from every state some end state can still be reached. A state from which
//! none can is a livelock or a wedge that no invariant named.

use std::hash::{Hash, Hasher};

/// A protocol with a finite number of states.
pub trait Model {
    /// Everything: shared memory, what each process knows, who is alive.
    type State: Copy + Eq + Hash + std::fmt::Debug;
    /// Where it begins.
    fn initial(&self) -> Self::State;
    /// Everything that can happen next.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);
    /// What is wrong with a state in which nothing can happen any more.
    fn at_rest(&self, state: &Self::State) -> Option<&'static str>;
}

/// The successors of one state.
#[derive(Debug)]
pub struct Steps<S> {
    list: Vec<Step<S>>,
    with_labels: bool,
}

#[derive(Debug)]
struct Step<S> {
    next: S,
    label: String,
    violation: Option<&'static str>,
}

impl<S> Steps<S> {
    /// A step, with words for the trace of a violation.
    pub fn to(&mut self, next: S, label: impl FnOnce() -> String) {
        self.check(next, None, label);
    }

    /// The same, for a step that may break an invariant.
    pub fn check(
        &mut self,
        next: S,
        violation: Option<&'static str>,
        label: impl FnOnce() -> String,
    ) {
        let label = if self.with_labels {
            label()
        } else {
            String::new()
        };
        self.list.push(Step {
            next,
            label,
            violation,
        });
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every reachable state was seen, none is wrong, and from each an end state can be reached.
    Holds,
    /// What went wrong, and the shortest way there.
    Violated {
        /// The invariant.
        what: &'static str,
        /// One line per step.
        trace: Vec<String>,
    },
    /// Gave up at the limit of states; nothing was wrong so far.
    TooLarge,
}

/// Verdict and size of a search.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it found.
    pub verdict: Verdict,
    /// States seen.
    pub states: usize,
}

/// Looks at all states of `model`, at most `states_max` (a few billion fit the numbering; memory is the limit).
pub fn explore<M: Model>(model: &M, states_max: usize) -> Report {
    let mut search = Search {
        model,
        seen: Seen::new(),
        parents: Vec::new(),
    };
    search.add(&model.initial(), u32::MAX);
    let mut edges: Vec<(u32, u32)> = Vec::new(); // (to, from)
    let mut ends: Vec<u32> = Vec::new();
    let mut steps = Steps {
        list: Vec::new(),
        with_labels: false,
    };
    let mut from = 0;
    while from < search.seen.states.len() {
        if search.seen.states.len() > states_max {
            return search.report(Verdict::TooLarge);
        }
        let state = search.seen.states[from];
        steps.list.clear();
        model.steps(&state, &mut steps);
        if steps.list.is_empty() {
            ends.push(from as u32);
            if let Some(what) = model.at_rest(&state) {
                let trace = search.trace(from, None);
                return search.report(Verdict::Violated { what, trace });
            }
        }
        for step in &steps.list {
            if let Some(what) = step.violation {
                let trace = search.trace(from, Some(step.next));
                return search.report(Verdict::Violated { what, trace });
            }
            edges.push((search.add(&step.next, from as u32), from as u32));
        }
        from += 1;
    }
    match first_without_end(search.seen.states.len(), &mut edges, &ends) {
        None => search.report(Verdict::Holds),
        Some(state) => {
            let trace = search.trace(state, None);
            let what = "LIVELOCK: no end can be reached from here";
            search.report(Verdict::Violated { what, trace })
        }
    }
}

struct Search<'m, M: Model> {
    model: &'m M,
    seen: Seen<M::State>,
    parents: Vec<u32>,
}

impl<M: Model> Search<'_, M> {
    fn add(&mut self, state: &M::State, parent: u32) -> u32 {
        let (number, is_new) = self.seen.add(state);
        if is_new {
            self.parents.push(parent);
        }
        number
    }

    fn report(&self, verdict: Verdict) -> Report {
        Report {
            verdict,
            states: self.seen.states.len(),
        }
    }

    fn trace(&self, to: usize, last: Option<M::State>) -> Vec<String> {
        let mut path: Vec<M::State> = last.into_iter().collect();
        let mut at = to as u32;
        while at != u32::MAX {
            path.push(self.seen.states[at as usize]);
            at = self.parents[at as usize];
        }
        path.reverse();
        let mut steps = Steps {
            list: Vec::new(),
            with_labels: true,
        };
        let label = |pair: &[M::State]| {
            steps.list.clear();
            self.model.steps(&pair[0], &mut steps);
            let step = steps.list.iter().find(|step| step.next == pair[1]);
            step.map_or_else(String::new, |step| step.label.clone())
        };
        path.windows(2).map(label).collect()
    }
}

// A state from which no end can be reached, walking backwards from the ends.
fn first_without_end(states: usize, edges: &mut [(u32, u32)], ends: &[u32]) -> Option<usize> {
    edges.sort_unstable();
    let mut start = vec![0u32; states + 1];
    for &(to, _) in edges.iter() {
        start[to as usize + 1] += 1;
    }
    for i in 0..states {
        start[i + 1] += start[i];
    }
    let mut can_end = vec![false; states];
    let mut queue = ends.to_vec();
    for &end in ends {
        can_end[end as usize] = true;
    }
    while let Some(to) = queue.pop() {
        let (first, behind) = (start[to as usize] as usize, start[to as usize + 1] as usize);
        for &(_, from) in &edges[first..behind] {
            if !can_end[from as usize] {
                can_end[from as usize] = true;
                queue.push(from);
            }
        }
    }
    can_end.iter().position(|can| !can)
}

// All states seen, in order, with an open-addressing index: a third of the memory of a HashMap of states.
struct Seen<S> {
    states: Vec<S>,
    index: Vec<u32>,
}

impl<S: Copy + Eq + Hash> Seen<S> {
    const EMPTY: u32 = u32::MAX;

    fn new() -> Self {
        Self {
            states: Vec::new(),
            index: vec![Self::EMPTY; 1 << 16],
        }
    }

    fn slot(&self, state: &S) -> usize {
        let mut hasher = ByteHasher::default();
        state.hash(&mut hasher);
        let mask = self.index.len() - 1;
        let mut at = hasher.finish() as usize & mask;
        while self.index[at] != Self::EMPTY && self.states[self.index[at] as usize] != *state {
            at = (at + 1) & mask;
        }
        at
    }

    fn add(&mut self, state: &S) -> (u32, bool) {
        if self.states.len() * 10 > self.index.len() * 6 {
            self.index = vec![Self::EMPTY; self.index.len() * 2];
            for number in 0..self.states.len() {
                let at = self.slot(&self.states[number]);
                self.index[at] = number as u32;
            }
        }
        let at = self.slot(state);
        if self.index[at] != Self::EMPTY {
            return (self.index[at], false);
        }
        let number = self.states.len() as u32;
        self.index[at] = number;
        self.states.push(*state);
        (number, true)
    }
}

// States are small structs of bytes: collects eight of them, then mixes once.
#[derive(Default)]
struct ByteHasher {
    hash: u64,
    bytes: u64,
    count: u32,
}

impl Hasher for ByteHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.bytes = self.bytes << 8 | u64::from(byte);
        self.count += 1;
        if self.count == 8 {
            self.write_u64(self.bytes);
            self.count = 0;
            self.bytes = 0;
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ (mixed >> 29);
    }

    // Discriminants and lengths; one byte is enough for both.
    #[allow(clippy::cast_sign_loss)] // bits for a hash
    fn write_isize(&mut self, value: isize) {
        self.write_u8(value as u8);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u8(value as u8);
    }

    fn finish(&self) -> u64 {
        let mut last = Self {
            hash: self.hash,
            ..Self::default()
        };
        last.write_u64(self.bytes ^ u64::from(self.count) << 56);
        last.hash ^ (last.hash >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Counts up to `limit`; may be sent back to 0 only below 3; 7 is forbidden.
    struct Counter {
        limit: u8,
        may_go_back_at_rest: bool,
    }

    impl Model for Counter {
        type State = u8;
        fn initial(&self) -> u8 {
            0
        }
        fn steps(&self, state: &u8, steps: &mut Steps<u8>) {
            if *state < self.limit {
                let violation = (*state + 1 == 7).then_some("seven");
                steps.check(*state + 1, violation, || format!("count to {}", state + 1));
            } else if self.may_go_back_at_rest {
                steps.to(self.limit - 1, || "back".into());
            }
        }
        fn at_rest(&self, state: &u8) -> Option<&'static str> {
            (*state == 4).then_some("four at rest")
        }
    }

    fn verdict(limit: u8, may_go_back_at_rest: bool, states_max: usize) -> Verdict {
        explore(
            &Counter {
                limit,
                may_go_back_at_rest,
            },
            states_max,
        )
        .verdict
    }

    #[test]
    fn finds_what_it_is_for() {
        assert_eq!(verdict(5, false, 100), Verdict::Holds);
        assert_eq!(verdict(5, false, 3), Verdict::TooLarge);
        let Verdict::Violated { what, trace } = verdict(9, false, 100) else {
            panic!("seven was not found");
        };
        assert_eq!((what, trace.len()), ("seven", 7));
        assert_eq!(trace[6], "count to 7");
        assert!(matches!(
            verdict(4, false, 100),
            Verdict::Violated {
                what: "four at rest",
                ..
            }
        ));
        assert!(
            matches!(verdict(3, true, 100), Verdict::Violated { what, .. } if what.starts_with("LIVELOCK"))
        );
    }
}
