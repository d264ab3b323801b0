//! One open WebSocket over any byte stream.
//!
//! # Theory
//!
//! A [`Session`] is a future that runs on its connection's task; it owns the stream. The one who uses the WebSocket is
//! a [`Handler`], called from inside that future, and writes through an [`Outbox`] that it shares with the session.
//! Everything is on one thread.
//!
//! One turn: flush everything that was answered, in one write; read once; decode every frame that is there and hand all
//! messages over; then give the handler its [`turn`](Handler::turn), in which it may answer all of them. Only a handler
//! that needs time is woken through the waker of the outbox. So a peer that sends many small messages costs two system
//! calls for all that fit into a read, not two for each.
//!
//! Backpressure. Inbound: while the handler [does not want messages](Handler::wants_message), nothing is decoded or
//! read, and the peer's window closes. Outbound: the outbox takes what it is given and shows
//! [how much is unsent](Outbox::buffered); who writes much waits for [`drained`](Handler::drained). Reading does not wait
//! for writing: a peer that reads slowly may still say something, for example that it closes. What the session answers
//! by itself is bounded: 2 KiB of pongs at most are unsent, beside the latest that is still to be queued.
//!
//! Closing. The handler hears of the end once, as soon as it is certain:
//!
//! | who closes | frames | reported |
//! |---|---|---|
//! | the peer | its close frame is answered with the same code | its code and reason, or 1005 |
//! | the handler | [`Outbox::close`], then the peer's answer is awaited for the close timeout | the answer, or 1006 |
//! | a rule was broken | close frame with the failure's code, no answer is awaited | that code |
//! | the link is lost | none | 1006 |
//! | the peer is silent for too long ([`Heartbeat`]) | close frame with 1011, no answer is awaited | 1006 |
//!
//! Then everything unsent is flushed, our side is half-closed, and what still arrives is read and dropped until the
//! peer closes its side or the close timeout is over. Closing a socket that has unread input would reset the connection,
//! and a reset may destroy our last messages in the peer's receive buffer.
//!
//! Memory. A waiting session holds no buffer: input is read into a scratch buffer of the thread and what cannot be
//! decoded yet (at most an unfinished control frame) is kept; the outbox keeps no buffer either. Nothing large lives in
//! the future itself.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    Failure, code,
    deflate::{Agreement, Inflation},
    frame::{self, Decoder, Part},
    heartbeat::Heartbeat,
    message::{MessageSink, NO_ROOM, fill},
    outbox::Outbox,
};

/// Bytes of one read. The kernel hands over what is there up to this; larger payload bypasses the buffer.
const READ_BYTES: usize = 64 * 1024;
/// From this many bytes on, the rest of a payload is read straight into the memory of the [`MessageSink`].
const DIRECT_BYTES_MIN: u64 = 16 * 1024;
/// What a peer is told, and what is reported, when it does not answer a ping.
const NO_PONG: &str = "ping timeout";
/// Turns after which other tasks of the thread get theirs, however much more has arrived.
const TURNS_MAX: usize = 32;

/// Limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The largest message that is accepted; above it the connection fails with 1009 before the payload is read.
    pub message_bytes_max: u64,
    /// How long the peer's answer to a close frame is awaited, and again how long until it closes its side.
    pub close_timeout: Duration,
    /// Silence of the peer after which it gets a ping. `None` never asks.
    pub ping_interval: Option<Duration>,
    /// Further silence, once the ping is written, after which the peer counts as lost. `None` waits for ever.
    pub ping_timeout: Option<Duration>,
    /// What was agreed on about compressed messages.
    pub deflate: Option<Agreement>,
}

impl Default for Settings {
    /// 16 MiB as uvicorn has it: a limit for messages that are kept in memory. 10 s: several round trips of a bad link. 20 s and
    /// 20 s: below the minute after which proxies and address translators forget a silent connection.
    fn default() -> Self {
        Self {
            message_bytes_max: 16 * 1024 * 1024,
            close_timeout: Duration::from_secs(10),
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(20)),
            deflate: None,
        }
    }
}

/// The one who uses a WebSocket. All calls come from inside [`Session::poll`].
pub trait Handler: MessageSink {
    /// May another message be handed over? Asked before each. When the answer changes to true outside of a call from
    /// the session, call [`Outbox::wake`].
    fn wants_message(&self) -> bool;

    /// Everything that arrived was handed over. Answer now: what is put into the outbox during this call, or in
    /// [`drained`](Self::drained), leaves in one write.
    fn turn(&mut self);

    /// The outbox has been written to the stream wholly.
    fn drained(&mut self) {}

    /// The peer answers a ping, or sends a pong by itself.
    fn pong(&mut self, payload: &[u8]) {
        let _ = payload;
    }

    /// The WebSocket has ended: no message comes any more, what is put into the outbox is dropped. Called once.
    fn closed(&mut self, closed: Closed);
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; 1005 when the peer gave none, 1006 when the link was lost.
    pub code: u16,
    /// The reason that came with the code.
    pub reason: String,
    /// Both sides said that they close.
    pub clean: bool,
}

impl Closed {
    fn lost() -> Self {
        Self {
            code: code::ABNORMAL,
            reason: String::new(),
            clean: false,
        }
    }
}

thread_local! {
    /// Where sessions of this thread read into; absent while one does.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

fn take_scratch() -> Box<[u8]> {
    SCRATCH
        .take()
        .unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
}

/// Where in its life a session is; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Messages go both ways.
    Open,
    /// Our close frame is queued or sent; messages of the peer are dropped, its close frame is awaited.
    Closing,
    /// All is said: flush, half-close, drop what arrives.
    Ending,
    /// Half-closed; only the peer's end is awaited.
    Draining,
    /// The stream is of no use any more.
    Done,
}

/// One open WebSocket; a future that ends with its connection. Dropping it cuts the connection.
pub struct Session<S, H: Handler> {
    stream: S,
    handler: H,
    outbox: Rc<Outbox>,
    close_timeout: Duration,
    decoder: Decoder,
    /// Where messages may come compressed.
    inflation: Option<Inflation>,
    /// Input that was read and not decoded: an unfinished frame head or control frame, or more when the handler did
    /// not want it.
    input: BytesMut,
    stage: Stage,
    reported: bool,
    /// Bytes went into the stream that it may not have passed on.
    unflushed: bool,
    /// Writing failed: what the peer had sent before is still read, it may hold its close frame.
    mute: bool,
    /// Runs while the end of the peer is awaited.
    deadline: Option<Pin<Box<Sleep>>>,
    heartbeat: Option<Rc<Heartbeat>>,
}

/// What decoding led to.
enum Decoded {
    /// More input is needed.
    Starved,
    /// The handler wants no more messages now.
    Sated,
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler + Unpin> Session<S, H> {
    /// A session at the start of `stream`. `input` is what was read beyond the request head.
    pub fn new(
        stream: S,
        input: &[u8],
        settings: Settings,
        outbox: Rc<Outbox>,
        handler: H,
    ) -> Self {
        if stream.is_write_vectored() {
            outbox.gather();
        }
        let heartbeat = settings
            .ping_interval
            .map(|interval| Heartbeat::new(outbox.clone(), interval, settings.ping_timeout));
        Self {
            stream,
            handler,
            heartbeat: heartbeat.map(Rc::new),
            outbox,
            close_timeout: settings.close_timeout,
            decoder: Decoder::new(settings.message_bytes_max)
                .with_deflate(settings.deflate.is_some()),
            inflation: settings
                .deflate
                .map(|agreement| Inflation::new(agreement, settings.message_bytes_max)),
            input: BytesMut::from(input),
            stage: Stage::Open,
            reported: false,
            unflushed: false,
            mute: false,
            deadline: None,
        }
    }

    /// What the sweep over all connections has to look at ([`Sweep::watch`](crate::Sweep::watch)), or the peer is never asked.
    pub fn heartbeat(&self) -> Option<&Rc<Heartbeat>> {
        self.heartbeat.as_ref()
    }

    /// Turns until nothing can go on.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            if self.stage == Stage::Open && self.outbox.is_closing() {
                self.stage = Stage::Closing;
                self.restart_deadline();
            }
            if let Some(heartbeat) = &self.heartbeat {
                heartbeat.beat();
            }
            let flushed = self.flush(cx);
            if self.stage == Stage::Ending && flushed.is_ready() && self.half_close(cx).is_ready() {
                self.stage = Stage::Draining;
                self.restart_deadline();
            }
            let advanced = match self.stage {
                Stage::Open | Stage::Closing => self.receive(cx),
                Stage::Ending | Stage::Draining => self.discard(cx),
                Stage::Done => false,
            };
            if self.stage == Stage::Done {
                return Poll::Ready(());
            }
            if advanced || self.is_unattended(flushed.is_pending()) || self.is_given_up() {
                continue;
            }
            return self.wait(cx);
        }
        cx.waker().wake_by_ref();
        self.wait(cx)
    }

    /// Pending, unless the time is over.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = &mut self.deadline {
            std::task::ready!(deadline.as_mut().poll(cx));
            self.lose();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Did the handler, during its last turn, leave something that the loop has not looked at?
    fn is_unattended(&self, blocked: bool) -> bool {
        let unsent = !blocked && !self.mute && self.outbox.buffered() > 0;
        unsent || (self.stage == Stage::Open && self.outbox.is_closing())
    }

    /// Ends the WebSocket when the peer is silent for too long.
    fn is_given_up(&mut self) -> bool {
        let silent = self.heartbeat.as_ref().is_some_and(|it| it.is_silent());
        if !silent || self.stage != Stage::Open {
            return false;
        }
        self.outbox
            .answer_close(Some((code::INTERNAL_ERROR, NO_PONG)));
        self.end(Closed {
            reason: NO_PONG.to_owned(),
            ..Closed::lost()
        });
        true
    }

    /// Is anything read from the peer?
    fn listen(&self, listens: bool) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.listen(listens);
        }
    }

    fn restart_deadline(&mut self) {
        let timeout = self.close_timeout;
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().reset(Instant::now() + timeout),
            None => self.deadline = Some(Box::pin(tokio::time::sleep(timeout))),
        }
    }

    /// Writes all that is queued; ready when the queue is empty.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.mute {
                self.outbox.lose();
            }
            let stream = Pin::new(&mut self.stream);
            let written = self.outbox.write(|slices| match slices {
                [bytes] => stream.poll_write(cx, bytes),
                pieces => stream.poll_write_vectored(cx, pieces),
            });
            match written {
                None => break,
                Some(Poll::Pending) => return Poll::Pending,
                Some(Poll::Ready(Ok(count))) if count > 0 => {
                    self.unflushed = true;
                    if let Some(heartbeat) = &self.heartbeat {
                        heartbeat.wrote();
                    }
                    if self.deadline.is_some() {
                        // A slow reader is not a dead one.
                        self.restart_deadline();
                    }
                }
                Some(Poll::Ready(_)) => self.mute = true,
            }
        }
        if self.unflushed {
            // Streams with a buffer of their own (TLS) must not keep the end of a message.
            match std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => self.handler.drained(),
                Err(_) => self.mute = true,
            }
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    /// Says to the peer's kernel that nothing follows. An error means that the link is gone; reading tells.
    fn half_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.mute {
            Poll::Ready(())
        } else {
            Pin::new(&mut self.stream).poll_shutdown(cx).map(drop)
        }
    }

    /// Decodes what is there, else reads once and decodes that. True when the loop should go round again.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.input.is_empty() {
            let mut input = std::mem::take(&mut self.input);
            let (decoded, left) = self.decode(&mut input);
            let advanced = left < input.len();
            input.advance(input.len() - left);
            self.input = if input.is_empty() {
                BytesMut::new()
            } else {
                input
            };
            let sated = matches!(decoded, Ok(Decoded::Sated));
            if advanced || decoded.is_err() {
                self.settle(decoded);
                return true;
            }
            if sated {
                self.listen(false);
                return self.starve();
            }
        } else if self.stage == Stage::Open && !self.handler.wants_message() {
            self.listen(false);
            return self.starve();
        }
        let direct = self.stage == Stage::Open && self.input.is_empty();
        let read = if direct && self.decoder.payload_left() >= DIRECT_BYTES_MIN {
            self.read_direct(cx)
        } else {
            self.read_buffered(cx)
        };
        self.listen(true);
        match read {
            Poll::Pending => self.starve(),
            Poll::Ready(Ok(Read::Some)) => true,
            Poll::Ready(Ok(Read::End) | Err(_)) => {
                self.lose();
                true
            }
        }
    }

    /// Nothing can be read now. With a lost write side that is the end.
    fn starve(&mut self) -> bool {
        if self.mute {
            self.lose();
        }
        self.mute
    }

    /// Bytes came.
    fn hear(&self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.heard();
        }
    }

    /// Reads into the scratch buffer of the thread, behind what was left over, and decodes it there.
    fn read_buffered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let mut scratch = take_scratch();
        let kept = self.input.len();
        debug_assert!(
            kept < frame::UNFINISHED_BYTES_MAX,
            "only an unfinished frame waits for more"
        );
        scratch[..kept].copy_from_slice(&self.input);
        let mut buffer = ReadBuf::new(&mut scratch[kept..]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let there = kept + buffer.filled().len();
        if !matches!(read, Poll::Ready(Ok(()))) || there == kept {
            SCRATCH.set(Some(scratch));
            return read.map_ok(|()| Read::End);
        }
        self.hear();
        let (decoded, left) = self.decode(&mut scratch[..there]);
        if left == 0 {
            self.input = BytesMut::new();
        } else {
            self.input.clear();
            self.input.extend_from_slice(&scratch[there - left..there]);
        }
        // Before the turn, which may run anything, also another session of this thread.
        SCRATCH.set(Some(scratch));
        self.settle(decoded);
        Poll::Ready(Ok(Read::Some))
    }

    /// Reads payload straight into the memory of the sink.
    fn read_direct(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let left = usize::try_from(self.decoder.payload_left()).unwrap_or(usize::MAX);
        let mut space = self.handler.space(left);
        let mut buffer = space.take(left);
        if buffer.remaining() == 0 {
            self.fail(NO_ROOM);
            return Poll::Ready(Ok(Read::Some));
        }
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let data = buffer.filled_mut();
        let count = data.len();
        if count == 0 {
            return Poll::Ready(Ok(Read::End));
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.heard();
        }
        if let Err(failure) = self.decoder.payload_read(data) {
            self.fail(failure);
            return Poll::Ready(Ok(Read::Some));
        }
        self.handler.filled(count);
        if self.decoder.end_is_due() {
            let (decoded, _) = self.decode(&mut []);
            self.settle(decoded);
        }
        Poll::Ready(Ok(Read::Some))
    }

    /// Decodes as much of `input` as possible and hands it over; also gives how many bytes at its end are left.
    fn decode(&mut self, mut input: &mut [u8]) -> (Result<Decoded, End>, usize) {
        loop {
            let open = self.stage == Stage::Open && !self.outbox.is_closing();
            // The end of a message follows its last byte at once: no further input would bring it out.
            if open && !self.decoder.end_is_due() && !self.handler.wants_message() {
                return (Ok(Decoded::Sated), input.len());
            }
            let part = match self.decoder.next(&mut input) {
                Ok(Some(part)) => part,
                Ok(None) => return (Ok(Decoded::Starved), input.len()),
                Err(failure) => return (Err(End::Failure(failure)), 0),
            };
            let taken = match part {
                Part::Ping(payload) => {
                    self.outbox.answer_ping(payload);
                    Ok(())
                }
                Part::Close(close) => {
                    return (
                        Err(End::Close(
                            close.map(|(code, reason)| (code, reason.to_owned())),
                        )),
                        0,
                    );
                }
                _ if !open => Ok(()),
                Part::Pong(payload) => {
                    self.handler.pong(payload);
                    Ok(())
                }
                Part::Whole { kind, payload } => self.handler.whole(kind, payload),
                Part::Begin {
                    kind,
                    size_hint,
                    compressed: false,
                } => self.handler.begin(kind, size_hint),
                Part::Begin { kind, .. } => {
                    if let Some(inflation) = &mut self.inflation {
                        inflation.begin(kind);
                    }
                    // How many bytes it will be nobody knows.
                    self.handler.begin(kind, 0)
                }
                Part::Data(data) => match &mut self.inflation {
                    Some(inflation) if inflation.is_open() => {
                        inflation.push(data, &mut self.handler)
                    }
                    _ => fill(&mut self.handler, data),
                },
                Part::End => match &mut self.inflation {
                    Some(inflation) if inflation.is_open() => {
                        inflation.end().and_then(|()| self.handler.end())
                    }
                    _ => self.handler.end(),
                },
            };
            if let Err(failure) = taken {
                return (Err(End::Failure(failure)), 0);
            }
        }
    }

    /// Gives the handler its turn, then acts on what ended the decoding. In this order: messages that came before a
    /// close frame may still be answered.
    fn settle(&mut self, decoded: Result<Decoded, End>) {
        if self.stage == Stage::Open {
            self.outbox.queue_pong();
            self.handler.turn();
        }
        match decoded {
            Ok(_) => {}
            Err(End::Failure(failure)) => self.fail(failure),
            Err(End::Close(close)) => {
                self.outbox.answer_close(
                    close
                        .as_ref()
                        .map(|(code, reason)| (*code, reason.as_str())),
                );
                let (code, reason) = close.unwrap_or((code::NO_STATUS, String::new()));
                self.end(Closed {
                    code,
                    reason,
                    clean: true,
                });
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.outbox
            .answer_close(Some((failure.code, failure.reason)));
        self.end(Closed {
            code: failure.code,
            reason: failure.reason.to_owned(),
            clean: false,
        });
    }

    /// The outcome is certain: tell it, then flush and drain.
    fn end(&mut self, closed: Closed) {
        self.stage = Stage::Ending;
        self.input = BytesMut::new();
        self.restart_deadline();
        self.report(closed);
    }

    /// The link is lost, or has served its time.
    fn lose(&mut self) {
        self.stage = Stage::Done;
        self.report(Closed::lost());
    }
}

impl<S, H: Handler> Session<S, H> {
    fn report(&mut self, closed: Closed) {
        if !self.reported {
            self.reported = true;
            self.outbox.seal();
            self.handler.closed(closed);
        }
    }
}

impl<S: AsyncRead + Unpin, H: Handler> Session<S, H> {
    /// Reads and drops. True when the loop should go round again.
    fn discard(&mut self, cx: &mut Context<'_>) -> bool {
        let mut scratch = take_scratch();
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        SCRATCH.set(Some(scratch));
        match read {
            Poll::Ready(Ok(())) if count > 0 => true,
            Poll::Ready(_) if self.stage == Stage::Draining => {
                self.stage = Stage::Done;
                true
            }
            _ => false,
        }
    }
}

/// What a read led to.
enum Read {
    /// Bytes came and were dealt with.
    Some,
    /// The peer sends nothing any more.
    End,
}

/// Why the exchange of messages is over.
enum End {
    Failure(Failure),
    Close(Option<(u16, String)>),
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler + Unpin> Future for Session<S, H> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.get_mut();
        session.outbox.attend(cx.waker());
        let polled = session.run(cx);
        session.outbox.leave();
        polled
    }
}

impl<S, H: Handler> Drop for Session<S, H> {
    fn drop(&mut self) {
        self.report(Closed::lost());
    }
}
