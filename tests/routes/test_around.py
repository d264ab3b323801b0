"""What stands around handlers: middleware, and who answers their exceptions."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from framegate import App, HttpRequest, Problem, Response
from framegate.app import Form, Router
from framegate.errors import RouteError
from routes.conftest import Client


def test_middleware_stands_around_handlers_in_order(client: Client) -> None:
    app = App()
    seen: list[str] = []

    @app.middleware
    async def outer(request: HttpRequest, following: Any) -> Response:
        seen.append(f"outer {request.route}")
        answer: Response = await following(request)
        answer.headers.append(("x-outer", str(answer.status)))
        return answer

    @app.middleware
    async def inner(request: HttpRequest, following: Any) -> Any:
        seen.append("inner")
        if request.headers.get("x-stop"):
            return {"stopped": True}
        return await following(request)

    @app.get("/a/{n:int}")
    async def plain(n: int) -> dict[str, int]:
        return {"n": n}

    @app.get("/none")
    def none() -> None: ...

    @app.post("/form")
    async def form(name: Annotated[str, Form()], request: HttpRequest) -> str:
        return f"{name} {request.method}"

    session = client(app)
    reply = session.get("/a/1")
    assert (reply.json(), reply.headers["x-outer"]) == ({"n": 1}, "200")
    assert seen == ["outer /a/{n:int}", "inner"]
    assert session.get("/none").headers["x-outer"] == "204"
    assert session.post("/form", data={"name": "x"}).text == "x POST"
    assert session.get("/a/1", headers={"x-stop": "1"}).json() == {"stopped": True}
    seen.clear()
    # Rust refuses without it.
    assert session.get("/a/x").status_code == 404
    assert session.post("/a/1").status_code == 405
    assert seen == []


def test_exceptions_are_answered_by_the_nearest_class(client: Client) -> None:
    app = App()
    router = Router()

    @app.exception_handler(LookupError)
    async def lookup(request: HttpRequest, error: LookupError) -> Response:
        return Response({"lost": str(error.args[0]), "at": request.path}, status=404)

    @app.exception_handler(KeyError)
    async def key(request: HttpRequest, error: KeyError) -> str:
        return f"key {error.args[0]}"

    @app.exception_handler(Problem)
    async def problem(request: HttpRequest, error: Problem) -> Response:
        if error.status == 410:
            raise error
        return Response(f"own words for {error.status}", status=error.status)

    @router.get("/{which}")
    async def handler(which: str) -> None:
        raise {
            "key": KeyError("k"),
            "index": IndexError("i"),
            "problem": Problem(409),
            "gone": Problem(410, "for good"),
            "other": ValueError("v"),
        }[which]

    app.include(router)
    session = client(app)
    assert session.get("/key").text == "key k"
    reply = session.get("/index")
    assert (reply.status_code, reply.json()) == (404, {"lost": "i", "at": "/index"})
    assert session.get("/problem").text == "own words for 409"
    assert session.get("/gone").json()["detail"] == "for good"
    assert session.get("/other").status_code == 500


def test_what_cannot_stand_around_says_so() -> None:
    app = App()

    def blocking(request: Any, following: Any) -> None: ...

    with pytest.raises(RouteError, match="no `async def`"):
        app.middleware(blocking)
    with pytest.raises(RouteError, match="no `async def`"):
        app.exception_handler(KeyError)(blocking)
