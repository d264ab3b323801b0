//! Was a request made on this machine, and by whom: a program, a page of this server, or a page of a stranger?
//!
//! The peer's address alone says neither. A proxy on this machine passes on strangers from 127.0.0.1, and any page that a browser on
//! this machine shows can make it send requests to 127.0.0.1: with a form to our own address (then `Origin` and `Sec-Fetch-Site`
//! name the page), or by a name of the page's own that its DNS leads here (rebinding; then `Host` is that name). So everything
//! that could tell of a stranger has to be absent.
//!
//! A proxy that adds nothing cannot be told from a program. The usual one of that kind, nginx without `proxy_set_header`, speaks
//! HTTP/1.0 to its servers (before 1.29.7), so that version does not count as local. Whoever runs another one switches the rule off.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{HOST, ORIGIN, VIA},
    request::Parts,
};

use crate::edge::{
    Arrival, Client,
    forwarded::{ClaimsRemoved, is_forwarding},
};
use crate::service::{Address, ConnectionInfo};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By what proxies are known, beside `Forwarded` and `X-Forwarded-*`.
const OF_PROXIES: [&str; 9] = [
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "cdn-loop",
];

/// Why a request does not count as one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It came from elsewhere, to an address of the network, or through a Unix socket, where proxies stand as well.
    Address,
    /// Something says that a proxy has passed it on.
    Proxied,
    /// It asks for a name that is none of this machine's.
    Host,
    /// A page of another site has sent it.
    OtherSite,
}

impl Stranger {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Address => "the connection does not lead from a loopback address to one",
            Self::Proxied => "the request has come through a proxy",
            Self::Host => "its Host is neither localhost nor a loopback address",
            Self::OtherSite => "a page of another origin has sent it",
        }
    }
}

/// Looks for everything that tells of a stranger.
///
/// # Errors
/// The first sign of one.
pub fn check_local(
    head: &Parts,
    connection: &ConnectionInfo,
    arrival: Option<&Arrival>,
) -> Result<(), Stranger> {
    if !is_loopback(&connection.peer) || !is_loopback(&connection.local) {
        return Err(Stranger::Address);
    }
    if connection.is_proxied
        || head.version < Version::HTTP_11
        || head.extensions.get::<ClaimsRemoved>().is_some()
        || arrival.is_some_and(|arrival| arrival.origin.client != Client::Peer)
        || head.headers.keys().any(is_of_proxy)
    {
        return Err(Stranger::Proxied);
    }
    match only(&head.headers, &HOST) {
        Ok(Some(host)) if is_local_host(host.as_bytes()) => {}
        _ => return Err(Stranger::Host),
    }
    check_same_origin(head, connection, arrival)
}

/// No page of another origin has sent it, as far as browsers say: they write `Origin` with all but plain `GET`s, and
/// `Sec-Fetch-Site` with everything that goes to https or to this machine.
///
/// # Errors
/// [`Stranger::OtherSite`].
pub fn check_same_origin(
    head: &Parts,
    connection: &ConnectionInfo,
    arrival: Option<&Arrival>,
) -> Result<(), Stranger> {
    let headers = &head.headers;
    match only(headers, &SEC_FETCH_SITE) {
        Ok(None) => {}
        // `none`: the person has typed the address.
        Ok(Some(site)) if site == "same-origin" || site == "none" => {}
        _ => return Err(Stranger::OtherSite),
    }
    let origin = match only(headers, &ORIGIN) {
        Ok(None) => return Ok(()),
        Ok(Some(origin)) => origin,
        Err(Several) => return Err(Stranger::OtherSite),
    };
    let is_secure = arrival
        .and_then(|arrival| arrival.origin.is_secure)
        .unwrap_or(connection.tls.is_some());
    match only(headers, &HOST) {
        Ok(Some(host)) if is_origin_of(origin.as_bytes(), host.as_bytes(), is_secure) => Ok(()),
        _ => Err(Stranger::OtherSite),
    }
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Inet(address) => address.ip().to_canonical().is_loopback(),
        Address::Unix(_) => false,
    }
}

fn is_of_proxy(name: &HeaderName) -> bool {
    is_forwarding(name) || name == VIA || OF_PROXIES.contains(&name.as_str())
}

/// A name or address of this machine, with or without a port. Its form was checked with the head.
fn is_local_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (name, _) = split_port(host);
    if let Some(address) = name.strip_prefix('[') {
        let address = address
            .strip_suffix(']')
            .and_then(|address| address.parse().ok());
        return address.is_some_and(|address: IpAddr| address.to_canonical().is_loopback());
    }
    // RFC 6761, 6.3: names below localhost lead to loopback, whatever DNS says.
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.is_loopback();
    }
    let (last, below) = match name.rsplit_once('.') {
        Some((below, last)) => (last, Some(below)),
        None => (name, None),
    };
    last.eq_ignore_ascii_case("localhost") && below != Some("")
}

/// Is `origin` (RFC 6454, 7) what a page of this host has?
fn is_origin_of(origin: &[u8], host: &[u8], is_secure: bool) -> bool {
    let (Ok(origin), Ok(host)) = (std::str::from_utf8(origin), std::str::from_utf8(host)) else {
        return false;
    };
    let (scheme, default) = if is_secure {
        ("https://", 443)
    } else {
        ("http://", 80)
    };
    let Some(authority) = origin
        .get(..scheme.len())
        .filter(|start| start.eq_ignore_ascii_case(scheme))
        .map(|_| &origin[scheme.len()..])
    else {
        return false;
    };
    let port = |text: Option<&str>| match text {
        None | Some("") => Some(default),
        Some(digits) => digits.parse::<u16>().ok(),
    };
    let ((name, its_port), (other, other_port)) = (split_port(authority), split_port(host));
    let ports = (port(its_port), port(other_port));
    !name.is_empty() && name.eq_ignore_ascii_case(other) && ports.0.is_some() && ports.0 == ports.1
}

/// A host without its port.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // `[::1]` has colons of its own.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// A field that may occur only once occurs more often.
struct Several;

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Several> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Several),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::{HeaderName, HeaderValue, Version, request::Parts};

    use super::{Stranger, check_local, is_local_host, is_origin_of};
    use crate::edge::{Arrival, Client, Origin, forwarded::ClaimsRemoved};
    use crate::routes::test_request;
    use crate::service::{Address, ConnectionInfo};

    fn request(fields: &[(&'static str, &'static str)]) -> (Rc<ConnectionInfo>, Parts) {
        let (info, request) = test_request("/topics/a");
        let mut head = request.head;
        for (name, value) in fields {
            head.headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        (info, head)
    }

    fn inet(text: &str) -> Address {
        Address::Inet(text.parse().unwrap())
    }

    #[test]
    fn hosts_of_this_machine_are_known() {
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "camera.localhost",
            "a.b.localhost:1",
            "127.0.0.1",
            "127.255.0.9:80",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_local_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "xlocalhost",
            ".localhost",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "0.0.0.0",
            "[::2]",
            "[::]",
            "[fe80::1]",
            "127.1",
            "0x7f000001",
            "2130706433",
            "localhost.",
            "127.0.0.1@evil.example",
            "\u{e9}",
        ] {
            assert!(!is_local_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn origin_is_compared_with_scheme_host_and_port() {
        for (origin, host, is_secure, same) in [
            ("http://localhost:8000", "localhost:8000", false, true),
            ("http://LocalHost:8000", "localhost:8000", false, true),
            ("HTTP://localhost:8000", "localhost:8000", false, true),
            ("http://localhost", "localhost:80", false, true),
            ("http://localhost:80", "localhost", false, true),
            ("https://localhost", "localhost:443", true, true),
            ("http://[::1]:8000", "[::1]:8000", false, true),
            ("http://[::1]", "[::1]", false, true),
            ("http://localhost:8001", "localhost:8000", false, false),
            ("http://localhost", "localhost:8000", false, false),
            ("https://localhost:8000", "localhost:8000", false, false),
            ("http://localhost:8000", "localhost:8000", true, false),
            ("http://127.0.0.1:8000", "localhost:8000", false, false),
            ("http://evil.example", "localhost:8000", false, false),
            (
                "http://localhost:8000.evil.example",
                "localhost:8000",
                false,
                false,
            ),
            ("http://localhost:8000/", "localhost:8000", false, false),
            ("http://user@localhost:8000", "localhost:8000", false, false),
            ("http://", "", false, false),
            ("null", "localhost:8000", false, false),
            ("", "localhost:8000", false, false),
            ("chrome-extension://abc", "abc", false, false),
            ("http://localhost:99999", "localhost:99999", false, false),
        ] {
            assert_eq!(
                is_origin_of(origin.as_bytes(), host.as_bytes(), is_secure),
                same,
                "{origin} {host} {is_secure}"
            );
        }
    }

    #[test]
    fn request_of_this_machine_has_no_sign_of_a_stranger() {
        const HERE: (&str, &str) = ("host", "localhost:8000");
        let allowed: [&[(&str, &str)]; 5] = [
            &[HERE],
            &[HERE, ("origin", "http://localhost:8000")],
            &[HERE, ("sec-fetch-site", "same-origin")],
            &[HERE, ("sec-fetch-site", "none")],
            &[
                HERE,
                ("x-request-id", "1"),
                ("cookie", "a=b"),
                ("user-agent", "curl"),
            ],
        ];
        for fields in allowed {
            let (info, head) = request(fields);
            assert_eq!(check_local(&head, &info, None), Ok(()), "{fields:?}");
        }
        let refused: [(&[(&str, &str)], Stranger); 22] = [
            (&[], Stranger::Host),
            (&[("host", "evil.example")], Stranger::Host),
            (&[HERE, HERE], Stranger::Host),
            (&[HERE, ("forwarded", "for=1.2.3.4")], Stranger::Proxied),
            (&[HERE, ("x-forwarded-for", "127.0.0.1")], Stranger::Proxied),
            (&[HERE, ("x-forwarded-anything", "")], Stranger::Proxied),
            (&[HERE, ("via", "1.1 squid")], Stranger::Proxied),
            (&[HERE, ("x-real-ip", "1.2.3.4")], Stranger::Proxied),
            (&[HERE, ("x-client-ip", "1.2.3.4")], Stranger::Proxied),
            (
                &[HERE, ("x-cluster-client-ip", "1.2.3.4")],
                Stranger::Proxied,
            ),
            (
                &[HERE, ("x-original-forwarded-for", "1.2.3.4")],
                Stranger::Proxied,
            ),
            (&[HERE, ("true-client-ip", "1.2.3.4")], Stranger::Proxied),
            (&[HERE, ("cf-connecting-ip", "1.2.3.4")], Stranger::Proxied),
            (&[HERE, ("fastly-client-ip", "1.2.3.4")], Stranger::Proxied),
            (&[HERE, ("cdn-loop", "cloudflare")], Stranger::Proxied),
            (
                &[HERE, ("origin", "http://evil.example")],
                Stranger::OtherSite,
            ),
            (&[HERE, ("origin", "null")], Stranger::OtherSite),
            (
                &[HERE, ("origin", "http://localhost:3000")],
                Stranger::OtherSite,
            ),
            (
                &[HERE, ("sec-fetch-site", "cross-site")],
                Stranger::OtherSite,
            ),
            (
                &[HERE, ("sec-fetch-site", "same-site")],
                Stranger::OtherSite,
            ),
            (
                &[HERE, ("sec-fetch-site", "none"), ("sec-fetch-site", "none")],
                Stranger::OtherSite,
            ),
            (
                &[
                    HERE,
                    ("origin", "http://localhost:8000"),
                    ("origin", "http://localhost:8000"),
                ],
                Stranger::OtherSite,
            ),
        ];
        for (fields, stranger) in refused {
            let (info, head) = request(fields);
            assert_eq!(check_local(&head, &info, None), Err(stranger), "{fields:?}");
        }
    }

    #[test]
    fn connection_decides_as_well() {
        let (info, head) = request(&[("host", "localhost")]);
        let with = |change: &dyn Fn(&mut ConnectionInfo)| {
            let mut info = (*info).clone();
            change(&mut info);
            check_local(&head, &info, None)
        };
        assert_eq!(with(&|_| ()), Ok(()));
        assert_eq!(
            with(&|info| (info.peer, info.local) = (inet("[::1]:1"), inet("[::1]:2"))),
            Ok(())
        );
        assert_eq!(
            with(&|info| info.peer = inet("[::ffff:127.0.0.1]:1")),
            Ok(())
        );
        for address in [inet("10.0.0.1:1"), inet("[fe80::1]:1"), Address::Unix(None)] {
            assert_eq!(
                with(&|info| info.peer = address.clone()),
                Err(Stranger::Address),
                "{address}"
            );
            assert_eq!(
                with(&|info| info.local = address.clone()),
                Err(Stranger::Address),
                "{address}"
            );
        }
        assert_eq!(with(&|info| info.is_proxied = true), Err(Stranger::Proxied));
    }

    #[test]
    fn proxies_are_seen_though_their_fields_were_taken_out() {
        let (info, mut head) = request(&[("host", "localhost")]);
        let arrival = Arrival {
            origin: Origin {
                client: Client::Unknown,
                ..Origin::default()
            },
            request_id: None,
        };
        assert_eq!(check_local(&head, &info, Some(&Arrival::default())), Ok(()));
        assert_eq!(
            check_local(&head, &info, Some(&arrival)),
            Err(Stranger::Proxied)
        );
        head.version = Version::HTTP_10;
        assert_eq!(check_local(&head, &info, None), Err(Stranger::Proxied));
        head.version = Version::HTTP_2;
        assert_eq!(check_local(&head, &info, None), Ok(()));
        head.extensions.insert(ClaimsRemoved);
        assert_eq!(check_local(&head, &info, None), Err(Stranger::Proxied));
    }
}
