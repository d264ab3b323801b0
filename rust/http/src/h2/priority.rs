//! Which stream sends next (RFC 9218, "Extensible Prioritization Scheme").
//!
//! The crate sends what it was given first. So what it is given is decided here: a stream hands over a piece of its body only
//! when it is the first of those that have one, and while little of what was handed over waits to be written.
//!
//! Order: urgency; among equals the streams that asked to be sent whole, by their number; then those that may share, in turns.
//! A stream that said nothing of its priority shares: by the letter of the RFC it is to be sent whole, but a client that knows
//! nothing of priorities does not expect one endless response to stop all others.
//!
//! A stream that is first and gets no window has either used up its own, and then the next one is first; or that of the
//! connection is used up, and then nobody can send and it stays first. [`Gate::credit`] and [`Gate::left`] follow the
//! connection's window to tell which.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName};

/// What a connection's window is opened to in the beginning, on both sides (RFC 9113, 6.9.2).
pub(super) const WINDOW_BYTES: i64 = 65_535;
const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// Updates that are remembered for requests that have not come yet.
const EARLY_UPDATES_MAX: usize = 64;

/// What a client said of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priority {
    /// 0 is first, 7 is last.
    urgency: u8,
    /// The response is of use in parts: it shares.
    incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self {
            urgency: 3,
            incremental: true,
        }
    }
}

impl Priority {
    /// From the fields of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(PRIORITY) {
            Some(value) => Self::parse(value.as_bytes()),
            None => Self::default(),
        }
    }

    /// A dictionary of RFC 8941, of which only `u` and `i` mean anything. What cannot be read says nothing.
    fn parse(value: &[u8]) -> Self {
        let mut priority = Self {
            urgency: 3,
            incremental: false,
        };
        for item in value.split(|&byte| byte == b',') {
            // Parameters after a semicolon mean nothing here.
            let item = item.split(|&byte| byte == b';').next().unwrap_or(item);
            match item.trim_ascii() {
                [b'u', b'=', urgency @ b'0'..=b'7'] => priority.urgency = urgency - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }
}

/// A place in the order; the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    urgency: u8,
    incremental: bool,
    /// Of those that share: raised with each piece.
    round: u64,
    stream: u32,
}

/// One stream's part of the matter.
pub(super) struct Turn {
    stream: u32,
    priority: Cell<Priority>,
    round: Cell<u64>,
    /// Where it stands in the queue, while it does.
    place: Cell<Option<Place>>,
}

impl Turn {
    fn next_place(&self) -> Place {
        let Priority {
            urgency,
            incremental,
        } = self.priority.get();
        Place {
            urgency,
            incremental,
            round: if incremental { self.round.get() } else { 0 },
            stream: self.stream,
        }
    }
}

/// Lets one stream of a connection through at a time.
pub(super) struct Gate {
    /// Streams that have something to send.
    queue: RefCell<BTreeMap<Place, Waker>>,
    /// Streams whose response is not handed over at once.
    turns: RefCell<HashMap<u32, Rc<Turn>>>,
    /// Updates that came before their request.
    early: RefCell<HashMap<u32, Priority>>,
    /// The highest number of a request that was seen.
    last: Cell<u32>,
    round: Cell<u64>,
    /// Bytes that were handed over and are not written.
    waiting: Cell<usize>,
    waiting_max: usize,
    /// What the client takes on this connection, less what was written.
    window: Cell<i64>,
    /// All that the client ever added to that.
    granted: Cell<u64>,
}

impl Gate {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            queue: RefCell::default(),
            turns: RefCell::default(),
            early: RefCell::default(),
            last: Cell::new(0),
            round: Cell::new(0),
            waiting: Cell::new(0),
            waiting_max,
            window: Cell::new(WINDOW_BYTES),
            granted: Cell::new(0),
        }
    }

    /// A request was taken. Its response gets a turn of its own only when it needs one.
    pub(super) fn seen(&self, stream: u32) {
        self.last.set(self.last.get().max(stream));
    }

    /// A stream that will send.
    pub(super) fn enter(&self, stream: u32, priority: Priority) -> Rc<Turn> {
        let priority = self.early.borrow_mut().remove(&stream).unwrap_or(priority);
        let turn = Rc::new(Turn {
            stream,
            priority: Cell::new(priority),
            round: Cell::new(self.next_round()),
            place: Cell::new(None),
        });
        self.turns.borrow_mut().insert(stream, turn.clone());
        turn
    }

    fn next_round(&self) -> u64 {
        let round = self.round.get();
        self.round.set(round + 1);
        round
    }

    /// The stream has sent everything, or never will.
    pub(super) fn leave(&self, turn: &Turn) {
        self.turns.borrow_mut().remove(&turn.stream);
        self.early.borrow_mut().remove(&turn.stream);
        self.step_aside(turn);
    }

    /// The stream has nothing that it could send: others may.
    pub(super) fn step_aside(&self, turn: &Turn) {
        if let Some(place) = turn.place.take() {
            let removed = self.queue.borrow_mut().remove(&place);
            drop(removed);
            self.wake_first();
        }
    }

    /// Ready when this stream may hand over a piece.
    pub(super) fn poll_turn(&self, turn: &Turn, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.borrow_mut();
        let place = turn.next_place();
        if let Some(old) = turn.place.replace(Some(place))
            && old != place
        {
            queue.remove(&old);
        }
        match queue.get_mut(&place) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => drop(queue.insert(place, cx.waker().clone())),
        }
        let first = queue.keys().next() == Some(&place);
        drop(queue);
        if first && self.waiting.get() < self.waiting_max {
            return Poll::Ready(());
        }
        if !first {
            // This one was first until it handed something over.
            self.wake_first();
        }
        Poll::Pending
    }

    /// True when a stream without a turn may hand over a body of that size without getting in anybody's way.
    pub(super) fn is_free(&self) -> bool {
        self.waiting.get() < self.waiting_max && self.queue.borrow().is_empty()
    }

    /// That much was handed over.
    pub(super) fn handed(&self, turn: Option<&Turn>, bytes: usize) {
        self.waiting.set(self.waiting.get() + bytes);
        if let Some(turn) = turn
            && turn.priority.get().incremental
        {
            turn.round.set(self.next_round());
        }
    }

    /// The first stream got no window. True when another one may have more luck: it was this stream's own that is used up.
    pub(super) fn is_stream_blocked(&self) -> bool {
        let waiting = i64::try_from(self.waiting.get()).unwrap_or(i64::MAX);
        self.window.get() > waiting
    }

    /// The client takes more on this connection.
    pub(super) fn credit(&self, bytes: u32) {
        self.window
            .set(self.window.get().saturating_add(i64::from(bytes)));
        self.granted.set(self.granted.get() + u64::from(bytes));
    }

    /// What the client has granted to the connection so far, while somebody waits for it to grant more.
    pub(super) fn awaited_credit(&self) -> Option<u64> {
        let waited_for = !self.queue.borrow().is_empty() && !self.is_stream_blocked();
        waited_for.then(|| self.granted.get())
    }

    /// That much has been written.
    pub(super) fn left(&self, bytes: usize) {
        self.waiting.set(self.waiting.get().saturating_sub(bytes));
        self.window
            .set(self.window.get() - i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Everything has been written. What a reset took out of the crate never will be.
    pub(super) fn flushed(&self) {
        self.waiting.set(0);
    }

    /// For fuzzing: the connection's window and all that was added to it. And what is remembered is bounded.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn told(&self) -> (i64, u64) {
        assert!(self.early.borrow().len() <= EARLY_UPDATES_MAX);
        (self.window.get(), self.granted.get())
    }

    /// Has the first stream look whether it may go on. To be called when the crate has written.
    pub(super) fn wake_first(&self) {
        if self.waiting.get() < self.waiting_max
            && let Some((_, waker)) = self.queue.borrow().first_key_value()
        {
            waker.wake_by_ref();
        }
    }

    /// `PRIORITY_UPDATE`, which may come before the request (RFC 9218, 7).
    pub(super) fn update(&self, stream: u32, value: &[u8]) {
        let priority = Priority::parse(value);
        if let Some(turn) = self.turns.borrow().get(&stream) {
            turn.priority.set(priority);
            if let Some(old) = turn.place.get() {
                let place = turn.next_place();
                turn.place.set(Some(place));
                let mut queue = self.queue.borrow_mut();
                if let Some(waker) = queue.remove(&old) {
                    queue.insert(place, waker);
                }
            }
            return;
        }
        let mut early = self.early.borrow_mut();
        if stream > self.last.get() {
            if early.len() >= EARLY_UPDATES_MAX {
                // Those whose request came meanwhile are of no use any more.
                let last = self.last.get();
                early.retain(|&stream, _| stream > last);
            }
            if early.len() < EARLY_UPDATES_MAX {
                early.insert(stream, priority);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::{Gate, Priority, Turn, WINDOW_BYTES};

    fn priority(urgency: u8, incremental: bool) -> Priority {
        Priority {
            urgency,
            incremental,
        }
    }

    /// Hands over pieces of all streams, `count` of them; gives the stream of each.
    fn order(gate: &Gate, turns: &[&Turn], count: usize) -> Vec<u32> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut order = Vec::new();
        while order.len() < count {
            // All are there before the first is let through.
            for turn in turns {
                let _ = gate.poll_turn(turn, &mut cx);
            }
            let first = turns
                .iter()
                .find(|turn| gate.poll_turn(turn, &mut cx).is_ready())
                .expect("one of them is first");
            gate.handed(Some(first), 1);
            gate.left(1);
            order.push(first.stream);
        }
        order
    }

    #[test]
    fn values_are_read_as_far_as_they_mean_something() {
        for (value, urgency, incremental) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=7, i", 7, true),
            ("i,u=1", 1, true),
            ("i=?1", 3, true),
            ("u=5, i=?0", 5, false),
            ("u=8", 3, false),
            ("u=-1, i", 3, true),
            ("u=1;x=2, i;y", 1, true),
            ("u=10", 3, false),
            ("unknown=3, u=2", 2, false),
            ("u=\u{e4}", 3, false),
        ] {
            assert_eq!(
                Priority::parse(value.as_bytes()),
                priority(urgency, incremental),
                "{value:?}"
            );
        }
    }

    #[test]
    fn urgent_streams_come_first_whatever_came_before() {
        let gate = Gate::new(100);
        let lazy = gate.enter(1, priority(7, false));
        let urgent = gate.enter(3, priority(0, false));
        assert_eq!(order(&gate, &[&lazy, &urgent], 3), [3, 3, 3]);
        gate.leave(&urgent);
        assert_eq!(order(&gate, &[&lazy], 2), [1, 1]);
    }

    #[test]
    fn equals_are_sent_whole_in_order_or_share_in_turns() {
        let gate = Gate::new(100);
        let (a, b) = (
            gate.enter(1, priority(3, false)),
            gate.enter(3, priority(3, false)),
        );
        assert_eq!(order(&gate, &[&b, &a], 3), [1, 1, 1]);
        gate.leave(&a);
        gate.leave(&b);
        let (a, b) = (
            gate.enter(5, Priority::default()),
            gate.enter(7, Priority::default()),
        );
        assert_eq!(order(&gate, &[&b, &a], 4), [5, 7, 5, 7]);
    }

    #[test]
    fn update_changes_the_order_of_streams_that_wait() {
        let gate = Gate::new(100);
        let (a, b) = (
            gate.enter(1, priority(3, false)),
            gate.enter(3, priority(3, false)),
        );
        assert_eq!(order(&gate, &[&a, &b], 1), [1]);
        gate.update(3, b"u=1");
        assert_eq!(order(&gate, &[&a, &b], 2), [3, 3]);
    }

    #[test]
    fn update_before_the_request_counts_and_memory_is_bounded() {
        let gate = Gate::new(100);
        gate.update(9, b"u=0");
        for stream in 0..10_000 {
            gate.update(stream * 2 + 101, b"u=1");
        }
        assert_eq!(gate.early.borrow().len(), super::EARLY_UPDATES_MAX);
        assert_eq!(
            gate.enter(9, Priority::default()).priority.get(),
            priority(0, false)
        );
        gate.seen(1_000_001);
        gate.update(1_000_003, b"u=1");
        gate.update(1_000_005, b"u=1");
        assert_eq!(gate.early.borrow().len(), 2, "the old ones are forgotten");
    }

    #[test]
    fn nobody_passes_while_much_waits_to_be_written() {
        let gate = Gate::new(10);
        let turn = gate.enter(1, Priority::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(gate.poll_turn(&turn, &mut cx), Poll::Ready(()));
        gate.handed(Some(&turn), 10);
        assert_eq!(gate.poll_turn(&turn, &mut cx), Poll::Pending);
        gate.left(1);
        assert_eq!(gate.poll_turn(&turn, &mut cx), Poll::Ready(()));
    }

    #[test]
    fn whose_window_is_used_up_is_known() {
        let gate = Gate::new(100_000);
        assert!(gate.is_stream_blocked());
        gate.handed(None, usize::try_from(WINDOW_BYTES).unwrap());
        assert!(!gate.is_stream_blocked(), "all credit is handed out");
        gate.left(usize::try_from(WINDOW_BYTES).unwrap());
        assert!(!gate.is_stream_blocked(), "or written");
        gate.credit(1);
        assert!(gate.is_stream_blocked());
    }

    #[test]
    fn credit_is_waited_for_by_who_has_something_to_send() {
        let gate = Gate::new(100_000);
        let turn = gate.enter(1, Priority::default());
        let mut cx = Context::from_waker(Waker::noop());
        gate.left(usize::try_from(WINDOW_BYTES).unwrap());
        assert_eq!(gate.awaited_credit(), None, "nobody has anything");
        assert!(gate.poll_turn(&turn, &mut cx).is_ready());
        assert_eq!(gate.awaited_credit(), Some(0));
        gate.credit(7);
        assert_eq!(gate.awaited_credit(), None, "it may go on");
        gate.left(7);
        assert_eq!(gate.awaited_credit(), Some(7));
        gate.step_aside(&turn);
        assert_eq!(gate.awaited_credit(), None);
    }
}
