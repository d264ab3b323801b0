"""A fault in the Rust half of native routes costs one request its answer and nothing else.

Development builds panic where `FRAMEGATE_TESTS_PANIC` says so.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest

from framegate import App
from framegate.app import Form, Upload
from routes.conftest import Client


@pytest.mark.parametrize("place", ["decide", "answer", "response", "form", "fields"])
def test_a_panic_is_a_500_and_the_connection_goes_on(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    app = App(validate_responses=True)

    @app.get("/")
    async def plain() -> dict[str, int]:
        return {"a": 1}

    @app.post("/")
    async def form(name: Annotated[str, Form()], file: Upload | None = None) -> dict[str, int]:
        return {name: 1 if file is None else 2}

    session = client(app)

    def ask() -> Any:
        if place == "form":
            return session.post("/", data={"name": "b"}, files={"file": b"x"})
        if place == "fields":
            return session.post("/", data={"name": "b"})
        return session.get("/")

    expected = {"form": {"b": 2}, "fields": {"b": 1}}.get(place, {"a": 1})
    assert ask().json() == expected
    for _ in range(2):
        caplog.clear()
        monkeypatch.setenv("FRAMEGATE_TESTS_PANIC", place)
        with caplog.at_level(logging.ERROR, "framegate.asgi"):
            reply = ask()
        monkeypatch.delenv("FRAMEGATE_TESTS_PANIC")
        assert reply.status_code == 500
        (record,) = caplog.records
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], RuntimeError)
        assert f"please report it: asked to panic at {place}" in str(record.exc_info[1])
        assert ask().json() == expected
