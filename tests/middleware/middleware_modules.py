"""Middleware as users write it, right and wrong."""

from __future__ import annotations

from typing import Any


class Note:
    """Writes its name into a header and into the lifespan's state."""

    def __init__(self, app: Any, *, name: str = "note") -> None:
        self.app = app
        self.name = name

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if "state" in scope and scope["type"] != "http":
            scope["state"][f"{self.name}:{scope['type']}"] = True

        async def noting(message: dict[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                header = (b"x-note", self.name.encode())
                message = {**message, "headers": [*message.get("headers", []), header]}
            await send(message)

        await self.app(scope, receive, noting)


def function(app: Any) -> Any:
    return Note(app, name="function")


def returns_nothing(app: Any) -> None:
    return None


async def coroutine(app: Any) -> Any:
    return app


def broken(app: Any) -> Any:
    raise LookupError("no such thing")


NUMBER = 3
