"""The ASGI scope `framegate.worker`: one call of the application around the life of each worker.

Lifespan, too, runs in every worker, but does not say in which. This scope does, for what exists
once per server (a scheduler in worker 0) or once per worker (a pinned device, a port of its own):

    {"type": "framegate.worker", "asgi": {...}, "state": {...},
     "worker": {"index": 0, "count": 4, "generation": 0, "pid": 812}}

The messages are those of the lifespan under another name: `framegate.worker.startup`, answered by
`.startup.complete` or `.startup.failed` with a `message`; then `framegate.worker.shutdown`. It runs
inside the lifespan:

    lifespan startup -> worker startup -> accept ... drain -> worker shutdown -> lifespan shutdown

`state` is the lifespan's, and context variables that it sets reach the requests as well.

What the end of the call means:

| the application                                  | in mode auto                | in mode on |
|--------------------------------------------------|-----------------------------|------------|
| ends and never received the startup event        | not known: serve            | failed     |
| answers as to a request (`http.response.start`)  | not known: serve            | failed     |
| ends after it received it, without an answer     | failed                      | failed     |
| sends `.startup.failed`, or is late              | failed                      | failed     |
| ends while serving                               | log as error, serve         | the same   |
| raises in shutdown, fails it, or is late         | log as error, exit code 1   | the same   |

A worker that failed never accepts. Under a supervisor that counts like a crash: it is started again
within the budget of restarts, because one worker's device may be free in a moment. On its own the
process ends with code 3.

In mode auto the event is not sent to an application that took the lifespan's for something else
(a request, most often), nor with `--lifespan off`, which is how such applications are served: they
would fail for a scope that they never heard of. The second row is for those that know lifespan and
take every other scope for a request.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from framegate.config import LifespanMode
from framegate.errors import StartupFailed, WorkerStartFailed
from framegate.importer import Application
from framegate.lifespan import Lifespan

__all__ = ["WorkerPlace", "WorkerScope"]


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker it is.

    Attributes:
        index: From 0; a worker that replaces another has its index.
        count: How many there are.
        generation: How many workers of that index there were before.
    """

    index: int = 0
    count: int = 1
    generation: int = 0

    def after(self, number: int) -> WorkerPlace:
        """Return the place so many after this one."""
        return replace(self, index=self.index + number)


class WorkerScope(Lifespan):
    """The scope of one worker, on its event loop.

    Args:
        application: The ASGI application.
        mode: `on`, `auto` or `off`.
        lifespan: That of the same worker, after its startup.
        place: Which worker it is.
    """

    _type: ClassVar[str] = "framegate.worker"
    _mode_option: ClassVar[str] = "--worker-scope"
    _timeout_option: ClassVar[str] = "--timeout-worker-startup"
    _failed: ClassVar[type[StartupFailed]] = WorkerStartFailed
    _must_answer: ClassVar[bool] = True

    def __init__(
        self,
        application: Application,
        mode: LifespanMode,
        lifespan: Lifespan,
        place: WorkerPlace,
    ) -> None:
        if mode == "auto" and (lifespan.was_mistaken or lifespan.is_off):
            mode = "off"
        super().__init__(application, mode)
        self.state: dict[str, Any] = lifespan.state
        self.context: contextvars.Context = lifespan.context
        self._place = place

    def _scope(self) -> MutableMapping[str, Any]:
        worker = {
            "index": self._place.index,
            "count": self._place.count,
            "generation": self._place.generation,
            "pid": os.getpid(),
        }
        return {**super()._scope(), "worker": worker}
