//! The stream under an open WebSocket: a socket that never blocks, perhaps with TLS on it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use rustls::ClientConnection;

/// A stream that never blocks.
pub(crate) struct Link {
    /// Shared with who waits for it; only we read and write.
    tcp: Arc<TcpStream>,
    tls: Option<Box<Tls>>,
}

struct Tls {
    connection: ClientConnection,
    /// Decrypted bytes that nobody has read: no readiness of the socket tells of them.
    decrypted: usize,
}

impl Link {
    /// A link over a socket that does not block.
    pub(crate) fn new(tcp: TcpStream, tls: Option<ClientConnection>) -> Self {
        let tls = tls.map(|connection| {
            Box::new(Tls {
                connection,
                // Unknown; a first look costs nothing.
                decrypted: 1,
            })
        });
        Self {
            tcp: Arc::new(tcp),
            tls,
        }
    }

    /// What to wait on.
    pub(crate) fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// Can be read without the socket being ready.
    pub(crate) fn has_decrypted(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.decrypted > 0)
    }

    /// Written bytes wait inside of TLS.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.connection.wants_write())
    }

    /// Reads what is there; 0 at the end of the stream.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return retry(|| (&*self.tcp).read(space));
        };
        loop {
            if tls.decrypted > 0 {
                match tls.connection.reader().read(space) {
                    Ok(count) => {
                        tls.decrypted = tls.decrypted.saturating_sub(count);
                        return Ok(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tls.decrypted = 0,
                    // The end without a word in TLS: what came was whole as far as the messages were.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    Err(error) => return Err(error),
                }
            }
            if retry(|| tls.connection.read_tls(&mut &*self.tcp))? == 0 {
                return Ok(0);
            }
            let state = tls
                .connection
                .process_new_packets()
                .map_err(io::Error::other)?;
            tls.decrypted = state.plaintext_bytes_to_read();
            if state.peer_has_closed() && tls.decrypted == 0 {
                return Ok(0);
            }
        }
    }

    /// Writes as much as there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return retry(|| (&*self.tcp).write(bytes));
        };
        // First what TLS still holds: its buffer is bounded, and takes 0 bytes when it is full.
        while tls.connection.wants_write() {
            retry(|| tls.connection.write_tls(&mut &*self.tcp))?;
        }
        let count = tls.connection.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    /// Writes what TLS holds.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.connection.wants_write() {
                retry(|| tls.connection.write_tls(&mut &*self.tcp))?;
            }
        }
        Ok(())
    }

    /// Nothing more will be written. What the kernel holds is still sent.
    pub(crate) fn shut_write(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.connection.send_close_notify();
            // As far as there is room: it is a courtesy.
            let _ = self.flush();
        }
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Ends the connection, and wakes everybody who waits for it.
    pub(crate) fn shut(&mut self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

/// A signal in the middle of a call that does not wait is no reason to stop.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
