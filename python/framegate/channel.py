"""What a supervisor and a worker process say to each other, over one Unix socket pair.

Down: one line, the `WorkerSpec`; then a line per order. End of file means that the supervisor is
gone, however it went, and the worker drains and ends: even kill -9 cannot forget to close it.

| order        | the worker                                                               |
|--------------|--------------------------------------------------------------------------|
| `reload-tls` | reads certificates and tokens anew                                       |
| `retire`     | another one accepts already: stops, and loses nobody who is connected    |
| `adopt`      | also accepts from the sockets that come with it (SCM_RIGHTS)             |

Up: one line per event of the worker: `worker-startup` when its own startup begins, `ready`, or
`failed` with the text for the user.

Lines of JSON, because both ends are Python and a person can read them in strace.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from framegate.config import Config
from framegate.system import receive_with_fds

__all__ = ["Channel", "Order", "WorkerReport", "WorkerSpec"]

LINE_BYTES_MAX: Final = 1 << 20

FDS_MAX: Final = 64
"""Sockets that may come with one order; the kernel's own limit is 253 (SCM_MAX_FD)."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a supervisor wants of a worker.

    Attributes:
        kind: What to do.
        fds: For `adopt`: sockets, which belong to whoever has the order.
        counts: Which of them are of what kind (`KindCounts`).
    """

    kind: Literal["reload-tls", "reopen-log", "retire", "adopt"]
    fds: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that a worker process has to know.

    Attributes:
        config: The settings.
        index: Which worker it is, from 0; its successors have the same.
        worker_count: How many there are.
        row: Its row of the runtime segment.
        generation: How many workers of that index there were before.
        supervisor_pid: Its parent.
        listener_fds: Inherited sockets to accept from.
        counts: Which of them are of what kind (`KindCounts`).
        runtime_path: File of the runtime segment, or nothing.
        threads: How many workers the process has, the first of which is `index` in `row`; more than
            one only without the GIL.
        admin_fds: Inherited sockets on which operators are answered; all workers have the same.
    """

    config: Config
    index: int
    worker_count: int
    row: int
    generation: int
    supervisor_pid: int
    listener_fds: tuple[int, ...]
    counts: tuple[int, ...]
    runtime_path: str
    admin_fds: tuple[int, ...] = ()
    threads: int = 1

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
        for name in ("listener_fds", "counts", "admin_fds"):
            values[name] = tuple(values[name])
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
        self._fds: list[int] = []

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

    def send_order(self, order: Order) -> bool:
        """Send an order down; return whether it left: nobody may be there, or read."""
        line = json.dumps([order.kind, len(order.fds), *order.counts]).encode() + b"\n"
        try:
            # Some bytes to a socket pair: all of them or none (macOS: below its low-water mark).
            socket.send_fds(self._end, [line], order.fds)
        except OSError:
            return False
        return True

    def orders(self) -> Iterator[Order]:
        """Wait for orders, until the other side is gone."""
        try:
            while True:
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    kind, count, *counts = json.loads(line)
                    fds, self._fds = self._fds[:count], self._fds[count:]
                    yield Order(kind, tuple(fds), tuple(counts))
                self._fill(fds_max=FDS_MAX)
        except EOFError:
            return

    def _fill(self, *, fds_max: int = 0) -> None:
        try:
            if fds_max:
                chunk, fds = receive_with_fds(self._end, 65536, fds_max)
                self._fds.extend(fds)
            else:
                chunk = self._end.recv(65536)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise EOFError("the other end of the channel is closed")
        self._buffer += chunk
        if len(self._buffer) > LINE_BYTES_MAX:
            raise EOFError("a line on the channel is longer than its limit")
