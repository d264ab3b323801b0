//! Neither side can make the other buffer without bound.
use crate::common;

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::{Event, TestServer, ok, run};
use framegate_http::{
    Limits,
    body::{Aborted, ResponseBody},
};
use http_body::Frame as BodyFrame;
use tokio::io::AsyncWriteExt;

/// What the kernel buffers on loopback, both directions, at most.
const KERNEL: usize = 12 << 20;

/// Lets everything run until nothing moves.
async fn settle(progress: impl Fn() -> usize) -> usize {
    let mut last = usize::MAX;
    loop {
        let now = progress();
        if now == last {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn socket_is_not_read_while_the_handler_does_not_poll() {
    run(async {
        let go = Event::default();
        let server = {
            let go = go.clone();
            TestServer::later(move |mut request| {
                let go = go.clone();
                async move {
                    go.wait().await;
                    let mut total = 0;
                    while let Some(data) = request.body.data().await {
                        total += data.unwrap().len();
                    }
                    ok(Bytes::from(total.to_string()))
                }
            })
        };
        let mut client = server.connect().await;
        let length = 64 << 20;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n"
            ))
            .await;
        let sent = Rc::new(Cell::new(0));
        let (read, mut write) = client.stream.into_split();
        let writer = {
            let sent = sent.clone();
            tokio::task::spawn_local(async move {
                let piece = vec![0; 65536];
                while sent.get() < length {
                    write.write_all(&piece).await.unwrap();
                    sent.set(sent.get() + piece.len());
                }
                write
            })
        };
        let stuck = settle(|| sent.get()).await;
        assert!(
            stuck < KERNEL,
            "{stuck} bytes left the client though nobody read them"
        );
        go.set();
        let write = writer.await.unwrap();
        let mut client = common::Client::reunite(read, write);
        assert_eq!(client.reply().await.unwrap().text(), length.to_string());
    });
}

/// A body that always has one more piece, and counts them.
struct Endless {
    produced: Rc<Cell<usize>>,
    left: usize,
}

const PIECE: usize = 10_000;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.produced.set(self.produced.get() + PIECE);
        Poll::Ready(Some(Ok(BodyFrame::data(Bytes::from_static(&[7; PIECE])))))
    }
}

#[test]
fn response_is_not_polled_while_the_peer_does_not_read() {
    run(async {
        let pieces = 8000;
        let produced = Rc::new(Cell::new(0));
        let server = {
            let produced = produced.clone();
            TestServer::new(move |_| {
                let body = Endless {
                    produced: produced.clone(),
                    left: pieces,
                };
                ok(ResponseBody::Stream(Box::pin(body))).into()
            })
        };
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        common::until(|| produced.get() > 0).await;
        let stuck = settle(|| produced.get()).await;
        assert!(
            stuck < KERNEL + Limits::default().buffer_bytes_max,
            "{stuck} bytes were made"
        );
        assert_eq!(client.reply().await.unwrap().body.len(), pieces * PIECE);
    });
}
