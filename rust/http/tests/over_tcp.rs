//! All suites over plain sockets, in one program: linking is what tests take longest for.

mod common;
mod websocket_peer;

mod backpressure;
mod body_time;
#[path = "continue.rs"]
mod continue_;
mod direct_read;
mod disconnect;
mod drain;
mod early_hints;
mod half_close;
mod head_and_no_body;
mod header_timeout;
mod http10;
mod http2;
mod http2_hints;
mod http2_shrunk_window;
mod http2_time;
mod idle_timeout;
mod ingest;
mod keep_alive;
mod limits;
mod parking;
mod pipelining;
mod record;
#[cfg(target_os = "linux")]
mod sendfile;
mod strictness;
mod tls;
mod topics;
mod trailers;
mod unread_body;
mod unsent;
mod upgrade;
mod websocket_deflate;
mod websocket_frame;
mod websocket_http2;
mod websocket_session;
mod write_time;
