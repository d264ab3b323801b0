"""What goes in comes out: bytes, arrays of every dtype and layout, names, time and metadata."""

import array
import contextlib
import math
import mmap
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framegate import shm

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip

each_example_its_own_topic = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def exchange(data: Any, **options: Any) -> shm.Frame:
    """Send through a new topic; the frame outlives the topic and its handles."""
    with shm.Topic.create("t", slot_bytes=1 << 16, slots=2) as topic:
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            publisher.send(data, **options)
            frame = subscriber.take(timeout=10)
        topic.unlink()
    assert frame is not None
    return frame


@pytest.mark.parametrize("data", [b"", b"x", b"hello" * 1000, bytearray(b"abc"), memoryview(b"mv")])
def test_bytes_come_back(data: Any) -> None:
    with exchange(data) as frame:
        assert bytes(frame) == bytes(data)
        assert frame.arrays == {}
        assert frame.shape == (len(data),)
        assert frame.dtype == "uint8"


@given(
    data=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=4)
        )
    )
)
@each_example_its_own_topic
def test_arrays_of_every_dtype_and_shape_come_back(data: np.ndarray[Any, Any]) -> None:
    frame = exchange(data)
    result = frame.array
    assert result.dtype == data.dtype
    assert result.shape == data.shape == frame.shape
    assert result.tobytes() == data.tobytes()  # also NaN payloads


@given(
    data=hnp.arrays(
        st.sampled_from(["<i2", ">i2", ">f4", ">c8", "<f8", ">u8", "u1"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements=st.integers(0, 100),
    ),
    choice=st.data(),
)
@each_example_its_own_topic
def test_strided_and_byte_swapped_arrays_come_back(
    data: np.ndarray[Any, Any], choice: st.DataObject
) -> None:
    index = tuple(
        slice(None, None, choice.draw(st.sampled_from([1, 2, -1, -2]))) for _ in data.shape
    )
    view = data[index]
    if choice.draw(st.booleans()):
        view = view.T
    frame = exchange(view)
    assert frame.array.dtype == view.dtype.newbyteorder("=")
    np.testing.assert_array_equal(frame.array, view)


def test_a_large_crop_of_an_image_comes_back() -> None:
    image = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)
    crop = image[10:400, 20:600]  # more than is copied with the GIL held, rows with gaps
    with shm.Publisher("cam") as publisher:
        publisher.send(crop)
        with shm.Subscriber("cam") as subscriber:
            np.testing.assert_array_equal(subscriber.take().array, crop)


def test_other_buffers_come_back_typed() -> None:
    frame = exchange(array.array("d", [1.0, 2.0]))
    assert (frame.dtype, frame.shape) == ("float64", (2,))
    assert struct.unpack("2d", bytes(frame)) == (1.0, 2.0)


def test_frames_can_be_forwarded() -> None:
    raw = exchange(b"raw bytes")
    typed = exchange(np.arange(6, dtype="i2").reshape(2, 3))
    assert bytes(exchange(raw)) == b"raw bytes"
    assert exchange(raw).arrays == {}
    assert exchange(typed).array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_files_are_octets(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with (tmp_path / "file").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            frame = exchange(mapped)
    assert bytes(frame) == b"content"
    assert frame.arrays == {}


def test_bfloat16_comes_back_through_ml_dtypes() -> None:
    import ml_dtypes

    data = np.asarray([1.5, -2.0, 3.25], dtype=ml_dtypes.bfloat16)
    frame = exchange(data)
    assert frame.dtype == "bfloat16"
    assert frame.array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(frame.array.astype("f4"), [1.5, -2.0, 3.25])
    assert (
        np.asarray(memoryview(frame)).dtype == np.uint16
    )  # the buffer protocol has no name for it


class Tensor:
    """Something without the buffer protocol: only DLPack, as tensors of other libraries."""

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        self._data = data

    def __dlpack__(self, **options: Any) -> Any:
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()


@pytest.mark.parametrize("step", [1, 2])
def test_dlpack_tensors_come_back(step: int) -> None:
    data = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::step]
    frame = exchange(Tensor(data))
    np.testing.assert_array_equal(frame.array, data)


def test_named_arrays_come_back_whatever_their_order() -> None:
    image = np.random.default_rng(1).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    depth = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    stamp = np.array(7, dtype=np.int64)
    with shm.Publisher("rig") as publisher:
        publisher.send({"image": image, "depth": depth, "stamp": stamp})
        publisher.send({"stamp": stamp + 1, "depth": depth * 2, "image": image + 1})
        assert list(shm.inspect("rig").schema) == ["image", "depth", "stamp"]
    with shm.Subscriber("rig") as subscriber:
        arrays = subscriber.take().arrays
    assert list(arrays) == ["image", "depth", "stamp"]
    np.testing.assert_array_equal(arrays["image"], image + 1)
    np.testing.assert_array_equal(arrays["depth"], depth * 2)
    assert arrays["stamp"] == 8
    for named in arrays.values():
        assert named.ctypes.data % 64 == 0
        assert not named.flags.writeable


def test_each_frame_of_a_free_topic_describes_itself() -> None:
    with shm.Publisher("free", slot_bytes=4096) as publisher:
        with shm.Subscriber("free", "queue") as subscriber:
            publisher.send(np.zeros((2, 3), "f4"))
            publisher.send({"a": np.ones(5, "i2"), "b": np.zeros((), "?")})
            publisher.send(b"raw")
            first, second, third = (subscriber.take() for _ in range(3))
            assert (first.dtype, first.shape) == ("float32", (2, 3))
            assert second.arrays["a"].sum() == 5
            assert bytes(third) == b"raw"


def test_shapes_do_not_mix_however_many_kinds_of_frames_there_are() -> None:
    """Descriptors are remembered: more kinds of them than are, in turns."""
    with contextlib.ExitStack() as stack:
        topics = []
        for number in range(12):
            topic = stack.enter_context(shm.Topic.create(f"t{number}", slots=8, slot_bytes=1024))
            publisher = stack.enter_context(topic.publisher())
            subscriber = stack.enter_context(topic.subscriber("queue"))
            topics.append((publisher, subscriber))
        kept = []
        for turn in range(3):
            for number, (publisher, subscriber) in enumerate(topics):
                shape = (number + 1, turn % 2 + 1)
                publisher.send(np.full(shape, number, np.uint8 if turn else np.float32))
                frame = subscriber.take(timeout=0)
                assert frame is not None
                kept.append((frame, shape, number, np.uint8 if turn else np.float32))
        for frame, shape, number, dtype in kept:
            assert frame.array.shape == shape
            assert frame.array.dtype == dtype
            assert (frame.array == number).all()


def test_an_open_dimension_takes_any_length() -> None:
    with shm.Publisher("points", dtype="f4", shape=(None, 3), slot_bytes=4096) as publisher:
        with shm.Subscriber("points", "queue") as subscriber:
            for count in (0, 1, 17):
                publisher.send(np.full((count, 3), count, "f4"))
                frame = subscriber.take()
                assert frame.shape == (count, 3)
                assert (frame.array == count).all()
                frame.release()


def test_octets_of_the_right_length_fill_a_typed_topic() -> None:
    with shm.Publisher("cam", dtype="u2", shape=(2, 2)) as publisher:
        publisher.send(struct.pack("4H", 1, 2, 3, 4))
        with shm.Subscriber("cam") as subscriber:
            assert subscriber.take().array.tolist() == [[1, 2], [3, 4]]


def test_time_metadata_and_content_type_travel_with_the_frame() -> None:
    before = time.monotonic_ns()
    frame = exchange(
        b"\xff\xd8",
        timestamp=1234.5,
        metadata={"gain": 2.5, "name": "vorn ä"},
        content_type="image/jpeg",
    )
    assert frame.timestamp == 1234.5
    assert frame.metadata == {"gain": 2.5, "name": "vorn ä"}
    assert frame.content_type == "image/jpeg"
    assert before <= frame.published_ns <= time.monotonic_ns()
    assert frame.sequence == 1
    frame.release()
    assert frame.metadata["gain"] == 2.5  # stays readable after the lease
    assert frame.content_type == "image/jpeg"


def test_without_them_there_is_none() -> None:
    frame = exchange(b"")
    assert frame.timestamp is None
    assert frame.metadata == {}
    assert frame.content_type is None


def test_sequences_count_from_one_and_are_returned() -> None:
    with shm.Publisher("s", slot_bytes=16) as publisher:
        assert [publisher.send(b"x") for _ in range(3)] == [1, 2, 3]
        assert (publisher.sequence, publisher.published) == (3, 3)
        with shm.Publisher("s") as other:
            assert other.send(b"y") == 4


@pytest.mark.parametrize("spelling", ["float32", "<f4", "f4", "=f4", np.float32, np.dtype("f4")])
def test_dtypes_may_be_spelled_in_any_usual_way(spelling: Any) -> None:
    assert shm.dtype_item_bytes(spelling) == 4
    with shm.Topic.create("t", dtype=spelling, shape=3, slots=2) as topic:
        assert topic.schema == {"": shm.ArraySpec("float32", (3,))}
        assert topic.slot_bytes == 12


def test_python_scalar_types_are_read_as_numpy_reads_them() -> None:
    assert [shm.dtype_item_bytes(kind) for kind in (bool, int, float, complex)] == [1, 8, 8, 16]


def test_nan_as_time_is_no_time() -> None:
    assert exchange(b"", timestamp=math.nan).timestamp is None
