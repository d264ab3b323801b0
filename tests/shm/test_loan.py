"""Loans: a slot to fill in place, published or given back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.errors import (
    ClosedError,
    FrameTooLarge,
    SchemaMismatch,
    ShmArgumentError,
    TopicFull,
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def raw() -> Any:
    """A topic of 4 slots of 64 bytes with its publisher and a queue subscriber."""
    with (
        shm.Topic.create("raw", slot_bytes=64, slots=4) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue", max_leases=3) as subscriber,
    ):
        yield publisher, subscriber


def test_a_loan_is_published_with_its_length_time_and_metadata(raw: Any) -> None:
    publisher, subscriber = raw
    with publisher.loan(10) as loan:
        assert len(memoryview(loan)) == loan.nbytes == 10
        memoryview(loan)[:4] = b"abcd"
        assert (
            loan.publish(size=4, timestamp=1.5, metadata={"a": 1}, content_type="text/plain") == 1
        )
        assert not loan.is_live
    frame = subscriber.take()
    assert bytes(frame) == b"abcd"
    assert (frame.timestamp, frame.metadata, frame.content_type) == (1.5, {"a": 1}, "text/plain")


def test_a_loan_without_size_is_the_whole_slot(raw: Any) -> None:
    publisher, _ = raw
    with publisher.loan() as loan:
        assert loan.nbytes == 64


@pytest.mark.parametrize("leave", ["plainly", "by an exception", "by abandon", "by dropping it"])
def test_an_unpublished_loan_goes_back(raw: Any, leave: str) -> None:
    publisher, subscriber = raw
    for _ in range(20):
        if leave == "by dropping it":
            publisher.loan(8)
            continue
        try:
            with publisher.loan(8) as loan:
                if leave == "by an exception":
                    raise ZeroDivisionError
                if leave == "by abandon":
                    loan.abandon()
                    loan.abandon()
        except ZeroDivisionError:
            assert leave == "by an exception"
    assert subscriber.try_take() is None
    assert publisher.published == 0
    assert shm.inspect("raw").slots_loaned == 0


def test_a_loan_is_published_once(raw: Any) -> None:
    publisher, _ = raw
    with publisher.loan(8) as loan:
        loan.publish()
        for use in (loan.publish, lambda: memoryview(loan), lambda: loan.array, loan.__enter__):
            with pytest.raises(ClosedError, match="published"):
                use()


def test_arrays_of_a_loan_become_read_only_when_it_ends(raw: Any) -> None:
    publisher, _ = raw
    with publisher.loan(("f4", (2, 2))) as loan:
        kept = loan.array
        kept[:] = 1
        loan.publish()
    with pytest.raises(ValueError, match="read-only"):
        kept[:] = 2
    with publisher.loan({"a": ("u1", 3)}) as loan:
        named = loan.arrays["a"]
    with pytest.raises(ValueError, match="read-only"):
        named[:] = 2


def test_layouts_may_be_given_in_many_ways(stack: ExitStack) -> None:
    publisher = stack.enter_context(shm.Publisher("free", slot_bytes=256, slots=4))
    subscriber = stack.enter_context(shm.Subscriber("free", "queue"))
    like = np.zeros((3, 5), "i2")
    for layout in (like, ("int16", (3, 5)), shm.ArraySpec("int16", (3, 5))):
        with publisher.loan(layout) as loan:
            loan.array[:] = 9
            loan.publish()
        frame = subscriber.take()
        assert (frame.array == 9).all()
        assert frame.array.dtype == np.int16
        frame.release()
    with publisher.loan({"a": like[0], "b": ("f4", 2)}) as loan:
        arrays = loan.arrays
        arrays["a"][:] = 4
        arrays["b"][:] = 0.5
        loan.publish()
        del arrays
    frame = subscriber.take()
    assert frame.arrays["a"].tolist() == [4] * 5
    assert frame.arrays["b"].tolist() == [0.5, 0.5]


def test_a_full_topic_refuses_at_once_or_after_the_timeout(raw: Any) -> None:
    publisher, subscriber = raw
    for _ in range(3):
        publisher.send(b"x")
    held = [subscriber.take() for _ in range(3)]
    publisher.send(b"newest")
    for timeout in (0, 0.01):
        with pytest.raises(TopicFull, match=r'topic "raw".* 4 slots .* 3 of them by'):
            publisher.loan(8, timeout=timeout)
    with pytest.raises(TopicFull):
        publisher.send(b"x")
    held.pop().release()
    assert publisher.send(b"x") == 5


def test_names_that_were_cut_are_quoted_all_the_same() -> None:
    """They are bytes in the shared memory: the 32nd may be the first half of a letter."""
    with (
        shm.Publisher("t", slot_bytes=8, slots=4) as publisher,
        shm.Subscriber("t", "queue", name="x" + "ä" * 20, max_leases=3) as subscriber,
    ):
        for _ in range(3):
            publisher.send(b"x")
        held = [subscriber.take() for _ in range(3)]
        publisher.send(b"newest")
        with pytest.raises(TopicFull, match="xäää"):
            publisher.send(b"x")
        del held


def test_a_waiting_loan_gets_the_slot_that_is_released(raw: Any) -> None:
    import threading

    publisher, subscriber = raw
    for _ in range(3):
        publisher.send(b"x")
    held = [subscriber.take() for _ in range(3)]
    publisher.send(b"newest")
    waiting = threading.Event()

    def release() -> None:
        waiting.wait()
        held[0].release()

    thread = threading.Thread(target=release)
    thread.start()
    waiting.set()
    assert publisher.send(b"patient", timeout=60) == 5
    thread.join()


def test_what_does_not_fit_is_refused(raw: Any) -> None:
    publisher, _ = raw
    publisher.send(b"x" * 64)
    uses: list[Callable[[], Any]] = [
        lambda: publisher.send(b"x" * 65),
        lambda: publisher.loan(65),
        lambda: publisher.loan(("f8", 9)),
        lambda: publisher.send(np.zeros(9)),
    ]
    for use in uses:
        with pytest.raises(FrameTooLarge, match=r"6[45]|72"):
            use()
    with publisher.loan(8) as loan, pytest.raises(FrameTooLarge):
        loan.publish(size=9)


def test_a_typed_topic_takes_only_its_arrays() -> None:
    with shm.Publisher("cam", dtype="uint8", shape=(4, 4)) as publisher:
        publisher.send(np.zeros((4, 4), "u1"))
        for wrong in (
            np.zeros((4, 5), "u1"),
            np.zeros((4, 4), "i1"),
            np.zeros(16, "u1"),
            b"too short",
            {"other": np.zeros((4, 4), "u1")},
        ):
            with pytest.raises(SchemaMismatch, match=r'"cam"'):
                publisher.send(wrong)
        for layout in (17, ("u1", (4, 5)), {"a": ("u1", (4, 4)), "b": ("u1", 1)}):
            with pytest.raises(SchemaMismatch):
                publisher.loan(layout)
        with publisher.loan(16) as loan, pytest.raises(SchemaMismatch):
            loan.publish(size=8)
        assert shm.inspect("cam").slots_loaned == 0


def test_named_arrays_must_be_complete() -> None:
    with shm.Publisher("rig", arrays={"a": ("f4", 2), "b": ("u1", (3,))}) as publisher:
        good = {"a": np.zeros(2, "f4"), "b": np.zeros(3, "u1")}
        publisher.send(good)
        with pytest.raises(SchemaMismatch, match='"b"'):
            publisher.send({"a": good["a"]})
        with pytest.raises(SchemaMismatch, match='"c"'):
            publisher.send(good | {"c": good["a"]})
        with pytest.raises(SchemaMismatch, match="named arrays"):
            publisher.send(good["a"])


@pytest.mark.parametrize("data", [3, "text", None, [1, 2], object()])
def test_what_is_no_buffer_is_a_type_error(raw: Any, data: Any) -> None:
    publisher, _ = raw
    with pytest.raises(TypeError):
        publisher.send(data)
    assert shm.inspect("raw").slots_loaned == 0


def test_what_is_no_layout_is_an_error_of_the_caller(raw: Any) -> None:
    publisher, _ = raw
    for layout in ({1: ("u1", 1)}, "u1", object(), ("no dtype", 3), ("u1", "x")):
        with pytest.raises((TypeError, ValueError)):
            publisher.loan(layout)
    with pytest.raises(OverflowError):
        publisher.loan(-1)
    with pytest.raises(ValueError, match="every dimension"):
        publisher.loan(("u1", (None, 2)))
    with pytest.raises(TypeError, match="string"):
        publisher.send({1: np.zeros(2)})
    with pytest.raises(ShmArgumentError, match="dimensions"):
        publisher.send(np.zeros((1,) * 9))
    with pytest.raises(ShmArgumentError, match="arrays"):
        publisher.send({str(index): np.zeros(1, "u1") for index in range(17)})
    assert shm.inspect("raw").slots_loaned == 0


@pytest.mark.parametrize("dtype", ["datetime64[s]", "U4", "O", np.longdouble])
def test_elements_that_no_topic_stores_are_a_type_error(raw: Any, dtype: Any) -> None:
    publisher, _ = raw
    with pytest.raises((TypeError, ValueError)):
        publisher.send({"a": np.zeros(2, dtype)})
    with pytest.raises(TypeError, match="cannot be stored"):
        shm.Publisher("t", dtype=np.dtype(dtype), shape=2)


def test_metadata_has_a_limit(raw: Any) -> None:
    publisher, subscriber = raw
    publisher.send(b"", metadata={"k": "v" * 1000})
    assert len(subscriber.take().metadata["k"]) == 1000
    with pytest.raises(ShmArgumentError, match="1024"):
        publisher.send(b"", metadata={"k": "v" * 1024})
    with pytest.raises(TypeError, match="object"):
        publisher.send(b"", metadata={"k": object()})
    with pytest.raises(TypeError, match="mapping"):
        publisher.send(b"", metadata=[1])
    with pytest.raises(ShmArgumentError, match="content"):
        publisher.send(b"", content_type="x" * 65)
    assert shm.inspect("raw").slots_loaned == 0


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_undefined_timeout_is_a_value_error(raw: Any, timeout: float) -> None:
    publisher, subscriber = raw
    with pytest.raises(ValueError, match="timeout"):
        subscriber.take(timeout=timeout)
    for _ in range(3):
        publisher.send(b"x")
    held = [subscriber.take() for _ in range(3)]
    publisher.send(b"x")
    with pytest.raises(ValueError, match="timeout"):
        publisher.loan(timeout=timeout)
    del held


def test_a_closed_publisher_says_so(raw: Any) -> None:
    publisher, _ = raw
    publisher.close()
    publisher.close()
    assert publisher.closed
    for use in (lambda: publisher.send(b"x"), publisher.loan):
        with pytest.raises(ClosedError, match='"raw"'):
            use()


def test_a_loan_outlives_its_publisher() -> None:
    publisher = shm.Publisher("raw", slot_bytes=64)
    published, abandoned = publisher.loan(8), publisher.loan(8)
    publisher.close()
    del publisher
    memoryview(published)[:] = b"12345678"
    assert published.publish() == 1
    assert shm.inspect("raw").publishers == 1
    abandoned.abandon()
    report = shm.inspect("raw")
    assert (report.publishers, report.slots_loaned, report.slots_published) == (0, 0, 1)


def test_the_first_frame_makes_the_topic() -> None:
    with shm.Publisher("lazy") as publisher:
        assert shm.topics() == []
        publisher.send(np.zeros((480, 640, 3), "u1"))
        report = shm.inspect("lazy")
        assert report.schema == {"": shm.ArraySpec("uint8", (480, 640, 3))}
        assert report.slot_bytes == 480 * 640 * 3
        assert report.slots == 8
    with shm.Publisher("lazy-bytes", slots=3) as publisher:
        publisher.send(b"hello")
        assert shm.inspect("lazy-bytes").slot_bytes == shm.RAW_SLOT_BYTES_MIN
        assert shm.inspect("lazy-bytes").slots == 3
    with shm.Publisher("lazy-empty") as publisher:
        assert publisher.send(b"") == 1
    with shm.Publisher("lazy-loan") as publisher:
        with pytest.raises(ShmArgumentError, match="what to loan"):
            publisher.loan()
        with publisher.loan({"a": ("f4", 3)}) as loan:
            loan.publish()
        assert list(shm.inspect("lazy-loan").schema) == ["a"]


def test_a_publisher_of_an_existing_topic_takes_it_as_it_is() -> None:
    with shm.Topic.create("cam", dtype="u1", shape=(2, 2), slots=3):
        with shm.Publisher("cam", slots=20) as publisher:
            publisher.send(np.zeros((2, 2), "u1"))
        assert shm.inspect("cam").slots == 3
        for shape in ((2, 3), (2,), (None, 2)):
            with pytest.raises(SchemaMismatch, match=r'"cam".*\n.*holds uint8 \(2, 2\), asked for'):
                shm.Publisher("cam", dtype="u1", shape=shape, slot_bytes=64)
        with pytest.raises(SchemaMismatch):
            shm.Publisher("cam", arrays={"a": ("u1", (2, 2))})
        with pytest.raises(FrameTooLarge):
            shm.Publisher("cam", slot_bytes=5)
