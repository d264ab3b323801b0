"""One topic on its way out, one on its way in.

Out: a thread takes frames as any subscriber does and puts them. While nobody in the network listens
it is no subscriber at all. A link that takes no more blocks this thread and nobody else: what is
published meanwhile stays in the slots or is lost there, by the policy, and is counted.

In: Zenoh's own thread calls with each message; its bytes are copied into a loaned slot then and
there. Nothing waits: where no slot is free the frame is dropped and counted. So memory is bounded
by Zenoh's queues (some batches of 64 KiB per link) and one message of each topic.

What is counted adds up, on either side:

    published there = sent + lost + limited + oversize + corrupt     (while somebody listened)
    sent            = before + received + lost                       (of the host that sends)
    received        = published + limited + oversize + full + refused + repeated
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from framegate import shm
from framegate.bridge import wire
from framegate.bridge.lent import lend
from framegate.bridge.options import Publish, Subscribe
from framegate.errors import (
    ChecksumMismatch,
    ClosedError,
    FrameTooLarge,
    ShmArgumentError,
    ShmError,
    TopicFull,
)

__all__ = ["ORIGIN", "PARTICIPANT", "Incoming", "Outgoing", "Received", "Sent"]

PARTICIPANT: Final = "platform bridge"
"""What inspectors show for the bridge."""

ORIGIN: Final = "bridge.host_id"
"""Metadata of a topic that came over a bridge: no bridge sends it on, or offers its calls."""

SEQUENCE: Final = "bridge.sequence"
PUBLISHED: Final = "bridge.published_unix_ns"

HEARTBEAT_S: Final = 1.0
"""A topic without frames repeats its last number this often, so that lost last frames count."""

RETRY_S: Final = 0.5
"""After the topic could not be read: it is being resized, made anew, or full of participants."""

log: Final = logging.getLogger("framegate.bridge")


@dataclass(slots=True)
class Sent:
    """What became of the frames of a topic of this host."""

    sent: int = 0
    sent_bytes: int = 0
    lost: int = 0
    limited: int = 0
    oversize: int = 0
    corrupt: int = 0
    failed: int = 0


@dataclass(slots=True)
class Received:
    """What became of the frames of a topic of another host."""

    received: int = 0
    before: int = 0
    lost: int = 0
    published: int = 0
    published_bytes: int = 0
    latest: int = 0
    limited: int = 0
    oversize: int = 0
    full: int = 0
    refused: int = 0
    repeated: int = 0
    incompatible: int = 0
    stray: int = 0


class _Pace:
    """So many frames per second; a source that is a little early or late keeps its rhythm."""

    def __init__(self, rate: float | None) -> None:
        self._period = None if rate is None else 1 / rate
        self._due = 0.0

    def allows(self) -> bool:
        if self._period is None:
            return True
        now = time.monotonic()
        if now < self._due:
            return False
        late = now - self._due
        self._due = (self._due if late < self._period else now) + self._period
        return True


class Outgoing:
    """A topic of this host that others may have.

    Args:
        zenoh: The module.
        session: Its session.
        key: Key of the frames.
        topic: The topic; closed with this.
        rule: How it is sent.
        host_id: Of this host.
        stream: Random, of this object.
    """

    def __init__(
        self,
        zenoh: Any,
        session: Any,
        key: str,
        topic: shm.Topic,
        rule: Publish,
        host_id: bytes,
        stream: bytes,
    ) -> None:
        self.topic = topic
        self.rule = rule
        self.stream = stream
        self.counts: Sent = Sent()
        self.identity: str = shm.inspect(topic.name).identity
        self._host_id = host_id
        self._number = 0
        self._pace = _Pace(rule.rate)
        self._is_fixed = all(None not in spec.shape for spec in topic.schema.values()) and bool(
            topic.schema
        )
        self._tail: tuple[wire.Tail, bytes] = (wire.Tail(), b"")
        self._wanted = threading.Event()
        self._closed = False
        self._zenoh_bytes = zenoh.ZBytes
        congestion = zenoh.CongestionControl
        self._publisher = session.declare_publisher(
            key,
            congestion_control=congestion.BLOCK if rule.congestion == "block" else congestion.DROP,
            priority=getattr(zenoh.Priority, rule.priority.upper()),
        )
        self._listener = self._publisher.declare_matching_listener(
            zenoh.handlers.Callback(self._on_matching, indirect=False)
        )
        self._on_matching(self._publisher.matching_status)
        self._thread = threading.Thread(target=self._run, name=f"bridge {topic.name}", daemon=True)
        self._thread.start()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._wanted.is_set() and not self._closed

    def _on_matching(self, status: Any) -> None:
        if status.matching:
            self._wanted.set()
        elif not self._closed:
            self._wanted.clear()

    def latest(self) -> tuple[Any, bytes] | None:
        """The newest frame as payload and attachment; None if there is none that may be sent."""
        with shm.Subscriber(self.topic, "latest", start="newest", name=PARTICIPANT) as subscriber:
            frame = subscriber.try_take()
            if frame is None:
                return None
            with frame:
                if frame.nbytes > self.rule.bytes_max:
                    return None
                return self._bytes_of(frame), self._attachment(frame, wire.LATEST, 0)

    def _run(self) -> None:
        while not self._closed:
            self._wanted.wait()
            if self._closed:
                return
            try:
                with shm.Subscriber(self.topic, self.rule.policy, name=PARTICIPANT) as subscriber:
                    self._send(subscriber)
            except ClosedError:
                return
            except ShmError as error:
                log.warning('bridge: topic "%s" cannot be read: %s', self.topic.name, error.problem)
                time.sleep(RETRY_S)

    def _send(self, subscriber: shm.Subscriber) -> None:
        counts = self.counts
        while self.is_wanted:
            try:
                frame = subscriber.take(timeout=HEARTBEAT_S)
            except ChecksumMismatch:
                counts.corrupt += 1
                continue
            if frame is None:
                self._put(b"", self._heartbeat())
                continue
            with frame:
                counts.lost += frame.lost
                if not self._pace.allows():
                    counts.limited += 1
                    continue
                if frame.nbytes > self.rule.bytes_max:
                    counts.oversize += 1
                    continue
                payload = self._bytes_of(frame)
                attachment = self._attachment(frame, wire.FRAME, self._number + 1)
            # The slot is free again while the link takes the copy.
            if self._put(payload, attachment):
                self._number += 1
                counts.sent += 1
                counts.sent_bytes += len(payload)
            else:
                counts.failed += 1

    def _put(self, payload: Any, attachment: bytes) -> bool:
        try:
            self._publisher.put(payload, attachment=attachment)
        except Exception as error:  # zenoh.ZError: the session is closed
            if not self._closed:
                log.warning('bridge: topic "%s": %s', self.topic.name, error)
                time.sleep(RETRY_S)
            return False
        return True

    def _bytes_of(self, frame: shm.Frame) -> Any:
        """A copy, which is Zenoh's."""
        with memoryview(frame) as view, lend(view) as data:
            return self._zenoh_bytes(data)

    def _heartbeat(self) -> bytes:
        head = wire.Head(
            wire.HEARTBEAT, self._host_id, self.stream, self._number, 0, time.time_ns(), None
        )
        return wire.head_to(head, b"")

    def _attachment(self, frame: shm.Frame, kind: int, number: int) -> bytes:
        # By the clock of now: published_ns has no meaning on another machine.
        unix_ns = frame.published_ns + time.time_ns() - time.monotonic_ns()
        tail = wire.Tail(wire.layout_of(frame, self._is_fixed), frame.metadata, frame.content_type)
        known, data = self._tail
        if tail != known:
            data = wire.tail_to(tail)
            self._tail = (tail, data)
        head = wire.Head(
            kind, self._host_id, self.stream, number, frame.sequence, unix_ns, frame.timestamp
        )
        return wire.head_to(head, data)

    def status(self) -> dict[str, Any]:
        """The counts, and what they are of."""
        return {
            "topic": self.topic.name,
            "policy": self.rule.policy,
            "wanted": self.is_wanted,
            **asdict(self.counts),
        }

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        self._wanted.set()
        for declared in (self._listener, self._publisher):
            with contextlib.suppress(Exception):  # the session may be closed
                declared.undeclare()
        self._thread.join(HEARTBEAT_S * 2)
        self.topic.close()


class Incoming:
    """A topic of another host that is a topic here.

    Args:
        name: Its name here.
        claim: Which host, topic and stream it is.
        about: What the host says about the topic.
        rule: How it is taken.
        refresh: Called when frames do not fit any more: the topic there was resized.
    """

    def __init__(
        self,
        name: str,
        rule: Subscribe,
        topic: shm.Topic,
        refresh: Callable[[], None],
    ) -> None:
        self.name = name
        self.rule = rule
        self.counts: Received = Received()
        self.topic = topic
        self.publisher: shm.Publisher = topic.publisher(name=PARTICIPANT)
        self.identity: str = shm.inspect(name).identity
        self._refresh = refresh
        self._lock = threading.Lock()
        self._pace = _Pace(rule.rate)
        self._stream = b""
        self.source: str = ""
        """Identity of the topic there."""
        self._number = 0
        self._sequence = 0
        self._tail: tuple[bytes, wire.Tail] = (b"", wire.Tail())
        self._said: set[str] = set()
        self._zenoh_subscriber: Any = None

    def follow(self, stream: bytes, source: str, sequence: int = 0) -> None:
        """From now on take the frames of this stream.

        Args:
            stream: The stream.
            source: Identity of the topic there: sequences grow as long as it is the same.
            sequence: The newest that is here already.
        """
        with self._lock:
            if source != self.source:
                self.source, self._sequence = source, sequence
            if stream != self._stream:
                self._stream, self._number = stream, 0

    def listen(self, zenoh: Any, session: Any, key: str) -> None:
        """Let frames come."""
        self._zenoh_subscriber = session.declare_subscriber(
            key, zenoh.handlers.Callback(self.on_sample, indirect=False)
        )

    def on_sample(self, sample: Any) -> None:
        """Called by Zenoh's thread with each message: must not raise, must not wait."""
        try:
            attachment = sample.attachment
            head, tail = wire.head_of(b"" if attachment is None else bytes(attachment))
            with self._lock:
                self._take(head, tail, sample.payload)
        except wire.IncompatibleError as error:
            self.counts.incompatible += 1
            self._say(str(error), "run the same version of framegate on both hosts")
        except wire.UnreadableError as error:
            self.counts.refused += 1
            self._say(str(error))
        except Exception as error:
            self.counts.refused += 1
            self._say(f"{type(error).__name__}: {error}")

    def _say(self, problem: str, fix: str = "") -> None:
        """Each problem once: frames come often."""
        kind = problem[:80]
        if kind not in self._said and len(self._said) < 16:
            self._said.add(kind)
            log.warning('bridge: topic "%s": frames are refused: %s%s', self.name, problem,
                        f"; {fix}" if fix else "")  # fmt: skip

    def _take(self, head: wire.Head, tail: bytes, payload: Any) -> None:
        counts = self.counts
        if head.stream != self._stream:
            counts.stray += 1
            return
        if head.kind == wire.HEARTBEAT:
            self._count_gap(head.number)
            return
        if head.kind == wire.FRAME:
            if head.number <= self._number:
                counts.stray += 1
                return
            self._count_gap(head.number - 1)
            self._number = head.number
            counts.received += 1
        if head.sequence <= self._sequence:
            counts.repeated += head.kind == wire.FRAME
            return
        self._sequence = head.sequence
        if len(payload) > self.rule.bytes_max:
            counts.oversize += head.kind == wire.FRAME
        elif head.kind == wire.FRAME and not self._pace.allows():
            counts.limited += 1
        else:
            self._publish(head, tail, payload)

    def _count_gap(self, last: int) -> None:
        if last > self._number:
            if self._number == 0:
                self.counts.before += last  # sent to others, when nobody listened here
            else:
                self.counts.lost += last - self._number
            self._number = last

    def _publish(self, head: wire.Head, tail_bytes: bytes, payload: Any) -> None:
        counts = self.counts
        known, tail = self._tail
        if tail_bytes != known:
            tail = wire.tail_of(tail_bytes)
            self._tail = (tail_bytes, tail)
        try:
            if tail.layout and len(tail.layout[0]) == 4:
                self._publish_records(head, tail, bytes(payload))
            else:
                self._publish_bytes(head, tail, bytes(payload))
        except TopicFull:
            counts.full += head.kind == wire.FRAME
        except FrameTooLarge:
            counts.oversize += head.kind == wire.FRAME
            self._refresh()
        else:
            if head.kind == wire.LATEST:
                counts.latest += 1
            else:
                counts.published += 1
                counts.published_bytes += len(payload)

    def _publish_bytes(self, head: wire.Head, tail: wire.Tail, data: bytes) -> None:
        if tail.layout is None:
            layout = None
        else:
            layout = wire.arrays_of(tail.layout) if tail.layout else len(data)
        with self.publisher.loan(layout) as loan:
            if loan.nbytes != len(data):
                raise wire.UnreadableError(
                    f"a frame has {len(data)} bytes, and should have {loan.nbytes}"
                )
            wire.fill(loan, data)
            self._finish(loan.publish, head, tail)

    def _publish_records(self, head: wire.Head, tail: wire.Tail, data: bytes) -> None:
        import numpy as np

        from framegate import records

        assert tail.layout
        rows: Any = [(n, dtype, tuple(s), tuple(place)) for n, dtype, s, place in tail.layout]
        shape = rows[0][2][: rows[0][3][2]]
        array = np.frombuffer(data, records.dtype_of(rows)).reshape(shape)
        self._finish(lambda **more: self.publisher.send(array, **more), head, tail)

    def _finish(self, publish: Callable[..., Any], head: wire.Head, tail: wire.Tail) -> None:
        own = {SEQUENCE: head.sequence, PUBLISHED: head.published_unix_ns}
        given: dict[str, Any] = {"timestamp": head.timestamp, "content_type": tail.content_type}
        try:
            publish(metadata={**tail.metadata, **own}, **given)
        except ShmArgumentError:
            # No room beside the publisher's own metadata, which come first.
            publish(metadata=tail.metadata, **given)

    def status(self) -> dict[str, Any]:
        """The counts, and what they are of."""
        with self._lock:
            return {"topic": self.name, **asdict(self.counts)}

    def close(self) -> None:
        """Take no more; the topic stays."""
        if self._zenoh_subscriber is not None:
            with contextlib.suppress(Exception):  # the session may be closed
                self._zenoh_subscriber.undeclare()
        with self._lock:
            self.publisher.close()
            self.topic.close()
