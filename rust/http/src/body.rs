//! Bodies: of requests ([`Body`], one type whatever the protocol) and of responses ([`ResponseBody`]).

use std::pin::Pin;

use bytes::Bytes;

/// Body of a request.
pub struct Body {}

/// Body of a response.
pub enum ResponseBody {
    /// No body.
    Empty,
    /// The whole body.
    Full(Bytes),
    /// A body that comes in pieces; an error aborts the connection so that the client sees a truncated response.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Aborted>>>),
}

/// The response cannot be completed.
#[derive(Debug)]
pub struct Aborted;
