"""Action-chunk entropy: how many different plans a policy draws from one observation, in bits.

FIPER (Roemer et al., arXiv 2510.09459, NeurIPS 2025): the draws' end-effector positions at each future tick fall into cells of
a grid that floats with them; the score is the entropy of the joint histogram, averaged over the chunk. A few draws saturate
at log2(draws), so scores compare at equal numbers of draws only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked, positions_of

_MARGIN = 0.01  # of the draws' range, below the lowest one: where the grid begins
_EXACT = 2.0**53  # up to here float64 counts without gaps


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Entropy of action chunks."""

    name: str = "ace"
    draws: int = 32
    """Plans drawn at once; the first so many are looked at."""
    cell: float = 0.03
    """Size of a cell, as a share of the range of all plans of the fit split."""
    single_cellsize: bool = False
    """Make cells cubes, with the edge of the widest axis."""

    def __post_init__(self) -> None:
        if self.draws < 2 or not self.cell > 0:
            raise ValueError(f"want draws at least 2 and cell above 0, got {self.draws} and {self.cell}")


class Predictor(Score):
    """Scores a plan by the entropy of its draws."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self._columns, _ = layout.positions(config.name)
        self.cell: np.ndarray | None = None  # (positions,), once fitted

    @property
    def needs(self) -> Needs:
        """Draws, and the names of the position's numbers."""
        return Needs(draws=self.config.draws, action_names=tuple(self.layout.action[i] for i in self._columns))

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Takes the size of a cell from the range of all plans of successes; BadInput where there are none, or none moves."""
        del rng  # Unused: nothing is drawn.
        seen = [self._positions(e.plans).reshape(-1, len(self._columns)) for e in episodes if e.success and len(e)]
        if not seen:
            raise BadInput(f"{self.config.name}: wants a successful episode to fit to, got none among {len(episodes)}")
        extent = np.max([one.max(axis=0) for one in seen], axis=0) - np.min([one.min(axis=0) for one in seen], axis=0)
        if not extent.max() > 0:
            raise BadInput(f"{self.config.name}: wants plans that move, got the same position in all of the fit split")
        whole = (extent == 0) | self.config.single_cellsize
        self.cell = self.config.cell * np.where(whole, extent.max(), extent)

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns bits (T,), 0 to log2(draws)."""
        if self.cell is None:
            raise BadInput(f"{self.config.name}: is not fitted yet; fit it, or restore what was fitted")
        positions = self._positions(plans)
        t, draws, horizon, width = positions.shape
        points = positions.swapaxes(1, 2).reshape(t * horizon, draws, width)
        return np.asarray(_entropies(points, self.cell).reshape(t, horizon).mean(axis=1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the size of a cell, once fitted."""
        return {} if self.cell is None else {"cell": self.cell}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back the size of a cell; BadInput where it is missing or does not fit the layout."""
        if set(arrays) != {"cell"}:
            raise BadInput(f"{self.config.name}: want the array cell, got {', '.join(sorted(arrays)) or 'none'}")
        self.cell = _checked_cell(arrays["cell"], len(self._columns), self.config.name)

    def _positions(self, plans: Plans) -> np.ndarray:
        some = checked(plans, self.config.name, self.config.draws).samples[:, : self.config.draws]
        return positions_of(some, self.layout, self.config.name)


def chunk_entropy(samples: np.ndarray, cell: np.ndarray) -> float:
    """Returns the entropy in bits of draws of a chunk in cells of size `cell`, averaged over the chunk's ticks.

    samples: (draws, horizon, 3) positions (any width goes), cell: (3,) in the same unit. At every tick apart the grid begins
    0.01 of the draws' range below the lowest one. BadInput where a size is 0 or a position is not finite.
    """
    points = np.asarray(samples, np.float64)
    if points.ndim != 3 or 0 in points.shape or not np.isfinite(points).all():
        raise BadInput(f"chunk_entropy: samples: want finite (draws, horizon, positions), got {points.shape} or NaN or infinity")
    sizes = _checked_cell(cell, points.shape[2], "chunk_entropy")
    return float(_entropies(points.swapaxes(0, 1), sizes).mean())


def _checked_cell(cell: np.ndarray, width: int, who: str) -> np.ndarray:
    sizes = np.asarray(cell, np.float64)
    if sizes.shape != (width,) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise BadInput(f"{who}: cell: want {width} finite sizes above 0, got {sizes.tolist()}")
    return sizes


def _entropies(points: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Returns the entropy (n,) in bits of each histogram of points (n, draws, width)."""
    n, draws, _ = points.shape
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    keys = np.sort(_joint(np.floor((points - (low - _MARGIN * (high - low))) / cell)), axis=1)
    first = np.ones((n, draws), bool)  # of a run of equal keys; every row begins one
    first[:, 1:] = keys[:, 1:] != keys[:, :-1]
    counts = np.bincount(np.cumsum(first) - 1) if n else np.zeros(0, int)
    rows = np.nonzero(first)[0]
    return np.bincount(rows, weights=counts / draws * np.log2(draws / counts), minlength=n)


def _joint(cells: np.ndarray) -> np.ndarray:
    """Returns one number (n, draws) for every combination of cells (n, draws, width), different ones for different cells."""
    key = cells[..., 0]
    for column in np.moveaxis(cells, -1, 0)[1:]:
        span = column.max(initial=0.0) + 1
        if (key.max(initial=0.0) + 1) * span > _EXACT:  # draws far apart: number the cells that hold one instead
            key, column = _ranks(key), _ranks(column)
            span = column.max() + 1
        key = key * span + column
    return key


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.float64)
