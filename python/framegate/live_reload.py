"""Pages in a browser follow the application while it is developed (`--reload` only).

Every HTML page gets one script, from `/.framegate/live.js`, which opens a WebSocket here. The
server says which worker it is; when the connection comes back with another answer, code has
changed and the page loads again. When a template or a style sheet changes the worker stays, and
says `refresh`. A WebSocket and not an event stream: browsers open only six of those to a server.

An application that does not start is replaced by a page that says why, to clients on this machine;
to others it only says that it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from framegate.config import Config
from framegate.errors import ConfigError, FramegateError, describe
from framegate.importer import Application, load_application
from framegate.local_clients import is_local
from framegate.watching import PAGES, Watch, roots

__all__ = ["LiveReload", "broken_application", "load"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SCRIPT_PATH: Final = "/.framegate/live.js"
SOCKET_PATH: Final = "/.framegate/live"
TAG: Final = f'\n<script src="{SCRIPT_PATH}"></script>\n'.encode()
SCRIPT: Final = b"""(() => {
  let worker = null;
  const connect = () => {
    const scheme = location.protocol === "https:" ? "wss://" : "ws://";
    const socket = new WebSocket(scheme + location.host + "%s");
    socket.onmessage = ({ data }) => {
      if (data === "refresh" || (worker !== null && worker !== data)) location.reload();
      else worker = data;
    };
    socket.onclose = () => setTimeout(connect, 100);
  };
  connect();
})();
""".replace(b"%s", SOCKET_PATH.encode())

# Ways around `http.response.body`: with them there is nothing that a script could be added to.
_SHORTCUTS: Final = ("http.response.pathsend", "http.response.zerocopysend")


def load(config: Config) -> Application:
    """Import the application, as `load_application` does, with the script for its pages."""
    return LiveReload(load_application(config), config)


class LiveReload:
    """ASGI middleware.

    Args:
        application: The application.
        config: The settings; what they say about watching counts for templates, too.
    """

    def __init__(self, application: Application, config: Config) -> None:
        self._application = application
        self._config = config
        self._worker = f"{os.getpid()}-{time.time_ns()}"
        self._browsers: set[asyncio.Event] = set()
        self._is_watching = False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve the script and its WebSocket; everything else is the application's."""
        path = scope.get("path")
        if scope["type"] == "http" and path == SCRIPT_PATH:
            await _answer(send, 200, b"text/javascript", SCRIPT)
        elif scope["type"] == "websocket" and path == SOCKET_PATH:
            await self._tell(receive, send)
        elif scope["type"] == "http":
            kept = {k: v for k, v in scope.get("extensions", {}).items() if k not in _SHORTCUTS}
            is_get = scope["method"] == "GET"
            scope = {**scope, "extensions": kept}
            await self._application(scope, receive, _add_script(send) if is_get else send)
        else:
            await self._application(scope, receive, send)

    async def _tell(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": self._worker})
        self._watch()
        changed = asyncio.Event()
        self._browsers.add(changed)
        gone = asyncio.ensure_future(_wait_for_end(receive))
        try:
            while not gone.done():
                waiter = asyncio.ensure_future(changed.wait())
                await asyncio.wait({gone, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                if changed.is_set():
                    changed.clear()
                    await send({"type": "websocket.send", "text": "refresh"})
        except OSError:
            pass  # the browser has just gone
        finally:
            self._browsers.discard(changed)
            gone.cancel()

    def _watch(self) -> None:
        """Look for changed templates, from the first browser on."""
        if self._is_watching:
            return
        self._is_watching = True
        loop = asyncio.get_running_loop()
        config = self._config
        excludes = (*config.reload_excludes, *config.reload_includes)
        # Templates often lie beside the package, not in it.
        beside = [] if config.reload_dirs else [os.path.abspath(config.app_dir)]
        try:
            watch = Watch([*roots(config), *beside], PAGES, excludes, config.reload_delay)
        except ConfigError:  # too much lies there
            watch = Watch(roots(config), PAGES, excludes, config.reload_delay)

        def run() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                for _ in watch.changes():
                    loop.call_soon_threadsafe(self._refresh)

        threading.Thread(target=run, name="framegate watch", daemon=True).start()

    def _refresh(self) -> None:
        for changed in self._browsers:
            changed.set()


def _add_script(send: Send) -> Send:
    """Return a `send` that puts the script at the end of HTML pages."""
    is_page = False

    async def wrapped(message: Message) -> None:
        nonlocal is_page
        if message["type"] == "http.response.start":
            headers = [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())]
            names = dict(headers)
            is_page = names.get(b"content-type", b"").lower().startswith(b"text/html") and (
                b"content-encoding" not in names and message["status"] not in (204, 304)
            )
            if is_page and b"content-length" in names:
                length = str(int(names[b"content-length"]) + len(TAG)).encode()
                headers = [(n, length if n == b"content-length" else v) for n, v in headers]
                message = {**message, "headers": headers}
        elif is_page and message["type"] == "http.response.body" and not message.get("more_body"):
            message = {**message, "body": bytes(message.get("body", b"")) + TAG}
        await send(message)

    return wrapped


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", kind + b"; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def broken_application(error: FramegateError, config: Config) -> Application:
    """Return what is served in place of an application that does not start."""
    text = describe(error)

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            shown = text if is_local(scope) else "See the log of the server."
            page = _PAGE.format(text=html.escape(shown)).encode()
            await _answer(send, 500, b"text/html", page)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1011})
        else:  # lifespan, framegate.worker: it starts and stops without a word
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind.endswith(".shutdown"):
                    return

    return LiveReload(application, config)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The application does not start</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
pre {{ overflow: auto; padding: 1rem; border: 1px solid #888; border-radius: .4rem }}
</style></head><body>
<h1>The application does not start</h1>
<pre>{text}</pre>
<p>This page loads again as soon as a file is saved.</p>
</body></html>
"""
