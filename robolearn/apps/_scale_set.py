"""A made-up set of any size for `bench scale`: pictures that compress to half, facts as a recorder writes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet

STEPS = 200  # of an episode
_NOISE = 16  # fields of camera noise that frames draw from
_COLORS = np.array([[220, 60, 50], [60, 180, 90], [70, 90, 210]], np.uint8)
_BLOCK = 4096  # rows, on the grid of the image files, so that none is written twice


def spec(size: int) -> Spec:
    """Returns the spec: one camera, a state of 9 numbers, an action of 7."""
    image = ArraySpec((size, size, 3), "uint8")
    return Spec({"img": image, "state": ArraySpec((9,))}, ArraySpec((7,)), 20.0)


def create(path: Path, size: int) -> None:
    """Makes the set without an episode."""
    EpisodeSet.create(path, spec(size), task="", env={}, meta={"source": "made up by bench scale"})


def grow(path: Path, size: int, frames: int) -> None:
    """Adds episodes of 200 steps until the set has about `frames` rows."""
    dataset = EpisodeSet.open(path, writable=True)
    count = round((frames - dataset.n_steps) / STEPS)
    if count < 1:
        return
    first = dataset.n_episodes
    numbers = range(first, first + count)
    facts: dict[str, list[Any]] = {
        "id": list(numbers),
        "uuid": [str(uuid.UUID(int=number + 1)) for number in numbers],
        "seed": list(numbers),
        "success": [int(number % 4 != 0) for number in numbers],
        "label": ["failure" if number % 4 == 0 else "success" for number in numbers],
    }
    blocks = _on_grid(numbers, size, dataset.n_steps)
    dataset.extend(np.arange(1, count + 1) * STEPS, blocks, **facts)


def episode(number: int, size: int) -> dict[str, np.ndarray]:
    """Returns one episode by its number: a body of 9 numbers that moves smoothly, and three shapes that move with it."""
    rng = np.random.default_rng(number)
    time = np.arange(STEPS) / STEPS
    waves = rng.uniform(0.5, 3.0, 9)[None] * time[:, None] * 2 * np.pi + rng.uniform(0, 2 * np.pi, 9)
    state = np.sin(waves).astype(np.float32)
    action = (state[:, :7] + 0.05 * rng.standard_normal((STEPS, 7))).astype(np.float32)
    return {"img": _pictures(rng, state, size), "state": state, "action": action}


def _pictures(rng: np.random.Generator, state: np.ndarray, size: int) -> np.ndarray:
    ramp = np.linspace(-1, 1, size)
    ground = 128 + 40 * (np.outer(ramp, np.ones(size))[..., None] * rng.uniform(-1, 1, 3) + rng.uniform(-1, 1, 3))
    ground = ground + 12 * rng.standard_normal((size, size, 1))  # a texture that stays
    noise = rng.integers(-3, 4, (_NOISE, size, size, 3))
    seen = np.clip(ground + noise, 0, 255).astype(np.uint8)  # the ground under each field of noise
    frames = seen[rng.integers(0, _NOISE, len(state))]
    for shape in range(3):
        across = np.abs(ramp[None] - 0.7 * state[:, 2 * shape, None])  # (steps, size)
        down = np.abs(ramp[None] - 0.7 * state[:, 2 * shape + 1, None])
        for frame, row, column in zip(frames, down < 0.2, across < 0.15 + 0.1 * shape, strict=True):
            frame[np.ix_(row, column)] = _COLORS[shape]
    return frames


def _on_grid(numbers: range, size: int, before: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yields (key, row, rows) of all episodes, cut where a file of the image key begins: `before` rows are in the set already."""
    held: dict[str, list[np.ndarray]] = {}
    start = rows = 0
    for number in numbers:
        for key, values in episode(number, size).items():
            held.setdefault(key, []).append(values)
        rows += STEPS
        full = (before + start + rows) // _BLOCK * _BLOCK - before - start
        if full > 0 and rows >= full:
            yield from _cut(held, start, full)
            start, rows = start + full, rows - full
    yield from _cut(held, start, rows)


def _cut(held: dict[str, list[np.ndarray]], start: int, count: int) -> Iterator[tuple[str, int, np.ndarray]]:
    for key, parts in held.items():
        whole = np.concatenate(parts)
        yield key, start, whole[:count]
        held[key] = [whole[count:]]
