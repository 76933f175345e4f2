"""Which episodes a verb works on: by place, by named list, by a condition on their facts, by what `data check` flagged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data._where import evaluate
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError, nearest

FILTER = "filter_"


@dataclass(frozen=True)
class Selection:
    """Which episodes; where several of these are given, an episode must meet them all."""

    episodes: str = ""
    """Places in the set, such as 0,3,5-9."""
    filter: str = ""
    """The episodes of one named list (see `robolearn data filter`)."""
    where: str = ""
    """A condition on the facts of an episode, such as "label == success and steps > 50"."""
    flagged: str = ""
    """Episodes with one of these flags in the report of --check, such as nan,frozen; any: with a flag at all."""
    check: Path | None = None
    """The report that --flagged reads, written by `robolearn data check SET --json FILE`."""
    invert: bool = False
    """Take all the others."""

    @property
    def given(self) -> bool:
        """True where anything is selected by."""
        return bool(self.episodes or self.filter or self.where or self.flagged or self.check)

    def indices(self, dataset: EpisodeSet) -> np.ndarray:
        """Returns the places of the chosen episodes, rising; all of them where nothing is selected by."""
        if self.invert and not self.given:
            raise BadInput("--invert: of what? give --episodes, --filter, --where or --flagged too")
        chosen = np.ones(dataset.n_episodes, bool)
        if self.episodes:
            listed = parse_ranges(self.episodes)
            for index in listed[-1:]:
                dataset.span(int(index))
            chosen &= np.isin(np.arange(dataset.n_episodes), listed)
        if self.filter:
            chosen &= np.isin(np.arange(dataset.n_episodes), filter_episodes(dataset, self.filter))
        if self.where:
            chosen &= evaluate(self.where, columns(dataset))
        if self.flagged or self.check:
            chosen &= _flagged(dataset, self.flagged, self.check)
        return np.flatnonzero(~chosen if self.invert else chosen)


def parse_ranges(text: str) -> np.ndarray:
    """Returns the numbers in "0,3,5-9", rising, each once."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise BadInput(f"--episodes: want places such as 0,3,5-9, got '{part}' in '{text}'")
        found.update(range(int(first), int(last or first) + 1))
    return np.array(sorted(found), np.int64)


def format_ranges(numbers: Iterable[int]) -> str:
    """Returns rising numbers as "0,3,5-9"; "" for none."""
    parts: list[list[int]] = []
    for number in map(int, numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def filters(dataset: EpisodeSet) -> dict[str, int]:
    """Returns how many episodes each named list holds, by its name."""
    names = [fact.removeprefix(FILTER) for fact in dataset.facts() if fact.startswith(FILTER)]
    return {name: len(filter_episodes(dataset, name)) for name in names}


def filter_episodes(dataset: EpisodeSet, name: str) -> np.ndarray:
    """Returns the places of the episodes in a named list, rising; DatasetError with the nearest name where there is none."""
    values = dataset.episode_field(FILTER + name)
    if values is None:
        known = [fact.removeprefix(FILTER) for fact in dataset.facts() if fact.startswith(FILTER)]
        hint = nearest(name, known) or "; the set has none, `robolearn data filter` makes one"
        raise DatasetError(f"{dataset.path}: no filter '{name}'{hint}")
    return np.flatnonzero(values == 1)


def columns(dataset: EpisodeSet) -> dict[str, np.ndarray]:
    """Returns what a condition may name: every fact, `index` and `steps`, one row an episode."""
    named = {name: field for name in dataset.facts() if (field := dataset.episode_field(name)) is not None}
    lengths = np.diff(dataset.episode_ends, prepend=0)
    return {**named, "index": np.arange(dataset.n_episodes), "steps": lengths}


def _flagged(dataset: EpisodeSet, flags: str, report: Path | None) -> np.ndarray:
    """Returns where an episode has one of the flags in a report of `data check`."""
    if report is None:
        raise BadInput(f"--flagged {flags}: in which report? write one with `robolearn data check {dataset.path} --json FILE`")
    rows = _report(report)
    if len(rows) != dataset.n_episodes:
        raise DatasetError(f"{report}: speaks of {len(rows)} episodes, {dataset.path} has {dataset.n_episodes}; check it again")
    wanted = {code.strip() for code in flags.split(",") if code.strip()} - {"any"}
    chosen = np.zeros(dataset.n_episodes, bool)
    for row in rows:
        codes = {_code(flag) for flag in row["flags"]}
        chosen[int(row["episode"])] = bool(codes & wanted if wanted else codes)
    return chosen


def _report(path: Path) -> list[dict[str, Any]]:
    strange = DatasetError(
        f"{path}: want the report of `robolearn data check --json` with the flags of every episode, got another file"
    )
    try:
        rows = list(json.loads(path.read_text())["episodes"])
        places = sorted(int(row["episode"]) for row in rows)
        whole = places == list(range(len(rows))) and all(isinstance(row["flags"], list) for row in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise strange from error
    if not whole:
        raise strange
    return rows


def _code(flag: Any) -> str:
    """Returns the code of a flag "code: text" (or of an object that has one)."""
    return str(flag.get("code", flag.get("flag", ""))) if isinstance(flag, dict) else str(flag).split(":")[0].strip()
