"""The other process's side of `remote.InProcess`, and the messages between the two.

A message is the length of its header (4 bytes, little endian), the header as JSON (kind, plain values, and of each array name,
dtype and shape), and the arrays' bytes one after another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

from robolearn.core import Ask, Policy
from robolearn.errors import BadInput

T = TypeVar("T")
_NOTHING: Mapping[str, np.ndarray] = {}
_NUMBERS = "biuf"  # kinds of dtype that are plain bytes


def packed(kind: str, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray] = _NOTHING) -> bytes:
    """Returns a message as bytes; BadInput where an array holds no plain numbers."""
    parts = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in parts.items():
        if array.dtype.kind not in _NUMBERS:
            raise BadInput(f"{name}: want numbers, got {array.dtype}")
    layout = [[name, array.dtype.str, list(np.shape(arrays[name]))] for name, array in parts.items()]
    header = json.dumps({"kind": kind, "plain": dict(plain), "arrays": layout}, default=np.generic.item).encode()
    return b"".join([len(header).to_bytes(4, "little"), header, *(array.tobytes() for array in parts.values())])


def unpacked(message: bytes) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Returns kind, plain values and arrays of a message; the arrays may be written to."""
    begin = 4 + int.from_bytes(message[:4], "little")
    header, arrays = json.loads(message[4:begin]), {}
    for name, dtype, shape in header["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(message, np.dtype(dtype), count, begin).reshape(shape).copy()
        arrays[name], begin = array, begin + array.nbytes
    return header["kind"], header["plain"], arrays


def packed_fields(value: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the fields of a dataclass: plain values, and arrays, those of a mapping as FIELD/KEY."""
    plain: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        if isinstance(found, np.ndarray):
            arrays[field.name] = found
        elif isinstance(found, Mapping):
            arrays |= {f"{field.name}/{key}": np.asarray(array) for key, array in found.items()}
        elif found is not None:
            plain[field.name] = found
    return plain, arrays


def unpacked_fields(cls: type[T], plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> T:
    """Returns the dataclass whose fields `packed_fields` gave; fields that were None or empty have their defaults."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if key:
            values.setdefault(field, {})[key] = array
        else:
            values[field] = array
    return cls(**values)


def serve(link: Connection, make_policy: Callable[[], Policy]) -> None:
    """Makes the policy and serves it until it is told to close or the other end is gone; an error of the policy is sent back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes this
    try:
        policy = make_policy()
        link.send_bytes(packed("ready", {"spec": policy.spec.to_json()}))
        while _served(link, policy, _read(link)):
            pass
    except Exception as error:
        with contextlib.suppress(OSError):  # when the other end is gone, nobody is to be told
            link.send_bytes(packed("failed", {"error": f"{type(error).__name__}: {error}"}))


def _read(link: Connection) -> list[bytes]:
    """Returns the messages that have come, at least one."""
    messages = [link.recv_bytes()]
    while link.poll(0):
        messages.append(link.recv_bytes())
    return messages


def _served(link: Connection, policy: Policy, messages: list[bytes]) -> bool:
    """Does what the messages say, in their order, of several plans only the newest; returns false when told to close."""
    read = [unpacked(message) for message in messages]
    newest = max((i for i, (kind, _, _) in enumerate(read) if kind == "plan"), default=-1)
    for i, (kind, plain, arrays) in enumerate(read):
        if kind == "close":
            return False
        if kind == "reset":
            policy.reset(plain["seed"])
        elif kind == "observe":
            obs = {name.removeprefix("obs/"): array for name, array in arrays.items() if name != "applied"}
            policy.observe(obs, arrays.get("applied"))
        elif i == newest:
            values, chunk_arrays = packed_fields(policy.plan(unpacked_fields(Ask, plain["ask"], arrays)))
            about = {"request": plain["request"], "epoch": plain["epoch"], "chunk": values}
            link.send_bytes(packed("planned", about, chunk_arrays))
    return True
