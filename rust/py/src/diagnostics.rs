//! What becomes of connections, told to Python's logger `framegate.connections` at level debug: opened, closed, and what was wrong
//! with them.
//!
//! A worker whose logger is not at that level when it starts has no such sink, and so pays for none of it. Lines are made on the
//! loop's thread, wait for those of the same turn, and are handed over together. More than [`LINES_MAX`] of one turn are counted:
//! a log that is written synchronously must not be what stops a server under attack. Lines of another thread
//! ([`DiagnosticsElsewhere`]) come to the same reporter.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt, mem,
    rc::{Rc, Weak},
};

use framegate_http::{
    record::{ClosedConnection, RecordSink, RequestRecord},
    service::{ConnectionInfo, Entry},
};
use pyo3::prelude::*;

use crate::event_loop::LoopCore;
use crate::topics::{Said, Says};

/// Of one turn of the loop.
const LINES_MAX: usize = 200;
const LOGGER: &str = "framegate.connections";
/// `logging.DEBUG`.
const DEBUG: u8 = 10;

/// Tells of connections.
pub(crate) struct Diagnostics {
    core: Rc<LoopCore>,
    about: About,
    lines: RefCell<Vec<String>>,
    more: Cell<u64>,
    /// A report is due.
    reporting: Cell<bool>,
    /// Refers to itself, for its task.
    me: Weak<Self>,
}

impl Diagnostics {
    /// `None` when nobody would read it.
    pub(crate) fn new(py: Python<'_>, core: &Rc<LoopCore>) -> PyResult<Option<Rc<Self>>> {
        let wanted = logger(py)?
            .call_method1("isEnabledFor", (DEBUG,))?
            .is_truthy()?;
        Ok(wanted.then(|| {
            Rc::new_cyclic(|me| Self {
                core: core.clone(),
                about: About::new("connection"),
                lines: RefCell::default(),
                more: Cell::new(0),
                reporting: Cell::new(false),
                me: me.clone(),
            })
        }))
    }

    /// To be told with this turn of the loop; `others` were left out before it.
    pub(crate) fn add(&self, line: String, others: u64) {
        let mut lines = self.lines.borrow_mut();
        let is_full = lines.len() == LINES_MAX;
        self.more.set(self.more.get() + others + u64::from(is_full));
        if !is_full {
            lines.push(line);
        }
        drop(lines);
        if !self.reporting.replace(true)
            && let Some(me) = self.me.upgrade()
        {
            self.core.spawn(async move {
                tokio::task::yield_now().await;
                Python::attach(|py| me.report(py));
            });
        }
    }

    /// Hands over what there is.
    pub(crate) fn report(&self, py: Python<'_>) {
        self.reporting.set(false);
        let lines = mem::take(&mut *self.lines.borrow_mut());
        if lines.is_empty() {
            return;
        }
        let more = self.more.take();
        let tell = || {
            let logger = logger(py)?;
            for line in lines {
                logger.call_method1("debug", ("%s", line))?;
            }
            if more > 0 {
                logger.call_method1("debug", ("%d more lines were left out", more))?;
            }
            Ok(())
        };
        if let Err(error) = tell() {
            self.core
                .report(py, "what becomes of connections could not be logged", error);
        }
        self.core.after_python(py);
    }
}

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("logging")?.call_method1("getLogger", (LOGGER,))
}

/// Finds words for what becomes of the connections of one thread.
struct About {
    /// What they are called: each thread counts its own.
    noun: &'static str,
    /// Of the open connections: who is at the other end, since when.
    peers: RefCell<HashMap<u64, (String, u64)>>,
}

impl About {
    fn new(noun: &'static str) -> Self {
        Self {
            noun,
            peers: RefCell::default(),
        }
    }

    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) -> String {
        let entry = match connection.entry {
            Entry::Plain => "",
            Entry::Tls => ", TLS",
            Entry::Redirect => ", redirected to HTTPS",
        };
        let (number, peer) = (connection.number, connection.peer.to_string());
        let line = format!(
            "{} {number} from {peer} to {}{entry}: opened",
            self.noun, connection.local
        );
        self.peers.borrow_mut().insert(number, (peer, at_ns));
        line
    }

    fn closed(&self, connection: &ClosedConnection) -> Option<String> {
        let (peer, since_ns) = self.peers.borrow_mut().remove(&connection.number)?;
        let ms = connection.at_ns.saturating_sub(since_ns) / 1_000_000;
        Some(format!(
            "{} {} from {peer}: closed after {}.{:03} s, {} bytes in, {} out",
            self.noun,
            connection.number,
            ms / 1000,
            ms % 1000,
            connection.bytes_in,
            connection.bytes_out,
        ))
    }

    fn trouble(&self, connection: u64, what: &dyn fmt::Display) -> String {
        let peers = self.peers.borrow();
        let peer = peers.get(&connection).map_or("?", |(peer, _)| peer);
        format!("{} {connection} from {peer}: {what}", self.noun)
    }
}

impl RecordSink for Diagnostics {
    fn finished(&self, _record: &RequestRecord) {}

    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) {
        self.add(self.about.opened(connection, at_ns), 0);
    }

    fn closed(&self, connection: &ClosedConnection) {
        if let Some(line) = self.about.closed(connection) {
            self.add(line, 0);
        }
    }

    fn trouble(&self, connection: u64, what: &dyn fmt::Display) {
        self.add(self.about.trouble(connection, what), 0);
    }
}

/// Tells of the connections of `topics_bind`, on the thread that has them.
pub(crate) struct DiagnosticsElsewhere {
    about: About,
    says: Says,
}

impl DiagnosticsElsewhere {
    pub(crate) fn new(says: Says) -> Self {
        Self {
            about: About::new("topics connection"),
            says,
        }
    }

    fn note(&self, line: String) {
        self.says.say(|others| Said::Connection(line, others));
    }
}

impl RecordSink for DiagnosticsElsewhere {
    fn finished(&self, _record: &RequestRecord) {}

    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) {
        self.note(self.about.opened(connection, at_ns));
    }

    fn closed(&self, connection: &ClosedConnection) {
        if let Some(line) = self.about.closed(connection) {
            self.note(line);
        }
    }

    fn trouble(&self, connection: u64, what: &dyn fmt::Display) {
        self.note(self.about.trouble(connection, what));
    }
}
