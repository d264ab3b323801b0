"""What `receive()` gives, when it waits, and what cancelling it costs: nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from asgiref.wsgi import WsgiToAsgi

from apps import echo, read_body, respond
from peers.h11_client import Client
from peers.raw import head, read_all, read_head


def test_a_request_without_a_body_has_one_empty_event(serve: Any) -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        events.append(await receive())
        await respond(send)
        events.append(await receive())
        events.append(await receive())

    with Client(serve(app, lifespan="off").connect()) as client:
        client.request("GET")
        client.request("GET")
    one = [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
        {"type": "http.disconnect"},
    ]
    assert events[:3] == one


@pytest.mark.parametrize("size", [1, 1000, 65536, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_arrive_whole(serve: Any, size: int, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    server = serve(echo, lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(2):
            body: Any = [data[: size // 2], data[size // 2 :]] if chunked else data
            client.send("POST", body=body)
            assert client.response().body == data


class Observed:
    """An awaitable that counts how often it suspends who waits for it."""

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable
        self.suspensions = 0

    def __await__(self) -> Any:
        inner = self.awaitable.__await__()
        while True:
            try:
                waits_for = inner.send(None)
            except StopIteration as done:
                return done.value
            self.suspensions += 1
            yield waits_for


@pytest.mark.parametrize("field", ["accept: */*", "expect: 100-continue"])
def test_a_small_body_that_came_with_its_head_is_not_waited_for(serve: Any, field: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = Observed(receive())
        event = await first
        seen.append((first.suspensions, event["body"], event["more_body"]))
        await respond(send)

    server = serve(app, lifespan="off")
    request = head("POST", "/", "content-length: 3", "connection: close", field) + b"abc"
    for _ in range(2):
        with server.connect() as peer:
            peer.sendall(request)
            assert b" 200 OK\r\n" in read_all(peer)
    waits = 0 if field.startswith("accept") else 1
    assert seen == [(waits, b"abc", False)] * 2


def test_more_body_is_false_with_the_last_byte_of_a_known_length(serve: Any) -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        events.append(await receive())
        await respond(send)

    with Client(serve(app, lifespan="off").connect()) as client:
        client.request("POST", body=b"abc")
    assert events == [{"type": "http.request", "body": b"abc", "more_body": False}]


def test_chunks_are_given_out_as_they_arrive(serve: Any) -> None:
    got = threading.Semaphore(0)
    parts: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            parts.append(event["body"])
            got.release()
            if not event["more_body"]:
                break
        await respond(send)

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("POST", "/", "transfer-encoding: chunked", "connection: close"))
        for part in (b"one", b"two", b"three"):
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            assert got.acquire(timeout=10)
            assert parts[-1] == part
        client.sendall(b"0\r\n\r\n")
        assert b"200 OK" in read_all(client)
    assert parts == [b"one", b"two", b"three", b""]


def test_100_continue_is_sent_when_the_application_reads(serve: Any) -> None:
    go_on = asyncio.Event()
    waiting = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/read":
            waiting.set()
            await go_on.wait()
            await respond(send, await read_body(receive))
        else:
            await respond(send, b"not read", status=413)

    server = serve(app, lifespan="off")
    fields = ("expect: 100-continue", "content-length: 3")
    with server.connect() as client:
        client.sendall(head("POST", "/read", *fields, "connection: close"))
        assert waiting.wait(10)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        server.loop.call_soon_threadsafe(go_on.set)
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_all(client).endswith(b"abc")
    with server.connect() as client:
        client.sendall(head("POST", "/", *fields))
        assert read_head(client).startswith(b"HTTP/1.1 413 ")


def test_the_socket_is_not_read_while_the_application_does_not_receive(serve: Any) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await respond(send, str(len(await read_body(receive))).encode())

    server = serve(app, lifespan="off")
    size = 64 * 2**20
    with server.connect() as client:
        client.sendall(head("POST", "/", f"content-length: {size}", "connection: close"))
        client.setblocking(False)
        sent, block, idle = 0, bytes(2**20), 0
        # The kernel takes what it has buffers for, and then no more.
        while idle < 3:
            try:
                sent += client.send(block[: size - sent])
                idle = 0
            except BlockingIOError:
                server.submit(lambda: asyncio.sleep(0.02))
                idle += 1
            assert sent < size, "everything was taken though nobody reads"
        server.loop.call_soon_threadsafe(go_on.set)
        client.settimeout(20)
        while sent < size:
            sent += client.send(block[: size - sent])
        assert read_all(client).endswith(str(size).encode())


def test_a_broken_chunked_body_ends_with_a_disconnect(serve: Any) -> None:
    events: list[Any] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not events or events[-1]["type"] != "http.disconnect":
            events.append(await receive())
        done.set()

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("POST", "/", "transfer-encoding: chunked") + b"3\r\nabc\r\nZ\r\n")
        assert done.wait(10)
    assert [event["type"] for event in events] == ["http.request", "http.disconnect"]


# --- two at once


def test_two_receives_at_once_are_an_error_while_the_body_is_open(serve: Any) -> None:
    caught: list[str] = []
    raised = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        try:
            await receive()
        except RuntimeError as error:
            caught.append(str(error))
        raised.set()
        event = await first
        await respond(send, event["body"])

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("POST", "/", "content-length: 3", "connection: close"))
        assert raised.wait(10)
        client.sendall(b"abc")
        assert read_all(client).endswith(b"abc")
    assert caught == [
        "receive() is already being awaited: the request body can be read by one task at a time"
    ]


def test_any_number_may_wait_for_the_disconnect(serve: Any) -> None:
    events: list[Any] = []
    waiting, done = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        tasks = [asyncio.create_task(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.set()
        events.extend(await asyncio.gather(*tasks))
        done.set()

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("GET", "/"))
        assert waiting.wait(10)
    assert done.wait(10)
    assert events == [{"type": "http.disconnect"}] * 3


# --- cancellation


async def wait_for(receive: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(receive(), 0.01)


async def wait_for_nothing(receive: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(receive(), 0)


async def timeout(receive: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await receive()


async def cancel_scope(receive: Any) -> None:
    with anyio.move_on_after(0.01) as scope:
        await receive()
    assert scope.cancelled_caught


async def cancelled_scope(receive: Any) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await receive()


async def task(receive: Any) -> None:
    waiting = asyncio.create_task(receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def task_that_never_ran(receive: Any) -> None:
    waiting = asyncio.create_task(receive())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def never_awaited(receive: Any) -> None:
    receive()
    receive().close()


async def shielded(receive: Any) -> None:
    waiting = asyncio.ensure_future(receive())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


WAYS = [
    wait_for,
    wait_for_nothing,
    timeout,
    cancel_scope,
    cancelled_scope,
    task,
    task_that_never_ran,
    never_awaited,
    shielded,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_cancelled_receive_loses_nothing(serve: Any, way: Any) -> None:
    cancelled = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await way(receive)
        cancelled.set()
        await respond(send, await read_body(receive))

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("POST", "/", "content-length: 10", "connection: close"))
        assert cancelled.wait(10)
        client.sendall(b"0123456789")
        assert read_all(client).endswith(b"0123456789")


@pytest.mark.parametrize(
    "way", [wait_for_nothing, task_that_never_ran, never_awaited], ids=lambda way: way.__name__
)
def test_a_receive_that_never_ran_takes_nothing(serve: Any, way: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await way(receive)
        await respond(send, await read_body(receive))

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("POST", body=b"abc").body == b"abc"


def test_cancelling_again_and_again_while_chunks_arrive_loses_none(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            waiting = asyncio.ensure_future(receive())
            for _ in range(3):
                await asyncio.sleep(0)
            if not waiting.done():
                waiting.cancel()
            try:
                event = await waiting
            except asyncio.CancelledError:
                continue
            body += event["body"]
            more = event["more_body"]
        await respond(send, body)

    data = b"".join(b"%06d" % number for number in range(2000))
    with serve(app, lifespan="off").connect() as client:
        fields = (f"content-length: {len(data)}", "connection: close")
        client.sendall(head("POST", "/", *fields))
        for start in range(0, len(data), 600):
            client.sendall(data[start : start + 600])
        assert read_all(client).endswith(data)


def test_an_awaitable_can_be_awaited_once(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pending = receive()
        await pending
        with pytest.raises(RuntimeError, match="already awaited"):
            await pending
        await respond(send)

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").status == 200


def test_send_and_receive_are_coroutines_to_everybody(serve: Any) -> None:
    import inspect

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pending = receive()
        assert asyncio.iscoroutine(pending)
        assert inspect.isawaitable(pending)
        assert not asyncio.isfuture(pending)
        assert (await asyncio.gather(pending))[0]["type"] == "http.request"
        start = {"type": "http.response.start", "status": 200}
        await asyncio.create_task(send(start))
        await asyncio.wait_for(send({"type": "http.response.body", "body": b"x"}), 1)

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"x"


def test_another_thread_may_call_but_only_the_loop_awaits(serve: Any) -> None:
    """As with an `async def`. Adapters of synchronous code call `send` on their thread."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        start = {"type": "http.response.start", "status": 200}

        def use() -> None:
            for call in (receive, lambda: send(start)):
                with pytest.raises(RuntimeError, match="another thread"):
                    asyncio.run(await_elsewhere(call))
            asyncio.run_coroutine_threadsafe(send(start), loop).result(20)

        await asyncio.to_thread(use)
        await send({"type": "http.response.body", "body": b"here"})

    async def await_elsewhere(call: Any) -> None:
        await call()

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"here"


@pytest.mark.filterwarnings("ignore:async_to_sync was passed")
def test_a_wsgi_adapter_that_sends_from_a_thread(serve: Any) -> None:
    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("x-path", environ["PATH_INFO"])])
        yield b"one, "
        yield b"two"

    with Client(serve(WsgiToAsgi(wsgi), lifespan="off").connect()) as client:
        response = client.request("GET", "/here")
        assert response.body == b"one, two"
