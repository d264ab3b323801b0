//! Frames to a `WebSocket` that a handler of the application has opened: each is one binary message, its bytes as they are or
//! a picture of it. What the client says is the handler's business, so nothing is acknowledged here: the next frame is sent
//! when the one before has left.

use std::{future::Future, future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::board::{Board, Event};
use super::problem::Problem;
use super::watch::{Form, Pace, Seat, Shots};
use crate::fanout::Parcel;
use crate::websocket::outbox::Outbox;

/// Why no further frame is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The topic is gone, or its frames are no pictures.
    Topic,
    /// The client takes nothing for the write time-out: the connection is to be cut.
    Stalled,
    /// The `WebSocket` is closing.
    Closed,
}

/// What sends the frames of `topic`, as its query wants them.
pub(super) async fn frames(
    board: Rc<dyn Board>,
    topic: &str,
    query: &str,
    (outbox, write_timeout): (Rc<Outbox>, Option<Duration>),
    seat: Seat,
) -> Result<Pin<Box<dyn Future<Output = Ended>>>, Problem> {
    let form = Form::of(query, None)?;
    let pace = Pace::of(query)?;
    let feed = board.feed(topic).await?;
    if let (Form::Picture(setting), Some(frame)) = (form, feed.newest()?) {
        // What is no picture is refused at once, as everywhere.
        super::mjpeg::check(&*feed, &frame, setting).await?;
    }
    Ok(Box::pin(async move {
        let _seat = seat;
        let mut shots = Shots::new(feed.clone(), form, pace);
        loop {
            let Ok(shot) = poll_fn(|cx| shots.poll_next(cx)).await else {
                return Ended::Topic;
            };
            let parcel = shot.parcel(&*feed, Bytes::new(), Bytes::new());
            board.happened(&Event::Sent {
                bytes: shot.bytes.len() as u64,
            });
            // What was made of the frame holds it no longer than the parcel does.
            drop(shot);
            if !outbox.leave_parcel(parcel.clone()) {
                return Ended::Closed;
            }
            let limit = write_timeout.filter(|_| !outbox.is_swept());
            if !leaves(&parcel, limit).await {
                return Ended::Stalled;
            }
        }
    }))
}

/// Waits until a parcel has left; false if nothing of it does for the time-out.
async fn leaves(parcel: &Parcel, write_timeout: Option<Duration>) -> bool {
    let mut left = parcel.left();
    loop {
        let sent = poll_fn(|cx| parcel.poll_sent(cx));
        let Some(limit) = write_timeout else {
            sent.await;
            return true;
        };
        if timeout(limit, sent).await.is_ok() {
            return true;
        }
        let still = parcel.left();
        if still == left {
            return false;
        }
        left = still;
    }
}
