"""Every camera over a scripted world: its stage.

For v4l2 and realsense the world is a fake in the place of the vendor's library, for the others files and a clock.
"""

from __future__ import annotations

import enum
import errno
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hardware._base import Frame, FrameSource
from hardware.cameras import realsense, replay, synthetic, v4l2

SIZE, HZ = (64, 48), 20.0
PERIOD_NS = 50_000_000
WALL_AHEAD_NS = 1_700_000_000_000_000_000
SMALL = {"size": SIZE, "hz": HZ}


@dataclass
class Clock:
    """Time that passes when somebody sleeps."""

    now: int = 1000_000_000_000

    def __call__(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now + WALL_AHEAD_NS

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@dataclass
class Sensor:
    """A camera's hardware: captures on a grid, keeps the newest. odd: what the next stamps are instead [ns]."""

    clock: Clock
    here: bool = True
    stalled: bool = False
    taken: int = -1
    odd: list[int] = field(default_factory=list)
    undecodable: int = 0
    start: int = 0
    stamp: int = 0

    def __post_init__(self) -> None:
        self.start = self.clock.now

    def take(self, timeout_s: float) -> bool:
        if not self.here:
            raise OSError(errno.ENODEV, "No such device")
        k = max(self.taken + 1, (self.clock.now - self.start) // PERIOD_NS)
        due = self.start + k * PERIOD_NS
        if self.stalled or due > self.clock.now + timeout_s * 1e9:
            self.clock.sleep(timeout_s)
            return False
        self.clock.now, self.taken = max(self.clock.now, due), k
        self.stamp = self.odd.pop(0) if self.odd else due
        self.clock.now += 2_000_000  # on its way
        return True

    def image(self) -> np.ndarray:
        return np.full((SIZE[1], SIZE[0], 3), (self.taken % 256, 0, 0), np.uint8)


@dataclass
class FakeCapture:
    """In the place of OpenCV's capture. gives: what it will give, whatever is asked."""

    sensor: Sensor
    gives: tuple[str, tuple[int, int], float] = ("MJPG", SIZE, HZ)
    released: int = 0

    def ask(self, fourcc: str, size: tuple[int, int], hz: float) -> tuple[str, tuple[int, int], float]:
        return self.gives

    def wait(self, timeout_s: float) -> float | None:
        return self.sensor.stamp / 1e6 if self.sensor.take(timeout_s) else None

    def picture(self) -> np.ndarray | None:
        self.sensor.undecodable -= 1
        return None if self.sensor.undecodable >= 0 else self.sensor.image()

    def release(self) -> None:
        self.released += 1
        raise OSError("it is gone already")


class FakeSdk:
    """In the place of pyrealsense2, as far as the driver uses it; one camera with one colour stream and one of depth."""

    camera_info = enum.Enum("camera_info", "serial_number name firmware_version usb_type_descriptor")
    stream = enum.Enum("stream", "color depth")
    format = enum.Enum("format", "rgb8 z16")
    option = enum.Enum("option", "global_time_enabled")
    frame_metadata_value = enum.Enum("frame_metadata_value", "actual_exposure")
    timestamp_domain = enum.Enum("timestamp_domain", "hardware_clock system_time global_time")

    def __init__(self, sensor: Sensor, serials: tuple[str, ...] = ("EMULATED-1",)) -> None:
        self.sensor, self.serials = sensor, serials
        self.domains: list[str] = []  # of the next frames; global_time after them
        self.numbers: list[int] = []  # the same
        self.started, self.options = False, {}
        self.buffer = sensor.image()  # used again for each frame, as the library does
        self.said = {"serial_number": serials[0], "name": "D405", "firmware_version": "5.16", "usb_type_descriptor": "3.2"}

    def context(self) -> Any:
        there = self.serials if self.sensor.here else ()
        return types.SimpleNamespace(query_devices=lambda: [Device(self, serial) for serial in there])

    def frame_queue(self, capacity: int) -> Any:
        return types.SimpleNamespace(try_wait_for_frame=self.wait)

    def wait(self, timeout_ms: int) -> tuple[bool, Any]:
        assert self.started, "the stream has not been started"
        if not self.sensor.here:
            return False, None
        there = self.sensor.take(timeout_ms / 1e3)
        return there, self.frame() if there else None

    def frame(self) -> Any:
        domain = self.domains.pop(0) if self.domains else "global_time"
        number = self.numbers.pop(0) if self.numbers else 100 + self.sensor.taken
        stamp_ms = (self.sensor.stamp + WALL_AHEAD_NS) / 1e6
        self.buffer[:] = self.sensor.image()
        return types.SimpleNamespace(
            get_frame_timestamp_domain=lambda: self.timestamp_domain[domain],
            get_frame_number=lambda: number,
            get_timestamp=lambda: stamp_ms,
            supports_frame_metadata=lambda key: True,
            get_frame_metadata=lambda key: 8000,
            get_data=lambda: self.buffer,
        )


@dataclass
class Device:
    """A device of the fake SDK, which is its only sensor too."""

    sdk: FakeSdk
    serial: str

    def get_info(self, key: Any) -> str:
        return self.serial if key.name == "serial_number" else self.sdk.said[key.name]

    def supports(self, key: Any) -> bool:
        return True

    def is_connected(self) -> bool:
        return self.sdk.sensor.here

    def query_sensors(self) -> list[Any]:
        return [self]

    def get_stream_profiles(self) -> list[Any]:
        def profile(kind: str, code: str, size: tuple[int, int], hz: int) -> Any:
            video = types.SimpleNamespace(width=lambda: size[0], height=lambda: size[1])
            return types.SimpleNamespace(
                stream_type=lambda: self.sdk.stream[kind], format=lambda: self.sdk.format[code], fps=lambda: hz,
                as_video_stream_profile=lambda: video,
            )  # fmt: skip

        return [profile("depth", "z16", SIZE, 20), profile("color", "rgb8", (320, 240), 30), profile("color", "rgb8", SIZE, 20)]

    def set_option(self, key: Any, value: float) -> None:
        self.sdk.options[key.name] = value

    def open(self, profile: Any) -> None:
        assert profile.as_video_stream_profile().width() == SIZE[0]

    def start(self, queue: Any) -> None:
        self.sdk.started = True

    def stop(self) -> None:
        self.sdk.started = False

    def close(self) -> None:
        if not self.sdk.sensor.here:
            raise RuntimeError("the device is gone")


@dataclass
class Stage:
    """A camera and its world. unplug, plug: None where it cannot be unplugged."""

    camera: FrameSource
    clock: Clock
    unplug: Callable[[], None] | None = None
    plug: Callable[[], None] = lambda: None


def stage(name: str, tmp_path: Path) -> Stage:
    """Returns a camera by name, not yet connected, and its world."""
    clock = Clock()
    sensor = Sensor(clock)

    def unplug() -> None:
        sensor.here = False

    def plug() -> None:
        sensor.here = True

    if name == "synthetic":
        return Stage(synthetic.make(synthetic.Config(**SMALL), clock, clock.sleep), clock)
    if name == "replay":
        folder = pictures(tmp_path / "pictures", range(40))
        camera = replay.make(replay.Config(str(folder), **SMALL, loop=False), clock, clock.sleep)
        return Stage(camera, clock, lambda: clock.sleep(60))  # the end of the folder is its unplugging
    if name == "v4l2":
        sysfs = tmp_path / "virtual"
        (sysfs / "cam").mkdir(parents=True)
        return Stage(v4l2.make(v4l2.Config("cam", **SMALL), clock, lambda path: FakeCapture(sensor), sysfs), clock, unplug, plug)
    if name == "realsense":
        return Stage(realsense.make(realsense.Config(**SMALL), clock, clock.wall, FakeSdk(sensor)), clock, unplug, plug)
    raise AssertionError(f"camera {name} has no stage; give it one, and it is tested")


def pictures(folder: Path, values: Any, size: tuple[int, int] = SIZE) -> Path:
    """Writes a folder of one picture a value, whose red is the value."""
    folder.mkdir(parents=True)
    for k, value in enumerate(values):
        bgr = np.full((size[1], size[0], 3), (0, 0, value), np.uint8)
        assert cv2.imwrite(str(folder / f"{k:03d}.png"), bgr)
    return folder


def reads(camera: FrameSource, count: int) -> list[Frame]:
    """Returns so many frames, none of which may be missing."""
    frames = [camera.read(0.2) for _ in range(count)]
    assert all(frame is not None for frame in frames), "a frame that was due did not come"
    return [frame for frame in frames if frame is not None]
