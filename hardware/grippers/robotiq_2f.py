"""Robotiq 2F-85, 2F-140 and Hand-E over Modbus: RTU on a serial line, or TCP through a gateway.

A setpoint is an aperture, 0 closed to 1 open. Activation homes the gripper, which opens and closes it: nothing may be between its
fingers then. Once activated it is not homed again, and keeps what it holds. The drive is self-locking: without power the fingers
stay. Registers: Robotiq's instruction manual of the 2F-85 and 2F-140. A round trip takes 2 to 10 ms; poll at 100 Hz at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import BadCommand, ConfigMismatch, DeviceFault, TransportCorrupt, TransportTimeout
from hardware._modbus import Modbus, host_and_port
from robolearn.errors import ConfigError

NEEDS = ("pymodbus", "robotiq")  # the library it speaks through, and the extra that brings it
EMULATOR = "robotiq"  # what speaks its protocol without the metal
EMULATION: dict[str, object] = {}  # its fields: none, it is one by default
COMMAND, STATUS = 0x03E8, 0x07D0  # three registers each
ACTIVATE, GO = 0x01, 0x08  # bits of the action request
_READY = 3  # of Status.state
EMULATED = "robolearn"  # the vendor's name in the device identification of an emulator; a gripper has none
FAULTS: Mapping[int, str] = MappingProxyType(
    {
        0x05: "not activated yet", 0x07: "not activated", 0x08: "too hot", 0x09: "no communication for a second",
        0x0A: "voltage too low", 0x0B: "automatic release", 0x0C: "internal fault", 0x0D: "activation failed",
        0x0E: "over-current", 0x0F: "automatic release completed",
    }
)  # fmt: skip
_NOTES = (0x00, 0x05, 0x07, 0x09)  # pass by themselves, or by activation


@dataclass(frozen=True)
class Config:
    """Which gripper, and how hard it grips."""

    port: str = "/dev/ttyUSB0"
    """Serial port, or tcp://host:port of a Modbus TCP gateway."""
    unit: int = 9
    """Its Modbus address."""
    baud: int = 115200
    """Of the serial port [1/s]."""
    model: str = "2F-85"
    """What it is called; it does not say so itself."""
    opening_m: float = 0.085
    """Between the fingers when open [m]; 0.140 for the 2F-140, 0.050 for the Hand-E."""
    open_at: int = 0
    """Position that it reports when open, 0 to 255; as measured, up to about 15 with some fingertips."""
    closed_at: int = 255
    """Position that it reports when closed on nothing; as measured, from about 225 with some fingertips."""
    speed: float = 1.0
    """Share of its greatest speed, 0 to 1 (2F-85: 0.02 to 0.15 m/s)."""
    force: float = 0.3
    """Share of its greatest force, 0 to 1 (2F-85: 20 to 235 N)."""
    timeout_s: float = 0.02
    """Of one request."""
    homing_s: float = 10.0
    """How long activation may take."""

    def __post_init__(self) -> None:
        if not (0 <= self.speed <= 1 and 0 <= self.force <= 1):
            raise ConfigError(f"robotiq_2f: want speed and force from 0 to 1, got {self.speed:g} and {self.force:g}")
        if not 0 <= self.open_at < self.closed_at <= 255:
            raise ConfigError(f"robotiq_2f: want 0 <= open_at < closed_at <= 255, got {self.open_at} and {self.closed_at}")
        if self.opening_m <= 0 or self.timeout_s <= 0 or self.homing_s <= 0:
            got = f"{self.opening_m:g}, {self.timeout_s:g} and {self.homing_s:g}"
            raise ConfigError(f"robotiq_2f: want opening_m, timeout_s and homing_s above 0, got {got}")
        if self.port.startswith("tcp://"):
            host_and_port(self.port, "robotiq_2f")


@dataclass(frozen=True)
class Status:
    """What the three status registers say. position, requested: 0 open .. 255 closed; current_A: of the motor.

    contact: 0 moving, 1 stopped by something while opening, 2 while closing, 3 arrived; state: 0 reset, 1 homing, 3 ready.
    """

    activated: bool = False
    going: bool = False
    state: int = 0
    contact: int = 0
    fault: int = 0
    requested: int = 0
    position: int = 0
    current_A: float = 0.0

    @property
    def holding(self) -> bool:
        """True where the fingers have stopped at something."""
        return self.going and self.contact in (1, 2)


def parse(registers: Sequence[int]) -> Status:
    """Returns what the status registers (3,) mean."""
    action, second, third = registers
    bits = action >> 8
    return Status(
        bool(bits & 0x01), bool(bits & 0x08), bits >> 4 & 3, bits >> 6 & 3,
        second >> 8 & 0x0F, second & 0xFF, third >> 8, (third & 0xFF) * 0.01,
    )  # fmt: skip


def command(action: int, position: int = 0, speed: float = 0.0, force: float = 0.0) -> list[int]:
    """Returns the command registers (3,). action: bits; position: 0 open .. 255 closed; speed, force: shares."""
    return [action << 8, position, round(255 * speed) << 8 | round(255 * force)]


class Robotiq2F:
    """The driver. status: what the gripper said last; its `holding` says whether there is an object. wire: counts the misses."""

    def __init__(
        self,
        config: Config,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """sleep: between two looks at a gripper that is homing [s]."""
        self.config, self.status = config, Status()
        self.wire = Modbus("robotiq_2f", config.port, config.unit, config.baud, config.timeout_s, "robotiq")
        self._clock_ns, self._sleep = clock_ns, sleep
        self._emulated, self._seq = False, 0

    def connect(self) -> Identity:
        """Opens the port and reads the status; TransportTimeout where nobody answers."""
        self.wire.open()
        try:
            self._read()
        except (TransportTimeout, TransportCorrupt) as error:
            self.wire.close()
            raise TransportTimeout("robotiq_2f", f"{error}; check supply, unit and baud", phase="connect") from None
        except BaseException:
            self.wire.close()
            raise
        product, revision = "", ""
        with contextlib.suppress(TransportTimeout, TransportCorrupt, ConfigMismatch):  # a gripper does not know the question
            vendor, product, revision = self.wire.tried(self.wire.identify)
            self._emulated = vendor == EMULATED
        part = f"unit {self.config.unit} on {self.config.port}"
        return Identity(self.config.model, product, revision, (part,), self._emulated)

    def capabilities(self) -> Caps:
        """Returns a device without joints whose setpoint is the aperture; activation homes it and takes seconds."""
        none = np.zeros(0)
        return Caps(
            (), none, none, none, (1.0, 50.0, 100.0), modes=("gripper_width",), stops=(Stop.HOLD, Stop.RELEASE), brakes=True,
            opening_m=self.config.opening_m, latency_s=(0.005, 0.05), blocking=("activate",), needs_homing=True,
        )  # fmt: skip

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Reads the status: there is no setting that outlasts a command."""
        self._read()
        return {}

    def activate(self) -> None:
        """Homes the gripper where it is not activated yet, then holds it where it is; what it grips stays gripped.

        DeviceFault where homing fails, TransportTimeout where it takes longer than homing_s.
        """
        status = self._read()
        if status.fault in _NOTES and status.state != _READY:
            self._write(command(0))
            self._write(command(ACTIVATE))
            status = self._await(lambda seen: seen.state == _READY or seen.fault not in _NOTES, "activate")
        if status.fault not in _NOTES:
            raise DeviceFault("robotiq_2f", f"activate: {_named(status.fault)}", status.fault, phase="activate")
        self._write(self._go(status.requested if status.holding else status.position))

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Writes an aperture, if there is one, and reads the status, both in one request."""
        goal = None if setpoint is None or setpoint.aperture is None else self._goal(setpoint.aperture)
        sent_ns = self._clock_ns()
        if goal is None:
            registers = self.wire.read(STATUS, 3)
        else:
            registers = self.wire.write_and_read(COMMAND, self._go(goal), STATUS, 3)
        now, self.status = self._clock_ns(), parse(registers)
        self._seq += 1
        config, none = self.config, np.zeros(0)
        closed = (self.status.position - config.open_at) / (config.closed_at - config.open_at)
        return ArmState(
            none, none, none, (sent_ns + now) // 2, now, (now - sent_ns) // 2, self._seq, float(np.clip(1.0 - closed, 0.0, 1.0)),
            Sampled.EMULATED if self._emulated else 0, 0 if self.status.fault in _NOTES else self.status.fault,
        )  # fmt: skip

    def health(self) -> Health:
        """Returns the name of the fault, if there is one; the gripper tells no temperature and no voltage."""
        self.status = parse(self.wire.read(STATUS, 3))
        return Health(alarm={"gripper": (_named(self.status.fault),)} if self.status.fault else {}, counters=self.wire.counters)

    def deactivate(self, stop: Stop) -> None:
        """HOLD: stops the fingers, or keeps what they grip; RELEASE: switches the drive off, so that it must be homed again."""
        if stop is Stop.RELEASE:
            self._write(command(0))
            return
        status = self._read()
        if status.going and not status.holding:
            self._write(self._go(status.position))

    def clear_fault(self) -> None:
        """Resets the gripper where it has a fault that needs it; it must be homed after that."""
        if self._read().fault not in _NOTES:
            self._write(command(0))
            self._await(lambda seen: seen.fault in _NOTES, "clear_fault")

    def disconnect(self) -> list[Exception]:
        """Closes the port and leaves the fingers as they are: a dropped object is a hazard."""
        return self.wire.close()

    def _goal(self, aperture: float) -> int:
        config = self.config
        try:
            goal = round(config.closed_at - aperture * (config.closed_at - config.open_at))
        except (TypeError, ValueError, OverflowError):  # no number, NaN, infinity
            goal = -1
        if not config.open_at <= goal <= config.closed_at:
            raise BadCommand("robotiq_2f", f"want an aperture of 0 to 1, got {aperture}")
        return goal

    def _go(self, goal: int) -> list[int]:
        return command(ACTIVATE | GO, goal, self.config.speed, self.config.force)

    def _read(self) -> Status:
        self.status = parse(self.wire.tried(lambda: self.wire.read(STATUS, 3)))
        return self.status

    def _write(self, registers: list[int]) -> None:
        self.wire.tried(lambda: self.wire.write(COMMAND, registers))

    def _await(self, done: Callable[[Status], bool], phase: str) -> Status:
        """Returns the first status that is `done`."""
        until = self._clock_ns() + int(self.config.homing_s * 1e9)
        while not done(status := self._read()):
            if self._clock_ns() > until:
                raise TransportTimeout(
                    "robotiq_2f", f"{phase}: not done in {self.config.homing_s:g} s, got {status}", phase=phase
                )
            self._sleep(0.02)
        return status


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> Robotiq2F:
    """Returns the gripper at config.port, not connected."""
    return Robotiq2F(config, clock_ns)


def _named(fault: int) -> str:
    return FAULTS.get(fault, f"fault {fault}")
