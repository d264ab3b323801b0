"""Answers are held against the annotation of what a handler returns, where that is asked for."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

from framegate import App
from framegate.app import HttpRequest, Response
from framegate.errors import ResponseInvalid
from routes.conftest import Client


class Struct(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(max_length=3)]
    at: datetime.datetime | None = None
    others: list[Struct] = []


class Model(pydantic.BaseModel):
    count: Annotated[int, pydantic.Field(ge=0)]


class Typed(TypedDict):
    a: int


@dataclasses.dataclass
class Data:
    seats: int


NOW = datetime.datetime(2026, 1, 2)

RETURNED: list[tuple[Any, Any, str | None]] = [
    (Struct, Struct("abc", NOW, [Struct("x")]), None),
    (Struct, Struct("abcd", others=[Struct("y"), Struct("long")]), "/name: .*; /others/1/name: "),
    (Struct, {"name": "x", "at": "never"}, "/at: "),
    (Struct | None, None, None),
    (Struct, None, "the whole: "),
    (Struct, "text", "the whole: "),
    (list[Struct], [Struct("a"), 1], "/1: "),
    (Model, Model(count=3), None),
    (Model, Model.model_construct(count=-3), "/count: must be 0 or more"),
    (Typed, {"a": 1}, None),
    (Typed, {"a": "1"}, "/a: must be an integer"),
    (Data, Data(3), None),
    (Data, Data("3"), "/seats: "),  # type: ignore[arg-type]
    (dict, {}, None),
    (dict, [], "the whole: must be an object"),
    (dict[str, int], {"ü": "x"}, "/ü: "),
    # A success is looked at, and nothing that is no JSON.
    (Data, Response(Data(3), status=201), None),
    (Data, Response({"seats": None}, status=201), "/seats: "),
    (Data, Response({"reason": "gone"}, status=404), None),
    (Data, b"bytes", None),
    (Any, {"anything": 1}, None),
    (str, {"anything": 1}, None),
    (Response, Response({"anything": 1}), None),
]


def handler_of(annotation: Any, value: Any, *, blocking: bool) -> Callable[..., Any]:
    def handler() -> Any:
        return value

    async def on_loop() -> Any:
        return value

    chosen: Callable[..., Any] = handler if blocking else on_loop
    chosen.__annotations__["return"] = annotation
    return chosen


@pytest.mark.parametrize("blocking", [False, True])
def test_what_does_not_fit_is_not_sent(
    client: Client, caplog: pytest.LogCaptureFixture, blocking: bool
) -> None:
    app = App(validate_responses=True)
    for number, (annotation, value, _) in enumerate(RETURNED):
        app.get(f"/{number}")(handler_of(annotation, value, blocking=blocking))
    session = client(app)
    for number, (annotation, value, fault) in enumerate(RETURNED):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "framegate.asgi"):
            reply = session.get(f"/{number}")
        if fault is None:
            assert reply.status_code in {200, 201, 204, 404}, (annotation, value)
            assert not caplog.records
        else:
            assert reply.status_code == 500, (annotation, value)
            (record,) = caplog.records
            assert record.exc_info is not None
            error = record.exc_info[1]
            assert isinstance(error, ResponseInvalid)
            assert re.search(f"annotation does not allow: {fault}", str(error))


def test_streams_and_what_middleware_answers_are_not_looked_at(client: Client) -> None:
    app = App(validate_responses=True)

    @app.get("/stream")
    async def stream() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    @app.get("/around")
    async def inner() -> Data:
        return Data(3)

    @app.get("/wrong")
    async def wrong() -> Data:
        return Data("3")  # type: ignore[arg-type]

    @app.middleware
    async def around(request: HttpRequest, following: Any) -> Any:
        await following(request)
        return {"seats": "as the middleware likes"}

    @app.exception_handler(ResponseInvalid)
    async def invalid(request: HttpRequest, error: ResponseInvalid) -> Response:
        return Response("sorry", status=502)

    session = client(app)
    assert session.get("/around").json() == {"seats": "as the middleware likes"}
    assert session.get("/wrong").json() == {"seats": "as the middleware likes"}
    assert session.get("/stream").status_code == 200


def test_nothing_is_validated_unless_asked_for(client: Client) -> None:
    app = App()

    @app.get("/")
    async def wrong() -> Data:
        return Data("3")  # type: ignore[arg-type]

    assert client(app).get("/").json() == {"seats": "3"}
