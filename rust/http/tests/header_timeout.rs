//! A head must be complete in time, however its bytes drip; nothing else is bound by that time.
use crate::common;

use std::time::Duration;

use common::{TestServer, collect, hello, ok, quick, run};
use framegate_http::{Config, Timeouts, service::ResponseFuture};

const HEAD: Duration = Duration::from_millis(100);

fn config() -> Config {
    Config {
        timeouts: Timeouts {
            head: HEAD,
            park_after: None,
            ..quick()
        },
        ..Config::default()
    }
}

#[test]
fn fresh_connection_that_sends_nothing_is_closed() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        assert!(client.is_closed().await);
        server.connections_become(0).await;
    });
}

#[test]
fn dripping_head_is_408() {
    run(async {
        let server = TestServer::with(config(), hello);
        let client = server.connect().await;
        let start = tokio::time::Instant::now();
        let (read, mut write) = client.stream.into_split();
        let drip = tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            // Each byte is activity; only the end of the head counts.
            while write.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut answer = Vec::new();
        let mut read = read;
        // It goes on sending, so it gets a reset in the end; before that, its answer.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
        assert!(start.elapsed() >= HEAD);
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\ndate: "), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nthe head of the request took too long\n"),
            "{answer}"
        );
        drip.await.unwrap();
        server.connections_become(0).await;
        assert_eq!(server.connections.requests(), 0);
    });
}

#[test]
fn later_head_has_the_same_time() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "hello");
        client.send("GET / HT").await;
        assert_eq!(client.reply().await.unwrap().status, 408);
        assert!(client.is_closed().await);
    });
}

#[test]
fn head_that_begins_behind_a_request_has_the_same_time() {
    run(async {
        // No byte of the second head arrives after the first response, so no read tells of it.
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        client
            .send("GET / HTTP/1.1\r\nhost: t\r\n\r\nGET / HT")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
        assert_eq!(client.reply().await.unwrap().status, 408);
        assert!(client.is_closed().await);
    });
}

#[test]
fn idle_connection_is_not_bound_by_it() {
    run(async {
        let server = TestServer::with(config(), hello);
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "hello");
        tokio::time::sleep(HEAD * 3).await;
        assert_eq!(client.get("/").await.text(), "hello");
    });
}

#[test]
fn slow_body_and_slow_handler_are_not_bound_by_it() {
    run(async {
        let server = TestServer::with(config(), |mut request| {
            ResponseFuture::later(async move {
                let body = collect(&mut request.body).await.unwrap();
                tokio::time::sleep(HEAD * 2).await;
                ok(bytes::Bytes::from(body))
            })
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\na")
            .await;
        tokio::time::sleep(HEAD * 2).await;
        client.send("b").await;
        assert_eq!(client.reply().await.unwrap().text(), "ab");
    });
}
