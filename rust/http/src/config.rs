//! Everything that is bounded, with the reason for each bound.

use std::{io, os::fd::BorrowedFd, time::Duration};

/// How the server treats connections. One value serves all listeners of a worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bounds on sizes and counts.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Adds `Date` to responses that have none. Default true: RFC 9110, 6.6.1 asks it of a server with a clock.
    pub date_header: bool,
    /// Sets `SO_RCVLOWAT` of a socket. While a large body is read straight into its slot, the reader then wakes once per half
    /// a megabyte and not for every few packets. The system call needs `unsafe`, which this crate forbids, so the caller brings
    /// it. Default `None`: every arrival wakes the reader.
    pub receive_watermark: Option<ReceiveWatermark>,
    /// Has the kernel write bytes of a file to a socket, for responses made with [`crate::sendfile::FileSender`]. The caller
    /// brings the system call, as above. Default `None`: no sender is given out, and files are read like any data.
    pub send_file: Option<SendFile>,
}

/// Sets `SO_RCVLOWAT` of a socket to a number of bytes. Failing changes nothing but the number of wake-ups.
pub type ReceiveWatermark = fn(BorrowedFd<'_>, usize);

/// `sendfile(2)`: socket, file, offset in the file, number of bytes. Returns how many were sent; 0 at the end of the file.
pub type SendFile = fn(BorrowedFd<'_>, BorrowedFd<'_>, u64, usize) -> io::Result<usize>;

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            date_header: true,
            receive_watermark: None,
            send_file: None,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            header_count_max: 100,
            target_bytes_max: 16 * 1024,
            buffer_bytes_max: 64 * 1024,
            linger_bytes_max: 16 * 1024 * 1024,
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
            sweep: Duration::from_millis(250),
            accept_backoff_max: Duration::from_secs(1),
        }
    }
}
