//! iceoryx2 from Rust, measured; prints JSON. The arguments and the protocol of the two processes are
//! those of `../framegate/shm_framegate.cpp`.
//!
//! The sleeping reader is woken by iceoryx2's event service; `--wake spin` polls and wakes nobody.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;

type Failure = Box<dyn std::error::Error>;
type Frame = Sample<ipc::Service, [u8], ()>;

const WARMUP_FRAMES: usize = 12;
const BATCH: u64 = 20_000;

struct Options {
    mode: String,
    wake: String,
    size: usize,
    seconds: f64,
    cores: String,
    touch: bool,
    write_to: Option<String>,
}

fn options() -> Option<Options> {
    let mut words = std::env::args().skip(1);
    let mut found = Options {
        mode: words.next()?,
        wake: "event".into(),
        size: 64,
        seconds: 0.5,
        cores: String::new(),
        touch: false,
        write_to: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--touch" => found.touch = true,
            "--wake" => found.wake = words.next()?,
            "--size" => found.size = words.next()?.parse().ok()?,
            "--seconds" => found.seconds = words.next()?.parse().ok()?,
            "--cores" => found.cores = words.next()?,
            "--write-to" => found.write_to = Some(words.next()?),
            _ => return None,
        }
    }
    Some(found)
}

/// Nanoseconds of the real-time clock, which both processes share: steady enough for microseconds,
/// and the standard library reads it without unsafe code.
fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64
}

fn percentile(sorted: &[u64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)] as f64 / 1000.0
}

// ---- one process

/// Send alone, or send, receive and release, of 64 bytes as one fixed type.
fn cycle(options: &Options) -> Result<(), Failure> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let name = format!("bench-{}", std::process::id());
    let service = node
        .service_builder(&name.as_str().try_into()?)
        .publish_subscribe::<[u64; 8]>()
        .create()?;
    let publisher = service.publisher_builder().create()?;
    let subscriber = match options.mode.as_str() {
        "send" => None,
        _ => Some(service.subscriber_builder().create()?),
    };
    let mut batches = Vec::new();
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < options.seconds || batches.len() < 10 {
        let batch = Instant::now();
        for i in 0..BATCH {
            if options.mode == "empty" {
                if let Some(subscriber) = &subscriber {
                    std::hint::black_box(subscriber.receive()?);
                }
                continue;
            }
            let sample = publisher.loan_uninit()?;
            sample.write_payload([i; 8]).send()?;
            if let Some(subscriber) = &subscriber {
                std::hint::black_box(subscriber.receive()?.ok_or("nothing was received")?);
            }
        }
        batches.push(batch.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    batches.sort_by(f64::total_cmp);
    println!("{{\"ns\": {:.2}}}", batches[batches.len() / 2]);
    Ok(())
}

// ---- two processes

struct Reader {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Listener<ipc::Service>,
    spins: bool,
}

impl Reader {
    fn receive(&self) -> Result<Frame, Failure> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(sample);
            }
            if !self.spins {
                self.listener.blocking_wait(|_| {})?;
            }
        }
    }
}

struct Writer {
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Notifier<ipc::Service>,
    source: Vec<u8>,
    spins: bool,
}

impl Writer {
    fn send(&self) -> Result<(), Failure> {
        let sample = self.publisher.loan_slice_uninit(self.source.len())?;
        sample.write_from_slice(&self.source).send()?;
        if !self.spins {
            self.notifier.notify()?;
        }
        Ok(())
    }
}

type Data = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Wake = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

fn services(node: &Node<ipc::Service>, name: &str) -> Result<(Data, Wake), Failure> {
    let data = node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u8]>()
        .open_or_create()?;
    let wake = node
        .service_builder(&format!("{name}-wake").as_str().try_into()?)
        .event()
        .open_or_create()?;
    Ok((data, wake))
}

fn write(options: &Options, name: &str) -> Result<(), Failure> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let (data, wake) = services(&node, name)?;
    let mut writer = Writer {
        publisher: data
            .publisher_builder()
            .initial_max_slice_len(options.size)
            .create()?,
        notifier: wake.notifier_builder().create()?,
        // Not zeros: pages that nobody wrote would all be one page, which is cheap to read.
        source: vec![1; options.size],
        spins: options.wake == "spin",
    };
    let mut told = std::io::stdin();
    let mut byte = [0];
    std::io::stdout().write_all(b"r")?;
    std::io::stdout().flush()?;
    while told.read(&mut byte)? == 1 && byte[0] == b'g' {
        if options.mode == "latency" {
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_micros(200) {}
            writer.source[..8].copy_from_slice(&now_ns().to_le_bytes());
            writer.send()?;
        } else {
            let end = Instant::now() + Duration::from_secs_f64(options.seconds + 0.3);
            while Instant::now() < end {
                for _ in 0..8 {
                    writer.send()?;
                }
            }
        }
    }
    Ok(())
}

fn touch(frame: &[u8]) -> u64 {
    frame.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

fn read(options: &Options) -> Result<(), Failure> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let name = format!("bench-{}", std::process::id());
    let (data, wake) = services(&node, &name)?;
    let reader = Reader {
        subscriber: data.subscriber_builder().create()?,
        listener: wake.listener_builder().create()?,
        spins: options.wake == "spin",
    };
    let core = options.cores.split(',').nth(1).ok_or("--cores A,B")?;
    let mut peer = Command::new("taskset")
        .args(["-c", core])
        .arg(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .args(["--write-to", &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pace = peer.stdin.take().ok_or("no pipe")?;
    let mut byte = [0];
    peer.stdout.take().ok_or("no pipe")?.read_exact(&mut byte)?;
    let line = if options.mode == "latency" {
        let mut times = Vec::new();
        let mut began = Instant::now();
        for frames in 0.. {
            if frames == WARMUP_FRAMES {
                times.clear();
                began = Instant::now();
            }
            pace.write_all(b"g")?;
            let frame = reader.receive()?;
            if options.touch {
                std::hint::black_box(touch(&frame));
            }
            let now = now_ns();
            let stamp = frame.get(..8).ok_or("too short")?;
            times.push(now - u64::from_le_bytes(stamp.try_into()?));
            if frames > WARMUP_FRAMES && began.elapsed().as_secs_f64() > options.seconds {
                break;
            }
        }
        times.sort_unstable();
        let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
        format!(
            "{{\"frames\": {}, \"p50_us\": {p50:.3}, \"p99_us\": {p99:.3}}}",
            times.len()
        )
    } else {
        pace.write_all(b"g")?;
        reader.receive()?;
        let began = Instant::now();
        let mut frames = 0_u64;
        while began.elapsed().as_secs_f64() < options.seconds {
            let frame = reader.receive()?;
            if options.touch {
                std::hint::black_box(touch(&frame));
            }
            frames += 1;
        }
        let per_s = frames as f64 / began.elapsed().as_secs_f64();
        let gb_per_s = per_s * options.size as f64 / 1e9;
        format!("{{\"frames_per_s\": {per_s:.1}, \"gb_per_s\": {gb_per_s:.3}}}")
    };
    pace.write_all(b"e")?;
    peer.wait()?;
    println!("{line}");
    Ok(())
}

fn main() -> Result<(), Failure> {
    set_log_level(LogLevel::Error);
    let options = options().ok_or("shm_iceoryx2 cycle|send|empty|latency|throughput [options]")?;
    match (&options.write_to, options.mode.as_str()) {
        (Some(name), _) => write(&options, name),
        (None, "latency" | "throughput") => read(&options),
        (None, _) => cycle(&options),
    }
}
