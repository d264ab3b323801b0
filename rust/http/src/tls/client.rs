//! TLS from the client's side: whom it trusts, and what it shows of itself.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, client::Resumption};

use super::error::TlsError;
use super::load;
use super::options::{CertificateFiles, Password, TlsOptions};

/// Whom a client trusts, and who it is.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// Files of authorities that servers' certificates may come from; empty: those that the operating system trusts.
    pub ca_files: Vec<PathBuf>,
    /// The client's own certificate and key, for servers that ask for one.
    pub certificate: Option<CertificateFiles>,
    /// For a key that is encrypted.
    pub password: Option<Password>,
}

/// Reads the files and makes of them what rustls connects with, for HTTP/1.1.
///
/// # Errors
/// A file is missing or damaged, or nobody is trusted.
pub fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let options = TlsOptions {
        password: tls.password.clone(),
        ..TlsOptions::default()
    };
    let provider = load::provider(&options);
    let mut roots = RootCertStore::empty();
    for path in &tls.ca_files {
        for (line, der) in load::certificates(path)? {
            roots.add(der).map_err(|error| {
                TlsError::at_line(path, line, "not a certificate of an authority")
                    .because(load::reason(&error))
                    .fix("openssl x509 -in FILE -text shows what it is")
            })?;
        }
    }
    if tls.ca_files.is_empty() {
        // What cannot be read of a system's store is nothing that the user of a client could change.
        load::add_system_store(&mut roots, &mut Vec::new())?;
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new("these TLS options do not go together").because(error))?
        .with_root_certificates(roots);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certified = load::certified_key(files, &options, &provider)
                .map_err(TlsError::without_server_options)?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                certified,
            )))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A configuration serves one connection: there is nothing to resume.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
