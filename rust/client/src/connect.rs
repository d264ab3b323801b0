//! From an address to an open WebSocket: names, TCP, a proxy, TLS, the handshake.

use std::{fmt, io, pin::Pin, sync::Arc, time::Duration};

use framegate_http::tls::client_config;
use http::{HeaderMap, StatusCode};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    error::{Error, ErrorKind},
    handshake::{self, Agreed, Request, read_body, read_head},
    link::Link,
    proxy::proxy_of,
    settings::Settings,
    socket::Socket,
    url::{Target, shown},
};

/// How long an address gets before the next one of the same name is tried beside it (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// The body of a refusal is awaited for this long: who answers without saying its length may never end it.
const REFUSAL_BODY: Duration = Duration::from_secs(1);

/// An open WebSocket, and what its server said.
pub struct Opened {
    /// The WebSocket.
    pub socket: Socket,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The fields of its answer.
    pub headers: HeaderMap,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("subprotocol", &self.subprotocol)
            .finish_non_exhaustive()
    }
}

/// The stream during the handshake.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

impl Stream {
    fn io(&mut self) -> Pin<&mut dyn Both> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }

    /// What is left when nothing has to wait any more.
    fn into_link(self) -> io::Result<Link> {
        let (tcp, tls): (_, Option<ClientConnection>) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(stream) => {
                let (tcp, tls) = stream.into_inner();
                (tcp, Some(tls))
            }
        };
        // Stays as it is: sockets of tokio do not block.
        Ok(Link::new(tcp.into_std()?, tls))
    }
}

/// Opens a WebSocket. Redirects are not followed: they are refusals that say where to.
///
/// # Errors
/// All kinds of [`Error`] but [`ErrorKind::Closed`].
pub async fn connect(url: &str, settings: &Settings) -> Result<Opened, Error> {
    // What can be judged without a connection is judged before there is one.
    let target = Target::websocket(url)?;
    let request = Request::new(&target, settings)?;
    let proxy = proxy_of(&settings.proxy, &target)?;
    let tls = if target.secure {
        Some(tls_config(settings).await?)
    } else {
        None
    };
    let opening = open(url, &target, proxy.as_ref(), tls, &request);
    let (stream, agreed, input) = match settings.open_timeout {
        None => opening.await?,
        Some(limit) => timeout(limit, opening).await.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                format!("{} did not open a WebSocket within {limit:?}", shown(url)),
            )
        })??,
    };
    let link = stream.into_link().map_err(|error| {
        Error::new(ErrorKind::Unreachable, "the socket cannot be used").because(error)
    })?;
    Ok(Opened {
        socket: Socket::new(link, &input, agreed.deflate, settings),
        subprotocol: agreed.subprotocol,
        headers: agreed.headers,
    })
}

async fn tls_config(settings: &Settings) -> Result<Arc<ClientConfig>, Error> {
    let tls = settings.tls.clone();
    // The system's store has hundreds of certificates, and opening an encrypted key takes a while on purpose.
    let reading = tokio::task::spawn_blocking(move || client_config(&tls));
    let read = reading.await.map_err(|error| {
        Error::new(ErrorKind::Tls, "the files for TLS were not read").because(error)
    })?;
    read.map_err(|error| {
        let mut said = Error::new(ErrorKind::Tls, error.problem());
        if let Some(cause) = error.cause() {
            said = said.because(cause);
        }
        match error.remedy() {
            Some(fix) => said.fix(fix),
            None => said,
        }
    })
}

async fn open(
    url: &str,
    target: &Target,
    proxy: Option<&Target>,
    tls: Option<Arc<ClientConfig>>,
    request: &Request,
) -> Result<(Stream, Agreed, Vec<u8>), Error> {
    let tcp = match proxy {
        None => reach(target, ErrorKind::Unreachable).await?,
        Some(proxy) => through(proxy, target).await?,
    };
    let mut stream = match tls {
        None => Stream::Plain(tcp),
        Some(config) => Stream::Tls(Box::new(secure(tcp, target, config).await?)),
    };
    let lost = |error: &dyn fmt::Display| {
        let why = error.to_string();
        // With TLS 1.3 a server judges the client's certificate when the client has finished; what rustls says then.
        let kind = if why.contains("received fatal alert") {
            ErrorKind::Tls
        } else {
            ErrorKind::Unreachable
        };
        Error::new(kind, format!("{} gave no answer", shown(url))).because(why)
    };
    stream
        .io()
        .write_all(&request.bytes)
        .await
        .map_err(|error| lost(&error))?;
    stream.io().flush().await.map_err(|error| lost(&error))?;
    let head = read_head(&mut stream.io())
        .await
        .map_err(|why| lost(&why))?;
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let status = head.status;
        let headers = head.headers.clone();
        let mut io = stream.io();
        let response = timeout(REFUSAL_BODY, read_body(&mut io, head)).await;
        let response = response.unwrap_or_else(|_| crate::error::Response {
            status,
            headers,
            body: Vec::new(),
        });
        return Err(handshake::refused(response, &shown(url)));
    }
    let agreed = request.judge(head.headers)?;
    Ok((stream, agreed, head.rest))
}

/// A connection to a host; of several addresses to the one that answers first, each a little later than the one before.
async fn reach(place: &Target, kind: ErrorKind) -> Result<TcpStream, Error> {
    let (host, port) = (place.host.as_str(), place.port);
    let at = format!("{host}:{port}");
    let addresses: Vec<_> = lookup_host((host, port))
        .await
        .map_err(|error| Error::new(kind, format!("the host {host} is not known")).because(error))?
        .collect();
    let count = addresses.len();
    let (sender, mut answers) = tokio::sync::mpsc::channel(count.max(1));
    let mut attempts = tokio::task::JoinSet::new();
    let mut addresses = addresses.into_iter();
    let (mut failed, mut last) = (0, None);
    while failed < count {
        if let Some(address) = addresses.next() {
            let sender = sender.clone();
            attempts.spawn(async move {
                // Nobody listens any more: somebody else was faster.
                let _ = sender.send(TcpStream::connect(address).await).await;
            });
        }
        let has_more = addresses.len() > 0;
        tokio::select! {
            Some(answer) = answers.recv() => match answer {
                Ok(stream) => {
                    // Messages are written whole. Failing costs only time.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => {
                    failed += 1;
                    last = Some(error);
                }
            },
            () = sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
    let cause = last.map_or_else(
        || "the name has no address".to_owned(),
        |error: io::Error| error.to_string(),
    );
    Err(Error::new(kind, format!("nothing answers at {at}")).because(cause))
}

/// A connection to the target that a proxy makes.
async fn through(proxy: &Target, target: &Target) -> Result<TcpStream, Error> {
    let at = format!("the proxy {}:{}", proxy.host, proxy.port);
    let failed = |error: &dyn fmt::Display| {
        Error::new(ErrorKind::Proxy, format!("{at} gave no answer")).because(error)
    };
    let mut stream = reach(proxy, ErrorKind::Proxy).await?;
    stream
        .write_all(&handshake::connect_request(target, proxy))
        .await
        .map_err(|error| failed(&error))?;
    let head = read_head(&mut stream).await.map_err(|why| failed(&why))?;
    if !head.status.is_success() {
        let status = head.status;
        let fix = if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            "put the user and password into the address of the proxy: http://user:password@host:port"
        } else {
            "ask who runs the proxy, or leave the host out with NO_PROXY"
        };
        let response = crate::error::Response {
            status,
            headers: head.headers,
            body: head.rest,
        };
        let mut error = Error::of_response(
            format!(
                "{at} answered {status} to CONNECT {}:{}",
                target.host, target.port
            ),
            response,
        );
        error = error.fix(fix).of_proxy();
        return Err(error);
    }
    if head.rest.is_empty() {
        Ok(stream)
    } else {
        // Neither TLS nor HTTP lets the server speak first.
        Err(failed(&"it sent something behind its answer"))
    }
}

async fn secure(
    tcp: TcpStream,
    target: &Target,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(target.host.clone()).map_err(|error| {
        Error::argument(format!("{} is no name for TLS", target.host)).because(error)
    })?;
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| tls_error(target, &error))
}

fn tls_error(target: &Target, error: &io::Error) -> Error {
    use rustls::{CertificateError, Error as Tls};

    let at = format!("{}:{}", target.host, target.port);
    let inner = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<Tls>());
    let Some(inner) = inner else {
        // The connection broke; that may pass.
        return Error::new(
            ErrorKind::Unreachable,
            format!("{at} broke off the handshake of TLS"),
        )
        .because(error);
    };
    let said = Error::new(ErrorKind::Tls, format!("no TLS with {at}")).because(inner);
    match inner {
        // A signature of somebody else who has the same name.
        Tls::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => said.fix("trust its authority: name the file of that with ca_file"),
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => said.fix("connect by a name that is in its certificate"),
        Tls::InvalidMessage(_) => said.fix("does that port speak TLS? without, it is ws://"),
        Tls::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            said.fix("the server wants a certificate of the client")
        }
        _ => said,
    }
}
