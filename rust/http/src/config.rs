//! Everything that is bounded, with the reason for each bound.

use std::{os::fd::BorrowedFd, time::Duration};

use crate::h2::SendWatermark;
use crate::protocol::Protocol;

/// How the server treats connections. One value serves all listeners of a worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bounds on sizes and counts.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Adds `Date` to responses that have none. Default true: RFC 9110, 6.6.1 asks it of a server with a clock.
    pub date_header: bool,
    /// What is spoken where nothing else says so. Default [`Protocol::Sniff`]: the first bytes of a connection tell.
    pub protocol: Protocol,
    /// Sets `TCP_NOTSENT_LOWAT` of a socket that speaks HTTP/2: what waits in the kernel cannot be overtaken by a response of
    /// higher priority. Brought by the caller for the same reason as the next one. Default `None`: the kernel takes megabytes.
    pub send_watermark: Option<SendWatermark>,
    /// Sets `SO_RCVLOWAT` of a socket. While a large body is read straight into its slot, the reader then wakes once per half
    /// a megabyte and not for every few packets. The system call needs `unsafe`, which this crate forbids, so the caller brings
    /// it. Default `None`: every arrival wakes the reader.
    pub receive_watermark: Option<ReceiveWatermark>,
}

/// Sets `SO_RCVLOWAT` of a socket to a number of bytes. Failing changes nothing but the number of wake-ups.
pub type ReceiveWatermark = fn(BorrowedFd<'_>, usize);

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            date_header: true,
            protocol: Protocol::default(),
            send_watermark: None,
            receive_watermark: None,
        }
    }
}

/// Bounds on sizes and counts. What is over a bound is refused with the status named beside it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head, and of its trailers; above: 431. Default 64 KiB: cookies of single sign-on reach 16 KiB, and
    /// proxies add theirs.
    pub head_bytes_max: usize,
    /// Header fields of a request; above: 431. Default 100, as in most servers; browsers send about 20. Above 100 the parser
    /// has to allocate.
    pub header_count_max: usize,
    /// Bytes of a request's target; above: 414. Default 16 KiB: browsers and proxies stop at 8 KiB.
    pub target_bytes_max: usize,
    /// Bytes that are read ahead for one connection, and bytes of its responses that may wait to be written before the
    /// response body is not polled any more. Default 64 KiB: with a round trip of 1 ms that is 64 MB/s per connection on
    /// top of what the kernel buffers. At least 8 KiB (hyper's floor), and never less than `head_bytes_max`.
    pub buffer_bytes_max: usize,
    /// Bytes that are read and dropped after the last response of a connection that the server closes. A close with unread
    /// bytes makes the kernel send a reset, which can destroy a response that is still under way. Default 16 MiB: a client
    /// that sends a camera frame to a `413` gets its answer.
    pub linger_bytes_max: u64,
    /// Requests at once on a connection of HTTP/2; above: `REFUSED_STREAM`. Default 128: browsers use up to 100, and each costs
    /// a call of the handler.
    pub streams_max: u32,
    /// Handlers at once on a connection of HTTP/2, also those whose stream was reset and that have not ended; above:
    /// `REFUSED_STREAM`, which clients repeat. Default 256: twice the streams, so that a client that gives up on all of them
    /// may ask for as many others.
    pub handlers_max: usize,
    /// Bytes of one request's body that a client of HTTP/2 may send ahead of the handler. Default 256 KiB: with a round trip of
    /// 10 ms that is 25 MB/s for one upload.
    pub stream_window_bytes: u32,
    /// The same for all requests of a connection together; it bounds the memory of their bodies. Default 1 MiB.
    pub connection_window_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            header_count_max: 100,
            target_bytes_max: 16 * 1024,
            buffer_bytes_max: 64 * 1024,
            linger_bytes_max: 16 * 1024 * 1024,
            streams_max: 128,
            handlers_max: 256,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
        }
    }
}

/// Bounds on time. They are checked by one sweep over all connections, so each may end up to two `sweep` late, and later by
/// as much as the thread was blocked.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From accept, or from the first byte of a later request, to the end of the head. Default 10 s: a slow phone needs 2 s;
    /// a client that drips bytes (slowloris) gets no more than this.
    pub head: Duration,
    /// A kept-alive connection without a request. Default 75 s: longer than the 60 s of the usual proxies, because a server that
    /// closes first answers some requests with a reset (seen as random 502).
    pub idle: Duration,
    /// An idle connection is parked after this long: its parser and buffers are given back until the next byte. Default
    /// 0.5 s: longer than the gap between the requests of a busy client. `None` never parks.
    pub park_after: Option<Duration>,
    /// How long the server reads and drops after the last response; see [`Limits::linger_bytes_max`]. Default 2 s.
    pub linger: Duration,
    /// A connection of HTTP/2 with open streams on which nothing has come for so long is asked whether its client is still there
    /// (`PING`). Default 20 s: a response that waits for an event may be silent for hours, and a client that has lost its
    /// network says nothing. `None` never asks.
    pub ping_after: Option<Duration>,
    /// From the question to the end of the connection, when nothing comes. Default 20 s: the longest outage that TCP survives
    /// without anybody noticing.
    pub ping_answer: Duration,
    /// Period of the sweep. Default 250 ms: four wake-ups a second, and only while connections exist.
    pub sweep: Duration,
    /// Longest pause of the accept loop after an error such as "too many open files". Default 1 s; it starts at 10 ms and
    /// doubles.
    pub accept_backoff_max: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            park_after: Some(Duration::from_millis(500)),
            linger: Duration::from_secs(2),
            ping_after: Some(Duration::from_secs(20)),
            ping_answer: Duration::from_secs(20),
            sweep: Duration::from_millis(250),
            accept_backoff_max: Duration::from_secs(1),
        }
    }
}
