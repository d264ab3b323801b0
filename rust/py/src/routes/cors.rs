//! Requests of pages of other origins: the fields of <https://fetch.spec.whatwg.org/#http-cors-protocol>.
//!
//! Every answer of a route has them, also one that refuses: a page that cannot read a problem cannot show it. What is mounted
//! beside the routes says itself what it allows.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pyo3::{exceptions::PyValueError, prelude::*};

use super::answer::Answer;

/// What `framegate.app.Cors` says.
pub(super) struct Cors {
    /// `None` is every origin.
    origins: Option<HashSet<Vec<u8>>>,
    credentials: bool,
    /// Fields that pages may send beside those that they always may; `None` is every field that is asked for.
    headers: Option<HeaderValue>,
    /// Fields of answers that pages may read.
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// Of one request.
pub(crate) struct Allowed<'a> {
    cors: &'a Cors,
    /// What is allowed to read the answer.
    origin: Option<HeaderValue>,
}

impl Cors {
    pub(super) fn read(cors: &Bound<'_, PyAny>) -> PyResult<Self> {
        let words = |name: &str| -> PyResult<Vec<String>> { cors.getattr(name)?.extract() };
        let value = |text: String| {
            HeaderValue::try_from(text).map_err(|error| PyValueError::new_err(error.to_string()))
        };
        let listed = |words: Vec<String>| -> PyResult<Option<HeaderValue>> {
            (!words.is_empty())
                .then(|| value(words.join(", ")))
                .transpose()
        };
        let is_any = |words: &[String]| words.iter().any(|word| word == "*");
        let origins = words("origins")?;
        let headers = words("headers")?;
        Ok(Self {
            origins: (!is_any(&origins))
                .then(|| origins.into_iter().map(String::into_bytes).collect()),
            credentials: cors.getattr("credentials")?.is_truthy()?,
            headers: if is_any(&headers) {
                None
            } else {
                Some(value(headers.join(", "))?)
            },
            expose: listed(words("expose")?)?,
            max_age: cors.getattr("max_age")?.extract::<u32>()?.into(),
        })
    }

    /// What is said to a request with these fields.
    pub(super) fn allowed(&self, request: &HeaderMap) -> Allowed<'_> {
        let mut origins = request.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (Some(origin), None) => match &self.origins {
                Some(known) => known.contains(origin.as_bytes()).then(|| origin.clone()),
                // With credentials a star means an origin of that name.
                None if self.credentials => Some(origin.clone()),
                None => Some(HeaderValue::from_static("*")),
            },
            _ => None,
        };
        Allowed { cors: self, origin }
    }

    /// Completes the answer to a question before the request. `allow` are the methods of the path.
    pub(super) fn preflight(&self, request: &HeaderMap, allow: &str, answer: &mut Answer) {
        let asks = request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed(request).origin.is_none() {
            return;
        }
        answer.set(header::ACCESS_CONTROL_ALLOW_METHODS, allow.to_owned());
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(headers) = self.headers.as_ref().or(asked) {
            answer.push(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        answer.push(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let vary = "access-control-request-headers, access-control-request-method";
        answer.push(header::VARY, HeaderValue::from_static(vary));
    }
}

impl Allowed<'_> {
    /// Puts the fields into the head of the answer.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let mut put = |name: HeaderName, value: HeaderValue| {
            headers.insert(name, value);
        };
        if let Some(origin) = &self.origin {
            put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.cors.credentials {
                let yes = HeaderValue::from_static("true");
                put(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            if let Some(expose) = &self.cors.expose {
                put(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
        }
        if self.cors.origins.is_some() || self.cors.credentials {
            // Caches must not give one origin the answer to another.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}
