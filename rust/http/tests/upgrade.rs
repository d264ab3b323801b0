//! A `101` hands the socket over; whatever else the handler answers leaves HTTP as it was.
use crate::common;

use std::{cell::RefCell, rc::Rc, time::Duration};

use common::{Event, SetOnDrop, TestServer, ok, run};
use framegate_http::service::{Request, Response, ResponseFuture, Upgraded};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ASK: &str =
    "GET /ws HTTP/1.1\r\nhost: t\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\r\n";

fn switching() -> Response {
    let mut response = ok("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    response
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    response
}

/// Sends back what it reads, in capitals, until the peer ends.
async fn shout(upgraded: Upgraded) {
    let Upgraded {
        mut stream,
        leftover,
        ..
    } = upgraded;
    stream
        .write_all(&leftover.to_ascii_uppercase())
        .await
        .unwrap();
    let mut buffer = [0; 100];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            return;
        }
        stream
            .write_all(&buffer[..read].to_ascii_uppercase())
            .await
            .unwrap();
    }
}

fn accept(request: Request) -> ResponseFuture {
    let upgrade = request.upgrade.expect("an upgrade was asked for");
    upgrade.accept(|upgraded| Box::pin(shout(upgraded)));
    switching().into()
}

#[test]
fn socket_is_handed_over_with_what_was_read_beyond_the_head() {
    run(async {
        let server = TestServer::new(accept);
        let mut client = server.connect().await;
        client.send(format!("{ASK}early ")).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.status, reply.field("upgrade")),
            (101, Some("websocket"))
        );
        assert_eq!(reply.field("content-length"), None);
        assert_eq!(client.exactly(6).await.unwrap(), b"EARLY ");
        client.send("late").await;
        assert_eq!(client.exactly(4).await.unwrap(), b"LATE");
        assert_eq!(server.connections.busy(), 1);
        client.stream.shutdown().await.unwrap();
        assert!(client.is_closed().await);
        server.connections_become(0).await;
    });
}

#[test]
fn upgrade_after_other_requests_and_by_a_later_response() {
    run(async {
        let server = TestServer::new(|request| {
            if request.upgrade.is_none() {
                return ok("plain").into();
            }
            ResponseFuture::later(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let ResponseFuture::Ready(Some(response)) = accept(request) else {
                    unreachable!()
                };
                response
            })
        });
        let mut client = server.connect().await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: t\r\n\r\n{ASK}abc"))
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "plain");
        assert_eq!(client.reply().await.unwrap().status, 101);
        assert_eq!(client.exactly(3).await.unwrap(), b"ABC");
    });
}

#[test]
fn refused_upgrade_keeps_the_connection() {
    run(async {
        let server = TestServer::new(|request| {
            if request.upgrade.is_none() {
                return ok("plain").into();
            }
            let mut response = ok("no");
            *response.status_mut() = StatusCode::FORBIDDEN;
            response.into()
        });
        let mut client = server.connect().await;
        client.send(ASK).await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.text()), (403, "no"));
        assert_eq!(client.get("/").await.text(), "plain");
    });
}

#[test]
fn takeover_is_dropped_when_the_response_is_no_101() {
    run(async {
        let dropped = Event::default();
        let server = {
            let dropped = dropped.clone();
            TestServer::new(move |request| {
                let guard = SetOnDrop(dropped.clone());
                if let Some(upgrade) = request.upgrade {
                    upgrade.accept(move |_| {
                        drop(guard);
                        unreachable!("the response was no 101")
                    });
                }
                ok("no").into()
            })
        };
        let mut client = server.connect().await;
        client.send(ASK).await;
        assert_eq!(client.reply().await.unwrap().text(), "no");
        dropped.wait().await;
        assert_eq!(client.get("/").await.text(), "no");
    });
}

#[test]
fn status_101_without_a_takeover_is_500() {
    run(async {
        let server = TestServer::new(|_| switching().into());
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.status, 500);
        client.send(ASK).await;
        assert_eq!(client.reply().await.unwrap().status, 500);
    });
}

#[test]
fn requests_that_cannot_be_upgraded_are_ordinary() {
    run(async {
        let server = TestServer::new(|request| {
            ok(if request.upgrade.is_some() {
                "upgrade"
            } else {
                "plain"
            })
            .into()
        });
        for (request, seen) in [
            (ASK, "upgrade"),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: h2c, websocket\r\n\r\n",
                "upgrade",
            ),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
                "plain",
            ),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
                "plain",
            ),
            (
                "POST / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: tus/1, x\r\ncontent-length: 1\r\n\r\na",
                "plain",
            ),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\n\r\n",
                "plain",
            ),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\n\r\n",
                "plain",
            ),
            (
                "POST / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\na",
                "plain",
            ),
            (
                "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\na",
                "plain",
            ),
            (
                "GET / HTTP/1.0\r\nhost: t\r\nconnection: upgrade, keep-alive\r\nupgrade: websocket\r\n\r\n",
                "plain",
            ),
        ] {
            let mut client = server.connect().await;
            client.send(request).await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, reply.text()), (200, seen), "{request}");
            // What was ignored changes nothing for the next request.
            assert_eq!(client.get("/").await.text(), "plain", "{request}");
        }
    });
}

#[test]
fn upgraded_connection_is_told_to_drain_and_waited_for() {
    run(async {
        let server = TestServer::new(|request| {
            request.upgrade.unwrap().accept(|upgraded| {
                Box::pin(async move {
                    let mut stream = upgraded.stream;
                    let draining = upgraded.draining;
                    std::future::poll_fn(|cx| draining.poll_draining(cx)).await;
                    stream.write_all(b"bye").await.unwrap();
                })
            });
            switching().into()
        });
        let mut client = server.connect().await;
        client.send(ASK).await;
        assert_eq!(client.reply().await.unwrap().status, 101);
        assert_eq!(server.connections.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(client.rest().await, b"bye");
    });
}

#[test]
fn upgraded_connection_is_cut_at_the_deadline() {
    run(async {
        let dropped = Rc::new(RefCell::new(Event::default()));
        let server = {
            let dropped = dropped.clone();
            TestServer::new(move |request| {
                let guard = SetOnDrop(dropped.borrow().clone());
                request.upgrade.unwrap().accept(|upgraded| {
                    Box::pin(async move {
                        let _guard = guard;
                        shout(upgraded).await;
                    })
                });
                switching().into()
            })
        };
        let mut client = server.connect().await;
        client.send(ASK).await;
        assert_eq!(client.reply().await.unwrap().status, 101);
        assert_eq!(server.connections.drain(Duration::from_millis(50)).await, 1);
        assert!(client.is_closed().await);
        assert!(dropped.borrow().is_set());
    });
}
