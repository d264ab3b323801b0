//! A server without connections has nothing to do, and a parked connection costs little.
#![expect(unsafe_code, reason = "counting what is allocated needs an allocator")]
mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use common::{hello, quick, run, until};
use framegate_http::{Config, Server, Task, Timeouts, service::service_fn};

/// The system's allocator, with a count of the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; its caller keeps the contract of `GlobalAlloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `memory` came from `alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, because all tests of a file share the allocator.
#[test]
fn idle_server_does_nothing_and_parked_connections_cost_little() {
    const CLIENTS: usize = 500;
    run(async {
        let tasks = Rc::new(Cell::new(0));
        let spawn = {
            let tasks = tasks.clone();
            move |task: Task| {
                let tasks = tasks.clone();
                tasks.set(tasks.get() + 1);
                tokio::task::spawn_local(async move {
                    task.await;
                    tasks.set(tasks.get() - 1);
                });
            }
        };
        let timeouts = Timeouts {
            park_after: Some(Duration::from_millis(50)),
            ..quick()
        };
        let config = Config {
            timeouts,
            ..Config::default()
        };
        let server = Server::new(service_fn(hello), Rc::new(config), spawn);
        let connections = server.connections();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        server.listen(listener).unwrap();
        assert_eq!(tasks.get(), 1, "the accept loop alone");

        let mut clients = Vec::with_capacity(CLIENTS);
        let before = IN_USE.load(Relaxed);
        for _ in 0..CLIENTS {
            // Sockets of the standard library: they allocate nothing.
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
                .unwrap();
            clients.push(client);
            let requests = clients.len() as u64;
            until(|| connections.requests() == requests).await;
        }
        until(|| connections.parked() == CLIENTS).await;
        let each = (IN_USE.load(Relaxed) - before) / CLIENTS;
        assert!(each < 2500, "{each} bytes for each parked connection");
        for client in &mut clients {
            let mut reply = [0; 200];
            let read = client.read(&mut reply).unwrap();
            assert!(reply[..read].ends_with(b"hello"));
        }
        assert_eq!(tasks.get(), 2 + CLIENTS, "one sweep for all of them");

        drop(clients);
        until(|| tasks.get() == 1).await;
        assert_eq!(connections.count(), 0);
        println!("{each} bytes for each parked connection");
    });
}
