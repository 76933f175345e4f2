"""Keys from a plain terminal, also over SSH: key presses only (a terminal knows no release), named, without waiting."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from robolearn.errors import HardwareError

ESCAPE_S = 0.05  # how long a lone escape waits for the rest of a sequence
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])")
_PARTIAL = re.compile(rb"\x1b(?:\[[0-9;]*|O)?$")
_NAMES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\x1bOH": "home", b"\x1bOF": "end", b"\x1b[1~": "home", b"\x1b[4~": "end",
    b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown", b"\x1b[2~": "insert", b"\x1b[3~": "delete",
    b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace", b"\t": "tab", b" ": "space",
    b"\x03": "ctrl-c", b"\x04": "ctrl-d", b"\x1b": "esc",
}  # fmt: skip
SESSION_KEYS = {
    "enter": "start", "y": "success", "f": "failure", "r": "redo", "backspace": "delete_last", "u": "undo", "q": "quit",
}  # fmt: skip
"""What a key says of the recording (`core.OPERATOR_EVENTS`); enter starts an episode, and stops the one that runs."""


class Keys:
    """A terminal that gives single keys while the block runs, and is put back as it was whatever ends the block.

    Ctrl-C keeps its meaning (SIGINT). Ctrl-Z puts the terminal back, and `fg` takes it again.
    """

    def __init__(self, fd: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd, self._clock = sys.stdin.fileno() if fd is None else fd, clock
        self._before: list[Any] | None = None
        self._rest, self._rest_s = b"", 0.0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Keys:
        if not os.isatty(self._fd):
            raise HardwareError("keys: standard input is not a terminal; run the command in one, or use another device")
        self._before = termios.tcgetattr(self._fd)
        self._take()
        try:
            self._handlers = {signal.SIGCONT: signal.signal(signal.SIGCONT, self._continued)}
        except ValueError:  # only the main thread has signals
            self._handlers = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._before = None

    def read(self) -> list[str]:
        """Returns the names of the keys pressed since the last call ("a", "up", "enter", ...), without waiting."""
        data = self._rest
        while select.select([self._fd], [], [], 0)[0]:
            try:
                more = os.read(self._fd, 1024)
            except OSError:  # the terminal is gone
                more = b""
            if not more:
                break
            data += more
            self._rest_s = self._clock()
        keys, self._rest = split(data, self._clock() - self._rest_s > ESCAPE_S)
        return keys

    def _take(self) -> None:
        mode = termios.tcgetattr(self._fd)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 0, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def _continued(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._take()


def split(data: bytes, whole: bool) -> tuple[list[str], bytes]:
    """Returns the keys in `data`, and what may be the beginning of a sequence; whole: nothing more comes, it is what it is."""
    keys: list[str] = []
    while data:
        match = _SEQUENCE.match(data)
        if match:
            name = _NAMES.get(match.group())
            data = data[match.end() :]
            if name:  # a sequence nobody knows is no key, and its letters are none either
                keys.append(name)
            continue
        if _PARTIAL.match(data) and not whole:
            return keys, data
        first = data[:1]
        size = 1 if first[0] < 0xC0 else 2 if first[0] < 0xE0 else 3 if first[0] < 0xF0 else 4
        if len(data) < size and not whole:
            return keys, data
        if first in _NAMES:
            keys.append(_NAMES[first])
        else:
            letter = data[:size].decode("utf-8", "ignore")
            if letter.isprintable() and letter:
                keys.append(letter)
        data = data[size:]
    return keys, b""
