//! The suites of HTTP/1.1 once more, through TLS: their client sees that it is in this program (`common/transport.rs`).

mod common;

mod backpressure;
mod body_time;
#[path = "continue.rs"]
mod continue_;
mod disconnect;
mod drain;
mod early_hints;
mod half_close;
mod head_and_no_body;
mod header_timeout;
mod http10;
mod idle_timeout;
mod keep_alive;
mod limits;
mod pipelining;
mod strictness;
mod trailers;
mod unread_body;
mod upgrade;
mod write_time;
