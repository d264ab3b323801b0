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
use crate::static_files::{fields_of, report};

/// What the page may load and whom it may talk to: nobody else. Pictures of frames are `blob:` URLs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
/// Tells the page where the frame routes are.
const TOPICS_AT: HeaderName = HeaderName::from_static("framegate-topics");
/// Names the topic that the page may publish on as a camera.
const DEMO_AT: HeaderName = HeaderName::from_static("framegate-demo");
/// Topic of the camera that the page itself is, when somebody asks for one.
const DEMO_TOPIC: &str = "demo/browser";
/// Height, width and channels of its pictures (`web/src/demo.ts` draws them).
pub(crate) const DEMO_SHAPE: [u64; 3] = [180, 320, 4];
/// It is one publisher with a few viewers.
pub(crate) const DEMO_SLOTS: u32 = 8;

/// The topic of the page's own camera: while developing, so that a browser cannot fill the memory of a server at work.
pub(crate) fn demo(config: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
    let live: Option<String> = config.getattr("live")?.extract()?;
    let is_development: bool = config.getattr("reload")?.extract()?;
    Ok((live.is_some() && is_development).then_some(DEMO_TOPIC))
}

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
    let mut headers = fields_of(added);
    headers.extend([
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (TOPICS_AT, topics),
    ]);
    if let Some(name) = demo(config)? {
        headers.push((DEMO_AT, HeaderValue::from_static(name)));
    }
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
