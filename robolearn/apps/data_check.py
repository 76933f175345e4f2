"""Checks a dataset for what spoils training: a card per episode and for the set; exit code 1 where it is unfit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from robolearn.apps import _check_page
from robolearn.apps._check_replay import replay_some
from robolearn.apps._report import write_json
from robolearn.data.check import CODES, ERRORS, Limits, Report, check, medians
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, nearest

_SHOWN = 20


@dataclass(frozen=True)
class Config:
    """Which set to check, and where a warning begins."""

    path: tyro.conf.Positional[Path]
    """A dataset: NAME.zarr, or a ReplayBuffer of another program."""
    workers: int | Literal["ray"] = 0
    """Processes that share the work; ray: a Ray cluster."""
    replay: int = 0
    """Replay the actions of so many episodes, spread over the set, in the simulator of its task."""
    strict: bool = False
    """End with exit code 1 for warnings too."""
    fail_on: str = ""
    """End with exit code 1 for these codes too, with commas between them: frozen,gap."""
    all: bool = False
    """Print every flagged episode, not only the first 20."""
    json: Path | None = None
    """Where to write the findings."""
    html: Path | None = None
    """Where to write them as a page that opens offline."""
    min_steps: int | None = None
    """The same as --limits.min-steps."""
    limits: Limits = field(default_factory=Limits)


def run(cfg: Config) -> int:
    """Prints what was found; warnings alone leave the exit code 0."""
    fatal = {code.strip() for code in cfg.fail_on.split(",") if code.strip()}
    if unknown := sorted(fatal - set(CODES)):
        raise BadInput(f"--fail-on: unknown code '{unknown[0]}'{nearest(unknown[0], CODES)}")
    limits = cfg.limits if cfg.min_steps is None else dataclasses.replace(cfg.limits, min_steps=cfg.min_steps)
    dataset = EpisodeSet.open(cfg.path)
    report = check(dataset, limits, cfg.workers)
    if cfg.replay:
        replay_some(dataset, report, cfg.replay, limits)
        report.medians = medians(report.cards)
    print(table(dataset, report, None if cfg.all else _SHOWN))
    write_json(cfg.json, {**report.to_json(), "limits": dataclasses.asdict(limits)})
    if cfg.html is not None:
        _check_page.write(cfg.html, dataset, report)
    codes = set(report.codes())
    return int(bool(report.n_errors or codes & fatal or (cfg.strict and codes)))


def table(dataset: EpisodeSet, report: Report, limit: int | None) -> str:
    """Returns the findings as text: grade, flags of the set, then flagged episodes, counts, and what was not checked."""
    grades = Counter(card.grade for card in report.cards)
    share = ", ".join(f"{grades[grade]} {grade}" for grade in "ABCD" if grades[grade])
    lines = [f"{dataset.path}: {dataset.n_episodes} episodes, {dataset.n_steps} steps; grade {report.grade} ({share})"]
    lines += [f"  set          {flag}" for flag in report.whole]
    flagged = [(card, flag) for card in report.cards for flag in card.flags]
    lines += [f"  episode {card.episode:<4} {card.grade} {flag}" for card, flag in flagged[:limit]]
    if limit is not None and len(flagged) > limit:
        lines.append(f"  ... and {len(flagged) - limit} more (--all)")
    lines += [f"  {note}" for note in report.notes]
    counts = Counter(report.codes())
    if not counts:
        return "\n".join([*lines, "nothing found"])
    named = [f"{count} {code}{' (error)' if code in ERRORS else ''}" for code, count in sorted(counts.items())]
    return "\n".join([*lines, ", ".join(named) + ("" if report.n_errors else ": warnings only, fit for training")])
