"""Pages of other origins: what browsers ask before, and what every answer says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from framegate import App
from framegate.app import Cors
from framegate.errors import RouteError
from routes.conftest import Client

PAGE = "https://page.example"


def app_with(cors: Cors | None) -> App:
    app = App(cors=cors)

    @app.get("/a/{n:int}")
    async def read(n: int, limit: int = 0) -> dict[str, int]:
        return {"n": n}

    @app.put("/a/{n:int}")
    async def write(n: int) -> None: ...

    @app.get("/stream")
    async def stream() -> AsyncIterator[bytes]:
        yield b"x"

    return app


def test_pages_of_known_origins_may_read_every_answer(client: Client) -> None:
    cors = Cors(origins=[PAGE], expose=["x-a", "x-b"], credentials=True)
    session = client(app_with(cors))
    for target in ("/a/1", "/a/1?limit=x", "/a/x", "/stream"):
        reply = session.get(target, headers={"origin": PAGE})
        assert reply.headers["access-control-allow-origin"] == PAGE, target
        assert reply.headers["access-control-allow-credentials"] == "true"
        assert reply.headers["access-control-expose-headers"] == "x-a, x-b"
        assert reply.headers["vary"] == "origin"
        reply = session.get(target, headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["vary"] == "origin"


def test_what_is_asked_before_is_answered_in_rust(client: Client) -> None:
    session = client(app_with(Cors(origins=[PAGE], headers=["x-a"], max_age=5)))
    ask = {"origin": PAGE, "access-control-request-method": "PUT"}
    reply = session.options("/a/1", headers=ask)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == PAGE
    methods = reply.headers["access-control-allow-methods"]
    assert set(methods.split(", ")) == {"GET", "HEAD", "OPTIONS", "PUT"}
    assert reply.headers["access-control-allow-headers"] == "x-a"
    assert reply.headers["access-control-max-age"] == "5"
    refused = session.options("/a/1", headers={**ask, "origin": "https://other.example"})
    assert not [name for name in refused.headers if name.startswith("access-control")]
    plain = session.options("/a/1", headers={"origin": PAGE})
    assert "access-control-allow-methods" not in plain.headers


def test_every_origin_is_a_star_and_none_is_silence(client: Client) -> None:
    session = client(app_with(Cors(origins=["*"], headers=["*"])))
    reply = session.get("/a/1", headers={"origin": PAGE})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "vary" not in reply.headers
    ask = {
        "origin": PAGE,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "x-any, x-other",
    }
    reply = session.options("/a/1", headers=ask)
    assert reply.headers["access-control-allow-headers"] == "x-any, x-other"
    silent = client(app_with(None)).get("/a/1", headers={"origin": PAGE})
    assert not {"access-control-allow-origin", "vary"} & silent.headers.keys()


def test_what_no_browser_takes_is_refused() -> None:
    with pytest.raises(RouteError, match="every origin"):
        Cors(origins=["*"], credentials=True)
    with pytest.raises(RouteError, match="no origin"):
        Cors(origins=["https://page.example/"])
