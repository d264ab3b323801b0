"""The parent of several workers: spawn, watch, replace, stop. It never loads the application.

Each worker has a *place*: an index and its sockets. In a place there is one process
(`worker_process.py`), and for a moment a second one, its successor:

    starting -> ready ------------------------------- retiring -> gone
       |          |  successor: starting -> ready --^
       +- dies ---+-> (pause) -> starting ...

| what happens            | what follows                                                        |
|-------------------------|---------------------------------------------------------------------|
| all are ready           | the start-up lines                                                  |
| one cannot start, first | exit 2 or 3 (or 3, not ready in time): stop all, exit with its code |
| one dies                | started again, within the budget of its place, after a pause        |
| the budget is spent     | stop all, exit 1, or 2 or 3 if that is what the last one said       |
| SIGHUP                  | each is replaced, one after the other; certificates are read anew   |
| a worker is due         | replaced: requests, memory, lifetime (`recycling.py`)               |
| a loop stands still     | only with `worker_timeout`: killed, which is a death                |
| SIGTTIN, SIGTTOU        | one worker more, one less                                           |
| SIGUSR1                 | with access_log_file: each opens the file anew                      |
| SIGTERM, SIGINT         | SIGTERM to all; the deadline runs; again: in haste; again: kill     |

Replacing loses nothing, because the successor accepts from the same sockets before the old process
is asked to retire, and because the old one lets whoever is connected send one more request, whose
answer says that it is the last one. It is gated: a successor that does not become ready in time, or
does not import, ends the attempt, and the old process stays. One at a time, from the spawn of the
successor to the end of the old one: there is memory for one worker more, not for twice as many.

Guarantees, and what keeps them:

- No worker outlives the supervisor, even killed: SIGHUP by PR_SET_PDEATHSIG (Linux), end of file on
  the channel (`channel.py`), and the worker's native thread, which looks for its parent. No worker
  outlives its deadline: SIGKILL.
- No connection is lost with a worker: its sockets stay open here (`listener.py`). One less means
  that another worker accepts from the sockets of the one that leaves.
- Counters do not fall: each process has a row of the runtime segment to itself, and what a dead one
  counted goes to the totals.

systemd hears of it (`systemd.py`): ready after the last worker, its state, reloads, and that this
loop turns if there is a watchdog. A worker that blocks does not stop that: it is not a reason to
kill all.

Single-threaded: signals arrive as bytes in a socket pair that the selector watches. It wakes up for
what happens and for deadlines; only limits that somebody has to look at make it look, twice a
second.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from framegate.channel import Order, WorkerReport
from framegate.config import Config
from framegate.cores import usable_cores
from framegate.errors import EXIT_CONFIG, EXIT_RUNTIME, EXIT_STARTUP, EXIT_STOPPED, ConfigError
from framegate.limits_area import area_bytes
from framegate.listener import Listeners, open_admin_listeners, open_listeners
from framegate.logging import announce, logger
from framegate.recycling import Allotment, Usage
from framegate.runtime_segment import RuntimeSegment, open_segment
from framegate.system import private_bytes
from framegate.systemd import Notifier
from framegate.threading_model import name_of, stays_without_lock
from framegate.wakeups import drain, signals_as_bytes
from framegate.worker_process import (
    ListenerSet,
    Phase,
    WorkerProcess,
    status_text,
    worker_command,
)

__all__ = ["RESTART_WINDOW_SECONDS", "Supervisor", "restart_delay_seconds"]

RESTART_WINDOW_SECONDS: Final = 60.0
"""What the budget of `worker_restarts_max` is for."""

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

LOOK_SECONDS: Final = 0.5
"""How often limits are looked at, where there are any: as often as workers publish."""

STALLS_SEEN: Final = 2
"""How often a loop must be found standing still: it may have gone on since that was written."""

RECYCLE_AGAIN_SECONDS: Final = 60.0
"""After a successor failed, its worker is left alone for so long, due or not."""

ATTEMPTS_MAX: Final = 5
"""How often a successor is started again that was killed by a signal."""

WORKERS_MAX: Final = 512
"""As for the setting `workers`."""

ROWS_SPARE: Final = 32
"""Rows beyond two per worker at the start: for workers that SIGTTIN adds."""


@dataclass
class Place:
    """One worker and its successors.

    Attributes:
        index: Which one, from 0.
        listeners: What whoever is here accepts from.
        threads: How many workers each process of this place has.
        generation: How many processes there were before.
        current: Who serves, or starts because nobody does.
        successor: Who starts beside it.
        restart_at: With nobody here: when the next one is started.
        crashes: When processes of this place have died.
    """

    index: int
    listeners: ListenerSet
    threads: int = 1
    generation: int = -1
    current: WorkerProcess | None = None
    successor: WorkerProcess | None = None
    restart_at: float | None = None
    crashes: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """What the log calls it."""
        return name_of(self.index, self.threads)

    @property
    def is_ready(self) -> bool:
        """Whether somebody serves."""
        return self.current is not None and self.current.phase is Phase.READY


@dataclass
class Replacement:
    """One that is under way.

    Attributes:
        place: Where.
        old: Who goes.
        reason: Why, for the log.
    """

    place: Place
    old: WorkerProcess
    reason: str


RELOAD: Final = "reload"


def restart_delay_seconds(crash_count: int) -> float:
    """Return the pause after the nth crash within the window: none, then doubling."""
    if crash_count <= 1:
        return 0.0
    delay: float = BACKOFF_FIRST_SECONDS * 2 ** min(crash_count - 2, 30)
    return min(delay, BACKOFF_MAX_SECONDS)


class Supervisor:
    """Run the workers of one server.

    Args:
        config: The settings; its application is an import string.
        command: Starts a worker; the descriptor of its channel is appended.
        environment: What workers are started in, if not that of this process.
        has_threads: Whether the workers are threads of one process; what this Python is made for if
            None.
    """

    def __init__(
        self,
        config: Config,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        has_threads: bool | None = None,
    ) -> None:
        if not isinstance(config.app, str):
            raise ConfigError('several workers need the application as a string: "module:app"')
        self._config = config
        self._has_threads = stays_without_lock() if has_threads is None else has_threads
        self._command = list(command) if command is not None else worker_command()
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._places: list[Place] = []
        self._retiring: list[WorkerProcess] = []
        self._stop_requests = 0
        self._stop_answered = 0
        self._reload_requests = 0
        self._reload_answered = 0
        self._grow_requests = 0
        self._grow_answered = 0
        self._shrink_requests = 0
        self._shrink_answered = 0
        self._reopen_requests = 0
        self._reopen_answered = 0
        self._is_stopping = False
        self._is_hasty = False
        self._kill_at = 0.0
        self._exit_code = EXIT_STOPPED
        self._was_announced = False
        self._listeners = Listeners([])
        self._admin = Listeners([[]])
        self._unclaimed: list[ListenerSet] = []
        self._segment: RuntimeSegment | None = None
        self._rows: list[int] = []
        self._due: deque[tuple[Place, WorkerProcess, str]] = deque()
        self._replacement: Replacement | None = None
        self._is_reloading = False
        self._notifier = Notifier(os.environ)
        self._watchdog_at = 0.0
        self._chance = random.Random()
        self._has_limits = any(
            (
                config.limit_max_requests,
                config.limit_max_rss,
                config.limit_max_lifetime,
                config.worker_timeout,
            )
        )
        self._look_at = 0.0
        # nohup has SIGHUP ignored: whoever wrote that does not want a hang-up to stop anything.
        self._had_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()

    def run(self) -> int:
        """Serve until asked to stop or until it makes no sense to go on.

        Returns:
            The exit code.

        Raises:
            ListenError: The address cannot be bound.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("several workers need the main thread, which gets the signals")
        count = self._config.workers or usable_cores()
        with contextlib.ExitStack() as stack:
            self._listeners = open_listeners(self._config, count)
            stack.callback(self._listeners.close)
            self._admin = open_admin_listeners(self._config)
            stack.callback(self._admin.close)
            row_count = 2 * count + ROWS_SPARE
            limits_bytes = area_bytes(self._config, row_count)
            needed = self._config.needs_runtime_segment
            self._segment = open_segment(row_count, limits_bytes, is_needed=needed)
            if self._segment is not None:
                stack.callback(self._segment.close)
                self._rows = list(range(row_count))
            elif self._config.limit_max_requests or self._config.worker_timeout:
                logger.warning("limit_max_requests and worker_timeout do nothing without a segment")
            stack.callback(self._selector.close)
            handlers = {
                signal.SIGTERM: self._on_stop_signal,
                signal.SIGINT: self._on_stop_signal,
                signal.SIGHUP: self._on_reload_signal,
                signal.SIGTTIN: self._on_grow_signal,
                signal.SIGTTOU: self._on_shrink_signal,
            }
            if self._config.access_log_path is not None:
                handlers[signal.SIGUSR1] = self._on_reopen_signal
            stack.enter_context(signals_as_bytes(self._selector, handlers))
            stack.callback(self._kill_all)  # whatever happens here, nobody stays behind
            sets = [self._split(sockets) for sockets in self._listeners.of_worker]
            if self._has_threads:
                self._places.append(Place(0, functools.reduce(ListenerSet.plus, sets), count))
            else:
                self._places += [Place(index, listeners) for index, listeners in enumerate(sets)]
            for place in self._places:
                self._start(place)
            while self._processes() or not self._is_stopping:
                self._turn()
        return self._exit_code

    @property
    def _worker_count(self) -> int:
        return sum(place.threads for place in self._places)

    def _split(self, sockets: Sequence[socket.socket]) -> ListenerSet:
        return ListenerSet.of(sockets, self._listeners.counts)

    def _processes(self) -> list[WorkerProcess]:
        """Return everybody, on the way in and on the way out."""
        here = [one for place in self._places for one in (place.current, place.successor) if one]
        return here + self._retiring

    def _place_of(self, worker: WorkerProcess) -> Place | None:
        for place in self._places:
            if worker is place.current or worker is place.successor:
                return place
        return None

    # One turn of the machine ------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if isinstance(key.data, WorkerProcess):
                self._read(key.data)
            else:
                drain(key.fileobj)
        # Deaths first: one that came before a request to stop is not one "while stopping".
        for worker in self._processes():
            self._reap(worker)
        self._answer_signals()
        now = time.monotonic()
        self._feed_watchdog(now)
        if self._is_stopping:
            if now >= self._kill_at:
                for worker in self._processes():
                    self._kill(worker, "it did not stop in time")
                self._kill_at = now + 1.0
            return
        for worker in self._processes():
            if now >= worker.deadline and worker.phase is not Phase.READY:
                self._on_deadline(worker)
        for place in self._places:
            if place.restart_at is not None and now >= place.restart_at:
                self._start(place)
        self._look(now)
        self._replace_next()

    def _timeout(self) -> float | None:
        moments = [
            worker.deadline
            for worker in self._processes()
            if worker.phase is not Phase.READY and not worker.killed_because
        ]
        moments += [place.restart_at for place in self._places if place.restart_at is not None]
        if self._has_limits:
            moments.append(self._look_at)
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

    def _read(self, worker: WorkerProcess) -> None:
        try:
            reports = worker.channel.receive_reports()
        except EOFError:
            # It died or closed its end; which of the two, the exit status tells.
            self._selector.unregister(worker.channel)
            return
        for report in reports:
            self._on_report(worker, report)

    def _on_report(self, worker: WorkerProcess, report: WorkerReport) -> None:
        match report.event:
            case "ready" if worker.phase is Phase.STARTING:
                worker.phase = Phase.READY
                worker.ready_at = time.monotonic()
                worker.build = report.build
                worker.has_worker_scope = report.has_worker_scope
                self._on_ready(worker)
            case "worker-startup" if worker.phase is Phase.STARTING:
                # The application is up: what is left has its own limit, which the worker keeps.
                seconds = self._config.timeout_worker_startup
                worker.deadline = time.monotonic() + seconds + STARTUP_MARGIN_SECONDS
            case "failed":
                if not self._is_stopping or self._exit_code == EXIT_STOPPED:
                    print(report.text, file=sys.stderr, flush=True)
                if not self._was_announced:
                    self._fail(EXIT_STARTUP)
            case _:
                pass

    def _on_ready(self, worker: WorkerProcess) -> None:
        place = self._place_of(worker)
        if place is None or self._is_stopping:
            return
        worker.adopt(place.listeners)  # what came to the place while it started
        if worker is place.successor:
            self._succeed(place, worker)
        elif self._was_announced:
            again = " again" if place.generation else ""
            logger.info("%s ready%s (pid %d)", place.name, again, worker.pid)
            self._notifier.status(self._status())
        elif all(other.is_ready for other in self._places):
            self._was_announced = True
            # The version is what the worker says: to look it up here would cost megabytes.
            urls, count = self._listeners.urls, self._worker_count
            announce(
                self._config,
                urls,
                count,
                worker.build,
                self._admin.urls,
                self._listeners.topics_urls,
            )
            pids = ", ".join(str(other.current.pid) for other in self._places if other.current)
            logger.info("ready: pids %s", pids)
            self._notifier.ready(self._status())

    def _status(self) -> str:
        """One line for `systemctl status`."""
        ready = sum(place.threads for place in self._places if place.is_ready)
        urls = " ".join(self._listeners.urls)
        return f"{ready} of {self._worker_count} workers serve {self._config.app} on {urls}"

    # The end of a process ---------------------------------------------------------------------

    def _reap(self, worker: WorkerProcess) -> None:
        status = worker.process.poll()
        if status is None:
            return
        self._forget(worker)
        place = self._place_of(worker)
        is_successor = place is not None and worker is place.successor
        if place is None:
            self._retiring.remove(worker)
        elif is_successor:
            place.successor = None
        else:
            place.current = None
        if self._is_stopping:
            self._judge_end(worker, status)
        elif place is None:
            if status not in (EXIT_STOPPED, -signal.SIGTERM):
                how = status_text(status)
                logger.error("%s (pid %d) ended with %s as it left", worker.name, worker.pid, how)
        elif is_successor:
            # A signal says nothing about the code: somebody or something killed it.
            is_chance = status < 0 and not worker.killed_because
            self._successor_failed(f"ended with {status_text(status)}", may_repeat=is_chance)
        else:
            self._on_death(place, worker, status)

    def _on_death(self, place: Place, worker: WorkerProcess, status: int) -> None:
        if place.successor is not None:
            logger.error("%s ended with %s: its successor starts", place.name, status_text(status))
            place.current, place.successor = place.successor, None
            self._replacement = None
        elif not self._was_announced and (
            worker.killed_because or status in (EXIT_CONFIG, EXIT_STARTUP)
        ):
            self._fail(EXIT_STARTUP if worker.killed_because else status)
        else:
            self._restart(place, status_text(status), status)

    def _forget(self, worker: WorkerProcess) -> None:
        """Release what belonged to a process that is dead."""
        with contextlib.suppress(KeyError):
            # Its last words may still be unread: why it failed.
            self._selector.get_key(worker.channel)
            with contextlib.suppress(EOFError, BlockingIOError):
                while True:
                    for report in worker.channel.receive_reports():
                        if report.event == "failed":  # it is too late for all others
                            self._on_report(worker, report)
            self._selector.unregister(worker.channel)
        worker.channel.close()
        if self._segment is not None and worker.row >= 0:
            for row in worker.rows:
                self._segment.fold(row)
            self._rows = sorted([*self._rows, *worker.rows])

    def _judge_end(self, worker: WorkerProcess, status: int) -> None:
        # A signal before the worker had its handlers: it did as it was told.
        quiet = (EXIT_STOPPED, -signal.SIGTERM, -signal.SIGINT)
        if status in quiet or self._exit_code != EXIT_STOPPED:
            return
        logger.error("%s ended with %s while stopping", worker.name, status_text(status))
        self._exit_code = status if status in (EXIT_CONFIG, EXIT_STARTUP) else EXIT_RUNTIME

    # Start and restart ------------------------------------------------------------------------

    def _spawn(self, place: Place) -> WorkerProcess:
        """Start a process for a place.

        Raises:
            OSError: There are no processes, descriptors or memory left; may be better in a moment.
        """
        row = self._free_rows(place.threads)
        has_row = self._segment is not None and row >= 0
        worker = WorkerProcess.spawn(
            self._command,
            self._config,
            index=place.index,
            worker_count=self._worker_count,
            threads=place.threads,
            generation=place.generation + 1,
            row=row,
            listeners=place.listeners,
            runtime_path=str(self._segment.path) if self._segment and has_row else "",
            allotment=Allotment.draw(self._config, self._chance),
            deadline=time.monotonic() + self._config.timeout_startup + STARTUP_MARGIN_SECONDS,
            environment=self._environment,
            admin_fds=tuple(item.fileno() for item in self._admin.of_worker[0]),
        )
        place.generation += 1
        if self._segment is not None and has_row:
            self._rows = [free for free in self._rows if free not in worker.rows]
            for number, row in enumerate(worker.rows):
                self._segment.begin(row, worker.pid, place.generation, place=place.index + number)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _free_rows(self, count: int) -> int:
        """Return the first of so many free rows in a row, or -1."""
        free = set(self._rows)
        for row in self._rows:
            if free.issuperset(range(row, row + count)):
                return row
        return -1

    def _start(self, place: Place) -> None:
        place.restart_at = None
        try:
            place.current = self._spawn(place)
        except OSError as error:
            self._restart(place, f"an error: it cannot be started: {error}", EXIT_RUNTIME)

    def _restart(self, place: Place, how: str, status: int) -> None:
        now = time.monotonic()
        place.crashes.append(now)
        while place.crashes[0] < now - RESTART_WINDOW_SECONDS:
            place.crashes.popleft()
        crash_count = len(place.crashes)
        if crash_count > self._config.worker_restarts_max:
            code = status if status in (EXIT_CONFIG, EXIT_STARTUP) else EXIT_RUNTIME
            logger.critical(
                "%s ended with %s, for the %s time within %g s: giving up, exit code %d "
                "(--worker-restarts-max %d)",
                place.name,
                how,
                _ordinal(crash_count),
                RESTART_WINDOW_SECONDS,
                code,
                self._config.worker_restarts_max,
            )
            self._fail(code)
            return
        delay = restart_delay_seconds(crash_count)
        when = "at once" if delay == 0 else f"in {delay:g} s"
        logger.error("%s ended with %s: starting it again %s", place.name, how, when)
        if self._segment is not None:
            self._segment.count_restart()
        self._notifier.status(self._status())
        place.restart_at = now + delay

    def _on_deadline(self, worker: WorkerProcess) -> None:
        if worker.phase is Phase.RETIRING:
            self._kill(worker, "it did not stop in time")
        elif not worker.killed_because:
            logger.critical(
                "%s was not ready after %g s (--timeout-startup)",
                worker.name,
                self._config.timeout_startup,
            )
            self._kill(worker, "it did not start in time")

    # Replace ----------------------------------------------------------------------------------

    def _replace_next(self) -> None:
        """Go on with what is under way, or begin with the next worker that is due."""
        if self._replacement is not None:
            if self._replacement.place.successor or self._replacement.old in self._retiring:
                return
            self._replacement = None
        while self._due:
            place, old, reason = self._due[0]
            if place.current is not old or place not in self._places:
                self._due.popleft()  # it died, or left: whoever is there now is new
                continue
            if old.phase is Phase.STARTING:
                return  # it has to serve first, or nobody would
            self._due.popleft()
            logger.info("%s (pid %d) is replaced: %s", place.name, old.pid, reason)
            self._replacement = Replacement(place, old, reason)
            try:
                place.successor = self._spawn(place)
            except OSError as error:
                self._successor_failed(f"cannot be started: {error}")
                continue
            return
        if self._is_reloading:
            self._is_reloading = False
            logger.info("reloaded: %s", self._status())
            self._notifier.ready(self._status())

    def _succeed(self, place: Place, worker: WorkerProcess) -> None:
        """Let the successor take the place."""
        old, place.current, place.successor = place.current, worker, None
        if old is not None:
            logger.info("%s: pid %d serves in place of pid %d", place.name, worker.pid, old.pid)
            self._retire(old)

    def _retire(self, worker: WorkerProcess) -> None:
        self._retiring.append(worker)
        worker.retire(self._stop_seconds(worker) + STOP_MARGIN_SECONDS)

    def _successor_failed(self, what: str, *, may_repeat: bool = False) -> None:
        replacement, self._replacement = self._replacement, None
        if replacement is None:
            return
        place, old = replacement.place, replacement.old
        if may_repeat and old.attempts < ATTEMPTS_MAX:
            old.attempts += 1
            logger.warning("%s: the successor %s: once more", place.name, what)
            self._due.appendleft((place, old, replacement.reason))
            return
        old.is_due = False
        old.recycled_after = time.monotonic() + RECYCLE_AGAIN_SECONDS
        logger.error("%s (pid %d) stays: its successor %s", replacement.place.name, old.pid, what)
        if self._is_reloading and replacement.reason != RELOAD:
            self._mark_due(replacement.place, old, RELOAD)
        elif replacement.reason == RELOAD:
            # The others would fail alike.
            for _, worker, reason in self._due:
                worker.is_due = worker.is_due and reason != RELOAD
            self._due = deque(item for item in self._due if item[2] != RELOAD)
            self._is_reloading = False
            logger.error(
                "the reload has failed: the old workers go on; one that dies now is started from "
                "what is there now"
            )
            self._notifier.ready(f"reload failed; {self._status()}")

    def _mark_due(self, place: Place, worker: WorkerProcess, reason: str) -> None:
        worker.is_due = True
        self._due.append((place, worker, reason))

    def _reload(self) -> None:
        logger.info("replacing %d workers, one after the other", self._worker_count)
        self._notifier.reloading("replaces its workers")
        self._is_reloading = True
        self._due = deque(item for item in self._due if item[2] == RELOAD)
        for place in self._places:
            if place.current is None:
                continue
            if self._config.ssl_certfile:
                # At once, and even if the application does not start again.
                place.current.channel.send_order(Order("reload-tls"))
            replaced = self._replacement
            if place.successor is not None and replaced is not None:
                # It may have read the old files: once more, when it serves.
                self._mark_due(place, place.successor, RELOAD)
                continue
            self._due = deque(item for item in self._due if item[1] is not place.current)
            self._mark_due(place, place.current, RELOAD)

    def _look(self, now: float) -> None:
        """Find workers that have served long enough, or whose loop stands still."""
        if not self._has_limits or now < self._look_at:
            return
        was_late = now > self._look_at + 4 * LOOK_SECONDS
        self._look_at = now + LOOK_SECONDS
        for place in self._places:
            worker = place.current
            if worker is None or worker.phase is not Phase.READY:
                continue
            # A pause of the whole machine is nobody's fault.
            if self._config.worker_timeout and not was_late:
                self._look_for_stall(worker)
            if not worker.is_due and now >= worker.recycled_after:
                if reason := worker.allotment.spent(self._usage(worker, now)):
                    self._mark_due(place, worker, reason)

    def _usage(self, worker: WorkerProcess, now: float) -> Usage:
        segment = self._segment
        requests = sum(map(segment.requests, worker.rows)) if segment is not None else 0
        return Usage(
            requests=requests // worker.threads,
            seconds=now - worker.ready_at,
            memory_bytes=private_bytes(worker.pid) if self._config.limit_max_rss else 0,
        )

    def _look_for_stall(self, worker: WorkerProcess) -> None:
        if self._segment is None:
            return
        seconds = 0.0
        for row in worker.rows:
            beat = self._segment.read(row, "row_heartbeat_ns")
            silent = time.monotonic_ns() - beat if beat else 0
            seconds = max(seconds, silent / 1e9, self._segment.read(row, "row_loop_lag_ns") / 1e9)
        if seconds < self._config.worker_timeout:
            worker.stalled_count = 0
            return
        worker.stalled_count += 1
        if worker.stalled_count >= STALLS_SEEN:
            limit = self._config.worker_timeout
            self._kill(
                worker, f"its loop stands still for {seconds:.1f} s (--worker-timeout {limit:g})"
            )

    # More and fewer ---------------------------------------------------------------------------

    def _grow(self) -> None:
        """Start one worker more."""
        if self._worker_count >= WORKERS_MAX:
            logger.warning("there are %d workers already, which is the limit", WORKERS_MAX)
            return
        index = self._worker_count
        if self._unclaimed:
            listeners = self._unclaimed.pop()
            # Of Unix and inherited sockets there is one for all.
            shared = listeners.common(self._split(self._listeners.of_worker[0]))
            for place in self._places:
                # Whoever adopted them goes on to accept from them; its successor will not.
                place.listeners = place.listeners.less(listeners.less(shared))
        else:
            try:
                listeners = self._split(self._listeners.add_worker())
            except OSError as error:
                logger.error("no socket for one more worker: %s", error)
                return
        place = Place(index, listeners)
        self._places.append(place)
        logger.info("one worker more: %d", self._worker_count)
        self._start(place)

    def _shrink(self) -> None:
        """Let the last worker go; another one accepts from its sockets."""
        if len(self._places) == 1:
            stays = (
                "one worker stays" if self._worker_count == 1 else "the workers of one process stay"
            )
            logger.warning("%s: SIGTERM stops the server", stays)
            return
        leaving = self._places.pop()
        logger.info("one worker less: %d", self._worker_count)
        heir = min(self._places, key=lambda place: len(place.listeners.fds))
        self._unclaimed.append(leaving.listeners)
        heir.listeners = heir.listeners.plus(leaving.listeners)
        if heir.is_ready and heir.current is not None:
            heir.current.adopt(heir.listeners)
        if self._replacement is not None and self._replacement.place is leaving:
            self._replacement = None
        for worker in (leaving.current, leaving.successor):
            if worker is not None:
                self._retire(worker)
        self._notifier.status(self._status())

    # Stop -------------------------------------------------------------------------------------

    def _fail(self, exit_code: int) -> None:
        """Stop all workers because going on makes no sense."""
        if self._exit_code == EXIT_STOPPED:
            self._exit_code = exit_code
        self._begin_to_stop()

    def _stop_seconds(self, worker: WorkerProcess) -> float:
        seconds = self._config.timeout_graceful_shutdown + SHUTDOWN_SECONDS
        if worker.has_worker_scope:
            seconds += self._config.timeout_worker_shutdown
        return seconds + self._config.last_words_seconds

    def _begin_to_stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._segment is not None:
            self._segment.begin_to_stop()
        self._notifier.stopping(f"stopping {self._worker_count} workers")
        workers = self._processes()
        self._set_kill_time(max((self._stop_seconds(worker) for worker in workers), default=0.0))
        # Connections from now on are refused, not queued: the workers close their copies too.
        self._listeners.close()
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)

    def _set_kill_time(self, seconds: float) -> None:
        self._kill_at = time.monotonic() + seconds + STOP_MARGIN_SECONDS

    def _answer_signals(self) -> None:
        # Two counters each, one per side: a handler may run between any two steps here.
        if self._reload_answered != self._reload_requests:
            self._reload_answered = self._reload_requests
            if self._had_terminal and not _has_terminal():
                logger.info("the terminal is gone")
                self._stop_requests += 1
            elif not self._is_stopping:
                self._reload()
        if self._reopen_answered != self._reopen_requests:
            self._reopen_answered = self._reopen_requests
            for worker in self._processes():
                worker.channel.send_order(Order("reopen-log"))
        while self._grow_answered < self._grow_requests:
            self._grow_answered += 1
            if not self._is_stopping:
                self._grow()
        while self._shrink_answered < self._shrink_requests:
            self._shrink_answered += 1
            if not self._is_stopping:
                self._shrink()
        while self._stop_answered < self._stop_requests:
            self._stop_answered += 1
            if not self._is_stopping:
                logger.info("stopping %d workers", self._worker_count)
                self._begin_to_stop()
            elif not self._is_hasty:
                self._is_hasty = True
                logger.warning("asked again to stop: cutting what is still open")
                self._set_kill_time(HASTY_SECONDS + self._config.last_words_seconds)
                for worker in self._processes():
                    worker.process.send_signal(signal.SIGINT)  # see worker.Signals
            else:
                self._set_kill_time(-STOP_MARGIN_SECONDS)

    def _kill(self, worker: WorkerProcess, reason: str) -> None:
        if worker.kill(reason):
            logger.error("%s (pid %d) is killed: %s", worker.name, worker.pid, reason)
            if self._is_stopping and self._exit_code == EXIT_STOPPED:
                self._exit_code = EXIT_RUNTIME

    def _kill_all(self) -> None:
        for worker in self._processes():
            worker.process.kill()
            worker.process.wait()
            worker.channel.close()

    # Signals ----------------------------------------------------------------------------------

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _on_reload_signal(self, number: int, frame: FrameType | None) -> None:
        self._reload_requests += 1

    def _on_reopen_signal(self, number: int, frame: FrameType | None) -> None:
        self._reopen_requests += 1

    def _on_grow_signal(self, number: int, frame: FrameType | None) -> None:
        self._grow_requests += 1

    def _on_shrink_signal(self, number: int, frame: FrameType | None) -> None:
        self._shrink_requests += 1


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal; when it hangs up, SIGHUP means to stop."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
