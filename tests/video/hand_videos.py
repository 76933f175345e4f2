"""Videos of a hand whose every point is known: blank pictures before two cameras, and beside each video the hand's landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from robolearn import cli
from robolearn.core import Camera
from robolearn.video import _wrist_table, pinhole
from robolearn.video.calibration import formats

VIEWS = ("left", "right")
FPS = 30.0


@dataclass(frozen=True)
class Filmed:
    """An episode on disk: its videos by view, the points (T, 21, 3) [m] and openings (T,) that were filmed, and the cameras."""

    videos: Mapping[str, Path]
    points: np.ndarray
    opening: np.ndarray
    cameras: Mapping[str, Camera]


def cameras(size: tuple[int, int] = (320, 240)) -> dict[str, Camera]:
    """Returns the two cameras of the wrist table with smaller pictures."""
    return {view: pinhole.resized(camera, size) for view, camera in zip(VIEWS, _wrist_table.cameras(), strict=True)}


def film(folder: Path, name: str, seed: int = 0, late: int = 0, unseen: Mapping[str, slice] | None = None) -> Filmed:
    """Returns an episode NAME_left.mp4 and NAME_right.mp4 of 4.5 s with their landmarks.

    late: pictures by which the right camera began to film before the left one; unseen: pictures without a hand, by view.
    """
    poses, opening = _wrist_table.motion(FPS, np.random.default_rng(seed))
    points = _wrist_table.hand(poses, opening)
    made, eyes = {}, cameras()
    for view, camera in eyes.items():
        shown = points if view == "left" else points[np.maximum(np.arange(len(points)) - late, 0)]
        pixels = pinhole.project(camera, shown)
        if unseen and view in unseen:
            pixels[unseen[view]] = np.nan
        made[view] = folder / f"{name}_{view}.mp4"
        write_video(made[view], len(points), camera.size)
        np.savez(made[view].with_suffix(".npz"), kpts=pixels, right=np.ones(len(points)))
    return Filmed(made, points, opening, eyes)


def write_video(path: Path, frames: int, size: tuple[int, int], fps: float = FPS) -> None:
    """Writes so many pictures that brighten from one to the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 40 + i % 200, np.uint8))
    writer.release()


def calibration(path: Path, size: tuple[int, int] = (320, 240)) -> Path:
    """Returns the file of the two cameras, which is written once, so that its hash stays."""
    if not path.exists():
        formats.save_cameras(path, cameras(size), world="table")
    return path


def extract(folder: Path, *flags: str, calib: bool = True, out: str = "set.zarr") -> int:
    """Runs `tracks extract` on the videos of a folder with their stored landmarks and returns its exit code."""
    views = ["--view", f"left={folder}/*_left.mp4", f"right={folder}/*_right.mp4", "--detector", "stored"]
    if calib:
        views += ["--calib", str(calibration(folder / "cameras.json"))]
    return cli.main(["tracks", "extract", *views, "--out", str(folder / out), *flags])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the last line on standard error."""
    return capsys.readouterr().err.strip().splitlines()[-1]
