//! Patterns of topic names: segments, of which `*` is any one and `**`, at the end, all that are left.
//!
//! | pattern | fits | does not fit |
//! |---|---|---|
//! | `camera/front` | `camera/front` | `camera`, `camera/front/depth` |
//! | `camera/*` | `camera/front` | `camera`, `camera/front/depth` |
//! | `camera/**` | `camera/front`, `camera/front/depth` | `camera`, `cameras/front` |
//! | `**` | every topic | |
//!
//! A star stands for at least one segment and never for a part of one: `cam*` is refused, because somebody would take it for
//! `cam*/**`.

use std::{fmt, str::FromStr};

/// Which topics are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// `None`: any segment.
    segments: Vec<Option<Box<str>>>,
    /// One or more segments may follow.
    has_rest: bool,
}

/// A text that is no pattern, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPattern {
    text: String,
    reason: &'static str,
}

impl Pattern {
    /// Is the topic meant? Its name follows the grammar, which the caller has checked.
    pub fn fits(&self, topic: &str) -> bool {
        let mut left = topic.split('/');
        for segment in &self.segments {
            let Some(found) = left.next() else {
                return false;
            };
            if segment.as_deref().is_some_and(|wanted| wanted != found) {
                return false;
            }
        }
        left.next().is_some() == self.has_rest
    }
}

/// The bytes of a segment, as topic names have them: `[A-Za-z0-9_][A-Za-z0-9_.-]*`.
fn is_segment(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let wrong = |reason| NotAPattern {
            text: text.to_owned(),
            reason,
        };
        let (front, has_rest) = match text.strip_suffix("**") {
            Some("") => ("", true),
            Some(front) => match front.strip_suffix('/') {
                Some("") => return Err(wrong("a segment is empty")),
                Some(front) => (front, true),
                None => return Err(wrong("`**` is a segment of its own")),
            },
            None => (text, false),
        };
        let mut segments = Vec::new();
        if !front.is_empty() || !has_rest {
            for segment in front.split('/') {
                segments.push(match segment {
                    "*" => None,
                    "" => return Err(wrong("a segment is empty")),
                    "**" => return Err(wrong("`**` stands at the end")),
                    _ if segment.contains('*') => {
                        return Err(wrong("a star is a whole segment, never a part of one"));
                    }
                    _ if is_segment(segment) => Some(segment.into()),
                    _ => {
                        return Err(wrong(
                            "segments of topic names are [A-Za-z0-9_][A-Za-z0-9_.-]*",
                        ));
                    }
                });
            }
        }
        Ok(Self { segments, has_rest })
    }
}

impl fmt::Display for NotAPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no pattern of topics: {}",
            self.text, self.reason
        )
    }
}

impl std::error::Error for NotAPattern {}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn pattern_fits_its_topics_and_no_others() {
        for (text, inside, outside) in [
            (
                "camera/front",
                &["camera/front"][..],
                &[
                    "camera",
                    "camera/front/depth",
                    "camera/fronts",
                    "Camera/front",
                ][..],
            ),
            (
                "camera/*",
                &["camera/front", "camera/a.b-c"],
                &["camera", "camera/front/depth", "cameras/front"],
            ),
            (
                "camera/**",
                &["camera/front", "camera/front/depth", "camera/a/b/c/d"],
                &["camera", "cameras/front", "camera.x/y"],
            ),
            ("*", &["camera", "a"], &["camera/front"]),
            ("**", &["camera", "camera/front", "a/b/c/d/e/f/g/h"], &[]),
            (
                "*/left",
                &["a/left", "b/left"],
                &["left", "a/b/left", "a/right"],
            ),
            ("*/*/**", &["a/b/c", "a/b/c/d"], &["a/b", "a"]),
        ] {
            for topic in inside {
                assert!(pattern(text).fits(topic), "{text} fits {topic}");
            }
            for topic in outside {
                assert!(!pattern(text).fits(topic), "{text} does not fit {topic}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "", "/", "/a", "a/", "a//b", "cam*", "*a", "a/b*/c", "**/a", "a/**/b", "a**", "/**",
            "***", "a/***", ".a", "-a", "a/..", "a b", "é", "a\0", "a/?", "a/[b]", "**/**", "**/",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    /// What the table above says, as slowly as it can be said.
    fn fits_slowly(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) | (["**"], [_, ..]) => true,
            ([first, pattern @ ..], [segment, topic @ ..]) => {
                *first != "**" && (*first == "*" || first == segment) && fits_slowly(pattern, topic)
            }
            _ => false,
        }
    }

    #[test]
    fn random_patterns_fit_as_the_slow_definition_says() {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % 1_000_003).expect("small") % bound
        };
        // Few words, so that many pairs fit.
        let words = ["a", "b", "ab", "a.b"];
        let (mut fitted, mut others) = (0, 0);
        for _ in 0..20_000 {
            let topic: Vec<&str> = (0..=below(5)).map(|_| words[below(4)]).collect();
            let mut text: Vec<&str> = (0..below(6))
                .map(|_| if below(3) == 0 { "*" } else { words[below(4)] })
                .collect();
            if text.is_empty() || below(3) == 0 {
                text.push("**");
            }
            let (text_joined, name) = (text.join("/"), topic.join("/"));
            let expected = fits_slowly(&text, &topic);
            assert_eq!(
                pattern(&text_joined).fits(&name),
                expected,
                "{text_joined} {name}"
            );
            *(if expected { &mut fitted } else { &mut others }) += 1;

            // Laws: a name fits itself; a star in the place of any segment changes nothing; so does the rest as `**`.
            assert!(pattern(&name).fits(&name), "{name}");
            let place = below(topic.len());
            let mut starred = topic.clone();
            starred[place] = "*";
            assert!(
                pattern(&starred.join("/")).fits(&name),
                "{starred:?} {name}"
            );
            starred.truncate(place);
            starred.push("**");
            assert!(
                pattern(&starred.join("/")).fits(&name),
                "{starred:?} {name}"
            );
            // And what is above or below a name never fits it.
            assert!(!pattern(&format!("{name}/**")).fits(&name), "{name}");
            assert!(!pattern(&name).fits(&format!("{name}/a")), "{name}");
        }
        assert!(
            fitted > 1000 && others > 1000,
            "{fitted} fit, {others} do not"
        );
    }
}
