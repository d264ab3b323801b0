//! Bodies become frames; what does not fit or does not arrive whole becomes nothing.
use crate::common;

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use common::{Event, TestServer, ok, run, until};
use framegate_http::{
    ingest::{FrameSink, FrameSlot, IngestError, Published, ingest},
    topics::FrameHead,
};
use http::StatusCode;

const SLOT: usize = 1000;

/// A topic on plain memory.
#[derive(Default)]
struct Memory {
    frames: RefCell<Vec<Vec<u8>>>,
    loans: RefCell<Vec<Option<u64>>>,
    abandoned: Event,
    full: bool,
}

#[derive(Clone, Default)]
struct Topic(Rc<Memory>);

struct Slot {
    topic: Topic,
    bytes: Vec<u8>,
    filled: usize,
    published: bool,
}

impl FrameSink for Topic {
    fn loan(&self, bytes: Option<u64>) -> Result<Box<dyn FrameSlot>, IngestError> {
        if self.0.full {
            return Err(IngestError::unavailable("all slots are loaned"));
        }
        if bytes.is_some_and(|bytes| bytes > SLOT as u64) {
            return Err(IngestError::too_large());
        }
        self.0.loans.borrow_mut().push(bytes);
        let size = bytes.map_or(SLOT, |bytes| bytes as usize);
        Ok(Box::new(Slot {
            topic: self.clone(),
            bytes: vec![0; size],
            filled: 0,
            published: false,
        }))
    }
}

impl FrameSlot for Slot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn publish(mut self: Box<Self>, _head: &FrameHead) -> Result<Published, IngestError> {
        self.published = true;
        let mut frames = self.topic.0.frames.borrow_mut();
        frames.push(self.bytes[..self.filled].to_vec());
        Ok(Published {
            sequence: frames.len() as u64,
            bytes: self.filled as u64,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.published {
            self.topic.0.abandoned.set();
        }
    }
}

fn serve(topic: &Topic, bytes_max: Option<u64>) -> TestServer {
    let topic = topic.clone();
    TestServer::later(move |mut request| {
        let topic = topic.clone();
        async move {
            let head = FrameHead::default();
            match ingest(&mut request.body, &topic, &head, bytes_max).await {
                Ok(published) => ok(Bytes::from(format!(
                    "{} {}",
                    published.sequence, published.bytes
                ))),
                Err(error) => {
                    let mut response = ok(Bytes::from(error.to_string()));
                    *response.status_mut() = if error.is_too_large() {
                        StatusCode::PAYLOAD_TOO_LARGE
                    } else if error.is_unavailable() {
                        StatusCode::SERVICE_UNAVAILABLE
                    } else {
                        assert!(error.is_body());
                        StatusCode::BAD_REQUEST
                    };
                    response
                }
            }
        }
    })
}

fn declared(bytes: usize) -> Vec<u8> {
    let mut request =
        format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    request.extend(content(bytes));
    request
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

fn chunked(chunks: &[usize]) -> Vec<u8> {
    let mut request = b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for &chunk in chunks {
        request.extend(format!("{chunk:x}\r\n").into_bytes());
        request.extend(vec![b'x'; chunk]);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

#[test]
fn declared_body_becomes_a_frame_of_its_size() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        for (sequence, bytes) in [(1, SLOT), (2, 1), (3, 0)] {
            client.send(declared(bytes)).await;
            assert_eq!(
                client.reply().await.unwrap().text(),
                format!("{sequence} {bytes}")
            );
        }
        let frames = topic.0.frames.borrow();
        assert_eq!(*frames, [content(SLOT), content(1), content(0)]);
        assert_eq!(*topic.0.loans.borrow(), [Some(1000), Some(1), Some(0)]);
    });
}

#[test]
fn chunked_body_loans_a_whole_slot() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        client.send(chunked(&[400, 600])).await;
        assert_eq!(client.reply().await.unwrap().text(), "1 1000");
        assert_eq!(*topic.0.loans.borrow(), [None]);
    });
}

#[test]
fn declared_body_over_the_slot_is_refused_before_it_is_read() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n")
            .await;
        // No `100 Continue` came first: the body was not read.
        assert_eq!(client.reply().await.unwrap().status, 413);
        assert!(topic.0.loans.borrow().is_empty());
    });
}

#[test]
fn chunked_body_over_the_slot_abandons_the_loan() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        client.send(chunked(&[400, 601])).await;
        assert_eq!(client.reply().await.unwrap().status, 413);
        assert!(topic.0.abandoned.is_set());
        assert!(topic.0.frames.borrow().is_empty());
    });
}

#[test]
fn limit_below_the_slot_holds_for_both_kinds_of_body() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, Some(500));
        for (request, status) in [
            (declared(500), 200),
            (declared(501), 413),
            (chunked(&[499, 1]), 200),
            (chunked(&[499, 2]), 413),
        ] {
            let mut client = server.connect().await;
            client.send(request).await;
            assert_eq!(client.reply().await.unwrap().status, status);
        }
        assert_eq!(topic.0.frames.borrow().len(), 2);
    });
}

#[test]
fn client_that_leaves_in_mid_body_abandons_the_loan() {
    run(async {
        let topic = Topic::default();
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        client.send(&declared(SLOT)[..500]).await;
        until(|| topic.0.loans.borrow().len() == 1).await;
        assert!(!topic.0.abandoned.is_set());
        drop(client);
        topic.0.abandoned.wait().await;
        assert!(topic.0.frames.borrow().is_empty());
    });
}

#[test]
fn topic_without_a_free_slot_is_503() {
    run(async {
        let topic = Topic(Rc::new(Memory {
            full: true,
            ..Memory::default()
        }));
        let server = serve(&topic, None);
        let mut client = server.connect().await;
        client.send(declared(10)).await;
        assert_eq!(client.reply().await.unwrap().status, 503);
    });
}
