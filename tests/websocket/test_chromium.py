"""WebSockets of a real browser, plain and in TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from apps import respond
from peers.chromium import chromium
from tls.authority import Authority

#: Opens a WebSocket, sends, receives until there is nothing more to come, tells how it ended.
SCRIPT = """
async ([url, protocols, messages, closing]) => {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    const got = [];
    const ended = new Promise((resolve) => {
        socket.onclose = (end) => resolve([end.code, end.reason, end.wasClean]);
    });
    const complete = new Promise((resolve) => {
        socket.onmessage = (event) => {
            const data = event.data;
            got.push(typeof data === "string" ? data : Array.from(new Uint8Array(data)));
            if (got.length === messages.length + 1) resolve();
        };
        ended.then(resolve);
    });
    const opened = new Promise((resolve) => {
        socket.onopen = () => resolve(true);
        ended.then(() => resolve(false));
    });
    if (await opened) {
        for (const message of messages) {
            socket.send(typeof message === "string" ? message : new Uint8Array(message));
        }
        await complete;
        if (closing) socket.close(...closing);
    }
    const end = await ended;
    return { got, end, protocol: socket.protocol, extensions: socket.extensions };
}
"""


@pytest.fixture
def task_mode() -> str:
    """The mode of tasks makes no difference here."""
    return "lazy"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(ignore_https_errors=True)
    yield context.new_page()
    context.close()


def application(saw: Any) -> Any:
    """Say how the request came, echo, and end in several ways."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/html")]
            return await respond(send, b"<title>hello</title>", headers=headers)
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/denied":
            return await send({"type": "websocket.close"})
        subprotocol = next(iter(scope["subprotocols"]), None)
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        await send({"type": "websocket.send", "text": f"HTTP/{scope['http_version']}"})
        while (message := await receive())["type"] == "websocket.receive":
            match message.get("text"):
                case "close":
                    return await send({"type": "websocket.close", "code": 4001, "reason": "heiß"})
                case "return":
                    return None
                case "raise":
                    raise RuntimeError("as asked")
            await send(message | {"type": "websocket.send"})
        saw((message["code"], message["reason"]))
        return None

    return app


@pytest.fixture(params=["ws", "wss"])
def talk(
    request: pytest.FixtureRequest,
    serve: Any,
    saw: Any,
    page: Page,
    authority: Authority,
    tmp_path: Path,
) -> Any:
    """Open a WebSocket in a page of a server."""
    tls = request.param != "ws"
    options = authority.issue("localhost", "127.0.0.1").write(tmp_path) if tls else {}
    server = serve(application(saw), lifespan="off", **options)
    page.goto(f"http{'s' if tls else ''}://localhost:{server.port}/")

    def run(
        messages: list[str | list[int]],
        closing: tuple[int, str] | None = None,
        protocols: tuple[str, ...] = (),
        path: str = "/",
    ) -> Any:
        url = f"ws{'s' if tls else ''}://localhost:{server.port}{path}"
        closing_list = None if closing is None else list(closing)
        result = page.evaluate(SCRIPT, [url, list(protocols), messages, closing_list])
        if result["got"]:
            # Over the connection of the page, which is one of HTTP/2 under TLS.
            assert result["got"].pop(0) == ("HTTP/2" if tls else "HTTP/1.1")
        return result

    return run


def test_messages_and_the_browsers_close(talk: Any, saw: Any) -> None:
    messages: list[str | list[int]] = ["", "a", "heiß 🔥" * 1000, [], [0, 255] * 40_000]
    result = talk(messages, (3001, "tschüß"), ("chat", "other"))
    assert result["got"] == messages
    assert result["end"] == [3001, "tschüß", True]
    assert result["protocol"] == "chat"
    assert result["extensions"].startswith("permessage-deflate")
    assert saw.next() == (3001, "tschüß")


def test_the_server_ends_it(talk: Any) -> None:
    ends = {"close": [4001, "heiß"], "return": [1000, ""], "raise": [1011, "internal error"]}
    for word, end in ends.items():
        result = talk(["first", word])
        assert result["got"] == ["first"]
        assert result["end"] == [*end, True]


def test_denied(talk: Any) -> None:
    """A browser tells its page no more than that it did not work."""
    assert talk([], path="/denied")["end"] == [1006, "", False]
