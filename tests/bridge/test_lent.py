"""A frame lent out as a bytearray: its own bytes, for a while, and nothing left behind."""

import ctypes
import gc
import sys

import numpy as np
import pytest
import zenoh

import framegate
from framegate.bridge import lent

FRAME = np.arange(300_000, dtype=np.uint32).reshape(3, 100_000)


def address_of(array: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(array))


def test_bytearrays_of_this_interpreter_are_known() -> None:
    # Python 3.15 keeps its bytes in another object.
    assert lent.IS_LENT == (sys.version_info < (3, 15))


def test_a_frame_is_lent_without_a_copy() -> None:
    with (
        framegate.Publisher("t", slots=4, slot_bytes=FRAME.nbytes) as publisher,
        framegate.Subscriber("t") as subscriber,
    ):
        publisher.send(FRAME)
        frame = subscriber.take(timeout=10)
        assert frame is not None
        with frame, memoryview(frame) as view:
            with lent.lend(view) as data:
                assert isinstance(data, bytearray)
                assert address_of(data) == frame.array.ctypes.data
                assert len(data) == FRAME.nbytes and data == FRAME.tobytes()
                copy = zenoh.ZBytes(data)
            assert data == b"" and len(copy) == FRAME.nbytes
    # Zenoh's are its own.
    assert bytes(copy) == FRAME.tobytes()


def test_who_keeps_it_has_an_empty_one_that_works() -> None:
    with memoryview(FRAME) as view, lent.lend(view) as data:
        assert isinstance(data, bytearray)
        with pytest.raises(BufferError):
            data.append(1)
        with pytest.raises(BufferError):
            data.clear()
        kept = data
    assert FRAME[2, -1] == 299_999
    kept += b"more"
    assert kept == b"more" and lent._fields(kept)[lent.EXPORTS] == 0
    del data, kept
    gc.collect()


def test_an_error_gives_it_back() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        memoryview(FRAME) as view,
        lent.lend(view) as data,
    ):
        raise ZeroDivisionError
    assert data == b""


def test_what_is_not_contiguous_is_not_lent() -> None:
    with (
        memoryview(FRAME[:, ::2]) as view,
        pytest.raises(BufferError),
        lent.lend(view),
    ):
        pass


@pytest.mark.parametrize("nbytes", [0, 1, lent.LEAST_BYTES - 1])
def test_a_small_frame_is_copied(nbytes: int) -> None:
    with memoryview(bytes(nbytes)) as view, lent.lend(view) as data:
        assert data == bytes(nbytes) and isinstance(data, bytes)


def test_where_bytearrays_are_not_known_frames_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lent, "IS_LENT", False)
    with memoryview(FRAME) as view, lent.lend(view) as data:
        assert isinstance(data, bytes) and data == FRAME.tobytes()
