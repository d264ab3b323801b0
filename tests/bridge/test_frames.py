"""Frames between two bridges on loopback: what arrives, what does not, and what is said of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zenoh

import framegate
from bridge.conftest import BridgeProcess, Host
from framegate import bridge, shm
from framegate.bridge import wire

WAIT_S = 60.0
"""How long anything may take; the watchdog comes later."""

Pair = tuple[BridgeProcess, BridgeProcess]


def link(robot: Host, desk: Host, endpoint: str, send: str = "**", take: str = "**") -> Pair:
    """A bridge on each host; the robot's listens."""
    sender = robot.bridge("--listen", endpoint, "--publish", send)
    return sender, desk.bridge("--zenoh", endpoint, "--subscribe", take)


def publisher(host: Host, topic: str, **options: Any) -> framegate.Publisher:
    with host:
        return shm.Topic.create(topic, **options).publisher()


def subscriber(host: Host, topic: str, policy: str = "queue") -> framegate.Subscriber:
    """Waits until the topic came."""
    with host:
        return framegate.Subscriber(topic, policy, wait=WAIT_S, start="newest")


def take(frames: framegate.Subscriber) -> framegate.Frame:
    frame = frames.take(timeout=WAIT_S)
    assert frame is not None, "no frame came"
    return frame


RECORD = np.dtype([("id", "<u4"), ("at", "<f8", (2,))], align=True)

KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "array": ({"dtype": "uint8", "shape": (4, 6, 3)}, np.arange(72, dtype="u1").reshape(4, 6, 3)),
    "scalar": ({"dtype": "float64", "shape": ()}, np.array(2.5)),
    "bfloat16": (
        {"dtype": "bfloat16", "shape": (2, 3)},
        np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    ),
    "named": (
        {"arrays": {"xyz": ("float32", (5, 3)), "hit": ("bool", (5,))}},
        {"xyz": np.arange(15, dtype="f4").reshape(5, 3), "hit": np.arange(5) % 2 == 0},
    ),
    "any length": (
        {"dtype": "int16", "shape": (None, 2), "slot_bytes": 400},
        np.arange(8, dtype="i2").reshape(4, 2),
    ),
    "empty": (
        {"dtype": "int16", "shape": (None, 2), "slot_bytes": 400},
        np.zeros((0, 2), "i2"),
    ),
    "bytes": ({"slot_bytes": 400}, b"\xff\xd8 a picture"),
    "no bytes": ({"slot_bytes": 400}, b""),
    "free array": ({"slot_bytes": 400}, np.arange(6, dtype="c8").reshape(2, 3)),
    "free named": ({"slot_bytes": 400}, {"a": np.arange(3), "b": np.ones((2, 2), "f2")}),
    "records": (
        {"dtype": RECORD, "shape": (3,)},
        np.array([(i, (i, -i)) for i in range(3)], RECORD),
    ),
    "free records": ({"slot_bytes": 400}, np.array([(7, (8, 9))], RECORD)),
}


def same(frame: framegate.Frame, sent: Any) -> None:
    if isinstance(sent, bytes):
        assert (bytes(memoryview(frame)), frame.arrays) == (sent, {})
        return
    if isinstance(sent, Mapping):
        found = frame.arrays
        assert list(found) == list(sent)
    else:
        found, sent = {"": frame.array}, {"": sent}
    for name, array in sent.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_arrives_as_it_was_published(
    kind: str, robot: Host, desk: Host, endpoint: str
) -> None:
    options, sent = KINDS[kind]
    with publisher(robot, "camera/front", **options) as camera:
        link(robot, desk, endpoint)
        with subscriber(desk, "camera/front") as frames:
            for number in range(1, 4):
                camera.send(
                    sent, timestamp=12.5 * number, metadata={"n": number, "raw": b"\0\xff"},
                    content_type="image/x-test",
                )  # fmt: skip
                with take(frames) as frame:
                    same(frame, sent)
                    assert frame.timestamp == 12.5 * number
                    assert frame.content_type == "image/x-test"
                    metadata = frame.metadata
                    assert (metadata["n"], metadata["raw"]) == (number, b"\0\xff")
                    came_from = bridge.source(frame)
                    assert came_from is not None
                    assert came_from.sequence == number


def unix_less_monotonic_ns() -> int:
    """How far the two clocks are apart, by that of ten readings which was interrupted least."""
    found = []
    for _ in range(10):
        before, unix, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        found.append((after - before, unix - before))
    return min(found)[1]


def test_the_time_of_publication_crosses(robot: Host, desk: Host, endpoint: str) -> None:
    with publisher(robot, "clock", slot_bytes=8) as clock:
        link(robot, desk, endpoint)
        with subscriber(desk, "clock") as frames, robot:
            with framegate.Subscriber("clock", "queue") as near:
                clock.send(b"tick")
                with take(near) as here, take(frames) as there:
                    # On this machine both clocks are the same two.
                    unix_ns = here.published_ns + unix_less_monotonic_ns()
                    found = bridge.source(there)
                    assert found is not None
                    assert abs(found.published_unix_ns - unix_ns) < 100_000_000
                    assert bridge.source(here) is None


def test_a_topic_is_made_like_the_one_there(robot: Host, desk: Host, endpoint: str) -> None:
    spec = shm.ArraySpec("float32", (None, 3), units="m", metadata={"frame": "lidar"})
    with robot:
        topic = shm.Topic.create(
            "lidar/top", arrays={"points": spec}, slots=5, keep=2, slot_bytes=1200,
            metadata={"maker": "us", "key": b"\1"}, checksum="crc32c",
        )  # fmt: skip
    with topic:
        link(robot, desk, endpoint)
        with subscriber(desk, "lidar/top"), desk:
            there = shm.inspect("lidar/top")
    assert dict(there.schema) == {"points": spec}
    assert (there.slots, there.slot_bytes, there.keep) == (5, 1200, 2)
    assert there.checksum == "crc32c"
    metadata = dict(there.metadata)
    assert (metadata.pop("maker"), metadata.pop("key")) == ("us", b"\1")
    assert metadata.pop("bridge.host") == "robot"
    assert metadata.pop("bridge.topic") == "lidar/top"
    assert set(metadata) == {"bridge.host_id", "bridge.source"}


def test_queue_brings_every_frame_in_order_and_counts_add_up(
    robot: Host, desk: Host, endpoint: str
) -> None:
    count = 2000
    with publisher(robot, "imu", dtype="float32", shape=(6,), slots=4000) as imu:
        sender, taker = link(robot, desk, endpoint, "imu,policy=queue", "imu")
        with subscriber(desk, "imu") as frames:
            sender.outgoing("imu", lambda row: row["wanted"])
            for number in range(count):
                imu.send(np.full(6, number, "f4"))
            for number in range(count):
                with take(frames) as frame:
                    assert (frame.array == number).all()
            assert frames.lost == 0
        sent = sender.outgoing("imu", lambda row: row["sent"] == count)
        came = taker.incoming("imu", lambda row: row["received"] == count)
    assert (sent["lost"], sent["limited"], sent["oversize"], sent["failed"]) == (0, 0, 0, 0)
    assert sent["sent_bytes"] == came["published_bytes"] == count * 24
    assert (came["published"], came["lost"], came["repeated"], came["full"]) == (count, 0, 0, 0)


def test_latest_may_jump_and_says_what_it_lost(robot: Host, desk: Host, endpoint: str) -> None:
    count = 500
    with publisher(robot, "camera", dtype="uint8", shape=(1 << 20,)) as camera:
        sender, taker = link(robot, desk, endpoint)
        with subscriber(desk, "camera") as frames:
            sender.outgoing("camera", lambda row: row["wanted"])
            picture = np.zeros(1 << 20, "u1")
            for _ in range(count):
                camera.send(picture)
            last = 0
            while last < count:
                with take(frames) as frame:
                    found = bridge.source(frame)
                    assert found is not None
                    assert found.sequence > last
                    last = found.sequence
        sent = sender.outgoing("camera", lambda row: row["sent"] + row["lost"] == count)
        came = taker.incoming("camera", lambda row: row["received"] == sent["sent"])
    assert came["published"] + came["full"] == came["received"]
    assert came["lost"] == 0


def test_nothing_is_taken_while_nobody_listens(robot: Host, desk: Host, endpoint: str) -> None:
    with publisher(robot, "camera", slot_bytes=8) as camera:
        sender = robot.bridge("--listen", endpoint, "--publish", "**")
        sender.outgoing("camera", lambda row: not row["wanted"])
        for _ in range(100):
            camera.send(b"unseen")
        with robot:
            assert shm.inspect("camera").subscribers == 0
        taker = desk.bridge("--zenoh", endpoint, "--subscribe", "camera")
        sender.outgoing("camera", lambda row: row["wanted"])
        taker.end()
        row = sender.outgoing("camera", lambda row: not row["wanted"])
        assert row["sent"] <= 1  # the newest
        with robot:
            # It leaves with the next frame or heartbeat.
            sender.status(lambda _: shm.inspect("camera").subscribers == 0)


def test_who_comes_late_gets_the_newest_frame(
    robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str
) -> None:
    with publisher(robot, "map", slot_bytes=8) as maps:
        maps.send(b"old")
        maps.send(b"new")
        for late in (desk, host("another")):  # the second one when frames go already
            if late is desk:
                link(robot, desk, endpoint, "map,policy=queue")
            else:
                late.bridge("--zenoh", endpoint, "--subscribe", "map")
            with subscriber(late, "map") as frames:
                with take(frames) as frame:
                    assert bytes(memoryview(frame)) == b"new"
                    assert bridge.source(frame)[0] == 2  # type: ignore[index]


def test_rates_and_sizes_are_limited_on_either_side(robot: Host, desk: Host, endpoint: str) -> None:
    with (
        publisher(robot, "fast", slot_bytes=8, slots=4000) as fast,
        publisher(robot, "large", slot_bytes=4000) as large,
        publisher(robot, "larger", slot_bytes=4000) as larger,
    ):
        sender = robot.bridge(
            "--listen", endpoint, "--publish", "fast,policy=queue,rate=10",
            "--publish", "large,bytes_max=1000", "--publish", "larger",
        )  # fmt: skip
        taker = desk.bridge(
            "--zenoh", endpoint, "--subscribe", "larger,bytes_max=1KiB", "--subscribe", "**"
        )
        with (
            subscriber(desk, "fast"),
            subscriber(desk, "large") as frames,
            subscriber(desk, "larger") as more,
        ):
            for topic in ("fast", "large", "larger"):
                sender.outgoing(topic, lambda row: row["wanted"])
            for _ in range(1000):
                fast.send(b"x")
            row = sender.outgoing("fast", lambda row: row["sent"] + row["limited"] == 1000)
            assert row["limited"] > 0
            assert row["lost"] == 0
            taker.incoming("fast", lambda came: came["received"] == row["sent"])

            large.send(bytes(1001))
            sender.outgoing("large", lambda row: row["oversize"] == 1)
            large.send(bytes(1000))
            with take(frames) as frame:
                assert frame.nbytes == 1000
            assert taker.incoming("large")["received"] == 1

            larger.send(bytes(1025))
            taker.incoming("larger", lambda row: row["oversize"] == 1)
            larger.send(bytes(1024))
            with take(more) as frame:
                assert frame.nbytes == 1024


def test_where_no_slot_is_free_the_frame_is_counted(robot: Host, desk: Host, endpoint: str) -> None:
    with publisher(robot, "camera", slot_bytes=8, slots=4) as camera:
        _, taker = link(robot, desk, endpoint, "**,policy=queue")
        with desk:
            topic = shm.Topic.open("camera", wait=WAIT_S)
        with topic, topic.subscriber("queue", max_leases=3, start="newest") as frames:
            held = []
            for number in range(1, 4):
                camera.send(b"%d" % number)
                held.append(take(frames))
            camera.send(b"4")  # into the last slot, where the newest frame stays
            camera.send(b"5")
            row = taker.incoming("camera", lambda row: row["full"] == 1)
            assert (row["received"], row["published"]) == (5, 4)
            for frame in held:
                frame.release()
            camera.send(b"6")
            for expected in (b"4", b"6"):
                with take(frames) as frame:
                    assert bytes(memoryview(frame)) == expected


def test_what_came_from_another_host_is_not_sent_on(robot: Host, desk: Host, endpoint: str) -> None:
    everything = ("--publish", "**,policy=queue", "--subscribe", "**")
    with (
        publisher(robot, "ping", slot_bytes=8, slots=200) as ping,
        publisher(desk, "pong", slot_bytes=8, slots=200) as pong,
    ):
        one = robot.bridge("--listen", endpoint, *everything)
        other = desk.bridge("--zenoh", endpoint, *everything)
        # A second bridge on the same host knows, too.
        third = desk.bridge("--zenoh", endpoint, "--publish", "ping")
        with subscriber(desk, "ping"), subscriber(robot, "pong"):
            for sender, topic in ((one, "ping"), (other, "pong")):
                sender.outgoing(topic, lambda row: row["wanted"])
            for _ in range(100):
                ping.send(b"ping")
                pong.send(b"pong")
            other.incoming("ping", lambda row: row["published"] == 100)
            one.incoming("pong", lambda row: row["published"] == 100)
            for status in (one.settled(), other.settled()):
                assert len(status["outgoing"]) == len(status["incoming"]) == 1
                assert status["outgoing"][0]["sent"] == 100
                assert status["incoming"][0]["received"] == 100
            assert third.status()["outgoing"] == []
        with robot:
            assert shm.inspect("ping").sequence == 100
            assert shm.topics() == ["ping", "pong"]


def test_hosts_with_the_same_topics_get_names_of_their_own(
    robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str
) -> None:
    other = host("other")
    with (
        publisher(robot, "camera", slot_bytes=8) as of_robot,
        publisher(other, "camera", slot_bytes=8) as of_other,
    ):
        link(robot, desk, endpoint, "**", "**,name=fleet/{host}/{topic}")
        other.bridge("--zenoh", endpoint, "--publish", "**")
        with (
            subscriber(desk, "fleet/robot/camera") as from_robot,
            subscriber(desk, "fleet/other/camera") as from_other,
        ):
            of_robot.send(b"robot")
            of_other.send(b"other")
            assert bytes(memoryview(take(from_robot))) == b"robot"
            assert bytes(memoryview(take(from_other))) == b"other"


def test_of_two_hosts_with_one_name_one_is_followed_until_it_goes(
    robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str
) -> None:
    other = host("other")
    with (
        publisher(robot, "camera", slot_bytes=8) as of_robot,
        publisher(other, "camera", slot_bytes=8) as of_other,
    ):
        router = host("router").bridge("--listen", endpoint)
        first = robot.bridge("--zenoh", endpoint, "--publish", "camera")
        taker = desk.bridge("--zenoh", endpoint, "--subscribe", "camera")
        taker.incoming("camera", lambda row: row["host"] == "robot")
        second = other.bridge("--zenoh", endpoint, "--publish", "camera")
        second.outgoing("camera")
        of_other.send(b"other")
        with subscriber(desk, "camera") as frames:
            of_robot.send(b"robot")
            assert bytes(memoryview(take(frames))) == b"robot"
            assert router.status()["connected"]
            first.end()
            taker.incoming("camera", lambda row: row["host"] == "other")
        with subscriber(desk, "camera") as frames:
            of_other.send(b"still")
            while bytes(memoryview(frame := take(frames))) != b"still":
                frame.release()


def test_a_topic_of_this_host_is_not_touched(robot: Host, desk: Host, endpoint: str) -> None:
    with (
        publisher(robot, "camera", slot_bytes=8),
        publisher(desk, "camera", slot_bytes=16) as own,
    ):
        own.send(b"mine")
        _, taker = link(robot, desk, endpoint)
        text = taker.wait_said("itself")
        assert 'topic "camera" of robot is not taken' in text
        assert "name={host}/{topic}" in text
        with desk:
            assert shm.inspect("camera").publishers == 1
            assert shm.inspect("camera").slot_bytes == 16


def test_a_topic_that_is_made_anew_or_resized_is_followed(
    robot: Host, desk: Host, endpoint: str
) -> None:
    camera = publisher(robot, "camera", slot_bytes=8)
    with camera:
        sender, taker = link(robot, desk, endpoint)
        with subscriber(desk, "camera") as frames:
            camera.send(b"small")
            assert bytes(memoryview(take(frames))) == b"small"
            with robot, shm.Topic.open("camera") as topic:
                topic.resize(slot_bytes=1000)
            camera.send(bytes(900))
            taker.incoming("camera", lambda row: row["oversize"] == 1)
            with desk:
                taker.status(lambda _: shm.inspect("camera").slot_bytes >= 1000)
            camera.send(bytes(901))
            while (frame := take(frames)).nbytes != 901:
                frame.release()
            frame.release()
    with robot:
        shm.unlink("camera")
    with publisher(robot, "camera", dtype="uint8", shape=(2, 2)) as camera:
        with desk:
            taker.status(lambda _: "camera" in shm.topics() and shm.inspect("camera").schema)
        with subscriber(desk, "camera") as frames:
            sender.outgoing("camera", lambda row: row["wanted"])
            camera.send(np.full((2, 2), 7, "u1"))
            with take(frames) as frame:
                assert frame.array.tolist() == [[7, 7], [7, 7]]
                assert bridge.source(frame)[0] == 1  # type: ignore[index]


@pytest.mark.parametrize("which", ["sender", "taker"])
def test_a_killed_bridge_goes_on_where_it_was(
    which: str, robot: Host, desk: Host, host: Callable[[str], Host], endpoint: str
) -> None:
    host("router").bridge("--listen", endpoint)
    with publisher(robot, "camera", slot_bytes=8, slots=16) as camera:
        words = {
            "sender": ("--zenoh", endpoint, "--publish", "**,policy=queue"),
            "taker": ("--zenoh", endpoint, "--subscribe", "**"),
        }
        hosts = {"sender": robot, "taker": desk}
        running = {name: hosts[name].bridge(*words[name]) for name in words}
        with subscriber(desk, "camera") as frames:
            running["sender"].outgoing("camera", lambda row: row["wanted"])
            camera.send(b"1")
            with take(frames) as frame:
                assert bridge.source(frame)[0] == 1  # type: ignore[index]
            running[which].kill()
            running["sender" if which == "taker" else "taker"].status(
                lambda status: (
                    not any(
                        row.get("wanted", row.get("there"))
                        for row in (*status["outgoing"], *status["incoming"])
                    )
                )
            )
            camera.send(b"2")
            running[which] = hosts[which].bridge(*words[which])
            with take(frames) as frame:  # the newest, and not the one before again
                assert bridge.source(frame)[0] == 2  # type: ignore[index]
            running["sender"].outgoing("camera", lambda row: row["wanted"])
            camera.send(b"3")
            with take(frames) as frame:
                assert bridge.source(frame)[0] == 3  # type: ignore[index]
                assert bytes(memoryview(frame)) == b"3"


def test_limits_of_memory_and_topics_hold(robot: Host, desk: Host, endpoint: str) -> None:
    with (
        publisher(robot, "large", slot_bytes=1000, slots=11),
        publisher(robot, "right", slot_bytes=1000, slots=10),
        publisher(robot, "some", slot_bytes=8),
    ):
        robot.bridge("--listen", endpoint, "--publish", "**")
        taker = desk.bridge(
            "--zenoh", endpoint, "--subscribe", "**", "--topic-bytes-max", "10000",
            "--topics-max", "1",
        )  # fmt: skip
        text = taker.wait_said("topics_max is 1")
        assert '"large" of robot is not taken: it needs 11000 bytes here' in text
        with desk:
            assert len(shm.topics()) == 1


# ----------------------------------------------------------------------------------------------
# What no bridge of this version sends


@pytest.fixture
def session(endpoint: str) -> Iterator[Any]:
    """A Zenoh client of the endpoint, once something listens there."""
    opened = []

    def start() -> Any:
        config = zenoh.Config()
        config.insert_json5("mode", '"client"')
        config.insert_json5("connect/endpoints", json.dumps([endpoint]))
        config.insert_json5("connect/timeout_ms", "20000")
        config.insert_json5("connect/exit_on_failure", "false")
        config.insert_json5("scouting/multicast/enabled", "false")
        opened.append(zenoh.open(config))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


STREAM = bytes(range(16))
GHOST = bytes(range(16, 32))


def ghost(session: Any, **changes: Any) -> Callable[[int], bytes]:
    """A host without framegate that offers a topic `ghost`; returns what makes heads for it."""
    about = {
        "version": wire.VERSION, "host": "ghost", "host_id": GHOST.hex(), "stream": STREAM.hex(),
        "topic": "ghost", "slots": 4, "slot_bytes": 8, "keep": 1, "checksum": None,
        "metadata_bytes": 4096, "metadata": {}, "arrays": [], "records": [], "identity": "1",
    } | changes  # fmt: skip
    session.declare_queryable(
        "framegate/info/ghost/**",
        lambda query: query.reply("framegate/info/ghost/ghost", json.dumps(about).encode()),
    )
    token = f"framegate/live/ghost/{GHOST.hex()}/{STREAM.hex()}/frames/ghost"
    KEPT.append(session.liveliness().declare_token(token))

    def head(number: int) -> bytes:
        tail = wire.tail_to(wire.Tail([]))
        made = wire.Head(wire.FRAME, GHOST, STREAM, number, number, 0, None)
        return wire.head_to(made, tail)

    return head


def sender_of(session: Any) -> Any:
    """What puts frames of `ghost`, once somebody listens: before, Zenoh drops them at once."""
    made = session.declare_publisher("framegate/frames/ghost/ghost")
    heard = threading.Event()

    def on_matching(status: Any) -> None:
        if status.matching:
            heard.set()

    listener = zenoh.handlers.Callback(on_matching, indirect=False)
    KEPT.append(made.declare_matching_listener(listener))
    on_matching(made.matching_status)
    assert heard.wait(WAIT_S)
    return made


KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    KEPT.clear()


def test_frames_of_another_version_are_refused_and_said(
    desk: Host, endpoint: str, session: Callable[[], Any]
) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    zenoh_session = session()
    head = ghost(zenoh_session)
    with subscriber(desk, "ghost") as frames:
        put = sender_of(zenoh_session).put
        newer = head(1)[:4] + bytes([wire.VERSION + 1]) + b"whatever comes then"
        put(b"payload", attachment=newer)
        taker.incoming("ghost", lambda row: row["incompatible"] == 1)
        assert f"version {wire.VERSION + 1}, this bridge reads {wire.VERSION}" in taker.text()
        assert "run the same version" in taker.text()
        put(b"right", attachment=head(1))
        with take(frames) as frame:
            assert bytes(memoryview(frame)) == b"right"


def test_topics_of_another_version_are_not_made(
    desk: Host, endpoint: str, session: Callable[[], Any]
) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    ghost(session(), version=wire.VERSION + 1)
    text = taker.wait_said("run the same version")
    assert f"its bridge speaks version {wire.VERSION + 1}" in text
    with desk:
        assert shm.topics() == []


def test_nonsense_is_refused_and_harms_nothing(
    desk: Host, endpoint: str, session: Callable[[], Any]
) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    zenoh_session = session()
    head = ghost(zenoh_session)

    def layout(*arrays: Any) -> bytes:
        made = wire.Head(wire.FRAME, GHOST, STREAM, layout_number[0], layout_number[0], 0, None)
        layout_number[0] += 1
        return wire.head_to(made, wire.tail_to(wire.Tail(list(arrays))))

    layout_number = [1]
    bad: list[tuple[bytes, bytes | None]] = [
        (b"", None),
        (b"", b""),
        (b"", b"FG"),
        (b"", b"FGbr\1"),
        (b"", b"JSON" + head(1)[4:]),
        (b"", head(1)[:-1]),
        (b"", head(1) + b" "),
        (b"1234", layout(["", "float32", [2]])),  # half a frame
        (b"1234", layout(["", "float33", [1]])),
        (b"1234", layout(["", "float32", [-1]])),
        (b"1234", layout(["", "float32", [2**62, 2**62]])),
        (b"1234", layout(["", "float32", "x"])),
        (b"1234", layout([1, 2, 3])),
        (b"1234", layout(["a", "float32", [1], [0, 4, 1, 1]])),
    ]
    with subscriber(desk, "ghost") as frames:
        put = sender_of(zenoh_session).put
        for count, (payload, attachment) in enumerate(bad, 1):
            put(payload, attachment=attachment)
            taker.incoming("ghost", lambda row, count=count: row["refused"] == count)  # type: ignore[misc]
        put(bytes(9), attachment=head(100))  # more than a slot
        taker.incoming("ghost", lambda row: row["oversize"] == 1)
        stranger = wire.Head(wire.FRAME, GHOST, GHOST, 1, 1, 0, None)
        put(b"", attachment=wire.head_to(stranger, b""))
        put(b"old", attachment=head(5))  # out of order: never backwards
        taker.incoming("ghost", lambda row: row["stray"] == 2)
        put(b"right", attachment=head(103))
        with take(frames) as frame:
            assert bytes(memoryview(frame)) == b"right"
        row = taker.incoming("ghost", lambda row: row["published"] == 1)
        # 8 to 99, 101, 102: what the numbers leave out is lost.
        assert row["lost"] == (100 - 7 - 1) + 2
    # None of it changed the topic.
    with desk:
        assert shm.inspect("ghost").slot_bytes == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": "many"},
        {"slots": 10**9},
        {"arrays": [["a"]]},
        {"arrays": [["", "float33", [1], None, {}]]},
        {"metadata": "x"},
        {"identity": None, "arrays": 5},
        {"keep": 0, "slots": 1},
        {"records": [["a", "float32", [3], [0]]]},
    ],
    ids=str,
)
def test_topics_that_cannot_be_are_not_made(
    changes: dict[str, Any], desk: Host, endpoint: str, session: Callable[[], Any]
) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    ghost(session(), **changes)
    assert 'topic "ghost" of ghost is not taken' in taker.wait_said("is not taken")
    with desk:
        assert shm.topics() == []


def test_a_lost_last_frame_counts(desk: Host, endpoint: str, session: Callable[[], Any]) -> None:
    taker = desk.bridge("--listen", endpoint, "--subscribe", "**")
    zenoh_session = session()
    head = ghost(zenoh_session)
    with subscriber(desk, "ghost"):
        put = sender_of(zenoh_session).put
        put(b"1", attachment=head(1))
        taker.incoming("ghost", lambda row: row["received"] == 1)
        beat = wire.Head(wire.HEARTBEAT, GHOST, STREAM, 4, 0, 0, None)
        put(b"", attachment=wire.head_to(beat, b""))
        row = taker.incoming("ghost", lambda row: row["lost"] == 3)
        assert row["received"] == 1
        put(b"5", attachment=head(5))
        row = taker.incoming("ghost", lambda row: row["received"] == 2)
        assert row["lost"] == 3


def test_publishers_of_several_threads_keep_their_order(
    robot: Host, desk: Host, endpoint: str
) -> None:
    with publisher(robot, "many", dtype="uint32", shape=(2,), slots=2100) as many:
        sender, taker = link(robot, desk, endpoint, "**,policy=queue")
        with subscriber(desk, "many") as frames:
            sender.outgoing("many", lambda row: row["wanted"])

            def send(who: int) -> None:
                for number in range(500):
                    many.send(np.array([who, number], "u4"))

            threads = [threading.Thread(target=send, args=(who,)) for who in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            last = [-1] * 4
            for number in range(1, 2001):
                with take(frames) as frame:
                    who, at = map(int, frame.array)
                    assert at == last[who] + 1
                    last[who] = at
                    assert bridge.source(frame)[0] == number  # type: ignore[index]
        taker.incoming("many", lambda row: row["published"] == 2000)
