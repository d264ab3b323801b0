"""Looking at topics without taking part: what `platform topic` shows, as data.

A look maps the control file read-only and reads it: no row, no lock, no lease, no write. Everything
here is derived from two such things: the report of an inspector (geometry, counters, participants)
and its slots (which frame is where, how large, how old, who holds it).

A rate needs no subscriber. The newest sequence at two moments says how many frames came in between,
and the frames that are still in their slots say when each was published and how large it is.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from framegate import shm
from framegate.config import suggestion
from framegate.errors import PermissionDenied, SegmentCorrupt, ShmError, TopicNotFound

__all__ = ["Gaps", "Lease", "Look", "Meter", "arrays_json", "look", "matching", "type_text"]

STALE_PERIODS: Final = 3
"""A topic that is this many periods late is no longer said to have a rate."""

STALE_S: Final = 1.0
"""Nor is it said to be late before this long."""

RATE_FRAMES: Final = 32
"""Frames that a rate at one look is averaged over, at most: the present, not history."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A frame that somebody holds.

    Attributes:
        holder: Who; None if it left while we looked.
        sequence: Sequence of the frame.
        nbytes: Its payload bytes.
        age_s: Seconds since the frame was published: the lease is at most as old. None: unknown.
    """

    holder: shm.Participant | None
    sequence: int
    nbytes: int
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """A topic at one moment.

    Attributes:
        report: Geometry, counters and participants.
        slots: What each slot holds.
        at_ns: When, on the clock of `time.monotonic_ns()`.
    """

    report: shm.TopicReport
    slots: tuple[shm.Slot, ...]
    at_ns: int

    @property
    def name(self) -> str:
        """Name of the topic."""
        return self.report.name

    def frames(self) -> list[shm.Slot]:
        """Slots with a frame whose header is known, oldest frame first."""
        held = [slot for slot in self.slots if slot.sequence and slot.published_ns]
        return sorted(held, key=lambda slot: slot.sequence)

    def age_s(self) -> float | None:
        """Seconds since the newest frame was published; None before the first."""
        frames = self.frames()
        return self._since(frames[-1]) if frames else None

    def _since(self, slot: shm.Slot) -> float | None:
        # A publisher's clock may be a hair ahead of ours by the time we read it.
        return max(0, self.at_ns - slot.published_ns) / 1e9 if slot.published_ns else None

    def hz(self) -> float | None:
        """Frames per second, from the frames that are still there; None if one cannot tell."""
        frames = self.frames()[-RATE_FRAMES:]
        if len(frames) < 2:
            return None
        oldest, newest = frames[0], frames[-1]
        span_s = (newest.published_ns - oldest.published_ns) / 1e9
        if span_s <= 0:
            return None
        rate = (newest.sequence - oldest.sequence) / span_s
        late_s = self._since(newest) or 0.0
        return 0.0 if late_s > max(STALE_S, STALE_PERIODS / rate) else rate

    def frame_bytes(self) -> float | None:
        """Mean payload bytes of the frames that are still there."""
        frames = self.frames()
        return sum(slot.nbytes for slot in frames) / len(frames) if frames else None

    def leases(self) -> list[Lease]:
        """Every frame that somebody holds, oldest first, one entry per holder."""
        rows = {participant.index: participant for participant in self.report.participants}
        return [
            Lease(rows.get(holder), slot.sequence, slot.nbytes, self._since(slot))
            for slot in sorted(self.slots, key=lambda slot: slot.sequence)
            for holder in slot.holders
            if slot.sequence
        ]

    def loans(self) -> list[shm.Participant | None]:
        """Who fills a slot now, one entry per slot."""
        rows = {participant.index: participant for participant in self.report.participants}
        return [
            None if slot.owner is None else rows.get(slot.owner)
            for slot in self.slots
            if slot.state == "loaned"
        ]

    def lag(self, participant: shm.Participant) -> int:
        """Frames that a subscriber is behind."""
        return max(0, self.report.sequence - participant.position)

    def lost(self) -> int:
        """Frames that the subscribers of now lost, added up."""
        return sum(p.lost for p in self.report.participants if p.role == "subscriber")

    def to_json(self) -> dict[str, Any]:
        """The look as plain data; `docs/guide/inspect.md` is the list of keys."""
        report, leases = self.report, self.leases()
        loans = [holder.index for holder in self.loans() if holder is not None]
        by_holder: dict[int, list[Lease]] = {}
        for lease in leases:
            if lease.holder is not None:
                by_holder.setdefault(lease.holder.index, []).append(lease)
        return {
            "topic": report.name,
            "arrays": arrays_json(report.schema),
            "metadata": plain(report.metadata),
            "sequence": report.sequence,
            "age_s": self.age_s(),
            "hz": self.hz(),
            "frame_bytes": self.frame_bytes(),
            "slots": report.slots,
            "slot_bytes": report.slot_bytes,
            "keep": report.keep,
            "checksum": report.checksum,
            "slots_free": report.slots_free,
            "slots_loaned": report.slots_loaned,
            "slots_published": report.slots_published,
            "slots_leased": report.slots_leased,
            "memory_bytes": report.total_bytes,
            "mode": f"{report.mode:04o}",
            "identity": report.identity,
            "created_unix_ns": report.created_unix_ns,
            "participants_max": report.participants_max,
            "publishers": report.publishers,
            "subscribers": report.subscribers,
            "dead": report.dead,
            "participants": [
                {
                    "index": row.index,
                    "role": row.role,
                    "policy": row.policy,
                    "name": row.name,
                    "pid": row.pid,
                    "alive": row.alive,
                    "frames": row.received,
                    "position": row.position,
                    "lag": self.lag(row) if row.role == "subscriber" else None,
                    "lost": row.lost,
                    "corrupt": row.corrupt,
                    "attached_unix_ns": row.attached_unix_ns,
                    "loans": loans.count(row.index),
                    "leases": [
                        {
                            "sequence": lease.sequence,
                            "nbytes": lease.nbytes,
                            "frame_age_s": lease.age_s,
                        }
                        for lease in by_holder.get(row.index, [])
                    ],
                }
                for row in report.participants
            ],
        }


def look(topic: str) -> Look:
    """Look at a topic once.

    Raises:
        TopicNotFound: There is none; the error says which name was probably meant.
        PermissionDenied: It belongs to somebody else; the error says what to do.
        SegmentCorrupt: Its bytes contradict each other; likewise.
    """
    try:
        with shm.Inspector(topic) as inspector:
            return _look_by(inspector)
    except ShmError as error:
        raise explained(error, topic) from None


def _look_by(inspector: shm.Inspector) -> Look:
    # The slots last: their frames are then no older than the counters say.
    report = inspector.report()
    slots = inspector.slots()
    return Look(report, slots, time.monotonic_ns())


def explained(error: ShmError, topic: str) -> ShmError:
    """The same error with what a person can do about it."""
    if error.fix:
        return error
    if isinstance(error, TopicNotFound):
        names = shm.topics()
        near = suggestion(topic, names).removeprefix("; ")
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        error.fix = near or (
            f"topics here: {some}"
            if names
            else "nobody has published anything yet; start the publisher, or set "
            "FRAMEGATE_RUNTIME_DIR to its runtime directory"
        )
    elif isinstance(error, PermissionDenied):
        error.fix = (
            "look as the user that created it, or let it be created with mode=0o660 in a runtime "
            "directory that a group shares"
        )
    elif isinstance(error, SegmentCorrupt):
        error.fix = f"stop whoever uses it, then remove it: platform topic unlink {topic}"
    return error


def matching(patterns: Sequence[str]) -> list[str]:
    """Names of the topics that match one of the patterns (`*`, `?`, `[...]`), all without any.

    Raises:
        TopicNotFound: A pattern without wildcards names no topic.
    """
    names = shm.topics()
    if not patterns:
        return names
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found and not any(letter in pattern for letter in "*?["):
            shm.check_topic_name(pattern)
            raise explained(TopicNotFound(f'there is no topic "{pattern}"'), pattern)
        chosen.update(found)
    return [name for name in names if name in chosen]


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON can say it: bytes as hexadecimal digits."""
    return {
        key: value.hex() if isinstance(value, bytes) else value for key, value in metadata.items()
    }


def arrays_json(schema: Mapping[str, shm.ArraySpec]) -> dict[str, Any]:
    """A schema as JSON can say it."""
    return {
        name: {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "units": spec.units,
            "metadata": plain(spec.metadata),
        }
        for name, spec in schema.items()
    }


def type_text(schema: Mapping[str, shm.ArraySpec]) -> str:
    """A schema in one line: `uint8 (480, 640, 3)`."""
    texts = []
    for name, spec in schema.items():
        lengths = ", ".join("any" if length is None else str(length) for length in spec.shape)
        comma = "," if len(spec.shape) == 1 else ""
        units = f" {spec.units}" if spec.units else ""
        texts.append(f"{name}{': ' if name else ''}{spec.dtype} ({lengths}{comma}){units}")
    return "; ".join(texts) or "free"


@dataclass(frozen=True, slots=True)
class Gaps:
    """What came in an interval; see `Meter.read`.

    Attributes:
        interval_s: Its length.
        frames: Frames that were published in it.
        gaps_s: Times between two neighbouring frames, those that were seen.
        nbytes: Sizes of the frames that were seen.
        lost: Frames that subscribers lost meanwhile, added up.
        look: The look at its end; None if the topic is gone.
    """

    interval_s: float
    frames: int
    gaps_s: tuple[float, ...]
    nbytes: tuple[int, ...]
    lost: int
    look: Look | None

    def hz(self) -> float:
        """Frames per second."""
        return self.frames / self.interval_s if self.interval_s > 0 else 0.0

    def bytes_per_s(self) -> float:
        """Payload bytes per second; frames that were not seen count as the mean of the others."""
        return self.hz() * self.bytes_mean()

    def bytes_mean(self) -> float:
        """Mean size of a frame."""
        return sum(self.nbytes) / len(self.nbytes) if self.nbytes else 0.0

    def gap_deviation_s(self) -> float | None:
        """Standard deviation of the times between frames; None below two."""
        if len(self.gaps_s) < 2:
            return None
        mean = sum(self.gaps_s) / len(self.gaps_s)
        return math.sqrt(sum((gap - mean) ** 2 for gap in self.gaps_s) / len(self.gaps_s))


@dataclass(slots=True)
class Meter:
    """Counts the frames of one topic from look to look; survives its being made anew.

    Call `poll()` often enough to see most frames in their slots, `read()` once per interval.
    """

    topic: str
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    _identity: str = ""
    _head: int = 0
    _lost: int = 0
    _began_ns: int = 0
    _inspector: shm.Inspector | None = None
    _latest: Look | None = None

    def open(self) -> Look:
        """Begin; raises what `look` raises."""
        now = look(self.topic)
        self._begin(now)
        return now

    def _begin(self, now: Look) -> None:
        self.close()
        self._identity = now.report.identity
        self._head = now.report.sequence
        self._lost = now.lost()
        self._began_ns = now.at_ns
        # The frame before the interval is where its first gap begins.
        self._seen = {s.sequence: (s.published_ns, s.nbytes) for s in now.frames()[-1:]}
        self._latest = now
        self._inspector = shm.Inspector(self.topic)

    def poll(self) -> None:
        """Note the frames that are in their slots now."""
        if self._inspector is not None:
            self._note(self._inspector.slots())

    def _note(self, slots: Iterable[shm.Slot]) -> None:
        for slot in slots:
            if slot.sequence >= self._head and slot.published_ns:
                self._seen[slot.sequence] = (slot.published_ns, slot.nbytes)

    def read(self) -> Gaps:
        """What came since the last `read()` (or `open()`); a topic that is gone has no look."""
        before, began_ns = self._head, self._began_ns
        try:
            now = look(self.topic)
        except ShmError:
            self.close()
            self._latest = None
            ended = time.monotonic_ns()
            self._began_ns = ended
            return Gaps((ended - began_ns) / 1e9, 0, (), (), 0, None)
        if now.report.identity != self._identity:  # made anew: its frames all came since
            before = 0
            self._seen.clear()
            self._lost = 0
        self._head = before
        self._note(now.slots)
        seen = sorted(self._seen.items())
        gaps = tuple(
            (late[0] - early[0]) / 1e9
            for (first, early), (second, late) in itertools.pairwise(seen)
            if second == first + 1
        )
        result = Gaps(
            (now.at_ns - began_ns) / 1e9,
            max(0, now.report.sequence - before),
            gaps,
            tuple(nbytes for sequence, (_, nbytes) in seen if sequence > before),
            max(0, now.lost() - self._lost),
            now,
        )
        self._begin(now)
        return result

    def close(self) -> None:
        """Stop looking."""
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None
