"""How applications end (exceptions, returns, work behind the response); connections go on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from .cases_scope import whole
from .cases_send import body, sends, start
from .registry import H1, case, check

if TYPE_CHECKING:
    from .peer import Peer


def raises(name: str, title: str, error: BaseException, *messages: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
        for message in messages:
            await send(message)
        raise error

    case(name, title)(app)


raises("raise-first", "an exception before the start is 500", ValueError("boom"))


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.status, response.complete) == (500, True)


raises(
    "raise-after-start",
    "an exception between start and body is 500, or a cut",
    ValueError("boom"),
    start(),
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert response.status == 500 or not response.complete
    assert peer.request().status in (0, 200, 500)


raises(
    "raise-in-stream",
    "an exception in mid-stream cuts the response",
    ValueError("boom"),
    start(),
    body(b"part", True),
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert not peer.request().complete


raises(
    "raise-in-length",
    "an exception in mid-stream of known length cuts the response",
    ValueError("boom"),
    start(headers=[(b"content-length", b"10")]),
    body(b"part", True),
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert not peer.request().complete


raises(
    "raise-after-end",
    "an exception behind the response does not touch it",
    ValueError("boom"),
    start(),
    body(b"ok"),
)


@check
def _(peer: Peer) -> None:
    for _ in range(3):
        response = peer.request()
        assert (response.body, response.complete) == (b"ok", True)
        peer.close()  # some servers do so as well, and say nothing


raises("raise-cancelled", "CancelledError of the application is 500", asyncio.CancelledError())


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert response.status == 500 or not response.complete


raises(
    "raise-group",
    "an exception group is 500",
    ExceptionGroup("several", [ValueError("boom"), TypeError("boom")]),
)


@check
def _(peer: Peer) -> None:
    assert peer.request().status == 500


case("return-first", "a return without a response is 500")(sends())


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.status, response.complete) == (500, True)


case("return-after-start", "a return between start and body is 500, or a cut")(sends(start()))


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert response.status == 500 or not response.complete


case("return-in-stream", "a return in mid-stream cuts the response")(
    sends(start(), body(b"part", True))
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert not peer.request().complete


@case("background", "the response does not wait for work behind it")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, b"done")
    await asyncio.sleep(0.3)
    note("worked")


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"done"
    assert peer.notes() == ["worked"]


@case("background-after-leaving", "work behind the response goes on when the client leaves")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, b"done")
    await asyncio.sleep(0.2)
    note("worked")


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"done"
    peer.reset()
    assert peer.notes() == ["worked"]


@case("not-cancelled", "an application is not cancelled when its client leaves")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await asyncio.sleep(0.3)
    note("went on")
    with contextlib.suppress(OSError):
        await whole(send)


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    peer.wait_started()
    pending.cancel()
    assert peer.notes() == ["went on"]


@case("current-task", "an application runs in a task")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    task = asyncio.current_task()
    assert task is not None and not task.done()
    await whole(send)


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"ok"


@case("timeout", "asyncio.timeout works, also around `receive()`")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await receive()
    try:
        async with asyncio.timeout(0.05):
            await receive()
    except TimeoutError:
        await whole(send, b"timed out")


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"timed out"


@case("task-group", "a task group may hold `receive()` and cancel it")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        await send(start())
        for _ in range(3):
            await asyncio.sleep(0.01)
            await send(body(b"tick", True))
        await send(body())
        watcher.cancel()


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.body, response.complete) == (b"tick" * 3, True)


@case("send-from-task", "another task may send")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await asyncio.gather(*(asyncio.create_task(send(body(b"x", True))) for _ in range(5)))
    await send(body())


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"x" * 5


case("keep-alive", "a connection serves a hundred requests")(sends(start(), body(b"ok")))


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"ok"
    link = peer.link
    for _ in range(99):
        assert peer.request().body == b"ok"
    assert peer.link is link


@case("pipelining", "pipelined requests are answered in order", H1)
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await asyncio.sleep(0.1 if b"slow" in scope["raw_path"] else 0)
    await whole(send, scope["raw_path"].rpartition(b"/")[2])


@check
def _(peer: Peer) -> None:
    heads = [peer.head("GET", peer.path(f"/{name}")) for name in ("slow", "1", "slow", "2")]
    data = peer.raw(b"".join(heads) + peer.head("GET", peer.path("/3"), "connection: close"))
    answers = [part.partition(b"\r\n\r\n")[2] for part in data.split(b"HTTP/1.1 200")[1:]]
    assert answers == [b"slow", b"1", b"slow", b"2", b"3"]


case("close-asked", "`connection: close` of the client closes", H1)(sends(start(), body(b"ok")))


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path(), "connection: close"))
    assert b"connection: close" in data.lower()


case("http-1.0-closes", "HTTP/1.0 is closed unless the client asks", H1)(
    sends(start(headers=[(b"content-length", b"2")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.raw(peer.head("GET", peer.path(), version="1.0")).endswith(b"ok")


@case("slow-neighbour", "a request that waits does not hold up another connection")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    if scope["raw_path"].endswith(b"/wait"):
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
    await whole(send)


@check
def _(peer: Peer) -> None:
    pending = peer.start(rest="/wait")
    with peer.another() as other:
        assert other.request().body == b"ok"
    pending.cancel()
