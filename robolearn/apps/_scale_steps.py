"""One measured step of `bench scale`, run in a process of its own: `python -m robolearn.apps._scale_steps STEP SET SIZE`.

Prints one line of JSON: the seconds of what is measured, without the start of Python and its imports.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps import _scale_set, data_info
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows

_BATCH, _BATCHES = 64, 50


def opened(path: Path, size: int) -> float:
    """Returns the seconds of an open."""
    return _timed(lambda: EpisodeSet.open(path))


def append(path: Path, size: int) -> float:
    """Returns the seconds in which one more episode of 200 steps is safely on the disk, the set being open."""
    dataset = EpisodeSet.open(path, writable=True)
    number = dataset.n_episodes
    data = _scale_set.episode(number, size)
    facts = {"id": number, "uuid": f"{number:036d}", "seed": number, "success": np.int8(1), "label": "success"}
    return _timed(lambda: dataset.append(data, **facts))


def info(path: Path, size: int) -> float:
    """Returns the seconds of what `data info` does."""
    return _timed(lambda: data_info.describe(EpisodeSet.open(path)))


def windows_cold(path: Path, size: int) -> float:
    """Returns the seconds in which windows stand where no picture had been decoded before."""
    shutil.rmtree(path.with_suffix(".cache"), ignore_errors=True)
    return _timed(lambda: _windows(path))


def windows_grown(path: Path, size: int) -> float:
    """Returns the seconds of the same after an append, when older pictures lie decoded in the cache."""
    return _timed(lambda: _windows(path))


def windows(path: Path, size: int) -> float:
    """Returns the seconds of the same when all pictures lie decoded in the cache."""
    return _timed(lambda: _windows(path))


def batch(path: Path, size: int) -> float:
    """Returns the seconds of one random batch of 64 windows: the median of 50."""
    made, rng = _windows(path), np.random.default_rng(0)
    times = [_timed(lambda: made.batch(rng.integers(0, len(made), _BATCH))) for _ in range(_BATCHES)]
    return float(np.median(times))


STEPS: dict[str, Callable[[Path, int], float]] = {
    "open": opened,
    "info": info,
    "windows_cold": windows_cold,
    "windows": windows,
    "batch": batch,
    "append": append,
    "windows_grown": windows_grown,
}


def _windows(path: Path) -> Windows:
    return Windows(EpisodeSet.open(path), ("img", "state"), n_obs_steps=2, horizon=16, pad_after=7)


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    name, where, side = sys.argv[1:]
    with contextlib.redirect_stderr(io.StringIO()):
        seconds = STEPS[name](Path(where), int(side))
    print(json.dumps({"seconds": seconds}))
