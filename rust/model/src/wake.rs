//! Waking event loops: a word `armed` per subscriber, a bit "has a wake socket", one datagram.
//!
//! An event loop cannot sleep on a futex. It takes what there is, arms (`armed` = the sequence it waits for), reads head
//! again and waits for its socket. A publisher that sees the bit and an armed word that its frame satisfies sends first
//! and disarms afterwards, by a CAS from the value it saw. The bit stays set until detach. Whoever reaps a dead publisher
//! kicks everybody who is armed.
//!
//! Two publishers, one subscriber; ring and head are one step here.

use crate::explore::{Model, Steps};

const PUBLISHERS: usize = 2;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A publisher disarms by a store.
    DisarmByStore,
    /// A publisher disarms before it sends.
    DisarmFirst,
    /// A publisher also clears the bit, and sets it again if the subscriber armed meanwhile.
    BitCleared,
    /// The subscriber does not look at head again after arming.
    NoSecondLook,
    /// The subscriber drains its socket between the second look and the sleep.
    DrainAfterLook,
    /// The reaper does not kick.
    NoKick,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DisarmByStore,
        Self::DisarmFirst,
        Self::BitCleared,
        Self::NoSecondLook,
        Self::DrainAfterLook,
        Self::NoKick,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// Frames of each publisher.
    pub frames: [u8; PUBLISHERS],
    /// Deaths of publishers; each is followed by a kick at any later time.
    pub deaths: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Gone,
    Publish,
    ReadBit,
    ReadArmed,
    Send,
    Disarm,
    ClearBit,
    ReadArmedAgain,
    SetBit,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Publisher {
    at: At,
    frames: u8,
    sequence: u8,
    armed: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum SubscriberAt {
    #[default]
    Take,
    Arm,
    LookAgain,
    DrainLate,
    Sleep,
}

/// Shared memory, socket, publishers, subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    head: u8,
    armed: u8,
    has_bit: bool,
    datagram: bool,
    kick: bool,
    deaths: u8,
    publishers: [Publisher; PUBLISHERS],
    subscriber: SubscriberAt,
    seen: u8,
}

impl Wake {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn publisher(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let publisher = state.publishers[i];
        if publisher.at == At::Gone {
            return;
        }
        if state.deaths > 0 && publisher.at != At::Publish {
            let mut next = *state;
            next.deaths -= 1;
            next.publishers[i] = Publisher::default();
            next.kick = !self.without(Mutant::NoKick);
            steps.to(next, || {
                format!("publisher {i} KILLED before {:?}", publisher.at)
            });
        }
        let mut next = *state;
        let disarms_first = self.without(Mutant::DisarmFirst);
        let again = Publisher {
            at: if publisher.frames == 0 {
                At::Gone
            } else {
                At::Publish
            },
            frames: publisher.frames,
            ..Publisher::default()
        };
        let me = &mut next.publishers[i];
        match publisher.at {
            At::Gone => {}
            At::Publish => {
                me.frames -= 1;
                me.sequence = state.head + 1;
                me.at = At::ReadBit;
                next.head += 1;
            }
            At::ReadBit => {
                if state.has_bit {
                    me.at = At::ReadArmed;
                } else {
                    *me = again;
                }
            }
            At::ReadArmed => {
                if state.armed == 0 || state.armed > publisher.sequence {
                    *me = again;
                } else {
                    me.armed = state.armed;
                    me.at = if disarms_first { At::Disarm } else { At::Send };
                }
            }
            At::Send => {
                if disarms_first {
                    *me = again;
                } else {
                    me.at = At::Disarm;
                }
                next.datagram = true;
            }
            At::Disarm => {
                let same = state.armed == publisher.armed || self.without(Mutant::DisarmByStore);
                if disarms_first && same {
                    me.at = At::Send;
                } else if self.without(Mutant::BitCleared) {
                    me.at = if same {
                        At::ClearBit
                    } else {
                        At::ReadArmedAgain
                    };
                } else {
                    *me = again;
                }
                if same {
                    next.armed = 0;
                }
            }
            At::ClearBit => {
                me.at = At::ReadArmedAgain;
                next.has_bit = false;
            }
            At::ReadArmedAgain => {
                if state.armed == 0 {
                    *me = again;
                } else {
                    me.at = At::SetBit;
                }
            }
            At::SetBit => {
                *me = again;
                next.has_bit = true;
            }
        }
        steps.to(next, || {
            format!(
                "publisher {i} {:?} (sequence {})",
                publisher.at, next.publishers[i].sequence
            )
        });
    }

    fn subscriber(&self, state: &State, steps: &mut Steps<State>) {
        let mut next = *state;
        match state.subscriber {
            SubscriberAt::Take => {
                next.seen = state.head;
                next.subscriber = SubscriberAt::Arm;
            }
            SubscriberAt::Arm => {
                next.armed = state.seen + 1;
                next.has_bit = true; // only matters where a publisher clears it
                next.subscriber = if self.without(Mutant::NoSecondLook) {
                    SubscriberAt::Sleep
                } else {
                    SubscriberAt::LookAgain
                };
            }
            SubscriberAt::LookAgain => {
                let drains = self.without(Mutant::DrainAfterLook);
                let at = if drains {
                    SubscriberAt::DrainLate
                } else {
                    SubscriberAt::Sleep
                };
                next.subscriber = if state.head > state.seen {
                    SubscriberAt::Take
                } else {
                    at
                };
            }
            SubscriberAt::DrainLate => {
                next.datagram = false;
                next.subscriber = SubscriberAt::Sleep;
            }
            SubscriberAt::Sleep => {
                if !state.datagram {
                    return;
                }
                next.datagram = false;
                next.subscriber = SubscriberAt::Take;
            }
        }
        steps.to(next, || {
            format!("subscriber {:?}, head {}", state.subscriber, state.head)
        });
    }
}

impl Model for Wake {
    type State = State;

    fn initial(&self) -> State {
        State {
            has_bit: true,
            deaths: self.deaths,
            publishers: self.frames.map(|frames| Publisher {
                at: At::Publish,
                frames,
                ..Publisher::default()
            }),
            ..State::default()
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..PUBLISHERS {
            self.publisher(state, i, steps);
        }
        self.subscriber(state, steps);
        if state.kick {
            let mut next = *state;
            next.kick = false;
            next.datagram |= state.armed != 0;
            steps.to(next, || "the reaper kicks".into());
        }
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        (state.head > state.seen).then_some("LOST WAKE of an event loop")
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Wake);

const BASE: Wake = Wake {
    frames: [3, 3],
    deaths: 0,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
pub fn cases() -> Vec<Case> {
    vec![
        ("event loop: 6 frames", true, BASE),
        ("event loop: 2 deaths", true, Wake { deaths: 2, ..BASE }),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Wake {
    let deaths = u8::from(matches!(mutant, Mutant::DisarmFirst | Mutant::NoKick));
    Wake {
        deaths,
        mutant: Some(mutant),
        ..BASE
    }
}
