"""From the signature of a handler to what Rust has to know of its arguments.

Where an argument comes from:

| its annotation | it is |
|---|---|
| its name is in braces in the path | of the path |
| `Annotated[T, Query()]`, `Header()`, `Cookie()`, `Path()`, `Body()` | what that says |
| `Annotated[T, Form()]`, `Upload` | a field, a file of a form |
| `HttpRequest` | the request |
| `WebSocket` | the WebSocket |
| `AsyncIterator[bytes]` | the body, piece by piece |
| what a text can be: a type of `KINDS`, an enumeration, a `Literal`, or a list | of the query |
| anything else | the body |

Without an annotation the names of `PLAIN` are what they say.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import inspect
import json
import operator
import re
import types
import typing
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Union

from framegate.app.answers import HttpRequest
from framegate.app.forms import Upload
from framegate.app.sockets import WebSocket
from framegate.errors import RouteError

__all__ = ["Argument", "Body", "Cookie", "Form", "Header", "Path", "Query", "read_arguments"]

KINDS: Final[Mapping[Any, str]] = {
    int: "int",
    float: "float",
    str: "str",
    bool: "bool",
    decimal.Decimal: "decimal",
    uuid.UUID: "uuid",
    datetime.date: "date",
    datetime.time: "time",
    datetime.datetime: "datetime",
}

PLAIN: Final[Mapping[str, Callable[[HttpRequest], Any]]] = {
    name: operator.attrgetter(name)
    for name in ("path_params", "query_params", "headers", "cookies", "method", "path")
} | {"request": lambda request: request}
"""Arguments without an annotation, as other frameworks pass them."""

_PARAMETERS: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True, kw_only=True)
class _Marker:
    """Where an argument comes from, and what else has to be true of it.

    Attributes:
        alias: Its name in the request, if that is another one.
        ge, gt, le, lt: Bounds of a number.
        min_length, max_length: Bounds of the characters of a text.
        pattern: A regular expression that a part of a text has to match.
        min_items, max_items: Bounds of a list.
    """

    alias: str | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    min_items: int | None = None
    max_items: int | None = None

    def schema(self, *, is_list: bool) -> str | None:
        """JSON Schema of the bounds; nothing if there are none."""
        of_value = {
            "minimum": self.ge,
            "exclusiveMinimum": self.gt,
            "maximum": self.le,
            "exclusiveMaximum": self.lt,
            "minLength": self.min_length,
            "maxLength": self.max_length,
            "pattern": self.pattern,
        }
        of_list = {"minItems": self.min_items, "maxItems": self.max_items}
        inner = {name: bound for name, bound in of_value.items() if bound is not None}
        outer = {name: bound for name, bound in of_list.items() if bound is not None}
        if is_list:
            schema: dict[str, Any] = outer | ({"items": inner} if inner else {})
        else:
            schema = inner | outer
        return json.dumps(schema) if schema else None


class Path(_Marker):
    """A parameter of the path."""


class Query(_Marker):
    """A parameter of the query."""


class Header(_Marker):
    """A field of the head; underscores of its name are hyphens."""


class Cookie(_Marker):
    """A cookie."""


class Body(_Marker):
    """The body, as JSON; `bytes` are the body as it is."""


class Form(_Marker):
    """A field of a form, `multipart/form-data` or `application/x-www-form-urlencoded`."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a handler, as `_http.RouteTable` reads it.

    Attributes:
        name: Its name in the signature.
        source: `path`, `query`, `header`, `cookie`, `json`, `bytes`, `request`, `form` or `file`.
        wire: Its name in the request.
        kind: What its text is.
        choices: Texts and what they stand for, of the kind `choice`.
        is_list: Whether all values of the name are wanted.
        is_required: Whether it has to be there.
        default: What it is when it is not.
        is_keyword: Whether it is passed by name.
        schema: JSON Schema 2020-12 that its value has to satisfy.
        convert: Makes the annotated object of the plain one.
        is_stream: Whether it is the body, piece by piece.
        annotation: Of the signature, without marks.
    """

    name: str
    source: str
    wire: str
    kind: str = "str"
    choices: list[tuple[str, Any]] = field(default_factory=list)
    is_list: bool = False
    is_required: bool = True
    default: Any = None
    is_keyword: bool = False
    schema: str | None = None
    convert: Callable[[Any], Any] | None = None
    is_stream: bool = False
    annotation: Any = None

    @property
    def is_body(self) -> bool:
        """Whether it is all of the body."""
        return self.source in {"json", "bytes"} or self.is_stream


def read_arguments(path: str, handler: Callable[..., Any]) -> list[Argument]:
    """Read the signature of a handler.

    Raises:
        RouteError: An argument cannot come from a request, or the path names one that is not there.
    """
    where = f"{getattr(handler, '__qualname__', handler)} for {path}"
    in_path = {name: kind or "str" for name, kind in _PARAMETERS.findall(path)}
    try:
        hints = typing.get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise RouteError(
            f"an annotation of {where} names what is not known: {error}",
            fix="import it at the top of the module, outside of `if TYPE_CHECKING`",
        ) from error
    found = []
    for parameter in inspect.signature(handler).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise RouteError(f"{where} takes {parameter}: a handler names its arguments")
        annotation = hints.get(parameter.name, inspect.Parameter.empty)
        found.append(_argument(parameter, annotation, in_path, where))
    bodies = [argument.name for argument in found if argument.is_body]
    if bodies and any(argument.source in {"form", "file"} for argument in found):
        raise RouteError(
            f"{where} has the body ({', '.join(bodies)}) beside fields of a form, which is the body"
        )
    if len(bodies) > 1:
        raise RouteError(
            f"{where} has {len(bodies)} arguments that are the body: {', '.join(bodies)}",
            fix="make them fields of one dataclass, or mark one with Annotated[..., Query()]",
        )
    missing = in_path.keys() - {one.wire for one in found if one.source == "path"}
    # A request has them all in `path_params`.
    if missing and not any(one.source == "request" for one in found):
        raise RouteError(f"{where} has no argument {', '.join(sorted(missing))} of its path")
    return found


def _argument(
    parameter: inspect.Parameter, annotation: Any, in_path: Mapping[str, str], where: str
) -> Argument:
    name = parameter.name
    is_required = parameter.default is parameter.empty
    common: dict[str, Any] = {
        "name": name,
        "is_required": is_required,
        "default": None if is_required else parameter.default,
        "is_keyword": parameter.kind is parameter.KEYWORD_ONLY,
    }
    marker: _Marker | None = None
    if typing.get_origin(annotation) is Annotated:
        marked = annotation
        annotation, *extras = typing.get_args(annotation)
        marker = next((extra for extra in extras if isinstance(extra, _Marker)), None)
        if marker is None:
            annotation = marked  # others read their own marks: msgspec.Meta, pydantic.Field
    common["annotation"] = annotation
    if annotation is HttpRequest:
        return Argument(source="request", wire=name, **common)
    if annotation is WebSocket:
        return Argument(source="request", wire=name, convert=_socket_of, **common)
    if annotation in _STREAMS:
        return Argument(
            source="request", wire=name, convert=HttpRequest._stream, is_stream=True, **common
        )
    if annotation is parameter.empty and marker is None and name not in in_path:
        if name == "body":
            return Argument(source="bytes", wire=name, **common)
        if name in PLAIN:
            return Argument(source="request", wire=name, convert=PLAIN[name], **common)
    plain = _without_none(annotation)
    if plain is Upload or plain == list[Upload]:
        wire = (marker.alias if marker else None) or name
        return Argument(source="file", wire=wire, is_list=plain is not Upload, **common)
    wire = (marker.alias if marker else None) or name
    text = _text(annotation)
    if isinstance(marker, Path) or (marker is None and name in in_path):
        if wire not in in_path:
            raise RouteError(f"{where} wants {wire} of the path, which does not have it")
        if annotation is parameter.empty:
            text = _Text(in_path[wire])
            if in_path[wire] == "path":
                text = _Text("str")
        source = "path"
        common |= {"is_required": True, "default": None}
    elif isinstance(marker, Header):
        source, wire = "header", wire if marker.alias else wire.replace("_", "-")
    elif isinstance(marker, Cookie):
        source = "cookie"
    elif isinstance(marker, Form):
        source = "form"
    elif isinstance(marker, Query) or (marker is None and text is not None):
        source = "query"
    elif annotation is parameter.empty:
        raise RouteError(
            f"the argument {name} of {where} has no annotation",
            fix="annotate it, for example with `str` for a parameter of the query",
        )
    elif annotation is bytes:
        return Argument(source="bytes", wire=name, **common)
    else:
        from framegate.app.schemas import read_body

        schema, convert = read_body(annotation, where)
        return Argument(source="json", wire=name, schema=schema, convert=convert, **common)
    if text is None:
        raise RouteError(
            f"the argument {name} of {where} is of the {source}, and no text becomes {annotation}",
            fix="use int, float, str, bool, Decimal, UUID, date, time, datetime, an enumeration, "
            "a Literal, or a list of those",
        )
    if text.is_list and source == "path":
        raise RouteError(f"the argument {name} of {where} is a list, and a path has one of each")
    return Argument(
        source=source,
        wire=wire,
        kind=text.kind,
        choices=text.choices,
        is_list=text.is_list,
        schema=marker.schema(is_list=text.is_list) if marker else None,
        **common,
    )


def _socket_of(request: HttpRequest) -> WebSocket:
    if request._socket is None:
        request._socket = WebSocket(request)
    socket: WebSocket = request._socket
    return socket


_STREAMS: Final = (AsyncIterator[bytes], AsyncIterable[bytes])


@dataclass(frozen=True, slots=True)
class _Text:
    """How text becomes a value."""

    kind: str
    choices: list[tuple[str, Any]] = field(default_factory=list)
    is_list: bool = False


def _text(annotation: Any) -> _Text | None:
    """How text becomes what is annotated; `None` if none does."""
    annotation = _without_none(annotation)
    if annotation in KINDS if isinstance(annotation, type) else False:
        return _Text(KINDS[annotation])
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return _Text("choice", [(str(value), value) for value in typing.get_args(annotation)])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _Text("choice", [(str(member.value), member) for member in annotation])
    if origin is list:
        (item,) = typing.get_args(annotation)
        inner = _text(item)
        if inner is not None and not inner.is_list:
            return _Text(inner.kind, inner.choices, is_list=True)
    return None


def _without_none(annotation: Any) -> Any:
    """`T` of `T | None`."""
    if typing.get_origin(annotation) in {Union, types.UnionType}:
        others = [one for one in typing.get_args(annotation) if one is not types.NoneType]
        if len(others) == 1:
            return others[0]
    return annotation
