"""WebSockets as handlers have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from framegate.app.answers import HttpRequest

__all__ = ["WebSocket"]


class WebSocket:
    """A WebSocket, for a handler whose argument is annotated with it.

    The first use accepts it; a handler that raises a `Problem` before has refused it. When the
    handler returns it is closed.

    Args:
        request: How it began.

    Attributes:
        request: How it began: path, query, head.
    """

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self._send_event: Callable[[dict[str, Any]], Any] | None = None
        self._receive_event: Callable[[], Any] | None = None
        self._is_accepted = False
        self._is_over = False

    async def accept(
        self,
        *,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        """Accept it; needed only where there is something to say with it.

        Args:
            subprotocol: One of those that the client offers.
            headers: Fields of the answer.
        """
        if self._is_accepted:
            raise RuntimeError("the WebSocket was accepted before")
        assert self._send_event is not None and self._receive_event is not None
        self._is_accepted = True
        event = await self._receive_event()
        if event["type"] == "websocket.disconnect":
            self._is_over = True
            raise ConnectionError("the client went away before its WebSocket was accepted")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        fields = [(name.lower().encode(), value.encode()) for name, value in pairs]
        await self._send_event(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": fields}
        )

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            ConnectionError: The client has closed it, or is gone.
        """
        if not self._is_accepted:
            await self.accept()
        assert self._receive_event is not None
        if self._is_over:
            raise ConnectionError("the WebSocket is closed")
        event = await self._receive_event()
        if event["type"] == "websocket.disconnect":
            self._is_over = True
            raise ConnectionError(
                f"the client has closed the WebSocket ({event.get('code', 1005)})"
            )
        text: str | None = event.get("text")
        data: bytes = event.get("bytes") or b""
        return data if text is None else text

    async def receive_json(self) -> Any:
        """Return the next message, read as JSON.

        Raises:
            ConnectionError: The client has closed it, or is gone.
            ValueError: It is no JSON.
        """
        return json.loads(await self.receive())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Give messages until the client closes it."""
        while True:
            try:
                message = await self.receive()
            except ConnectionError:
                return
            yield message

    async def send(self, message: str | bytes) -> None:
        """Send a message; waits while the client does not take what was sent before.

        Raises:
            ConnectionError: It is closed, or the client is gone.
        """
        if not self._is_accepted:
            await self.accept()
        assert self._send_event is not None
        if self._is_over:
            raise ConnectionError("the WebSocket is closed")
        key = "text" if isinstance(message, str) else "bytes"
        try:
            await self._send_event({"type": "websocket.send", key: message})
        except OSError as error:
            self._is_over = True
            raise ConnectionError("the client is gone") from error

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON.

        Raises:
            ConnectionError: It is closed, or the client is gone.
        """
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        await self.send(text)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it; nothing happens if that has happened."""
        if not self._is_accepted:
            await self.accept()
        if self._is_over:
            return
        self._is_over = True
        assert self._send_event is not None
        await self._send_event({"type": "websocket.close", "code": code, "reason": reason})
