//! `framegate._http`: the Python face of the HTTP core.

mod asgi;
mod error;
mod event_loop;
mod gil;
mod home;
mod selector;
mod signals;
mod worker;

use pyo3::prelude::*;

/// HTTP core of framegate (Rust).
#[pymodule]
mod _http {
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::home::ThreadBound;
    #[pymodule_export]
    use crate::selector::{Selector, SelectorMap};

    #[pymodule_export]
    use crate::worker::Worker;

    /// Version of the distribution.
    #[pymodule_export]
    const VERSION: &str = env!("FRAMEGATE_VERSION");
}
