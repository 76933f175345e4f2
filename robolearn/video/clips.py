"""Videos as pictures with their times: what a file is, its pictures one by one, and one picture a tick of a slower clock."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from robolearn.errors import DatasetError

Array = np.ndarray
SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Clip:
    """A video file: size (width, height) [px], pictures a second, and how many its header promises."""

    path: Path
    size: tuple[int, int]
    fps: float
    frames: int


class Picture(NamedTuple):
    """One picture, uint8 RGB (height, width, 3), and when it was taken [s] after the first."""

    t_s: float
    rgb: Array


def probe(path: Path) -> Clip:
    """Returns what a video is, by its header and its first picture; DatasetError where it is none."""
    if not path.is_file():
        raise DatasetError(f"{path}: want a video, there is no such file")
    video = cv2.VideoCapture(str(path))
    try:
        readable, first = video.read() if video.isOpened() else (False, None)
        if not readable or first is None:
            raise DatasetError(f"{path}: want a video with at least one picture, got a file that OpenCV cannot read")
        fps, count = video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        video.release()
    if not 0 < fps <= 1000:
        raise DatasetError(f"{path}: want 1 to 1000 pictures a second, the file says {fps:g}; re-encode it with ffmpeg -r RATE")
    return Clip(path, (first.shape[1], first.shape[0]), float(fps), max(count, 1))


def pictures(clip: Clip) -> Iterator[Picture]:
    """Yields all pictures; their times are the file's own where these rise, else by the rate."""
    video = cv2.VideoCapture(str(clip.path))
    first, last = 0.0, -1.0
    try:
        index = 0
        while True:
            readable, bgr = video.read()
            if not readable:
                return
            stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            first = stamp if index == 0 else first
            t = stamp - first
            t = t if t > last else last + 1 / clip.fps
            yield Picture(t, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            index, last = index + 1, t
    finally:
        video.release()


def masks(path: Path, clip: Clip, frames: int) -> Iterator[Array]:
    """Yields the object's mask (height, width) bool of every picture of a clip, from a video (white: object) or a .npy/.npz.

    DatasetError unless there are `frames` of them, as large as the pictures.
    """
    if path.suffix in (".npy", ".npz"):
        source = iter(_stored(path))
    else:
        source = (picture.rgb.max(axis=-1) > 127 for picture in pictures(probe(path)))
    count = 0
    for mask in source:
        count += 1
        if mask.shape != (clip.size[1], clip.size[0]):
            want, came = f"{clip.size[0]} x {clip.size[1]}", f"{mask.shape[1]} x {mask.shape[0]}"
            raise DatasetError(f"{path}: want masks of {want}, as {clip.path}, got {came}")
        yield mask != 0
    if count != frames:
        raise DatasetError(f"{path}: want a mask for each of the {frames} pictures of {clip.path}, got {count}")


def _stored(path: Path) -> Array:
    """Returns masks (T, height, width) of a .npy, or of the only array in a .npz."""
    try:
        stored = np.load(path, allow_pickle=False)
        array = stored if path.suffix == ".npy" else stored[stored.files[0]]
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: want masks (T, height, width), got another file ({error})") from error
    if array.ndim != 3:
        raise DatasetError(f"{path}: want masks (T, height, width), got an array of shape {array.shape}")
    return np.asarray(array)


class Ticks:
    """Keeps, of pictures that come one by one, the one nearest to every tick of a clock at `hz`, scaled to `size`."""

    def __init__(self, hz: float, size: tuple[int, int]) -> None:
        self._hz, self._size = hz, size
        self._kept: dict[int, tuple[float, int, Array]] = {}
        self._last_s = 0.0

    def offer(self, index: int, picture: Picture) -> None:
        """Looks at picture number `index`."""
        self._last_s = picture.t_s
        tick = round(picture.t_s * self._hz)
        away = abs(picture.t_s - tick / self._hz)
        if tick not in self._kept or away < self._kept[tick][0]:
            self._kept[tick] = (away, index, scaled(picture.rgb, self._size))

    def rows(self) -> tuple[Array, Array]:
        """Returns (tick,) the numbers of the kept pictures and the pictures (tick, height, width, 3), of ticks 0, 1, ...

        A tick without a picture of its own (a video slower than the clock, or one that stood still) repeats the one before.
        """
        ticks = range(int(self._last_s * self._hz + 1e-6) + 1 if self._kept else 0)
        last, numbers, shown = next(iter(self._kept.values()), None), [], []
        for tick in ticks:
            last = self._kept.get(tick, last)
            assert last is not None
            numbers.append(last[1])
            shown.append(last[2])
        return np.array(numbers, int), np.array(shown, np.uint8).reshape(-1, self._size[1], self._size[0], 3)


def scaled(picture: Array, size: tuple[int, int]) -> Array:
    """Returns a picture at `size` (width, height)."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    smaller = size[0] < picture.shape[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def at_most(size: tuple[int, int], width: int) -> tuple[int, int]:
    """Returns `size` (width, height) scaled down to at most `width`, its shape kept, both sides even."""
    scale = min(1.0, width / size[0])
    return (max(2, round(size[0] * scale / 2) * 2), max(2, round(size[1] * scale / 2) * 2)) if scale < 1 else size
