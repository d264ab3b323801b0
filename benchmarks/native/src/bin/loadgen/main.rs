//! The load generator: HTTP/1.1, HTTP/2 and WebSocket, closed loop or at a fixed rate, one thread.
//!
//! It does one warm-up, waits until all answers are in, prints a line `ready` and waits for a line on its standard
//! input; then it does one measured window, waits again for the last answer and prints one line of JSON. So the driver can
//! read the server's clocks while nothing is under way, and the requests counted are exactly those paid for.
//!
//! Any answer that is not the expected one ends the program: a run with errors is no measurement.

mod histogram;
mod http;
mod http2;
mod pace;
mod websocket;

use std::io::{BufRead as _, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use framegate_bench_native::arguments::Arguments;
use mio::{Events, Interest, Poll, Token};

use crate::pace::{Pace, Window};

const USAGE: &str = "usage:
  loadgen http --port P [--path /] [--conns 64] [--size BODY_BYTES] [--rate PER_S] [--seconds 3] [--warmup 0.5]
               [--body-file JSON] [--status 200]
  loadgen h2 --port P [--path /] [--conns 8] [--inflight 8] [--answer 13] ...
  loadgen ws --port P [--path /ws] [--conns 32] [--inflight 16] [--size 128] [--rate MESSAGES_PER_S --burst 16]
             [--frames 1 --answer 9] ...
Without --rate: closed loop. With --size, http sends POSTs whose first 16 bytes are the time at which they were
due (nanoseconds since 1970) and their number, little-endian. ws --frames 1: messages are frames for a topic, with the
head of the frame routes' protocol before such a time, and are answered by --answer bytes, not by an echo. h2: answers of --answer bytes, --inflight requests
under way on each connection. http --body-file: POSTs of that JSON; --status is that of every answer.";

/// How often a stuck peer is looked for; a run without any progress for this long is given up.
const STALL: Duration = Duration::from_secs(10);

/// A connection that is there before anything is measured.
fn blocking_connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| format!("{address}: {error}"))?;
    Ok(stream)
}

/// One that is polled for reading and writing, under the name `index`.
fn connect(poll: &Poll, address: SocketAddr, index: usize) -> Result<mio::net::TcpStream, String> {
    let stream = blocking_connect(address)?;
    register(poll, stream, index)
}

fn register(poll: &Poll, stream: TcpStream, index: usize) -> Result<mio::net::TcpStream, String> {
    stream
        .set_nonblocking(true)
        .map_err(|error| error.to_string())?;
    let mut stream = mio::net::TcpStream::from_std(stream);
    poll.registry()
        .register(
            &mut stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )
        .map_err(|error| format!("epoll: {error}"))?;
    Ok(stream)
}

/// Waits for events; a signal only ends the wait.
fn wait(poll: &mut Poll, events: &mut Events, patience: Duration) -> Result<(), String> {
    match poll.poll(events, Some(patience)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(format!("epoll: {error}")),
        _ => Ok(()),
    }
}

fn wait_for_word() -> Result<(), String> {
    println!("ready");
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => Err("the driver is gone".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("standard input: {error}")),
    }
}

/// The body in that file; none where no file is named.
fn read_body(file: &str) -> Result<Vec<u8>, String> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    match std::fs::read(file) {
        Ok(body) if body.is_empty() => Err(format!("{file} is empty")),
        Ok(body) => Ok(body),
        Err(error) => Err(format!("{file}: {error}")),
    }
}

/// Something that can carry out one window of load on connections that it keeps.
trait Load {
    fn window(&mut self, pace: Pace) -> Result<Window, String>;
}

fn run() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let command = words.next().ok_or(USAGE)?;
    let mut arguments = Arguments::parse(words)?;
    let port = arguments.take("port", 0_u16)?;
    let seconds = arguments.take("seconds", 3.0_f64)?;
    let warmup = arguments.take("warmup", 0.5_f64)?;
    let rate = arguments.take("rate", 0.0_f64)?;
    if !(seconds > 0.0 && warmup >= 0.0 && rate >= 0.0) {
        return Err("--seconds must be positive, --warmup and --rate not negative".to_owned());
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut units_per_step = 1_u32;
    let mut load: Box<dyn Load> = match command.as_str() {
        "http" => {
            let shape = http::Shape {
                path: arguments.take("path", "/".to_owned())?,
                connections: arguments.take("conns", 64)?,
                stamped_bytes: arguments.take("size", 0)?,
                json: read_body(&arguments.take("body-file", String::new())?)?,
                status: arguments.take("status", 200)?,
            };
            arguments.finish()?;
            Box::new(http::Http::connect(address, shape)?)
        }
        "h2" => {
            let path = arguments.take("path", "/".to_owned())?;
            let shape = http2::Shape {
                connections: arguments.take("conns", 8)?,
                inflight: arguments.take("inflight", 8)?,
                answer_bytes: arguments.take("answer", 13)?,
            };
            arguments.finish()?;
            Box::new(http2::Http2::connect(address, &path, shape)?)
        }
        "ws" => {
            let path = arguments.take("path", "/ws".to_owned())?;
            let connections = arguments.take("conns", 32)?;
            let inflight = arguments.take("inflight", 16)?;
            let size = arguments.take("size", 128)?;
            units_per_step = arguments.take("burst", inflight)?;
            let has_head = arguments.take("frames", 0_u8)? != 0;
            let answer_bytes = arguments.take("answer", size)?;
            arguments.finish()?;
            if !(1..=inflight).contains(&units_per_step) {
                return Err(format!("--burst must be from 1 to --inflight ({inflight})"));
            }
            let shape = websocket::Shape {
                inflight,
                burst: units_per_step,
                size,
                has_head,
                answer_bytes,
            };
            Box::new(websocket::WebSocket::connect(
                address,
                &path,
                connections,
                shape,
            )?)
        }
        _ => return Err(USAGE.to_owned()),
    };
    let steps_per_second = rate / f64::from(units_per_step);
    if warmup > 0.0 {
        load.window(Pace::start(steps_per_second, warmup))?;
    }
    wait_for_word()?;
    let window = load.window(Pace::start(steps_per_second, seconds))?;
    let elapsed = window.elapsed.as_secs_f64();
    println!(
        "{{\"completed\": {}, \"elapsed_s\": {elapsed:.6}, \"per_s\": {:.3}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"max_us\": {:.1}}}",
        window.completed,
        window.completed as f64 / elapsed,
        window.latency.quantile_us(0.50),
        window.latency.quantile_us(0.99),
        window.latency.quantile_us(1.0),
    );
    Ok(())
}

fn main() -> ExitCode {
    if let Err(message) = run() {
        eprintln!("loadgen: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
