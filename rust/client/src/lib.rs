//! The WebSocket client of framegate: the codec of `framegate-http`, from the other side. No Python.
//!
//! # Example
//! ```
//! use framegate_client::{Client, Message, Settings};
//!
//! # async fn example() -> Result<(), framegate_client::Error> {
//! let mut client = Client::connect("ws://127.0.0.1:8000/chat", &Settings::default()).await?;
//! client.send(&Message::text("hello")).await?;
//! while let Some(message) = client.receive().await? {
//!     println!("{} bytes", message.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it is made
//! ```text
//!   url, proxy, Settings -> connect (tokio: names, TCP, CONNECT, TLS, upgrade) -> Opened
//!                                                                                 |
//!            waits until the socket is ready, or a time has come:                 v
//!   Client (tokio) | Background (tokio) | poll(2) of a thread | an event loop of Python  -> Socket
//! ```
//! Opening a WebSocket is a sequence of waits, so it is async code. An open one is a state machine, [`Socket`], that never waits:
//! whoever has the time to drive it reads its [`interest`](Socket::interest) and its [`deadline`](Socket::deadline), waits for
//! them in its own way, and calls [`step`](Socket::step). So a thread that waits for a message reads the socket itself and no
//! message crosses a thread, and an event loop needs no helper. Why: `docs/decisions/0010-client.md`.
//!
//! # Cancel safety
//! [`connect`] and all of [`Client`] may be dropped at any point: a connection that is half open is closed, and a message that
//! was not given out is given out next.

mod back_off;
mod background;
mod bell;
mod client;
mod connect;
mod error;
mod handshake;
mod keys;
mod link;
mod proxy;
#[cfg_attr(windows, path = "ready_windows.rs")]
mod ready;
mod settings;
mod socket;
mod url;

pub use back_off::BackOff;
pub use background::{Background, Shared, Stopped, Waiting};
pub use client::Client;
pub use connect::{Opened, connect};
pub use error::{Error, ErrorKind, Response};
pub use proxy::Way;
pub use settings::{Proxy, Settings};
pub use socket::{Closed, Interest, Message, Socket};

pub use framegate_http::tls::{CertificateFiles, ClientTls, Password};
pub use framegate_http::websocket::{Kind, code};
