//! What the query of a request says. Parameters that are not ours mean nothing: some clients add one against caches.

use std::time::Duration;

use super::problem::{Code, Problem};
use crate::pictures::Coding;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// What the topic is like.
    Info,
    /// Who takes part in it.
    Participants,
    /// Its newest frame.
    Latest,
    /// One picture after the other.
    Mjpeg,
    /// What is said of each frame.
    Sse,
}

/// The form of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Its bytes, as they are.
    Raw,
    /// A file of numpy.
    Npy,
    /// A picture.
    Picture(Coding),
}

/// The parameters that mean something.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(crate) view: Option<View>,
    pub(crate) format: Option<Format>,
    /// A sequence: only a later frame is wanted, and waited for.
    pub(crate) after: Option<u64>,
    /// For how long it is waited for.
    pub(crate) timeout: Option<Duration>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`Code::Query`] if one of our parameters is there twice or has a value that means nothing.
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut found = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "view" => set(&mut found.view, name, view(value))?,
                "format" => set(&mut found.format, name, format(value))?,
                "after" => set(&mut found.after, name, number(value))?,
                "timeout" => set(&mut found.timeout, name, seconds(value))?,
                _ => {}
            }
        }
        Ok(found)
    }
}

fn set<T>(place: &mut Option<T>, name: &str, value: Option<T>) -> Result<(), Problem> {
    let expected = match name {
        "view" => "info, participants, latest, mjpeg or sse",
        "format" => "raw, npy, jpeg, webp or png",
        "after" => "the sequence of a frame",
        _ => "seconds, for example 2.5",
    };
    if place.is_some() || value.is_none() {
        return Err(Problem::new(
            Code::Query,
            format!("{name} is given once, and is {expected}"),
        ));
    }
    *place = value;
    Ok(())
}

fn view(value: &str) -> Option<View> {
    match value {
        "info" => Some(View::Info),
        "participants" => Some(View::Participants),
        "latest" => Some(View::Latest),
        "mjpeg" => Some(View::Mjpeg),
        "sse" => Some(View::Sse),
        _ => None,
    }
}

fn format(value: &str) -> Option<Format> {
    match value {
        "raw" => Some(Format::Raw),
        "npy" => Some(Format::Npy),
        name => Coding::from_name(name).map(Format::Picture),
    }
}

/// Digits alone: `parse` would also take a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// Digits and a point alone: `parse` would also take a sign, an exponent and `inf`.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(decimal(text)?).ok()
}
