//! What a certificate says: names, dates, subject.
//!
//! rustls has judged the bytes before; here they are only looked at, for the choice by name, for warnings and for the
//! application. A certificate that this parser does not understand (it is stricter than rustls's) has no names and no dates.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pkcs8::der::Decode;
use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// Names and dates of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names in lower case; a wildcard as `*.example.org`.
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) not_before: Option<SystemTime>,
    pub(super) not_after: Option<SystemTime>,
}

pub(super) fn facts(der: &CertificateDer<'_>) -> Facts {
    let Ok(certificate) = Certificate::from_der(der) else {
        return Facts::default();
    };
    let validity = &certificate.tbs_certificate.validity;
    let mut facts = Facts {
        not_before: Some(validity.not_before.to_system_time()),
        not_after: Some(validity.not_after.to_system_time()),
        ..Facts::default()
    };
    // The subject's common name is not looked at: clients have not done so for years (RFC 9525, 2).
    if let Ok(Some((_, SubjectAltName(names)))) =
        certificate.tbs_certificate.get::<SubjectAltName>()
    {
        for name in names {
            match name {
                GeneralName::DnsName(name) => {
                    facts.dns_names.push(name.as_str().to_ascii_lowercase());
                }
                GeneralName::IpAddress(bytes) => facts.addresses.extend(address(bytes.as_bytes())),
                _ => {}
            }
        }
    }
    facts
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = |bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes));
    let v6 = |bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes));
    bytes
        .try_into()
        .map(v4)
        .or_else(|_| bytes.try_into().map(v6))
        .ok()
}

/// The subject as RFC 4514 writes it: `CN=robot 7,O=Example`. `None` when it cannot be read.
pub(super) fn subject(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(certificate.tbs_certificate.subject.to_string())
}

/// When a revocation list expires; `Err` when it is none.
pub(super) fn next_update(der: &[u8]) -> Result<Option<SystemTime>, ()> {
    let list = x509_cert::crl::CertificateList::from_der(der).map_err(|_| ())?;
    Ok(list
        .tbs_cert_list
        .next_update
        .map(|time| time.to_system_time()))
}

/// For fuzzing: whatever a certificate or a revocation list is made of, it is read or not, and what comes of it can stand in a log.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(der: &[u8]) {
    let certificate = CertificateDer::from(der);
    let facts = facts(&certificate);
    assert!(facts.dns_names.iter().all(|name| name.is_ascii()));
    for time in [
        facts.not_before,
        facts.not_after,
        next_update(der).ok().flatten(),
    ] {
        assert!(time.is_none_or(|time| date(time).len() == 10));
    }
    let _ = subject(&certificate);
}

/// A date as people write it, in UTC: `2027-01-31`.
pub(super) fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Certificates reach at most to the year 9999.
    match pkcs8::der::DateTime::from_unix_duration(since) {
        Ok(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        Err(_) => "9999-12-31".to_owned(),
    }
}
