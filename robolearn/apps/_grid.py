"""The cells of a study, run one by one and kept one by one: what is done stays done, whatever ends the command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from tqdm import tqdm

from robolearn.apps._evaluate import Evaluation
from robolearn.apps._report import git_state, plain, versions
from robolearn.data._fan import fan_out
from robolearn.data._files import append_durably, read_lines

Done = dict[str, dict[str, Any]]


class Named(Protocol):
    """A cell: a figure of a study that can be made alone."""

    @property
    def name(self) -> str:
        """What it is called in the table, and by --cell."""


C = TypeVar("C", bound=Named)


def read_cells(path: Path) -> Done:
    """Returns the cells that are done, by name; a line that was cut off while it was written does not count."""
    return {line["cell"]: line for line in read_lines(path) if "cell" in line}


def advance(
    path: Path,
    wanted: Sequence[C],
    make: Callable[[C], dict[str, Any]],
    *,
    workers: int | Literal["ray"] = 1,
    minutes: float = 0.0,
    conclude: Callable[[Done], object] = lambda done: None,
) -> list[str]:
    """Makes the cells that `path` lacks, appends each there, and returns the names of those still missing.

    minutes: begin no cell later than that; 0: until all are done. conclude: called after each with all that are done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    todo, began = [cell for cell in wanted if cell.name not in read_cells(path)], time.monotonic()

    def in_time() -> Iterator[C]:
        for cell in todo:
            if minutes and time.monotonic() - began > 60 * minutes:
                return
            yield cell

    with tqdm(total=len(wanted), initial=len(wanted) - len(todo), unit="cell", disable=None) as bar:
        for found in fan_out(make, in_time(), workers):
            append_durably(path, json.dumps(plain(found), allow_nan=False))
            bar.update()
            bar.write(f"{found['cell']}: {sum(found['success'])} of {len(found['success'])}", file=sys.stderr)
            conclude(read_cells(path))
    done = read_cells(path)
    return [cell.name for cell in wanted if cell.name not in done]


def episode_rows(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row an episode of every cell, from which a table can be computed again."""
    out = []
    for found in cells:
        cell, _, seed = found["cell"].rpartition("/")
        same = {"cell": cell, "train_seed": seed, "alarm_step": "", "weights_sha256": found["weights_sha256"] or ""}
        for k, (success, score) in enumerate(zip(found["success"], found["score"], strict=True)):
            row = {"episode_seed": found["first_seed"] + k, "success": success, "score": score, "commit": found["commit"]}
            out.append(same | row)
    return out


def measured(done: Evaluation, began: float) -> dict[str, Any]:
    """Returns what a cell keeps of an evaluation: the outcome of every episode, of which weights, by which code, on what."""
    return {
        "success": [int(row["success"]) for row in done.rows],
        "steps": [row["steps"] for row in done.rows],
        "score": [round(row["score"], 4) for row in done.rows],
        "first_seed": done.options.seed,
        "weights_sha256": done.subject.weights_sha256,
        "commit": git_state()[0],
        "cpu": versions()["cpu"],
        "eval_s": round(done.wall_s, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "date": time.strftime("%Y-%m-%d"),
    }
