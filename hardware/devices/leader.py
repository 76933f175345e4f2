"""A leader arm of Dynamixel servos, joint to joint as GELLO does it: its samples are the joint angles of the follower.

    q = sign (raw 2 pi / 4096 - offset); a joint that passes the end of the servo's turn goes on counting (GELLO issue 19).

Whether the follower may start from where the leader is, the `Aligner` of `robolearn.teleop.clutch` says.
A trigger may serve as dead-man too: pressed beyond `deadman_at` it holds, and the rest of its way closes the gripper.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hardware._base import Kind
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError, HardwareError, MissingDependency

TICKS = 4096  # a turn of an X-series servo
MISSES = 10  # reads in a row without an answer after which the bus counts as gone
_TORQUE_ENABLE, _PRESENT_POSITION = 64, 132  # control table of the X series, protocol 2.0


@dataclass(frozen=True)
class Config:
    """The bus and how it was put together."""

    port: str = "/dev/ttyUSB0"
    """Serial port of the servo bus."""
    baud: int = 57600
    """Its rate [1/s]."""
    ids: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    """Servos of the joints, from the base on."""
    signs: tuple[float, ...] = ()
    """1 or -1 a joint: whether it turns as the follower's does; empty: all 1."""
    offsets: tuple[float, ...] = ()
    """Servo angle [rad] at which the follower's joint is 0 (see `offsets_at`); empty: all half a turn."""
    gripper_id: int = -1
    """Servo of the trigger; -1: none."""
    gripper_open: float = 0.0
    """Its angle [rad] when let go."""
    gripper_closed: float = 0.7
    """Its angle [rad] when pressed."""
    deadman_at: float = 0.0
    """Share of the trigger's way, above 0, beyond which it holds; 0: no dead-man, it drives simulations only."""

    def __post_init__(self) -> None:
        for name in ("signs", "offsets"):
            values = getattr(self, name)
            if values and len(values) != len(self.ids):
                raise ConfigError(f"leader {name}: want {len(self.ids)} numbers, one for each of ids, got {len(values)}")
        if any(sign not in (1, -1) for sign in self.signs):
            raise ConfigError(f"leader signs: want 1 or -1, got {self.signs}")
        if len(set(self.ids)) != len(self.ids) or not self.ids or self.gripper_id in self.ids:
            raise ConfigError(f"leader ids: want different servos, got {self.ids} and gripper {self.gripper_id}")
        if not 0.0 <= self.deadman_at < 0.9 or (self.deadman_at > 0 and self.gripper_id < 0):
            raise ConfigError(f"leader deadman_at: want 0 to 0.9 and a gripper_id, got {self.deadman_at:g} and {self.gripper_id}")
        if self.gripper_open == self.gripper_closed:
            raise ConfigError(f"leader gripper: open and closed are the same angle, {self.gripper_open:g} rad")


class Bus(Protocol):
    """The servos."""

    def open(self) -> None:
        """Opens the port, torque off; HardwareError where that cannot be done."""

    def read(self) -> Sequence[int] | None:
        """Returns the position [ticks] of every servo, None where an answer is missing."""

    def close(self) -> None: ...


class Dynamixel:
    """The servos `ids` on a serial port, through the vendor's package (X series, protocol 2.0)."""

    def __init__(self, port: str, baud: int, ids: Sequence[int]) -> None:
        self._port_name, self._baud, self._ids = port, baud, tuple(ids)
        self._port: Any = None
        self._reader: Any = None

    def open(self) -> None:
        """Opens the port and switches the torque off: a leader is moved by hand."""
        try:
            import dynamixel_sdk as sdk
        except ImportError:
            raise MissingDependency("dynamixel_sdk", "the leader arm", "pip install 'robolearn[dynamixel]'") from None
        port, packets = sdk.PortHandler(self._port_name), sdk.PacketHandler(2.0)
        try:
            opened = port.openPort() and port.setBaudRate(self._baud)
        except OSError as error:  # pyserial's error is one of these
            raise HardwareError(f"leader: {self._port_name}: {error}; name the port, and join the group dialout") from None
        if not opened:
            raise HardwareError(f"leader: {self._port_name} cannot be opened at {self._baud}; name another port or baud")
        self._port, self._reader = port, sdk.GroupSyncRead(port, packets, _PRESENT_POSITION, 4)
        for servo in self._ids:
            result, status = packets.write1ByteTxRx(port, servo, _TORQUE_ENABLE, 0)
            if result != 0 or status != 0:
                self.close()
                raise HardwareError(f"leader: servo {servo} on {self._port_name} does not answer; check ids, baud and power")
            self._reader.addParam(servo)

    def read(self) -> Sequence[int] | None:
        """Returns the position [ticks, signed] of every servo, None where an answer is missing."""
        if self._reader.txRxPacket() != 0:
            return None
        ticks = []
        for servo in self._ids:
            if not self._reader.isAvailable(servo, _PRESENT_POSITION, 4):
                return None
            raw = int(self._reader.getData(servo, _PRESENT_POSITION, 4))
            ticks.append(raw - (1 << 32) if raw >= 1 << 31 else raw)
        return ticks

    def close(self) -> None:
        """Closes the port."""
        if self._port is not None:
            self._port.closePort()
        self._port, self._reader = None, None


def offsets_at(ticks: Sequence[int], joints: Sequence[float], signs: Sequence[float]) -> tuple[float, ...]:
    """Returns the offsets [rad] of a leader that reads `ticks` while held in the pose `joints` [rad] of the follower.

    Rounded to a quarter turn, as servo horns are mounted: a pose that is held by hand is never exact.
    """
    angles = np.asarray(ticks, float) * (2 * np.pi / TICKS) - np.asarray(signs, float) * np.asarray(joints, float)
    return tuple(float(value) for value in np.round(angles / (np.pi / 2)) * (np.pi / 2))


@dataclass
class Leader:
    """The driver: one sample a call."""

    config: Config
    bus: Bus
    clock: Callable[[], float] = time.monotonic
    kind: Kind = "joints"
    arms: int = 1
    _joints: np.ndarray | None = field(default=None, init=False)
    _open: bool = field(default=False, init=False)
    _missed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        count = len(self.config.ids)
        self._signs = np.array(self.config.signs or (1.0,) * count)
        self._offsets = np.array(self.config.offsets or (np.pi,) * count)
        self.deadman = self.config.deadman_at > 0

    def connect(self) -> None:
        """Opens the bus; the joints are taken within half a turn of 0."""
        if not self._open:
            self.bus.open()
            self._open, self._joints, self._missed = True, None, 0

    def read(self) -> Sequence[TeleopSample]:
        """Returns the joints now; empty where an answer was lost, HardwareError after ten in a row."""
        if not self._open:
            return ()
        try:
            ticks = self.bus.read()
        except OSError as error:  # the adapter was unplugged
            self.close()
            raise HardwareError(f"leader: the bus is gone ({error}); plug it in and connect again") from None
        if ticks is None:
            self._missed += 1
            if self._missed >= MISSES:
                self.close()
                raise HardwareError(f"leader: {MISSES} reads without an answer; check cables and power, then connect again")
            return ()
        self._missed = 0
        angles = np.asarray(ticks, float) * (2 * np.pi / TICKS)
        count = len(self.config.ids)
        joints = self._signs * (angles[:count] - self._offsets)
        before = np.zeros(count) if self._joints is None else self._joints
        self._joints = before + (joints - before + np.pi) % (2 * np.pi) - np.pi  # the nearest of all whole turns
        grip, held = self._trigger(angles[count]) if self.config.gripper_id >= 0 else (None, None)
        t_ns = round(self.clock() * 1e9)
        return (TeleopSample(t_ns, t_ns, joints=self._joints.copy(), deadman=held, grip=grip),)

    def close(self) -> None:
        """Lets go of the bus."""
        if self._open:
            self._open = False
            self.bus.close()

    def _trigger(self, angle: float) -> tuple[float, bool | None]:
        way = self.config.gripper_closed - self.config.gripper_open
        off = (angle - self.config.gripper_open + math.pi) % (2 * math.pi) - math.pi
        share, at = float(np.clip(off / way, 0.0, 1.0)), self.config.deadman_at
        if not self.deadman:
            return share, None
        return float(np.clip((share - at) / (1.0 - at), 0.0, 1.0)), share >= at


def _servos(config: Config) -> tuple[int, ...]:
    return config.ids + ((config.gripper_id,) if config.gripper_id >= 0 else ())


def make(config: Config) -> Leader:
    """Returns the leader arm on `config.port`."""
    return Leader(config, Dynamixel(config.port, config.baud, _servos(config)))


@dataclass
class Feed:
    """Servos that `play` turns."""

    ticks: list[int]
    now_s: float = 1.0
    silent: bool = False

    def open(self) -> None:
        """Is there."""

    def close(self) -> None:
        """Has nothing to let go of."""

    def read(self) -> Sequence[int] | None:
        """Returns the positions [ticks], within one turn as servos give them."""
        return None if self.silent else [value % TICKS for value in self.ticks]

    def play(self) -> None:
        """Turns every servo a little further."""
        self.now_s += 0.01
        self.ticks = [value + 20 + k for k, value in enumerate(self.ticks)]


def fake(config: Config) -> tuple[Leader, Feed]:
    """Returns the driver on servos that `Feed.play` turns."""
    feed = Feed([TICKS // 2] * len(_servos(config)))
    return Leader(config, feed, lambda: feed.now_s), feed
