//! A client that has closed its side while it is being answered.
//!
//! A FIN says that no more will be sent (RFC 9293, 3.6). A client that has sent a whole request and reads on sends the same
//! FIN as one that has closed its socket, and nothing but writing tells them apart: the kernel of the second answers each further
//! byte with a reset. So the end of the stream is kept from hyper, which would drop the handler, for as long as the client may
//! be there:
//!
//! - A client whose kernel took bytes after its FIN is there, so every byte that is written and acknowledged gives it the time
//!   [`crate::Timeouts::half_close`] anew. Bytes that are not acknowledged are the kernel's business, which gives up on them
//!   after [`crate::Timeouts::write`].
//! - A client that is owed bytes and has got none for that time counts as gone: hyper is given the end of the stream, and the
//!   handler is dropped.
//! - A reset ends it at once where bytes are written, else at the next look of the sweep.
//!
//! A request that is not whole when the stream ends never will be: that is the end at once.

use std::{cell::Cell, io, time::Duration};

use socket2::SockRef;

use crate::config::Config;
use crate::h1_io::{Order, Phase, Shared};
use crate::os::BorrowedFd;

/// Whether the client has closed its side, and how far the patience with it has come.
#[derive(Default)]
#[repr(C)]
pub(crate) struct HalfClose {
    stage: Cell<Stage>,
    /// The sweep's: bytes that had left when the client last proved that it is there, and when that was.
    seen: Cell<Option<(u64, Duration)>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing of it was read, or it is the end of the connection.
    #[default]
    No,
    /// The end was read, and hyper does not know.
    Kept,
    /// The client counts as gone.
    Over,
}

impl HalfClose {
    /// The end of the stream was read while an answer is due; true when it is kept back.
    pub(crate) fn keep(&self) -> bool {
        if self.stage.get() == Stage::No {
            self.stage.set(Stage::Kept);
        }
        self.is_kept()
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.stage.get() == Stage::Kept
    }

    /// The client counts as gone.
    pub(crate) fn give_up(&self) {
        self.stage.set(Stage::Over);
    }
}

/// The failure of a socket that nobody reads any more. A read would say that the stream has ended, reset or not.
pub(crate) fn failure(socket: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&socket).take_error().unwrap_or_else(Some)
}

/// What a connection is due for whose client has closed its side.
pub(crate) fn due(shared: &Shared, now: Duration, config: &Config) -> Option<Order> {
    let half_close = &shared.half_close;
    if !half_close.is_kept() || !matches!(shared.phase.get(), Phase::Busy | Phase::Idle) {
        return None;
    }
    let under_way = shared.awaits_write.get()
        || config
            .unacknowledged
            .and_then(|ask| ask(shared.descriptor.get()))
            .is_some_and(|bytes| bytes > 0);
    let bytes = shared.bytes_out.get();
    let since = match half_close.seen.get() {
        Some((known, since)) if known == bytes && !under_way => since,
        _ => {
            half_close.seen.set(Some((bytes, now)));
            now
        }
    };
    let is_over = now.saturating_sub(since) >= config.timeouts.half_close && !under_way;
    Some(if is_over { Order::HangUp } else { Order::Look })
}
