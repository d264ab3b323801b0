//! One frame to many viewers: what each of them still has to be sent, and how a frame is got back from slow ones.
//!
//! A frame lies in a slot that is leased. All viewers of it send from there; what one viewer has not been sent yet is a
//! [`Parcel`]. When slots become scarce the owner of the frame has the parcels of its oldest frames [copy](Parcel::take_over) what
//! is left, from whichever thread: then the frame is free, and each slow viewer owns the rest of one frame at most.
//!
//! A viewer has one parcel under way. What is newest when that has left is what he gets next, so a slow viewer sees fewer
//! frames, never older ones.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};

/// What one viewer has not been sent yet of a frame, with what goes before and behind it.
#[derive(Default)]
pub struct Parcel(Mutex<Contents>);

/// In front of the frame, the frame, behind it.
pub(crate) const PIECES: usize = 3;
const FRAME: usize = 1;

#[derive(Default)]
struct Contents {
    rest: [Bytes; PIECES],
    /// The second piece is the frame itself.
    is_lent: bool,
    /// Who waits for the end.
    waker: Option<Waker>,
}

impl Contents {
    fn left(&self) -> usize {
        self.rest.iter().map(Bytes::len).sum()
    }
}

impl Parcel {
    /// A parcel of bytes that somebody lends: they are let go of when they are sent, or copied.
    pub fn lent(before: Bytes, frame: Bytes, behind: Bytes) -> Arc<Self> {
        Self::new([before, frame, behind], true)
    }

    /// A parcel of bytes that hold nobody up.
    pub fn owned(before: Bytes, frame: Bytes, behind: Bytes) -> Arc<Self> {
        Self::new([before, frame, behind], false)
    }

    fn new(rest: [Bytes; PIECES], is_lent: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Contents {
            rest,
            is_lent,
            waker: None,
        })))
    }

    /// Held to look, to cut, and to copy at most one frame; never while anything is written.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.contents().left()
    }

    /// Still sends from the frame itself.
    pub fn is_lent(&self) -> bool {
        let contents = self.contents();
        contents.is_lent && !contents.rest[FRAME].is_empty()
    }

    /// Copies what is left, so that the frame is free; how many bytes those were. 0: there was nothing to do.
    pub fn take_over(&self) -> usize {
        let mut contents = self.contents();
        if !contents.is_lent || contents.rest[FRAME].is_empty() {
            return 0;
        }
        let own = Bytes::copy_from_slice(&contents.rest[FRAME]);
        contents.is_lent = false;
        let lent = mem::replace(&mut contents.rest[FRAME], own);
        drop(contents);
        // Outside the lock: the last one to let go gives the slot back.
        lent.len()
    }

    /// What is left, for the length of one write.
    pub(crate) fn rest(&self) -> [Bytes; PIECES] {
        self.contents().rest.clone()
    }

    /// `bytes` of it have been sent.
    pub(crate) fn advance(&self, mut bytes: usize) {
        let mut contents = self.contents();
        let mut sent = [const { Bytes::new() }; PIECES];
        for (piece, sent) in contents.rest.iter_mut().zip(&mut sent) {
            let count = bytes.min(piece.len());
            piece.advance(count);
            bytes -= count;
            if piece.is_empty() {
                // An empty slice of a frame still holds it.
                *sent = mem::take(piece);
            }
        }
        let waker = (contents.left() == 0).then(|| contents.waker.take());
        drop(contents);
        drop(sent);
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }

    /// Copies the next `bytes` out, which count as sent.
    pub(crate) fn copy_out(&self, bytes: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(bytes);
        for piece in self.rest() {
            let part = piece.len().min(bytes - out.len());
            out.extend_from_slice(&piece[..part]);
        }
        self.advance(out.len());
        out.freeze()
    }

    /// Ready when all of it has been sent.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        let mut contents = self.contents();
        if contents.left() == 0 {
            return Poll::Ready(());
        }
        contents.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Context, Waker},
    };

    use bytes::Bytes;

    use super::Parcel;

    /// Bytes of a slot; tells when it is given back.
    struct Slot(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Slot {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Slot {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn slot() -> (Bytes, Arc<AtomicBool>) {
        let given_back = Arc::new(AtomicBool::new(false));
        let slot = Slot((0..100).collect(), Arc::clone(&given_back));
        (Bytes::from_owner(slot), given_back)
    }

    fn lent(bytes: Bytes) -> Arc<Parcel> {
        Parcel::lent(Bytes::from_static(b"->"), bytes, Bytes::from_static(b"."))
    }

    #[test]
    fn slot_is_given_back_when_its_last_byte_was_sent() {
        let (bytes, given_back) = slot();
        let (one, other) = (lent(bytes.clone()), lent(bytes));
        one.advance(103);
        other.advance(101);
        assert!(!given_back.load(Ordering::Relaxed));
        let context = Context::from_waker(Waker::noop());
        assert!(one.poll_sent(&context).is_ready() && other.poll_sent(&context).is_pending());
        other.advance(1);
        assert!(given_back.load(Ordering::Relaxed));
        assert!(other.poll_sent(&context).is_pending());
    }

    #[test]
    fn rest_of_a_parcel_is_copied_once_and_the_slot_given_back() {
        let (bytes, given_back) = slot();
        let parcel = lent(bytes);
        parcel.advance(2);
        parcel.advance(60);
        assert!(parcel.is_lent());
        assert_eq!(parcel.take_over(), 40);
        assert!(given_back.load(Ordering::Relaxed) && !parcel.is_lent());
        assert_eq!(parcel.take_over(), 0);
        assert_eq!(
            parcel.rest().concat(),
            [&(60..100).collect::<Vec<u8>>()[..], b"."].concat()
        );
        parcel.advance(40);
        assert_eq!(parcel.left(), 1);
        parcel.advance(1);
        assert_eq!(parcel.left(), 0);
    }

    #[test]
    fn what_is_not_lent_is_not_copied() {
        let parcel = Parcel::owned(Bytes::new(), Bytes::from_static(b"abc"), Bytes::new());
        assert_eq!(parcel.take_over(), 0);
        assert_eq!(parcel.left(), 3);
    }
}
