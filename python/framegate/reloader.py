"""`--reload`: one worker, started anew when the application's code changes.

    bind -> watch -> start worker -> (code changed) stop it at once -> start worker ...

The sockets are bound and listen here, so that while there is no worker clients wait instead of
being refused. A worker that cannot start the application serves a page that says why
(`live_reload.py`); one that dies is started again by the next change.

Stopping is in haste: requests and WebSockets are cut, the application's shutdown gets some seconds,
and after `KILL_SECONDS` more the worker is killed. Who develops does not wait.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

from framegate.channel import Channel, WorkerSpec
from framegate.config import Config
from framegate.errors import EXIT_STOPPED
from framegate.listener import (
    Listeners,
    open_admin_listeners,
    open_listeners,
    start_listening,
)
from framegate.logging import announce, logger
from framegate.runtime_segment import RuntimeSegment, open_segment
from framegate.wakeups import drain, signals_as_bytes
from framegate.watching import CODE, Watch, roots
from framegate.worker_process import start_process, worker_command

__all__ = ["Reloader"]

KILL_SECONDS: Final = 2.0
"""What a worker gets to end by itself: a new one must not wait for a shutdown that hangs."""


class Reloader:
    """Serve one application while somebody works on it.

    Args:
        config: The settings.
        environment: What workers are started in, if not that of this process.

    Raises:
        ConfigError: watchfiles is not installed, or there is too much to watch.
    """

    def __init__(self, config: Config, *, environment: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._environment = environment
        self._watch = Watch(
            roots(config),
            (*CODE, *config.reload_includes),
            config.reload_excludes,
            config.reload_delay,
            files=[config.env_file] if config.env_file is not None else [],
        )
        self._changes: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._listeners: Listeners | None = None
        self._admin = Listeners([[]])
        self._segment: RuntimeSegment | None = None
        self._generation = 0
        self._started_at = 0.0
        self._stop_requests = 0
        self._was_announced = False
        self._is_ready = False

    def run(self) -> int:
        """Serve until asked to stop.

        Returns:
            The exit code.

        Raises:
            ListenError: The address cannot be bound.
        """
        with contextlib.ExitStack() as stack:
            self._listeners = open_listeners(self._config)
            stack.callback(self._listeners.close)
            self._admin = open_admin_listeners(self._config)
            stack.callback(self._admin.close)
            if self._config.needs_runtime_segment:
                self._segment = open_segment(1, is_needed=True)
                assert self._segment is not None
                stack.callback(self._segment.close)
            stack.callback(self._selector.close)
            start_listening(self._listeners.of_worker[0], self._config.backlog)
            handlers = {signal.SIGTERM: self._on_stop_signal, signal.SIGINT: self._on_stop_signal}
            wake = stack.enter_context(signals_as_bytes(self._selector, handlers))
            stack.callback(self._stop_worker)
            stack.enter_context(self._watching(wake))
            patterns = " ".join((*CODE, *self._config.reload_includes))
            directories = self._watch.directories
            logger.info(
                "watching %s in %d directories below %s",
                patterns,
                len(directories),
                " ".join(roots(self._config)),
            )
            self._start_worker()
            while not self._stop_requests:
                self._turn()
        return EXIT_STOPPED

    def _turn(self) -> None:
        for key, _ in self._selector.select():
            if key.data == "channel":
                self._read()
            else:
                drain(key.fileobj)
        if self._process is not None and self._process.poll() is not None:
            self._read()
            logger.error(
                "the worker ended with code %d; it is started again when code changes",
                self._process.returncode,
            )
            self._forget()
        changed: set[str] = set()
        with contextlib.suppress(queue.Empty):
            while True:
                changed.update(self._changes.get_nowait())
        if changed and not self._stop_requests:
            logger.info("%s changed: starting the worker anew", _name(sorted(changed)))
            self._stop_worker()
            self._start_worker()

    def _read(self) -> None:
        if self._channel is None:
            return
        try:
            reports = self._channel.receive_reports()
        except (EOFError, BlockingIOError):
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._channel)
            return
        for report in reports:
            if report.event == "failed":
                print(report.text, file=sys.stderr, flush=True)
            elif report.event == "ready":
                self._announce(report.build)

    def _announce(self, build: dict[str, Any]) -> None:
        assert self._listeners is not None
        assert self._process is not None
        if not self._was_announced:
            self._was_announced = True
            announce(
                self._config,
                self._listeners.urls,
                1,
                build,
                self._admin.urls,
                self._listeners.topics_urls,
            )
        seconds = time.monotonic() - self._started_at
        logger.info("ready: pid %d, after %.2f s", self._process.pid, seconds)

    def _start_worker(self) -> None:
        assert self._listeners is not None
        fds = tuple(item.fileno() for item in self._listeners.of_worker[0])
        spec = WorkerSpec(
            config=self._config,
            index=0,
            worker_count=1,
            row=0,
            generation=self._generation,
            supervisor_pid=os.getpid(),
            listener_fds=fds,
            counts=self._listeners.counts,
            runtime_path=str(self._segment.path) if self._segment else "",
            admin_fds=tuple(item.fileno() for item in self._admin.of_worker[0]),
        )
        self._started_at = time.monotonic()
        self._process, self._channel = start_process(
            worker_command(), spec, stdin=None, environment=self._environment
        )
        if self._segment is not None:
            self._segment.begin(0, self._process.pid, self._generation)
        self._generation += 1
        self._selector.register(self._channel, selectors.EVENT_READ, "channel")

    def _stop_worker(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # in haste: see worker.Signals
        try:
            self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the worker (pid %d) did not stop and is killed", self._process.pid)
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._channel)
            self._channel.close()
        self._channel = self._process = None
        if self._segment is not None:
            self._segment.fold(0)

    @contextlib.contextmanager
    def _watching(self, wake: socket.socket) -> Iterator[None]:
        def watch() -> None:
            for changed in self._watch.changes():
                self._changes.put(changed)
                wake.send(b"w")

        thread = threading.Thread(target=watch, name="framegate watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._watch.stop()
            thread.join(KILL_SECONDS)

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1


def _name(changed: list[str]) -> str:
    first = os.path.relpath(changed[0])
    return first if len(changed) == 1 else f"{first} and {len(changed) - 1} more"
