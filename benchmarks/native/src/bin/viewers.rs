//! Viewers of a stream that does not end: so many connections, one GET each, whose bytes are read and thrown away.
//!
//! When every viewer has got its first bytes it prints `ready`. Then for every line on its standard input it prints one line
//! of JSON with the bytes since the last one: of all, and of the viewer that got fewest. A connection that ends ends the
//! program: a run with errors is no measurement.

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use framegate_bench_native::arguments::Arguments;
use mio::{Events, Interest, Poll, Token, Waker};

/// For one read; what has come by the time that a viewer has its turn.
const BUFFER_BYTES: usize = 256 * 1024;
/// Without a byte for so long, the run is given up.
const STALL: Duration = Duration::from_secs(20);
const ASKED: Token = Token(usize::MAX);

struct Viewer {
    stream: mio::net::TcpStream,
    bytes: u64,
    begun: bool,
}

fn connect(
    poll: &Poll,
    address: SocketAddr,
    request: &[u8],
    index: usize,
) -> std::io::Result<Viewer> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    stream.set_nonblocking(true)?;
    let mut stream = mio::net::TcpStream::from_std(stream);
    poll.registry()
        .register(&mut stream, Token(index), Interest::READABLE)?;
    Ok(Viewer {
        stream,
        bytes: 0,
        begun: false,
    })
}

impl Viewer {
    /// Reads what there is.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(count) => {
                    if !self.begun && !buffer.starts_with(b"HTTP/1.1 200") {
                        let said = &buffer[..count.min(200)];
                        return Err(format!("not a 200: {}", said.escape_ascii()));
                    }
                    self.begun = true;
                    self.bytes += count as u64;
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receiving: {error}")),
            }
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let port = arguments.take("port", 0_u16)?;
    let connections = arguments.take("conns", 1_usize)?;
    let path = arguments.take("path", "/".to_owned())?;
    arguments.finish()?;
    let io = |error: std::io::Error| error.to_string();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let mut poll = Poll::new().map_err(io)?;
    let waker = Waker::new(poll.registry(), ASKED).map_err(io)?;
    let mut viewers = (0..connections)
        .map(|index| connect(&poll, address, &request, index))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("connecting to {address}: {error}"))?;
    let (asks, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || asks.send(()).is_err() || waker.wake().is_err() {
                break;
            }
        }
        // The driver is gone.
        std::process::exit(0);
    });
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut is_ready = false;
    loop {
        match poll.poll(&mut events, Some(STALL)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(format!("epoll: {error}"));
            }
            _ => {}
        }
        if events.is_empty() {
            return Err(format!("not a byte for {} s", STALL.as_secs()));
        }
        for event in &events {
            if event.token() != ASKED {
                viewers[event.token().0].read(&mut buffer)?;
            }
        }
        if !is_ready && viewers.iter().all(|viewer| viewer.begun) {
            is_ready = true;
            println!("ready");
        }
        while asked.try_recv().is_ok() {
            let total: u64 = viewers.iter().map(|viewer| viewer.bytes).sum();
            let least = viewers.iter().map(|viewer| viewer.bytes).min().unwrap_or(0);
            println!("{{\"bytes\": {total}, \"least\": {least}}}");
            for viewer in &mut viewers {
                viewer.bytes = 0;
            }
        }
    }
}

fn main() -> ExitCode {
    if let Err(message) = run() {
        eprintln!("viewers: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
