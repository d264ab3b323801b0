//! CPU of the server's thread per ingested body: `ingest_cpu [frames] [bytes] [direct|plain] [milliseconds between bodies]`.
//!
//! `plain` takes the body in pieces and copies them, as every other reader of a body does. The client is a process of its own.
use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    rc::Rc,
    thread,
    time::Duration,
};

use framegate_http::{
    Config, Server,
    ingest::{FrameSink, FrameSlot, IngestError, Published, ingest},
    service::{Response, ResponseFuture, service_fn},
};

const SLOTS: usize = 8;

/// A ring of slots, used in turn as those of a topic are.
#[derive(Default)]
struct Ring {
    slots: RefCell<Vec<Vec<u8>>>,
    reads: Cell<u64>,
}

#[derive(Clone, Default)]
struct Topic(Rc<Ring>);

struct Slot(Topic, Vec<u8>, usize);

impl FrameSink for Topic {
    fn loan(&self, bytes: Option<u64>) -> Result<Box<dyn FrameSlot>, IngestError> {
        let slot = self.0.slots.borrow_mut().remove(0);
        assert_eq!(bytes, Some(slot.len() as u64));
        Ok(Box::new(Slot(self.clone(), slot, 0)))
    }
}

impl FrameSlot for Slot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.1[self.2..]
    }

    fn filled(&mut self, bytes: usize) {
        self.2 += bytes;
        let reads = &self.0.0.reads;
        reads.set(reads.get() + 1);
    }

    fn publish(mut self: Box<Self>) -> Result<Published, IngestError> {
        let bytes = self.2 as u64;
        self.0
            .0
            .slots
            .borrow_mut()
            .push(std::mem::take(&mut self.1));
        Ok(Published { sequence: 0, bytes })
    }
}

fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let first = text.split(' ').next().expect("three numbers");
    first.parse().expect("a number")
}

fn client(address: &str, frames: usize, bytes: usize, pause: Duration) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let mut request =
        format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    request.resize(request.len() + bytes, 7);
    let mut reply = [0; 4096];
    for _ in 0..frames {
        stream.write_all(&request).expect("the server reads");
        assert_ne!(stream.read(&mut reply).expect("the server answers"), 0);
        thread::sleep(pause);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |n: usize, or| {
        args.get(n)
            .map_or(or, |text| text.parse().expect("a number"))
    };
    let (frames, bytes) = (number(1, 300), number(2, 6_220_800));
    let plain = args.get(3).is_some_and(|kind| kind == "plain");
    let pause_ms = number(4, 0);
    if let Some(address) = args.get(5) {
        return client(
            address,
            frames,
            bytes,
            Duration::from_millis(pause_ms as u64),
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let topic = Topic::default();
    *topic.0.slots.borrow_mut() = vec![vec![1; bytes]; SLOTS];
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let sink = topic.clone();
        let service = service_fn(move |mut request| {
            let sink = sink.clone();
            ResponseFuture::later(async move {
                if plain {
                    let mut slot = sink.loan(request.body.remaining()).expect("a slot");
                    while let Some(data) = request.body.data().await {
                        let data = data.expect("the client stays");
                        slot.space()[..data.len()].copy_from_slice(&data);
                        slot.filled(data.len());
                    }
                    slot.publish().expect("a frame");
                } else {
                    ingest(&mut request.body, &sink, None)
                        .await
                        .expect("a frame");
                }
                Response::new("ok".into())
            })
        });
        let server = Server::new(service, Rc::new(Config::default()), |task| {
            drop(tokio::task::spawn_local(task));
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        server.listen(listener).expect("it listens");
        let kind = if plain { "plain" } else { "direct" };
        let start = thread_cpu_ns();
        let mut child = Command::new(&args[0])
            .args([
                frames.to_string(),
                bytes.to_string(),
                kind.into(),
                pause_ms.to_string(),
                address,
            ])
            .spawn()
            .expect("this program runs");
        while child.try_wait().expect("it is a child").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let spent = thread_cpu_ns() - start;
        let bodies = frames as u64;
        println!(
            "{kind}: {} us per body, {} reads per body",
            spent / 1000 / bodies,
            topic.0.reads.get() / bodies,
        );
    });
}
