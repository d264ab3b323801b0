//! A request that a native route answers.
//!
//! ```text
//! find --no route of ours--> the application (ASGI)
//!   |--404, 405, redirect, OPTIONS--> answered
//!   |--the route has a body--> read it (no Python while it arrives) --> decide
//!   '--no body--------------------------------------------------------> decide --something is wrong--> answered (422, 400)
//!                                                                         '--> the handler, as the application would be called
//! ```
//!
//! Up to the last arrow nothing of Python is made or run. From there on a route is what any request is: its exchange is
//! [`HttpExchange`](super::http::HttpExchange), its coroutine is started by [`super::task`], and its end is told to the exchange, which makes the
//! response of what was returned.

use std::{
    rc::Rc,
    task::{Context, Poll, Waker},
};

use framegate_http::{
    body::Body,
    service::{Request, Response, ResponseFuture},
};
use http::{Method, StatusCode, request::Parts};
use pyo3::{intern, prelude::*};

use super::{
    Application,
    owner::Owner,
    task::{Arguments, Call},
};
use crate::routes::{Answer, Decision, Invocation, RouteTable};

/// The answer, now or later; the request, if it is for the application.
pub(super) fn answer(
    py: Python<'_>,
    application: &Rc<Application>,
    routes: &Bound<'_, RouteTable>,
    mut request: Request,
) -> Result<ResponseFuture, Box<Request>> {
    let head = &request.head;
    let decision = routes.get().decide(
        py,
        &head.method,
        head.uri.path(),
        head.uri.query(),
        &head.headers,
        None,
    );
    match decision {
        Ok(Decision::Fallback) => Err(Box::new(request)),
        Ok(Decision::NeedBody { bytes_max }) => Ok(read_body(
            py,
            application.clone(),
            routes,
            request,
            bytes_max,
        )),
        decided => Ok(go_on(py, application, routes, &mut request, decided)),
    }
}

/// What a decision leads to.
fn go_on(
    py: Python<'_>,
    application: &Rc<Application>,
    routes: &Bound<'_, RouteTable>,
    request: &mut Request,
    decided: PyResult<Decision<'_>>,
) -> ResponseFuture {
    let called = match decided {
        Ok(Decision::Call(invocation)) => call(py, application, routes, request, &invocation),
        Ok(Decision::Answer(answer)) => {
            return respond(application, routes.get(), &request.head, answer).into();
        }
        Ok(Decision::Fallback | Decision::NeedBody { .. }) => {
            unreachable!("decided before, by the same path")
        }
        Err(error) => Err(error),
    };
    called.unwrap_or_else(|error| {
        let answer = routes.get().refusal(py, &error).unwrap_or_else(|| {
            application.report_handler(py, &error);
            Answer::status(StatusCode::INTERNAL_SERVER_ERROR)
        });
        respond(application, routes.get(), &request.head, answer).into()
    })
}

/// Calls the handler.
fn call<'py>(
    py: Python<'py>,
    application: &Rc<Application>,
    routes: &Bound<'py, RouteTable>,
    request: &mut Request,
    invocation: &Invocation<'py>,
) -> PyResult<ResponseFuture> {
    let span = application.span(request);
    let bundle = application.bundle(py)?;
    let exchange = bundle.exchange.get();
    exchange.begin(application.clone(), request);
    if let Some(given) = &invocation.request {
        // What was read for an argument is not there any more.
        if !invocation.has_read_body {
            let receive = bundle.exchange.getattr(py, intern!(py, "receive"))?;
            given.setattr(intern!(py, "_receive"), receive)?;
        }
    }
    let given = invocation.request.clone().map(Bound::unbind);
    exchange.begin_route(routes.clone().unbind(), given);
    if let Some((_, span)) = &span {
        exchange.begin_route_span(span, &invocation.pattern);
    }
    let started = application.starter.start(
        py,
        &application.core,
        bundle.task.as_ref(),
        &Owner::Http(bundle.exchange.clone_ref(py)),
        &Arguments {
            call: Call::Handler {
                handler: &invocation.handler,
                positional: &invocation.positional,
                named: invocation.named.as_ref(),
            },
            span: span.as_ref().map(|(tracing, span)| (*tracing, span)),
        },
    );
    Ok(application.started(py, bundle, started))
}

/// An answer that no handler gave.
fn respond(
    application: &Application,
    routes: &RouteTable,
    head: &Parts,
    answer: Answer,
) -> Response {
    let mut response = Response::default();
    let headers = response.headers_mut();
    let names_server = answer.write(headers);
    if let Some(allowed) = routes.cors(&head.headers) {
        allowed.write(headers);
    }
    application.settings.add_headers(headers, names_server);
    if head.method == Method::HEAD {
        headers.insert(http::header::CONTENT_LENGTH, answer.body.len().into());
    } else {
        *response.body_mut() = answer.body.into();
    }
    *response.status_mut() = answer.status;
    response
}

/// Most bodies of JSON have arrived with their head; for others the answer waits, and Python does not.
fn read_body(
    py: Python<'_>,
    application: Rc<Application>,
    routes: &Bound<'_, RouteTable>,
    mut request: Request,
    bytes_max: usize,
) -> ResponseFuture {
    let mut collected = Collected::new(bytes_max, &request.body);
    let mut context = Context::from_waker(Waker::noop());
    match collected.poll(&mut context, &mut request.body) {
        Poll::Ready(read) => after_body(py, &application, routes, &mut request, read),
        Poll::Pending => {
            let routes = routes.clone().unbind();
            ResponseFuture::later(async move {
                let read = std::future::poll_fn(|cx| collected.poll(cx, &mut request.body)).await;
                let answered = Python::attach(|py| {
                    after_body(py, &application, routes.bind(py), &mut request, read)
                });
                answered.await
            })
        }
    }
}

fn after_body(
    py: Python<'_>,
    application: &Rc<Application>,
    routes: &Bound<'_, RouteTable>,
    request: &mut Request,
    read: Result<Vec<u8>, Answer>,
) -> ResponseFuture {
    let head = &request.head;
    let decided = match read {
        Ok(body) => routes.get().decide(
            py,
            &head.method,
            head.uri.path(),
            head.uri.query(),
            &head.headers,
            Some(&body),
        ),
        Err(answer) => Ok(Decision::Answer(answer)),
    };
    go_on(py, application, routes, request, decided)
}

/// A body that is being read.
struct Collected {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// The client says itself that it is too long.
    is_too_long: bool,
}

impl Collected {
    fn new(bytes_max: usize, body: &Body) -> Self {
        let announced = body.remaining();
        Self {
            bytes: Vec::new(),
            bytes_max,
            is_too_long: announced.is_some_and(|bytes| bytes > bytes_max as u64),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Poll<Result<Vec<u8>, Answer>> {
        if self.is_too_long {
            return Poll::Ready(Err(Answer::too_long(self.bytes_max)));
        }
        loop {
            match std::task::ready!(body.poll_data(cx)) {
                Some(Ok(piece)) => {
                    if self.bytes.len() + piece.len() > self.bytes_max {
                        return Poll::Ready(Err(Answer::too_long(self.bytes_max)));
                    }
                    self.bytes.extend_from_slice(&piece);
                }
                // The connection is gone or broken: nobody reads this.
                Some(Err(_)) => return Poll::Ready(Err(Answer::status(StatusCode::BAD_REQUEST))),
                None => return Poll::Ready(Ok(std::mem::take(&mut self.bytes))),
            }
        }
    }
}
