"""A monitor that halts: the same disturbed episodes without it and with it, and what the alarms were worth.

After the alarm of a stream its plans come from `Hold`: the body stays where it is, as in `rollout(..., on_alarm=Hold(spec))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robolearn.apps import _monitor_page, _video
from robolearn.apps._evaluate import BODIES_PER_WORKER, Subject, body_maker
from robolearn.apps._failure import detectors
from robolearn.apps._watched import layout_of
from robolearn.core import Ask, Chunk, Obs
from robolearn.errors import BadInput, nearest
from robolearn.intervals import wilson95
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import prepare
from robolearn.monitors._recipe import Recipe
from robolearn.monitors._watch import Watch
from robolearn.policies._streams import Streams
from robolearn.rollout_vector import Record, rollout_vector
from robolearn.runtime.reactions import Hold
from sim_envs import _base as tasks
from sim_envs import perturb
from sim_envs._pool import Here, Pool

SEED = 500_000  # of the first episode: neither calibrated nor tested on
_FILMS = 3


@dataclass(frozen=True)
class Plan:
    """How many episodes, and where the films of halted failures go (None: nowhere)."""

    episodes: int
    seed: int = SEED
    workers: int = 0
    device: str = "cpu"
    films: Path | None = None


@dataclass
class Trace:
    """What the monitor said in one episode: ticks of the plans and the combined score of each; alarm: its tick, None without."""

    ticks: list[int]
    scores: list[float]
    alarm: int | None = None


@dataclass(frozen=True)
class Done:
    """The episodes of a case: rows, one an episode; traces and the records without and with the monitor, by seed."""

    rows: list[dict[str, Any]]
    traces: Mapping[int, Trace]
    off: Mapping[int, Record]
    on: Mapping[int, Record]


class Halting(Streams):
    """Plans as the inner policy does until a stream's monitor alarms; from then on that stream's body holds."""

    def __init__(self, inner: Any, detector: Detector, group: str, streams: int) -> None:
        self.inner, self.spec = inner, inner.spec
        self._watches = [Watch(detector, group) for _ in range(streams)]
        layout = layout_of(inner)
        self._watches[0].require(layout.action, layout.horizon)
        self._holds = [Hold(inner.spec) for _ in range(streams)]
        self._now = [Trace([], []) for _ in range(streams)]
        self.traces: dict[int, Trace] = {}

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        if seed is None:
            raise BadInput("halting: want a seed for every episode, got none")
        self._now[i] = self.traces[seed] = Trace([], [])
        self._watches[i].reset()
        self._holds[i].reset(seed)
        self.inner.reset_stream(i, seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Passes the observation on."""
        self._holds[i].observe(obs, applied)
        self.inner.observe_stream(i, obs, applied)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns the inner policy's plans, or what holds a body whose monitor has alarmed."""
        free = [i for i in indices if self._now[i].alarm is None]
        draws = max([ask.draws, *(self._watches[i].needs.draws for i in free)])
        plans = dict(zip(free, self.inner.plan_streams(free, replace(ask, draws=draws)), strict=True)) if free else {}
        for i, chunk in plans.items():
            verdict, now = self._watches[i].update({}, chunk), self._now[i]
            now.ticks.append(chunk.tick)
            now.scores.append(verdict.score)
            now.alarm = chunk.tick if verdict.alarm else None
        return [plans[i] if self._now[i].alarm is None else self._still(i) for i in indices]

    def _still(self, i: int) -> Chunk:
        still = self._holds[i].plan()
        return replace(still, actions=np.repeat(still.actions, self.spec.execute, axis=0))


def fitted(recipe: Recipe, layout: Layout, episodes: Sequence[Episode], name: str, seed: int) -> Detector:
    """Returns the detector of that name in the study's tables, fitted to calibration rollouts."""
    made = dict(detectors(prepare(recipe, layout, episodes, seed)))
    if name not in made:
        raise BadInput(f"monitor: no detector '{name}'{nearest(name, made)}")
    return made[name]


def run(case: str, subject: Subject, mixture: str, detector: Detector, plan: Plan) -> Done:
    """Runs the episodes without and with the monitor and films the first failures that it halted."""
    from robolearn.training.checkpoint import load_policy

    assert subject.checkpoint is not None
    workers = max(1, plan.workers)
    streams = workers * min(BODIES_PER_WORKER, -(-plan.episodes // workers))
    policy = load_policy(subject.checkpoint, plan.device, streams)
    env = tasks.with_cameras(subject.env, [key for key, array in policy.spec.obs.items() if array.is_image])
    make, limit = body_maker(subject.task, env, mixture), tasks.configure(subject.task, env).max_steps
    halting = Halting(policy, detector, subject.task, streams)
    seeds = range(plan.seed, plan.seed + plan.episodes)
    records: list[dict[int, Record]] = []
    with tqdm(total=2 * plan.episodes, unit="episode", desc=f"{case} live", disable=None) as bar:
        for driver in (policy, halting):
            with Pool(make, workers, streams // workers) if plan.workers else Here(make, streams) as bodies:
                done = rollout_vector(bodies, driver, seeds, max_steps=limit, on_record=lambda _: bar.update())
            records.append({seed: record for seed, record in zip(seeds, done, strict=True)})
    off, on = records
    meets = perturb.parse(mixture) if mixture else perturb.Mixture()
    rows = [
        {"task": case, "seed": s, "kind": meets.happened(s, off[s].outcome.steps, policy.spec.hz)}
        | compared(off[s], on[s], halting.traces[s])
        for s in seeds
        if "crashed" not in (off[s].outcome.reason, on[s].outcome.reason)  # the simulator's failure, not the policy's
    ]
    made = Done(rows, halting.traces, off, on)
    if plan.films is not None:
        with closing(make()) as body:
            film(made, body, detector.threshold(subject.task), plan.films)
    return made


def compared(off: Record, on: Record, trace: Trace) -> dict[str, Any]:
    """Returns one episode's row: how it ended without and with the monitor, and how many ticks before that end the alarm came."""
    alarm, ended = trace.alarm, off.outcome.steps
    shared = min(ended, on.outcome.steps) if alarm is None else min(alarm, ended)
    same = np.abs(off.actions[:shared] - on.actions[:shared]).max(initial=0.0)
    return {
        "success_off": bool(off.outcome.success),
        "steps_off": ended,
        "alarm_step": alarm,
        "ticks_before": None if alarm is None else ended - alarm,
        "success_on": bool(on.outcome.success),
        "steps_on": on.outcome.steps,
        "differs_before": round(float(same), 6),
    }


def figures(done: Done, detector: Detector) -> dict[str, Any]:
    """Returns the row of a case: shares of failures halted in time and of successes disturbed, with Wilson intervals."""
    failed = [row for row in done.rows if not row["success_off"]]
    solved = [row for row in done.rows if row["success_off"]]
    early = [row["ticks_before"] for row in failed if row["alarm_step"] is not None and row["ticks_before"] > 0]
    disturbed = [row for row in solved if row["alarm_step"] is not None]
    lost = sum(not row["success_on"] for row in disturbed)
    hz = detector.layout.hz
    return {
        "scores": list(detector.recipe.scores),
        "promised_fpr": detector.promised,
        "n_calibrate": detector.n_calibrate[""],
        "n": len(done.rows),
        "failures": len(failed),
        "failures_halted": len(early),
        "failures_halted_share": len(early) / len(failed) if failed else None,
        "failures_halted_wilson95": list(wilson95(len(early), len(failed))) if failed else None,
        "ticks_before": [float(q) for q in np.quantile(early, (0.25, 0.5, 0.75))] if early else None,
        "seconds_before": [float(q) / hz for q in np.quantile(early, (0.25, 0.5, 0.75))] if early else None,
        "successes": len(solved),
        "successes_disturbed": len(disturbed),
        "successes_disturbed_share": len(disturbed) / len(solved) if solved else None,
        "successes_disturbed_wilson95": list(wilson95(len(disturbed), len(solved))) if solved else None,
        "successes_lost": lost,
        "differs_before": max((row["differs_before"] for row in done.rows), default=0.0),
    }


def text(row: Mapping[str, Any]) -> str:
    """Returns what the terminal shows of a case."""

    def share(what: str) -> str:
        if row[f"{what}_share"] is None:
            return "none"
        low, high = row[f"{what}_wilson95"]
        return f"{row[f'{what}_share']:.2f} ({low:.2f} .. {high:.2f})"

    before = row["ticks_before"]
    early = "" if before is None else f", {before[1]:.0f} ticks before the end (quartiles {before[0]:.0f} and {before[2]:.0f})"
    return "\n".join(
        (
            f"{row['task']}: {row['detector']} ({', '.join(row['scores'])}), {row['n']} episodes, without and with it",
            f"  failures halted in time {share('failures_halted')} of {row['failures']}{early}",
            f"  successes disturbed     {share('successes_disturbed')} of {row['successes']}, promised {row['promised_fpr']:.2f}",
        )
    )


def film(done: Done, body: Any, threshold: float, folder: Path) -> list[Path]:
    """Writes films of the first failures that were halted and returns the files.

    On the left the episode without the monitor, on the right with it, below the score so far; red at the alarm.
    """
    files = []
    halted = [r for r in done.rows if not r["success_off"] and r["alarm_step"] is not None and r["ticks_before"] > 0]
    for row in halted[:_FILMS]:
        seed, trace, sides = row["seed"], done.traces[row["seed"]], []
        for record in (done.off[seed], done.on[seed]):
            body.reset(seed)
            sides.append(list(_video.frames(body, record.actions)))
        n = min(map(len, sides))
        pair = (np.concatenate((left, right), axis=1) for left, right in zip(sides[0][:n], sides[1][:n], strict=True))
        ticks, scores = np.array([*trace.ticks, n]), np.array([*trace.scores, trace.scores[-1]])  # the axis: all of it
        pictures = _monitor_page.with_strip(pair, ticks, scores, threshold, len(trace.ticks) - 1)
        files.append(_video.write_mp4(folder / f"halted_{seed}.mp4", pictures, body.spec.hz))
    return files
