"""The linear toy that shows alone what noised past tokens do to a policy whose loss does not count them.

o is uniform in (-0.6, 0.6), the past action a0 = o + 0.1 n, the current one a1 = a0. A least-squares noise model at each of 100
DDPM levels, sampled with clipping. The error counted is that of a1 against o; 0.1 is ideal.
"""

from __future__ import annotations

import numpy as np

LEVELS = 100
ARMS = ("ptp", "window_released", "window_clean")


def cosine_alphas(levels: int = LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Returns alpha and the cumulated alpha-bar (levels,) of the squared-cosine schedule, betas capped at 0.999."""
    bar = np.cos((np.arange(levels + 1) / levels + 0.008) / 1.008 * np.pi / 2) ** 2
    alphas = 1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    return alphas, np.cumprod(alphas)


def toy(arm: str, rng: np.random.Generator, samples: int = 20_000) -> float:
    """Returns the root mean square of a1 - o under one arm: ptp, window_released (past outputs untrained: 0) or window_clean."""
    alphas, bars = cosine_alphas()
    models = [_fit(arm, bar, rng, samples) for bar in bars]
    o = rng.uniform(-0.6, 0.6, samples)
    x = rng.normal(size=(samples, 1 if arm == "window_clean" else 2))
    for k in reversed(range(LEVELS)):
        eps = np.column_stack([x, o, np.ones(samples)]) @ models[k]
        clean = np.clip((x - np.sqrt(1 - bars[k]) * eps) / np.sqrt(bars[k]), -1, 1)
        before = bars[k - 1] if k else 1.0
        beta = 1 - alphas[k]
        x = (np.sqrt(before) * beta * clean + np.sqrt(alphas[k]) * (1 - before) * x) / (1 - bars[k])
        if k:
            x += np.sqrt(beta * (1 - before) / (1 - bars[k])) * rng.normal(size=x.shape)
    return float(np.sqrt(np.mean((x[:, -1] - o) ** 2)))


def _fit(arm: str, bar: float, rng: np.random.Generator, samples: int) -> np.ndarray:
    """Returns the noise model of one level: inputs (tokens, o, 1) to outputs (tokens)."""
    o = rng.uniform(-0.6, 0.6, samples)
    a0 = o + 0.1 * rng.normal(size=samples)
    clean = np.column_stack([a0] if arm == "window_clean" else [a0, a0])
    eps = rng.normal(size=clean.shape)
    inputs = np.column_stack([np.sqrt(bar) * clean + np.sqrt(1 - bar) * eps, o, np.ones(samples)])
    model = np.linalg.lstsq(inputs, eps, rcond=None)[0]
    if arm == "window_released":
        model[:, 0] = 0.0
    return np.asarray(model)
