"""Study: minutes of human video beside robot demonstrations, for tracks of points (MT-pi) and for policies of actions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from robolearn.apps import _grid
from robolearn.apps import _study_video as grid
from robolearn.apps._dots import dots, page
from robolearn.apps._report import write_json
from robolearn.apps._study_video import Cell, Plan
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.errors import BadInput

COLUMNS = ("cell", "train_seed", "episode_seed", "success", "score", "alarm_step", "weights_sha256", "commit")


@dataclass(frozen=True)
class Config:
    """Which part of the grid to run; cells that are done are kept, so the command goes on where it stopped."""

    grid: Literal["drawer", "amounts"] = "drawer"
    """drawer: the direction that only people show, with the policies that must be there; amounts: 20 and 50 robot
    demonstrations with and without people's, on all tasks, with act beside it."""
    robot_demos: int = 30
    """Of the drawer grid; all to the right."""
    human_demos: int = 150
    """Scenes that a person performs, to both sides: ten minutes, as published."""
    train_seeds: int = 3
    """Trainings of every arm, with seeds 0, 1, ..."""
    episodes: int = 50
    """Test episodes of every training and direction, the same for all."""
    steps: int = 0
    """Optimiser steps; 0: the config's own."""
    exact: bool = False
    """People's landmarks without a hand detector's errors."""
    cell: str = ""
    """Only this one, TASK/POLICY-ROBOT-HUMAN/SEED, trained anew unless its weights are there; no table is written."""
    workers: int | Literal["ray"] = 1
    """Processes, one thread each, or ray."""
    minutes: float = 0.0
    """Begin no cell after so many minutes; 0: until all are done."""
    eval_seed: int = FIRST_TEST_SEED
    """Of the first test episode."""
    out: Path = Path("data/study/video")
    """Demonstrations and runs."""
    results: Path = Path("docs/results/video")
    """cells.jsonl, episodes.csv, summary.json, success.svg."""
    json: Path | None = None
    """Write the figures of --cell, or the table, to this file too."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        for name in ("robot_demos", "human_demos", "train_seeds", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")
        if isinstance(self.workers, int) and self.workers < 1:
            raise ValueError(f"workers: want at least 1 or ray, got {self.workers}")

    @property
    def plan(self) -> Plan:
        """How cells are made."""
        return Plan(self.out, self.episodes, self.eval_seed, steps=self.steps, exact=self.exact)


def run(cfg: Config) -> int:
    """Runs the cells that are missing, then writes the table of what there is."""
    if cfg.cell:
        return one(cfg, grid.parse(cfg.cell))
    wanted, path = cells_of(cfg), cfg.results / "cells.jsonl"
    for found in _grid.read_cells(path).values():
        if (len(found["success"]), found["first_seed"], found["human_noise"]) != (cfg.episodes, cfg.eval_seed, not cfg.exact):
            raise BadInput(f"{path}: '{found['cell']}' is of other episodes or demonstrations; give another --results")
    for cell in wanted:  # before workers share them
        if cell.name not in _grid.read_cells(path):
            grid.demonstrations(cfg.plan, cell)
    left = _grid.advance(
        path,
        wanted,
        partial(grid.run_cell, cfg.plan),
        workers=cfg.workers,
        minutes=cfg.minutes,
        conclude=partial(conclude, cfg),
    )
    print(grid.text(conclude(cfg, _grid.read_cells(path))))
    print(f"{len(wanted) - len(left)} of {len(wanted)} cells done" + (f"; next {left[0]}" if left else ""))
    return 0


def one(cfg: Config, cell: Cell) -> int:
    """Runs one cell and prints its figure."""
    found = grid.run_cell(cfg.plan, cell)
    table = grid.rows([found])
    print(grid.text(table))
    write_json(cfg.json, {**found, "rows": table}, cell.seed)
    return 0


def cells_of(cfg: Config) -> list[Cell]:
    """Returns the declared cells, all arms of one training seed before the next seed: a grid cut short is still a table."""
    seeds = range(cfg.train_seeds)
    if cfg.grid == "drawer":
        arms = [("dp", 0), ("mt_pi", 0), ("mt_pi", cfg.human_demos), ("mt_pi_joint", cfg.human_demos)]
        sides = ("drawer-left", "drawer-right")  # of the same weights, so that nobody waits for them: one side after the other
        return [Cell(side, policy, cfg.robot_demos, human, seed) for seed in seeds for side in sides for policy, human in arms]
    kinds = [("dp", 0), ("act", 0), ("mt_pi", 0), ("mt_pi", cfg.human_demos)]
    return [
        Cell(task, policy, robots, human, seed)
        for seed in seeds
        for task in grid.TASKS
        for robots in (20, 50)
        for policy, human in kinds
    ]


def conclude(cfg: Config, done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Writes episodes.csv and the table of all cells done, and returns the table."""
    found = [done[name] for name in sorted(done)]
    table = grid.rows(found)
    facts = {"first_test_seed": cfg.eval_seed, "interval95": "Wilson over train_seeds x episodes", "rows": table}
    write_json(cfg.results / "summary.json", facts, cfg.eval_seed)
    (cfg.results / "success.svg").write_text(page(*dots(grid.panels(table))))
    write_json(cfg.json, facts, cfg.eval_seed)
    with (cfg.results / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_grid.episode_rows(found))
    return table
