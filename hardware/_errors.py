"""What goes wrong with hardware, one family that says who, what, in which phase, and what came back.

HwError
  TransportTimeout     nothing came back in time                  transient
  TransportCorrupt     something came back that is not an answer  transient
  TransportLost        the wire, port or process is gone
  DeviceFault          the device raised alarm bits (`bits`)
  ProtectiveStop       the controller stopped the arm
  EStop                the emergency stop is pressed
  LimitViolation       a value beyond the limits was refused
  ConfigMismatch       a setting did not take, or the device is another model or firmware
  CalibrationMismatch  the calibration file is not of this device, or its zeros have moved
  StaleData            the newest sample is older than allowed
  NotReady             the call does not fit the state
  RateOverrun          the cycle came too late too often
  BadCommand           not finite, wrong shape, wrong unit
"""

from __future__ import annotations

from robolearn.errors import HardwareError


class HwError(HardwareError):
    """Base of what a driver raises. device: name; code: a short word; phase: connect, configure, ...; raw: the answer."""

    transient = False
    severity = "fault"

    def __init__(self, device: str, message: str, *, code: str = "", phase: str = "", raw: object = None) -> None:
        super().__init__(f"{device}: {message}")
        self.device, self.code, self.phase, self.raw = device, code or type(self).__name__, phase, raw


class TransportTimeout(HwError):
    """Nothing came back in time."""

    transient = True
    severity = "miss"


class TransportCorrupt(HwError):
    """What came back is not an answer: checksum, length, identity."""

    transient = True
    severity = "miss"


class TransportLost(HwError):
    """The port, socket or process is gone."""


class DeviceFault(HwError):
    """The device raised alarm bits. bits: as it gave them."""

    def __init__(self, device: str, message: str, bits: int, *, code: str = "", phase: str = "") -> None:
        super().__init__(device, message, code=code, phase=phase, raw=bits)
        self.bits = bits


class ProtectiveStop(HwError):
    """The controller stopped the arm: collision, limit, or the like."""


class EStop(HwError):
    """The emergency stop is pressed; only a person ends it."""

    severity = "estop"


class LimitViolation(HwError):
    """A value beyond the limits was refused."""

    severity = "refused"


class ConfigMismatch(HwError):
    """A setting did not take, or the device is not what the configuration says."""


class CalibrationMismatch(HwError):
    """The calibration is not of this device, or its zeros have moved; nothing may move."""


class StaleData(HwError):
    """The newest sample is older than allowed."""


class NotReady(HwError):
    """The call does not fit the state of the device."""

    severity = "refused"


class RateOverrun(HwError):
    """The cycle came too late too often."""


class BadCommand(HwError):
    """A command that no motor may see: not finite, of another shape, in another unit."""

    severity = "refused"
