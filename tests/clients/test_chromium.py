"""A real browser: Chromium over HTTP/2 with TLS, and over HTTP/1.1 in the clear."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, Page

from clients.application import PIECE, Application
from peers.chromium import chromium
from server_thread import Serve
from tls.authority import Authority, Issued
from tls.conftest import ServeTls


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("localhost")


@pytest.fixture(scope="module")
def browser(issued: Issued) -> Iterator[Browser]:
    """Trusts this one key, and nothing else that it does not know."""
    public = issued.key.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    with chromium(f"--ignore-certificate-errors-spki-list={pin}") as browser:
        yield browser


@dataclass
class Site:
    application: Application
    base: str
    protocol: str
    """As the browser names it."""


@pytest.fixture(params=["h2", "http/1.1"])
def site(
    request: pytest.FixtureRequest,
    serve: Serve,
    serve_tls: ServeTls,
    issued: Issued,
    tmp_path: Path,
) -> Site:
    application = Application()
    if request.param == "h2":
        client = serve_tls(application, lifespan="off", **issued.write(tmp_path))
        base = f"https://localhost:{client.server.port}"
    else:
        base = serve(application, lifespan="off").url
    return Site(application, base, request.param)


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The page of the application; what it complains of fails the test."""
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url} failed"))
    page.goto(site.base)
    yield page
    context.close()
    assert not [text for text in complaints if "/events" not in text]


def test_page_with_what_belongs_to_it(page: Page, site: Site) -> None:
    heading = page.locator("h1")
    assert heading.text_content() == "ran"
    assert heading.evaluate("h1 => getComputedStyle(h1).color") == "rgb(1, 2, 3)"
    assert page.locator("img").evaluate("image => image.naturalWidth") == 7
    protocols = page.evaluate(
        """() => ["navigation", "resource"].flatMap(
            kind => performance.getEntriesByType(kind).map(entry => entry.nextHopProtocol))"""
    )
    assert len(protocols) >= 4
    assert set(protocols) == {site.protocol}
    about = page.evaluate("() => fetch('/about', {method: 'PUT'}).then(it => it.json())")
    assert about == {
        "http_version": "2" if site.protocol == "h2" else "1.1",
        "scheme": site.base.partition(":")[0],
        "method": "PUT",
    }


def test_upload(page: Page) -> None:
    text = page.evaluate(
        """async () => {
            const piece = Uint8Array.from({length: 256 * 64}, (_, at) => at % 256);
            const body = new Blob(Array(300).fill(piece));
            const response = await fetch("/digest", {method: "POST", body});
            return await response.text();
        }"""
    )
    assert text == f"{len(PIECE) * 300} {hashlib.sha256(PIECE * 300).hexdigest()}"


def test_many_requests_at_once(page: Page) -> None:
    numbers = page.evaluate(
        """() => Promise.all(Array.from({length: 300},
            (_, n) => fetch(`/number/${n}`).then(it => it.text())))"""
    )
    assert numbers == [str(n) for n in range(300)]


def test_download_that_is_read_as_it_comes(page: Page) -> None:
    found = page.evaluate(
        """async () => {
            const response = await fetch("/stream/300");
            let pieces = 0, bytes = 0;
            const reader = response.body.getReader();
            for (let got; !(got = await reader.read()).done; pieces += 1) bytes += got.value.length;
            return [bytes, pieces > 1];
        }"""
    )
    assert found == [len(PIECE) * 300, True]


@pytest.mark.parametrize("kind", ["", "/silent"])
def test_events_until_the_browser_leaves(page: Page, site: Site, kind: str) -> None:
    events = page.evaluate(
        """kind => new Promise(done => {
            const source = new EventSource(`/events${kind}`), seen = [];
            source.onmessage = event => {
                seen.push(`${event.lastEventId} ${event.data}`);
                if (seen.length === 10) { source.close(); done(seen); }
            };
        })""",
        kind,
    )
    assert events == [f"{n} event {n}" for n in range(10)]
    assert site.application.left.wait(10)


def test_websocket(page: Page, site: Site) -> None:
    address = site.base.replace("http", "ws", 1)
    texts = page.evaluate(
        """address => new Promise((done, fail) => {
            const websocket = new WebSocket(address), seen = [];
            websocket.onopen = () => ["a", "", "grüße"].forEach(text => websocket.send(text));
            websocket.onmessage = event => {
                seen.push(event.data);
                if (seen.length === 3) websocket.close(1000);
            };
            websocket.onclose = event => done([...seen, event.code]);
            websocket.onerror = () => fail("error");
        })""",
        address,
    )
    assert texts == ["a", "", "grüße", 1000]
