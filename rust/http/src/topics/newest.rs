//! The number of a topic's newest frame, and who waits for it to change.
//!
//! Each of many viewers looks, waits and is woken once a frame, which is a lock and a comparison each here; with
//! `tokio::sync::watch`, which can do all of it, it was six times as much (docs/decisions/0015-fan-out.md).

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// Said instead of a number when nothing comes any more.
pub const GONE: u64 = u64::MAX;

/// The number.
pub struct Newest(Mutex<State>);

struct State {
    sequence: u64,
    /// Everybody who watches; those who wait have said how they are woken.
    watchers: Slab<Option<Waker>>,
    /// Waits for the last of them to leave.
    host: Option<Waker>,
    /// Empty; kept for its memory.
    spare: Vec<Waker>,
}

/// Somebody who watches the number, until this is dropped.
pub struct Watching {
    newest: Arc<Newest>,
    key: usize,
    seen: Option<u64>,
}

impl Newest {
    /// With this number.
    pub fn new(sequence: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            sequence,
            watchers: Slab::new(),
            host: None,
            spare: Vec::new(),
        })))
    }

    /// Held for a moment, with nothing of others called.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches; the present number counts as not seen yet.
    pub fn watch(self: &Arc<Self>) -> Watching {
        Watching {
            newest: Arc::clone(self),
            key: self.state().watchers.insert(None),
            seen: None,
        }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        !self.state().watchers.is_empty()
    }

    /// Whether nothing comes any more.
    pub fn is_gone(&self) -> bool {
        self.state().sequence == GONE
    }

    /// Sets the number, unless that is greater already, and wakes who waits. So [`GONE`] stays.
    pub fn tell(&self, sequence: u64) {
        let mut state = self.state();
        if sequence <= state.sequence {
            // Somebody else was faster.
            return;
        }
        state.sequence = sequence;
        let mut waking = mem::take(&mut state.spare);
        waking.extend(
            state
                .watchers
                .iter_mut()
                .filter_map(|(_, waker)| waker.take()),
        );
        drop(state);
        // Outside the lock: what is woken, or ends by it, may look.
        waking.drain(..).for_each(Waker::wake);
        self.state().spare = waking;
    }

    /// Waits until nobody watches. For one at a time.
    pub async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.watchers.is_empty() {
                return Poll::Ready(());
            }
            state.host = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Watching {
    /// Ready with the number when it is another one than was seen last, which it then is.
    pub fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<u64> {
        let mut state = self.newest.state();
        if self.seen != Some(state.sequence) {
            self.seen = Some(state.sequence);
            return Poll::Ready(state.sequence);
        }
        let place = &mut state.watchers[self.key];
        let is_known = place.as_ref().is_some_and(|it| it.will_wake(cx.waker()));
        let before = if is_known {
            None
        } else {
            place.replace(cx.waker().clone())
        };
        drop(state);
        // Outside the lock: a task may end with its waker.
        drop(before);
        Poll::Pending
    }

    /// The number, which is seen now.
    pub fn look(&mut self) -> u64 {
        let sequence = self.newest.state().sequence;
        self.seen = Some(sequence);
        sequence
    }

    /// Whatever was seen counts as not seen.
    pub const fn forget(&mut self) {
        self.seen = None;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.newest.state();
        let waker = state.watchers.remove(self.key);
        let host = state.watchers.is_empty().then(|| state.host.take());
        drop(state);
        // Outside the lock, as above.
        drop(waker);
        if let Some(host) = host.flatten() {
            host.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{Arc, Mutex},
        task::{Context, Poll, Wake, Waker},
    };

    use super::{GONE, Newest, Watching};

    /// Writes down that it was woken.
    struct Told(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    fn waits(watching: &mut Watching, name: &'static str, log: &Arc<Mutex<Vec<&'static str>>>) {
        let waker = Waker::from(Arc::new(Told(name, log.clone())));
        let context = Context::from_waker(&waker);
        assert_eq!(watching.poll_changed(&context), Poll::Pending);
    }

    #[test]
    fn a_number_is_seen_once_by_each_and_those_who_wait_are_woken() {
        let (newest, log) = (Newest::new(3), Arc::default());
        let (mut a, mut b, mut c) = (newest.watch(), newest.watch(), newest.watch());
        let quiet = Context::from_waker(Waker::noop());
        for watching in [&mut a, &mut b] {
            assert_eq!(watching.poll_changed(&quiet), Poll::Ready(3));
        }
        assert_eq!(c.look(), 3);
        waits(&mut a, "a", &log);
        // Asked twice, woken once.
        waits(&mut b, "b, first", &log);
        waits(&mut b, "b", &log);
        newest.tell(4);
        newest.tell(5);
        assert_eq!(*log.lock().unwrap(), ["a", "b"]);
        for watching in [&mut a, &mut b, &mut c] {
            assert_eq!(watching.poll_changed(&quiet), Poll::Ready(5));
            assert_eq!(watching.poll_changed(&quiet), Poll::Pending);
        }
        a.forget();
        assert_eq!(a.poll_changed(&quiet), Poll::Ready(5));
        waits(&mut a, "too early", &log);
        newest.tell(4);
        assert_eq!((log.lock().unwrap().len(), a.look()), (2, 5));
        assert!(!newest.is_gone());
        newest.tell(GONE);
        newest.tell(6);
        assert!(newest.is_gone() && a.look() == GONE);
    }

    #[test]
    fn who_has_left_is_not_woken_and_the_last_one_wakes_the_host() {
        let (newest, log) = (Newest::new(0), Arc::default());
        let (mut a, mut b) = (newest.watch(), newest.watch());
        assert_eq!((a.look(), b.look()), (0, 0));
        waits(&mut a, "a", &log);
        waits(&mut b, "b", &log);
        let waker = Waker::from(Arc::new(Told("host", log.clone())));
        let mut context = Context::from_waker(&waker);
        let mut deserted = pin!(newest.deserted());
        assert!(deserted.as_mut().poll(&mut context).is_pending());
        drop(a);
        newest.tell(1);
        assert_eq!(*log.lock().unwrap(), ["b"]);
        assert!(newest.is_watched());
        drop(b);
        assert_eq!(*log.lock().unwrap(), ["b", "host"]);
        assert!(!newest.is_watched() && deserted.poll(&mut context).is_ready());
    }

    /// Looks when it is woken, and leaves with its waker.
    struct Looks(Mutex<Watching>);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.lock().unwrap().look(), 7);
        }
    }

    #[test]
    fn what_is_woken_may_look_and_leave() {
        let newest = Newest::new(0);
        let mut watching = newest.watch();
        watching.look();
        let other = Waker::from(Arc::new(Looks(Mutex::new(newest.watch()))));
        assert!(
            watching
                .poll_changed(&Context::from_waker(&other))
                .is_pending()
        );
        drop(other);
        // The last that holds the other one is the waker, which ends by being woken.
        newest.tell(7);
        assert_eq!(watching.look(), 7);
        drop(watching);
        assert!(!newest.is_watched());
    }
}
