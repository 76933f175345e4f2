"""Turns one human demonstration into many: adapted to new object places, tracked by the simulated body, successes kept."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps._expand import RECIPES
from robolearn.apps._report import plain, write_json
from robolearn.apps._trials import HOPELESS, Attempts, Trial, Tries, in_order
from robolearn.core import ArraySpec
from robolearn.data.convert.robosuite_demo import Demo, read_demo
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, ConfigError, DatasetError, Findings, nearest
from sim_envs import _base

DEMOS = Path("data/demos/robosuite-human")


@dataclass(frozen=True)
class Config(Attempts):
    """What to expand, on which body, how often."""

    source: Annotated[str, tyro.conf.Positional]
    """A demo.hdf5, or the task whose demonstration `robolearn data fetch robosuite-human` brought."""
    task: str | None = None
    """The task, where the file could serve several."""
    robot: Literal["Panda", "UR5e", "IIWA", "Kinova3"] = "Panda"
    """The arm that follows."""
    action: Literal["pose_abs", "joint_abs"] = "pose_abs"
    """What the arm is told."""
    noise: float = 0.0
    """Of what is carried out, while what is recorded stays clean [m; turns by a lever of 0.1 m]."""
    image_size: int = 84
    """Of the pictures [px]."""

    def __post_init__(self) -> None:
        """Refuses what cannot be expanded; ValueError names the field."""
        super().__post_init__()
        if self.noise < 0:
            raise ValueError(f"noise: want at least 0, got {self.noise:g}")

    @property
    def env(self) -> dict[str, Any]:
        """Overrides that rebuild the body."""
        images = {"cameras": list(self.cameras), "image_size": self.image_size} if self.cameras else {}
        return {"robot": self.robot, "action": self.action, **images}


def run(cfg: Config) -> int:
    """Expands one demonstration into `episodes` successes and prints the yield and the reasons of the failures."""
    path = find_source(cfg.source)
    demo = read_demo(path)
    task = choose_task(cfg, demo, path)
    tries = Tries(path, task, cfg.env, cfg.noise)
    done = open_existing(cfg, tries, demo)
    book = Book.resume(cfg, done)
    started = time.monotonic()
    with tqdm(total=cfg.episodes, initial=len(book.steps), desc=f"expand {task}", disable=not sys.stderr.isatty()) as bar:
        for trial in in_order(tries, range(book.next_seed, cfg.seed + cfg.most_attempts), cfg.workers if not book.full else 0):
            if trial.rows is not None and done is None:
                done = create(cfg, tries, demo)
            book.add(trial, done, tries)
            bar.update(trial.rows is not None)
            bar.set_postfix_str(f"{len(book.steps)} of {book.attempts} attempts")
            if book.full or (not book.steps and book.attempts >= HOPELESS):
                break
    report = book.figures(cfg, task, demo, time.monotonic() - started)
    print_table(report)
    write_json(cfg.json, report, cfg.seed)
    if not book.full:
        raise Findings(f"{cfg.out}: {len(book.steps)} of {cfg.episodes} episodes after {book.attempts} attempts")
    return 0


def find_source(source: str) -> Path:
    """Returns the demo.hdf5 that `source` names: a path, or a task of the fetched demonstrations."""
    path = Path(source)
    if path.exists():
        return path
    if source not in RECIPES:
        raise ConfigError(f"source: no file '{source}', and no task of that name{nearest(source, RECIPES)}")
    found = sorted(DEMOS.glob("**/demo.hdf5"))
    for candidate in found:
        if read_demo(candidate).task == RECIPES[source].source:
            return candidate
    raise DatasetError(f"{DEMOS}: no demonstration of '{source}' there; get them with: robolearn data fetch robosuite-human")


def choose_task(cfg: Config, demo: Demo, path: Path) -> str:
    """Returns the task to expand for: the one asked for, or the first that is cut out of such a recording."""
    fitting = [name for name, recipe in RECIPES.items() if recipe.source == demo.task]
    task = cfg.task or (cfg.source if cfg.source in fitting else next(iter(fitting), ""))
    if task not in fitting:
        raise ConfigError(f"{path}: holds '{demo.env_name}', which cannot be expanded for task '{task}'{nearest(task, RECIPES)}")
    return task


@dataclass
class Book:
    """The count of attempts, kept so that a resumed expansion ends with the same figures as an uninterrupted one."""

    wanted: int
    next_seed: int
    attempts: int
    steps: list[int]
    reasons: Counter[str]
    since: list[str]  # reasons of the failures after the last success
    cpu_s: list[float]

    @classmethod
    def resume(cls, cfg: Config, done: EpisodeSet | None) -> Book:
        """Returns the book of what `done` holds already, an empty one for None."""
        if done is None or not done.n_episodes:
            return cls(cfg.episodes, cfg.seed, 0, [], Counter(), [], [])
        seeds, failures = done.episode_field("seed"), done.episode_field("failures_before")
        assert seeds is not None and failures is not None
        reasons = Counter(reason for text in failures for reason in json.loads(text))
        steps = np.diff(done.episode_ends, prepend=0).tolist()
        following = int(seeds[-1]) + 1
        return cls(cfg.episodes, following, following - cfg.seed, steps, reasons, [], [])

    @property
    def full(self) -> bool:
        """Whether all wanted episodes are there."""
        return len(self.steps) >= self.wanted

    def add(self, trial: Trial, done: EpisodeSet | None, tries: Tries) -> None:
        """Counts a trial, and appends its episode to the set if it was a success."""
        self.attempts += 1
        self.cpu_s.append(trial.cpu_s)
        if trial.rows is None:
            self.reasons[trial.reason] += 1
            self.since.append(trial.reason)
            return
        assert done is not None
        done.append(
            trial.rows,
            seed=trial.seed,
            success=True,
            source=tries.source.sha256,
            cuts=json.dumps(asdict(tries.cuts)),
            transforms=json.dumps(plain(trial.transforms)),
            failures_before=json.dumps(self.since),
        )
        self.steps.append(len(trial.rows["action"]))
        self.since = []

    def figures(self, cfg: Config, task: str, demo: Demo, wall_s: float) -> dict[str, Any]:
        """Returns what the report says."""
        return {
            "task": task,
            "robot": cfg.robot,
            "action": cfg.action,
            "noise": cfg.noise,
            "source": demo.source_sha256,
            "out": cfg.out,
            "attempts": self.attempts,
            "successes": len(self.steps),
            "yield": len(self.steps) / self.attempts if self.attempts else None,
            "reasons": dict(self.reasons.most_common()),
            "steps_mean": float(np.mean(self.steps)) if self.steps else None,
            "steps_max": max(self.steps, default=None),
            "attempt_cpu_s": float(np.median(self.cpu_s)) if self.cpu_s else None,
            "wall_s": wall_s,
        }


def open_existing(cfg: Config, tries: Tries, demo: Demo) -> EpisodeSet | None:
    """Returns the set to continue, None where a new one is to be made; AlreadyExists without --resume or --overwrite."""
    if not cfg.out.exists() or cfg.overwrite:
        return None
    if not cfg.resume:
        raise AlreadyExists(cfg.out, "dataset", resume=True)
    done = EpisodeSet.open(cfg.out, writable=True)
    for name, value in facts_of(cfg, tries, demo).items():
        if done.attrs.get("expand", {}).get(name) != value:
            raise DatasetError(
                f"{cfg.out}: was expanded with {name} {done.attrs.get('expand', {}).get(name)}, not {value}; "
                "give the same flags, or --overwrite"
            )
    return done


def create(cfg: Config, tries: Tries, demo: Demo) -> EpisodeSet:
    """Returns a new, empty set for the body's observations, actions and simulator states."""
    body = _base.make(tries.task, tries.env)
    state = ArraySpec((len(body.state()),), "float64")
    versions = body.versions()  # type: ignore[attr-defined]
    meta = {"robot": cfg.robot, "expand": facts_of(cfg, tries, demo), "simulator": versions}
    try:
        return EpisodeSet.create(
            cfg.out, body.spec, task=tries.task, env=cfg.env, meta=meta, extra={"sim_state": state}, overwrite=cfg.overwrite
        )
    finally:
        body.close()


def facts_of(cfg: Config, tries: Tries, demo: Demo) -> dict[str, Any]:
    """Returns what must be the same for an expansion to go on."""
    return {
        "task": tries.task,
        "source_sha256": demo.source_sha256,
        "source_env": demo.env_name,
        "source_robot": demo.robot,
        "env": cfg.env,
        "noise": cfg.noise,
        "first_seed": cfg.seed,
    }


def print_table(report: dict[str, Any]) -> None:
    """Prints yield, length and time of the attempts, and why attempts failed."""
    rate = "-" if report["yield"] is None else f"{100 * report['yield']:.0f} %"
    print(f"{report['task']}: {report['successes']} episodes of {report['attempts']} attempts ({rate}) -> {report['out']}")
    if report["steps_mean"] is not None and report["attempt_cpu_s"] is not None:
        print(f"  {report['steps_mean']:.0f} steps an episode, {report['attempt_cpu_s']:.2f} s of processor time an attempt")
    for reason, count in report["reasons"].items():
        print(f"  {count:5d} failed: {reason}")
