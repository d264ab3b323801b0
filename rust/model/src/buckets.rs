//! Token buckets that all workers share (`rust/http/src/edge/buckets.rs`): one set, while no time passes.
//!
//! A word is the fingerprint of a key and what it owes; a bucket of so many tokens is empty when it owes as many. A request reads
//! the words of the set one after the other (B1), takes that of its key or else the one that owes least, is refused if that owes
//! too much (B2), and else exchanges it for its own fingerprint and one more (B3); when somebody else was faster it
//! begins again. A worker may die before any step; nobody repairs anything.
//!
//! While no time passes debts only grow, so three things have to hold however keys, workers and deaths meet: what is owed is what
//! was given; a set gives no more than its words can owe, whoever is evicted; and a key gets its bucket, and at most one request
//! more for each other worker that inserted it at the same time.

use crate::explore::{Model, Steps};

const WORKERS: usize = 3;
const WAYS: usize = 2;
const KEYS: usize = 3;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The word is stored, not exchanged for the one that was read.
    Store,
    /// Newcomers begin without a debt.
    NewcomersAreFree,
    /// A key takes the word that owes least, also when there is one of its own.
    NobodyIsKnown,
    /// Refused requests are paid for.
    RefusedPay,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Store,
        Self::NewcomersAreFree,
        Self::NobodyIsKnown,
        Self::RefusedPay,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// Workers, at most 3.
    pub workers: usize,
    /// Keys that ask, at most 3.
    pub keys: u8,
    /// Tokens of a bucket.
    pub tokens: u8,
    /// Requests of each worker, whichever keys they are of.
    pub requests: u8,
    /// Deaths of workers.
    pub deaths: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

/// A fingerprint, from 1 on, and a debt; zeros when it was never used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Word {
    key: u8,
    debt: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Idle,
    Read(u8),
    Exchange,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Worker {
    at: At,
    key: u8,
    seen: [Word; WAYS],
    requests: u8,
}

/// The set, the workers, and what was given to each key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    words: [Word; WAYS],
    workers: [Worker; WORKERS],
    given: [u8; KEYS],
    deaths: u8,
}

impl Buckets {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    // The word that a request decides by, from what it has read.
    fn choose(&self, worker: &Worker) -> usize {
        let known = worker.seen.iter().position(|word| word.key == worker.key);
        match known {
            Some(known) if !self.without(Mutant::NobodyIsKnown) => known,
            _ => {
                let least = worker.seen.iter().map(|word| word.debt).min();
                let owes_least = |word: &Word| Some(word.debt) == least;
                worker.seen.iter().position(owes_least).unwrap_or(0)
            }
        }
    }

    fn worker(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let worker = state.workers[i];
        if state.deaths > 0 && worker.at != At::Idle {
            let mut next = *state;
            next.deaths -= 1;
            next.workers[i] = Worker {
                requests: worker.requests,
                ..Worker::default()
            };
            steps.to(next, || format!("{i} KILLED before {:?}", worker.at));
        }
        let mut next = *state;
        let then = &mut next.workers[i];
        match worker.at {
            At::Idle => {
                if worker.requests == 0 {
                    return;
                }
                for key in 1..=self.keys {
                    let mut next = *state;
                    next.workers[i].requests -= 1;
                    next.workers[i].key = key;
                    next.workers[i].at = At::Read(0);
                    steps.to(next, || format!("{i} has a request of {key}"));
                }
            }
            At::Read(place) => {
                then.seen[usize::from(place)] = state.words[usize::from(place)];
                then.at = if usize::from(place) + 1 == WAYS {
                    At::Exchange
                } else {
                    At::Read(place + 1)
                };
                steps.to(next, || format!("{i} reads word {place}"));
            }
            At::Exchange => {
                let place = self.choose(&worker);
                let seen = worker.seen[place];
                let is_new = seen.key != worker.key;
                let owes = if is_new && self.without(Mutant::NewcomersAreFree) {
                    0
                } else {
                    seen.debt
                };
                *then = Worker {
                    requests: worker.requests,
                    ..Worker::default()
                };
                if owes + 1 > self.tokens {
                    if self.without(Mutant::RefusedPay) && state.words[place] == seen {
                        next.words[place].debt += 1;
                    }
                    let violation = self.wrong(&next);
                    steps.check(next, violation, || format!("{i} refuses {}", worker.key));
                } else if state.words[place] == seen || self.without(Mutant::Store) {
                    next.words[place] = Word {
                        key: worker.key,
                        debt: owes + 1,
                    };
                    next.given[usize::from(worker.key) - 1] += 1;
                    let violation = self.wrong(&next);
                    steps.check(next, violation, || {
                        format!("{i} gives to {} by word {place}", worker.key)
                    });
                } else {
                    // Somebody else was faster.
                    next.workers[i] = Worker {
                        at: At::Read(0),
                        ..worker
                    };
                    steps.to(next, || format!("{i} begins again"));
                }
            }
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        let owed: u8 = state.words.iter().map(|word| word.debt).sum();
        let given: u8 = state.given.iter().sum();
        if given > self.tokens * WAYS as u8 {
            return Some("MORE than the words of the set can owe");
        }
        if owed != given {
            return Some("DEBT: what is owed is not what was given");
        }
        let most = self.tokens + self.workers as u8 - 1;
        let has_more = state.given.iter().any(|given| *given > most);
        has_more.then_some("MORE than the bucket of a key, and its races")
    }
}

impl Model for Buckets {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            deaths: self.deaths,
            ..State::default()
        };
        for worker in &mut state.workers[..self.workers] {
            worker.requests = self.requests;
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..self.workers {
            self.worker(state, i, steps);
        }
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        self.wrong(state)
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Buckets);

const BASE: Buckets = Buckets {
    workers: 2,
    keys: 3,
    tokens: 2,
    requests: 4,
    deaths: 1,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    vec![
        ("buckets: 2 workers, 3 keys, 2 tokens, 1 death", true, BASE),
        ("buckets: 3 workers, 2 keys, 1 token", true, Buckets { workers: 3, keys: 2, tokens: 1, requests: 2, deaths: 0, ..BASE }),
        ("buckets: 2 workers, 1 key, 3 tokens", true, Buckets { keys: 1, tokens: 3, requests: 5, ..BASE }),
        ("buckets: 3 workers, 3 keys, 2 tokens, 1 death", false, Buckets { workers: 3, requests: 3, ..BASE }),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Buckets {
    Buckets {
        mutant: Some(mutant),
        ..BASE
    }
}
