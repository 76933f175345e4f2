"""The messages between a policy server and a robot: msgpack maps with a schema, arrays by dtype, shape and bytes. No pickle.

    {schema, kind, session, epoch, seq, t_obs_ns, values: {name: value}, arrays: {name: {d: dtype, s: shape, b: bytes}}}

Pictures may travel as d "jpeg", b a list of files; arrays in shared memory have `at`, an offset, instead of b. Numbers in arrays
are little-endian. Every reply carries the seq and t_obs_ns [ns, the asker's monotonic clock] of what it answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from robolearn.core import ArraySpec
from robolearn.errors import MissingDependency
from robolearn.runtime.serve.pictures import decode_jpeg, encode_jpeg
from robolearn.runtime.serve.reader import MAX_BYTES, MAX_ITEMS, MAX_KEYS, MAX_TEXT, ProtocolError, read

SCHEMA = "robolearn.serve/1"
DTYPES = ("bool", "uint8", "uint16", "int32", "int64", "float16", "float32", "float64")
JPEG = "jpeg"
MAX_DIMS = 4
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Word:
    """One value a message may carry: its type, its least and most (for a text: of its length), whether it may be nil."""

    kind: type
    least: float = 0
    most: float = 0
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises ProtocolError unless `value` is of the type and within the bounds."""
        if value is None and self.optional:
            return
        if type(value) is not self.kind or not isinstance(value, (str, int, float)):  # not isinstance: True is no integer here
            raise ProtocolError(f"wire: '{name}': want {self.kind.__name__}, got {type(value).__name__}")
        size = len(value) if isinstance(value, str) else value
        if not self.least <= size <= self.most:  # false for NaN too
            what = "a length " if self.kind is str else ""
            raise ProtocolError(f"wire: '{name}': want {what}within {self.least:g} .. {self.most:g}, got {str(size)[:40]}")


_INT = 2**63 - 1
_NAME = Word(str, 1, 128)
_HEAD = {"session": Word(str, 0, 64), "epoch": Word(int, 0, _INT), "seq": Word(int, 0, _INT), "t_obs_ns": Word(int, 0, _INT)}
_SPEC = Word(str, 2, MAX_TEXT)
_ROWS = ("obs/", "applied", "applied_mask")

KINDS: Mapping[str, tuple[Mapping[str, Word], tuple[str, ...]]] = MappingProxyType(
    {  # kind: (values, all of them required; names of arrays, a "/" at the end stands for any name that begins so)
        "hello": ({"policy": _NAME, "robot": _NAME, "role": _NAME, "spec": _SPEC, "shared": Word(str, 0, 64)}, ()),
        "reset": ({"seed": Word(int, 0, _INT, optional=True)}, ()),
        "observe": ({"count": Word(int, 1, MAX_ITEMS)}, _ROWS),
        "plan": (
            {
                "count": Word(int, 0, MAX_ITEMS),
                "draws": Word(int, 1, 4096),
                "guidance": Word(float, -1e6, 1e6),
                "prefix_beta": Word(float, 0, 1e6),
                "prefix_jacobian": Word(str, 1, 16),
                "prefix_fixed": Word(int, 0, 4096),
            },
            (*_ROWS, "prefix", "prefix_mask", "goal/"),
        ),
        "ping": ({}, ()),
        "welcome": ({"policy": _NAME, "spec": _SPEC, "shared": Word(bool, 0, 1)}, ()),
        "done": ({}, ()),
        "chunk": (
            {"tick": Word(int, 0, _INT), "past_stride": Word(int, 1, 10_000)},
            ("actions", "past", "samples", "past_samples", "features"),
        ),
        "pong": ({"t_ns": Word(int, 0, _INT)}, ()),
        "error": ({"code": _NAME, "text": Word(str, 0, MAX_TEXT), "id": Word(str, 0, 32)}, ()),
    }
)


@dataclass(frozen=True)
class Message:
    """One message: who (session, epoch), which (seq), about what instant (t_obs_ns), and what (values, arrays; see `KINDS`)."""

    kind: str
    session: str = ""
    epoch: int = 0
    seq: int = 0
    t_obs_ns: int = 0
    values: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    arrays: Mapping[str, np.ndarray] = field(default_factory=lambda: _EMPTY)


class Place(Protocol):
    """Where a sender may put an array instead of into the message: returns its offset, None where there is no room."""

    def __call__(self, data: memoryview) -> int | None: ...


class Fetch(Protocol):
    """How a receiver reads `size` bytes that lie at an offset; ProtocolError where they cannot lie there."""

    def __call__(self, at: int, size: int) -> bytes: ...


def encode(message: Message, jpeg: Mapping[str, int] = _EMPTY, place: Place | None = None) -> bytes:
    """Returns the bytes of `message`; ProtocolError where `decode` would refuse them.

    jpeg: quality by the name of an array of pictures (n, height, width, 3); place: shared memory for arrays.
    """
    try:
        import msgpack
    except ImportError:
        raise MissingDependency("msgpack", "a policy server", "pip install 'robolearn[serve]'") from None
    head = {name: getattr(message, name) for name in ("kind", *_HEAD)}
    _check(message.kind, head, message.values, message.arrays)
    sizes = {name: array.nbytes for name, array in message.arrays.items()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        raise ProtocolError(
            f"wire: '{message.kind}' holds arrays of {sum(sizes.values())} bytes ('{largest}' {sizes[largest]}), "
            f"want at most {MAX_BYTES} in a message"
        )
    arrays = {name: _packed(name, array, jpeg.get(name, 0), place) for name, array in message.arrays.items()}
    data: bytes = msgpack.packb({"schema": SCHEMA, **head, "values": dict(message.values), "arrays": arrays}, use_bin_type=True)
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"wire: '{message.kind}' takes {len(data)} bytes, want at most {MAX_BYTES}")
    return data


@dataclass(frozen=True)
class Envelope:
    """A message read and checked but for its arrays, which cost more: `message` is without them, `raw` holds them packed."""

    message: Message
    raw: Mapping[str, Any]


def decode(data: bytes | memoryview, announced: Mapping[str, ArraySpec] = _EMPTY, fetch: Fetch | None = None) -> Message:
    """Returns the message in `data`; ProtocolError, and no other exception, where it is none. Arrays are read-only views.

    announced: shape and dtype of one row of each array "obs/...": rows of other arrays or shapes are refused, before anything is
    decoded; without it none is taken. fetch: reads shared memory; without it no array may lie there.
    """
    return contents(open_envelope(data), announced, fetch)


def open_envelope(data: bytes | memoryview) -> Envelope:
    """Returns everything of a message but its arrays, in less time than an event loop minds; ProtocolError as `decode`."""
    found = read(data)
    want = {"schema", "kind", *_HEAD, "values", "arrays"}
    if found.keys() != want:
        raise ProtocolError(f"wire: want exactly the keys {', '.join(sorted(want))}, got {', '.join(sorted(found))[:200]}")
    if found["schema"] != SCHEMA:
        raise ProtocolError(f"wire: want schema '{SCHEMA}', got {str(found['schema'])[:40]!r}")
    kind, values, raw = found["kind"], found["values"], found["arrays"]
    if not isinstance(kind, str) or not isinstance(values, dict) or not isinstance(raw, dict):
        raise ProtocolError("wire: want a text as kind, and maps as values and arrays")
    head = {name: found[name] for name in _HEAD}
    _check(kind, head, values, raw)
    return Envelope(Message(kind, values=values, **head), raw)


def contents(envelope: Envelope, announced: Mapping[str, ArraySpec] = _EMPTY, fetch: Fetch | None = None) -> Message:
    """Returns the message with its arrays; ProtocolError and arguments as `decode`."""
    budget, arrays = MAX_BYTES, {}
    for name, packed in envelope.raw.items():
        arrays[name], budget = _unpacked(name, packed, announced, fetch, budget)
    return replace(envelope.message, arrays=arrays)


def _check(kind: str, head: Mapping[str, Any], values: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Raises ProtocolError unless the kind exists and has these values and arrays."""
    if kind not in KINDS:
        raise ProtocolError(f"wire: unknown kind {kind[:40]!r} (known: {', '.join(KINDS)})")
    words, names = KINDS[kind]
    for name, word in _HEAD.items():
        word.check(name, head[name])
    if values.keys() != words.keys():
        raise ProtocolError(
            f"wire: '{kind}' has the values {', '.join(words) or 'none'}, got {', '.join(values)[:200] or 'none'}"
        )
    for name, word in words.items():
        word.check(name, values[name])
    if len(arrays) > MAX_KEYS:
        raise ProtocolError(f"wire: want at most {MAX_KEYS} arrays, got {len(arrays)}")
    for name in arrays:
        if not any(name.startswith(known) and name != known if known.endswith("/") else name == known for known in names):
            raise ProtocolError(f"wire: '{kind}' has no array '{name[:40]}' (known: {', '.join(names) or 'none'})")


def _packed(name: str, array: np.ndarray, quality: int, place: Place | None) -> dict[str, Any]:
    if array.dtype.name not in DTYPES or not array.size or array.ndim > MAX_DIMS + 1:
        want = f"{', '.join(DTYPES)}, not empty, of at most {MAX_DIMS + 1} axes"
        raise ProtocolError(f"wire: '{name}': want one of {want}, got {array.dtype.name}{array.shape}")
    shape = list(array.shape)
    if quality:
        return {"d": JPEG, "s": shape, "b": [encode_jpeg(picture, quality) for picture in array]}
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
    at = place(flat) if place is not None else None
    return {"d": array.dtype.name, "s": shape, "b": flat} if at is None else {"d": array.dtype.name, "s": shape, "at": at}


def _unpacked(
    name: str, packed: Any, announced: Mapping[str, ArraySpec], fetch: Fetch | None, budget: int
) -> tuple[np.ndarray, int]:
    """Returns the array and what is left of the `budget` [bytes] of a message."""
    if not isinstance(packed, dict) or packed.keys() not in ({"d", "s", "b"}, {"d", "s", "at"}):
        raise ProtocolError(f"wire: '{name}': want an array as d, s and b")
    kind, shape, data = packed["d"], _shape(name, packed["s"]), packed.get("b")
    if kind not in (*DTYPES, JPEG):
        raise ProtocolError(f"wire: '{name}': want a dtype of {', '.join(DTYPES)}, got {str(kind)[:40]!r}")
    dtype = np.dtype("uint8" if kind == JPEG else kind).newbyteorder("<")
    if name.startswith("obs/"):
        want = announced.get(name.removeprefix("obs/"))
        if want is None or shape[1:] != want.shape or dtype.name != want.dtype:
            told = "none of that name" if want is None else f"(n, {want.dtype}{want.shape})"
            raise ProtocolError(f"wire: '{name}': announced was {told}, got {dtype.name}{shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > budget:
        raise ProtocolError(f"wire: '{name}': want at most {MAX_BYTES} bytes of arrays in a message, got {size} more")
    if kind == JPEG:
        return _pictures(name, shape, data), budget - size
    if "at" in packed:
        data = _fetched(name, packed["at"], size, fetch)
    if not isinstance(data, (bytes, memoryview)) or len(data) != size:
        got = len(data) if isinstance(data, (bytes, memoryview)) else type(data).__name__
        raise ProtocolError(f"wire: '{name}': want {size} bytes for {kind}{shape}, got {got}")
    array = np.frombuffer(data, dtype)
    if kind == "bool" and array.view(np.uint8).max() > 1:
        raise ProtocolError(f"wire: '{name}': want 0 or 1 in every byte of a bool array")
    return array.reshape(shape), budget - size


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > MAX_DIMS + 1 or not all(type(n) is int and 0 < n <= MAX_BYTES for n in shape):
        raise ProtocolError(f"wire: '{name}': want a shape of at most {MAX_DIMS + 1} positive numbers")
    return tuple(shape)


def _pictures(name: str, shape: tuple[int, ...], files: Any) -> np.ndarray:
    if len(shape) != 4 or shape[3] != 3 or not name.startswith("obs/"):  # whose shape was announced
        raise ProtocolError(f"wire: '{name}': want JPEG for observed pictures (n, height, width, 3) only, got shape {shape}")
    if not isinstance(files, list) or len(files) != shape[0] or not all(isinstance(file, memoryview) for file in files):
        raise ProtocolError(f"wire: '{name}': want {shape[0]} JPEG files")
    return np.stack([decode_jpeg(file, shape[1:]) for file in files])


def _fetched(name: str, at: Any, size: int, fetch: Fetch | None) -> bytes:
    if fetch is None or type(at) is not int or at < 0:
        raise ProtocolError(f"wire: '{name}': want an array with its bytes; shared memory was not agreed on")
    return fetch(at, size)
