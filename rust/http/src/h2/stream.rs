//! One stream: the request's body as it is pulled, and the response on its way out.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE},
};
use http_body::Body as _;

use super::{Streams, head};
use crate::body::{Body, ResponseBody};
use crate::error::Error;
use crate::h1::{Declared, declare, length_of, new_record};
use crate::record::{Meter, Record};
use crate::service::{Hints, Request, Response, ResponseFuture};

/// Bytes of one piece of a body: a frame of the size that every client takes.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The body of a request.
pub(crate) struct RequestStream {
    stream: RecvStream,
    /// Bytes that are still to come, when the client has said so. The crate fails a body that is of another size.
    left: Option<u64>,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl RequestStream {
    /// The next bytes. What is given out may be sent again by the client: the handler has taken it.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        while !self.ended {
            let Some(data) = ready!(self.stream.poll_data(cx)) else {
                self.ended = true;
                break;
            };
            let data = data.map_err(Error::from_h2)?;
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
        match ready!(self.stream.poll_trailers(cx)) {
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

/// The way back to the client, until the final response is made.
pub(crate) struct Responder(RefCell<Option<SendResponse<Bytes>>>);

impl Responder {
    /// Sends a `103`. It cannot be overtaken: frames of a stream keep their order.
    pub(crate) fn hint(&self, fields: HeaderMap) {
        if let Some(respond) = &mut *self.0.borrow_mut() {
            let mut response = http::Response::new(());
            *response.status_mut() = StatusCode::EARLY_HINTS;
            *response.headers_mut() = fields;
            head::strip(response.headers_mut());
            // Fails when the client is gone, which others notice.
            let _ = respond.send_informational(response);
        }
    }
}

/// One request, from its head until its response is handed over.
pub(super) struct Exchange {
    streams: Rc<Streams>,
    responder: Rc<Responder>,
    meter: Option<Rc<Meter>>,
    is_head: bool,
    stage: Stage,
    complete: bool,
}

enum Stage {
    Waiting(ResponseFuture),
    Sending(Sending),
    Done,
}

struct Sending {
    stream: SendStream<Bytes>,
    body: ResponseBody,
    /// Of the body, not handed over yet.
    piece: Bytes,
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
        let server = &streams.server;
        server.registry.count_request();
        let meter = streams
            .shared
            .sink
            .as_ref()
            .map(|_| Meter::new(new_record(&streams.info, &head)));
        let mut exchange = Self {
            streams: streams.clone(),
            responder: Rc::new(Responder(RefCell::new(Some(respond)))),
            meter: meter.clone(),
            is_head: head.method == Method::HEAD,
            stage: Stage::Done,
            complete: false,
        };
        let answer = match head::admit(&mut head, &server.config.limits) {
            Err(refusal) => refusal.to_response().into(),
            Ok(()) => {
                let body = if stream.is_end_stream() {
                    Body::empty()
                } else {
                    let left = head.headers.get(CONTENT_LENGTH).and_then(length_of);
                    let stream = RequestStream {
                        stream,
                        left,
                        ended: false,
                        trailers: None,
                    };
                    Body::http2(stream, meter.clone())
                };
                head.version = Version::HTTP_2;
                streams.handler.call(Request {
                    head,
                    body,
                    hints: Hints::http2(exchange.responder.clone()),
                    has_upgrade_field: false,
                    upgrade: None,
                    record: Record(meter),
                })
            }
        };
        exchange.stage = Stage::Waiting(answer);
        exchange
    }

    /// The client has given up on the stream.
    fn lose(&mut self) -> Poll<()> {
        self.stage = Stage::Done;
        Poll::Ready(())
    }

    /// Hands the head over; `None` when the response is done with it or the client is gone.
    fn respond(&mut self, response: Response) -> Option<Sending> {
        let (mut head, mut body) = response.into_parts();
        if head.status.is_informational() {
            // A service gives final responses only.
            (head, body) = internal_error();
        }
        head::strip(&mut head.headers);
        let mut declared = declare(&mut head.headers);
        if let Declared::Invalid = declared {
            (head, body) = internal_error();
            declared = Declared::No;
        }
        if head.status == StatusCode::NO_CONTENT {
            // RFC 9110, 8.6.
            head.headers.remove(CONTENT_LENGTH);
            declared = Declared::No;
        }
        let bodyless = self.is_head
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if let Declared::No = declared
            && !matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            )
            && let Some(length) = body.size_hint().exact()
            && (length > 0 || !self.is_head)
        {
            head.headers.insert(CONTENT_LENGTH, length.into());
            declared = Declared::Length(length);
        }
        if self.streams.server.config.date_header && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, self.streams.server.date.now());
        }
        let left = match declared {
            Declared::Length(length) if !bodyless => Some(length),
            _ => None,
        };
        let ends = bodyless || left == Some(0) || (left.is_none() && body.is_end_stream());
        if let Some(meter) = &self.meter {
            meter.responded(head.status);
        }
        let respond = self.responder.0.take();
        let sent = respond?.send_response(http::Response::from_parts(head, ()), ends);
        match sent {
            Ok(_) if ends => {
                self.complete = true;
                None
            }
            Ok(stream) => Some(Sending {
                stream,
                body,
                piece: Bytes::new(),
                left,
            }),
            Err(_) => None,
        }
    }
}

fn internal_error() -> (http::response::Parts, ResponseBody) {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = StatusCode::INTERNAL_SERVER_ERROR;
    head.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    (head, ResponseBody::Empty)
}

impl Sending {
    /// Ready with true once all is handed over, with false when it never will be.
    fn poll_send(&mut self, cx: &mut Context<'_>, meter: Option<&Meter>) -> Poll<bool> {
        loop {
            if self.piece.is_empty() {
                let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending if self.stream.poll_reset(cx).is_ready() => {
                        return Poll::Ready(false);
                    }
                    Poll::Pending => return Poll::Pending,
                };
                match frame {
                    None => return Poll::Ready(self.finish(None)),
                    Some(Err(_)) => {
                        self.stream.send_reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(false);
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.piece = data,
                        Err(frame) => {
                            return Poll::Ready(self.finish(frame.into_trailers().ok()));
                        }
                    },
                }
                if let Some(left) = self.left {
                    // What is over the declared length is not sent.
                    self.piece
                        .truncate(usize::try_from(left).unwrap_or(usize::MAX));
                }
                if self.piece.is_empty() {
                    continue;
                }
            }
            let room = ready!(self.poll_room(cx));
            if room == 0 {
                return Poll::Ready(false);
            }
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
            if self.stream.send_data(data, ends).is_err() {
                return Poll::Ready(false);
            }
            if ends {
                return Poll::Ready(true);
            }
        }
    }

    /// Window for a part of the piece; 0 when the stream is over.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.stream
            .reserve_capacity(self.piece.len().min(PIECE_BYTES_MAX));
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(room);
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(0),
            }
        }
    }

    /// The body is over; true if it was whole.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> bool {
        if self.left.is_some_and(|left| left > 0) {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
            return false;
        }
        match trailers {
            Some(mut trailers) => {
                head::strip(&mut trailers);
                self.stream.send_trailers(trailers).is_ok()
            }
            None => self.stream.send_data(Bytes::new(), true).is_ok(),
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
                    if let Poll::Ready(response) = Pin::new(answer).poll(cx) {
                        // Frees what the handler held before its response is written.
                        me.stage = Stage::Done;
                        if let Some(sending) = me.respond(response) {
                            me.stage = Stage::Sending(sending);
                        }
                        continue;
                    }
                    let reset = match &mut *me.responder.0.borrow_mut() {
                        Some(respond) => respond.poll_reset(cx).is_ready(),
                        None => true,
                    };
                    return if reset { me.lose() } else { Poll::Pending };
                }
                Stage::Sending(sending) => {
                    me.complete = ready!(sending.poll_send(cx, me.meter.as_deref()));
                    me.stage = Stage::Done;
                }
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stage = Stage::Done;
        self.streams.closed();
        if let (Some(meter), Some(sink)) = (self.meter.take(), &self.streams.shared.sink) {
            if self.complete {
                self.streams.shared.request_over(Some(meter));
            } else {
                meter.finish(&**sink, true);
            }
        }
    }
}
