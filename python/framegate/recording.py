"""Record topics to MCAP files, and publish such files again.

```python
with framegate.recording.Recorder("run.mcap", ["camera/front", "lidar"]) as recorder:
    ...  # do what should be recorded
print(recorder.stats())

with framegate.recording.Player("run.mcap", rate=2) as player:
    player.start()
    player.wait()
```

A file holds pictures as `foxglove.RawImage` and `foxglove.CompressedImage`, everything else as
`framegate.Frame`, all protobuf with their descriptors inside; docs/guide/inspect.md has the
messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from framegate import _http, likeness, shm
from framegate.errors import RecordingError, ShmError, TopicExists, TopicNameInvalid

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Channel",
    "Contents",
    "Played",
    "Player",
    "Recorded",
    "Recorder",
    "contents",
    "topic_name",
]

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""What is compressed and written at once: large enough to compress well, small enough to hold."""

CHUNK_BYTES_MAX: Final = 1024 * 1024 * 1024

POLL_S: Final = 0.1
"""How often a player is asked whether it is done."""

Compression = Literal["zstd", "lz4", "none"]


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a recording.

    Attributes:
        topic: Its topic, as the file names it.
        schema: Name of its message type; empty if there is none.
        encoding: Encoding of its messages.
        messages: How many there are.
        about: The topic as it was, as JSON, in our own recordings.
    """

    topic: str
    schema: str
    encoding: str
    messages: int
    about: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a recording; see `contents`.

    Attributes:
        channels: Its channels.
        start_ns: When its first message was recorded, in nanoseconds of Unix time.
        end_ns: When its last one was.
        complete: False for a file that was cut off, because its writer was killed.
    """

    channels: tuple[Channel, ...]
    start_ns: int
    end_ns: int
    complete: bool

    def topics(self) -> dict[str, int]:
        """Messages by topic."""
        counts: dict[str, int] = {}
        for channel in self.channels:
            counts[channel.topic] = counts.get(channel.topic, 0) + channel.messages
        return counts


def contents(path: str | os.PathLike[str]) -> Contents:
    """Say what is in a recording: from its summary or, if it was cut off, by reading it through.

    Raises:
        RecordingError: It cannot be read, or is no MCAP file.
    """
    found = _http.recording_contents(os.fspath(path))
    channels = tuple(Channel(**channel) for channel in found["channels"])
    return Contents(channels, found["start_ns"], found["end_ns"], found["complete"])


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of a topic.

    Attributes:
        frames: Frames in the file.
        bytes: Their payload bytes.
        lost: Frames that came faster than the file could be written.
    """

    frames: int
    bytes: int
    lost: int


class Recorder:
    """Records topics from now on, on threads of its own, until closed. A context manager.

    It subscribes with policy queue: publishers never wait for the disk; what comes faster than the
    file can be written is lost and counted. It holds one frame of a topic at a time, and one chunk
    in memory.

    Args:
        path: The file.
        topics: Names of the topics; `add` adds more later.
        overwrite: Whether the file may exist already.
        compression: Of the chunks. lz4 costs least; zstd makes smaller files; none is for payloads
            that are compressed already.
        chunk_bytes: What is compressed and written at once, 1 to 1 GiB. A chunk is also written
            once it is a second old, so that a kill -9 costs a second.
        bgr: Whether pictures of three and four channels are BGR, as OpenCV makes them, and not RGB.
            A frame that says `metadata={"encoding": "bgr8"}` is believed more.

    Raises:
        RecordingError: The file cannot be created.
        TopicNotFound: There is no such topic.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        topics: Iterable[str] = (),
        *,
        overwrite: bool = False,
        compression: Compression = "lz4",
        chunk_bytes: int = CHUNK_BYTES,
        bgr: bool = False,
    ) -> None:
        if not 1 <= chunk_bytes <= CHUNK_BYTES_MAX:
            raise ValueError(f"chunk_bytes is 1 to {CHUNK_BYTES_MAX}, not {chunk_bytes}")
        self._identities: dict[str, str] = {}
        wanted = {topic: shm.inspect(topic).identity for topic in topics}  # before there is a file
        self._native = _http.Recorder(
            os.fspath(path),
            overwrite=overwrite,
            compression=compression,
            chunk_bytes=chunk_bytes,
            bgr=bgr,
        )
        try:
            for topic in wanted:
                self.add(topic)
        except BaseException:
            self.close()
            raise

    def add(self, topic: str) -> None:
        """Record one more topic from now on."""
        report = shm.inspect(topic)
        self._native.add(topic, json.dumps(likeness.of(report)))
        self._identities[topic] = report.identity

    def stats(self) -> dict[str, Recorded]:
        """What was recorded so far, by topic."""
        return {topic: Recorded(**row) for topic, row in self._native.stats().items()}

    def check(self) -> None:
        """Raise what ended the recording, if anything did; follow topics that were made anew.

        Raises:
            RecordingError: The file cannot be written: the disk is full, for example.
        """
        self._native.check()
        for topic, identity in list(self._identities.items()):
            try:
                now = shm.inspect(topic).identity
                if now != identity:
                    self.add(topic)
            except ShmError:
                continue  # gone, or just being made: look again next time

    def close(self) -> None:
        """End the recording and write the summary; harmless when it was closed.

        Raises:
            RecordingError: The end could not be written; the file is a readable prefix.
        """
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _create(name: str, about: str, slots: int | None, slot_bytes: int | None) -> None:
    """Make a topic as it was recorded, unless there is one."""
    try:
        options = likeness.options(json.loads(about), slots=slots, slot_bytes=slot_bytes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f'what the file says about topic "{name}" makes no sense') from error
    with contextlib.suppress(TopicExists):
        shm.Topic.create(name, **options).close()


@dataclass(frozen=True, slots=True)
class Played:
    """What was published of a topic.

    Attributes:
        frames: Frames published.
        bytes: Their payload bytes.
        dropped: Frames that found no slot because subscribers held them all.
    """

    frames: int
    bytes: int
    dropped: int


def topic_name(recorded: str, prefix: str = "") -> str:
    """A topic name for one that a recording may have used: `/camera/image raw` has to change.

    Raises:
        TopicNameInvalid: Nothing is left of it.
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
    segments = []
    for segment in (prefix + recorded.strip("/")).split("/"):
        kept = "".join(letter if letter in letters + ".-" else "_" for letter in segment)
        while ".." in kept:
            kept = kept.replace("..", "._")
        if kept:
            segments.append(kept if kept[0] in letters else "_" + kept)
    name = "/".join(segments)
    if not name:
        raise TopicNameInvalid(f"no topic name can be made of {recorded!r}")
    shm.check_topic_name(name)
    return name


class Player:
    """Publishes a recording again, on a thread of its own. A context manager.

    Frames of our recordings come back exactly: names, dtypes, shapes, the application's time,
    metadata, content type; they are published as far apart as they were. Topics that do not exist
    are created as they were recorded, and stay.

    Args:
        path: The file.
        topics: Topics to play, as the file names them; all if None.
        prefix: Put before their names, for example `replay/`.
        rate: How fast: 2 is twice as fast, 0 as fast as it goes.
        repeat: Whether to begin again at the end.
        slots: Slots of topics that have to be created, instead of the recorded number.
        slot_bytes: Payload bytes of their slots, likewise.
        join: Whether topics that others publish on are accepted.

    Raises:
        RecordingError: The file cannot be read, or has no such topic.
        TopicExists: Somebody publishes on one of the topics.
        SchemaMismatch: A topic exists with other arrays.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        topics: Sequence[str] | None = None,
        prefix: str = "",
        rate: float = 1.0,
        repeat: bool = False,
        slots: int | None = None,
        slot_bytes: int | None = None,
        join: bool = False,
    ) -> None:
        if not (rate == 0 or 0.001 <= rate <= 1000):
            raise ValueError(f"rate is 0, or 0.001 to 1000, not {rate}")
        self.contents: Contents = contents(path)
        recorded = self.contents.topics()
        for topic in topics or ():
            if topic not in recorded:
                from framegate.config import suggestion

                near = suggestion(topic, recorded).removeprefix("; ")
                raise RecordingError(
                    f'{os.fspath(path)} has no topic "{topic}"',
                    fix=near or f"it has {', '.join(recorded) or 'none'}",
                )
        self.topics: Mapping[str, str] = {
            topic: topic_name(topic, prefix) for topic in (topics or recorded)
        }
        if not join:
            self._refuse_company()
        self._native = _http.Player(
            os.fspath(path),
            topics=dict(self.topics),
            rate=rate,
            repeat=repeat,
            slots=slots,
            slot_bytes=slot_bytes,
        )
        try:
            for channel in self.contents.channels:
                if channel.about is not None and channel.topic in self.topics and channel.messages:
                    _create(self.topics[channel.topic], channel.about, slots, slot_bytes)
            self._native.prepare()
        except BaseException:
            self.close()
            raise

    def _refuse_company(self) -> None:
        existing = set(shm.topics())
        for topic in self.topics.values():
            if topic not in existing:
                continue
            for row in shm.inspect(topic).participants:
                if row.role == "publisher" and row.alive:
                    raise TopicExists(
                        f'{row.name or "somebody"} (pid {row.pid}) publishes on "{topic}"',
                        cause="its frames and those of the recording would come mixed",
                        fix="stop it, or play under other names: --prefix replay/",
                    )

    def start(self) -> None:
        """Begin to publish."""
        self._native.start()

    def stats(self) -> dict[str, Played]:
        """What was published so far, by topic.

        Raises:
            RecordingError: The file is damaged.
            FrameTooLarge: A frame does not fit into the slots of its topic.
        """
        return {topic: Played(**row) for topic, row in self._native.stats()["topics"].items()}

    @property
    def done(self) -> bool:
        """Whether everything was published."""
        return bool(self._native.stats()["done"])

    @property
    def cut_off(self) -> bool:
        """Whether the file turned out to end before its end."""
        return bool(self._native.stats()["cut_off"])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything was published; False if the time-out passed first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def close(self) -> None:
        """Stop publishing; the topics stay. Harmless when it was closed."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
