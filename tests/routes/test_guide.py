"""The application of docs/guide/routes.md does what the page says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from routes.conftest import Client

ROOT = Path(__file__).resolve().parents[2]


PAGE = ROOT / "docs/guide/routes.md"


def app_of_the_guide(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    match = re.search(rf"```python\n(# {name}\.py\n.*?)```", PAGE.read_text(), re.S)
    assert match is not None
    # A module as `import` would make it: without this file's own `from __future__`.
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(match[1], f"{name}.py", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__["app"]


def test_album_of_the_guide(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    session = client(app_of_the_guide("album", monkeypatch))
    added = session.post("/pictures", data={"title": "a"}, files={"picture": b"x" * 100})
    assert (added.status_code, added.json()) == (201, {"title": "a", "bytes": 100})
    assert session.post("/length", content=b"12345").json() == 5
    assert session.get("/readme").text == (ROOT / "README.md").read_text()
    ticks = "".join(f'data: {{"tick":{number}}}\n\n' for number in range(3))
    assert session.get("/ticks").text == ticks
    reply = session.get("/readme", headers={"origin": "https://page.example"})
    assert reply.headers["access-control-allow-origin"] == "https://page.example"


def test_rooms_of_the_guide(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of_the_guide("rooms", monkeypatch)
    session = client(app)
    reply = session.get("/rooms/a")
    assert (reply.status_code, reply.json()) == (404, {"nobody in": "a"})
    url = str(session.base_url).replace("http", "ws", 1).rstrip("/")
    with connect(f"{url}/rooms/a", open_timeout=20) as socket:
        socket.send("hello")
        assert socket.recv(20) == "hello"
    reply = session.get("/rooms/a")
    assert (reply.json(), reply.headers["x-route"]) == (1, "/rooms/{room}")
    said = session.get("/docs/openapi.json").json()["paths"]["/rooms/{room}"]["get"]
    assert said["summary"] == "Count who came."
    shown = [f"{one.method}  {one.path}" for one in app.routes]
    assert all(line in PAGE.read_text() for line in shown)


def test_shop_of_the_guide(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text()
    session: httpx.Client = client(app_of_the_guide("shop", monkeypatch))
    assert session.get("/items/7").json()["detail"] == "no such item"
    assert session.put("/items/7", json={"name": "lamp", "price": 12.5}).status_code == 204
    text = session.get("/items/7").text
    assert text == '{"name":"lamp","price":12.5,"since":null}'
    assert text in page
    refused = session.put("/items/7", json={"price": "x"})
    shown = re.search(r'^\{"type":"about:blank".*?\]\}$', page, re.S | re.M)
    assert shown is not None
    wanted = json.loads(shown[0])
    found = refused.json()
    for told in (wanted, found):
        told["errors"].sort(key=lambda one: one["pointer"])
    assert found == wanted
    assert session.get("/items?limit=0").status_code == 422
    found = session.get("/items?word=am", headers={"accept-language": "de"}).json()
    assert found == {"language": "de", "items": [{"name": "lamp", "price": 12.5, "since": None}]}
