"""The realsense camera: stamps of one clock only, numbers that rise, and the vendor's own library where it is installed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_worlds import HZ, PERIOD_NS, SIZE, SMALL, Clock, FakeSdk, Sensor, reads

from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from hardware.cameras import realsense


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
