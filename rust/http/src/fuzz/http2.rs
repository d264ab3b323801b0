//! A client of HTTP/2 whose frames the input chooses.
//!
//! Frames that random bytes make are refused before anything happens. So two bytes of the input choose one whole frame, of a kind
//! and a stream that mean something or nearly do. What must hold:
//! - the requests that are served whole when everything comes at once are served the same when it comes in pieces;
//! - each response is one head, then bytes, then an end, and takes no more than the windows that the client has ever opened;
//! - a response that neither side has reset arrives whole once all windows are open: no wake-up was lost.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{connect, cut, on_one_thread, say, turns};
use crate::Config;
use crate::body::ResponseBody;
use crate::protocol::PREFACE;
use crate::service::{Request, Response, ResponseFuture, service_fn};

/// Frames of one input.
const FRAMES_MAX: usize = 60;
/// Larger than the window that a connection begins with.
const LARGE_BYTES: usize = 70_000;
/// What is opened at the end: more than all responses together.
const ALL_BYTES: u32 = 10_000_000;
const WINDOW_BYTES: u64 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const PRIORITY_UPDATE: u8 = 16;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client says, as bytes, and what that allows the server.
struct Script {
    bytes: Vec<u8>,
    /// Each request's stream, and whether its end was said.
    requests: Vec<(u32, bool)>,
    reset: Vec<u32>,
    /// Credit for the connection, and for each stream beside what streams begin with.
    credit: u64,
    stream_credit: BTreeMap<u32, u64>,
    /// The largest window that streams ever began with.
    initial: u64,
}

impl Script {
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
        self.bytes.extend_from_slice(&length[1..]);
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// One of the streams that were opened, or of those that would be next.
    fn pick(&self, choice: u8) -> u32 {
        u32::from(choice) % (u32::try_from(self.requests.len()).unwrap_or(0) + 2) * 2 + 1
    }

    fn open(&mut self, choice: u8, ends: bool) {
        let number = u32::try_from(self.requests.len()).unwrap_or(0) * 2 + 1;
        // GET or POST of http://t/{kind}{number}, in HPACK without its table.
        let path = format!("/{}{number}", choice % 4);
        let mut head = vec![if ends { 0x82 } else { 0x83 }, 0x86, 0x01, 1, b't', 0x04];
        head.push(u8::try_from(path.len()).unwrap_or(0));
        head.extend_from_slice(path.as_bytes());
        let flags = END_HEADERS | (u8::from(ends) * END_STREAM);
        self.frame(HEADERS, flags, number, &head);
        self.requests.push((number, ends));
    }

    fn end(&mut self, stream: u32) {
        if let Some(request) = self.requests.iter_mut().find(|one| one.0 == stream) {
            request.1 = true;
        }
    }

    fn grant(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
        let credit = match stream {
            0 => &mut self.credit,
            _ => self.stream_credit.entry(stream).or_default(),
        };
        *credit += u64::from(bytes);
    }

    fn initial_window(&mut self, bytes: u32) {
        let setting = [&[0, 4], &bytes.to_be_bytes()[..]].concat();
        self.frame(SETTINGS, 0, 0, &setting);
        self.initial = self.initial.max(u64::from(bytes));
    }

    fn of(input: &[u8]) -> Self {
        let mut script = Self {
            bytes: PREFACE.to_vec(),
            requests: Vec::new(),
            reset: Vec::new(),
            credit: WINDOW_BYTES,
            stream_credit: BTreeMap::new(),
            initial: WINDOW_BYTES,
        };
        script.frame(SETTINGS, 0, 0, &[]);
        for two in input.chunks_exact(2).take(FRAMES_MAX) {
            let (kind, choice, value) = (two[0] % 12, two[0] / 12, two[1]);
            let stream = script.pick(choice);
            match kind {
                0 | 1 => script.open(value, true),
                2 => script.open(value, false),
                3 => {
                    let ends = value % 4 == 0;
                    script.frame(
                        DATA,
                        u8::from(ends) * END_STREAM,
                        stream,
                        &vec![7; value.into()],
                    );
                    if ends {
                        script.end(stream);
                    }
                }
                4 => script.grant(stream, u32::from(value) * 100 + 1),
                5 => script.grant(0, u32::from(value) * 1000 + 1),
                6 => script.initial_window(u32::from(value) * u32::from(value)),
                7 => script.frame(PING, 0, 0, &[value; 8]),
                8 => {
                    script.frame(RST_STREAM, 0, stream, &u32::from(value % 16).to_be_bytes());
                    script.reset.push(stream);
                }
                9 => {
                    let mut update = stream.to_be_bytes().to_vec();
                    update
                        .extend_from_slice(format!("u={}, i=?{}", value % 8, value & 1).as_bytes());
                    script.frame(PRIORITY_UPDATE, 0, 0, &update);
                }
                10 => {
                    script.frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\0\x01x\x01y");
                    script.end(stream);
                }
                _ => script.frame(value % 20, choice, stream, &[]),
            }
        }
        script.finish();
        script
    }

    /// Ends what was begun, and opens all windows.
    fn finish(&mut self) {
        for (stream, ended) in self.requests.clone() {
            if !ended && !self.reset.contains(&stream) {
                self.frame(DATA, END_STREAM, stream, &[]);
            }
        }
        self.initial_window(ALL_BYTES);
        self.grant(0, ALL_BYTES);
    }
}

/// What came back on one stream.
#[derive(Default)]
struct Answered {
    has_head: bool,
    bytes: u64,
    ended: bool,
    reset: bool,
}

/// Everything that came back.
#[derive(Default)]
struct Answers {
    streams: BTreeMap<u32, Answered>,
    /// The connection was given up.
    failed: bool,
}

impl Answers {
    fn of(mut rest: &[u8]) -> Self {
        let mut answers = Self::default();
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, stream @ ..] = *header;
            let Some((payload, next)) =
                after.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)
            else {
                break;
            };
            rest = next;
            let number = u32::from_be_bytes(stream);
            let stream = answers.streams.entry(number).or_default();
            match kind {
                HEADERS | DATA => {
                    assert!(number % 2 == 1 && !stream.ended && !stream.reset);
                    assert_eq!(stream.has_head, kind == DATA, "one head, then bytes");
                    stream.has_head = true;
                    stream.ended = flags & END_STREAM != 0;
                    if kind == DATA {
                        stream.bytes += payload.len() as u64;
                    }
                }
                RST_STREAM => stream.reset = true,
                GOAWAY => answers.failed |= payload.get(4..8) != Some(&[0; 4]),
                _ => assert!(matches!(kind, SETTINGS | PING | WINDOW_UPDATE), "{kind}"),
            }
        }
        answers
    }
}

/// Requests that were served to the end of their body, with what that was.
type Served = BTreeMap<String, usize>;

/// What is promised at the head of this file. The first byte of the input chooses the pieces.
pub(super) fn check(data: &[u8]) {
    let (size, input) = cut(data);
    let script = Script::of(input);
    let (whole, answers) = converse(&script.bytes, script.bytes.len());
    judge(&script, &answers);
    let (pieces, answers) = converse(&script.bytes, size * size.min(5));
    judge(&script, &answers);
    if answers.failed {
        // What came behind what was refused is served or not.
        return;
    }
    for (path, body) in &whole {
        let number = path.get(2..).and_then(|number| number.parse().ok());
        if !number.is_some_and(|number| script.reset.contains(&number)) {
            assert_eq!(pieces.get(path), Some(body), "{path}");
        }
    }
}

fn judge(script: &Script, answers: &Answers) {
    let bytes: u64 = answers.streams.values().map(|stream| stream.bytes).sum();
    assert!(bytes <= script.credit);
    for (number, stream) in &answers.streams {
        let credit = script.stream_credit.get(number).unwrap_or(&0);
        assert!(stream.bytes <= script.initial + credit, "{number}");
    }
    if answers.failed {
        return;
    }
    for (number, _) in &script.requests {
        let answer = answers.streams.get(number);
        let is_over = answer.is_some_and(|answer| answer.ended || answer.reset);
        assert!(
            is_over || script.reset.contains(number),
            "no end of {number}"
        );
    }
}

/// By the first digit of the path: at once, with a body, with a large one and late, or after the request's body.
fn answer(mut request: Request, served: Rc<RefCell<Served>>) -> ResponseFuture {
    let path = request.head.uri.path().to_owned();
    let response = |bytes: usize| Response::new(ResponseBody::Full(Bytes::from(vec![b'x'; bytes])));
    match path.as_bytes().get(1) {
        Some(b'0') => {
            served.borrow_mut().insert(path, 0);
            Response::default().into()
        }
        Some(b'1') => {
            served.borrow_mut().insert(path, 0);
            response(300).into()
        }
        Some(b'2') => ResponseFuture::later(async move {
            turns(2).await;
            served.borrow_mut().insert(path, 0);
            response(LARGE_BYTES)
        }),
        _ => ResponseFuture::later(async move {
            let mut bytes = 0;
            while let Some(data) = request.body.data().await {
                match data {
                    Ok(data) => bytes += data.len(),
                    Err(_) => return Response::default(),
                }
            }
            served.borrow_mut().insert(path, bytes);
            response(bytes)
        }),
    }
}

/// Says all that in pieces, and listens as long as anything comes.
fn converse(bytes: &[u8], size: usize) -> (Served, Answers) {
    on_one_thread(async {
        let served = Rc::new(RefCell::new(Served::new()));
        let handler = {
            let served = served.clone();
            service_fn(move |request| answer(request, served.clone()))
        };
        let (client, connections) = connect(handler, Config::default());
        let (mut read, mut write) = client.into_split();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let reading = {
            let heard = heard.clone();
            tokio::task::spawn_local(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    heard.borrow_mut().extend_from_slice(&buffer[..count]);
                }
            })
        };
        say(&mut write, bytes, size).await;
        let mut before = usize::MAX;
        while before != heard.borrow().len() {
            before = heard.borrow().len();
            turns(50).await;
        }
        // Before the end of the connection could make up for what was not written.
        let answers = Answers::of(&heard.borrow());
        // Or the server lingers for as long as the client may send.
        drop(write);
        connections.drain(std::time::Duration::ZERO).await;
        let _ = reading.await;
        (served.take(), answers)
    })
}
