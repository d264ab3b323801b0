//! HTTP/1.1 keep-alive load: one request under way per connection, the answer must have the expected status and a length, or be
//! chunked.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::histogram::Histogram;
use crate::pace::{Pace, Window};
use crate::{Load, STALL};

/// Bytes at the beginning of a body that carry its due time and number.
const STAMP_BYTES: usize = 16;

/// What is sent, and what is expected to come back.
pub(crate) struct Shape {
    pub(crate) path: String,
    pub(crate) connections: usize,
    /// More than 0: POSTs of so many bytes, the first of which are the stamp.
    pub(crate) stamped_bytes: usize,
    /// Not empty: POSTs of this body, which is JSON.
    pub(crate) json: Vec<u8>,
    /// Status of every answer.
    pub(crate) status: u16,
}

struct Connection {
    stream: TcpStream,
    /// Head of the request and the stamp of its body.
    head: Vec<u8>,
    /// Bytes of the request (head and body) sent so far.
    sent: usize,
    /// An answer that came in pieces.
    input: Vec<u8>,
    due: Instant,
    busy: bool,
}

/// HTTP load on connections that stay open.
pub(crate) struct Http {
    poll: Poll,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    /// Length of the head without the stamp.
    head_bytes: usize,
    /// What follows the stamp; the same bytes for every request.
    body: Vec<u8>,
    has_stamp: bool,
    /// What every answer begins with.
    answer_start: String,
    number: u64,
    /// One moment on both clocks: bodies are stamped with wall time, which other processes can read.
    anchor: (Instant, SystemTime),
    buffer: Vec<u8>,
}

/// Length of the whole answer that `input` begins with; None while it cannot be told.
fn answer_bytes(input: &[u8], start: &str) -> Result<Option<usize>, String> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &input[..end];
    if !head.starts_with(start.as_bytes()) {
        return Err(format!("answer is no {start}: {}", head.escape_ascii()));
    }
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let length = std::str::from_utf8(&line[NAME.len()..])
                .ok()
                .and_then(|text| text.trim().parse::<usize>().ok())
                .ok_or_else(|| format!("bad length: {}", line.escape_ascii()))?;
            return Ok(Some(end + 4 + length));
        }
        if line
            .trim_ascii_end()
            .eq_ignore_ascii_case(b"transfer-encoding: chunked")
        {
            return Ok(chunks_bytes(&input[end + 4..])?.map(|length| end + 4 + length));
        }
    }
    Err(format!("answer without a length: {}", head.escape_ascii()))
}

/// Length of the chunks that `body` begins with, the last one included; None while that is not there.
fn chunks_bytes(body: &[u8]) -> Result<Option<usize>, String> {
    let mut start = 0;
    while let Some(line) = body.get(start..)
        && let Some(end) = line.iter().position(|&byte| byte == b'\n')
    {
        let size = std::str::from_utf8(&line[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
            .ok_or_else(|| format!("bad chunk: {}", line[..end].escape_ascii()))?;
        start += end + 1 + size + 2;
        if size == 0 {
            return Ok((start <= body.len()).then_some(start));
        }
    }
    Ok(None)
}

impl Http {
    pub(crate) fn connect(address: SocketAddr, shape: Shape) -> Result<Self, String> {
        let path = &shape.path;
        let has_stamp = shape.stamped_bytes > 0;
        if has_stamp && shape.stamped_bytes < STAMP_BYTES {
            return Err(format!("--size must be 0 or at least {STAMP_BYTES}"));
        }
        let post = |media_type: &str, bytes: usize| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {bytes}\r\n\r\n"
            )
        };
        let mut head = match (has_stamp, shape.json.is_empty()) {
            (true, true) => post("application/octet-stream", shape.stamped_bytes),
            (false, false) => post("application/json", shape.json.len()),
            (false, true) => format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
            (true, false) => return Err("--size and --body-file exclude each other".to_owned()),
        }
        .into_bytes();
        let head_bytes = head.len();
        if has_stamp {
            head.resize(head_bytes + STAMP_BYTES, 0);
        }
        let body = if has_stamp {
            // Not all alike, so that nobody can profit from a page of zeros.
            let filler = 0..shape.stamped_bytes - STAMP_BYTES;
            filler.map(|index| (index * 31 / 7) as u8).collect()
        } else {
            shape.json
        };
        let mut load = Self {
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            connections: Vec::new(),
            idle: (0..shape.connections).collect(),
            head_bytes,
            body,
            has_stamp,
            answer_start: format!("HTTP/1.1 {}", shape.status),
            number: 0,
            anchor: (Instant::now(), SystemTime::now()),
            buffer: vec![0; 64 * 1024],
        };
        for index in 0..shape.connections {
            let stream = crate::connect(&load.poll, address, index)?;
            load.connections.push(Connection {
                stream,
                head: head.clone(),
                sent: 0,
                input: Vec::new(),
                due: Instant::now(),
                busy: false,
            });
        }
        Ok(load)
    }

    fn send(&mut self, index: usize, due: Instant) -> Result<(), String> {
        let connection = &mut self.connections[index];
        (connection.sent, connection.due, connection.busy) = (0, due, true);
        if self.has_stamp {
            let wall = self.anchor.1 + (due - self.anchor.0);
            let wall = wall
                .duration_since(UNIX_EPOCH)
                .map_err(|error| error.to_string())?;
            let stamp = &mut connection.head[self.head_bytes..];
            stamp[..8].copy_from_slice(&(wall.as_nanos() as u64).to_le_bytes());
            stamp[8..].copy_from_slice(&self.number.to_le_bytes());
            self.number += 1;
        }
        self.write(index)
    }

    /// Send as much of the request as the socket takes.
    fn write(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let head = connection.head.len();
        let total = head + self.body.len();
        while connection.busy && connection.sent < total {
            let (first, second) = if connection.sent < head {
                (&connection.head[connection.sent..], &self.body[..])
            } else {
                (&self.body[connection.sent - head..], &[][..])
            };
            match connection
                .stream
                .write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
            {
                Ok(sent) => connection.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        Ok(())
    }

    /// Read what there is; true when that completed the answer.
    fn read(&mut self, index: usize) -> Result<bool, String> {
        let connection = &mut self.connections[index];
        loop {
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receiving: {error}")),
            };
            if !connection.busy {
                return Err("an answer to nothing".to_owned());
            }
            let received = &self.buffer[..count];
            let whole = if connection.input.is_empty() {
                received
            } else {
                connection.input.extend_from_slice(received);
                &connection.input[..]
            };
            match answer_bytes(whole, &self.answer_start)? {
                Some(length) if length == whole.len() => {
                    if connection.sent < connection.head.len() + self.body.len() {
                        return Err("answered before the body was read".to_owned());
                    }
                    connection.input.clear();
                    connection.busy = false;
                    return Ok(true);
                }
                Some(length) if length < whole.len() => return Err("two answers to one".to_owned()),
                _ => {
                    if connection.input.is_empty() {
                        connection.input.extend_from_slice(received);
                    }
                }
            }
            // Fewer bytes than there was room for: the socket is empty, and epoll will tell of more.
            if count < self.buffer.len() {
                return Ok(false);
            }
        }
    }
}

impl Load for Http {
    fn window(&mut self, mut pace: Pace) -> Result<Window, String> {
        let mut window = Window {
            completed: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new(),
        };
        let mut events = Events::with_capacity(256);
        let mut progress = pace.began();
        loop {
            let now = Instant::now();
            while let Some(due) = pace.due(now) {
                let Some(index) = self.idle.pop_front() else {
                    break;
                };
                pace.step();
                self.send(index, due)?;
            }
            if pace.is_over(now) && self.idle.len() == self.connections.len() {
                window.elapsed = progress - pace.began();
                return Ok(window);
            }
            if now - progress > STALL {
                return Err(format!("no answer for {} s", STALL.as_secs()));
            }
            crate::wait(&mut self.poll, &mut events, pace.patience(now))?;
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.write(index)?;
                }
                if event.is_readable() && self.read(index)? {
                    progress = Instant::now();
                    window.completed += 1;
                    window
                        .latency
                        .record(progress - self.connections[index].due);
                    self.idle.push_back(index);
                    // A closed loop goes on at once; a rate is looked after above.
                    if self.idle.len() == 1
                        && let Some(due) = pace.due(progress)
                    {
                        self.idle.pop_front();
                        pace.step();
                        self.send(index, due)?;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::answer_bytes;

    const OK: &str = "HTTP/1.1 200";

    #[test]
    fn measures_answers() {
        let answer = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-LENGTH: 5\r\n\r\nhello";
        assert_eq!(answer_bytes(answer, OK), Ok(Some(answer.len())));
        assert_eq!(answer_bytes(&answer[..30], OK), Ok(None));
        assert!(answer_bytes(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", OK).is_err());
        assert!(answer_bytes(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", OK).is_err());
        let refusal = b"HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            answer_bytes(refusal, "HTTP/1.1 422"),
            Ok(Some(refusal.len()))
        );
    }

    #[test]
    fn measures_chunked_answers() {
        let answer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(answer_bytes(answer, OK), Ok(Some(answer.len())));
        for bytes in 0..answer.len() {
            assert_eq!(answer_bytes(&answer[..bytes], OK), Ok(None), "{bytes}");
        }
        let nonsense = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n";
        assert!(answer_bytes(nonsense, OK).is_err());
    }
}
