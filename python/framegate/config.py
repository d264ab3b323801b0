"""Every setting of framegate, once.

A setting is one line of `Config`: name, type, default, range, unit, and the reason for the default
(what values there are: `config_kinds.py`).
The command line, the environment, the configuration file, `--help` and `docs/reference/config.md`
are all read from that line, so none of them can disagree.

Where a value comes from, strongest first:

    command line > code > environment > file > default

- environment: `FRAMEGATE_<NAME>`; a few settings also honour the name that platforms set (`PORT`).
  What `--env-file` names adds to it (`env_file.py`).
- file: what `--config` names; else `framegate.toml` or `[tool.framegate]` of `pyproject.toml` in
  the current directory, or in the nearest one above it that has either.

`Config.origins` remembers which one won, and every complaint names it: whoever reads the message
must know which of five places to edit.

Names: uvicorn's spelling for every option that uvicorn has. A setting appears here only if it
works; `tests/config/test_effects.py` demands a test that shows its effect.
"""

from __future__ import annotations

# ruff: noqa: RUF009 (setting() declares a field, as dataclasses.field() does)
import contextlib
import dataclasses
import enum
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from framegate.config_kinds import (
    RATE_PATTERN,
    STANDARD_STREAMS,
    AccessFormat,
    AccessFunction,
    AdminBinds,
    Binds,
    Bytes,
    Choice,
    Ciphers,
    CollectorObject,
    FilePath,
    FilePaths,
    Flag,
    Headers,
    ImportString,
    Integer,
    Kind,
    LogConfig,
    LogTarget,
    MiddlewareList,
    OptionalFlag,
    Patterns,
    Peers,
    Prefix,
    Rate,
    Seconds,
    SecondsOrOff,
    Secret,
    Several,
    SocketPath,
    StaticMounts,
    Text,
    TokenTable,
    TopicRules,
    UrlPath,
    UrlPaths,
    rate_terms,
)
from framegate.errors import ConfigError, suggestion

__all__ = ["SETTINGS", "Config", "Origin", "Setting", "Source", "advice", "suggestion"]

T = TypeVar("T")

CONFIG_FILE: Final = "framegate.toml"
PROJECT_FILE: Final = "pyproject.toml"
ENVIRONMENT_PREFIX: Final = "FRAMEGATE_"

# Names under the prefix that are no settings: where things are and who has memory, before there is
# a server.
ENVIRONMENT_OTHERS: Final = frozenset({"FRAMEGATE_ALLOCATOR", "FRAMEGATE_RUNTIME_DIR"})


class Source(enum.IntEnum):
    """Kinds of origin, weakest first."""

    DEFAULT = 0
    FILE = 1
    PLATFORM = 2
    ENVIRONMENT = 3
    CODE = 4
    COMMAND_LINE = 5


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from.

    Attributes:
        source: Its rank.
        name: What a person looks for there: `--port`, `FRAMEGATE_PORT`, `framegate.toml: port`.
    """

    source: Source
    name: str

    def __str__(self) -> str:
        match self.source:
            case Source.DEFAULT:
                return "default"
            case Source.CODE:
                return f"code ({self.name})"
            case Source.COMMAND_LINE:
                return f"command line ({self.name})"
            case Source.ENVIRONMENT | Source.PLATFORM:
                return f"environment ({self.name})"
            case Source.FILE:
                return f"file ({self.name})"


# ----------------------------------------------------------------------------------------------
# The schema.


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: everything that all its faces are generated from."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    command_line: tuple[str, ...]
    environment: tuple[str, ...]

    @property
    def is_repeatable(self) -> bool:
        """Whether the command line may give it several times."""
        return isinstance(self.kind, Several)

    def parse(self, value: object, origin: Origin) -> Any:
        """Return the value in its Python form.

        Raises:
            ConfigError: One line: what was given and where, and what would be accepted.
        """
        if value is None and self.default is None:
            return None
        try:
            return self.kind.parse(value)
        except ValueError as error:
            if isinstance(self.kind, Secret):
                value = "***"
            raise ConfigError(f"{_quote(origin, value)}: {error}") from None


def _quote(origin: Origin, value: object) -> str:
    shown = value if isinstance(value, (str, int, float)) else repr(value)
    if origin.source is Source.COMMAND_LINE and isinstance(value, list) and len(value) == 1:
        shown = value[0]
    match origin.source:
        case Source.COMMAND_LINE:
            return f"{origin.name} {shown}"
        case Source.FILE:
            return f"{origin.name} = {shown}"
        case _:
            return f"{origin.name}={shown}"


def setting(
    default: T,
    kind: Kind,
    *,
    group: str,
    help: str,
    command_line: tuple[str, ...] | None = None,
    environment: tuple[str, ...] = (),
) -> T:
    """Declare a field of `Config`.

    Args:
        default: Its default value.
        kind: What values it takes.
        group: Heading in `--help` and in the reference.
        help: What it does, and the reason for the default or the range.
        command_line: Spellings, if not `--<name>`; none for what nobody is to read in a list of
            processes, or in a configuration file that is copied around.
        environment: Names beside `FRAMEGATE_<NAME>`, weaker than that one.
    """
    metadata = {
        "kind": kind,
        "group": group,
        "help": help,
        "command_line": command_line,
        "environment": environment,
    }
    return field(default=default, metadata=metadata, repr=not isinstance(kind, Secret))


LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LifespanMode = Literal["auto", "on", "off"]
TlsVersions = Literal["all", "tls1.2", "tls1.3"]
ClientCertificates = Literal["none", "optional", "required"]
PerMessageDeflate = Literal["shared", "context", "off"]
HttpVersions = Literal["auto", "1", "2"]
LogFormat = Literal["text", "json"]
CompressLevel = Literal["fast", "balanced", "small"]
ForwardedHeaders = Literal["auto", "x-forwarded", "forwarded"]

APPLICATION: Final = "Application"
LISTENING: Final = "Listening"
PROXIES: Final = "Proxies"
TLS: Final = "TLS"
LIFE: Final = "Workers and their life"
LIMITS: Final = "Limits"
WEBSOCKET: Final = "WebSocket"
RESPONSES: Final = "Responses"
STATIC: Final = "Static files"
TOPICS: Final = "Frame routes"
LOGGING: Final = "Logging"
OPERATION: Final = "Health, metrics and traces"
DEVELOPMENT: Final = "Development"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of one server, checked and frozen.

    `Config(port=0)` takes what is given and defaults for the rest. `Config.load` also reads the
    environment and the file, as `framegate.run` and the command line do.

    Raises:
        ConfigError: A value is out of range or contradicts another one.
    """

    app: str | Callable[..., Any] | None = setting(
        None,
        ImportString(),
        group=APPLICATION,
        command_line=("app",),
        help="The ASGI application. Several workers need the string: each imports it anew.",
    )
    factory: bool = setting(
        False,
        Flag(),
        group=APPLICATION,
        command_line=("--factory",),
        help="Treat the application as a function without arguments that returns it.",
    )
    app_dir: str = setting(
        ".",
        FilePath(placeholder="DIRECTORY"),
        group=APPLICATION,
        help="Directory put in front of sys.path before the application is imported.",
    )
    middleware: tuple[tuple[Any, dict[str, Any]], ...] = setting(
        (),
        MiddlewareList(),
        group=APPLICATION,
        help=(
            "ASGI middleware around the application, outermost first; may be given several times. "
            "Each factory is called with the application and its options."
        ),
    )
    env_file: str | None = setting(
        None,
        FilePath(placeholder="FILE"),
        group=APPLICATION,
        help=(
            "Read environment variables from this file (NAME=value) before the application is "
            "imported, as python-dotenv does. Those that exist already are kept. FRAMEGATE_* in it "
            "are settings. Each worker that starts reads it anew."
        ),
    )
    lifespan: LifespanMode = setting(
        "auto",
        Choice(words=("auto", "on", "off")),
        group=APPLICATION,
        help=(
            "Send ASGI lifespan events: auto serves on if the application does not know them, "
            "on makes that an error, off sends none."
        ),
    )
    worker_scope: LifespanMode = setting(
        "auto",
        Choice(words=("auto", "on", "off")),
        group=APPLICATION,
        help=(
            "Send the events of each worker in the scope framegate.worker: auto serves on if the "
            "application does not know it, on makes that an error, off sends none."
        ),
    )
    root_path: str = setting(
        "",
        Text(
            placeholder="PATH",
            pattern=r"(/[^\x00-\x20\x7f?#]*[^\x00-\x20\x7f?#/])?",
            expectation="nothing, or a path that begins with / and does not end with one",
        ),
        group=APPLICATION,
        help="Prefix under which a proxy mounts the application; becomes root_path of the scope.",
    )
    host: str = setting(
        "127.0.0.1",
        Text(
            placeholder="ADDRESS",
            pattern=r"[^\x00-\x20\x7f/]+",
            expectation="an address or a host name",
        ),
        group=LISTENING,
        environment=("HOST",),
        help=(
            "Address to listen on. Loopback unless asked: a server without authentication "
            "should be opened to the network on purpose. localhost is 127.0.0.1 and ::1, "
            "* is all addresses, IPv4 and IPv6; :: is IPv6 alone."
        ),
    )
    port: int = setting(
        8000,
        Integer(minimum=0, maximum=65535),
        group=LISTENING,
        environment=("PORT",),
        help="Port to listen on; 0 takes a free one, which the start-up lines show.",
    )
    uds: str | None = setting(
        None,
        SocketPath(
            placeholder="PATH",
            pattern=r"[^\x00]+",
            expectation="a path of at most 107 bytes (the size of sun_path)",
        ),
        group=LISTENING,
        help=(
            "Listen on this Unix socket in place of host and port; all workers share it. @name is "
            "one in the abstract namespace. Its mode and owner: bind."
        ),
    )
    fd: int | None = setting(
        None,
        Integer(minimum=0, maximum=2**20),
        group=LISTENING,
        help="Listen on this inherited file descriptor of a bound stream socket.",
    )
    bind: tuple[str, ...] = setting(
        (),
        Binds(),
        group=LISTENING,
        help=(
            "Listen here, in place of host and port, uds and fd; may be given several times. "
            "Every worker serves all of them."
        ),
    )
    http: HttpVersions = setting(
        "auto",
        Choice(words=("auto", "1", "2")),
        group=LISTENING,
        help=(
            "Version of HTTP: auto serves what the client speaks (HTTP/2 by prior knowledge or as "
            "TLS agrees on it), 1 and 2 serve that one only."
        ),
    )
    backlog: int = setting(
        2048,
        Integer(minimum=1, maximum=65535),
        group=LISTENING,
        help=(
            "Connections that may wait to be accepted, per worker. Linux caps it at "
            "net.core.somaxconn (4096)."
        ),
    )
    forwarded_allow_ips: tuple[str, ...] = setting(
        (),
        Peers(),
        group=PROXIES,
        environment=("FORWARDED_ALLOW_IPS",),
        help=(
            "Proxies that are believed when they say whom they speak for (X-Forwarded-For and its "
            "kin, Forwarded, X-Request-ID, PROXY headers). Nobody unless set, also not 127.0.0.1: "
            "whoever can connect could say anything. From others such headers are taken out."
        ),
    )
    forwarded_headers: ForwardedHeaders = setting(
        "auto",
        Choice(words=("auto", "x-forwarded", "forwarded")),
        group=PROXIES,
        help=(
            "Headers that the proxies write: X-Forwarded-* or Forwarded (RFC 7239). auto reads "
            "X-Forwarded-* if there is any, else Forwarded. The other ones are taken out: a proxy "
            "passes on what clients send of them."
        ),
    )
    request_id: bool = setting(
        False,
        Flag(),
        group=PROXIES,
        help=(
            "Give every request a name: what a trusted proxy says in X-Request-ID, else a new one. "
            "It is in the response, in scope extensions and in the access log. Off, because it "
            "makes each request a little dearer."
        ),
    )
    ssl_certfile: tuple[str, ...] = setting(
        (),
        FilePaths(),
        group=TLS,
        help=(
            "Speak TLS with this certificate (PEM: the server's own first, then those between it "
            "and the root). May be given several times: the client's SNI chooses, the first one "
            "serves everybody else. Read anew when it changes, and on SIGHUP."
        ),
    )
    ssl_keyfile: tuple[str, ...] = setting(
        (),
        FilePaths(),
        group=TLS,
        help=(
            "Private key (PEM) of each --ssl-certfile, in the same order; without it, the key is "
            "in the certificate's file."
        ),
    )
    ssl_keyfile_password: str | None = setting(
        None,
        Secret(),
        group=TLS,
        help=(
            "Password of encrypted keys. Everybody on the machine can read it on the command "
            "line: use the environment, or --ssl-keyfile-password-file."
        ),
    )
    ssl_keyfile_password_file: str | None = setting(
        None,
        FilePath(placeholder="FILE"),
        group=TLS,
        help="File whose first line is the password of encrypted keys.",
    )
    ssl_version: TlsVersions = setting(
        "all",
        Choice(words=("all", "tls1.2", "tls1.3"), numbers=((2, "all"), (17, "all"), (5, "tls1.2"))),
        group=TLS,
        help=(
            "TLS versions: all is 1.2 and 1.3, of which clients take the newest they have. "
            "Numbers of Python's ssl.PROTOCOL_* also work."
        ),
    )
    ssl_ciphers: tuple[str, ...] = setting(
        (),
        Ciphers(),
        group=TLS,
        help=(
            "Cipher suites, such as ECDHE-RSA-AES256-GCM-SHA384. Restricts a TLS version only if "
            "it names a suite of that version. All that exist here are good: leave it out."
        ),
    )
    ssl_cert_reqs: ClientCertificates = setting(
        "none",
        Choice(
            words=("none", "optional", "required"),
            numbers=((0, "none"), (1, "optional"), (2, "required")),
        ),
        group=TLS,
        help=(
            "Whether clients show certificates (mTLS): optional lets clients without one in, but "
            "nobody with a bad one. Numbers of Python's ssl.CERT_* also work."
        ),
    )
    ssl_ca_certs: tuple[str, ...] = setting(
        (),
        FilePaths(),
        group=TLS,
        help="Authorities (PEM) whose client certificates are accepted; repeatable.",
    )
    ssl_ca_system: bool = setting(
        False,
        Flag(),
        group=TLS,
        help=(
            "Accept client certificates of every authority that this system trusts. Off: the "
            "public ones vouch for names on the internet, not for your clients."
        ),
    )
    ssl_crl: tuple[str, ...] = setting(
        (),
        FilePaths(),
        group=TLS,
        help=(
            "Revocation list (PEM); repeatable. With any, each authority in a client's chain needs "
            "one that has not expired, as in nginx."
        ),
    )
    https_redirect_bind: tuple[str, ...] = setting(
        (),
        Binds(),
        group=TLS,
        help=(
            "Listen here for plain HTTP as well, and redirect it to https with 308, for names of "
            "the certificates only; as --bind, and repeatable. ACME challenges reach the "
            "application."
        ),
    )
    https_redirect_port: int | None = setting(
        None,
        Integer(minimum=1, maximum=65535),
        group=TLS,
        help=(
            "Port that redirects lead to, where clients reach this server by another one than it "
            "listens on (containers, NAT). By default that of the first address."
        ),
    )
    ssl_handshake_timeout: float = setting(
        10.0,
        Seconds(minimum=0.1),
        group=TLS,
        help="Time for a TLS handshake: two round trips, with packets lost on a bad network.",
    )
    ssl_handshakes_max: int = setting(
        512,
        Integer(minimum=1, maximum=1_000_000),
        group=TLS,
        help=(
            "TLS handshakes under way at a time, per worker; more clients wait in the kernel's "
            "queue, and those that stand still for a second make room. Each costs up to some "
            "milliseconds."
        ),
    )
    workers: int = setting(
        1,
        Integer(minimum=0, maximum=512),
        group=LIFE,
        environment=("WEB_CONCURRENCY",),
        help=(
            "Worker processes. One runs in this process; more get a supervisor, "
            "which replaces those that crash. 0 is one per core that may be used: of the affinity "
            "mask and within the CPU quota of the control group."
        ),
    )
    worker_restarts_max: int = setting(
        5,
        Integer(minimum=0, maximum=1000),
        group=LIFE,
        help=(
            "How often within a minute one worker may crash and is started again; once more stops "
            "the server with exit code 1. A rare flaw must not stop a server, a loop must."
        ),
    )
    worker_timeout: float = setting(
        0.0,
        Seconds(minimum=0.0),
        group=LIFE,
        help=(
            "Kill and replace a worker whose event loop has stood still for so long. 0 is never: "
            "a worker that computes is busy, not dead; it is logged with its stack in any case."
        ),
    )
    limit_max_requests: int | None = setting(
        None,
        Integer(minimum=1),
        group=LIFE,
        help=(
            "Replace a worker after so many requests, against leaks; without losing any. Looked at "
            "twice a second, so somewhat more may be served."
        ),
    )
    limit_max_requests_jitter: int = setting(
        0,
        Integer(minimum=0),
        group=LIFE,
        help=(
            "Add a random number up to this one to limit_max_requests, anew for each worker: all "
            "of them would be due in the same moment otherwise."
        ),
    )
    limit_max_rss: int | None = setting(
        None,
        Bytes(minimum=2**20, maximum=2**62),
        group=LIFE,
        help=(
            "Replace a worker that has more resident memory of its own: without files and shared "
            "memory. "
            "Leave room: for a moment there are the old one and the new one."
        ),
    )
    limit_max_lifetime: float | None = setting(
        None,
        Seconds(minimum=0.1, maximum=366 * 86_400.0),
        group=LIFE,
        help="Replace a worker after so long, one after the other.",
    )
    huge_pages: bool = setting(
        True,
        Flag(),
        group=LIFE,
        help=(
            "Move the heap into pages of 2 MiB after startup: fewer TLB misses in the code of a "
            "framework, for at most a tenth more heap. Linux 6.1; has no effect where "
            "transparent_hugepage is set to never."
        ),
    )
    timeout_startup: float = setting(
        60.0,
        Seconds(minimum=0.1),
        group=LIFE,
        help=(
            "Import of the application plus lifespan startup. A minute loads large models; "
            "a worker that hangs must not look like one that starts."
        ),
    )
    timeout_worker_startup: float = setting(
        30.0,
        Seconds(minimum=0.1),
        group=LIFE,
        help=(
            "Startup of the scope framegate.worker, after that of the lifespan. Half a minute "
            "fills caches; a worker that takes longer is replaced, like one that crashed."
        ),
    )
    timeout_worker_shutdown: float = setting(
        10.0,
        Seconds(minimum=0.0),
        group=LIFE,
        help=(
            "Shutdown of the scope framegate.worker, before that of the lifespan. Enough to write "
            "something down; it comes on top of the grace period."
        ),
    )
    timeout_graceful_shutdown: float = setting(
        30.0,
        Seconds(minimum=0.0),
        group=LIFE,
        help=(
            "How long requests may finish after SIGTERM or Ctrl-C before they are cut. As long as "
            "Kubernetes waits; never endless, because stopping must stop."
        ),
    )
    timeout_keep_alive: float = setting(
        75.0,
        Seconds(minimum=0.1),
        group=LIMITS,
        help=(
            "Close a connection that is idle for so long. Longer than the 60 s of common proxies: "
            "a shorter one answers 502 now and then."
        ),
    )
    timeout_header: float = setting(
        10.0,
        Seconds(minimum=0.1),
        group=LIMITS,
        help=(
            "Time for a whole request head to arrive, against clients that trickle bytes; "
            "more is answered with 408."
        ),
    )
    timeout_body: float = setting(
        60.0,
        Seconds(minimum=0.1),
        group=LIMITS,
        help=(
            "Time from one byte of a request body to the next while the application waits for "
            "them; more is answered with 408. As in nginx: phones change networks within 30 s. "
            "The time of an application that does not read does not count."
        ),
    )
    timeout_write: float = setting(
        30.0,
        Seconds(minimum=0.1),
        group=LIMITS,
        help=(
            "Cut a client that reads nothing for so long while bytes wait for it; the application "
            "gets http.disconnect. Slow but steady readers are not concerned. The kernel drops "
            "what it could not deliver after as long, also when the connection is closed here."
        ),
    )
    timeout_half_close: float = setting(
        1.0,
        Seconds(minimum=0.0, maximum=3600.0),
        group=LIMITS,
        help=(
            "How long a client that has closed its side after a whole request is still answered "
            "while nothing is written to it: it may read on, or be gone. A second is more than "
            "most answers take; then the application gets http.disconnect. 0: at once."
        ),
    )
    timeout_linger: float = setting(
        2.0,
        Seconds(minimum=0.0, maximum=60.0),
        group=LIMITS,
        help=(
            "How long to read and drop what a client still sends after the last response of its "
            "connection; an early close could destroy that response on its way."
        ),
    )
    header_bytes_max: int = setting(
        65_536,
        Bytes(minimum=8192, maximum=16 * 2**20),
        group=LIMITS,
        help="Size of a request head. Fits large cookies and tokens; more is answered with 431.",
    )
    header_count_max: int = setting(
        100,
        Integer(minimum=1, maximum=4096),
        group=LIMITS,
        help="Header fields of a request. Browsers send about 20; more is answered with 431.",
    )
    http2_max_concurrent_streams: int = setting(
        128,
        Integer(minimum=1, maximum=10_000),
        group=LIMITS,
        help=(
            "Requests at once on a connection of HTTP/2. Browsers use up to 100; more are refused "
            "and repeated by the client. Twice as many calls of the application may be running."
        ),
    )
    http2_initial_stream_window_size: int = setting(
        256 * 2**10,
        Bytes(minimum=65_535, maximum=2**31 - 1),
        group=LIMITS,
        help=(
            "Bytes of one request's body that a client of HTTP/2 may send ahead of the "
            "application. With a round trip of 10 ms the default is 25 MB/s for one upload."
        ),
    )
    http2_initial_connection_window_size: int = setting(
        2**20,
        Bytes(minimum=65_535, maximum=2**31 - 1),
        group=LIMITS,
        help=(
            "The same for all requests of a connection together: it bounds the memory of their "
            "bodies."
        ),
    )
    http2_keep_alive_interval: float = setting(
        20.0,
        Seconds(minimum=0.1),
        group=LIMITS,
        help=(
            "Ask a silent client of HTTP/2 that waits for a response whether it is still there, "
            "after so long; close the connection after as long again without an answer. Clients "
            "that lose their network say nothing."
        ),
    )
    target_bytes_max: int = setting(
        16_384,
        Bytes(minimum=256, maximum=65_534),
        group=LIMITS,
        help=(
            "Size of a request target (path and query). Browsers and proxies stop at 8 KiB; more "
            "is answered with 414."
        ),
    )
    max_body: int | None = setting(
        None,
        Bytes(minimum=0, maximum=2**62),
        group=LIMITS,
        help=(
            "Size of a request body; more is answered with 413. Unlimited unless set, because "
            "bodies are streamed: memory is bounded whatever their size."
        ),
    )
    body_rate_min: int = setting(
        0,
        Integer(minimum=0, maximum=2**30),
        group=LIMITS,
        help=(
            "Bytes per second that a request body must bring on average over timeout_body, while "
            "the application waits for them. Off, because clients that stream events send little."
        ),
    )
    limit_concurrency: int | None = setting(
        None,
        Integer(minimum=1),
        group=LIMITS,
        help=(
            "Connections at a time, per worker; requests on others are answered with 503. "
            "Unlimited unless set: idle ones cost a few KiB, and open files bound them."
        ),
    )
    limit_connections: int | None = setting(
        None,
        Integer(minimum=1),
        group=LIMITS,
        help=(
            "Connections at a time of all workers together; more are answered with 503, or closed "
            "before a TLS handshake. Unlimited unless set, as limit_concurrency, which is per "
            "worker."
        ),
    )
    limit_requests: int | None = setting(
        None,
        Integer(minimum=1),
        group=LIMITS,
        help=(
            "Requests at a time of all workers together, WebSockets aside; more wait in a queue. "
            "Unlimited unless set: how many are good is for the application to say."
        ),
    )
    limit_queue: int = setting(
        100,
        Integer(minimum=0, maximum=1_000_000),
        group=LIMITS,
        help=(
            "Requests of all workers together that may wait for limit_requests; more are answered "
            "with 503 at once: a queue that grows makes everybody late and nobody served."
        ),
    )
    limit_queue_timeout: float = setting(
        1.0,
        Seconds(minimum=0.0, maximum=3600.0),
        group=LIMITS,
        help=(
            "How long a request waits for limit_requests before it is answered with 503. A second "
            "outlasts a burst; whoever waited longer has mostly given up."
        ),
    )
    rate_limit: str | None = setting(
        None,
        Rate("N/TIME", RATE_PATTERN, "a rate such as 100/s, 600/m, or 600/m:50 (50 at once)"),
        group=LIMITS,
        help=(
            "Requests of one client (its address behind trusted proxies, of IPv6 the /64), for all "
            "workers together; more are answered with 429. N at once unless :BURST follows."
        ),
    )
    rate_limit_key: str | None = setting(
        None,
        Rate(
            "HEADER=N/TIME",
            r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}=" + RATE_PATTERN,
            "a header and a rate, such as x-api-key=100/s or authorization=600/m:50",
        ),
        group=LIMITS,
        help=(
            "Requests with the same value in this header, for all workers together; more are "
            "answered with 429. Values are kept as hashes with a random seed."
        ),
    )
    rate_limit_entries: int = setting(
        65_536,
        Integer(minimum=8, maximum=2**24),
        group=LIMITS,
        help=(
            "Clients, and keys, whose rate is known at a time: 16 bytes for each of the two. When "
            "there are more, newcomers begin with the debt of the one that they replace."
        ),
    )
    limit_exempt_paths: tuple[str, ...] = setting(
        (),
        Patterns(),
        group=LIMITS,
        help=(
            "Paths that count for no limit but that of connections, such as /health: probes must "
            "be answered under load."
        ),
    )
    keep_alive_max_requests: int | None = setting(
        None,
        Integer(minimum=1),
        group=LIMITS,
        help=(
            "Requests on one connection; the last response closes it. Unlimited unless set: a "
            "limit spreads long-lived connections over the workers again."
        ),
    )
    ws_max_size: int = setting(
        16 * 2**20,
        Bytes(minimum=1, maximum=2**32),
        group=LIMITS,
        help="Size of a WebSocket message; a larger one closes the connection with 1009.",
    )
    ws_ping_interval: float | None = setting(
        20.0,
        SecondsOrOff(minimum=0.1),
        group=LIMITS,
        help=(
            "Send a ping over a WebSocket whose client has been silent for so long. It finds "
            "clients that vanished, and keeps proxies from forgetting the connection."
        ),
    )
    ws_ping_timeout: float | None = setting(
        20.0,
        SecondsOrOff(minimum=0.1),
        group=LIMITS,
        help=(
            "Give a WebSocket up (1006) when nothing at all came from its client for so long after "
            "a ping. Time in which the application blocks the event loop does not count."
        ),
    )
    send_buffer_bytes: int = setting(
        65_536,
        Bytes(minimum=1024, maximum=2**30),
        group=LIMITS,
        help=(
            "Unsent bytes per connection above which send() waits. The high-water mark of asyncio; "
            "it bounds memory per slow client."
        ),
    )
    ws_per_message_deflate: PerMessageDeflate = setting(
        "shared",
        Choice(words=("shared", "context", "off"), flag=("shared", "off")),
        group=WEBSOCKET,
        help=(
            "Compress WebSocket messages for clients that offer it. shared (also true) compresses "
            "each message by itself and costs a connection no memory; context refers to earlier "
            "messages, which makes similar small ones much smaller and costs about 200 KiB per "
            "connection."
        ),
    )
    ws_deflate_min_size: int = setting(
        64,
        Bytes(minimum=1, maximum=2**32),
        group=WEBSOCKET,
        help=(
            "WebSocket messages below this leave as they are: a few bytes less do not make a "
            "packet less. Messages that would not get smaller are never compressed."
        ),
    )
    ws_deflate_max_contexts: int = setting(
        256,
        Integer(minimum=0, maximum=2**20),
        group=WEBSOCKET,
        help=(
            "WebSockets per worker that may keep a context, which is about 50 MB; above it "
            "their messages are compressed as in shared."
        ),
    )
    date_header: bool = setting(
        True,
        Flag(),
        group=RESPONSES,
        help="Add a date header, as RFC 9110 asks of a server with a clock.",
    )
    server_header: bool = setting(
        True,
        Flag(),
        group=RESPONSES,
        help="Add the header `server: framegate`.",
    )
    headers: tuple[tuple[str, str], ...] = setting(
        (),
        Headers(),
        group=RESPONSES,
        command_line=("--header",),
        help="Header added to every response; may be given several times.",
    )
    compress: bool = setting(
        False,
        Flag(),
        group=RESPONSES,
        help=(
            "Compress responses for clients that accept it: zstd, br or gzip, by their weights. "
            "Off, because proxies do it, and applications by middleware. Event streams, files, "
            "parts (206) and what is encoded already are left alone."
        ),
    )
    compress_min_size: int = setting(
        1024,
        Bytes(minimum=0, maximum=2**40),
        group=RESPONSES,
        help=(
            "Responses that are known to be smaller are not compressed: they fit into one packet "
            "as they are."
        ),
    )
    compress_types: tuple[str, ...] = setting(
        (),
        Patterns(placeholder="TYPE"),
        group=RESPONSES,
        command_line=("--compress-type",),
        help=(
            "Media type that is compressed, such as text/* or application/json; repeatable, in "
            "place of the default: text, JSON, XML, JavaScript, WebAssembly, SVG, fonts that are "
            "not packed."
        ),
    )
    compress_level: CompressLevel = setting(
        "balanced",
        Choice(words=("fast", "balanced", "small")),
        group=RESPONSES,
        help=("How hard to compress: zstd 1, 3 or 9, br 1, 4 or 8, gzip 1, 5 or 9."),
    )
    compress_cookies: bool = setting(
        False,
        Flag(),
        group=RESPONSES,
        help=(
            "Also compress responses that set cookies. Off: who can have his own words compressed "
            "together with a secret learns it from the size (BREACH)."
        ),
    )
    static: tuple[tuple[str, str], ...] = setting(
        (),
        StaticMounts(),
        group=STATIC,
        help=(
            "Serve the files below a directory at the paths below a prefix, without the "
            "application; may be given several times, the longest prefix counts. Hidden files and "
            "links out of the directory are not served, directories are not listed."
        ),
    )
    static_cache_control: str = setting(
        "no-cache",
        Text(
            placeholder="VALUE",
            pattern=r"[\x21-\x7e]*( [\x21-\x7e]+)*",
            expectation="the value of a Cache-Control header, or nothing",
        ),
        group=STATIC,
        help=(
            "Cache-Control of static files. The default lets caches keep them and ask each time "
            "whether they changed, which costs no more than a 304; nobody sees an old file."
        ),
    )
    static_immutable: tuple[str, ...] = setting(
        (),
        Patterns(),
        group=STATIC,
        help=(
            "Static files that never change because a hash in their name does, such as "
            "*.????????.js or, with a slash, /assets/*: clients keep them for a year and do not "
            "ask; repeatable. * is anything, ? one character."
        ),
    )
    static_precompressed: bool = setting(
        True,
        Flag(),
        group=STATIC,
        help=(
            "Send name.zst, name.br or name.gz in place of a text file to clients that accept it, "
            "if it lies beside the file and is not older."
        ),
    )
    topics: str | None = setting(
        None,
        Prefix(expectation="a path such as /topics; / alone would hide the application"),
        group=TOPICS,
        help=(
            "Serve topics of shared memory at the paths below this prefix, without the "
            "application: POST publishes a frame, GET reads the newest. Off unless set."
        ),
    )
    topics_bind: tuple[str, ...] = setting(
        (),
        Binds(),
        group=TOPICS,
        help=(
            "Serve the frame routes here as well, and nothing else, on a thread of each worker "
            "that never waits for Python: nobody there notices a handler that blocks. As --bind, "
            "and repeatable. Needs topics. Off by default."
        ),
    )
    live: str | None = setting(
        None,
        Prefix(expectation="a path such as /live; / alone would hide the application"),
        group=TOPICS,
        help=(
            "Serve a page at this path that shows the topics as they are now: pictures, plots, "
            "rates, sizes. What it may show is what its viewer may read (topics_access and "
            "tokens). Needs topics. Off unless set."
        ),
    )
    topic_rules: tuple[tuple[str, dict[str, Any]], ...] = setting(
        (),
        TopicRules(),
        group=TOPICS,
        help=(
            "What the frame routes know of topics whose names fit a pattern; the first that fits "
            "counts; * is one part of a name, ** at its end all that are left. With create, POST "
            "makes the topic: of so many slots (8) of slot_bytes, or of one dtype and shape. A "
            "request never says sizes. With decode, a JPEG or PNG that is posted becomes an array "
            "of its pixels, else it is kept as it is."
        ),
    )
    topics_max: int = setting(
        64,
        Integer(minimum=1, maximum=4096),
        group=TOPICS,
        help=(
            "Topics that the runtime directory may have when a frame route creates another one "
            "(507 beyond), and that each worker keeps open. All topics together take at most half "
            "of the memory that its file system has for them."
        ),
    )
    topics_wait: float = setting(
        1.0,
        Seconds(maximum=60.0),
        group=TOPICS,
        help=(
            "Time that a frame waits for a free slot before 503. Consumers hold frames for "
            "milliseconds, so a second says that something is wrong."
        ),
    )
    topics_parts_max: int = setting(
        64,
        Integer(minimum=1, maximum=4096),
        group=TOPICS,
        help=(
            "Parts of one form (multipart/form-data) that is posted to a topic, fields included. "
            "A form is what somebody filled in; cameras send multipart/mixed, without this limit."
        ),
    )
    topics_poll: float = setting(
        30.0,
        Seconds(maximum=3600.0),
        group=TOPICS,
        help=(
            "The longest time that GET with after= waits for a newer frame, before 204. Half of "
            "what proxies wait for an answer (60 s in nginx)."
        ),
    )
    topics_calls: str | None = setting(
        "/call",
        Prefix(
            pattern=f"{Prefix.SEGMENT}*",
            expectation="a path such as /call, or nothing",
        ),
        group=TOPICS,
        help=(
            "Prefix of calls, where topics are served: POST to a topic below it asks one of its "
            "responders and answers with the reply. Nothing: no calls."
        ),
    )
    topics_call_timeout: float = setting(
        5.0,
        Seconds(minimum=0.001, maximum=3600.0),
        group=TOPICS,
        help=(
            "Time for the reply to a call that does not say ?timeout=, before 504; the same as "
            "for framegate.call."
        ),
    )
    topics_call_timeout_max: float = setting(
        50.0,
        Seconds(minimum=0.001, maximum=3600.0),
        group=TOPICS,
        help=(
            "The longest time that ?timeout= of a call may say; longer ones are cut to it. Less "
            "than proxies wait for an answer (60 s in nginx)."
        ),
    )
    topics_calls_max: int = setting(
        256,
        Integer(minimum=1, maximum=65_536),
        group=TOPICS,
        help=(
            "Calls in flight at once, per worker; more are answered with 503 before their body is "
            "read. Each holds a slot of its topic and a connection; a mailbox has room for 63."
        ),
    )
    topics_token_file: str | None = setting(
        None,
        FilePath(placeholder="FILE"),
        group=TOPICS,
        help=(
            "Bearer tokens, and what each allows with which topics: a table in TOML per token. "
            "Nobody else may be able to read the file. Read anew on SIGHUP."
        ),
    )
    topics_tokens: dict[str, Any] | None = setting(
        None,
        TokenTable(),
        group=TOPICS,
        command_line=(),
        help=(
            "The same tables as text, for platforms that pass secrets in the environment. Not on "
            "the command line, which everybody on the machine can read."
        ),
    )
    topics_token: str | None = setting(
        None,
        Secret(placeholder="TOKEN"),
        group=TOPICS,
        command_line=(),
        help="One bearer token that allows everything with all topics; at least 16 characters.",
    )
    topics_local: bool = setting(
        True,
        Flag(),
        group=TOPICS,
        help=(
            "Clients on this machine may do everything with topics without a token: over loopback, "
            "not through a proxy, by a loopback name, and not from a page of another origin. Turn "
            "it off where others have accounts, or a proxy that adds no header."
        ),
    )
    topics_access: str | Callable[..., Any] | None = setting(
        None,
        AccessFunction(),
        group=TOPICS,
        help=(
            "An async function of yours that decides in place of tokens: it gets a dictionary like "
            "an ASGI scope with action and topic in it, and returns whether to allow it."
        ),
    )
    topics_access_timeout: float = setting(
        10.0,
        Seconds(minimum=0.001, maximum=3600.0),
        group=TOPICS,
        help=(
            "Time that topics_access has to decide, before 503. It runs on the worker's event "
            "loop: while a handler blocks that, nobody can be let in, on topics_bind either."
        ),
    )
    topics_viewers: int = setting(
        2000,
        Integer(minimum=1, maximum=1_000_000),
        group=TOPICS,
        help=(
            "Clients of one worker that may watch topics at a time (?view=mjpeg, ?view=sse, "
            "WebSocket); 503 beyond. Each holds a connection, and a slow one the rest of a frame."
        ),
    )
    topics_queue_max: int = setting(
        256,
        Integer(minimum=1, maximum=65_536),
        group=TOPICS,
        help=(
            "Frames that may wait for one viewer with ?policy=queue, whatever ?queue= asks for; "
            "beyond them its oldest is left out. Ten seconds of a camera: who is later than that "
            "wants the newest."
        ),
    )
    topics_queue_bytes: int = setting(
        64 << 20,
        Bytes(minimum=0, maximum=2**40),
        group=TOPICS,
        help=(
            "Bytes that frames which wait in queues may take, per topic and worker, beside the "
            "topic's own slots. A frame is copied once for all queues; beyond the limit it is lost "
            "to those that it waits in."
        ),
    )
    topics_pixels_max: int = setting(
        1 << 26,
        Integer(minimum=1, maximum=1 << 32),
        group=TOPICS,
        help=(
            "Pixels of the largest frame that is made into a picture (67 million: 8192 x 8192). "
            "What a JPEG or PNG says of its size is looked at before it is decoded."
        ),
    )
    topics_picture_threads: int = setting(
        2,
        Integer(minimum=1, maximum=64),
        group=TOPICS,
        help=(
            "Threads of each worker that make pictures of frames, once for all who look at them."
        ),
    )
    log_config: str | dict[str, Any] | None = setting(
        None,
        LogConfig(placeholder="FILE"),
        group=LOGGING,
        help=(
            "Configuration of Python's logging: a file (.json, .yaml, .toml for dictConfig, else "
            "fileConfig), or in code a dictionary. What it says of uvicorn's loggers counts for "
            "framegate's."
        ),
    )
    log_level: LogLevel = setting(
        "info",
        Choice(words=("critical", "error", "warning", "info", "debug")),
        group=LOGGING,
        help="Least severe level of the lines that the server itself writes to stderr.",
    )
    log_stalls: float = setting(
        5.0,
        Seconds(minimum=0.0),
        group=LOGGING,
        help=(
            "Log an event loop that has stood still for so long, with the Python stack that holds "
            "it up: nobody else is served meanwhile. 0 is never. Looked at twice a second."
        ),
    )
    log_format: LogFormat = setting(
        "text",
        Choice(words=("text", "json")),
        group=LOGGING,
        help="Log lines as text for people, or each as a JSON object for programs.",
    )
    use_colors: bool | None = setting(
        None,
        OptionalFlag(),
        group=LOGGING,
        help="Colour the level of log lines. By default on a terminal, see NO_COLOR, FORCE_COLOR.",
    )
    access_log: bool = setting(
        True,
        Flag(),
        group=LOGGING,
        help=(
            "Write one line per request, by a thread that no request waits for. Lines that nobody "
            "reads are dropped and counted."
        ),
    )
    access_log_format: str | None = setting(
        None,
        AccessFormat(),
        group=LOGGING,
        help=(
            "What a line of the access log looks like: text, json, common, combined, or directives "
            "of Apache such as '%h %>s %D %{Referer}i'. By default text or json, as log_format "
            "says. See docs/guide/logging.md."
        ),
    )
    access_log_file: str = setting(
        "stdout",
        LogTarget(placeholder="FILE"),
        group=LOGGING,
        help=(
            "Where the access log goes: stdout, stderr, or a file that is appended to and opened "
            "anew on SIGUSR1. Given here, it goes there also when Python's logging has a handler "
            "for framegate.access."
        ),
    )
    access_log_exclude: tuple[str, ...] = setting(
        (),
        UrlPaths(),
        group=LOGGING,
        help=(
            "Path, or beginning of a path with a * at its end, whose requests are left out of the "
            "access log while they succeed, such as health checks; may be given several times."
        ),
    )
    slow_request: float | None = setting(
        None,
        SecondsOrOff(minimum=0.001),
        group=LOGGING,
        help=(
            "Warn of requests that take so long, once while they run and once when they are over. "
            "Streams of events are judged by how long they take to begin. Looked at four times a "
            "second."
        ),
    )
    server_timing: bool = setting(
        False,
        Flag(),
        group=RESPONSES,
        help=(
            "Add a field server-timing that says how many milliseconds the application took to "
            "begin its response. Off, because it tells every client how the application works."
        ),
    )
    collector: str | Any | None = setting(
        None,
        CollectorObject(),
        group=LOGGING,
        help=(
            "Object whose record_batch(events) is told what happens to connections and requests, "
            "on a thread of its own; a class is called to make one. See docs/guide/logging.md."
        ),
    )
    admin_bind: tuple[str, ...] = setting(
        (),
        AdminBinds(),
        group=OPERATION,
        help=(
            "Answer /livez, /readyz and /metrics here, for all workers, also while Python code "
            "blocks; a port alone is one of 127.0.0.1; repeatable. Off by default: metrics tell "
            "much, and nobody is asked for a password."
        ),
    )
    health_path: str | None = setting(
        None,
        UrlPath(),
        group=OPERATION,
        help=(
            "Answer this path of the application's own listeners as /readyz of --admin-bind, "
            "without the application: for load balancers that can ask nowhere else."
        ),
    )
    metrics_path: str | None = setting(
        None,
        UrlPath(),
        group=OPERATION,
        help=(
            "Answer this path of the application's own listeners with the metrics of all workers. "
            "Whoever reaches the application reads them; --admin-bind is the safer place."
        ),
    )
    metrics_topics: int = setting(
        100,
        Integer(minimum=0, maximum=4096),
        group=OPERATION,
        help=(
            "Topics of the runtime directory that have metrics of their own, the first by name; 0: "
            "none. Each is ten series, and is looked at for each scrape, which takes some 50 "
            "microseconds."
        ),
    )
    ready_lag_max: float = setting(
        10.0,
        Seconds(minimum=0.1),
        group=OPERATION,
        help=(
            "A worker whose loop stands still for so long is not ready: a request would wait at "
            "least as long, so another server is the better place for it. Seen twice a second."
        ),
    )
    otel: bool = setting(
        False,
        Flag(),
        group=OPERATION,
        help=(
            "Make a span of each request and send spans and metrics to a collector of "
            "OpenTelemetry by OTLP; where to, and what, say its own variables OTEL_*. Off, "
            "because a server talks to nobody unasked. See docs/guide/tracing.md."
        ),
    )
    otel_active_requests: bool = setting(
        False,
        Flag(),
        group=OPERATION,
        help=(
            "Send the metric http.server.active_requests, too. Off, because OpenTelemetry may "
            "still change it."
        ),
    )
    sentry_dsn: str | None = setting(
        None,
        Secret(placeholder="DSN"),
        group=OPERATION,
        help=(
            "Report exceptions of the application to this project of Sentry; needs "
            "framegate[sentry]. Better in FRAMEGATE_SENTRY_DSN than where others read it."
        ),
    )
    sentry_environment: str | None = setting(
        None,
        Text(placeholder="NAME"),
        group=OPERATION,
        help="What Sentry calls the environment, such as staging; by default production.",
    )
    sentry_release: str | None = setting(
        None,
        Text(placeholder="VERSION"),
        group=OPERATION,
        help="What Sentry calls the release; by default what its SDK finds, such as the commit.",
    )

    reload: bool = setting(
        False,
        Flag(),
        group=DEVELOPMENT,
        help=(
            "Start the worker anew when code changes; pages in the browser follow, and show why "
            "an application does not start. Needs watchfiles. For development only."
        ),
    )
    reload_dirs: tuple[str, ...] = setting(
        (),
        FilePaths(placeholder="DIRECTORY"),
        group=DEVELOPMENT,
        command_line=("--reload-dir",),
        help=(
            "Watch this directory and those below, in place of the application's package; "
            "repeatable. Virtual environments and hidden directories are left out."
        ),
    )
    reload_includes: tuple[str, ...] = setting(
        (),
        Patterns(),
        group=DEVELOPMENT,
        command_line=("--reload-include",),
        help="Files that also start the worker anew, beside *.py; repeatable.",
    )
    reload_excludes: tuple[str, ...] = setting(
        (),
        Patterns(),
        group=DEVELOPMENT,
        command_line=("--reload-exclude",),
        help="Files and directories that are not watched; repeatable.",
    )
    reload_delay: float = setting(
        0.05,
        Seconds(minimum=0.001, maximum=60.0),
        group=DEVELOPMENT,
        help=(
            "How long nothing more must change before the worker is started anew: an editor "
            "saves in several steps, a version control system many files."
        ),
    )
    debug: bool = setting(
        False,
        Flag(),
        group=DEVELOPMENT,
        help=(
            "Answer an exception of the application with a page that shows source, local "
            "variables and the request, with secrets masked; to clients on this machine only. "
            "Refused unless all addresses are loopback."
        ),
    )

    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False, compare=False)
    """Origin of every setting."""

    warnings: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Complaints that are no errors, for the log."""

    def __post_init__(self) -> None:
        origins = dict(self.origins)
        for item in SETTINGS:
            value = getattr(self, item.name)
            if item.name not in origins:
                is_default = value is item.default or value == item.default
                source = Source.DEFAULT if is_default else Source.CODE
                origins[item.name] = Origin(source, item.name)
            object.__setattr__(self, item.name, item.parse(value, origins[item.name]))
        object.__setattr__(self, "origins", origins)
        self._check_together()

    @property
    def ssl_cipher_suites(self) -> tuple[int, ...]:
        """The numbers of `ssl_ciphers`."""
        if not self.ssl_ciphers:
            return ()
        from framegate.ciphers import CIPHER_SUITES

        return tuple(CIPHER_SUITES[name] for name in self.ssl_ciphers)

    @property
    def access_log_form(self) -> str | tuple[tuple[str, str], ...]:
        """What lines of the access log look like: `text`, `json`, or the parts of a format."""
        text = self.access_log_format or self.log_format
        if text in ("text", "json"):
            return text
        from framegate.access_format import parse

        return parse(text)

    @property
    def access_log_path(self) -> str | None:
        """The file of the access log; None if it goes somewhere else."""
        is_file = self.access_log and self.access_log_file not in STANDARD_STREAMS
        return self.access_log_file if is_file else None

    @property
    def has_shared_limits(self) -> bool:
        """Whether anything is limited for all workers together."""
        names = ("limit_connections", "limit_requests", "rate_limit", "rate_limit_key")
        return any(getattr(self, name) is not None for name in names)

    @property
    def rate_limit_terms(self) -> tuple[int, int, int] | None:
        """Requests, seconds, and requests at once of one client."""
        return None if self.rate_limit is None else rate_terms(self.rate_limit)

    @property
    def rate_limit_key_terms(self) -> tuple[str, tuple[int, int, int]] | None:
        """The header, and the same for each value in it."""
        if self.rate_limit_key is None:
            return None
        name, _, rate = self.rate_limit_key.rpartition("=")
        return name, rate_terms(rate)

    @property
    def has_metrics(self) -> bool:
        """Whether requests are counted: somebody may ask."""
        return bool(self.admin_bind or self.metrics_path)

    @property
    def last_words_seconds(self) -> float:
        """What the last spans (2) and events (1) get at most when a worker stops."""
        return 2.0 * self.otel + 1.0 * (self.collector is not None)

    @property
    def needs_runtime_segment(self) -> bool:
        """Whether a server without one could not do what it is told."""
        return bool(self.admin_bind or self.metrics_path or self.health_path or self.otel)

    @property
    def supervised_because(self) -> str:
        """The setting for which workers have to be processes of their own; empty if none asks."""
        if self.workers != 1:
            return "workers"
        asking = ("worker_timeout", "limit_max_requests", "limit_max_rss", "limit_max_lifetime")
        return next((name for name in asking if getattr(self, name)), "")

    def _check_tls(self) -> None:
        names = ("ssl_keyfile", "ssl_ca_certs", "ssl_crl", "ssl_ca_system")
        if not self.ssl_certfile:
            for name in (*names, "ssl_cert_reqs", "https_redirect_bind"):
                if getattr(self, name) not in ((), False, "none"):
                    raise ConfigError(
                        f"{self.origins[name]} is set, but there is no ssl_certfile: without a "
                        "certificate the server speaks no TLS"
                    )
        if self.ssl_keyfile and len(self.ssl_keyfile) != len(self.ssl_certfile):
            raise ConfigError(
                f"there are {len(self.ssl_certfile)} ssl_certfile and {len(self.ssl_keyfile)} "
                "ssl_keyfile; give one key for each certificate, in the same order"
            )
        if self.ssl_keyfile_password is not None and self.ssl_keyfile_password_file is not None:
            raise ConfigError(
                "ssl_keyfile_password and ssl_keyfile_password_file are both set; give one"
            )
        if self.ssl_cert_reqs == "none":
            for name in names[1:]:
                if getattr(self, name):
                    raise ConfigError(
                        f"{self.origins[name]} is set, but ssl_cert_reqs is none, so that clients "
                        "are not asked for certificates; set ssl_cert_reqs to required or optional"
                    )
        elif not self.ssl_ca_certs and not self.ssl_ca_system:
            raise ConfigError(
                f"ssl_cert_reqs is {self.ssl_cert_reqs}, but no authority is trusted; name a file "
                "with ssl_ca_certs, or set ssl_ca_system"
            )

    def _check_development(self) -> None:
        if self.reload and self.workers != 1:
            raise ConfigError(
                f"reload and workers={self.workers} ({self.origins['workers']}) contradict each "
                "other: what is developed has one worker"
            )
        if self.reload and self.app is not None and not isinstance(self.app, str):
            raise ConfigError(
                'reload needs the application as a string such as "module:app", because it is '
                "imported anew"
            )
        if not self.debug:
            return
        from framegate.binds import TcpBind, parse_bind

        addresses = [*self.bind] or [self.uds or (f"fd://{self.fd}" if self.fd is not None else "")]
        for address in filter(None, addresses):
            bind = parse_bind(address) if address != self.uds else None
            if not isinstance(bind, TcpBind) or not _is_loopback(bind.host):
                raise ConfigError(
                    f"debug shows source and variables, so {address} is refused; "
                    "listen on 127.0.0.1"
                )
        if not any(addresses) and not _is_loopback(self.host):
            raise ConfigError(
                f"debug shows source and variables, so host {self.host} "
                f"({self.origins['host']}) is refused; listen on 127.0.0.1"
            )

    def _check_proxies(self) -> None:
        from framegate.binds import parse_bind

        for text in self.https_redirect_bind:
            if parse_bind(text).is_proxied:
                raise ConfigError(f"https_redirect_bind {text}: redirects have no PROXY header")
        binds = [("bind", text) for text in self.bind]
        for name, text in binds + [("topics_bind", text) for text in self.topics_bind]:
            if parse_bind(text).is_proxied and not self.forwarded_allow_ips:
                raise ConfigError(
                    f"{name} {text} waits for PROXY headers, but nobody is trusted to send them; "
                    "name the load balancers with forwarded_allow_ips"
                )

    def _check_together(self) -> None:
        self._check_tls()
        if self.bind or self.https_redirect_bind or self.topics_bind:
            self._check_proxies()
        self._check_development()
        target = self.origins["target_bytes_max"]
        if target.source > Source.DEFAULT and self.target_bytes_max > self.header_bytes_max:
            raise ConfigError(
                f"target_bytes_max={self.target_bytes_max} ({target}) is more than "
                f"header_bytes_max={self.header_bytes_max}, which counts the target too; "
                "raise header_bytes_max"
            )
        if self.health_path is not None and self.health_path == self.metrics_path:
            raise ConfigError(f"health_path and metrics_path are both {self.health_path}")
        if self.uds is not None and self.fd is not None:
            raise ConfigError("uds and fd are both set; a server listens on one of them")
        if self.bind:
            for name in ("host", "port", "uds", "fd"):
                if self.origins[name].source is not Source.DEFAULT:
                    raise ConfigError(f"bind and {name} are both set; say it all with bind")
        reason = self.supervised_because
        if reason and self.app is not None and not isinstance(self.app, str):
            raise ConfigError(
                f"{reason}={getattr(self, reason)} ({self.origins[reason]}) needs the application "
                'as a string such as "module:app", because every worker process imports it'
            )
        if reason:
            self._check_middleware_crosses(reason)
        if reason and self.collector is not None and not isinstance(self.collector, str):
            raise ConfigError(
                f"{reason}={getattr(self, reason)} ({self.origins[reason]}) needs the collector as "
                'a string such as "module:object", because every worker process has its own'
            )
        if reason and self.topics_access is not None and not isinstance(self.topics_access, str):
            raise ConfigError(
                f"{reason}={getattr(self, reason)} ({self.origins[reason]}) needs topics_access as "
                'a string such as "module:function", because every worker process imports it'
            )
        if self.topics is not None and self.topics_calls == self.topics:
            raise ConfigError(f"topics and topics_calls are both {self.topics}")
        if self.topics_bind and self.topics is None:
            raise ConfigError(
                f"topics_bind={' '.join(self.topics_bind)} serves the frame routes, and there are "
                "none: set topics, for example --topics /topics"
            )
        if self.live is not None and self.topics is None:
            raise ConfigError(
                f"live={self.live} shows the topics of the frame routes, and there are none: "
                "set topics, for example --topics /topics"
            )
        if self.live is not None and self.live in (self.topics, self.topics_calls):
            raise ConfigError(f"live and the frame routes are both at {self.live}")
        if self.topics_access is not None:
            for name in ("topics_token_file", "topics_tokens", "topics_token"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{self.origins[name]} and topics_access are both set: a function decides "
                        "in place of tokens"
                    )

    def _check_middleware_crosses(self, reason: str) -> None:
        import json

        for factory, options in self.middleware:
            if not isinstance(factory, str):
                raise ConfigError(
                    f"{reason}={getattr(self, reason)} needs middleware as strings such as "
                    f'"module:Factory", not {factory!r}: every worker process imports it'
                )
            try:
                json.dumps(options)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"{reason}={getattr(self, reason)} sends the options of middleware {factory} "
                    f"to its workers as JSON: {error}"
                ) from None

    @classmethod
    def load(
        cls,
        options: Mapping[str, object] | None = None,
        *,
        command_line: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        file: str | os.PathLike[str] | None = None,
        search: bool = True,
    ) -> Config:
        """Gather all settings from all origins.

        Args:
            options: Given by code, by setting name.
            command_line: Given on the command line, by setting name.
            environment: The environment; that of the process if None.
            file: Configuration file; it must exist.
            search: Look for a file in the current directory, then above, if none is named.

        Raises:
            ConfigError: One line: what is wrong, where it stands, what to do.
        """
        warnings: list[str] = []
        surroundings = os.environ if environment is None else environment
        below = _from_file(file, search=search)
        above = [
            _from_mapping(options or {}, Source.CODE),
            _from_mapping(command_line or {}, Source.COMMAND_LINE),
        ]
        layers: list[dict[str, tuple[object, Origin]]] = [
            below,
            *_from_environment(surroundings, warnings),
            *above,
        ]
        if named := [layer["env_file"] for layer in layers if "env_file" in layer]:
            warnings.clear()
            layers = [below, *_with_env_file(*named[-1], surroundings, warnings), *above]
        merged: dict[str, tuple[object, Origin]] = {}
        for layer in layers:
            merged.update(layer)
        values = {
            name: _BY_NAME[name].parse(value, origin) for name, (value, origin) in merged.items()
        }
        origins = {name: origin for name, (_, origin) in merged.items()}
        password = origins.get("ssl_keyfile_password")
        if password is not None and password.source is Source.COMMAND_LINE:
            warnings.append(
                "--ssl-keyfile-password on the command line can be read by everybody on this "
                "machine; use FRAMEGATE_SSL_KEYFILE_PASSWORD or --ssl-keyfile-password-file"
            )
        _choose_app_dir(values, origins)
        _choose_listener(values, origins)
        _choose_systemd(values, origins, surroundings, warnings)
        return cls(**values, origins=origins, warnings=tuple(warnings))

    def replace(self, **options: Any) -> Config:
        """Return a copy with some settings changed by code.

        Raises:
            ConfigError: A setting is unknown, out of range or contradicts another one.
        """
        changed = _from_mapping(options, Source.CODE)
        origins = {**self.origins, **{name: origin for name, (_, origin) in changed.items()}}
        return dataclasses.replace(self, **options, origins=origins)

    def to_json(self) -> str:
        """Return the settings as text for a worker process."""
        import json

        return json.dumps(
            {
                "values": {item.name: getattr(self, item.name) for item in SETTINGS},
                "origins": {k: [int(v.source), v.name] for k, v in self.origins.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Return what `to_json` wrote."""
        import json

        data = json.loads(text)
        origins = {name: Origin(Source(rank), at) for name, (rank, at) in data["origins"].items()}
        return cls(**data["values"], origins=origins)


def _is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}", host))


def _settings() -> tuple[Setting, ...]:
    found = []
    for item in dataclasses.fields(Config):
        if not item.metadata:
            continue
        about = item.metadata
        kind = about["kind"]
        option = "--" + item.name.replace("_", "-")
        if isinstance(kind, Flag):
            spellings: tuple[str, ...] = (option, "--no-" + option[2:])
        else:
            spellings = (option,)
        found.append(
            Setting(
                name=item.name,
                kind=kind,
                default=item.default,
                group=about["group"],
                help=about["help"],
                command_line=spellings if about["command_line"] is None else about["command_line"],
                environment=(ENVIRONMENT_PREFIX + item.name.upper(), *about["environment"]),
            )
        )
    return tuple(found)


SETTINGS: Final[tuple[Setting, ...]] = _settings()
"""The schema, in the order of `Config`."""

_BY_NAME: Final = {item.name: item for item in SETTINGS}


# ----------------------------------------------------------------------------------------------
# Origins.


def _from_mapping(
    options: Mapping[str, object], source: Source
) -> dict[str, tuple[object, Origin]]:
    found: dict[str, tuple[object, Origin]] = {}
    for name, value in options.items():
        if name not in _BY_NAME:
            raise ConfigError(f"unknown option {name}{advice(name, _BY_NAME)}")
        shown = name
        if source is Source.COMMAND_LINE:
            spellings = _BY_NAME[name].command_line
            if not spellings:
                raise ConfigError(f"{name} is a secret; set {_BY_NAME[name].environment[0]}")
            shown = spellings[-1] if value is False else spellings[0]
        found[name] = (value, Origin(source, shown))
    return found


def _from_environment(
    environment: Mapping[str, str], warnings: list[str]
) -> tuple[dict[str, tuple[object, Origin]], dict[str, tuple[object, Origin]]]:
    """Return what the platform's names say, and what ours say. An empty variable is unset."""
    platform: dict[str, tuple[object, Origin]] = {}
    ours: dict[str, tuple[object, Origin]] = {}
    known = {item.environment[0] for item in SETTINGS} | ENVIRONMENT_OTHERS
    for item in SETTINGS:
        own, *others = item.environment
        for name in others:
            if environment.get(name):
                platform[item.name] = (environment[name], Origin(Source.PLATFORM, name))
        if environment.get(own):
            ours[item.name] = (environment[own], Origin(Source.ENVIRONMENT, own))
    for name in environment:
        # Only near misses: other programs may use the prefix for themselves.
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            if hint := suggestion(name, known):
                warnings.append(f"environment variable {name} is not known{hint}")
    if (allocator := environment.get("FRAMEGATE_ALLOCATOR", "system")) not in {"", "system"}:
        warnings.append(
            f"environment variable FRAMEGATE_ALLOCATOR is {allocator!r}, which is not known: "
            "leave it out, or set it to 'system'"
        )
    return platform, ours


def _with_env_file(
    value: object, origin: Origin, environment: Mapping[str, str], warnings: list[str]
) -> tuple[dict[str, tuple[object, Origin]], dict[str, tuple[object, Origin]]]:
    """Return what the environment and a file of variables say together, and which of them did."""
    from framegate.env_file import read_env_file

    path = _BY_NAME["env_file"].parse(value, origin)
    if path is None:
        return _from_environment(environment, warnings)
    added = read_env_file(path, environment, origin=origin.name)
    own = _BY_NAME["env_file"].environment[0]
    if own in added:
        raise ConfigError(f"{origin.name} {path}: {own} in it cannot name another file")
    platform, ours = _from_environment({**added, **environment}, warnings)
    for layer in (platform, ours):
        for name, (given, source) in layer.items():
            if source.name not in environment:
                layer[name] = (given, Origin(source.source, f"{path}: {source.name}"))
    return platform, ours


def _from_file(
    file: str | os.PathLike[str] | None, *, search: bool
) -> dict[str, tuple[object, Origin]]:
    if file is not None:
        return _read_file(os.fspath(file))
    for directory in _directories_upward() if search else ():
        for name in (CONFIG_FILE, PROJECT_FILE):
            path = os.path.join(directory, name)
            if os.path.exists(path) and (not directory or _is_trusted(path)):
                found = _read_file(path)
                if found or name == CONFIG_FILE:
                    return found
    return {}


def _directories_upward() -> Iterator[str]:
    """Yield the current directory, as nothing, and those above it."""
    yield ""
    directory = os.getcwd()
    while (parent := os.path.dirname(directory)) != directory:
        yield parent
        directory = parent


def _is_trusted(path: str) -> bool:
    """Whether a file above the current directory is the user's own, or root's.

    It says which code to run: one that another user left in /tmp must not.
    """
    with contextlib.suppress(OSError):
        return os.stat(path).st_uid in (0, os.geteuid())
    return False


def _read_file(path: str) -> dict[str, tuple[object, Origin]]:
    import tomllib

    try:
        with open(path, "rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    if os.path.basename(path) == PROJECT_FILE:
        table = table.get("tool", {}).get("framegate", {})
    found: dict[str, tuple[object, Origin]] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in _BY_NAME:
            raise ConfigError(f"{path}: unknown key {key}{advice(name, _BY_NAME)}")
        if not _BY_NAME[name].command_line:
            variable = _BY_NAME[name].environment[0]
            raise ConfigError(f"{path}: {key} is a secret, and this file is none; set {variable}")
        value = _BY_NAME[name].kind.below(value, os.path.dirname(path))
        found[name] = (value, Origin(Source.FILE, f"{path}: {key}"))
    return found


def advice(name: str, known: Iterable[str]) -> str:
    """Return what to use in place of an option that does not exist, to follow its name."""
    from framegate.uvicorn_options import INSTEAD

    plain = name.lstrip("-").removeprefix("no-").replace("-", "_").removeprefix("no_")
    if plain in INSTEAD:
        return f" (of uvicorn): {INSTEAD[plain]}"
    return suggestion(name, known)


def _choose_app_dir(values: dict[str, Any], origins: dict[str, Origin]) -> None:
    """Import the application that a file above names from there: it knows no other directory."""
    app = origins.get("app")
    if app is not None and app.source is Source.FILE and "app_dir" not in values:
        directory = os.path.dirname(app.name.rpartition(": ")[0])
        if directory and os.path.commonpath((os.getcwd(), os.path.abspath(directory))) == directory:
            values["app_dir"] = directory
            origins["app_dir"] = Origin(Source.FILE, app.name)


WAYS_TO_LISTEN: Final = (("host", "port"), ("uds",), ("fd",), ("bind",))


def _choose_listener(values: dict[str, Any], origins: dict[str, Origin]) -> None:
    """Keep one of host and port, uds, fd, bind: the one with the strongest origin.

    `PORT` in the environment or a socket in the file must not forbid `--uds` on the command line;
    two of them in the same place contradict each other.
    """

    def given(way: tuple[str, ...]) -> list[str]:
        return [name for name in way if values.get(name) not in (None, ())]

    ranked = [
        (max(origins[name].source for name in given(way)), way)
        for way in WAYS_TO_LISTEN
        if given(way)
    ]
    if len(ranked) < 2:
        return
    best = max(rank for rank, _ in ranked)
    winners = [way for rank, way in ranked if rank == best]
    if len(winners) > 1:
        names = [str(origins[name]) for way in winners for name in given(way)]
        advice = "say it all with bind" if ("bind",) in winners else "several addresses need bind"
        raise ConfigError(f"{' and '.join(names)} contradict each other; {advice}")
    for _, way in ranked:
        if way not in winners:
            for name in way:
                values.pop(name, None)
                origins.pop(name, None)


def _choose_systemd(
    values: dict[str, Any],
    origins: dict[str, Origin],
    environment: Mapping[str, str],
    warnings: list[str],
) -> None:
    """Serve what systemd passed, unless addresses were named: then say what is left unserved."""
    if not environment.get("LISTEN_FDS"):
        return
    from framegate.systemd import passed_sockets

    passed = passed_sockets(environment)
    if not passed:
        return
    names = [name for way in WAYS_TO_LISTEN for name in way if values.get(name) not in (None, ())]
    if not names:
        values["bind"] = ("systemd",)
        origins["bind"] = Origin(Source.ENVIRONMENT, "LISTEN_FDS")
    elif "fd" not in names and not any(
        text.startswith(("systemd", "fd:")) for text in values.get("bind", ())
    ):
        warnings.append(
            f"systemd passed {len(passed)} sockets that nobody serves, because "
            f"{origins[names[0]]} names another address; add --bind systemd"
        )
