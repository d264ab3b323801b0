//! The thread of the frame routes (`framegate-frames`, one per worker): what happens on it never waits for Python.
//!
//! It has a tokio runtime of its own and never touches the interpreter. There run
//!
//! - the frame routes of `topics_bind`, from accept to close;
//! - `WebSocket`s that frame routes have opened on the application's own listeners, from the handshake on ([`Mover`]);
//! - the pumps of all hubs ([`super::hub`]), so that no frame is missed because the loop stands still.
//!
//! Shared with the loop, and so the same for both: what is open ([`super::registry`]), who may ([`Guard`]), places of viewers, of
//! calls and of connections, the picture threads, the counters in the worker's row. What Python is to be told (refusals, errors
//! of `accept`) crosses by a bounded channel and is told when the loop turns. The loop's orders (listen, drain) cross by another.
//!
//! All signals are blocked here, so that the kernel delivers them to the main thread.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use framegate_http::{
    Config, Connections, Listener, Server,
    otlp::{Outlet, SpanSink},
    record::RecordSink,
    routes::Routes,
    service::Entry,
    tls::Tls,
    topics::{CallTimes, Guard, Mover, Settings, TopicRoutes, Traveller},
    trace::{Sampler, Tracer},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::{mpsc, oneshot},
    task::{LocalSet, spawn_local},
    time::{MissedTickBehavior, interval},
};

use super::{
    Log, LoopBoard, Pumps,
    calls::{Callers, InFlight},
    registry::Registry,
};
use crate::{
    accept_errors,
    os::{short_turns, without_signals},
    slow,
    stats::Row,
};

/// Orders that wait; a worker gives a handful in its life, one per socket among them.
const ORDERS_MAX: usize = 256;
/// Sessions on their way here. With more, some stay where they are.
const TRAVELLERS_MAX: usize = 1024;
/// Between two looks at how many connections there are; the loop tells of them about as often.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// What the loop wants of the thread.
enum Order {
    Listen {
        listener: Listener,
        entry: Entry,
        is_proxied: bool,
    },
    ReloadTls,
    StopAccepting,
    Drain {
        deadline: Duration,
        idle: Duration,
        cut: oneshot::Sender<usize>,
    },
}

/// Connections of `topics_bind`, as they were lately.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Counts {
    fn take_from(&self, connections: &Connections) {
        for (count, now) in [
            (&self.connections, connections.count() as u64),
            (&self.streams, connections.streams() as u64),
            (&self.requests, connections.requests()),
            (&self.accepted, connections.accepted()),
            (&self.bytes_in, connections.bytes_in()),
            (&self.bytes_out, connections.bytes_out()),
        ] {
            // Relaxed: each stands for itself.
            count.store(now, Ordering::Relaxed);
        }
    }
}

/// What the routes of the thread stand on: those of the loop do, too.
pub(super) struct Common {
    pub(super) registry: Arc<Registry>,
    pub(super) guard: Arc<Guard>,
    pub(super) settings: Settings,
    /// The prefix of calls, if there are any.
    pub(super) calls: Option<(String, CallTimes)>,
    pub(super) calls_max: usize,
    pub(super) in_flight: InFlight,
    pub(super) queue_bytes: u64,
    pub(super) row: Option<Arc<Row>>,
    /// What Python's logging is told.
    pub(super) told: mpsc::Sender<Said>,
}

/// What the thread has to say to Python, which the loop tells when it turns.
pub(crate) enum Said {
    /// Of the frame routes or their sockets.
    Warning(String),
    /// Of a slow request; so many others were left out before it.
    Slow(slow::Note, u64),
    /// Of a connection; likewise.
    Connection(String, u64),
}

/// Says what may be left out, and counts what was: with a full channel the loop stands still.
pub(crate) struct Says {
    told: mpsc::Sender<Said>,
    left_out: Cell<u64>,
}

impl Says {
    fn new(told: mpsc::Sender<Said>) -> Self {
        Self {
            told,
            left_out: Cell::default(),
        }
    }

    /// `what` is given how many were left out before.
    pub(crate) fn say(&self, what: impl FnOnce(u64) -> Said) {
        match self.told.try_reserve() {
            Ok(place) => place.send(what(self.left_out.take())),
            Err(_full) => self.left_out.set(self.left_out.get() + 1),
        }
    }
}

/// Makes a sink on the thread.
pub(crate) type MakeSink = Box<dyn FnOnce(Says) -> Rc<dyn RecordSink> + Send>;

/// What the server of the thread is given beside that.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) tls: Option<Tls>,
    pub(crate) admitted: Arc<AtomicUsize>,
    /// Who looks at requests and connections.
    pub(crate) sinks: Vec<MakeSink>,
    pub(crate) spans: Option<(Sampler, Arc<Outlet>)>,
    pub(crate) has_timing: bool,
}

/// A runtime that waits for nobody when it is dropped, wherever that is.
struct Quiet(Option<Runtime>);

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Files that are being opened are left behind.
            runtime.shutdown_background();
        }
    }
}

/// The thread, seen from its worker. Dropping it lets the thread end by itself; [`stop`](Self::stop) waits for it.
pub(super) struct FramesThread {
    handle: Handle,
    counts: Arc<Counts>,
    /// Dropped to ask the thread to end.
    orders: Option<mpsc::Sender<Order>>,
    travellers: mpsc::Sender<Traveller>,
    /// Until it is started.
    waiting: Option<Waiting>,
    thread: Option<JoinHandle<()>>,
}

struct Waiting {
    runtime: Quiet,
    orders: mpsc::Receiver<Order>,
    travellers: mpsc::Receiver<Traveller>,
}

impl FramesThread {
    /// One that does not run yet, but has its runtime.
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (travellers, arriving) = mpsc::channel(TRAVELLERS_MAX);
        Ok(Self {
            handle: runtime.handle().clone(),
            counts: Arc::default(),
            orders: Some(orders),
            travellers,
            waiting: Some(Waiting {
                runtime: Quiet(Some(runtime)),
                orders: ordered,
                travellers: arriving,
            }),
            thread: None,
        })
    }

    /// Its runtime, for pumps of hubs.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes sessions there.
    pub(super) fn mover(&self) -> Rc<dyn Mover> {
        Rc::new(ToThread(self.travellers.clone()))
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Starts it.
    pub(super) fn start(&mut self, common: Common, setup: Setup) -> io::Result<()> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let (counts, handle) = (self.counts.clone(), self.handle.clone());
        let thread = without_signals(|| {
            thread::Builder::new()
                .name("framegate-frames".to_owned())
                .spawn(move || {
                    let Waiting {
                        runtime,
                        orders,
                        travellers,
                    } = waiting;
                    short_turns();
                    let tasks = LocalSet::new();
                    if let Some(runtime) = &runtime.0 {
                        let served = async {
                            let here = Here::new(common, setup, handle, counts);
                            here.run(orders, travellers).await;
                        };
                        tasks.block_on(runtime, served);
                    }
                    // Tasks are dropped inside their runtime.
                    let _context = runtime.0.as_ref().map(Runtime::enter);
                    drop(tasks);
                })
        })?;
        self.thread = Some(thread);
        Ok(())
    }

    fn order(&self, order: Order) -> bool {
        self.orders
            .as_ref()
            .is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// Accepts from a socket; false when it does not run any more.
    pub(super) fn listen(&self, listener: Listener, entry: Entry, is_proxied: bool) -> bool {
        self.order(Order::Listen {
            listener,
            entry,
            is_proxied,
        })
    }

    pub(super) fn reload_tls(&self) {
        self.order(Order::ReloadTls);
    }

    pub(super) fn stop_accepting(&self) {
        self.order(Order::StopAccepting);
    }

    /// As [`Connections::retire`] and [`Connections::drain`], for those of `topics_bind`; how many were cut.
    pub(super) fn drain(
        &self,
        deadline: Duration,
        idle: Duration,
    ) -> impl Future<Output = usize> + use<> {
        let (cut, is_cut) = oneshot::channel();
        self.order(Order::Drain {
            deadline,
            idle,
            cut,
        });
        async move { is_cut.await.unwrap_or(0) }
    }

    /// Ends the thread: what is open is cut. Never call it attached to Python.
    pub(super) fn stop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // An error is a panic there, which has been printed.
            let _panicked = thread.join();
        }
    }
}

struct ToThread(mpsc::Sender<Traveller>);

impl Mover for ToThread {
    fn place(&self) -> Option<Box<dyn FnOnce(Traveller)>> {
        let place = self.0.clone().try_reserve_owned().ok()?;
        Some(Box::new(move |traveller: Traveller| {
            place.send(traveller);
        }))
    }
}

/// What the thread has.
struct Here {
    routes: Rc<TopicRoutes>,
    server: Server,
    /// Connections of the loop's listeners, which are counted there.
    guests: Server,
    counts: Arc<Counts>,
    told: mpsc::Sender<Said>,
}

impl Here {
    fn new(common: Common, setup: Setup, handle: Handle, counts: Arc<Counts>) -> Self {
        let Common {
            registry,
            guard,
            settings,
            calls,
            calls_max,
            in_flight,
            queue_bytes,
            row,
            told,
        } = common;
        let prefix = settings.prefix.clone();
        let board = LoopBoard {
            registry,
            callers: Callers::new(calls_max, in_flight),
            pumps: Pumps::Thread(handle),
            queue_bytes,
            row,
            log: Log::Channel(told.clone()),
            told: Cell::new(None),
            untold: Cell::new(0),
        };
        let routes = Rc::new(TopicRoutes::new(Rc::new(board), guard, settings));
        let mut service = Routes::new(routes.nothing_else());
        if let Some((prefix, times)) = calls {
            service = service.prefix(prefix.clone(), Rc::new(routes.calls(prefix, times)));
        }
        let service = Rc::new(service.prefix(prefix, routes.clone()));
        let config = Rc::new(setup.config);
        let spawn = |task| {
            spawn_local(task);
        };
        let guests = Server::new(routes.nothing_else(), config.clone(), spawn);
        let say = told.clone();
        let mut server = Server::new(service, config, spawn)
            .with_admitted(setup.admitted)
            .with_accept_errors(accept_errors::report_to(move |text| {
                // With a full channel the loop stands still, and nobody could read it.
                let _ = say.try_send(Said::Warning(text));
            }));
        if let Some(tls) = setup.tls {
            // The loop's server tells of certificates; nothing redirects here.
            server = server.with_tls(tls, 443, Rc::new(|_event| {}));
        }
        if let Some((sampler, outlet)) = setup.spans {
            server = server
                .with_tracer(Tracer::new(sampler))
                .with_records(SpanSink::new(outlet));
        }
        for make in setup.sinks {
            server = server.with_records(make(Says::new(told.clone())));
        }
        if setup.has_timing {
            server = server.with_server_timing();
        }
        Self {
            routes,
            server,
            guests,
            counts,
            told,
        }
    }

    async fn run(
        self,
        mut orders: mpsc::Receiver<Order>,
        mut travellers: mpsc::Receiver<Traveller>,
    ) {
        let connections = self.server.connections();
        let mut counting = interval(COUNT_EVERY);
        counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_listening = false;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None => break,
                    Some(order) => {
                        is_listening |= matches!(order, Order::Listen { .. });
                        self.obey(order, &connections);
                    }
                },
                Some(traveller) = travellers.recv() => {
                    // That a socket is lost is the same to its client as if the network had lost it.
                    let _lost = self.routes.resume(&self.guests, traveller);
                }
                _ = counting.tick(), if is_listening => self.counts.take_from(&connections),
            }
        }
        connections.drain(Duration::ZERO).await;
        self.guests.connections().drain(Duration::ZERO).await;
    }

    fn obey(&self, order: Order, connections: &Connections) {
        match order {
            Order::Listen {
                listener,
                entry,
                is_proxied,
            } => {
                let listening = if is_proxied {
                    self.server.listen_proxied(entry, listener)
                } else {
                    self.server.listen_as(entry, listener)
                };
                if let Err(error) = listening {
                    let text = format!("a socket of topics_bind cannot be served: {error}");
                    let _ = self.told.try_send(Said::Warning(text));
                }
            }
            Order::ReloadTls => self.server.reload_tls(),
            Order::StopAccepting => connections.stop_accepting(),
            Order::Drain {
                deadline,
                idle,
                cut,
            } => {
                let (connections, counts) = (connections.clone(), self.counts.clone());
                spawn_local(async move {
                    let start = tokio::time::Instant::now();
                    if !idle.is_zero() {
                        connections.retire(idle.min(deadline)).await;
                    }
                    let left = deadline.saturating_sub(start.elapsed());
                    let count = connections.drain(left).await;
                    counts.take_from(&connections);
                    // Nobody asks any more: the loop has ended.
                    let _ = cut.send(count);
                });
            }
        }
    }
}
