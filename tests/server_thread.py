"""A server on a thread of the test's process: quick to start, and its state can be looked into."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from framegate import _http
from framegate.config import Config
from framegate.lifespan import Lifespan
from framegate.listener import start_listening
from framegate.loop import new_event_loop

STARTUP_SECONDS = 30.0


@dataclass
class Server:
    """A server on a thread of this process, with a loop of its own.

    `submit` runs a coroutine function on the loop and returns its result; `unhandled` is what the
    loop's exception handler was told, which has to be nothing unless a test says otherwise.
    `port` and `uds` are of the application's listener, or of `topics_bind` where that is set:
    of two listeners, a test has the one that it is about.
    """

    app: Any
    config: Config
    plain_tasks: bool
    uds: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    loop: asyncio.AbstractEventLoop | None = None
    worker: Any = None
    unhandled: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.host}:{self.port}"

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """Open a raw connection."""
        if self.uds is not None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout)
            connection.connect(self.uds)
            return connection
        connection = socket.create_connection((self.host, self.port))
        connection.settimeout(timeout)
        return connection

    def submit(self, function: Callable[[], Any]) -> Any:
        """Call a function on the server's loop, await what it returns if it is awaitable."""
        assert self.loop is not None

        async def call() -> Any:
            result = function()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(20)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._thread.start()
        assert self._ready.wait(STARTUP_SECONDS), "the server did not start"
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        assert self._thread is not None
        if self._thread.is_alive() and self.loop is not None and self._stop is not None:
            # An application may have ended the loop just now.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not stop"
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self._stop = asyncio.Event()
        lifespan = Lifespan(self.app, self.config.lifespan)
        await lifespan.startup(20)
        # The worker captures the context it is made in: the one that startup has filled.
        make = lifespan.context.run
        self.worker = make(self._make_worker, lifespan)
        entry = "tls" if self.config.ssl_certfile else "plain"
        topics = bool(self.config.topics_bind)
        self.worker.listen(self._listen().detach(), entry=entry, topics=topics)
        self._ready.set()
        try:
            await self._stop.wait()
            await self.worker.drain(5.0)
            self.worker.close()
        finally:
            await lifespan.shutdown(5)

    def _make_worker(self, lifespan: Lifespan) -> Any:
        return _http.Worker(
            self.app,
            self.config,
            state=lifespan.state if self.config.lifespan != "off" else None,
            plain_tasks=self.plain_tasks,
            tls=_http.TlsContext(self.config) if self.config.ssl_certfile else None,
        )

    def _listen(self) -> socket.socket:
        if self.uds is not None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.uds)
        else:
            listener = socket.socket(socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, 0))
            self.port = listener.getsockname()[1]
        start_listening([listener], 1024)
        return listener


Serve = Callable[..., Server]
"""What the fixture `serve` gives."""
