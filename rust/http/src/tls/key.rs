//! Private keys: PKCS#1, PKCS#8, SEC1, and encrypted PKCS#8.

use std::path::Path;

use pkcs8::{EncryptedPrivateKeyInfo, pkcs5::Error as Pkcs5};
use rustls::pki_types::PrivateKeyDer;

use super::error::TlsError;
use super::options::Password;
use super::pem::{self, Section};

/// Label of a key that needs the password.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// A key and the line where it begins.
pub(super) struct Key {
    pub(super) der: PrivateKeyDer<'static>,
    pub(super) line: usize,
}

/// The first private key of a file.
pub(super) fn read(path: &Path, password: Option<&Password>) -> Result<Key, TlsError> {
    let sections = pem::read(path)?;
    let Some(section) = sections
        .into_iter()
        .find(|section| section.label.ends_with("PRIVATE KEY"))
    else {
        return Err(TlsError::of_file(path, "holds no private key").fix(
            "name the file of the key with --ssl-keyfile, or put the key into the certificate's file",
        ));
    };
    let line = section.line;
    let der = decode(path, section, password)?;
    Ok(Key { der, line })
}

fn decode(
    path: &Path,
    section: Section,
    password: Option<&Password>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    if section.has_headers {
        return Err(TlsError::at_line(
            path,
            section.line,
            "the key is encrypted in the old format of OpenSSL, which is weak",
        )
        .fix(format!(
            "convert it: openssl pkcs8 -topk8 -in {} -out key.pem",
            path.display()
        )));
    }
    match &*section.label {
        "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(section.der.into())),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(section.der.into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(section.der.into())),
        ENCRYPTED => decrypt(path, &section, password),
        label => Err(TlsError::at_line(
            path,
            section.line,
            format_args!("a key of the kind {label} cannot be used for TLS"),
        )
        .fix("use RSA, ECDSA (P-256, P-384, P-521) or Ed25519")),
    }
}

fn decrypt(
    path: &Path,
    section: &Section,
    password: Option<&Password>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let problem = |what: &str| TlsError::at_line(path, section.line, what);
    let Some(password) = password else {
        return Err(problem("the key is encrypted, and there is no password").fix(
            "set FRAMEGATE_SSL_KEYFILE_PASSWORD, or name a file with --ssl-keyfile-password-file",
        ));
    };
    let password = text(password)?;
    let info = EncryptedPrivateKeyInfo::try_from(&*section.der).map_err(|_| {
        problem("the key is encrypted in a way that is not known")
            .fix("convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc")
    })?;
    let decrypted = info.decrypt(&password).map_err(|error| match error {
        // Which of the two it is that pkcs5 says is an accident.
        pkcs8::Error::EncryptedPrivateKey(Pkcs5::DecryptFailed | Pkcs5::EncryptFailed)
        | pkcs8::Error::Asn1(_) => problem("the password does not open the key")
            .fix("check it: openssl pkey -in KEY -noout asks for the password"),
        error => problem("the key is encrypted in a way that is not known")
            .because(error)
            .fix("convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc"),
    })?;
    Ok(PrivateKeyDer::Pkcs8(decrypted.as_bytes().to_vec().into()))
}

fn text(password: &Password) -> Result<Vec<u8>, TlsError> {
    match password {
        Password::Text(text) => Ok(text.clone().into_bytes()),
        Password::File(path) => {
            let bytes = pem::read_bytes(path)?;
            let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next();
            match line {
                Some(line) if !line.is_empty() => Ok(line.to_vec()),
                _ => Err(TlsError::of_file(path, "has no password in its first line")
                    .fix("write the password into the first line, without quotes")),
            }
        }
    }
}
