//! What trusted proxies say about a request: `X-Forwarded-*`, and `Forwarded` (RFC 7239).
//!
//! # Who is believed
//! Each proxy appends the address of its own peer, so the list grows to the right and only its right end is vouched for: the
//! last entry by our peer, the one before it by whoever the last entry names, if that one is trusted as well. The first entry from
//! the right that is not a trusted address is the client; what stands to the left of it was written by the client itself. When all
//! are trusted the leftmost is the client. An entry that is no address (`unknown`, `_hidden`, rubbish) cannot be trusted, so it
//! is the client, whose address is then unknown.
//!
//! # What else they say
//! Scheme, host, port and prefix of the proxy that the client has spoken to. In `Forwarded` they stand in the element that names
//! the client, or, if that proxy did not say, in the next one to its right. A list in `X-Forwarded-Proto` and the others is
//! read at the client's place when it is as long as that of `X-Forwarded-For`; else its last entry counts, which
//! our peer has written. What is not well-formed counts as not said.
//!
//! # Which of the two
//! Only one family is read, the other one is taken out: a proxy that writes one usually passes on what a client sends of the
//! other. Unless it is set which one the proxies write, `X-Forwarded-*` wins over `Forwarded` when there is any of it. A
//! `Forwarded` with an error in it says nothing at all, not even who the client is: a client that sends an open quote
//! could otherwise swallow what a proxy appends.
//!
//! Fields that come several times are one list, in the order in which they come (RFC 9110, 5.3).

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, HOST},
};

use super::trust::Trust;
use crate::h1::is_host;

const PREFIX: &[u8] = b"x-forwarded-";
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const AUTHORITY: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const MOUNT: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Which fields proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// `X-Forwarded-*` if there is any, else `Forwarded`.
    #[default]
    Auto,
    /// `X-Forwarded-*`.
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The peer of the connection: no proxy says otherwise.
    #[default]
    Peer,
    /// What proxies say. Port 0: they do not say which.
    At(SocketAddr),
    /// Proxies say that it is somebody else, but not who.
    Unknown,
}

/// What trusted proxies say about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Whom it comes from.
    pub client: Client,
    /// The client has spoken TLS, or has not.
    pub is_secure: Option<bool>,
    /// Host and port that the client has asked, when they are not those that the request names.
    pub server: Option<(String, u16)>,
    /// Path under which the client sees this server: nothing, or `/` and more, without one at its end.
    pub root_path: Option<String>,
}

/// Left among the extensions of a head when fields that proxies write were taken out of it: what such a request says of its
/// sender is not believed, but it was not sent by a program on this machine either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimsRemoved;

/// A field that proxies write about a request: `Forwarded` or any `X-Forwarded-...`.
pub(crate) fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    match name.first() {
        Some(b'x') => name.starts_with(PREFIX),
        Some(b'f') => name == FORWARDED.as_str().as_bytes(),
        _ => false,
    }
}

/// Takes fields out, and leaves the others in their order.
pub(crate) fn remove(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let all = std::mem::take(headers);
    let mut last = None;
    for (name, value) in all {
        // A name is given with its first value only.
        if name.is_some() {
            last = name;
        }
        if let Some(name) = &last
            && !is_removed(name)
        {
            headers.append(name.clone(), value);
        }
    }
}

/// What our peer, who is trusted, says. `Host` becomes the one that the client has asked for; fields that are not read are
/// taken out.
pub(crate) fn resolve(headers: &mut HeaderMap, trust: &Trust, family: Family) -> Option<Origin> {
    let (mut has_x, mut has_forwarded) = (false, false);
    for name in headers.keys() {
        if is_forwarding(name) {
            if name == FORWARDED {
                has_forwarded = true;
            } else {
                has_x = true;
            }
        }
    }
    let reads_x = match family {
        Family::Auto => has_x,
        Family::XForwarded => true,
        Family::Forwarded => false,
    };
    let said = match (reads_x, has_x, has_forwarded) {
        (true, true, _) => Some(read_x(headers, trust)),
        (false, _, true) => Some(read_forwarded(headers, trust)),
        _ => None,
    };
    if if reads_x { has_forwarded } else { has_x } {
        remove(headers, |name| {
            is_forwarding(name) && (name == FORWARDED) == reads_x
        });
    }
    said.map(|said| said.apply(headers))
}

/// What was read of either family.
#[derive(Default)]
struct Said {
    client: Client,
    is_secure: Option<bool>,
    host: Option<String>,
    port: Option<u16>,
    root_path: Option<String>,
}

impl Said {
    fn apply(self, headers: &mut HeaderMap) -> Origin {
        let default = if self.is_secure == Some(true) {
            443
        } else {
            80
        };
        let mut server = None;
        if self.host.is_some() || self.port.is_some() {
            let host = self.host.or_else(|| {
                let host = headers.get(HOST)?.to_str().ok()?;
                Some(host.to_owned())
            });
            if let Some(host) = host.filter(|host| !host.is_empty()) {
                let (name, said) = split_port(&host);
                // A port in the host is the one that the client has written. `X-Forwarded-Port` may be one of the proxy's own.
                let port = said.or(self.port);
                let name = name.to_owned();
                let field = match port {
                    Some(port) if said.is_none() && port != default => format!("{name}:{port}"),
                    _ => host,
                };
                if let Ok(field) = HeaderValue::try_from(field) {
                    headers.insert(HOST, field);
                }
                let name = name
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                server = Some((name, port.unwrap_or(default)));
            }
        }
        Origin {
            client: self.client,
            is_secure: self.is_secure,
            server,
            root_path: self.root_path,
        }
    }
}

/// A host, which is valid, without its port.
fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        // `[::1]` has colons of its own.
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (name, None),
        },
        _ => (host, None),
    }
}

// ------------------------------------------------------------------------------------------------
// X-Forwarded-*.

/// The entries of a list, the last one first. Empty ones are no entries (RFC 9110, 5.6.1).
fn entries<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

fn read_x(headers: &HeaderMap, trust: &Trust) -> Said {
    let (client, place) = client_of(
        entries(headers, &FOR).map(|entry| node(std::str::from_utf8(entry).unwrap_or(""))),
        trust,
    );
    let hops = entries(headers, &FOR).count();
    let said = |name: &HeaderName| -> Option<&str> {
        let mut last = entries(headers, name);
        let entry = if hops > 1 && entries(headers, name).count() == hops {
            last.nth(place)
        } else {
            last.next()
        }?;
        std::str::from_utf8(entry).ok()
    };
    Said {
        client,
        is_secure: said(&PROTO).and_then(is_secure),
        host: said(&AUTHORITY).and_then(host),
        port: said(&PORT).and_then(port),
        root_path: said(&MOUNT).and_then(prefix),
    }
}

/// A hop as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    At(IpAddr, u16),
    /// Hidden on purpose, or no address.
    Unknown,
}

/// The client among the hops, of which the last one comes first, and its place among them.
fn client_of(hops: impl Iterator<Item = Node>, trust: &Trust) -> (Client, usize) {
    let (mut client, mut place) = (Client::Peer, 0);
    for (index, hop) in hops.enumerate() {
        place = index;
        match hop {
            Node::Unknown => return (Client::Unknown, place),
            Node::At(address, port) => {
                client = Client::At(SocketAddr::new(address, port));
                if !trust.trusts_ip(address) {
                    break;
                }
            }
        }
    }
    (client, place)
}

/// An address with or without a port: as RFC 7239, 6 has it, and IPv6 also without brackets.
fn node(text: &str) -> Node {
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        match rest.split_once(']') {
            Some((address, port)) if address.contains(':') => (address, port),
            _ => return Node::Unknown,
        }
    } else if text.bytes().filter(|&byte| byte == b':').count() == 1 {
        text.split_at(text.find(':').unwrap_or(text.len()))
    } else {
        (text, "")
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => Some(0),
        None => None,
        // A port may be hidden like an address.
        Some(hidden) if is_hidden(hidden) => Some(0),
        Some(digits) => self::port(digits),
    };
    match (address.parse::<IpAddr>(), port) {
        (Ok(address), Some(port)) => Node::At(address.to_canonical(), port),
        _ => Node::Unknown,
    }
}

/// `obfnode` and `obfport` (RFC 7239, 6.3).
fn is_hidden(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_secure(scheme: &str) -> Option<bool> {
    for (name, is_secure) in [
        ("https", true),
        ("http", false),
        ("wss", true),
        ("ws", false),
    ] {
        if scheme.eq_ignore_ascii_case(name) {
            return Some(is_secure);
        }
    }
    None
}

fn host(text: &str) -> Option<String> {
    let port_fits = text
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.contains(']') || self::port(port).is_some());
    (!text.is_empty() && !text.starts_with(':') && is_host(text.as_bytes()) && port_fits)
        .then(|| text.to_owned())
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// What a path may be put behind. `//host` would lead elsewhere, `..` and a backslash are read in different ways.
fn prefix(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let is_path = text.is_empty()
        || (text.starts_with('/')
            && !text.contains("//")
            && !text.split('/').any(|part| part == "..")
            && text
                .bytes()
                .all(|byte| matches!(byte, b'!'..=b'~') && !b"?#\\%\"<>".contains(&byte)));
    is_path.then(|| text.to_owned())
}

// ------------------------------------------------------------------------------------------------
// Forwarded.

/// One hop as RFC 7239 has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    node: Option<Cow<'a, str>>,
    proto: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
}

fn read_forwarded(headers: &HeaderMap, trust: &Trust) -> Said {
    let nothing = || Said {
        client: Client::Unknown,
        ..Said::default()
    };
    let mut elements = Vec::new();
    for value in headers.get_all(FORWARDED) {
        let well_formed = std::str::from_utf8(value.as_bytes())
            .ok()
            .and_then(|value| parse(value, &mut elements));
        if well_formed.is_none() {
            return nothing();
        }
    }
    let hops = elements.iter().rev().map(|element| match &element.node {
        Some(text) => node(text),
        None => Node::Unknown,
    });
    let (client, place) = client_of(hops, trust);
    let from_client = || {
        elements
            .iter()
            .skip(elements.len().saturating_sub(place + 1))
    };
    Said {
        client,
        is_secure: from_client().find_map(|element| is_secure(element.proto.as_deref()?)),
        host: from_client().find_map(|element| host(element.host.as_deref()?)),
        ..Said::default()
    }
}

/// The elements of one field (RFC 7239, 4); nothing if it is malformed. White space around separators is let through.
fn parse<'a>(field: &'a str, elements: &mut Vec<Element<'a>>) -> Option<()> {
    let mut rest = field;
    loop {
        let mut element = Element::default();
        let mut is_empty = true;
        loop {
            rest = rest.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with([';', ',']) {
                rest = pair(rest, &mut element)?.trim_ascii_start();
                is_empty = false;
            }
            match rest.strip_prefix(';') {
                Some(next) => rest = next,
                None => break,
            }
        }
        if !is_empty {
            elements.push(element);
        }
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?;
    }
}

/// Reads `name=value`, and gives what stands behind it.
fn pair<'a>(text: &'a str, element: &mut Element<'a>) -> Option<&'a str> {
    let (name, rest) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
        unquote(quoted)?
    } else {
        let end = rest.find([';', ',', '"']).unwrap_or(rest.len());
        let (value, rest) = rest.split_at(end);
        let value = value.trim_ascii_end();
        // Colons and brackets belong between quotes; who leaves those out is understood all the same.
        let is_plain = |byte| is_token(byte) || b":[]/".contains(&byte);
        if value.is_empty() || !value.bytes().all(is_plain) {
            return None;
        }
        (Cow::Borrowed(value), rest)
    };
    let known = if name.eq_ignore_ascii_case("for") {
        &mut element.node
    } else if name.eq_ignore_ascii_case("proto") {
        &mut element.proto
    } else if name.eq_ignore_ascii_case("host") {
        &mut element.host
    } else {
        // `by`, and what is yet to be invented (RFC 7239, 5.5).
        return Some(rest);
    };
    // Not more than once in an element.
    known.replace(value).is_none().then_some(rest)
}

/// A quoted string (RFC 9110, 5.6.4) behind its first quote, and what stands behind it.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = String::with_capacity(text.len());
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// For fuzzing: the properties that hold for whatever a client sends through a proxy at 10.0.0.1 that appends the client's
/// address.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(data: &[u8]) {
    let trust = Trust::of(["10.0.0.0/8"]).expect("a network");
    let client: SocketAddr = "192.0.2.7:0".parse().expect("an address");
    let (first, rest) = data.split_at(data.len() / 2);
    let mut headers = HeaderMap::new();
    for (name, bytes) in [
        (FOR, first),
        (PROTO, rest),
        (AUTHORITY, first),
        (MOUNT, rest),
        (PORT, first),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            headers.append(name, value);
        }
    }
    let mut appended = headers
        .get(FOR)
        .map_or(Vec::new(), |sent| sent.as_bytes().to_vec());
    appended.extend_from_slice(b", 192.0.2.7, 10.0.0.2");
    headers.insert(
        FOR,
        HeaderValue::from_bytes(&appended).expect("what was valid, and more"),
    );
    let origin = resolve(&mut headers, &trust, Family::Auto).expect("the proxy has said something");
    assert_eq!(
        origin.client,
        Client::At(client),
        "the proxy knows who the client is"
    );
    if let Some(host) = headers.get(HOST) {
        assert!(
            is_host(host.as_bytes()),
            "a host is valid, whoever wrote it"
        );
    }
    if let Some(path) = &origin.root_path {
        assert!(path.is_empty() || path.starts_with('/') && !path.ends_with('/'));
    }

    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(data) {
        headers.append(FORWARDED, value);
    }
    headers.append(
        FORWARDED,
        HeaderValue::from_static("for=192.0.2.7, for=10.0.0.2;proto=https"),
    );
    let origin = resolve(&mut headers, &trust, Family::Auto).expect("the proxy has said something");
    assert!(
        matches!(origin.client, Client::Unknown) || origin.client == Client::At(client),
        "a client is who the proxy says, or nobody knows"
    );

    let mut elements = Vec::new();
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse(text, &mut elements);
        let _ = node(text);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{
        Client, Family, Node, Origin, Trust, check, is_forwarding, node, prefix, remove, resolve,
    };

    fn resolved(
        fields: &[(&'static str, &'static str)],
        family: Family,
    ) -> (Option<Origin>, HeaderMap) {
        let trust = Trust::of(["10.0.0.0/8", "fd00::/8"]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let origin = resolve(&mut headers, &trust, family);
        (origin, headers)
    }

    fn client(fields: &[(&'static str, &'static str)]) -> String {
        match resolved(fields, Family::Auto).0.unwrap_or_default().client {
            Client::Peer => "peer".to_owned(),
            Client::At(address) if address.port() == 0 => address.ip().to_string(),
            Client::At(address) => address.to_string(),
            Client::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn the_first_hop_from_the_right_that_is_not_trusted_is_the_client() {
        for (list, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
            ("6.6.6.6,1.2.3.4 ,\t10.0.0.9,10.1.1.1", "1.2.3.4"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("1.2.3.4:5678", "1.2.3.4:5678"),
            ("[2001:db8::1]:5678", "[2001:db8::1]:5678"),
            ("2001:db8::1", "2001:db8::1"),
            ("\"[2001:db8::1]\"", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("1.2.3.4, ::ffff:10.0.0.1", "1.2.3.4"),
            ("6.6.6.6, unknown, 10.0.0.1", "unknown"),
            ("6.6.6.6, _gazonk", "unknown"),
            ("6.6.6.6, localhost", "unknown"),
            ("1.2.3.4, , ,", "1.2.3.4"),
            ("", "peer"),
            ("1.2.3.4:x", "unknown"),
            ("1.2.3.4:65536", "unknown"),
            ("01.2.3.4", "unknown"),
        ] {
            assert_eq!(client(&[("x-forwarded-for", list)]), expected, "{list:?}");
        }
    }

    #[test]
    fn fields_that_are_repeated_are_one_list() {
        let name = "x-forwarded-for";
        assert_eq!(
            client(&[(name, "6.6.6.6"), (name, "1.2.3.4"), (name, "10.0.0.1")]),
            "1.2.3.4"
        );
        assert_eq!(
            client(&[(name, "1.2.3.4, 10.0.0.3"), (name, "10.0.0.2, 10.0.0.1")]),
            "1.2.3.4"
        );
        let name = "forwarded";
        assert_eq!(
            client(&[(name, "for=6.6.6.6"), (name, "for=1.2.3.4, for=10.0.0.1")]),
            "1.2.3.4"
        );
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_has_it() {
        for (field, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                "[2001:db8:cafe::17]:4711",
            ),
            ("for=1.2.3.4;proto=http;by=203.0.113.43", "1.2.3.4"),
            ("for=192.0.2.43, for=1.2.3.4", "1.2.3.4"),
            ("for=1.2.3.4,for=\"10.0.0.1:80\" ; by=_x", "1.2.3.4"),
            ("by=10.0.0.1;for=\"1\\.2.3.4\"", "1.2.3.4"),
            ("for=\"1.2.3.4:_port\"", "1.2.3.4"),
            ("for=unknown", "unknown"),
            ("for=\"_gazonk\"", "unknown"),
            ("for=6.6.6.6, proto=https", "unknown"),
            (", ,for=1.2.3.4,", "1.2.3.4"),
            (";;for=1.2.3.4;", "1.2.3.4"),
            // An error anywhere: nothing of it is believed.
            ("for=6.6.6.6, for=\"1.2.3.4", "unknown"),
            ("for=\", for=1.2.3.4", "unknown"),
            ("for=6.6.6.6;for=1.2.3.4", "unknown"),
            ("for", "unknown"),
            ("for=", "unknown"),
            ("=1.2.3.4", "unknown"),
            ("f or=1.2.3.4", "unknown"),
            ("for=1.2.3.4 for=6.6.6.6", "unknown"),
            ("for=\"1.2.3.4\"x", "unknown"),
            ("for=\"\\", "unknown"),
        ] {
            assert_eq!(client(&[("forwarded", field)]), expected, "{field:?}");
        }
    }

    #[test]
    fn scheme_host_port_and_prefix_are_those_of_the_client() {
        let origin = |fields: &[_]| resolved(fields, Family::Auto).0.unwrap();
        let one = origin(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-host", "example.org"),
            ("x-forwarded-prefix", "/api/"),
        ]);
        assert_eq!(one.is_secure, Some(true));
        assert_eq!(one.server, Some(("example.org".to_owned(), 443)));
        assert_eq!(one.root_path.as_deref(), Some("/api"));
        // As long as the list of hops: the client's place counts. Else the entry that our peer has written.
        for (hops, schemes, is_secure) in [
            (
                "6.6.6.6, 1.2.3.4, 10.0.0.2",
                "http, https, http",
                Some(true),
            ),
            ("6.6.6.6, 1.2.3.4, 10.0.0.2", "http, https", Some(true)),
            ("6.6.6.6, 1.2.3.4", "https, http", Some(false)),
            ("1.2.3.4", "https, http", Some(false)),
            ("1.2.3.4", "wss", Some(true)),
            ("1.2.3.4", "gopher", None),
        ] {
            let origin = origin(&[("x-forwarded-for", hops), ("x-forwarded-proto", schemes)]);
            assert_eq!(origin.is_secure, is_secure, "{hops} {schemes}");
        }
        let rfc = origin(&[(
            "forwarded",
            "for=6.6.6.6;proto=http;host=evil, for=1.2.3.4;host=example.org, for=10.0.0.1;proto=https;host=inner",
        )]);
        assert_eq!(
            rfc.is_secure,
            Some(true),
            "what the client's proxy did not say, the next one has said"
        );
        assert_eq!(rfc.server, Some(("example.org".to_owned(), 443)));
    }

    #[test]
    fn host_becomes_what_the_client_has_asked_for() {
        for (fields, host, server) in [
            (
                &[("x-forwarded-host", "a.b:8443")][..],
                "a.b:8443",
                Some(("a.b", 8443)),
            ),
            (
                &[("x-forwarded-host", "a.b"), ("x-forwarded-port", "8443")],
                "a.b:8443",
                Some(("a.b", 8443)),
            ),
            (
                &[("x-forwarded-host", "a.b:1"), ("x-forwarded-port", "2")],
                "a.b:1",
                Some(("a.b", 1)),
            ),
            (
                &[("x-forwarded-port", "81")],
                "inner:81",
                Some(("inner", 81)),
            ),
            (&[("x-forwarded-port", "80")], "inner", Some(("inner", 80))),
            (
                &[("x-forwarded-port", "443"), ("x-forwarded-proto", "https")],
                "inner",
                Some(("inner", 443)),
            ),
            (
                &[("x-forwarded-host", "[::1]:90")],
                "[::1]:90",
                Some(("::1", 90)),
            ),
            (&[("x-forwarded-host", "a/b")], "inner", None),
            (&[("x-forwarded-host", "a b")], "inner", None),
            (&[("x-forwarded-host", ":80")], "inner", None),
            (&[("x-forwarded-host", "a:99999")], "inner", None),
            (&[("x-forwarded-port", "eighty")], "inner", None),
            (&[("x-forwarded-port", "70000")], "inner", None),
        ] {
            let all: Vec<_> = [("host", "inner")].iter().chain(fields).copied().collect();
            let (origin, headers) = resolved(&all, Family::Auto);
            assert_eq!(headers["host"], host, "{fields:?}");
            let server = server.map(|(name, port): (&str, u16)| (name.to_owned(), port));
            assert_eq!(origin.unwrap().server, server, "{fields:?}");
            assert_eq!(
                headers.keys().next().unwrap(),
                "host",
                "it stays where it was"
            );
        }
    }

    #[test]
    fn prefix_is_a_path() {
        for (text, path) in [
            ("/api", Some("/api")),
            ("/api/", Some("/api")),
            ("/", Some("")),
            ("/a/b", Some("/a/b")),
            ("api", None),
            ("//evil.example", None),
            ("/a//b", None),
            ("/a/../b", None),
            ("/a?b", None),
            ("/a\\b", None),
            ("/%2e%2e", None),
            ("/a b", None),
            ("http://evil", None),
        ] {
            assert_eq!(prefix(text).as_deref(), path, "{text:?}");
        }
    }

    #[test]
    fn one_family_is_read_and_the_other_one_is_taken_out() {
        let both = [
            ("accept", "*/*"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-b", "2"),
        ];
        for (family, client, left) in [
            (
                Family::Auto,
                "1.2.3.4",
                &["accept", "x-forwarded-for", "x-b"][..],
            ),
            (
                Family::XForwarded,
                "1.2.3.4",
                &["accept", "x-forwarded-for", "x-b"],
            ),
            (
                Family::Forwarded,
                "6.6.6.6",
                &["accept", "forwarded", "x-b"],
            ),
        ] {
            let (origin, headers) = resolved(&both, family);
            let expected = Client::At(format!("{client}:0").parse().unwrap());
            assert_eq!(origin.unwrap().client, expected, "{family:?}");
            let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, left, "{family:?}");
        }
        let (origin, headers) = resolved(&[("forwarded", "for=6.6.6.6")], Family::XForwarded);
        assert_eq!((origin, headers.len()), (None, 0));
        // Any other field of the family wins as well: its proxy writes no `Forwarded`.
        let mixed = [("forwarded", "for=6.6.6.6"), ("x-forwarded-proto", "https")];
        assert_eq!(client(&mixed), "peer");
        assert_eq!(resolved(&[("accept", "*/*")], Family::Auto).0, None);
    }

    #[test]
    fn only_what_proxies_write_is_taken_out() {
        for (name, is_one) in [
            ("forwarded", true),
            ("x-forwarded-for", true),
            ("x-forwarded-ssl", true),
            ("x-forwarded", false),
            ("x-for", false),
            ("from", false),
            ("forwarded-for", false),
        ] {
            assert_eq!(
                is_forwarding(&HeaderName::from_static(name)),
                is_one,
                "{name}"
            );
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("b", "1"),
            ("x-forwarded-for", "2"),
            ("a", "3"),
            ("x-forwarded-for", "4"),
            ("b", "5"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        remove(&mut headers, is_forwarding);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(left, [("b", &b"1"[..]), ("b", b"5"), ("a", b"3")]);
    }

    #[test]
    fn hidden_nodes_and_rubbish_are_nobody() {
        for text in [
            "",
            "_a",
            "unknown",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "1.2.3",
            "[::1]x",
            "a:b:c",
        ] {
            assert_eq!(node(text), Node::Unknown, "{text:?}");
        }
    }

    #[test]
    fn properties_hold_for_some_bytes() {
        for data in [
            &b""[..],
            b"for=\"",
            b"1.2.3.4",
            b"unknown,\"",
            b"\xff,\x80",
            b"for=1.2.3.4;for",
            b"//a/..,b",
        ] {
            check(data);
        }
    }
}
