"""Django channels: rooms over a channel layer, a consumer in threads, an origin check."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django_app = get_asgi_application()

# Only behind the settings.
from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.scheme} {request.path}")  # type: ignore[attr-defined]


class Room(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """Tells everybody in the room what one says, and who leaves with which code."""

    room = ""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        if self.room == "private":
            return await self.close()
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept("json" if "json" in self.scope["subprotocols"] else None)

    async def receive_json(self, content: Any) -> None:
        if content.get("leave"):
            return await self.close(4003, "as you wish")
        await self.channel_layer.group_send(self.room, {"type": "said", "content": content})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send_json(event["content"])

    async def disconnect(self, code: int) -> None:
        if self.room != "private":
            await self.channel_layer.group_discard(self.room, self.channel_name)
            gone = {"type": "said", "content": {"left": code}}
            await self.channel_layer.group_send(self.room, gone)


class Reverse(WebsocketConsumer):  # type: ignore[misc]
    """A consumer that runs in a thread."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is not None:
            self.send(text_data=text_data[::-1])
        else:
            assert bytes_data is not None
            self.send(bytes_data=bytes_data[::-1])


urlpatterns = [path("page", index)]
consumers = [path("rooms/<str:room>", Room.as_asgi()), path("reverse", Reverse.as_asgi())]
app = ProtocolTypeRouter(
    {"http": django_app, "websocket": AllowedHostsOriginValidator(URLRouter(consumers))}
)
