"""What every camera keeps, checked on its real driver; a new camera is tested by having a stage in camera_worlds."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from camera_worlds import HZ, SIZE, reads, stage

from hardware._base import CAMERAS, FrameSource, make
from hardware._camera_watch import DOMAINS
from hardware._errors import TransportLost
from hardware.cameras import realsense, replay, v4l2
from robolearn import registry
from robolearn.errors import ConfigError, MissingDependency

NAMES = registry.names(CAMERAS)


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
