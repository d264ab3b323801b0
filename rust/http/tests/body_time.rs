//! A body must come in time while the server waits for it; a handler that does not read waits for nothing.
use crate::common;

use std::time::Duration;

use bytes::Bytes;
use common::{Event, SetOnDrop, TestServer, collect, ok, quick, run};
use framegate_http::{
    Config, Limits, Timeouts,
    service::{Request, Response, ResponseFuture},
};
use tokio::time::{Instant, sleep};

const BODY: Duration = Duration::from_millis(100);

fn config(limits: Limits) -> Config {
    Config {
        limits,
        timeouts: Timeouts {
            body: BODY,
            ..quick()
        },
        ..Config::default()
    }
}

async fn count(mut request: Request) -> Response {
    match collect(&mut request.body).await {
        Ok(body) => ok(Bytes::from(body.len().to_string())),
        Err(error) => panic!("{error:?}"),
    }
}

fn serve() -> TestServer {
    TestServer::with(config(Limits::default()), |request| {
        ResponseFuture::later(count(request))
    })
}

const HEADS: [&str; 4] = [
    "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n2\r\na",
    // The largest that can be said.
    "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\na",
];

#[test]
fn stalled_body_is_408() {
    run(async {
        let server = serve();
        for head in HEADS {
            let mut client = server.connect().await;
            let start = Instant::now();
            client.send(head).await;
            let reply = client.reply().await.unwrap();
            assert!(start.elapsed() >= BODY);
            assert_eq!(reply.status, 408, "{head}");
            assert_eq!(reply.field("connection"), Some("close"));
            assert!(client.is_closed().await);
        }
        server.connections_become(0).await;
    });
}

#[test]
fn handler_of_a_stalled_body_is_dropped() {
    run(async {
        let dropped = Event::default();
        let server = {
            let dropped = dropped.clone();
            TestServer::with(config(Limits::default()), move |request| {
                let guard = SetOnDrop(dropped.clone());
                ResponseFuture::later(async move {
                    let _guard = guard;
                    count(request).await
                })
            })
        };
        let mut client = server.connect().await;
        client.send(HEADS[0]).await;
        assert_eq!(client.reply().await.unwrap().status, 408);
        assert!(dropped.is_set());
    });
}

#[test]
fn each_byte_of_a_body_starts_the_time_anew() {
    run(async {
        let server = serve();
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n")
            .await;
        for _ in 0..10 {
            sleep(BODY / 3).await;
            client.send("x").await;
        }
        assert_eq!(client.reply().await.unwrap().text(), "10");
    });
}

#[test]
fn dripping_body_is_408_only_below_the_rate() {
    run(async {
        // 20 bytes in each second, that is in each time of the body.
        let mut config = config(Limits {
            body_rate_min: 20,
            ..Limits::default()
        });
        config.timeouts.body = Duration::from_secs(1);
        let server = TestServer::with(config, |request| ResponseFuture::later(count(request)));
        for (pause, expected) in [(100, 408), (25, 200)] {
            let client = server.connect().await;
            let (read, mut write) = client.stream.into_split();
            let drip = tokio::task::spawn_local(async move {
                use tokio::io::AsyncWriteExt;
                let head = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 60\r\n\r\n";
                write.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..60 {
                    sleep(Duration::from_millis(pause)).await;
                    if write.write_all(b"x").await.is_err() {
                        break;
                    }
                }
                write
            });
            let mut answer = [0; 12];
            let mut read = read;
            tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer)
                .await
                .unwrap();
            assert_eq!(answer[9..], *expected.to_string().as_bytes());
            drop(read);
            drip.await.unwrap();
        }
    });
}

#[test]
fn handler_that_does_not_read_is_not_the_clients_fault() {
    run(async {
        let server = TestServer::with(config(Limits::default()), |request| {
            ResponseFuture::later(async move {
                // The client waits for `100 Continue`, and nobody asks it for the body.
                sleep(BODY * 3).await;
                count(request).await
            })
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            .await;
        assert_eq!(client.reply().await.unwrap().status, 100);
        client.send("abc").await;
        assert_eq!(client.reply().await.unwrap().text(), "3");
    });
}

#[test]
fn handler_that_works_after_the_body_has_its_time() {
    run(async {
        let server = TestServer::with(config(Limits::default()), |request| {
            ResponseFuture::later(async move {
                let response = count(request).await;
                sleep(BODY * 3).await;
                response
            })
        });
        let mut client = server.connect().await;
        client.send([HEADS[0], "abc"].concat()).await;
        assert_eq!(client.reply().await.unwrap().text(), "3");
    });
}

#[test]
fn body_that_stalls_after_the_response_has_begun_cuts_the_connection() {
    run(async {
        let failed = Event::default();
        let server = {
            let failed = failed.clone();
            TestServer::with(config(Limits::default()), move |mut request| {
                let failed = failed.clone();
                tokio::task::spawn_local(async move {
                    let error = collect(&mut request.body).await.unwrap_err();
                    assert!(error.is_disconnected(), "{error:?}");
                    failed.set();
                });
                ok("early").into()
            })
        };
        let mut client = server.connect().await;
        client.send(HEADS[0]).await;
        assert_eq!(client.reply().await.unwrap().text(), "early");
        assert!(client.is_closed().await);
        failed.wait().await;
    });
}

#[test]
fn large_body_that_is_read_past_the_parser_has_the_same_time() {
    run(async {
        let server = TestServer::with(config(Limits::default()), |mut request| {
            ResponseFuture::later(async move {
                let mut into = vec![0; 300_000];
                let mut filled = 0;
                loop {
                    match request.body.read(&mut into[filled..]).await {
                        Ok(0) => return ok(Bytes::from(filled.to_string())),
                        Ok(bytes) => filled += bytes,
                        Err(error) => panic!("{error:?}"),
                    }
                    if filled == 250_000 {
                        into.truncate(250_001);
                    }
                }
            })
        });
        let head = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 250000\r\n\r\n";
        let mut client = server.connect().await;
        client.send(head).await;
        for _ in 0..5 {
            sleep(BODY / 3).await;
            client.send(vec![0; 50_000]).await;
        }
        assert_eq!(client.reply().await.unwrap().text(), "250000");
        client.send(head).await;
        client.send(vec![0; 200_000]).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.status, 408);
        assert!(client.is_closed().await);
    });
}
