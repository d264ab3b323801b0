"""HTTP core of framegate (Rust)."""

from asyncio import Future
from collections.abc import Callable, Iterator, Mapping, Sequence
from selectors import SelectorKey
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar, final, overload

from _typeshed import FileDescriptorLike, StrPath

__all__ = [
    "COMMIT",
    "PROFILE",
    "RUNTIME_COUNTERS",
    "RUNTIME_LAYOUT",
    "RUSTC",
    "SHM_ERROR_CLASSES",
    "VERSION",
    "AdminServer",
    "BodyHandle",
    "EventQueue",
    "FrameView",
    "Player",
    "Recorder",
    "RequestSpan",
    "RuntimeRow",
    "Selector",
    "SelectorMap",
    "SocketHandle",
    "SocketSink",
    "TlsContext",
    "TopicHandle",
    "Worker",
    "_NativeThread",
    "_ThreadBound",
    "_access_line",
    "_decode_picture",
    "_make_picture",
    "collapse_heap",
    "make_frame_picture",
    "recording_contents",
]

VERSION: Final[str]
PROFILE: Final[str]
RUSTC: Final[str]
COMMIT: Final[str]
SHM_ERROR_CLASSES: Final[dict[int, str]]
RUNTIME_LAYOUT: Final[dict[str, int]]
RUNTIME_COUNTERS: Final[dict[str, int]]

_T = TypeVar("_T")
_EventMask: TypeAlias = int

@final
class EventQueue:
    """The end of a queue of events; see `framegate.events`."""

    def __new__(cls) -> EventQueue: ...
    def take(self) -> tuple[list[tuple[Any, ...]], int] | None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...

@final
class Selector:
    """A `selectors.BaseSelector` that runs the Rust runtime of its loop while it waits."""

    def __new__(cls) -> Selector: ...
    def register(
        self, fileobj: FileDescriptorLike, events: _EventMask, data: Any = None
    ) -> SelectorKey: ...
    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey: ...
    def modify(
        self, fileobj: FileDescriptorLike, events: _EventMask, data: Any = None
    ) -> SelectorKey: ...
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, _EventMask]]: ...
    def interrupt(self) -> None: ...
    def rest(self) -> None: ...
    def watch_signals(self) -> None: ...
    def close(self) -> None: ...
    def get_key(self, fileobj: FileDescriptorLike) -> SelectorKey: ...
    def get_map(self) -> SelectorMap | None: ...
    def fileno(self) -> int: ...
    def __enter__(self) -> Selector: ...
    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...
    # Only in builds with debug assertions, for tests.
    def _keep_busy(self, seconds: float, tasks: int) -> None: ...
    def _tasks_alive(self) -> int: ...

@final
class SelectorMap:
    """Live, read-only mapping of file objects and descriptors to selector keys."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def __contains__(self, fileobj: FileDescriptorLike, /) -> bool: ...
    def __getitem__(self, fileobj: FileDescriptorLike, /) -> SelectorKey: ...
    @overload
    def get(self, fileobj: FileDescriptorLike) -> SelectorKey | None: ...
    @overload
    def get(self, fileobj: FileDescriptorLike, default: _T) -> SelectorKey | _T: ...
    def keys(self) -> list[int]: ...
    def values(self) -> list[SelectorKey]: ...
    def items(self) -> list[tuple[int, SelectorKey]]: ...

@final
class Recorder:
    """Records topics to an MCAP file; see `framegate.recording`."""

    def __new__(
        cls, path: StrPath, *, overwrite: bool, compression: str, chunk_bytes: int, bgr: bool
    ) -> Recorder: ...
    def add(self, topic: str, about: str) -> None: ...
    def stats(self) -> dict[str, dict[str, int]]: ...
    def check(self) -> None: ...
    def close(self) -> None: ...

@final
class Player:
    """Replays an MCAP file; see `framegate.recording`."""

    def __new__(
        cls,
        path: StrPath,
        *,
        topics: Mapping[str, str],
        rate: float,
        repeat: bool,
        slots: int | None,
        slot_bytes: int | None,
    ) -> Player: ...
    def prepare(self) -> list[str]: ...
    def start(self) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

def collapse_heap() -> int: ...
def make_frame_picture(
    data: bytes,
    dtype: str | None,
    shape: Sequence[int],
    encoding: str | None,
    content_type: str | None,
    coding: str,
    query: str,
    pixels_max: int = ...,
) -> bytes: ...
def recording_contents(path: str) -> dict[str, Any]: ...

@final
class AdminServer:
    """Answers operators on its own thread."""

    def __new__(
        cls, fds: list[int], *, row: RuntimeRow, lag_max: float, topics: int = 0
    ) -> AdminServer: ...
    def close(self) -> None: ...

@final
class RuntimeRow:
    """The row of one worker in the runtime segment."""

    def __new__(cls, fd: int, index: int) -> RuntimeRow: ...
    def get(self, name: str) -> int: ...

@final
class BodyHandle:
    """The body of one request, to be moved into shared memory."""

    @property
    def untouched(self) -> bool: ...
    def count_plain(self) -> None: ...
    def ingest(
        self,
        topic: str,
        *,
        dtype: str | None = None,
        shape: Sequence[int] | None = None,
        slots: int = 8,
        slot_bytes: int | None = None,
        time: float | None = None,
        timeout: float = 1.0,
    ) -> Future[tuple[int, int]]: ...

@final
class TopicHandle(dict[str, Any]):
    """What a handler finds in the scope of an HTTP request; see `framegate.frame_stream`."""

    def view(
        self,
        topic: str,
        query: str,
        *,
        method: str = "GET",
        accept: bytes | None = None,
        none_match: bytes | None = None,
    ) -> Future[FrameView]: ...

@final
class FrameView:
    """A view whose response has not begun."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def sent(self) -> bool: ...

@final
class SocketHandle(dict[str, Any]):
    """What a handler finds in the scope of a WebSocket; see `framegate.socket_frames`."""

    @property
    def accepted(self) -> bool: ...
    def publish(
        self,
        topic: str,
        *,
        dtype: str | None = None,
        shape: Sequence[int] | None = None,
        content_type: str | None = None,
        slots: int = 8,
        slot_bytes: int | None = None,
    ) -> Future[SocketSink]: ...
    def watch(self, topic: str, query: str) -> Future[None]: ...
    def unwatch(self) -> None: ...

@final
class SocketSink:
    """Frames that a WebSocket makes."""

    @property
    def frames(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    def put(self, message: bytes) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...

@final
class RequestSpan:
    """The span of one request; see `framegate.tracing`."""

    @property
    def trace_id(self) -> int: ...
    @property
    def span_id(self) -> int: ...
    @property
    def is_sampled(self) -> bool: ...
    @property
    def trace_state(self) -> str | None: ...
    @property
    def baggage(self) -> str | None: ...
    def is_recording(self) -> bool: ...
    def set_attribute(self, name: str, value: Any) -> None: ...
    def set_name(self, name: str) -> None: ...
    def set_error(self, text: str) -> None: ...
    def set_well(self) -> None: ...
    def add_event(self, name: str, attributes: Any, at_ns: int | None = None) -> None: ...
    def add_link(self, trace_id: int, span_id: int, is_sampled: bool, attributes: Any) -> None: ...

@final
class TlsContext:
    """Certificates and keys of a configuration, ready to be served."""

    def __new__(cls, config: Any) -> TlsContext: ...
    @property
    def warnings(self) -> list[str]: ...

@final
class Worker:
    """HTTP server of one event loop."""

    def __new__(
        cls,
        app: Callable[[Any, Any, Any], Any],
        config: Any,
        *,
        state: dict[str, Any] | None = None,
        tls: TlsContext | None = None,
        https_port: int = 443,
        row: RuntimeRow | None = None,
        stalls: tuple[float, int, int] | None = None,
        parent: tuple[int, float] | None = None,
        log_fd: int | None = None,
        number: int | None = None,
        events: EventQueue | None = None,
        telemetry: Any = None,
        plain_tasks: bool = False,
    ) -> Worker: ...
    def listen(self, fd: int, *, entry: str = "plain", proxied: bool = False) -> None: ...
    def reload_tls(self) -> None: ...
    def reload_topic_tokens(self) -> None: ...
    def reopen_log(self) -> None: ...
    def stop_accepting(self) -> None: ...
    def drain(self, seconds: float, *, idle_seconds: float = 0.0) -> Future[int]: ...
    def close(self) -> None: ...
    @property
    def connections(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def ingested(self) -> tuple[int, int]: ...
    @property
    def lazy_tasks(self) -> bool: ...

# The rest is only in builds with debug assertions, for tests.

@final
class _ThreadBound:
    def __new__(cls, value: object) -> _ThreadBound: ...
    @property
    def value(self) -> Any: ...

@final
class _NativeThread:
    def __new__(cls, row: RuntimeRow | None = None, log_fd: int | None = None) -> _NativeThread: ...
    def log(self, line: bytes) -> None: ...
    def stop(self) -> None: ...

def _make_picture(
    data: bytes,
    format: str,
    size: tuple[int, int],
    coding: str,
    query: str,
    pixels_max: int = ...,
) -> bytes: ...
def _decode_picture(
    data: bytes, coding: str, pixels_max: int = ...
) -> tuple[str, tuple[int, int], bytes]: ...
def _access_line(config: Any, record: dict[str, Any], number: int | None) -> bytes: ...
