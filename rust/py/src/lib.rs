//! `framegate._http`: the Python face of the HTTP core.

mod accept_errors;
#[cfg(debug_assertions)]
mod access_line;
mod admin;
#[cfg(not(windows))]
mod allocator;
mod asgi;
mod client;
mod compression;
mod diagnostics;
mod error;
mod event_loop;
mod events;
mod frames;
mod gil;
mod home;
mod huge_pages;
mod limits;
mod live;
mod log_file;
mod metrics;
mod native;
mod os;
mod pictures;
mod promise;
mod recording;
mod routes;
mod selector;
mod series;
mod settings;
mod signals;
mod slow;
mod stall;
mod static_files;
mod stats;
mod telemetry;
mod tls;
mod top;
mod topic_metrics;
mod topics;
mod tracing;
mod worker;

use pyo3::prelude::*;

/// HTTP core of framegate (Rust).
// Works without the lock: what a loop owns is bound to its thread (`home.rs`), and awaitables and tasks, which an application
// may hand to another thread, are entered by one at a time (`asgi/object.rs`).
#[pymodule(gil_used = false)]
mod _http {
    use pyo3::prelude::*;

    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::access_line::access_line;
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::home::ThreadBound;
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::native::TestThread;
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use crate::pictures::{decode_picture, make_picture};
    #[pymodule_export]
    use crate::selector::{Selector, SelectorMap};

    #[pymodule_export]
    use crate::admin::AdminServer;
    #[pymodule_export]
    use crate::asgi::websocket::frames::{SocketHandle, SocketSink};
    #[pymodule_export]
    use crate::client::{ClientBackOff, ClientOpening, ClientSocket, client_way};
    #[pymodule_export]
    use crate::events::EventQueue;
    #[pymodule_export]
    use crate::frames::BodyHandle;
    #[pymodule_export]
    use crate::huge_pages::collapse_heap;
    #[pymodule_export]
    use crate::pictures::make_frame_picture;
    #[pymodule_export]
    use crate::recording::{Player, Recorder, recording_contents};
    #[pymodule_export]
    use crate::routes::{
        FormFields, FormReader, HandlerQueue, ResponseSchema, RouteTable, select_parts,
    };
    #[pymodule_export]
    use crate::stats::RuntimeRow;
    #[pymodule_export]
    use crate::tls::TlsContext;
    #[pymodule_export]
    use crate::top::TopScreen;
    #[pymodule_export]
    use crate::topics::handlers::{FrameView, TopicHandle};
    #[pymodule_export]
    use crate::tracing::RequestSpan;
    #[pymodule_export]
    use crate::worker::Worker;

    /// Version of the distribution.
    #[pymodule_export]
    const VERSION: &str = env!("FRAMEGATE_VERSION");

    /// `release`, or `debug` for a build that must not be measured.
    #[pymodule_export]
    const PROFILE: &str = env!("FRAMEGATE_PROFILE");

    /// Whether the compiler had a profile of what runs how often.
    #[pymodule_export]
    const PGO: bool = matches!(env!("FRAMEGATE_PGO").as_bytes(), b"true");

    /// Compiler that built this module.
    #[pymodule_export]
    const RUSTC: &str = env!("FRAMEGATE_RUSTC");

    /// Commit that this module was built from.
    #[pymodule_export]
    const COMMIT: &str = env!("FRAMEGATE_COMMIT");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add(
            "SHM_ERROR_CLASSES",
            crate::error::shm_error_classes(module.py())?,
        )?;
        module.add("RUNTIME_LAYOUT", crate::stats::layout(module.py())?)?;
        module.add("RUNTIME_COUNTERS", crate::stats::counters(module.py())?)
    }
}
