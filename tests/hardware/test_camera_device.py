"""The camera device without a camera: samples in the torso frame, newest wins, stored landmarks, a video, clear errors."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from hardware import _base
from hardware.devices import camera
from robolearn.errors import ConfigError, HardwareError, MissingDependency


def wait_for_the_end(device: camera.Camera) -> None:
    """Waits until the device's thread has taken its last picture."""
    for thread in threading.enumerate():
        if thread.name == "camera":
            thread.join(timeout=10)
    assert not device.running


class Listed:
    """Gives a list of landmarks (or errors) one by one."""

    def __init__(self, items) -> None:
        self.items, self.closed = list(items), False

    def next(self):
        """Returns the next item, raises it where it is an error."""
        if not self.items:
            raise StopIteration
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Notes that it was closed."""
        self.closed = True


def test_a_sample_has_keypoints_and_a_pose_in_the_torso_frame_and_the_least_visibility():
    marks = camera.person(0.0)
    marks[15, 3] = 0.4
    right, left = camera.samples(marks, 7)
    assert (right.arm, left.arm, right.t_dev_ns) == (0, 1, 7)
    assert (right.confidence, left.confidence) == (0.9, 0.4)
    assert np.allclose(right.keypoints, [[0.0, -0.2, 0.0], [0.0, -0.25, -0.28], [0.25, -0.25, -0.28]], atol=1e-12)
    assert np.allclose(right.pose[:3, 3], right.keypoints[2])
    assert np.allclose(right.pose[:3, :3], np.eye(3), atol=1e-12)
    assert right.deadman is None


def test_an_arm_with_points_that_are_no_numbers_gives_no_sample():
    marks = camera.person(0.0)
    marks[14, 0] = np.nan
    assert [sample.arm for sample in camera.samples(marks, 0)] == [1]
    marks[:, :3] = 0.0
    assert camera.samples(marks, 0) == ()


def test_the_newest_picture_wins_and_is_given_once():
    source, ticks = Listed([camera.person(0.0), None, camera.person(0.5)]), itertools.count(10)
    device = camera.Camera(lambda wait: source, lambda: next(ticks))
    device.connect()
    wait_for_the_end(device)
    samples = device.read()
    assert [sample.t_dev_ns for sample in samples] == [12, 12]
    assert np.allclose(samples[0].keypoints, camera.samples(camera.person(0.5), 0)[0].keypoints)
    assert device.read() == ()
    device.close()
    assert source.closed
    device.close()


def test_a_picture_that_fails_is_told_once_by_read():
    device = camera.Camera(lambda wait: Listed([ValueError("cable")]), lambda: 0)
    device.connect()
    wait_for_the_end(device)
    with pytest.raises(HardwareError, match="ValueError: cable"):
        device.read()
    assert device.read() == ()
    device.close()


def test_the_fake_shows_a_person_who_moves():
    device, feed = camera.fake(camera.Config())
    device.connect()
    wait_for_the_end(device)
    seen = []
    for _ in range(3):
        feed.play()
        seen.append(device.read()[0])
    device.close()
    assert len({sample.keypoints.tobytes() for sample in seen}) == 3
    assert all(a.t_recv_ns < b.t_recv_ns for a, b in itertools.pairwise(seen))


def test_stored_landmarks_are_played_at_their_own_pace(tmp_path):
    marks = np.stack([camera.person(0.0), camera.person(0.2)])
    np.savez(tmp_path / "stored.npz", landmarks=marks, times=[3.0, 3.5])
    waits: list[float] = []
    source = camera.Stored(str(tmp_path / "stored.npz"), waits.append)
    assert np.array_equal(source.next(), marks[0])
    assert np.array_equal(source.next(), marks[1])
    assert waits == [0.5]
    with pytest.raises(StopIteration):
        source.next()


def test_a_device_made_by_name_plays_a_stored_file(tmp_path):
    path = tmp_path / "stored.npz"
    np.savez(path, landmarks=camera.person(0.1)[None], times=[0.0])
    device = _base.make_device("camera", {"source": str(path), "detector": "stored"})
    device.connect()
    wait_for_the_end(device)
    assert [sample.arm for sample in device.read()] == [0, 1]
    device.close()


def test_a_video_reaches_the_detector_as_rgb(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "red.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))  # blue, green, red
    writer.release()

    class Seen:
        def __init__(self) -> None:
            self.colours, self.closed = [], False

        def detect(self, image):
            self.colours.append(image.mean(axis=(0, 1)))
            return camera.person(0.1 * len(self.colours))

        def close(self) -> None:
            self.closed = True

    detector = Seen()
    device = camera.Camera(lambda wait: camera.Video(path, detector), lambda: 0)
    device.connect()
    wait_for_the_end(device)
    assert len(device.read()) == 2
    device.close()
    assert len(detector.colours) == 3
    assert detector.colours[0][0] > 200 > 50 > detector.colours[0][2]
    assert detector.closed


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="want mediapipe or stored"):
        camera.Config(detector="magic")
    with pytest.raises(ConfigError, match=r"want an \.npz"):
        camera.make(camera.Config(str(tmp_path / "none.npz"), "stored")).connect()
    np.savez(tmp_path / "odd.npz", landmarks=np.zeros((2, 33, 3)), times=[0.0, 1.0])
    with pytest.raises(ConfigError, match=r"want landmarks \(2, 33, 4\)"):
        camera.make(camera.Config(str(tmp_path / "odd.npz"), "stored")).connect()
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    device = camera.make(camera.Config(str(tmp_path / "none.mp4")))
    with pytest.raises(MissingDependency, match="pip install 'mediapipe"):
        device.connect()
    device.close()


def test_a_video_that_does_not_open_is_named(tmp_path):
    pytest.importorskip("cv2")

    class Nobody:
        def detect(self, image):
            return None

        def close(self) -> None:
            """Has nothing to close."""

    with pytest.raises(HardwareError, match="does not open"):
        camera.Video(str(tmp_path / "none.mp4"), Nobody())
