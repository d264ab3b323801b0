//! A kept-alive connection without a request is closed after a time of its own.
use crate::common;

use std::time::Duration;

use common::{TestServer, hello, ok, quick, run};
use framegate_http::{Config, Timeouts, service::ResponseFuture};
use tokio::time::Instant;

const IDLE: Duration = Duration::from_millis(150);

fn config(park_after: Option<Duration>) -> Config {
    let timeouts = Timeouts {
        idle: IDLE,
        park_after,
        ..quick()
    };
    Config {
        timeouts,
        ..Config::default()
    }
}

#[test]
fn idle_connection_is_closed() {
    run(async {
        // With and without parking in between.
        for park_after in [None, Some(Duration::from_millis(30))] {
            let server = TestServer::with(config(park_after), hello);
            let mut client = server.connect().await;
            assert_eq!(client.get("/").await.text(), "hello");
            let start = Instant::now();
            assert!(client.is_closed().await);
            assert!(start.elapsed() >= IDLE);
            server.connections_become(0).await;
        }
    });
}

#[test]
fn each_request_starts_the_time_anew() {
    run(async {
        let server = TestServer::with(config(None), hello);
        let mut client = server.connect().await;
        let start = Instant::now();
        while start.elapsed() < IDLE * 3 {
            assert_eq!(client.get("/").await.text(), "hello");
            tokio::time::sleep(IDLE / 15).await;
        }
        assert_eq!(server.connections.accepted(), 1);
    });
}

#[test]
fn busy_connection_is_not_idle() {
    run(async {
        let server = TestServer::with(config(None), |_| {
            ResponseFuture::later(async {
                tokio::time::sleep(IDLE * 2).await;
                ok("late")
            })
        });
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "late");
    });
}

#[test]
fn response_that_the_client_does_not_read_yet_is_not_idle() {
    run(async {
        let body = vec![b'x'; 16 << 20];
        let server = TestServer::with(config(None), move |_| {
            ok(bytes::Bytes::from(body.clone())).into()
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        tokio::time::sleep(IDLE * 2).await;
        assert_eq!(client.reply().await.unwrap().body.len(), 16 << 20);
    });
}

#[test]
fn default_idle_time_is_longer_than_that_of_common_proxies() {
    // A server that closes first answers some requests of a proxy with a reset.
    assert_eq!(Timeouts::default().idle, Duration::from_secs(75));
    assert_eq!(Timeouts::default().head, Duration::from_secs(10));
}
