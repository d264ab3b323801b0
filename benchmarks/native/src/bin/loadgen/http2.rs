//! HTTP/2 load by prior knowledge: several requests under way on each connection, each answer must be a 200 with the length that
//! was asked for.
//!
//! It speaks as much of HTTP/2 as that needs. Its head is four or five bytes after the first on a connection: the authority is in
//! the server's table by then. Of an answer's head only the first field is looked at, which is the status of a response and an
//! index of the static table with all servers. Windows are opened once, so wide that they last for a run.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::histogram::Histogram;
use crate::pace::{Pace, Window};
use crate::{Load, STALL};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// As wide as a window can be, but for what it is in the beginning.
const WINDOW: u32 = (1 << 31) - 1 - 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;
/// The first entry that a connection adds to HPACK's table, number 62.
const ADDED: u8 = 0x80 | 0x3e;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's head in HPACK. The first one of a connection spells the authority out and adds it to the table.
fn head(authority: &str, path: &str, is_first: bool) -> Vec<u8> {
    // :method: GET, :scheme: http
    let mut block = vec![0x82, 0x86];
    if path == "/" {
        block.push(0x84);
    } else {
        // :path, not added to the table.
        block.extend_from_slice(&[0x04, path.len() as u8]);
        block.extend_from_slice(path.as_bytes());
    }
    if is_first {
        block.extend_from_slice(&[0x41, authority.len() as u8]);
        block.extend_from_slice(authority.as_bytes());
    } else {
        block.push(ADDED);
    }
    block
}

/// A response's head begins with the status, after changes of the size of the table.
fn is_200(block: &[u8]) -> bool {
    block.iter().find(|&&byte| byte & 0xe0 != 0x20) == Some(&STATUS_200)
}

struct Answer {
    due: Instant,
    has_head: bool,
    bytes: usize,
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    next_stream: u32,
    waiting: HashMap<u32, Answer>,
}

/// Numbers that describe the load.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    /// Most requests under way on one connection.
    pub(crate) inflight: usize,
    /// Bytes of each answer's body.
    pub(crate) answer_bytes: usize,
}

/// HTTP/2 load on connections that stay open.
pub(crate) struct Http2 {
    poll: Poll,
    connections: Vec<Connection>,
    /// A connection as often as it can take another request.
    free: VecDeque<usize>,
    shape: Shape,
    /// HEADERS of a first request, and of all others.
    first: Vec<u8>,
    next: Vec<u8>,
    buffer: Vec<u8>,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr, path: &str, shape: Shape) -> Result<Self, String> {
        if path.len() > 126 {
            return Err("--path must be shorter than 127 bytes".to_owned());
        }
        let authority = address.to_string();
        let request = |is_first| {
            let block = head(&authority, path, is_first);
            frame(HEADERS, END_STREAM | END_HEADERS, 0, &block)
        };
        let mut load = Self {
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            connections: Vec::new(),
            free: VecDeque::new(),
            shape,
            first: request(true),
            next: request(false),
            buffer: vec![0; 64 * 1024],
        };
        for _ in 0..shape.inflight {
            load.free.extend(0..shape.connections);
        }
        let mut hello = PREFACE.to_vec();
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&WINDOW.to_be_bytes());
        // No server push.
        settings.extend_from_slice(&[0, 2, 0, 0, 0, 0]);
        hello.extend(frame(SETTINGS, 0, 0, &settings));
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes()));
        for index in 0..shape.connections {
            let stream = crate::connect(&load.poll, address, index)?;
            load.connections.push(Connection {
                stream,
                output: hello.clone(),
                input: Vec::new(),
                next_stream: 1,
                waiting: HashMap::new(),
            });
        }
        Ok(load)
    }

    /// Put a request behind what is to be written.
    fn ask(&mut self, index: usize, due: Instant) {
        let connection = &mut self.connections[index];
        let stream = connection.next_stream;
        connection.next_stream += 2;
        let request = if stream == 1 { &self.first } else { &self.next };
        let begin = connection.output.len();
        connection.output.extend_from_slice(request);
        connection.output[begin + 5..begin + HEADER_BYTES].copy_from_slice(&stream.to_be_bytes());
        let answer = Answer {
            due,
            has_head: false,
            bytes: 0,
        };
        connection.waiting.insert(stream, answer);
    }

    /// Write what the socket takes.
    fn write(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        while !connection.output.is_empty() {
            match connection.stream.write(&connection.output) {
                Ok(sent) => drop(connection.output.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        Ok(())
    }

    /// Read what there is; calls `done` with the due time of each answer that is whole.
    fn read(&mut self, index: usize, mut done: impl FnMut(Instant)) -> Result<(), String> {
        let connection = &mut self.connections[index];
        loop {
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receiving: {error}")),
            };
            connection.input.extend_from_slice(&self.buffer[..count]);
            let mut input = &connection.input[..];
            while input.len() >= HEADER_BYTES {
                let length = u32::from_be_bytes([0, input[0], input[1], input[2]]) as usize;
                let Some(payload) = input.get(HEADER_BYTES..HEADER_BYTES + length) else {
                    break;
                };
                let (kind, flags) = (input[3], input[4]);
                let stream = u32::from_be_bytes([input[5], input[6], input[7], input[8]]);
                match kind {
                    SETTINGS if flags & ACK == 0 => {
                        connection.output.extend(frame(SETTINGS, ACK, 0, &[]));
                    }
                    PING if flags & ACK == 0 => {
                        connection.output.extend(frame(PING, ACK, 0, payload));
                    }
                    SETTINGS | PING | WINDOW_UPDATE => {}
                    DATA | HEADERS if flags & PADDED == 0 => {
                        let answer = connection
                            .waiting
                            .get_mut(&stream)
                            .ok_or("an answer to nothing")?;
                        take(answer, kind, payload)?;
                        if flags & END_STREAM != 0 {
                            if answer.bytes != self.shape.answer_bytes {
                                return Err(format!("answer of {} bytes", answer.bytes));
                            }
                            done(answer.due);
                            connection.waiting.remove(&stream);
                        }
                    }
                    _ => return Err(format!("frame of kind {kind}: {}", payload.escape_ascii())),
                }
                input = &input[HEADER_BYTES + length..];
            }
            let taken = connection.input.len() - input.len();
            connection.input.drain(..taken);
            // Fewer bytes than there was room for: the socket is empty, and epoll will tell of more.
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// One frame of an answer.
fn take(answer: &mut Answer, kind: u8, payload: &[u8]) -> Result<(), String> {
    if kind == DATA {
        answer.bytes += payload.len();
        return Ok(());
    }
    if answer.has_head || !is_200(payload) {
        return Err(format!("answer is not a 200: {}", payload.escape_ascii()));
    }
    answer.has_head = true;
    Ok(())
}

impl Load for Http2 {
    fn window(&mut self, mut pace: Pace) -> Result<Window, String> {
        let mut window = Window {
            completed: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new(),
        };
        let mut events = Events::with_capacity(256);
        let mut progress = pace.began();
        let most = self.shape.connections * self.shape.inflight;
        loop {
            let now = Instant::now();
            let mut asked = 0;
            while let Some(due) = pace.due(now) {
                let Some(index) = self.free.pop_front() else {
                    break;
                };
                pace.step();
                self.ask(index, due);
                asked += 1;
            }
            // What is due at once on a connection leaves in one write.
            if asked > 0 {
                for index in 0..self.connections.len() {
                    self.write(index)?;
                }
            }
            if pace.is_over(now) && self.free.len() == most {
                window.elapsed = progress - pace.began();
                return Ok(window);
            }
            if now - progress > STALL {
                return Err(format!("no answer for {} s", STALL.as_secs()));
            }
            crate::wait(&mut self.poll, &mut events, pace.patience(now))?;
            for event in &events {
                let index = event.token().0;
                if event.is_readable() {
                    let mut answered = 0;
                    self.read(index, |due| {
                        progress = Instant::now();
                        window.latency.record(progress - due);
                        answered += 1;
                    })?;
                    window.completed += answered;
                    self.free.extend((0..answered).map(|_| index));
                }
                self.write(index)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{frame, head, is_200};

    #[test]
    fn frames_and_heads_are_those_of_the_rfcs() {
        assert_eq!(
            frame(6, 1, 0, b"12345678"),
            b"\0\0\x08\x06\x01\0\0\0\x0012345678"
        );
        assert_eq!(head("t", "/", true), b"\x82\x86\x84\x41\x01t");
        assert_eq!(head("t", "/a", false), b"\x82\x86\x04\x02/a\xbe");
    }

    #[test]
    fn status_is_the_first_field() {
        assert!(is_200(b"\x88\x61"));
        assert!(is_200(b"\x20\x3f\x88"), "after changes of the table's size");
        assert!(!is_200(b"\x8d\x88"));
        assert!(!is_200(b""));
    }
}
