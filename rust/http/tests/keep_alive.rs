//! Connections are reused, and closed when either side says so.
use crate::common;

use common::{TestServer, hello, ok, run, stream};
use framegate_http::service::ResponseFuture;

#[test]
fn requests_share_a_connection() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        for _ in 0..100 {
            let reply = client.get("/").await;
            assert_eq!((reply.status, reply.text()), (200, "hello"));
            assert_eq!(reply.field("content-length"), Some("5"));
            assert!(reply.field("date").is_some());
            assert_eq!(reply.field("connection"), None);
        }
        assert_eq!(server.connections.accepted(), 1);
        assert_eq!(server.connections.requests(), 100);
    });
}

#[test]
fn date_is_added_unless_it_is_switched_off_or_there() {
    use framegate_http::Config;
    run(async {
        for (date_header, expected) in [(true, 1), (false, 0)] {
            let config = Config {
                date_header,
                ..Config::default()
            };
            let server = TestServer::with(config, hello);
            let reply = server.connect().await.get("/").await;
            let dates = reply
                .fields
                .iter()
                .filter(|(name, _)| name == "date")
                .count();
            assert_eq!(dates, expected);
        }
        let server = TestServer::new(|_| {
            let mut response = ok("");
            response
                .headers_mut()
                .insert("date", "today".parse().unwrap());
            response.into()
        });
        let reply = server.connect().await.get("/").await;
        let dates: Vec<_> = reply
            .fields
            .iter()
            .filter(|(name, _)| name == "date")
            .collect();
        assert_eq!(dates, [&("date".to_owned(), "today".to_owned())]);
    });
}

#[test]
fn bytes_of_open_and_closed_connections_are_counted() {
    run(async {
        let server = TestServer::new(hello);
        for round in 1..=2 {
            let mut client = server.connect().await;
            let request = "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
            client.send(request).await;
            let reply = client.rest().await;
            drop(client);
            let (bytes_in, bytes_out) = (
                server.connections.bytes_in(),
                server.connections.bytes_out(),
            );
            assert_eq!(bytes_in, round * request.len() as u64);
            assert_eq!(bytes_out, round * reply.len() as u64);
            server.connections_become(0).await;
            assert_eq!(server.connections.bytes_in(), bytes_in);
            assert_eq!(server.connections.bytes_out(), bytes_out);
        }
    });
}

#[test]
fn connection_close_of_the_client_ends_it_after_the_response() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\nGET /never HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.text(), "hello");
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(
            client.is_closed().await,
            "nothing is answered after `connection: close`"
        );
        drop(client);
        server.connections_become(0).await;
        assert_eq!(server.connections.requests(), 1);
    });
}

#[test]
fn connection_close_of_the_handler_ends_it_after_the_response() {
    run(async {
        let server = TestServer::new(|_| {
            let mut response = ok("last");
            response
                .headers_mut()
                .insert("connection", "close".parse().unwrap());
            response.into()
        });
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "last");
        assert!(client.is_closed().await);
    });
}

#[test]
fn streamed_response_keeps_the_connection() {
    run(async {
        let server = TestServer::new(|_| ok(stream(&["a", "", "bc"])).into());
        let mut client = server.connect().await;
        for _ in 0..3 {
            let reply = client.get("/").await;
            assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
            assert_eq!(reply.text(), "abc");
        }
    });
}

#[test]
fn response_that_comes_later_keeps_the_connection() {
    run(async {
        let server = TestServer::new(|_| {
            ResponseFuture::later(async {
                tokio::task::yield_now().await;
                ok("later")
            })
        });
        let mut client = server.connect().await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "later");
        }
    });
}

#[test]
fn unread_body_that_has_arrived_keeps_the_connection() {
    run(async {
        let server = TestServer::new(hello);
        let mut client = server.connect().await;
        for _ in 0..3 {
            client
                .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc")
                .await;
            assert_eq!(client.reply().await.unwrap().text(), "hello");
        }
        assert_eq!(server.connections.accepted(), 1);
    });
}

#[test]
fn response_to_an_unread_large_body_arrives_before_the_close() {
    run(async {
        // What broke elsewhere: the server closed with unread bytes, the kernel sent a reset, and the client never saw the 413.
        let server = TestServer::new(|_| {
            let mut response = ok("too large");
            *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
            response.into()
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4000000\r\n\r\n")
            .await;
        for _ in 0..40 {
            client.send(vec![0; 100_000]).await;
        }
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.text()), (413, "too large"));
        assert!(client.is_closed().await);
    });
}

#[test]
fn fresh_connection_that_closes_is_forgotten() {
    run(async {
        let server = TestServer::new(hello);
        let clients = [
            server.connect().await,
            server.connect().await,
            server.connect().await,
        ];
        server.connections_become(3).await;
        drop(clients);
        server.connections_become(0).await;
    });
}

#[cfg(unix)]
#[test]
fn unix_sockets_are_served() {
    use framegate_http::{
        Config, Server,
        service::{Address, ConnectionInfo, Handler, Request, Service},
    };
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct ShowsInfo;
    struct Shows(String);
    impl Service for ShowsInfo {
        fn open(&self, info: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
            assert_eq!(info.peer, Address::Unix(None));
            Rc::new(Shows(info.local.to_string()))
        }
    }
    impl Handler for Shows {
        fn call(&self, _: Request) -> ResponseFuture {
            ok(bytes::Bytes::from(self.0.clone())).into()
        }
    }

    run(async {
        let path = std::env::temp_dir().join(format!("framegate-http-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = Server::new(
            Rc::new(ShowsInfo),
            Rc::new(Config::default()),
            common::spawn,
        );
        server.listen(listener).unwrap();
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with(&format!("unix:{}", path.display())),
            "{answer}"
        );
    });
}
