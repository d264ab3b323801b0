//! What must hold for any bytes, of every parser of this crate.
//!
//! Each target takes bytes of a stranger and panics when a property is broken. They are driven in two ways: by the tests below, with
//! mutations of the seeds in `fuzz/corpus` that are the same each time, and by libFuzzer (`task fuzz:http`), which follows coverage.
//!
//! The property that finds most is that a stream means the same however it is cut: parsers that keep state between two reads
//! differ exactly there. The first byte of the input chooses the cut.

#![allow(clippy::missing_panics_doc, reason = "panics are what a target is for")]

use std::{cell::RefCell, fmt::Write, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{UnixStream, unix::OwnedWriteHalf},
};

use crate::accept_encoding::{Accepted, Coding};
use crate::body::Body;
use crate::edge::{forwarded, proxy_protocol};
use crate::error::Error;
use crate::framing::{Framing, HeadMarks};
use crate::h1::is_host;
use crate::h1_io::Socket;
use crate::h2::tap;
use crate::otlp::client::judge_anything;
use crate::pictures::{self, Codecs, Setting, Source};
use crate::protocol::PREFACE;
use crate::service::{
    Address, ConnectionInfo, Entry, Response, ResponseFuture, Service, service_fn,
};
use crate::static_files::{
    conditions,
    path::{is_like, name_of},
    range::{RANGES_MAX, Wanted, wanted},
};
use crate::tls::{certificate, pem};
use crate::trace::{SpanContext, context::is_state};
use crate::websocket::{
    Failure, Kind, code,
    deflate::{Agreement, Compressor, Inflation},
    extension::deflate_offers,
    frame::{Decoder, Part},
    handshake::Offer,
    message::{MessageBuffer, MessageSink},
};
use crate::{Config, Connections, Limits, Server};

mod http2;

/// Takes bytes of a stranger; panics when a property is broken.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("framing", framing),
    ("frames", frames),
    ("deflate", deflate),
    ("handshake", handshake),
    ("hosts", hosts),
    ("requests", requests),
    ("direct", direct),
    ("ranges", ranges),
    ("accept_encoding", accept_encoding),
    ("static_paths", static_paths),
    ("forwarded", forwarded),
    ("proxy", proxy),
    ("http2", http2::check),
    ("tap", tap),
    ("conditions", conditions),
    ("pem", pem),
    ("certificates", certificates),
    ("pictures", pictures),
    ("npy", npy),
    ("picture_size", picture_size),
    ("multipart", multipart),
    ("forms", forms),
    ("trace_context", trace_context),
    ("collector", collector),
];

/// What the tap sees between the crate and the socket is the same however it is cut.
pub fn tap(data: &[u8]) {
    let (size, stream) = cut(data);
    tap::check(stream, size);
}

/// A file's own tag decides, whatever else a client says that it has.
pub fn conditions(data: &[u8]) {
    conditions::check(data);
}

/// Sections of a PEM file are where they are said to be.
pub fn pem(data: &[u8]) {
    pem::check(data);
}

/// Whatever a certificate of a client is made of, it is read or not.
pub fn certificates(data: &[u8]) {
    certificate::check(data);
}

/// Splits off the byte that chooses the cut.
fn cut(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((size, rest)) => (1 + usize::from(*size) % 40, rest),
        None => (1, data),
    }
}

/// Pictures that a stranger sends are within the limit when they are decoded, have the bytes that their size demands, and can be shown.
pub fn pictures(data: &[u8]) {
    use pictures::Coding;
    const PIXELS_MAX: u64 = 1 << 14;
    thread_local! {
        /// What one picture leaves behind must not harm the next.
        static CODECS: RefCell<Codecs> = RefCell::default();
    }
    CODECS.with_borrow_mut(|codecs| {
        for coding in [Coding::Jpeg, Coding::Png] {
            let Ok(pixels) = pictures::decode(codecs, coding, data, PIXELS_MAX) else {
                continue;
            };
            let (width, height) = pixels.size();
            assert!(u64::from(width) * u64::from(height) <= PIXELS_MAX);
            let bytes = pixels.format().frame_bytes(width, height);
            assert_eq!(pixels.data().len() as u64, bytes);
            let source = Source::Pixels(pixels);
            for (coding, query) in [(Coding::Jpeg, "width=5"), (Coding::Png, "")] {
                let setting = Setting::from_query(coding, query).expect("a good query");
                let made = pictures::make(codecs, &source, &setting, PIXELS_MAX).expect("pixels");
                let shown = pictures::decode(codecs, coding, &made, PIXELS_MAX).expect("our own");
                assert_eq!(shown.size(), setting.fit(width, height));
            }
        }
    });
}

/// Whatever the head of a `.npy` file says: what is taken has a size, and is what its own head would say.
pub fn npy(data: &[u8]) {
    if let Ok(array) = crate::topics::npy::parse(data) {
        let items: u128 = array
            .shape()
            .iter()
            .map(|&length| u128::from(length))
            .product();
        let bytes = items * u128::from(array.dtype().item_bytes());
        assert_eq!(bytes, u128::from(array.bytes()));
        let file = crate::topics::npy::write(&array).expect("numpy has the type that it wrote");
        assert_eq!(crate::topics::npy::parse(&file[10..]), Ok(array));
    }
}

/// Whatever a multipart body holds: its parts are the same however it is cut, are pieces of it in their order, and end before a
/// delimiter. The first two bytes choose the cut and the room.
pub fn multipart(data: &[u8]) {
    use crate::topics::multipart::{Type, parameters, whole::read};
    let (size, data) = cut(data);
    let (room, body) = cut(data);
    for is_form in [false, true] {
        let kind = Type {
            is_form,
            boundary: b"b".to_vec(),
        };
        let parts = read(body, &kind, size, room);
        assert_eq!(parts, read(body, &kind, usize::MAX, 1 << 16));
        let mut rest = body;
        for (fields, bytes) in parts.0 {
            let begin = memchr::memmem::find(rest, &bytes).expect("a part is of the body");
            rest = &rest[begin + bytes.len()..];
            if is_form || !fields.contains_key("content-length") {
                assert!(memchr::memmem::find(&bytes, b"\r\n--b").is_none());
            }
            for value in fields.values() {
                parameters(value.as_bytes());
            }
        }
    }
}

/// Whatever a form holds: its parts are the same however it is cut, and a form that is refused is refused in every cut, with the same
/// words. The first byte chooses the cut.
pub fn forms(data: &[u8]) {
    use crate::form::{Event, Form};
    let (size, body) = cut(data);
    let read = |size: usize| {
        let mut form = Form::new(b"multipart/form-data; boundary=b", 3)?;
        let mut parts: Vec<(Event, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for piece in body.chunks(size).chain([&b""[..]]) {
            for event in form.feed(piece)? {
                match event {
                    Event::Data(data) => {
                        assert!(is_open && !data.is_empty());
                        let (_, bytes) = parts.last_mut().expect("a part is open");
                        bytes.extend_from_slice(&data);
                    }
                    Event::End => {
                        assert!(is_open);
                        is_open = false;
                    }
                    part @ Event::Part { .. } => {
                        assert!(!is_open);
                        is_open = true;
                        parts.push((part, Vec::new()));
                    }
                }
            }
        }
        assert!(!is_open && parts.len() <= 3);
        assert!(form.feed(b"more")?.is_empty());
        Ok::<_, String>(parts)
    };
    let parts = read(size);
    assert_eq!(parts, read(usize::MAX));
    for (_, bytes) in parts.unwrap_or_default() {
        assert!(memchr::memmem::find(&bytes, b"\r\n--b").is_none());
    }
}

/// Whatever a picture says: it has a size, or says none.
pub fn picture_size(data: &[u8]) {
    if let Some((width, height)) = crate::topics::picture_size::size(data) {
        assert!(width > 0 && height > 0);
    }
}

/// Whatever `Range` says: parts are of the file, apart from each other, and not many. The first two bytes are the size.
pub fn ranges(data: &[u8]) {
    let Some((size, value)) = data.split_at_checked(2) else {
        return;
    };
    let size = u64::from(size[0]) << 8 | u64::from(size[1]);
    if let Wanted::Parts(parts) = wanted(value, size) {
        assert!(!parts.is_empty() && parts.len() <= RANGES_MAX);
        assert!(
            parts
                .iter()
                .all(|part| part.start < part.end && part.end <= size)
        );
        let mut sorted = parts;
        sorted.sort_by_key(|part| part.start);
        assert!(sorted.windows(2).all(|two| two[0].end < two[1].start));
    }
}

/// Whatever `traceparent` and `tracestate` say: a context that is taken is one, and is written as it came; vendors are named once.
pub fn trace_context(data: &[u8]) {
    if let Some(context) = SpanContext::parse(data) {
        assert!(context.trace_id != [0; 16] && context.span_id != [0; 8]);
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        let written = format!("-{}-{}-", hex(&context.trace_id), hex(&context.span_id));
        assert_eq!(&data[2..53], written.as_bytes());
        assert!(data[0..2] != *b"ff" && (data.len() == 55 || data[55] == b'-'));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && is_state(text)
    {
        assert!(
            text.len() <= 512
                && text
                    .bytes()
                    .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        );
        assert!(!is_state(&format!("{text},{text}")));
    }
}

/// Whatever a collector answers, it is judged.
pub fn collector(data: &[u8]) {
    judge_anything(data);
}

/// Whatever `Accept-Encoding` says: each coding is chosen once at most, one that is refused at the end of the field never, and it
/// makes no difference in which of two fields an item stands.
pub fn accept_encoding(data: &[u8]) {
    let read = |values: &[&[u8]]| {
        let mut accepted = Accepted::default();
        for value in values {
            accepted.read(value);
        }
        accepted
    };
    let all = read(&[data]);
    let codings: Vec<_> = all.codings().collect();
    assert!(codings.len() <= Coding::ALL.len());
    for (index, coding) in codings.iter().enumerate() {
        assert!(!codings[..index].contains(coding));
        let refused = format!(", {};q=0", coding.name());
        let without = read(&[data, refused.as_bytes()]);
        assert!(without.codings().all(|other| other != *coding));
    }
    if let Some(comma) = data.iter().position(|&byte| byte == b',') {
        assert_eq!(read(&[&data[..comma], &data[comma + 1..]]), all);
    }
}

/// Whatever a path says: the name stays below the directory, shows nothing that is hidden, and is the only one of what it
/// names. And a pattern always comes to an end.
pub fn static_paths(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, path) = text.split_once('?').unwrap_or(("*", &*text));
    let Ok(name) = name_of(path) else { return };
    let bytes = &name.bytes;
    assert!(!bytes.contains(&0) && !bytes.contains(&b'\\'));
    if !bytes.is_empty() {
        for segment in bytes.split(|&byte| byte == b'/') {
            assert!(!segment.is_empty() && segment[0] != b'.');
        }
    }
    let mut written = String::new();
    for byte in bytes {
        if *byte == b'/' {
            written.push('/');
        } else {
            let _ = write!(written, "%{byte:02x}");
        }
    }
    let slash = if name.is_directory && !bytes.is_empty() {
        "/"
    } else {
        ""
    };
    let again = match (bytes.is_empty(), name.is_directory) {
        (true, false) => String::new(),
        _ => format!("/{written}{slash}"),
    };
    assert_eq!(name_of(&again), Ok(name.clone()));
    let _ = is_like(bytes, pattern.as_bytes());
    assert!(is_like(bytes, b"*"));
}

/// The observer of framing sees the same heads and ends in the same place however its input is cut, and counts bytes of a
/// body right when they are read past it.
pub fn framing(data: &[u8]) {
    let (size, stream) = cut(data);
    let whole = follow(stream, stream.len().max(1), false);
    assert_eq!(follow(stream, size, false), whole);
    assert_eq!(follow(stream, size, true), whole);
}

/// What a client sends through a trusted proxy never makes it somebody else.
pub fn forwarded(data: &[u8]) {
    forwarded::check(data);
}

/// A PROXY header means the same however it is cut, and is never read beyond its end.
pub fn proxy(data: &[u8]) {
    let (size, header) = cut(data);
    proxy_protocol::check(header, size);
}

type Followed = (Vec<HeadMarks>, Option<usize>, bool, bool, u64);

/// Follows a stream in pieces. With `past`, bytes of bodies of known length are only counted.
fn follow(stream: &[u8], size: usize, past: bool) -> Followed {
    let mut framing = Framing::default();
    let mut marks = Vec::new();
    let mut error = None;
    let mut read = 0;
    while read < stream.len() {
        let mut piece = &stream[read..stream.len().min(read + size)];
        let left = framing.body_left();
        if past && left > 0 {
            let taken = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            assert_eq!(framing.read_body(taken as u64), left - taken as u64);
            piece = &piece[..taken];
        } else if let Err(bare) = framing.read(piece) {
            assert!(bare.bytes_before <= piece.len());
            // The line may have begun in an earlier piece; the place of its end is the same.
            let line = stream[read + bare.bytes_before..]
                .iter()
                .position(|&byte| byte == b'\n');
            error = line.map(|line| read + bare.bytes_before + line);
            break;
        }
        read += piece.len();
    }
    for _ in 0..=stream.len() / 4 {
        marks.push(framing.next_head());
    }
    (
        marks,
        error,
        framing.is_in_head(),
        framing.is_in_body(),
        framing.body_left(),
    )
}

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Control(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(u16),
}

/// The decoder of WebSocket frames gives the same messages however its input is cut.
pub fn frames(data: &[u8]) {
    let (size, stream) = cut(data);
    assert_eq!(decode(stream, size), decode(stream, stream.len().max(1)));
}

fn decode(stream: &[u8], size: usize) -> Vec<Seen> {
    const LIMIT: u64 = 10_000;
    let mut decoder = Decoder::new(LIMIT);
    let mut input = Vec::new();
    let mut message = Vec::new();
    let mut seen = Vec::new();
    for piece in stream.chunks(size) {
        input.extend_from_slice(piece);
        let mut taken = std::mem::take(&mut input);
        let mut rest = &mut taken[..];
        loop {
            match decoder.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(Part::Whole { payload, .. })) => {
                    assert!(payload.len() as u64 <= LIMIT);
                    seen.push(Seen::Message(payload.to_vec()));
                }
                Ok(Some(Part::Begin { .. })) => message.clear(),
                Ok(Some(Part::Data(data))) => {
                    message.extend_from_slice(data);
                    assert!(message.len() as u64 <= LIMIT);
                }
                Ok(Some(Part::End)) => seen.push(Seen::Message(std::mem::take(&mut message))),
                Ok(Some(Part::Ping(data) | Part::Pong(data))) => {
                    assert!(data.len() <= 125);
                    seen.push(Seen::Control(data.to_vec()));
                }
                Ok(Some(Part::Close(close))) => {
                    seen.push(Seen::Close(
                        close.map(|(code, reason)| (code, reason.to_owned())),
                    ));
                    return seen;
                }
                Err(failure) => {
                    seen.push(Seen::Failed(failure.code));
                    return seen;
                }
            }
        }
        input = rest.to_vec();
    }
    seen
}

/// Compressed messages are the same however their bytes are cut, never larger than the limit, and text is UTF-8; what is sent
/// compressed is smaller and comes out as it was.
pub fn deflate(data: &[u8]) {
    let (size, stream) = cut(data);
    for takeover in [false, true] {
        let agreement = Agreement {
            own_window_bits: 9,
            own_takeover: takeover,
            peer_takeover: takeover,
        };
        let whole = inflate(agreement, stream, stream.len().max(1), true);
        assert_eq!(inflate(agreement, stream, size, true), whole);

        let mut compressor = Compressor::new(agreement, 1, None);
        let (mut wire, mut plain) = (Vec::new(), 0);
        let mut sent = Vec::new();
        for piece in stream.chunks(size * 30).chain([stream]) {
            let before = wire.len();
            compressor.encode(&mut wire, Kind::Binary, piece);
            assert!(wire.len() - before <= piece.len() + 10);
            plain += piece.len() + 10;
            sent.push(Seen::Message(piece.to_vec()));
        }
        assert!(wire.len() <= plain);
        let received = inflate(agreement, &wire, wire.len().max(1), false);
        if stream.len() < 10_000 {
            assert_eq!(received, sent);
        }
    }
}

/// A sink that has room for so much.
struct Sink {
    buffer: MessageBuffer,
    left: usize,
}

impl MessageSink for Sink {
    fn begin(&mut self, _kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        self.buffer.space(want.min(self.left))
    }

    fn filled(&mut self, count: usize) {
        self.left -= count;
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Decodes and inflates what came in pieces. Frames of a server, which are not masked, are masked first with a key of zeros.
fn inflate(agreement: Agreement, stream: &[u8], size: usize, masked: bool) -> Vec<Seen> {
    const LIMIT: usize = 10_000;
    let stream = if masked {
        stream.to_vec()
    } else {
        mask(stream)
    };
    let mut decoder = Decoder::new(LIMIT as u64).with_deflate(true);
    let mut inflation = Inflation::new(agreement, LIMIT as u64);
    let mut sink = Sink {
        buffer: MessageBuffer::default(),
        left: LIMIT,
    };
    let mut kind = Kind::Binary;
    let mut input = Vec::new();
    let mut seen = Vec::new();
    for piece in stream.chunks(size) {
        input.extend_from_slice(piece);
        let mut taken = std::mem::take(&mut input);
        let mut rest = &mut taken[..];
        loop {
            let failed = match decoder.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(Part::Whole { payload, .. })) => {
                    seen.push(Seen::Message(payload.to_vec()));
                    Ok(())
                }
                Ok(Some(Part::Begin {
                    compressed,
                    kind: begun,
                    ..
                })) => {
                    kind = begun;
                    if compressed {
                        inflation.begin(kind);
                    }
                    Ok(())
                }
                Ok(Some(Part::Data(data))) if inflation.is_open() => {
                    inflation.push(data, &mut sink)
                }
                Ok(Some(Part::Data(data))) => {
                    sink.space(data.len()).put_slice(data);
                    sink.filled(data.len());
                    Ok(())
                }
                Ok(Some(Part::End)) => {
                    let ended = if inflation.is_open() {
                        inflation.end()
                    } else {
                        Ok(())
                    };
                    if ended.is_ok() {
                        let message = sink.buffer.take();
                        assert!(kind == Kind::Binary || std::str::from_utf8(&message).is_ok());
                        assert_eq!(message.len(), LIMIT - sink.left);
                        sink.left = LIMIT;
                        seen.push(Seen::Message(message));
                    }
                    ended
                }
                Ok(Some(Part::Ping(_) | Part::Pong(_))) => Ok(()),
                Ok(Some(Part::Close(_))) => return seen,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = failed {
                let allowed = [code::PROTOCOL_ERROR, code::INVALID_PAYLOAD, code::TOO_BIG];
                assert!(allowed.contains(&failure.code));
                seen.push(Seen::Failed(failure.code));
                return seen;
            }
        }
        input = rest.to_vec();
    }
    seen
}

/// Makes frames of a client out of those of our encoder.
fn mask(mut stream: &[u8]) -> Vec<u8> {
    let mut masked = Vec::new();
    while let [first, length, ..] = *stream {
        let head = match length {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = match head {
            2 => usize::from(length),
            _ => stream[2..head]
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte)),
        };
        masked.extend([first, length | 0x80]);
        masked.extend_from_slice(&stream[2..head]);
        masked.extend([0; 4]);
        masked.extend_from_slice(&stream[head..head + payload]);
        stream = &stream[head + payload..];
    }
    masked
}

/// An opening handshake is granted, refused or none, and a granted one is well-formed.
pub fn handshake(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(20) {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let (name, value) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    let (head, ()) = request.into_parts();
    assert!(deflate_offers(&head.headers).len() <= 16);
    match Offer::of(&head) {
        None => {}
        Some(Err(rejected)) => assert!(rejected.status().is_client_error()),
        Some(Ok(offer)) => {
            for name in offer.subprotocols() {
                let accepted = offer.accept(Some(name), HeaderMap::new());
                let fields = accepted.map(http::Response::into_parts);
                assert!(fields.is_ok_and(|(head, ())| head.status == 101));
            }
            assert!(offer.accept(None, HeaderMap::new()).is_ok());
        }
    }
}

/// What is taken for a host can be the authority of a URL, or is empty, and cannot end a line or a host.
pub fn hosts(data: &[u8]) {
    if is_host(data) {
        assert!(data.is_ascii());
        assert!(
            !data
                .iter()
                .any(|byte| b" \t\r\n/?#@,\\\"<>^`{|}\0".contains(byte))
        );
    }
}

/// A server hands the same requests to its handler however the bytes of a connection are cut, serves nothing behind what it
/// refused, and answers in HTTP.
pub fn requests(data: &[u8]) {
    let (size, stream) = cut(data);
    // A head that has no end may be refused sooner or later.
    let stream = [stream, b"\r\n\r\n"].concat();
    let (served, mut answers) = serve(&stream, stream.len(), Reading::All(100));
    let (again, mut same) = serve(&stream, size, Reading::All(100));
    // Where the preface of HTTP/2 stands in place of a head, hyper refuses it with a 400, or without a word if it has all of it.
    if stream[1..].windows(PREFACE.len()).any(|at| at == PREFACE) && answers.len() != same.len() {
        let longer = if answers.len() > same.len() {
            &mut answers
        } else {
            &mut same
        };
        assert_eq!(longer.pop(), Some(400));
    }
    assert_eq!((whole(&again), same), (whole(&served), answers));
}

/// A handler that reads a body past hyper, in part or whole, by whatever means and however the bytes come, reads what
/// one reads that gets the connection's bytes at once, and no byte of a body is ever taken for a request. The second byte of
/// the input chooses how the handler reads.
pub fn direct(data: &[u8]) {
    let (size, rest) = cut(data);
    let Some((choice, stream)) = rest.split_first() else {
        return;
    };
    let stream = [stream, b"\r\n\r\n"].concat();
    let bytes = 1 + usize::from(*choice) / 4;
    let reading = match choice % 4 {
        0 => Reading::All(bytes),
        1 => Reading::Some(bytes),
        2 => Reading::Mixed(bytes),
        _ => Reading::Nothing,
    };
    let (all, _) = serve(&stream, stream.len(), Reading::All(100));
    let (read, _) = serve(&stream, size, reading);
    if let Reading::All(_) = reading {
        assert_eq!(whole(&read), whole(&all));
    }
    // A body that is not read to its end may end the connection, sooner or later.
    assert!(read.len() <= all.len(), "{read:?} {all:?}");
    for (one, other) in read.iter().zip(&all) {
        assert_eq!(one.head, other.head);
        let bytes = one.body.len().min(other.body.len());
        assert_eq!(one.body[..bytes], other.body[..bytes]);
        assert!(
            one.body.len() <= bytes || !other.is_whole,
            "{one:?} {other:?}"
        );
    }
}

/// A request as its handler saw it.
#[derive(Debug, PartialEq)]
struct Served {
    head: String,
    /// As far as it was read.
    body: Vec<u8>,
    is_whole: bool,
}

fn whole(served: &[Served]) -> Vec<&Served> {
    served.iter().filter(|request| request.is_whole).collect()
}

/// How a handler reads a body.
#[derive(Clone, Copy)]
enum Reading {
    /// To its end, in pieces of so many bytes.
    All(usize),
    /// So many bytes in pieces of three, and then no more.
    Some(usize),
    /// So many bytes at once, then whatever comes.
    Mixed(usize),
    Nothing,
}

impl Reading {
    /// Reads, and hands on what was read. True at the body's end.
    async fn read(self, body: &mut Body, mut give: impl FnMut(&[u8])) -> Result<bool, Error> {
        let mut buffer = [0; 100];
        match self {
            Self::All(size) => loop {
                match body.read(&mut buffer[..size]).await? {
                    0 => return Ok(true),
                    bytes => give(&buffer[..bytes]),
                }
            },
            Self::Some(count) => {
                for _ in 0..count.div_ceil(3) {
                    match body.read(&mut buffer[..3]).await? {
                        0 => return Ok(true),
                        bytes => give(&buffer[..bytes]),
                    }
                }
            }
            Self::Mixed(size) => {
                let bytes = body.read(&mut buffer[..size]).await?;
                give(&buffer[..bytes]);
                while let Some(data) = body.data().await {
                    give(&data?);
                }
                return Ok(true);
            }
            Self::Nothing => {}
        }
        Ok(false)
    }
}

/// Requests, and the statuses of all responses.
fn serve(stream: &[u8], size: usize, reading: Reading) -> (Vec<Served>, Vec<u16>) {
    on_one_thread(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let handler = {
            let seen = seen.clone();
            service_fn(move |mut request| {
                let seen = seen.clone();
                ResponseFuture::later(async move {
                    let head = request.head;
                    let at = seen.borrow().len();
                    seen.borrow_mut().push(Served {
                        head: format!("{} {} {:?}", head.method, head.uri, head.headers),
                        body: Vec::new(),
                        is_whole: false,
                    });
                    let give = |data: &[u8]| seen.borrow_mut()[at].body.extend_from_slice(data);
                    let read = reading.read(&mut request.body, give).await;
                    seen.borrow_mut()[at].is_whole = read.is_ok_and(|is_whole| is_whole);
                    Response::default()
                })
            })
        };
        let config = Config {
            limits: Limits {
                body_bytes_max: Some(1000),
                ..Limits::default()
            },
            ..Config::default()
        };
        let (client, connections) = connect(handler, config);
        let (mut read, mut write) = client.into_split();
        let reading = tokio::task::spawn_local(async move {
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
            answer
        });
        say(&mut write, stream, size).await;
        turns(100).await;
        connections.drain(std::time::Duration::ZERO).await;
        let answer = reading.await.expect("reads to the end");
        (seen.take(), statuses(&answer))
    })
}

/// Runs everything that a connection needs, without another thread.
fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// A server with one connection, whose other end this is.
fn connect(handler: Rc<dyn Service>, config: Config) -> (UnixStream, Connections) {
    let spawn = |task| drop(tokio::task::spawn_local(task));
    let server = Server::new(handler, Rc::new(config), spawn);
    let (client, socket) = UnixStream::pair().expect("a pair of sockets");
    let info = ConnectionInfo {
        number: 1,
        peer: Address::Unix(None),
        local: Address::Unix(None),
        entry: Entry::Plain,
        is_proxied: false,
        tls: None,
    };
    server.0.start(Socket::Unix(socket), info, false);
    (client, server.connections())
}

/// Writes in pieces of so many bytes, as far as they are taken.
async fn say(to: &mut OwnedWriteHalf, bytes: &[u8], size: usize) {
    for piece in bytes.chunks(size) {
        if to.write_all(piece).await.is_err() {
            break;
        }
        turns(3).await;
    }
}

/// Lets every other task run so many times, with what has arrived for it.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// The statuses of final responses. After a refusal there is none.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let mut statuses: Vec<u16> = Vec::new();
    for line in answer.split(|&byte| byte == b'\n') {
        let status = line
            .strip_prefix(b"HTTP/1.1 ")
            .or_else(|| line.strip_prefix(b"HTTP/1.0 "));
        let Some(status) = status.and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()) else {
            continue;
        };
        let status = status.parse().expect("a status is a number");
        assert!(
            statuses.last().is_none_or(|&before| before < 400),
            "{status} after a refusal: {}",
            answer.escape_ascii()
        );
        if status >= 200 {
            statuses.push(status);
        }
    }
    statuses
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::TARGETS;

    /// Pieces that mean something to one parser or another.
    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"0",
        b"\0",
        b"\x7f",
        b"\xff",
        b"\x80",
        b"a",
        b"+",
        b"-",
        b"\"",
        b"\r\n\r\n",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"Host: t\r\n",
        b"Connection: close\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"18446744073709551616",
        b"ffffffffffffffff",
    ];

    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }

        fn mutate(&mut self, bytes: &mut Vec<u8>) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => {
                    let end = bytes.len().min(at + 1 + self.below(20));
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                3 => {
                    let end = bytes.len().min(at + self.below(20));
                    bytes.drain(at..end);
                }
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
            }
        }
    }

    /// Inputs that mean something to a target; libFuzzer begins with the same.
    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut files: Vec<_> = fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("no seeds of {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn drive(name: &str, rounds: usize) {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        let seeds = seeds(name);
        let attempt = |bytes: &[u8]| {
            let broken = std::panic::catch_unwind(|| target(bytes)).is_err();
            assert!(!broken, "{name} broke on b\"{}\"", bytes.escape_ascii());
        };
        for seed in &seeds {
            attempt(seed);
        }
        for _ in 0..rounds {
            let mut bytes = seeds[numbers.below(seeds.len())].clone();
            for _ in 0..=numbers.below(4) {
                numbers.mutate(&mut bytes);
            }
            attempt(&bytes);
        }
    }

    #[test]
    fn framing_means_the_same_however_it_is_cut() {
        drive("framing", 20_000);
    }

    #[test]
    fn frames_mean_the_same_however_they_are_cut() {
        drive("frames", 20_000);
    }

    #[test]
    fn compressed_messages_mean_the_same_however_they_are_cut() {
        drive("deflate", 20_000);
    }

    #[test]
    fn handshakes_are_granted_or_refused() {
        drive("handshake", 5_000);
    }

    #[test]
    fn hosts_cannot_end_a_line() {
        drive("hosts", 20_000);
    }

    #[test]
    fn requests_mean_the_same_however_they_are_cut() {
        drive("requests", 600);
    }

    #[test]
    fn bodies_that_are_read_past_hyper_are_the_same_bodies() {
        drive("direct", 600);
    }

    #[test]
    fn ranges_are_of_the_file() {
        drive("ranges", 20_000);
    }

    #[test]
    fn codings_that_are_refused_are_not_chosen() {
        drive("accept_encoding", 20_000);
    }

    #[test]
    fn paths_stay_below_their_directory() {
        drive("static_paths", 20_000);
    }

    #[test]
    fn clients_do_not_choose_who_they_are() {
        drive("forwarded", 20_000);
    }

    #[test]
    fn proxy_headers_mean_the_same_however_they_are_cut() {
        drive("proxy", 20_000);
    }

    #[test]
    fn streams_of_http2_are_served_however_they_are_cut() {
        drive("http2", 3_000);
    }

    #[test]
    fn frames_that_pass_tell_the_same_however_they_are_cut() {
        drive("tap", 20_000);
    }

    #[test]
    fn what_a_client_has_is_known_by_its_tag() {
        drive("conditions", 20_000);
    }

    #[test]
    fn sections_of_pem_are_where_they_are_said_to_be() {
        drive("pem", 20_000);
    }

    #[test]
    fn certificates_are_read_or_not() {
        drive("certificates", 20_000);
    }

    #[test]
    fn pictures_are_decoded_within_their_limit() {
        drive("pictures", 5_000);
    }

    #[test]
    fn heads_of_npy_files() {
        drive("npy", 20_000);
    }

    #[test]
    fn sizes_of_pictures() {
        drive("picture_size", 20_000);
    }

    #[test]
    fn parts_are_the_same_however_a_body_is_cut() {
        drive("multipart", 20_000);
    }

    #[test]
    fn forms_are_the_same_however_they_are_cut() {
        drive("forms", 20_000);
    }

    #[test]
    fn trace_contexts_are_right_or_none() {
        drive("trace_context", 20_000);
    }

    #[test]
    fn collectors_may_answer_anything() {
        drive("collector", 20_000);
    }

    #[test]
    fn every_target_has_seeds_and_all_seeds_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut found: Vec<_> = fs::read_dir(corpus)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        found.sort();
        names.sort_unstable();
        assert_eq!(found, names);
        assert!(names.iter().all(|name| !seeds(name).is_empty()));
    }
}
