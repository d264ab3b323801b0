//! Files in responses, through the kernel.
#![allow(
    unsafe_code,
    reason = "sendfile(2) itself, which the crate leaves to its user"
)]
use crate::common;

use std::{
    cell::Cell,
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, BorrowedFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use common::{TestServer, ok, run};
use framegate_http::{
    Config,
    body::{Aborted, ResponseBody},
    sendfile::{FileSender, PIECE_BYTES_MAX},
    service::{Request, Response, ResponseFuture},
};
use http_body::Frame as BodyFrame;

fn sendfile(socket: BorrowedFd<'_>, file: &File, offset: u64, bytes: usize) -> io::Result<usize> {
    let mut offset = i64::try_from(offset).unwrap();
    // SAFETY: both are open, and `offset` is ours.
    let sent =
        unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, bytes) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn cannot(_: BorrowedFd<'_>, _: &File, _: u64, _: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// Bytes that differ from place to place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

/// A file that has no name.
fn file(content: &[u8]) -> File {
    // SAFETY: a constant name; the descriptor is new.
    let mut file: File = unsafe {
        let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
        std::os::fd::FromRawFd::from_raw_fd(fd)
    };
    file.write_all(content).unwrap();
    file
}

/// Memory, file and memory again.
struct Mixed {
    sender: FileSender,
    file: Arc<File>,
    left: u64,
    offset: u64,
    step: usize,
}

impl http_body::Body for Mixed {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let me = &mut *self;
        let data = match me.step {
            0 => Bytes::from_static(b"before"),
            1 if me.left > 0 => {
                let piece = me.sender.piece(&me.file, me.offset, me.left);
                me.offset += piece.len() as u64;
                me.left -= piece.len() as u64;
                return Poll::Ready(Some(Ok(BodyFrame::data(piece))));
            }
            1 => Bytes::from_static(b"after"),
            _ => return Poll::Ready(None),
        };
        me.step += 1;
        Poll::Ready(Some(Ok(BodyFrame::data(data))))
    }
}

fn mixed(request: &Request, file: &Arc<File>, offset: u64, left: u64) -> Response {
    let sender = request.hints.file_sender().expect("plain HTTP/1.1");
    ok(ResponseBody::Stream(Box::pin(Mixed {
        sender,
        file: file.clone(),
        left,
        offset,
        step: 0,
    })))
}

fn config(call: framegate_http::SendFile) -> Config {
    Config {
        send_file: Some(call),
        ..Config::default()
    }
}

fn around(content: &[u8]) -> Vec<u8> {
    [b"before", content, b"after"].concat()
}

#[test]
fn bytes_of_memory_and_of_files_keep_their_order() {
    run(async {
        for call in [sendfile as framegate_http::SendFile, cannot] {
            let content = pattern(3 * PIECE_BYTES_MAX + 777);
            let sent = Arc::new(file(&content));
            let (offset, left) = (5_u64, 3 * PIECE_BYTES_MAX as u64 + 700);
            let server = TestServer::with(config(call), move |request| {
                let mut response = mixed(&request, &sent, offset, left);
                if request.head.uri.path() == "/length" {
                    let headers = response.headers_mut();
                    headers.insert("content-length", (left + 11).into());
                }
                response.into()
            });
            let mut client = server.connect().await;
            let expected = around(&content[5..][..usize::try_from(left).unwrap()]);
            // Pipelined, so that hyper has more than one of them at once.
            client
                .send("GET / HTTP/1.1\r\nhost: t\r\n\r\nGET /length HTTP/1.1\r\nhost: t\r\n\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n")
                .await;
            for _ in 0..3 {
                assert!(client.reply().await.unwrap().body == expected);
            }
        }
    });
}

#[test]
fn a_body_longer_than_promised_does_not_reach_the_next_response() {
    run(async {
        let (one, two) = (Arc::new(file(&[b'1'; 1000])), Arc::new(file(&[b'2'; 1000])));
        let server = TestServer::with(config(sendfile), move |request| {
            let short = request.head.uri.path() == "/short";
            let mut response = mixed(&request, if short { &one } else { &two }, 0, 1000);
            if short {
                let headers = response.headers_mut();
                headers.insert("content-length", 106.into());
            }
            response.into()
        });
        let mut client = server.connect().await;
        client
            .send("GET /short HTTP/1.1\r\nhost: t\r\n\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n")
            .await;
        let first = client.reply().await.unwrap();
        assert_eq!(first.body, [b"before".as_slice(), &[b'1'; 100]].concat());
        let second = client.reply().await.unwrap();
        assert_eq!(second.body, around(&[b'2'; 1000]));
    });
}

#[test]
fn a_file_that_became_shorter_cuts_the_connection() {
    run(async {
        let content = pattern(PIECE_BYTES_MAX * 2);
        let sent = Arc::new(file(&content));
        let told = Rc::new(Cell::new(None));
        let (told_to, known) = (told.clone(), sent.clone());
        let server = TestServer::with(config(sendfile), move |request| {
            known.set_len(PIECE_BYTES_MAX as u64 / 2).unwrap();
            let response = mixed(&request, &known, 0, PIECE_BYTES_MAX as u64 * 2);
            let sender = request.hints.file_sender().unwrap();
            let told_to = told_to.clone();
            tokio::task::spawn_local(async move {
                loop {
                    if let Some(error) = sender.take_failure() {
                        told_to.set(Some(error.kind()));
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            });
            response.into()
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert!(client.reply().await.is_none());
        common::until(|| {
            let kind = told.get();
            told.set(kind);
            kind == Some(io::ErrorKind::UnexpectedEof)
        })
        .await;
    });
}

#[test]
fn there_is_no_sender_without_the_call_nor_for_http_1_0() {
    run(async {
        let answer = |request: Request| -> ResponseFuture {
            ok(Bytes::from(
                request.hints.file_sender().is_some().to_string(),
            ))
            .into()
        };
        let server = TestServer::new(answer);
        assert_eq!(server.connect().await.get("/").await.text(), "false");
        let server = TestServer::with(config(sendfile), answer);
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "true");
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().text(), "false");
    });
}
