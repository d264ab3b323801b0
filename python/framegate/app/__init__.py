"""Native routes: handlers with typed arguments, routed and validated in Rust before Python runs.

    from framegate import App

    app = App()

    @app.get("/items/{item_id:int}")
    async def read(item_id: int, limit: int = 10) -> dict[str, int]:
        return {"item": item_id, "limit": limit}

Served by framegate a request is routed, its parameters and its JSON body are checked, and what is
wrong is answered, without one Python object; an `App` is an ASGI application too and behaves the
same, slower, on another server and behind middleware. See docs/guide/routes.md.
"""

from framegate.app.answers import HttpRequest, Problem, Response
from framegate.app.application import App, Cors, Router
from framegate.app.forms import FormLimits, Upload
from framegate.app.openapi import Described
from framegate.app.signatures import Body, Cookie, Form, Header, Path, Query
from framegate.app.sockets import WebSocket
from framegate.app.streams import Event, Events, File

__all__ = [
    "App",
    "Body",
    "Cookie",
    "Cors",
    "Described",
    "Event",
    "Events",
    "File",
    "Form",
    "FormLimits",
    "Header",
    "HttpRequest",
    "Path",
    "Problem",
    "Query",
    "Response",
    "Router",
    "Upload",
    "WebSocket",
]
