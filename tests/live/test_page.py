"""The live page in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

import framegate
from live.conftest import moving
from server_process import Launch
from server_thread import Server

SCREENSHOTS = os.environ.get("FRAMEGATE_SCREENSHOTS")
AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def tile(page: Page, topic: str) -> Any:
    return page.locator(f'.tile[data-topic="{topic}"]')


def look(page: Page, selector: str) -> tuple[int, int]:
    """A number that stands for what a canvas shows, and how many values its pixels have."""
    digest, values = page.evaluate(
        "selector => { const c = document.querySelector(selector);"
        " const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let digest = 0; for (const one of all) digest = (digest * 31 + one) | 0;"
        " return [digest, new Set(all).size] }",
        selector,
    )
    return int(digest), int(values)


def newer(page: Page, selector: str, than: int) -> None:
    page.wait_for_function(
        "([selector, than]) =>"
        " Number(document.querySelector(selector)?.dataset.sequence ?? 0) > than",
        arg=[selector, than],
    )


def shot(page: Page, tmp_path: Path, name: str) -> None:
    path = Path(SCREENSHOTS or tmp_path) / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 10_000


def test_topics_move_on_the_page(
    live: Callable[..., Server], visit: Any, publish: Any, tmp_path: Path
) -> None:
    server = live()
    with (
        publish("camera/front", moving),
        publish(
            "camera/depth", lambda n: np.sin(np.add.outer(np.arange(60) / 9, np.arange(80) / 9 + n))
        ),
        publish("imu/acceleration", lambda n: np.sin(np.arange(3) + n / 9).astype(np.float32)),
        publish("scan/range", lambda n: np.cos(np.arange(200) / 20 + n / 5).astype(np.float32)),
        publish("net/activation", lambda n: np.random.default_rng(n).random((12, 24))),
    ):
        seen = visit(server)
        page = seen.page
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        expect(page.locator(".tile")).to_have_count(5)
        for topic in ("camera/front", "camera/depth", "imu/acceleration", "scan/range"):
            expect(tile(page, topic)).to_have_attribute("data-state", "live", timeout=20_000)
            selector = f'.tile[data-topic="{topic}"]'
            newer(page, selector, 0)
            sequence = int(tile(page, topic).get_attribute("data-sequence"))
            first, values = look(page, f"{selector} canvas")
            assert values > 4, f"{topic} is blank"
            newer(page, selector, sequence + 3)
            assert look(page, f"{selector} canvas")[0] != first, f"{topic} stands still"
        facts = tile(page, "camera/front").locator(".facts")
        expect(facts).to_have_text(re.compile(r"^\d+\.\d Hz, [\d.]+ (ms|s)$"))
        row = page.locator("#list tr", has_text="camera/front").locator("td")
        expect(row.nth(1)).to_have_text(re.compile(r"^[1-9]\d*\.\d$"))
        expect(row.nth(3)).to_have_text("1")
        expect(page.locator("#sum")).to_have_text(
            re.compile(r"^5 topics, [1-9]\d*(\.\d)? frames/s$")
        )
        shot(page, tmp_path, "live")
        # The same in the dark.
        page.keyboard.press("t")
        expect(page.locator(":root")).to_have_attribute("data-theme", "dark")
        shot(page, tmp_path, "live-dark")
        assert not seen.errors
        assert seen.origins == {f"127.0.0.1:{server.port}"}


def test_an_empty_page_says_how_to_publish(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    server = live()
    page = visit(server).page
    empty = page.locator("#empty")
    expect(empty).to_contain_text("Nothing is published yet")
    expect(empty).to_contain_text("framegate.Publisher(")
    # The sample is a program; the page shows its topic without a reload.
    sample = empty.locator("pre").first.inner_text()
    compile(sample, "sample", "exec")
    with publish("camera/front", moving):
        expect(tile(page, "camera/front")).to_have_attribute("data-state", "live", timeout=20_000)
        expect(empty).to_be_hidden()


def test_the_page_says_when_a_publisher_leaves_and_when_it_is_back(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    server = live()
    with publish("a", moving):
        page = visit(server).page
        expect(tile(page, "a")).to_have_attribute("data-state", "live", timeout=20_000)
    expect(tile(page, "a")).to_have_attribute("data-state", "gone", timeout=20_000)
    expect(tile(page, "a").locator(".note")).to_have_text(re.compile("publisher left|removed"))
    with publish("a", moving):
        expect(tile(page, "a")).to_have_attribute("data-state", "live", timeout=20_000)


def test_a_topic_that_stands_still_is_shown_as_old(
    live: Callable[..., Server], visit: Any, runtime: Path
) -> None:
    with framegate.Publisher("still", dtype="uint8", shape=(90, 160, 3)) as publisher:
        page = visit(live()).page
        expect(tile(page, "still")).to_have_attribute("data-state", "waiting", timeout=20_000)
        expect(tile(page, "still").locator(".note")).to_have_text("no frame yet, 1 publisher")
        publisher.send(moving(0))
        expect(tile(page, "still")).to_have_attribute("data-sequence", "1", timeout=20_000)
        expect(tile(page, "still")).to_have_attribute("data-state", "stale", timeout=20_000)
        expect(tile(page, "still").locator(".note")).to_have_text(
            re.compile(r"last frame \d+ s ago")
        )


def test_a_lost_server_dims_the_page_and_a_new_one_lights_it(
    launch: Launch, visit: Any, publish: Any, runtime: Path
) -> None:
    words = ("--topics", "/topics", "--live", "/live")
    extra = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    first = launch("supervised_apps:app", *words, extra=extra).wait_ready()
    with publish("a", moving):
        page = visit(first).page
        expect(tile(page, "a")).to_have_attribute("data-state", "live", timeout=20_000)
        port = first.port
        first.stop()
        expect(page.locator("#link")).to_have_attribute("data-state", "lost", timeout=20_000)
        expect(page.locator("#link")).to_contain_text("next try in")
        assert look(page, '.tile[data-topic="a"] canvas')[1] > 4, "the picture was taken away"
        second = launch("supervised_apps:app", "--port", str(port), *words, extra=extra)
        expect(page.locator("#link")).to_have_attribute("data-state", "live", timeout=30_000)
        expect(tile(page, "a")).to_have_attribute("data-state", "live", timeout=30_000)
    second.stop()


def test_an_open_topic_can_be_frozen_stepped_and_taken_home(
    live: Callable[..., Server], visit: Any, publish: Any, tmp_path: Path
) -> None:
    counting = lambda n: (np.arange(8) + n).astype(np.int32)  # noqa: E731
    with publish("numbers", counting), publish("camera/front", moving):
        page = visit(live()).page
        tile(page, "numbers").click()
        detail = page.locator("#detail")
        expect(detail).to_be_visible()
        newer(page, "#detail", 0)
        page.keyboard.press("f")
        expect(page.locator("#freeze")).to_have_attribute("aria-pressed", "true")
        frozen = int(detail.get_attribute("data-sequence") or 0)
        page.keyboard.press(".")
        newer(page, "#detail", frozen)
        stepped = int(detail.get_attribute("data-sequence") or 0)
        with page.expect_download() as download:
            page.keyboard.press("d")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.name == f"numbers-{stepped}.npy"
        array = np.load(path)
        assert array.dtype == np.int32
        assert (array - array[0] == np.arange(8)).all()
        # Frozen is frozen: the grid goes on meanwhile.
        grid = '.tile[data-topic="camera/front"]'
        newer(page, grid, int(page.locator(grid).get_attribute("data-sequence") or 0) + 5)
        assert detail.get_attribute("data-sequence") == str(stepped)
        page.get_by_role("tab", name="Data").click()
        expect(detail).to_contain_text("int32 8")
        page.get_by_role("tab", name="Links").click()
        expect(detail).to_contain_text("?view=latest&format=npy")
        assert "topic=numbers" in page.url
        assert "tab=links" in page.url
        page.reload()
        expect(page.get_by_role("tab", name="Links")).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()
        assert "topic=" not in page.url


def test_a_picture_is_downloaded_as_it_came(
    live: Callable[..., Server], visit: Any, publish: Any, tmp_path: Path
) -> None:
    with publish("camera/front", moving):
        page = visit(live(), "#topic=camera/front").page
        newer(page, "#detail", 0)
        page.locator("#freeze").click()
        with page.expect_download() as download:
            page.locator("#download").click()
        assert re.fullmatch(r"camera-front-\d+\.jpeg", download.value.suggested_filename)
        download.value.save_as(tmp_path / "frame.jpeg")
        assert (tmp_path / "frame.jpeg").read_bytes().startswith(b"\xff\xd8")
        shot(page, tmp_path, "live-detail")


def test_the_filter_and_the_keys(live: Callable[..., Server], visit: Any, publish: Any) -> None:
    with publish("camera/front", moving), publish("camera/rear", moving), publish("imu", moving):
        page = visit(live()).page
        expect(page.locator(".tile")).to_have_count(3)
        page.keyboard.press("/")
        page.keyboard.type("REAR")
        expect(page.locator(".tile")).to_have_count(1)
        expect(page.locator("#list tr")).to_have_count(1)
        assert "filter=REAR" in page.url
        page.locator("#filter").fill("nothing like it")
        expect(page.locator("#empty")).to_have_text("no topic matches the filter")
        page.locator("#filter").fill("")
        page.keyboard.press("Escape")
        tile(page, "camera/front").focus()
        page.keyboard.press("ArrowRight")
        expect(tile(page, "camera/rear")).to_be_focused()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        expect(page.locator("#detail h2").first).to_have_text("camera/front")
        page.keyboard.press("Escape")
        expect(tile(page, "camera/front")).to_be_focused()
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).to_be_hidden()


def test_nobody_is_sent_what_nobody_sees(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    server = live()
    with publish("a", moving):
        seen = visit(server)
        page = seen.page
        expect(tile(page, "a")).to_have_attribute("data-state", "live", timeout=20_000)
        # Out of sight.
        page.evaluate("document.querySelector('.tile').style.marginTop = '3000px'")
        seen.wait_until_closed()
        page.evaluate("document.querySelector('.tile').style.marginTop = ''")
        before = int(tile(page, "a").get_attribute("data-sequence"))
        newer(page, '.tile[data-topic="a"]', before)
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#link")).to_have_text("paused")
        seen.wait_until_closed()


def test_who_may_not_look_is_asked_for_a_token(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    server = live(topics_token="a-token-of-32-characters-at-least", topics_local=False)
    with publish("camera/front", moving):
        seen = visit(server)
        page = seen.page
        expect(page.locator("#link")).to_have_attribute("data-state", "denied")
        expect(page.locator("#token")).to_be_visible()
        page.locator("#token-value").fill("a-token-of-32-characters-at-least")
        page.get_by_role("button", name="Look").click()
        expect(tile(page, "camera/front")).to_have_attribute("data-state", "live", timeout=20_000)
        expect(page.locator("#token")).to_be_hidden()
        assert "a-token" not in page.url


def test_a_narrow_window_shows_everything_without_scrolling_sideways(
    live: Callable[..., Server], visit: Any, publish: Any, tmp_path: Path
) -> None:
    with publish("camera/front", moving):
        page = visit(live(), "#topic=camera/front", width=360).page
        newer(page, "#detail", 0)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        shot(page, tmp_path, "live-narrow")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    live: Callable[..., Server], visit: Any, publish: Any, scheme: str
) -> None:
    server = live()
    with publish("camera/front", moving), publish("imu", lambda n: np.arange(3.0) + n):
        page = visit(server, "#topic=imu&tab=data", color_scheme=scheme, bypass_csp=True).page
        expect(tile(page, "camera/front")).to_have_attribute("data-state", "live", timeout=20_000)
        newer(page, "#detail", 0)
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        assert [
            (one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]
        ] == []


def test_the_files_of_the_page(live: Callable[..., Server]) -> None:
    server = live(server_header=True)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        moved = client.get("/live")
        assert moved.status_code == 301
        assert moved.headers["location"].endswith("/live/")
        page = client.get("/live/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["framegate-topics"] == "/topics"
        assert page.headers["x-content-type-options"] == "nosniff"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "http" not in re.sub(r'http-equiv|"/live', "", page.text), "a link to elsewhere"
        again = client.get("/live/live.js", headers={"if-none-match": "*"})
        assert again.status_code == 304
        assert len(client.get("/live/live.js").content) < 60_000


def test_the_page_needs_the_frame_routes() -> None:
    with pytest.raises(framegate.ConfigError, match="set topics"):
        framegate.Config(app="m:a", live="/live")
    with pytest.raises(framegate.ConfigError, match="both at /topics"):
        framegate.Config(app="m:a", topics="/topics", live="/topics")
    with pytest.raises(framegate.ConfigError, match="would hide"):
        framegate.Config(app="m:a", topics="/topics", live="/")
