"""Pictures: black ones, one picture for long while the body moves, frames that repeat the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from robolearn.core import Flag
from robolearn.data._check_card import Card, Limits
from robolearn.data._check_signal import runs
from robolearn.data._check_survey import Context
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_BLOCK_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Frames:
    """Of some frames in a row: mean of each (0..255, NaN where it cannot be read), and whether it equals the one before."""

    mean: np.ndarray
    same: np.ndarray


def frames_of(dataset: EpisodeSet, key: str, start: int, stop: int, scale: float) -> tuple[Frames, list[str]]:
    """Returns what is kept of the frames of rows [start, stop), read once in blocks of whole chunks, and what cannot be read."""
    mean, same = np.full(stop - start, np.nan, np.float32), np.zeros(stop - start, bool)
    problems: list[str] = []
    previous: np.ndarray | None = None
    for first, last in _blocks(dataset, key, start, stop):
        try:
            block = dataset.read(key, first, last).reshape(last - first, -1)
        except DatasetError as error:
            problems.append(f"corrupt: {str(error).removeprefix(f'{dataset.path}: ')}")
            previous = None
            continue
        at = slice(first - start, last - start)
        mean[at] = _means(block) * scale
        if block.dtype != np.uint8:
            low, high = float(block.min()) * scale, float(block.max()) * scale
            if not (low >= -0.5 and high < 255.5):
                problems.append(
                    f"corrupt: {key}: rows {first} to {last - 1}: want images of 0..255 (or 0..1), got {low:g}..{high:g}"
                )
        same[at][1:] = _equal(block[1:], block[:-1])
        same[first - start] = previous is not None and bool(np.array_equal(block[0], previous))
        previous = block[-1].copy()
    return Frames(mean, same), problems


def _blocks(dataset: EpisodeSet, key: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yields (first, last) of blocks of some tens of MB that end where a file of the array ends."""
    array = dataset.array(key)
    unit = array.shards[0] if array.shards else array.chunks[0]
    row_bytes = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    unit *= max(1, _BLOCK_BYTES // (row_bytes * unit))
    while start < stop:
        end = min(stop, start - start % unit + unit)
        yield start, end
        start = end


def _means(block: np.ndarray) -> np.ndarray:
    """Returns the mean of every row of (frames, pixels)."""
    if block.dtype == np.uint8:
        return cv2.reduce(block, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / block.shape[1]
    return block.mean(1, dtype=np.float64)


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns for every row of (frames, pixels) whether both are equal; most differ in their first bytes."""
    some = slice(0, None, max(1, a.shape[1] // 64))
    equal = (a[:, some] == b[:, some]).all(1)
    for row in np.flatnonzero(equal):
        equal[row] = np.array_equal(a[row], b[row])
    return equal


def check_images(
    frames: Mapping[str, Frames], rows: Mapping[str, np.ndarray], body: np.ndarray, context: Context, card: Card
) -> None:
    """Adds the faults of the pictures of one episode; body: (steps, n) in shares of each number's range."""
    bits = rows["flags"][:, 0].astype(np.int64) if "flags" in rows else np.zeros(card.steps, np.int64)
    marked = (bits & Flag.FRAME_REPEATED) > 0
    worst = 0.0
    for key, found in frames.items():
        dark = found.mean < context.limits.black_mean
        if dark.any():
            first, last = int(np.argmax(dark)), len(dark) - 1 - int(np.argmax(dark[::-1]))
            card.add("black", f"{key}, {int(dark.sum())} frames, first at row {first}", key, (first, last))
        same = found.same.copy()
        same[0] = False
        stuck = _stuck(same, body, context.limits)
        frozen = np.zeros(card.steps, bool)
        for start, stop in stuck:
            card.add(
                "frozen",
                f"{key}, rows {start - 1} to {stop - 1} are one picture while the body moves",
                key,
                (start - 1, stop - 1),
            )
            frozen[start - 1 : stop] = True
        repeated = (same & _moves(body, context.limits.moves_share)) | _standing(rows, key)
        if len(frames) == 1 or not _standing(rows, key).any():
            repeated |= marked
        share = float((repeated & ~frozen & ~dark).mean())
        worst = max(worst, share)
        if share > context.limits.repeated_share:
            places = np.flatnonzero(repeated & ~frozen & ~dark)
            card.add("repeated", f"{key}, {share:.1%} of the frames repeat the one before", key, (places[0], places[-1]))
    if frames:
        card.numbers["repeated_share"] = worst


def _stuck(same: np.ndarray, body: np.ndarray, limits: Limits) -> list[tuple[int, int]]:
    """Returns the stretches of equal frames that are too long and in which the body moves."""
    return [
        (start, stop)
        for start, stop in runs(same)
        if stop - start >= limits.frozen_frames
        and body.shape[1]
        and np.ptp(body[start - 1 : stop], axis=0).max(initial=0.0) > limits.moves_share
    ]


def _moves(body: np.ndarray, share: float) -> np.ndarray:
    """Returns for every row whether the body moved by more than `share` of a range since the row before."""
    moved = np.zeros(len(body), bool)
    if body.shape[1]:
        moved[1:] = np.abs(np.diff(body, axis=0)).max(1) > share
    return moved


def _standing(rows: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """Returns for every row whether the camera's own clock stood since the row before."""
    stamps = rows.get(f"t_dev_{key}")
    if stamps is None:
        return np.zeros(len(next(iter(rows.values()))), bool)
    return np.concatenate([[False], np.diff(stamps[:, 0].astype(np.int64)) == 0])
