//! A server on a real socket, and a client that speaks raw bytes.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]

mod transport;

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use framegate_http::{
    Config, Connections, Server, Task, Timeouts,
    body::{Aborted, Body, ResponseBody},
    service::{Entry, Request, Response, ResponseFuture, Service, service_fn},
};
use http_body::Frame as BodyFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
pub use transport::{OVER_TLS, Transport};

/// Longest time that a test may take; only a bug takes it.
const WATCHDOG: Duration = Duration::from_secs(20);

/// Runs a test the way the server runs: one thread, local tasks.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new()
        .block_on(&runtime, async {
            tokio::time::timeout(WATCHDOG, test).await
        })
        .expect("the test hangs")
}

pub fn spawn(task: Task) {
    tokio::task::spawn_local(task);
}

pub struct TestServer {
    pub server: Server,
    pub address: SocketAddr,
    pub connections: Connections,
}

impl TestServer {
    pub fn start(server: Server) -> Self {
        Self::start_on(server, std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn start_on(server: Server, listener: std::net::TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (server, entry) = if OVER_TLS {
            (transport::with_tls(server), Entry::Tls)
        } else {
            (server, Entry::Plain)
        };
        server.listen_as(entry, listener).unwrap();
        let connections = server.connections();
        Self {
            server,
            address,
            connections,
        }
    }

    pub fn with_service(config: Config, service: Rc<dyn Service>) -> Self {
        Self::start(Server::new(service, Rc::new(config), spawn))
    }

    /// A server whose requests are answered by a function.
    pub fn with(config: Config, answer: impl Fn(Request) -> ResponseFuture + 'static) -> Self {
        Self::with_service(config, service_fn(answer))
    }

    /// A server whose handler waits for ever, and the event that it was dropped.
    pub fn that_never_answers() -> (Self, Event) {
        let dropped = Event::default();
        let told = dropped.clone();
        let config = Config {
            timeouts: Timeouts {
                half_close: Duration::from_millis(20),
                ..quick()
            },
            ..Config::default()
        };
        let server = Self::with(config, move |_| {
            let guard = SetOnDrop(told.clone());
            ResponseFuture::later(async move {
                let _guard = guard;
                std::future::pending().await
            })
        });
        (server, dropped)
    }

    pub fn new(answer: impl Fn(Request) -> ResponseFuture + 'static) -> Self {
        Self::with(Config::default(), answer)
    }

    /// A server whose requests are answered by an async function.
    pub fn later<F: Future<Output = Response> + 'static>(
        answer: impl Fn(Request) -> F + 'static,
    ) -> Self {
        Self::new(move |request| ResponseFuture::later(answer(request)))
    }

    pub async fn connect(&self) -> Client {
        Client::new(Transport::connect(self.address).await)
    }

    /// Waits until the number of connections is `count`.
    pub async fn connections_become(&self, count: usize) {
        until(|| self.connections.count() == count).await;
    }
}

/// Waits until a condition that other tasks of this thread bring about holds.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Timeouts so short that a test can wait for them, and a sweep that is shorter still.
pub fn quick() -> Timeouts {
    Timeouts {
        sweep: Duration::from_millis(10),
        ..Timeouts::default()
    }
}

pub fn hello(_: Request) -> ResponseFuture {
    ok("hello").into()
}

pub fn ok(body: impl Into<ResponseBody>) -> Response {
    Response::new(body.into())
}

/// Requests for `/0`, `/1` and so on, without anything between them.
pub fn pipelined(count: usize) -> String {
    use std::fmt::Write;
    let mut all = String::new();
    for n in 0..count {
        write!(all, "GET /{n} HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    }
    all
}

pub async fn collect(body: &mut Body) -> Result<Vec<u8>, framegate_http::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data?);
    }
    Ok(all)
}

/// A response body made of frames that are there already.
pub struct Frames(pub VecDeque<Result<BodyFrame<Bytes>, Aborted>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        Poll::Ready(self.0.pop_front())
    }
}

pub fn stream(pieces: &[&'static str]) -> ResponseBody {
    let frames = pieces
        .iter()
        .map(|piece| Ok(BodyFrame::data(Bytes::from_static(piece.as_bytes()))));
    ResponseBody::Stream(Box::pin(Frames(frames.collect())))
}

/// A response as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub version: String,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub struct Client {
    pub stream: Transport,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(stream: Transport) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The client whose connection was split.
    pub fn reunite(read: ReadHalf<Transport>, write: WriteHalf<Transport>) -> Self {
        Self::new(read.unsplit(write))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads more; false at the end of the stream or when it was reset.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(16 * 1024);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < bytes {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..bytes).collect())
    }

    async fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':').expect("a field has a colon");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next response head; its body is left in the stream.
    pub async fn head(&mut self) -> Option<Reply> {
        let line = self.line().await?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap().to_owned();
        assert!(
            version.starts_with("HTTP/1."),
            "not a status line: {line:?}"
        );
        let status = words.next().unwrap().parse().unwrap();
        let fields = self.fields().await?;
        Some(Reply {
            version,
            status,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// The next response to a request that may have a body; `None` when the connection ended before it was whole.
    pub async fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head().await?;
        if reply.status < 200 || reply.status == 204 || reply.status == 304 {
            return Some(reply);
        }
        if let Some(length) = reply.field("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.exactly(length).await?;
        } else if reply.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).unwrap();
                if size == 0 {
                    reply.trailers = self.fields().await?;
                    break;
                }
                reply.body.extend(self.exactly(size).await?);
                assert_eq!(self.line().await?, "", "a chunk ends with CRLF");
            }
        } else {
            reply.body = self.rest().await;
        }
        Some(reply)
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// True when the server closed the connection and sent nothing more before.
    pub async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    pub async fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n"))
            .await;
        self.reply()
            .await
            .expect("the connection ended before the response")
    }
}

/// Something that happens once and that a test can wait for.
#[derive(Clone, Default)]
pub struct Event(Rc<RefCell<(bool, Vec<Waker>)>>);

impl Event {
    pub fn set(&self) {
        let mut inner = self.0.borrow_mut();
        inner.0 = true;
        inner.1.drain(..).for_each(Waker::wake);
    }

    pub fn is_set(&self) -> bool {
        self.0.borrow().0
    }

    pub async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            if inner.0 {
                return Poll::Ready(());
            }
            inner.1.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Sets an event when it is dropped.
pub struct SetOnDrop(pub Event);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(self: Arc<Self>) {}
}

/// Polls once, with a waker that does nothing.
pub fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(NoWake))))
}
