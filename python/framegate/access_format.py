"""Formats of the access log in Apache's manner: `%h %l %u %t "%r" %>s %b`.

The directives are those of Apache's `mod_log_config` that mean something here; what Apache does not
know are notes: `%{worker}n`. Bytes are those of bodies. A value that is missing is `-`. The core
(rust/http/src/access_log.rs) writes what this module understands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["NAMED", "Part", "directives", "parse"]

Part = tuple[str, str]
"""What the core takes: `literal`, `request_field` or `response_field` with a text, or an item."""

NAMED: Final = {
    "common": '%h %l %u %t "%r" %>s %b',
    "combined": '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"',
}

# Letter: item of the core, what it is.
_PLAIN: Final = {
    "h": ("client", "client's address"),
    "a": ("client", "the same"),
    "l": ("nothing", "`-`: nobody knows it"),
    "u": ("nothing", "`-`: applications authenticate users, the server does not"),
    "t": ("time", "when the request's head was complete, `[20/Nov/2026:19:03:02 +0000]`"),
    "r": ("request_line", "request line: method, target, version"),
    "m": ("method", "method"),
    "U": ("path", "path, without the query"),
    "q": ("query", "query with its `?`, or nothing"),
    "H": ("version", "`HTTP/1.1`, `HTTP/1.0` or `HTTP/2`"),
    "s": ("status", "status; also `%>s`"),
    "b": ("bytes_or_dash", "bytes of the response's body, `-` for none"),
    "B": ("bytes_out", "the same, `0` for none"),
    "D": ("microseconds", "microseconds from the request's head to the last byte of the response"),
    "T": ("seconds", "the same in seconds"),
    "P": ("process", "process id of the worker"),
    "L": ("request_id", "the request's id, where requests have one (`--request-id`)"),
}

# (argument, letter): the same, for directives with an argument.
_WITH_ARGUMENT: Final = {
    ("sec", "t"): ("time_seconds", "seconds since 1970"),
    ("msec", "t"): ("time_milliseconds", "milliseconds since 1970"),
    ("usec", "t"): ("time_microseconds", "microseconds since 1970"),
    ("us", "T"): ("microseconds", "duration in microseconds"),
    ("ms", "T"): ("milliseconds", "duration in milliseconds"),
    ("s", "T"): ("seconds", "duration in seconds"),
    ("id", "n"): ("request_id", "the request's id, where requests have one"),
    ("worker", "n"): ("worker", "number of the worker, from 1"),
    ("protocol", "n"): ("protocol", "`http/1.0`, `http/1.1`, `h2` or `websocket`"),
    ("bytes_in", "n"): ("bytes_in", "bytes of the request's body that were read"),
    ("bytes_out", "n"): ("bytes_out", "bytes of the response's body"),
    ("first_byte", "n"): ("first_byte", "microseconds to the head of the response"),
    ("aborted", "n"): ("aborted", "`1` if the response did not reach its end, else `0`"),
}

_DIRECTIVE: Final = re.compile(r"%[<>]?(?:\{([^}]*)\})?(.?)", re.DOTALL)
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2, token


def parse(text: str) -> tuple[Part, ...]:
    """Return the parts of a format: one of `NAMED`, or a text with directives.

    Raises:
        ValueError: What is wrong with it, as the end of a sentence.
    """
    text = NAMED.get(text, text)
    parts: list[Part] = []
    end = 0
    for match in _DIRECTIVE.finditer(text):
        if match.start() > end:
            parts.append(("literal", text[end : match.start()]))
        end = match.end()
        parts.append(_part(match))
    if end < len(text):
        parts.append(("literal", text[end:]))
    if all(kind == "literal" for kind, _ in parts):
        names = ", ".join(NAMED)
        raise ValueError(f"expected text, json, {names}, or directives such as %h and %{{x}}i")
    return tuple(parts)


def _part(match: re.Match[str]) -> Part:
    argument, letter = match.groups()
    if letter == "%" and argument is None:
        return "literal", "%"
    if argument is None and letter in _PLAIN:
        return _PLAIN[letter][0], ""
    if letter in ("i", "o") and argument is not None:
        if not _FIELD_NAME.fullmatch(argument):
            raise ValueError(f'"{match[0]}": "{argument}" is no name of a header field')
        return ("request_field" if letter == "i" else "response_field"), argument.lower()
    if argument is not None and (argument, letter) in _WITH_ARGUMENT:
        return _WITH_ARGUMENT[argument, letter][0], ""
    if letter in ("i", "o"):
        raise ValueError(f'"{match[0]}" needs the name of a header field: %{{Referer}}{letter}')
    if not letter:
        raise ValueError(f'"{match[0]}" is no whole directive; a percent sign is written %%')
    known = " ".join(directive for directive, _ in directives())
    raise ValueError(f'"{match[0]}" is no directive; there are {known}')


def directives() -> Iterator[tuple[str, str]]:
    """Give every directive, with what it is."""
    for letter, (_, text) in _PLAIN.items():
        yield f"%{letter}", text
    for (argument, letter), (_, text) in _WITH_ARGUMENT.items():
        yield f"%{{{argument}}}{letter}", text
    yield "%{x}i", "header field `x` of the request"
    yield "%{x}o", "header field `x` of the response"
    yield "%%", "a percent sign"
