"""Evaluates a run, or a task's scripted expert, on numbered seeds; `eval`, `compare` and `demo` all do it here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps._watched import Watched
from robolearn.core import Outcome, SimEnv, Spec
from robolearn.errors import BadInput
from robolearn.intervals import mean95, wilson95
from robolearn.policies._verified import Verification, Verified
from robolearn.rollout import States, rollout
from robolearn.rollout_vector import Record, rollout_vector
from sim_envs import _base as tasks
from sim_envs import perturb
from sim_envs._pool import Here, Pool

EXPERT = "expert:"
BODIES_PER_WORKER = 8


@dataclass(frozen=True)
class Options:
    """How to evaluate: seeds seed..seed+episodes-1, on which machine, with which sampling."""

    episodes: int = 200
    seed: int = 100_000
    workers: int = 2  # processes that simulate; 0: this one
    envs_per_worker: int = 0  # 0: as many as share the work evenly, at most 8 (2 where there are images)
    max_steps: int = 0  # 0: the task's own
    device: str = "cpu"
    checkpoint: str = "last"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    keep_states: bool = False
    verify: Verification = Verification(draws=1)  # of every plan against the executed past; 1: none
    monitor: str = ""  # RUN/monitors/NAME watches every episode; "": none
    disturb: str = ""  # disturbances of the episodes, as `sim_envs.perturb.parse` reads them

    @property
    def seeds(self) -> range:
        """The episode seeds."""
        return range(self.seed, self.seed + self.episodes)

    @property
    def name(self) -> str:
        """The name of the result's folder: equal options, equal name."""
        extra = [f"_{key}{value}" for key, value in sorted(self.sampling.items())]
        extra += [f"_max{self.max_steps}"] if self.max_steps else []
        how = self.verify
        tails = [f"_{name}{value:g}" for name, value in (("agree", how.agree), ("least", how.least)) if value]
        extra += [f"_verified{how.draws}", *tails] if how.draws > 1 else []
        extra += [f"_{self.checkpoint}"] if self.checkpoint != "last" else []
        extra += [f"_{self.monitor}"] if self.monitor else []
        extra += [f"_{hashlib.sha256(self.disturb.encode()).hexdigest()[:8]}"] if self.disturb else []
        return f"{self.seed}_{self.episodes}" + "".join(extra)


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run folder with the task it was trained for, or the expert of a task."""

    label: str
    task: str
    env: Mapping[str, Any]
    run: Path | None = None
    checkpoint: Path | None = None

    @property
    def weights_sha256(self) -> str | None:
        """The fingerprint of the weights, None for an expert."""
        if self.checkpoint is None:
            return None
        return hashlib.sha256((self.checkpoint / "weights.safetensors").read_bytes()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where results are kept."""
        return (self.run or Path("data/runs") / f"expert_{self.task}") / "eval"


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation; records are in the order of the seeds."""

    subject: Subject
    options: Options
    max_steps: int
    records: list[Record]
    versions: Mapping[str, str]
    spec: Spec
    wall_s: float
    tally: Mapping[str, int] = field(default_factory=dict)  # what the policy counted, such as plans it did not follow

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row an episode: seed, success, score, steps, reason. An episode that crashed counts as failed with score 0."""
        return [row(record.outcome) for record in self.records]

    def figures(self) -> dict[str, Any]:
        """Returns what `eval --json` keeps."""
        return (
            summary(self.rows)
            | watched(self.rows, self.options.monitor)
            | {
                "task": self.subject.task,
                "run": self.subject.label,
                "checkpoint": self.subject.checkpoint.name if self.subject.checkpoint else None,
                "weights_sha256": self.subject.weights_sha256,
                "env": dict(self.subject.env),
                "seeds": list(self.options.seeds),
                "max_steps": self.max_steps,
                "sampling": dict(self.options.sampling),
                "verify": asdict(self.options.verify),
                "disturb": self.options.disturb,
                "score_interval": "percentile bootstrap over episodes, 10000 resamples",
                "physics": dict(self.versions),
                "wall_s": round(self.wall_s, 1),
                **self.tally,
                "episodes": self.rows,
            }
        )


def row(outcome: Outcome) -> dict[str, Any]:
    """Returns the table row of one episode."""
    score = outcome.score
    if score is None:
        score = float(bool(outcome.success))
    return {
        "seed": outcome.seed,
        "success": bool(outcome.success),
        "score": 0.0 if outcome.reason == "crashed" else float(score),
        "steps": outcome.steps,
        "reason": outcome.reason,
        "alarm_step": outcome.alarm_step,
    }


def watched(rows: Sequence[Mapping[str, Any]], monitor: str) -> dict[str, Any]:
    """Returns what a monitor would have stopped: failures halted before their end, and successes disturbed."""
    if not monitor:
        return {}
    failed = [r["alarm_step"] is not None for r in rows if not r["success"]]
    solved = [r["alarm_step"] is not None for r in rows if r["success"]]
    return {
        "monitor": monitor,
        "failures_halted": sum(failed),
        "failures_halted_wilson95": list(wilson95(sum(failed), len(failed))),
        "successes_disturbed": sum(solved),
        "successes_disturbed_wilson95": list(wilson95(sum(solved), len(solved))),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns n, success rate and mean score of table rows with their 95 % intervals."""
    solved = sum(r["success"] for r in rows)
    scores = [r["score"] for r in rows]
    return {
        "n": len(rows),
        "successes": solved,
        "success_rate": solved / len(rows),
        "wilson95": list(wilson95(solved, len(rows))),
        "score_mean": float(np.mean(scores)),
        "score_interval95": list(mean95(scores)),
        "crashed": sum(r["reason"] == "crashed" for r in rows),
    }


def find(what: str, checkpoint: str = "last") -> Subject:
    """Returns the subject `what` names: a run folder, or expert:TASK; one clear error where there is none."""
    if what.startswith(EXPERT):
        task = what.removeprefix(EXPERT)
        tasks.configure(task)
        return Subject(what, task, {})
    from robolearn.training import checkpoint as checkpoints  # torch: only where a network is loaded

    run = Path(what)
    folder = checkpoints.resolve(run, checkpoint)
    cfg = checkpoints.read_config(folder)
    if not cfg.task:
        raise BadInput(f"{run}: its config names no task to evaluate on; train with --task")
    return Subject(str(run), cfg.task, cfg.env, run, folder)


def evaluate(subject: Subject, options: Options, on_record: Callable[[Record], object] = lambda record: None) -> Evaluation:
    """Returns the finished evaluation of `subject`; `on_record` is told each episode as it ends."""
    if subject.run is None and options.verify.draws > 1:
        raise BadInput(f"eval: {subject.label} predicts no past actions to verify its plans with")
    if subject.run is None and (options.monitor or options.disturb):
        raise BadInput(f"eval: {subject.label} is no run folder; --monitor and --disturb are for trained policies")
    if options.episodes < 1:
        raise BadInput(f"eval: want at least one episode, got {options.episodes}")
    began = time.monotonic()
    run = _evaluate_expert if subject.run is None else _evaluate_network
    records, max_steps, versions, spec, tally = run(subject, options, on_record)
    return Evaluation(subject, options, max_steps, records, versions, spec, time.monotonic() - began, tally)


def _evaluate_network(subject: Subject, options: Options, on_record: Callable[[Record], object]) -> tuple[Any, ...]:
    from robolearn.training.checkpoint import load_driver

    assert subject.checkpoint is not None
    workers = max(1, min(options.workers, options.episodes))  # 0: in this process
    most = options.envs_per_worker or min(BODIES_PER_WORKER, -(-options.episodes // workers))
    policy = load_driver(subject.checkpoint, _device(options.device), workers * most, options.sampling)
    driver = verified(policy, options.verify, workers * most) if options.verify.draws > 1 else policy
    watch = _watch(subject, options, driver, workers * most)
    images = [key for key, array in policy.spec.obs.items() if array.is_image]
    env = tasks.with_cameras(subject.env, images)
    max_steps = options.max_steps or tasks.configure(subject.task, env).max_steps
    bodies = most if options.envs_per_worker or not images else min(2, most)
    make = body_maker(subject.task, dict(env) | {"max_steps": max_steps}, options.disturb)
    where = Pool(make, workers, bodies, options.keep_states) if options.workers else Here(make, bodies, options.keep_states)
    with where as pool:
        driver.meet(pool.spec)
        records = rollout_vector(pool, watch or driver, options.seeds, max_steps=max_steps, on_record=on_record)
        return watch.noted(records) if watch else records, max_steps, pool.versions, pool.spec, driver.tally()


def body_maker(task: str, env: Mapping[str, Any], disturb: str) -> Callable[[], SimEnv]:
    """Returns what makes a task's body, in this process or another, under disturbances if there are any."""
    return partial(perturb.make, task, env, perturb.parse(disturb)) if disturb else partial(tasks.make, task, env)


def _watch(subject: Subject, options: Options, driver: Any, streams: int) -> Watched | None:
    """Returns the policy with its monitor, if one is asked for; BadInput or CheckpointError where it is not this policy's."""
    if not options.monitor:
        return None
    if options.verify.draws > 1:
        raise BadInput("eval: --verify chooses among draws of its own and gives none to a --monitor; want one of them")
    if options.sampling:
        changed = ", ".join(f"--{name}" for name in options.sampling)
        raise BadInput(f"eval: {changed} changes the plans that monitor '{options.monitor}' was calibrated on; leave it out")
    from robolearn.monitors import _folder

    assert subject.run is not None
    detector, _ = _folder.load(subject.run / "monitors" / options.monitor, subject.weights_sha256)
    return Watched(driver, detector, subject.task, streams, options.monitor)


def verified(policy: Any, how: Verification, streams: int = 1) -> Verified:
    """Returns a trained policy whose plans are verified against the executed past."""
    return Verified(policy, how, policy.normalizer.scale["action"], streams)


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _evaluate_expert(subject: Subject, options: Options, on_record: Callable[[Record], object]) -> tuple[Any, ...]:
    max_steps = options.max_steps or tasks.configure(subject.task, subject.env).max_steps
    env = dict(subject.env) | {"max_steps": max_steps}
    with closing(tasks.make(subject.task, env)) as body:
        versions, spec = body.versions(), body.spec  # type: ignore[attr-defined]
    records = []
    job = partial(_expert_episode, subject.task, env, max_steps, options.keep_states)
    with ProcessPoolExecutor(min(options.workers, options.episodes), get_context("spawn")) as pool:
        try:
            for record in pool.map(job, options.seeds):
                on_record(record)
                records.append(record)
        except BrokenProcessPool as error:
            raise BadInput(f"{subject.label}: a worker process died") from error
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return records, max_steps, versions, spec, {}


def _expert_episode(task: str, env: Mapping[str, Any], max_steps: int, keep_states: bool, seed: int) -> Record:
    """Runs one episode of a task's expert in a worker process."""
    with closing(tasks.make(task, env)) as body:
        kept = States(body.state)
        if not keep_states:
            kept.state = lambda: np.zeros(0)
        outcome = rollout(body, tasks.expert(body, seed), max_steps=max_steps, seed=seed, sinks=[kept])
        actions = np.stack(kept.actions) if kept.actions else np.zeros((0, *body.spec.action.shape), np.float32)
        return Record(outcome, actions, np.stack(kept.states) if keep_states else None)


def failures_first(records: Sequence[Record]) -> Iterator[Record]:
    """Yields the records worth looking at: failures from the worst score up, then successes from the slowest down."""
    played = [record for record in records if len(record.actions)]
    failed = [record for record in played if not record.outcome.success]
    solved = [record for record in played if record.outcome.success]
    yield from sorted(failed, key=lambda record: record.outcome.score or 0.0)
    yield from sorted(solved, key=lambda record: -record.outcome.steps)
