//! All executions of a small program under RC11, the memory model of C++20 and Rust as repaired by Lahav et al. (PLDI
//! 2017), with C++20's release sequences.
//!
//! A program is a few threads of a few operations. Every interleaving is tried, every write at every place of its
//! location's modification order, every read from every write so far; what the axioms (coherence, `seq_cst`) forbid is
//! dropped. The answer says whether an outcome that must not happen can.

use std::collections::BTreeMap;

/// A memory location.
pub type Location = &'static str;
/// A name for what an operation read.
pub type Register = &'static str;

/// Memory order of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Not atomic.
    Plain,
    /// `relaxed`
    Relaxed,
    /// `acquire`
    Acquire,
    /// `release`
    Release,
    /// `acq_rel`
    AcqRel,
    /// `seq_cst`
    SeqCst,
}

impl Order {
    fn releases(self) -> bool {
        matches!(self, Self::Release | Self::AcqRel | Self::SeqCst)
    }

    fn acquires(self) -> bool {
        matches!(self, Self::Acquire | Self::AcqRel | Self::SeqCst)
    }

    // Of the load that a failed compare-exchange is.
    fn of_failure(self) -> Self {
        match self {
            Self::AcqRel => Self::Acquire,
            Self::Release => Self::Relaxed,
            other => other,
        }
    }
}

/// One operation of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Load.
    Read(Location, Order, Register),
    /// Store.
    Write(Location, u32, Order),
    /// `fetch_or`
    Or(Location, u32, Order, Register),
    /// `fetch_and` with the complement
    Clear(Location, u32, Order, Register),
    /// Compare-exchange from, to.
    Cas(Location, u32, u32, Order, Register),
    /// Fence.
    Fence(Order),
}

/// What a program's threads read, and whether two of its accesses race.
#[derive(Debug)]
pub struct Outcome<'a> {
    registers: &'a BTreeMap<Register, u32>,
    /// A data race on a plain location.
    pub has_race: bool,
}

impl Outcome<'_> {
    /// The value of a register.
    pub fn get(&self, register: Register) -> u32 {
        self.registers.get(register).copied().unwrap_or(u32::MAX)
    }
}

/// Initial values, threads, and the outcome that must not happen.
#[derive(Clone)]
pub struct Program {
    /// Values at the beginning.
    pub initial: Vec<(Location, u32)>,
    /// The threads.
    pub threads: Vec<Vec<Op>>,
    /// Is this an outcome that must not happen?
    pub is_bad: fn(&Outcome<'_>) -> bool,
}

/// Can the bad outcome happen?
pub fn bad_outcome_is_reachable(program: &Program) -> bool {
    let mut events = Vec::new();
    let mut writes = BTreeMap::new();
    for &(location, value) in &program.initial {
        writes.insert(location, vec![events.len()]);
        events.push(Event {
            thread: None,
            position: 0,
            kind: Kind::Write,
            location: Some(location),
            read: None,
            written: value,
            order: Order::Plain,
            register: None,
            source: None,
        });
    }
    let mut run = Run {
        program,
        counters: vec![0; program.threads.len()],
        events,
        writes,
    };
    run.any_bad()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Update,
    Fence,
}

#[derive(Clone, Copy)]
struct Event {
    thread: Option<usize>,
    position: usize,
    kind: Kind,
    location: Option<Location>,
    read: Option<u32>,
    written: u32,
    order: Order,
    register: Option<Register>,
    source: Option<usize>,
}

struct Run<'p> {
    program: &'p Program,
    counters: Vec<usize>,
    events: Vec<Event>,
    // Modification order of each location.
    writes: BTreeMap<Location, Vec<usize>>,
}

impl Run<'_> {
    fn any_bad(&mut self) -> bool {
        let mut is_complete = true;
        for thread in 0..self.counters.len() {
            let position = self.counters[thread];
            if let Some(&op) = self.program.threads[thread].get(position) {
                is_complete = false;
                self.counters[thread] += 1;
                let found = self.any_bad_after(thread, position, op);
                self.counters[thread] -= 1;
                if found {
                    return true;
                }
            }
        }
        is_complete && self.is_bad()
    }

    fn is_bad(&self) -> bool {
        let Some(has_race) = Relations::of(self).judge(self) else {
            return false; // the memory model forbids this execution
        };
        let named = |event: &Event| Some((event.register?, event.read?));
        let registers = self.events.iter().filter_map(named).collect();
        (self.program.is_bad)(&Outcome {
            registers: &registers,
            has_race,
        })
    }

    fn any_bad_after(&mut self, thread: usize, position: usize, op: Op) -> bool {
        let event = Event {
            thread: Some(thread),
            position,
            kind: Kind::Fence,
            location: None,
            read: None,
            written: 0,
            order: Order::SeqCst,
            register: None,
            source: None,
        };
        match op {
            Op::Fence(order) => self.with_event(Event { order, ..event }, None),
            Op::Write(location, value, order) => {
                let places = self.writes[location].len();
                let write = Event {
                    kind: Kind::Write,
                    location: Some(location),
                    written: value,
                    order,
                    ..event
                };
                (1..=places).any(|place| self.with_event(write, Some((location, place))))
            }
            Op::Read(location, order, register)
            | Op::Or(location, _, order, register)
            | Op::Clear(location, _, order, register)
            | Op::Cas(location, _, _, order, register) => {
                let sources = self.writes[location].clone();
                sources.iter().enumerate().any(|(index, &source)| {
                    let value = self.events[source].written;
                    let read = Event {
                        kind: Kind::Read,
                        location: Some(location),
                        read: Some(value),
                        order,
                        register: Some(register),
                        source: Some(source),
                        ..event
                    };
                    let written = match op {
                        Op::Or(_, bits, ..) => value | bits,
                        Op::Clear(_, bits, ..) => value & !bits,
                        Op::Cas(_, from, to, ..) if from == value => to,
                        Op::Cas(..) => {
                            let order = order.of_failure();
                            return self.with_event(Event { order, ..read }, None);
                        }
                        _ => return self.with_event(read, None),
                    };
                    // Between an update and the write it read from nothing fits, so no second update either.
                    let next = self.writes[location].get(index + 1);
                    if next.is_some_and(|&next| self.events[next].kind == Kind::Update) {
                        return false;
                    }
                    let update = Event {
                        kind: Kind::Update,
                        written,
                        ..read
                    };
                    self.with_event(update, Some((location, index + 1)))
                })
            }
        }
    }

    fn with_event(&mut self, event: Event, place: Option<(Location, usize)>) -> bool {
        let number = self.events.len();
        self.events.push(event);
        let before = self.writes.clone();
        if let Some((location, index)) = place
            && let Some(order) = self.writes.get_mut(location)
        {
            order.insert(index, number);
        }
        let found = self.any_bad();
        self.writes = before;
        self.events.pop();
        found
    }
}

// A relation between events: bit j of row i.
#[derive(Clone)]
struct Relation(Vec<u32>);

impl Relation {
    fn empty(events: usize) -> Self {
        Self(vec![0; events])
    }

    fn from(events: usize, holds: impl Fn(usize, usize) -> bool) -> Self {
        let row = |i| {
            (0..events)
                .filter(|&j| holds(i, j))
                .fold(0, |bits, j| bits | 1 << j)
        };
        Self((0..events).map(row).collect())
    }

    fn has(&self, i: usize, j: usize) -> bool {
        self.0[i] >> j & 1 == 1
    }

    fn add(&mut self, i: usize, j: usize) {
        self.0[i] |= 1 << j;
    }

    fn or(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a | b).collect())
    }

    fn then(&self, other: &Self) -> Self {
        let row = |bits: &u32| {
            (0..self.0.len())
                .filter(|j| bits >> j & 1 == 1)
                .fold(0, |out, j| out | other.0[j])
        };
        Self(self.0.iter().map(row).collect())
    }

    fn closure(mut self) -> Self {
        for k in 0..self.0.len() {
            let through = self.0[k];
            for row in &mut self.0 {
                if *row >> k & 1 == 1 {
                    *row |= through;
                }
            }
        }
        self
    }

    fn is_irreflexive(&self) -> bool {
        (0..self.0.len()).all(|i| !self.has(i, i))
    }
}

// Sequenced-before, reads-from, modification order, from-reads: what an execution is made of.
struct Relations {
    sequenced: Relation,
    reads_from: Relation,
    modification: Relation,
    from_reads: Relation,
}

impl Relations {
    fn of(run: &Run<'_>) -> Self {
        let events = &run.events;
        let count = events.len();
        let sequenced = Relation::from(count, |i, j| match (events[i].thread, events[j].thread) {
            (None, Some(_)) => true,
            (Some(a), Some(b)) => a == b && events[i].position < events[j].position,
            _ => false,
        });
        let reads_from = Relation::from(count, |i, j| events[j].source == Some(i));
        let mut modification = Relation::empty(count);
        for order in run.writes.values() {
            for (place, &i) in order.iter().enumerate() {
                for &j in &order[place + 1..] {
                    modification.add(i, j);
                }
            }
        }
        let from_reads = Relation::from(count, |i, j| {
            events[i]
                .source
                .is_some_and(|source| i != j && modification.has(source, j))
        });
        Self {
            sequenced,
            reads_from,
            modification,
            from_reads,
        }
    }

    // None: forbidden. Else: is there a data race?
    fn judge(&self, run: &Run<'_>) -> Option<bool> {
        let events = &run.events;
        let count = events.len();
        // An update follows its source immediately.
        for order in run.writes.values() {
            for pair in order.windows(2) {
                if events[pair[1]].kind == Kind::Update && events[pair[1]].source != Some(pair[0]) {
                    return None;
                }
            }
        }
        let before = self.sequenced.or(&self.synchronizes(events)).closure();
        let communicates = self
            .reads_from
            .or(&self.modification)
            .or(&self.from_reads)
            .closure();
        if !before.is_irreflexive() || !before.then(&communicates).is_irreflexive() {
            return None;
        }
        let same_location = |i: usize, j: usize| {
            events[i].location.is_some() && events[i].location == events[j].location
        };
        let elsewhere = Relation::from(count, |i, j| {
            self.sequenced.has(i, j) && !same_location(i, j)
        });
        let before_here = Relation::from(count, |i, j| before.has(i, j) && same_location(i, j));
        let order = self
            .sequenced
            .or(&elsewhere.then(&before).then(&elsewhere))
            .or(&before_here)
            .or(&self.modification)
            .or(&self.from_reads);
        let is_sc = |i: usize| events[i].order == Order::SeqCst;
        let is_sc_fence = |i: usize| is_sc(i) && events[i].kind == Kind::Fence;
        let left = Relation::from(count, |i, j| {
            is_sc(i) && i == j || is_sc_fence(i) && before.has(i, j)
        });
        let right = Relation::from(count, |i, j| {
            is_sc(i) && i == j || is_sc_fence(j) && before.has(i, j)
        });
        let around = before.or(&before.then(&communicates).then(&before));
        let fences = Relation::from(count, |i, j| {
            is_sc_fence(i) && is_sc_fence(j) && around.has(i, j)
        });
        let seq_cst = left.then(&order).then(&right).or(&fences).closure();
        if !seq_cst.is_irreflexive() {
            return None;
        }
        let writes = |i: usize| matches!(events[i].kind, Kind::Write | Kind::Update);
        let races = |i: usize, j: usize| {
            same_location(i, j)
                && (events[i].order == Order::Plain || events[j].order == Order::Plain)
                && events[i].thread.is_some()
                && events[j].thread.is_some()
                && events[i].thread != events[j].thread
                && (writes(i) || writes(j))
                && !before.has(i, j)
                && !before.has(j, i)
        };
        Some((0..count).any(|i| (0..i).any(|j| races(i, j))))
    }

    // A release (or a fence before a write) with an acquire (or a fence behind a read) of its release sequence.
    fn synchronizes(&self, events: &[Event]) -> Relation {
        let count = events.len();
        let extends = Relation::from(count, |i, j| {
            self.reads_from.has(i, j) && events[j].kind == Kind::Update
        });
        let itself = Relation::from(count, |i, j| i == j);
        let sequence = itself.or(&extends.closure());
        let mut synchronizes = Relation::empty(count);
        for (i, head) in events.iter().enumerate() {
            if !matches!(head.kind, Kind::Write | Kind::Update) || head.order == Order::Plain {
                continue;
            }
            let releases = |f: usize| f == i && head.order.releases();
            let fence_releases = |f: usize| {
                events[f].kind == Kind::Fence
                    && events[f].order.releases()
                    && self.sequenced.has(f, i)
            };
            for j in (0..count).filter(|&j| sequence.has(i, j)) {
                for k in (0..count)
                    .filter(|&k| self.reads_from.has(j, k) && events[k].order != Order::Plain)
                {
                    let acquires = |f: usize| f == k && events[k].order.acquires();
                    let fence_acquires = |f: usize| {
                        events[f].kind == Kind::Fence
                            && events[f].order.acquires()
                            && self.sequenced.has(k, f)
                    };
                    for from in (0..count).filter(|&f| releases(f) || fence_releases(f)) {
                        for to in
                            (0..count).filter(|&f| f != from && (acquires(f) || fence_acquires(f)))
                        {
                            synchronizes.add(from, to);
                        }
                    }
                }
            }
        }
        synchronizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Order::{Acquire, Plain, Relaxed, Release, SeqCst};

    fn store_buffering(order: Order) -> Program {
        Program {
            initial: vec![("x", 0), ("y", 0)],
            threads: vec![
                vec![Op::Write("x", 1, order), Op::Read("y", order, "a")],
                vec![Op::Write("y", 1, order), Op::Read("x", order, "b")],
            ],
            is_bad: |outcome| outcome.get("a") == 0 && outcome.get("b") == 0,
        }
    }

    fn message_passing(write: Order, read: Order) -> Program {
        Program {
            initial: vec![("data", 0), ("flag", 0)],
            threads: vec![
                vec![Op::Write("data", 1, Plain), Op::Write("flag", 1, write)],
                vec![Op::Read("flag", read, "f"), Op::Read("data", Plain, "d")],
            ],
            is_bad: |outcome| outcome.get("f") == 1 && outcome.has_race,
        }
    }

    #[test]
    fn knows_the_textbook_tests() {
        assert!(bad_outcome_is_reachable(&store_buffering(Relaxed)));
        assert!(!bad_outcome_is_reachable(&store_buffering(SeqCst)));
        assert!(!bad_outcome_is_reachable(&message_passing(
            Release, Acquire
        )));
        assert!(bad_outcome_is_reachable(&message_passing(Relaxed, Acquire)));
        assert!(bad_outcome_is_reachable(&message_passing(Release, Relaxed)));
    }

    // Two fences order what the accesses do not.
    #[test]
    fn knows_fences() {
        let mut program = store_buffering(Relaxed);
        for thread in &mut program.threads {
            thread.insert(1, Op::Fence(SeqCst));
        }
        assert!(!bad_outcome_is_reachable(&program));
        program.threads[1].remove(1);
        assert!(bad_outcome_is_reachable(&program));
    }
}
