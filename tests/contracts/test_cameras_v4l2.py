"""The v4l2 camera: whose clock its stamps are of, what it gives instead of what was asked, and how OpenCV is asked."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from camera_worlds import HZ, PERIOD_NS, SIZE, SMALL, WALL_AHEAD_NS, Clock, FakeCapture, Sensor, reads

from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from hardware.cameras import v4l2
from robolearn.errors import ConfigError


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
