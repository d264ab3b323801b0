//! WebSocket load: each connection keeps several messages of one size under way, each of which is echoed or answered.
//!
//! Closed loop: as many new messages as echoes came, in one write. Fixed rate: bursts, evenly spaced, each burst in one
//! write on the next connection that has room for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use framegate_bench_native::wsframe;
use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::histogram::Histogram;
use crate::pace::{Pace, Window};
use crate::{Load, STALL};

/// Numbers that describe the messages.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Most messages under way on one connection.
    pub(crate) inflight: u32,
    /// Messages of one step of a fixed rate.
    pub(crate) burst: u32,
    /// Payload bytes of a message, without its head.
    pub(crate) size: usize,
    /// A head for frame routes and the due time come first.
    pub(crate) has_head: bool,
    /// Payload bytes of each answer.
    pub(crate) answer_bytes: usize,
}

/// Bytes before the payload of a message for frame routes: version 1, the frame's own bytes, 32 of head.
const HEAD_BYTES: usize = 32;
/// Of the due time, in the first bytes of the payload.
const STAMP_BYTES: usize = 8;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Due times of the messages whose echo has not come, oldest first.
    waiting: VecDeque<Instant>,
}

/// WebSocket load on connections that stay open.
pub(crate) struct WebSocket {
    poll: Poll,
    connections: Vec<Connection>,
    shape: Shape,
    /// One masked message.
    message: Vec<u8>,
    /// The connection that the next burst goes to.
    turn: usize,
    /// One moment on both clocks.
    anchor: (Instant, SystemTime),
    buffer: Vec<u8>,
}

fn handshake(
    stream: &mut std::net::TcpStream,
    address: SocketAddr,
    path: &str,
) -> Result<(), String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let io = |error: std::io::Error| format!("WebSocket handshake: {error}");
    stream.set_read_timeout(Some(STALL)).map_err(io)?;
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing behind the head is taken.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(io)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101") {
        Ok(())
    } else {
        Err(format!(
            "WebSocket handshake refused: {}",
            head.escape_ascii()
        ))
    }
}

impl WebSocket {
    pub(crate) fn connect(
        address: SocketAddr,
        path: &str,
        connections: usize,
        shape: Shape,
    ) -> Result<Self, String> {
        let mut message = Vec::new();
        if shape.has_head && shape.size < STAMP_BYTES {
            return Err(format!("--size must be at least {STAMP_BYTES} for frames"));
        }
        let mut payload = Vec::new();
        if shape.has_head {
            payload.extend([1, 0, HEAD_BYTES as u8]);
            payload.resize(HEAD_BYTES, 0);
        }
        payload.resize(payload.len() + shape.size, b'x');
        wsframe::append(&mut message, wsframe::BINARY, &payload, Some(MASK));
        let mut load = Self {
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            connections: Vec::new(),
            shape,
            message,
            turn: 0,
            anchor: (Instant::now(), SystemTime::now()),
            buffer: vec![0; 64 * 1024],
        };
        for index in 0..connections {
            let mut stream = crate::blocking_connect(address)?;
            handshake(&mut stream, address, path)?;
            let stream = crate::register(&load.poll, stream, index)?;
            load.connections.push(Connection {
                stream,
                output: Vec::new(),
                input: Vec::new(),
                waiting: VecDeque::new(),
            });
        }
        Ok(load)
    }

    fn send(&mut self, index: usize, count: u32, due: Instant) -> Result<(), String> {
        if self.shape.has_head {
            self.stamp(due)?;
        }
        let connection = &mut self.connections[index];
        for _ in 0..count {
            connection.output.extend_from_slice(&self.message);
            connection.waiting.push_back(due);
        }
        self.write(index)
    }

    /// Puts the due time where the payload begins.
    fn stamp(&mut self, due: Instant) -> Result<(), String> {
        let wall = self.anchor.1 + (due - self.anchor.0);
        let wall = wall
            .duration_since(UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        let start = self.message.len() - self.shape.size;
        // The head is a multiple of the mask's length.
        let stamp = (wall.as_nanos() as u64).to_le_bytes();
        for (at, byte) in stamp.iter().enumerate() {
            self.message[start + at] = byte ^ MASK[at % MASK.len()];
        }
        Ok(())
    }

    fn write(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let mut sent = 0;
        while sent < connection.output.len() {
            match connection.stream.write(&connection.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        connection.output.drain(..sent);
        Ok(())
    }

    /// Read all echoes that are there; returns how many.
    fn read(&mut self, index: usize, latency: &mut Histogram) -> Result<u32, String> {
        let connection = &mut self.connections[index];
        let mut echoes = 0;
        loop {
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(echoes),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("receiving: {error}")),
            };
            let now = Instant::now();
            connection.input.extend_from_slice(&self.buffer[..count]);
            let mut done = 0;
            while let Some(frame) = wsframe::parse(&connection.input[done..]) {
                match frame.opcode {
                    // The server checks whether we live; the window is shorter than its patience.
                    wsframe::PING => {}
                    wsframe::BINARY if frame.end - frame.start == self.shape.answer_bytes => {
                        let due = connection.waiting.pop_front().ok_or("an echo of nothing")?;
                        latency.record(now - due);
                        echoes += 1;
                    }
                    opcode => {
                        let length = frame.end - frame.start;
                        return Err(format!("frame {opcode:#x} of {length} bytes is no echo"));
                    }
                }
                done += frame.end;
            }
            connection.input.drain(..done);
            if count < self.buffer.len() {
                return Ok(echoes);
            }
        }
    }

    /// The next connection in turn that has room for a burst.
    fn free(&mut self) -> Option<usize> {
        let room = (self.shape.inflight - self.shape.burst) as usize;
        let count = self.connections.len();
        let index = (0..count)
            .map(|offset| (self.turn + offset) % count)
            .find(|&index| self.connections[index].waiting.len() <= room)?;
        self.turn = (index + 1) % count;
        Some(index)
    }
}

impl Load for WebSocket {
    fn window(&mut self, mut pace: Pace) -> Result<Window, String> {
        let mut window = Window {
            completed: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new(),
        };
        let mut events = Events::with_capacity(256);
        let mut progress = pace.began();
        let is_closed_loop = pace.is_closed_loop();
        if is_closed_loop {
            for index in 0..self.connections.len() {
                self.send(index, self.shape.inflight, Instant::now())?;
            }
        }
        loop {
            let now = Instant::now();
            while !is_closed_loop && let Some(due) = pace.due(now) {
                let Some(index) = self.free() else { break };
                pace.step();
                self.send(index, self.shape.burst, due)?;
            }
            if pace.is_over(now) && self.connections.iter().all(|one| one.waiting.is_empty()) {
                window.elapsed = progress - pace.began();
                return Ok(window);
            }
            if now - progress > STALL {
                return Err(format!("no echo for {} s", STALL.as_secs()));
            }
            crate::wait(&mut self.poll, &mut events, pace.patience(now))?;
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.write(index)?;
                }
                if !event.is_readable() {
                    continue;
                }
                let echoes = self.read(index, &mut window.latency)?;
                if echoes > 0 {
                    progress = Instant::now();
                    window.completed += u64::from(echoes);
                    if is_closed_loop && !pace.is_over(progress) {
                        self.send(index, echoes, progress)?;
                    }
                }
            }
        }
    }
}
