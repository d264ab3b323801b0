//! The HTTP core of framegate: from accepted sockets to requests, and back. No Python, no C++.
#![forbid(unsafe_code)]

pub mod body;
pub mod service;
pub mod websocket;
