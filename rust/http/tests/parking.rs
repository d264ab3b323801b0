//! An idle connection gives back its parser and buffers, and works on as if nothing had been.
mod common;

use std::time::Duration;

use common::{TestServer, collect, hello, ok, quick, run, until};
use framegate_http::{Config, Timeouts, service::ResponseFuture};

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
