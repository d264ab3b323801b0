//! `framegate._http`: the Python face of the HTTP core.

mod event_loop;
mod gil;
mod home;

use pyo3::prelude::*;

/// HTTP core of framegate (Rust).
#[pymodule]
mod _http {
    /// Version of the distribution.
    #[pymodule_export]
    const VERSION: &str = env!("FRAMEGATE_VERSION");
}
