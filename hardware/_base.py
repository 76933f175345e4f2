"""What a driver is: a device is one file of hardware/devices with `Config`, `make(config)` and `fake(config)`.

Vendor libraries are imported inside `connect`, so that a missing one breaks one driver and says the line that installs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

from robolearn import registry
from robolearn.core import TeleopSample

DEVICES = "hardware.devices"
Kind = Literal["delta", "pose", "keypoints", "joints"]


@runtime_checkable
class Device(Protocol):
    """An input device. kind: what its samples hold; arms: how many hands it has; deadman: whether it has a dead-man switch."""

    kind: Kind
    arms: int
    deadman: bool

    def connect(self) -> None:
        """Opens the device; MissingDependency or HardwareError in one line where that cannot be done."""

    def read(self) -> Sequence[TeleopSample]:
        """Returns what came since the last call, oldest first, without waiting; empty where nothing did."""

    def close(self) -> None:
        """Lets go of the device; safe to call twice, and before `connect`."""


def device_names() -> tuple[str, ...]:
    """Returns the names of all devices."""
    return registry.names(DEVICES)


def device_module(name: str) -> ModuleType:
    """Returns the module of one device; UnknownName with the nearest one."""
    return registry.load(DEVICES, name, what="device")


def make_device(name: str, overrides: dict[str, Any]) -> Device:
    """Returns a device that is not connected yet; ConfigError names the field that does not fit."""
    from robolearn import config

    module = device_module(name)
    return module.make(config.from_mapping(module.Config, overrides, where=f"device {name}"))
