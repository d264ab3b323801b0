//! How to connect.

use std::time::Duration;

use framegate_http::tls::ClientTls;

/// How to connect, and the limits of the connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fields of the request beside those of the handshake.
    pub headers: Vec<(String, String)>,
    /// Subprotocols that are offered, the preferred one first.
    pub subprotocols: Vec<String>,
    /// What the request says of who sends it; `None`: nothing.
    pub user_agent: Option<String>,
    /// Whether permessage-deflate is offered.
    pub compression: bool,
    /// Smaller messages leave as they are even then.
    pub compression_bytes_min: usize,
    /// Whom to trust, for `wss`.
    pub tls: ClientTls,
    /// Whether to go through a proxy.
    pub proxy: Proxy,
    /// How long all of opening may take: names, connection, proxy, TLS and handshake. `None` waits for ever.
    pub open_timeout: Option<Duration>,
    /// How long the server's answer to a close frame is awaited, and again how long until it ends the connection.
    pub close_timeout: Duration,
    /// Silence of the server after which it gets a ping. `None` never asks.
    pub ping_interval: Option<Duration>,
    /// Further silence after which the connection counts as lost. `None` waits for ever.
    pub ping_timeout: Option<Duration>,
    /// The largest message that is accepted.
    pub message_bytes_max: u64,
}

/// Whether to go through a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// As `HTTP_PROXY` (for `ws`), `HTTPS_PROXY` (for `wss`), `ALL_PROXY` and `NO_PROXY` say, in capitals or not.
    #[default]
    Environment,
    /// Straight to the server.
    Off,
    /// Through this one: `http://user:password@host:port`.
    Url(String),
}

impl Default for Settings {
    /// The times are those of servers (`framegate_http::websocket::session::Settings`) and of the `websockets` package, and so
    /// is 16 MiB: a limit for messages that are kept in memory. 64 bytes: deflate has a header, and a packet is a packet.
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            subprotocols: Vec::new(),
            user_agent: Some("framegate".to_owned()),
            compression: true,
            compression_bytes_min: 64,
            tls: ClientTls::default(),
            proxy: Proxy::default(),
            open_timeout: Some(Duration::from_secs(10)),
            close_timeout: Duration::from_secs(10),
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(20)),
            message_bytes_max: 16 * 1024 * 1024,
        }
    }
}
