//! From the path of a URL to a name below a directory.
//!
//! A path is decoded once, segment by segment, and each file has one name: what could mean another one (`.`, `..`, empty
//! segments, an encoded slash, a backslash) is not there, and neither is anything hidden. What is left is looked up by the
//! kernel below the directory and nowhere else ([`super::tree`]); this here is the second of two locks, not the only one.

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Relative to the directory; empty for the directory itself.
    pub(crate) bytes: Vec<u8>,
    /// The path ends with a slash.
    pub(crate) is_directory: bool,
}

/// Why a path is not looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is no path: a `%` without two digits, or a NUL.
    Malformed,
    /// No file is ever served by that name.
    Hidden,
}

/// Longest name of anything that Linux opens (`PATH_MAX`), less the name of an index.
const NAME_BYTES_MAX: usize = 4000;

/// The name that `path` asks for: what follows the prefix, so that it is empty or begins with a slash.
pub(crate) fn name_of(path: &str) -> Result<Name, Unusable> {
    let mut bytes = Vec::with_capacity(path.len());
    let path = path.as_bytes();
    let rest = path.strip_prefix(b"/").unwrap_or(path);
    let is_directory = !path.is_empty() && (rest.is_empty() || rest.ends_with(b"/"));
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    if !rest.is_empty() || path.starts_with(b"//") {
        for segment in rest.split(|&byte| byte == b'/') {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            let begin = bytes.len();
            decode(segment, &mut bytes)?;
            let segment = &bytes[begin..];
            // A dot at the beginning also is `.` and `..`.
            if segment.is_empty()
                || segment[0] == b'.'
                || segment.iter().any(|&byte| matches!(byte, b'/' | b'\\'))
            {
                return Err(Unusable::Hidden);
            }
        }
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(Unusable::Hidden);
    }
    Ok(Name {
        bytes,
        is_directory,
    })
}

fn decode(segment: &[u8], into: &mut Vec<u8>) -> Result<(), Unusable> {
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || {
                let digit = char::from(*bytes.next()?).to_digit(16)?;
                u8::try_from(digit).ok()
            };
            match (digit(), digit()) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(Unusable::Malformed),
            }
        } else {
            byte
        };
        if byte == 0 {
            return Err(Unusable::Malformed);
        }
        into.push(byte);
    }
    Ok(())
}

/// Whether `text` is like `pattern`, in which `*` stands for any bytes and `?` for one.
pub(crate) fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where to go on when it does not fit: the last star takes one byte more.
    let mut again = None;
    while at < text.len() {
        match pattern.get(of) {
            Some(b'*') => {
                again = Some((at, of));
                of += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[at] => {
                at += 1;
                of += 1;
            }
            _ => match again {
                None => return false,
                Some((taken, star)) => {
                    again = Some((taken + 1, star));
                    (at, of) = (taken + 1, star + 1);
                }
            },
        }
    }
    pattern[of..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{Name, Unusable, is_like, name_of};

    #[test]
    fn paths_that_name_something() {
        for (path, bytes, is_directory) in [
            ("", "", false),
            ("/", "", true),
            ("/a.js", "a.js", false),
            ("/a/b.js", "a/b.js", false),
            ("/a/", "a", true),
            ("/a%20b", "a b", false),
            ("/%61", "a", false),
            ("/a.b", "a.b", false),
            // Decoded once.
            ("/%2561", "%61", false),
            ("/%252e%252e", "%2e%2e", false),
            ("/%C3%A4", "\u{e4}", false),
            ("/a;b=c,d", "a;b=c,d", false),
        ] {
            let expected = Name {
                bytes: bytes.into(),
                is_directory,
            };
            assert_eq!(name_of(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn paths_that_name_nothing() {
        for path in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/../a",
            "/a/..",
            "/a/../",
            "/.git",
            "/a/.env",
            "/%2e",
            "/%2e%2e/a",
            "/.%2e/a",
            "/a%2fb",
            "/a%2Fb",
            "/%2f",
            "/%5c",
            "/a\\b",
            "/..%5ca",
            "/.well-known/a",
        ] {
            assert_eq!(name_of(path), Err(Unusable::Hidden), "{path}");
        }
        for path in ["/%", "/%a", "/%zz", "/a%0", "/%00", "/a%00.js", "/%+1"] {
            assert_eq!(name_of(path), Err(Unusable::Malformed), "{path}");
        }
        assert_eq!(
            name_of(&format!("/{}", "a".repeat(5000))),
            Err(Unusable::Hidden)
        );
    }

    #[test]
    fn patterns() {
        for (text, pattern, fits) in [
            ("", "", true),
            ("a", "", false),
            ("", "*", true),
            ("app.1a2b3c4d.js", "*.????????.js", true),
            ("app.1a2b3c4.js", "*.????????.js", false),
            ("app.js", "*.????????.js", false),
            ("/static/assets/a/b.js", "/static/assets/*", true),
            ("/static/other/b.js", "/static/assets/*", false),
            ("aXbXc", "a*b*c", true),
            ("aXbXd", "a*b*c", false),
            ("abab", "*ab", true),
            ("ab", "a?b", false),
        ] {
            assert_eq!(
                is_like(text.as_bytes(), pattern.as_bytes()),
                fits,
                "{text} {pattern}"
            );
        }
    }
}
