//! Trailer fields in both directions.
use crate::common;

use bytes::Bytes;
use common::{Frames, TestServer, collect, ok, run};
use framegate_http::{body::ResponseBody, service::Response};
use http::HeaderMap;
use http_body::Frame as BodyFrame;

#[test]
fn request_trailers_follow_the_body_and_stay_out_of_the_head() {
    run(async {
        let server = TestServer::later(|mut request| async move {
            assert!(request.body.trailers().is_none());
            let body = collect(&mut request.body).await.unwrap();
            assert!(!request.head.headers.contains_key("x-sum"));
            let sum = request
                .body
                .trailers()
                .map(|trailers| trailers["x-sum"].to_str().unwrap().to_owned());
            ok(Bytes::from(format!(
                "{} {sum:?}",
                String::from_utf8(body).unwrap()
            )))
        });
        let mut client = server.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 3\r\n\r\n")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "ab Some(\"3\")");
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nab")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "ab None");
    });
}

fn with_trailers() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let frames = [
        Ok(BodyFrame::data(Bytes::from_static(b"abc"))),
        Ok(BodyFrame::trailers(trailers)),
    ];
    let mut response = ok(ResponseBody::Stream(Box::pin(Frames(frames.into()))));
    response
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    response
}

#[test]
fn response_trailers_go_to_clients_that_take_them() {
    run(async {
        let server = TestServer::new(|_| with_trailers().into());
        let mut client = server.connect().await;
        for _ in 0..2 {
            client
                .send("GET / HTTP/1.1\r\nhost: t\r\nte: trailers\r\n\r\n")
                .await;
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.text(), "abc");
            assert_eq!(reply.trailers, [("x-sum".to_owned(), "7".to_owned())]);
        }
    });
}

#[test]
fn response_trailers_are_left_out_for_others() {
    run(async {
        let server = TestServer::new(|_| with_trailers().into());
        let mut client = server.connect().await;
        for _ in 0..2 {
            let reply = client.get("/").await;
            assert_eq!((reply.text(), reply.trailers.len()), ("abc", 0));
        }
    });
}
