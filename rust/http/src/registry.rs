//! All open connections of one server, and the sweep that watches over them.
//!
//! One timer serves all connections: each sweep looks at the phase of every connection and orders what is due. A
//! connection counts its changes of phase (`epoch`) and reads no clock; the sweep remembers since when it has seen the same epoch.
//! So time limits cost nothing per request, and a worker that was stalled by a busy handler does not find all of its
//! connections late: what came in meanwhile is read before the next sweep.
//!
//! The sweep runs only while connections exist: a server without connections never wakes up.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::{Config, Timeouts};
use crate::h1_io::{Order, Phase, Shared};

/// Open connections, counters, and who waits for the last one to go.
pub(crate) struct Registry {
    entries: RefCell<Vec<Rc<Shared>>>,
    accepted: Cell<u64>,
    requests: Cell<u64>,
    sweeping: Cell<bool>,
    accepting: Cell<bool>,
    draining: Cell<bool>,
    listeners: RefCell<Vec<Waker>>,
    drains: RefCell<Vec<Waker>>,
}

impl Registry {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            accepted: Cell::new(0),
            requests: Cell::new(0),
            sweeping: Cell::new(false),
            accepting: Cell::new(true),
            draining: Cell::new(false),
            listeners: RefCell::default(),
            drains: RefCell::default(),
        })
    }

    /// Enters a connection; returns true when the caller has to start the sweep.
    pub(crate) fn enter(&self, shared: &Rc<Shared>) -> bool {
        let mut entries = self.entries.borrow_mut();
        shared.index.set(entries.len());
        entries.push(shared.clone());
        self.accepted.set(self.accepted.get() + 1);
        if self.draining.get() {
            shared.draining.set(true);
        }
        !self.sweeping.replace(true)
    }

    pub(crate) fn leave(&self, shared: &Shared) {
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

    pub(crate) fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Requests so far; also the number of the latest.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.accepting.get()
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
        loop {
            ticks.tick().await;
            let now = Instant::now();
            for shared in self.entries.borrow().iter() {
                if let Some(order) = due(shared, now, &config.timeouts) {
                    wakers.extend(shared.give_order(order));
                }
            }
            // Outside the borrow: a waker may run foreign code.
            wakers.drain(..).for_each(Waker::wake);
            if self.entries.borrow().is_empty() {
                self.sweeping.set(false);
                return;
            }
        }
    }
}

/// What a connection is due for, if anything.
fn due(shared: &Shared, now: Instant, timeouts: &Timeouts) -> Option<Order> {
    let epoch = shared.epoch.get();
    let since = match shared.seen.get() {
        Some((seen, since)) if seen == epoch => since,
        _ => {
            shared.seen.set(Some((epoch, now)));
            now
        }
    };
    let elapsed = now - since;
    match shared.phase.get() {
        Phase::Head if elapsed >= timeouts.head => Some(Order::Close),
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
        Phase::Busy | Phase::Upgraded => None,
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
            .filter(|shared| matches!(shared.phase.get(), Phase::Busy | Phase::Upgraded))
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

    /// Ends all accept loops; their sockets are closed. Open connections go on.
    pub fn stop_accepting(&self) {
        self.0.accepting.set(false);
        wake_all(&self.0.listeners);
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
