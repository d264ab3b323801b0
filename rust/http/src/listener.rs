//! Accept loops: from bound sockets to connections.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    task::{Poll, ready},
    time::Duration,
};

use hyper::server::conn::http1;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::connection::{self, Membership};
use crate::date::DateCache;
use crate::edge::{
    self,
    limits::{Limits, TooMany},
    proxy_protocol,
};
use crate::error::Error;
use crate::h1;
use crate::h1_io::{Phase, Shared, Socket};
use crate::os::{self, StdUnixListener, UnixAddress, UnixListener, UnixStream};
use crate::protocol::Protocol;
use crate::record::{RecordSink, Recorder};
use crate::registry::{Connections, Registry, Sweep};
use crate::service::{Address, ConnectionInfo, Entry, Service};
use crate::tls::{self, Tls, TlsReport};
use crate::trace::Tracer;

/// A task of the server: an accept loop, a connection, the sweep.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

type Report = Box<dyn Fn(&Error)>;

/// A bound socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// IPv4 or IPv6.
    Tcp(std::net::TcpListener),
    /// A Unix socket. On Windows there is none.
    Unix(StdUnixListener),
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<StdUnixListener> for Listener {
    fn from(listener: StdUnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// What all connections of a server share.
pub(crate) struct ServerState {
    pub(crate) service: Rc<dyn Service>,
    pub(crate) config: Rc<Config>,
    pub(crate) http1: http1::Builder,
    pub(crate) registry: Rc<Registry>,
    pub(crate) date: DateCache,
    recorder: Option<Rc<Recorder>>,
    on_accept_error: Option<Report>,
    tls: Option<Rc<tls::Source>>,
    /// For all workers together.
    limits: Option<Rc<Limits>>,
    pub(crate) spawn: Box<dyn Fn(Task)>,
}

impl ServerState {
    pub(crate) fn start(
        self: &Rc<Self>,
        socket: Socket,
        mut info: ConnectionInfo,
        is_proxied: bool,
    ) {
        if is_proxied && !self.config.edge.trust.trusts(&info.peer) {
            // Only proxies have business here; see `edge::proxy_protocol`.
            return;
        }
        let (place, connections_max) = match self.limits.as_ref().map(Limits::connection) {
            None => (None, self.config.limits.connections_max),
            Some(Ok(place)) => (place, self.config.limits.connections_max),
            // A handshake costs more than it would take to say no.
            Some(Err(TooMany)) if info.entry == Entry::Tls => return,
            Some(Err(TooMany)) => (None, Some(0)),
        };
        let shared = Shared::new(self.recorder.clone());
        shared
            .direct
            .set_watermark
            .set(self.config.receive_watermark);
        let source = match (info.entry, &self.tls) {
            (Entry::Tls, Some(source)) => Some(source.clone()),
            _ => None,
        };
        if source.is_some() {
            shared.enter(Phase::Handshake);
        } else {
            shared.files.allow(self.config.send_file);
        }
        shared.wide.allow(self.config.unsent_watermark);
        let limits = &self.config.limits;
        if let Some(requests) = limits.connection_requests_max {
            shared.requests_left.set(requests);
        }
        let start_sweep = self.registry.enter(&shared, connections_max);
        info.number = self.registry.accepted();
        shared.number.set(info.number);
        if let Some(recorder) = &self.recorder {
            recorder.opened(&info);
        }
        if !shared.admitted.get() {
            shared.trouble("over the limit of connections: its requests are answered 503");
        }
        let membership = Membership::new(self.registry.clone(), shared, place);
        if start_sweep {
            (self.spawn)(Box::pin(self.registry.clone().sweep(self.config.clone())));
        }
        let protocol = match info.entry {
            // A server set to HTTP/2 sends clients of HTTP/1 to where that is agreed on.
            Entry::Redirect => Protocol::Sniff,
            Entry::Plain | Entry::Tls => self.config.protocol,
        };
        let place = source.is_some().then(|| self.registry.handshakes.begin());
        let accepted = Accepted {
            server: self.clone(),
            socket,
            info,
            membership,
            protocol,
            tls: source.zip(place),
        };
        (self.spawn)(if is_proxied {
            Box::pin(accepted.run_proxied())
        } else {
            accepted.run()
        });
    }
}

/// An accepted socket with what is needed to serve it.
struct Accepted {
    server: Rc<ServerState>,
    socket: Socket,
    info: ConnectionInfo,
    membership: Membership,
    protocol: Protocol,
    tls: Option<(Rc<tls::Source>, tls::Place)>,
}

impl Accepted {
    fn run(self) -> Task {
        let Self {
            server,
            socket,
            info,
            membership,
            protocol,
            tls,
        } = self;
        match tls {
            None => Box::pin(connection::run(server, socket, info, membership, protocol)),
            Some((source, place)) => {
                Box::pin(tls::run(server, source, socket, info, membership, place))
            }
        }
    }

    /// Reads the PROXY header first.
    async fn run_proxied(mut self) {
        let shared = self.membership.shared().clone();
        let info = self.info.clone();
        if let Some(info) = proxy_protocol::read(&mut self.socket, info, &shared).await {
            self.info = info;
            self.run().await;
        }
    }
}

/// Serves any number of listeners with one [`Service`]. Lives on one thread.
pub struct Server(pub(crate) Rc<ServerState>);

impl Server {
    /// A server whose tasks are started by `spawn`, which runs inside a tokio runtime with IO and time; for instance
    /// `|task| { tokio::task::spawn_local(task); }`. The caller may wrap each task.
    pub fn new(
        service: Rc<dyn Service>,
        config: Rc<Config>,
        spawn: impl Fn(Task) + 'static,
    ) -> Self {
        Self(Rc::new(ServerState {
            http1: h1::builder(&config),
            service: edge::around(service, &config.edge),
            limits: config.edge.limits.clone().map(Rc::new),
            registry: {
                let registry = Registry::new();
                registry.handshakes.set_max(config.limits.handshakes_max);
                registry
            },
            config,
            date: DateCache::default(),
            recorder: None,
            on_accept_error: None,
            tls: None,
            spawn: Box::new(spawn),
        }))
    }

    /// Listeners of [`Entry::Tls`] speak TLS with these certificates, which are read anew when their files change; `report` is
    /// told of that. Listeners of [`Entry::Redirect`] redirect to `https_port`. To be set before the first listener.
    #[must_use]
    pub fn with_tls(self, tls: Tls, https_port: u16, report: TlsReport) -> Self {
        self.change(|state| {
            let source = Rc::new(tls::Source::new(tls, report));
            state.tls = Some(source.clone());
            state.service = Rc::new(tls::WithRedirect {
                inner: state.service.clone(),
                source,
                port: https_port,
            });
        })
    }

    /// Reads all certificates anew, whether they changed or not. Open connections go on as they began. Returns at once; the
    /// outcome is reported (see [`Server::with_tls`]).
    pub fn reload_tls(&self) {
        if let Some(source) = self.0.tls.clone() {
            (self.0.spawn)(Box::pin(async move { source.reload().await }));
        }
    }

    /// Records are made, and given to `sink`, after those that were named before. To be set before the first listener.
    #[must_use]
    pub fn with_records(self, sink: Rc<dyn RecordSink>) -> Self {
        self.record(|recorder| recorder.with_sink(sink))
    }

    /// Requests have spans; what becomes of them is for a sink (`otlp::SpanSink`). To be set before the first listener.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        self.record(|recorder| recorder.with_tracer(tracer))
    }

    /// Responses have a field `Server-Timing` that says how long they took to begin. To be set before the first listener.
    #[must_use]
    pub fn with_server_timing(self) -> Self {
        self.record(Recorder::with_server_timing)
    }

    fn record(self, change: impl FnOnce(&Recorder) -> Recorder) -> Self {
        self.change(|state| {
            let known = state.recorder.take().unwrap_or_default();
            let mut recorder = change(&known);
            recorder.after_edge = !state.config.edge.is_idle();
            let recorder = Rc::new(recorder);
            if recorder.is_swept() {
                Sweep::new(state.registry.clone()).watch(&recorder);
            }
            state.recorder = Some(recorder);
        })
    }

    /// `report` is called with errors of `accept`, once per pause. To be set before the first listener.
    #[must_use]
    pub fn with_accept_errors(self, report: impl Fn(&Error) + 'static) -> Self {
        self.change(|state| state.on_accept_error = Some(Box::new(report)))
    }

    /// What counts the connections that are limited ([`crate::Limits::connections_max`]).
    pub fn admitted(&self) -> Arc<AtomicUsize> {
        self.0.registry.admitted()
    }

    /// The limit of connections is for this server and the one that `admitted` is of together, whichever threads they live on. To
    /// be set before the first listener.
    #[must_use]
    pub fn with_admitted(self, admitted: Arc<AtomicUsize>) -> Self {
        self.0.registry.share_admitted(admitted);
        self
    }

    fn change(mut self, change: impl FnOnce(&mut ServerState)) -> Self {
        change(Rc::get_mut(&mut self.0).expect("a server is configured before it listens"));
        self
    }

    /// The connections of this server.
    pub fn connections(&self) -> Connections {
        Connections(self.0.registry.clone())
    }

    /// Starts to accept connections from a socket that is bound and listens. Returns at once.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn listen(&self, listener: impl Into<Listener>) -> Result<(), Error> {
        self.listen_as(Entry::Plain, listener)
    }

    /// The same, for connections of some kind.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    ///
    /// # Panics
    /// When TLS is asked for and [`Server::with_tls`] was not called.
    pub fn listen_as(&self, entry: Entry, listener: impl Into<Listener>) -> Result<(), Error> {
        self.open(entry, listener, false)
    }

    /// The same, for connections that begin with a header of the PROXY protocol, version 1 or 2. Peers that are not
    /// trusted ([`edge::Settings::trust`]) are closed.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    ///
    /// # Panics
    /// When TLS is asked for and [`Server::with_tls`] was not called.
    pub fn listen_proxied(&self, entry: Entry, listener: impl Into<Listener>) -> Result<(), Error> {
        self.open(entry, listener, true)
    }

    fn open(
        &self,
        entry: Entry,
        listener: impl Into<Listener>,
        is_proxied: bool,
    ) -> Result<(), Error> {
        assert!(
            entry == Entry::Plain || self.0.tls.is_some(),
            "a server gets its certificates before such a listener"
        );
        let state = self.0.clone();
        match listener.into() {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                // What it accepts inherits this, closed connections keep it, and without it the kernel resends to a peer that
                // is gone for a quarter of an hour. Failing costs only that.
                let write = self.0.config.timeouts.write;
                os::set_unacknowledged_timeout(&listener, write);
                let listener = TcpListener::from_std(listener)?;
                (self.0.spawn)(Box::pin(accept(state, listener, entry, is_proxied)));
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                (self.0.spawn)(Box::pin(accept(state, listener, entry, is_proxied)));
            }
        }
        Ok(())
    }
}

/// A kind of listener.
trait Accept: 'static {
    fn poll_accept(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<(Socket, ConnectionInfo)>>;
}

impl Accept for TcpListener {
    fn poll_accept(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<(Socket, ConnectionInfo)>> {
        let (stream, peer) = ready!(TcpListener::poll_accept(self, cx))?;
        // Responses are written whole: waiting for more to send only costs time. Failing costs only that.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr()?;
        let info = ConnectionInfo {
            number: 0,
            peer: Address::Inet(peer),
            local: Address::Inet(local),
            entry: Entry::Plain,
            is_proxied: false,
            tls: None,
        };
        Poll::Ready(Ok((Socket::Tcp(stream), info)))
    }
}

impl Accept for UnixListener {
    fn poll_accept(
        &self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<(Socket, ConnectionInfo)>> {
        let (stream, _) = ready!(UnixListener::poll_accept(self, cx))?;
        let info = unix_info(&stream);
        Poll::Ready(Ok((Socket::Unix(stream), info)))
    }
}

fn unix_info(stream: &UnixStream) -> ConnectionInfo {
    let path = |address: io::Result<UnixAddress>| {
        Address::Unix(
            address
                .ok()
                .and_then(|address| address.as_pathname().map(Into::into)),
        )
    };
    ConnectionInfo {
        number: 0,
        peer: path(stream.peer_addr()),
        local: path(stream.local_addr()),
        entry: Entry::Plain,
        is_proxied: false,
        tls: None,
    }
}

/// The first pause after an error of `accept`; each further one is twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);

/// Accepts until it is told to stop.
///
/// Errors are of two kinds. A connection that died in the queue concerns nobody: the next one is taken at once. Anything
/// else (no file descriptors, no memory) stays until something is freed: trying at once would spin, giving up would
/// end the service, so the loop pauses and tries again.
async fn accept(state: Rc<ServerState>, listener: impl Accept, entry: Entry, is_proxied: bool) {
    let backoff = Cell::new(BACKOFF_FIRST);
    loop {
        let accepted = poll_fn(|cx| {
            if !state.registry.is_accepting() {
                return Poll::Ready(None);
            }
            state.registry.wait_stop(cx.waker());
            if entry == Entry::Tls {
                ready!(state.registry.handshakes.poll_room(cx));
            }
            listener.poll_accept(cx).map(Some)
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((socket, mut info))) => {
                backoff.set(BACKOFF_FIRST);
                info.entry = entry;
                state.start(socket, info, is_proxied);
            }
            Some(Err(error)) if is_of_one_connection(&error) => {}
            Some(Err(error)) => {
                if let Some(report) = &state.on_accept_error {
                    report(&error.into());
                }
                pause(&state.registry, backoff.get()).await;
                let next = backoff.get() * 2;
                backoff.set(next.min(state.config.timeouts.accept_backoff_max));
            }
        }
    }
}

/// The peer left before it was accepted, or its network did (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, NotConnected,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
    )
}

async fn pause(registry: &Registry, time: Duration) {
    let mut sleep = pin!(tokio::time::sleep(time));
    poll_fn(|cx| {
        if !registry.is_accepting() {
            return Poll::Ready(());
        }
        registry.wait_stop(cx.waker());
        sleep.as_mut().poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        io,
        rc::Rc,
        task::{Context, Poll},
        time::Duration,
    };

    use tokio::time::{Instant, advance};

    use super::{Accept, Server, Socket, accept};
    use crate::config::Config;
    use crate::service::{ConnectionInfo, Entry, Response, service_fn};

    /// A listener whose queue gives only errors: first those listed, then nothing.
    struct Failing {
        errors: RefCell<Vec<io::Error>>,
        calls: Rc<Cell<usize>>,
    }

    impl Accept for Failing {
        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<(Socket, ConnectionInfo)>> {
            self.calls.set(self.calls.get() + 1);
            match self.errors.borrow_mut().pop() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            }
        }
    }

    /// Runs the accept loop over `errors`, last first; gives its calls, the reports and when they came.
    fn run(errors: Vec<io::Error>) -> (usize, Vec<Duration>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let start = Instant::now();
            let reports = Rc::new(RefCell::new(Vec::new()));
            let kept = reports.clone();
            let service = service_fn(|_| Response::default().into());
            let server = Server::new(service, Rc::new(Config::default()), |_| {})
                .with_accept_errors(move |_| kept.borrow_mut().push(start.elapsed()));
            let calls = Rc::new(Cell::new(0));
            let listener = Failing {
                errors: RefCell::new(errors),
                calls: calls.clone(),
            };
            let task =
                tokio::task::spawn_local(accept(server.0.clone(), listener, Entry::Plain, false));
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!task.is_finished(), "an error does not end the loop");
            server.connections().stop_accepting();
            task.await.unwrap();
            (calls.get(), reports.take())
        })
    }

    fn no_descriptors() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    #[test]
    fn lasting_errors_neither_spin_nor_end_the_loop() {
        let (calls, reports) = run((0..12).map(|_| no_descriptors()).collect());
        // 10 ms, doubled each time, up to 1 s.
        let expected = [0, 10, 30, 70, 150, 310, 630, 1270, 2270, 3270, 4270, 5270];
        let reports: Vec<_> = reports.iter().map(Duration::as_millis).collect();
        assert_eq!(reports.len(), expected.len());
        for (seen, expected) in reports.iter().zip(expected) {
            // The timer's grain is 1 ms.
            assert!(seen.abs_diff(expected) <= 15, "{reports:?}");
        }
        assert!((13..20).contains(&calls), "{calls} calls");
    }

    #[test]
    fn connections_that_died_in_the_queue_cost_no_pause_and_no_report() {
        let died = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let (calls, reports) = run((0..100).map(|_| died()).collect());
        assert!(reports.is_empty());
        assert!(calls > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_a_pause() {
        let service = service_fn(|_| Response::default().into());
        let server = Server::new(service, Rc::new(Config::default()), |_| {});
        let listener = Failing {
            errors: RefCell::new(vec![no_descriptors()]),
            calls: Rc::new(Cell::new(0)),
        };
        let connections = server.connections();
        let accepting = accept(server.0.clone(), listener, Entry::Plain, false);
        let start = Instant::now();
        tokio::join!(accepting, async {
            advance(Duration::from_millis(1)).await;
            connections.stop_accepting();
        });
        assert!(start.elapsed() < Duration::from_millis(10));
    }
}
