//! Responses that must not have a body do not have one, and what a handler declares cannot move the next response.
use crate::common;

use bytes::Bytes;
use common::{Frames, TestServer, ok, run, stream};
use framegate_http::{
    body::{Aborted, ResponseBody},
    service::Response,
};
use http::StatusCode;
use http_body::Frame as BodyFrame;

fn with_length(body: ResponseBody, length: &str) -> Response {
    let mut response = ok(body);
    response
        .headers_mut()
        .insert("content-length", length.parse().unwrap());
    response
}

fn with_status(status: u16, body: ResponseBody) -> Response {
    let mut response = ok(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[test]
fn head_has_the_fields_and_no_body() {
    run(async {
        let server = TestServer::new(|request| {
            match request.head.uri.path() {
                "/full" => ok("12345"),
                "/stream" => ok(stream(&["12345"])),
                "/declared" => with_length(stream(&["12345"]), "5"),
                _ => with_length(ResponseBody::Empty, "5"),
            }
            .into()
        });
        let mut client = server.connect().await;
        for (path, length) in [
            ("/full", None),
            ("/stream", None),
            ("/declared", Some("5")),
            ("/empty", Some("5")),
        ] {
            client
                .send(format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"))
                .await;
            let head = client.head().await.unwrap();
            assert_eq!(head.status, 200);
            if let Some(length) = length {
                assert_eq!(head.field("content-length"), Some(length), "{path}");
            }
            // The next head follows at once, or this fails.
        }
        assert_eq!(client.get("/full").await.text(), "12345");
    });
}

#[test]
fn head_of_a_whole_body_has_its_length() {
    run(async {
        let server = TestServer::new(|_| ok("12345").into());
        let mut client = server.connect().await;
        client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(
            client.head().await.unwrap().field("content-length"),
            Some("5")
        );
    });
}

#[test]
fn statuses_without_body_have_none_whatever_the_handler_gives() {
    run(async {
        let server = TestServer::new(|request| {
            match request.head.uri.path() {
                "/204" => with_status(204, ResponseBody::from("12345")),
                "/204s" => with_status(204, stream(&["12345"])),
                "/304" => with_status(304, ResponseBody::from("12345")),
                "/304s" => with_status(304, stream(&["12345"])),
                "/204l" => {
                    let mut response = with_status(204, ResponseBody::Empty);
                    response
                        .headers_mut()
                        .insert("content-length", "5".parse().unwrap());
                    response
                }
                _ => ok("next"),
            }
            .into()
        });
        let mut client = server.connect().await;
        for path in ["/204", "/204s", "/304", "/304s", "/204l"] {
            let reply = client.get(path).await;
            assert_eq!(reply.status.to_string(), path[1..4], "{path}");
            assert_eq!(reply.field("transfer-encoding"), None, "{path}");
            if reply.status == 204 {
                assert_eq!(reply.field("content-length"), None, "{path}");
            }
            assert_eq!(client.get("/next").await.text(), "next", "{path}");
        }
    });
}

#[test]
fn not_modified_may_declare_the_length_it_would_have() {
    run(async {
        let server = TestServer::new(|_| {
            let mut response = with_status(304, ResponseBody::Empty);
            response
                .headers_mut()
                .insert("content-length", "5".parse().unwrap());
            response.into()
        });
        let mut client = server.connect().await;
        for _ in 0..2 {
            let reply = client.get("/").await;
            assert_eq!(
                (reply.status, reply.field("content-length")),
                (304, Some("5"))
            );
        }
    });
}

#[test]
fn body_longer_than_declared_is_truncated() {
    run(async {
        let server = TestServer::new(|request| {
            match request.head.uri.path() {
                "/stream" => with_length(stream(&["123", "456789"]), "5"),
                "/full" => with_length(ResponseBody::from("123456789"), "5"),
                _ => ok("next"),
            }
            .into()
        });
        let mut client = server.connect().await;
        for path in ["/stream", "/full"] {
            client
                .send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"))
                .await;
            assert_eq!(client.reply().await.unwrap().text(), "12345", "{path}");
            // Either the connection is closed, or the next response begins where it must.
            assert_eq!(client.get("/next").await.text(), "next", "{path}");
        }
    });
}

#[test]
fn body_shorter_than_declared_is_a_cut_connection() {
    run(async {
        let server = TestServer::new(|request| {
            match request.head.uri.path() {
                "/stream" => with_length(stream(&["123"]), "5"),
                "/full" => with_length(ResponseBody::from("123"), "5"),
                "/empty" => with_length(ResponseBody::Empty, "5"),
                _ => ok("next"),
            }
            .into()
        });
        for path in ["/stream", "/full", "/empty"] {
            let mut client = server.connect().await;
            client
                .send(format!(
                    "GET {path} HTTP/1.1\r\nhost: t\r\n\r\nGET /next HTTP/1.1\r\nhost: t\r\n\r\n"
                ))
                .await;
            assert!(client.reply().await.is_none(), "{path}");
        }
        server.connections_become(0).await;
    });
}

#[test]
fn aborted_stream_is_a_cut_connection() {
    run(async {
        let server = TestServer::new(|_| {
            let frames = [
                Ok(BodyFrame::data(Bytes::from_static(b"abc"))),
                Err(Aborted),
            ];
            ok(ResponseBody::Stream(Box::pin(Frames(frames.into())))).into()
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        // What came before the abort arrives, and the end does not.
        let sent = String::from_utf8(client.rest().await).unwrap();
        assert!(sent.starts_with("HTTP/1.1 200 OK\r\n"), "{sent:?}");
        assert!(sent.ends_with("\r\n3\r\nabc\r\n"), "{sent:?}");
        server.connections_become(0).await;
    });
}

#[test]
fn framing_that_a_handler_sets_is_not_taken() {
    run(async {
        let server = TestServer::new(|request| {
            let mut response = match request.head.uri.path() {
                "/full" => ok("12345"),
                "/stream" => ok(stream(&["12345"])),
                _ => return ok("next").into(),
            };
            response
                .headers_mut()
                .insert("transfer-encoding", "gzip, chunked".parse().unwrap());
            response.into()
        });
        let mut client = server.connect().await;
        for path in ["/full", "/stream"] {
            assert_eq!(client.get(path).await.text(), "12345");
            assert_eq!(client.get("/next").await.text(), "next");
        }
    });
}

#[test]
fn lengths_that_are_not_one_number_are_500() {
    run(async {
        let server = TestServer::new(|request| {
            let mut response = ok("12345");
            let headers = response.headers_mut();
            match request.head.uri.path() {
                "/two" => {
                    headers.append("content-length", "5".parse().unwrap());
                    headers.append("content-length", "6".parse().unwrap());
                }
                "/text" => {
                    headers.insert("content-length", "five".parse().unwrap());
                }
                "/sign" => {
                    headers.insert("content-length", "+5".parse().unwrap());
                }
                _ => {}
            }
            response.into()
        });
        let mut client = server.connect().await;
        for path in ["/two", "/text", "/sign"] {
            assert_eq!(client.get(path).await.status, 500, "{path}");
            assert_eq!(client.get("/").await.text(), "12345");
        }
    });
}

#[test]
fn informational_status_as_final_response_is_500() {
    run(async {
        let server = TestServer::new(|request| {
            with_status(
                request.head.uri.path()[1..].parse().unwrap(),
                ResponseBody::Empty,
            )
            .into()
        });
        let mut client = server.connect().await;
        for path in ["/100", "/103", "/199"] {
            assert_eq!(client.get(path).await.status, 500, "{path}");
        }
    });
}
