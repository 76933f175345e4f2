"""Labels that a person changes in the viewer: written to the set at once, with who and when, and undone one by one."""

from __future__ import annotations

import datetime
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.edit import LABELS, set_label
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

_FACTS = ("label", "label_by", "label_time")


@dataclass(frozen=True)
class Label:
    """What an episode is said to be, by whom ("env", "operator:NAME", "reviewer:NAME") and when (ISO 8601, UTC)."""

    label: str = ""
    by: str = ""
    time: str = ""


class Labels:
    """The labels of one set. closed: why they cannot be changed, "" where they can."""

    def __init__(self, dataset: EpisodeSet, read_only: bool = False) -> None:
        self.path, self._ends = dataset.path, dataset.episode_ends
        self.closed = why_closed(dataset.path, read_only)
        self._lock = threading.Lock()
        self._done: list[tuple[int, Label]] = []
        columns = [dataset.episode_field(name) for name in _FACTS]
        texts = [[""] * dataset.n_episodes if c is None or c.dtype.kind != "U" else c.tolist() for c in columns]
        self._now = [Label(*row) for row in zip(*texts, strict=True)]

    def __getitem__(self, index: int) -> Label:
        return self._now[index]

    @property
    def can_undo(self) -> bool:
        """Whether a change of this session can be taken back."""
        return bool(self._done)

    def set(self, index: int, label: str, reviewer: str) -> Label:
        """Gives one episode a label ("" = unknown) and returns it as it is on the disk now."""
        name = " ".join(reviewer.split())
        if label not in LABELS:
            raise BadInput(f"label: want one of {', '.join(filter(None, LABELS))} or unknown, got '{label}'")
        if not name:
            raise BadInput("a label needs a reviewer's name: type yours first")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._lock:
            before = self._now[index]
            self._write(index, Label(label, f"reviewer:{name}", now))
            self._done.append((index, before))
            return self._now[index]

    def undo(self) -> int | None:
        """Takes the last change back, who and when included; returns its episode, None where there is none."""
        with self._lock:
            if not self._done:
                return None
            index, before = self._done[-1]
            self._write(index, before)
            self._done.pop()
            return index

    def _write(self, index: int, label: Label) -> None:
        if self.closed:
            raise BadInput(f"{self.path}: labels cannot be changed: {self.closed}")
        dataset = EpisodeSet.open(self.path, writable=True)
        if not np.array_equal(dataset.episode_ends[: len(self._ends)], self._ends):
            raise DatasetError(f"{self.path}: its episodes were changed by another process; start the viewer again")
        set_label(dataset, [index], label.label, label.by, label.time)
        self._now[index] = label


def why_closed(path: Path, read_only: bool) -> str:
    """Returns why a set cannot be written to, "" where it can."""
    if read_only:
        return "the viewer was started with --read-only"
    if path.is_file():
        return "a .zip cannot be changed; unpack it first"
    if not os.access(path / "meta", os.W_OK):
        return "no permission to write to the set"
    return ""


def to_json(label: Label) -> dict[str, Any]:
    """Returns a label as plain JSON values."""
    return {"label": label.label, "by": label.by, "time": label.time}
