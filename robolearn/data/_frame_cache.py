"""The file behind a memory map of images: built aside, extended after an append, dropped when the set has changed.

    <header of .npy> <frames> <stamps of the chunk files> <JSON: metadata, rows, frames a chunk file> <length of the JSON>

Everything after the frames is for the next build: a set that only grew keeps its decoded frames. Its name holds the
fingerprint of the set, so that a file of another state is never taken for this one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.data._memory import as_size

_HEADER = 128  # bytes; as numpy writes it, with room for any shape
_MAX_FILES = 16384  # chunk files whose times are looked at; of more, as many spread evenly
Blocks = Callable[[int], Iterable[tuple[int, np.ndarray]]]  # first row -> (row, frames) from there on


@dataclass(frozen=True)
class State:
    """What the frames of one key depend on: metadata of its array, number of rows, (time, size) of its chunk files.

    per_file: frames a chunk file; whole: `stamps` holds every file, so that a cache of fewer rows can be extended.
    """

    metadata: str
    shape: tuple[int, ...]
    stamps: np.ndarray
    per_file: int
    whole: bool

    @property
    def name(self) -> str:
        """Returns the fingerprint: another recording, another name."""
        said = json.dumps([self.metadata, self.shape, self.per_file]).encode() + self.stamps.tobytes()
        return hashlib.sha256(said).hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """Returns the bytes of the frames."""
        return int(np.prod(self.shape, dtype=np.int64))

    def rows_in_common(self, other: State) -> int:
        """Returns how many leading rows both hold in files that are the same."""
        if not (self.whole and other.whole and self.metadata == other.metadata and self.per_file == other.per_file):
            return 0
        n = min(len(self.stamps), len(other.stamps))
        differ = (self.stamps[:n] != other.stamps[:n]).any(axis=1)
        same = int(np.argmax(differ)) if differ.any() else n
        return min(same * self.per_file, self.shape[0], other.shape[0])


def file_stamps(stamp: Callable[[int], tuple[int, int]], count: int) -> tuple[np.ndarray, bool]:
    """Returns stamp(0) ... stamp(count - 1), (n, 2) int64, and whether that is all of them.

    Of more than 16,384 files as many are looked at, spread evenly, the first and the last one included.
    """
    if count <= _MAX_FILES:
        return np.array([stamp(index) for index in range(count)], np.int64).reshape(-1, 2), True
    chosen = np.linspace(0, count - 1, _MAX_FILES).astype(int).tolist()
    return np.array([stamp(index) for index in chosen], np.int64), False


def local_stamp(path: str) -> tuple[int, int]:
    """Returns (modification time [ns], size) of a file, (0, -1) where it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, -1
    return found.st_mtime_ns, found.st_size


def build(folder: Path, key: str, state: State, blocks: Blocks) -> Path:
    """Returns the cache file of `state`, made from `blocks`; what an older file of the same set holds is not decoded again.

    OSError where there is no room or no right to write. A crash leaves no file, or one that is never taken for a whole one.
    """
    file = folder / f"{key}-{state.name}.npy"
    for left in folder.glob(".*.partial"):  # of a build that was killed: the lock is ours, so nobody writes there
        left.unlink(missing_ok=True)
    old, keep, grows = _best_old(folder, key, state)
    room = shutil.disk_usage(folder).free
    need = state.nbytes - (keep * _frame_bytes(state) if grows else 0)
    if need > room:
        raise OSError(errno.ENOSPC, f"no room: needs {as_size(need)}, free {as_size(room)}")
    part = folder / f".{file.name}.{uuid.uuid4().hex}.partial"
    try:
        if old is not None and grows:
            old.replace(part)
        with part.open("r+b" if grows else "w+b") as target:
            _fill(target.fileno(), state, 0 if grows else keep, old, lambda: blocks(keep))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    for other in _files(folder, key):
        if other != file:
            other.unlink(missing_ok=True)
    return file


def _fill(
    target: int, state: State, copied: int, old: Path | None, blocks: Callable[[], Iterable[tuple[int, np.ndarray]]]
) -> None:
    """Writes `copied` rows of the file `old`, then the blocks, what they were made of, and last the header that shows them."""
    frame, end = _frame_bytes(state), _HEADER + state.nbytes
    if hasattr(os, "posix_fallocate"):  # a full disk is an error here; later, inside a memory map, it would be a crash
        os.posix_fallocate(target, 0, end)
    if copied and old is not None:
        kept = np.memmap(old, np.uint8, "r", offset=_HEADER, shape=(copied * frame,))
        _write(target, kept, _HEADER)
    for start, block in blocks():
        _write(target, np.ascontiguousarray(block), _HEADER + start * frame)
    told = json.dumps([state.metadata, state.shape, state.per_file, state.whole]).encode()
    footer = state.stamps.tobytes() + told + len(told).to_bytes(8, "little")
    _write(target, np.frombuffer(footer, np.uint8), end)
    os.ftruncate(target, end + len(footer))
    os.fsync(target)
    _write(target, np.frombuffer(_header(state.shape), np.uint8), 0)
    os.fsync(target)


def _write(target: int, values: np.ndarray, place: int) -> None:
    left = values.reshape(-1).view(np.uint8).data
    while left:
        done = os.pwrite(target, left[: 2**30], place)
        left, place = left[done:], place + done


def _header(shape: tuple[int, ...]) -> bytes:
    said = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + said.ljust(_HEADER - 11).encode() + b"\n"


def _frame_bytes(state: State) -> int:
    return int(np.prod(state.shape[1:], dtype=np.int64))


def _best_old(folder: Path, key: str, state: State) -> tuple[Path | None, int, bool]:
    """Returns the cache file that shares the most leading rows with `state`, how many, and whether it may be written on.

    It may where only an append lies between: then nothing changes of what somebody who has it open sees. A file that is
    mapped somewhere must never become shorter: reading there would kill the reader.
    """
    best: tuple[Path | None, int, bool] = (None, 0, False)
    for path in _files(folder, key):
        with contextlib.suppress(OSError, ValueError, TypeError):
            told = _told(path)
            rows = state.rows_in_common(told)
            if rows > best[1]:
                had = told.shape[0]
                best = path, rows, had < state.shape[0] and had - rows < state.per_file
    return best


def _told(path: Path) -> State:
    """Returns the state a cache file was made of; ValueError where it does not say."""
    with path.open("rb") as file:
        size = file.seek(-8, os.SEEK_END) + 8
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < size:
            raise ValueError(f"{path}: not a frame cache")
        file.seek(-8 - length, os.SEEK_END)
        metadata, shape, per_file, whole = json.loads(file.read(length))
        begin = _HEADER + int(np.prod(shape, dtype=np.int64))
        file.seek(begin)
        stamps = np.frombuffer(file.read(size - 8 - length - begin), np.int64).reshape(-1, 2)
    return State(metadata, tuple(shape), stamps, per_file, whole)


def lock_place(folder: Path) -> Path:
    """Returns the path whose lock guards the building in `folder`, which is made; OSError where that is impossible."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder if os.access(folder.parent, os.W_OK) else folder / "frames"


def _files(folder: Path, key: str) -> list[Path]:
    """Returns the cache files of one key (not those of a key whose name begins with it)."""
    return [path for path in folder.glob("*.npy") if re.fullmatch(re.escape(key) + "-[0-9a-f]{16}", path.stem)]
