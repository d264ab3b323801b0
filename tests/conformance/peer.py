"""The client of the cases: one interface, HTTP/1.1 by h11 or HTTP/2 by h2, over TCP or TLS."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h11

__all__ = ["Peer", "Response"]

PATIENCE_SECONDS = 6.0
NUMBERS = itertools.count()

Fields = list[tuple[bytes, bytes]]


@dataclass
class Response:
    """A response as it came, whole or not."""

    status: int = 0
    headers: Fields = field(default_factory=list)
    body: bytes = b""
    informational: list[tuple[int, Fields]] = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    #: It came to its proper end.
    complete: bool = False
    http_version: str = ""

    def all(self, name: str) -> list[bytes]:
        """Return all values of a field."""
        return [value for key, value in self.headers if key.lower() == name.encode()]

    def header(self, name: str) -> bytes | None:
        """Return the value of a field that occurs at most once."""
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body as JSON."""
        assert self.status == 200 and self.complete, self
        return json.loads(self.body)


class Peer:
    """A client of one case over one transport. Connections are opened as they are needed."""

    def __init__(self, transport: str, port: int, name: str, directory: str) -> None:
        self.transport = transport
        self.port = port
        self.name = name
        #: A directory that both sides can use.
        self.directory = directory
        self.id = ""
        self.link: H1Link | H2Link | None = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self.link is not None:
            self.link.socket.close()
            self.link = None

    def reset(self) -> None:
        """Close the connection with a reset."""
        assert self.link is not None
        abort(self.link.socket)
        self.link = None

    @property
    def is_h2(self) -> bool:
        return self.transport.startswith("h2")

    @property
    def is_tls(self) -> bool:
        return self.transport.endswith("-tls")

    def connect(self) -> socket.socket:
        """Open a connection, with TLS where the transport says so."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        if not self.is_tls:
            return raw
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2" if self.is_h2 else "http/1.1"])
        wrapped = context.wrap_socket(raw, server_hostname="localhost")
        wanted = "h2" if self.is_h2 else "http/1.1"
        assert wrapped.selected_alpn_protocol() in (wanted, None if not self.is_h2 else wanted)
        return wrapped

    def path(self, rest: str = "", query: str = "") -> str:
        """Make the target of a request to the case, with an id of its own."""
        self.id = f"{self.name}-{next(NUMBERS)}"
        return f"/{self.name}{rest}?{query}{'&' if query else ''}id={self.id}"

    def start(
        self,
        method: str = "GET",
        rest: str = "",
        *,
        query: str = "",
        target: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | list[bytes] | None = None,
        end: bool = True,
    ) -> Pending:
        """Send a request, whole or (`end=False`) but for its end; a list is a body in pieces."""
        if self.link is None or self.link.closing:
            self.close()
            self.link = H2Link(self.connect()) if self.is_h2 else H1Link(self.connect())
        target = self.path(rest, query) if target is None else target
        return self.link.start(method, target, list(headers), body, end, self.is_tls)

    def request(self, method: str = "GET", rest: str = "", **keys: Any) -> Response:
        """Send a request and read its response, as far as it comes."""
        return self.start(method, rest, **keys).response()

    def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own and read until the server closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def head(self, method: str, target: str, *lines: str, version: str = "1.1") -> bytes:
        """Make the bytes of a head of HTTP/1 with a `Host`."""
        fields = ["host: example", *lines]
        text = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{line}\r\n" for line in fields)
        return (text + "\r\n").encode("latin-1")

    def another(self) -> Peer:
        """Return a client like this one, with connections of its own."""
        return Peer(self.transport, self.port, self.name, self.directory)

    def wait_started(self) -> None:
        """Wait until the application runs for the latest request."""
        with Peer(self.transport, self.port, "started", self.directory) as other:
            assert other.request(target=f"/started?id={self.id}").body == b"yes"

    def notes(self) -> list[Any]:
        """Return what the application noted for the latest request, without how it ended."""
        noted = self.all_notes()
        return noted[:-1]

    def ending(self) -> list[str]:
        """Return the classes of what the application raised, or `["NoneType", "object"]`."""
        ending: list[str] = self.all_notes()[-1][1]
        return ending

    def all_notes(self) -> list[Any]:
        with Peer(self.transport, self.port, "notes", self.directory) as other:
            response = other.request(target=f"/notes?id={self.id}")
        notes: list[Any] = response.json()
        assert notes and notes[-1][0] == "end", notes
        return notes


class Pending:
    """A response that is awaited."""

    def __init__(self, link: H1Link | H2Link, stream: int) -> None:
        self.link = link
        self.stream = stream
        self.so_far = Response()

    def send(self, data: bytes, end: bool = False) -> None:
        """Send more of the request's body."""
        self.link.send(self.stream, data, end)

    def until_head(self) -> Response:
        """Read until the response's head is there."""
        for _ in self.link.events(self):
            if self.so_far.status:
                return self.so_far
        raise AssertionError("closed before the head")

    def until(self, body: bytes) -> Response:
        """Read until the body ends with these bytes."""
        while not self.so_far.body.endswith(body):
            for _ in self.link.events(self):
                if self.so_far.body.endswith(body):
                    break
            else:
                raise AssertionError(f"closed after {self.so_far}")
        return self.so_far

    def response(self) -> Response:
        """Read to the end, proper or not."""
        for _ in self.link.events(self):
            pass
        return self.so_far

    def cancel(self) -> None:
        """Give up: reset the stream, or the connection."""
        self.link.cancel(self.stream)


class H1Link:
    """A connection of HTTP/1.1."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.h11 = h11.Connection(h11.CLIENT)
        self.closing = False

    def start(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | list[bytes] | None,
        end: bool,
        tls: bool,
    ) -> Pending:
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        fields = [] if any(name == "host" for name, _ in headers) else [("host", "example")]
        fields += headers
        if isinstance(body, bytes):
            fields.append(("content-length", str(len(body))))
        elif (body is not None or not end) and not any(n == "content-length" for n, _ in fields):
            fields.append(("transfer-encoding", "chunked"))
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        self._send(h11.Request(method=method, target=target, headers=encoded))
        for piece in [body] if isinstance(body, bytes) else body or ():
            self._send(h11.Data(data=piece))
        if end:
            self._send(h11.EndOfMessage())
        return Pending(self, 0)

    def send(self, stream: int, data: bytes, end: bool) -> None:
        if data:
            self._send(h11.Data(data=data))
        if end:
            self._send(h11.EndOfMessage())

    def cancel(self, stream: int) -> None:
        abort(self.socket)
        self.closing = True

    def _send(self, event: Any) -> None:
        # A server may have answered and closed before it read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self.h11.send(event) or b"")

    def events(self, pending: Pending) -> Iterator[None]:
        response = pending.so_far
        while not response.complete:
            try:
                event = self.h11.next_event()
                if event is h11.NEED_DATA:
                    try:
                        data = self.socket.recv(1 << 16)
                    except (ConnectionResetError, ssl.SSLEOFError):
                        data = b""
                    self.h11.receive_data(data)
                    continue
            except h11.RemoteProtocolError:
                event = h11.ConnectionClosed()
            if isinstance(event, h11.InformationalResponse):
                response.informational.append((event.status_code, list(event.headers)))
            elif isinstance(event, h11.Response):
                response.status = event.status_code
                response.headers = list(event.headers)
                response.http_version = event.http_version.decode()
            elif isinstance(event, h11.Data):
                response.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                response.trailers = list(event.headers)
                response.complete = True
                self.closing = self.h11.our_state is not h11.DONE
            else:
                self.closing = True
                return
            yield


class H2Link:
    """A connection of HTTP/2, by ALPN or by prior knowledge."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        config = h2.config.H2Configuration(header_encoding=None, validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.flush()
        self.closing = False
        self.pending: dict[int, Pending] = {}
        self.done: set[int] = set()

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self.h2.data_to_send())

    def start(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | list[bytes] | None,
        end: bool,
        tls: bool,
    ) -> Pending:
        stream = self.h2.get_next_available_stream_id()
        hosts = [value for name, value in headers if name == "host"]
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https" if tls else b"http"),
            (b":authority", (hosts or ["example"])[0].encode()),
            (b":path", target.encode("latin-1")),
            *(
                (name.encode(), value.encode("latin-1"))
                for name, value in headers
                if name not in ("host", "connection")
            ),
        ]
        if isinstance(body, bytes):
            fields.append((b"content-length", str(len(body)).encode()))
            body = [body]
        pieces = [piece for piece in body or [] if piece]
        pending = self.pending[stream] = Pending(self, stream)
        self.h2.send_headers(stream, fields, end_stream=end and not pieces)
        self.flush()
        for index, piece in enumerate(pieces):
            self.send(stream, piece, end and index == len(pieces) - 1)
        return pending

    def send(self, stream: int, data: bytes, end: bool) -> None:
        while True:
            if stream in self.done:
                return
            room = min(
                self.h2.local_flow_control_window(stream),
                self.h2.max_outbound_frame_size,
                len(data),
            )
            if data and room == 0:
                if not self.read():
                    return
                continue
            piece, data = data[:room], data[room:]
            self.h2.send_data(stream, piece, end_stream=end and not data)
            self.flush()
            if not data:
                return

    def cancel(self, stream: int) -> None:
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.done.add(stream)
        self.flush()

    def read(self) -> bool:
        """Read once; false at the end of the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            self.closing = True
            return False
        for event in self.h2.receive_data(data):
            self.note(event)
        self.flush()
        return True

    def note(self, event: Any) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.closing = True
            return
        stream = getattr(event, "stream_id", None)
        if not stream or stream not in self.pending:
            return
        response = self.pending[stream].so_far
        if isinstance(event, h2.events.InformationalResponseReceived):
            fields = dict(event.headers)
            response.informational.append((int(fields[b":status"]), list(event.headers)))
        elif isinstance(event, h2.events.ResponseReceived):
            response.status = int(dict(event.headers)[b":status"])
            response.headers = [(n, v) for n, v in event.headers if not n.startswith(b":")]
            response.http_version = "2"
        elif isinstance(event, h2.events.DataReceived):
            response.body += event.data
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.TrailersReceived):
            response.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            response.complete = True
            self.done.add(stream)
        elif isinstance(event, h2.events.StreamReset):
            self.done.add(stream)

    def events(self, pending: Pending) -> Iterator[None]:
        while pending.stream not in self.done:
            if not self.read():
                return
            yield


def abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = connection.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLEOFError):
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
