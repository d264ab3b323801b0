//! What the caller says about TLS: paths and choices, no secrets but the password of the keys.

use std::{fmt, path::PathBuf};

/// How to speak TLS. Files are read by [`Tls::load`](super::Tls::load), and again when they change.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificates with their keys. The client's SNI chooses; the first serves clients that name nobody we know.
    pub pairs: Vec<CertificateFiles>,
    /// For keys that are encrypted.
    pub password: Option<Password>,
    /// Which versions are spoken.
    pub versions: Versions,
    /// Numbers of the cipher suites that may be used. Restricts a version only if it names a suite of that version, as
    /// OpenSSL does; empty: all that rustls has, every one of them with forward secrecy and authenticated encryption.
    pub cipher_suites: Vec<u16>,
    /// Whether clients show certificates, and whose.
    pub client_auth: ClientAuth,
    /// Application protocols by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// A certificate chain and its key; both may be the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

/// Where the password of encrypted keys is.
#[derive(Clone)]
pub enum Password {
    /// The password itself.
    Text(String),
    /// A file whose first line is the password; read again whenever the keys are.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Versions of TLS. Older ones than 1.2 are broken and not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only, for a client that breaks on 1.3.
    Only12,
    /// 1.3 only.
    Only13,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for.
    #[default]
    None,
    /// Who shows one must show a valid one.
    Optional,
    /// Handshakes without a valid one fail.
    Required,
}

/// Which client certificates are valid.
#[derive(Clone, Debug, Default)]
pub struct ClientAuth {
    /// Whether they are asked for.
    pub certificates: ClientCertificates,
    /// Files of authorities that clients' certificates may come from.
    pub ca_files: Vec<PathBuf>,
    /// The authorities that the operating system trusts, as well.
    pub system_store: bool,
    /// Revocation lists. With any of them given, each authority of a client's chain needs one that has not expired.
    pub crl_files: Vec<PathBuf>,
}

impl TlsOptions {
    /// Every file that these options name.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let password = match &self.password {
            Some(Password::File(path)) => Some(path),
            _ => None,
        };
        self.pairs
            .iter()
            .flat_map(|pair| [&pair.certificate, &pair.key])
            .chain(password)
            .chain(&self.client_auth.ca_files)
            .chain(&self.client_auth.crl_files)
    }
}
