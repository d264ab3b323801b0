//! Plain HTTP that says nothing but: use https.
//!
//! `308 Permanent Redirect` keeps the method and the body (301 turns a POST into a GET). The name in `Location` is the one the
//! client asked for, if one of our certificates is for it; any other gets `421 Misdirected Request`. So a link that
//! somebody else has made, or a cache in between, cannot use this server to send people to a foreign one, and nobody has to
//! list the names twice.
//!
//! Paths under `/.well-known/acme-challenge/` go to the application: that is how a certificate authority asks, over plain
//! HTTP, whether the name is ours (RFC 8555, 8.3).

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};

use super::source::Source;
use crate::body::ResponseBody;
use crate::refusal::TEXT;
use crate::service::{ConnectionInfo, Entry, Handler, Request, Response, ResponseFuture, Service};

const ACME_PREFIX: &str = "/.well-known/acme-challenge/";
const HTTPS_PORT: u16 = 443;

/// A service that redirects on connections of [`Entry::Redirect`].
pub(crate) struct WithRedirect {
    pub(crate) inner: Rc<dyn Service>,
    pub(crate) source: Rc<Source>,
    /// Port of the https listener, as clients reach it.
    pub(crate) port: u16,
}

impl Service for WithRedirect {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        let inner = self.inner.open(connection);
        if connection.entry != Entry::Redirect {
            return inner;
        }
        Rc::new(Redirect {
            inner,
            source: self.source.clone(),
            port: self.port,
        })
    }
}

struct Redirect {
    inner: Rc<dyn Handler>,
    source: Rc<Source>,
    port: u16,
}

impl Handler for Redirect {
    fn call(&self, request: Request) -> ResponseFuture {
        let uri = &request.head.uri;
        if uri.path().starts_with(ACME_PREFIX) {
            return self.inner.call(request);
        }
        let authority = uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| {
                request
                    .head
                    .headers
                    .get(header::HOST)
                    .and_then(|value| value.to_str().ok())
            });
        let host = authority.map(without_port);
        let location = host
            .filter(|host| self.source.knows(unbracketed(host)))
            .and_then(|host| {
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let path = if path.starts_with('/') { path } else { "/" };
                let location = match self.port {
                    HTTPS_PORT => format!("https://{host}{path}"),
                    port => format!("https://{host}:{port}{path}"),
                };
                HeaderValue::try_from(location).ok()
            });
        let mut response = Response::new(ResponseBody::Empty);
        if let Some(location) = location {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
        } else {
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            *response.body_mut() = "No certificate of this server is for that host.\n".into();
            response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
        }
        response.into()
    }

    fn rest(&self) {
        self.inner.rest();
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // `[::1]` has colons of its own.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::{unbracketed, without_port};

    #[test]
    fn host_is_taken_from_the_authority() {
        for (authority, host) in [
            ("example.org", "example.org"),
            ("example.org:8080", "example.org"),
            ("[::1]", "::1"),
            ("[::1]:8080", "::1"),
            ("127.0.0.1:80", "127.0.0.1"),
        ] {
            assert_eq!(unbracketed(without_port(authority)), host);
        }
    }
}
