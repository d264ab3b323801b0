"""A client that is nothing but a socket."""

from __future__ import annotations

import socket
import struct

__all__ = ["head", "read_all", "read_head", "read_until", "reset"]


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read up to and with `end`; fails when the connection closes first."""
    data = b""
    while not data.endswith(end):
        piece = connection.recv(1)
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def read_head(connection: socket.socket) -> bytes:
    """Read one head, with its empty line."""
    return read_until(connection, b"\r\n\r\n")


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer closes; a reset counts as a close."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = connection.recv(1 << 16)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def head(method: str, target: str, *fields: str, version: str = "1.1") -> bytes:
    """Make a request head; `Host` is added."""
    lines = [f"{method} {target} HTTP/{version}", "host: example", *fields]
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1")
