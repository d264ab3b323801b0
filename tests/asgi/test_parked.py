"""Requests on a connection that was parked: what was kept for its next request is gone."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from apps import respond
from peers.h11_client import Client
from peers.raw import head
from topics.waiting import wait_until


class Kept:
    """What an application may leave in a scope."""


def test_scopes_are_as_before_and_nothing_of_an_earlier_request_is_in_them(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = {name: scope[name] for name in ("asgi", "client", "server", "path", "http_version")}
        seen["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        seen["extensions"] = sorted(scope["extensions"])
        seen["keys"] = sorted(scope)
        scope["mine"] = scope["extensions"]["mine"] = 1
        scope["headers"].append((b"x", b"y"))
        await respond(send, json.dumps(seen).encode())

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client, Client(server.connect()) as never_parked:
        first = json.loads(client.request("GET", "/a").body)
        for _ in range(2):
            wait_until(lambda: server.submit(lambda: server.worker.parked) == 2)
            assert json.loads(client.request("GET", "/a").body) == first
        # Neither is what other connections see.
        other = json.loads(never_parked.request("GET", "/a").body)
        assert other | {"client": first["client"]} == first


def test_a_parked_connection_keeps_nothing_that_an_application_left_in_its_scope(
    serve: Any,
) -> None:
    left: list[weakref.ref[Kept]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept = Kept()
        left.append(weakref.ref(kept))
        scope["extensions"]["mine"] = kept
        await respond(send, b"ok")

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        assert client.recv(65536).endswith(b"ok")
        wait_until(lambda: server.submit(lambda: server.worker.parked) == 1)
        gc.collect()
        assert left[0]() is None
        client.sendall(head("GET", "/"))
        assert client.recv(65536).endswith(b"ok")
