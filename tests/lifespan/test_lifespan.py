"""ASGI lifespan on a plain asyncio loop: each row of the table in `lifespan.py`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import pytest

from framegate.errors import StartupFailed
from framegate.lifespan import Lifespan

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

Script = Callable[[Any, Any, Any], Any]


async def well_behaved(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["database"] = "open"
    variable.set("set in startup")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    scope["state"]["database"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def raises_at_once(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("no such scope")


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    return


async def raises_in_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("typo in a hook")


async def returns_in_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def exits_in_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit(4)


async def fails_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise ValueError("raised again, as Starlette does")


async def never_answers(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.Event().wait()


async def raises_while_serving(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise ValueError("in the background")


async def raises_in_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ValueError("cannot close")


async def fails_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "still busy"})


async def hangs_in_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.Event().wait()


async def speaks_out_of_turn(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.shutdown.complete"})


def live(script: Script, mode: Any = "auto", timeout: float = 30.0) -> tuple[Lifespan, bool]:
    """Start, let everything that is ready run, and stop."""

    async def main() -> tuple[Lifespan, bool]:
        lifespan = Lifespan(script, mode)
        await lifespan.startup(timeout)
        await asyncio.sleep(0)
        return lifespan, await lifespan.shutdown(timeout)

    return asyncio.run(main())


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_state_and_context_reach_the_requests(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lifespan = Lifespan(well_behaved, mode)  # type: ignore[arg-type]
        await lifespan.startup(30)
        assert lifespan.state == {"database": "open"}
        assert lifespan.context.run(variable.get) == "set in startup"
        assert variable.get() == "unset"
        assert await lifespan.shutdown(30)
        assert lifespan.state == {"database": "closed"}

    asyncio.run(main())
    assert errors(caplog) == []


def test_off_never_calls_the_application() -> None:
    live(raises_at_once, "off")


@pytest.mark.parametrize("script", [raises_at_once, returns_at_once])
class TestApplicationWithoutLifespan:
    def test_is_served_in_auto(self, script: Script, caplog: pytest.LogCaptureFixture) -> None:
        assert live(script)[1]
        assert errors(caplog) == []

    def test_is_refused_in_on(self, script: Script) -> None:
        with pytest.raises(StartupFailed, match="--lifespan on was given"):
            live(script, "on")


class TestErrorAfterStartupWasReceived:
    # Peers take it for "no lifespan" and serve without a word: a broken hook goes unnoticed.
    def test_is_logged_with_traceback_in_auto(self, caplog: pytest.LogCaptureFixture) -> None:
        live(raises_in_startup)
        assert errors(caplog) == ["the application raised ValueError in lifespan startup"]
        assert "typo in a hook" in caplog.text

    def test_fails_the_start_in_on(self) -> None:
        with pytest.raises(StartupFailed, match="raised ValueError"):
            live(raises_in_startup, "on")

    def test_return_counts_alike(self, caplog: pytest.LogCaptureFixture) -> None:
        live(returns_in_startup)
        assert errors(caplog) == ["the application returned in lifespan startup"]
        with pytest.raises(StartupFailed, match="returned"):
            live(returns_in_startup, "on")

    def test_exit_fails_the_start_in_auto_too(self) -> None:
        with pytest.raises(StartupFailed, match="SystemExit"):
            live(exits_in_startup)


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed_message_is_the_error(mode: str) -> None:
    with pytest.raises(StartupFailed) as caught:
        live(fails_startup, mode)
    assert str(caught.value) == "lifespan startup failed: no database"
    assert caught.value.exit_code == 3


def test_startup_that_never_answers_times_out() -> None:
    with pytest.raises(StartupFailed, match=r"did not finish within 0\.01 s"):
        live(never_answers, timeout=0.01)


def test_error_while_serving_is_logged_and_shutdown_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert live(raises_while_serving)[1]
    assert errors(caplog) == ["the lifespan raised ValueError while serving"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (raises_in_shutdown, "raised ValueError in lifespan shutdown"),
        (fails_shutdown, "lifespan shutdown failed: still busy"),
    ],
)
def test_failed_shutdown_is_reported(
    script: Script, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not live(script)[1]
    assert any(message in line for line in errors(caplog))


def test_shutdown_that_hangs_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lifespan = Lifespan(hangs_in_shutdown, "auto")
        await lifespan.startup(30)
        assert not await lifespan.shutdown(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert errors(caplog) == ["lifespan shutdown did not finish within 0.01 s"]


def test_message_out_of_turn_raises_in_the_application() -> None:
    with pytest.raises(StartupFailed, match="raised RuntimeError"):
        live(speaks_out_of_turn, "on")
