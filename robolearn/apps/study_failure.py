"""Study: failure detectors on disturbed rollouts of trained policies, every score beside FIPER, the best pair, and a clock."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robolearn.apps import _failure as tables
from robolearn.apps import _failure_cases as cases
from robolearn.apps import _failure_ledger as ledger
from robolearn.apps import _failure_live as live
from robolearn.apps._evaluate import Subject
from robolearn.apps._failure_cases import Case
from robolearn.apps._failure_ledger import Found
from robolearn.apps._report import git_state, write_json
from robolearn.apps._rollouts import Wanted, collect
from robolearn.errors import BadInput, nearest
from robolearn.monitors import _metrics
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._official import official
from robolearn.monitors._recipe import SMALL, Recipe

CALIBRATE_SEED, TEST_SEED = 300_000, 400_000
OFFICIAL = (("rnd",), ("ace",), ("stac",), ("logpzo",), ("pca_kmeans",), ("rnd_actions",), ("rnd", "ace"))
BY_DRAWS = ("ace", "stac", "variance")
DRAWS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Config:
    """Which tasks, how many rollouts; rollouts that are there are kept."""

    tasks: tuple[str, ...] = ()
    """TASK-MEMORY_STEPS each, of the memory study's tasks; none: all four, unless runs are given."""
    runs: tuple[Path, ...] = ()
    """Run folders of other trained policies, such as data/runs/lift_flow."""
    disturb: tuple[str, ...] = ()
    """Disturbances, one mixture a run; none: those set for their tasks."""
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
    cell: str = ""
    """Only this one, CASE/DETECTOR/SPLIT_SEED, measured anew; no table is written."""
    episodes: int = 0
    """Of --cell: so many test rollouts; 0: --test."""
    live: int = 0
    """So many episodes of every case twice, without a monitor and with one that halts, instead of the tables: live.json."""
    monitor: str = "best"
    """Of --live: the detector by its name in the tables, fitted to the calibration rollouts."""
    workers: int = 0
    """Processes that simulate; 0: this one. Robots gain by 2, planar bodies do not."""
    device: str = "cpu"
    out: Path = Path("data/study/failure")
    """Rollouts, films."""
    policies: Path = Path("data/study/memory")
    """Where the planar policies are, or are trained (arm ptp, seed 0, a minute each)."""
    results: Path = Path("docs/results/failure")
    """summary.json, duels.json, official.json, draws.json, episodes.csv; live.json."""
    overwrite: bool = False
    """Measure cases anew that are in the tables."""
    json: Path | None = None
    """Write the table to this file too."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        for name in ("calibrate", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")
        if min(self.live, self.episodes, self.workers) < 0:
            raise ValueError(f"want live, episodes and workers >= 0, got {self.live}, {self.episodes} and {self.workers}")

    @property
    def facts(self) -> dict[str, Any]:
        """What all cases of the tables share."""
        return {"alpha": self.recipe.alpha, "draws": self.recipe.draws, "split_seed": self.split_seed}


def run(cfg: Config) -> int:
    """Measures the cases that are not in the tables yet, one by one, and writes the tables after each."""
    wanted = cases.chosen(cfg.tasks, cfg.runs, cfg.disturb)
    if cfg.cell:
        return one(cfg, wanted)
    if cfg.live:
        return halted(cfg, wanted)
    found = ledger.read(cfg.results, cfg.facts)
    for case in wanted:
        if case.name in found.done and not cfg.overwrite:
            print(f"{case.name}: in {cfg.results} already; --overwrite measures it anew", file=sys.stderr)
            continue
        began = time.monotonic()
        found.forget(case.name)
        study(cfg, case, found)
        ledger.write(cfg.results, found, TEST_SEED)
        print(f"{case.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    names = {case.name for case in wanted}
    rows = [row for row in found.summary if row["task"] in names]
    print(text(rows))
    write_json(cfg.json, {"rows": rows}, seed=TEST_SEED)
    return 0


def one(cfg: Config, wanted: Sequence[Case]) -> int:
    """Measures one detector of one case and prints its row."""
    name, _, rest = cfg.cell.partition("/")
    detector, _, seed = rest.partition("/")
    named = {case.name: case for case in wanted}
    if name not in named or not seed.isdigit():
        raise BadInput(f"cell: want CASE/DETECTOR/SPLIT_SEED, CASE one of {', '.join(named)}, got '{cfg.cell}'")
    cfg = dataclasses.replace(cfg, test=cfg.episodes or cfg.test, split_seed=int(seed))
    subject = named[name].subject(cfg.policies)
    calibration, test, layout = rollouts(cfg, named[name], subject)
    recipe = shared(cfg, tables.usable(layout, cfg.scores))
    made = {t.name: t for t in tables.trials(name, layout, calibration, test, recipe, cfg.split_seed)}
    if detector not in made:
        raise BadInput(f"cell: no detector '{detector}'{nearest(detector, made)}")
    rows = [tables.row(made[detector], calibration, test)]
    same = {"weights_sha256": subject.weights_sha256, "commit": git_state()[0]}
    print(text(rows))
    write_json(cfg.json, {"rows": rows, "episodes": list(tables.episode_rows(made[detector], test, same))}, seed=TEST_SEED)
    return 0


def halted(cfg: Config, wanted: Sequence[Case]) -> int:
    """Runs every case with and without a monitor that halts, and writes live.json after each."""
    rows, episodes = [], []
    for case in wanted:
        subject = case.subject(cfg.policies)
        (calibration,), layout = _collected(cfg, case, subject, (("calibration", cfg.calibrate, CALIBRATE_SEED),))
        recipe = shared(cfg, tables.usable(layout, cfg.scores))
        detector = live.fitted(recipe, layout, calibration, cfg.monitor, cfg.split_seed)
        plan = live.Plan(cfg.live, workers=cfg.workers, device=cfg.device, films=cfg.out / "live" / case.name)
        done = live.run(case.name, subject, case.mixture, detector, plan)
        rows.append({"task": case.name, "detector": cfg.monitor} | live.figures(done, detector))
        episodes += done.rows
        print(live.text(rows[-1]))
        path = cfg.results / "live.json"
        facts = cfg.facts | {"seed": live.SEED, "interval95": "Wilson over episodes"}
        told = {"rows": ledger.merged(path, rows), "episodes": ledger.merged(path, episodes, "episodes")}
        write_json(path, facts | told, seed=live.SEED)
    write_json(cfg.json, {"rows": rows, "episodes": episodes}, seed=live.SEED)
    return 0


def study(cfg: Config, case: Case, found: Found) -> None:
    """Adds one case to what was found."""
    subject, task = case.subject(cfg.policies), case.name
    calibration, test, layout = rollouts(cfg, case, subject)
    same = {"weights_sha256": subject.weights_sha256, "commit": git_state()[0]}
    found.cases[task] = case.mixture
    for name, some in (("calibration", calibration), ("test", test)):
        found.sets.append(facts_of(task, name, some) | {"policy": subject.label, **same})
    names = tables.usable(layout, cfg.scores)
    recipe = shared(cfg, names)
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
        found.draws += [{"task": task, **row} for row in table]


def rollouts(cfg: Config, case: Case, subject: Subject) -> tuple[list[Episode], list[Episode], Layout]:
    """Returns calibration and test rollouts of a policy, those that are missing made now."""
    parts = (("calibration", cfg.calibrate, CALIBRATE_SEED), ("test", cfg.test, TEST_SEED))
    (calibration, test), layout = _collected(cfg, case, subject, parts)
    return calibration, test, layout


def _collected(
    cfg: Config, case: Case, subject: Subject, parts: Sequence[tuple[str, int, int]]
) -> tuple[list[list[Episode]], Layout]:
    """Returns the rollouts of each part (name, episodes, first seed) and their layout; a set on disk may hold more."""
    kept = []
    with tqdm(total=sum(n for _, n, _ in parts), unit="rollout", desc=case.name, disable=None) as bar:
        for name, episodes, seed in parts:
            wanted = Wanted(episodes, seed, cfg.recipe.draws, case.mixture, cfg.workers, cfg.device)
            there = collect(subject, wanted, cfg.out / f"{case.name}_{name}.zarr", bar.update)
            kept.append([e for e in there.read() if 0 <= e.seed - seed < episodes])
    return kept, there.layout


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
