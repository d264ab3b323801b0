//! `TlsContext`: certificates and keys, read and judged before there is a server.

use std::{path::PathBuf, rc::Rc};

use framegate_http::tls::{
    CertificateFiles, ClientAuth, ClientCertificates, Password, Tls, TlsError, TlsEvent,
    TlsOptions, TlsReport, Versions,
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{event_loop::LoopCore, gil};

/// Certificates and keys of a configuration, ready to be served.
///
/// Args:
///     config: Settings by attribute, for instance `framegate.Config`.
///
/// Raises:
///     `CertificateError`: A file is missing, unreadable or damaged, or does not fit together with another one.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct TlsContext(Tls);

#[pymethods]
impl TlsContext {
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let options = options(config)?;
        // Opening an encrypted key takes a while on purpose.
        gil::detached(py, || Tls::load(options))
            .map(Self)
            .map_err(|error| exception(py, &error))
    }

    /// What is good now but will not be for long, one line each.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings().to_vec()
    }
}

impl TlsContext {
    pub(crate) fn tls(&self) -> Tls {
        self.0.clone()
    }
}

fn options(config: &Bound<'_, PyAny>) -> PyResult<TlsOptions> {
    let paths = |name: &str| -> PyResult<Vec<PathBuf>> { config.getattr(name)?.extract() };
    let certificates = paths("ssl_certfile")?;
    let mut keys = paths("ssl_keyfile")?;
    if keys.is_empty() {
        keys.clone_from(&certificates);
    }
    if keys.len() != certificates.len() {
        return Err(PyValueError::new_err("each certificate needs its key"));
    }
    let text: Option<String> = config.getattr("ssl_keyfile_password")?.extract()?;
    let file: Option<PathBuf> = config.getattr("ssl_keyfile_password_file")?.extract()?;
    let version: String = config.getattr("ssl_version")?.extract()?;
    let client: String = config.getattr("ssl_cert_reqs")?.extract()?;
    Ok(TlsOptions {
        pairs: certificates
            .into_iter()
            .zip(keys)
            .map(|(certificate, key)| CertificateFiles { certificate, key })
            .collect(),
        password: text.map(Password::Text).or(file.map(Password::File)),
        versions: match &*version {
            "tls1.2" => Versions::Only12,
            "tls1.3" => Versions::Only13,
            _ => Versions::All,
        },
        cipher_suites: config.getattr("ssl_cipher_suites")?.extract()?,
        client_auth: ClientAuth {
            certificates: match &*client {
                "optional" => ClientCertificates::Optional,
                "required" => ClientCertificates::Required,
                _ => ClientCertificates::None,
            },
            ca_files: paths("ssl_ca_certs")?,
            system_store: config.getattr("ssl_ca_system")?.is_truthy()?,
            crl_files: paths("ssl_crl")?,
        },
        alpn: alpn(config)?,
    })
}

/// What is offered to clients: what the setting `http` allows.
fn alpn(config: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    let http: String = config.getattr("http")?.extract()?;
    let offered: &[&[u8]] = match &*http {
        "1" => &[b"http/1.1"],
        "2" => &[b"h2"],
        _ => &[b"h2", b"http/1.1"],
    };
    Ok(offered.iter().map(|name| name.to_vec()).collect())
}

fn exception(py: Python<'_>, error: &TlsError) -> PyErr {
    let make = || {
        let keywords = PyDict::new(py);
        keywords.set_item("cause", error.cause().unwrap_or_default())?;
        keywords.set_item("fix", error.remedy().unwrap_or_default())?;
        py.import("framegate.errors")?
            .getattr("CertificateError")?
            .call((error.problem(),), Some(&keywords))
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Writes events of TLS to the logger `framegate`.
pub(crate) fn report(core: Rc<LoopCore>) -> TlsReport {
    Rc::new(move |event| {
        Python::attach(|py| {
            let (level, text) = match event {
                TlsEvent::Reloaded(what) => {
                    ("info", format!("TLS certificates were read anew: {what}"))
                }
                TlsEvent::ReloadFailed(error) => (
                    "error",
                    format!(
                        "TLS certificates stay as they were, the new files cannot be used: {error}"
                    ),
                ),
                TlsEvent::Warning(text) => ("warning", text),
                TlsEvent::HandshakeFailed(text) => {
                    ("debug", format!("TLS handshake failed: {text}"))
                }
            };
            let failure = "an event of TLS could not be logged";
            core.log(py, "framegate.tls", level, &text, failure);
            core.after_python(py);
        });
    })
}
