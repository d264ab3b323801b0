"""Django on its ASGI handler, end to end. It has neither WebSockets nor background tasks."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import Any

from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

from frameworks import django_settings
from frameworks.behaviour import Trace, check_http
from peers.h11_client import Client

trace = Trace()
kept: set[Any] = set()


async def item(request: Any, number: int) -> JsonResponse:
    return JsonResponse({"item": number, "q": request.GET["q"], **prefix(request)})


def prefix(request: Any) -> dict[str, str]:
    return {"script": request.META["SCRIPT_NAME"]} if "script" in request.GET else {}


def sync(request: Any) -> JsonResponse:
    return JsonResponse({"thread": threading.current_thread().name != "server"})


async def stream(request: Any) -> StreamingHttpResponse:
    async def lines() -> Any:
        for number in range(50):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines())


async def upload(request: Any) -> JsonResponse:
    data = request.FILES["file"].read()
    return JsonResponse({"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})


async def background(request: Any) -> JsonResponse:
    task = asyncio.create_task(asyncio.to_thread(trace.work))
    kept.add(task)
    task.add_done_callback(kept.discard)
    return JsonResponse({"accepted": True})


urlpatterns = [
    path("items/<int:number>", item),
    path("sync", sync),
    path("stream", stream),
    path("upload", upload),
    path("background", background),
]


def application() -> ASGIHandler:
    django_settings.use(__name__)
    return get_asgi_application()


def test_django(serve: Any) -> None:
    check_http(serve(application()), trace)


def test_django_takes_the_root_path_off(serve: Any) -> None:
    with Client(serve(application(), root_path="/prefix").connect()) as client:
        response = client.request("GET", "/items/7?q=x&script=1")
        assert response.status == 200
        assert b'"script": "/prefix"' in response.body
