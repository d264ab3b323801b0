"""systemd's two protocols, without its library: sockets come in, news go out.

Socket activation (sd_listen_fds(3)): systemd binds and listens, starts us when somebody connects,
and leaves the sockets as descriptors 3, 4, ... It says so in the environment:

    LISTEN_PID      whom they are for; a process that merely inherited the variables must not look
    LISTEN_FDS      how many
    LISTEN_FDNAMES  their FileDescriptorName=, joined by colons

Notification (sd_notify(3)): datagrams of `NAME=value` lines to the Unix socket NOTIFY_SOCKET.

| sent                          | when                                                             |
|-------------------------------|------------------------------------------------------------------|
| READY=1, MAINPID, STATUS      | every worker accepts connections                                 |
| STATUS                        | a worker died or came back                                       |
| RELOADING=1, MONOTONIC_USEC   | a reload began; READY=1 ends it                                  |
| STOPPING=1, STATUS            | the first request to stop                                        |
| WATCHDOG=1                    | twice per WATCHDOG_USEC, from the loop that has to be alive      |

Telling systemd is a courtesy: a failure is logged once and changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final, NamedTuple

from framegate.errors import ListenError, suggestion

__all__ = ["FIRST_FD", "Notifier", "PassedSocket", "passed_sockets", "take_sockets"]

logger: Final = logging.getLogger("framegate")

FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START: the descriptors after stdin, stdout and stderr."""

SEND_SECONDS: Final = 1.0
"""systemd reads at once; a full queue of whoever else listens there must not stop a server."""


class PassedSocket(NamedTuple):
    """One socket that systemd passed.

    Attributes:
        fd: Its descriptor.
        name: Its FileDescriptorName=; systemd's default is the name of the socket unit.
    """

    fd: int
    name: str


def passed_sockets(environment: Mapping[str, str]) -> list[PassedSocket]:
    """Return what systemd passed to this very process; nothing if it was meant for another."""
    try:
        if int(environment.get("LISTEN_PID", "")) != os.getpid():
            return []
        count = int(environment.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    text = environment.get("LISTEN_FDNAMES", "")
    names = text.split(":") if text else []
    if len(names) != count:
        names = ["unknown"] * count  # as sd_listen_fds_with_names does without names
    return [PassedSocket(FIRST_FD + number, name) for number, name in enumerate(names)]


def take_sockets(name: str, environment: MutableMapping[str, str]) -> list[PassedSocket]:
    """Return what was passed under a name (all without one), and keep it from our children.

    Raises:
        ListenError: There is nothing.
    """
    passed = passed_sockets(environment)
    for item in passed:
        with contextlib.suppress(OSError):  # who adopts it says what is wrong with it
            os.set_inheritable(item.fd, False)
    if not passed:
        pid = environment.get("LISTEN_PID")
        raise ListenError(
            "systemd passed no socket to this process",
            cause=f"LISTEN_PID is {pid}, but this is process {os.getpid()}"
            if pid
            else "LISTEN_PID and LISTEN_FDS are not set",
            fix="start it from a .service with a .socket unit, or by systemd-socket-activate; "
            "ExecStart= must be the server itself, not a program that starts it",
        )
    chosen = [item for item in passed if name in ("", item.name)]
    if not chosen:
        names = sorted({item.name for item in passed})
        near = suggestion(name, names).removeprefix("; ")
        raise ListenError(
            f'systemd passed no socket named "{name}"',
            cause=f"there are: {', '.join(names)}",
            fix=near or "set FileDescriptorName= in the .socket unit",
        )
    return chosen


class Notifier:
    """Tells systemd how the service is; does nothing where nobody asked for it.

    Args:
        environment: Where NOTIFY_SOCKET and the watchdog's period stand.

    Attributes:
        watchdog_seconds: How often `watchdog` has to be called, or None: twice as often as systemd
            would kill for silence.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._has_failed = False
        self._is_ready = False
        self.watchdog_seconds: float | None = (
            _watchdog_seconds(environment) if self._address else None
        )

    def ready(self, status: str) -> None:
        """Everything accepts connections, for the first time or after a reload."""
        self._is_ready = True
        # Where a launcher started us (`uv run`), systemd takes that for the service.
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """A reload began; `ready` has to follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`, once the service is ready."""
        if self._is_ready:
            self._send(f"STATUS={status}")

    def watchdog(self) -> None:
        """Whoever calls this is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        data = "\n".join(" ".join(line.splitlines()) for line in lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto(data, self._address)
        except OSError as error:
            if not self._has_failed:
                logger.warning("systemd cannot be notified over NOTIFY_SOCKET: %s", error)
            self._has_failed = True


def _address(text: str) -> str | bytes | None:
    if not text:
        return None
    if text.startswith("@"):  # the abstract namespace
        return b"\0" + os.fsencode(text[1:])
    if text.startswith("/"):
        return text
    logger.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket: not used", text)
    return None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return half of WATCHDOG_USEC, if it is meant for this process (sd_watchdog_enabled(3))."""
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        pid = int(environment.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    if microseconds <= 0 or pid != os.getpid():
        return None
    return microseconds / 2e6
