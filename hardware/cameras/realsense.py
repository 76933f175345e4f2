"""The colour pictures of a RealSense camera through pyrealsense2, opened by serial number.

A frame's time is the device's, as the SDK maps it to this machine (domain global_time); a stamp of another domain says little of
the capture, and then it is the time of receipt less `latency_s`. The first frames of a stream may be of another domain than the
rest, until the SDK has learnt the device's clock: `connect` waits for that. A frame of another domain later is refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hardware._base import Frame, Identity
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ("pyrealsense2", "realsense")  # the library it speaks through, and the extra that brings it
NAME = "realsense"
_GLOBAL = "global_time"
_EMULATED = "EMULATED"  # the serial number of a software device of the SDK begins so; those of cameras are digits
_MAPPED_NS = 2_000_000  # how well the SDK maps the device's clock; not verified on a device
_OLD_S = 10.0  # a mapped stamp that lies further back, or ahead by more than a period, is none


@dataclass(frozen=True)
class Config:
    """Which camera, and what it shall give."""

    serial: str = ""
    """Its serial number; empty: the only one there is."""
    size: tuple[int, int] = (640, 480)
    """Width and height [px]."""
    hz: float = 30.0
    """Frames per second."""
    settle_s: float = 1.5
    """How long `connect` waits for stamps of the device's clock."""
    latency_s: float = 0.0
    """From capture to receipt [s]; used where stamps are of another clock."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.hz <= 0 or self.settle_s <= 0 or self.latency_s < 0:
            got = f"{self.size}, {self.hz:g}, {self.settle_s:g} and {self.latency_s:g}"
            raise ConfigError(f"realsense: want size, hz and settle_s above 0 and latency_s of at least 0, got {got}")


def make(
    config: Config,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    wall_ns: Callable[[], int] = time.time_ns,
    sdk: Any = None,
) -> RealSense:
    """Returns the camera, not connected. wall_ns: the clock that the SDK maps to; sdk: in the place of pyrealsense2."""
    return RealSense(config, clock_ns, wall_ns, sdk)


class RealSense:
    """The `FrameSource`."""

    def __init__(self, config: Config, clock_ns: Callable[[], int], wall_ns: Callable[[], int], sdk: Any) -> None:
        self.size, self.hz = config.size, config.hz
        self._config, self._clock_ns, self._wall_ns, self._sdk = config, clock_ns, wall_ns, sdk
        self._device: Any = None
        self._sensor: Any = None
        self._queue: Any = None
        self._domain, self._last = "", -1

    def connect(self) -> Identity:
        """Starts the stream and waits until the domain of its stamps has settled; TransportLost where there is no camera."""
        self.close()
        self._sdk = self._sdk or _pyrealsense2()
        self._last = -1
        try:
            self._device = self._found()
            identity = self._who()
            self._sensor, profile = self._stream()
            self._queue = self._sdk.frame_queue(2)
            self._sensor.open(profile)
            self._sensor.start(self._queue)
            self._domain = self._settled()
        except RuntimeError as error:
            self.close()
            raise TransportLost(NAME, f"it cannot be started: {error}", phase="connect", raw=str(error)) from error
        except (ConfigMismatch, TransportLost):
            self.close()
            raise
        return replace(identity, parts=(*identity.parts, f"stamps: {self._domain}"))

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next frame; TransportCorrupt for one whose stamp is of another domain than the first."""
        if self._queue is None:
            raise TransportLost(NAME, "it is not connected")
        until = self._clock_ns() + round(timeout_s * 1e9)
        while True:
            try:
                there, frame = self._queue.try_wait_for_frame(max(0, (until - self._clock_ns()) // 1_000_000))
                taken = self._taken(frame, self._clock_ns()) if there else None
                gone = not there and not self._device.is_connected()
            except RuntimeError as error:
                self.close()
                raise TransportLost(NAME, f"the camera is gone: {error}", phase="read", raw=str(error)) from error
            if gone:
                self.close()
                raise TransportLost(NAME, "the camera is gone", phase="read")
            if taken is not None or self._clock_ns() >= until:
                return taken

    def close(self) -> None:
        """Stops the stream; what the SDK says to that is of no use to anybody."""
        sensor, self._sensor, self._queue, self._device = self._sensor, None, None, None
        for step in ("stop", "close"):
            with contextlib.suppress(RuntimeError, AttributeError):
                getattr(sensor, step)()

    def _found(self) -> Any:
        """Returns the camera of the configured serial number."""
        info, serial = self._sdk.camera_info.serial_number, self._config.serial
        devices = {str(device.get_info(info)): device for device in self._sdk.context().query_devices()}
        there = ", ".join(sorted(devices)) or "none"
        if serial and serial not in devices:
            raise TransportLost(NAME, f"no camera with serial number {serial}; there are: {there}", phase="connect")
        if not serial and len(devices) != 1:
            raise TransportLost(NAME, f"want one camera, or a serial number to choose by; there are: {there}", phase="connect")
        return devices[serial] if serial else next(iter(devices.values()))

    def _who(self) -> Identity:
        def said(key: Any) -> str:
            return str(self._device.get_info(key)) if self._device.supports(key) else ""

        keys = self._sdk.camera_info
        serial = said(keys.serial_number)
        parts = (said(keys.usb_type_descriptor),) if said(keys.usb_type_descriptor) else ()
        emulated = serial.startswith(_EMULATED)
        return Identity(said(keys.name) or NAME, serial, said(keys.firmware_version), tuple(f"USB {p}" for p in parts), emulated)

    def _stream(self) -> tuple[Any, Any]:
        """Returns the sensor and its stream of the configured size and rate; ConfigMismatch with those that there are."""
        sdk, seen = self._sdk, set()
        for sensor in self._device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != sdk.stream.color or profile.format() != sdk.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                given = (video.width(), video.height(), profile.fps())
                if given == (*self.size, round(self.hz)):
                    if sensor.supports(sdk.option.global_time_enabled):
                        sensor.set_option(sdk.option.global_time_enabled, 1.0)
                    return sensor, profile
                seen.add(given)
        there = ", ".join(f"{w} x {h} at {hz}" for w, h, hz in sorted(seen)) or "none"
        wanted = f"{self.size[0]} x {self.size[1]} at {self.hz:g} Hz"
        raise ConfigMismatch(NAME, f"want colour pictures of {wanted}, it has {there}", phase="connect")

    def _settled(self) -> str:
        """Returns the domain of the stream's stamps: the device's as soon as one is, else that of the last in `settle_s`."""
        until, domain = self._clock_ns() + round(self._config.settle_s * 1e9), ""
        while domain != _GLOBAL and self._clock_ns() < until:
            there, frame = self._queue.try_wait_for_frame(max(1, (until - self._clock_ns()) // 1_000_000))
            domain = frame.get_frame_timestamp_domain().name if there else domain
        if not domain:
            raise TransportLost(NAME, f"it is there and gave no picture in {self._config.settle_s:g} s", phase="connect")
        return domain

    def _wall_ahead(self) -> int:
        """Returns by how much [ns] the wall clock is ahead of ours, read at once as far as the system lets us."""
        tries = [(self._clock_ns(), self._wall_ns(), self._clock_ns()) for _ in range(3)]
        before, wall, after = min(tries, key=lambda read: read[2] - read[0])
        return wall - (before + after) // 2

    def _taken(self, frame: Any, now: int) -> Frame | None:
        """Returns the frame, None where it is not newer than the last."""
        domain, seq = frame.get_frame_timestamp_domain().name, int(frame.get_frame_number())
        if domain != self._domain:
            raise TransportCorrupt(NAME, f"frame {seq}: its stamp is of domain {domain}, those before of {self._domain}")
        if seq <= self._last:
            return None
        period_ns = round(1e9 / self.hz)
        age_ns = round(self._config.latency_s * 1e9)
        if domain == _GLOBAL:
            age_ns = now + self._wall_ahead() - round(frame.get_timestamp() * 1e6)
        if not -period_ns < age_ns < _OLD_S * 1e9:
            raise TransportCorrupt(NAME, f"frame {seq}: its stamp lies {age_ns / 1e9:.3f} s back; did the wall clock step?")
        dropped, self._last = seq - self._last - 1 if self._last >= 0 else 0, seq
        exposure = self._sdk.frame_metadata_value.actual_exposure
        exposure_s = frame.get_frame_metadata(exposure) / 1e6 if frame.supports_frame_metadata(exposure) else 0.0
        image = np.array(frame.get_data())  # a copy: the SDK uses its buffer again
        if image.shape != (self.size[1], self.size[0], 3):
            raise TransportCorrupt(NAME, f"frame {seq}: want a picture of size {self.size}, got shape {image.shape}")
        mapped = domain == _GLOBAL
        unc_ns = _MAPPED_NS if mapped else period_ns
        clock = "device" if mapped else "received"
        return Frame(image, now - max(0, age_ns), now, unc_ns, seq, dropped, exposure_s, clock)


def _pyrealsense2() -> Any:
    try:
        import pyrealsense2
    except ImportError as error:
        missing = "libusb-1.0-0" if "libusb" in str(error) else "pyrealsense2"
        way = "apt-get install libusb-1.0-0" if "libusb" in missing else "pip install 'robolearn[realsense]'"
        raise MissingDependency(missing, "the RealSense camera", way) from None
    return pyrealsense2
