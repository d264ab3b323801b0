//! Frame routes: topics as resources of HTTP, without Python.
//!
//! | request | does |
//! |---|---|
//! | `GET /topics` | lists the topics, as JSON |
//! | `GET /topics?view=openapi` | says what all of these take and answer ([`openapi`]) |
//! | `GET /topics/{topic}` | what the topic is like, as JSON; its newest frame if `Accept` prefers one |
//! | `GET /topics/{topic}?view=participants` | who takes part in it, and what each one holds, as JSON |
//! | `GET /topics/{topic}?view=latest` | its newest frame ([`view`]) |
//! | `POST` or `PUT /topics/{topic}` | publishes the body as a frame ([`publish`]), or each part of it ([`parts`]) |
//!
//! Actions are methods and queries, so every name of a topic can be a path and none is reserved. The prefix is a setting.
//!
//! # Parts
//! [`board`] is what there is behind it: topics by name, with publishers and feeds. [`head`] is what is said of a frame beside its
//! bytes, [`problem`] what is said when something is refused. This file takes a request apart, asks whether it is allowed, and
//! hands it to who answers it.
//!
//! # Order
//! Path, permission, method, query: who may not see a topic does not learn whether it exists.

mod accept;
pub mod access;
pub mod board;
mod call;
mod deliver;
pub mod head;
mod json;
mod mjpeg;
pub(crate) mod multipart;
pub mod newest;
pub(crate) mod npy;
pub mod openapi;
mod parts;
pub(crate) mod picture_size;
pub mod problem;
mod publish;
pub(crate) use publish::problem_of;
mod query;
mod sse;
mod view;
mod watch;
mod websocket;

use std::{future::Future, io, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};

use self::access::{Denial, Visit};
use self::board::{Event, Participant, Schema};
use crate::body::ResponseBody;
use crate::listener::Server;
use crate::sendfile::ParcelSender;
use crate::service::{
    ConnectionInfo, Handler, Request, Response, ResponseFuture, Service, service_fn,
};
use crate::websocket::outbox::Outbox;

pub use access::{Guard, Permission};
pub use board::{Board, BoardFuture, Feed, Frame, Opened, Publisher, TopicInfo};
pub use call::CallTimes;
pub use deliver::Ended;
pub use head::{ArrayHead, Dtype, FrameHead};
pub use problem::{Code, Problem};
use query::{Query, View};
pub use watch::Seats;
pub use websocket::{Limits as SocketLimits, Mover, Traveller};

const TOPIC_METHODS: &str = "GET, HEAD, POST, PUT, OPTIONS";
const CALL_METHODS: &str = "POST, OPTIONS";
const LIST_METHODS: &str = "GET, HEAD, OPTIONS";
/// Bytes of a name; the shared memory has room for as many.
const NAME_BYTES_MAX: usize = 128;
/// Parts of a name.
const NAME_SEGMENTS_MAX: usize = 8;

/// How the routes behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path in front of all topics: it begins with a slash and does not end with one.
    pub prefix: String,
    /// Time that a frame waits for a free slot, before 503.
    pub loan_wait: Duration,
    /// Parts of one form.
    pub parts_max: usize,
    /// The longest time that a request waits for a newer frame.
    pub poll_wait_max: Duration,
    /// How many may watch.
    pub seats: Seats,
    /// Frames that a viewer's queue may have at most.
    pub queue_max: usize,
    /// Of each `WebSocket`.
    pub sockets: SocketLimits,
    /// What the `OpenAPI` document says of this server.
    pub about: openapi::About,
}

/// The routes, to be mounted at [`Settings::prefix`].
pub struct TopicRoutes(Rc<Shared>);

struct Shared {
    board: Rc<dyn Board>,
    guard: Arc<Guard>,
    settings: Settings,
    /// Where `WebSocket`s go on.
    mover: Option<Rc<dyn Mover>>,
}

impl TopicRoutes {
    /// Routes to the topics of `board`, for those whom `guard` lets in.
    pub fn new(board: Rc<dyn Board>, guard: Arc<Guard>, settings: Settings) -> Self {
        Self(Rc::new(Shared {
            board,
            guard,
            settings,
            mover: None,
        }))
    }

    /// `WebSocket`s of HTTP/1.1 go on where this has them go. To be called before the routes are used.
    ///
    /// # Panics
    /// They are in use.
    #[must_use]
    pub fn with_mover(mut self, mover: Rc<dyn Mover>) -> Self {
        let shared = Rc::get_mut(&mut self.0).expect("routes are set up before they are used");
        shared.mover = Some(mover);
        self
    }

    /// Goes on with a session that has come from another thread, on `server`, which lives on this one.
    ///
    /// # Errors
    /// Its socket cannot join the runtime; it is closed.
    pub fn resume(&self, server: &Server, traveller: Traveller) -> io::Result<()> {
        traveller.resume(self.0.board.clone(), server)
    }
}

impl TopicRoutes {
    /// Routes to the responders of the same topics, to be mounted at `prefix`, which is written as [`Settings::prefix`] is.
    pub fn calls(&self, prefix: String, times: CallTimes) -> CallRoutes {
        CallRoutes(Rc::new(Calls {
            shared: self.0.clone(),
            prefix,
            times,
        }))
    }
}

impl TopicRoutes {
    /// What answers all other paths where nothing but frame routes is served: 404.
    pub fn nothing_else(&self) -> Rc<dyn Service> {
        let shared = self.0.clone();
        service_fn(move |_| {
            let detail = format!(
                "only frame routes are served here, below {}",
                shared.settings.prefix
            );
            let problem = Problem::new(Code::TopicUnknown, detail);
            shared.refuse(None, &problem).into()
        })
    }
}

/// What a handler of the application asks for, which has decided itself who may.
impl TopicRoutes {
    /// What `GET` with this head answers: its query says how the topic is shown. Refusals are answers too.
    pub async fn show(&self, topic: &str, head: &Parts, sender: ParcelSender) -> Response {
        let shared = &self.0;
        let shown = match check_name(topic) {
            Ok(()) => shared.show(topic, head, sender).await,
            Err(problem) => Err(problem),
        };
        shown.unwrap_or_else(|problem| shared.refuse(Some(topic), &problem))
    }

    /// Sends the frames of a topic as messages of a `WebSocket`, each without a head of its own, until the topic ends or the client
    /// takes nothing. The future that this gives does it, and is polled where the session is.
    ///
    /// # Errors
    /// Those of a `WebSocket` that watches.
    pub async fn deliver(
        &self,
        topic: &str,
        query: &str,
        outbox: Rc<Outbox>,
    ) -> Result<Pin<Box<dyn Future<Output = Ended>>>, Problem> {
        check_name(topic)?;
        let (board, settings) = (self.0.board.clone(), &self.0.settings);
        let seat = settings.seats.take()?;
        let timeout = settings.sockets.write_timeout;
        deliver::frames(board, topic, query, (outbox, timeout), seat).await
    }
}

impl Service for TopicRoutes {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(TopicHandler {
            shared: self.0.clone(),
            connection: connection.clone(),
        })
    }
}

struct TopicHandler {
    shared: Rc<Shared>,
    connection: Rc<ConnectionInfo>,
}

impl Handler for TopicHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        let shared = self.shared.clone();
        let connection = self.connection.clone();
        ResponseFuture::later(async move { shared.answer(&connection, request).await })
    }
}

/// The routes to responders: `POST` asks one ([`call`]).
pub struct CallRoutes(Rc<Calls>);

struct Calls {
    shared: Rc<Shared>,
    prefix: String,
    times: CallTimes,
}

impl Service for CallRoutes {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(CallHandler {
            calls: self.0.clone(),
            connection: connection.clone(),
        })
    }
}

struct CallHandler {
    calls: Rc<Calls>,
    connection: Rc<ConnectionInfo>,
}

impl Handler for CallHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        let (calls, connection) = (self.calls.clone(), self.connection.clone());
        ResponseFuture::later(async move {
            let topic = topic_of(&request, &calls.prefix).unwrap_or_default();
            let answered = calls.answer(&connection, &topic, request).await;
            answered.unwrap_or_else(|problem| calls.shared.refuse(Some(&topic), &problem))
        })
    }
}

impl Calls {
    async fn answer(
        &self,
        connection: &ConnectionInfo,
        topic: &str,
        request: Request,
    ) -> Result<Response, Problem> {
        let visit = self.shared.visit(connection, &request)?;
        visit.may(Permission::Call, Some(topic)).await?;
        check_name(topic)?;
        match request.head.method {
            Method::POST => call::call(&*self.shared.board, topic, request, self.times).await,
            Method::OPTIONS => Ok(allowed(CALL_METHODS)),
            _ => Err(not_allowed(CALL_METHODS)),
        }
    }
}

/// The topic that a request names.
fn topic_of(request: &Request, prefix: &str) -> Option<String> {
    let path = request.head.uri.path();
    let topic = path.strip_prefix(prefix).unwrap_or(path);
    let topic = topic.trim_start_matches('/');
    (!topic.is_empty()).then(|| topic.to_owned())
}

impl Shared {
    async fn answer(&self, connection: &ConnectionInfo, request: Request) -> Response {
        let topic = topic_of(&request, &self.settings.prefix);
        // A client that goes away drops this future, wherever it is.
        let mut abandoned = Abandoned {
            board: &*self.board,
            topic: topic.as_deref(),
            armed: matches!(request.head.method, Method::POST | Method::PUT),
        };
        let answered = match topic.as_deref() {
            None => self.answer_list(connection, &request).await,
            Some(topic) => self.answer_topic(connection, topic, request).await,
        };
        abandoned.armed = false;
        answered.unwrap_or_else(|problem| self.refuse(topic.as_deref(), &problem))
    }

    fn refuse(&self, topic: Option<&str>, problem: &Problem) -> Response {
        self.board.happened(&Event::Refused { topic, problem });
        problem.to_response()
    }

    /// The one place where it is found out who asks; what that one may do says the visit.
    fn visit(&self, connection: &ConnectionInfo, request: &Request) -> Result<Visit, Problem> {
        let arrival = request.arrival.as_deref();
        Ok(self.guard.visit(&request.head, connection, arrival)?)
    }

    async fn answer_list(
        &self,
        connection: &ConnectionInfo,
        request: &Request,
    ) -> Result<Response, Problem> {
        let visit = self.visit(connection, request)?;
        visit.may(Permission::List, None).await?;
        match request.head.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(allowed(LIST_METHODS)),
            _ => return Err(not_allowed(LIST_METHODS)),
        }
        match watch::value(request.head.uri.query().unwrap_or_default(), "view")? {
            None | Some("list") => {}
            Some("openapi") => {
                let document = openapi::document(&self.settings.prefix, &self.settings.about);
                return Ok(json_response(document));
            }
            Some(_) => {
                return Err(Problem::new(
                    Code::Query,
                    "view is list or openapi where no topic is named",
                ));
            }
        }
        let topics = self.board.list().await?;
        let mut listed = Vec::new();
        for topic in topics {
            match visit.may(Permission::List, Some(&topic.name)).await {
                Ok(()) => listed.push(info_json(&topic)),
                Err(denial @ (Denial::NotJudged | Denial::JudgedLate)) => return Err(denial.into()),
                Err(_) => {}
            }
        }
        let mut body = json::Object::new();
        body.json("topics", &json::list(listed.into_iter()));
        Ok(json_response(body.finish()))
    }

    async fn answer_topic(
        &self,
        connection: &ConnectionInfo,
        topic: &str,
        request: Request,
    ) -> Result<Response, Problem> {
        let permission = match request.head.method {
            Method::POST | Method::PUT => Permission::Publish,
            _ => Permission::Read,
        };
        if request.upgrade.is_some() {
            return self.answer_websocket(connection, topic, request).await;
        }
        let visit = self.visit(connection, &request)?;
        visit.may(permission, Some(topic)).await?;
        check_name(topic)?;
        match request.head.method {
            Method::POST | Method::PUT => {
                let limits = (self.settings.loan_wait, self.settings.parts_max);
                publish::publish(&*self.board, topic, request, limits).await
            }
            Method::GET | Method::HEAD => {
                let sender = request.hints.parcel_sender();
                self.show(topic, &request.head, sender).await
            }
            Method::OPTIONS => Ok(allowed(TOPIC_METHODS)),
            _ => Err(not_allowed(TOPIC_METHODS)),
        }
    }
}

impl Shared {
    /// `GET`, by whom that is allowed.
    async fn show(
        &self,
        topic: &str,
        head: &Parts,
        sender: ParcelSender,
    ) -> Result<Response, Problem> {
        let query = Query::read(head.uri.query())?;
        match query.view.unwrap_or_else(|| view::preferred(head)) {
            View::Info => {
                let info = self.board.info(topic).await?;
                Ok(json_response(info_json(&info)))
            }
            View::Participants => {
                let found = self.board.participants(topic).await?;
                let mut body = json::Object::new();
                let rows = found.iter().map(participant_json);
                body.json("participants", &json::list(rows));
                Ok(json_response(body.finish()))
            }
            View::Latest => {
                let wait_max = self.settings.poll_wait_max;
                view::latest(&*self.board, topic, head, &query, wait_max, sender).await
            }
            View::Mjpeg => {
                let seat = self.settings.seats.take()?;
                mjpeg::pictures(&self.board, topic, head, sender, seat).await
            }
            View::Sse => {
                let seat = self.settings.seats.take()?;
                sse::events(&*self.board, topic, head, seat).await
            }
        }
    }

    async fn answer_websocket(
        &self,
        connection: &ConnectionInfo,
        topic: &str,
        mut request: Request,
    ) -> Result<Response, Problem> {
        let query = request.head.uri.query().unwrap_or_default();
        let asked = websocket::Asked::of(query, self.settings.queue_max);
        let (subscribes, publishes) = match &asked {
            Ok(asked) => (asked.subscribes, asked.publishes),
            Err(_) => (true, true),
        };
        let visit = self.visit(connection, &request)?;
        for (permission, is_asked) in [
            (Permission::Read, subscribes),
            (Permission::Publish, publishes),
        ] {
            if is_asked {
                visit.may(permission, Some(topic)).await?;
            }
        }
        check_name(topic)?;
        let asked = asked?;
        let seat = asked.subscribes.then(|| self.settings.seats.take());
        let Some(upgrade) = request.upgrade.take() else {
            return Err(Problem::new(Code::Query, "this is no WebSocket handshake"));
        };
        let opening = websocket::Opening {
            board: self.board.clone(),
            topic: topic.to_owned(),
            asked,
            limits: self.settings.sockets,
            seat: seat.transpose()?,
            mover: self.mover.clone(),
        };
        opening.open(&request.head, upgrade).await
    }
}

/// Tells the board of a body whose client went away before it was whole.
struct Abandoned<'a> {
    board: &'a dyn Board,
    topic: Option<&'a str>,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.armed {
            let problem = Problem::new(
                Code::BodyIncomplete,
                "the client went away before the end of the body; no unfinished frame was published",
            );
            self.board.happened(&Event::Refused {
                topic: self.topic,
                problem: &problem,
            });
        }
    }
}

/// Checks a topic name: 1 to 8 parts of `[A-Za-z0-9_][A-Za-z0-9_.-]*` with slashes between, at most 128 bytes, no `..`.
///
/// # Errors
/// [`Code::TopicName`]
pub fn check_name(name: &str) -> Result<(), Problem> {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        part.bytes().next().is_some_and(plain)
            && part
                .bytes()
                .all(|byte| plain(byte) || matches!(byte, b'.' | b'-'))
    };
    if name.len() <= NAME_BYTES_MAX
        && name.split('/').count() <= NAME_SEGMENTS_MAX
        && name.split('/').all(is_part)
        && !name.contains("..")
    {
        return Ok(());
    }
    Err(Problem::new(
        Code::TopicName,
        "a topic is 1 to 8 parts of letters, digits, _, - and . with slashes between, written without escapes",
    ))
}

fn not_allowed(methods: &'static str) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        format!("the methods here are {methods}"),
    )
    .allowing(methods)
}

fn allowed(methods: &'static str) -> Response {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn json_response(body: Vec<u8>) -> Response {
    let mut response = Response::new(ResponseBody::from(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn info_json(info: &TopicInfo) -> Vec<u8> {
    let mut object = json::Object::new();
    object.text("name", &info.name);
    if let Schema::Array { dtype, shape } = &info.schema {
        object.text("dtype", dtype.name());
        object.numbers("shape", shape.iter().copied());
    } else {
        object.json("dtype", b"null");
        object.json("shape", b"null");
    }
    object.number("slots", u64::from(info.slots));
    object.number("slot_bytes", info.slot_bytes);
    object.number("sequence", info.sequence);
    object.number("publishers", u64::from(info.publishers));
    object.number("subscribers", u64::from(info.subscribers));
    object.number("responders", u64::from(info.responders));
    object.number("leases", info.leases);
    object.number("lost", info.lost);
    object.finish()
}

fn participant_json(one: &Participant) -> Vec<u8> {
    let mut object = json::Object::new();
    object.text("name", &one.name);
    object.number("pid", u64::from(one.pid.cast_unsigned()));
    object.text("role", one.role);
    match one.policy {
        Some(policy) => object.text("policy", policy),
        None => object.json("policy", b"null"),
    }
    object.json("alive", if one.alive { b"true" } else { b"false" });
    object.number("frames", one.frames);
    object.number("lost", one.lost);
    object.number("lag", one.lag);
    object.number("holds", u64::from(one.holds));
    for (key, age) in [("oldest_ms", one.oldest), ("behind_ms", one.behind)] {
        match age {
            Some(age) => object.number(key, u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            None => object.json(key, b"null"),
        }
    }
    object.finish()
}
