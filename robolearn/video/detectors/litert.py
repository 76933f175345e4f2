"""The two networks of MediaPipe 0.10.21 run by LiteRT: no MediaPipe, no change of numpy or OpenCV; anchors and squares are ours.

A picture without a known hand goes through the palm network, each palm gives a square, and the landmark network finds 21 points
in it; in the next picture the square comes from those points, and the palm network runs only while hands are still missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robolearn.errors import MissingDependency
from robolearn.video.detectors import _models, _palm, _roi
from robolearn.video.hands import N_LANDMARKS, Hand, Settings


def make(settings: Settings, video: Path | None) -> LiteRT:
    """Returns the detector; MissingDependency where LiteRT or the networks are not there."""
    del video
    return LiteRT(settings)


class LiteRT:
    """Hands by two networks, on one thread."""

    def __init__(self, settings: Settings) -> None:
        files = _models.find("lite" if settings.lite else "full")
        self._palm, self._hand = _Network(files.palm), _Network(files.hand)
        self._settings = settings
        self._rois: list[_roi.Roi] = []

    def detect(self, frame_rgb: np.ndarray, t_s: float) -> list[Hand]:
        """Returns the hands in a picture (height, width, 3) uint8, the surest first."""
        del t_s
        new = self._from_palms(frame_rgb) if len(self._rois) < self._settings.max_hands else []
        rois = _roi.one_each(new + self._rois)[-self._settings.max_hands :]
        seen = [self._look(frame_rgb, roi) for roi in rois]
        hands = [hand for hand in seen if hand.score >= self._settings.confidence]
        self._rois = [_roi.of_hand(hand.landmarks_px) for hand in hands] if self._settings.tracking else []
        return sorted(hands, key=lambda hand: -hand.score)

    def reset(self) -> None:
        """Forgets where the hands were."""
        self._rois = []

    def close(self) -> None:
        """Nothing is held."""

    def _from_palms(self, picture: np.ndarray) -> list[_roi.Roi]:
        """Returns the squares of at most `max_hands` palms."""
        square = _roi.whole((picture.shape[1], picture.shape[0]))
        values, logits = self._palm(_roi.cut(picture, square, _palm.SIDE, cv2.BORDER_CONSTANT))
        found, _ = _palm.palms(values[0], logits[0, :, 0], self._settings.confidence)
        return [_roi.of_palm(palm, square) for palm in found[: self._settings.max_hands]]

    def _look(self, picture: np.ndarray, roi: _roi.Roi) -> Hand:
        """Returns what the landmark network sees in a square; its score says whether that is a hand."""
        screen, presence, left, world = self._hand(_roi.cut(picture, roi, _roi.SIDE, cv2.BORDER_REPLICATE))
        points = screen.reshape(N_LANDMARKS, 3)[:, :2].astype(np.float64) / _roi.SIDE
        # The network takes the picture for a mirror: what it calls left is a right hand for an ordinary camera.
        return Hand(
            landmarks_px=_roi.placed(points, roi),
            world_m=_roi.turned(world.reshape(N_LANDMARKS, 3).astype(np.float64), roi),
            right=bool(left[0, 0] > 0.5),
            score=float(presence[0, 0]),
        )


class _Network:
    """One network, picture in and arrays out."""

    def __init__(self, file: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as error:
            raise MissingDependency("ai-edge-litert", "the hand detector litert", "make video") from error
        with _quiet():
            self._runner: Any = Interpreter(str(file), num_threads=1)
            self._runner.allocate_tensors()
        self._input = self._runner.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._runner.get_output_details()]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs for a picture (side, side, 3) float32 in [0, 1]."""
        self._runner.set_tensor(self._input, picture[None])
        self._runner.invoke()
        return [self._runner.get_tensor(index) for index in self._outputs]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what LiteRT's library says about itself, past Python, from standard error."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
