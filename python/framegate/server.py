"""Serve from code: `run`, and `Server` for those who have a loop or a program of their own.

| you have | you call | signals | errors |
|---|---|---|---|
| nothing but an application | `framegate.run(app, **options)` | handled | printed, `SystemExit` |
| a coroutine on our loop | `await Server(app).serve()` | handled on the main thread | raised |
| any other program | `Server(app).start_in_thread()` | yours | raised |

Our loop is `framegate.new_event_loop()`. The core is the selector of that loop, so it cannot work
on another one: not a matter of speed, there is nothing that would call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from framegate.build import build_info
from framegate.config import Config
from framegate.errors import (
    EXIT_RUNTIME,
    EXIT_STOPPED,
    FramegateError,
    WorkerError,
    describe,
)
from framegate.importer import is_importing, load_application
from framegate.limits_area import area_bytes
from framegate.listener import Address, Listeners, open_admin_listeners, open_listeners
from framegate.logging import announce, application_name, logger
from framegate.runtime_segment import open_segment
from framegate.start import serve_until_stopped
from framegate.systemd import Notifier
from framegate.worker import (
    NativeToolkit,
    RowPlace,
    Signals,
    StopRequested,
    Toolkit,
    Worker,
    run_worker,
)

__all__ = ["RunningServer", "Server", "build_info", "run", "serve_alone"]


def run(app: Any, **options: Any) -> None:
    """Serve an application until SIGTERM or Ctrl-C.

    Args:
        app: `"module:app"`, `"module:factory()"`, or the application itself (one worker only).
        **options: Any setting of `framegate.Config`. Settings that are not given come from the
            environment, `framegate.toml` or `pyproject.toml`.

    Raises:
        ConfigError: An option is wrong.
        SystemExit: The server failed: with code 3 if it never started, with 1 if it did.

    Example:
        ```python
        if __name__ == "__main__":
            framegate.run("main:app", port=8080, workers=4)
        ```
    """
    if around := is_importing():
        raise WorkerError(
            "framegate.run() was called while the application was being imported",
            cause=f'"{around}" calls it at its top level',
            fix='put the call under: if __name__ == "__main__":',
        )
    config = Config.load({**options, "app": app})
    try:
        code = serve_until_stopped(config, ends_process=False)
    except FramegateError as error:
        print(describe(error), file=sys.stderr)
        code = error.exit_code
    if code:
        raise SystemExit(code)


def serve_alone(
    config: Config, *, toolkit: Toolkit | None = None, ends_process: bool = True
) -> int:
    """Serve in this process.

    Args:
        config: The settings.
        toolkit: What makes the loop and the core; the native ones if None.
        ends_process: Whether nothing comes after this but the end of the process.

    Returns:
        The exit code.

    Raises:
        FramegateError: It never started.
    """
    tools: Toolkit = toolkit or NativeToolkit(owns_process=True)
    listeners = open_listeners(config)
    try:
        admin = open_admin_listeners(config)
        limits_bytes = area_bytes(config, 1)
        segment = open_segment(1, limits_bytes, is_needed=config.needs_runtime_segment)
    except BaseException:
        listeners.close()
        raise
    row = None
    if segment is not None:
        segment.begin(0, os.getpid(), 0)
        row = RowPlace(str(segment.path), 0)

    notifier = Notifier(os.environ)

    status = f"serves {application_name(config)} on {' '.join(listeners.urls)}"

    def ready(worker: object) -> None:
        announce(
            config,
            listeners.urls,
            config.workers,
            tools.build_info(),
            admin.urls,
            listeners.topics_urls,
        )
        logger.info("ready: pid %d", os.getpid())
        notifier.ready(status)
        if notifier.watchdog_seconds is not None:
            feed_watchdog(notifier.watchdog_seconds)

    def feed_watchdog(seconds: float) -> None:
        # From the loop that runs the application: a loop that is blocked is what it shall find.
        notifier.watchdog()
        asyncio.get_running_loop().call_later(seconds, feed_watchdog, seconds)

    @contextlib.contextmanager
    def reloading() -> Iterator[None]:
        notifier.reloading("reads certificates")
        yield
        notifier.ready(status)

    def clean_up() -> None:
        listeners.close()
        admin.close()
        if segment is not None:
            segment.close()

    try:
        return run_worker(
            config,
            listeners.of_worker[0],
            on_ready=ready,
            on_stopping=lambda: notifier.stopping("stopping"),
            reloading=reloading,
            close_listeners=listeners.close,
            counts=listeners.counts,
            toolkit=tools,
            row=row,
            admin=admin.of_worker[0],
            at_force=clean_up,
            ends_process=ends_process,
        )
    except FramegateError:
        raise
    except StopRequested:
        return EXIT_STOPPED
    except Exception:
        logger.exception("the worker failed")
        return EXIT_RUNTIME
    finally:
        clean_up()


class Server:
    """A server with one worker inside another program.

    Args:
        app: `"module:app"`, `"module:factory()"`, or the application itself.
        config: All settings, instead of options.
        **options: Any setting of `framegate.Config`. The environment and files are not read: the
            program that embeds a server decides.

    Raises:
        ConfigError: An option is wrong.
    """

    def __init__(self, app: Any = None, *, config: Config | None = None, **options: Any) -> None:
        if app is not None:
            options["app"] = app
        base = config or Config()
        self.config: Config = base.replace(**options) if options else base
        if reason := self.config.supervised_because:
            value = getattr(self.config, reason)
            raise WorkerError(
                f"a Server has one worker, not {value}"
                if reason == "workers"
                else f"a Server cannot replace its worker, as {reason}={value} asks",
                fix="use framegate.run() or `platform serve`, which have a supervisor",
            )
        if self.config.reload:
            raise WorkerError(
                "a Server cannot reload: it is inside another program",
                fix="use `platform serve --reload`",
            )
        self._toolkit: Toolkit = NativeToolkit()
        self._worker: Worker | None = None
        self._addresses: list[Address] = []
        self._urls: list[str] = []
        self._admin_urls: list[str] = []
        self._topics_urls: list[str] = []

    @property
    def topics_urls(self) -> list[str]:
        """Where topics are served without Python (`topics_bind`). Empty until it accepts."""
        return list(self._topics_urls)

    @property
    def admin_urls(self) -> list[str]:
        """Where operators are answered (`admin_bind`). Empty until it accepts."""
        return list(self._admin_urls)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens: (host, port), or a Unix socket's path. Empty until it accepts."""
        return list(self._addresses)

    @property
    def urls(self) -> list[str]:
        """The same as URLs."""
        return list(self._urls)

    def stop(self) -> None:
        """Ask to stop, from any thread; a second time, to cut what is still open."""
        if self._worker is not None:
            self._worker.stop()

    def reopen_log(self) -> None:
        """Open the file of the access log anew, from any thread; its old one was moved away."""
        if self._worker is not None:
            self._worker.reopen_log()

    def reload_tls(self) -> None:
        """Read certificates, keys and tokens anew, from any thread; connections go on."""
        if self._worker is not None:
            self._worker.reload_tls()

    async def serve(self) -> None:
        """Serve on the running loop until asked to stop by `stop()`, SIGTERM or Ctrl-C.

        Raises:
            WorkerError: The loop is not framegate's.
            StartupFailed: The address cannot be bound, or the application did not start.
        """
        self._check_loop()
        signals = Signals(self.config)
        with contextlib.ExitStack() as stack:
            listeners = open_listeners(self.config)
            stack.callback(listeners.close)
            stack.callback(self._forget_worker)
            row = stack.enter_context(self._serving_operators())
            self._worker = signals.worker = self._new_worker(listeners, lambda: None, row)
            with signals.installed():
                await self._worker.serve()

    def _forget_worker(self) -> None:
        self._worker = None

    @contextlib.contextmanager
    def _serving_operators(self) -> Iterator[RowPlace | None]:
        """Answer operators, if the settings say so; give the row that the worker counts in."""
        if not self.config.needs_runtime_segment:
            yield None
            return
        with contextlib.ExitStack() as stack:
            admin = open_admin_listeners(self.config)
            stack.callback(admin.close)
            segment = open_segment(1, is_needed=True)
            assert segment is not None
            stack.callback(segment.close)
            segment.begin(0, os.getpid(), 0)
            row = RowPlace(str(segment.path), 0)
            sockets = admin.of_worker[0]
            if sockets:
                stack.enter_context(self._toolkit.serve_operators(self.config, sockets, row))
            self._admin_urls = admin.urls
            yield row

    def start_in_thread(self) -> RunningServer:
        """Serve in a thread with a loop of its own; return once it accepts connections.

        Raises:
            StartupFailed: The address cannot be bound, or the application did not start.
        """
        return RunningServer(self)

    def _check_loop(self) -> None:
        ours = asyncio.get_running_loop()
        expected = self._toolkit.event_loop_type()
        if not isinstance(ours, expected):
            kind = f"{type(ours).__module__}.{type(ours).__qualname__}"
            raise WorkerError(
                f"Server.serve() needs framegate's event loop, not {kind}",
                cause="the HTTP core is the selector of its loop",
                fix="run the program with asyncio.Runner(loop_factory=framegate.new_event_loop), "
                "or keep your loop and call Server(app).start_in_thread()",
            )

    def _new_worker(
        self, listeners: Listeners, on_ready: Callable[[], None], row: RowPlace | None
    ) -> Worker:
        def ready() -> None:
            self._addresses, self._urls = listeners.addresses, listeners.urls
            self._topics_urls = listeners.topics_urls
            on_ready()

        self._toolkit.prepare(self.config)
        return Worker(
            load_application(self.config),
            self.config,
            listeners.of_worker[0],
            toolkit=self._toolkit,
            on_ready=ready,
            close_listeners=listeners.close,
            counts=listeners.counts,
            row=row,
        )


class RunningServer:
    """A server in its own thread; a context manager that stops it.

    Example:
        ```python
        with framegate.Server(app, port=0).start_in_thread() as server:
            httpx.get(server.urls[0])
        ```
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._listeners = open_listeners(server.config)
        self._operators = contextlib.ExitStack()
        try:
            row = self._operators.enter_context(server._serving_operators())
            worker = server._new_worker(self._listeners, self._ready.set, row)
            self._worker = server._worker = worker
        except BaseException:
            self._operators.close()
            self._listeners.close()
            raise
        self._thread = threading.Thread(target=self._main, name="framegate server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    @property
    def addresses(self) -> list[Address]:
        """Where it really listens: (host, port), or the path of a Unix socket."""
        return self._server.addresses

    @property
    def urls(self) -> list[str]:
        """The same as URLs."""
        return self._server.urls

    @property
    def topics_urls(self) -> list[str]:
        """Where topics are served without Python (`topics_bind`)."""
        return self._server.topics_urls

    @property
    def admin_urls(self) -> list[str]:
        """Where operators are answered (`admin_bind`)."""
        return self._server.admin_urls

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Stop, and wait until it has: requests may finish, the application shuts down.

        Args:
            timeout_seconds: How long to wait; the grace period and a little if None.

        Raises:
            WorkerError: It failed while it ran, or did not stop in time.
        """
        self._worker.stop()
        grace = self._server.config.timeout_graceful_shutdown
        self._thread.join(2 * grace + 10 if timeout_seconds is None else timeout_seconds)
        if self._thread.is_alive():
            raise WorkerError(
                "the server did not stop in time", cause="a handler blocks its event loop"
            )
        error, self._error = self._error, None
        if error is not None:
            raise WorkerError(f"the server failed: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._server._toolkit.new_event_loop) as runner:
                runner.run(self._worker.serve())
        except BaseException as error:  # handed to the thread that waits for it
            self._error = error
        finally:
            self._operators.close()
            self._listeners.close()
            self._ready.set()
