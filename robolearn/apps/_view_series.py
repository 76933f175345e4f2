"""What the viewer draws over time: which lines share a plot, their values thinned to the width of the screen."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet

ROLES = {"action": "action", "action_filtered": "filtered", "action_sent": "sent"}
_ANGLE = re.compile(r"(angle|yaw|pitch|roll|theta|joint|hinge|(^|_)q\d*$)")
_ROTATION = re.compile(r"(^|_)(r[0-2][0-2]|q[wxyz]|[wxyz]quat)$")
_OWN = ("", "agent_", "eef_", "hand_", "robot_", "robot0_")  # what an observation's name may have before the action's
_ON_THE_TIME_LINE = ("source", "flags", "late_ms", "step_success", "step_score")
_MOST_LINES = 12  # of one plot
_OPEN_LINES = 36  # a key with more is shown folded
_KEYS_HELD = 64


@dataclass(frozen=True)
class Line:
    """One element of one key over time. role: "" for an observation, else whose action it is; colour: lines that belong
    together share it."""

    key: str
    column: int
    name: str
    unit: str = ""
    role: str = ""
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of axes; folded: not drawn until it is opened."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    folded: bool = False


def panels(keys: Mapping[str, ArraySpec]) -> list[Panel]:
    """Returns the plots of a set: observations with the actions of the same space over them, then what is left."""
    lines = [list(_lines(key, spec)) for key, spec in keys.items() if not is_image(spec) and np.dtype(spec.dtype).kind in "fiub"]
    observed = [line for group in lines for line in group if not line.role]
    actions = [line for group in lines for line in group if line.role]
    taken: set[Line] = set()
    found: list[Panel] = []
    for group in _groups(observed):
        over = [line for line in actions if line not in taken and any(_same_space(line, other) for other in group)]
        taken.update(over)
        found.append(_panel(group, over, len(keys[group[0].key].shape) and int(np.prod(keys[group[0].key].shape))))
    for group in _groups([line for line in actions if line not in taken and line.role == "action"]):
        over = [o for o in actions if o not in taken and o.role != "action" and any(o.name == line.name for line in group)]
        taken.update([*group, *over])
        found.append(_panel(group, over, len(group)))
    found += [_panel(group, [], len(group)) for group in _groups([line for line in actions if line not in taken])]
    return sorted(found, key=_rank)


def _rank(panel: Panel) -> int:
    """Returns the place of a plot: what has an action first, then other observations, clocks, and what is folded."""
    if panel.folded:
        return 3
    if any(line.role for line in panel.lines):
        return 0
    key = panel.lines[0].key
    return 2 if key.startswith("t_") or key in _ON_THE_TIME_LINE else 1


def _lines(key: str, spec: ArraySpec) -> Iterator[Line]:
    size = int(np.prod(spec.shape)) if spec.shape else 1
    clock = spec.unit == "ns"
    units = [unit.strip() for unit in spec.unit.split(",")]
    for column in range(size):
        name = _name(key, spec, column, size)
        unit = "ms" if clock else _unit(name, units)
        yield Line(key, column, f"{key}, interval" if clock else name, unit, ROLES.get(key, ""))


def _name(key: str, spec: ArraySpec, column: int, size: int) -> str:
    if size == 1 and not spec.names:
        return key
    width = len(spec.names)
    if width == size:
        return spec.names[column]
    if width and size % width == 0:
        return f"{spec.names[column % width]}{column // width}"
    return str(column)


def _unit(name: str, units: list[str]) -> str:
    """Returns the unit of one element of a key with units such as "m, rad": angles have the second, rotations none."""
    if len(units) == 1:
        return units[0]
    if _ROTATION.search(name):
        return ""
    angular = [unit for unit in units if unit in ("rad", "deg")]
    plain = [unit for unit in units if unit not in ("rad", "deg")]
    return (angular if _ANGLE.search(name) or not plain else plain)[0]


def _same_space(action: Line, observed: Line) -> bool:
    named = not action.name.isdigit() and any(observed.name == prefix + action.name for prefix in _OWN)
    return named and (action.unit == observed.unit or not action.unit or not observed.unit)


def _groups(lines: list[Line]) -> Iterator[list[Line]]:
    """Yields lines of one key and one unit, at most so many that they can be told apart."""
    by_axis: dict[tuple[str, str, bool], list[Line]] = {}
    for line in lines:
        by_axis.setdefault((line.key, line.unit, bool(_ROTATION.search(line.name))), []).append(line)
    for group in by_axis.values():
        parts = -(-len(group) // _MOST_LINES)
        for part in np.array_split(np.arange(len(group)), parts):
            yield [group[int(i)] for i in part]


def _panel(group: list[Line], over: list[Line], of: int) -> Panel:
    coloured = [replace(line, colour=i) for i, line in enumerate(group)]
    for line in over:
        twin = next((i for i, other in enumerate(group) if line.name == other.name or _same_space(line, other)), 0)
        coloured.append(replace(line, colour=twin))
    keys = list(dict.fromkeys(line.key for line in coloured))
    title = " · ".join(keys)
    if len(group) < of and group[0].name not in keys:
        title = f"{keys[0]} {group[0].name} to {group[-1].name}" if len(group) > 1 else f"{keys[0]} {group[0].name}"
        title = " · ".join([title, *keys[1:]])
    return Panel(title, group[0].unit, tuple(coloured), folded=of > _OPEN_LINES)


class Series:
    """The numbers behind the plots of one set; an episode's keys are read once and kept for a while."""

    def __init__(self, dataset: EpisodeSet) -> None:
        self.dataset = dataset
        self._held: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def episode(self, key: str, index: int) -> np.ndarray:
        """Returns one key of one episode (steps, n); clocks [ns] become the interval to the row before [ms]."""
        with self._lock:
            if (key, index) in self._held:
                return self._held[key, index]
        values = self.dataset.read(key, *self.dataset.span(index)).reshape(-1, max(1, int(np.prod(self.dataset.keys[key].shape))))
        if self.dataset.keys[key].unit == "ns":
            steps = np.diff(values.astype(np.int64), axis=0) / 1e6
            values = np.concatenate([steps[:1], steps]) if len(steps) else np.zeros(values.shape)
        with self._lock:
            self._held[key, index] = values
            while len(self._held) > _KEYS_HELD:
                self._held.popitem(last=False)
        return values

    def drawn(self, panel: Panel, index: int, first: int, last: int, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (rows (n,), values (lines, n)) float32 of rows [first, last) of an episode, n at most about `points`."""
        columns = [self.episode(line.key, index)[first:last, line.column].astype(np.float64) for line in panel.lines]
        rows, values = thinned(np.stack(columns), points)
        return (rows + first).astype(np.float32), values.astype(np.float32)

    def times(self, index: int) -> np.ndarray | None:
        """Returns the time of each row since the first [s] by the set's own clock, None where it has none that rises."""
        for key in ("t_sim", "t_monotonic", "t_wall"):  # a simulator's seconds are its own
            if key in self.dataset.keys:
                stamps = self.dataset.read(key, *self.dataset.span(index)).reshape(-1).astype(np.int64)
                if (np.diff(stamps) > 0).all():
                    return (stamps - stamps[0]) / 1e9
        return None


def thinned(values: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, values (lines, n)) that draw like `values` (lines, steps) do: the extremes of each of points/2 buckets."""
    steps = values.shape[1]
    buckets = max(1, points // 2)
    if steps <= 2 * buckets:
        return np.arange(steps), values
    edges = np.linspace(0, steps, buckets + 1).astype(int)
    low, high = np.fmin.reduceat(values, edges[:-1], axis=1), np.fmax.reduceat(values, edges[:-1], axis=1)
    falls = values[:, edges[:-1]] > values[:, edges[1:] - 1]
    rows = np.stack([edges[:-1], (edges[:-1] + edges[1:]) // 2], axis=1).ravel()
    first, second = np.where(falls, high, low), np.where(falls, low, high)
    return rows, np.stack([first, second], axis=2).reshape(len(values), -1)
