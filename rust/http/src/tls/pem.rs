//! PEM files (RFC 7468): sections with the lines where they begin, so that errors can name them.
//!
//! Text between sections is skipped, as every other reader does: CA bundles carry names there.

use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::error::TlsError;

/// Longest file that is read. A system's CA bundle has 200 KiB and the largest public revocation lists some 10 MiB; a path that
/// is wrong may lead to anything.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What stands between `-----BEGIN label-----` and `-----END label-----`.
pub(super) struct Section {
    pub(super) label: String,
    /// Line of the `BEGIN`, from 1.
    pub(super) line: usize,
    pub(super) der: Vec<u8>,
    /// The body has header lines such as `Proc-Type: 4,ENCRYPTED`: OpenSSL's own encryption, from before PKCS#8.
    pub(super) has_headers: bool,
}

/// Reads a file and takes it apart.
///
/// # Errors
/// The file cannot be read, is empty, holds no PEM at all, or a section is damaged.
pub(super) fn read(path: &Path) -> Result<Vec<Section>, TlsError> {
    let bytes = read_bytes(path)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(TlsError::of_file(path, "is empty")
            .fix("if it is being written just now, write it elsewhere and rename it"));
    }
    let sections = parse(&bytes)
        .map_err(|(line, what)| TlsError::at_line(path, line, what))
        .map_err(|error| {
            error.fix("write the file anew; it may have been cut while it was copied")
        })?;
    if sections.is_empty() {
        let error = TlsError::of_file(
            path,
            "holds no PEM section (no line \"-----BEGIN ...-----\")",
        );
        return Err(if bytes[0] == 0x30 {
            error.fix("it looks like DER: convert it, for instance with openssl x509 -inform der")
        } else {
            error.fix("check that it is the right file")
        });
    }
    Ok(sections)
}

/// Reads the whole of a file that is not unreasonably long.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let cannot = |error: &io::Error| {
        let text = error.to_string();
        let reason = text
            .split(" (os error")
            .next()
            .unwrap_or(&text)
            .to_lowercase();
        let problem = TlsError::of_file(path, "cannot be read").because(reason);
        match error.kind() {
            io::ErrorKind::NotFound => problem.fix("check the path"),
            io::ErrorKind::PermissionDenied => problem
                .fix("let the user that the server runs as read it, and every directory above it"),
            _ => problem,
        }
    };
    let about = fs::metadata(path).map_err(|error| cannot(&error))?;
    if about.is_dir() {
        return Err(TlsError::of_file(path, "is a directory").fix("name the file in it"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(
            TlsError::of_file(path, format_args!("is larger than {FILE_BYTES_MAX} bytes"))
                .fix("check that it is the right file"),
        );
    }
    fs::read(path).map_err(|error| cannot(&error))
}

/// A section of which only some lines were read.
struct Open {
    label: String,
    line: usize,
    base64: Vec<u8>,
    has_headers: bool,
    in_headers: bool,
}

fn parse(text: &[u8]) -> Result<Vec<Section>, (usize, String)> {
    let mut sections = Vec::new();
    let mut open: Option<Open> = None;
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        let number = index + 1;
        if let Some(label) = marker(line, b"-----BEGIN ") {
            if let Some(open) = open {
                return Err((open.line, format!("the section {} has no end", open.label)));
            }
            open = Some(Open {
                label,
                line: number,
                base64: Vec::new(),
                has_headers: false,
                in_headers: true,
            });
        } else if let Some(label) = marker(line, b"-----END ") {
            let section = match open.take() {
                Some(section) if section.label == label => section,
                Some(section) => {
                    return Err((
                        number,
                        format!("the section {} ends as {label}", section.label),
                    ));
                }
                None => {
                    return Err((
                        number,
                        format!("the end of a section {label} that has no beginning"),
                    ));
                }
            };
            let der = STANDARD.decode(&section.base64).map_err(|_| {
                (
                    section.line,
                    format!("the section {} is no base64", section.label),
                )
            })?;
            if der.is_empty() {
                return Err((
                    section.line,
                    format!("the section {} is empty", section.label),
                ));
            }
            sections.push(Section {
                label,
                line: section.line,
                der,
                has_headers: section.has_headers,
            });
        } else if let Some(open) = &mut open {
            if open.in_headers && line.contains(&b':') {
                open.has_headers = true;
            } else if !line.is_empty() {
                // RFC 1421 headers end with an empty line; base64 has no colon.
                open.in_headers = false;
                open.base64
                    .extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
    }
    match open {
        Some(open) => Err((open.line, format!("the section {} has no end", open.label))),
        None => Ok(sections),
    }
}

fn marker(line: &[u8], begin: &[u8]) -> Option<String> {
    let label = line.strip_prefix(begin)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// Encodes as PEM, with lines of 64 characters and a line feed at the end.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 64);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = &*base64;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// For fuzzing: sections are where they are said to be, whatever ends the lines, and what is written anew is read the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(text: &[u8]) {
    let read = |text: &[u8]| {
        parse(text).map(|sections| {
            let section = |one: Section| (one.label, one.line, one.der, one.has_headers);
            sections.into_iter().map(section).collect::<Vec<_>>()
        })
    };
    let lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
    let sections = read(text);
    assert_eq!(read(&lines.join(&b"\r\n"[..])), sections);
    let is_marker = |line: usize| lines[line - 1].trim_ascii().starts_with(b"-----");
    let sections = match sections {
        Ok(sections) => sections,
        Err((line, _)) => return assert!(is_marker(line)),
    };
    assert!(sections.is_sorted_by(|one, next| one.1 < next.1));
    for (label, line, der, _) in &sections {
        assert!(is_marker(*line) && !der.is_empty());
        assert!(der.len() <= text.len());
        let again = encode(label, der);
        assert_eq!(
            read(again.as_bytes()),
            Ok(vec![(label.clone(), 1, der.clone(), false)])
        );
    }
    let twice = read(&[text, b"\n", text].concat());
    assert_eq!(twice.map(|twice| twice.len()), Ok(sections.len() * 2));
}

#[cfg(test)]
mod tests {
    use super::{encode, parse};

    #[test]
    fn what_is_encoded_is_read_again() {
        for length in [1, 47, 48, 49, 96, 97, 1000] {
            let der: Vec<u8> = (0..=255).cycle().take(length).collect();
            let text = format!("# a name\n{}trailing text\n", encode("THING", &der));
            assert!(text.lines().all(|line| line.len() <= 64));
            let sections = parse(text.as_bytes()).unwrap();
            assert_eq!(sections.len(), 1);
            assert_eq!((&*sections[0].label, sections[0].line), ("THING", 2));
            assert_eq!(sections[0].der, der);
            assert!(!sections[0].has_headers);
        }
    }

    #[test]
    fn damaged_sections_are_named_with_their_line() {
        let cases = [
            ("\n-----BEGIN A-----\nAAAA\n", 2, "has no end"),
            (
                "-----BEGIN A-----\nAAAA\n-----BEGIN B-----\n",
                1,
                "has no end",
            ),
            ("-----BEGIN A-----\nAAAA\n-----END B-----\n", 3, "ends as B"),
            ("AAAA\n-----END B-----\n", 2, "no beginning"),
            ("-----BEGIN A-----\nA?AA\n-----END A-----\n", 1, "no base64"),
            ("-----BEGIN A-----\nAAA\n-----END A-----\n", 1, "no base64"),
            ("-----BEGIN A-----\n-----END A-----\n", 1, "is empty"),
        ];
        for (text, line, what) in cases {
            let (at, problem) = parse(text.as_bytes()).err().unwrap();
            assert_eq!(at, line, "{text}");
            assert!(problem.contains(what), "{problem}");
        }
    }

    #[test]
    fn headers_of_old_encryption_are_seen() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\n\
                    DEK-Info: AES-128-CBC,00\r\n\r\nAAAA\r\n-----END RSA PRIVATE KEY-----\r\n";
        let sections = parse(text.as_bytes()).unwrap();
        assert!(sections[0].has_headers);
        assert_eq!(sections[0].der, [0, 0, 0]);
    }
}
