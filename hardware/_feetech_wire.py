"""Feetech's protocol 0 as bytes: packets, the registers of the STS and SMS series, and how they hold numbers. No wire in here.

Packet: FF FF | id | length | instruction or alarm bits | parameters | sum; length = parameters + 2, sum = ~(all since the id).
Words are little-endian, signed values sign-magnitude. Source: Feetech's memory table of the STS series.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83
BROADCAST = 0xFE
TICKS = 4096  # a turn
MIDDLE = 2048  # what the encoder of a servo in the middle of its turn says
MULTI_TURN = 0x10  # bit of "phase": positions count on beyond the turn
EMULATED_FIRMWARE = 25500  # firmware 255.0, which no servo has: an emulator's
TICK_RAD = 2 * np.pi / TICKS
AMPERE_PER_UNIT = 0.0065
_EPROM_END = 40
ALARMS = MappingProxyType({1: "voltage", 2: "angle sensor", 4: "overheat", 8: "over-current", 32: "overload"})
MODELS = MappingProxyType({777: "STS3215", 2825: "STS3250"})


@dataclass(frozen=True)
class Register:
    """A place in the table. size: 1 or 2 bytes; sign: which bit says minus, 0: never negative; fixed: cannot be written."""

    address: int
    size: int = 1
    sign: int = 0
    fixed: bool = False

    @property
    def eprom(self) -> bool:
        """True where a value outlives the power, if the lock is open."""
        return self.address < _EPROM_END


REGISTERS: Mapping[str, Register] = MappingProxyType(
    {
        "firmware_major": Register(0, fixed=True), "firmware_minor": Register(1, fixed=True),
        "model": Register(3, 2, fixed=True), "id": Register(5), "baud": Register(6),
        "return_delay": Register(7), "response_level": Register(8),
        "min_position": Register(9, 2), "max_position": Register(11, 2), "max_temperature": Register(13),
        "max_torque": Register(16, 2), "phase": Register(18),
        "p_gain": Register(21), "d_gain": Register(22), "i_gain": Register(23),
        "protection_current": Register(28, 2), "homing": Register(31, 2, sign=11), "operating_mode": Register(33),
        "protective_torque": Register(34), "protection_time": Register(35), "overload_torque": Register(36),
        "torque": Register(40), "acceleration": Register(41), "goal": Register(42, 2, sign=15), "goal_time": Register(44, 2),
        "goal_velocity": Register(46, 2, sign=15), "torque_limit": Register(48, 2), "lock": Register(55),
        "position": Register(56, 2, sign=15, fixed=True), "velocity": Register(58, 2, sign=15, fixed=True),
        "load": Register(60, 2, sign=10, fixed=True), "voltage": Register(62, fixed=True),
        "temperature": Register(63, fixed=True),
        "alarm": Register(65, fixed=True), "moving": Register(66, fixed=True), "current": Register(69, 2, sign=15, fixed=True),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Packet:
    """One packet. code: instruction on the way out, alarm bits on the way back."""

    servo: int
    code: int
    params: bytes = b""


def checksum(body: bytes) -> int:
    """Returns the sum that ends a packet; body: everything between header and sum."""
    return ~sum(body) & 0xFF


def pack(packet: Packet) -> bytes:
    """Returns a packet as it goes over the wire."""
    body = bytes([packet.servo, len(packet.params) + 2, packet.code]) + packet.params
    return b"\xff\xff" + body + bytes([checksum(body)])


def take(buffer: bytearray) -> Packet | None:
    """Cuts the first packet out of what came in, with all before it; None where it is not whole yet; ValueError: damaged."""
    start = buffer.find(b"\xff\xff")
    while start >= 0 and buffer[start + 2 : start + 3] == b"\xff":  # an id is never FF
        start += 1
    if start < 0:
        del buffer[: len(buffer) - buffer.endswith(b"\xff")]
        return None
    del buffer[:start]
    if len(buffer) < 4 or len(buffer) < 4 + max(buffer[3], 2):
        return None
    end = 4 + max(buffer[3], 2)
    frame = bytes(buffer[:end])
    if frame[3] < 2 or checksum(frame[2:-1]) != frame[-1]:
        del buffer[:2]  # what looked like its end may be the next one's beginning
        raise ValueError(f"checksum: got {frame.hex(' ')}")
    del buffer[:end]
    return Packet(frame[2], frame[4], frame[5:-1])


def encode(register: Register, value: int) -> bytes:
    """Returns a value as a register holds it; ValueError where it does not fit, TypeError for a float, NaN among them."""
    number, bits = operator.index(value), register.sign or 8 * register.size
    if abs(number) >= 1 << bits or (number < 0 and not register.sign):
        least = 1 - (1 << bits) if register.sign else 0
        raise ValueError(f"want {least} to {(1 << bits) - 1}, got {number}")
    return (abs(number) | ((number < 0) << bits)).to_bytes(register.size, "little")


def decode(register: Register, data: bytes | bytearray) -> int:
    """Returns the value that a register's bytes mean."""
    raw = int.from_bytes(data, "little")
    if register.sign and raw >> register.sign & 1:
        return -(raw & ((1 << register.sign) - 1))
    return raw & ((1 << register.sign) - 1) if register.sign else raw
