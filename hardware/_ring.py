"""Shared memory between processes without locks: rings of records, mailboxes of one setpoint, heartbeats.

A slot is a sequence number, a time and a record. The writer makes the number odd, writes, and makes it even; a reader takes the
number before and after its copy and starts again where they differ or are odd (a sequence lock). The writer never waits. Stores
become visible in program order on x86-64; other machines need barriers that Python has not, so there each record has a checksum.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import time
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import BadInput

PREFIX = "robolearn"
_HEAD = np.dtype([("count", "<u8")])
_SLOT = np.dtype([("lock", "<u8"), ("t_ns", "<i8"), ("crc", "<u4"), ("pad", "<u4")])
_ORDERED = platform.machine() in ("x86_64", "AMD64")
_TRIES = 100  # a reader that was overtaken so often gives up; the ring is too short for its writer


@dataclass(frozen=True)
class Layout:
    """What a ring holds, which both ends must know. name: of the segment; dtype, shape: of a record; depth: slots, at least 2."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    depth: int = 8

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise BadInput(f"ring {self.name}: want a depth of at least 2, got {self.depth}")

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Record:
    """What a reader got. count: 1, 2, ... since the ring began; t_ns: as written [monotonic]; array: a copy."""

    count: int
    t_ns: int
    array: np.ndarray


class Ring:
    """One writer, any number of readers. `write` never waits; `last` returns whole records, newest last."""

    def __init__(self, layout: Layout, *, create: bool = False) -> None:
        """create: makes the segment (the supervisor does), and `unlink` belongs to who made it. BadInput where there is none."""
        self.layout, self.overtaken = layout, 0
        stride = _SLOT.itemsize + -(-layout.record_bytes // 8) * 8
        size = _HEAD.itemsize + layout.depth * stride
        try:
            self._memory = shared_memory.SharedMemory(layout.name, create=create, size=size if create else 0)
        except FileNotFoundError:
            raise BadInput(f"ring {layout.name}: there is no such segment; its owner has ended") from None
        if self._memory.size < size:
            raise BadInput(f"ring {layout.name}: want {size} bytes, the segment has {self._memory.size}; layouts differ")
        buffer: Any = self._memory.buf
        self._views: list[np.ndarray] = [np.frombuffer(buffer, _HEAD, 1)]  # then a slot and its record, in turn
        items = layout.record_bytes // np.dtype(layout.dtype).itemsize
        for at in range(_HEAD.itemsize, size, stride):
            record = np.frombuffer(buffer, layout.dtype, items, at + _SLOT.itemsize).reshape(layout.shape)
            self._views += [np.frombuffer(buffer, _SLOT, 1, at), record]
        self._let_go = weakref.finalize(self, _let_go, self._views, self._memory)

    @property
    def count(self) -> int:
        """Records written so far."""
        return int(self._views[0]["count"][0])

    def write(self, array: np.ndarray, t_ns: int) -> int:
        """Writes one record and returns its count."""
        count = self.count + 1
        at = (count - 1) % self.layout.depth
        slot, record = self._views[1 + 2 * at : 3 + 2 * at]
        slot["lock"][0] = 2 * count - 1
        record[...] = array
        slot["t_ns"][0] = t_ns
        if not _ORDERED:
            slot["crc"][0] = zlib.crc32(record.tobytes())
        slot["lock"][0] = 2 * count
        self._views[0]["count"][0] = count
        return count

    def newest(self) -> Record | None:
        """Returns the newest record; None where nothing was written yet."""
        for _ in range(_TRIES):
            count = self.count
            if count == 0:
                return None
            record = self._copy(count)
            if record is not None:
                return record
        raise BadInput(f"ring {self.layout.name}: overtaken {_TRIES} times in a row; the ring is too short for its writer")

    def last(self, k: int) -> list[Record]:
        """Returns up to k records, oldest first; what the writer overtook meanwhile is left out."""
        count = self.count
        oldest = max(1, count - min(k, self.layout.depth - 1) + 1)
        copies = [self._copy(n) for n in range(oldest, count + 1)]
        return [record for record in copies if record is not None]

    def _copy(self, count: int) -> Record | None:
        """Returns record `count`, None where it was overtaken while it was copied."""
        at = (count - 1) % self.layout.depth
        slot, record = self._views[1 + 2 * at : 3 + 2 * at]
        if int(slot["lock"][0]) != 2 * count:
            return None
        array, t_ns = record.copy(), int(slot["t_ns"][0])
        whole = _ORDERED or int(slot["crc"][0]) == zlib.crc32(array.tobytes())
        if int(slot["lock"][0]) != 2 * count or not whole:
            self.overtaken += 1
            return None
        return Record(count, t_ns, array)

    def close(self) -> None:
        """Lets go of the segment; may be called twice."""
        self._let_go()

    def unlink(self) -> None:
        """Removes the segment from the machine, whoever still reads it; no error where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()


def _let_go(views: list[np.ndarray], memory: shared_memory.SharedMemory) -> None:
    """Closes a segment after the arrays that look at it; also as the process ends."""
    views.clear()
    memory.close()


class Beat:
    """A word that one process moves and others watch: `age_s` says for how long it has stood still."""

    def __init__(self, name: str, *, create: bool = False, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._ring, self._clock_ns = Ring(Layout(name, "<u8", (1,), 2), create=create), clock_ns

    def beat(self) -> None:
        """Moves the word to now."""
        now = self._clock_ns()
        self._ring.write(np.array([now], np.uint64), now)

    def age_s(self) -> float:
        """Returns the seconds since the last beat, infinity before the first."""
        record = self._ring.newest()
        return float("inf") if record is None else (self._clock_ns() - record.t_ns) / 1e9

    def close(self) -> None:
        """Lets go of the word."""
        self._ring.close()

    def unlink(self) -> None:
        """Removes the word from the machine."""
        self._ring.unlink()


def new_run() -> str:
    """Returns a name for the segments of one run; it is random, and begins with what `sweep` looks for."""
    return f"{PREFIX}-{secrets.token_hex(4)}"


def sweep(run: str) -> list[str]:
    """Removes every segment of a run that nobody owns any more (its supervisor was killed) and returns their names."""
    if not run.startswith(f"{PREFIX}-"):
        raise BadInput(f"sweep: want the name of a run, {PREFIX}-..., got '{run}'")
    gone = []
    for path in Path("/dev/shm").glob(f"{run}*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            gone.append(path.name)
    return sorted(gone)
