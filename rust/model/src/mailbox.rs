//! Mailboxes: calls and replies, their slots, deaths of both sides, closing, lateness.
//!
//! A mailbox is a table of cells; posting hands a slot over by one CAS of its word (HANDED to the addressee), then makes
//! the cell READY, then looks whether the mailbox is still that of the meant incarnation. `docs/design/mailboxes.md` is
//! the text. Callers, a responder and a reaper may be killed before any step, rows are used again by new incarnations.
//! Merged into one step are: drawing a ticket with the CAS of a free cell, finding the slot that carries a ticket with
//! its CAS, and reading a letter with the look at its cell.

use crate::explore::{Model, Steps};

const ROWS: usize = 3;
const CELLS: usize = 2;
const SLOTS: usize = 3;

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A poster does not look at `open` again.
    NoSecondLook,
    /// A closer looks at its cells before it stores `open = 0`.
    CellsBeforeClose,
    /// The cell is made READY before the slot is handed over.
    ReadyBeforeHanded,
    /// An owner takes letters that were meant for the one before it.
    IncarnationIgnored,
    /// A caller looks at its mailbox before it looks whether the responder is gone.
    MailboxBeforeOpen,
    /// An owner does not look at its cells again after it said that it sleeps.
    SleeperDoesNotLookAgain,
    /// The scrub leaves cells in WRITING alone.
    ScrubLeavesWriting,
    /// The scrub frees a cell before the slot that goes with it.
    ScrubCellBeforeSlot,
    /// The scrub leaves slots alone that were handed to the dead.
    ScrubLeavesHanded,
    /// The scrub takes letters back from closed mailboxes only, not from those that have another owner by now.
    ScrubSeesOnlyClosed,
    /// The scrub does not close the mailbox.
    ScrubDoesNotClose,
    /// The scrub does not kick.
    NoKick,
    /// A caller that waits for a slot leaves late answers in its mailbox, and their slots with them.
    LateAnswersLeft,
    /// Taking a letter back frees the slot while the letter can still be taken.
    RetractSlotFirst,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoSecondLook,
        Self::CellsBeforeClose,
        Self::ReadyBeforeHanded,
        Self::IncarnationIgnored,
        Self::MailboxBeforeOpen,
        Self::SleeperDoesNotLookAgain,
        Self::ScrubLeavesWriting,
        Self::ScrubCellBeforeSlot,
        Self::ScrubLeavesHanded,
        Self::ScrubSeesOnlyClosed,
        Self::ScrubDoesNotClose,
        Self::NoKick,
        Self::LateAnswersLeft,
        Self::RetractSlotFirst,
    ];
}

/// One configuration. Row 0 and, if `callers` is 2, row 2 are callers, row 1 is the responder.
#[derive(Clone, Copy, Debug)]
pub struct Mailbox {
    /// Callers, 1 or 2.
    pub callers: usize,
    /// Calls of each caller, one after the other.
    pub calls: u8,
    /// Slots, at most 3.
    pub slots: usize,
    /// Cells of each mailbox, at most 2.
    pub cells: usize,
    /// Deaths of participants.
    pub deaths: u8,
    /// Deaths of the reaper in the middle of a scrub.
    pub reaper_deaths: u8,
    /// New processes in the rows of dead ones.
    pub restarts: u8,
    /// New processes open their mailbox and then look at nothing.
    pub new_are_idle: bool,
    /// How often a caller may give up at its deadline.
    pub late: u8,
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Kind {
    #[default]
    Request,
    Reply,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Letter {
    kind: Kind,
    // Who it is from and for, by incarnation; which call; which slot.
    from: u8,
    from_incarnation: u8,
    to_incarnation: u8,
    call: u8,
    slot: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum CellState {
    #[default]
    Free,
    Writing,
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Cell {
    state: CellState,
    ticket: u8,
    poster: u8,
    letter: Letter,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum SlotState {
    #[default]
    Free,
    Claim,
    Handed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Slot {
    state: SlotState,
    // The owner of a CLAIM, the addressee of a HANDED.
    row: u8,
    ticket: u8,
    // What is in it, as a ghost: a call of a caller, or the reply to it. 0: nothing in particular.
    bytes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Box {
    // The incarnation of the owner; 0: closed.
    open: u8,
    tickets: u8,
    cells: [Cell; CELLS],
    is_sleeping: bool,
}

impl Box {
    // The letter with the lowest ticket.
    fn first_ready(&self) -> Option<usize> {
        let ready = (0..CELLS).filter(|&i| self.cells[i].state == CellState::Ready);
        ready.min_by_key(|&i| self.cells[i].ticket)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum At {
    #[default]
    Nobody,
    Open,
    Busy,
    Idle,
    Choose,
    Loan,
    Fill,
    // post
    PostReadOpen,
    PostCell,
    PostHand,
    PostReady,
    PostReadOpenAgain,
    PostRing,
    RetractCell,
    RetractSlot,
    RetractDone,
    Abandon,
    // wait, for a reply or for a request
    Mark,
    ReadOpen,
    Scan,
    Asleep,
    // a letter
    Pick,
    Read,
    Release,
    // responder
    ReadCaller,
    LoanReply,
    ReleaseRequest,
}

// The letter being posted: where, how, what for. `then` follows the posting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Post {
    to: u8,
    cell: u8,
    ticket: u8,
    letter: Letter,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Process {
    at: At,
    calls: u8,
    // The call being made or answered, 0: none. Calls of all callers have different numbers.
    call: u8,
    post: Post,
    // The letter being taken: cell and ticket. Then, at the responder, the request being answered.
    cell: u8,
    ticket: u8,
    letter: Letter,
    // The responder was gone when it was looked at.
    is_gone: bool,
    // A post (or a kick) rang since it last marked itself as sleeping.
    is_rung: bool,
}

impl Process {
    fn pick(&mut self, own: &Box, cell: usize) {
        self.at = At::Pick;
        self.cell = cell as u8;
        self.ticket = own.cells[cell].ticket;
        self.letter = own.cells[cell].letter;
        self.is_gone = false;
        self.is_rung = false;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum ReaperAt {
    #[default]
    Nobody,
    Close,
    OwnCells,
    Cells,
    CellSlot,
    CellFree,
    Slots,
    Kick,
    FreeRow,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Reaper {
    at: ReaperAt,
    row: u8,
    // Index over the cells of all mailboxes, or over the slots.
    index: u8,
}

/// Shared memory, processes, reaper, and what may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    boxes: [Box; ROWS],
    slots: [Slot; SLOTS],
    in_use: u8,
    incarnations: [u8; ROWS],
    processes: [Process; ROWS],
    reaper: Reaper,
    deaths: u8,
    reaper_deaths: u8,
    restarts: u8,
    late: u8,
}

impl State {
    fn ring(&mut self, row: usize) {
        self.boxes[row].is_sleeping = false;
        let process = &mut self.processes[row];
        if process.at == At::Asleep {
            process.at = At::Mark;
        }
        if matches!(process.at, At::ReadOpen | At::Scan) {
            process.is_rung = true;
        }
    }

    // HANDED(ticket, row) to FREE, if there is such a slot.
    fn free_handed(&mut self, row: u8, ticket: u8) {
        for slot in &mut self.slots {
            if slot.state == SlotState::Handed && slot.row == row && slot.ticket == ticket {
                *slot = Slot::default();
            }
        }
    }

    fn free_slots(&self, model: &Mailbox) -> usize {
        let free = |slot: &&Slot| slot.state == SlotState::Free;
        self.slots[..model.slots].iter().filter(free).count()
    }
}

fn bytes_of(letter: &Letter) -> u8 {
    letter.call * 2 + u8::from(letter.kind == Kind::Reply)
}

impl Mailbox {
    fn without(&self, rule: Mutant) -> bool {
        self.mutant == Some(rule)
    }

    fn is_responder(row: usize) -> bool {
        row == 1
    }
}

impl Model for Mailbox {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State {
            deaths: self.deaths,
            reaper_deaths: self.reaper_deaths,
            restarts: self.restarts,
            late: self.late,
            ..State::default()
        };
        for row in 0..=self.callers {
            state.in_use |= 1 << row;
            state.incarnations[row] = 1;
            state.boxes[row].open = 1;
            state.processes[row].at = At::Idle;
            state.processes[row].calls = if Self::is_responder(row) {
                0
            } else {
                self.calls
            };
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for row in 0..=self.callers {
            let at = state.processes[row].at;
            if at == At::Nobody {
                Self::restart(state, row, steps);
                continue;
            }
            if state.deaths > 0 && at != At::Busy {
                let mut next = *state;
                next.deaths -= 1;
                next.processes[row] = Process::default();
                steps.to(next, || format!("{row} KILLED before {at:?}"));
            }
            match at {
                At::Busy => {}
                At::PostReadOpen
                | At::PostCell
                | At::PostHand
                | At::PostReady
                | At::PostReadOpenAgain
                | At::PostRing
                | At::RetractCell
                | At::RetractSlot
                | At::RetractDone
                | At::Abandon => self.post(state, row, at, steps),
                At::Mark | At::ReadOpen | At::Scan | At::Asleep => self.wait(state, row, at, steps),
                _ => self.work(state, row, at, steps),
            }
        }
        self.reap(state, steps);
    }

    fn at_rest(&self, state: &State) -> Option<&'static str> {
        for row in 0..=self.callers {
            let process = &state.processes[row];
            if process.at == At::Asleep && !Self::is_responder(row) && process.call != 0 {
                return Some("STUCK: a caller waits for ever");
            }
            let has_letter = state.boxes[row]
                .cells
                .iter()
                .any(|cell| cell.state == CellState::Ready);
            if process.at == At::Asleep && has_letter {
                return Some("LOST WAKE of the owner of a mailbox");
            }
            if matches!(process.at, At::LoanReply | At::Loan) {
                return Some("WEDGE: no slot for ever");
            }
        }
        if state
            .boxes
            .iter()
            .flat_map(|b| b.cells)
            .any(|cell| cell.state != CellState::Free)
        {
            return Some("LEAK: a cell of nobody");
        }
        let leaks = state.slots.iter().any(|slot| slot.state != SlotState::Free);
        leaks.then_some("LEAK: a slot of nobody")
    }
}

impl Mailbox {
    fn restart(state: &State, row: usize, steps: &mut Steps<State>) {
        if state.restarts == 0 || state.in_use >> row & 1 == 1 {
            return;
        }
        let mut next = *state;
        next.restarts -= 1;
        next.in_use |= 1 << row;
        next.incarnations[row] += 1;
        next.processes[row].at = At::Open;
        next.processes[row].calls = u8::from(!Self::is_responder(row));
        steps.to(next, || format!("{row}: a new process attaches"));
    }

    // Back to where a process waits: a caller with a call in flight or nothing to do, or the responder.
    fn waiting(process: &Process) -> Process {
        Process {
            at: At::Mark,
            calls: process.calls,
            call: process.call,
            post: process.post,
            ..Process::default()
        }
    }

    fn call_ended(process: &Process) -> Process {
        Process {
            at: At::Idle,
            calls: process.calls,
            ..Process::default()
        }
    }

    fn work(&self, state: &State, row: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[row];
        let responds = Self::is_responder(row);
        let mut violation = None;
        let me = &mut next.processes[row];
        match at {
            At::Open => {
                me.at = if self.new_are_idle {
                    At::Busy
                } else {
                    At::Idle
                };
                next.boxes[row].open = state.incarnations[row];
            }
            At::Idle => {
                me.at = if process.calls > 0 {
                    At::Choose
                } else {
                    At::Mark
                }
            }
            At::Choose => {
                let open = state.boxes[1].open;
                me.calls -= 1;
                if open == 0 {
                    *me = Self::call_ended(me); // nobody responds
                } else {
                    me.call =
                        (row as u8) * 4 + state.incarnations[row] * 2 - 1 + (process.calls & 1);
                    me.post.to = 1;
                    me.post.letter.to_incarnation = open;
                    me.at = At::Loan;
                }
            }
            At::Loan | At::LoanReply => {
                // A caller leaves a slot for the reply.
                let needed = if at == At::Loan { 2 } else { 1 };
                if state.free_slots(self) < needed {
                    let letter = state.boxes[row].first_ready();
                    if let Some(cell) =
                        letter.filter(|_| !responds && !self.without(Mutant::LateAnswersLeft))
                    {
                        // A late answer: throw it away, then begin the call anew.
                        *me = Self::call_ended(&process);
                        me.calls += 1;
                        me.pick(&state.boxes[row], cell);
                        steps.to(next, || format!("{row} looks into its mailbox for slots"));
                    }
                    return;
                }
                let free = state
                    .slots
                    .iter()
                    .position(|slot| slot.state == SlotState::Free);
                let slot = free.unwrap_or_default();
                me.post.letter.slot = slot as u8;
                me.at = At::Fill;
                next.slots[slot] = Slot {
                    state: SlotState::Claim,
                    row: row as u8,
                    ..Slot::default()
                };
            }
            At::Fill => {
                let letter = &mut me.post.letter;
                letter.kind = if responds { Kind::Reply } else { Kind::Request };
                letter.from = row as u8;
                letter.from_incarnation = state.incarnations[row];
                letter.call = process.call;
                let slot = letter.slot as usize;
                next.slots[slot].bytes = bytes_of(letter);
                me.at = At::PostReadOpen;
            }
            At::Pick => {
                // Taken back or picked up by nobody else: only then is it ours.
                let cell = state.boxes[row].cells[process.cell as usize];
                if cell.state != CellState::Ready || cell.ticket != process.ticket {
                    *me = Self::waiting(&process);
                } else {
                    let for_me = process.letter.to_incarnation == state.incarnations[row]
                        || self.without(Mutant::IncarnationIgnored);
                    let expected = for_me && (responds || process.letter.call == process.call);
                    me.at = if expected { At::Read } else { At::Release };
                    next.boxes[row].cells[process.cell as usize] = Cell::default();
                }
            }
            At::Read => {
                let slot = state.slots[process.letter.slot as usize];
                let is_mine = slot.state == SlotState::Handed
                    && slot.row as usize == row
                    && slot.ticket == process.ticket
                    && slot.bytes == bytes_of(&process.letter);
                violation = (!is_mine).then_some("WRONG BYTES: a letter without its slot");
                me.call = if responds { process.letter.call } else { 0 };
                me.at = if responds {
                    At::ReadCaller
                } else {
                    At::Release
                };
            }
            At::ReadCaller => {
                let caller = process.letter.from;
                let lives = state.boxes[caller as usize].open == process.letter.from_incarnation;
                me.post.to = caller;
                me.post.letter.to_incarnation = process.letter.from_incarnation;
                me.at = if lives {
                    At::LoanReply
                } else {
                    At::ReleaseRequest
                };
            }
            // Release, ReleaseRequest
            _ => {
                *me = if process.call == 0 || responds {
                    Self::call_ended(&process)
                } else {
                    Self::waiting(&process)
                };
                next.free_handed(row as u8, process.ticket);
            }
        }
        steps.check(next, violation, || {
            format!("{row} {at:?} (call {})", process.call)
        });
    }

    // The reply or the request is posted, or cannot be.
    fn after_post(process: &Process, row: usize, is_posted: bool) -> Process {
        if Self::is_responder(row) {
            return Process {
                at: At::ReleaseRequest,
                post: Post::default(),
                ..*process
            };
        }
        if is_posted {
            Self::waiting(process)
        } else {
            Self::call_ended(process)
        }
    }

    fn post(&self, state: &State, row: usize, at: At, steps: &mut Steps<State>) {
        let mut next = *state;
        let process = state.processes[row];
        let post = process.post;
        let slot = post.letter.slot as usize;
        let to = post.to as usize;
        let is_open = state.boxes[to].open == post.letter.to_incarnation;
        let mine = |cell: &Cell| cell.ticket == post.ticket && cell.poster as usize == row;
        let cell = &mut next.boxes[to].cells[post.cell as usize];
        let me = &mut next.processes[row];
        let ready_first = self.without(Mutant::ReadyBeforeHanded);
        match at {
            At::PostReadOpen => me.at = if is_open { At::PostCell } else { At::Abandon },
            At::PostCell => {
                let cells = &state.boxes[to].cells[..self.cells];
                if let Some(free) = cells.iter().position(|cell| cell.state == CellState::Free) {
                    let ticket = state.boxes[to].tickets + 1;
                    me.post.cell = free as u8;
                    me.post.ticket = ticket;
                    me.at = if ready_first {
                        At::PostReady
                    } else {
                        At::PostHand
                    };
                    next.boxes[to].tickets = ticket;
                    next.boxes[to].cells[free] = Cell {
                        state: CellState::Writing,
                        ticket,
                        poster: row as u8,
                        letter: post.letter,
                    };
                } else {
                    me.at = At::Abandon; // full
                }
            }
            At::PostHand => {
                let word = &mut next.slots[slot];
                word.state = SlotState::Handed;
                word.row = post.to;
                word.ticket = post.ticket;
                me.at = if ready_first {
                    At::PostReadOpenAgain
                } else {
                    At::PostReady
                };
            }
            At::PostReady => {
                cell.state = CellState::Ready;
                me.at = if ready_first {
                    At::PostHand
                } else {
                    At::PostReadOpenAgain
                };
            }
            At::PostReadOpenAgain => {
                let is_good = is_open || self.without(Mutant::NoSecondLook);
                me.at = if is_good {
                    At::PostRing
                } else {
                    At::RetractCell
                };
            }
            At::PostRing => {
                *me = Self::after_post(&process, row, true);
                if state.boxes[to].is_sleeping {
                    next.ring(to);
                }
            }
            At::RetractCell => {
                if cell.state == CellState::Ready && mine(cell) {
                    if self.without(Mutant::RetractSlotFirst) {
                        me.at = At::RetractDone;
                        next.free_handed(post.to, post.ticket);
                    } else {
                        cell.state = CellState::Writing;
                        me.at = At::RetractSlot;
                    }
                } else {
                    *me = Self::after_post(&process, row, false); // somebody has it
                }
            }
            At::RetractSlot => {
                me.at = At::RetractDone;
                next.free_handed(post.to, post.ticket);
            }
            At::RetractDone => {
                if mine(cell) {
                    *cell = Cell::default();
                }
                *me = Self::after_post(&process, row, false);
            }
            // Abandon
            _ => {
                *me = Self::after_post(&process, row, false);
                next.slots[slot] = Slot::default();
            }
        }
        steps.to(next, || {
            format!("{row} {at:?} to {to} (slot {slot}, ticket {})", post.ticket)
        });
    }

    fn wait(&self, state: &State, row: usize, at: At, steps: &mut Steps<State>) {
        let process = state.processes[row];
        let is_calling = process.call != 0 && !Self::is_responder(row);
        if is_calling && state.late > 0 {
            let mut next = *state;
            next.late -= 1;
            next.boxes[row].is_sleeping = false;
            next.processes[row].at = At::RetractCell;
            next.processes[row].is_rung = false;
            next.processes[row].is_gone = false;
            steps.to(next, || format!("{row} is late with call {}", process.call));
        }
        let mut next = *state;
        let me = &mut next.processes[row];
        let scan_first = self.without(Mutant::MailboxBeforeOpen);
        match at {
            At::Mark => {
                me.is_gone = false;
                me.at = if scan_first { At::Scan } else { At::ReadOpen };
                if self.without(Mutant::SleeperDoesNotLookAgain) && !is_calling {
                    me.at = At::Asleep;
                }
                next.boxes[row].is_sleeping = true;
            }
            At::ReadOpen => {
                let is_gone = is_calling
                    && state.boxes[process.post.to as usize].open
                        != process.post.letter.to_incarnation;
                me.is_gone = is_gone;
                me.at = At::Scan;
                if scan_first {
                    Self::nothing_there(state, row, is_gone, &mut next);
                }
            }
            At::Scan => {
                if let Some(cell) = state.boxes[row].first_ready() {
                    next.boxes[row].is_sleeping = false;
                    next.processes[row].pick(&state.boxes[row], cell);
                } else if scan_first {
                    me.at = At::ReadOpen;
                } else {
                    Self::nothing_there(state, row, process.is_gone, &mut next);
                }
            }
            // Asleep: only a ring moves it.
            _ => return,
        }
        let violation = Self::missed_reply(state, row, &next);
        steps.check(next, violation, || {
            format!("{row} {at:?} (call {})", process.call)
        });
    }

    fn nothing_there(state: &State, row: usize, is_gone: bool, next: &mut State) {
        let process = state.processes[row];
        let me = &mut next.processes[row];
        if is_gone {
            *me = Self::call_ended(&process); // the responder died or left
            next.boxes[row].is_sleeping = false;
        } else if process.is_rung {
            me.is_rung = false;
            me.at = At::Mark;
        } else {
            me.is_gone = false;
            me.at = At::Asleep;
        }
    }

    // A caller says "died" although the reply lies in its mailbox.
    fn missed_reply(state: &State, row: usize, next: &State) -> Option<&'static str> {
        let call = state.processes[row].call;
        let has_reply = |cell: &Cell| {
            cell.state == CellState::Ready
                && cell.letter.kind == Kind::Reply
                && cell.letter.call == call
        };
        let gives_up = call != 0 && next.processes[row].at == At::Idle && !Self::is_responder(row);
        (gives_up && state.boxes[row].cells.iter().any(has_reply))
            .then_some("LOST: a reply that was posted")
    }
}

impl Mailbox {
    fn reap(&self, state: &State, steps: &mut Steps<State>) {
        let reaper = state.reaper;
        let row = reaper.row as usize;
        if reaper.at == ReaperAt::Nobody {
            for row in 0..=self.callers {
                if state.processes[row].at == At::Nobody && state.in_use >> row & 1 == 1 {
                    let mut next = *state;
                    next.reaper.row = row as u8;
                    next.boxes[row].is_sleeping = false;
                    next.reaper.at = if self.without(Mutant::CellsBeforeClose) {
                        ReaperAt::OwnCells
                    } else {
                        ReaperAt::Close
                    };
                    steps.to(next, || format!("reaper locks {row}, clears its marks"));
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
        let index = reaper.index as usize;
        let (owner, number) = (index / CELLS, index % CELLS);
        let slot_last = self.without(Mutant::ScrubCellBeforeSlot);
        match reaper.at {
            ReaperAt::Nobody => {}
            ReaperAt::Close => {
                if !self.without(Mutant::ScrubDoesNotClose) {
                    next.boxes[row].open = 0;
                }
                let cells_first = self.without(Mutant::CellsBeforeClose);
                next.reaper.at = if cells_first {
                    ReaperAt::Cells
                } else {
                    ReaperAt::OwnCells
                };
            }
            ReaperAt::OwnCells => {
                let cell = &mut next.boxes[row].cells[number];
                if cell.state == CellState::Ready {
                    *cell = Cell::default();
                }
                next.reaper.index += 1;
                if number + 1 == CELLS {
                    next.reaper.index = 0;
                    next.reaper.at = if self.without(Mutant::CellsBeforeClose) {
                        ReaperAt::Close
                    } else {
                        ReaperAt::Cells
                    };
                }
            }
            ReaperAt::Cells => {
                let cell = state.boxes[owner].cells[number];
                let is_request = cell.letter.kind == Kind::Request;
                let open = state.boxes[owner].open;
                let is_current = if self.without(Mutant::ScrubSeesOnlyClosed) {
                    open != 0
                } else {
                    open == cell.letter.to_incarnation
                };
                let is_posted_in_vain = is_request || !is_current;
                let is_his = cell.poster as usize == row;
                if is_his && cell.state == CellState::Ready && is_posted_in_vain {
                    next.boxes[owner].cells[number].state = CellState::Writing;
                    next.reaper.at = ReaperAt::CellSlot;
                } else if is_his
                    && cell.state == CellState::Writing
                    && !self.without(Mutant::ScrubLeavesWriting)
                {
                    next.reaper.at = if slot_last {
                        ReaperAt::CellFree
                    } else {
                        ReaperAt::CellSlot
                    };
                } else {
                    self.next_cell(&mut next);
                }
            }
            ReaperAt::CellSlot => {
                next.free_handed(owner as u8, state.boxes[owner].cells[number].ticket);
                next.reaper.at = ReaperAt::CellFree;
            }
            ReaperAt::CellFree => {
                next.boxes[owner].cells[number] = Cell::default();
                self.next_cell(&mut next);
            }
            ReaperAt::Slots => {
                let slot = &mut next.slots[index];
                let is_his = slot.row as usize == row;
                let handed =
                    slot.state == SlotState::Handed && !self.without(Mutant::ScrubLeavesHanded);
                if is_his && (handed || slot.state == SlotState::Claim) {
                    *slot = Slot::default();
                }
                next.reaper.index += 1;
                if index + 1 == SLOTS {
                    next.reaper.index = 0;
                    next.reaper.at = ReaperAt::Kick;
                }
            }
            ReaperAt::Kick => {
                if !self.without(Mutant::NoKick) {
                    (0..ROWS).for_each(|row| next.ring(row));
                }
                next.reaper.at = ReaperAt::FreeRow;
            }
            ReaperAt::FreeRow => {
                next.in_use &= !(1 << row);
                next.reaper = Reaper::default();
            }
        }
        steps.to(next, || format!("reaper {:?} {index} of {row}", reaper.at));
    }

    fn next_cell(&self, next: &mut State) {
        next.reaper.at = ReaperAt::Cells;
        next.reaper.index += 1;
        if next.reaper.index as usize == (self.callers + 1) * CELLS {
            next.reaper.index = 0;
            next.reaper.at = ReaperAt::Slots;
        }
    }
}

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Mailbox);

const BASE: Mailbox = Mailbox {
    callers: 1,
    calls: 1,
    slots: 2,
    cells: 1,
    deaths: 1,
    reaper_deaths: 0,
    restarts: 0,
    new_are_idle: false,
    late: 0,
    mutant: None,
};

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    let restart = Mailbox { restarts: 1, reaper_deaths: 1, cells: 2, ..BASE };
    vec![
        ("mailbox: 2 calls, 1 death", true, Mailbox { calls: 2, cells: 2, ..BASE }),
        ("mailbox: 1 call, late, 1 death", true, Mailbox { late: 1, ..BASE }),
        ("mailbox: 2 calls, late", true, Mailbox { calls: 2, cells: 2, slots: 3, late: 2, deaths: 0, ..BASE }),
        ("mailbox: 1 call, 2 deaths, reaper death, restart", true, Mailbox { deaths: 2, ..restart }),
        ("mailbox: 2 calls, late, 2 slots", true, Mailbox { calls: 2, cells: 2, late: 1, deaths: 0, ..BASE }),
        ("mailbox: 1 call, 2 deaths, idle restart", true, Mailbox { deaths: 2, new_are_idle: true, ..restart }),
        ("mailbox: 2 callers", true, Mailbox { callers: 2, slots: 3, cells: 2, deaths: 0, ..BASE }),
        ("mailbox: 2 callers, 1 death", false, Mailbox { callers: 2, slots: 3, cells: 2, ..BASE }),
        ("mailbox: 2 calls, late, 2 deaths, restart", false,
            Mailbox { calls: 2, late: 1, deaths: 2, slots: 3, ..restart }),
    ]
}

/// The configuration in which the lack of this rule must show.
#[rustfmt::skip] // a table
pub fn case_of(mutant: Mutant) -> Mailbox {
    let mailbox = match mutant {
        Mutant::LateAnswersLeft => Mailbox { calls: 2, cells: 2, late: 1, deaths: 0, ..BASE },
        Mutant::RetractSlotFirst => Mailbox { late: 1, deaths: 0, ..BASE },
        Mutant::SleeperDoesNotLookAgain | Mutant::ReadyBeforeHanded => Mailbox { deaths: 0, ..BASE },
        Mutant::IncarnationIgnored => Mailbox { deaths: 2, restarts: 2, cells: 2, ..BASE },
        Mutant::ScrubSeesOnlyClosed => Mailbox { deaths: 2, restarts: 1, new_are_idle: true, ..BASE },
        Mutant::ScrubCellBeforeSlot => Mailbox { reaper_deaths: 1, ..BASE },
        _ => BASE,
    };
    Mailbox { mutant: Some(mutant), ..mailbox }
}
