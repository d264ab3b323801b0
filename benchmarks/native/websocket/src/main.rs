//! Echoes of WebSocket messages by one codec each, with nothing around it: one thread of tokio's current-thread runtime, plain
//! TCP, an opening handshake of ten lines, no Python.
//!
//! `framegate`: the session of `rust/http`, as the server uses it; the handler sends back each message in its turn.
//! `fastwebsockets`: as its own echo server does it, frame by frame; its write of a frame is a write to the socket.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;

use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket, WebSocketError};
use framegate_bench_native::arguments::Arguments;
use framegate_http::websocket::message::{MessageBuffer, MessageSink};
use framegate_http::websocket::outbox::Outbox;
use framegate_http::websocket::session::{Closed, Handler, Session, Settings};
use framegate_http::websocket::{Failure, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const USAGE: &str = "usage: websocket_codec framegate|fastwebsockets --port P";

#[derive(Clone, Copy)]
enum Codec {
    Framegate,
    FastWebSockets,
}

/// The handler of framegate's session.
struct Echo {
    outbox: Rc<Outbox>,
    kind: Kind,
    buffer: MessageBuffer,
}

impl Echo {
    fn answer(&self, kind: Kind, payload: &[u8]) {
        match kind {
            // The codec has checked it; the check in here is the price of the safe function.
            Kind::Text => self
                .outbox
                .text(std::str::from_utf8(payload).unwrap_or_default()),
            Kind::Binary => self.outbox.binary(payload),
        };
    }
}

impl MessageSink for Echo {
    fn begin(&mut self, kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        self.kind = kind;
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        self.buffer.space(want)
    }

    fn filled(&mut self, count: usize) {
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        let message = self.buffer.take();
        self.answer(self.kind, &message);
        Ok(())
    }

    fn whole(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        self.answer(kind, payload);
        Ok(())
    }
}

impl Handler for Echo {
    fn wants_message(&self) -> bool {
        // What a server bounds by its queue.
        self.outbox.buffered() < 1 << 20
    }

    fn turn(&mut self) {}

    fn closed(&mut self, _closed: Closed) {}
}

/// Reads the head of a request; true when it asks for a WebSocket, which is then open. Nothing may come behind the head.
async fn handshake(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(false);
        }
    }
    let asks = head.to_ascii_lowercase();
    let asks = asks.windows(18).any(|line| line == b"upgrade: websocket");
    let answer: &[u8] = if asks {
        // The load generator always sends the key of the RFC's example.
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    } else {
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    };
    stream.write_all(answer).await?;
    Ok(asks)
}

async fn by_framegate(stream: TcpStream) {
    let outbox = Outbox::new();
    let echo = Echo {
        outbox: Rc::clone(&outbox),
        kind: Kind::Binary,
        buffer: MessageBuffer::default(),
    };
    Session::new(stream, &[], Settings::default(), outbox, echo).await;
}

async fn by_fastwebsockets(stream: TcpStream) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn serve(codec: Codec, port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(async move {
            if !handshake(&mut stream).await.unwrap_or(false) {
                return;
            }
            match codec {
                Codec::Framegate => by_framegate(stream).await,
                // The peer going away is how every echo ends.
                Codec::FastWebSockets => drop(by_fastwebsockets(stream).await),
            }
        });
    }
}

fn main() -> ExitCode {
    let run = || -> Result<(), String> {
        let mut words = std::env::args().skip(1);
        let codec = match words.next().as_deref() {
            Some("framegate") => Codec::Framegate,
            Some("fastwebsockets") => Codec::FastWebSockets,
            _ => return Err(USAGE.to_owned()),
        };
        let mut arguments = Arguments::parse(words)?;
        let port = arguments.take("port", 0)?;
        arguments.finish()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        LocalSet::new()
            .block_on(&runtime, serve(codec, port))
            .map_err(|error| format!("port {port}: {error}"))
    };
    if let Err(message) = run() {
        eprintln!("{message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
