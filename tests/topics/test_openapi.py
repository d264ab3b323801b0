"""The OpenAPI document of the frame routes: valid, and what the routes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from server_thread import Server

Routes = Callable[..., Server]


def document(server: Server, prefix: str = "/topics") -> Any:
    answer = httpx.get(f"{server.url}{prefix}?view=openapi")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_document_is_valid_openapi(routes: Routes) -> None:
    said = document(routes())
    assert said["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(said).iter_errors()) == []
    assert set(said["paths"]) == {"/topics", "/topics/{topic}", "/call/{topic}"}


def test_document_names_the_prefixes_and_topics_of_the_configuration(routes: Routes) -> None:
    said = document(routes(topics="/t", topics_calls="/ask"), "/t")
    assert list(OpenAPIV31SpecValidator(said).iter_errors()) == []
    assert set(said["paths"]) == {"/t", "/t/{topic}", "/ask/{topic}"}
    assert said["x-framegate-topics"] == [
        {
            "pattern": "camera/*",
            "create": True,
            "dtype": "uint8",
            "shape": [4, 6, 3],
            "slot_bytes": 72,
        },
        {"pattern": "raw/*", "create": True, "slot_bytes": 65536},
        {"pattern": "known", "create": False, "slot_bytes": 10},
    ]
    without = document(routes(topics_calls=""))
    assert list(OpenAPIV31SpecValidator(without).iter_errors()) == []
    assert set(without["paths"]) == {"/topics", "/topics/{topic}"}


def test_methods_are_those_of_the_routes(routes: Routes) -> None:
    server = routes()
    methods = {"get", "head", "post", "put", "patch", "delete"}
    for path, item in document(server)["paths"].items():
        allowed = httpx.options(server.url + path.replace("{topic}", "known")).headers["allow"]
        there = {method.strip().lower() for method in allowed.split(",")} - {"options"}
        described = methods & set(item)
        if path == "/topics":
            described.add("head")  # of every GET; there is nothing to say of it
        assert described == there, path


def test_parameters_mean_what_they_are_said_to(routes: Routes) -> None:
    server = routes()
    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/camera/a", content=bytes(72))
        parameters = document(server)["paths"]["/topics/{topic}"]["get"]["parameters"]
        schemas = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
        usual = {"view": "latest", "format": "jpeg"}
        for name, schema in schemas.items():
            view = "sse" if name == "rate" else "mjpeg" if name == "framing" else "latest"
            wrong: list[Any] = ["", "x"]
            if "maximum" in schema:
                wrong += [schema["maximum"] + 1]
            if schema.get("minimum"):
                wrong += [schema["minimum"] / 10]
            for value in wrong:
                query = {**usual, "view": view, name: str(value)}
                if view != "latest":
                    query.pop("format", None)
                answer = client.get("/topics/camera/a", params=query)
                assert (answer.status_code, answer.json()["code"]) == (400, "query"), query
            for value in [*schema.get("enum", []), schema.get("minimum"), schema.get("maximum")]:
                if value is None or value in ("sse", "mjpeg", "announced", "length"):
                    continue  # those go on for ever: test_watching has them
                query = {**usual, name: str(value), "timeout": "0"}
                if name == "view" and value == "info":
                    query = {"view": "info"}
                if view != "latest":
                    continue
                assert client.get("/topics/camera/a", params=query).status_code in (200, 204), query


@pytest.mark.parametrize(
    ("method", "path", "status", "options"),
    [
        ("GET", "/topics?view=no", 400, {}),
        ("GET", "/topics/a..b", 400, {}),
        ("GET", "/topics/none", 404, {}),
        ("POST", "/topics/none", 404, {}),
        ("PUT", "/topics/camera/a", 400, {"content": b"x"}),
        ("POST", "/topics/camera/a", 413, {"content": bytes(73)}),
        ("POST", "/topics/camera/a", 415, {"headers": {"content-type": "image/png"}}),
        ("POST", "/topics/raw/b", 507, {"content": b"x"}),
        ("POST", "/call/camera/a", 503, {"content": bytes(72)}),
        ("POST", "/call/none", 404, {}),
        ("GET", "/topics/camera/a?view=latest", 403, {"headers": {"host": "elsewhere"}}),
    ],
)
def test_refusals_are_described(
    routes: Routes, method: str, path: str, status: int, options: Any
) -> None:
    server = routes(topics_max=1)
    said = document(server)
    with httpx.Client(base_url=server.url) as client:
        client.post("/topics/camera/a", content=bytes(72))
        answer = client.request(method, path, **options)
    assert answer.status_code in (status, 401 if status == 403 else status)
    code = answer.json()["code"]
    assert code in said["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    route = "/topics" if path.startswith("/topics?") else "/" + path.split("/")[1] + "/{topic}"
    described = said["paths"][route][method.lower()]["responses"]
    assert str(answer.status_code) in described
    assert code in said["components"]["responses"][str(answer.status_code)]["description"]


def test_document_is_for_those_who_may_list(routes: Routes) -> None:
    server = routes()
    answer = httpx.get(f"{server.url}/topics?view=openapi", headers={"host": "elsewhere"})
    assert answer.status_code in (401, 403)
