//! `100 Continue` is sent when the handler reads the body, and only then.
use crate::common;

use std::pin::pin;

use common::{Event, TestServer, collect, hello, ok, poll_once, run};
use tokio::io::AsyncReadExt;

const HEAD: &str =
    "POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";

#[test]
fn continue_is_sent_when_the_body_is_read() {
    run(async {
        let read = Event::default();
        let server = {
            let read = read.clone();
            TestServer::later(move |mut request| {
                let read = read.clone();
                async move {
                    read.wait().await;
                    ok(bytes::Bytes::from(
                        collect(&mut request.body).await.unwrap(),
                    ))
                }
            })
        };
        let mut client = server.connect().await;
        client.send(HEAD).await;
        common::until(|| server.connections.busy() == 1).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let mut byte = [0];
        let early = pin!(client.stream.read(&mut byte));
        assert!(
            poll_once(early).is_pending(),
            "nothing is sent before the handler reads"
        );
        read.set();
        assert_eq!(client.reply().await.unwrap().status, 100);
        client.send("abc").await;
        assert_eq!(client.reply().await.unwrap().text(), "abc");
    });
}

#[test]
fn continue_is_not_sent_when_the_handler_does_not_read() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        client.send(HEAD).await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.text()), (200, "hello"));
        // Whether the body will come cannot be known, so this connection carries no further request.
        assert!(client.is_closed().await);
    });
}

#[test]
fn continue_is_not_sent_to_http_10() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            ok(bytes::Bytes::from(
                collect(&mut request.body).await.unwrap(),
            ))
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc")
            .await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.text()), (200, "abc"));
    });
}
