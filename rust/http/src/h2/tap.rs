//! Between the crate and the socket: follows the frames that pass, for what the crate does not tell.
//!
//! From the client: `PRIORITY_UPDATE` (RFC 9218, 7.1), which the crate drops; credit for the whole connection; how many
//! frames came that ask for work and carry nothing; and whether a head has begun. To the client: bytes of `DATA`, which tell how
//! much of what was handed over has left, and how much credit is used up. Both ways: how much more of bodies may come. Only the
//! nine bytes before each frame are looked at, and the first few of the frames named; nothing is held back or changed.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Observed;
use crate::h1_io::SocketIo;
use crate::protocol::PREFACE;

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const RST_STREAM: u8 = 0x3;
const WINDOW_UPDATE: u8 = 0x8;
const PRIORITY_UPDATE: u8 = 0x10;
/// The flag of the last frame of a head.
const END_HEADERS: u8 = 0x4;
/// Bytes of a `PRIORITY_UPDATE` that are looked at: the stream and a field value of a usual length.
const PRIORITY_BYTES_MAX: usize = 4 + 64;

/// One frame, as far as it was kept.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of the payload on the wire.
    length: usize,
    /// The beginning of the payload.
    payload: &'a [u8],
}

/// Cuts one direction into frames.
#[derive(Default)]
struct Follower {
    /// Header of the current frame, and the beginning of its payload if that is wanted.
    kept: Vec<u8>,
    /// Payload bytes of the current frame that are still to pass.
    left: usize,
    /// Bytes before the first frame that are still to pass.
    preface: usize,
    /// The frames of a head have begun, and the last of them is not over.
    unfinished_head: bool,
}

impl Follower {
    fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(&Frame<'_>)) {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.kept.len() < HEADER_BYTES {
                let taken = (HEADER_BYTES - self.kept.len()).min(bytes.len());
                self.kept.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if self.kept.len() < HEADER_BYTES {
                    return;
                }
                self.left = self.length();
            } else {
                let taken = self.left.min(bytes.len());
                let room = (HEADER_BYTES + self.wanted()).saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&bytes[..taken.min(room)]);
                bytes = &bytes[taken..];
                self.left -= taken;
            }
            if self.left == 0 {
                let header = &self.kept[..HEADER_BYTES];
                if matches!(header[3], HEADERS | CONTINUATION) {
                    self.unfinished_head = header[4] & END_HEADERS == 0;
                }
                found(&Frame {
                    kind: header[3],
                    flags: header[4],
                    stream: number(&header[5..]) & 0x7fff_ffff,
                    length: self.length(),
                    payload: &self.kept[HEADER_BYTES..],
                });
                self.kept.clear();
            }
        }
    }

    /// A part of a head has passed, and the rest has not.
    fn is_in_head(&self) -> bool {
        self.unfinished_head || matches!(self.kept.get(3), Some(&(HEADERS | CONTINUATION)))
    }

    fn length(&self) -> usize {
        usize::from(self.kept[0]) << 16 | usize::from(self.kept[1]) << 8 | usize::from(self.kept[2])
    }

    /// Bytes of the payload that are kept.
    fn wanted(&self) -> usize {
        match self.kept[3] {
            WINDOW_UPDATE => 4,
            PRIORITY_UPDATE => PRIORITY_BYTES_MAX,
            _ => 0,
        }
    }
}

/// Of four bytes or more, the first four.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The socket as the crate sees it.
pub(super) struct Tap {
    /// Taken back when the crate is done, to read and drop what the client still sends.
    io: Rc<RefCell<SocketIo>>,
    observed: Rc<Observed>,
    incoming: Follower,
    outgoing: Follower,
}

impl Tap {
    pub(super) fn new(io: Rc<RefCell<SocketIo>>, observed: Rc<Observed>) -> Self {
        Self {
            io,
            observed,
            incoming: Follower {
                preface: PREFACE.len(),
                ..Follower::default()
            },
            outgoing: Follower::default(),
        }
    }
}

/// Bytes have come.
fn note_read(observed: &Observed, incoming: &mut Follower, bytes: &[u8]) {
    observed.shared.heard();
    let count = |frames: &Cell<u64>| frames.set(frames.get() + 1);
    incoming.follow(bytes, |frame| match frame.kind {
        HEADERS | CONTINUATION => {
            if frame.flags & END_HEADERS != 0 {
                count(&observed.heads);
            }
            if frame.kind == HEADERS {
                count(&observed.useful_frames);
            }
        }
        DATA if frame.length > 0 => {
            let length = i64::try_from(frame.length).unwrap_or(i64::MAX);
            observed.room.set(observed.room.get() - length);
            count(&observed.useful_frames);
        }
        WINDOW_UPDATE if frame.stream == 0 && frame.length == 4 => {
            observed.gate.credit(number(frame.payload) & 0x7fff_ffff);
        }
        // The crate bounds them.
        WINDOW_UPDATE => {
            let bytes = number(frame.payload) & 0x7fff_ffff;
            observed.unsent.granted(frame.stream, bytes);
        }
        RST_STREAM => {
            observed.unsent.reset(frame.stream);
            count(&observed.idle_frames);
        }
        PRIORITY_UPDATE if frame.stream == 0 && frame.payload.len() >= 4 => {
            let (stream, value) = frame.payload.split_at(4);
            observed.gate.update(number(stream) & 0x7fff_ffff, value);
            count(&observed.idle_frames);
        }
        _ => count(&observed.idle_frames),
    });
    observed.in_head.set(incoming.is_in_head());
}

/// Bytes have left.
fn note_written(observed: &Observed, outgoing: &mut Follower, bytes: &[u8]) {
    outgoing.follow(bytes, |frame| match frame.kind {
        DATA => {
            observed.gate.left(frame.length);
            observed.unsent.left(frame.stream, frame.length);
            observed.useful_frames.set(observed.useful_frames.get() + 1);
        }
        WINDOW_UPDATE if frame.stream == 0 => {
            let room = observed.room.get() + i64::from(number(frame.payload));
            observed.room.set(room);
        }
        RST_STREAM => observed.unsent.reset(frame.stream),
        _ => {}
    });
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut *me.io.borrow_mut()).poll_read(cx, buf))?;
        note_read(&me.observed, &mut me.incoming, &buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let written = ready!(Pin::new(&mut *me.io.borrow_mut()).poll_write(cx, bytes))?;
        note_written(&me.observed, &mut me.outgoing, &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let written = ready!(Pin::new(&mut *me.io.borrow_mut()).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let passed = left.min(slice.len());
            note_written(&me.observed, &mut me.outgoing, &slice[..passed]);
            left -= passed;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.borrow().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        Pin::new(&mut *me.io.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        Pin::new(&mut *me.io.borrow_mut()).poll_shutdown(cx)
    }
}

/// For fuzzing: what passes tells the same however it is cut, namely what a plain reading of whole frames finds.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(bytes: &[u8], piece: usize) {
    let told = |note: fn(&Observed, &mut Follower, &[u8]), piece: usize| {
        let observed = Observed::new(&crate::h1_io::Shared::new(None), 1000);
        let mut follower = Follower::default();
        for piece in bytes.chunks(piece) {
            note(&observed, &mut follower, piece);
        }
        (
            [
                &observed.heads,
                &observed.idle_frames,
                &observed.useful_frames,
            ]
            .map(Cell::get),
            observed.in_head.get(),
            observed.room.get(),
            observed.gate.told(),
        )
    };
    let all = bytes.len().max(1);
    let read = told(note_read, all);
    assert_eq!(told(note_read, piece), read);
    let written = told(note_written, all);
    assert_eq!(told(note_written, piece), written);

    let (mut rest, mut heads, mut data, mut frames) = (bytes, 0, 0, 0);
    let mut credit = [0, 0];
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let Some((payload, next)) = after.split_at_checked(number(&[0, a, b, c]) as usize) else {
            break;
        };
        rest = next;
        frames += 1;
        match kind {
            HEADERS | CONTINUATION => heads += u64::from(flags & END_HEADERS != 0),
            DATA => data += i64::from(number(&[0, a, b, c])),
            WINDOW_UPDATE if matches!(stream, [0 | 0x80, 0, 0, 0]) => {
                credit[0] +=
                    i64::from(number(payload) & 0x7fff_ffff) * i64::from(payload.len() == 4);
                credit[1] += i64::from(number(payload));
            }
            _ => {}
        }
    }
    let ([found, idle, useful], _, room, (window, granted)) = read;
    assert!(found == heads && idle + useful <= frames);
    assert_eq!(room, super::WINDOW_BYTES - data);
    let credit_in = i64::try_from(granted).unwrap_or(i64::MAX);
    assert_eq!(
        (window, credit_in),
        (super::WINDOW_BYTES + credit[0], credit[0])
    );
    let (_, _, room, (window, _)) = written;
    assert_eq!(
        (room, window),
        (super::WINDOW_BYTES + credit[1], super::WINDOW_BYTES - data)
    );
}

#[cfg(test)]
mod tests {
    use super::{
        CONTINUATION, DATA, END_HEADERS, Follower, HEADERS, PRIORITY_UPDATE, WINDOW_UPDATE,
    };

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, 0]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_the_same_however_they_are_split() {
        let mut bytes = b"preface".to_vec();
        bytes.extend(frame(4, 0, &[]));
        bytes.extend(frame(WINDOW_UPDATE, 0, &[0, 1, 0, 0]));
        bytes.extend(frame(DATA, 1, &[7; 300]));
        bytes.extend(frame(PRIORITY_UPDATE, 0, b"\0\0\0\x03u=1"));
        bytes.extend(frame(DATA, 0x8000_0003, &[]));
        let expected = [
            (4, 0, 0, vec![]),
            (WINDOW_UPDATE, 0, 4, vec![0, 1, 0, 0]),
            (DATA, 1, 300, vec![]),
            (PRIORITY_UPDATE, 0, 7, b"\0\0\0\x03u=1".to_vec()),
            (DATA, 3, 0, vec![]),
        ];
        for size in 1..=bytes.len() {
            let mut follower = Follower {
                preface: 7,
                ..Follower::default()
            };
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                follower.follow(piece, |frame| {
                    seen.push((
                        frame.kind,
                        frame.stream,
                        frame.length,
                        frame.payload.to_vec(),
                    ));
                });
            }
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }
    #[test]
    fn head_is_known_to_be_unfinished_until_its_last_byte() {
        const HEAD: &[u8] = b"ab";
        let mut bytes = frame(HEADERS, 1, HEAD);
        bytes.extend(frame(CONTINUATION, 1, HEAD));
        let mut last = frame(CONTINUATION, 1, HEAD);
        last[4] = END_HEADERS;
        bytes.extend(last);
        let mut follower = Follower::default();
        for (at, byte) in bytes.iter().enumerate() {
            follower.follow(&[*byte], |_| {});
            // The kind of a frame is its fourth byte.
            let expected = at >= 3 && at + 1 < bytes.len();
            assert_eq!(follower.is_in_head(), expected, "after byte {at}");
        }
        follower.follow(&frame(DATA, 1, HEAD), |_| {});
        assert!(!follower.is_in_head());
    }
}
