//! The one error type of this crate.
//!
//! The kinds are private: callers ask `is_*` questions, so that kinds can be added without breaking them. The cause, when there
//! is one, is reachable through [`std::error::Error::source`].

use std::{error::Error as StdError, fmt, io};

type Cause = Box<dyn StdError + Send + Sync>;

/// What went wrong on a connection or while a body was read.
pub struct Error {
    kind: Kind,
    cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The client closed or reset the connection before the message was complete.
    Disconnected,
    /// The client sent bytes that are not HTTP.
    Malformed,
    /// Something is larger than its limit.
    TooLarge,
    /// A deadline passed.
    TimedOut,
    /// An operation on a socket failed.
    Io,
}

impl Error {
    pub(crate) fn with(kind: Kind, cause: impl Into<Cause>) -> Self {
        Self {
            kind,
            cause: Some(cause.into()),
        }
    }

    /// More than a limit allows.
    pub(crate) fn too_large() -> Self {
        Self {
            kind: Kind::TooLarge,
            cause: None,
        }
    }

    /// The rest of the message is not waited for any longer.
    pub(crate) fn too_slow() -> Self {
        Self::with(Kind::Disconnected, "the body of the request took too long")
    }

    pub(crate) fn from_hyper(error: hyper::Error) -> Self {
        let kind = if error.is_parse_too_large() {
            Kind::TooLarge
        } else if error.is_timeout() {
            Kind::TimedOut
        } else if error.is_parse() {
            Kind::Malformed
        } else {
            kind_of_cause(&error)
        };
        Self::with(kind, error)
    }

    pub(crate) fn from_h2(error: h2::Error) -> Self {
        let kind = match error.get_io() {
            Some(error) => kind_of_io(error),
            None if error.is_library() => Kind::Malformed,
            // A reset or the end of the connection, from either side.
            None => Kind::Disconnected,
        };
        Self::with(kind, error)
    }

    /// The client went away before the message was complete.
    pub fn is_disconnected(&self) -> bool {
        self.kind == Kind::Disconnected
    }

    /// The client broke the protocol; nothing here is our fault.
    pub fn is_malformed(&self) -> bool {
        self.kind == Kind::Malformed
    }

    /// A limit was exceeded.
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
    }

    /// A deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::TimedOut
    }

    /// A socket operation failed for a reason other than the client having left.
    pub fn is_io(&self) -> bool {
        self.kind == Kind::Io
    }
}

/// hyper does not tell a peer that left from one that sent rubbish by a question of its own: the cause does.
fn kind_of_cause(error: &hyper::Error) -> Kind {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Kind::Disconnected;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return kind_of_io(io);
        }
        cause = inner.source();
    }
    // `new_body("connection error")`: the connection's task ended, so nothing more can come.
    Kind::Disconnected
}

fn kind_of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Kind::Disconnected,
        // hyper reports a bad chunk size, extension or terminator this way.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Kind::Malformed,
        io::ErrorKind::TimedOut => Kind::TimedOut,
        _ => Kind::Io,
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::with(kind_of_io(&error), error)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Disconnected => {
                "the client closed the connection before the message was complete"
            }
            Kind::Malformed => "the client sent bytes that are not valid HTTP",
            Kind::TooLarge => "the message is larger than its limit",
            Kind::TimedOut => "the deadline passed",
            Kind::Io => "a socket operation failed",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause
            .as_ref()
            .map(|cause| &**cause as &(dyn StdError + 'static))
    }
}
