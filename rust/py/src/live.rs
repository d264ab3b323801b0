//! The live page: a few files of the package in front of the application, which show the topics of the frame routes.
//!
//! The page holds no data and so asks nobody who they are; what it asks the frame routes for is decided there.

use std::{path::PathBuf, rc::Rc};

use framegate_http::{
    routes::Routes,
    service::Service,
    static_files::{Settings, StaticFiles},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};

use crate::event_loop::LoopCore;
use crate::static_files::report;

/// What the page may load and whom it may talk to: nobody else. Pictures of frames are `blob:` URLs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
/// Tells the page where the frame routes are.
const TOPICS_AT: HeaderName = HeaderName::from_static("framegate-topics");

/// `application` with the live page in front of it, where the setting `live` names a prefix.
pub(crate) fn in_front_of(
    application: Rc<dyn Service>,
    config: &Bound<'_, PyAny>,
    added: &HeaderMap,
    core: &Rc<LoopCore>,
) -> PyResult<Rc<dyn Service>> {
    let live: Option<String> = config.getattr("live")?.extract()?;
    let topics: Option<String> = config.getattr("topics")?.extract()?;
    let (Some(prefix), Some(topics)) = (live, topics) else {
        return Ok(application);
    };
    let topics = HeaderValue::try_from(topics)
        .map_err(|error| PyValueError::new_err(format!("topics: {error}")))?;
    let mut headers: Vec<(HeaderName, HeaderValue)> = added
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.extend([
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (TOPICS_AT, topics),
    ]);
    let settings = Settings {
        prefix: prefix.clone(),
        directory: directory(config.py())?,
        // The files change with the version of the package only, but have no version in their names.
        cache_control: Some(HeaderValue::from_static("no-cache")),
        immutable: Vec::new(),
        precompressed: false,
        headers,
    };
    let files = StaticFiles::new(settings, report(core.clone()))
        .map_err(|error| PyOSError::new_err(format!("live {prefix}: {error}")))?;
    Ok(Rc::new(
        Routes::new(application).prefix(prefix, Rc::new(files)),
    ))
}

/// Where the package has the page.
fn directory(py: Python<'_>) -> PyResult<PathBuf> {
    let package: PathBuf = py.import("framegate")?.getattr("__file__")?.extract()?;
    let directory = package.with_file_name("live");
    if directory.join("index.html").is_file() {
        return Ok(directory);
    }
    Err(PyOSError::new_err(format!(
        "live: the page is not in {}: this framegate was built without it",
        directory.display()
    )))
}
