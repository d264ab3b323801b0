"""How each server is started: one worker, no access log, its fastest published settings."""

import sys

from framegate_bench.question import Consumer, Server


def framegate(
    app: str,
    consumer: Consumer | None = None,
    options: tuple[str, ...] = (),
    *,
    name: str = "framegate",
    access_log: bool = False,
) -> Server:
    """framegate, in its defaults but for the options and the log."""
    common = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "1")
    log = () if access_log else ("--no-access-log",)
    command = ("{bin}/platform", "serve", app, *common, *log, *options)
    return Server(name, "framegate", command, consumer)


def granian(app: str, options: tuple[str, ...] = ()) -> Server:
    """granian by ASGI on uvloop; `st` and `mt` are equal on one core."""
    common = (
        "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1",
        "--no-access-log", "--log-level", "error", "--loop", "uvloop", "--runtime-mode", "st",
    )  # fmt: skip
    return Server("granian", "granian", ("{bin}/granian", *common, *options, app))


def uvicorn(app: str, consumer: Consumer | None = None) -> Server:
    """uvicorn[standard]: httptools, uvloop, websockets."""
    options = (
        "--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--no-access-log",
        "--log-level", "error", "--http", "httptools", "--loop", "uvloop", "--ws", "websockets",
        "--timeout-keep-alive", "75",
    )  # fmt: skip
    return Server("uvicorn", "uvicorn", ("{bin}/uvicorn", *options, app), consumer)


def nginx(folder: str) -> Server:
    """nginx of the system, with one process; files of one folder at /static/."""
    return Server("nginx", None, (sys.executable, "nginx_static.py", "{port}", folder))


def receive() -> Server:
    """The floor of the frame path: the body read into warm memory, by blocking reads, in Rust."""
    return Server("recv() alone", None, ("{bin}/receive", "--port", "{port}"))


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
