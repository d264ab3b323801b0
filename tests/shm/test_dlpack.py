"""DLPack, both ways, against a consumer and a producer of our own (dlpack_consumer.py)."""

import ctypes
import gc
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from framegate import shm
from framegate.errors import ClosedError, SchemaMismatch
from shm.dlpack_consumer import CPU, CUDA, IS_COPIED, READ_ONLY, Producer, Tensor, consume


@pytest.fixture
def cam() -> Any:
    """A topic of (2, 3) float32 with its publisher and a queue subscriber."""
    with (
        shm.Topic.create("cam", dtype="f4", shape=(2, 3), slots=4) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue", max_leases=2) as subscriber,
    ):
        yield publisher, subscriber


@pytest.fixture
def free() -> Any:
    """A topic of free frames with its publisher and a queue subscriber."""
    with (
        shm.Publisher("free", slot_bytes=4096, slots=4) as publisher,
        shm.Subscriber("free", "queue") as subscriber,
    ):
        yield publisher, subscriber


def test_a_consumer_reads_the_shared_memory_and_holds_the_lease_until_it_deletes(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(6, dtype="f4").reshape(2, 3))
    frame = subscriber.take()
    address = frame.array.ctypes.data
    tensor = consume(frame)
    assert (tensor.managed.major, tensor.managed.minor) == (1, 0)
    assert tensor.flags == READ_ONLY
    assert tensor.device == (CPU, 0)
    assert tensor.dtype == (2, 32, 1)
    assert (tensor.shape, tensor.strides) == ((2, 3), (3, 1))
    assert tensor.managed.tensor.data + tensor.managed.tensor.byte_offset == address
    with pytest.raises(BufferError, match="1 view"):
        frame.release()
    del frame  # the consumer alone holds it now
    gc.collect()
    assert subscriber.leases == 1
    for number in range(20):
        publisher.send(np.full((2, 3), number + 50, "f4"))
    assert tensor.read(ctypes.c_float) == [0, 1, 2, 3, 4, 5]
    assert subscriber.leases == 1
    tensor.delete()
    assert subscriber.leases == 0


def test_a_deleter_may_run_on_any_thread_and_after_everything_was_closed(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.ones((2, 3), "f4"))
    tensor = consume(subscriber.take())
    subscriber.close()
    publisher.close()
    shm.unlink("cam")
    assert tensor.read(ctypes.c_float) == [1] * 6
    thread = threading.Thread(target=tensor.delete)
    thread.start()
    thread.join()  # the fixture of every test checks that nothing stays mapped


def test_a_capsule_that_nobody_consumed_deletes_itself_and_a_consumed_one_does_not(
    cam: Any,
) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((2, 3), "f4"))
    frame = subscriber.take()
    capsule = frame.__dlpack__(max_version=(1, 0))
    tensor = Tensor(capsule)
    del capsule
    with pytest.raises(BufferError):
        frame.release()
    tensor.delete()
    capsule = frame.__dlpack__(max_version=(1, 0))
    del capsule
    frame.release()
    assert subscriber.leases == 0


@pytest.mark.parametrize("max_version", [(1, 0), (1, 1), (1, 99), (2, 0)])
def test_a_consumer_of_1_0_or_later_gets_the_versioned_capsule(cam: Any, max_version: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((2, 3), "f4"))
    tensor = consume(subscriber.take(), max_version=max_version)
    assert tensor.is_versioned
    assert tensor.managed.major == 1
    tensor.delete()


@pytest.mark.parametrize("max_version", [None, (0, 8), (0, 0)])
def test_an_older_consumer_gets_a_copy_of_its_own_or_an_error(cam: Any, max_version: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(6, dtype="f4").reshape(2, 3))
    frame = subscriber.take()
    for copy in (None, False):
        with pytest.raises(BufferError, match=r"read-only.*max_version=\(1, 0\) or copy=True"):
            frame.__dlpack__(max_version=max_version, copy=copy)
    tensor = consume(frame, max_version=max_version, copy=True)
    assert not tensor.is_versioned
    frame.release()
    assert tensor.read(ctypes.c_float) == [0, 1, 2, 3, 4, 5]
    tensor.delete()


def test_copy_true_is_writable_memory_without_a_lease_and_copy_false_is_none(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(6, dtype="f4").reshape(2, 3))
    frame = subscriber.take()
    shared = consume(frame, copy=False)
    assert shared.flags == READ_ONLY
    shared.delete()
    address = frame.array.ctypes.data
    copied = consume(frame, copy=True)
    assert copied.flags == IS_COPIED
    assert copied.managed.tensor.data != address
    frame.release()
    ctypes.c_float.from_address(copied.managed.tensor.data).value = 9
    assert copied.read(ctypes.c_float) == [9, 1, 2, 3, 4, 5]
    copied.delete()


def test_what_is_asked_of_another_device_or_stream_is_refused(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((2, 3), "f4"))
    frame = subscriber.take()
    assert frame.__dlpack_device__() == (CPU, 0)
    for device in ((CUDA, 0), (3, 0), (CPU, 1)):
        with pytest.raises(BufferError, match="host memory"):
            frame.__dlpack__(max_version=(1, 0), dl_device=device)
    with pytest.raises(BufferError, match="stream"):
        frame.__dlpack__(max_version=(1, 0), stream=1)
    for arguments in ({"dl_device": 1}, {"max_version": 1}, {"max_version": "1.0"}):
        with pytest.raises(TypeError):
            frame.__dlpack__(**arguments)
    for arguments in ({"dl_device": (CPU, 0)}, {"stream": -1}, {"stream": None}):
        consume(frame, **arguments).delete()
    frame.release()
    assert subscriber.leases == 0


@pytest.mark.parametrize(
    ("dtype", "code", "bits"),
    [
        ("bool", 6, 8), ("int8", 0, 8), ("int64", 0, 64), ("uint16", 1, 16), ("float16", 2, 16),
        ("float64", 2, 64), ("complex64", 5, 64), ("complex128", 5, 128),
        (ml_dtypes.bfloat16, 4, 16),
    ],
)  # fmt: skip
def test_every_kind_of_element_has_its_code(free: Any, dtype: Any, code: int, bits: int) -> None:
    publisher, subscriber = free
    publisher.send(np.ones((3, 2, 1), dtype))
    tensor = consume(subscriber.take())
    assert tensor.dtype == (code, bits, 1)
    assert (tensor.shape, tensor.strides) == ((3, 2, 1), (2, 1, 1))
    tensor.delete()


def test_raw_bytes_and_empty_arrays_are_tensors_too(free: Any) -> None:
    publisher, subscriber = free
    for data, shape in ((b"abc", (3,)), (b"", (0,)), (np.zeros((0, 4), "u1"), (0, 4))):
        publisher.send(data)
        tensor = consume(subscriber.take())
        assert (tensor.shape, tensor.dtype) == (shape, (1, 8, 1))
        tensor.delete()
    publisher.send(np.array(7, "i4"))
    tensor = consume(subscriber.take())
    assert (tensor.shape, tensor.read(ctypes.c_int32)) == ((), [7])
    tensor.delete()


def test_several_arrays_are_no_tensor_but_each_of_them_is(free: Any) -> None:
    publisher, subscriber = free
    publisher.send({"a": np.arange(3, dtype="f4"), "b": np.ones(2, "u1")})
    frame = subscriber.take()
    with pytest.raises(SchemaMismatch, match=r"arrays\[name\]"):
        frame.__dlpack__(max_version=(1, 0))
    tensor = consume(frame.arrays["a"])
    assert tensor.flags & READ_ONLY
    del frame
    assert subscriber.leases == 1
    assert tensor.read(ctypes.c_float) == [0, 1, 2]
    tensor.delete()
    assert subscriber.leases == 0


def test_a_released_frame_is_no_tensor(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((2, 3), "f4"))
    frame = subscriber.take()
    frame.release()
    with pytest.raises(ClosedError):
        frame.__dlpack__(max_version=(1, 0))


def test_numpy_consumes_a_frame_without_a_copy(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(6, dtype="f4").reshape(2, 3))
    frame = subscriber.take()
    array = np.from_dlpack(frame)
    assert array.ctypes.data == frame.array.ctypes.data
    assert not array.flags.writeable
    assert np.from_dlpack(frame, copy=False).ctypes.data == array.ctypes.data
    assert np.from_dlpack(frame, device="cpu").ctypes.data == array.ctypes.data
    copy = np.from_dlpack(frame, copy=True)
    assert copy.flags.writeable
    del frame
    assert subscriber.leases == 1
    del array
    assert subscriber.leases == 0
    assert copy.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_loan_is_a_writable_tensor(cam: Any) -> None:
    publisher, subscriber = cam
    with publisher.loan() as loan:
        for max_version in ((1, 0), None):
            tensor = consume(loan, max_version=max_version)
            assert tensor.flags == 0
            tensor.delete()
        tensor = consume(loan)
        start = tensor.managed.tensor.data
        for index in range(6):
            ctypes.c_float.from_address(start + 4 * index).value = index
        tensor.delete()
        loan.publish()
    assert subscriber.take().array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_loan_outlives_its_publisher_while_a_consumer_holds_it(cam: Any) -> None:
    publisher, _ = cam
    loan = publisher.loan()
    tensor = consume(loan)
    del loan
    publisher.close()
    assert shm.inspect("cam").slots_loaned == 1
    ctypes.c_float.from_address(tensor.managed.tensor.data).value = 1
    tensor.delete()
    assert shm.inspect("cam").slots_loaned == 0


@pytest.mark.parametrize("versioned", [True, False])
def test_a_producer_is_published_in_any_strides_and_given_back(cam: Any, versioned: bool) -> None:
    publisher, subscriber = cam
    for strides, expected in (((3, 1), [[0, 1, 2], [3, 4, 5]]), ((1, 2), [[0, 2, 4], [1, 3, 5]])):
        deleted: list[int] = []
        producer = Producer(
            [0, 1, 2, 3, 4, 5],
            (2, 3),
            strides,
            versioned=versioned,
            deleted=lambda deleted=deleted: deleted.append(1),
        )
        publisher.send(producer)
        assert deleted == [1]
        with subscriber.take() as frame:
            assert frame.array.tolist() == expected


def test_a_read_only_producer_may_be_published(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(Producer([1] * 6, (2, 3), (3, 1), flags=READ_ONLY))
    first = subscriber.take()

    class OnlyDlpack:
        def __init__(self, wrapped: Any) -> None:
            self.__dlpack__ = wrapped.__dlpack__
            self.__dlpack_device__ = wrapped.__dlpack_device__

    publisher.send(OnlyDlpack(first))  # a frame forwarded
    publisher.send({"": OnlyDlpack(first)})
    for sequence in (2, 3):
        with subscriber.take() as frame:
            assert frame.sequence == sequence
            assert frame.array.tolist() == [[1] * 3] * 2
    assert subscriber.leases == 1


def test_a_producer_of_another_device_is_refused(cam: Any) -> None:
    publisher, _ = cam
    deleted: list[int] = []
    producer = Producer(
        [0] * 6, (2, 3), (3, 1), device=(CUDA, 0), deleted=lambda: deleted.append(1)
    )
    with pytest.raises(TypeError, match="on the CPU"):
        publisher.send(producer)
    assert len(deleted) == len(producer.calls)  # whatever was handed out was given back
    assert publisher.published == 0


def test_a_producer_of_the_wrong_shape_is_refused_and_given_back(cam: Any) -> None:
    publisher, _ = cam
    deleted: list[int] = []
    producer = Producer([0] * 6, (3, 2), (2, 1), deleted=lambda: deleted.append(1))
    with pytest.raises(SchemaMismatch, match=r"got float32 \(3, 2\)"):
        publisher.send(producer)
    assert deleted == [1]
    assert shm.inspect("cam").slots_loaned == 0


def test_a_loan_may_be_laid_out_like_a_producer(free: Any) -> None:
    publisher, subscriber = free
    with publisher.loan(Producer([0] * 6, (2, 3), (1, 2))) as loan:
        loan.array[:] = 4
        loan.publish()
    frame = subscriber.take()
    assert (frame.dtype, frame.shape) == ("float32", (2, 3))
