"""Arrays of numbers and encoded pictures as the arrow columns that LeRobot expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robolearn.data.convert import _lerobot_layout as layout


def pyarrow() -> Any:
    """Returns pyarrow; MissingDependency says how to install it."""
    layout.parquet()
    import pyarrow as module

    return module


def schema(features: Mapping[str, Mapping[str, Any]]) -> Any:
    """Returns the arrow schema of data/ for these features of info.json."""
    arrow = pyarrow()
    fields = []
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        if feature["dtype"] == "image":
            kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        else:
            kind = arrow.from_numpy_dtype(np.dtype(feature["dtype"]))
            shape = [] if feature["shape"] == [1] else feature["shape"]
            for size in reversed(shape):
                kind = arrow.list_(kind, size) if len(shape) == 1 else arrow.list_(kind)
        fields.append((name, kind))
    return arrow.schema(fields)


def column(values: Any, kind: Any) -> Any:
    """Returns a column as an arrow array of the type the schema wants."""
    arrow = pyarrow()
    if isinstance(values, list):
        return arrow.array([{"bytes": raw, "path": None} for raw in values], kind)
    if arrow.types.is_fixed_size_list(kind):
        return arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), kind.list_size)
    if not arrow.types.is_list(kind):
        return arrow.array(values.reshape(len(values)))
    made = arrow.array(values.ravel())
    for axis in range(values.ndim - 1, 0, -1):
        step = values.shape[axis]
        offsets = np.arange(0, int(np.prod(values.shape[:axis])) * step + 1, step, dtype=np.int32)
        made = arrow.ListArray.from_arrays(arrow.array(offsets), made)
    return made


def plain(values: list[Any]) -> Any:
    """Returns values of one column of meta/episodes as arrow takes them; numbers keep their dtype."""
    if isinstance(values[0], np.generic) and values[0].dtype.kind in "iuf":
        return np.array(values)
    return [value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in values]
