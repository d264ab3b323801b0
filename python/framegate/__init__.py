"""Serve ASGI apps on a Rust core and hand frames to local processes over shared memory.

What is in `__all__` is public, and the modules `framegate.remote` and `framegate.testing`; every
other module is an implementation that may change.

- Serve: `run(app)` as the command line does; `Server` in a loop or thread of one's own;
  `Config` for all settings; `App` for native routes, with `Response`, `HttpRequest`, `Problem`.
- Frames: `Topic.create` or `Topic.open`, then a `Publisher` or a `Subscriber`, whose `Frame` is a
  view of shared memory that stays valid until it is released.
- Frames in handlers: `ingest` moves a request's body into a topic, `FrameStream` is a topic as a
  response; `topic_to_websocket` and `websocket_to_topic` join topics and WebSockets.
- Calls between processes: `call`, `call_async` or a `Caller` asks, a `Responder` answers.
- From elsewhere: `client` is the WebSocket client, `framegate.remote` reads and writes the topics
  of another machine. `errors` has every exception, `events` what happens to requests.

Names are loaded when they are first used (PEP 562): `import framegate` reads neither native module
nor numpy, so the command line answers at once and a consumer of frames does not load the server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framegate import bridge, client, errors, events, shm
    from framegate.app import App, HttpRequest, Problem, Response
    from framegate.body_ingest import Ingested, ingest
    from framegate.calls import Caller, Message, Request, Responder, call, call_async
    from framegate.config import Config
    from framegate.errors import ClientDisconnected, ConfigError, FramegateError
    from framegate.frame_stream import FrameStream
    from framegate.loop import new_event_loop
    from framegate.server import RunningServer, Server, build_info, run
    from framegate.shm import Frame, Publisher, Subscriber, Topic
    from framegate.socket_frames import Forwarded, topic_to_websocket, websocket_to_topic

    __version__: str

__all__ = [
    "App",
    "Caller",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "Forwarded",
    "Frame",
    "FrameStream",
    "FramegateError",
    "HttpRequest",
    "Ingested",
    "Message",
    "Problem",
    "Publisher",
    "Request",
    "Responder",
    "Response",
    "RunningServer",
    "Server",
    "Subscriber",
    "Topic",
    "__version__",
    "bridge",
    "build_info",
    "call",
    "call_async",
    "client",
    "errors",
    "events",
    "ingest",
    "new_event_loop",
    "run",
    "shm",
    "topic_to_websocket",
    "websocket_to_topic",
]

# Public name -> module that holds it; the name of a module itself maps to that module.
_HOMES = {
    "App": "framegate.app",
    "Caller": "framegate.calls",
    "ClientDisconnected": "framegate.errors",
    "Config": "framegate.config",
    "ConfigError": "framegate.errors",
    "Forwarded": "framegate.socket_frames",
    "Frame": "framegate.shm",
    "FrameStream": "framegate.frame_stream",
    "FramegateError": "framegate.errors",
    "HttpRequest": "framegate.app",
    "Ingested": "framegate.body_ingest",
    "Message": "framegate.calls",
    "Problem": "framegate.app",
    "Publisher": "framegate.shm",
    "Request": "framegate.calls",
    "Responder": "framegate.calls",
    "Response": "framegate.app",
    "RunningServer": "framegate.server",
    "Server": "framegate.server",
    "Subscriber": "framegate.shm",
    "Topic": "framegate.shm",
    "bridge": "framegate.bridge",
    "build_info": "framegate.server",
    "call": "framegate.calls",
    "call_async": "framegate.calls",
    "client": "framegate.client",
    "errors": "framegate.errors",
    "events": "framegate.events",
    "ingest": "framegate.body_ingest",
    "new_event_loop": "framegate.loop",
    "run": "framegate.server",
    "shm": "framegate.shm",
    "topic_to_websocket": "framegate.socket_frames",
    "websocket_to_topic": "framegate.socket_frames",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("framegate")
    elif name in _HOMES:
        home = importlib.import_module(_HOMES[name])
        value = home if _HOMES[name] == f"{__name__}.{name}" else getattr(home, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
