"""A DLPack consumer and producer of our own, by the C structures and nothing else.

`consume()` does what the standard asks of a consumer: it reads the structure that the capsule
holds, renames the capsule, and from then on owns the tensor until it calls the deleter.
"""

import ctypes
from collections.abc import Callable
from typing import Any

READ_ONLY, IS_COPIED = 1, 2
CPU, CUDA = 1, 2


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # a call of it gives up the GIL


class Unversioned(ctypes.Structure):
    """DLManagedTensor, before 1.0."""

    _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, 1.0 and later."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    ]


_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}


class Tensor:
    """A tensor that was taken over from a producer."""

    def __init__(self, capsule: Any) -> None:
        name = _api.PyCapsule_GetName(capsule)
        assert name in _USED, "not a capsule that a producer may hand out"
        self.address = _api.PyCapsule_GetPointer(capsule, name)
        self.is_versioned = name == b"dltensor_versioned"
        kind = Versioned if self.is_versioned else Unversioned
        self.managed = kind.from_address(self.address)
        _api.PyCapsule_SetName(capsule, _USED[name])

    @property
    def flags(self) -> int:
        return int(self.managed.flags) if self.is_versioned else 0

    @property
    def shape(self) -> tuple[int, ...]:
        tensor = self.managed.tensor
        return tuple(tensor.shape[: tensor.ndim])

    @property
    def strides(self) -> tuple[int, ...]:
        tensor = self.managed.tensor
        return tuple(tensor.strides[: tensor.ndim])

    @property
    def dtype(self) -> tuple[int, int, int]:
        dtype = self.managed.tensor.dtype
        return dtype.code, dtype.bits, dtype.lanes

    @property
    def device(self) -> tuple[int, int]:
        device = self.managed.tensor.device
        return device.type, device.id

    def read(self, element: Any) -> list[Any]:
        """All elements in C order, each read through its strides from the memory itself."""
        tensor = self.managed.tensor
        start = tensor.data + tensor.byte_offset
        values: list[Any] = []

        def walk(axis: int, offset: int) -> None:
            if axis == tensor.ndim:
                values.append(element.from_address(start + offset * ctypes.sizeof(element)).value)
                return
            for index in range(tensor.shape[axis]):
                walk(axis + 1, offset + index * tensor.strides[axis])

        walk(0, 0)
        return values

    def delete(self) -> None:
        """Give the tensor back; nothing of it may be read afterwards."""
        deleter, self.managed = self.managed.deleter, None
        deleter(self.address)


def consume(producer: Any, **arguments: Any) -> Tensor:
    """Take a tensor over; by default as a consumer of DLPack 1.0 asks for it."""
    return Tensor(producer.__dlpack__(**({"max_version": (1, 0)} | arguments)))


class Producer:
    """A tensor of somebody else's: nothing but `__dlpack__`, of float32.

    Strides are in elements. `deleted` is called when its consumer gives it back.
    """

    def __init__(
        self,
        values: list[float],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        device: tuple[int, int] = (CPU, 0),
        flags: int = 0,
        versioned: bool = True,
        deleted: Callable[[], object] = lambda: None,
    ) -> None:
        self.memory = (ctypes.c_float * len(values))(*values)
        self.device = device
        self.calls: list[dict[str, Any]] = []
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.strides = (ctypes.c_int64 * len(shape))(*strides)
        self.deleter = DELETER(lambda _: deleted() and None)
        tensor = DLTensor(
            ctypes.addressof(self.memory),
            Device(*device),
            len(shape),
            DataType(2, 32, 1),
            self.shape,
            self.strides,
            0,
        )
        self.versioned = versioned
        if versioned:
            self.managed: Any = Versioned(1, 0, None, self.deleter, flags, tensor)
        else:
            self.managed = Unversioned(tensor, None, self.deleter)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if not self.versioned and "max_version" in arguments:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        return _api.PyCapsule_New(ctypes.addressof(self.managed), name, None)
