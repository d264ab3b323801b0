//! `103 Early Hints` leave before the final response, whole, in order, or not at all.
use crate::common;

use std::{cell::RefCell, rc::Rc};

use common::{Event, TestServer, ok, poll_once, run};
use framegate_http::service::{Hints, ResponseFuture};
use http::{HeaderMap, HeaderValue};

fn link(value: &'static str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("link", HeaderValue::from_static(value));
    fields
}

#[test]
fn hint_arrives_while_the_handler_still_works() {
    run(async {
        let go = Event::default();
        let server = {
            let go = go.clone();
            TestServer::later(move |request| {
                let go = go.clone();
                async move {
                    request.hints.send(link("</a.css>; rel=preload")).await;
                    go.wait().await;
                    ok("final")
                }
            })
        };
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let hint = client.reply().await.unwrap();
        assert_eq!(
            (hint.status, hint.field("link")),
            (103, Some("</a.css>; rel=preload"))
        );
        go.set();
        assert_eq!(client.reply().await.unwrap().text(), "final");
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 103);
    });
}

#[test]
fn several_hints_keep_their_order() {
    run(async {
        let server = TestServer::later(|request| async move {
            let first = request.hints.send(link("1"));
            let second = request.hints.send(link("2"));
            tokio::join!(first, second);
            request.hints.send(link("3")).await;
            ok("final")
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        for link in ["1", "2", "3"] {
            assert_eq!(client.reply().await.unwrap().field("link"), Some(link));
        }
        assert_eq!(client.reply().await.unwrap().text(), "final");
    });
}

#[test]
fn hint_from_another_task_wakes_the_connection() {
    run(async {
        let server = TestServer::later(|request| async move {
            let hints = request.hints.clone();
            tokio::task::spawn_local(async move { hints.send(link("1")).await })
                .await
                .unwrap();
            ok("final")
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 103);
        assert_eq!(client.reply().await.unwrap().status, 200);
    });
}

#[test]
fn hint_is_not_sent_to_http_10() {
    run(async {
        let server = TestServer::later(|request| async move {
            request.hints.send(link("1")).await;
            ok("final")
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().text(), "final");
    });
}

#[test]
fn hint_after_the_final_response_is_dropped() {
    run(async {
        let kept: Rc<RefCell<Option<Hints>>> = Rc::default();
        let server = {
            let kept = kept.clone();
            TestServer::new(move |request| {
                *kept.borrow_mut() = Some(request.hints);
                ok("final").into()
            })
        };
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "final");
        let hints = kept.borrow().clone().unwrap();
        hints.send(link("late")).await;
        assert_eq!(client.get("/").await.text(), "final");
        // Not the request that is open now, but the one before.
        hints.send(link("later")).await;
        assert_eq!(client.get("/").await.text(), "final");
    });
}

#[test]
fn hint_that_is_dropped_before_it_left_is_withdrawn() {
    run(async {
        let server = TestServer::later(|request| async move {
            {
                let mut sent = std::pin::pin!(request.hints.send(link("withdrawn")));
                assert!(poll_once(sent.as_mut()).is_pending());
            }
            request.hints.send(link("sent")).await;
            ok("final")
        });
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().field("link"), Some("sent"));
        assert_eq!(client.reply().await.unwrap().text(), "final");
    });
}

#[test]
fn response_that_does_not_wait_for_its_hint_is_not_followed_by_it() {
    run(async {
        let server = TestServer::new(|request| {
            let mut sent = Box::pin(request.hints.send(link("1")));
            assert!(poll_once(sent.as_mut()).is_pending());
            // Kept alive beyond the response.
            tokio::task::spawn_local(sent);
            ResponseFuture::ready(ok("final"))
        });
        let mut client = server.connect().await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "final");
        }
    });
}

#[test]
fn default_hints_do_nothing() {
    run(async {
        Hints::default().send(link("1")).await;
    });
}
