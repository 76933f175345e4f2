"""A bounded queue of messages between two processes: the sender never waits, the receiver never sees half a message.

The bytes lie in a ring of shared memory; a pipe carries how far the sender has come. A message that does not fit is refused
at once, so that a control loop is never held up and memory never grows.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import struct
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

_HEAD = 64  # bytes before the ring: how far the receiver has come (u64), how far the sender has (u64)
_PREFIX = struct.Struct("<II")  # length of the header, of everything
_MARK = struct.Struct("<Q")

Message = tuple[dict[str, Any], list[np.ndarray]]


def new_memory(size: int) -> int:
    """Returns the descriptor of `size` bytes of anonymous shared memory (plus the ring's own head)."""
    # /dev/shm is 64 MB in a container, and writing beyond its end kills the process; an anonymous file has no such end.
    if sys.platform == "linux":
        descriptor = os.memfd_create("robolearn-recorder")
    else:
        file, name = tempfile.mkstemp()
        os.unlink(name)
        descriptor = file
    os.ftruncate(descriptor, _HEAD + size)
    return descriptor


class Sender:
    """The writing end. memory: from `new_memory`; pipe: a descriptor to write to, made non-blocking."""

    def __init__(self, memory: int, pipe: int) -> None:
        self._map = mmap.mmap(memory, 0)
        self._marks = _shared_marks(self._map)
        self._size = len(self._map) - _HEAD
        self._pipe, self._at = pipe, 0
        os.set_blocking(pipe, False)

    @property
    def free(self) -> int:
        """Bytes that can be sent now."""
        return self._size - (self._at - int(self._marks[0]))

    @property
    def used(self) -> int:
        """Bytes that the receiver has not taken yet."""
        return self._size - self.free

    def send(self, header: bytes, arrays: Sequence[np.ndarray] = ()) -> bool:
        """Sends a header (JSON, with "arrays": [[dtype, shape], ...]) and its arrays; False where there is no room for them."""
        parts: list[Any] = [header, *(np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays if a.size)]
        total = _PREFIX.size + sum(len(part) for part in parts)
        if total > self.free:
            return False
        self._put(_PREFIX.pack(len(header), total))
        for part in parts:
            self._put(part)
        self._marks[1] = self._at
        with contextlib.suppress(BlockingIOError):  # thousands of marks wait there already; the shared one says it too
            os.write(self._pipe, _MARK.pack(self._at))
        return True

    def _put(self, part: Any) -> None:
        start = self._at % self._size
        first = min(len(part), self._size - start)
        view = memoryview(part)
        self._map[_HEAD + start : _HEAD + start + first] = view[:first]
        if first < len(part):
            self._map[_HEAD : _HEAD + len(part) - first] = view[first:]
        self._at += len(part)


class Receiver:
    """The reading end; `receive` gives messages one by one and frees the place of each when the next is asked for."""

    def __init__(self, memory: int, pipe: int) -> None:
        self._map = mmap.mmap(memory, 0)
        self._marks = _shared_marks(self._map)
        self._size = len(self._map) - _HEAD
        self._pipe, self._at, self._known, self._rest = pipe, 0, 0, b""
        self.closed = False

    def receive(self, timeout_s: float) -> Message | None:
        """Returns the next message, None where none came in time; `closed` is True once the sender is gone and all was read."""
        self._marks[0] = self._at
        if self._known == self._at and not self._wait(timeout_s):
            return None
        header_size, total = _PREFIX.unpack(self._take(self._at, _PREFIX.size))
        whole = memoryview(self._take(self._at, total))
        self._at += total
        header = _parsed(bytes(whole[_PREFIX.size : _PREFIX.size + header_size]))
        arrays, place = [], _PREFIX.size + header_size
        for dtype, shape in header.get("arrays", ()):
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(whole, dtype, count, place).reshape(shape))
            place += count * np.dtype(dtype).itemsize
        return header, arrays

    def _wait(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._pipe], [], [], timeout_s)
        if not ready:  # the pipe was full, then read empty: what was sent last stands in the shared mark, long since settled
            self._known = max(self._known, int(self._marks[1]))
            return self._known > self._at
        news = os.read(self._pipe, 1 << 16)
        if not news:
            self.closed = True
            return False
        self._rest += news
        whole = len(self._rest) // _MARK.size * _MARK.size
        if whole:
            self._known = _MARK.unpack_from(self._rest, whole - _MARK.size)[0]
            self._rest = self._rest[whole:]
        return self._known > self._at

    def _take(self, at: int, count: int) -> bytes:
        start = at % self._size
        first = min(count, self._size - start)
        found = self._map[_HEAD + start : _HEAD + start + first]
        return found if first == count else found + self._map[_HEAD : _HEAD + count - first]


def _shared_marks(memory: mmap.mmap) -> np.ndarray:
    """Returns the two marks (2,) uint64: numpy moves each as one word, struct byte by byte, and half a mark is a lie."""
    return np.frombuffer(memory, np.uint64, 2)


@lru_cache(maxsize=256)
def _parsed(header: bytes) -> dict[str, Any]:
    """Returns a header's values; headers repeat from row to row. Nobody changes what is returned."""
    values: dict[str, Any] = json.loads(header)
    return values
