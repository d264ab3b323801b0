"""Calls across machines: a request is a query of Zenoh, its reply the answer.

On the host of the responder the bridge is a caller: a queryable, and threads that wait for replies.
On the host of the caller it is a responder, of a topic like the one there. Each side has as many
calls in flight as it may; further ones are refused there, and wait in the mailbox here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from framegate import shm
from framegate.bridge import wire
from framegate.bridge.frames import PARTICIPANT
from framegate.bridge.options import FRAME_BYTES_MAX, Call
from framegate.calls import Caller, Request, Responder
from framegate.errors import ClosedError, FrameTooLarge, ShmError, ShmTimeout

__all__ = ["Answered", "Asked", "Called", "Offered"]

CALLS_MAX: Final = 16
"""Calls in flight of a topic, on either side: each has a thread there."""

FOREVER_S: Final = 86_400.0
"""A caller that never gives up is given up here: the host may be gone for good."""

POLL_S: Final = 0.5
"""How often a responder looks whether it shall end."""

log: Final = logging.getLogger("framegate.bridge")


@dataclass(slots=True)
class Answered:
    """What became of calls that came from other hosts."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0


@dataclass(slots=True)
class Asked:
    """What became of calls that went to another host."""

    asked: int = 0
    answered: int = 0
    failed: int = 0


class Offered:
    """A topic of this host whose responders others may call.

    Args:
        zenoh: The module.
        session: Its session.
        key: Key of the calls.
        topic: The topic; closed with this.
        host_id: Of this host.
        stream: Random, of this object.
        calls_max: Calls at once.
    """

    def __init__(
        self,
        zenoh: Any,
        session: Any,
        key: str,
        topic: shm.Topic,
        host_id: bytes,
        stream: bytes,
        calls_max: int,
    ) -> None:
        self.topic = topic
        self.stream = stream
        self.identity: str = shm.inspect(topic.name).identity
        self.counts: Answered = Answered()
        self._key = key
        self._host_id = host_id
        self._lock = threading.Lock()
        self._caller = Caller(topic, name=PARTICIPANT)
        self._turns = threading.BoundedSemaphore(calls_max)
        self._pool = ThreadPoolExecutor(calls_max, f"bridge {topic.name}")
        self._queryable = session.declare_queryable(
            key,
            zenoh.handlers.Callback(self._on_query, indirect=False),
            complete=True,  # of several bridges on the host one is asked
        )

    def _on_query(self, query: Any) -> None:
        """Called by Zenoh's thread: must not wait."""
        try:
            with self._lock:
                self.counts.asked += 1
            if self._turns.acquire(blocking=False):
                try:
                    self._pool.submit(self._answer, query)
                    return
                except RuntimeError:  # the pool is shut down
                    self._turns.release()
            with self._lock:
                self.counts.refused += 1
            _refuse(query, "CallsExhausted: the bridge has as many calls in flight as it may")
        except Exception as error:
            log.warning('bridge: a call of "%s": %s', self.topic.name, error)

    def _answer(self, query: Any) -> None:
        try:
            try:
                payload, attachment = self._call(query)
            except Exception as error:
                problem = error.problem if isinstance(error, ShmError) else str(error)
                is_answer = False
                _refuse(query, f"{type(error).__name__}: {problem}")
            else:
                is_answer = True
                query.reply(self._key, payload, attachment=attachment)
                query.drop()
            with self._lock:
                self.counts.answered += is_answer
                self.counts.failed += not is_answer
        except Exception as error:  # zenoh.ZError: whoever asked is gone
            log.info('bridge: a call of "%s" has no answer: %s', self.topic.name, error)
        finally:
            self._turns.release()

    def _call(self, query: Any) -> tuple[bytes, bytes]:
        given = query.attachment
        head, tail_bytes = wire.head_of(b"" if given is None else bytes(given))
        tail = wire.tail_of(tail_bytes)
        payload = b"" if query.payload is None else bytes(query.payload)
        data = wire.message_of(payload, tail.layout)
        message = self._caller.call(
            data,
            timeout=head.number / 1000 if head.number else FOREVER_S,
            timestamp=head.timestamp,
            metadata=tail.metadata or None,
            content_type=tail.content_type,
        )
        with message:
            return _written(message, self._host_id, self.stream, 0)

    def status(self) -> dict[str, Any]:
        """The counts, and what they are of."""
        with self._lock:
            return {"topic": self.topic.name, **asdict(self.counts)}

    def close(self) -> None:
        """Answer no more; calls that are under way end with `ClosedError`."""
        with contextlib.suppress(Exception):  # the session may be closed
            self._queryable.undeclare()
        self._caller.close()
        self._pool.shutdown()
        self.topic.close()


def _refuse(query: Any, text: str) -> None:
    query.reply_err(json.dumps({"error": text}).encode())
    query.drop()


def _written(message: Any, host_id: bytes, stream: bytes, number: int) -> tuple[bytes, bytes]:
    """A request or a reply as payload and attachment."""
    if message.nbytes > FRAME_BYTES_MAX:
        raise FrameTooLarge(f"a message of {message.nbytes} bytes; {FRAME_BYTES_MAX} may cross")
    payload, layout = wire.message_to(message)
    tail = wire.Tail(layout, message.metadata, message.content_type)
    unix_ns = message.published_ns + time.time_ns() - time.monotonic_ns()
    head = wire.Head(wire.MESSAGE, host_id, stream, number, 0, unix_ns, message.timestamp)
    return payload, wire.head_to(head, wire.tail_to(tail))


class Called:
    """A topic here whose calls go to another host.

    Args:
        zenoh: The module.
        session: Its session.
        name: Name of the topic here.
        rule: How it is called.
        topic: The topic; closed with this.
        host_id: Of this host.
        calls_max: Calls at once.
    """

    def __init__(
        self,
        zenoh: Any,
        session: Any,
        name: str,
        rule: Call,
        topic: shm.Topic,
        host_id: bytes,
        calls_max: int,
    ) -> None:
        self.name = name
        self.rule = rule
        self.topic = topic
        self.identity: str = shm.inspect(name).identity
        self.source: str = ""
        self.counts: Asked = Asked()
        self._zenoh = zenoh
        self._session = session
        self._host_id = host_id
        self._stream = bytes(16)
        self._key = ""
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(calls_max)
        self._responder = Responder(topic, max_requests=calls_max, name=PARTICIPANT)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"bridge {name}", daemon=True)

    def follow(self, stream: bytes, source: str, sequence: int = 0) -> None:
        """From now on it is this stream that is asked."""
        self._stream, self.source = stream, source

    def listen(self, zenoh: Any, session: Any, key: str) -> None:
        """Let calls go, to that key."""
        self._key = key
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            if not self._turns.acquire(timeout=POLL_S):
                continue
            try:
                request = self._responder.take(timeout=POLL_S)
            except ClosedError:
                return
            except ShmError as error:
                log.warning('bridge: calls of "%s": %s', self.name, error.problem)
                time.sleep(POLL_S)
                request = None
            if request is None:
                self._turns.release()
            else:
                self._ask(request)

    def _ask(self, request: Request) -> None:
        with self._lock:
            self.counts.asked += 1
        left = request.time_left
        wait = FOREVER_S if left is None else max(left, 0.001)
        pending = _Pending(self, request)
        try:
            milliseconds = 0 if left is None else max(1, int(wait * 1000))
            payload, attachment = _written(request, self._host_id, self._stream, milliseconds)
            self._session.get(
                self._key,
                self._zenoh.handlers.Callback(pending.on_reply, pending.on_end, indirect=False),
                payload=payload,
                attachment=attachment,
                timeout=wait,
            )
        except Exception as error:
            problem = error.problem if isinstance(error, ShmError) else str(error)
            pending.fail(f"{type(error).__name__}: {problem}")
            pending.on_end()

    def ended(self, is_answered: bool) -> None:
        """A call is over."""
        with self._lock:
            self.counts.answered += is_answered
            self.counts.failed += not is_answered
        self._turns.release()

    def status(self) -> dict[str, Any]:
        """The counts, and what they are of."""
        with self._lock:
            return {"topic": self.name, **asdict(self.counts)}

    def close(self) -> None:
        """Take no more calls."""
        self._closed = True
        self._responder.close()
        if self._thread.is_alive():
            self._thread.join()
        self.topic.close()


class _Pending:
    """A request that waits for another host. Called by Zenoh's threads, which must not wait."""

    def __init__(self, called: Called, request: Request) -> None:
        self._called = called
        self._request: Request | None = request
        self._lock = threading.Lock()
        self._is_answered = False
        self._has_ended = False

    def on_reply(self, reply: Any) -> None:
        try:
            if reply.ok is None:
                self.fail(_complaint(bytes(reply.err.payload)))
                return
            sample = reply.ok
            given = sample.attachment
            head, tail_bytes = wire.head_of(b"" if given is None else bytes(given))
            tail = wire.tail_of(tail_bytes)
            data = wire.message_of(bytes(sample.payload), tail.layout)
            with self._lock:
                if self._request is None or self._request.answered:
                    return
                self._request.reply(
                    data,
                    timestamp=head.timestamp,
                    metadata=tail.metadata or None,
                    content_type=tail.content_type,
                    timeout=0,  # this is Zenoh's thread
                )
                self._is_answered = True
        except Exception as error:
            problem = error.problem if isinstance(error, ShmError) else str(error)
            self.fail(f"{type(error).__name__}: {problem}")

    def fail(self, text: str) -> None:
        """Tell the caller, unless it has an answer."""
        with self._lock:
            if self._request is not None and not self._request.answered:
                with contextlib.suppress(ShmError):  # the caller's own time-out tells it
                    self._request.fail(text[:190].encode("ascii", "replace").decode())

    def on_end(self) -> None:
        """No more replies come."""
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
        self.fail("NoResponder: the bridge got no answer: the other host is gone, or has none")
        with self._lock:
            if self._request is not None:
                with contextlib.suppress(BufferError, ShmError):
                    self._request.release()
            self._request = None
        self._called.ended(self._is_answered)


def _complaint(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["error"])
    except (ValueError, TypeError, KeyError):
        # Zenoh's own: "Timeout".
        return f"{ShmTimeout.__name__}: {payload[:100].decode(errors='replace')}"
