//! Which peers are believed when they say whom they speak for.
//!
//! Nobody is by default: whoever can reach the server could write any address into `X-Forwarded-For`. An address is compared
//! in the one form that it has: `::ffff:10.0.0.1`, which is what a socket for both families sees, is 10.0.0.1.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::service::Address;

/// The peers that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    everybody: bool,
    unix: bool,
    networks: Vec<Network>,
}

impl Trust {
    /// The peers that a list names: addresses, networks such as `10.0.0.0/8`, `unix` for all peers on Unix sockets, `*` for
    /// everybody.
    ///
    /// # Errors
    /// One of them is none of these.
    pub fn of<'a>(peers: impl IntoIterator<Item = &'a str>) -> Result<Self, NotAPeer> {
        let mut trust = Self::default();
        for peer in peers {
            match peer {
                "*" => trust.everybody = true,
                "unix" => trust.unix = true,
                _ => trust.networks.push(peer.parse()?),
            }
        }
        Ok(trust)
    }

    /// No peer is trusted.
    pub fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    /// The peer of a connection is trusted.
    pub fn trusts(&self, peer: &Address) -> bool {
        match peer {
            Address::Inet(address) => self.trusts_ip(address.ip()),
            Address::Unix(_) => self.everybody || self.unix,
        }
    }

    /// A hop of that address is trusted.
    pub fn trusts_ip(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.everybody || self.networks.iter().any(|network| network.has(address))
    }
}

/// What was given is neither an address nor a network.
#[derive(Debug)]
pub struct NotAPeer(String);

impl fmt::Display for NotAPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no address, network, `unix` or `*`", self.0)
    }
}

impl std::error::Error for NotAPeer {}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    is_v4: bool,
    first: u128,
    mask: u128,
}

/// An address as a number; those of IPv4 in the last 32 bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        self.is_v4 == address.is_ipv4() && number(address) & self.mask == self.first
    }
}

impl FromStr for Network {
    type Err = NotAPeer;

    fn from_str(text: &str) -> Result<Self, NotAPeer> {
        let wrong = || NotAPeer(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = if prefix.is_none() {
            address.to_canonical()
        } else {
            address
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if prefix > bits {
            return Err(wrong());
        }
        // The upper bits of an IPv4 address are zero, so that the mask may cover them too.
        let mask = u128::MAX.checked_shl(bits - prefix).unwrap_or(0);
        let first = number(address);
        if first & mask != first {
            // `10.0.0.1/8`: the address or the network?
            return Err(wrong());
        }
        Ok(Self {
            is_v4: address.is_ipv4(),
            first,
            mask,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::Trust;
    use crate::service::Address;

    fn trust(peers: &[&str]) -> Trust {
        Trust::of(peers.iter().copied()).unwrap()
    }

    #[test]
    fn networks_have_their_addresses_and_no_others() {
        for (peer, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
            ("192.168.0.0/23", "192.168.1.255", "192.168.2.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "::1", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ] {
            let trust = trust(&[peer]);
            let has = |address: &str| trust.trusts_ip(address.parse().unwrap());
            assert!(has(inside), "{peer} has {inside}");
            assert!(!has(outside), "{peer} has not {outside}");
        }
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for peer in [
            "",
            "a",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0",
            "[::1]",
            "10.0.0.1:80",
            "010.0.0.1",
            "1.2.3.4/24/8",
            "localhost",
            "10.0.0.0/255.0.0.0",
        ] {
            assert!(Trust::of([peer]).is_err(), "{peer:?}");
        }
    }

    #[test]
    fn peers_on_unix_sockets_are_trusted_by_name() {
        let (tcp, unix): (SocketAddr, _) = ("127.0.0.1:1".parse().unwrap(), Address::Unix(None));
        for (peers, trusts_tcp, trusts_unix) in [
            (&[][..], false, false),
            (&["unix"], false, true),
            (&["127.0.0.1"], true, false),
            (&["*"], true, true),
        ] {
            let trust = trust(peers);
            assert_eq!(trust.trusts(&Address::Inet(tcp)), trusts_tcp, "{peers:?}");
            assert_eq!(trust.trusts(&unix), trusts_unix, "{peers:?}");
            assert_eq!(trust.is_nobody(), peers.is_empty());
        }
    }
}
