"""Small failure scores with a network, and episodes to fit them to, for the tests of what they promise and what each computes."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
import pytest

from robolearn.monitors import logpzo, rnd, rnd_actions, safe_lstm, safe_mlp
from robolearn.monitors._base import Episode, Layout, Plans, Score

WIDTH, HORIZON, ACTION, LENGTH = 6, 8, 3, 12
LAYOUT = Layout(("x", "y", "z"), HORIZON, execute=4)
FEW = dict(epochs=30, batch=64, learning_rate=1e-3)
SMALL = {
    rnd: dict(hidden=(16, 16), extra=(16,), out=8, **FEW),
    rnd_actions: dict(channels=(8, 8, 8), pooled=2, extra=(16,), out=8, **FEW),
    logpzo: dict(widths=(32, 16), time=8, **FEW),
    safe_mlp: dict(hidden=(16,), **FEW),
    safe_lstm: dict(hidden=16, **FEW),
}
ALL = list(SMALL)
UNSUPERVISED = [rnd, rnd_actions, logpzo]
SUPERVISED = [safe_mlp, safe_lstm]
OF_EMBEDDINGS = [rnd, logpzo, *SUPERVISED]
each = functools.partial(pytest.mark.parametrize, ids=lambda module: module.__name__.rpartition(".")[2])


def plans(rng: np.random.Generator, shift: float = 0.0, length: int = LENGTH, draws: int = 2) -> Plans:
    """Returns plans whose embeddings and chunks are N(shift, I)."""
    features = rng.normal(shift, 1, (length, WIDTH)).astype(np.float32)
    samples = rng.normal(shift, 1, (length, draws, HORIZON, ACTION)).astype(np.float32)
    return Plans(4 * np.arange(length), features, samples, np.zeros((length, draws, 0, ACTION)), np.zeros((length, 0, ACTION)))


def episodes(successes: int = 10, failures: int = 0, seed: int = 0, shift: float = 2.0) -> list[Episode]:
    """Returns successes around 0 and failures around `shift`, of unequal lengths."""
    rng = np.random.default_rng(seed)
    kinds = [True] * successes + [False] * failures
    lengths = [LENGTH + k % 4 for k in range(len(kinds))]
    return [
        Episode(plans(rng, 0.0 if ok else shift, n), ok, 4 * n, k) for k, (ok, n) in enumerate(zip(kinds, lengths, strict=True))
    ]


def make(module: ModuleType, layout: Layout = LAYOUT, **fields) -> Score:
    return module.Predictor(module.Config(**{**SMALL[module], **fields}), layout)


def fitted_to(module: ModuleType, of: list[Episode], seed: int = 0, layout: Layout = LAYOUT, **fields) -> Score:
    score = make(module, layout, **fields)
    score.fit(of, np.random.default_rng(seed))
    return score


@functools.cache
def usual(module: ModuleType) -> Score:
    """Returns a score fitted to 10 successes and 6 failures; tests only look at it."""
    return fitted_to(module, episodes(10, 6))


def equal(a: Score, b: Score) -> bool:
    first, second = a.arrays(), b.arrays()
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def far_and_near(score: Score) -> tuple[float, float]:
    rng = np.random.default_rng(99)
    return score.trace(plans(rng, 5.0, 200)).mean(), score.trace(plans(rng, 0.0, 200)).mean()
