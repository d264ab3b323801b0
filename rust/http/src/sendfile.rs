//! Bytes of files that leave through the kernel (`sendfile(2)`), past our memory and under hyper.
//!
//! hyper frames responses (lengths, chunks, what may follow on the connection) and knows only bytes in memory. A body that has a
//! piece of a file gives hyper a *placeholder* in its place: as many bytes of a constant array. hyper queues what it is
//! given and never copies it, so the socket wrapper finds the placeholder among the slices that it is asked to write,
//! knows it by its address, and has the kernel write the piece of file instead. Everything else, such as heads and the sizes of
//! chunks, is written as ever, and pieces of files and of memory mix in any order.
//!
//! # What keeps bytes and placeholders together
//! Pieces wait in a queue, in the order in which hyper was given their placeholders. Each placeholder begins at another place
//! of the array than the ones before, and a slice has to begin where the first piece that waits was sent up to. A
//! placeholder that hyper shortened or dropped is passed over, and one that fits no piece fails the connection. So no
//! byte of the array ever reaches a client.
//!
//! Frames go the same way ([`Parcel`]), though they are in memory: hyper has a placeholder, so what is left of a frame can be taken out
//! of a response that is under way. A parcel is written together with the memory around it.
//!
//! A file that ended before the end of its piece fails the connection too: the length is promised, and cutting is all
//! that is left.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use crate::config::SendFile;
use crate::fanout::{PIECES, Parcel};
use crate::h1_io::{Shared, Socket};
use crate::os::FileExt;

/// Longest piece: one system call. Long enough to make calls rare (4,096 for a gigabyte), short enough that a fast reader does
/// not keep the thread from others.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;
/// Placeholders in a row that begin at different places; hyper queues at most 16.
const STARTS: usize = 64;
/// Slices of one write: hyper gives 64 at most, of which a response that is a parcel has three.
const SLICES_MAX: usize = 16;
/// Bytes that are read at a time where the kernel cannot send from a file.
const FALLBACK_BYTES: usize = 64 * 1024;

/// Never written anywhere, so no page of it is ever in memory.
static PLACEHOLDER: [u8; PIECE_BYTES_MAX + STARTS] = [0; PIECE_BYTES_MAX + STARTS];

/// Where a slice begins in the array, if it is a placeholder.
fn place_of(slice: &[u8]) -> Option<usize> {
    let place = slice
        .as_ptr()
        .addr()
        .checked_sub(PLACEHOLDER.as_ptr().addr())?;
    (place < PLACEHOLDER.len()).then_some(place)
}

/// What a placeholder stands for.
enum Content {
    /// Bytes of a file, from an offset on.
    File(Arc<File>, u64),
    /// The next bytes of a frame.
    Parcel(Arc<Parcel>),
}

/// A piece whose placeholder hyper has.
struct Piece {
    content: Content,
    bytes: usize,
    sent: usize,
    /// Place of its first byte in the array.
    start: usize,
}

/// The pieces of one connection; part of [`Shared`].
#[derive(Default)]
#[repr(C)]
pub(crate) struct FileQueue {
    pieces: RefCell<VecDeque<Piece>>,
    next_start: Cell<usize>,
    /// How to send; `None` where the bytes of responses do not go to the socket as they are.
    call: Cell<Option<SendFile>>,
    failure: RefCell<Option<io::Error>>,
}

impl FileQueue {
    /// From now on files may be sent.
    pub(crate) fn allow(&self, call: Option<SendFile>) {
        self.call.set(call);
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.call.get().is_some()
    }

    /// Bytes of files wait to be sent.
    pub(crate) fn waits(&self) -> bool {
        !self.pieces.borrow().is_empty()
    }

    /// Lets go of files when nothing waits to be written.
    pub(crate) fn clear(&self) {
        let pieces = self.pieces.take();
        drop(pieces);
    }

    fn push(&self, content: Content, bytes: usize) -> Bytes {
        let start = self.next_start.get();
        self.next_start.set((start + 1) % STARTS);
        self.pieces.borrow_mut().push_back(Piece {
            content,
            bytes,
            sent: 0,
            start,
        });
        Bytes::from_static(&PLACEHOLDER[start..start + bytes])
    }

    /// Makes the piece whose rest begins at `place` the first one.
    fn seek(&self, place: usize) -> io::Result<()> {
        let mut pieces = self.pieces.borrow_mut();
        while let Some(piece) = pieces.front() {
            if place == piece.start + piece.sent {
                return Ok(());
            }
            pieces.pop_front();
        }
        Err(io::Error::other("a piece is not where it belongs"))
    }

    /// The file and the offset that a placeholder stands for; `place` is where it begins.
    fn find(&self, place: usize) -> io::Result<(Arc<File>, u64)> {
        self.seek(place)?;
        match self.pieces.borrow().front() {
            Some(Piece {
                content: Content::File(file, offset),
                sent,
                ..
            }) => Ok((file.clone(), offset + *sent as u64)),
            _ => Err(io::Error::other("no piece of a file is there")),
        }
    }

    /// The parcel that a placeholder stands for, if it is one.
    fn find_parcel(&self, place: usize) -> io::Result<Option<Arc<Parcel>>> {
        self.seek(place)?;
        Ok(match self.pieces.borrow().front() {
            Some(Piece {
                content: Content::Parcel(parcel),
                ..
            }) => Some(parcel.clone()),
            _ => None,
        })
    }

    /// Writes the memory before the first placeholder of a parcel, the parcel, and the memory behind it up to the next
    /// placeholder. `None`: the first placeholder is that of a file.
    pub(crate) fn poll_write_parcel(
        &self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        slices: &[IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        let (index, place) = slices.iter().enumerate().find_map(|(index, slice)| {
            Some((index, place_of(slice).filter(|_| !slice.is_empty())?))
        })?;
        let parcel = match self.find_parcel(place) {
            Ok(parcel) => parcel?,
            Err(error) => return Some(Poll::Ready(Err(error))),
        };
        let mut bytes = slices[index].len();
        let rest: [Bytes; PIECES] = parcel.rest();
        let mut pieces = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut before = 0;
        for slice in slices[..index].iter().take(SLICES_MAX - PIECES) {
            pieces[count] = IoSlice::new(slice);
            before += slice.len();
            count += 1;
        }
        if count == index {
            for piece in &rest {
                let part = &piece[..piece.len().min(bytes)];
                bytes -= part.len();
                if !part.is_empty() {
                    pieces[count] = IoSlice::new(part);
                    count += 1;
                }
            }
            if bytes > 0 {
                let error = io::Error::other("a parcel is shorter than what stands for it");
                return Some(Poll::Ready(Err(error)));
            }
            for slice in &slices[index + 1..] {
                if count == SLICES_MAX || place_of(slice).is_some() {
                    break;
                }
                pieces[count] = IoSlice::new(slice);
                count += 1;
            }
        }
        let written = socket.poll_write_vectored(cx, &pieces[..count]);
        if let Poll::Ready(Ok(written)) = &written {
            let sent = written.saturating_sub(before).min(slices[index].len());
            // Let go of first: the parcel gives its frame back.
            drop(rest);
            parcel.advance(sent);
            self.advance(sent);
        }
        Some(written)
    }

    /// So many bytes of the first piece have been sent.
    fn advance(&self, bytes: usize) {
        let mut pieces = self.pieces.borrow_mut();
        if let Some(piece) = pieces.front_mut() {
            piece.sent += bytes;
            if piece.sent == piece.bytes {
                pieces.pop_front();
                if pieces.is_empty() {
                    // The next one goes where this one was, and not to memory that no cache has.
                    pieces.clear();
                }
            }
        }
    }

    /// Sends what a placeholder stands for, as much as the socket takes.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        place: usize,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        let result = ready!(self.poll_piece(cx, socket, place, bytes));
        match &result {
            Ok(sent) => self.advance(*sent),
            // That the client went away is nothing to tell.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::NotConnected
                        | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failure.replace(Some(told));
            }
        }
        Poll::Ready(result)
    }

    fn poll_piece(
        &self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        place: usize,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        let (file, offset) = self.find(place)?;
        let Some(call) = self.call.get() else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let sent = match ready!(socket.poll_send_file(cx, call, &file, offset, bytes)) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                // The file system cannot do it: then as everybody else does.
                let mut buffer = vec![0; bytes.min(FALLBACK_BYTES)];
                match file.read_at(&mut buffer, offset)? {
                    0 => 0,
                    read => ready!(socket.poll_write(cx, &buffer[..read]))?,
                }
            }
            result => result?,
        };
        Poll::Ready(if sent == 0 {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the file ended at byte {offset}, before the end of what was promised of it"
                ),
            ))
        } else {
            Ok(sent)
        })
    }
}

/// The slices before the first placeholder, or that placeholder and its place.
pub(crate) fn split<'a, 'b>(slices: &'a [IoSlice<'b>]) -> Next<'a, 'b> {
    let mut seen = 0;
    for (index, slice) in slices.iter().enumerate() {
        if let Some(place) = place_of(slice)
            && !slice.is_empty()
        {
            return if seen == 0 {
                Next::File {
                    place,
                    bytes: slice.len(),
                }
            } else {
                Next::Memory(&slices[..index])
            };
        }
        seen += slice.len();
    }
    Next::Memory(slices)
}

/// What is to be written next.
pub(crate) enum Next<'a, 'b> {
    Memory(&'a [IoSlice<'b>]),
    File { place: usize, bytes: usize },
}

/// Puts files into the body of a response; from [`crate::service::Hints::file_sender`].
#[derive(Clone)]
pub struct FileSender(Rc<Shared>);

impl FileSender {
    pub(crate) fn new(shared: &Rc<Shared>) -> Option<Self> {
        shared.files.is_allowed().then(|| Self(shared.clone()))
    }

    /// Data of a body that stands for bytes of `file`, at most [`PIECE_BYTES_MAX`] of them: its length says how many. It is
    /// worth something only as the next data of a response of the request that the sender is of.
    ///
    /// The file stays open until the bytes have left. If it is shorter by then the connection is cut, and
    /// [`FileSender::take_failure`] tells.
    pub fn piece(&self, file: &Arc<File>, offset: u64, bytes: u64) -> Bytes {
        let bytes = usize::try_from(bytes).map_or(PIECE_BYTES_MAX, |all| all.min(PIECE_BYTES_MAX));
        self.0
            .files
            .push(Content::File(file.clone(), offset), bytes)
    }

    /// Why the connection's last file could not be sent; asked when the response was dropped.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.0.files.failure.take()
    }
}

/// Puts frames into the body of a response; from [`crate::service::Hints::parcel_sender`].
#[derive(Clone)]
pub struct ParcelSender(Way);

#[derive(Clone)]
enum Way {
    Known(Option<Rc<Shared>>),
    /// Set when the response finds its request.
    Later(Rc<OnceCell<ParcelSender>>),
}

impl ParcelSender {
    pub(crate) fn new(shared: Option<&Rc<Shared>>) -> Self {
        Self(Way::Known(shared.cloned()))
    }

    /// One for a body that is made before it is known of which request it is the answer; see [`Self::becomes`].
    pub fn later() -> Self {
        Self(Way::Later(Rc::default()))
    }

    /// From now on one that was for [`later`](Self::later) is this one. To be called before the body is polled: until then frames
    /// would be copied. The first call counts.
    pub fn becomes(&self, known: Self) {
        if let Way::Later(place) = &self.0 {
            let _ = place.set(known);
        }
    }

    /// Data of a body that stands for the next bytes of `parcel`, of which `left` were not given yet: its length says how many. It
    /// is worth something only as the next data of a response of the request that the sender is of.
    ///
    /// Over HTTP/2, which cuts and keeps what it sends, it is a copy.
    pub(crate) fn piece(&self, parcel: &Arc<Parcel>, left: usize) -> Bytes {
        let bytes = left.min(PIECE_BYTES_MAX);
        match &self.0 {
            Way::Known(Some(shared)) => shared.files.push(Content::Parcel(parcel.clone()), bytes),
            Way::Known(None) => parcel.copy_out(bytes),
            Way::Later(place) => match place.get() {
                Some(known) => known.piece(parcel, left),
                None => parcel.copy_out(bytes),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(File::open("/dev/null").expect("is there"))
    }

    fn place(bytes: &[u8]) -> usize {
        place_of(bytes).expect("is a placeholder")
    }

    #[test]
    fn what_is_in_memory_is_no_placeholder() {
        assert_eq!(place_of(b"text"), None);
        assert_eq!(place_of(&[]), None);
        assert_eq!(place_of(&vec![0; 4096]), None);
    }

    #[test]
    fn pieces_are_found_in_order_and_as_far_as_they_were_sent() {
        let queue = FileQueue::default();
        let (one, two) = (
            queue.push(Content::File(file(), 100), 10),
            queue.push(Content::File(file(), 200), 10),
        );
        assert_eq!(queue.find(place(&one)).expect("waits").1, 100);
        queue.advance(4);
        assert_eq!(queue.find(place(&one[4..])).expect("waits").1, 104);
        queue.advance(6);
        assert_eq!(queue.find(place(&two)).expect("waits").1, 200);
        queue.advance(10);
        assert!(!queue.waits());
    }

    #[test]
    fn a_piece_that_was_cut_short_is_passed_over() {
        let queue = FileQueue::default();
        let (one, two) = (
            queue.push(Content::File(file(), 100), 10),
            queue.push(Content::File(file(), 200), 10),
        );
        queue.find(place(&one)).expect("waits");
        queue.advance(3);
        assert_eq!(queue.find(place(&two)).expect("waits").1, 200);
    }

    #[test]
    fn a_placeholder_without_a_piece_is_an_error() {
        let queue = FileQueue::default();
        let one = queue.push(Content::File(file(), 0), 10);
        queue.advance(10);
        assert!(queue.find(place(&one)).is_err());
    }

    #[test]
    fn placeholders_are_told_from_memory() {
        let queue = FileQueue::default();
        let one = queue.push(Content::File(file(), 0), 10);
        let slices = [IoSlice::new(b""), IoSlice::new(b"head"), IoSlice::new(&one)];
        assert!(matches!(split(&slices), Next::Memory(before) if before.len() == 2));
        assert!(matches!(split(&slices[2..]), Next::File { bytes: 10, .. }));
        assert!(matches!(split(&slices[..2]), Next::Memory(all) if all.len() == 2));
    }
}
