"""A WebSocket client on a bare socket: it can send what no library would."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x37\xfa\x21\x3d"

HANDSHAKE = (
    ("host", "example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-version", "13"),
)


def mask(payload: bytes, key: bytes = MASK) -> bytes:
    """XOR with the repeated key."""
    size = len(payload)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A masked frame with the shortest length."""
    size = len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + MASK + mask(payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, struct.pack(">H", code) + reason.encode())


@dataclass
class Response:
    """The head of a response."""

    status: int
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for key, value in self.headers if key == name]


@dataclass
class RawWebSocket:
    """One connection; `buffer` holds what was read and not used."""

    socket: socket.socket
    response: Response = field(default_factory=lambda: Response(0, []))
    buffer: bytearray = field(default_factory=bytearray)

    def request(
        self,
        headers: Any = HANDSHAKE,
        *,
        target: str = "/",
        line: str | None = None,
        behind: bytes = b"",
    ) -> Response:
        """Send a request, with bytes behind it, and read the head of the response."""
        lines = [line or f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + behind)
        return self.read_head()

    def read_head(self) -> Response:
        """Read the head of a response."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._fill(), f"no response, only {bytes(self.buffer)!r}"
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer[:] = rest
        status, *fields = head.decode("latin-1").split("\r\n")
        pairs = (field.split(": ", 1) for field in fields)
        headers = [(name.lower(), value) for name, value in pairs]
        self.response = Response(int(status.split()[1]), headers)
        return self.response

    def open(self, **options: Any) -> RawWebSocket:
        """Do the opening handshake."""
        response = self.request(**options)
        assert response.status == 101, response
        return self

    def send(self, *frames: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(b"".join(frames))

    def read_frame(self) -> tuple[int, bytes] | None:
        """Read a frame: opcode and payload; `None` at the end of the stream."""
        if (got := self.read_any_frame()) is None:
            return None
        assert got[0] & 0xF0 == 0x80, "servers here send final frames without extensions"
        return got[0] & 0xF, got[1]

    def read_any_frame(self) -> tuple[int, bytes] | None:
        """Read a frame: first byte and payload; `None` at the end of the stream."""
        if not self._need(2):
            return None
        first, size = self.buffer[0], self.buffer[1]
        head = 2
        if size == 126:
            assert self._need(4)
            (size,) = struct.unpack_from(">H", self.buffer, 2)
            assert size > 125
            head = 4
        elif size == 127:
            assert self._need(10)
            (size,) = struct.unpack_from(">Q", self.buffer, 2)
            assert size > 65535
            head = 10
        else:
            assert size < 126, "a server does not mask"
        assert self._need(head + size), "the frame was cut"
        payload = bytes(self.buffer[head : head + size])
        del self.buffer[: head + size]
        return first, payload

    def read_close(self) -> tuple[int, str]:
        """Read a close frame: code and reason."""
        got = self.read_frame()
        assert got is not None, "the connection ended without a close frame"
        opcode, payload = got
        assert opcode == CLOSE, got
        return struct.unpack(">H", payload[:2])[0], payload[2:].decode()

    def read_to_end(self) -> bytes:
        """Read until the peer closes its side."""
        while self._fill():
            pass
        rest = bytes(self.buffer)
        self.buffer.clear()
        return rest

    def _need(self, count: int) -> bool:
        while len(self.buffer) < count:
            if not self._fill():
                return False
        return True

    def _fill(self) -> bool:
        data = self.socket.recv(1 << 20)
        self.buffer += data
        return bool(data)

    def reset(self) -> None:
        """Cut the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> RawWebSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()
