"""ASGI lifespan: one long call of the application around the life of a worker.

States, and what each end of the application's call means in them:

| state     | application returns or raises          | in mode auto                | in mode on |
|-----------|----------------------------------------|-----------------------------|------------|
| untouched | it never received `lifespan.startup`   | not supported: serve        | failed     |
| starting  | it received it and gave no answer      | log the traceback, serve    | failed     |
| started   | while serving                          | log as error, serve         | the same   |
| stopping  | before or after its answer             | if it raised: log as error  | the same   |

The first two rows are why an exception is not simply taken for "does not know lifespan": a typo in
a startup hook would leave a server without its database, silently. ASGI demands that the server
goes on in both; `--lifespan on` is for those who want neither.

`startup.failed` ends the worker with code 3 in either mode. Shutdown runs whenever startup
completed, whatever ended the serving.

The scope `framegate.worker` (`worker_scope.py`) is the same conversation under another name, so
what both say is written with the name as a parameter.

The call runs in a context of its own. Requests start from a copy of that context, taken after
startup, so context variables that a startup hook sets are visible in every handler.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
from collections.abc import MutableMapping
from typing import Any, ClassVar, Final

from framegate.config import LifespanMode
from framegate.errors import StartupFailed
from framegate.importer import Application

__all__ = ["Lifespan"]

logger: Final = logging.getLogger("framegate")

SPEC_VERSION: Final = "2.0"


class State(enum.Enum):
    """How far the application has come."""

    UNTOUCHED = "untouched"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    ENDED = "ended"


class Lifespan:
    """The lifespan of one application on one event loop.

    Args:
        application: The ASGI application.
        mode: `on`, `auto` or `off`.

    Attributes:
        state: The dictionary that the application fills; each request gets a shallow copy.
        context: Requests start from a copy of it.
        was_mistaken: Whether the application took the event for something else: it received it and
            ended without an answer, or answered as to a request.
    """

    _type: ClassVar[str] = "lifespan"
    _mode_option: ClassVar[str] = "--lifespan"
    _timeout_option: ClassVar[str] = "--timeout-startup"
    _failed: ClassVar[type[StartupFailed]] = StartupFailed
    _must_answer: ClassVar[bool] = False
    """Whether an end without an answer is a failure in mode auto, too."""

    def __init__(self, application: Application, mode: LifespanMode) -> None:
        self.state: dict[str, Any] = {}
        self.context: contextvars.Context = contextvars.copy_context()
        self.was_mistaken: bool = False
        self._application = application
        self._mode = mode
        self._phase = State.UNTOUCHED
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_off(self) -> bool:
        """Whether no events are sent."""
        return self._mode == "off"

    @property
    def is_known(self) -> bool:
        """Whether the application completed the startup and waits for the shutdown."""
        return self._phase is State.STARTED

    async def startup(self, timeout_seconds: float) -> None:
        """Send `lifespan.startup` and wait for the answer.

        Raises:
            StartupFailed: The application said so, or did not answer in time, or does not know
                lifespan and the mode is `on`.
        """
        if self._mode == "off":
            return
        self._inbox.put_nowait({"type": f"{self._type}.startup"})
        loop = asyncio.get_running_loop()
        name = f"framegate {self._type.removeprefix('framegate.')}"
        self._task = loop.create_task(self._run(), name=name, context=self.context)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._answered.wait()
        except TimeoutError:
            await self._abandon()
            raise self._failed(
                f"{self._type} startup did not finish within {timeout_seconds:g} s",
                fix=f"make it faster, or raise {self._timeout_option}",
            ) from None
        if self._failure is not None:
            await self._abandon()
            raise self._failed(
                f"{self._type} startup failed: {self._failure or 'no message given'}"
            )

    async def shutdown(self, timeout_seconds: float) -> bool:
        """Send `lifespan.shutdown` if startup completed, and wait for the answer.

        Returns:
            Whether the application shut down without a failure.
        """
        if self._phase is not State.STARTED:
            await self._abandon()
            return True
        self._phase = State.STOPPING
        self._answered.clear()
        self._inbox.put_nowait({"type": f"{self._type}.shutdown"})
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._answered.wait()
        except TimeoutError:
            logger.error("%s shutdown did not finish within %g s", self._type, timeout_seconds)
            await self._abandon()
            return False
        if self._failure is not None:
            text = self._failure or "no message given"
            logger.error("%s shutdown failed: %s", self._type, text)
        await self._abandon(grace_seconds=min(timeout_seconds, 1.0))
        return self._failure is None

    def _scope(self) -> MutableMapping[str, Any]:
        return {
            "type": self._type,
            "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
            "state": self.state,
        }

    async def _run(self) -> None:
        scope = self._scope()
        error: BaseException | None = None
        try:
            await self._application(scope, self._receive, self._send)
        except (Exception, SystemExit) as caught:  # sys.exit() must not skip everybody's cleanup
            error = caught
        self._ended(error)

    def _ended(self, error: BaseException | None) -> None:
        """Judge the end of the application's call; the table above."""
        phase, self._phase = self._phase, State.ENDED
        how = "returned" if error is None else f"raised {type(error).__name__}"
        match phase:
            case State.UNTOUCHED if self._mode == "on":
                logger.error("the application has no %s: it %s", self._type, how, exc_info=error)
                self._failure = f"the application {how} and {self._mode_option} on was given"
            case State.UNTOUCHED:
                logger.debug("the application has no %s: it %s", self._type, how)
            case State.STARTING if self._must_answer and self.was_mistaken and self._mode == "auto":
                logger.debug("the application took %s for a request: it %s", self._type, how)
            case State.STARTING:
                logger.error("the application %s in %s startup", how, self._type, exc_info=error)
                if self._must_answer or self._mode == "on" or isinstance(error, SystemExit):
                    self._failure = f"the application {how}"
                self.was_mistaken = True
            case State.STARTED:
                logger.error("the %s %s while serving", self._type, how, exc_info=error)
            case State.STOPPING if error is not None:
                logger.error("the application %s in %s shutdown", how, self._type, exc_info=error)
                self._failure = f"the application {how}"
            case _:
                pass  # after its own `.complete` or `.failed` message the end says nothing new
        self._answered.set()

    async def _receive(self) -> MutableMapping[str, Any]:
        message = await self._inbox.get()
        if self._phase is State.UNTOUCHED:
            self._phase = State.STARTING
        return message

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = str(message["type"])
        if not kind.startswith(f"{self._type}."):
            self.was_mistaken = True
        match kind.removeprefix(f"{self._type}."), self._phase:
            # UNTOUCHED: an application may complete the startup without having received it.
            case "startup.complete", State.UNTOUCHED | State.STARTING:
                self._phase = State.STARTED
            case "startup.failed", State.UNTOUCHED | State.STARTING:
                self._failure = str(message.get("message", ""))
                self._phase = State.ENDED
            case "shutdown.complete", State.STOPPING:
                pass
            case "shutdown.failed", State.STOPPING:
                self._failure = str(message.get("message", ""))
            case _, phase:
                raise RuntimeError(f"{kind} does not fit: the {self._type} is {phase.value}")
        self._answered.set()

    async def _abandon(self, grace_seconds: float = 0.0) -> None:
        """Let the application's call end by itself for a while, then cancel it."""
        if self._task is None:
            return
        done, _ = await asyncio.wait({self._task}, timeout=grace_seconds)
        if not done:
            self._task.cancel()
            # Bounded: an application may swallow the cancellation.
            await asyncio.wait({self._task}, timeout=1.0)
        self._task = None
