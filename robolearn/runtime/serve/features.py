"""The part of a Spec that a body and a policy in another process must agree on, as text, read strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.runtime.serve.reader import MAX_BYTES, ProtocolError
from robolearn.runtime.serve.wire import DTYPES, MAX_DIMS

_MAX_ARRAYS = 24  # of observations, of goals: with the rest of a plan they stay under the keys of a message
_MAX_TICKS = 10_000
_ARRAY = {"shape", "dtype", "names", "unit", "frame"}
_SPEC = {"obs", "action", "hz", "goal", "codec", "execute", "memory_stride"}


def spec_text(spec: Spec) -> str:
    """Returns `spec` as one line of JSON, without its cameras: where they hang is no feature."""
    values = spec.to_json()
    return json.dumps({key: values[key] for key in sorted(_SPEC)})


def read_spec(text: str) -> Spec:
    """Returns the spec that `spec_text` wrote; ProtocolError, and no other exception, where a stranger wrote something else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("spec: want one JSON object") from None
    _keys("spec", values, _SPEC)
    hz, codec = values["hz"], values["codec"]
    if type(hz) not in (int, float) or not 0 < hz <= _MAX_TICKS:
        raise ProtocolError(f"spec: hz: want a number within 0 .. {_MAX_TICKS}")
    for key in ("execute", "memory_stride"):
        if type(values[key]) is not int or not 1 <= values[key] <= _MAX_TICKS:
            raise ProtocolError(f"spec: {key}: want an integer within 1 .. {_MAX_TICKS}")
    _text("codec", codec)
    return Spec(
        obs=_arrays("obs", values["obs"]),
        action=_array("action", values["action"]),
        hz=float(hz),
        goal=_arrays("goal", values["goal"]),
        codec=codec,
        execute=values["execute"],
        memory_stride=values["memory_stride"],
    )


def describe(spec: Spec) -> str:
    """Returns what a person compares: "observes image uint8(96, 96, 3), state float32(2,); acts float32(2,) at 10 Hz"."""
    shown = ", ".join(f"{key} {array.dtype}{array.shape}" for key, array in spec.obs.items()) or "nothing"
    codec = f" as '{spec.codec}'" if spec.codec else ""
    return f"observes {shown}; acts {spec.action.dtype}{spec.action.shape}{codec} at {spec.hz:g} Hz"


def row_bytes(spec: Spec) -> int:
    """Returns how many bytes one observation takes."""
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in spec.obs.values())


def _keys(where: str, values: Any, want: set[str]) -> None:
    if not isinstance(values, dict) or values.keys() != want:
        raise ProtocolError(f"spec: {where}: want an object with exactly {', '.join(sorted(want))}")


def _text(where: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > 128 or not value.isprintable():
        raise ProtocolError(f"spec: {where}: want a printable text of at most 128 characters")


def _arrays(where: str, values: Any) -> Mapping[str, ArraySpec]:
    if not isinstance(values, dict) or len(values) > _MAX_ARRAYS:
        raise ProtocolError(f"spec: {where}: want an object of at most {_MAX_ARRAYS} arrays")
    for key in values:
        _text(where, key)
        if not 0 < len(key) <= 100:
            raise ProtocolError(f"spec: {where}: want names of 1 .. 100 characters")
    return {key: _array(f"{where} {key}", value) for key, value in values.items()}


def _array(where: str, values: Any) -> ArraySpec:
    _keys(where, values, _ARRAY)
    shape, dtype, names = values["shape"], values["dtype"], values["names"]
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and 0 < n <= MAX_BYTES for n in shape):
        raise ProtocolError(f"spec: {where}: want a shape of at most {MAX_DIMS} positive numbers")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ProtocolError(f"spec: {where}: want a dtype of {', '.join(DTYPES)}")
    if math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise ProtocolError(f"spec: {where}: want at most {MAX_BYTES} bytes, got {dtype}{tuple(shape)}")
    if not isinstance(names, list) or len(names) not in (0, shape[-1] if shape else 1):
        raise ProtocolError(f"spec: {where}: want no names, or one for each number of the last axis")
    for text in (*names, values["unit"], values["frame"]):
        _text(where, text)
    return ArraySpec(tuple(shape), dtype, tuple(names), values["unit"], values["frame"])
