//! The HTTP core of framegate: from accepted sockets to requests, and back. No Python, no C++.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod body;
pub mod config;
mod connection;
pub mod error;
mod framing;
mod h1;
mod h1_io;
pub mod ingest;
mod listener;
pub mod record;
mod registry;
pub mod routes;
pub mod service;

pub use config::{Config, Limits, Timeouts};
pub use error::Error;
pub use listener::{Listener, Server, Task};
pub use registry::Connections;
