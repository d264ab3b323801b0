//! Where to connect: what an address says.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};

use crate::error::Error;

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// TLS is spoken.
    pub(crate) secure: bool,
    /// A name or an address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As the field `host` has it.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// Of a user and password in the address.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Target {
    /// Reads the address of a WebSocket.
    pub(crate) fn websocket(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::argument(format!("{} {why}", shown(url)))
                .fix("an address looks like ws://host:port/path, or wss:// for TLS")
        };
        // RFC 6455, section 3.
        if url.contains('#') {
            return Err(wrong("has a fragment (#), which a WebSocket has not"));
        }
        Self::parse(url, &[("ws", false, 80), ("wss", true, 443)])
            .ok_or_else(|| wrong("is no address of a WebSocket"))
    }

    /// Reads the address of a proxy.
    pub(crate) fn proxy(url: &str) -> Result<Self, Error> {
        // Variables often have no scheme, and curl and Python take that.
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        Self::parse(&with_scheme, &[("http", false, 80)]).ok_or_else(|| {
            Error::argument(format!("{} is no proxy that can be used", shown(url))).fix(
                "only proxies of the kind http://host:port are spoken to (not https:// nor socks); \
                 NO_PROXY leaves hosts out, proxy=None all of them",
            )
        })
    }

    fn parse(url: &str, schemes: &[(&str, bool, u16)]) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?;
        let &(_, secure, default_port) = schemes
            .iter()
            .find(|it| scheme.eq_ignore_ascii_case(it.0))?;
        let authority = uri.authority()?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        // By hand: the crate takes a port that is none for no port.
        let port = match place.strip_prefix(authority.host())? {
            "" => default_port,
            rest => rest.strip_prefix(':')?.parse().ok()?,
        };
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() || port == 0 {
            return None;
        }
        let path = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("") => "/".to_owned(),
            Some(path) if path.starts_with('?') => format!("/{path}"),
            Some(path) => path.to_owned(),
        };
        Some(Self {
            secure,
            host: host.to_owned(),
            port,
            authority: place.to_owned(),
            path,
            authorization: match user {
                None => None,
                Some(user) => Some(basic(user)?),
            },
        })
    }
}

/// The field of a user and password that an address holds, in percent-encoding.
fn basic(user: &str) -> Option<HeaderValue> {
    let decoded = percent_decoded(user)?;
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            decoded.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// An address without the password that may be in it.
pub(crate) fn shown(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}***{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> (bool, String, u16, String, String) {
        let it = Target::websocket(url).unwrap();
        (it.secure, it.host, it.port, it.authority, it.path)
    }

    fn expect(
        secure: bool,
        host: &str,
        port: u16,
        authority: &str,
        path: &str,
    ) -> (bool, String, u16, String, String) {
        let own = str::to_owned;
        (secure, own(host), port, own(authority), own(path))
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (url, expected) in [
            ("ws://a", expect(false, "a", 80, "a", "/")),
            ("WSS://a.b/c?d=e", expect(true, "a.b", 443, "a.b", "/c?d=e")),
            ("ws://a:81?x", expect(false, "a", 81, "a:81", "/?x")),
            ("wss://[::1]:9/", expect(true, "::1", 9, "[::1]:9", "/")),
            ("ws://u:p@a:1/", expect(false, "a", 1, "a:1", "/")),
        ] {
            assert_eq!(place(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for url in [
            "",
            "a",
            "a:80",
            "http://a/",
            "ws://",
            "ws:///a",
            "ws://a:x/",
            "ws://a:99999/",
            "ws://a:/",
            "ws://a:0/",
            "ws://a/#b",
            "ws://u:p%4@a/",
            "ws://ä/",
        ] {
            let error = Target::websocket(url).unwrap_err();
            assert!(error.to_string().contains("ws://host:port/path"), "{url}");
        }
        let error = Target::websocket("ws://me:secret@a/#b").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("ws://***@a/#b"), "{error}");
    }

    #[test]
    fn users_become_a_field() {
        let target = Target::websocket("ws://Aladdin:open%20sesame@a/").unwrap();
        let field = target.authorization.unwrap();
        assert_eq!(field, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn proxies_may_come_without_a_scheme() {
        for url in ["http://p:3128", "p:3128", "http://p:3128/"] {
            let proxy = Target::proxy(url).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), ("p", 3128), "{url}");
        }
        for url in ["socks5://p:1080", "https://p:443", "http://"] {
            assert!(
                Target::proxy(url)
                    .unwrap_err()
                    .to_string()
                    .contains("NO_PROXY")
            );
        }
    }
}
