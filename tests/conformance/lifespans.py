"""Cases of the lifespan: each is an application of its own, and what becomes of its server.

The applications are `conformance.lifespans:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .process import Running

__all__ = ["LIFESPANS", "Start"]

Start = Callable[[str], "Running"]

#: Title and check by the name of the application.
LIFESPANS: dict[str, tuple[str, Callable[[Start], None]]] = {}


def lifespan(title: str) -> Callable[[Callable[[Start], None]], Callable[[Start], None]]:
    def register(check: Callable[[Start], None]) -> Callable[[Start], None]:
        LIFESPANS[check.__name__.removeprefix("check_")] = (title, check)
        return check

    return register


async def _answer(send: Any, body: bytes = b"ok") -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _get(server: Running) -> bytes:
    from .peer import Peer  # a server under test has no h11

    with Peer("h1", server.port, "lifespan", server.directory.name) as peer:
        return peer.request(target="/").body


async def raises(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    await _answer(send)


@lifespan("an application that raises in its lifespan is served without one")
def check_raises(start: Start) -> None:
    server = start("raises").wait_ready()
    assert _get(server) == b"ok"


async def returns(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await _answer(send)


@lifespan("an application that returns from its lifespan at once is served without one")
def check_returns(start: Start) -> None:
    server = start("returns").wait_ready()
    assert _get(server) == b"ok"


async def fails(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})


@lifespan("`lifespan.startup.failed` ends the server with a status that is not 0, and is logged")
def check_fails(start: Start) -> None:
    server = start("fails")
    assert server.wait() not in (0, None)
    assert "no database" in server.text


seen: list[str] = []


async def completes(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        seen.append(scope["asgi"]["version"])
        seen.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        print((await receive())["type"], "was seen", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await _answer(send, " ".join(seen).encode())


@lifespan("startup comes before requests, shutdown at SIGTERM, which ends the server with 0")
def check_completes(start: Start) -> None:
    server = start("completes").wait_ready()
    assert _get(server) == b"3.0 lifespan.startup"
    status = server.stop()
    assert "lifespan.shutdown was seen" in server.text
    assert status == 0, f"exit status {status}"


async def fails_late(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "still busy"})
        return
    await _answer(send)


@lifespan("`lifespan.shutdown.failed` is logged")
def check_fails_late(start: Start) -> None:
    server = start("fails_late").wait_ready()
    assert _get(server) == b"ok"
    server.stop()
    assert "still busy" in server.text
