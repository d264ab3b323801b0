"""Serve an application in a test: a real server, on a free port, in a thread of the test's process.

    with framegate.testing.client(app) as client:
        assert client.get("/").status_code == 200

The application gets what it gets in production: parsed by the Rust core, from real sockets, with
its lifespan started before the first request and shut down at the end. With pytest the fixtures of
`pytest_plugin.py` do the same.

Options are those of `framegate.Config`. Two defaults differ: `port` is a free one, and there is no
access log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from framegate.server import RunningServer, Server

if TYPE_CHECKING:
    import httpx

__all__ = ["client", "http_client", "serve"]


@contextlib.contextmanager
def serve(app: Any, **options: Any) -> Iterator[RunningServer]:
    """Serve an application; it is stopped at the end of the block.

    Args:
        app: The ASGI application, or `"module:app"`.
        **options: Any setting of `framegate.Config`.

    Raises:
        ConfigError: An option is wrong.
        StartupFailed: The application did not start.
        WorkerError: It failed, or did not stop in time.
    """
    options.setdefault("access_log", False)
    if not {"port", "uds", "fd", "bind"} & options.keys():
        options["port"] = 0
    with Server(app, **options).start_in_thread() as running:
        yield running


@contextlib.contextmanager
def client(app: Any, **options: Any) -> Iterator[httpx.Client]:
    """Serve an application and give an `httpx.Client` that talks to it.

    Args:
        app: The ASGI application, or `"module:app"`.
        **options: Any setting of `framegate.Config`.

    Raises:
        ModuleNotFoundError: httpx is not installed.
    """
    with serve(app, **options) as running, http_client(running) as found:
        yield found


def http_client(running: RunningServer, **options: Any) -> httpx.Client:
    """Return an `httpx.Client` for a server, also for one on a Unix socket.

    Args:
        running: The server.
        **options: Arguments of `httpx.Client`, such as `verify` for a certificate of your own.

    Raises:
        ModuleNotFoundError: httpx is not installed.
    """
    try:
        import httpx
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "framegate.testing.client needs httpx: pip install httpx, or use "
            "framegate.testing.serve and any client of yours"
        ) from None
    (address, *_) = running.addresses
    if isinstance(address, str):
        path = f"\0{address[1:]}" if address.startswith("@") else address
        transport = httpx.HTTPTransport(uds=path)
        return httpx.Client(base_url="http://localhost", transport=transport, **options)
    # Proxies of the environment are not for a server in this process.
    return httpx.Client(**{"base_url": running.urls[0], "trust_env": False, **options})
