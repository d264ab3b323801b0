//! HTTP/2 by prior knowledge, spoken by the client of the `h2` crate.
use crate::common;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use common::{Event, Frames, TestServer, hello, ok, quick, run, stream, until};
use framegate_http::{
    Config, Limits, Protocol, Timeouts,
    body::{Aborted, ResponseBody},
    service::{Response, ResponseFuture},
};
use h2::Reason;
use http::{HeaderMap, Request};
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A client's side of a connection.
async fn connect(server: &TestServer) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client
}

async fn text(response: http::Response<h2::RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://t{path}")).body(()).unwrap()
}

#[test]
fn request_is_answered_over_each_protocol() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = connect(&server).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "5");
        assert!(response.headers().contains_key("date"));
        assert_eq!(text(response).await, "hello");
        assert_eq!(server.connect().await.get("/").await.text(), "hello");
    });
}

/// The crate is woken by what one stream hands over, whatever it was told of others before.
#[test]
fn later_response_is_written_after_others_were() {
    run(async {
        let go = Event::default();
        let told = go.clone();
        let server = TestServer::new(move |request| {
            if request.head.uri.path() == "/now" {
                return ok("now").into();
            }
            let go = told.clone();
            ResponseFuture::later(async move {
                go.wait().await;
                ok("later")
            })
        });
        let mut client = connect(&server).await;
        let (later, _) = client.send_request(get("/later"), true).unwrap();
        for _ in 0..3 {
            let (now, _) = client.send_request(get("/now"), true).unwrap();
            assert_eq!(text(now.await.unwrap()).await, "now");
        }
        // The connection has nothing more to say.
        tokio::time::sleep(Duration::from_millis(50)).await;
        go.set();
        assert_eq!(text(later.await.unwrap()).await, "later");
    });
}

#[test]
fn body_is_echoed() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            let mut bytes = 0;
            while let Some(data) = request.body.data().await {
                bytes += data.unwrap().len();
            }
            ok(Bytes::from(bytes.to_string()))
        });
        let mut client = connect(&server).await;
        let request = Request::post("http://t/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(vec![0; 300_000].into(), true).unwrap();
        assert_eq!(text(response.await.unwrap()).await, "300000");
    });
}

/// Sends one request without a body and gives the whole answer.
async fn ask(
    client: &mut h2::client::SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(http::response::Parts, String), h2::Error> {
    let (response, _) = client.send_request(request, true)?;
    let (head, body) = response.await?.into_parts();
    Ok((head, text(http::Response::new(body)).await))
}

#[test]
fn head_is_in_the_form_that_handlers_see() {
    run(async {
        let heads = Rc::new(RefCell::new(Vec::new()));
        let seen = heads.clone();
        let server = TestServer::new(move |request| {
            seen.borrow_mut().push(request.head);
            ok("").into()
        });
        let mut client = connect(&server).await;
        let request = Request::get("http://a.b:80/p?q=1")
            .header("x", "1")
            .header("cookie", "a=1")
            .header("x", "2")
            .header("cookie", "b=2")
            .header("host", "A.B:80")
            .body(())
            .unwrap();
        ask(&mut client, request).await.unwrap();
        let head = heads.borrow_mut().pop().unwrap();
        assert_eq!(head.uri, "/p?q=1");
        assert_eq!(head.version, http::Version::HTTP_2);
        let fields: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("host", "a.b:80"),
                ("x", "1"),
                ("x", "2"),
                ("cookie", "a=1; b=2")
            ]
        );
    });
}

#[test]
fn heads_that_must_not_be_served_are_refused() {
    run(async {
        let config = Config {
            limits: Limits {
                target_bytes_max: 100,
                header_count_max: 10,
                ..Limits::default()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, hello);
        let mut client = connect(&server).await;
        let with = |fields: &[(&str, &str)]| {
            let mut request = Request::get("http://t/");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap()
        };
        let many: Vec<_> = (0..11).map(|_| ("a", "b")).collect();
        for (request, status) in [
            (with(&[("host", "other")]), 400),
            (with(&[("host", "t"), ("host", "t")]), 400),
            (
                with(&[("content-length", "0"), ("content-length", "0")]),
                400,
            ),
            (with(&many), 431),
            (with(&many[1..]), 200),
            (get(&format!("/{}", "a".repeat(100))), 414),
            (get(&format!("/{}", "a".repeat(99))), 200),
            (Request::get("ftp://t/").body(()).unwrap(), 400),
            (Request::get("http://u@t/").body(()).unwrap(), 400),
            (Request::get("http://a,b/").body(()).unwrap(), 400),
            (Request::connect("t:80").body(()).unwrap(), 501),
        ] {
            let shown = format!("{request:?}");
            let (head, _) = ask(&mut client, request).await.unwrap();
            assert_eq!(head.status, status, "{shown}");
        }
    });
}

#[test]
fn header_list_over_the_limit_is_431() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = connect(&server).await;
        for (bytes, status) in [(60_000, 200), (70_000, 431)] {
            let request = Request::get("http://t/")
                .header("x", "a".repeat(bytes))
                .body(())
                .unwrap();
            let (head, _) = ask(&mut client, request).await.unwrap();
            assert_eq!(head.status, status, "{bytes}");
        }
    });
}

#[test]
fn responses_without_a_body_have_none() {
    run(async {
        let server = TestServer::new(|request| {
            let mut response = ok("hello");
            *response.status_mut() = request.head.uri.path()[1..].parse().unwrap();
            response
                .headers_mut()
                .insert("connection", "close".parse().unwrap());
            response
                .headers_mut()
                .insert("transfer-encoding", "chunked".parse().unwrap());
            response.into()
        });
        let mut client = connect(&server).await;
        for (method, status, length, body) in [
            ("GET", 200, Some("5"), "hello"),
            ("HEAD", 200, Some("5"), ""),
            ("GET", 204, None, ""),
            ("GET", 304, None, ""),
            ("GET", 103, Some("0"), ""),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(format!("http://t/{status}"))
                .body(())
                .unwrap();
            let (head, text) = ask(&mut client, request).await.unwrap();
            let expected = if status == 103 { 500 } else { status };
            assert_eq!(head.status, expected);
            let told = head
                .headers
                .get("content-length")
                .map(|value| value.to_str().unwrap());
            assert_eq!((told, text.as_str()), (length, body), "{method} {status}");
            assert!(!head.headers.contains_key("connection"));
            assert!(!head.headers.contains_key("transfer-encoding"));
        }
    });
}

#[test]
fn body_of_another_size_than_declared_never_looks_whole() {
    run(async {
        let server = TestServer::new(|request| {
            let mut response = Response::new(stream(&["hel", "lo"]));
            let length = request.head.uri.path()[1..].parse().unwrap();
            response.headers_mut().insert("content-length", length);
            response.into()
        });
        let mut client = connect(&server).await;
        let (_, text) = ask(&mut client, get("/4")).await.unwrap();
        assert_eq!(text, "hell", "what is over the length is not sent");
        let (response, _) = client.send_request(get("/6"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let error = loop {
            match body.data().await.expect("not the end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn trailers_go_both_ways() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            while request.body.data().await.is_some() {}
            let trailers = request.body.trailers().unwrap().clone();
            let frames = Frames(
                [
                    Ok(Frame::data(Bytes::from_static(b"body"))),
                    Ok(Frame::trailers(trailers)),
                ]
                .into(),
            );
            Response::new(ResponseBody::Stream(Box::pin(frames)))
        });
        let mut client = connect(&server).await;
        let request = Request::post("http://t/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data("x".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        body.send_trailers(trailers.clone()).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "body");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap(), Some(trailers));
    });
}

#[test]
fn response_that_breaks_off_is_a_reset() {
    run(async {
        let server = TestServer::new(|_| {
            let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err(Aborted)];
            Response::new(ResponseBody::Stream(Box::pin(Frames(frames.into())))).into()
        });
        let mut client = connect(&server).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let failed = match response.await {
            Err(_) => true,
            Ok(response) => {
                let mut body = response.into_body();
                loop {
                    match body.data().await {
                        None => break false,
                        Some(Err(_)) => break true,
                        Some(Ok(_)) => {}
                    }
                }
            }
        };
        assert!(failed);
    });
}

#[test]
fn client_that_gives_up_ends_the_handler() {
    run(async {
        let (server, dropped) = TestServer::that_never_answers();
        let mut client = connect(&server).await;
        let (response, mut body) = client.send_request(get("/"), false).unwrap();
        until(|| server.connections.busy() == 1).await;
        body.send_reset(Reason::CANCEL);
        dropped.wait().await;
        drop(response);
        until(|| server.connections.busy() == 0).await;
    });
}

#[test]
fn urgent_response_overtakes_a_lazy_one() {
    overtakes(200_000, 400_000);
}

#[test]
fn urgent_response_overtakes_a_lazy_one_that_waits_for_little_window() {
    // Less than is handed over before anybody has to queue.
    overtakes(65_535, 140_000);
}

/// With a connection's window of that size; what the lazy one has when the urgent one is whole is less than `lazy_max`.
fn overtakes(window: u32, lazy_max: usize) {
    run(async move {
        let server = TestServer::new(|_| ok(Bytes::from(vec![0; 1 << 20])).into());
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut client, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 24)
            .initial_connection_window_size(window)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let ask = |client: &mut h2::client::SendRequest<Bytes>, priority: &str| {
            let request = Request::get("http://t/")
                .header("priority", priority)
                .body(())
                .unwrap();
            client.send_request(request, true).unwrap().0
        };
        let lazy = ask(&mut client, "u=7");
        let mut lazy = lazy.await.unwrap().into_body();
        // The connection's window is used up before the other one comes.
        let mut lazy_bytes = 0;
        while lazy_bytes < 60_000 {
            lazy_bytes += lazy.data().await.unwrap().unwrap().len();
        }
        let mut urgent = ask(&mut client, "u=0").await.unwrap().into_body();
        lazy.flow_control().release_capacity(lazy_bytes).unwrap();
        let mut urgent_bytes = 0;
        while urgent_bytes < 1 << 20 {
            tokio::select! {
                biased;
                data = lazy.data() => {
                    let length = data.unwrap().unwrap().len();
                    lazy.flow_control().release_capacity(length).unwrap();
                    lazy_bytes += length;
                }
                data = urgent.data() => {
                    let length = data.unwrap().unwrap().len();
                    urgent.flow_control().release_capacity(length).unwrap();
                    urgent_bytes += length;
                }
            }
        }
        assert!(
            lazy_bytes < lazy_max,
            "{lazy_bytes} bytes of the lazy response came before the urgent one was whole"
        );
    });
}

#[test]
fn drain_lets_open_streams_finish() {
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
        let mut client = connect(&server).await;
        let _idle = connect(&server).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        until(|| server.connections.busy() == 1).await;
        let connections = server.connections.clone();
        let drain =
            tokio::task::spawn_local(
                async move { connections.drain(Duration::from_secs(10)).await },
            );
        until(|| server.connections.count() == 1).await;
        go.set();
        assert_eq!(text(response.await.unwrap()).await, "done");
        assert_eq!(drain.await.unwrap(), 0);
        assert!(client.ready().await.is_err());
    });
}

#[test]
fn busy_connection_is_cut_at_the_deadline() {
    run(async {
        let server = TestServer::new(|_| ResponseFuture::later(std::future::pending()));
        let mut client = connect(&server).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        until(|| server.connections.busy() == 1).await;
        let cut = server.connections.drain(Duration::from_millis(50)).await;
        assert_eq!(cut, 1);
        assert!(response.await.is_err());
    });
}

#[test]
fn idle_connection_is_told_to_go_and_closed() {
    run(async {
        let config = Config {
            timeouts: Timeouts {
                idle: Duration::from_millis(30),
                ..quick()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, hello);
        let mut client = connect(&server).await;
        ask(&mut client, get("/")).await.unwrap();
        server.connections_become(0).await;
        assert!(client.ready().await.is_err());
    });
}

#[test]
fn client_that_is_silent_while_it_waits_is_asked_and_cut() {
    run(async {
        let config = Config {
            timeouts: Timeouts {
                ping_after: Some(Duration::from_millis(30)),
                ping_answer: Duration::from_millis(200),
                ..quick()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, |_| ResponseFuture::later(std::future::pending()));
        // This client answers by itself, and stays.
        let mut lively = connect(&server).await;
        let _response = lively.send_request(get("/"), true).unwrap();
        // This one says nothing after its request.
        let mut dead = TcpStream::connect(server.address).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // GET http://t/, in HPACK.
        bytes.extend(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01t");
        dead.write_all(&bytes).await.unwrap();
        until(|| server.connections.busy() == 2).await;
        until(|| server.connections.busy() == 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(
            server.connections.busy(),
            1,
            "the lively one is still there"
        );
    });
}

#[test]
fn resets_of_accepted_streams_have_a_budget() {
    run(async {
        let server = TestServer::new(|_| ResponseFuture::later(std::future::pending()));
        let client = connect(&server).await;
        let mut resets = 0;
        let error = loop {
            let mut ready = match client.clone().ready().await {
                Ok(ready) => ready,
                Err(error) => break error,
            };
            let Ok((_response, mut body)) = ready.send_request(get("/"), false) else {
                continue;
            };
            let before = server.connections.requests();
            tokio::select! {
                () = until(|| server.connections.requests() > before) => {}
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            body.send_reset(Reason::CANCEL);
            resets += 1;
            assert!(resets < 1000, "never stopped");
        };
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error:?}");
        assert!(resets > 100);
        server.connections_become(0).await;
    });
}

#[test]
fn handlers_that_outlive_their_stream_count() {
    run(async {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let config = Config {
            limits: Limits {
                handlers_max: 3,
                ..Limits::default()
            },
            ..Config::default()
        };
        let keeping = kept.clone();
        let server = TestServer::with(config, move |request| {
            keeping.borrow_mut().push(request);
            ok("").into()
        });
        let mut client = connect(&server).await;
        for _ in 0..3 {
            ask(&mut client, get("/")).await.unwrap();
        }
        let error = ask(&mut client, get("/")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        kept.borrow_mut().clear();
        ask(&mut client, get("/")).await.unwrap();
    });
}

#[test]
fn floods_of_frames_that_carry_nothing_are_ended() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\0";
    run(async {
        let server = TestServer::new(hello);
        for frame in [PING, SETTINGS, PRIORITY] {
            let mut flood = TcpStream::connect(server.address).await.unwrap();
            let (mut reader, mut writer) = flood.split();
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            bytes.extend_from_slice(SETTINGS);
            bytes.extend(frame.repeat(20_000));
            let mut answer = Vec::new();
            let (_, _) = tokio::join!(writer.write_all(&bytes), reader.read_to_end(&mut answer));
            // GOAWAY with ENHANCE_YOUR_CALM is the last that is said.
            assert_eq!(answer[answer.len() - 4..], [0, 0, 0, 11], "{frame:?}");
            let mut client = connect(&server).await;
            assert_eq!(ask(&mut client, get("/")).await.unwrap().1, "hello");
        }
    });
}

#[test]
fn other_protocol_than_the_one_that_is_set_is_not_served() {
    run(async {
        let only = |protocol| {
            let config = Config {
                protocol,
                ..Config::default()
            };
            TestServer::with(config, hello)
        };
        let server = only(Protocol::Http1);
        assert_eq!(server.connect().await.get("/").await.text(), "hello");
        let mut client = connect(&server).await;
        assert!(ask(&mut client, get("/")).await.is_err());
        let server = only(Protocol::Http2);
        let mut client = connect(&server).await;
        assert_eq!(ask(&mut client, get("/")).await.unwrap().1, "hello");
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let rest = client.rest().await;
        assert!(!rest.starts_with(b"HTTP/1"), "{rest:?}");
    });
}

#[test]
fn body_over_the_limit_is_413() {
    run(async {
        let config = Config {
            limits: Limits {
                body_bytes_max: Some(1000),
                ..Limits::default()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, |mut request| {
            ResponseFuture::later(async move {
                while let Some(Ok(_)) = request.body.data().await {}
                ok("hello")
            })
        });
        let mut client = connect(&server).await;
        for (declared, bytes, status) in [(false, 1000, 200), (false, 1001, 413), (true, 1001, 413)]
        {
            let mut request = Request::post("http://t/");
            if declared {
                request = request.header("content-length", bytes);
            }
            let (response, mut body) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            body.send_data(vec![0; bytes].into(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{bytes}");
        }
    });
}

#[test]
fn connection_that_has_had_its_requests_goes_away() {
    run(async {
        let config = Config {
            limits: Limits {
                connection_requests_max: Some(2),
                ..Limits::default()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, hello);
        let mut client = connect(&server).await;
        for _ in 0..2 {
            assert_eq!(ask(&mut client, get("/")).await.unwrap().1, "hello");
        }
        server.connections_become(0).await;
        assert!(client.ready().await.is_err());
    });
}

#[test]
fn trailers_over_the_limit_are_not_kept() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            while let Some(data) = request.body.data().await {
                data.unwrap();
            }
            let kept = request.body.trailers().map_or(0, HeaderMap::len);
            ok(Bytes::from(kept.to_string()))
        });
        let mut client = connect(&server).await;
        for (bytes, kept) in [(60_000, "1"), (70_000, "0")] {
            let request = Request::post("http://t/").body(()).unwrap();
            let (response, mut body) = client.send_request(request, false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x", "a".repeat(bytes).parse().unwrap());
            body.send_trailers(trailers).unwrap();
            assert_eq!(text(response.await.unwrap()).await, kept);
        }
    });
}

#[test]
fn connection_over_the_limit_is_503_and_goes_away() {
    run(async {
        let config = Config {
            limits: Limits {
                connections_max: Some(1),
                ..Limits::default()
            },
            ..Config::default()
        };
        let server = TestServer::with(config, hello);
        let mut first = connect(&server).await;
        assert_eq!(ask(&mut first, get("/")).await.unwrap().1, "hello");
        let mut second = connect(&server).await;
        let (head, _) = ask(&mut second, get("/")).await.unwrap();
        assert_eq!(head.status, 503);
        assert_eq!(head.headers["retry-after"], "1");
        server.connections_become(1).await;
        assert!(second.ready().await.is_err());
        assert_eq!(ask(&mut first, get("/")).await.unwrap().1, "hello");
    });
}
