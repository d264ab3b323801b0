"""From `bind` (or `host` and `port`, `uds`, `fd`) to bound sockets.

Sockets are bound in the process that the user started, so that a wrong address is its error, and
stay open there for as long as it lives: what waits in their queues outlives any worker. They begin
to listen only when a worker is ready to serve. Every worker serves every address.

TCP with several workers: one SO_REUSEPORT socket each. The kernel spreads connections evenly over
them, and what waits in the queue of a worker that dies is served by its successor, because the
queue belongs to the socket and the supervisor keeps the socket. Unix and inherited sockets cannot
be had several times, so all workers accept from the same one; on macOS from that of a port, too,
because SO_REUSEPORT gives all connections to one of the sockets there.

SO_REUSEPORT would also let a second server of the same user share the port silently. A plain bind
comes first to find that out, under a lock (`name_lock.py`), because the plain bind does not see a
server that is bound and does not listen yet.

IPv4 and IPv6 are separate sockets, always (IPV6_V6ONLY): `[::]` is IPv6 alone, whatever
net.ipv6.bindv6only says, and `*` and `localhost` are one socket of each. A machine without one of
the two gets the other.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from framegate import system, systemd
from framegate.binds import Bind, FdBind, SystemdBind, TcpBind, UnixBind, parse_bind
from framegate.config import Config
from framegate.errors import ListenError
from framegate.name_lock import AddressLockedError, lock_name
from framegate.socket_holder import holder_of_port
from framegate.unix_socket import UnixSocket

__all__ = [
    "NO_OTHER_KIND",
    "Address",
    "KindCounts",
    "Listeners",
    "by_kind",
    "listener_addresses",
    "open_admin_listeners",
    "open_listeners",
    "start_listening",
]

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket; `@name` is one in the abstract namespace."""

SocketAddress = tuple[Any, ...]

ADMIN_BACKLOG: Final = 128
"""Operators that wait for an answer at the same time."""

PORT_ATTEMPTS: Final = 32
"""How often a free port is looked for that is free in IPv4 and in IPv6."""

UNSENT_BYTES_MAX: Final = 128 * 1024
"""What the kernel holds of a response beyond what the peer's window takes (`TCP_NOTSENT_LOWAT`).

Without it a client that does not read makes the kernel hold 3 to 4 MiB for each connection; 500 of
them made others wait for seconds; and what is there cannot be overtaken by a response of HTTP/2
that has a higher priority. Twice the default of `send_buffer_bytes`: while the kernel sends what it
has, the application comes up with more. A few connections get more (`rust/http/src/wide.rs`, which
knows this number).
"""

_LOOPBACK: Final = ("127.0.0.1", "::1")
_EVERYTHING: Final = ("0.0.0.0", "::")

_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class _Closable(Protocol):
    def close(self) -> None: ...


class KindCounts(NamedTuple):
    """How many sockets of a list are of each kind but the first; all kinds are in this order.

    Attributes:
        proxied: Behind those that are simply served: connections begin with a PROXY header.
        topics: Frame routes alone, without Python (`topics_bind`).
        topics_proxied: The same, and connections begin with a PROXY header.
        redirects: At the end: they only redirect to https.
    """

    proxied: int = 0
    topics: int = 0
    topics_proxied: int = 0
    redirects: int = 0


NO_OTHER_KIND: Final = KindCounts()
"""All sockets are simply served."""


@dataclass
class Listeners:
    """The bound sockets of one server.

    Attributes:
        of_worker: For each worker the sockets it accepts from, in the order of the binds.
        counts: What they are for.
        scheme: What URLs begin with.
    """

    of_worker: list[list[socket.socket]]
    counts: KindCounts = NO_OTHER_KIND
    scheme: str = "http"
    _owned: list[_Closable] = field(default_factory=list)
    _addresses: list[Address] = field(default_factory=list)
    _own_ports: set[int] = field(default_factory=set)
    """Places in the lists of `of_worker` where each worker has a socket of its own."""

    @property
    def addresses(self) -> list[Address]:
        """Where the server really listens: after bind, so a port 0 has become a number."""
        if not self._addresses:
            served, proxied, *_ = by_kind(self.of_worker[0], self.counts)
            self._addresses = listener_addresses(served + proxied)
        return self._addresses

    @property
    def urls(self) -> list[str]:
        """The addresses as a person types them."""
        return [_url(address, self.scheme) for address in self.addresses]

    @property
    def topics_urls(self) -> list[str]:
        """Where frame routes are served without Python (`topics_bind`)."""
        _, _, topics, proxied, _ = by_kind(self.of_worker[0], self.counts)
        return [_url(address, self.scheme) for address in listener_addresses(topics + proxied)]

    def add_worker(self) -> list[socket.socket]:
        """Bind the sockets of one more worker.

        Raises:
            OSError: The kernel has no descriptor, or no right any more, for another socket.
        """
        added: list[socket.socket] = []
        made: list[socket.socket] = []
        try:
            for number, item in enumerate(self.of_worker[0]):
                if number in self._own_ports:
                    item = _bind_tcp(item.family, item.getsockname(), share=True)
                    made.append(item)
                added.append(item)
        except BaseException:
            for item in made:
                item.close()
            raise
        self.of_worker.append(added)
        return added

    def close(self) -> None:
        """Close all sockets and remove the files of Unix sockets that are still ours."""
        for item in self._owned:  # while the sockets are open: the files are looked at
            item.close()
        self._owned.clear()
        for sockets in self.of_worker:
            for one in sockets:
                one.close()


def open_listeners(
    config: Config,
    workers: int | None = None,
    *,
    ports_are_balanced: bool = system.PORTS_ARE_BALANCED,
) -> Listeners:
    """Bind everything that a configuration asks for.

    Args:
        config: The settings.
        workers: For how many worker processes, where that is not `config.workers`.
        ports_are_balanced: Whether each worker gets a socket of its own for a port.

    Raises:
        ListenError: An address is in use, not allowed or does not exist.
    """
    count = (config.workers or 1) if workers is None else workers
    has_several = count > 1 or bool(config.supervised_because)
    opening = _Opening(count, has_own_ports=has_several and ports_are_balanced)
    listeners = opening.listeners
    listeners.scheme = "https" if config.ssl_certfile else "http"
    try:
        binds = list(_binds(config))
        topics = [(parse_bind(text), text) for text in config.topics_bind]
        redirects = [(parse_bind(text), text) for text in config.https_redirect_bind]
        kinds = [
            [item for item in some if item[0].is_proxied is is_proxied]
            for some in (binds, topics)
            for is_proxied in (False, True)
        ]
        ends = []
        for kind in (*kinds, redirects):
            for bind, label in kind:
                opening.open(bind, label)
            ends.append(len(listeners.of_worker[0]))
        # One text may be several sockets.
        listeners.counts = KindCounts(*(end - begin for begin, end in itertools.pairwise(ends)))
    except BaseException:
        listeners.close()
        raise
    return listeners


def open_admin_listeners(config: Config) -> Listeners:
    """Bind and listen where operators ask; the same sockets serve all workers.

    Raises:
        ListenError: An address is in use, not allowed or does not exist.
    """
    opening = _Opening(1, has_own_ports=False)
    try:
        for text in config.admin_bind:
            opening.open(parse_bind(text), text)
        # At once: while there is no worker, who asks waits for the next one.
        start_listening(opening.listeners.of_worker[0], ADMIN_BACKLOG)
    except BaseException:
        opening.listeners.close()
        raise
    return opening.listeners


def by_kind(sockets: Sequence[socket.socket], counts: KindCounts) -> list[list[socket.socket]]:
    """Split what is handed on in one list: those that are served, and the kinds of the counts."""
    begin = len(sockets) - sum(counts)
    kinds = [list(sockets[:begin])]
    for count in counts:
        kinds.append(list(sockets[begin : begin + count]))
        begin += count
    return kinds


def start_listening(sockets: Sequence[socket.socket], backlog: int) -> None:
    """Let the kernel take connections; a socket that listens already keeps its backlog.

    Raises:
        ListenError: Somebody else began to listen there between our bind and now.
    """
    for item in sockets:
        if item.family in (socket.AF_INET, socket.AF_INET6):
            # Accepted sockets inherit it, so that it costs nothing per connection.
            item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        if system.is_listening(item):
            continue  # systemd's, or a worker's before us
        try:
            item.listen(backlog)
        except OSError as error:
            (address,) = listener_addresses([item])
            if isinstance(address, str):
                raise ListenError(f"cannot listen on {address}", cause=str(error)) from None
            raise _explain(error, item.family, *address) from None


def listener_addresses(sockets: Sequence[socket.socket]) -> list[Address]:
    """Return the addresses that sockets are bound to."""
    found: list[Address] = []
    for item in sockets:
        name: Any = item.getsockname()
        if item.family != socket.AF_UNIX:
            found.append((name[0], name[1]))
        elif isinstance(name, bytes):
            found.append("@" + os.fsdecode(name[1:]))
        else:
            found.append(name)
    return found


def _url(address: Address, scheme: str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    if ":" not in host:
        return f"{scheme}://{host}:{port}"
    # RFC 6874: the zone of a link-local one
    return f"{scheme}://[{host.replace('%', '%25')}]:{port}"


def _binds(config: Config) -> Iterator[tuple[Bind, str]]:
    """Give every address with what the user calls it."""
    if config.fd is not None:
        yield FdBind(config.fd), f"--fd {config.fd}"
    elif config.uds is not None:
        yield UnixBind(config.uds), f"--uds {config.uds}"
    elif config.bind:
        for text in config.bind:
            yield parse_bind(text), text
    else:
        yield TcpBind(config.host.strip("[]"), config.port), f"--host {config.host}"


class _Opening:
    """The sockets so far, while more are bound."""

    def __init__(self, workers: int, *, has_own_ports: bool) -> None:
        self.listeners = Listeners([[] for _ in range(workers)])
        self._workers = workers
        # The kernel lets a socket join only where all others said so when they were bound.
        self._is_port_shared = has_own_ports
        self._owned = self.listeners._owned
        self._taken: list[tuple[int, bytes, int, str]] = []
        self._inodes: dict[object, str] = {}

    def open(self, bind: Bind, label: str) -> None:
        match bind:
            case TcpBind():
                self.tcp(bind)
            case UnixBind():
                self.unix(bind)
            case FdBind():
                self.inherited(bind, label)
            case SystemdBind():
                self.systemd(bind)

    def _share(self, item: socket.socket) -> None:
        for sockets in self.listeners.of_worker:
            sockets.append(item)

    # TCP --------------------------------------------------------------------------------------

    def tcp(self, bind: TcpBind) -> None:
        for attempt in range(PORT_ATTEMPTS):
            try:
                per_address = self._tcp_once(bind)
            except _PortTakenError as error:
                if attempt == PORT_ATTEMPTS - 1:
                    raise error.reason from None
            else:
                break
        for bound in per_address:
            if not self._is_port_shared:
                self._share(*bound)
                continue
            self.listeners._own_ports.add(len(self.listeners.of_worker[0]))
            for sockets, item in zip(self.listeners.of_worker, bound, strict=True):
                sockets.append(item)

    def _tcp_once(self, bind: TcpBind) -> list[list[socket.socket]]:
        """Return for each address of the host one socket per worker, or one for all."""
        addresses, may_lack = _resolve(bind.host)
        found: list[list[socket.socket]] = []
        port, skipped = bind.port, None
        try:
            for family, rest in addresses:
                try:
                    bound = self._tcp_address(family, rest, port, bind)
                except _NoFamilyError as error:
                    if not may_lack:
                        raise error.reason from None
                    skipped = error.reason
                    continue
                except ListenError as error:
                    if found and not bind.port:
                        raise _PortTakenError(error) from None
                    raise
                found.append(bound)
                port = bound[0].getsockname()[1]  # port 0: all others join the one it became
            if not found and skipped is not None:
                raise skipped
        except BaseException:
            for bound in found:
                for item in bound:
                    item.close()
            raise
        return found

    def _tcp_address(
        self, family: int, rest: SocketAddress, port: int, bind: TcpBind
    ) -> list[socket.socket]:
        address = (rest[0], port, *rest[1:])
        bound: list[socket.socket] = []
        try:
            if port:
                if bind.port:
                    self._claim(family, rest[0], port, bind)
                _bind_tcp(family, address, share=False).close()
            for _ in range(self._workers if self._is_port_shared else 1):
                item = _bind_tcp(family, address, share=self._is_port_shared)
                bound.append(item)
                address = (rest[0], item.getsockname()[1], *rest[1:])
        except OSError as error:
            for item in bound:
                item.close()
            reason = _explain(error, family, address[0], port)
            if error.errno in _NO_SUCH_FAMILY:
                raise _NoFamilyError(reason) from None
            raise reason from None
        return bound

    def _claim(self, family: int, host: str, port: int, bind: TcpBind) -> None:
        """Refuse what overlaps with another bind of ours, or of a server that is starting."""
        packed = socket.inet_pton(family, host.partition("%")[0])
        for other_family, other, other_port, text in self._taken:
            if (other_family, other_port) != (family, port):
                continue
            if other == packed or not any(other) or not any(packed):
                raise ListenError(
                    f"{bind} and {text} are the same address"
                    if other == packed
                    else f"{bind} and {text} overlap: one of them is all addresses",
                    fix="drop one of them",
                )
        self._taken.append((family, packed, port, str(bind)))
        if self._is_port_shared:
            try:
                self._owned.append(lock_name(f"tcp:{host}:{port}"))
            except AddressLockedError as holder:
                raise _in_use(host, port, str(holder)) from None

    # Unix sockets and inherited ones ----------------------------------------------------------

    def unix(self, bind: UnixBind) -> None:
        made = UnixSocket(bind)
        self._owned.append(made)
        self._share(made.socket)

    def inherited(self, bind: FdBind, label: str) -> None:
        try:
            # A copy: closing ours must not close a descriptor that the caller owns.
            fd = os.dup(bind.fd)
        except OSError as error:
            raise _unusable(label, error) from None
        self._adopt(fd, label)

    def systemd(self, bind: SystemdBind) -> None:
        for passed in systemd.take_sockets(bind.name, os.environ):
            try:
                fd = os.dup(passed.fd)
            except OSError as error:
                raise _unusable(f"systemd's {passed.name} (fd {passed.fd})", error) from None
            self._adopt(fd, f"systemd's {passed.name} (fd {passed.fd})")

    def _adopt(self, fd: int, label: str) -> None:
        """Take over a descriptor that is ours, as a listener of all workers."""
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                raise ListenError(
                    f"{label} is no socket", fix="pass the number of a bound stream socket"
                )
            adopted = socket.socket(fileno=fd)
        except BaseException:
            os.close(fd)
            raise
        self._share(adopted)
        _check_listener(adopted, label)
        # macOS: a TCP socket has no inode, but nobody else has its address.
        identity = status.st_ino or adopted.getsockname()
        if (other := self._inodes.get(identity)) is not None:
            raise ListenError(f"{label} and {other} are the same socket", fix="drop one of them")
        self._inodes[identity] = label


class _NoFamilyError(Exception):
    """The machine lacks the family of an address."""

    def __init__(self, reason: ListenError) -> None:
        self.reason = reason


class _PortTakenError(Exception):
    """The free port of one address is not free at another."""

    def __init__(self, reason: ListenError) -> None:
        self.reason = reason


def _resolve(host: str) -> tuple[list[tuple[int, SocketAddress]], bool]:
    """Return families with their address less the port, and whether one family may be missing."""
    if host == "*" or host.lower() == "localhost":
        # RFC 6761, 6.3: localhost is the loopback addresses, whatever /etc/hosts forgot to list.
        v4, v6 = _EVERYTHING if host == "*" else _LOOPBACK
        return [(socket.AF_INET, (v4,)), (socket.AF_INET6, (v6, 0, 0))], True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        looks_numeric = host.replace(".", "").isdecimal()
        raise ListenError(
            f'host "{host}" cannot be resolved',
            cause=str(error),
            fix="an IPv4 address has four numbers from 0 to 255"
            if looks_numeric
            else "check the name; 127.0.0.1 is this machine alone, 0.0.0.0 or * all its addresses",
        ) from None
    unique = dict.fromkeys(
        (int(family), (where[0], *where[2:])) for family, _, _, _, where in found
    )
    return list(unique), False


def _bind_tcp(family: int, address: SocketAddress, *, share: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _explain(error: OSError, family: int, host: str, port: int) -> ListenError:
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(host, port, holder_of_port(family, host, port))
        case errno.EACCES | errno.EPERM:
            first = system.first_open_port()
            return ListenError(
                f"port {port} on {host} may not be bound by this user",
                cause=system.LOW_PORT_CAUSE.format(first=first),
                fix=f"choose a port from {first}, or {system.LOW_PORT_REMEDY}",
            )
        case errno.EADDRNOTAVAIL:
            return ListenError(
                f"{host} is no address of this machine",
                fix="use 127.0.0.1, 0.0.0.0 for all, or one that "
                f"`{system.ADDRESSES_ARE_SHOWN_BY}` shows",
            )
        case errno.EAFNOSUPPORT:
            kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
            return ListenError(f"{host}: this machine has no {kind}", fix="use the other one")
        case errno.EINVAL if family == socket.AF_INET6 and host.lower().startswith("fe80"):
            return ListenError(
                f"{host} is a link-local address and needs its interface",
                fix=f"write [{host}%{system.AN_INTERFACE}]:{port}, with the name that "
                f"`{system.ADDRESSES_ARE_SHOWN_BY}` shows",
            )
        case _:
            return ListenError(f"cannot listen on {host} port {port}", cause=str(error))


def _in_use(host: str, port: int, holder: str) -> ListenError:
    return ListenError(
        f"port {port} on {host} is in use",
        cause=holder or "the process that holds it is not visible from here",
        fix="stop it, or choose another port (0 takes a free one)",
    )


def _unusable(label: str, error: OSError) -> ListenError:
    return ListenError(
        f"{label} cannot be used",
        cause=error.strerror or str(error),
        fix="the parent must pass it on (pass_fds), bound to an address",
    )


def _check_listener(item: socket.socket, label: str) -> None:
    """Refuse a socket from elsewhere that cannot become, or is not, a listening one."""
    if item.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ListenError(
            f"{label} is a socket of family {item.family!r}", fix="pass a TCP or a Unix socket"
        )
    if item.type != socket.SOCK_STREAM:
        raise ListenError(
            f"{label} is no stream socket, but {item.type.name}",
            fix="pass one of type SOCK_STREAM (ListenStream= in a .socket unit)",
        )
    with contextlib.suppress(OSError):
        item.getpeername()
        raise ListenError(
            f"{label} is a connection, not a listening socket",
            fix="pass the socket that accepts (Accept=no in a .socket unit)",
        )
    name: Any = item.getsockname()
    if not name or (item.family != socket.AF_UNIX and not name[1]):
        raise ListenError(f"{label} is not bound to an address", fix="call bind() on it first")
