"""Record episodes of a task into a dataset: its expert, fast or live, an operator model, or a person with a device."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
import yaml
from tqdm import tqdm

from robolearn.apps._report import write_json
from robolearn.apps._trials import HOPELESS, Attempts, Trial, in_order
from robolearn.core import ArraySpec, Outcome, SimEnv, Spec, Tick
from robolearn.data._codec import CodecName
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError, Findings
from robolearn.rollout import rollout
from sim_envs import _base


@dataclass(frozen=True)
class Config(Attempts):
    """What to record, driven by whom, how often."""

    task: Annotated[str, tyro.conf.Positional]
    """The task."""
    driver: str = "expert"
    """Who drives: expert (the task's script, which sees the whole state), operator (a model of a person), or a device's name."""
    robot: str = ""
    """The arm, where the task has one; empty: the task's own."""
    action: str = ""
    """What the body is told; empty: the task's own."""
    image_size: int = 0
    """Of the pictures [px]; 0: the task's own."""
    live: bool = False
    """At the body's own pace through the recorder, as an arm would be: real clocks, crash-safe, failures kept and labelled."""
    codec: CodecName = "jpeg"
    """Of the pictures, with --live: jpeg (quality 95), or png or jxl, which lose nothing."""
    start: Literal["", "enter", "auto"] = ""
    """When an episode begins, with --live: on enter, or by itself; empty: by itself unless a device drives."""
    auto_stop: int = 1
    """An episode ends when success was held for so many ticks in a row, with --live; 0: only a person ends it."""
    max_steps: int = 0
    """Ticks of an episode at most, with --live; 0: the task's own."""
    person: str = ""
    """Who holds the device: kept with every episode and its labels."""
    env_set: tuple[str, ...] = ()
    """Fields of the task's config, FIELD=VALUE each (`memory_steps=64`)."""
    device_set: tuple[str, ...] = ()
    """Fields of the device, FIELD=VALUE each."""
    watch: bool = False
    """Show the scene in a browser, with --live; says where."""
    ghost: Path | None = None
    """Lay the first picture of this set over the view, to match its scene."""
    plain: bool = False
    """Plain lines instead of the screen."""
    beep: bool = False
    """Ring the terminal's bell at every message."""

    @property
    def env(self) -> dict[str, Any]:
        """Overrides that rebuild the body: what was given."""
        given = {name: getattr(self, name) for name in ("robot", "action", "image_size") if getattr(self, name)}
        given |= {"cameras": list(self.cameras)} if self.cameras else {}
        return given | {field: yaml.safe_load(value) for field, _, value in (item.partition("=") for item in self.env_set)}


def run(cfg: Config) -> int:
    """Records until `episodes` successes are kept and prints the yield and the reasons of the failures."""
    _base.configure(cfg.task, cfg.env)  # before anything is written
    if cfg.live or cfg.driver != "expert" or cfg.watch or cfg.ghost is not None:
        from robolearn.apps import _session_live  # brings devices and MuJoCo along

        return _session_live.run(cfg)
    job = Drives(cfg.task, cfg.env)
    started = time.monotonic()
    done = open_or_create(cfg)
    seeds = done.episode_field("seed")
    first = cfg.seed if seeds is None or not len(seeds) else int(seeds[-1]) + 1
    todo = range(first, cfg.seed + cfg.most_attempts) if done.n_episodes < cfg.episodes else range(0)
    attempts, reasons = first - cfg.seed, Counter[str]()
    if attempts > done.n_episodes:
        reasons["before the command was resumed"] = attempts - done.n_episodes
    with tqdm(total=cfg.episodes, initial=done.n_episodes, desc=f"record {cfg.task}", disable=not sys.stderr.isatty()) as bar:
        for trial in in_order(job, todo, cfg.workers):
            attempts += 1
            if trial.rows is None:
                reasons[trial.reason] += 1
            else:
                done.append(trial.rows, seed=trial.seed, success=True)
                bar.update()
            if done.n_episodes >= cfg.episodes or (not done.n_episodes and attempts >= HOPELESS):
                break
    tell(cfg, done, attempts, reasons, time.monotonic() - started)
    if done.n_episodes < cfg.episodes:
        raise Findings(f"{cfg.out}: {done.n_episodes} of {cfg.episodes} episodes after {attempts} attempts")
    return 0


def tell(cfg: Config, done: EpisodeSet, attempts: int, reasons: Counter[str], wall_s: float) -> None:
    """Prints the yield and the reasons of the failures, and writes them to --json."""
    steps = np.diff(done.episode_ends, prepend=0)
    share = f"{100 * done.n_episodes / attempts:.0f} %" if attempts else "-"
    print(f"{cfg.task}: {done.n_episodes} episodes of {attempts} attempts ({share}) -> {cfg.out}")
    for reason, count in reasons.most_common():
        print(f"  {count:5d} failed: {reason}")
    report = {
        "task": cfg.task,
        "driver": cfg.driver,
        "env": cfg.env,
        "out": cfg.out,
        "attempts": attempts,
        "successes": done.n_episodes,
        "yield": done.n_episodes / attempts if attempts else None,
        "reasons": dict(reasons.most_common()),
        "steps_mean": float(steps.mean()) if len(steps) else None,
        "steps_max": int(steps.max()) if len(steps) else None,
        "wall_s": wall_s,
    }
    write_json(cfg.json, report, cfg.seed)


@dataclass(frozen=True)
class Drives:
    """Episodes that a task's scripted expert drives, one a seed; picklable."""

    task: str
    env: Mapping[str, Any]

    def open(self) -> SimEnv:
        """Returns the body."""
        return _base.make(self.task, self.env)

    def attempt(self, body: SimEnv, seed: int) -> Trial:
        """Returns the rows of one episode, or why it failed."""
        started = time.process_time()
        rows = Rows(body)
        outcome = rollout(body, _base.expert(body, seed), max_steps=body.config.max_steps, seed=seed, sinks=[rows])  # type: ignore[attr-defined]
        spent = time.process_time() - started
        return Trial(seed, spent, rows=rows.stacked()) if outcome.success else Trial(seed, spent, outcome.reason)


@dataclass
class Rows:
    """A sink that keeps what a set stores: row k is the observation and the simulator's state before action k, and the action."""

    body: SimEnv
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Keeps the first state."""
        self.rows, self._state = [], self.body.state()

    def record(self, tick: Tick) -> None:
        """Keeps one tick."""
        self.rows.append({**tick.obs, "action": tick.asked, "sim_state": self._state})
        self._state = self.body.state()

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Keeps the rows for whoever asks."""

    def stacked(self) -> dict[str, np.ndarray]:
        """Returns the rows as arrays (steps, ...) by key."""
        return {key: np.stack([row[key] for row in self.rows]) for key in self.rows[0]}


def open_or_create(cfg: Config) -> EpisodeSet:
    """Returns the set to go on with, or a new one; AlreadyExists without --resume or --overwrite."""
    facts = {"task": cfg.task, "driver": cfg.driver, "env": cfg.env, "first_seed": cfg.seed}
    if cfg.out.exists() and not cfg.overwrite:
        if not cfg.resume:
            raise AlreadyExists(cfg.out, "dataset", resume=True)
        done = EpisodeSet.open(cfg.out, writable=True)
        for name, value in facts.items():
            if done.attrs.get("record", {}).get(name) != value:
                raise DatasetError(
                    f"{cfg.out}: was recorded with {name} {done.attrs.get('record', {}).get(name)}, not {value}; "
                    "give the same flags, or --overwrite"
                )
        return done
    with closing(_base.make(cfg.task, cfg.env)) as body:
        extra = {"sim_state": ArraySpec(body.state().shape, "float64")}
        meta = {"record": facts, "simulator": body.versions()}  # type: ignore[attr-defined]
        return EpisodeSet.create(cfg.out, body.spec, task=cfg.task, env=cfg.env, meta=meta, extra=extra, overwrite=cfg.overwrite)
