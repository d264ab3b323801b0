//! Compressed messages (permessage-deflate, RFC 7692, section 7.2), by zlib-rs.
//!
//! # Theory
//!
//! A compressed message is one deflate stream that ends with a flush; the four bytes `00 00 ff ff` of that flush are left out
//! on the wire. With *context takeover* a stream may refer to earlier messages, so either side has to keep its state between
//! messages, for each connection. That is what makes compression dear: a compressor is more than a hundred KiB, an inflater
//! forty. Without takeover every message stands alone, and one compressor and one inflater per thread serve all connections,
//! reset between messages; a connection holds an inflater only while a compressed message is incomplete. So:
//!
//! | mode | agreed on | kept per connection |
//! |---|---|---|
//! | [`Mode::Shared`] | no takeover in either direction | nothing |
//! | [`Mode::Context`] | takeover, the server's window of [`CONTEXT_WINDOW_BITS`] | both, from the first compressed message on, for at most so many connections; above it as `Shared` |
//!
//! Incoming: a piece is inflated straight into the memory of the [`MessageSink`], never further than the size limit, so a
//! message of a thousand times its deflated size costs what the limit allows and not a byte more. Text is checked as it
//! comes out.
//!
//! Outgoing: a message leaves compressed only if that makes it smaller. It is deflated straight into the outbox, where it is
//! replaced by itself if it did not get smaller. Of a large message a sample is tried first, because most large ones are
//! pictures.
//!
//! All inflaters have the largest window, whatever was agreed on: their memory is the same, and a window that is larger than
//! the peer's does no harm. (That is also what makes a peer's window of 8 bits work, which zlib cannot.)

use std::cell::{Cell, RefCell};

use tokio::io::ReadBuf;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::{
    Failure, Kind, code,
    frame::{self, NOT_UTF8, Utf8},
    message::{MessageSink, NO_ROOM},
};
use crate::place::Place;

/// The largest window, of 32 KiB.
pub const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window that zlib has.
pub const WINDOW_BITS_MIN: u8 = 9;
/// The window of a compressor that one connection keeps: 4 KiB, a dozen messages of the usual size.
pub const CONTEXT_WINDOW_BITS: u8 = 12;

/// Bounds the buffers of such a compressor; below 5 messages of some KiB take several blocks.
const CONTEXT_MEMORY_LEVEL: i32 = 5;

/// The end of a flush, which is left out on the wire (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The same, then an empty final block: whoever is at the end of a flush is at the end of the stream behind it.
const TAIL_AND_END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Memory that is asked for at a time while inflating. The usual message is deflated to a fifth.
const INFLATE_FACTOR: usize = 8;
const INFLATE_BYTES_MIN: usize = 512;
const INFLATE_BYTES_MAX: usize = 64 * 1024;

/// From this size on, deflating a sample from the middle of a message decides whether the rest is deflated.
const SAMPLED_BYTES_MIN: usize = 64 * 1024;
const SAMPLE_BYTES: usize = 4 * 1024;
const SAMPLE_WORTH_BYTES: usize = SAMPLE_BYTES * 15 / 16;

/// How messages are to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is kept between messages.
    pub mode: Mode,
    /// Smaller messages leave as they are.
    pub bytes_min: usize,
    /// How many connections of a thread may keep state in [`Mode::Context`].
    pub contexts_max: usize,
}

/// What is kept between messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compression is not agreed to.
    Off,
    /// Nothing: the connections of a thread share their state.
    Shared,
    /// The state of each connection.
    Context,
}

impl Default for Settings {
    /// `shared`: memory that does not grow with the connections. 64 bytes: a packet is a packet, and deflate has a header.
    /// 256 connections: about 50 MB.
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            bytes_min: 64,
            contexts_max: 256,
        }
    }
}

/// What was agreed on about the messages of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Our messages may refer to this much of what went before, whichever side we are.
    pub own_window_bits: u8,
    /// Our messages may refer to messages before them.
    pub own_takeover: bool,
    /// The peer's messages may refer to messages before them.
    pub peer_takeover: bool,
}

impl Agreement {
    /// Has the connection to keep state between messages?
    pub fn keeps_context(self) -> bool {
        self.own_takeover || self.peer_takeover
    }
}

thread_local! {
    /// Compressors without takeover, one per window size that was asked for.
    static COMPRESSORS: RefCell<[Option<Box<Deflate>>; 7]> = const { RefCell::new([const { None }; 7]) };
    /// The inflater that was given back last.
    static INFLATER: Cell<Option<Box<Inflate>>> = const { Cell::new(None) };
    /// Connections that may keep state.
    static CONTEXTS: Cell<usize> = const { Cell::new(0) };
}

/// The right of one connection to keep state between messages.
#[derive(Debug)]
pub struct ContextPermit(#[expect(dead_code, reason = "held, to be dropped")] Place);

impl ContextPermit {
    /// `None` while `contexts_max` connections of this thread have one.
    pub fn acquire(contexts_max: usize) -> Option<Self> {
        Place::take(&CONTEXTS, contexts_max).map(Self)
    }
}

/// Makes the outgoing messages of one connection smaller.
pub struct Compressor {
    window_bits: u8,
    bytes_min: usize,
    takeover: bool,
    /// With takeover, from the first compressed message on.
    state: Option<Box<Deflate>>,
    _permit: Option<ContextPermit>,
}

impl Compressor {
    /// For a connection with this agreement; the permit of one that keeps state is given back with the compressor.
    pub fn new(agreement: Agreement, bytes_min: usize, permit: Option<ContextPermit>) -> Self {
        Self {
            window_bits: agreement.own_window_bits,
            bytes_min,
            takeover: agreement.own_takeover,
            state: None,
            _permit: permit,
        }
    }

    /// Appends a message in one frame, compressed if that makes it smaller.
    pub fn encode(&mut self, output: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
        if !self.encode_smaller(output, kind, payload) {
            frame::encode_message(output, kind, payload);
        }
    }

    /// Appends a message in one frame if compressing makes it smaller; else appends nothing, and is false.
    pub fn encode_smaller(&mut self, output: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> bool {
        let room = deflated_room(payload.len());
        payload.len() >= self.bytes_min
            && self.is_worth_it(payload)
            && frame::encode_deflated(output, kind, payload.len(), room, |space| {
                self.deflate(payload, space)
            })
    }

    fn is_worth_it(&self, payload: &[u8]) -> bool {
        if payload.len() < SAMPLED_BYTES_MIN {
            return true;
        }
        let start = (payload.len() - SAMPLE_BYTES) / 2;
        let sample = &payload[start..start + SAMPLE_BYTES];
        let mut space = [0; deflated_room(SAMPLE_BYTES)];
        deflate_alone(self.window_bits, sample, &mut space)
            .is_some_and(|deflated| deflated <= SAMPLE_WORTH_BYTES)
    }

    /// Deflates a message to the front of `space`; `None` if that does not make it smaller.
    fn deflate(&mut self, payload: &[u8], space: &mut [u8]) -> Option<usize> {
        let smaller = |deflated: &usize| *deflated < payload.len();
        if !self.takeover {
            return deflate_alone(self.window_bits, payload, space).filter(smaller);
        }
        let bits = self.window_bits;
        let state = &mut self.state;
        let deflated = deflate(state, || context_compressor(bits), payload, space).filter(smaller);
        if let (None, Some(state)) = (deflated, state) {
            // The peer will not see what the state now refers to.
            state.reset();
        }
        deflated
    }
}

/// Memory that a message fits into in any case, however little it can be compressed: fixed codes make 9 bits of a byte, and
/// every block has a head.
const fn deflated_room(length: usize) -> usize {
    length + length / 4 + 128
}

/// A compressor that all connections use. Level 1: half the time of the next one for a third more bytes.
fn shared_compressor(window_bits: u8) -> Deflate {
    Deflate::new_with_config(DeflateConfig {
        level: 1,
        window_bits: -i32::from(window_bits),
        ..DeflateConfig::default()
    })
}

/// A compressor that one connection keeps. Whoever pays for that with memory wants small messages: level 2. Higher ones take
/// longer and gain little.
fn context_compressor(window_bits: u8) -> Deflate {
    Deflate::new_with_config(DeflateConfig {
        level: 2,
        window_bits: -i32::from(window_bits),
        mem_level: CONTEXT_MEMORY_LEVEL,
        ..DeflateConfig::default()
    })
}

/// Deflates a message that refers to none before it.
fn deflate_alone(window_bits: u8, payload: &[u8], space: &mut [u8]) -> Option<usize> {
    COMPRESSORS.with_borrow_mut(|compressors| {
        let state = &mut compressors[usize::from(window_bits - WINDOW_BITS_MIN)];
        let deflated = deflate(state, || shared_compressor(window_bits), payload, space);
        if let Some(state) = state {
            state.reset();
        }
        deflated
    })
}

/// Deflates a message to the front of `space`; how many bytes of it go onto the wire. `None` when the room was not enough,
/// or the message has more than 4 GiB; then the state is gone.
fn deflate(
    kept: &mut Option<Box<Deflate>>,
    new: impl FnOnce() -> Deflate,
    payload: &[u8],
    space: &mut [u8],
) -> Option<usize> {
    let state = kept.get_or_insert_with(|| Box::new(new()));
    let (taken, made) = (state.total_in(), state.total_out());
    let status = state.compress(payload, space, DeflateFlush::SyncFlush);
    let taken = state.total_in() - taken;
    let made = usize::try_from(state.total_out() - made).unwrap_or(0);
    // With no room left there may be more to come.
    let complete = status == Ok(Status::Ok) && taken == payload.len() as u64 && made < space.len();
    if complete && space[..made].ends_with(&TAIL) {
        return Some(made - TAIL.len());
    }
    // A state that has output left is not to be reset: zlib-rs 0.6.8 then forgets where in its buffer that began, and one of
    // the next messages ends in a panic.
    *kept = None;
    None
}

/// Brings the incoming messages of one connection back to their size.
pub struct Inflation {
    takeover: bool,
    message_bytes_max: u64,
    /// Of the message in progress.
    kind: Option<Kind>,
    /// Bytes of the message in progress that are inflated.
    bytes: u64,
    utf8: Utf8,
    /// Nothing of the message was given to the inflater since it began, or since a final block.
    at_start: bool,
    /// While a message is in progress, and with takeover ever after.
    inflater: Option<Box<Inflate>>,
}

impl Inflation {
    /// For a connection with this agreement; larger messages are refused.
    pub fn new(agreement: Agreement, message_bytes_max: u64) -> Self {
        Self {
            takeover: agreement.peer_takeover,
            message_bytes_max,
            kind: None,
            bytes: 0,
            utf8: Utf8::default(),
            at_start: true,
            inflater: None,
        }
    }

    /// A compressed message begins.
    pub fn begin(&mut self, kind: Kind) {
        self.kind = Some(kind);
        self.bytes = 0;
        self.at_start = true;
    }

    /// Is a compressed message in progress?
    pub fn is_open(&self) -> bool {
        self.kind.is_some()
    }

    /// Inflates a piece of the message into the sink.
    ///
    /// # Errors
    ///
    /// The piece is not deflated, is not text, or makes the message too big. The connection has to fail.
    pub fn push<M: MessageSink + ?Sized>(
        &mut self,
        mut piece: &[u8],
        sink: &mut M,
    ) -> Result<(), Failure> {
        let inflater = self.inflater.get_or_insert_with(|| {
            let spare = INFLATER.take();
            spare.unwrap_or_else(|| Box::new(Inflate::new(false, WINDOW_BITS_MAX)))
        });
        loop {
            let left = self.message_bytes_max - self.bytes;
            let want = piece
                .len()
                .saturating_mul(INFLATE_FACTOR)
                .clamp(INFLATE_BYTES_MIN, INFLATE_BYTES_MAX)
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            // Where nothing more may come, there is still the rest of the stream to be read.
            let mut beyond = [0];
            let mut memory = if want == 0 {
                ReadBuf::new(&mut [])
            } else {
                sink.space(want)
            };
            let want = want.min(memory.remaining());
            let full = want == 0;
            let space = if full {
                &mut beyond[..]
            } else {
                memory.initialize_unfilled_to(want)
            };
            let inflated = step(inflater, piece, space);
            piece = &piece[inflated.taken..];
            self.at_start = false;
            let room = space.len();
            if inflated.made > 0 {
                if full {
                    return Err(NO_ROOM);
                }
                if self.kind == Some(Kind::Text) && !self.utf8.push(&space[..inflated.made]) {
                    return Err(NOT_UTF8);
                }
                self.bytes += inflated.made as u64;
                sink.filled(inflated.made);
            }
            // Last, so that it does not matter how much is inflated at a time.
            if inflated.failed {
                return Err(NOT_DEFLATED);
            }
            if inflated.ended {
                // A final block; another stream may follow (RFC 7692, section 7.2.3.4).
                inflater.reset(false);
                self.at_start = true;
                if piece.is_empty() {
                    return Ok(());
                }
            } else if inflated.made < room {
                // All that can come out is out.
                debug_assert!(piece.is_empty(), "the inflater takes all or fills the room");
                return Ok(());
            }
        }
    }

    /// The message is complete.
    ///
    /// # Errors
    ///
    /// It ends inside of something. The connection has to fail.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.kind = None;
        if let Some(inflater) = &mut self.inflater
            && !self.at_start
        {
            let tail = if self.takeover {
                &TAIL[..]
            } else {
                &TAIL_AND_END
            };
            let inflated = step(inflater, tail, &mut [0]);
            // What comes out only now was cut off before its end.
            let whole = inflated.made == 0 && inflated.taken == tail.len();
            if inflated.failed || !whole || inflated.ended == self.takeover {
                return Err(NOT_DEFLATED);
            }
        }
        if !self.utf8.end() {
            return Err(NOT_UTF8);
        }
        if !self.takeover
            && let Some(mut inflater) = self.inflater.take()
        {
            inflater.reset(false);
            INFLATER.set(Some(inflater));
        }
        Ok(())
    }
}

/// What one call of the inflater did.
struct Step {
    taken: usize,
    made: usize,
    /// The stream is over.
    ended: bool,
    /// What follows what was taken is no deflate stream.
    failed: bool,
}

fn step(inflater: &mut Inflate, input: &[u8], space: &mut [u8]) -> Step {
    let (taken, made) = (inflater.total_in(), inflater.total_out());
    let status = inflater.decompress(input, space, InflateFlush::NoFlush);
    let taken = (inflater.total_in() - taken) as usize;
    let made = (inflater.total_out() - made) as usize;
    let ended = status == Ok(Status::StreamEnd);
    let stuck = !ended && taken < input.len() && made < space.len();
    Step {
        taken,
        made,
        ended,
        failed: status.is_err() || stuck,
    }
}

const NOT_DEFLATED: Failure = Failure {
    code: code::INVALID_PAYLOAD,
    reason: "compressed data is broken",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_with_output_left_is_not_used_again() {
        let mut kept = None;
        let message = [b'a'; 1000];
        let space = &mut [0; 1000];
        assert!(deflate(&mut kept, || shared_compressor(15), &message, space).is_some());
        assert!(kept.is_some());
        // The tail does not fit.
        let deflated = deflate(&mut kept, || shared_compressor(15), b"xyz", &mut space[..5]);
        assert_eq!(deflated, None);
        assert!(kept.is_none());
    }

    #[test]
    fn the_room_is_enough_for_what_cannot_be_compressed() {
        let mut seed = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 20) as u8
            })
            .collect();
        for new in [shared_compressor, context_compressor] {
            for bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX {
                let mut kept = None;
                for length in [1, 2, 10, 100, 1000, 4096, 65_536, 100_000] {
                    let mut space = vec![0; deflated_room(length)];
                    let message = &noise[..length];
                    assert!(deflate(&mut kept, || new(bits), message, &mut space).is_some());
                }
            }
        }
    }
}
