//! Everything that is bounded, with the reason for each bound.
//!
//! `docs/reference/limits.md` is made from this file (`docs/reference/limits.py`): each field of [`Limits`] and [`Timeouts`] says
//! what it bounds, and then, as a list, what happens beyond it (*over it*), what of that is different over HTTP/2 (*over HTTP/2*),
//! why the default is what it is (*reason*), and which tests show both sides of it (*tests*). Its default stands in `Default`.

use std::{fs::File, io, time::Duration};

use crate::edge;
use crate::os::{BorrowedFd, RawFd};
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
    /// Sets `SO_RCVLOWAT` of a socket. While a large body is read straight into its slot, the reader then wakes once per half
    /// a megabyte and not for every few packets. The system call needs `unsafe`, which this crate forbids, so the caller brings
    /// it. Default `None`: every arrival wakes the reader.
    pub receive_watermark: Option<ReceiveWatermark>,
    /// Has the kernel write bytes of a file to a socket, for responses made with [`crate::sendfile::FileSender`]. The caller
    /// brings the system call, as above. Default `None`: no sender is given out, and files are read like any data.
    pub send_file: Option<SendFile>,
    /// Tells how much of what was written to a socket is on its way (`SIOCOUTQ`), for [`Timeouts::write`]: the kernel lets a
    /// writer go on only when a third of its buffer is free, which a slow reader may take minutes for. Default `None`: only
    /// writes count as progress.
    pub unacknowledged: Option<Unacknowledged>,
    /// Sets `TCP_NOTSENT_LOWAT` of a socket, for large answers to clients that keep up (`wide.rs`). The caller brings the system
    /// call, as above. Default `None`: it stays as it is.
    pub unsent_watermark: Option<UnsentWatermark>,
    /// Gives free memory of the calling thread back to the kernel. Called by the sweep when connections have fallen silent or
    /// were closed, many at a time: what they needed while they were busy is free then. Default `None`: the allocator does as it
    /// likes.
    pub give_back: Option<fn()>,
    /// What proxies may say, and what every request gets on its way in. Default: nobody is believed, and nothing else is done.
    pub edge: edge::Settings,
}

/// Sets `SO_RCVLOWAT` of a socket to a number of bytes. Failing changes nothing but the number of wake-ups.
pub type ReceiveWatermark = fn(BorrowedFd<'_>, usize);

/// `sendfile(2)`: socket, file, offset in the file, number of bytes. Returns how many were sent; 0 at the end of the file.
pub type SendFile = fn(BorrowedFd<'_>, &File, u64, usize) -> io::Result<usize>;

/// Bytes that were written to a socket and that its peer has not acknowledged, if that is known.
pub type Unacknowledged = fn(RawFd) -> Option<u64>;

/// Sets `TCP_NOTSENT_LOWAT` of a socket to a number of bytes, if it is a TCP socket. Failing changes nothing but the number of
/// wake-ups.
pub type UnsentWatermark = fn(RawFd, u32);

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            date_header: true,
            protocol: Protocol::default(),
            receive_watermark: None,
            send_file: None,
            unacknowledged: None,
            unsent_watermark: None,
            give_back: None,
            edge: edge::Settings::default(),
        }
    }
}

/// Bounds on sizes and counts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head, and of its trailers.
    ///
    /// - over it: 431; trailers 400
    /// - over HTTP/2: 431; the end of the connection when a head has 1.25 times as many frames; of trailers, what is beyond it is
    ///   dropped
    /// - reason: cookies of single sign-on reach 16 KiB, and proxies add theirs
    /// - tests: `head_over_its_bytes_is_431`, `trailers_over_the_head_limit_are_refused`, `header_list_over_the_limit_is_431`,
    ///   `trailers_over_the_limit_are_not_kept`
    pub head_bytes_max: usize,
    /// Header fields of a request.
    ///
    /// - over it: 431
    /// - over HTTP/2: the same
    /// - reason: browsers send about 20, most servers take 100; above 100 the parser has to allocate
    /// - tests: `header_count_over_its_limit_is_431`, `heads_that_must_not_be_served_are_refused`
    pub header_count_max: usize,
    /// Bytes of a request's target.
    ///
    /// - over it: 414
    /// - over HTTP/2: the same
    /// - reason: browsers and proxies stop at 8 KiB
    /// - tests: `target_over_its_bytes_is_414`, `heads_that_must_not_be_served_are_refused`
    pub target_bytes_max: usize,
    /// Bytes of a request's body.
    ///
    /// - over it: 413: at once for a declared length, when the bytes have come for a chunked body; once the response has begun,
    ///   reading the body fails and the connection ends after the response
    /// - over HTTP/2: the same, for the stream alone: a response that has begun goes on, and the connection lives on
    /// - reason: unlimited, because a body is streamed and its memory bounded whatever its size; what an application may take is
    ///   for whoever deploys it to say
    /// - tests: `declared_body_over_the_limit_is_413_before_a_byte_is_read`, `chunked_body_over_the_limit_is_413_on_the_way`,
    ///   `body_over_the_limit_is_413`
    pub body_bytes_max: Option<u64>,
    /// Bytes per second that a body must bring on average over [`Timeouts::body`], while the server waits for them.
    ///
    /// - over it: as for the body's time
    /// - over HTTP/2: the same, of each stream
    /// - reason: off, so that any byte counts as progress: clients that stream events send little, and long pauses between them
    /// - tests: `dripping_body_is_408_only_below_the_rate`, `dripping_body_of_a_stream_is_408_only_below_the_rate`
    pub body_rate_min: u64,
    /// Bytes that are read ahead for one connection, and bytes of its responses that may wait to be written before the
    /// response body is not polled any more. At least 8 KiB (hyper's floor), and never less than `head_bytes_max`.
    ///
    /// - over it: the client has to wait; nothing is lost
    /// - over HTTP/2: bytes of responses only, and of `103`; what is read ahead is bounded by the windows
    /// - reason: with a round trip of 1 ms it is 64 MB/s per connection on top of what the kernel buffers
    /// - tests: `socket_is_not_read_while_the_handler_does_not_poll`, `response_is_not_polled_while_the_peer_does_not_read`,
    ///   `hints_over_http2_wait_for_a_client_that_does_not_read`
    pub buffer_bytes_max: usize,
    /// Connections at a time, of one worker.
    ///
    /// - over it: 503 with `Retry-After: 1` to the first request, then a close
    /// - over HTTP/2: the same: 503 to what was asked at first, and `GOAWAY`
    /// - reason: unlimited, because an idle connection costs a few KiB; the number of open files bounds them, and then new ones
    ///   wait in the kernel's queue
    /// - tests: `connection_over_the_limit_is_503_and_the_next_one_is_served`,
    ///   `connection_over_the_limit_is_503_and_goes_away`
    pub connections_max: Option<usize>,
    /// Requests on one connection.
    ///
    /// - over it: the last response says `Connection: close`
    /// - over HTTP/2: `GOAWAY` with the last request that is served
    /// - reason: unlimited, because a connection holds nothing of its earlier requests; a limit spreads long-lived connections over
    ///   the workers again
    /// - tests: `last_request_of_a_connection_is_answered_with_a_close`, `connection_that_has_had_its_requests_goes_away`
    pub connection_requests_max: Option<u64>,
    /// Bytes of a request's body that are still to come when a response is there whose handler does not read them. They are read
    /// and dropped, and the connection lives on.
    ///
    /// - over it: the response says `Connection: close`, and the connection ends; so it does where the length is not known
    /// - over HTTP/2: the client is told to stop (`NO_ERROR`), and the connection lives on
    /// - reason: less than a new connection costs, with TLS and the start of its window; most of it is under way
    ///   by then, in the client's first window
    /// - tests: `rest_of_a_body_within_the_limit_is_dropped_and_the_next_request_served`,
    ///   `response_before_more_than_the_limit_says_that_it_is_the_last`
    pub unread_bytes_max: u64,
    /// Bytes that are read and dropped after the last response of a connection that the server closes. A close with unread
    /// bytes makes the kernel send a reset, which can destroy a response that is still under way.
    ///
    /// - over it: close
    /// - over HTTP/2: the same, after a connection's last `GOAWAY`
    /// - reason: a client that sends a camera frame to a `413` gets its answer
    /// - tests: `response_to_an_unread_large_body_arrives_before_the_close`, `lingering_is_bounded_in_bytes`
    pub linger_bytes_max: u64,
    /// Requests at once on a connection of HTTP/2.
    ///
    /// - over it: `REFUSED_STREAM`, which clients repeat
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: browsers use up to 100, and each costs a call of the handler
    /// - tests: `test_http2_max_concurrent_streams`, `test_h2spec`
    pub streams_max: u32,
    /// Handlers at once on a connection of HTTP/2, also those whose stream was reset and that have not ended.
    ///
    /// - over it: `REFUSED_STREAM`
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: twice the streams, so that a client that gives up on all of them may ask for as many others
    /// - tests: `handlers_that_outlive_their_stream_count`
    pub handlers_max: usize,
    /// Bytes of one request's body that a client of HTTP/2 may send ahead of the handler.
    ///
    /// - over it: `FLOW_CONTROL_ERROR`; who keeps to the protocol waits
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: with a round trip of 10 ms that is 25 MB/s for one upload
    /// - tests: `test_window_opens_as_the_application_takes_the_body`, `test_http2_initial_stream_window_size`
    pub stream_window_bytes: u32,
    /// The same for all requests of a connection together.
    ///
    /// - over it: `FLOW_CONTROL_ERROR`; who keeps to the protocol waits
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: four uploads at full speed; it bounds the memory of their bodies
    /// - tests: `test_http2_initial_connection_window_size`
    pub connection_window_bytes: u32,
    /// TLS handshakes that are under way at a time, of one worker. 0: any number.
    ///
    /// - over it: connections wait in the kernel's queue, and handshakes that have lasted for a second are ended
    /// - over HTTP/2: the same: the protocol is agreed on in the handshake
    /// - reason: each costs up to some milliseconds of the thread and about 10 KiB; no burst of them holds up requests for long
    /// - tests: `handshakes_that_stand_still_make_room_when_others_wait`, `handshake_that_takes_too_long_is_ended`
    pub handshakes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            header_count_max: 100,
            target_bytes_max: 16 * 1024,
            body_bytes_max: None,
            body_rate_min: 0,
            buffer_bytes_max: 64 * 1024,
            connections_max: None,
            connection_requests_max: None,
            unread_bytes_max: 64 * 1024,
            linger_bytes_max: 16 * 1024 * 1024,
            streams_max: 128,
            handlers_max: 256,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            handshakes_max: 512,
        }
    }
}

/// Bounds on time. They are checked by one sweep over all connections, so each may end up to two `sweep` late, and later by
/// as much as the thread was blocked.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From accept, or from the first byte of a later request, to the end of the head.
    ///
    /// - over it: 408 when a part of the head has come, then a close
    /// - over HTTP/2: from accept to the end of the preface, and from the first byte of a head's frames to their last: the
    ///   connection ends, since nothing else may come before the rest of a head
    /// - reason: a slow phone needs 2 s; a client that drips bytes (slowloris) gets no more than this
    /// - tests: `dripping_head_is_408`, `slow_body_and_slow_handler_are_not_bound_by_it`,
    ///   `head_that_stands_still_ends_the_connection`
    pub head: Duration,
    /// From accept to the end of the TLS handshake.
    ///
    /// - over it: close
    /// - over HTTP/2: the same
    /// - reason: it takes two round trips, on a bad phone network a second each, with some packets lost
    /// - tests: `handshake_that_takes_too_long_is_ended`, `request_and_response_end_with_close_notify`
    pub handshake: Duration,
    /// From one byte of a body to the next, while the server waits for them. A handler that does not read is not the client's
    /// fault, so its time does not count.
    ///
    /// - over it: 408 when the response has not begun, else the connection is cut
    /// - over HTTP/2: each stream has its own time, and the connection lives on: 408 when the response has not begun, else a
    ///   reset with `CANCEL`. No body is late while the connection's window has no room, because handlers of others do not read
    /// - reason: as long as in nginx; a phone that changes its network needs 30 s
    /// - tests: `stalled_body_is_408`, `handler_that_does_not_read_is_not_the_clients_fault`,
    ///   `stalled_body_of_a_stream_is_408_and_the_connection_lives_on`, `each_byte_of_a_streams_body_starts_its_time_anew`,
    ///   `body_that_finds_no_room_is_not_the_clients_fault`
    pub body: Duration,
    /// Without progress of a client that does not read, while bytes wait to be written to it. What the peer's kernel has taken
    /// counts as progress. Our kernel has the same time to hand on what it has taken from us (`TCP_USER_TIMEOUT`), also when the
    /// connection is closed on our side.
    ///
    /// - over it: the connection is cut with a reset, and the handler learns that the client is gone
    /// - over HTTP/2: a stream whose window is not opened is reset with `CANCEL`; a connection whose window is not opened, or
    ///   whose socket takes nothing, ends
    /// - reason: a reader that takes nothing for so long is gone, or holds memory on purpose
    /// - tests: `reader_that_takes_nothing_is_cut`, `slow_reader_is_served_to_the_end`,
    ///   `kernel_forgets_what_nobody_takes_after_the_close`, `stream_whose_window_is_never_opened_is_reset`,
    ///   `connection_whose_window_is_never_opened_is_ended`, `windows_that_are_opened_slowly_are_enough`
    pub write: Duration,
    /// Silence towards a client that has closed its side of the connection after a whole request, while its response is due or
    /// under way. Such a client may still read, or may be gone: only bytes that its kernel takes tell that it is there, and each
    /// of them begins this time anew.
    ///
    /// - over it: the client counts as gone, and the handler learns that
    /// - over HTTP/2: the end of the connection is the end of its streams, at once: a stream has an end of its own
    /// - reason: longer than most handlers take to answer tools that half-close, and short enough that little is done for a client
    ///   that has left
    /// - tests: `half_closed_client_gets_its_answer`, `half_closed_client_counts_as_gone_when_its_time_is_over`
    pub half_close: Duration,
    /// A kept-alive connection without a request.
    ///
    /// - over it: close
    /// - over HTTP/2: `GOAWAY`, then a close; idle is a connection without an open response and without a body that is read
    /// - reason: longer than the 60 s of the usual proxies, because a server that closes first answers some requests with a reset
    ///   (seen as random 502)
    /// - tests: `idle_connection_is_closed`, `each_request_starts_the_time_anew`, `idle_connection_is_told_to_go_and_closed`,
    ///   `connection_whose_body_is_still_read_is_not_idle`
    pub idle: Duration,
    /// An idle connection is parked after this long: its parser and buffers are given back until the next byte. `None` never
    /// parks.
    ///
    /// - over it: nothing that a client could see
    /// - over HTTP/2: never parked: the tables of header compression have to stay
    /// - reason: longer than the gap between the requests of a busy client
    /// - tests: `idle_connection_is_parked_and_serves_on`, `busy_connection_is_not_parked`
    pub park_after: Option<Duration>,
    /// How long the server reads and drops after the last response; see [`Limits::linger_bytes_max`].
    ///
    /// - over it: close
    /// - over HTTP/2: the same, after a connection's last `GOAWAY`
    /// - reason: ten round trips of a bad network; a client that goes on sending has stopped listening
    /// - tests: `client_that_sends_on_and_never_reads_the_refusal_is_cut`
    pub linger: Duration,
    /// Silence of a client of HTTP/2 that waits for a response, before it is asked whether it is there (`PING`). `None` never asks.
    ///
    /// - over it: `PING`
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: a response that waits for an event may be silent for hours, and a client that has lost its network says nothing
    /// - tests: `client_that_is_silent_while_it_waits_is_asked_and_cut`
    pub ping_after: Option<Duration>,
    /// From that question to whatever comes next.
    ///
    /// - over it: the connection is cut
    /// - over HTTP/2: it is over HTTP/2
    /// - reason: longer than the outages that TCP survives without anybody noticing
    /// - tests: `client_that_is_silent_while_it_waits_is_asked_and_cut`
    pub ping_answer: Duration,
    /// Period of the sweep.
    ///
    /// - over it: limits of time are up to two periods late
    /// - over HTTP/2: the same
    /// - reason: four wake-ups a second, and only while connections exist
    /// - tests: `connections_are_closed_when_their_time_is_over_and_not_before`
    pub sweep: Duration,
    /// Longest pause of the accept loop after an error such as "too many open files". It starts at 10 ms and doubles.
    ///
    /// - over it: the pause grows no further
    /// - over HTTP/2: the same
    /// - reason: neither spins nor leaves clients waiting long after a descriptor is free
    /// - tests: `lasting_errors_neither_spin_nor_end_the_loop`
    pub accept_backoff_max: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            body: Duration::from_secs(60),
            write: Duration::from_secs(30),
            half_close: Duration::from_secs(1),
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
