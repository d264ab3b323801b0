"""Who has an address already: the process to name when a bind fails, as far as the system shows."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from framegate import system

__all__ = ["command_of", "holder_of_port", "holder_of_socket", "process_named"]

_SHOWN_MAX: Final = 80


def holder_of_port(family: int, host: str, port: int) -> str:
    """Describe who listens on a port of an address, or of one that covers it; "" if nobody is seen.

    Args:
        family: AF_INET or AF_INET6.
        host: A numeric address.
        port: Its port.
    """
    pids, uid = system.listeners_on(family, host, port)
    if pids:
        return process_named(pids[0]) + (f" and {len(pids) - 1} more" if len(pids) > 1 else "")
    if uid is not None:
        return f"held by a process of {_user(uid)}, not visible from here"
    return ""


def holder_of_socket(connected: socket.socket) -> str:
    """Describe who listens at the other end of a connected Unix socket; "" if it is not seen."""
    with contextlib.suppress(OSError):
        pid, _ = system.peer_of(connected)
        if pid > 0:
            return process_named(pid)
    return ""


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened."""
    try:
        text = system.command_line(pid).decode(errors="replace")
    except OSError:
        return "?"
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def process_named(pid: int) -> str:
    """Describe a process that holds an address."""
    return f"held by pid {pid} ({command_of(pid)})"


def _user(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
