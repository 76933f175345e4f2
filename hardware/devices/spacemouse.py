"""A SpaceMouse through hidapi: push, pull, tilt and turn the cap; it springs back, so its samples are speeds.

Reports: id 1 is the translation, int16 little-endian, 350 at the stop (13 bytes: the turns follow; 7 bytes: they come as id 2);
id 3 the buttons, one bit each. Device axes x right, y towards the user, z down become x forward, y left, z up; turns likewise.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hardware._base import Kind
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError, HardwareError, MissingDependency

FULL = 350.0  # what a report says at the stop
QUIET_S = 0.1  # a cap that is held off centre reports all the time: silence means that the link is gone, not that it is held
FORWARD_LEFT_UP = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
VENDORS = {0x256F: None, 0x046D: {0xC603, 0xC605, 0xC606, 0xC621, 0xC623, 0xC625, 0xC626, 0xC627, 0xC628, 0xC629, 0xC62B}}
UDEV = 'KERNEL=="hidraw*", ATTRS{idVendor}=="256f", TAG+="uaccess"'
_INSTALL = "pip install 'robolearn[spacemouse]' (the package hidapi; the one called hid is another)"


@dataclass(frozen=True)
class Config:
    """Which buttons do what."""

    gripper_button: int = 0
    """Turns the gripper over; 0 is the left one, 1 the right one, -1 none."""
    deadman_button: int = -1
    """Moves only while this button is held; -1: there is none, and it drives simulations only."""
    serial: str = ""
    """Serial number, where several are plugged in."""

    def __post_init__(self) -> None:
        if self.gripper_button == self.deadman_button >= 0:
            raise ConfigError(f"spacemouse: button {self.deadman_button} is both gripper and dead-man; want two buttons")


class Hid(Protocol):
    """What we need of an open HID device."""

    def read(self, size: int) -> Sequence[int]:
        """Returns the next report, empty where there is none; OSError where the device is gone."""

    def close(self) -> None: ...


def parse(report: bytes, deflection: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Returns the six device-axis values [-1, 1] after one report, and the button bits if it holds any; others change nothing."""
    if report[:1] == b"\x03" and len(report) >= 2:
        return deflection, int.from_bytes(report[1:5], "little")
    new = deflection.copy()
    if report[:1] == b"\x01" and len(report) >= 13:
        new[:] = _axes(report, 6)
    elif report[:1] in (b"\x01", b"\x02") and len(report) >= 7:
        start = 3 * (report[0] - 1)
        new[start : start + 3] = _axes(report, 3)
    return new, None


def _axes(report: bytes, count: int) -> np.ndarray:
    return np.clip(np.array(struct.unpack_from(f"<{count}h", report, 1)) / FULL, -1.0, 1.0)


@dataclass
class SpaceMouse:
    """The driver: `open_hid` opens the device."""

    config: Config
    open_hid: Callable[[], Hid]
    clock: Callable[[], float] = time.monotonic
    kind: Kind = "delta"
    arms: int = 1
    _hid: Hid | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.deadman = self.config.deadman_button >= 0
        self._centre()

    def _centre(self) -> None:
        self._device, self._buttons, self._moved_s, self._said = np.zeros(6), 0, -np.inf, True

    def connect(self) -> None:
        """Opens the SpaceMouse; HardwareError where there is none or it is not permitted."""
        if self._hid is None:
            self._centre()
            self._hid = self.open_hid()

    def read(self) -> Sequence[TeleopSample]:
        """Returns one sample of the present state while the cap is moved or the dead-man held, and one when that ends."""
        if self._hid is None:
            return ()
        now_s, events, changed = self.clock(), [], False
        for report in self._reports(self._hid):
            before = self._buttons
            self._device, buttons = parse(report, self._device)
            if buttons is None:
                self._moved_s = now_s
            else:
                self._buttons, changed = buttons, True
                gripper = self.config.gripper_button
                if gripper >= 0 and buttons & ~before & (1 << gripper):
                    events.append("toggle_grip")
        if now_s - self._moved_s > QUIET_S:
            self._device = np.zeros(6)
        held = bool(self._buttons & (1 << self.config.deadman_button)) if self.deadman else None
        active = bool(self._device.any()) or bool(held)
        if not (active or changed or not self._said):
            return ()
        self._said = not active  # the sample that says "at rest" is given once
        delta = (self._device.reshape(2, 3) @ FORWARD_LEFT_UP.T).reshape(6)
        t_ns = round(now_s * 1e9)
        return (TeleopSample(t_ns, t_ns, delta=delta + 0.0, deadman=held, events=tuple(events)),)

    def close(self) -> None:
        """Lets go of the SpaceMouse."""
        if self._hid is not None:
            with contextlib.suppress(OSError, ValueError):  # it may be unplugged
                self._hid.close()
            self._hid = None

    def _reports(self, hid: Hid) -> list[bytes]:
        reports: list[bytes] = []
        try:
            while report := hid.read(64):
                reports.append(bytes(report))
        except (OSError, ValueError) as error:
            self.close()
            raise HardwareError(f"spacemouse: it is gone ({error}); plug it in and connect again") from None
        return reports


def open_first(hid: Any, serial: str) -> Hid:
    """Returns the first SpaceMouse that module `hid` lists (the one with `serial`, if given), set not to wait."""
    found = [
        entry
        for entry in hid.enumerate()
        if entry["vendor_id"] in VENDORS
        and (VENDORS[entry["vendor_id"]] is None or entry["product_id"] in (VENDORS[entry["vendor_id"]] or ()))
    ]
    fitting = [entry for entry in found if not serial or entry["serial_number"] == serial]
    if not fitting:
        have = ", ".join(str(entry["serial_number"]) for entry in found) or "none"
        raise HardwareError(
            f"spacemouse: want one with USB vendor 256f or 046d{f' and serial {serial}' if serial else ''}, found {have}"
        )
    device = hid.device()
    try:
        device.open_path(fitting[0]["path"])
    except OSError:
        raise HardwareError(
            f"spacemouse: it is there but may not be opened; put {UDEV} into /etc/udev/rules.d/70-spacemouse.rules"
            " and plug it in anew (on macOS: quit the vendor's driver)"
        ) from None
    device.set_nonblocking(True)
    return device  # type: ignore[no-any-return]


def make(config: Config) -> SpaceMouse:
    """Returns the first SpaceMouse plugged in."""

    def open_hid() -> Hid:
        try:
            import hid
        except ImportError:
            raise MissingDependency("hidapi", "the SpaceMouse", _INSTALL) from None
        if not hasattr(hid, "device"):
            raise MissingDependency("hidapi", "the SpaceMouse", _INSTALL)
        return open_first(hid, config.serial)

    return SpaceMouse(config, open_hid)


@dataclass
class Feed:
    """A cap that `play` pushes: the HID device of the driver."""

    now_s: float = 1.0
    reports: list[bytes] = field(default_factory=list)
    gone: bool = False
    _k: int = 0

    def read(self, size: int) -> Sequence[int]:
        """Returns the next report, empty where there is none."""
        if self.gone:
            raise OSError("read error")
        return list(self.reports.pop(0)[:size]) if self.reports else []

    def close(self) -> None:
        """Has nothing to let go of."""

    def push(self, *axes: int) -> None:
        """Reports six device-axis values, -350 .. 350."""
        self.reports.append(struct.pack("<B6h", 1, *axes))

    def press(self, bits: int) -> None:
        """Reports the buttons held, one bit each."""
        self.reports.append(struct.pack("<BH", 3, bits))

    def play(self) -> None:
        """Pushes forward a little more, and presses the left button every fourth time."""
        self.now_s, self._k = self.now_s + 0.02, self._k + 1
        self.press(2 + (self._k % 4 == 0))
        self.push(0, -40 * (self._k % 8 + 1), 0, 0, 0, 0)


def fake(config: Config) -> tuple[SpaceMouse, Feed]:
    """Returns the driver on a cap that `Feed.play` pushes."""
    feed = Feed()
    return SpaceMouse(config, lambda: feed, lambda: feed.now_s), feed
