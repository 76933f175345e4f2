"""Hand detectors on clips: how often they find a hand, how far from MediaPipe's, pictures a second: rows for `bench video`."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps import _bench, tracks_extract
from robolearn.errors import BadInput, Findings, MissingDependency
from robolearn.video import clips
from robolearn.video.hands import Settings, make_detector

STORED = "_mp01021_landmarks.npz"  # beside a clip: MediaPipe 0.10.21's landmarks of it, `kpts` (frames, 21, 2) [px]


def hands_row(clip: Path, detector: str, max_hands: int) -> dict[str, Any]:
    """Returns how often a detector finds a hand in a clip, how far it is from the stored landmarks [px], and frames a second."""
    row: dict[str, Any] = {"clip": clip.name, "detector": detector, "frames": 0, "detected": None, "error_px": None, "fps": None}
    try:
        hands = make_detector(detector, replace(Settings(), max_hands=max_hands), clip)
    except MissingDependency as missing:
        return row | {"why": str(missing)}
    frames = list(clips.pictures(clips.probe(clip)))
    began = time.perf_counter()
    try:
        found = [hands.detect(picture.rgb, picture.t_s) for picture in frames]
    finally:
        hands.close()
    took = time.perf_counter() - began
    seen = [each[0].landmarks_px if each else np.full((21, 2), np.nan) for each in found]
    error = against_stored(clip, np.stack(seen))
    counted = {"frames": len(frames), "detected": sum(bool(each) for each in found)}
    return row | counted | {"error_px": error, "fps": len(frames) / took}


def against_stored(clip: Path, landmarks_px: np.ndarray) -> float | None:
    """Returns the mean distance [px] to the stored landmarks where both found a hand, None where there are none stored."""
    path = clip.with_name(clip.stem + STORED)
    if not path.is_file():
        return None
    with np.load(path) as stored:
        kept = stored["kpts"]
    if kept.shape != landmarks_px.shape:
        raise BadInput(f"{path}: want landmarks {landmarks_px.shape} as the clip has frames, got {kept.shape}")
    apart = np.linalg.norm(kept - landmarks_px, axis=-1)
    return float(np.nanmean(apart))


def extract_row(videos: Sequence[Path], detector: str, workers: int, folder: Path) -> dict[str, Any]:
    """Returns how many pictures a second `tracks extract` looks through, from its first line to its last."""
    row: dict[str, Any] = {
        "detector": detector,
        "workers": workers,
        "videos": len(videos),
        "load_1min": _bench.machine(1)["load_1min"],
    }
    cfg = tracks_extract.Config(
        videos=tuple(videos), detector=detector, workers=workers, out=folder / f"{detector}_{workers}.zarr", image_size=(96, 96)
    )
    began = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Findings):
            tracks_extract.run(cfg)
    except MissingDependency as missing:
        return row | {"frames": 0, "wall_s": None, "frames_per_s": None, "why": str(missing)}
    took = time.perf_counter() - began
    frames = sum(clips.probe(video).frames for video in videos)
    return row | {"frames": frames, "wall_s": took, "frames_per_s": frames / took}
