"""Calls in every shape: the short ways into send, take and release agree with the general one."""

from typing import Any

import pytest

from framegate import _shm, shm
from framegate.errors import FrameTooLarge, SchemaMismatch


@pytest.fixture
def ends() -> Any:
    """Publisher and queue subscriber of a topic of 4 slots of 64 bytes."""
    with (
        shm.Topic.create("t", slot_bytes=64, slots=4) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue") as subscriber,
    ):
        yield publisher, subscriber


@pytest.mark.parametrize("data", [b"", b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_sent_alike_in_every_shape_of_the_call(ends: Any, data: Any) -> None:
    publisher, subscriber = ends
    sends = [
        lambda: publisher.send(data),
        lambda: publisher.send(data=data),
        lambda: publisher.send(data, timeout=None),
        lambda: shm.Publisher.send(publisher, data),
        lambda: _shm.Publisher.send(publisher, data),
    ]
    for sequence, send in enumerate(sends, 1):
        assert send() == sequence
        assert publisher.sequence == publisher.published == sequence
        frame = subscriber.take()
        assert bytes(frame) == bytes(data)
        assert (frame.sequence, frame.shape, frame.dtype) == (sequence, (len(data),), "uint8")
        assert (frame.timestamp, frame.metadata, frame.content_type) == (None, {}, None)
        frame.release()
    with pytest.raises(FrameTooLarge, match="65"):
        publisher.send(bytes(65))


def test_bytes_of_the_right_length_fill_the_only_array_of_a_topic() -> None:
    with (
        shm.Publisher("t", dtype="i2", shape=(2, 3)) as publisher,
        shm.Subscriber("t", "queue") as subscriber,
    ):
        for data in (bytes(12), bytearray(12), memoryview(bytes(12))):
            publisher.send(data)
            frame = subscriber.take()
            assert (frame.shape, frame.dtype) == ((2, 3), "int16")
        for data in (bytes(11), bytearray(13), b""):
            with pytest.raises(SchemaMismatch, match=r"int16 \(2, 3\)"):
                publisher.send(data)


def test_takes_agree_in_every_shape_of_the_call(ends: Any) -> None:
    publisher, subscriber = ends
    takes = [
        subscriber.take,
        subscriber.try_take,
        lambda: subscriber.take(timeout=None),
        lambda: subscriber.take(timeout=0),
        lambda: next(subscriber),
        lambda: shm.Subscriber.take(subscriber),
        lambda: _shm.Subscriber.try_take(subscriber),
    ]
    for sequence, take in enumerate(takes, 1):
        publisher.send(b"x")
        frame = take()
        assert (type(frame), frame.sequence, frame.lost) == (shm.Frame, sequence, 0)
        del frame
        assert subscriber.leases == 0
    assert subscriber.try_take() is None
    assert subscriber.take(timeout=0) is None
    assert subscriber.received == len(takes)


def test_releases_agree_in_every_shape_of_the_call(ends: Any) -> None:
    publisher, subscriber = ends
    for release in (lambda frame: frame.release(), shm.Frame.release, lambda f: f.__exit__()):
        publisher.send(b"x", metadata={"k": 1})
        publisher.send(b"y")
        for metadata in ({"k": 1}, {}):
            frame = subscriber.take()
            assert release(frame) is None
            assert release(frame) is None
            assert frame.released
            assert frame.metadata == metadata
            assert subscriber.leases == 0


def test_wrong_arguments_are_type_errors(ends: Any) -> None:
    publisher, subscriber = ends
    publisher.send(b"x")
    frame = subscriber.take()
    wrong: list[Any] = [
        lambda: publisher.send(),
        lambda: publisher.send(b"x", b"y"),
        lambda: publisher.send(b"x", no_such=1),
        lambda: publisher.send(b"x", timeout="soon"),
        lambda: subscriber.take(1.0),
        lambda: subscriber.take(no_such=1),
        lambda: subscriber.try_take(timeout=1),
        lambda: frame.release(1),
        lambda: _shm.Publisher.send(subscriber, b"x"),
        lambda: _shm.Subscriber.take(publisher),
        lambda: _shm.Frame.release(publisher),
        lambda: _shm.Publisher.send(),  # type: ignore[call-arg]
        lambda: _shm.Frame.release(None),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    assert publisher.published == 1


@pytest.mark.filterwarnings("ignore:nanobind.*uninitialized:RuntimeWarning")
def test_an_object_whose_init_never_ran_is_an_error_and_no_crash() -> None:
    publisher = shm.Publisher.__new__(shm.Publisher)
    subscriber = shm.Subscriber.__new__(shm.Subscriber)
    frame = shm.Frame.__new__(shm.Frame)
    calls: list[Any] = [
        lambda: publisher.send(b"x"),
        lambda: publisher.loan(1),
        subscriber.take,
        subscriber.try_take,
        lambda: next(subscriber),
        frame.release,
        lambda: memoryview(frame),
    ]
    for call in calls:
        with pytest.raises((TypeError, RuntimeError)):
            call()


def test_a_subclass_may_wrap_the_calls(ends: Any) -> None:
    class Counting(shm.Publisher):
        sent = 0

        def send(self, data: Any, **details: Any) -> int:
            self.sent += 1
            return super().send(data, **details)

    with Counting("t") as publisher:
        publisher.send(b"x")
        publisher.send(b"y", timeout=1)
        assert (publisher.sent, publisher.published) == (2, 2)
