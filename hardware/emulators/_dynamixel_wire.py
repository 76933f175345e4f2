"""Packets of Dynamixel protocol 2.0, both ways: checksum, stuffing, and finding them in a stream of bytes.

    FF FF FD 00 | id | length, 2 bytes | instruction | parameters | CRC-16, 2 bytes

The length counts from the instruction on; in instruction and parameters FF FF FD is followed by another FD (ROBOTIS e-Manual).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEADER = b"\xff\xff\xfd\x00"
STATUS = 0x55
BROADCAST = 0xFE
_LONGEST = 1024  # bytes of a packet; a length beyond is noise


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        rest = byte << 8
        for _ in range(8):
            rest = (rest << 1) ^ 0x8005 if rest & 0x8000 else rest << 1
        entries.append(rest & 0xFFFF)
    return tuple(entries)


_CRC = _table()


def crc16(data: bytes, start: int = 0) -> int:
    """Returns the CRC-16 with polynomial 0x8005, nothing reflected, going on from `start`."""
    crc = start
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC[(crc >> 8) ^ byte]
    return crc


def stuff(data: bytes) -> bytes:
    """Returns instruction and parameters so that no header is in them."""
    return data.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def unstuff(data: bytes) -> bytes:
    """Undoes `stuff`."""
    return data.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def packet(servo: int, instruction: int, parameters: bytes = b"", stuffed: bool = True) -> bytes:
    """Returns a packet. stuffed: False for fast reads, which servos send as they are."""
    body = bytes([instruction]) + parameters
    body = stuff(body) if stuffed else body
    whole = HEADER + bytes([servo]) + (len(body) + 2).to_bytes(2, "little") + body
    return whole + crc16(whole).to_bytes(2, "little")


def status(servo: int, error: int, data: bytes = b"") -> bytes:
    """Returns the answer of a servo. error: number, plus 128 under an alarm."""
    return packet(servo, STATUS, bytes([error]) + data)


def fast_status(parts: list[tuple[int, int, bytes]]) -> bytes:
    """Returns the one answer of several servos (error, id, data) to a fast read; each adds the checksum of all before it."""
    body = HEADER + bytes([BROADCAST]) + (1 + sum(len(data) + 4 for _, _, data in parts)).to_bytes(2, "little") + bytes([STATUS])
    for error, servo, data in parts:
        body += bytes([error, servo]) + data
        body += crc16(body).to_bytes(2, "little")
    return body


@dataclass(frozen=True)
class Packet:
    """What came. good: the checksum is right; parameters: without stuffing."""

    servo: int
    instruction: int
    parameters: bytes
    good: bool
    size: int


def parse(whole: bytes) -> Packet:
    """Returns what one whole packet says."""
    body = unstuff(whole[7:-2])
    return Packet(whole[4], body[0], body[1:], crc16(whole[:-2]) == int.from_bytes(whole[-2:], "little"), len(whole))


class Stream:
    """Finds packets in bytes as they come, and the next header after noise."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields every whole packet there is now."""
        self._rest += data
        while True:
            at = self._rest.find(HEADER)
            if at < 0:
                self._rest = self._rest[-3:]  # the beginning of a header, perhaps
                return
            self._rest = self._rest[at:]
            if len(self._rest) < 7:
                return
            size = 7 + int.from_bytes(self._rest[5:7], "little")
            if not 10 <= size <= _LONGEST:
                self._rest = self._rest[1:]
                continue
            if len(self._rest) < size:
                return
            yield self._rest[:size]
            self._rest = self._rest[size:]
