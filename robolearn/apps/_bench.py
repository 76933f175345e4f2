"""What the benches share: interleaved repeats, the reference loop, and how busy the machine was."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

Name = TypeVar("Name", bound=Hashable)

_REFERENCE = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)


def interleaved(
    variants: Mapping[Name, Callable[[], Any]], repeats: int, sync: Callable[[], object] = lambda: None, warm: int = 1
) -> dict[Name, list[float]]:
    """Returns `repeats` times [s] of each variant, one after the other in turn; `warm` rounds before are not counted."""
    times: dict[Name, list[float]] = {name: [] for name in variants}
    for i in tqdm(range(-warm, repeats), desc="timing " + ", ".join(map(str, variants)), leave=False, disable=None):
        for name, run in variants.items():
            begin = time.perf_counter()
            run()
            sync()
            if i >= 0:
                times[name].append(time.perf_counter() - begin)
    return times


def reference_per_s(repeats: int = 5) -> float:
    """Returns the median rate [1/s] of a fixed numpy loop (20 times tanh of 256x256, and its product with itself)."""
    return 1 / statistics.median(interleaved({"reference": _reference}, repeats)["reference"])


def machine(threads: int) -> dict[str, Any]:
    """Returns what a timing depends on: cores, threads used, and the load of the last minute before it."""
    return {"cores": os.cpu_count(), "threads": threads, "load_1min": round(os.getloadavg()[0], 2)}


def _reference() -> None:
    x = _REFERENCE
    for _ in range(20):
        x = np.tanh(x @ _REFERENCE / 16)
