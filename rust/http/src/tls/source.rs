//! The certificates of this moment, and when they are read anew.
//!
//! Files are looked at when they matter: when a client connects and the last look is a second old. A handshake that finds them
//! changed waits until they are read, so that no client gets a certificate that has been replaced for more than a second,
//! and an idle server has no timer. Reading and judging happens on a thread of its own (an encrypted key costs up to a
//! second on purpose). What cannot be used changes nothing, is reported once, and is tried again when the files change.
//!
//! Connections that are open go on as they began.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ServerConfig,
    server::{ClientHello, ProducesTickets},
};
use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

use super::error::TlsError;
use super::load::{self, Loaded, Served, Stamp};
use super::options::TlsOptions;
use super::stream::Scratch;

/// Between two looks at the files. Four system calls a second at most; nobody replaces certificates more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Files that were read and found good. Made before there is a server, on any thread.
#[derive(Clone)]
pub struct Tls {
    options: Arc<TlsOptions>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
    loaded: Arc<Loaded>,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    /// Something is missing, unreadable or damaged, or does not fit together; the error says which file, and what to do.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let ticketer = load::ticketer(&options)?;
        let loaded = load::load(&options, ticketer.as_ref())?;
        Ok(Self {
            options: Arc::new(options),
            ticketer,
            loaded: Arc::new(loaded),
        })
    }

    /// What is good now but will not be for long.
    pub fn warnings(&self) -> &[String] {
        &self.loaded.warnings
    }
}

/// Something that the operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsEvent {
    /// New files are in use; says for which names and until when.
    Reloaded(String),
    /// New files cannot be used; the old ones stay in use.
    ReloadFailed(TlsError),
    /// New files are in use, but not for long.
    Warning(String),
    /// A handshake failed: who, and why. Scanners make many of these.
    HandshakeFailed(String),
}

/// Gets events, on the server's thread.
pub type TlsReport = Rc<dyn Fn(TlsEvent)>;

/// What one server's listeners have in common.
pub(crate) struct Source {
    tls: RefCell<Tls>,
    report: TlsReport,
    /// Files as they were when they were last tried, whether they were good or not.
    tried: RefCell<Stamp>,
    looked: Cell<Option<Instant>>,
    /// One look or reload at a time; the others wait for its result.
    turn: Mutex<()>,
    pub(super) scratch: Scratch,
}

impl Source {
    pub(crate) fn new(tls: Tls, report: TlsReport) -> Self {
        Self {
            tried: RefCell::new(tls.loaded.stamp.clone()),
            tls: RefCell::new(tls),
            report,
            looked: Cell::new(None),
            turn: Mutex::new(()),
            scratch: Scratch::new(),
        }
    }

    /// The certificates for a client that connects now.
    pub(super) async fn current(&self) -> Arc<Loaded> {
        if self.is_due() {
            let _turn = self.turn.lock().await;
            if self.is_due() {
                self.looked.set(Some(Instant::now()));
                if Stamp::of(&self.tls.borrow().options) != *self.tried.borrow() {
                    self.load().await;
                }
            }
        }
        self.tls.borrow().loaded.clone()
    }

    fn is_due(&self) -> bool {
        self.looked
            .get()
            .is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL)
    }

    /// Reads everything now, whether it changed or not.
    pub(crate) async fn reload(&self) {
        let _turn = self.turn.lock().await;
        self.looked.set(Some(Instant::now()));
        self.load().await;
    }

    async fn load(&self) {
        let Tls {
            options, ticketer, ..
        } = self.tls.borrow().clone();
        let stamp = Stamp::of(&options);
        // Whoever asked may go before the end, and what was read goes with him: until then nothing was tried.
        let result = spawn_blocking(move || load::load(&options, ticketer.as_ref())).await;
        // The other error is that the runtime ends.
        let Ok(result) = result else { return };
        match result {
            Ok(loaded) => {
                *self.tried.borrow_mut() = loaded.stamp.clone();
                let (summary, warnings) = (loaded.summary(), loaded.warnings.clone());
                self.tls.borrow_mut().loaded = Arc::new(loaded);
                (self.report)(TlsEvent::Reloaded(summary));
                for warning in warnings {
                    (self.report)(TlsEvent::Warning(warning));
                }
            }
            Err(error) => {
                *self.tried.borrow_mut() = stamp;
                (self.report)(TlsEvent::ReloadFailed(error));
            }
        }
    }

    pub(super) fn report(&self, event: TlsEvent) {
        (self.report)(event);
    }

    /// Whether any of our certificates is for this name; see [`super::names::Names::find`].
    pub(super) fn knows(&self, name: &str) -> bool {
        !self.tls.borrow().loaded.names.find(name).is_empty()
    }
}

impl Loaded {
    /// The certificate for a client: of those for the name it asks for, or else of all in their order, the first whose key
    /// makes signatures that the client understands.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> &Served {
        let fits = |served: &&Served| {
            served
                .key
                .key
                .choose_scheme(hello.signature_schemes())
                .is_some()
        };
        let named = hello
            .server_name()
            .map_or(&[] as &[usize], |name| self.names.find(name));
        let named = named.iter().map(|&index| &self.served[index]);
        named
            .clone()
            .find(fits)
            .or_else(|| named.clone().next())
            .or_else(|| self.served.iter().find(fits))
            .unwrap_or(&self.served[0])
    }
}

impl Served {
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}
