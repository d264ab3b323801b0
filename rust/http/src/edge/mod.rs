//! The edge: what is between the connections and whoever answers, for servers behind proxies and under load.
//!
//! ```text
//!   connection -> PROXY header (proxy_protocol) -> [TLS] -> HTTP: fields of the untrusted are taken out (h1, h2)
//!     -> Edge: what trusted proxies say (forwarded), the request's name (request_id) -> Handler
//! ```
//! Fields by which proxies say whom they speak for are taken out where heads are checked, at each connection whose peer is not
//! trusted; that costs a look at each name. The rest is a [`Handler`] around the server's own, which exists only when
//! something of it is set.

pub(crate) mod forwarded;
pub(crate) mod proxy_protocol;
pub(crate) mod request_id;
pub(crate) mod trust;

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::HeaderValue;

pub use forwarded::{Client, Family, Origin};
pub use trust::{NotAPeer, Trust};

use crate::service::{
    Address, ConnectionInfo, Handler, Request, Response, ResponseFuture, Service,
};
use request_id::{REQUEST_ID, RequestIds, is_well_formed};

/// What a server does at its edge.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Peers that are believed when they say whom they speak for. Default nobody.
    pub trust: Trust,
    /// What those peers write.
    pub family: Family,
    /// Fields of those who are not believed stay where they are. Default false; true for development, where pages that only
    /// this machine may see are refused to whoever came through a proxy.
    pub keeps_claims: bool,
    /// Every request has a name; see [`Arrival::request_id`]. Default false.
    pub request_ids: bool,
}

impl Settings {
    /// Whether fields by which proxies speak for others stay in the requests of a peer.
    pub(crate) fn keeps_fields_of(&self, peer: &Address) -> bool {
        self.keeps_claims || self.trust.trusts(peer)
    }

    /// Nothing has to be done for a request.
    fn is_idle(&self) -> bool {
        self.trust.is_nobody() && !self.request_ids
    }
}

/// How a request has got here.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// What trusted proxies say.
    pub origin: Origin,
    /// The request's name, for logs; it is in the response as well, as `x-request-id`.
    pub request_id: Option<HeaderValue>,
}

/// The service with the edge around it, if there is any.
pub(crate) fn around(inner: Rc<dyn Service>, settings: &Settings) -> Rc<dyn Service> {
    if settings.is_idle() {
        return inner;
    }
    Rc::new(Edge {
        inner,
        shared: Rc::new(Shared {
            ids: settings.request_ids.then(RequestIds::new),
            settings: settings.clone(),
        }),
    })
}

struct Edge {
    inner: Rc<dyn Service>,
    shared: Rc<Shared>,
}

/// What all connections share.
struct Shared {
    settings: Settings,
    ids: Option<RequestIds>,
}

impl Service for Edge {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(EdgeHandler {
            inner: self.inner.open(connection),
            shared: self.shared.clone(),
            is_trusted: self.shared.settings.trust.trusts(&connection.peer),
        })
    }
}

struct EdgeHandler {
    inner: Rc<dyn Handler>,
    shared: Rc<Shared>,
    /// The peer is.
    is_trusted: bool,
}

impl EdgeHandler {
    /// The name that a trusted proxy has given, or a new one. Another one is taken out: it is nobody's.
    fn name(&self, ids: &RequestIds, request: &mut Request) -> HeaderValue {
        let headers = &mut request.head.headers;
        let mut given = headers.get_all(REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (None, _) => return ids.make(),
            (Some(name), None) if self.is_trusted && is_well_formed(name) => return name.clone(),
            _ => {}
        }
        forwarded::remove(headers, |name| name == REQUEST_ID);
        ids.make()
    }
}

impl Handler for EdgeHandler {
    fn call(&self, mut request: Request) -> ResponseFuture {
        let settings = &self.shared.settings;
        let origin = if self.is_trusted {
            forwarded::resolve(&mut request.head.headers, &settings.trust, settings.family)
        } else {
            None
        };
        let ids = self.shared.ids.as_ref();
        let request_id = ids.map(|ids| self.name(ids, &mut request));
        if origin.is_some() || request_id.is_some() {
            let arrival = Arrival {
                origin: origin.unwrap_or_default(),
                request_id: request_id.clone(),
            };
            request.record.arrived(&arrival);
            request.arrival = Some(Box::new(arrival));
        }
        let answer = self.inner.call(request);
        match request_id {
            Some(name) => named(answer, name),
            None => answer,
        }
    }
}

/// The answer with the request's name in it.
fn named(answer: ResponseFuture, name: HeaderValue) -> ResponseFuture {
    match answer {
        ResponseFuture::Ready(Some(mut response)) => {
            response.headers_mut().insert(REQUEST_ID, name);
            ResponseFuture::ready(response)
        }
        ResponseFuture::Ready(None) => answer,
        ResponseFuture::Later(inner) => ResponseFuture::later(Named {
            inner,
            name: Some(name),
        }),
    }
}

struct Named {
    inner: Pin<Box<dyn Future<Output = Response>>>,
    name: Option<HeaderValue>,
}

impl Future for Named {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut response = ready!(self.inner.as_mut().poll(cx));
        if let Some(name) = self.name.take() {
            response.headers_mut().insert(REQUEST_ID, name);
        }
        Poll::Ready(response)
    }
}
