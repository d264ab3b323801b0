//! `GET /topics?view=openapi`: the frame routes as an `OpenAPI` 3.1 document.
//!
//! Which codes there are and what their status is comes from the table that answers come from ([`Code::ALL`]), the prefixes
//! and topics from the configuration. What parameters mean stands in `openapi.json`; a test asks the routes for all that it
//! says (`tests/topics/test_openapi.py`). It is a view of the list, so that no topic loses its name to it.

use std::fmt::Write as _;

use super::head::Dtype;
use super::json;
use super::problem::Code;

/// What the document says of one server.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Of the server.
    pub version: String,
    /// Path in front of calls, where they are on.
    pub calls: Option<String>,
    /// What the configuration says of topics.
    pub topics: Vec<Declared>,
}

/// Topics whose names fit a pattern.
#[derive(Clone, Debug)]
pub struct Declared {
    /// `camera/*`
    pub pattern: String,
    /// `POST` creates them.
    pub create: bool,
    /// Bytes of a slot; 0 where that is not said.
    pub slot_bytes: u64,
    /// What every frame is.
    pub array: Option<(Dtype, Vec<u64>)>,
}

/// Where the paths of calls go.
const CALLS: &str = "\"@calls@\": null";

/// The document.
pub(super) fn document(prefix: &str, about: &About) -> Vec<u8> {
    let text = if about.calls.is_some() {
        include_str!("openapi.json").replace(CALLS, include_str!("openapi-calls.json"))
    } else {
        let (before, behind) = include_str!("openapi.json")
            .split_once(CALLS)
            .unwrap_or_default();
        // The comma in front of it goes, too.
        format!("{}{behind}", before.trim_end().trim_end_matches(','))
    };
    text.replace("\"@codes@\"", &codes())
        .replace("@prefix@", prefix)
        .replace("@call@", about.calls.as_deref().unwrap_or_default())
        .replace("@version@", &about.version)
        .replace("\"@responses@\": null", &responses())
        .replace("\"@topics@\"", &topics(&about.topics))
        .into_bytes()
}

fn codes() -> String {
    let mut text = String::new();
    for (index, code) in Code::ALL.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\"{}\"", code.text());
    }
    text
}

/// One for each status, with its codes.
fn responses() -> String {
    let mut statuses: Vec<u16> = Code::ALL
        .iter()
        .map(|code| code.status().as_u16())
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    let mut text = String::new();
    for status in statuses {
        let codes: Vec<&str> = Code::ALL
            .iter()
            .filter(|code| code.status().as_u16() == status)
            .map(|code| code.text())
            .collect();
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(
            text,
            r##"{comma}"{status}":{{"description":"{}","content":{{"application/problem+json":{{"schema":{{"$ref":"#/components/schemas/Problem"}}}}}}}}"##,
            codes.join(", ")
        );
    }
    text
}

fn topics(declared: &[Declared]) -> String {
    let listed = declared.iter().map(|topic| {
        let mut object = json::Object::new();
        object.text("pattern", &topic.pattern);
        object.json("create", if topic.create { b"true" } else { b"false" });
        if let Some((dtype, shape)) = &topic.array {
            object.text("dtype", dtype.name());
            object.numbers("shape", shape.iter().map(|length| Some(*length)));
        }
        if topic.slot_bytes > 0 {
            object.number("slot_bytes", topic.slot_bytes);
        }
        object.finish()
    });
    String::from_utf8(json::list(listed)).unwrap_or_else(|_| "[]".to_owned())
}
