"""Hands that another program found: a .npz beside the video, its points in pixels of the video or as HaMeR's network gives them.

kpts (T, 21, 2) or (T, hand, 21, 2) [px], NaN: none; and, where known, right (T, ...) 0 or 1 (else: right),
score (T, ...), world (T, ..., 21, 3) [m]. MT-pi's names track and is_right are taken as well.
HaMeR (Pavlakos et al., arXiv 2312.05251), one row a hand: frame (n,), pred_keypoints_2d (n, 21, 2) in shares of the box,
box_center (n, 2) and box_size (n,) [px], right (n,); and, where known, pred_keypoints_3d (n, 21, 3) [m], score (n,).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robolearn.errors import BadInput, DatasetError
from robolearn.video.hands import N_LANDMARKS, Hand, Settings

Arrays = Mapping[str, np.ndarray]
_HAMER = "pred_keypoints_2d"
_NAMES = {"track": "kpts", "tracks": "kpts", "is_right": "right"}


def make(settings: Settings, video: Path | None) -> Stored:
    """Returns the detector; DatasetError where there are no stored points for this video."""
    file = locate(settings.keypoints, video)
    frames = read(file)
    kept = [sorted(hands, key=lambda hand: -hand.score)[: settings.max_hands] for hands in frames]
    return Stored(file, [[hand for hand in hands if hand.score >= settings.confidence] for hands in kept])


class Stored:
    """Hands by their frame's number."""

    def __init__(self, file: Path, frames: list[list[Hand]]) -> None:
        self._file, self._frames, self._next = file, frames, 0

    def detect(self, frame_rgb: np.ndarray, t_s: float) -> list[Hand]:
        """Returns the hands stored for the next frame."""
        del frame_rgb, t_s
        if self._next >= len(self._frames):
            raise DatasetError(
                f"{self._file}: want a row for every frame of the video, got {len(self._frames)} rows and a frame more"
            )
        self._next += 1
        return self._frames[self._next - 1]

    def reset(self) -> None:
        """Begins with the first frame again."""
        self._next = 0

    def close(self) -> None:
        """Nothing is held."""


def locate(keypoints: Path | None, video: Path | None) -> Path:
    """Returns the file of a video's points: `keypoints` itself, or in that folder (None: beside the video) VIDEO*.npz."""
    if keypoints is not None and not keypoints.is_dir():
        return keypoints
    if video is None:
        raise BadInput("stored hands: want a file of points or a video they belong to, got neither; give --keypoints FILE")
    folder = keypoints or video.parent
    exact = folder / f"{video.stem}.npz"
    found = [exact] if exact.is_file() else sorted(folder.glob(f"{video.stem}*.npz"))
    if len(found) != 1:
        raise DatasetError(f"{video}: want one {folder / video.stem}*.npz with its hands, got {len(found)}; give --keypoints")
    return found[0]


def read(file: Path) -> list[list[Hand]]:
    """Returns the hands of every frame; DatasetError where the file holds something else."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {_NAMES.get(name, name): stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{file}: want a .npz with the hands of a video, got another file ({error})") from error
    if _HAMER in arrays:
        return _from_hamer(arrays, file)
    if "kpts" not in arrays:
        raise DatasetError(
            f"{file}: want kpts (T, 21, 2), or {_HAMER} and the boxes of HaMeR, got {', '.join(arrays) or 'nothing'}"
        )
    points = _shaped(arrays, "kpts", (N_LANDMARKS, 2), file)
    if points.ndim == 3:
        arrays = {name: array[:, None] for name, array in arrays.items()}
        points = points[:, None]
    right = arrays.get("right", np.ones(points.shape[:2]))
    score = arrays.get("score", np.ones(points.shape[:2]))
    world = arrays.get("world")
    for name in ("right", "score", "world"):
        if name in arrays and arrays[name].shape[:2] != points.shape[:2]:
            raise DatasetError(f"{file}: {name}: want {points.shape[:2]} first, as kpts, got {arrays[name].shape}")
    return [
        [
            Hand(
                points[t, i].astype(float),
                None if world is None else world[t, i].astype(float),
                bool(right[t, i]),
                float(score[t, i]),
            )
            for i in range(points.shape[1])
            if np.isfinite(points[t, i]).all()
        ]
        for t in range(len(points))
    ]


def _from_hamer(arrays: Arrays, file: Path) -> list[list[Hand]]:
    """Returns the hands of every frame from one row a hand; a left hand was seen flipped and is flipped back."""
    missing = [name for name in ("frame", "box_center", "box_size", "right") if name not in arrays]
    if missing:
        raise DatasetError(f"{file}: want {missing[0]} beside {_HAMER}, it is missing (got {', '.join(arrays)})")
    shares = _shaped(arrays, _HAMER, (N_LANDMARKS, 2), file).astype(float)
    n, right = len(shares), np.asarray(arrays["right"]).astype(bool).reshape(-1)
    flip = np.where(right, 1.0, -1.0)
    points = shares * np.stack([flip, np.ones(n)], axis=-1)[:, None]
    points = points * np.asarray(arrays["box_size"], float).reshape(n, 1, 1) + arrays["box_center"][:, None]
    score = np.asarray(arrays.get("score", np.ones(n)), float).reshape(-1)
    world = arrays.get("pred_keypoints_3d")
    frames: list[list[Hand]] = [[] for _ in range(int(arrays["frame"].max(initial=-1)) + 1)]
    for i, frame in enumerate(arrays["frame"].astype(int)):
        spread = None if world is None else world[i].astype(float) * (flip[i], 1.0, 1.0)
        frames[frame].append(Hand(points[i], spread, bool(right[i]), float(score[i])))
    return frames


def _shaped(arrays: Arrays, name: str, last: tuple[int, int], file: Path) -> np.ndarray:
    array = arrays[name]
    if array.ndim not in (3, 4) or array.shape[-2:] != last or array.dtype.kind not in "fiu":
        raise DatasetError(f"{file}: {name}: want numbers (T, {last[0]}, {last[1]}), got {array.dtype}{array.shape}")
    return array
