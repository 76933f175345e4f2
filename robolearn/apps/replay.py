"""Replay the recorded actions of a dataset on its task, open loop, and report how far the body strays from the record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from robolearn import geometry
from robolearn.apps import _video
from robolearn.apps._report import write_json
from robolearn.core import Obs, SimEnv
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from sim_envs import _base as tasks

SIM_STATE = "sim_state"


@dataclass(frozen=True)
class Config:
    """What to replay."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """A dataset folder (.zarr)."""
    task: str = ""
    """The task to replay on; the dataset's own where nothing is said."""
    episodes: int = 0
    """How many episodes; 0: all."""
    max_error: float | None = None
    """End with exit code 1 where any state strays further than this."""
    video: Path | None = None
    """Film one episode to this .mp4."""
    episode: int = 0
    """Which one, for --video and --live."""
    live: bool = False
    """Play that one episode at the body's own pace and report its divergence over time."""
    watch: bool = False
    """Show it in a browser while it plays; says where."""
    threshold: float = 0.01
    """With --live: from which error on a tick counts as strayed, in the key's own unit."""
    json: Path | None = None
    """Write the figures to this file."""


@dataclass
class Divergence:
    """The largest differences met so far: of lengths and other plain numbers, of angles [rad], and where."""

    plain: float = 0.0
    angle: float = 0.0
    equal_steps: int = 0
    worst_episode: int = -1

    def add(self, episode: int, got: np.ndarray, want: np.ndarray, angles: np.ndarray) -> None:
        """Counts one step: `angles` (n,) bool marks the numbers that are angles."""
        difference = np.abs(np.asarray(got, dtype=float) - np.asarray(want, dtype=float)).ravel()
        turned = np.abs(geometry.wrap(difference[angles]))
        straight = float(np.max(difference[~angles], initial=0.0))
        if straight > self.plain:
            self.plain, self.worst_episode = straight, episode
        self.angle = max(self.angle, float(np.max(turned, initial=0.0)))
        self.equal_steps += bool(np.array_equal(got, want))


@dataclass
class Replay:
    """What the replays of one set came to."""

    steps: int = 0
    from_seed: dict[str, Divergence] = field(default_factory=dict)
    from_state: dict[str, Divergence] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    successes: int = 0


def run(cfg: Config) -> int:
    """Replays all episodes from their seeds and, where states are recorded, from their first state."""
    dataset = EpisodeSet.open(cfg.dataset)
    task = cfg.task or dataset.task
    if not task:
        raise BadInput(f"{cfg.dataset}: names no task; give --task (known: {', '.join(tasks.names())})")
    if cfg.live or cfg.watch:
        from robolearn.apps import _replay_live

        played = _replay_live.run(dataset, task, cfg.episode, cfg.threshold, cfg.watch)
        print(_replay_live.text(cfg.dataset, played))
        write_json(cfg.json, played)
        return int(cfg.max_error is not None and max(key["max_error"] for key in played["keys"].values()) > cfg.max_error)
    n = min(cfg.episodes or dataset.n_episodes, dataset.n_episodes)
    with closing(tasks.make(task, body_of(dataset, task))) as body:
        check(dataset, body)
        found = Replay()
        for episode in tqdm(range(n), unit="episode", disable=None):
            replay_episode(dataset, body, episode, found)
        if cfg.video is not None:
            film(dataset, body, cfg.episode, cfg.video)
    figures = to_figures(task, n, found)
    print(text(cfg.dataset, figures, found))
    write_json(cfg.json, figures)
    worst = max((d.plain for d in (*found.from_seed.values(),)), default=0.0)
    return int(cfg.max_error is not None and worst > cfg.max_error)


def film(dataset: EpisodeSet, body: SimEnv, episode: int, path: Path) -> None:
    """Writes the video of one replayed episode."""
    rows = dataset.span(episode)
    seed = seed_of(dataset, episode)
    start(body, seed, None if seed is not None else dataset.read(SIM_STATE, *rows)[0])
    _video.write_mp4(path, _video.frames(body, dataset.read("action", *rows)), body.spec.hz)


def body_of(dataset: EpisodeSet, task: str) -> Mapping[str, Any]:
    """Returns the overrides of the body the set came from, without cameras: pictures are not compared."""
    return tasks.with_cameras(dataset.env, ()) if dataset.task == task else {}


def check(dataset: EpisodeSet, body: SimEnv) -> None:
    """Raises DatasetError where the recorded actions are not those of the body, or nothing can be compared."""
    have = dataset.keys.get("action")
    if have is None or have.shape != body.spec.action.shape:
        got = "none" if have is None else f"shape {have.shape}"
        raise DatasetError(f"{dataset.path}: action has {got}, the task takes shape {body.spec.action.shape}")
    if not compared(dataset, body) and SIM_STATE not in dataset.keys:
        raise DatasetError(
            f"{dataset.path}: holds neither '{SIM_STATE}' nor an observation of the task ({', '.join(body.spec.obs)})"
        )


def compared(dataset: EpisodeSet, body: SimEnv) -> list[str]:
    """Returns the observations that set and body share, pictures left out."""
    return [key for key, array in body.spec.obs.items() if key in dataset.keys and not array.is_image]


def seed_of(dataset: EpisodeSet, episode: int) -> int | None:
    """Returns the seed of an episode: its fact `seed`, or its number in a set that says nothing; None where it had none."""
    seeds = dataset.episode_field("seed")
    if seeds is None:
        return episode if dataset.spec is None else None
    return int(seeds[episode]) if seeds[episode] >= 0 else None


def replay_episode(dataset: EpisodeSet, body: SimEnv, episode: int, found: Replay) -> None:
    """Replays one episode from its seed, and again from its first recorded state."""
    record = {key: dataset.read(key, *dataset.span(episode)) for key in (*compared(dataset, body), "action")}
    states = dataset.read(SIM_STATE, *dataset.span(episode)) if SIM_STATE in dataset.keys else None
    seed = seed_of(dataset, episode)
    found.steps += len(record["action"])
    if seed is not None:
        follow(body, start(body, seed, None), record, states, episode, found.from_seed, found)
    first = states[0] if states is not None else pose_of(body, record)
    if first is not None:
        follow(body, start(body, None, first), record, states, episode, found.from_state, None if seed is not None else found)


def pose_of(body: SimEnv, record: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Returns the first recorded pose of a body that can be put there (its `state` observation is one)."""
    return record["state"][0].astype(float) if body.task == "pusht" and "state" in record else None  # type: ignore[attr-defined]


def start(body: SimEnv, seed: int | None, state: np.ndarray | None) -> Obs:
    """Returns the first observation, from a seed or from a state."""
    return body.reset(seed) if state is None else body.restore(state)


def follow(
    body: SimEnv,
    obs: Obs,
    record: Mapping[str, np.ndarray],
    states: np.ndarray | None,
    episode: int,
    into: dict[str, Divergence],
    book: Replay | None,
) -> None:
    """Runs the recorded actions and counts the differences before each of them; books score and success in `book`."""
    score, solved = 0.0, False
    for k, action in enumerate(record["action"]):
        for key in record:
            if key != "action":
                names = body.spec.obs[key].names
                angles = np.array([name.endswith("angle") for name in names] or [False] * obs[key].size)
                into.setdefault(key, Divergence()).add(episode, obs[key], record[key][k], np.resize(angles, obs[key].size))
        if states is not None:
            now = body.state()
            into.setdefault(SIM_STATE, Divergence()).add(episode, now, states[k], np.zeros(now.size, bool))
        step = body.step(action)
        obs, score, solved = step.obs, max(score, step.score or 0.0), solved or bool(step.success)
    if book is not None:
        book.scores.append(score)
        book.successes += solved


def to_figures(task: str, episodes: int, found: Replay) -> dict[str, Any]:
    """Returns what `replay --json` keeps; PushT's figures are in px."""
    figures: dict[str, Any] = {"task": task, "episodes": episodes, "steps": found.steps}
    if task == "pusht" and "state" in found.from_seed:
        figures["max_state_error_px"] = found.from_seed["state"].plain
        figures["max_error_from_state_px"] = found.from_state["state"].plain
    for name, divergences in (("from_seed", found.from_seed), ("from_state", found.from_state)):
        figures[name] = {
            key: {
                "max_error": d.plain,
                "max_angle_error_rad": d.angle,
                "equal_steps": d.equal_steps,
                "worst_episode": d.worst_episode,
            }
            for key, d in divergences.items()
        }
    if found.scores:
        figures |= {"score_mean": float(np.mean(found.scores)), "success_rate": found.successes / len(found.scores)}
    return figures


def text(path: Path, figures: Mapping[str, Any], found: Replay) -> str:
    """Returns what the terminal shows."""
    lines = [f"{path}: {figures['episodes']} episodes, {figures['steps']} steps replayed on {figures['task']}, open loop"]
    for title, divergences in (("from reset(seed)", found.from_seed), ("from the first state", found.from_state)):
        for key, d in divergences.items():
            where = f", worst in episode {d.worst_episode}" if d.worst_episode >= 0 else ""
            lines.append(
                f"  {title:<21}{key:<12} max error {d.plain:.3g}, equal in {d.equal_steps} of {figures['steps']} steps{where}"
            )
    if found.scores:
        lines.append(f"  score {figures['score_mean']:.3f}, success {figures['success_rate']:.3f}")
    return "\n".join(lines)
