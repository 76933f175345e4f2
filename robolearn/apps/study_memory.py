"""Study: policies with memory on tasks that need one, every arm on the same demonstrations and the same test seeds."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from robolearn.apps import _grid, _memory_plots
from robolearn.apps import _study_memory as grid
from robolearn.apps._report import write_json
from robolearn.apps._study_memory import ARMS, Cell, Plan
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.errors import BadInput

TASKS = ("shell-64", "nearer-64", "twice-16", "scoops-16")
SWEEP = ("shell-16", "shell-64", "shell-256", "shell-512")
SWEPT = ("window_clean", "ptp", "sega_bptt")
COLUMNS = ("cell", "train_seed", "episode_seed", "success", "score", "alarm_step", "weights_sha256", "commit")


@dataclass(frozen=True)
class Config:
    """Which part of the grid to run; cells that are done are kept, so the command goes on where it stopped."""

    grid: Literal["all", "tasks", "sweep", "draws", "transformer"] = "all"
    """tasks: every arm on four tasks; sweep: three arms over how long the fact must be remembered; draws: self-verification with
    1, 5, 10 and 30 draws; transformer: the arms about past tokens with the papers' denoiser, on one task."""
    tasks: tuple[str, ...] = TASKS
    """TASK-MEMORY_STEPS each."""
    arms: tuple[str, ...] = ARMS
    train_seeds: int = 3
    """Trainings of every arm, with seeds 0, 1, ..."""
    episodes: int = 100
    """Test episodes of every training, the same for all."""
    demos: int = 200
    """Episodes of the scripted expert to learn from."""
    steps: int = 0
    """Optimiser steps; 0: the arm's own."""
    cell: str = ""
    """Only this one, TASK/ARM/SEED, trained anew unless its weights are there; no table is written."""
    workers: int | Literal["ray"] = 1
    """Processes, one thread each, or ray."""
    minutes: float = 0.0
    """Begin no cell after so many minutes; 0: until all are done."""
    eval_seed: int = FIRST_TEST_SEED
    """Of the first test episode."""
    out: Path = Path("data/study/memory")
    """Demonstrations and runs."""
    results: Path = Path("docs/results/memory")
    """cells.jsonl, episodes.csv, summary.json, sweep.json, draws.json, transformer.json, pictures."""
    json: Path | None = None
    """Write the figures of --cell, or the table, to this file too."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        for name in ("train_seeds", "episodes", "demos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")
        if isinstance(self.workers, int) and self.workers < 1:
            raise ValueError(f"workers: want at least 1 or ray, got {self.workers}")

    @property
    def plan(self) -> Plan:
        """How cells are made."""
        return Plan(self.out, self.demos, self.episodes, self.eval_seed, self.steps)


def run(cfg: Config) -> int:
    """Runs the cells that are missing, then writes the tables and pictures of what there is."""
    if cfg.cell:
        return one(cfg, grid.parse(cfg.cell))
    wanted = cells_of(cfg)
    path = cfg.results / "cells.jsonl"
    done = _grid.read_cells(path)
    for found in done.values():
        if (len(found["success"]), found["first_seed"], found.get("demos", cfg.demos)) != (
            cfg.episodes,
            cfg.eval_seed,
            cfg.demos,
        ):
            raise BadInput(f"{path}: '{found['cell']}' is of other episodes, seeds or demonstrations; give another --results")
    for task in dict.fromkeys(cell.task for cell in wanted if cell.name not in done):
        grid.demonstrations(cfg.plan, task)
    left = _grid.advance(
        path,
        wanted,
        partial(grid.run_cell, cfg.plan),
        workers=cfg.workers,
        minutes=cfg.minutes,
        conclude=partial(conclude, cfg, wanted),
    )
    print(grid.text(conclude(cfg, wanted, _grid.read_cells(path))))
    print(f"{len(wanted) - len(left)} of {len(wanted)} cells done" + (f"; next {left[0]}" if left else ""))
    return 0


def one(cfg: Config, cell: Cell) -> int:
    """Runs one cell and prints its figure."""
    grid.demonstrations(cfg.plan, cell.task)
    found = grid.run_cell(cfg.plan, cell)
    table = grid.rows([found])
    print(grid.text(table))
    write_json(cfg.json, {**found, "rows": table}, cell.seed)
    return 0


def cells_of(cfg: Config) -> list[Cell]:
    """Returns the declared cells, all arms of one training seed before the next seed: a grid cut short is still a table."""
    for arm in cfg.arms:
        if arm not in ARMS:
            raise BadInput(f"arms: no arm '{arm}' (known: {', '.join(ARMS)})")
    seeds = range(cfg.train_seeds)
    parts = {
        "tasks": [Cell(task, arm, seed) for seed in seeds for task in cfg.tasks for arm in cfg.arms],
        "draws": [Cell(task, arm, seed) for seed in seeds for task in cfg.tasks for arm in grid.DRAWS],
        "sweep": [Cell(task, arm, seed) for seed in seeds for task in SWEEP for arm in SWEPT],
        "transformer": [Cell(TASKS[0], arm, seed) for seed in seeds for arm in grid.TRANSFORMER],
    }
    chosen = [cell for name, cells in parts.items() if cfg.grid in ("all", name) for cell in cells]
    chosen = [cell for cell in chosen if cell.arm != "oracle" or cell.seed == 0]  # nothing is trained: one is enough
    return [grid.parse(name) for name in dict.fromkeys(cell.name for cell in chosen)]


def conclude(cfg: Config, wanted: list[Cell], done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Writes episodes.csv, the tables and the pictures of all cells done; returns the table of the wanted ones."""
    found = [done[name] for name in sorted(done)]
    table = grid.rows(found)
    facts = {"demos": cfg.demos, "first_test_seed": cfg.eval_seed, "interval95": "Wilson over train_seeds x episodes"}
    shown = [row for row in table if f"{row['task']}-{row['memory_steps']}" in TASKS and row["arm"] in ARMS]
    swept = [row for row in table if f"{row['task']}-{row['memory_steps']}" in SWEEP and row["arm"] in SWEPT]
    tables = {
        "summary": shown if cfg.tasks == TASKS else [row for row in table if row["arm"] in ARMS],
        "sweep": swept,
        "draws": [row | {"draws": grid.VERIFIED.get(row["arm"], 1)} for row in table if row["arm"] in grid.DRAWS],
        "transformer": [row for row in table if row["arm"] in grid.TRANSFORMER],
    }
    for name, rows in tables.items():
        write_json(cfg.results / f"{name}.json", facts | {"rows": rows}, seed=cfg.eval_seed)
    with (cfg.results / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_grid.episode_rows(found))
    _memory_plots.draw(tables["summary"], swept, cfg.results)
    names = {cell.name for cell in wanted}
    mine = grid.rows([entry for entry in found if entry["cell"] in names])
    write_json(cfg.json, facts | {"rows": mine}, seed=cfg.eval_seed)
    return mine
