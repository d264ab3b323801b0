//! The other end, as tests need it: a server that speaks raw bytes, and one that is framegate's own.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]

use std::{collections::HashMap, future::Future, time::Duration};

use framegate_client::{Client, Proxy, Settings};
use framegate_http::websocket::handshake::accept_value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Longest time that a test may take; only a bug takes it.
const WATCHDOG: Duration = Duration::from_secs(30);

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Runs a test.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local
        .block_on(&runtime, async {
            tokio::time::timeout(WATCHDOG, test).await
        })
        .expect("the test hangs")
}

/// Settings that no variable of the machine changes.
pub fn settings() -> Settings {
    Settings {
        proxy: Proxy::Off,
        ..Settings::default()
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Request {
    pub line: String,
    pub fields: HashMap<String, String>,
}

/// Reads a head, byte by byte, so that nothing behind it is taken.
pub async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Request {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    });
    Request {
        line,
        fields: fields.collect(),
    }
}

/// The answer that opens a WebSocket, with these lines in it, each with its line break.
pub fn switching(request: &Request, more: &str) -> String {
    let accept = accept_value(request.fields["sec-websocket-key"].as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{more}\r\n",
        accept.to_str().unwrap()
    )
}

/// A server that waits for one client.
pub struct Peer {
    listener: TcpListener,
    pub url: String,
    pub port: u16,
}

impl Peer {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            listener,
            url: format!("ws://127.0.0.1:{port}/chat"),
            port,
        }
    }

    pub async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Opens a WebSocket between a client and raw bytes.
    pub async fn open(&self, settings: &Settings, more: &str) -> (Client, Far<TcpStream>) {
        let (client, far) = tokio::join!(Client::connect(&self.url, settings), async {
            let mut stream = self.accept().await;
            let request = read_request(&mut stream).await;
            let answer = switching(&request, more);
            stream.write_all(answer.as_bytes()).await.unwrap();
            Far { stream }
        });
        (client.unwrap(), far)
    }
}

/// An open WebSocket between a client and raw bytes, with these settings.
pub async fn pair(settings: &Settings) -> (Client, Far<TcpStream>) {
    Peer::new().await.open(settings, "").await
}

/// The server's end of a WebSocket.
pub struct Far<S> {
    pub stream: S,
}

/// A frame of a server: not masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

pub fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload)
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Far<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads one frame of the client: first byte, key and payload. `None` at the end of the stream.
    pub async fn read_masked(&mut self) -> Option<(u8, [u8; 4], Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let second = self.stream.read_u8().await.ok()?;
        assert!(second & 0x80 != 0, "a client's frame is masked");
        let length = match second & 0x7f {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut key = [0; 4];
        self.stream.read_exact(&mut key).await.ok()?;
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        Some((first, key, payload))
    }

    /// Reads one final frame of the client: opcode and payload.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, _, payload) = self.read_masked().await?;
        assert_eq!(first & 0xf0, 0x80, "final, without reserved bits");
        Some((first & 0x0f, payload))
    }

    /// Reads a close frame, then the end of the stream.
    pub async fn read_close(&mut self) -> Option<(u16, String)> {
        let (opcode, payload) = self.read().await.expect("a close frame comes");
        assert_eq!(opcode, CLOSE, "{payload:?}");
        if payload.is_empty() {
            return None;
        }
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        Some((code, String::from_utf8(payload[2..].to_vec()).unwrap()))
    }
}
