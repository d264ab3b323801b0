"""Records: structured numpy arrays, whose fields lie interleaved, as frames."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate import shm
from framegate.errors import SchemaMismatch

POINT = np.dtype([("position", "f4", (3,)), ("colour", "u1"), ("time", "f8")], align=True)
NUMBERS = [
    "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16",
]  # fmt: skip


def points(count: int, seed: int = 1) -> npt.NDArray[Any]:
    random = np.random.default_rng(seed)
    array = np.zeros(count, POINT)
    array["position"] = random.random((count, 3))
    array["colour"] = random.integers(0, 255, count)
    array["time"] = random.random(count)
    return array


@given(
    fields=st.lists(
        st.tuples(st.sampled_from(NUMBERS), st.lists(st.integers(1, 3), max_size=2)),
        min_size=1,
        max_size=5,
    ),
    align=st.booleans(),
    shape=st.lists(st.integers(0, 4), max_size=3),
    data=st.data(),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_records_of_every_kind_come_back(
    fields: list[tuple[str, list[int]]], align: bool, shape: list[int], data: st.DataObject
) -> None:
    dtype = np.dtype(
        [(f"f{i}", kind, tuple(inner)) for i, (kind, inner) in enumerate(fields)], align=align
    )
    count = int(np.prod(shape, dtype=int))
    raw = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    array = np.frombuffer(bytearray(raw), dtype).reshape(shape)
    with shm.Topic.create("t", slot_bytes=1 << 16, slots=2) as topic:
        topic.unlink()
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            publisher.send(array)
            frame = subscriber.take(timeout=10)
    assert frame is not None
    assert (frame.shape, frame.dtype) == (tuple(shape), "record")
    assert frame.array.dtype == dtype
    assert frame.array.shape == array.shape
    for name in dtype.names or ():
        assert frame[name].tobytes() == array[name].tobytes()
        assert frame[name].shape == array[name].shape
        assert not frame[name].flags.writeable


def test_records_are_the_shared_memory_itself() -> None:
    with shm.Publisher("points") as publisher:
        publisher.send(points(10))
        with shm.Subscriber("points") as subscriber, shm.Topic.open("points") as topic:
            assert topic.record_dtype == POINT
            assert topic.slot_bytes == 10 * POINT.itemsize
            assert topic.schema["position"] == shm.ArraySpec("float32", (10, 3))
            frame = subscriber.take()
            array = frame.array
            assert not array.flags.owndata
            assert not array.flags.writeable
            assert array.ctypes.data % 64 == 0
            assert frame["time"].ctypes.data == array["time"].ctypes.data
            assert frame["time"].strides == (POINT.itemsize,)
            np.testing.assert_array_equal(array, points(10))
            del array
            frame.release()
            assert subscriber.leases == 0
        with pytest.raises(SchemaMismatch):
            publisher.send(points(11))


def test_open_record_topics_take_any_number() -> None:
    with shm.Publisher("points", dtype=POINT, shape=(None,), slot_bytes=4096) as publisher:
        with shm.Subscriber("points", "queue") as subscriber:
            for count in (0, 1, 4096 // POINT.itemsize):
                publisher.send(points(count))
                np.testing.assert_array_equal(subscriber.take().array, points(count))
            strided = points(20)[::-2]
            publisher.send(strided)
            np.testing.assert_array_equal(subscriber.take().array, strided)


def test_a_loan_of_records_is_filled_in_place() -> None:
    with shm.Publisher("points", dtype=POINT, shape=(5,)) as publisher:
        with shm.Subscriber("points", "queue") as subscriber:
            with publisher.loan() as loan:
                loan.array[:] = points(5)
                loan["colour"][:] = 7
                loan.publish()
            frame = subscriber.take()
            assert (frame["colour"] == 7).all()
            np.testing.assert_array_equal(frame["time"], points(5)["time"])
    with shm.Publisher("any", dtype=POINT, shape=(None,), slot_bytes=4096) as publisher:
        with publisher.loan((POINT, 3)) as loan:
            loan.array[:] = points(3)
            loan.publish()
        with shm.Subscriber("any") as subscriber:
            np.testing.assert_array_equal(subscriber.take().array, points(3))
        with pytest.raises(SchemaMismatch, match="structured"):
            publisher.loan(("u1", 3))


def test_arrays_by_name_are_interleaved() -> None:
    with shm.Publisher("points", dtype=POINT, shape=(4,)) as publisher:
        expected = points(4)
        publisher.send({name: expected[name] for name in ("time", "colour", "position")})
        with shm.Subscriber("points") as subscriber:
            for name in POINT.names or ():
                np.testing.assert_array_equal(subscriber.peek()[name], expected[name])  # type: ignore[index]
        with pytest.raises(SchemaMismatch, match="fields"):
            publisher.send({"time": expected["time"]})
        with pytest.raises(SchemaMismatch, match="got uint8"):
            publisher.send({n: expected[n].astype("u1") for n in ("time", "colour", "position")})


def test_bytes_of_the_right_length_are_records() -> None:
    with shm.Publisher("points", dtype=POINT, shape=(2,)) as publisher:
        publisher.send(points(2).tobytes())
        with shm.Subscriber("points") as subscriber:
            assert subscriber.take().array["time"].tolist() == points(2)["time"].tolist()
        for wrong in (b"short", np.zeros(6, "u1"), np.zeros(2, [("x", "u1")])):
            with pytest.raises(SchemaMismatch):
                publisher.send(wrong)


def test_another_place_in_the_record_is_another_schema() -> None:
    packed = np.dtype([("position", "f4", (3,)), ("colour", "u1"), ("time", "f8")])
    shm.Topic.create("points", dtype=POINT, shape=(2,)).close()
    shm.Topic.open_or_create("points", dtype=POINT, shape=(2,)).close()
    with pytest.raises(SchemaMismatch):
        shm.Topic.open_or_create("points", dtype=packed, shape=(2,))


def test_bfloat16_is_a_field_like_any_other() -> None:
    dtype = np.dtype([("a", ml_dtypes.bfloat16), ("b", "i4")])
    with shm.Publisher("t", dtype=dtype, shape=(2,)) as publisher:
        with publisher.loan() as loan:
            loan.array["a"] = [1.5, -2]
            loan.array["b"] = [3, 4]
            loan.publish()
        with shm.Subscriber("t") as subscriber, subscriber.take() as frame:
            assert frame["a"].tolist() == [1.5, -2]
            assert frame.array["b"].tolist() == [3, 4]


def test_fields_are_memoryviews_with_strides_and_refuse_to_be_contiguous() -> None:
    with shm.Publisher("points") as publisher:
        publisher.send(points(3))
        with shm.Subscriber("points") as subscriber, subscriber.take() as frame:
            view = memoryview(frame["time"])
            assert (view.format, view.shape, view.strides) == ("d", (3,), (POINT.itemsize,))
            assert memoryview(frame).nbytes == 3 * POINT.itemsize
            with pytest.raises(SchemaMismatch):
                frame.__dlpack__()


def test_what_is_no_plain_record_is_a_type_error() -> None:
    with shm.Publisher("free", slot_bytes=4096) as publisher:
        with pytest.raises(TypeError, match="cannot be stored"):
            publisher.send({"points": points(3)})  # records are a frame of their own
    for dtype in ([("x", ">f4")], [("x", "U3")], [("x", [("y", "u1")])]):
        with pytest.raises(TypeError, match="x"):
            shm.Topic.create("t", dtype=np.dtype(dtype), shape=(2,))
