//! WebSocket over a stream of HTTP/2 (RFC 8441): how it opens, windows, priorities, and every way in which it ends.
use crate::common;
use crate::websocket_peer;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use common::{Event, SetOnDrop, TestServer, ok, run, until};
use framegate_http::{
    Config, Limits,
    service::{Request, ResponseFuture, Upgraded},
    websocket::{
        Failure, Kind,
        handshake::Offer,
        message::{MessageBuffer, MessageSink},
        outbox::Outbox,
        session::{Closed, Handler, Session, Settings},
    },
};
use h2::{Reason, ext::Protocol};
use http::{HeaderMap, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
};
use websocket_peer::{BINARY, TEXT, close, close_of, frame, read_frame};

type Client = h2::client::SendRequest<Bytes>;

async fn connect(server: &TestServer) -> Client {
    connect_with_driver(server).await.0
}

/// The task is the connection.
async fn connect_with_driver(server: &TestServer) -> (Client, JoinHandle<()>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    // The server's settings have to be there.
    until(|| client.is_extended_connect_protocol_enabled()).await;
    (client, driver)
}

fn request(protocol: &'static str) -> http::Request<()> {
    http::Request::builder()
        .method(Method::CONNECT)
        .uri("http://t/chat?x=1")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

/// Answers a handshake with `then`.
fn accepting<F>(then: F) -> impl Fn(Request) -> ResponseFuture
where
    F: Fn(Upgraded) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone + 'static,
{
    move |request| match Offer::of(&request.head) {
        None => ok("no WebSocket").into(),
        Some(Err(rejected)) => rejected.response().map(Into::into).into(),
        Some(Ok(offer)) => {
            let response = offer.accept(None, HeaderMap::new()).unwrap();
            let then = then.clone();
            request.upgrade.expect("is there").accept(then);
            response.map(|()| "".into()).into()
        }
    }
}

/// Sends back what comes, until the client ends its side.
async fn echo(upgraded: Upgraded) {
    let (mut reader, mut writer) = tokio::io::split(upgraded.stream);
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

/// A stream as its client sees it.
struct Stream {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    headers: HeaderMap,
}

async fn open(client: &mut Client) -> Stream {
    let (response, send) = client.send_request(request("websocket"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    Stream {
        send,
        headers: response.headers().clone(),
        receive: response.into_body(),
    }
}

impl Stream {
    /// Sends as the windows allow.
    async fn send(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| self.send.poll_capacity(cx)).await;
            let piece = bytes.split_to(room.unwrap().unwrap().min(bytes.len()));
            self.send.send_data(piece, false).unwrap();
        }
    }

    /// `None` at the end.
    async fn piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        loop {
            let piece = self.receive.data().await?;
            if let Ok(piece) = &piece {
                if piece.is_empty() {
                    continue;
                }
                let release = self.receive.flow_control().release_capacity(piece.len());
                release.unwrap();
            }
            return Some(piece);
        }
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.piece().await.unwrap().unwrap());
        }
        bytes
    }
}

#[test]
fn connect_opens_a_stream_of_bytes() {
    run(async {
        let server = TestServer::new(accepting(|upgraded| Box::pin(echo(upgraded))));
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        assert!(stream.headers.contains_key("date"));
        for name in ["content-length", "upgrade", "connection"] {
            assert!(!stream.headers.contains_key(name), "{name}");
        }
        let payload: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        for part in payload.chunks(50_000) {
            stream.send(Bytes::copy_from_slice(part)).await;
            assert_eq!(stream.exactly(part.len()).await, part);
        }
        assert_eq!(server.connections.busy(), 1);
        stream.send.send_data(Bytes::new(), true).unwrap();
        assert!(stream.piece().await.is_none(), "and ends as it should");
        // The connection is there for others.
        let (response, _) = client
            .send_request(http::Request::get("http://t/").body(()).unwrap(), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        until(|| server.connections.busy() == 0).await;
    });
}

#[test]
fn requests_for_something_else_are_refused() {
    run(async {
        // A service that knows nothing of WebSocket.
        let server = TestServer::new(|_| ok("healthy").into());
        let mut client = connect(&server).await;
        for (request, status) in [(request("websocket"), 501), (request("connect-udp"), 501)] {
            let (response, _send) = client.send_request(request, false).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        }
        let bare = http::Request::connect("t:80").body(()).unwrap();
        let (response, _send) = client.send_request(bare, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 501);

        let server = TestServer::new(accepting(|upgraded| Box::pin(echo(upgraded))));
        let mut client = connect(&server).await;
        let mut broken = request("websocket");
        broken.headers_mut().remove("sec-websocket-version");
        let mut other = request("websocket");
        let version = "8".parse().unwrap();
        other.headers_mut().insert("sec-websocket-version", version);
        for request in [broken, other] {
            let (response, _send) = client.send_request(request, false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 400);
            assert!(!response.headers().contains_key("upgrade"));
        }
        let (response, _) = client.send_request(request("websocket"), true).unwrap();
        assert_eq!(
            response.await.unwrap().status(),
            400,
            "it ends before it begins"
        );
    });
}

#[test]
fn refused_handshake_is_an_ordinary_response() {
    run(async {
        let left = Event::default();
        let dropped = left.clone();
        let server = TestServer::new(move |request| {
            let guard = SetOnDrop(dropped.clone());
            request.upgrade.unwrap().accept(move |_| {
                Box::pin(async move {
                    let _guard = guard;
                    unreachable!("the response has another status")
                })
            });
            let mut response = ok("not today");
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            response.into()
        });
        let mut client = connect(&server).await;
        let (response, _send) = client.send_request(request("websocket"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["content-length"], "9");
        assert_eq!(
            response.into_body().data().await.unwrap().unwrap(),
            "not today"
        );
        left.wait().await;
    });
}

#[test]
fn window_opens_as_the_stream_is_read() {
    run(async {
        let (go, taken) = (Event::default(), Rc::new(Cell::new(0)));
        let (wait, count) = (go.clone(), taken.clone());
        let config = Config {
            limits: Limits {
                stream_window_bytes: 65_535,
                ..Limits::default()
            },
            ..Config::default()
        };
        let server = TestServer::with(
            config,
            accepting(move |mut upgraded| {
                let (wait, count) = (wait.clone(), count.clone());
                Box::pin(async move {
                    let mut buffer = [0; 1000];
                    upgraded.stream.read_exact(&mut buffer).await.unwrap();
                    wait.wait().await;
                    while let Ok(1..) = upgraded.stream.read(&mut buffer).await {
                        count.set(count.get() + 1);
                    }
                })
            }),
        );
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        stream.send.reserve_capacity(1 << 20);
        let mut sent = 0;
        let stalled = async {
            loop {
                let room = poll_fn(|cx| stream.send.poll_capacity(cx)).await;
                let room = room.unwrap().unwrap();
                sent += room;
                stream
                    .send
                    .send_data(Bytes::from(vec![0; room]), false)
                    .unwrap();
                stream.send.reserve_capacity(1 << 20);
            }
        };
        let stalled: Result<(), _> =
            tokio::time::timeout(Duration::from_millis(200), stalled).await;
        assert!(stalled.is_err());
        assert!(
            (65_535..=65_535 + 1000).contains(&sent),
            "{sent} bytes were taken"
        );
        go.set();
        stream.send(vec![0; 200_000].into()).await;
        until(|| taken.get() > 200).await;
    });
}

#[test]
fn writer_waits_for_the_clients_window() {
    run(async {
        let written = Rc::new(Cell::new(0));
        let count = written.clone();
        let server = TestServer::new(accepting(move |mut upgraded| {
            let count = count.clone();
            Box::pin(async move {
                for _ in 0..100 {
                    upgraded.stream.write_all(&[7; 10_000]).await.unwrap();
                    count.set(count.get() + 10_000);
                }
                upgraded.stream.shutdown().await.unwrap();
                let mut rest = Vec::new();
                upgraded.stream.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"thanks");
                count.set(0);
            })
        }));
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(written.get() < 90_000, "{} bytes", written.get());
        let mut bytes = 0;
        while let Some(piece) = stream.piece().await {
            bytes += piece.unwrap().len();
        }
        assert_eq!(bytes, 1_000_000);
        // Our side is closed, the client's is not.
        stream
            .send
            .send_data(Bytes::from_static(b"thanks"), true)
            .unwrap();
        until(|| written.get() == 0).await;
    });
}

#[test]
fn reset_and_lost_connection_are_errors() {
    for connection_too in [false, true] {
        run(async move {
            let errors = Rc::new(RefCell::new(Vec::new()));
            let told = errors.clone();
            let server = TestServer::new(accepting(move |mut upgraded| {
                let told = told.clone();
                Box::pin(async move {
                    let mut buffer = [0; 10];
                    upgraded.stream.read_exact(&mut buffer[..3]).await.unwrap();
                    upgraded.stream.write_all(b"got").await.unwrap();
                    let error = upgraded.stream.read(&mut buffer).await.unwrap_err();
                    told.borrow_mut().push(error.kind());
                    let error = upgraded.stream.write(b"x").await.unwrap_err();
                    told.borrow_mut().push(error.kind());
                })
            }));
            let (mut client, driver) = connect_with_driver(&server).await;
            let mut stream = open(&mut client).await;
            stream.send(Bytes::from_static(b"abc")).await;
            assert_eq!(stream.exactly(3).await, b"got");
            if connection_too {
                driver.abort();
            } else {
                stream.send.send_reset(Reason::CANCEL);
            }
            until(|| errors.borrow().len() == 2).await;
            assert_eq!(
                *errors.borrow(),
                [
                    std::io::ErrorKind::ConnectionReset,
                    std::io::ErrorKind::BrokenPipe
                ]
            );
            until(|| server.connections.busy() == 0).await;
        });
    }
}

#[test]
fn dropped_stream_is_reset() {
    run(async {
        let server = TestServer::new(accepting(|upgraded| {
            Box::pin(async move { drop(upgraded) })
        }));
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        let error = stream.piece().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CANCEL));
    });
}

#[test]
fn drain_is_told_to_each_stream() {
    run(async {
        let server = TestServer::new(accepting(|mut upgraded| {
            Box::pin(async move {
                poll_fn(|cx| upgraded.draining.poll_draining(cx)).await;
                upgraded.stream.write_all(b"bye").await.unwrap();
                upgraded.stream.shutdown().await.unwrap();
            })
        }));
        let mut client = connect(&server).await;
        let mut one = open(&mut client).await;
        let mut two = open(&mut client).await;
        let connections = server.connections.clone();
        let drain =
            tokio::task::spawn_local(
                async move { connections.drain(Duration::from_secs(10)).await },
            );
        for stream in [&mut one, &mut two] {
            assert_eq!(stream.exactly(3).await, b"bye");
            assert!(stream.piece().await.is_none());
        }
        drop((one, two));
        assert_eq!(drain.await.unwrap(), 0, "nothing had to be cut");
    });
}

#[test]
fn stream_of_bytes_shares_with_responses() {
    run(async {
        let server = TestServer::new(|request| {
            if request.head.method == Method::CONNECT {
                accepting(|upgraded| Box::pin(echo(upgraded)))(request)
            } else {
                ok(Bytes::from(vec![0; 4 << 20])).into()
            }
        });
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        let large = http::Request::get("http://t/").body(()).unwrap();
        let (response, _) = client.send_request(large, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut bytes = 0;
        for round in 0..20 {
            stream.send(Bytes::from(vec![round; 1000])).await;
            let mut echoed = 0;
            while echoed < 1000 {
                tokio::select! {
                    biased;
                    piece = stream.piece() => echoed += piece.unwrap().unwrap().len(),
                    data = body.data() => {
                        let length = data.unwrap().unwrap().len();
                        body.flow_control().release_capacity(length).unwrap();
                        bytes += length;
                    }
                }
            }
        }
        assert!(bytes < 4 << 20, "all echoes came while the response did");
    });
}

/// Answers each message by itself; see `websocket_session.rs` for all that a session does.
struct Echo {
    outbox: Rc<Outbox>,
    kind: Kind,
    buffer: MessageBuffer,
    closed: Rc<RefCell<Option<Closed>>>,
}

impl MessageSink for Echo {
    fn begin(&mut self, kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        self.kind = kind;
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
        match self.kind {
            Kind::Text => self.outbox.text(std::str::from_utf8(&payload).unwrap()),
            Kind::Binary => self.outbox.binary(&payload),
        };
        Ok(())
    }
}

impl Handler for Echo {
    fn wants_message(&self) -> bool {
        true
    }

    fn turn(&mut self) {}

    fn closed(&mut self, closed: Closed) {
        self.closed.replace(Some(closed));
    }
}

type Told = Rc<RefCell<Option<Closed>>>;

fn sessions(settings: Settings) -> (TestServer, Told) {
    let closed = Told::default();
    let told = closed.clone();
    let server = TestServer::new(accepting(move |upgraded| {
        let outbox = Outbox::new();
        let handler = Echo {
            outbox: outbox.clone(),
            kind: Kind::Text,
            buffer: MessageBuffer::default(),
            closed: told.clone(),
        };
        let session = Session::new(upgraded.stream, &[], settings, outbox, handler);
        if let Some(heartbeat) = session.heartbeat() {
            upgraded.sweep.watch(heartbeat);
        }
        Box::pin(session)
    }));
    (server, closed)
}

#[test]
fn messages_and_close_codes_pass() {
    run(async {
        let (server, closed) = sessions(Settings::default());
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        let message = vec![3; 300_000];
        let sent: Bytes = [
            frame(TEXT, "grüße".as_bytes()),
            frame(BINARY, &message),
            close(4001, "enough"),
        ]
        .concat()
        .into();
        // Both at once: what comes back has to be read, or the windows close.
        let mut received = Vec::new();
        for part in sent.chunks(30_000) {
            stream.send(Bytes::copy_from_slice(part)).await;
            while let Ok(Some(piece)) =
                tokio::time::timeout(Duration::from_millis(1), stream.piece()).await
            {
                received.extend(piece.unwrap());
            }
        }
        while let Some(piece) = stream.piece().await {
            received.extend(piece.unwrap());
        }
        let mut received = &received[..];
        let text = read_frame(&mut received).await;
        assert_eq!(text, Some((TEXT, "grüße".into())));
        assert_eq!(read_frame(&mut received).await, Some((BINARY, message)));
        assert_eq!(
            close_of(read_frame(&mut received).await),
            (4001, "enough".to_owned())
        );
        assert!(received.is_empty());
        stream.send.send_data(Bytes::new(), true).unwrap();
        until(|| server.connections.busy() == 0).await;
        let closed = closed.take().unwrap();
        assert_eq!((closed.code, closed.clean), (4001, true));
    });
}

#[test]
fn burst_of_small_frames_is_no_attack() {
    run(async {
        let (server, _closed) = sessions(Settings::default());
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        // As a browser does it: a frame of HTTP/2 for each of WebSocket, as many as the window lets through.
        let message = frame(TEXT, &[b'm'; 20]);
        let count = 5000;
        for _ in 0..count {
            stream.send(message.clone().into()).await;
        }
        stream.exactly(count * 22).await;
    });
}

#[test]
fn silent_client_is_asked_and_given_up() {
    run(async {
        let (server, closed) = sessions(Settings {
            ping_interval: Some(Duration::from_millis(100)),
            ping_timeout: Some(Duration::from_millis(100)),
            ..Settings::default()
        });
        let mut client = connect(&server).await;
        let mut stream = open(&mut client).await;
        assert_eq!(stream.exactly(2).await, [0x89, 0], "a ping");
        let rest = stream.exactly(4).await;
        assert_eq!(rest[0], 0x88, "a close frame");
        assert_eq!(u16::from_be_bytes([rest[2], rest[3]]), 1011);
        let closed = closed.take().unwrap();
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (1006, "ping timeout")
        );
    });
}
