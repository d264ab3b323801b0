//! Each request leaves one record, when its response is fully written or cut.
use crate::common;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use common::{Event, Frames, TestServer, collect, ok, run, stream, until};
use framegate_http::{
    Config, Server,
    access_log::{Format, Lines},
    body::{Aborted, ResponseBody},
    record::{RecordSink, RequestRecord},
    service::{Request, ResponseFuture, service_fn},
};
use http::StatusCode;
use http_body::Frame as BodyFrame;

#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<RequestRecord>>>);

impl RecordSink for Sink {
    fn finished(&self, record: &RequestRecord) {
        self.0.borrow_mut().push(record.clone());
    }
}

impl Sink {
    async fn wait(&self, count: usize) -> Vec<RequestRecord> {
        until(|| self.0.borrow().len() >= count).await;
        self.0.borrow().clone()
    }
}

fn serve(answer: impl Fn(Request) -> ResponseFuture + 'static) -> (TestServer, Sink) {
    let sink = Sink::default();
    let server = Server::new(
        service_fn(answer),
        Rc::new(Config::default()),
        common::spawn,
    )
    .with_records(Rc::new(sink.clone()));
    (TestServer::start(server), sink)
}

#[test]
fn record_tells_all_of_a_request() {
    run(async {
        let (server, sink) = serve(|mut request| {
            assert!(request.record.is_recording());
            ResponseFuture::later(async move {
                collect(&mut request.body).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                let mut response = ok(stream(&["abc", "de"]));
                *response.status_mut() = StatusCode::CREATED;
                response
            })
        });
        let mut client = server.connect().await;
        client
            .send("POST /a?b HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody")
            .await;
        assert_eq!(client.reply().await.unwrap().text(), "abcde");
        let record = &sink.wait(1).await[0];
        assert_eq!(
            (record.method.as_str(), record.target.to_string()),
            ("POST", "/a?b".to_owned())
        );
        assert_eq!(record.version, http::Version::HTTP_11);
        assert_eq!(record.status, Some(StatusCode::CREATED));
        assert_eq!((record.body_bytes_in, record.body_bytes_out), (4, 5));
        assert!(!record.aborted);
        let first_byte_ns = record.first_byte_ns.unwrap();
        assert!(record.start_ns + 5_000_000 <= first_byte_ns && first_byte_ns <= record.end_ns);
        assert_eq!(
            record.connection.peer.to_string(),
            client.stream.local_addr().unwrap().to_string()
        );
        let mut line = Vec::new();
        Lines::new(Format::Text, None).write(record, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(
            line.contains(" \"POST /a?b HTTP/1.1\" 201 5 ") && line.ends_with("ms in=4\n"),
            "{line}"
        );
    });
}

#[test]
fn each_pipelined_request_has_its_record() {
    run(async {
        let (server, sink) = serve(|request| ok(Bytes::from(request.head.uri.to_string())).into());
        let mut client = server.connect().await;
        let all = common::pipelined(100);
        client.send(all).await;
        let records = sink.wait(100).await;
        for (n, record) in records.iter().enumerate() {
            assert_eq!(record.target.to_string(), format!("/{n}"));
            assert_eq!(
                record.body_bytes_out,
                record.target.to_string().len() as u64
            );
        }
        assert_eq!(records.len(), 100);
    });
}

#[test]
fn refused_requests_have_records() {
    run(async {
        let (server, sink) = serve(|_| unreachable!());
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 400);
        let record = &sink.wait(1).await[0];
        assert_eq!(
            (record.status, record.aborted),
            (Some(StatusCode::BAD_REQUEST), false)
        );
    });
}

#[test]
fn request_whose_client_left_is_aborted() {
    run(async {
        let (server, sink) = serve(|_| ResponseFuture::later(std::future::pending()));
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        until(|| server.connections.busy() == 1).await;
        drop(client);
        let record = &sink.wait(1).await[0];
        assert_eq!((record.status, record.aborted), (None, true));
    });
}

#[test]
fn cut_stream_is_aborted() {
    run(async {
        let (server, sink) = serve(|_| {
            let frames = [
                Ok(BodyFrame::data(Bytes::from_static(b"abc"))),
                Err(Aborted),
            ];
            ok(ResponseBody::Stream(Box::pin(Frames(frames.into())))).into()
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert!(client.reply().await.is_none());
        let record = &sink.wait(1).await[0];
        assert_eq!(
            (record.status, record.aborted),
            (Some(StatusCode::OK), true)
        );
    });
}

#[test]
fn response_that_the_client_does_not_take_is_recorded_when_it_is_cut() {
    run(async {
        let body = Bytes::from(vec![0; 16 << 20]);
        let (server, sink) = serve(move |_| ok(body.clone()).into());
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        assert!(sink.0.borrow().is_empty(), "it is not written yet");
        drop(client);
        assert!(sink.wait(1).await[0].aborted);
    });
}

#[test]
fn head_and_statuses_without_body_are_not_aborted() {
    run(async {
        let (server, sink) = serve(|_| ok(stream(&["abc"])).into());
        let mut client = server.connect().await;
        client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        let record = &sink.wait(1).await[0];
        assert_eq!((record.body_bytes_out, record.aborted), (0, false));
    });
}

#[test]
fn nothing_is_recorded_without_a_sink() {
    run(async {
        let done = Event::default();
        let server = {
            let done = done.clone();
            TestServer::new(move |request| {
                assert!(!request.record.is_recording());
                assert_eq!(request.record.start_ns(), None);
                done.set();
                ok("").into()
            })
        };
        assert_eq!(server.connect().await.get("/").await.status, 200);
        assert!(done.is_set());
    });
}
