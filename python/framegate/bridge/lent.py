"""A frame for who takes a `bytearray` and copies it, without a copy of ours before.

`zenoh.ZBytes` has no buffer protocol (zenoh-python issue 730): it copies what it is made of, and
takes `bytes` and `bytearray` alone. Of a frame in shared memory those would be one more copy. So a
`bytearray` is lent out whose bytes are those of the frame, for as long as `ZBytes` copies them.

That writes into the object, whose fields are CPython's business: `cpython/bytearrayobject.h` has
had them in this order since 3.4. They are looked for when this is imported. Where they are not as
they should be, frames are copied once more, and nothing else changes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["IS_LENT", "lend"]

LEAST_BYTES: Final = 65536
"""A smaller frame is copied sooner than it is lent."""

SIZE, ALLOCATED, BYTES, START, EXPORTS = range(5)


class _Buffer(ctypes.Structure):
    """`Py_buffer`, which is of the stable ABI since 3.11."""

    _fields_ = (("bytes", ctypes.c_void_p), ("others", ctypes.c_ssize_t * 9))


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def _address_of(view: memoryview) -> int:
    """Where the bytes are; ctypes itself says it of those alone that may be written."""
    buffer = _Buffer()
    _get_buffer(view, buffer, 0)  # PyBUF_SIMPLE: contiguous, or a BufferError
    try:
        return int(buffer.bytes or 0)
    finally:
        _release_buffer(buffer)


def _fields(array: bytearray) -> ctypes.Array[ctypes.c_ssize_t]:
    """What a bytearray has behind its object's head; no longer used than the array is held."""
    return (ctypes.c_ssize_t * 5).from_address(id(array) + object.__basicsize__)


def _is_known() -> bool:
    """Whether the fields are where they are looked for."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_ssize_t) != 8:
        return False
    if bytearray.__basicsize__ != object.__basicsize__ + 5 * 8:
        return False
    array, empty = bytearray(range(100)), bytearray()
    fields = _fields(array)
    with memoryview(array):
        view = ctypes.c_char.from_buffer(array)
        address = ctypes.addressof(view)
        shown = list(fields)
        del view
    return (
        shown[SIZE] == 100
        and shown[ALLOCATED] > 100
        and shown[BYTES] == shown[START] == address
        and shown[EXPORTS] == 2
        and fields[EXPORTS] == 0
        and list(_fields(empty)) == [0] * 5
    )


IS_LENT: Final = _is_known()
"""False: this interpreter's bytearrays are made otherwise, and frames are copied."""


@contextmanager
def lend(view: memoryview) -> Iterator[bytes | bytearray]:
    """The bytes of a view that is contiguous, to be copied and nothing else.

    Inside the block they must not be changed, which may be a fault; afterwards the bytearray is
    empty, whoever holds it. It cannot be resized meanwhile: it counts as exported. Raises
    BufferError if the view is not contiguous.
    """
    if not IS_LENT or view.nbytes < LEAST_BYTES:
        yield view.tobytes()
        return
    address = _address_of(view)
    array = bytearray()
    fields = _fields(array)
    # The size last, and first back: it says whether the others mean anything.
    fields[EXPORTS], fields[ALLOCATED] = 1, view.nbytes
    fields[BYTES] = fields[START] = address
    fields[SIZE] = view.nbytes
    try:
        yield array
    finally:
        fields[SIZE] = 0
        fields[BYTES] = fields[START] = fields[ALLOCATED] = fields[EXPORTS] = 0
