//! The opening handshake from the client's side (RFC 6455, sections 4.1 and 4.2.2): the request, and whether the answer is one to it.

use base64::{Engine, engine::general_purpose::STANDARD};
use framegate_http::websocket::{
    deflate::Agreement,
    extension::{CLIENT_OFFER, client_agreement},
    handshake::{accept_value, has_token, is_token_byte, only},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    error::{Error, ErrorKind, Response},
    keys,
    settings::Settings,
    url::Target,
};

/// The longest head of an answer, as servers limit those of requests.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of an answer.
const FIELDS_MAX: usize = 100;
/// What is kept of the body of an answer that is no WebSocket: a page of an error says what it has to say in that.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request, and what its answer has to be.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    key: String,
    subprotocols: Vec<String>,
    compression: bool,
}

/// What was agreed on.
pub(crate) struct Agreed {
    pub(crate) deflate: Option<Agreement>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl Request {
    /// A request to `target`.
    ///
    /// # Errors
    /// A header or a subprotocol of the settings is none, or belongs to the handshake.
    pub(crate) fn new(target: &Target, settings: &Settings) -> Result<Self, Error> {
        let key = STANDARD.encode(keys::nonce());
        let mut fields = HeaderMap::new();
        let own = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::argument(format!("{text:?} is no value of a header")))
        };
        if let Some(agent) = &settings.user_agent {
            fields.insert(USER_AGENT, own(agent)?);
        }
        if let Some(authorization) = &target.authorization {
            fields.insert(AUTHORIZATION, authorization.clone());
        }
        // What is given replaces what is usual; the same name twice makes two fields.
        let mut given = HeaderMap::new();
        for (name, value) in &settings.headers {
            let field = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Error::argument(format!("{name:?} is no name of a header")))?;
            if is_of_handshake(&field) {
                return Err(Error::argument(format!(
                    "the header {name} belongs to the handshake and is set by the client"
                )));
            }
            let value = HeaderValue::from_str(value).map_err(|_| {
                // Not the value: it may be a secret.
                Error::argument(format!("the value of the header {name} cannot be sent"))
                    .because("it holds a line break or another control character")
            })?;
            given.append(field, value);
        }
        let given_names: Vec<_> = given.keys().cloned().collect();
        for name in given_names {
            fields.remove(&name);
        }
        fields.extend(given);
        if !fields.contains_key(HOST) {
            fields.insert(HOST, own(&target.authority)?);
        }
        for name in &settings.subprotocols {
            if name.is_empty() || !name.bytes().all(is_token_byte) {
                return Err(Error::argument(format!(
                    "{name:?} is no name of a subprotocol"
                )));
            }
        }
        if !settings.subprotocols.is_empty() {
            fields.insert(
                SEC_WEBSOCKET_PROTOCOL,
                own(&settings.subprotocols.join(", "))?,
            );
        }
        if settings.compression {
            fields.insert(SEC_WEBSOCKET_EXTENSIONS, CLIENT_OFFER);
        }
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        fields.insert(SEC_WEBSOCKET_KEY, own(&key)?);
        let mut bytes = format!("GET {} HTTP/1.1\r\n", target.path).into_bytes();
        write_fields(&mut bytes, &fields);
        Ok(Self {
            bytes,
            key,
            subprotocols: settings.subprotocols.clone(),
            compression: settings.compression,
        })
    }

    /// What a `101` agrees on.
    ///
    /// # Errors
    /// It is no answer to this request.
    pub(crate) fn judge(&self, headers: HeaderMap) -> Result<Agreed, Error> {
        let wrong = |why: &str| {
            Error::new(
                ErrorKind::Protocol,
                "the server's answer opens no WebSocket",
            )
            .because(why)
        };
        if !has_token(&headers, &UPGRADE, "websocket")
            || !has_token(&headers, &CONNECTION, "upgrade")
        {
            return Err(wrong("its fields do not say upgrade: websocket"));
        }
        if only(&headers, &SEC_WEBSOCKET_ACCEPT) != Some(&accept_value(self.key.as_bytes())) {
            return Err(wrong("sec-websocket-accept does not answer our key"));
        }
        let mut chosen = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let subprotocol = match (chosen.next(), chosen.next()) {
            (None, _) => None,
            (Some(name), None) => {
                let name = name.to_str().unwrap_or_default();
                if !self.subprotocols.iter().any(|it| it == name) {
                    return Err(wrong("it chooses a subprotocol that was not offered"));
                }
                Some(name.to_owned())
            }
            _ => return Err(wrong("it chooses two subprotocols")),
        };
        let deflate = client_agreement(&headers)
            .map_err(|why| wrong(&format!("sec-websocket-extensions {why}")))?;
        if deflate.is_some() && !self.compression {
            return Err(wrong("it accepts compression, which was not offered"));
        }
        Ok(Agreed {
            deflate,
            subprotocol,
            headers,
        })
    }
}

/// A request for a way through a proxy (RFC 9110, section 9.3.6).
pub(crate) fn connect_request(target: &Target, proxy: &Target) -> Vec<u8> {
    let host = if target.host.contains(':') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    };
    let mut fields = HeaderMap::new();
    if let Ok(host) = HeaderValue::from_str(&host) {
        fields.insert(HOST, host);
    }
    if let Some(authorization) = &proxy.authorization {
        fields.insert(http::header::PROXY_AUTHORIZATION, authorization.clone());
    }
    let mut bytes = format!("CONNECT {host} HTTP/1.1\r\n").into_bytes();
    write_fields(&mut bytes, &fields);
    bytes
}

fn write_fields(bytes: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
}

fn is_of_handshake(name: &HeaderName) -> bool {
    [
        CONNECTION,
        CONTENT_LENGTH,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
}

/// The head of an answer, and what was read behind it.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) rest: Vec<u8>,
}

/// Reads the head of an answer; informational ones before it are skipped.
///
/// # Errors
/// The stream ends, or what comes is no answer of HTTP/1.1. The text says it.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Head, String> {
    let mut bytes = Vec::new();
    loop {
        if let Some((status, headers, length)) = parse(&bytes)? {
            bytes.drain(..length);
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            return Ok(Head {
                status,
                headers,
                rest: bytes,
            });
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(format!("its head is longer than {HEAD_BYTES_MAX} bytes"));
        }
        let room = HEAD_BYTES_MAX - bytes.len();
        bytes.reserve(room.min(4096));
        match (&mut *stream).take(room as u64).read_buf(&mut bytes).await {
            Ok(0) if bytes.is_empty() => return Err("it closed the connection".to_owned()),
            Ok(0) => return Err("it closed the connection inside of its answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(StatusCode, HeaderMap, usize)>, String> {
    // Before anything else: a server that is none is known by its first bytes.
    let magic = b"HTTP/1.";
    let seen = bytes.len().min(magic.len());
    if bytes[..seen] != magic[..seen] {
        return Err("what it answers is not HTTP/1.1".to_owned());
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(error) => return Err(format!("what it answers is not HTTP/1.1: {error}")),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| "its answer has no status".to_owned())?;
    let mut headers = HeaderMap::new();
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(format!("its field {:?} is broken", field.name));
        };
        headers.append(name, value);
    }
    Ok(Some((status, headers, length)))
}

/// Reads what there is of a body, up to a limit: as long as it is said to be, in chunks, or until the stream ends.
pub(crate) async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, head: Head) -> Response {
    let Head {
        status,
        headers,
        rest,
    } = head;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let chunked = has_token(&headers, &TRANSFER_ENCODING, "chunked");
    let want = length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let mut body = rest;
    // What does not come changes nothing: the status is what counts.
    while body.len() < want && !(chunked && is_last_chunk(&body)) {
        match (&mut *stream)
            .take((want - body.len()) as u64)
            .read_buf(&mut body)
            .await
        {
            Ok(count) if count > 0 => {}
            _ => break,
        }
    }
    body.truncate(want);
    if chunked {
        body = unchunked(&body);
    }
    Response {
        status,
        headers,
        body,
    }
}

/// Does a body in chunks end here? A body that looks so and goes on is cut, which harms nobody.
fn is_last_chunk(body: &[u8]) -> bool {
    body.ends_with(b"0\r\n\r\n")
}

/// The chunks of a body without what is around them, as far as they are there.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(body) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(body.len());
        whole.extend_from_slice(&body[start..end]);
        if length == 0 || end == body.len() {
            break;
        }
        // The line break behind the chunk.
        body = body.get(end + 2..).unwrap_or_default();
    }
    whole
}

/// What a refusal is in words.
pub(crate) fn refused(response: Response, url: &str) -> Error {
    let status = response.status;
    let location = response.headers.get(LOCATION);
    let location = location.and_then(|it| it.to_str().ok()).map(str::to_owned);
    let fix = match status.as_u16() {
        301..=308 => Some(match location {
            Some(place) => format!("redirects are not followed: connect to {place}"),
            None => "redirects are not followed".to_owned(),
        }),
        401 | 403 => Some("look at what the server asks for: a token or a user, an origin".to_owned()),
        404 => Some("check the path".to_owned()),
        // RFC 9110, section 15.5.22; servers say so of another version as well.
        426 => Some("the server wants another protocol; its fields upgrade and sec-websocket-version say which".to_owned()),
        200..=299 => Some("the path is not that of a WebSocket".to_owned()),
        _ => None,
    };
    let error = Error::of_response(
        format!("{url} answered {status}, which opens no WebSocket"),
        response,
    );
    match fix {
        Some(fix) => error.fix(fix),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::websocket("ws://user:pass@host:81/path?query").unwrap()
    }

    fn request(settings: &Settings) -> Request {
        Request::new(&target(), settings).unwrap()
    }

    /// An answer as it should be, with changes: a field without a value is taken out.
    fn answer(request: &Request, changes: &[(&'static str, Option<&str>)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        fields.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        fields.insert(SEC_WEBSOCKET_ACCEPT, accept_value(request.key.as_bytes()));
        for (name, value) in changes {
            match value {
                Some(value) => {
                    fields.insert(*name, HeaderValue::from_str(value).unwrap());
                }
                None => {
                    fields.remove(*name);
                }
            }
        }
        fields
    }

    #[test]
    fn the_request_is_what_the_rfc_asks_for() {
        let settings = Settings {
            headers: vec![
                ("Origin".to_owned(), "http://x".to_owned()),
                ("User-Agent".to_owned(), "mine".to_owned()),
                ("X-A".to_owned(), "1".to_owned()),
                ("X-A".to_owned(), "2".to_owned()),
            ],
            subprotocols: vec!["chat".to_owned(), "v2".to_owned()],
            ..Settings::default()
        };
        let request = request(&settings);
        let text = String::from_utf8(request.bytes.clone()).unwrap();
        assert!(text.starts_with("GET /path?query HTTP/1.1\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
        for field in [
            "host: host:81",
            "upgrade: websocket",
            "connection: Upgrade",
            "sec-websocket-version: 13",
            "sec-websocket-protocol: chat, v2",
            "sec-websocket-extensions: permessage-deflate; client_max_window_bits",
            "authorization: Basic dXNlcjpwYXNz",
            "origin: http://x",
            "user-agent: mine",
            "x-a: 1",
            "x-a: 2",
            &format!("sec-websocket-key: {}", request.key),
        ] {
            assert_eq!(
                text.matches(&format!("\r\n{field}\r\n")).count(),
                1,
                "{text}"
            );
        }
        assert!(!text.contains("framegate"));
        assert_eq!(STANDARD.decode(&request.key).unwrap().len(), 16);
        assert_ne!(request.key, self::request(&settings).key);
    }

    #[test]
    fn settings_that_cannot_be_sent_are_refused() {
        for (name, value) in [
            ("sec-websocket-key", "x"),
            ("Connection", "close"),
            ("content-length", "0"),
            ("a b", "x"),
            ("a", "x\r\nb: c"),
            ("", "x"),
        ] {
            let settings = Settings {
                headers: vec![(name.to_owned(), value.to_owned())],
                ..Settings::default()
            };
            let error = Request::new(&target(), &settings).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Argument, "{name}");
        }
        for name in ["", "a b", "a,b", "ä"] {
            let settings = Settings {
                subprotocols: vec![name.to_owned()],
                ..Settings::default()
            };
            assert!(Request::new(&target(), &settings).is_err(), "{name}");
        }
    }

    #[test]
    fn answers_are_judged() {
        let settings = Settings {
            subprotocols: vec!["chat".to_owned()],
            ..Settings::default()
        };
        let request = request(&settings);
        let agreed = request
            .judge(answer(
                &request,
                &[("sec-websocket-protocol", Some("chat"))],
            ))
            .unwrap();
        assert_eq!(agreed.subprotocol.as_deref(), Some("chat"));
        assert!(agreed.deflate.is_none());
        for change in [
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("connection", None),
            ("connection", Some("keep-alive")),
            ("sec-websocket-accept", None),
            ("sec-websocket-accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            ("sec-websocket-protocol", Some("Chat")),
            ("sec-websocket-protocol", Some("chat, chat")),
            ("sec-websocket-extensions", Some("permessage-bzip2")),
        ] {
            let error = request.judge(answer(&request, &[change])).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{change:?}");
        }
        let plain = Settings {
            compression: false,
            ..Settings::default()
        };
        let request = self::request(&plain);
        let deflate = ("sec-websocket-extensions", Some("permessage-deflate"));
        assert!(request.judge(answer(&request, &[deflate])).is_err());
    }

    #[test]
    fn heads_are_read_however_they_are_cut() {
        let text = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 101 S\r\na: b\r\n\r\nrest";
        for length in 0..text.len() - 4 {
            let found = parse(&text[..length]);
            assert!(found.is_ok(), "{length}");
        }
        for text in ["SSH-2.0", "HTTP/2", "\x15\x03", "HTTP/1.1 9\r\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunked(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(unchunked(b"5\r\nabc"), b"abc");
        assert_eq!(unchunked(b"ffffffffffffffff\r\nabc"), b"abc");
        assert_eq!(unchunked(b"x"), b"");
    }
}
