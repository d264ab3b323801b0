"""Views: they are the shared memory itself, read-only, and outlive everything but themselves."""

import gc
import io
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from framegate import shm
from framegate.errors import ClosedError, SchemaMismatch


def mapping_of(address: int) -> str:
    """The line of /proc/self/maps that an address lies in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return line
    raise AssertionError("the address is not mapped")


@pytest.fixture
def cam() -> Any:
    """A topic of (4, 6) float32 with its publisher and a queue subscriber."""
    with (
        shm.Topic.create("cam", dtype="f4", shape=(4, 6), slots=4) as topic,
        topic.publisher() as publisher,
        topic.subscriber("queue", max_leases=2) as subscriber,
    ):
        yield publisher, subscriber


def test_an_array_is_the_shared_memory_itself(cam: Any, runtime_directory: Path) -> None:
    publisher, subscriber = cam
    publisher.send(np.ones((4, 6), "f4"))
    frame = subscriber.take()
    array = frame.array
    assert not array.flags.owndata
    line = mapping_of(array.ctypes.data)
    assert str(runtime_directory / "cam.") in line
    assert line.endswith(".data")
    assert line.split()[1] == "r--s"  # no way for a reader to write, whatever it does
    assert array.ctypes.data == np.asarray(memoryview(frame)).ctypes.data
    assert array.ctypes.data % 64 == 0


def test_what_is_written_into_a_loan_is_what_the_subscriber_maps(cam: Any) -> None:
    publisher, subscriber = cam
    with publisher.loan() as loan:
        loan.array[:] = 7
        loan.publish()
    assert (subscriber.take().array == 7).all()


def test_views_are_read_only(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.ones((4, 6), "f4"))
    frame = subscriber.take()
    array = frame.array
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    with pytest.raises(TypeError, match="read-only"):
        memoryview(frame).cast("B")[0] = 1
    with pytest.raises(TypeError, match="read-write"):
        io.BytesIO(bytes(96)).readinto(frame)


def test_a_held_view_is_unchanged_over_1000_publishes(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.full((4, 6), 42, "f4"))
    view = subscriber.take().array  # the Frame object itself is gone
    for number in range(1000):
        publisher.send(np.full((4, 6), number, "f4"))
    assert (view == 42).all()
    assert publisher.sequence == 1001


def test_the_lease_ends_with_the_last_view(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((4, 6), "f4"))
    frame = subscriber.take()
    gone = weakref.ref(frame)
    view = memoryview(frame)
    part = np.asarray(frame)[1:]
    del frame
    assert subscriber.leases == 1
    view.release()
    assert subscriber.leases == 1
    assert gone() is not None
    del part
    assert gone() is None
    assert subscriber.leases == 0


def test_release_refuses_while_views_exist(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((4, 6), "f4"))
    frame = subscriber.take()
    view = frame.array
    with pytest.raises(BufferError, match="1 view"):
        frame.release()
    assert view.sum() == 0
    del view
    frame.release()
    frame.release()
    assert frame.released
    assert subscriber.leases == 0
    for use in (lambda: frame.array, lambda: memoryview(frame), lambda: frame.__dlpack__()):
        with pytest.raises(ClosedError, match="released"):
            use()
    assert frame.shape == (4, 6)


def test_leaving_the_block_ends_the_lease_or_leaves_it_to_the_views(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((4, 6), "f4"))
    publisher.send(np.ones((4, 6), "f4"))
    with subscriber.take() as frame:
        assert frame.array.sum() == 0
    assert frame.released
    with subscriber.take() as frame:
        image = frame.array
    assert not frame.released
    assert image.sum() == 24
    del image, frame
    gc.collect()
    assert subscriber.leases == 0


def test_views_outlive_subscriber_publisher_and_topic(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.full((4, 6), 3, "f4"))
    view = subscriber.take().array
    subscriber.close()
    for number in range(100):
        publisher.send(np.full((4, 6), number, "f4"))
    publisher.close()
    shm.unlink("cam")
    assert (view == 3).all()
    report_gone = view.copy()
    del view
    assert (report_gone == 3).all()


def test_dlpack_is_1_x_and_read_only(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(24, dtype="f4").reshape(4, 6))
    frame = subscriber.take()
    assert frame.__dlpack_device__() == (1, 0)
    array = np.from_dlpack(frame)
    assert array.ctypes.data == np.asarray(frame).ctypes.data
    assert not array.flags.writeable
    assert array[1, 1] == 7
    with pytest.raises(BufferError):
        frame.release()
    del array
    frame.release()


def test_dlpack_before_1_0_gets_a_copy_or_nothing(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(24, dtype="f4").reshape(4, 6))
    frame = subscriber.take()
    with pytest.raises(BufferError, match="max_version"):
        frame.__dlpack__()
    with pytest.raises(BufferError, match="host memory"):
        frame.__dlpack__(max_version=(1, 0), dl_device=(2, 0))
    with pytest.raises(BufferError, match="stream"):
        frame.__dlpack__(max_version=(1, 0), stream=3)
    copy = np.from_dlpack(frame, copy=True)
    frame.release()  # a copy holds no lease
    assert copy.sum() == 276
    assert copy.flags.writeable


def test_an_unconsumed_capsule_gives_the_lease_back(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.zeros((4, 6), "f4"))
    frame = subscriber.take()
    capsule = frame.__dlpack__(max_version=(1, 0))
    with pytest.raises(BufferError):
        frame.release()
    del capsule
    frame.release()


def test_array_interface_describes_the_frame(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(24, dtype="f4").reshape(4, 6))
    frame = subscriber.take()
    interface = frame.__array_interface__
    assert interface["version"] == 3
    assert interface["shape"] == (4, 6)
    assert interface["typestr"] == "<f4"
    # Not a class of this test: Python 3.13 without the GIL never frees one, nor what it refers to.
    array = np.asarray(SimpleNamespace(__array_interface__=interface))
    assert array.ctypes.data == frame.array.ctypes.data
    assert not array.flags.writeable


def test_dunder_array_is_the_view_unless_told_otherwise(cam: Any) -> None:
    publisher, subscriber = cam
    publisher.send(np.arange(24, dtype="f4").reshape(4, 6))
    frame = subscriber.take()
    assert frame.__array__().ctypes.data == frame.array.ctypes.data
    assert frame.__array__("f4", copy=False).ctypes.data == frame.array.ctypes.data
    for copy in (frame.__array__("f8"), frame.__array__(copy=True), np.array(frame)):
        assert copy.flags.writeable
        assert copy.ctypes.data != frame.array.ctypes.data
        assert copy.sum() == 276
    with pytest.raises(ValueError, match="copy"):
        frame.__array__("f8", copy=False)
    frame.release()


def test_one_array_is_asked_of_several_in_vain() -> None:
    with shm.Publisher("rig") as publisher:
        publisher.send({"a": np.zeros(2), "b": np.ones(3)})
        with shm.Subscriber("rig") as subscriber:
            frame = subscriber.take()
            for use in ("array", "shape", "dtype", "__array_interface__"):
                with pytest.raises(SchemaMismatch, match=r"a, b.*arrays\[name\]"):
                    getattr(frame, use)
            assert (
                len(memoryview(frame)) == frame.nbytes
            )  # all bytes, for those who know what they do


def test_named_views_hold_the_lease() -> None:
    with shm.Publisher("rig") as publisher:
        publisher.send({"a": np.full(2, 5), "b": np.ones(3)})
        with shm.Subscriber("rig") as subscriber:
            part = subscriber.take().arrays["a"]
            for _ in range(20):
                publisher.send({"a": np.zeros(2, int), "b": np.zeros(3)})
            assert part.tolist() == [5, 5]
            assert subscriber.leases == 1
            del part
            assert subscriber.leases == 0


def test_frames_work_without_numpy() -> None:
    program = """
import sys
sys.modules["numpy"] = None  # import numpy raises ModuleNotFoundError
from framegate import shm
with (
    shm.Publisher("t", dtype="int16", shape=(2, 3)) as publisher,
    shm.Subscriber("t", "queue") as subscriber,
):
    with publisher.loan() as loan:
        view = loan.array
        assert type(view) is memoryview and view.shape == (2, 3) and not view.readonly
        view[1, 2] = -5
        loan.publish()
    frame = subscriber.take()
    view = frame.array
    assert type(view) is memoryview and view.readonly
    assert view.format == "h" and view.strides == (6, 2)
    assert view.tolist()[1][2] == -5
    assert frame.arrays[""].shape == (2, 3)
assert "numpy" not in {name.partition(".")[0] for name, module in sys.modules.items() if module}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_importing_frames_and_calls_loads_neither_numpy_nor_asyncio() -> None:
    program = (
        "import sys, framegate.shm, framegate.calls\n"
        "heavy = {'numpy', 'asyncio', 'ssl', 'framegate._http'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
