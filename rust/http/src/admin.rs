//! What operators ask a server: is it alive, is it ready, and what has it counted.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as anything answers, also while the server drains |
//! | `/readyz` | 200 if it takes requests, else 503; with `?verbose`, why |
//! | `/metrics` | all metrics of all workers ([`crate::exposition`]) |
//!
//! The services know no more than a [`Report`], so that they work on any thread, and before and after there is an
//! application. Each also answers alone, at a path of the application's own listener.

use std::{fmt::Write as _, rc::Rc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};

use crate::body::ResponseBody;
use crate::exposition::Format;
use crate::refusal::TEXT;
use crate::routes::Routes;
use crate::service::{Request, Response, ResponseFuture, Service, service_fn};

/// Whether a server takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It does.
    pub is_ready: bool,
    /// What each part of it says: whether that is as it should be, and a line about it.
    pub parts: Vec<(bool, String)>,
}

/// What is known of a server.
pub trait Report: 'static {
    /// Whether it takes requests.
    fn readiness(&self) -> Readiness;

    /// All metrics.
    fn metrics(&self, format: Format) -> String;
}

/// The three paths; all others are 404.
pub fn service(report: &Rc<dyn Report>) -> Rc<dyn Service> {
    let lost = service_fn(|_| {
        let text = "there are /livez, /readyz and /metrics here\n";
        answer(StatusCode::NOT_FOUND, text.to_owned(), TEXT).into()
    });
    Rc::new(
        Routes::new(lost)
            .exact("/livez", live())
            .exact("/readyz", ready(report.clone()))
            .exact("/metrics", metrics(report.clone())),
    )
}

/// Answers 200.
pub fn live() -> Rc<dyn Service> {
    reading(|_| answer(StatusCode::OK, "ok\n".to_owned(), TEXT))
}

/// Answers whether the server is ready.
pub fn ready(report: Rc<dyn Report>) -> Rc<dyn Service> {
    reading(move |request| {
        let readiness = report.readiness();
        let (status, word) = if readiness.is_ready {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        };
        let mut text = String::new();
        if is_verbose(request) {
            for (is_good, line) in &readiness.parts {
                let sign = if *is_good { '+' } else { '-' };
                // Writing to a string does not fail.
                let _ = writeln!(text, "[{sign}] {line}");
            }
        }
        text.push_str(word);
        answer(status, text, TEXT)
    })
}

/// Answers with all metrics.
pub fn metrics(report: Rc<dyn Report>) -> Rc<dyn Service> {
    reading(move |request| {
        let format = Format::of(&request.head.headers);
        answer(
            StatusCode::OK,
            report.metrics(format),
            format.content_type(),
        )
    })
}

/// A service that is read from, with GET and HEAD.
fn reading(read: impl Fn(&Request) -> Response + 'static) -> Rc<dyn Service> {
    service_fn(move |request| -> ResponseFuture {
        if matches!(request.head.method, Method::GET | Method::HEAD) {
            return read(&request).into();
        }
        let text = "this is only read, with GET or HEAD\n";
        let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, text.to_owned(), TEXT);
        let methods = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, methods);
        refused.into()
    })
}

fn is_verbose(request: &Request) -> bool {
    request.head.uri.query().is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some("verbose"))
    })
}

fn answer(status: StatusCode, text: String, content_type: HeaderValue) -> Response {
    let mut response = Response::new(ResponseBody::from(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    // The next answer may be another one.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::{HeaderValue, Method, StatusCode, header};

    use super::{Readiness, Report, service};
    use crate::body::ResponseBody;
    use crate::exposition::Format;
    use crate::routes::test_request;
    use crate::service::{Response, ResponseFuture};

    struct Fixed(bool);

    impl Report for Fixed {
        fn readiness(&self) -> Readiness {
            Readiness {
                is_ready: self.0,
                parts: vec![
                    (true, "worker 1: ready".to_owned()),
                    (false, "worker 2: starting".to_owned()),
                ],
            }
        }

        fn metrics(&self, format: Format) -> String {
            format!("{format:?}\n")
        }
    }

    fn ask(is_ready: bool, method: Method, target: &str, accept: &str) -> Response {
        let report: Rc<dyn Report> = Rc::new(Fixed(is_ready));
        let (info, mut request) = test_request(target);
        request.head.method = method;
        request.head.headers.insert(
            header::ACCEPT,
            HeaderValue::from_str(accept).expect("a field value"),
        );
        match service(&report).open(&info).call(request) {
            ResponseFuture::Ready(Some(response)) => response,
            _ => panic!("the response is known at once"),
        }
    }

    fn told(is_ready: bool, target: &str) -> (StatusCode, String) {
        let response = ask(is_ready, Method::GET, target, "*/*");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let status = response.status();
        match response.into_body() {
            ResponseBody::Full(text) => (status, String::from_utf8(text.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_path_says_what_it_is_asked() {
        let ok = |text: &str| (StatusCode::OK, text.to_owned());
        let not = |text: &str| (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
        assert_eq!(told(false, "/livez"), ok("ok\n"));
        assert_eq!(told(true, "/readyz"), ok("ok\n"));
        assert_eq!(told(false, "/readyz"), not("not ready\n"));
        assert_eq!(
            told(false, "/readyz?verbose"),
            not("[+] worker 1: ready\n[-] worker 2: starting\nnot ready\n")
        );
        assert_eq!(told(true, "/readyz?verbosely=1").1, "ok\n");
        assert_eq!(told(true, "/metrics"), ok("Text\n"));
        assert_eq!(told(true, "/").0, StatusCode::NOT_FOUND);
        assert_eq!(told(true, "/metrics/").0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn metrics_have_the_format_that_was_asked_for() {
        let accept = "application/openmetrics-text; version=1.0.0";
        let response = ask(true, Method::GET, "/metrics", accept);
        let content_type = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(content_type, Format::OpenMetrics.content_type());
    }

    #[test]
    fn only_reading_is_allowed() {
        for target in ["/livez", "/readyz", "/metrics"] {
            assert!(ask(true, Method::HEAD, target, "*/*").status().is_success());
            let response = ask(true, Method::POST, target, "*/*");
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        }
    }
}
