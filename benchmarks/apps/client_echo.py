"""One WebSocket client against an echo: messages per second, and CPU time of each.

A client is a function that echoes until a time has come, and says how many messages came back.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE_S = 60.0
WARM_UP_S = 0.3
LOOK_EVERY = 64
"""Messages between two looks at the clock."""


class Count:
    """How many messages came back, of which the first are not counted."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.messages = 0
        self.begins = time.perf_counter() + WARM_UP_S
        self.started: tuple[float, float, int] | None = None
        self.result: dict[str, float] | None = None

    def goes_on(self) -> bool:
        """Note a message; False when the time is over."""
        self.messages += 1
        return self.messages % LOOK_EVERY != 0 or self._look()

    def _look(self) -> bool:
        now = time.perf_counter()
        if self.started is None:
            if now >= self.begins:
                self.started = now, time.process_time(), self.messages
            return True
        began, cpu_then, before = self.started
        if now - began < self.seconds:
            return True
        count = self.messages - before
        self.result = {
            "messages_per_s": count / (now - began),
            "cpu_us": (time.process_time() - cpu_then) / count * 1e6,
        }
        return False


def framegate_threads(url: str, data: bytes, under_way: int, count: Count) -> None:
    from framegate.client import connect

    with connect(url, compression=False, proxy=None) as websocket:
        send, recv = websocket.send, websocket.recv
        for _ in range(under_way):
            send(data)
        while recv() and count.goes_on():
            send(data)


async def framegate_asyncio(url: str, data: bytes, under_way: int, count: Count) -> None:
    from framegate.client import connect_async

    async with connect_async(url, compression=False, proxy=None) as websocket:
        send, recv = websocket.send, websocket.recv
        for _ in range(under_way):
            await send(data)
        while await recv() and count.goes_on():
            await send(data)


def websockets_threads(url: str, data: bytes, under_way: int, count: Count) -> None:
    from websockets.sync.client import connect

    with connect(url, compression=None, proxy=None, max_size=None) as websocket:
        for _ in range(under_way):
            websocket.send(data)
        while websocket.recv() and count.goes_on():
            websocket.send(data)


async def websockets(url: str, data: bytes, under_way: int, count: Count) -> None:
    from websockets.asyncio.client import connect

    async with connect(url, compression=None, proxy=None, max_size=None) as websocket:
        send, recv = websocket.send, websocket.recv
        for _ in range(under_way):
            await send(data)
        while await recv() and count.goes_on():
            await send(data)


async def aiohttp(url: str, data: bytes, under_way: int, count: Count) -> None:
    from aiohttp import ClientSession

    async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as websocket:
        send, receive = websocket.send_bytes, websocket.receive_bytes
        for _ in range(under_way):
            await send(data)
        while await receive() and count.goes_on():
            await send(data)


async def picows(url: str, data: bytes, under_way: int, count: Count) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Echo(WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: WSTransport) -> None:
            for _ in range(under_way):
                transport.send(WSMsgType.BINARY, data)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            # As bytes, as all others give it out; when it is over what comes is let go.
            if frame.get_payload_as_bytes() and count.result is None:
                if count.goes_on():
                    transport.send(WSMsgType.BINARY, data)
                else:
                    transport.disconnect()

    transport, _ = await ws_connect(Echo, url)
    await transport.wait_disconnected()


Run = Callable[[str, bytes, int, Count], Awaitable[None]]


def on_uvloop(run: Run) -> Callable[..., None]:
    """The client on the fastest loop of the rivals."""

    def start(*arguments: Any) -> None:
        import uvloop

        uvloop.run(run(*arguments))

    return start


def on_asyncio(run: Run) -> Callable[..., None]:
    """The client on the standard library's loop."""
    return lambda *arguments: asyncio.run(run(*arguments))  # type: ignore[arg-type]


def on_our_loop(run: Run) -> Callable[..., None]:
    """The client on framegate's loop."""

    def start(*arguments: Any) -> None:
        import framegate

        with asyncio.Runner(loop_factory=framegate.new_event_loop) as runner:
            runner.run(run(*arguments))  # type: ignore[arg-type]

    return start


CLIENTS: dict[str, Callable[..., None]] = {
    "framegate-threads": framegate_threads,
    "framegate-asyncio": on_asyncio(framegate_asyncio),
    "framegate-loop": on_our_loop(framegate_asyncio),
    "websockets-threads": websockets_threads,
    "websockets": on_uvloop(websockets),
    "aiohttp": on_uvloop(aiohttp),
    "picows": on_uvloop(picows),
}


def main() -> None:
    """Start the server on its core, and be the client on the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("server", help="the program that echoes at /ws")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--under-way", type=int, required=True)
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, default=5.0)
    words = parser.parse_args()
    server_core, client_core = map(int, words.cores.split(","))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        ["taskset", "-c", str(server_core), words.server, "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "no server"
                time.sleep(0.05)
        os.sched_setaffinity(0, {client_core})
        count = Count(words.seconds)
        url = f"ws://127.0.0.1:{port}/ws"
        CLIENTS[words.client](url, bytes(words.bytes), words.under_way, count)
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
    assert count.result is not None, "the echo ended"
    print(json.dumps(count.result))


if __name__ == "__main__":
    main()
