"""What handlers are given and what they give back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import operator
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, Final

from framegate.errors import ClientDisconnected, FramegateError

__all__ = ["HttpRequest", "Problem", "Response", "simplify"]


class Response:
    """An answer that says more than its content.

    Args:
        content: As a handler returns it: `str` is text, `bytes` are bytes, `None` is nothing,
            anything else is JSON.
        status: The status; 200 unless it is said, also where the content is `None`.
        headers: Fields of the head. `content-length` is the server's.
        media_type: `content-type`, instead of what the content makes it.
        background: Called when the response was sent, with no arguments; `add_task` adds more.
    """

    __slots__ = ("background", "content", "headers", "media_type", "status")

    def __init__(
        self,
        content: Any = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        media_type: str | None = None,
        background: Callable[[], Any] | None = None,
    ) -> None:
        self.content: Any = content
        self.status: int = status
        self.headers: list[tuple[str, str]] = list(
            headers.items() if isinstance(headers, Mapping) else headers
        )
        self.media_type: str | None = media_type
        self.background: list[Callable[[], Any]] = [] if background is None else [background]

    def add_task(self, function: Callable[..., Any], *positional: Any, **named: Any) -> None:
        """Call a function when the response was sent; one that is no coroutine runs in a thread.

        Args:
            function: What is called. An exception ends up in the log, and later tasks do not run.
            *positional: What it is called with.
            **named: The same, by name.
        """
        self.background.append(functools.partial(function, *positional, **named))

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        secure: bool = True,
        http_only: bool = True,
        same_site: str = "lax",
    ) -> None:
        """Add a cookie (RFC 6265).

        Args:
            name: Its name.
            value: Its value.
            max_age: Seconds that it lasts; without them as long as the browser runs.
            path: Where it is sent.
            secure: Over https alone. Browsers take http on localhost for https.
            http_only: Not for scripts.
            same_site: `lax`, `strict` or `none`.

        Raises:
            ValueError: A character that a cookie cannot have.
        """
        forbidden = set(' \t\r\n";,\\')
        for text in (name, value, path):
            if not text.isascii() or not text.isprintable() or forbidden & set(text):
                raise ValueError(f"{text!r} cannot be in a cookie")
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name of a cookie")
        if same_site not in {"lax", "strict", "none"}:
            raise ValueError(f"same_site is lax, strict or none, not {same_site!r}")
        parts = [f"{name}={value}", f"Path={path}", f"SameSite={same_site.capitalize()}"]
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        if secure:
            parts.append("Secure")
        if http_only:
            parts.append("HttpOnly")
        self.headers.append(("set-cookie", "; ".join(parts)))


class Problem(FramegateError):  # noqa: N818 (it is the answer)
    """Raised in a handler, this is the answer: problem details (RFC 9457).

    Args:
        status: Its status.
        detail: What is wrong in this case, for people.
        headers: Fields of the head.
        faults: Everything that is wrong with the request, each as `(part, name, detail)`: the part
            is `body`, `path`, `query`, `header`, `cookie` or `form`, the name that of the parameter
            or a JSON pointer into the body.
    """

    code = "FG-ROUTE-002"

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        faults: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a problem has a status of 400 to 599, not {status}")
        super().__init__(detail or f"status {status}")
        self.status: int = status
        self.detail: str | None = detail
        self.headers: list[tuple[str, str]] = list(
            headers.items() if isinstance(headers, Mapping) else headers
        )
        self.faults: list[tuple[str, str, str]] = list(faults)


class HttpRequest:
    """A request, for a handler whose argument is annotated with it.

    Attributes:
        method: `GET`.
        path: Decoded.
        query: As it was sent, without the `?`.
        fields: Names (in small letters) and values of the head, in order.
        route: The pattern that the path fits: `/items/{item_id:int}`.
        path_params: Parameters of the path, decoded, as texts.
    """

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        fields: list[tuple[str, str]],
        route: str,
        path_params: dict[str, str] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.fields = fields
        self.route = route
        self.path_params: dict[str, str] = path_params or {}
        # Where the body comes from, if no argument is made of it.
        self._receive: Callable[[], Any] | None = None
        self._is_begun = False
        self._socket: Any = None

    @cached_property
    def headers(self) -> dict[str, str]:
        """The head by name; values of a name that is there more than once are joined by commas."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    @cached_property
    def query_params(self) -> dict[str, list[str]]:
        """All values of each name in the query."""
        return urllib.parse.parse_qs(self.query, keep_blank_values=True)

    @cached_property
    def cookies(self) -> dict[str, str]:
        """Cookies by name; of one that is there twice the first."""
        found: dict[str, str] = {}
        for name, field in self.fields:
            if name == "cookie":
                for pair in field.split(";"):
                    cookie, _, value = pair.strip().partition("=")
                    found.setdefault(cookie, value)
        return found

    def stream(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece, as it arrives: no more of it is read than is asked for.

        Raises:
            RuntimeError: An argument of the handler is the body, or it was read before.
            ClientDisconnected: The client went away before its end; an `OSError`.
        """
        if self._receive is None or self._is_begun:
            raise RuntimeError("the body was read before, or is an argument of the handler")
        return self._stream()

    def _stream(self) -> AsyncIterator[bytes]:
        """The same, for an argument: the server has not said yet where the body comes from."""
        self._is_begun = True
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        assert self._receive is not None
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnected("the client went away before the end of its body")
            if body := event.get("body", b""):
                yield body
            if not event.get("more_body", False):
                return

    async def body(self, bytes_max: int = 4 << 20) -> bytes:
        """Return the whole body.

        Args:
            bytes_max: How long it may be.

        Raises:
            Problem: It is longer (413).
        """
        body = bytearray()
        async for piece in self.stream():
            body += piece
            if len(body) > bytes_max:
                raise Problem(413, f"the body may have {bytes_max} bytes")
        return bytes(body)

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.path}>"


_SIMPLIFIERS: Final[dict[type, Callable[[Any], Any]]] = {}
"""What makes plain objects of the instances of a class: found once for each, which costs more."""
_SIMPLIFIERS_MAX: Final = 1024
"""Classes; programs that make more of them while they run begin anew."""


def simplify(value: Any) -> Any:
    """Return what JSON has words for, one level deep: lists and dictionaries may hold more of it.

    Raises:
        TypeError: It is nothing that becomes JSON.
    """
    kind = type(value)
    found = _SIMPLIFIERS.get(kind)
    if found is None:
        found = _simplifier_of(value)
        # A proxy is of the class that its value has now.
        if value.__class__ is kind:
            if len(_SIMPLIFIERS) >= _SIMPLIFIERS_MAX:
                _SIMPLIFIERS.clear()
            _SIMPLIFIERS[kind] = found
    return found(value)


def _simplifier_of(value: Any) -> Callable[[Any], Any]:
    """What makes a plain object of a value, and of all others of its class."""
    kind = type(value)
    if hasattr(kind, "model_dump"):  # pydantic
        return lambda value: value.model_dump(mode="json")
    match value:
        case enum.Enum():
            return operator.attrgetter("value")
        case datetime.datetime() | datetime.date() | datetime.time():
            return lambda value: value.isoformat()
        case uuid.UUID() | decimal.Decimal():
            return str
        case bool() | int() | float() | str():  # of classes of their own
            return next(base for base in (int, float, str) if isinstance(value, base))
        case Mapping():
            return lambda value: {name: value[name] for name in value}
        case bytes() | bytearray() | memoryview():
            pass
        case AbstractSet() | Sequence():
            return list
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value))
            return lambda value: {name: getattr(value, name) for name in names}
        case _ if hasattr(kind, "__struct_fields__"):
            import msgspec

            return functools.partial(msgspec.to_builtins, enc_hook=simplify)
        case _:
            pass
    raise TypeError(f"{kind.__qualname__} does not become JSON; return a dict or a Response")
