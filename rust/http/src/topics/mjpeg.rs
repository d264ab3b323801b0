//! `GET ?view=mjpeg`: one picture after the other in a response that does not end (`multipart/x-mixed-replace`), for `<img>`, `OpenCV`
//! and ffmpeg.
//!
//! # Two framings
//! Chromium shows a picture when the head of the next part has come, so that head is sent with the picture, long before there is
//! another one; and so a part cannot say its length. `OpenCV` and ffmpeg show a picture when the bytes that were announced are
//! there, and else when the next part begins. So whose `Accept` begins with `image/`, as that of `<img>` does, gets `announced` parts,
//! others get parts with their `length`; `?framing=` says which.
//!
//! A viewer gets the newest picture when the one before has left, so he is late by one picture at most.

use std::{
    cell::RefCell,
    pin::Pin,
    ptr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header::ACCEPT, request::Parts};
use http_body::Frame as BodyFrame;

use super::board::{Board, Event, Feed, Frame};
use super::problem::{Code, Problem};
use super::watch::{Form, Pace, Seat, Shot, Shots, endless, value};
use crate::body::Aborted;
use crate::fanout::Parcel;
use crate::pictures::{Coding, Setting};
use crate::sendfile::ParcelSender;
use crate::service::Response;

/// Not quoted: some readers take the quotes for part of it.
const TYPE: HeaderValue = HeaderValue::from_static("multipart/x-mixed-replace; boundary=frame");
const END: &str = "\r\n--frame--\r\n";
const CRLF: &[u8] = b"\r\n";
/// The head of a part with its length is no longer.
const HEAD_BYTES: usize = 192;

/// How parts are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The head of the next part follows each picture.
    Announced,
    /// Each part says how long it is.
    Length,
}

impl Framing {
    fn of(head: &Parts, query: &str) -> Result<Self, Problem> {
        match value(query, "framing")? {
            Some("announced") => return Ok(Self::Announced),
            Some("length") => return Ok(Self::Length),
            Some(_) => {
                return Err(Problem::new(Code::Query, "framing is announced or length"));
            }
            None => {}
        }
        let accept = head.headers.get(ACCEPT);
        let is_img = accept.is_some_and(|value| value.as_bytes().starts_with(b"image/"));
        Ok(if is_img {
            Self::Announced
        } else {
            Self::Length
        })
    }
}

/// Answers with the pictures of `topic`.
pub(super) async fn pictures(
    board: &Rc<dyn Board>,
    topic: &str,
    head: &Parts,
    sender: ParcelSender,
    seat: Seat,
) -> Result<Response, Problem> {
    let query = head.uri.query().unwrap_or_default();
    let framing = Framing::of(head, query)?;
    let Form::Picture(setting) = Form::of(query, Some(Coding::Jpeg))? else {
        return Err(Problem::new(
            Code::Query,
            "format is jpeg, webp or png here",
        ));
    };
    let pace = Pace::of(query)?;
    let feed = board.feed(topic).await?;
    // Frames that are no pictures are refused before the response begins; with none yet, that is not known.
    if let Some(frame) = feed.newest()? {
        check(&*feed, &frame, setting).await?;
    }
    let words = Words::of(setting.coding());
    let body = Pictures {
        ready: match framing {
            Framing::Announced => Some(Bytes::from_static(&words.announced[CRLF.len()..])),
            Framing::Length => None,
        },
        shots: Shots::new(feed.clone(), Form::Picture(setting), pace),
        is_over: false,
        board: board.clone(),
        feed,
        sender,
        framing,
        words,
        under_way: None,
        _seat: seat,
    };
    Ok(endless(head, TYPE, Box::pin(body)))
}

/// Refuses a frame that is no picture.
pub(super) async fn check(feed: &dyn Feed, frame: &Frame, setting: Setting) -> Result<(), Problem> {
    match feed.picture(frame, setting).await {
        Err(problem) if problem.code != Code::PicturesBusy => Err(problem),
        _ => Ok(()),
    }
}

/// What parts begin with.
struct Words {
    part: &'static [u8],
    /// The head of a part that does not say its length, behind a picture.
    announced: &'static [u8],
}

impl Words {
    fn of(coding: Coding) -> &'static Self {
        macro_rules! words {
            ($media_type:literal) => {{
                static WORDS: Words = Words {
                    part: concat!("--frame\r\nContent-Type: ", $media_type, "\r\n").as_bytes(),
                    announced: concat!("\r\n--frame\r\nContent-Type: ", $media_type, "\r\n\r\n")
                        .as_bytes(),
                };
                &WORDS
            }};
        }
        match coding {
            Coding::Jpeg => words!("image/jpeg"),
            Coding::Webp => words!("image/webp"),
            Coding::Png => words!("image/png"),
        }
    }
}

/// The head of a part that says how long it is. All viewers of a thread who are sent the same picture get the
/// same one: to make it costs more than to compare what it says.
fn head_of(words: &'static Words, shot: &Shot) -> Bytes {
    let says = (
        shot.bytes.len(),
        shot.frame.published_ns,
        shot.frame.sequence,
    );
    LAST_HEAD.with_borrow_mut(|last| match last {
        Some((of, said, head)) if *said == says && ptr::eq(*of, words) => head.clone(),
        _ => {
            let head = make_head(words.part, says);
            *last = Some((words, says, head.clone()));
            head
        }
    })
}

fn make_head(part: &[u8], (bytes, published_ns, sequence): HeadSays) -> Bytes {
    const NS_PER_S: u64 = 1_000_000_000;
    let mut digits = itoa::Buffer::new();
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.extend_from_slice(part);
    head.extend_from_slice(b"Content-Length: ");
    head.extend_from_slice(digits.format(bytes).as_bytes());
    head.extend_from_slice(b"\r\nX-Timestamp: ");
    head.extend_from_slice(digits.format(published_ns / NS_PER_S).as_bytes());
    head.extend_from_slice(b".");
    // With a one in front, so that there are nine digits behind it.
    let fraction = &digits.format(NS_PER_S + published_ns % NS_PER_S)[1..];
    head.extend_from_slice(fraction.as_bytes());
    head.extend_from_slice(b"\r\nFrame-Sequence: ");
    head.extend_from_slice(digits.format(sequence).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head.freeze()
}

/// Length, time and sequence.
type HeadSays = (usize, u64, u64);

thread_local! {
    /// The head that was made last, of what.
    static LAST_HEAD: RefCell<Option<(&'static Words, HeadSays, Bytes)>> = const { RefCell::new(None) };
}

/// The body. It ends when the topic does.
struct Pictures {
    board: Rc<dyn Board>,
    feed: Rc<dyn Feed>,
    shots: Shots,
    /// The topic is gone.
    is_over: bool,
    sender: ParcelSender,
    framing: Framing,
    words: &'static Words,
    /// What goes out first.
    ready: Option<Bytes>,
    under_way: Option<UnderWay>,
    _seat: Seat,
}

/// A picture that is being sent.
struct UnderWay {
    parcel: Arc<Parcel>,
    /// Bytes that were not given to the connection yet.
    left: usize,
}

impl Pictures {
    fn begin(&mut self, shot: &Shot) {
        let (before, behind) = match self.framing {
            Framing::Announced => (Bytes::new(), Bytes::from_static(self.words.announced)),
            Framing::Length => (head_of(self.words, shot), Bytes::from_static(CRLF)),
        };
        let parcel = shot.parcel(&*self.feed, before, behind);
        self.board.happened(&Event::Sent {
            bytes: shot.bytes.len() as u64,
        });
        self.under_way = Some(UnderWay {
            left: parcel.left(),
            parcel,
        });
    }
}

impl http_body::Body for Pictures {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let me = &mut *self;
        loop {
            if let Some(bytes) = me.ready.take() {
                return Poll::Ready(Some(Ok(BodyFrame::data(bytes))));
            }
            if let Some(under_way) = &mut me.under_way {
                if under_way.left > 0 {
                    let piece = me.sender.piece(&under_way.parcel, under_way.left);
                    under_way.left -= piece.len();
                    return Poll::Ready(Some(Ok(BodyFrame::data(piece))));
                }
                ready!(under_way.parcel.poll_sent(cx));
                me.under_way = None;
            }
            if me.is_over {
                return Poll::Ready(None);
            }
            if let Ok(shot) = ready!(me.shots.poll_next(cx)) {
                me.begin(&shot);
            } else {
                me.is_over = true;
                me.ready = Some(Bytes::from_static(END.as_bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Coding, Words};

    #[test]
    fn parts_say_what_the_coding_is() {
        for coding in [Coding::Jpeg, Coding::Webp, Coding::Png] {
            let words = Words::of(coding);
            let part = format!("--frame\r\nContent-Type: {}\r\n", coding.media_type());
            assert_eq!(words.part, part.as_bytes());
            assert_eq!(words.announced, format!("\r\n{part}\r\n").as_bytes());
        }
    }
}
