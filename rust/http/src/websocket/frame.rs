//! Frames of RFC 6455, section 5: a decoder that gives parts of messages, and an encoder.
//!
//! # Theory
//!
//! The decoder does no input and keeps no payload. It is given whatever bytes are there, takes what it understands and
//! gives one [`Part`] per call; what it leaves (at most an unfinished frame head or control frame) the caller brings
//! again with more bytes behind it. So a message of any size passes through it in pieces, and a caller that knows a
//! better place for payload reads the socket into that place and only asks the decoder to unmask and check
//! ([`Decoder::payload_left`], [`Decoder::payload_read`]).
//!
//! Two states: at a frame head, or inside the payload of a data frame. Beside them stands the message in progress,
//! which outlives its frames (fragmentation) and may be interrupted by control frames.
//!
//! Every rule is judged as early as it can be: the first two bytes before the length is known, the length before the
//! payload is there, UTF-8 piece by piece. A peer that breaks one is answered at once, not when its frame is complete.
//! After a [`Failure`] the position in the stream is lost: the decoder must not be used again.
//!
//! With permessage-deflate (RFC 7692) RSV1 of a message's first frame says that it is compressed: the pieces of
//! [`Part::Data`] are then deflated bytes, whose text and size only who inflates them can judge (`deflate.rs`).

#![expect(
    clippy::mut_mut,
    reason = "input is a slice that is unmasked in place and shortened from the front"
)]

use super::{Failure, Kind, code};

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const RSV1: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// How much of a message is copied before it is masked.
const MASK_STEP_BYTES: usize = 16 * 1024;

/// The largest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The largest reason of a close frame: a control payload less the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;
/// The longest frame that a [`Decoder`] leaves unfinished in its input: a client's control frame.
pub const UNFINISHED_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX;

/// A part of what a peer sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message in one frame of which all is there: the common case, in one call. Never compressed.
    Whole {
        /// Text or binary.
        kind: Kind,
        /// The payload; for text, valid UTF-8.
        payload: &'a [u8],
    },
    /// A message begins.
    Begin {
        /// Text or binary.
        kind: Kind,
        /// Bytes of its only frame: the size of the message unless it is compressed. 0: more frames follow.
        size_hint: u64,
        /// The pieces are deflated (RFC 7692).
        compressed: bool,
    },
    /// A piece of the message, never empty. Text may be cut inside a character.
    Data(&'a [u8]),
    /// The message is complete.
    End,
    /// A ping, to be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer closes; code and reason if it gave them.
    Close(Option<(u16, &'a str)>),
}

/// Payload of a data frame that has not passed yet.
#[derive(Clone, Copy)]
struct Payload {
    left: u64,
    /// Rotated so that its first byte belongs to the next byte of payload.
    key: [u8; 4],
    fin: bool,
}

/// A message in progress.
#[derive(Clone, Copy)]
struct Message {
    kind: Kind,
    compressed: bool,
    /// Payload bytes of its frames so far, the frame in progress wholly included.
    bytes: u64,
}

/// Takes parts of messages out of the bytes that a peer sends.
pub struct Decoder {
    message_bytes_max: u64,
    /// The peer is a client, which masks its frames; a server must not (RFC 6455, section 5.1).
    masked: bool,
    /// Messages may be deflated.
    deflate: bool,
    payload: Option<Payload>,
    message: Option<Message>,
    utf8: Utf8,
}

impl Decoder {
    /// A decoder of what a client sends, at the start of a connection, that refuses messages above `message_bytes_max`.
    pub fn new(message_bytes_max: u64) -> Self {
        Self {
            message_bytes_max,
            masked: true,
            deflate: false,
            payload: None,
            message: None,
            utf8: Utf8::default(),
        }
    }

    /// A decoder of what a server sends.
    pub fn of_server(message_bytes_max: u64) -> Self {
        Self {
            masked: false,
            ..Self::new(message_bytes_max)
        }
    }

    /// The same for a connection on which permessage-deflate was agreed, or not.
    #[must_use]
    pub fn with_deflate(mut self, agreed: bool) -> Self {
        self.deflate = agreed;
        self
    }

    /// Takes the next part out of `input`, which is moved past what was taken, or gives `None` when more bytes are
    /// needed. Payload is unmasked in place.
    ///
    /// # Errors
    ///
    /// The peer broke a rule: fail the connection and drop the decoder.
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Part<'a>>, Failure> {
        loop {
            let Some(payload) = &mut self.payload else {
                match self.head(input)? {
                    Head::Unfinished => return Ok(None),
                    Head::Continuation => continue,
                    Head::Part(part) => return Ok(Some(part)),
                }
            };
            if payload.left == 0 {
                let fin = payload.fin;
                self.payload = None;
                if fin {
                    self.end()?;
                    return Ok(Some(Part::End));
                }
                continue;
            }
            if input.is_empty() {
                return Ok(None);
            }
            let taken = usize::try_from(payload.left)
                .unwrap_or(usize::MAX)
                .min(input.len());
            let data = take(input, taken);
            self.payload_read(data)?;
            return Ok(Some(Part::Data(data)));
        }
    }

    /// How many bytes of an uncompressed data frame's payload come next in the stream; 0 at a frame head. A caller may
    /// read up to as many bytes past the decoder, into memory of its choice, and then must call
    /// [`payload_read`](Self::payload_read).
    pub fn payload_left(&self) -> u64 {
        match (&self.payload, &self.message) {
            (
                Some(payload),
                Some(Message {
                    compressed: false, ..
                }),
            ) => payload.left,
            _ => 0,
        }
    }

    /// Is [`Part::End`] the next part, for which no more input is needed?
    pub fn end_is_due(&self) -> bool {
        matches!(
            self.payload,
            Some(Payload {
                left: 0,
                fin: true,
                ..
            })
        )
    }

    /// Unmasks and checks payload that the caller has read by itself: at most [`payload_left`](Self::payload_left)
    /// bytes, the next ones of the stream.
    ///
    /// # Errors
    ///
    /// Text that is not UTF-8.
    ///
    /// # Panics
    ///
    /// When `data` is longer than the payload left.
    pub fn payload_read(&mut self, data: &mut [u8]) -> Result<(), Failure> {
        let payload = self
            .payload
            .as_mut()
            .expect("payload is read only inside a data frame");
        payload.left = payload
            .left
            .checked_sub(data.len() as u64)
            .expect("no more than the payload left is read");
        if self.masked {
            mask(data, payload.key);
        }
        payload.key.rotate_left(data.len() % 4);
        match self.message {
            Some(Message {
                kind: Kind::Text,
                compressed: false,
                ..
            }) if !self.utf8.push(data) => Err(NOT_UTF8),
            _ => Ok(()),
        }
    }

    /// Reads a frame head, and a control frame or a whole message with it.
    fn head<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Head<'a>, Failure> {
        let &mut [first, second, ref rest @ ..] = &mut **input else {
            return Ok(Head::Unfinished);
        };
        self.judge(first, second)?;
        // RFC 6455, section 5.2: "the minimal number of bytes MUST be used to encode the length".
        let (extension, shortest) = match second & LENGTH {
            126 => (2, 126),
            127 => (8, 1 << 16),
            _ => (0, 0),
        };
        let key_bytes = if self.masked { 4 } else { 0 };
        if rest.len() < extension + key_bytes {
            return Ok(Head::Unfinished);
        }
        let length = match extension {
            0 => u64::from(second & LENGTH),
            n => rest[..n]
                .iter()
                .fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        if length >> 63 != 0 || length < shortest {
            return Err(broken("invalid frame length"));
        }
        let mut key = [0; 4];
        key[..key_bytes].copy_from_slice(&rest[extension..extension + key_bytes]);
        let head_bytes = 2 + extension + key_bytes;
        let (fin, opcode) = (first & FIN != 0, first & OPCODE);

        if opcode & CONTROL != 0 {
            let length = usize::from(second & LENGTH);
            if input.len() < head_bytes + length {
                return Ok(Head::Unfinished);
            }
            take(input, head_bytes);
            let payload = take(input, length);
            mask(payload, key);
            return Ok(Head::Part(match opcode {
                PING => Part::Ping(payload),
                PONG => Part::Pong(payload),
                _ => Part::Close(close_payload(payload)?),
            }));
        }

        let (message_bytes, compressed) = match &self.message {
            Some(message) => (message.bytes, message.compressed),
            None => (0, first & RSV1 != 0),
        };
        let bytes_max = if compressed {
            deflated_bytes_max(self.message_bytes_max)
        } else {
            self.message_bytes_max
        };
        if length > bytes_max.saturating_sub(message_bytes) {
            return Err(TOO_BIG);
        }
        take(input, head_bytes);
        if let Some(message) = &mut self.message {
            message.bytes += length;
            self.payload = Some(Payload {
                left: length,
                key,
                fin,
            });
            return Ok(Head::Continuation);
        }
        let kind = if opcode == TEXT {
            Kind::Text
        } else {
            Kind::Binary
        };
        if fin && !compressed && length <= input.len() as u64 {
            let payload = take(input, length as usize);
            if self.masked {
                mask(payload, key);
            }
            if kind == Kind::Text && simdutf8::basic::from_utf8(payload).is_err() {
                return Err(NOT_UTF8);
            }
            return Ok(Head::Part(Part::Whole { kind, payload }));
        }
        self.message = Some(Message {
            kind,
            compressed,
            bytes: length,
        });
        self.payload = Some(Payload {
            left: length,
            key,
            fin,
        });
        Ok(Head::Part(Part::Begin {
            kind,
            size_hint: if fin { length } else { 0 },
            compressed,
        }))
    }

    /// Everything that the first two bytes of a frame can be wrong about (RFC 6455, sections 5.1, 5.2, 5.4, 5.5).
    fn judge(&self, first: u8, second: u8) -> Result<(), Failure> {
        let opcode = first & OPCODE;
        // RFC 7692, section 6: RSV1 belongs to the first frame of a message.
        let allowed = if self.deflate && matches!(opcode, TEXT | BINARY) {
            RSV1
        } else {
            0
        };
        if first & RSV & !allowed != 0 {
            return Err(broken("reserved bits are set"));
        }
        match (self.masked, second & MASKED != 0) {
            (true, false) => return Err(broken("frame is not masked")),
            (false, true) => return Err(broken("frame of a server is masked")),
            _ => {}
        }
        match opcode {
            CONTINUATION if self.message.is_none() => Err(broken("continuation without a message")),
            TEXT | BINARY if self.message.is_some() => {
                Err(broken("new message inside a fragmented one"))
            }
            CLOSE | PING | PONG if first & FIN == 0 => Err(broken("fragmented control frame")),
            CLOSE | PING | PONG if usize::from(second & LENGTH) > CONTROL_BYTES_MAX => {
                Err(broken("control frame is too long"))
            }
            CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG => Ok(()),
            _ => Err(broken("unknown opcode")),
        }
    }

    /// Ends the message in progress.
    fn end(&mut self) -> Result<(), Failure> {
        self.message = None;
        if self.utf8.end() {
            Ok(())
        } else {
            Err(NOT_UTF8)
        }
    }
}

enum Head<'a> {
    Unfinished,
    /// The head of a further frame of the message in progress.
    Continuation,
    Part(Part<'a>),
}

/// How many deflated bytes a message of at most `message_bytes_max` bytes may take. Deflate adds a few bytes to what it cannot
/// make smaller, and more the more often a peer flushes; whoever needs twice the size makes fun of us.
const fn deflated_bytes_max(message_bytes_max: u64) -> u64 {
    message_bytes_max.saturating_mul(2).saturating_add(64)
}

const TOO_BIG: Failure = Failure {
    code: code::TOO_BIG,
    reason: "message too big",
};

pub(super) const NOT_UTF8: Failure = Failure {
    code: code::INVALID_PAYLOAD,
    reason: "text is not UTF-8",
};

const fn broken(reason: &'static str) -> Failure {
    Failure {
        code: code::PROTOCOL_ERROR,
        reason,
    }
}

/// Splits the first `count` bytes off `input`.
fn take<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let (taken, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}

/// RFC 6455, sections 5.5.1 and 7.4: nothing, or a code that may be sent and a reason in UTF-8.
fn close_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, Failure> {
    match payload {
        [] => Ok(None),
        [_] => Err(broken("close payload of one byte")),
        &[high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            if !code::is_sendable(code) {
                return Err(broken("invalid close code"));
            }
            let reason =
                std::str::from_utf8(reason).map_err(|_| broken("close reason is not UTF-8"))?;
            Ok(Some((code, reason)))
        }
    }
}

/// XORs `data` with the repeated `key` (RFC 6455, section 5.3), eight bytes at a time; the compiler makes vectors of it.
pub fn mask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let word_key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ word_key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// Checks UTF-8 that comes in pieces.
#[derive(Default)]
pub(super) struct Utf8 {
    /// The beginning of a character that the last piece did not finish.
    carry: [u8; 4],
    carried: usize,
}

impl Utf8 {
    /// False when no continuation can make the text valid any more.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> bool {
        while self.carried > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return true;
            };
            piece = rest;
            self.carry[self.carried] = byte;
            self.carried += 1;
            match std::str::from_utf8(&self.carry[..self.carried]) {
                Ok(_) => self.carried = 0,
                // An unfinished character of four bytes is either complete or wrong: `carry` cannot overflow.
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        if simdutf8::basic::from_utf8(piece).is_ok() {
            return true;
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let unfinished = &piece[error.valid_up_to()..];
                self.carry[..unfinished.len()].copy_from_slice(unfinished);
                self.carried = unfinished.len();
                true
            }
        }
    }

    /// False when the text ends inside a character.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.carried) == 0
    }
}

/// Appends a whole message in one frame.
pub fn encode_message(output: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let opcode = if kind == Kind::Text { TEXT } else { BINARY };
    encode(output, opcode, payload);
}

/// Appends the head of a whole message in one frame, whose payload follows from elsewhere.
pub(super) fn encode_message_head(output: &mut Vec<u8>, kind: Kind, length: usize) {
    let opcode = if kind == Kind::Text { TEXT } else { BINARY };
    encode_head(output, opcode, length);
}

/// Appends a whole message of `length` bytes in one frame whose payload `deflate` writes to the front of the `room` bytes
/// that it is given, and says how long it is: at most as long as the message, or `None`, then nothing is appended.
pub(super) fn encode_deflated(
    output: &mut Vec<u8>,
    kind: Kind,
    length: usize,
    room: usize,
    deflate: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> bool {
    let start = output.len();
    // Where the payload begins if it stays as long as it is.
    let payload = start + head_bytes(length);
    output.resize(payload + room, 0);
    let Some(deflated) = deflate(&mut output[payload..]) else {
        output.truncate(start);
        return false;
    };
    let head = start + head_bytes(deflated);
    if head < payload {
        output.copy_within(payload..payload + deflated, head);
    }
    output.truncate(head + deflated);
    let opcode = if kind == Kind::Text { TEXT } else { BINARY };
    write_head(&mut output[start..head], FIN | RSV1 | opcode, deflated);
    true
}

/// Makes a client's frame of the server's frame that `output` holds from `start` on: any frame that this module encodes.
pub fn mask_frame(output: &mut Vec<u8>, start: usize, key: [u8; 4]) {
    let head_bytes = match output[start + 1] & LENGTH {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let (head, end) = (start + head_bytes, output.len());
    output[start + 1] |= MASKED;
    output.resize(end + 4, 0);
    output.copy_within(head..end, head + 4);
    output[head..head + 4].copy_from_slice(&key);
    mask(&mut output[head + 4..], key);
}

/// Appends a whole message in one frame, as a client sends it.
pub fn encode_masked_message(output: &mut Vec<u8>, kind: Kind, payload: &[u8], key: [u8; 4]) {
    output.reserve(14 + payload.len());
    let start = output.len();
    encode_message_head(output, kind, payload.len());
    output[start + 1] |= MASKED;
    output.extend_from_slice(&key);
    // Copied and masked in steps that stay in the fastest cache; a multiple of the key, which so begins anew with each.
    for piece in payload.chunks(MASK_STEP_BYTES) {
        let start = output.len();
        output.extend_from_slice(piece);
        mask(&mut output[start..], key);
    }
}

/// Appends a ping.
///
/// # Panics
///
/// When `payload` is longer than [`CONTROL_BYTES_MAX`].
pub fn encode_ping(output: &mut Vec<u8>, payload: &[u8]) {
    assert!(
        payload.len() <= CONTROL_BYTES_MAX,
        "a ping carries at most 125 bytes"
    );
    encode(output, PING, payload);
}

/// Appends a pong.
///
/// # Panics
///
/// When `payload` is longer than [`CONTROL_BYTES_MAX`].
pub fn encode_pong(output: &mut Vec<u8>, payload: &[u8]) {
    assert!(
        payload.len() <= CONTROL_BYTES_MAX,
        "a pong carries at most 125 bytes"
    );
    encode(output, PONG, payload);
}

/// Appends a close frame; a reason above [`REASON_BYTES_MAX`] is cut at a character.
///
/// # Panics
///
/// When the code may not be sent ([`code::is_sendable`]).
pub fn encode_close(output: &mut Vec<u8>, close: Option<(u16, &str)>) {
    let Some((code, reason)) = close else {
        return encode(output, CLOSE, &[]);
    };
    assert!(code::is_sendable(code), "close code {code} may not be sent");
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    encode_head(output, CLOSE, 2 + reason.len());
    output.extend_from_slice(&code.to_be_bytes());
    output.extend_from_slice(reason.as_bytes());
}

fn encode(output: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    output.reserve(10 + payload.len());
    encode_head(output, opcode, payload.len());
    output.extend_from_slice(payload);
}

/// The head of an unfragmented frame from a server: never masked.
fn encode_head(output: &mut Vec<u8>, opcode: u8, length: usize) {
    output.push(FIN | opcode);
    match length {
        0..=125 => output.push(length as u8),
        126..=0xffff => {
            output.push(126);
            output.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            output.push(127);
            output.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// How long the head of a server's frame is.
const fn head_bytes(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes a head into memory of exactly its size.
fn write_head(head: &mut [u8], first: u8, length: usize) {
    head[0] = first;
    match head.len() {
        2 => head[1] = length as u8,
        4 => {
            head[1] = 126;
            head[2..].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
