//! HTTP/1.0 clients: no chunks, no 1xx, and the connection ends unless they ask otherwise.
use crate::common;

use bytes::Bytes;
use common::{Frames, TestServer, hello, ok, run, stream};
use framegate_http::body::{Aborted, ResponseBody};
use http_body::Frame as BodyFrame;

#[test]
fn connection_ends_after_the_response() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let reply = client.reply().await.unwrap();
        assert_eq!(
            (reply.version.as_str(), reply.text()),
            ("HTTP/1.0", "hello")
        );
        assert!(client.is_closed().await);
    });
}

#[test]
fn keep_alive_is_kept_and_said() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        for _ in 0..3 {
            client
                .send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
                .await;
            let reply = client.reply().await.unwrap();
            assert_eq!(
                (reply.text(), reply.field("connection")),
                ("hello", Some("keep-alive"))
            );
        }
    });
}

#[test]
fn stream_ends_with_the_connection_and_is_not_chunked() {
    run(async {
        let server = TestServer::new(|_| ok(stream(&["a", "b"])).into());
        for fields in ["", "connection: keep-alive\r\n"] {
            let mut client = server.connect().await;
            client.send(format!("GET / HTTP/1.0\r\n{fields}\r\n")).await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.field("transfer-encoding"), None);
            assert_eq!(reply.field("connection"), Some("close"));
            assert_eq!(reply.text(), "ab");
        }
    });
}

#[test]
fn cut_stream_is_a_reset_not_an_end() {
    run(async {
        // The end of the connection is the end of the body, so a cut body must not end it in the ordinary way.
        use tokio::io::AsyncReadExt;
        let server = TestServer::new(|_| {
            let frames = [Ok(BodyFrame::data(Bytes::from_static(b"a"))), Err(Aborted)];
            ok(ResponseBody::Stream(Box::pin(Frames(frames.into())))).into()
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let mut all = Vec::new();
        let error = client.stream.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}
