//! Clients of HTTP/2 that let a stream, or the connection, wait: each gets its time, and no more.
use crate::common;

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use common::{Event, SetOnDrop, TestServer, collect, ok, quick, run, until};
use framegate_http::{
    Config, Limits, Timeouts,
    body::{Aborted, ResponseBody},
    service::{Request, Response, ResponseFuture},
};
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http_body::Frame;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};

const BODY: Duration = Duration::from_millis(100);
const WRITE: Duration = Duration::from_millis(150);

fn config() -> Config {
    Config {
        timeouts: Timeouts {
            body: BODY,
            write: WRITE,
            ..quick()
        },
        ..Config::default()
    }
}

async fn connect_with(server: &TestServer, builder: &Builder) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = builder.handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client
}

async fn connect(server: &TestServer) -> SendRequest<Bytes> {
    connect_with(server, &Builder::new()).await
}

fn post(client: &mut SendRequest<Bytes>) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let request = http::Request::post("http://t/").body(()).unwrap();
    client.send_request(request, false).unwrap()
}

async fn get(client: &mut SendRequest<Bytes>, path: &str) -> Result<RecvStream, h2::Error> {
    let request = http::Request::get(format!("http://t{path}"))
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true)?;
    Ok(response.await?.into_body())
}

async fn count(mut request: Request) -> Response {
    match collect(&mut request.body).await {
        Ok(body) => ok(Bytes::from(body.len().to_string())),
        Err(error) => panic!("{error:?}"),
    }
}

async fn text(mut body: RecvStream) -> Result<String, h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    Ok(String::from_utf8(text).unwrap())
}

/// A body that never ends, and tells when it is dropped.
struct Endless(#[expect(dead_code, reason = "tells of the drop")] SetOnDrop);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Aborted;
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let frame = Frame::data(Bytes::from_static(&[b'x'; 10_000]));
        std::task::Poll::Ready(Some(Ok(frame)))
    }
}

/// Answers `/` without an end, anything else with "hello"; gives the event that the endless one was dropped.
fn endless() -> (TestServer, Event) {
    let dropped = Event::default();
    let told = dropped.clone();
    let server = TestServer::with(config(), move |request| {
        if request.head.uri.path() != "/" {
            return ok("hello").into();
        }
        let body = Endless(SetOnDrop(told.clone()));
        ok(ResponseBody::Stream(Box::pin(body))).into()
    });
    (server, dropped)
}

#[test]
fn stalled_body_of_a_stream_is_408_and_the_connection_lives_on() {
    run(async {
        let dropped = Event::default();
        let told = dropped.clone();
        let server = TestServer::with(config(), move |request| {
            let guard = SetOnDrop(told.clone());
            ResponseFuture::later(async move {
                let _guard = guard;
                count(request).await
            })
        });
        let mut client = connect(&server).await;
        let start = Instant::now();
        let (stalled, mut body) = post(&mut client);
        body.send_data("ab".into(), false).unwrap();
        let (served, mut other) = post(&mut client);
        other.send_data("abc".into(), true).unwrap();
        assert_eq!(text(served.await.unwrap().into_body()).await.unwrap(), "3");
        let response = stalled.await.unwrap();
        assert!(start.elapsed() >= BODY);
        assert_eq!(response.status(), 408);
        assert!(dropped.is_set());
        let said = text(response.into_body()).await.unwrap();
        assert_eq!(said, "the body of the request took too long\n");
        // The client is told that the rest is not wanted.
        let reset = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
        assert_eq!(reset.unwrap(), Reason::NO_ERROR);
        let (served, mut other) = post(&mut client);
        other.send_data("abc".into(), true).unwrap();
        assert_eq!(served.await.unwrap().status(), 200);
    });
}

#[test]
fn each_byte_of_a_streams_body_starts_its_time_anew() {
    run(async {
        let server = TestServer::with(config(), |request| ResponseFuture::later(count(request)));
        let mut client = connect(&server).await;
        let (response, mut body) = post(&mut client);
        for _ in 0..10 {
            sleep(BODY / 3).await;
            body.send_data("x".into(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(
            text(response.await.unwrap().into_body()).await.unwrap(),
            "10"
        );
    });
}

#[test]
fn dripping_body_of_a_stream_is_408_only_below_the_rate() {
    run(async {
        let mut config = config();
        config.limits.body_rate_min = 20;
        config.timeouts.body = Duration::from_secs(1);
        let server = TestServer::with(config, |request| ResponseFuture::later(count(request)));
        let mut client = connect(&server).await;
        for (pause, bytes, expected) in [(100, 60, 408), (25, 60, 200)] {
            let (response, mut body) = post(&mut client);
            let drip = tokio::task::spawn_local(async move {
                for _ in 0..bytes {
                    sleep(Duration::from_millis(pause)).await;
                    if body.send_data("x".into(), false).is_err() {
                        return;
                    }
                }
                let _ = body.send_data(Bytes::new(), true);
            });
            assert_eq!(response.await.unwrap().status(), expected);
            drip.abort();
        }
    });
}

#[test]
fn body_that_stalls_after_its_response_has_begun_resets_the_stream() {
    run(async {
        let (dropped, failed) = (Event::default(), Event::default());
        let told = (dropped.clone(), failed.clone());
        let server = TestServer::with(config(), move |mut request| {
            let (dropped, failed) = told.clone();
            tokio::task::spawn_local(async move {
                let error = collect(&mut request.body).await.unwrap_err();
                assert!(error.is_disconnected(), "{error:?}");
                failed.set();
            });
            ok(ResponseBody::Stream(Box::pin(Endless(SetOnDrop(dropped))))).into()
        });
        let mut client = connect(&server).await;
        let (response, _body) = post(&mut client);
        let mut body = response.await.unwrap().into_body();
        let error = loop {
            match body.data().await.expect("it has no end") {
                Ok(data) => {
                    // The response goes on all the time.
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        dropped.wait().await;
        failed.wait().await;
        assert_eq!(server.connections.count(), 1);
    });
}

#[test]
fn body_that_stalls_after_its_response_is_over_is_given_up() {
    run(async {
        let failed = Event::default();
        let told = failed.clone();
        let server = TestServer::with(config(), move |mut request| {
            let failed = told.clone();
            tokio::task::spawn_local(async move {
                collect(&mut request.body).await.unwrap_err();
                failed.set();
            });
            ok("early").into()
        });
        let mut client = connect(&server).await;
        let (response, mut body) = post(&mut client);
        let response = response.await.unwrap();
        assert_eq!(text(response.into_body()).await.unwrap(), "early");
        failed.wait().await;
        std::future::poll_fn(|cx| body.poll_reset(cx))
            .await
            .unwrap();
        assert_eq!(server.connections.count(), 1);
    });
}

#[test]
fn connection_whose_body_is_still_read_is_not_idle() {
    run(async {
        let mut config = config();
        config.timeouts.idle = Duration::from_millis(50);
        let read = Rc::new(Cell::new(0));
        let told = read.clone();
        let server = TestServer::with(config, move |mut request| {
            let read = told.clone();
            tokio::task::spawn_local(async move {
                read.set(collect(&mut request.body).await.unwrap().len());
            });
            ok("early").into()
        });
        let mut client = connect(&server).await;
        let (response, mut body) = post(&mut client);
        assert_eq!(response.await.unwrap().status(), 200);
        for _ in 0..6 {
            sleep(BODY / 3).await;
            body.send_data("x".into(), false).unwrap();
        }
        body.send_data("x".into(), true).unwrap();
        until(|| read.get() == 7).await;
        server.connections_become(0).await;
    });
}

#[test]
fn handler_that_does_not_read_its_stream_is_not_the_clients_fault() {
    run(async {
        let server = TestServer::with(config(), |request| {
            ResponseFuture::later(async move {
                sleep(BODY * 3).await;
                count(request).await
            })
        });
        let mut client = connect(&server).await;
        let (response, mut body) = post(&mut client);
        until(|| server.connections.busy() == 1).await;
        sleep(BODY * 2).await;
        body.send_data("abc".into(), true).unwrap();
        assert_eq!(
            text(response.await.unwrap().into_body()).await.unwrap(),
            "3"
        );
    });
}

/// One upload waits for room that others, which nobody reads, have used up.
#[test]
fn body_that_finds_no_room_is_not_the_clients_fault() {
    run(async {
        let mut config = config();
        config.limits = Limits {
            stream_window_bytes: 65_535,
            connection_window_bytes: 65_535,
            ..Limits::default()
        };
        let go = Event::default();
        let told = go.clone();
        let server = TestServer::with(config, move |request| {
            let go = told.clone();
            ResponseFuture::later(async move {
                if request.head.uri.path() == "/unread" {
                    go.wait().await;
                }
                count(request).await
            })
        });
        let mut client = connect(&server).await;
        let request = http::Request::post("http://t/unread").body(()).unwrap();
        let (unread, mut much) = client.send_request(request, false).unwrap();
        much.send_data(vec![0; 65_535].into(), true).unwrap();
        let (waiting, mut body) = post(&mut client);
        body.send_data("abc".into(), true).unwrap();
        until(|| server.connections.requests() == 2).await;
        sleep(BODY * 3).await;
        go.set();
        assert_eq!(text(waiting.await.unwrap().into_body()).await.unwrap(), "3");
        assert_eq!(unread.await.unwrap().status(), 200);
    });
}

#[test]
fn stream_whose_window_is_never_opened_is_reset() {
    run(async {
        let (server, dropped) = endless();
        // The connection's window stays open: only the stream's own is used up.
        let mut client = connect_with(
            &server,
            Builder::new()
                .initial_window_size(1000)
                .initial_connection_window_size(1 << 20),
        )
        .await;
        let start = Instant::now();
        let mut body = get(&mut client, "/").await.unwrap();
        dropped.wait().await;
        assert!(start.elapsed() >= WRITE);
        let mut bytes = 0;
        let error = loop {
            match body.data().await.expect("it has no end") {
                Ok(data) => bytes += data.len(),
                Err(error) => break error,
            }
        };
        assert_eq!((bytes, error.reason()), (1000, Some(Reason::CANCEL)));
        // The connection lives on.
        let other = get(&mut client, "/other").await.unwrap();
        assert_eq!(text(other).await.unwrap(), "hello");
        assert_eq!(server.connections.count(), 1);
    });
}

#[test]
fn connection_whose_window_is_never_opened_is_ended() {
    run(async {
        let (server, dropped) = endless();
        // The streams' windows are large: the connection's own is used up.
        let mut client = connect_with(&server, Builder::new().initial_window_size(1 << 20)).await;
        let start = Instant::now();
        let (_one, _two) = (
            get(&mut client, "/").await.unwrap(),
            get(&mut client, "/").await.unwrap(),
        );
        server.connections_become(0).await;
        assert!(start.elapsed() >= WRITE);
        dropped.wait().await;
    });
}

#[test]
fn windows_that_are_opened_slowly_are_enough() {
    run(async {
        for window in [1000, 1 << 20] {
            let (server, _) = endless();
            let mut client =
                connect_with(&server, Builder::new().initial_window_size(window)).await;
            let mut body = get(&mut client, "/").await.unwrap();
            let mut unreleased = 0;
            let start = Instant::now();
            while start.elapsed() < WRITE * 3 {
                tokio::select! {
                    data = body.data() => unreleased += data.unwrap().unwrap().len(),
                    () = sleep(WRITE / 3) => {
                        // The client of the crate tells of half a window at once.
                        let bytes = unreleased.min(40_000);
                        body.flow_control().release_capacity(bytes).unwrap();
                        unreleased -= bytes;
                    }
                }
            }
            assert_eq!(server.connections.busy(), 1, "window {window}");
        }
    });
}

#[test]
fn response_that_waits_for_its_turn_has_time() {
    run(async {
        let (server, dropped) = endless();
        let mut client = connect_with(&server, Builder::new().initial_window_size(1 << 20)).await;
        let ask = |client: &mut SendRequest<Bytes>, priority: &str| {
            let request = http::Request::get("http://t/")
                .header("priority", priority)
                .body(())
                .unwrap();
            client.send_request(request, true).unwrap().0
        };
        let mut urgent = ask(&mut client, "u=0").await.unwrap().into_body();
        let lazy = ask(&mut client, "u=7").await.unwrap().into_body();
        let start = Instant::now();
        // It takes all that the connection has.
        while start.elapsed() < WRITE * 3 {
            let data = urgent.data().await.unwrap().unwrap();
            urgent.flow_control().release_capacity(data.len()).unwrap();
        }
        assert!(!dropped.is_set());
        drop(lazy);
    });
}

#[test]
fn head_that_stands_still_ends_the_connection() {
    run(async {
        let mut config = config();
        config.timeouts.head = Duration::from_millis(100);
        let server = TestServer::with(config, |_| ResponseFuture::later(std::future::pending()));
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        // GET http://t/, in HPACK; first a whole one, so that the connection is busy; then one that lacks its last byte, and one
        // that lacks its CONTINUATION.
        let whole = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01t";
        let no_last_byte = b"\0\0\x06\x01\x05\0\0\0\x03\x82\x86\x84\x41\x01";
        let no_continuation = b"\0\0\x06\x01\x01\0\0\0\x03\x82\x86\x84\x41\x01t";
        for (head, ends) in [
            (&no_last_byte[..], true),
            (&no_continuation[..], true),
            (&[], false),
        ] {
            let mut client = TcpStream::connect(server.address).await.unwrap();
            client
                .write_all(&[&preface[..], whole, head].concat())
                .await
                .unwrap();
            until(|| server.connections.busy() == 1).await;
            let start = Instant::now();
            if ends {
                server.connections_become(0).await;
                assert!(start.elapsed() >= Duration::from_millis(50));
            } else {
                sleep(Duration::from_millis(300)).await;
                assert_eq!(server.connections.count(), 1);
            }
        }
    });
}
