"""The OpenAPI document is valid, says what is checked, and requests made by it hold it to that."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pydantic
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import InvalidArgument, Unsatisfiable
from openapi_spec_validator import OpenAPIV31SpecValidator
from playwright.sync_api import expect

from docs_pictures import docs_picture
from framegate import App, Problem, Response
from framegate.app import Body, Described, Events, Form, Header, Query, Upload
from framegate.errors import RouteError
from framegate.testing import client as serving
from peers.chromium import chromium
from routes.conftest import Client
from server_thread import Serve


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    name: str
    price: Annotated[float, msgspec.Meta(ge=0)]
    since: datetime.datetime | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct):
    id: uuid.UUID
    parts: list[Item] = []


class Model(pydantic.BaseModel):
    low: int = pydantic.Field(ge=0, examples=[3])
    colour: Colour = Colour.RED


def make() -> App:
    app = App(
        docs="/docs",
        described=Described(
            title="Shop",
            version="1.2",
            description="What it *sells*.",
            security_schemes={"token": {"type": "http", "scheme": "bearer"}},
        ),
    )

    @app.get("/items/{item_id:int}", tags=["items"], responses={404: "There is no such item"})
    async def read(item_id: int, limit: Annotated[int, Query(ge=1, le=10)] = 5) -> Item:
        """Read one item.

        It has to be there.
        """
        if item_id % 2:
            raise Problem(404, "odd ones are sold")
        return Item(str(item_id)[:5], float(limit))

    @app.get("/search", tags=["items"])
    async def search(
        word: Annotated[str, Query(min_length=1, max_length=20)],
        day: datetime.date,
        which: Literal["a", "b"] = "a",
        many: Annotated[list[int], Query(max_items=3)] = [],  # noqa: B006
        x_count: Annotated[int | None, Header()] = None,
    ) -> dict[str, Any]:
        return {"word": word, "day": day, "which": which, "sum": sum(many), "count": x_count}

    @app.put("/items/{item_id:uuid}", example={"name": "lamp", "price": 1}, security=["token"])
    async def write(item_id: uuid.UUID, item: Item) -> None: ...

    @app.post("/structs")
    async def struct(body: Struct) -> Struct:
        return body

    @app.post("/models", deprecated=True)
    async def model(body: Model) -> Model:
        return body

    @app.post("/numbers")
    async def numbers(body: Annotated[list[int], Body()]) -> int:
        return sum(body)

    @app.post("/login")
    async def login(
        name: Annotated[str, Form(min_length=2)], age: Annotated[int, Form()] = 1
    ) -> str:
        return name

    @app.post("/pictures")
    async def picture(file: Upload, more: list[Upload] | None = None) -> int:
        return file.size

    @app.post("/stream")
    async def stream(body: AsyncIterator[bytes]) -> Response:
        return Response(body)

    @app.get("/events")
    async def events() -> Events:
        async def none() -> AsyncIterator[Any]:
            return
            yield

        return Events(none())

    @app.get("/hidden", hidden=True)
    async def hidden() -> None: ...

    return app


def test_the_document_is_valid_and_says_what_is_checked(client: Client) -> None:
    session = client(make())
    reply = session.get("/docs/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    whole = reply.json()
    OpenAPIV31SpecValidator(whole).validate()
    assert whole["openapi"] == "3.1.0"
    assert whole["info"] == {"title": "Shop", "version": "1.2", "description": "What it *sells*."}
    read = whole["paths"]["/items/{item_id}"]["get"]
    assert read["summary"] == "Read one item."
    assert read["description"] == "It has to be there."
    assert read["tags"] == ["items"]
    assert read["parameters"] == [
        {"name": "item_id", "in": "path", "required": True, "schema": {"type": "integer"}},
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 10, "default": 5},
        },
    ]
    assert read["responses"]["404"]["description"] == "There is no such item"
    problem = read["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert problem == {"$ref": "#/components/schemas/Problem"}
    many = whole["paths"]["/search"]["get"]["parameters"][3]
    assert many["schema"] == {
        "type": "array",
        "items": {"type": "integer"},
        "maxItems": 3,
        "default": [],
    }
    write = whole["paths"]["/items/{item_id}"]["put"]
    assert write["security"] == [{"token": []}]
    assert write["requestBody"]["content"]["application/json"]["example"]["name"] == "lamp"
    assert {"204", "400", "413", "415", "422", "default"} == write["responses"].keys()
    assert whole["paths"]["/models"]["post"]["deprecated"]
    form = whole["paths"]["/login"]["post"]["requestBody"]["content"]
    assert form["application/x-www-form-urlencoded"]["schema"]["required"] == ["name"]
    file = whole["paths"]["/pictures"]["post"]["requestBody"]["content"]
    assert file["multipart/form-data"]["schema"]["required"] == ["file"]
    since = whole["components"]["schemas"]["Item"]["properties"]["since"]
    assert {"type": "string", "format": "date-time"} in since["anyOf"]
    assert not {"/hidden", "/docs", "/docs/openapi.json"} & whole["paths"].keys()


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    session = client(make())
    reply = session.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert 'data-openapi="/docs/openapi.json"' in reply.text
    assert not re.search(r"(src|href)=|https?://|@openapi@", reply.text)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy


def test_the_page_in_a_browser() -> None:
    with serving(make()) as session, chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(str(session.base_url.join("/docs")))
        page.get_by_text("Read one item").first.click()
        expect(page.get_by_text("It has to be there.")).to_be_visible()
        docs_picture(page, "api-docs", height=520)


def test_there_is_no_page_where_none_was_asked_for(client: Client) -> None:
    app = App()
    assert client(app).get("/docs").status_code == 404
    assert app.openapi()["paths"] == {}


def test_two_models_of_one_name_are_two_schemas() -> None:
    app = App()

    def route(path: str, kind: type) -> None:
        local = dataclasses.make_dataclass("Thing", [("a", kind)])

        async def handler(body: Any) -> None: ...

        handler.__annotations__["body"] = local
        app.post(path)(handler)

    route("/1", int)
    route("/2", str)
    route("/3", int)
    schemas = app.openapi()["components"]["schemas"]
    assert schemas["Thing"]["properties"]["a"]["type"] == "integer"
    assert schemas["Thing_2"]["properties"]["a"]["type"] == "string"
    assert "Thing_3" not in schemas


def test_a_scheme_that_there_is_not_says_so() -> None:
    app = App()

    @app.get("/", security=["token"])
    async def handler() -> None: ...

    with pytest.raises(RouteError, match="security scheme 'token'"):
        app.openapi()


CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def test_requests_made_by_the_document_are_answered_as_it_says(serve: Serve) -> None:
    server = serve(make())
    document = httpx.get(f"{server.url}/docs/openapi.json").json()
    schemathesis.checks.load_all_checks()
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]
    statuses: dict[str, set[int]] = {}

    def ask(case: schemathesis.Case) -> None:
        reply = case.call(base_url=server.url, timeout=20)
        case.validate_response(reply, checks=checks)
        statuses.setdefault(case.operation.label, set()).add(reply.status_code)

    how = settings(
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            try:
                strategy = operation.as_strategy(generation_mode=mode)
                how(given(strategy)(ask))()
            except (InvalidArgument, Unsatisfiable):
                # Nothing is wrong for a route that takes everything.
                assert mode is schemathesis.GenerationMode.NEGATIVE
    assert len(statuses) == 10
    for operation, seen in statuses.items():
        assert {status for status in seen if 200 <= status < 300}, (operation, seen)
    for refused in ("POST /structs", "POST /models", "POST /numbers", "GET /search"):
        assert statuses[refused] & {400, 415, 422}, (refused, statuses[refused])


APP = """
from framegate import App
app = App()

@app.get("/items/{item_id:int}")
async def read(item_id: int) -> str:
    return ""

@app.delete("/a")
def remove() -> None: ...

async def asgi(scope, receive, send): ...
"""


def test_routes_are_shown_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(APP)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "framegate", "routes", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)

    plain = run("shown:app")
    assert plain.stdout.splitlines() == [
        "GET     /items/{item_id:int}  shown.read",
        "DELETE  /a                    shown.remove",
    ], plain.stderr
    assert json.loads(run("shown:app", "--json").stdout)[1] == {
        "method": "DELETE",
        "path": "/a",
        "handler": "shown.remove",
    }
    assert json.loads(run("shown:app", "--openapi").stdout)["openapi"] == "3.1.0"
    wrong = run("shown:asgi")
    assert wrong.returncode != 0
    assert "has no native routes" in wrong.stderr
