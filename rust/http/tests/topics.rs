//! Frame routes over a board in plain memory: what is published can be read, and every refusal has its code.
use crate::common;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Write as _,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use common::{Client, Reply, TestServer, quick, run, until};
use framegate_http::{
    Config, Timeouts, edge,
    fanout::Parcel,
    ingest::{FrameSlot, IngestError, Published},
    pictures::Setting,
    topics::{
        Board, BoardFuture, Code, Dtype, Feed, Frame, FrameHead, Opened, Problem, Publisher, Seats,
        Settings, SocketLimits, TopicInfo, TopicRoutes,
        access::{Access, Guard},
        board::{Event, Participant, Schema, Watching},
        openapi::About,
    },
};
use tokio::sync::{Notify, futures::OwnedNotified};

const SLOT: u64 = 1000;

/// This machine may do everything.
fn local() -> Arc<Guard> {
    Arc::new(Guard::table(Access {
        trusts_local: true,
        ..Access::default()
    }))
}

/// Topics in plain memory. `new/...` may be created.
#[derive(Clone, Default)]
struct Memory(Rc<Shared>);

#[derive(Default)]
struct Shared {
    topics: RefCell<BTreeMap<String, Topic>>,
    full: Cell<bool>,
    abandoned: Cell<usize>,
    refused: RefCell<Vec<(Option<String>, Code)>>,
    published: Cell<u64>,
    sent: Cell<u64>,
    /// Pictures are made, and are the frame itself.
    pictures: Cell<bool>,
    /// The pool has too much to do; how often it was asked all the same.
    busy: Cell<bool>,
    asked_in_vain: Cell<u64>,
}

#[derive(Clone, Default)]
struct Topic {
    schema: Schema,
    newest: Rc<RefCell<Option<Frame>>>,
    changed: Arc<Notify>,
}

struct Slot {
    memory: Memory,
    topic: Topic,
    bytes: Vec<u8>,
    filled: usize,
    published: bool,
}

impl FrameSlot for Slot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn publish(mut self: Box<Self>, head: &FrameHead) -> Result<Published, IngestError> {
        self.published = true;
        let mut newest = self.topic.newest.borrow_mut();
        let sequence = newest.as_ref().map_or(0, |frame| frame.sequence) + 1;
        *newest = Some(Frame {
            sequence,
            published_ns: 1_500_000_000,
            head: Arc::new(head.clone()),
            payload: Bytes::copy_from_slice(&self.bytes[..self.filled]),
        });
        self.topic.changed.notify_waiters();
        Ok(Published {
            sequence,
            bytes: self.filled as u64,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.published {
            let abandoned = &self.memory.0.abandoned;
            abandoned.set(abandoned.get() + 1);
        }
    }
}

struct Of(Memory, Topic);

impl Publisher for Of {
    fn slot_bytes(&self) -> u64 {
        SLOT
    }

    fn schema(&self) -> &Schema {
        &self.1.schema
    }

    fn loan(&self, bytes: u64) -> Result<Box<dyn FrameSlot>, Problem> {
        if self.0.0.full.get() {
            return Err(Problem::new(Code::TopicFull, "all slots are held"));
        }
        Ok(Box::new(Slot {
            memory: self.0.clone(),
            topic: self.1.clone(),
            bytes: vec![0; bytes as usize],
            filled: 0,
            published: false,
        }))
    }
}

impl Feed for Of {
    fn session(&self) -> u64 {
        0xabc
    }

    fn newest(&self) -> Result<Option<Frame>, Problem> {
        Ok(self.1.newest.borrow().clone())
    }

    fn watch(&self) -> Box<dyn Watching> {
        Box::new(Waits {
            topic: self.1.clone(),
            changed: None,
        })
    }

    fn picture(&self, frame: &Frame, _setting: Setting) -> BoardFuture<Bytes> {
        let shared = &*self.0.0;
        later(if !shared.pictures.get() {
            Err(Problem::new(Code::NoPicture, "nobody makes pictures here"))
        } else if shared.busy.get() {
            shared.asked_in_vain.set(shared.asked_in_vain.get() + 1);
            let problem = Problem::new(Code::PicturesBusy, "too much to do");
            Err(problem.retry_after(Duration::from_secs(1)))
        } else {
            Ok(frame.payload.clone())
        })
    }

    fn lends(&self, _sequence: u64, _parcel: &Arc<Parcel>) {}
}

struct Waits {
    topic: Topic,
    changed: Option<Pin<Box<OwnedNotified>>>,
}

impl Watching for Waits {
    fn poll_newer(&mut self, after: u64, cx: &mut Context<'_>) -> Poll<Result<Frame, Problem>> {
        loop {
            if let Some(changed) = &mut self.changed {
                ready!(changed.as_mut().poll(cx));
            }
            let mut changed = Box::pin(self.topic.changed.clone().notified_owned());
            changed.as_mut().enable();
            self.changed = Some(changed);
            if let Some(frame) = &*self.topic.newest.borrow()
                && frame.sequence > after
            {
                self.changed = None;
                return Poll::Ready(Ok(frame.clone()));
            }
        }
    }
}

impl Memory {
    fn with(topics: &[(&str, Schema)]) -> Self {
        let memory = Self::default();
        for (name, schema) in topics {
            let topic = Topic {
                schema: schema.clone(),
                ..Topic::default()
            };
            let name = (*name).to_owned();
            memory.0.topics.borrow_mut().insert(name, topic);
        }
        memory
    }

    fn find(&self, name: &str) -> Result<Topic, Problem> {
        let topics = self.0.topics.borrow();
        let unknown = || Problem::new(Code::TopicUnknown, "there is no such topic");
        topics.get(name).cloned().ok_or_else(unknown)
    }

    fn describe(&self, name: &str) -> Result<TopicInfo, Problem> {
        let topic = self.find(name)?;
        let newest = topic.newest.borrow();
        Ok(TopicInfo {
            name: name.to_owned(),
            schema: topic.schema.clone(),
            slots: 4,
            slot_bytes: SLOT,
            sequence: newest.as_ref().map_or(0, |frame| frame.sequence),
            publishers: 1,
            subscribers: 0,
            responders: 1,
            leases: 2,
            lost: 3,
        })
    }

    fn serve(&self) -> TestServer {
        self.serve_with(edge::Settings::default())
    }

    fn serve_with(&self, edge: edge::Settings) -> TestServer {
        let settings = Settings {
            prefix: "/topics".to_owned(),
            loan_wait: Duration::from_millis(5),
            parts_max: 4,
            poll_wait_max: Duration::from_secs(10),
            seats: Seats::new(2),
            queue_max: 8,
            sockets: SocketLimits {
                write_timeout: None,
                session: framegate_http::websocket::session::Settings::default(),
            },
            about: About::default(),
        };
        let config = Config {
            timeouts: Timeouts {
                half_close: Duration::from_millis(20),
                ..quick()
            },
            edge,
            ..Config::default()
        };
        TestServer::with_service(
            config,
            Rc::new(TopicRoutes::new(Rc::new(self.clone()), local(), settings)),
        )
    }

    fn codes(&self) -> Vec<&'static str> {
        let refused = self.0.refused.borrow();
        refused.iter().map(|(_, code)| code.text()).collect()
    }
}

fn later<T: 'static>(result: Result<T, Problem>) -> BoardFuture<T> {
    Box::pin(async move { result })
}

impl Board for Memory {
    fn list(&self) -> BoardFuture<Vec<TopicInfo>> {
        let names: Vec<String> = self.0.topics.borrow().keys().cloned().collect();
        later(names.iter().map(|name| self.describe(name)).collect())
    }

    fn info(&self, topic: &str) -> BoardFuture<TopicInfo> {
        later(self.describe(topic))
    }

    fn participants(&self, topic: &str) -> BoardFuture<Vec<Participant>> {
        later(self.find(topic).map(|_| {
            vec![Participant {
                name: "a \"name\"".to_owned(),
                pid: 7,
                role: "subscriber",
                policy: Some("latest"),
                alive: true,
                frames: 1,
                lost: 2,
                lag: 3,
                holds: 4,
                oldest: Some(Duration::from_micros(5900)),
                behind: None,
            }]
        }))
    }

    fn publisher(&self, topic: &str) -> BoardFuture<Opened> {
        let mut created = false;
        if topic.starts_with("new/") && self.find(topic).is_err() {
            let mut topics = self.0.topics.borrow_mut();
            topics.insert(topic.to_owned(), Topic::default());
            created = true;
        }
        later(self.find(topic).map(|topic| Opened {
            publisher: Rc::new(Of(self.clone(), topic)),
            created,
        }))
    }

    fn feed(&self, topic: &str) -> BoardFuture<Rc<dyn Feed>> {
        later(
            self.find(topic)
                .map(|topic| Rc::new(Of(self.clone(), topic)) as Rc<dyn Feed>),
        )
    }

    fn happened(&self, event: &Event<'_>) {
        match event {
            Event::Published { bytes } => self.0.published.set(self.0.published.get() + bytes),
            Event::Sent { bytes } => self.0.sent.set(self.0.sent.get() + bytes),
            Event::Called { .. } => {}
            Event::Refused { topic, problem } => {
                let mut refused = self.0.refused.borrow_mut();
                refused.push((topic.map(str::to_owned), problem.code));
            }
        }
    }
}

fn picture() -> Schema {
    Schema::Array {
        dtype: Dtype::Uint8,
        shape: vec![Some(2), Some(3)],
    }
}

fn request(method: &str, target: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
    let is_chunked = fields.contains(&"transfer-encoding: chunked");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    if matches!(method, "POST" | "PUT") && !is_chunked {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if is_chunked {
        bytes.extend(format!("{:x}\r\n", body.len()).bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    } else {
        bytes.extend_from_slice(body);
    }
    bytes
}

async fn ask(
    client: &mut Client,
    method: &str,
    target: &str,
    fields: &[&str],
    body: &[u8],
) -> Reply {
    client.send(request(method, target, fields, body)).await;
    if method == "HEAD" {
        client.head().await.unwrap()
    } else {
        client.reply().await.unwrap()
    }
}

#[test]
fn frame_that_was_posted_can_be_read() {
    run(async {
        let memory = Memory::with(&[("camera/front", picture())]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let fields = [
            "frame-dtype: uint8",
            "frame-shape: 2, 3",
            "frame-timestamp: 1.25",
        ];
        let reply = ask(
            &mut client,
            "POST",
            "/topics/camera/front",
            &fields,
            b"abcdef",
        )
        .await;
        assert_eq!(
            (reply.status, reply.text()),
            (200, r#"{"topic":"camera/front","sequence":1,"bytes":6}"#)
        );
        assert_eq!(reply.field("frame-sequence"), Some("1"));
        let reply = ask(
            &mut client,
            "GET",
            "/topics/camera/front?view=latest",
            &[],
            b"",
        )
        .await;
        assert_eq!((reply.status, reply.text()), (200, "abcdef"));
        for (name, value) in [
            ("content-type", "application/octet-stream"),
            ("content-length", "6"),
            ("frame-dtype", "uint8"),
            ("frame-shape", "2, 3"),
            ("frame-timestamp", "1.25"),
            ("frame-sequence", "1"),
            ("frame-published", "1.500000000"),
            ("etag", "\"0000000000000abc-1\""),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(reply.field(name), Some(value), "{name}");
        }
        let head = ask(
            &mut client,
            "HEAD",
            "/topics/camera/front?view=latest",
            &[],
            b"",
        )
        .await;
        assert_eq!(head.field("content-length"), Some("6"));
        assert_eq!(head.body, b"");
        assert_eq!((memory.0.published.get(), memory.0.sent.get()), (6, 12));
        assert_eq!(memory.codes(), [""; 0]);
    });
}

#[test]
fn frame_that_the_client_has_is_304() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let latest = "/topics/a?view=latest";
        let empty = ask(&mut client, "GET", latest, &[], b"").await;
        assert_eq!((empty.status, empty.body.len()), (204, 0));
        ask(&mut client, "PUT", "/topics/a", &[], b"one").await;
        let tag = ask(&mut client, "GET", latest, &[], b"").await;
        let condition = format!("if-none-match: \"x\", {}", tag.field("etag").unwrap());
        let known = ask(&mut client, "GET", latest, &[&condition], b"").await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        assert_eq!(known.field("etag"), tag.field("etag"));
        ask(&mut client, "PUT", "/topics/a", &[], b"two").await;
        let next = ask(&mut client, "GET", latest, &[&condition], b"").await;
        assert_eq!((next.status, next.text()), (200, "two"));
    });
}

#[test]
fn later_frame_is_waited_for() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let (mut reader, mut writer) = (server.connect().await, server.connect().await);
        ask(&mut writer, "POST", "/topics/a", &[], b"one").await;
        let target = "/topics/a?view=latest&after=1";
        let short = format!("{target}&timeout=0.01");
        assert_eq!(ask(&mut reader, "GET", &short, &[], b"").await.status, 204);
        // An earlier one is there at once, and so is any of a topic that has not come so far: it was created again.
        for after in ["0", "7"] {
            let target = format!("/topics/a?view=latest&after={after}");
            assert_eq!(
                ask(&mut reader, "GET", &target, &[], b"").await.text(),
                "one"
            );
        }
        reader.send(request("GET", target, &[], b"")).await;
        until(|| memory.0.topics.borrow()["a"].waiters() > 0).await;
        ask(&mut writer, "POST", "/topics/a", &[], b"two").await;
        assert_eq!(reader.reply().await.unwrap().text(), "two");
    });
}

impl Topic {
    /// Those who hold it beside the table: requests that wait.
    fn waiters(&self) -> usize {
        Arc::strong_count(&self.changed) - 1
    }
}

#[test]
fn topics_are_listed_and_described() {
    run(async {
        let any = Schema::Array {
            dtype: Dtype::Float32,
            shape: vec![None, Some(3)],
        };
        let memory = Memory::with(&[("b", Schema::Free), ("a/x", any)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let described = r#"{"name":"a/x","dtype":"float32","shape":[null,3],"slots":4,"slot_bytes":1000,"sequence":0,"publishers":1,"subscribers":0,"responders":1,"leases":2,"lost":3}"#;
        let reply = ask(&mut client, "GET", "/topics/a/x", &[], b"").await;
        assert_eq!((reply.status, reply.text()), (200, described));
        assert_eq!(reply.field("content-type"), Some("application/json"));
        for target in ["/topics", "/topics/"] {
            let reply = ask(&mut client, "GET", target, &[], b"").await;
            let begin = format!("{{\"topics\":[{described},{{\"name\":\"b\",\"dtype\":null,");
            assert!(reply.text().starts_with(&begin), "{}", reply.text());
        }
        let target = "/topics/a/x?view=participants";
        let reply = ask(&mut client, "GET", target, &[], b"").await;
        assert_eq!(
            reply.text(),
            concat!(
                r#"{"participants":[{"name":"a \"name\"","pid":7,"role":"subscriber","policy":"latest","alive":true,"#,
                r#""frames":1,"lost":2,"lag":3,"holds":4,"oldest_ms":5,"behind_ms":null}]}"#
            )
        );
        let reply = ask(&mut client, "GET", "/topics/c?view=participants", &[], b"").await;
        assert_eq!(reply.status, 404);
    });
}

#[test]
fn browser_that_wants_a_picture_gets_the_frame_without_a_query() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let fields = ["content-type: image/png"];
        ask(&mut client, "POST", "/topics/a", &fields, b"png").await;
        for (accept, status, kind) in [
            ("accept: image/avif,image/webp,*/*;q=0.8", 200, "image/png"),
            ("accept: */*", 200, "application/json"),
            ("accept: application/json", 200, "application/json"),
            (
                "accept: application/json, image/*;q=0.5",
                200,
                "application/json",
            ),
            ("accept: image/jpeg", 406, "application/problem+json"),
        ] {
            let reply = ask(&mut client, "GET", "/topics/a", &[accept], b"").await;
            let found = (reply.status, reply.field("content-type"));
            assert_eq!(found, (status, Some(kind)), "{accept}");
        }
    });
}

/// A file of numpy with these items.
fn npy(descr: &str, shape: &str, items: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.bytes());
    file.extend(items);
    file
}

#[test]
fn file_of_numpy_becomes_its_array_and_back() {
    run(async {
        let memory = Memory::with(&[("picture", picture()), ("free", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let kind = "content-type: application/x-npy";
        let file = npy("|u1", "(2, 3)", b"abcdef");
        for fields in [&[kind][..], &[kind, CHUNKED]] {
            let reply = ask(&mut client, "POST", "/topics/picture", fields, &file).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let raw = ask(&mut client, "GET", "/topics/picture?view=latest", &[], b"").await;
        assert_eq!(
            (raw.text(), raw.field("frame-shape")),
            ("abcdef", Some("2, 3"))
        );
        for (target, fields) in [
            ("/topics/picture?view=latest&format=npy", &[][..]),
            ("/topics/picture", &["accept: application/x-npy"]),
        ] {
            let reply = ask(&mut client, "GET", target, fields, b"").await;
            assert_eq!(reply.field("content-type"), Some("application/x-npy"));
            assert_eq!(reply.field("etag"), Some("\"0000000000000abc-2-npy\""));
            assert_eq!(reply.body.len(), 128 + 6);
            assert!(reply.body.ends_with(b"abcdef"));
            assert!(
                reply
                    .body
                    .starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1'")
            );
        }
        // A frame that is no array has no such form.
        ask(&mut client, "POST", "/topics/free", &[], b"x").await;
        let reply = ask(
            &mut client,
            "GET",
            "/topics/free?view=latest&format=npy",
            &[],
            b"",
        )
        .await;
        assert_eq!(
            (reply.status, memory.codes().pop()),
            (406, Some("not-acceptable"))
        );
    });
}

#[test]
fn files_of_numpy_that_are_no_frame_are_refused() {
    run(async {
        let memory = Memory::with(&[("picture", picture()), ("free", Schema::Free)]);
        let server = memory.serve();
        let cases = [
            ("free", npy("|O", "(1,)", b"x"), "npy"),
            ("free", npy(">f4", "(1,)", b"abcd"), "npy"),
            ("free", b"\x93NUMPY\x01\x00\x76\x00{".to_vec(), "npy"),
            ("free", b"\x93NUMPY\x04\x00\x76\x00{".to_vec(), "npy"),
            (
                "free",
                b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(),
                "npy",
            ),
            ("free", b"PK".to_vec(), "npy"),
            ("free", npy("<f4", "(2,)", b"abcd"), "frame-length"),
            ("free", npy("|u1", "(1001,)", b"x"), "frame-too-large"),
            (
                "picture",
                npy("|i1", "(2, 3)", b"abcdef"),
                "schema-mismatch",
            ),
        ];
        for (topic, file, code) in cases {
            let mut client = server.connect().await;
            memory.0.refused.borrow_mut().clear();
            let target = format!("/topics/{topic}");
            let kind = ["content-type: application/x-npy"];
            let reply = ask(&mut client, "POST", &target, &kind, &file).await;
            assert_eq!(memory.codes(), [code], "{}", reply.text());
        }
        assert_eq!(memory.0.published.get(), 0);
    });
}

/// What says what a frame is has limits; each is met here from both sides.
#[test]
fn descriptions_of_frames_are_taken_up_to_their_limits() {
    let kind = |bytes: usize| format!("content-type: {:x<bytes$}", "image/");
    let shape = |numbers: usize| format!("frame-shape: {}", vec!["1"; numbers].join(","));
    let name = |bytes: usize| format!("/topics/{}", "n".repeat(bytes));
    let nested = |segments: usize| format!("/topics/{}", vec!["n"; segments].join("/"));
    let numpy = |bytes: usize| {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }";
        let mut file = b"\x93NUMPY\x02\x00".to_vec();
        file.extend((bytes as u32).to_le_bytes());
        file.extend(format!("{text:<bytes$}x").bytes());
        file
    };
    let field = |bytes: usize| {
        let text = "t".repeat(bytes);
        let field = format!("--b\r\ncontent-disposition: form-data; name=\"t\"\r\n\r\n{text}\r\n");
        format!("{field}{}--b--", file("", "x")).into_bytes()
    };
    let free = "/topics/free".to_owned();
    let cases = |over: usize| {
        [
            (&free, vec![kind(64 + over)], b"x".to_vec(), 415),
            (
                &free,
                vec![DTYPE.to_owned(), shape(8 + over)],
                b"x".to_vec(),
                400,
            ),
            (
                &free,
                vec!["content-type: application/x-npy".to_owned()],
                numpy(10_000 + over),
                400,
            ),
            (&free, vec![FORM.to_owned()], field(65_536 + over), 400),
        ]
        .map(|(target, fields, body, status)| (target.clone(), fields, body, status))
    };
    let names = |over: usize| [name(128 + over), nested(8 + over)];
    run(async {
        let memory = Memory::with(&[("free", Schema::Free)]);
        let server = memory.serve();
        for over in [0, 1] {
            for (target, fields, body, refused) in cases(over) {
                let mut client = server.connect().await;
                let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                let reply = ask(&mut client, "POST", &target, &fields, &body).await;
                let expected = if over == 0 { 200 } else { refused };
                assert_eq!(reply.status, expected, "{fields:?} {}", reply.text());
            }
            for target in names(over) {
                let mut client = server.connect().await;
                let reply = ask(&mut client, "GET", &target, &[], b"").await;
                // There is no such topic, but there may be.
                assert_eq!(reply.status, if over == 0 { 404 } else { 400 }, "{target}");
            }
        }
        assert_eq!(memory.0.published.get(), 4);
    });
}

#[test]
fn picture_is_kept_and_its_size_goes_with_it() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let kind = "content-type: image/gif";
        for (file, size) in [
            (&b"GIF89a\x80\x02\xe0\x01"[..], Some((640, 480))),
            (b"x", None),
        ] {
            ask(&mut client, "POST", "/topics/a", &[kind], file).await;
            let newest = memory.find("a").unwrap().newest.borrow().clone().unwrap();
            assert_eq!(newest.head.content_type.as_deref(), Some("image/gif"));
            assert_eq!(newest.head.picture, size);
        }
    });
}

#[test]
fn topic_is_created_where_the_board_allows_it() {
    run(async {
        let memory = Memory::default();
        let server = memory.serve();
        let mut client = server.connect().await;
        for (topic, status) in [("new/a", 201), ("new/a", 200), ("other", 404)] {
            let reply = ask(&mut client, "POST", &format!("/topics/{topic}"), &[], b"x").await;
            assert_eq!(reply.status, status, "{topic}");
        }
        // Reading creates nothing.
        let reply = ask(&mut client, "GET", "/topics/new/b?view=latest", &[], b"").await;
        assert_eq!(reply.status, 404);
    });
}

/// Method, target, fields and body; status and code.
type Case = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [u8],
    u16,
    &'static str,
);

const DTYPE: &str = "frame-dtype: uint8";
const SHAPE: &str = "frame-shape: 2, 3";
const CHUNKED: &str = "transfer-encoding: chunked";
static LARGE: [u8; SLOT as usize + 1] = [b'x'; SLOT as usize + 1];

static CASES: &[Case] = &[
    ("GET", "/topics/none", &[], b"", 404, "topic-unknown"),
    ("POST", "/topics/none", &[], b"x", 404, "topic-unknown"),
    ("GET", "/topics/.a", &[], b"", 400, "topic-name"),
    ("GET", "/topics/a..b", &[], b"", 400, "topic-name"),
    ("GET", "/topics/a//b", &[], b"", 400, "topic-name"),
    ("GET", "/topics/%61", &[], b"", 400, "topic-name"),
    (
        "GET",
        "/topics/a/b/c/d/e/f/g/h/i",
        &[],
        b"",
        400,
        "topic-name",
    ),
    (
        "DELETE",
        "/topics/free",
        &[],
        b"",
        405,
        "method-not-allowed",
    ),
    ("POST", "/topics", &[], b"x", 405, "method-not-allowed"),
    ("GET", "/topics/free?view=x", &[], b"", 400, "query"),
    ("GET", "/topics/free?after=-1", &[], b"", 400, "query"),
    (
        "GET",
        "/topics/free?after=1&after=1",
        &[],
        b"",
        400,
        "query",
    ),
    ("GET", "/topics/free?timeout=inf", &[], b"", 400, "query"),
    ("GET", "/topics/free?timeout=1e3", &[], b"", 400, "query"),
    ("POST", "/topics/free", &[DTYPE], b"x", 400, "frame-head"),
    ("POST", "/topics/free", &[SHAPE], b"x", 400, "frame-head"),
    (
        "POST",
        "/topics/free",
        &["frame-dtype: u8", SHAPE],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, "frame-shape: 2,"],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, "frame-shape: +2"],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, "frame-shape: 1,1,1,1,1,1,1,1,1"],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, "frame-shape: 4294967296,4294967296"],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, DTYPE, SHAPE],
        b"abcdef",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &["frame-timestamp: nan"],
        b"x",
        400,
        "frame-head",
    ),
    (
        "POST",
        "/topics/free",
        &["content-encoding: gzip"],
        b"x",
        415,
        "unsupported-type",
    ),
    (
        "POST",
        "/topics/free",
        &["content-type: x"],
        b"x",
        415,
        "unsupported-type",
    ),
    (
        "POST",
        "/topics/picture",
        &["content-type: image/png"],
        b"x",
        415,
        "unsupported-type",
    ),
    ("POST", "/topics/free", &[], &LARGE, 413, "frame-too-large"),
    (
        "POST",
        "/topics/free",
        &[CHUNKED],
        &LARGE,
        413,
        "frame-too-large",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, "frame-shape: 1001"],
        b"x",
        413,
        "frame-too-large",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, SHAPE],
        b"abcde",
        400,
        "frame-length",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, SHAPE],
        b"abcdefg",
        400,
        "frame-length",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, SHAPE, CHUNKED],
        b"abcde",
        400,
        "frame-length",
    ),
    (
        "POST",
        "/topics/free",
        &[DTYPE, SHAPE, CHUNKED],
        b"abcdefg",
        400,
        "frame-length",
    ),
    (
        "POST",
        "/topics/picture",
        &[],
        b"abcde",
        400,
        "frame-length",
    ),
    (
        "POST",
        "/topics/picture",
        &["frame-dtype: int8", SHAPE],
        b"abcdef",
        422,
        "schema-mismatch",
    ),
    (
        "POST",
        "/topics/picture",
        &[DTYPE, "frame-shape: 3, 2"],
        b"abcdef",
        422,
        "schema-mismatch",
    ),
    (
        "POST",
        "/topics/picture",
        &[DTYPE, "frame-shape: 6"],
        b"abcdef",
        422,
        "schema-mismatch",
    ),
];

#[test]
fn every_refusal_has_its_status_and_code_and_is_told_once() {
    run(async {
        let memory = Memory::with(&[("free", Schema::Free), ("picture", picture())]);
        let server = memory.serve();
        for (method, target, fields, body, status, code) in CASES {
            let mut client = server.connect().await;
            memory.0.refused.borrow_mut().clear();
            let reply = ask(&mut client, method, target, fields, body).await;
            let context = format!("{method} {target} {fields:?}: {}", reply.text());
            assert_eq!(reply.status, *status, "{context}");
            assert_eq!(
                reply.field("content-type"),
                Some("application/problem+json"),
                "{context}"
            );
            let kind = format!("\"type\":\"urn:framegate:problem:{code}\"");
            assert!(reply.text().contains(&kind), "{context}");
            assert!(
                reply
                    .text()
                    .contains(&format!("\"status\":{status},\"code\":\"{code}\"")),
                "{context}"
            );
            assert_eq!(memory.codes(), [*code], "{context}");
        }
        assert_eq!(memory.0.published.get(), 0);
    });
}

#[test]
fn full_topic_is_waited_for_and_then_503_with_a_time_to_come_again() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        memory.0.full.set(true);
        let server = memory.serve();
        let mut client = server.connect().await;
        let reply = ask(&mut client, "POST", "/topics/a", &[], b"x").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.field("retry-after"), Some("1"));
        assert_eq!(memory.codes(), ["topic-full"]);
        memory.0.full.set(false);
        assert_eq!(
            ask(&mut client, "POST", "/topics/a", &[], b"x")
                .await
                .status,
            200
        );
    });
}

#[test]
fn client_that_leaves_in_mid_body_publishes_nothing_and_is_told_of_once() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let whole = request("POST", "/topics/a", &[], &[b'x'; 600]);
        client.send(&whole[..whole.len() - 300]).await;
        drop(client);
        until(|| memory.0.abandoned.get() == 1).await;
        until(|| !memory.codes().is_empty()).await;
        assert_eq!(memory.codes(), ["body-incomplete"]);
        assert!(memory.0.topics.borrow()["a"].newest.borrow().is_none());
    });
}

#[test]
fn proxied_requests_are_refused() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve_with(edge::Settings {
            keeps_claims: true,
            ..edge::Settings::default()
        });
        let mut client = server.connect().await;
        for (target, field) in [
            ("/topics/a", "x-forwarded-for: 1.2.3.4"),
            ("/topics", "forwarded: for=1.2.3.4"),
            ("/topics/none", "via: 1.1 x"),
        ] {
            let reply = ask(&mut client, "GET", target, &[field], b"").await;
            assert_eq!(reply.status, 403, "{target}");
        }
        assert_eq!(memory.codes(), ["forbidden"; 3]);
    });
}

const FORM: &str = "content-type: multipart/form-data; boundary=b";
const STREAM: &str = "content-type: multipart/x-mixed-replace; boundary=b";

/// A part of a form that is a file.
fn file(fields: &str, bytes: &str) -> String {
    format!(
        "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"x\"\r\n{fields}\r\n{bytes}\r\n"
    )
}

#[test]
fn each_file_of_a_form_is_a_frame() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let array = file(
            "frame-dtype: uint8\r\nframe-shape: 2, 3\r\nframe-timestamp: 1.5\r\n",
            "abcdef",
        );
        let body = [
            "--b\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nno file\r\n",
            &file("content-type: image/png\r\n", "png"),
            "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n\r\n",
            &array,
            "--b--\r\n",
        ]
        .concat();
        for fields in [&[FORM][..], &[FORM, CHUNKED]] {
            let mut client = server.connect().await;
            let reply = ask(&mut client, "POST", "/topics/a", fields, body.as_bytes()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let newest = memory.find("a").unwrap().newest.borrow().clone().unwrap();
            let sequence = newest.sequence;
            assert_eq!(
                reply.text(),
                format!(
                    r#"{{"topic":"a","frames":2,"bytes":9,"sequences":[{},{sequence}]}}"#,
                    sequence - 1
                )
            );
            assert_eq!(reply.field("frame-sequence"), Some(&*sequence.to_string()));
            assert_eq!(newest.payload, "abcdef");
            assert_eq!(newest.head.array.as_ref().unwrap().shape(), [2, 3]);
            assert_eq!(newest.head.timestamp, Some(1.5));
            // The connection goes on.
            assert_eq!(
                ask(&mut client, "GET", "/topics/a", &[], b"").await.status,
                200
            );
        }
        assert_eq!(memory.codes(), [""; 0]);
    });
}

#[test]
fn part_may_be_as_large_as_a_slot_and_no_larger() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        for (bytes, status) in [(SLOT, 200), (SLOT + 1, 413)] {
            for (kind, fields) in [
                (FORM, String::new()),
                (STREAM, String::new()),
                (STREAM, format!("content-length: {bytes}\r\n")),
            ] {
                let mut client = server.connect().await;
                let part = file(&fields, &"x".repeat(bytes as usize));
                let body = format!("{part}--b--\r\n");
                let reply = ask(&mut client, "PUT", "/topics/a", &[kind], body.as_bytes()).await;
                assert_eq!(reply.status, status, "{bytes} {}", reply.text());
            }
        }
        assert_eq!(memory.0.published.get(), 3 * SLOT);
        assert_eq!(memory.codes(), ["frame-too-large"; 3]);
    });
}

#[test]
fn parts_of_a_form_are_counted_and_those_of_a_stream_are_not() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        for (kind, parts, status) in [(FORM, 4, 200), (FORM, 5, 400), (STREAM, 100, 200)] {
            let mut client = server.connect().await;
            let body = format!("{}--b--", file("", "x").repeat(parts));
            let reply = ask(&mut client, "POST", "/topics/a", &[kind], body.as_bytes()).await;
            assert_eq!(reply.status, status, "{}", reply.text());
        }
        // Those before the one too many are published, and so says the answer.
        assert_eq!(memory.0.published.get(), 4 + 4 + 100);
        assert_eq!(memory.codes(), ["multipart"]);
    });
}

#[test]
fn parts_of_a_stream_are_published_as_they_end() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let mut client = server.connect().await;
        let head =
            format!("POST /topics/a HTTP/1.1\r\nhost: localhost\r\n{STREAM}\r\n{CHUNKED}\r\n\r\n");
        client.send(head).await;
        let newest = || {
            memory
                .find("a")
                .unwrap()
                .newest
                .borrow()
                .as_ref()
                .map(|frame| frame.payload.clone())
        };
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        client
            .send(chunk("--b\r\ncontent-length: 3\r\n\r\none"))
            .await;
        until(|| newest().is_some_and(|payload| payload == "one")).await;
        client.send(chunk("\r\n--b\r\n\r\ntwo\r\n--b\r\n")).await;
        until(|| newest().is_some_and(|payload| payload == "two")).await;
        // A topic that is full loses one frame of a camera, not the camera.
        memory.0.full.set(true);
        client.send(chunk("\r\nlost\r\n--b\r\n")).await;
        until(|| memory.codes() == ["topic-full"]).await;
        memory.0.full.set(false);
        client.send(chunk("\r\nlast\r\n--b\r\n")).await;
        client.send("0\r\n\r\n").await;
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (
                200,
                r#"{"topic":"a","frames":3,"bytes":10,"dropped":1,"sequences":[1,2,3]}"#
            )
        );
        assert_eq!(newest().unwrap(), "last");
    });
}

#[test]
fn stream_that_is_cut_publishes_its_whole_parts() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free)]);
        let server = memory.serve();
        let parts = "--b\r\n\r\nwhole\r\n--b\r\n\r\ncut";
        // Its body ends, or its client does.
        let mut client = server.connect().await;
        let reply = ask(
            &mut client,
            "POST",
            "/topics/a",
            &[STREAM],
            parts.as_bytes(),
        )
        .await;
        assert_eq!(reply.status, 400);
        assert!(
            reply.text().contains("part 2 of the body: "),
            "{}",
            reply.text()
        );
        assert!(
            reply.text().contains("; the frame before it was published"),
            "{}",
            reply.text()
        );
        let whole = request(
            "POST",
            "/topics/a",
            &[STREAM],
            &[parts.as_bytes(), b"xxx"].concat(),
        );
        client = server.connect().await;
        client.send(&whole[..whole.len() - 3]).await;
        until(|| memory.0.published.get() == 10).await;
        drop(client);
        until(|| memory.codes().len() == 2).await;
        assert_eq!(memory.codes(), ["body-incomplete"; 2]);
        until(|| memory.0.abandoned.get() == 2).await;
        let newest = memory.find("a").unwrap().newest.borrow().clone().unwrap();
        assert_eq!((newest.sequence, &*newest.payload), (2, &b"whole"[..]));
    });
}

/// Topic, type and body; status and code.
fn bad_parts() -> Vec<(&'static str, &'static str, String, u16, &'static str)> {
    let plain = file("", "x");
    vec![
        (
            "a",
            "content-type: multipart/mixed",
            plain.clone(),
            400,
            "multipart",
        ),
        (
            "a",
            "content-type: multipart/related; boundary=b",
            plain.clone(),
            415,
            "unsupported-type",
        ),
        ("none", FORM, plain.clone(), 404, "topic-unknown"),
        ("a", FORM, "--b--".to_owned(), 400, "multipart"),
        ("a", FORM, "--b\r\n\r\nx\r\n".to_owned(), 400, "multipart"),
        (
            "a",
            FORM,
            "--b\r\ncontent-disposition: form-data; name=\"\r\n\r\nx".to_owned(),
            400,
            "multipart",
        ),
        ("a", FORM, plain.clone(), 400, "body-incomplete"),
        (
            "a",
            FORM,
            file("content-transfer-encoding: base64\r\n", "eA=="),
            415,
            "unsupported-type",
        ),
        (
            "a",
            FORM,
            file("content-encoding: gzip\r\n", "x"),
            415,
            "unsupported-type",
        ),
        (
            "a",
            STREAM,
            file("content-type: multipart/mixed; boundary=c\r\n", "x"),
            415,
            "unsupported-type",
        ),
        (
            "a",
            STREAM,
            file("content-type: application/x-npy\r\n", "x"),
            400,
            "npy",
        ),
        (
            "a",
            STREAM,
            "--b\r\ncontent-length: 1\r\n\r\nab\r\n--b--".to_owned(),
            400,
            "multipart",
        ),
        (
            "a",
            STREAM,
            "--b\r\nno field\r\n\r\n".to_owned(),
            400,
            "multipart",
        ),
        ("picture", FORM, file("", "x"), 400, "frame-length"),
        (
            "picture",
            FORM,
            file("frame-dtype: int8\r\nframe-shape: 2, 3\r\n", "abcdef"),
            422,
            "schema-mismatch",
        ),
    ]
}

#[test]
fn multipart_bodies_that_are_no_frames_are_refused() {
    run(async {
        let memory = Memory::with(&[("a", Schema::Free), ("picture", picture())]);
        let server = memory.serve();
        let plain = file("", "x");
        for (topic, kind, part, status, code) in bad_parts() {
            let mut client = server.connect().await;
            memory.0.refused.borrow_mut().clear();
            let is_whole = code != "body-incomplete" && !part.ends_with("--");
            let body = if is_whole {
                format!("{part}--b--")
            } else {
                part
            };
            let target = format!("/topics/{topic}");
            let before = memory.0.published.get();
            let reply = ask(&mut client, "POST", &target, &[kind], body.as_bytes()).await;
            assert_eq!(reply.status, status, "{kind} {body} {}", reply.text());
            assert_eq!(memory.codes(), [code], "{kind} {body}");
            let published = memory.0.published.get() - before;
            // A file before an end that is missing was whole, and so was one that its own length ended.
            assert_eq!(published, u64::from(is_one_whole(&body)), "{body}");
        }
        // What is said of frames is said by their parts.
        let mut client = server.connect().await;
        let body = format!("{plain}--b--");
        let reply = ask(
            &mut client,
            "POST",
            "/topics/a",
            &[FORM, DTYPE, SHAPE],
            body.as_bytes(),
        )
        .await;
        assert_eq!(reply.status, 400);
        assert_eq!(memory.codes().pop(), Some("frame-head"));
    });
}

fn is_one_whole(body: &str) -> bool {
    body.contains("content-length: 1")
}

#[test]
fn viewer_passes_over_what_an_overloaded_pool_does_not_make() {
    run(async {
        let memory = Memory::with(&[("cam", picture())]);
        memory.0.pictures.set(true);
        let server = memory.serve();
        let mut camera = server.connect().await;
        let shown = async |camera: &mut Client, frame: &[u8]| {
            let reply = ask(camera, "POST", "/topics/cam", &[], frame).await;
            assert_eq!(reply.status, 200);
        };
        shown(&mut camera, b"first!").await;
        let mut viewer = server.connect().await;
        viewer
            .send(request("GET", "/topics/cam?view=mjpeg", &[], b""))
            .await;
        assert_eq!(viewer.head().await.unwrap().status, 200);
        let mut seen = Vec::new();
        let until_seen = async |viewer: &mut Client, seen: &mut Vec<u8>, what: &[u8]| {
            while !seen.windows(what.len()).any(|window| window == what) {
                seen.extend(viewer.exactly(1).await.unwrap());
            }
        };
        until_seen(&mut viewer, &mut seen, b"first!").await;
        memory.0.busy.set(true);
        shown(&mut camera, b"second").await;
        until(|| memory.0.asked_in_vain.get() > 0).await;
        // Who asks for one picture is told, and when to come again; that is counted.
        let mut other = server.connect().await;
        let target = "/topics/cam?view=latest&format=jpeg";
        let reply = ask(&mut other, "GET", target, &[], b"").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.field("retry-after"), Some("1"));
        assert_eq!(memory.codes(), ["pictures-busy"]);
        memory.0.busy.set(false);
        shown(&mut camera, b"third!").await;
        until_seen(&mut viewer, &mut seen, b"third!").await;
        assert!(!seen.windows(6).any(|window| window == b"second"));
        assert_eq!(
            memory.codes(),
            ["pictures-busy"],
            "the viewer was refused nothing"
        );
        let reply = ask(&mut other, "GET", target, &[], b"").await;
        assert_eq!((reply.status, reply.text()), (200, "third!"));
    });
}
