"""The first pass: what must be known of the whole set before one episode can be judged. Vectors in blocks, no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robolearn.data import _zarr
from robolearn.data._check_card import Limits
from robolearn.data._check_extent import ActionLimits, Extent, action_limits, constant, extent_of, turning, vector_rows
from robolearn.data._check_joints import Range, joints_of_states, model_of, ranges_of
from robolearn.data._check_roles import Roles, roles_of
from robolearn.data._check_targets import Pair, pairs_of
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_FIRST_ROWS = 64
_PACED = 0.2  # of the rate
_SAMPLE_EPISODES = 16


@dataclass(frozen=True)
class Typical:
    """Medians over the episodes, against which one is compared; empty before the episodes were judged.

    spread: by series and number, (median, spread) of its logarithm; lag: [steps], NaN where unknown; offset: by pair;
    bursts: keys that go far beyond their usual range in many episodes, so that it means nothing in one.
    """

    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lag: float = np.nan
    offset: Mapping[str, float] = field(default_factory=dict)
    bursts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Context:
    """All that `check_episode` needs of the set: small, and good for every process that opens the set by its path."""

    path: Path
    limits: Limits
    hz: float | None
    roles: Roles
    extents: Mapping[str, Extent]
    pairs: tuple[Pair, ...]
    joint_ranges: Mapping[str, Range]
    action_limits: ActionLimits
    typical_steps: float
    image_scale: Mapping[str, float]
    typical: Typical = Typical()
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    paced: bool = True

    @property
    def rate(self) -> float:
        """The set's rate [1/s], 10 where it says none."""
        return self.hz or 10.0


def survey(dataset: EpisodeSet, limits: Limits = Limits()) -> tuple[Context, list[str]]:
    """Returns what must be known of the whole set, and flags of keys that cannot be read or never change."""
    flags: list[str] = []
    first = {}
    for key, spec in dataset.keys.items():
        if not is_image(spec):
            try:
                first[key] = vector_rows(dataset, key, 0, min(_FIRST_ROWS, dataset.n_steps))
            except DatasetError:
                first[key] = np.zeros((0, int(np.prod(spec.shape, dtype=int))), dataset.array(key).dtype)
    roles = roles_of(dataset, first)
    model = model_of(dataset)
    state_group, state_ranges = joints_of_states(dataset, model)
    if state_group is not None and not any(group.kind == "joint" and roles.named for group in roles.body):
        roles = Roles(roles.images, roles.vectors, roles.clocks, (state_group,), roles.grippers, True)
    ranges, note = ranges_of(dataset, roles.body, model, state_ranges)
    extents = {}
    for key in roles.vectors:
        if key == "sim_state" and state_group is None:
            continue
        extent, problems = extent_of(dataset, key)
        flags += problems
        if extent is not None:
            extents[key] = extent
            flags += constant(key, extent)
    roles = replace(roles, body=tuple(turning(group, extents) for group in roles.body))
    wanted = {"action", "t_monotonic", *(group.key for group in roles.body)} - {"sim_state"}
    sample = _sample(dataset, sorted(wanted & set(extents)))
    lengths = np.diff(dataset.episode_ends, prepend=0)
    facts = {name: dataset.episode_field(name) for name in ("label", "reason", "success", "uuid")}
    context = Context(
        path=dataset.path,
        limits=limits,
        hz=dataset.hz,
        roles=roles,
        extents=extents,
        pairs=pairs_of(sample, roles, extents, dataset.keys, dataset.hz or 10.0),
        joint_ranges=ranges,
        action_limits=action_limits(dataset, extents.get("action"), roles),
        typical_steps=float(np.median(lengths)) if len(lengths) else 0.0,
        image_scale={key: _image_scale(dataset, key) for key in roles.images},
        facts={name: values for name, values in facts.items() if values is not None},
        notes=tuple(note),
        paced=_paced(dataset, roles, sample),
    )
    return context, flags


def _sample(dataset: EpisodeSet, keys: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Returns the vectors of some episodes, spread over the set; one that cannot be read is left out."""
    found = []
    count = min(_SAMPLE_EPISODES, dataset.n_episodes)
    for index in np.unique(np.linspace(0, dataset.n_episodes - 1, count).astype(int)) if count else ():
        start, stop = dataset.span(int(index))
        stop = min(stop, start + 2000)
        try:
            found.append({key: vector_rows(dataset, key, start, stop) for key in keys})
        except DatasetError:
            continue
    return found


def _paced(dataset: EpisodeSet, roles: Roles, sample: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Returns whether the loop kept to the monotonic clock: a simulator may run as fast as it can, and then nobody was late."""
    simulated = roles.clock("sim") is not None or "sim_state" in roles.vectors or bool(dataset.env)
    if not simulated or not dataset.hz:
        return True
    steps = [np.diff(rows["t_monotonic"][:, 0]) for rows in sample if len(rows.get("t_monotonic", ())) > 1]
    rates = [1e9 / max(1.0, float(np.median(step))) for step in steps]
    return bool(rates) and abs(float(np.median(rates)) - dataset.hz) < _PACED * dataset.hz


def _image_scale(dataset: EpisodeSet, key: str) -> float:
    """Returns what makes the pixels of a key 0..255: 255 for float images of 0..1."""
    if dataset.array(key).dtype == np.uint8:
        return 1.0
    for row in np.unique(np.linspace(0, max(0, dataset.n_steps - 1), 8).astype(int)):
        try:
            top = float(np.nan_to_num(_zarr.read_rows(dataset.array(key), int(row), int(row) + 1, key)).max(initial=0))
        except DatasetError:
            continue
        if top > 0:
            return 255.0 if top <= 1.0 else 1.0
    return 1.0
