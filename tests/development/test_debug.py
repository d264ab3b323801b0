"""`--debug`: the page for an exception, its masks, and to whom it is not shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from docs_pictures import docs_picture
from framegate import Config, ConfigError
from framegate.debug_page import HELD_BYTES_MAX, Masker
from framegate.local_clients import is_local
from framegate.testing import client
from peers.chromium import chromium

SECRET = "correct-horse-battery"


async def failing(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    password = SECRET
    settings = {"api_key": "k-12345678", "size": 3}
    other = f"postgres://user:{password}@host/db"
    if scope["path"] == "/late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    if scope["path"] == "/own":
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": b"my own page"})
        return
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 500, "headers": []})
        body = bytes(HELD_BYTES_MAX + 1)
        await send({"type": "http.response.body", "body": body})
    try:
        raise KeyError("<first>")
    except KeyError as error:
        raise ValueError(f"cannot use {other} of {settings['size']}") from error


@contextmanager
def serving(app: Any = failing, **options: Any) -> Iterator[httpx.Client]:
    with client(app, **{"lifespan": "off", "debug": True, "log_level": "critical", **options}) as c:
        yield c


def test_debug_page_shows_source_variables_and_request() -> None:
    with serving() as peer:
        answer = peer.get("/items?q=1&token=t-87654321", headers={"authorization": "Basic abc"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.text
    assert "ValueError: cannot use postgres://user:***@host/db of 3" in text
    assert "KeyError: &#x27;&lt;first&gt;&#x27;" in text  # the cause, escaped
    assert "raise ValueError(f&quot;cannot use {other}" in text  # the source
    assert "<th>settings</th>" in text and "&#x27;size&#x27;: 3" in text
    assert "<th>?q</th><td>&#x27;1&#x27;</td>" in text
    for secret in (SECRET, "k-12345678", "t-87654321", "Basic abc"):
        assert secret not in text
    assert "<th>authorization</th><td>***</td>" in text


def test_debug_page_in_a_browser() -> None:
    with serving() as peer, chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(f"{peer.base_url}/items?q=1&token=t-87654321")
        expect(page.locator("h1")).to_contain_text("ValueError")
        docs_picture(page, "debug-page", height=330)


def test_without_it_nothing_is_shown() -> None:
    with serving(debug=False) as peer:
        answer = peer.get("/")
    assert answer.status_code == 500
    assert "ValueError" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "192.0.2.1"},
        {"forwarded": "for=192.0.2.1"},
        {"via": "1.1 proxy"},
        {"host": "rebinding.example"},
        {"host": "127.0.0.1.example"},
    ],
)
def test_who_may_be_a_stranger_does_not_see_it(headers: dict[str, str]) -> None:
    with serving() as peer:
        answer = peer.get("/", headers=headers)
    assert answer.status_code == 500
    assert "ValueError" not in answer.text


@pytest.mark.parametrize(
    ("client", "server", "host", "expected"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 80), b"localhost:80", True),
        (("::1", 1), ("::1", 80), b"[::1]:80", True),
        (("127.0.0.1", 1), ("127.0.0.1", 80), b"app.localhost", True),
        (("192.0.2.1", 1), ("127.0.0.1", 80), b"localhost", False),
        (("127.0.0.1", 1), ("192.0.2.1", 80), b"localhost", False),
        (("127.0.0.1", 1), ("127.0.0.1", 80), b"example.org", False),
        (None, ("/run/socket", None), b"localhost", False),
        (("127.0.0.1", 1), None, b"localhost", False),
    ],
)
def test_local_is_client_listener_and_host(
    client: Any, server: Any, host: bytes, expected: bool
) -> None:
    scope = {"client": client, "server": server, "headers": [(b"host", host)]}
    assert is_local(scope) is expected
    assert not is_local({**scope, "headers": []})


def test_answer_of_a_framework_is_replaced_by_the_page() -> None:
    async def broken(request: Any) -> PlainTextResponse:
        raise LookupError("no such thing")

    async def fine(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine", status_code=500)

    app = Starlette(routes=[Route("/broken", broken), Route("/fine", fine)])
    with serving(app, lifespan="auto") as peer:
        assert "LookupError: no such thing" in peer.get("/broken").text
        assert peer.get("/fine").text == "fine"


def test_answers_of_the_application_stay_its_own() -> None:
    with serving() as peer:
        assert peer.get("/own").text == "my own page"
        assert len(peer.get("/large").content) == HELD_BYTES_MAX + 1
        with pytest.raises(httpx.RemoteProtocolError):
            peer.get("/late")


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "127.evil.example"},
        {"uds": "/tmp/socket"},
        {"fd": 3},
        {"bind": ["127.0.0.1:80", "*:81"]},
        {"bind": ["systemd"]},
    ],
)
def test_it_is_refused_on_addresses_that_others_reach(options: dict[str, Any]) -> None:
    Config(**options)
    with pytest.raises(ConfigError, match="debug shows source and variables"):
        Config(debug=True, **options)


def test_it_is_accepted_on_loopback() -> None:
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        assert Config(debug=True, host=host).debug
    assert Config(debug=True, bind=["localhost:80", "[::1]:81"]).debug


class TestMasker:
    def test_names(self) -> None:
        masker = Masker({})
        for name in ("password", "DB_PASSWD", "x-api-key", "Set-Cookie", "SECRET_KEY", "csrf"):
            assert masker.value(name, "value") == "***"
        for name in ("size", "monkey", "keyboard", "path"):
            assert masker.value(name, "value") == "'value'"

    def test_value_known_from_elsewhere(self) -> None:
        masker = Masker({"AWS_SECRET_ACCESS_KEY": "from-the-environment", "HOME": "/root"})
        masker.value("token", b"from-a-variable")
        masker.value("credentials", {"a": ["from-a-list"]})
        text = "x from-the-environment y from-a-variable z from-a-list /root"
        assert masker.text(text) == "x *** y *** z *** /root"

    def test_nested_and_in_source(self) -> None:
        masker = Masker({})
        value = {"a": [{"password": "x1"}], "headers": [(b"cookie", b"x2"), (b"accept", b"x3")]}
        shown = masker.value("value", value)
        assert "x1" not in shown and "x2" not in shown and "x3" in shown
        assert masker.text("Settings(db_password='x4', size=3)") == (
            "Settings(db_password=***, size=3)"
        )

    def test_repr_that_fails(self) -> None:
        class Bad:
            def __repr__(self) -> str:
                raise RuntimeError

        assert Masker({}).value("x", Bad()) == "<Bad: its repr raised RuntimeError>"
