"""What every bus of smart servos can do, whoever made the servos; `hardware.robots._servo_arm` makes an arm of it."""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from hardware._errors import ConfigMismatch, HwError, NotReady, TransportCorrupt, TransportLost, TransportTimeout
from robolearn.errors import nearest

T = TypeVar("T")
TRIPPED = 255  # what a watchdog register reads once it has run out
_TRIES = 5  # of what an answer may be lost of, outside a cycle
_WRITE_S = 0.1  # longer than a packet ever takes: a full buffer is a line that nobody reads


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
    homing_sign: 1 or -1: a servo reads encoder + homing_sign * homing; zero_registers: those that a calibrated zero depends on.
    Every call is one request and raises the family of `hardware._errors`: TransportTimeout and TransportCorrupt pass by
    themselves, TransportLost does not, ConfigMismatch where a servo refuses a value, DeviceFault where an alarm makes it refuse.
    Registers have names that are the same on every bus: "torque", "goal", "position", "velocity", "current", "homing",
    "min_position", "max_position", "temperature" [deg C], "voltage" [0.1 V], "alarm" (bits), "watchdog" (0 off, 255 run out),
    "operating_mode", "return_delay", "model", "firmware"; others as the family has them. NotReady names one it has not.
    """

    ticks_per_turn: int
    watchdog_s: tuple[float, float] | None
    homing_sign: int
    zero_registers: tuple[str, ...]

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


def open_port(device: str, port: str, baud: int) -> Any:
    """Returns pyserial's port at `baud` [1/s], for this process alone: reads return at once, a write gives up after 0.1 s.

    TransportLost where it cannot be opened, or is open elsewhere.
    """
    import serial  # an extra brings it

    try:
        return serial.Serial(port, baud, timeout=0, write_timeout=_WRITE_S, exclusive=True)
    except (OSError, ValueError, termios.error) as error:  # pyserial's error is an OSError
        way = "name another port or baud, close what else uses it, join the group dialout"
        raise TransportLost(device, f"{port} cannot be opened ({error}); {way}", phase="connect") from None


@contextlib.contextmanager
def wire_errors(device: str, port: str) -> Iterator[None]:
    """Turns what an open port throws into our errors: TransportTimeout where it takes no bytes, TransportLost for the rest."""
    import serial

    try:
        yield
    except serial.SerialTimeoutException:  # a full buffer, or a machine that was elsewhere
        raise TransportTimeout(device, f"{port} takes no more packets") from None
    except (OSError, termios.error) as error:  # termios.error is neither an OSError nor pyserial's
        raise TransportLost(device, f"{port} is gone ({error}); plug it in and connect again") from None


def register(device: str, name: str, registers: Mapping[str, T]) -> T:
    """Returns the register of that name; NotReady, with the nearest, where the family has none."""
    if name not in registers:
        raise NotReady(device, f"no register '{name}'{nearest(name, registers)}")
    return registers[name]


def bits_named(bits: int, names: Mapping[int, str]) -> tuple[str, ...]:
    """Returns the names of the bits that are set, lowest first, "bit 6" for one without; names: by value (1, 2, 4, ...)."""
    return tuple(names.get(1 << k, f"bit {k}") for k in range(bits.bit_length()) if bits >> k & 1)


def firmly(call: Callable[[], T], tries: int = _TRIES) -> T:
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


def settle(bus: ServoBus, servo: int, wanted: Mapping[str, int], device: str) -> dict[str, tuple[int, int]]:
    """Writes the settings that differ, in the order given and with the torque off, and returns (was, is) of each.

    ConfigMismatch for one that reads otherwise after it was written; a servo that answers no writes is known by that too.
    """
    changed: dict[str, tuple[int, int]] = {}
    for name, value in wanted.items():
        was = read_firmly(bus, servo, name)
        if was != value:
            if not changed and read_firmly(bus, servo, "torque"):
                _put(bus, servo, "torque", 0, device)
            _put(bus, servo, name, value, device)
            changed[name] = (was, value)
    return changed


def _put(bus: ServoBus, servo: int, name: str, value: int, device: str) -> None:
    """Writes a register until it reads as written; the answer to the write may be lost."""
    for _ in range(_TRIES):
        with contextlib.suppress(TransportTimeout, TransportCorrupt):
            bus.write(servo, name, value)
        got = read_firmly(bus, servo, name)
        if got == value:
            return
    raise ConfigMismatch(device, f"servo {servo}: {name} is {got} after {value} was written", phase="configure", raw=got)


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
