//! Requests that are sent without waiting are answered in order, each by itself.
mod common;

use std::{cell::Cell, rc::Rc, time::Duration};

use common::{Client, Event, TestServer, collect, ok, run};
use framegate_http::service::ResponseFuture;
use http::{HeaderMap, HeaderValue};

fn path(request: &framegate_http::service::Request) -> bytes::Bytes {
    request.head.uri.path().to_owned().into()
}

#[test]
fn responses_come_in_the_order_of_the_requests() {
    run(async {
        // The first one takes longest.
        let server = TestServer::later(|request| async move {
            let name = path(&request);
            if name.as_ref() == b"/0" {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            ok(name)
        });
        let mut client = server.connect().await;
        let all = common::pipelined(50);
        client.send(all).await;
        for n in 0..50 {
            assert_eq!(client.reply().await.unwrap().text(), format!("/{n}"));
        }
    });
}

#[test]
fn second_request_is_not_started_before_the_first_is_answered() {
    run(async {
        let running = Rc::new(Cell::new(0));
        let go = Event::default();
        let server = {
            let (running, go) = (running.clone(), go.clone());
            TestServer::later(move |request| {
                let (running, go) = (running.clone(), go.clone());
                async move {
                    running.set(running.get() + 1);
                    assert_eq!(running.get(), 1, "one request of a connection at a time");
                    go.wait().await;
                    running.set(running.get() - 1);
                    ok(path(&request))
                }
            })
        };
        let mut client = server.connect().await;
        client
            .send("GET /a HTTP/1.1\r\nhost: t\r\n\r\nGET /b HTTP/1.1\r\nhost: t\r\n\r\n")
            .await;
        common::until(|| running.get() == 1).await;
        go.set();
        assert_eq!(client.reply().await.unwrap().text(), "/a");
        assert_eq!(client.reply().await.unwrap().text(), "/b");
    });
}

#[test]
fn bodies_stay_with_their_requests() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            ok(bytes::Bytes::from(
                collect(&mut request.body).await.unwrap(),
            ))
        });
        let mut client = server.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\none\
                 POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                 GET / HTTP/1.1\r\nhost: t\r\n\r\n\
                 POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nthree",
            )
            .await;
        for body in ["one", "two", "", "three"] {
            assert_eq!(client.reply().await.unwrap().text(), body);
        }
    });
}

/// A slow reader with 9,000 requests in the pipe; every third asks for a `103` first.
#[test]
fn nine_thousand_pipelined_requests_with_hints_stay_in_place() {
    const REQUESTS: usize = 9000;
    run(async {
        let server = TestServer::new(|request| {
            let name = path(&request);
            let number: usize = request.head.uri.path()[1..].parse().unwrap();
            if !number.is_multiple_of(3) {
                return ok(name).into();
            }
            ResponseFuture::later(async move {
                let mut fields = HeaderMap::new();
                fields.insert("x-for", HeaderValue::from_bytes(&name).unwrap());
                request.hints.send(fields).await;
                ok(name)
            })
        });
        let client = server.connect().await;
        let (read, mut write) = client.stream.into_split();
        let writer = tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            for n in 0..REQUESTS {
                write
                    .write_all(format!("GET /{n} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
            }
            write
        });
        // The reader begins late, so that the socket is full by then.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut client = Client::new(read.reunite(writer.await.unwrap()).unwrap());
        for n in 0..REQUESTS {
            let mut reply = client.reply().await.unwrap();
            if n.is_multiple_of(3) {
                assert_eq!(reply.status, 103, "{n}");
                assert_eq!(reply.field("x-for"), Some(format!("/{n}").as_str()));
                reply = client.reply().await.unwrap();
            }
            assert_eq!(
                (reply.status, reply.text()),
                (200, format!("/{n}").as_str())
            );
        }
    });
}
