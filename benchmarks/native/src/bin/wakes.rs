//! The floor of a call: what it adds to a request that somebody is woken by a futex, and wakes by a descriptor who
//! woke him; nothing else is done.
//!
//! Three threads, as many as a call has processes: a client and a responder on one core, a server on the other one. The
//! client sends a byte over TCP on loopback and waits for one; the server waits in `epoll_wait`. Plainly it answers at
//! once. In a call it wakes the responder by a futex of shared memory, and answers when the responder has written an
//! eventfd. Medians of both in nanoseconds, from blocks in turn.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use framegate_bench_native::arguments::Arguments;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::{CpuSet, futex, sched_setaffinity};

/// Not private to the process: as it is in shared memory.
const SHARED: futex::Flags = futex::Flags::empty();
const WARM_UP: u32 = 100;
const BLOCK: u32 = 50;
const PLAIN: u8 = b'p';
const CALL: u8 = b'c';

fn stay_on(core: usize) -> std::io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Sleeps until it is called, and rings, each time.
fn respond(turn: &AtomicU32, bell: &OwnedFd, calls: u32) -> std::io::Result<()> {
    for next in 1..=calls {
        // Pairs with the store in `serve`.
        while turn.load(Ordering::Acquire) != next {
            match futex::wait(turn, SHARED, next - 1, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        rustix::io::write(bell, &1_u64.to_ne_bytes())?;
    }
    Ok(())
}

/// Answers until the client has gone.
fn serve(mut peer: TcpStream, turn: &AtomicU32, bell: &OwnedFd) -> std::io::Result<()> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&set, bell, data, epoll::EventFlags::IN)?;
    epoll::add(&set, &peer, data, epoll::EventFlags::IN)?;
    let mut events = [epoll::Event {
        flags: epoll::EventFlags::empty(),
        data,
    }];
    let mut byte = [0];
    let mut calls = 0;
    loop {
        while epoll::wait(&set, &mut events, None)? == 0 {}
        if peer.read(&mut byte)? == 0 {
            return Ok(());
        }
        if byte[0] == CALL {
            calls += 1;
            // Pairs with the load in `respond`.
            turn.store(calls, Ordering::Release);
            futex::wake(turn, SHARED, 1)?;
            while epoll::wait(&set, &mut events, None)? == 0 {}
            rustix::io::read(bell, &mut [0; 8])?;
        }
        peer.write_all(&byte)?;
    }
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// The medians of plain requests and of calls.
fn measure(first: usize, second: usize, count: u32) -> std::io::Result<(u64, u64)> {
    let turn = AtomicU32::new(0);
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    for one in [&peer, &accepted] {
        one.set_nodelay(true)?;
    }
    let each = WARM_UP + count.next_multiple_of(BLOCK);
    std::thread::scope(|scope| {
        let responding = scope.spawn(|| {
            stay_on(second)?;
            respond(&turn, &bell, each)
        });
        let serving = scope.spawn(|| {
            stay_on(first)?;
            serve(accepted, &turn, &bell)
        });
        stay_on(second)?;
        let mut ask = |kind: u8| {
            let began = Instant::now();
            peer.write_all(&[kind])?;
            peer.read_exact(&mut [0])?;
            std::io::Result::Ok(began.elapsed().as_nanos() as u64)
        };
        let (mut plain, mut calls) = (Vec::new(), Vec::new());
        for _ in 0..WARM_UP {
            ask(PLAIN)?;
            ask(CALL)?;
        }
        while (calls.len() as u32) < each - WARM_UP {
            for (kind, samples) in [(PLAIN, &mut plain), (CALL, &mut calls)] {
                for _ in 0..BLOCK {
                    samples.push(ask(kind)?);
                }
            }
        }
        peer.shutdown(std::net::Shutdown::Both)?;
        responding.join().expect("it does not panic")?;
        serving.join().expect("it does not panic")?;
        Ok((median(plain), median(calls)))
    })
}

fn run() -> Result<(u64, u64), String> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let first = arguments.take("first", 0)?;
    let second = arguments.take("second", 1)?;
    let count = arguments.take("count", 200)?;
    arguments.finish()?;
    if count == 0 {
        return Err("--count 0: expected a number from 1".into());
    }
    measure(first, second, count).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok((plain, call)) => {
            println!("{plain} {call}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wakes: {error}");
            ExitCode::FAILURE
        }
    }
}
