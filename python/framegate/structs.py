"""msgspec structs as frames: each field is a named array. Needs the extras `numpy` and `msgspec`.

```python
class Sample(msgspec.Struct):
    image: Annotated[np.ndarray, ArraySpec("uint8", (480, 640, 3))]
    gain: float
    count: int


with framegate.Publisher("camera", arrays=schema_of(Sample)) as publisher:
    publisher.send(Sample(image, 2.5, 7))
...
sample = struct_of(Sample, subscriber.take())  # sample.image is the shared memory
```

`bool`, `int`, `float` and `complex` are arrays without a dimension: bool, int64, float64 and
complex128. `bytes` is uint8 of any length. Arrays say with `Annotated` what they are, or describe
themselves on a topic with free frames.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from framegate.shm import ArraySpec, Frame

if TYPE_CHECKING:
    import msgspec

    Struct = TypeVar("Struct", bound=msgspec.Struct)
else:
    Struct = TypeVar("Struct")

__all__ = ["arrays_of", "schema_of", "struct_of"]

SCALARS: Mapping[type, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    complex: "complex128",
}


def schema_of(kind: type[Any]) -> dict[str, ArraySpec]:
    """The arrays of a topic that holds such structs, for `arrays=`.

    Raises:
        TypeError: A field is nothing that a frame can hold, or an array that does not say its dtype
            and shape: `Annotated[np.ndarray, ArraySpec(dtype, shape)]`.
    """
    schema = {}
    for name, hint in _fields(kind):
        spec = _spec(hint)
        if spec is None:
            raise TypeError(
                f"{kind.__name__}.{name} is {hint!r}: say what it holds with "
                "Annotated[np.ndarray, ArraySpec(dtype, shape)], or bool, int, float, complex or "
                "bytes"
            )
        schema[name] = spec
    return schema


def arrays_of(struct: Any) -> dict[str, Any]:
    """The fields of a struct as arrays by name; what `Publisher.send` makes of a struct.

    Raises:
        TypeError: A field is nothing that a frame can hold.
        OverflowError: An int has more than 64 bits.
    """
    import numpy as np

    arrays: dict[str, Any] = {}
    for name in type(struct).__struct_fields__:
        value = getattr(struct, name)
        dtype = SCALARS.get(type(value))
        if dtype is not None:
            arrays[name] = np.asarray(value, dtype=dtype)
        elif isinstance(value, bytes):
            arrays[name] = np.frombuffer(value, np.uint8)
        elif hasattr(value, "dtype") and hasattr(value, "shape"):
            arrays[name] = value
        else:
            raise TypeError(
                f"{type(struct).__name__}.{name} is a {type(value).__name__}: fields of a frame "
                "are arrays, bytes, bool, int, float or complex"
            )
    return arrays


def struct_of(kind: type[Struct], frame: Frame) -> Struct:
    """A frame as the struct it was sent as; arrays are read-only views that keep the lease.

    Raises:
        KeyError: The frame has no array of the name of a field.
        TypeError: The array of a number has dimensions.
    """
    values: dict[str, Any] = {}
    for name, hint in _fields(kind):
        array = frame[name]
        plain = _plain(hint)
        if plain in SCALARS:
            if array.shape != ():
                raise TypeError(
                    f"{kind.__name__}.{name} is {plain.__name__}, array {name!r} of frame "
                    f"{frame.sequence} has shape {array.shape}"
                )
            values[name] = plain(array[()])
        elif plain is bytes:
            values[name] = array.tobytes()
        else:
            values[name] = array
    return kind(**values)


def _fields(kind: type[Any]) -> list[tuple[str, Any]]:
    try:
        import msgspec
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "structs need msgspec: pip install 'framegate[msgspec]'", name="msgspec"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        raise TypeError(f"{kind!r} is not a msgspec.Struct class")
    # The types of msgspec.inspect know no arrays; the hints themselves do.
    import typing

    hints = typing.get_type_hints(kind, include_extras=True)
    return [(name, hints[name]) for name in kind.__struct_fields__]


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _spec(hint: Any) -> ArraySpec | None:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, ArraySpec):
                return extra
    plain = _plain(hint)
    if get_origin(plain) in (Union, types.UnionType):
        return None  # None has no place in an array
    if plain in SCALARS:
        return ArraySpec(SCALARS[plain], ())
    return ArraySpec("uint8", (None,)) if plain is bytes else None
