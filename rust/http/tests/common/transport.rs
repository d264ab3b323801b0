//! What the client's bytes travel in: a socket, or TLS on one.
//!
//! The program `over_tls` runs the suites of other files with TLS in between; everywhere else there is none.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use framegate_http::{
    Server,
    tls::{CertificateFiles, Tls, TlsOptions},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
};

/// Whether this program tests through TLS.
pub const OVER_TLS: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"over_tls");

/// One certificate with its key, for all programs of one build directory.
fn certificate() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("localhost.pem");
        if !file.exists() {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            // Whole and in one step: another test may look for it now.
            let fresh = file.with_extension(std::process::id().to_string());
            std::fs::write(&fresh, certificate.pem() + &key.serialize_pem()).unwrap();
            std::fs::rename(fresh, &file).unwrap();
        }
        file
    })
}

/// Gives the server its certificate.
pub fn with_tls(server: Server) -> Server {
    let pair = CertificateFiles {
        certificate: certificate().to_owned(),
        key: certificate().to_owned(),
    };
    let tls = Tls::load(TlsOptions {
        pairs: vec![pair],
        alpn: vec![b"http/1.1".to_vec()],
        ..TlsOptions::default()
    });
    server.with_tls(tls.unwrap(), 443, Rc::new(|_| {}))
}

/// The client's end of a connection.
pub enum Transport {
    Tcp(TcpStream),
    Tls(Box<Session>),
}

impl Transport {
    /// Connects, and shakes hands where there is TLS.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        if OVER_TLS {
            // Two small records in a row would wait for an acknowledgement.
            socket.set_nodelay(true).unwrap();
            Self::Tls(Box::new(Session::open(socket).await.unwrap()))
        } else {
            Self::Tcp(socket)
        }
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(session) => &session.socket,
        }
    }

    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket().set_nodelay(nodelay)
    }

    /// Makes a reset of the close that follows.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.socket().set_zero_linger()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(session) => session.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(session) => session.poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(session) => session.poll_push(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(session) => {
                session.say_goodbye();
                ready!(session.poll_push(cx))?;
                Pin::new(&mut session.socket).poll_shutdown(cx)
            }
        }
    }
}

/// rustls's own client.
pub struct Session {
    socket: TcpStream,
    tls: ClientConnection,
    is_closed: bool,
}

impl Session {
    async fn open(socket: TcpStream) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(certificate()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = Self {
            socket,
            tls: ClientConnection::new(Arc::new(config), name).unwrap(),
            is_closed: false,
        };
        std::future::poll_fn(|cx| {
            loop {
                ready!(session.poll_push(cx))?;
                if !session.tls.is_handshaking() {
                    return Poll::Ready(io::Result::Ok(()));
                }
                if ready!(session.poll_pull(cx))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        })
        .await?;
        Ok(session)
    }

    fn say_goodbye(&mut self) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.tls.send_close_notify();
        }
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut now = Now(&mut self.socket, cx);
            ready!(pending_or(self.tls.write_tls(&mut now)))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut now = Now(&mut self.socket, cx);
        let bytes = ready!(pending_or(self.tls.read_tls(&mut now)))?;
        self.tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Poll::Ready(Ok(bytes))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.tls.reader().read(buf.initialize_unfilled()) {
                Ok(bytes) => {
                    buf.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_pull(cx))?;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_push(cx))?;
        let written = self.tls.writer().write(bytes)?;
        if let Poll::Ready(Err(error)) = self.poll_push(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(written))
    }
}

impl Drop for Session {
    /// As browsers and libraries do: `close_notify`, then the end of the socket.
    fn drop(&mut self) {
        struct Try<'socket>(&'socket TcpStream);
        impl Write for Try<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.try_write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        self.say_goodbye();
        while self.tls.wants_write() && self.tls.write_tls(&mut Try(&self.socket)).is_ok() {}
    }
}

/// A socket that says `WouldBlock` where a task has to wait.
struct Now<'socket, 'task, 'waker>(&'socket mut TcpStream, &'task mut Context<'waker>);

impl Read for Now<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(into);
        match Pin::new(&mut *self.0).poll_read(self.1, &mut buf) {
            Poll::Ready(read) => read.map(|()| buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Now<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.0).poll_write(self.1, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pending_or<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}
