//! Requests that are sent without waiting are answered in order, each by itself.
use crate::common;

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

#[test]
fn requests_in_a_pipe_do_not_disturb_each_other() {
    run(async {
        let calls = Rc::new(Cell::new(0));
        let server = {
            let calls = calls.clone();
            TestServer::later(move |mut request| {
                calls.set(calls.get() + 1);
                async move {
                    let mut response = ok(path(&request));
                    match request.head.uri.path() {
                        "/slow" => tokio::time::sleep(Duration::from_millis(30)).await,
                        "/error" => {
                            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                        }
                        "/unread" => return response,
                        "/close" => {
                            let close = HeaderValue::from_static("close");
                            response.headers_mut().insert("connection", close);
                        }
                        other => panic!("{other} is behind the close"),
                    }
                    collect(&mut request.body).await.unwrap();
                    response
                }
            })
        };
        let mut client = server.connect().await;
        let request = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nGET ")
        };
        let all = ["/slow", "/error", "/unread", "/close", "/never"].map(request);
        client.send(all.concat()).await;
        for (expected, status) in [
            ("/slow", 200),
            ("/error", 500),
            ("/unread", 200),
            ("/close", 200),
        ] {
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.text(), reply.status), (expected, status));
            let close = (expected == "/close").then_some("close");
            assert_eq!(reply.field("connection"), close);
        }
        assert!(client.is_closed().await);
        assert_eq!(calls.get(), 4);
    });
}

#[test]
fn response_that_breaks_off_ends_the_pipe() {
    run(async {
        let server = TestServer::new(|request| match request.head.uri.path() {
            "/0" => ok("first").into(),
            "/1" => {
                let pieces = [
                    Ok(http_body::Frame::data(bytes::Bytes::from_static(b"part"))),
                    Err(framegate_http::body::Aborted),
                ];
                let stream = common::Frames(pieces.into());
                ok(framegate_http::body::ResponseBody::Stream(Box::pin(stream))).into()
            }
            other => panic!("{other} is behind a response that was not whole"),
        });
        let mut client = server.connect().await;
        client.send(common::pipelined(3)).await;
        assert_eq!(client.reply().await.unwrap().text(), "first");
        assert!(client.reply().await.is_none());
        drop(client);
        server.connections_become(0).await;
    });
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A valid request of any shape, and its body.
fn any_request(numbers: &mut Numbers) -> (Vec<u8>, Vec<u8>) {
    let body: Vec<u8> = (0..numbers.below(200))
        .map(|_| b"\r\n0:;aZ"[numbers.below(7)])
        .collect();
    let mut request = "\r\n".repeat(numbers.below(3)).into_bytes();
    let extra = "C: d\r\nT:\r\ncontent-lengthy: 3\r\nX: Content-Length: 7\r\n";
    let fields = if numbers.below(2) == 0 { "" } else { extra };
    match numbers.below(3) {
        0 => {
            request.extend(format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n").into_bytes());
            return (request, Vec::new());
        }
        1 => {
            let length = body.len();
            let head =
                format!("PUT / HTTP/1.1\r\n{fields}content-length: {length}\r\nhost: t\r\n\r\n");
            request.extend(head.into_bytes());
            request.extend(&body);
        }
        _ => {
            let head =
                format!("PUT / HTTP/1.1\r\nTRANSFER-encoding: Chunked\r\n{fields}host: t\r\n\r\n");
            request.extend(head.into_bytes());
            for chunk in body.chunks(1 + numbers.below(50)) {
                let extension = ["", ";a", "; a=\"b;c\""][numbers.below(3)];
                request.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
                request.extend(chunk);
                request.extend(b"\r\n");
            }
            request.extend(
                [&b"0\r\n\r\n"[..], b"000\r\nx: content-length: 1\r\n\r\n"][numbers.below(2)],
            );
        }
    }
    (request, body)
}

#[test]
fn valid_requests_of_any_shape_and_in_any_pieces_are_served() {
    use tokio::io::AsyncWriteExt;
    run(async {
        let server = TestServer::later(|mut request| async move {
            ok(bytes::Bytes::from(
                collect(&mut request.body).await.unwrap(),
            ))
        });
        for seed in 1..=20 {
            let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15 ^ seed);
            let (requests, bodies): (Vec<_>, Vec<_>) =
                (0..40).map(|_| any_request(&mut numbers)).unzip();
            let client = server.connect().await;
            client.stream.set_nodelay(true).unwrap();
            let (read, mut write) = client.stream.into_split();
            let writer = tokio::task::spawn_local(async move {
                let all = requests.concat();
                let mut rest = &all[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(1 + numbers.below(300)));
                    write.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = after;
                }
                write
            });
            let write = writer.await.unwrap();
            let mut client = Client::reunite(read, write);
            for (n, body) in bodies.iter().enumerate() {
                let reply = client.reply().await.unwrap();
                assert_eq!(
                    (reply.status, &reply.body),
                    (200, body),
                    "request {n} of seed {seed}"
                );
            }
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
        let mut client = Client::reunite(read, writer.await.unwrap());
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
