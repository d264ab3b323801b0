"""What a case is, and the list of all of them."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .peer import Peer

__all__ = [
    "ALL",
    "CASES",
    "H1",
    "H2",
    "IN_LIFESPAN",
    "TRANSPORTS",
    "Case",
    "NotOfferedError",
    "case",
    "check",
]

TRANSPORTS = ("h1", "h1-tls", "h2", "h2-tls")
ALL = frozenset(TRANSPORTS)
H1 = frozenset({"h1", "h1-tls"})
H2 = frozenset({"h2", "h2-tls"})

#: Set by the startup of the application under test.
IN_LIFESPAN = contextvars.ContextVar("IN_LIFESPAN", default="unset")

Note = Callable[[Any], None]
App = Callable[[dict[str, Any], Any, Any, Note], Awaitable[None]]


class NotOfferedError(Exception):
    """The server does not offer what the case is about: neither passed nor failed."""


@dataclass
class Case:
    """One question to a server: what it runs, and what a client has to see."""

    name: str
    group: str
    title: str
    app: App
    transports: frozenset[str]
    check: Callable[[Peer], None] | None = None


CASES: dict[str, Case] = {}


def case(name: str, title: str, transports: frozenset[str] = ALL) -> Callable[[App], App]:
    """Register the application of a case; `check` right behind it registers what the client sees.

    The application gets `note`, whose values the client reads with `Peer.notes`.
    """

    def register(app: App) -> App:
        assert name not in CASES, name
        group = app.__module__.rpartition("_")[2]
        CASES[name] = Case(name, group, title, app, transports)
        return app

    return register


def check(function: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Register what the client of the latest case sees."""
    latest = CASES[next(reversed(CASES))]
    assert latest.check is None, latest.name
    latest.check = function
    return function
