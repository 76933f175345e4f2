"""Looks for what spoils training: NaN, gaps, length mismatch, frozen or black images, duplicates, saturation, time stamps."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from robolearn.data import _zarr
from robolearn.data.images import frame_blocks, image_keys
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

ERRORS = ("nan", "length", "corrupt", "lost", "empty")  # training on such a set is refused or wrong; all else is a warning
_TIME = re.compile(r"(^|_|/)(timestamps?|stamp|time|t_ns|t)$")
_BLACK = 8  # of 255
_SATURATED_RUN, _SATURATED_SHARE = 5, 0.1
_MOVES = 0.02  # share of a key's range


@dataclass
class Findings:
    """Flags "code: text" of single episodes and of the whole set."""

    episodes: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    whole: list[str] = field(default_factory=list)

    def codes(self) -> list[str]:
        """Returns the code of every flag."""
        flags = [*self.whole, *(flag for flags in self.episodes.values() for flag in flags)]
        return [flag.split(":")[0] for flag in flags]

    @property
    def n_errors(self) -> int:
        """Number of flags that make the set unfit for training."""
        return sum(code in ERRORS for code in self.codes())


def check(dataset: EpisodeSet, min_steps: int = 10) -> Findings:
    """Returns everything that is odd about a set; reads all of it, images in blocks. min_steps: shorter episodes are flagged."""
    found = Findings()
    _check_layout(dataset, found)
    vectors = _read_vectors(dataset, found)
    _check_vectors(dataset, vectors, found)
    _check_lengths(dataset, min_steps, found)
    _check_duplicates(dataset, vectors, found)
    _check_saturation(dataset, vectors, found)
    for key in vectors:
        if _TIME.search(key):
            _check_time(dataset, key, vectors[key], found)
    for key in image_keys(dataset):
        _check_images(dataset, key, vectors, found)
    return found


def _episodes(dataset: EpisodeSet) -> Iterator[tuple[int, slice]]:
    for index in range(dataset.n_episodes):
        yield index, slice(*dataset.span(index))


def _check_layout(dataset: EpisodeSet, found: Findings) -> None:
    """Flags arrays of other lengths than the episodes, lost chunks, rows of unfinished appends, images kept as floats."""
    own = "schema" in dataset.attrs
    if not dataset.n_episodes:
        found.whole.append("empty: no episode")
    if dataset.ends_left_out:
        found.whole.append(f"length: {dataset.ends_left_out} episode ends lie outside the arrays or do not rise")
    for key in dataset.keys:
        rows = dataset.array(key).shape[0]
        if rows != dataset.n_steps and not own:
            found.whole.append(f"length: {key} has {rows} rows, the episodes have {dataset.n_steps}")
        lost = _zarr.missing_chunks(dataset.path / "data" / key, dataset.array(key)) if rows == dataset.n_steps else 0
        if lost:
            kind = "lost" if own else "sparse"
            found.whole.append(f"{kind}: {key}: {lost} chunk files are missing and read as zeros")
    if own:
        found.whole.extend(f"unfinished: {note}" for note in dataset.notes if "after the last" in note)
    for key in image_keys(dataset):
        if dataset.keys[key].dtype != "uint8":
            found.whole.append(
                f"float_images: {key} holds images as {dataset.keys[key].dtype}; `robolearn data convert` makes them uint8"
            )


def _read_vectors(dataset: EpisodeSet, found: Findings) -> dict[str, np.ndarray]:
    """Returns all keys but images, (steps, n) each; a key that cannot be read is flagged and left out."""
    vectors = {}
    for key in dataset.keys:
        if key in image_keys(dataset):
            continue
        try:
            values = _zarr.read_rows(dataset.array(key), 0, dataset.n_steps, key)
        except DatasetError as error:
            found.whole.append(f"corrupt: {error}")
            continue
        if values.dtype.kind in "fiub":
            vectors[key] = values.reshape(len(values), -1)
    return vectors


def _check_vectors(dataset: EpisodeSet, vectors: dict[str, np.ndarray], found: Findings) -> None:
    """Flags NaN and infinity by episode and row, and elements that never change."""
    for key, values in vectors.items():
        bad = ~np.isfinite(values).all(1) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        for index, rows in _episodes(dataset):
            count = int(bad[rows].sum())
            if count:
                found.episodes[index].append(f"nan: {key} row {int(np.argmax(bad[rows]))}, {count} rows in all")
        good = values[~bad]
        still = np.flatnonzero(np.ptp(good, axis=0) == 0) if len(good) > 1 and good.shape[1] else np.zeros(0, int)
        if len(still):
            which = "" if len(still) == values.shape[1] else str(still.tolist())
            found.whole.append(f"constant: {key}{which} never changes")


def _check_lengths(dataset: EpisodeSet, min_steps: int, found: Findings) -> None:
    lengths = np.diff(dataset.episode_ends, prepend=0)
    typical = float(np.median(lengths)) if len(lengths) else 0.0
    for index, steps in enumerate(lengths):
        if steps < max(min_steps, 0.1 * typical):
            found.episodes[index].append(f"short: {steps} steps (median {typical:g})")


def _check_duplicates(dataset: EpisodeSet, vectors: dict[str, np.ndarray], found: Findings) -> None:
    """Flags episodes whose vectors, time stamps left out, equal those of an earlier one bit for bit."""
    keys = [key for key in sorted(vectors) if not _TIME.search(key)]
    seen: dict[bytes, int] = {}
    for index, rows in _episodes(dataset) if keys else ():
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(vectors[key][rows]).tobytes() for key in keys)).digest()
        if digest in seen:
            found.episodes[index].append(f"duplicate: the same as episode {seen[digest]}")
        seen.setdefault(digest, index)


def _check_saturation(dataset: EpisodeSet, vectors: dict[str, np.ndarray], found: Findings) -> None:
    """Flags episodes whose action stays at the set's own extreme for long; switches (up to 3 values) are no saturation."""
    actions = vectors.get("action", np.zeros((0, 0)))
    for column in range(actions.shape[1] if len(actions) else 0):
        values = actions[:, column]
        finite = values[np.isfinite(values)]
        if not len(finite) or len(np.unique(finite)) <= 3:
            continue
        low, high = finite.min(), finite.max()
        for side, at in (("minimum", values <= low + 1e-6 * (high - low)), ("maximum", values >= high - 1e-6 * (high - low))):
            for index, rows in _episodes(dataset):
                held = sum(stop - start for start, stop in runs(at[rows]) if stop - start >= _SATURATED_RUN)
                share = held / max(1, rows.stop - rows.start)
                if share > _SATURATED_SHARE:
                    limit = low if side == "minimum" else high
                    found.episodes[index].append(
                        f"saturated: action[{column}] at its {side} {limit:.4g} in {share:.0%} of the steps"
                    )


def _check_time(dataset: EpisodeSet, key: str, stamps: np.ndarray, found: Findings) -> None:
    """Flags time that stands, runs backwards or jumps, and a rate other than the set's."""
    unit = 1e-9 if stamps.dtype.kind in "iu" else 1.0
    for index, rows in _episodes(dataset):
        steps = np.diff(stamps[rows, 0].astype(np.float64)) * unit
        if not len(steps) or not np.isfinite(steps).all():
            continue
        period = float(np.median(steps))
        if (steps <= 0).any():
            found.episodes[index].append(f"backwards: {key} does not rise at row {int(np.argmax(steps <= 0)) + 1}")
        late = steps > 2.5 * period
        if period > 0 and late.any():
            row = int(np.argmax(late)) + 1
            found.episodes[index].append(f"gap: {key} jumps by {steps.max():.3g} s (period {period:.3g} s), first at row {row}")
        if dataset.hz and period > 0 and abs(1 / period - dataset.hz) > 0.05 * dataset.hz:
            found.episodes[index].append(f"rate: {key} runs at {1 / period:.3g} Hz, the set says {dataset.hz:g} Hz")


def _check_images(dataset: EpisodeSet, key: str, vectors: dict[str, np.ndarray], found: Findings) -> None:
    """Flags black frames, and frames that stay the same while the body moves."""
    black, same = np.zeros(dataset.n_steps, bool), np.zeros(dataset.n_steps, bool)
    previous: np.ndarray | None = None
    try:
        with tqdm(total=dataset.n_steps, desc=f"check {key}", unit="img", leave=False, disable=not sys.stderr.isatty()) as bar:
            for start, block in frame_blocks(dataset, key):
                flat = block.reshape(len(block), -1)
                black[start : start + len(block)] = flat.max(1) < _BLACK
                same[start + 1 : start + len(block)] = (flat[1:] == flat[:-1]).all(1)
                same[start] = previous is not None and bool((flat[0] == previous).all())
                previous = flat[-1]
                bar.update(len(block))
    except DatasetError as error:
        found.whole.append(f"corrupt: {str(error).removeprefix(f'{dataset.path}: ')}")
        return
    least = max(5, round(dataset.hz or 10))
    for index, rows in _episodes(dataset):
        dark = int(black[rows].sum())
        if dark:
            found.episodes[index].append(f"black: {key}, {dark} frames, first at row {int(np.argmax(black[rows]))}")
        within = same[rows].copy()
        within[0] = False
        for start, stop in runs(within):
            if stop - start >= least and _moved(vectors, rows.start + start - 1, rows.start + stop - 1):
                found.episodes[index].append(
                    f"frozen: {key}, rows {start - 1} to {stop - 1} are one picture while the body moves"
                )


def _moved(vectors: dict[str, np.ndarray], first: int, last: int) -> bool:
    """Returns whether any observation (the action, where there is none) changed between two rows by a share of its range."""
    watched = [v for k, v in vectors.items() if k != "action" and not _TIME.search(k) and v.dtype.kind == "f"]
    for values in watched or [v for k, v in vectors.items() if k == "action"]:
        span = np.ptp(values, axis=0)
        change = np.ptp(values[first : last + 1], axis=0)
        if (change[span > 0] > _MOVES * span[span > 0]).any():
            return True
    return False


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Returns (start, stop) of every run of True in a 1-D array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
