//! The edge: what is between the connections and whoever answers, for servers behind proxies and under load.
//!
//! ```text
//!   connection -> PROXY header (proxy_protocol) -> [TLS] -> HTTP: fields of the untrusted are taken out (h1, h2)
//!     -> Edge: what trusted proxies say (forwarded), the request's name (request_id) -> Handler
//! ```
//! Fields by which proxies say whom they speak for are taken out where heads are checked, at each connection whose peer is not
//! trusted; that costs a look at each name. The rest is a [`Handler`] around the server's own, which exists only when
//! something of it is set.

mod buckets;
pub(crate) mod forwarded;
pub(crate) mod limits;
pub(crate) mod proxy_protocol;
pub(crate) mod request_id;
pub(crate) mod trust;

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue};

use forwarded::ClaimsRemoved;
pub use forwarded::{Client, Family, Origin};
pub use limits::{Limits, Rate, SharedWords};
pub use trust::{NotAPeer, Trust};

use crate::record::Record;
use crate::service::{
    Address, ConnectionInfo, Handler, Request, Response, ResponseFuture, Service,
};
use limits::{PeerKey, Queue, RateFields, Rates, overloaded};
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
    /// What is limited, for all workers together. Default nothing.
    pub limits: Option<Limits>,
}

impl Settings {
    /// Whether fields by which proxies speak for others stay in the requests of a peer.
    pub(crate) fn keeps_fields_of(&self, peer: &Address) -> bool {
        self.keeps_claims || self.trust.trusts(peer)
    }

    /// Nothing has to be done for a request.
    pub(crate) fn is_idle(&self) -> bool {
        let has_limits = self.limits.as_ref().is_some_and(Limits::has_requests);
        self.trust.is_nobody() && !self.request_ids && !has_limits
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
    let limits = settings
        .limits
        .clone()
        .filter(Limits::has_requests)
        .map(Rc::new);
    Rc::new(Edge {
        inner,
        shared: Rc::new(Shared {
            ids: settings.request_ids.then(RequestIds::new),
            rates: limits.as_ref().and_then(Rates::of),
            limits,
            queue: Queue::new(),
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
    limits: Option<Rc<Limits>>,
    rates: Option<Rates>,
    queue: Rc<Queue>,
}

impl Service for Edge {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(EdgeHandler {
            inner: self.inner.open(connection),
            shared: self.shared.clone(),
            peer: PeerKey::new(connection.peer.clone()),
            is_trusted: self.shared.settings.trust.trusts(&connection.peer),
        })
    }
}

struct EdgeHandler {
    inner: Rc<dyn Handler>,
    shared: Rc<Shared>,
    peer: PeerKey,
    /// The peer is.
    is_trusted: bool,
}

impl EdgeHandler {
    /// What is known of how a request got here, if anything, and whether fields were taken out that said for whom it is.
    fn arrival(&self, headers: &mut HeaderMap) -> (Option<Arrival>, bool) {
        let settings = &self.shared.settings;
        let fields = headers.len();
        let origin = if self.is_trusted {
            forwarded::resolve(headers, &settings.trust, settings.family)
        } else {
            None
        };
        let claims_removed = headers.len() < fields;
        let ids = self.shared.ids.as_ref();
        let request_id = ids.map(|ids| self.name(ids, headers));
        let arrival = (origin.is_some() || request_id.is_some()).then(|| Arrival {
            origin: origin.unwrap_or_default(),
            request_id,
        });
        (arrival, claims_removed)
    }

    /// The name that a trusted proxy has given, or a new one. Another one is taken out: it is nobody's.
    fn name(&self, ids: &RequestIds, headers: &mut HeaderMap) -> HeaderValue {
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
        let mut request_id = None;
        let (arrival, claims_removed) = self.arrival(&mut request.head.headers);
        if claims_removed {
            request.head.extensions.insert(ClaimsRemoved);
        }
        if let Some(arrival) = arrival {
            request.record.arrived(&arrival);
            request_id.clone_from(&arrival.request_id);
            request.arrival = Some(Box::new(arrival));
        }
        request.record.announce();
        let limits = self.shared.limits.as_ref().filter(|limits| {
            let path = request.head.uri.path();
            !limits.exempt_paths.iter().any(|exempt| exempt == path)
        });
        let Some(limits) = limits else {
            let answer = self.inner.call(request);
            return Additions::new(request_id, None).put_on(answer);
        };
        let rates = self.shared.rates.as_ref().and_then(|rates| {
            let arrival = request.arrival.as_ref();
            let client = arrival.map_or(Client::Peer, |arrival| arrival.origin.client);
            let now_ns = rates.time_ns(&request.record);
            rates.ask(&request.head.headers, &self.peer, client, now_ns)
        });
        let refusal = rates.as_ref().and_then(RateFields::refusal);
        let additions = Additions::new(request_id, rates);
        additions.put_on(match refusal {
            Some(refusal) => refusal.into(),
            None => self.call_limited(limits, request),
        })
    }

    fn refused(&self, head: &mut http::request::Parts, record: &Record, response: &mut Response) {
        if let (Some(arrival), _) = self.arrival(&mut head.headers) {
            record.arrived(&arrival);
            Additions::new(arrival.request_id, None).add_to(response);
        }
    }

    fn rest(&self) {
        self.inner.rest();
    }
}

impl EdgeHandler {
    /// Calls the handler when there is room for another request.
    fn call_limited(&self, limits: &Rc<Limits>, mut request: Request) -> ResponseFuture {
        let most = match limits.requests_max {
            Some(most) if !request.has_upgrade_field => most,
            _ => return self.inner.call(request),
        };
        let queue = self.shared.queue.clone();
        if let Some(place) = queue.place(limits, most) {
            request.permit.hold(place);
            return self.inner.call(request);
        }
        let Some(waiting) = limits.enter_queue() else {
            return overloaded().into();
        };
        let (limits, inner) = (limits.clone(), self.inner.clone());
        ResponseFuture::later(async move {
            let place = queue.wait(&limits, most).await;
            request.record.has_queued();
            let Some(place) = place else {
                return overloaded();
            };
            drop(waiting);
            request.permit.hold(place);
            inner.call(request).await
        })
    }
}

/// What the edge adds to a response.
struct Additions {
    request_id: Option<HeaderValue>,
    rates: Option<RateFields>,
}

impl Additions {
    fn new(request_id: Option<HeaderValue>, rates: Option<RateFields>) -> Self {
        Self { request_id, rates }
    }

    fn add_to(&mut self, response: &mut Response) {
        if let Some(name) = self.request_id.take() {
            response.headers_mut().insert(REQUEST_ID, name);
        }
        if let Some(rates) = self.rates.take() {
            rates.add_to(response.headers_mut());
        }
    }

    fn put_on(mut self, answer: ResponseFuture) -> ResponseFuture {
        if self.request_id.is_none() && self.rates.is_none() {
            return answer;
        }
        match answer {
            ResponseFuture::Ready(Some(mut response)) => {
                self.add_to(&mut response);
                ResponseFuture::ready(response)
            }
            ResponseFuture::Ready(None) => answer,
            ResponseFuture::Later(inner) => ResponseFuture::later(Completed {
                inner,
                additions: self,
            }),
        }
    }
}

/// A response with what the edge adds to it.
struct Completed {
    inner: Pin<Box<dyn Future<Output = Response>>>,
    additions: Additions,
}

impl Future for Completed {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut response = ready!(self.inner.as_mut().poll(cx));
        self.additions.add_to(&mut response);
        Poll::Ready(response)
    }
}
