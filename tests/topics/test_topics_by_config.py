"""Which topics there are is for the configuration to say: never for a request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import framegate
from server_thread import Serve, Server
from topics.wire import app, ask

Routes = Callable[..., Server]


def sizes(topic: str) -> tuple[int, int]:
    with framegate.Topic.open(topic) as opened:
        return opened.slots, opened.slot_bytes


def test_sizes_and_schema_are_those_of_the_rule_whatever_the_request_says(routes: Routes) -> None:
    with httpx.Client(base_url=routes().url) as client:
        said = {"Frame-Dtype": "uint8", "Frame-Shape": "3"}
        query = "?slots=4000&slot_bytes=1099511627776&create=true"
        assert client.post(f"/topics/raw/a{query}", content=b"abc", headers=said).status_code == 201
        assert sizes("raw/a") == (4, 65536)
        assert client.post("/topics/raw/a", content=bytes(65536)).status_code == 200
        answer = client.post("/topics/raw/a", content=bytes(65537))
        assert (answer.status_code, answer.json()["code"]) == (413, "frame-too-large")
        assert sizes("raw/a") == (4, 65536)
        # A frame that the rule does not have makes no topic larger, and none of another kind.
        other = {"Frame-Dtype": "float64", "Frame-Shape": "1000,1000"}
        answer = client.post("/topics/camera/a", content=bytes(8_000_000), headers=other)
        assert (answer.status_code, answer.json()["code"]) == (422, "schema-mismatch")
        with framegate.Topic.open("camera/a") as opened:
            assert opened.slots == 4
            (array,) = opened.schema.values()
            assert (str(array.dtype), array.shape) == ("uint8", (4, 6, 3))


def test_rule_without_create_describes_and_creates_nothing(routes: Routes, runtime: Path) -> None:
    server = routes()
    with httpx.Client(base_url=server.url) as client:
        for ask_for in (
            lambda: client.post("/topics/known", content=b"x"),
            lambda: client.put("/topics/known", content=b"x"),
            lambda: client.get("/topics/known"),
        ):
            answer = ask_for()
            assert (answer.status_code, answer.json()["code"]) == (404, "topic-unknown")
    assert not list(runtime.glob("*.ctl"))


def test_only_publishing_creates(routes: Routes, runtime: Path) -> None:
    server = routes()
    with httpx.Client(base_url=server.url) as client:
        for query in ("", "?view=latest", "?view=latest&after=0", "?view=mjpeg", "?view=sse"):
            assert client.get(f"/topics/raw/a{query}").status_code == 404
        assert client.post("/call/raw/a", content=b"x").status_code == 404
    address = server.url.replace("http", "ws")
    for target in ("raw/a", "raw/a?mode=both", "known?mode=publish", "none?mode=publish"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{address}/topics/{target}")
        assert refused.value.response.status_code == 404, target
    assert not list(runtime.glob("*.ctl"))
    with connect(f"{address}/topics/raw/a?mode=publish"):
        assert sizes("raw/a") == (4, 65536)


def test_sixty_four_topics_may_be_there_and_not_one_more(routes: Routes) -> None:
    assert framegate.Config().topics_max == 64
    rule = {"many/*": {"create": True, "slots": 2, "slot_bytes": 64}}
    with httpx.Client(base_url=routes(topic_rules=rule).url) as client:
        for number in range(64):
            assert client.post(f"/topics/many/{number}", content=b"x").status_code == 201
        answer = client.post("/topics/many/64", content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (507, "topics-exhausted")
        # Those that are there go on, and whoever goes makes room.
        assert client.post("/topics/many/63", content=b"x").status_code == 200
        with framegate.Topic.open("many/0") as topic:
            topic.unlink()
        assert client.post("/topics/many/64", content=b"x").status_code == 201


@pytest.mark.parametrize(
    "lines",
    [
        ["origin: http://evil.example"],
        ["sec-fetch-site: cross-site"],
        ["x-forwarded-for: 192.0.2.1"],
        ["via: 1.1 cache"],
    ],
)
def test_stranger_may_not_call(serve_either: Serve, lines: list[str]) -> None:
    server = serve_either(app, topics="/topics")
    with framegate.Publisher("ask", slot_bytes=64):
        answer: Any = ask(server, "POST", "/call/ask", *lines, body=b"x")
        assert (answer.status, answer.problem["code"]) == (403, "forbidden")
        answer = ask(server, "POST", "/call/ask", host="evil.example", body=b"x")
        assert (answer.status, answer.problem["code"]) == (403, "forbidden")
        answer = ask(server, "POST", "/call/ask", body=b"x")
        assert answer.problem["code"] == "no-responder"
