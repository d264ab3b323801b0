//! Which certificate belongs to which name.

use std::{collections::HashMap, net::IpAddr};

use super::certificate::Facts;

/// Certificates, by position, for each name that they are for.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<String, Vec<usize>>,
    /// By what follows the `*.`; the star stands for exactly one label (RFC 9525, 6.3).
    wildcard: HashMap<String, Vec<usize>>,
    addresses: HashMap<IpAddr, Vec<usize>>,
}

impl Names {
    pub(super) fn new<'a>(certificates: impl Iterator<Item = &'a Facts>) -> Self {
        let mut names = Self::default();
        for (index, facts) in certificates.enumerate() {
            for name in &facts.dns_names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut names.wildcard, rest),
                    None => (&mut names.exact, &**name),
                };
                map.entry(name.to_owned()).or_default().push(index);
            }
            for address in &facts.addresses {
                names.addresses.entry(*address).or_default().push(index);
            }
        }
        names
    }

    /// Positions of the certificates for a name, as it stands in SNI or in `Host` without its port; an IPv6 address
    /// without brackets. An exact name comes before a wildcard.
    pub(super) fn find(&self, name: &str) -> &[usize] {
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.addresses.get(&address).map_or(&[], Vec::as_slice);
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(found) = self.exact.get(&name) {
            return found;
        }
        let found = name.split_once('.').and_then(|(label, rest)| {
            if label.is_empty() {
                None
            } else {
                self.wildcard.get(rest)
            }
        });
        found.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Names};

    fn facts(names: &[&str]) -> Facts {
        Facts {
            dns_names: names.iter().map(ToString::to_string).collect(),
            addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            ..Facts::default()
        }
    }

    #[test]
    fn exact_names_come_first_and_a_star_is_one_label() {
        let certificates = [
            facts(&["*.example.org", "example.org"]),
            facts(&["a.example.org"]),
        ];
        let names = Names::new(certificates.iter());
        let cases: [(&str, &[usize]); 9] = [
            ("example.org", &[0]),
            ("b.example.org", &[0]),
            ("a.example.org", &[1]),
            ("A.EXAMPLE.ORG.", &[1]),
            ("c.b.example.org", &[]),
            (".example.org", &[]),
            ("example.com", &[]),
            ("127.0.0.1", &[0, 1]),
            ("::1", &[0, 1]),
        ];
        for (name, found) in cases {
            assert_eq!(names.find(name), found, "{name}");
        }
        assert_eq!(names.find("127.0.0.2"), &[] as &[usize]);
        assert_eq!(
            names.find("*.example.org"),
            &[0],
            "taken as any label: harmless"
        );
    }
}
