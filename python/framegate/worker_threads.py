"""Several workers in one process: a thread, an event loop and a lifespan each.

For a Python without the GIL (`threading_model.py`). The first worker has the main thread, because
signals arrive there; the others have threads of their own. To whoever stops, retires or reloads
them they are one worker (`WorkerThreads`):

- ready is when all are ready; if one does not start, none serves;
- when one ends, whatever the reason, all are asked to stop;
- the end is when the last one has ended.

What they share is the application and what it imports, nothing else: each has its loop, its core,
its sockets (`shares`), its row of the runtime segment.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from framegate.listener import KindCounts, by_kind

if TYPE_CHECKING:
    from framegate.worker import Worker

__all__ = ["AllOf", "AllReady", "Share", "WorkerThreads", "shares"]


def shares(sockets: Sequence[socket.socket], count: int) -> list[list[socket.socket]]:
    """Deal sockets to workers, each of which closes what it gets.

    Of an address with one socket per worker (SO_REUSEPORT) everybody gets one, in turn. What is
    there once everybody gets, as a duplicate.
    """
    dealt: list[list[socket.socket]] = [[] for _ in range(count)]
    seen: dict[object, int] = {}
    for item in sockets:
        if _is_one_of_many(item):
            address = (item.family, item.getsockname())
            turn = seen.get(address, 0)
            seen[address] = turn + 1
            dealt[turn % count].append(item)
        else:
            for others in dealt[1:]:
                others.append(item.dup())
            dealt[0].append(item)
    return dealt


class Share(NamedTuple):
    """The sockets of one worker.

    Attributes:
        sockets: All kinds, one behind the other.
        counts: How many are of what kind.
    """

    sockets: Sequence[socket.socket]
    counts: KindCounts

    def deal(self, count: int) -> list[Share]:
        """Give each of so many workers its share."""
        kinds = [shares(part, count) for part in by_kind(*self)]
        return [
            Share(
                [item for kind in ours for item in kind],
                KindCounts(*(len(kind) for kind in ours[1:])),
            )
            for ours in zip(*kinds, strict=True)
        ]


def _is_one_of_many(item: socket.socket) -> bool:
    if item.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    with contextlib.suppress(OSError):
        return bool(item.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    return False


class AllOf:
    """Set when all events are.

    Args:
        events: Which.
    """

    def __init__(self, events: Sequence[threading.Event]) -> None:
        self._events = events

    def wait(self, seconds: float) -> bool:
        """Wait for the last one; return whether it came in time."""
        end = time.monotonic() + seconds
        return all(event.wait(max(0.0, end - time.monotonic())) for event in self._events)


class AllReady:
    """Calls something when everybody has said that he is ready.

    Args:
        count: How many there are.
        then: What to call, once.
    """

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._missing = count
        self._then = then

    def __call__(self) -> None:
        """One more is ready."""
        with self._lock:
            self._missing -= 1
            is_last = self._missing == 0
        if is_last:
            self._then()


class WorkerThreads:
    """Workers that are one to everybody else.

    Args:
        workers: Who; the first one serves on the thread that calls `serve`.
        new_event_loop: Makes the loops of the others.

    Attributes:
        accepts_no_more: Set once the sockets of all are closed.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        new_event_loop: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self._workers = workers
        self._new_event_loop = new_event_loop
        self._errors: list[BaseException] = []
        self._results: list[bool] = []
        self._has_ended = threading.Event()
        self.accepts_no_more: AllOf = AllOf([worker.accepts_no_more for worker in workers])

    @property
    def has_worker_scope(self) -> bool:
        """Whether any of them has a shutdown of `framegate.worker` to do."""
        return any(worker.has_worker_scope for worker in self._workers)

    def stop(self) -> None:
        """Ask all to stop, from any thread or signal handler; a second time, to hurry."""
        for worker in self._workers:
            worker.stop()

    def retire(self) -> None:
        """Have all know that others accept already."""
        for worker in self._workers:
            worker.retire()

    def reload_tls(self) -> None:
        """Have all read certificates and keys anew."""
        for worker in self._workers:
            worker.reload_tls()

    def reopen_log(self) -> None:
        """Have all open the file of the access log anew."""
        for worker in self._workers:
            worker.reopen_log()

    def adopt(self, sockets: Sequence[socket.socket], counts: KindCounts) -> None:
        """Accept from more sockets; they are in the order of all others."""
        whole = Share(sockets, counts)
        for worker, share in zip(self._workers, whole.deal(len(self._workers)), strict=True):
            worker.adopt(*share)

    async def serve(self) -> bool:
        """Serve until all have stopped.

        Returns:
            Whether the application's own shutdown succeeded in all of them.

        Raises:
            FramegateError: One of them failed: what it raised.
        """
        threads = [
            threading.Thread(
                target=self._serve_alone, args=(worker,), name=f"framegate worker {number}"
            )
            for number, worker in enumerate(self._workers[1:], 2)
        ]
        for thread in threads:
            thread.start()
        try:
            self._results.append(await self._workers[0].serve())
        except BaseException as error:
            self._errors.insert(0, error)
        self._one_has_ended()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        if self._errors:
            raise self._errors[0]
        return all(self._results)

    def _serve_alone(self, worker: Worker) -> None:
        try:
            with asyncio.Runner(loop_factory=self._new_event_loop) as runner:
                self._results.append(runner.run(worker.serve()))
        except BaseException as error:
            self._errors.append(error)
        self._one_has_ended()

    def _one_has_ended(self) -> None:
        """A server with fewer loops than it says would be a riddle: the supervisor starts anew."""
        if not self._has_ended.is_set():
            self._has_ended.set()
            for worker in self._workers:
                if not worker.is_stopping:
                    worker.stop()
