"""Where to listen, as text: the grammar of `--bind`.

| text                                     | means                                                |
|------------------------------------------|------------------------------------------------------|
| `127.0.0.1:8000`, `example.org:8000`     | an address of this machine, or a name that is one    |
| `[::1]:8000`                             | an IPv6 address, and IPv6 only                       |
| `localhost:8000`                         | both loopback addresses, 127.0.0.1 and [::1]         |
| `*:8000`                                 | every address of this machine, IPv4 and IPv6         |
| `unix:/run/app.sock?mode=660&group=web`  | a Unix socket; also `user=`; `unix:@name` is abstract |
| `fd://3`                                 | an inherited descriptor                              |
| `systemd`, `systemd:web`                 | what systemd passes: all, or those of one name       |

Each may end in `?proxy=on` (a Unix socket in `&proxy=on`): its connections begin with a header of
the PROXY protocol, version 1 or 2, by which a load balancer says whom it connects.

In the path of a Unix socket `%3F`, `%25` and `%20` stand for ?, % and a space.

Nothing here touches a socket: what is wrong with the text is said before anything is opened, and
whoever is nearly right is told the right spelling.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from framegate.errors import suggestion
from framegate.system import UNIX_PATH_BYTES_MAX

__all__ = [
    "Bind",
    "FdBind",
    "SystemdBind",
    "TcpBind",
    "UnixBind",
    "parse_bind",
    "unix_path",
]

PORT_MAX: Final = 65535
FD_MAX: Final = 2**20

EXPECTED: Final = "host:port, [v6]:port, *:port, unix:path?mode=660, fd://3 or systemd"


@dataclass(frozen=True, slots=True)
class TcpBind:
    """A TCP address; the host is a name, an address without brackets, or `*`."""

    host: str
    port: int
    is_proxied: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{_proxied(self.is_proxied)}"


@dataclass(frozen=True, slots=True)
class UnixBind:
    """A Unix socket. A path that begins with @ is a name in the abstract namespace, not a file."""

    path: str
    mode: int | None = None
    user: str | None = None
    group: str | None = None
    is_proxied: bool = False

    @property
    def is_abstract(self) -> bool:
        """Whether there is no file."""
        return self.path.startswith("@")

    def __str__(self) -> str:
        options = [
            f"{name}={value}"
            for name, value in (
                ("mode", None if self.mode is None else f"{self.mode:o}"),
                ("user", self.user),
                ("group", self.group),
                ("proxy", "on" if self.is_proxied else None),
            )
            if value is not None
        ]
        path = quote(os.fsencode(self.path), safe="/@:,+=~!$&'()*;")
        return f"unix:{path}" + ("?" + "&".join(options) if options else "")


@dataclass(frozen=True, slots=True)
class FdBind:
    """A descriptor that the parent process passed on."""

    fd: int
    is_proxied: bool = False

    def __str__(self) -> str:
        return f"fd://{self.fd}{_proxied(self.is_proxied)}"


@dataclass(frozen=True, slots=True)
class SystemdBind:
    """Sockets of systemd's socket activation; an empty name means all of them."""

    name: str = ""
    is_proxied: bool = False

    def __str__(self) -> str:
        name = f"systemd:{self.name}" if self.name else "systemd"
        return f"{name}{_proxied(self.is_proxied)}"


def _proxied(is_proxied: bool) -> str:
    return "?proxy=on" if is_proxied else ""


Bind = TcpBind | UnixBind | FdBind | SystemdBind


def parse_bind(text: str) -> Bind:
    """Return what a text of the grammar above means.

    Raises:
        ValueError: It means nothing; the message says what was expected and what is near.
    """
    try:
        return _parse(text)
    except _NoBindError:
        raise ValueError(f"expected {EXPECTED}{_repair(text)}") from None


def unix_path(path: str) -> str:
    """Return a path of a Unix socket that can be one.

    Raises:
        ValueError: It is empty, too long, or contains a zero byte.
    """
    if not path or "\0" in path:
        raise ValueError("expected a path without zero bytes")
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES_MAX:
        raise ValueError(
            f"expected a path of at most {UNIX_PATH_BYTES_MAX} bytes (the size of sun_path), "
            f"not {length}; a relative path, or one below /run, is shorter"
        )
    return path


class _NoBindError(Exception):
    """The text has none of the forms; one that has a form but a wrong part is a ValueError."""


def _parse(text: str) -> Bind:
    if text.startswith("unix:"):
        return _parse_unix(text)
    text, mark, query = text.partition("?")
    is_proxied = bool(mark) and _options(query, ("proxy",), "an address")["proxy"] == "on"
    if text == "systemd":
        return SystemdBind("", is_proxied)
    if found := re.fullmatch(r"systemd:([^\s:]+)", text):
        return SystemdBind(found[1], is_proxied)
    if found := re.fullmatch(r"fd://([0-9]+)", text, re.ASCII):
        if int(found[1]) > FD_MAX:
            raise ValueError(f"{text}: expected a descriptor from 0 to {FD_MAX}")
        return FdBind(int(found[1]), is_proxied)
    return _parse_tcp(text, is_proxied)


def _options(query: str, names: tuple[str, ...], kind: str) -> dict[str, str]:
    """Return what stands behind the question mark."""
    options: dict[str, str] = {}
    listed = ", ".join(names)
    for item in query.split("&"):
        name, equals, value = item.partition("=")
        if name not in names:
            near = suggestion(name, names)
            raise ValueError(f'{kind} has no option "{name}", but {listed}{near}')
        if not equals or not value:
            raise ValueError(f"{name} has no value, for example {name}={_EXAMPLES[name]}")
        if name in options:
            raise ValueError(f"{name} is given twice")
        if name == "proxy" and value not in ("on", "off"):
            raise ValueError(f"proxy={value}: expected on or off")
        options[name] = value
    return options


def _parse_unix(text: str) -> UnixBind:
    path, _, query = text.removeprefix("unix:").partition("?")
    if path.startswith("//"):  # as URLs are written: nothing between the second and third slash
        path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f'"unix://{path}" has a host; did you mean unix:{path}?')
    # Bytes that are no UTF-8 travel as surrogates, as everywhere in Python's file names.
    path = unix_path(unquote(path, errors="surrogateescape"))
    names = ("mode", "user", "group", "proxy")
    options = _options(query, names, "a Unix socket") if query else {}
    is_proxied = options.pop("proxy", "off") == "on"
    bind = UnixBind(path, _mode(options), options.get("user"), options.get("group"), is_proxied)
    if bind.is_abstract and options:
        raise ValueError(
            f"an abstract socket has no {next(iter(options))}: whoever is in the network "
            "namespace may connect; use a path"
        )
    return bind


_EXAMPLES: Final = {"mode": "660", "user": "www-data", "group": "www-data", "proxy": "on"}


def _mode(options: dict[str, str]) -> int | None:
    text = options.get("mode")
    if text is None:
        return None
    if not re.fullmatch(r"0?o?[0-7]{3}", text):
        raise ValueError(f"mode={text}: expected three octal digits such as 660")
    return int(text[-3:], 8)


_NO_HOSTS: Final = ("fd:", "fds:", "http:", "https:", "tcp:")
"""Half of another form, or of a URL, rather than the name of a host."""


def _parse_tcp(text: str, is_proxied: bool) -> TcpBind:
    found = re.fullmatch(r"\[(?P<v6>[^][\s/]+)\]:(?P<port>\d+)", text, re.ASCII) or re.fullmatch(
        r"(?P<host>[^][\s/:?]+):(?P<port>\d+)", text
    )
    if found is None or text.lower().startswith(_NO_HOSTS):
        raise _NoBindError
    host = found.groupdict().get("v6")
    if host is not None and not _is_v6(host):
        raise ValueError(f'"[{host}]" is no IPv6 address; brackets are for those alone')
    host = found["host"] if host is None else host
    if not found["port"].isascii() or int(found["port"]) > PORT_MAX:
        raise ValueError(f"port {found['port']}: expected a whole number from 0 to {PORT_MAX}")
    return TcpBind(host, int(found["port"]), is_proxied)


def _is_v6(text: str) -> bool:
    import ipaddress

    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv6Address)
    except ValueError:
        return False


def _repair(text: str) -> str:
    """Return `; did you mean X?` with the nearest text that would have been taken, or nothing."""
    for guess in _guesses(text.strip()):
        try:
            _parse(guess)
        except (_NoBindError, ValueError):
            continue
        return f"; did you mean {guess}?"
    return ""


def _guesses(text: str) -> list[str]:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https", "tcp", "tcp4", "tcp6"):
        bare = rest.rstrip("/")
        return [bare, *_guesses(bare)]
    if re.fullmatch(r"\d+", text):
        return [f"127.0.0.1:{text}"]
    if found := re.fullmatch(r":(\d+)", text):
        return [f"*:{found[1]}"]
    if found := re.fullmatch(r"[a-z]*fds?[:=/]+(\d+)", text, re.I):
        return [f"fd://{found[1]}"]
    if found := re.fullmatch(r"(?:u[a-z]*[:=])?(/{0,2})(.*/.*)", text, re.I):
        return [f"unix:{found[1][:1]}{found[2]}"]
    if text.lower().rstrip(":").startswith("system"):
        return ["systemd"]
    if _is_v6(text.strip("[]")):
        host, _, port = text.rpartition(":")
        if "[" not in text and port.isdecimal() and len(port) >= 4 and _is_v6(host):
            return [f"[{host}]:{port}"]
        return [f"[{text.strip('[]')}]:8000"]
    host, _, port = text.rpartition(":")
    if _is_v6(host) and port.isdecimal():
        return [f"[{host}]:{port}"]
    if text and ":" not in text:
        return [f"{text}:8000"]
    return []
