"""Throws broken messages at the wire: whatever comes, it must refuse with ProtocolError or understand, and keep no memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.errors import MissingDependency
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.wire import Message, decode, encode

SPEC = Spec({"image": ArraySpec((8, 8, 3), "uint8"), "state": ArraySpec((3,))}, ArraySpec((2,), names=("x", "y")), 10.0)
_HUGE = tuple(
    bytes([code, 0xFF, 0xFF, 0xFF, 0xFF]) for code in (0xDF, 0xDD, 0xDB, 0xC6, 0xC9)
)  # map, list, text, bytes, extension
_PICKLE = b"\x80\x04N."  # of None
_DEEP = {"a": {"b": {"c": {"d": 0}}}}
_ODD: tuple[Any, ...] = (None, True, -1, 2**63, 1.5, float("nan"), "", "\x1b[2J", "x" * 200, _PICKLE, [], {}, [[[[[0]]]]], _DEEP)


@dataclass(frozen=True)
class Fuzzed:
    """What came of it: how many were tried, refused with ProtocolError, understood; other exceptions; growth of memory."""

    tried: int
    refused: int
    understood: int
    escaped: tuple[str, ...]
    rss_growth_mib: float


def fuzz(n: int, seed: int, read: Callable[[bytes], object] | None = None) -> Fuzzed:
    """Returns what `read` (here: the wire's own `decode`, with announced pictures) makes of `n` mutated messages.

    Growth of resident memory is measured from the first tenth on, when every path was taken, and is 0 where there is no /proc.
    """
    rng = random.Random(seed)
    read = read or (lambda data: decode(data, SPEC.obs))
    originals, refused, understood, escaped, began = messages(), 0, 0, [], 0.0
    for i in range(n):
        if i == n // 10:
            began = _rss_mib()
        data = mutated(rng, originals)
        try:
            read(data)
            understood += 1
        except ProtocolError:
            refused += 1
        except Exception as error:  # the finding: any other exception at all
            escaped.append(f"{type(error).__name__}: {error} from {data[:64].hex()}")
    return Fuzzed(n, refused, understood, tuple(escaped), _rss_mib() - began)


def messages() -> list[bytes]:
    """Returns a valid message of every kind that carries something, pictures as JPEG among them."""
    rows: dict[str, np.ndarray] = {
        "obs/image": np.full((2, 8, 8, 3), 128, np.uint8),
        "obs/state": np.ones((2, 3), np.float32),
        "applied": np.zeros((2, 2), np.float32),
        "applied_mask": np.array([False, True]),
    }
    ask: dict[str, Any] = {"draws": 4, "guidance": 1.0, "prefix_beta": 5.0, "prefix_jacobian": "full", "prefix_fixed": 0}
    text = spec_text(SPEC)
    chunk: dict[str, np.ndarray] = {"actions": np.zeros((16, 2), np.float32), "features": np.zeros(64, np.float32)}
    made = [
        Message("hello", values={"policy": "flow", "robot": "left", "role": "control", "spec": text, "shared": ""}),
        Message("welcome", "5e55", 1, 1, 9, {"policy": "flow", "spec": text, "shared": False}),
        Message("reset", "5e55", 1, 2, 9, {"seed": 7}),
        Message("observe", "5e55", 1, 3, 9, {"count": 2}, rows),
        Message("plan", "5e55", 1, 4, 9, {"count": 2, **ask}, rows | {"prefix": np.zeros((16, 2), np.float32)}),
        Message("chunk", "5e55", 1, 4, 9, {"tick": 3, "past_stride": 1}, chunk),
        Message("pong", "5e55", 1, 5, 9, {"t_ns": 10}),
        Message("error", "5e55", 1, 6, 9, {"code": "busy", "text": "no", "id": ""}),
    ]
    pictures = made[3]
    return [encode(message) for message in made] + [encode(pictures, {"obs/image": 90})]


def mutated(rng: random.Random, originals: list[bytes]) -> bytes:
    """Returns one of the messages after one to three changes of eight kinds."""
    data = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, 3)):
        kind, at = rng.randrange(8), rng.randrange(len(data) + 1)
        if kind == 0:
            for _ in range(rng.randint(1, 16)):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 64))
        elif kind == 3:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 4:
            data[at : at + 5] = rng.choice(_HUGE)
        elif kind == 5:
            other = rng.choice(originals)
            data[at:] = other[rng.randrange(len(other)) :]
        elif kind == 6:
            data = bytearray(_retyped(rng, rng.choice(originals)))
        else:
            data[at:at] = bytes([rng.choice((0x81, 0x91, 0xDE, 0xDC))]) * rng.randint(1, 2000)  # nested ever deeper
    return bytes(data)


def _retyped(rng: random.Random, data: bytes) -> bytes:
    """Returns the message with one value replaced by one of another type, or one key by another."""
    try:
        import msgpack
    except ImportError:
        raise MissingDependency("msgpack", "fuzzing the wire", "pip install 'robolearn[serve]'") from None
    message = msgpack.unpackb(data)
    inner = message
    while rng.random() < 0.7:
        below = [value for value in inner.values() if isinstance(value, dict) and value]
        if not below:
            break
        inner = rng.choice(below)
    key = rng.choice(list(inner))
    if rng.random() < 0.3:
        inner[rng.choice(("x", "b", "at", "__class__"))] = inner.pop(key)
    else:
        inner[key] = rng.choice(_ODD)
    packed: bytes = msgpack.packb(message)
    return packed


def _rss_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
