"""One servo of the X series as its control table shows it: registers, their limits, locks, alarms and watchdog.

What the manual leaves open is as bad for the driver as it can be: torque-on keeps the goal that was written before it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

TURN = 4096
PER_RADIAN = TURN / (2 * math.pi)
PER_RAD_S = 60 / (0.229 * 2 * math.pi)
MARK = b"EMUL"  # in the model information, where metal has small numbers
RESULT_FAIL, INSTRUCTION, CRC, RANGE, LENGTH, LIMIT, ACCESS = 1, 2, 3, 4, 5, 6, 7  # error numbers of an answer
_READ_ONLY, _KEPT = "r", 64  # below address 64 a value outlives a reboot, and torque locks it
_GOALS = (100, 119)  # first and last byte of the goals that a tripped watchdog locks (profiles among them)
_TRIPPED = 255
_INT = {1: "<b", 2: "<h", 4: "<i"}
# address, bytes, lowest, highest ("r": read only), default
_TABLE: tuple[tuple[int, int, int | str, int, int], ...] = (
    (0, 2, "r", 0, 0), (2, 4, "r", 0, int.from_bytes(MARK, "little")), (6, 1, "r", 0, 0), (7, 1, 0, 252, 1), (8, 1, 0, 7, 3),
    (9, 1, 0, 254, 250), (10, 1, 0, 13, 0), (11, 1, 0, 16, 3), (12, 1, 0, 255, 255), (13, 1, 2, 22, 2),
    (20, 4, -1044479, 1044479, 0),
    (24, 4, 0, 1023, 10), (31, 1, 0, 100, 80), (32, 2, 31, 160, 160), (34, 2, 31, 160, 35), (36, 2, 0, 885, 885),
    (38, 2, 0, 2047, 1750), (44, 4, 0, 2047, 445), (48, 4, 0, 4095, 4095), (52, 4, 0, 4095, 0), (62, 1, 1, 255, 140),
    (63, 1, 0, 255, 53), (64, 1, 0, 1, 0), (65, 1, 0, 1, 0), (68, 1, 0, 2, 2), (69, 1, "r", 0, 0), (70, 1, "r", 0, 0),
    (76, 2, 0, 16383, 1600), (78, 2, 0, 16383, 180), (80, 2, 0, 16383, 0), (82, 2, 0, 16383, 0), (84, 2, 0, 16383, 400),
    (88, 2, 0, 16383, 0), (90, 2, 0, 16383, 0), (98, 1, 0, 127, 0), (100, 2, -885, 885, 885), (102, 2, -2047, 2047, 1750),
    (104, 4, -2047, 2047, 0), (108, 4, 0, 32767, 0), (112, 4, 0, 32767, 0), (116, 4, -(1 << 31), (1 << 31) - 1, 0),
    (120, 2, "r", 0, 0), (122, 1, "r", 0, 0), (123, 1, "r", 0, 0), (124, 2, "r", 0, 0), (126, 2, "r", 0, 0), (128, 4, "r", 0, 0),
    (132, 4, "r", 0, 0), (136, 4, "r", 0, 0), (140, 4, "r", 0, 0), (144, 2, "r", 0, 120), (146, 1, "r", 0, 35),
)  # fmt: skip
REGISTERS = {row[0]: row for row in _TABLE}
_LAST = 147
_LIMITED_BY = {100: 36, 102: 38, 104: 44}  # a goal, and the register of its limit
_UNSIGNED = (7, 8, 9, 10, 12, 13, 62, 63)  # one byte, to be read without sign


@dataclass(frozen=True)
class Mount:
    """How a servo sits on its joint. joint: of the plant; zero: tick of the bare encoder at 0 rad; sign: 1 or -1."""

    joint: int
    zero: int = 2048
    sign: int = 1


class Servo:
    """The table of one servo and what is behind it. Times are seconds of one clock, angles those of the plant."""

    def __init__(self, number: int, model: int, firmware: int, mount: Mount, obliging: bool = False) -> None:
        """obliging: torque-on makes the present position the goal, as some say it does."""
        self.mount, self._obliging = mount, obliging
        self.table = bytearray(_LAST)
        for address, size, _, _, default in _TABLE:
            self.table[address : address + size] = (default & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.put(0, model)
        self.put(6, firmware)
        self.put(7, number)
        self.registered: tuple[int, bytes] | None = None
        self.away_until = 0.0
        self._shut_down, self._heard, self._encoder, self._base = False, 0.0, 0, 0

    def get(self, address: int) -> int:
        """Returns a register, by its size, with its sign."""
        size = REGISTERS[address][1]
        value = int(struct.unpack_from(_INT[size], self.table, address)[0])
        return value & 0xFF if size == 1 else value

    def put(self, address: int, value: int) -> None:
        """Sets a register without any check."""
        size = REGISTERS[address][1]
        self.table[address : address + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    @property
    def id(self) -> int:
        """What it is called by."""
        return self.table[7]

    @property
    def torque(self) -> bool:
        """Whether it holds."""
        return self.table[64] == 1

    @property
    def error_bit(self) -> int:
        """128 while the hardware error register is not 0."""
        return 128 if self.table[70] else 0

    def read(self, address: int, length: int) -> bytes | int:
        """Returns bytes of the table, or the number of the error."""
        return bytes(self.table[address : address + length]) if address + length <= _LAST else ACCESS

    def write(self, address: int, data: bytes) -> int:
        """Writes whole registers, all or none; returns the number of the error, 0 for none."""
        at, values = address, {}
        while at < address + len(data):
            if at not in REGISTERS:
                return ACCESS
            size = REGISTERS[at][1]
            piece = data[at - address : at - address + size]
            if len(piece) < size:
                return LENGTH
            values[at] = int.from_bytes(piece, "little", signed=at not in _UNSIGNED)
            at += size
        for at, value in values.items():
            if error := self._refuses(at, value):
                return error
        for at, value in values.items():
            self._take(at, value)
        return 0

    def alarm(self, bits: int) -> None:
        """Raises hardware errors; those that its shutdown register names take the torque until it is rebooted. 0 clears all."""
        self.table[70] = bits
        self._shut_down = bool(bits & self.table[63])
        if self._shut_down:
            self.table[64] = 0

    def reboot(self, until: float) -> None:
        """Falls silent until then, and forgets what is kept in memory only, alarms too."""
        for address, _, _, _, default in _TABLE:
            if address >= _KEPT and address not in (144, 146):
                self.put(address, default)
        self.away_until, self.registered, self._shut_down = until, None, False
        self.switched_on()

    def hear(self, now: float) -> None:
        """Notes that an instruction was on the bus: the watchdog begins again."""
        self._heard = now

    def watch(self, now: float) -> None:
        """Trips the watchdog when nothing was heard for as long as it is set to: it stops where it is."""
        steps = self.table[98]
        if self.torque and 0 < steps < 128 and now - self._heard > 0.02 * steps:
            self.table[98] = _TRIPPED
            self.put(116, self.get(132))

    def measure(self, q: float, qd: float, effort: float) -> None:
        """Shows what the plant does: rad, rad/s, N m."""
        self._encoder = self._way * (self.mount.zero + round(self.mount.sign * q * PER_RADIAN))
        turns = self._way * self.mount.sign
        current = max(-2047, min(2047, round(turns * effort * 1000)))
        position = self._encoder + self._base + self.get(20)
        struct.pack_into("<hii", self.table, 126, current, round(turns * qd * PER_RAD_S), position)
        self.table[122] = abs(qd) > 0.02

    def switched_on(self) -> None:
        """Begins to count within one turn, with the measured place as goal."""
        self._rebase()
        self.put(116, self.get(132))

    def angle(self, ticks: int) -> float:
        """Returns the joint's angle [rad] at a count of this servo; NaN for the count that a cast NaN would be."""
        if ticks == -(1 << 31):
            return math.nan
        return self.mount.sign * (self._way * (ticks - self._base - self.get(20)) - self.mount.zero) / PER_RADIAN

    @property
    def _way(self) -> int:
        return -1 if self.table[10] & 1 else 1

    def _rebase(self) -> None:
        self._base = self._encoder % TURN - self._encoder
        self.put(132, self._encoder + self._base + self.get(20))

    def _refuses(self, at: int, value: int) -> int:
        low, high = REGISTERS[at][2:4]
        if low == _READ_ONLY or (at < _KEPT and self.torque):
            return ACCESS
        if self.table[98] == _TRIPPED and (_GOALS[0] <= at <= _GOALS[1] or (at == 98 and value != 0)):
            return RANGE
        if not int(low) <= value <= high:
            return RANGE
        if at in _LIMITED_BY and abs(value) > self.get(_LIMITED_BY[at]):
            return LIMIT
        if at == 116 and self.table[11] == 3 and not self.get(52) <= value <= self.get(48):
            return LIMIT
        return RESULT_FAIL if at == 64 and value == 1 and self._shut_down else 0

    def _take(self, at: int, value: int) -> None:
        was, mode = self.torque, self.table[11]
        self.put(at, value)
        if at == 64 and value == 1 and not was:
            if mode == 3:
                self._rebase()
            if self._obliging:
                self.put(116, self.get(132))
        if at == 11 and value != mode:
            self.put(102, self.get(38))
            self.put(108, 0)
            self.put(112, 0)
            if value == 3:
                self._rebase()
        if at in (10, 20):
            self.put(132, self._encoder + self._base + self.get(20))
