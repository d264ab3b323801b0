"""Native routes: what handlers are given, what clients get, and what is refused before Python."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import decimal
import enum
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from framegate import App, HttpRequest, Problem, Response
from framegate.app import Body, Cookie, File, Header, Path, Query, Router, answers
from framegate.app.answers import simplify
from framegate.errors import RouteError
from routes.conftest import Client


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    name: str
    price: float
    when: datetime.datetime | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct, forbid_unknown_fields=True):
    id: uuid.UUID
    colour: Literal["red", "blue"]
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Typed(TypedDict):
    day: datetime.date


class Model(pydantic.BaseModel):
    low: int
    high: int
    amount: decimal.Decimal = decimal.Decimal(0)

    @pydantic.model_validator(mode="after")
    def in_order(self) -> Model:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def test_parameters_of_every_kind_become_what_is_annotated(client: Client) -> None:
    app = App()
    seen: list[Any] = []

    @app.get("/{a:int}/{b}/{rest:path}")
    async def handler(
        a: int,
        b: uuid.UUID,
        rest: str,
        real: float,
        text: str,
        flag: bool,
        money: decimal.Decimal,
        day: datetime.date,
        clock: datetime.time,
        moment: datetime.datetime,
        colour: Colour,
        which: Literal["x", "y"],
        many: list[int],
        *,
        agent: Annotated[str, Header(alias="user-agent")],
        x_count: Annotated[int, Header()],
        session: Annotated[str, Cookie()],
        absent: int | None = None,
    ) -> None:
        seen.append([value for name, value in sorted(locals().items()) if name != "seen"])

    a, b = 10**40, uuid.uuid4()
    moment = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, datetime.UTC)
    reply = client(app).get(
        f"/{a}/{b}/x%2Fy/z",
        params={
            "real": "1e-3",
            "text": "ü +&",
            "flag": "yes",
            "money": "1.50",
            "day": "2024-02-29",
            "clock": "12:30",
            "moment": moment.isoformat(),
            "colour": "blue",
            "which": "y",
            "many": ["1", "-2"],
        },
        headers={"user-agent": "t", "x-count": "3", "cookie": "other=1; session=s"},
    )
    assert reply.status_code == 204, reply.text
    wanted = {
        "a": a,
        "b": b,
        "rest": "x/y/z",
        "real": 0.001,
        "text": "ü +&",
        "flag": True,
        "money": decimal.Decimal("1.50"),
        "day": datetime.date(2024, 2, 29),
        "clock": datetime.time(12, 30),
        "moment": moment,
        "colour": Colour.BLUE,
        "which": "y",
        "many": [1, -2],
        "agent": "t",
        "x_count": 3,
        "session": "s",
        "absent": None,
    }
    (found,) = seen
    assert found == [wanted[name] for name in sorted(wanted)]
    assert [type(value) for value in found] == [type(wanted[name]) for name in sorted(wanted)]
    assert str(found[sorted(wanted).index("money")]) == "1.50"


def test_everything_that_is_wrong_with_parameters_is_told_at_once(client: Client) -> None:
    app = App()

    @app.get("/{id}")
    async def handler(
        id: int,
        limit: Annotated[int, Query(ge=1, le=100)],
        word: Annotated[str, Query(min_length=2, pattern="^[a-z]+$")],
        many: Annotated[list[int], Query(max_items=2)],
        missing: str,
        once: str,
        token: Annotated[str, Header(alias="x-token")],
    ) -> None:
        raise AssertionError("called")

    reply = client(app).get("/x?limit=0&word=A&many=1&many=2&many=3&once=1&once=2")
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json()
    assert told["type"] == "about:blank"
    assert told["title"] == "Unprocessable Content"
    assert told["status"] == 422
    errors = {(one["in"], one["name"]): one["detail"] for one in told["errors"]}
    assert errors == {
        ("path", "id"): "must be an integer",
        ("query", "limit"): "must be 1 or more",
        ("query", "word"): errors["query", "word"],
        ("query", "many"): "must have 2 items or fewer",
        ("query", "missing"): "is required",
        ("query", "once"): "is there more than once",
        ("header", "x-token"): "is required",
    }
    words = [one["detail"] for one in told["errors"] if one.get("name") == "word"]
    assert sorted(words) == ["must have 2 characters or more", 'must match the pattern "^[a-z]+$"']


def test_bodies_become_what_is_annotated(client: Client) -> None:
    app = App()

    @app.post("/dataclass")
    async def of_dataclass(item: Item) -> Any:
        assert isinstance(item, Item)
        return item

    @app.post("/struct")
    async def of_struct(body: Struct) -> Any:
        assert isinstance(body.id, uuid.UUID)
        return body

    @app.post("/typed")
    async def of_typed(body: Typed) -> Any:
        assert isinstance(body["day"], datetime.date)
        return body

    @app.post("/model")
    async def of_model(body: Model) -> Any:
        assert isinstance(body, Model)
        return body

    @app.post("/list")
    async def of_list(body: Annotated[list[int], Body()]) -> Any:
        return sum(body)

    @app.post("/plain")
    async def plain(body: Any) -> Any:
        return body

    @app.post("/raw")
    async def raw(body: bytes) -> bytes:
        return body[::-1]

    session = client(app)
    item = {"name": "lamp", "price": 1.5, "when": "2024-02-29T12:00:00", "tags": ["a"]}
    assert session.post("/dataclass", json=item).json() == item
    struct = {"id": str(uuid.uuid4()), "colour": "red", "count": 3}
    assert session.post("/struct", json=struct).json() == struct
    assert session.post("/typed", json={"day": "2024-02-29"}).json() == {"day": "2024-02-29"}
    model = {"low": 1, "high": 2, "amount": "1.50"}
    assert session.post("/model", json=model).json() == model
    assert session.post("/list", json=[1, 2, 10**30]).json() == 3 + 10**30
    text = '{"a":[1,-0.5,1e300,null,true,"\\u0000é😀"],"b":' + f"{2**200}}}"
    reply = session.post("/plain", content=text.encode())
    assert json.loads(reply.text) == json.loads(text)
    reply = session.post("/raw", content=b"abc")
    assert (reply.content, reply.headers["content-type"]) == (b"cba", "application/octet-stream")


@pytest.mark.parametrize(
    ("path", "body", "errors"),
    [
        (
            "/dataclass",
            {"price": "x", "when": "yesterday", "tags": ["a", 1]},
            {
                ("#/name", "is required"),
                ("#/price", "must be a number"),
                ("#/when", "is none of the things that it may be"),
                ("#/tags/1", "must be a string"),
            },
        ),
        (
            "/struct",
            {"id": "1", "colour": "green", "count": -1, "more/~": 0},
            {
                ("#/id", 'must be of the format "uuid"'),
                ("#/colour", 'must be one of ["blue","red"]'),
                ("#/count", "must be 0 or more"),
                ("#/more~1~0", "is not known here"),
            },
        ),
        ("/typed", {"day": "2023-02-29"}, {("#/day", 'must be of the format "date"')}),
        ("/model", {"low": "1", "high": 2}, {("#/low", "must be an integer")}),
        ("/model", {"low": 2, "high": 1}, {("#", "Value error, low is above high")}),
    ],
)
def test_bodies_that_are_wrong_say_where(
    client: Client, path: str, body: Any, errors: set[tuple[str, str]]
) -> None:
    app = App()
    called = []

    def add(path: str, annotation: Any) -> None:
        async def handler(body: Any) -> None:
            called.append(body)

        handler.__annotations__["body"] = annotation
        app.post(path)(handler)

    add("/dataclass", Item)
    add("/struct", Struct)
    add("/typed", Typed)
    add("/model", Model)
    reply = client(app).post(path, json=body)
    assert reply.status_code == 422, reply.text
    assert {(one["pointer"], one["detail"]) for one in reply.json()["errors"]} == errors
    assert called == []


@pytest.mark.parametrize(
    ("body", "detail", "column"),
    [
        (b"", "the text ends where a value is expected", 1),
        (b'{"a":1,"a":2}', 'the object has the name "a" twice', 8),
        (b"[NaN]", "JSON has neither NaN nor Infinity", 2),
        (b'["\\ud800"]', "half of a surrogate pair is no character", 3),
        (b"[1] 2", "something follows the value", 5),
        (b"\xff", "the text is not UTF-8", 1),
        (b"[" * 129, "lists and objects are nested deeper than 128", 129),
    ],
)
def test_bodies_that_are_no_json_are_400(
    client: Client, body: bytes, detail: str, column: int
) -> None:
    app = App()

    @app.post("/")
    async def handler(body: Any) -> None:
        raise AssertionError("called")

    reply = client(app).post("/", content=body)
    assert reply.status_code == 400
    (error,) = reply.json()["errors"]
    assert (error["in"], error["detail"], error["column"]) == ("body", detail, column)


def test_bodies_have_a_limit_and_a_type(client: Client) -> None:
    app = App(json_bytes_max=10)

    @app.post("/")
    async def handler(body: Any) -> Any:
        return body

    session = client(app)
    assert session.post("/", content=b"[1,2,3,45]").json() == [1, 2, 3, 45]
    reply = session.post("/", content=b"[1,2,3,456]")
    assert (reply.status_code, reply.json()["detail"]) == (413, "the body may have 10 bytes")
    reply = session.post("/", content=iter([b"[1,2,3", b",456]"]))  # of unknown length
    assert reply.status_code == 413
    reply = session.post("/", content=b"[]", headers={"content-type": "text/plain"})
    assert reply.status_code == 415
    for kind in ("application/json; charset=utf-8", "application/vnd.x+json", "Application/JSON"):
        assert session.post("/", content=b"[]", headers={"content-type": kind}).json() == []


def test_a_body_that_arrives_late_is_waited_for(client: Client) -> None:
    app = App()

    @app.post("/")
    async def handler(body: Annotated[list[int], Body()]) -> int:
        return len(body)

    def pieces() -> Any:
        yield b"[1"
        for _ in range(5000):
            yield b",1"
        yield b"]"

    assert client(app).post("/", content=pieces()).json() == 5001


def test_paths_methods_and_slashes(client: Client) -> None:
    app = App(redirect_slashes=True)

    @app.get("/items/{id:int}")
    async def by_number(id: int) -> str:
        return f"number {id}"

    @app.get("/items/{name}")
    async def by_name(name: str) -> str:
        return f"name {name}"

    @app.route("/items/{name}", methods=["PUT", "PATCH"])
    async def change(name: str, request: HttpRequest) -> str:
        return f"{request.method} {request.route} {request.path} {request.headers['x-a']}"

    session = client(app)
    assert session.get("/items/7").text == "number 7"
    assert session.get("/items/a%2Fb").text == "name a/b"
    head = session.head("/items/7")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "8"
    reply = session.patch("/items/x%20y", headers=[("x-a", "1"), ("x-a", "2")])
    assert reply.text == "PATCH /items/{name} /items/x y 1, 2"
    reply = session.delete("/items/x")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, PUT"
    assert reply.json()["title"] == "Method Not Allowed"
    reply = session.options("/items/x")
    assert (reply.status_code, reply.content) == (204, b"")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, PUT"
    reply = session.get("/items/x/?a=1")
    assert (reply.status_code, reply.headers["location"]) == (308, "/items/x?a=1")
    reply = session.get("/nothing")
    assert (reply.status_code, reply.json()["title"]) == (404, "Not Found")
    assert session.get("/items/%FF").status_code == 404


def test_answers_are_what_handlers_return(client: Client) -> None:
    app = App()
    values: dict[str, Any] = {
        "none": None,
        "text": "ü",
        "bytes": b"\x00",
        "numbers": {"i": 2**100, "f": [0.1, 1e16, 1e-7, -0.0, 5e-324], "t": (True, None)},
        "types": [
            Item("a", 1.0),
            Colour.RED,
            uuid.UUID(int=1),
            decimal.Decimal("1.50"),
            datetime.date(2024, 2, 29),
            {"b"},
        ],
        "response": Response(
            {"a": 1}, status=201, headers={"x-a": "b"}, media_type="application/vnd.a+json"
        ),
    }

    @app.get("/{name}")
    async def handler(name: str) -> Any:
        return values[name]

    @app.get("/cookie/")
    async def cookie() -> Response:
        response = Response("x")
        response.set_cookie("a", "b", max_age=5)
        return response

    session = client(app)
    assert session.get("/none").status_code == 204
    reply = session.get("/text")
    assert (reply.text, reply.headers["content-type"]) == ("ü", "text/plain; charset=utf-8")
    assert session.get("/bytes").content == b"\x00"
    reply = session.get("/numbers")
    assert reply.headers["content-type"] == "application/json"
    numbers = values["numbers"]
    assert reply.text == (f'{{"i":{2**100},"f":[0.1,1e16,1e-7,-0.0,5e-324],"t":[true,null]}}')
    assert json.loads(reply.text)["f"] == numbers["f"]
    assert session.get("/types").json() == [
        {"name": "a", "price": 1.0, "when": None, "tags": []},
        "red",
        str(uuid.UUID(int=1)),
        "1.50",
        "2024-02-29",
        ["b"],
    ]
    reply = session.get("/response")
    assert (reply.status_code, reply.headers["x-a"], reply.json()) == (201, "b", {"a": 1})
    assert reply.headers["content-type"] == "application/vnd.a+json"
    reply = session.get("/cookie/")
    assert reply.headers["set-cookie"] == "a=b; Path=/; SameSite=Lax; Max-Age=5; Secure; HttpOnly"


def test_classes_are_told_apart_however_many_there_are(client: Client) -> None:
    """What is known of a class is kept for the next value of it, within bounds."""
    app = App()
    methods = {"__iter__": lambda self: self, "__next__": lambda self: next(self.left)}
    streamed: Any = type("Streamed", (), methods)
    kinds = [dataclasses.make_dataclass(f"Kind{n}", [(f"field{n}", int)]) for n in range(1200)]

    @app.get("/{number:int}")
    async def of_kind(number: int) -> Any:
        value = kinds[number](number)
        return {"all": [value, value]} if number % 2 else value

    @app.get("/stream")
    async def in_pieces() -> Any:
        value = streamed()
        value.left = iter([b"a", b"b"])
        return value

    @app.get("/proxy/{what}")
    async def proxy(what: str) -> Any:
        return Proxy({"list": [1, 2], "colour": Colour.RED, "file": File(__file__)}[what])

    session = client(app)
    for _ in range(2):
        for number in range(0, 1200, 7):
            expected: Any = {f"field{number}": number}
            expected = {"all": [expected] * 2} if number % 2 else expected
            assert session.get(f"/{number}").json() == expected
            if number % 49 == 0:
                assert session.get("/stream").content == b"ab"
    for _ in range(2):
        assert session.get("/proxy/list").json() == [1, 2]
        assert session.get("/proxy/colour").json() == "red"
        assert "def test_classes_are_told_apart" in session.get("/proxy/file").text
    for kind in kinds:
        simplify(kind(1))
    assert len(answers._SIMPLIFIERS) <= answers._SIMPLIFIERS_MAX


class Proxy:
    """Says that it is what it stands for, as Django's lazy objects do."""

    def __init__(self, target: Any) -> None:
        self._target = target

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __iter__(self) -> Any:
        return iter(self._target)


def test_names_of_members_are_those_of_their_body(client: Client) -> None:
    """Names are kept for the next body in few places; two names with one place are two names."""
    app = App()

    @app.post("/")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    session = client(app)
    names = [f"name {n}" for n in range(2000)] + ["ü", "日本", "", "a" * 32, "a" * 33, "\x00"]
    body = {name: {name: position} for position, name in enumerate(names)}
    for sent in (body, dict(reversed(body.items())), {names[0]: 1}):
        assert list(session.post("/", json=sent).json().items()) == list(sent.items())


def test_handlers_refuse_by_raising(client: Client) -> None:
    app = App()

    @app.get("/{id:int}")
    async def handler(id: int) -> None:
        await asyncio.sleep(0)
        raise Problem(404, "no such item", headers={"x-a": "b"}, faults=[("path", "id", "is gone")])

    reply = client(app).get("/1")
    assert (reply.status_code, reply.headers["x-a"]) == (404, "b")
    assert reply.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such item",
        "errors": [{"in": "path", "name": "id", "detail": "is gone"}],
    }


def test_handlers_that_fail_are_500_and_in_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    loop: list[Any] = []
    loop.append(loop)
    broken = {"raise": None, "type": object(), "nan": float("nan"), "loop": loop, "names": {1: 2}}

    @app.get("/{name}")
    async def handler(name: str) -> Any:
        if name == "raise":
            raise LookupError("secret")
        return broken[name]

    session = client(app)
    for name, error in [
        ("raise", LookupError),
        ("type", TypeError),
        ("nan", ValueError),
        ("loop", RecursionError),
        ("names", TypeError),
    ]:
        caplog.clear()
        with caplog.at_level(logging.ERROR, "framegate.asgi"):
            reply = session.get(f"/{name}")
        assert reply.status_code == 500
        assert "secret" not in reply.text
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[0] is error


def test_async_handlers_run_on_the_loop_and_others_in_threads(client: Client) -> None:
    app = App()
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    @app.get("/async")
    async def on_loop() -> Any:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        return threading.current_thread().name

    @app.get("/sync")
    def in_thread(number: int) -> Any:
        variable.set(number)
        return [threading.current_thread().name.rpartition("_")[0], variable.get()]

    session = client(app)
    assert session.get("/async").text == "server"
    for number in range(5):
        assert session.get("/sync", params={"number": number}).json() == [
            "framegate-handler",
            number,
        ]


def test_threads_have_a_queue_with_an_end(client: Client) -> None:
    app = App(threads_max=1, queue_max=1)
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    @app.get("/")
    def handler() -> str:
        entered.release()
        assert leave.acquire(timeout=20)
        return "done"

    session = client(app)
    replies: list[Any] = []

    def ask() -> None:
        replies.append(session.get("/").status_code)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    asking[0].start()
    assert entered.acquire(timeout=20)
    asking[1].start()
    wait_until(lambda: app.threads.waiting == 1)
    assert (app.threads.running, app.threads.waiting) == (1, 1)
    refused = session.get("/")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    leave.release(2)
    for thread in asking:
        thread.join(20)
    assert replies == [200, 200]
    wait_until(lambda: app.threads.running == 0)


def wait_until(is_so: Any) -> None:
    """Poll with a watchdog."""
    done = threading.Event()
    for _ in range(4000):
        if is_so():
            return
        done.wait(0.005)
    raise AssertionError("it never came to that")


def test_what_is_mounted_answers_the_rest(client: Client) -> None:
    events: list[str] = []

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{what}"
                events.append(f"mounted {what}")
                await send({"type": f"lifespan.{what}.complete"})
            return
        text = f"{scope['root_path']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    @asynccontextmanager
    async def lifespan(_: App) -> AsyncIterator[None]:
        events.append("app startup")
        yield
        events.append("app shutdown")

    app = App(lifespan=lifespan)
    app.mount("/admin", mounted)

    @app.get("/admin/native")
    async def native() -> str:
        return "native"

    session = client(app)
    assert session.get("/admin/native").text == "native"
    assert session.get("/admin/x").text == "/admin /admin/x"
    assert session.get("/admin").text == "/admin /admin"
    assert session.get("/administrator").status_code == 404
    assert session.post("/admin/native").status_code == 405
    assert events == ["app startup", "mounted startup"]


def test_routers_add_a_prefix(client: Client) -> None:
    router = Router("/v1")

    @router.get("/a")
    async def handler() -> str:
        return "a"

    app = App()
    app.include(router)
    session = client(app)
    assert session.get("/v1/a").text == "a"
    assert session.get("/a").status_code == 404
    with pytest.raises(RouteError, match="before the app answers"):
        app.get("/b")(handler)


# --- mistakes of the programmer


def test_signatures_that_no_request_can_fill_say_so() -> None:
    app = App()

    async def unknown(thing) -> None: ...  # type: ignore[no-untyped-def]

    async def star(*args: int) -> None: ...

    async def two(a: Item, b: Struct) -> None: ...

    async def elsewhere(a: Annotated[int, Path()]) -> None: ...

    async def no_text(a: Annotated[Item, Query()]) -> None: ...

    async def fine() -> None: ...

    for path, handler, why in [
        ("/", unknown, "has no annotation"),
        ("/", star, "names its arguments"),
        ("/", two, "2 arguments that are the body"),
        ("/", elsewhere, "does not have it"),
        ("/", no_text, "no text becomes"),
        ("/{id}", fine, "no argument id"),
    ]:
        with pytest.raises(RouteError, match=why):
            app.get(path)(handler)


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["/a/{x}", "/a/{y}"], "is a route already"),
        (["a"], "does not begin with /"),
        (["/{x}.json"], "whole segment"),
        (["/{x:number}"], "none of str, int"),
    ],
)
def test_tables_that_cannot_be_say_so(paths: list[str], why: str) -> None:
    app = App()
    for path in paths:
        name = path.partition("{")[2].partition("}")[0].partition(":")[0]
        namespace: dict[str, Any] = {}
        exec(f"async def handler({name}{': str' if name else ''}): ...", namespace)
        app.get(path)(namespace["handler"])
    with pytest.raises(RouteError, match=why):
        _ = app.__framegate_routes__


def test_cookies_cannot_end_a_field() -> None:
    for name, value in [("a", "b;c"), ("a", "b\r\nc"), ("a=b", "c"), ("", "a"), ("a", "é")]:
        with pytest.raises(ValueError):
            Response().set_cookie(name, value)
