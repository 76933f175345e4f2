"""What goes wrong with hardware, one family that says who, what, in which phase, and what came back.

HwError
  TransportTimeout     nothing came back in time                  transient
  TransportCorrupt     something came back that is not an answer  transient
  TransportLost        the wire, port or process is gone
    DriverEnded        the driver's process has ended
  DeviceFault          the device raised alarm bits (`bits`)
  ProtectiveStop       the controller stopped the arm
  EStop                the emergency stop is pressed
  LimitViolation       a value beyond the limits was refused
  ConfigMismatch       a setting did not take, or the device is another model or firmware
  CalibrationMismatch  the calibration file is not of this device, or its zeros have moved
  StaleData            the newest sample of a camera, or of a sense beside the arm, is older than allowed
    JointsSilent       the newest sample of the joints is
  NotReady             the call does not fit the state
  RateOverrun          the cycle came too late too often
  BadCommand           not finite, wrong shape, wrong unit
"""

from __future__ import annotations

from robolearn.errors import HardwareError


class HwError(HardwareError):
    """Base of what a driver raises. device: name; code: a short word; phase: connect, configure, ...; raw: the answer.

    trouble: what it is to a deployment (a row of `robolearn.runtime.state.REACTIONS`); kind: the same, finer, as `code` says.
    """

    transient = False
    severity = "fault"
    trouble = "servo_lost"

    def __init__(self, device: str, message: str, *, code: str = "", phase: str = "", raw: object = None) -> None:
        super().__init__(f"{device}: {message}")
        self.device, self.code, self.phase, self.raw = device, code or type(self).__name__, phase, raw

    @property
    def kind(self) -> str:
        """The code, where one was given."""
        return "" if self.code == type(self).__name__ else self.code


class TransportTimeout(HwError):
    """Nothing came back in time."""

    transient = True
    severity = "miss"
    trouble = "servo_miss"


class TransportCorrupt(HwError):
    """What came back is not an answer: checksum, length, identity."""

    transient = True
    severity = "miss"
    trouble = "servo_miss"


class TransportLost(HwError):
    """The port, socket or process is gone."""


class DriverEnded(TransportLost):
    """The process of a driver has ended; its device's own watchdog stops the arm."""

    trouble = "driver_crash"


class DeviceFault(HwError):
    """The device raised alarm bits. bits: as it gave them."""

    trouble = "servo_alert"

    def __init__(self, device: str, message: str, bits: int, *, code: str = "", phase: str = "") -> None:
        super().__init__(device, message, code=code, phase=phase, raw=bits)
        self.bits = bits


class ProtectiveStop(HwError):
    """The controller stopped the arm: collision, limit, or the like."""

    trouble = "protective_stop"


class EStop(HwError):
    """The emergency stop is pressed; only a person ends it."""

    severity = "estop"
    trouble = "estop"


class LimitViolation(HwError):
    """A value beyond the limits was refused."""

    severity = "refused"
    trouble = "bad_chunk"


class ConfigMismatch(HwError):
    """A setting did not take, or the device is not what the configuration says."""


class CalibrationMismatch(HwError):
    """The calibration is not of this device, or its zeros have moved; nothing may move."""


class StaleData(HwError):
    """The newest sample of a camera, or of a sense beside the arm, is older than allowed. device: the observation key."""

    trouble = "camera_gone"


class JointsSilent(StaleData):
    """The newest sample of the joints is older than allowed, and nobody said why. device: the arm."""

    trouble = "servo_lost"


class NotReady(HwError):
    """The call does not fit the state of the device."""

    severity = "refused"


class RateOverrun(HwError):
    """The cycle came too late too often."""

    trouble = "stall"


class BadCommand(HwError):
    """A command that no motor may see: not finite, of another shape, in another unit."""

    severity = "refused"
    trouble = "bad_chunk"
