"""Calls between hosts: what is asked, what is answered, and what is said when nobody does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import framegate
from bridge.conftest import BridgeProcess, Host
from framegate import shm
from framegate.bridge import Bridge
from framegate.errors import CallFailed, NoResponder, ShmTimeout

WAIT_S = 60.0

Respond = Callable[..., framegate.Responder]


@pytest.fixture
def respond() -> Iterator[Respond]:
    """Answer the calls of a topic with a function, on a thread."""
    running: list[tuple[framegate.Responder, threading.Thread]] = []

    def start(
        host: Host, topic: str, handler: Callable[[framegate.Request], Any], **options: Any
    ) -> framegate.Responder:
        with host:
            responder = framegate.Responder(topic, **options)
        thread = threading.Thread(target=responder.serve, args=(handler,))
        thread.start()
        running.append((responder, thread))
        return responder

    yield start
    for responder, thread in running:
        responder.close()
        thread.join()


def link(
    robot: Host, desk: Host, endpoint: str, *words: str
) -> tuple[BridgeProcess, BridgeProcess]:
    """The robot offers everything, and the desk calls everything."""
    sender = robot.bridge("--listen", endpoint, "--offer", "**", *words)
    return sender, desk.bridge("--zenoh", endpoint, "--call", "**", *words)


def called(bridge: BridgeProcess, topic: str, **counts: int) -> dict[str, Any]:
    return bridge._row("called", topic, lambda row: counts.items() <= row.items())


def caller(host: Host, topic: str, bridge: BridgeProcess) -> framegate.Caller:
    """Waits until the topic can be called."""
    called(bridge, topic)
    with host:
        bridge.status(lambda _: any(p.role == "responder" for p in shm.inspect(topic).participants))
        return framegate.Caller(topic)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"bytes",
        np.arange(12, dtype="f4").reshape(3, 4),
        np.array(1.5),
        np.zeros((0, 3), "u1"),
        np.arange(4).astype(ml_dtypes.bfloat16),
        {"a": np.arange(3), "b": np.ones((2, 2), "c8")},
        np.arange(200_000, dtype="u4"),
    ],
    ids=["empty", "bytes", "array", "scalar", "no elements", "bfloat16", "named", "large"],
)
def test_a_call_crosses_and_its_reply_comes_back(
    data: Any, robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    seen: list[tuple[Any, ...]] = []

    def echo(request: framegate.Request) -> None:
        arrays = request.arrays
        seen.append(
            (
                request.metadata,
                request.content_type,
                request.timestamp,
                {k: v.copy() for k, v in arrays.items()},
            )
        )
        answer = dict(arrays) if arrays else bytes(request)
        if list(arrays) == [""]:
            answer = arrays[""]
        request.reply(answer, timestamp=7.5, metadata={"y": 2}, content_type="b/c")

    respond(robot, "echo", echo)
    _, taker = link(robot, desk, endpoint)
    with caller(desk, "echo", taker) as ask:
        with ask.call(
            data, timeout=WAIT_S, timestamp=3.5, metadata={"x": b"\1"}, content_type="a/b"
        ) as reply:
            assert (reply.metadata, reply.content_type, reply.timestamp) == ({"y": 2}, "b/c", 7.5)
            expected = (
                data if isinstance(data, dict) else {} if isinstance(data, bytes) else {"": data}
            )
            for found in (reply.arrays, seen[0][3]):
                assert list(found) == list(expected)
                for name, array in expected.items():
                    assert found[name].dtype == array.dtype
                    assert found[name].shape == array.shape
                    assert np.array_equal(found[name], array)
            if isinstance(data, bytes):
                assert bytes(reply) == data
    assert seen[0][:3] == ({"x": b"\1"}, "a/b", 3.5)


def test_several_calls_are_under_way_at_once(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    """Each waits for all the others: one after the other they would time out."""
    count = 4
    together = threading.Barrier(count)

    def wait(request: framegate.Request) -> bytes:
        together.wait(WAIT_S)
        return bytes(request)

    for _ in range(count):
        respond(robot, "meet", wait, slots=32, slot_bytes=64)
    sender, taker = link(robot, desk, endpoint)
    with caller(desk, "meet", taker) as ask:
        replies: dict[bytes, bytes] = {}

        def one(number: int) -> None:
            data = b"%d" % number
            with ask.call(data, timeout=WAIT_S) as reply:
                replies[data] = bytes(reply)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == {b"%d" % number: b"%d" % number for number in range(count)}
    called(taker, "meet", asked=count, answered=count, failed=0)
    sender._row("offered", "meet", lambda row: row["answered"] == count)


def test_what_the_responder_says_of_a_failure_crosses(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    def fail(request: framegate.Request) -> None:
        request.fail("out of paper")

    respond(robot, "print", fail)
    sender, taker = link(robot, desk, endpoint)
    with caller(desk, "print", taker) as ask:
        with pytest.raises(CallFailed, match="out of paper"):
            ask.call(b"page", timeout=WAIT_S)
    called(taker, "print", asked=1, failed=1)
    sender._row("offered", "print", lambda row: row["failed"] == 1)


def test_a_caller_that_gives_up_is_given_up_on_both_sides(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    left: list[float | None] = []
    go_on = threading.Event()

    def sleep(request: framegate.Request) -> bytes:
        left.append(request.time_left)
        go_on.wait(WAIT_S)
        return b"late"

    respond(robot, "sleep", sleep)
    sender, taker = link(robot, desk, endpoint)
    with caller(desk, "sleep", taker) as ask:
        began = time.monotonic()
        with pytest.raises((ShmTimeout, CallFailed)):
            ask.call(b"", timeout=1.0)
        assert time.monotonic() - began >= 0.9
        called(taker, "sleep", asked=1, failed=1)
        sender._row("offered", "sleep", lambda row: row["failed"] == 1)
        assert left[0] is not None
        assert 0 < left[0] <= 1.0
        go_on.set()
        # Its turn is free again.
        with ask.call(b"", timeout=WAIT_S) as reply:
            assert bytes(reply) == b"late"


@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_calls_than_allowed_are_in_flight(
    limit: int,
    robot: Host,
    desk: Host,
    host: Callable[[str], Host],
    endpoint: str,
    respond: Respond,
) -> None:
    """Of two hosts that each may have one call there, one is refused where one is allowed."""
    go_on = threading.Event()

    def hold(request: framegate.Request) -> bytes:
        go_on.wait(WAIT_S)
        return b"done"

    for _ in range(2):
        respond(robot, "hold", hold, slots=32, slot_bytes=64)
    sender = robot.bridge("--listen", endpoint, "--offer", "**", "--calls-max", str(limit))
    others = [desk, host("other")]
    bridges = [one.bridge("--zenoh", endpoint, "--call", "**") for one in others]
    results: list[str] = []

    def one(where: Host, bridge: BridgeProcess) -> None:
        with caller(where, "hold", bridge) as ask:
            try:
                with ask.call(b"", timeout=WAIT_S) as reply:
                    results.append(bytes(reply).decode())
            except CallFailed as error:
                results.append(str(error))

    threads = []
    for where, bridge in zip(others, bridges, strict=True):
        thread = threading.Thread(target=one, args=(where, bridge))
        thread.start()
        threads.append(thread)
        count = len(threads)
        sender._row("offered", "hold", lambda row, count=count: row["asked"] == count)  # type: ignore[misc]
    if limit == 1:
        sender._row("offered", "hold", lambda row: row["refused"] == 1)
    go_on.set()
    for thread in threads:
        thread.join()
    refused = [text for text in results if "CallsExhausted" in text]
    assert len(refused) == 2 - limit
    assert results.count("done") == limit


def test_calls_are_offered_while_somebody_answers(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    responder = respond(robot, "here", lambda request: b"yes")
    sender, taker = link(robot, desk, endpoint)
    with caller(desk, "here", taker) as ask:
        with ask.call(b"", timeout=WAIT_S) as reply:
            assert bytes(reply) == b"yes"
        responder.close()
        sender.status(lambda status: status["offered"] == [])
        called(taker, "here", there=False)
        with pytest.raises(CallFailed, match="NoResponder"):
            ask.call(b"", timeout=WAIT_S)
        respond(robot, "here", lambda request: b"again")
        called(taker, "here", there=True)
        with ask.call(b"", timeout=WAIT_S) as reply:
            assert bytes(reply) == b"again"


@pytest.mark.parametrize("which", ["near", "far"])
def test_calls_end_when_a_bridge_is_killed_and_go_on_with_the_next(
    which: str,
    robot: Host,
    desk: Host,
    host: Callable[[str], Host],
    endpoint: str,
    respond: Respond,
) -> None:
    host("router").bridge("--listen", endpoint)
    hold, go_on = threading.Event(), threading.Event()

    def answer(request: framegate.Request) -> bytes:
        if bytes(request) == b"hold":
            hold.set()
            go_on.wait(WAIT_S)
        return b"yes"

    respond(robot, "here", answer)
    words = {
        "far": ("--zenoh", endpoint, "--offer", "**"),
        "near": ("--zenoh", endpoint, "--call", "**"),
    }
    hosts = {"far": robot, "near": desk}
    running = {name: hosts[name].bridge(*words[name]) for name in words}
    failures: list[Exception] = []
    with caller(desk, "here", running["near"]) as ask:

        def held() -> None:
            try:
                ask.call(b"hold", timeout=WAIT_S)
            except framegate.errors.ShmError as error:
                failures.append(error)

        thread = threading.Thread(target=held)
        thread.start()
        assert hold.wait(WAIT_S)
        running[which].kill()
        thread.join()
        go_on.set()
        assert len(failures) == 1
        running[which] = hosts[which].bridge(*words[which])
        called(running["near"], "here", there=True)
        running["near"].settled()
        with desk, framegate.Caller("here") as fresh, fresh.call(b"", timeout=WAIT_S) as reply:
            assert bytes(reply) == b"yes"


def test_calls_of_a_topic_with_frames_and_of_names_of_their_own(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    with robot:
        topic = shm.Topic.create("camera", slot_bytes=64, slots=16)
    with topic, topic.publisher() as camera:
        respond(robot, "camera", lambda request: b"set")
        robot.bridge("--listen", endpoint, "--offer", "**", "--publish", "**")
        taker = desk.bridge(
            "--zenoh", endpoint, "--call", "**,name={host}/{topic}",
            "--subscribe", "**,name={host}/{topic}",
        )  # fmt: skip
        with caller(desk, "robot/camera", taker) as ask, desk:
            with ask.call(b"gain=2", timeout=WAIT_S) as reply:
                assert bytes(reply) == b"set"
            with framegate.Subscriber("robot/camera", "queue", start="newest") as frames:
                taker.incoming("robot/camera")
                camera.send(b"frame")
                frame = frames.take(timeout=WAIT_S)
                assert frame is not None
                with frame:
                    assert bytes(memoryview(frame)) == b"frame"
            assert shm.topics() == ["robot/camera"]


def test_a_topic_without_a_bridge_has_no_responder(
    robot: Host, desk: Host, endpoint: str, respond: Respond
) -> None:
    respond(robot, "here", lambda request: b"yes")
    _, taker = link(robot, desk, endpoint)
    with caller(desk, "here", taker) as ask:
        taker.end()
        with pytest.raises(NoResponder):
            ask.call(b"", timeout=WAIT_S)


@pytest.mark.parametrize("which", ["request", "reply"])
def test_requests_and_replies_have_a_largest_size(
    which: str,
    robot: Host,
    desk: Host,
    endpoint: str,
    respond: Respond,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("framegate.bridge.calls.FRAME_BYTES_MAX", 1000)
    on_robot = which == "reply"
    respond(robot, "size", lambda request: bytes(int(bytes(request)[:4])))
    other = (desk if on_robot else robot).bridge(
        "--listen", endpoint, *(("--call", "**") if on_robot else ("--offer", "**"))
    )

    def ask(request_bytes: int, reply_bytes: int) -> str:
        # In a process of its own: the bridge in this one looks where this one does.
        data = (b"%04d" % reply_bytes).ljust(request_bytes)
        code = f"import framegate; print(framegate.call('size', {data!r}, timeout=60).nbytes)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=desk.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr

    with robot if on_robot else desk:
        options: dict[str, Any] = {"offer": ["**"]} if on_robot else {"call": ["**"]}
        with Bridge(endpoint, host="here", **options) as here:
            if on_robot:
                called(other, "size")
            else:
                other.status(lambda _: here.status()["called"])
            assert ask(1000, 1000) == "1000"
            assert "FrameTooLarge: a message of 1001 bytes" in ask(
                *((1000, 1001) if on_robot else (1001, 1000))
            )
            assert ask(4, 0) == "0"
