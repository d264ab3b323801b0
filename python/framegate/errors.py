"""Every exception of framegate. This docstring is the tree.

```
FramegateError
├── ConfigError                     an option is wrong (exit code 2)
├── ProtocolError
│   ├── LocalProtocolError          this side broke the rules: the application, or framegate
│   └── RemoteProtocolError         the peer broke the rules
├── ClientDisconnected (OSError)    the client went away while the application was sending
├── ClientError                     framegate.client: no WebSocket, or not any more
│   ├── ClientArgumentError (ValueError)  an address, a header or an option cannot be used
│   ├── ServerUnreachable (OSError)   the name is not known, or nothing answers there
│   ├── ProxyFailed (OSError)       the proxy did not open a way
│   ├── TlsFailed (OSError)         a certificate, or the handshake of TLS
│   ├── ClientTimeout (TimeoutError)  it took longer than it may
│   ├── HandshakeRefused            the server answered with something other than a WebSocket
│   ├── RequestRefused              the server answered a request of framegate.remote with an error
│   ├── HandshakeInvalid            the server's answer breaks the rules
│   └── ConnectionClosed            the WebSocket is closed
│       ├── ConnectionClosedOK      with 1000, 1001 or no code
│       └── ConnectionClosedError   with another code, or the connection was lost
├── RouteError (ValueError)         a native route cannot be: its path, or its handler's signature
├── ResponseInvalid                 a handler returned what its annotation does not allow
├── WorkerError                     a worker failed while it ran (exit code 1)
│   └── StartupFailed               it never got as far as serving (exit code 3)
│       ├── AppImportError          the application could not be imported, found or called
│       ├── CertificateError        a certificate, key or revocation list cannot be used
│       ├── WorkerStartFailed       this worker's own startup failed (scope framegate.worker)
│       └── ListenError             the socket could not be bound
├── RecordingError                  an MCAP file cannot be written, or is damaged
├── BridgeError                     frames cannot cross to other machines: framegate.bridge
└── ShmError                        shared memory
    ├── ShmArgumentError (ValueError)   an argument is outside its limits
    ├── TopicNameInvalid            the name breaks the grammar of topic names
    ├── TopicNotFound               no segment of that name
    ├── TopicExists                 a segment of that name exists and may not be replaced
    ├── TopicMoved                  the topic goes on in a new segment: open it again
    ├── TopicFull                   no free slot: every one is loaned, leased or the newest
    ├── FrameTooLarge               the payload does not fit into a slot
    ├── SchemaMismatch              dtype or shape is not what the topic holds
    │   └── FrameTooShort           a request body ends before the frame is full
    ├── LeaseQuotaExceeded          this subscriber already holds as many frames as it may
    ├── ChecksumMismatch            the bytes of a frame are not those that were published
    ├── MetadataFull                the metadata area of the topic has no room for that
    ├── LeaseLost                   the lease was taken away: its bytes may have changed
    ├── LoanLost                    the loan was taken away: nothing was published
    ├── ParticipantsExhausted       the topic has no room for one more publisher or subscriber
    ├── GroupsExhausted             the topic has no room for one more work-queue group
    ├── ShmTimeout (TimeoutError)   nothing happened in the time given
    ├── NoResponder                 nobody answers calls on this topic
    ├── ResponderDied               it died or closed before it answered
    ├── CallFailed                  the responder answered that it failed
    ├── CallerGone                  the caller died or closed before it was answered
    ├── CallsExhausted              this caller has as many calls in flight as it may
    ├── MailboxFull                 the mailbox of the addressee is full
    ├── SegmentIncompatible         written by another layout version or machine
    ├── SegmentCorrupt              its bytes contradict each other
    ├── NoSpace                     /dev/shm cannot hold it
    ├── PermissionDenied            it belongs to somebody else
    ├── RuntimeDirectoryError       the directory of all segments is missing or not safe to use
    ├── ForkedHandleError           the handle was opened before fork()
    ├── HandlePoisoned              this process lost the lock that shows it is alive
    └── ClosedError                 the handle was closed
```

Both native modules raise these classes, so one `except` works whichever language noticed. They pass
one string; Python code adds `cause` and `fix`, and the three become the lines that a person reads,
with `platform docs CODE` below them.
`code` is stable across releases: search engines and log filters may rely on it.
"""

from __future__ import annotations

# ruff: noqa: N818 (the names are what happened: TopicNotFound)
from collections.abc import Iterable
from typing import ClassVar, Final

__all__ = [
    "EXIT_CONFIG",
    "EXIT_RUNTIME",
    "EXIT_STARTUP",
    "EXIT_STOPPED",
    "AppImportError",
    "BridgeError",
    "CallFailed",
    "CallerGone",
    "CallsExhausted",
    "CertificateError",
    "ChecksumMismatch",
    "ClientArgumentError",
    "ClientDisconnected",
    "ClientError",
    "ClientTimeout",
    "ClosedError",
    "ConfigError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ForkedHandleError",
    "FrameTooLarge",
    "FrameTooShort",
    "FramegateError",
    "GroupsExhausted",
    "HandlePoisoned",
    "HandshakeInvalid",
    "HandshakeRefused",
    "LeaseLost",
    "LeaseQuotaExceeded",
    "ListenError",
    "LoanLost",
    "LocalProtocolError",
    "MailboxFull",
    "MetadataFull",
    "NoResponder",
    "NoSpace",
    "ParticipantsExhausted",
    "PermissionDenied",
    "ProtocolError",
    "ProxyFailed",
    "RecordingError",
    "RemoteProtocolError",
    "RequestRefused",
    "ResponderDied",
    "ResponseInvalid",
    "RouteError",
    "RuntimeDirectoryError",
    "SchemaMismatch",
    "SegmentCorrupt",
    "SegmentIncompatible",
    "ServerUnreachable",
    "ShmArgumentError",
    "ShmError",
    "ShmTimeout",
    "StartupFailed",
    "TlsFailed",
    "TopicExists",
    "TopicFull",
    "TopicMoved",
    "TopicNameInvalid",
    "TopicNotFound",
    "WorkerError",
    "WorkerStartFailed",
    "describe",
    "suggestion",
    "summary",
]

# Exit codes of `platform serve` and of every worker process.
EXIT_STOPPED: Final = 0
EXIT_RUNTIME: Final = 1
EXIT_CONFIG: Final = 2
EXIT_STARTUP: Final = 3


class FramegateError(Exception):
    """Base of all errors of framegate.

    Args:
        problem: What is wrong and where, in one line.
        cause: Why, if that is known and not obvious.
        fix: What the reader can do about it.
    """

    code: ClassVar[str] = "FG-000"
    """Stable name of the kind of error."""

    exit_code: ClassVar[int] = EXIT_RUNTIME
    """What a process that ends because of it exits with."""

    def __init__(self, problem: str = "", *, cause: str = "", fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.problem]
        if self.cause:
            lines.append(f"  cause: {self.cause}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ConfigError(FramegateError):
    """An option is unknown, out of range or contradicts another one."""

    code = "FG-CONFIG-001"
    exit_code = EXIT_CONFIG


class ProtocolError(FramegateError):
    """A rule of HTTP, WebSocket or ASGI was broken; the subclass says by whom."""

    code = "FG-PROTOCOL-001"


class LocalProtocolError(ProtocolError):
    """This side broke the rules, for example by sending a body longer than its content-length."""

    code = "FG-PROTOCOL-002"


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules."""

    code = "FG-PROTOCOL-003"


class ClientDisconnected(FramegateError, OSError):
    """The client went away; raised from `send`, as ASGI 2.4 demands an `OSError`."""

    code = "FG-CLIENT-001"


class ClientError(FramegateError):
    """Base of everything that goes wrong with `framegate.client`."""

    code = "FG-CLIENT-002"

    is_passing: bool = False
    """Whether the same attempt may succeed later."""


class ClientArgumentError(ClientError, ValueError):
    """An address, a header or an option cannot be used."""

    code = "FG-CLIENT-003"


class ServerUnreachable(ClientError, OSError):
    """The name of the host is not known, nothing answers there, or it broke off."""

    code = "FG-CLIENT-004"


class ProxyFailed(ClientError, OSError):
    """The proxy did not open the way to the server; `status` is what it answered, if it did."""

    code = "FG-CLIENT-005"

    status: int | None = None
    headers: list[tuple[str, str]] | None = None
    body: bytes = b""


class TlsFailed(ClientError, OSError):
    """A file of certificates cannot be used, or client and server do not trust each other."""

    code = "FG-CLIENT-006"


class ClientTimeout(ClientError, TimeoutError):
    """Opening took longer than it may, or no message came in the time given."""

    code = "FG-CLIENT-007"


class HandshakeRefused(ClientError):
    """The server answered, but not with a WebSocket.

    Attributes:
        status: Status of its answer.
        headers: Fields of its answer, with names in small letters.
        body: The beginning of its body, at most 64 KiB.
    """

    code = "FG-CLIENT-008"

    status: int = 0
    headers: list[tuple[str, str]] = []  # noqa: RUF012 (each instance gets its own)
    body: bytes = b""


class RequestRefused(ClientError):
    """The server answered a request of `framegate.remote` with an error that has no other name."""

    code = "FG-CLIENT-013"

    status: int = 0
    headers: list[tuple[str, str]] = []  # noqa: RUF012 (each instance gets its own)
    body: bytes = b""


class HandshakeInvalid(ClientError):
    """The server's answer to the opening handshake breaks the rules of the protocol."""

    code = "FG-CLIENT-009"


class ConnectionClosed(ClientError):
    """The WebSocket is closed.

    Attributes:
        close_code: The close code; 1005 when there was none, 1006 when the connection was lost.
        close_reason: The reason that came with it.
        by_server: Whether the server closed first, or the connection broke.
    """

    code = "FG-CLIENT-010"

    close_code: int = 1006
    close_reason: str = ""
    by_server: bool = False


class ConnectionClosedOK(ConnectionClosed):
    """The WebSocket was closed as it should: with 1000, 1001 or no code."""

    code = "FG-CLIENT-011"


class ConnectionClosedError(ConnectionClosed):
    """The WebSocket was closed with another code, or the connection was lost."""

    code = "FG-CLIENT-012"


class RouteError(FramegateError, ValueError):
    """A native route cannot be: its path is none, or no request has an argument of its handler."""

    code = "FG-ROUTE-001"
    exit_code = EXIT_STARTUP


class ResponseInvalid(FramegateError):
    """A handler returned what its annotation does not allow; the client got a 500.

    Only where responses are validated: `App(validate_responses=True)`.
    """

    code = "FG-ROUTE-003"


class WorkerError(FramegateError):
    """A worker failed while it ran."""

    code = "FG-WORKER-001"


class StartupFailed(WorkerError):
    """The worker never got as far as serving: it is not started again."""

    code = "FG-START-001"
    exit_code = EXIT_STARTUP


class AppImportError(StartupFailed):
    """The application could not be imported, found or called."""

    code = "FG-START-002"


class WorkerStartFailed(StartupFailed):
    """The startup of this one worker failed; a supervisor starts another in its place."""

    code = "FG-START-004"


class ListenError(StartupFailed):
    """The address could not be bound."""

    code = "FG-START-003"


class CertificateError(StartupFailed):
    """A certificate, key or revocation list is missing, damaged, or does not fit another one."""

    code = "FG-START-005"


class RecordingError(FramegateError):
    """An MCAP file cannot be created, written or read, or is damaged."""

    code = "FG-MCAP-001"


class BridgeError(FramegateError):
    """Eclipse Zenoh is missing, refuses its configuration, or cannot listen."""

    code = "FG-BRIDGE-001"


class ShmError(FramegateError):
    """Base of everything that goes wrong with shared memory."""

    code = "FG-SHM-001"


class TopicNotFound(ShmError):
    """No topic of that name exists."""

    code = "FG-SHM-002"


class TopicExists(ShmError):
    """The topic exists already, with a geometry or schema that the caller did not ask for."""

    code = "FG-SHM-003"


class TopicNameInvalid(ShmError):
    """The name breaks the grammar: 1 to 8 segments joined by `/`, at most 128 bytes."""

    code = "FG-SHM-004"


class TopicFull(ShmError):
    """No slot is free; a publisher never overwrites a frame that somebody holds."""

    code = "FG-SHM-005"


class FrameTooLarge(ShmError):
    """The payload is larger than a slot of the topic."""

    code = "FG-SHM-006"


class SchemaMismatch(ShmError):
    """The dtype, shape or names of arrays are not those of the topic."""

    code = "FG-SHM-007"


class FrameTooShort(SchemaMismatch):
    """The body of a request is shorter than dtype and shape demand: the client's mistake."""

    code = "FG-SHM-024"


class LeaseQuotaExceeded(ShmError):
    """The subscriber holds as many frames as it may; it must release one first."""

    code = "FG-SHM-008"


class ChecksumMismatch(ShmError):
    """The bytes of a frame are not those that were published; it was skipped and counted."""

    code = "FG-SHM-025"


class MetadataFull(ShmError):
    """What shall be appended does not fit into the topic's metadata area (`metadata_bytes`)."""

    code = "FG-SHM-026"


class ParticipantsExhausted(ShmError):
    """The topic has no room for one more publisher or subscriber."""

    code = "FG-SHM-009"


class SegmentIncompatible(ShmError):
    """The segment was written by another layout version, byte order or word size."""

    code = "FG-SHM-010"


class SegmentCorrupt(ShmError):
    """The bytes of the segment contradict each other; nothing in it was believed."""

    code = "FG-SHM-011"


class NoSpace(ShmError):
    """The file system of the segment (/dev/shm) has no room for it."""

    code = "FG-SHM-012"


class PermissionDenied(ShmError):
    """The segment, or the directory that holds it, belongs to somebody else."""

    code = "FG-SHM-013"


class ForkedHandleError(ShmError):
    """The handle was opened before `fork()`; the child must open its own."""

    code = "FG-SHM-014"


class ClosedError(ShmError):
    """The handle was closed."""

    code = "FG-SHM-015"


class ShmArgumentError(ShmError, ValueError):
    """An argument or option is outside its limits."""

    code = "FG-SHM-016"


class ShmTimeout(ShmError, TimeoutError):
    """Nothing happened in the time given."""

    code = "FG-SHM-017"


class LeaseLost(ShmError):
    """The lease was taken away: the bytes of the frame may have been overwritten."""

    code = "FG-SHM-018"


class LoanLost(ShmError):
    """The loan is not this publisher's any more: nothing was published."""

    code = "FG-SHM-019"


class TopicMoved(ShmError):
    """The topic was sealed and goes on in a new segment; open it again."""

    code = "FG-SHM-020"


class RuntimeDirectoryError(ShmError):
    """The directory that holds all segments is missing or not safe to use."""

    code = "FG-SHM-021"


class HandlePoisoned(ShmError):
    """This process lost the lock that shows it is alive; the handle is unusable."""

    code = "FG-SHM-022"


class GroupsExhausted(ShmError):
    """The topic has no room for one more work-queue group; join one, or end one."""

    code = "FG-SHM-031"


class NoResponder(ShmError):
    """Nobody answers calls on this topic: no responder lives."""

    code = "FG-SHM-027"


class ResponderDied(ShmError):
    """The responder died or closed before it answered; it may have done part of the work."""

    code = "FG-SHM-028"


class CallFailed(ShmError):
    """The responder answered that it failed; the text is its own."""

    code = "FG-SHM-029"


class MailboxFull(ShmError):
    """Everybody who could take the message has a full mailbox; nothing was sent to them."""

    code = "FG-SHM-030"


class CallerGone(ShmError):
    """The caller died or closed before it was answered."""

    code = "FG-SHM-032"


class CallsExhausted(ShmError):
    """This caller has as many calls in flight as it may."""

    code = "FG-SHM-033"


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest candidate, or nothing."""
    import difflib

    near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def summary(error: BaseException) -> str:
    """Return the type of somebody else's exception, and what it says if it says anything."""
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def describe(error: FramegateError) -> str:
    """Return what a person is shown: problem, cause and fix, where to read more, after the
    traceback of their own bug.

    The traceback is that of `__cause__`, which framegate sets only where user code raised.
    """
    text = f"error: {error.code} {error}\n  more: platform docs {error.code}"
    if error.__cause__ is None:
        return text
    return f"{_user_traceback(error.__cause__)}{text}"


def _user_traceback(error: BaseException) -> str:
    """Format a traceback from the first frame that is neither ours nor the import system's."""
    import os
    import traceback

    ours = os.path.dirname(__file__)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(ours) and "importlib" not in file:
            break
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))
