"""Statistics of a dataset's numbers: range, mean, std, quantiles, and which episode inflates a std. Reads no image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from robolearn.apps._edit import counted
from robolearn.apps._report import write_json
from robolearn.core import ArraySpec
from robolearn.data._compose import Piece
from robolearn.data._summary import MOST_ELEMENTS, QUANTILES, Summary, element_name, summarise, warnings
from robolearn.data.edit import Selection
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError, UnknownName

_COLUMNS = ("min", *(f"q{q:.0%}".replace("%", "") for q in QUANTILES), "max", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class Config(Selection):
    """Of which set, and of which of its episodes (all, where nothing is selected)."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    keys: str = ""
    """These keys only, such as state,action."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Prints one line an element, then what would spoil their scaling."""
    dataset = EpisodeSet.open(cfg.path)
    piece = Piece(dataset, cfg.indices(dataset))
    if not len(piece.episodes):
        raise DatasetError(f"{cfg.path}: the selection takes no episode")
    wanted = [key.strip() for key in cfg.keys.split(",") if key.strip()]
    for key in wanted:
        if key not in dataset.keys:
            raise UnknownName("key", key, dataset.keys, str(cfg.path))
    steps = int(piece.lengths.sum())
    print(f"{cfg.path}: {counted(len(piece.episodes), 'episode')} of {dataset.n_episodes}, {steps} steps")
    figures: dict[str, Any] = {}
    said: list[str] = []
    left_out = [key for key, spec in dataset.keys.items() if not _has_statistics(spec)]
    shown = [key for key in dataset.keys if key not in left_out and (not wanted or key in wanted)]
    width = max((len(name) for key in shown for name in _names(key, dataset.keys[key])), default=0)
    print(f"  {'':<{width}}  " + " ".join(f"{column:>10}" for column in _COLUMNS))
    for key in shown:
        spec = dataset.keys[key]
        found = summarise(piece, key)
        figures[key] = to_json(key, spec, found)
        print("\n".join(table(key, spec, found, width)), flush=True)
        said += warnings(key, spec, found)
    print("\n".join([*(f"warning: {text}" for text in said), f"not read: {', '.join(left_out) or 'nothing'}"]))
    rows = {"path": cfg.path, "episodes": piece.episodes, "steps": steps, "quantiles_at": QUANTILES}
    write_json(cfg.json, {**rows, "keys": figures, "warnings": said, "not_read": left_out})
    return 0


def _has_statistics(spec: ArraySpec) -> bool:
    return not is_image(spec) and np.dtype(spec.dtype).kind in "fiub" and int(np.prod(spec.shape)) <= MOST_ELEMENTS


def _names(key: str, spec: ArraySpec) -> list[str]:
    return [element_name(key, spec, index) for index in range(max(1, int(np.prod(spec.shape))))]


def table(key: str, spec: ArraySpec, found: Summary, width: int) -> list[str]:
    """Returns one line an element."""
    rows = zip(_names(key, spec), found.min, *found.quantiles, found.max, found.mean, found.std, strict=True)
    return [f"  {name:<{width}}  " + " ".join(f"{value:>10.4g}" for value in values) + f"  {spec.unit}" for name, *values in rows]


def to_json(key: str, spec: ArraySpec, found: Summary) -> dict[str, Any]:
    """Returns the summary of a key as plain figures, lists over its elements."""
    return {
        "elements": _names(key, spec),
        "unit": spec.unit,
        "count": found.count,
        "not_finite": found.not_finite,
        "min": found.min,
        "max": found.max,
        "mean": found.mean,
        "std": found.std,
        "quantiles": {f"{q:g}": values for q, values in zip(QUANTILES, found.quantiles, strict=True)},
        "quantiles_are": "exact" if not found.within else f"within {found.within:.2g} of the range",
        "extreme_episode": found.extreme,
        "std_without_extreme": found.std_without,
    }
