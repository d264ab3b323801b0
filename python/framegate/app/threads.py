"""Where handlers that are not coroutines run: threads, and a bounded queue before them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from framegate.app.answers import Problem

if TYPE_CHECKING:
    from framegate._http import HandlerQueue

__all__ = ["HandlerThreads"]


class HandlerThreads:
    """Threads for blocking handlers.

    Args:
        threads_max: How many run at once.
        queue_max: How many may wait; the next is answered with 503 and `Retry-After`.
    """

    def __init__(self, threads_max: int, queue_max: int) -> None:
        self.threads_max = threads_max
        self.queue_max = queue_max
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @functools.cached_property
    def queue(self) -> HandlerQueue:
        """How many run, wait and were refused, where the metrics find it."""
        from framegate._http import HandlerQueue

        return HandlerQueue(self.threads_max, self.queue_max)

    @property
    def running(self) -> int:
        """How many run."""
        return self.queue.running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self.queue.waiting

    async def run(self, handler: Callable[..., Any], /, *positional: Any, **named: Any) -> Any:
        """Call a handler in a thread, in a copy of this context.

        Raises:
            Problem: As many wait as may (503).
        """
        call = functools.partial(contextvars.copy_context().run, handler, *positional, **named)
        if not self.queue.enter():
            raise Problem(
                503, "as many requests wait for a thread as may", headers={"retry-after": "1"}
            )
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self.threads_max, "framegate-handler")
                future = self._pool.submit(call)
        except BaseException:
            self.queue.leave()
            raise
        future.add_done_callback(self._ended)
        return await asyncio.wrap_future(future)

    def _ended(self, _: Future[Any]) -> None:
        self.queue.leave()

    def close(self) -> None:
        """Let the threads end; what waits is given up."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
