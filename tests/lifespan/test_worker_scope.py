"""The scope `framegate.worker`: each row of the table in `worker_scope.py`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import urllib.request
from typing import Any

import pytest

from conformance.process import free_port
from framegate import Server
from framegate.errors import EXIT_STARTUP, StartupFailed, WorkerError, WorkerStartFailed
from server_process import Launch

APP = "supervised_apps:with_worker_scope"

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Application:
    """Notes every event; what it does in `framegate.worker` is given."""

    def __init__(self, worker: Any = None, *, has_lifespan: bool = True) -> None:
        self.events: list[str] = []
        self.scopes: list[dict[str, Any]] = []
        self._worker = worker or self.well_behaved
        self._has_lifespan = has_lifespan

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def noting() -> Any:
            message = await receive()
            self.events.append(message["type"])
            return message

        if scope["type"] == "framegate.worker":
            self.scopes.append(scope)
            await self._worker(scope, noting, send)
        elif scope["type"] == "lifespan":
            if not self._has_lifespan:
                raise RuntimeError("no lifespan")
            for _ in range(2):
                kind = (await noting())["type"]
                await send({"type": f"{kind}.complete"})
        else:
            text = f"{sorted(scope['state'])} {variable.get()}".encode()
            headers = [(b"content-length", str(len(text)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text})

    async def well_behaved(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["device"] = "open"
        variable.set("set in the worker's startup")
        await send({"type": "framegate.worker.startup.complete"})
        await receive()
        await send({"type": "framegate.worker.shutdown.complete"})


def serve(app: Application, **options: Any) -> str:
    """Serve one request, stop, and return the answer."""
    with Server(app, port=0, access_log=False, **options).start_in_thread() as server:
        with urllib.request.urlopen(server.urls[0], timeout=60) as response:
            return str(response.read().decode())


LIFESPAN = ["lifespan.startup", "lifespan.shutdown"]
BOTH = [
    "lifespan.startup",
    "framegate.worker.startup",
    "framegate.worker.shutdown",
    "lifespan.shutdown",
]


def test_runs_inside_the_lifespan_and_says_which_worker() -> None:
    app = Application()
    assert serve(app) == "['device'] set in the worker's startup"
    assert app.events == BOTH
    (scope,) = app.scopes
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert scope["worker"] == {"index": 0, "count": 1, "generation": 0, "pid": os.getpid()}


def test_application_without_lifespan_may_have_it() -> None:
    app = Application(has_lifespan=False)
    serve(app)
    assert app.events == BOTH[1:3]


class TestApplicationThatDoesNotKnowIt:
    async def raises(self, scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("path")  # what an application does that takes every scope for a request

    async def returns(self, scope: Any, receive: Any, send: Any) -> None:
        return

    async def answers(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    @pytest.mark.parametrize("name", ["raises", "returns", "answers"])
    def test_is_served_in_auto_without_a_word(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = Application(getattr(self, name))
        assert serve(app).startswith("[]")
        assert [record for record in caplog.records if record.levelno > logging.INFO] == []

    @pytest.mark.parametrize("name", ["raises", "returns", "answers"])
    def test_is_refused_in_on(self, name: str) -> None:
        app = Application(getattr(self, name))
        with pytest.raises(StartupFailed, match=r"framegate\.worker startup failed"):
            serve(app, worker_scope="on")
        assert app.events[-1] == "lifespan.shutdown"

    def test_is_not_asked_when_it_mistook_the_lifespan(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        with Server(app, port=0, access_log=False).start_in_thread():
            pass
        assert seen == ["lifespan"]
        with Server(app, port=0, access_log=False, lifespan="off").start_in_thread():
            pass
        assert seen == ["lifespan"]


class TestFailure:
    async def fails(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "framegate.worker.startup.failed", "message": "no device"})

    async def raises(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no device")

    async def returns(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def is_late(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.Event().wait()

    @pytest.mark.parametrize("name", ["fails", "raises", "returns", "is_late"])
    def test_in_startup_means_that_nothing_is_accepted(self, name: str) -> None:
        app = Application(getattr(self, name))
        port = free_port()
        server = Server(app, port=port, access_log=False, timeout_worker_startup=0.2)
        with pytest.raises(WorkerStartFailed, match=r"framegate\.worker startup") as caught:
            server.start_in_thread()
        assert caught.value.exit_code == EXIT_STARTUP
        with socket.socket() as peer:
            assert peer.connect_ex(("127.0.0.1", port)) != 0
        # What the lifespan opened is closed.
        assert app.events == ["lifespan.startup", "framegate.worker.startup", "lifespan.shutdown"]

    def test_while_serving_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def dies(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "framegate.worker.startup.complete"})
            raise RuntimeError("in the background")

        app = Application(dies)
        serve(app)
        assert "the framegate.worker raised RuntimeError while serving" in caplog.text
        assert app.events == ["lifespan.startup", "framegate.worker.startup", "lifespan.shutdown"]

    def test_in_shutdown_is_logged_and_the_lifespan_goes_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def cannot_close(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "framegate.worker.startup.complete"})
            await receive()
            await send({"type": "framegate.worker.shutdown.failed", "message": "stuck"})

        app = Application(cannot_close)
        serve(app)
        assert "framegate.worker shutdown failed: stuck" in caplog.text
        assert app.events == BOTH

    def test_is_a_worker_error(self) -> None:
        assert issubclass(WorkerStartFailed, WorkerError)


class TestSupervised:
    def test_each_worker_knows_its_place_and_so_does_its_successor(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2").wait_ready()
        first, second = server.worker_pids
        assert server.events("worker-startup-0-0-2") == [first]
        assert server.events("worker-startup-1-0-2") == [second]
        seen = set()
        for _ in range(500):  # the kernel chooses the worker
            seen.add(server.get("/worker"))
            if seen == {"0", "1"}:
                break
        assert seen == {"0", "1"}
        os.kill(second, 9)
        successor = int(server.wait_for(r"worker 2 ready again \(pid (\d+)\)")[1])
        assert server.events("worker-startup-1-1-2") == [successor]
        assert server.stop() == 0
        assert sorted(server.events("worker-shutdown")) == sorted([first, successor])

    @pytest.mark.parametrize("failure", ["failed", "raise", "late"])
    def test_failure_is_a_crash_within_the_budget(self, launch: Launch, failure: str) -> None:
        words = ("--workers", "2", "--timeout-worker-startup", "0.3")
        server = launch(APP, *words, extra={"FAILURE": failure, "HOLD": "/proc"})
        server.wait_for(r"worker 2 ended with exit code 1: starting it again at once")
        server.wait_for(r"worker 2 ended with exit code 1: starting it again in 0\.25 s")
        assert "ready: pids" not in server.text
        assert server.text.count("FG-START-004 framegate.worker startup") >= 2
        assert server.stop() in (0, 1)
        assert server.events("worker-startup-1-1-2")

    def test_exhausted_budget_ends_the_server_with_1(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2", extra={"FAILURE": "failed", "HOLD": "/proc"})
        assert server.wait() == 1
        assert "for the 6th time within 60 s: giving up" in server.text
        assert len(server.events("worker-shutdown")) == 1  # of worker 1, which was fine

    def test_failure_that_passes_is_forgiven(self, launch: Launch, tmp_path: Any) -> None:
        (tmp_path / "hold").touch()
        server = launch(APP, "--workers", "2")
        server.wait_for("worker 2 ended with exit code 1")
        (tmp_path / "hold").unlink()
        server.wait_ready()
        assert server.stop() == 0

    def test_blocked_startup_is_ended_and_tried_again(self, launch: Launch, tmp_path: Any) -> None:
        (tmp_path / "hold").touch()
        server = launch(
            APP,
            "--workers",
            "2",
            "--timeout-worker-startup",
            "0.2",
            extra={"FAILURE": "block"},
        )
        server.wait_for(r"framegate\.worker startup did not finish .* its code does not return")
        (tmp_path / "hold").unlink()
        server.wait_ready()
        assert server.stop() == 0

    def test_alone_it_is_a_failed_start(self, launch: Launch) -> None:
        server = launch("supervised_apps:worker_scope_fails")
        assert server.wait() == 3
        assert "FG-START-004 framegate.worker startup failed: no device" in server.text
