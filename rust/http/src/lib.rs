//! The HTTP core of framegate: from accepted sockets to requests, and back. No Python, no C++.
//!
//! # Example
//! ```
//! use std::rc::Rc;
//! use framegate_http::{Config, Server, body::ResponseBody, service::{Response, service_fn}};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # let local = tokio::task::LocalSet::new();
//! # local.block_on(&runtime, async {
//! let hello = service_fn(|_request| Response::new(ResponseBody::from("hello")).into());
//! let spawn = |task| drop(tokio::task::spawn_local(task));
//! let server = Server::new(hello, Rc::new(Config::default()), spawn);
//! server.listen(std::net::TcpListener::bind("127.0.0.1:0")?)?;
//! // ... until it is time to stop:
//! let cut = server.connections().drain(std::time::Duration::from_secs(30)).await;
//! assert_eq!(cut, 0);
//! # Ok::<(), framegate_http::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Life of a connection
//! An accept loop ([`Server::listen`]) takes a socket and starts one task for it. The task opens a handler
//! ([`service::Service::open`]) and waits for a byte; it holds no parser and no buffers until there is one. Then hyper
//! parses requests, one after the other, and for each complete head:
//!
//! 1. What hyper lets through and must not be served is refused with 400 and a close (`h1`, `framing`).
//! 2. [`service::Handler::call`] gets a [`service::Request`] and answers at once or later. It runs inside hyper's own poll, so it must
//!    not wait; what waits is the future that it returns.
//! 3. The body is read from the socket as the handler polls it. `100 Continue` leaves at the first poll. A large body of declared
//!    length can be read past hyper, straight into the handler's memory (`direct`).
//! 4. The response is written; its body is polled while less than [`Limits::buffer_bytes_max`] waits to be written.
//! 5. What the handler left of the request's body is read and dropped if it is little; else the connection ends, and the response
//!    has said so (`unread`).
//! 6. When the last byte has left, or was given up, the record goes to the [`record::RecordSink`].
//!
//! A connection that has been idle for a while is parked: it waits for a byte again. A `101` ends HTTP on it and runs what
//! the handler left with [`service::Upgrade::accept`]. Time limits and parking are ordered by one sweep over all connections,
//! which runs only while there are any. [`Connections::drain`] ends them all.
//!
//! # Threads
//! Everything here lives on one thread, inside a current-thread tokio runtime with IO and time and a `LocalSet` that the caller
//! drives. All tasks are started through the function given to [`Server::new`]. There is no global state: any number of
//! servers live in one process.
//!
//! # Cancel safety
//! - A client that goes away drops what works for it: the future of [`service::ResponseFuture::Later`], the stream of a
//!   response, the future of an upgrade. Dropping is how they learn of it. One that has left unread bytes behind, such
//!   as a part of its body, is noticed when those are read or when the response is written. One that has closed its side
//!   after a whole request may still be there; see [`Timeouts::half_close`].
//! - [`body::Body::data`] and [`service::Hints::send`] may be dropped at any point; see there.
//! - [`ingest::ingest`] abandons its loan when it is dropped.
//! - Dropping a connection's task closes the socket and gives everything back.
#![forbid(unsafe_code)]

mod accept_encoding;
pub mod access_log;
pub mod admin;
pub mod body;
pub mod compression;
pub mod config;
mod connection;
mod date;
mod direct;
pub mod edge;
pub mod error;
pub mod exposition;
pub mod fanout;
pub mod form;
mod framing;
// Its connections are Unix sockets.
#[cfg(all(unix, any(test, feature = "fuzzing")))]
pub mod fuzz;
mod h1;
mod h1_io;
mod h2;
mod half_close;
pub mod ingest;
mod known_host;
mod listener;
mod log_text;
mod media_type;
mod moved;
mod os;
pub mod otlp;
mod overload;
pub mod pictures;
mod place;
mod protocol;
pub mod record;
mod refusal;
mod registry;
pub mod routes;
mod secrets;
pub mod sendfile;
pub mod service;
mod set_back;
pub mod static_files;
pub mod tls;
pub mod topics;
pub mod trace;
mod unread;
pub mod websocket;
mod wide;

pub use config::{Config, Limits, ReceiveWatermark, SendFile, Timeouts, Unacknowledged};
pub use error::Error;
pub use listener::{Listener, Server, Task};
pub use moved::{Departure, Stay};
pub use protocol::Protocol;
pub use registry::{Connections, Sweep, Swept};
