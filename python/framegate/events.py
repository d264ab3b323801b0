"""What happens to connections and requests, for code that wants to know: lifecycle events.

A collector is an object with a method `record_batch(events)`. It is given with `--collector
module:object`, or in code as `Server(app, collector=...)`, and called on a thread of its own
(`framegate events`) with what has come together: it may take its time and may fail without any
request waiting for it or failing. When it is so slow that 8 MiB of events wait, further ones are
dropped, and the log says how many. What came before a worker ends is delivered, unless that takes
longer than a second.

Each worker process has a collector of its own. Where workers are threads of one process they share
it, and it has one call at a time: `record_batch` needs no lock of its own, and a call that blocks
holds up what the other workers have for it. Several servers in one process that are given the same
object do not know of each other. Connections and requests have numbers that are unique within their
worker. Times are those of `time.monotonic_ns()`.

In order: `ConnectionOpened`, then for each request `RequestStarted` and either `ResponseCompleted`
or `RequestFailed`, then `ConnectionClosed`. A WebSocket is a request whose response is its
handshake; its end is that of its connection, or over HTTP/2 nothing of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from framegate.config import Config
from framegate.errors import ConfigError

__all__ = [
    "BufferedCollector",
    "Collector",
    "ConnectionClosed",
    "ConnectionOpened",
    "Event",
    "RequestFailed",
    "RequestStarted",
    "ResponseCompleted",
    "load_collector",
    "start_delivery",
]

logger: Final = logging.getLogger("framegate")

COMPLAINT_SECONDS: Final = 10.0
"""Between two complaints about a collector."""


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A connection was accepted; with TLS its handshake is still to come.

    Attributes:
        at_ns: When.
        connection: Its number.
        peer: Address of the other end of the socket, which may be a proxy.
        local: Address of our end.
        tls: Whether the listener speaks TLS.
    """

    at_ns: int
    connection: int
    peer: str
    local: str
    tls: bool


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """The head of a request is complete.

    Attributes:
        at_ns: When.
        connection: The connection's number.
        request: Its number.
        client: Who asked, by what trusted proxies say.
        request_id: The request's id, where requests have one.
        method: Method.
        target: Path and query, as sent.
        http_version: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    """

    at_ns: int
    connection: int
    request: int
    client: str
    request_id: str | None
    method: str
    target: str
    http_version: str


@dataclass(frozen=True, slots=True)
class ResponseCompleted:
    """The last byte of a response was written.

    Attributes:
        at_ns: When.
        connection: The connection's number.
        request: The request's number.
        status: Status; 500 also for an application that failed before its response began.
        duration_ns: From the head of the request to the last byte of the response.
        first_byte_ns: From the head of the request to that of the response.
        body_bytes_in: Bytes of the request's body that were read.
        body_bytes_out: Bytes of the response's body.
    """

    at_ns: int
    connection: int
    request: int
    status: int
    duration_ns: int
    first_byte_ns: int
    body_bytes_in: int
    body_bytes_out: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request whose response did not reach its end: the client left, or the application failed.

    Attributes:
        at_ns: When.
        connection: The connection's number.
        request: The request's number.
        status: Status of the response that had begun, if one had.
        duration_ns: From the head of the request to its end.
        body_bytes_in: Bytes of the request's body that were read.
        body_bytes_out: Bytes of the response's body that were handed over to be written.
    """

    at_ns: int
    connection: int
    request: int
    status: int | None
    duration_ns: int
    body_bytes_in: int
    body_bytes_out: int


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection has ended.

    Attributes:
        at_ns: When.
        connection: Its number.
        bytes_in: Bytes that were read from its socket.
        bytes_out: Bytes that were written to it.
    """

    at_ns: int
    connection: int
    bytes_in: int
    bytes_out: int


Event: TypeAlias = (
    ConnectionOpened | RequestStarted | ResponseCompleted | RequestFailed | ConnectionClosed
)

# In the order of `Event` in rust/py/src/events.rs.
_CLASSES: Final[tuple[type[Any], ...]] = (
    ConnectionOpened,
    RequestStarted,
    ResponseCompleted,
    RequestFailed,
    ConnectionClosed,
)


@runtime_checkable
class Collector(Protocol):
    """Takes events."""

    def record_batch(self, events: Sequence[Event]) -> None:
        """Take events, oldest first; called on one thread, never twice at a time."""


class BufferedCollector:
    """Keeps the latest events until somebody takes them, from any thread.

    Args:
        capacity: How many it keeps at most; older ones are dropped and counted.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        self._events: deque[Event] = deque(maxlen=capacity)
        self._dropped = 0
        self._lock = threading.Lock()

    def record_batch(self, events: Sequence[Event]) -> None:
        """Keep events."""
        with self._lock:
            room = (self._events.maxlen or 0) - len(self._events)
            self._dropped += max(0, len(events) - room)
            self._events.extend(events)

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody took them."""
        with self._lock:
            return self._dropped

    def take(self) -> list[Event]:
        """Return what there is, oldest first, and forget it."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
            return events

    def __len__(self) -> int:
        with self._lock:
            return len(self._events)


def load_collector(config: Config) -> Collector | None:
    """Return the collector of a configuration; a class or function is called to make it.

    Raises:
        AppImportError: It is misspelled or fails to import.
        ConfigError: It has no method `record_batch`.
    """
    found = config.collector
    if found is None:
        return None
    if isinstance(found, str):
        from framegate.importer import import_attribute

        found = import_attribute(found, config.app_dir)
        if isinstance(found, type) or (callable(found) and not hasattr(found, "record_batch")):
            found = found()
    if not isinstance(found, Collector) or isinstance(found, type):
        raise ConfigError(
            f"{config.origins['collector']}: {type(found).__qualname__} has no method "
            "record_batch(events)"
        )
    return found


class EventQueue(Protocol):
    """What is read of `_http.EventQueue`."""

    def take(self) -> tuple[list[tuple[Any, ...]], int] | None:
        """Wait for events; None when there will be none."""

    def end(self) -> None:
        """Say that nothing will be taken any more."""


def start_delivery(
    queue: EventQueue, collector: Collector, turn: threading.Lock
) -> threading.Thread:
    """Give a collector what comes, on a thread of its own, until the queue is closed.

    `turn` is held during each call: the lock of all who give something to this collector.
    """
    thread = threading.Thread(
        target=_deliver, args=(queue, collector, turn), name="framegate events", daemon=True
    )
    thread.start()
    return thread


def _deliver(queue: EventQueue, collector: Collector, turn: threading.Lock) -> None:
    complaints = _Complaints()
    dropped_before = 0
    try:
        while (batch := queue.take()) is not None:
            found, dropped = batch
            events = [_CLASSES[number](*values) for number, *values in found]
            try:
                with turn:
                    collector.record_batch(events)
            except Exception:
                if complaints.are_due("failed"):
                    logger.exception("the collector failed: %d events are lost", len(events))
            if dropped > dropped_before and complaints.are_due("slow"):
                count = dropped - dropped_before
                dropped_before = dropped
                logger.warning("the collector is too slow: %d events were dropped", count)
    finally:
        queue.end()


class _Complaints:
    """Lets the log complain of each thing now and then."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def are_due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, -COMPLAINT_SECONDS) < COMPLAINT_SECONDS:
            return False
        self._last[what] = now
        return True
