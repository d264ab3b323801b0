//! A client that leaves is noticed, whatever the handler is doing.
use crate::common;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::{Event, SetOnDrop, TestServer, collect, ok, run, until};
use framegate_http::{
    body::{Aborted, ResponseBody},
    service::ResponseFuture,
};
use http_body::Frame as BodyFrame;
use tokio::io::AsyncWriteExt;

#[test]
fn waiting_handler_is_dropped() {
    run(async {
        let (server, dropped) = TestServer::that_never_answers();
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        until(|| server.connections.busy() == 1).await;
        drop(client);
        dropped.wait().await;
        server.connections_become(0).await;
    });
}

#[test]
fn handler_that_reads_the_body_gets_an_error() {
    run(async {
        for head in [
            "content-length: 10\r\n\r\nabc",
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            let seen = Event::default();
            let server = {
                let seen = seen.clone();
                TestServer::later(move |mut request| {
                    let seen = seen.clone();
                    async move {
                        let error = collect(&mut request.body).await.unwrap_err();
                        assert!(error.is_disconnected(), "{error:?}");
                        // An error is the end.
                        assert!(request.body.data().await.is_none());
                        seen.set();
                        ok("never seen")
                    }
                })
            };
            let mut client = server.connect().await;
            client
                .send(format!("POST / HTTP/1.1\r\nhost: t\r\n{head}"))
                .await;
            until(|| server.connections.busy() == 1).await;
            drop(client);
            seen.wait().await;
            server.connections_become(0).await;
        }
    });
}

#[test]
fn body_that_is_read_elsewhere_ends_with_an_error_when_the_connection_is_cut() {
    run(async {
        // Not with an end: half a body must not pass for a whole one.
        let seen = Event::default();
        let server = {
            let seen = seen.clone();
            TestServer::new(move |mut request| {
                let seen = seen.clone();
                tokio::task::spawn_local(async move {
                    let error = collect(&mut request.body).await.unwrap_err();
                    assert!(error.is_disconnected(), "{error:?}");
                    seen.set();
                });
                ResponseFuture::later(std::future::pending())
            })
        };
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nabc")
            .await;
        until(|| server.connections.busy() == 1).await;
        assert_eq!(server.connections.drain(Duration::ZERO).await, 1);
        seen.wait().await;
    });
}

/// A body that never goes on after its first piece.
struct Stuck {
    piece: Option<Bytes>,
    _guard: SetOnDrop,
}

impl http_body::Body for Stuck {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        match self.piece.take() {
            Some(piece) => Poll::Ready(Some(Ok(BodyFrame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

#[test]
fn stream_of_a_response_is_dropped() {
    run(async {
        let dropped = Event::default();
        let server = {
            let dropped = dropped.clone();
            TestServer::new(move |_| {
                let body = Stuck {
                    piece: Some(Bytes::from_static(b"abc")),
                    _guard: SetOnDrop(dropped.clone()),
                };
                ok(ResponseBody::Stream(Box::pin(body))).into()
            })
        };
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        drop(client);
        dropped.wait().await;
        server.connections_become(0).await;
    });
}

#[test]
fn reset_is_noticed_like_a_close() {
    run(async {
        let (server, dropped) = TestServer::that_never_answers();
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        until(|| server.connections.busy() == 1).await;
        client.stream.set_zero_linger().unwrap();
        drop(client);
        dropped.wait().await;
    });
}

#[test]
fn client_that_sends_on_and_never_reads_the_refusal_is_cut() {
    run(async {
        // Lingering is bounded in time.
        let config = framegate_http::Config {
            timeouts: framegate_http::Timeouts {
                linger: Duration::from_millis(60),
                ..common::quick()
            },
            ..framegate_http::Config::default()
        };
        let server = TestServer::with(config, common::hello);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        until(|| server.connections.accepted() == 1).await;
        server.connections_become(0).await;
        assert_eq!(client.reply().await.unwrap().status, 400);
    });
}

#[test]
fn lingering_is_bounded_in_bytes() {
    run(async {
        let config = framegate_http::Config {
            limits: framegate_http::Limits {
                linger_bytes_max: 100_000,
                ..framegate_http::Limits::default()
            },
            ..framegate_http::Config::default()
        };
        let server = TestServer::with(config, common::hello);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        let flood = vec![0; 50_000];
        while client.stream.write_all(&flood).await.is_ok() {}
        server.connections_become(0).await;
    });
}
