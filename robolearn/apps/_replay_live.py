"""One episode played on a body at the body's pace, and how far the body strays from the record while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps import replay
from robolearn.apps._live import Paced
from robolearn.apps._session_live import scene_of
from robolearn.apps._watch import Watch
from robolearn.core import Outcome, SimEnv, Sink, Tick
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from sim_envs import _base as tasks


@dataclass(frozen=True)
class Strayed:
    """How far one observation strayed: errors (steps,) in its own unit (angles in rad), largest over its numbers, by tick."""

    errors: np.ndarray

    def figures(self, threshold: float) -> dict[str, Any]:
        """Returns largest, mean and last error, and the first tick with more than `threshold` (None: never)."""
        beyond = np.flatnonzero(self.errors > threshold)
        return {
            "max_error": float(self.errors.max()),
            "mean_error": float(self.errors.mean()),
            "final_error": float(self.errors[-1]),
            "first_beyond": int(beyond[0]) if beyond.size else None,
        }


def run(dataset: EpisodeSet, task: str, episode: int, threshold: float, watch: bool) -> dict[str, Any]:
    """Plays an episode from its first state, else from its seed, and returns the divergence of every key over time."""
    if not 0 <= episode < dataset.n_episodes:
        raise BadInput(f"{dataset.path}: --episode {episode}: want one of 0 to {dataset.n_episodes - 1}")
    env = replay.body_of(dataset, task)
    with ExitStack() as stack:
        sim = stack.enter_context(closing(tasks.make(task, env)))
        replay.check(dataset, sim)
        views: list[Sink] = []
        if watch:
            view = Watch(scene_of(task, env, sim))
            stack.callback(view.close)
            print(f"the scene: {view.address}", flush=True)
            views.append(view)
        strayed, solved = play(dataset, sim, episode, views)
    recorded = dataset.episode_field("success")
    before = bool(recorded[episode]) if recorded is not None and recorded[episode] >= 0 else None
    return {
        "task": task,
        "episode": episode,
        "steps": len(next(iter(strayed.values())).errors),
        "threshold": threshold,
        "success": solved,
        "recorded_success": before,
        "keys": {key: value.figures(threshold) for key, value in strayed.items()},
    }


def play(dataset: EpisodeSet, sim: SimEnv, episode: int, views: Sequence[Sink] = ()) -> tuple[dict[str, Strayed], bool]:
    """Plays the actions of an episode in real time; returns the errors by key and whether the task was solved."""
    span = dataset.span(episode)
    keys = replay.compared(dataset, sim)
    record = {key: dataset.read(key, *span) for key in (*keys, "action")}
    states = dataset.read(replay.SIM_STATE, *span) if replay.SIM_STATE in dataset.keys else None
    seed = replay.seed_of(dataset, episode)
    first = states[0] if states is not None else None if seed is not None else replay.pose_of(sim, record)
    if first is None and seed is None:
        raise BadInput(f"{dataset.path}: episode {episode} has neither a first state nor a seed to begin from")
    body, solved = Paced(sim), False
    obs = body.begin(replay.start(sim, seed, first))
    for view in views:
        view.begin(sim.spec, {"seed": seed})
    errors: dict[str, list[float]] = {key: [] for key in (*keys, *([replay.SIM_STATE] if states is not None else []))}
    for k, action in enumerate(record["action"]):
        for key in keys:
            errors[key].append(distance(obs[key], record[key][k], sim.spec.obs[key].names))
        if states is not None:
            errors[replay.SIM_STATE].append(distance(sim.state(), states[k], ()))
        step = body.step(action)
        for view in views:
            view.record(Tick(k, obs, action, step, "replay", None))
        obs, solved = step.obs, solved or bool(step.success)
    for view in views:
        view.end(Outcome(seed, len(record["action"]), solved, None, "success" if solved else "horizon"))
    return {key: Strayed(np.array(values)) for key, values in errors.items()}, solved


def distance(got: np.ndarray, want: np.ndarray, names: tuple[str, ...]) -> float:
    """Returns the largest difference of two observations; numbers whose name ends in "angle" differ the short way round [rad]."""
    difference = (np.asarray(got, float) - np.asarray(want, float)).ravel()
    angles = np.resize(np.array([name.endswith("angle") for name in names] or [False]), difference.size)
    return float(np.max(np.abs(np.where(angles, geometry.wrap(difference), difference)), initial=0.0))


def text(path: Path, figures: Mapping[str, Any]) -> str:
    """Returns what the terminal shows."""
    words = {True: "success", False: "no success", None: "nothing known"}
    lines = [f"{path}: episode {figures['episode']}, {figures['steps']} steps on {figures['task']} in real time"]
    for key, found in figures["keys"].items():
        first = found["first_beyond"]
        beyond = "never" if first is None else f"first at tick {first}"
        lines.append(
            f"  {key:<12} max {found['max_error']:.3g}, mean {found['mean_error']:.3g}, final {found['final_error']:.3g}, "
            f"beyond {figures['threshold']:g}: {beyond}"
        )
    lines.append(f"  {words[figures['success']]} again" if figures["success"] else f"  {words[figures['success']]} this time")
    lines.append(f"  recorded: {words[figures['recorded_success']]}")
    return "\n".join(lines)
