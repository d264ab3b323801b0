"""The parent of several workers: spawn, watch, restart, stop. It never loads the application.

Each worker has a place: an index, its sockets, its row of the runtime segment. A place is in one of

    starting -> ready -> (dies) waiting -> starting ...      while serving
    starting | ready | waiting -> ended                      while stopping

| what happens          | before stopping                               | while stopping           |
|-----------------------|-----------------------------------------------|--------------------------|
| worker reports ready  | ready; after the last one the start-up lines  | nothing                  |
| worker exits 2 or 3   | stop all, exit with its code; no restart      | exit with its code       |
| its own startup fails | (`worker_scope.py`) it exits 1: a crash       | nothing                  |
| worker dies otherwise | a crash: restart within the budget, or exit 1 | exit 1 if not asked for  |
| not ready in time     | kill it, stop all, exit 3                     | nothing                  |
| SIGTERM, SIGINT       | SIGTERM to all; the deadline runs             | in haste; then kill      |
| SIGHUP, with TLS      | all read their certificates anew              | nothing                  |

Guarantees, and what keeps them:

- No worker outlives the supervisor, even killed: SIGHUP by PR_SET_PDEATHSIG, and end of file on the
  channel (`channel.py`). No worker outlives the deadline: SIGKILL.
- No connection is lost with a worker: its sockets stay open here (`listener.py`).
- Ctrl-C reaches the supervisor only, since each worker has a process group of its own; otherwise
  one key press would be two requests to stop.
- Workers are new programs, never forks: no lock, thread or native runtime is inherited half-way.

systemd hears of it (`systemd.py`): ready after the last worker, its state, and that this loop turns
if there is a watchdog. A worker that blocks does not stop that: it is not a reason to kill all.

Single-threaded: signals arrive as bytes in a socket pair that the selector watches.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from types import FrameType
from typing import Any, Final

from framegate.channel import Channel, WorkerReport, WorkerSpec
from framegate.config import Config
from framegate.errors import EXIT_CONFIG, EXIT_RUNTIME, EXIT_STARTUP, EXIT_STOPPED, ConfigError
from framegate.listener import Listeners, open_listeners
from framegate.logging import banner, logger
from framegate.runtime_segment import RuntimeSegment, open_segment
from framegate.systemd import Notifier

__all__ = ["RESTARTS_MAX", "RESTART_WINDOW_SECONDS", "Supervisor", "restart_delay_seconds"]

RESTARTS_MAX: Final = 5
RESTART_WINDOW_SECONDS: Final = 60.0
"""A place may crash five times a minute: a rare flaw must not stop the server, a loop must."""

BACKOFF_FIRST_SECONDS: Final = 0.25
BACKOFF_MAX_SECONDS: Final = 4.0

STARTUP_MARGIN_SECONDS: Final = 5.0
"""How much later than the worker itself the supervisor gives up on a start: it knows less."""

STOP_MARGIN_SECONDS: Final = 3.0
"""How much later than the worker's own watchdog the supervisor kills."""

# What worker.py allows itself for lifespan shutdown, and in haste; not imported, because worker.py
# reaches native modules and this process must not. A test compares them.
SHUTDOWN_SECONDS: Final = 5.0
HASTY_SECONDS: Final = 3.0


class Phase(enum.Enum):
    """Where a place is."""

    STARTING = enum.auto()
    READY = enum.auto()
    WAITING = enum.auto()
    ENDED = enum.auto()


@dataclass
class Place:
    """One worker and its successors."""

    index: int
    sockets: Sequence[socket.socket]
    phase: Phase = Phase.ENDED
    generation: int = 0
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    deadline: float = 0.0
    """Starting: when it must be ready. Waiting: when it is started again."""
    crashes: deque[float] = field(default_factory=deque)
    killed_because: str = ""
    build: dict[str, Any] = field(default_factory=dict)
    has_worker_scope: bool = False

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"worker {self.index + 1}"


def restart_delay_seconds(crash_count: int) -> float:
    """Return the pause after the nth crash within the window: none, then doubling."""
    if crash_count <= 1:
        return 0.0
    delay: float = BACKOFF_FIRST_SECONDS * 2 ** (crash_count - 2)
    return min(delay, BACKOFF_MAX_SECONDS)


class Supervisor:
    """Run the workers of one server.

    Args:
        config: The settings; its application is an import string.
        command: Starts a worker; the descriptor of its channel is appended.
    """

    def __init__(self, config: Config, *, command: Sequence[str] | None = None) -> None:
        if not isinstance(config.app, str):
            raise ConfigError('several workers need the application as a string: "module:app"')
        self._config = config
        self._command = list(command) if command is not None else _worker_command()
        self._selector = selectors.DefaultSelector()
        self._places: list[Place] = []
        self._stop_requests = 0
        self._stop_answered = 0
        self._reload_requests = 0
        self._reload_answered = 0
        self._is_stopping = False
        self._is_hasty = False
        self._kill_at = 0.0
        self._exit_code = EXIT_STOPPED
        self._was_announced = False
        self._listeners: Listeners | None = None
        self._segment: RuntimeSegment | None = None
        self._notifier = Notifier(os.environ)
        self._watchdog_at = 0.0

    def run(self) -> int:
        """Serve until asked to stop or until it makes no sense to go on.

        Returns:
            The exit code.

        Raises:
            ListenError: The address cannot be bound.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("several workers need the main thread, which gets the signals")
        with contextlib.ExitStack() as stack:
            self._listeners = open_listeners(self._config)
            stack.callback(self._listeners.close)
            self._segment = open_segment(self._config.workers)
            if self._segment is not None:
                stack.callback(self._segment.close)
            stack.callback(self._selector.close)
            stack.enter_context(self._signals())
            stack.callback(self._kill_all)  # whatever happens here, nobody stays behind
            for index, sockets in enumerate(self._listeners.of_worker):
                self._places.append(Place(index, sockets))
            for place in self._places:
                self._start(place)
            while any(place.phase is not Phase.ENDED for place in self._places):
                self._turn()
        return self._exit_code

    # One turn of the machine ------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if isinstance(key.data, Place):
                self._read(key.data)
            else:
                self._drain_wakeups(key.fileobj)
        self._answer_signals()
        for place in self._places:
            self._reap(place)
        now = time.monotonic()
        self._feed_watchdog(now)
        for place in self._places:
            if now >= place.deadline and not self._is_stopping:
                self._on_deadline(place)
        if self._is_stopping and now >= self._kill_at:
            for place in self._places:
                self._kill(place, "it did not stop in time")
            self._kill_at = now + 1.0

    def _timeout(self) -> float | None:
        moments = [
            place.deadline
            for place in self._places
            if place.phase in (Phase.STARTING, Phase.WAITING) and not place.killed_because
        ]
        if self._is_stopping:
            moments = [self._kill_at]
        if self._notifier.watchdog_seconds is not None:
            moments.append(self._watchdog_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _feed_watchdog(self, now: float) -> None:
        seconds = self._notifier.watchdog_seconds
        if seconds is not None and now >= self._watchdog_at:
            self._notifier.watchdog()
            self._watchdog_at = now + seconds

    def _read(self, place: Place) -> None:
        if place.channel is None:
            return
        try:
            reports = place.channel.receive_reports()
        except EOFError:
            # It died or closed its end; which of the two, the exit status tells.
            self._selector.unregister(place.channel)
            return
        for report in reports:
            self._on_report(place, report)

    def _on_report(self, place: Place, report: WorkerReport) -> None:
        match report.event:
            case "ready" if place.phase is Phase.STARTING:
                place.phase = Phase.READY
                place.build = report.build
                place.has_worker_scope = report.has_worker_scope
                self._announce(place)
            case "worker-startup" if place.phase is Phase.STARTING:
                # The application is up: what is left has its own limit, which the worker keeps.
                seconds = self._config.timeout_worker_startup
                place.deadline = time.monotonic() + seconds + STARTUP_MARGIN_SECONDS
            case "failed":
                if not self._is_stopping or self._exit_code == EXIT_STOPPED:
                    print(report.text, file=sys.stderr, flush=True)
                self._fail(EXIT_STARTUP)
            case _:
                pass

    def _announce(self, place: Place) -> None:
        pid = place.process.pid if place.process is not None else 0
        if self._was_announced:
            logger.info("%s ready again (pid %d)", place.name, pid)
            self._notifier.status(self._status())
        elif all(other.phase is Phase.READY for other in self._places):
            self._was_announced = True
            urls = self._listeners.urls if self._listeners is not None else []
            app = str(self._config.app)
            for line in banner(version("framegate"), urls, len(self._places), place.build, app):
                logger.info("%s", line)
            pids = ", ".join(str(other.process.pid) for other in self._places if other.process)
            logger.info("ready: pids %s", pids)
            self._notifier.ready(self._status())

    def _status(self) -> str:
        """One line for `systemctl status`."""
        ready = sum(place.phase is Phase.READY for place in self._places)
        urls = " ".join(self._listeners.urls) if self._listeners is not None else ""
        return f"{ready} of {len(self._places)} workers serve {self._config.app} on {urls}"

    def _reap(self, place: Place) -> None:
        if place.process is None:
            return
        status = place.process.poll()
        if status is None:
            return
        self._forget(place)
        if self._is_stopping:
            place.phase = Phase.ENDED
            self._judge_end(place, status)
        elif place.killed_because:
            place.phase = Phase.ENDED
            self._fail(EXIT_STARTUP)
        elif status in (EXIT_CONFIG, EXIT_STARTUP):
            place.phase = Phase.ENDED
            self._fail(status)
        else:
            self._restart(place, status)

    def _forget(self, place: Place) -> None:
        """Release what belonged to a process that is dead."""
        if place.channel is not None:
            with contextlib.suppress(KeyError):
                # Its last words may still be unread: why it failed.
                self._selector.get_key(place.channel)
                self._read_rest(place)
                self._selector.unregister(place.channel)
            place.channel.close()
            place.channel = None
        place.process = None
        if self._segment is not None:
            self._segment.fold(place.index)

    def _read_rest(self, place: Place) -> None:
        assert place.channel is not None
        with contextlib.suppress(EOFError, BlockingIOError):
            while True:
                for report in place.channel.receive_reports():
                    self._on_report(place, report)

    def _judge_end(self, place: Place, status: int) -> None:
        # A signal before the worker had its handlers: it did as it was told.
        quiet = (EXIT_STOPPED, -signal.SIGTERM, -signal.SIGINT)
        if status in quiet or self._exit_code != EXIT_STOPPED:
            return
        logger.error("%s ended with %s while stopping", place.name, _status_text(status))
        self._exit_code = status if status in (EXIT_CONFIG, EXIT_STARTUP) else EXIT_RUNTIME

    # Start and restart ------------------------------------------------------------------------

    def _start(self, place: Place) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = tuple(item.fileno() for item in place.sockets)
            spec = WorkerSpec(
                config=self._config,
                index=place.index,
                generation=place.generation,
                supervisor_pid=os.getpid(),
                listener_fds=fds,
                redirect_count=self._listeners.redirect_count if self._listeners else 0,
                runtime_path=str(self._segment.path) if self._segment is not None else "",
            )
            try:
                place.process = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*fds, theirs.fileno()),
                    process_group=0,
                )
            except OSError as error:  # out of processes or memory: may be better in a moment
                ours.close()
                logger.error("%s cannot be started: %s", place.name, error)
                self._restart(place, EXIT_RUNTIME)
                return
        if self._segment is not None:
            self._segment.begin(place.index, place.process.pid, place.generation)
        place.channel = Channel(ours)
        place.phase = Phase.STARTING
        place.deadline = time.monotonic() + self._config.timeout_startup + STARTUP_MARGIN_SECONDS
        with contextlib.suppress(OSError):  # it is dead already: the exit status will tell
            place.channel.send_spec(spec)
        ours.setblocking(False)
        self._selector.register(place.channel, selectors.EVENT_READ, place)

    def _restart(self, place: Place, status: int) -> None:
        now = time.monotonic()
        place.crashes.append(now)
        while place.crashes[0] < now - RESTART_WINDOW_SECONDS:
            place.crashes.popleft()
        crash_count = len(place.crashes)
        if crash_count > RESTARTS_MAX:
            logger.critical(
                "%s ended with %s, for the %dth time within %g s: giving up",
                place.name,
                _status_text(status),
                crash_count,
                RESTART_WINDOW_SECONDS,
            )
            place.phase = Phase.ENDED
            self._fail(EXIT_RUNTIME)
            return
        delay = restart_delay_seconds(crash_count)
        when = "at once" if delay == 0 else f"in {delay:g} s"
        logger.error(
            "%s ended with %s: starting it again %s", place.name, _status_text(status), when
        )
        place.phase = Phase.WAITING
        self._notifier.status(self._status())
        place.generation += 1
        place.deadline = now + delay

    def _on_deadline(self, place: Place) -> None:
        match place.phase:
            case Phase.WAITING:
                self._start(place)
            case Phase.STARTING if not place.killed_because:
                logger.critical(
                    "%s was not ready after %g s (--timeout-startup)",
                    place.name,
                    self._config.timeout_startup,
                )
                self._kill(place, "it did not start in time")
            case _:
                pass

    # Stop -------------------------------------------------------------------------------------

    def _fail(self, exit_code: int) -> None:
        """Stop all workers because going on makes no sense."""
        if self._exit_code == EXIT_STOPPED:
            self._exit_code = exit_code
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._notifier.stopping(f"stopping {len(self._places)} workers")
        grace = self._config.timeout_graceful_shutdown
        if any(place.has_worker_scope for place in self._places):
            grace += self._config.timeout_worker_shutdown
        self._set_kill_time(grace + SHUTDOWN_SECONDS)
        # Connections from now on are refused, not queued: the workers close their copies too.
        if self._listeners is not None:
            self._listeners.close()
        for place in self._places:
            if place.process is None:
                place.phase = Phase.ENDED
            else:
                place.process.send_signal(signal.SIGTERM)

    def _set_kill_time(self, seconds: float) -> None:
        self._kill_at = time.monotonic() + seconds + STOP_MARGIN_SECONDS

    def _answer_signals(self) -> None:
        if self._reload_answered != self._reload_requests:
            self._reload_answered = self._reload_requests
            if not self._is_stopping:
                self._notifier.reloading("reads certificates")
                for place in self._places:
                    if place.channel is not None:
                        place.channel.send_order("reload-tls")
                # Each worker reads them in its own time, and serves with the old ones until then.
                self._notifier.ready(self._status())
        # Two counters, each written on one side only: a handler may run between any two steps here.
        while self._stop_answered < self._stop_requests:
            self._stop_answered += 1
            if not self._is_stopping:
                logger.info("stopping %d workers", len(self._places))
                self._begin_to_stop()
            elif not self._is_hasty:
                self._is_hasty = True
                logger.warning("asked again to stop: cutting what is still open")
                self._set_kill_time(HASTY_SECONDS)
                for place in self._places:
                    if place.process is not None:
                        place.process.send_signal(signal.SIGINT)  # see worker.Signals
            else:
                self._set_kill_time(-STOP_MARGIN_SECONDS)

    def _kill(self, place: Place, reason: str) -> None:
        if place.process is None or place.killed_because:
            return
        logger.error("%s (pid %d) is killed: %s", place.name, place.process.pid, reason)
        place.killed_because = reason
        if self._is_stopping and self._exit_code == EXIT_STOPPED:
            self._exit_code = EXIT_RUNTIME
        place.process.kill()

    def _kill_all(self) -> None:
        for place in self._places:
            if place.process is not None:
                place.process.kill()
                place.process.wait()

    # Signals ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into bytes that the selector sees, and count the requests to stop."""
        reader, writer = socket.socketpair()
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            self._selector.register(reader, selectors.EVENT_READ)
            handlers: dict[signal.Signals, Any] = {
                signal.SIGTERM: self._on_stop_signal,
                signal.SIGINT: self._on_stop_signal,
                signal.SIGCHLD: lambda number, frame: None,  # the byte is what matters
            }
            if self._config.ssl_certfile:
                handlers[signal.SIGHUP] = self._on_reload_signal
            before = {number: signal.signal(number, call) for number, call in handlers.items()}
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(wakeup)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _on_reload_signal(self, number: int, frame: FrameType | None) -> None:
        self._reload_requests += 1

    @staticmethod
    def _drain_wakeups(reader: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while reader.recv(4096):
                pass


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _worker_command() -> list[str]:
    # -P: the directory of the application gets into sys.path by app_dir, not by where we stand; a
    # file there must not hide a module of the standard library from our own start.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-P", "-m", "framegate.worker"]
