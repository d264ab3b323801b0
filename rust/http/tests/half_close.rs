//! A client that closes its side after a whole request may still wait for the answer, or may be gone.
use crate::common;

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use common::{Event, SetOnDrop, TestServer, collect, ok, quick, run, until};
use framegate_http::{
    Config, Timeouts,
    body::{Aborted, ResponseBody},
    service::{Request, Response, ResponseFuture},
};
use http_body::Frame as BodyFrame;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";
const LONG: Duration = Duration::from_secs(60);

fn config(half_close: Duration) -> Config {
    Config {
        timeouts: Timeouts {
            half_close,
            ..quick()
        },
        ..Config::default()
    }
}

/// A server that answers when it is told to, and the event that its handler was dropped before.
fn waiting(half_close: Duration) -> (TestServer, Event, Event) {
    waiting_with(config(half_close))
}

fn waiting_with(config: Config) -> (TestServer, Event, Event) {
    let (go, dropped) = (Event::default(), Event::default());
    let (wanted, told) = (go.clone(), dropped.clone());
    let server = TestServer::with(config, move |_| {
        let (wanted, guard) = (wanted.clone(), SetOnDrop(told.clone()));
        ResponseFuture::later(async move {
            wanted.wait().await;
            std::mem::forget(guard);
            ok("late")
        })
    });
    (server, go, dropped)
}

#[test]
fn half_closed_client_gets_its_answer() {
    run(async {
        for request in [
            GET,
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            let (server, go, dropped) = waiting(LONG);
            let mut client = server.connect().await;
            client.send(request).await;
            client.stream.shutdown().await.unwrap();
            until(|| server.connections.busy() == 1).await;
            // The sweep looks a few times.
            sleep(Duration::from_millis(50)).await;
            go.set();
            assert_eq!(client.reply().await.unwrap().text(), "late", "{request:?}");
            assert!(client.is_closed().await, "nothing can follow");
            server.connections_become(0).await;
            assert!(!dropped.is_set());
        }
    });
}

#[test]
fn half_closed_client_gets_the_answers_to_all_that_it_had_sent() {
    run(async {
        let server = TestServer::with(config(LONG), |request| {
            ResponseFuture::later(async move {
                sleep(Duration::from_millis(10)).await;
                ok(Bytes::from(request.head.uri.path().to_owned()))
            })
        });
        let mut client = server.connect().await;
        client.send(common::pipelined(3)).await;
        client.stream.shutdown().await.unwrap();
        for n in 0..3 {
            assert_eq!(client.reply().await.unwrap().text(), format!("/{n}"));
        }
        assert!(client.is_closed().await);
    });
}

#[test]
fn half_closed_client_counts_as_gone_when_its_time_is_over() {
    run(async {
        let time = Duration::from_millis(100);
        let (server, _, dropped) = waiting(time);
        let mut client = server.connect().await;
        client.send(GET).await;
        let start = Instant::now();
        client.stream.shutdown().await.unwrap();
        dropped.wait().await;
        assert!(start.elapsed() >= time);
        assert!(client.is_closed().await);
        server.connections_become(0).await;
    });
}

#[test]
fn nobody_is_gone_while_bytes_are_under_way() {
    run(async {
        let mut config = config(Duration::from_millis(20));
        config.unacknowledged = Some(|_| Some(1));
        let (server, go, _) = waiting_with(config);
        let mut client = server.connect().await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        until(|| server.connections.busy() == 1).await;
        sleep(Duration::from_millis(100)).await;
        go.set();
        assert_eq!(client.reply().await.unwrap().text(), "late");
    });
}

/// Pieces with a pause before each.
struct Slow {
    pause: std::pin::Pin<Box<tokio::time::Sleep>>,
    left: usize,
    polled: Rc<Cell<usize>>,
    _guard: SetOnDrop,
}

const PAUSE: Duration = Duration::from_millis(60);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        if self.left == 0 {
            return std::task::Poll::Ready(None);
        }
        std::task::ready!(self.pause.as_mut().poll(cx));
        self.pause.as_mut().reset(Instant::now() + PAUSE);
        self.left -= 1;
        self.polled.set(self.polled.get() + 1);
        std::task::Poll::Ready(Some(Ok(BodyFrame::data(Bytes::from_static(b"piece")))))
    }
}

fn stream_of(
    pieces: usize,
    polled: &Rc<Cell<usize>>,
    dropped: &Event,
) -> impl Fn(Request) -> ResponseFuture + 'static {
    let (polled, dropped) = (polled.clone(), dropped.clone());
    move |_| {
        let body = Slow {
            pause: Box::pin(sleep(PAUSE)),
            left: pieces,
            polled: polled.clone(),
            _guard: SetOnDrop(dropped.clone()),
        };
        let response: Response = ok(ResponseBody::Stream(Box::pin(body)));
        response.into()
    }
}

#[test]
fn client_that_takes_what_is_written_is_there() {
    run(async {
        // In all three times as long as it may be silent.
        let stream = stream_of(9, &Rc::default(), &Event::default());
        let server = TestServer::with(config(PAUSE * 3), stream);
        let mut client = server.connect().await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.reply().await.unwrap().body, b"piece".repeat(9));
        assert!(client.is_closed().await);
    });
}

#[test]
fn client_that_is_gone_is_found_by_writing_to_it() {
    run(async {
        let (polled, dropped) = (Rc::new(Cell::new(0)), Event::default());
        let server = TestServer::with(config(LONG), stream_of(1000, &polled, &dropped));
        let mut client = server.connect().await;
        client.send(GET).await;
        until(|| server.connections.busy() == 1).await;
        let before = polled.get();
        drop(client);
        dropped.wait().await;
        // One piece for the reset to come back, and the sweep's look at it.
        assert!(polled.get() - before < 10);
        server.connections_become(0).await;
    });
}

#[test]
fn reset_of_a_half_closed_connection_is_noticed_by_the_sweep() {
    run(async {
        let (server, _, dropped) = waiting(LONG);
        let mut client = server.connect().await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        until(|| server.connections.busy() == 1).await;
        sleep(Duration::from_millis(20)).await;
        assert!(!dropped.is_set());
        client.stream.set_zero_linger().unwrap();
        drop(client);
        dropped.wait().await;
        server.connections_become(0).await;
    });
}

#[test]
fn request_that_is_not_whole_never_will_be() {
    run(async {
        for request in [
            "GET / HT",
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nab",
        ] {
            let server = TestServer::with(config(LONG), |mut request| {
                ResponseFuture::later(async move {
                    let error = collect(&mut request.body).await.unwrap_err();
                    assert!(error.is_disconnected(), "{error:?}");
                    ok("never seen")
                })
            });
            let mut client = server.connect().await;
            client.send(request).await;
            client.stream.shutdown().await.unwrap();
            until(|| server.connections.accepted() == 1).await;
            server.connections_become(0).await;
        }
    });
}

#[test]
fn large_answer_reaches_a_half_closed_client_that_reads_late() {
    const LARGE: usize = 16 << 20;
    run(async {
        let server = TestServer::with(config(Duration::from_millis(30)), |_| {
            ok(Bytes::from(vec![b'x'; LARGE])).into()
        });
        let mut client = server.connect().await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        // The kernel holds a part of it, so the answer is still under way when the client's time is over.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(client.reply().await.unwrap().body.len(), LARGE);
        assert!(client.is_closed().await);
    });
}

#[test]
fn drain_waits_for_the_answer_to_a_half_closed_client() {
    run(async {
        let (server, go, _) = waiting(LONG);
        let mut client = server.connect().await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        until(|| server.connections.busy() == 1).await;
        let connections = server.connections.clone();
        let drain = tokio::task::spawn_local(async move { connections.drain(LONG).await });
        tokio::task::yield_now().await;
        go.set();
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            ("late", Some("close"))
        );
        assert_eq!(drain.await.unwrap(), 0);
    });
}
