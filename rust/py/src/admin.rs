//! The admin listener: a thread of its own that answers operators, whatever Python does.
//!
//! Every worker accepts from the same socket, which belongs to whoever started the workers, and each answers for all of them
//! ([`crate::metrics`]). So nothing that happens to one worker takes the endpoint away: while none lives, connections wait in
//! the kernel for the next one.
//!
//! The thread begins before the application is imported and lives as long as the process: it answers while the worker
//! starts, and while it drains. It is a server of the HTTP core on a runtime of its own, for HTTP/1.1 only, with few
//! connections and short times: it serves a handful of programs, and is no way to exhaust a worker.

#![expect(
    unsafe_code,
    reason = "descriptors given by Python become listeners and memory here"
)]

use std::{
    collections::BTreeSet,
    io,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use framegate_http::{
    Config, Limits, Listener, Protocol, Server, Timeouts,
    admin::{self, Report},
};
use pyo3::{exceptions::PyValueError, prelude::*};
use tokio::{
    sync::oneshot,
    task::{LocalSet, spawn_local},
};

use crate::{
    error::os_error,
    gil,
    metrics::ServerReport,
    native::given,
    os::{OwnedSocket, short_turns, without_signals},
    stats::RuntimeRow,
    worker::listener,
};

/// Connections at a time. A scraper has one.
const CONNECTIONS_MAX: usize = 64;
/// For each step of a client.
const PATIENCE: Duration = Duration::from_secs(10);
/// At the end: for the question of who has just connected, which other workers cannot answer any more.
const LAST_QUESTION: Duration = Duration::from_millis(100);
/// For its answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Answers `/livez`, `/readyz` and `/metrics` on its own thread.
///
/// Args:
///     fds: Listening sockets; they are owned from here on, also when this fails.
///     row: The worker's row; all rows of its segment are told of.
///     `lag_max`: Seconds after which a worker whose loop does not answer is not ready.
///     topics: Topics of frames that have metrics of their own.
///
/// Raises:
///     `OSError`: A socket cannot be used, or there is no thread.
///     `ValueError`: A socket does not listen, or is of another kind.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct AdminServer(std::sync::Mutex<Option<Running>>);

struct Running {
    /// Dropped to ask the thread to end.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

#[pymethods]
impl AdminServer {
    #[new]
    #[pyo3(signature = (fds, *, row, lag_max, topics=0))]
    fn new(
        fds: Vec<i32>,
        row: &Bound<'_, RuntimeRow>,
        lag_max: f64,
        topics: usize,
    ) -> PyResult<Self> {
        let lag_max = Duration::try_from_secs_f64(lag_max)
            .map_err(|_| PyValueError::new_err(format!("{lag_max} is not a duration")))?;
        let mut listeners = Vec::new();
        let fds: BTreeSet<i32> = fds.into_iter().filter(|fd| *fd >= 0).collect();
        let sockets = fds
            .into_iter()
            // SAFETY: the caller's to give away, as the documentation demands; each once, as this is a set.
            .map(|fd| unsafe { given(fd) })
            .collect::<PyResult<Vec<OwnedSocket>>>()?;
        for socket in sockets {
            listeners.push(listener(socket)?);
        }
        let segment = Arc::clone(row.get().0.segment());
        let report = ServerReport::new(segment, lag_max, topics);
        Ok(Self(std::sync::Mutex::new(Some(
            start(listeners, report).map_err(os_error)?,
        ))))
    }

    /// End the thread and close its copies of the sockets.
    fn close(&self, py: Python<'_>) {
        let running = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(Running { stop, thread }) = running {
            drop(stop);
            // An error is a panic there, which has been printed.
            let _panicked = gil::detached(py, || thread.join());
        }
    }
}

fn start(listeners: Vec<Listener>, report: ServerReport) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = without_signals(|| {
        thread::Builder::new()
            .name("framegate-admin".to_owned())
            .spawn(move || {
                short_turns();
                let tasks = LocalSet::new();
                tasks.block_on(&runtime, async move {
                    let server = server(report);
                    for listener in listeners {
                        // A socket that tokio cannot watch is none that listens, which was looked at.
                        let _failed = server.listen(listener);
                    }
                    let _stopped = stopped.await;
                    let connections = server.connections();
                    connections.retire(LAST_QUESTION).await;
                    connections.drain(LAST_ANSWER).await;
                });
            })
    })?;
    Ok(Running { stop, thread })
}

fn server(report: ServerReport) -> Server {
    let report: Rc<dyn Report> = Rc::new(report);
    let config = Config {
        limits: Limits {
            connections_max: Some(CONNECTIONS_MAX),
            body_bytes_max: Some(0),
            ..Limits::default()
        },
        timeouts: Timeouts {
            head: PATIENCE,
            body: PATIENCE,
            write: PATIENCE,
            ..Timeouts::default()
        },
        protocol: Protocol::Http1,
        ..Config::default()
    };
    Server::new(admin::service(&report), Rc::new(config), |task| {
        spawn_local(task);
    })
}
