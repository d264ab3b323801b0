"""Recording to MCAP and replaying, with Foxglove's own Python packages as the independent peer."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.timestamp_pb2 import Timestamp
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap.records import Message
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from mcap_protobuf.decoder import DecoderFactory
from mcap_protobuf.writer import Writer as ProtobufWriter

from framegate import _http, recording, shm
from framegate.cli import main
from framegate.errors import RecordingError, TopicExists, TopicNameInvalid, TopicNotFound
from topics.waiting import threads_named, wait_until

PLATFORM = [sys.executable, "-m", "framegate", "topic"]
PATIENCE_S = 60


class Taken:
    """Everything that comes on a topic, from before the first frame on."""

    def __init__(self, topic: str, count: int) -> None:
        self.frames: list[dict[str, Any]] = []
        self.arrived_ns: list[int] = []
        self._subscriber = shm.Subscriber(topic, "queue", wait=PATIENCE_S, start="next")
        self._thread = threading.Thread(target=self._run, args=(count,))
        self._thread.start()

    def _run(self, count: int) -> None:
        while len(self.frames) < count:
            frame = self._subscriber.take(timeout=PATIENCE_S)
            if frame is None:
                return
            with frame:
                self.arrived_ns.append(frame.published_ns)
                self.frames.append(facts(frame))

    def result(self) -> list[dict[str, Any]]:
        self._thread.join()
        self._subscriber.close()
        return self.frames


def facts(frame: shm.Frame) -> dict[str, Any]:
    """What a frame is, by value."""
    return {
        "arrays": {
            name: (str(array.dtype), array.shape, array.tobytes())
            for name, array in frame.arrays.items()
        },
        "bytes": None if frame.arrays else bytes(memoryview(frame)),
        "timestamp": frame.timestamp,
        "metadata": frame.metadata,
        "content_type": frame.content_type,
    }


def record(path: Path, topic: str, publish: Callable[[], Any], count: int, **options: Any) -> None:
    """Record what `publish` publishes on an existing topic."""
    with recording.Recorder(path, [topic], **options) as recorder:
        publish()
        deadline = time.monotonic() + PATIENCE_S
        while recorder.stats()[topic].frames < count and time.monotonic() < deadline:
            time.sleep(0.005)
        recorder.check()
        row = recorder.stats()[topic]
        assert (row.frames, row.lost) == (count, 0)


def play(path: Path, topic: str, count: int, **options: Any) -> list[dict[str, Any]]:
    """Replay a file; what came on a topic."""
    with recording.Player(path, **options) as player:
        taken = Taken(topic, count)
        player.start()
        assert player.wait(PATIENCE_S)
        return taken.result()


def messages(path: Path) -> list[Any]:
    """Every message, decoded by the peer with the descriptors in the file."""
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return list(reader.iter_decoded_messages())


PICTURE = np.arange(32 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 32, 3)

# Name, frame, options of send; each goes to a file and comes back.
EXACT: dict[str, tuple[Any, dict[str, Any]]] = {
    "picture": (PICTURE, {"timestamp": 12.5, "metadata": {"exposure_ms": 8, "ok": True}}),
    "picture-of-no-time": (PICTURE[:, :, 0].copy(), {}),
    "picture-before-1970": (PICTURE, {"timestamp": -3.25}),
    "depth": (np.linspace(0, 5, 24 * 32, dtype="f4").reshape(24, 32), {"timestamp": 1.7e9}),
    "gray16": (np.arange(24 * 32, dtype="u2").reshape(24, 32), {}),
    "one-channel": (PICTURE[:, :, :1].copy(), {}),
    "rgba": (np.zeros((16, 16, 4), "u1"), {}),
    "small": (np.arange(6, dtype="u1").reshape(2, 3), {"timestamp": 0.0}),
    "scalar": (np.array(3.5), {}),
    "empty": (np.zeros((0, 4), "f4"), {}),
    "bfloat16": (np.array([1.5, -2], ml_dtypes.bfloat16), {}),
    "complex": (np.array([[1 + 2j]], "c16"), {}),
    "named": (
        {"image": PICTURE, "box": np.array([1, 2, 3, 4], "i8"), "on": np.array([True, False])},
        {"timestamp": 1.25, "metadata": {"text": "grün", "raw": b"\x00\xff", "x": 0.5}},
    ),
    "one-named": ({"image": PICTURE}, {}),
    "bytes": (b"hello", {"content_type": "text/plain", "metadata": {"n": -1}}),
    "no-bytes": (b"", {}),
    "jpeg": (b"\xff\xd8 not really", {"content_type": "image/jpeg", "timestamp": 2.5}),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_was_recorded_comes_back_exactly(name: str, tmp_path: Path) -> None:
    value, options = EXACT[name]
    file = tmp_path / "a.mcap"
    free = {"slot_bytes": 4096} if isinstance(value, bytes) else {}
    arrays = {} if isinstance(value, bytes) else value
    with (
        shm.Topic.create(
            "t",
            slots=5,
            keep=2,
            checksum="crc32c",
            **free,
            **(
                {"arrays": {"": arrays} if isinstance(arrays, np.ndarray) else arrays}
                if not free
                else {}
            ),
        ) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue") as subscriber,
    ):
        record(file, "t", lambda: publisher.send(value, **options), 1)
        frame = subscriber.take(timeout=PATIENCE_S)
        assert frame is not None
        with frame:
            before = facts(frame)
        schema = topic.schema
    geometry = shm.inspect("t")
    shm.unlink("t")
    assert play(file, "t", 1) == [before]
    again = shm.inspect("t")
    assert again.schema == schema
    assert (again.slots, again.slot_bytes, again.keep) == (5, geometry.slot_bytes, 2)
    assert again.checksum == "crc32c"


def test_what_is_said_about_a_topic_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    arrays = {
        "depth": shm.ArraySpec("float32", (2, 2), units="m", metadata={"near": 0.5}),
        "odd name: 100%;": shm.ArraySpec("uint8", (3,)),
    }
    metadata = {"serial": "A7", "key": b"\x01\xff", "on": True, "n": -3}
    with (
        shm.Topic.create("rig", arrays=arrays, metadata=metadata, metadata_bytes=512) as topic,
        topic.publisher() as publisher,
    ):
        value = {name: np.zeros(spec.shape, spec.dtype) for name, spec in arrays.items()}
        record(file, "rig", lambda: publisher.send(value), 1)
    before = shm.inspect("rig")
    shm.unlink("rig")
    play(file, "rig", 1)
    after = shm.inspect("rig")
    assert after.schema == before.schema
    assert after.schema["depth"].units == "m"
    assert (after.metadata, after.metadata_bytes) == (metadata, before.metadata_bytes)
    with recording.Player(file, prefix="big/", slots=20, slot_bytes=5000) as player:
        assert list(player.topics.values()) == ["big/rig"]
    report = shm.inspect("big/rig")
    assert (report.slots, report.slot_bytes) == (20, 5000)


def test_free_and_open_dimensions_come_back(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with (
        shm.Topic.create("points", dtype="f4", shape=(None, 3), slot_bytes=1200) as topic,
        topic.publisher() as publisher,
    ):
        clouds = [np.full((n, 3), n, "f4") for n in (1, 0, 100)]
        record(file, "points", lambda: [publisher.send(cloud) for cloud in clouds], 3)
        schema = topic.schema
    shm.unlink("points")
    came = play(file, "points", 3)
    assert [entry["arrays"][""][1] for entry in came] == [(1, 3), (0, 3), (100, 3)]
    assert shm.inspect("points").schema == schema


def test_pictures_open_as_foxglove_messages(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("cam", slot_bytes=1 << 16) as publisher:
        frames: list[tuple[Any, dict[str, Any]]] = [
            (PICTURE, {"timestamp": 12.5}),
            (PICTURE, {"metadata": {"encoding": "bgr8"}}),
            (PICTURE[:, :, 0].copy(), {}),
            (PICTURE[:, :, 0].copy(), {"metadata": {"encoding": "bayer_rggb8"}}),
            (np.zeros((16, 20), "f4"), {}),
            (b"\xff\xd8", {"content_type": "image/jpeg", "timestamp": 3.0}),
            (b"hello", {}),
            (PICTURE[:2, :2].copy(), {}),
        ]
        before = time.time_ns()
        record(file, "cam", lambda: [publisher.send(v, **o) for v, o in frames], len(frames))
        after = time.time_ns()
    found = messages(file)
    assert [entry.schema.name for entry in found] == [
        *["foxglove.RawImage"] * 5,
        "foxglove.CompressedImage",
        "framegate.Frame",
        "framegate.Frame",
    ]
    pictures = [entry.decoded_message for entry in found]
    assert [p.encoding for p in pictures[:5]] == ["rgb8", "bgr8", "mono8", "bayer_rggb8", "32FC1"]
    first = pictures[0]
    assert (first.width, first.height, first.step) == (32, 24, 96)
    assert first.data == PICTURE.tobytes()
    assert (first.timestamp.seconds, first.timestamp.nanos) == (12, 500_000_000)
    assert first.framegate.sequence == 1
    assert (pictures[4].width, pictures[4].height, pictures[4].step) == (20, 16, 80)
    jpeg = pictures[5]
    assert (jpeg.format, jpeg.data, jpeg.timestamp.seconds) == ("jpeg", b"\xff\xd8", 3)
    assert pictures[6].data == b"hello"
    (array,) = pictures[7].arrays
    assert (array.dtype, list(array.shape)) == ("uint8", [2, 2, 3])
    for entry in found:
        assert entry.channel.topic == "cam"
        assert entry.channel.message_encoding == entry.schema.encoding == "protobuf"
        assert before <= entry.message.publish_time <= entry.message.log_time <= after
    # No time of the application: that of the publication.
    assert before <= pictures[1].timestamp.ToNanoseconds() <= after
    # Read by the packages' own classes, not by the descriptors in the file.
    with file.open("rb") as stream:
        for schema, _, message in make_reader(stream).iter_messages():
            if schema is not None and schema.name == "foxglove.RawImage":
                own = RawImage.FromString(message.data)
                assert own.step * own.height == len(own.data)


def test_our_descriptors_are_foxgloves_and_one_field_more(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("cam", slot_bytes=1 << 16) as publisher:
        record(
            file,
            "cam",
            lambda: [publisher.send(PICTURE), publisher.send(b"x", content_type="image/png")],
            2,
        )
    for entry in messages(file):
        theirs = {"foxglove.RawImage": RawImage, "foxglove.CompressedImage": CompressedImage}[
            entry.schema.name
        ].DESCRIPTOR
        ours = {field.name: field for field in type(entry.decoded_message).DESCRIPTOR.fields}
        extra = ours.pop("framegate")
        assert extra.number == 1000
        assert extra.number not in theirs.fields_by_number
        assert {(f.name, f.number, f.type) for f in ours.values()} == {
            (f.name, f.number, f.type) for f in theirs.fields
        }
        files = FileDescriptorSet.FromString(entry.schema.data).file
        assert files[0].name == "google/protobuf/timestamp.proto"


def test_bgr_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("cam", slot_bytes=1 << 16) as publisher:
        values = [PICTURE, np.zeros((16, 16, 4), "u1"), PICTURE[:, :, 0].copy()]
        record(file, "cam", lambda: [publisher.send(v) for v in values], 3, bgr=True)
    assert [m.decoded_message.encoding for m in messages(file)] == ["bgr8", "bgra8", "mono8"]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_compression_and_chunks(compression: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    # A slot for each frame, and more: a recorder that the machine lets wait loses none.
    with shm.Publisher("t", slots=64, slot_bytes=10_000) as publisher:

        def publish() -> None:
            with shm.Subscriber("t", "queue", start="next"):
                for i in range(40):
                    publisher.send(bytes([i]) * 10_000)
                    time.sleep(0.003)

        record(file, "t", publish, 40, compression=compression, chunk_bytes=50_000)
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == 40
    assert len(summary.chunk_indexes) >= 8
    expected = "" if compression == "none" else compression
    assert {index.compression for index in summary.chunk_indexes} == {expected}
    assert all(index.uncompressed_size < 70_000 for index in summary.chunk_indexes)
    assert (file.stat().st_size < 100_000) == (compression != "none")
    data = [entry.decoded_message.data for entry in messages(file)]
    assert data == [bytes([i]) * 10_000 for i in range(40)]


def test_several_topics_are_one_file_in_order(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with (
        # A slot for each frame, and more: a recorder that the machine lets wait loses none.
        shm.Publisher("a", slots=64, slot_bytes=8) as a,
        shm.Publisher("b/c", slots=64, slot_bytes=8) as b,
        recording.Recorder(file, ["a", "b/c"]) as recorder,
    ):
        for i in range(20):
            (a if i % 2 else b).send(bytes([i]))
            time.sleep(0.001)
        deadline = time.monotonic() + PATIENCE_S
        while sum(row.frames for row in recorder.stats().values()) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    contents = recording.contents(file)
    assert contents.topics() == {"a": 10, "b/c": 10}
    assert contents.complete
    with file.open("rb") as stream:
        times = [
            record.log_time
            for record in StreamReader(stream).records
            if isinstance(record, Message)
        ]
    assert times == sorted(times)
    assert (contents.start_ns, contents.end_ns) == (times[0], times[-1])
    with recording.Player(file, topics=["b/c"], prefix="again/") as player:
        assert dict(player.topics) == {"b/c": "again/b/c"}
        player.start()
        assert player.wait(PATIENCE_S)
        assert player.stats()["again/b/c"].frames == 10
    assert set(shm.topics()) == {"a", "b/c", "again/b/c"}


def test_times_of_a_topic_are_in_the_order_of_its_frames(tmp_path: Path) -> None:
    """However close together they were published: a viewer that sorts by time shows them so."""
    file, count = tmp_path / "a.mcap", 50
    with shm.Publisher("t", slot_bytes=8, slots=count + 14) as publisher:
        taken = Taken("t", count)
        record(file, "t", lambda: [publisher.send(b"x") for _ in range(count)], count)
        taken.result()
    with file.open("rb") as stream:
        found = [m.publish_time for _, _, m in make_reader(stream).iter_messages()]
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert min(gaps) >= 0
    # As by the clock of the frames. Few may differ: the two clocks were looked at anew.
    expected = [later - earlier for earlier, later in pairwise(taken.arrived_ns)]
    assert sum(gap != sent for gap, sent in zip(gaps, expected, strict=True)) <= 10


def test_timing_is_kept_and_scaled(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    gaps = [0.05, 0.2, 0.1]
    with shm.Publisher("t", slot_bytes=8) as publisher:

        def publish() -> None:
            publisher.send(b"x")
            for gap in gaps:
                time.sleep(gap)
                publisher.send(b"x")

        record(file, "t", publish, 4)
    with file.open("rb") as stream:
        published = [m.publish_time for _, _, m in make_reader(stream).iter_messages()]
    span_s = (published[-1] - published[0]) / 1e9
    assert span_s >= sum(gaps)
    for rate, factor in ((1.0, 1.0), (2.0, 0.5)):
        shm.unlink("t")
        with recording.Player(file, rate=rate) as player:
            taken = Taken("t", 4)
            player.start()
            assert player.wait(PATIENCE_S)
            taken.result()
        came = taken.arrived_ns
        # Never early; how late is the machine's affair. A frame is due by the first one's time.
        for i in range(1, 4):
            due_ns = (published[i] - published[0]) * factor
            assert came[i] - came[0] >= due_ns - 50_000_000
    began = time.monotonic()
    shm.unlink("t")
    with recording.Player(file, rate=0) as player:
        player.start()
        assert player.wait(PATIENCE_S)
        assert player.stats()["t"].frames == 4
    assert time.monotonic() - began < PATIENCE_S


def test_loop_begins_again(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("t", slot_bytes=8) as publisher:
        record(file, "t", lambda: [publisher.send(b"1"), publisher.send(b"2")], 2)
    shm.unlink("t")
    with recording.Player(file, repeat=True, rate=0) as player:
        player.start()
        deadline = time.monotonic() + PATIENCE_S
        while player.stats()["t"].frames < 7:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert not player.done


def raw_image(**fields: Any) -> RawImage:
    return RawImage(timestamp=Timestamp(seconds=100, nanos=250_000_000), **fields)


def test_a_file_by_the_peer_is_replayed(tmp_path: Path) -> None:
    file = tmp_path / "theirs.mcap"
    depth = np.arange(12, dtype="<u2").reshape(3, 4)
    padded = b"".join(bytes([row] * 6) + b"\xee\xee" for row in range(5))
    with file.open("wb") as stream, ProtobufWriter(stream) as writer:
        start = 10**18
        for i, (topic, message) in enumerate(
            [
                (
                    "/camera/image raw",
                    raw_image(width=2, height=5, encoding="rgb8", step=8, data=padded),
                ),
                (
                    "/depth",
                    raw_image(width=4, height=3, encoding="16UC1", step=8, data=depth.tobytes()),
                ),
                ("/jpeg", CompressedImage(format="jpeg", data=b"\xff\xd8")),
                ("/odd", raw_image(width=1, height=1, encoding="from_the_future", data=b"xyz")),
            ]
        ):
            writer.write_message(topic, message, log_time=start + i, publish_time=start + i)
    contents = recording.contents(file)
    assert sum(contents.topics().values()) == 4
    expected = {
        "camera/image_raw": {
            "arrays": {"": ("uint8", (5, 2, 3), bytes(row for row in range(5) for _ in range(6)))},
            "timestamp": 100.25,
        },
        "depth": {"arrays": {"": ("uint16", (3, 4), depth.tobytes())}, "timestamp": 100.25},
        "jpeg": {"bytes": b"\xff\xd8", "content_type": "image/jpeg"},
        "odd": {"bytes": b"xyz", "timestamp": 100.25},
    }
    with recording.Player(file) as player:
        assert set(player.topics.values()) == set(expected)
        taken = {topic: Taken(topic, 1) for topic in expected}
        player.start()
        assert player.wait(PATIENCE_S)
    for topic, wanted in expected.items():
        (came,) = taken[topic].result()
        assert {key: came[key] for key in wanted} == wanted, topic


def test_other_messages_are_replayed_as_bytes(tmp_path: Path) -> None:
    file = tmp_path / "theirs.mcap"
    with file.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType.LZ4)
        writer.start()
        channel = writer.register_channel(topic="log", message_encoding="json", schema_id=0)
        writer.add_message(channel, log_time=1, publish_time=1, data=b'{"a":1}')
        writer.finish()
    (came,) = play(file, "log", 1)
    assert (came["bytes"], came["content_type"]) == (b'{"a":1}', "application/json")


def test_a_message_that_lies_is_an_error(tmp_path: Path) -> None:
    for message in (
        raw_image(width=100, height=100, encoding="rgb8", step=300, data=b"short"),
        raw_image(width=4, height=2, encoding="mono8", step=1, data=b"12345678"),
        raw_image(width=2**32 - 1, height=2**32 - 1, encoding="rgba8", data=b""),
    ):
        file = tmp_path / "lies.mcap"
        with file.open("wb") as stream, ProtobufWriter(stream) as writer:
            writer.write_message("/lies", message, log_time=1, publish_time=1)
        with pytest.raises(RecordingError, match=r'"/lies" is no foxglove\.RawImage'):
            recording.Player(file)


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        recording.contents(tmp_path / "none.mcap")
    for content in (b"", b"hello", b"x" * 5000, b"\x89MCAP0\r\n"):
        (tmp_path / "x.mcap").write_bytes(content)
        if content.startswith(b"\x89"):
            continue
        with pytest.raises(RecordingError, match=r"x\.mcap"):
            recording.contents(tmp_path / "x.mcap")


def test_damage_anywhere_is_an_error_and_no_crash(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("t", slot_bytes=1000) as publisher:
        record(file, "t", lambda: [publisher.send(bytes([i]) * 1000) for i in range(5)], 5)
    shm.unlink("t")
    whole = file.read_bytes()
    hurt = tmp_path / "hurt.mcap"
    for at in range(8, len(whole), max(1, len(whole) // 60)):
        hurt.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with recording.Player(hurt, rate=0) as player:
                player.start()
                player.wait(PATIENCE_S)
        except (RecordingError, TopicNameInvalid, shm.ShmArgumentError):
            pass
        for topic in shm.topics():
            shm.unlink(topic)


def test_a_recording_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    file.write_text("precious")
    with shm.Publisher("t", slot_bytes=8):
        with pytest.raises(RecordingError, match="exists"):
            recording.Recorder(file, ["t"])
        assert file.read_text() == "precious"
        with recording.Recorder(file, ["t"], overwrite=True):
            pass
    assert recording.contents(file).channels == ()
    with pytest.raises(TopicNotFound):
        recording.Recorder(tmp_path / "b.mcap", ["none"])
    assert not (tmp_path / "b.mcap").exists()


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with shm.Publisher("t", slot_bytes=100_000) as publisher:
        recorder = recording.Recorder("/dev/full", ["t"], overwrite=True, chunk_bytes=1)
        publisher.send(os.urandom(100_000))
        with pytest.raises(RecordingError, match="No space left"):
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                recorder.check()
                time.sleep(0.005)
        with pytest.raises(RecordingError):
            recorder.close()
        recorder.close()


def test_the_recorder_is_one_subscriber_with_one_lease(tmp_path: Path) -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher:
        with recording.Recorder(tmp_path / "a.mcap", ["t"]):
            publisher.send(b"x")
            _, row = shm.inspect("t").participants
            assert (row.name, row.policy) == ("platform record", "queue")
        assert shm.inspect("t").subscribers == 0


def test_a_topic_made_anew_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    first = shm.Publisher("t", slot_bytes=8)
    with recording.Recorder(file, ["t"]) as recorder:
        first.send(b"old")
        deadline = time.monotonic() + PATIENCE_S
        while recorder.stats()["t"].frames < 1 and time.monotonic() < deadline:
            time.sleep(0.005)
        first.close()
        shm.unlink("t")
        recorder.check()
        with shm.Publisher("t", slot_bytes=8) as second:
            recorder.check()
            second.send(b"new")
            while recorder.stats()["t"].frames < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
    assert [entry.decoded_message.data for entry in messages(file)] == [b"old", b"new"]


def test_a_resize_is_recorded_through(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with (
        shm.Topic.create("t", slots=3, slot_bytes=8) as topic,
        topic.publisher() as publisher,
        recording.Recorder(file, ["t"]) as recorder,
    ):

        def send(data: bytes, count: int) -> None:
            publisher.send(data)
            deadline = time.monotonic() + PATIENCE_S
            while recorder.stats()["t"].frames < count and time.monotonic() < deadline:
                time.sleep(0.005)

        send(b"small", 1)
        topic.resize(slots=5, slot_bytes=4096)
        recorder.check()
        send(b"large" * 500, 2)
        recorder.check()
        send(b"more", 3)
        assert recorder.stats()["t"].lost == 0
    found = [entry.decoded_message.data for entry in messages(file)]
    assert found == [b"small", b"large" * 500, b"more"]


def test_replay_refuses_company_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("t", slot_bytes=8, name="rival") as publisher:
        record(file, "t", lambda: publisher.send(b"x"), 1)
        with pytest.raises(TopicExists, match=r"rival \(pid \d+\) publishes"):
            recording.Player(file)
        with recording.Player(file, join=True) as player:
            player.start()
            assert player.wait(PATIENCE_S)
        assert shm.inspect("t").sequence == 2


def test_topic_names_of_others_are_made_ours() -> None:
    for recorded, expected in {
        "/camera/image_raw": "camera/image_raw",
        "a b/c": "a_b/c",
        "//x//": "x",
        "-x/.y": "_-x/_.y",
        "a..b": "a._b",
        "grün": "gr_n",
    }.items():
        assert recording.topic_name(recorded) == expected
    assert recording.topic_name("/a", "replay/") == "replay/a"
    with pytest.raises(TopicNameInvalid):
        recording.topic_name("//")


# ---- the command line


@pytest.fixture
def recorder(tmp_path: Path, peer: Any) -> Iterator[tuple[Any, subprocess.Popen[str], Path]]:
    """A publisher in one process, `platform topic record` in another, and the file."""
    file = tmp_path / "run.mcap"
    publisher = peer("publish_when_told", "cam", "16x16x3", "camera")
    assert publisher.line() == "ready"
    process = subprocess.Popen(
        [*PLATFORM, "record", "cam", "-o", str(file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith(f"recording cam to {file} with policy queue"), line
    yield publisher, process, file
    if process.poll() is None:
        process.kill()
        process.communicate()


def publish_and_wait(publisher: Any, count: int) -> None:
    """Publish frames, slowly enough that none is lost, until the recorder took them."""
    for _ in range(count):
        publisher.tell("1")
        head = int(publisher.line())
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            rows = [r for r in shm.inspect("cam").participants if r.role == "subscriber"]
            if rows and rows[0].position >= head:
                break
            time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_closes_the_file_properly(recorder: Any, number: signal.Signals) -> None:
    publisher, process, file = recorder
    publish_and_wait(publisher, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert out == '{"topic":"cam","frames":5,"bytes":3840,"lost":0}\n'
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == 5


def test_kill_9_leaves_a_readable_prefix(recorder: Any, capsys: Any) -> None:
    publisher, process, file = recorder
    publish_and_wait(publisher, 3)
    deadline = time.monotonic() + PATIENCE_S
    while file.stat().st_size < 200 and time.monotonic() < deadline:
        time.sleep(0.02)  # a chunk is written when it is a second old
    process.kill()
    process.communicate()
    found = []
    with file.open("rb") as stream:
        try:
            for _, _, message in NonSeekingReader(stream).iter_messages(log_time_order=False):
                found.append(RawImage.FromString(message.data))
        except EndOfFile:
            pass
    assert [picture.width for picture in found] == [16, 16, 16]
    contents = recording.contents(file)
    assert contents.topics() == {"cam": 3}
    assert not contents.complete
    with shm.Subscriber("cam", "queue"):
        assert main(["topic", "replay", str(file), "--prefix", "again/", "--rate", "0"]) == 0
    out, err = capsys.readouterr()
    assert "was cut off: playing what is there" in err
    assert out.splitlines()[1].split()[:2] == ["again/cam", "3"]


def test_every_prefix_of_a_recording_reads(tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("t", slot_bytes=100) as publisher:

        def publish() -> None:
            for i in range(8):
                publisher.send(bytes([i]) * 100)

        with shm.Topic.open("t"):
            record(file, "t", publish, 8, chunk_bytes=150)
    whole = file.read_bytes()
    counts = []
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.mcap").write_bytes(whole[:length])
        try:
            contents = recording.contents(tmp_path / "cut.mcap")
        except RecordingError:
            counts.append(0)
            continue
        counts.append(sum(contents.topics().values()))
    assert counts == sorted(counts)
    assert counts[-1] == 8
    assert len(set(counts)) > 3


def test_replay_waits_for_subscribers_and_says_what_it_did(tmp_path: Path, peer: Any) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("t", slot_bytes=64) as publisher:
        record(file, "t", lambda: [publisher.send(bytes([i])) for i in range(3)], 3)
    shm.unlink("t")
    process = subprocess.Popen(
        [*PLATFORM, "replay", str(file), "--wait-subscribers", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "waiting for a subscriber of t\n"
    taken = Taken("t", 3)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert out == '{"topic":"t","frames":3,"bytes":3,"dropped":0}\n'
    assert [entry["bytes"] for entry in taken.result()] == [b"\0", b"\1", b"\2"]


def test_replay_lists_and_suggests(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "a.mcap"
    with shm.Publisher("camera", slot_bytes=64) as publisher:
        record(file, "camera", lambda: publisher.send(b"x"), 1)
    assert main(["topic", "replay", str(file), "--list"]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[1].split() == ["camera", "1", "framegate.Frame", "protobuf"]
    assert main(["topic", "replay", str(file), "--list", "--json"]) == 0
    assert '"messages":1' in capsys.readouterr().out
    assert main(["topic", "replay", str(file), "--topic", "camra"]) == 1
    assert "fix: did you mean camera?" in capsys.readouterr().err
    assert main(["topic", "replay", str(tmp_path / "none.mcap")]) == 1
    assert "error: FG-MCAP-001 cannot open" in capsys.readouterr().err
    assert main(["topic", "replay", str(file), "--rate", "-1"]) == 2
    assert main(["topic", "record", "camera"]) == 2


def test_record_for_a_while(tmp_path: Path, capsys: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 100).line() == "ready"
    file = tmp_path / "a.mcap"
    assert main(["topic", "record", "tick*", "-o", str(file), "--duration", "0.3"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["TOPIC", "FRAMES", "PAYLOAD", "LOST"]
    assert int(out.splitlines()[1].split()[1]) > 0
    assert f"recording ticks to {file}" in err


def test_who_is_forgotten_stops(tmp_path: Path) -> None:
    file = tmp_path / "file.mcap"
    with shm.Publisher("t", slot_bytes=8) as publisher:
        recorders = [
            _http.Recorder(file, overwrite=False, compression="none", chunk_bytes=1, bgr=False)
        ]
        publisher.send(b"before")
        recorders[0].add("t", "{}")
        publisher.send(b"first")
        wait_until(lambda: recorders[0].stats()["t"]["frames"] == 1)
        wait_until(lambda: len(threads_named("framegate-record")) == 1)
        recorders.clear()
        wait_until(lambda: len(threads_named("framegate-record")) == 0)
    plan: dict[str, Any] = {"topics": {"t": "again"}, "rate": 1.0, "repeat": True}
    players = [_http.Player(file, **plan, slots=None, slot_bytes=None)]
    players[0].prepare()
    players[0].start()
    wait_until(lambda: players[0].stats()["rounds"] > 1)
    wait_until(lambda: len(threads_named("framegate-replay")) == 1)
    players.clear()
    wait_until(lambda: len(threads_named("framegate-replay")) == 0)
