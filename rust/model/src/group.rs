//! Work-queue groups: each frame to one member, again to another one if that member dies or gives it back.
//!
//! A slot has, beside its word and its holder bits, a mark per group. A member takes by holder bit (T1), word (T2), cursor
//! CAS (T3); a release is its acknowledgement. The reaper of a member sets the mark of every frame that the dead held and
//! the cursor has passed (R1), then clears the holder bit (R2). A member that sees a mark sets its own bit (P1), sees that
//! no publisher tries the slot (P2), clears the mark (P3: whoever cleared it owns it), and only then asks whether there is
//! a frame that the cursor has passed (P4). A publisher that wants the slot reads the holders first (L2) and the mark
//! afterwards (L3), and takes it only if both are empty.
//!
//! A mark can be stale: a reaper may set it for the stray bit of a member that came too late, on a slot that another frame
//! will use. P4 comes after P3 because of it: a member that finds the frame gone and *then* clears the mark races with the
//! reaper that sets it for the next frame, and that frame is lost ([`Mutant::StaleMarkDropped`]).
//!
//! Two members, one publisher with two slots (keep is 1), one reaper; the ring and head are one step here, because
//! [`crate::frames`] has them. Members, the publisher and the reaper may be killed before any step.

use crate::explore::{Model, Steps};

const SLOTS: usize = 2;
const MEMBERS: usize = 2;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A member moves the cursor before it holds the frame.
    CursorBeforeBit,
    /// The reaper only clears holder bits.
    NoRedelivery,
    /// The reaper clears the bit before it sets the mark.
    BitBeforeMark,
    /// A publisher reads the mark before the holders.
    MarkReadFirst,
    /// A publisher does not read the mark.
    MarkNotRead,
    /// A member works on a marked frame without a look at the word.
    PickNotValidated,
    /// A member clears the mark without having its bit set.
    MarkClearedFirst,
    /// The scrub of a publisher that died in TRY frees the slot.
    ScrubFreesTry,
    /// A publisher reuses slots that the cursor has not passed.
    NoBound,
    /// A member looks whether the frame is deliverable before it clears the mark, and then clears it in any case.
    StaleMarkDropped,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::CursorBeforeBit,
        Self::NoRedelivery,
        Self::BitBeforeMark,
        Self::MarkReadFirst,
        Self::MarkNotRead,
        Self::PickNotValidated,
        Self::MarkClearedFirst,
        Self::ScrubFreesTry,
        Self::NoBound,
        Self::StaleMarkDropped,
    ];
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Frames that the publisher publishes.
    pub frames: u8,
    /// Deaths of members.
    pub deaths: u8,
    /// Deaths of the publisher; a new one takes its place.
    pub publisher_deaths: u8,
    /// Deaths of reapers in the middle of a scrub.
    pub reaper_deaths: u8,
    /// New members in the rows of dead ones.
    pub restarts: u8,
    /// How often a member gives a frame back unfinished.
    pub give_backs: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum SlotState {
    #[default]
    Free,
    Try,
    Claim,
    Pub,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Slot {
    sequence: u8,
    state: SlotState,
    holders: u8,
    mark: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Dead,
    Choose,
    Announce,
    Validate,
    Advance,
    Work,
    Undo,
    PickAnnounce,
    PickSettled,
    PickDropMark,
    PickClearMark,
    PickCheck,
    GiveBackMark,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Member {
    at: At,
    slot: u8,
    sequence: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum PublisherAt {
    #[default]
    Loan,
    Try,
    ReadHolders,
    ReadMark,
    Decide,
    Publish,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Publisher {
    at: PublisherAt,
    slot: u8,
    // The word that the pre-check saw.
    sequence: u8,
    state: SlotState,
    is_held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum ReaperAt {
    #[default]
    Idle,
    Look,
    First,
    Second,
    Next,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Reaper {
    at: ReaperAt,
    row: u8,
    slot: u8,
}

/// Shared memory, members, publisher, reaper, what may still go wrong, and which frames were finished (a ghost).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    head: u8,
    cursor: u8,
    slots: [Slot; SLOTS],
    in_use: u8,
    members: [Member; MEMBERS],
    publisher: Publisher,
    reaper: Reaper,
    deaths: u8,
    publisher_deaths: u8,
    reaper_deaths: u8,
    restarts: u8,
    give_backs: u8,
    finished: u8,
}

impl State {
    // No death and nothing given back so far.
    fn is_calm(&self, group: &Group) -> bool {
        self.deaths == group.deaths && self.give_backs == group.give_backs
    }
}

impl State {
    fn is_finished(&self, sequence: u8) -> bool {
        self.finished >> sequence & 1 == 1
    }

    fn slot_of(&self, sequence: u8) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.sequence == sequence && slot.state != SlotState::Free)
    }
}

impl Group {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }
}

impl Model for Group {
    type State = State;

    fn initial(&self) -> State {
        State {
            in_use: 0b11,
            members: [Member {
                at: At::Choose,
                ..Member::default()
            }; MEMBERS],
            deaths: self.deaths,
            publisher_deaths: self.publisher_deaths,
            reaper_deaths: self.reaper_deaths,
            restarts: self.restarts,
            give_backs: self.give_backs,
            ..State::default()
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..MEMBERS {
            self.member(state, i, steps);
        }
        self.publisher(state, steps);
        self.reaper(state, steps);
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        if state.members.iter().all(|member| member.at == At::Dead) {
            return None; // nobody left to work
        }
        if state.head < self.frames {
            return Some("WEDGE: the publisher waits for ever");
        }
        if (1..=state.head).any(|sequence| !state.is_finished(sequence)) {
            return Some("LOST: nobody finished a frame although a member lives");
        }
        let leaks = state.slots.iter().any(|slot| slot.holders != 0);
        leaks.then_some("LEAK: a holder bit of nobody")
    }
}

impl Group {
    fn member(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        let member = state.members[i];
        let bit = 1u8 << i;
        if member.at == At::Dead {
            if state.in_use & bit == 0 && state.restarts > 0 {
                let mut next = *state;
                next.restarts -= 1;
                next.in_use |= bit;
                next.members[i].at = At::Choose;
                steps.to(next, || format!("member {i} is new"));
            }
            return;
        }
        if state.deaths > 0 {
            let mut next = *state;
            next.deaths -= 1;
            next.members[i] = Member::default();
            steps.to(next, || format!("member {i} KILLED before {:?}", member.at));
        }
        if member.at == At::Choose {
            self.choose(state, i, steps);
            return;
        }
        let mut next = *state;
        let mut violation = None;
        let slot = member.slot as usize;
        let me = &mut next.members[i];
        let idle = Member {
            at: At::Choose,
            ..Member::default()
        };
        let is_frame = state.slots[slot].sequence == member.sequence;
        let word = state.slots[slot];
        let has_frame =
            word.state == SlotState::Pub || (word.state == SlotState::Try && word.sequence != 0);
        let is_deliverable = has_frame && word.sequence <= state.cursor;
        match member.at {
            At::Announce => {
                next.slots[slot].holders |= bit;
                me.at = if self.without(Mutant::CursorBeforeBit) {
                    At::Work
                } else {
                    At::Validate
                };
            }
            At::Validate => {
                let good = is_frame && state.slots[slot].state == SlotState::Pub;
                me.at = if good { At::Advance } else { At::Undo };
            }
            At::Advance => {
                let won = state.cursor == member.sequence - 1;
                let mutated = self.without(Mutant::CursorBeforeBit);
                me.at = match (won, mutated) {
                    (true, false) => At::Work,
                    (true, true) => At::Announce,
                    (false, false) => At::Undo,
                    (false, true) => At::Choose,
                };
                if won {
                    next.cursor = member.sequence;
                }
            }
            At::Undo => {
                *me = idle;
                next.slots[slot].holders &= !bit;
            }
            At::Work => {
                let intact = is_frame && state.slots[slot].state != SlotState::Claim;
                violation = if !intact {
                    Some("OVERWRITTEN while a member works on it")
                } else if state.is_finished(member.sequence) && state.is_calm(self) {
                    Some("DUPLICATE although nobody died")
                } else {
                    None
                };
                if state.give_backs > 0 {
                    let mut gives_back = next;
                    gives_back.give_backs -= 1;
                    gives_back.members[i].at = At::GiveBackMark;
                    steps.check(gives_back, violation, || {
                        format!("member {i} gives {} back", member.sequence)
                    });
                }
                next.members[i].at = At::Undo;
                next.finished |= 1 << member.sequence;
            }
            // Giving back is what the reaper does, on oneself.
            At::GiveBackMark => {
                me.at = At::Undo;
                next.slots[slot].mark = true;
            }
            At::PickAnnounce => {
                next.slots[slot].holders |= bit;
                me.at = At::PickSettled;
            }
            At::PickSettled => {
                me.at = if state.slots[slot].state == SlotState::Try {
                    At::Undo // it sees our bit and puts the frame back; the mark stays
                } else if self.without(Mutant::StaleMarkDropped) && !is_deliverable {
                    At::PickDropMark
                } else {
                    At::PickClearMark
                };
            }
            At::PickDropMark => {
                me.at = At::Undo;
                next.slots[slot].mark = false;
            }
            At::PickClearMark => {
                me.at = if state.slots[slot].mark {
                    At::PickCheck
                } else {
                    At::Undo
                };
                if self.without(Mutant::PickNotValidated) && state.slots[slot].mark {
                    me.at = At::Work;
                }
                next.slots[slot].mark = false;
            }
            // PickCheck
            _ => {
                me.sequence = state.slots[slot].sequence;
                me.at = if is_deliverable { At::Work } else { At::Undo };
            }
        }
        steps.check(next, violation, || {
            format!(
                "member {i} {:?} of {} in slot {slot}",
                member.at, member.sequence
            )
        });
    }

    fn choose(&self, state: &State, i: usize, steps: &mut Steps<State>) {
        for slot in 0..SLOTS {
            if state.slots[slot].mark {
                let mut next = *state;
                next.members[i] = Member {
                    at: At::PickAnnounce,
                    slot: slot as u8,
                    sequence: state.slots[slot].sequence,
                };
                if self.without(Mutant::MarkClearedFirst) {
                    next.slots[slot].mark = false;
                    next.members[i].at = At::Announce;
                }
                steps.to(next, || format!("member {i} sees a mark in slot {slot}"));
            }
        }
        let wanted = state.cursor + 1;
        if wanted <= state.head
            && let Some(slot) = state.slot_of(wanted)
        {
            let mut next = *state;
            next.members[i] = Member {
                at: if self.without(Mutant::CursorBeforeBit) {
                    At::Advance
                } else {
                    At::Announce
                },
                slot: slot as u8,
                sequence: wanted,
            };
            steps.to(next, || format!("member {i} wants {wanted} in slot {slot}"));
        }
    }

    fn publisher(&self, state: &State, steps: &mut Steps<State>) {
        let publisher = state.publisher;
        let slot = publisher.slot as usize;
        let mut next = *state;
        if state.publisher_deaths > 0
            && !matches!(publisher.at, PublisherAt::Loan | PublisherAt::Try)
        {
            let mut dead = *state;
            dead.publisher_deaths -= 1;
            dead.publisher = Publisher::default();
            // Its scrub; a TRY of a free slot has sequence 0.
            let word = state.slots[slot];
            let is_frame = word.state == SlotState::Try
                && word.sequence != 0
                && !self.without(Mutant::ScrubFreesTry);
            dead.slots[slot].state = if is_frame {
                SlotState::Pub
            } else {
                SlotState::Free
            };
            steps.to(dead, || {
                format!(
                    "publisher KILLED before {:?} of slot {slot}, scrubbed",
                    publisher.at
                )
            });
        }
        let mut violation = None;
        match publisher.at {
            PublisherAt::Loan => {
                if state.head == self.frames {
                    return;
                }
                for (k, slot) in state.slots.iter().enumerate() {
                    let passed = slot.sequence <= state.cursor || self.without(Mutant::NoBound);
                    // No look at holders and mark here: it would only be a hint.
                    let is_candidate = match slot.state {
                        SlotState::Free => true,
                        SlotState::Pub => slot.sequence < state.head && passed,
                        _ => false,
                    };
                    if is_candidate {
                        let mut picks = *state;
                        picks.publisher = Publisher {
                            at: PublisherAt::Try,
                            slot: k as u8,
                            sequence: slot.sequence,
                            state: slot.state,
                            is_held: false,
                        };
                        steps.to(picks, || format!("publisher picks slot {k}"));
                    }
                }
                return;
            }
            PublisherAt::Try => {
                let word = state.slots[slot];
                if word.state == publisher.state && word.sequence == publisher.sequence {
                    next.publisher.at = PublisherAt::ReadHolders;
                    next.slots[slot].state = SlotState::Try;
                    if word.state == SlotState::Free {
                        next.slots[slot].sequence = 0;
                    }
                } else {
                    next.publisher = Publisher::default();
                }
                next.publisher.sequence = 0;
                next.publisher.state = SlotState::Free;
            }
            PublisherAt::ReadHolders | PublisherAt::ReadMark => {
                let is_first = publisher.at == PublisherAt::ReadHolders;
                let reads_mark = is_first == self.without(Mutant::MarkReadFirst);
                let word = state.slots[slot];
                let seen = if reads_mark {
                    word.mark && !self.without(Mutant::MarkNotRead)
                } else {
                    word.holders != 0
                };
                next.publisher.is_held |= seen;
                next.publisher.at = if is_first {
                    PublisherAt::ReadMark
                } else {
                    PublisherAt::Decide
                };
            }
            PublisherAt::Decide => {
                let word = state.slots[slot];
                next.publisher.is_held = false;
                if publisher.is_held {
                    next.publisher = Publisher::default();
                    next.slots[slot].state = if word.sequence == 0 {
                        SlotState::Free
                    } else {
                        SlotState::Pub
                    };
                } else {
                    let lost = word.sequence != 0 && !state.is_finished(word.sequence);
                    violation = lost.then_some("LOST: an unfinished frame is overwritten");
                    next.publisher.at = PublisherAt::Publish;
                    next.slots[slot].state = SlotState::Claim;
                }
            }
            PublisherAt::Publish => {
                next.publisher = Publisher::default();
                next.head += 1;
                next.slots[slot].sequence = next.head;
                next.slots[slot].state = SlotState::Pub;
            }
        }
        steps.check(next, violation, || {
            format!("publisher {:?} slot {slot}", publisher.at)
        });
    }

    fn reaper(&self, state: &State, steps: &mut Steps<State>) {
        let reaper = state.reaper;
        if reaper.at == ReaperAt::Idle {
            for i in 0..MEMBERS {
                if state.members[i].at == At::Dead && state.in_use >> i & 1 == 1 {
                    let mut next = *state;
                    next.reaper.at = ReaperAt::Look;
                    next.reaper.row = i as u8;
                    steps.to(next, || format!("reaper scrubs {i}"));
                }
            }
            return;
        }
        if state.reaper_deaths > 0 {
            let mut next = *state;
            next.reaper_deaths -= 1;
            next.reaper = Reaper::default();
            steps.to(next, || format!("reaper KILLED before {:?}", reaper.at));
        }
        let mut next = *state;
        let slot = reaper.slot as usize;
        let bit = 1u8 << reaper.row;
        let mark_first = !self.without(Mutant::BitBeforeMark);
        match reaper.at {
            ReaperAt::Look => {
                let holds = state.slots[slot].holders & bit != 0;
                next.reaper.at = if holds {
                    ReaperAt::First
                } else {
                    ReaperAt::Next
                };
            }
            ReaperAt::First | ReaperAt::Second => {
                if (reaper.at == ReaperAt::First) == mark_first {
                    // In FREE and CLAIM there is no frame: the bit is a stray one.
                    let word = state.slots[slot];
                    let has_frame = matches!(word.state, SlotState::Pub | SlotState::Try);
                    let is_delivered = word.sequence <= state.cursor;
                    if has_frame && is_delivered && !self.without(Mutant::NoRedelivery) {
                        next.slots[slot].mark = true;
                    }
                } else {
                    next.slots[slot].holders &= !bit;
                }
                next.reaper.at = if reaper.at == ReaperAt::First {
                    ReaperAt::Second
                } else {
                    ReaperAt::Next
                };
            }
            // Next
            _ => {
                if slot + 1 < SLOTS {
                    next.reaper.slot += 1;
                    next.reaper.at = ReaperAt::Look;
                } else {
                    next.reaper = Reaper::default();
                    next.in_use &= !bit;
                }
            }
        }
        steps.to(next, || {
            format!("reaper {:?} slot {slot} of {}", reaper.at, reaper.row)
        });
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Group);

const BASE: Group = Group {
    frames: 3,
    deaths: 1,
    publisher_deaths: 0,
    reaper_deaths: 0,
    restarts: 0,
    give_backs: 0,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
pub fn cases() -> Vec<Case> {
    let give_back = Group {
        deaths: 0,
        give_backs: 2,
        ..BASE
    };
    let deaths = Group {
        publisher_deaths: 1,
        reaper_deaths: 1,
        ..BASE
    };
    let restart = Group {
        deaths: 2,
        restarts: 1,
        publisher_deaths: 1,
        reaper_deaths: 1,
        ..BASE
    };
    vec![
        ("group: 1 death", true, BASE),
        ("group: frames given back", true, give_back),
        ("group: deaths of member, publisher, reaper", true, deaths),
        (
            "group, 2 deaths, restart, publisher and reaper die",
            false,
            restart,
        ),
        (
            "group, 4 frames, death, gives back",
            false,
            Group {
                frames: 4,
                give_backs: 1,
                publisher_deaths: 1,
                ..BASE
            },
        ),
    ]
}

/// The configuration in which the lack of this rule must show.
pub fn case_of(mutant: Mutant) -> Group {
    Group {
        give_backs: u8::from(mutant == Mutant::StaleMarkDropped),
        publisher_deaths: 1,
        reaper_deaths: 1,
        mutant: Some(mutant),
        ..BASE
    }
}
