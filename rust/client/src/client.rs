//! A WebSocket for a task of tokio.

use std::{io, sync::Arc};

use crate::{
    connect::connect,
    error::{Error, ErrorKind},
    ready::Watched,
    settings::Settings,
    socket::{Closed, Message, Socket},
};
use http::HeaderMap;

/// Unsent bytes from which on [`Client::send`] waits.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// A WebSocket for a task of tokio. It answers pings, and notices that the peer is gone, while one of its methods is awaited.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    tcp: Watched,
    subprotocol: Option<String>,
    headers: HeaderMap,
}

impl Client {
    /// Opens a WebSocket.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(url: &str, settings: &Settings) -> Result<Self, Error> {
        let opened = connect(url, settings).await?;
        let tcp = Watched::new(Arc::clone(opened.socket.tcp()));
        let tcp = tcp.map_err(|error| unusable(&error))?;
        Ok(Self {
            socket: opened.socket,
            tcp,
            subprotocol: opened.subprotocol,
            headers: opened.headers,
        })
    }

    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The fields of the server's answer to the handshake.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How the WebSocket ended, once it has.
    pub fn closed(&self) -> Option<&Closed> {
        self.socket.closed()
    }

    /// The next message; `None` after the WebSocket was closed with 1000, 1001 or no code.
    ///
    /// # Errors
    /// It ended otherwise.
    pub async fn receive(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(message) = self.socket.take() {
                return Ok(Some(message));
            }
            if let Some(closed) = self.socket.closed() {
                return match closed {
                    Closed {
                        clean: true,
                        // Without a code, too: nothing says that something went wrong.
                        code: 1000 | 1001 | 1005,
                        ..
                    } => Ok(None),
                    closed => Err(Error::of_closed(closed)),
                };
            }
            self.turn().await;
        }
    }

    /// Sends a message, and waits while much is unsent.
    ///
    /// # Errors
    /// The WebSocket is closed, or closes.
    pub async fn send(&mut self, message: &Message) -> Result<(), Error> {
        self.socket.send(message.kind, &message.payload)?;
        while self.socket.unsent() > UNSENT_BYTES_MAX {
            if let Some(closed) = self.socket.closed() {
                return Err(Error::of_closed(closed));
            }
            self.turn().await;
        }
        Ok(())
    }

    /// Closes the WebSocket, and waits until the server has as well.
    ///
    /// # Errors
    /// The code may not be sent, or the reason is too long.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), Error> {
        self.socket.close(code, reason)?;
        while !self.socket.is_done() {
            self.turn().await;
        }
        Ok(())
    }

    /// Waits until something can be done, and does it.
    async fn turn(&mut self) {
        if self.socket.is_ready() {
            self.socket.step();
            return;
        }
        let (interest, deadline) = (self.socket.interest(), self.socket.deadline());
        self.tcp
            .wait(interest, deadline)
            .await
            .step(&mut self.socket);
    }
}

fn unusable(error: &io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, "the socket cannot be used").because(error)
}
