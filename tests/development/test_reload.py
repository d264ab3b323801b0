"""`--reload`: code starts the worker anew, templates only the page; mistakes are shown."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from framegate import Config, ConfigError, Server
from framegate.errors import WorkerError
from framegate.watching import Watch, roots
from server_process import Launch, ServerProcess

SOURCE = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["type"] == "http":
        text = b"<p>VERSION</p>"
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
    else:
        raise RuntimeError("no lifespan")
"""
SCRIPT = '\n<script src="/.framegate/live.js"></script>\n'
GENEROUS_SECONDS = 5.0
"""From save to the first 200, beyond what a start takes. An idle machine shall need half a second;
here it shows that nothing waits for a grace period or a poll."""


def write(directory: Path, version: str) -> None:
    (directory / "fresh_app.py").write_text(SOURCE.replace("VERSION", version))


@pytest.fixture
def serve(launch: Launch, tmp_path: Path) -> Any:
    """Start a server that reloads; its application is in a directory of its own."""
    directory = tmp_path / "project"
    directory.mkdir()
    write(directory, "1")

    def start(*words: str) -> ServerProcess:
        where = ("--app-dir", str(directory), "--log-level", "info")
        return launch("fresh_app:app", *where, "--reload", *words).wait_ready()

    return start


def get(server: ServerProcess, path: str = "/") -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", timeout=60, trust_env=False)


def text_of(server: ServerProcess) -> str:
    """What is served now; nothing if the worker that is replaced had the request: it is cut.

    Who connects is never refused.
    """
    try:
        return get(server).text
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return ""


def wait_again(server: ServerProcess, since: int) -> None:
    server.wait_for("ready: pid", after=since)


def test_saved_code_is_served_and_pages_get_the_script(serve: Any, tmp_path: Path) -> None:
    server = serve()
    assert get(server).text == f"<p>1</p>{SCRIPT}"
    since = len(server.lines)
    write(tmp_path / "project", "2")
    server.wait_for("fresh_app.py changed", after=since)
    # Not refused in between: the socket is kept, and who comes waits. The old worker may still
    # answer until it has got its signal.
    while (text := text_of(server)) != f"<p>2</p>{SCRIPT}":
        assert text in ("", f"<p>1</p>{SCRIPT}")
    assert "WebSocket" in get(server, "/.framegate/live.js").text
    assert server.stop() == 0


def test_mistakes_are_shown_in_the_browser_and_survived(serve: Any, tmp_path: Path) -> None:
    server = serve()
    for source, shown in (
        ("def broken(:\n", "SyntaxError"),
        ("raise LookupError('no such thing')\n", "no such thing"),
        ("import sys\nsys.exit(5)\n", "SystemExit"),
        ("ap = 1\n", "has no attribute"),
        (
            "async def app(scope, receive, send):\n"
            "    await receive()\n"
            "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n",
            "no database",
        ),
    ):
        since = len(server.lines)
        (tmp_path / "project/fresh_app.py").write_text(source)
        wait_again(server, since)
        answer = get(server)
        assert answer.status_code == 500
        assert shown in answer.text
        assert SCRIPT in answer.text
        assert shown in "\n".join(server.lines[since:])  # and in the log
        hidden = httpx.get(
            f"http://127.0.0.1:{server.port}/",
            headers={"x-forwarded-for": "192.0.2.1"},
            trust_env=False,
        )
        assert shown not in hidden.text
    since = len(server.lines)
    write(tmp_path / "project", "9")
    wait_again(server, since)
    assert get(server).text.startswith("<p>9</p>")
    assert server.stop() == 0


def test_worker_that_dies_is_started_by_the_next_change(serve: Any, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "project/fresh_app.py").write_text("import os\nos._exit(7)\n")
    server.wait_for("the worker ended with code 7; it is started again when code changes")
    write(tmp_path / "project", "2")
    assert get(server).text.startswith("<p>2</p>")
    assert server.stop() == 0


def test_open_websockets_are_closed(serve: Any, tmp_path: Path) -> None:
    server = serve()
    with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as peer:
        write(tmp_path / "project", "2")
        with pytest.raises(ConnectionClosed):
            peer.recv(60)
    assert get(server).text.startswith("<p>2</p>")
    assert server.stop() == 0


def test_browser_hears_of_templates_and_of_new_workers(serve: Any, tmp_path: Path) -> None:
    server = serve()
    url = f"ws://127.0.0.1:{server.port}/.framegate/live"
    with connect(url, proxy=None) as browser:
        worker = browser.recv(60)
        ended = threading.Event()

        def save() -> None:
            # Until it is heard: when the watching has begun, nobody can see.
            while not ended.wait(0.2):
                (tmp_path / "project/page.html").write_text(str(time.monotonic_ns()))

        saver = threading.Thread(target=save)
        saver.start()
        assert browser.recv(60) == "refresh"
        ended.set()
        saver.join()
        write(tmp_path / "project", "2")
        with pytest.raises(ConnectionClosed):
            while browser.recv(60) == "refresh":
                pass
    with connect(url, proxy=None) as browser:
        assert browser.recv(60) != worker
    changes = [line for line in server.lines if "changed: starting" in line]
    assert len(changes) == 1  # the template was none
    assert server.stop() == 0


def test_template_beside_the_package_is_seen(launch: Launch, tmp_path: Path) -> None:
    package = tmp_path / "project/fresh_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SOURCE)
    templates = tmp_path / "project/templates"
    templates.mkdir()
    where = ("--app-dir", str(tmp_path / "project"))
    server = launch("fresh_package:app", *where, "--reload").wait_ready()
    server.wait_for(r"watching \*\.py in 1 directories below .*/fresh_package")
    ended = threading.Event()

    def save() -> None:
        while not ended.wait(0.2):  # when the watching has begun, nobody can see
            (templates / "page.html").write_text(str(time.monotonic_ns()))

    with connect(f"ws://127.0.0.1:{server.port}/.framegate/live", proxy=None) as browser:
        browser.recv(60)
        saver = threading.Thread(target=save)
        saver.start()
        assert browser.recv(60) == "refresh"
        ended.set()
        saver.join()
    assert server.stop() == 0


def test_first_answer_comes_soon_after_the_save(serve: Any, tmp_path: Path) -> None:
    server = serve()
    seconds = []
    for version in ("2", "3", "4"):
        begin = time.monotonic()
        write(tmp_path / "project", version)
        while not text_of(server).startswith(f"<p>{version}</p>"):
            threading.Event().wait(0.01)
        seconds.append(time.monotonic() - begin)
    # The best of three: others use this machine, too.
    starts = [
        float(line.rpartition("after ")[2].split()[0]) for line in server.lines if "after" in line
    ]
    assert min(seconds) < GENEROUS_SECONDS + min(starts)
    assert server.stop() == 0


class TestWhatIsWatched:
    def config(self, directory: Path, app: str, **options: Any) -> Config:
        return Config(app=app, app_dir=str(directory), reload=True, **options)

    def test_package_of_the_application(self, tmp_path: Path) -> None:
        (tmp_path / "watched_pkg/inner").mkdir(parents=True)
        (tmp_path / "watched_pkg/__init__.py").touch()
        (tmp_path / "other").mkdir()
        found = roots(self.config(tmp_path, "watched_pkg.inner:app"))
        assert found == [str(tmp_path / "watched_pkg")]
        (tmp_path / "single_module.py").touch()
        assert roots(self.config(tmp_path, "single_module:app")) == [str(tmp_path)]
        assert roots(self.config(tmp_path, "not_yet_there:app")) == [str(tmp_path)]

    def test_directories_that_are_named(self, tmp_path: Path) -> None:
        config = self.config(tmp_path, "a:b", reload_dirs=[str(tmp_path)])
        assert roots(config) == [str(tmp_path)]
        with pytest.raises(ConfigError, match="none is no directory"):
            roots(self.config(tmp_path, "a:b", reload_dirs=[str(tmp_path / "none")]))

    def test_environments_caches_and_what_is_excluded_are_left_out(self, tmp_path: Path) -> None:
        for name in ("app", ".git", "env/lib", "conda/x", "__pycache__", "node_modules", "data"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "env/pyvenv.cfg").touch()
        (tmp_path / "conda/conda-meta").mkdir()
        watch = Watch([str(tmp_path)], ["*.py", "sql/*.txt"], ["data", "old_*"], 0.05)
        assert watch.directories == [str(tmp_path), str(tmp_path / "app")]
        assert watch.concerns(str(tmp_path / "app/main.py"))
        assert watch.concerns(str(tmp_path / "sql/a.txt"))
        assert not watch.concerns(str(tmp_path / "app/a.txt"))
        assert not watch.concerns(str(tmp_path / "app/.main.py"))
        assert not watch.concerns(str(tmp_path / "app/old_main.py"))

    def test_too_much_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("framegate.watching.DIRECTORIES_MAX", 3)
        for name in "ab":
            (tmp_path / name).mkdir()
        Watch([str(tmp_path)], ["*.py"], [], 0.05)
        (tmp_path / "c").mkdir()
        with pytest.raises(ConfigError, match="more than 3 directories"):
            Watch([str(tmp_path)], ["*.py"], [], 0.05)

    def test_new_directory_and_what_was_put_there(self, tmp_path: Path) -> None:
        watch = Watch([str(tmp_path)], ["*.py"], [], 0.05)
        seen: list[str] = []
        told = threading.Event()

        def run() -> None:
            for changed in watch.changes():
                seen.extend(changed)
                told.set()

        thread = threading.Thread(target=run)
        thread.start()
        number = 0
        while not told.wait(0.2):  # when the watching has begun, nobody can see
            number += 1
            (tmp_path / f"package{number}").mkdir()
            (tmp_path / f"package{number}/module.py").touch()
        told.clear()
        while not told.wait(0.2):
            (tmp_path / f"package{number}/module.py").write_text(str(time.monotonic_ns()))
        watch.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert str(tmp_path / f"package{number}/module.py") in seen


def test_reload_dir_include_exclude_and_delay(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    where = ("--reload-dir", str(tmp_path / "watched"), "--reload-include", "*.sql")
    server = launch(
        *("supervised_apps:app", "--reload", *where),
        *("--reload-exclude", "draft_*", "--reload-delay", "0.3"),
    ).wait_ready()
    server.wait_for(r"watching \*\.py \*\.sql in 1 directories below .*/watched")
    (tmp_path / "watched/draft_1.sql").touch()
    since = len(server.lines)
    begin = time.monotonic()
    (tmp_path / "watched/a.sql").touch()
    server.wait_for("watched/a.sql changed", after=since)
    assert time.monotonic() - begin >= 0.3
    assert "draft" not in server.text
    assert server.stop() == 0


def test_contradictions() -> None:
    with pytest.raises(ConfigError, match="what is developed has one worker"):
        Config(app="a:b", reload=True, workers=2)
    with pytest.raises(ConfigError, match="needs the application as a string"):
        Config(app=lambda: None, reload=True)
    with pytest.raises(WorkerError, match="cannot reload"):
        Server("a:b", reload=True)


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'framegate\[reload\]'"):
        Watch([str(tmp_path)], ["*.py"], [], 0.05)
