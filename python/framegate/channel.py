"""What a supervisor and a worker process say to each other, over one Unix socket pair.

Down: one line, the `WorkerSpec`; then a line per order, such as `reload-tls`. End of file means
that the supervisor is gone, however it went, and the worker drains and ends: even kill -9 cannot
forget to close it.
Up: one line per event of the worker: `worker-startup` when its own startup begins, `ready`, or
`failed` with the text for the user.

Lines of JSON, because both ends are Python and a person can read them in strace.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from framegate.config import Config

__all__ = ["Channel", "Order", "WorkerReport", "WorkerSpec"]

LINE_BYTES_MAX: Final = 1 << 20

Order = Literal["reload-tls"]
"""What a supervisor may want of a worker."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that a worker process has to know.

    Attributes:
        config: The settings.
        index: Which worker it is, from 0; its successors have the same.
        generation: How many workers of that index there were before.
        supervisor_pid: Its parent.
        listener_fds: Inherited sockets to accept from.
        redirect_count: How many of them, at the end, only redirect to https.
        runtime_path: File of the runtime segment, or nothing.
    """

    config: Config
    index: int
    generation: int
    supervisor_pid: int
    listener_fds: tuple[int, ...]
    redirect_count: int
    runtime_path: str

    def to_line(self) -> bytes:
        """Return it as one line."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["config"] = self.config.to_json()
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> WorkerSpec:
        """Return what `to_line` wrote."""
        values = json.loads(line)
        values["config"] = Config.from_json(values["config"])
        values["listener_fds"] = tuple(values["listener_fds"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One event of a worker.

    Attributes:
        event: What happened.
        text: For `failed`: what the user is shown.
        build: For `ready`: what the worker is, for the start-up lines.
        has_worker_scope: For `ready`: whether its stop includes a shutdown of `framegate.worker`.
    """

    event: Literal["worker-startup", "ready", "failed"]
    text: str = ""
    build: dict[str, Any] = field(default_factory=dict)
    has_worker_scope: bool = False


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send_spec(self, spec: WorkerSpec) -> None:
        """Send the one line that goes down."""
        self._end.sendall(spec.to_line())

    def receive_spec(self) -> WorkerSpec:
        """Wait for the specification.

        Raises:
            EOFError: The supervisor is gone.
        """
        while b"\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return WorkerSpec.from_line(line)

    def send_report(self, report: WorkerReport) -> bool:
        """Send an event; return whether somebody is there to read it."""
        try:
            self._end.sendall(json.dumps(asdict(report)).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive_reports(self) -> list[WorkerReport]:
        """Return what has arrived, once the socket is readable.

        Raises:
            EOFError: The worker closed its end.
        """
        self._fill()
        *lines, self._buffer = self._buffer.split(b"\n")
        return [WorkerReport(**json.loads(line)) for line in lines]

    def send_order(self, order: Order) -> None:
        """Send an order down; nothing if nobody is there, or does not read."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(order).encode() + b"\n")

    def orders(self) -> Iterator[str]:
        """Wait for orders, until the other side is gone."""
        try:
            while True:
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    yield json.loads(line)
                self._fill()
        except EOFError:
            return

    def _fill(self) -> None:
        try:
            chunk = self._end.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise EOFError("the other end of the channel is closed")
        self._buffer += chunk
        if len(self._buffer) > LINE_BYTES_MAX:
            raise EOFError("a line on the channel is longer than its limit")
