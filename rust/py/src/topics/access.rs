//! Who may do what with topics, by the settings: a table of tokens, or the application ([`super::judge`]).

use std::{rc::Rc, sync::Arc};

use framegate_http::topics::access::{Access, Digest, Guard, Permission, Rights, Token};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use super::judge::{Answering, AppJudge};
use crate::event_loop::LoopCore;
use crate::settings::seconds;

/// Who decides for the routes of one worker, and what answers on its loop.
pub(super) fn guard(
    config: &Bound<'_, PyAny>,
    core: &Rc<LoopCore>,
) -> PyResult<(Arc<Guard>, Option<Answering>)> {
    let py = config.py();
    let judge = py
        .import("framegate.topic_judge")?
        .call_method1("load_judge", (config,))?;
    if judge.is_none() {
        return Ok((Arc::new(Guard::table(access(config)?)), None));
    }
    let patience = seconds(config, "topics_access_timeout")?;
    let (judge, answering) = AppJudge::new(py, judge.unbind(), patience, core)?;
    Ok((Arc::new(Guard::Judge(Arc::new(judge))), Some(answering)))
}

/// The table of the settings; the file of tokens is read now.
pub(super) fn access(config: &Bound<'_, PyAny>) -> PyResult<Access> {
    let grants: Vec<(String, Option<Vec<u8>>, Bound<'_, PyDict>)> = module(config.py())?
        .call_method1("grants", (config,))?
        .extract()?;
    let mut access = Access {
        trusts_local: config.getattr("topics_local")?.is_truthy()?,
        ..Access::default()
    };
    for (name, digest, patterns) in grants {
        let rights = rights(&patterns)?;
        match digest {
            None => access.anybody = rights,
            Some(digest) => {
                let digest: [u8; 32] = digest
                    .try_into()
                    .map_err(|_| PyValueError::new_err(format!("{name}: no SHA-256")))?;
                access.tokens.push(Token {
                    name,
                    digest: Digest::new(digest),
                    rights,
                });
            }
        }
    }
    Ok(access)
}

fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("framegate.topic_access")
}

fn rights(patterns: &Bound<'_, PyDict>) -> PyResult<Rights> {
    let mut rights = Rights::default();
    for permission in Permission::ALL {
        let Some(found) = patterns.get_item(permission.name())? else {
            continue;
        };
        for pattern in found.extract::<Vec<String>>()? {
            let pattern = pattern
                .parse()
                .map_err(|error| PyValueError::new_err(format!("{error}")))?;
            rights = rights.with(permission, pattern);
        }
    }
    Ok(rights)
}
