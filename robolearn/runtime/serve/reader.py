"""Reads msgpack from a stranger in one pass: every length is checked before anything of that length is made.

The msgpack library can cap each single length, but not the depth or the number of values: 8 MiB of one-byte empty lists would
become half a gigabyte of objects. This reader takes the part of msgpack that the wire uses (maps with text keys, lists, text,
bytes, integers, floats, booleans, nil) and refuses the rest, extension types among it. Format: the msgpack specification.
"""

from __future__ import annotations

import struct
from typing import Any

from robolearn.errors import HardwareError

MAX_BYTES = 8 * 2**20  # of one message
MAX_KEYS = 64  # of one map
MAX_DEPTH = 4  # of maps and lists inside each other
MAX_ITEMS = 1024  # of one list, and of all values of a message
MAX_TEXT = 64 * 2**10  # bytes of one text
MAX_KEY = 128  # bytes of one key

_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"), 0xD9: ("text", ">B"), 0xDA: ("text", ">H"),
    0xDB: ("text", ">I"), 0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class ProtocolError(HardwareError):
    """What came over the wire is no message of ours, or what should go over it does not fit."""


def read(data: bytes | memoryview) -> dict[str, Any]:
    """Returns the map that `data` holds; bytes inside it are views of `data`. ProtocolError where it is anything else."""
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"wire: want at most {MAX_BYTES} bytes in a message, got {len(data)}")
    reader = _Reader(memoryview(data))
    value = reader.value(0)
    if not isinstance(value, dict):
        raise ProtocolError(f"wire: want a map as message, got {type(value).__name__}")
    if reader.at != len(data):
        raise ProtocolError(f"wire: want the message to end at byte {reader.at}, got {len(data)} bytes")
    return value


class _Reader:
    """Where we are in a message, and how many values it held so far."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.count = data, 0, 0

    def value(self, depth: int) -> Any:
        """Returns the value that begins here; `depth` maps and lists are around it."""
        self.count += 1
        if self.count > MAX_ITEMS:
            raise ProtocolError(f"wire: want at most {MAX_ITEMS} values in a message")
        code = self._take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code < 0xC0:
            kind, size = ("map", code & 0x0F) if code < 0x90 else ("list", code & 0x0F) if code < 0xA0 else ("text", code & 0x1F)
        elif code in _SIZED:
            kind, form = _SIZED[code]
            size = self._number(form)
        else:
            raise ProtocolError(f"wire: byte {self.at - 1}: type 0x{code:02x} is not used here")
        if kind == "bytes":
            return self._take(size)
        if kind == "text":
            return self._text(size)
        if depth >= MAX_DEPTH:
            raise ProtocolError(f"wire: byte {self.at - 1}: want at most {MAX_DEPTH} maps and lists inside each other")
        return self._map(size, depth + 1) if kind == "map" else self._list(size, depth + 1)

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        if size > MAX_KEYS:
            raise ProtocolError(f"wire: want at most {MAX_KEYS} keys in a map, got {size}")
        found: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(MAX_DEPTH)  # a key is neither map nor list
            if not isinstance(key, str) or len(key) > MAX_KEY:
                raise ProtocolError(f"wire: byte {self.at}: want a text of at most {MAX_KEY} characters as key")
            if key in found:
                raise ProtocolError(f"wire: key '{key}' is there twice")
            found[key] = self.value(depth)
        return found

    def _list(self, size: int, depth: int) -> list[Any]:
        if size > MAX_ITEMS:
            raise ProtocolError(f"wire: want at most {MAX_ITEMS} items in a list, got {size}")
        return [self.value(depth) for _ in range(size)]

    def _text(self, size: int) -> str:
        if size > MAX_TEXT:
            raise ProtocolError(f"wire: want a text of at most {MAX_TEXT} bytes, got {size}")
        try:
            text = str(self._take(size), "utf-8")
        except UnicodeDecodeError:
            raise ProtocolError(f"wire: byte {self.at}: the text is not UTF-8") from None
        if not text.isprintable():  # it may be shown on a terminal or written to a log
            raise ProtocolError(f"wire: byte {self.at}: the text holds characters that cannot be printed")
        return text

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise ProtocolError(f"wire: byte {self.at}: want {size} more bytes, got {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]
