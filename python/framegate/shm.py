"""Frames in shared memory: hand arrays and bytes to other processes without copying them.

A *topic* is a named channel of fixed-size *slots* in shared memory. A *publisher* fills a slot and
publishes it as a *frame*; any number of *subscribers* see the same bytes as read-only arrays. A
frame that somebody holds is never
overwritten: a publisher uses another slot, and a slow subscriber loses frames instead of slowing
anybody down.

```python
with framegate.Publisher("camera/front") as camera:
    camera.send(picture)  # creates the topic from the first array

with framegate.Subscriber("camera/front") as viewer:
    for frame in viewer:
        show(frame.array)
```

Handles may be used from several threads. They do not survive `fork()`: a child opens its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from framegate import _shm, records
from framegate._shm import (
    Frame,
    Loan,
    check_topic_name,
    checksum,
    dtype_item_bytes,
    runtime_directory,
    unlink,
)
from framegate.errors import (
    ClosedError,
    SchemaMismatch,
    ShmArgumentError,
    TopicExists,
    TopicNotFound,
)

if TYPE_CHECKING:
    import asyncio
    from typing import Self, TypeAlias, Unpack

    Checksum: TypeAlias = Literal["crc32c", "xxh3"]
    Value: TypeAlias = bool | int | float | str | bytes
    Metadata: TypeAlias = tuple[int, list[tuple[int | None, dict[str, Value]]]]
    Policy: TypeAlias = Literal["latest", "queue", "reliable"] | str  # or "group:NAME"
    Start: TypeAlias = Literal["next", "newest"]
    Shape: TypeAlias = int | Sequence[int | None]

__all__ = [
    "ArraySpec",
    "Frame",
    "Garbage",
    "Inspector",
    "Loan",
    "Participant",
    "Publisher",
    "Slot",
    "Subscriber",
    "Topic",
    "TopicOptions",
    "TopicReport",
    "check_topic_name",
    "checksum",
    "dtype_item_bytes",
    "gc",
    "inspect",
    "runtime_directory",
    "topics",
    "unlink",
]

RAW_SLOT_BYTES_MIN = 64 * 1024
"""Slot size of a topic whose first frame is bytes and smaller: the next may be larger."""

POLL_S = 0.02
"""How often a missing topic is looked for; a watch would have to outlive a missing directory."""

BURST_S = 0.01
"""How long waiting frames are handed out before other tasks of the loop get their turn."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Element type and shape of an array.

    Attributes:
        dtype: Name such as `uint8`, `float32` or `bfloat16`.
        shape: Lengths of the dimensions, in C order; None in a topic's schema is any length.
        units: Units of its elements, such as `m/s`, at most 32 bytes.
        metadata: What else there is to say about it, as values of str, int, float, bool or bytes.
    """

    dtype: Any
    shape: Any
    units: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict, hash=False)


Row = tuple[str, str, tuple[int, ...]]


def _rows(
    dtype: Any, shape: Shape | None, arrays: Mapping[str, Any] | None
) -> list[tuple[str, Any, tuple[int | None, ...]]]:
    """A schema as the native module takes it: (name, dtype, shape) for each array."""
    if (dtype is None) != (shape is None):
        raise TypeError("dtype and shape go together: give both, or neither for raw bytes")
    if dtype is not None and arrays is not None:
        raise TypeError("give dtype and shape for one array, or arrays= for named ones, not both")
    if arrays is not None:
        rows = []
        for name, spec in arrays.items():
            if isinstance(spec, tuple):
                of_dtype, of_shape = spec
            else:
                of_dtype, of_shape = spec.dtype, spec.shape
            rows.append((name, of_dtype, _dimensions(of_shape)))
        return rows
    if shape is not None and records.is_structured(dtype):
        fields: list[Any] = records.rows_of(dtype, _dimensions(shape))
        return fields
    return [] if shape is None else [("", dtype, _dimensions(shape))]


def _dimensions(shape: Shape) -> tuple[int | None, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _schema(rows: Sequence[Row], metadata: Metadata) -> dict[str, ArraySpec]:
    schema = {}
    for index, (name, dtype, shape) in enumerate(rows):
        about = _merged(metadata, index)
        # Of units the first value counts: they belong to the schema and do not change.
        units = next(
            (row["units"] for of, row in metadata[1] if of == index and "units" in row), ""
        )
        about.pop("units", None)
        lengths = tuple(None if length < 0 else length for length in shape)
        schema[name] = ArraySpec(dtype, lengths, str(units) or None, about)
    return schema


def _merged(metadata: Metadata, array: int | None) -> dict[str, Value]:
    """The metadata of the topic or of one array; of a key that comes twice the later value."""
    merged: dict[str, Value] = {}
    for of, mapping in metadata[1]:
        if of == array:
            merged |= mapping
    return merged


def _initial_metadata(
    metadata: Mapping[str, Value] | None, arrays: Mapping[str, Any] | None
) -> list[tuple[int | None, dict[str, Value]]]:
    """What a topic is created with, in the form of the native module."""
    rows: list[tuple[int | None, dict[str, Value]]] = [(None, dict(metadata))] if metadata else []
    for index, spec in enumerate((arrays or {}).values()):
        if isinstance(spec, ArraySpec):
            about = dict(spec.metadata)
            if "units" in about:
                raise ShmArgumentError("units are ArraySpec(units=...), not a key of its metadata")
            if spec.units is not None:
                about = {"units": spec.units, **about}
            if about:
                rows.append((index, about))
    return rows


def _describe(rows: Iterable[tuple[str, str, tuple[int | None, ...]]]) -> str:
    """A schema in one line, for messages."""
    texts = []
    for name, dtype, shape in rows:
        lengths = ", ".join("any" if length is None else str(length) for length in shape)
        comma = "," if len(shape) == 1 else ""
        texts.append(f"{name}{': ' if name else ''}{dtype} ({lengths}{comma})")
    return "; ".join(texts) or "free frames"


def _own_name() -> str:
    """What inspectors show for this process unless told otherwise."""
    return os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"


class TopicOptions(TypedDict, total=False):
    """What a topic is created with. Each may be left out.

    Attributes:
        dtype: Element type of the only array: a name, a numpy dtype or type. With `shape`. A
            structured dtype makes records: its fields lie interleaved, as in an array of C structs.
        shape: Shape of the only array; None as a length is any length.
        arrays: Named arrays instead: name to `(dtype, shape)`, to an `ArraySpec` or to an array
            to be like. Without `dtype` and `arrays`, frames are free: bytes, or arrays that
            each describe themselves.
        slots: Number of slots, 8 by default: those held by subscribers at once, plus one per
            publisher, plus `keep`.
        slot_bytes: Payload bytes of a slot; by default what the arrays need.
        keep: Newest frames that stay readable even if nobody holds them; 1 by default.
        participants_max: Publishers and subscribers that the topic has room for; 128 by default.
        mode: File mode, 0o600 (the default) or 0o660.
        metadata: What there is to say about the topic: str to bool, int, float, str or bytes.
            `Topic.append_metadata` adds to it later.
        metadata_bytes: Room for the metadata of the topic and its arrays, 4096 by default, at most
            1 MiB.
        checksum: `crc32c` or `xxh3`: publishers compute it of every payload and takes compare it,
            which reads the payload once more on both sides; a frame that differs raises
            ChecksumMismatch. None by default.
    """

    dtype: Any
    shape: Shape | None
    arrays: Mapping[str, Any] | None
    slots: int
    slot_bytes: int | None
    keep: int
    participants_max: int
    mode: int
    metadata: Mapping[str, Value] | None
    metadata_bytes: int
    checksum: Checksum | None


class Topic:
    """An open topic: what its slots and arrays are, and the way to its publishers and subscribers.

    Made by `Topic.create`, `Topic.open` or `Topic.open_or_create`. Closing it leaves its publishers
    and subscribers alone. The topic itself stays until `unlink()`, so that processes may come and
    go.
    """

    __slots__ = ("_native", "created")

    _native: _shm.Topic
    created: bool
    """Whether this call made the topic, or found it."""

    def __init__(self, native: _shm.Topic, created: bool) -> None:
        """Use one of the class methods instead."""
        self._native = native
        self.created = created

    @classmethod
    def create(cls, name: str, **options: Unpack[TopicOptions]) -> Self:
        """Create a topic that does not exist yet.

        Every page of it is allocated at once, so that a full `/dev/shm` is an error here and not a
        crash later.

        Args:
            name: 1 to 8 segments of `[A-Za-z0-9_][A-Za-z0-9_.-]*` joined by `/`, at most 128 bytes.
            **options: What it holds and how much: see `TopicOptions`.

        Raises:
            TopicExists: There is one of that name.
            TopicNameInvalid: The name breaks the grammar.
            NoSpace: The file system of the runtime directory is too full.
            ShmArgumentError: A number is outside its limits.
        """
        return cls(*_make_topic(name, open=False, **options))

    @classmethod
    def open(cls, name: str, *, wait: float | None = 0.0) -> Self:
        """Open a topic that exists.

        Args:
            name: Name of the topic.
            wait: Seconds to wait for somebody to create it; None waits for ever.

        Raises:
            TopicNotFound: There is none of that name.
            SegmentIncompatible: It was made by another version of the layout.
        """
        deadline = None if wait is None else time.monotonic() + wait
        while True:
            try:
                native, created = _shm.Topic.open_or_create(name, open=True, create=False)
            except TopicNotFound:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                time.sleep(POLL_S)
            else:
                return cls(native, created)

    @classmethod
    async def open_async(cls, name: str, *, wait: float | None = 0.0) -> Self:
        """As `open`, but waits on the event loop (asyncio or trio)."""
        deadline = None if wait is None else time.monotonic() + wait
        while True:
            try:
                return cls.open(name)
            except TopicNotFound:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                await _sleep(POLL_S)

    @classmethod
    def open_or_create(cls, name: str, **options: Unpack[TopicOptions]) -> Self:
        """Open the topic or, if there is none, create it; several processes may do so at once.

        An existing topic is taken as it is, if its arrays are those asked for and its slots large
        enough.

        Args:
            name: As for `create`.
            **options: As for `create`. Of an existing topic only the arrays and `slot_bytes` are
                looked at.

        Raises:
            SchemaMismatch: It exists with other arrays.
            FrameTooLarge: It exists with smaller slots.
        """
        try:
            return cls(*_make_topic(name, open=True, **options))
        except SchemaMismatch as error:
            with cls.open(name) as existing:
                found = _describe(
                    (n, spec.dtype, spec.shape) for n, spec in existing.schema.items()
                )
            rows = _rows(options.get("dtype"), options.get("shape"), options.get("arrays"))
            wanted = _describe((row[0], _shm.dtype_name(row[1]), row[2]) for row in rows)
            raise SchemaMismatch(
                error.problem,
                cause=f"it holds {found}, asked for is {wanted}",
                fix=f'open it as it is, or remove it first: framegate.shm.unlink("{name}")',
            ) from None

    @property
    def name(self) -> str:
        """Name of the topic."""
        return self._native.name

    @property
    def schema(self) -> dict[str, ArraySpec]:
        """The arrays of every frame by name ("" for the only one); empty if frames are free."""
        return _schema(self._native.schema, self._native.metadata())

    @property
    def metadata(self) -> dict[str, Value]:
        """What is said about the topic, as it is now; of a key that was said twice the latest."""
        return _merged(self._native.metadata(), None)

    @property
    def metadata_generation(self) -> int:
        """Grows whenever somebody appends to the metadata; costs next to nothing to look at."""
        return self._native.metadata_generation

    def append_metadata(self, metadata: Mapping[str, Value], *, array: str | None = None) -> int:
        """Add to the metadata of the topic, or of one of its arrays, while it runs.

        Every process that has the topic open sees it with its next look, wholly or not at all.
        Nothing is taken back: each append uses up some of `metadata_bytes`.

        Args:
            metadata: str to bool, int, float, str or bytes.
            array: Name of an array of the schema.

        Returns:
            The new generation.

        Raises:
            MetadataFull: There is no room for it.
            ShmTimeout: Another process was stopped in the middle of appending.
        """
        index = None
        if array is not None:
            names = [name for name, _, _ in self._native.schema]
            if array not in names:
                known = ", ".join(map(repr, names)) or "none"
                raise ShmArgumentError(
                    f"topic {self.name!r} has no array {array!r}; it has {known}"
                )
            index = names.index(array)
        return self._native.append_metadata(metadata, index)

    @property
    def record_dtype(self) -> Any:
        """The structured numpy dtype of a topic of records, else None."""
        rows: list[Any] = self._native.records
        return records.dtype_of(rows) if rows else None

    @property
    def slots(self) -> int:
        """Number of slots."""
        return int(self._native.info["slots"])

    @property
    def slot_bytes(self) -> int:
        """Payload bytes of a slot."""
        return int(self._native.info["slot_bytes"])

    @property
    def checksum(self) -> Checksum | None:
        """Checksum of payloads: `crc32c`, `xxh3` or None."""
        kind: Checksum | None = self._native.info["checksum"]
        return kind

    def resize(
        self,
        *,
        slots: int | None = None,
        slot_bytes: int | None = None,
        keep: int | None = None,
    ) -> None:
        """Go on in another number or size of slots, while publishers and subscribers keep running.

        Nobody has to be told: publishers use the new slots from their next frame on, subscribers
        first take what they have not seen in the old ones. Sequences carry on, held frames and
        views stay valid, an unpublished loan is carried over by a copy, calls in flight and the
        unfinished work of groups go on. The memory of the old slots
        is freed when the last participant has moved on. Everything else of the topic stays as it
        is. If several processes resize at once, the last one wins.

        Args:
            slots: Number of slots; None keeps it.
            slot_bytes: Payload bytes of a slot; None keeps them.
            keep: Newest frames that stay readable; None keeps it.

        Raises:
            NoSpace: There is no room for the new slots beside the old ones; nothing changed.
            FrameTooLarge: The arrays of the topic do not fit into such a slot.
            ShmArgumentError: A number is outside its limits.
        """
        for name, value in (("slots", slots), ("slot_bytes", slot_bytes), ("keep", keep)):
            if value is not None and value < 1:
                raise ShmArgumentError(f"{name} is at least 1, not {value}")
        self._native.resize(slots=slots or 0, slot_bytes=slot_bytes or 0, keep=keep or 0)

    def publisher(self, *, name: str | None = None) -> Publisher:
        """Attach one more publisher; `name` is what inspectors show for it."""
        return Publisher(self, name=name)

    def subscriber(
        self,
        policy: Policy = "latest",
        *,
        max_leases: int | None = None,
        start: Start | None = None,
        spin: float = 0.0,
        name: str | None = None,
    ) -> Subscriber:
        """Attach one more subscriber; see `Subscriber` for the options."""
        return Subscriber(self, policy, max_leases=max_leases, start=start, spin=spin, name=name)

    def inspect(self) -> TopicReport:
        """Look at the topic of this name as `inspect()` does."""
        return inspect(self.name)

    def participants(self) -> tuple[Participant, ...]:
        """Everybody on the topic of this name, at this moment."""
        with Inspector(self.name) as inspector:
            return inspector.participants()

    def reap(self) -> int:
        """Take back what participants held that died; returns how many there were.

        Happens by itself whenever somebody attaches, finds no free slot or waits.
        """
        return self._native.sweep()

    def unlink(self) -> None:
        """Remove the topic's name; whoever has it open goes on until the last of them is gone."""
        unlink(self.name)

    def close(self) -> None:
        """Close this handle. Its publishers and subscribers go on."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """By name: another process opens the topic anew."""
        return Topic.open, (self.name,)

    def __repr__(self) -> str:
        return f"<Topic {self.name!r}, {self.slots} slots of {self.slot_bytes} bytes>"


def _make_topic(
    name: str,
    *,
    open: bool,
    dtype: Any = None,
    shape: Shape | None = None,
    arrays: Mapping[str, Any] | None = None,
    slots: int = 8,
    slot_bytes: int | None = None,
    keep: int = 1,
    participants_max: int = 128,
    mode: int = 0o600,
    metadata: Mapping[str, Value] | None = None,
    metadata_bytes: int = 4096,
    checksum: Checksum | None = None,
) -> tuple[_shm.Topic, bool]:
    """Create the topic or (`open`) take the one that exists; also says whether it was created."""
    rows = _rows(dtype, shape, arrays)
    return _shm.Topic.open_or_create(
        name,
        open=open,
        create=True,
        slots=slots,
        slot_bytes=_slot_bytes(slot_bytes, rows),
        schema=rows,
        keep=keep,
        participants_max=participants_max,
        mode=mode,
        metadata=_initial_metadata(metadata, arrays),
        metadata_bytes=metadata_bytes,
        checksum=checksum,
    )


def _slot_bytes(slot_bytes: int | None, rows: Sequence[tuple[str, Any, Any]]) -> int:
    if slot_bytes is not None:
        if slot_bytes < 1:
            raise ShmArgumentError(f"slot_bytes is at least 1, not {slot_bytes}")
        return slot_bytes
    needed = _shm.payload_bytes(rows)
    if needed == 0 and not any(0 in row[2] for row in rows):
        if rows:
            raise ShmArgumentError("a dimension may have any length: say slot_bytes")
        raise ShmArgumentError("a topic of raw bytes needs slot_bytes")
    return needed


class Publisher(_shm.Publisher):
    """The writing side of a topic.

    Given only a name, it publishes to the topic of that name or, if there is none, creates one that
    fits the first array sent. A context manager.

    Args:
        topic: Name of the topic, or an open `Topic`.
        **options: What to create the topic with if there is none: see `TopicOptions`. With arrays
            or `slot_bytes`, an existing one is compared with them at once.
        name: What inspectors show for this publisher; by default the name of the program.

    Raises:
        SchemaMismatch: The topic exists with other arrays.
        FrameTooLarge: The topic exists with smaller slots.
        TopicNameInvalid: The name breaks the grammar.
    """

    def __init__(
        self,
        topic: str | Topic,
        *,
        name: str | None = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        if unknown := options.keys() - TopicOptions.__annotations__:
            raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
        super().__init__(topic if isinstance(topic, str) else topic.name)
        self._name = _own_name() if name is None else name
        self._attaching = threading.Lock()
        self._options = options
        if isinstance(topic, Topic):
            self._attach(topic._native, self._name)
            return
        check_topic_name(topic)
        says_what = ("dtype", "shape", "arrays", "slot_bytes")
        if any(options.get(option) is not None for option in says_what):
            with Topic.open_or_create(topic, **options) as opened:
                self._attach(opened._native, self._name)
            return
        with contextlib.suppress(TopicNotFound), Topic.open(topic) as opened:
            self._attach(opened._native, self._name)

    def _prepare(self, rows: Sequence[Row], nbytes: int | None) -> None:
        """Called by the native side with what the first frame holds, while there is no topic."""
        with self._attaching:  # several threads may send their first frame at once
            if not self.is_attached and not self.closed:
                with self._topic_for(rows, nbytes) as opened:
                    self._attach(opened._native, self._name)

    def _topic_for(self, rows: Sequence[Row], nbytes: int | None) -> Topic:
        """The topic of this name, or a new one that holds such frames."""
        is_record = bool(rows) and len(rows[0]) == 4
        arrays = {row[0]: (row[1], row[2]) for row in rows}
        slot_bytes = None
        if not arrays:
            if nbytes is None:
                raise ShmArgumentError(
                    f"topic {self.topic!r} does not exist yet: say what to loan",
                    fix='loan(("uint8", (480, 640, 3))), or Publisher(..., slot_bytes=...)',
                )
            slot_bytes = max(RAW_SLOT_BYTES_MIN, nbytes)
        options = self._options.copy()
        if is_record:
            fields: list[Any] = list(rows)
            options["dtype"] = records.dtype_of(fields)
            options["shape"] = fields[0][2][: fields[0][3][2]]
        else:
            options["arrays"], options["slot_bytes"] = arrays or None, slot_bytes
        while True:
            # Somebody else's topic counts as it is; send() then says whether the frame fits it.
            with contextlib.suppress(TopicNotFound):
                return Topic.open(self.topic)
            with contextlib.suppress(TopicExists):
                return Topic.create(self.topic, **options)

    @property
    def topic_metadata(self) -> dict[str, Value]:
        """What is said about the topic; see `Topic.metadata`."""
        return _merged(self._metadata(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """By name and options: another process becomes one more publisher of the topic."""
        if self.closed:
            raise ClosedError(
                f'cannot pickle this publisher of topic "{self.topic}": it was closed'
            )
        return _reopen, (type(self), (self.topic,), self._options | {"name": self._name})

    def __repr__(self) -> str:
        return f"<Publisher of {self.topic!r}, {self.published} published>"


class Subscriber(_shm.Subscriber):
    """The reading side of a topic.

    Frames come by `take()`, `try_take()`, iteration, or on an event loop by `take_async()` and
    `async for`. A context manager.

    Args:
        topic: Name of the topic, or an open `Topic`.
        policy: `latest` jumps to the newest frame at every take; `queue` takes every frame that
            still exists, in order; both count what they lost in `lost`. `reliable` takes every
            frame: publishers wait for it (`loan(timeout=)`) or are refused. `group:NAME` makes it
            a member of a work queue: each frame goes to one member, `release()` says that it is
            done, `nack()` or the member's death gives it to another one. A group lives as long as
            it has members, and publishers wait for it, too.
        max_leases: Frames that may be held at once; by default half of the slots.
        start: `newest` sees the newest frame that exists now first, `next` only later ones. By
            default `newest` for `latest` and `next` for the others. For a group it counts when
            this subscriber is its first member.
        spin: Seconds (0.001 at most) to busy-wait for a frame before sleeping. Costs a core; helps
            only on an idle one. By default 50 us, what sleeping and waking costs anyway, and only
            while frames come that fast; 1e-9 never does.
        wait: Seconds to wait for somebody to create the topic; None waits for ever.
        name: What inspectors show for this subscriber; by default the name of the program.

    Raises:
        TopicNotFound: There is no such topic.
        ParticipantsExhausted: The topic has no room for one more.
        GroupsExhausted: Eight other groups have members.
    """

    def __init__(
        self,
        topic: str | Topic,
        policy: Policy = "latest",
        *,
        max_leases: int | None = None,
        start: Start | None = None,
        spin: float = 0.0,
        wait: float | None = 0.0,
        name: str | None = None,
    ) -> None:
        if max_leases is not None and max_leases < 1:
            raise ShmArgumentError(f"max_leases is at least 1, not {max_leases}")
        opened = Topic.open(topic, wait=wait) if isinstance(topic, str) else topic
        try:
            super().__init__(
                opened._native,
                policy=policy,
                max_leases=max_leases or 0,
                start=start or "",
                spin=spin,
                name=_own_name() if name is None else name,
            )
        finally:
            if opened is not topic:
                opened.close()
        self._options = {
            "max_leases": max_leases, "start": start, "spin": spin, "wait": wait, "name": name,
        }  # fmt: skip
        self._event = _EventFd()
        self._burst_began = time.monotonic()

    @overload
    async def take_async(self, *, timeout: None = None) -> Frame: ...
    @overload
    async def take_async(self, *, timeout: float | None) -> Frame | None: ...
    async def take_async(self, *, timeout: float | None = None) -> Frame | None:
        """Take the next frame on an event loop: any asyncio loop with `add_reader`, or trio.

        One loop at a time may wait on a subscriber; several tasks of it may.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Returns:
            The frame, or None when none came in time (never without a time-out).

        Raises:
            LeaseQuotaExceeded: This subscriber holds as many frames as it may.
            ClosedError: The subscriber was closed.
        """
        if time.monotonic() - self._burst_began > BURST_S:
            # A producer faster than this loop would otherwise starve every other task of it.
            # Before the take: a cancellation here loses no frame.
            await _checkpoint()
            self._burst_began = time.monotonic()
        frame = self.try_take()
        if frame is not None:
            return frame
        deadline = None if timeout is None else time.monotonic() + timeout
        fileno = self.fileno()
        while True:
            # Arm, then look once more: a frame that came in between has made nothing readable.
            if not self.arm():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                readable = await self._event.wait_readable(fileno, left)
                if self.closed:
                    raise ClosedError(f'this subscriber of topic "{self.topic}" was closed')
                if readable:
                    self.drain()
            frame = self.try_take()
            if frame is not None:
                self._burst_began = time.monotonic()
                return frame

    def __iter__(self) -> Iterator[Frame]:
        """Frames as they come, until the subscriber is closed."""
        return self

    def __aiter__(self) -> AsyncIterator[Frame]:
        """Frames as they come, until the subscriber is closed."""
        return self

    async def __anext__(self) -> Frame:
        try:
            return await self.take_async()
        except ClosedError:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Leave the topic; frames and views that are held stay valid, waiting takes are woken."""
        super().close()
        self._event.close()

    @property
    def topic_metadata(self) -> dict[str, Value]:
        """What is said about the topic; see `Topic.metadata` and `topic_metadata_generation`."""
        return _merged(self._metadata(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """By name and options: another process becomes one more subscriber, with its own leases.

        It starts as a new subscriber does, not where this one is.
        """
        if self.closed:
            raise ClosedError(
                f'cannot pickle this subscriber of topic "{self.topic}": it was closed'
            )
        return _reopen, (type(self), (self.topic, self.policy), self._options)

    def __repr__(self) -> str:
        counters = f"{self.received} received, {self.lost} lost"
        return f"<Subscriber of {self.topic!r}, {self.policy}, {counters}>"


def _reopen(kind: type[Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """What a pickled publisher or subscriber is: a call with the arguments of the first one."""
    return kind(*arguments, **options)


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


async def _sleep(seconds: float) -> None:
    if _in_trio():
        await sys.modules["trio"].sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)


async def _checkpoint() -> None:
    if _in_trio():
        await sys.modules["trio"].lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)


class _EventFd:
    """Waiting for a subscriber's descriptor on the event loop that runs.

    Waits on a duplicate: the library closes its own when the subscriber is closed, which may happen
    on another thread while a loop still watches it, and the number would then belong to somebody
    else's file.
    """

    __slots__ = (
        "_closed", "_fd", "_loop", "_trio_token", "_trio_waiting", "_trio_watch", "_waiters",
    )  # fmt: skip

    def __init__(self) -> None:
        self._fd = -1
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[bool]] = set()
        self._trio_token: Any = None  # while somebody waits
        self._trio_waiting = 0
        self._trio_watch: Any = None  # set when the task that watches the descriptor has done so

    async def wait_readable(self, fileno: int, timeout: float | None) -> bool:
        """Return whether it became readable (or was closed) in time."""
        if self._fd < 0:
            try:
                self._fd = os.dup(fileno)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                return True  # another thread has closed the subscriber just now
        if _in_trio():
            return await self._wait_trio(timeout)
        # Not for everybody: importing it takes as long as all that frames need.
        import asyncio

        loop = asyncio.get_running_loop()
        if self._waiters and self._loop is not loop:
            raise RuntimeError(
                "this subscriber is waited for on another event loop: open one per loop"
            )
        future: asyncio.Future[bool] = loop.create_future()
        is_first = not self._waiters
        self._loop = loop
        # Before the look at `_closed`: who sets that looks for waiters next.
        self._waiters.add(future)
        timer = None if timeout is None else loop.call_later(timeout, _settle, future, False)
        try:
            if self._closed:
                return True
            if is_first:
                loop.add_reader(self._fd, self._wake)
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.discard(future)
            if not self._waiters and self._fd >= 0:
                loop.remove_reader(self._fd)
                if self._closed:
                    self._close_fd()

    async def _wait_trio(self, timeout: float | None) -> bool:
        trio = sys.modules["trio"]
        self._trio_token = trio.lowlevel.current_trio_token()
        self._trio_waiting += 1
        try:
            if self._closed:
                self._close_fd()
                return True
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                if self._trio_watch is not None:
                    # trio lets one task watch a descriptor. However its watch ends, the others
                    # look for a frame, and one of them watches next.
                    await self._trio_watch.wait()
                    return True
                watch = self._trio_watch = trio.Event()
                try:
                    await trio.lowlevel.wait_readable(self._fd)
                finally:
                    self._trio_watch = None
                    watch.set()
                return True
            return False
        except trio.ClosedResourceError:
            return True
        finally:
            self._trio_waiting -= 1
            if self._trio_waiting == 0:
                self._trio_token = None

    def _wake(self) -> None:
        for future in self._waiters:
            _settle(future, True)

    def close(self) -> None:
        """Wake whoever waits and give the duplicate back; from any thread."""
        self._closed = True
        if self._fd < 0:
            return
        if self._trio_token is not None:
            trio = sys.modules["trio"]
            if _in_trio():
                self._close_in_trio(trio)
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    self._trio_token.run_sync_soon(self._close_in_trio, trio)
                    return
                self._close_fd()
            return
        loop = self._loop
        if not self._waiters or loop is None or loop.is_closed():
            self._close_fd()
            return
        import asyncio

        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._close_in_loop(loop)
        else:
            try:
                loop.call_soon_threadsafe(self._close_in_loop, loop)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
                self._close_fd()

    def _close_in_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._fd >= 0:
            loop.remove_reader(self._fd)
        self._close_fd()
        self._wake()

    def _close_in_trio(self, trio: Any) -> None:
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
        self._close_fd()

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._close_fd()


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)


@dataclass(frozen=True, slots=True)
class Participant:
    """A publisher or subscriber of a topic, as an inspector sees it.

    Attributes:
        index: Its row in the topic.
        role: `publisher`, `subscriber`, `caller` or `responder`.
        policy: Of a subscriber, as it was opened: `latest`, `queue`, `reliable`, `group:NAME`.
        name: What it calls itself.
        pid: Its process, as its own pid namespace counts.
        alive: False for one that died and was not cleaned up yet.
        leases: Frames that it holds.
        position: Sequence of the last frame that it published, took or skipped.
        received: Frames that it took, or published.
        lost: Frames that it will never see.
        corrupt: Frames that it refused because their checksum was wrong.
        attached_unix_ns: When it attached, in nanoseconds of Unix time.
    """

    index: int
    role: Literal["publisher", "subscriber", "caller", "responder"]
    policy: Policy | None
    name: str
    pid: int
    alive: bool
    leases: int
    position: int
    received: int
    lost: int
    corrupt: int
    attached_unix_ns: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of a topic, as an inspector sees it.

    Attributes:
        index: Its number.
        state: `free`, `loaned` (a publisher fills it) or `published` (it holds a frame).
        owner: Row of the publisher that fills it.
        sequence: Sequence of the frame in it; 0 for none.
        nbytes: Payload bytes of that frame.
        published_ns: When it was published, on the clock of `time.monotonic_ns()`; 0 if that
            changed while it was looked at.
        holders: Rows of the participants that hold it.
    """

    index: int
    state: Literal["free", "loaned", "published"]
    owner: int | None
    sequence: int
    nbytes: int
    published_ns: int
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicReport:
    """A topic at one moment; see `inspect`.

    Attributes:
        name: Name of the topic.
        schema: Arrays of every frame by name; empty if frames are free.
        slots: Number of slots.
        slot_bytes: Payload bytes of a slot.
        keep: Newest frames that stay readable.
        participants_max: Publishers and subscribers there is room for.
        checksum: Checksum of payloads, or None.
        metadata: What is said about the topic.
        metadata_bytes: Room for the metadata of the topic and its arrays.
        mode: File mode.
        identity: Random, other with every creation.
        created_unix_ns: When it was created, in nanoseconds of Unix time.
        total_bytes: Memory that its files occupy.
        sequence: Newest sequence; 0 before the first frame.
        publishers: Living publishers.
        subscribers: Living subscribers.
        dead: Participants that died and were not cleaned up yet.
        slots_free: Slots without a frame.
        slots_loaned: Slots that are being filled.
        slots_published: Slots with a frame.
        slots_leased: Slots with a frame that somebody holds.
        participants: Every publisher and subscriber.
    """

    name: str
    schema: Mapping[str, ArraySpec]
    slots: int
    slot_bytes: int
    keep: int
    participants_max: int
    checksum: Checksum | None
    metadata: Mapping[str, Value]
    metadata_bytes: int
    mode: int
    identity: str
    created_unix_ns: int
    total_bytes: int
    sequence: int
    publishers: int
    subscribers: int
    dead: int
    slots_free: int
    slots_loaned: int
    slots_published: int
    slots_leased: int
    participants: tuple[Participant, ...]


class Inspector:
    """A look at a topic without taking part in it: no row, no lock, no write to its memory.

    Args:
        topic: Name of the topic.

    Raises:
        TopicNotFound: There is no such topic.
        SegmentIncompatible: It was made by another version of the layout.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._native = _shm.Inspector(topic)

    def report(self) -> TopicReport:
        """Everything there is to see; read part by part while the topic goes on."""
        info: dict[str, Any] = dict(self._native.info())
        info |= self._native.stats()
        metadata = self._native.metadata()
        return TopicReport(
            name=self.topic,
            schema=_schema(self._native.schema(), metadata),
            metadata=_merged(metadata, None),
            participants=self.participants(),
            **info,
        )

    def participants(self) -> tuple[Participant, ...]:
        """Every publisher and subscriber."""
        return tuple(Participant(**row) for row in self._native.participants())

    def slots(self) -> tuple[Slot, ...]:
        """Every slot: what it holds, and who holds it."""
        return tuple(Slot(**row) for row in self._native.slots())

    def close(self) -> None:
        """Close the inspector."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def inspect(topic: str) -> TopicReport:
    """Look at a topic once, without disturbing it.

    Raises:
        TopicNotFound: There is no such topic.
        SegmentIncompatible: It was made by another version of the layout.
    """
    with Inspector(topic) as inspector:
        return inspector.report()


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `gc` removed, or would have.

    Attributes:
        topics: Bytes of each stale topic by name.
        orphans: Number of other files: of dead creators and resizers, sockets of dead subscribers.
    """

    topics: dict[str, int]
    orphans: int


def gc(*, older_than: float = 3600.0, dry_run: bool = False) -> Garbage:
    """Remove topics that nobody uses, and files that dead processes left.

    A topic is stale when no process has it open and nobody came or went for `older_than` seconds.
    A living topic is never removed, whoever opens it at the same time.

    Args:
        older_than: Seconds since the last publisher or subscriber came, left or was found dead.
        dry_run: Only look; `orphans` is 0 then.
    """
    if older_than < 0:
        raise ShmArgumentError(f"older_than is 0 or more seconds, not {older_than}")
    found, orphans = _shm.collect_stale_topics(int(older_than * 1e9), dry_run)
    return Garbage(dict(found), orphans)


def topics() -> list[str]:
    """Names of all topics in the runtime directory, sorted."""
    try:
        files = os.listdir(runtime_directory())
    except FileNotFoundError:
        return []
    return sorted(name for file in files if (name := _shm.topic_of_file(file)) is not None)
