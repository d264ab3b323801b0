//! Why there is no WebSocket, or not any more.

use std::{error::Error as StdError, fmt};

use http::{HeaderMap, StatusCode};

use crate::socket::Closed;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An address, a header or an option that cannot be used.
    Argument,
    /// The name of the host is not known, or nothing answers there.
    Unreachable,
    /// The proxy did not open a way.
    Proxy,
    /// TLS: a file, a certificate, or the handshake.
    Tls,
    /// A time limit was reached.
    Timeout,
    /// The server answered, but with something other than a WebSocket; see [`Error::response`].
    Refused,
    /// The peer broke the rules of the protocol while the WebSocket was opened.
    Protocol,
    /// The WebSocket is closed; see [`Error::closed`].
    Closed,
}

/// What a server answered in place of a WebSocket.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// The beginning of its body, at most 64 KiB.
    pub body: Vec<u8>,
}

/// An error of the client.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    problem: String,
    cause: Option<String>,
    fix: Option<String>,
    response: Option<Box<Response>>,
    closed: Option<Box<Closed>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, problem: impl Into<String>) -> Self {
        Self {
            kind,
            problem: problem.into(),
            cause: None,
            fix: None,
            response: None,
            closed: None,
        }
    }

    pub(crate) fn argument(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, problem)
    }

    pub(crate) fn of_response(problem: impl Into<String>, response: Response) -> Self {
        Self {
            response: Some(Box::new(response)),
            ..Self::new(ErrorKind::Refused, problem)
        }
    }

    /// The answer was that of a proxy.
    pub(crate) fn of_proxy(self) -> Self {
        Self {
            kind: ErrorKind::Proxy,
            ..self
        }
    }

    /// The WebSocket is closed, in this way.
    pub fn of_closed(closed: &Closed) -> Self {
        Self {
            closed: Some(Box::new(closed.clone())),
            ..Self::new(ErrorKind::Closed, closed.to_string())
        }
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong and where, in one line.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Why, if that is known and not obvious.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// What can be done about it.
    pub fn remedy(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// What the server, or the proxy, answered.
    pub fn response(&self) -> Option<&Response> {
        self.response.as_deref()
    }

    /// How the WebSocket ended.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_deref()
    }

    /// May the same attempt succeed later? Not where a file, an address or a certificate is wrong, and not where the server says
    /// that the request is.
    pub fn is_passing(&self) -> bool {
        match self.kind {
            ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Closed => true,
            ErrorKind::Argument | ErrorKind::Tls | ErrorKind::Protocol => false,
            // A proxy that answers nothing at all may be restarting, as the server may.
            ErrorKind::Proxy | ErrorKind::Refused => self.response.as_ref().is_none_or(|it| {
                it.status.is_server_error()
                    || [
                        StatusCode::REQUEST_TIMEOUT,
                        StatusCode::TOO_EARLY,
                        StatusCode::TOO_MANY_REQUESTS,
                    ]
                    .contains(&it.status)
            }),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "; {fix}")?;
        }
        Ok(())
    }
}

impl StdError for Error {}
