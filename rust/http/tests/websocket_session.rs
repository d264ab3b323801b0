//! A session against a peer: turns, ping, backpressure, limits, and every way to close.

use crate::websocket_peer;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use framegate_http::websocket::{
    Failure, Kind, code,
    message::{MessageBuffer, MessageSink},
    outbox::{LEFT_BYTES_MIN, Outbox},
    session::{Closed, Handler, Session, Settings},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};
use websocket_peer::{
    BINARY, CONTINUATION, PING, PONG, Random, TEXT, close, close_of, fragment, frame, head,
    read_frame,
};

/// What a handler saw, and how it is to behave.
#[derive(Default)]
struct State {
    messages: RefCell<VecDeque<(Kind, Vec<u8>)>>,
    pongs: RefCell<Vec<Vec<u8>>>,
    closed: RefCell<Option<Closed>>,
    changed: Notify,
    turns: Cell<usize>,
    drained: Cell<usize>,
    /// Answer each message with itself in the turn.
    echo: Cell<bool>,
    /// How many messages may wait.
    room: Cell<usize>,
    /// How many bytes a message may have.
    message_bytes_max: Cell<usize>,
    refuse: Cell<Option<Failure>>,
}

struct User {
    state: Rc<State>,
    outbox: Rc<Outbox>,
    kind: Kind,
    buffer: MessageBuffer,
    size: usize,
}

impl MessageSink for User {
    fn begin(&mut self, kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        self.kind = kind;
        self.size = 0;
        self.state.refuse.get().map_or(Ok(()), Err)
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        let room = self.state.message_bytes_max.get() - self.size;
        self.buffer.space(want.min(room))
    }

    fn filled(&mut self, count: usize) {
        self.size += count;
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        let message = (self.kind, self.buffer.take());
        self.state.messages.borrow_mut().push_back(message);
        Ok(())
    }
}

impl Handler for User {
    fn wants_message(&self) -> bool {
        self.state.messages.borrow().len() < self.state.room.get()
    }

    fn turn(&mut self) {
        self.state.turns.set(self.state.turns.get() + 1);
        if self.state.echo.get() {
            for (kind, payload) in self.state.messages.borrow_mut().drain(..) {
                match kind {
                    Kind::Text => self.outbox.text(std::str::from_utf8(&payload).unwrap()),
                    Kind::Binary => self.outbox.binary(&payload),
                };
            }
        }
        self.state.changed.notify_one();
    }

    fn drained(&mut self) {
        self.state.drained.set(self.state.drained.get() + 1);
        self.state.changed.notify_one();
    }

    fn pong(&mut self, payload: &[u8]) {
        self.state.pongs.borrow_mut().push(payload.to_vec());
    }

    fn closed(&mut self, closed: Closed) {
        assert!(
            self.state.closed.replace(Some(closed)).is_none(),
            "closed is told once"
        );
        self.state.changed.notify_one();
    }
}

/// A session that runs as a task, and what belongs to it.
struct Server {
    state: Rc<State>,
    outbox: Rc<Outbox>,
    task: JoinHandle<()>,
}

fn session<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    input: &[u8],
    settings: Settings,
) -> (Session<S, User>, Rc<State>, Rc<Outbox>) {
    let state = Rc::new(State::default());
    state.room.set(usize::MAX);
    state.message_bytes_max.set(usize::MAX);
    let outbox = Outbox::new();
    let user = User {
        state: Rc::clone(&state),
        outbox: Rc::clone(&outbox),
        kind: Kind::Text,
        buffer: MessageBuffer::default(),
        size: 0,
    };
    (
        Session::new(stream, input, settings, Rc::clone(&outbox), user),
        state,
        outbox,
    )
}

fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Server {
    serve_with(stream, Settings::default())
}

fn serve_with<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    settings: Settings,
) -> Server {
    let (session, state, outbox) = session(stream, &[], settings);
    Server {
        state,
        outbox,
        task: spawn_local(session),
    }
}

impl Server {
    /// Waits until `condition` holds.
    async fn until(&self, condition: impl Fn(&State) -> bool) {
        let wait = async {
            while !condition(&self.state) {
                self.state.changed.notified().await;
            }
        };
        timeout(Duration::from_secs(30), wait)
            .await
            .expect("the session gets there in time");
    }

    /// How the WebSocket ended.
    async fn closed(&self) -> (u16, String, bool) {
        self.until(|state| state.closed.borrow().is_some()).await;
        let closed = self.state.closed.borrow().clone().unwrap();
        (closed.code, closed.reason, closed.clean)
    }

    async fn finished(self) {
        timeout(Duration::from_secs(30), self.task)
            .await
            .expect("the session ends")
            .unwrap();
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// A stream that counts reads that brought something, and writes.
struct Counted<S> {
    stream: S,
    reads: Rc<Cell<usize>>,
    writes: Rc<Cell<usize>>,
    /// Takes several pieces in one write.
    gathers: bool,
}

impl<S> Counted<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            reads: Rc::default(),
            writes: Rc::default(),
            gathers: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.reads.set(self.reads.get() + 1);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.gathers && slices.len() > 1);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.gathers
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn large_messages_are_written_from_where_they_are() {
    local(async {
        for gathers in [true, false] {
            let (near, mut peer) = duplex(1 << 22);
            let stream = Counted {
                gathers,
                ..Counted::new(near)
            };
            let writes = Rc::clone(&stream.writes);
            let server = serve(stream);
            let large = |value: u8| vec![value; LEFT_BYTES_MIN + usize::from(value)];
            // Before the session runs, so that all are there at once: more than are written at once, and others between.
            for value in 0..20 {
                assert!(server.outbox.leave_binary(large(value).into()));
                assert!(server.outbox.binary(&[value]));
                assert!(server.outbox.leave_text("small"));
                if value == 7 {
                    assert!(server.outbox.ping(b"between"));
                }
            }
            let unsent: usize = (0..20).map(|value| 4 + large(value).len() + 3 + 7).sum();
            assert_eq!(server.outbox.buffered(), unsent + 9);
            for value in 0..20 {
                assert_eq!(read_frame(&mut peer).await, Some((2, large(value))));
                assert_eq!(read_frame(&mut peer).await, Some((2, vec![value])));
                assert_eq!(read_frame(&mut peer).await, Some((1, b"small".to_vec())));
                if value == 7 {
                    assert_eq!(read_frame(&mut peer).await, Some((9, b"between".to_vec())));
                }
            }
            assert_eq!(writes.get(), if gathers { 6 } else { 1 });
            assert_eq!(server.outbox.buffered(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn large_messages_pass_a_stream_that_takes_any_number_of_bytes() {
    local(async {
        for room in [1000, 33_333, 70_001] {
            let (near, mut peer) = duplex(room);
            let stream = Counted {
                gathers: true,
                ..Counted::new(near)
            };
            let server = serve(stream);
            server.state.echo.set(true);
            for value in 0..5_u8 {
                let payload = vec![value; LEFT_BYTES_MIN];
                assert!(server.outbox.leave_binary(payload.clone().into()));
                assert!(server.outbox.binary(&[value; 100]));
                peer.write_all(&frame(PING, &[value])).await.unwrap();
                let mut got = Vec::new();
                while got.len() < 3 {
                    let (opcode, payload) = read_frame(&mut peer).await.unwrap();
                    if opcode != 10 {
                        got.push(payload);
                    } else if payload == [value] {
                        got.push(Vec::new());
                    }
                }
                got.retain(|payload| !payload.is_empty());
                assert_eq!(got, [payload, vec![value; 100]]);
            }
            drop(peer);
            assert_eq!(server.closed().await.0, code::ABNORMAL);
        }
    })
    .await;
}

#[tokio::test]
async fn all_messages_of_a_read_are_answered_in_one_write() {
    local(async {
        let (near, mut peer) = duplex(1 << 16);
        let stream = Counted::new(near);
        let (reads, writes) = (Rc::clone(&stream.reads), Rc::clone(&stream.writes));
        let server = serve(stream);
        server.state.echo.set(true);
        let burst: Vec<u8> = (0..100_u8).flat_map(|i| frame(BINARY, &[i; 20])).collect();
        peer.write_all(&burst).await.unwrap();
        for i in 0..100 {
            assert_eq!(read_frame(&mut peer).await, Some((2, vec![i; 20])));
        }
        assert_eq!(
            (
                reads.get(),
                server.state.turns.get(),
                writes.get(),
                server.state.drained.get()
            ),
            (1, 1, 1, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn random_messages_come_back_over_a_slow_link() {
    local(async {
        for seed in 1..30 {
            let mut random = Random::new(seed);
            let (near, peer) = duplex([1, 7, 64, 5000][random.below(4)]);
            let server = serve(near);
            server.state.echo.set(true);
            let (mut reader, mut writer) = tokio::io::split(peer);
            let mut sent = VecDeque::new();
            let mut bytes = Vec::new();
            for _ in 0..20 {
                let size = [0, 10, 126, 2000][random.below(4)];
                let text = random.text(size);
                let cut = text.len() / (random.below(3) + 1);
                bytes.extend(fragment(false, TEXT, &text.as_bytes()[..cut]));
                bytes.extend(fragment(true, CONTINUATION, &text.as_bytes()[cut..]));
                sent.push_back(text);
            }
            bytes.extend(close(1000, "enough"));
            let writing = spawn_local(async move {
                writer.write_all(&bytes).await.unwrap();
                writer
            });
            for text in sent {
                assert_eq!(
                    read_frame(&mut reader).await,
                    Some((1, text.into_bytes())),
                    "seed {seed}"
                );
            }
            assert_eq!(
                close_of(read_frame(&mut reader).await),
                (1000, "enough".to_owned())
            );
            assert_eq!(server.closed().await, (1000, "enough".to_owned(), true));
            drop((reader, writing.await.unwrap()));
            server.finished().await;
        }
    })
    .await;
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    local(async {
        let (near, peer) = tcp().await;
        let server = serve(near);
        server.state.echo.set(true);
        let payload = Random::new(3).bytes(5_000_003);
        let (mut reader, mut writer) = peer.into_split();
        let bytes = [
            fragment(false, BINARY, &payload[..3_000_000]),
            fragment(false, CONTINUATION, &payload[3_000_000..3_000_100]),
            fragment(true, CONTINUATION, &payload[3_000_100..]),
            frame(TEXT, "ü".repeat(200_000).as_bytes()),
        ]
        .concat();
        let writing = spawn_local(async move { writer.write_all(&bytes).await.map(|()| writer) });
        assert_eq!(read_frame(&mut reader).await, Some((2, payload)));
        assert_eq!(
            read_frame(&mut reader).await,
            Some((1, "ü".repeat(200_000).into_bytes()))
        );
        writing.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn input_behind_the_request_head_comes_first() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let bytes = frame(TEXT, b"early");
        let (session, state, _outbox) = session(near, &bytes[..8], Settings::default());
        state.echo.set(true);
        let _task = spawn_local(session);
        peer.write_all(&bytes[8..]).await.unwrap();
        assert_eq!(read_frame(&mut peer).await, Some((1, b"early".into())));
    })
    .await;
}

#[tokio::test]
async fn messages_sent_from_outside_wake_the_session() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        server.outbox.text("before the first poll");
        assert_eq!(
            read_frame(&mut peer).await.unwrap().1,
            b"before the first poll"
        );
        server.outbox.text("one");
        server.outbox.binary(b"two");
        assert_eq!(read_frame(&mut peer).await, Some((1, b"one".into())));
        assert_eq!(read_frame(&mut peer).await, Some((2, b"two".into())));
    })
    .await;
}

#[tokio::test]
async fn pings_are_answered_and_pongs_are_told() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        peer.write_all(&frame(PING, b"are you there"))
            .await
            .unwrap();
        assert_eq!(
            read_frame(&mut peer).await,
            Some((10, b"are you there".into()))
        );
        server.outbox.ping(b"and you");
        assert_eq!(read_frame(&mut peer).await, Some((9, b"and you".into())));
        peer.write_all(&frame(PONG, b"and you")).await.unwrap();
        server.until(|state| state.turns.get() == 2).await;
        assert_eq!(*server.state.pongs.borrow(), [b"and you"]);
    })
    .await;
}

#[tokio::test]
async fn several_pings_are_all_answered_but_of_many_only_the_first_and_the_latest() {
    local(async {
        let (near, mut peer) = duplex(64);
        let server = serve(near);
        server.outbox.binary(&[1; 200]);
        for i in 0..1000_u32 {
            peer.write_all(&frame(PING, &i.to_be_bytes()))
                .await
                .unwrap();
        }
        // The message, and 2 KiB of pongs.
        assert!(
            (300..2400).contains(&server.outbox.buffered()),
            "{} bytes are queued",
            server.outbox.buffered()
        );
        assert_eq!(read_frame(&mut peer).await.unwrap().0, BINARY);
        let mut answered = Vec::new();
        while answered.last() != Some(&999_u32.to_be_bytes().to_vec()) {
            let (opcode, payload) = read_frame(&mut peer).await.unwrap();
            assert_eq!(opcode, PONG);
            answered.push(payload);
        }
        // Each is 6 bytes.
        let first: Vec<_> = (0..300_u32).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(answered[..300], first);
        assert!(answered.len() < 400, "{} pongs", answered.len());
    })
    .await;
}

#[tokio::test]
async fn the_peer_closes() {
    local(async {
        for (bytes, code, reason) in [
            (close(1000, ""), 1000, ""),
            (close(1001, "going away"), 1001, "going away"),
            (close(4321, "grüße"), 4321, "grüße"),
        ] {
            let (near, mut peer) = tcp().await;
            let server = serve(near);
            peer.write_all(&bytes).await.unwrap();
            assert_eq!(
                close_of(read_frame(&mut peer).await),
                (code, reason.to_owned())
            );
            assert_eq!(read_frame(&mut peer).await, None);
            assert_eq!(server.closed().await, (code, reason.to_owned(), true));
            assert!(!server.outbox.is_open() && !server.outbox.text("late"));
            drop(peer);
            server.finished().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_peer_closes_without_a_code() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        peer.write_all(&frame(8, b"")).await.unwrap();
        assert_eq!(read_frame(&mut peer).await, Some((8, Vec::new())));
        assert_eq!(
            server.closed().await,
            (code::NO_STATUS, String::new(), true)
        );
        drop(peer);
        server.finished().await;
    })
    .await;
}

#[tokio::test]
async fn messages_before_a_close_frame_are_still_answered() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        server.state.echo.set(true);
        peer.write_all(
            &[
                frame(TEXT, b"last"),
                close(1000, ""),
                frame(TEXT, b"ignored"),
            ]
            .concat(),
        )
        .await
        .unwrap();
        assert_eq!(read_frame(&mut peer).await, Some((1, b"last".into())));
        assert_eq!(close_of(read_frame(&mut peer).await).0, 1000);
        assert_eq!(read_frame(&mut peer).await, None);
    })
    .await;
}

#[tokio::test]
async fn we_close_and_the_peer_answers() {
    local(async {
        let (near, mut peer) = tcp().await;
        let server = serve(near);
        server.outbox.text("last");
        assert!(server.outbox.close(4000, "done"));
        assert!(!server.outbox.close(1000, "") && !server.outbox.text("late"));
        assert_eq!(read_frame(&mut peer).await, Some((1, b"last".into())));
        assert_eq!(
            close_of(read_frame(&mut peer).await),
            (4000, "done".to_owned())
        );
        // Messages on their way are dropped, pings are not answered any more.
        peer.write_all(&[frame(TEXT, b"crossing"), frame(PING, b"")].concat())
            .await
            .unwrap();
        assert!(server.state.closed.borrow().is_none());
        peer.write_all(&close(4000, "done")).await.unwrap();
        assert_eq!(read_frame(&mut peer).await, None);
        assert_eq!(server.closed().await, (4000, "done".to_owned(), true));
        assert!(server.state.messages.borrow().is_empty());
        drop(peer);
        server.finished().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_our_close_is_given_up() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        server.outbox.close(1000, "");
        let start = tokio::time::Instant::now();
        assert_eq!(close_of(read_frame(&mut peer).await).0, 1000);
        assert_eq!(
            server.closed().await,
            (code::ABNORMAL, String::new(), false)
        );
        assert_eq!(start.elapsed().as_secs(), 10);
        server.finished().await;
        assert_eq!(read_frame(&mut peer).await, None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stays_after_the_closing_handshake_is_left() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        peer.write_all(&close(1000, "")).await.unwrap();
        assert_eq!(server.closed().await.0, 1000);
        assert_eq!(close_of(read_frame(&mut peer).await).0, 1000);
        assert_eq!(read_frame(&mut peer).await, None);
        server.finished().await;
    })
    .await;
}

#[tokio::test]
async fn the_last_message_is_never_cut_by_a_reset() {
    local(async {
        let (near, peer) = tcp().await;
        let server = serve(near);
        let last = Random::new(9).bytes(8 << 20);
        server.outbox.binary(&last);
        server.outbox.close(1000, "");
        let (mut reader, mut writer) = peer.into_split();
        // The peer goes on sending what nobody reads any more, behind its answer too.
        let writing = spawn_local(async move {
            for _ in 0..50 {
                writer
                    .write_all(&frame(BINARY, &[0; 10_000]))
                    .await
                    .unwrap();
            }
            writer.write_all(&close(1000, "")).await.unwrap();
            for _ in 0..50 {
                writer
                    .write_all(&frame(BINARY, &[0; 10_000]))
                    .await
                    .unwrap();
            }
            writer
        });
        let writer = writing.await.unwrap();
        assert_eq!(read_frame(&mut reader).await, Some((2, last)));
        assert_eq!(close_of(read_frame(&mut reader).await).0, 1000);
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(server.closed().await.0, 1000);
        drop((reader, writer));
        server.finished().await;
    })
    .await;
}

#[tokio::test]
async fn a_broken_rule_is_told_and_the_rest_is_dropped() {
    local(async {
        for (bytes, code) in [
            (vec![0x82, 0x01], code::PROTOCOL_ERROR),
            (frame(TEXT, b"\xff"), code::INVALID_PAYLOAD),
            (
                head(true, BINARY, 16 * 1024 * 1024 + 1)
                    .into_iter()
                    .chain([0; 4])
                    .collect(),
                code::TOO_BIG,
            ),
        ] {
            let (near, mut peer) = tcp().await;
            let server = serve(near);
            server.state.echo.set(true);
            peer.write_all(&[frame(TEXT, b"good"), bytes].concat())
                .await
                .unwrap();
            peer.write_all(&vec![0x55; 300_000]).await.unwrap();
            assert_eq!(read_frame(&mut peer).await, Some((1, b"good".into())));
            let (told, reason) = close_of(read_frame(&mut peer).await);
            assert_eq!(told, code);
            assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(server.closed().await, (code, reason, false));
            drop(peer);
            server.finished().await;
        }
    })
    .await;
}

#[tokio::test]
async fn bad_text_is_found_inside_a_large_frame() {
    local(async {
        let (near, mut peer) = tcp().await;
        let server = serve(near);
        let mut text = vec![b'a'; 500_000];
        text[400_000] = 0xff;
        let bytes = frame(TEXT, &text);
        peer.write_all(&bytes[..450_000]).await.unwrap();
        assert_eq!(
            close_of(read_frame(&mut peer).await).0,
            code::INVALID_PAYLOAD
        );
        assert_eq!(server.closed().await.0, code::INVALID_PAYLOAD);
    })
    .await;
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_passes() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let settings = Settings {
            message_bytes_max: 100,
            ..Settings::default()
        };
        let server = serve_with(near, settings);
        peer.write_all(&frame(BINARY, &[1; 100])).await.unwrap();
        server
            .until(|state| state.messages.borrow().len() == 1)
            .await;
        peer.write_all(
            &[
                fragment(false, BINARY, &[1; 60]),
                head(true, CONTINUATION, 41),
            ]
            .concat(),
        )
        .await
        .unwrap();
        peer.write_all(&[0; 4]).await.unwrap();
        assert_eq!(close_of(read_frame(&mut peer).await).0, code::TOO_BIG);
    })
    .await;
}

#[tokio::test]
async fn a_sink_refuses_or_has_no_room() {
    local(async {
        let (near, mut peer) = duplex(1 << 20);
        let server = serve(near);
        server.state.refuse.set(Some(Failure {
            code: 1003,
            reason: "no text here",
        }));
        peer.write_all(&frame(TEXT, b"x")).await.unwrap();
        assert_eq!(
            close_of(read_frame(&mut peer).await),
            (1003, "no text here".to_owned())
        );
        for size in [200, 200_000] {
            let (near, mut peer) = duplex(1 << 20);
            let server = serve(near);
            server.state.message_bytes_max.set(size / 2);
            peer.write_all(&frame(BINARY, &vec![0; size]))
                .await
                .unwrap();
            assert_eq!(close_of(read_frame(&mut peer).await).0, code::TOO_BIG);
            assert_eq!(server.closed().await.0, code::TOO_BIG);
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_link_is_told() {
    local(async {
        let (near, peer) = duplex(1000);
        let server = serve(near);
        drop(peer);
        assert_eq!(
            server.closed().await,
            (code::ABNORMAL, String::new(), false)
        );
        assert!(!server.outbox.binary(b"late"));
        server.finished().await;
        // A reset, in the middle of a message.
        let (near, mut peer) = tcp().await;
        let server = serve(near);
        peer.write_all(&head(true, BINARY, 1 << 20)).await.unwrap();
        peer.set_zero_linger().unwrap();
        drop(peer);
        assert_eq!(server.closed().await.0, code::ABNORMAL);
        server.finished().await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_session_tells_its_handler() {
    local(async {
        let (near, _peer) = duplex(1000);
        let (session, state, outbox) = session(near, &[], Settings::default());
        drop(session);
        assert_eq!(state.closed.borrow().as_ref().unwrap().code, code::ABNORMAL);
        assert!(!outbox.is_open());
    })
    .await;
}

/// A stream whose peer has sent something and is gone: it can be read, writing fails.
struct Gone(DuplexStream);

impl AsyncRead for Gone {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gone {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

#[tokio::test]
async fn a_close_frame_is_read_though_writing_fails() {
    local(async {
        let (near, mut peer) = duplex(1000);
        peer.write_all(&[frame(TEXT, b"bye"), close(3000, "left")].concat())
            .await
            .unwrap();
        drop(peer);
        let server = serve(Gone(near));
        server.outbox.text("nobody reads this");
        assert_eq!(server.closed().await, (3000, "left".to_owned(), true));
        assert_eq!(server.state.messages.borrow().len(), 1);
        server.finished().await;
        // Without one, and with the peer's side open, it is a lost link.
        let (near, _peer) = duplex(1000);
        let server = serve(Gone(near));
        server.outbox.text("nobody reads this");
        assert_eq!(server.closed().await.0, code::ABNORMAL);
        server.finished().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_read_while_no_message_is_wanted() {
    local(async {
        let (near, mut peer) = duplex(4096);
        let server = serve(near);
        server.state.room.set(3);
        let message = frame(BINARY, &[7; 2000]);
        let writing = spawn_local(async move {
            for _ in 0..1000 {
                peer.write_all(&message).await.unwrap();
            }
            peer
        });
        server
            .until(|state| state.messages.borrow().len() == 3)
            .await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.state.messages.borrow().len(), 3);
        assert!(!writing.is_finished());
        // Each message that is taken lets one more in.
        for _ in 0..997 {
            server.state.messages.borrow_mut().pop_front().unwrap();
            server.outbox.wake();
            server
                .until(|state| state.messages.borrow().len() == 3)
                .await;
        }
        drop(writing.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn unsent_bytes_are_visible_and_reading_goes_on() {
    local(async {
        let (near, mut peer) = duplex(1000);
        let server = serve(near);
        server.outbox.binary(&[1; 10_000]);
        assert_eq!(server.outbox.buffered(), 10_004);
        peer.write_all(&frame(TEXT, b"I am slow")).await.unwrap();
        server
            .until(|state| state.messages.borrow().len() == 1)
            .await;
        assert_eq!(server.outbox.buffered(), 9_004);
        assert_eq!(server.state.drained.get(), 0);
        assert_eq!(read_frame(&mut peer).await.unwrap().1.len(), 10_000);
        server.until(|state| state.drained.get() == 1).await;
        assert_eq!(server.outbox.buffered(), 0);
    })
    .await;
}

/// A stream that never stops sending pings and takes everything.
struct Flood(Vec<u8>);

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(&self.0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_flood_leaves_time_for_others_and_ends_in_time() {
    local(async {
        let settings = Settings {
            close_timeout: Duration::from_millis(20),
            ..Settings::default()
        };
        let server = serve_with(Flood(frame(PING, b"again")), settings);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(server.state.turns.get() > 10);
        server.outbox.close(1000, "");
        assert_eq!(server.closed().await.0, code::ABNORMAL);
        server.finished().await;
    })
    .await;
}

#[test]
fn a_waiting_session_is_small() {
    assert!(size_of::<Session<TcpStream, User>>() - size_of::<User>() < 512);
    assert!(size_of::<Outbox>() <= 288);
}
