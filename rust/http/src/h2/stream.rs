//! One stream: the request's body as it is pulled, and the response on its way out.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE},
};
use http_body::Body as _;

use super::{
    Observed, Streams, head,
    outlet::Outlet,
    priority::Priority,
    stall::Waits,
    tunnel::{Opening, StreamDraining, Tunnel},
};
use crate::body::{Body, ResponseBody};
use crate::error::Error;
use crate::h1::{Declared, declare, length_of};
use crate::record::{Meter, Record};
use crate::refusal::{BODY_TOO_LARGE, NO_WEBSOCKET, Refusal, TEXT, bad};
use crate::registry::Sweep;
use crate::service::{
    Draining, Hints, Permit, Request, Response, ResponseFuture, Takeover, Upgrade, Upgraded,
};

/// The body of a request.
pub(crate) struct RequestStream {
    stream: RecvStream,
    /// Bytes that are still to come, when the client has said so. The crate fails a body that is of another size.
    left: Option<u64>,
    /// Bytes that it may still have.
    allowed: u64,
    ended: bool,
    trailers: Option<HeaderMap>,
    responder: Rc<Responder>,
}

impl RequestStream {
    /// The next bytes. What is given out may be sent again by the client: the handler has taken it.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let responder = &self.responder;
        if responder.waits.is_given_up() {
            return Poll::Ready(Some(Err(Error::too_slow())));
        }
        while !self.ended {
            let Some(data) = ready!(responder.body_is_here(self.stream.poll_data(cx), cx)) else {
                self.ended = true;
                break;
            };
            let data = data.map_err(Error::from_h2)?;
            let Some(allowed) = self.allowed.checked_sub(data.len() as u64) else {
                if let Some(waiting) = responder.refuse(&BODY_TOO_LARGE) {
                    waiting.wake();
                }
                return Poll::Ready(Some(Err(Error::too_large())));
            };
            self.allowed = allowed;
            responder.waits.took(data.len());
            let released = self.stream.flow_control().release_capacity(data.len());
            if let Err(error) = released {
                return Poll::Ready(Some(Err(Error::from_h2(error))));
            }
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(data.len() as u64);
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
        match ready!(responder.body_is_here(self.stream.poll_trailers(cx), cx)) {
            Ok(trailers) => {
                self.trailers = trailers;
                Poll::Ready(None)
            }
            Err(error) => Poll::Ready(Some(Err(Error::from_h2(error)))),
        }
    }

    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.responder.waits.end_body();
        let bodies = &self.responder.observed.bodies;
        bodies.set(bodies.get() - 1);
    }
}

/// What the reader of a request's body and the writer of its response share, and the way back to the client until the final
/// response is made.
pub(crate) struct Responder {
    pub(super) observed: Rc<Observed>,
    pub(super) waits: Waits,
    pub(super) respond: RefCell<Option<SendResponse<Bytes>>>,
    /// What is answered in place of the handler's response.
    refusal: Cell<Option<&'static Refusal>>,
    /// The exchange's task, while that waits.
    waiting: RefCell<Option<Waker>>,
}

impl Responder {
    fn new(observed: &Rc<Observed>, respond: SendResponse<Bytes>) -> Rc<Self> {
        Rc::new(Self {
            observed: observed.clone(),
            waits: Waits::default(),
            respond: RefCell::new(Some(respond)),
            refusal: Cell::new(None),
            waiting: RefCell::default(),
        })
    }

    /// Answers for the handler, unless it has answered. The caller wakes who has to know.
    pub(super) fn refuse(&self, refusal: &'static Refusal) -> Option<Waker> {
        self.observed.shared.trouble(refusal);
        self.refusal.set(Some(refusal));
        self.waker()
    }

    /// The exchange's task, if that waits.
    fn waker(&self) -> Option<Waker> {
        self.waiting.borrow().clone()
    }

    /// The client is too slow: what is not over is broken off by those whom `wakers` wake.
    pub(super) fn give_up(&self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.waker());
        wakers.extend(self.waits.give_up());
    }

    /// The exchange's task waits.
    fn wait(&self, cx: &Context<'_>) {
        match &mut *self.waiting.borrow_mut() {
            Some(known) => known.clone_from(cx.waker()),
            unknown => *unknown = Some(cx.waker().clone()),
        }
    }

    /// Notes whether the client is waited for.
    fn body_is_here<T>(self: &Rc<Self>, polled: Poll<T>, cx: &Context<'_>) -> Poll<T> {
        if polled.is_pending() {
            self.observed.watch.wait_for_body(self, cx.waker());
        } else {
            self.waits.end_body();
        }
        polled
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.observed.watch.leave(&self.waits);
    }
}

/// One request, from its head until its response is handed over.
pub(super) struct Exchange {
    streams: Rc<Streams>,
    responder: Rc<Responder>,
    meter: Option<Rc<Meter>>,
    is_head: bool,
    /// The request has no body.
    alone: bool,
    priority: Priority,
    /// Of an extended CONNECT, until it is answered.
    connect: Option<(Rc<Opening>, RecvStream)>,
    stage: Stage,
    complete: bool,
}

enum Stage {
    Waiting(ResponseFuture),
    Sending(Sending),
    /// What the handler left for the tunnel.
    Open(Pin<Box<dyn Future<Output = ()>>>),
    Done,
}

struct Sending {
    outlet: Outlet,
    body: ResponseBody,
    /// Of the body, not handed over yet.
    piece: Bytes,
    /// The handler gave up, and the connection had its chance to write what came before: a reset takes back what is unsent.
    broken: bool,
    /// Bytes that are still to be sent by what the response declares.
    left: Option<u64>,
}

impl Exchange {
    /// Calls the handler, if the request is to be served.
    pub(super) fn start(
        streams: &Rc<Streams>,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let (mut head, stream) = request.into_parts();
        streams.opened();
        streams.requests.set(streams.requests.get() + 1);
        streams.observed.gate.seen(respond.stream_id().as_u32());
        let server = &streams.server;
        server.registry.count_request();
        if streams.shared.begin_request() || !streams.shared.admitted.get() {
            streams.spent.set(true);
            streams.shared.wake_task();
        }
        let meter = streams
            .shared
            .recorder
            .as_ref()
            .map(|recorder| recorder.begin(&streams.info, &head, server.registry.requests()));
        let mut exchange = Self {
            streams: streams.clone(),
            responder: Responder::new(&streams.observed, respond),
            meter: meter.clone(),
            is_head: head.method == Method::HEAD,
            alone: stream.is_end_stream(),
            priority: Priority::of(&head.headers),
            connect: None,
            stage: Stage::Done,
            complete: false,
        };
        let refuse = |mut exchange: Self, head: &mut http::request::Parts, refusal: Refusal| {
            let mut response = refusal.to_response();
            let record = Record(exchange.meter.clone());
            streams.handler.refused(head, &record, &mut response);
            exchange.stage = Stage::Waiting(response.into());
            exchange
        };
        let admitted = head::admit(
            &mut head,
            &server.config.limits,
            &streams.authority,
            streams.is_trusted,
        );
        if let Err(refusal) = admitted {
            return refuse(exchange, &mut head, refusal);
        }
        let allowed = server.config.limits.body_bytes_max.unwrap_or(u64::MAX);
        let left = head.headers.get(CONTENT_LENGTH).and_then(length_of);
        if left > Some(allowed) {
            return refuse(exchange, &mut head, BODY_TOO_LARGE.clone());
        }
        let opening = (head.method == Method::CONNECT).then(Rc::<Opening>::default);
        if opening.is_some()
            && let Some(meter) = &meter
        {
            meter.asks_for_websocket();
        }
        if opening.is_some() && exchange.alone {
            let refusal = bad("a WebSocket handshake does not end its stream\n");
            return refuse(exchange, &mut head, refusal);
        }
        let body = if let Some(opening) = &opening {
            exchange.connect = Some((opening.clone(), stream));
            Body::empty()
        } else if exchange.alone {
            Body::empty()
        } else {
            let bodies = &streams.observed.bodies;
            bodies.set(bodies.get() + 1);
            let stream = RequestStream {
                stream,
                left,
                allowed,
                responder: exchange.responder.clone(),
                ended: false,
                trailers: None,
            };
            Body::http2(stream, meter.clone())
        };
        head.version = Version::HTTP_2;
        let answer = streams.handler.call(Request {
            head,
            body,
            hints: Hints::http2(exchange.responder.clone()),
            has_upgrade_field: opening.is_some(),
            upgrade: opening.map(Upgrade::http2),
            record: Record(meter),
            arrival: None,
            permit: Permit::new(&streams.running),
        });
        exchange.stage = Stage::Waiting(answer);
        exchange
    }

    fn leave_queue(&mut self) {
        if let Stage::Sending(sending) = &mut self.stage {
            sending.outlet.leave();
        }
    }

    /// The client has given up on the stream.
    fn lose(&mut self) -> Poll<()> {
        self.streams.count_reset();
        self.stage = Stage::Done;
        Poll::Ready(())
    }

    /// Hands the head over, and says what comes then.
    fn answer(&mut self, response: Response) -> Stage {
        let Some((opening, incoming)) = self.connect.take() else {
            return self.respond(response).map_or(Stage::Done, Stage::Sending);
        };
        let takeover = opening.take();
        if !response.status().is_success() {
            return self.respond(response).map_or(Stage::Done, Stage::Sending);
        }
        match takeover {
            Some(takeover) if response.status() == StatusCode::OK => self
                .open(response, incoming, takeover)
                .map_or(Stage::Done, Stage::Open),
            // The client would take any 2xx for an open WebSocket.
            _ => self
                .respond(NO_WEBSOCKET.to_response())
                .map_or(Stage::Done, Stage::Sending),
        }
    }

    /// Answers 200 without an end, which makes a tunnel of the stream. `None` when the client is gone.
    fn open(
        &mut self,
        response: Response,
        incoming: RecvStream,
        takeover: Takeover,
    ) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
        let streams = &self.streams;
        let mut head = response.into_parts().0;
        let has_date = head::strip(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        if streams.server.config.date_header && !has_date {
            head.headers.insert(DATE, streams.server.date.now());
        }
        if let Some(meter) = &self.meter {
            meter.responded(head.status, &mut head.headers);
        }
        let mut respond = self.responder.respond.take()?;
        let number = respond.stream_id().as_u32();
        let stream = respond
            .send_response(http::Response::from_parts(head, ()), false)
            .ok()?;
        // As over HTTP/1.1 the record tells of the handshake.
        streams.shared.request_over(self.meter.take());
        let outlet = Outlet::new(stream, self.responder.clone(), self.priority);
        Some(takeover(Upgraded {
            stream: Box::pin(Tunnel::new(streams.clone(), incoming, outlet)),
            leftover: Bytes::new(),
            draining: Draining::stream(StreamDraining::new(streams.clone(), number)),
            sweep: Sweep::new(streams.server.registry.clone()),
            departing: None,
        }))
    }

    /// Hands the head over; `None` when the response is done with it or the client is gone.
    fn respond(&mut self, response: Response) -> Option<Sending> {
        let (mut head, mut body) = response.into_parts();
        if head.status.is_informational() {
            // A service gives final responses only.
            (head, body) = internal_error();
        }
        let mut has_date = head::strip(&mut head.headers);
        let mut declared = declare(&mut head.headers);
        if let Declared::Invalid = declared {
            (head, body) = internal_error();
            has_date = false;
            declared = Declared::No;
        }
        if head.status == StatusCode::NO_CONTENT {
            // RFC 9110, 8.6.
            head.headers.remove(CONTENT_LENGTH);
            declared = Declared::No;
        }
        let has_none = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let bodyless = self.is_head || has_none;
        if let Declared::No = declared
            && !has_none
            && let Some(length) = body.size_hint().exact()
            && (length > 0 || !self.is_head)
        {
            head.headers.insert(CONTENT_LENGTH, length.into());
            declared = Declared::Length(length);
        }
        if self.streams.server.config.date_header && !has_date {
            head.headers.insert(DATE, self.streams.server.date.now());
        }
        let left = match declared {
            Declared::Length(length) if !bodyless => Some(length),
            _ => None,
        };
        let ends = bodyless || left == Some(0) || (left.is_none() && body.is_end_stream());
        if let Some(meter) = &self.meter {
            meter.responded(head.status, &mut head.headers);
        }
        let respond = self.responder.respond.take();
        let sent = respond?.send_response(http::Response::from_parts(head, ()), ends);
        match sent {
            Ok(_) if ends => {
                self.complete = true;
                None
            }
            Ok(stream) => Some(Sending {
                outlet: Outlet::new(stream, self.responder.clone(), self.priority),
                body,
                piece: Bytes::new(),
                broken: false,
                left,
            }),
            Err(_) => None,
        }
    }
}

fn internal_error() -> (http::response::Parts, ResponseBody) {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = StatusCode::INTERNAL_SERVER_ERROR;
    head.headers.insert(CONTENT_TYPE, TEXT);
    (head, ResponseBody::Empty)
}

/// How the handing over of a response ended.
enum Sent {
    Whole,
    /// The handler gave up.
    Broken,
    /// The client gave up.
    Lost,
}

impl Sending {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        responder: &Responder,
        meter: Option<&Meter>,
    ) -> Poll<Sent> {
        if responder.waits.is_reset() {
            self.outlet.stream.send_reset(Reason::CANCEL);
            return Poll::Ready(Sent::Broken);
        }
        loop {
            if self.broken {
                self.outlet.stream.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(Sent::Broken);
            }
            if self.piece.is_empty() {
                match ready!(self.poll_piece(cx)) {
                    Some(Ok(data)) => self.piece = data,
                    Some(Err(Sent::Broken)) => return self.break_off(cx),
                    Some(Err(sent)) => return Poll::Ready(sent),
                    None => match self.finish(None) {
                        Sent::Broken => return self.break_off(cx),
                        sent => return Poll::Ready(sent),
                    },
                }
                continue;
            }
            let room = match self.outlet.poll_room(cx, self.piece.len()) {
                Poll::Ready(0) => return Poll::Ready(Sent::Lost),
                Poll::Ready(room) => room,
                Poll::Pending if self.outlet.is_reset(cx) => return Poll::Ready(Sent::Lost),
                Poll::Pending => return Poll::Pending,
            };
            let data = self.piece.split_to(room.min(self.piece.len()));
            if let Some(meter) = meter {
                meter.sent(data.len());
            }
            if let Some(left) = &mut self.left {
                *left -= data.len() as u64;
            }
            let ends = match self.left {
                Some(left) => left == 0,
                None => self.piece.is_empty() && self.body.is_end_stream(),
            };
            if !self.outlet.send(data, ends) {
                return Poll::Ready(Sent::Lost);
            }
            if ends {
                return Poll::Ready(Sent::Whole);
            }
        }
    }

    /// The next poll resets the stream.
    fn break_off(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        self.broken = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next piece of the body, `None` at its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Sent>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.outlet.step_aside();
                return if self.outlet.is_reset(cx) {
                    Poll::Ready(Some(Err(Sent::Lost)))
                } else {
                    Poll::Pending
                };
            }
        };
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(Sent::Broken)),
            Some(Ok(frame)) => Some(match frame.into_data() {
                Ok(mut data) => {
                    if let Some(left) = self.left {
                        // What is over the declared length is not sent.
                        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    }
                    Ok(data)
                }
                Err(frame) => Err(self.finish(frame.into_trailers().ok())),
            }),
        })
    }

    /// The body is over.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Sent {
        if self.left.is_some_and(|left| left > 0) {
            return Sent::Broken;
        }
        let sent = match trailers {
            Some(mut trailers) => {
                head::strip(&mut trailers);
                self.outlet.stream.send_trailers(trailers)
            }
            None => self.outlet.stream.send_data(Bytes::new(), true),
        };
        if sent.is_ok() {
            Sent::Whole
        } else {
            Sent::Lost
        }
    }
}

impl Future for Exchange {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        loop {
            match &mut me.stage {
                Stage::Done => return Poll::Ready(()),
                Stage::Waiting(answer) => {
                    // A handler that is answered for does not run again; and running, it may find that it is.
                    let refusal = &me.responder.refusal;
                    let mut response = Poll::Pending;
                    let refused = refusal.take().or_else(|| {
                        response = Pin::new(answer).poll(cx);
                        refusal.take()
                    });
                    if let Some(refused) = refused {
                        me.responder.waits.forgive();
                        let mut answer = refused.to_response();
                        if let Some(meter) = &me.meter {
                            meter.add_name(answer.headers_mut());
                        }
                        response = Poll::Ready(answer);
                    }
                    if let Poll::Ready(response) = response {
                        // Frees what the handler held before its response is written.
                        me.stage = Stage::Done;
                        me.stage = me.answer(response);
                        continue;
                    }
                    me.responder.wait(cx);
                    let reset = match &mut *me.responder.respond.borrow_mut() {
                        Some(respond) => respond.poll_reset(cx).is_ready(),
                        None => true,
                    };
                    return if reset { me.lose() } else { Poll::Pending };
                }
                Stage::Open(tunnel) => {
                    // A client that opens no window for too long is given up: dropping the tunnel resets the stream.
                    if !me.responder.waits.is_reset() && tunnel.as_mut().poll(cx).is_pending() {
                        me.responder.wait(cx);
                        return Poll::Pending;
                    }
                    me.stage = Stage::Done;
                }
                Stage::Sending(sending) => {
                    let sent = sending.poll_send(cx, &me.responder, me.meter.as_deref());
                    if sent.is_pending() {
                        me.responder.wait(cx);
                    }
                    let sent = ready!(sent);
                    me.leave_queue();
                    let sending = mem::replace(&mut me.stage, Stage::Done);
                    match sent {
                        Sent::Whole => {
                            me.complete = true;
                            if let Stage::Sending(sending) = sending {
                                sending.outlet.finish(me.alone);
                            }
                        }
                        Sent::Broken => {}
                        Sent::Lost => me.streams.count_reset(),
                    }
                }
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.leave_queue();
        self.stage = Stage::Done;
        // Nothing can be hinted at any more, and who waits to do so is told.
        drop(self.responder.respond.take());
        self.responder.observed.hints.wake();
        self.streams.closed();
        if let Some(meter) = self.meter.take() {
            if self.complete {
                self.streams.shared.request_over(Some(meter));
            } else {
                meter.finish(true);
            }
        }
    }
}
