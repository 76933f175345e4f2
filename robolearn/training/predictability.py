"""How well the last action foretells the next: an expert's figure against a policy's shows who copies its own past.

The diagnostic of Torne et al., "Learning Long-Context Diffusion Policies via Past-Token Prediction" (arXiv 2505.09561): a
small MLP learns a_{t-1} -> a_t, and its error on trajectories it has not seen is the figure. A policy that a window of
history has led to copy itself is more predictable than its expert, one that makes too little of it is less so.

Errors are mean squares over pairs and columns in normalised units: a column's smallest and largest value become -1 and 1, so
that an error of 0.0001 is half a per cent of the range. Policy and expert are measured in the expert's units, or a policy
that moves less would look predictable. Twenty epochs are few updates where pairs are few: the figure then holds what the
MLP has not learnt yet, and says something of a policy only beside an expert with about as many pairs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from robolearn.data.normalize import CONSTANT
from robolearn.errors import ArrayMismatch, ConfigError, DatasetError

_AXIS = re.compile(r"(?:.*[_./ ])?d?[xyz](?:\d+|[_./ ].*)?", re.IGNORECASE)
_TURN = re.compile(r"rot|quat|ori|axis|ang|euler|vel", re.IGNORECASE)
_ALIKE = 2.0  # numbers of pairs further apart than this factor are pointed out


@dataclass(frozen=True)
class Fit:
    """How the MLP is fitted.

    window: pairs are (a_i, a_{i+1}) with i = window / 2 - 1 in every window of so many actions, 2 takes all pairs;
    held_out: share of the trajectories that is only measured, the first ones unless `drawn`; best: the smallest held-out
    error of all epochs counts, not the last.
    """

    hidden: int = 64
    epochs: int = 20
    batch: int = 256
    window: int = 32
    held_out: float = 0.1
    drawn: bool = False
    best: bool = False
    lr: float = 1e-3


OFFLINE = Fit()  # on recorded rollouts and demonstrations, position columns only
# Which pairs and which trajectories the second preset takes is not published: all pairs, trajectories drawn whole.
IN_LOOP = Fit(hidden=512, epochs=10, batch=2048, window=2, held_out=0.2, drawn=True, best=True)  # beside training, all columns


@dataclass(frozen=True)
class Units:
    """The range that is mapped to [-1, 1]: low and high (columns,)."""

    low: np.ndarray
    high: np.ndarray

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions (steps, columns) in normalised units, float32; a column without range is only centred."""
        half = (self.high - self.low) / 2
        middle = (self.high + self.low) / 2
        return ((actions - middle) / np.where(half > CONSTANT, half, 1.0)).astype(np.float32)


@dataclass(frozen=True)
class Predictability:
    """The held-out error of a_{t-1} -> a_t [normalised, squared] and what it rests on.

    variance: what always saying the mean would cost, on the same pairs; pairs: (fitted, held out); short: trajectories below
    the window, all pairs of which were used; empty: trajectories of less than two actions, left out.
    """

    mse: float
    variance: float
    pairs: tuple[int, int]
    window: int
    short: int = 0
    empty: int = 0

    @property
    def note(self) -> str:
        """Says which trajectories were treated otherwise; empty where none was."""
        parts = [f"{self.short} trajectories below {self.window} actions gave all their pairs"] if self.short else []
        parts += [f"{self.empty} of less than two actions were left out"] if self.empty else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """An expert and a policy, both in the expert's units."""

    expert: Predictability
    policy: Predictability

    @property
    def ratio(self) -> float:
        """Expert error / policy error: above 1 the policy is more predictable than the expert (it copies), below 1 less."""
        if self.expert.mse == self.policy.mse:
            return 1.0
        return self.expert.mse / self.policy.mse if self.policy.mse > 0 else math.inf

    @property
    def note(self) -> str:
        """Says what limits the comparison; empty where nothing does."""
        parts = [f"{who}: {side.note}" for who, side in (("expert", self.expert), ("policy", self.policy)) if side.note]
        fitted = self.expert.pairs[0], self.policy.pairs[0]
        if max(fitted) > _ALIKE * min(fitted):
            parts.append(
                f"fitted on {fitted[0]:,} pairs of the expert and {fitted[1]:,} of the policy, alike numbers compare better"
            )
        return "; ".join(parts)


def position_columns(names: Sequence[str], n: int = 0) -> tuple[int, ...]:
    """Returns the columns named x, y or z (dx, x_left, left_x, x0 too; no rotations, no velocities), all where there are none.

    names: those of an ArraySpec; n: the number of columns where it has no names.
    """
    found = tuple(i for i, name in enumerate(names) if _AXIS.fullmatch(name) and not _TURN.search(name))
    return found or tuple(range(len(names) or n))


def units(actions: Sequence[np.ndarray], columns: Sequence[int] | None = None) -> Units:
    """Returns the ranges of the chosen columns (all: None) over all trajectories (steps, n)."""
    rows = np.concatenate(_columns(actions, columns))
    if not len(rows):
        raise DatasetError(f"predictability: want trajectories with actions, got {len(actions)} without any")
    return Units(rows.min(axis=0), rows.max(axis=0))


def predictability(
    actions: Sequence[np.ndarray],
    *,
    seed: int,
    columns: Sequence[int] | None = None,
    within: Units | None = None,
    fit: Fit = OFFLINE,
) -> float:
    """Returns the held-out mean squared error of a_{t-1} -> a_t, as `measure` does."""
    return measure(actions, seed=seed, columns=columns, within=within, fit=fit).mse


def ratio(
    expert: Sequence[np.ndarray],
    policy: Sequence[np.ndarray],
    *,
    seed: int,
    columns: Sequence[int] | None = None,
    fit: Fit = OFFLINE,
) -> float:
    """Returns expert error / policy error of trajectories (steps, n), as `compare` does."""
    return compare(expert, policy, seed=seed, columns=columns, fit=fit).ratio


def compare(
    expert: Sequence[np.ndarray],
    policy: Sequence[np.ndarray],
    *,
    seed: int,
    columns: Sequence[int] | None = None,
    fit: Fit = OFFLINE,
) -> Comparison:
    """Returns both figures, fitted with one seed and in the expert's units; a set against itself has ratio 1 exactly."""
    within = units(expert, columns)
    mine, theirs = (measure(side, seed=seed, columns=columns, within=within, fit=fit) for side in (expert, policy))
    return Comparison(mine, theirs)


def chunk_ratio(expert: Tensor, policy: Tensor) -> float:
    """Returns expert / policy of the error with which an action foretells the next one inside chunks (B, H, action).

    The monitor in training: the best affine map from token to token instead of an MLP, on what the policy plans for held-out
    windows beside what the expert did there. Above 1 the plans are more predictable than the expert; NaN where they never vary.
    """

    def error(chunks: Tensor) -> float:
        before = chunks[:, :-1].flatten(0, 1).double()
        after = chunks[:, 1:].flatten(0, 1).double()
        inputs = torch.cat((before, torch.ones_like(before[:, :1])), dim=1)
        left = after - inputs @ torch.linalg.lstsq(inputs, after, driver="gelsd").solution
        return float(left.square().mean())

    if not bool(torch.isfinite(policy).all()):
        return float("nan")
    theirs = error(policy.cpu())
    return error(expert.cpu()) / theirs if theirs > 1e-12 else float("nan")


def measure(
    actions: Sequence[np.ndarray],
    *,
    seed: int,
    columns: Sequence[int] | None = None,
    within: Units | None = None,
    fit: Fit = OFFLINE,
) -> Predictability:
    """Returns how well an MLP, fitted on the other trajectories, foretells the next action of the held-out ones.

    actions: trajectories (steps, n), their order says which are held out; columns: those that count (None: all);
    within: the units (None: the ranges of `actions` themselves).
    """
    if fit.window < 2 or fit.window % 2 or not 0 < fit.held_out < 1:
        raise ConfigError(f"predictability: want an even window and 0 < held_out < 1, got {fit.window} and {fit.held_out}")
    within = within or units(actions, columns)
    rows = [within.normalize(trajectory) for trajectory in _columns(actions, columns)]
    whole = [trajectory for trajectory in rows if len(trajectory) >= 2]
    if len(whole) < 2:
        raise DatasetError(f"predictability: want at least 2 trajectories of 2 actions, got {len(whole)} of {len(rows)}")
    order = np.random.default_rng(seed).permutation(len(whole)) if fit.drawn else np.arange(len(whole))
    n_held = min(max(1, round(fit.held_out * len(whole))), len(whole) - 1)
    held, fitted = (_pairs([whole[i] for i in part], fit.window) for part in (order[:n_held], order[n_held:]))
    short = sum(len(trajectory) < fit.window for trajectory in whole)
    mse = _held_out_error(fitted, held, fit, torch.Generator().manual_seed(seed))
    variance = float(held[1].var(dim=0, correction=0).mean())
    return Predictability(mse, variance, (len(fitted[0]), len(held[0])), fit.window, short, len(rows) - len(whole))


def _columns(actions: Sequence[np.ndarray], columns: Sequence[int] | None) -> list[np.ndarray]:
    """Returns the chosen columns of every trajectory, float64; says which trajectory does not fit."""
    if not len(actions):
        raise DatasetError("predictability: want trajectories, got none")
    arrays = [np.asarray(trajectory, np.float64) for trajectory in actions]
    for i, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1:] != arrays[0].shape[1:] or not np.isfinite(array).all():
            raise ArrayMismatch(f"trajectory {i}: want finite actions (steps, {arrays[0].shape[-1]}), got {array.shape}")
    width = arrays[0].shape[1]
    if columns is not None and (not len(columns) or not all(0 <= c < width for c in columns)):
        raise ConfigError(f"predictability: want columns of 0 .. {width - 1}, got {tuple(columns)}")
    return arrays if columns is None else [array[:, list(columns)] for array in arrays]


def _pairs(trajectories: Sequence[np.ndarray], window: int) -> tuple[Tensor, Tensor]:
    """Returns (before, after), each (pairs, columns)."""
    before, after = [], []
    for trajectory in trajectories:
        edge = window // 2 - 1 if len(trajectory) >= window else 0
        before.append(trajectory[edge : len(trajectory) - 1 - edge])
        after.append(trajectory[edge + 1 : len(trajectory) - edge])
    return torch.from_numpy(np.concatenate(before)), torch.from_numpy(np.concatenate(after))


def _held_out_error(fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], fit: Fit, rng: torch.Generator) -> float:
    width = fitted[0].shape[1]
    net = nn.Sequential(_linear(width, fit.hidden, rng), nn.ReLU(), _linear(fit.hidden, width, rng))
    optimizer = torch.optim.Adam(net.parameters(), lr=fit.lr)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5)
    errors = []
    for _ in range(fit.epochs):
        total = 0.0
        for chosen in torch.randperm(len(fitted[0]), generator=rng).split(fit.batch):
            loss = F.mse_loss(net(fitted[0][chosen]), fitted[1][chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item() * len(chosen)
        plateau.step(total)  # the fitted error, so that the held-out pairs steer nothing
        with torch.no_grad():
            errors.append(F.mse_loss(net(held[0]), held[1]).item())
    return min(errors) if fit.best else errors[-1]


def _linear(n_in: int, n_out: int, rng: torch.Generator) -> nn.Linear:
    """Returns a layer with torch's own initial distribution, drawn from `rng`."""
    layer = skip_init(nn.Linear, n_in, n_out)
    bound = 1 / math.sqrt(n_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.uniform_(-bound, bound, generator=rng)
    return layer
