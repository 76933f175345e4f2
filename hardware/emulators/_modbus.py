"""Modbus from the answering side: RTU frames on a serial line, and conversations over TCP."""

from __future__ import annotations

import struct
from collections.abc import Callable


def crc16(data: bytes) -> bytes:
    """Returns Modbus's check sum as it is sent, low byte first; polynomial 0xA001 (reflected), all ones at the start."""
    acc = 0xFFFF
    for byte in data:
        acc ^= byte
        for _ in range(8):
            acc = acc >> 1 ^ 0xA001 if acc & 1 else acc >> 1
    return acc.to_bytes(2, "little")


def take(buffer: bytearray) -> tuple[int, bytes] | None:
    """Cuts a request out of what came in and returns (unit, function and data); None where it is not whole, or damaged."""
    if len(buffer) < 4:
        return None
    function = buffer[1]
    counted = {16: 6, 23: 10}.get(function)  # where a request says how many bytes follow
    if counted is not None and len(buffer) <= counted:
        return None
    fixed = {3: 8, 4: 8, 6: 8, 43: 7}.get(function, len(buffer))
    length = fixed if counted is None else counted + 3 + buffer[counted]
    if len(buffer) < length:
        return None
    frame = bytes(buffer[:length])
    if crc16(frame[:-2]) != frame[-2:]:
        buffer.clear()  # nothing in a frame says where the next begins
        return None
    del buffer[:length]
    return frame[0], frame[1:-2]


class Conversation:
    """One TCP client: transaction, protocol 0 and length before every unit and request; a `Talk` of `_tcp`."""

    def __init__(self, unit: int, answer: Callable[[bytes], bytes], spoil: Callable[[bytes], bytes]) -> None:
        """answer: to function and data, for one unit; spoil: what becomes of a frame on its way."""
        self._unit, self._answer, self._spoil, self._buffer = unit, answer, spoil, bytearray()

    def greet(self) -> bytes:
        """Returns nothing: the client speaks first."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Returns the answers; exception 11 for a unit that is not there, as from a gateway."""
        self._buffer += data
        said = b""
        while len(self._buffer) >= 8:
            transaction, _, length = struct.unpack(">HHH", self._buffer[:6])
            if len(self._buffer) < 6 + length:
                break
            unit, pdu = self._buffer[6], bytes(self._buffer[7 : 6 + length])
            del self._buffer[: 6 + length]
            answer = self._answer(pdu) if unit == self._unit else bytes([pdu[0] | 0x80, 11])
            said += self._spoil(struct.pack(">HHHB", transaction, 0, 1 + len(answer), unit) + answer)
        return said

    def end(self) -> None:
        """The client is gone."""
