//! Heads over HTTP/2: which requests are served, and what is put right before a handler or the crate sees a head.
//!
//! The crate refuses what is malformed by RFC 9113, 8.2 and 8.3: names in upper case, fields of the connection, pseudo-fields that
//! are unknown, repeated, missing or late, lengths that do not agree with the body. The rest is the same as over HTTP/1: a
//! handler sees a target in origin form and one valid `host`, which is the first of the fields, as ASGI wants it. Crumbs of a
//! cookie (RFC 9113, 8.2.3) are joined again.
//!
//! CONNECT is served for one thing only, to open a WebSocket (RFC 8441); then it has a path and a scheme like any request.

use std::cell::RefCell;

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};

use crate::config::Limits;
use crate::edge::forwarded::{ClaimsRemoved, is_forwarding};
use crate::h1::{is_host, is_origin_form};
use crate::refusal::{
    Refusal, bad, connect, other_protocol, repeated_host, repeated_length, target_too_long,
};

/// What belongs to a connection of HTTP/1.
static OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Longer ones are read each time: nobody should be able to make a connection large.
const KNOWN_BYTES_MAX: usize = 63;

/// The last `:authority` of a connection, as the value of `host`: nearly every client sends the same one with each request.
#[derive(Default)]
pub(super) struct KnownAuthority(RefCell<Option<HeaderValue>>);

impl KnownAuthority {
    /// The authority as a valid `host`.
    fn host(&self, authority: &str) -> Result<HeaderValue, Refusal> {
        let mut known = self.0.borrow_mut();
        if let Some(known) = &*known
            && known == authority
        {
            return Ok(known.clone());
        }
        let host = HeaderValue::from_str(authority)
            .ok()
            .filter(|host| is_host(host.as_bytes()))
            .ok_or_else(malformed_authority)?;
        if authority.len() <= KNOWN_BYTES_MAX {
            *known = Some(host.clone());
        }
        Ok(host)
    }
}

fn malformed_authority() -> Refusal {
    bad("the :authority is not a host name with an optional port\n")
}

/// Checks a request and puts it into the form that handlers see. What proxies say is left to those who are trusted.
pub(super) fn admit(
    head: &mut Parts,
    limits: &Limits,
    known: &KnownAuthority,
    is_trusted: bool,
) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        match head.extensions.get::<Protocol>() {
            None => return Err(connect()),
            Some(protocol) if protocol.as_str() != "websocket" => return Err(other_protocol()),
            Some(_) => {}
        }
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    if !matches!(
        uri.scheme.as_ref().map(http::uri::Scheme::as_str),
        Some("http" | "https")
    ) {
        return Err(bad("the scheme is neither http nor https\n"));
    }
    let target = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let text = target.as_str();
    if text.len() > limits.target_bytes_max {
        return Err(target_too_long());
    }
    if !is_origin_form(text, &head.method) {
        return Err(bad("the request target is not a path\n"));
    }
    let authority = uri.authority.as_ref().map(http::uri::Authority::as_str);
    let fields = std::mem::take(&mut head.headers);
    let (headers, has_removed) = fields_of(fields, authority, limits, known, is_trusted)?;
    head.headers = headers;
    if has_removed {
        head.extensions.insert(ClaimsRemoved);
    }
    head.uri = Uri::from(target);
    Ok(())
}

/// The fields as handlers see them: `host` first, one `cookie`; and whether any that only proxies are to write were taken out.
fn fields_of(
    mut fields: HeaderMap,
    authority: Option<&str>,
    limits: &Limits,
    known: &KnownAuthority,
    is_trusted: bool,
) -> Result<(HeaderMap, bool), Refusal> {
    if fields.len() > limits.header_count_max {
        return Err(Refusal(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has too many header fields\n",
        ));
    }
    let host = host_of(&fields, authority, known)?;
    if fields.is_empty() {
        fields.insert(HOST, host);
        return Ok((fields, false));
    }
    if fields.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(repeated_length());
    }
    let mut admitted = HeaderMap::with_capacity(fields.len() + 1);
    admitted.insert(HOST, host);
    let mut last = None;
    let mut cookie = Vec::new();
    let mut crumbs = 0;
    let mut has_removed = false;
    for (name, value) in fields {
        // A name is given with its first value only.
        if name.is_some() {
            last = name;
        }
        let Some(name) = &last else { continue };
        if name == HOST {
            continue;
        }
        if !is_trusted && is_forwarding(name) {
            has_removed = true;
            continue;
        }
        if name == COOKIE {
            crumbs += 1;
            if crumbs > 1 {
                cookie.extend_from_slice(b"; ");
            }
            cookie.extend_from_slice(value.as_bytes());
            if crumbs > 1 {
                continue;
            }
        }
        admitted.append(name.clone(), value);
    }
    if crumbs > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&cookie)
    {
        admitted.insert(COOKIE, cookie);
    }
    Ok((admitted, has_removed))
}

/// RFC 9113, 8.3.1: `:authority`, or `host` in its place; when both are there, they say the same.
fn host_of(
    fields: &HeaderMap,
    authority: Option<&str>,
    known: &KnownAuthority,
) -> Result<HeaderValue, Refusal> {
    let mut hosts = fields.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(repeated_host());
    }
    match (authority, host) {
        (None, None) => Err(bad("the request has neither :authority nor Host\n")),
        (None, Some(host)) if is_host(host.as_bytes()) => Ok(host.clone()),
        (None, Some(_)) => Err(malformed_authority()),
        (Some(authority), Some(host))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            Err(bad("the Host is not the :authority\n"))
        }
        (Some(authority), _) => known.host(authority),
    }
}

/// Takes out what belongs to a connection of HTTP/1 and must not stand in a response of HTTP/2 (RFC 9113, 8.2.2). True when there
/// is a `date`. One walk over the map costs less than a look-up of each.
pub(super) fn strip(headers: &mut HeaderMap) -> bool {
    let (mut has_date, mut is_clean) = (false, true);
    for name in headers.keys() {
        if *name == DATE {
            has_date = true;
        } else if OF_CONNECTION.contains(name) {
            is_clean = false;
        }
    }
    if !is_clean {
        for name in &OF_CONNECTION {
            headers.remove(name);
        }
    }
    has_date
}
