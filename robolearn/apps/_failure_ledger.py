"""What `study failure` has found so far, on disk: tables by case, so that a case that is there is not computed again."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.apps._failure import COLUMNS
from robolearn.apps._report import write_json
from robolearn.errors import BadInput

TABLES = ("duels", "official", "draws")
SAME = ("alpha", "draws", "split_seed")  # what all cases of one table share


@dataclass
class Found:
    """What the study has found so far, table by table; cases: the disturbances of each, by name."""

    facts: Mapping[str, Any]
    cases: dict[str, str] = field(default_factory=dict)
    summary: list[dict[str, Any]] = field(default_factory=list)
    duels: list[dict[str, Any]] = field(default_factory=list)
    official: list[dict[str, Any]] = field(default_factory=list)
    draws: list[dict[str, Any]] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> set[str]:
        """Names of the cases that are in the tables."""
        return {row["task"] for row in self.summary}

    def forget(self, case: str) -> None:
        """Leaves out all rows of one case."""
        for name in ("summary", "sets", *TABLES):
            rows = getattr(self, name)
            rows[:] = [row for row in rows if row["task"] != case]
        self.episodes[:] = [row for row in self.episodes if row["cell"].rpartition("/")[0] != case]
        self.cases.pop(case, None)


def read(folder: Path, facts: Mapping[str, Any]) -> Found:
    """Returns what is in the folder, nothing where no table is; BadInput where it was made with other `facts`."""
    found = Found(facts)
    if not (folder / "summary.json").is_file():
        return found
    summary = _object(folder / "summary.json")
    for name in SAME:
        if summary.get(name) != facts[name]:
            raise BadInput(f"{folder}: holds figures with {name} {summary.get(name)}, want {facts[name]}; give another --results")
    found.cases.update(summary["cases"])
    found.summary, found.sets = summary["rows"], summary["sets"]
    for name in TABLES:
        if (folder / f"{name}.json").is_file():
            setattr(found, name, _object(folder / f"{name}.json")["rows"])
    if (folder / "episodes.csv").is_file():
        with (folder / "episodes.csv").open(newline="") as file:
            found.episodes = list(csv.DictReader(file))
    return found


def write(folder: Path, found: Found, seed: int) -> None:
    """Writes the tables of what there is: summary.json, duels.json, official.json, draws.json, episodes.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = dict(found.facts) | {"cases": {name: found.cases[name] for name in found.cases if name in found.done}}
    write_json(folder / "summary.json", facts | {"sets": found.sets, "rows": found.summary}, seed=seed)
    for name in TABLES:
        write_json(folder / f"{name}.json", facts | {"rows": getattr(found, name)}, seed=seed)
    with (folder / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(found.episodes)


def merged(path: Path, rows: list[dict[str, Any]], key: str = "rows") -> list[dict[str, Any]]:
    """Returns rows by case of a file that may be there, those of the same cases replaced by `rows`."""
    mine = {row["task"] for row in rows}
    there = _object(path).get(key, []) if path.is_file() else []
    return [row for row in there if row["task"] not in mine] + rows


def _object(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path}: not JSON ({error}); move it away, or give another --results") from error
    return told
