"""Labels episodes of a dataset as success, failure or partial, with who says so and when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robolearn.apps._edit import counted, listed, now, say
from robolearn.apps._report import write_json
from robolearn.data.edit import Selection, set_label
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Config(Selection):
    """Which episodes, what they are, and who says so."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    label: Literal["success", "failure", "partial", "unknown"]
    """How they went; unknown takes a label back."""
    by: str
    """Who says so: a name (a reviewer's), or operator:NAME."""
    note: str = ""
    """Why; kept in NAME.episodes/labels.jsonl."""
    dry_run: bool = False
    """Say what would be labelled, write nothing."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Labels, and says which episodes."""
    if not cfg.given:
        raise BadInput("label: which episodes? give --episodes, --filter, --where or --flagged")
    dataset = EpisodeSet.open(cfg.path, writable=not cfg.dry_run)
    chosen, time = cfg.indices(dataset), now()
    if not cfg.by.strip():
        raise BadInput("label: by whom? give --by NAME")
    by = cfg.by.strip() if ":" in cfg.by else f"reviewer:{cfg.by.strip()}"
    if not cfg.dry_run:
        set_label(dataset, chosen, "" if cfg.label == "unknown" else cfg.label, by, time, cfg.note)
    if len(chosen):
        said = f"{cfg.path}: {counted(len(chosen), 'episode')} labelled {cfg.label} by {by}: {listed(chosen)}"
    else:
        said = f"{cfg.path}: the selection takes no episode; nothing to label"
    say([said], cfg.dry_run)
    write_json(
        cfg.json, {"path": cfg.path, "dry_run": cfg.dry_run, "episodes": chosen, "label": cfg.label, "by": by, "time": time}
    )
    return 0
