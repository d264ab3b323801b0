//! All open connections of one server, and the sweep that watches over them.
//!
//! One timer serves all connections: each sweep looks at the phase of every connection and orders what is due. A
//! connection counts its changes of phase (`epoch`) and reads no clock; the sweep remembers since when it has seen the same
//! epoch. So time limits cost nothing per request.
//!
//! The sweep's clock is the loop's: a pause between two sweeps counts as two periods at most. When a handler
//! blocks the thread for a minute, bytes of many clients wait unread in their sockets, and those clients are not late.
//!
//! The sweep runs only while connections exist: a server without connections never wakes up.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::config::Config;
use crate::h1_io::{Order, Peer, Phase, Shared, Stall};
use crate::half_close;
use crate::set_back::SetBack;
use crate::tls::{CROWDED, Handshakes};

/// So many connections without a parser are worth a look at the memory that the parsers left.
const QUIETED_MIN: usize = 32;

/// Open connections, counters, and who waits for the last one to go.
pub(crate) struct Registry {
    entries: RefCell<Vec<Rc<Shared>>>,
    /// Entries that count towards the limit; of all servers that share it.
    admitted: RefCell<Arc<AtomicUsize>>,
    accepted: Cell<u64>,
    requests: Cell<u64>,
    /// Open streams of HTTP/2.
    streams: Cell<usize>,
    /// Bytes of connections that are closed.
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// Connections that were parked, upgraded or closed since memory was given back.
    quieted: Cell<usize>,
    sweeping: Cell<bool>,
    accepting: Cell<bool>,
    retiring: Cell<bool>,
    draining: Cell<bool>,
    listeners: RefCell<Vec<Waker>>,
    drains: RefCell<Vec<Waker>>,
    pub(crate) handshakes: Rc<Handshakes>,
    set_back: SetBack,
    /// What else the sweep looks at.
    swept: RefCell<Vec<Weak<dyn Swept>>>,
}

/// Something that has a limit of time and no timer: the sweep over all connections looks at it.
pub trait Swept {
    /// The time on the sweep's clock. Gives who is to be woken, if anything is due.
    ///
    /// A connection is open as long as this exists, or the sweep does not run.
    fn sweep(&self, now: Duration) -> Option<Waker>;
}

/// The sweep of a server.
#[derive(Clone)]
pub struct Sweep(Rc<Registry>);

impl Sweep {
    pub(crate) fn new(registry: Rc<Registry>) -> Self {
        Self(registry)
    }

    /// Has the sweep look at it as well, as long as somebody else holds it.
    pub fn watch<T: Swept + 'static>(&self, swept: &Rc<T>) {
        let swept: Weak<T> = Rc::downgrade(swept);
        self.0.swept.borrow_mut().push(swept);
    }
}

impl Registry {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            admitted: RefCell::default(),
            accepted: Cell::new(0),
            requests: Cell::new(0),
            streams: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            quieted: Cell::new(0),
            sweeping: Cell::new(false),
            accepting: Cell::new(true),
            retiring: Cell::new(false),
            draining: Cell::new(false),
            listeners: RefCell::default(),
            drains: RefCell::default(),
            handshakes: Rc::default(),
            set_back: SetBack::default(),
            swept: RefCell::default(),
        })
    }

    /// Enters a connection, which is to be refused if there are `connections_max` others; returns true when the caller has to
    /// start the sweep.
    pub(crate) fn enter(&self, shared: &Rc<Shared>, connections_max: Option<usize>) -> bool {
        // Relaxed: a count that guards nothing; each sees its own number.
        let admitted = self.admitted.borrow().fetch_add(1, Ordering::Relaxed);
        if connections_max.is_some_and(|limit| admitted >= limit) {
            self.admitted.borrow().fetch_sub(1, Ordering::Relaxed);
            shared.admitted.set(false);
        }
        let mut entries = self.entries.borrow_mut();
        shared.index.set(entries.len());
        entries.push(shared.clone());
        self.accepted.set(self.accepted.get() + 1);
        if self.retiring.get() {
            shared.requests_left.set(1);
        }
        if self.draining.get() {
            shared.draining.set(true);
        }
        shared.own_date.set(self.set_back.is_ahead());
        !self.sweeping.replace(true)
    }

    pub(crate) fn leave(&self, shared: &Shared) {
        self.count_quieted();
        let (bytes_in, bytes_out) = shared.bytes();
        self.bytes_in.set(self.bytes_in.get() + bytes_in);
        self.bytes_out.set(self.bytes_out.get() + bytes_out);
        if shared.admitted.get() {
            self.admitted.borrow().fetch_sub(1, Ordering::Relaxed);
        }
        let mut entries = self.entries.borrow_mut();
        let index = shared.index.get();
        let removed = entries.swap_remove(index);
        if let Some(moved) = entries.get(index) {
            moved.index.set(index);
        }
        let last = entries.is_empty();
        drop(entries);
        drop(removed);
        if last {
            wake_all(&self.drains);
        }
    }

    /// A connection holds no parser any more.
    pub(crate) fn count_quieted(&self) {
        self.quieted.set(self.quieted.get() + 1);
    }

    /// Connections that count towards the limit.
    pub(crate) fn admitted(&self) -> Arc<AtomicUsize> {
        self.admitted.borrow().clone()
    }

    /// From now on they are counted there. To be called before the first one enters.
    pub(crate) fn share_admitted(&self, admitted: Arc<AtomicUsize>) {
        self.admitted.replace(admitted);
    }

    /// Connections so far; also the number of the latest.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    pub(crate) fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    pub(crate) fn stream_opened(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    pub(crate) fn stream_closed(&self) {
        self.streams.set(self.streams.get() - 1);
    }

    /// Requests so far; also the number of the latest.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.accepting.get()
    }

    /// Sees to it that responses have the right `date` when the clock was set back.
    fn look_at_the_clock(&self, config: &Config) {
        let was_ahead = self.set_back.is_ahead();
        let is_ahead = config.date_header && self.set_back.look(SystemTime::now());
        if was_ahead != is_ahead {
            for shared in self.entries.borrow().iter() {
                shared.own_date.set(is_ahead);
            }
        }
    }

    pub(crate) fn wait_stop(&self, waker: &Waker) {
        remember(&self.listeners, waker);
    }

    /// Runs until no connection is left.
    pub(crate) async fn sweep(self: Rc<Self>, config: Rc<Config>) {
        let mut ticks = tokio::time::interval_at(
            Instant::now() + config.timeouts.sweep,
            config.timeouts.sweep,
        );
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wakers = Vec::new();
        let mut clock = Duration::ZERO;
        let mut last = Instant::now();
        loop {
            self.look_at_the_clock(&config);
            ticks.tick().await;
            let now = Instant::now();
            clock += (now - last).min(config.timeouts.sweep * 2);
            last = now;
            if self.quieted.get() >= QUIETED_MIN {
                self.quieted.set(0);
                if let Some(give_back) = config.give_back {
                    give_back();
                }
            }
            let crowded = self.handshakes.is_full();
            for shared in self.entries.borrow().iter() {
                shared.sweep_wide(&config);
                shared.tell_bytes();
                let mut order = due(shared, clock, &config, crowded);
                if order.is_none()
                    && let Some(streams) = shared.streams()
                {
                    order = streams.sweep(clock, &config, &mut wakers);
                }
                if let Some(order) = order {
                    if let Some(what) = broken_limit(order, shared.phase.get()) {
                        shared.trouble(what);
                    }
                    wakers.extend(shared.give_order(order));
                }
            }
            self.swept
                .borrow_mut()
                .retain(|swept| match swept.upgrade() {
                    Some(swept) => {
                        wakers.extend(swept.sweep(clock));
                        true
                    }
                    None => false,
                });
            // Outside the borrow: a waker may run foreign code.
            wakers.drain(..).for_each(Waker::wake);
            if self.entries.borrow().is_empty() {
                self.sweeping.set(false);
                return;
            }
        }
    }
}

/// Which time limit an order says that the peer broke, where no answer says so.
fn broken_limit(order: Order, phase: Phase) -> Option<&'static str> {
    match (order, phase) {
        (Order::Reset, _) => Some("cut: the client does not read what it is sent"),
        (Order::Close, Phase::Handshake) => Some("cut: the TLS handshake took too long"),
        (Order::Close, Phase::H2Busy) => Some("cut: no answer to a PING of HTTP/2"),
        (Order::HangUp, _) => Some("cut: the client closed its side and counts as gone"),
        _ => None,
    }
}

/// What a connection is due for, if anything. `crowded`: others wait for the places of handshakes.
fn due(shared: &Shared, now: Duration, config: &Config, crowded: bool) -> Option<Order> {
    if let Some(order) = stalled(shared, now, config) {
        return Some(order);
    }
    if let Some(order) = half_close::due(shared, now, config) {
        return Some(order);
    }
    let timeouts = &config.timeouts;
    let epoch = shared.epoch.get();
    let since = match shared.seen.get() {
        Some((seen, since)) if seen == epoch => since,
        _ => {
            shared.seen.set(Some((epoch, now)));
            now
        }
    };
    let elapsed = now.saturating_sub(since);
    match shared.phase.get() {
        Phase::Handshake => {
            let limit = if crowded {
                timeouts.handshake.min(CROWDED)
            } else {
                timeouts.handshake
            };
            (elapsed >= limit).then_some(Order::Close)
        }
        Phase::Head if !shared.unread.is_over() => {
            // The next head has begun to come, and is not read on: a handler still reads what is in front of it.
            shared.seen.set(None);
            None
        }
        Phase::Head if elapsed >= timeouts.head => Some(if shared.is_in_head() {
            Order::TimeOut
        } else {
            Order::Close
        }),
        Phase::Idle if !shared.is_quiet() => {
            // The last response still leaves, or the handler still reads: not idle yet.
            shared.seen.set(None);
            None
        }
        Phase::Idle if elapsed >= timeouts.idle => Some(Order::Close),
        Phase::Head | Phase::Idle => {
            let due = timeouts.park_after.is_some_and(|after| elapsed >= after);
            (due && !shared.parked.get() && shared.is_quiet()).then_some(Order::Park)
        }
        Phase::Lingering => (elapsed >= timeouts.linger).then_some(Order::Close),
        Phase::H2Idle
            if !shared.flushed.get()
                || shared.streams().is_some_and(|streams| streams.has_rest()) =>
        {
            // A response still leaves, or a handler still reads: not idle yet.
            shared.seen.set(None);
            None
        }
        Phase::H2Idle => (elapsed >= timeouts.idle).then_some(Order::Close),
        Phase::H2Busy => {
            let ping_after = timeouts.ping_after?;
            if elapsed >= ping_after + timeouts.ping_answer {
                return Some(Order::Close);
            }
            (elapsed >= ping_after && !shared.pinged.replace(true)).then_some(Order::Ping)
        }
        Phase::Busy | Phase::Upgraded => None,
    }
}

/// What a connection is due for whose peer is waited for in the middle of a message. A peer that does not read is looked for
/// first: a server that cannot write may not read either.
fn stalled(shared: &Shared, now: Duration, config: &Config) -> Option<Order> {
    let timeouts = &config.timeouts;
    let known = shared.stall.get();
    let seen = if shared.awaits_write.get() {
        let waiting = config
            .unacknowledged
            .and_then(|ask| ask(shared.descriptor.get()));
        Stall {
            peer: Peer::Reads,
            since: now,
            bytes: shared.bytes_out.get(),
            unacknowledged: u32::try_from(waiting.unwrap_or(0)).unwrap_or(u32::MAX),
        }
    } else if matches!(shared.phase.get(), Phase::Busy | Phase::Idle) && shared.awaits_body() {
        Stall {
            peer: Peer::Sends,
            since: now,
            bytes: shared.bytes_in.get(),
            unacknowledged: 0,
        }
    } else {
        if known.is_some() {
            shared.stall.set(None);
        }
        return None;
    };
    let went_on = known.is_none_or(|known| {
        known.peer != seen.peer
            || match seen.peer {
                Peer::Reads => {
                    (known.bytes, known.unacknowledged) != (seen.bytes, seen.unacknowledged)
                }
                Peer::Sends => {
                    let wanted = config.limits.body_rate_min * timeouts.body.as_secs();
                    seen.bytes - known.bytes >= wanted.max(1)
                }
            }
    });
    if went_on {
        shared.stall.set(Some(seen));
        return None;
    }
    let elapsed = now.saturating_sub(known?.since);
    match seen.peer {
        Peer::Reads => (elapsed >= timeouts.write).then_some(Order::Reset),
        Peer::Sends => (elapsed >= timeouts.body).then_some(Order::TimeOut),
    }
}

/// A view of a server's connections, for whoever runs the server.
#[derive(Clone)]
pub struct Connections(pub(crate) Rc<Registry>);

impl Connections {
    /// Open connections.
    pub fn count(&self) -> usize {
        self.0.entries.borrow().len()
    }

    /// Connections with a request that is not answered yet, or that were upgraded.
    pub fn busy(&self) -> usize {
        let entries = self.0.entries.borrow();
        entries
            .iter()
            .filter(|shared| {
                matches!(
                    shared.phase.get(),
                    Phase::Busy | Phase::Upgraded | Phase::H2Busy
                )
            })
            .count()
    }

    /// Idle connections that hold no parser and no buffers.
    pub fn parked(&self) -> usize {
        self.0
            .entries
            .borrow()
            .iter()
            .filter(|shared| shared.parked.get())
            .count()
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }

    /// Requests whose head was complete, since the start.
    pub fn requests(&self) -> u64 {
        self.0.requests.get()
    }

    /// Requests over HTTP/2 whose stream is open.
    pub fn streams(&self) -> usize {
        self.0.streams.get()
    }

    /// Bytes read from sockets since the start.
    pub fn bytes_in(&self) -> u64 {
        let open: u64 = self
            .0
            .entries
            .borrow()
            .iter()
            .map(|shared| shared.bytes().0)
            .sum();
        self.0.bytes_in.get() + open
    }

    /// Bytes written to sockets since the start.
    pub fn bytes_out(&self) -> u64 {
        let open: u64 = self
            .0
            .entries
            .borrow()
            .iter()
            .map(|shared| shared.bytes().1)
            .sum();
        self.0.bytes_out.get() + open
    }

    /// Ends all accept loops; their sockets are closed. Open connections go on.
    pub fn stop_accepting(&self) {
        self.0.accepting.set(false);
        wake_all(&self.0.listeners);
    }

    /// Stops accepting, and lets every connection end at a moment that loses nothing, because somebody else accepts already:
    /// one of HTTP/1 may have one more request, whose response says `connection: close`; one of HTTP/2 gets `GOAWAY`, which
    /// tells what was not served; upgraded ones are told. Returns when none is left, or after `idle`: then
    /// [`drain`](Self::drain) ends those that were not used.
    ///
    /// A client that finds an idle connection closed cannot know whether the request that it has just sent was served.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing but the waiting.
    pub async fn retire(&self, idle: Duration) {
        self.stop_accepting();
        self.0.retiring.set(true);
        let mut wakers = Vec::new();
        for shared in self.0.entries.borrow().iter() {
            match shared.phase.get() {
                Phase::H2Idle | Phase::H2Busy | Phase::Upgraded => {
                    shared.draining.set(true);
                    wakers.extend(shared.take_waker());
                }
                _ => shared.requests_left.set(1),
            }
        }
        wakers.drain(..).for_each(Waker::wake);
        // Either way the caller goes on with a drain.
        let _all_gone = tokio::time::timeout(idle, self.empty()).await;
    }

    /// Stops accepting and ends all connections: idle ones at once, those with a request after its response (which then says
    /// `connection: close`), upgraded ones are told through [`crate::service::Draining`]. After `deadline` the rest is cut.
    /// Returns how many were cut.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the connections draining, without a deadline; call it again to set a new one.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.stop_accepting();
        self.0.draining.set(true);
        let mut wakers = Vec::new();
        for shared in self.0.entries.borrow().iter() {
            shared.draining.set(true);
            wakers.extend(shared.take_waker());
        }
        wakers.drain(..).for_each(Waker::wake);
        if tokio::time::timeout(deadline, self.empty()).await.is_ok() {
            return 0;
        }
        let cut = self.count();
        for shared in self.0.entries.borrow().iter() {
            wakers.extend(shared.give_order(Order::Close));
        }
        wakers.drain(..).for_each(Waker::wake);
        self.empty().await;
        cut
    }

    async fn empty(&self) {
        poll_fn(|cx| {
            if self.0.entries.borrow().is_empty() {
                return Poll::Ready(());
            }
            remember(&self.0.drains, cx.waker());
            Poll::Pending
        })
        .await;
    }
}

fn remember(wakers: &RefCell<Vec<Waker>>, waker: &Waker) {
    let mut wakers = wakers.borrow_mut();
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

fn wake_all(wakers: &RefCell<Vec<Waker>>) {
    let taken = std::mem::take(&mut *wakers.borrow_mut());
    taken.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use tokio::time::{advance, sleep};

    use super::Registry;
    use crate::config::{Config, Timeouts};
    use crate::h1_io::{Order, Phase, Shared};

    /// Runs `test` beside the sweep over one connection, on a clock that moves only when told to.
    fn sweep(phase: Phase, test: impl AsyncFnOnce(Rc<Shared>, Timeouts)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let registry = Registry::new();
            let shared = Shared::new(None);
            shared.enter(phase);
            assert!(
                registry.enter(&shared, None),
                "the first connection starts the sweep"
            );
            assert!(
                !registry.enter(&Shared::new(None), None),
                "and no other does"
            );
            let config = Rc::new(Config::default());
            let sweeping = tokio::task::spawn_local(registry.clone().sweep(config.clone()));
            test(shared.clone(), config.timeouts.clone()).await;
            let entries = registry.entries.borrow().clone();
            for shared in entries {
                registry.leave(&shared);
            }
            sweeping.await.unwrap();
            assert!(
                registry.enter(&shared, None),
                "the sweep ended with the last connection"
            );
        });
    }

    #[test]
    fn connections_are_closed_when_their_time_is_over_and_not_before() {
        for (phase, limit) in [(Phase::Head, 10), (Phase::Idle, 75), (Phase::Lingering, 2)] {
            sweep(phase, async |shared, timeouts| {
                sleep(Duration::from_secs(limit)).await;
                assert_ne!(shared.order.take(), Some(Order::Close), "{phase:?}");
                sleep(timeouts.sweep * 2).await;
                assert_eq!(shared.order.take(), Some(Order::Close), "{phase:?}");
            });
        }
    }

    #[test]
    fn busy_and_upgraded_connections_have_no_time() {
        for phase in [Phase::Busy, Phase::Upgraded] {
            sweep(phase, async |shared, _| {
                sleep(Duration::from_secs(1000)).await;
                assert_eq!(shared.order.take(), None, "{phase:?}");
            });
        }
    }

    #[test]
    fn change_of_phase_starts_the_time_anew() {
        sweep(Phase::Idle, async |shared, _| {
            for _ in 0..10 {
                sleep(Duration::from_secs(50)).await;
                assert_ne!(shared.order.take(), Some(Order::Close));
                // A whole request between two sweeps.
                shared.enter(Phase::Busy);
                shared.enter(Phase::Idle);
            }
        });
    }

    #[test]
    fn idle_connection_is_parked_once() {
        sweep(Phase::Idle, async |shared, timeouts| {
            sleep(Duration::from_secs(2)).await;
            assert_eq!(shared.order.take(), Some(Order::Park));
            shared.parked.set(true);
            sleep(timeouts.idle / 2).await;
            assert_eq!(shared.order.take(), None);
        });
    }

    #[test]
    fn stalled_thread_does_not_make_its_clients_late() {
        sweep(Phase::Idle, async |shared, timeouts| {
            sleep(timeouts.sweep * 4).await;
            shared.order.take();
            // The clock jumps: nothing ran meanwhile.
            advance(timeouts.idle * 10).await;
            sleep(timeouts.sweep * 2).await;
            assert_ne!(shared.order.take(), Some(Order::Close));
            sleep(timeouts.idle).await;
            assert_eq!(shared.order.take(), Some(Order::Close));
        });
    }
}
