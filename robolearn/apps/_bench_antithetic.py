"""Draws in pairs, noise and its negative, beside independent ones: what scores make of as many, on a flow that is known exactly.

The flow is the rectified one of a mixture of Gaussians over the coefficients of smooth paths, integrated in ten Euler steps as
a policy does. Of every score there is a plan like those that it was calibrated on and one that is not: a wider spread for scores
of one plan, a next plan that lies beside the first for those of two. How well they are told apart is what draws are good for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from robolearn.monitors.ace import chunk_entropy
from robolearn.monitors.stac import mmd2

HORIZON, STEPS = 16, 10
TIMES = np.linspace(0, 1, HORIZON)
BASIS = np.stack([TIMES, TIMES**2, np.sin(np.pi * TIMES)], axis=1)  # (horizon, 3), of the path of x and that of y
DRAWS = (4, 8, 16, 32)
CELL = 0.03  # of ace, as a share of the range of usual plans
WIDER = 1.5  # the spread of a plan that is not like the others, over theirs
BESIDE = 0.5  # how far the next plan lies beside, in spreads
LEAST = 0.5  # sds between usual and strange plans below which nothing is said of worth: it would be luck


@dataclass(frozen=True)
class Ways:
    """What a policy may do: goals (ways,) in y at the end of the path, shares (ways,) of the draws, spread of a coefficient."""

    goals: tuple[float, ...]
    shares: tuple[float, ...]
    spread: float

    @property
    def means(self) -> np.ndarray:
        """Coefficients (ways, 6) of each way."""
        return np.array([[1.0, 0, 0, 0, 0, goal] for goal in self.goals])


CASES = {
    "one way": Ways((0.0,), (1.0,), 0.3),
    "two ways": Ways((1.5, -1.5), (0.5, 0.5), 0.15),
    "two ways, 3:1": Ways((1.5, -1.5), (0.75, 0.25), 0.15),
    "three ways": Ways((1.5, 0.0, -1.5), (1 / 3, 1 / 3, 1 / 3), 0.15),
}


def noise(rng: np.random.Generator, repeats: int, draws: int, pairs: bool) -> np.ndarray:
    """Returns standard normal numbers (repeats, draws, 6); in pairs every second draw is the negative of the one before."""
    drawn = rng.standard_normal((repeats, draws // 2 if pairs else draws, 6))
    return np.stack([drawn, -drawn], axis=2).reshape(repeats, draws, 6) if pairs else drawn


def flow(x: np.ndarray, ways: Ways) -> np.ndarray:
    """Returns where noise (..., 6) flows to: coefficients (..., 6), by the exact velocity (E[end | x] - x) / (1 - t)."""
    for i in range(STEPS):
        t = i / STEPS
        variance = (1 - t) ** 2 + (t * ways.spread) ** 2
        apart = x[..., None, :] - t * ways.means
        weight = np.log(ways.shares) - (apart**2).sum(-1) / (2 * variance)
        weight = np.exp(weight - weight.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        ends = ways.means + t * ways.spread**2 / variance * apart
        x = x + ((weight[..., None] * ends).sum(-2) - x) / (1 - t) / STEPS
    return x


def paths(coefficients: np.ndarray) -> np.ndarray:
    """Returns paths (..., horizon, 2) of coefficients (..., 6)."""
    return np.einsum("hk,...ka->...ha", BASIS, coefficients.reshape(*coefficients.shape[:-1], 3, 2))


def variance(draws: np.ndarray) -> float:
    """Returns the total variance of draws (draws, horizon, 2), averaged over the path."""
    return float(draws.var(axis=0, ddof=1).sum(-1).mean())


def told(ways: Ways, draws: int, pairs: bool, repeats: int, seed: int, strange: bool) -> dict[str, np.ndarray]:
    """Returns every score (repeats,) of plans of so many draws; strange: plans that are not like those of a calibration."""
    rng = np.random.default_rng([seed, draws, pairs, strange])
    first, second, wide = (noise(rng, repeats, draws, pairs) for _ in range(3))
    one, two = paths(flow(first, ways)), paths(flow(second, ways) + BESIDE * ways.spread * strange)
    alone = paths(flow(wide, replace(ways, spread=ways.spread * WIDER))) if strange else one
    cell = CELL * np.ptp(paths(flow(noise(np.random.default_rng(seed), 1, 500, False), ways)), axis=(0, 1, 2))
    return {
        "ace": np.array([chunk_entropy(some, cell) for some in alone]),
        "variance": np.array([variance(some) for some in alone]),
        "stac": np.array([mmd2(a.reshape(draws, -1), b.reshape(draws, -1)) for a, b in zip(one, two, strict=True)]),
    }


def measured(ways: Ways, draws: int, pairs: bool, repeats: int, seed: int) -> dict[str, dict[str, float]]:
    """Returns of every score mean and sd over repeats of usual plans, and how many sds lie between usual and strange ones."""
    usual, strange = (told(ways, draws, pairs, repeats, seed, some) for some in (False, True))

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float((b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2))

    return {
        name: {"mean": float(a.mean()), "sd": float(a.std()), "between": between(a, strange[name])} for name, a in usual.items()
    }


def worth(value: float, alone: Mapping[int, float]) -> float | None:
    """Returns how many independent draws come to `value`, between those tried (draws to value); None outside of them.

    None too where `value` is so small that nothing can be said.
    """
    counts = sorted(alone) if value >= LEAST else []
    for few, many in pairwise(counts):
        low, high = alone[few], alone[many]
        if low <= value <= high:
            share = (value - low) / (high - low) if high > low else 0.0
            return float(few * (many / few) ** share)
    return None


def rows(repeats: int, seed: int = 0, counts: Sequence[int] = DRAWS) -> list[dict[str, Any]]:
    """Returns a row for every case, score and number of draws: independent draws beside as many in pairs.

    worth: so many independent draws tell usual from strange plans as well as these in pairs; None where it is fewer or more
    than were tried, or where they hardly are.
    """
    found = []
    for case, ways in CASES.items():
        alone = {n: measured(ways, n, False, repeats, seed) for n in (min(counts) // 2, *counts, 2 * max(counts))}
        for n in counts:
            paired = measured(ways, n, True, repeats, seed)
            for score, told_by in paired.items():
                so_far = {m: some[score]["between"] for m, some in alone.items()}
                row = {"independent": alone[n][score], "pairs": told_by, "worth": worth(told_by["between"], so_far)}
                found.append({"case": case, "score": score, "draws": n, **row})
    return found


def text(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table for the terminal."""
    lines = []
    for row in table:
        a, b = row["independent"], row["pairs"]
        as_good = "-" if row["worth"] is None else f"{row['worth']:.0f}"
        lines.append(
            f"{row['case']:<14} {row['score']:<9} B={row['draws']:<3} sd {a['sd']:.4f}, in pairs {b['sd']:.4f}   "
            f"told apart by {a['between']:.2f} sd, {b['between']:.2f}: as {as_good} independent draws"
        )
    return "\n".join(lines)
