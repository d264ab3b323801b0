"""Options of uvicorn that framegate does not have, and what to use instead.

All others have the same name here, so a command line of uvicorn either works or is answered with
one of these sentences, never with "unknown option". A test reads uvicorn's own list of options.

Read only when an option is unknown.
"""

from __future__ import annotations

from typing import Final

__all__ = ["INSTEAD"]

INSTEAD: Final[dict[str, str]] = {
    "h11_max_incomplete_event_size": "use --header-bytes-max",
    "http2": "leave it out, HTTP/2 is on; --http says which versions are served",
    "interface": (
        "leave it out for ASGI 3; wrap WSGI with a2wsgi, ASGI 2 with asgiref.compatibility"
    ),
    "loop": "leave it out, the server is its own event loop, as fast with either",
    "proxy_headers": (
        "leave it out, --forwarded-allow-ips says whose headers are read: nobody's by default, "
        "also not those of 127.0.0.1, which uvicorn believes"
    ),
    "reset_contextvars": (
        "leave it out, each request starts from a copy of the context that the lifespan left, so "
        "none sees another's"
    ),
    "timeout_worker_healthcheck": (
        "leave it out, a busy worker is logged and not killed; with --worker-timeout it is"
    ),
    "ws": "leave it out, WebSockets are served by the Rust core",
    "ws_max_queue": (
        "leave it out, messages that the application does not read hold up the client, at most "
        "--ws-max-size of them"
    ),
}
"""Setting's name in uvicorn: what to do, to follow `unknown option --name (of uvicorn): `."""
