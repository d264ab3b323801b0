"""Whether a request was made on this machine, for what nobody else may see.

The peer's address alone does not say it: a proxy on this machine passes on strangers from its own
address, and a web page may make a browser ask for a name that leads to 127.0.0.1 (DNS rebinding).
So no header of a proxy may be there, and the host has to be a name of this machine.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

__all__ = ["is_local"]

_PROXY_HEADERS: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"}
)
_HOST: Final = re.compile(rb"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]*)?", re.IGNORECASE)


def is_local(scope: Any) -> bool:
    """Whether the client, the address it came to and the host it asked for are this machine's."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or not _is_loopback(client[0]) or not _is_loopback(server[0]):
        return False
    headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    if any(name in _PROXY_HEADERS for name, _ in headers):
        return False
    hosts = [value for name, value in headers if name == b"host"]
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None:
        return False
    name = match[1].decode("ascii", "replace").strip("[]").lower()
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
