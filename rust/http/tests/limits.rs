//! Sizes and counts, on both sides of each limit. Those of heads are in `strictness.rs`.
use crate::common;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use bytes::Bytes;
use common::{Client, Event, TestServer, collect, hello, ok, run, until};
use framegate_http::{
    Config, Error, Limits,
    service::{Request, ResponseFuture},
};

fn config(limits: Limits) -> Config {
    Config {
        limits,
        ..Config::default()
    }
}

fn body_limit(bytes: u64) -> Config {
    config(Limits {
        body_bytes_max: Some(bytes),
        ..Limits::default()
    })
}

/// Answers with the number of bytes of the body.
fn count(mut request: Request) -> ResponseFuture {
    ResponseFuture::later(async move {
        match collect(&mut request.body).await {
            Ok(body) => ok(Bytes::from(body.len().to_string())),
            Err(error) => {
                assert!(error.is_too_large(), "{error:?}");
                ok("what is said now is not sent")
            }
        }
    })
}

fn chunked(chunks: &[usize]) -> String {
    use std::fmt::Write;
    let mut request =
        String::from("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
    for &size in chunks {
        write!(request, "{size:x}\r\n{}\r\n", "x".repeat(size)).unwrap();
    }
    request + "0\r\n\r\n"
}

#[test]
fn declared_body_over_the_limit_is_413_before_a_byte_is_read() {
    run(async {
        let calls = Rc::new(Cell::new(0));
        let server = {
            let calls = calls.clone();
            TestServer::with(body_limit(1000), move |request| {
                calls.set(calls.get() + 1);
                count(request)
            })
        };
        let mut client = server.connect().await;
        let head =
            |bytes: u64| format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {bytes}\r\n\r\n");
        client.send(head(1000) + &"x".repeat(1000)).await;
        assert_eq!(client.reply().await.unwrap().text(), "1000");
        client.send(head(1001)).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.status, 413);
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(client.is_closed().await);
        assert_eq!(calls.get(), 1, "the handler never saw it");
    });
}

#[test]
fn client_that_waits_for_continue_gets_the_413_in_its_place() {
    run(async {
        let server = TestServer::with(body_limit(10), count);
        let mut client = server.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n",
            )
            .await;
        assert_eq!(client.reply().await.unwrap().status, 413);
        assert!(client.is_closed().await);
    });
}

#[test]
fn chunked_body_over_the_limit_is_413_on_the_way() {
    run(async {
        let seen = Rc::new(RefCell::new(None));
        let server = {
            let seen = seen.clone();
            TestServer::with(body_limit(1000), move |mut request| {
                let seen = seen.clone();
                ResponseFuture::later(async move {
                    match collect(&mut request.body).await {
                        Ok(body) => ok(Bytes::from(body.len().to_string())),
                        Err(error) => {
                            *seen.borrow_mut() = Some(error);
                            // Whatever the handler would do now, the answer is on its way.
                            std::future::pending().await
                        }
                    }
                })
            })
        };
        let mut client = server.connect().await;
        client.send(chunked(&[600, 400])).await;
        assert_eq!(client.reply().await.unwrap().text(), "1000");
        // Without an end: the answer does not wait for it.
        let request = chunked(&[600, 400, 1]);
        client.send(&request[..request.len() - 5]).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.status, 413);
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(seen.take().is_some_and(|error: Error| error.is_too_large()));
        drop(client);
        server.connections_become(0).await;
    });
}

#[test]
fn one_chunk_over_the_limit_is_cut_on_the_way() {
    run(async {
        // A body of any size in one chunk: no more of it than the read buffer is ever held.
        let server = TestServer::with(body_limit(100_000), count);
        let client = server.connect().await;
        let (read, mut write) = client.stream.into_split();
        let sending = tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            let head =
                "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n";
            write.write_all(head.as_bytes()).await.unwrap();
            let mut sent = 0;
            while write.write_all(&[0; 10_000]).await.is_ok() {
                sent += 10_000;
            }
            (write, sent)
        });
        let mut answer = [0; 12];
        let mut read = read;
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer)
            .await
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        let (_write, sent) = sending.await.unwrap();
        assert!(sent < 0x0fff_ffff);
    });
}

#[test]
fn body_over_the_limit_after_the_response_has_begun_fails_for_its_reader_only() {
    run(async {
        let failed = Event::default();
        let server = {
            let failed = failed.clone();
            TestServer::with(body_limit(1000), move |mut request| {
                let failed = failed.clone();
                tokio::task::spawn_local(async move {
                    let error = collect(&mut request.body).await.unwrap_err();
                    assert!(error.is_too_large());
                    failed.set();
                });
                ok("early").into()
            })
        };
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "early");
        client
            .send(format!("3e9\r\n{}\r\n", "x".repeat(1001)))
            .await;
        failed.wait().await;
        assert!(client.is_closed().await);
    });
}

#[test]
fn bodies_are_unlimited_by_default() {
    run(async {
        let server = TestServer::new(count);
        let mut client = server.connect().await;
        client.send(chunked(&[1 << 20; 20])).await;
        assert_eq!(client.reply().await.unwrap().text(), (20 << 20).to_string());
    });
}

#[test]
fn connection_over_the_limit_is_503_and_the_next_one_is_served() {
    run(async {
        let server = TestServer::with(
            config(Limits {
                connections_max: Some(2),
                ..Limits::default()
            }),
            hello,
        );
        let mut first = server.connect().await;
        assert_eq!(first.get("/").await.text(), "hello");
        let second = server.connect().await;
        server.connections_become(2).await;
        for _ in 0..3 {
            let mut third = server.connect().await;
            let reply = third.get("/").await;
            assert_eq!(reply.status, 503);
            assert_eq!(reply.field("retry-after"), Some("1"));
            assert_eq!(reply.field("connection"), Some("close"));
            assert!(third.is_closed().await);
        }
        assert_eq!(first.get("/").await.text(), "hello", "those before go on");
        drop(second);
        // One that was refused does not count, however long it stays.
        let refused = [server.connect().await, server.connect().await];
        until(|| server.connections.accepted() == 7).await;
        drop(first);
        server.connections_become(refused.len()).await;
        let mut next = server.connect().await;
        assert_eq!(next.get("/").await.text(), "hello");
    });
}

#[test]
fn last_request_of_a_connection_is_answered_with_a_close() {
    run(async {
        let server = TestServer::with(
            config(Limits {
                connection_requests_max: Some(3),
                ..Limits::default()
            }),
            hello,
        );
        let mut client = server.connect().await;
        for n in 1..=3 {
            let reply = client.get("/").await;
            assert_eq!(reply.text(), "hello");
            assert_eq!(reply.field("connection"), (n == 3).then_some("close"));
        }
        assert!(client.is_closed().await);
        // In a pipe nothing behind the last one is served.
        let mut client = server.connect().await;
        client.send(common::pipelined(5)).await;
        for _ in 0..3 {
            assert_eq!(client.reply().await.unwrap().status, 200);
        }
        assert!(client.is_closed().await);
        // HTTP/1.0 is told in its own way.
        let mut client = server.connect().await;
        for n in 1..=3 {
            client
                .send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
                .await;
            let reply = client.reply().await.unwrap();
            let expected = if n == 3 { "close" } else { "keep-alive" };
            assert_eq!(reply.field("connection"), Some(expected));
        }
        assert!(client.is_closed().await);
        assert_eq!(server.connections.requests(), 9);
    });
}

#[test]
fn parked_connection_remembers_its_requests() {
    use std::time::Duration;
    run(async {
        let mut config = config(Limits {
            connection_requests_max: Some(2),
            ..Limits::default()
        });
        config.timeouts.sweep = Duration::from_millis(5);
        config.timeouts.park_after = Some(Duration::from_millis(5));
        let server = TestServer::with(config, hello);
        let mut client: Client = server.connect().await;
        assert_eq!(client.get("/").await.field("connection"), None);
        until(|| server.connections.parked() == 1).await;
        assert_eq!(client.get("/").await.field("connection"), Some("close"));
    });
}
