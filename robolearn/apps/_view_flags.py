"""What `data check` found, as the viewer shows it: from a report of an earlier check, or from one made while the page is open."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.check import check
from robolearn.data.images import image_keys
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, RobolearnError

_MOST_BYTES = 4 * 2**30  # of pictures, decoded, that are checked unasked
_SPAN = re.compile(r"rows? (\d+) to (\d+)")
_ROW = re.compile(r"\brow (\d+)")


class Flags:
    """The findings of one set. state: "running", "done" or "none" (then `why` says why)."""

    def __init__(self) -> None:
        self.state, self.why, self.grade = "none", "", ""
        self.whole: list[str] = []
        self.episodes: dict[int, list[dict[str, Any]]] = {}

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values."""
        return {"state": self.state, "why": self.why, "grade": self.grade, "set": self.whole, "episodes": self.episodes}


def flags_of(dataset: EpisodeSet, report: Path | None) -> Flags:
    """Returns the flags of a report, or, without one, flags that a check in the background fills in."""
    flags = Flags()
    if report is not None:
        _read(flags, report, dataset)
        return flags
    size = sum(dataset.n_steps * int(np.prod(dataset.keys[key].shape)) for key in image_keys(dataset))
    if size > _MOST_BYTES:
        flags.why = (
            f"not checked: {size / 2**30:.0f} GiB of pictures; run `robolearn data check {dataset.path} --json check.json` "
            "and start the viewer with --check check.json"
        )
        return flags
    flags.state = "running"
    threading.Thread(target=_run, args=(flags, dataset), daemon=True).start()
    return flags


def _run(flags: Flags, dataset: EpisodeSet) -> None:
    try:
        found = check(dataset)
    except RobolearnError as error:
        flags.state, flags.why = "none", f"the check could not end: {error}"
        return
    _take(flags, found.to_json())


def _read(flags: Flags, report: Path, dataset: EpisodeSet) -> None:
    try:
        values = json.loads(report.read_text())
        count = len(values["episodes"])
        if count == dataset.n_episodes:
            _take(flags, values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{report}: want a report of `robolearn data check SET --json FILE`, got {type(error).__name__}"
        ) from error
    if count != dataset.n_episodes:
        raise BadInput(f"{report}: a report on {count} episodes, {dataset.path} has {dataset.n_episodes}; check it again")


def _take(flags: Flags, report: dict[str, Any]) -> None:
    """Fills flags from a report of `data check`; older reports say rows in their text only."""
    flags.whole = [str(flag) for flag in report.get("set_flags", [])]
    flags.grade = str(report.get("set_card", {}).get("grade", ""))
    for row in report["episodes"]:
        marks = [*map(placed, row.get("flag_rows", []))] or [*map(parsed, row["flags"])]
        if marks:
            flags.episodes[int(row["episode"])] = marks
    flags.state = "done"


def placed(mark: dict[str, Any]) -> dict[str, Any]:
    """Returns {code, text, key, first, last} of a check's {code, text, key, rows: [first, last]}."""
    rows: Iterable[int] = mark.get("rows") or (None, None)  # type: ignore[assignment]
    first, last = rows
    return {"code": mark["code"], "text": mark.get("text", ""), "key": mark.get("key", ""), "first": first, "last": last}


def parsed(flag: str) -> dict[str, Any]:
    """Returns {code, text, key, first, last} of "code: text"; first is None where the text names no row."""
    code, _, text = flag.partition(": ")
    span, row = _SPAN.search(text), _ROW.search(text)
    first, last = (int(span[1]), int(span[2])) if span else (int(row[1]), int(row[1])) if row else (None, None)
    return {"code": code, "text": text, "key": re.split(r"[ ,\[]", text)[0], "first": first, "last": last}
