"""Files that survive a crash: durable writes, whole folders renamed into place, one writer at a time."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robolearn.errors import AlreadyExists, DatasetError

if sys.platform == "win32":
    raise ImportError("robolearn.data needs POSIX file locks; on Windows use WSL")
import fcntl

_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_AT_FDCWD = -100


def write_durably(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` such that a crash at any instant leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_durably(path: Path, line: str) -> None:
    """Adds one line to a text file and flushes it to the disk; a line cut off by a crash before is closed first."""
    new = not path.exists()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk: after it, renames and new files in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flushes every file and folder below `folder`, and itself, to the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(root))


@contextlib.contextmanager
def built_aside(out: Path, overwrite: bool = False, what: str = "dataset") -> Iterator[Path]:
    """Gives a path beside `out` to build at; when the block ends without an error it is flushed and renamed to `out`.

    A crash at any instant leaves `out` as it was or complete. AlreadyExists where it exists and `overwrite` is False.
    """
    if out.exists() and not overwrite:
        raise AlreadyExists(out, what)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as folder:
        part = Path(folder) / out.name
        yield part
        if part.is_dir():
            sync_tree(part)
        put_in_place(part, out)


def put_in_place(new: Path, out: Path) -> None:
    """Renames `new` to `out` and removes what stood there; both must lie on one file system.

    Where the system can exchange two names at once there is no instant without a whole `out`; elsewhere there is one
    between two renames, and the old one is then found as `.NAME.old` beside it.
    """
    if out.exists() and not _exchange(new, out):
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
        new.replace(out)
        new = old
    elif not out.exists():
        new.replace(out)
    sync_folder(out.parent)
    if new.is_dir() and not new.is_symlink():
        shutil.rmtree(new)
    else:
        new.unlink(missing_ok=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps two names in one instant; False where the system cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE) == 0


@contextlib.contextmanager
def locked(path: Path, what: str, wait_s: float = 10.0) -> Iterator[int]:
    """Holds the lock file of `path` (`.NAME.lock` beside it); DatasetError names its holder where that does not let go.

    Gives the descriptor of the lock: the system lets go of it when every process that has it is gone, however they went.
    """
    file = path.parent / f".{path.name}.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written to ({error.strerror})") from error
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "another process"
                    raise DatasetError(f"{path}: {holder} is writing to this {what}; wait until it has ended") from None
                time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a .jsonl file; lines that are none (cut off by a crash) are left out."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
