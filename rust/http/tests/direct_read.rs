//! Large bodies of declared length go from the socket straight into the slot; what comes before and after them on the
//! connection must not notice.
use crate::common;

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use common::{Client, Event, SetOnDrop, TestServer, collect, ok, quick, run, until};
use framegate_http::{
    Config, Server, Timeouts,
    ingest::{FrameSink, FrameSlot, IngestError, Published, ingest},
    record::{RecordSink, RequestRecord},
    service::{Request, Response, ResponseFuture, service_fn},
    topics::FrameHead,
};
use http::{HeaderMap, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Large enough to be read directly, and more than hyper reads with the head.
const LARGE: usize = 200 * KIB;

/// A topic on plain memory.
#[derive(Default)]
struct Memory {
    frames: RefCell<Vec<Vec<u8>>>,
    /// Bytes in the slot that is being filled.
    filled: Cell<usize>,
    largest_read: Cell<usize>,
    abandoned: Event,
}

#[derive(Clone, Default)]
struct Topic(Rc<Memory>);

struct Slot {
    topic: Topic,
    bytes: Vec<u8>,
    filled: usize,
    published: bool,
}

impl FrameSink for Topic {
    fn loan(&self, bytes: Option<u64>) -> Result<Box<dyn FrameSlot>, IngestError> {
        self.0.filled.set(0);
        Ok(Box::new(Slot {
            topic: self.clone(),
            bytes: vec![0; bytes.unwrap() as usize],
            filled: 0,
            published: false,
        }))
    }
}

impl FrameSlot for Slot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
        let topic = &*self.topic.0;
        topic.filled.set(self.filled);
        topic.largest_read.set(topic.largest_read.get().max(bytes));
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn publish(mut self: Box<Self>, _head: &FrameHead) -> Result<Published, IngestError> {
        self.published = true;
        assert_eq!(self.filled, self.bytes.len());
        let mut frames = self.topic.0.frames.borrow_mut();
        frames.push(std::mem::take(&mut self.bytes));
        Ok(Published {
            sequence: frames.len() as u64,
            bytes: self.filled as u64,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.published {
            self.topic.0.abandoned.set();
        }
    }
}

async fn answer(topic: Topic, mut request: Request) -> Response {
    if request.head.method == "GET" {
        return ok(Bytes::from(request.head.uri.path().to_owned()));
    }
    match ingest(&mut request.body, &topic, &FrameHead::default(), None).await {
        Ok(published) => ok(Bytes::from(published.bytes.to_string())),
        Err(error) => {
            assert!(error.is_body(), "{error:?}");
            ok("failed")
        }
    }
}

fn serve_with(topic: &Topic, config: Config) -> TestServer {
    let topic = topic.clone();
    TestServer::with(config, move |request| {
        ResponseFuture::later(answer(topic.clone(), request))
    })
}

fn serve(topic: &Topic) -> TestServer {
    serve_with(topic, Config::default())
}

/// Bytes without a period, as much unlike HTTP as like it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn head(bytes: usize) -> String {
    format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {bytes}\r\n\r\n")
}

fn post(body: &[u8]) -> Vec<u8> {
    [head(body.len()).as_bytes(), body].concat()
}

/// The order in which the bytes of a request are sent.
enum Pieces {
    Whole,
    Random,
    /// Byte by byte at the beginning and at the end.
    Bytes,
}

async fn send_in(client: &mut Client, bytes: &[u8], pieces: &Pieces, random: &mut Random) {
    client.stream.set_nodelay(true).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = bytes.len() - rest.len();
        let size = match pieces {
            Pieces::Whole => rest.len(),
            Pieces::Random => 1 + random.next() as usize % (bytes.len() / 7 + 1),
            Pieces::Bytes if sent < 600 || rest.len() <= 600 => 1,
            Pieces::Bytes => rest.len() - 600,
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        client.send(piece).await;
        tokio::task::yield_now().await;
        rest = after;
    }
}

#[test]
fn bodies_of_all_sizes_arrive_exactly_however_they_are_cut() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut random = Random(1);
        let mut client = server.connect().await;
        for bytes in [0, 1, 63 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB] {
            for pieces in [Pieces::Whole, Pieces::Random, Pieces::Bytes] {
                let body = random.bytes(bytes);
                send_in(&mut client, &post(&body), &pieces, &mut random).await;
                assert_eq!(client.reply().await.unwrap().text(), bytes.to_string());
                assert!(topic.0.frames.borrow_mut().pop().unwrap() == body);
            }
        }
        assert_eq!(server.connections.accepted(), 1);
    });
}

#[test]
fn large_body_is_read_in_large_pieces_and_counted() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut random = Random(2);
        let mut client = server.connect().await;
        let body = random.bytes(20 * MIB);
        let request = post(&body);
        client.send(&request).await;
        assert_eq!(client.reply().await.unwrap().status, 200);
        assert!(topic.0.frames.borrow()[0] == body);
        // hyper reads 64 KiB at most.
        assert!(topic.0.largest_read.get() > 64 * KIB);
        assert_eq!(server.connections.bytes_in(), request.len() as u64);
        assert_eq!(server.connections.requests(), 1);
    });
}

#[test]
fn requests_behind_the_body_are_not_touched() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut random = Random(3);
        let mut client = server.connect().await;
        let mut all = Vec::new();
        let mut bodies = Vec::new();
        for n in 0..100 {
            if n % 2 == 0 {
                let size = 60 * KIB + random.next() as usize % LARGE;
                bodies.push(random.bytes(size));
                all.extend(post(bodies.last().unwrap()));
            } else {
                all.extend(format!("GET /{n} HTTP/1.1\r\nhost: t\r\n\r\n").into_bytes());
            }
        }
        client.send(&all).await;
        for n in 0..100 {
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, reply.field("connection")), (200, None));
            if n % 2 == 0 {
                assert_eq!(reply.text(), bodies[n / 2].len().to_string());
            } else {
                assert_eq!(reply.text(), format!("/{n}"));
            }
        }
        assert!(*topic.0.frames.borrow() == bodies);
        assert_eq!(server.connections.requests(), 100);
        assert_eq!(server.connections.bytes_in(), all.len() as u64);
        assert_eq!(server.connections.accepted(), 1);
    });
}

#[test]
fn end_of_the_body_and_next_request_in_one_packet_are_told_apart() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let body = vec![b'\n'; LARGE];
        for split in [LARGE - 1, LARGE - 10, 100 * KIB, 1, 0] {
            let mut client = server.connect().await;
            client.send(head(LARGE)).await;
            client.send(&body[..split]).await;
            until(|| topic.0.filled.get() == split).await;
            client
                .send([&body[split..], b"GET /after HTTP/1.1\r\nhost: t\r\n\r\n"].concat())
                .await;
            assert_eq!(client.reply().await.unwrap().text(), LARGE.to_string());
            assert_eq!(client.reply().await.unwrap().text(), "/after");
            topic.0.filled.set(0);
        }
    });
}

#[test]
fn room_beyond_the_body_does_not_take_the_next_request() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let mut into = vec![0; LARGE + 64 * KIB];
            let mut filled = 0;
            loop {
                match request.body.read(&mut into[filled..]).await.unwrap() {
                    0 => break,
                    bytes => filled += bytes,
                }
            }
            assert!(request.body.is_end_stream());
            let method = request.head.method.as_str();
            ok(Bytes::from(format!("{method} {filled}")))
        });
        let mut client = server.connect().await;
        let post = post(&Random(8).bytes(LARGE));
        client
            .send([&*post, &*post, b"GET / HTTP/1.1\r\nhost: t\r\n\r\n", &*post].concat())
            .await;
        let large = format!("POST {LARGE}");
        for expected in [&*large, &*large, "GET 0", &*large] {
            assert_eq!(client.reply().await.unwrap().text(), expected);
        }
        assert_eq!(server.connections.requests(), 4);
    });
}

#[test]
fn client_that_leaves_at_any_byte_abandons_the_loan() {
    run(async {
        for sent in [0, 1, 8 * KIB, 64 * KIB, 100 * KIB, LARGE - 1] {
            for reset in [false, true] {
                let topic = Topic::default();
                let server = serve(&topic);
                let mut client = server.connect().await;
                client.send(head(LARGE)).await;
                client.send(&vec![0; sent]).await;
                until(|| server.connections.busy() == 1 && topic.0.filled.get() == sent).await;
                if reset {
                    client.stream.set_zero_linger().unwrap();
                }
                drop(client);
                topic.0.abandoned.wait().await;
                server.connections_become(0).await;
                assert!(topic.0.frames.borrow().is_empty());
            }
        }
    });
}

/// Runs an ingest until `stop`, which drops it.
async fn ingest_until(request: &mut Request, topic: &Topic, stop: &Event) -> bool {
    let head = FrameHead::default();
    let mut ingesting = pin!(ingest(&mut request.body, topic, &head, None));
    let mut stopping = pin!(stop.wait());
    poll_fn(|cx| {
        if ingesting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        stopping.as_mut().poll(cx).map(|()| false)
    })
    .await
}

#[test]
fn cancelled_ingest_closes_the_connection_after_the_response() {
    run(async {
        let topic = Topic::default();
        let stop = Event::default();
        let server = {
            let (topic, stop) = (topic.clone(), stop.clone());
            TestServer::later(move |mut request| {
                let (topic, stop) = (topic.clone(), stop.clone());
                async move {
                    assert!(!ingest_until(&mut request, &topic, &stop).await);
                    drop(request.body);
                    ok("cancelled")
                }
            })
        };
        let mut client = server.connect().await;
        client.send(head(LARGE)).await;
        client.send(&vec![0; 100 * KIB]).await;
        until(|| topic.0.filled.get() == 100 * KIB).await;
        // Bytes of the body that look like a request, and must never be taken for one.
        client
            .send("GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n")
            .await;
        stop.set();
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            ("cancelled", Some("close"))
        );
        client
            .send("GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n".repeat(10))
            .await;
        assert!(client.is_closed().await);
        drop(client);
        server.connections_become(0).await;
        assert!(topic.0.abandoned.is_set());
        assert_eq!(server.connections.requests(), 1);
    });
}

#[test]
fn body_can_be_read_on_after_a_cancelled_ingest() {
    run(async {
        let topic = Topic::default();
        let stop = Event::default();
        let server = {
            let (topic, stop) = (topic.clone(), stop.clone());
            TestServer::later(move |mut request| {
                let (topic, stop) = (topic.clone(), stop.clone());
                async move {
                    assert!(!ingest_until(&mut request, &topic, &stop).await);
                    assert_eq!(request.body.remaining(), Some(100 * KIB as u64));
                    let rest = collect(&mut request.body).await.unwrap();
                    assert!(request.body.is_end_stream());
                    ok(Bytes::from(rest))
                }
            })
        };
        let mut client = server.connect().await;
        let body = Random(4).bytes(LARGE);
        client.send(head(LARGE)).await;
        client.send(&body[..100 * KIB]).await;
        until(|| topic.0.filled.get() == 100 * KIB).await;
        stop.set();
        topic.0.abandoned.wait().await;
        client.send(&body[100 * KIB..]).await;
        let reply = client.reply().await.unwrap();
        assert!(reply.body == body[100 * KIB..]);
        assert_eq!(reply.field("connection"), None);
    });
}

#[test]
fn early_response_does_not_end_a_body_that_is_read_elsewhere() {
    run(async {
        let topic = Topic::default();
        let respond = Event::default();
        let server = {
            let (topic, respond) = (topic.clone(), respond.clone());
            TestServer::later(move |mut request| {
                let (topic, respond) = (topic.clone(), respond.clone());
                tokio::task::spawn_local(async move {
                    ingest(&mut request.body, &topic, &FrameHead::default(), None)
                        .await
                        .unwrap();
                });
                async move {
                    respond.wait().await;
                    ok("early")
                }
            })
        };
        let mut client = server.connect().await;
        let body = Random(5).bytes(LARGE);
        client.send(head(LARGE)).await;
        client.send(&body[..100 * KIB]).await;
        until(|| topic.0.filled.get() == 100 * KIB).await;
        respond.set();
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            ("early", Some("close"))
        );
        client.send(&body[100 * KIB..]).await;
        assert!(client.is_closed().await);
        drop(client);
        server.connections_become(0).await;
        assert!(topic.0.frames.borrow()[0] == body);
    });
}

#[test]
fn drain_cuts_a_body_at_its_deadline() {
    run(async {
        let topic = Topic::default();
        let dropped = Event::default();
        let server = {
            let (topic, dropped) = (topic.clone(), dropped.clone());
            TestServer::new(move |mut request| {
                let topic = topic.clone();
                // On a task of its own, which outlives the connection.
                tokio::task::spawn_local(async move {
                    let error = ingest(&mut request.body, &topic, &FrameHead::default(), None)
                        .await
                        .unwrap_err();
                    assert!(error.is_body());
                });
                let guard = SetOnDrop(dropped.clone());
                ResponseFuture::later(async move {
                    let _guard = guard;
                    pending().await
                })
            })
        };
        let mut client = server.connect().await;
        client.send(head(LARGE)).await;
        client.send(&vec![0; 100 * KIB]).await;
        until(|| topic.0.filled.get() == 100 * KIB).await;
        assert_eq!(server.connections.drain(Duration::ZERO).await, 1);
        assert!(dropped.is_set());
        topic.0.abandoned.wait().await;
        assert!(client.is_closed().await);
    });
}

#[test]
fn drain_lets_a_body_arrive_and_says_close() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut client = server.connect().await;
        client.send(head(LARGE)).await;
        client.send(&vec![0; 100 * KIB]).await;
        until(|| topic.0.filled.get() == 100 * KIB).await;
        let connections = server.connections.clone();
        let drain =
            tokio::task::spawn_local(
                async move { connections.drain(Duration::from_secs(10)).await },
            );
        tokio::task::yield_now().await;
        client.send(&vec![0; 100 * KIB]).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            (&*LARGE.to_string(), Some("close"))
        );
        assert!(client.is_closed().await);
        drop(client);
        assert_eq!(drain.await.unwrap(), 0);
    });
}

#[test]
fn continue_is_sent_once_and_before_the_body_is_read() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut client = server.connect().await;
        let body = Random(6).bytes(LARGE);
        for _ in 0..2 {
            client
                .send(head(LARGE).replace("host", "expect: 100-continue\r\nhost"))
                .await;
            assert_eq!(client.reply().await.unwrap().status, 100);
            client.send(&body).await;
            assert_eq!(client.reply().await.unwrap().text(), LARGE.to_string());
        }
        assert!(*topic.0.frames.borrow() == [body.clone(), body]);
    });
}

#[test]
fn connection_is_parked_after_an_ingest() {
    run(async {
        let topic = Topic::default();
        let config = Config {
            timeouts: Timeouts {
                park_after: Some(Duration::from_millis(20)),
                ..quick()
            },
            ..Config::default()
        };
        let server = serve_with(&topic, config);
        let mut client = server.connect().await;
        for _ in 0..2 {
            client.send(post(&vec![7; LARGE])).await;
            assert_eq!(client.reply().await.unwrap().text(), LARGE.to_string());
            until(|| server.connections.parked() == 1).await;
        }
    });
}

#[test]
fn old_protocol_and_close_are_kept() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        for (line, field, expected, closes) in [
            ("HTTP/1.0", "x: y", None, true),
            (
                "HTTP/1.0",
                "connection: keep-alive",
                Some("keep-alive"),
                false,
            ),
            ("HTTP/1.1", "connection: close", Some("close"), true),
            ("HTTP/1.1", "connection: keep-alive", None, false),
        ] {
            let mut client = server.connect().await;
            let head =
                format!("POST / {line}\r\nhost: t\r\n{field}\r\ncontent-length: {LARGE}\r\n\r\n");
            client.send(head).await;
            client.send(&vec![0; LARGE]).await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.version, line, "{field}");
            assert_eq!(reply.field("connection"), expected, "{line} {field}");
            if closes {
                assert!(client.is_closed().await);
            } else {
                assert_eq!(client.get("/next").await.text(), "/next");
            }
        }
    });
}

#[test]
fn client_that_leaves_after_the_body_is_noticed() {
    run(async {
        let topic = Topic::default();
        let (read, dropped) = (Event::default(), Event::default());
        let server = {
            let (topic, read, dropped) = (topic.clone(), read.clone(), dropped.clone());
            TestServer::later(move |mut request| {
                let (topic, read, guard) =
                    (topic.clone(), read.clone(), SetOnDrop(dropped.clone()));
                async move {
                    let _guard = guard;
                    ingest(&mut request.body, &topic, &FrameHead::default(), None)
                        .await
                        .unwrap();
                    read.set();
                    pending().await
                }
            })
        };
        let mut client = server.connect().await;
        client.send(post(&vec![0; LARGE])).await;
        read.wait().await;
        drop(client);
        dropped.wait().await;
        server.connections_become(0).await;
    });
}

#[test]
fn hint_leaves_between_two_reads() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let mut into = vec![0; LARGE];
            let mut filled = 0;
            while filled < 100 * KIB {
                filled += request.body.read(&mut into[filled..]).await.unwrap();
            }
            let mut fields = HeaderMap::new();
            fields.insert("link", HeaderValue::from_static("</a>; rel=preload"));
            request.hints.send(fields).await;
            while filled < LARGE {
                filled += request.body.read(&mut into[filled..]).await.unwrap();
            }
            ok("done")
        });
        let mut client = server.connect().await;
        client.send(head(LARGE)).await;
        client.send(&vec![0; 100 * KIB]).await;
        assert_eq!(client.reply().await.unwrap().status, 103);
        client.send(&vec![0; 100 * KIB]).await;
        assert_eq!(client.reply().await.unwrap().text(), "done");
    });
}

#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<RequestRecord>>>);

impl RecordSink for Sink {
    fn finished(&self, record: &RequestRecord) {
        self.0.borrow_mut().push(record.clone());
    }
}

#[test]
fn record_counts_the_body() {
    run(async {
        let (topic, sink) = (Topic::default(), Sink::default());
        let service = {
            let topic = topic.clone();
            service_fn(move |request| ResponseFuture::later(answer(topic.clone(), request)))
        };
        let server = Server::new(service, Rc::new(Config::default()), common::spawn)
            .with_records(Rc::new(sink.clone()));
        let server = TestServer::start(server);
        let mut client = server.connect().await;
        client.send(post(&vec![0; LARGE])).await;
        assert_eq!(client.reply().await.unwrap().status, 200);
        client.send(head(LARGE)).await;
        client.send(&vec![0; 70 * KIB]).await;
        until(|| topic.0.filled.get() == 70 * KIB).await;
        drop(client);
        server.connections_become(0).await;
        let records = sink.0.borrow();
        assert_eq!(records.len(), 2, "one for each request");
        assert_eq!(records[0].body_bytes_in, LARGE as u64);
        assert!(!records[0].aborted);
        assert_eq!(records[1].body_bytes_in, 70 * KIB as u64);
    });
}

#[test]
fn other_connections_are_served_while_a_body_floods() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let flood = TcpStream::connect(server.address).await.unwrap();
        let sending = tokio::task::spawn_local(async move {
            let mut flood = flood;
            flood.write_all(head(1024 * MIB).as_bytes()).await.unwrap();
            let piece = vec![0; MIB];
            while flood.write_all(&piece).await.is_ok() {}
        });
        until(|| topic.0.filled.get() > MIB).await;
        let mut client = server.connect().await;
        for _ in 0..5 {
            assert_eq!(client.get("/a").await.text(), "/a");
        }
        assert!(topic.0.filled.get() < 1024 * MIB);
        sending.abort();
        topic.0.abandoned.wait().await;
    });
}

#[test]
fn two_bodies_at_once_do_not_mix() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let mut tasks = Vec::new();
        for byte in [1, 2] {
            let mut client = server.connect().await;
            tasks.push(tokio::task::spawn_local(async move {
                for _ in 0..5 {
                    client.send(post(&vec![byte; 4 * MIB])).await;
                    assert_eq!(client.reply().await.unwrap().status, 200);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        for frame in topic.0.frames.borrow().iter() {
            assert_eq!(frame.len(), 4 * MIB);
            assert!(frame.iter().all(|byte| *byte == frame[0]));
        }
        assert_eq!(topic.0.frames.borrow().len(), 10);
    });
}

#[cfg(unix)]
#[test]
fn unix_sockets_are_read_directly_too() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic);
        let directory = std::env::temp_dir().join(format!("direct-read-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        server.server.listen(listener).unwrap();
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let body = Random(7).bytes(5 * MIB);
        for _ in 0..2 {
            client.write_all(&post(&body)).await.unwrap();
            let mut reply = vec![0; 12];
            client.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply, b"HTTP/1.1 200");
            let end = format!("\r\n\r\n{}", 5 * MIB);
            while !reply.ends_with(end.as_bytes()) {
                assert_ne!(client.read_buf(&mut reply).await.unwrap(), 0);
            }
        }
        assert!(*topic.0.frames.borrow() == [body.clone(), body]);
    });
}
