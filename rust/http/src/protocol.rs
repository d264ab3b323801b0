//! Which HTTP a connection speaks: told beforehand (TLS has agreed on it, or the server is set to one), or read from its
//! first bytes.
//!
//! A client of HTTP/2 that knows what it talks to begins with a preface of 24 bytes that no request of HTTP/1 begins with
//! (RFC 9113, 3.4). The first byte that differs decides, so a request of HTTP/1 waits for nothing. What was read is read again
//! by whoever serves the connection; a request that arrives in one piece still costs one read.

use std::{future::poll_fn, mem, pin::Pin, task::Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::h1_io::{Order, Shared, SocketIo};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The first bytes tell.
    #[default]
    Sniff,
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// RFC 9113, 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of one read: as many as a request of HTTP/1 usually has.
const READ_BYTES: usize = 4096;

/// What the bytes say; `None` while they may be the beginning of the preface.
fn decide(bytes: &[u8]) -> Option<Protocol> {
    let length = bytes.len().min(PREFACE.len());
    if bytes[..length] != PREFACE[..length] {
        Some(Protocol::Http1)
    } else if length == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

/// Reads until it is certain what the client speaks. `None` when the connection is to be closed instead.
pub(crate) async fn sniff(io: &mut SocketIo, shared: &Shared) -> Option<Protocol> {
    let mut seen = BytesMut::new();
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        // No request has begun: whatever was read is part of a preface at most.
        if shared.is_draining() || shared.order.take() == Some(Order::Close) {
            return Poll::Ready(None);
        }
        loop {
            // On the stack, and only while the task runs: an array that lived across an await would be part of every connection.
            let mut scratch = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut scratch);
            let Poll::Ready(read) = Pin::new(&mut *io).poll_read(cx, &mut buffer) else {
                // Nothing is held yet. tokio may call a fresh socket readable that is not.
                shared.parked.set(seen.is_empty());
                return Poll::Pending;
            };
            shared.parked.set(false);
            let bytes = buffer.filled();
            // Whoever serves HTTP/1 meets the end, or the failure, again.
            let ended = read.is_err() || bytes.is_empty();
            let first = seen.is_empty();
            let decided = if first {
                decide(bytes)
            } else {
                seen.extend_from_slice(bytes);
                decide(&seen)
            };
            let protocol = match decided {
                Some(protocol) => protocol,
                None if ended => Protocol::Http1,
                None => {
                    if first {
                        seen.extend_from_slice(bytes);
                    }
                    continue;
                }
            };
            io.rewind(if first {
                Bytes::copy_from_slice(bytes)
            } else {
                mem::take(&mut seen).freeze()
            });
            return Poll::Ready(Some(protocol));
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, Protocol, decide};

    #[test]
    fn first_byte_that_differs_decides() {
        for length in 0..PREFACE.len() {
            assert_eq!(decide(&PREFACE[..length]), None, "{length} bytes");
            let mut other = PREFACE[..=length].to_vec();
            other[length] ^= 1;
            assert_eq!(decide(&other), Some(Protocol::Http1), "byte {length}");
        }
        assert_eq!(decide(PREFACE), Some(Protocol::Http2));
        assert_eq!(
            decide(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"),
            Some(Protocol::Http2)
        );
        for request in ["G", "POST / HTTP/1.1", "PROPFIND", "PRI * HTTP/1.1\r\n"] {
            assert_eq!(
                decide(request.as_bytes()),
                Some(Protocol::Http1),
                "{request}"
            );
        }
    }
}
