//! Patterns of paths: `/items/{id:int}`, `/files/{rest:path}`.

use std::fmt;

use crate::parameter::Kind;
use crate::text::push_path;

/// A path with places for parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    text: String,
    segments: Vec<Segment>,
    parameters: Vec<Parameter>,
}

/// One parameter of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it has to be, for the path to be one of the pattern.
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Segment {
    /// As [`crate::text::canonical_path`] writes it.
    Static(String),
    /// One segment that is not empty.
    Parameter,
    /// Everything that is left, which is not nothing.
    Rest,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Reads a pattern. Its static text is written as it is meant, not percent-encoded.
    ///
    /// # Errors
    /// It does not begin with `/`, names a parameter twice or a kind that there is not, or has a brace where none can be.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |why: &str| Err(PatternError(format!("the path {text:?} {why}")));
        let Some(path) = text.strip_prefix('/') else {
            return fail("does not begin with /");
        };
        let mut segments = Vec::new();
        let mut parameters: Vec<Parameter> = Vec::new();
        let pieces: Vec<_> = path.split('/').collect();
        for (position, piece) in pieces.iter().enumerate() {
            let Some(inner) = piece
                .strip_prefix('{')
                .and_then(|piece| piece.strip_suffix('}'))
            else {
                if piece.contains(['{', '}']) {
                    return fail("has a brace: a parameter is a whole segment, as in /items/{id}");
                }
                if piece.contains(['?', '#']) {
                    return fail("has a ? or #, which end a path");
                }
                if matches!(*piece, "." | "..") {
                    return fail("has a segment . or .., which clients resolve before they send");
                }
                let mut canonical = String::new();
                push_path(piece, &mut canonical);
                segments.push(Segment::Static(canonical));
                continue;
            };
            let (name, kind) = inner.split_once(':').unwrap_or((inner, "str"));
            if !is_name(name) {
                return fail("has a parameter whose name is no identifier");
            }
            if parameters.iter().any(|parameter| parameter.name == name) {
                return fail(&format!("names the parameter {name} twice"));
            }
            let kind = if kind == "path" {
                if position + 1 < pieces.len() {
                    return fail(
                        "goes on behind a parameter that takes everything: it has to be the last",
                    );
                }
                segments.push(Segment::Rest);
                Kind::Str
            } else {
                segments.push(Segment::Parameter);
                match Kind::named(kind) {
                    Some(kind) => kind,
                    None => {
                        return fail(&format!(
                            "has a parameter of the kind {kind:?}, which is none of str, int, float, decimal, bool, uuid, date, \
                             time, datetime, path"
                        ));
                    }
                }
            };
            parameters.push(Parameter {
                name: name.to_owned(),
                kind,
            });
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
            parameters,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its parameters, in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first == '_' || first.is_alphabetic())
        && letters.all(|letter| letter == '_' || letter.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Segment};
    use crate::parameter::Kind;

    #[test]
    fn patterns_are_segments() {
        let pattern = Pattern::parse("/käse/{id:int}/{rest:path}").unwrap();
        assert_eq!(
            pattern.segments(),
            [
                Segment::Static("k%C3%A4se".into()),
                Segment::Parameter,
                Segment::Rest
            ]
        );
        let of = |index: usize| {
            let parameter = &pattern.parameters()[index];
            (parameter.name.as_str(), parameter.kind.clone())
        };
        assert_eq!(of(0), ("id", Kind::Int));
        assert_eq!(of(1), ("rest", Kind::Str));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("items", "does not begin with /"),
            ("/{id}.json", "whole segment"),
            ("/a{", "whole segment"),
            ("/{a}/{a}", "twice"),
            ("/{1a}", "no identifier"),
            ("/{}", "no identifier"),
            ("/{a:integer}", "none of str, int"),
            ("/{a:path}/b", "has to be the last"),
            ("/a?b", "end a path"),
            ("/a/../b", "resolve"),
        ] {
            let said = Pattern::parse(text).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(text), "{said}");
        }
    }
}
