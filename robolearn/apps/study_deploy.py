"""Study: a trained policy on a robot in closed loop, by what becomes of late plans, beside plain simulated evaluation."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from robolearn.apps import _grid
from robolearn.apps import _study_deploy as grid
from robolearn.apps._report import write_json
from robolearn.apps._study_deploy import Cell, Plan
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.errors import BadInput
from robolearn.intervals import wilson95

COLUMNS = ("cell", "train_seed", "episode_seed", "success", "score", "alarm_step", "weights_sha256", "commit")


@dataclass(frozen=True)
class Config:
    """Which part of the grid to run; cells that are done are kept, so the command goes on where it stopped."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of policies for robosuite tasks with one arm."""
    bodies: tuple[str, ...] = ("sim", "virtual")
    """sim: the task itself, plans at once; virtual: a robot's driver, limits and loop around the same scene, on simulated time;
    ur5e, viperx: the vendor's library, an emulator of its controller or servos and the scene behind it, in real time."""
    consumers: tuple[str, ...] = ("sync", "replace", "ensemble", "rtc_guided")
    delays_ms: tuple[int, ...] = (0, 50, 150)
    """From an observation to its plan, beside what planning takes: on simulated time that takes none."""
    acts_ms: tuple[int, ...] = (0,)
    """From a command to motion, as told to the schedule, which then asks for what the arm can still do (UMI)."""
    episodes: int = 50
    """Of every cell, the same seeds for all."""
    eval_seed: int = FIRST_TEST_SEED
    """Of the first episode."""
    workers: int = 1
    """Processes, one thread each."""
    minutes: float = 0.0
    """Begin no cell after so many minutes; 0: until all are done."""
    cell: str = ""
    """Only this one, RUN/BODY/CONSUMER/DELAY or .../DELAY+ACT, made anew; no table is written."""
    results: Path = Path("docs/results/hardware")
    """closed_loop_cells.jsonl, closed_loop.json, episodes.csv."""
    json: Path | None = None
    """Write the figures of --cell, or the table, to this file too."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        if self.episodes < 1 or self.workers < 1 or any(delay < 0 for delay in self.delays_ms):
            raise ValueError(
                f"want episodes and workers >= 1 and delays >= 0, got {self.episodes}, {self.workers} and {self.delays_ms}"
            )


def run(cfg: Config) -> int:
    """Runs the cells that are missing, then writes the table of what there is."""
    if cfg.cell:
        return one(cfg)
    wanted, path = cells_of(cfg), cfg.results / "closed_loop_cells.jsonl"
    for cell in _grid.read_cells(path).values():
        if (cell["first_seed"], len(cell["success"])) != (cfg.eval_seed, cfg.episodes):
            raise BadInput(f"{path}: '{cell['cell']}' is of other episodes; give another --results")
    make = partial(grid.run_cell, Plan(cfg.eval_seed, cfg.episodes))
    left = _grid.advance(path, wanted, make, workers=cfg.workers, minutes=cfg.minutes, conclude=partial(conclude, cfg))
    print(text(conclude(cfg, _grid.read_cells(path))))
    print(f"{len(wanted) - len(left)} of {len(wanted)} cells done" + (f"; next {left[0]}" if left else ""))
    return 0


def one(cfg: Config) -> int:
    """Runs one cell and prints its row."""
    found = grid.run_cell(Plan(cfg.eval_seed, cfg.episodes), grid.parse(cfg.cell, cfg.runs))
    rows = [row_of(found)]
    print(text(rows))
    write_json(cfg.json, {**found, "rows": rows}, cfg.eval_seed)
    return 0


def cells_of(cfg: Config) -> list[Cell]:
    """Returns the cells: the plain task once a run, every other body with each consumer and delay."""
    cells = []
    for run_folder in cfg.runs:
        for body in cfg.bodies:
            if body not in grid.BODIES:
                raise BadInput(f"bodies: want some of {', '.join(grid.BODIES)}, got '{body}'")
            if body == "sim":
                cells.append(Cell(str(run_folder), body, "sync", 0))
            else:
                late = [(delay, act) for act in cfg.acts_ms for delay in cfg.delays_ms]
                cells += [Cell(str(run_folder), body, each, delay, act) for delay, act in late for each in cfg.consumers]
    return cells


def conclude(cfg: Config, done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Writes and returns the table of all cells that are done, and its episodes."""
    rows = [row_of(cell) for cell in done.values()]
    facts = {"rows": rows, "episodes": cfg.episodes, "first_seed": cfg.eval_seed, "interval95": "Wilson over episodes"}
    write_json(cfg.results / "closed_loop.json", facts, cfg.eval_seed)
    write_json(cfg.json, facts, cfg.eval_seed)
    with (cfg.results / "episodes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, cell in done.items():
            first, weights, commit = cell["first_seed"], cell["weights_sha256"], cell["commit"]
            writer.writerows([name, 0, first + k, ok, float(ok), "", weights, commit] for k, ok in enumerate(cell["success"]))
    return rows


def row_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row of a cell."""
    low, high = wilson95(sum(cell["success"]), len(cell["success"]))
    return {
        "cell": cell["cell"], "robot": cell["robot"], "body": cell["body"], "scheduler": cell["consumer"],
        "delay_ms": cell["delay_ms"], "act_ms": cell["act_ms"], "train_seeds": 1, "episodes": len(cell["success"]),
        "success": float(np.mean(cell["success"])), "interval95": [low, high], **{key: cell[key] for key in grid.FIGURES},
        **{key: cell.get(key) for key in grid.LATENESS},
    }  # fmt: skip


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table for a terminal."""
    head = f"{'robot':<8}{'body':<9}{'consumer':<17}{'delay':>6}{'act':>7}{'success':>9}"
    head += f"{'seconds':>9}{'jerk':>8}{'seam':>8}{'idle':>7}{'age p95':>9}"
    lines = []
    for row in rows:
        told = (np.nan if row[key] is None else row[key] for key in ("seconds", "jerk", "seam_p95", "age_p95_ms"))
        seconds, jerk, seam, age_ms = told
        line = f"{row['robot']:<8}{row['body']:<9}{row['scheduler']:<17}{row['delay_ms']:>4}ms{row['act_ms']:>5}ms"
        lines.append(
            f"{line}{row['success']:>9.2f}{seconds:>9.2f}{jerk:>8.0f}{seam:>8.3f}{row['idle_share']:>7.2f}{age_ms:>7.0f}ms"
        )
    return "\n".join([head, *lines])
