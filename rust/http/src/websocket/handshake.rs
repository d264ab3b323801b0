//! The opening handshake (RFC 6455, section 4.2): which requests ask for a WebSocket, and what answers them.
//!
//! Over HTTP/1.1 a request asks for a WebSocket when its `upgrade` field names `websocket`, and a `101` opens it. Over HTTP/2
//! (RFC 8441) it is a CONNECT whose `:protocol` is `websocket`, and a `200` opens it; there is no key, because nothing but a
//! WebSocket client can send such a request. The other fields mean the same in both.
//!
//! What is wrong with the request is answered here and never reaches an application: the client wanted a WebSocket, so an
//! ordinary response would mislead it.

use std::fmt;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
        UPGRADE,
    },
    request::Parts,
};
use sha1::{Digest, Sha1};

use crate::refusal::TEXT;

/// RFC 6455, section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Padding must be there; bits that it makes meaningless may be set, as some clients do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// A valid opening handshake.
#[derive(Debug)]
pub struct Offer {
    /// Answers the key of the request; over HTTP/2 there is none.
    accept: Option<HeaderValue>,
    subprotocols: Vec<String>,
}

/// The request asks for a WebSocket in a way that cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    status: StatusCode,
    reason: &'static str,
}

/// The response that an application asked for cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The chosen subprotocol is not one of those that the client offered; it would have to fail the connection.
    SubprotocolNotOffered {
        /// What was chosen.
        chosen: String,
        /// What could have been chosen.
        offered: Vec<String>,
    },
    /// This field belongs to the handshake or to the connection and is set by the server.
    ReservedHeader(HeaderName),
}

impl Offer {
    /// Looks for an opening handshake in a request. `None` for one that does not ask for a WebSocket. Over HTTP/2 every CONNECT
    /// that is served asks for one.
    ///
    /// # Errors
    ///
    /// It asks for one, but breaks the handshake's rules; answer with [`Rejected::response`].
    pub fn of(head: &Parts) -> Option<Result<Self, Rejected>> {
        if head.version == Version::HTTP_2 {
            return (head.method == Method::CONNECT).then(|| Self::check_connect(head));
        }
        // RFC 9110, section 7.8: a server ignores an upgrade field in a request of HTTP/1.0.
        if head.version != Version::HTTP_11 || !has_token(&head.headers, &UPGRADE, "websocket") {
            return None;
        }
        Some(Self::check_upgrade(head))
    }

    /// RFC 8441, section 5.
    fn check_connect(head: &Parts) -> Result<Self, Rejected> {
        let headers = &head.headers;
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(Rejected::bad_request("a WebSocket handshake has no body"));
        }
        match only(headers, &SEC_WEBSOCKET_VERSION) {
            Some(version) if version == "13" => {}
            // A 426 names what to upgrade to, which HTTP/2 does not have.
            Some(_) => return Err(Rejected::bad_request(OTHER_VERSION)),
            None => return Err(Rejected::bad_request(NO_VERSION)),
        }
        Ok(Self {
            accept: None,
            subprotocols: subprotocols(headers)?,
        })
    }

    /// RFC 6455, section 4.2.1.
    fn check_upgrade(head: &Parts) -> Result<Self, Rejected> {
        let headers = &head.headers;
        if head.method != Method::GET {
            return Err(Rejected::bad_request(
                "the method of a WebSocket handshake is GET",
            ));
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            return Err(Rejected::bad_request(
                "connection field does not name upgrade",
            ));
        }
        // Whatever follows the head is already WebSocket; with a body it could be read in two ways.
        let empty = headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .all(|length| length == "0");
        if !empty || headers.contains_key(TRANSFER_ENCODING) {
            return Err(Rejected::bad_request("a WebSocket handshake has no body"));
        }
        match only(headers, &SEC_WEBSOCKET_VERSION) {
            Some(version) if version == "13" => {}
            Some(_) => {
                return Err(Rejected {
                    status: StatusCode::UPGRADE_REQUIRED,
                    reason: OTHER_VERSION,
                });
            }
            None => return Err(Rejected::bad_request(NO_VERSION)),
        }
        let Some(key) = only(headers, &SEC_WEBSOCKET_KEY) else {
            return Err(Rejected::bad_request(
                "not exactly one sec-websocket-key field",
            ));
        };
        if !BASE64
            .decode(key.as_bytes())
            .is_ok_and(|key| key.len() == 16)
        {
            return Err(Rejected::bad_request(
                "sec-websocket-key is not 16 bytes in base64",
            ));
        }
        Ok(Self {
            accept: Some(accept_value(key.as_bytes())),
            subprotocols: subprotocols(headers)?,
        })
    }

    /// Does a success of any kind tell the client that the WebSocket is open? Then a response in place of the handshake's must
    /// be none.
    pub fn success_accepts(&self) -> bool {
        self.accept.is_none()
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// The `101`, or over HTTP/2 the `200`, that opens the WebSocket, with `headers` beside the fields of the handshake.
    pub fn accept(
        &self,
        subprotocol: Option<&str>,
        headers: HeaderMap,
    ) -> Result<Response<()>, AcceptError> {
        if let Some(name) = headers
            .keys()
            .find(|name| is_reserved(name) || **name == CONTENT_LENGTH)
        {
            return Err(AcceptError::ReservedHeader(name.clone()));
        }
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        if let Some(accept) = &self.accept {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = response.headers_mut();
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
            fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            fields.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        let fields = response.headers_mut();
        if let Some(chosen) = subprotocol {
            let offered = self.subprotocols.iter().any(|offered| offered == chosen);
            let value = HeaderValue::from_str(chosen).ok().filter(|_| offered);
            let Some(value) = value else {
                return Err(AcceptError::SubprotocolNotOffered {
                    chosen: chosen.to_owned(),
                    offered: self.subprotocols.clone(),
                });
            };
            fields.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(response)
    }
}

impl Rejected {
    const fn bad_request(reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason,
        }
    }

    /// 400, or 426 for another version of the protocol.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response, its body says what is wrong. The connection cannot be used for anything else: the client may
    /// have sent frames behind its request.
    pub fn response(&self) -> Response<&'static str> {
        let mut response = Response::new(self.reason);
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        fields.insert(http::header::CONTENT_TYPE, TEXT);
        if self.reason == OTHER_VERSION {
            // RFC 6455, section 4.2.2: say which versions are understood.
            fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
            fields.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
        }
        response
    }
}

const OTHER_VERSION: &str = "only version 13 of WebSocket is spoken here";
const NO_VERSION: &str = "not exactly one sec-websocket-version field";

/// The elements of `sec-websocket-protocol`, of all its fields.
fn subprotocols(headers: &HeaderMap) -> Result<Vec<String>, Rejected> {
    elements(headers, &SEC_WEBSOCKET_PROTOCOL)
        .map(|name| {
            if name.bytes().all(is_token_byte) {
                Ok(name.to_owned())
            } else {
                Err(Rejected::bad_request(
                    "sec-websocket-protocol holds something that is not a token",
                ))
            }
        })
        .collect()
}

/// Makes an ordinary response out of one that an application gave instead of accepting: fields of the handshake and of
/// the connection are taken out.
pub fn deny<B>(response: &mut Response<B>) {
    let fields = response.headers_mut();
    let reserved: Vec<_> = fields
        .keys()
        .filter(|name| is_reserved(name))
        .cloned()
        .collect();
    for name in reserved {
        fields.remove(name);
    }
}

/// Does this field belong to the handshake or to the connection, so that an application may not set it?
fn is_reserved(name: &HeaderName) -> bool {
    [
        UPGRADE,
        CONNECTION,
        TRANSFER_ENCODING,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_PROTOCOL,
    ]
    .contains(name)
}

/// What a server answers to a key (RFC 6455, section 4.2.2, step 5.4).
pub fn accept_value(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update(ACCEPT_GUID)
        .finalize();
    // Base64 is visible ASCII.
    HeaderValue::from_str(&BASE64.encode(digest)).unwrap_or(HeaderValue::from_static(""))
}

/// The value of a field that may occur only once.
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The elements of a list field, whether in one field or several (RFC 9110, section 5.3); empty ones are skipped.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    // A value that is not visible ASCII gives an element that is no token.
    let values = values.map(|value| value.to_str().unwrap_or("\u{fffd}"));
    values
        .flat_map(|value| value.split(','))
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|e| !e.is_empty())
}

/// Does a list field name this token?
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// RFC 9110, section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Rejected {}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubprotocolNotOffered { chosen, offered } if offered.is_empty() => {
                write!(
                    f,
                    "subprotocol {chosen:?} was chosen, but the client offered none"
                )
            }
            Self::SubprotocolNotOffered { chosen, offered } => {
                write!(
                    f,
                    "subprotocol {chosen:?} was chosen, but the client offered only {}",
                    offered.join(", ")
                )
            }
            Self::ReservedHeader(name) => write!(
                f,
                "header {name} of an accepted WebSocket is set by the server"
            ),
        }
    }
}

impl std::error::Error for AcceptError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::get("/chat");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn valid() -> Vec<(&'static str, &'static str)> {
        vec![
            ("host", "server.example.com"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]
    }

    fn with(name: &'static str, value: Option<&'static str>) -> Parts {
        let mut fields = valid();
        fields.retain(|field| field.0 != name);
        fields.extend(value.map(|value| (name, value)));
        request(&fields)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let offer = Offer::of(&request(&valid())).unwrap().unwrap();
        let response = offer.accept(None, HeaderMap::new()).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["connection"], "Upgrade");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn tokens_are_found_in_lists_and_in_any_case() {
        let mut fields = valid();
        fields[1] = ("upgrade", "h2c, WebSocket");
        fields[2] = ("connection", "keep-alive");
        fields.push(("connection", "UPGRADE"));
        assert!(Offer::of(&request(&fields)).unwrap().is_ok());
    }

    #[test]
    fn requests_that_do_not_ask_are_left_alone() {
        assert!(Offer::of(&with("upgrade", None)).is_none());
        assert!(Offer::of(&with("upgrade", Some("h2c"))).is_none());
        let mut old = request(&valid());
        old.version = Version::HTTP_10;
        assert!(Offer::of(&old).is_none());
    }

    #[test]
    fn broken_handshakes_are_rejected() {
        for (name, value) in [
            ("connection", None),
            ("connection", Some("close")),
            ("content-length", Some("5")),
            ("transfer-encoding", Some("chunked")),
            ("sec-websocket-version", None),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("")),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ")),
            ("sec-websocket-key", Some("c2hvcnQ=")),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ=!")),
            ("sec-websocket-protocol", Some("a b")),
        ] {
            let rejected = Offer::of(&with(name, value)).unwrap().unwrap_err();
            assert_eq!(
                rejected.status(),
                StatusCode::BAD_REQUEST,
                "{name}: {value:?}"
            );
            assert_eq!(rejected.response().headers()["connection"], "close");
        }
        let mut post = request(&valid());
        post.method = Method::POST;
        assert_eq!(
            Offer::of(&post).unwrap().unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        let mut twice = valid();
        twice.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(
            Offer::of(&request(&twice)).unwrap().unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }

    fn connect(fields: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .uri("/chat");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn connect_of_http2_is_answered_200_without_fields_of_the_connection() {
        let head = connect(&[
            ("host", "server.example.com"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "soap"),
            ("sec-websocket-protocol", "chat, wamp"),
        ]);
        let offer = Offer::of(&head).unwrap().unwrap();
        assert!(offer.success_accepts());
        assert_eq!(offer.subprotocols(), ["soap", "chat", "wamp"]);
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        let response = offer.accept(Some("chat"), headers).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert_eq!(response.headers()["set-cookie"], "a=1");
        assert_eq!(response.headers().len(), 2);
        let mut get = connect(&[("sec-websocket-version", "13")]);
        get.method = Method::GET;
        assert!(Offer::of(&get).is_none());
    }

    #[test]
    fn broken_handshakes_of_http2_are_rejected() {
        for fields in [
            &[][..],
            &[("sec-websocket-version", "8")],
            &[
                ("sec-websocket-version", "13"),
                ("sec-websocket-version", "13"),
            ],
            &[("sec-websocket-version", "13"), ("content-length", "0")],
            &[
                ("sec-websocket-version", "13"),
                ("sec-websocket-protocol", "a b"),
            ],
        ] {
            let rejected = Offer::of(&connect(fields)).unwrap().unwrap_err();
            assert_eq!(rejected.status(), StatusCode::BAD_REQUEST, "{fields:?}");
            let response = rejected.response();
            assert!(!response.headers().contains_key("upgrade"));
            let told = response.headers().contains_key("sec-websocket-version");
            assert_eq!(told, fields.first().is_some_and(|field| field.1 == "8"));
        }
    }

    #[test]
    fn another_version_is_told_ours() {
        let rejected = Offer::of(&with("sec-websocket-version", Some("8")))
            .unwrap()
            .unwrap_err();
        let response = rejected.response();
        assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(response.headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn subprotocols_come_from_all_fields_in_order() {
        let mut fields = valid();
        fields.push(("sec-websocket-protocol", "soap, wamp"));
        fields.push(("sec-websocket-protocol", "chat"));
        let offer = Offer::of(&request(&fields)).unwrap().unwrap();
        assert_eq!(offer.subprotocols(), ["soap", "wamp", "chat"]);
        let response = offer.accept(Some("chat"), HeaderMap::new()).unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        let error = offer.accept(Some("mqtt"), HeaderMap::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "subprotocol \"mqtt\" was chosen, but the client offered only soap, wamp, chat"
        );
    }

    #[test]
    fn headers_of_the_application_stand_beside_ours() {
        let offer = Offer::of(&request(&valid())).unwrap().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        let response = offer.accept(None, headers).unwrap();
        assert_eq!(
            response
                .headers()
                .get_all("set-cookie")
                .iter()
                .collect::<Vec<_>>(),
            ["a=1", "b=2"]
        );
        let mut headers = HeaderMap::new();
        headers.append("sec-websocket-accept", HeaderValue::from_static("forged"));
        assert_eq!(
            offer.accept(None, headers).unwrap_err(),
            AcceptError::ReservedHeader(SEC_WEBSOCKET_ACCEPT)
        );
    }

    #[test]
    fn a_denial_keeps_no_field_of_the_handshake() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::FORBIDDEN;
        for name in ["upgrade", "sec-websocket-accept", "x-reason"] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("x"));
        }
        deny(&mut response);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["x-reason"], "x");
    }
}
