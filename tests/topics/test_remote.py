"""`framegate.remote`: frames, lists and calls of another machine, with the names of this one.

All servers are `platform serve` in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets.exceptions
import websockets.sync.server

import framegate
from client.test_opening import Proxy
from conformance.process import free_port
from framegate import client, errors, remote
from framegate._shm import frame_over
from framegate.client import (
    ClientArgumentError,
    ConnectionClosedError,
    ProxyFailed,
    ServerUnreachable,
    TlsFailed,
)
from framegate.remote import sockets
from framegate.remote.wire import HEAD
from server_process import Launch, ServerProcess
from tls.authority import Authority

SHAPE = (4, 6, 3)
PATIENCE_S = 30
RULES = {
    "camera/*": {"create": True, "slots": 4, "dtype": "uint8", "shape": list(SHAPE)},
    "free/*": {"create": True, "slots": 8, "slot_bytes": "64KiB"},
}
VIEWER, ROBOT = "viewer-viewer-viewer", "robot-robot-robot-robot"
TOKENS = {
    "viewer": {"token": VIEWER, "read": "**", "list": "**"},
    "robot": {"token": ROBOT, "publish": "**", "call": "**"},
}

Start = Callable[..., ServerProcess]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(launch: Launch, runtime: Path) -> Start:
    def start(*words: str, **environment: str) -> ServerProcess:
        extra = {
            "FRAMEGATE_RUNTIME_DIR": str(runtime),
            **environment,
        }
        rules = [f"--topic-rules={name} {json.dumps(rule)}" for name, rule in RULES.items()]
        options = ["--topics", "/topics", *rules, *words]
        return launch("topics.blocking_app:app", *options, extra=extra).wait_ready()

    return start


@pytest.fixture
def place(start: Start) -> str:
    return f"http://127.0.0.1:{start().port}"


@pytest.fixture
def url(place: str) -> str:
    return f"{place}/topics"


@pytest.fixture
def cam(runtime: Path) -> Iterator[framegate.Publisher]:
    with framegate.Publisher("cam", dtype="uint8", shape=SHAPE, slots=8) as publisher:
        yield publisher


def picture(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def taken(frames: Any) -> framegate.Frame:
    frame = frames.take(timeout=PATIENCE_S)
    assert frame is not None
    return frame


def reached(frames: remote.Subscriber, publisher: framegate.Publisher) -> None:
    """Wait until a frame that is published now arrives."""
    publisher.send(picture(0))
    while taken(frames).sequence < publisher.sequence:
        pass


# --------------------------------------------------------------------------------------------
# The same as on one machine


def test_the_same_loop_reads_here_and_there(url: str, cam: framegate.Publisher) -> None:
    def watch(frames: Any) -> list[Any]:
        seen = []
        with frames:
            for frame in frames:
                assert type(frame) is framegate.Frame
                with frame:
                    array = frame.array
                    assert not array.flags.writeable
                    assert array.flags.aligned
                    age = time.monotonic_ns() - frame.published_ns
                    assert -1e9 <= age < 60e9  # two clocks of one machine: never far apart
                    seen.append(
                        (frame.shape, frame.dtype, frame.nbytes, frame.timestamp,
                         frame.content_type, frame.metadata, list(frame.arrays), frame.lost,
                         int(array[0, 0, 0]), bytes(memoryview(frame))[:2], str(frame)[-24:])
                    )  # fmt: skip
                    del array
                assert frame.released
                if len(seen) == 2:
                    return seen
                cam.send(picture(8), timestamp=2.5)
        raise AssertionError("the topic goes on")

    results = []
    for kind, topic in ((framegate.Subscriber, "cam"), (remote.Subscriber, f"{url}/cam")):
        cam.send(picture(7), timestamp=1.5)
        results.append(watch(kind(topic)))
    assert results[0] == results[1]
    assert results[0][0][:4] == (SHAPE, "uint8", 72, 1.5)


def test_a_frame_of_the_network_is_a_frame(url: str, cam: framegate.Publisher) -> None:
    cam.send(picture(7), timestamp=1.5)
    with remote.Subscriber(f"{url}/cam") as frames:
        frame = taken(frames)
    array = frame.array
    with pytest.raises(BufferError, match="1 view"):
        frame.release()
    with pytest.raises(errors.ShmArgumentError, match="over the network"):
        frame.nack()
    # It goes on into shared memory as one of this machine does, and outlives its subscriber.
    with framegate.Publisher("copy") as copy:
        copy.send(frame)
        with framegate.Subscriber("copy") as other, taken(other) as again:
            assert np.array_equal(again.array, array)
    assert np.array_equal(np.from_dlpack(frame), array)
    del array
    frame.release()
    assert frame.released
    with pytest.raises(errors.ShmError):
        _ = frame.array


@pytest.mark.parametrize("begin", [0, 3, 32])
def test_numbers_lie_where_they_may_be_looked_at(begin: int) -> None:
    numbers = np.arange(6, dtype="float64")
    message = bytes(begin) + numbers.tobytes()
    frame = frame_over(message, begin, dtype="float64", shape=(2, 3), content_type="x/y", lost=2)
    assert frame.array.flags.aligned
    assert np.array_equal(frame.array.reshape(-1), numbers)
    assert (frame.content_type, frame.lost, frame.sequence) == ("x/y", 2, 0)
    frame.release()
    assert frame.content_type == "x/y"


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("uint8", (4,), 3),
        ("uint8", (4,), 5),
        ("float64", (), 7),
        ("float99", (1,), 1),
        ("uint8", (0, 4), 4),
        ("uint8", (2**32, 2**32), 0),
        ("uint8", (2**64 - 1,), 1),
        ("uint8", (1,) * 9, 1),
        ("uint8", (0, 2**64 - 1), 0),
    ],
)
def test_shapes_that_cannot_be_are_refused(dtype: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(errors.SchemaMismatch):
        frame_over(bytes(size), 0, dtype=dtype, shape=shape)


@pytest.mark.parametrize(("shape", "size"), [((), 8), ((0, 4), 0), ((1,) * 8, 8), ((3,), 24)])
def test_shapes_at_the_limits_are_frames(shape: tuple[int, ...], size: int) -> None:
    frame = frame_over(bytes(size), 0, dtype="float64", shape=shape)
    assert (frame.shape, frame.nbytes) == (shape, size)
    with pytest.raises(ValueError, match="behind the end"):
        frame_over(bytes(size), size + 1)


# --------------------------------------------------------------------------------------------
# Which frames come


def test_latest_takes_the_newest_and_counts_the_lost(url: str, cam: framegate.Publisher) -> None:
    with remote.Subscriber(f"{url}/cam") as frames:
        cam.send(picture(1))
        assert taken(frames).sequence == 1
        for value in range(2, 7):
            cam.send(picture(value))
        frame = taken(frames)
        assert (frame.sequence, frame.lost) == (6, 4)
        assert frames.take(timeout=0.05) is None
        assert frames.try_take() is None
        cam.send(picture(7))
        assert taken(frames).sequence == 7
        assert (frames.received, frames.lost) == (3, 4)


def test_queue_takes_every_frame_in_order(url: str, cam: framegate.Publisher) -> None:
    with remote.Subscriber(f"{url}/cam", "queue") as frames:
        for value in range(1, 101):
            assert cam.send(picture(value)) == value
            assert int(taken(frames).array[0, 0, 0]) == value
        assert (frames.received, frames.lost) == (100, 0)


def test_a_slow_consumer_loses_frames_and_stops_nobody(url: str, runtime: Path) -> None:
    count, size = 400, 100_000

    def publish(number: int) -> None:
        assert publisher.send(number.to_bytes(4, "little") * (size // 4)) == number

    with (
        framegate.Publisher("big", slots=8, slot_bytes=size) as publisher,
        remote.Subscriber(f"{url}/big", "queue", queue=2) as frames,
    ):
        publish(1)
        sequences, lost = [taken(frames).sequence], 0
        for number in range(2, count + 1):
            publish(number)
        while sequences[-1] < count:
            frame = taken(frames)
            # None is torn.
            assert set(np.frombuffer(memoryview(frame), "<u4")) == {frame.sequence}
            sequences.append(frame.sequence)
            lost += frame.lost
        assert sequences == sorted(set(sequences))
        # 40 MB do not fit into the buffers of a connection.
        assert lost == frames.lost == count - len(sequences) > 0


def test_frames_come_as_pictures_too(url: str, cam: framegate.Publisher) -> None:
    with remote.Subscriber(f"{url}/cam?format=jpeg&quality=90", "unasked", rate=1000) as frames:
        cam.send(picture(1))
        frame = taken(frames)
    assert frame.content_type == "image/jpeg"
    assert bytes(memoryview(frame)).startswith(b"\xff\xd8")
    assert frame.arrays == {}


def test_what_cannot_be_shown_is_said(url: str, runtime: Path) -> None:
    with (
        framegate.Publisher("text", slot_bytes=10) as publisher,
        remote.Subscriber(f"{url}/text?format=jpeg") as frames,
    ):
        publisher.send(b"words")
        with pytest.raises(errors.ShmError, match="no-picture"):
            frames.take(timeout=PATIENCE_S)


def test_the_newest_frame_is_got_and_waited_for(url: str, cam: framegate.Publisher) -> None:
    assert remote.latest(f"{url}/cam") is None
    cam.send(picture(1), timestamp=0.5)
    frame = remote.latest(f"{url}/cam")
    assert frame is not None
    assert (frame.sequence, frame.timestamp, frame.content_type) == (1, 0.5, None)
    assert abs(time.monotonic_ns() - frame.published_ns) < 60e9
    assert np.array_equal(frame.array, picture(1))
    assert remote.latest(f"{url}/cam", after=1, timeout=0.05) is None
    later = threading.Timer(0.1, cam.send, [picture(2)])
    later.start()
    frame = remote.latest(f"{url}/cam", after=1, timeout=20)
    later.join()
    assert frame is not None
    assert frame.sequence == 2
    frame = remote.latest(f"{url}/cam?format=png")
    assert frame is not None
    assert frame.content_type == "image/png"


# --------------------------------------------------------------------------------------------
# Publishing


def test_arrays_are_published_and_answered(url: str) -> None:
    with remote.Publisher(f"{url}/camera/a") as publisher:
        assert publisher.send(picture(3), timestamp=0.25) == 1
        with framegate.Subscriber("camera/a") as frames, taken(frames) as frame:
            assert np.array_equal(frame.array, picture(3))
            assert frame.timestamp == 0.25
        with pytest.raises(errors.SchemaMismatch):
            publisher.send(np.zeros(3, "float32"))
        # It goes on with what fits.
        assert publisher.send(picture(4)[::-1]) == 2
        assert publisher.published == 2
        with pytest.raises(ClientArgumentError, match="do not mix"):
            asyncio.run(publisher.send_async(picture(1)))
    with pytest.raises(errors.ClosedError):
        publisher.send(picture(5))


def test_batches_are_longer_than_what_may_wait(url: str) -> None:
    # Answers to so many fill every buffer on the way: whoever only sent would wait for ever.
    count = 20_000
    with remote.Publisher(f"{url}/free/a") as publisher:
        assert publisher.send_all([]) == []
        assert publisher.send_all(b"x" for _ in range(count)) == list(range(1, count + 1))
        kinds = [b"abc", picture(1), picture(2), b"abc"]
        assert publisher.send_all(kinds) == list(range(count + 1, count + 5))
        # One of them is refused, and the others are published.
        with pytest.raises(errors.FrameTooLarge):
            publisher.send_all([b"1", bytes(65_537), b"2"])
        assert publisher.published == count + 6
        assert publisher.send(bytes(65_536)) == count + 7


def test_bytes_and_arrays_of_all_kinds(url: str) -> None:
    with remote.Publisher(f"{url}/free/b") as publisher:
        for data, dtype, shape in [
            (b"abc", "uint8", (3,)),
            (memoryview(b"abcdef")[::2], "uint8", (3,)),
            (np.arange(6, dtype=">i4").reshape(2, 3), "int32", (2, 3)),
            (np.asfortranarray(np.arange(6.0).reshape(2, 3)), "float64", (2, 3)),
            (np.zeros((0, 3), "float32"), "float32", (0, 3)),
            (np.ones(3, "complex64"), "complex64", (3,)),
            (b"", "uint8", (0,)),
        ]:
            sequence = publisher.send(data)
            frame = remote.latest(f"{url}/free/b")
            assert frame is not None
            assert (frame.sequence, frame.dtype, frame.shape) == (sequence, dtype, shape)
            if isinstance(data, np.ndarray):
                assert np.array_equal(frame.array, data)
            # A frame is published as what it is.
            publisher.send(frame)
            again = remote.latest(f"{url}/free/b")
            assert again is not None
            assert (again.dtype, again.shape) == (dtype, shape)
            assert bytes(memoryview(again)) == bytes(memoryview(frame))
        publisher.send(b"\xff\xd8\xff", content_type="image/jpeg")
        frame = remote.latest(f"{url}/free/b")
        assert frame is not None
        assert frame.content_type == "image/jpeg"
        refused: list[tuple[Any, str]] = [
            ({"a": picture(1)}, "several named arrays"),
            (np.array([{}]), "arrays of object"),
            (np.zeros(2, "i4,f4"), "do not travel"),
            (np.float32(2.5), "without dimensions"),
        ]
        for wrong, complaint in refused:
            with pytest.raises(ClientArgumentError, match=complaint):
                publisher.send(wrong)


def test_a_full_topic_refuses_one_frame(url: str, runtime: Path) -> None:
    with (
        framegate.Topic.create("camera/full", dtype="uint8", shape=SHAPE, slots=3) as topic,
        topic.subscriber("queue", max_leases=2) as holder,
        remote.Publisher(f"{url}/camera/full") as publisher,
    ):
        publisher.send(picture(1))
        held = [taken(holder)]
        publisher.send(picture(2))
        held.append(taken(holder))
        # The third slot has the newest frame, which stays.
        publisher.send(picture(3))
        with pytest.raises(errors.TopicFull):
            publisher.send(picture(4))
        for frame in held:
            frame.release()
        assert publisher.send(picture(4)) == 4


def test_threads_share_a_publisher(url: str) -> None:
    sequences: list[int] = []
    with remote.Publisher(f"{url}/free/c") as publisher:

        def run() -> None:
            for _ in range(100):
                sequences.append(publisher.send(b"x"))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(sequences) == list(range(1, 401))


# --------------------------------------------------------------------------------------------
# Event loops


def test_event_loops_have_the_same(url: str) -> None:
    async def main() -> None:
        async with remote.Publisher(f"{url}/camera/b") as publisher:
            assert await publisher.send_async(picture(1)) == 1
            async with remote.Subscriber(f"{url}/camera/b") as frames:
                count = 0
                async for frame in frames:
                    count += 1
                    assert frame.sequence == count
                    if count == 5:
                        break
                    assert await publisher.send_async(picture(count)) == count + 1
                with pytest.raises(ClientArgumentError, match="do not mix"):
                    frames.take(timeout=1)
                assert await frames.take_async(timeout=0.05) is None
            sent = await publisher.send_all_async([picture(1)] * 1000)
            assert sent == list(range(6, 1006))
            several = await asyncio.gather(*(publisher.send_async(picture(2)) for _ in range(20)))
            assert sorted(several) == list(range(1006, 1026))
        newest = await remote.latest_async(f"{url}/camera/b")
        assert newest is not None
        assert newest.sequence == 1025
        assert [topic["name"] for topic in await remote.topics_async(url)] == ["camera/b"]
        with pytest.raises(errors.TopicNotFound):
            async with remote.Subscriber(f"{url}/missing"):
                pass

    asyncio.run(main())


def test_a_block_of_the_plain_kind_does_not_stop_a_loop(url: str, cam: framegate.Publisher) -> None:
    async def main() -> None:
        # As one writes it with framegate.Subscriber.
        with remote.Subscriber(f"{url}/cam", "queue") as frames:
            waiting = asyncio.ensure_future(frames.take_async())
            while not waiting.done():
                cam.send(picture(1))
                await asyncio.sleep(0.01)
            assert waiting.result().shape == SHAPE
        assert frames.closed
        assert [frame async for frame in frames] == []

    asyncio.run(main())


def test_a_cancelled_send_does_not_confuse_the_next(url: str) -> None:
    async def main() -> None:
        async with remote.Publisher(f"{url}/free/d") as publisher:
            await publisher.send_async(b"first")
            for turns in range(40):
                task = asyncio.ensure_future(publisher.send_async(b"cancelled"))
                for _ in range(turns % 8):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                sequence = await publisher.send_async(b"%d" % turns)
                frame = await remote.latest_async(f"{url}/free/d")
                assert frame is not None
                assert (frame.sequence, bytes(memoryview(frame))) == (sequence, b"%d" % turns)

    asyncio.run(main())


# --------------------------------------------------------------------------------------------
# What goes wrong


def test_refusals_have_the_names_of_this_machine(place: str, url: str) -> None:
    for ask in (
        lambda: remote.Subscriber(f"{url}/missing").take(timeout=5),
        lambda: remote.Subscriber(f"{url}/missing", reconnect=True).take(timeout=5),
        lambda: remote.latest(f"{url}/missing"),
        lambda: remote.Publisher(f"{url}/missing").send(b"x"),
        lambda: remote.call(f"{place}/call/missing"),
    ):
        with pytest.raises(errors.TopicNotFound):
            ask()
    with pytest.raises(errors.TopicNameInvalid):
        remote.latest(f"{url}/..a")
    with pytest.raises(remote.RequestRefused, match="400") as refused:
        remote.latest(f"{url}/missing?format=gif")
    assert refused.value.status == 400
    assert not refused.value.is_passing
    with pytest.raises(ClientArgumentError, match="latest, queue or unasked"):
        remote.Subscriber(f"{url}/cam", "reliable")
    with pytest.raises(ClientArgumentError, match="goes with the policy queue"):
        remote.Subscriber(f"{url}/cam", queue=3)
    for wrong in ("cam", "ws://host/topics/cam", "http://"):
        with pytest.raises(ClientArgumentError):
            remote.Subscriber(wrong)
        with pytest.raises(ClientArgumentError):
            remote.Caller(wrong)
    with pytest.raises(errors.RemoteProtocolError, match="lists no topics"):
        remote.topics(f"{place}/elsewhere")


def test_nobody_does_what_no_token_allows(start: Start, cam: framegate.Publisher) -> None:
    server = start("--no-topics-local", FRAMEGATE_TOPICS_TOKENS=tables(TOKENS))
    place = f"http://127.0.0.1:{server.port}"
    url = f"{place}/topics"
    cam.send(picture(1))

    def read(token: str | None) -> Any:
        with remote.Subscriber(f"{url}/cam", token=token) as frames:
            return taken(frames)

    def get(token: str | None) -> Any:
        return remote.latest(f"{url}/cam", token=token)

    def publish(token: str | None) -> Any:
        with remote.Publisher(f"{url}/cam", token=token) as publisher:
            return publisher.send(picture(2))

    def enumerate_(token: str | None) -> Any:
        return remote.topics(url, token=token)

    def call(token: str | None) -> Any:
        return remote.call(f"{place}/call/cam", token=token)

    for ask in (read, get, enumerate_):
        assert ask(VIEWER)
    assert publish(ROBOT) == 2
    with pytest.raises(errors.NoResponder):
        call(ROBOT)
    for ask, wrong in (
        (read, (None, ROBOT, "nobody-nobody-nobody")),
        (get, (None, ROBOT, "nobody-nobody-nobody")),
        (publish, (None, VIEWER, "nobody-nobody-nobody")),
        (enumerate_, (None, "nobody-nobody-nobody")),
        (call, (None, VIEWER, "nobody-nobody-nobody")),
    ):
        for token in wrong:
            with pytest.raises(errors.PermissionDenied):
                ask(token)


def tables(tokens: dict[str, dict[str, str]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in tokens.items()
    )


def test_limits_of_frames(url: str, runtime: Path) -> None:
    size = 10_000
    with framegate.Publisher("big", slot_bytes=size) as publisher:
        publisher.send(bytes(size))
        # On its way a frame has a head of 32 bytes, and an extension that says nothing here.
        with remote.Subscriber(f"{url}/big", message_bytes_max=size + 40) as frames:
            assert taken(frames).nbytes == size
        with (
            remote.Subscriber(f"{url}/big", message_bytes_max=size + 39) as frames,
            pytest.raises(ConnectionClosedError) as closed,
        ):
            frames.take(timeout=PATIENCE_S)
        assert closed.value.close_code == 1009
        frame = remote.latest(f"{url}/big", message_bytes_max=size)
        assert frame is not None
        assert frame.nbytes == size
        with pytest.raises(errors.FrameTooLarge, match="message_bytes_max"):
            remote.latest(f"{url}/big", message_bytes_max=size - 1)


def killed(server: ServerProcess) -> None:
    server.process.kill()
    server.wait()


def test_a_killed_server_ends_what_waits_for_it(start: Start, cam: framegate.Publisher) -> None:
    server = start()
    url = f"http://127.0.0.1:{server.port}/topics"
    with (
        remote.Subscriber(f"{url}/cam") as frames,
        remote.Publisher(f"{url}/cam") as publisher,
        remote.Caller(f"http://127.0.0.1:{server.port}/call/cam") as caller,
    ):
        publisher.send(picture(1))
        assert taken(frames).sequence == 1
        with pytest.raises(errors.NoResponder):
            caller.call()
        # It waits in a take while the server dies.
        waiting = threading.Timer(0.1, killed, [server])
        waiting.start()
        with pytest.raises(ConnectionClosedError) as closed:
            frames.take(timeout=PATIENCE_S)
        waiting.join()
        assert (closed.value.close_code, closed.value.by_server) == (1006, True)
        with pytest.raises(ConnectionClosedError):
            publisher.send(picture(2))
        for again in (
            lambda: frames.take(timeout=PATIENCE_S),
            lambda: publisher.send(picture(2)),
            lambda: caller.call(),
            lambda: remote.latest(f"{url}/cam"),
        ):
            with pytest.raises(ServerUnreachable):
                again()
    # The topic is its publisher's, and goes on.
    assert cam.send(picture(3)) == 2


@pytest.mark.parametrize("how", ["threads", "asyncio"])
def test_it_goes_on_with_the_next_server(
    start: Start, cam: framegate.Publisher, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PAUSE_FIRST_S", 0.02)
    port = free_port()
    server = start("--port", str(port))
    frames = remote.Subscriber(f"http://127.0.0.1:{port}/topics/cam", reconnect=True)
    caller = remote.Caller(f"http://127.0.0.1:{port}/call/cam")
    publisher = remote.Publisher(f"http://127.0.0.1:{port}/topics/cam")
    seen = []
    restarted = threading.Event()

    def restart() -> None:
        killed(server)
        cam.send(picture(2))
        cam.send(picture(3))
        start("--port", str(port))
        restarted.set()

    restarting = threading.Thread(target=restart)

    def note(frame: framegate.Frame) -> bool:
        seen.append((frame.sequence, frame.lost))
        if len(seen) == 1:
            assert publisher.send(picture(9)) == 2
            with pytest.raises(errors.NoResponder):
                caller.call()
        if len(seen) == 2:
            restarting.start()
        return len(seen) == 3

    async def on_a_loop() -> None:
        async with frames:
            async for frame in frames:
                if note(frame):
                    return

    cam.send(picture(1))
    if how == "threads":
        with frames:
            for frame in frames:
                if note(frame):
                    break
    else:
        asyncio.run(on_a_loop())
    restarting.join(60)
    assert restarted.is_set()
    assert seen == [(1, 0), (2, 0), (4, 1)]
    with caller, publisher:
        # Connections to the old server are noticed, where nothing is lost by that.
        with pytest.raises(errors.NoResponder):
            caller.call()
        with pytest.raises(ConnectionClosedError):
            publisher.send(picture(4))
        assert publisher.send(picture(4)) == 5


def test_a_server_that_stops_says_so(start: Start, cam: framegate.Publisher) -> None:
    server = start()
    cam.send(picture(1))
    with remote.Subscriber(f"http://127.0.0.1:{server.port}/topics/cam") as frames:
        assert taken(frames).sequence == 1
        server.signal(signal.SIGTERM)
        # 1012: the server goes away, which is no end of the topic.
        with pytest.raises(ConnectionClosedError) as closed:
            for _ in frames:
                raise AssertionError("there is no other frame")
        assert closed.value.close_code == 1012
        assert server.wait() == 0


def test_closing_ends_a_take_of_another_thread(url: str, cam: framegate.Publisher) -> None:
    frames = remote.Subscriber(f"{url}/cam", "queue")
    with frames:
        reached(frames, cam)
        ended = threading.Event()

        def run() -> None:
            for _ in frames:
                pass
            ended.set()

        thread = threading.Thread(target=run)
        thread.start()
    thread.join(60)
    assert ended.is_set()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        place = f"http://127.0.0.1:{held.getsockname()[1]}"
    for ask in (
        lambda: remote.latest(f"{place}/topics/cam"),
        lambda: remote.call(f"{place}/call/cam"),
        lambda: remote.topics(f"{place}/topics"),
        lambda: remote.Publisher(f"{place}/topics/cam").send(b"x"),
        lambda: remote.Subscriber(f"{place}/topics/cam").take(timeout=5),
    ):
        with pytest.raises(ServerUnreachable) as caught:
            ask()
        assert caught.value.is_passing
    # It goes on trying for as long as it may.
    assert remote.Subscriber(f"{place}/topics/cam", reconnect=True).take(timeout=0.1) is None


def test_a_silent_server_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            remote.latest(f"{place}/topics/cam", open_timeout=0.1)
        with pytest.raises(TimeoutError):
            remote.Publisher(f"{place}/topics/cam", open_timeout=0.1).send(b"x")
        assert remote.Subscriber(f"{place}/topics/cam").take(timeout=0.1) is None


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", errors.RemoteProtocolError),
        (bytes(31), errors.RemoteProtocolError),
        (HEAD.pack(2, 0, 32, 0, 1, 0, 0.0), errors.RemoteProtocolError),
        (HEAD.pack(1, 0, 99, 0, 1, 0, 0.0), errors.RemoteProtocolError),
        (HEAD.pack(1, 0, 34, 1, 1, 0, 0.0) + b"[]", errors.RemoteProtocolError),
        (HEAD.pack(1, 0, 33, 1, 1, 0, 0.0) + b"{", errors.RemoteProtocolError),
        (HEAD.pack(1, 0, 49, 1, 1, 0, 0.0) + b'{"dtype":"uint8"}', errors.RemoteProtocolError),
        (
            HEAD.pack(1, 0, 63, 1, 1, 0, 0.0) + b'{"dtype":"uint8","shape":["1"]}x',
            errors.RemoteProtocolError,
        ),
        (
            HEAD.pack(1, 0, 61, 1, 1, 0, 0.0) + b'{"dtype":"uint8","shape":[2]}x',
            errors.SchemaMismatch,
        ),
        ("hello", errors.ShmError),
    ],
)  # fmt: skip
def test_a_server_that_says_anything(message: bytes | str, error: type[Exception]) -> None:
    def answer(connection: websockets.sync.server.ServerConnection) -> None:
        connection.send(message)
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            connection.recv()

    with websockets.sync.server.serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        with (
            remote.Subscriber(f"http://127.0.0.1:{port}/topics/cam") as frames,
            pytest.raises(error),
        ):
            frames.take(timeout=PATIENCE_S)
        server.shutdown()
        thread.join(30)


# --------------------------------------------------------------------------------------------
# The way there


def test_tls_with_an_authority_of_ones_own(
    start: Start, cam: framegate.Publisher, tmp_path: Path
) -> None:
    authority, other = Authority(), tmp_path / "other.pem"
    other.write_bytes(Authority("another").pem)
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    files = authority.issue("localhost").write(tmp_path)
    server = start("--ssl-certfile", files["ssl_certfile"], "--ssl-keyfile", files["ssl_keyfile"])
    url = f"https://localhost:{server.port}/topics/cam"
    cam.send(picture(1))
    with (
        remote.Subscriber(url, ca_file=ca_file) as frames,
        remote.Publisher(url, ca_file=[other, ca_file]) as publisher,
    ):
        assert taken(frames).sequence == 1
        assert publisher.send(picture(2)) == 2
    both: list[str | Path] = [other, str(ca_file)]
    for trusted in (ca_file, both):
        frame = remote.latest(url, ca_file=trusted)
        assert frame is not None
        assert frame.sequence == 2
    for ask in (
        lambda: remote.latest(url, ca_file=other),
        lambda: remote.latest(url, ca_file=tmp_path / "none"),
        lambda: remote.Subscriber(url, ca_file=other).take(timeout=PATIENCE_S),
        lambda: remote.Publisher(url, ca_file=other).send(picture(1)),
    ):
        with pytest.raises(TlsFailed):
            ask()


@pytest.mark.parametrize("is_secure", [False, True])
def test_requests_go_through_the_proxy_of_a_websocket(
    start: Start,
    cam: framegate.Publisher,
    tmp_path: Path,
    is_secure: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cam.send(picture(1))
    words: list[str] = []
    options: client.ConnectOptions = {}
    scheme, port = "http", 80
    if is_secure:
        authority = Authority()
        files = authority.issue("localhost").write(tmp_path)
        words = ["--ssl-certfile", files["ssl_certfile"], "--ssl-keyfile", files["ssl_keyfile"]]
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        options, scheme, port = {"ca_file": tmp_path / "ca.pem"}, "https", 443
    server = start(*words)
    proxy = Proxy(server.port)
    variable = "HTTPS_PROXY" if is_secure else "HTTP_PROXY"
    monkeypatch.setenv(variable, f"http://me:s%40@{proxy.place}")
    # The certificate and the rule of this machine know this name.
    frame = remote.latest(f"{scheme}://localhost/topics/cam", **options)
    assert frame is not None
    assert frame.sequence == 1
    proxy.end()
    assert proxy.head.startswith(f"CONNECT localhost:{port} HTTP/1.".encode())
    assert b"\r\nproxy-authorization: basic bWU6c0A=" in proxy.head.lower().replace(
        b"bwu6c0a=", b"bWU6c0A="
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
    monkeypatch.setenv(variable, nobody)
    with pytest.raises((ServerUnreachable, ProxyFailed)):
        remote.latest(f"{scheme}://localhost/topics/cam", **options)
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert remote.latest(f"{scheme}://localhost:{server.port}/topics/cam", **options)
    with pytest.raises(ClientArgumentError, match="no proxy that can be used"):
        remote.latest(f"{scheme}://localhost/topics/cam", **{**options, "proxy": "socks5://x"})


def test_topics_are_listed(url: str, cam: framegate.Publisher) -> None:
    cam.send(picture(1))
    (topic,) = remote.topics(url)
    assert (topic["name"], topic["dtype"], topic["shape"]) == ("cam", "uint8", list(SHAPE))
    assert topic["sequence"] == 1


# --------------------------------------------------------------------------------------------
# Calls


@pytest.fixture
def double(runtime: Path) -> Iterator[None]:
    with framegate.Responder("double") as responder:

        def respond() -> None:
            for request in responder:
                with request:
                    if request.nbytes == 0:
                        request.fail("nothing to double")
                    elif request.content_type is not None:
                        request.reply(bytes(request), content_type=request.content_type)
                    else:
                        request.reply(request.array * 2)

        thread = threading.Thread(target=respond)
        thread.start()
        yield
        responder.close()
        thread.join(30)


def test_a_responder_is_called(place: str, double: None) -> None:
    url = f"{place}/call/double"
    array = np.arange(6, dtype="float32").reshape(2, 3)
    with framegate.Caller("double") as near, remote.Caller(url) as far:
        for caller in (near, far):
            reply = caller.call(array, timeout=20)
            assert np.array_equal(reply.array, array * 2)
        with pytest.raises(errors.CallFailed):
            far.call(b"")
        reply = far.call(b"\xff\xd8", content_type="image/jpeg", timestamp=1)
        assert (bytes(memoryview(reply)), reply.content_type) == (b"\xff\xd8", "image/jpeg")
        replies: list[Any] = []
        threads = [
            threading.Thread(target=lambda: replies.append(far.call(array, timeout=20)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [reply.shape for reply in replies] == [(2, 3)] * 6
    assert np.array_equal(remote.call(url, array, timeout=20).array, array * 2)

    async def main() -> None:
        reply = await remote.call_async(url, array, timeout=20)
        assert np.array_equal(reply.array, array * 2)

    asyncio.run(main())


def test_a_late_reply_is_a_timeout(place: str, runtime: Path) -> None:
    with framegate.Responder("slow"), pytest.raises(errors.ShmTimeout):
        remote.call(f"{place}/call/slow", b"x", timeout=0.05)
