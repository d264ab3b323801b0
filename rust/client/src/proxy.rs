//! Which proxy to go through: what the environment says, as curl and Python read it.

use std::{env, net::IpAddr};

use crate::{error::Error, settings::Proxy, url::Target};

/// The way to an address, for whom makes requests of HTTP to the server of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// TLS is spoken (`wss://`).
    pub secure: bool,
    /// A name or an address.
    pub host: String,
    /// Of the server.
    pub port: u16,
    /// With the query.
    pub path: String,
    /// The field for a user and password in the address.
    pub authorization: Option<String>,
    /// Host and port of the proxy that opens it, and the field for a user and password.
    pub proxy: Option<(String, u16, Option<String>)>,
}

impl Way {
    /// Of the address of a WebSocket, by the rules that hold for it.
    ///
    /// # Errors
    /// The address, or that of the proxy, cannot be used ([`ErrorKind::Argument`](crate::ErrorKind::Argument)).
    pub fn to(url: &str, proxy: &Proxy) -> Result<Self, Error> {
        let target = Target::websocket(url)?;
        let proxy = proxy_of(proxy, &target)?;
        let field = |target: &Target| {
            let value = target.authorization.as_ref()?;
            value.to_str().ok().map(str::to_owned)
        };
        Ok(Self {
            authorization: field(&target),
            proxy: proxy.map(|proxy| (proxy.host.clone(), proxy.port, field(&proxy))),
            secure: target.secure,
            host: target.host,
            port: target.port,
            path: target.path,
        })
    }
}

/// The proxy on the way to `target`; `None` when there is none.
pub(crate) fn proxy_of(proxy: &Proxy, target: &Target) -> Result<Option<Target>, Error> {
    match proxy {
        Proxy::Off => Ok(None),
        Proxy::Url(url) => Target::proxy(url).map(Some),
        Proxy::Environment => match from_variables(target, |name| env::var(name).ok()) {
            Some((name, url)) => Target::proxy(&url)
                .map(Some)
                .map_err(|error| error.because(format!("it is the value of {name}"))),
            None => Ok(None),
        },
    }
}

fn from_variables(
    target: &Target,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|&name| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    };
    let names: &[&'static str] = if target.secure {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else if variable("REQUEST_METHOD").is_some() {
        // In a CGI program HTTP_PROXY is a header of the request (CVE-2016-5385).
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let found = first(names)?;
    let excepted = first(&["no_proxy", "NO_PROXY"]);
    let is_excepted = excepted.is_some_and(|(_, list)| {
        list.split(',')
            .any(|entry| excepts(entry.trim(), &target.host, target.port))
    });
    (!is_excepted).then_some(found)
}

/// Does an entry of `NO_PROXY` mean this host? `*`, a domain with all below it, an address, a network, each perhaps with a port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        if let Some((network, bits)) = entry.split_once('/') {
            return in_network(address, network, bits);
        }
        if entry.trim_matches(['[', ']']).parse() == Ok(address) {
            return true;
        }
    }
    let name = match entry.rsplit_once(':') {
        Some((name, entry_port)) if entry_port.parse() == Ok(port) => name,
        // Another port, or an IPv6 address that is not this one.
        Some(_) => return false,
        None => entry,
    };
    let name = name.trim_matches(['[', ']']);
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.trim_start_matches('.').trim_end_matches('.');
    let host = host.trim_end_matches('.');
    if name.is_empty() || host.len() < name.len() || !host.is_char_boundary(host.len() - name.len())
    {
        return false;
    }
    let (before, end) = host.split_at(host.len() - name.len());
    end.eq_ignore_ascii_case(name) && (before.is_empty() || before.ends_with('.'))
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let same = |one: u128, other: u128, width: u32| {
        bits <= width && (bits == 0 || (one ^ other) >> (width - bits) == 0)
    };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            same(one.to_bits().into(), other.to_bits().into(), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let target = Target::websocket(url).unwrap();
        let variable = |name: &str| {
            let set = variables.iter().find(|(it, _)| *it == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        from_variables(&target, variable).map(|(_, url)| url)
    }

    #[test]
    fn a_way_has_what_a_request_needs() {
        let proxy = Proxy::Url("http://me:s%40@proxy:3128".to_owned());
        let way = Way::to("wss://user:pass@host/topics/cam?x=1", &proxy).unwrap();
        assert_eq!(
            way,
            Way {
                secure: true,
                host: "host".to_owned(),
                port: 443,
                path: "/topics/cam?x=1".to_owned(),
                authorization: Some("Basic dXNlcjpwYXNz".to_owned()),
                proxy: Some(("proxy".to_owned(), 3128, Some("Basic bWU6c0A=".to_owned()))),
            }
        );
        let way = Way::to("ws://[::1]:81", &Proxy::Off).unwrap();
        assert_eq!(
            (way.host.as_str(), way.port, way.secure),
            ("::1", 81, false)
        );
        assert_eq!((way.authorization, way.proxy), (None, None));
        assert!(Way::to("http://host/", &Proxy::Off).is_err());
        assert!(Way::to("ws://host/", &Proxy::Url("socks5://x".to_owned())).is_err());
    }

    #[test]
    fn the_variable_of_the_scheme_counts_and_small_letters_first() {
        let all = [
            ("http_proxy", "a:1"),
            ("HTTP_PROXY", "b:1"),
            ("HTTPS_PROXY", "c:1"),
            ("ALL_PROXY", "d:1"),
        ];
        assert_eq!(found("ws://x/", &all).as_deref(), Some("a:1"));
        assert_eq!(found("wss://x/", &all).as_deref(), Some("c:1"));
        assert_eq!(found("wss://x/", &all[3..]).as_deref(), Some("d:1"));
        assert_eq!(found("wss://x/", &all[..2]), None);
        assert_eq!(found("ws://x/", &[("HTTP_PROXY", " ")]), None);
    }

    #[test]
    fn a_header_of_a_cgi_program_is_no_proxy() {
        let cgi = [("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(found("ws://x/", &cgi), None);
        assert_eq!(found("ws://x/", &cgi[..1]).as_deref(), Some("evil:1"));
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        for (entry, host, expected) in [
            ("*", "a.b", true),
            ("a.b", "a.b", true),
            ("a.b", "A.B.", true),
            ("a.b", "c.a.b", true),
            (".a.b", "a.b", true),
            ("*.a.b", "c.a.b", true),
            ("a.b", "ca.b", false),
            ("a.b:80", "a.b", true),
            ("a.b:81", "a.b", false),
            ("", "a.b", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("127.0.0.0/8", "127.9.9.9", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("127.0.0.0/33", "127.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("fe80::/10", "fe80::1", true),
            ("fe80::/10", "::1", false),
        ] {
            assert_eq!(excepts(entry, host, 80), expected, "{entry} {host}");
        }
        let variables = [
            ("http_proxy", "p:1"),
            ("no_proxy", "x, localhost,127.0.0.1"),
        ];
        assert_eq!(found("ws://localhost/", &variables), None);
        assert_eq!(found("ws://y/", &variables).as_deref(), Some("p:1"));
    }
}
