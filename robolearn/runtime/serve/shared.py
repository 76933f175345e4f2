"""Arrays beside the socket, for two processes of one computer: a file in memory (/dev/shm) that is written and read, not mapped.

The sender owns the file and puts the arrays of one request into one slot of it; the slot is free again when the reply is there.
The receiver copies with pread before it looks, so that a sender who changes or shortens the file meanwhile can neither change
what was checked nor crash the receiver, which both are possible where a file is mapped.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import threading
from pathlib import Path

from robolearn.runtime.serve.reader import MAX_BYTES, ProtocolError

FOLDER = Path("/dev/shm")
SLOTS = 4
SMALL = 4096  # bytes; less is quicker inside the message
_NAME = re.compile(r"robolearn-[0-9a-f]{32}")


class Slots:
    """The sender's side: `place` an array of the request that `begin` began, `free` its slot with its reply."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """OSError where there is no room, or no such folder."""
        self.name = f"robolearn-{secrets.token_hex(16)}"
        self._path = folder / self.name
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(self._file, SLOTS * MAX_BYTES)  # takes no memory before it is written
        except OSError:
            self.close()
            raise
        self._lock = threading.Lock()  # requests and replies have threads of their own
        self._used: dict[int, int] = {}  # slot: seq
        self._at: int | None = None
        self._end = 0

    def begin(self, seq: int) -> None:
        """Takes a free slot for the arrays of request `seq`; where none is free they travel inside the message."""
        with self._lock:
            slot = next((i for i in range(SLOTS) if i not in self._used), None)
            if slot is not None:
                self._used[slot] = seq
        self._at = None if slot is None else slot * MAX_BYTES
        self._end = 0 if self._at is None else self._at + MAX_BYTES

    def place(self, data: memoryview) -> int | None:
        """Returns the offset at which `data` was written; None where it belongs into the message."""
        if self._at is None or len(data) < SMALL or len(data) > self._end - self._at:
            return None
        at, self._at = self._at, self._at + len(data)
        try:
            return at if os.pwrite(self._file, data, at) == len(data) else None
        except OSError:  # full, or closed by another thread
            return None

    def free(self, seq: int) -> None:
        """Gives the slot of request `seq` back."""
        with self._lock:
            self._used = {slot: user for slot, user in self._used.items() if user != seq}

    def unlink(self) -> None:
        """Removes the name, once the receiver has opened the file: nothing is left behind, however this process ends."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Gives the memory back; safe to call twice."""
        self.unlink()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Window:
    """The receiver's side: reads what lies in a sender's file."""

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        """ProtocolError where `name` is no file of ours: a regular one of this user, nobody else's to write."""
        self._file = -1
        if not _NAME.fullmatch(name):
            raise ProtocolError("shared memory: want a name such as 'robolearn-' and 32 digits")
        try:
            self._file = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ProtocolError(f"shared memory: cannot be opened: {error.strerror}") from None
        facts = os.fstat(self._file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            self.close()
            raise ProtocolError("shared memory: want a regular file of this user with mode 0600")

    def fetch(self, at: int, size: int) -> bytes:
        """Returns a copy of `size` bytes at offset `at`; ProtocolError where the file ends before."""
        if at + size > SLOTS * MAX_BYTES or self._file < 0:
            raise ProtocolError(f"shared memory: want at most {SLOTS * MAX_BYTES} bytes, got an array that ends at {at + size}")
        data = os.pread(self._file, size, at)
        if len(data) != size:
            raise ProtocolError(f"shared memory: want {size} bytes at {at}, got {len(data)}")
        return data

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
