"""Dynamixel servos on one wire as a function of bytes: what each packet does to them and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hardware.emulators import _dynamixel_wire as wire
from hardware.emulators._dynamixel_table import CRC, INSTRUCTION, LENGTH, RESULT_FAIL, Servo
from hardware.emulators._goals import Goals

_GOAL = 116


@dataclass
class Bus:
    """The servos on one wire: what each packet does to them and what they answer; no port, no plant, no clock of its own.

    goals: what came for goal positions, in rad of the joints, before any check; counts: of packets, of writes that were no goals,
    and of wrong checksums.
    """

    servos: Sequence[Servo]
    dead: set[int] = field(default_factory=set)
    reboot_s: float = 0.0
    now: float = 0.0
    goals: Goals = field(default_factory=Goals)
    counts: dict[str, int] = field(default_factory=lambda: {"packets": 0, "writes": 0, "crc_errors": 0})

    def answer(self, packet: bytes) -> list[bytes]:
        """Does what a whole packet says and returns the answers, one for each servo that has one."""
        asked = wire.parse(packet)
        self.counts["packets"] += 1
        there = {servo.id: servo for servo in self.servos if self.now >= servo.away_until and servo.id not in self.dead}
        if not asked.good:
            self.counts["crc_errors"] += 1
            hit = there.get(asked.servo)
            return [] if hit is None else [wire.status(asked.servo, CRC | hit.error_bit)]
        for servo in there.values():
            servo.hear(self.now)  # of whatever instruction, to whomever (Bus Watchdog, e-Manual)
        if asked.instruction in _MANY:
            return _MANY[asked.instruction](self, there, asked.parameters)
        everyone = asked.servo == wire.BROADCAST
        answers = []
        for number, servo in there.items():
            if everyone or number == asked.servo:
                hurt = servo.error_bit  # as it was when it was asked
                error, data = self._one(servo, asked.instruction, asked.parameters)
                level = servo.get(68)
                told = asked.instruction == 1 or (level >= 1 and asked.instruction == 2) or level == 2
                if told and (not everyone or asked.instruction == 1):
                    answers.append(wire.status(number, error | hurt, data))
            elif servo.get(12) == asked.servo:  # a shadow does the same and says nothing
                self._one(servo, asked.instruction, asked.parameters)
        return answers

    def _one(self, servo: Servo, instruction: int, given: bytes) -> tuple[int, bytes]:
        """Returns error number and data of what one servo does."""
        if instruction == 1:
            return 0, bytes(servo.table[0:2] + servo.table[6:7])
        if instruction == 2 and len(given) == 4:
            said = servo.read(_word(given), _word(given, 2))
            return (said, b"") if isinstance(said, int) else (0, said)
        if instruction == 3 and len(given) > 2:
            return self._write([(servo, _word(given), given[2:])]), b""
        if instruction == 4 and len(given) > 2:
            servo.registered = (_word(given), given[2:])
            servo.put(69, 1)
            return 0, b""
        if instruction == 5 and servo.registered is not None:
            address, data = servo.registered
            servo.registered = None
            servo.put(69, 0)
            return self._write([(servo, address, data)]), b""
        if instruction == 8:
            servo.reboot(self.now + self.reboot_s)
            return 0, b""
        if instruction == 16 and given == b"\x01DXL\x22":
            if servo.get(122):
                return RESULT_FAIL, b""
            servo.switched_on()
            return 0, b""
        return (LENGTH if instruction in (2, 3, 4) else INSTRUCTION), b""

    def _write(self, jobs: Sequence[tuple[Servo, int, bytes]]) -> int:
        """Takes down what one packet wants written, then writes it; returns the last error."""
        goals, error = [], 0
        for servo, address, data in jobs:
            if address <= _GOAL < address + len(data):
                ticks = int.from_bytes(data[_GOAL - address : _GOAL - address + 4], "little", signed=True)
                goals.append(servo.angle(ticks))
        if goals:
            self.goals.note(goals)
        else:
            self.counts["writes"] += 1
        for servo, address, data in jobs:
            error = servo.write(address, data)
        return error

    def _write_many(self, there: Mapping[int, Servo], asked: list[tuple[int, int, bytes]]) -> list[bytes]:
        shadows = [servo for servo in there.values() if servo.table[12] <= 252]
        jobs = []
        for number, address, data in asked:
            if number in there:
                jobs.append((there[number], address, data))
            jobs += [(shadow, address, data) for shadow in shadows if shadow.table[12] == number]
        self._write(jobs)
        return []

    def _sync_write(self, there: Mapping[int, Servo], given: bytes) -> list[bytes]:
        address, size = _word(given), _word(given, 2)
        pieces = [given[k : k + 1 + size] for k in range(4, len(given), 1 + size)]
        return self._write_many(there, [(piece[0], address, piece[1:]) for piece in pieces])

    def _bulk_write(self, there: Mapping[int, Servo], given: bytes) -> list[bytes]:
        jobs, at = [], 0
        while at + 5 <= len(given):
            size = _word(given, at + 3)
            jobs.append((given[at], _word(given, at + 1), given[at + 5 : at + 5 + size]))
            at += 5 + size
        return self._write_many(there, jobs)

    def _read_many(self, there: Mapping[int, Servo], asked: list[tuple[int, int, int]], fast: bool) -> list[bytes]:
        parts = []
        for number, address, size in asked:
            if number in there:
                said = there[number].read(address, size)
                error, data = (said, b"") if isinstance(said, int) else (0, said)
                parts.append((error | there[number].error_bit, number, data))
        if not fast:
            return [wire.status(number, error, data) for error, number, data in parts]
        return [wire.fast_status(parts)] if len(parts) == len(asked) else []  # each one waits for the one before it

    def _sync_read(self, there: Mapping[int, Servo], given: bytes, fast: bool = False) -> list[bytes]:
        return self._read_many(there, [(number, _word(given), _word(given, 2)) for number in given[4:]], fast)

    def _bulk_read(self, there: Mapping[int, Servo], given: bytes, fast: bool = False) -> list[bytes]:
        asked = [(given[k], _word(given, k + 1), _word(given, k + 3)) for k in range(0, len(given) - 4, 5)]
        return self._read_many(there, asked, fast)


_MANY: Mapping[int, Callable[[Bus, Mapping[int, Servo], bytes], list[bytes]]] = {
    0x82: Bus._sync_read, 0x83: Bus._sync_write, 0x92: Bus._bulk_read, 0x93: Bus._bulk_write,
    0x8A: lambda bus, there, given: bus._sync_read(there, given, fast=True),
    0x9A: lambda bus, there, given: bus._bulk_read(there, given, fast=True),
}  # fmt: skip


def _word(data: bytes, at: int = 0) -> int:
    return int.from_bytes(data[at : at + 2], "little")
