"""Study: a trained policy on a robot in closed loop, by what becomes of late plans, beside plain simulated evaluation."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps import _study_deploy as grid
from robolearn.apps._report import write_json
from robolearn.apps._study_deploy import Cell, Plan
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.data._fan import fan_out
from robolearn.data._files import append_durably
from robolearn.errors import BadInput
from robolearn.intervals import wilson95


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
    results: Path = Path("docs/results/deploy")
    """cells.jsonl and summary.json."""

    def __post_init__(self) -> None:
        """Refuses what cannot be studied; ValueError names the field."""
        if self.episodes < 1 or self.workers < 1 or any(delay < 0 for delay in self.delays_ms):
            raise ValueError(
                f"want episodes and workers >= 1 and delays >= 0, got {self.episodes}, {self.workers} and {self.delays_ms}"
            )


def run(cfg: Config) -> int:
    """Runs the cells that are missing, then writes the table of what there is."""
    wanted, path = cells_of(cfg), cfg.results / "cells.jsonl"
    cfg.results.mkdir(parents=True, exist_ok=True)
    done = grid.read_cells(path)
    seeds = (cfg.eval_seed, cfg.episodes)
    for cell in done.values():
        if (cell["first_seed"], len(cell["success"])) != seeds:
            raise BadInput(f"{path}: '{cell['cell']}' is of other episodes; give another --results")
    todo, began = [cell for cell in wanted if cell.name not in done], time.monotonic()
    plan = Plan(cfg.eval_seed, cfg.episodes)

    def in_time() -> Any:
        for cell in todo:
            if cfg.minutes and time.monotonic() - began > 60 * cfg.minutes:
                return
            yield cell

    with tqdm(total=len(wanted), initial=len(wanted) - len(todo), unit="cell", disable=None) as bar:
        for found in fan_out(partial(grid.run_cell, plan), in_time(), cfg.workers):
            append_durably(path, json.dumps(found))
            bar.update()
            bar.write(f"{found['cell']}: {sum(found['success'])} of {len(found['success'])}", file=sys.stderr)
            conclude(cfg, grid.read_cells(path))
    rows = conclude(cfg, grid.read_cells(path))
    print(text(rows))
    left = [cell.name for cell in wanted if cell.name not in grid.read_cells(path)]
    print(f"{len(wanted) - len(left)} of {len(wanted)} cells done" + (f"; next {left[0]}" if left else ""))
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
    """Writes and returns the table of all cells that are done."""
    rows = []
    for name, cell in done.items():
        low, high = wilson95(sum(cell["success"]), len(cell["success"]))
        kept = {key: cell[key] for key in ("robot", "body", "consumer", "delay_ms", "act_ms", *grid.FIGURES)}
        rows.append({"cell": name, "success": float(np.mean(cell["success"])), "interval95": [low, high], **kept})
    write_json(cfg.results / "summary.json", {"rows": rows, "episodes": cfg.episodes}, cfg.eval_seed)
    return rows


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table for a terminal."""
    head = f"{'robot':<8}{'body':<9}{'consumer':<17}{'delay':>6}{'act':>7}{'success':>9}"
    head += f"{'seconds':>9}{'jerk':>8}{'seam':>8}{'idle':>7}"
    lines = [
        f"{row['robot']:<8}{row['body']:<9}{row['consumer']:<17}{row['delay_ms']:>4}ms{row['act_ms']:>5}ms{row['success']:>9.2f}"
        f"{row['seconds']:>9.2f}{row['jerk']:>8.0f}{row['seam_p95']:>8.3f}{row['idle']:>7.2f}"
        for row in rows
    ]
    return "\n".join([head, *lines])
