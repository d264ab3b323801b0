//! A server that cannot accept connections says so: once, not at each of its attempts.
//!
//! What stops it (no descriptors, no memory) lasts until something is freed, and the accept loop tries again up to a
//! hundred times a second meanwhile. Attempts that fail within [`EPISODE`] of each other are one event.

use std::{
    cell::Cell,
    error::Error as _,
    rc::Rc,
    time::{Duration, Instant},
};

use framegate_http::Error;
use pyo3::prelude::*;

use crate::event_loop::LoopCore;

/// Longer than the longest pause between two attempts, which is a second.
const EPISODE: Duration = Duration::from_secs(10);

/// Writes errors of `accept` to the logger `framegate`.
pub(crate) fn report(core: Rc<LoopCore>) -> impl Fn(&Error) + 'static {
    report_to(move |text| {
        Python::attach(|py| {
            let failure = "an error of accept could not be logged";
            core.log(py, "framegate", "error", &text, failure);
            core.after_python(py);
        });
    })
}

/// Says them by `say`.
pub(crate) fn report_to(say: impl Fn(String) + 'static) -> impl Fn(&Error) + 'static {
    let latest: Cell<Option<Instant>> = Cell::new(None);
    move |error| {
        let now = Instant::now();
        let before = latest.replace(Some(now));
        if before.is_some_and(|before| now.duration_since(before) < EPISODE) {
            return;
        }
        let cause = match error.source() {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        };
        say(format!(
            "connections cannot be accepted and wait: {cause}; open files are bounded by \
             `ulimit -n` (systemd: LimitNOFILE=), connections by --limit-concurrency"
        ));
    }
}
