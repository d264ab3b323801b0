//! The settings of static files, and the routes that they make in front of the application.

use std::{path::PathBuf, rc::Rc};

use framegate_http::{
    routes::Routes,
    service::Service,
    static_files::{ReportTo, Settings, StaticFiles},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};

use crate::event_loop::LoopCore;

/// `application`, with the directories of the setting `static` in front of it. Where there are none, that is all.
pub(crate) fn in_front_of(
    application: Rc<dyn Service>,
    config: &Bound<'_, PyAny>,
    added: &HeaderMap,
    core: &Rc<LoopCore>,
) -> PyResult<Rc<dyn Service>> {
    let mut mounts: Vec<(String, PathBuf)> = config.getattr("static")?.extract()?;
    if mounts.is_empty() {
        return Ok(application);
    }
    // The first route that fits answers: the longer prefix is the closer one.
    mounts.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    let cache_control: String = config.getattr("static_cache_control")?.extract()?;
    let cache_control = (!cache_control.is_empty())
        .then(|| HeaderValue::try_from(&cache_control))
        .transpose()
        .map_err(|_| {
            PyValueError::new_err(format!(
                "static_cache_control={cache_control:?} is no value"
            ))
        })?;
    let immutable: Vec<String> = config.getattr("static_immutable")?.extract()?;
    let precompressed = config.getattr("static_precompressed")?.is_truthy()?;
    let headers = fields_of(added);
    let report = report(core.clone());
    let mut routes = Routes::new(application);
    for (prefix, directory) in mounts {
        let settings = Settings {
            prefix: prefix.clone(),
            directory,
            cache_control: cache_control.clone(),
            immutable: immutable.clone(),
            precompressed,
            headers: headers.clone(),
        };
        let files = StaticFiles::new(settings, report.clone())
            .map_err(|error| PyOSError::new_err(format!("static {prefix}: {error}")))?;
        routes = routes.prefix(prefix, Rc::new(files));
    }
    Ok(Rc::new(routes))
}

/// The fields that every response has.
pub(crate) fn fields_of(added: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    added
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Tells the log of files that cannot be sent.
pub(crate) fn report(core: Rc<LoopCore>) -> ReportTo {
    Rc::new(move |text| core.warn_soon(text, "trouble with a static file could not be logged"))
}
