//! TLS: from files to encrypted connections.
//!
//! ```text
//!   options -> load (pem, key, certificate) -> Tls -> Source: what is current, read anew when it changes
//!                                                        |
//!   accept -> handshake (chooses by name, takes what is current) -> TlsStream inside of Socket -> connection
//!                                                        |
//!                                                   TlsSession: what the application is told
//! ```
//! The rest of the crate sees a [`Socket`](crate::h1_io::Socket) like any other: only the accept loop and the flush know
//! that there is more to it.
//!
//! The cryptography is aws-lc-rs, for its speed and for `X25519MLKEM768`, which protects what is recorded today from the
//! computers of later. The reasons for that and for what there is no option for are in `docs/design/tls.md`.

pub(crate) mod certificate;
mod client;
mod error;
mod handshake;
mod key;
mod load;
mod names;
mod options;
pub(crate) mod pem;
mod redirect;
mod session;
mod source;
mod stream;

pub use client::{ClientTls, client_config};
pub use error::TlsError;
pub use options::{
    CertificateFiles, ClientAuth, ClientCertificates, Password, TlsOptions, Versions,
};
pub use session::TlsSession;
pub use source::{Tls, TlsEvent, TlsReport};

pub(crate) use handshake::{CROWDED, Handshakes, Place, run};
pub(crate) use redirect::WithRedirect;
pub(crate) use source::Source;
pub(crate) use stream::{DepartedTls, TlsStream};
