"""One worker: one event loop, one lifespan, one `_http.Worker`.

    import application -> loop -> lifespan startup -> worker startup -> listen -> ready
        -> (asked to stop) stop accepting -> drain -> close -> worker shutdown
        -> lifespan shutdown -> end

Invariants:

- A `Worker` owns its loop's work and its core; nothing here is global, so several may live in one
  process, each in a thread of its own.
- Lifespan shutdown runs whenever startup completed, whatever happened in between; that of the
  scope `framegate.worker` (`worker_scope.py`) likewise.
- A worker that retires (another one accepts from the same sockets) loses nobody: connections are
  not closed between two requests until they had time for one more, whose answer says that it is
  the last one.
- Everything after "asked to stop" has a deadline. After half of the grace period `receive()` tells
  streams that the client is gone; at its end what is still open is cut, and calls of the
  application that go on are cancelled.
  The first request to stop lets exchanges finish for `timeout_graceful_shutdown`; the second cuts
  them and leaves the application's shutdown `HASTY_SECONDS`; the third ends the process on the
  spot.
- Deadlines that asyncio keeps are worthless while Python code blocks the loop, so a process that
  framegate owns has a watchdog thread behind each: it shows all stacks and ends the process.

As a program (`python -m framegate.worker`) it is what the supervisor starts; see `channel.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol

from framegate.access_pipe import access_log_fd
from framegate.build import build_info
from framegate.channel import Channel, Order, WorkerReport, WorkerSpec
from framegate.config import Config
from framegate.errors import (
    EXIT_RUNTIME,
    EXIT_STARTUP,
    EXIT_STOPPED,
    ConfigError,
    FramegateError,
    WorkerStartFailed,
    describe,
)
from framegate.importer import Application, load_application
from framegate.lifespan import Lifespan
from framegate.listener import (
    NO_OTHER_KIND,
    KindCounts,
    by_kind,
    listener_addresses,
    start_listening,
)
from framegate.logging import configure_from, dump_stacks, logger
from framegate.stalls import StallWatch
from framegate.system import die_with_parent
from framegate.threading_model import name_of
from framegate.worker_scope import WorkerPlace, WorkerScope
from framegate.worker_threads import AllReady, Share, WorkerThreads

if TYPE_CHECKING:
    from framegate.events import Collector
    from framegate.telemetry import Telemetry

__all__ = ["HttpCore", "RowPlace", "StopRequested", "Toolkit", "Worker", "main", "run_worker"]

SHUTDOWN_SECONDS: Final = 5.0
"""What lifespan shutdown gets at least, if draining used up the whole grace period."""

HASTY_SECONDS: Final = 3.0
"""What it gets after a second request to stop."""

IDLE_SECONDS: Final = 5.0
"""How long a worker that retires leaves connections without a request open; at most half the grace.

Clients that reuse connections send the next request within milliseconds or after minutes. The first
learn from its answer that the connection ends; the others have the ordinary risk of every client
that reuses an old connection, and its remedy: to try again.
"""

PASSED_IDLE_SECONDS: Final = 1.0
"""The same for a server whose sockets were passed to it (systemd): whoever is started next accepts
from them, so that a client that has just connected need not notice. It sends within a round trip;
more would make every stop wait for the connections that a proxy keeps in reserve."""

FIRST_PLACE: Final = WorkerPlace()
"""The place of a worker that is alone."""
PORT_SECONDS: Final = 1.0
"""How long an orphan may take to stop listening, before that is done behind its loop's back."""

ORPHAN_SECONDS: Final = 5.0
"""How much later than all other deadlines the native thread ends a worker without a supervisor."""

MARGIN_SECONDS: Final = 2.0
"""How much later than asyncio's own deadline a watchdog acts."""


class RowPlace(NamedTuple):
    """A row of a runtime segment.

    Attributes:
        path: The file.
        place: Which worker's row.
    """

    path: str
    place: int


class HttpCore(Protocol):
    """What a worker needs of `_http.Worker`."""

    def listen(self, fd: int, *, entry: str, proxied: bool = False, topics: bool = False) -> None:
        """Accept from this listening socket; the descriptor is the core's from now on."""

    def reload_tls(self) -> None:
        """Read certificates and keys anew."""

    def reload_topic_tokens(self) -> None:
        """Read the tokens of frame routes anew.

        Raises:
            ConfigError: They are not as they should be; the old ones stay.
        """

    def reopen_log(self) -> None:
        """Open the file of the access log anew."""

    def stop_accepting(self) -> None:
        """Close its listening sockets."""

    def drain(self, seconds: float, *, idle_seconds: float = 0.0) -> Any:
        """Awaitable: let exchanges finish, cut the rest; the number of those that were cut.

        Connections without a request may begin one for `idle_seconds`.
        """

    def close(self) -> None:
        """Cut what is left; done when the loop has run once more."""


class Toolkit(Protocol):
    """What a worker is made with."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the core can work on."""

    def event_loop_type(self) -> type[asyncio.AbstractEventLoop]:
        """Return the class of that loop."""

    def prepare(self, config: Config) -> None:
        """Judge the files that the core will need, before the application is imported."""

    def new_core(
        self,
        application: Application,
        config: Config,
        *,
        state: dict[str, Any] | None,
        row: RowPlace | None,
        https_port: int,
    ) -> HttpCore:
        """Return the core; called on the loop's thread after lifespan startup."""

    def serve_operators(
        self, config: Config, listeners: Sequence[socket.socket], row: RowPlace
    ) -> contextlib.AbstractContextManager[None]:
        """Answer operators on these sockets, within the context."""

    def build_info(self) -> dict[str, Any]:
        """Return how all of it was built."""


class NativeToolkit:
    """The real ones.

    Args:
        owns_process: Whether the process is framegate's: loops that stand still are logged.
        supervisor_pid: Without which it must not live long.
        number: Which worker it is, from 1 on, if it is one of several.
    """

    def __init__(
        self,
        *,
        owns_process: bool = False,
        supervisor_pid: int | None = None,
        number: int | None = None,
    ) -> None:
        self._owns_process = owns_process
        self._supervisor_pid = supervisor_pid
        self._number = number
        self._tls: Any = None
        self._collector: Collector | None = None
        self._collector_turn = threading.Lock()
        self._telemetry: Telemetry | None = None

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return framegate's own loop."""
        from framegate.loop import new_event_loop

        return new_event_loop()

    def event_loop_type(self) -> type[asyncio.AbstractEventLoop]:
        """Return the class of framegate's own loop."""
        from framegate.loop import EventLoop

        return EventLoop

    def prepare(self, config: Config) -> None:
        """Read certificates, keys and tokens, and look at the directories of static files.

        Raises:
            CertificateError: One of them cannot be used.
            ConfigError: The file of the access log cannot be opened, the collector is none, a
                variable of OpenTelemetry is wrong, a directory cannot be served, or the tokens are
                not as they should be.
        """
        _check_log_file(config)
        if config.collector is not None:
            from framegate.events import load_collector

            self._collector = load_collector(config)
        if config.otel:
            from framegate.env_file import apply_env_file
            from framegate.telemetry import telemetry

            # Variables may be there, and the application is not loaded yet.
            apply_env_file(config.env_file, origin=config.origins["env_file"].name)
            self._telemetry = telemetry(counts_active=config.otel_active_requests)
        if config.static:
            from framegate.static_mounts import check_mounts

            check_mounts(config.static, config.origins["static"])
        if config.topics is not None:
            from framegate.topic_access import grants
            from framegate.topic_judge import load_judge

            if load_judge(config) is None:
                grants(config)  # says now what is wrong with a file
        if not config.ssl_certfile:
            return
        from framegate import _http

        self._tls = _http.TlsContext(config)
        for warning in self._tls.warnings:
            logger.warning("%s", warning)

    def new_core(
        self,
        application: Application,
        config: Config,
        *,
        state: dict[str, Any] | None,
        row: RowPlace | None,
        https_port: int,
    ) -> HttpCore:
        """Return the Rust core."""
        from framegate import _http

        native_row = None if row is None else _open_row(row)
        watch = self._watch_stalls(config)
        parent = None
        if self._supervisor_pid is not None:
            parent = (self._supervisor_pid, ORPHAN_SECONDS + stop_seconds(config))
        events = self._start_events()
        telemetry = None if self._telemetry is None else self._telemetry.of_worker(self._number)
        try:
            with access_log_fd(config) as log_fd:
                core: HttpCore = _http.Worker(
                    application,
                    config,
                    state=state,
                    tls=self._tls,
                    https_port=https_port,
                    row=native_row,
                    log_fd=log_fd,
                    number=self._number,
                    events=events,
                    telemetry=telemetry,
                    stalls=None if watch is None else watch.terms,
                    parent=parent,
                )
        except BaseException:
            if events is not None:
                events.close()  # else its core does
            raise
        if watch is not None:
            watch.hand_over()
        if config.huge_pages:
            # The application is loaded and started: its heap has the shape that it keeps.
            moved = _http.collapse_heap()
            logger.debug("%d MiB of the heap are in huge pages", moved >> 20)
        return core

    @contextlib.contextmanager
    def serve_operators(
        self, config: Config, listeners: Sequence[socket.socket], row: RowPlace
    ) -> Iterator[None]:
        """Answer operators in a native thread."""
        from framegate import _http

        fds = [os.dup(item.fileno()) for item in listeners]
        admin = _http.AdminServer(
            fds,
            row=_open_row(row),
            lag_max=config.ready_lag_max,
            topics=config.metrics_topics,
        )
        try:
            yield
        finally:
            admin.close()

    def _watch_stalls(self, config: Config) -> StallWatch | None:
        if not self._owns_process or not config.log_stalls:
            return None
        # Before it is killed for it, it has to be known where it stood.
        return StallWatch(min(config.log_stalls, config.worker_timeout or config.log_stalls))

    def _start_events(self) -> Any:
        """Return the queue of events that the collector is given; None without a collector."""
        if self._collector is None:
            return None
        from framegate import _http
        from framegate.events import start_delivery

        queue = _http.EventQueue()
        start_delivery(queue, self._collector, self._collector_turn)
        return queue

    def build_info(self) -> dict[str, Any]:
        """Return how the native modules were built."""
        return build_info()


def _check_log_file(config: Config) -> None:
    """Try to open the file of the access log, which makes it.

    Raises:
        ConfigError: That failed.
    """
    if config.access_log_path is None:
        return
    try:
        os.close(os.open(config.access_log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
    except OSError as error:
        raise ConfigError(
            f"{config.origins['access_log_file']}: {config.access_log_path} cannot be opened: "
            f"{error.strerror}"
        ) from None


def _open_row(row: RowPlace) -> Any:
    from framegate import _http

    fd = os.open(row.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _http.RuntimeRow(fd, row.place)
    finally:
        os.close(fd)


def stop_seconds(config: Config) -> float:
    """Return what a stop takes at most that is asked for once."""
    seconds = config.timeout_graceful_shutdown + SHUTDOWN_SECONDS + config.last_words_seconds
    return seconds + config.timeout_worker_shutdown


class StopRequested(KeyboardInterrupt):
    """A signal asked to stop before there was a loop that could be told."""


class Worker:
    """Serve one application on one event loop.

    Args:
        application: The ASGI application.
        config: The settings.
        listeners: Bound sockets; closed when the worker stops to accept.
        toolkit: What makes the loop and the core.
        on_ready: Called on the loop once connections are accepted.
        on_worker_startup: Called on the loop when the startup of `framegate.worker` begins.
        on_stopping: Called on the loop once it was asked to stop.
        reloading: Entered on the loop around reading certificates anew.
        close_listeners: Closes them, and whatever belongs to them; each of them if None.
        startup_deadline: Monotonic time by which lifespan startup has to be over.
        is_supervised: Whether somebody else tells the user about stopping.
        row: Where heartbeats and counters go.
        place: Which worker it is.
        counts: Which of the sockets are of what kind.

    Attributes:
        has_worker_scope: Whether the application has a shutdown of `framegate.worker` to do.
        accepts_no_more: Set once its sockets are closed.
    """

    def __init__(
        self,
        application: Application,
        config: Config,
        listeners: Sequence[socket.socket],
        *,
        toolkit: Toolkit,
        on_ready: Callable[[], None] = lambda: None,
        on_worker_startup: Callable[[], None] = lambda: None,
        on_stopping: Callable[[], None] = lambda: None,
        reloading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        close_listeners: Callable[[], None] | None = None,
        startup_deadline: float | None = None,
        is_supervised: bool = False,
        row: RowPlace | None = None,
        place: WorkerPlace = FIRST_PLACE,
        counts: KindCounts = NO_OTHER_KIND,
    ) -> None:
        self.has_worker_scope: bool = False
        self._application = application
        self._config = config
        self._listeners = listeners
        self._counts = counts
        self._toolkit = toolkit
        self._on_ready = on_ready
        self._on_worker_startup = on_worker_startup
        self._on_stopping = on_stopping
        self._reloading = reloading
        self._close_listeners = close_listeners or self._close_each_listener
        self._place = place
        self._startup_deadline = startup_deadline
        self._stop_level = logging.DEBUG if is_supervised else logging.INFO
        self._row = row
        self.accepts_no_more: threading.Event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_retiring = False
        self._stop_count = 0
        self._stopped_at = 0.0
        self._core: HttpCore | None = None
        self._stop = asyncio.Event()
        self._haste = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_count > 0

    def retire(self) -> None:
        """Know, when it is asked to stop, that others accept already; from any thread."""
        self._is_retiring = True

    def adopt(self, sockets: Sequence[socket.socket], counts: KindCounts) -> None:
        """Accept from more sockets, from any thread; they are in the order of all others."""

        def accept() -> None:
            core = self._core
            if core is None or self._stop.is_set():
                close()
                return
            start_listening(sockets, self._config.backlog)
            for item, kind in self._entries(sockets, counts):
                core.listen(item.detach(), **kind)

        def close() -> None:
            for item in sockets:
                item.close()

        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError
            loop.call_soon_threadsafe(accept)
        except RuntimeError:  # it has not begun, or has ended
            close()

    def reload_tls(self) -> None:
        """Read certificates, keys and tokens anew, from any thread or signal handler; soon."""

        def reload() -> None:
            # Without a core there is nothing to reload: it will read the files of that moment.
            if self._core is not None:
                with self._reloading():
                    self._core.reload_tls()
                    try:
                        self._core.reload_topic_tokens()
                    except ConfigError as error:
                        logger.error("tokens were not read anew, the old ones stay: %s", error)

        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended just now
                loop.call_soon_threadsafe(reload)

    def reopen_log(self) -> None:
        """Open the file of the access log anew, from any thread or signal handler; soon."""

        def reopen() -> None:
            # Without a core there is nothing open yet.
            if self._core is not None:
                self._core.reopen_log()

        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended just now
                loop.call_soon_threadsafe(reopen)

    def stop(self) -> None:
        """Ask to stop, from any thread or from a signal handler; a second time, to hurry."""
        self._stop_count += 1
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
                loop.call_soon_threadsafe(self._note_stop)

    def _note_stop(self) -> None:
        if self._stop_count >= 1 and not self._stop.is_set():
            seconds = self._config.timeout_graceful_shutdown
            logger.log(self._stop_level, "stopping: requests may finish for %g s", seconds)
            self._stopped_at = time.monotonic()
            self._stop.set()
            self._on_stopping()
        if self._stop_count >= 2 and not self._haste.is_set():
            logger.log(self._stop_level, "asked again to stop: cutting what is still open")
            self._haste.set()

    async def serve(self) -> bool:
        """Serve until asked to stop.

        Returns:
            Whether the application's own shutdown succeeded.

        Raises:
            StartupFailed: It never became ready.
        """
        self._loop = asyncio.get_running_loop()
        self._note_stop()
        lifespan = Lifespan(self._application, self._config.lifespan)
        try:
            await self._unless(self._stop, lifespan.startup(self._startup_seconds()))
            is_clean = self._stop.is_set() or await self._serve_as_worker(lifespan)
        finally:
            # Also when the core failed: what the application opened, it must be able to close.
            is_closed = await lifespan.shutdown(self._shutdown_seconds())
            self._loop = None
        return is_clean and is_closed

    async def _serve_as_worker(self, lifespan: Lifespan) -> bool:
        """Serve requests within the scope `framegate.worker`; return whether that ended well."""
        mode, config = self._config.worker_scope, self._config
        scope = WorkerScope(self._application, mode, lifespan, self._place)
        try:
            if not scope.is_off:
                self._on_worker_startup()
            await self._unless(self._stop, scope.startup(config.timeout_worker_startup))
            self.has_worker_scope = scope.is_known
            if not self._stop.is_set():
                await self._serve_requests(lifespan)
        finally:
            seconds = config.timeout_worker_shutdown
            if self._haste.is_set():
                seconds = min(seconds, HASTY_SECONDS / 2)  # the lifespan needs something, too
            is_closed = await scope.shutdown(seconds)
        return is_closed

    async def _serve_requests(self, lifespan: Lifespan) -> None:
        # In the context of the lifespan: the core keeps a copy for the requests to start from.
        core = lifespan.context.run(
            self._toolkit.new_core,
            self._application,
            self._config,
            state=None if self._config.lifespan == "off" else lifespan.state,
            row=self._row,
            https_port=self._https_port(),
        )
        self._core = core
        try:
            start_listening(self._listeners, self._config.backlog)
            for listener, kind in self._entries(self._listeners, self._counts):
                core.listen(os.dup(listener.fileno()), **kind)
            self._on_ready()
            await self._stop.wait()
            core.stop_accepting()
            # Ours too, or the kernel would go on to queue connections that nobody will accept.
            self._close_listeners()
            self.accepts_no_more.set()
            await self._unless(self._haste, self._drain(core))
        finally:
            # After a complete drain this does nothing; else it cuts what is left, so that the
            # application shuts down when nobody uses any more what it closes.
            await core.drain(0.0)
            self._core = None
            core.close()

    def _entries(
        self, sockets: Sequence[socket.socket], counts: KindCounts
    ) -> Iterator[tuple[socket.socket, Any]]:
        """Give each socket, and what the core is told of it."""
        entry = "tls" if self._config.ssl_certfile else "plain"
        kinds = (
            {"entry": entry},
            {"entry": entry, "proxied": True},
            {"entry": entry, "topics": True},
            {"entry": entry, "topics": True, "proxied": True},
            {"entry": "redirect"},
        )
        for some, kind in zip(by_kind(sockets, counts), kinds, strict=True):
            yield from ((item, kind) for item in some)

    def _https_port(self) -> int:
        """Where redirects lead to."""
        if self._config.https_redirect_port is not None:
            return self._config.https_redirect_port
        for address in listener_addresses(self._listeners):
            if not isinstance(address, str):
                return address[1]
        return 443  # only Unix sockets: whoever is in front of them listens where everybody does

    def _close_each_listener(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _drain(self, core: HttpCore) -> None:
        seconds = self._config.timeout_graceful_shutdown
        idle_seconds = 0.0
        if self._is_retiring:
            idle_seconds = min(IDLE_SECONDS, seconds / 2)
        elif _were_passed(self._config):
            idle_seconds = min(PASSED_IDLE_SECONDS, seconds / 2)
        cut: int = await core.drain(seconds, idle_seconds=idle_seconds)
        if cut:
            # A connection of HTTP/2 has many calls: the number is that of whichever were more.
            logger.warning(
                "connections or requests were still busy after %g s and were cut: %d", seconds, cut
            )

    def _startup_seconds(self) -> float:
        if self._startup_deadline is None:
            return self._config.timeout_startup
        return max(0.0, self._startup_deadline - time.monotonic())

    def _shutdown_seconds(self) -> float:
        """What draining left of the grace period, and something in any case."""
        if self._haste.is_set():
            return HASTY_SECONDS / 2 if self.has_worker_scope else HASTY_SECONDS
        grace = self._config.timeout_graceful_shutdown
        return max(SHUTDOWN_SECONDS, self._stopped_at + grace - time.monotonic())

    @staticmethod
    async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, but drop it when the event comes first."""
        task = asyncio.ensure_future(work)
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for item in (task, waiter):
                item.cancel()
            await asyncio.wait({task, waiter})
            if not task.cancelled():
                task.exception()  # retrieved: raised above, or of no interest any more


# ----------------------------------------------------------------------------------------------
# A process that belongs to framegate.


class Watchdog:
    """Ends the process when something takes too long although its own deadline has passed.

    A daemon thread: it works while Python code blocks the loop, though not while native code holds
    the GIL; against that the supervisor's SIGKILL remains. Signal handlers give it orders, even in
    the middle of another order, so they go through a queue whose put() is reentrant: with a lock
    a second signal that interrupts the first one's handler would wait for itself.
    """

    def __init__(self, at_force: Callable[[], None] = lambda: None) -> None:
        self._at_force = at_force
        self._orders: queue.SimpleQueue[tuple[float, str, int] | None] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="framegate watchdog", daemon=True).start()

    def arm(self, seconds: float, reason: str, exit_code: int) -> None:
        """Start to wait, in place of whatever was waited for before."""
        self._orders.put((time.monotonic() + seconds, reason, exit_code))

    def disarm(self) -> None:
        """Stop waiting."""
        self._orders.put(None)

    def _watch(self) -> None:
        order: tuple[float, str, int] | None = None
        while True:
            seconds = None if order is None else max(0.0, order[0] - time.monotonic())
            try:
                order = self._orders.get(timeout=seconds)
            except queue.Empty:
                assert order is not None
                dump_stacks(f"error: {order[1]}")
                self.force(order[2])

    def force(self, exit_code: int) -> NoReturn:
        """End the process here and now."""
        with contextlib.suppress(Exception):
            self._at_force()
        os._exit(exit_code)


class Signals:
    """The signals of a process with one worker.

    | signal  | on its own                      | under a supervisor                           |
    |---------|---------------------------------|----------------------------------------------|
    | SIGTERM | stop; in haste; at once         | stop                                         |
    | SIGINT  | the same                        | stop in haste                                |
    | SIGHUP  | read certificates and tokens    | stop: the supervisor is gone                 |
    | SIGUSR1 | open the access log's file anew | the same                                     |

    What the supervisor's own SIGHUP and SIGUSR1 mean for a worker comes through the channel.
    SIGUSR1 belongs to the application where the access log has no file.

    Under a supervisor each has one meaning, because equal signals that are pending merge into one,
    and because SIGHUP comes twice: from the kernel and from the thread that watches the channel.

    Handlers of `signal.signal`, not of the loop: they must work before there is a loop and while
    Python code blocks it.
    """

    def __init__(
        self, config: Config, watchdog: Watchdog | None = None, *, is_supervised: bool = False
    ) -> None:
        self.worker: Worker | WorkerThreads | None = None
        self._config = config
        self._watchdog = watchdog
        self._is_supervised = is_supervised
        self._count = 0
        self._is_over = False

    @property
    def is_stopping(self) -> bool:
        """Whether anybody has asked."""
        return self._count > 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals within the block, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if self._is_supervised:
            handlers = {
                signal.SIGTERM: self._handle_stop,
                signal.SIGINT: self._handle_haste,
                signal.SIGHUP: self._handle_stop,
            }
        else:
            handlers = {signal.SIGTERM: self._handle_any, signal.SIGINT: self._handle_any}
            if self._config.ssl_certfile or self._config.topics_token_file is not None:
                handlers[signal.SIGHUP] = self._handle_reload
        if self._config.access_log_path is not None:
            handlers[signal.SIGUSR1] = self._handle_reopen
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            self._is_over = True
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle_any(self, number: int, frame: FrameType | None) -> None:
        self._ask()

    def _handle_reload(self, number: int, frame: FrameType | None) -> None:
        if self.worker is not None:
            self.worker.reload_tls()

    def _handle_reopen(self, number: int, frame: FrameType | None) -> None:
        if self.worker is not None:
            self.worker.reopen_log()

    def _handle_stop(self, number: int, frame: FrameType | None) -> None:
        if self._count < 1:
            self._ask()

    def _handle_haste(self, number: int, frame: FrameType | None) -> None:
        while self._count < 2:
            self._ask()

    def _ask(self) -> None:
        """Ask to stop; the next time in haste; the third time at once."""
        self._count += 1
        if self._watchdog is not None:
            if self._count >= 3:
                self._watchdog.force(EXIT_RUNTIME)
            self._arm(self._watchdog)
        if self.worker is not None:
            self.worker.stop()
        elif not self._is_over:
            raise StopRequested

    def _arm(self, watchdog: Watchdog) -> None:
        grace = self._config.timeout_graceful_shutdown
        seconds = grace + SHUTDOWN_SECONDS if self._count == 1 else HASTY_SECONDS
        if self._count == 1 and self.worker is not None and self.worker.has_worker_scope:
            seconds += self._config.timeout_worker_shutdown
        # Before the application shuts down: what they take is not taken from it.
        seconds += self._config.last_words_seconds
        watchdog.arm(
            seconds + MARGIN_SECONDS,
            "the worker did not stop in time and is ended by force",
            EXIT_RUNTIME,
        )


def run_worker(
    config: Config,
    listeners: Sequence[socket.socket],
    *,
    on_ready: Callable[[Worker | WorkerThreads], None],
    on_worker_startup: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
    reloading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    close_listeners: Callable[[], None] | None = None,
    toolkit: Toolkit | None = None,
    is_supervised: bool = False,
    row: RowPlace | None = None,
    place: WorkerPlace = FIRST_PLACE,
    threads: int = 1,
    at_force: Callable[[], None] = lambda: None,
    ends_process: bool = True,
    counts: KindCounts = NO_OTHER_KIND,
    on_worker: Callable[[Worker | WorkerThreads], None] = lambda worker: None,
    load: Callable[[Config], Application] = load_application,
    admin: Sequence[socket.socket] = (),
) -> int:
    """Import the application and serve it in this process until asked to stop.

    Args:
        config: The settings.
        listeners: Bound sockets.
        on_ready: Called on the loop once connections are accepted.
        on_worker_startup: Called on the loop when the startup of `framegate.worker` begins.
        on_stopping: Called on the loop once it was asked to stop.
        reloading: Entered on the loop around reading certificates anew.
        close_listeners: Closes them, and whatever belongs to them; each of them if None.
        toolkit: What makes the loop and the core; the native ones if None.
        is_supervised: Whether signals come from a supervisor.
        row: Where heartbeats and counters go; of several threads, those of the first: the others
            have the rows after it.
        place: Which worker it is, or the first of them.
        threads: How many workers there are in this process.
        at_force: Removes files if the process has to end by force.
        ends_process: Whether nothing comes after this but the end of the process.
        counts: Which of the sockets are of what kind.
        on_worker: Called with the worker before it serves.
        load: Imports the application.
        admin: Sockets on which operators are answered, also while it starts and stops.

    Returns:
        The exit code.

    Raises:
        FramegateError: It never became ready, or failed while it ran.
        StopRequested: It was asked to stop in the very moment in which it failed.
    """
    tools: Toolkit = toolkit or NativeToolkit(owns_process=True)
    watchdog = Watchdog(at_force)
    signals = Signals(config, watchdog, is_supervised=is_supervised)
    with contextlib.ExitStack() as stack, signals.installed():
        try:
            if admin and row is not None:
                stack.enter_context(tools.serve_operators(config, admin, row))
            deadline = time.monotonic() + config.timeout_startup
            watchdog.arm(
                config.timeout_startup + MARGIN_SECONDS,
                f"the worker was not ready after {config.timeout_startup:g} s (--timeout-startup) "
                "and its code does not return",
                EXIT_STARTUP,
            )
            tools.prepare(config)
            application = load(config)

            def worker_startup() -> None:
                seconds = config.timeout_worker_startup
                if not signals.is_stopping:
                    watchdog.arm(
                        seconds + MARGIN_SECONDS,
                        f"framegate.worker startup did not finish within {seconds:g} s "
                        "(--timeout-worker-startup) and its code does not return",
                        EXIT_RUNTIME if is_supervised else EXIT_STARTUP,
                    )
                on_worker_startup()

            def ready() -> None:
                if not signals.is_stopping:
                    watchdog.disarm()
                on_ready(worker)

            all_ready = AllReady(threads, ready)

            def new_worker(number: int, share: Share) -> Worker:
                return Worker(
                    application,
                    config,
                    share.sockets,
                    toolkit=tools,
                    on_worker_startup=worker_startup,
                    on_ready=all_ready,
                    on_stopping=on_stopping,
                    reloading=reloading,
                    close_listeners=close_listeners,
                    startup_deadline=deadline,
                    is_supervised=is_supervised,
                    row=None if row is None else row._replace(place=row.place + number),
                    place=place.after(number),
                    counts=share.counts,
                )

            whole = Share(listeners, counts)
            worker: Worker | WorkerThreads
            if threads == 1:
                worker = new_worker(0, whole)
            else:
                workers = [new_worker(*each) for each in enumerate(whole.deal(threads))]
                worker = WorkerThreads(workers, tools.new_event_loop)
            signals.worker = worker
            if signals.is_stopping:
                # What the handler raised was caught where nothing is: in a callback of the import.
                worker.stop()
            on_worker(worker)
            with asyncio.Runner(loop_factory=tools.new_event_loop) as runner:
                is_clean = runner.run(worker.serve())
            return EXIT_STOPPED if is_clean else EXIT_RUNTIME
        except StopRequested:
            return EXIT_STOPPED
        except BaseException as error:
            if ends_process:
                watchdog.arm(
                    SHUTDOWN_SECONDS,
                    "the worker failed, and threads of the application hold up its end",
                    getattr(error, "exit_code", EXIT_RUNTIME),
                )
            raise
        finally:
            # Else it stays armed: threads of the application may still hold up the exit.
            if not ends_process:
                watchdog.disarm()


# ----------------------------------------------------------------------------------------------
# A process that the supervisor started.


def main(arguments: Sequence[str] | None = None, *, toolkit: Toolkit | None = None) -> int:
    """Run a worker for the supervisor at the other end of a socket pair.

    Args:
        arguments: One word, the descriptor of this end; those of the process if None.
        toolkit: What makes the loop and the core; the native ones if None.

    Returns:
        The exit code.
    """
    (word,) = sys.argv[1:] if arguments is None else arguments
    channel = Channel(_inherited(int(word)))
    try:
        spec = channel.receive_spec()
    except EOFError:
        return EXIT_STOPPED
    workers: list[Worker | WorkerThreads] = []
    listeners = [_inherited(fd) for fd in spec.listener_fds]
    admin = [_inherited(fd) for fd in spec.admin_fds]
    _watch_supervisor(channel, spec, workers, listeners)
    if spec.config.env_file is not None:
        from framegate.env_file import apply_env_file

        with contextlib.suppress(ConfigError):  # said where the application is loaded
            apply_env_file(spec.config.env_file, origin=spec.config.origins["env_file"].name)
    configure_from(spec.config, prefix=f"{name_of(spec.index, spec.threads)}: ")
    tools: Toolkit = toolkit or NativeToolkit(
        owns_process=True, supervisor_pid=spec.supervisor_pid, number=spec.index + 1
    )
    is_ready = False

    def worker_startup() -> None:
        channel.send_report(WorkerReport("worker-startup"))

    def ready(worker: Worker | WorkerThreads) -> None:
        nonlocal is_ready
        is_ready = True
        channel.send_report(
            WorkerReport(
                "ready", build=tools.build_info(), has_worker_scope=worker.has_worker_scope
            )
        )

    def serve(load: Callable[[Config], Application], *, ends_process: bool = True) -> int:
        return run_worker(
            spec.config,
            listeners,
            on_worker_startup=worker_startup,
            on_ready=ready,
            toolkit=tools,
            is_supervised=True,
            row=RowPlace(spec.runtime_path, spec.row) if spec.runtime_path else None,
            place=WorkerPlace(spec.index, spec.worker_count, spec.generation),
            threads=spec.threads,
            counts=KindCounts(*spec.counts),
            on_worker=workers.append,
            load=load,
            ends_process=ends_process,
            admin=admin,
        )

    def serve_in_development() -> int:
        from framegate import live_reload

        try:
            return serve(live_reload.load, ends_process=False)
        except FramegateError as error:
            if is_ready:
                raise
            channel.send_report(WorkerReport("failed", text=describe(error)))
            broken = live_reload.broken_application(error, spec.config)
            return serve(lambda config: broken)

    try:
        return serve_in_development() if spec.config.reload else serve(load_application)
    except WorkerStartFailed as error:
        # Not the application's failure but this worker's: the supervisor may try again.
        print(describe(error), file=sys.stderr, flush=True)
        return EXIT_RUNTIME
    except FramegateError as error:
        # One report to the supervisor, which says it once, however many workers fail alike.
        if is_ready or not channel.send_report(WorkerReport("failed", text=describe(error))):
            print(describe(error), file=sys.stderr, flush=True)
        return error.exit_code
    except StopRequested:  # in the moment between the failure above and the end of the handlers
        return EXIT_STOPPED
    except Exception:
        logger.exception("the worker failed")
        return EXIT_RUNTIME


def _inherited(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)  # for this process, not for those that the application starts
    return socket.socket(fileno=fd)


def _watch_supervisor(
    channel: Channel,
    spec: WorkerSpec,
    workers: list[Worker | WorkerThreads],
    listeners: Sequence[socket.socket],
) -> None:
    """Get SIGHUP when the supervisor dies: from the kernel, and from a thread at the channel.

    The thread also takes the supervisor's orders to the worker, once there is one, and removes what
    the supervisor could not.

    Either alone has a hole: the kernel's does not exist everywhere and is lost across some execs;
    the thread needs the GIL. Before the handler is installed SIGHUP ends the process, as it should.
    """
    die_with_parent(signal.SIGHUP)
    if os.getppid() != spec.supervisor_pid:  # it died before the line above
        os.kill(os.getpid(), signal.SIGHUP)

    def wait() -> None:
        for order in channel.orders():
            _obey(order, workers)
        if spec.runtime_path:
            with contextlib.suppress(OSError):  # another worker was faster
                os.unlink(spec.runtime_path)
        os.kill(os.getpid(), signal.SIGHUP)
        if not workers or workers[0].accepts_no_more.wait(PORT_SECONDS):
            return
        _stop_listening(spec.config, listeners)

    threading.Thread(target=wait, name="framegate supervisor watch", daemon=True).start()


def _obey(order: Order, workers: Sequence[Worker | WorkerThreads]) -> None:
    match order.kind:
        case "reload-tls":
            for worker in workers:
                worker.reload_tls()
        case "reopen-log":
            for worker in workers:
                worker.reopen_log()
        case "retire":
            for worker in workers:
                worker.retire()
            os.kill(os.getpid(), signal.SIGTERM)
        case "adopt":
            sockets = [socket.socket(fileno=fd) for fd in order.fds]
            if not workers:  # it is about to begin to stop
                for item in sockets:
                    item.close()
            for worker in workers:
                worker.adopt(sockets, KindCounts(*order.counts))


def _stop_listening(config: Config, listeners: Sequence[socket.socket]) -> None:
    """Free the ports while Python code blocks the loop that should do it.

    Another server may want them now. A socket that somebody else gave us is not ours to shut down:
    that would end it for all who have it.
    """
    if _were_passed(config):
        return
    for item in listeners:
        with contextlib.suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)


def _were_passed(config: Config) -> bool:
    """Whether sockets came from somebody else, and may outlive this server."""
    binds = (*config.bind, *config.topics_bind)
    return config.fd is not None or any(text.startswith(("fd:", "systemd")) for text in binds)


if __name__ == "__main__":
    sys.exit(main())
