"""The floor of an ASGI route: its application called with a fixed scope, and little around it.

`app_alone.py module:app --port N --target /path?query`. One thread, blocking in `epoll`; whatever
bytes come are taken for one GET of the target, the coroutine is run to its end (it must not
suspend), and its response is written by one `send`. No parsing, no event loop, no framing checks:
no server that runs the application in Python can cost less.
"""

import argparse
import importlib
import select
import socket
from typing import Any


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", required=True)
    options = parser.parse_args()
    module, _, attribute = options.app.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    path, _, query = options.target.partition("?")
    base = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", options.port),
    }
    answer: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            lines = [b"%b: %b\r\n" % field for field in message["headers"]]
            answer[:] = [b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n"]
        else:
            answer.append(message["body"])

    listener = socket.create_server(("127.0.0.1", options.port), backlog=1024)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poller.register(connection, select.EPOLLIN)
                continue
            connection = connections[fd]
            if not connection.recv(65536):
                poller.unregister(fd)
                connections.pop(fd).close()
                continue
            scope = {**base, "headers": [(b"host", b"127.0.0.1")], "extensions": {}, "state": {}}
            try:
                app(scope, receive, send).send(None)
            except StopIteration:
                connection.sendall(b"".join(answer))
            else:
                raise SystemExit("app_alone: the application suspended: it needs an event loop")


if __name__ == "__main__":
    main()
