//! A client must read what it asked for: one that takes nothing for a while is cut, one that is merely slow is not.
use crate::common;

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use common::{Event, Frames, SetOnDrop, TestServer, hello, ok, quick, run, spawn};
use framegate_http::{
    Config, Server, Timeouts,
    body::ResponseBody,
    service::{ResponseFuture, service_fn},
};
use http_body::Frame as BodyFrame;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};

const WRITE: Duration = Duration::from_millis(150);
/// More than the kernel buffers between two sockets of one machine.
const LARGE: usize = 32 << 20;

fn config() -> Config {
    Config {
        timeouts: Timeouts {
            write: WRITE,
            ..quick()
        },
        ..Config::default()
    }
}

#[test]
fn reader_that_takes_nothing_is_cut() {
    run(async {
        let server = TestServer::with(config(), |_| ok(Bytes::from(vec![0; LARGE])).into());
        let mut client = server.connect().await;
        let start = Instant::now();
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        server.connections_become(1).await;
        server.connections_become(0).await;
        assert!(start.elapsed() >= WRITE);
        // A reset: nobody may take what arrived for the whole.
        let error = client
            .stream
            .read_to_end(&mut Vec::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn handler_of_a_reader_that_takes_nothing_learns_of_it() {
    run(async {
        let dropped = Event::default();
        let server = {
            let dropped = dropped.clone();
            TestServer::with(config(), move |_| {
                struct Endless(#[expect(dead_code, reason = "tells of the drop")] SetOnDrop);
                impl http_body::Body for Endless {
                    type Data = Bytes;
                    type Error = framegate_http::body::Aborted;
                    fn poll_frame(
                        self: std::pin::Pin<&mut Self>,
                        _: &mut std::task::Context<'_>,
                    ) -> std::task::Poll<Option<Result<BodyFrame<Bytes>, Self::Error>>>
                    {
                        let frame = BodyFrame::data(Bytes::from_static(&[0; 10_000]));
                        std::task::Poll::Ready(Some(Ok(frame)))
                    }
                }
                let stream = Endless(SetOnDrop(dropped.clone()));
                ok(ResponseBody::Stream(Box::pin(stream))).into()
            })
        };
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        dropped.wait().await;
        server.connections_become(0).await;
    });
}

#[test]
fn slow_reader_is_served_to_the_end() {
    run(async {
        let server = TestServer::with(config(), |_| ok(Bytes::from(vec![0; LARGE])).into());
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let mut buffer = vec![0; LARGE / 8];
        let start = Instant::now();
        let mut read = 0;
        while read < LARGE {
            sleep(WRITE / 3).await;
            read += client.stream.read_exact(&mut buffer).await.unwrap();
        }
        assert!(start.elapsed() > WRITE * 2);
    });
}

/// What the kernel would say of a peer that reads so slowly that no write is possible.
static WAITING: AtomicU64 = AtomicU64::new(1_000_000);

#[test]
fn what_the_peers_kernel_takes_is_progress() {
    run(async {
        let mut config = config();
        config.unacknowledged = Some(|_| {
            WAITING
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                    bytes.checked_sub(1)
                })
                .ok()
        });
        let service = service_fn(|_| ok(Bytes::from(vec![0; LARGE])).into());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        #[cfg(target_os = "linux")]
        let same = listener.try_clone().unwrap();
        let server = TestServer::start_on(Server::new(service, Rc::new(config), spawn), listener);
        // Our own kernel knows that this peer takes nothing.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&same)
            .set_tcp_user_timeout(None)
            .unwrap();
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        sleep(WRITE * 3).await;
        assert_eq!(client.reply().await.unwrap().body.len(), LARGE);
    });
}

#[test]
fn stream_that_pauses_is_no_slow_reader() {
    run(async {
        let server = TestServer::with(config(), |request| {
            if request.head.uri.path() == "/hello" {
                return hello(request);
            }
            ResponseFuture::later(async {
                sleep(WRITE * 3).await;
                let frames = [Ok(BodyFrame::data(Bytes::from_static(b"late")))];
                ok(ResponseBody::Stream(Box::pin(Frames(frames.into()))))
            })
        });
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "late");
        sleep(WRITE * 2).await;
        assert_eq!(client.get("/hello").await.text(), "hello");
    });
}
