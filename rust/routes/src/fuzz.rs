//! What must hold for any bytes, of everything here that reads what a stranger wrote.
//!
//! Each target takes bytes and panics when a property is broken. They are driven in two ways: by the tests below, with mutations of the
//! seeds in `fuzz/corpus` that are the same each time, and by libFuzzer (`task fuzz:routes`), which follows coverage.

#![allow(clippy::missing_panics_doc, reason = "panics are what a target is for")]

use std::sync::OnceLock;

use http::Method;
use serde_json::Value as Owned;

use crate::json::{self, ErrorKind, Limits, Value, push_float, push_string};
use crate::parameter::{Kind, Parsed};
use crate::pattern::Pattern;
use crate::text::{canonical_path, cookies, pairs};
use crate::{Found, Problem, Router, Schema, TrailingSlash};

/// Takes bytes of a stranger; panics when a property is broken.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("schema", schema),
    ("paths", paths),
    ("parameters", parameters),
    ("queries", queries),
];

/// Numbers that are the same each time.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Another seed, other numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// One of 0 to `end` - 1.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % end.max(1) as u64) as usize
    }
}

const LIMITS: Limits = Limits {
    bytes_max: 1 << 16,
    depth_max: 64,
    digits_max: 100,
};

/// What the reader takes is what `serde_json` takes, and means the same; what it refuses beyond that it refuses for one of its own
/// reasons.
pub fn json(data: &[u8]) {
    let known = serde_json::from_slice::<Owned>(data);
    match json::read(data, LIMITS) {
        Ok(value) => {
            let known = known.expect("serde_json takes everything that is JSON");
            assert_same(&value, &known);
            // What is written is read as the same.
            let mut text = Vec::new();
            push(&value, &mut text);
            let again = json::read(&text, Limits::default()).expect("what is written is JSON");
            assert!(value == again, "{value:?} {again:?}");
        }
        Err(error) => {
            assert!(error.offset <= data.len() && error.line >= 1 && error.column >= 1);
            let is_ours = matches!(
                error.kind,
                ErrorKind::NameTwice(_)
                    | ErrorKind::DepthMax(_)
                    | ErrorKind::DigitsMax(_)
                    | ErrorKind::BytesMax(_)
                    | ErrorKind::TooLarge
            );
            assert!(known.is_err() || is_ours, "{error}: {known:?}");
            Problem::of_faults(vec![error.into()]).check();
        }
    }
}

fn assert_same(value: &Value<'_>, known: &Owned) {
    match (value, known) {
        (Value::Null, Owned::Null) => {}
        (Value::Bool(left), Owned::Bool(right)) => assert_eq!(left, right),
        (Value::Number(left), Owned::Number(right)) => {
            assert_eq!(left.as_i64().is_some(), right.as_i64().is_some());
            if let Some(left) = left.as_float() {
                assert_eq!(Some(left.to_bits()), right.as_f64().map(f64::to_bits));
            } else {
                assert_eq!(left.text(), right.as_str());
            }
        }
        (Value::String(left), Owned::String(right)) => assert_eq!(left, right),
        (Value::Array(left), Owned::Array(right)) => {
            assert_eq!(left.len(), right.len());
            for (left, right) in left.iter().zip(right) {
                assert_same(left, right);
            }
        }
        (Value::Object(left), Owned::Object(right)) => {
            assert_eq!(left.len(), right.len());
            for (name, value) in left.members() {
                assert_same(value, &right[&**name]);
                assert!(std::ptr::eq(left.get(name).expect("it is there"), value));
            }
        }
        _ => panic!("{value:?} is not {known:?}"),
    }
}

fn push(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => match number.as_float() {
            Some(float) => {
                let from = out.len();
                push_float(float, out);
                let text = std::str::from_utf8(&out[from..]).expect("digits");
                let again: f64 = text.parse().expect("a float");
                assert_eq!(again.to_bits(), float.to_bits());
                // The nearest float is not always the number; that is not what is compared afterwards.
                out.truncate(from);
                out.extend_from_slice(number.text().as_bytes());
            }
            None => out.extend_from_slice(number.text().as_bytes()),
        },
        Value::String(text) => push_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                push(item, out);
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (position, (name, value)) in object.members().iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                push_string(name, out);
                out.push(b':');
                push(value, out);
            }
            out.push(b'}');
        }
    }
}

const SCHEMA: &str = r##"{
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": 18446744073709551616},
        "name": {"type": "string", "minLength": 1, "maxLength": 8, "pattern": "^[a-zé~/]*$"},
        "price": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.25},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 4},
        "any": {"uniqueItems": true},
        "when": {"type": "string", "format": "date-time"},
        "kind": {"enum": ["a", 1, null, {"b": [1.0]}]},
        "self": {"$ref": "#"}
    },
    "required": ["id"],
    "additionalProperties": {"anyOf": [{"type": "null"}, {"const": 1e2}]}
}"##;

/// A value is judged as the same crate judges what `serde_json` has read, and every fault names a place that is there.
pub fn schema(data: &[u8]) {
    static OURS: OnceLock<Schema> = OnceLock::new();
    static THEIRS: OnceLock<jsonschema::Validator> = OnceLock::new();
    let ours = OURS.get_or_init(|| Schema::compile(SCHEMA).expect("a schema"));
    let theirs = THEIRS.get_or_init(|| {
        let schema = serde_json::from_str(SCHEMA).expect("JSON");
        let options = jsonschema::options().should_validate_formats(true);
        options.build(&schema).expect("a schema")
    });
    let Ok(value) = json::read(data, LIMITS) else {
        return;
    };
    let known: Owned = serde_json::from_slice(data).expect("what we read is JSON");
    let faults = ours.check(&value).err().unwrap_or_default();
    assert_eq!(
        faults.is_empty(),
        theirs.is_valid(&known),
        "{faults:?} {known}"
    );
    Problem::of_faults(faults).check();
}

/// Whatever a path is, it is found by what it means.
pub fn paths(data: &[u8]) {
    static ROUTER: OnceLock<Router<usize>> = OnceLock::new();
    let router = ROUTER.get_or_init(|| {
        let mut router = Router::new(TrailingSlash::Redirect);
        let patterns = [
            "/",
            "/a/{id:int}",
            "/a/{name}",
            "/a/b/",
            "/{x:uuid}/b",
            "/f/{rest:path}",
            "/é/{day:date}/{y:float}",
        ];
        for (number, pattern) in patterns.iter().enumerate() {
            let pattern = Pattern::parse(pattern).expect("a pattern");
            router.add(Method::GET, pattern, number).expect("a route");
        }
        router
    });
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(path) = canonical_path(text) else {
        return;
    };
    assert_eq!(
        canonical_path(&path).as_deref(),
        Some(&*path),
        "once is enough"
    );
    match router.find(&Method::GET, &path) {
        Found::Route {
            pattern, values, ..
        } => {
            assert_eq!(pattern.parameters().len(), values.len());
            for (parameter, value) in pattern.parameters().iter().zip(&values) {
                assert!(parameter.kind.parse(value).is_ok());
            }
        }
        Found::Redirect(other) => {
            assert!(other.starts_with('/') && !other.starts_with("//"));
            assert!(
                other
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
            );
            assert!(matches!(
                router.find(&Method::GET, &other),
                Found::Route { .. }
            ));
        }
        Found::MethodNotAllowed(_) | Found::Options(_) => panic!("every route answers GET"),
        Found::Unknown => {}
    }
}

/// A text is of a kind, or is told what it must be; what it is has its bounds.
pub fn parameters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let kinds = [
        Kind::Str,
        Kind::Int,
        Kind::Float,
        Kind::Decimal,
        Kind::Bool,
        Kind::Uuid,
        Kind::Date,
        Kind::Time,
        Kind::DateTime,
        Kind::Choice(vec![String::new(), "x".to_owned()]),
    ];
    for kind in kinds {
        match kind.parse(text) {
            Ok(Parsed::Number(number)) => {
                assert_eq!(number.text(), text);
                assert!(kind != Kind::Float || number.to_f64().is_finite());
                serde_json::from_str::<serde_json::Number>(text).expect("a number of JSON");
            }
            Ok(Parsed::Uuid(value)) => {
                let digits: String = text.chars().filter(|letter| *letter != '-').collect();
                assert_eq!(format!("{value:032x}"), digits.to_ascii_lowercase());
            }
            Ok(Parsed::Date(day)) => {
                assert_eq!(
                    format!("{:04}-{:02}-{:02}", day.year, day.month, day.day),
                    text
                );
            }
            Ok(Parsed::Time(time) | Parsed::DateTime(_, time)) => {
                assert!(time.hour < 24 && time.minute < 60 && time.second < 60);
                assert!(time.microsecond < 1_000_000);
                assert!(
                    time.offset_minutes
                        .is_none_or(|minutes| minutes.abs() < 24 * 60)
                );
            }
            Ok(_) => {}
            Err(demand) => assert!(demand.starts_with("must be "), "{demand}"),
        }
    }
}

/// Queries and cookies are pairs, as many as there are separators, and no longer than what they were.
pub fn queries(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut bytes = 0;
    for (name, value) in pairs(text) {
        bytes += name.len() + value.map_or(0, |value| value.len());
    }
    assert!(bytes <= text.len());
    assert!(pairs(text).count() <= text.split('&').count());
    assert!(cookies(text).count() <= text.split(';').count());
    for (name, value) in cookies(text) {
        assert_eq!((name.trim(), value.contains(';')), (name, false));
    }
}

impl Problem {
    /// It is JSON, whatever it tells.
    fn check(&self) {
        let told: Owned = serde_json::from_slice(&self.to_json()).expect("a problem is JSON");
        assert_eq!(told["status"], self.status.as_u16());
        let errors = told["errors"].as_array().map_or(0, Vec::len);
        assert_eq!(errors, self.faults.len());
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Random, TARGETS};

    /// Pieces that mean something to one target or another.
    const WORDS: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b" ",
        b"\n",
        b"\0",
        b"0",
        b"1",
        b"-",
        b".",
        b"e",
        b"E+9",
        b"true",
        b"null",
        b"NaN",
        b"\\u",
        b"\\ud83d\\ude00",
        b"\\udc00",
        b"\xc3\xa9",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\"id\":1",
        b"\"a\":",
        b"1e400",
        b"18446744073709551616",
        b"0.1",
        b"/",
        b"//",
        b"%",
        b"%2F",
        b"%2f",
        b"%ff",
        b"+",
        b"&",
        b"=",
        b";",
        b"T",
        b"Z",
        b"2024-02-29",
        b"12:30",
        b"+00:00",
    ];

    fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => {
                let end = bytes.len().min(at + 1 + random.below(20));
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            3 => {
                let end = bytes.len().min(at + random.below(20));
                bytes.drain(at..end);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }

    /// Inputs that mean something to a target; libFuzzer begins with the same.
    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut files: Vec<_> = fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("no seeds of {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn drive(name: &str, rounds: usize) {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        let mut random = Random::new(1);
        let seeds = seeds(name);
        let attempt = |bytes: &[u8]| {
            let broken = std::panic::catch_unwind(|| target(bytes)).is_err();
            assert!(!broken, "{name} broke on b\"{}\"", bytes.escape_ascii());
        };
        for seed in &seeds {
            attempt(seed);
        }
        for _ in 0..rounds {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut random, &mut bytes);
            }
            attempt(&bytes);
        }
    }

    #[test]
    fn json_is_read_as_others_read_it_or_refused() {
        drive("json", 50_000);
    }

    #[test]
    fn values_are_judged_as_others_judge_them() {
        drive("schema", 20_000);
    }

    #[test]
    fn paths_are_found_by_what_they_mean() {
        drive("paths", 50_000);
    }

    #[test]
    fn parameters_are_of_a_kind_or_told() {
        drive("parameters", 50_000);
    }

    #[test]
    fn queries_and_cookies_are_pairs() {
        drive("queries", 50_000);
    }

    #[test]
    fn every_target_has_seeds_and_all_seeds_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut found: Vec<_> = fs::read_dir(corpus)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        found.sort();
        names.sort_unstable();
        assert_eq!(found, names);
    }
}
