//! Frames: loan, publish, abandon, take, release, the two futexes, attach, scrub and kick of the dead, reliable
//! subscribers, resize (a seal in the ring).
//!
//! Each shared access of `slots.cpp`, `wake.cpp` and `liveness.cpp` is one step. Any participant may be killed before any
//! of its steps, a reaper in the middle of a scrub too, and rows are used again. Merged into one step are: a candidate's
//! word and holders before the TRY (a hint that the TRY confirms), the bound over all reliable rows, the ring load and
//! the word CAS of a scrub, and a bump together with its `FUTEX_WAKE` where nobody can die between them.
//!
//! Detach is not a step of its own: it is the scrub of a row by its owner under the same lock, so death at rest covers it.

mod cases;
mod publisher;
mod reap;
mod seal;
mod subscriber;

pub use cases::{Case, case_of, cases};

use crate::explore::{Model, Steps};

const PROCESSES: usize = 4;
const SLOTS: usize = 3;
const RING: usize = 4;
const REAPERS: usize = 2;
// Bytes that are no frame.
const JUNK: u8 = 0xff;
// Ring entry that closes the topic at its sequence.
const CLOSED: u8 = 0xff;

/// A rule of the protocol that can be left out, to show that the model notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A loan does not look at the holders again after TRY.
    NoHoldersRecheck,
    /// A loan that sees holders after TRY keeps the slot.
    NoPutBack,
    /// A take checks the word before it sets its bit, not after.
    WordBeforeBit,
    /// A take accepts whatever frame the slot carries.
    TakeIgnoresSequence,
    /// The ring is written by a store.
    RingStore,
    /// Neither a publish, nor a loan, nor a scrub moves a head that stayed behind.
    NobodyHelps,
    /// Only a publish does.
    OnlyPublishHelps,
    /// A scrub does not.
    ScrubDoesNotHelp,
    /// A scrub frees every COMMIT, whatever the ring says.
    ScrubIgnoresRing,
    /// A scrub turns CLAIM into PUB, as if it were TRY.
    ScrubRestoresClaim,
    /// TRY of a FREE slot keeps the sequence of the frame that was in it.
    TryOfFreeKeepsSequence,
    /// `state = 0` before the scrub.
    RowFreedFirst,
    /// `state = 0` before the kick.
    KickAfterRowFreed,
    /// No kick.
    NoKick,
    /// A ring shorter than the slots need.
    ShortRing,
    /// A subscriber does not look at head again after it set its waiter bit.
    SleeperDoesNotLookAgain,
    /// A loan does not scan again after it set its space bit.
    LoanDoesNotLookAgain,
    /// A loan reads the reliable bound before head.
    BoundBeforeHead,
    /// A reliable subscriber starts at the head that it read before it set its mark.
    AttachDoesNotLookAgain,
    /// The reliable mark is set before the row is in use.
    MarkBeforeInUse,
    /// A reliable subscriber moves its cursor before the take is validated.
    CursorBeforeTake,
    /// Two threads reap through one open file description, whose locks do not exclude each other.
    SharedDescription,
    /// Resize sets a mark of its own instead of closing the ring.
    SealBesideRing,
    /// Publish does not wake loans that wait for space.
    NoSpaceWakeOnPublish,
    /// Abandon does not.
    NoSpaceWakeOnAbandon,
    /// A put-back does not.
    NoSpaceWakeOnPutBack,
    /// A release does not.
    NoSpaceWakeOnRelease,
    /// The undo of a failed take does not.
    NoSpaceWakeOnUndo,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::NoHoldersRecheck,
        Self::NoPutBack,
        Self::WordBeforeBit,
        Self::TakeIgnoresSequence,
        Self::RingStore,
        Self::NobodyHelps,
        Self::OnlyPublishHelps,
        Self::ScrubDoesNotHelp,
        Self::ScrubIgnoresRing,
        Self::ScrubRestoresClaim,
        Self::TryOfFreeKeepsSequence,
        Self::RowFreedFirst,
        Self::KickAfterRowFreed,
        Self::NoKick,
        Self::ShortRing,
        Self::SleeperDoesNotLookAgain,
        Self::LoanDoesNotLookAgain,
        Self::BoundBeforeHead,
        Self::AttachDoesNotLookAgain,
        Self::MarkBeforeInUse,
        Self::CursorBeforeTake,
        Self::SharedDescription,
        Self::SealBesideRing,
        Self::NoSpaceWakeOnPublish,
        Self::NoSpaceWakeOnAbandon,
        Self::NoSpaceWakeOnPutBack,
        Self::NoSpaceWakeOnRelease,
        Self::NoSpaceWakeOnUndo,
    ];
}

/// How a subscriber takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Always the newest.
    Latest,
    /// The next that still exists.
    Queue,
    /// Every one.
    Reliable,
}

/// What a process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nothing; the row is unused.
    Nobody,
    /// Loans so often, and each time publishes or abandons.
    Publisher {
        /// How often.
        loans: u8,
    },
    /// Takes as long as there is something, from the beginning on.
    Subscriber(Policy),
    /// The same, but attaches at any moment.
    LateSubscriber(Policy),
    /// Closes the topic, as a resize does.
    Sealer,
}

/// One configuration.
#[allow(clippy::struct_excessive_bools)] // switches
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    /// The processes; their index is their row.
    pub roles: [Role; PROCESSES],
    /// Slots, at most 3.
    pub slots: usize,
    /// Deaths of participants.
    pub deaths: u8,
    /// Deaths of reapers in the middle of a scrub.
    pub reaper_deaths: u8,
    /// How often a new process may take the row of a dead one.
    pub restarts: u8,
    /// Reapers, at most 2.
    pub reapers: usize,
    /// Publishers may abandon.
    pub abandon: bool,
    /// Subscribers sleep on the futex and must be woken.
    pub sleep: bool,
    /// Loans that find nothing sleep on the space futex and must be woken.
    pub space: bool,
    /// A loan that had to put a slot back may give up, as with a time-out of zero.
    pub give_up: bool,
    /// Subscribers try to take once and then do nothing any more.
    pub one_take: bool,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            roles: [Role::Nobody; PROCESSES],
            slots: 2,
            deaths: 0,
            reaper_deaths: 0,
            restarts: 0,
            reapers: 1,
            abandon: true,
            sleep: false,
            space: false,
            give_up: false,
            one_take: false,
            mutant: None,
        }
    }
}

// ---- state

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum SlotState {
    #[default]
    Free,
    Try,
    Claim,
    Commit,
    Pub,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Word {
    sequence: u8,
    owner: u8,
    state: SlotState,
}

fn word(sequence: u8, owner: usize, state: SlotState) -> Word {
    Word {
        sequence,
        owner: owner as u8,
        state,
    }
}

fn published(sequence: u8) -> Word {
    word(sequence, 0, SlotState::Pub)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Entry {
    sequence: u8,
    slot: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Slot {
    word: Word,
    holders: u8,
    // The sequence of the frame whose bytes are in it, as a ghost.
    bytes: u8,
}

// What a process does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Hash, Default, Debug)]
enum At {
    #[default]
    Dead,
    Done,
    Moved,
    // publisher: loan
    LoanReadHead,
    LoanReadBoundEarly,
    LoanReadRing,
    LoanHelp,
    LoanReadSeal,
    LoanReadBound,
    LoanScan,
    LoanTry,
    LoanReadHolders,
    LoanPutBack,
    LoanClaim,
    Refused,
    SpaceMark,
    SpaceReadFutex,
    SpaceScan,
    SpaceSleep,
    SpaceAsleep,
    SpaceUnmark,
    // publisher: publish
    Write,
    Abandon,
    PublishReadHead,
    PublishReadRing,
    PublishHelp,
    PublishCommit,
    PublishRing,
    PublishPub,
    PublishHead,
    WakeReadBits,
    WakeBump,
    WakeFutex,
    // both: wake loans that wait for space, then go on with `then`
    SpaceWakeRead,
    SpaceWakeNow,
    PublisherBegin,
    // subscriber
    AttachLock,
    AttachReadHead,
    AttachCursor,
    AttachInUse,
    AttachMark,
    AttachReadHeadAgain,
    AttachCursorAgain,
    Look,
    TakeReadRing,
    TakeReadWord,
    TakeAnnounce,
    TakeValidate,
    TakeUndo,
    StoreCursor,
    Leased,
    WaitMark,
    WaitReadFutex,
    WaitLook,
    WaitSleep,
    WaitAsleep,
    WaitUnmark,
    // sealer
    SealReadHead,
    SealReadRing,
    SealHelp,
    SealClose,
    SealWake,
}

impl At {
    fn is_within(self, first: Self, last: Self) -> bool {
        first <= self && self <= last
    }
}

// `head`, `bound`, `word`, `entry` are what it read; fields that no later step needs are reset, which keeps
// the number of states small.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Process {
    at: At,
    then: At,
    slot: u8,
    head: u8,
    bound: u8,
    // The futex word changed since it was read. (A counter would wrap in the model long before it does in 32 bits.)
    is_stale: bool,
    // Publisher: loans to go. Subscriber: the last sequence taken.
    count: u8,
    // Subscriber: the sequence being taken.
    wanted: u8,
    word: Word,
    entry: Entry,
}

impl Process {
    fn publisher(at: At, loans: u8) -> Self {
        Self {
            at,
            count: loans,
            ..Self::default()
        }
    }

    fn subscriber(at: At, position: u8) -> Self {
        Self {
            at,
            count: position,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum ReaperAt {
    #[default]
    Idle,
    Marks,
    Word,
    Repair,
    Bit,
    HelpRead,
    Help,
    Kick,
    FreeRow,
    Unlock,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Reaper {
    at: ReaperAt,
    row: u8,
    slot: u8,
    head: u8,
    word: Word,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Lock {
    #[default]
    Free,
    Owner,
    Reaper(u8),
}

/// Shared memory, the processes, and what may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    head: u8,
    ring: [Entry; RING],
    slots: [Slot; SLOTS],
    waiters: u8,
    space_waiters: u8,
    sealed: bool,
    in_use: u8,
    reliable: u8,
    locks: [Lock; PROCESSES],
    cursors: [u8; PROCESSES],
    processes: [Process; PROCESSES],
    reapers: [Reaper; REAPERS],
    deaths: u8,
    reaper_deaths: u8,
    restarts: u8,
    // Ghost: the newest sequence that was ever published.
    newest: u8,
}

impl State {
    // Bumps a futex word: whoever read it and looks at something else before it sleeps will not sleep.
    fn bump(&mut self, first: At, last: At) {
        for process in &mut self.processes {
            if process.at.is_within(first, last) {
                process.is_stale = true;
            }
        }
    }

    fn bump_subscribers(&mut self) {
        self.bump(At::WaitLook, At::WaitSleep);
    }

    // Whoever sleeps on the futex of subscribers returns.
    fn wake_subscribers(&mut self) {
        for process in &mut self.processes {
            if process.at == At::WaitAsleep {
                process.at = At::WaitUnmark;
            }
        }
    }

    fn bump_and_wake_subscribers(&mut self) {
        self.bump_subscribers();
        self.wake_subscribers();
    }

    fn bump_and_wake_space(&mut self) {
        self.bump(At::SpaceScan, At::SpaceSleep);
        for process in &mut self.processes {
            if process.at == At::SpaceAsleep {
                process.at = At::SpaceReadFutex;
            }
        }
    }

    // Does a living subscriber rely on the bytes of the slot?
    fn is_leased(&self, slot: u8) -> bool {
        let relies = |p: &Process| matches!(p.at, At::StoreCursor | At::Leased) && p.slot == slot;
        self.processes.iter().any(relies)
    }

    // Does somebody else hold the slot as a loan?
    fn is_loaned_to_other(&self, me: usize, slot: u8) -> bool {
        let loaned = |p: &Process| {
            p.slot == slot
                && matches!(
                    p.at,
                    At::Write
                        | At::Abandon
                        | At::PublishReadHead
                        | At::PublishReadRing
                        | At::PublishHelp
                        | At::PublishCommit
                        | At::PublishRing
                )
        };
        (0..PROCESSES).any(|i| i != me && loaned(&self.processes[i]))
    }
}

// ---- the model

impl Frames {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn helps_in_publish(&self) -> bool {
        !self.without(Mutant::NobodyHelps)
    }

    fn helps_in_loan(&self) -> bool {
        !self.without(Mutant::NobodyHelps) && !self.without(Mutant::OnlyPublishHelps)
    }

    fn helps_in_scrub(&self) -> bool {
        self.helps_in_loan() && !self.without(Mutant::ScrubDoesNotHelp)
    }

    fn policy(&self, i: usize) -> Option<Policy> {
        match self.roles[i] {
            Role::Subscriber(policy) | Role::LateSubscriber(policy) => Some(policy),
            _ => None,
        }
    }

    fn is_reliable(&self, i: usize) -> bool {
        self.policy(i) == Some(Policy::Reliable)
    }

    fn ring_length(&self) -> u8 {
        if self.without(Mutant::ShortRing) {
            2
        } else {
            RING as u8
        }
    }

    fn entry(&self, state: &State, sequence: u8) -> Entry {
        state.ring[(sequence % self.ring_length()) as usize]
    }

    fn set_entry(&self, state: &mut State, sequence: u8, slot: u8) {
        state.ring[(sequence % self.ring_length()) as usize] = Entry { sequence, slot };
    }

    fn is_sealed_at(&self, state: &State, sequence: u8) -> bool {
        if self.without(Mutant::SealBesideRing) {
            return state.sealed;
        }
        self.entry(state, sequence)
            == Entry {
                sequence,
                slot: CLOSED,
            }
    }

    // The next sequence is in the ring, but head does not say so.
    fn head_is_behind(&self, state: &State, head: u8) -> bool {
        let entry = self.entry(state, head + 1);
        entry.sequence == head + 1 && entry.slot != CLOSED
    }

    fn bound(state: &State) -> u8 {
        let marked = (0..PROCESSES).filter(|i| state.reliable >> i & 1 == 1);
        marked.map(|i| state.cursors[i]).min().unwrap_or(u8::MAX)
    }

    // The newest frame is kept (`keep` is 1 everywhere).
    fn is_claimable(word: Word, head: u8, bound: u8) -> bool {
        match word.state {
            SlotState::Free => true,
            SlotState::Pub => word.sequence < head && word.sequence <= bound,
            _ => false,
        }
    }

    // Would a loan that runs alone now get something, or learn that the topic moved?
    fn loan_would_end(&self, state: &State) -> bool {
        let bound = Self::bound(state);
        let claimable =
            |slot: &Slot| Self::is_claimable(slot.word, state.head, bound) && slot.holders == 0;
        state.slots[..self.slots].iter().any(claimable)
            || (self.helps_in_loan() && self.head_is_behind(state, state.head))
            || self.is_sealed_at(state, state.head + 1)
    }

    fn wakes_space(&self, unless: Mutant) -> bool {
        self.space && !self.without(unless)
    }
}

impl Model for Frames {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            deaths: self.deaths,
            reaper_deaths: self.reaper_deaths,
            restarts: self.restarts,
            ..State::default()
        };
        for slot in &mut state.slots {
            slot.bytes = JUNK;
        }
        for (i, role) in self.roles.into_iter().enumerate() {
            let (at, count) = match role {
                Role::Nobody => (At::Done, 0),
                Role::Publisher { loans } => (At::LoanReadHead, loans),
                Role::Subscriber(_) => (At::Look, 0),
                Role::LateSubscriber(_) => (At::AttachLock, 0),
                Role::Sealer => (At::SealReadHead, 0),
            };
            state.processes[i] = Process::publisher(at, count);
            if !matches!(role, Role::Nobody | Role::LateSubscriber(_)) {
                state.in_use |= 1 << i;
                state.locks[i] = Lock::Owner;
            }
            if role == Role::Subscriber(Policy::Reliable) {
                state.reliable |= 1 << i;
            }
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..PROCESSES {
            Self::death(state, i, steps);
            let at = state.processes[i].at;
            match at {
                At::Dead => self.restart(state, i, steps),
                At::Done | At::Moved => {}
                _ if at.is_within(At::AttachLock, At::WaitUnmark) => {
                    self.subscribe(state, i, at, steps);
                }
                _ if at.is_within(At::SealReadHead, At::SealWake) => self.seal(state, i, at, steps),
                _ if at.is_within(At::Write, At::WakeFutex) => self.publish(state, i, at, steps),
                At::SpaceWakeRead | At::SpaceWakeNow => Self::wake_space(state, i, at, steps),
                _ => self.loan(state, i, at, steps),
            }
        }
        for i in 0..self.reapers {
            self.reap(state, i, steps);
        }
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        for process in &state.processes {
            match process.at {
                At::Refused => return Some("WEDGE: a loan is refused for ever"),
                At::SpaceAsleep if self.loan_would_end(state) => {
                    return Some("LOST WAKE of a loan");
                }
                At::SpaceAsleep => return Some("WEDGE: a loan sleeps for ever"),
                _ => {}
            }
        }
        for i in 0..PROCESSES {
            if state.processes[i].at == At::Dead && state.reliable >> i & 1 == 1 {
                return Some("LEAK: reliable mark of a dead participant");
            }
        }
        for slot in &state.slots[..self.slots] {
            match slot.word.state {
                SlotState::Try | SlotState::Claim | SlotState::Commit => {
                    return Some("LEAK: a slot that nobody owns");
                }
                SlotState::Pub if slot.bytes != slot.word.sequence => {
                    return Some("WRONG BYTES in a published slot");
                }
                _ if slot.holders != 0 => return Some("LEAK: a holder bit of nobody"),
                _ => {}
            }
        }
        if !self.loan_would_end(state) {
            return Some("WEDGE: no slot can be loaned any more");
        }
        for i in 0..PROCESSES {
            let process = &state.processes[i];
            let lags = self.policy(i).is_some() && process.count < state.newest;
            match process.at {
                At::Moved if lags && self.policy(i) != Some(Policy::Latest) => {
                    return Some("LOST: published before the seal, after a subscriber moved on");
                }
                At::Look | At::WaitAsleep if self.policy(i).is_some() && state.sealed => {
                    return Some("STUCK in a closed topic");
                }
                At::Look | At::WaitAsleep if lags && state.head < state.newest => {
                    return Some("INVISIBLE: a published frame never reaches a living subscriber");
                }
                At::WaitAsleep if lags => return Some("LOST WAKE of a subscriber"),
                At::Look if lags => return Some("STUCK: a subscriber does not see what is there"),
                _ => {}
            }
        }
        let newest_is_there = || {
            state
                .slots
                .iter()
                .any(|slot| slot.word == published(state.newest))
        };
        (state.newest != 0 && !newest_is_there()).then_some("LOST: the newest frame is gone")
    }
}
