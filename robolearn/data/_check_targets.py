"""Which numbers of the action are targets of which observed numbers: found from the rows, because names do not say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data._check_roles import Roles

_CORRELATION = 0.9
_SCALE = (0.5, 2.0)  # of the action's spread to the state's
_BIAS = 0.5  # of the state's range: a larger difference is no target


class _Extent(Protocol):
    @property
    def width(self) -> np.ndarray: ...
    @property
    def switch(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Pair:
    """Column `action` is the target of column `column` of `key`, called `name`; width: the range of the latter."""

    action: int
    key: str
    column: int
    name: str
    width: float


def pairs_of(
    sample: Sequence[Mapping[str, np.ndarray]],
    roles: Roles,
    extents: Mapping[str, _Extent],
    specs: Mapping[str, ArraySpec],
    hz: float,
) -> tuple[Pair, ...]:
    """Returns the pairs of action and body numbers that hold the same quantity: they go together, on one scale, in one place."""
    if not sample or "action" not in extents:
        return ()
    names = specs["action"].names
    candidates = [
        (group.key, column, name)
        for group in roles.body
        for column, name in zip(group.columns, group.names, strict=True)
        if group.key in sample[0] and extents[group.key].width[column] > 0 and not extents[group.key].switch[column]
    ]
    later = sorted({1, max(1, round(0.1 * hz)), max(1, round(0.3 * hz))})
    found: list[tuple[float, Pair]] = []
    for action in range(sample[0]["action"].shape[1]):
        if extents["action"].switch[action]:
            continue
        wanted = names[action] if action < len(names) else ""
        for key, column, name in candidates:
            width = float(extents[key].width[column])
            match = max(_match(sample, action, key, column, shift, width) for shift in later)
            if match > _CORRELATION:
                alike = bool(wanted) and bool(name) and (wanted == name or wanted.split("_")[-1] == name.split("_")[-1])
                found.append((match + alike, Pair(action, key, column, name or f"{key}[{column}]", width)))
    chosen: list[Pair] = []
    for _, pair in sorted(found, key=lambda item: -item[0]):
        if all(pair.action != other.action and (pair.key, pair.column) != (other.key, other.column) for other in chosen):
            chosen.append(pair)
    return tuple(sorted(chosen, key=lambda pair: pair.action))


def _match(sample: Sequence[Mapping[str, np.ndarray]], action: int, key: str, column: int, shift: int, width: float) -> float:
    """Returns the correlation of an action with a state `shift` rows later, 0 where scale or place differ."""
    a = np.concatenate([rows["action"][:-shift, action] for rows in sample if len(rows["action"]) > shift] or [np.zeros(0)])
    s = np.concatenate([rows[key][shift:, column] for rows in sample if len(rows["action"]) > shift] or [np.zeros(0)])
    good = np.isfinite(a) & np.isfinite(s)
    a, s = a[good].astype(np.float64), s[good].astype(np.float64)
    spread_a, spread_s = (float(np.std(v)) if len(v) > 8 else 0.0 for v in (a, s))
    if not spread_a or not spread_s or not _SCALE[0] < spread_a / spread_s < _SCALE[1]:
        return 0.0
    if abs(np.median(a - s)) > _BIAS * width:
        return 0.0
    return float(np.mean((a - a.mean()) * (s - s.mean())) / (spread_a * spread_s))
