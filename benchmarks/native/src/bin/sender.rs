//! The limit of sending a topic to many viewers: one picture in memory, one epoll, one `write` per viewer and picture.
//!
//! `sender --port P --rate PER_S --bytes N`. Whoever connects and asks for anything gets a head and then, at the
//! rate, parts of `multipart/x-mixed-replace` with N bytes each. A viewer whose last part has not left misses one, as with
//! everybody else. No shared memory, no chunks, no protocol but the bytes of the parts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use framegate_bench_native::arguments::Arguments;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: multipart/x-mixed-replace; boundary=frame\r\n\r\n";

struct Viewer {
    stream: TcpStream,
    /// It has asked.
    asked: bool,
    /// Bytes of the part that have not left.
    left: usize,
}

impl Viewer {
    /// Writes what is left of the part; false when the viewer is gone.
    fn write(&mut self, part: &[u8]) -> bool {
        while self.left > 0 {
            match self.stream.write(&part[part.len() - self.left..]) {
                Ok(count) => self.left -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what the viewer says, which is its request; false when it is gone.
    fn read(&mut self) -> bool {
        let mut request = [0; 4096];
        loop {
            match self.stream.read(&mut request) {
                Ok(0) => return false,
                // A head on loopback comes in one piece, and its answer finds room.
                Ok(_) => {
                    self.asked = self.asked || self.stream.write_all(HEAD).is_ok();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let port = arguments.take("port", 0_u16)?;
    let rate = arguments.take("rate", 10.0_f64)?;
    let bytes = arguments.take("bytes", 100_000_usize)?;
    arguments.finish()?;
    let io = |error: std::io::Error| error.to_string();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut listener = TcpListener::bind(address).map_err(io)?;
    let mut part =
        format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {bytes}\r\n\r\n")
            .into_bytes();
    part.extend((0..bytes).map(|index| (index * 31 / 7) as u8));
    part.extend(b"\r\n");
    let mut poll = Poll::new().map_err(io)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .map_err(io)?;
    let mut viewers: Vec<Option<Viewer>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let period = Duration::from_secs_f64(1.0 / rate);
    let mut due = Instant::now() + period;
    loop {
        let patience = due.saturating_duration_since(Instant::now());
        match poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(format!("epoll: {error}"));
            }
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    poll.registry()
                        .register(
                            &mut stream,
                            Token(viewers.len()),
                            Interest::READABLE | Interest::WRITABLE,
                        )
                        .map_err(io)?;
                    viewers.push(Some(Viewer {
                        stream,
                        asked: false,
                        left: 0,
                    }));
                }
                continue;
            }
            let place = &mut viewers[event.token().0];
            if let Some(viewer) = place
                && !((!event.is_readable() || viewer.read())
                    && (!event.is_writable() || viewer.write(&part)))
            {
                *place = None;
            }
        }
        if Instant::now() >= due {
            due += period;
            for place in &mut viewers {
                if let Some(viewer) = place
                    && viewer.asked
                    && viewer.left == 0
                {
                    viewer.left = part.len();
                    if !viewer.write(&part) {
                        *place = None;
                    }
                }
            }
        }
    }
}

fn main() -> ExitCode {
    if let Err(message) = run() {
        eprintln!("sender: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
