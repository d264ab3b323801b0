//! One line for one request: text for people, a JSON object, or what a format in Apache's manner says.
//!
//! ```text
//! 2026-11-20T19:03:02.417Z 127.0.0.1:53124 "GET /items?q=1 HTTP/1.1" 200 13 0.410ms
//! {"time":"2026-11-20T19:03:02.417Z","level":"info","logger":"framegate.access","client":"127.0.0.1:53124","method":"GET",
//!  "target":"/items?q=1","protocol":"HTTP/1.1","http_version":"1.1","status":200,"bytes_in":0,"bytes_out":13,
//!  "milliseconds":0.410,"first_byte_milliseconds":0.401,"aborted":false,"worker":1,"pid":4711}
//! 127.0.0.1 - - [20/Nov/2026:19:03:02 +0000] "GET /items?q=1 HTTP/1.1" 200 13
//! ```
//! (the object is one line). Times are those at which a request's head was complete. What a client can choose is escaped and cut
//! (`log_text`): one request is one line, and a line of the formats that have a name is shorter than a pipe takes in one piece, so
//! that the lines of several workers do not mix.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Version, uri::PathAndQuery};

use crate::edge::{Client, request_id::is_well_formed};
use crate::log_text::{
    Clock, escape, escape_json, push_apache_time, push_milliseconds, push_number, since_1970,
};
use crate::record::{RequestRecord, Wanted};
use crate::service::Address;

/// Bytes of a target, escaped; with all others a line stays below 4096, which a pipe takes whole (`PIPE_BUF`).
const TARGET_BYTES_MAX: usize = 2048;
/// Bytes of a field's value, escaped: two of them, as in `combined`, fit beside a target.
const FIELD_BYTES_MAX: usize = 640;
/// Bytes of a method: the longest that is registered has 17.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of a request's name.
const ID_BYTES_MAX: usize = 128;
/// Bytes of the path of a client's Unix socket.
const CLIENT_BYTES_MAX: usize = 128;

/// How the lines look.
#[derive(Clone, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// As the pieces say, one after the other.
    Pieces(Vec<Piece>),
}

/// A part of a line in Apache's manner.
#[derive(Clone, Debug)]
pub enum Piece {
    /// As it is.
    Literal(String),
    /// A field of the request, `%{name}i`.
    RequestField(HeaderName),
    /// A field of the response, `%{name}o`.
    ResponseField(HeaderName),
    /// Something that is known of the request.
    Item(Item),
}

/// What a piece of a line says. The letters are those of Apache's `mod_log_config`; what that does not know are notes, `%{name}n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// `%h`, `%a`: the client's address without its port.
    Client,
    /// `%l`, `%u`: what nobody knows, `-`.
    Nothing,
    /// `%t`: the time in brackets.
    Time,
    /// `%{sec}t`: seconds since 1970.
    TimeSeconds,
    /// `%{msec}t`: milliseconds since 1970.
    TimeMilliseconds,
    /// `%{usec}t`: microseconds since 1970.
    TimeMicroseconds,
    /// `%r`: method, target and version.
    RequestLine,
    /// `%m`
    Method,
    /// `%U`: path.
    Path,
    /// `%q`: query with its question mark, or nothing.
    Query,
    /// `%H`: version.
    Version,
    /// `%s`: status.
    Status,
    /// `%b`: bytes of the response's body, `-` for none.
    BytesOrDash,
    /// `%B`, `%{bytes_out}n`: the same, 0 for none.
    BytesOut,
    /// `%{bytes_in}n`: bytes of the request's body that were read.
    BytesIn,
    /// `%D`, `%{us}T`: microseconds.
    Microseconds,
    /// `%{ms}T`: milliseconds.
    Milliseconds,
    /// `%T`, `%{s}T`: seconds.
    Seconds,
    /// `%{first_byte}n`: microseconds to the head of the response.
    FirstByteMicroseconds,
    /// `%P`: process.
    Process,
    /// `%{worker}n`: the worker's number.
    Worker,
    /// `%{protocol}n`: `http/1.0`, `http/1.1`, `h2` or `websocket`.
    Protocol,
    /// `%L`, `%{id}n`: the request's name.
    RequestId,
    /// `%{aborted}n`: 1 if the response did not reach its end, else 0.
    Aborted,
}

impl Item {
    /// The item with a name, as `framegate/access_format.py` has them.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "client" => Self::Client,
            "nothing" => Self::Nothing,
            "time" => Self::Time,
            "time_seconds" => Self::TimeSeconds,
            "time_milliseconds" => Self::TimeMilliseconds,
            "time_microseconds" => Self::TimeMicroseconds,
            "request_line" => Self::RequestLine,
            "method" => Self::Method,
            "path" => Self::Path,
            "query" => Self::Query,
            "version" => Self::Version,
            "status" => Self::Status,
            "bytes_or_dash" => Self::BytesOrDash,
            "bytes_out" => Self::BytesOut,
            "bytes_in" => Self::BytesIn,
            "microseconds" => Self::Microseconds,
            "milliseconds" => Self::Milliseconds,
            "seconds" => Self::Seconds,
            "first_byte" => Self::FirstByteMicroseconds,
            "process" => Self::Process,
            "worker" => Self::Worker,
            "protocol" => Self::Protocol,
            "request_id" => Self::RequestId,
            "aborted" => Self::Aborted,
            _ => return None,
        })
    }
}

/// Writes lines of one format for one worker.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    /// The worker's number, from 1 on; `None` for one that is alone.
    worker: Option<u32>,
    process: u32,
    /// How objects end: worker and process.
    json_end: Vec<u8>,
    clock: Clock,
}

impl Lines {
    /// Lines of a worker: `worker` is its number, from 1 on, if it is one of several.
    pub fn new(format: Format, worker: Option<u32>) -> Self {
        let process = std::process::id();
        let number = worker.unwrap_or(1);
        Self {
            format,
            worker,
            process,
            json_end: format!(",\"worker\":{number},\"pid\":{process}}}\n").into(),
            clock: Clock::default(),
        }
    }

    /// The fields that records must have for it.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        if let Format::Pieces(pieces) = &self.format {
            for piece in pieces {
                match piece {
                    Piece::RequestField(name) => wanted.request.push(name.clone()),
                    Piece::ResponseField(name) => wanted.response.push(name.clone()),
                    Piece::Literal(_) | Piece::Item(_) => {}
                }
            }
        }
        wanted
    }

    /// Appends the line for `record`, with its newline, to `line`.
    pub fn write(&self, record: &RequestRecord, line: &mut Vec<u8>) {
        match &self.format {
            Format::Text => self.write_text(record, line),
            Format::Json => self.write_json(record, line),
            Format::Pieces(pieces) => {
                for piece in pieces {
                    self.write_piece(piece, record, line);
                }
                line.push(b'\n');
            }
        }
    }

    /// When, who, what, status (`-` if no response was made), bytes of the response's body, time; then what not every request has.
    fn write_text(&self, record: &RequestRecord, line: &mut Vec<u8>) {
        self.clock.push_rfc3339(record.started_at, line);
        line.push(b' ');
        push_client(record, line);
        line.extend_from_slice(b" \"");
        push_request_line(record, line);
        line.extend_from_slice(b"\" ");
        push_status(record, line);
        line.push(b' ');
        push_number(record.body_bytes_out, line);
        line.push(b' ');
        push_milliseconds(record.duration_ns(), line);
        line.extend_from_slice(b"ms");
        if record.body_bytes_in > 0 {
            line.extend_from_slice(b" in=");
            push_number(record.body_bytes_in, line);
        }
        if let Some(id) = &record.request_id {
            line.extend_from_slice(b" id=");
            escape(id.as_bytes(), ID_BYTES_MAX, line);
        }
        if let Some(worker) = self.worker {
            line.extend_from_slice(b" worker=");
            push_number(worker.into(), line);
        }
        if record.websocket {
            line.extend_from_slice(b" websocket");
        }
        if record.aborted {
            line.extend_from_slice(b" aborted");
        }
        line.push(b'\n');
    }

    /// `status` and `first_byte_milliseconds` are null when no response was made.
    fn write_json(&self, record: &RequestRecord, line: &mut Vec<u8>) {
        // Most lines, so that they grow once.
        line.reserve(512);
        line.extend_from_slice(b"{\"time\":\"");
        self.clock.push_rfc3339(record.started_at, line);
        line.extend_from_slice(
            b"\",\"level\":\"info\",\"logger\":\"framegate.access\",\"client\":\"",
        );
        push_client_json(record, line);
        line.extend_from_slice(b"\",\"method\":\"");
        escape_json(record.method.as_str(), METHOD_BYTES_MAX, line);
        line.extend_from_slice(b"\",\"target\":\"");
        escape_json(target(record), TARGET_BYTES_MAX, line);
        line.extend_from_slice(b"\",\"protocol\":\"");
        line.extend_from_slice(match (record.websocket, record.version) {
            (true, Version::HTTP_10) => b"websocket\",\"http_version\":\"1.0\",\"status\":",
            (true, Version::HTTP_2) => b"websocket\",\"http_version\":\"2\",\"status\":",
            (true, _) => b"websocket\",\"http_version\":\"1.1\",\"status\":",
            (false, Version::HTTP_10) => b"HTTP/1.0\",\"http_version\":\"1.0\",\"status\":",
            (false, Version::HTTP_2) => b"HTTP/2\",\"http_version\":\"2\",\"status\":",
            (false, _) => b"HTTP/1.1\",\"http_version\":\"1.1\",\"status\":",
        });
        line.extend_from_slice(match &record.status {
            Some(status) => status.as_str().as_bytes(),
            None => b"null",
        });
        line.extend_from_slice(b",\"bytes_in\":");
        push_number(record.body_bytes_in, line);
        line.extend_from_slice(b",\"bytes_out\":");
        push_number(record.body_bytes_out, line);
        line.extend_from_slice(b",\"milliseconds\":");
        push_milliseconds(record.duration_ns(), line);
        line.extend_from_slice(b",\"first_byte_milliseconds\":");
        match record.first_byte_ns {
            Some(first) => push_milliseconds(first.saturating_sub(record.start_ns), line),
            None => line.extend_from_slice(b"null"),
        }
        if let Some(id) = &record.request_id {
            line.extend_from_slice(b",\"id\":\"");
            // Of a few plain characters, however it came here: that was looked at there (`request_id`).
            debug_assert!(is_well_formed(id));
            line.extend_from_slice(id.as_bytes());
            line.push(b'"');
        }
        line.extend_from_slice(if record.aborted {
            b",\"aborted\":true"
        } else {
            b",\"aborted\":false"
        });
        line.extend_from_slice(&self.json_end);
    }

    fn write_piece(&self, piece: &Piece, record: &RequestRecord, line: &mut Vec<u8>) {
        match piece {
            Piece::Literal(text) => line.extend_from_slice(text.as_bytes()),
            Piece::RequestField(name) => push_field(name, &record.request_fields, line),
            Piece::ResponseField(name) => push_field(name, &record.response_fields, line),
            Piece::Item(item) => self.write_item(*item, record, line),
        }
    }

    fn write_item(&self, item: Item, record: &RequestRecord, line: &mut Vec<u8>) {
        let in_units = |duration: Duration, nanoseconds: u128| {
            u64::try_from(duration.as_nanos() / nanoseconds).unwrap_or(u64::MAX)
        };
        let (path, query) = target(record)
            .split_once('?')
            .map_or((target(record), None), |(path, query)| (path, Some(query)));
        match item {
            Item::Client => push_host(record, line),
            Item::Nothing => line.push(b'-'),
            Item::Time => push_apache_time(record.started_at, line),
            Item::TimeSeconds => {
                push_number(in_units(since_1970(record.started_at), 1_000_000_000), line);
            }
            Item::TimeMilliseconds => {
                push_number(in_units(since_1970(record.started_at), 1_000_000), line);
            }
            Item::TimeMicroseconds => {
                push_number(in_units(since_1970(record.started_at), 1000), line);
            }
            Item::RequestLine => push_request_line(record, line),
            Item::Method => escape(record.method.as_str().as_bytes(), METHOD_BYTES_MAX, line),
            Item::Path => escape(path.as_bytes(), TARGET_BYTES_MAX, line),
            Item::Query => {
                if let Some(query) = query {
                    line.push(b'?');
                    escape(query.as_bytes(), TARGET_BYTES_MAX, line);
                }
            }
            Item::Version => line.extend_from_slice(version(record.version)),
            Item::Status => push_status(record, line),
            Item::BytesOrDash if record.body_bytes_out == 0 => line.push(b'-'),
            Item::BytesOrDash | Item::BytesOut => push_number(record.body_bytes_out, line),
            Item::BytesIn => push_number(record.body_bytes_in, line),
            Item::Microseconds => push_number(in_units(record.duration(), 1000), line),
            Item::Milliseconds => push_number(in_units(record.duration(), 1_000_000), line),
            Item::Seconds => push_number(record.duration().as_secs(), line),
            Item::FirstByteMicroseconds => match record.first_byte_after() {
                Some(first) => push_number(in_units(first, 1000), line),
                None => line.push(b'-'),
            },
            Item::Process => push_number(self.process.into(), line),
            Item::Worker => push_number(self.worker.unwrap_or(1).into(), line),
            Item::Protocol => line.extend_from_slice(if record.websocket {
                b"websocket"
            } else {
                match record.version {
                    Version::HTTP_10 => b"http/1.0",
                    Version::HTTP_2 => b"h2",
                    _ => b"http/1.1",
                }
            }),
            Item::RequestId => match &record.request_id {
                Some(id) => escape(id.as_bytes(), ID_BYTES_MAX, line),
                None => line.push(b'-'),
            },
            Item::Aborted => line.push(b'0' + u8::from(record.aborted)),
        }
    }
}

fn target(record: &RequestRecord) -> &str {
    record
        .target
        .path_and_query()
        .map_or("", PathAndQuery::as_str)
}

fn version(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        _ => b"HTTP/1.1",
    }
}

fn push_request_line(record: &RequestRecord, line: &mut Vec<u8>) {
    escape(record.method.as_str().as_bytes(), METHOD_BYTES_MAX, line);
    line.push(b' ');
    escape(target(record).as_bytes(), TARGET_BYTES_MAX, line);
    line.push(b' ');
    line.extend_from_slice(version(record.version));
}

fn push_status(record: &RequestRecord, line: &mut Vec<u8>) {
    match record.status {
        Some(status) => push_number(status.as_u16().into(), line),
        None => line.push(b'-'),
    }
}

/// All values of a field, or `-`.
fn push_field(name: &HeaderName, fields: &[(HeaderName, HeaderValue)], line: &mut Vec<u8>) {
    let start = line.len();
    for (_, value) in fields.iter().filter(|(field, _)| field == name) {
        if line.len() > start {
            line.extend_from_slice(b", ");
        }
        let left = FIELD_BYTES_MAX.saturating_sub(line.len() - start);
        escape(value.as_bytes(), left, line);
        if left == 0 {
            break;
        }
    }
    if line.len() == start {
        line.push(b'-');
    }
}

/// A client's address without its port.
fn push_host(record: &RequestRecord, line: &mut Vec<u8>) {
    match inet(record) {
        Some(address) => push_ip(address.ip(), line),
        None => push_client(record, line),
    }
}

/// A client's address in a field that ends with a space.
fn push_client(record: &RequestRecord, line: &mut Vec<u8>) {
    if push_known(record, line) {
        return;
    }
    if let Address::Unix(Some(path)) = &record.connection.peer {
        line.push(b':');
        let start = line.len();
        // The client has named its socket as it liked.
        escape(path.as_os_str().as_encoded_bytes(), CLIENT_BYTES_MAX, line);
        for byte in &mut line[start..] {
            if *byte == b' ' {
                *byte = b'+';
            }
        }
    }
}

fn push_client_json(record: &RequestRecord, line: &mut Vec<u8>) {
    if push_known(record, line) {
        return;
    }
    if let Address::Unix(Some(path)) = &record.connection.peer {
        line.push(b':');
        escape_json(&path.to_string_lossy(), CLIENT_BYTES_MAX, line);
    }
}

/// The client's address on the network, if it has one.
fn inet(record: &RequestRecord) -> Option<SocketAddr> {
    match (record.client, &record.connection.peer) {
        (Client::At(address), _) | (Client::Peer, &Address::Inet(address)) => Some(address),
        _ => None,
    }
}

/// All that is known of a client, or false: the path of its socket is still to come.
fn push_known(record: &RequestRecord, line: &mut Vec<u8>) -> bool {
    if let Some(address) = inet(record) {
        match address.port() {
            // Nobody has said it.
            0 => push_ip(address.ip(), line),
            _ => push_inet(address, line),
        }
        return true;
    }
    let is_peer = record.client == Client::Peer;
    line.extend_from_slice(if is_peer { b"unix" } else { b"unknown" });
    !is_peer
}

fn push_inet(address: SocketAddr, line: &mut Vec<u8>) {
    let brackets = address.is_ipv6();
    if brackets {
        line.push(b'[');
    }
    push_ip(address.ip(), line);
    line.extend_from_slice(if brackets { b"]:" } else { b":" });
    push_number(address.port().into(), line);
}

/// 0 to 255: up to three digits, and how many.
static OCTETS: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut number = 0;
    while number < 256 {
        let (hundreds, tens, ones) = (number / 100, number / 10 % 10, number % 10);
        let (hundreds, tens, ones) = (b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8);
        table[number] = match number {
            0..10 => [ones, 0, 0, 1],
            10..100 => [tens, ones, 0, 2],
            _ => [hundreds, tens, ones, 3],
        };
        number += 1;
    }
    table
};

fn push_ip(ip: IpAddr, line: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            // Written in one piece: most clients have such an address.
            let mut text = [b'.'; 16];
            let mut end = 0;
            for byte in ip.octets() {
                let [digits @ .., count] = OCTETS[usize::from(byte)];
                text[end..end + 3].copy_from_slice(&digits);
                end += usize::from(count);
                text[end] = b'.';
                end += 1;
            }
            line.extend_from_slice(&text[..end - 1]);
        }
        IpAddr::V6(ip) => {
            let mut text = String::with_capacity(40);
            // Writing to a string does not fail.
            let _ = write!(text, "{ip}");
            line.extend_from_slice(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        rc::Rc,
        time::{Duration, SystemTime},
    };

    use http::{HeaderName, HeaderValue, Method, StatusCode, Version};

    use super::{Format, Item, Lines, Piece};
    use crate::edge::Client;
    use crate::record::RequestRecord;
    use crate::service::{Address, ConnectionInfo, Entry};

    fn record_of(peer: Address) -> RequestRecord {
        let connection = ConnectionInfo {
            number: 1,
            peer: peer.clone(),
            local: peer,
            entry: Entry::Plain,
            is_proxied: false,
            tls: None,
        };
        RequestRecord {
            connection: Rc::new(connection),
            number: 1,
            client: crate::edge::Client::Peer,
            request_id: None,
            method: Method::GET,
            target: "/items?q=1".parse().unwrap(),
            version: Version::HTTP_11,
            websocket: false,
            status: Some(StatusCode::OK),
            start_ns: 1_000_000,
            first_byte_ns: Some(1_401_000),
            end_ns: 1_410_000,
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_201_382_417),
            body_bytes_in: 0,
            body_bytes_out: 13,
            aborted: false,
            event_stream: false,
            request_fields: Vec::new(),
            response_fields: Vec::new(),
            span: None,
        }
    }

    fn record() -> RequestRecord {
        record_of(Address::Inet(SocketAddr::from(([127, 0, 0, 1], 53124))))
    }

    fn cut() -> RequestRecord {
        RequestRecord {
            status: None,
            first_byte_ns: None,
            aborted: true,
            body_bytes_in: 7,
            websocket: true,
            request_id: Some(HeaderValue::from_static("a.b-1")),
            ..record()
        }
    }

    fn line(format: Format, worker: Option<u32>, record: &RequestRecord) -> String {
        let mut line = Vec::new();
        Lines::new(format, worker).write(record, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn json_line_has_all_parts() {
        let begin = "{\"time\":\"2026-11-20T19:03:02.417Z\",\"level\":\"info\",\"logger\":\"framegate.access\",\
                     \"client\":\"127.0.0.1:53124\",\"method\":\"GET\",\"target\":\"/items?q=1\",\"protocol\":";
        let pid = std::process::id();
        assert_eq!(
            line(Format::Json, None, &record()),
            format!(
                "{begin}\"HTTP/1.1\",\"http_version\":\"1.1\",\"status\":200,\"bytes_in\":0,\"bytes_out\":13,\
                 \"milliseconds\":0.410,\"first_byte_milliseconds\":0.401,\"aborted\":false,\"worker\":1,\"pid\":{pid}}}\n"
            )
        );
        assert_eq!(
            line(Format::Json, Some(3), &cut()),
            format!(
                "{begin}\"websocket\",\"http_version\":\"1.1\",\"status\":null,\"bytes_in\":7,\"bytes_out\":13,\
                 \"milliseconds\":0.410,\"first_byte_milliseconds\":null,\"id\":\"a.b-1\",\"aborted\":true,\"worker\":3,\"pid\":{pid}}}\n"
            )
        );
    }

    #[test]
    fn text_line_has_all_parts() {
        let begin = "2026-11-20T19:03:02.417Z 127.0.0.1:53124 \"GET /items?q=1 HTTP/1.1\"";
        assert_eq!(
            line(Format::Text, None, &record()),
            format!("{begin} 200 13 0.410ms\n")
        );
        assert_eq!(
            line(Format::Text, Some(2), &cut()),
            format!("{begin} - 13 0.410ms in=7 id=a.b-1 worker=2 websocket aborted\n")
        );
    }

    #[test]
    fn every_item_has_its_text() {
        let items = [
            ("client", "127.0.0.1", "127.0.0.1"),
            ("nothing", "-", "-"),
            (
                "time",
                "[20/Nov/2026:19:03:02 +0000]",
                "[20/Nov/2026:19:03:02 +0000]",
            ),
            ("time_seconds", "1795201382", "1795201382"),
            ("time_milliseconds", "1795201382417", "1795201382417"),
            ("time_microseconds", "1795201382417000", "1795201382417000"),
            (
                "request_line",
                "GET /items?q=1 HTTP/1.1",
                "GET /items?q=1 HTTP/1.1",
            ),
            ("method", "GET", "GET"),
            ("path", "/items", "/items"),
            ("query", "?q=1", "?q=1"),
            ("version", "HTTP/1.1", "HTTP/1.1"),
            ("status", "200", "-"),
            ("bytes_or_dash", "13", "13"),
            ("bytes_out", "13", "13"),
            ("bytes_in", "0", "7"),
            ("microseconds", "410", "410"),
            ("milliseconds", "0", "0"),
            ("seconds", "0", "0"),
            ("first_byte", "401", "-"),
            ("worker", "5", "5"),
            ("protocol", "http/1.1", "websocket"),
            ("request_id", "-", "a.b-1"),
            ("aborted", "0", "1"),
        ];
        for (name, whole, of_cut) in items {
            let item = Item::named(name).unwrap();
            let format = || Format::Pieces(vec![Piece::Item(item)]);
            assert_eq!(
                line(format(), Some(5), &record()),
                format!("{whole}\n"),
                "{name}"
            );
            assert_eq!(
                line(format(), Some(5), &cut()),
                format!("{of_cut}\n"),
                "{name}"
            );
        }
        assert_eq!(Item::named("process"), Some(Item::Process));
        assert_eq!(Item::named("nonsense"), None);
    }

    #[test]
    fn client_is_the_one_that_trusted_proxies_name() {
        for (client, text, host) in [
            (
                Client::At("192.0.2.7:0".parse().unwrap()),
                "192.0.2.7",
                "192.0.2.7",
            ),
            (
                Client::At("192.0.2.7:5".parse().unwrap()),
                "192.0.2.7:5",
                "192.0.2.7",
            ),
            (
                Client::At("[2001:db8::1]:0".parse().unwrap()),
                "2001:db8::1",
                "2001:db8::1",
            ),
            (Client::Unknown, "unknown", "unknown"),
        ] {
            let record = RequestRecord { client, ..record() };
            let name = Format::Pieces(vec![Piece::Item(Item::Client)]);
            assert_eq!(line(name, None, &record), format!("{host}\n"));
            assert!(line(Format::Text, None, &record).contains(&format!("Z {text} \"GET")));
            assert!(line(Format::Json, None, &record).contains(&format!(":\"{text}\",\"method")));
        }
    }

    #[test]
    fn fields_are_joined_escaped_and_cut() {
        let name = HeaderName::from_static("x-a");
        let format = || {
            Format::Pieces(vec![
                Piece::Literal("<".to_owned()),
                Piece::RequestField(name.clone()),
                Piece::Literal(">".to_owned()),
                Piece::ResponseField(name.clone()),
            ])
        };
        assert_eq!(line(format(), None, &record()), "<->-\n");
        let value = |bytes: &[u8]| (name.clone(), HeaderValue::from_bytes(bytes).unwrap());
        let full = RequestRecord {
            request_fields: vec![value(b"1\xe4\""), value(b"2")],
            response_fields: vec![value(&[b'z'; 5000]), value(b"never")],
            ..record()
        };
        let text = line(format(), None, &full);
        assert!(text.starts_with("<1\\xe4\\x22, 2>zzz"), "{text}");
        assert!(
            text.ends_with("zzz...\n") || text.ends_with("...\n"),
            "{text}"
        );
        assert!(text.len() < 700, "{text}");
        let wanted = Lines::new(format(), None).wanted();
        assert_eq!((wanted.request.len(), wanted.response.len()), (1, 1));
    }

    #[test]
    fn socket_of_a_client_cannot_forge_a_line() {
        let record = record_of(Address::Unix(Some("/tmp/a b\n\"x".into())));
        assert!(line(Format::Text, None, &record).contains(" unix:/tmp/a+b\\x0a\\x22x \"GET"));
        assert!(
            line(Format::Json, None, &record).contains("\"unix:/tmp/a b\\u000a\\\"x\""),
            "{}",
            line(Format::Json, None, &record)
        );
        let nameless = record_of(Address::Unix(None));
        assert!(line(Format::Text, None, &nameless).contains(" unix \"GET"));
        let six = record_of(Address::Inet("[2001:db8::1]:80".parse().unwrap()));
        assert!(line(Format::Text, None, &six).contains(" [2001:db8::1]:80 \"GET"));
    }

    #[test]
    fn longest_line_of_a_named_format_fits_into_a_pipe_at_once() {
        let name = HeaderName::from_static("referer");
        let long = HeaderValue::from_bytes(&[0xff; 9000]).unwrap();
        let record = RequestRecord {
            target: format!("/{}", "\u{e4}".repeat(9000)).parse().unwrap(),
            method: Method::from_bytes(&[b'M'; 500]).unwrap(),
            request_fields: vec![(name.clone(), long)],
            ..record_of(Address::Unix(Some("\u{1f600}".repeat(1000).into())))
        };
        let combined = Format::Pieces(vec![
            Piece::Item(Item::Client),
            Piece::Item(Item::Time),
            Piece::Item(Item::RequestLine),
            Piece::RequestField(name.clone()),
            Piece::RequestField(name),
            Piece::Literal(" - - \"\" 200 12345678901234567890 \"\" \"\"".to_owned()),
        ]);
        for format in [Format::Text, Format::Json, combined] {
            let line = line(format, Some(u32::MAX), &record);
            assert!((1000..4000).contains(&line.len()), "{}", line.len());
        }
    }
}
