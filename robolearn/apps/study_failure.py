"""Study: failure detectors on disturbed rollouts of trained policies, every score beside FIPER, the best pair, and a clock."""

from __future__ import annotations

import csv
import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robolearn.apps import _failure as tables
from robolearn.apps import _study_memory as memory
from robolearn.apps._evaluate import Subject, find
from robolearn.apps._report import git_state, write_json
from robolearn.apps._rollouts import Wanted, collect
from robolearn.errors import BadInput, nearest
from robolearn.monitors import _metrics
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._official import official
from robolearn.monitors._recipe import SMALL, Recipe

# What befalls the episodes of each task, chosen on seeds from 50000 so that the policy solves 40 to 90 % and some of every kind.
CASES = {
    "shell-64": "none:0.35,weak=0.7@6:0.2,slip=0.6@6:0.15,freeze=40@6:0.1,noise=0.6@6:0.1,delay=6@6:0.1",
    "nearer-64": "none:0.4,weak=0.78@6:0.15,slip=0.8@6:0.15,offset=0.5@6:0.1,noise=3@6:0.1,goal=1:0.1",
    "twice-16": "none:0.4,weak=0.4@6:0.15,slip=0.3@6:0.15,freeze=40@6:0.1,noise=1@6:0.1,delay=6@6:0.1",
    "scoops-16": "none:0.4,weak=0.4@6:0.15,slip=0.3@6:0.15,freeze=40@6:0.1,push=0.6@6:0.1,delay=6@6:0.1",
}
ARM = "ptp"
CALIBRATE_SEED, TEST_SEED = 300_000, 400_000
OFFICIAL = (("rnd",), ("ace",), ("stac",), ("logpzo",), ("pca_kmeans",), ("rnd_actions",), ("rnd", "ace"))
BY_DRAWS = ("ace", "stac", "variance")
DRAWS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Config:
    """Which tasks, how many rollouts; rollouts that are there are kept."""

    tasks: tuple[str, ...] = tuple(CASES)
    """TASK-MEMORY_STEPS each, of the memory study's tasks."""
    calibrate: int = 400
    """Rollouts to fit, choose and calibrate on."""
    test: int = 600
    """Rollouts to measure on, with other seeds."""
    recipe: Recipe = field(default_factory=lambda: Recipe(("clock",)))
    """What all detectors share: alpha, draws, windows, bands; its scores and options do not count."""
    scores: tuple[str, ...] = ()
    """Failure scores to compare; none: all that the policy can serve."""
    split_seed: int = 0
    """Who learns, who shapes, who calibrates."""
    published: bool = False
    """Networks of published size: hours on a CPU."""
    official: bool = True
    """The released code's choices too, on the same rollouts."""
    out: Path = Path("data/study/failure")
    """Rollouts."""
    policies: Path = Path("data/study/memory")
    """Where the policies are, or are trained (arm ptp, seed 0, a minute each)."""
    results: Path = Path("docs/results/failure")
    """summary.json, duels.json, official.json, draws.json, episodes.csv."""
    json: Path | None = None
    """Write the table to this file too."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        for name in ("calibrate", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")


@dataclass
class Found:
    """What the study has found so far, table by table."""

    summary: list[dict[str, Any]] = field(default_factory=list)
    duels: list[dict[str, Any]] = field(default_factory=list)
    official: list[dict[str, Any]] = field(default_factory=list)
    draws: list[dict[str, Any]] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)


def run(cfg: Config) -> int:
    """Runs the tasks one by one and writes the tables after each."""
    for task in cfg.tasks:
        if task not in CASES:
            raise BadInput(f"tasks: no case '{task}'{nearest(task, CASES)}")
    found = Found()
    for task in cfg.tasks:
        began = time.monotonic()
        study(cfg, task, found)
        write(cfg, found)
        print(f"{task}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(text(found.summary))
    write_json(cfg.json, {"rows": found.summary}, seed=TEST_SEED)
    return 0


def study(cfg: Config, task: str, found: Found) -> None:
    """Adds one task to what was found."""
    subject = policy(cfg, task)
    calibration, test, layout = rollouts(cfg, task, subject)
    found.sets += [facts_of(task, "calibration", calibration), facts_of(task, "test", test)]
    names = tables.usable(layout, cfg.scores)
    recipe = shared(cfg, names)
    same = {"weights_sha256": subject.weights_sha256, "commit": git_state()[0]}
    done = {}
    for trial in tables.trials(task, layout, calibration, test, recipe, cfg.split_seed):
        done[trial.name] = trial
        found.summary.append(tables.row(trial, calibration, test))
        found.episodes += tables.episode_rows(trial, test, same)
    found.duels += tables.duels(done, calibration, test)
    if cfg.official:
        found.official += released(cfg, task, layout, calibration, test, names)
    few = tuple(name for name in BY_DRAWS if name in names)
    if few:
        counts = [b for b in DRAWS if b <= cfg.recipe.draws]
        table = tables.by_draws(layout, calibration, test, shared(cfg, few), counts, cfg.split_seed)
        found.draws += [{"task": task, **one} for one in table]


def policy(cfg: Config, task: str) -> Subject:
    """Returns the policy of a task, trained now where it is missing."""
    plan = memory.Plan(cfg.policies, demos=200, episodes=1, eval_seed=0)
    cell = memory.Cell(task, ARM, 0)
    memory.demonstrations(plan, task)
    memory.train(plan, cell)
    return find(str(memory.run_folder(plan, cell)))


def rollouts(cfg: Config, task: str, subject: Subject) -> tuple[list[Episode], list[Episode], Layout]:
    """Returns calibration and test rollouts of a policy, those that are missing made now."""
    found = []
    with tqdm(total=cfg.calibrate + cfg.test, unit="rollout", desc=task, disable=None) as bar:
        for name, episodes, seed in (("calibration", cfg.calibrate, CALIBRATE_SEED), ("test", cfg.test, TEST_SEED)):
            wanted = Wanted(episodes, seed, cfg.recipe.draws, CASES[task])
            found.append(collect(subject, wanted, cfg.out / f"{task}_{name}.zarr", bar.update))
    kept = [[e for e in some.read() if 0 <= e.seed - seed < n] for some, seed, n in _sizes(cfg, found)]
    return kept[0], kept[1], found[0].layout


def _sizes(cfg: Config, found: Sequence[Any]) -> list[tuple[Any, int, int]]:
    """Returns each set with its first seed and how many of it are wanted: a set may hold more from an earlier call."""
    return [(found[0], CALIBRATE_SEED, cfg.calibrate), (found[1], TEST_SEED, cfg.test)]


def shared(cfg: Config, names: Sequence[str]) -> Recipe:
    """Returns the recipe of many scores."""
    sizes = {} if cfg.published else {name: size for name, size in SMALL.items() if name in names}
    return dataclasses.replace(cfg.recipe, scores=tuple(names), agree=0, joint=True, options=sizes)


def facts_of(task: str, which: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Returns how many rollouts of each kind there are and how many of them were solved."""
    kinds = sorted({e.kind for e in episodes})
    return {
        "task": task,
        "set": which,
        "episodes": len(episodes),
        "success": sum(e.success for e in episodes) / len(episodes),
        "kinds": {
            kind or "none": [sum(e.success for e in episodes if e.kind == kind), sum(e.kind == kind for e in episodes)]
            for kind in kinds
        },
    }


def released(
    cfg: Config, task: str, layout: Layout, calibration: Sequence[Episode], test: Sequence[Episode], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns what the released code's choices come to, its options chosen on the test set as released, and on calibration."""
    rows = []
    for scores in OFFICIAL:
        if not set(scores) <= set(names):
            continue
        for made in official(shared(cfg, scores), layout, calibration, test, cfg.split_seed):
            longest = max(len(e) for e in [*calibration, *test])
            table = _metrics.Rows.of([e.success for e in test], made.alarms, [len(e) for e in test], longest)
            figures = {name: _metrics.value(name, table) for name in ("tpr", "tnr", "fpr", "twa", "detection_time")}
            name = "fiper" if len(scores) == 2 else scores[0]
            rows.append({"task": task, "detector": name, "chosen_on": made.chosen_on, "options": dict(made.options), **figures})
    return rows


def write(cfg: Config, found: Found) -> None:
    """Writes the tables of what there is."""
    cfg.results.mkdir(parents=True, exist_ok=True)
    facts = {"alpha": cfg.recipe.alpha, "draws": cfg.recipe.draws, "split_seed": cfg.split_seed, "policy": ARM, "cases": CASES}
    summary = facts | {"sets": found.sets, "rows": found.summary}
    write_json(cfg.results / "summary.json", summary, seed=TEST_SEED)
    for name in ("duels", "official", "draws"):
        write_json(cfg.results / f"{name}.json", facts | {"rows": getattr(found, name)}, seed=TEST_SEED)
    with (cfg.results / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, tables.COLUMNS)
        writer.writeheader()
        writer.writerows(found.episodes)


def text(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table for the terminal."""
    head = f"{'task':10} {'detector':18} {'TPR':>5} {'FPR':>5} {'allowed where':>14} {'TWA':>5} {'time':>5} {'AUROC':>5}"

    def cell(value: float | None) -> str:
        return "    -" if value is None else f"{value:5.2f}"

    lines = [head]
    for r in rows:
        low, high = r["predictive95"] or (None, None)
        where = f"{cell(low)} ..{cell(high)}"
        figures = f"{cell(r['twa'])} {cell(r['detection_time'])} {cell(r['auroc_common_length'])}"
        lines.append(f"{r['task']:10} {r['detector']:18} {cell(r['tpr'])} {cell(r['measured_fpr'])} {where:>14} {figures}")
    return "\n".join(lines)
