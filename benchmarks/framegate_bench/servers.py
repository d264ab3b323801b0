"""How each server is started: one worker, no access log, its fastest published settings.

More workers where a question is about that.
"""

import sys

from framegate_bench.question import Consumer, Server


def framegate(
    app: str,
    consumer: Consumer | None = None,
    options: tuple[str, ...] = (),
    *,
    name: str = "framegate",
    access_log: bool = False,
    workers: int = 1,
) -> Server:
    """framegate, in its defaults but for the options and the log."""
    common = ("--host", "127.0.0.1", "--port", "{port}", "--workers", str(workers))
    log = () if access_log else ("--no-access-log",)
    command = ("{bin}/platform", "serve", app, *common, *log, *options)
    return Server(name, "framegate", command, consumer)


def granian(
    app: str,
    options: tuple[str, ...] = (),
    consumer: Consumer | None = None,
    *,
    workers: int = 1,
) -> Server:
    """granian by ASGI on uvloop; `st` and `mt` are equal on one core."""
    common = (
        "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}",
        "--workers", str(workers), "--no-access-log", "--log-level", "error", "--loop", "uvloop",
        "--runtime-mode", "st",
    )  # fmt: skip
    return Server("granian", "granian", ("{bin}/granian", *common, *options, app), consumer)


def uvicorn(app: str, consumer: Consumer | None = None, *, workers: int = 1) -> Server:
    """uvicorn[standard]: httptools, uvloop, websockets."""
    options = (
        "--host", "127.0.0.1", "--port", "{port}", "--workers", str(workers), "--no-access-log",
        "--log-level", "error", "--http", "httptools", "--loop", "uvloop", "--ws", "websockets",
        "--timeout-keep-alive", "75",
    )  # fmt: skip
    return Server("uvicorn", "uvicorn", ("{bin}/uvicorn", *options, app), consumer)


def by_asgi(app: str, *, workers: int = 1) -> dict[str, Server]:
    """One application on every server of ASGI that is measured, by name."""
    found = (make(app, workers=workers) for make in (framegate, granian, uvicorn))
    return {server.name: server for server in found}


def nginx(folder: str) -> Server:
    """nginx of the system, with one process; files of one folder at /static/."""
    return Server("nginx", None, (sys.executable, "nginx_static.py", "{port}", folder))


def receive(*, copies: bool = False) -> Server:
    """The floor of the frame path: the body read into warm memory, by blocking reads, in Rust."""
    command = ("{bin}/receive", "--port", "{port}")
    if copies:
        return Server("recv() and memcpy", None, (*command, "--copy", "1"))
    return Server("recv() alone", None, command)


def app_alone(app: str, target: str) -> Server:
    """The floor of an ASGI route: its coroutine, `recv` and `send`."""
    command = ("{bin}/python", "app_alone.py", app, "--port", "{port}", "--target", target)
    return Server("app alone", "framegate", command)


def codec(name: str) -> Server:
    """A WebSocket codec in Rust, with nothing around it."""
    return Server(name, "native-websocket", ("{bin}/websocket_codec", name, "--port", "{port}"))


def hyper() -> Server:
    """The limit: one thread of bare hyper, no Python."""
    return Server("hyper", None, ("{bin}/limit", "--port", "{port}"))


def _script(name: str, *options: str) -> Server:
    command = ("{bin}/python", f"{name}_app.py", "{port}", *options)
    return Server(name, name, command)


def robyn() -> Server:
    """robyn: one process, one worker, no log, no pages of its own."""
    options = ("--processes", "1", "--workers", "1", "--log-level", "ERROR", "--disable-openapi")
    return _script("robyn", *options)


def spikard() -> Server:
    """spikard, which has no options that `App.run` looks at."""
    return _script("spikard")


def socketify() -> Server:
    """socketify, by its native routes."""
    return _script("socketify")
