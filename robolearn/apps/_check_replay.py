"""Replays recorded actions in the simulator, for `data check --replay`."""

from __future__ import annotations

from contextlib import closing

import numpy as np
from tqdm import tqdm

from robolearn import geometry
from robolearn.apps import replay
from robolearn.core import SimEnv
from robolearn.data.check import Limits, Replayed, Report, check_replay
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from sim_envs import _base as tasks


def replay_some(dataset: EpisodeSet, report: Report, count: int, limits: Limits) -> None:
    """Adds what their replay says to the cards of `count` episodes, spread over the set; BadInput where it cannot be replayed."""
    if dataset.task not in tasks.names():
        raise BadInput(
            f"{dataset.path}: --replay: no simulator for task '{dataset.task or ''}' (known: {', '.join(tasks.names())})"
        )
    success = dataset.episode_field("success")
    some = np.unique(np.linspace(0, dataset.n_episodes - 1, min(count, dataset.n_episodes)).astype(int))
    with closing(tasks.make(dataset.task, replay.body_of(dataset, dataset.task))) as body:
        replay.check(dataset, body)
        if dataset.spec is not None and dataset.spec.codec != body.spec.codec:
            raise BadInput(f"{dataset.path}: --replay: actions are '{dataset.spec.codec}', the task takes '{body.spec.codec}'")
        for index in tqdm(some.tolist(), desc="replay", unit="episode", leave=False, disable=None):
            before = bool(success[index]) if success is not None and success[index] >= 0 else None
            check_replay(report.cards[index], _replayed(dataset, body, index, report), before, limits)


def _replayed(dataset: EpisodeSet, body: SimEnv, index: int, report: Report) -> Replayed:
    """Returns how a replay from the first recorded state, or else from the seed, ends."""
    span = dataset.span(index)
    record = {key: dataset.read(key, *span) for key in (*replay.compared(dataset, body), "action")}
    states = dataset.read(replay.SIM_STATE, *span) if replay.SIM_STATE in dataset.keys else None
    seed = replay.seed_of(dataset, index)
    first = states[0] if states is not None else None if seed is not None else replay.pose_of(body, record)
    if seed is None and first is None:
        raise BadInput(f"{dataset.path}: --replay: episode {index} has neither a seed nor a first state")
    obs, solved = replay.start(body, seed, first), None
    for action in record["action"][:-1]:
        step = body.step(action)
        obs, solved = step.obs, _either(solved, step.success)
    errors, widths = {}, {}
    for key in replay.compared(dataset, body):
        difference = np.ravel(obs[key]).astype(float) - np.ravel(record[key][-1]).astype(float)
        names = body.spec.obs[key].names
        angles = np.resize(np.array([name.endswith("angle") for name in names] or [False]), difference.size)
        errors[key] = np.where(angles, geometry.wrap(difference), difference)
        known = report.context.extents.get(key) if report.context is not None else None
        widths[key] = known.width if known is not None else np.ptp(record[key].reshape(len(record[key]), -1), axis=0)
    if not errors and states is not None:
        errors[replay.SIM_STATE] = body.state() - states[-1]
        widths[replay.SIM_STATE] = np.ptp(states, axis=0)
    return Replayed(errors, widths, _either(solved, body.step(record["action"][-1]).success))


def _either(before: bool | None, now: bool | None) -> bool | None:
    return before if now is None else bool(before) or bool(now)
