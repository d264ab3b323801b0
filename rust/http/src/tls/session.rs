//! What is known of a connection because it is encrypted.

use std::{fmt, sync::Arc};

use rustls::{CommonState, pki_types::CertificateDer, sign::CertifiedKey};

use super::certificate;
use super::pem;

/// A TLS connection after its handshake. Texts are made when they are asked for.
pub struct TlsSession {
    key: Arc<CertifiedKey>,
    client_chain: Vec<CertificateDer<'static>>,
    version: u16,
    cipher_suite: u16,
    server_name: Option<String>,
}

impl TlsSession {
    pub(super) fn new(
        key: Arc<CertifiedKey>,
        tls: &CommonState,
        server_name: Option<&str>,
    ) -> Self {
        Self {
            key,
            client_chain: tls
                .peer_certificates()
                .map(<[_]>::to_vec)
                .unwrap_or_default(),
            version: tls.protocol_version().map_or(0, u16::from),
            cipher_suite: tls
                .negotiated_cipher_suite()
                .map_or(0, |suite| suite.suite().into()),
            server_name: server_name.map(str::to_owned),
        }
    }

    /// The certificate that this server showed, as PEM.
    pub fn server_certificate(&self) -> String {
        encode(&self.key.cert[0])
    }

    /// The client's verified certificate and those it sent along, as PEM; empty without one.
    pub fn client_chain(&self) -> impl Iterator<Item = String> {
        self.client_chain.iter().map(encode)
    }

    /// The subject of the client's certificate, as RFC 4514 writes it.
    pub fn client_name(&self) -> Option<String> {
        certificate::subject(self.client_chain.first()?)
    }

    /// Number of the TLS version: `0x0303` is 1.2, `0x0304` is 1.3.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// IANA's number of the cipher suite.
    pub fn cipher_suite(&self) -> u16 {
        self.cipher_suite
    }

    /// The name that the client asked for (SNI).
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

fn encode(der: &CertificateDer<'static>) -> String {
    pem::encode("CERTIFICATE", der)
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("version", &format_args!("{:#06x}", self.version))
            .field("cipher_suite", &format_args!("{:#06x}", self.cipher_suite))
            .field("server_name", &self.server_name)
            .field("client_name", &self.client_name())
            .finish_non_exhaustive()
    }
}
