"""`--debug`: what an exception looks like in the browser of whoever develops.

The page shows the traceback with source, the local variables of the application's frames, and the
request. It is shown to clients on this machine only (`local_clients.py`); the configuration refuses
`--debug` on any address but loopback.

Frameworks answer an exception themselves and raise it again (Starlette: a plain 500, then the
exception). So a response with status 500 is held back until the call has ended: if it raised, the
page takes its place, else it is sent as it is.

Secrets are masked by name (of a variable, a key, a header, a parameter), and every value that was
masked once is masked wherever else it stands: in the source, in the message, in another variable.
So are the values of environment variables with such names. That is a net with holes: it is for
screens that are shared, not for strangers.
"""

from __future__ import annotations

import html
import linecache
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl

from framegate.importer import Application
from framegate.local_clients import is_local

__all__ = ["DebugPages"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

MASK: Final = "***"
SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase)?|pwd|secret|token|api_?-?key|private|credential|auth|cookie|session"
    r"|signature|jwt|bearer|dsn|csrf|otp|(^|_|-)key$",
    re.IGNORECASE,
)
# name = value, in source, in a repr and in a message.
_ASSIGNED: Final = re.compile(
    r"""(?P<name>[\w-]*(?:pass|pwd|secret|token|[a-z]_?key|credential|auth|cookie|session)[\w-]*['"]?"""
    r"""\s*[:=]\s*)(?P<value>[brfuBRFU]{0,2}(?:'[^'\n]*'|"[^"\n]*"))""",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)")

SECRET_LENGTH_MIN: Final = 4
"""Shorter values are masked where they are named, not everywhere: "no" would hide half a page."""

VALUE_CHARACTERS_MAX: Final = 1000
ITEMS_MAX: Final = 30
DEPTH_MAX: Final = 4
FRAMES_MAX: Final = 50
LINES_AROUND: Final = 4
HELD_BYTES_MAX: Final = 64 * 1024
"""A response with status 500 that is larger is the application's own page."""


class DebugPages:
    """ASGI middleware.

    Args:
        application: The application.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Call the application; answer its exception with the page, and raise it again."""
        if scope["type"] != "http" or not is_local(scope):
            await self._application(scope, receive, send)
            return
        held = _HeldBack(send)
        try:
            await self._application(scope, receive, held)
        except Exception as error:
            if held.is_sent:
                raise
            page = page_of(error, scope).encode("utf-8", "backslashreplace")
            headers = [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-length", str(len(page)).encode()),
                (b"cache-control", b"no-store"),
            ]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": page})
            raise
        await held.release()


class _HeldBack:
    """A `send` that keeps a response with status 500 until somebody decides."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[Message] = []
        self._byte_count = 0
        self.is_sent = False

    async def __call__(self, message: Message) -> None:
        is_held = bool(self._messages) or (
            message["type"] == "http.response.start" and message["status"] == 500
        )
        if self.is_sent or not is_held:
            self.is_sent = self.is_sent or message["type"] == "http.response.start"
            await self._send(message)
            return
        self._messages.append(message)
        self._byte_count += len(message.get("body", b""))
        if self._byte_count > HELD_BYTES_MAX or message["type"] not in (
            "http.response.start",
            "http.response.body",
        ):
            await self.release()

    async def release(self) -> None:
        """Send what was kept."""
        messages, self._messages = self._messages, []
        self.is_sent = self.is_sent or bool(messages)
        for message in messages:
            await self._send(message)


class Masker:
    """Shows values without the secrets among them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._known: set[str] = set()
        for name, value in environment.items():
            if SECRET_NAME.search(name):
                self.learn(value)

    def learn(self, value: object) -> None:
        """Remember a secret, so that it is masked everywhere."""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and len(value) >= SECRET_LENGTH_MIN and not value.isspace():
            self._known.add(value)
        elif isinstance(value, Mapping):
            for item in value.values():
                self.learn(item)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for item in value:
                self.learn(item)

    def value(self, name: str, value: object, depth: int = 0) -> str:
        """Return how a named value is shown."""
        if SECRET_NAME.search(name):
            self.learn(value)
            return MASK
        if depth < DEPTH_MAX and type(value) is dict:
            items = [
                f"{_repr(key)}: {self.value(str(key), item, depth + 1)}"
                for key, item in list(value.items())[:ITEMS_MAX]
            ]
            return "{" + ", ".join(items) + (", ..." if len(value) > ITEMS_MAX else "") + "}"
        if depth < DEPTH_MAX and type(value) in (list, tuple):
            sequence: Any = value
            items = [self._item(item, depth + 1) for item in sequence[:ITEMS_MAX]]
            text = ", ".join(items) + (", ..." if len(sequence) > ITEMS_MAX else "")
            return f"[{text}]" if type(value) is list else f"({text})"
        return _repr(value)

    def _item(self, item: Any, depth: int) -> str:
        """Return how one of several is shown; a pair may be a header: name and value."""
        if type(item) in (tuple, list) and len(item) == 2 and isinstance(item[0], (str, bytes)):
            name = item[0].decode("latin-1") if isinstance(item[0], bytes) else item[0]
            return f"({_repr(item[0])}, {self.value(name, item[1], depth)})"
        return self.value("", item, depth)

    def text(self, text: str) -> str:
        """Return any text with what looks like a secret, or is known to be one, masked."""
        text = _ASSIGNED.sub(lambda match: f"{match['name']}{MASK}", text)
        text = _IN_URL.sub(rf"\1:{MASK}", text)
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, MASK)
            escaped = repr(secret)[1:-1]
            text = text.replace(escaped, MASK)
        return text


def _repr(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # the application's own __repr__
        text = f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}..."


def page_of(error: BaseException, scope: Mapping[str, Any]) -> str:
    """Return the page for an exception."""
    masker = Masker(os.environ)
    # All values first, whatever is shown first: a secret found in one place is masked in all.
    chain = [(item, _frames(item.__traceback__, masker)) for item in _chain(error)]
    request = _request(scope, masker)
    parts = []
    for number, (item, frames) in enumerate(chain):
        if number:
            parts.append("<p>from:</p>")
        summary = "".join(traceback.format_exception_only(type(item), item)).strip()
        parts.append(f"<h2>{_escape(masker.text(summary))}</h2>")
        parts += [_frame_html(frame, masker) for frame in frames]
    rows = "".join(_row(name, value, masker) for name, value in request)
    title = _escape(masker.text(f"{type(error).__name__} at {scope['path']}"))
    return _PAGE.format(title=title, body="\n".join(parts), request=f"<table>{rows}</table>")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    item: BaseException | None = error
    while item is not None and item not in found:
        found.append(item)
        item = item.__cause__ or (None if item.__suppress_context__ else item.__context__)
    return found


def _frames(trace: TracebackType | None, masker: Masker) -> list[dict[str, Any]]:
    ours = os.path.dirname(__file__)
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(ours):
            variables = {
                name: masker.value(name, value)
                for name, value in list(trace.tb_frame.f_locals.items())
                if not name.startswith("__")
            }
            found.append(
                {
                    "file": code.co_filename,
                    "line": trace.tb_lineno,
                    "name": code.co_name,
                    "variables": variables,
                }
            )
        trace = trace.tb_next
    return found[-FRAMES_MAX:][::-1]


def _frame_html(frame: dict[str, Any], masker: Masker) -> str:
    lines = []
    for number in range(max(1, frame["line"] - LINES_AROUND), frame["line"] + LINES_AROUND + 1):
        line = linecache.getline(frame["file"], number)
        if line:
            shown = _escape(masker.text(f"{number:>5}  {line.rstrip()}"))
            lines.append(f"<mark>{shown}</mark>" if number == frame["line"] else shown)
    is_library = "site-packages" in frame["file"] or frame["file"].startswith(_LIBRARY)
    rows = "".join(_row(name, value, masker) for name, value in frame["variables"].items())
    where = _escape(f"{frame['file']}:{frame['line']} in {frame['name']}")
    return (
        f"<details{'' if is_library else ' open'}><summary>{where}</summary>"
        f"<pre>{chr(10).join(lines)}</pre><table>{rows}</table></details>"
    )


def _request(scope: Mapping[str, Any], masker: Masker) -> list[tuple[str, str]]:
    rows = [
        ("method", str(scope["method"])),
        ("path", str(scope["path"])),
        ("http version", str(scope["http_version"])),
        ("client", str(scope.get("client"))),
    ]
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    for name, value in parse_qsl(query, keep_blank_values=True):
        rows.append((f"?{name}", masker.value(name, value)))
    for raw_name, raw_value in scope["headers"]:
        name = bytes(raw_name).decode("latin-1")
        rows.append((name, masker.value(name, bytes(raw_value).decode("latin-1"))))
    return rows


def _row(name: str, value: str, masker: Masker) -> str:
    return f"<tr><th>{_escape(name)}</th><td>{_escape(masker.text(value))}</td></tr>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


_LIBRARY: Final = os.path.dirname(os.__file__)

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
pre {{ overflow: auto; padding: .5rem; border: 1px solid #888; border-radius: .4rem }}
summary {{ font-family: monospace; margin-top: 1rem; cursor: pointer }}
mark {{ background: #d33; color: #fff }}
table {{ border-collapse: collapse; font-family: monospace; font-size: .85rem }}
th {{ text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0; font-weight: normal }}
td {{ word-break: break-word; white-space: pre-wrap }}
</style></head><body>
<h1>{title}</h1>
{body}
<h2>Request</h2>
{request}
</body></html>
"""
