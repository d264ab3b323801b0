//! The suites of HTTP/1.1 once more, through TLS: their client sees that it is in this program (`common/transport.rs`).
#![allow(
    clippy::duplicate_mod,
    reason = "each suite brings its copy of the client"
)]

#[path = "backpressure.rs"]
mod backpressure;
#[path = "body_time.rs"]
mod body_time;
#[path = "continue.rs"]
mod continue_;
#[path = "disconnect.rs"]
mod disconnect;
#[path = "drain.rs"]
mod drain;
#[path = "early_hints.rs"]
mod early_hints;
#[path = "half_close.rs"]
mod half_close;
#[path = "head_and_no_body.rs"]
mod head_and_no_body;
#[path = "header_timeout.rs"]
mod header_timeout;
#[path = "http10.rs"]
mod http10;
#[path = "idle_timeout.rs"]
mod idle_timeout;
#[path = "keep_alive.rs"]
mod keep_alive;
#[path = "limits.rs"]
mod limits;
#[path = "pipelining.rs"]
mod pipelining;
#[path = "strictness.rs"]
mod strictness;
#[path = "trailers.rs"]
mod trailers;
#[path = "upgrade.rs"]
mod upgrade;
#[path = "write_time.rs"]
mod write_time;
