"""Study: policies from episodes recorded through SEW retargeting against a hand-pose IK, the same operator model on both."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps._operator import OperatorDevice, SimClock, lesson, parts_of, pilot_of
from robolearn.apps._report import write_json
from robolearn.apps._study_teleop import FOLLOWERS, MEASURES, collect, text
from robolearn.apps._trials import FIRST_TEST_SEED, Trial, in_order
from robolearn.core import ArraySpec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from robolearn.rollout import States, rollout
from robolearn.teleop.operator_model import Link, Person
from sim_envs import _base

ENV = {"action": "joint_abs"}
TASK, CONFIG = "lift", "lift_joint_flow"


@dataclass(frozen=True)
class Config:
    """How many episodes, trainings and evaluations; what is there already is kept, so the command goes on where it stopped."""

    episodes: int = 50
    """Successes recorded through each of the two."""
    trainings: int = 3
    """Policies trained on each set, with seeds 0, 1, ..."""
    steps: int = 2000
    """Optimiser steps of each."""
    eval_episodes: int = 100
    """Episodes each policy is evaluated on."""
    workers: int = 1
    """Processes that simulate."""
    threads: int = 1
    """Of torch."""
    jitter_s: float = 0.08
    """Of the link from the operator's device."""
    loss: float = 0.05
    """Share of the device's samples that never arrive."""
    out: Path = Path("data/study/teleop")
    """Sets and runs."""
    results: Path = Path("docs/results/teleop")
    """study.json and episodes.csv."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        for name, least in (("episodes", 1), ("trainings", 0), ("eval_episodes", 1), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: want at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Session:
    """A job that records: the operator model through one follower on every reset; picklable."""

    follower: str
    link: Link
    person: Person = field(default_factory=Person)

    def open(self) -> Any:
        """Returns the body, its clock, its device and its pilot."""
        body: Any = _base.make(TASK, ENV)
        body.reset(0)
        clock, learnt = SimClock(body.spec.hz), lesson(TASK)
        device = OperatorDevice(body.eef_pose, lambda: parts_of(learnt, body), 0, self.person, self.link, clock)
        return body, clock, device, pilot_of(body, device, "sew" if self.follower == "sew" else "hand")

    def attempt(self, body: Any, seed: int) -> Trial:
        """Returns what came of one reset: the episode where the person solved the task, the reason where not."""
        env, clock, device, pilot = body
        device.restart(seed)
        states, rows = States(env.state), Rows()
        outcome = rollout(env, pilot, max_steps=env.config.max_steps, seed=seed, sinks=[clock, states, rows], source="operator")
        if not outcome.success:
            return Trial(seed, 0.0, outcome.reason)
        arrays = {key: np.stack([row[key] for row in rows.rows]) for key in rows.rows[0]}
        return Trial(seed, 0.0, rows={**arrays, "sim_state": np.stack(states.states[:-1])})


class Rows(SimClock):
    """A sink that keeps observation and action of every tick."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.rows: list[dict[str, Any]] = []

    def record(self, tick: Any) -> None:
        """Keeps a tick."""
        self.rows.append({**tick.obs, "action": tick.asked})


def run(cfg: Config) -> int:
    """Records, trains and evaluates what is missing, then writes the figures of what there is."""
    cfg.out.mkdir(parents=True, exist_ok=True)
    for follower in FOLLOWERS:
        record(cfg, follower)
    for seed in range(cfg.trainings):
        for follower in FOLLOWERS:
            train(cfg, follower, seed)
            evaluate(cfg, follower, seed)
    runs = {name: {seed: _run(cfg, name, seed) / "states.zarr" for seed in range(cfg.trainings)} for name in FOLLOWERS}
    figures, rows = collect({name: cfg.out / f"{name}.zarr" for name in FOLLOWERS}, runs, joint_columns())
    figures = {"task": TASK, "env": ENV, "steps": cfg.steps, "jitter_s": cfg.jitter_s, "loss": cfg.loss} | figures
    cfg.results.mkdir(parents=True, exist_ok=True)
    write_json(cfg.results / "study.json", figures, seed=0)
    with (cfg.results / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("kind", "follower", "training", "seed", "success", "steps", *MEASURES))
        writer.writeheader()
        writer.writerows(rows)
    print(text(figures))
    return 0


def joint_columns() -> np.ndarray:
    """Returns where the arm's joint angles (7,) stand in `sim_state`: it begins with the time, then the model's positions."""
    body: Any = _base.make(TASK, ENV)
    with closing(body):
        return 1 + np.asarray(body.arms[0].qpos)


def record(cfg: Config, follower: str) -> None:
    """Records the wanted number of successes through one follower, or goes on where it stopped."""
    path, job = cfg.out / f"{follower}.zarr", Session(follower, Link(jitter_s=cfg.jitter_s, loss=cfg.loss))
    facts = {"follower": follower, "person": _plain(job.person), "link": _plain(job.link)}
    done = _open(path, facts) if path.exists() else _create(path, facts)
    seeds = done.episode_field("seed")
    first = 0 if seeds is None or not len(seeds) else int(seeds[-1]) + 1
    failed: list[str] = []
    todo = range(first, 20 + 5 * cfg.episodes) if done.n_episodes < cfg.episodes else range(0)
    for trial in in_order(job, todo, cfg.workers if len(todo) else 0):
        if trial.rows is None:
            failed.append(f"{trial.seed} {trial.reason}")
            continue
        done.append(trial.rows, seed=trial.seed, success=True, failures_before=json.dumps(failed))
        failed = []
        if done.n_episodes >= cfg.episodes:
            break
    if done.n_episodes < cfg.episodes:
        raise DatasetError(f"{path}: {done.n_episodes} of {cfg.episodes} episodes; the operator failed too often")


def _open(path: Path, facts: dict[str, Any]) -> EpisodeSet:
    done = EpisodeSet.open(path, writable=True)
    if done.attrs.get("study") != facts:
        raise DatasetError(f"{path}: was recorded with {done.attrs.get('study')}, not {facts}; give another --out")
    return done


def _create(path: Path, facts: dict[str, Any]) -> EpisodeSet:
    with closing(_base.make(TASK, ENV)) as body:
        extra = {"sim_state": ArraySpec((len(body.state()),), "float64")}
        return EpisodeSet.create(path, body.spec, task=TASK, env=ENV, meta={"study": facts}, extra=extra)


def _plain(part: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(part)))
    return values


def train(cfg: Config, follower: str, seed: int) -> None:
    """Trains one policy, unless it is there; half of one is resumed."""
    run = _run(cfg, follower, seed)
    if (run / "done.txt").exists():
        return
    words = ["train", CONFIG, "--dataset.path", str(cfg.out / f"{follower}.zarr"), "--out", str(run), "--seed", str(seed)]
    words += ["--steps", str(cfg.steps), "--threads", str(cfg.threads), "--device", "cpu", "--no-tensorboard"]
    _call([*words, "--precision", "fp32", *(["--resume"] if run.exists() else [])])
    (run / "done.txt").write_text(f"{cfg.steps}\n")


def evaluate(cfg: Config, follower: str, seed: int) -> None:
    """Evaluates one policy on the test seeds, unless that is done."""
    run = _run(cfg, follower, seed)
    result = _result(cfg, run)
    if result.exists():
        return
    words = ["eval", str(run), "--episodes", str(cfg.eval_episodes), "--seed", str(FIRST_TEST_SEED), "--videos", "0"]
    words += ["--workers", str(cfg.workers), "--device", "cpu", "--overwrite", "--save-states", str(run / "states.zarr")]
    _call([*words, "--json", str(result)])


def _run(cfg: Config, follower: str, seed: int) -> Path:
    return cfg.out / f"{follower}_{seed}"


def _result(cfg: Config, run: Path) -> Path:
    return run / f"evaluated_{cfg.eval_episodes}.json"


def _call(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "robolearn", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise BadInput(f"study teleop: robolearn {' '.join(words[:2])} ended with {done.returncode}: {done.stdout[-300:]}")
