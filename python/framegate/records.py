"""Records: numpy arrays with a structured dtype as frames. Needs the extra `numpy`.

In a topic, each field is an array of its own that lies interleaved with the others (shm.h,
`FG_ARRAY_FIELD`); for numpy, all of them together are one structured array. What goes between this
module and the native one are rows: (name, dtype, shape, (offset, record bytes, record dimensions)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from framegate.errors import SchemaMismatch

if TYPE_CHECKING:
    from typing import TypeAlias

    Row: TypeAlias = tuple[str, Any, tuple[int | None, ...], tuple[int, int, int]]

__all__ = ["dtype_of", "flatten", "interleave", "is_structured", "rows_of", "view"]


def is_structured(dtype: Any) -> bool:
    """Whether it is a numpy dtype with fields."""
    return getattr(dtype, "fields", None) is not None


def rows_of(dtype: Any, shape: Iterable[int | None]) -> list[Row]:
    """The arrays that an array of this dtype and shape consists of.

    Raises:
        TypeError: A field has fields itself, or elements in the other byte order.
    """
    dimensions = tuple(shape)
    rows: list[Row] = []
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        base, inner = (kind, ()) if kind.subdtype is None else kind.subdtype
        if is_structured(base) or base.hasobject or not base.isnative:
            raise TypeError(
                f"field {name!r} is {base}: fields of records are plain numbers in this machine's "
                "byte order"
            )
        place = (offset, dtype.itemsize, len(dimensions))
        rows.append((name, base, (*dimensions, *inner), place))
    return rows


def flatten(array: Any) -> tuple[list[Row], Any]:
    """The rows of a structured array, and its bytes in C order."""
    import numpy as np

    rows = rows_of(array.dtype, array.shape)
    return rows, np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def dtype_of(rows: Sequence[Row]) -> Any:
    """The structured dtype of such rows; bfloat16 is uint16 where ml_dtypes is missing."""
    import numpy as np

    names, formats, offsets = [], [], []
    for name, dtype, shape, (offset, _, dimensions) in rows:
        names.append(name)
        formats.append((_numpy_dtype(dtype), tuple(shape[dimensions:])))
        offsets.append(offset)
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": rows[0][3][1]}
    return np.dtype(layout)  # type: ignore[call-overload]


def view(buffer: Any, rows: Sequence[Row]) -> Any:
    """The bytes of a frame or loan as a structured array, without a copy."""
    import numpy as np

    dimensions = rows[0][3][2]
    flat = np.asarray(memoryview(buffer))
    return flat.view(dtype_of(rows)).reshape(rows[0][2][:dimensions])


def interleave(arrays: Mapping[str, Any], rows: Sequence[Row]) -> Any:
    """Arrays by name as one structured array.

    Raises:
        SchemaMismatch: There are others than the fields, or of other dtypes or shapes.
    """
    import numpy as np

    names = [row[0] for row in rows]
    if set(arrays) != set(names):
        raise SchemaMismatch(f"the records have the fields {names}, got {list(arrays)}")
    dimensions = rows[0][3][2]
    shape = np.shape(arrays[names[0]])[:dimensions]
    records = np.zeros(shape, dtype_of(rows))
    for name in names:
        array = np.asarray(arrays[name])
        if array.shape != records[name].shape or array.dtype != records[name].dtype:
            raise SchemaMismatch(
                f"field {name!r} is {records[name].dtype} {records[name].shape}, "
                f"got {array.dtype} {array.shape}"
            )
        records[name] = array
    return records


def _numpy_dtype(dtype: Any) -> Any:
    import numpy as np

    if dtype != "bfloat16":
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        return np.dtype("uint16")
    return np.dtype(ml_dtypes.bfloat16)
