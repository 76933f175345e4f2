"""MediaPipe 0.10.21 itself, the reference: it runs in a Python of its own, since it wants another protobuf than the rest.

That Python is $ROBOLEARN_MEDIAPIPE, else robolearn/mediapipe in the user's cache, which `make video HANDS=mediapipe` makes.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import BadInput, MissingDependency
from robolearn.video.detectors import _models
from robolearn.video.hands import Hand, Settings

PYTHON = "ROBOLEARN_MEDIAPIPE"
_PATIENCE_S = 10.0  # that MediaPipe has to end by itself
_CHILD = Path(__file__).with_name("_mediapipe_child.py")


def python() -> Path:
    """Returns the Python that MediaPipe is installed in, whether or not it is there."""
    chosen = os.environ.get(PYTHON)
    return Path(chosen) if chosen else _models.cache() / "mediapipe" / "bin" / "python"


def make(settings: Settings, video: Path | None) -> MediaPipe:
    """Returns the detector; MissingDependency where MediaPipe is not there."""
    del video
    return MediaPipe(settings)


class MediaPipe:
    """Hands by MediaPipe's own graph."""

    def __init__(self, settings: Settings) -> None:
        if not python().is_file():
            raise MissingDependency(f"mediapipe ({python()})", "the hand detector mediapipe", "make video HANDS=mediapipe")
        self._settings = settings
        self._child = self._start()

    def detect(self, frame_rgb: np.ndarray, t_s: float) -> list[Hand]:
        """Returns the hands in a picture (height, width, 3) uint8, the surest first."""
        del t_s
        height, width = frame_rgb.shape[:2]
        self._send(struct.pack("<II", height, width) + np.ascontiguousarray(frame_rgb).tobytes())
        hands = [_hand(values, (width, height)) for values in self._answer()]
        return sorted(hands, key=lambda hand: -hand.score)

    def reset(self) -> None:
        """Forgets where the hands were."""
        self._send(struct.pack("<II", 0, 0))
        self._answer()

    def close(self) -> None:
        """Ends MediaPipe's process."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        told = {
            "max_num_hands": self._settings.max_hands,
            "min_detection_confidence": self._settings.confidence,
            "min_tracking_confidence": self._settings.confidence,
            "model_complexity": 0 if self._settings.lite else 1,
            "static_image_mode": not self._settings.tracking,
        }
        command = [str(python()), "-I", str(_CHILD), json.dumps(told)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _send(self, message: bytes) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(message)
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _answer(self) -> list[dict[str, Any]]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise self._ended()
        answer: list[dict[str, Any]] = json.loads(line)
        return answer

    def _ended(self) -> BadInput:
        return BadInput(f"{python()}: MediaPipe ended with exit code {self._child.wait()}; make video HANDS=mediapipe mends it")


def _hand(values: dict[str, Any], size: tuple[int, int]) -> Hand:
    """Returns a hand from MediaPipe's answer; size: (width, height) [px]."""
    # MediaPipe takes the picture for a mirror (google-ai-edge/mediapipe issues 3256 and 4803): its left is a right hand.
    return Hand(
        landmarks_px=np.array(values["screen"]) * size,
        world_m=np.array(values["world"]),
        right=values["label"] == "Left",
        score=values["score"],
    )
