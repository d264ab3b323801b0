//! The HTTP core of framegate: from accepted sockets to requests, and back. No Python, no C++.
#![forbid(unsafe_code)]

pub mod body;
pub mod error;
mod h1_io;
pub mod ingest;
pub mod record;
pub mod service;
pub mod websocket;

pub use error::Error;
