"""A camera that watches a person: both arms as keypoints. It has no dead-man switch, so it drives simulations only.

    device = make(Config(source="0"))                  # a webcam; a video file's path works too
    device = make(Config(source="stored.npz", detector="stored"))   # landmarks (n, 33, 4) and times (n,) [s] from a file

The newest picture wins: one thread takes and reads pictures, and `read` gives what the last of them showed. Landmarks are
MediaPipe's 33 (world x y z [m], visibility); samples are in the torso frame, confidence is the least visibility of shoulder,
elbow and wrist, and a pose is wrist and hand. The fingers of a body model are noisy: see `human.level`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from hardware._base import Kind
from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError, HardwareError, MissingDependency

Array = np.ndarray
_SIDES = ((1, 0), (0, 1))  # (how much later than the left side's landmark, arm): right, left
_SHOULDER, _ELBOW, _WRIST, _PINKY, _INDEX, _HIP = 11, 13, 15, 17, 19, 23


@dataclass(frozen=True)
class Config:
    """Which camera, and what finds the body in its pictures."""

    source: str = "0"
    """Number of the camera, path of a video, or path of an .npz of stored landmarks."""
    detector: Literal["mediapipe", "stored"] = "mediapipe"
    """What finds the body: mediapipe, or landmarks that were stored before."""
    model: str = ""
    """Path of a pose_landmarker .task file, which newer mediapipe needs; empty takes the model inside the package."""

    def __post_init__(self) -> None:
        if self.detector not in ("mediapipe", "stored"):
            raise ConfigError(f"camera detector: want mediapipe or stored, got '{self.detector}'")


class Detector(Protocol):
    """Finds one body in a picture."""

    def detect(self, image: Array) -> Array | None:
        """Returns landmarks (33, 4), world x y z [m] and visibility, of an RGB picture (height, width, 3), None for nobody."""

    def close(self) -> None:
        """Lets go of the model."""


class Source(Protocol):
    """Gives landmarks one by one: `next` waits for a picture; None is nobody; StopIteration is the end."""

    def next(self) -> Array | None: ...
    def close(self) -> None: ...


class MediaPipe:
    """The Detector of the mediapipe package: its own model, or a .task file."""

    def __init__(self, model: str) -> None:
        try:
            import mediapipe  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            install = "pip install 'mediapipe==0.10.21' (it wants numpy < 2: a virtual environment of its own is best)"
            raise MissingDependency("mediapipe", "the camera device", install) from error
        self._mediapipe: Any = mediapipe
        if model:
            if not Path(model).is_file():
                raise ConfigError(f"camera model: no file '{model}'")
            vision = mediapipe.tasks.vision
            options = vision.PoseLandmarkerOptions(mediapipe.tasks.BaseOptions(model_asset_path=model))
            self._task: Any = vision.PoseLandmarker.create_from_options(options)
        elif hasattr(mediapipe, "solutions"):
            self._task, self._pose = None, mediapipe.solutions.pose.Pose(model_complexity=1)
        else:
            raise ConfigError("camera model: this mediapipe has no model inside; give model=PATH of a pose_landmarker .task file")

    def detect(self, image: Array) -> Array | None:
        """Returns landmarks (33, 4), world x y z [m] and visibility, None for nobody."""
        if self._task is not None:
            picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
            found = self._task.detect(picture).pose_world_landmarks
            marks = found[0] if found else None
        else:
            world = self._pose.process(image).pose_world_landmarks
            marks = world.landmark if world else None
        return None if marks is None else np.array([(m.x, m.y, m.z, m.visibility) for m in marks])

    def close(self) -> None:
        """Lets go of the model."""
        (self._task if self._task is not None else self._pose).close()


class Video:
    """Pictures of a camera or a video file, through a Detector."""

    def __init__(self, source: str, detector: Detector) -> None:
        import cv2

        self._cv2, self._detector = cv2, detector
        self._capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            self.close()
            raise HardwareError(f"camera '{source}': want a camera's number or a video file, and it does not open")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def next(self) -> Array | None:
        """Returns the landmarks of the next picture, None for nobody."""
        there, picture = self._capture.read()
        if not there:
            raise StopIteration
        return self._detector.detect(self._cv2.cvtColor(picture, self._cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        """Lets go of camera and model."""
        self._capture.release()
        self._detector.close()


class Stored:
    """Landmarks from an .npz with `landmarks` (n, 33, 4) and `times` (n,) [s], at their own pace."""

    def __init__(self, path: str, wait: Callable[[float], object]) -> None:
        try:
            with np.load(path) as held:
                self._landmarks, self._times = held["landmarks"], held["times"]
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(
                f"camera source '{path}': want an .npz with landmarks (n, 33, 4) and times (n,); {error}"
            ) from error
        if self._landmarks.shape != (len(self._times), 33, 4):
            raise ConfigError(f"camera source '{path}': want landmarks ({len(self._times)}, 33, 4), got {self._landmarks.shape}")
        self._wait, self._k = wait, 0

    def next(self) -> Array | None:
        """Returns the next landmarks once it is their time."""
        if self._k >= len(self._times):
            raise StopIteration
        if self._k:
            self._wait(max(0.0, float(self._times[self._k] - self._times[self._k - 1])))
        self._k += 1
        return np.asarray(self._landmarks[self._k - 1])

    def close(self) -> None:
        """Has nothing to let go of."""


def samples(landmarks: Array, t_ns: int) -> tuple[TeleopSample, ...]:
    """Returns a sample of each arm whose points are finite, right first, from landmarks (33, 4) taken at `t_ns` [ns]."""
    points, seen = landmarks[:, :3], landmarks[:, 3]
    below = (points[_HIP] + points[_HIP + 1]) / 2
    torso_from_world = geometry.inverse(geometry.torso_frame(points[_SHOULDER + 1], points[_SHOULDER], below))
    points = points @ torso_from_world[:3, :3].T + torso_from_world[:3, 3]
    out = []
    for later, arm in _SIDES:
        joints = [_SHOULDER + later, _ELBOW + later, _WRIST + later]
        hand = geometry.hand_frame(points[_WRIST + later], points[_INDEX + later], points[_PINKY + later])
        pose = geometry.pose(points[_WRIST + later], hand)
        if np.isfinite(points[joints]).all() and np.isfinite(pose).all():
            confidence = float(np.clip(np.nan_to_num(seen[joints]).min(), 0.0, 1.0))
            out.append(TeleopSample(t_ns, t_ns, arm, pose=pose, keypoints=points[joints], confidence=confidence))
    return tuple(out)


class Camera:
    """The driver. `running`: pictures still come."""

    kind: Kind = "keypoints"
    arms = 2
    deadman = False

    def __init__(self, open_source: Callable[[Callable[[float], object]], Source], clock: Callable[[], int]) -> None:
        self._open, self._clock = open_source, clock
        self._source: Source | None = None
        self._thread: threading.Thread | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._newest: tuple[TeleopSample, ...] = ()
        self._error: Exception | None = None
        self.running = False

    def connect(self) -> None:
        """Opens the camera and starts taking pictures; MissingDependency or HardwareError where it cannot."""
        self.close()
        self._stop.clear()
        self._source, self._error, self.running = self._open(self._stop.wait), None, True
        self._thread = threading.Thread(target=self._take, name="camera", daemon=True)
        self._thread.start()

    def read(self) -> Sequence[TeleopSample]:
        """Returns both arms of the newest picture since the last call; HardwareError where taking pictures failed."""
        with self._lock:
            newest, self._newest = self._newest, ()
            error, self._error = self._error, None
        if error is not None:
            raise HardwareError(f"camera: taking a picture failed ({type(error).__name__}: {error}); connect it again")
        return newest

    def close(self) -> None:
        """Stops taking pictures and lets go of the camera."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        if self._source is not None:
            self._source.close()
        self._thread, self._source, self._newest, self.running = None, None, (), False

    def _take(self) -> None:
        source = self._source
        while source is not None and not self._stop.is_set():
            try:
                t_ns = self._clock()  # before the detector, whose time is part of the delay
                landmarks = source.next()
            except StopIteration:
                break
            except Exception as error:  # a thread has nobody to raise to: `read` does it
                with self._lock:
                    self._error = error
                break
            if landmarks is not None:
                self.offer(landmarks, t_ns)
        self.running = False

    def offer(self, landmarks: Array, t_ns: int) -> None:
        """Takes landmarks (33, 4) as the newest."""
        new = samples(landmarks, t_ns)
        with self._lock:
            self._newest = new


def make(config: Config) -> Camera:
    """Returns the device, which opens its camera when it is connected."""

    def open_source(wait: Callable[[float], object]) -> Source:
        return Stored(config.source, wait) if config.detector == "stored" else Video(config.source, MediaPipe(config.model))

    return Camera(open_source, time.monotonic_ns)


class Feed:
    """A person before no camera: `play` shows the driver one more picture, the forearms a little further up."""

    def __init__(self) -> None:
        self.device: Camera | None = None
        self._k = 0

    def next(self) -> Array | None:
        """Has no pictures of its own: `play` gives them."""
        raise StopIteration

    def close(self) -> None:
        """Has nothing to let go of."""

    def clock(self) -> int:
        """Returns the time of the present picture [ns]."""
        return 1_000_000_000 + self._k * 33_000_000

    def play(self) -> None:
        """Shows the next picture."""
        self._k += 1
        if self.device is not None:
            self.device.offer(person(0.1 * self._k), self.clock())


def person(lift: float, visibility: float = 0.9) -> Array:
    """Returns landmarks (33, 4) of somebody facing the camera (x right, y down, z away), forearms lifted by `lift` [rad]."""
    marks = np.full((33, 4), visibility)
    marks[:, :3] = 0.0
    for later, side in ((0, 1.0), (1, -1.0)):  # somebody's left is on the camera's right
        marks[_HIP + later, :3] = (0.12 * side, 0.5, 0.0)
        marks[_SHOULDER + later, :3] = (0.2 * side, 0.0, 0.0)
        elbow = np.array([0.25 * side, 0.28, 0.0])
        along = np.array([0.0, -np.sin(lift), -np.cos(lift)])
        up = np.array([0.0, -np.cos(lift), np.sin(lift)])
        wrist = elbow + 0.25 * along
        marks[_ELBOW + later, :3], marks[_WRIST + later, :3] = elbow, wrist
        marks[_INDEX + later, :3], marks[_PINKY + later, :3] = wrist + 0.09 * along + 0.03 * up, wrist + 0.09 * along - 0.03 * up
    return marks


def fake(config: Config) -> tuple[Camera, Feed]:
    """Returns the driver on a person whom `Feed.play` shows it."""
    feed = Feed()
    feed.device = Camera(lambda wait: feed, feed.clock)
    return feed.device, feed
