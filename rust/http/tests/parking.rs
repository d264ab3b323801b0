//! An idle connection gives back its parser and buffers, and works on as if nothing had been.
use crate::common;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use common::{Event, TestServer, collect, hello, ok, quick, run, until};
use framegate_http::{
    Config, Timeouts,
    service::{ConnectionInfo, Handler, Request, ResponseFuture, Service},
};

fn config() -> Config {
    let timeouts = Timeouts {
        park_after: Some(Duration::from_millis(20)),
        ..quick()
    };
    Config {
        timeouts,
        ..Config::default()
    }
}

#[test]
fn fresh_connections_hold_no_parser() {
    run(async {
        let server = TestServer::with(config(), hello);
        let _client = server.connect().await;
        until(|| server.connections.parked() == 1).await;
    });
}

#[test]
fn idle_connection_is_parked_and_serves_on() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "hello");
            until(|| server.connections.parked() == 1).await;
        }
        assert_eq!(server.connections.accepted(), 1);
        drop(client);
        server.connections_become(0).await;
    });
}

#[test]
fn busy_connection_is_not_parked() {
    run(async {
        let server = TestServer::with(config(), |mut request| {
            ResponseFuture::later(async move {
                ok(bytes::Bytes::from(
                    collect(&mut request.body).await.unwrap(),
                ))
            })
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\na")
            .await;
        until(|| server.connections.busy() == 1).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(server.connections.parked(), 0);
        client.send("b").await;
        assert_eq!(client.reply().await.unwrap().text(), "ab");
        until(|| server.connections.parked() == 1).await;
    });
}

/// A body that is wholly in hyper's buffer, and a handler that has answered and reads it later.
#[test]
fn body_that_is_read_after_the_answer_is_not_cut_and_is_no_request() {
    // Whoever takes it for the next request finds one.
    const BODY: &str = "GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n";
    let chunked = BODY.split_inclusive(' ').fold(String::new(), |all, piece| {
        all + &format!("{:x}\r\n{piece}\r\n", piece.len())
    }) + "0\r\n\r\n";
    let with_length = (format!("content-length: {}", BODY.len()), BODY.to_owned());
    let in_chunks = ("transfer-encoding: chunked".to_owned(), chunked);
    // What follows it: nothing, half a request, a whole one.
    for next in ["", "GET /ne", "GET /next HTTP/1.1\r\nhost: t\r\n\r\n"] {
        for (field, body) in [&with_length, &in_chunks] {
            run(async {
                let (go, paths) = (Event::default(), Rc::new(RefCell::new(Vec::new())));
                let got = Rc::new(RefCell::new(None));
                let (told, seen, given) = (go.clone(), paths.clone(), got.clone());
                let server = TestServer::with(config(), move |mut request| {
                    let path = request.head.uri.path().to_owned();
                    seen.borrow_mut().push(path.clone());
                    let (go, given) = (told.clone(), given.clone());
                    if path == "/" {
                        tokio::task::spawn_local(async move {
                            go.wait().await;
                            let body = collect(&mut request.body).await;
                            *given.borrow_mut() = Some(body.map_err(|error| error.to_string()));
                        });
                    }
                    ok(bytes::Bytes::from(path)).into()
                });
                let mut client = server.connect().await;
                client
                    .send(format!(
                        "POST / HTTP/1.1\r\nhost: t\r\n{field}\r\n\r\n{body}{next}"
                    ))
                    .await;
                assert_eq!(client.reply().await.unwrap().text(), "/");
                // Another one that came later is parked: this one was looked at as often.
                let mut other = server.connect().await;
                assert_eq!(other.get("/other").await.text(), "/other");
                until(|| server.connections.parked() > 0).await;
                assert_eq!(server.connections.parked(), 1);
                go.set();
                until(|| got.borrow().is_some()).await;
                assert_eq!(got.take().unwrap().unwrap(), BODY.as_bytes());
                let rest = "GET /next HTTP/1.1\r\nhost: t\r\n\r\n".strip_prefix(next);
                client.send(rest.unwrap()).await;
                assert_eq!(client.reply().await.unwrap().text(), "/next");
                // hyper goes on to the next one when it has given out the last piece of a body.
                paths.borrow_mut().sort();
                assert_eq!(*paths.borrow(), ["/", "/next", "/other"]);
                until(|| server.connections.parked() == 2).await;
            });
        }
    }
}

#[test]
fn half_a_head_is_not_parked_and_not_lost() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        client
            .send("GET / HTTP/1.1\r\nhost: t\r\n\r\nGET / HT")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(server.connections.parked(), 0);
        client.send("TP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
    });
}

#[test]
fn blank_lines_between_requests_survive_parking() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(client.get("/").await.text(), "hello");
    });
}

#[test]
fn thousand_idle_connections_are_parked_and_counted() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut clients = Vec::new();
        for _ in 0..1000 {
            let mut client = server.connect().await;
            assert_eq!(client.get("/").await.text(), "hello");
            clients.push(client);
        }
        until(|| server.connections.parked() == 1000).await;
        assert_eq!(server.connections.count(), 1000);
        for client in &mut clients {
            assert_eq!(client.get("/").await.text(), "hello");
        }
        drop(clients);
        server.connections_become(0).await;
    });
}

/// Counts how often its handlers were told to rest.
#[derive(Default)]
struct Resting(Rc<Cell<usize>>);

impl Service for Resting {
    fn open(&self, _: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(Self(self.0.clone()))
    }
}

impl Handler for Resting {
    fn call(&self, request: Request) -> ResponseFuture {
        hello(request)
    }

    fn rest(&self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn handler_rests_when_its_connection_is_parked() {
    run(async {
        let rests = Rc::new(Cell::new(0));
        let server = TestServer::with_service(config(), Rc::new(Resting(rests.clone())));
        let mut client = server.connect().await;
        until(|| server.connections.parked() == 1).await;
        assert_eq!(rests.get(), 0, "it was not asked for anything yet");
        for number in 1..=2 {
            assert_eq!(client.get("/").await.text(), "hello");
            until(|| server.connections.parked() == 1).await;
            assert_eq!(rests.get(), number);
        }
    });
}

thread_local! {
    static GIVEN_BACK: Cell<usize> = const { Cell::new(0) };
}

/// Serves so many connections until they are parked, and for some sweeps longer; tells how often memory was given back.
fn given_back(connections: usize) -> usize {
    GIVEN_BACK.set(0);
    run(async move {
        let config = Config {
            give_back: Some(|| GIVEN_BACK.set(GIVEN_BACK.get() + 1)),
            ..config()
        };
        let period = config.timeouts.sweep;
        let server = TestServer::with(config, hello);
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(server.connect().await);
        }
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        }
        for client in &mut clients {
            assert_eq!(client.reply().await.unwrap().text(), "hello");
        }
        until(|| server.connections.parked() == connections).await;
        tokio::time::sleep(period * 5).await;
    });
    GIVEN_BACK.get()
}

#[test]
fn memory_is_given_back_when_many_connections_fall_silent() {
    assert!(given_back(32) > 0);
    assert_eq!(given_back(31), 0, "that is not worth it");
}
