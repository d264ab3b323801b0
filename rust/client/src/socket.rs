//! One open WebSocket, as a state machine that never waits.
//!
//! # Theory
//! Whoever drives a [`Socket`] waits for its [`interest`](Socket::interest) in the socket and for its
//! [`deadline`](Socket::deadline), in any way, and calls [`step`](Socket::step), which does what can be done without waiting. It
//! may be called at any time and any number of times; a call that was not needed costs a system call. So several may drive one
//! socket in turns, under a lock.
//!
//! ```text
//!   Open ---- close() -----> Closing ---- the peer's close frame ----+
//!    |                          |                                    v
//!    +---- the peer's close frame, or a rule was broken ----------> Ending ---- its end, or close timeout ----> Done
//!    +---- the link is lost ------------------------------------------------------------------------------------^
//! ```
//! What the WebSocket ended with is certain from Ending on ([`Socket::closed`]), but messages that came before are still given
//! out. After a handshake without a fault it is the server that ends the connection (RFC 6455, section 7.1.1): so its port,
//! and not ours, is kept back by TCP. After a fault of the peer we end our side.
//!
//! Backpressure. Inbound: while [`INBOX_MESSAGES_MAX`] messages or [`INBOX_BYTES_MAX`] bytes wait, nothing is read. Outbound:
//! what is sent is taken in any case; who sends much waits until [`unsent`](Socket::unsent) is small.
//!
//! Heartbeat. After `ping_interval` without a byte from the peer it gets a ping, after `ping_timeout` more it is given up.
//! Any byte is a sign of life. The clock counts only while something is read: a full inbox says nothing about the peer, and
//! whoever comes back from a long pause reads first and judges then.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt, io,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use framegate_http::websocket::{
    Failure, Kind, code,
    deflate::{Agreement, Compressor, Inflation, WINDOW_BITS_MIN},
    frame::{self, Decoder, Part},
    message::{MessageBuffer, MessageSink, fill},
};
use tokio::io::ReadBuf;

use crate::{
    error::{Error, ErrorKind},
    keys::Keys,
    link::Link,
    settings::Settings,
};

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// From this many bytes on, the rest of a payload is read straight into the message.
const DIRECT_BYTES_MIN: u64 = 16 * 1024;
/// Messages that may wait to be taken: enough for a burst of small ones from one read.
pub(crate) const INBOX_MESSAGES_MAX: usize = 4096;
/// Bytes that are left for the next write at most: copying as many costs what a write does.
const TOGETHER_BYTES_MAX: usize = 16 * 1024;
/// Bytes that may wait to be taken; one message may be larger.
pub(crate) const INBOX_BYTES_MAX: usize = 1 << 20;
/// Reads of one step, so that a fast peer does not keep a thread for ever.
const READS_MAX: usize = 64;
/// From this many unsent bytes of pongs on a ping is not answered: the next one will be (RFC 6455, section 5.5.3).
const PONG_BYTES_MAX: usize = 2 * 1024;
/// The largest buffer that is kept for the next message.
const SPARE_BYTES_MAX: usize = 256 * 1024;
/// What is reported when the peer does not answer a ping.
const NO_PONG: &str = "ping timeout";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Text or binary.
    pub kind: Kind,
    /// Its bytes; of a text valid UTF-8.
    pub payload: Vec<u8>,
}

impl Message {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Text,
            payload: text.into().into_bytes(),
        }
    }

    /// Bytes.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind: Kind::Binary,
            payload: payload.into(),
        }
    }
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; 1005 when the peer gave none, 1006 when the connection was lost.
    pub code: u16,
    /// The reason that came with it.
    pub reason: String,
    /// Both sides said that they close.
    pub clean: bool,
    /// The peer said so first, or broke the connection.
    pub by_peer: bool,
}

impl Closed {
    fn lost(why: impl Into<String>) -> Self {
        Self {
            code: code::ABNORMAL,
            reason: why.into(),
            clean: false,
            by_peer: true,
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.clean, self.by_peer) {
            (true, true) => f.write_str("the server closed the WebSocket")?,
            (true, false) => f.write_str("the WebSocket was closed")?,
            (false, true) => f.write_str("the connection was lost")?,
            (false, false) => f.write_str("the server broke the protocol")?,
        }
        if self.clean || !self.by_peer {
            write!(f, " with code {}", self.code)?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

/// What a socket has to be ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Closing,
    Ending,
    Done,
}

/// When the peer was heard, and asked.
struct Heartbeat {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    /// Bytes came, or nobody listened.
    heard: Instant,
    /// It was asked, or took bytes of ours since.
    asked: Option<Instant>,
}

/// One open WebSocket; see the head of the file.
pub struct Socket {
    link: Link,
    decoder: Decoder,
    inflation: Option<Inflation>,
    compressor: Option<Compressor>,
    inbox: Inbox,
    /// Read and not decoded: an unfinished frame, or more.
    input: Vec<u8>,
    /// It is more, because the inbox is full. Nothing is read then.
    held: bool,
    output: Vec<u8>,
    written: usize,
    /// Where in `output` the ping ends that asks whether the peer is there; 0 when it was written.
    ping_end: usize,
    /// Where in `output` the last pong ends, and how many bytes of pongs are before that.
    pongs: (usize, usize),
    keys: Keys,
    stage: Stage,
    closed: Option<Closed>,
    /// What the peer broke, until the messages in front of it are taken and the next one is asked for, or that time has come.
    broken: Option<(Failure, Instant)>,
    close_timeout: Duration,
    /// Until when the peer's end is awaited.
    patience: Option<Instant>,
    heartbeat: Heartbeat,
    /// Who opened it.
    process: u32,
}

/// Messages on their way to who takes them.
#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Of the one in progress.
    kind: Option<Kind>,
    buffer: MessageBuffer,
}

impl Inbox {
    fn has_room(&self) -> bool {
        self.messages.len() < INBOX_MESSAGES_MAX && self.bytes < INBOX_BYTES_MAX
    }

    fn push(&mut self, kind: Kind, payload: Vec<u8>) {
        self.bytes += payload.len();
        self.messages.push_back(Message { kind, payload });
    }
}

impl MessageSink for Inbox {
    fn begin(&mut self, kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        self.kind = Some(kind);
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        self.buffer.space(want)
    }

    fn filled(&mut self, count: usize) {
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        let payload = self.buffer.take();
        if let Some(kind) = self.kind.take() {
            self.push(kind, payload);
        }
        Ok(())
    }

    fn whole(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        self.push(kind, payload.to_vec());
        Ok(())
    }
}

thread_local! {
    /// Where sockets of this thread read into; absent while one does.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Why there is nothing more to read.
enum Read {
    /// Bytes came.
    Some,
    /// There are none now.
    Blocked,
    /// The peer sends nothing any more.
    End(String),
}

impl Socket {
    /// A WebSocket at the start of a link; `input` is what came behind the handshake.
    pub(crate) fn new(
        link: Link,
        input: &[u8],
        deflate: Option<Agreement>,
        settings: &Settings,
    ) -> Self {
        let limit = settings.message_bytes_max;
        // zlib has no window of 8 bits: who asks for that gets messages that are not compressed, which is always right.
        let compressor = deflate
            .filter(|it| it.own_window_bits >= WINDOW_BITS_MIN)
            .map(|it| Compressor::new(it, settings.compression_bytes_min, None));
        let mut socket = Self {
            link,
            decoder: Decoder::of_server(limit).with_deflate(deflate.is_some()),
            inflation: deflate.map(|agreement| Inflation::new(agreement, limit)),
            compressor,
            inbox: Inbox::default(),
            input: input.to_vec(),
            held: false,
            ping_end: 0,
            output: Vec::new(),
            written: 0,
            pongs: (0, 0),
            keys: Keys::new(),
            stage: Stage::Open,
            closed: None,
            broken: None,
            close_timeout: settings.close_timeout,
            patience: None,
            heartbeat: Heartbeat {
                interval: settings.ping_interval,
                timeout: settings.ping_timeout,
                heard: Instant::now(),
                asked: None,
            },
            process: std::process::id(),
        };
        socket.decode_kept();
        socket
    }

    /// The socket to wait on. It is shut down when the WebSocket is over, which wakes who waits.
    pub fn tcp(&self) -> &Arc<TcpStream> {
        self.link.tcp()
    }

    /// Takes the next message that is there.
    pub fn take(&mut self) -> Option<Message> {
        let Some(message) = self.inbox.messages.pop_front() else {
            self.fail_broken();
            return None;
        };
        self.inbox.bytes -= message.payload.len();
        if self.held && self.inbox.messages.is_empty() {
            self.decode_kept();
        }
        Some(message)
    }

    /// Are there messages to take?
    pub fn has_message(&self) -> bool {
        !self.inbox.messages.is_empty()
    }

    /// How the WebSocket ended; `None` before that is certain. Messages that came before may still be taken.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Is the connection over as well?
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Bytes that were sent and that the system has not taken yet.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    /// Was permessage-deflate agreed on?
    pub fn is_compressed(&self) -> bool {
        self.inflation.is_some()
    }

    /// What the socket has to be ready for before [`step`](Self::step) can do something.
    pub fn interest(&self) -> Interest {
        Interest {
            read: self.reads(),
            write: self.stage != Stage::Done && (self.unsent() > 0 || self.link.has_unwritten()),
        }
    }

    /// Can something be read without waiting, because TLS has decrypted it already?
    pub fn is_ready(&self) -> bool {
        self.reads() && self.link.has_decrypted()
    }

    /// When [`step`](Self::step) has to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Open if self.reads() => {
                let beat = &self.heartbeat;
                match beat.asked {
                    Some(asked) => beat.timeout.map(|timeout| asked + timeout),
                    None => beat.interval.map(|interval| beat.heard + interval),
                }
            }
            Stage::Open => self.broken.as_ref().map(|(_, until)| *until),
            Stage::Done => None,
            Stage::Closing | Stage::Ending => self.patience,
        }
    }

    /// Queues a message, and writes what there is room for.
    ///
    /// # Errors
    /// The WebSocket is closed or closing.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        self.check_open()?;
        self.queue(kind, payload);
        self.flush();
        Ok(())
    }

    /// As [`send`](Self::send), but while messages that came are not taken yet a small one is left for the next
    /// [`step`](Self::step): who answers each of them has the answers leave in one write, with that to the last. The caller sees to
    /// it that the step is soon.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_soon(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        self.check_open()?;
        self.queue(kind, payload);
        if !self.has_message() || self.unsent() >= TOGETHER_BYTES_MAX {
            self.flush();
        }
        Ok(())
    }

    /// The same of several messages, which leave together.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_all<'a>(
        &mut self,
        messages: impl IntoIterator<Item = (Kind, &'a [u8])>,
    ) -> Result<(), Error> {
        self.check_open()?;
        for (kind, payload) in messages {
            self.queue(kind, payload);
        }
        self.flush();
        Ok(())
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// The WebSocket is closed or closing, or the payload is longer than 125 bytes.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > frame::CONTROL_BYTES_MAX {
            return Err(Error::argument("a ping carries at most 125 bytes"));
        }
        self.check_open()?;
        self.control(|output| frame::encode_ping(output, payload));
        self.flush();
        Ok(())
    }

    /// Begins to close; nothing can be sent any more, and messages that still come are dropped. Harmless when it was closed.
    ///
    /// # Errors
    /// The code may not be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may; or the reason is longer than 123 bytes.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), Error> {
        if !code::is_sendable(code) {
            return Err(Error::argument(format!(
                "close code {code} may not be sent: use 1000, 1001 or one of 3000 to 4999"
            )));
        }
        if reason.len() > frame::REASON_BYTES_MAX {
            return Err(Error::argument(format!(
                "a close reason has at most {} bytes",
                frame::REASON_BYTES_MAX
            )));
        }
        self.fail_broken();
        if self.stage == Stage::Open {
            self.control(|output| frame::encode_close(output, Some((code, reason))));
            self.stage = Stage::Closing;
            self.patience = Some(Instant::now() + self.close_timeout);
            if self.held {
                self.decode_kept();
            }
            self.flush();
        }
        Ok(())
    }

    /// Ends the connection at once, without a word.
    pub fn abort(&mut self) {
        if self.stage != Stage::Done {
            self.lose(Closed {
                by_peer: false,
                ..Closed::lost("it was cut off")
            });
        }
    }

    /// Does what can be done without waiting: writes, reads, decodes, answers, and looks at the clock. Says for what the socket
    /// is not ready any more, for who waits for changes of that.
    pub fn step(&mut self) -> Interest {
        if self.stage == Stage::Done {
            return Interest::default();
        }
        if self.unsent() > 0 || self.link.has_unwritten() {
            self.flush();
        }
        let read = self.receive();
        self.keep_time(Instant::now());
        if self.unsent() > 0 {
            self.flush();
        }
        Interest {
            read,
            write: self.unsent() > 0 || self.link.has_unwritten(),
        }
    }

    /// Of two processes that use one connection each
    /// gets a part of what comes.
    pub(crate) fn check_own(&self) -> Result<(), Error> {
        if self.process == std::process::id() {
            Ok(())
        } else {
            Err(Error::argument(
                "this WebSocket was opened before fork(): the connection is the parent's",
            )
            .fix("open one in the child"))
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        self.check_own()?;
        match (&self.closed, self.stage) {
            (Some(closed), _) => Err(Error::of_closed(closed)),
            (None, Stage::Open) => Ok(()),
            _ => Err(Error::new(ErrorKind::Closed, "the WebSocket is closing")),
        }
    }

    fn reads(&self) -> bool {
        match self.stage {
            Stage::Open => !self.held && self.broken.is_none() && self.inbox.has_room(),
            Stage::Closing | Stage::Ending => true,
            Stage::Done => false,
        }
    }

    fn queue(&mut self, kind: Kind, payload: &[u8]) {
        let key = self.keys.next();
        let start = self.output.len();
        let compressed = self
            .compressor
            .as_mut()
            .is_some_and(|it| it.encode_smaller(&mut self.output, kind, payload));
        if compressed {
            frame::mask_frame(&mut self.output, start, key);
        } else {
            frame::encode_masked_message(&mut self.output, kind, payload, key);
        }
    }

    fn control(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.output.len();
        encode(&mut self.output);
        frame::mask_frame(&mut self.output, start, self.keys.next());
    }

    /// Writes what there is room for.
    fn flush(&mut self) {
        while self.unsent() > 0 {
            match self.link.write(&self.output[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    if self.ping_end > 0 {
                        // The time for an answer runs from when the ping has left.
                        self.heartbeat.asked = Some(Instant::now());
                        if self.written >= self.ping_end {
                            self.ping_end = 0;
                        }
                    }
                    if let Some(patience) = &mut self.patience {
                        // A slow reader is not a dead one.
                        *patience = Instant::now() + self.close_timeout;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shift();
                    return;
                }
                Err(_) => {
                    // What the peer said before may still be read, and it says how this ended.
                    self.output.clear();
                    (self.written, self.ping_end, self.pongs) = (0, 0, (0, 0));
                    return;
                }
            }
        }
        self.shift();
        // What cannot leave now is written by the next step.
        let _ = self.link.flush();
    }

    /// Gives up what was written.
    fn shift(&mut self) {
        if self.written == self.output.len() {
            if self.output.capacity() > SPARE_BYTES_MAX {
                self.output = Vec::new();
            }
            self.output.clear();
            (self.written, self.ping_end, self.pongs) = (0, 0, (0, 0));
        } else if self.written >= READ_BYTES && self.written >= self.output.len() / 2 {
            self.output.drain(..self.written);
            self.pongs.0 = self.pongs.0.saturating_sub(self.written);
            self.ping_end = self.ping_end.saturating_sub(self.written);
            self.written = 0;
        }
    }

    /// True when there is nothing to read any more.
    fn receive(&mut self) -> bool {
        for _ in 0..READS_MAX {
            if !self.reads() {
                return false;
            }
            match self.read() {
                Read::Some => {
                    self.heartbeat.heard = Instant::now();
                    self.heartbeat.asked = None;
                    if self.inbox.kind.is_none() && self.has_message() {
                        // Somebody waits for these; more may come with the next step.
                        return false;
                    }
                }
                Read::Blocked => return true,
                Read::End(why) => {
                    self.lose(Closed::lost(why));
                    return false;
                }
            }
        }
        false
    }

    fn read(&mut self) -> Read {
        if self.stage == Stage::Open
            && self.input.is_empty()
            && self.decoder.payload_left() >= DIRECT_BYTES_MIN
        {
            return self.read_direct();
        }
        let mut scratch = SCRATCH
            .take()
            .unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice());
        let kept = self.input.len();
        debug_assert!(
            kept < frame::UNFINISHED_BYTES_MAX,
            "with more than an unfinished frame the inbox is full, and nothing is read"
        );
        scratch[..kept].copy_from_slice(&self.input);
        let read = match self.link.read(&mut scratch[kept..]) {
            Ok(0) => Read::End("the server ended it without a close frame".to_owned()),
            Ok(count) => {
                self.input.clear();
                self.decode(&mut scratch[..kept + count]);
                Read::Some
            }
            Err(error) => failed(&error),
        };
        SCRATCH.set(Some(scratch));
        read
    }

    /// Reads payload straight into the message.
    fn read_direct(&mut self) -> Read {
        let left = usize::try_from(self.decoder.payload_left()).unwrap_or(usize::MAX);
        let mut space = self.inbox.buffer.space(left);
        let count = match self.link.read(space.initialize_unfilled()) {
            Ok(0) => return Read::End("the server ended it inside of a message".to_owned()),
            Ok(count) => count,
            Err(error) => return failed(&error),
        };
        let data = &mut space.initialize_unfilled()[..count];
        if let Err(failure) = self.decoder.payload_read(data) {
            self.break_off(failure);
            return Read::Some;
        }
        self.inbox.buffer.filled(count);
        if self.decoder.end_is_due() {
            self.decode(&mut []);
        }
        Read::Some
    }

    /// Decodes what was kept.
    fn decode_kept(&mut self) {
        self.held = false;
        let mut kept = std::mem::take(&mut self.input);
        self.decode(&mut kept);
    }

    /// Decodes as much as there is room for, and keeps the rest.
    fn decode(&mut self, mut input: &mut [u8]) {
        loop {
            if self.stage == Stage::Ending || self.stage == Stage::Done {
                return;
            }
            if self.stage == Stage::Open && !self.inbox.has_room() && !self.decoder.end_is_due() {
                self.held = !input.is_empty();
                break;
            }
            match self.decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(part)) => {
                    let taken = match part {
                        Part::Ping(payload) => {
                            answer_ping(
                                &mut self.output,
                                &mut self.pongs,
                                self.written,
                                payload,
                                &mut self.keys,
                            );
                            Ok(())
                        }
                        Part::Pong(_) => Ok(()),
                        Part::Close(close) => {
                            let close = close.map(|(code, reason)| (code, reason.to_owned()));
                            self.closed_by_peer(close);
                            return;
                        }
                        _ if self.stage != Stage::Open => Ok(()),
                        Part::Whole { kind, payload } => self.inbox.whole(kind, payload),
                        Part::Begin {
                            kind, compressed, ..
                        } => {
                            if compressed && let Some(inflation) = &mut self.inflation {
                                inflation.begin(kind);
                            }
                            self.inbox.begin(kind, 0)
                        }
                        Part::Data(data) => match &mut self.inflation {
                            Some(inflation) if inflation.is_open() => {
                                inflation.push(data, &mut self.inbox)
                            }
                            _ => fill(&mut self.inbox, data),
                        },
                        Part::End => match &mut self.inflation {
                            Some(inflation) if inflation.is_open() => {
                                inflation.end().and_then(|()| self.inbox.end())
                            }
                            _ => self.inbox.end(),
                        },
                    };
                    if let Err(failure) = taken {
                        self.break_off(failure);
                        return;
                    }
                }
                Err(failure) => {
                    self.break_off(failure);
                    return;
                }
            }
        }
        self.input.extend_from_slice(input);
    }

    fn closed_by_peer(&mut self, close: Option<(u16, String)>) {
        let by_peer = self.stage == Stage::Open;
        if by_peer {
            // RFC 6455, section 5.5.1: the answer has the same code.
            let answer = close
                .as_ref()
                .map(|(code, reason)| (*code, reason.as_str()));
            self.control(|output| frame::encode_close(output, answer));
        }
        let (code, reason) = close.unwrap_or((code::NO_STATUS, String::new()));
        self.end(Closed {
            code,
            reason,
            clean: true,
            by_peer,
        });
        self.flush();
    }

    /// The peer broke a rule. Messages in front of that are taken first, so that answers to them still leave.
    fn break_off(&mut self, failure: Failure) {
        if self.stage == Stage::Open && self.has_message() {
            self.broken = Some((failure, Instant::now() + self.close_timeout));
        } else {
            self.fail(failure);
        }
    }

    /// What was put off by [`break_off`](Self::break_off), if anything was.
    fn fail_broken(&mut self) {
        if let Some((failure, _)) = self.broken.take() {
            self.fail(failure);
        }
    }

    /// The peer broke a rule (RFC 6455, section 7.1.7).
    fn fail(&mut self, failure: Failure) {
        if self.stage == Stage::Open {
            self.control(|output| {
                frame::encode_close(output, Some((failure.code, failure.reason)));
            });
        }
        self.end(Closed {
            code: failure.code,
            reason: failure.reason.to_owned(),
            clean: false,
            by_peer: false,
        });
        self.flush();
        self.link.shut_write();
    }

    /// The outcome is certain; what is left is to flush and to wait for the server's end.
    fn end(&mut self, closed: Closed) {
        self.stage = Stage::Ending;
        self.patience = Some(Instant::now() + self.close_timeout);
        self.input = Vec::new();
        self.held = false;
        self.broken = None;
        self.compressor = None;
        self.closed.get_or_insert(closed);
    }

    /// The connection is over.
    fn lose(&mut self, closed: Closed) {
        self.end(closed);
        self.stage = Stage::Done;
        self.output = Vec::new();
        (self.written, self.ping_end, self.pongs) = (0, 0, (0, 0));
        self.link.shut();
    }

    fn keep_time(&mut self, now: Instant) {
        match self.stage {
            Stage::Done => {}
            Stage::Closing | Stage::Ending => {
                if self.patience.is_some_and(|patience| now >= patience) {
                    self.lose(Closed {
                        by_peer: false,
                        ..Closed::lost("the server did not answer the close frame in time")
                    });
                }
            }
            Stage::Open if self.broken.as_ref().is_some_and(|(_, until)| now >= *until) => {
                self.fail_broken();
            }
            Stage::Open if !self.reads() => {
                // Nobody listens: it may have said anything.
                self.heartbeat.heard = now;
                self.heartbeat.asked = None;
            }
            Stage::Open => match (self.heartbeat.asked, self.deadline()) {
                (Some(_), Some(deadline)) if now >= deadline => {
                    self.control(|output| {
                        frame::encode_close(output, Some((code::INTERNAL_ERROR, NO_PONG)));
                    });
                    self.flush();
                    self.lose(Closed::lost(NO_PONG));
                }
                (None, Some(deadline)) if now >= deadline => {
                    self.heartbeat.asked = Some(now);
                    self.control(|output| frame::encode_ping(output, &[]));
                    self.ping_end = self.output.len();
                }
                _ => {}
            },
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may still wait on the socket. Of a process that was forked the connection is the parent's.
        if self.process == std::process::id() {
            self.link.shut();
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("stage", &self.stage)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

fn failed(error: &io::Error) -> Read {
    if error.kind() == io::ErrorKind::WouldBlock {
        Read::Blocked
    } else {
        Read::End(error.to_string())
    }
}

/// Queues a pong, unless many are unsent.
fn answer_ping(
    output: &mut Vec<u8>,
    pongs: &mut (usize, usize),
    written: usize,
    payload: &[u8],
    keys: &mut Keys,
) {
    let (end, bytes) = pongs;
    if *end <= written {
        *bytes = 0;
    }
    if *bytes >= PONG_BYTES_MAX {
        return;
    }
    let start = output.len();
    frame::encode_pong(output, payload);
    frame::mask_frame(output, start, keys.next());
    *bytes += output.len() - start;
    *end = output.len();
}
