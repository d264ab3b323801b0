//! What a client is told: `application/problem+json` (RFC 9457).
//!
//! ```json
//! {"type":"about:blank","title":"Unprocessable Content","status":422,"detail":"2 things are wrong with the request",
//!  "errors":[{"in":"query","name":"limit","detail":"must be an integer"},
//!            {"in":"body","pointer":"#/age","keyword":"minimum","detail":"must be 0 or more"}]}
//! ```
//!
//! `pointer` is a JSON pointer as a URI fragment, as in the RFC's own example. No value that the client sent is repeated: an
//! answer can end up in a log or a page.

use std::fmt::Write;

use http::StatusCode;

use crate::json::{self, push_string};
use crate::text::push_fragment;

/// The media type of [`Problem::to_json`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Where a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At that JSON pointer (RFC 6901) of the body; the empty one is all of it.
    Body(String),
    /// At that byte, line and column of a body that is no JSON.
    BodyText {
        /// Byte, the first is 0.
        offset: usize,
        /// Line, the first is 1.
        line: usize,
        /// Character in the line, the first is 1.
        column: usize,
    },
    /// A parameter of the path, by its name.
    Path(String),
    /// A parameter of the query, by its name.
    Query(String),
    /// A header field, by its name.
    Header(String),
    /// A cookie, by its name.
    Cookie(String),
    /// A field or a file of a form, by its name.
    Form(String),
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The keyword of JSON Schema that says so, when one does.
    pub keyword: Option<String>,
    /// What, for people; continues the name of the place: `must be an integer`.
    pub detail: String,
}

impl Fault {
    /// A fault that no keyword found.
    pub fn new(place: Place, detail: impl Into<String>) -> Self {
        Self {
            place,
            keyword: None,
            detail: detail.into(),
        }
    }
}

impl From<json::Error> for Fault {
    fn from(error: json::Error) -> Self {
        Self::new(
            Place::BodyText {
                offset: error.offset,
                line: error.line,
                column: error.column,
            },
            error.kind.to_string(),
        )
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status of the answer.
    pub status: StatusCode,
    /// What is wrong in this case, for people; left out when there is no more to say than the status does.
    pub detail: Option<String>,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
}

impl Problem {
    /// A refusal that the status explains.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            detail: None,
            faults: Vec::new(),
        }
    }

    /// A refusal that says why.
    pub fn because(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(status)
        }
    }

    /// The refusal of a request with these faults. It is 400 when the body is no JSON and 422 when what was sent is not what is
    /// wanted.
    pub fn of_faults(faults: Vec<Fault>) -> Self {
        let is_no_json = |fault: &Fault| matches!(fault.place, Place::BodyText { .. });
        let (status, detail) = if faults.iter().any(is_no_json) {
            (StatusCode::BAD_REQUEST, "the body is no JSON".to_owned())
        } else {
            let detail = match faults.len() {
                1 => "one thing is wrong with the request".to_owned(),
                count => format!("{count} things are wrong with the request"),
            };
            (StatusCode::UNPROCESSABLE_ENTITY, detail)
        };
        Self {
            status,
            detail: Some(detail),
            faults,
        }
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + 96 * self.faults.len());
        // Titles belong to types; that of `about:blank` is the status' own (RFC 9457, section 4.2.1).
        out.extend_from_slice(br#"{"type":"about:blank","title":"#);
        push_string(title(self.status), &mut out);
        push_count(&mut out, r#","status":"#, usize::from(self.status.as_u16()));
        if let Some(detail) = &self.detail {
            push_member(&mut out, "detail", detail);
        }
        if !self.faults.is_empty() {
            out.extend_from_slice(br#","errors":["#);
            for (position, fault) in self.faults.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                fault.push(&mut out);
            }
            out.push(b']');
        }
        out.push(b'}');
        out
    }
}

/// As RFC 9110 has them; the library still has older words for two.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        status => status.canonical_reason().unwrap_or("Error"),
    }
}

impl Fault {
    fn push(&self, out: &mut Vec<u8>) {
        let (part, name) = match &self.place {
            Place::Body(_) | Place::BodyText { .. } => ("body", None),
            Place::Path(name) => ("path", Some(name)),
            Place::Query(name) => ("query", Some(name)),
            Place::Header(name) => ("header", Some(name)),
            Place::Cookie(name) => ("cookie", Some(name)),
            Place::Form(name) => ("form", Some(name)),
        };
        out.extend_from_slice(br#"{"in":"#);
        push_string(part, out);
        if let Some(name) = name {
            push_member(out, "name", name);
        }
        match &self.place {
            Place::Body(pointer) => {
                let mut fragment = String::from("#");
                push_fragment(pointer, &mut fragment);
                push_member(out, "pointer", &fragment);
            }
            Place::BodyText {
                offset,
                line,
                column,
            } => {
                push_count(out, r#","offset":"#, *offset);
                push_count(out, r#","line":"#, *line);
                push_count(out, r#","column":"#, *column);
            }
            Place::Path(_)
            | Place::Query(_)
            | Place::Header(_)
            | Place::Cookie(_)
            | Place::Form(_) => {}
        }
        if let Some(keyword) = &self.keyword {
            push_member(out, "keyword", keyword);
        }
        push_member(out, "detail", &self.detail);
        out.push(b'}');
    }
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    push_string(name, out);
    out.push(b':');
    push_string(value, out);
}

fn push_count(out: &mut Vec<u8>, name: &str, value: usize) {
    let mut text = String::from(name);
    write!(text, "{value}").expect("a string takes everything");
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Fault, Place, Problem};
    use http::StatusCode;

    fn read(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.to_json()).unwrap()
    }

    #[test]
    fn a_refusal_is_as_the_rfc_has_it() {
        let told = read(&Problem::of_faults(vec![
            Fault::new(Place::Query("limit".into()), "must be an integer"),
            Fault {
                place: Place::Body("/a b/ü~1\"/0".into()),
                keyword: Some("minimum".into()),
                detail: "must be 0 or more".into(),
            },
        ]));
        assert_eq!(
            told,
            serde_json::json!({
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "2 things are wrong with the request",
                "errors": [
                    {"in": "query", "name": "limit", "detail": "must be an integer"},
                    {"in": "body", "pointer": "#/a%20b/%C3%BC~1%22/0", "keyword": "minimum",
                     "detail": "must be 0 or more"},
                ],
            })
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_400_and_says_where() {
        let error = crate::json::read(b"{\"a\":\n  nope}", crate::json::Limits::default());
        let told = read(&Problem::of_faults(vec![error.unwrap_err().into()]));
        assert_eq!(told["status"], 400);
        assert_eq!(
            told["errors"],
            serde_json::json!([
                {"in": "body", "offset": 8, "line": 2, "column": 3, "detail": "a value is expected"}
            ])
        );
    }

    #[test]
    fn a_status_alone_is_enough() {
        let told = read(&Problem::new(StatusCode::NOT_FOUND));
        assert_eq!(
            told,
            serde_json::json!({"type": "about:blank", "title": "Not Found", "status": 404})
        );
    }
}
