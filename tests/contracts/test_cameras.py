"""What every camera keeps, checked on its real driver; a new camera is tested by having a stage here.

A stage is a camera over a scripted world: for v4l2 and realsense a fake in the place of the vendor's library, for the others
files and a clock.
"""

from __future__ import annotations

import enum
import errno
import itertools
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hardware._base import CAMERAS, Frame, FrameSource, make
from hardware._camera_watch import DOMAINS
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from hardware.cameras import realsense, replay, synthetic, v4l2
from robolearn import registry
from robolearn.errors import ConfigError, MissingDependency

NAMES = registry.names(CAMERAS)
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
    frames = [camera.read(0.2) for _ in range(count)]
    assert all(frame is not None for frame in frames), "a frame that was due did not come"
    return [frame for frame in frames if frame is not None]


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_is_whole_and_in_time(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    assert isinstance(world.camera, FrameSource) and (world.camera.size, world.camera.hz) == (SIZE, HZ)
    identity = world.camera.connect()
    assert identity.model and identity.emulated, "what is no metal says so"
    for frame in reads(world.camera, 5):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert frame.t_capture_ns <= frame.t_recv_ns <= world.clock.now and frame.t_recv_ns - frame.t_capture_ns < 1e9
        assert frame.t_unc_ns >= 0 and frame.exposure_s >= 0 and frame.domain in DOMAINS


@pytest.mark.parametrize("name", NAMES)
def test_numbers_count_captures_and_what_was_missed(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    world.camera.connect()
    frames = reads(world.camera, 4)
    world.clock.sleep(0.3)  # six captures that nobody takes, of which the last may still be had
    frames += reads(world.camera, 3)
    for before, after in itertools.pairwise(frames):
        assert after.seq == before.seq + 1 + after.dropped
        assert after.t_capture_ns > before.t_capture_ns
    assert [frame.dropped for frame in frames[:4]] == [0, 0, 0, 0] and 4 <= sum(frame.dropped for frame in frames) <= 6


@pytest.mark.parametrize("name", NAMES)
def test_frames_share_no_memory_and_differ(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    world.camera.connect()
    frames = reads(world.camera, 4)
    assert not any(np.shares_memory(a.image, b.image) for a, b in itertools.combinations(frames, 2))
    assert len({frame.image.tobytes() for frame in frames}) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_read_waits_no_longer_than_it_was_told(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    world.camera.connect()
    reads(world.camera, 2)
    before = world.clock.now
    assert world.camera.read(0.0) is None and world.camera.read(0.01) is None
    assert world.clock.now - before <= 15_000_000
    assert world.camera.read(0.2) is not None


@pytest.mark.parametrize("name", NAMES)
def test_an_unplugged_camera_is_lost_and_found_again(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    if world.unplug is None:
        pytest.skip(f"{name} cannot be unplugged")
    world.camera.connect()
    reads(world.camera, 2)
    world.unplug()
    with pytest.raises(TransportLost, match=name):
        for _ in range(60):
            world.camera.read(0.1)
    with pytest.raises(TransportLost):
        world.camera.read(0.1)
    world.plug()
    world.camera.connect()
    frames = reads(world.camera, 2)
    assert frames[0].dropped == 0 and frames[1].t_capture_ns > frames[0].t_capture_ns


@pytest.mark.parametrize("name", NAMES)
def test_closing_is_safe_before_connecting_and_twice(name: str, tmp_path: Path) -> None:
    world = stage(name, tmp_path)
    world.camera.close()
    world.camera.connect()
    world.camera.connect()  # as after an unplugging
    reads(world.camera, 1)
    world.camera.close()
    world.camera.close()
    with pytest.raises(TransportLost, match="not connected"):
        world.camera.read(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    needed = {"path": "cam"} if name in ("v4l2", "replay") else {}
    for wrong, word in (({"size": [0, 0]}, "size"), ({"hz": 0.0}, "hz"), ({"colour": "red"}, "colour")):
        with pytest.raises(ConfigError, match=word):
            make(CAMERAS, name, {**needed, **wrong}, "camera")
    assert make(CAMERAS, name, {**needed, "size": [32, 24]}, "camera").size == (32, 24)


def test_cameras_import_without_vendor_libraries_and_say_which_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "for name in ('cv2', 'av', 'pyrealsense2', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from hardware._base import CAMERAS, make\n"
        "from robolearn import registry\n"
        "for name in registry.names(CAMERAS):\n"
        "    make(CAMERAS, name, {'path': 'cam'} if name in ('v4l2', 'replay') else {}, 'camera')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for module in ("cv2", "pyrealsense2"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[realsense\]'"):
        realsense.make(realsense.Config()).connect()
    for camera in (v4l2.make(v4l2.Config("cam")), replay.make(replay.Config(str(tmp_path)))):
        with pytest.raises(MissingDependency, match="pip install opencv-python"):
            camera.connect()


def v4l2_world(tmp_path: Path, **settings: Any) -> tuple[v4l2.V4l2, Sensor, FakeCapture]:
    sensor = Sensor(Clock())
    capture = FakeCapture(sensor)
    config = v4l2.Config(**{"path": "cam", **SMALL, **settings})
    return v4l2.make(config, sensor.clock, lambda path: capture, tmp_path), sensor, capture


def test_v4l2_takes_the_drivers_stamp_where_it_is_of_our_clock(tmp_path: Path) -> None:
    camera, sensor, _ = v4l2_world(tmp_path, latency_s=0.03)
    camera.connect()
    frame = reads(camera, 1)[0]
    assert (frame.domain, frame.t_capture_ns, frame.t_recv_ns) == ("monotonic", sensor.stamp, sensor.stamp + 2_000_000)


def test_v4l2_takes_the_time_of_receipt_less_the_latency_where_the_stamp_is_of_another_clock(tmp_path: Path) -> None:
    camera, sensor, _ = v4l2_world(tmp_path, latency_s=0.03)
    camera.connect()
    sensor.odd = [WALL_AHEAD_NS, 0, 0]
    frames = reads(camera, 3)
    assert {frame.domain for frame in frames} == {"received"}
    assert {frame.t_recv_ns - frame.t_capture_ns for frame in frames} == {30_000_000}
    assert frames[0].t_unc_ns == PERIOD_NS


def test_v4l2_refuses_a_stamp_of_another_clock_later(tmp_path: Path) -> None:
    camera, sensor, _ = v4l2_world(tmp_path)
    camera.connect()
    reads(camera, 1)
    sensor.odd = [WALL_AHEAD_NS]
    with pytest.raises(TransportCorrupt, match="its stamps were of our clock"):
        camera.read(0.2)
    assert reads(camera, 1)[0].dropped == 1


def test_v4l2_passes_over_a_picture_that_is_not_newer_or_not_readable(tmp_path: Path) -> None:
    camera, sensor, _ = v4l2_world(tmp_path)
    camera.connect()
    first = reads(camera, 2)[1]
    sensor.odd = [first.t_capture_ns, first.t_capture_ns - PERIOD_NS]  # once more, and one that was overtaken
    after = camera.read(0.5)
    assert after is not None and (after.seq, after.dropped) == (first.seq + 3, 2)
    sensor.undecodable = 3
    last = camera.read(0.5)
    assert last is not None and (last.seq, last.dropped) == (after.seq + 4, 3)


def test_v4l2_stalls_without_a_frame_and_counts_what_was_missed(tmp_path: Path) -> None:
    camera, sensor, _ = v4l2_world(tmp_path)
    camera.connect()
    reads(camera, 1)
    sensor.stalled = True
    assert camera.read(0.4) is None
    sensor.stalled = False
    assert 6 <= reads(camera, 1)[0].dropped <= 8


def test_v4l2_says_what_the_camera_gives_instead(tmp_path: Path) -> None:
    camera, _, capture = v4l2_world(tmp_path)
    for gives in (("YUYV", SIZE, HZ), ("MJPG", (32, 24), HZ), ("MJPG", SIZE, 10.0)):
        capture.gives = gives
        with pytest.raises(ConfigMismatch, match=rf"want MJPG 64 x 48 at 20 Hz, it gives {gives[0]} {gives[1][0]} x"):
            camera.connect()
    assert capture.released == 3
    capture.gives = ("YUYV", SIZE, HZ + 0.02)
    assert v4l2_world(tmp_path, fourcc="")[0].connect()


def test_v4l2_says_why_it_is_gone(tmp_path: Path) -> None:
    camera, sensor, capture = v4l2_world(tmp_path)
    camera.connect()
    sensor.here = False
    with pytest.raises(TransportLost, match=r"cam: the camera is gone \(.*No such device"):
        camera.read(0.1)
    assert capture.released == 1


@pytest.mark.parametrize("path", ["0", "/dev/video0", "/dev/video", ""])
def test_v4l2_is_never_opened_by_a_number(path: str) -> None:
    with pytest.raises(ConfigError, match=r"want /dev/v4l/by-id/NAME or another lasting name, got"):
        v4l2.Config(path)
    with pytest.raises(ConfigError, match="fourcc of 4 letters"):
        v4l2.Config("cam", fourcc="MJ")


def test_v4l2_knows_model_and_serial_number_from_the_system(tmp_path: Path) -> None:
    entry, usb = tmp_path / "class/video3", tmp_path / "usb/1-2/1-2:1.0"
    entry.mkdir(parents=True), usb.mkdir(parents=True)
    (entry / "name").write_text("HD Webcam\n")
    (usb.parent / "serial").write_text("A1B2\n")
    (entry / "device").symlink_to(usb)
    (tmp_path / "by-id").symlink_to(tmp_path / "video3")
    camera, _, _ = v4l2_world(entry.parent, path=str(tmp_path / "by-id"))
    identity = camera.connect()
    assert (identity.model, identity.serial, identity.emulated) == ("HD Webcam", "A1B2", False)


def test_v4l2_names_what_hinders_the_opening(tmp_path: Path) -> None:
    with pytest.raises(TransportLost, match=r"there is no such camera"):
        v4l2.make(v4l2.Config(str(tmp_path / "none"))).connect()
    plain = tmp_path / "plain"
    plain.write_bytes(b"no camera")
    with pytest.raises(TransportLost, match="cannot be opened as a camera"):
        v4l2.make(v4l2.Config(str(plain))).connect()


class FakeCv2(types.ModuleType):
    """OpenCV with one camera, whose calls are kept."""

    class error(Exception):
        pass

    CAP_V4L2, COLOR_BGR2RGB = 200, 4
    CAP_PROP_FOURCC, CAP_PROP_FRAME_WIDTH, CAP_PROP_FRAME_HEIGHT, CAP_PROP_FPS, CAP_PROP_POS_MSEC = range(5)

    def __init__(self) -> None:
        super().__init__("cv2")
        self.values: dict[int, float] = {4: 1234.5}
        self.waited: list[int] = []
        self.gone = self.silent = False
        outer = self

        class VideoCapture:
            def __init__(self, path: str, backend: int) -> None:
                assert backend == outer.CAP_V4L2

            def isOpened(self) -> bool:
                return True

            def set(self, key: int, value: float) -> bool:
                outer.values[key] = value
                return True

            def get(self, key: int) -> float:
                return float(outer.values[key])

            def grab(self) -> bool:
                return not outer.silent

            def retrieve(self) -> tuple[bool, np.ndarray]:
                return True, np.full((1, 1, 3), (10, 20, 30), np.uint8)

            def release(self) -> None:
                outer.values.clear()

            @staticmethod
            def waitAny(streams: list, timeout_ns: int) -> tuple[bool, list[int]]:
                outer.waited.append(timeout_ns)
                if outer.gone:
                    raise outer.error("OpenCV(4)\nerror: Error is reported for camera stream\n")
                return not outer.silent, []

        self.VideoCapture = VideoCapture
        self.VideoWriter = cv2.VideoWriter
        self.cvtColor = cv2.cvtColor


def test_opencv_is_asked_in_whole_milliseconds_and_its_errors_are_of_the_family(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake, node = FakeCv2(), tmp_path / "cam"
    node.touch()
    monkeypatch.setitem(sys.modules, "cv2", fake)
    capture = v4l2.OpenCv(str(node))
    assert capture.ask("MJPG", (320, 240), 30.0) == ("MJPG", (320, 240), 30.0)
    assert capture.wait(0.25) == 1234.5 and capture.wait(0.0) == 1234.5 and fake.waited == [250_000_000, 1_000_000]
    picture = capture.picture()
    assert picture is not None and picture[0, 0].tolist() == [30, 20, 10]  # red first
    fake.silent = True
    assert capture.wait(0.1) is None
    with pytest.raises(OSError, match="it is there and gives no picture"):
        capture.ask("", (320, 240), 30.0)
    fake.gone = True
    with pytest.raises(OSError, match=r"^error: Error is reported for camera stream$"):
        capture.wait(0.1)
    capture.release()


def reds(frames: list[Frame]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]


def replayed(folder: Path, **settings: Any) -> tuple[replay.Replay, Clock]:
    clock = Clock()
    camera = replay.make(replay.Config(**{"path": str(folder), **SMALL, **settings}), clock, clock.sleep)
    camera.connect()
    return camera, clock


def test_replay_shows_a_folder_by_name_at_our_pace_and_begins_anew(tmp_path: Path) -> None:
    camera, clock = replayed(pictures(tmp_path / "p", (10, 20, 30)))
    start, frames = clock.now, reads(camera, 5)
    assert reds(frames) == [10, 20, 30, 10, 20] and frames[0].image[0, 0].tolist() == [10, 0, 0]
    assert [frame.t_capture_ns - start for frame in frames] == [k * PERIOD_NS for k in range(5)]


def test_replay_drops_repeats_and_stalls_where_it_is_told(tmp_path: Path) -> None:
    script = {"drop": (1, 2), "twice": (4,), "stall_at": (5,), "stall_s": (0.32,)}
    camera, clock = replayed(pictures(tmp_path / "p", range(20)), **script)
    start, frames = clock.now, reads(camera, 3)
    assert not np.shares_memory(frames[1].image, frames[2].image)
    assert reds(frames) == [0, 3, 3] and [frame.seq for frame in frames] == [0, 3, 4] and frames[1].dropped == 2
    assert camera.read(0.1) is None and camera.read(0.1) is None  # the stall
    frames = reads(camera, 2)
    assert (frames[0].seq, frames[0].t_capture_ns - start) == (5, 5 * PERIOD_NS)
    assert frames[0].t_recv_ns - frames[0].t_capture_ns == 320_000_000
    assert frames[1].seq == 11 and frames[1].dropped == 5 and reds(frames) == [5, 11]


def test_replay_ends_as_if_unplugged_and_begins_anew_when_connected(tmp_path: Path) -> None:
    camera, _ = replayed(pictures(tmp_path / "p", (1, 2)), loop=False)
    reads(camera, 2)
    with pytest.raises(TransportLost, match="it has ended; connecting again begins anew"):
        camera.read(0.2)
    camera.connect()
    assert reds(reads(camera, 2)) == [1, 2]


def test_replay_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", (1, 2, 3))
    with pytest.raises(ConfigMismatch, match=r"want pictures of size \(32, 24\), they have \(64, 48\)"):
        replayed(folder, size=(32, 24))
    (folder / "001.png").write_bytes(b"no picture")
    camera, _ = replayed(folder)
    assert reds(reads(camera, 1)) == [1]
    with pytest.raises(TransportCorrupt, match=r"capture 1: want a picture of size .*, got nothing that can be read"):
        camera.read(0.2)
    assert reads(camera, 1)[0].dropped == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("no video")
    for name, word in (("none", "no such file"), ("empty", "there are none"), ("text.avi", "cannot be read as a video")):
        with pytest.raises(TransportLost, match=word):
            replayed(tmp_path / name)
    for wrong, word in (({"stall_at": (1,)}, "want 1 times"), ({"twice": (0,)}, "from 1 on")):
        with pytest.raises(ConfigError, match=word):
            replay.Config("p", **wrong)  # type: ignore[arg-type]


def test_replay_shows_a_video_at_our_pace_or_its_own(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, SIZE)
    for k in range(4):
        writer.write(np.full((SIZE[1], SIZE[0], 3), (0, 0, 60 * k), np.uint8))
    writer.release()
    for own, period_ns in ((False, PERIOD_NS), (True, 2 * PERIOD_NS)):
        camera, _ = replayed(path, own_times=own)
        frames = reads(camera, 4)
        np.testing.assert_allclose(reds(frames), [0, 60, 120, 180], atol=6)
        np.testing.assert_allclose(np.diff([frame.t_capture_ns for frame in frames]), period_ns, atol=1e6)
        assert abs(reds(reads(camera, 1))[0]) < 6 and frames[0].domain == "file"
        camera.close()


def realsense_world(**settings: Any) -> tuple[realsense.RealSense, FakeSdk]:
    sdk = FakeSdk(Sensor(Clock()))
    return realsense.make(realsense.Config(**{**SMALL, **settings}), sdk.sensor.clock, sdk.sensor.clock.wall, sdk), sdk


def test_realsense_waits_until_stamps_are_of_the_devices_clock(tmp_path: Path) -> None:
    camera, sdk = realsense_world()
    sdk.domains = ["system_time", "hardware_clock"]
    identity = camera.connect()
    assert (identity.model, identity.serial, identity.firmware) == ("D405", "EMULATED-1", "5.16")
    assert identity.parts == ("USB 3.2", "stamps: global_time") and sdk.options == {"global_time_enabled": 1.0}
    frame = reads(camera, 1)[0]
    assert (frame.domain, frame.exposure_s) == ("device", 0.008)
    assert abs(frame.t_capture_ns - sdk.sensor.stamp) < 1000 and frame.t_unc_ns < PERIOD_NS  # milliseconds in a float


def test_realsense_takes_the_time_of_receipt_where_the_device_has_no_clock() -> None:
    camera, sdk = realsense_world(latency_s=0.04, settle_s=0.2)
    sdk.domains = ["system_time"] * 100
    assert "stamps: system_time" in camera.connect().parts
    frame = reads(camera, 1)[0]
    assert (frame.domain, frame.t_recv_ns - frame.t_capture_ns) == ("received", 40_000_000)


def test_realsense_refuses_frames_of_mixed_domains() -> None:
    camera, sdk = realsense_world()
    camera.connect()
    reads(camera, 1)
    sdk.domains = ["system_time"]
    with pytest.raises(TransportCorrupt, match="its stamp is of domain system_time, those before of global_time"):
        camera.read(0.2)
    assert reads(camera, 1)[0].dropped == 1


def test_realsense_passes_over_a_frame_that_was_overtaken() -> None:
    camera, sdk = realsense_world()
    camera.connect()
    last = reads(camera, 2)[1].seq
    sdk.numbers = [last - 1, last]
    assert camera.read(0.01) is None  # no time for another
    sdk.numbers = [last, last + 2]
    frame = camera.read(0.2)
    assert frame is not None and (frame.seq, frame.dropped) == (last + 2, 1)


def test_realsense_refuses_stamps_after_a_step_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, sdk = realsense_world()
    camera.connect()
    for step_ns in (-3600 * 10**9, 10**9):
        sdk.sensor.odd = [sdk.sensor.clock.now + step_ns]
        with pytest.raises(TransportCorrupt, match="did the wall clock step"):
            camera.read(0.2)


def test_realsense_says_which_cameras_and_streams_there_are() -> None:
    sdk = FakeSdk(Sensor(Clock()), ("111", "222"))

    def opened(**settings: Any) -> realsense.RealSense:
        camera = realsense.make(realsense.Config(**{**SMALL, **settings}), sdk.sensor.clock, sdk.sensor.clock.wall, sdk)
        assert not camera.connect().emulated
        return camera

    assert reads(opened(serial="222"), 1)
    with pytest.raises(TransportLost, match="no camera with serial number 333; there are: 111, 222"):
        opened(serial="333")
    with pytest.raises(TransportLost, match="want one camera, or a serial number to choose by; there are: 111, 222"):
        opened()
    with pytest.raises(ConfigMismatch, match="want colour pictures of 640 x 480 at 20 Hz, it has 64 x 48 at 20, 320 x 240 at 30"):
        opened(serial="111", size=(640, 480))
    sdk.sensor.stalled = True
    with pytest.raises(TransportLost, match=r"it is there and gave no picture in 1\.5 s"):
        opened(serial="111")


def test_realsense_works_with_the_vendors_library() -> None:
    rs = pytest.importorskip("pyrealsense2", reason="the RealSense SDK is not installed", exc_type=ImportError)
    device = rs.software_device()
    device.register_info(rs.camera_info.serial_number, "EMULATED-7")
    sensor = device.add_sensor("RGB Camera")
    stream = rs.video_stream()
    stream.type, stream.fmt, stream.uid, stream.bpp = rs.stream.color, rs.format.rgb8, 1, 3
    stream.width, stream.height, stream.fps, stream.intrinsics = *SIZE, round(HZ), rs.intrinsics()
    profile = sensor.add_video_stream(stream).as_video_stream_profile()
    pixels = np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.uint8).reshape(SIZE[1], SIZE[0], 3)
    clock, sent = Clock(), []

    def send(number: int, domain: str = "global_time") -> None:
        frame = rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp, frame.frame_number = pixels + number, SIZE[0] * 3, 3, number
        frame.timestamp, frame.domain, frame.profile = clock.wall() / 1e6, getattr(rs.timestamp_domain, domain), profile
        sent.append(frame)
        sensor.on_video_frame(frame)

    class Queue(rs.frame_queue):
        """The SDK's queue; each wait sends a frame first, for the device takes them only while it streams."""

        script = ((1, "system_time"), (2, "global_time"), (3, "global_time"), (6, "global_time"), (7, "system_time"))

        def try_wait_for_frame(self, timeout_ms: int) -> tuple[bool, Any]:
            if len(sent) < len(self.script):
                send(*self.script[len(sent)])
            clock.sleep(0.002)
            return super().try_wait_for_frame(1000)

    sdk = types.SimpleNamespace(**{name: getattr(rs, name) for name in dir(rs) if not name.startswith("_")})
    sdk.context = lambda: types.SimpleNamespace(query_devices=lambda: [device])
    sdk.frame_queue = Queue
    camera = realsense.make(realsense.Config(**SMALL), clock, clock.wall, sdk)
    assert camera.connect().emulated
    frames = reads(camera, 2)
    assert [frame.seq for frame in frames] == [3, 6] and frames[1].dropped == 2 and frames[0].domain == "device"
    np.testing.assert_array_equal(frames[0].image, pixels + 3)
    with pytest.raises(TransportCorrupt, match="domain system_time"):
        camera.read(0.2)
    camera.close()
