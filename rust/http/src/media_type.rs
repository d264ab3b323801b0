//! Media types: what a file is, by its name, and what is worth compressing.

use http::HeaderValue;

/// `Content-Type` of a file of that name. Text is UTF-8 here: whatever was not, its author meant to be.
pub(crate) fn of_name(name: &[u8]) -> HeaderValue {
    const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
    let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else {
        return UNKNOWN;
    };
    let Ok(extension) = std::str::from_utf8(&name[dot + 1..]) else {
        return UNKNOWN;
    };
    let found = match extension {
        // What the table says of these is older than they are.
        "mjs" => "text/javascript",
        "map" => "application/json",
        _ => match mime_guess::from_ext(extension).first_raw() {
            Some(found) => found,
            None => return UNKNOWN,
        },
    };
    if found.starts_with("text/") {
        // Most files are of these: nothing to put together.
        match found {
            "text/html" => HeaderValue::from_static("text/html; charset=utf-8"),
            "text/css" => HeaderValue::from_static("text/css; charset=utf-8"),
            "text/javascript" => HeaderValue::from_static("text/javascript; charset=utf-8"),
            _ => HeaderValue::try_from(format!("{found}; charset=utf-8")).unwrap_or(UNKNOWN),
        }
    } else {
        HeaderValue::from_static(found)
    }
}

/// Whether bodies of that type get smaller: text in one form or another, and not what is compressed in itself.
pub(crate) fn is_compressible(content_type: &[u8]) -> bool {
    let end = content_type
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(content_type.len());
    let kind = content_type[..end].trim_ascii();
    let is_below = |prefix: &[u8]| {
        kind.get(..prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    let ends = |suffix: &[u8]| {
        kind.len() > suffix.len() && kind[kind.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    if is_below(b"text/") {
        return true;
    }
    ends(b"+json")
        || ends(b"+xml")
        || OTHERS
            .iter()
            .any(|other| kind.eq_ignore_ascii_case(other.as_bytes()))
}

/// Types beside `text/*`, `*+json` and `*+xml` that get smaller.
const OTHERS: [&str; 20] = [
    "application/javascript",
    "application/json",
    "application/xml",
    "application/graphql",
    "application/manifest",
    "application/ndjson",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
];

#[cfg(test)]
mod tests {
    use super::{is_compressible, of_name};

    #[test]
    fn types_by_name() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.css", "text/css; charset=utf-8"),
            ("app.3f2a.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("README.txt", "text/plain; charset=utf-8"),
            ("UPPER.PNG", "image/png"),
            ("a.svg", "image/svg+xml"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.avif", "image/avif"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.map", "application/json"),
            ("a.tar.gz", "application/gzip"),
            ("Makefile", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
            ("a.b/c", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(of_name(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(of_name(b"a.\xff"), "application/octet-stream");
    }

    #[test]
    fn types_that_get_smaller() {
        for kind in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "text/x-anything",
            "application/json",
            "application/problem+json; a=b",
            "image/svg+xml",
            "application/wasm",
            "application/javascript",
        ] {
            assert!(is_compressible(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "",
            "image/png",
            "video/mp4",
            "application/zip",
            "application/octet-stream",
            "+json",
            "font/woff2",
            "json",
            "texts/a",
        ] {
            assert!(!is_compressible(kind.as_bytes()), "{kind}");
        }
    }
}
