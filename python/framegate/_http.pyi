"""HTTP core of framegate (Rust)."""

from asyncio import Future
from collections.abc import Callable, Iterator, Mapping, Sequence
from selectors import SelectorKey
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, final, overload

from _typeshed import FileDescriptorLike, StrPath
from typing_extensions import Buffer, disjoint_base

__all__ = [
    "COMMIT",
    "PGO",
    "PROFILE",
    "RUNTIME_COUNTERS",
    "RUNTIME_LAYOUT",
    "RUSTC",
    "SHM_ERROR_CLASSES",
    "VERSION",
    "AdminServer",
    "BodyHandle",
    "ClientBackOff",
    "ClientOpening",
    "ClientSocket",
    "EventQueue",
    "FormFields",
    "FormReader",
    "FrameView",
    "HandlerQueue",
    "Player",
    "Recorder",
    "RequestSpan",
    "ResponseSchema",
    "RouteTable",
    "RuntimeRow",
    "Selector",
    "SelectorMap",
    "SocketHandle",
    "SocketSink",
    "TlsContext",
    "TopScreen",
    "TopicHandle",
    "Worker",
    "_NativeThread",
    "_ThreadBound",
    "_access_line",
    "_decode_picture",
    "_make_picture",
    "client_way",
    "collapse_heap",
    "make_frame_picture",
    "recording_contents",
    "select_parts",
]

VERSION: Final[str]
PROFILE: Final[str]
PGO: Final[bool]
RUSTC: Final[str]
COMMIT: Final[str]
SHM_ERROR_CLASSES: Final[dict[int, str]]
RUNTIME_LAYOUT: Final[dict[str, int]]
RUNTIME_COUNTERS: Final[dict[str, int]]

_T = TypeVar("_T")
_EventMask: TypeAlias = int

@final
class EventQueue:
    """The end of the queue that Python reads."""

    def __new__(cls) -> EventQueue: ...
    def take(self) -> tuple[list[tuple[Any, ...]], int] | None:
        """Wait for events, on a thread that does nothing else.

        Returns:
            What came, each as the number of its class and the arguments for that; and how many
            were dropped so far. `None` when nothing more will come.
        """
    def end(self) -> None:
        """Say that what was taken last has been delivered, and nothing will be taken any more."""
    def close(self) -> None:
        """Let the reader end once it has taken what there is."""

@final
class Selector:
    """A `selectors.BaseSelector` that runs the tokio runtime of its loop while it waits."""

    def __new__(cls) -> Selector: ...
    def register(
        self, fileobj: FileDescriptorLike, events: _EventMask, data: Any = None
    ) -> SelectorKey:
        """Watch a file object or descriptor."""
    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Stop watching; works for descriptors that were closed meanwhile."""
    def modify(
        self, fileobj: FileDescriptorLike, events: _EventMask, data: Any = None
    ) -> SelectorKey:
        """Change the events or the data of a registration."""
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, _EventMask]]:
        """Wait until something happens that asyncio has to handle."""
    def interrupt(self) -> None:
        """Make a `select` that runs on this thread return."""
    def rest(self) -> None:
        """The loop stops running: give back what it needs only meanwhile. Keeps the runtime if it
        still serves something.
        """
    def watch_signals(self) -> None:
        """Take the process's wake-up fd again after asyncio has given it up. Only has an effect on
        the main thread.
        """
    def close(self) -> None:
        """Drop the runtime with all that it serves."""
    def get_key(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """The key of a registered file object or descriptor."""
    def get_map(self) -> SelectorMap | None:
        """Mapping of file objects and descriptors to keys; `None` once closed."""
    def fileno(self) -> int:
        """The descriptor of the epoll instance that watches Python's descriptors."""
    def __enter__(self) -> Selector: ...
    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...
    # Only in builds with debug assertions, for tests.
    def _keep_busy(self, seconds: float, tasks: int) -> None:
        """Keep the loop busy with Rust work alone for some seconds: `tasks` tasks that are always
        ready.
        """
    def _tasks_alive(self) -> int:
        """How many tasks the runtime has."""

@final
class SelectorMap:
    """What `Selector.get_map` gives: a live, read-only mapping."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def __contains__(self, fileobj: FileDescriptorLike, /) -> bool: ...
    def __getitem__(self, fileobj: FileDescriptorLike, /) -> SelectorKey: ...
    @overload
    def get(self, fileobj: FileDescriptorLike) -> SelectorKey | None: ...
    @overload
    def get(self, fileobj: FileDescriptorLike, default: _T) -> SelectorKey | _T: ...
    def keys(self) -> list[int]:
        """The registered descriptors."""
    def values(self) -> list[SelectorKey]:
        """The keys."""
    def items(self) -> list[tuple[int, SelectorKey]]:
        """Pairs of descriptor and key."""

@final
class Recorder:
    """Records topics to an MCAP file; see `framegate.recording`."""

    def __new__(
        cls, path: StrPath, *, overwrite: bool, compression: str, chunk_bytes: int, bgr: bool
    ) -> Recorder: ...
    def add(self, topic: str, about: str) -> None:
        """Subscribes to a topic and records it from now on; a topic that is recorded already is
        opened anew.

        Args:
            topic: Its name.
            about: What the file says about the topic, for whoever replays it.

        Raises:
            `ShmError`: It cannot be opened.
        """
    def stats(self) -> dict[str, dict[str, int]]:
        """What was recorded so far, by topic: `frames`, `bytes` (payload), `lost`."""
    def check(self) -> None:
        """Raises what ended a thread, if anything did.

        Raises:
            `RecordingError`: The file cannot be written.
            `ShmError`: A topic cannot be read.
        """
    def close(self) -> None:
        """Ends the recording: stops the threads, writes the summary, closes the file. Harmless
        when it was closed.

        Raises:
            `RecordingError`: The end could not be written; what was written before is a
                readable prefix.
        """

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
    def prepare(self) -> list[str]:
        """Opens or creates every topic, reading the file up to the first message of each.

        Returns:
            Names of the topics here.

        Raises:
            `RecordingError`: The file cannot be read.
            `ShmError`: A topic cannot be created, or does not fit the recording.
        """
    def start(self) -> None:
        """Begins to publish, on a thread."""
    def stats(self) -> dict[str, Any]:
        """What was published so far: `topics` (by topic: `frames`, `bytes`, `dropped`), `rounds`,
        `cut_off`, `done`.

        Raises:
            `RecordingError`: The file is damaged.
            `ShmError`: A topic refused a frame.
        """
    def close(self) -> None:
        """Stops publishing and leaves the topics, which stay. Harmless when it was closed."""

@final
class ClientBackOff:
    """Pauses between attempts in seconds: each up to twice as long as the one before, drawn at
    random, without an end.

    Args:
        first: The longest that the first one may be.
        last: The longest of all.
    """

    def __new__(cls, first: float, last: float) -> ClientBackOff: ...
    def __iter__(self) -> ClientBackOff: ...
    def __next__(self) -> float: ...
    def reset(self) -> None:
        """The next pause is of the first kind again."""

@final
class ClientOpening:
    """A WebSocket that is being opened. Dropping it gives it up."""

    def __new__(
        cls,
        url: str,
        *,
        headers: Sequence[tuple[str, str]],
        subprotocols: Sequence[str],
        user_agent: str | None,
        compression: bool,
        ca_files: Sequence[StrPath],
        certificate: StrPath | None,
        key: StrPath | None,
        key_password: str | None,
        proxy: str | bool | None,
        open_timeout: float | None,
        close_timeout: float,
        ping_interval: float | None,
        ping_timeout: float | None,
        message_bytes_max: int,
    ) -> ClientOpening: ...
    def fileno(self) -> int:
        """Readable when the opening is over."""

@disjoint_base
class ClientSocket:
    """An open WebSocket.

    Args:
        opening: Where it comes from.
        `attended`: Whether an event loop drives it. Else it waits for the opening, and is
            looked after while nobody calls.

    Raises:
        `ClientError`: It could not be opened.
    """

    def __new__(cls, opening: ClientOpening, *, attended: bool) -> Self: ...
    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose, or None."""
    @property
    def response_headers(self) -> list[tuple[str, str]]:
        """The fields of the server's answer to the handshake, with names in small letters."""
    @property
    def is_compressed(self) -> bool:
        """Whether messages may travel compressed."""
    @property
    def close_code(self) -> int | None:
        """The close code once the WebSocket is closed, else None; 1005 when there was none, 1006
        when the connection was lost.
        """
    @property
    def close_reason(self) -> str | None:
        """The reason that came with it."""
    def recv(self, timeout: float | None = None) -> str | bytes:
        """Waits for the next message: str for text, bytes for binary ones.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            `ConnectionClosed`: The WebSocket is closed, and there is no message any more that
                came before.
            `ClientTimeout`: None came in time; a later call may get it.
        """
    def send(self, data: str | Buffer) -> None:
        """Sends a message: str as text, bytes and everything that is like bytes as binary. Waits
        while much is unsent.

        Raises:
            `ConnectionClosed`: The WebSocket is closed.
        """
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the WebSocket and waits until the server has as well, for the close timeout at
        most. Harmless when it is closed.

        Args:
            code: 1000, 1001 or 3000 to 4999, and what else may be sent.
            reason: At most 123 bytes in UTF-8.
        """
    def __iter__(self) -> Self: ...
    def __next__(self) -> str | bytes: ...
    def fileno(self) -> int:
        """What to wait on."""
    def take(self) -> str | bytes | None:
        """A message that is there, or None.

        Raises:
            `ConnectionClosed`: There is none, and none will come.
        """
    def post(self, data: str | Buffer) -> int:
        """Queues a message and writes what there is room for, or leaves it for the next step while
        received messages wait; how many bytes are unsent.
        """
    def step(self) -> int:
        """Does what can be done without waiting; what there is then, as bits."""
    def state(self) -> int:
        """What there is, as bits."""
    def due(self) -> float | None:
        """Seconds until `step` has to be called, or None."""
    @property
    def unsent(self) -> int:
        """Unsent bytes."""
    def check_open(self) -> None:
        """Raises:
        `ConnectionClosed`: The WebSocket is closed.
        """
    def begin_close(self, code: int = 1000, reason: str = "") -> None:
        """Begins to close."""
    def abort(self) -> None:
        """Cuts the connection."""

def client_way(
    url: str, proxy: str | bool | None
) -> tuple[bool, tuple[str, int, str | None], str, tuple[str, int, str | None] | None]:
    """Where the address of a WebSocket leads: whether in TLS, the place, the path with its query,
    and the proxy in between.
    """

def collapse_heap() -> int:
    """Move the heap of this process into huge pages.

    Returns:
        Bytes that are in huge pages now.
    """

def make_frame_picture(
    data: bytes,
    dtype: str | None,
    shape: Sequence[int],
    encoding: str | None,
    content_type: str | None,
    coding: str,
    query: str,
    pixels_max: int = ...,
) -> bytes:
    """A frame as a picture, as frame routes make it; see `framegate.frame_stream`. Gives up the
    GIL.

    Raises:
        `SchemaMismatch`: The frame is no picture.
        `ValueError`: The query means nothing.
    """

def recording_contents(path: str) -> dict[str, Any]:
    """What is in a recording.

    Reads the summary at its end; a file without one (its writer was killed) is read through.

    Returns:
        `channels` (a list of `topic`, `schema`, `encoding`, `messages`, `about`), `start_ns`
        and `end_ns` (times of logging), and `complete`: False for a file that was cut off.

    Raises:
        `RecordingError`: It cannot be read.
    """

@final
class AdminServer:
    """Answers `/livez`, `/readyz` and `/metrics` on its own thread.

    Args:
        fds: Listening sockets; they are owned from here on, also when this fails.
        row: The worker's row; all rows of its segment are told of.
        `lag_max`: Seconds after which a worker whose loop does not answer is not ready.
        topics: Topics of frames that have metrics of their own.

    Raises:
        `OSError`: A socket cannot be used, or there is no thread.
        `ValueError`: A socket does not listen, or is of another kind.
    """

    def __new__(
        cls, fds: list[int], *, row: RuntimeRow, lag_max: float, topics: int = 0
    ) -> AdminServer: ...
    def close(self) -> None:
        """End the thread and close its copies of the sockets."""

@final
class RouteTable:
    """Routes of one application, with everything that is needed to decide a request."""

    def __new__(
        cls,
        routes: Sequence[Any],
        python: Any,
        *,
        redirect_slashes: bool,
        has_fallback: bool,
        json_bytes_max: int,
        cors: Any = None,
    ) -> RouteTable: ...
    def decide(
        self,
        method: str,
        path: str,
        query: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | None = None,
    ) -> Any:
        """What becomes of a request, for a lane that is not the worker's own: `None` (no route),
        an `int` (decide again with the body, which may have so many bytes), `(status, headers,
        body)`, or `(handler, positional, named, request, has_read_body)`.
        """
    def answer(self, value: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """`(status, headers, body)` of what a handler returned."""
    def is_delivered(self, value: Any) -> bool:
        """Whether `framegate.app` has to send that value itself."""
    def cors(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Fields for every answer to a request with these fields."""
    def refusal(self, error: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
        """The same of what it raised; `None` if that is not meant as an answer."""
    def routes(self) -> list[tuple[str, str]]:
        """Method and path of each route, in the order in which they are tried."""

def select_parts(
    method: str,
    headers: Sequence[tuple[bytes, bytes]],
    media_type: str,
    size: int,
    modified_ns: int,
) -> tuple[int, list[tuple[bytes, bytes]], list[bytes | tuple[int, int]]]:
    """What a GET or HEAD gets of a file of that type, size and time: a status (200, 206, 304, 412,
    416), fields that go with it, and the parts of the body: bytes, or the first byte of the file
    and the one behind the last.
    """

@final
class HandlerQueue:
    """Counts of one application's blocking handlers."""

    def __new__(cls, threads_max: int, queue_max: int) -> HandlerQueue: ...
    def enter(self) -> bool:
        """Counts one more; false, and counted as refused, when as many wait as may."""
    def leave(self) -> None:
        """One of those that entered has ended."""
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def refused(self) -> int: ...

@final
class ResponseSchema:
    """What a handler may return."""

    def __new__(cls, schema: str, python: Any) -> ResponseSchema: ...
    def faults(self, value: Any) -> list[tuple[str, str]]:
        """What is wrong with a value, each as a JSON pointer and a text. Nothing is with what is
        no JSON: bytes, what comes in pieces, and a `Response` whose status is no success.
        """

@final
class FormFields:
    """What a handler wants of the fields of a form."""

    def __new__(cls, arguments: Sequence[Any], python: Any) -> FormFields: ...
    def read(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
        """Arguments by their names, and what is wrong: `(part, name, detail)`."""
    def read_encoded(self, body: bytes) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
        """The same of a body that is `application/x-www-form-urlencoded`."""

@final
class FormReader:
    """Reads a `multipart/form-data` body as it arrives."""

    def __new__(cls, content_type: bytes, parts_max: int) -> FormReader: ...
    def feed(self, piece: bytes) -> list[Any]:
        """What a piece of the body brings: `(name, file, media_type)` where a part begins, `bytes`
        of it, `None` at its end. The end of the body is an empty piece.
        """

@final
class RuntimeRow:
    """The row of one worker in the runtime segment.

    Args:
        fd: Descriptor of the segment's file; may be closed afterwards.
        index: Number of the worker.

    Raises:
        `ValueError`: The file is no runtime segment of this version.
        `IndexError`: It has no such row.
        `OSError`: It cannot be mapped.
    """

    def __new__(cls, fd: int, index: int) -> RuntimeRow: ...
    def get(self, name: str) -> int:
        """One value by its name: a key of `RUNTIME_LAYOUT` that begins with `row_`, or of
        `RUNTIME_COUNTERS`.
        """

@final
class BodyHandle:
    """The body of one request, to be moved into shared memory."""

    @property
    def untouched(self) -> bool:
        """Whether nobody has read a byte of the body: it can be ingested natively."""
    def count_plain(self) -> None:
        """Count a body that went through Python because it had been read from before."""
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
    ) -> Future[tuple[int, int]]:
        """Move the whole body into a slot of the topic and publish it.

        Returns:
            An awaitable of `(sequence, bytes)`.
        """

@final
class TopicHandle(dict[str, Any]):
    """What a handler finds in the scope of an HTTP request. One for each connection. An empty
    dictionary to all others: extensions of ASGI are dictionaries, and scopes are printed as
    JSON.
    """

    def view(
        self,
        topic: str,
        query: str,
        *,
        method: str = "GET",
        accept: bytes | None = None,
        none_match: bytes | None = None,
    ) -> Future[FrameView]:
        """Open a view of a topic, to be the body of a response.

        Args:
            topic: Its name.
            query: As in the query of a frame route: `view=mjpeg&rate=10`.
            method: That of the request.
            accept: Its field `Accept`.
            `none_match`: Its field `If-None-Match`.

        Returns:
            An awaitable of a `FrameView`; what is refused is one too.
        """

@final
class FrameView:
    """A view whose response has not begun."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Fields of its response, as ASGI has them."""
    @property
    def sent(self) -> bool:
        """Whether its response has begun."""

@final
class SocketHandle(dict[str, Any]):
    """What a handler finds in the scope of a WebSocket; an empty dictionary, as extensions of ASGI
    are.
    """

    @property
    def accepted(self) -> bool:
        """Whether the WebSocket is accepted."""
    def publish(
        self,
        topic: str,
        *,
        dtype: str | None = None,
        shape: Sequence[int] | None = None,
        content_type: str | None = None,
        slots: int = 8,
        slot_bytes: int | None = None,
    ) -> Future[SocketSink]:
        """Make frames of the binary messages that come from now on.

        Returns:
            An awaitable of a `SocketSink`.
        """
    def watch(self, topic: str, query: str) -> Future[None]:
        """Send the frames of a topic, as the query of a frame route says, until `unwatch`.

        Returns:
            An awaitable of nothing: from then on frames are sent.
        """
    def unwatch(self) -> None:
        """Send no further frame."""

@final
class SocketSink:
    """Frames that a WebSocket makes."""

    @property
    def frames(self) -> int:
        """Frames that were published."""
    @property
    def dropped(self) -> int:
        """Messages that found no free slot."""
    def put(self, message: bytes) -> None:
        """Make a frame of a message that came before.

        Raises:
            `FrameTooLarge`: It is larger than a frame of the topic.
            `FrameTooShort`: It is shorter.
        """
    def check(self) -> None:
        """Raise what was wrong with a message, if one ended the WebSocket."""
    def close(self) -> None:
        """Messages are the handler's again."""

@final
class RequestSpan:
    """The span of one request; what is said of it after its end is dropped. May be used on any
    thread.
    """

    @property
    def trace_id(self) -> int:
        """The trace, as a number."""
    @property
    def span_id(self) -> int:
        """The span in it, as a number."""
    @property
    def is_sampled(self) -> bool:
        """Whether it is recorded."""
    @property
    def trace_state(self) -> str | None:
        """What vendors pass on: a valid `tracestate`, or nothing."""
    @property
    def baggage(self) -> str | None:
        """`baggage` of the request, as it came."""
    def is_recording(self) -> bool:
        """Whether it is recorded and has not ended."""
    def set_attribute(self, name: str, value: Any) -> None:
        """Sets an attribute."""
    def set_name(self, name: str) -> None:
        """Gives it another name."""
    def set_error(self, text: str) -> None:
        """It has failed, and why."""
    def set_well(self) -> None:
        """It has not failed, whatever else is said."""
    def add_event(self, name: str, attributes: Any, at_ns: int | None = None) -> None:
        """Something happened: now, or at nanoseconds of Unix time."""
    def add_link(self, trace_id: int, span_id: int, is_sampled: bool, attributes: Any) -> None:
        """It has to do with another span."""

@final
class TlsContext:
    """Certificates and keys of a configuration, ready to be served.

    Args:
        config: Settings by attribute, for instance `framegate.Config`.

    Raises:
        `CertificateError`: A file is missing, unreadable or damaged, or does not fit together
            with another one.
    """

    def __new__(cls, config: Any) -> TlsContext: ...
    @property
    def warnings(self) -> list[str]:
        """What is good now but will not be for long, one line each."""

_Pane: TypeAlias = tuple[str, list[str], str, list[list[str]]]

@final
class TopScreen:
    """A terminal that `platform topic top` draws on."""

    def __new__(cls) -> TopScreen: ...
    def close(self) -> None:
        """Give it back as it was. May be called again."""
    def draw(
        self,
        header: str,
        footer: str,
        topics: _Pane,
        selected: int,
        readers: _Pane | None = None,
        preview: tuple[str, bytes | None, list[str]] | None = None,
    ) -> None:
        """Draw everything anew; what did not change is not sent.

        Args:
            header: The first line.
            footer: The last line.
            topics: Title, columns, alignment (`>` is right) and rows of the table.
            selected: The row that is marked.
            readers: The same of a table below it.
            preview: Title, and a JPEG or lines, beside that.
        """
    def preview_size(self, has_readers: bool) -> tuple[int, int]:
        """Width and height in pixels of a preview: two to a character, one above the other."""
    def key(self, timeout: float) -> str | None:
        """The next key, or `resize`; None when none was pressed in time. Keys are characters or
        one of `up`, `down`, `page up`, `page down`, `home`, `end`, `enter`, `escape`,
        `backspace`, `ctrl-c`.
        """

@final
class Worker:
    """HTTP server of one event loop.

    Args:
        app: The ASGI application.
        config: Settings by attribute, for instance `framegate.Config`.
        state: The lifespan's state; each request gets a shallow copy. `None`: scopes have no
            state.
        tls: Certificates and keys, for listeners that speak TLS or redirect to it.
        `https_port`: Where redirects lead to.
        row: The worker's row of the runtime segment; heartbeats and counters go there.
        stalls: Seconds after which a loop that does not turn is told of, the socket where, and
            the signal of `faulthandler` or 0 (`framegate/stalls.py`).
        parent: Process id of the supervisor, and the seconds after its death in which the
            process has to have ended.
        `log_fd`: Where the access log goes, as JSON; it is duplicated. `None`: where and as the
            settings say.
        number: The worker's number, from 1 on, if it is one of several.
        events: What happens to connections and requests goes there.
        telemetry: What is exported to OpenTelemetry, and where to (`framegate/telemetry.py`).
        `plain_tasks`: Each request gets an ordinary task from its start, as on interpreters
            where the lazy one is not proven. Slower; for tests and for comparison.
    """

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
    def listen(
        self, fd: int, *, entry: str = "plain", proxied: bool = False, topics: bool = False
    ) -> None:
        """Accept connections from a socket that is bound and listens.

        Args:
            fd: File descriptor of a TCP or Unix socket. The worker owns it from here on, also
                when this fails: give it `socket.detach()` or `os.dup(...)`.
            entry: What is spoken there: `plain` HTTP, HTTP over `tls`, or a `redirect` to
                https.
            proxied: Whether connections begin with a header of the PROXY protocol.
            topics: Whether frame routes are served there, and nothing else, on the thread that
                never waits for Python.

        Raises:
            `OSError`: It is no socket, or cannot be used.
            `ValueError`: The socket does not listen, or is of another kind, or there are no
                certificates.
        """
    def reload_tls(self) -> None:
        """Read all certificates and keys anew; the outcome is logged. Open connections go on as
        they began.
        """
    def reload_topic_tokens(self) -> None:
        """Read the tokens of frame routes anew.

        Raises:
            `framegate.errors.ConfigError`: They are not as they should be; the old ones stay.
        """
    def reopen_log(self) -> None:
        """Open the file of the access log anew: whoever rotates logs has moved the old one. Soon,
        by the native thread.
        """
    def stop_accepting(self) -> None:
        """Stop accepting; open connections go on."""
    def drain(self, seconds: float, *, idle_seconds: float = 0.0) -> Future[int]:
        """Stop accepting, end all connections, each after the response it is sending, and wait for
        calls of the application that go on after their response (background tasks). After half
        of the time `receive()` says `http.disconnect` to streams; at the end calls that have
        not ended are cancelled.

        Args:
            seconds: After that long the rest is cut.
            `idle_seconds`: Connections without a request stay open for that long, and may send
                one more: for a worker whose successor accepts already. At most `seconds`.

        Returns:
            An awaitable of how many were cut: connections, or calls where those were more
            (HTTP/2, background tasks).
        """
    def close(self) -> None:
        """Stop accepting, cut all connections and end the native thread. Where connections are
        open, that is done when the loop has run once more. May be called again.
        """
    @property
    def connections(self) -> int:
        """Open connections."""
    @property
    def parked(self) -> int:
        """Idle connections that hold no buffers."""
    @property
    def accepted(self) -> int:
        """Connections accepted since the start."""
    @property
    def requests(self) -> int:
        """Requests since the start."""
    @property
    def ingested(self) -> tuple[int, int]:
        """Request bodies that became frames without Python, and those that went through it."""
    @property
    def lazy_tasks(self) -> bool:
        """Whether requests start without a task of their own."""

# The rest is only in builds with debug assertions, for tests.

@final
class _ThreadBound:
    """For tests of [`LoopBound`]: owns any object, for the thread that made it."""
    def __new__(cls, value: object) -> _ThreadBound: ...
    @property
    def value(self) -> Any:
        """The object; an error on another thread."""

@final
class _NativeThread:
    """For tests: a native thread whose log takes any line."""
    def __new__(cls, row: RuntimeRow | None = None, log_fd: int | None = None) -> _NativeThread: ...
    def log(self, line: bytes) -> None:
        """Add a line to the log."""
    def stop(self) -> None:
        """Wait for the end of the thread."""

def _make_picture(
    data: bytes,
    format: str,
    size: tuple[int, int],
    coding: str,
    query: str,
    pixels_max: int = ...,
) -> bytes:
    """For tests: what a viewer with this query gets of a frame. `format` is that of its pixels, or
    the coding that it has already.
    """

def _decode_picture(
    data: bytes, coding: str, pixels_max: int = ...
) -> tuple[str, tuple[int, int], bytes]:
    """Pixels of a coded picture: their format, width and height, and bytes."""

def _access_line(config: Any, record: dict[str, Any], number: int | None) -> bytes:
    """The line that the settings make of a record."""
