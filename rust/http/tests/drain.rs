//! Stopping: idle connections end at once, busy ones after their response, and none outlives the deadline.
use crate::common;

use std::time::Duration;

use common::{Event, TestServer, hello, ok, run, until};
use tokio::{net::TcpStream, time::Instant};

const LONG: Duration = Duration::from_secs(10);

#[test]
fn idle_and_fresh_connections_are_closed_at_once() {
    run(async {
        let server = TestServer::new(hello);
        let mut idle = server.connect().await;
        assert_eq!(idle.get("/").await.text(), "hello");
        let mut fresh = server.connect().await;
        server.connections_become(2).await;
        let start = Instant::now();
        assert_eq!(server.connections.drain(LONG).await, 0);
        assert!(start.elapsed() < LONG / 2);
        assert!(idle.is_closed().await);
        assert!(fresh.is_closed().await);
        assert_eq!(server.connections.count(), 0);
    });
}

#[test]
fn busy_connection_finishes_and_says_close() {
    run(async {
        let go = Event::default();
        let server = {
            let go = go.clone();
            TestServer::later(move |_| {
                let go = go.clone();
                async move {
                    go.wait().await;
                    ok("done")
                }
            })
        };
        let mut client = server.connect().await;
        client
            .send("GET / HTTP/1.1\r\nhost: t\r\n\r\nGET /never HTTP/1.1\r\nhost: t\r\n\r\n")
            .await;
        until(|| server.connections.busy() == 1).await;
        let connections = server.connections.clone();
        let drain = tokio::task::spawn_local(async move { connections.drain(LONG).await });
        tokio::task::yield_now().await;
        assert!(
            TcpStream::connect(server.address).await.is_err(),
            "nothing is accepted any more"
        );
        go.set();
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            ("done", Some("close"))
        );
        assert!(client.is_closed().await);
        drop(client);
        assert_eq!(drain.await.unwrap(), 0);
        assert_eq!(server.connections.requests(), 1);
    });
}

#[test]
fn busy_connection_is_cut_at_the_deadline() {
    run(async {
        let (server, dropped) = TestServer::that_never_answers();
        let mut busy = server.connect().await;
        busy.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let idle = server.connect().await;
        until(|| server.connections.busy() == 1 && server.connections.count() == 2).await;
        let start = Instant::now();
        assert_eq!(
            server.connections.drain(Duration::from_millis(100)).await,
            1
        );
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert!(dropped.is_set(), "the handler learns of it");
        assert!(busy.is_closed().await);
        drop(idle);
    });
}

#[test]
fn client_that_does_not_read_is_cut_at_the_deadline() {
    run(async {
        let server = TestServer::new(|_| ok(bytes::Bytes::from(vec![0; 16 << 20])).into());
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        until(|| server.connections.requests() == 1).await;
        assert_eq!(server.connections.drain(Duration::from_millis(50)).await, 1);
        assert!(client.reply().await.is_none(), "the response is cut");
    });
}

#[test]
fn drain_without_connections_is_immediate_and_can_be_repeated() {
    run(async {
        let server = TestServer::new(hello);
        assert_eq!(server.connections.drain(LONG).await, 0);
        assert_eq!(server.connections.drain(Duration::ZERO).await, 0);
    });
}

#[test]
fn stop_accepting_keeps_open_connections() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "hello");
        server.connections.stop_accepting();
        until(|| std::net::TcpStream::connect(server.address).is_err()).await;
        assert_eq!(client.get("/").await.text(), "hello");
    });
}

#[test]
fn listeners_after_the_stop_do_not_accept() {
    run(async {
        let server = TestServer::new(hello);
        server.connections.stop_accepting();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        server.server.listen(listener).unwrap();
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        assert_eq!(server.connections.accepted(), 0);
    });
}

#[test]
fn retiring_connections_may_send_one_more_request_and_are_told() {
    run(async {
        let server = TestServer::new(hello);
        let mut used = server.connect().await;
        assert_eq!(used.get("/").await.text(), "hello");
        let mut fresh = server.connect().await;
        server.connections_become(2).await;
        let connections = server.connections.clone();
        let retiring = tokio::task::spawn_local(async move { connections.retire(LONG).await });
        tokio::task::yield_now().await;
        assert!(
            TcpStream::connect(server.address).await.is_err(),
            "nothing is accepted any more"
        );
        for client in [&mut used, &mut fresh] {
            let reply = client.get("/").await;
            assert_eq!(
                (reply.text(), reply.field("connection")),
                ("hello", Some("close"))
            );
            assert!(client.is_closed().await);
        }
        drop((used, fresh));
        retiring.await.unwrap();
        assert_eq!(server.connections.count(), 0);
    });
}

#[test]
fn retiring_waits_for_unused_connections_no_longer_than_it_may() {
    run(async {
        let server = TestServer::new(hello);
        let mut idle = server.connect().await;
        assert_eq!(idle.get("/").await.text(), "hello");
        server.connections.retire(Duration::from_millis(50)).await;
        assert_eq!(server.connections.count(), 1, "it is left to the drain");
        assert_eq!(server.connections.drain(LONG).await, 0);
        assert!(idle.is_closed().await);
    });
}
