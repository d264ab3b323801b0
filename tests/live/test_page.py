"""The live page in a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

import framegate
from docs_pictures import docs_picture
from live.conftest import moving
from live.page import look, newer, shot, tile
from server_process import Launch
from server_thread import Server

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


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
            first, values = look(page, f"{selector} canvas")
            assert values > 4, f"{topic} is blank"
            # Asked for afterwards: a busy machine draws several frames between the two.
            sequence = int(tile(page, topic).get_attribute("data-sequence"))
            newer(page, selector, sequence + 3)
            assert look(page, f"{selector} canvas")[0] != first, f"{topic} stands still"
        facts = tile(page, "camera/front").locator(".facts")
        expect(facts).to_have_text(re.compile(r"^\d+\.\d Hz, [\d.]+ (ms|s)$"))
        row = page.locator("#list tr", has_text="camera/front").locator("td")
        expect(row.nth(1)).to_have_text(re.compile(r"^[1-9]\d*\.\d$"))
        expect(row.nth(3)).to_have_text("1")
        expect(page.locator("#sum")).to_have_text(
            re.compile(r"^5 topics, [1-9]\d*(\.\d)? frames/s(, 99 % shown within [\d.]+ m?s)?$")
        )
        shot(page, tmp_path, "live")
        # The same in the dark.
        page.keyboard.press("t")
        expect(page.locator(":root")).to_have_attribute("data-theme", "dark")
        shot(page, tmp_path, "live-dark")
        assert not seen.errors
        assert seen.origins == {f"127.0.0.1:{server.port}"}


def test_readers_are_shown_with_what_they_hold_lost_and_have_not_taken(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    server = live()
    with publish("camera/front", moving):
        page = visit(server, "#topic=camera/front&tab=readers").page
        expect(page.locator("#readers")).to_contain_text("latest", timeout=20_000)
        row = page.locator("#list tr", has_text="camera/front").locator("td")
        with framegate.Subscriber("camera/front", policy="queue", name="slow one") as slow:
            frame = slow.take(timeout=20)
            assert frame is not None
            with frame:
                found = page.locator("#readers tbody tr", has_text="slow one").locator("td")
                expect(found.nth(1)).to_have_text(str(os.getpid()), timeout=20_000)
                expect(found.nth(2)).to_have_text("queue")
                # One frame for more than a second, and others that it has not taken meanwhile.
                expect(found.nth(6)).to_have_text(re.compile(r"^! 1, [\d.]+ s$"), timeout=20_000)
                expect(found.nth(5)).to_have_text(re.compile(r"^[1-9]\d*, [\d.]+ m?s$"))
                expect(row.nth(5)).not_to_have_text("0")
                docs_picture(page, "live-readers", height=320)
            # It takes what is left now and then: those between are lost, to it and to the topic.
            stop = threading.Event()

            def lose() -> None:
                while not stop.wait(0.4):
                    late = slow.take(timeout=20)
                    assert late is not None
                    late.release()

            losing = threading.Thread(target=lose)
            losing.start()
            try:
                expect(found.nth(4)).to_have_text(re.compile("^[1-9]"), timeout=20_000)
                expect(row.nth(6)).to_have_text(re.compile(r"^! \d"), timeout=20_000)
                expect(page.locator("#sum")).to_contain_text(" lost/s", timeout=20_000)
            finally:
                stop.set()
                losing.join()
        expect(page.locator("#readers")).not_to_contain_text("slow one", timeout=20_000)
        page.get_by_role("tab", name="Data").click()
        expect(page.locator("#detail")).to_contain_text("Lost by subscribers")


def test_a_reader_that_is_killed_leaves_the_table(
    live: Callable[..., Server], visit: Any, publish: Any, runtime: Path
) -> None:
    script = (
        "import framegate, signal\n"
        "with framegate.Subscriber('a', name='doomed') as reader:\n"
        "    frame = reader.take(timeout=20)\n"
        "    print('holds', flush=True)\n"
        "    signal.pause()\n"
    )
    with publish("a", moving):
        page = visit(live(), "#topic=a&tab=readers").page
        with subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "FRAMEGATE_RUNTIME_DIR": str(runtime)},
            stdout=subprocess.PIPE,
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"holds\n"
            expect(page.locator("#readers")).to_contain_text("doomed", timeout=20_000)
            reader.kill()
        expect(page.locator("#readers")).not_to_contain_text("doomed", timeout=20_000)
        newer(page, "#detail", int(page.locator("#detail").get_attribute("data-sequence") or 0) + 5)


def test_tensors_are_heat_maps_with_values_to_read(
    live: Callable[..., Server], visit: Any, publish: Any, tmp_path: Path
) -> None:
    tensor = np.arange(2 * 3 * 12 * 24, dtype=np.float32).reshape(2, 3, 12, 24)
    with publish("net/activation", lambda _: tensor):
        page = visit(live(), "#topic=net/activation").page
        newer(page, "#detail", 0)
        canvas = page.locator("#detail canvas")
        width, height = canvas.evaluate("canvas => [canvas.width, canvas.height]")
        # Six images of 24 by 12, with a pixel between them.
        across, down = (width + 1) // 25, (height + 1) // 13
        assert (across * 25 - 1, down * 13 - 1) == (width, height)
        assert across * down >= 6 and across > 1
        box = canvas.bounding_box()
        assert box is not None
        for plane, row, column in ((0, 0, 0), (1, 5, 7), (5, 11, 23)):
            x, y = plane % across * 25 + column, plane // across * 13 + row
            page.mouse.move(
                box["x"] + (x + 0.5) * box["width"] / width,
                box["y"] + (y + 0.5) * box["height"] / height,
            )
            value = (plane * 12 + row) * 24 + column
            said = page.locator("#panel-picture p")
            expect(said).to_have_text(f"x {x}, y {y}: {value}")
        shot(page, tmp_path, "live-tensor")


def test_a_viewer_that_is_slow_says_so(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    slowly = "const next = requestAnimationFrame.bind(window);"
    slowly += "window.requestAnimationFrame = draw => setTimeout(() => next(draw), 400);"
    with publish("a", moving):
        page = visit(live(), script=slowly).page
        note = tile(page, "a").locator(".note")
        expect(note).to_have_text(
            re.compile(r"^slow: [\d.]+ of [\d.]+ Hz arrive here$"), timeout=30_000
        )
        expect(tile(page, "a")).to_have_attribute("data-slow", "")
        # So late that the first line says it.
        expect(page.locator("#sum")).to_contain_text("99 % shown within", timeout=20_000)


def test_of_fifty_topics_only_those_in_sight_are_sent(
    live: Callable[..., Server], visit: Any, runtime: Path, tmp_path: Path
) -> None:
    """What makes scrolling cheap: tiles out of sight have no socket, no frame and no layout."""
    names = [f"camera/{number:02}" for number in range(50)]
    stop = threading.Event()
    picture = moving(0, (45, 80, 3))
    with ExitStack() as stack:
        publishers = [
            stack.enter_context(
                framegate.Publisher(name, dtype="uint8", shape=picture.shape, slots=4)
            )
            for name in names
        ]

        def go_on() -> None:
            number = 0
            while not stop.wait(0.1):
                for publisher in publishers:
                    publisher.send(moving(number, (45, 80, 3)))
                number += 1

        thread = threading.Thread(target=go_on)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        seen = visit(live())
        page = seen.page
        expect(page.locator(".tile")).to_have_count(50, timeout=20_000)
        expect(tile(page, names[0])).to_have_attribute("data-state", "live", timeout=20_000)
        in_sight = page.evaluate(
            "[...document.querySelectorAll('.tile')].filter("
            "tile => tile.getBoundingClientRect().top < innerHeight).length"
        )
        assert 2 <= in_sight < 20
        assert seen.sockets_opened <= in_sight
        shot(page, tmp_path, "live-fifty")
        # To the end in one go: what flies past is not asked for.
        page.locator("main").evaluate("main => main.scrollTo(0, main.scrollHeight)")
        expect(tile(page, names[-1])).to_have_attribute("data-state", "live", timeout=20_000)
        newer(page, f'.tile[data-topic="{names[-1]}"]', 0)
        assert tile(page, names[25]).get_attribute("data-sequence") is None
        assert seen.sockets_opened <= 2 * in_sight + 4
        while seen.sockets_opened - seen.sockets_closed > in_sight + 4:
            page.wait_for_timeout(50)
        # What is out of sight is not laid out either.
        assert tile(page, names[0]).evaluate(
            "tile => !tile.querySelector('canvas').checkVisibility({contentVisibilityAuto: true})"
        )


def test_the_page_can_be_a_camera_while_developing(
    launch: Launch, visit: Any, runtime: Path, tmp_path: Path
) -> None:
    words = ("--topics", "/topics", "--live", "/live", "--reload")
    extra = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    server = launch("supervised_apps:app", *words, extra=extra).wait_ready()
    seen = visit(server)
    page = seen.page
    expect(page.locator("#empty")).to_contain_text("Nothing is published yet", timeout=20_000)
    shot(page, tmp_path, "live-empty")
    page.locator("#empty").get_by_role("button", name="Start demo camera").click()
    topic = tile(page, "demo/browser")
    expect(topic).to_have_attribute("data-state", "live", timeout=20_000)
    newer(page, '.tile[data-topic="demo/browser"]', 3)
    assert look(page, '.tile[data-topic="demo/browser"] canvas')[1] > 4
    button = page.locator("#demo")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(button).to_have_text("Start demo camera")
    expect(topic).to_have_attribute("data-state", re.compile("gone|stale"), timeout=20_000)
    assert not seen.errors
    server.stop()


def test_a_server_at_work_lets_no_page_be_a_camera(live: Callable[..., Server], visit: Any) -> None:
    server = live()
    page = visit(server).page
    expect(page.locator("#empty")).to_contain_text("Nothing is published yet")
    expect(page.locator("#demo")).to_be_hidden()
    expect(page.locator("#empty button")).to_have_count(2)  # both copy
    refused = httpx.post(f"http://127.0.0.1:{server.port}/topics/demo/browser", content=b"x")
    assert refused.status_code == 404


def test_tabs_are_turned_by_arrows_and_samples_copied(
    live: Callable[..., Server], visit: Any, publish: Any
) -> None:
    without = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
    with publish("camera/front", moving):
        server = live()
        page = visit(server, "#topic=camera/front&tab=links", script=without).page
        tabs = page.get_by_role("tab")
        expect(tabs).to_have_text(["Picture", "Data", "Readers", "Links", "Record"])
        tabs.nth(3).focus()
        page.keyboard.press("ArrowRight")
        expect(tabs.nth(4)).to_be_focused()
        expect(page.locator("#panel-record")).to_contain_text(
            "platform topic record camera/front -o camera-front.mcap"
        )
        # Without a clipboard (plain HTTP from elsewhere) the text is selected for Ctrl-C.
        page.locator("#panel-record button").first.click()
        assert page.evaluate("getSelection().toString()").startswith("platform topic record")
        page.keyboard.press("ArrowRight")
        tabs.nth(4).focus()
        page.keyboard.press("ArrowRight")
        expect(tabs.nth(0)).to_be_focused()
        page.keyboard.press("z")
        expect(page.locator("#detail canvas")).to_have_attribute("data-zoom", "")
        page.keyboard.press("z")
        expect(page.locator("#detail canvas")).not_to_have_attribute("data-zoom", "")
        # With one, it is there.
        other = visit(
            server,
            "#topic=camera/front&tab=links",
            permissions=["clipboard-read", "clipboard-write"],
        ).page
        other.locator("#panel-links button").first.click()
        expect(other.locator("#panel-links button").first).to_have_text("Copied")
        copied = other.evaluate("navigator.clipboard.readText()")
        assert copied == other.locator("#panel-links pre").first.inner_text()


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


def test_a_name_that_only_answers_calls_says_so(
    live: Callable[..., Server], visit: Any, runtime: Path
) -> None:
    with framegate.Responder("detect", slot_bytes=100):
        page = visit(live()).page
        expect(tile(page, "detect")).to_have_attribute("data-state", "calls", timeout=20_000)
        note = "no frames: calls are answered here, by 1 responder"
        expect(tile(page, "detect").locator(".note")).to_have_text(note)


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


def test_a_frame_that_comes_again_after_a_lost_link_is_not_the_last(
    launch: Launch, visit: Any, runtime: Path
) -> None:
    words = ("--topics", "/topics", "--live", "/live")
    extra = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    first = launch("supervised_apps:app", *words, extra=extra).wait_ready()
    with framegate.Publisher("still", dtype="uint8", shape=(90, 160, 3)) as publisher:
        publisher.send(moving(0))
        page = visit(first).page
        expect(tile(page, "still")).to_have_attribute("data-sequence", "1", timeout=20_000)
        port = first.port
        first.stop()
        expect(page.locator("#link")).to_have_attribute("data-state", "lost", timeout=20_000)
        came_again: list[object] = []

        def opened(socket: Any) -> None:
            if "/still" in socket.url:
                socket.on("framereceived", lambda payload: came_again.append(payload))

        page.on("websocket", opened)
        second = launch("supervised_apps:app", "--port", str(port), *words, extra=extra)
        while not came_again:
            page.wait_for_timeout(50)
        publisher.send(moving(1))
        expect(tile(page, "still")).to_have_attribute("data-sequence", "2", timeout=20_000)
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
        # The list comes when it is asked for.
        expect(page.locator("#list")).to_be_hidden()
        page.get_by_role("button", name="Topics").click()
        expect(page.locator("#list")).to_be_visible()
        shot(page, tmp_path, "live-drawer")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(
    ("scheme", "tab"), [("light", "data"), ("dark", "data"), ("dark", "readers")]
)
def test_axe_finds_nothing(
    live: Callable[..., Server], visit: Any, publish: Any, scheme: str, tab: str
) -> None:
    server = live()
    with publish("camera/front", moving), publish("imu", lambda n: np.arange(3.0) + n):
        page = visit(server, f"#topic=imu&tab={tab}", color_scheme=scheme, bypass_csp=True).page
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
