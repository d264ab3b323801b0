"""Serving from code: `run`, `Server.serve`, `Server.start_in_thread`."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import framegate
from framegate import Config, ConfigError, Server
from framegate.errors import ListenError, StartupFailed, WorkerError

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 60.0


class Application:
    """Counts; answers with the name of its thread."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                self.events.append(kind.removeprefix("lifespan."))
                await send({"type": f"{kind}.complete"})
            return
        text = threading.current_thread().name.encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


@pytest.fixture
def app() -> Application:
    return Application()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        return str(response.read().decode())


class TestInAThread:
    def test_returns_real_addresses_and_stops(self, app: Application) -> None:
        server = Server(app, port=0, access_log=False)
        assert server.addresses == []
        with server.start_in_thread() as running:
            ((host, port),) = running.addresses
            assert (host, running.urls) == ("127.0.0.1", [f"http://127.0.0.1:{port}"])
            assert server.urls == running.urls
            assert get(running.urls[0]) == "framegate server"
            assert app.events == ["startup"]
        assert app.events == ["startup", "shutdown"]
        with pytest.raises(OSError):
            get(running.urls[0])

    def test_several_live_in_one_process(self) -> None:
        # Each owns its loop and its core: nothing global.
        apps = [Application() for _ in range(4)]
        servers = [Server(app, port=0, access_log=False).start_in_thread() for app in apps]
        with ThreadPoolExecutor(8) as pool:
            urls = [server.urls[0] for server in servers] * 20
            assert set(pool.map(get, urls)) == {"framegate server"}
        servers[0].stop()
        assert get(servers[1].urls[0])
        for server in servers[1:]:
            server.stop()
        assert [app.events for app in apps] == [["startup", "shutdown"]] * 4

    def test_stop_may_be_called_again(self, app: Application) -> None:
        running = Server(app, port=0, access_log=False).start_in_thread()
        running.stop()
        running.stop()
        assert app.events == ["startup", "shutdown"]

    def test_failure_to_start_is_raised_here(self, app: Application) -> None:
        async def failing(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        with pytest.raises(StartupFailed, match="no database"):
            Server(failing, port=0).start_in_thread()
        with Server(app, port=0, access_log=False).start_in_thread() as running:
            port = running.addresses[0][1]
            with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is in use"):
                Server(app, port=port).start_in_thread()

    def test_failed_shutdown_of_the_application_leaves_nothing_behind(self) -> None:
        async def failing(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            raise ValueError("cannot close")

        Server(failing, port=0, access_log=False).start_in_thread().stop()
        assert not [t for t in threading.enumerate() if t.name == "framegate server"]

    def test_environment_of_the_program_is_not_read(
        self, app: Application, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PORT", "1")
        assert Server(app).config.port == 8000


class TestOnALoop:
    def test_serves_in_place_on_framegates_loop(self, app: Application) -> None:
        async def main() -> str:
            server = Server(app, port=0, access_log=False)
            serving = asyncio.create_task(server.serve())
            while not server.urls:
                await asyncio.sleep(0)
            # From a thread: this one is the server's.
            text = await asyncio.to_thread(get, server.urls[0])
            server.stop()
            await serving
            return text

        with asyncio.Runner(loop_factory=framegate.new_event_loop) as runner:
            assert runner.run(main()) == threading.current_thread().name
        assert app.events == ["startup", "shutdown"]

    def test_signal_handlers_are_given_back(self, app: Application) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

        async def main() -> None:
            server = Server(app, port=0, access_log=False)
            serving = asyncio.create_task(server.serve())
            while not server.urls:
                await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving

        with asyncio.Runner(loop_factory=framegate.new_event_loop) as runner:
            runner.run(main())
        assert app.events == ["startup", "shutdown"]
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    def test_another_loop_is_refused_with_both_ways_out(self, app: Application) -> None:
        with pytest.raises(WorkerError) as caught:
            asyncio.run(Server(app, port=0).serve())
        text = str(caught.value)
        assert "needs framegate's event loop, not asyncio." in text
        assert "loop_factory=framegate.new_event_loop" in text
        assert "start_in_thread()" in text
        assert app.events == []


def test_context_of_the_lifespan_reaches_the_requests() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            variable.set("set in startup")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        text = variable.get("unset").encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    with Server(app, port=0, access_log=False).start_in_thread() as server:
        assert get(server.urls[0]) == "set in startup"


def test_server_has_one_worker() -> None:
    with pytest.raises(WorkerError, match="one worker, not 2"):
        Server("main:app", workers=2)


def test_server_takes_a_config_or_options(app: Application) -> None:
    assert Server(app, config=Config(port=7)).config.port == 7
    assert Server(app, config=Config(port=7), port=9).config.port == 9
    with pytest.raises(ConfigError, match="unknown option prot; did you mean port"):
        Server(app, prot=1)


# ----------------------------------------------------------------------------------------------
# framegate.run, in programs of their own.

MODULE = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


class Program:
    """A Python program that serves until it is stopped."""

    def __init__(self, directory: Path, words: list[str]) -> None:
        (directory / "module.py").write_text(MODULE)
        self.process = subprocess.Popen(
            words,
            cwd=directory,
            env={**os.environ, "FRAMEGATE_RUNTIME_DIR": str(directory / "run")},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail("".join(self.lines))

    def end(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        with self.process.stderr as rest:
            self.lines += rest
        return self.process.wait(TIMEOUT_SECONDS), "".join(self.lines)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()
        if program.process.stderr is not None:
            program.process.stderr.close()


def guide_block(language: str) -> str:
    """Return the block of docs/guide/serve.md that says it is run by these tests."""
    text = (ROOT / "docs/guide/serve.md").read_text()
    match = re.search(rf"<!-- run by: tests/cli -->\n```{language}\n(.*?)```", text, re.S)
    assert match is not None
    return match[1]


def serves_and_stops(program: Program) -> None:
    url = program.wait_for(r"http://\S+:(\d+)")[1]
    program.wait_for("ready: pids? ")
    assert get(f"http://127.0.0.1:{url}/") == "hello"
    program.process.send_signal(signal.SIGINT)
    code, text = program.end()
    assert code == 0, text


def test_guide_program_serves(tmp_path: Path, programs: list[Program]) -> None:
    source = guide_block("python")
    assert "port=8000" in source
    (tmp_path / "main.py").write_text(source.replace("port=8000", "port=0"))
    programs.append(Program(tmp_path, [sys.executable, "main.py"]))
    serves_and_stops(programs[0])


def test_guide_command_serves(tmp_path: Path, programs: list[Program]) -> None:
    words = guide_block("console").strip().removeprefix("$ ").replace("8000", "0").split()
    script = str(Path(sys.executable).parent / words[0])
    programs.append(Program(tmp_path, [script, *words[1:]]))
    serves_and_stops(programs[0])


def test_run_takes_an_application_object(tmp_path: Path, programs: list[Program]) -> None:
    (tmp_path / "main.py").write_text(
        "import framegate\nfrom module import app\nframegate.run(app, port=0)\n"
    )
    programs.append(Program(tmp_path, [sys.executable, "main.py"]))
    serves_and_stops(programs[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_run_at_the_top_level_of_what_it_serves_is_explained(
    tmp_path: Path, programs: list[Program], workers: int
) -> None:
    (tmp_path / "main.py").write_text(
        f'import framegate\nframegate.run("main:app", port=0, workers={workers})\n'
    )
    programs.append(Program(tmp_path, [sys.executable, "main.py"]))
    code, text = programs[0].end()
    assert code == 3
    assert "framegate.run() was called while the application was being imported" in text
    assert 'if __name__ == "__main__":' in text


def test_run_exits_with_the_code_of_the_failure(tmp_path: Path, programs: list[Program]) -> None:
    for source, code, expected in (
        ('framegate.run("nothing:app", port=0)', 3, 'no module "nothing"'),
        ('framegate.run("module:app", prot=0)', 1, "ConfigError: unknown option prot"),
    ):
        (tmp_path / "main.py").write_text(f"import framegate\n{source}\n")
        programs.append(Program(tmp_path, [sys.executable, "main.py"]))
        ended, text = programs[-1].end()
        assert ended == code
        assert expected in text
