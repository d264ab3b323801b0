"""From `host`, `port`, `uds` or `fd` to bound sockets.

Sockets are bound in the process that the user started, so that a wrong address is its error, and
stay open there for as long as it lives. They begin to listen only when a worker is ready to serve.

TCP with several workers: one SO_REUSEPORT socket each. The kernel spreads connections evenly over
them, and what waits in the queue of a worker that dies is served by its successor, because the
queue belongs to the socket and the supervisor keeps the socket. Unix and inherited sockets cannot
be had several times, so all workers accept from the same one.

SO_REUSEPORT would also let a second server of the same user share the port silently; a plain bind
comes first to find that out. Two servers that start at the same moment both pass it; the later one
then fails in listen().
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.config import Config
from framegate.errors import ListenError

__all__ = ["Listeners", "listener_addresses", "open_listeners", "start_listening"]

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass
class Listeners:
    """The bound sockets of one server.

    Attributes:
        of_worker: For each worker the sockets it accepts from.
        scheme: What URLs begin with.
    """

    of_worker: list[list[socket.socket]]
    scheme: str = "http"
    _unlink: tuple[str, int] | None = None

    @property
    def addresses(self) -> list[Address]:
        """Where the server really listens: after bind, so a port 0 has become a number."""
        return listener_addresses(self.of_worker[0])

    @property
    def urls(self) -> list[str]:
        """The addresses as a person types them."""
        return [_url(address, self.scheme) for address in self.addresses]

    def close(self) -> None:
        """Close all sockets and remove the file of a Unix socket that is still ours."""
        if self._unlink is not None:
            path, inode = self._unlink
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        for sockets in self.of_worker:
            for item in sockets:
                item.close()


def open_listeners(config: Config) -> Listeners:
    """Bind everything that a configuration asks for.

    Raises:
        ListenError: The address is in use, not allowed or does not exist.
    """
    listeners = _open_listeners(config)
    listeners.scheme = "https" if config.ssl_certfile else "http"
    return listeners


def _open_listeners(config: Config) -> Listeners:
    if config.fd is not None:
        return Listeners([[_adopt(config.fd)]] * config.workers)
    if config.uds is not None:
        bound = _bind_unix(config.uds)
        return Listeners(
            [[bound]] * config.workers, _unlink=(config.uds, os.stat(config.uds).st_ino)
        )
    return _bind_tcp(config.host, config.port, config.workers)


def start_listening(sockets: Sequence[socket.socket], backlog: int) -> None:
    """Let the kernel take connections; a socket that listens already gets the new backlog.

    Raises:
        ListenError: Somebody else began to listen there between our bind and now.
    """
    for item in sockets:
        try:
            item.listen(backlog)
        except OSError as error:
            (address,) = listener_addresses([item])
            if isinstance(address, str):
                raise ListenError(f"cannot listen on {address}", cause=str(error)) from None
            raise _explain(error, address) from None


def listener_addresses(sockets: Sequence[socket.socket]) -> list[Address]:
    """Return the addresses that sockets are bound to."""
    found: list[Address] = []
    for item in sockets:
        name: Any = item.getsockname()
        if item.family == socket.AF_UNIX:
            found.append(name.decode(errors="replace") if isinstance(name, bytes) else name)
        else:
            found.append((name[0], name[1]))
    return found


def _url(address: Address, scheme: str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


# ----------------------------------------------------------------------------------------------
# TCP


def _bind_tcp(host: str, port: int, workers: int) -> Listeners:
    of_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for family, address in _resolve(host, port):
            if port:
                _bind_one(family, (address, port), share=False).close()
            for sockets in of_worker:
                bound = _bind_one(family, (address, port), share=workers > 1)
                sockets.append(bound)
                port = bound.getsockname()[1]  # port 0: all others join the one it became
    except BaseException:
        Listeners(of_worker).close()
        raise
    return Listeners(of_worker)


def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(
            f'host "{host}" cannot be resolved', cause=str(error), fix="check --host"
        ) from None
    unique = dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found)
    return list(unique)


def _bind_one(family: int, address: tuple[str, int], *, share: bool) -> socket.socket:
    bound = None
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise _explain(error, address) from None
    return bound


def _explain(error: OSError, address: tuple[str, int]) -> ListenError:
    host, port = address
    match error.errno:
        case errno.EADDRINUSE:
            return ListenError(
                f"port {port} on {host} is in use",
                cause=_holder(port) or "the process that holds it is not visible from here",
                fix="stop it, or choose another --port (0 takes a free one)",
            )
        case errno.EACCES | errno.EPERM:
            return ListenError(
                f"port {port} on {host} may not be bound by this user",
                cause="ports below net.ipv4.ip_unprivileged_port_start (1024) need a capability",
                fix="choose a higher --port, or grant CAP_NET_BIND_SERVICE",
            )
        case errno.EADDRNOTAVAIL:
            return ListenError(
                f"{host} is no address of this machine",
                fix="use 127.0.0.1, 0.0.0.0 for all, or one that `ip address` shows",
            )
        case _:
            return ListenError(f"cannot listen on {host} port {port}", cause=str(error))


def _holder(port: int) -> str:
    """Name the process that listens on a TCP port, as far as /proc shows."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    pids = sorted({pid for pid, link in _open_files() if link in inodes})
    if not pids:
        return ""
    shown = f"held by pid {pids[0]} ({_command(pids[0])})"
    return shown + (f" and {len(pids) - 1} more" if len(pids) > 1 else "")


def _open_files() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    yield int(name), os.readlink(f"/proc/{name}/fd/{fd}")


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(words).decode(errors="replace")
    return text if len(text) <= 80 else text[:77] + "..."


# ----------------------------------------------------------------------------------------------
# Unix sockets and inherited ones


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        if error.errno == errno.ENOENT:
            fix = f"create the directory {os.path.dirname(path) or '.'}"
        elif error.errno in (errno.EACCES, errno.EPERM):
            fix = "choose a directory that this user may write to"
        else:
            fix = "choose another --uds"
        raise ListenError(
            f"cannot create the Unix socket {path}", cause=error.strerror or str(error), fix=fix
        ) from None
    return bound


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that is gone; refuse anything else that is there."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"{path} exists and is no socket", fix="remove it, or choose another --uds"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise ListenError(f"cannot use the Unix socket {path}", cause=str(error)) from None
    raise ListenError(
        f"another server listens on the Unix socket {path}",
        fix="stop it, or choose another --uds",
    )


def _adopt(fd: int) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ListenError(f"--fd {fd} is no socket", fix="pass the number of a bound socket")
        # A copy: closing ours must not close a descriptor that the caller owns.
        adopted = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise ListenError(
            f"--fd {fd} cannot be used",
            cause=error.strerror or str(error),
            fix="the parent must pass it on (pass_fds), bound to an address",
        ) from None
    if adopted.type != socket.SOCK_STREAM:
        adopted.close()
        raise ListenError(f"--fd {fd} is no stream socket")
    return adopted
