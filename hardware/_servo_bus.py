"""What every bus of smart servos can do, whoever made the servos; `hardware.robots._servo_arm` makes an arm of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from hardware._errors import ConfigMismatch, HwError, TransportCorrupt, TransportTimeout

T = TypeVar("T")
TRIPPED = 255  # what a watchdog register reads once it has run out


@dataclass(frozen=True)
class Sample:
    """One sync read of n servos, in the order asked for.

    position: (n,) int64 [ticks], sign decoded; velocity: (n,) [rad/s] and current: (n,) [A], in the servo's own direction of
    turning, NaN where it measures none; alert: (n,) bool, the servo says that something is wrong (the alarm register says what);
    sent_ns, recv_ns: monotonic, when the request left and when the last answer was there.
    """

    position: np.ndarray
    velocity: np.ndarray
    current: np.ndarray
    alert: np.ndarray
    sent_ns: int
    recv_ns: int


class ServoBus(Protocol):
    """Servos that share a wire. ticks_per_turn: of every encoder.

    watchdog_s: range [s] of the servos' own watchdog, None without one; its lower end is the unit of the register.
    Every call is one request and raises the family of `hardware._errors`: TransportTimeout and TransportCorrupt pass by
    themselves, TransportLost does not, ConfigMismatch where a servo refuses a value, DeviceFault where an alarm makes it refuse.
    Registers have names that are the same on every bus: "torque", "goal", "position", "velocity", "current", "homing",
    "min_position", "max_position", "temperature" [deg C], "voltage" [0.1 V], "alarm" (bits), "watchdog" (0 off, 255 run out),
    "operating_mode", "return_delay", "model", "firmware"; others as the family has them. NotReady names one it has not.
    """

    ticks_per_turn: int
    watchdog_s: tuple[float, float] | None

    def open(self) -> None:
        """Opens the port; writes nothing to any servo."""

    def close(self) -> None:
        """Closes the port; may be called twice, and on a port that is gone."""

    def ping(self, servo: int) -> tuple[int, int]:
        """Returns model number and firmware; TransportTimeout where nobody answers."""

    def read(self, servo: int, name: str) -> int:
        """Returns a register in the servo's units, sign decoded."""

    def write(self, servo: int, name: str, value: int) -> None:
        """Writes a register and checks the servo's status; an alarm that is only shown beside a success is no error."""

    def sample(self, servos: Sequence[int]) -> Sample:
        """Returns position, velocity, current and alert of all of them from one sync read."""

    def goals(self, servos: Sequence[int], ticks: Sequence[int]) -> None:
        """Writes all goal positions [ticks] with one sync write; nobody answers it."""

    def alarms(self, servo: int, bits: int) -> tuple[str, ...]:
        """Returns the names of alarm bits."""

    def reboot(self, servo: int) -> None:
        """Restarts a servo and clears its alarm, as far as the family can."""

    def configure(self, servo: int) -> Mapping[str, tuple[int, int]]:
        """Writes those settings of the family that differ, torque off, reads them back and returns (was, is) by name."""

    def model_name(self, number: int) -> str:
        """Returns what a model number stands for, "model 1234" for a stranger."""


def firmly(call: Callable[[], T], tries: int = 5) -> T:
    """Returns what `call` returns, tried again after errors that pass by themselves; for set-up: a cycle has its own budget."""
    for _ in range(tries - 1):
        try:
            return call()
        except HwError as error:
            if not error.transient:
                raise
    return call()


def adapter_serial(port: str, folder: Path = Path("/dev/serial/by-id")) -> str:
    """Returns the name that the system gives the adapter behind a port by its serial number; "" where it has none."""
    there = Path(port).resolve()
    links = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((link.name for link in links if link.resolve() == there), "")


def latency_timer_ms(port: str, devices: Path = Path("/sys/bus/usb-serial/devices")) -> int | None:
    """Returns how long [ms] the adapter behind a port collects bytes before it hands them on; None where it has no such timer."""
    file = devices / Path(port).resolve().name / "latency_timer"
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def read_firmly(bus: ServoBus, servo: int, name: str) -> int:
    """Returns a register, asked for again where an answer is lost."""
    return firmly(lambda: bus.read(servo, name))


def write_firmly(bus: ServoBus, servo: int, name: str, value: int) -> None:
    """Writes a register, again where the answer is lost."""
    firmly(lambda: bus.write(servo, name, value))


def wait_for(bus: ServoBus, servo: int) -> None:
    """Returns when a servo that was restarted answers; TransportTimeout where it stays away."""
    firmly(lambda: bus.ping(servo), tries=40)


def meet(
    bus: ServoBus, names: Mapping[int, str], device: str, slow_s: float, clock_ns: Callable[[], int]
) -> dict[int, tuple[int, int]]:
    """Returns model and firmware of the servos `names` (by id).

    TransportTimeout says who is silent and how the others are; ConfigMismatch that even the fastest of many answers took over
    `slow_s`: one alone says nothing on a busy machine.
    """
    met: dict[int, tuple[int, int]] = {}
    fastest_s = float("inf")

    def ask(servo: int) -> None:
        nonlocal fastest_s
        began = clock_ns()
        met[servo] = bus.ping(servo)
        fastest_s = min(fastest_s, (clock_ns() - began) / 1e9)

    for servo in names:
        with contextlib.suppress(TransportTimeout, TransportCorrupt):
            firmly(lambda servo=servo: ask(servo))  # type: ignore[misc]
    silent = [servo for servo in names if servo not in met]
    if silent:
        who = ", ".join(f"{servo} ({names[servo]})" for servo in silent)
        raise TransportTimeout(device, f"no answer from servo {who}; {_survivors(bus, met)}", phase="connect")
    for servo in list(names) * 5:
        if fastest_s > slow_s:
            firmly(lambda servo=servo: ask(servo))  # type: ignore[misc]
    if fastest_s > slow_s:
        slow = f"an answer takes {1000 * fastest_s:.0f} ms, want {1000 * slow_s:g} at most"
        hint = "set the adapter's latency_timer to 1 and the servos' return_delay to 0"
        raise ConfigMismatch(device, f"{slow}; {hint}", phase="connect")
    return met


def _survivors(bus: ServoBus, met: Mapping[int, tuple[int, int]]) -> str:
    """Says how those are that answer, because supply and alarms are the common causes of silence."""
    said = []
    for servo, (_, firmware) in met.items():
        try:
            volts, bits = read_firmly(bus, servo, "voltage") / 10, read_firmly(bus, servo, "alarm")
        except HwError:
            continue
        said.append(f"{servo}: {volts:.1f} V, firmware {firmware}, {', '.join(bus.alarms(servo, bits)) or 'no alarm'}")
    return f"others answer ({'; '.join(said)}): check its cable and id" if said else "nobody answers: check power, port and baud"
