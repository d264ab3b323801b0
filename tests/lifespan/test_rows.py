"""The lifespan as seen from outside: what a server process does, alone and under a supervisor.

Each test is a row in which other servers go wrong: a startup timeout that serves all the same, exit
code 0 after `startup.failed`, hooks whose errors vanish, one `state` for all requests.
"""

from __future__ import annotations

import os
import signal
import socket

import pytest

from conformance.process import free_port
from server_process import Launch, body

workers = pytest.mark.parametrize("workers", ["1", "2"])


@workers
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_application_without_lifespan_is_served_in_silence(
    launch: Launch, workers: str, mode: str
) -> None:
    server = launch(
        "supervised_apps:without_lifespan", "--workers", workers, "--lifespan", mode
    ).wait_ready()
    assert server.get()
    assert server.stop() == 0
    assert "Traceback" not in server.text
    assert "error" not in server.text


@workers
def test_application_without_lifespan_is_refused_with_on(launch: Launch, workers: str) -> None:
    words = ("--workers", workers, "--lifespan", "on")
    server = launch("supervised_apps:without_lifespan", *words)
    assert server.wait() == 3
    assert "raised RuntimeError and --lifespan on was given" in server.text


@workers
def test_error_in_a_startup_hook_is_shown_and_served_in_auto(launch: Launch, workers: str) -> None:
    server = launch("supervised_apps:broken_startup", "--workers", workers).wait_ready()
    assert server.get()
    assert server.stop() == 0
    assert "the application raised LookupError in lifespan startup" in server.text
    assert "LookupError: typo in a hook" in server.text


@workers
@pytest.mark.parametrize("app", ["broken_startup", "failing", "hanging"])
def test_failed_startup_never_accepts_and_exits_3(launch: Launch, workers: str, app: str) -> None:
    port = str(free_port())
    words = ["--workers", workers, "--lifespan", "on", "--port", port]
    if app == "hanging":
        words += ["--timeout-startup", "5"]  # not 1: what it imports takes of it, too
    server = launch(f"supervised_apps:{app}", *words)
    server.wait_event("startup")
    with socket.socket() as peer:  # the application is in its startup, or has failed
        assert peer.connect_ex(("127.0.0.1", int(port))) != 0
    assert server.wait() == 3
    assert server.text.count("error: FG-START-001 lifespan startup") == 1


@workers
@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("bad_shutdown", "lifespan shutdown failed: still busy"),
        ("broken_shutdown", "LookupError: typo in a hook"),
    ],
)
def test_failed_shutdown_is_shown_and_exits_1(
    launch: Launch, workers: str, app: str, text: str
) -> None:
    server = launch(f"supervised_apps:{app}", "--workers", workers).wait_ready()
    assert server.stop() == 1
    assert text in server.text


@workers
def test_state_is_copied_for_each_request_but_not_what_it_holds(
    launch: Launch, workers: str
) -> None:
    server = launch("supervised_apps:with_state", "--workers", workers).wait_ready()
    answers = [server.get() for _ in range(10)]
    assert {text.rpartition(" ")[0] for text in answers} == {"['name', 'shared'] lifespan"}
    counts = [int(text.rpartition(" ")[2]) for text in answers]
    if workers == "1":
        assert counts == list(range(10))
    assert server.stop() == 0


@workers
def test_shutdown_runs_after_the_last_request(launch: Launch, workers: str) -> None:
    server = launch("supervised_apps:app", "--workers", workers).wait_ready()
    server.hold_file.touch()
    peer = server.request("/slow")
    server.wait_event("slow")
    (busy,) = server.events("slow")
    server.signal(signal.SIGTERM)
    server.wait_for("stopping")
    assert busy not in server.events("shutdown")
    os.unlink(server.hold_file)
    assert body(peer) == "done"
    assert server.wait() == 0
    assert busy in server.events("shutdown")
