//! The handler of connections over [`Limits::connections_max`](crate::Limits::connections_max): it answers 503.
//!
//! Such a connection is an ordinary one in all else. So it waits for a request before it is answered, as a client that sends
//! before it reads expects, its time limits hold, and requests that are served pay nothing for the limit.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};

use crate::refusal::Refusal;
use crate::service::{Handler, Request, ResponseFuture};

static OVERLOADED: Refusal = Refusal(
    StatusCode::SERVICE_UNAVAILABLE,
    "the server has as many connections as it takes\n",
);

struct Overload;

pub(crate) fn handler() -> Rc<dyn Handler> {
    Rc::new(Overload)
}

impl Handler for Overload {
    fn call(&self, _request: Request) -> ResponseFuture {
        let mut response = OVERLOADED.to_response();
        // Connections come and go within seconds; whoever comes back adds a spread of its own.
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response.into()
    }
}
