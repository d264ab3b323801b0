"""A core in 100 lines of asyncio with the interface of `_http.Worker`, and commands that use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any


class Core:
    def __init__(self, app: Any, config: Any, *, state: dict[str, Any]) -> None:
        self.app, self.state = app, state
        self.loop = asyncio.get_running_loop()
        self.accepting: list[asyncio.Task[None]] = []
        self.sockets: list[socket.socket] = []
        self.open: set[asyncio.Task[None]] = set()

    def listen(self, fd: int) -> None:
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        self.sockets.append(listener)
        self.accepting.append(self.loop.create_task(self.accept(listener)))

    async def accept(self, listener: socket.socket) -> None:
        while True:
            peer, _ = await self.loop.sock_accept(listener)
            task = self.loop.create_task(self.serve(peer))
            self.open.add(task)
            task.add_done_callback(self.open.discard)

    async def serve(self, peer: socket.socket) -> None:
        with peer:
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = await self.loop.sock_recv(peer, 65536)
                if not chunk:
                    return
                head += chunk
            path = head.split(b" ")[1].decode()
            scope = {"type": "http", "path": path, "state": dict(self.state)}

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    start = f"HTTP/1.1 {message['status']} X\r\nconnection: close\r\n\r\n"
                    await self.loop.sock_sendall(peer, start.encode())
                else:
                    await self.loop.sock_sendall(peer, message.get("body", b""))

            await self.app(scope, receive, send)

    def stop_accepting(self) -> None:
        for task in self.accepting:
            task.cancel()
        for listener in self.sockets:
            listener.close()

    async def drain(self, seconds: float) -> int:
        if self.open:
            await asyncio.wait(self.open, timeout=seconds)
        return len(self.open)

    def close(self) -> None:
        for task in self.open:
            task.cancel()


class StandIn:
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def event_loop_type(self) -> type[asyncio.AbstractEventLoop]:
        return asyncio.SelectorEventLoop

    def new_core(self, app: Any, config: Any, *, state: dict[str, Any]) -> Any:
        return Core(app, config, state=state)

    def build_info(self) -> dict[str, Any]:
        from framegate.build import python_info

        return {"profile": "dev", **python_info()}


def main() -> int:
    command, *words = sys.argv[1:]
    if command == "worker":
        from framegate.worker import main

        return main(words, toolkit=StandIn())

    import framegate.server
    import framegate.supervisor
    from framegate.cli import main as cli_main

    framegate.server.NativeToolkit = StandIn  # type: ignore[assignment,misc]
    framegate.supervisor._worker_command = lambda: [sys.executable, "-P", __file__, "worker"]
    return cli_main([command, *words])


if __name__ == "__main__":
    with contextlib.suppress(ValueError):
        sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(main())
