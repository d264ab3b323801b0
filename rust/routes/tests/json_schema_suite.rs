//! The official test suite of JSON Schema for 2020-12 (`tests/suite`, from the source distribution of the Python package `jsonschema` 4.26.0),
//! through our reader and our schemas as they ship.

use std::{
    fs,
    path::{Path, PathBuf},
};

use framegate_routes::{
    Schema,
    json::{self, Limits, Value},
};

/// Files that say what we do not do, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "format.json",
        "formats as mere annotations; here they are asserted, which optional/format/ and format-assertion.json test",
    ),
    ("optional/cross-draft.json", "schemas of other drafts"),
    (
        "optional/dependencies-compatibility.json",
        "a keyword of other drafts",
    ),
    (
        "optional/ecmascript-regex.json",
        "patterns here are those of Rust's linear engine",
    ),
    ("optional/format/ecmascript-regex.json", "the same"),
    (
        "optional/format/idn-email.json",
        "a format that is not known here, and so not asserted",
    ),
    ("optional/format/idn-hostname.json", "the same"),
    (
        "optional/format/unknown.json",
        "names a format that nobody knows; nothing to assert",
    ),
];

/// Single groups, by file and description.
const GROUPS_LEFT_OUT: &[(&str, &str, &str)] = &[(
    "vocabulary.json",
    "schema that uses custom metaschema with with no validation vocabulary",
    "schemas here are of 2020-12 as it is, whatever metaschema they name",
)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite")
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What the suite's documents refer to, by the addresses that it has for them.
fn remotes() -> Vec<(String, String)> {
    let from = root().join("remotes");
    files(&from)
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&from)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (
                format!("http://localhost:1234/{name}"),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

/// The suite's groups are read by the reader under test, but schemas are handed on as text.
fn text_of(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(value) => out.extend(value.to_string().bytes()),
        Value::Number(number) => out.extend(number.text().bytes()),
        Value::String(text) => json::push_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                out.extend((position > 0).then_some(b','));
                text_of(item, out);
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (position, (name, value)) in object.members().iter().enumerate() {
                out.extend((position > 0).then_some(b','));
                json::push_string(name, out);
                out.push(b':');
                text_of(value, out);
            }
            out.push(b'}');
        }
    }
}

fn member<'a>(value: &'a Value<'a>, name: &str) -> &'a Value<'a> {
    let Value::Object(object) = value else {
        panic!("{value:?} is no object");
    };
    object
        .get(name)
        .unwrap_or_else(|| panic!("{value:?} has no {name}"))
}

fn text<'a>(value: &'a Value<'a>) -> &'a str {
    match value {
        Value::String(text) => text,
        _ => panic!("{value:?} is no string"),
    }
}

#[test]
fn every_test_of_the_suite_is_judged_as_the_suite_does() {
    let remotes = remotes();
    let documents: Vec<_> = remotes
        .iter()
        .map(|(address, text)| (address.as_str(), text.as_str()))
        .collect();
    let from = root().join("tests");
    let mut wrong = Vec::new();
    let mut judged = 0;
    let mut left_out = 0;
    for path in files(&from) {
        let name = path.strip_prefix(&from).unwrap().to_str().unwrap();
        if LEFT_OUT.iter().any(|(file, _)| *file == name) {
            left_out += 1;
            continue;
        }
        let source = fs::read(&path).unwrap();
        // Some numbers of the suite are longer than what clients may send.
        let Value::Array(groups) = json::read(&source, Limits::default()).unwrap() else {
            panic!("{name} is no list");
        };
        for group in &groups {
            let about = text(member(group, "description"));
            if GROUPS_LEFT_OUT
                .iter()
                .any(|(file, group, _)| (*file, *group) == (name, about))
            {
                left_out += 1;
                continue;
            }
            let mut schema = Vec::new();
            text_of(member(group, "schema"), &mut schema);
            let schema = String::from_utf8(schema).unwrap();
            let schema = match Schema::compile_among(&schema, &documents) {
                Ok(schema) => schema,
                Err(error) => {
                    wrong.push(format!("{name}: {about}: {error}"));
                    continue;
                }
            };
            let Value::Array(tests) = member(group, "tests") else {
                panic!("{name} has no tests");
            };
            for test in tests {
                let data = member(test, "data");
                let Value::Bool(wanted) = member(test, "valid") else {
                    panic!("{name} does not say what it wants");
                };
                let faults = schema.check(data).err().unwrap_or_default();
                if faults.is_empty() != *wanted || schema.is_valid(data) != *wanted {
                    let what = text(member(test, "description"));
                    wrong.push(format!("{name}: {about}: {what}: {faults:?}"));
                }
                judged += 1;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {judged}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // The suite was there, and what is named above was in it.
    assert!(judged > 1500, "{judged}");
    assert_eq!(left_out, LEFT_OUT.len() + GROUPS_LEFT_OUT.len());
}
