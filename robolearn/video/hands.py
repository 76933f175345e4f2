"""Hands in one picture, and what finds them: 21 points a hand, whose left and right are those of the person.

The points are numbered as everywhere (0 wrist; 1-4 thumb; 5-8 index; 9-12 middle; 13-16 ring; 17-20 little finger). A detector is
one file of robolearn/video/detectors and has `make(settings, video)`; what it finds is a list of `Hand`, the surest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from robolearn import registry

DETECTORS = "robolearn.video.detectors"
N_LANDMARKS = 21
PALM = (0, 5, 9, 13, 17)  # wrist and knuckles: the part of a hand that keeps its shape
BONES = (
    *((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (5, 9), (9, 10), (10, 11), (11, 12)),
    *((9, 13), (13, 14), (14, 15), (15, 16), (13, 17), (17, 18), (18, 19), (19, 20), (0, 17)),
)


@dataclass(frozen=True)
class Hand:
    """One hand in one picture: landmarks_px (21, 2); world_m (21, 3), x right, y down, around the hand's own middle, or None.

    right: a person's right hand, seen by an ordinary camera (not a mirror); score: how sure its detector is, in [0, 1].
    """

    landmarks_px: np.ndarray
    world_m: np.ndarray | None
    right: bool
    score: float


@dataclass(frozen=True)
class Settings:
    """What a detector is told.

    max_hands: at most so many; confidence: in [0, 1], of finding a hand and of keeping it; lite: the smaller models;
    tracking: look where the hand was, False: every picture on its own; keypoints: for stored ones, their file or folder.
    """

    max_hands: int = 1
    confidence: float = 0.5
    lite: bool = False
    tracking: bool = True
    keypoints: Path | None = None


class Detector(Protocol):
    """Finds hands in the pictures of one video, in their order."""

    def detect(self, frame_rgb: np.ndarray, t_s: float) -> list[Hand]:
        """Returns the hands in a picture (height, width, 3) uint8 taken `t_s` after the first, the surest first."""

    def reset(self) -> None:
        """Forgets where the hands were: the next picture is of another video."""

    def close(self) -> None:
        """Lets go of what the detector holds."""


def make_detector(name: str, settings: Settings = Settings(), video: Path | None = None) -> Detector:
    """Returns the detector of this name; UnknownName with the nearest, MissingDependency with the line that installs it.

    video: the file its pictures come from, which stored keypoints are found by.
    """
    made: Detector = registry.load(DETECTORS, name, "hand detector").make(settings, video)
    return made
