//! From files to what rustls serves with.
//!
//! Everything is read and judged before anything is used: either all of it is good, or nothing changes. One
//! [`ServerConfig`] per certificate, because the one that was chosen must be known afterwards (the application is told), and
//! rustls does not say.
//!
//! # Resumption
//! A session that is resumed skips the client's certificate: the ticket carries the old verdict for up to twelve hours, past
//! the expiry of that certificate. So with client certificates there are no tickets, and every handshake is judged by the
//! authorities and revocation lists of its moment. Without client certificates the keys of the tickets outlive a reload, so that
//! a new server certificate costs nobody a full handshake.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, CipherSuite, InconsistentKeys, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer},
    server::{
        NoServerSessionStorage, ParsedCertificate, ProducesTickets, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::certificate::{self, Facts};
use super::error::TlsError;
use super::key;
use super::names::Names;
use super::options::{CertificateFiles, ClientCertificates, TlsOptions, Versions};
use super::pem;
use crate::os::FileStamp;

/// A certificate or revocation list that ends within this time is warned of: long enough to act, shorter than the third of
/// its life at which common clients (certbot: 30 days of 90) renew.
const WARNING_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate that can be served, and how.
pub(super) struct Served {
    pub(super) config: Arc<ServerConfig>,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

/// All files of one moment.
pub(super) struct Loaded {
    pub(super) served: Vec<Served>,
    pub(super) names: Names,
    /// What is good but will not be for long.
    pub(super) warnings: Vec<String>,
    pub(super) stamp: Stamp,
}

impl Loaded {
    /// The certificates in a few words, for the log.
    pub(super) fn summary(&self) -> String {
        let of = |served: &Served| {
            let name = served.facts.dns_names.first().cloned();
            let address = served.facts.addresses.first().map(ToString::to_string);
            let name = name
                .or(address)
                .unwrap_or_else(|| "a certificate without names".to_owned());
            match served.facts.not_after {
                Some(end) => format!("{name} until {}", certificate::date(end)),
                None => name,
            }
        };
        self.served.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

/// What identifies the present state of some files without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<FileStamp>>);

impl Stamp {
    /// Follows symbolic links, which is how certbot and Kubernetes replace files.
    pub(super) fn of(options: &TlsOptions) -> Self {
        let stamp = |path: &PathBuf| {
            let about = fs::metadata(path).ok()?;
            Some(FileStamp::of(&about))
        };
        Self(options.files().map(stamp).collect())
    }
}

/// The cryptography: always passed on, never installed for the whole process, where others may use rustls with another one.
pub(super) fn provider(options: &TlsOptions) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let wanted = |suite: CipherSuite| options.cipher_suites.contains(&u16::from(suite));
    for version in [&TLS12, &TLS13] {
        let is_restricted = provider
            .cipher_suites
            .iter()
            .any(|suite| suite.version() == version && wanted(suite.suite()));
        if is_restricted {
            provider
                .cipher_suites
                .retain(|suite| suite.version() != version || wanted(suite.suite()));
        }
    }
    Arc::new(provider)
}

/// Reads everything.
///
/// # Errors
/// Anything is missing, unreadable, damaged, or does not fit together.
pub(super) fn load(
    options: &TlsOptions,
    ticketer: Option<&Arc<dyn ProducesTickets>>,
) -> Result<Loaded, TlsError> {
    // Taken first: a change while the files are read shows at the next look.
    let stamp = Stamp::of(options);
    let provider = provider(options);
    let versions: &[&SupportedProtocolVersion] = match options.versions {
        Versions::All => &[&TLS13, &TLS12],
        Versions::Only12 => &[&TLS12],
        Versions::Only13 => &[&TLS13],
    };
    let mut warnings = Vec::new();
    let verifier = verifier(options, &provider, &mut warnings)?;
    let mut served = Vec::new();
    for pair in &options.pairs {
        let key = Arc::new(certified_key(pair, options, &provider)?);
        let facts = certificate::facts(&key.cert[0]);
        warnings.extend(about_dates(&pair.certificate, &facts));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::new("these TLS options do not go together").because(error))?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
        config.alpn_protocols.clone_from(&options.alpn);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match ticketer {
            Some(ticketer) => config.ticketer = ticketer.clone(),
            None => config.send_tls13_tickets = 0,
        }
        served.push(Served {
            config: Arc::new(config),
            key,
            facts,
        });
    }
    if served.is_empty() {
        return Err(TlsError::new("no certificate is given for TLS"));
    }
    let names = Names::new(served.iter().map(|served| &served.facts));
    Ok(Loaded {
        served,
        names,
        warnings,
        stamp,
    })
}

/// Keys of session tickets, if there may be tickets; see the head of the file.
pub(super) fn ticketer(options: &TlsOptions) -> Result<Option<Arc<dyn ProducesTickets>>, TlsError> {
    if options.client_auth.certificates != ClientCertificates::None {
        return Ok(None);
    }
    aws_lc_rs::Ticketer::new()
        .map(Some)
        .map_err(|error| TlsError::new("no random bytes for session tickets").because(error))
}

pub(super) fn certified_key(
    files: &CertificateFiles,
    options: &TlsOptions,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let path = &files.certificate;
    let chain = certificates(path)?;
    // Judged one by one: rustls looks at the first only, and a client would complain about the others.
    for (line, der) in &chain {
        ParsedCertificate::try_from(der).map_err(|error| {
            TlsError::at_line(path, *line, "not a certificate for TLS")
                .because(reason(&error))
                .fix("ask for it again, with X.509 version 3; openssl x509 -in FILE -text shows it")
        })?;
    }
    let key = key::read(&files.key, options.password.as_ref())?;
    let signer = provider
        .key_provider
        .load_private_key(key.der)
        .map_err(|error| {
            TlsError::at_line(&files.key, key.line, "the private key cannot be used")
                .because(error)
                .fix("use RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519")
        })?;
    let certified = CertifiedKey::new(chain.into_iter().map(|(_, der)| der).collect(), signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(TlsError::of_file(
            &files.key,
            format_args!("does not belong to the certificate {}", path.display()),
        )
        .because("the public key of the first certificate is another one")
        .fix("put the server's own certificate first, and pair the files in the order they are given")),
    }
}

/// All certificates of a file, with the lines where they begin.
pub(super) fn certificates(path: &Path) -> Result<Vec<(usize, CertificateDer<'static>)>, TlsError> {
    let chain: Vec<_> = pem::read(path)?
        .into_iter()
        .filter(|section| matches!(&*section.label, "CERTIFICATE" | "X509 CERTIFICATE"))
        .map(|section| (section.line, CertificateDer::from(section.der)))
        .collect();
    if chain.is_empty() {
        return Err(TlsError::of_file(path, "holds no certificate")
            .fix("look for -----BEGIN CERTIFICATE----- in it; is it the key?"));
    }
    Ok(chain)
}

pub(super) fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "it is damaged, or of an X.509 version before 3".to_owned()
        }
        error => error.to_string(),
    }
}

fn about_dates(path: &Path, facts: &Facts) -> Option<String> {
    let now = SystemTime::now();
    let path = path.display();
    let (start, end) = (facts.not_before?, facts.not_after?);
    if end < now {
        Some(format!(
            "the certificate {path} has expired on {}: clients will refuse it",
            certificate::date(end)
        ))
    } else if start > now {
        Some(format!(
            "the certificate {path} is not valid before {}",
            certificate::date(start)
        ))
    } else if end < now + WARNING_TIME {
        Some(format!(
            "the certificate {path} expires on {}",
            certificate::date(end)
        ))
    } else {
        None
    }
}

// --------------------------------------------------------------------------------------------
// Client certificates

fn verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<String>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let auth = &options.client_auth;
    if auth.certificates == ClientCertificates::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    for path in &auth.ca_files {
        for (line, der) in certificates(path)? {
            roots.add(der).map_err(|error| {
                TlsError::at_line(path, line, "not a certificate of an authority")
                    .because(reason(&error))
                    .fix("openssl x509 -in FILE -text shows what it is")
            })?;
        }
    }
    if auth.system_store {
        add_system_store(&mut roots, warnings)?;
    }
    if roots.is_empty() {
        return Err(TlsError::new(
            "client certificates are asked for, but no authority is trusted",
        )
        .fix("name a file of CA certificates with --ssl-ca-certs, or use --ssl-ca-system"));
    }
    let mut lists = Vec::new();
    for path in &auth.crl_files {
        lists.extend(revocation_lists(path, warnings)?);
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if !lists.is_empty() {
        // As OpenSSL and nginx: the whole chain is looked at, and an expired list is none.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if auth.certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        TlsError::new("client certificates cannot be verified with these files").because(error)
    })
}

pub(super) fn add_system_store(
    roots: &mut RootCertStore,
    warnings: &mut Vec<String>,
) -> Result<(), TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let (good, bad) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let cause = found.errors.first().map(ToString::to_string);
        return Err(
            TlsError::new("the system's store of certificates is empty or cannot be read")
                .because(cause.as_deref().unwrap_or("no certificate was found"))
                .fix("install ca-certificates, or set SSL_CERT_FILE"),
        );
    }
    if bad > 0 {
        warnings.push(format!(
            "{bad} certificates of the system's store could not be read"
        ));
    }
    Ok(())
}

fn revocation_lists(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut lists = Vec::new();
    for section in pem::read(path)?
        .into_iter()
        .filter(|section| section.label == "X509 CRL")
    {
        let end = certificate::next_update(&section.der).map_err(|()| {
            TlsError::at_line(path, section.line, "the revocation list is damaged")
                .fix("fetch it again; openssl crl -in FILE -text shows it")
        })?;
        let now = SystemTime::now();
        let shown = path.display();
        match end {
            Some(end) if end < now => warnings.push(format!(
                "the revocation list {shown} has expired on {}: certificates of its authority are refused",
                certificate::date(end)
            )),
            Some(end) if end < now + Duration::from_secs(24 * 3600) => {
                warnings.push(format!("the revocation list {shown} expires on {}", certificate::date(end)));
            }
            _ => {}
        }
        lists.push(CertificateRevocationListDer::from(section.der));
    }
    if lists.is_empty() {
        return Err(TlsError::of_file(path, "holds no revocation list").fix(
            "look for -----BEGIN X509 CRL----- in it; convert DER with openssl crl -inform der",
        ));
    }
    Ok(lists)
}
