//! The floor of the frame path: what it costs to get a body out of a socket into warm memory, and nothing else.
//!
//! One thread, one connection at a time, blocking reads of the body straight into one of eight buffers in turn (as
//! many as the ring written by hand has slots). No event loop, no shared memory, no consumer: whatever receives over
//! TCP without a second copy pays at least this. With `--copy 1` the bytes are read into one small buffer and copied
//! from there: what receives over TCP and copies once pays at least that.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;

use framegate_bench_native::arguments::Arguments;

const SLOTS: usize = 8;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Length of the body that a request head announces.
fn body_bytes(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}

/// Bytes of one read that is copied from: they stay in the cache.
const COPY_BYTES: usize = 128 * 1024;

/// Reads until `into` is full.
fn fill(stream: &mut TcpStream, mut into: &mut [u8], copies: bool) -> std::io::Result<()> {
    if !copies {
        return stream.read_exact(into);
    }
    let mut buffer = vec![0; COPY_BYTES];
    while !into.is_empty() {
        let room = into.len().min(COPY_BYTES);
        let count = match stream.read(&mut buffer[..room])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => count,
        };
        let (now, later) = into.split_at_mut(count);
        now.copy_from_slice(&buffer[..count]);
        into = later;
    }
    Ok(())
}

fn serve(mut stream: TcpStream, slots: &mut [Vec<u8>], copies: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut turn = 0;
    let mut input = vec![0; 4096];
    loop {
        let mut filled = 0;
        let head_end = loop {
            if let Some(at) = input[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
            match stream.read(&mut input[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
        };
        let length = body_bytes(&String::from_utf8_lossy(&input[..head_end])).unwrap_or(0);
        let slot = &mut slots[turn];
        turn = (turn + 1) % SLOTS;
        if slot.len() < length {
            *slot = vec![1; length];
        }
        let early = filled - head_end;
        if early > length {
            return Err(std::io::Error::other(
                "pipelined requests are not understood",
            ));
        }
        slot[..early].copy_from_slice(&input[head_end..filled]);
        fill(&mut stream, &mut slot[early..length], copies)?;
        stream.write_all(ANSWER)?;
    }
}

fn main() -> ExitCode {
    let run = || -> Result<(), String> {
        let mut arguments = Arguments::parse(std::env::args().skip(1))?;
        let port = arguments.take("port", 0_u16)?;
        let copies = arguments.take("copy", 0_u8)? != 0;
        arguments.finish()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| format!("port {port}: {error}"))?;
        let mut slots = vec![Vec::new(); SLOTS];
        loop {
            let (stream, _) = listener.accept().map_err(|error| error.to_string())?;
            // A client that goes away is no reason to stop.
            let _ = serve(stream, &mut slots, copies);
        }
    };
    if let Err(message) = run() {
        eprintln!("receive: {message}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
