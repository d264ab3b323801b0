//! Clients of HTTP/2 that make all windows smaller when responses were handed over whole: what waits then has its time, and
//! no more.
use crate::common;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use common::{Frames, TestServer, ok, quick, run, until};
use framegate_http::{
    Config, Limits, Timeouts,
    body::ResponseBody,
    service::{Request, Response},
};
use http::HeaderMap;
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

const WRITE: Duration = Duration::from_millis(300);
/// More than the kernel takes for a client that does not read.
const STREAMS: u32 = 32;
const BODY_BYTES: usize = 1 << 20;
static BODY: [u8; BODY_BYTES] = [b'x'; BODY_BYTES];
const WINDOW: u32 = 1 << 21;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// Every third body has a length, every third has none, and every third has trailers.
fn answer(request: &Request) -> Response {
    let data = || Bytes::from_static(&BODY);
    let frames = |trailers: Option<HeaderMap>| {
        let frames = [Ok(Frame::data(data()))]
            .into_iter()
            .chain(trailers.map(|fields| Ok(Frame::trailers(fields))));
        ResponseBody::Stream(Box::pin(Frames(frames.collect())))
    };
    match request.head.uri.path() {
        "/length" => ok(data()),
        "/none" => ok(frames(None)),
        _ => {
            let mut fields = HeaderMap::new();
            fields.insert("checksum", "7".parse().unwrap());
            ok(frames(Some(fields)))
        }
    }
}

fn server() -> TestServer {
    let config = Config {
        timeouts: Timeouts {
            write: WRITE,
            ..quick()
        },
        limits: Limits {
            // All of it is handed to the crate at once.
            buffer_bytes_max: BODY_BYTES * STREAMS as usize,
            ..Limits::default()
        },
        ..Config::default()
    };
    TestServer::with(config, |request| answer(&request).into())
}

/// What a client knows of one stream.
#[derive(Default)]
struct Stream {
    bytes: usize,
    ended: bool,
    reset: Option<u32>,
}

struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    pongs: usize,
    is_told_to_go: bool,
}

impl Client {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).await.unwrap();
    }

    async fn set_initial_window(&mut self, bytes: u32) {
        let payload = [&[0, 4], &bytes.to_be_bytes()[..]].concat();
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    async fn open_window(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
            .await;
    }

    /// Asks for all, shrinks the windows when all was handed over, and only then begins to read.
    async fn ask(server: &TestServer) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = Self {
            socket: socket.connect(server.address).await.unwrap(),
            unread: Vec::new(),
            streams: BTreeMap::new(),
            pongs: 0,
            is_told_to_go: false,
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.socket.write_all(preface).await.unwrap();
        client.set_initial_window(WINDOW).await;
        client.open_window(0, WINDOW * STREAMS).await;
        for number in (1..STREAMS * 2).step_by(2) {
            let path = ["/length", "/none", "/trailers"][number as usize / 2 % 3];
            // GET http://t of that path, in HPACK.
            let mut head = vec![0x82, 0x86, 0x41, 1, b't', 0x44];
            head.push(u8::try_from(path.len()).unwrap());
            head.extend(path.as_bytes());
            client
                .send(HEADERS, END_STREAM | END_HEADERS, number, &head)
                .await;
            client.streams.insert(number, Stream::default());
        }
        until(|| server.connections.requests() == u64::from(STREAMS)).await;
        client.set_initial_window(0).await;
        client
    }

    /// Reads what has come, or waits for something.
    async fn read(&mut self) {
        let read = self.socket.read_buf(&mut self.unread).await.unwrap();
        assert!(read > 0, "the connection was closed");
        let mut rest = &self.unread[..];
        while let Some((head, payload)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = payload.split_at_checked(length) else {
                break;
            };
            rest = after;
            self.is_told_to_go |= head[3] == GOAWAY;
            if (head[3], head[4]) == (PING, ACK) {
                self.pongs += 1;
            }
            let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(stream) = self.streams.get_mut(&number) else {
                continue;
            };
            match head[3] {
                DATA => stream.bytes += length,
                RST_STREAM => stream.reset = Some(u32::from_be_bytes(payload.try_into().unwrap())),
                _ => {}
            }
            stream.ended |= matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0;
        }
        let used = self.unread.len() - rest.len();
        self.unread.drain(..used);
    }

    async fn read_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while timeout_at(end, self.read()).await.is_ok() {}
    }

    /// Streams that are neither over nor reset.
    fn open(&self) -> Vec<u32> {
        let open = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.ended && stream.reset.is_none());
        open.map(|(number, _)| *number).collect()
    }
}

#[test]
fn responses_that_wait_for_a_window_nobody_opens_are_reset() {
    run(async {
        let server = server();
        let mut client = Client::ask(&server).await;
        let start = Instant::now();
        while !client.open().is_empty() {
            client.read().await;
        }
        assert!(start.elapsed() >= WRITE, "{:?}", start.elapsed());
        let resets: Vec<_> = client
            .streams
            .values()
            .filter_map(|one| one.reset)
            .collect();
        assert!(!resets.is_empty(), "the kernel has taken all");
        assert!(resets.iter().all(|code| *code == CANCEL), "{resets:?}");
        // The connection lives on, with nothing left of them.
        client.send(PING, 0, 0, &[7; 8]).await;
        while client.pongs == 0 {
            client.read().await;
        }
        let (last, head) = (STREAMS * 2 + 1, b"\x82\x86\x41\x01t\x44\x07/length");
        client
            .send(HEADERS, END_STREAM | END_HEADERS, last, head)
            .await;
        client.streams.insert(last, Stream::default());
        client.open_window(last, WINDOW).await;
        while !client.open().is_empty() {
            client.read().await;
        }
        assert_eq!(client.streams[&last].bytes, BODY_BYTES);
        assert!(!client.is_told_to_go);
        assert_eq!(server.connections.count(), 1);
    });
}

#[test]
fn responses_whose_windows_are_opened_slowly_arrive_whole() {
    run(async {
        let server = server();
        let mut client = Client::ask(&server).await;
        let start = Instant::now();
        while start.elapsed() < WRITE * 3 {
            client.read_for(WRITE / 4).await;
            for number in client.open() {
                // Those that had sent more than the window is now owe that first.
                client.open_window(number, WINDOW / 32).await;
            }
        }
        assert!(!client.open().is_empty(), "the kernel has taken all");
        client.set_initial_window(WINDOW).await;
        while !client.open().is_empty() {
            client.read().await;
        }
        for (number, stream) in &client.streams {
            assert_eq!((stream.bytes, stream.reset), (BODY_BYTES, None), "{number}");
        }
    });
}

#[test]
fn connection_with_a_rest_that_waits_is_not_idle() {
    run(async {
        let mut config = Config {
            timeouts: quick(),
            ..Config::default()
        };
        config.timeouts.idle = Duration::from_millis(50);
        config.limits.buffer_bytes_max = BODY_BYTES * STREAMS as usize;
        let server = TestServer::with(config, |request| answer(&request).into());
        let mut client = Client::ask(&server).await;
        client.read_for(Duration::from_millis(400)).await;
        assert!(!client.open().is_empty(), "the kernel has taken all");
        assert!(!client.is_told_to_go);
        client.set_initial_window(WINDOW).await;
        while !client.open().is_empty() {
            client.read().await;
        }
        assert!(client.streams.values().all(|one| one.bytes == BODY_BYTES));
        while !client.is_told_to_go {
            client.read().await;
        }
    });
}
