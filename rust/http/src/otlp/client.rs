//! Brings messages to a collector: `POST` over HTTP/1.1, or a unary call of gRPC over HTTP/2.
//!
//! Each message has a connection of its own. There is one in some seconds, collectors stand next door, and a connection that
//! is kept would have to be watched for its end.
//!
//! What a collector asks to be sent again (OTLP 1.x, "Failures") is sent again, with growing pauses, as long as the time-out for one
//! message lasts. What a collector says it has taken only in part is not.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::protobuf::Fields;
use crate::compression::gzip;

/// Of an answer's body.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The first pause before a message is sent again; each further one is twice as long, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LAST: Duration = Duration::from_secs(30);
/// Of what a collector says, in a log.
const REASON_BYTES_MAX: usize = 200;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `http/protobuf`.
    Http,
    /// `grpc`.
    Grpc,
}

/// What is said of a [`Target`].
#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// How messages travel.
    pub transport: Transport,
    /// Where they go, with the path.
    pub url: String,
    /// What is sent along.
    pub headers: Vec<(String, String)>,
    /// What one message may take, with all attempts.
    pub timeout: Duration,
    /// PEM of the authorities that are trusted; those of the system if `None`.
    pub certificates: Option<Vec<u8>>,
    /// Messages are compressed.
    pub gzip: bool,
    /// Who sends them.
    pub user_agent: String,
}

/// Where messages of one kind go.
#[derive(Clone)]
pub struct Target {
    transport: Transport,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
    gzip: bool,
    tls: Option<Arc<ClientConfig>>,
}

/// What a collector did with a message that has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// How much of it was not taken.
    pub(super) rejected: u64,
    /// Why, or what else there is to say.
    pub(super) reason: String,
}

/// Becomes true when no time is left for second attempts.
pub(super) type Ending = watch::Receiver<bool>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a message did not arrive.
#[derive(Debug)]
enum Failure {
    /// It may arrive later; perhaps the collector said when.
    Passing(String, Option<Duration>),
    /// It will not.
    Lasting(String),
}

/// A connection that broke may be another one next time.
fn broken(error: impl fmt::Display) -> Failure {
    Failure::Passing(error.to_string(), None)
}

impl Target {
    /// A place for messages.
    ///
    /// # Errors
    /// The address is no URL of http or https, a header is none, or the certificates cannot be read. The text says it.
    pub fn new(settings: &TargetSettings) -> Result<Self, String> {
        let url = &settings.url;
        let uri: Uri = url.parse().map_err(|_| format!("{url} is no URL"))?;
        let is_secure = match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(_)) => false,
            (Some("https"), Some(_)) => true,
            _ => return Err(format!("{url} is no URL of http or https")),
        };
        let mut headers = HeaderMap::new();
        let agent = [("user-agent".to_owned(), settings.user_agent.clone())];
        for (name, value) in agent.iter().chain(&settings.headers) {
            let no_header = || format!("{name:?} with its value is no header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| no_header())?;
            let value = HeaderValue::from_str(value).map_err(|_| no_header())?;
            headers.insert(name, value);
        }
        let tls = is_secure.then(|| tls(settings));
        Ok(Self {
            transport: settings.transport,
            headers,
            timeout: settings.timeout,
            gzip: settings.gzip,
            tls: tls.transpose()?,
            uri,
        })
    }

    /// Sends a message, if need be again, within the time-out.
    ///
    /// # Errors
    /// It did not arrive; the text says why.
    pub(super) async fn send(&self, message: Vec<u8>, ending: &Ending) -> Result<Taken, String> {
        let message = if self.gzip {
            Bytes::from(gzip(&message).map_err(|error| error.to_string())?)
        } else {
            Bytes::from(message)
        };
        let end = Instant::now() + self.timeout;
        let mut ending = ending.clone();
        let mut pause = PAUSE_FIRST;
        loop {
            let sent = timeout_at(end, self.send_once(message.clone())).await;
            let (text, wish) = match sent {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(Failure::Lasting(text))) => return Err(text),
                Ok(Err(Failure::Passing(text, wish))) => (text, wish),
                Err(_) => return Err(format!("no answer within {:?}", self.timeout)),
            };
            // A collector that names a time is taken at its word, and everybody else waits for a little more or less.
            let next = wish.unwrap_or_else(|| jittered(pause));
            if Instant::now() + next >= end || *ending.borrow() {
                return Err(text);
            }
            tokio::select! {
                () = sleep(next) => {}
                // An error: whoever could say so is gone.
                _ = ending.wait_for(|is_ending| *is_ending) => return Err(text),
            }
            pause = (2 * pause).min(PAUSE_LAST);
        }
    }

    async fn send_once(&self, message: Bytes) -> Result<Taken, Failure> {
        let stream = self.connect().await?;
        match self.transport {
            Transport::Http => self.post(stream, message).await,
            Transport::Grpc => self.call(stream, message).await,
        }
    }

    fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    async fn connect(&self) -> Result<Pin<Box<dyn Stream>>, Failure> {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        let stream = TcpStream::connect((self.host(), port))
            .await
            .map_err(broken)?;
        // The message is written whole. Failing costs only time.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::pin(stream));
        };
        let name = ServerName::try_from(self.host().to_owned())
            .map_err(|error| Failure::Lasting(error.to_string()))?;
        let connecting = TlsConnector::from(tls.clone()).connect(name, stream);
        Ok(Box::pin(connecting.await.map_err(broken)?))
    }

    fn request<B>(&self, uri: Uri, version: Version, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = self.headers.clone();
        request
    }

    async fn post(&self, stream: Pin<Box<dyn Stream>>, body: Bytes) -> Result<Taken, Failure> {
        let path = self.uri.path_and_query().cloned().map(Uri::from);
        let mut request = self.request(path.unwrap_or_default(), Version::HTTP_11, Full::new(body));
        let fields = request.headers_mut();
        if let Some(authority) = self.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            fields.insert(header::HOST, host);
        }
        set(fields, header::CONTENT_TYPE, "application/x-protobuf");
        set(fields, header::CONNECTION, "close");
        if self.gzip {
            set(fields, header::CONTENT_ENCODING, "gzip");
        }
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let exchange = async {
            let response = client.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            // An error in it changes nothing: the status is what counts.
            let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let answer = answer.map(Collected::to_bytes).unwrap_or_default();
            judge(&head, &answer)
        };
        driven_by(connection, exchange).await
    }

    async fn call(&self, stream: Pin<Box<dyn Stream>>, body: Bytes) -> Result<Taken, Failure> {
        let (mut client, connection) = h2::client::handshake(stream).await.map_err(broken)?;
        driven_by(connection, self.call_with(&mut client, body)).await
    }

    async fn call_with(
        &self,
        client: &mut h2::client::SendRequest<Bytes>,
        message: Bytes,
    ) -> Result<Taken, Failure> {
        let mut request = self.request(self.uri.clone(), Version::HTTP_2, ());
        let fields = request.headers_mut();
        set(fields, header::CONTENT_TYPE, "application/grpc");
        set(fields, header::TE, "trailers");
        if self.gzip {
            set(fields, HeaderName::from_static("grpc-encoding"), "gzip");
        }
        std::future::poll_fn(|cx| client.poll_ready(cx))
            .await
            .map_err(broken)?;
        let (response, mut body) = client.send_request(request, false).map_err(broken)?;
        // gRPC over HTTP/2, "Length-Prefixed-Message": whether compressed, and how long.
        let length = u32::try_from(message.len())
            .map_err(|_| Failure::Lasting("the message is too large".to_owned()))?;
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(u8::from(self.gzip));
        framed.put_u32(length);
        framed.put(message);
        // The crate keeps what the window does not take yet.
        body.send_data(framed.freeze(), true).map_err(broken)?;
        let (head, mut body) = response.await.map_err(broken)?.into_parts();
        if !head.status.is_success() {
            return Err(judge_status(&head, ""));
        }
        let mut answer = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            if answer.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(Failure::Lasting("the answer is too long".to_owned()));
            }
            answer.extend_from_slice(&data);
            body.flow_control()
                .release_capacity(data.len())
                .map_err(broken)?;
        }
        let trailers = body.trailers().await.map_err(broken)?;
        // An error without a message has its status in the head.
        judge_call(trailers.as_ref().unwrap_or(&head.headers), &answer)
    }
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: &'static str) {
    fields.insert(name, HeaderValue::from_static(value));
}

/// The result of `exchange`, while its connection is driven. Nobody else has either.
async fn driven_by<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let driven = async {
        let _ended = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        done = exchange => done,
        never = driven => never,
    }
}

/// Up to a fifth more or less: servers that lost their collector at once do not return at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 401;
    pause * (800 + u32::try_from(random).unwrap_or(0)) / 1000
}

/// Trusts these authorities, or those of the system.
fn tls(settings: &TargetSettings) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &settings.certificates {
        use rustls::pki_types::{CertificateDer, pem::PemObject};

        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err("no authority is trusted: there is no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if settings.transport == Transport::Grpc {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(Arc::new(config))
}

/// The answer to a `POST`.
fn judge(head: &http::response::Parts, answer: &[u8]) -> Result<Taken, Failure> {
    if head.status.is_success() {
        return Ok(taken(answer));
    }
    // `google.rpc.Status` (OTLP, "Failures"); what is none of Protocol Buffers has no such field.
    let text = Fields(answer).bytes(2).unwrap_or_default();
    Err(judge_status(head, &shown(text)))
}

fn judge_status(head: &http::response::Parts, reason: &str) -> Failure {
    let text = with_reason(format!("status {}", head.status.as_u16()), reason);
    match head.status.as_u16() {
        429 | 502 | 503 | 504 => {
            let wish = head.headers.get(header::RETRY_AFTER);
            Failure::Passing(text, wish.and_then(retry_after))
        }
        _ => Failure::Lasting(text),
    }
}

/// The end of a call: `answer` is what came before it.
fn judge_call(fields: &HeaderMap, answer: &[u8]) -> Result<Taken, Failure> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        return Err(Failure::Passing("no gRPC status".to_owned(), None));
    };
    if code == 0 {
        // Behind its prefix; an answer that is compressed is not read: nobody asked for that.
        let message = match answer {
            [0, _, _, _, _, message @ ..] => message,
            _ => &[],
        };
        return Ok(taken(message));
    }
    let reason = shown(text("grpc-message").unwrap_or_default().as_bytes());
    let description = with_reason(format!("gRPC status {code}"), &reason);
    let details = text("grpc-status-details-bin")
        .and_then(|value| STANDARD_NO_PAD.decode(value.trim_end_matches('=')).ok());
    let wish = details.as_deref().and_then(retry_info);
    match (code, wish) {
        // Cancelled, deadline, aborted, out of range, unavailable, data loss. "Resource exhausted" is for good, unless it
        // says when it will be over.
        (1 | 4 | 10 | 11 | 14 | 15, _) | (8, Some(_)) => Err(Failure::Passing(description, wish)),
        _ => Err(Failure::Lasting(description)),
    }
}

/// `Export...ServiceResponse`: `partial_success` with how much was rejected, and why.
fn taken(answer: &[u8]) -> Taken {
    let Some(partial) = Fields(answer).bytes(1) else {
        return Taken::default();
    };
    Taken {
        rejected: Fields(partial).number(1),
        reason: shown(Fields(partial).bytes(2).unwrap_or_default()),
    }
}

/// `google.rpc.RetryInfo` among the details of a `google.rpc.Status`.
fn retry_info(status: &[u8]) -> Option<Duration> {
    let details = Fields(status).filter_map(|(field, value)| match value {
        super::protobuf::Field::Bytes(any) if field == 3 => Some(any),
        _ => None,
    });
    for any in details {
        let name = Fields(any).bytes(1).unwrap_or_default();
        if name.ends_with(b"/google.rpc.RetryInfo") {
            let delay = Fields(Fields(any).bytes(2)?).bytes(1).unwrap_or_default();
            let (seconds, nanos) = (Fields(delay).number(1), Fields(delay).number(2));
            return Some(Duration::new(
                u32::try_from(seconds).ok()?.into(),
                u32::try_from(nanos)
                    .ok()
                    .filter(|nanos| *nanos < 1_000_000_000)?,
            ));
        }
    }
    None
}

/// RFC 9110, 10.2.3: seconds or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?;
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // In the past: now.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What a collector says, fit for a log.
fn shown(text: &[u8]) -> String {
    let left = Cell::new(REASON_BYTES_MAX);
    String::from_utf8_lossy(text)
        .escape_debug()
        .take_while(|letter| {
            let rest = left.get().checked_sub(letter.len_utf8());
            left.set(rest.unwrap_or(0));
            rest.is_some()
        })
        .collect()
}

fn with_reason(text: String, reason: &str) -> String {
    if reason.is_empty() {
        text
    } else {
        format!("{text}: {reason}")
    }
}

/// Whatever a collector answers, it is judged.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn judge_anything(answer: &[u8]) {
    let partial = taken(answer);
    assert!(partial.reason.len() <= REASON_BYTES_MAX);
    let _ = retry_info(answer);
    let mut fields = HeaderMap::new();
    for (name, value) in ["grpc-status", "grpc-message", "grpc-status-details-bin"]
        .into_iter()
        .zip(answer.split(|byte| *byte == b'\n'))
    {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.insert(name, value);
        }
    }
    let _ = judge_call(&fields, answer);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, Response};

    use super::super::protobuf::Message;
    use super::{Failure, Taken, Target, TargetSettings, Transport, judge, judge_call};

    fn settings(url: &str) -> TargetSettings {
        TargetSettings {
            transport: Transport::Http,
            url: url.to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            certificates: None,
            gzip: false,
            user_agent: "test".to_owned(),
        }
    }

    fn answered(
        status: u16,
        fields: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Taken, Failure> {
        let mut head = Response::new(()).into_parts().0;
        head.status = status.try_into().unwrap();
        for (name, value) in fields {
            head.headers.insert(*name, value.parse().unwrap());
        }
        judge(&head, body)
    }

    #[test]
    fn answers_are_judged_as_otlp_has_it() {
        assert_eq!(answered(200, &[], b"").unwrap(), Taken::default());
        for (status, fields, wish) in [
            (429, [("retry-after", "7")].as_slice(), Some(7)),
            (
                503,
                &[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")],
                Some(0),
            ),
            (502, &[("retry-after", "soon")], None),
            (504, &[], None),
        ] {
            match answered(status, fields, b"") {
                Err(Failure::Passing(_, seen)) => assert_eq!(seen, wish.map(Duration::from_secs)),
                other => panic!("{status}: {other:?}"),
            }
        }
        for status in [301, 400, 404, 500] {
            assert!(matches!(
                answered(status, &[], b""),
                Err(Failure::Lasting(_))
            ));
        }
        let mut status = Message::default();
        status.text(2, "no\nroom");
        match answered(400, &[], &status.0) {
            Err(Failure::Lasting(text)) => assert_eq!(text, "status 400: no\\nroom"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_not_taken_is_known() {
        let mut answer = Message::default();
        answer.message(1, |partial| {
            partial.number(1, 3);
            partial.text(2, "too old");
        });
        let taken = Taken {
            rejected: 3,
            reason: "too old".to_owned(),
        };
        assert_eq!(answered(200, &[], &answer.0).unwrap(), taken);
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static("0"));
        let framed = [&[0, 0, 0, 0, answer.0.len() as u8], answer.0.as_slice()].concat();
        assert_eq!(judge_call(&fields, &framed).unwrap(), taken);
    }

    #[test]
    fn calls_are_judged_as_otlp_has_it() {
        use base64::{Engine, engine::general_purpose::STANDARD};

        let mut status = Message::default();
        status.message(3, |any| {
            any.text(1, "type.googleapis.com/google.rpc.RetryInfo");
            any.message(2, |info| info.message(1, |delay| delay.number(1, 9)));
        });
        let details = STANDARD.encode(&status.0);
        let nine = Some(Duration::from_secs(9));
        for (code, details, passing) in [
            ("14", None, Some(None)),
            ("14", Some(&details), Some(nine)),
            ("8", Some(&details), Some(nine)),
            ("8", None, None),
            ("3", Some(&details), None),
            ("16", None, None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert("grpc-status", code.parse().unwrap());
            if let Some(details) = details {
                fields.insert("grpc-status-details-bin", details.parse().unwrap());
            }
            match (judge_call(&fields, b""), passing) {
                (Err(Failure::Passing(_, wish)), Some(expected)) => assert_eq!(wish, expected),
                (Err(Failure::Lasting(_)), None) => {}
                (other, _) => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn addresses_and_headers_are_checked() {
        for url in ["", "collector:4318", "ftp://x/", "http://"] {
            assert!(Target::new(&settings(url)).is_err(), "{url}");
        }
        let mut with_header = settings("http://x/");
        assert!(Target::new(&with_header).is_ok());
        with_header.headers = vec![("a b".to_owned(), "c".to_owned())];
        assert!(Target::new(&with_header).is_err());
    }

    #[test]
    fn nobody_is_trusted_without_certificates() {
        let mut secure = settings("https://x/");
        secure.certificates = Some(b"nothing".to_vec());
        assert!(Target::new(&secure).is_err());
    }
}
