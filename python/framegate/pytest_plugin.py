"""Fixtures for tests of ASGI applications, for who asks for them in the conftest.py at the top:

    pytest_plugins = ["framegate.pytest_plugin"]

| fixture            | what it is                                                             |
|--------------------|------------------------------------------------------------------------|
| `framegate_serve`  | `framegate_serve(app, **options)` serves and returns a `RunningServer` |
| `framegate_client` | `framegate_client(app, **options)` serves and returns an `httpx.Client`|

Each may be called several times; at the end of the test all servers are stopped, the last one
first.

No entry point of pytest: that would have pytest rewrite the assertions of the whole package, and
import it in every run of every project in the environment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from framegate.server import RunningServer

__all__ = ["framegate_client", "framegate_serve"]


@pytest.fixture
def framegate_serve() -> Iterator[Callable[..., RunningServer]]:
    """Serve applications: `framegate_serve(app, **options)`, options as in `framegate.Config`."""
    from framegate.testing import serve

    with contextlib.ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(serve(app, **options))


@pytest.fixture
def framegate_client() -> Iterator[Callable[..., httpx.Client]]:
    """Serve applications and talk to them: `framegate_client(app, **options)`."""
    from framegate.testing import client

    with contextlib.ExitStack() as stack:

        def start(app: Any, **options: Any) -> httpx.Client:
            return stack.enter_context(client(app, **options))

        yield start
