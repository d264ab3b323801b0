"""Calls between processes: a request and its reply, both in shared memory.

```python
with framegate.Responder("resize") as responder:  # one process, or several that share the work
    for request in responder:
        request.reply(shrink(request.array))

small = framegate.call("resize", picture, timeout=2).array  # another process
```

A request goes to one responder of the topic, the one that has the least to do. Neither requests nor
replies are frames of the topic: subscribers do not see them, and they may be bytes or arrays of any
kind that fits into a slot. Nothing is ever lost in silence: a call ends with its reply, or with
`NoResponder`, `MailboxFull`, `ResponderDied`, `CallFailed` or `ShmTimeout`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from framegate import _shm
from framegate._shm import Message, Request
from framegate.errors import (
    CallsExhausted,
    ClosedError,
    ShmArgumentError,
    ShmError,
    ShmTimeout,
    TopicFull,
    TopicNotFound,
)
from framegate.shm import (
    Topic,
    TopicOptions,
    _checkpoint,
    _EventFd,
    _in_trio,
    _own_name,
    _sleep,
)

if TYPE_CHECKING:
    from typing import Self, Unpack

__all__ = ["Caller", "Message", "Request", "Responder", "call", "call_async"]

TIMEOUT_S = 5.0
"""How long a call may take unless it says otherwise: for ever is no good default between processes.
"""

RETRY_S = 0.002
"""How often a task looks for a free slot: nothing readable tells an event loop that there is one.
"""

WAIT_SLICE_S = 1.0
"""How long a trio task waits before it looks whether its handle was closed."""

SLOTS = 16
"""Slots of a topic that a responder creates: a call occupies two."""

SLOT_BYTES = 1024 * 1024
"""Slot size of a topic that a responder creates."""

log: logging.Logger = logging.getLogger("framegate.calls")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _deadline(timeout: float | None) -> float | None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, 0 or more, or None, not {timeout}")
    return None if timeout is None else time.monotonic() + timeout


class _Mail:
    """Waiting for the descriptor of a caller or responder: any number of tasks of one loop."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = _EventFd()

    async def wait(self, fileno: int, timeout: float | None) -> None:
        """Return when something may have come, or the time is over."""
        if not _in_trio():
            await self._event.wait_readable(fileno, timeout)
            return
        # trio lets one task wait for a descriptor, so each brings its own.
        trio = sys.modules["trio"]
        copy = os.dup(fileno)
        try:
            seconds = WAIT_SLICE_S if timeout is None else min(timeout, WAIT_SLICE_S)
            with trio.move_on_after(seconds):
                await trio.lowlevel.wait_readable(copy)
        finally:
            os.close(copy)

    def close(self) -> None:
        self._event.close()


class Caller(_shm.Caller):
    """The asking side of a topic.

    May be used from several threads, and from the tasks of one event loop (any asyncio loop, or
    trio). A context manager.

    Args:
        topic: Name of the topic, or an open `Topic`.
        max_calls: Calls in flight at once; further ones wait for their turn. By default as many as
            fit into half of the slots, since each occupies one or two.
        wait: Seconds to wait for somebody to create the topic; None waits for ever.
        name: What inspectors show for this caller; by default the name of the program.

    Raises:
        TopicNotFound: There is no such topic.
        ParticipantsExhausted: The topic has no room for one more.
    """

    def __init__(
        self,
        topic: str | Topic,
        *,
        max_calls: int | None = None,
        wait: float | None = 0.0,
        name: str | None = None,
    ) -> None:
        if max_calls is not None and max_calls < 1:
            raise ShmArgumentError(f"max_calls is at least 1, not {max_calls}")
        opened = Topic.open(topic, wait=wait) if isinstance(topic, str) else topic
        try:
            turns = max_calls or max(1, opened.slots // 2 - 1)
            super().__init__(
                opened._native,
                calls_max=max_calls or 0,
                name=_own_name() if name is None else name,
            )
        finally:
            if opened is not topic:
                opened.close()
        self.max_calls = turns
        self._turns = threading.Semaphore(turns)
        self._loop_turns: Any = None
        self._loop: Any = None
        self._mail = _Mail()

    def call(
        self,
        data: Any = b"",
        *,
        timeout: float | None = TIMEOUT_S,
        timestamp: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> Message:
        """Ask a responder and wait for its reply.

        Args:
            data: Bytes, an array, or a mapping of name to array, copied once.
            timeout: Seconds until the reply, waiting for a turn and a slot included; None waits
                for ever.
            timestamp: A time of the application in seconds.
            metadata: A small mapping that travels beside it.
            content_type: Media type of the payload, when it is encoded.

        Returns:
            The reply.

        Raises:
            NoResponder: Nobody answers calls on this topic.
            MailboxFull: All responders have as many requests waiting as they can.
            ResponderDied: The responder died or closed before it answered.
            CallFailed: The responder says why.
            ShmTimeout: The reply did not come in time.
            TopicFull: No slot became free in time.
        """
        deadline = _deadline(timeout)
        if not self._turns.acquire(timeout=_left(deadline)):
            raise self._no_turn(timeout)
        try:
            left = _left(deadline)
            number = self._start(data, left, left, timestamp, metadata, content_type)
            return self._wait(number)
        finally:
            self._turns.release()

    async def call_async(
        self,
        data: Any = b"",
        *,
        timeout: float | None = TIMEOUT_S,
        timestamp: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> Message:
        """As `call`, on an event loop. Cancelling the task takes the request back.

        Args:
            data: As for `call`.
            timeout: As for `call`.
            timestamp: As for `call`.
            metadata: As for `call`.
            content_type: As for `call`.

        Raises:
            ShmError: As `call`.
        """
        deadline = _deadline(timeout)
        turns = await self._await_turn(deadline, timeout)
        number = 0
        try:
            while not number:
                left = _left(deadline)
                try:
                    number = self._start(data, left, 0.0, timestamp, metadata, content_type)
                except (TopicFull, CallsExhausted):
                    if left == 0:
                        raise
                    await _sleep(RETRY_S)
            return await self._answer(number, deadline)
        except BaseException:
            self._cancel(number)  # harmless for one that is over
            raise
        finally:
            turns.release()

    async def _await_turn(self, deadline: float | None, timeout: float | None) -> Any:
        """Take a turn of this event loop; the semaphore to release."""
        in_trio = _in_trio()
        if in_trio:
            trio = sys.modules["trio"]
            here = trio.lowlevel.current_trio_token()
            kind, limit = trio.Semaphore, trio.move_on_after
        else:
            import asyncio

            here = asyncio.get_running_loop()
            kind, limit = asyncio.Semaphore, asyncio.timeout
        if self._loop is not here:
            self._loop, self._loop_turns = here, kind(self.max_calls)
        turns, taken, left = self._loop_turns, False, _left(deadline)
        with contextlib.suppress(TimeoutError):
            if left is None:
                await turns.acquire()
                taken = True
            elif not in_trio:
                async with limit(left):
                    await turns.acquire()
                    taken = True
            else:
                with limit(left):
                    await turns.acquire()
                    taken = True
        if not taken:
            raise self._no_turn(timeout)
        return turns

    async def _answer(self, number: int, deadline: float | None) -> Message:
        fileno = self.fileno()
        while True:
            reply = self._poll(number)
            if reply is not None:
                return reply
            # Arm, then look once more: a letter that came in between has made nothing readable.
            if not self.arm():
                left = _left(deadline)
                await self._mail.wait(fileno, None if left is None else left + 0.001)
                if self.closed:
                    raise ClosedError(f'this caller of topic "{self.topic}" was closed')
                self.drain()

    def _no_turn(self, timeout: float | None) -> ShmTimeout:
        return ShmTimeout(
            f'topic "{self.topic}": the call had no turn within {timeout} s',
            cause=f"{self.max_calls} others of this caller are in flight",
            fix="raise max_calls (and the slots of the topic), or start more responders",
        )

    def close(self) -> None:
        """Leave the topic: calls in flight end with `ClosedError`, replies stay valid."""
        super().close()
        self._mail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Caller of {self.topic!r}>"


class Responder(_shm.Responder):
    """The answering side of a topic. Several share its requests.

    Requests come by `take()`, iteration, `take_async()` and `async for`, or go to a handler by
    `serve()` and `serve_async()`. A context manager.

    Args:
        topic: Name of the topic, or an open `Topic`. If there is none, it is created: with
            16 slots of 1 MiB for messages of any kind, unless options say otherwise.
        max_requests: Requests that may wait for their answers at once.
        name: What inspectors show for this responder; by default the name of the program.
        **options: What to create the topic with if there is none: see `TopicOptions`.

    Raises:
        ParticipantsExhausted: The topic has no room for one more.
        SchemaMismatch: The topic exists with other arrays than those asked for.
    """

    def __init__(
        self,
        topic: str | Topic,
        *,
        max_requests: int | None = None,
        name: str | None = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        if max_requests is not None and max_requests < 1:
            raise ShmArgumentError(f"max_requests is at least 1, not {max_requests}")
        if isinstance(topic, Topic):
            opened = topic
        else:
            opened = _open_or_create(topic, options)
        try:
            super().__init__(
                opened._native,
                requests_max=max_requests or 0,
                name=_own_name() if name is None else name,
            )
        finally:
            if opened is not topic:
                opened.close()
        self._mail = _Mail()

    def try_take(self) -> Request | None:
        """Take the next request, or return None when there is none yet."""
        return self.take(timeout=0.0)

    async def take_async(self, *, timeout: float | None = None) -> Request | None:
        """As `take`, on an event loop: any asyncio loop with `add_reader`, or trio.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Returns:
            The request, or None when none came in time.

        Raises:
            LeaseQuotaExceeded: `max_requests` requests wait for their answers.
            ClosedError: The responder was closed.
        """
        deadline = _deadline(timeout)
        request = self.try_take()
        if request is not None:
            return request
        fileno = self.fileno()
        while True:
            if not self.arm():
                left = _left(deadline)
                if left == 0:
                    return None
                await self._mail.wait(fileno, left)
                if self.closed:
                    raise ClosedError(f'this responder of topic "{self.topic}" was closed')
                self.drain()
            request = self.try_take()
            if request is not None:
                return request

    def serve(self, handler: Callable[[Request], Any]) -> None:
        """Answer every request with what `handler` returns for it, until closed.

        An exception of the handler is the caller's `CallFailed`, and is logged here. A handler may
        also answer by itself.

        Args:
            handler: Gets the request; returns bytes, an array, a mapping of arrays, or None for an
                empty reply.
        """
        for request in self:
            with request:
                _answer(request, handler)

    async def serve_async(
        self, handler: Callable[[Request], Awaitable[Any]], *, concurrency: int = 16
    ) -> None:
        """As `serve`, for a coroutine function, with several requests at a time.

        Args:
            handler: Awaited with the request; returns as for `serve`.
            concurrency: Requests that are handled at once.
        """
        if concurrency < 1:
            raise ShmArgumentError(f"concurrency is at least 1, not {concurrency}")
        if _in_trio():
            trio = sys.modules["trio"]
            turns = trio.Semaphore(concurrency)
            async with trio.open_nursery() as nursery:
                await self._hand_out(handler, turns, nursery.start_soon)
            return
        import asyncio

        turns = asyncio.Semaphore(concurrency)
        async with asyncio.TaskGroup() as group:
            await self._hand_out(
                handler, turns, lambda run, *values: group.create_task(run(*values))
            )

    async def _hand_out(
        self, handler: Callable[[Request], Awaitable[Any]], turns: Any, start: Callable[..., Any]
    ) -> None:
        await turns.acquire()
        async for request in self:
            start(_handle, request, handler, turns)
            await turns.acquire()

    def __iter__(self) -> Iterator[Request]:
        """Requests as they come, until the responder is closed."""
        return self

    def __aiter__(self) -> AsyncIterator[Request]:
        """Requests as they come, until the responder is closed."""
        return self

    async def __anext__(self) -> Request:
        await _checkpoint()  # callers faster than this loop must not starve its other tasks
        try:
            request = await self.take_async()
        except ClosedError:
            raise StopAsyncIteration from None
        assert request is not None
        return request

    def close(self) -> None:
        """Take no more requests and fail those that nobody took; taken ones can be answered."""
        super().close()
        self._mail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Responder of {self.topic!r}>"


def _open_or_create(topic: str, options: TopicOptions) -> Topic:
    says_what = ("dtype", "shape", "arrays", "slot_bytes")
    if not any(options.get(option) is not None for option in says_what):
        with contextlib.suppress(TopicNotFound):
            return Topic.open(topic)
        options = options.copy()
        options["slot_bytes"] = SLOT_BYTES
    options.setdefault("slots", SLOTS)
    return Topic.open_or_create(topic, **options)


def _answer(request: Request, handler: Callable[[Request], Any]) -> None:
    """By a function: what it returns may be a view of the request, and ends with it."""
    try:
        answer = handler(request)
        if not request.answered:
            left = request.time_left
            timeout = None if left is None else max(left, 0.0)
            request.reply(b"" if answer is None else answer, timeout=timeout)
    except Exception as error:
        _fail(request, error)


def _fail(request: Request, error: Exception) -> None:
    log.error("a request failed", exc_info=error)
    if not request.answered:
        text = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
        with contextlib.suppress(ShmError):  # the caller's own time-out tells it
            request.fail(text)


async def _handle(
    request: Request, handler: Callable[[Request], Awaitable[Any]], turns: Any
) -> None:
    try:
        with request:
            try:
                answer = await handler(request)
                while not request.answered:
                    try:
                        request.reply(b"" if answer is None else answer, timeout=0)
                    except TopicFull:
                        if (left := request.time_left) is not None and left <= 0:
                            raise
                        await _sleep(RETRY_S)
            except Exception as error:
                _fail(request, error)
    finally:
        turns.release()


def call(
    topic: str | Topic,
    data: Any = b"",
    *,
    timeout: float | None = TIMEOUT_S,
    timestamp: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    content_type: str | None = None,
) -> Message:
    """Ask a responder of a topic once; a `Caller` is faster for more.

    Args:
        topic: Name of the topic, or an open `Topic`.
        data: Bytes, an array, or a mapping of name to array.
        timeout: Seconds until the reply; None waits for ever.
        timestamp: A time of the application in seconds.
        metadata: A small mapping that travels beside it.
        content_type: Media type of the payload, when it is encoded.

    Raises:
        TopicNotFound: There is no such topic.
        ShmError: As `Caller.call`.
    """
    with Caller(topic) as caller:
        return caller.call(
            data,
            timeout=timeout,
            timestamp=timestamp,
            metadata=metadata,
            content_type=content_type,
        )


async def call_async(
    topic: str | Topic,
    data: Any = b"",
    *,
    timeout: float | None = TIMEOUT_S,
    timestamp: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    content_type: str | None = None,
) -> Message:
    """As `call`, on an event loop.

    Args:
        topic: As for `call`.
        data: As for `call`.
        timeout: As for `call`.
        timestamp: As for `call`.
        metadata: As for `call`.
        content_type: As for `call`.

    Raises:
        ShmError: As `call`.
    """
    with Caller(topic) as caller:
        return await caller.call_async(
            data,
            timeout=timeout,
            timestamp=timestamp,
            metadata=metadata,
            content_type=content_type,
        )
