//! A handler that does not read the request's body: the connection lives on, or the response says that it does not. A client
//! that keeps its connection never loses a request to it.
use crate::common;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use common::{Client, Event, TestServer, collect, hello, ok, quick, run, stream, until};
use framegate_http::{
    Config, Limits, Timeouts,
    body::{Aborted, Body, ResponseBody},
    service::{Request, Response, ResponseFuture},
};
use http_body::Frame as BodyFrame;

/// The default of [`Limits::unread_bytes_max`].
const MAX: usize = 64 * 1024;

const GET: &[u8] = b"GET /next HTTP/1.1\r\nhost: t\r\n\r\n";

fn head(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: t\r\n{fields}\r\n")
}

fn with_length(bytes: usize) -> String {
    head(&format!("content-length: {bytes}\r\n"))
}

/// How a handler can leave a body.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// Before it has an answer.
    AtOnce,
    /// With its answer.
    WithTheAnswer,
    /// After the answer, and never asked for.
    Later,
    /// Asked for once, in vain.
    Asked,
}

const ALL: [Leaves; 4] = [
    Leaves::AtOnce,
    Leaves::WithTheAnswer,
    Leaves::Later,
    Leaves::Asked,
];

/// A server whose handler leaves the body, and says what was asked for. The event: the last body may go.
fn serve(leaves: Leaves, limits: Limits) -> (TestServer, Event) {
    let go = Event::default();
    let told = go.clone();
    let config = Config {
        limits,
        ..Config::default()
    };
    let server = TestServer::with(config, move |request| {
        let path = Bytes::from(request.head.uri.path().to_owned());
        let go = told.clone();
        match leaves {
            Leaves::AtOnce => ok(path).into(),
            Leaves::WithTheAnswer => ResponseFuture::later(async move {
                tokio::task::yield_now().await;
                drop(request);
                ok(path)
            }),
            Leaves::Later => {
                tokio::task::spawn_local(async move {
                    let _body = request.body;
                    go.wait().await;
                });
                ok(path).into()
            }
            Leaves::Asked => ResponseFuture::later(async move {
                let mut body = request.body;
                asked(&mut body).await;
                ok(path)
            }),
        }
    });
    (server, go)
}

/// Polls the body once; it is to have nothing yet.
async fn asked(body: &mut Body) {
    std::future::poll_fn(|cx| {
        if !body.is_end_stream() {
            assert!(body.poll_data(cx).is_pending());
        }
        std::task::Poll::Ready(())
    })
    .await;
}

/// The next request of the connection is served.
async fn goes_on(client: &mut Client) {
    client.send(GET).await;
    let reply = client.reply().await.expect("the next request is lost");
    assert_eq!((reply.status, reply.text()), (200, "/next"));
    assert_eq!(reply.field("connection"), None);
}

#[test]
fn rest_of_a_body_within_the_limit_is_dropped_and_the_next_request_served() {
    run(async {
        for leaves in ALL {
            let (server, go) = serve(leaves, Limits::default());
            let mut client = server.connect().await;
            for (early, late) in [(0, 3), (0, MAX), (100, MAX - 100), (3, 0), (0, 1)] {
                if early > 0 && matches!(leaves, Leaves::Asked) {
                    continue;
                }
                client.send(with_length(early + late)).await;
                // In a piece of its own, which may or may not be there when the answer is made.
                client.send(vec![b'x'; early]).await;
                let reply = client.reply().await.unwrap();
                assert_eq!(reply.text(), "/");
                assert_eq!(reply.field("connection"), None, "{leaves:?} {early} {late}");
                go.set();
                // Bytes that look like a request are none.
                client
                    .send(GET.repeat(late / GET.len() + 1)[..late].to_vec())
                    .await;
                goes_on(&mut client).await;
            }
            assert_eq!(server.connections.accepted(), 1);
        }
    });
}

#[test]
fn response_before_more_than_the_limit_says_that_it_is_the_last() {
    run(async {
        for leaves in [Leaves::AtOnce, Leaves::WithTheAnswer, Leaves::Later] {
            let (server, go) = serve(leaves, Limits::default());
            let mut client = server.connect().await;
            client.send(with_length(MAX + 1)).await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, reply.text()), (200, "/"));
            assert_eq!(reply.field("connection"), Some("close"), "{leaves:?}");
            go.set();
            // It arrives nowhere, and the client was told.
            client.send(vec![b'x'; MAX + 1]).await;
            client.send(GET).await;
            assert!(client.is_closed().await);
            assert_eq!(server.connections.requests(), 1);
        }
    });
}

#[test]
fn limit_is_what_the_configuration_says() {
    run(async {
        let limits = || Limits {
            unread_bytes_max: 10,
            ..Limits::default()
        };
        let (server, _) = serve(Leaves::AtOnce, limits());
        let mut client = server.connect().await;
        client.send(with_length(10)).await;
        assert_eq!(client.reply().await.unwrap().field("connection"), None);
        client.send("0123456789").await;
        goes_on(&mut client).await;
        client.send(with_length(11)).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(client.is_closed().await);
    });
}

#[test]
fn requests_that_were_sent_behind_an_unread_body_are_served() {
    run(async {
        let (server, _) = serve(Leaves::WithTheAnswer, Limits::default());
        let mut client = server.connect().await;
        let whole = [
            with_length(5),
            "12345".into(),
            head("transfer-encoding: chunked\r\n"),
            "3\r\nabc\r\n2;x\r\nde\r\n0\r\nx: y\r\n\r\n".into(),
            // The end of the stream as far as the server can see: how much is to come is known.
            with_length(1000),
        ];
        client.send(whole.concat()).await;
        for _ in 0..3 {
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.text(), reply.field("connection")), ("/", None));
        }
        client.send([0; 1000]).await;
        goes_on(&mut client).await;
    });
}

#[test]
fn chunked_body_is_dropped_when_it_has_come_and_ends_the_connection_when_not() {
    run(async {
        for leaves in [Leaves::AtOnce, Leaves::WithTheAnswer, Leaves::Later] {
            let (server, go) = serve(leaves, Limits::default());
            let mut client = server.connect().await;
            let head = head("transfer-encoding: chunked\r\n");
            client
                .send(format!("{head}3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"))
                .await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.text(), reply.field("connection")), ("/", None));
            go.set();
            goes_on(&mut client).await;
            client.send(format!("{head}3\r\nabc\r\n")).await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.text(), "/");
            assert_eq!(reply.field("connection"), Some("close"), "{leaves:?}");
            client.send("3\r\ndef\r\n0\r\n\r\n").await;
            client.send(GET).await;
            assert!(client.is_closed().await);
        }
    });
}

#[test]
fn client_that_waits_for_continue_in_vain_is_told_that_it_was_the_last() {
    run(async {
        let expects = head("expect: 100-Continue\r\ncontent-length: 3\r\n");
        // A client may not wait: its bytes could be the body, or the next request of one that gave up.
        for body in ["", "abc"] {
            for leaves in ALL {
                if !body.is_empty() && matches!(leaves, Leaves::Asked) {
                    continue;
                }
                let (server, go) = serve(leaves, Limits::default());
                let mut client = server.connect().await;
                client.send(format!("{expects}{body}")).await;
                let mut reply = client.reply().await.unwrap();
                if reply.status == 100 {
                    assert!(matches!(leaves, Leaves::Asked));
                    reply = client.reply().await.unwrap();
                }
                assert_eq!(reply.text(), "/");
                assert_eq!(reply.field("connection"), Some("close"), "{leaves:?}");
                go.set();
                client.send(GET).await;
                assert!(client.is_closed().await);
                assert_eq!(server.connections.requests(), 1);
            }
        }
    });
}

#[test]
fn client_that_waited_for_continue_and_got_it_goes_on() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let body = collect(&mut request.body).await.unwrap();
            assert!(body.is_empty() || body == b"abc");
            ok(Bytes::from(request.head.uri.path().to_owned()))
        });
        let mut client = server.connect().await;
        for fields in ["content-length: 3\r\n", "transfer-encoding: chunked\r\n"] {
            client
                .send(head(&format!("expect: 100-continue\r\n{fields}")))
                .await;
            assert_eq!(client.reply().await.unwrap().status, 100);
            // The second body is empty.
            let body = if fields.starts_with('c') {
                "abc"
            } else {
                "0\r\n\r\n"
            };
            client.send(body).await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.text(), reply.field("connection")), ("/", None));
            goes_on(&mut client).await;
        }
    });
}

#[test]
fn handler_that_has_read_a_part_and_answers_ends_the_connection_when_much_is_left() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let first = match request.body.data().await {
                Some(first) => first.unwrap().len().to_string(),
                None => "/next".to_owned(),
            };
            ok(Bytes::from(first))
        });
        for (bytes, close) in [(MAX, None), (3 * MAX, Some("close"))] {
            let mut client = server.connect().await;
            client.send(with_length(bytes)).await;
            client.send("x").await;
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.text(), reply.field("connection")), ("1", close));
            client.send(vec![0; bytes - 1]).await;
            if close.is_none() {
                goes_on(&mut client).await;
            } else {
                assert!(client.is_closed().await);
            }
        }
    });
}

/// A response that has begun and goes on when it is told to.
struct Begun {
    first: Option<Bytes>,
    end: Event,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        if let Some(first) = self.first.take() {
            return std::task::Poll::Ready(Some(Ok(BodyFrame::data(first))));
        }
        std::pin::pin!(self.end.wait()).poll(cx).map(|()| None)
    }
}

/// Answers while the body still comes, and leaves it after `pieces` pieces.
fn duplex(pieces: usize) -> impl Fn(Request) -> ResponseFuture {
    move |mut request| {
        if request.head.method == "GET" {
            return ok(Bytes::from(request.head.uri.path().to_owned())).into();
        }
        ResponseFuture::later(async move {
            let first = request.body.data().await.unwrap().unwrap();
            let end = Event::default();
            let response = Begun {
                first: Some(first),
                end: end.clone(),
            };
            tokio::task::spawn_local(async move {
                for _ in 1..pieces {
                    request.body.data().await.unwrap().unwrap();
                }
                drop(request);
                end.set();
            });
            Response::new(ResponseBody::Stream(Box::pin(response)))
        })
    }
}

#[test]
fn what_a_handler_leaves_that_answered_while_it_read_is_dropped() {
    run(async {
        let server = TestServer::new(duplex(2));
        let mut client = server.connect().await;
        for head in [
            with_length(10 * MAX),
            head("transfer-encoding: chunked\r\n") + &format!("{:x}\r\n", 10 * MAX),
        ] {
            let is_chunked = head.contains("chunked");
            client.send(head).await;
            client.send("x").await;
            let reply = client.head().await.unwrap();
            assert_eq!(reply.field("connection"), None, "it still reads");
            client.send(vec![b'x'; 10 * MAX - 1]).await;
            if is_chunked {
                client.send("\r\n0\r\n\r\n").await;
            }
            assert_eq!(client.exactly(11).await.unwrap(), b"1\r\nx\r\n0\r\n\r\n");
            goes_on(&mut client).await;
        }
    });
}

#[test]
fn what_is_dropped_unannounced_is_bounded() {
    run(async {
        for (bytes, goes_on_after) in [(5 * MAX, true), (20 * MAX, false)] {
            let config = Config {
                limits: Limits {
                    linger_bytes_max: 6 * MAX as u64,
                    ..Limits::default()
                },
                ..Config::default()
            };
            let server = TestServer::with(config, duplex(1));
            let mut client = server.connect().await;
            client.send(with_length(bytes)).await;
            client.send("x").await;
            assert_eq!(client.head().await.unwrap().field("connection"), None);
            assert_eq!(client.exactly(11).await.unwrap(), b"1\r\nx\r\n0\r\n\r\n");
            if goes_on_after {
                client.send(vec![b'x'; bytes - 1]).await;
                goes_on(&mut client).await;
            } else {
                use tokio::io::AsyncWriteExt;
                // The server closes while this is sent, or after it.
                let _ = client.stream.write_all(&vec![b'x'; bytes - 1]).await;
                assert!(client.is_closed().await);
            }
        }
    });
}

#[test]
fn client_of_http_10_is_told_even_of_little() {
    run(async {
        let (server, _) = serve(Leaves::AtOnce, Limits::default());
        let mut client = server.connect().await;
        let head = "POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\n";
        client.send(format!("{head}abc")).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.field("connection"), Some("keep-alive"));
        client.send(head).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(client.is_closed().await);
    });
}

#[test]
fn last_request_ends_without_waiting_for_its_body() {
    run(async {
        for field in ["connection: close\r\n", ""] {
            let server = TestServer::new(move |_| {
                let mut response = ok("last");
                if field.is_empty() {
                    let close = http::HeaderValue::from_static("close");
                    response.headers_mut().insert("connection", close);
                }
                response.into()
            });
            let mut client = server.connect().await;
            client
                .send(head(&format!("{field}content-length: 3\r\n")))
                .await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.field("connection"), Some("close"));
            // Its three bytes never come.
            assert!(client.is_closed().await);
        }
    });
}

fn with_times(timeouts: Timeouts, answer: fn(Request) -> ResponseFuture) -> TestServer {
    let config = Config {
        timeouts,
        ..Config::default()
    };
    TestServer::with(config, answer)
}

#[test]
fn rest_that_does_not_come_has_the_time_of_a_body() {
    run(async {
        let server = with_times(
            Timeouts {
                body: Duration::from_millis(100),
                idle: Duration::from_secs(3600),
                park_after: Some(Duration::from_millis(10)),
                ..quick()
            },
            hello,
        );
        let mut client = server.connect().await;
        client.send(with_length(3)).await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.text(), reply.field("connection")), ("hello", None));
        assert!(client.is_closed().await);
        server.connections_become(0).await;
    });
}

#[test]
fn connection_is_parked_behind_a_body_that_was_dropped_and_not_before() {
    run(async {
        let server = with_times(
            Timeouts {
                park_after: Some(Duration::from_millis(10)),
                ..quick()
            },
            hello,
        );
        let mut client = server.connect().await;
        client.send(with_length(3)).await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
        client.send("ab").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.connections.parked(), 0, "the body is not whole");
        client.send("c").await;
        until(|| server.connections.parked() == 1).await;
        assert_eq!(client.get("/").await.text(), "hello");
    });
}

#[test]
fn drain_does_not_wait_for_the_rest_of_a_body() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        client.send(with_length(3)).await;
        assert_eq!(client.reply().await.unwrap().text(), "hello");
        assert_eq!(server.connections.drain(Duration::from_secs(3600)).await, 0);
        assert!(client.is_closed().await);
    });
}

#[test]
fn response_of_a_draining_server_ends_the_connection_whatever_is_left() {
    run(async {
        let go = Event::default();
        let told = go.clone();
        let server = TestServer::later(move |request| {
            let go = told.clone();
            async move {
                go.wait().await;
                drop(request);
                ok("last")
            }
        });
        let mut client = server.connect().await;
        client.send(with_length(3)).await;
        until(|| server.connections.busy() == 1).await;
        let connections = server.connections.clone();
        let drain =
            tokio::task::spawn_local(
                async move { connections.drain(Duration::from_secs(3600)).await },
            );
        tokio::task::yield_now().await;
        go.set();
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(client.is_closed().await);
        assert_eq!(drain.await.unwrap(), 0);
    });
}

#[test]
fn client_that_leaves_is_noticed_behind_a_body_that_was_left() {
    run(async {
        for fields in [
            "content-length: 3\r\n\r\nabc",
            "transfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
        ] {
            let (server, dropped) = TestServer::that_never_answers();
            let mut client = server.connect().await;
            client
                .send(format!("POST / HTTP/1.1\r\nhost: t\r\n{fields}"))
                .await;
            until(|| server.connections.busy() == 1).await;
            drop(client);
            dropped.wait().await;
            server.connections_become(0).await;
        }
    });
}

/// What one connection after another is answered, with unread bodies of all kinds before the last request.
#[test]
fn no_request_is_lost_to_a_client_that_keeps_what_it_may() {
    run(async {
        let requests = Rc::new(Cell::new(0));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let server = {
            let (requests, seen) = (requests.clone(), seen.clone());
            TestServer::new(move |request| {
                requests.set(requests.get() + 1);
                seen.borrow_mut().push(request.head.method.clone());
                let streams = u64::is_multiple_of(requests.get(), 2);
                ResponseFuture::later(async move {
                    let _request = request;
                    tokio::task::yield_now().await;
                    if streams {
                        ok(stream(&["a", "b"]))
                    } else {
                        ok("ab")
                    }
                })
            })
        };
        let mut client = server.connect().await;
        let bodies = [0, 1, 100, 9000, MAX, MAX + 1, 2 * MAX];
        for round in 0..70 {
            let bytes = bodies[round % bodies.len()];
            client.send(with_length(bytes)).await;
            let reply = client.reply().await.expect("this request is lost");
            assert_eq!(reply.text(), "ab");
            if reply.field("connection") == Some("close") {
                client = server.connect().await;
            } else {
                client.send(vec![b'x'; bytes]).await;
            }
        }
        assert_eq!(seen.borrow().len(), 70);
        assert!(server.connections.accepted() >= 20, "and some are told");
    });
}
