//! WebSocket (RFC 6455): our own codec and session over any byte stream.
//!
//! - [`handshake`]: is the request a valid opening handshake, and which responses answer it.
//! - [`extension`]: which parameters of permessage-deflate are agreed on.
//! - [`deflate`]: messages smaller on their way, and as they were again.
//! - [`frame`]: bytes to parts of messages and back; no input or output of its own.
//! - [`message`]: where payload goes.
//! - [`outbox`]: the write queue.
//! - [`session`]: one open WebSocket: ping, close, limits, and the turn of the one who uses it.
//!
//! Why not a crate: payload must be able to go from the socket straight into memory that the receiver of a message
//! names (a loaned slot of shared memory), and replies to everything that arrived in one read must leave in one write.
//! The crates collect whole frames in buffers of their own and write frame by frame.

pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod outbox;
pub mod session;

use std::fmt;

/// Close codes of RFC 6455, section 7.4.1 and the IANA registry, as far as a server says or reports them.
pub mod code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Reported, never sent: the peer closed without a code.
    pub const NO_STATUS: u16 = 1005;
    /// Reported, never sent: the connection was lost without a closing handshake.
    pub const ABNORMAL: u16 = 1006;
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// A message is larger than the limit.
    pub const TOO_BIG: u16 = 1009;
    /// The server met an error that kept it from going on.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// The server restarts; the client may connect again.
    pub const SERVICE_RESTART: u16 = 1012;

    /// May this code stand in a close frame? 1004 to 1006 and 1015 are reserved for reports, 1016 to 2999 are not
    /// assigned, 3000 to 4999 belong to libraries and applications (RFC 6455, section 7.4.2).
    pub const fn is_sendable(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// The connection has to be failed (RFC 6455, section 7.1.7), and how to say so to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code of the close frame.
    pub code: u16,
    /// The reason of the close frame, at most 123 bytes.
    pub reason: &'static str,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (close code {})", self.reason, self.code)
    }
}

impl std::error::Error for Failure {}
